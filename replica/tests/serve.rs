//! What children at every standing are served, without a network.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks and sockets are what is tested

mod support;

use rootcast::acceptance::Accepted;
use rootcast::id::ReleaseHash;
use rootcast::protocol::{Interest, Standing};
use rootcast::reader::Reader;
use rootcast_replica::{Replica, Rule};
use std::sync::Arc;
use support::*;

/// Standings that a child may have, true or not.
fn standings(drafts: &[Draft], child: &Replica) -> Vec<Standing> {
    let mut all = vec![nowhere(), Standing { release: None, whole: vec![bundle("base")] }];
    for count in 1..=drafts.len() {
        let whole = with_first(drafts, count).standing(&Interest::All);
        all.push(Standing { whole: whole.whole[..whole.whole.len() / 2].to_vec(), ..whole.clone() });
        all.push(Standing { whole: Vec::new(), ..whole.clone() });
        all.push(whole);
    }
    let at = child.held().map_or(1, |held| held.accepted().number);
    for number in [at, at + 1, 99] {
        let unknown = Accepted { epoch: 1, number, hash: ReleaseHash::from_bytes([3; 32]) };
        all.push(Standing { release: Some(unknown), whole: vec![bundle("base")] });
    }
    all
}

#[tokio::test]
async fn outgoing_serves_children_at_every_standing() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    // Once as it took the releases in itself, once as reopened: with and without the newest at hand.
    let reopened = replica_over(publisher.replica.store().clone());
    for parent in [&publisher.replica, &reopened] {
        for interest in [Interest::All, named(&["base", "plan"]), named(&["role/web"]), named(&["nothing"])] {
            let wanted: Vec<_> =
                roots(parent).into_iter().filter(|(name, _)| interest.covers(name)).collect();
            for count in 0..=drafts.len() {
                let child = replica();
                if count > 0 {
                    let then = with_first(&drafts, count);
                    if let Some(update) = update_of(&then, &interest, &nowhere()).await {
                        child.receive(&update, &interest, Rule::Follow).unwrap();
                    }
                }
                for keep in (0..=3).rev() {
                    let mut standing = child.standing(&interest);
                    standing.whole.truncate(keep);
                    if let Some(update) = update_of(parent, &interest, &standing).await {
                        child.receive(&update, &interest, Rule::Follow).unwrap();
                    }
                    assert_eq!(roots(&child), wanted);
                }
                needed(&child);
            }
            // What a child says falsely harms nobody else: the answer is nothing, or what verifies.
            for standing in standings(&drafts, parent) {
                let Some(update) = update_of(parent, &interest, &standing).await else { continue };
                let child = replica();
                match child.receive(&update, &interest, Rule::Follow) {
                    Ok(_) => assert_eq!(roots(&child), wanted),
                    Err(_) => assert_eq!(state(&child).0, None),
                }
            }
        }
    }
}

#[tokio::test]
async fn w_55_a_release_that_came_as_a_part_is_served_as_what_is_held_of_it() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let (one, two) = (with_first(&drafts, 4), with_first(&drafts, 5));
    let (part, all) = (named(&["base", "plan"]), Interest::All);
    let relay = replica();
    relay.receive(&update_of(&one, &part, &nowhere()).await.unwrap(), &part, Rule::Follow).unwrap();
    // As a part, from edits of the log alone, and then what was fetched beside it.
    relay
        .receive(&update_of(&two, &part, &relay.standing(&part)).await.unwrap(), &part, Rule::Follow)
        .unwrap();
    let rest = update_of(&two, &all, &relay.standing(&all)).await.unwrap();
    relay.receive(&rest, &all, Rule::Follow).unwrap();
    assert!(relay.held().unwrap().bundles.is_complete());
    let child = with_first(&drafts, 4);
    let outgoing = relay.outgoing(&Reader::Relay, &all, &child.standing(&all)).await.unwrap().unwrap();
    assert_eq!(outgoing.standing.whole, two.standing(&all).whole);
}

#[tokio::test]
async fn each_release_wakes_children_once() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let relay = replica();
    let mut offered = relay.watch_offered();
    for draft in &drafts {
        offered.mark_unchanged();
        relay.receive(&draft.update(), &Interest::All, Rule::Follow).unwrap();
        assert!(offered.has_changed().unwrap());
        assert_eq!(*offered.borrow_and_update(), relay.held().map(|held| held.accepted()));
        // What comes a second time is no release that anyone waits for, whatever becomes of it.
        let _ = relay.receive(&draft.update(), &Interest::All, Rule::Follow);
        assert!(!offered.has_changed().unwrap());
    }
}

#[tokio::test]
async fn a_child_that_is_ahead_gets_nothing() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let (parent, child) = (with_first(&drafts, 3), with_first(&drafts, 4));
    assert!(update_of(&parent, &Interest::All, &child.standing(&Interest::All)).await.is_none());
    assert!(update_of(&replica(), &Interest::All, &nowhere()).await.is_none(), "a parent that has nothing");
}

#[tokio::test]
async fn random_histories_reach_the_same_roots_from_anywhere() {
    for seed in 0..30 {
        let mut random = Numbers::new(seed);
        let publisher = Publisher::new();
        let mut drafts = Vec::new();
        for _ in 0..4 + random.below(4) {
            drafts.push(publisher.publish(&random_files(&mut random).each()));
        }
        let mut children: Vec<Arc<Replica>> = Vec::new();
        for (at, _) in drafts.iter().enumerate() {
            let then = with_first(&drafts, at + 1);
            if random.below(2) == 0 {
                children.push(replica());
            }
            for child in &children {
                // Each falls behind now and then.
                if random.below(3) > 0 || at + 1 == drafts.len() {
                    let standing = child.standing(&Interest::All);
                    if let Some(update) = update_of(&then, &Interest::All, &standing).await {
                        child.receive(&update, &Interest::All, Rule::Follow).unwrap();
                    }
                    assert_eq!(roots(child), roots(&then), "seed {seed} release {}", at + 1);
                }
            }
        }
        for child in &children {
            assert_eq!(needed(child), needed(&publisher.replica), "seed {seed}");
        }
    }
}

/// Files of random bundles, put and removed.
struct Files(Vec<(&'static str, String, Option<Vec<u8>>)>);

impl Files {
    fn each(&self) -> Vec<(&str, &str, Option<&[u8]>)> {
        self.0.iter().map(|(bundle, path, content)| (*bundle, path.as_str(), content.as_deref())).collect()
    }
}

fn random_files(random: &mut Numbers) -> Files {
    let mut files = Vec::new();
    // `base` always keeps a file, the others may come and go.
    files.push(("base", "always".to_owned(), Some(random.text(30))));
    for _ in 0..random.below(12) {
        let bundle = ["base", "role/web", "role/db"][random.below(3)];
        let path = format!("f{}", random.below(6));
        let length = random.below(3000);
        let content = (random.below(3) > 0).then(|| random.text(length));
        files.push((bundle, path, content));
    }
    Files(files)
}
