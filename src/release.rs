//! The release: a signed, numbered, atomic set of bundle roots in a channel.

use crate::codec::{self, CodecError};
use crate::encode_as_array;
use crate::id::{BundlesRoot, Chain, NodeId, ProofHash, ReleaseHash};
use crate::limits::{MAX_BUNDLE, MAX_BUNDLES, MAX_DOCUMENT, MAX_FILES, MAX_NUMBER};
use crate::merkle;
use crate::path::{BundleName, ChannelName};
use crate::tree::Totals;
use bytes::Bytes;

/// What is signed of one bundle (specs/documents.md, D-11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleLeaf {
    /// Its name: one bundle's bytes cannot stand for another's.
    pub name: BundleName,
    /// How many edits its log has, this release's included.
    pub sequence: u64,
    /// The root of its tree.
    pub root: NodeId,
    /// The hash of its log.
    pub chain: Chain,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}
encode_as_array!(BundleLeaf { name, sequence, root, chain, files, bytes });

impl BundleLeaf {
    /// Files and bytes.
    pub fn totals(&self) -> Totals {
        Totals { files: self.files, bytes: self.bytes }
    }

    /// The leaf's hash in the release's Merkle tree.
    pub fn hash(&self) -> ProofHash {
        merkle::leaf_hash(&codec::encode(self))
    }
}

/// What a publisher signs (specs/documents.md, D-10). The platform is bound by
/// the signature's `external_aad`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The channel.
    pub channel: ChannelName,
    /// The grant's epoch when it was signed.
    pub epoch: u64,
    /// From 1; each follows the one before.
    pub number: u64,
    /// The release before; `None` for the first.
    pub previous: Option<ReleaseHash>,
    /// The Merkle root over the leaves of all bundles, in name order.
    pub bundles_root: BundlesRoot,
    /// How many bundles.
    pub bundles: u64,
    /// Files of all bundles.
    pub files: u64,
    /// Bytes of all bundles.
    pub bytes: u64,
    /// The source commit: 20 or 32 bytes, or none for a plain directory.
    pub commit: Bytes,
    /// When it was signed, in seconds since 1970.
    pub issued: u64,
}
encode_as_array!(Release {
    channel,
    epoch,
    number,
    previous,
    bundles_root,
    bundles,
    files,
    bytes,
    commit,
    issued
});

impl Release {
    /// The payload to sign.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a payload and checks what the fields alone can show.
    pub fn decode(payload: &[u8]) -> Result<Self, CodecError> {
        let release: Self = codec::decode(payload, MAX_DOCUMENT)?;
        let sound = (1..=MAX_NUMBER).contains(&release.epoch)
            && (1..=MAX_NUMBER).contains(&release.number)
            && (release.number == 1) == release.previous.is_none()
            && (1..=MAX_BUNDLES as u64).contains(&release.bundles)
            && release.files <= MAX_FILES.saturating_mul(release.bundles)
            && release.bytes <= MAX_BUNDLE.saturating_mul(release.bundles)
            && matches!(release.commit.len(), 0 | 20 | 32);
        if sound {
            return Ok(release);
        }
        let reason = "a number, count or length is out of range".into();
        Err(CodecError::Shape { wanted: "a release", reason })
    }

    /// The commit in hexadecimal; empty for a plain directory.
    pub fn commit_hex(&self) -> String {
        hex::encode(&self.commit)
    }
}
