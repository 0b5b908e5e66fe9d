//! What was really signed: the golden vectors of `testdata/vectors`. Nobody
//! here has a key, so whatever verifies must be one of these.

#![allow(clippy::disallowed_methods, reason = "reads the committed vectors")]

use bytes::Bytes;
use rootcast::cose::{self, DocumentKind};
use rootcast::edit::{self, Declared, Policy};
use rootcast::id::{NodeId, TrustHash};
use rootcast::object::ObjectMap;
use rootcast::path::ChannelName;
use rootcast::release::BundleLeaf;
use rootcast::tree::Totals;
use rootcast::trust::{TrustChain, VerifiedTrust};
use rootcast::verify::{ReleaseRecord, VerifiedBundles};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Where the vectors are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/vectors")
}

/// Reads one vector.
///
/// # Panics
/// When it cannot be read.
pub fn vector(name: &str) -> Vec<u8> {
    let path = directory().join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The parts of `index.json` that are of use here.
#[derive(Debug, Deserialize)]
pub struct Index {
    /// The edits between golden trees.
    pub edits: Vec<Step>,
    /// The signed releases of channel `prod`.
    pub releases: Vec<Signed>,
    /// What must be refused.
    pub refuse: Vec<Refused>,
    /// The heads of `prod`.
    pub heads: Vec<HeadFile>,
    /// The trust.
    pub trust: Pinned,
}

/// An edit of the vectors.
#[derive(Debug, Deserialize)]
pub struct Step {
    /// Its file.
    pub file: String,
    from: String,
    to: String,
    files: u64,
    bytes: u64,
}

/// A release of the vectors.
#[derive(Debug, Deserialize)]
pub struct Signed {
    /// Its document.
    pub file: String,
    /// Files of the edits, by bundle.
    pub edits: BTreeMap<String, String>,
    /// Its records.
    pub proofs: Vec<Proof>,
}

/// A release with some leaves.
#[derive(Debug, Deserialize)]
pub struct Proof {
    /// The file of the record.
    pub record: String,
}

/// A vector that must be refused.
#[derive(Debug, Deserialize)]
pub struct Refused {
    /// Its file.
    pub file: String,
    /// `release`, `record`, `edit`, `trust`, `trust-2` or `head`.
    pub what: String,
}

/// A signed head.
#[derive(Debug, Deserialize)]
pub struct HeadFile {
    /// Its file.
    pub file: String,
}

/// The versions of trust.
#[derive(Debug, Deserialize)]
pub struct Pinned {
    file: String,
    fingerprint: String,
    /// Files of the later versions.
    pub later: Vec<String>,
}

/// From which tree to which.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// The root of the one.
    pub from: NodeId,
    /// What is signed of the other.
    pub to: Declared,
}

/// All that was signed, ready to compare with.
pub struct Golden {
    /// The platform's trust, version 1.
    pub trust: VerifiedTrust,
    /// That version as a chain of its own.
    pub pinned: TrustChain,
    /// All its versions.
    pub chain: TrustChain,
    /// The payloads of the heads that the online key signed.
    pub heads: Vec<Bytes>,
    /// Its pinned hash.
    pub fingerprint: TrustHash,
    /// The payloads of all releases that a granted key signed.
    pub payloads: Vec<Bytes>,
    /// The leaves of these releases.
    pub leaves: Vec<BundleLeaf>,
    /// Release 1 of `prod` with all its bundles.
    pub first: VerifiedBundles,
    /// The edits of release 2.
    pub next: Vec<Bytes>,
    /// Every object of the golden trees.
    pub objects: ObjectMap,
    /// The ways between them.
    pub ways: Vec<Way>,
}

/// The vectors, read once.
pub static GOLDEN: LazyLock<Golden> = LazyLock::new(Golden::read);

/// The index of the vectors.
///
/// # Panics
/// When it cannot be read.
pub fn index() -> Index {
    serde_json::from_slice(&vector("index.json")).expect("index.json")
}

/// The channel of the golden releases.
///
/// # Panics
/// Never: the name is one.
pub fn channel() -> ChannelName {
    ChannelName::new("prod").expect("a name")
}

/// The record in a file.
///
/// # Panics
/// When it cannot be read.
pub fn record(file: &str) -> ReleaseRecord {
    rootcast::codec::decode(&vector(file), 1 << 20).expect("a record")
}

impl Golden {
    fn read() -> Self {
        let index = index();
        let fingerprint = index.trust.fingerprint.parse().expect("a fingerprint");
        let mut chain =
            TrustChain::pinned(&vector(&index.trust.file), fingerprint).expect("the golden trust");
        let trust = (**chain.newest()).clone();
        let pinned = chain.clone();
        for later in &index.trust.later {
            chain.extend(&vector(later)).expect("a later version");
        }
        let records = index.releases.iter().flat_map(|release| &release.proofs);
        let mut leaves = Vec::new();
        for proof in records {
            leaves.extend(record(&proof.record).leaves.into_iter().map(|(_, leaf)| leaf));
        }
        let whole =
            &index.releases.first().and_then(|release| release.proofs.last()).expect("a record").record;
        let first = record(whole).verify(&pinned, &channel()).expect("release 1");
        let next = index.releases.get(1).expect("release 2").edits.values();
        let next = next.map(|file| vector(file).into()).collect();
        let (objects, ways) = trees(&index);
        let heads = heads(&index);
        Self {
            trust,
            pinned,
            chain,
            heads,
            fingerprint,
            payloads: payloads(&index),
            leaves,
            first,
            next,
            objects,
            ways,
        }
    }
}

fn heads(index: &Index) -> Vec<Bytes> {
    let refused = index.refuse.iter().filter(|refused| refused.what == "head").map(|refused| &refused.file);
    let all = index.heads.iter().map(|head| &head.file).chain(refused).map(|file| vector(file));
    all.filter_map(|document| cose::unverified_payload(DocumentKind::Head, &document).ok()).collect()
}

fn payloads(index: &Index) -> Vec<Bytes> {
    let refused = index.refuse.iter().filter(|refused| refused.what == "release");
    let signed = index.releases.iter().map(|release| &release.file).chain(refused.map(|r| &r.file));
    let pair = "releases/pair.cose".to_owned();
    let all = signed.chain([&pair]).map(|file| vector(file));
    all.filter_map(|document| cose::unverified_payload(DocumentKind::Release, &document).ok()).collect()
}

/// All golden trees, and the ways between them: each from one that an earlier way led to.
fn trees(index: &Index) -> (ObjectMap, Vec<Way>) {
    let (mut objects, mut ways) = (ObjectMap::new(), Vec::new());
    for step in &index.edits {
        let id = |text: &str| text.parse::<NodeId>().expect("a root");
        let totals = Totals { files: step.files, bytes: step.bytes };
        let way =
            Way { from: id(&step.from), to: Declared { root: id(&step.to), totals, policy: Policy::ANY } };
        let mut new = ObjectMap::new();
        edit::apply(&objects, way.from, &vector(&step.file), &way.to, &mut new).expect("a golden edit");
        objects.append(&mut new);
        ways.push(way);
    }
    (objects, ways)
}
