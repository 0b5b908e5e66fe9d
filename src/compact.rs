//! The head of an update with everything left out that the child can compute.
//!
//! Most updates bring the next release to a child that has the one before:
//! number, previous hash, channel, sequence, chain, Merkle root, the COSE
//! wrapper and the key ids then follow from what the child holds. What is left
//! is the signatures, the new roots and a few small differences. The child
//! rebuilds the whole head and verifies it like any other, so a false rebuild
//! is a signature that does not verify (specs/wire.md, W-30 to W-34).

use crate::acceptance::Accepted;
use crate::cose::{self, DocumentKind, KeySet};
use crate::encode_as_array;
use crate::id::{EditHash, NodeId, ProofHash};
use crate::limits::{MAX_COMMIT, MAX_SIGNATURES};
use crate::merkle;
use crate::protocol::{EditBase, EditHead, ListedBundle, UpdateHead};
use crate::release::{BundleLeaf, Release};
use crate::verify::VerifiedBundles;
use bytes::Bytes;
use std::collections::BTreeMap;

/// An update's head without what the child can compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactHead {
    /// Whose update this is.
    pub subscription: u64,
    /// The signatures, each with its key's place among the grant's keys.
    pub signatures: Vec<(u64, Bytes)>,
    /// The source commit.
    pub commit: Bytes,
    /// Seconds from the release before to this one.
    pub issued_after: i64,
    /// Change of the release's files, and of its bytes, beyond that of the listed bundles.
    pub other_totals: (i64, i64),
    /// The bundles that changed for this child, each with the log's next edit.
    pub listed: Vec<CompactBundle>,
    /// The hashes that prove all the child's leaves.
    pub siblings: Vec<ProofHash>,
}
encode_as_array!(CompactHead {
    subscription,
    signatures,
    commit,
    issued_after,
    other_totals,
    listed,
    siblings
});

/// A bundle that changed, without what the child can compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactBundle {
    /// Its place among the release's leaves.
    pub index: u64,
    /// Its new root.
    pub root: NodeId,
    /// Change of its files.
    pub files: i64,
    /// Change of its bytes.
    pub bytes: i64,
    /// Bytes of the edit that follows.
    pub length: u64,
}
encode_as_array!(CompactBundle { index, root, files, bytes, length });

/// What both ends know when a compact head is made and rebuilt.
pub struct Before<'a> {
    /// The release that the child holds.
    pub release: &'a Release,
    /// Its number and hash.
    pub accepted: Accepted,
    /// The child's leaves of it.
    pub leaves: BTreeMap<u64, &'a BundleLeaf>,
    /// The keys that sign the channel's releases.
    pub publishers: &'a KeySet,
}

impl<'a> Before<'a> {
    /// What a child knows that holds these bundles, as far as `covers` says.
    pub fn new(bundles: &'a VerifiedBundles, covers: impl Fn(&BundleLeaf) -> bool) -> Self {
        let release = bundles.release();
        let leaves = bundles.leaves().iter().filter(|(_, leaf)| covers(leaf));
        Self {
            release: release.release(),
            accepted: release.accepted(),
            leaves: leaves.map(|(index, leaf)| (*index, leaf)).collect(),
            publishers: release.publishers(),
        }
    }

    fn changed(&self, from: u64, by: i64) -> Option<u64> {
        from.checked_add_signed(by)
    }

    /// Leaves out of a head what can be rebuilt; `None` where that cannot be
    /// done exactly. `edits` are those that follow the head.
    pub fn compact(&self, head: &UpdateHead, edits: &[Bytes]) -> Option<CompactHead> {
        let payload = cose::unverified_payload(DocumentKind::Release, &head.release).ok()?;
        let release = Release::decode(&payload).ok()?;
        let difference = |new: u64, old: u64| Some(i64::try_from(new).ok()? - i64::try_from(old).ok()?);
        let mut listed = Vec::new();
        let (mut files, mut bytes) = (0, 0);
        for bundle in &head.listed {
            let old = self.leaves.get(&bundle.index)?;
            let length = bundle.edit.as_ref()?.length;
            let changed = CompactBundle {
                index: bundle.index,
                root: bundle.leaf.root,
                files: difference(bundle.leaf.files, old.files)?,
                bytes: difference(bundle.leaf.bytes, old.bytes)?,
                length,
            };
            files += changed.files;
            bytes += changed.bytes;
            listed.push(changed);
        }
        let place = |key| self.publishers.keys.iter().position(|other| other.id() == key);
        let signatures = cose::signatures(DocumentKind::Release, &head.release).ok()?;
        let compact = CompactHead {
            subscription: head.subscription,
            signatures: signatures
                .into_iter()
                .map(|(key, signature)| Some((place(key)? as u64, Bytes::copy_from_slice(&signature))))
                .collect::<Option<_>>()?,
            commit: release.commit,
            issued_after: difference(release.issued, self.release.issued)?,
            other_totals: (
                difference(release.files, self.release.files)? - files,
                difference(release.bytes, self.release.bytes)? - bytes,
            ),
            listed,
            siblings: head.siblings.clone(),
        };
        (self.expand(&compact, edits).as_ref() == Some(head)).then_some(compact)
    }

    /// Rebuilds a head, to be verified like any other; `None` where it does
    /// not fit what is held.
    pub fn expand(&self, compact: &CompactHead, edits: &[Bytes]) -> Option<UpdateHead> {
        let counts = compact.listed.len() == edits.len() && compact.signatures.len() <= MAX_SIGNATURES;
        if !counts || compact.commit.len() > MAX_COMMIT {
            return None;
        }
        let mut listed = Vec::new();
        let (mut files, mut bytes) = compact.other_totals;
        for (changed, edit) in compact.listed.iter().zip(edits) {
            let old = self.leaves.get(&changed.index)?;
            let leaf = BundleLeaf {
                name: old.name.clone(),
                sequence: old.sequence.checked_add(1)?,
                root: changed.root,
                chain: old.chain.next(&EditHash::of(edit)),
                files: self.changed(old.files, changed.files)?,
                bytes: self.changed(old.bytes, changed.bytes)?,
            };
            files = files.checked_add(changed.files)?;
            bytes = bytes.checked_add(changed.bytes)?;
            let edit = EditHead { base: EditBase::Logged, length: changed.length, before: Vec::new() };
            let edit = Some(edit);
            listed.push(ListedBundle { index: changed.index, leaf, edit });
        }
        let mut hashes: BTreeMap<u64, ProofHash> =
            self.leaves.iter().map(|(index, leaf)| (*index, leaf.hash())).collect();
        hashes.extend(listed.iter().map(|bundle| (bundle.index, bundle.leaf.hash())));
        let bundles_root = merkle::root_from_proof(self.release.bundles, &hashes, &compact.siblings).ok()?;
        let release = Release {
            channel: self.release.channel.clone(),
            epoch: self.release.epoch,
            number: self.accepted.number.checked_add(1)?,
            previous: Some(self.accepted.hash),
            bundles_root,
            bundles: self.release.bundles,
            files: self.changed(self.release.files, files)?,
            bytes: self.changed(self.release.bytes, bytes)?,
            commit: compact.commit.clone(),
            issued: self.changed(self.release.issued, compact.issued_after)?,
        };
        let payload = release.encode();
        let mut document = Vec::new();
        for (place, signature) in &compact.signatures {
            let key = self.publishers.keys.get(usize::try_from(*place).ok()?)?;
            let signature = <[u8; 64]>::try_from(&**signature).ok()?;
            document.extend(cose::assemble(DocumentKind::Release, key.id(), &payload, &signature));
        }
        Some(UpdateHead {
            subscription: compact.subscription,
            release: Bytes::from(document),
            listed,
            keep_others: true,
            siblings: compact.siblings.clone(),
        })
    }
}
