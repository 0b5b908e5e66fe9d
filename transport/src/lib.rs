//! The transport of Rootcast: QUIC with mutual TLS under the platform's own
//! certificate authority, and framed streams over it.
//!
//! An [`Identity`] is who this process is; an [`Endpoint`] made from it dials
//! relays and, where it is a relay, accepts callers; a [`Connection`] knows by
//! certificate who is at its other end; a [`Sender`] and a [`Receiver`] are the
//! ends of one stream. What is said over the streams is not known here.
//!
//! Faults of the other end are [`PeerFault`], apart from our own failures. The
//! rules are in `specs/wire.md`, whose clauses (`W-1`, …) the comments cite.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

mod close;
mod connection;
mod endpoint;
mod error;
pub mod https;
mod identity;
mod joining;
mod key;
mod name;
mod pem;
mod receiver;
mod sender;
mod socket;
#[cfg(test)]
mod tests;
mod tickets;
mod totals;
mod tuning;
mod unverified;
pub mod varint;

pub use close::{CloseReason, Code};
pub use connection::{Connection, Traffic};
pub use endpoint::{Endpoint, Handshake, HandshakeCounts, Purpose};
pub use error::{PeerFault, TransportError};
pub use identity::{AUTHORITY_FILE, AuthorityCertificate, IDENTITY_FILE, Identity};
pub use joining::{Arrival, Joiner, Unproven};
pub use key::OwnKey;
pub use name::{NameError, PeerName, RELAY_SERVER_NAME, authority_uri};
pub use receiver::Receiver;
pub use rootcast::member::Role;
pub use sender::{Sender, frame, frame_of};
pub use tickets::{TICKET_LOOK, TicketKeys};
pub use totals::StreamTotals;
