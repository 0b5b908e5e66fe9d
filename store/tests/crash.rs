//! Power cuts and kills, simulated by what they leave on disk (threat 25).

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests of what does I/O
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a panic is a failed test

mod common;

use common::{Files, SMALL, assert_whole, commit, file, files_of, floors, put_files};
use rootcast_store::{Bounds, DiskStore, Retained, Store};
use std::path::Path;

const FIRST: core::ops::Range<u64> = 0..6;
const SECOND: core::ops::Range<u64> = 6..30;
const PACK: &str = "pack-00000001";

/// A store before and after its second commit, of several parts, and where the commit lies.
fn before_and_after(dir: &Path) -> (Files, Files, core::ops::Range<usize>) {
    let bounds = Bounds { segment: 1 << 20, ..SMALL };
    let store = DiskStore::open_with(dir, bounds).unwrap();
    commit(&store, 1, FIRST);
    let (before, start) = (files_of(dir), common::end_of_only_pack(&store));
    commit(&store, 2, SECOND);
    let (after, end) = (files_of(dir), common::end_of_only_pack(&store));
    (before, after, start..end)
}

fn assert_old(store: &dyn Store) {
    assert_eq!(store.floors(), floors(1));
    assert_eq!(store.latest_release(), Some(1));
    assert_whole(store, 1, FIRST);
    assert!(SECOND.clone().all(|n| !store.contains(&common::object(n).0)));
}

fn assert_new(store: &dyn Store) {
    assert_eq!(store.floors(), floors(2));
    assert_eq!(store.latest_release(), Some(2));
    assert_whole(store, 1, FIRST);
    assert_whole(store, 2, SECOND);
}

/// Opens what is in `dir` as a reader, and as a writer if asked, which then commits again.
fn assert_recovers(dir: &Path, is_new: bool, as_writer: bool) {
    let check = |store: &dyn Store| if is_new { assert_new(store) } else { assert_old(store) };
    let reader = DiskStore::open_read_only(dir).unwrap();
    check(&reader);
    assert_eq!(reader.found_at_open(), [], "a crash is no damage");
    if !as_writer {
        return;
    }
    let store = DiskStore::open_with(dir, SMALL).unwrap();
    check(&store);
    if store.stats().files == 1 {
        // Parts of a torn batch that stay behind could be found by a later search.
        let length = std::fs::metadata(dir.join(PACK)).unwrap().len();
        assert_eq!(length, store.stats().bytes_on_disk, "what is torn is cut off");
    }
    commit(&store, 2, SECOND);
    assert_new(&store);
    drop(store);
    let store = DiskStore::open_with(dir, SMALL).unwrap();
    assert_new(&store);
    assert_eq!(store.found_at_open(), []);
    assert_eq!(store.verify(&mut |_, _| ()).unwrap(), []);
}

#[test]
fn threat_25_a_commit_cut_at_any_byte_is_old_or_new() {
    let home = common::scratch();
    let (before, after, batch) = before_and_after(&home.path().join("store"));
    let dir = home.path().join("copy");
    let pack = file(&mut after.clone(), PACK).clone();
    let last = pack[..batch.end].iter().rposition(|byte| *byte != 0).unwrap();
    for cut in batch.start..=batch.end {
        let as_writer = cut % 101 == 0 || cut + 2 > batch.end;
        let mut short = before.clone();
        *file(&mut short, PACK) = pack[..cut].to_vec();
        put_files(&dir, &short);
        assert_recovers(&dir, cut == batch.end, as_writer);
        // The file has its size already, and the rest of its blocks never came.
        let mut hollow = before.clone();
        *file(&mut hollow, PACK) = pack.clone();
        file(&mut hollow, PACK)[cut..].fill(0);
        put_files(&dir, &hollow);
        assert_recovers(&dir, cut > last, as_writer);
    }
}

#[test]
fn threat_25_blocks_that_came_out_of_order_are_old_or_new() {
    let home = common::scratch();
    let (before, after, batch) = before_and_after(&home.path().join("store"));
    let dir = home.path().join("copy");
    let pack = file(&mut after.clone(), PACK).clone();
    // A hole anywhere in the batch, the bytes behind it there: disks do not write in order.
    let hole = 64;
    for from in batch.clone().step_by(hole / 2) {
        let mut holed = pack.clone();
        let hole = from..(from + hole).min(batch.end);
        let unchanged = holed[hole.clone()].iter().all(|byte| *byte == 0);
        holed[hole].fill(0);
        let mut files = before.clone();
        *file(&mut files, PACK) = holed;
        put_files(&dir, &files);
        assert_recovers(&dir, unchanged, from % 5 == 0);
    }
}

#[test]
fn threat_25_a_torn_floors_slot_is_new_because_the_pack_says_so() {
    let home = common::scratch();
    let (before, after, _) = before_and_after(&home.path().join("store"));
    let dir = home.path().join("copy");
    let (old, new) =
        (file(&mut before.clone(), "floors").clone(), file(&mut after.clone(), "floors").clone());
    let changed: Vec<usize> = (0..new.len()).filter(|at| old[*at] != new[*at]).collect();
    assert!(!changed.is_empty());
    for cut in changed {
        let mut files = after.clone();
        *file(&mut files, "floors") = [&new[..cut], &old[cut..]].concat();
        put_files(&dir, &files);
        let store = DiskStore::open_with(&dir, SMALL).unwrap();
        assert_new(&store);
        drop(store);
        let store = DiskStore::open_with(&dir, SMALL).unwrap();
        assert_eq!(store.found_at_open(), [], "the slot was made whole");
        assert_new(&store);
    }
}

#[test]
fn threat_25_a_crash_while_a_pack_or_the_store_is_created() {
    let home = common::scratch();
    let (before, _, _) = before_and_after(&home.path().join("store"));
    let dir = home.path().join("copy");
    for length in [0, 1, 71, 72, 100] {
        let mut files = before.clone();
        files.push(("pack-00000002".into(), vec![7; length]));
        files.push(("floors.new".into(), vec![7; length]));
        put_files(&dir, &files);
        assert_recovers(&dir, false, true);
        let new_store: Files = vec![("LOCK".into(), vec![]), ("floors.new".into(), vec![7; length])];
        put_files(&dir, &new_store);
        let store = DiskStore::open(&dir).unwrap();
        assert_eq!((store.found_at_open(), store.floors()), (&[][..], Default::default()));
    }
}

/// The state of the directory at each step of a collection: the new pack in
/// all its lengths, then without the old packs, one after the other.
#[test]
fn threat_25_a_collection_cut_anywhere_keeps_what_is_retained() {
    let home = common::scratch();
    let (dir, copy) = (home.path().join("store"), home.path().join("copy"));
    let bounds = Bounds { collect_whole: 1 << 20, ..SMALL };
    let store = DiskStore::open_with(&dir, bounds).unwrap();
    for number in 1..=4 {
        commit(&store, number, number * 20..number * 20 + 20);
    }
    let before = files_of(&dir);
    let retained = Retained {
        objects: (60..100).map(|n| common::object(n).0).collect(),
        oldest_release: 3,
        edits: [(common::bundle("base"), 3)].into(),
    };
    store.collect(&retained).unwrap();
    let after = files_of(&dir);
    let names = |files: &Files| -> Vec<String> { files.iter().map(|(name, _)| name.clone()).collect() };
    let gone: Vec<String> = names(&before).into_iter().filter(|name| !names(&after).contains(name)).collect();
    assert!(gone.len() >= 2, "{gone:?}");
    let check = |files: &Files, as_writer: bool| {
        put_files(&copy, files);
        let check = |store: &dyn Store| {
            assert_eq!(store.floors(), floors(4));
            assert_whole(store, 3, 60..80);
            assert_whole(store, 4, 80..100);
        };
        let reader = DiskStore::open_read_only(&copy).unwrap();
        assert_eq!(reader.found_at_open(), []);
        check(&reader);
        if as_writer {
            let store = DiskStore::open_with(&copy, bounds).unwrap();
            check(&store);
            store.collect(&retained).unwrap();
            check(&store);
            commit(&store, 5, 100..110);
            assert!(store.release(2).unwrap().is_none());
        }
    };
    let (name, pack) = after.iter().find(|(name, _)| !names(&before).contains(name)).unwrap();
    let end = pack.iter().rposition(|byte| *byte != 0).unwrap();
    for cut in (0..end).step_by(97) {
        let mut files = before.clone();
        files.push((name.clone(), pack[..cut].to_vec()));
        check(&files, cut % 5 == 0);
    }
    for unlinked in 0..=gone.len() {
        let mut files = after.clone();
        files.extend(before.iter().filter(|(name, _)| gone[unlinked..].contains(name)).cloned());
        check(&files, true);
    }
}

#[test]
fn a_second_writer_is_locked_out_and_a_reader_is_not() {
    let home = common::scratch();
    let store = DiskStore::open(home.path()).unwrap();
    commit(&store, 1, 0..3);
    let second = DiskStore::open(home.path());
    assert!(matches!(second, Err(rootcast_store::StoreError::Locked { .. })), "{second:?}");
    let reader = DiskStore::open_read_only(home.path()).unwrap();
    assert_whole(&reader, 1, 0..3);
    assert!(matches!(reader.begin().err(), Some(rootcast_store::StoreError::ReadOnly { .. })));
    drop(store);
    DiskStore::open(home.path()).unwrap();
    let missing = DiskStore::open_read_only(home.path().join("nothing"));
    assert!(matches!(missing, Err(rootcast_store::StoreError::Io { .. })));
}
