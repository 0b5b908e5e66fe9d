//! The trust document: who may sign what.
//!
//! A platform is pinned by the hash of version 1, so a replica that holds that
//! fingerprint needs nothing else to trust: each later version is signed by the
//! root keys of the one before, and they are taken one by one (specs/documents.md,
//! D-16 to D-20).

use crate::codec::{self, CodecError};
use crate::cose::{self, DocumentKind, KeySet, SignatureError};
use crate::encode_as_array;
use crate::id::{AuthorityHash, PlatformId, TrustHash};
use crate::limits::{
    MAX_AUTHORITIES, MAX_BUNDLE, MAX_DOCUMENT, MAX_FILE, MAX_FILES, MAX_GRANTS, MAX_NUMBER,
    MAX_TRUST_VERSIONS,
};
use crate::path::ChannelName;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

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
    /// From 1. A higher one than before begins the channels anew: releases and
    /// heads of earlier epochs are not accepted any more, and what was accepted
    /// in them holds nothing back. The way out when a stolen key has driven the numbers up.
    pub epoch: u64,
    /// Who, and how many of them.
    pub publishers: KeySet,
    /// How much.
    pub limits: GrantLimits,
    /// Whether bundles may hold symbolic links.
    pub symlinks: bool,
}
encode_as_array!(Grant { prefix, epoch, publishers, limits, symlinks });

impl Grant {
    /// Whether a channel could be under both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.prefix.is_under(&other.prefix) || other.prefix.is_under(&self.prefix)
    }
}

/// A trust document's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The platform it is for.
    pub platform: PlatformId,
    /// From 1; each is signed by the keys of the one before, too.
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
    /// The certificate authorities of the platform: one, or two while members change over.
    pub authorities: Vec<AuthorityHash>,
}
encode_as_array!(Trust { platform, version, issued, expires, roots, grants, heads, authorities });

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
    /// Versions follow one another; none is skipped, none comes twice.
    #[error("the trust document has version {got}, and version {want} comes next")]
    Version {
        /// Its version.
        got: u64,
        /// The one that would follow.
        want: u64,
    },
    /// It does not follow from the version before.
    #[error("trust version {version} is refused: {reason}")]
    Succession {
        /// Its version.
        version: u64,
        /// Why.
        reason: &'static str,
    },
    /// The keys of the version before did not sign it.
    #[error("trust version {version} is not signed by the root keys of the version before: {source}")]
    Predecessor {
        /// Its version.
        version: u64,
        /// What is missing.
        source: SignatureError,
    },
}

impl Trust {
    /// The payload to sign.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a payload that nobody need have signed, and checks what the fields alone can show.
    pub fn decode(payload: &[u8]) -> Result<Self, TrustError> {
        let trust: Self = codec::decode(payload, MAX_DOCUMENT)?;
        trust.check()?;
        Ok(trust)
    }

    /// Checks what the fields alone can show.
    pub fn check(&self) -> Result<(), TrustError> {
        self.roots.check()?;
        self.heads.check()?;
        if !(1..=MAX_NUMBER).contains(&self.version) {
            return Err(TrustError::Unsound("its version is out of range"));
        }
        if self.expires <= self.issued {
            return Err(TrustError::Unsound("it expires before it was issued"));
        }
        if self.grants.is_empty() || self.grants.len() > MAX_GRANTS {
            return Err(TrustError::Unsound("no grants, or too many"));
        }
        let different: BTreeSet<_> = self.authorities.iter().collect();
        if !(1..=MAX_AUTHORITIES).contains(&different.len()) || different.len() != self.authorities.len() {
            return Err(TrustError::Unsound("no certificate authority, too many, or one twice"));
        }
        for (at, grant) in self.grants.iter().enumerate() {
            grant.publishers.check()?;
            if !(1..=MAX_NUMBER).contains(&grant.epoch) {
                return Err(TrustError::Unsound("an epoch is out of range"));
            }
            if self.grants.iter().take(at).any(|other| grant.overlaps(other)) {
                return Err(TrustError::Unsound("two grants overlap"));
            }
        }
        Ok(())
    }

    /// Checks what must hold between a version and the one before it, signatures apart.
    pub fn check_follows(&self, before: &Self) -> Result<(), TrustError> {
        let (got, want) = (self.version, before.version.saturating_add(1));
        if got != want {
            return Err(TrustError::Version { got, want });
        }
        let refuse = |reason| Err(TrustError::Succession { version: got, reason });
        if self.platform != before.platform {
            return refuse("it is for another platform");
        }
        let back =
            |grant: &Grant| before.grants.iter().any(|old| grant.overlaps(old) && grant.epoch < old.epoch);
        if self.grants.iter().any(back) {
            return refuse("an epoch goes back");
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

/// A trust document that verified. Only [`VerifiedTrust::pinned`] and
/// [`VerifiedTrust::next`] make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedTrust {
    trust: Trust,
    hash: TrustHash,
    document: Bytes,
}

impl VerifiedTrust {
    /// Verifies version 1 of a platform's trust against its pinned fingerprint
    /// and its own root keys.
    pub fn pinned(document: &[u8], fingerprint: TrustHash) -> Result<Self, TrustError> {
        let (trust, hash) = Trust::unverified(document)?;
        if hash != fingerprint {
            return Err(TrustError::Fingerprint { got: hash, want: fingerprint });
        }
        if trust.version != 1 {
            return Err(TrustError::Version { got: trust.version, want: 1 });
        }
        cose::verify(DocumentKind::Trust, trust.platform, document, &trust.roots)?;
        Ok(Self { trust, hash, document: Bytes::copy_from_slice(document) })
    }

    /// Verifies the version that follows this one: signed by a threshold of
    /// this version's root keys and of its own (specs/documents.md, D-20; the
    /// client workflow of The Update Framework 1.0.33, steps 5.3.4 to 5.3.6).
    pub fn next(&self, document: &[u8]) -> Result<Self, TrustError> {
        let (trust, hash) = Trust::unverified(document)?;
        // The version is told first: it is what a reader of the message can act upon.
        trust.check_follows(&self.trust)?;
        let version = trust.version;
        let platform = self.trust.platform;
        cose::verify(DocumentKind::Trust, platform, document, &self.trust.roots)
            .map_err(|source| TrustError::Predecessor { version, source })?;
        cose::verify(DocumentKind::Trust, platform, document, &trust.roots)?;
        Ok(Self { trust, hash, document: Bytes::copy_from_slice(document) })
    }

    /// What it says.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }
    /// Its hash; of version 1 the platform's fingerprint.
    pub fn hash(&self) -> TrustHash {
        self.hash
    }
    /// The document, exactly as it was signed.
    pub fn document(&self) -> &Bytes {
        &self.document
    }
}

/// Every version of a platform's trust from the pinned first to the newest known.
///
/// What is offered is judged by the newest alone. The older ones are kept to
/// bring others up one by one, and because what was accepted under one of them
/// stays accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustChain {
    first: Arc<VerifiedTrust>,
    later: Vec<Arc<VerifiedTrust>>,
}

impl TrustChain {
    /// Begins with version 1, pinned by its fingerprint.
    pub fn pinned(document: &[u8], fingerprint: TrustHash) -> Result<Self, TrustError> {
        let first = Arc::new(VerifiedTrust::pinned(document, fingerprint)?);
        Ok(Self { first, later: Vec::new() })
    }

    /// Verifies the next version and takes it.
    pub fn extend(&mut self, document: &[u8]) -> Result<(), TrustError> {
        if self.later.len() + 1 >= MAX_TRUST_VERSIONS {
            let version = self.newest().trust.version.saturating_add(1);
            return Err(TrustError::Succession {
                version,
                reason: "a platform has no more versions than this",
            });
        }
        let next = self.newest().next(document)?;
        self.later.push(Arc::new(next));
        Ok(())
    }

    /// The version in force.
    pub fn newest(&self) -> &Arc<VerifiedTrust> {
        self.later.last().unwrap_or(&self.first)
    }

    /// All versions, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Arc<VerifiedTrust>> {
        self.later.iter().rev().chain([&self.first])
    }

    /// Whether a document is a version of this platform's trust: the pinned
    /// first, or one that follows a known version.
    pub fn check(&self, document: &[u8]) -> Result<(), TrustError> {
        let (trust, _) = Trust::unverified(document)?;
        if trust.version == 1 {
            return VerifiedTrust::pinned(document, self.first.hash).map(drop);
        }
        let before = self.newest_first().find(|known| known.trust.version < trust.version);
        before.unwrap_or(&self.first).next(document).map(drop)
    }

    /// The documents of all versions above this one, in order.
    pub fn after(&self, version: u64) -> impl Iterator<Item = &Bytes> {
        let all = [&self.first].into_iter().chain(&self.later);
        all.filter(move |trust| trust.trust.version > version).map(|trust| &trust.document)
    }

    /// The platform's fingerprint.
    pub fn fingerprint(&self) -> TrustHash {
        self.first.hash
    }
}
