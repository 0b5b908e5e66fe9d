//! One UDP socket: dials relays and, where we are one, accepts callers.

use crate::close::{CloseReason, Code};
use crate::connection::{Connection, is_joining};
use crate::error::{PeerFault, TransportError};
use crate::identity::Identity;
use crate::joining::{Arrival, Unproven, begin};
use crate::tickets::TicketKeys;
use crate::{socket, tuning};
use quinn::{AsyncUdpSocket, ClientConfig, Runtime};
use rootcast::id::PlatformId;
use rootcast::limits::{
    HANDSHAKE_WAIT, MAX_ADDRESSES, MAX_CANDIDATES, MAX_CHILDREN, MAX_PENDING_HANDSHAKES,
    MAX_WAITING_HANDSHAKES, RETRY_HANDSHAKES_ABOVE, SHUTDOWN_WAIT,
};
use rootcast::member::Role;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// What an endpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Accepts callers, and dials.
    Listen,
    /// Only dials.
    DialOnly,
}

/// What became of the callers of an endpoint, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HandshakeCounts {
    /// Handshakes that were begun.
    pub admitted: u64,
    /// Callers that were asked to prove their address first.
    pub retried: u64,
    /// Callers that had to wait for room.
    pub waited: u64,
    /// Callers that were turned away for want of room.
    pub refused: u64,
    /// Callers whose ticket was taken.
    pub resumed: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Caps {
    pub(crate) pending: usize,
    pub(crate) retry_above: usize,
    pub(crate) waiting: usize,
    pub(crate) children: usize,
}

impl Caps {
    pub(crate) const STANDARD: Self = Self {
        pending: MAX_PENDING_HANDSHAKES,
        retry_above: RETRY_HANDSHAKES_ABOVE,
        waiting: MAX_WAITING_HANDSHAKES,
        children: MAX_CHILDREN,
    };
}

/// How we dial, and the sessions with those that we have dialled.
#[derive(Debug)]
struct Dialling {
    tls: rustls::ClientConfig,
    /// Ours.
    role: Role,
    /// By address, the one that was first dialled longest ago first.
    relays: VecDeque<(String, ClientConfig)>,
}

impl Dialling {
    fn of(identity: &Identity) -> Result<Self, TransportError> {
        let (tls, role) = (tuning::client_tls(identity)?, identity.name().role());
        Ok(Self { tls, role, relays: VecDeque::new() })
    }

    fn to(&mut self, address: &str) -> Result<ClientConfig, TransportError> {
        if let Some((_, config)) = self.relays.iter().find(|(known, _)| known == address) {
            return Ok(config.clone());
        }
        let config = tuning::resuming(&self.tls, self.role)?;
        if self.relays.len() >= MAX_CANDIDATES {
            self.relays.pop_front();
        }
        self.relays.push_back((address.to_owned(), config.clone()));
        Ok(config)
    }
}

#[derive(Debug, Default)]
struct Counts {
    admitted: AtomicU64,
    retried: AtomicU64,
    waited: AtomicU64,
    refused: AtomicU64,
}

/// One UDP socket under one identity. Cheap to clone; all clones are one endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    quic: quinn::Endpoint,
    /// Shared by all clones, so that a renewed certificate reaches them.
    dialling: Arc<Mutex<Dialling>>,
    tickets: Arc<OnceLock<Arc<TicketKeys>>>,
    listens: bool,
    platform: PlatformId,
    pending: Arc<Semaphore>,
    /// Callers that have proved their address, and for whom there is no room yet.
    waiting: Arc<Mutex<VecDeque<quinn::Incoming>>>,
    caps: Caps,
    counts: Arc<Counts>,
}

impl Endpoint {
    /// Opens a socket at `address` and accepts callers; only a relay's identity can.
    pub fn listen(identity: &Identity, address: SocketAddr) -> Result<Self, TransportError> {
        may_listen(identity)?;
        Self::listen_with(identity, address, Caps::STANDARD)
    }

    /// As [`Endpoint::listen`], without asking whether the certificate can, and with other caps.
    pub(crate) fn listen_with(
        identity: &Identity,
        address: SocketAddr,
        caps: Caps,
    ) -> Result<Self, TransportError> {
        let server = tuning::server_config(identity, None)?;
        let quic = socket::listening(identity, server, address)
            .map_err(|source| TransportError::Bind { address, source })?;
        Self::over(quic, identity, caps, true)
    }

    /// Opens a socket to dial from.
    pub fn dial_only(identity: &Identity) -> Result<Self, TransportError> {
        let quic =
            socket::dialling().map_err(|source| TransportError::Bind { address: socket::ANY, source })?;
        Self::over(quic, identity, Caps::STANDARD, false)
    }

    /// Takes a socket and a runtime that are given, instead of the system's. What QUIC
    /// draws at random, connection ids apart, follows from `seed`: for simulations.
    pub fn with_socket(
        identity: &Identity,
        purpose: Purpose,
        socket: Arc<dyn AsyncUdpSocket>,
        runtime: Arc<dyn Runtime>,
        seed: [u8; 32],
    ) -> Result<Self, TransportError> {
        let server = match purpose {
            Purpose::Listen => {
                may_listen(identity)?;
                Some(tuning::server_config(identity, None)?)
            }
            Purpose::DialOnly => None,
        };
        let quic = socket::given(identity, server, socket, runtime, seed)
            .map_err(|source| TransportError::Bind { address: socket::ANY, source })?;
        Self::over(quic, identity, Caps::STANDARD, purpose == Purpose::Listen)
    }

    fn over(
        quic: quinn::Endpoint,
        identity: &Identity,
        caps: Caps,
        listens: bool,
    ) -> Result<Self, TransportError> {
        let dialling = Arc::new(Mutex::new(Dialling::of(identity)?));
        let pending = Arc::new(Semaphore::new(caps.pending));
        let platform = identity.name().platform();
        let (tickets, waiting, counts) = (Arc::default(), Arc::default(), Arc::default());
        Ok(Self { quic, dialling, tickets, listens, platform, pending, waiting, caps, counts })
    }

    /// Gives callers tickets under these keys from now on, and resumes those that bring one.
    ///
    /// # Errors
    /// When TLS does not take it; then there are none.
    pub fn resume_with(&self, identity: &Identity, tickets: Arc<TicketKeys>) -> Result<(), TransportError> {
        if self.listens {
            let tickets = self.tickets.get_or_init(|| tickets).clone();
            self.quic.set_server_config(Some(tuning::server_config(identity, Some(tickets))?));
        }
        Ok(())
    }

    /// The address of the socket, with the port that the system chose.
    pub fn local_addr(&self) -> Result<SocketAddr, TransportError> {
        let bind = |source| TransportError::Bind { address: socket::ANY, source };
        self.quic.local_addr().map_err(bind)
    }

    /// Dials the relay at `host:port`.
    ///
    /// The name's addresses are tried one after the other, each with its share of
    /// [`HANDSHAKE_WAIT`]; the error is the last one's. TLS 1.3 lets a client
    /// finish before the server has judged it, so a relay that refuses us shows
    /// as a [`CloseReason::RefusedUs`] or [`Code::REFUSED`] of the connection.
    pub async fn connect(&self, address: &str) -> Result<Connection, TransportError> {
        let config = self.dialling.lock().unwrap_or_else(PoisonError::into_inner).to(address)?;
        let outcome = dial_any(&self.quic, address, || config.clone()).await;
        let outcome = outcome.and_then(|quic| {
            Connection::establish(quic, self.platform, Some(Role::Relay), SystemTime::now())
        });
        // Whoever is there was not who it should be: a session with it is not tried again.
        if let Err(TransportError::Peer { .. }) = &outcome {
            let mut dialling = self.dialling.lock().unwrap_or_else(PoisonError::into_inner);
            dialling.relays.retain(|(known, _)| known != address);
        }
        outcome
    }

    /// Uses a renewed certificate of the same member from now on, for new connections in
    /// both directions. Those that live keep the one that they began with.
    ///
    /// # Errors
    /// When TLS does not take it; then nothing changes.
    pub fn adopt(&self, identity: &Identity) -> Result<(), TransportError> {
        let dialling = Dialling::of(identity)?;
        if self.listens {
            let tickets = self.tickets.get().cloned();
            self.quic.set_server_config(Some(tuning::server_config(identity, tickets)?));
        }
        // Sessions of the old certificate go with it.
        *self.dialling.lock().unwrap_or_else(PoisonError::into_inner) = dialling;
        Ok(())
    }

    #[cfg(test)]
    pub(crate) async fn dial(
        &self,
        address: SocketAddr,
        wait: Duration,
    ) -> Result<Connection, TransportError> {
        let config = self.dialling.lock().unwrap_or_else(PoisonError::into_inner).to(&address.to_string())?;
        let quic = shake(begin(&self.quic, config, address)?, address, wait).await?;
        Connection::establish(quic, self.platform, Some(Role::Relay), SystemTime::now())
    }

    /// The next caller; `None` once the endpoint is closed.
    ///
    /// Nothing of the handshake is waited for here, so that a slow caller does not
    /// hold up the next. Where many handshakes are under way, callers must
    /// first prove their address; those that did wait for room, and beyond a cap they are turned away (W-8).
    pub async fn accept(&self) -> Option<Handshake> {
        loop {
            let waits = !self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
            let incoming = tokio::select! {
                // Those that wait go first.
                biased;
                Ok(permit) = Arc::clone(&self.pending).acquire_owned(), if waits => {
                    let longest = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    match longest {
                        Some(incoming) => return Some(self.begin(incoming, permit)),
                        None => continue,
                    }
                }
                incoming = self.quic.accept() => incoming?,
            };
            if let Some(handshake) = self.admit(incoming) {
                return Some(handshake);
            }
        }
    }

    fn begin(&self, incoming: quinn::Incoming, permit: OwnedSemaphorePermit) -> Handshake {
        self.counts.admitted.fetch_add(1, Ordering::Relaxed);
        Handshake { incoming, platform: self.platform, _permit: permit }
    }

    fn admit(&self, incoming: quinn::Incoming) -> Option<Handshake> {
        let pending = self.caps.pending.saturating_sub(self.pending.available_permits());
        if pending >= self.caps.retry_above && incoming.may_retry() {
            self.counts.retried.fetch_add(1, Ordering::Relaxed);
            // It fails only where `may_retry` is false, and then drops the caller, which refuses it.
            let _ = incoming.retry();
            return None;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.quic.open_connections() + waiting.len() < self.caps.children {
            if let Ok(permit) = Arc::clone(&self.pending).try_acquire_owned() {
                return Some(self.begin(incoming, permit));
            }
            if waiting.len() < self.caps.waiting {
                self.counts.waited.fetch_add(1, Ordering::Relaxed);
                waiting.push_back(incoming);
                return None;
            }
        }
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(caller = %incoming.remote_address(), pending, "turned away for want of room");
        incoming.refuse();
        None
    }

    /// What became of the callers so far.
    pub fn handshakes(&self) -> HandshakeCounts {
        HandshakeCounts {
            admitted: self.counts.admitted.load(Ordering::Relaxed),
            retried: self.counts.retried.load(Ordering::Relaxed),
            waited: self.counts.waited.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            resumed: self.tickets.get().map_or(0, |tickets| tickets.resumed()),
        }
    }

    /// Connections, those in their handshake included.
    pub fn open_connections(&self) -> usize {
        self.quic.open_connections()
    }

    /// Closes every connection and accepts no more. [`Endpoint::wait_idle`] sees it out.
    pub fn close(&self, code: Code, reason: &str) {
        self.quic.close(code.to_wire(), reason.as_bytes());
    }

    /// Waits until every peer has been told of the end, at most [`SHUTDOWN_WAIT`].
    /// Whether all were.
    pub async fn wait_idle(&self) -> bool {
        timeout(SHUTDOWN_WAIT, self.quic.wait_idle()).await.is_ok()
    }
}

pub(crate) fn may_listen(identity: &Identity) -> Result<(), TransportError> {
    match identity.name().role() {
        Role::Relay => Ok(()),
        Role::Agent | Role::Publisher => {
            Err(TransportError::MayNotListen { name: identity.name().to_string() })
        }
    }
}

/// Dials the addresses of `host:port` one after the other, until one answers.
pub(crate) async fn dial_any(
    quic: &quinn::Endpoint,
    address: &str,
    config: impl Fn() -> ClientConfig,
) -> Result<quinn::Connection, TransportError> {
    let found = resolved(address).await?;
    let end = Instant::now() + HANDSHAKE_WAIT;
    let mut outcome = Err(nobody(address));
    for (tried, candidate) in found.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(found.len() - tried).unwrap_or(1);
        outcome = match begin(quic, config(), *candidate) {
            Ok(connecting) => shake(connecting, *candidate, share).await,
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(_) => break,
            Err(error) => tracing::debug!(%candidate, %error, "could not connect"),
        }
    }
    outcome
}

/// The addresses of `host:port`, as many as are tried.
pub(crate) async fn resolved(address: &str) -> Result<Vec<SocketAddr>, TransportError> {
    let found = timeout(HANDSHAKE_WAIT, tokio::net::lookup_host(address))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let resolve = |source| TransportError::Resolve { address: address.into(), source };
    Ok(found.map_err(resolve)?.take(MAX_ADDRESSES).collect())
}

/// A name that has no addresses.
pub(crate) fn nobody(address: &str) -> TransportError {
    TransportError::Resolve { address: address.into(), source: io::ErrorKind::NotFound.into() }
}

async fn shake(
    connecting: quinn::Connecting,
    address: SocketAddr,
    wait: Duration,
) -> Result<quinn::Connection, TransportError> {
    let peer = || address.to_string();
    match timeout_at(Instant::now() + wait, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(quinn::ConnectionError::TimedOut)) => {
            Err(TransportError::Closed { peer: peer(), reason: CloseReason::Silent })
        }
        Ok(Err(error)) => Err(TransportError::from_handshake(peer(), error)),
        Err(_) => {
            let fault = PeerFault::HandshakeTimeout { wait };
            Err(TransportError::Peer { peer: peer(), fault })
        }
    }
}

/// A caller whose handshake has not been looked at. Dropping it refuses it.
#[derive(Debug)]
pub struct Handshake {
    incoming: quinn::Incoming,
    platform: PlatformId,
    // Held until the handshake ends, whichever way.
    _permit: OwnedSemaphorePermit,
}

impl Handshake {
    /// Where the caller says it is.
    pub fn remote(&self) -> SocketAddr {
        crate::connection::plain(self.incoming.remote_address())
    }

    /// Completes the handshake of a member, within [`HANDSHAKE_WAIT`]: the caller's
    /// certificate verifies under our authority, names one peer, and is of our
    /// platform. One that comes to join is refused.
    pub async fn finish(self) -> Result<Connection, TransportError> {
        let remote = self.remote().to_string();
        match self.arrive().await? {
            Arrival::Member(connection) => Ok(connection),
            Arrival::Joiner(joiner) => {
                joiner.close(Code::REFUSED, "nobody can join here");
                Err(TransportError::Peer { peer: remote, fault: PeerFault::NoCertificate })
            }
        }
    }

    /// As [`Handshake::finish`], and takes those who come to join as well.
    pub async fn arrive(self) -> Result<Arrival, TransportError> {
        let address = self.remote();
        let connecting = self
            .incoming
            .accept()
            .map_err(|error| TransportError::from_handshake(address.to_string(), error))?;
        let quic = shake(connecting, address, HANDSHAKE_WAIT).await?;
        if is_joining(&quic) {
            return Ok(Arrival::Joiner(Unproven::new(quic)));
        }
        Connection::establish(quic, self.platform, None, SystemTime::now()).map(Arrival::Member)
    }
}
