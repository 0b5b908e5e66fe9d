//! Attacks by the names that The Update Framework gives them, where no other file has them (docs/attacks.md).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks are what is tested

mod support;

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use rootcast::acceptance::Refusal;
use rootcast::cose::{self, DocumentKind, SignatureError};
use rootcast::id::{KeyId, PlatformId};
use rootcast::protocol::Interest;
use rootcast::verify::VerifyError;
use rootcast_replica::{ReplicaError, Rule, Update};
use rootcast_store::{DiskStore, MemoryStore, Store};
use std::sync::Arc;
use support::*;

/// A release signed by a key made of this byte, for a platform, as the kind given.
fn signed(draft: &Draft, kind: DocumentKind, platform: PlatformId, seed: u8) -> Bytes {
    let (key, payload) = (SigningKey::from_bytes(&[seed; 32]), draft.release.encode());
    let id = KeyId::of(key.verifying_key().as_bytes());
    let signature = key.sign(&cose::to_be_signed(kind, platform, id, &payload)).to_bytes();
    cose::assemble(kind, id, &payload, &signature).into()
}

/// Keys of the platform that may sign other things, and no release: the root's, the head's.
const ROOT: u8 = 1;
const PUBLISHER: u8 = 2;
const HEAD: u8 = 3;
const STRANGER: u8 = 9;

#[test]
fn tuf_arbitrary_installation_only_a_granted_key_makes_a_release() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let store = Arc::new(MemoryStore::new());
    let replica = with_first_over(store.clone(), &drafts, 3);
    let (before, objects) = (state(&replica), store.stats().objects);
    let good = drafts[3].update();
    let offer = |release: Bytes| {
        let mut update = good.clone();
        update.head.release = release;
        let error = replica.receive(&update, &Interest::All, Rule::Follow).unwrap_err();
        assert_eq!((state(&replica), store.stats().objects), (before.clone(), objects), "{error}");
        let ReplicaError::Verify(VerifyError::Signature(error)) = error else { panic!("{error}") };
        error
    };
    let release = DocumentKind::Release;
    for seed in [ROOT, HEAD, STRANGER] {
        let refused = offer(signed(&drafts[3], release, PLATFORM, seed));
        assert!(matches!(refused, SignatureError::TooFew { got: 0, .. }), "{refused}");
    }
    let other = PlatformId::from_bytes([8; 16]);
    let refused = offer(signed(&drafts[3], release, other, PUBLISHER));
    assert!(matches!(refused, SignatureError::Invalid(_)), "{refused}");
    let refused = offer(signed(&drafts[3], DocumentKind::Trust, PLATFORM, PUBLISHER));
    assert!(matches!(refused, SignatureError::Header { .. }), "{refused}");
    // The signature is the publisher's own, and of another release.
    let mut swapped = drafts[2].document().to_vec();
    let (length, good_document) = (swapped.len(), drafts[3].document());
    assert_eq!(length, good_document.len());
    swapped[..length - 64].copy_from_slice(&good_document[..length - 64]);
    assert!(matches!(offer(swapped.into()), SignatureError::Invalid(_)));
    assert_eq!(signed(&drafts[3], release, PLATFORM, PUBLISHER), good_document);
    replica.receive(&good, &Interest::All, Rule::Follow).unwrap();
}

#[test]
fn tuf_mix_and_match_bundles_of_two_releases_do_not_make_one() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let mut tried = 0;
    for (newer, older) in [(4, 3), (3, 2), (4, 2)] {
        let replica = with_first(&drafts, newer);
        let before = state(&replica);
        let good = drafts[newer].update();
        for at in 0..good.head.listed.len() {
            let old = &drafts[older].leaves[at];
            let listed = &good.head.listed[at];
            assert_eq!(listed.leaf.name, old.name, "all have the same bundles");
            if listed.leaf == *old {
                continue;
            }
            // The older leaf, which was signed too, with and without what the newer edit brings.
            for with_edit in [true, false] {
                let mut mixed: Update = good.clone();
                mixed.head.listed[at].leaf = old.clone();
                if !with_edit && mixed.head.listed[at].edit.take().is_some() {
                    let edits = good.head.listed[..at].iter().filter(|listed| listed.edit.is_some());
                    mixed.edits.remove(edits.count());
                }
                let error = replica.receive(&mixed, &Interest::All, Rule::Follow).unwrap_err();
                let is_proof = matches!(error, ReplicaError::Verify(VerifyError::Proof { .. }));
                assert!(is_proof, "{} of {older} in {newer}: {error}", old.name);
                assert_eq!(state(&replica), before);
                tried += 1;
            }
        }
        replica.receive(&good, &Interest::All, Rule::Follow).unwrap();
    }
    assert!(tried >= 8, "{tried}");
}

#[test]
fn tuf_rollback_an_older_release_is_refused_after_a_restart_too() {
    let publisher = Publisher::new();
    let drafts = history(&publisher);
    let directory = tempfile::tempdir().unwrap();
    let opened = || Arc::new(DiskStore::open(directory.path()).unwrap());
    drop(with_first_over(opened(), &drafts, 4));
    let replica = replica_over(opened());
    let before = state(&replica);
    assert_eq!(replica.floors().number(), 4);
    for draft in &drafts[..3] {
        let error = replica.receive(&draft.update(), &Interest::All, Rule::Follow).unwrap_err();
        assert!(matches!(error, ReplicaError::Refused(Refusal::Rollback { floor: 4, .. })), "{error}");
        assert_eq!(state(&replica), before);
    }
    replica.receive(&drafts[4].update(), &Interest::All, Rule::Follow).unwrap();
}

#[tokio::test]
async fn tuf_malicious_mirrors_a_parent_that_hides_the_plan_is_made_up_for_by_the_next() {
    let publisher = Publisher::new();
    history(&publisher);
    let (asked, child) = (named(&["base", "plan"]), replica());
    let hiding = update_of(&publisher.replica, &named(&["base"]), &nowhere()).await.unwrap();
    child.receive(&hiding, &asked, Rule::Follow).unwrap();
    assert!(!child.standing(&asked).whole.contains(&bundle("plan")), "it does not claim to have it");
    let rest = update_of(&publisher.replica, &asked, &child.standing(&asked)).await.unwrap();
    child.receive(&rest, &asked, Rule::Follow).unwrap();
    let whole = state(&child);
    assert_eq!(whole.2.len(), 2);
    // The same release again, with less: what is held stays.
    let _ = child.receive(&hiding, &asked, Rule::Follow);
    assert_eq!(state(&child), whole, "a parent cannot take away what is held");
}
