//! A compact head is rebuilt exactly, or its signature does not verify.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod signing;

use bytes::Bytes;
use rootcast::codec;
use rootcast::compact::{Before, CompactHead};
use rootcast::limits::MAX_FRAME;
use rootcast::protocol::{EditBase, EditHead, ListedBundle, UpdateHead, UpdateMessage};
use rootcast::release::BundleLeaf;
use rootcast::trust::VerifiedTrust;
use rootcast::verify::VerifiedBundles;
use signing::{Step, channel, prod_history, trust};

/// The bundles of a release that a child with these leaves holds.
fn held(trust: &VerifiedTrust, step: &Step, indices: &[u64]) -> VerifiedBundles {
    let release = trust.release(&channel("prod"), &step.document).unwrap();
    release.bundles(step.known(indices), &step.proof(indices)).unwrap()
}

/// The whole head that brings such a child to the next release.
fn head(before: &Step, step: &Step, indices: &[u64]) -> (UpdateHead, Vec<Bytes>) {
    let (mut listed, mut edits) = (Vec::new(), Vec::new());
    for index in indices {
        let leaf: &BundleLeaf = &step.leaves[*index as usize];
        if before.leaves[*index as usize] == *leaf {
            continue;
        }
        let edit = Bytes::from(step.edits[&leaf.name].clone());
        let edit_head = EditHead { base: EditBase::Logged, length: edit.len() as u64, before: Vec::new() };
        listed.push(ListedBundle { index: *index, leaf: leaf.clone(), edit: Some(edit_head) });
        edits.push(edit);
    }
    let siblings = step.proof(indices);
    (
        UpdateHead { subscription: 3, release: step.document.clone(), listed, keep_others: true, siblings },
        edits,
    )
}

const SUBSETS: [&[u64]; 6] = [&[0], &[1], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]];

#[test]
fn what_is_left_out_is_rebuilt_exactly() {
    let (_, steps) = prod_history();
    let trust = trust();
    for pair in steps.windows(2) {
        for indices in SUBSETS {
            let child = held(&trust, &pair[0], indices);
            let before = Before::new(&child, |_| true);
            let (head, edits) = head(&pair[0], &pair[1], indices);
            let compact = before.compact(&head, &edits).expect("the next release can be compact");
            assert_eq!(before.expand(&compact, &edits).as_ref(), Some(&head));
            let (short, long) = (UpdateMessage::Compact(compact), UpdateMessage::Whole(head));
            let (short_bytes, long_bytes) = (codec::encode(&short), codec::encode(&long));
            assert_eq!(codec::decode::<UpdateMessage>(&short_bytes, MAX_FRAME), Ok(short));
            assert_eq!(codec::decode::<UpdateMessage>(&long_bytes, MAX_FRAME), Ok(long));
            assert!(short_bytes.len() + 100 < long_bytes.len(), "{} {}", short_bytes.len(), long_bytes.len());
        }
    }
}

#[test]
fn what_cannot_be_rebuilt_is_not_left_out() {
    let (_, steps) = prod_history();
    let trust = trust();
    let child = held(&trust, &steps[0], &[0, 1, 2]);
    let before = Before::new(&child, |_| true);
    // Two releases ahead.
    let (far, edits) = head(&steps[0], &steps[2], &[1, 2]);
    assert_eq!(before.compact(&far, &edits), None);
    // A snapshot in place of the log's edit, another edit, and a list that is all there is.
    let (good, edits) = head(&steps[0], &steps[1], &[0, 1, 2]);
    let mut snapshot = good.clone();
    snapshot.listed[0].edit =
        Some(EditHead { base: EditBase::Empty, length: edits[0].len() as u64, before: Vec::new() });
    assert_eq!(before.compact(&snapshot, &edits), None);
    assert_eq!(before.compact(&good, &[Bytes::from_static(b"another")]), None);
    let all = UpdateHead { keep_others: false, ..good.clone() };
    assert_eq!(before.compact(&all, &edits), None);
    // A child that does not hold the bundle that changed.
    let child = held(&trust, &steps[0], &[1]);
    assert_eq!(Before::new(&child, |_| true).compact(&good, &edits), None);
}

#[test]
fn threat_12_any_flipped_bit_of_a_compact_head_or_its_edits_is_refused() {
    let (_, steps) = prod_history();
    let trust = trust();
    for indices in SUBSETS {
        let child = held(&trust, &steps[0], indices);
        let before = Before::new(&child, |_| true);
        let (head, edits) = head(&steps[0], &steps[1], indices);
        let compact = before.compact(&head, &edits).unwrap();
        let bytes = codec::encode(&compact);
        // Subscription and lengths say how to read a stream, and are not signed.
        let unsigned = |other: &CompactHead| {
            let mut other = other.clone();
            other.subscription = compact.subscription;
            for (other, ours) in other.listed.iter_mut().zip(&compact.listed) {
                other.length = ours.length;
            }
            other == compact
        };
        let verifies = |compact: &CompactHead, edits: &[Bytes]| {
            let Some(head) = before.expand(compact, edits) else { return false };
            let mut leaves = child.leaves().clone();
            leaves.extend(head.listed.iter().map(|listed| (listed.index, listed.leaf.clone())));
            let release = trust.release(&channel("prod"), &head.release);
            release.is_ok_and(|release| release.bundles(leaves, &head.siblings).is_ok())
        };
        assert!(verifies(&compact, &edits));
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            if let Ok(bad) = codec::decode::<CompactHead>(&bad, MAX_FRAME) {
                assert!(unsigned(&bad) || !verifies(&bad, &edits), "bit {at}");
            }
        }
        for (which, edit) in edits.iter().enumerate() {
            for at in 0..edit.len() {
                let mut bad = edits.clone();
                let mut bytes = edit.to_vec();
                bytes[at] ^= 1;
                bad[which] = bytes.into();
                assert!(!verifies(&compact, &bad), "edit {which} byte {at}");
            }
        }
    }
}
