//! The head: the origin's statement of where a channel is, good for a time.
//!
//! A release says what may run; a head says that, at a time, this release was
//! the one that should. While its head is good, a host knows that nobody keeps
//! newer releases from it. Once it has lapsed the host is STALE: it says so, and
//! goes on running what it runs (specs/documents.md, D-31 to D-36).

use crate::acceptance::{Accepted, Floors};
use crate::codec::{self, CodecError};
use crate::cose::{self, DocumentKind};
use crate::encode_as_array;
use crate::limits::{HEAD_RENEWALS, MAX_DOCUMENT, MAX_NUMBER};
use crate::path::ChannelName;
use crate::trust::VerifiedTrust;
use crate::verify::VerifyError;
use bytes::Bytes;

/// What the origin's online key signs. The platform is bound by the signature's `external_aad`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The channel.
    pub channel: ChannelName,
    /// The grant's epoch when it was signed.
    pub epoch: u64,
    /// From 1, higher with each in an epoch.
    pub sequence: u64,
    /// The release that should be active.
    pub release: Accepted,
    /// When it was signed, in seconds since 1970.
    pub issued: u64,
    /// When it lapses, in seconds since 1970.
    pub expires: u64,
}
encode_as_array!(Head { channel, epoch, sequence, release, issued, expires });

impl Head {
    /// The payload to sign.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a payload and checks what the fields alone can show.
    pub fn decode(payload: &[u8]) -> Result<Self, CodecError> {
        let head: Self = codec::decode(payload, MAX_DOCUMENT)?;
        let numbers = [head.epoch, head.sequence, head.release.epoch, head.release.number];
        let sound =
            numbers.iter().all(|number| (1..=MAX_NUMBER).contains(number)) && head.issued < head.expires;
        if sound {
            return Ok(head);
        }
        Err(CodecError::Shape { wanted: "a head", reason: "a number or time is out of range".into() })
    }

    /// Its place in the order of acceptance.
    pub fn rank(&self) -> (u64, u64) {
        (self.epoch, self.sequence)
    }

    /// Whether one that was issued so long after another is worth sending to
    /// who has that one: heads travel a few times in their validity, not with each release.
    pub fn replaces(&self, issued_before: u64) -> bool {
        self.issued.saturating_sub(issued_before) >= (self.expires - self.issued) / HEAD_RENEWALS
    }

    /// How long it is good for, in seconds.
    pub fn validity(&self) -> u64 {
        self.expires.saturating_sub(self.issued)
    }
}

/// A head that verified against the trust document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedHead {
    head: Head,
    document: Bytes,
    payload: Bytes,
    trust_version: u64,
}

impl VerifiedTrust {
    /// Verifies a signed head of a channel.
    pub fn head(&self, channel: &ChannelName, document: &Bytes) -> Result<VerifiedHead, VerifyError> {
        let grant = self.trust().grant(channel).ok_or_else(|| VerifyError::NotGranted(channel.clone()))?;
        let payload = cose::verify(DocumentKind::Head, self.trust().platform, document, &self.trust().heads)
            .map_err(VerifyError::Head)?;
        let head = Head::decode(&payload)?;
        if head.channel != *channel {
            return Err(VerifyError::Channel { got: head.channel, want: channel.clone() });
        }
        if head.epoch != grant.epoch {
            return Err(VerifyError::Epoch { got: head.epoch, want: grant.epoch });
        }
        let trust_version = self.trust().version;
        Ok(VerifiedHead { head, document: document.clone(), payload, trust_version })
    }
}

impl VerifiedHead {
    /// What it says.
    pub fn head(&self) -> &Head {
        &self.head
    }
    /// The document, exactly as it was signed.
    pub fn document(&self) -> &Bytes {
        &self.document
    }
    /// The version of trust that it verified under.
    pub fn trust_version(&self) -> u64 {
        self.trust_version
    }
}

/// A head that must not be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadRefusal {
    /// A lower sequence, or an epoch that is over.
    #[error("head {offered} is older than head {floor}, which is already accepted")]
    Rollback {
        /// The sequence offered.
        offered: u64,
        /// The sequence accepted.
        floor: u64,
    },
    /// The accepted sequence with other content.
    #[error("head {sequence} was signed twice with different content")]
    Equivocation {
        /// The sequence of both.
        sequence: u64,
    },
}

/// Judges a head against the floors and the head that is held. `true`: it is new.
pub fn judge_head(
    floors: &Floors,
    held: Option<&VerifiedHead>,
    offered: &VerifiedHead,
) -> Result<bool, HeadRefusal> {
    let sequence = offered.head.sequence;
    if offered.head.rank() < floors.head() {
        return Err(HeadRefusal::Rollback { offered: sequence, floor: floors.head_sequence });
    }
    match held.filter(|held| held.head.rank() == offered.head.rank()) {
        Some(held) if held.payload == offered.payload => Ok(false),
        Some(_) => Err(HeadRefusal::Equivocation { sequence }),
        // After damage the head of the floor itself may be taken again.
        None => Ok(true),
    }
}

/// Whether a host knows that it is up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Its head is good until then, in seconds since 1970.
    Fresh {
        /// When it lapses.
        until: u64,
    },
    /// Its head, or the trust document, has lapsed, or it never had a head. What runs stays.
    Stale,
}

impl Freshness {
    /// Judges by a head and the expiry of the trust document. `now` is the time
    /// after [`lower_bound`].
    pub fn of(head: Option<&Head>, trust_expires: u64, now: u64) -> Self {
        match head.map(|head| head.expires.min(trust_expires)) {
            Some(until) if now < until => Self::Fresh { until },
            _ => Self::Stale,
        }
    }
}

/// The time to judge by, in seconds since 1970: the clock's, and never before a
/// time that a verified document was signed at. A clock that was set back
/// cannot make a lapsed head good again beyond that (specs/documents.md, D-35).
pub fn lower_bound(clock: u64, verified: impl IntoIterator<Item = u64>) -> u64 {
    verified.into_iter().fold(clock, u64::max)
}
