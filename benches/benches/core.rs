//! The core's own work on a bundle of 10,000 files, each beside its floor:
//! what the hashing alone of the same bytes, or the signature alone, costs.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // keys are made on disk
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a benchmark that cannot be set up is a panic

use bytes::Bytes;
use divan::Bencher;
use divan::counter::BytesCount;
use rootcast::chunking;
use rootcast::cose::DocumentKind;
use rootcast::edit::{self, Declared, Policy};
use rootcast::entry::Entry;
use rootcast::id::{AuthorityHash, NodeId, PlatformId, TrustHash};
use rootcast::merkle;
use rootcast::object::ObjectMap;
use rootcast::path::{BundleName, ChannelName, ConfigPath};
use rootcast::release::{BundleLeaf, Release};
use rootcast::tree::{Changes, Totals, Tree, diff, empty_root, update};
use rootcast::trust::VerifiedTrust;
use rootcast_bundler::Founding;
use rootcast_keys::Signer;

const FILES: usize = 10_000;
const PLATFORM: PlatformId = PlatformId::from_bytes([7; 16]);

fn main() {
    divan::main();
}

fn content(number: usize, version: usize) -> Bytes {
    let line = format!("upstream_{number} = \"10.0.{}.{}\"\nretries = 3\n", number / 250, number % 250);
    format!("version = {version}\n{}", line.repeat(10)).into()
}

fn entry(number: usize, version: usize, sink: &mut ObjectMap) -> (ConfigPath, Option<Entry>) {
    let path = format!("team-{:02}/service-{:03}/part-{}.conf", number / 1000, number / 20, number % 20);
    let content = chunking::store(content(number, version), sink).unwrap();
    (ConfigPath::new(&path).unwrap(), Some(Entry::File { content, executable: false }))
}

/// A tree, and a second with one changed file.
struct Pair {
    objects: ObjectMap,
    all: Changes,
    one: Changes,
    old: NodeId,
    new: NodeId,
    totals: Totals,
}

fn pair() -> Pair {
    let mut objects = ObjectMap::new();
    let all: Changes = (0..FILES).map(|number| entry(number, 1, &mut objects)).collect();
    let mut nodes = ObjectMap::new();
    let (old, _) = update(&objects, empty_root(), &all, &mut nodes).unwrap();
    objects.append(&mut nodes);
    let one = Changes::from([entry(FILES / 2, 2, &mut objects)]);
    let (new, totals) = update(&objects, old, &one, &mut nodes).unwrap();
    objects.append(&mut nodes);
    Pair { objects, all, one, old, new, totals }
}

/// Bytes of the nodes that one changed file writes anew.
fn written(pair: &Pair) -> Vec<Bytes> {
    let mut nodes = ObjectMap::new();
    update(&pair.objects, pair.old, &pair.one, &mut nodes).unwrap();
    nodes.into_values().collect()
}

#[divan::bench_group(sample_count = 50)]
mod tree_update_of_one {
    use super::*;

    #[divan::bench]
    fn measured(bencher: Bencher<'_, '_>) {
        let pair = pair();
        bencher.with_inputs(ObjectMap::new).bench_local_values(|mut sink| {
            update(&pair.objects, pair.old, &pair.one, &mut sink).unwrap();
            sink
        });
    }

    #[divan::bench]
    fn floor_blake3_of_the_new_nodes(bencher: Bencher<'_, '_>) {
        let nodes = written(&pair());
        let bytes: usize = nodes.iter().map(Bytes::len).sum();
        bencher.counter(BytesCount::new(bytes)).bench_local(|| {
            nodes.iter().map(|node| NodeId::of(node)).filter(|id| *id == empty_root()).count()
        });
    }
}

#[divan::bench_group(sample_count = 10, sample_size = 1)]
mod tree_of_all_files {
    use super::*;

    #[divan::bench]
    fn measured(bencher: Bencher<'_, '_>) {
        let pair = pair();
        bencher.with_inputs(ObjectMap::new).bench_local_values(|mut sink| {
            update(&pair.objects, empty_root(), &pair.all, &mut sink).unwrap();
            sink
        });
    }

    #[divan::bench]
    fn floor_blake3_of_the_nodes(bencher: Bencher<'_, '_>) {
        let pair = pair();
        let mut nodes = ObjectMap::new();
        update(&pair.objects, empty_root(), &pair.all, &mut nodes).unwrap();
        let bytes: usize = nodes.values().map(Bytes::len).sum();
        bencher.counter(BytesCount::new(bytes)).bench_local(|| {
            nodes.values().map(|node| NodeId::of(node)).filter(|id| *id == empty_root()).count()
        });
    }
}

#[divan::bench(sample_count = 50)]
fn diff_of_one(bencher: Bencher<'_, '_>) {
    let pair = pair();
    bencher.bench_local(|| {
        let (old, new) = (Tree::open(&pair.objects, pair.old), Tree::open(&pair.objects, pair.new));
        diff(&old.unwrap(), &new.unwrap()).unwrap()
    });
}

#[divan::bench_group(sample_count = 50)]
mod edit_of_one {
    use super::*;

    #[divan::bench]
    fn encode(bencher: Bencher<'_, '_>) {
        let pair = pair();
        let side = |root| (&pair.objects, root);
        bencher.bench_local(|| edit::encode(side(pair.old), side(pair.new)).unwrap());
    }

    #[divan::bench]
    fn apply(bencher: Bencher<'_, '_>) {
        let pair = pair();
        let edit = edit::encode((&pair.objects, pair.old), (&pair.objects, pair.new)).unwrap();
        let declared = Declared { root: pair.new, totals: pair.totals, policy: Policy::ANY };
        bencher.with_inputs(ObjectMap::new).bench_local_values(|mut sink| {
            edit::apply(&pair.objects, pair.old, &edit, &declared, &mut sink).unwrap();
            sink
        });
    }
}

#[divan::bench_group(sample_count = 5, sample_size = 1)]
mod snapshot {
    use super::*;

    #[divan::bench]
    fn encode(bencher: Bencher<'_, '_>) {
        let pair = pair();
        let side = |root| (&pair.objects, root);
        let bytes = BytesCount::new(pair.totals.bytes);
        bencher.counter(bytes).bench_local(|| edit::encode(side(empty_root()), side(pair.new)).unwrap());
    }

    #[divan::bench]
    fn apply(bencher: Bencher<'_, '_>) {
        let pair = pair();
        let edit = edit::encode((&pair.objects, empty_root()), (&pair.objects, pair.new)).unwrap();
        let declared = Declared { root: pair.new, totals: pair.totals, policy: Policy::ANY };
        let bytes = BytesCount::new(pair.totals.bytes);
        bencher.counter(bytes).with_inputs(ObjectMap::new).bench_local_values(|mut sink| {
            edit::apply(&ObjectMap::new(), empty_root(), &edit, &declared, &mut sink).unwrap();
            sink
        });
    }

    #[divan::bench]
    fn floor_blake3_of_the_files(bencher: Bencher<'_, '_>) {
        let files: Vec<Bytes> = (0..FILES).map(|number| content(number, 1)).collect();
        let bytes: usize = files.iter().map(Bytes::len).sum();
        bencher.counter(BytesCount::new(bytes)).bench_local(|| {
            files.iter().map(|file| blake3::hash(file)).filter(|hash| hash.as_bytes() == &[0; 32]).count()
        });
    }
}

/// A trust document and a release of one bundle signed under it.
fn signed() -> (VerifiedTrust, ChannelName, Bytes) {
    let keys = tempfile::tempdir().unwrap();
    let channel = ChannelName::new("main").unwrap();
    let authority = AuthorityHash::from_bytes([9; 32]);
    let founding = Founding { platform: PLATFORM, authority, grant: &channel, issued: 1, expires: 1 << 40 };
    let (document, fingerprint): (_, TrustHash) = founding.found(keys.path(), None).unwrap();
    let trust = VerifiedTrust::pinned(&document, fingerprint).unwrap();
    let key = Signer::load(&keys.path().join(rootcast_bundler::PUBLISHER_KEY_FILE), PLATFORM).unwrap();
    let leaf = BundleLeaf {
        name: BundleName::new("base").unwrap(),
        sequence: 1,
        root: empty_root(),
        chain: rootcast::id::Chain::START,
        files: 0,
        bytes: 0,
    };
    let release = Release {
        channel: channel.clone(),
        epoch: 1,
        number: 1,
        previous: None,
        bundles_root: merkle::root(&[leaf.hash()]),
        bundles: 1,
        files: 0,
        bytes: 0,
        commit: Bytes::from_static(&[1; 20]),
        issued: 1,
    };
    let document = key.sign(DocumentKind::Release, &release.encode()).unwrap();
    (trust, channel, document.into())
}

/// Its floor is `verify_strict` of one signature, about 50 us.
#[divan::bench(sample_count = 50)]
fn release_verify(bencher: Bencher<'_, '_>) {
    let (trust, channel, document) = signed();
    bencher.bench_local(|| trust.release(&channel, &document).unwrap());
}
