//! Denials: which members may not be served, though their certificates are
//! still good. Signed by the online key, and passed down the tree (specs/join.md, J-40 to J-44).

use crate::codec::{self, CodecError};
use crate::cose::{self, DocumentKind, SignatureError};
use crate::encode_as_array;
use crate::limits::{MAX_DENIED, MAX_DOCUMENT, MAX_NUMBER};
use crate::member::Role;
use crate::path::MemberName;
use crate::trust::Trust;

/// A member that is denied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Denied {
    /// What it is.
    pub role: Role,
    /// Its name.
    pub name: MemberName,
}
encode_as_array!(Denied { role, name });

/// The payload of a denials document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denials {
    /// Higher in each document than in the one before; from 1.
    pub sequence: u64,
    /// When it was signed, in seconds since 1970.
    pub issued: u64,
    /// Who, in strictly ascending order of role (relay, agent, publisher) and name.
    pub denied: Vec<Denied>,
}
encode_as_array!(Denials { sequence, issued, denied });

/// Why a denials document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DenialsError {
    /// It is not one.
    #[error("not a denials document: {0}")]
    Codec(#[from] CodecError),
    /// Its signatures do not make it good.
    #[error("the denials document is not signed as it must be: {0}")]
    Signature(#[from] SignatureError),
    /// Its fields contradict each other.
    #[error("the denials document is not sound: {0}")]
    Unsound(&'static str),
    /// An older one than is held.
    #[error("the denials document has sequence {got}, and {held} is held")]
    Rollback {
        /// Its sequence.
        got: u64,
        /// The one held.
        held: u64,
    },
}

impl Denials {
    /// The payload to sign.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The sequence of a document that was verified before.
    pub fn sequence_of(document: &[u8]) -> Option<u64> {
        let payload = cose::unverified_payload(DocumentKind::Denials, document).ok()?;
        codec::decode::<Self>(&payload, MAX_DOCUMENT).ok().map(|denials| denials.sequence)
    }

    /// Checks what the fields alone can show (J-41).
    ///
    /// # Errors
    /// [`DenialsError::Unsound`].
    pub fn check(&self) -> Result<(), DenialsError> {
        if self.sequence == 0 || self.sequence > MAX_NUMBER {
            return Err(DenialsError::Unsound("its sequence is out of range"));
        }
        if self.denied.len() > MAX_DENIED {
            return Err(DenialsError::Unsound("it denies too many"));
        }
        let ascends = |pair: &[Denied]| matches!(pair, [one, two] if one < two);
        if self.denied.windows(2).all(ascends) {
            Ok(())
        } else {
            Err(DenialsError::Unsound("its members are not in ascending order"))
        }
    }
}

/// A denials document that verified. Nothing but [`VerifiedDenials::verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedDenials(Denials);

impl VerifiedDenials {
    /// Verifies a document against the online keys that trust names. `held` is the
    /// sequence that was accepted last, 0 for none: nothing older is taken (J-42).
    ///
    /// # Errors
    /// [`DenialsError`].
    pub fn verify(document: &[u8], trust: &Trust, held: u64) -> Result<Self, DenialsError> {
        let payload = cose::verify(DocumentKind::Denials, trust.platform, document, &trust.heads)?;
        let denials: Denials = codec::decode(&payload, MAX_DOCUMENT)?;
        denials.check()?;
        if denials.sequence < held {
            return Err(DenialsError::Rollback { got: denials.sequence, held });
        }
        Ok(Self(denials))
    }

    /// What it says.
    pub const fn denials(&self) -> &Denials {
        &self.0
    }
}
