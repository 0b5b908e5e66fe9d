//! An HTTP/1.1 server on loopback: static files, or git's own CGI program.

use super::PeerError;
use super::program::{Call, cpu_told};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, io, mem};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::{Semaphore, oneshot};

/// Connections that are served at once.
const CONNECTIONS: usize = 64;
/// Largest body of a request; a fetch sends a few lines a commit.
const BODY: usize = 64 * 1024 * 1024;
/// Longest head of a CGI program's answer.
const HEAD: u64 = 64 * 1024;
/// Bytes of a CGI program's answer that go out together.
const PIECE: usize = 32 * 1024;
/// How long a CGI program may take to end once its client has.
const ENDING: Duration = Duration::from_secs(20);

/// What is served.
pub(super) enum Content {
    /// The files below a directory.
    Files(PathBuf),
    /// The bare repositories below a directory, through `git http-backend`.
    Git(PathBuf),
}

/// The server; ends when dropped.
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Where the system tells what the server's thread has run for.
    clock: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What requests share.
struct Shared {
    content: Content,
    requests: AtomicU64,
    programs: Mutex<Programs>,
    ended: Condvar,
}

/// CGI programs.
#[derive(Default)]
struct Programs {
    running: usize,
    cpu: Duration,
}

impl Shared {
    fn programs(&self) -> MutexGuard<'_, Programs> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Serves `content` on a port of its own, from one thread.
    ///
    /// # Errors
    /// When no port or no runtime can be had.
    pub(super) fn start(content: Content) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared {
            content,
            requests: AtomicU64::new(0),
            programs: Mutex::default(),
            ended: Condvar::new(),
        });
        let (stop, stopped) = oneshot::channel();
        let (told, heard) = sync_channel(1);
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let _ = told.send(fs::read_link("/proc/thread-self"));
            let _ = runtime.block_on(async {
                tokio::select! {
                    ended = accept(listener, theirs) => ended,
                    _ = stopped => Ok(()),
                }
            });
        });
        let task = heard.recv().map_err(io::Error::other)??;
        let clock = Path::new("/proc").join(task).join("schedstat");
        Ok(Self { address, shared, clock, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests since the last call.
    pub(super) fn take_requests(&self) -> u64 {
        self.shared.requests.swap(0, Ordering::SeqCst)
    }

    /// CPU time so far: that of the server's thread, and of CGI programs with their descendants, for whose
    /// end this waits. Nothing where the system does not tell, or a program does not end.
    pub(super) fn cpu(&self) -> Option<Duration> {
        let waited = self
            .shared
            .ended
            .wait_timeout_while(self.shared.programs(), ENDING, |programs| programs.running > 0);
        let (programs, late) = waited.unwrap_or_else(PoisonError::into_inner);
        if late.timed_out() {
            return None;
        }
        let told = fs::read_to_string(&self.clock).ok()?;
        let thread = Duration::from_nanos(told.split(' ').next()?.parse().ok()?);
        Some(thread + programs.cpu)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return Ok(()) };
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(answer(request, &shared).await) }
            });
            // A client that goes away is its own matter: its program tells.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            drop(permit);
        });
    }
}

async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Answer> {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    match &shared.content {
        Content::Files(root) => file(root, request.uri().path()),
        Content::Git(root) => git(root, request, shared)
            .await
            .unwrap_or_else(|error| whole(StatusCode::INTERNAL_SERVER_ERROR, error.to_string().into_bytes())),
    }
}

fn whole(status: StatusCode, bytes: Vec<u8>) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(Bytes::from(bytes))));
    *response.status_mut() = status;
    response
}

/// A file below `root`; names that need percent-encoding are not served, no peer has any.
fn file(root: &Path, path: &str) -> Response<Answer> {
    let path = Path::new(path.trim_start_matches('/'));
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    match if plain { fs::read(root.join(path)) } else { Err(io::ErrorKind::NotFound.into()) } {
        Ok(bytes) => whole(StatusCode::OK, bytes),
        Err(_) => whole(StatusCode::NOT_FOUND, Vec::new()),
    }
}

/// Runs `git http-backend`, by the rules of RFC 3875.
async fn git(
    root: &Path,
    request: Request<Incoming>,
    shared: &Arc<Shared>,
) -> Result<Response<Answer>, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY).collect().await?.to_bytes();
    let header = |name: &HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let mut call = Call::git(root)
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("CONTENT_LENGTH", body.len().to_string());
    let passed = [
        ("CONTENT_TYPE", CONTENT_TYPE),
        ("HTTP_CONTENT_ENCODING", CONTENT_ENCODING),
        ("GIT_PROTOCOL", HeaderName::from_static("git-protocol")),
    ];
    for (variable, name) in &passed {
        if let Some(value) = header(name) {
            call = call.env(variable, value);
        }
    }
    let mut command = Command::from(call.under_a_clock());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (Some(mut input), Some(output), Some(complaints)) = (input, output, child.stderr.take()) else {
        return Err("the program has no standard streams".into());
    };
    shared.programs().running += 1;
    tokio::spawn(ending(child, complaints, Arc::clone(shared)));
    // The program reads all of it before it answers, or ends and refuses the rest.
    let _ = input.write_all(&body).await;
    drop(input);
    let mut output = BufReader::with_capacity(PIECE, output);
    let mut response = Response::new(());
    read_head(&mut output, &mut response).await?;
    Ok(response.map(|()| Answer::Streamed(output, Vec::new())))
}

/// Waits for the end of a program and adds the CPU time that it took.
async fn ending(mut child: Child, mut complaints: ChildStderr, shared: Arc<Shared>) {
    let mut told = Vec::new();
    let _ = complaints.read_to_end(&mut told).await;
    let _ = child.wait().await;
    let mut programs = shared.programs();
    programs.running -= 1;
    programs.cpu += cpu_told(&told).unwrap_or_default();
    shared.ended.notify_all();
}

/// Reads the head of a CGI answer.
async fn read_head(
    output: &mut BufReader<ChildStdout>,
    response: &mut Response<()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut output = output.take(HEAD);
    loop {
        let mut line = String::new();
        output.read_line(&mut line).await?;
        if !line.ends_with('\n') {
            return Err("git http-backend ended within the head of its answer".into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(());
        }
        let (name, value) = line.split_once(": ").ok_or("git http-backend's answer has no head")?;
        if name.eq_ignore_ascii_case("status") {
            *response.status_mut() = StatusCode::from_bytes(value.get(..3).unwrap_or_default().as_bytes())?;
        } else {
            response.headers_mut().insert(HeaderName::try_from(name)?, HeaderValue::from_str(value)?);
        }
    }
}

/// The body of a response.
enum Answer {
    Whole(Option<Bytes>),
    /// From a program, as it comes, and the piece that is being filled.
    Streamed(BufReader<ChildStdout>, Vec<u8>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(output, piece) => {
                // Whole pieces, as servers do: what each small write of the program costs in framing
                // would be chance.
                while piece.len() < PIECE {
                    let mut room = [0; PIECE];
                    let mut buffer = ReadBuf::new(room.get_mut(piece.len()..).unwrap_or_default());
                    ready!(Pin::new(&mut *output).poll_read(context, &mut buffer))?;
                    if buffer.filled().is_empty() {
                        break;
                    }
                    piece.extend_from_slice(buffer.filled());
                }
                let piece = Bytes::from(mem::take(piece));
                Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streamed(..) => SizeHint::default(),
        }
    }
}

/// A server with the proxy that counts before it.
pub(super) struct Counted {
    program: &'static str,
    server: Server,
    counter: super::counter::Counter,
}

/// What a client that has ended took, beside its own time.
pub(super) struct Served {
    /// Bytes both ways.
    pub(super) traffic: super::counter::Traffic,
    /// Requests.
    pub(super) requests: u64,
    /// CPU time of the server.
    pub(super) cpu: Option<Duration>,
}

impl Counted {
    /// Serves `content` to the clients of `program`.
    ///
    /// # Errors
    /// When no port can be had.
    pub(super) fn start(program: &'static str, content: Content) -> Result<Self, PeerError> {
        let failed = |error: io::Error| PeerError { program, what: format!("its server: {error}") };
        let server = Server::start(content).map_err(failed)?;
        let counter = super::counter::Counter::start(server.address()).map_err(failed)?;
        Ok(Self { program, server, counter })
    }

    /// The address of `path` through the proxy.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.counter.address())
    }

    /// Runs a client and says what its end and ours took. Both have come to rest when it returns.
    ///
    /// # Errors
    /// When the client fails, or a connection of it stays open.
    pub(super) fn serve(&self, client: &Call) -> Result<(super::program::Timed, Served), PeerError> {
        let failed = |error: io::Error| PeerError { program: self.program, what: error.to_string() };
        self.counter.take().map_err(failed)?;
        self.server.take_requests();
        let before = self.server.cpu();
        let timed = client.timed()?;
        let traffic = self.counter.take().map_err(failed)?;
        let cpu = self.server.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
        Ok((timed, Served { traffic, requests: self.server.take_requests(), cpu }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn ask(server: &Server, path: &str) -> String {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn files_below_the_root_are_served_and_no_others() {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir_all(scratch.path().join("served/a")).unwrap();
        fs::write(scratch.path().join("served/a/b"), "content").unwrap();
        fs::write(scratch.path().join("secret"), "secret").unwrap();
        let server = Server::start(Content::Files(scratch.path().join("served"))).unwrap();
        let answer = ask(&server, "/a/b");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\ncontent"), "{answer}");
        assert!(answer.contains("content-length: 7\r\n"), "{answer}");
        for path in ["/a/c", "/../secret", "/a/../../secret", "/"] {
            assert!(ask(&server, path).starts_with("HTTP/1.1 404 "), "{path}");
        }
        assert_eq!(server.take_requests(), 5);
        assert_eq!(server.take_requests(), 0);
        assert!(server.cpu().unwrap() > Duration::ZERO);
    }

    #[test]
    fn a_repository_that_is_not_there_is_the_programs_answer() {
        let scratch = tempfile::tempdir().unwrap();
        let server = Server::start(Content::Git(scratch.path().to_owned())).unwrap();
        let answer = ask(&server, "/no.git/info/refs?service=git-upload-pack");
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
        let before = server.cpu().unwrap();
        assert_eq!(server.shared.programs().running, 0);
        assert!(before >= server.shared.programs().cpu);
    }
}
