//! What the tests of signed documents share: keys from fixed seeds, a platform,
//! bundles, and a short history of releases.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod succession;

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use rootcast::acceptance::{Accepted, Offer};
use rootcast::chunking;
use rootcast::cose::{self, DocumentKind, KeySet, PublicKey};
use rootcast::edit;
use rootcast::entry::{Content, Entry};
use rootcast::head::Head;
use rootcast::id::{AuthorityHash, Chain, EditHash, NodeId, PlatformId, ReleaseHash, TrustHash};
use rootcast::layers::LayerPattern;
use rootcast::merkle;
use rootcast::object::ObjectMap;
use rootcast::path::{BundleName, ChannelName, ConfigPath, LinkTarget};
use rootcast::plan::Plan;
use rootcast::release::{BundleLeaf, Release};
use rootcast::tree::{Changes, Totals, empty_root, update};
use rootcast::trust::{Grant, GrantLimits, Trust, TrustChain, VerifiedTrust};
use std::collections::BTreeMap;

pub const PLATFORM: PlatformId = PlatformId::from_bytes(*b"vector platform.");
pub const OTHER_PLATFORM: PlatformId = PlatformId::from_bytes(*b"another platform");
/// 2026-01-01T00:00:00Z.
pub const ISSUED: u64 = 1_767_225_600;

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub fn public(key: &SigningKey) -> PublicKey {
    PublicKey::from_bytes(&key.verifying_key().to_bytes()).unwrap()
}

pub fn root_keys() -> [SigningKey; 2] {
    [key(1), key(2)]
}

pub fn publisher() -> SigningKey {
    key(3)
}

pub fn second_publisher() -> SigningKey {
    key(4)
}

pub fn head_key() -> SigningKey {
    key(5)
}

/// A key that nothing grants anything.
pub fn stranger() -> SigningKey {
    key(6)
}

pub fn keys(threshold: u64, keys: &[SigningKey]) -> KeySet {
    KeySet { threshold, keys: keys.iter().map(public).collect() }
}

pub fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

pub fn bundle(name: &str) -> BundleName {
    BundleName::new(name).unwrap()
}

pub fn path(text: &str) -> ConfigPath {
    ConfigPath::new(text).unwrap()
}

/// One COSE_Sign1 in the profile.
pub fn sign(kind: DocumentKind, platform: PlatformId, key: &SigningKey, payload: &[u8]) -> Vec<u8> {
    let id = public(key).id();
    let signature = key.sign(&cose::to_be_signed(kind, platform, id, payload)).to_bytes();
    cose::assemble(kind, id, payload, &signature)
}

pub fn sign_release(key: &SigningKey, release: &Release) -> Bytes {
    sign(DocumentKind::Release, PLATFORM, key, &release.encode()).into()
}

/// A CBOR byte string.
pub fn byte_string(bytes: &[u8]) -> Vec<u8> {
    rootcast::codec::encode(&Bytes::copy_from_slice(bytes))
}

/// A COSE_Sign1 whose parts are as given, with a signature that is good for them.
pub fn sign_parts(
    protected: &[u8],
    unprotected: &[u8],
    aad: &[u8],
    key: &SigningKey,
    payload: &[u8],
) -> Vec<u8> {
    let mut message = [&[0x84, 0x6a], &b"Signature1"[..]].concat();
    for part in [protected, aad, payload] {
        message.extend(byte_string(part));
    }
    let signature = key.sign(&message).to_bytes();
    [&[0xd2, 0x84], &*byte_string(protected), unprotected, &byte_string(payload), &byte_string(&signature)]
        .concat()
}

/// The protected header of the profile, with any algorithm.
pub fn protected(kind: DocumentKind, algorithm: u8, key: &SigningKey) -> Vec<u8> {
    let typ = rootcast::codec::encode(&kind.typ());
    [&[0xa3, 0x01, algorithm, 0x04, 0x48][..], public(key).id().as_bytes(), &[0x10], &typ].concat()
}

pub fn aad(kind: DocumentKind, platform: PlatformId) -> Vec<u8> {
    rootcast::codec::encode(&(kind.typ(), platform))
}

/// Trust of the platform: `prod` for either publisher, `pair` for both together, `team` with small limits.
pub fn trust_fields() -> Trust {
    let publishers = [publisher(), second_publisher()];
    let grant = |prefix: &str, threshold| Grant {
        prefix: channel(prefix),
        epoch: 1,
        publishers: keys(threshold, &publishers),
        limits: GrantLimits::default(),
        symlinks: true,
    };
    let small = GrantLimits { files: 2, bytes: 100, file_size: 60 };
    Trust {
        platform: PLATFORM,
        version: 1,
        issued: ISSUED,
        expires: ISSUED + 10 * 365 * 86_400,
        roots: keys(2, &root_keys()),
        grants: vec![
            grant("prod", 1),
            grant("pair", 2),
            Grant { limits: small, symlinks: false, ..grant("team", 1) },
        ],
        heads: keys(1, &[head_key()]),
        authorities: vec![AuthorityHash::of(b"not a certificate: the vectors need only its hash")],
    }
}

/// A trust document signed by both root keys, one COSE_Sign1 after the other.
pub fn sign_trust(trust: &Trust) -> (Vec<u8>, TrustHash) {
    let payload = trust.encode();
    let signed =
        root_keys().iter().flat_map(|key| sign(DocumentKind::Trust, trust.platform, key, &payload)).collect();
    (signed, TrustHash::of(&payload))
}

pub fn trust() -> VerifiedTrust {
    let (document, fingerprint) = sign_trust(&trust_fields());
    VerifiedTrust::pinned(&document, fingerprint).unwrap()
}

/// A head that names a step, signed an hour after it, good for a day.
pub fn head_of(step: &Step, sequence: u64) -> Head {
    let issued = step.release.issued + 3600;
    Head {
        channel: step.release.channel.clone(),
        epoch: 1,
        sequence,
        release: step.release_accepted(),
        issued,
        expires: issued + 86_400,
    }
}

pub fn sign_head(head: &Head) -> Bytes {
    sign(DocumentKind::Head, PLATFORM, &head_key(), &head.encode()).into()
}

/// The same, as the first of a chain.
pub fn chain() -> TrustChain {
    let (document, fingerprint) = sign_trust(&trust_fields());
    TrustChain::pinned(&document, fingerprint).unwrap()
}

#[derive(Debug, Clone, PartialEq)]
pub enum File {
    Regular(Vec<u8>),
    Executable(Vec<u8>),
    Link(&'static str),
    Secret(Vec<u8>),
}

pub type Files = BTreeMap<String, File>;

pub fn text(text: &str) -> File {
    File::Regular(text.into())
}

pub fn build(objects: &mut ObjectMap, files: &Files) -> (NodeId, Totals) {
    let mut changes = Changes::new();
    for (name, file) in files {
        let path = path(name);
        let entry = match file {
            File::Link(target) => Entry::Symlink { target: LinkTarget::new(&path, target).unwrap() },
            File::Regular(bytes) | File::Executable(bytes) => Entry::File {
                content: chunking::store(Bytes::copy_from_slice(bytes), objects).unwrap(),
                executable: matches!(file, File::Executable(_)),
            },
            File::Secret(bytes) => match chunking::store(Bytes::copy_from_slice(bytes), objects).unwrap() {
                Content::Blob { id, size } => Entry::Secret { id, size },
                Content::Chunked { .. } => unreachable!("a secret is one blob"),
            },
        };
        changes.insert(path, Some(entry));
    }
    update(&ObjectMap::new(), empty_root(), &changes, objects).unwrap()
}

/// A release and all that belongs to it.
pub struct Step {
    pub release: Release,
    pub document: Bytes,
    pub leaves: Vec<BundleLeaf>,
    /// The edits of the bundles that changed.
    pub edits: BTreeMap<BundleName, Vec<u8>>,
}

impl Step {
    pub fn proof(&self, indices: &[u64]) -> Vec<rootcast::id::ProofHash> {
        let hashes: Vec<_> = self.leaves.iter().map(BundleLeaf::hash).collect();
        merkle::prove(&hashes, indices)
    }
    pub fn known(&self, indices: &[u64]) -> BTreeMap<u64, BundleLeaf> {
        indices.iter().map(|index| (*index, self.leaves[*index as usize].clone())).collect()
    }
    pub fn release_accepted(&self) -> Accepted {
        let Release { epoch, number, .. } = self.release;
        Accepted { epoch, number, hash: ReleaseHash::of(&self.release.encode()) }
    }
    pub fn offer(&self) -> Offer {
        Offer { release: self.release_accepted(), previous: self.release.previous }
    }
    pub fn leaf(&self, name: &str) -> &BundleLeaf {
        self.leaves.iter().find(|leaf| leaf.name.as_str() == name).unwrap()
    }
}

/// A release over `leaves`, signed by the first publisher.
pub fn release(name: &str, number: u64, previous: Option<ReleaseHash>, leaves: &[BundleLeaf]) -> Release {
    let hashes: Vec<_> = leaves.iter().map(BundleLeaf::hash).collect();
    Release {
        channel: channel(name),
        epoch: 1,
        number,
        previous,
        bundles_root: merkle::root(&hashes),
        bundles: leaves.len() as u64,
        files: leaves.iter().map(|leaf| leaf.files).sum(),
        bytes: leaves.iter().map(|leaf| leaf.bytes).sum(),
        commit: Bytes::from(vec![number as u8; 20]),
        issued: ISSUED + number * 60,
    }
}

/// Signs a history: each step gives every bundle's files.
pub fn history(name: &str, steps: &[BTreeMap<&str, Files>]) -> (ObjectMap, Vec<Step>) {
    let mut objects = ObjectMap::new();
    let mut done: Vec<Step> = Vec::new();
    for bundles in steps {
        let last = done.last();
        let (mut leaves, mut edits) = (Vec::new(), BTreeMap::new());
        for (name, files) in bundles {
            let name = bundle(name);
            let (root, Totals { files, bytes }) = build(&mut objects, files);
            let before = last.and_then(|step| step.leaves.iter().find(|leaf| leaf.name == name));
            let start = (0, empty_root(), Chain::START);
            let (sequence, old, chain) = before.map_or(start, |leaf| (leaf.sequence, leaf.root, leaf.chain));
            if let Some(before) = before.filter(|before| before.root == root) {
                leaves.push(before.clone());
                continue;
            }
            let edit = edit::encode((&objects, old), (&objects, root)).unwrap();
            let chain = chain.next(&EditHash::of(&edit));
            leaves.push(BundleLeaf { name: name.clone(), sequence: sequence + 1, root, chain, files, bytes });
            edits.insert(name, edit);
        }
        let previous = last.map(|step| ReleaseHash::of(&step.release.encode()));
        let release = release(name, done.len() as u64 + 1, previous, &leaves);
        let document = sign_release(&publisher(), &release);
        done.push(Step { release, document, leaves, edits });
    }
    (objects, done)
}

pub fn plan_files(layers: &[&str], bundles: &[&str]) -> Files {
    let plan = Plan {
        layers: layers.iter().map(|layer| LayerPattern::parse(layer).unwrap()).collect(),
        bundles: bundles.iter().map(|name| bundle(name)).collect(),
    };
    Files::from([("plan".into(), File::Regular(plan.encode()))])
}

/// The first small tree: every kind of entry.
pub fn tree_one() -> Files {
    let lines =
        |from: u32, to: u32| (from..to).map(|n| format!("setting_{n}: {}\n", n * 7)).collect::<String>();
    Files::from([
        ("bin/start".into(), File::Executable(b"#!/bin/sh\nexec server\n".to_vec())),
        ("bin/stop".into(), text("#!/bin/sh\nexec kill\n")),
        ("etc/app.yaml".into(), text(&lines(0, 40))),
        ("etc/current".into(), File::Link("app.yaml")),
        ("etc/drop.yaml".into(), text("gone: soon\n")),
        ("etc/empty".into(), text("")),
        ("moved/from.conf".into(), text("content that moves as it is\n")),
        ("moved/old.toml".into(), text(&lines(100, 120))),
        ("ünïcode/日本.txt".into(), text("names are UTF-8\n")),
    ])
}

/// The second: an add, an add that resembles its neighbour, a delete, a changed
/// file, changed modes, a rename, a rename with a change, and changed links.
pub fn tree_two() -> Files {
    let mut files = tree_one();
    let app = |n: u32| {
        (0..40).map(|at| format!("setting_{at}: {}\n", if at == n { 1 } else { at * 7 })).collect::<String>()
    };
    files.insert("added/first".into(), text("nothing in the old tree is like this\n"));
    files.insert("bin/stop".into(), File::Executable(b"#!/bin/sh\nexec kill\n".to_vec()));
    files.insert("etc/app.yaml".into(), text(&app(20)));
    files.insert("etc/app2.yaml".into(), text(&app(30)));
    files.insert("etc/current".into(), File::Link("app2.yaml"));
    files.remove("etc/drop.yaml");
    files.insert("etc/stop".into(), File::Link("../bin/stop"));
    let moved = files.remove("moved/from.conf").unwrap();
    files.insert("there/to.conf".into(), moved);
    let Some(File::Regular(mut changed)) = files.remove("moved/old.toml") else { unreachable!() };
    changed.extend_from_slice(b"and one line more\n");
    files.insert("there/old.toml".into(), File::Executable(changed));
    files
}

/// What stands for an encrypted file: bytes that resemble nothing.
pub fn encrypted(seed: &str) -> File {
    let mut bytes = b"age-encryption.org/v1\n".to_vec();
    bytes.resize(300, 0);
    let (_, rest) = bytes.split_at_mut(22);
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(rest);
    File::Secret(bytes)
}

/// Secrets beside files.
pub fn tree_secret() -> Files {
    let mut files = tree_one();
    files.insert("etc/kept.key".into(), encrypted("kept"));
    files.insert("etc/changed.key".into(), encrypted("before"));
    files.insert("etc/moved.key".into(), encrypted("moved"));
    files.insert("etc/opened".into(), encrypted("opened"));
    files
}

/// One secret is changed, one moved, one becomes a file, and a file and a link become secrets.
pub fn tree_secret_changed() -> Files {
    let mut files = tree_secret();
    files.insert("etc/changed.key".into(), encrypted("after"));
    let moved = files.remove("etc/moved.key").unwrap();
    files.insert("there/new.key".into(), moved);
    files.insert("etc/opened".into(), text("no secret any more\n"));
    files.insert("etc/app.yaml".into(), encrypted("app"));
    files.insert("etc/current".into(), encrypted("current"));
    files
}

/// About 300 entries, two levels.
pub fn tree_wide() -> Files {
    (0..300).map(|n| (format!("d{}/f{n:03}.yaml", n % 7), text(&format!("number: {n}\n")))).collect()
}

/// A history of three releases: `base` changes in the second, `plan` and `role/web` in the third.
pub fn prod_history() -> (ObjectMap, Vec<Step>) {
    let web = |n: u8| Files::from([("nginx.conf".into(), text(&format!("worker_processes {n};\n")))]);
    let plan = |layers: &[&str]| plan_files(layers, &["base", "role/web"]);
    let two = ["base", "role/{role}"];
    history(
        "prod",
        &[
            BTreeMap::from([("base", tree_one()), ("plan", plan(&two)), ("role/web", web(1))]),
            BTreeMap::from([("base", tree_two()), ("plan", plan(&two)), ("role/web", web(1))]),
            BTreeMap::from([
                ("base", tree_two()),
                ("plan", plan(&["base", "role/{role}", "host/{host}"])),
                ("role/web", web(2)),
            ]),
        ],
    )
}

/// The group order of Ed25519 (RFC 8032 section 5.1), little-endian.
const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

/// Adds the group order to the S of the signature that ends `document`.
pub fn plus_order(document: &[u8]) -> Vec<u8> {
    let mut changed = document.to_vec();
    let start = changed.len() - 32;
    let mut carry = 0;
    for (byte, order) in changed[start..].iter_mut().zip(hex::decode(ORDER).unwrap()) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(carry, 0);
    changed
}
