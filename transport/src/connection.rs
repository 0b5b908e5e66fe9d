//! An established connection: both ends have proved who they are.

use crate::close::{CloseReason, Code};
use crate::error::{PeerFault, TransportError};
use crate::name::{NameError, PeerName};
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::tuning;
use core::fmt;
use rootcast::id::PlatformId;
use rootcast::limits::{CONNECTION_WINDOW, STREAM_WAIT};
use rootcast::member::Role;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Who is at the other end, and where it was when it came.
#[derive(Debug)]
pub(crate) struct Peer {
    name: PeerName,
    remote: SocketAddr,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.remote)
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

/// A connection whose two ends have proved who they are. Cheap to clone; it is
/// closed with [`Code::DONE`] when the last clone and the last stream are gone.
#[derive(Debug, Clone)]
pub struct Connection {
    quic: quinn::Connection,
    peer: Arc<Peer>,
}

impl Connection {
    /// Reads who the peer is, and refuses it if it may not be here (W-4).
    /// rustls has verified the chain, the dates and the use before.
    pub(crate) fn establish(
        quic: quinn::Connection,
        ours: PlatformId,
        wanted: Option<Role>,
    ) -> Result<Self, TransportError> {
        let remote = plain(quic.remote_address());
        let name = match judge(&quic, ours, wanted) {
            Ok(name) => name,
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
        Ok(Self { quic, peer: Arc::new(Peer { name, remote }) })
    }

    /// Who is at the other end, by its certificate.
    pub fn peer(&self) -> &PeerName {
        &self.peer.name
    }
    /// Where it is now; a peer may move.
    pub fn remote(&self) -> SocketAddr {
        plain(self.quic.remote_address())
    }
    /// The present estimate of the round trip.
    pub fn rtt(&self) -> Duration {
        self.quic.rtt()
    }

    /// Opens a stream for both directions. The peer learns of it with the first bytes.
    /// Waits, at most [`STREAM_WAIT`], until the peer allows one more.
    pub async fn open_bi(&self) -> Result<(Sender, Receiver), TransportError> {
        let (sender, receiver) = self.opened(timeout(STREAM_WAIT, self.quic.open_bi()).await)?;
        Ok((self.sender(sender), self.receiver(receiver)))
    }

    /// Opens a stream that only we send on; otherwise as [`Connection::open_bi`].
    pub async fn open_uni(&self) -> Result<Sender, TransportError> {
        let sender = self.opened(timeout(STREAM_WAIT, self.quic.open_uni()).await)?;
        Ok(self.sender(sender))
    }

    /// The next stream that the peer opened for both directions.
    pub async fn accept_bi(&self) -> Result<(Sender, Receiver), TransportError> {
        let (sender, receiver) = self.quic.accept_bi().await.map_err(|error| self.lost(error))?;
        Ok((self.sender(sender), self.receiver(receiver)))
    }

    /// The next stream that only the peer sends on.
    pub async fn accept_uni(&self) -> Result<Receiver, TransportError> {
        let receiver = self.quic.accept_uni().await.map_err(|error| self.lost(error))?;
        Ok(self.receiver(receiver))
    }

    /// Waits for the end of the connection, and tells why.
    pub async fn closed(&self) -> CloseReason {
        self.quic.closed().await.into()
    }
    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.quic.close_reason().is_some()
    }
    /// Closes the connection at once. What was sent and not yet acknowledged may be
    /// lost: [`Sender::finish_delivered`] first where it matters.
    pub fn close(&self, code: Code, reason: &str) {
        self.quic.close(code.to_wire(), reason.as_bytes());
    }

    /// What went over the network so far.
    pub fn traffic(&self) -> Traffic {
        let stats = self.quic.stats();
        Traffic {
            sent_bytes: stats.udp_tx.bytes,
            sent_datagrams: stats.udp_tx.datagrams,
            received_bytes: stats.udp_rx.bytes,
            received_datagrams: stats.udp_rx.datagrams,
            lost_packets: stats.path.lost_packets,
        }
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

    #[cfg(test)]
    pub(crate) const fn quic(&self) -> &quinn::Connection {
        &self.quic
    }
}

fn judge(quic: &quinn::Connection, ours: PlatformId, wanted: Option<Role>) -> Result<PeerName, PeerFault> {
    let chain = quic
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .unwrap_or_default();
    let leaf = chain.first().ok_or(NameError::Count { count: 0 })?;
    let name = PeerName::of_leaf(leaf)?;
    let theirs = name.platform();
    if theirs != ours {
        return Err(PeerFault::OtherPlatform { theirs, ours });
    }
    match wanted {
        Some(role) if role != name.role() => Err(PeerFault::NotARelay { role: name.role() }),
        _ => Ok(name),
    }
}
