//! Following parents over QUIC, good ones and bad ones, and healing what is
//! damaged (threats 12, 13 and 26).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks and sockets are what is tested

#[path = "support/network.rs"]
mod network;
mod support;

use network::*;
use rootcast::id::ObjectId;
use rootcast::limits::STREAM_WINDOW;
use rootcast::protocol::Interest;
use rootcast::reader::Reader;
use rootcast_replica::{FollowEvent, Replica};
use rootcast_store::{DiskStore, Retained, Store};
use rootcast_transport::{Endpoint, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use support::*;

fn child_endpoint(authority: &Authority) -> Endpoint {
    Endpoint::dial_only(&authority.issue(Role::Relay, "child")).unwrap()
}

fn on_disk(directory: &Path) -> Arc<Replica> {
    replica_over(Arc::new(DiskStore::open(directory).unwrap()))
}

/// Releases with enough files that trees have inner nodes and some damage is partial.
fn large_history(publisher: &Publisher) -> Vec<Draft> {
    let mut random = Numbers::new(11);
    let mut drafts = history(publisher);
    let names: Vec<String> = (0..120).map(|at| format!("many/{at}.conf")).collect();
    let contents: Vec<Vec<u8>> = names.iter().map(|_| random.text(700)).collect();
    let files: Vec<_> = names
        .iter()
        .zip(&contents)
        .map(|(name, content)| ("base", name.as_str(), Some(content.as_slice())))
        .collect();
    drafts.push(publisher.publish(&files));
    let big = random.text(1_300_000);
    drafts.push(publisher.publish(&[("role/web", "big.conf", Some(&big))]));
    drafts.push(
        publisher.publish(&[("base", "many/3.conf", Some(b"changed\n")), ("base", "many/5.conf", None)]),
    );
    drafts
}

fn same(child: &Replica, parent: &Replica) -> bool {
    child.held().map(|held| held.accepted()) == parent.held().map(|held| held.accepted())
        && roots(child) == roots(parent)
}

fn has_all(replica: &Replica, objects: &[ObjectId]) -> bool {
    objects.iter().all(|id| replica.store().read(id).is_ok())
}

/// Drops objects from a store, as a collection does that was told wrongly; the log stays.
fn lose(replica: &Replica, lost: &[ObjectId]) {
    let leaves = replica.held().unwrap().bundles.leaves().clone();
    let edits: BTreeMap<_, _> = leaves.into_values().map(|leaf| (leaf.name, 0)).collect();
    let objects = needed(replica).into_iter().filter(|id| !lost.contains(id)).collect();
    replica.store().collect(&Retained { objects, oldest_release: 1, edits }).unwrap();
    assert!(lost.iter().all(|id| !replica.store().contains(id)));
}

/// Waits until no task works on a replica any more, and closes it.
async fn closed(replica: Arc<Replica>) {
    let alone = async {
        while Arc::strong_count(&replica) > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, alone).await.expect("all work on the replica ends");
}

#[tokio::test]
async fn a_child_converges_from_nothing_and_resumes_from_its_disk() {
    let (authority, publisher, directory) =
        (Authority::new(), Publisher::new(), tempfile::tempdir().unwrap());
    large_history(&publisher);
    let parent = Parent::start(&authority, publisher.replica.clone(), Habit::Good);
    let endpoint = child_endpoint(&authority);
    let child = Following::start(&endpoint, on_disk(directory.path()), &[parent.address], Interest::All);
    child.until("all releases", |child| same(child, &publisher.replica)).await;
    let whole = child.replica.received();
    assert_eq!(needed(&child.replica), needed(&publisher.replica));
    let replica = child.replica.clone();
    child.stop().await;
    closed(replica).await;

    let mut child = Following::start(&endpoint, on_disk(directory.path()), &[parent.address], Interest::All);
    child.event("connected", |event| matches!(event, FollowEvent::Connected { .. })).await;
    publisher.publish(&[("base", "a.conf", Some(b"after the restart\n"))]);
    child.until("the next release", |child| same(child, &publisher.replica)).await;
    let received = child.replica.received();
    assert!(received > 0 && received < 600 && received < whole / 20, "{received} of {whole} bytes");
    assert_eq!((parent.objects_asked(), child.replica.healed()), (0, 0));
    assert_eq!(needed(&child.replica), needed(&publisher.replica));
}

#[tokio::test]
async fn an_interest_may_change_while_a_parent_is_followed() {
    let (authority, publisher) = (Authority::new(), Publisher::new());
    history(&publisher);
    let parent = Parent::start(&authority, publisher.replica.clone(), Habit::Good);
    let endpoint = child_endpoint(&authority);
    let more = named(&["base", "plan", "role/web"]);
    let child = Following::start(&endpoint, replica(), &[parent.address], more.clone());
    child.until("the first", |child| same(child, &publisher.replica)).await;
    for (interest, text) in
        [(named(&["base", "plan"]), "x"), (more, "y"), (named(&["plan", "role/web"]), "z")]
    {
        child.interest.send_replace(interest.clone());
        publisher
            .publish(&[("base", "a.conf", Some(text.as_bytes())), ("role/web", "w", Some(text.as_bytes()))]);
        let wanted: Vec<_> =
            roots(&publisher.replica).into_iter().filter(|(name, _)| interest.covers(name)).collect();
        child
            .until("what is wanted now", |child| {
                let held = roots(child);
                wanted.iter().all(|root| held.contains(root))
            })
            .await;
    }
}

/// The last byte of a pack that is not zero: what lies behind is not in use.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Flips bytes of the pack files; the floors file stays.
fn damage(directory: &Path, random: &mut Numbers, flips: usize) {
    let mut packs: Vec<_> = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    packs.retain(|path| std::fs::read(path).unwrap().starts_with(b"RCpack"));
    packs.sort();
    assert!(!packs.is_empty());
    let mut contents: Vec<_> = packs.iter().map(|path| std::fs::read(path).unwrap()).collect();
    for _ in 0..flips {
        let bytes = &mut contents[random.below(packs.len())];
        let at = random.below(used(bytes));
        bytes[at] ^= 1 << random.below(8);
    }
    for (path, bytes) in packs.iter().zip(contents) {
        std::fs::write(path, bytes).unwrap();
    }
}

#[tokio::test]
async fn threat_26_a_damaged_store_is_healed_with_exactly_what_it_lacks() {
    let (authority, publisher, directory) =
        (Authority::new(), Publisher::new(), tempfile::tempdir().unwrap());
    let drafts = large_history(&publisher);
    let template = directory.path().join("template");
    drop(with_first_over(Arc::new(DiskStore::open(&template).unwrap()), &drafts, drafts.len()));
    let all = needed(&publisher.replica);
    let identity = authority.issue(Role::Relay, "parent");
    let endpoint = child_endpoint(&authority);
    let (mut healed_objects, mut lost_records) = (0, 0);
    for seed in 0..40 {
        let mut random = Numbers::new(seed);
        let here = directory.path().join(seed.to_string());
        copy(&template, &here);
        damage(&here, &mut random, if seed % 4 == 3 { 200 } else { 1 + seed as usize % 3 });
        let parent = Parent::start_as(&identity, publisher.replica.clone(), Habit::Good);
        let replica = on_disk(&here);
        let is_newest = same(&replica, &publisher.replica);
        let lost: BTreeSet<_> = all.iter().filter(|id| replica.store().read(id).is_err()).copied().collect();
        let child = Following::start(&endpoint, replica.clone(), &[parent.address], Interest::All);
        child.until("healed", |child| same(child, &publisher.replica) && has_all(child, &all)).await;
        if is_newest {
            assert_eq!(parent.objects_asked(), lost.len() as u64, "seed {seed}");
            assert_eq!(replica.healed(), lost.len() as u64, "seed {seed}");
            healed_objects += lost.len();
        } else {
            lost_records += 1;
        }
        child.stop().await;
        closed(replica).await;
        let reopened = on_disk(&here);
        assert!(same(&reopened, &publisher.replica), "seed {seed}");
        assert_eq!(needed(&reopened), all, "seed {seed}");
    }
    assert!(
        healed_objects > 20,
        "{healed_objects} objects healed, {lost_records} runs without the newest record"
    );
}

#[tokio::test]
async fn threat_26_one_missing_object_is_one_object_fetched() {
    let (authority, publisher) = (Authority::new(), Publisher::new());
    let drafts = large_history(&publisher);
    let all = needed(&publisher.replica);
    let identity = authority.issue(Role::Relay, "parent");
    let endpoint = child_endpoint(&authority);
    for at in (0..all.len()).step_by(all.len() / 12) {
        let parent = Parent::start_as(&identity, publisher.replica.clone(), Habit::Good);
        let replica = with_first(&drafts, drafts.len());
        lose(&replica, &all[at..=at]);
        let child = Following::start(&endpoint, replica, &[parent.address], Interest::All);
        child.until("healed", |child| has_all(child, &all)).await;
        assert_eq!((parent.objects_asked(), child.replica.healed()), (1, 1), "{}", all[at]);
    }
}

#[tokio::test]
async fn threat_26_a_damaged_base_that_the_parent_has_no_longer_is_gone_around() {
    let (authority, publisher) = (Authority::new(), Publisher::new());
    let drafts = large_history(&publisher);
    // One has only ever had the newest release; the other has the log, but no old tree.
    let (jumped, emptied) = (replica(), with_first(&drafts, drafts.len()));
    let snapshot = update_of(&publisher.replica, &Interest::All, &nowhere()).await.unwrap();
    jumped.receive(&snapshot, &Interest::All, rootcast_replica::Rule::Follow).unwrap();
    lose(&emptied, &[]);
    let endpoint = child_endpoint(&authority);
    for serving in [jumped, replica_over(emptied.store().clone())] {
        let parent = Parent::start(&authority, serving.clone(), Habit::Good);
        for count in 1..drafts.len() {
            let old = with_first(&drafts, count);
            let gone: Vec<_> = needed(&old).into_iter().filter(|id| !serving.store().contains(id)).collect();
            assert!(!gone.is_empty());
            lose(&old, &gone);
            let child = Following::start(&endpoint, old, &[parent.address], Interest::All);
            child.until("the newest", |child| same(child, &serving)).await;
            assert_eq!(needed(&child.replica), needed(&serving), "from release {count}");
        }
    }
}

#[tokio::test]
async fn threat_12_objects_with_other_bytes_are_dropped_and_the_next_parent_heals() {
    let (authority, publisher, directory) =
        (Authority::new(), Publisher::new(), tempfile::tempdir().unwrap());
    let drafts = large_history(&publisher);
    let all = needed(&publisher.replica);
    let bad = Parent::start(&authority, publisher.replica.clone(), Habit::BadObjects);
    let good = Parent::start(&authority, publisher.replica.clone(), Habit::Good);
    let endpoint = child_endpoint(&authority);
    let store = Arc::new(DiskStore::open(directory.path()).unwrap());
    let replica = with_first_over(store.clone(), &drafts, drafts.len());
    let lost: Vec<_> = all.iter().step_by(40).copied().collect();
    lose(&replica, &lost);
    let count = store.stats().objects;

    let mut child = Following::start(&endpoint, replica.clone(), &[bad.address], Interest::All);
    child.event("the bad parent dropped", |event| matches!(event, FollowEvent::Lost { .. })).await;
    child.event("the bad parent dropped again", |event| matches!(event, FollowEvent::Lost { .. })).await;
    child.stop().await;
    assert!(bad.objects_asked() > 0);
    assert!(lost.iter().all(|id| !replica.store().contains(id)), "nothing of it was stored");
    assert_eq!((store.stats().objects, replica.healed()), (count, 0));

    let child = Following::start(&endpoint, replica.clone(), &[bad.address, good.address], Interest::All);
    child.until("healed", |child| has_all(child, &all)).await;
    assert_eq!(good.objects_asked(), lost.len() as u64);
    assert_eq!(needed(&replica), all);
}

#[tokio::test]
async fn threat_13_tuf_malicious_mirrors_a_parent_that_sends_nonsense_is_dropped_for_the_next() {
    let (authority, publisher) = (Authority::new(), Publisher::new());
    let drafts = history(&publisher);
    let good = Parent::start(&authority, publisher.replica.clone(), Habit::Good);
    let identity = authority.issue(Role::Relay, "bad");
    let endpoint = child_endpoint(&authority);
    let habits = [
        Habit::NotFound,
        Habit::GarbageWelcome,
        Habit::HugeEdit,
        Habit::LongEdit,
        Habit::ManyLongEdits,
        Habit::TruncatedEdit,
        Habit::TrailingBytes,
        Habit::GarbageFrame,
        Habit::UnknownKind,
        Habit::HugeFrame,
        Habit::Reset,
        Habit::ClosesInTheMiddle,
        Habit::NotBegun,
    ];
    for habit in habits {
        for count in [0, 3] {
            let bad = Parent::start_as(&identity, publisher.replica.clone(), habit);
            let from = with_first(&drafts, count);
            let addresses = [bad.address, good.address];
            let mut child = Following::start(&endpoint, from, &addresses, Interest::All);
            let lost =
                child.event("the bad parent lost", |event| matches!(event, FollowEvent::Lost { .. })).await;
            let FollowEvent::Lost { address, reason } = lost else { unreachable!() };
            assert_eq!(address, bad.address.to_string(), "{habit:?}: {reason}");
            child.until("the good parent's release", |child| same(child, &publisher.replica)).await;
            assert_eq!(child.replica.refused(), 0, "{habit:?}");
            assert_eq!(needed(&child.replica), needed(&publisher.replica));
        }
    }
}

#[tokio::test]
async fn w_59_after_a_break_another_parent_sends_the_rest_only() {
    let (authority, publisher) = (Authority::new(), Publisher::new());
    let big = Numbers::new(5).text(12_000_000);
    let drafts = [publisher.publish(&[("base", "big.conf", Some(&big))])];
    let breaks = Parent::start(&authority, publisher.replica.clone(), Habit::ClosesInTheMiddle);
    // Not the one that it broke off from: any parent that has the same edit will do.
    let goes_on = Parent::start(&authority, with_first(&drafts, 1), Habit::Good);
    let endpoint = child_endpoint(&authority);
    let addresses = [breaks.address, goes_on.address];
    let child = Following::start(&endpoint, replica(), &addresses, Interest::All);
    child.until("the release", |child| same(child, &publisher.replica)).await;
    assert_eq!(needed(&child.replica), needed(&publisher.replica));

    let outgoing =
        publisher.replica.outgoing(&Reader::Relay, &Interest::All, &nowhere()).await.unwrap().unwrap();
    let whole: u64 = outgoing.edits.iter().map(|edit| edit.len() as u64).sum();
    let sent = goes_on.sent();
    // Half had been written, and no more of that is lost than was on its way.
    assert!(whole > 4 * STREAM_WINDOW && sent <= whole / 2 + STREAM_WINDOW, "{sent} of {whole}");
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_taken_and_what_was_is_pulled() {
    let (authority, publisher) = (Authority::new(), Publisher::new());
    history(&publisher);
    let parent = Parent::start(&authority, publisher.replica.clone(), Habit::WrongBundles);
    let endpoint = child_endpoint(&authority);
    let asked = named(&["base", "plan"]);
    let child = Following::start(&endpoint, replica(), &[parent.address], asked.clone());
    let wanted: Vec<_> =
        roots(&publisher.replica).into_iter().filter(|(name, _)| asked.covers(name)).collect();
    child.until("what was asked for", |child| roots(child) == wanted).await;
}

#[tokio::test]
async fn threat_08_a_parent_that_flips_a_byte_of_an_update_gives_no_wrong_root() {
    let (authority, publisher) = (Authority::new(), Publisher::new());
    let drafts = history(&publisher);
    let truth: Vec<_> = (0..=drafts.len()).map(|count| roots(&with_first(&drafts, count))).collect();
    let identity = authority.issue(Role::Relay, "parent");
    let endpoint = child_endpoint(&authority);
    for seed in 0..200 {
        let serving = with_first(&drafts, 4);
        let habit = Habit::Flips { seed, pulls: seed % 2 == 1 };
        let parent = Parent::start_as(&identity, serving.clone(), habit);
        // Twice the same parent: the second try does not have to wait.
        let parents = [parent.address, parent.address, parent.address];
        let from = [3, 0, 2][seed as usize % 3];
        let child = Following::start(&endpoint, with_first(&drafts, from), &parents, Interest::All);
        parent.pushed(1).await;
        serving.receive(&drafts[4].update(), &Interest::All, rootcast_replica::Rule::Follow).unwrap();
        child
            .until(&format!("the newest, seed {seed}"), |child| {
                let held = child.held().map_or(0, |held| held.accepted().number) as usize;
                assert_eq!(roots(child), truth[held], "seed {seed}");
                held == drafts.len()
            })
            .await;
        assert_eq!(needed(&child.replica), needed(&publisher.replica), "seed {seed}");
        assert_eq!(child.replica.refused(), 0, "seed {seed}: what is not signed is no evidence");
    }
}
