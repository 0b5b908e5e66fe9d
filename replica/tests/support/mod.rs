//! A publisher without a bundler: files in, signed releases out.
// Each test file needs its own part of this, and sees it as a module.
#![allow(dead_code, unreachable_pub)]

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use rootcast::acceptance::Accepted;
use rootcast::chunking;
use rootcast::cose::{self, DocumentKind, KeySet, PublicKey};
use rootcast::edit;
use rootcast::entry::Entry;
use rootcast::id::{AuthorityHash, Chain, EditHash, KeyId, NodeId, ObjectId, PlatformId, TrustHash};
use rootcast::layers::LayerPattern;
use rootcast::merkle;
use rootcast::object::ObjectSource;
use rootcast::path::{BundleName, ChannelName, ConfigPath};
use rootcast::plan::{Plan, plan_bundle, plan_path};
use rootcast::protocol::{Interest, Publication, Standing};
use rootcast::reader::Reader;
use rootcast::release::{BundleLeaf, Release};
use rootcast::tree::{self, Changes, Totals, Tree, TreeError, empty_root};
use rootcast::trust::{Grant, GrantLimits, Trust, TrustChain};
use rootcast_replica::{Received, Replica, Rule, Trusted, Update};
use rootcast_store::{MemoryStore, Store};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const PLATFORM: PlatformId = PlatformId::from_bytes([7; 16]);

/// Files to put (with content) or remove: bundle, path, content.
pub type Edits<'a> = &'a [(&'a str, &'a str, Option<&'a [u8]>)];

pub fn channel() -> ChannelName {
    ChannelName::new("main").unwrap()
}

pub fn bundle(name: &str) -> BundleName {
    BundleName::new(name).unwrap()
}

pub fn named(names: &[&str]) -> Interest {
    let mut names: Vec<_> = names.iter().map(|name| bundle(name)).collect();
    names.sort();
    Interest::Named(names)
}

/// Numbers that are the same in every run of one seed.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
    pub fn text(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| b"abcdefgh ijklmno=\n"[self.below(18)]).collect()
    }
}

fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn key_id(key: &SigningKey) -> KeyId {
    KeyId::of(&key.verifying_key().to_bytes())
}

/// The public halves of the keys of these seeds; one of them is enough.
pub fn seeds(seeds: &[u8]) -> KeySet {
    let public = |seed: &u8| PublicKey::from_bytes(&signing_key(*seed).verifying_key().to_bytes()).unwrap();
    KeySet { threshold: 1, keys: seeds.iter().map(public).collect() }
}

fn sign(kind: DocumentKind, key: &SigningKey, payload: &[u8]) -> Vec<u8> {
    let id = key_id(key);
    let signature = key.sign(&cose::to_be_signed(kind, PLATFORM, id, payload));
    cose::assemble(kind, id, payload, &signature.to_bytes())
}

/// What the platform of these tests begins with: key 1 is its root, key 2 publishes, key 3 signs heads.
pub fn trust_fields(authority: AuthorityHash) -> Trust {
    Trust {
        platform: PLATFORM,
        version: 1,
        issued: 1,
        expires: 1 << 40,
        roots: seeds(&[1]),
        grants: vec![Grant {
            prefix: channel(),
            epoch: 1,
            publishers: seeds(&[2]),
            limits: GrantLimits::default(),
            symlinks: true,
        }],
        heads: seeds(&[3]),
        authorities: vec![authority],
    }
}

/// A trust document that grants channel `main` to the one publisher, and its fingerprint.
pub fn trust_document(authority: AuthorityHash) -> (Vec<u8>, TrustHash) {
    let trust = trust_fields(authority);
    (sign_trust(&trust, &[1]), TrustHash::of(&trust.encode()))
}

/// A trust document signed by the keys of these seeds.
pub fn sign_trust(trust: &Trust, seeds: &[u8]) -> Vec<u8> {
    let payload = trust.encode();
    seeds.iter().flat_map(|seed| sign(DocumentKind::Trust, &signing_key(*seed), &payload)).collect()
}

pub fn trust() -> Arc<Trusted> {
    let (document, fingerprint) = trust_document(AuthorityHash::from_bytes([9; 32]));
    Trusted::in_memory(TrustChain::pinned(&document, fingerprint).unwrap())
}

/// A replica over a store, its log kept.
pub fn replica_over(store: Arc<dyn Store>) -> Arc<Replica> {
    Arc::new(Replica::open(store, trust(), channel(), true, None).unwrap())
}

pub fn replica() -> Arc<Replica> {
    replica_over(Arc::new(MemoryStore::new()))
}

/// A host's replica: it serves nobody, and keeps no log.
pub fn host_replica() -> Arc<Replica> {
    let store = Arc::new(MemoryStore::new());
    Arc::new(Replica::open(store, trust(), channel(), false, None).unwrap())
}

/// A release before it is signed; a test may spoil it first.
#[derive(Clone)]
pub struct Draft {
    pub release: Release,
    pub leaves: Vec<BundleLeaf>,
    pub edits: Vec<Option<Bytes>>,
}

impl Draft {
    /// Makes the signed root be that of the leaves as they are now.
    pub fn rooted(mut self) -> Self {
        let hashes: Vec<_> = self.leaves.iter().map(BundleLeaf::hash).collect();
        self.release.bundles_root = merkle::root(&hashes);
        self.release.bundles = hashes.len() as u64;
        self
    }

    pub fn document(&self) -> Bytes {
        sign(DocumentKind::Release, &signing_key(2), &self.release.encode()).into()
    }

    /// The publication, signed by the key of another seed.
    pub fn signed_by(&self, seed: u8) -> (Publication, Vec<Bytes>) {
        let (publication, edits) = self.publication();
        let release = sign(DocumentKind::Release, &signing_key(seed), &self.release.encode()).into();
        (Publication { release, ..publication }, edits)
    }

    pub fn publication(&self) -> (Publication, Vec<Bytes>) {
        let lengths = self.edits.iter().map(|edit| edit.as_ref().map(|edit| edit.len() as u64)).collect();
        let leaves = self.leaves.clone();
        let publication =
            Publication { channel: channel(), release: self.document(), leaves, edits: lengths };
        (publication, self.edits.iter().flatten().cloned().collect())
    }

    /// As the origin sees it.
    pub fn update(&self) -> Update {
        let (publication, edits) = self.publication();
        Update::of_publication(publication, edits)
    }
}

/// Compiles and signs releases over a replica of its own.
pub struct Publisher {
    pub replica: Arc<Replica>,
}

impl Publisher {
    pub fn new() -> Self {
        Self { replica: replica() }
    }

    fn bundles(&self) -> BTreeMap<BundleName, (NodeId, Totals)> {
        let Some(held) = self.replica.held() else { return BTreeMap::new() };
        held.bundles.leaves().values().map(|leaf| (leaf.name.clone(), (leaf.root, leaf.totals()))).collect()
    }

    /// Compiles the next release; the trees are in the store afterwards.
    pub fn draft(&self, files: Edits<'_>) -> Draft {
        let (store, held) = (self.replica.store(), self.replica.held());
        let source: &dyn ObjectSource = &**store;
        let mut bundles = self.bundles();
        bundles.remove(&plan_bundle().unwrap());
        let mut changes: BTreeMap<BundleName, Changes> = BTreeMap::new();
        let mut batch = store.begin().unwrap();
        for (name, path, content) in files {
            let entry = content.map(|content| {
                let content = chunking::store(Bytes::copy_from_slice(content), &mut *batch).unwrap();
                Entry::File { content, executable: false }
            });
            changes.entry(bundle(name)).or_default().insert(ConfigPath::new(path).unwrap(), entry);
        }
        for (name, changes) in &changes {
            let old = bundles.get(name).map_or_else(empty_root, |(root, _)| *root);
            let (root, totals) = tree::update(source, old, changes, &mut *batch).unwrap();
            bundles.insert(name.clone(), (root, totals));
        }
        bundles.retain(|name, (_, totals)| totals.files > 0 || name.as_str() == "base");
        if bundles.len() > 1 {
            let layers = ["base", "datacenter/{datacenter}", "role/{role}"];
            let layers = layers.map(|layer| LayerPattern::parse(layer).unwrap()).to_vec();
            let plan = Plan { layers, bundles: bundles.keys().cloned().collect() };
            let content = chunking::store(Bytes::from(plan.encode()), &mut *batch).unwrap();
            let change =
                Changes::from([(plan_path().unwrap(), Some(Entry::File { content, executable: false }))]);
            let made = tree::update(source, empty_root(), &change, &mut *batch).unwrap();
            bundles.insert(plan_bundle().unwrap(), made);
        }
        batch.commit(store.floors()).unwrap();

        let (mut leaves, mut edits) = (Vec::new(), Vec::new());
        for (name, (root, Totals { files, bytes })) in bundles {
            let before = held.as_ref().and_then(|held| held.bundles.leaf(&name));
            if let Some(before) = before.filter(|before| before.root == root) {
                leaves.push(before.clone());
                edits.push(None);
                continue;
            }
            let old = before.map_or_else(empty_root, |leaf| leaf.root);
            let edit = edit::encode((source, old), (source, root)).unwrap();
            let chain = before.map_or(Chain::START, |leaf| leaf.chain).next(&EditHash::of(&edit));
            let sequence = before.map_or(0, |leaf| leaf.sequence) + 1;
            leaves.push(BundleLeaf { name, sequence, root, chain, files, bytes });
            edits.push(Some(Bytes::from(edit)));
        }
        let previous = held.map(|held| held.accepted());
        let release = Release {
            channel: channel(),
            epoch: 1,
            number: previous.map_or(0, |previous| previous.number) + 1,
            previous: previous.map(|previous| previous.hash),
            bundles_root: merkle::root(&[]),
            bundles: 0,
            files: leaves.iter().map(|leaf| leaf.files).sum(),
            bytes: leaves.iter().map(|leaf| leaf.bytes).sum(),
            commit: Bytes::from_static(&[5; 20]),
            issued: 1_700_000_000 + previous.map_or(0, |previous| previous.number * 60),
        };
        Draft { release, leaves, edits }.rooted()
    }

    /// Compiles the next release and takes it in under the origin's rule.
    pub fn publish(&self, files: Edits<'_>) -> Draft {
        let draft = self.draft(files);
        let received = self.replica.receive(&draft.update(), &Interest::All, Rule::Origin).unwrap();
        assert!(matches!(received, Received::Held(_)));
        draft
    }
}

/// The history that most tests use: five releases, of one and of three bundles.
pub fn history(publisher: &Publisher) -> Vec<Draft> {
    let web = Numbers::new(4).text(900);
    vec![
        publisher.publish(&[("base", "a.conf", Some(b"one\n")), ("base", "dir/b.conf", Some(b"two two\n"))]),
        publisher
            .publish(&[("base", "a.conf", Some(b"one and a half\n")), ("role/web", "web.conf", Some(&web))]),
        publisher.publish(&[("role/web", "web2.conf", Some(b"listen 80\n")), ("base", "dir/b.conf", None)]),
        publisher.publish(&[("base", "c.conf", Some(b"three\n"))]),
        publisher.publish(&[("base", "c.conf", Some(b"four\n")), ("role/web", "web.conf", Some(b"short\n"))]),
    ]
}

pub fn nowhere() -> Standing {
    Standing { release: None, whole: Vec::new() }
}

/// The update that a parent has for a child that stands there.
pub async fn update_of(parent: &Arc<Replica>, interest: &Interest, standing: &Standing) -> Option<Update> {
    let outgoing = parent.outgoing(&Reader::Relay, interest, standing).await.unwrap()?;
    Some(Update { head: outgoing.head.clone(), edits: outgoing.edits.clone() })
}

/// A replica with a publisher's first `count` releases.
pub fn with_first(drafts: &[Draft], count: usize) -> Arc<Replica> {
    with_first_over(Arc::new(MemoryStore::new()), drafts, count)
}

pub fn with_first_over(store: Arc<dyn Store>, drafts: &[Draft], count: usize) -> Arc<Replica> {
    let replica = replica_over(store);
    for draft in &drafts[..count] {
        replica.receive(&draft.update(), &Interest::All, Rule::Follow).unwrap();
    }
    replica
}

/// What a replica holds, as far as it is told from outside.
pub fn state(
    replica: &Replica,
) -> (Option<Accepted>, rootcast::acceptance::Floors, Vec<(BundleName, NodeId)>) {
    (replica.held().map(|held| held.accepted()), replica.floors(), roots(replica))
}

pub fn roots(replica: &Replica) -> Vec<(BundleName, NodeId)> {
    let Some(held) = replica.held() else { return Vec::new() };
    held.bundles.leaves().values().map(|leaf| (leaf.name.clone(), leaf.root)).collect()
}

/// Every object that the held release is made of; fails where one cannot be read.
pub fn needed(replica: &Replica) -> Vec<ObjectId> {
    let source: &dyn ObjectSource = &**replica.store();
    let mut all = Vec::new();
    for (_, root) in roots(replica) {
        let each = &mut |id: ObjectId| {
            source.read(&id).map_err(TreeError::from)?;
            all.push(id);
            Ok::<bool, TreeError>(true)
        };
        Tree::open(source, root).unwrap().objects(each).unwrap();
    }
    all.sort();
    all.dedup();
    all
}
