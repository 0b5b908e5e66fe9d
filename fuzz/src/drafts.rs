//! Files that people hand on to be signed: they say nothing that their payload does not, and show no
//! signature that nobody made.

use crate::bounded;
use crate::documents::was_signed;
use crate::golden::{GOLDEN, channel};
use rootcast::draft::{ReleaseDraft, TrustProposal};

/// D-40, D-41: a draft has one form, and keys that it is said to be signed by have signed its payload.
pub(crate) fn release(input: &[u8]) {
    let Ok(draft) = bounded(input, ReleaseDraft::decode) else { return };
    assert_eq!(draft.encode(), input, "K-4");
    let release = draft.release().expect("D-40: what was read has a payload");
    assert_eq!(draft.leaves.len() as u64, release.bundles, "D-40");
    let Ok((keys, threshold)) = draft.signed_by(&GOLDEN.trust) else { return };
    if !keys.is_empty() {
        assert!(GOLDEN.payloads.contains(&draft.payload), "D-41: nobody signed {release:?}");
    }
    if keys.len() as u64 >= threshold && release.channel == channel() {
        let verified = GOLDEN.trust.release(&channel(), &draft.document());
        was_signed(&verified.expect("D-41: what is signed by enough is a release"));
    }
}

/// D-43, D-44: a proposal has one form, and follows the pinned version by versions that were signed.
pub(crate) fn proposal(input: &[u8]) {
    let Ok(proposal) = bounded(input, TrustProposal::decode) else { return };
    assert_eq!(proposal.encode(), input, "K-4");
    let Ok(judged) = proposal.judge(&GOLDEN.pinned) else { return };
    let known = |version: u64| GOLDEN.chain.newest_first().find(|known| known.trust().version == version);
    let base = judged.base.trust();
    assert_eq!(known(base.version).map(|known| known.trust()), Some(base), "D-43: nobody signed {base:?}");
    assert_eq!(judged.trust.version, base.version + 1, "D-43");
    if !judged.signed.keys.is_empty() {
        let signed = known(judged.trust.version).map(|known| known.trust());
        assert_eq!(signed, Some(&judged.trust), "D-44: nobody signed it");
    }
}
