//! The succession of trust, epochs, heads and freshness (specs/documents.md, D-16 to D-36).
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

mod signing;

use bytes::Bytes;
use rootcast::acceptance::{Accepted, Floors, Offer, Refusal, Verdict, judge};
use rootcast::cose::{DocumentKind, SignatureError};
use rootcast::head::{Freshness, HeadRefusal, judge_head, lower_bound};
use rootcast::id::ReleaseHash;
use rootcast::limits::{MAX_NUMBER, MAX_TRUST_VERSIONS};
use rootcast::trust::{Trust, TrustError};
use rootcast::verify::VerifyError;
use signing::succession::*;
use signing::*;

#[test]
fn d_20_versions_follow_one_by_one() {
    let mut chain = chain();
    assert_eq!(chain.after(0).count(), 1);
    chain.extend(&second()).unwrap();
    chain.extend(&third()).unwrap();
    assert_eq!(chain.newest().trust(), &third_fields());
    assert_eq!(chain.after(1).cloned().collect::<Vec<_>>(), [second(), third()]);
    assert_eq!(chain.fingerprint(), trust().hash());
    for document in [&second(), &third(), chain.after(0).next().unwrap().as_ref()] {
        chain.check(document).unwrap();
    }
}

#[test]
fn threat_05_a_version_that_is_skipped_or_not_signed_by_its_predecessor_is_refused() {
    let first = trust();
    let skipped = first.next(&third()).unwrap_err();
    assert_eq!(skipped, TrustError::Version { got: 3, want: 2 });
    let unsigned = first.next(&sign_trust_with(&second_fields(), &[key(1), new_root()])).unwrap_err();
    assert!(matches!(
        unsigned,
        TrustError::Predecessor { version: 2, source: SignatureError::TooFew { got: 1, .. } }
    ));
    for (name, reason, document) in not_second() {
        assert!(first.next(&document).is_err(), "{name}: {reason}");
        let mut chain = chain();
        assert!(chain.extend(&document).is_err(), "{name}");
        assert_eq!(**chain.newest(), first, "{name}: what was in force stays");
    }
}

#[test]
fn threat_05_an_epoch_does_not_go_back() {
    let mut chain = chain();
    chain.extend(&second()).unwrap();
    let mut back = third_fields();
    back.grants[0].epoch = 1;
    let signed = |trust: &Trust| sign_trust_with(trust, &[key(1), new_root()]);
    let refused = chain.newest().next(&signed(&back)).unwrap_err();
    assert!(matches!(refused, TrustError::Succession { version: 3, .. }), "{refused}");
    // Nor by another prefix that covers the same channels.
    back.grants[0].prefix = channel("prod/eu");
    assert!(chain.newest().next(&signed(&back)).is_err());
    back.grants[0].epoch = 3;
    chain.newest().next(&signed(&back)).unwrap();
}

#[test]
fn threat_05_every_flipped_bit_of_a_version_is_refused() {
    let (first, document) = (trust(), second());
    for at in 0..document.len() {
        for bit in [at % 8, (at + 3) % 8] {
            let mut changed = document.clone();
            changed[at] ^= 1 << bit;
            assert!(first.next(&changed).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn threat_05_a_version_at_the_end_of_numbers_does_not_overflow() {
    let with =
        |version| sign_trust_with(&Trust { version, ..second_fields() }, &[key(1), key(2), new_root()]);
    for version in [0, MAX_NUMBER, MAX_NUMBER + 1, u64::MAX] {
        assert!(trust().next(&with(version)).is_err(), "{version}");
    }
    assert!(MAX_TRUST_VERSIONS as u64 <= MAX_NUMBER);
}

#[test]
fn tuf_key_compromise_a_replaced_publisher_signs_nothing_any_more() {
    let (_, history) = prod_history();
    let mut chain = chain();
    chain.extend(&second()).unwrap();
    let (prod, document) = (channel("prod"), &history[0].document);
    let refused = chain.newest().release(&prod, document).unwrap_err();
    assert!(matches!(refused, VerifyError::Signature(SignatureError::TooFew { got: 0, .. })), "{refused}");
    // What was accepted under version 1 is still known to be good.
    assert_eq!(chain.known_release(&prod, document).unwrap().trust_version(), 1);
    let mut next = release("prod", 4, Some(history[2].release_accepted().hash), &history[2].leaves);
    next.epoch = 2;
    chain.newest().release(&prod, &sign_release(&second_publisher(), &next)).unwrap();
    assert!(chain.newest().release(&prod, &sign_release(&publisher(), &next)).is_err());
}

#[test]
fn tuf_key_compromise_a_release_of_another_epoch_is_refused() {
    let mut chain = chain();
    chain.extend(&second()).unwrap();
    let (_, history) = prod_history();
    for epoch in [1, 3] {
        let mut other = history[0].release.clone();
        other.epoch = epoch;
        let refused = chain.newest().release(&channel("prod"), &sign_release(&second_publisher(), &other));
        assert_eq!(refused.unwrap_err(), VerifyError::Epoch { got: epoch, want: 2 });
    }
}

/// A thief who drove the number up to the end: the next epoch begins below it.
#[test]
fn tuf_fast_forward_and_threat_09_a_new_epoch_is_the_way_back() {
    let hash = |n| ReleaseHash::from_bytes([n; 32]);
    let far = Accepted { epoch: 1, number: MAX_NUMBER, hash: hash(9) };
    let floors = Floors { trust_version: 1, head_epoch: 1, head_sequence: MAX_NUMBER, release: Some(far) };
    let offer =
        |epoch, number| Offer { release: Accepted { epoch, number, hash: hash(1) }, previous: Some(hash(2)) };
    assert_eq!(judge(&floors, &offer(1, 44)), Err(Refusal::Rollback { offered: 44, floor: MAX_NUMBER }));
    assert_eq!(judge(&floors, &offer(2, 44)), Ok(Verdict::Jump));
    let next = Floors {
        trust_version: 2,
        head_epoch: 2,
        head_sequence: 1,
        release: Some(Accepted { epoch: 2, number: 44, hash: hash(1) }),
    };
    assert!(floors.may_become(&next) && !next.may_become(&floors));
    assert_eq!(judge(&next, &offer(1, 45)), Err(Refusal::Epoch { number: 45, offered: 1, floor: 2 }));
}

fn verified(head: &rootcast::head::Head) -> rootcast::head::VerifiedHead {
    trust().head(&channel("prod"), &sign_head(head)).unwrap()
}

#[test]
fn d_31_a_head_verifies_by_the_online_key_alone() {
    let (_, history) = prod_history();
    let head = head_of(&history[2], 3);
    assert_eq!(verified(&head).head(), &head);
    let by = |key| Bytes::from(sign(DocumentKind::Head, PLATFORM, &key, &head.encode()));
    for other in [publisher(), key(1), stranger()] {
        assert!(matches!(trust().head(&channel("prod"), &by(other)), Err(VerifyError::Head(_))));
    }
    // And that key signs nothing else.
    let release =
        Bytes::from(sign(DocumentKind::Release, PLATFORM, &head_key(), &history[0].release.encode()));
    assert!(trust().release(&channel("prod"), &release).is_err());
    // After version 3 took its place, the old online key is nobody's.
    let mut chain = chain();
    chain.extend(&second()).unwrap();
    chain.extend(&third()).unwrap();
    assert!(chain.newest().head(&channel("prod"), &by(head_key())).is_err());
}

#[test]
fn tuf_rollback_of_a_head_and_two_heads_of_one_sequence_are_refused() {
    let (_, history) = prod_history();
    let (older, newer) = (verified(&head_of(&history[1], 2)), verified(&head_of(&history[2], 3)));
    let none = Floors::default();
    assert_eq!(judge_head(&none, None, &newer), Ok(true));
    let floors = Floors { head_epoch: 1, head_sequence: 3, ..none };
    let refused = judge_head(&floors, Some(&newer), &older);
    assert_eq!(refused, Err(HeadRefusal::Rollback { offered: 2, floor: 3 }));
    assert_eq!(judge_head(&floors, Some(&newer), &newer), Ok(false));
    assert_eq!(judge_head(&floors, None, &newer), Ok(true), "one that was lost may come again");
    let twin = verified(&head_of(&history[1], 3));
    assert_eq!(judge_head(&floors, Some(&newer), &twin), Err(HeadRefusal::Equivocation { sequence: 3 }));
}

#[test]
fn tuf_freeze_and_threat_07_a_lapsed_head_is_stale_whatever_the_clock_says() {
    let (_, history) = prod_history();
    let (head, expires) = (head_of(&history[2], 3), trust_fields().expires);
    let of = |now| Freshness::of(Some(&head), expires, now);
    assert_eq!(of(head.issued), Freshness::Fresh { until: head.expires });
    assert_eq!(of(head.expires - 1), Freshness::Fresh { until: head.expires });
    for now in [head.expires, head.expires + 1, u64::MAX] {
        assert_eq!(of(now), Freshness::Stale);
    }
    assert_eq!(Freshness::of(None, expires, head.issued), Freshness::Stale, "no head yet");
    assert_eq!(
        Freshness::of(Some(&head), head.issued, head.issued),
        Freshness::Stale,
        "the trust has lapsed"
    );
    // A clock that is set back: what was signed later holds it up.
    assert_eq!(lower_bound(0, [head.issued, 5]), head.issued);
    assert_eq!(lower_bound(head.expires, [head.issued]), head.expires);
}

#[test]
fn d_33_a_head_replaces_another_after_a_fourth_of_its_validity() {
    let (_, history) = prod_history();
    let head = head_of(&history[2], 3);
    assert!(head.replaces(head.issued - 86_400 / 4));
    assert!(!head.replaces(head.issued - 86_400 / 4 + 1));
    assert!(!head.replaces(head.issued + 5), "one from the future is not replaced sooner");
}
