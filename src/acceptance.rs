//! What a replica has accepted, and what it may accept next.
//!
//! Floors never go back, across crashes too (architecture invariant 2). The
//! rule is pure: the store makes its outcome durable (specs/documents.md, D-30).

use crate::encode_as_array;
use crate::id::ReleaseHash;
use crate::limits::MAX_NUMBER;

/// The highest statements that a replica has accepted in one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Floors {
    /// Version of the trust document; 0 before any.
    pub trust_version: u64,
    /// Epoch of the head; 0 before any.
    pub head_epoch: u64,
    /// Sequence of the head; 0 before any.
    pub head_sequence: u64,
    /// The newest release; `None` before any.
    pub release: Option<Accepted>,
}
encode_as_array!(Floors { trust_version, head_epoch, head_sequence, release });

/// A release that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The grant's epoch when it was signed, from 1. A later epoch outranks any number.
    pub epoch: u64,
    /// Its number, from 1.
    pub number: u64,
    /// The hash of its signed payload.
    pub hash: ReleaseHash,
}
encode_as_array!(Accepted { epoch, number, hash });

impl Accepted {
    /// Its place in the order of acceptance.
    pub fn rank(&self) -> (u64, u64) {
        (self.epoch, self.number)
    }
}

impl Floors {
    /// The number of the newest accepted release; 0 before any.
    pub fn number(&self) -> u64 {
        self.release.map_or(0, |accepted| accepted.number)
    }

    /// Epoch and sequence of the head.
    pub fn head(&self) -> (u64, u64) {
        (self.head_epoch, self.head_sequence)
    }

    /// Whether no floor of `next` is below the same floor of `self`, and a
    /// release at the same number is the same release.
    pub fn may_become(&self, next: &Self) -> bool {
        let release = match (&self.release, &next.release) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(old), Some(new)) => {
                new.rank() > old.rank() || (new.rank() == old.rank() && new.hash == old.hash)
            }
        };
        release && self.trust_version <= next.trust_version && self.head() <= next.head()
    }
}

/// What is offered: a verified release, by number and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// The release offered.
    pub release: Accepted,
    /// The hash of the release before it; `None` for the first.
    pub previous: Option<ReleaseHash>,
}

/// What an offer means to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The very next release, on top of the accepted one.
    Next,
    /// A later release than the next. Its signature and number are good; what
    /// lies between was not seen (docs/decisions/0002-jumps.md).
    Jump,
    /// The accepted release again.
    Same,
}

/// An offer that must not be accepted. It is evidence, kept and reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A lower number than the accepted one.
    #[error("release {offered} is older than release {floor}, which is already accepted")]
    Rollback {
        /// The number offered.
        offered: u64,
        /// The number accepted.
        floor: u64,
    },
    /// An epoch that is over.
    #[error("release {number} is of epoch {offered}, and epoch {floor} has begun")]
    Epoch {
        /// The number offered.
        number: u64,
        /// The epoch offered.
        offered: u64,
        /// The epoch accepted.
        floor: u64,
    },
    /// The accepted number with other content.
    #[error("release {number} was signed twice with different content: {accepted:?} and {offered:?}")]
    Equivocation {
        /// The number of both.
        number: u64,
        /// What was accepted.
        accepted: ReleaseHash,
        /// What was offered.
        offered: ReleaseHash,
    },
    /// The next number, but built on another release than the accepted one.
    #[error("release {number} does not follow the accepted release {}", number - 1)]
    Fork {
        /// The number offered.
        number: u64,
    },
    /// Zero, or beyond the highest number.
    #[error("release number {number} is out of range")]
    OutOfRange {
        /// The number offered.
        number: u64,
    },
}

/// Judges an offer against the floors.
pub fn judge(floors: &Floors, offer: &Offer) -> Result<Verdict, Refusal> {
    let number = offer.release.number;
    if number == 0 || number > MAX_NUMBER || (number == 1) != offer.previous.is_none() {
        return Err(Refusal::OutOfRange { number });
    }
    let Some(accepted) = floors.release else {
        return Ok(if number == 1 { Verdict::Next } else { Verdict::Jump });
    };
    let (offered, floor) = (offer.release.epoch, accepted.epoch);
    if offered < floor {
        return Err(Refusal::Epoch { number, offered, floor });
    }
    let follows = accepted.number.checked_add(1) == Some(number) && offer.previous == Some(accepted.hash);
    if offered > floor {
        return Ok(if follows { Verdict::Next } else { Verdict::Jump });
    }
    if number < accepted.number {
        return Err(Refusal::Rollback { offered: number, floor: accepted.number });
    }
    if number == accepted.number {
        return if offer.release.hash == accepted.hash {
            Ok(Verdict::Same)
        } else {
            let (accepted, offered) = (accepted.hash, offer.release.hash);
            Err(Refusal::Equivocation { number, accepted, offered })
        };
    }
    if number > accepted.number + 1 {
        return Ok(Verdict::Jump);
    }
    if follows { Ok(Verdict::Next) } else { Err(Refusal::Fork { number }) }
}
