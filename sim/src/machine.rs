//! A simulated machine: what a member of the platform runs on here.

use crate::disk::Disk;
use crate::network::Network;
use crate::random::Random;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use rootcast_replica::Machine;
use rootcast_store::{Store, StoreError};
use rootcast_transport::{Endpoint, Identity, Purpose, TransportError};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What all clocks show at the beginning: 2026-11-01. Documents carry times, so it is the same in all runs.
pub const BEGINNING: u64 = 1_793_491_200;

/// All tasks of a node's process: with it they end.
#[derive(Debug, Default)]
pub struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    fn set(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one more.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set();
        while set.try_join_next().is_some() {}
        set.spawn(task);
    }

    /// Ends them all, at once and without a word.
    pub fn kill(&self) {
        *self.set() = JoinSet::new();
    }
}

/// QUIC's runtime: tokio's, with tasks that can be killed.
#[derive(Debug)]
struct QuicRuntime(Arc<Tasks>);

impl Runtime for QuicRuntime {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(future);
    }
    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

/// A machine.
pub struct SimMachine {
    node: usize,
    network: Arc<Network>,
    /// Its disk.
    pub disk: Arc<Disk>,
    /// What runs on it.
    pub tasks: Arc<Tasks>,
    random: Mutex<Random>,
    begun: Instant,
    skew: AtomicI64,
}

impl SimMachine {
    /// A machine with this disk.
    pub fn new(node: usize, network: Arc<Network>, disk: Arc<Disk>, random: Random) -> Self {
        let (tasks, begun, skew) = (Arc::default(), Instant::now(), AtomicI64::new(0));
        Self { node, network, disk, tasks, random: Mutex::new(random), begun, skew }
    }

    /// Sets its clock wrong by so many seconds.
    pub fn set_skew(&self, seconds: i64) {
        self.skew.store(seconds, Ordering::Relaxed);
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn endpoint(&self, identity: &Identity, purpose: Purpose) -> Result<Endpoint, TransportError> {
        let socket = self.network.socket(self.node, purpose == Purpose::Listen);
        let mut seed = [0; 32];
        for part in seed.chunks_mut(8) {
            part.copy_from_slice(&self.draw(Random::number).to_be_bytes());
        }
        let runtime = Arc::new(QuicRuntime(self.tasks.clone()));
        Endpoint::with_socket(identity, purpose, socket, runtime, seed)
    }
}

impl Machine for SimMachine {
    fn now(&self) -> SystemTime {
        let right = UNIX_EPOCH + Duration::from_secs(BEGINNING) + self.begun.elapsed();
        let skew = self.skew.load(Ordering::Relaxed);
        let by = Duration::from_secs(skew.unsigned_abs());
        if skew < 0 { right - by } else { right + by }
    }

    fn random(&self) -> u32 {
        self.draw(Random::number) as u32
    }

    /// In a task of its own, after as long as a disk may take.
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        let wait = self.draw(|random| if random.chance(0.5) { 0 } else { 1 + random.below(4) as u64 });
        self.tasks.spawn(async move {
            if wait > 0 {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            work();
        });
    }

    fn store(&self, directory: &Path) -> Result<Arc<dyn Store>, StoreError> {
        self.disk.store(directory)
    }

    fn listen(&self, identity: &Identity, _: SocketAddr) -> Result<Endpoint, TransportError> {
        self.endpoint(identity, Purpose::Listen)
    }

    fn dial_only(&self, identity: &Identity) -> Result<Endpoint, TransportError> {
        self.endpoint(identity, Purpose::DialOnly)
    }
}
