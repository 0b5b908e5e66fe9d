//! Vectors that others published (`testdata/vectors-by-others`), each with what must become of it here.

#![allow(clippy::disallowed_methods, reason = "this test reads the committed vectors")]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

mod signing;

use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};
use rootcast::codec::{self, CodecError};
use rootcast::cose::{self, DocumentKind, PublicKey, SignatureError};
use rootcast::edit::{self, Declared, EditError, Policy};
use rootcast::id::BlobId;
use rootcast::object::ObjectMap;
use rootcast::tree::empty_root;
use serde::Deserialize;
use signing::{File, Files, PLATFORM};
use std::collections::BTreeMap;
use std::path::Path;

fn bytes(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/vectors-by-others").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&bytes(name)).unwrap()
}

/// Why a signature is refused, or that it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Good,
    Key,
    Length,
    Signature,
}

/// Our rule over a message that is no document of ours: the key must be one that a key set takes, and
/// then `verify_strict` decides, which is all that `cose::verify` does with message and signature
/// (`threat_04_*` show that it is the strict one which it calls).
fn verdict(key: &str, message: &[u8], signature: &str) -> Verdict {
    let Ok(key) = PublicKey::from_bytes(&hex::decode(key).unwrap().try_into().unwrap()) else {
        return Verdict::Key;
    };
    let Ok(signature) = <[u8; 64]>::try_from(hex::decode(signature).unwrap()) else { return Verdict::Length };
    let key = VerifyingKey::from_bytes(&key.to_bytes()).unwrap();
    match key.verify_strict(message, &Signature::from_bytes(&signature)) {
        Ok(()) => Verdict::Good,
        Err(_) => Verdict::Signature,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wycheproof {
    number_of_tests: usize,
    test_groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    public_key: Pk,
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Pk {
    pk: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Test {
    tc_id: u32,
    flags: Vec<String>,
    msg: String,
    sig: String,
    result: String,
}

/// Our verdict is Wycheproof's on all 151.
#[test]
fn d_7_wycheproof_ed25519() {
    let vectors: Wycheproof = json("wycheproof/ed25519_test.json");
    let mut counts = BTreeMap::new();
    for group in &vectors.test_groups {
        for test in &group.tests {
            let got = verdict(&group.public_key.pk, &hex::decode(&test.msg).unwrap(), &test.sig);
            let want = match (test.result.as_str(), test.flags[0].as_str()) {
                ("valid", _) => Verdict::Good,
                ("invalid", "SignatureWithGarbage" | "TruncatedSignature") => Verdict::Length,
                ("invalid", _) if test.sig.len() != 128 => Verdict::Length,
                ("invalid", _) => Verdict::Signature,
                (other, _) => panic!("{other}"),
            };
            assert_eq!(got, want, "{}: {:?}", test.tc_id, test.flags);
            *counts.entry(got).or_insert(0) += 1;
        }
    }
    assert_eq!(counts.values().sum::<usize>(), vectors.number_of_tests);
    let expected = [(Verdict::Good, 88), (Verdict::Length, 12), (Verdict::Signature, 51)];
    assert_eq!(counts, BTreeMap::from(expected));
}

#[derive(Deserialize)]
struct Edge {
    number: u32,
    key: String,
    sig: String,
    msg: String,
    flags: Option<Vec<String>>,
}

/// The set has no verdict of its own; ours is that of D-7. A key of small order is no key. R of small order,
/// points that are not reduced (all of them of small order) and equations that hold with the cofactor alone
/// are refused. What is left is good, a key and an R with a component of small order included: such a key
/// has to be granted first, and gives its holder nothing that the key's other signatures do not.
#[test]
fn d_7_cctv_ed25519_edges() {
    let vectors: Vec<Edge> = json("cctv/ed25519vectors.json");
    let mut counts = BTreeMap::new();
    for edge in &vectors {
        let flags = edge.flags.as_deref().unwrap_or_default();
        let has = |flag: &str| flags.iter().any(|other| other == flag);
        let want = if has("low_order_A") {
            Verdict::Key
        } else if has("low_order_R") || has("low_order_residue") {
            Verdict::Signature
        } else {
            assert!(!has("non_canonical_A") && !has("non_canonical_R") && !has("reencoded_k"));
            Verdict::Good
        };
        assert_eq!(verdict(&edge.key, edge.msg.as_bytes(), &edge.sig), want, "{}: {flags:?}", edge.number);
        *counts.entry(want).or_insert(0) += 1;
    }
    let mixed = |edge: &&Edge| {
        let has = |flag| edge.flags.iter().flatten().any(|other| other == flag);
        has("low_order_component_A")
            && !has("low_order_A")
            && !has("low_order_R")
            && !has("low_order_residue")
    };
    assert_eq!(vectors.iter().filter(mixed).count(), 42, "accepted with a component of small order");
    assert_eq!(counts[&Verdict::Good], 43);
    assert_eq!(counts.values().sum::<usize>(), 914);
}

#[derive(Deserialize)]
struct Cose {
    intermediates: serde_json::Value,
    output: Output,
    input: serde_json::Value,
}

#[derive(Deserialize)]
struct Output {
    cbor: String,
}

/// Every example of the working group is refused, those included that it calls good: our profile has another
/// protected header (alg, kid and typ, D-3), an empty unprotected one, and EdDSA over Ed25519 alone (D-6).
#[test]
fn d_2_and_3_examples_of_the_cose_working_group() {
    for (name, tagged) in [
        ("eddsa-01", false), // COSE_Sign, tag 98
        ("eddsa-02", false), // likewise, Ed448
        ("eddsa-sig-01", true),
        ("eddsa-sig-02", true),  // Ed448
        ("sign-fail-01", false), // tag 998
        ("sign-fail-02", true),  // ECDSA, as in all that follow
        ("sign-fail-03", true),
        ("sign-fail-04", true),
        ("sign-fail-06", true),
        ("sign-fail-07", true),
        ("sign-pass-01", true),
        ("sign-pass-02", true),
        ("sign-pass-03", false), // no tag
    ] {
        let example: Cose = json(&format!("cose-wg/{name}.json"));
        let kind = DocumentKind::Release;
        let refusal = |hex: &str| {
            let document = hex::decode(hex).unwrap();
            let keys = signing::trust_fields().roots;
            let refused = cose::verify(kind, PLATFORM, &document, &keys).unwrap_err();
            assert_eq!(cose::signatures(kind, &document), Err(refused.clone()), "{name}");
            refused
        };
        let refused = refusal(&example.output.cbor);
        if !tagged {
            assert_eq!(refused, SignatureError::Header { kind, reason: "no tag 18" }, "{name}");
            continue;
        }
        // Each has its kid in the unprotected map, from which we read nothing ...
        assert!(matches!(refused, SignatureError::Codec(CodecError::Shape { .. })), "{name}: {refused}");
        // ... and without it there is none in the protected header.
        let mut emptied = example.output.cbor.clone();
        for map in ["A104423131", "A2012604423131", "A104456564343438"] {
            emptied = emptied.replacen(map, "A0", 1);
        }
        let reason = "no key id in the protected header";
        assert_eq!(refusal(&emptied), SignatureError::Header { kind, reason }, "{name}");
    }
}

/// What we sign has the working group's form: its Sig_structure is ours over its own parts, and the
/// signature in its example is good for the one key of RFC 8032 that it is by.
#[test]
fn d_5_the_sig_structure_of_the_cose_working_group() {
    let example: Cose = json("cose-wg/eddsa-sig-01.json");
    let part = |text: &'static [u8]| Bytes::from_static(text);
    let content = part(b"This is the content.");
    let ours = codec::encode(&("Signature1", part(&[0xa2, 0x01, 0x27, 0x03, 0x00]), part(&[]), content));
    let theirs = example.intermediates["ToBeSign_hex"].as_str().unwrap();
    assert_eq!(hex::encode_upper(&ours), theirs);
    let key = example.input["sign0"]["key"]["x_hex"].as_str().unwrap();
    let signature = &example.output.cbor[example.output.cbor.len() - 128..];
    assert_eq!(verdict(key, &ours, signature), Verdict::Good);
    let changed = signature.replacen('7', "6", 1);
    assert_eq!(verdict(key, &ours, &changed), Verdict::Signature);
}

/// Of the examples of RFC 8949, appendix A, those are taken that K-1 and K-2 allow. All are well-formed, so
/// each refusal is our strictness: floats, tags, simple values and indefinite lengths are not used.
#[test]
fn k_1_and_2_appendix_a_of_rfc_8949() {
    let text = String::from_utf8(bytes("rfc8949/appendix_a.txt")).unwrap();
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ' ');
        let (encoded, want) = (hex::decode(parts.next().unwrap()).unwrap(), parts.next().unwrap());
        let got = match codec::check_canonical(&encoded) {
            Ok(()) => "accept",
            Err(CodecError::NotCanonical { reason: "tag", .. }) => "tag",
            Err(CodecError::NotCanonical { reason: "indefinite length", .. }) => "indefinite",
            Err(CodecError::NotCanonical { reason, at }) if reason.starts_with("floats") => {
                if (0xf9..=0xfb).contains(&encoded[at]) { "float" } else { "simple" }
            }
            Err(other) => panic!("{line}: {other}"),
        };
        assert_eq!(got, want, "{line}");
        *counts.entry(want.to_owned()).or_insert(0) += 1;
    }
    let expected = [("accept", 37), ("float", 22), ("indefinite", 11), ("simple", 4), ("tag", 8)];
    assert_eq!(counts, expected.map(|(what, count)| (what.to_owned(), count)).into());
}

#[derive(Deserialize)]
struct Blake3 {
    context_string: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    input_len: usize,
    hash: String,
    derive_key: String,
}

/// A blob's id is the plain hash; the hash with a context, which all other ids are (T-2), is BLAKE3's own.
/// The keyed hash of the vectors is not used here.
#[test]
fn t_2_blake3() {
    let vectors: Blake3 = json("blake3/test_vectors.json");
    assert_eq!(vectors.cases.len(), 35);
    for case in vectors.cases {
        let input: Vec<u8> = (0..case.input_len).map(|n| (n % 251) as u8).collect();
        assert_eq!(BlobId::of(&input).to_string(), case.hash[..64], "{}", case.input_len);
        let derived = blake3::derive_key(&vectors.context_string, &input);
        assert_eq!(hex::encode(derived), case.derive_key[..64], "{}", case.input_len);
    }
}

/// An edit that adds one file whose content is a golden frame without its magic number.
fn unpack(frame: &[u8], size: usize, content: &[u8]) -> Result<(), EditError> {
    let frame = frame.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd]).unwrap();
    let mut columns = vec![0x03, 0x00, 0x00, 0x01, b'f'];
    let mut rest = size * 2;
    while rest >= 0x80 {
        columns.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    columns.push(rest as u8);
    let edit = [&[0x01, 0x01, columns.len() as u8][..], &columns, frame].concat();
    let file = Files::from([("f".into(), File::Regular(content.to_vec()))]);
    let mut new = ObjectMap::new();
    let (root, mut totals) = signing::build(&mut new, &file);
    totals.bytes = totals.bytes.max(size as u64);
    let declared = Declared { root, totals, policy: Policy::ANY };
    edit::apply(&ObjectMap::new(), empty_root(), &edit, &declared, &mut ObjectMap::new())
}

/// The golden frames unpack to what zstd says, and nothing of a frame that it calls bad is taken.
#[test]
fn e_9_golden_frames_of_zstd() {
    for (name, content) in [
        ("block-128k", vec![0; 131_068]),
        ("empty-block", Vec::new()),
        ("rle-first-block", vec![0; 1 << 20]),
        ("zeroSeq_2B", b"Hello World!\n".to_vec()),
    ] {
        let frame = bytes(&format!("zstd/{name}.zst"));
        unpack(&frame, content.len(), &content).unwrap_or_else(|error| panic!("{name}: {error}"));
        if !content.is_empty() {
            let shorter = unpack(&frame, content.len() - 1, &content[1..]);
            assert!(matches!(shorter, Err(EditError::Frame(_))), "{name}: {shorter:?}");
        }
    }
    for name in ["off0.bin", "truncated_huff_state", "zeroSeq_extraneous"] {
        let frame = bytes(&format!("zstd/{name}.zst"));
        for size in [1, 13, 64, 1 << 17] {
            let refused = unpack(&frame, size, &vec![0; size]);
            assert!(matches!(refused, Err(EditError::Frame(_))), "{name}: {refused:?}");
        }
    }
}
