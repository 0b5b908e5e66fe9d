//! The local API: HTTP over a unix socket, for programs on this host
//! (specs/local.md, LA-1 to LA-11).

mod answer;
mod events;
mod files;
mod values;

pub use events::{Generation, Generations};
pub use files::FileError;

use crate::drift::DriftStatus;
use answer::{Body, Request, answer};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rootcast::limits::{LOCAL_WAIT, MAX_LOCAL_CLIENTS, MAX_LOCAL_HEAD, MAX_LOCAL_READS, MAX_LOCAL_WATCHERS};
use rootcast::status::Condition;
use rootcast_replica::Replica;
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, watch};

/// The permission bits of the socket.
const SOCKET_MODE: u32 = 0o660;

/// How the host stands with its relays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Relay {
    /// The one that is followed; empty where none is.
    pub address: String,
    /// Since when it is, or since when none is, in seconds since 1970.
    pub since: u64,
}

/// What the local API tells of.
pub(crate) struct Local {
    pub(crate) name: String,
    /// The directory of `current`.
    pub(crate) home: PathBuf,
    pub(crate) replica: Arc<Replica>,
    pub(crate) said: watch::Receiver<Condition>,
    pub(crate) drift: watch::Receiver<DriftStatus>,
    pub(crate) relay: watch::Receiver<Relay>,
    pub(crate) generations: watch::Receiver<Generations>,
    room: Room,
}

/// How much may be done at once.
struct Room {
    watchers: Arc<Semaphore>,
    reads: Semaphore,
}

impl Local {
    pub(crate) fn new(
        name: String,
        home: PathBuf,
        replica: Arc<Replica>,
        said: watch::Receiver<Condition>,
        drift: watch::Receiver<DriftStatus>,
        relay: watch::Receiver<Relay>,
        generations: watch::Receiver<Generations>,
    ) -> Self {
        let watchers = Arc::new(Semaphore::new(MAX_LOCAL_WATCHERS));
        let room = Room { watchers, reads: Semaphore::new(MAX_LOCAL_READS) };
        Self { name, home, replica, said, drift, relay, generations, room }
    }
}

/// Opens the socket: whole, with its mode, before anybody finds it. One that is there and that nobody
/// listens at is replaced; whoever runs has the agent's store to itself, so it is not in use.
///
/// # Errors
/// What the system says; also where something else than a socket has the name.
pub(crate) fn open(path: &Path) -> io::Result<UnixListener> {
    let beside = path.with_extension("new");
    for old in [path, &beside] {
        match std::fs::symlink_metadata(old) {
            Ok(found) if !found.file_type().is_socket() => {
                let text = format!("{} is there, and is no socket", old.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            _ => {}
        }
    }
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    std::fs::rename(&beside, path)?;
    Ok(listener)
}

/// Answers, for ever. At most [`MAX_LOCAL_CLIENTS`] at once; more wait for one to leave.
pub(crate) async fn serve(listener: Option<UnixListener>, local: Arc<Local>) {
    let Some(listener) = listener else { return std::future::pending().await };
    let room = Arc::new(Semaphore::new(MAX_LOCAL_CLIENTS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a local client could not be accepted");
                tokio::time::sleep(LOCAL_WAIT / 10).await;
                continue;
            }
        };
        let local = local.clone();
        tokio::spawn(async move {
            converse(stream, local).await;
            drop(permit);
        });
    }
}

/// One request of one client. It has [`LOCAL_WAIT`], unless it watches: then it is left once it is stuck.
async fn converse(stream: UnixStream, local: Arc<Local>) {
    let (watches, stuck) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (began, left) = (watches.clone(), stuck.clone());
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let request = Request { request, watches: watches.clone(), stuck: stuck.clone() };
        let local = local.clone();
        async move { Ok::<hyper::Response<Body>, Infallible>(answer(request, local).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(LOCAL_WAIT)
        .keep_alive(false)
        .max_buf_size(MAX_LOCAL_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let over = async {
        tokio::select! {
            biased;
            () = tokio::time::sleep(LOCAL_WAIT) => {}
            () = began.notified() => left.notified().await,
        }
    };
    tokio::select! {
        biased;
        _ = connection => {}
        () = over => {}
    }
}
