//! A child whose trust is behind: what it cannot verify yet makes it ask for the rest.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // sockets are what is tested

#[path = "support/network.rs"]
mod network;
#[path = "support/mod.rs"]
mod support;

use network::{Authority, Following, Habit, Parent};
use rootcast::acceptance::Floors;
use rootcast::id::AuthorityHash;
use rootcast::protocol::Interest;
use rootcast::trust::Trust;
use rootcast_replica::{Replica, ReplicaError, Rule, Trusted, Update};
use rootcast_store::{MemoryStore, Store};
use rootcast_transport::{Endpoint, Role};
use std::sync::Arc;
use support::*;

fn first() -> Trust {
    trust_fields(AuthorityHash::from_bytes([9; 32]))
}

/// Key 4 publishes instead of key 2.
fn second() -> Vec<u8> {
    let mut trust = Trust { version: 2, ..first() };
    trust.grants[0].publishers = seeds(&[4]);
    sign_trust(&trust, &[1])
}

fn take(replica: &Replica, draft: &Draft, seed: u8, rule: Rule) -> Result<(), ReplicaError> {
    let (publication, edits) = draft.signed_by(seed);
    replica.receive(&Update::of_publication(publication, edits), &Interest::All, rule).map(drop)
}

#[tokio::test]
async fn w_42_a_release_that_newer_trust_grants_makes_a_child_fetch_that_trust() {
    let authority = Authority::new();
    let publisher = Publisher::new();
    let draft = publisher.draft(&[("base", "a", Some(b"one\n"))]);
    take(&publisher.replica, &draft, 2, Rule::Origin).unwrap();
    // This parent tells nobody of newer trust by itself.
    let parent = Parent::start(&authority, publisher.replica.clone(), Habit::Good);
    let child = Endpoint::dial_only(&authority.issue(Role::Relay, "child")).unwrap();
    let child = Following::start(&child, replica(), &[parent.address], Interest::All);
    child.until("release 1", |child| child.held().is_some()).await;
    publisher.replica.trust().offer(&second()).unwrap();
    let draft = publisher.draft(&[("base", "a", Some(b"two\n"))]);
    take(&publisher.replica, &draft, 4, Rule::Origin).unwrap();
    let second = |child: &Replica| child.held().is_some_and(|held| held.accepted().number == 2);
    child.until("release 2", second).await;
    assert_eq!(child.replica.trust().version(), 2);
    assert_eq!(child.replica.floors().trust_version, 2);
}

#[tokio::test]
async fn threat_05_trust_that_went_back_takes_nothing_new() {
    let publisher = Publisher::new();
    let draft = publisher.draft(&[("base", "a", Some(b"one\n"))]);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    // Version 3 was in force here once, and its file is gone.
    store.begin().unwrap().commit(Floors { trust_version: 3, ..Floors::default() }).unwrap();
    let behind = replica_over(store);
    let refused = take(&behind, &draft, 2, Rule::Follow).unwrap_err();
    assert!(matches!(refused, ReplicaError::TrustBehind { have: 1, need: 3 }), "{refused}");
    assert!(behind.held().is_none());
}

#[tokio::test]
async fn tuf_freeze_trust_that_has_lapsed_judges_nothing_new_and_what_is_held_stays() {
    let publisher = Publisher::new();
    let draft = publisher.publish(&[("base", "a", Some(b"one\n"))]);
    let held = replica();
    take(&held, &draft, 2, Rule::Follow).unwrap();
    // A version that ended in 1970: it follows, so it is in force, and it has lapsed.
    let lapsed = Trust { version: 2, issued: 1, expires: 2, ..first() };
    held.trust().offer(&sign_trust(&lapsed, &[1])).unwrap();
    let next = publisher.publish(&[("base", "a", Some(b"two\n"))]);
    let refused = take(&held, &next, 2, Rule::Follow).unwrap_err();
    assert!(matches!(refused, ReplicaError::TrustLapsed { version: 2 }), "{refused}");
    assert_eq!(held.held().unwrap().accepted().number, 1);
    assert_eq!(held.freshness(), rootcast::head::Freshness::Stale);
    // A newer version is the way on.
    let renewed = Trust { version: 3, ..first() };
    held.trust().offer(&sign_trust(&renewed, &[1])).unwrap();
    take(&held, &next, 2, Rule::Follow).unwrap();
    assert_eq!(held.held().unwrap().accepted().number, 2);
}

#[test]
fn threat_08_a_version_that_is_refused_leaves_no_trace_and_a_good_one_is_taken_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let (document, fingerprint) = trust_document(AuthorityHash::from_bytes([9; 32]));
    let identity = directory.path().join("identity");
    std::fs::create_dir(&identity).unwrap();
    std::fs::write(identity.join("trust.cose"), document).unwrap();
    std::fs::write(identity.join("fingerprint"), fingerprint.to_string()).unwrap();
    let state = directory.path().join("state");
    let trusted = Trusted::open(&identity, &state).unwrap();
    let stranger = sign_trust(&Trust { version: 2, ..first() }, &[7]);
    assert!(trusted.offer(&stranger).is_err());
    assert!(!state.join("trust/2.cose").exists());
    assert!(trusted.offer(&second()).unwrap());
    assert!(!trusted.offer(&second()).unwrap(), "known");
    assert_eq!(Trusted::open(&identity, &state).unwrap().version(), 2);
    // A file that somebody changed stops the start, and is named.
    std::fs::write(state.join("trust/2.cose"), stranger).unwrap();
    let Err(error) = Trusted::open(&identity, &state) else { panic!("a forged version was taken") };
    assert!(error.to_string().contains("trust/2.cose"), "{error}");
}
