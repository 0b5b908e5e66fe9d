//! What stands between agent and relay and counts every datagram.

use crate::error::BenchError;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Largest UDP payload.
const DATAGRAM: usize = 65_536;
/// Datagrams that may wait out a delay, in one direction.
const DELAYED: usize = 16_384;
/// Datagrams down whose times are kept after a mark.
const NOTED: usize = 1024;

/// What went one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Way {
    /// Bytes of UDP payload.
    pub(crate) bytes: u64,
    /// Datagrams.
    pub(crate) datagrams: u64,
    /// Of the bytes, those of packets with a long header: the handshake.
    pub(crate) handshake: u64,
}

/// What went both ways. Down is to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) down: Way,
    pub(crate) up: Way,
}

impl Way {
    fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes - before.bytes,
            datagrams: self.datagrams - before.datagrams,
            handshake: self.handshake - before.handshake,
        }
    }
}

impl Tally {
    /// What was added since an earlier moment.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { down: self.down.since(before.down), up: self.up.since(before.up) }
    }
}

#[derive(Default)]
struct State {
    tally: Tally,
    last: Option<Instant>,
    /// When datagrams came down since the mark, and their bytes without the handshake's.
    noted: Vec<(Instant, u64)>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Microseconds that each datagram is held back.
    delay: AtomicU64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, datagram: &[u8], down: bool) {
        let (bytes, handshake) = (datagram.len() as u64, long_header_bytes(datagram) as u64);
        let (now, mut state) = (Instant::now(), self.state());
        let way = if down { &mut state.tally.down } else { &mut state.tally.up };
        way.bytes += bytes;
        way.datagrams += 1;
        way.handshake += handshake;
        state.last = Some(now);
        if down && state.noted.len() < NOTED {
            state.noted.push((now, bytes - handshake));
        }
    }
}

/// Where datagrams of one direction go: at once, or after the delay, in order.
struct Out {
    socket: Arc<UdpSocket>,
    target: Option<SocketAddr>,
    later: mpsc::Sender<(tokio::time::Instant, Vec<u8>)>,
}

impl Out {
    fn new(socket: Arc<UdpSocket>, target: Option<SocketAddr>, tasks: &mut JoinSet<()>) -> Self {
        let (later, mut waiting) = mpsc::channel::<(tokio::time::Instant, Vec<u8>)>(DELAYED);
        let sender = socket.clone();
        tasks.spawn(async move {
            while let Some((due, datagram)) = waiting.recv().await {
                tokio::time::sleep_until(due).await;
                send(&sender, target, &datagram).await;
            }
        });
        Self { socket, target, later }
    }

    async fn pass(&self, datagram: &[u8], delay: Duration) {
        if delay.is_zero() {
            send(&self.socket, self.target, datagram).await;
        } else {
            // A full queue drops, as a network does.
            let _ = self.later.try_send((tokio::time::Instant::now() + delay, datagram.to_vec()));
        }
    }
}

/// A datagram that cannot be sent is lost, as on any network; QUIC sends it again.
async fn send(socket: &UdpSocket, target: Option<SocketAddr>, datagram: &[u8]) {
    let _ = match target {
        Some(target) => socket.send_to(datagram, target).await,
        None => socket.send(datagram).await,
    };
}

/// Passes datagrams between clients and one server, until it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

async fn bind() -> Result<Arc<UdpSocket>, BenchError> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    UdpSocket::bind(any).await.map(Arc::new).map_err(BenchError::io(Path::new("a UDP socket")))
}

impl Proxy {
    /// Opens a proxy before `server`.
    pub(crate) async fn open(server: SocketAddr) -> Result<Self, BenchError> {
        let listening = bind().await?;
        let failed = BenchError::io(Path::new("a UDP socket"));
        let address = listening.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listening, server, shared.clone()));
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Where clients find it.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What went through so far.
    pub(crate) fn tally(&self) -> Tally {
        self.shared.state().tally
    }

    /// Holds every datagram back for so long, from now on.
    pub(crate) fn set_delay(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.shared.delay.store(micros, Ordering::Relaxed);
    }

    /// Begins to note anew when what comes down.
    pub(crate) fn mark(&self) {
        self.shared.state().noted.clear();
    }

    /// When the first datagram with so many bytes or more came down since the mark.
    pub(crate) fn first_down(&self, bytes: u64) -> Option<Instant> {
        self.shared.state().noted.iter().find(|(_, size)| *size >= bytes).map(|(at, _)| *at)
    }

    /// Waits until nothing has passed for `gap`.
    pub(crate) async fn quiet(&self, gap: Duration) {
        loop {
            let since = self.shared.state().last.map_or(gap, |last| last.elapsed());
            match gap.checked_sub(since) {
                None | Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }
}

async fn serve(listening: Arc<UdpSocket>, server: SocketAddr, shared: Arc<Shared>) {
    let mut clients: BTreeMap<SocketAddr, Out> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM];
    loop {
        // An error is about a datagram sent before, to a client that has gone.
        let Ok((length, client)) = listening.recv_from(&mut datagram).await else { continue };
        let Some(bytes) = datagram.get(..length) else { continue };
        shared.count(bytes, false);
        let out = match clients.entry(client) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let Ok(socket) = bind().await else { continue };
                if socket.connect(server).await.is_err() {
                    continue;
                }
                let back = Out::new(listening.clone(), Some(client), &mut tasks);
                tasks.spawn(bring_back(socket.clone(), back, shared.clone()));
                unknown.insert(Out::new(socket, None, &mut tasks))
            }
        };
        out.pass(bytes, Duration::from_micros(shared.delay.load(Ordering::Relaxed))).await;
    }
}

async fn bring_back(socket: Arc<UdpSocket>, back: Out, shared: Arc<Shared>) {
    let mut datagram = vec![0; DATAGRAM];
    loop {
        match socket.recv(&mut datagram).await {
            Ok(length) => {
                let Some(bytes) = datagram.get(..length) else { continue };
                shared.count(bytes, true);
                back.pass(bytes, Duration::from_micros(shared.delay.load(Ordering::Relaxed))).await;
            }
            // The server is not there (any more).
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Bytes of a datagram that belong to packets with a long header (RFC 9000, 17.2):
/// their lengths are not encrypted.
fn long_header_bytes(datagram: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = datagram.get(at..)
        && rest.first().is_some_and(|first| first & 0x80 != 0)
    {
        match long_packet(rest) {
            Some(length) if length > 0 && length < rest.len() => at += length,
            _ => return datagram.len(),
        }
    }
    at
}

/// Length of the packet with a long header that `bytes` begins with; `None` where it has no length of its own.
fn long_packet(bytes: &[u8]) -> Option<usize> {
    const RETRY: u8 = 3;
    const INITIAL: u8 = 0;
    let first = *bytes.first()?;
    // First byte and version; then two connection ids, each after its length.
    let mut at = 5;
    for _ in 0..2 {
        at += 1 + usize::from(*bytes.get(at)?);
    }
    let kind = (first >> 4) & 3;
    let is_negotiation = bytes.get(1..5)? == [0; 4];
    if kind == RETRY || is_negotiation {
        return None;
    }
    if kind == INITIAL {
        let (token, size) = varint(bytes.get(at..)?)?;
        at = at.checked_add(size)?.checked_add(token)?;
    }
    let (length, size) = varint(bytes.get(at..)?)?;
    at.checked_add(size)?.checked_add(length)
}

/// A variable-length integer of QUIC and its size.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = *bytes.first()?;
    let size = 1 << (first >> 6);
    let start = u64::from(first & 0x3f);
    let value = bytes.get(1..size)?.iter().fold(start, |value, byte| value << 8 | u64::from(*byte));
    Some((usize::try_from(value).ok()?, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A long-header packet of `kind` with two-byte ids and `length` bytes after its length field.
    fn packet(kind: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0xc0 | kind << 4, 0, 0, 0, 1, 2, 7, 7, 2, 8, 8];
        if kind == 0 {
            bytes.extend([3, 1, 1, 1]);
        }
        bytes.extend([0x40 | (length >> 8) as u8, length as u8]);
        bytes.resize(bytes.len() + length, 0xee);
        bytes
    }

    #[test]
    fn handshake_and_data_in_one_datagram_are_told_apart() {
        let (initial, handshake, data) = (packet(0, 300), packet(2, 90), vec![0x41; 50]);
        assert_eq!(long_header_bytes(&data), 0);
        assert_eq!(long_header_bytes(&initial), initial.len());
        let all = [initial.clone(), handshake.clone(), data].concat();
        assert_eq!(long_header_bytes(&all), initial.len() + handshake.len());
        assert_eq!(long_header_bytes(&packet(3, 9)), packet(3, 9).len());
        assert_eq!(long_header_bytes(&[0xff]), 1);
        assert_eq!(long_header_bytes(&[]), 0);
    }

    #[tokio::test]
    async fn what_passes_is_counted_both_ways() {
        let server = bind().await.unwrap();
        let proxy = Proxy::open(server.local_addr().unwrap()).await.unwrap();
        let client = bind().await.unwrap();
        client.connect(proxy.address()).await.unwrap();
        client.send(&[0x40; 100]).await.unwrap();
        let mut bytes = [0; 2000];
        let (length, from) = server.recv_from(&mut bytes).await.unwrap();
        assert_eq!(length, 100);
        server.send_to(&packet(2, 900), from).await.unwrap();
        server.send_to(&[0x40; 70], from).await.unwrap();
        let first = client.recv(&mut bytes).await.unwrap();
        assert_eq!(first, packet(2, 900).len());
        assert_eq!(client.recv(&mut bytes).await.unwrap(), 70);
        let tally = proxy.tally();
        assert_eq!((tally.up.bytes, tally.up.datagrams, tally.up.handshake), (100, 1, 0));
        let first = first as u64;
        assert_eq!((tally.down.bytes, tally.down.datagrams, tally.down.handshake), (first + 70, 2, first));
        assert!(proxy.first_down(70).is_some() && proxy.first_down(71).is_none());
        proxy.mark();
        assert!(proxy.first_down(0).is_none());
        // Through the delay, in order.
        proxy.set_delay(Duration::from_millis(5));
        let begun = Instant::now();
        client.send(&[1]).await.unwrap();
        client.send(&[2]).await.unwrap();
        for expected in [1, 2] {
            server.recv_from(&mut bytes).await.unwrap();
            assert_eq!(bytes[0], expected);
        }
        assert!(begun.elapsed() >= Duration::from_millis(5));
        proxy.quiet(Duration::from_millis(1)).await;
    }
}
