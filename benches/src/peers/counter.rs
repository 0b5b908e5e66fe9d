//! A TCP proxy on loopback that counts what passes, both ways.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Connections that are open at once; further ones wait in the listener's queue.
const CONNECTIONS: usize = 64;
/// Bytes that one read may return.
const BUFFER: usize = 64 * 1024;
/// How long connections may take to close once the client has ended.
const CLOSING: Duration = Duration::from_secs(20);

/// Bytes of payload that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traffic {
    /// To the client.
    pub(super) down: u64,
    /// From the client.
    pub(super) up: u64,
}

/// Forwards connections to one address and counts; ends when dropped.
pub(super) struct Counter {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    down: AtomicU64,
    up: AtomicU64,
    ended: AtomicBool,
    /// Directions of connections that are still open.
    open: Mutex<usize>,
    closed: Condvar,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, usize> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until at most `most` directions are open; whether it came to that in time.
    fn wait(&self, most: usize, time: Duration) -> bool {
        let waited = self.closed.wait_timeout_while(self.open(), time, |open| *open > most);
        *waited.unwrap_or_else(PoisonError::into_inner).0 <= most
    }
}

impl Counter {
    /// A proxy to `target` on a port of its own.
    ///
    /// # Errors
    /// When no port can be had.
    pub(super) fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept(&listener, target, &theirs));
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Where clients connect.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has passed since the last call; waits for the connections to close, so that all is counted.
    ///
    /// # Errors
    /// When some stay open although the client has ended.
    pub(super) fn take(&self) -> io::Result<Traffic> {
        if !self.shared.wait(0, CLOSING) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a counted connection stays open"));
        }
        let (down, up) = (&self.shared.down, &self.shared.up);
        Ok(Traffic { down: down.swap(0, Ordering::SeqCst), up: up.swap(0, Ordering::SeqCst) })
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.closed.notify_all();
        // Wakes the thread from its wait for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        // A connection too many is refused: nothing here opens that many, and the client says so.
        if !shared.wait(2 * CONNECTIONS, CLOSING) {
            continue;
        }
        // So is one whose server has gone.
        let _ = forward(client, target, shared);
    }
}

fn forward(client: TcpStream, target: SocketAddr, shared: &Arc<Shared>) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = (client.try_clone()?, client);
    let (from_server, to_server) = (server.try_clone()?, server);
    *shared.open() += 2;
    for (from, to, down) in [(from_client, to_server, false), (from_server, to_client, true)] {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            copy(from, to, if down { &shared.down } else { &shared.up });
            *shared.open() -= 1;
            shared.closed.notify_all();
        });
    }
    Ok(())
}

/// Copies until either end closes, then closes what it can no longer serve.
fn copy(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(read) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        count.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_are_counted_once() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let counter = Counter::start(listener.local_addr().unwrap()).unwrap();
        let server = thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = Vec::new();
                stream.read_to_end(&mut asked).unwrap();
                stream.write_all(&vec![7; asked.len() * 1000]).unwrap();
            }
        });
        for _ in 0..2 {
            let mut client = TcpStream::connect(counter.address()).unwrap();
            client.write_all(&[1; 300]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            assert_eq!(got.len(), 300_000);
        }
        server.join().unwrap();
        assert_eq!(counter.take().unwrap(), Traffic { down: 600_000, up: 600 });
        assert_eq!(counter.take().unwrap(), Traffic { down: 0, up: 0 });
        let address = counter.address();
        drop(counter);
        assert!(TcpStream::connect(address).is_err());
    }
}
