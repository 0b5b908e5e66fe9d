//! Why a connection or a stream ends.

use core::fmt;
use quinn::{ConnectionError, TransportErrorCode, VarInt};

/// The number that ends a connection or a stream (specs/wire.md, W-14).
///
/// One space for both; numbers that a release does not know are passed on as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(VarInt);

impl Code {
    /// Nothing is wrong; there is no more to say.
    pub const DONE: Self = Self::new(0);
    /// The other end broke the protocol.
    pub const FAULT: Self = Self::new(1);
    /// The other end may not be here: another platform, a wrong role, denied.
    pub const REFUSED: Self = Self::new(2);
    /// This end is stopping or restarting.
    pub const LEAVING: Self = Self::new(3);
    /// This end has no room.
    pub const BUSY: Self = Self::new(4);
    /// The stream was dropped before it was finished.
    pub const DROPPED: Self = Self::new(5);
    /// Something newer has taken the stream's place.
    pub const SUPERSEDED: Self = Self::new(6);

    /// A code by its number.
    pub const fn new(number: u32) -> Self {
        Self(VarInt::from_u32(number))
    }
    /// The number.
    pub const fn number(self) -> u64 {
        self.0.into_inner()
    }
    pub(crate) const fn from_wire(number: VarInt) -> Self {
        Self(number)
    }
    pub(crate) const fn to_wire(self) -> VarInt {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match *self {
            Self::DONE => "done",
            Self::FAULT => "protocol fault",
            Self::REFUSED => "refused",
            Self::LEAVING => "leaving",
            Self::BUSY => "busy",
            Self::DROPPED => "dropped",
            Self::SUPERSEDED => "superseded",
            _ => return write!(f, "code {}", self.number()),
        };
        f.write_str(meaning)
    }
}

/// Why a connection is no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The other end closed it.
    #[error("closed by the other end: {code}{}", detail(reason))]
    ByPeer {
        /// Its code.
        code: Code,
        /// Its words, shortened and escaped.
        reason: String,
    },
    /// This end closed it.
    #[error("closed by this end")]
    ByUs,
    /// No packet came for as long as is allowed.
    #[error("silent for too long")]
    Silent,
    /// The other end no longer knows of it; mostly it has restarted.
    #[error("forgotten by the other end, which has probably restarted")]
    Forgotten,
    /// The other end did not accept our certificate or protocol.
    #[error("the other end refused us: {}{}", alert_meaning(*alert), detail(reason))]
    RefusedUs {
        /// The TLS alert it gave.
        alert: u8,
        /// Its words, shortened and escaped.
        reason: String,
    },
    /// The other end has no room for us, or is stopping.
    #[error("the other end takes no connections now")]
    TurnedAway,
    /// One end found the other breaking QUIC.
    #[error("QUIC was broken: {reason}")]
    Violation {
        /// What was wrong.
        reason: String,
    },
}

/// First bit of the QUIC error numbers that carry a TLS alert (RFC 9001 section 4.8).
const CRYPTO_ERRORS: core::ops::Range<u64> = 0x100..0x200;
const NO_APPLICATION_PROTOCOL: u8 = 120;
const CERTIFICATE_ALERTS: [u8; 10] = [41, 42, 43, 44, 45, 46, 48, 49, 51, 116];

/// What a caller sees of an end that took no connection, or gave one up in its handshake.
const TURNED_AWAY: [TransportErrorCode; 2] =
    [TransportErrorCode::CONNECTION_REFUSED, TransportErrorCode::APPLICATION_ERROR];

/// The TLS alert that a QUIC error number carries.
pub(crate) fn alert_of(code: u64) -> Option<u8> {
    CRYPTO_ERRORS.contains(&code).then_some((code & 0xff) as u8)
}

pub(crate) fn is_protocol_alert(alert: u8) -> bool {
    alert == NO_APPLICATION_PROTOCOL
}

pub(crate) fn is_certificate_alert(alert: u8) -> bool {
    CERTIFICATE_ALERTS.contains(&alert)
}

fn alert_meaning(alert: u8) -> String {
    let meaning = match alert {
        42 | 43 | 46 | 49 => "it does not accept our certificate",
        44 => "our certificate is revoked",
        45 => "our certificate has expired, or its clock is wrong; issue a new identity",
        48 => "our certificate is not from its authority; check that both are of one platform",
        51 => "our certificate's signature does not verify under its authority",
        116 => "it wants a certificate",
        NO_APPLICATION_PROTOCOL => "it does not speak this version of the protocol",
        _ => return format!("TLS alert {alert}"),
    };
    meaning.into()
}

fn detail(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

/// What the other end wrote, fit for a log: it is not trusted text.
pub(crate) fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(200).flat_map(char::escape_debug).collect()
}

impl From<ConnectionError> for CloseReason {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                Self::ByPeer { code: Code::from_wire(close.error_code), reason: printable(&close.reason) }
            }
            ConnectionError::ConnectionClosed(close) => {
                let code = u64::from(close.error_code);
                let reason = printable(&close.reason);
                match alert_of(code) {
                    Some(alert) => Self::RefusedUs { alert, reason },
                    None if TURNED_AWAY.contains(&close.error_code) => Self::TurnedAway,
                    None => Self::Violation { reason: format!("{}{}", close.error_code, detail(&reason)) },
                }
            }
            ConnectionError::LocallyClosed => Self::ByUs,
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::Reset => Self::Forgotten,
            error @ (ConnectionError::TransportError(_)
            | ConnectionError::VersionMismatch
            | ConnectionError::CidsExhausted) => {
                Self::Violation { reason: printable(error.to_string().as_bytes()) }
            }
        }
    }
}
