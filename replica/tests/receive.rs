//! Taking in updates, good and bad, without a network (threats 6 and 8).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks and sockets are what is tested

mod support;

use bytes::Bytes;
use rootcast::acceptance::Refusal;
use rootcast::codec;
use rootcast::compact::{Before, CompactHead};
use rootcast::id::ReleaseHash;
use rootcast::limits::MAX_FRAME;
use rootcast::protocol::{EditBase, Interest, ListedBundle, UpdateHead, UpdateMessage};
use rootcast::reader::Reader;
use rootcast_replica::{Pushed, Received, Replica, ReplicaError, Rule, Update};
use rootcast_store::{DiskStore, MemoryStore};
use std::sync::Arc;
use support::*;

/// A replica that must stay where it is, whatever is offered, and then go on.
struct Steady<'a> {
    replica: Arc<Replica>,
    fresh: Box<dyn Fn() -> Arc<Replica> + 'a>,
    good: Update,
    /// What it holds once it took `good`.
    after: Arc<Replica>,
}

impl<'a> Steady<'a> {
    fn new(fresh: impl Fn() -> Arc<Replica> + 'a, good: Update) -> Self {
        let after = fresh();
        after.receive(&good, &Interest::All, Rule::Follow).unwrap();
        Self { replica: fresh(), fresh: Box::new(fresh), good, after }
    }

    /// Offers it to the replica. What is taken, where nothing that is signed or
    /// hashed was touched, must be the very same as the good one. True if refused.
    fn offer(&self, update: &Update) -> bool {
        let before = state(&self.replica);
        match self.replica.receive(update, &Interest::All, Rule::Follow) {
            Err(_) => {
                assert_eq!(state(&self.replica), before);
                true
            }
            Ok(_) => {
                assert_eq!(state(&self.replica), state(&self.after), "a changed update gave something else");
                assert_eq!(needed(&self.replica), needed(&self.after));
                false
            }
        }
    }

    /// As [`Steady::offer`], by a replica of its own where it is taken.
    fn flipped(&mut self, update: &Update) -> bool {
        let refused = self.offer(update);
        if !refused {
            self.replica = (self.fresh)();
        }
        refused
    }

    fn take_good(&self) {
        let taken = self.replica.receive(&self.good, &Interest::All, Rule::Follow).unwrap();
        assert!(matches!(taken, Received::Held(_)));
        assert_eq!(state(&self.replica), state(&self.after));
        assert_eq!(needed(&self.replica), needed(&self.after));
        assert_eq!(self.replica.refused(), 0, "what is not signed is no evidence");
    }
}

fn flip(bytes: &Bytes, at: usize, bit: u8) -> Bytes {
    let mut changed = bytes.to_vec();
    changed[at] ^= 1 << bit;
    changed.into()
}

/// What may change without harm: it is neither signed nor hashed, and nothing follows from it here.
fn harmless(head: &UpdateHead, good: &UpdateHead) -> bool {
    let strip = |head: &UpdateHead| {
        let mut head = UpdateHead { subscription: 0, keep_others: true, ..head.clone() };
        for edit in head.listed.iter_mut().filter_map(|listed| listed.edit.as_mut()) {
            // A false length ends the stream badly; a false base gives another root, or the same.
            (edit.length, edit.base) = (0, EditBase::Logged);
        }
        head
    };
    strip(head) == strip(good)
}

/// Every bit of every byte of an update, one at a time.
fn flip_everything(steady: &mut Steady<'_>) {
    let good = steady.good.clone();
    for at in 0..good.head.release.len() {
        for bit in 0..8 {
            let release = flip(&good.head.release, at, bit);
            let head = UpdateHead { release, ..good.head.clone() };
            assert!(
                steady.flipped(&Update { head, edits: good.edits.clone() }),
                "document byte {at} bit {bit}"
            );
        }
    }
    let encoded = Bytes::from(codec::encode(&good.head));
    let (mut decoded, mut refused) = (0, 0);
    for at in 0..encoded.len() {
        for bit in 0..8 {
            let Ok(head) = codec::decode::<UpdateHead>(&flip(&encoded, at, bit), MAX_FRAME) else { continue };
            decoded += 1;
            let (is_harmless, shown) = (harmless(&head, &good.head), format!("{head:?}"));
            if steady.flipped(&Update { head, edits: good.edits.clone() }) {
                refused += 1;
            } else {
                assert!(is_harmless, "head byte {at} bit {bit} was taken: {shown}");
            }
        }
    }
    assert!(decoded > 500 && refused > decoded * 9 / 10, "{refused} of {decoded} refused");
    for which in 0..good.edits.len() {
        for at in 0..good.edits[which].len() {
            for bit in 0..8 {
                let mut edits = good.edits.clone();
                edits[which] = flip(&edits[which], at, bit);
                let refused = steady.flipped(&Update { head: good.head.clone(), edits });
                let logged =
                    good.head.listed.iter().filter_map(|listed| listed.edit.clone()).nth(which).unwrap();
                assert!(refused || logged.base != EditBase::Logged, "edit {which} byte {at} bit {bit}");
            }
        }
    }
}

#[tokio::test]
async fn threat_08_any_flipped_byte_of_a_logged_update_is_refused_and_the_good_one_taken() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    for count in 0..drafts.len() {
        let before = with_first(&drafts, count);
        let parent = with_first(&drafts, count + 1);
        let good = update_of(&parent, &Interest::All, &before.standing(&Interest::All)).await.unwrap();
        let mut steady = Steady::new(|| with_first(&drafts, count), good);
        flip_everything(&mut steady);
        steady.take_good();
    }
}

#[tokio::test]
async fn threat_08_any_flipped_byte_of_a_jump_or_snapshot_is_refused_and_the_good_one_taken() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    for count in [0, 2] {
        let standing = with_first(&drafts, count).standing(&Interest::All);
        let good = update_of(&publisher.replica, &Interest::All, &standing).await.unwrap();
        let bases: Vec<_> =
            good.head.listed.iter().filter_map(|listed| listed.edit.as_ref()).map(|e| e.base).collect();
        assert!(bases.contains(if count == 0 { &EditBase::Empty } else { &EditBase::Held }), "{bases:?}");
        let mut steady = Steady::new(|| with_first(&drafts, count), good);
        flip_everything(&mut steady);
        steady.take_good();
    }
}

#[tokio::test]
async fn threat_08_a_disk_store_stays_at_what_it_held_too() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let directory = tempfile::tempdir().unwrap();
    let opened = || replica_over(Arc::new(DiskStore::open(directory.path()).unwrap()));
    let store = Arc::new(DiskStore::open(directory.path()).unwrap());
    let replica = with_first_over(store.clone(), &drafts, 4);
    let good =
        update_of(&publisher.replica, &Interest::All, &replica.standing(&Interest::All)).await.unwrap();
    let (before, stats) = (state(&replica), store.stats_now());
    for which in 0..good.edits.len() {
        for at in 0..good.edits[which].len() {
            let mut edits = good.edits.clone();
            edits[which] = flip(&edits[which], at, (at % 8) as u8);
            let update = Update { head: good.head.clone(), edits };
            replica.receive(&update, &Interest::All, Rule::Follow).unwrap_err();
        }
    }
    assert_eq!((state(&replica), store.stats_now()), (before.clone(), stats), "nothing was stored");
    drop((replica, store));
    let replica = opened();
    assert_eq!(state(&replica), before);
    replica.receive(&good, &Interest::All, Rule::Follow).unwrap();
    drop(replica);
    assert_eq!(state(&opened()), state(&publisher.replica));
    assert_eq!(needed(&opened()), needed(&publisher.replica));
}

/// What of a disk store's size a refused update must not change.
trait StatsNow {
    fn stats_now(&self) -> (u64, u64, u64);
}

impl StatsNow for DiskStore {
    fn stats_now(&self) -> (u64, u64, u64) {
        let stats = rootcast_store::Store::stats(self);
        (stats.objects, stats.edits, stats.releases)
    }
}

#[tokio::test]
async fn threat_08_any_flipped_byte_of_a_compact_head_is_refused() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let child = with_first(&drafts, 3);
    let parent = with_first(&drafts, 4);
    let outgoing = parent
        .outgoing(&Reader::Relay, &Interest::All, &child.standing(&Interest::All))
        .await
        .unwrap()
        .unwrap();
    let compact = outgoing.compact.clone().expect("the next release is sent compact");
    let encoded = Bytes::from(codec::encode(&UpdateMessage::Compact(compact)));
    let good = Update { head: outgoing.head.clone(), edits: outgoing.edits.clone() };
    let steady = Steady::new(|| with_first(&drafts, 3), good.clone());
    let mut rebuilt = 0;
    for at in 0..encoded.len() {
        for bit in 0..8 {
            let Ok(message) = codec::decode::<UpdateMessage>(&flip(&encoded, at, bit), MAX_FRAME) else {
                continue;
            };
            let pushed = Pushed { message, edits: good.edits.clone() };
            let Some(update) = steady.replica.rebuild(pushed, &Interest::All) else { continue };
            rebuilt += 1;
            if !harmless(&update.head, &good.head) {
                assert!(steady.offer(&update), "byte {at} bit {bit}");
            }
        }
    }
    assert!(rebuilt > 500, "{rebuilt} could be rebuilt at all");
    steady.take_good();
}

#[tokio::test]
async fn a_compact_head_for_another_release_does_not_fit() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let (child, parent) = (with_first(&drafts, 3), with_first(&drafts, 4));
    let outgoing = parent
        .outgoing(&Reader::Relay, &Interest::All, &child.standing(&Interest::All))
        .await
        .unwrap()
        .unwrap();
    let head: CompactHead = outgoing.compact.clone().unwrap();
    for other in [0, 1, 2, 4, 5] {
        let replica = with_first(&drafts, other);
        let before = state(&replica);
        let pushed = Pushed { message: UpdateMessage::Compact(head.clone()), edits: outgoing.edits.clone() };
        if let Some(update) = replica.rebuild(pushed, &Interest::All) {
            replica.receive(&update, &Interest::All, Rule::Follow).unwrap_err();
        }
        assert_eq!(state(&replica), before);
    }
    let held = child.held().unwrap();
    let head = Before::new(&held.bundles, |_| true).expand(&head, &outgoing.edits);
    assert_eq!(head.as_ref(), Some(&outgoing.head));
}

#[tokio::test]
async fn tuf_extraneous_dependencies_an_update_cannot_plant_what_no_leaf_proves() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let (child, parent) = (with_first(&drafts, 3), with_first(&drafts, 4));
    let good = update_of(&parent, &Interest::All, &child.standing(&Interest::All)).await.unwrap();
    // The same place twice: the first is no leaf of the release, the second is.
    let mut planted = good.clone();
    let mut listed: ListedBundle = planted.head.listed[0].clone();
    listed.leaf.sequence = 99;
    planted.head.listed.insert(0, listed);
    planted.edits.insert(0, Bytes::from_static(b"anything"));
    child.receive(&planted, &Interest::All, Rule::Follow).unwrap_err();
    child.receive(&good, &Interest::All, Rule::Follow).unwrap();
    assert_eq!(child.store().edit(&good.head.listed[0].leaf.name, 99).unwrap(), None);
}

#[tokio::test]
async fn threat_06_old_equal_and_forked_releases_are_evidence() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let directory = tempfile::tempdir().unwrap();
    let evidence = directory.path().join("evidence");
    let store = Arc::new(MemoryStore::new());
    let replica = Replica::open(store, trust(), channel(), true, Some(directory.path().to_owned())).unwrap();
    for draft in &drafts[..3] {
        replica.receive(&draft.update(), &Interest::All, Rule::Follow).unwrap();
    }
    let before = state(&replica);
    let mut count = 0;
    let mut refused = |update: &Update, name: &str| {
        let error = replica.receive(update, &Interest::All, Rule::Follow).unwrap_err();
        let ReplicaError::Refused(refusal) = error else { panic!("{name}: {error}") };
        count += 1;
        assert_eq!((state(&replica), replica.refused()), (before.clone(), count), "{name}");
        refusal
    };
    assert!(matches!(refused(&drafts[0].update(), "first"), Refusal::Rollback { offered: 1, floor: 3 }));
    assert!(matches!(refused(&drafts[1].update(), "second"), Refusal::Rollback { offered: 2, floor: 3 }));
    let mut same = drafts[2].clone();
    same.release.issued += 1;
    assert!(matches!(refused(&same.update(), "same"), Refusal::Equivocation { number: 3, .. }));
    let mut fork = drafts[3].clone();
    fork.release.previous = Some(ReleaseHash::from_bytes([1; 32]));
    assert!(matches!(refused(&fork.update(), "fork"), Refusal::Fork { number: 4 }));
    assert!(matches!(refused(&fork.update(), "fork again"), Refusal::Fork { number: 4 }));

    let kept: Vec<Vec<u8>> = std::fs::read_dir(&evidence)
        .unwrap()
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    assert_eq!(kept.len(), 4, "each once");
    for document in [drafts[0].document(), drafts[1].document(), same.document(), fork.document()] {
        assert!(kept.iter().any(|kept| **kept == *document));
    }
    for issued in 0..40 {
        same.release.issued = issued;
        replica.receive(&same.update(), &Interest::All, Rule::Follow).unwrap_err();
    }
    assert_eq!(std::fs::read_dir(&evidence).unwrap().count(), 16, "evidence is bounded");
    assert_eq!(replica.refused(), 45);
    replica.receive(&drafts[3].update(), &Interest::All, Rule::Follow).unwrap();
}

#[tokio::test]
async fn threat_06_a_later_release_is_taken_by_a_jump() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let child = with_first(&drafts, 2);
    let jump = update_of(&publisher.replica, &Interest::All, &child.standing(&Interest::All)).await.unwrap();
    child.receive(&jump, &Interest::All, Rule::Follow).unwrap();
    assert_eq!(state(&child), state(&publisher.replica));
    let _ = child.receive(&jump, &Interest::All, Rule::Follow).unwrap_err();
    assert_eq!(state(&child), state(&publisher.replica), "its base is gone, and what came of it stays");
    let error = child.receive(&drafts[3].update(), &Interest::All, Rule::Follow).unwrap_err();
    assert!(matches!(error, ReplicaError::Refused(Refusal::Rollback { offered: 4, floor: 5 })));
}

#[tokio::test]
async fn tuf_extraneous_dependencies_what_was_not_asked_for_or_left_out_is_refused() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let parent = &publisher.replica;
    let (asked, more) = (named(&["base", "plan"]), named(&["base", "plan", "role/web"]));
    let child = replica();
    let all = update_of(parent, &more, &nowhere()).await.unwrap();
    let error = child.receive(&all, &asked, Rule::Follow).unwrap_err();
    assert!(matches!(error, ReplicaError::NotAsked(name) if name == bundle("role/web")));

    let mut hollow = update_of(parent, &asked, &nowhere()).await.unwrap();
    hollow.head.listed[1].edit = None;
    hollow.edits.pop();
    let error = child.receive(&hollow, &asked, Rule::Follow).unwrap_err();
    assert!(matches!(error, ReplicaError::Incomplete(name) if name == bundle("plan")), "content is missing");

    let child = with_first(&drafts, 2);
    let mut others = update_of(parent, &Interest::All, &child.standing(&Interest::All)).await.unwrap();
    assert!(others.head.keep_others);
    let before = state(&child);
    others.head.listed.remove(0);
    others.edits.remove(0);
    let error = child.receive(&others, &Interest::All, Rule::Follow).unwrap_err();
    assert!(matches!(error, ReplicaError::Verify(_)), "what is kept is not what was signed");
    assert_eq!((state(&child), state(&replica()).0), (before, None));
}

#[tokio::test]
async fn an_interest_may_change_with_every_release() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let interests = [
        named(&["base", "plan"]),
        named(&["base", "plan", "role/web"]),
        named(&["plan", "role/web"]),
        named(&["base", "role/web"]),
        named(&["base"]),
    ];
    for first in &interests {
        for second in &interests {
            for (from, to) in [(3, 3), (3, 4), (3, 5)] {
                let (one, two) = (with_first(&drafts, from), with_first(&drafts, to));
                let child = replica();
                let update = update_of(&one, first, &nowhere()).await.unwrap();
                child.receive(&update, first, Rule::Follow).unwrap();
                if let Some(update) = update_of(&two, second, &child.standing(second)).await {
                    child.receive(&update, second, Rule::Follow).unwrap();
                }
                let held = child.held().unwrap();
                assert_eq!(held.accepted().number, to as u64);
                for (name, root) in roots(&two).into_iter().filter(|(name, _)| second.covers(name)) {
                    assert_eq!(held.bundles.root(&name), Some(root), "{first:?} to {second:?}");
                }
                needed(&child);
            }
        }
    }
}

#[tokio::test]
async fn the_origin_takes_only_the_next_release_whole_and_consistent() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let origin = with_first(&drafts, 3);
    let before = state(&origin);
    let refuse = |update: &Update| {
        let error = origin.receive(update, &Interest::All, Rule::Origin).unwrap_err();
        assert_eq!(state(&origin), before, "{error}");
        error
    };
    assert!(matches!(refuse(&drafts[4].update()), ReplicaError::NotNext), "a gap");
    assert!(matches!(refuse(&drafts[2].update()), ReplicaError::NotNext), "the same again");
    assert!(matches!(refuse(&drafts[1].update()), ReplicaError::NotNext), "an old one");

    let good = &drafts[3];
    for (files, bytes) in [(1, 0), (0, 1)] {
        let mut totals = good.clone();
        totals.release.files += files;
        totals.release.bytes += bytes;
        assert!(matches!(refuse(&totals.update()), ReplicaError::Publication(_)), "false totals");
    }
    let mut unplanned = good.clone();
    let at = unplanned.leaves.iter().position(|leaf| leaf.name == bundle("plan")).unwrap();
    let plan = unplanned.leaves.remove(at);
    unplanned.edits.remove(at);
    unplanned.release.files -= plan.files;
    unplanned.release.bytes -= plan.bytes;
    assert!(matches!(refuse(&unplanned.rooted().update()), ReplicaError::Publication(_)), "no plan");

    let mut direct = good.update();
    for edit in direct.head.listed.iter_mut().filter_map(|listed| listed.edit.as_mut()) {
        edit.base = EditBase::Held;
    }
    assert!(matches!(refuse(&direct), ReplicaError::Verify(_)), "an edit that is not the log's");

    let mut partial = good.update();
    let all: Vec<_> = good.leaves.iter().map(rootcast::release::BundleLeaf::hash).collect();
    partial.head.listed.remove(2);
    partial.head.siblings = rootcast::merkle::prove(&all, &[0, 1]);
    assert!(matches!(refuse(&partial), ReplicaError::Publication(_)), "not all leaves");

    let mut replayed = good.clone();
    let at = replayed.edits.iter().position(Option::is_some).unwrap();
    replayed.leaves[at].sequence += 1;
    assert!(matches!(refuse(&replayed.rooted().update()), ReplicaError::Verify(_)), "a log with a gap");
    let mut silent = good.clone();
    let at = silent.edits.iter().position(Option::is_none).unwrap();
    silent.leaves[at].sequence += 1;
    assert!(
        matches!(refuse(&silent.rooted().update()), ReplicaError::Verify(_)),
        "a leaf changed without an edit"
    );

    origin.receive(&good.update(), &Interest::All, Rule::Origin).unwrap();
    let now = state(&origin);
    let again = origin.receive(&good.update(), &Interest::All, Rule::Origin).unwrap_err();
    assert!(matches!(again, ReplicaError::NotNext));
    let mut known = good.update();
    known.edits.clear();
    known.head.listed.iter_mut().for_each(|listed| listed.edit = None);
    let known = origin.receive(&known, &Interest::All, Rule::Follow).unwrap();
    assert!(matches!(known, Received::Known));
    assert_eq!(state(&origin), now);
}
