//! What goes wrong, and whose fault it is.

use crate::close::{self, CloseReason, Code};
use crate::name::NameError;
use rootcast::codec::CodecError;
use rootcast::id::PlatformId;
use rootcast::member::Role;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The other end is broken or hostile. Whoever sees this drops it for another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// Its certificate does not verify under our authority, at this time, for its use.
    #[error("its certificate is refused: {reason}")]
    Certificate {
        /// What the verifier said.
        reason: String,
    },
    /// It asked for what is not answered to those who are not members.
    #[error("it asked for what only members are answered")]
    MembersOnly,
    /// It presents no certificate where one is needed.
    #[error("it presents no certificate")]
    NoCertificate,
    /// Its certificate does not say who it is.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It belongs to another platform.
    #[error("it is of platform {theirs}, we are of {ours}")]
    OtherPlatform {
        /// Its platform.
        theirs: PlatformId,
        /// Our platform.
        ours: PlatformId,
    },
    /// We dialled it as a relay, and its certificate says otherwise.
    #[error("its certificate is for {role}, not for a relay")]
    NotARelay {
        /// What its certificate says.
        role: Role,
    },
    /// It does not speak this version of the protocol.
    #[error("it does not speak {}; is it another version of Rootcast?", crate::tuning::ALPN_TEXT)]
    WrongProtocol,
    /// It did not complete the handshake in time.
    #[error("the handshake did not end within {wait:?}")]
    HandshakeTimeout {
        /// How long it had.
        wait: Duration,
    },
    /// It broke QUIC or TLS itself.
    #[error("it broke QUIC: {reason}")]
    Quic {
        /// What was wrong.
        reason: String,
    },
    /// It leaves out bytes that we never said to have.
    #[error("it leaves out bytes of an edit that we do not have")]
    NotBegun,
    /// It announced a frame or body over the limit. None of it was read.
    #[error("it announced {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// Bytes announced.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The length before a frame is not in its shortest form.
    #[error("a frame's length is not in its shortest form")]
    LengthNotShortest,
    /// Its stream ended inside a frame or body.
    #[error("its stream ended in the middle of a frame")]
    Truncated,
    /// A message is not the canonical encoding of what was wanted.
    #[error("a message is refused: {0}")]
    Message(#[from] CodecError),
    /// It sent, or took, nothing for too long in the middle of a frame.
    #[error("its stream stood still for {wait:?}")]
    Stalled {
        /// How long it had.
        wait: Duration,
    },
    /// It answered a request over HTTPS with a status that no relay has for it.
    #[error("it answered with HTTP status {status}")]
    Status {
        /// The status.
        status: u16,
    },
    /// It allows no more streams and ends none.
    #[error("it allowed no further stream for {wait:?}")]
    NoStreams {
        /// How long it had.
        wait: Duration,
    },
}

impl PeerFault {
    /// One word for it, of a fixed set, to count by.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Certificate { .. } => "certificate",
            Self::MembersOnly => "members_only",
            Self::NoCertificate => "no_certificate",
            Self::Name(_) => "name",
            Self::OtherPlatform { .. } => "other_platform",
            Self::NotARelay { .. } => "not_a_relay",
            Self::WrongProtocol => "wrong_protocol",
            Self::HandshakeTimeout { .. } => "handshake_timeout",
            Self::Quic { .. } => "quic",
            Self::NotBegun => "not_begun",
            Self::Status { .. } => "status",
            Self::TooLarge { .. } => "too_large",
            Self::LengthNotShortest => "length_not_shortest",
            Self::Truncated => "truncated",
            Self::Message(_) => "message",
            Self::Stalled { .. } => "stalled",
            Self::NoStreams { .. } => "no_streams",
        }
    }
}

/// Everything that fails in this crate. What is the other end's fault is
/// [`TransportError::Peer`]; the rest is ours, the network's, or an orderly end.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A file of the identity could not be read.
    #[error("{} could not be read: {source}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the owner can read the private key.
    #[error("{} has mode {mode:03o}, so others can read the private key; run `chmod 600` on it", path.display())]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// A file is not the PEM that it should be.
    #[error("{} is not usable: {reason}; issue the identity again", path.display())]
    BadPem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Our own certificate does not say who we are.
    #[error("{}: {source}; issue the identity again", path.display())]
    OwnName {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: NameError,
    },
    /// Our own certificate is not from the authority beside it, or not for our role.
    #[error(
        "{} does not verify under the authority beside it: {source}; both files must come from one `issue`",
        path.display()
    )]
    OwnCertificate {
        /// The file.
        path: PathBuf,
        /// What the verifier said.
        source: webpki::Error,
    },
    /// TLS does not take our key or certificate.
    #[error("TLS could not be set up: {source}; issue the identity again")]
    Tls {
        /// What rustls said.
        source: rustls::Error,
    },
    /// The system's random source failed.
    #[error("the system's random source failed: {source}")]
    Random {
        /// What it said.
        source: getrandom::Error,
    },
    /// Only a relay can be dialled, so only a relay may listen.
    #[error("{name} cannot listen: only a relay's certificate can; issue one with role relay")]
    MayNotListen {
        /// Our name.
        name: String,
    },
    /// The socket could not be opened.
    #[error("UDP {address} could not be opened: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The TCP socket could not be opened.
    #[error("TCP {address} could not be opened: {source}")]
    BindTcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A peer could not be reached over TCP, or was lost in the handshake.
    #[error("{peer} could not be reached over TCP: {source}")]
    Tcp {
        /// Who is, or should be, there.
        peer: String,
        /// What the system said.
        source: io::Error,
    },
    /// A connection over HTTPS failed, or its other end broke HTTP.
    #[error("{peer}: {source}")]
    Http {
        /// Who is there.
        peer: String,
        /// What went wrong.
        source: hyper::Error,
    },
    /// A peer has no room over HTTPS, or has yet to fetch what it was asked for.
    #[error("{peer} has not yet what it was asked for, and said to ask again in {wait:?}")]
    Later {
        /// Who is there.
        peer: String,
        /// When to ask again.
        wait: Duration,
    },
    /// A peer's address could not be resolved.
    #[error("`{address}` could not be resolved: {source}; it is host:port")]
    Resolve {
        /// The address as given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// None of a peer's addresses could be dialled from this endpoint.
    #[error("{address} could not be dialled: {source}")]
    Dial {
        /// The address.
        address: SocketAddr,
        /// What QUIC said.
        source: quinn::ConnectError,
    },
    /// The connection is over, by either end's will or for lack of packets.
    #[error("{peer}: {reason}")]
    Closed {
        /// Who is, or should be, there.
        peer: String,
        /// Why it is over.
        reason: CloseReason,
    },
    /// The other end gave up sending a stream.
    #[error("{peer} gave up a stream: {code}")]
    StreamReset {
        /// Who.
        peer: String,
        /// Why.
        code: Code,
    },
    /// The other end no longer wants a stream that we send.
    #[error("{peer} no longer wants a stream: {code}")]
    StreamStopped {
        /// Who.
        peer: String,
        /// Why.
        code: Code,
    },
    /// The stream was used after its end, or after a send that was given up half way.
    #[error("a stream to {peer} was used after its end")]
    StreamEnded {
        /// Who is at its other end.
        peer: String,
    },
    /// A frame of ours is larger than any receiver takes.
    #[error("a frame of {size} bytes is over the limit of {limit}; send it as a body")]
    FrameTooLarge {
        /// Its size.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The other end is broken or hostile.
    #[error("{peer}: {fault}")]
    Peer {
        /// Who.
        peer: String,
        /// What it did.
        fault: PeerFault,
    },
}

impl TransportError {
    /// What the other end did wrong, where this is its fault.
    pub const fn fault(&self) -> Option<&PeerFault> {
        match self {
            Self::Peer { fault, .. } => Some(fault),
            _ => None,
        }
    }

    /// Whether the other end answered at all, if only to refuse us: then packets get through to it.
    pub const fn is_answer(&self) -> bool {
        match self {
            Self::Closed { reason, .. } => !matches!(reason, CloseReason::Silent),
            Self::Peer { fault, .. } => !matches!(fault, PeerFault::HandshakeTimeout { .. }),
            _ => false,
        }
    }

    /// Judges a failed handshake of TLS over TCP.
    pub(crate) fn of_tls(peer: String, source: io::Error) -> Self {
        let fault = match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                PeerFault::Certificate { reason: reason.to_string() }
            }
            Some(rustls::Error::NoCertificatesPresented) => PeerFault::NoCertificate,
            _ => return Self::Tcp { peer, source },
        };
        Self::Peer { peer, fault }
    }

    /// Judges the end of an established connection.
    pub(crate) fn from_close(peer: String, error: quinn::ConnectionError) -> Self {
        match CloseReason::from(error) {
            CloseReason::Violation { reason } => Self::Peer { peer, fault: PeerFault::Quic { reason } },
            reason => Self::Closed { peer, reason },
        }
    }

    /// Judges the end of a handshake: an alert that we raised is the peer's fault.
    pub(crate) fn from_handshake(peer: String, error: quinn::ConnectionError) -> Self {
        let quinn::ConnectionError::TransportError(raised) = &error else {
            return Self::from_close(peer, error);
        };
        let reason = close::printable(raised.reason.as_bytes());
        let fault = match close::alert_of(raised.code.into()) {
            Some(alert) if close::is_protocol_alert(alert) => PeerFault::WrongProtocol,
            Some(alert) if close::is_certificate_alert(alert) => PeerFault::Certificate { reason },
            _ => PeerFault::Quic { reason },
        };
        Self::Peer { peer, fault }
    }
}
