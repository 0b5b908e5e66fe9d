//! Power cuts: what was synced stays; of the rest any part may be there (threat 25).
//!
//! Every change of a store's files is written down while it runs. Then, for each
//! moment between two changes, states of the disk are made up that a power cut
//! at that moment could leave, and the store is opened on each. Of writes that
//! were not synced each may be there whole, in its first sectors, or not at all; of names
//! that were not synced those of the first so many changes are there, as journals of file systems have it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

#[path = "../../../tests/common/mod.rs"]
mod common;

use crate::{DiskStore, Retained, Store};
use common::{Files, SMALL, assert_whole, bundle, commit, floors, object, put_files};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A change of the disk, or what a test has to say of that moment.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    Cut(PathBuf, u64),
    Allocate(PathBuf, u64),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncNames,
    /// A commit returned: this release and this sequence of a head are durable from here on.
    Durable(u64, u64),
    /// From here on only what belongs to the newest release is kept.
    Collecting,
}

thread_local! {
    static NOTED: RefCell<Option<Vec<Change>>> = const { RefCell::new(None) };
}

pub(super) fn note(change: Change) {
    NOTED.with_borrow_mut(|noted| noted.iter_mut().for_each(|noted| noted.push(change.clone())));
}

/// Repeatable chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Unsynced {
    Lost,
    Kept,
    Chance,
}

/// A file: what was synced of it, and what was done to it since.
#[derive(Debug, Default, Clone)]
struct Contents {
    synced: Vec<u8>,
    since: Vec<Change>,
}

impl Contents {
    fn settle(&mut self, rule: Unsynced, chance: &mut Chance) {
        for change in std::mem::take(&mut self.since) {
            let keeps = match rule {
                Unsynced::Lost => 0,
                Unsynced::Kept => 2,
                Unsynced::Chance => chance.below(3),
            };
            match change {
                _ if keeps == 0 => {}
                Change::Write(_, offset, bytes) => {
                    let sectors = bytes.len().div_ceil(512) as u64;
                    let part = if keeps == 2 { sectors } else { chance.below(sectors) };
                    let end = bytes.len().min(part as usize * 512);
                    let at = offset as usize;
                    if end > 0 {
                        self.synced.resize(self.synced.len().max(at + end), 0);
                        self.synced[at..at + end].copy_from_slice(&bytes[..end]);
                    }
                }
                Change::Cut(_, size) => self.synced.resize(size as usize, 0),
                Change::Allocate(_, end) => self.synced.resize(self.synced.len().max(end as usize), 0),
                other => unreachable!("{other:?} is no change of contents"),
            }
        }
    }
}

/// The files that a power cut after `changes` leaves.
fn after(changes: &[Change], rule: Unsynced, chance: &mut Chance) -> Files {
    let mut contents: Vec<Contents> = Vec::new();
    // By name, now; what the names were when they were last synced and each time since.
    let mut names: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut before = vec![names.clone()];
    for change in changes {
        match change {
            Change::Create(path) => {
                // Emptied where it was there: only drafts are, which nobody reads.
                names.insert(path.clone(), contents.len());
                contents.push(Contents::default());
                before.push(names.clone());
            }
            Change::Write(path, ..) | Change::Cut(path, _) | Change::Allocate(path, _) => {
                contents[names[path]].since.push(change.clone());
            }
            Change::Sync(path) => contents[names[path]].settle(Unsynced::Kept, chance),
            Change::Rename(from, to) => {
                let moved = names.remove(from).unwrap();
                names.insert(to.clone(), moved);
                before.push(names.clone());
            }
            Change::Remove(path) => {
                names.remove(path).unwrap();
                before.push(names.clone());
            }
            Change::SyncNames => before = vec![names.clone()],
            Change::Durable(..) | Change::Collecting => {}
        }
    }
    let there = match rule {
        Unsynced::Lost => 0,
        Unsynced::Kept => before.len() - 1,
        Unsynced::Chance => chance.below(before.len() as u64) as usize,
    };
    contents.iter_mut().for_each(|contents| contents.settle(rule, chance));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    before[there].iter().map(|(path, inode)| (name(path), contents[*inode].synced.clone())).collect()
}

fn objects_of(release: u64) -> core::ops::Range<u64> {
    release * 20..release * 20 + 3 + release * 5 % 17
}

/// Commits that append, spill, roll over to a new pack and change floors only; then a collection.
fn run(dir: &Path) -> Vec<Change> {
    NOTED.set(Some(Vec::new()));
    let store = DiskStore::open_with(dir, SMALL).unwrap();
    for release in 1..=6 {
        commit(&store, release, objects_of(release));
        note(Change::Durable(release, floors(release).head_sequence));
        let mut head = floors(release);
        head.head_sequence += 1;
        store.begin().unwrap().commit(head).unwrap();
        note(Change::Durable(release, head.head_sequence));
    }
    note(Change::Collecting);
    let retained = Retained {
        objects: objects_of(6).map(|n| object(n).0).collect(),
        oldest_release: 6,
        edits: [(bundle("base"), 6)].into(),
    };
    store.collect(&retained).unwrap();
    commit(&store, 7, objects_of(7));
    note(Change::Durable(7, floors(7).head_sequence));
    drop(store);
    NOTED.take().unwrap()
}

/// What is in the store after a power cut: the last release that was durable, or the one on its way.
fn check(dir: &Path, (durable, head): (u64, u64), collecting: bool) -> u64 {
    let store = DiskStore::open_with(dir, SMALL).unwrap();
    let held = store.latest_release().unwrap_or(0);
    assert!(held == durable || held == durable + 1, "release {held} after {durable} was durable");
    assert_eq!(store.floors().number(), held);
    assert!(store.floors().head_sequence >= head, "floors went back");
    let whole = if collecting { held.min(6)..=held } else { 1..=held };
    for release in whole.filter(|release| *release > 0) {
        assert_whole(&store, release, objects_of(release));
    }
    assert_eq!(store.verify(&mut |_, _| ()).unwrap(), []);
    // And it goes on from there.
    commit(&store, held + 1, objects_of(held + 1));
    drop(store);
    let store = DiskStore::open_with(dir, SMALL).unwrap();
    assert_whole(&store, held + 1, objects_of(held + 1));
    held
}

#[test]
fn threat_25_a_power_cut_at_any_moment_leaves_what_was_durable() {
    let home = common::scratch();
    let changes = run(&home.path().join("store"));
    assert!(
        changes.iter().any(|change| matches!(change, Change::Remove(_))),
        "the collection removed a pack"
    );
    let dir = home.path().join("copy");
    let mut seen = BTreeMap::<u64, u64>::new();
    for moment in 0..=changes.len() {
        let done = &changes[..moment];
        let durable = done.iter().rev().find_map(|change| match change {
            Change::Durable(release, head) => Some((*release, *head)),
            _ => None,
        });
        let durable = durable.unwrap_or_default();
        let collecting = done.iter().any(|change| matches!(change, Change::Collecting));
        let chances = [Unsynced::Chance; 4];
        for (turn, rule) in [Unsynced::Lost, Unsynced::Kept].iter().chain(&chances).enumerate() {
            let mut chance = Chance(moment as u64 * 100 + turn as u64);
            let files = after(done, *rule, &mut chance);
            put_files(&dir, &files);
            let outcome = std::panic::catch_unwind(|| check(&dir, durable, collecting));
            let held = outcome.unwrap_or_else(|_| {
                let last = done.iter().rev().take(6).collect::<Vec<_>>();
                panic!("after {moment} changes, rule {rule:?}, turn {turn}: the last were {last:?}")
            });
            *seen.entry(held).or_default() += 1;
        }
    }
    assert_eq!(
        seen.keys().copied().collect::<Vec<_>>(),
        (0..=7).collect::<Vec<_>>(),
        "every release was seen"
    );
}
