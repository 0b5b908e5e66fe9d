//! What stands between hosts and a relay: caches of our own making, well or badly
//! behaved, nginx, and networks that let some of it through.
#![allow(dead_code, unreachable_pub)] // each test file uses its own part of this

use bytes::Bytes;
use rootcast_transport::Identity;
use rootcast_transport::https::{
    Ask, Caches, HttpAnswer, HttpRequest, HttpsConnection, HttpsDialer, HttpsListener, Keep,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

const ASK: Ask = Ask { limit: 1 << 26, wait: Duration::from_secs(20), caches: Caches::Welcome };

/// How a cache behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// It flips a byte of each answer whose name has this in it.
    Flips(&'static str),
    /// As before, for edits, unless it is told to ask anew.
    FlipsUnlessAsked,
    /// Each edit is zeros, which unpack to far more than they are.
    Bomb,
    /// Each leaf is far longer than any leaf.
    Endless,
    /// It has news, and nothing else.
    NotFound,
    /// The first news that it saw is all that it ever tells.
    FirstNewsForEver,
}

/// A cache: for children it is a relay, and asks the real one as a relay.
pub struct Middle {
    pub address: SocketAddr,
    asked: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    upstream: SocketAddr,
    dialer: HttpsDialer,
    habit: Habit,
    asked: watch::Sender<u64>,
    news: Mutex<Option<Bytes>>,
}

impl Middle {
    pub async fn start(identity: &Identity, upstream: SocketAddr, habit: Habit) -> Self {
        let listener = HttpsListener::listen(identity, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), watch::Sender::new(0));
        let dialer = HttpsDialer::new(identity).unwrap();
        let shared =
            Arc::new(Shared { upstream, dialer, habit, asked: asked.clone(), news: Mutex::default() });
        let task = tokio::spawn(async move {
            let mut callers = tokio::task::JoinSet::new();
            loop {
                let (arrival, shared) = (listener.accept().await, shared.clone());
                callers.spawn(async move {
                    let Ok(session) = arrival.arrive().await else { return };
                    let Ok(up) = shared.dialer.connect(&shared.upstream.to_string()).await else { return };
                    let up = Mutex::new(up);
                    let _ = session.serve(|request| shared.answer(&up, request)).await;
                });
            }
        });
        Self { address, asked, task }
    }

    /// Waits until it was asked for news so many times more.
    pub async fn asked_again(&self, count: u64) {
        let mut asked = self.asked.subscribe();
        let wanted = *asked.borrow() + count;
        let wait = asked.wait_for(|asked| *asked >= wanted);
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("questions").unwrap();
    }
}

fn flipped(bytes: Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let at = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1;
    }
    bytes.into()
}

impl Shared {
    async fn answer(&self, up: &Mutex<HttpsConnection>, request: HttpRequest) -> HttpAnswer {
        let target = request.target;
        let is_news = target.contains("/news");
        if is_news {
            self.asked.send_modify(|asked| *asked += 1);
        }
        if self.habit == Habit::NotFound && !is_news {
            return HttpAnswer::of_status(404);
        }
        if let (Habit::FirstNewsForEver, true, Some(old)) =
            (self.habit, is_news, self.news.lock().await.clone())
        {
            return found(old);
        }
        let Ok(Some(body)) = up.lock().await.get(&target, ASK).await else {
            return HttpAnswer::of_status(404);
        };
        if is_news {
            *self.news.lock().await = Some(body.clone());
        }
        found(match self.habit {
            Habit::Flips(part) if target.contains(part) => flipped(body),
            Habit::FlipsUnlessAsked if target.contains("/edit/") && !request.asks_anew => flipped(body),
            Habit::Bomb if target.contains("/edit/") => {
                let Ok(edits) = rootcast::http::EditBody::read(&body) else { return found(body) };
                let zeros = edits.edits.iter().map(|edit| vec![0; edit.len()].into()).collect();
                rootcast::http::EditBody { edits: zeros, ..edits }.into_pieces().concat().into()
            }
            Habit::Endless if target.contains("/leaf/") => vec![0; 1 << 22].into(),
            _ => body,
        })
    }
}

fn found(body: Bytes) -> HttpAnswer {
    HttpAnswer {
        status: 200,
        media_type: "application/octet-stream",
        tag: None,
        keep: Keep::No,
        pieces: vec![body],
    }
}

/// An address at which TCP is let through to another, and UDP is not.
pub async fn tcp_only(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut to) = TcpStream::connect(to).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// Lets the datagrams of one caller through, from now on.
pub async fn forward_udp(at: SocketAddr, to: SocketAddr) -> JoinHandle<()> {
    let near = UdpSocket::bind(at).await.unwrap();
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    tokio::spawn(async move {
        let (mut caller, mut out, mut back) = (None, [0; 2048], [0; 2048]);
        loop {
            tokio::select! {
                Ok((count, from)) = near.recv_from(&mut out) => {
                    caller = Some(from);
                    let _ = far.send_to(&out[..count], to).await;
                }
                Ok((count, _)) = far.recv_from(&mut back) => {
                    if let Some(caller) = caller {
                        let _ = near.send_to(&back[..count], caller).await;
                    }
                }
            }
        }
    })
}

/// Whether nginx can be run here.
pub fn nginx_is_there() -> bool {
    Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// nginx under the identity of a relay, with docs/nginx.conf.
pub struct Nginx {
    pub address: SocketAddr,
    log: PathBuf,
    process: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Nginx {
    pub async fn start(identity: &Path, upstream: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        // The port is free, or nginx says so.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/nginx.conf");
        let mut config = std::fs::read_to_string(example).unwrap();
        let log = path.join("access.log");
        for (from, to) in [
            ("/etc/rootcast", identity.to_str().unwrap()),
            ("/var/cache/nginx/rootcast", path.join("cache").to_str().unwrap()),
            ("/var/log/nginx/rootcast.log", log.to_str().unwrap()),
            ("/run/nginx-rootcast.pid", path.join("pid").to_str().unwrap()),
            ("0.0.0.0:7400", &address.to_string()),
            ("127.0.0.1:7401", &upstream.to_string()),
        ] {
            assert!(config.contains(from), "docs/nginx.conf has {from}");
            config = config.replace(from, to);
        }
        // Where the distribution's paths would be, and nothing in the background.
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};\n", path.join(kind).display()))
            .concat();
        let config = config.replace("http {\n", &format!("http {{\n{temporary}"));
        let config = format!(
            "daemon off;\nmaster_process off;\nerror_log {};\n{config}",
            path.join("error.log").display()
        );
        let file = path.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let process = Command::new("nginx")
            .args(["-p", path.to_str().unwrap(), "-c", file.to_str().unwrap()])
            .arg("-e")
            .arg(path.join("error.log"))
            .spawn()
            .unwrap();
        let mut nginx = Self { address, log, process, _directory: directory };
        let answers = async {
            while TcpStream::connect(address).await.is_err() {
                if let Ok(Some(status)) = nginx.process.try_wait() {
                    let said = std::fs::read_to_string(nginx._directory.path().join("error.log"));
                    panic!("nginx ended with {status}: {said:?}");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), answers).await.expect("nginx answers");
        nginx
    }

    /// Its log, once that has this part of a name after so many lines: a line is written when the answer has left.
    pub async fn logged(&self, after: usize, part: &str) -> Vec<String> {
        let lines = async {
            loop {
                let lines = self.log();
                if lines.iter().skip(after).any(|line| line.contains(part)) {
                    return lines;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), lines).await.expect("a line of the log")
    }

    /// Lines of its log: the state of the cache, the status, and the name asked for.
    pub fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
