//! HTTPS, where QUIC does not get through: HTTP/1.1 over TLS under the same
//! certificates and rules (specs/http.md).
//!
//! What is asked and answered is not known here: who asks, how long it may take,
//! and how large it may be, is.

mod bearer;
mod client;
mod patience;
mod server;

use crate::name::PeerName;
use bytes::Bytes;
pub use client::{Ask, Caches, HttpsConnection, HttpsDialer};
#[cfg(test)]
pub(crate) use server::HttpCaps;
pub use server::{HttpsArrival, HttpsListener, HttpsSession};

/// The protocol's name in the handshake: what every proxy speaks.
const ALPN: &[u8] = b"http/1.1";

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It reads.
    Get,
    /// It brings something.
    Post,
    /// Anything else.
    Other,
}

/// How a caller has proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By the certificate of this connection.
    Certificate,
    /// By a token, which may have been seen by others: it is for reading only (HT-23).
    Token,
}

/// A request, as far as whoever answers must know it.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// What it does.
    pub verb: Verb,
    /// Path and query, as they came.
    pub target: String,
    /// The entity tags of what the caller has already.
    pub if_none_match: Option<String>,
    /// Whether caches on the way are to ask anew.
    pub asks_anew: bool,
    /// Who asks, and how that is known; `None`: it has not said.
    pub caller: Option<(PeerName, Proof)>,
    /// What it brings.
    pub body: Bytes,
}

/// How an answer may be kept by caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Not at all.
    No,
    /// By the caller alone, for ever.
    Private,
    /// By everybody on the way, for ever.
    Shared,
    /// By the caller alone, for so many seconds.
    PrivateFor(u64),
    /// By everybody on the way, for so many seconds.
    SharedFor(u64),
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The media type of the body.
    pub media_type: &'static str,
    /// The strong entity tag of the body, quotation marks included.
    pub tag: Option<String>,
    /// How it may be kept.
    pub keep: Keep,
    /// The body, in pieces that follow one another.
    pub pieces: Vec<Bytes>,
}

impl HttpAnswer {
    /// A status and nothing else, which nobody may keep.
    pub fn of_status(status: u16) -> Self {
        Self { status, media_type: "text/plain", tag: None, keep: Keep::No, pieces: Vec::new() }
    }
}
