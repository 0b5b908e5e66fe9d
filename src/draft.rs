//! Documents on their way to being signed, as files that people hand on
//! (specs/documents.md, D-40 to D-44).
//!
//! Nothing in a draft is believed: what it shows is computed from the very
//! bytes that are signed, or proved by them.

use crate::codec::{self, CodecError};
use crate::cose::{self, DocumentKind, KeySet, PublicKey, SignatureError};
use crate::encode_as_array;
use crate::id::{KeyId, PlatformId, ReleaseHash};
use crate::limits::{MAX_PROPOSAL, MAX_RELEASE_DRAFT, MAX_SIGNATURES};
use crate::merkle;
use crate::release::{BundleLeaf, Release};
use crate::trust::{Trust, TrustChain, TrustError, VerifiedTrust};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the file of an unsigned release begins with.
const RELEASE_DRAFT: &str = "rootcast release draft 1";
/// What the file of a proposed version of trust begins with.
const PROPOSAL: &str = "rootcast trust proposal 1";

/// Why a draft cannot be signed or sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// It is not one.
    #[error("not {wanted}: {source}")]
    Codec {
        /// What was wanted.
        wanted: &'static str,
        /// What is wrong.
        source: CodecError,
    },
    /// It begins as another kind of file.
    #[error("not {0}: it begins otherwise")]
    Kind(&'static str),
    /// What it carries is not what its payload is about.
    #[error("the draft contradicts itself: {0}; have it made anew")]
    Inconsistent(&'static str),
    /// A signature in it is not good.
    #[error("a signature in the draft is not good: {0}")]
    Signature(#[from] SignatureError),
    /// A key signed before.
    #[error("key {0} has signed this already; one key counts once")]
    Again(KeyId),
    /// A key that nothing lets sign this.
    #[error("key {key} may not sign this; {} may", list(accepted))]
    Stranger {
        /// The key.
        key: KeyId,
        /// Those that may.
        accepted: Vec<KeyId>,
    },
    /// As many signatures as a document can have.
    #[error("a document has at most {MAX_SIGNATURES} signatures")]
    Full,
    /// The trust in it, or proposed by it, is refused.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It builds on an older version than the newest that is known.
    #[error(
        "the proposal is for version {version}, and version {known} is in force already; propose it anew"
    )]
    Behind {
        /// The version proposed.
        version: u64,
        /// The newest that is known.
        known: u64,
    },
}

fn list(keys: &[KeyId]) -> String {
    keys.iter().map(KeyId::to_string).collect::<Vec<_>>().join(", ")
}

/// Who of `keys` signed `payload`. Refuses signatures of anybody else, bad
/// ones, and a second one by the same key: who collects them made a mistake.
fn signers(
    kind: DocumentKind,
    platform: PlatformId,
    payload: &[u8],
    signatures: &[Bytes],
    keys: &[&PublicKey],
) -> Result<Vec<KeyId>, DraftError> {
    let mut found = Vec::new();
    for signature in signatures {
        for id in cose::claimed_keys(kind, signature)? {
            let Some(key) = keys.iter().find(|key| key.id() == id) else {
                let accepted: BTreeSet<_> = keys.iter().map(|key| key.id()).collect();
                return Err(DraftError::Stranger { key: id, accepted: accepted.into_iter().collect() });
            };
            if found.contains(&id) {
                return Err(DraftError::Again(id));
            }
            let one = KeySet { threshold: 1, keys: vec![(*key).clone()] };
            if cose::verify(kind, platform, signature, &one)? != payload {
                return Err(SignatureError::Payloads.into());
            }
            found.push(id);
        }
    }
    if found.len() > MAX_SIGNATURES { Err(DraftError::Full) } else { Ok(found) }
}

fn concatenated(signatures: &[Bytes]) -> Bytes {
    signatures.concat().into()
}

/// A compiled release, with the signatures that it has so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseDraft {
    kind: String,
    /// The platform that it is for.
    pub platform: PlatformId,
    /// What is signed: an encoded [`Release`].
    pub payload: Bytes,
    /// All its leaves, in name order.
    pub leaves: Vec<BundleLeaf>,
    /// For each leaf whose bundle changed, its edit.
    pub edits: Vec<Option<Bytes>>,
    /// A COSE_Sign1 each.
    pub signatures: Vec<Bytes>,
}
encode_as_array!(ReleaseDraft { kind, platform, payload, leaves, edits, signatures });

impl ReleaseDraft {
    /// A draft that nobody has signed.
    pub fn new(
        platform: PlatformId,
        payload: Bytes,
        leaves: Vec<BundleLeaf>,
        edits: Vec<Option<Bytes>>,
    ) -> Self {
        Self { kind: RELEASE_DRAFT.into(), platform, payload, leaves, edits, signatures: Vec::new() }
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a file, and checks that the leaves are those of the payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, DraftError> {
        let wanted = "an unsigned release";
        let draft: Self =
            codec::decode(bytes, MAX_RELEASE_DRAFT).map_err(|source| DraftError::Codec { wanted, source })?;
        if draft.kind != RELEASE_DRAFT {
            return Err(DraftError::Kind(wanted));
        }
        let release = draft.release()?;
        let hashes: Vec<_> = draft.leaves.iter().map(BundleLeaf::hash).collect();
        if hashes.len() as u64 != release.bundles || merkle::root(&hashes) != release.bundles_root {
            return Err(DraftError::Inconsistent("its bundles are not those that are signed"));
        }
        if draft.edits.len() != draft.leaves.len() {
            return Err(DraftError::Inconsistent("it has not as many edits as bundles"));
        }
        if draft.signatures.len() > MAX_SIGNATURES {
            return Err(DraftError::Full);
        }
        Ok(draft)
    }

    /// What its payload says.
    pub fn release(&self) -> Result<Release, DraftError> {
        Release::decode(&self.payload)
            .map_err(|source| DraftError::Codec { wanted: "an unsigned release", source })
    }

    /// The hash that the release will have, whoever signs it.
    pub fn hash(&self) -> ReleaseHash {
        ReleaseHash::of(&self.payload)
    }

    /// Who has signed, all of whom must be granted the channel; and how many must.
    pub fn signed_by(&self, trust: &VerifiedTrust) -> Result<(Vec<KeyId>, u64), DraftError> {
        let release = self.release()?;
        let none = DraftError::Inconsistent("no publisher is granted its channel by the trust that is known");
        if self.platform != trust.trust().platform {
            return Err(DraftError::Inconsistent("it is for another platform"));
        }
        let grant = trust.trust().grant(&release.channel).ok_or(none)?;
        if grant.epoch != release.epoch {
            return Err(DraftError::Inconsistent("it was made in another epoch of its channel"));
        }
        let keys: Vec<_> = grant.publishers.keys.iter().collect();
        let signed = signers(DocumentKind::Release, self.platform, &self.payload, &self.signatures, &keys)?;
        Ok((signed, grant.publishers.threshold))
    }

    /// Adds a signature, if it is a good one by a granted key that has not signed.
    pub fn add(&mut self, signature: Bytes, trust: &VerifiedTrust) -> Result<(), DraftError> {
        self.signatures.push(signature);
        let outcome = self.signed_by(trust);
        if outcome.is_err() {
            self.signatures.pop();
        }
        outcome.map(drop)
    }

    /// The signed document, as far as it is signed.
    pub fn document(&self) -> Bytes {
        concatenated(&self.signatures)
    }
}

/// A proposed version of trust, with the versions since the first, so that who
/// holds nothing but the platform's fingerprint and first version can judge it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustProposal {
    kind: String,
    /// The signed versions after the first, up to the one that this follows.
    pub chain: Vec<Bytes>,
    /// What is signed: an encoded [`Trust`].
    pub payload: Bytes,
    /// A COSE_Sign1 each.
    pub signatures: Vec<Bytes>,
}
encode_as_array!(TrustProposal { kind, chain, payload, signatures });

/// How far the signatures of a proposal go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The keys that have signed.
    pub keys: Vec<KeyId>,
    /// How many root keys of the version before have, and how many must.
    pub before: (u64, u64),
    /// How many root keys of the version proposed have, and how many must.
    pub after: (u64, u64),
}

impl Signed {
    /// Whether both thresholds are reached.
    pub fn is_enough(&self) -> bool {
        self.before.0 >= self.before.1 && self.after.0 >= self.after.1
    }
}

/// A proposal that follows from the platform's pinned first version.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The version before, verified.
    pub base: Arc<VerifiedTrust>,
    /// What is proposed.
    pub trust: Trust,
    /// Who has signed.
    pub signed: Signed,
}

impl TrustProposal {
    /// A proposal that nobody has signed, for the version after the newest of a chain.
    pub fn new(chain: &TrustChain, trust: &Trust) -> Result<Self, DraftError> {
        trust.check()?;
        trust.check_follows(chain.newest().trust())?;
        let chain = chain.after(1).cloned().collect();
        Ok(Self { kind: PROPOSAL.into(), chain, payload: trust.encode().into(), signatures: Vec::new() })
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a file. Nothing in it is verified; [`TrustProposal::judge`] does that.
    pub fn decode(bytes: &[u8]) -> Result<Self, DraftError> {
        let wanted = "a proposed trust document";
        let proposal: Self =
            codec::decode(bytes, MAX_PROPOSAL).map_err(|source| DraftError::Codec { wanted, source })?;
        if proposal.kind != PROPOSAL {
            return Err(DraftError::Kind(wanted));
        }
        if proposal.signatures.len() > MAX_SIGNATURES {
            return Err(DraftError::Full);
        }
        Ok(proposal)
    }

    /// Verifies what it builds on, from the versions that are known on, and its
    /// signatures; and checks that it may follow (specs/documents.md, D-43).
    pub fn judge(&self, known: &TrustChain) -> Result<Judged, DraftError> {
        let trust = Trust::decode(&self.payload)?;
        let newest = known.newest().trust().version;
        if trust.version <= newest {
            return Err(DraftError::Behind { version: trust.version, known: newest });
        }
        let mut chain = known.clone();
        // Versions that are known are not looked at: they are as we have verified them.
        let skip = usize::try_from(newest.saturating_sub(1)).unwrap_or(usize::MAX);
        for document in self.chain.iter().skip(skip) {
            chain.extend(document)?;
        }
        let base = chain.newest().clone();
        trust.check_follows(base.trust())?;
        let (before, after) = (&base.trust().roots, &trust.roots);
        let keys: Vec<_> = before.keys.iter().chain(&after.keys).collect();
        let signed = signers(DocumentKind::Trust, trust.platform, &self.payload, &self.signatures, &keys)?;
        let of = |set: &KeySet| {
            let count = set.keys.iter().filter(|key| signed.contains(&key.id())).count();
            (count as u64, set.threshold)
        };
        let signed = Signed { before: of(before), after: of(after), keys: signed };
        Ok(Judged { base, trust, signed })
    }

    /// Adds a signature, if it is a good one by a root key that has not signed.
    pub fn add(&mut self, signature: Bytes, known: &TrustChain) -> Result<Judged, DraftError> {
        self.signatures.push(signature);
        self.judge(known).inspect_err(|_| {
            self.signatures.pop();
        })
    }

    /// The signed document, as far as it is signed.
    pub fn document(&self) -> Bytes {
        concatenated(&self.signatures)
    }
}
