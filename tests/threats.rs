//! Bad input, by the numbers of the threat table: each is refused by name, and none panics.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

mod signing;

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use rootcast::acceptance::{Accepted, Floors, Offer, Refusal, Verdict, judge};
use rootcast::codec::{self, CodecError};
use rootcast::cose::{self, DocumentKind, KeySet, PublicKey, SignatureError};
use rootcast::edit::{self, Declared, EditError, Policy};
use rootcast::entry::{ChunkList, Entry};
use rootcast::id::{BlobId, NodeId, ObjectId, ReleaseHash, TrustHash};
use rootcast::limits::{MAX_DOCUMENT, MAX_NUMBER, MAX_SIGNATURES};
use rootcast::object::{ObjectMap, ReadError};
use rootcast::path::{ChannelName, ConfigPath, LinkTarget};
use rootcast::release::Release;
use rootcast::tree::{Node, empty_root};
use rootcast::trust::{Trust, TrustError, VerifiedTrust};
use rootcast::verify::VerifyError;
use signing::{File, Files, OTHER_PLATFORM, PLATFORM, channel, keys, public, sign};

const RELEASE: DocumentKind = DocumentKind::Release;
const PAYLOAD: &[u8] = b"any payload";

fn verify(document: &[u8], keys: &KeySet) -> Result<Bytes, SignatureError> {
    cose::verify(RELEASE, PLATFORM, document, keys)
}

fn one(key: &SigningKey) -> KeySet {
    keys(1, std::slice::from_ref(key))
}

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).unwrap()
}

#[test]
fn threat_01_no_signature_or_threshold_zero() {
    let key = signing::publisher();
    let document = sign(RELEASE, PLATFORM, &key, PAYLOAD);
    assert_eq!(verify(&document, &one(&key)).unwrap(), PAYLOAD);
    assert!(matches!(verify(&[], &one(&key)), Err(SignatureError::Header { .. })));
    for threshold in [0, 2, u64::MAX] {
        let set = KeySet { threshold, ..one(&key) };
        assert!(matches!(verify(&document, &set), Err(SignatureError::KeySet(_))), "{threshold}");
    }
    let nobody = KeySet { threshold: 1, keys: Vec::new() };
    assert!(matches!(verify(&document, &nobody), Err(SignatureError::KeySet(_))));
    for spoil in [
        (|trust| trust.roots.threshold = 0) as fn(&mut Trust),
        |trust| trust.grants[0].publishers.threshold = 0,
        |trust| trust.heads.threshold = 0,
        |trust| trust.grants[0].publishers.keys.clear(),
    ] {
        let mut trust = signing::trust_fields();
        spoil(&mut trust);
        let (document, fingerprint) = signing::sign_trust(&trust);
        let refused = VerifiedTrust::pinned(&document, fingerprint);
        assert!(matches!(refused, Err(TrustError::Signature(SignatureError::KeySet(_)))), "{refused:?}");
    }
}

#[test]
fn threat_02_a_key_counts_once() {
    let [first, second] = [signing::publisher(), signing::second_publisher()];
    let set = keys(2, &[first.clone(), second.clone()]);
    let signed = |key: &SigningKey| sign(RELEASE, PLATFORM, key, PAYLOAD);
    assert!(verify(&[signed(&first), signed(&second)].concat(), &set).is_ok());
    let too_few = |document: &[u8]| {
        matches!(verify(document, &set), Err(SignatureError::TooFew { got: 1, threshold: 2, .. }))
    };
    assert!(too_few(&signed(&first)));
    assert!(too_few(&signed(&first).repeat(2)));
    assert!(too_few(&signed(&first).repeat(MAX_SIGNATURES)));
    assert!(verify(&signed(&first).repeat(MAX_SIGNATURES + 1), &set).is_err());
    // The first key under an id that is not its own: the id is of the key, so nobody has this one.
    let id = public(&signing::stranger()).id();
    let signature = first.sign(&cose::to_be_signed(RELEASE, PLATFORM, id, PAYLOAD)).to_bytes();
    assert!(too_few(&[signed(&first), cose::assemble(RELEASE, id, PAYLOAD, &signature)].concat()));
    // ... and under the other key's id it does not verify.
    let id = public(&second).id();
    let signature = first.sign(&cose::to_be_signed(RELEASE, PLATFORM, id, PAYLOAD)).to_bytes();
    let posing = [signed(&first), cose::assemble(RELEASE, id, PAYLOAD, &signature)].concat();
    assert_eq!(verify(&posing, &set), Err(SignatureError::Invalid(id)));
    let twice = keys(2, &[first.clone(), first.clone()]);
    assert!(matches!(verify(&signed(&first).repeat(2), &twice), Err(SignatureError::KeySet(_))));
    let other = sign(RELEASE, PLATFORM, &second, b"another payload");
    assert_eq!(verify(&[signed(&first), other].concat(), &set), Err(SignatureError::Payloads));
}

/// RFC 8032 section 7.1, tests 1 to 3: secret key, public key, message, signature.
const RFC_8032: [[&str; 4]; 3] = [
    [
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ],
    [
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ],
    [
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ],
];

/// The eight points of small order, as encoded, and their encodings with y not reduced or x = -0
/// (D. J. Bernstein and others; the list is in "Taming the many EdDSAs", table 6).
const SMALL_ORDER: [&str; 14] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

#[test]
fn threat_04_keys_and_signatures_that_are_not_strictly_good() {
    for [secret, public, message, signature] in RFC_8032 {
        let key = SigningKey::from_bytes(&hex(secret).try_into().unwrap());
        assert_eq!(key.verifying_key().as_bytes()[..], hex(public)[..]);
        assert_eq!(key.sign(&hex(message)).to_bytes()[..], hex(signature)[..]);
    }
    for point in SMALL_ORDER {
        assert!(PublicKey::from_bytes(&hex(point).try_into().unwrap()).is_err(), "{point}");
    }
    let key = signing::publisher();
    let document = sign(RELEASE, PLATFORM, &key, PAYLOAD);
    let id = public(&key).id();
    assert_eq!(verify(&signing::plus_order(&document), &one(&key)), Err(SignatureError::Invalid(id)));
}

/// R is the neutral point and S = H(R, A, M) times the secret scalar, for the publisher's key and
/// [`PAYLOAD`]: the plain equation holds. Computed from the definition in RFC 8032 section 5.1.
const SMALL_R: &str = "0100000000000000000000000000000000000000000000000000000000000000\
                       df42cc4337adfa8d18fc04af5661bd3e52b7c3706380df7d0492879a298b9c05";

#[test]
fn threat_04_a_signature_with_a_small_order_point() {
    let key = signing::publisher();
    let id = public(&key).id();
    let signature: [u8; 64] = hex(SMALL_R).try_into().unwrap();
    let message = cose::to_be_signed(RELEASE, PLATFORM, id, PAYLOAD);
    let lax = VerifyingKey::from_bytes(key.verifying_key().as_bytes()).unwrap();
    lax.verify(&message, &Signature::from_bytes(&signature)).unwrap();
    let document = cose::assemble(RELEASE, id, PAYLOAD, &signature);
    assert_eq!(verify(&document, &one(&key)), Err(SignatureError::Invalid(id)));
}

#[test]
fn threat_04_another_algorithm_kind_or_platform() {
    let key = signing::publisher();
    let id = public(&key).id();
    let aad = signing::aad(RELEASE, PLATFORM);
    for algorithm in [0x00, 0x01, 0x05, 0x26, 0x28, 0x32] {
        let header = signing::protected(RELEASE, algorithm, &key);
        let document = signing::sign_parts(&header, &[0xa0], &aad, &key, PAYLOAD);
        let refused = verify(&document, &one(&key));
        assert!(matches!(refused, Err(SignatureError::Header { .. })), "{algorithm:x}: {refused:?}");
    }
    let header = signing::protected(RELEASE, 0x27, &key);
    for unprotected in ["a10127", "a10101", "a10401", "a1044101", "a100f6", "a2010102 02", "80", "f6"] {
        let document = signing::sign_parts(&header, &hex(unprotected), &aad, &key, PAYLOAD);
        assert!(verify(&document, &one(&key)).is_err(), "{unprotected}");
    }
    assert!(verify(&signing::sign_parts(&header, &[0xa0], &aad, &key, PAYLOAD), &one(&key)).is_ok());
    let trust = sign(DocumentKind::Trust, PLATFORM, &key, PAYLOAD);
    assert!(matches!(verify(&trust, &one(&key)), Err(SignatureError::Header { .. })));
    let foreign = sign(RELEASE, OTHER_PLATFORM, &key, PAYLOAD);
    assert_eq!(verify(&foreign, &one(&key)), Err(SignatureError::Invalid(id)));
    assert!(cose::verify(RELEASE, OTHER_PLATFORM, &foreign, &one(&key)).is_ok());
}

#[test]
fn threat_05_a_trust_document_of_another_version() {
    for version in [0, 2, 3, u64::MAX] {
        let (document, fingerprint) = signing::sign_trust(&Trust { version, ..signing::trust_fields() });
        let refused = VerifiedTrust::pinned(&document, fingerprint);
        assert!(matches!(refused, Err(TrustError::Unsound(_) | TrustError::Version { .. })), "{refused:?}");
    }
    let (document, _) = signing::sign_trust(&signing::trust_fields());
    let refused = VerifiedTrust::pinned(&document, TrustHash::from_bytes([0; 32]));
    assert!(matches!(refused, Err(TrustError::Fingerprint { .. })));
}

fn hash(n: u8) -> ReleaseHash {
    ReleaseHash::from_bytes([n; 32])
}

#[test]
fn threat_06_a_lower_number_or_the_same_with_other_bytes() {
    let floors =
        Floors { release: Some(Accepted { epoch: 1, number: 7, hash: hash(7) }), ..Floors::default() };
    let offer = |number, own, previous| {
        judge(
            &floors,
            &Offer {
                release: Accepted { epoch: 1, number, hash: hash(own) },
                previous: Some(hash(previous)),
            },
        )
    };
    assert_eq!(offer(6, 6, 5), Err(Refusal::Rollback { offered: 6, floor: 7 }));
    let (accepted, offered) = (hash(7), hash(8));
    assert_eq!(offer(7, 8, 6), Err(Refusal::Equivocation { number: 7, accepted, offered }));
    assert_eq!(offer(7, 7, 6), Ok(Verdict::Same));
    assert_eq!(offer(8, 8, 6), Err(Refusal::Fork { number: 8 }));
    assert_eq!(offer(8, 8, 7), Ok(Verdict::Next));
    assert_eq!(offer(9, 9, 8), Ok(Verdict::Jump));
}

#[test]
fn threat_08_a_good_edit_after_a_refused_one() {
    let (objects, history) = signing::prod_history();
    let (base, trust) = (signing::bundle("base"), signing::trust());
    let mut held = ObjectMap::new();
    let mut before = None;
    for step in &history[..2] {
        let verified = trust.release(&channel("prod"), &step.document).unwrap();
        let bundles = verified.bundles(step.known(&[0]), &step.proof(&[0])).unwrap();
        let edit = &step.edits[&base];
        let mut bad = edit.clone();
        *bad.last_mut().unwrap() ^= 0x10;
        let old = before.map_or(empty_root(), |leaf: &rootcast::release::BundleLeaf| leaf.root);
        assert_eq!(bundles.admit_logged(&base, before, &bad).err(), Some(VerifyError::Chain(base.clone())));
        let mut thrown_away = ObjectMap::new();
        bundles.admit_direct(&base, old, &bad).unwrap().apply(&held, &mut thrown_away).unwrap_err();
        let mut new = ObjectMap::new();
        let applied = bundles.admit_logged(&base, before, edit).unwrap().apply(&held, &mut new).unwrap();
        assert_eq!(applied.root(), step.leaf("base").root);
        held.append(&mut new);
        before = Some(step.leaf("base"));
    }
    assert!(held.iter().all(|(id, bytes)| objects[id] == *bytes));
}

#[test]
fn threat_09_the_highest_numbers() {
    let (_, history) = signing::prod_history();
    let release = &history[1].release;
    assert!(Release::decode(&Release { number: MAX_NUMBER, ..release.clone() }.encode()).is_ok());
    for number in [MAX_NUMBER + 1, u64::MAX - 1, u64::MAX] {
        let far = Release { number, ..release.clone() };
        assert!(Release::decode(&far.encode()).is_err());
        let refused =
            signing::trust().release(&channel("prod"), &signing::sign_release(&signing::publisher(), &far));
        assert!(matches!(refused, Err(VerifyError::Codec(_))), "{refused:?}");
        let offer = Offer { release: Accepted { epoch: 1, number, hash: hash(1) }, previous: Some(hash(0)) };
        // Even a floor that is there already does not overflow, and the way on is not lost.
        for floor in [1, MAX_NUMBER, u64::MAX - 1, u64::MAX] {
            let floors = Floors {
                release: Some(Accepted { epoch: 1, number: floor, hash: hash(9) }),
                ..Floors::default()
            };
            assert_eq!(judge(&floors, &offer), Err(Refusal::OutOfRange { number }));
        }
    }
    let floors = Floors { release: Some(history[0].release_accepted()), ..Floors::default() };
    assert_eq!(judge(&floors, &history[1].offer()), Ok(Verdict::Next));
    let totals = Release { files: u64::MAX, bytes: u64::MAX, ..release.clone() };
    assert!(Release::decode(&totals.encode()).is_err());
    assert!(Release::decode(&Release { bundles: u64::MAX, ..release.clone() }.encode()).is_err());
}

#[test]
fn threat_10_a_prefix_ends_at_a_segment() {
    let trust = signing::trust();
    let (_, history) =
        signing::history("team", &[std::collections::BTreeMap::from([("base", Files::new())])]);
    let signed = |name: &str| {
        let release = Release { channel: channel(name), ..history[0].release.clone() };
        trust.release(&channel(name), &signing::sign_release(&signing::publisher(), &release))
    };
    assert!(signed("team").is_ok() && signed("team/a").is_ok() && signed("team/a/b").is_ok());
    for name in ["team-b", "teams", "tea", "t", "team.x", "a/team"] {
        assert!(matches!(signed(name), Err(VerifyError::NotGranted(_))), "{name}");
    }
    let release = Release { channel: channel("team/a"), ..history[0].release.clone() };
    let document = signing::sign_release(&signing::publisher(), &release);
    assert!(matches!(trust.release(&channel("team/b"), &document), Err(VerifyError::Channel { .. })));
    // Both prefixes would cover `team/a`: which of the keys counts must not depend on order.
    let mut fields = signing::trust_fields();
    fields.grants.push(rootcast::trust::Grant { prefix: channel("team/a"), ..fields.grants[0].clone() });
    assert!(matches!(fields.check(), Err(TrustError::Unsound(_))));
}

/// RFC 8949 appendix F: not well-formed.
const MALFORMED: &str = "
    18, 19, 1a, 1b, 19 01, 1a 01 02, 1b 01 02 03 04 05 06 07, 38, 58, 78, 98, 9a 01 ff 00, b8, d8, f8,
    f9 00, fa 00 00, fb 00 00 00, 41, 61, 5a ff ff ff ff 00, 5b ff ff ff ff ff ff ff ff 01 02 03,
    7a ff ff ff ff 00, 7b 7f ff ff ff ff ff ff ff 01 02 03, 81, 81 81 81 81 81 81 81 81 81, 82 00, a1,
    a2 01 02, a1 00, a2 00 00 00, c0, 5f 41 00, 7f 61 00, 9f, 9f 01 02, bf, bf 01 02 01 02, 81 9f, 9f 80 00,
    9f 9f 9f 9f 9f ff ff ff ff, 9f 81 9f 81 9f 9f ff ff ff, 1c, 1d, 1e, 3c, 3d, 3e, 5c, 5d, 5e, 7c, 7d, 7e,
    9c, 9d, 9e, bc, bd, be, dc, dd, de, fc, fd, fe, f8 00, f8 01, f8 18, f8 1f, 5f 00 ff, 5f 21 ff,
    5f 61 00 ff, 5f 80 ff, 5f a0 ff, 5f c0 00 ff, 5f e0 ff, 7f 41 00 ff, 5f 5f 41 00 ff ff,
    7f 7f 61 00 ff ff, ff, 81 ff, 82 00 ff, a1 ff, a1 ff 00, a1 00 ff, a2 00 00 ff, 9f 81 ff,
    9f 82 9f 81 9f 9f ff ff ff ff, bf 00 ff, bf 00 00 00 ff, 1f, 3f, df";

#[test]
fn threat_11_what_is_not_canonical() {
    let mut count = 0;
    for text in MALFORMED.split(',') {
        let text: String = text.split_whitespace().collect();
        assert!(codec::check_canonical(&hex(&text)).is_err(), "{text}");
        count += 1;
    }
    assert_eq!(count, 94);
    // Well-formed, and not in the one form: long integers and lengths, repeated and unordered keys,
    // indefinite lengths, tags, floats, other simple values, text that is not UTF-8, trailing bytes.
    for text in [
        "1800",
        "1817",
        "1900ff",
        "1a0000ffff",
        "1b00000000ffffffff",
        "3817",
        "580100",
        "780161",
        "980100",
        "b8010000",
        "5900ff",
        "a200000000",
        "a201000000",
        "a2616200616100",
        "9fff",
        "bfff",
        "5fff",
        "7fff",
        "c000",
        "d81800",
        "f90000",
        "fa00000000",
        "fb0000000000000000",
        "f7",
        "f0",
        "f820",
        "61ff",
        "62c080",
        "0000",
        "8000",
        "f600",
    ] {
        assert!(codec::check_canonical(&hex(text)).is_err(), "{text}");
    }
    for text in [
        "00",
        "17",
        "1818",
        "190100",
        "20",
        "40",
        "60",
        "80",
        "a0",
        "f4",
        "f5",
        "f6",
        "a200000100",
        "8181818181818181f6",
    ] {
        codec::check_canonical(&hex(text)).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    for size in [3, 100_000, 4 << 20] {
        for byte in [0x81, 0xa1, 0xc0, 0x9f, 0xbf, 0xd2] {
            let deep = vec![byte; size];
            assert!(codec::check_canonical(&deep).is_err());
            assert!(Release::decode(&deep).is_err() && ChunkList::decode(&deep, 1).is_err());
            assert!(Node::decode(NodeId::of(&deep), &deep).is_err());
            assert!(verify(&deep, &one(&signing::publisher())).is_err());
        }
    }
    assert!(matches!(codec::check_canonical(&[0x81; 100_000]), Err(CodecError::TooDeep { .. })));
    for head in [0x5b, 0x7b, 0x9b, 0xbb] {
        for length in [1u64 << 63, u64::MAX, 1 << 40] {
            let bytes = [&[head][..], &length.to_be_bytes(), &[0; 16]].concat();
            assert!(matches!(codec::check_canonical(&bytes), Err(CodecError::Truncated { .. })));
        }
    }
    let large = vec![0xd2; MAX_DOCUMENT as usize + 1];
    assert!(matches!(
        verify(&large, &one(&signing::publisher())),
        Err(SignatureError::Codec(CodecError::TooLarge { .. }))
    ));
}

#[test]
fn threat_12_an_object_whose_hash_differs() {
    let mut objects = ObjectMap::new();
    let (root, totals) = signing::build(&mut objects, &signing::tree_one());
    let (new_root, new_totals) = signing::build(&mut objects, &signing::tree_two());
    let edit = edit::encode((&objects, root), (&objects, new_root)).unwrap();
    let declared = Declared { root: new_root, totals: new_totals, policy: Policy::ANY };
    assert!(totals.files > 0);
    let File::Regular(app) = &signing::tree_one()["etc/app.yaml"] else { panic!() };
    for id in [ObjectId::from(BlobId::of(app)), root.into()] {
        let mut damaged = objects.clone();
        let mut bytes = damaged[&id].to_vec();
        bytes[0] ^= 1;
        damaged.insert(id, bytes.into());
        let refused = edit::apply(&damaged, root, &edit, &declared, &mut ObjectMap::new()).unwrap_err();
        assert_eq!(refused.refetch(), Some(id), "{refused}");
        damaged.remove(&id);
        let refused = edit::apply(&damaged, root, &edit, &declared, &mut ObjectMap::new()).unwrap_err();
        assert_eq!(refused.refetch(), Some(id), "{refused}");
    }
    let node = objects[&root.into()].clone();
    let posing = ObjectId::from(BlobId::from_bytes(*root.as_bytes()));
    let refused = rootcast::object::ObjectSource::read(&ObjectMap::from([(posing, node)]), &posing);
    assert_eq!(refused, Err(ReadError::Damaged(posing)), "no node passes for a blob");
}

#[test]
fn threat_14_a_node_over_the_limits() {
    let id = NodeId::from_bytes([0; 32]);
    let child = |last: String, files: u64| {
        codec::encode(&(ConfigPath::new(&last).unwrap(), NodeId::from_bytes([1; 32]), files, u64::MAX))
    };
    let node = |level: u8, items: Vec<Vec<u8>>| {
        let head = match items.len() {
            count @ 0..24 => vec![0x80 | count as u8],
            count => [&[0x99][..], &(count as u16).to_be_bytes()].concat(),
        };
        [&[0x82, level][..], &head, &items.concat()].concat()
    };
    let named =
        |count: usize, files: u64| (0..count).map(|n| child(format!("n{n:05}"), files)).collect::<Vec<_>>();
    assert!(Node::decode(id, &node(1, named(1024, 1))).is_ok());
    for (why, bytes) in [
        ("1025 items", node(1, named(1025, 1))),
        ("more files than a bundle has", node(1, named(2, 1_000_001))),
        ("files that overflow", node(1, named(2, u64::MAX))),
        ("level 10", node(10, named(2, 1))),
        ("no items", node(1, Vec::new())),
        ("the same child again and again", node(1, vec![child("a".into(), 1); 20])),
        ("out of order", node(1, vec![child("b".into(), 1), child("a".into(), 1)])),
        ("a leaf of references", node(0, named(2, 1))),
    ] {
        assert!(Node::decode(id, &bytes).is_err(), "{why}");
    }
}

#[test]
fn threat_15_names_that_are_not_safe() {
    let long = |count: usize| "a".repeat(count);
    for bad in [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/..",
        "../a",
        "a/../b",
        "./a",
        "a/.",
        "a\0b",
        "a\rb",
        "a\nb",
        "a\tb",
        "a\u{7f}b",
        "a\u{85}b",
        &long(256),
        &format!("a/{}", long(256)),
        &vec!["a"; 65].join("/"),
        &vec![long(200); 6].join("/"),
    ] {
        assert!(ConfigPath::new(bad).is_err(), "{bad:?}");
        let encoded = codec::encode(&bad);
        assert!(codec::decode::<ConfigPath>(&encoded, 4096).is_err(), "{bad:?}");
        let leaf = [&[0x82, 0x00, 0x81, 0x82][..], &encoded, &hex("8200"), &[0; 0]].concat();
        assert!(Node::decode(NodeId::of(&leaf), &leaf).is_err());
    }
    for good in ["a", "...", "a.b/..c", "-", "ünï/日本", &long(255), &vec!["a"; 64].join("/")] {
        assert!(ConfigPath::new(good).is_ok(), "{good:?}");
    }
    assert!(ConfigPath::from_bytes(b"a\xff").is_err() && ConfigPath::from_bytes(b"a\xc0\x80").is_err());
    for bad in ["Prod", "pro d", "prød", "a:b", "a\\b", "~", &long(129)] {
        assert!(ChannelName::new(bad).is_err(), "{bad:?}");
    }
    // One name, once: the second of two makes the node no node.
    let entry = codec::encode(&("a", (0u8, 0u64, BlobId::of(b""))));
    let leaf = |times: usize| [&[0x82, 0x00, 0x80 | times as u8][..], &entry.repeat(times)].concat();
    assert!(Node::decode(NodeId::of(&leaf(1)), &leaf(1)).is_ok());
    assert!(Node::decode(NodeId::of(&leaf(2)), &leaf(2)).is_err());
}

#[test]
fn threat_16_links_out_of_the_bundle() {
    for (at, target) in [
        ("a", "/etc/passwd"),
        ("a", ".."),
        ("a", "../b"),
        ("d/a", "../../b"),
        ("d/a", "x/../../.."),
        ("d/a", "./../.."),
        ("a", ""),
        ("a", "b\0"),
        ("a", "b\n"),
        ("a", &"x".repeat(1025)),
    ] {
        let path = ConfigPath::new(at).unwrap();
        assert!(LinkTarget::new(&path, target).is_err(), "{at} -> {target:?}");
        let leaf = codec::encode(&(0u8, vec![(at, (2u8, target))]));
        assert!(Node::decode(NodeId::of(&leaf), &leaf).is_err(), "{at} -> {target:?}");
    }
    let leaf = codec::encode(&(0u8, vec![("d/a", (2u8, "../b"))]));
    assert!(Node::decode(NodeId::of(&leaf), &leaf).is_ok());
    let mut trust = signing::trust_fields();
    trust.grants[0].symlinks = false;
    assert!(!trust.grant(&channel("prod")).unwrap().symlinks);
}

#[test]
fn threat_16_and_28_the_grant_bounds_links_and_sizes() {
    let trust = signing::trust();
    let base = signing::bundle("base");
    let offer = |files: Files| {
        let (_, history) = signing::history("team", &[std::collections::BTreeMap::from([("base", files)])]);
        let verified = trust.release(&channel("team"), &history[0].document).unwrap();
        let bundles = verified.bundles(history[0].known(&[0]), &[])?;
        let admitted = bundles.admit_logged(&base, None, &history[0].edits[&base])?;
        Ok::<_, VerifyError>(admitted.apply(&ObjectMap::new(), &mut ObjectMap::new()))
    };
    let sized = |sizes: &[usize]| -> Files {
        sizes.iter().enumerate().map(|(n, size)| (format!("f{n}"), File::Regular(vec![7; *size]))).collect()
    };
    offer(sized(&[60, 40])).unwrap().unwrap();
    assert!(matches!(offer(sized(&[1, 1, 1])), Err(VerifyError::OverGrant { what: "files", .. })));
    assert!(matches!(offer(sized(&[60, 41])), Err(VerifyError::OverGrant { what: "bytes", .. })));
    assert!(matches!(offer(sized(&[61])), Ok(Err(EditError::NotAllowed { .. }))));
    let link = Files::from([("f".into(), File::Link("g"))]);
    assert!(matches!(offer(link), Ok(Err(EditError::NotAllowed { .. }))));
}

#[test]
fn threat_17_what_cannot_be_expressed() {
    let id = BlobId::of(b"x");
    let entry = |bytes: &[u8]| codec::decode::<Entry>(bytes, 4096);
    entry(&codec::encode(&(0u8, 1u64, id))).unwrap();
    entry(&codec::encode(&(1u8, 1u64, id))).unwrap();
    entry(&codec::encode(&(2u8, "x"))).unwrap();
    entry(&codec::encode(&(3u8, 1u64 << 20, id))).unwrap();
    for kind in 4..=255u8 {
        assert!(entry(&codec::encode(&(kind, 1u64, id))).is_err(), "{kind}");
        assert!(entry(&codec::encode(&(kind, "x"))).is_err(), "{kind}");
    }
    for bytes in [
        codec::encode(&(0o4755u32, 1u64, id)),
        codec::encode(&(0u8, 1u64, id, 0u64)),
        codec::encode(&(0u8, 1u64, id, 0o4755u32)),
        codec::encode(&(0u8, "x")),
        codec::encode(&(2u8, 1u64, id)),
        codec::encode(&(2u8, "x", 0u8)),
        codec::encode(&(0u8, 1u64)),
        codec::encode(&(0u8, (1u64 << 30) + 1, id)),
        codec::encode(&(0u8, u64::MAX, id)),
        codec::encode(&(3u8, (1u64 << 20) + 1, id)),
        codec::encode(&(3u8, "x")),
        codec::encode(&(3u8, 1u64, id, 0o4755u32)),
        codec::encode(&(true, 1u64, id)),
        codec::encode(&(-1i8, 1u64, id)),
    ] {
        assert!(entry(&bytes).is_err(), "{bytes:02x?}");
    }
}
