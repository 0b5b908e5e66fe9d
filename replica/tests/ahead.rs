//! Snapshots made ahead, and releases kept for those who come back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks and sockets are what is tested

mod support;

use rootcast::limits::{LOGGED_RELEASES, MAX_WAYPOINTS, MIB, RETAINED_RELEASES, SNAPSHOT_FROM};
use rootcast::protocol::{EditBase, EditHead, Interest, Standing};
use rootcast::reader::Reader;
use rootcast::verify::VerifyError;
use rootcast_replica::{ReplicaError, Rule, Update};
use std::sync::Arc;
use support::*;

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    (0..length).map(|_| numbers.next() as u8).collect()
}

/// A publisher whose bundle has outlived its snapshot by two releases.
async fn aged() -> Publisher {
    let publisher = Publisher::new();
    publisher.publish(&[("base", "large", Some(&noise(1, SNAPSHOT_FROM as usize)))]);
    publisher.publish(&[("base", "small", Some(b"one\n"))]);
    publisher.replica.make_snapshots().await.unwrap();
    publisher.publish(&[("base", "small", Some(b"two\n"))]);
    publisher.publish(&[("base", "other", Some(b"three\n"))]);
    publisher
}

fn first(update: &Update) -> &EditHead {
    update.head.listed[0].edit.as_ref().unwrap()
}

fn take(update: &Update) -> Result<Arc<rootcast_replica::Replica>, ReplicaError> {
    let child = replica();
    child.receive(update, &Interest::All, Rule::Follow).map(|_| child)
}

#[tokio::test]
async fn a_cold_child_gets_the_snapshot_made_ahead_and_the_way_from_it() {
    let publisher = aged().await;
    let update = update_of(&publisher.replica, &Interest::All, &nowhere()).await.unwrap();
    let edit = first(&update);
    assert_eq!((edit.base, edit.before.len()), (EditBase::Empty, 1));
    assert!(edit.length < 100, "the way from the snapshot takes {} bytes", edit.length);
    let child = take(&update).unwrap();
    assert_eq!(state(&child), state(&publisher.replica));
    assert_eq!(needed(&child), needed(&publisher.replica));

    // One that stands somewhere is not sent it all again.
    publisher.publish(&[("base", "small", Some(b"four\n"))]);
    let next = update_of(&publisher.replica, &Interest::All, &child.standing(&Interest::All)).await.unwrap();
    assert_eq!((first(&next).base, first(&next).before.len()), (EditBase::Logged, 0));
}

#[tokio::test]
async fn a_parent_passes_on_the_snapshot_that_it_got() {
    let publisher = aged().await;
    let first_update = update_of(&publisher.replica, &Interest::All, &nowhere()).await.unwrap();
    let relay = take(&first_update).unwrap();
    let update = update_of(&relay, &Interest::All, &nowhere()).await.unwrap();
    assert!(first(&update).before.len() == 1 && update.edits == first_update.edits);
    // The very first release is a snapshot itself, however it came.
    let publisher = Publisher::new();
    let draft = publisher.publish(&[("base", "large", Some(&noise(1, SNAPSHOT_FROM as usize)))]);
    let update = update_of(&publisher.replica, &Interest::All, &nowhere()).await.unwrap();
    assert!(update.edits == draft.edits.into_iter().flatten().collect::<Vec<_>>());
    // Until there is a better one.
    publisher.publish(&[("base", "text", Some(&Numbers::new(5).text(SNAPSHOT_FROM as usize * 4)))]);
    let relay = take(&update_of(&publisher.replica, &Interest::All, &nowhere()).await.unwrap()).unwrap();
    let as_it_came = update_of(&relay, &Interest::All, &nowhere()).await.unwrap();
    relay.make_snapshots().await.unwrap();
    let made = update_of(&relay, &Interest::All, &nowhere()).await.unwrap();
    assert!(made.edits[0].len() < as_it_came.edits[0].len());
    assert_eq!(state(&take(&made).unwrap()), state(&publisher.replica));
}

#[tokio::test]
async fn an_outgrown_snapshot_is_not_sent_and_made_anew() {
    let publisher = aged().await;
    publisher.publish(&[("base", "large", Some(&noise(2, SNAPSHOT_FROM as usize)))]);
    let update = update_of(&publisher.replica, &Interest::All, &nowhere()).await.unwrap();
    assert!(first(&update).before.is_empty());
    take(&update).unwrap();
    publisher.replica.make_snapshots().await.unwrap();
    publisher.publish(&[("base", "small", Some(b"five\n"))]);
    let update = update_of(&publisher.replica, &Interest::All, &nowhere()).await.unwrap();
    assert_eq!(first(&update).before.len(), 1);
    assert_eq!(state(&take(&update).unwrap()), state(&publisher.replica));
}

#[tokio::test]
async fn threat_08_a_false_waypoint_leads_nowhere() {
    let publisher = aged().await;
    let good = update_of(&publisher.replica, &Interest::All, &nowhere()).await.unwrap();
    let spoilt = |spoil: fn(&mut Update)| {
        let mut update = good.clone();
        spoil(&mut update);
        take(&update).err().expect("it is refused")
    };
    fn edit(update: &mut Update) -> &mut EditHead {
        update.head.listed[0].edit.as_mut().unwrap()
    }
    spoilt(|update| edit(update).before[0].files += 1);
    spoilt(|update| edit(update).before[0].bytes -= 1);
    spoilt(|update| edit(update).before[0].root = rootcast::tree::empty_root());
    spoilt(|update| edit(update).base = EditBase::Logged);
    spoilt(|update| {
        edit(update).before.clear();
        update.edits.remove(0);
    });
    spoilt(|update| update.edits.swap(0, 1));
    let over = spoilt(|update| edit(update).before[0].bytes = u64::MAX);
    assert!(
        matches!(over, ReplicaError::Refused(_) | ReplicaError::Verify(VerifyError::OverGrant { .. })),
        "{over}"
    );
    spoilt(|update| {
        let waypoint = edit(update).before[0];
        edit(update).before = vec![waypoint; MAX_WAYPOINTS + 1];
        let snapshot = update.edits[0].clone();
        update.edits.splice(0..1, vec![snapshot; MAX_WAYPOINTS + 1]);
    });
    for which in 0..2 {
        for at in (0..good.edits[which].len()).step_by(if which == 0 { 977 } else { 1 }) {
            let mut update = good.clone();
            let mut bytes = update.edits[which].to_vec();
            bytes[at] ^= 0x10;
            update.edits[which] = bytes.into();
            // A flip that leads to the same trees is no harm: the roots are what was signed.
            if let Ok(child) = take(&update) {
                assert_eq!(needed(&child), needed(&publisher.replica), "edit {which} byte {at}");
            }
        }
    }
    // What a failed try left behind is no hindrance.
    let child = replica();
    let mut update = good.clone();
    update.edits[1] = bytes::Bytes::from_static(b"no edit");
    child.receive(&update, &Interest::All, Rule::Follow).unwrap_err();
    child.receive(&good, &Interest::All, Rule::Follow).unwrap();
    assert_eq!(state(&child), state(&publisher.replica));
}

#[tokio::test]
async fn releases_are_kept_while_they_take_little_room_and_eight_in_any_case() {
    let publisher = Publisher::new();
    let mut standings: Vec<Standing> = Vec::new();
    for number in 0..120 {
        // Hardly anything on the wire; this store keeps it as it is.
        publisher.publish(&[("base", "churn", Some(&vec![number; MIB as usize]))]);
        standings.push(publisher.replica.standing(&Interest::All));
        publisher.replica.collect().unwrap();
    }
    let kept = publisher.replica.store().releases().len() as u64;
    assert!((RETAINED_RELEASES..LOGGED_RELEASES).contains(&kept), "{kept} releases kept");
    assert!((60..120).contains(&kept), "of 1 MiB each, twice 32 MiB and what came since: {kept}");
    let mut bases = Vec::new();
    for behind in [50, 119] {
        let standing = &standings[standings.len() - 1 - behind];
        bases.push(first(&update_of(&publisher.replica, &Interest::All, standing).await.unwrap()).base);
    }
    assert_eq!(bases, [EditBase::Held, EditBase::Empty]);
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_stand_alike_get_the_same_update_however_many_ask_at_once() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let far_behind = with_first(&drafts, 2).standing(&Interest::All);
    for standing in [nowhere(), far_behind] {
        let asking: Vec<_> = (0..100)
            .map(|_| {
                let (parent, standing) = (publisher.replica.clone(), standing.clone());
                tokio::spawn(async move { parent.outgoing(&Reader::Relay, &Interest::All, &standing).await })
            })
            .collect();
        let mut made = Vec::new();
        for answer in asking {
            made.push(answer.await.unwrap().unwrap().expect("an update"));
        }
        assert!(made.iter().all(|update| Arc::ptr_eq(update, &made[0])), "made once");
    }
}
