//! An established connection, and who is at its other end.

use crate::close::{CloseReason, Code};
use crate::error::{PeerFault, TransportError};
use crate::identity::chain_expiry;
use crate::name::{NameError, PeerName};
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::tuning;
use core::fmt;
use quinn::crypto::rustls::HandshakeData;
use rootcast::id::PlatformId;
use rootcast::limits::{CONNECTION_WINDOW, STREAM_WAIT};
use rootcast::member::Role;
use rootcast::protocol::JOIN_ALPN;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::timeout;

/// Who is at the other end, in words, and where it was when it came.
#[derive(Debug)]
pub(crate) struct Peer {
    who: String,
    remote: SocketAddr,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.who, self.remote)
    }
}

/// An IPv4 address is shown as one, also where it came in through an IPv6 socket.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What went over the network for one connection, packets and all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes of UDP payload sent.
    pub sent_bytes: u64,
    /// UDP datagrams sent.
    pub sent_datagrams: u64,
    /// Bytes of UDP payload received.
    pub received_bytes: u64,
    /// UDP datagrams received.
    pub received_datagrams: u64,
    /// Packets that were sent and got lost.
    pub lost_packets: u64,
}

/// What any connection can do, whoever is at its other end.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    quic: quinn::Connection,
    peer: Arc<Peer>,
}

impl Link {
    pub(crate) fn new(quic: quinn::Connection, who: impl Into<String>) -> Self {
        let remote = plain(quic.remote_address());
        Self { quic, peer: Arc::new(Peer { who: who.into(), remote }) }
    }
    pub(crate) fn remote(&self) -> SocketAddr {
        plain(self.quic.remote_address())
    }
    pub(crate) async fn open_bi(&self) -> Result<(Sender, Receiver), TransportError> {
        let (sender, receiver) = self.opened(timeout(STREAM_WAIT, self.quic.open_bi()).await)?;
        Ok((self.sender(sender), self.receiver(receiver)))
    }
    async fn open_uni(&self) -> Result<Sender, TransportError> {
        let sender = self.opened(timeout(STREAM_WAIT, self.quic.open_uni()).await)?;
        Ok(self.sender(sender))
    }
    pub(crate) async fn accept_bi(&self) -> Result<(Sender, Receiver), TransportError> {
        let (sender, receiver) = self.quic.accept_bi().await.map_err(|error| self.lost(error))?;
        Ok((self.sender(sender), self.receiver(receiver)))
    }
    async fn accept_uni(&self) -> Result<Receiver, TransportError> {
        let receiver = self.quic.accept_uni().await.map_err(|error| self.lost(error))?;
        Ok(self.receiver(receiver))
    }
    pub(crate) async fn closed(&self) -> CloseReason {
        self.quic.closed().await.into()
    }
    pub(crate) fn close(&self, code: Code, reason: &str) {
        self.quic.close(code.to_wire(), reason.as_bytes());
    }
    fn sender(&self, stream: quinn::SendStream) -> Sender {
        Sender::new(stream, Arc::clone(&self.peer))
    }
    fn receiver(&self, stream: quinn::RecvStream) -> Receiver {
        Receiver::new(stream, Arc::clone(&self.peer))
    }
    fn lost(&self, error: quinn::ConnectionError) -> TransportError {
        TransportError::from_close(self.peer.to_string(), error)
    }
    fn opened<T>(
        &self,
        outcome: Result<Result<T, quinn::ConnectionError>, tokio::time::error::Elapsed>,
    ) -> Result<T, TransportError> {
        match outcome {
            Ok(stream) => stream.map_err(|error| self.lost(error)),
            Err(_) => {
                let fault = PeerFault::NoStreams { wait: STREAM_WAIT };
                Err(TransportError::Peer { peer: self.peer.to_string(), fault })
            }
        }
    }
}

/// A connection whose other end has proved who it is. Cheap to clone; it is
/// closed with [`Code::DONE`] when the last clone and the last stream are gone.
#[derive(Debug, Clone)]
pub struct Connection {
    link: Link,
    name: Arc<PeerName>,
    expires: SystemTime,
}

impl Connection {
    /// Reads who the peer is, and refuses it if it may not be here (W-4). rustls has verified
    /// the chain, its dates and its use, now or when the session that is resumed began;
    /// so whether it has ended is asked here, on every connection (W-7).
    pub(crate) fn establish(
        quic: quinn::Connection,
        ours: PlatformId,
        wanted: Option<Role>,
        now: SystemTime,
    ) -> Result<Self, TransportError> {
        let remote = plain(quic.remote_address());
        let (name, expires) = match judge(&quic, ours, wanted, now) {
            Ok(judged) => judged,
            Err(fault) => {
                // Which rule it was is for our log; an impostor learns only that it is refused.
                quic.close(Code::REFUSED.to_wire(), b"not of this platform or role");
                return Err(TransportError::Peer { peer: remote.to_string(), fault });
            }
        };
        if wanted.is_none() && name.role() != Role::Agent {
            // Few, and through each much passes: a region's updates, or a publish.
            quic.set_send_window(CONNECTION_WINDOW);
            quic.set_receive_window(tuning::LARGE_WINDOW);
            quic.set_max_concurrent_bi_streams(tuning::LARGE_CHILD_STREAMS);
        }
        Ok(Self { link: Link::new(quic, name.to_string()), name: Arc::new(name), expires })
    }

    /// Who is at the other end, by its certificate.
    pub fn peer(&self) -> &PeerName {
        &self.name
    }
    /// The last moment at which the peer's certificate is good. Nothing here ends the connection then.
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }
    /// Where it is now; a peer may move.
    pub fn remote(&self) -> SocketAddr {
        self.link.remote()
    }
    /// The present estimate of the round trip.
    pub fn rtt(&self) -> Duration {
        self.link.quic.rtt()
    }

    /// Opens a stream for both directions. The peer learns of it with the first bytes.
    /// Waits, at most [`STREAM_WAIT`], until the peer allows one more.
    pub async fn open_bi(&self) -> Result<(Sender, Receiver), TransportError> {
        self.link.open_bi().await
    }

    /// Opens a stream that only we send on; otherwise as [`Connection::open_bi`].
    pub async fn open_uni(&self) -> Result<Sender, TransportError> {
        self.link.open_uni().await
    }

    /// The next stream that the peer opened for both directions.
    pub async fn accept_bi(&self) -> Result<(Sender, Receiver), TransportError> {
        self.link.accept_bi().await
    }

    /// The next stream that only the peer sends on.
    pub async fn accept_uni(&self) -> Result<Receiver, TransportError> {
        self.link.accept_uni().await
    }

    /// Waits for the end of the connection, and tells why.
    pub async fn closed(&self) -> CloseReason {
        self.link.closed().await
    }
    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.link.quic.close_reason().is_some()
    }
    /// Closes the connection at once. What was sent and not yet acknowledged may be
    /// lost: [`Sender::finish_delivered`] first where it matters.
    pub fn close(&self, code: Code, reason: &str) {
        self.link.close(code, reason);
    }

    /// What went over the network so far.
    pub fn traffic(&self) -> Traffic {
        let stats = self.link.quic.stats();
        Traffic {
            sent_bytes: stats.udp_tx.bytes,
            sent_datagrams: stats.udp_tx.datagrams,
            received_bytes: stats.udp_rx.bytes,
            received_datagrams: stats.udp_rx.datagrams,
            lost_packets: stats.path.lost_packets,
        }
    }

    #[cfg(test)]
    pub(crate) const fn quic(&self) -> &quinn::Connection {
        &self.link.quic
    }
}

/// The protocol that both ends have agreed on.
pub(crate) fn is_joining(quic: &quinn::Connection) -> bool {
    let data = quic.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    data.and_then(|data| data.protocol).is_some_and(|protocol| protocol == JOIN_ALPN)
}

fn judge(
    quic: &quinn::Connection,
    ours: PlatformId,
    wanted: Option<Role>,
    now: SystemTime,
) -> Result<(PeerName, SystemTime), PeerFault> {
    let chain = quic
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .unwrap_or_default();
    let leaf = chain.first().ok_or(PeerFault::NoCertificate)?;
    let name = PeerName::of_leaf(leaf)?;
    let theirs = name.platform();
    if theirs != ours {
        return Err(PeerFault::OtherPlatform { theirs, ours });
    }
    let expires = chain_expiry(&chain).map_err(NameError::Certificate)?;
    if expires <= now {
        return Err(PeerFault::Certificate { reason: "it has expired since its session began".into() });
    }
    match wanted {
        Some(role) if role != name.role() => Err(PeerFault::NotARelay { role: name.role() }),
        _ => Ok((name, expires)),
    }
}
