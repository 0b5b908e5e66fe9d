//! Connections of those who are not members yet, or whose certificate has ended:
//! under a protocol name of their own, on which they present no certificate
//! (specs/join.md, J-10 to J-13).

use crate::close::{CloseReason, Code};
use crate::connection::{Connection, Link};
use crate::endpoint::dial_any;
use crate::error::{PeerFault, TransportError};
use crate::identity::AuthorityCertificate;
use crate::name::{NameError, RELAY_SERVER_NAME};
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::{socket, tuning};
use std::net::SocketAddr;
use std::time::SystemTime;

/// Who has come.
#[derive(Debug)]
pub enum Arrival {
    /// A member, proved by its certificate.
    Member(Connection),
    /// One that wants to join or to renew, and is proved by nothing yet.
    Joiner(Unproven),
}

/// A connection whose other end is not known to be anybody. It is good for asking
/// and answering what proves itself, and for nothing else.
#[derive(Debug, Clone)]
pub struct Unproven {
    link: Link,
}

impl Unproven {
    pub(crate) fn new(quic: quinn::Connection) -> Self {
        Self { link: Link::new(quic, "an unproven peer") }
    }
    /// Where the other end is.
    pub fn remote(&self) -> SocketAddr {
        self.link.remote()
    }
    /// As [`Connection::open_bi`].
    pub async fn open_bi(&self) -> Result<(Sender, Receiver), TransportError> {
        self.link.open_bi().await
    }
    /// As [`Connection::accept_bi`].
    pub async fn accept_bi(&self) -> Result<(Sender, Receiver), TransportError> {
        self.link.accept_bi().await
    }
    /// As [`Connection::closed`].
    pub async fn closed(&self) -> CloseReason {
        self.link.closed().await
    }
    /// As [`Connection::close`].
    pub fn close(&self, code: Code, reason: &str) {
        self.link.close(code, reason);
    }
}

/// A socket to dial relays from without an identity.
#[derive(Debug, Clone)]
pub struct Joiner {
    quic: quinn::Endpoint,
}

impl Joiner {
    /// Opens it.
    ///
    /// # Errors
    /// When the system gives no socket.
    pub fn new() -> Result<Self, TransportError> {
        let quic =
            socket::dialling().map_err(|source| TransportError::Bind { address: socket::ANY, source })?;
        Ok(Self { quic })
    }

    /// Dials whoever is at `host:port` and believes nothing of who it is. For what
    /// proves itself: the platform's public documents (J-11).
    ///
    /// # Errors
    /// When nobody there speaks the joining protocol.
    pub async fn meet(&self, address: &str) -> Result<Unproven, TransportError> {
        let config = tuning::meeting_config()?;
        dial_any(&self.quic, address, || config.clone()).await.map(Unproven::new)
    }

    /// Dials the relay at `host:port`, which proves itself under `authority` as to any
    /// member; we present nothing (J-12).
    ///
    /// # Errors
    /// As `Endpoint::connect`.
    pub async fn connect(
        &self,
        address: &str,
        authority: &AuthorityCertificate,
    ) -> Result<Connection, TransportError> {
        let platform = authority.platform().ok_or_else(|| TransportError::Peer {
            peer: address.into(),
            fault: PeerFault::Name(NameError::Count { count: 0 }),
        })?;
        let config = tuning::joining_config(authority)?;
        let quic = dial_any(&self.quic, address, || config.clone()).await?;
        Connection::establish(quic, platform, Some(rootcast::member::Role::Relay), SystemTime::now())
    }
}

/// Dials one address with a configuration.
pub(crate) fn begin(
    quic: &quinn::Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
) -> Result<quinn::Connecting, TransportError> {
    quic.connect_with(config, address, RELAY_SERVER_NAME)
        .map_err(|source| TransportError::Dial { address, source })
}
