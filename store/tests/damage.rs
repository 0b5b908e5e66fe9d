//! Bytes that change on disk (threat 26): nothing wrong is ever returned, what
//! is damaged is named, floors stay, and writing it again heals it.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests of what does I/O
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a panic is a failed test

mod common;

use common::{
    Files, SMALL, assert_whole, bundle, commit, edit_of, file, files_of, floors, object, put_files, record_of,
};
use rootcast::object::{ObjectSource, ReadError};
use rootcast_store::{Bounds, Damage, DiskStore, RecordId, Retained, Store, StoreError};
use std::fs;
use std::path::Path;

const PACK: &str = "pack-00000001";
const BOUNDS: Bounds = Bounds { segment: 1 << 20, ..SMALL };

/// Two releases of ten objects in one pack; its files, and where the pack ends.
fn small_store(dir: &Path) -> (Files, usize) {
    let store = DiskStore::open_with(dir, BOUNDS).unwrap();
    commit(&store, 1, 0..4);
    commit(&store, 2, 4..10);
    (files_of(dir), common::end_of_only_pack(&store))
}

/// Reads everything: right, absent or refused, never wrong. Whether all of it was right.
fn read_all(store: &dyn Store) -> bool {
    let mut right = true;
    for (id, bytes) in (0..10).map(object) {
        match store.read(&id) {
            Ok(read) => assert_eq!(read, bytes),
            Err(ReadError::Missing(_) | ReadError::Damaged(_)) => {
                right = false;
                assert!(!store.contains(&id));
            }
            Err(other) => panic!("{other}"),
        }
    }
    for number in 1..=2 {
        let (release, edit) = (store.release(number), store.edit(&bundle("base"), number));
        for (read, wanted) in [(release, record_of(number)), (edit, edit_of(number))] {
            match read {
                Ok(Some(read)) => assert_eq!(read, wanted),
                Ok(None) | Err(StoreError::Damaged { .. }) => right = false,
                Err(other) => panic!("{other}"),
            }
        }
    }
    right
}

fn retain_all() -> Retained {
    Retained {
        objects: (0..10).map(|n| object(n).0).collect(),
        oldest_release: 1,
        edits: [(bundle("base"), 1)].into(),
    }
}

/// Writes everything again, collects, and expects a store without a flaw.
fn assert_heals(dir: &Path) {
    let store = DiskStore::open_with(dir, BOUNDS).unwrap();
    assert_eq!(store.floors(), floors(2));
    read_all(&store);
    commit(&store, 2, 0..10);
    let mut batch = store.begin().unwrap();
    batch.put_release(1, record_of(1)).unwrap();
    batch.put_edit(&bundle("base"), 1, edit_of(1)).unwrap();
    batch.commit(floors(2)).unwrap();
    assert!(read_all(&store));
    drop(store);
    let store = DiskStore::open_with(dir, BOUNDS).unwrap();
    assert!(read_all(&store));
    // Marks for rewriting what no record that can be seen lies in any more.
    store.verify(&mut |_, _| ()).unwrap();
    store.collect(&retain_all()).unwrap();
    assert!(read_all(&store));
    assert_eq!(store.verify(&mut |_, _| ()).unwrap(), []);
    drop(store);
    let store = DiskStore::open_with(dir, BOUNDS).unwrap();
    assert_eq!((store.found_at_open(), store.floors()), (&[][..], floors(2)));
    assert!(read_all(&store));
}

#[test]
fn threat_26_any_byte_of_a_pack_flipped_is_found_and_never_returned() {
    let home = common::scratch();
    let (files, end) = small_store(&home.path().join("store"));
    let dir = home.path().join("copy");
    put_files(&dir, &files);
    let pack = file(&mut files.clone(), PACK).clone();
    for at in 0..end {
        let mut bytes = pack.clone();
        bytes[at] ^= if at % 2 == 0 { 0xff } else { 1 << (at % 8) };
        fs::write(dir.join(PACK), &bytes).unwrap();
        let store = DiskStore::open_read_only(&dir).unwrap();
        assert_eq!(store.floors(), floors(2), "flip at {at}");
        let right = read_all(&store);
        let mut found = store.verify(&mut |_, _| ()).unwrap();
        found.extend_from_slice(store.found_at_open());
        assert!(!found.is_empty(), "flip at {at} of {end} was not found; all right: {right}");
        if at % 97 == 0 {
            put_files(&dir, &files);
            fs::write(dir.join(PACK), &bytes).unwrap();
            assert_heals(&dir);
            put_files(&dir, &files);
        }
    }
}

#[test]
fn threat_26_any_byte_of_the_floors_file_flipped_takes_no_floor_back() {
    let home = common::scratch();
    let dir = home.path().join("store");
    let (_, _) = small_store(&dir);
    // The newest floors are in no pack, so only the slots hold them.
    let store = DiskStore::open_with(&dir, BOUNDS).unwrap();
    let newest = rootcast::acceptance::Floors { head_sequence: 99, ..floors(2) };
    store.begin().unwrap().commit(newest).unwrap();
    drop(store);
    let good = fs::read(dir.join("floors")).unwrap();
    for at in (0..176).chain(4096..4272) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(dir.join("floors"), &bytes).unwrap();
        let store = DiskStore::open_read_only(&dir).unwrap();
        assert_eq!(store.floors(), newest, "flip at {at}");
        assert_eq!(store.found_at_open().len(), 1);
        assert_eq!(store.verify(&mut |_, _| ()).unwrap(), store.found_at_open());
        assert!(read_all(&store));
        if at % 40 == 0 {
            let store = DiskStore::open_with(&dir, BOUNDS).unwrap();
            assert_eq!((store.floors(), store.found_at_open().len()), (newest, 1));
            assert_eq!(store.verify(&mut |_, _| ()).unwrap(), [], "opening made it whole");
        }
    }
}

#[test]
fn threat_26_without_any_floors_slot_the_packs_say_the_floors() {
    let home = common::scratch();
    let (files, _) = small_store(&home.path().join("store"));
    let dir = home.path().join("copy");
    for lost in [Some(vec![0; 8192]), Some(vec![0xff; 100]), Some(vec![]), None] {
        put_files(&dir, &files);
        match &lost {
            Some(bytes) => fs::write(dir.join("floors"), bytes).unwrap(),
            None => fs::remove_file(dir.join("floors")).unwrap(),
        }
        let store = DiskStore::open_with(&dir, BOUNDS).unwrap();
        assert_eq!(store.floors(), floors(2));
        assert!(read_all(&store));
        assert!(matches!(store.found_at_open(), [Damage::Region { .. }, ..]));
        drop(store);
        assert_heals(&dir);
    }
}

#[test]
fn threat_26_a_pack_that_is_gone_leaves_the_floors() {
    let home = common::scratch();
    let (files, end) = small_store(&home.path().join("store"));
    let dir = home.path().join("copy");
    for left in [None, Some(0), Some(50), Some(72), Some(end / 2), Some(end - 1)] {
        put_files(&dir, &files);
        match left {
            None => fs::remove_file(dir.join(PACK)).unwrap(),
            Some(length) => {
                let short = file(&mut files.clone(), PACK)[..length].to_vec();
                fs::write(dir.join(PACK), short).unwrap();
            }
        }
        let store = DiskStore::open_with(&dir, BOUNDS).unwrap();
        assert_eq!(store.floors(), floors(2));
        assert!(!store.found_at_open().is_empty(), "{left:?}");
        assert!(!read_all(&store));
        drop(store);
        assert_heals(&dir);
    }
}

#[test]
fn threat_26_damage_under_an_open_store_is_found_named_and_healed() {
    let home = common::scratch();
    let (_, end) = small_store(home.path());
    let store = DiskStore::open_with(home.path(), BOUNDS).unwrap();
    let path = home.path().join(PACK);
    let mut bytes = fs::read(&path).unwrap();
    // Everything after the header of the pack: no record and no table is left.
    bytes[72..end].fill(0xaa);
    fs::write(&path, &bytes).unwrap();
    let (id, raw) = object(7);
    assert!(store.contains(&id), "it cannot know yet");
    assert_eq!(store.read(&id), Err(ReadError::Damaged(id)));
    assert!(!store.contains(&id), "now it does");
    let found = store.verify(&mut |_, _| ()).unwrap();
    for record in (0..10).map(|n| RecordId::Object(object(n).0)).chain([
        RecordId::Release(1),
        RecordId::Release(2),
        RecordId::Edit { bundle: bundle("base"), sequence: 1 },
        RecordId::Edit { bundle: bundle("base"), sequence: 2 },
    ]) {
        assert!(found.contains(&Damage::Record(record.clone())), "{record}");
    }
    assert!(found.iter().any(|damage| matches!(damage, Damage::Region { .. })));
    // Part of it is written again; a collection drops and lists the rest.
    let mut batch = store.begin().unwrap();
    batch.write(id, raw.clone()).unwrap();
    batch.commit(floors(2)).unwrap();
    assert_eq!(store.read(&id), Ok(raw));
    let collected = store.collect(&retain_all()).unwrap();
    assert_eq!(collected.damaged.len(), 13);
    assert_eq!(store.verify(&mut |_, _| ()).unwrap(), []);
    assert_eq!((store.stats().objects, store.latest_release()), (1, None));
    assert_eq!(store.floors(), floors(2));
    commit(&store, 3, 0..10);
    drop(store);
    let store = DiskStore::open_with(home.path(), BOUNDS).unwrap();
    assert_eq!(store.found_at_open(), []);
    assert_whole(&store, 3, 0..10);
}

/// A stranger's content that looks like a part, at the very place where it
/// would be one, is not taken for one: the check needs the store's own key.
#[test]
fn s_6_content_cannot_pass_for_a_part() {
    let home = common::scratch();
    let other = home.path().join("other");
    let forger = DiskStore::open_with(&other, BOUNDS).unwrap();
    commit(&forger, 9, 0..1);
    let end = common::end_of_only_pack(&forger);
    let forged = fs::read(other.join(PACK)).unwrap()[72..end].to_vec();
    let dir = home.path().join("store");
    small_store(&dir);
    // The whole of the pack after its header is the stranger's, and what it says is not read.
    let mut pack = fs::read(dir.join(PACK)).unwrap();
    pack[72..72 + forged.len()].copy_from_slice(&forged);
    fs::write(dir.join(PACK), pack).unwrap();
    let store = DiskStore::open_with(&dir, BOUNDS).unwrap();
    assert_eq!(store.floors(), floors(2));
    assert_eq!(store.release(9).unwrap(), None);
    assert!(!store.found_at_open().is_empty());
}

/// A bit of the last batch that changed after its sync looks like a torn write,
/// and is none: the mark says that it was synced, so only one record is lost.
#[test]
fn s_11_damage_in_the_last_batch_costs_one_record_and_not_the_batch() {
    let home = common::scratch();
    let (mut files, _) = small_store(&home.path().join("store"));
    let dir = home.path().join("copy");
    let (record, pack) = (record_of(2), file(&mut files, PACK));
    let at = pack.windows(record.len()).position(|window| window == record).unwrap();
    pack[at] ^= 1;
    put_files(&dir, &files);
    let store = DiskStore::open_with(&dir, BOUNDS).unwrap();
    assert_eq!((store.found_at_open(), store.floors()), (&[][..], floors(2)));
    assert!((0..10).all(|n| store.contains(&object(n).0)));
    assert_eq!(store.edit(&bundle("base"), 2).unwrap(), Some(edit_of(2)));
    assert!(matches!(store.release(2), Err(StoreError::Damaged { record: RecordId::Release(2), .. })));
    assert_eq!(store.verify(&mut |_, _| ()).unwrap(), [Damage::Record(RecordId::Release(2))]);
}

#[test]
fn s_21_files_that_are_deleted_under_an_open_store_are_put_back_by_a_look_or_by_the_next_batch() {
    let remove: [fn(&Path); 4] = [
        |dir| fs::remove_dir_all(dir).unwrap(),
        |dir| files_of(dir).into_iter().for_each(|(name, _)| fs::remove_file(dir.join(name)).unwrap()),
        |dir| fs::remove_file(dir.join(PACK)).unwrap(),
        |dir| fs::remove_file(dir.join("floors")).unwrap(),
    ];
    for remove in remove {
        for by_look in [true, false] {
            let parent = tempfile::tempdir().unwrap();
            let dir = parent.path().join("store");
            let store = DiskStore::open_with(&dir, BOUNDS).unwrap();
            commit(&store, 1, 0..4);
            assert!(!store.put_back().unwrap(), "nothing is gone");
            remove(&dir);
            if by_look {
                assert!(store.put_back().unwrap() && !store.put_back().unwrap());
                assert!(matches!(DiskStore::open(&dir), Err(StoreError::Locked { .. })));
            }
            commit(&store, 2, 4..10);
            assert!(read_all(&store));
            drop(store);
            let again = DiskStore::open_with(&dir, BOUNDS).unwrap();
            assert!(again.found_at_open().is_empty() && read_all(&again));
            assert_eq!(again.floors().number(), 2);
        }
    }
}
