//! A network in memory: each node has an uplink and a downlink, each pair of places
//! a delay, and what is in flight lies in one queue under the virtual clock.
//!
//! Only this module knows quinn's socket interface.

use crate::random::Random;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Most that waits before a link; what does not fit is lost.
const QUEUE: Duration = Duration::from_millis(400);
/// Most datagrams that wait unread in a socket, as in a kernel's buffer.
const INBOX: usize = 4096;

/// A datacenter of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which region.
    pub region: usize,
    /// Which datacenter, over all regions.
    pub datacenter: usize,
}

/// One-way delays (the targets of the design: 110 ms, 15 ms, 1 ms).
pub fn delay(from: Place, to: Place) -> Duration {
    if from.region != to.region {
        // Between 80 and 110 ms, by the pair.
        return Duration::from_millis(80 + 10 * ((from.region + to.region) as u64 % 4));
    }
    Duration::from_millis(if from.datacenter == to.datacenter { 1 } else { 15 })
}

/// What is wrong with a node's link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Delay on top, one way.
    pub extra: Duration,
    /// Share of datagrams lost, each way.
    pub loss: f64,
    /// Share of datagrams that come late, and so out of order.
    pub reordered: f64,
    /// Bytes a second, each way.
    pub rate: f64,
}

impl Link {
    /// 100 Mbit/s, and nothing wrong with it.
    pub const GOOD: Self = Self { extra: Duration::ZERO, loss: 0.0, reordered: 0.0, rate: 12.5e6 };
}

#[derive(Debug)]
struct Node {
    place: Place,
    link: Link,
    /// Datagrams pass between nodes of one group.
    group: u32,
    up_busy: Instant,
    down_busy: Instant,
    sent: u64,
    datagrams: u64,
    sent_to: BTreeMap<usize, u64>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    due: std::cmp::Reverse<(Instant, u64)>,
    from: usize,
    source: SocketAddr,
    to: SocketAddr,
    ecn: Option<u8>,
    bytes: Vec<u8>,
    /// Whether it has come through the receiver's own link.
    through: bool,
}

#[derive(Debug)]
struct State {
    random: Random,
    nodes: Vec<Node>,
    /// Who is where; a node that goes through a gateway is where that shows it.
    seats: BTreeMap<SocketAddr, Seat>,
    ports: u16,
    flying: BinaryHeap<Flying>,
    sequence: u64,
    /// When the last datagram of a pair arrives: no other overtakes it unless it is reordered.
    last: BTreeMap<(usize, usize), Instant>,
    digest: u64,
    delivered: u64,
    /// Planted: a sender waits for its slowest receiver.
    waits_for_slowest: bool,
    /// Planted: from when on nothing passes between those of two sides.
    wall: Option<(Instant, BTreeMap<usize, bool>)>,
}

impl State {
    fn is_walled(&self, from: usize, to: usize) -> bool {
        self.wall.as_ref().is_some_and(|(at, sides)| {
            let between = sides.get(&from).zip(sides.get(&to)).is_some_and(|(one, other)| one != other);
            between && *at <= Instant::now()
        })
    }
}

#[derive(Debug, Clone)]
struct Seat {
    node: usize,
    inbox: Arc<Inbox>,
}

#[derive(Debug, Default)]
struct Inbox(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Where others see it; none when the process is gone.
    shown: Option<SocketAddr>,
    datagrams: VecDeque<(SocketAddr, Option<EcnCodepoint>, Vec<u8>)>,
    waker: Option<Waker>,
}

/// The network. One lock: all is on one thread.
#[derive(Debug)]
pub struct Network {
    state: Mutex<State>,
    sooner: Notify,
    begun: Instant,
}

fn open<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn address(node: usize, port: u16) -> SocketAddr {
    let [_, _, high, low] = (node as u32).to_be_bytes();
    SocketAddr::from(([10, 0, high, low], port))
}

/// The port that relays serve at.
pub const PORT: u16 = 7400;

impl Network {
    /// An empty one; its times count from now.
    pub fn new(seed: u64) -> Arc<Self> {
        let state = State {
            random: Random::of(seed, "network"),
            nodes: Vec::new(),
            seats: BTreeMap::new(),
            ports: 20_000,
            flying: BinaryHeap::new(),
            sequence: 0,
            last: BTreeMap::new(),
            digest: 0,
            delivered: 0,
            waits_for_slowest: false,
            wall: None,
        };
        Arc::new(Self { state: Mutex::new(state), sooner: Notify::new(), begun: Instant::now() })
    }

    /// Adds a node.
    pub fn add(&self, place: Place) -> usize {
        let mut state = open(&self.state);
        let now = Instant::now();
        state.nodes.push(Node {
            place,
            link: Link::GOOD,
            group: 0,
            up_busy: now,
            down_busy: now,
            sent: 0,
            datagrams: 0,
            sent_to: BTreeMap::new(),
        });
        state.nodes.len() - 1
    }

    /// Where the relay of a node serves.
    pub fn served_at(node: usize) -> SocketAddr {
        address(node, PORT)
    }

    /// The node that serves at an address.
    pub fn node_at(address: SocketAddr) -> Option<usize> {
        let SocketAddr::V4(address) = address else { return None };
        let [_, _, high, low] = address.ip().octets();
        Some(usize::from(u16::from_be_bytes([high, low])))
    }

    /// A socket of a node: at its served address, or at a port of its own.
    pub fn socket(self: &Arc<Self>, node: usize, serves: bool) -> Arc<Socket> {
        let mut state = open(&self.state);
        state.ports = if state.ports >= 60_000 { 20_000 } else { state.ports + 1 };
        let local = address(node, if serves { PORT } else { state.ports });
        let inbox = Arc::new(Inbox::default());
        open(&inbox.0).shown = Some(local);
        state.seats.insert(local, Seat { node, inbox: inbox.clone() });
        Arc::new(Socket { node, local, inbox, network: self.clone() })
    }

    /// Takes all sockets of a node away, as the end of its process does.
    pub fn unplug(&self, node: usize) {
        open(&self.state).seats.retain(|_, seat| {
            if seat.node == node {
                open(&seat.inbox.0).shown = None;
            }
            seat.node != node
        });
    }

    /// Lets the gateway before a node forget it: its sockets are seen at other ports from now on.
    pub fn rebind(&self, node: usize) {
        let mut state = open(&self.state);
        let moving: Vec<SocketAddr> = state
            .seats
            .iter()
            .filter(|(at, seat)| seat.node == node && at.port() != PORT)
            .map(|(at, _)| *at)
            .collect();
        for at in moving {
            if let Some(seat) = state.seats.remove(&at) {
                state.ports += 1;
                let shown = address(node, state.ports);
                open(&seat.inbox.0).shown = Some(shown);
                state.seats.insert(shown, seat);
            }
        }
    }

    /// Sets what is wrong with a node's link.
    pub fn set_link(&self, node: usize, link: Link) {
        if let Some(node) = open(&self.state).nodes.get_mut(node) {
            node.link = link;
        }
    }

    /// Puts a node on one side of a partition; group 0 is the whole.
    pub fn set_group(&self, node: usize, group: u32) {
        if let Some(node) = open(&self.state).nodes.get_mut(node) {
            node.group = group;
        }
    }

    /// Plants the fault that the checker of slow children is there for.
    pub fn plant_waiting_for_slowest(&self) {
        open(&self.state).waits_for_slowest = true;
    }

    /// Plants the fault that lets hosts leave relays in which nothing is wrong.
    pub fn plant_wall(&self, at: Instant, hosts: &[usize], relays: &[usize]) {
        let hosts = hosts.iter().map(|host| (*host, false));
        let sides = hosts.chain(relays.iter().map(|relay| (*relay, true))).collect();
        open(&self.state).wall = Some((at, sides));
    }

    /// Bytes that a node has sent.
    pub fn sent(&self, node: usize) -> u64 {
        open(&self.state).nodes.get(node).map_or(0, |node| node.sent)
    }

    /// Datagrams that a node has sent.
    pub fn datagrams(&self, node: usize) -> u64 {
        open(&self.state).nodes.get(node).map_or(0, |node| node.datagrams)
    }

    /// Bytes that a node has sent, by receiver.
    pub fn sent_to(&self, node: usize) -> BTreeMap<usize, u64> {
        open(&self.state).nodes.get(node).map(|node| node.sent_to.clone()).unwrap_or_default()
    }

    /// A number that stands for the time, ends and size of every datagram so far, and their count.
    pub fn digest(&self) -> (u64, u64) {
        let state = open(&self.state);
        (state.digest, state.delivered)
    }

    /// Delivers what is in flight, until dropped.
    pub async fn carry(self: Arc<Self>) {
        loop {
            let next = open(&self.state).flying.peek().map(|flying| flying.due.0.0);
            let wait = async {
                match next {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = wait => self.deliver(),
                () = self.sooner.notified() => {}
            }
        }
    }

    fn deliver(&self) {
        let now = Instant::now();
        let mut wakers = Vec::new();
        {
            let mut state = open(&self.state);
            while state.flying.peek().is_some_and(|flying| flying.due.0.0 <= now) {
                let Some(flying) = state.flying.pop() else { break };
                let Some(seat) = state.seats.get(&flying.to).cloned() else { continue };
                // What was cut while it flew does not arrive.
                let group = |node: usize| state.nodes.get(node).map(|node| node.group);
                if group(flying.from) != group(seat.node) {
                    continue;
                }
                let Some(flying) = state.through(flying, seat.node) else { continue };
                let Flying { from, source, ecn, bytes, .. } = flying;
                state.delivered += 1;
                let at = now.duration_since(self.begun).as_millis() as u64;
                for part in [at, from as u64, seat.node as u64, bytes.len() as u64] {
                    state.digest = (state.digest ^ part).wrapping_mul(0x100_0000_01b3).rotate_left(17);
                }
                let mut waiting = open(&seat.inbox.0);
                if waiting.datagrams.len() < INBOX {
                    waiting.datagrams.push_back((source, ecn.and_then(EcnCodepoint::from_bits), bytes));
                }
                wakers.extend(waiting.waker.take());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    fn send(&self, node: usize, inbox: &Inbox, transmit: &Transmit<'_>) {
        let now = Instant::now();
        let Some(source) = open(&inbox.0).shown else { return };
        let mut state = open(&self.state);
        let state = &mut *state;
        let bytes = transmit.contents.to_vec();
        let size = bytes.len() as u64;
        let to = state.seats.get(&transmit.destination).map(|seat| seat.node);
        let Some(sender) = state.nodes.get_mut(node) else { return };
        sender.sent += size;
        sender.datagrams += 1;
        let Some(to) = to else { return };
        *sender.sent_to.entry(to).or_default() += size;
        let (from_place, from_link, from_group) = (sender.place, sender.link, sender.group);
        let waits = state.waits_for_slowest;
        let Some(receiver) = state.nodes.get(to) else { return };
        let (to_place, to_link, to_group) = (receiver.place, receiver.link, receiver.group);
        let loss = 1.0 - (1.0 - from_link.loss) * (1.0 - to_link.loss);
        if from_group != to_group || state.is_walled(node, to) || state.random.chance(loss) {
            return;
        }
        let Some(sender) = state.nodes.get_mut(node) else { return };
        let Some(left) = pass(&mut sender.up_busy, now, size, from_link.rate, waits) else { return };
        if waits {
            // As one does who sends to the next only when this one has answered.
            sender.up_busy += to_link.extra * 2;
        }
        let way = delay(from_place, to_place) + from_link.extra + to_link.extra;
        let mut due = left + way.mul_f64(1.0 + 0.02 * state.random.fraction());
        if state.random.chance(from_link.reordered.max(to_link.reordered)) {
            due += state.random.between(Duration::from_millis(1), Duration::from_millis(30));
        } else {
            let last = state.last.entry((node, to)).or_insert(due);
            due = due.max(*last);
            *last = due;
        }
        state.sequence += 1;
        let sooner = state.flying.peek().is_none_or(|flying| due < flying.due.0.0);
        let due = std::cmp::Reverse((due, state.sequence));
        let ecn = transmit.ecn.map(|ecn| ecn as u8);
        let to = transmit.destination;
        state.flying.push(Flying { due, from: node, source, to, ecn, bytes, through: false });
        if sooner {
            self.sooner.notify_one();
        }
    }
}

impl State {
    /// Lets a datagram that has arrived through the receiver's own link, where it may
    /// wait; `None`: it has to, or is lost.
    fn through(&mut self, flying: Flying, node: usize) -> Option<Flying> {
        let (std::cmp::Reverse((arrived, _)), size) = (flying.due, flying.bytes.len() as u64);
        if flying.through {
            return Some(flying);
        }
        let receiver = self.nodes.get_mut(node)?;
        let rate = receiver.link.rate;
        let due = pass(&mut receiver.down_busy, arrived, size, rate, false)?;
        // What takes less than the clock can tell is there at once.
        if due.duration_since(arrived) < Duration::from_millis(1) {
            return Some(flying);
        }
        self.sequence += 1;
        let due = std::cmp::Reverse((due, self.sequence));
        self.flying.push(Flying { due, through: true, ..flying });
        None
    }
}

/// When `size` bytes have passed a link that is busy until then; `None`: its queue is full.
fn pass(busy: &mut Instant, now: Instant, size: u64, rate: f64, waits: bool) -> Option<Instant> {
    let begins = (*busy).max(now);
    if begins.duration_since(now) > QUEUE && !waits {
        return None;
    }
    *busy = begins + Duration::from_secs_f64(size as f64 / rate.max(1.0));
    Some(*busy)
}

/// One end.
#[derive(Debug)]
pub struct Socket {
    node: usize,
    local: SocketAddr,
    inbox: Arc<Inbox>,
    network: Arc<Network>,
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.network.send(self.node, &self.inbox, transmit);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut waiting = open(&self.inbox.0);
        let mut count = 0;
        for (buffer, meta) in bufs.iter_mut().zip(meta) {
            let Some((addr, ecn, bytes)) = waiting.datagrams.pop_front() else { break };
            let len = bytes.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..len), bytes.get(..len)) {
                to.copy_from_slice(from);
            }
            *meta = RecvMeta { addr, len, stride: len, ecn, dst_ip: Some(self.local.ip()) };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        waiting.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
