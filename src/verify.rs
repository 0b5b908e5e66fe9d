//! Verification as types: what has not been verified cannot be applied.
//!
//! ```text
//! bytes --VerifiedTrust::release--> VerifiedRelease --bundles--> VerifiedBundles
//!       --admit--> Admitted edit --apply--> AppliedBundle
//! ```
//!
//! Each arrow is the only constructor of what it points to (specs/documents.md, D-21 to D-29).

use crate::acceptance::{Accepted, Offer};
use crate::codec::CodecError;
use crate::cose::{self, DocumentKind, KeySet, SignatureError};
use crate::edit::{self, Declared, EditError, Policy};
use crate::encode_as_array;
use crate::id::{Chain, EditHash, NodeId, ProofHash, ReleaseHash};
use crate::merkle::{self, PartialTree};
use crate::object::{ObjectSink, ObjectSource};
use crate::path::{BundleName, ChannelName};
use crate::protocol::Waypoint;
use crate::release::{BundleLeaf, Release};
use crate::tree::{Totals, empty_root};
use crate::trust::{Grant, TrustChain, VerifiedTrust};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Why a release or a bundle of it is refused. Always a peer's or a
/// publisher's fault, never our own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No grant covers the channel.
    #[error("no publisher is granted channel `{0}`; the trust document must grant it")]
    NotGranted(ChannelName),
    /// The signatures do not make it good.
    #[error("the release is not signed as it must be: {0}")]
    Signature(#[from] SignatureError),
    /// The signatures of a head do not make it good.
    #[error("the head is not signed as it must be: {0}")]
    Head(#[source] SignatureError),
    /// The payload is not what was signed for.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// It is signed for another channel than the one it came for.
    #[error("it is for channel `{got}`, not `{want}`")]
    Channel {
        /// The channel it names.
        got: ChannelName,
        /// The channel it came for.
        want: ChannelName,
    },
    /// It is of another epoch than the grant.
    #[error("it is of epoch {got}, and the trust document grants epoch {want}")]
    Epoch {
        /// Its epoch.
        got: u64,
        /// The epoch granted.
        want: u64,
    },
    /// Leaves and proof do not give the signed root.
    #[error("the bundles of release {number} do not prove: {reason}")]
    Proof {
        /// The release.
        number: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A bundle larger than the grant allows.
    #[error("bundle `{bundle}` has {given} {what}, and the grant allows {allowed}")]
    OverGrant {
        /// The bundle.
        bundle: BundleName,
        /// Files or bytes.
        what: &'static str,
        /// How many.
        given: u64,
        /// How many are allowed.
        allowed: u64,
    },
    /// The edit is not the one that the log was signed with.
    #[error("the edit of bundle `{0}` is not the one that was signed")]
    Chain(BundleName),
    /// A bundle that the release has not, or that was not proved.
    #[error("bundle `{0}` is not among the proved bundles of the release")]
    NoSuchBundle(BundleName),
}

/// A release that verified against the trust document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRelease {
    release: Release,
    hash: ReleaseHash,
    document: Bytes,
    grant: Grant,
    trust_version: u64,
}

impl VerifiedTrust {
    /// Verifies a signed release of a channel.
    pub fn release(&self, channel: &ChannelName, document: &Bytes) -> Result<VerifiedRelease, VerifyError> {
        let grant = self.trust().grant(channel);
        let grant = grant.ok_or_else(|| VerifyError::NotGranted(channel.clone()))?;
        let platform = self.trust().platform;
        let payload = cose::verify(DocumentKind::Release, platform, document, &grant.publishers)?;
        let release = Release::decode(&payload)?;
        if release.channel != *channel {
            return Err(VerifyError::Channel { got: release.channel, want: channel.clone() });
        }
        if release.epoch != grant.epoch {
            return Err(VerifyError::Epoch { got: release.epoch, want: grant.epoch });
        }
        let hash = ReleaseHash::of(&payload);
        let trust_version = self.trust().version;
        Ok(VerifiedRelease { release, hash, document: document.clone(), grant: grant.clone(), trust_version })
    }
}

impl TrustChain {
    /// Verifies a release under the newest version that it verifies under: for
    /// what was accepted before, never for what a parent offers.
    pub fn known_release(
        &self,
        channel: &ChannelName,
        document: &Bytes,
    ) -> Result<VerifiedRelease, VerifyError> {
        let newest = self.newest().release(channel, document);
        let older = || self.newest_first().skip(1).find_map(|trust| trust.release(channel, document).ok());
        newest.or_else(|error| older().ok_or(error))
    }
}

impl VerifiedRelease {
    /// What it says.
    pub fn release(&self) -> &Release {
        &self.release
    }
    /// The version of trust that it verified under.
    pub fn trust_version(&self) -> u64 {
        self.trust_version
    }
    /// The keys that may sign the channel's releases.
    pub fn publishers(&self) -> &KeySet {
        &self.grant.publishers
    }
    /// The document, exactly as it was signed.
    pub fn document(&self) -> &Bytes {
        &self.document
    }
    /// Its number and hash.
    pub fn accepted(&self) -> Accepted {
        Accepted { epoch: self.release.epoch, number: self.release.number, hash: self.hash }
    }
    /// What it means to the acceptance rule.
    pub fn offer(&self) -> Offer {
        Offer { release: self.accepted(), previous: self.release.previous }
    }

    /// Whether a tree of a bundle keeps the grant's limits.
    fn check_limits(&self, bundle: &BundleName, totals: Totals) -> Result<(), VerifyError> {
        let limits = &self.grant.limits;
        let limits = [("files", totals.files, limits.files), ("bytes", totals.bytes, limits.bytes)];
        match limits.into_iter().find(|(_, given, allowed)| given > allowed) {
            None => Ok(()),
            Some((what, given, allowed)) => {
                Err(VerifyError::OverGrant { bundle: bundle.clone(), what, given, allowed })
            }
        }
    }

    /// Verifies leaves of bundles, by index, against the signed Merkle root.
    pub fn bundles(
        self,
        leaves: BTreeMap<u64, BundleLeaf>,
        siblings: &[ProofHash],
    ) -> Result<VerifiedBundles, VerifyError> {
        let number = self.release.number;
        let refuse = |reason| VerifyError::Proof { number, reason };
        let hashes = leaves.iter().map(|(index, leaf)| (*index, leaf.hash())).collect();
        let root = merkle::root_from_proof(self.release.bundles, &hashes, siblings)
            .map_err(|_| refuse("the proof does not fit its leaves"))?;
        if root != self.release.bundles_root {
            return Err(refuse("the leaves are not those that were signed"));
        }
        let names: Vec<_> = leaves.values().map(|leaf| &leaf.name).collect();
        if !names.is_sorted_by(|a, b| a < b) {
            return Err(refuse("the bundles are out of order"));
        }
        for leaf in leaves.values() {
            self.check_limits(&leaf.name, leaf.totals())?;
        }
        let by_name = leaves.keys().copied().collect();
        Ok(VerifiedBundles { release: self, leaves, by_name })
    }
}

/// A verified release with some or all of its bundles proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedBundles {
    release: VerifiedRelease,
    leaves: BTreeMap<u64, BundleLeaf>,
    /// The indices in name order, which was checked to be their own order.
    by_name: Vec<u64>,
}

/// How an edit is known to be good before it is unpacked.
#[derive(Debug, Clone)]
pub struct Admitted<'e> {
    declared: Declared,
    name: BundleName,
    base: NodeId,
    edit: &'e [u8],
}

/// An edit to a tree that nobody signed, on the way to one that somebody did.
#[derive(Debug, Clone)]
pub struct Passage<'e> {
    declared: Declared,
    base: NodeId,
    edit: &'e [u8],
}

/// A bundle whose tree has been computed to be the signed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedBundle {
    name: BundleName,
    root: NodeId,
}

impl VerifiedBundles {
    /// The release.
    pub fn release(&self) -> &VerifiedRelease {
        &self.release
    }
    /// The proved leaves, by index.
    pub fn leaves(&self) -> &BTreeMap<u64, BundleLeaf> {
        &self.leaves
    }
    /// The proved leaf of a bundle.
    pub fn leaf(&self, name: &BundleName) -> Option<&BundleLeaf> {
        self.leaves.get(&self.index(name)?)
    }
    /// The place of a proved bundle among the release's leaves.
    pub fn index(&self, name: &BundleName) -> Option<u64> {
        let named = |index: &u64| self.leaves.get(index).map(|leaf| &leaf.name);
        let place = self.by_name.partition_point(|index| named(index).is_some_and(|other| other < name));
        self.by_name.get(place).copied().filter(|index| named(index) == Some(name))
    }
    /// What the proved leaves and their proof tell of the release's tree of leaves.
    pub fn tree(&self, siblings: &[ProofHash]) -> Result<PartialTree, VerifyError> {
        let number = self.release.release.number;
        let hashes = self.leaves.iter().map(|(index, leaf)| (*index, leaf.hash())).collect();
        PartialTree::new(self.release.release.bundles, &hashes, siblings)
            .map_err(|_| VerifyError::Proof { number, reason: "the proof does not fit its leaves" })
    }
    /// The root of a bundle.
    pub fn root(&self, name: &BundleName) -> Option<NodeId> {
        self.leaf(name).map(|leaf| leaf.root)
    }
    /// Whether every bundle of the release is proved.
    pub fn is_complete(&self) -> bool {
        self.leaves.len() as u64 == self.release.release.bundles
    }

    fn declared(&self, name: &BundleName) -> Result<(&BundleLeaf, Declared), VerifyError> {
        let leaf = self.leaf(name).ok_or_else(|| VerifyError::NoSuchBundle(name.clone()))?;
        let grant = &self.release.grant;
        let policy = Policy { file_size: grant.limits.file_size, symlinks: grant.symlinks };
        Ok((leaf, Declared { root: leaf.root, totals: leaf.totals(), policy }))
    }

    /// Admits the edit that the log was signed with: it is authentic before a
    /// byte of it is unpacked. `before` is the leaf it follows; none for the first.
    pub fn admit_logged<'e>(
        &self,
        name: &BundleName,
        before: Option<&BundleLeaf>,
        edit: &'e [u8],
    ) -> Result<Admitted<'e>, VerifyError> {
        let (leaf, declared) = self.declared(name)?;
        let (sequence, chain, base) = match before {
            Some(before) => (before.sequence, before.chain, before.root),
            None => (0, Chain::START, empty_root()),
        };
        let authentic =
            chain.next(&EditHash::of(edit)) == leaf.chain && sequence.checked_add(1) == Some(leaf.sequence);
        if !authentic {
            return Err(VerifyError::Chain(name.clone()));
        }
        Ok(Admitted { declared, name: name.clone(), base, edit })
    }

    /// Admits an edit that some relay computed, on a base that we hold (the
    /// empty root for a snapshot): what it may unpack is bounded by the signed
    /// totals, and the root decides.
    pub fn admit_direct<'e>(
        &self,
        name: &BundleName,
        base: NodeId,
        edit: &'e [u8],
    ) -> Result<Admitted<'e>, VerifyError> {
        let (_, declared) = self.declared(name)?;
        Ok(Admitted { declared, name: name.clone(), base, edit })
    }

    /// Admits an edit to a tree on the way to the signed one: the grant bounds
    /// what it may unpack, and the edit after it decides.
    pub fn admit_waypoint<'e>(
        &self,
        name: &BundleName,
        base: NodeId,
        waypoint: &Waypoint,
        edit: &'e [u8],
    ) -> Result<Passage<'e>, VerifyError> {
        let (_, declared) = self.declared(name)?;
        let totals = waypoint.totals();
        self.release.check_limits(name, totals)?;
        Ok(Passage { declared: Declared { root: waypoint.root, totals, ..declared }, base, edit })
    }

    /// A bundle that did not change: its tree is held and its root is the signed one.
    pub fn unchanged(&self, name: &BundleName, held: NodeId) -> Option<AppliedBundle> {
        (self.root(name) == Some(held)).then(|| AppliedBundle { name: name.clone(), root: held })
    }
}

impl Admitted<'_> {
    /// Applies the edit. New objects go to `sink`, which must be thrown away on an error.
    pub fn apply<S, W>(&self, source: &S, sink: &mut W) -> Result<AppliedBundle, EditError>
    where
        S: ObjectSource + ?Sized,
        W: ObjectSink + ?Sized,
    {
        edit::apply(source, self.base, self.edit, &self.declared, sink)?;
        Ok(AppliedBundle { name: self.name.clone(), root: self.declared.root })
    }
}

impl Passage<'_> {
    /// Applies the edit. The new objects are good for nothing but to be the
    /// base of the next edit, until that leads to a signed root.
    pub fn apply<S, W>(&self, source: &S, sink: &mut W) -> Result<(), EditError>
    where
        S: ObjectSource + ?Sized,
        W: ObjectSink + ?Sized,
    {
        edit::apply(source, self.base, self.edit, &self.declared, sink)
    }
}

impl AppliedBundle {
    /// The bundle's name.
    pub fn name(&self) -> &BundleName {
        &self.name
    }
    /// Its root.
    pub fn root(&self) -> NodeId {
        self.root
    }
}

/// What a replica keeps of a release, to verify it anew when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRecord {
    /// The signed document.
    pub document: Bytes,
    /// The leaves it holds, by index.
    pub leaves: Vec<(u64, BundleLeaf)>,
    /// Their proof.
    pub siblings: Vec<ProofHash>,
}
encode_as_array!(ReleaseRecord { document, leaves, siblings });

impl ReleaseRecord {
    /// The record of a release whose proof is at hand.
    pub fn new(bundles: &VerifiedBundles, siblings: &[ProofHash]) -> Self {
        Self {
            document: bundles.release.document.clone(),
            leaves: bundles.leaves.iter().map(|(index, leaf)| (*index, leaf.clone())).collect(),
            siblings: siblings.to_vec(),
        }
    }

    /// Verifies it, under whichever version of trust it was accepted.
    pub fn verify(&self, trust: &TrustChain, channel: &ChannelName) -> Result<VerifiedBundles, VerifyError> {
        let release = trust.known_release(channel, &self.document)?;
        release.bundles(self.leaves.iter().cloned().collect(), &self.siblings)
    }
}
