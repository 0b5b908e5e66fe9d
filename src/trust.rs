//! The trust document: who may sign what.
//!
//! Version 1 here; the succession of versions comes with rotation. A platform
//! is pinned by the hash of its version 1, so a replica that holds that
//! fingerprint needs nothing else to trust (specs/documents.md, D-16 to D-20).

use crate::codec::{self, CodecError};
use crate::cose::{self, DocumentKind, KeySet, SignatureError};
use crate::encode_as_array;
use crate::id::{AuthorityHash, PlatformId, TrustHash};
use crate::limits::{MAX_BUNDLE, MAX_DOCUMENT, MAX_FILE, MAX_FILES, MAX_GRANTS};
use crate::path::ChannelName;

/// What the publishers of a grant may put into one bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantLimits {
    /// Files of a bundle.
    pub files: u64,
    /// Bytes of a bundle.
    pub bytes: u64,
    /// Bytes of a file.
    pub file_size: u64,
}
encode_as_array!(GrantLimits { files, bytes, file_size });

impl Default for GrantLimits {
    /// What the system itself allows.
    fn default() -> Self {
        Self { files: MAX_FILES, bytes: MAX_BUNDLE, file_size: MAX_FILE }
    }
}

/// Leave to sign releases of some channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The channels: this one and those under it, on segment boundaries.
    pub prefix: ChannelName,
    /// Who, and how many of them.
    pub publishers: KeySet,
    /// How much.
    pub limits: GrantLimits,
    /// Whether bundles may hold symbolic links.
    pub symlinks: bool,
}
encode_as_array!(Grant { prefix, publishers, limits, symlinks });

/// A trust document's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The platform it is for.
    pub platform: PlatformId,
    /// From 1.
    pub version: u64,
    /// When it was signed, in seconds since 1970.
    pub issued: u64,
    /// When it stops being current, in seconds since 1970.
    pub expires: u64,
    /// The keys that sign trust documents.
    pub roots: KeySet,
    /// Who may publish where.
    pub grants: Vec<Grant>,
    /// The keys that sign heads.
    pub heads: KeySet,
    /// The certificate authority of the platform.
    pub authority: AuthorityHash,
}
encode_as_array!(Trust { platform, version, issued, expires, roots, grants, heads, authority });

/// Why a trust document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// It is not a trust document.
    #[error("not a trust document: {0}")]
    Codec(#[from] CodecError),
    /// Its signatures do not make it good.
    #[error("the trust document is not signed as it must be: {0}")]
    Signature(#[from] SignatureError),
    /// It is another platform's, or was changed.
    #[error("the trust document has fingerprint {got}, and {want} is pinned")]
    Fingerprint {
        /// What it hashes to.
        got: TrustHash,
        /// What was pinned.
        want: TrustHash,
    },
    /// Its fields contradict each other.
    #[error("the trust document is not sound: {0}")]
    Unsound(&'static str),
}

impl Trust {
    /// The payload to sign.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    fn decode(payload: &[u8]) -> Result<Self, TrustError> {
        let trust: Self = codec::decode(payload, MAX_DOCUMENT)?;
        trust.check()?;
        Ok(trust)
    }

    /// Checks what the fields alone can show.
    pub fn check(&self) -> Result<(), TrustError> {
        self.roots.check()?;
        self.heads.check()?;
        if self.version != 1 {
            return Err(TrustError::Unsound("a version other than 1 needs the one before it"));
        }
        if self.expires <= self.issued {
            return Err(TrustError::Unsound("it expires before it was issued"));
        }
        if self.grants.is_empty() || self.grants.len() > MAX_GRANTS {
            return Err(TrustError::Unsound("no grants, or too many"));
        }
        for (at, grant) in self.grants.iter().enumerate() {
            grant.publishers.check()?;
            let overlaps =
                |other: &Grant| grant.prefix.is_under(&other.prefix) || other.prefix.is_under(&grant.prefix);
            if self.grants.iter().take(at).any(overlaps) {
                return Err(TrustError::Unsound("two grants overlap"));
            }
        }
        Ok(())
    }

    /// The grant that covers a channel.
    pub fn grant(&self, channel: &ChannelName) -> Option<&Grant> {
        self.grants.iter().find(|grant| channel.is_under(&grant.prefix))
    }

    /// Reads a signed document WITHOUT trusting it: for people, and to show
    /// the fingerprint that they are to compare.
    pub fn unverified(document: &[u8]) -> Result<(Self, TrustHash), TrustError> {
        let payload = cose::unverified_payload(DocumentKind::Trust, document)?;
        Ok((Self::decode(&payload)?, TrustHash::of(&payload)))
    }
}

/// A trust document that verified. Nothing but [`VerifiedTrust::pinned`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedTrust {
    trust: Trust,
    hash: TrustHash,
}

impl VerifiedTrust {
    /// Verifies version 1 of a platform's trust against its pinned fingerprint
    /// and its own root keys.
    pub fn pinned(document: &[u8], fingerprint: TrustHash) -> Result<Self, TrustError> {
        let (trust, hash) = Trust::unverified(document)?;
        if hash != fingerprint {
            return Err(TrustError::Fingerprint { got: hash, want: fingerprint });
        }
        cose::verify(DocumentKind::Trust, trust.platform, document, &trust.roots)?;
        Ok(Self { trust, hash })
    }

    /// What it says.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The platform's fingerprint.
    pub fn hash(&self) -> TrustHash {
        self.hash
    }
}
