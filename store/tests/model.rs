//! Random operations against a model, with the store closed and opened at any point.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests of what does I/O
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a panic is a failed test

mod common;

use bytes::Bytes;
use common::{bundle, edit_of, floors, object, record_of};
use proptest::prelude::*;
use rootcast::object::ObjectSource;
use rootcast_store::{Bounds, DiskStore, MemoryStore, Retained, Store};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
enum Step {
    /// A batch, kept or abandoned.
    Batch {
        objects: Vec<u64>,
        edits: Vec<(u8, u64)>,
        release: bool,
        keep: bool,
    },
    Collect {
        objects: BTreeSet<u64>,
        behind: u64,
    },
    Reopen,
    Verify,
}

fn step() -> impl Strategy<Value = Step> {
    let batch = (
        prop::collection::vec(0..80u64, 0..25),
        prop::collection::vec((0..2u8, 1..9u64), 0..3),
        any::<bool>(),
        prop::bool::weighted(0.8),
    );
    let collect = (prop::collection::btree_set(0..80u64, 0..80), 0..6u64);
    prop_oneof![
        6 => batch.prop_map(|(objects, edits, release, keep)| Step::Batch { objects, edits, release, keep }),
        2 => collect.prop_map(|(objects, behind)| Step::Collect { objects, behind }),
        2 => Just(Step::Reopen),
        1 => Just(Step::Verify),
    ]
}

#[derive(Debug, Default)]
struct Model {
    objects: BTreeSet<u64>,
    edits: BTreeMap<(u8, u64), Bytes>,
    releases: BTreeSet<u64>,
    number: u64,
    written: u64,
    floors: rootcast::acceptance::Floors,
}

const BUNDLES: [&str; 2] = ["base", "role/web"];

impl Model {
    fn run(&mut self, store: &dyn Store, step: &Step) {
        match step {
            Step::Batch { objects, edits, release, keep } => {
                let mut batch = store.begin().unwrap();
                for (id, bytes) in objects.iter().map(|n| object(*n)) {
                    batch.write(id, bytes).unwrap();
                }
                let mut new_edits = BTreeMap::new();
                for (name, sequence) in edits {
                    // Another content each time, so that an old one is told from a new one.
                    self.written += 1;
                    let edit = edit_of(self.written);
                    let name_of = bundle(BUNDLES[usize::from(*name)]);
                    batch.put_edit(&name_of, *sequence, edit.clone()).unwrap();
                    new_edits.insert((*name, *sequence), edit);
                }
                let number = self.number + u64::from(*release);
                if *release {
                    batch.put_release(number, record_of(number)).unwrap();
                }
                if *keep {
                    batch.commit(floors(number)).unwrap();
                    self.objects.extend(objects);
                    self.edits.extend(new_edits);
                    self.releases.extend(release.then_some(number));
                    self.number = number;
                    self.floors = floors(number);
                }
            }
            Step::Collect { objects, behind } => {
                let oldest = self.number.saturating_sub(*behind);
                let retained = Retained {
                    objects: objects.iter().map(|n| object(*n).0).collect(),
                    oldest_release: oldest,
                    edits: [(bundle(BUNDLES[0]), *behind)].into(),
                };
                let collected = store.collect(&retained).unwrap();
                assert_eq!(collected.damaged, []);
                self.objects.retain(|n| objects.contains(n));
                self.edits.retain(|(name, sequence), _| *name == 0 && sequence >= behind);
                self.releases.retain(|number| *number >= oldest);
            }
            Step::Reopen => {}
            Step::Verify => assert_eq!(store.verify(&mut |_, _| ()).unwrap(), []),
        }
    }

    fn check(&self, store: &dyn Store) {
        for n in 0..80 {
            let (id, bytes) = object(n);
            assert_eq!(store.contains(&id), self.objects.contains(&n), "object {n}");
            assert_eq!(store.read(&id).ok(), self.objects.contains(&n).then_some(bytes));
        }
        for (name, text) in BUNDLES.iter().enumerate() {
            for sequence in 0..10 {
                let wanted = self.edits.get(&(name as u8, sequence));
                assert_eq!(store.edit(&bundle(text), sequence).unwrap().as_ref(), wanted);
            }
        }
        for number in 0..=self.number + 1 {
            let wanted = self.releases.contains(&number).then(|| record_of(number));
            assert_eq!(store.release(number).unwrap(), wanted);
        }
        assert_eq!(store.latest_release(), self.releases.last().copied());
        assert_eq!(store.oldest_release(), self.releases.first().copied());
        let stats = store.stats();
        let counts = (stats.objects, stats.edits, stats.releases);
        let wanted = (self.objects.len(), self.edits.len(), self.releases.len());
        assert_eq!(counts, (wanted.0 as u64, wanted.1 as u64, wanted.2 as u64));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_store_on_disk_is_its_model(
        steps in prop::collection::vec(step(), 1..25),
        spool in prop_oneof![Just(0), Just(200), Just(1 << 20)],
        segment in prop_oneof![Just(100), Just(1500), Just(1 << 20)],
        collect_whole in prop_oneof![Just(0), Just(1 << 20)],
    ) {
        let home = tempfile::tempdir().unwrap();
        let bounds = Bounds { spool, segment, collect_whole };
        let open = || DiskStore::open_with(home.path(), bounds).unwrap();
        let (mut store, mut model) = (open(), Model::default());
        for step in &steps {
            model.run(&store, step);
            if matches!(step, Step::Reopen) {
                drop(store);
                store = open();
                prop_assert_eq!(store.found_at_open(), &[]);
            }
            model.check(&store);
            prop_assert_eq!(store.floors(), model.floors);
        }
        drop(store);
        model.check(&DiskStore::open_read_only(home.path()).unwrap());
    }

    #[test]
    fn a_store_in_memory_is_its_model(steps in prop::collection::vec(step(), 1..25)) {
        let (store, mut model) = (MemoryStore::new(), Model::default());
        for step in &steps {
            model.run(&store, step);
            model.check(&store);
        }
    }
}

/// Readers go on while the one writer commits and collects, in this process and
/// through a second handle, and never miss or misread what stays retained.
#[test]
fn readers_are_never_disturbed() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let home = tempfile::tempdir().unwrap();
    let bounds = Bounds { spool: 500, segment: 4000, collect_whole: 0 };
    let store = DiskStore::open_with(home.path(), bounds).unwrap();
    common::commit(&store, 1, 0..30);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    for (id, bytes) in (0..30).map(object) {
                        assert_eq!(store.read(&id), Ok(bytes));
                    }
                }
            });
        }
        let outside = scope.spawn(|| {
            let mut opened = 0;
            while !done.load(Ordering::Acquire) || opened == 0 {
                match DiskStore::open_read_only(home.path()) {
                    Ok(reader) => {
                        assert_eq!(reader.found_at_open(), []);
                        assert!((0..30).all(|n| reader.read(&object(n).0).is_ok()));
                        opened += 1;
                    }
                    Err(error) => {
                        assert!(matches!(error, rootcast_store::StoreError::Unsettled { .. }));
                    }
                }
            }
            opened
        });
        for number in 2..60 {
            common::commit(&store, number, number * 40..number * 40 + 30);
            let retained = Retained {
                objects: (0..30).map(|n| object(n).0).collect(),
                oldest_release: number,
                edits: BTreeMap::new(),
            };
            store.collect(&retained).unwrap();
        }
        done.store(true, Ordering::Release);
        assert!(outside.join().unwrap() > 0);
    });
    assert_eq!(store.verify(&mut |_, _| ()).unwrap(), []);
}

/// A drop lies in a later pack than what it drops. Rewriting the pack of the
/// drop, and not the other, must carry the drop over.
#[test]
fn s_17_what_was_dropped_stays_dropped_when_the_pack_of_its_drop_is_rewritten() {
    let home = common::scratch();
    // Each batch in a pack of its own.
    let bounds = Bounds { spool: 1 << 20, segment: 100, collect_whole: 0 };
    let store = DiskStore::open_with(home.path(), bounds).unwrap();
    common::commit(&store, 1, 0..30);
    let pack_of_drops = home.path().join("pack-00000002");
    let retained = Retained {
        objects: (1..30).map(|n| object(n).0).collect(),
        oldest_release: 1,
        edits: [(bundle("base"), 1)].into(),
    };
    assert_eq!(store.collect(&retained).unwrap().objects, 1);
    assert!(pack_of_drops.exists() && home.path().join("pack-00000001").exists());
    assert_eq!(store.collect(&retained).unwrap().objects, 0);
    assert!(!pack_of_drops.exists() && home.path().join("pack-00000001").exists());
    drop(store);
    let store = DiskStore::open_with(home.path(), bounds).unwrap();
    assert!(!store.contains(&object(0).0));
    common::assert_whole(&store, 1, 1..30);
}
