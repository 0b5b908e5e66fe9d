//! Joining a platform, and staying in it: the join string that a person carries,
//! the request that a machine sends, and the origin's verdict (specs/join.md).

mod judge;
mod request;
mod text;

pub use judge::{Member, Refusal, Token, Use, Verdict, judge};
pub use request::{Claimed, JoinError, Proved, Request};
pub(crate) use text::is_address;
pub use text::{JoinString, JoinStringError, TokenSecret};

use crate::encode_as_array;
use crate::limits::{AGENT_VALIDITY, PUBLISHER_VALIDITY, RELAY_VALIDITY};
use crate::member::Role;
use bytes::Bytes;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// How long a certificate of this role is good.
pub const fn validity(role: Role) -> Duration {
    match role {
        Role::Relay => RELAY_VALIDITY,
        Role::Agent => AGENT_VALIDITY,
        Role::Publisher => PUBLISHER_VALIDITY,
    }
}

/// What a platform tells everybody: it proves itself by the fingerprint (J-11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicDocuments {
    /// The signed trust documents, version 1 first.
    pub trust: Vec<Bytes>,
    /// The certificate authority's certificate, DER.
    pub authority: Bytes,
}
encode_as_array!(PublicDocuments { trust, authority });

/// What became of a request (J-15).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswer {
    /// The certificate chain, DER, leaf first.
    Issued(Vec<Bytes>),
    /// It is refused. Why is in the origin's log, and nowhere else.
    Refused,
    /// No origin could be asked; later one may.
    Unavailable,
}
