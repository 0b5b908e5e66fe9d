//! What a member takes from the machine that it runs on: clock, randomness for
//! waits, work beside the network, stores and sockets. All of it enters here, so
//! that the same code runs on a simulated machine (specs/architecture.md, H-10).

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // the one place that may read the clock

use crate::ReplicaError;
use rootcast_store::{DiskStore, Store, StoreError};
use rootcast_transport::https::{HttpsDialer, HttpsListener};
use rootcast_transport::{Endpoint, Identity, TransportError};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest sleep before the clock is looked at again: it may have been set.
const LOOK: Duration = Duration::from_secs(3600);

/// The machine under a member.
pub trait Machine: Send + Sync {
    /// The wall clock. It may be wrong, and may be set.
    fn now(&self) -> SystemTime;

    /// A random number, to spread waits with. Nothing secret is made of it.
    fn random(&self) -> u32;

    /// Runs work that computes for long or waits for the disk, where it holds up no network.
    fn run(&self, work: Box<dyn FnOnce() + Send>);

    /// Opens the store in a directory to read and write, and makes it if there is none.
    ///
    /// # Errors
    /// As [`DiskStore::open`].
    fn store(&self, directory: &Path) -> Result<Arc<dyn Store>, StoreError>;

    /// Opens a socket at `address` and accepts callers.
    ///
    /// # Errors
    /// As [`Endpoint::listen`].
    fn listen(&self, identity: &Identity, address: SocketAddr) -> Result<Endpoint, TransportError>;

    /// Opens a socket to dial from.
    ///
    /// # Errors
    /// As [`Endpoint::dial_only`].
    fn dial_only(&self, identity: &Identity) -> Result<Endpoint, TransportError>;

    /// Opens a TCP socket for HTTPS. Nothing, where the machine has no TCP.
    ///
    /// # Errors
    /// As [`HttpsListener::listen`].
    fn listen_https(&self, _: &Identity, _: SocketAddr) -> Result<Option<HttpsListener>, TransportError> {
        Ok(None)
    }

    /// What dials over TCP. Nothing, where the machine has none.
    ///
    /// # Errors
    /// As [`HttpsDialer::new`].
    fn dial_https(&self, _: &Identity) -> Result<Option<HttpsDialer>, TransportError> {
        Ok(None)
    }
}

/// The machine that this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Machine for System {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
    fn random(&self) -> u32 {
        getrandom::u32().unwrap_or(u32::MAX / 2)
    }
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(work);
    }
    fn store(&self, directory: &Path) -> Result<Arc<dyn Store>, StoreError> {
        Ok(Arc::new(DiskStore::open(directory)?))
    }
    fn listen(&self, identity: &Identity, address: SocketAddr) -> Result<Endpoint, TransportError> {
        Endpoint::listen(identity, address)
    }
    fn dial_only(&self, identity: &Identity) -> Result<Endpoint, TransportError> {
        Endpoint::dial_only(identity)
    }
    fn listen_https(
        &self,
        identity: &Identity,
        address: SocketAddr,
    ) -> Result<Option<HttpsListener>, TransportError> {
        HttpsListener::listen(identity, address).map(Some)
    }
    fn dial_https(&self, identity: &Identity) -> Result<Option<HttpsDialer>, TransportError> {
        HttpsDialer::new(identity).map(Some)
    }
}

impl dyn Machine + '_ {
    /// The wall clock, in seconds since 1970.
    pub fn seconds(&self) -> u64 {
        self.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// A wait of between half and all of `wait`, so that children that lost one
    /// parent together do not come back together.
    pub fn jitter(&self, wait: Duration) -> Duration {
        wait / 2 + wait.mul_f64(f64::from(self.random()) / f64::from(u32::MAX) / 2.0)
    }

    /// Runs work as [`Machine::run`] does, and waits for what it returns. Work that was begun goes on
    /// where nobody waits for it any more.
    ///
    /// # Errors
    /// [`ReplicaError::Stopped`] where the end of the process cut it off.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ReplicaError> {
        let (done, result) = tokio::sync::oneshot::channel();
        self.run(Box::new(move || {
            let _ = done.send(work());
        }));
        result.await.map_err(|_| ReplicaError::Stopped)
    }

    /// Waits until the clock shows a time, however often it is set meanwhile.
    pub async fn sleep_until(&self, time: SystemTime) {
        while let Ok(left) = time.duration_since(self.now()) {
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }
}
