//! Later versions of the platform's trust, and what must not pass for one.

use super::*;

/// A root key that version 2 puts in the place of the second.
pub fn new_root() -> SigningKey {
    key(7)
}

/// Version 2: another second root key, only the second publisher for `prod`, and a new epoch there.
pub fn second_fields() -> Trust {
    let mut trust = trust_fields();
    trust.version = 2;
    trust.issued += 86_400;
    trust.roots = keys(2, &[key(1), new_root()]);
    trust.grants[0].publishers = keys(1, &[second_publisher()]);
    trust.grants[0].epoch = 2;
    trust
}

/// Version 3: as version 2, with another online key.
pub fn third_fields() -> Trust {
    Trust { version: 3, heads: keys(1, &[key(8)]), ..second_fields() }
}

pub fn sign_trust_with(trust: &Trust, signers: &[SigningKey]) -> Vec<u8> {
    let payload = trust.encode();
    signers.iter().flat_map(|key| sign(DocumentKind::Trust, trust.platform, key, &payload)).collect()
}

/// Version 2, signed by thresholds of versions 1 and 2.
pub fn second() -> Vec<u8> {
    sign_trust_with(&second_fields(), &[key(1), key(2), new_root()])
}

/// Version 3, signed by those of version 2, which are its own.
pub fn third() -> Vec<u8> {
    sign_trust_with(&third_fields(), &[key(1), new_root()])
}

/// Documents that do not follow version 1, each with the reason.
pub fn not_second() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let all = [key(1), key(2), new_root()];
    let with = |change: &dyn Fn(&mut Trust)| {
        let mut trust = second_fields();
        change(&mut trust);
        sign_trust_with(&trust, &all)
    };
    // Fields of another platform, signed for ours: only the field tells.
    let mut foreign = second_fields();
    foreign.platform = OTHER_PLATFORM;
    let payload = foreign.encode();
    let foreign =
        all.iter().flat_map(|key| sign(DocumentKind::Trust, PLATFORM, key, &payload)).collect::<Vec<_>>();
    let once_twice = [key(1), key(1), new_root()];
    vec![
        ("skips", "version 3 after version 1", with(&|trust| trust.version = 3)),
        ("stays", "version 1 again, with other content", with(&|trust| trust.version = 1)),
        ("old-roots-only", "not signed by the new root keys", sign_trust_with(&second_fields(), &all[..2])),
        (
            "new-roots-only",
            "not signed by the root keys of the version before",
            sign_trust_with(&second_fields(), &[key(1), new_root()]),
        ),
        ("one-key-twice", "one root key counted twice", sign_trust_with(&second_fields(), &once_twice)),
        ("platform", "for another platform", foreign),
        ("epoch-back", "an epoch goes back", {
            let mut trust = second_fields();
            trust.grants[0].epoch = 0;
            sign_trust_with(&trust, &all)
        }),
        (
            "expired-before-issued",
            "expires before it was issued",
            with(&|trust| trust.expires = trust.issued),
        ),
    ]
}
