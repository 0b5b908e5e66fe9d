//! What every store does, in memory or on disk. Each case runs against all.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests of what does I/O
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a panic is a failed test

mod common;

use bytes::Bytes;
use common::{SMALL, assert_whole, blob, bundle, commit, edit_of, floors, object, record_of};
use rootcast::id::{BlobId, ObjectId};
use rootcast::limits::MAX_OBJECT;
use rootcast::object::ReadError;
use rootcast_store::{DiskStore, MemoryStore, Retained, Store, StoreError};

/// A store that can be closed and opened again, where it lasts.
trait Subject {
    fn store(&self) -> &dyn Store;
    fn reopened(self) -> Self;
}

impl Subject for MemoryStore {
    fn store(&self) -> &dyn Store {
        self
    }
    fn reopened(self) -> Self {
        self
    }
}

struct OnDisk(tempfile::TempDir, Option<DiskStore>);

impl OnDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open_with(dir.path().join("store"), SMALL).unwrap();
        Self(dir, Some(store))
    }
}

impl Subject for OnDisk {
    fn store(&self) -> &dyn Store {
        self.1.as_ref().unwrap()
    }
    fn reopened(mut self) -> Self {
        self.1 = None;
        let store = DiskStore::open_with(self.0.path().join("store"), SMALL).unwrap();
        assert_eq!(store.found_at_open(), []);
        self.1 = Some(store);
        self
    }
}

macro_rules! conformance {
    ($($case:ident)*) => {
        mod memory {
            $(#[test] fn $case() { super::$case(super::MemoryStore::new()); })*
        }
        mod disk {
            $(#[test] fn $case() { super::$case(super::OnDisk::new()); })*
        }
    };
}

conformance! {
    a_new_store_is_empty
    what_is_committed_is_there_also_after_reopening
    nothing_shows_before_its_commit_or_after_its_abandonment
    objects_of_all_sizes_come_back
    the_same_hash_in_another_kind_is_another_object
    a_later_record_replaces_an_earlier_one
    there_is_one_writer
    s_1_a_floor_never_goes_back
    floors_alone_can_be_committed
    an_object_under_a_wrong_id_is_refused_and_loses_the_batch
    what_is_too_large_is_refused
    collecting_keeps_what_is_retained_and_nothing_else
    collecting_again_and_again_changes_nothing_more
    everything_can_be_collected
    what_was_collected_can_be_put_again
    verify_finds_a_sound_store_sound
}

fn a_new_store_is_empty(subject: impl Subject) {
    let subject = subject.reopened();
    let store = subject.store();
    assert_eq!(store.floors(), floors_zero());
    assert_eq!((store.latest_release(), store.oldest_release()), (None, None));
    assert_eq!(store.release(1).unwrap(), None);
    assert_eq!(store.edit(&bundle("base"), 1).unwrap(), None);
    let (id, _) = object(1);
    assert!(!store.contains(&id));
    assert_eq!(store.read(&id), Err(ReadError::Missing(id)));
    assert_eq!(store.stats().objects + store.stats().edits + store.stats().releases, 0);
}

fn floors_zero() -> rootcast::acceptance::Floors {
    rootcast::acceptance::Floors::default()
}

fn what_is_committed_is_there_also_after_reopening(subject: impl Subject) {
    commit(subject.store(), 1, 0..20);
    commit(subject.store(), 2, 10..90);
    let check = |store: &dyn Store| {
        assert_whole(store, 1, 0..20);
        assert_whole(store, 2, 10..90);
        assert_eq!(store.floors(), floors(2));
        assert_eq!((store.oldest_release(), store.latest_release()), (Some(1), Some(2)));
        let stats = store.stats();
        assert_eq!((stats.objects, stats.edits, stats.releases), (90, 2, 2));
        let raw: usize = (0..90).map(|n| object(n).1.len()).sum();
        let rest: usize = (1..3).map(|n| edit_of(n).len() + record_of(n).len()).sum();
        assert_eq!(stats.bytes_raw, (raw + rest) as u64);
        assert!(stats.bytes_stored <= stats.bytes_raw);
    };
    check(subject.store());
    check(subject.reopened().store());
}

fn nothing_shows_before_its_commit_or_after_its_abandonment(subject: impl Subject) {
    commit(subject.store(), 1, 0..3);
    let mut batch = subject.store().begin().unwrap();
    // More than the small bounds of the test hold in memory, so that some of it is on disk.
    for (id, bytes) in (0..60).map(object) {
        batch.write(id, bytes).unwrap();
    }
    batch.put_release(2, record_of(2)).unwrap();
    batch.put_edit(&bundle("base"), 1, Bytes::from_static(b"other")).unwrap();
    let check = |store: &dyn Store| {
        assert_eq!(store.stats().objects, 3);
        assert!((3..60).all(|n| !store.contains(&object(n).0)));
        assert_eq!(store.latest_release(), Some(1));
        assert_whole(store, 1, 0..3);
        assert_eq!(store.floors(), floors(1));
    };
    check(subject.store());
    drop(batch);
    check(subject.store());
    let subject = subject.reopened();
    check(subject.store());
    commit(subject.store(), 2, 0..60);
    assert_whole(subject.reopened().store(), 2, 0..60);
}

fn objects_of_all_sizes_come_back(subject: impl Subject) {
    let noise = |length: usize| {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    };
    let mut contents = vec![Vec::new(), vec![0; MAX_OBJECT as usize], noise(MAX_OBJECT as usize)];
    for length in [1, 63, 64, 65, 299, 300, 301, 4096, 70_000] {
        contents.extend([noise(length), vec![b'a'; length]]);
    }
    let objects: Vec<_> = contents.into_iter().map(blob).collect();
    let mut batch = subject.store().begin().unwrap();
    for (id, bytes) in &objects {
        batch.write(*id, bytes.clone()).unwrap();
    }
    batch.commit(floors(1)).unwrap();
    let subject = subject.reopened();
    for (id, bytes) in &objects {
        assert!(subject.store().read(id).as_ref() == Ok(bytes), "{} bytes", bytes.len());
    }
}

fn the_same_hash_in_another_kind_is_another_object(subject: impl Subject) {
    commit(subject.store(), 1, [3]);
    let (id, _) = object(3);
    let twin: ObjectId = rootcast::id::NodeId::from_bytes(*id.hash()).into();
    assert!(subject.store().contains(&id) && !subject.store().contains(&twin));
    assert_eq!(subject.store().read(&twin), Err(ReadError::Missing(twin)));
}

fn a_later_record_replaces_an_earlier_one(subject: impl Subject) {
    commit(subject.store(), 1, []);
    let other = Bytes::from_static(b"another, of another length altogether");
    let mut batch = subject.store().begin().unwrap();
    batch.put_release(1, Bytes::from_static(b"overwritten in the same batch")).unwrap();
    batch.put_release(1, other.clone()).unwrap();
    batch.put_edit(&bundle("base"), 1, other.clone()).unwrap();
    batch.commit(floors(1)).unwrap();
    let subject = subject.reopened();
    assert_eq!(subject.store().release(1).unwrap(), Some(other.clone()));
    assert_eq!(subject.store().edit(&bundle("base"), 1).unwrap(), Some(other));
}

fn there_is_one_writer(subject: impl Subject) {
    let store = subject.store();
    let batch = store.begin().unwrap();
    assert!(matches!(store.begin().err(), Some(StoreError::Busy { .. })));
    assert!(matches!(store.collect(&Retained::default()), Err(StoreError::Busy { .. })));
    drop(batch);
    drop(store.begin().unwrap());
    store.collect(&Retained::default()).unwrap();
    // A batch may be handed to another thread.
    let batch = store.begin().unwrap();
    std::thread::scope(|scope| scope.spawn(move || batch.commit(floors(1))).join()).unwrap().unwrap();
    assert_eq!(store.floors(), floors(1));
}

fn s_1_a_floor_never_goes_back(subject: impl Subject) {
    commit(subject.store(), 5, 0..3);
    let mut fork = floors(5);
    fork.release.as_mut().unwrap().hash = rootcast::id::ReleaseHash::of(b"fork");
    let mut trust = floors(6);
    trust.trust_version = 0;
    let mut head = floors(6);
    head.head_sequence = 49;
    for lower in [floors_zero(), floors(4), fork, trust, head] {
        let mut batch = subject.store().begin().unwrap();
        batch.put_release(6, record_of(6)).unwrap();
        match batch.commit(lower) {
            Err(StoreError::FloorsBack { accepted, offered }) => {
                assert_eq!((*accepted, *offered), (floors(5), lower));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(subject.store().floors(), floors(5));
        assert_eq!(subject.store().latest_release(), Some(5));
    }
    let subject = subject.reopened();
    assert_eq!(subject.store().floors(), floors(5));
    commit(subject.store(), 6, 0..3);
    assert_whole(subject.reopened().store(), 6, 0..3);
}

fn floors_alone_can_be_committed(mut subject: impl Subject) {
    // Before anything else is, and after.
    for number in [1, 2, 3] {
        let before = subject.store().stats();
        let next = rootcast::acceptance::Floors { trust_version: 7, ..floors(number) };
        subject.store().begin().unwrap().commit(next).unwrap();
        assert_eq!(subject.store().floors(), next);
        assert_eq!(subject.store().stats(), before, "and cost no space");
        subject = subject.reopened();
        assert_eq!(subject.store().floors(), next);
        let mut batch = subject.store().begin().unwrap();
        batch.put_release(number, record_of(number)).unwrap();
        batch.commit(next).unwrap();
    }
    assert_eq!(subject.reopened().store().latest_release(), Some(3));
}

fn an_object_under_a_wrong_id_is_refused_and_loses_the_batch(subject: impl Subject) {
    let store = subject.store();
    let wrong: ObjectId = BlobId::of(b"something").into();
    let mut batch = store.begin().unwrap();
    let (good, bytes) = object(1);
    batch.write(good, bytes.clone()).unwrap();
    assert_eq!(batch.write(wrong, Bytes::from_static(b"other")).unwrap_err().id, wrong);
    assert!(batch.write(good, bytes).is_err());
    assert!(batch.put_release(1, record_of(1)).is_err());
    assert!(batch.put_edit(&bundle("base"), 1, edit_of(1)).is_err());
    assert!(matches!(batch.commit(floors(1)), Err(StoreError::Mismatch { id }) if id == wrong));
    assert!(!store.contains(&wrong) && !store.contains(&good));
    assert_eq!(store.floors(), floors_zero());
    commit(store, 1, [1]);
}

fn what_is_too_large_is_refused(subject: impl Subject) {
    let (id, bytes) = blob(vec![0; MAX_OBJECT as usize + 1]);
    let mut batch = subject.store().begin().unwrap();
    assert!(batch.write(id, bytes).is_err());
    let refused = batch.commit(floors(1));
    assert!(matches!(refused, Err(StoreError::TooLarge { length, limit, .. })
        if (length, limit) == (MAX_OBJECT + 1, MAX_OBJECT)));
}

fn retained(objects: impl IntoIterator<Item = u64>, oldest: u64) -> Retained {
    Retained {
        objects: objects.into_iter().map(|n| object(n).0).collect(),
        oldest_release: oldest,
        edits: [(bundle("base"), oldest)].into(),
    }
}

fn collecting_keeps_what_is_retained_and_nothing_else(mut subject: impl Subject) {
    for number in 1..=8 {
        commit(subject.store(), number, number * 10..number * 10 + 20);
    }
    let mut batch = subject.store().begin().unwrap();
    batch.put_edit(&bundle("gone"), 9, edit_of(9)).unwrap();
    batch.commit(floors(8)).unwrap();
    let collected = subject.store().collect(&retained(50..100, 5)).unwrap();
    assert_eq!((collected.objects, collected.edits, collected.releases), (40, 5, 4));
    assert_eq!(collected.damaged, []);
    assert!(collected.bytes_freed > 0);
    for reopened in [false, true] {
        if reopened {
            subject = subject.reopened();
        }
        let store = subject.store();
        assert!((10..50).all(|n| !store.contains(&object(n).0)), "reopened: {reopened}");
        for number in 5..=8 {
            assert_whole(store, number, number * 10..number * 10 + 20);
        }
        assert!((1..5).all(|number| store.release(number).unwrap().is_none()));
        assert!((1..5).all(|number| store.edit(&bundle("base"), number).unwrap().is_none()));
        assert_eq!(store.edit(&bundle("gone"), 9).unwrap(), None);
        assert_eq!((store.oldest_release(), store.latest_release()), (Some(5), Some(8)));
        assert_eq!(store.floors(), floors(8));
        assert_eq!(store.stats().objects, 50);
    }
    commit(subject.store(), 9, 90..110);
    assert_whole(subject.reopened().store(), 9, 90..110);
}

fn collecting_again_and_again_changes_nothing_more(subject: impl Subject) {
    for number in 1..=6 {
        commit(subject.store(), number, number * 10..number * 10 + 20);
    }
    let keep = retained(30..80, 3);
    subject.store().collect(&keep).unwrap();
    // What a first collection left for later may still be given back.
    subject.store().collect(&keep).unwrap();
    let before = subject.store().stats();
    for _ in 0..3 {
        assert_eq!(subject.store().collect(&keep).unwrap(), Default::default());
        assert_eq!(subject.store().stats(), before);
    }
}

fn everything_can_be_collected(subject: impl Subject) {
    commit(subject.store(), 1, 0..50);
    let nothing = Retained { oldest_release: u64::MAX, ..Retained::default() };
    let collected = subject.store().collect(&nothing).unwrap();
    assert_eq!((collected.objects, collected.edits, collected.releases), (50, 1, 1));
    let subject = subject.reopened();
    assert_eq!(subject.store().stats().bytes_raw, 0);
    assert_eq!(subject.store().floors(), floors(1), "the floors stay");
    commit(subject.store(), 2, 0..5);
    assert_whole(subject.reopened().store(), 2, 0..5);
}

fn what_was_collected_can_be_put_again(mut subject: impl Subject) {
    for number in 1..=6 {
        commit(subject.store(), number, 0..60);
        subject.store().collect(&retained(20..60, number)).unwrap();
        subject = subject.reopened();
        assert!(!subject.store().contains(&object(19).0), "round {number}");
        assert_whole(subject.store(), number, 20..60);
    }
}

fn verify_finds_a_sound_store_sound(subject: impl Subject) {
    commit(subject.store(), 1, 0..50);
    commit(subject.store(), 2, 50..60);
    let subject = subject.reopened();
    let mut calls = Vec::new();
    let found = subject.store().verify(&mut |done, total| calls.push((done, total))).unwrap();
    assert_eq!(found, []);
    let (done, total) = *calls.last().unwrap();
    assert!(done == total && total > 0 && calls.is_sorted());
}
