//! Signed documents: nothing verifies that was not signed, and what is read has one form.

use crate::bounded;
use crate::golden::{GOLDEN, channel};
use bytes::Bytes;
use rootcast::codec;
use rootcast::cose::{self, DocumentKind, KeySet};
use rootcast::denials::{Denials, VerifiedDenials};
use rootcast::head::Head;
use rootcast::id::KeyId;
use rootcast::join::Claimed;
use rootcast::limits::{MAX_DOCUMENT, MAX_RELEASE_RECORD};
use rootcast::release::Release;
use rootcast::trust::{Trust, VerifiedTrust};
use rootcast::verify::{ReleaseRecord, VerifiedBundles, VerifiedRelease};

/// D-9, D-22: a release that verifies is one that was signed.
pub(crate) fn was_signed(release: &VerifiedRelease) {
    let payload = release.release().encode();
    assert!(
        GOLDEN.payloads.iter().any(|known| *known == payload),
        "D-22: nobody signed {:?}",
        release.release()
    );
}

/// D-23: leaves that verify are those of a release that was signed.
pub(crate) fn were_signed(bundles: &VerifiedBundles) {
    was_signed(bundles.release());
    assert!(!bundles.leaves().is_empty(), "D-15: a proof of no leaf");
    for leaf in bundles.leaves().values() {
        assert!(GOLDEN.leaves.contains(leaf), "D-23: nobody signed {leaf:?}");
        assert_eq!(bundles.leaf(&leaf.name), Some(leaf));
    }
}

/// D-2, D-3: COSE_Sign1 items that are read are the ones that we would write.
pub(crate) fn cose(input: &[u8]) {
    for kind in [DocumentKind::Release, DocumentKind::Trust] {
        let Ok(signatures) = bounded(input, |input| cose::signatures(kind, input)) else { continue };
        let payload = cose::unverified_payload(kind, input).expect("what has signatures has a payload");
        let again: Vec<u8> =
            signatures.iter().flat_map(|(key, bytes)| cose::assemble(kind, *key, &payload, bytes)).collect();
        // Unverified, each item may have a payload of its own; the last one's is returned.
        assert!(signatures.len() > 1 || again == input, "D-3: another form of the same document");
        let platform = GOLDEN.trust.trust().platform;
        for grant in &GOLDEN.trust.trust().grants {
            if let Ok(verified) = cose::verify(kind, platform, input, &grant.publishers) {
                assert_eq!(again, input, "D-9: payloads of one document differ");
                assert!(GOLDEN.payloads.contains(&verified), "D-9: nobody signed {verified:02x?}");
            }
        }
    }
}

/// D-10, D-22: the payload has one form, and a release that verifies was signed.
pub(crate) fn release(input: &[u8]) {
    if let Ok(release) = bounded(input, Release::decode) {
        assert_eq!(release.encode(), input, "K-4");
    }
    if let Ok(verified) = GOLDEN.trust.release(&channel(), &Bytes::copy_from_slice(input)) {
        was_signed(&verified);
    }
}

/// D-16 to D-20: the payload has one form and is sound, and only the pinned document is trusted.
pub(crate) fn trust(input: &[u8]) {
    // As a payload, under a signature that says nothing, so that what is looked for is past the signature.
    let document = cose::assemble(DocumentKind::Trust, KeyId::from_bytes([7; 8]), input, &[0; 64]);
    if let Ok((trust, _)) = bounded(&document, Trust::unverified) {
        assert_eq!(trust.encode(), input, "K-4");
        trust.check().expect("D-20: what was read is sound");
        for grant in &trust.grants {
            assert_eq!(trust.grant(&grant.prefix), Some(grant), "D-18: two grants cover one channel");
        }
    }
    if let Ok(verified) = VerifiedTrust::pinned(input, GOLDEN.fingerprint) {
        assert_eq!(verified, GOLDEN.trust, "D-20: another document under the pinned fingerprint");
    }
}

/// D-20: nothing follows version 1 but the version 2 that both thresholds signed.
pub(crate) fn trust_next(input: &[u8]) {
    let golden = &*GOLDEN; // read before what is counted
    let Ok(next) = bounded(input, |input| golden.trust.next(input)) else { return };
    let known = GOLDEN.chain.newest_first().any(|version| version.trust() == next.trust());
    assert!(known, "D-20: nobody signed {:?}", next.trust());
}

/// D-31: the payload has one form, and a head that verifies was signed.
pub(crate) fn head(input: &[u8]) {
    if let Ok(head) = bounded(input, Head::decode) {
        assert_eq!(head.encode(), input, "K-4");
        assert!(head.validity() > 0, "D-31: it expires later");
    }
    if let Ok(verified) = GOLDEN.trust.head(&channel(), &Bytes::copy_from_slice(input)) {
        let payload = verified.head().encode();
        assert!(
            GOLDEN.heads.iter().any(|known| *known == payload),
            "D-31: nobody signed {:?}",
            verified.head()
        );
    }
}

/// J-41: the payload has one form and is sound, and nothing verifies: the golden online key signed none.
pub(crate) fn denials(input: &[u8]) {
    if let Ok(denials) = bounded(input, |input| codec::decode::<Denials>(input, MAX_DOCUMENT)) {
        assert_eq!(denials.encode(), input, "K-4");
    }
    assert!(VerifiedDenials::verify(input, GOLDEN.trust.trust(), 0).is_err(), "J-42");
}

/// J-9: a request that is read has one form, and says no more than it was signed for.
pub(crate) fn join_request(input: &[u8]) {
    let Ok(claimed) = bounded(input, Claimed::read) else { return };
    let platform = GOLDEN.trust.trust().platform;
    if let Ok(proved) = claimed.verify(platform, None) {
        let key = &proved.request().key;
        let payload =
            cose::unverified_payload(DocumentKind::Join, input).expect("what is proved has a payload");
        let keys = KeySet { threshold: 1, keys: vec![key.clone()] };
        assert_eq!(
            cose::verify(DocumentKind::Join, platform, input, &keys),
            Ok(payload),
            "J-9: its own key signed it"
        );
    }
}

/// D-28: a record has one form, and one that verifies holds what was signed.
pub(crate) fn record(input: &[u8]) {
    let decode = |input: &[u8]| codec::decode::<ReleaseRecord>(input, MAX_RELEASE_RECORD);
    let Ok(record) = bounded(input, decode) else { return };
    assert_eq!(codec::encode(&record), input, "K-4");
    if let Ok(bundles) = record.verify(&GOLDEN.chain, &channel()) {
        were_signed(&bundles);
    }
}
