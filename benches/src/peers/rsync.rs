//! rsync, with its daemon.

use super::counter::Counter;
use super::program::{Call, cpu_told};
use super::worktree::Worktree;
use super::{CommitId, Peer, PeerError, Place};
use crate::cost::Cost;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, mem};

/// As shown.
pub(super) const NAME: &str = "rsync -az --delete (daemon)";
/// How long the daemon may take to end once its client has.
const ENDING: Duration = Duration::from_secs(20);
/// Daemons whose CPU time has not been asked for.
const UNTOLD: usize = 16;

/// The tree of the new commit behind `rsync --daemon`, and a client with that of the old one; files
/// that did not change have the same times in both. rsync keeps several exchanges under way at once, so
/// round trips are not told. The server's CPU time is the daemon's; writing the new tree is not in it.
pub(super) struct Rsync {
    place: Place,
    tree: Worktree,
    client: PathBuf,
    server: Option<Served>,
}

struct Served {
    daemon: Daemon,
    counter: Counter,
}

impl Rsync {
    pub(super) fn new(place: Place) -> Self {
        let tree = Worktree::new(&place, "served");
        Self { client: place.scratch.join("client"), tree, place, server: None }
    }

    fn publish(&self) -> Result<Served, PeerError> {
        let scratch = &self.place.scratch;
        let failed = PeerError::at("rsync", scratch);
        fs::create_dir_all(scratch).map_err(&failed)?;
        let configuration = scratch.join("rsyncd.conf");
        // The super-user's daemon would read files as nobody, who may not look into our directory.
        let user = if rustix::process::getuid().is_root() { "uid = 0\ngid = 0\n" } else { "" };
        let text = format!(
            "use chroot = no\nreverse lookup = no\nlog file = {}\n{user}[tree]\npath = {}\nread only = yes\n",
            scratch.join("rsyncd.log").display(),
            self.tree.root().display()
        );
        fs::write(&configuration, text).map_err(PeerError::at("rsync", &configuration))?;
        let call = Call::new("rsync", scratch).arg("--daemon").arg("--config").arg(&configuration);
        let daemon = Daemon::start(call).map_err(&failed)?;
        let counter = Counter::start(daemon.address).map_err(&failed)?;
        Ok(Served { daemon, counter })
    }

    /// Makes the client's files those of `from`, with the times that the server had for them.
    fn prepare(&mut self, from: Option<&CommitId>) -> Result<(), PeerError> {
        let Some(from) = from else {
            super::worktree::clear(&self.client).map_err(PeerError::at("rsync", &self.client))?;
            return fs::create_dir(&self.client).map_err(PeerError::at("rsync", &self.client));
        };
        self.tree.go(from)?;
        let copy = Call::new("rsync", &self.place.scratch).args(["-a", "--delete"]);
        copy.arg(self.tree.root().join("")).arg(self.client.join("")).run().map(|_| ())
    }
}

impl Peer for Rsync {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step(&mut self, from: Option<&CommitId>, to: &CommitId) -> Result<Cost, PeerError> {
        if self.server.is_none() {
            self.server = Some(self.publish()?);
        }
        self.prepare(from)?;
        self.tree.go(to)?;
        let Some(server) = &self.server else { return Err(super::no_server("rsync")) };
        let failed = PeerError::at("rsync", &self.place.scratch);
        server.daemon.forget();
        server.counter.take().map_err(&failed)?;
        // The list of files in one piece is a few per cent smaller.
        let url = format!("rsync://{}/tree/", server.counter.address());
        let client =
            Call::new("rsync", &self.place.scratch).args(["-az", "--delete", "--no-inc-recursive", &url]);
        let client = client.arg(self.client.join("")).timed()?;
        let traffic = server.counter.take().map_err(&failed)?;
        Ok(Cost {
            down: traffic.down,
            up: traffic.up,
            round_trips: None,
            server_cpu: server.daemon.cpu(),
            client_cpu: client.cpu,
            wall: client.wall,
        })
    }

    #[cfg(test)]
    fn held(&self, into: &Path) -> Result<(), PeerError> {
        fs::rename(&self.client, into).map_err(PeerError::at("rsync", into))
    }
}

/// A listener that starts a daemon for each connection, as inetd does, one at a time; so each one's CPU time
/// is known. Ends when dropped.
struct Daemon {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    times: Receiver<Option<Duration>>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    fn start(call: Call) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let (tell, times) = mpsc::sync_channel(UNTOLD);
        let theirs = Arc::clone(&ended);
        let thread = thread::spawn(move || serve(&listener, &call, &theirs, &tell));
        Ok(Self { address, ended, times, thread: Some(thread) })
    }

    /// CPU time of the daemon for the connection just ended.
    fn cpu(&self) -> Option<Duration> {
        self.times.recv_timeout(ENDING).ok().flatten()
    }

    /// Leaves what a client that failed took.
    fn forget(&self) {
        while self.times.try_recv().is_ok() {}
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Nobody waits for a time now, so that the thread cannot wait to tell one.
        let (_, nothing) = mpsc::sync_channel(0);
        drop(mem::replace(&mut self.times, nothing));
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, call: &Call, ended: &AtomicBool, tell: &SyncSender<Option<Duration>>) {
    while let Ok((stream, _)) = listener.accept() {
        if ended.load(Ordering::SeqCst) {
            return;
        }
        // What goes wrong here the client reports: its connection breaks.
        let cpu = daemon(stream, call).unwrap_or_default();
        if tell.send(cpu).is_err() {
            return;
        }
    }
}

/// One daemon, from the start to the end of its connection, which is its standard input and output.
fn daemon(stream: TcpStream, call: &Call) -> io::Result<Option<Duration>> {
    let mut command = call.under_a_clock();
    command.stdin(OwnedFd::from(stream.try_clone()?)).stdout(OwnedFd::from(stream)).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // It holds the other copies of the socket, which must close when the daemon does.
    drop(command);
    let mut told = Vec::new();
    if let Some(complaints) = &mut child.stderr {
        complaints.read_to_end(&mut told)?;
    }
    child.wait()?;
    Ok(cpu_told(&told))
}
