//! No room, at every step (threat 25). The kernel's own limit on file sizes
//! stands for a full disk: it fails the same calls at the same places, partial
//! writes included. The limit holds for a whole process, so a child runs it.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests of what does I/O
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a panic is a failed test

mod common;

use common::{SMALL, assert_whole, commit, edit_of, floors, object, record_of};
use rootcast_store::{Bounds, DiskStore, Retained, Store, StoreError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::Command;

const CHILD: &str = "ROOTCAST_STORE_TEST_FULL_DISK";

/// Runs `step` while no file may grow beyond, or be written beyond, `bytes`.
fn with_room<T>(bytes: u64, step: impl FnOnce() -> T) -> T {
    let before = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(bytes), ..before }).unwrap();
    let outcome = step();
    setrlimit(Resource::Fsize, before).unwrap();
    outcome
}

fn try_commit(store: &dyn Store, number: u64, objects: core::ops::Range<u64>) -> Result<(), StoreError> {
    let mut batch = store.begin()?;
    for (id, bytes) in objects.map(object) {
        // The commit says why.
        let _ = batch.write(id, bytes);
    }
    let _ = batch.put_edit(&common::bundle("base"), number, edit_of(number));
    let _ = batch.put_release(number, record_of(number));
    batch.commit(floors(number))
}

/// One commit and one collection with room for `bytes`; whether both had enough.
fn run_with(bytes: u64, bounds: Bounds) -> bool {
    let home = common::scratch();
    let store = DiskStore::open_with(home.path(), bounds).unwrap();
    commit(&store, 1, 0..10);
    let assert_old = |store: &dyn Store| {
        assert_eq!((store.floors(), store.latest_release()), (floors(1), Some(1)));
        assert_whole(store, 1, 0..10);
        assert_eq!(store.stats().objects, 10);
    };
    let committed = with_room(bytes, || try_commit(&store, 2, 10..40));
    match &committed {
        Ok(()) => assert_whole(&store, 2, 10..40),
        Err(StoreError::DiskFull { .. }) => {
            assert_old(&store);
            assert_old(&DiskStore::open_read_only(home.path()).unwrap());
            // With room again the same handle goes on.
            commit(&store, 2, 10..40);
        }
        Err(other) => panic!("{other}"),
    }
    let retained = Retained {
        objects: (10..40).map(|n| object(n).0).collect(),
        oldest_release: 2,
        edits: [(common::bundle("base"), 2)].into(),
    };
    let collected = with_room(bytes, || store.collect(&retained));
    match &collected {
        Ok(_) => assert!(!store.contains(&object(0).0)),
        Err(StoreError::DiskFull { .. }) => {
            assert_whole(&store, 1, 0..10);
            store.collect(&retained).unwrap();
        }
        Err(other) => panic!("{other}"),
    }
    drop(store);
    let store = DiskStore::open_with(home.path(), bounds).unwrap();
    assert_eq!((store.found_at_open(), store.floors()), (&[][..], floors(2)));
    assert_whole(&store, 2, 10..40);
    assert_eq!(store.verify(&mut |_, _| ()).unwrap(), []);
    committed.is_ok() && collected.is_ok()
}

fn child() {
    let one_pack = Bounds { spool: 1 << 20, segment: 1 << 20, collect_whole: 1 << 20 };
    let many = Bounds { collect_whole: 1 << 20, ..SMALL };
    let spilling = Bounds { segment: 1 << 20, ..many };
    for bounds in [one_pack, many, spilling] {
        let limits = (0..9000).step_by(211).chain([4095, 4096, 4097, 4256]);
        let enough = limits.filter(|bytes| run_with(*bytes, bounds)).count();
        assert!(enough > 0, "the sweep reaches where there is room");
        assert!(!run_with(0, bounds), "and where there is none");
    }
}

#[test]
fn threat_25_a_full_disk_at_any_step_leaves_the_old_state_usable() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    // The signal that comes with the limit would end the process; ignored, it stays ignored after exec.
    let test = "threat_25_a_full_disk_at_any_step_leaves_the_old_state_usable";
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
