//! Releases and trust documents on their way to being signed (specs/documents.md, D-40 to D-46).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)] // a test

mod signing;

use bytes::Bytes;
use rootcast::cose::DocumentKind;
use rootcast::draft::{DraftError, ReleaseDraft, TrustProposal};
use rootcast::succession::{ChangeError, TrustChange, differences, propose};
use rootcast::trust::{GrantLimits, TrustError};
use signing::*;

const LATER: u64 = ISSUED + 86_400;

/// The second release of a channel that takes two publishers.
fn draft() -> ReleaseDraft {
    let (_, steps) = history(
        "pair",
        &[[("base", tree_one())].into_iter().collect(), [("base", tree_two())].into_iter().collect()],
    );
    let step = &steps[1];
    let edits = step.leaves.iter().map(|leaf| step.edits.get(&leaf.name).cloned().map(Bytes::from)).collect();
    ReleaseDraft::new(PLATFORM, step.release.encode().into(), step.leaves.clone(), edits)
}

fn signature(key: &ed25519_dalek::SigningKey, payload: &[u8]) -> Bytes {
    sign(DocumentKind::Release, PLATFORM, key, payload).into()
}

#[test]
fn d_41_a_draft_takes_each_granted_key_once_and_verifies_at_the_threshold() {
    let mut draft = draft();
    let payload = draft.payload.clone();
    draft.add(signature(&publisher(), &payload), &trust()).unwrap();
    let refused = |draft: &mut ReleaseDraft, signature: Bytes| draft.add(signature, &trust()).unwrap_err();
    assert!(matches!(refused(&mut draft, signature(&publisher(), &payload)), DraftError::Again(_)));
    assert!(matches!(refused(&mut draft, signature(&stranger(), &payload)), DraftError::Stranger { .. }));
    let other = signature(&second_publisher(), b"another payload");
    assert!(matches!(draft.add(other, &trust()), Err(DraftError::Signature(_))));
    assert_eq!(draft.signed_by(&trust()).unwrap().0.len(), 1, "what is refused leaves nothing behind");
    assert!(trust().release(&channel("pair"), &draft.document()).is_err());
    draft.add(signature(&second_publisher(), &payload), &trust()).unwrap();
    assert_eq!(ReleaseDraft::decode(&draft.encode()).unwrap(), draft);
    let release = trust().release(&channel("pair"), &draft.document()).unwrap();
    assert_eq!(release.accepted().hash, draft.hash());
}

#[test]
fn d_40_a_draft_whose_leaves_are_not_the_signed_ones_is_refused() {
    let good = draft();
    let mut leaves = good.clone();
    leaves.leaves[0].files += 1;
    let mut edits = good.clone();
    edits.edits.push(None);
    for (spoiled, what) in [(leaves, "bundles"), (edits, "edits")] {
        let error = ReleaseDraft::decode(&spoiled.encode()).unwrap_err();
        assert!(matches!(error, DraftError::Inconsistent(reason) if reason.contains(what)), "{error}");
    }
    let bytes = good.encode();
    for end in 0..bytes.len().min(400) {
        assert!(ReleaseDraft::decode(&bytes[..end]).is_err());
    }
    assert!(matches!(TrustProposal::decode(&bytes), Err(DraftError::Codec { .. } | DraftError::Kind(_))));
    let proposal = TrustProposal::new(&chain(), &proposed(&[]).unwrap()).unwrap().encode();
    assert!(matches!(ReleaseDraft::decode(&proposal), Err(DraftError::Codec { .. } | DraftError::Kind(_))));
}

fn proposed(changes: &[TrustChange]) -> Result<rootcast::trust::Trust, ChangeError> {
    propose(&chain(), changes, LATER, trust_fields().expires)
}

#[test]
fn d_43_a_proposal_counts_old_and_new_roots_and_is_refused_when_it_is_behind() {
    let change = [TrustChange::AddRoot(public(&key(9))), TrustChange::RootThreshold(3)];
    let mut proposal = TrustProposal::new(&chain(), &proposed(&change).unwrap()).unwrap();
    let payload = proposal.payload.clone();
    let by = |key: &ed25519_dalek::SigningKey| -> Bytes {
        sign(DocumentKind::Trust, PLATFORM, key, &payload).into()
    };
    let refused = proposal.add(by(&publisher()), &chain()).unwrap_err();
    assert!(matches!(refused, DraftError::Stranger { .. }));
    let mut counts = Vec::new();
    for root in [key(1), key(9), key(2)] {
        let judged = proposal.add(by(&root), &chain()).unwrap();
        counts.push((judged.signed.before.0, judged.signed.after.0, judged.signed.is_enough()));
    }
    assert_eq!(counts, [(1, 1, false), (1, 2, false), (2, 3, true)]);
    assert!(matches!(proposal.add(by(&key(1)), &chain()), Err(DraftError::Again(_))));
    let mut next = chain();
    next.extend(&proposal.document()).unwrap();
    assert!(matches!(proposal.judge(&next), Err(DraftError::Behind { version: 2, known: 2 })));
    // Who knows the first version alone judges a later proposal by the chain that it carries.
    let third = propose(&next, &[], LATER, trust_fields().expires).unwrap();
    let mut third = TrustProposal::new(&next, &third).unwrap();
    assert_eq!(third.judge(&chain()).unwrap().base.trust().version, 2);
    third.chain[0] = sign_trust(&trust_fields()).0.into();
    assert!(matches!(third.judge(&chain()), Err(DraftError::Trust(_))), "a false chain");
}

#[test]
fn d_45_what_nobody_could_use_is_not_proposed() {
    let prod = || channel("prod");
    let id = |key: &ed25519_dalek::SigningKey| public(key).id();
    let unusable: &[&[TrustChange]] = &[
        &[
            TrustChange::RemovePublisher(prod(), id(&publisher())),
            TrustChange::RemovePublisher(prod(), id(&second_publisher())),
        ],
        &[TrustChange::RemovePublisher(channel("pair"), id(&publisher()))],
        &[TrustChange::Threshold(prod(), 3)],
        &[TrustChange::RemoveRoot(id(&key(1)))],
        &[TrustChange::RemoveHead(id(&head_key()))],
    ];
    for changes in unusable {
        assert!(matches!(proposed(changes), Err(ChangeError::Unusable { .. })), "{changes:?}");
    }
    let there = TrustChange::AddPublisher(prod(), public(&publisher()));
    assert!(matches!(proposed(&[there]), Err(ChangeError::There { .. })));
    let gone = TrustChange::RemovePublisher(prod(), id(&stranger()));
    assert!(matches!(proposed(&[gone]), Err(ChangeError::NotThere { .. })));
    let nowhere = TrustChange::Threshold(channel("nowhere"), 1);
    assert!(matches!(proposed(&[nowhere]), Err(ChangeError::NoGrant { .. })));
    for changes in [
        vec![TrustChange::Grant(channel("prod/a"), vec![public(&stranger())])],
        vec![TrustChange::Threshold(prod(), 0)],
        ["prod", "pair", "team"].map(|name| TrustChange::Revoke(channel(name))).to_vec(),
    ] {
        assert!(matches!(proposed(&changes), Err(ChangeError::Trust(_))), "{changes:?}");
    }
    let expired = propose(&chain(), &[], LATER, LATER);
    assert!(matches!(expired, Err(ChangeError::Trust(TrustError::Unsound(_)))));
}

#[test]
fn d_45_a_grant_that_comes_back_keeps_the_epoch_that_replicas_remember() {
    let fields = |changes: &[TrustChange], known: &rootcast::trust::TrustChain| {
        propose(known, changes, LATER, trust_fields().expires).unwrap()
    };
    let mut known = chain();
    for changes in [vec![TrustChange::NewEpoch(channel("team"))], vec![TrustChange::Revoke(channel("team"))]]
    {
        known.extend(&sign_trust(&fields(&changes, &known)).0).unwrap();
    }
    let again = fields(&[TrustChange::Grant(channel("team/a"), vec![public(&stranger())])], &known);
    assert_eq!(again.grant(&channel("team/a")).unwrap().epoch, 2);
}

#[test]
fn d_46_each_change_is_told_and_nothing_else() {
    let base = trust_fields();
    let prod = || channel("prod");
    let small = GrantLimits { files: 1, bytes: 1, file_size: 1 };
    let cases = [
        (
            TrustChange::AddPublisher(prod(), public(&stranger())),
            vec!["+ grant `prod`: key ", "~ grant `prod`, threshold: 1 of 2 must sign -> 1 of 3"],
        ),
        (
            TrustChange::RemovePublisher(prod(), public(&publisher()).id()),
            vec!["- grant `prod`: key ", "~ grant `prod`, threshold"],
        ),
        (TrustChange::Threshold(prod(), 2), vec!["~ grant `prod`, threshold: 1 of 2 must sign -> 2 of 2"]),
        (TrustChange::NewEpoch(prod()), vec!["~ grant `prod`, epoch: 1 -> 2"]),
        (TrustChange::Limits(prod(), small), vec!["~ grant `prod`, limits: "]),
        (TrustChange::Symlinks(prod(), false), vec!["~ grant `prod`, symbolic links: true -> false"]),
        (TrustChange::Revoke(prod()), vec!["- grant `prod`: 1 of "]),
        (TrustChange::Grant(channel("new"), vec![public(&stranger())]), vec!["+ grant `new`: 1 of "]),
        (TrustChange::AddRoot(public(&stranger())), vec!["+ root keys: key ", "~ root keys, threshold"]),
        (TrustChange::AddHead(public(&stranger())), vec!["+ head keys: key ", "~ head keys, threshold"]),
    ];
    for (change, expected) in cases {
        let told = differences(&base, &proposed(&[change]).unwrap());
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (line, start) in told.iter().zip(expected) {
            assert!(line.starts_with(start), "{line}");
        }
    }
    assert_eq!(differences(&base, &proposed(&[]).unwrap()), []);
}
