//! Golden vectors: what the formats' bytes are. An independent checker reads
//! them (`testdata/check.py`); this test makes them anew and compares.
//!
//! `ROOTCAST_BLESS=1 cargo test -p rootcast --test vectors` writes them.

#![allow(clippy::disallowed_methods, reason = "this test reads and writes the committed vectors")]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

mod signing;

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use rootcast::acceptance::{Accepted, Floors, Offer, Refusal, Verdict, judge};
use rootcast::codec;
use rootcast::cose::{self, DocumentKind};
use rootcast::edit::{self, Declared, Policy};
use rootcast::entry::{Content, Entry};
use rootcast::head::Head;
use rootcast::id::{BlobId, EditHash, NodeId, ObjectId, ReleaseHash, TrustHash};
use rootcast::object::ObjectMap;
use rootcast::release::BundleLeaf;
use rootcast::tree::{Totals, Tree, TreeError, empty_root};
use rootcast::verify::ReleaseRecord;
use serde_json::{Value, json};
use signing::{File, Files, PLATFORM, Step};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files of the vectors directory, by path in it.
type Vectors = BTreeMap<String, Vec<u8>>;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/vectors")
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_string_pretty(value).unwrap();
    text.push('\n');
    text.into_bytes()
}

fn blobs(out: &mut Vectors) -> Value {
    let pattern = |size: u32| (0..size).map(|n| (n % 251) as u8).collect::<Vec<_>>();
    let blobs = [("empty", Vec::new()), ("hello", b"hello\n".to_vec()), ("1025-bytes", pattern(1025))];
    let mut listed = Vec::new();
    for (name, bytes) in blobs {
        listed.push(json!({ "file": format!("blobs/{name}"), "id": BlobId::of(&bytes).to_string() }));
        out.insert(format!("blobs/{name}"), bytes);
    }
    json!(listed)
}

/// Text of about 1.5 MiB that says the same 40 KiB again and again, so that it packs well.
fn large(changed: bool) -> Vec<u8> {
    let mut random = blake3::Hasher::new().update(b"large").finalize_xof();
    let mut block = String::new();
    while block.len() < 40 << 10 {
        let mut word = [0];
        random.fill(&mut word);
        block.push_str(&format!("word{:x} ", word[0] & 63));
    }
    let text = (0..38).map(|n| format!("\nblock {}: {block}", if changed && n == 20 { 1000 } else { n }));
    text.collect::<String>().into_bytes()
}

fn trees() -> Vec<(&'static str, Files)> {
    let mut wide_changed = signing::tree_wide();
    wide_changed.insert("d3/f010.yaml".into(), signing::text("number: ten\n"));
    wide_changed.retain(|name, _| !name.ends_with("55.yaml"));
    let large = |changed| {
        let notes = signing::text(if changed { "second\n" } else { "first\n" });
        Files::from([("large.txt".into(), File::Regular(large(changed))), ("notes".into(), notes)])
    };
    vec![
        ("empty", Files::new()),
        ("one", signing::tree_one()),
        ("two", signing::tree_two()),
        ("wide", signing::tree_wide()),
        ("wide-changed", wide_changed),
        ("large", large(false)),
        ("large-changed", large(true)),
        ("secret", signing::tree_secret()),
        ("secret-changed", signing::tree_secret_changed()),
    ]
}

/// A tree's entries and the bytes of its nodes and chunk lists.
fn tree_file(objects: &ObjectMap, root: NodeId) -> Value {
    let tree = Tree::open(objects, root).unwrap();
    let (mut entries, mut encoded) = (Vec::new(), BTreeMap::new());
    tree.walk::<TreeError>(|path, entry| {
        entries.push(match entry {
            Entry::Symlink { target } => json!([path.as_str(), "symlink", target.as_str()]),
            Entry::Secret { id, size } => json!([path.as_str(), "secret", size, id.to_string()]),
            Entry::File { content, executable } => {
                let kind = if executable { "executable" } else { "regular" };
                match content {
                    Content::Blob { id, size } => json!([path.as_str(), kind, size, id.to_string()]),
                    Content::Chunked { id, size } => json!([path.as_str(), kind, size, id.to_string()]),
                }
            }
        });
        Ok(())
    })
    .unwrap();
    tree.objects::<TreeError>(&mut |id| {
        if !matches!(id, ObjectId::Blob(_)) {
            encoded.insert(hex::encode(id.hash()), hex::encode(&objects[&id]));
        }
        Ok(true)
    })
    .unwrap();
    json!({ "entries": entries, "objects": encoded })
}

struct Built {
    objects: ObjectMap,
    roots: BTreeMap<&'static str, (NodeId, Totals)>,
}

fn build_trees(out: &mut Vectors) -> (Built, Value) {
    let mut built = Built { objects: ObjectMap::new(), roots: BTreeMap::new() };
    let mut listed = Vec::new();
    for (name, files) in trees() {
        let (root, totals) = signing::build(&mut built.objects, &files);
        built.roots.insert(name, (root, totals));
        let file = format!("trees/{name}.json");
        out.insert(file.clone(), pretty(&tree_file(&built.objects, root)));
        let Totals { files, bytes } = totals;
        listed.push(json!({ "file": file, "root": root.to_string(), "files": files, "bytes": bytes }));
    }
    (built, json!(listed))
}

fn edits(out: &mut Vectors, built: &Built) -> Value {
    let pairs = [
        ("empty", "empty"),
        ("empty", "one"),
        ("one", "two"),
        ("two", "one"),
        ("one", "one"),
        ("one", "empty"),
        ("empty", "wide"),
        ("wide", "wide-changed"),
        ("wide", "one"),
        ("empty", "large"),
        ("large", "large-changed"),
        ("empty", "secret"),
        ("secret", "secret-changed"),
    ];
    let mut listed = Vec::new();
    for (from, to) in pairs {
        let ((old, _), (new, totals)) = (built.roots[from], built.roots[to]);
        let edit = edit::encode((&built.objects, old), (&built.objects, new)).unwrap();
        let declared = Declared { root: new, totals, policy: Policy::ANY };
        edit::apply(&built.objects, old, &edit, &declared, &mut ObjectMap::new()).unwrap();
        let file = format!("edits/{from}-{to}.edit");
        listed.push(json!({
            "file": file, "from": old.to_string(), "to": new.to_string(),
            "files": totals.files, "bytes": totals.bytes, "hash": EditHash::of(&edit).to_string(),
        }));
        out.insert(file, edit);
    }
    json!(listed)
}

fn leaf_fields(leaf: &BundleLeaf) -> Value {
    json!({
        "name": leaf.name.as_str(), "sequence": leaf.sequence, "root": leaf.root.to_string(),
        "chain": leaf.chain.to_string(), "files": leaf.files, "bytes": leaf.bytes,
        "encoded": hex::encode(codec::encode(leaf)), "hash": leaf.hash().to_string(),
    })
}

fn releases(out: &mut Vectors, history: &[Step]) -> Value {
    let trust = signing::trust();
    let mut listed = Vec::new();
    for step in history {
        let number = step.release.number;
        let file = format!("releases/{number}.cose");
        out.insert(file.clone(), step.document.to_vec());
        let mut edits = BTreeMap::new();
        for (name, edit) in &step.edits {
            let file = format!("releases/{number}-{}.edit", name.as_str().replace('/', "-"));
            out.insert(file.clone(), edit.clone());
            edits.insert(name.as_str(), file);
        }
        let mut proofs = Vec::new();
        for indices in [&[0][..], &[0, 1], &[0, 1, 2]] {
            let siblings = step.proof(indices);
            let verified = trust.release(&signing::channel("prod"), &step.document).unwrap();
            let bundles = verified.bundles(step.known(indices), &siblings).unwrap();
            let file = format!("releases/{number}-first-{}.record", indices.len());
            out.insert(file.clone(), codec::encode(&ReleaseRecord::new(&bundles, &siblings)));
            let siblings: Vec<_> = siblings.iter().map(ToString::to_string).collect();
            proofs.push(json!({ "indices": indices, "siblings": siblings, "record": file }));
        }
        listed.push(json!({
            "file": file, "channel": "prod", "number": number,
            "hash": ReleaseHash::of(&step.release.encode()).to_string(),
            "bundles_root": step.release.bundles_root.to_string(),
            "leaves": step.leaves.iter().map(leaf_fields).collect::<Vec<_>>(),
            "edits": edits, "proofs": proofs,
        }));
    }
    json!(listed)
}

/// A release that two publishers must sign, and did.
fn pair(out: &mut Vectors, history: &[Step]) -> Value {
    let release = signing::release("pair", 1, None, &history[0].leaves);
    let payload = release.encode();
    let sign = |key: SigningKey| signing::sign(DocumentKind::Release, PLATFORM, &key, &payload);
    let (first, second) = (sign(signing::publisher()), sign(signing::second_publisher()));
    out.insert("releases/pair.cose".into(), [first.clone(), second].concat());
    out.insert("refuse/release-one-key-twice".into(), [first.clone(), first.clone()].concat());
    let stranger = sign(signing::stranger());
    out.insert("refuse/release-one-key-and-a-stranger".into(), [first, stranger].concat());
    json!([{ "file": "releases/pair.cose", "channel": "pair", "hash": ReleaseHash::of(&payload).to_string() }])
}

fn refused_releases(out: &mut Vectors, history: &[Step]) -> Vec<Value> {
    let kind = DocumentKind::Release;
    let (key, payload) = (signing::publisher(), history[1].release.encode());
    let (protected, aad) = (signing::protected(kind, 0x27, &key), signing::aad(kind, PLATFORM));
    let typ = signing::protected(DocumentKind::Trust, 0x27, &key);
    let trust_aad = signing::aad(DocumentKind::Trust, PLATFORM);
    let foreign = signing::aad(kind, signing::OTHER_PLATFORM);
    let parts = |protected: &[u8], unprotected: &[u8], aad: &[u8], payload: &[u8]| {
        signing::sign_parts(protected, unprotected, aad, &key, payload)
    };
    assert_eq!(parts(&protected, &[0xa0], &aad, &payload), history[1].document, "the parts make the profile");
    // The number 2 stands after the five bytes of the channel and one of the epoch; here in two bytes.
    let number = 1 + 5 + 1;
    let long = [&payload[..number], &[0x18, 0x02], &payload[number + 1..]].concat();
    let other = |channel: &str| {
        let mut release = history[1].release.clone();
        release.channel = signing::channel(channel);
        signing::sign_release(&key, &release).to_vec()
    };
    let id = signing::public(&key).id();
    let signature = key.sign(&cose::to_be_signed(kind, PLATFORM, id, &payload)).to_bytes();
    let signature = signing::byte_string(&signature);
    let detached = [&[0xd2, 0x84], &*signing::byte_string(&protected), &[0xa0, 0xf6], &signature].concat();
    let whole = history[1].document.to_vec();
    let cases = [
        ("wrong-typ", "prod", "signed as a trust document", parts(&typ, &[0xa0], &trust_aad, &payload)),
        (
            "wrong-kind-in-aad",
            "prod",
            "external_aad names another kind",
            parts(&protected, &[0xa0], &trust_aad, &payload),
        ),
        (
            "wrong-platform",
            "prod",
            "external_aad names another platform",
            parts(&protected, &[0xa0], &foreign, &payload),
        ),
        (
            "wrong-alg",
            "prod",
            "alg is -7",
            parts(&signing::protected(kind, 0x26, &key), &[0xa0], &aad, &payload),
        ),
        (
            "unprotected-header",
            "prod",
            "the unprotected map holds alg",
            parts(&protected, &[0xa1, 0x01, 0x27], &aad, &payload),
        ),
        (
            "payload-not-canonical",
            "prod",
            "the number takes two bytes",
            parts(&protected, &[0xa0], &aad, &long),
        ),
        ("payload-detached", "prod", "the payload is null", detached),
        ("no-tag", "prod", "without tag 18", whole[1..].to_vec()),
        ("trailing", "prod", "a byte after the end", [&whole[..], &[0]].concat()),
        ("signature-not-reduced", "prod", "S plus the group order", signing::plus_order(&whole)),
        (
            "stranger",
            "prod",
            "signed by a key without a grant",
            signing::sign(kind, PLATFORM, &signing::stranger(), &payload),
        ),
        ("other-channel", "prod", "signed for prod/eu and offered for prod", other("prod/eu")),
        ("not-granted", "prod-b", "the grant of prod does not cover prod-b", other("prod-b")),
        ("empty", "prod", "no signature at all", Vec::new()),
    ];
    let mut listed = vec![
        json!({ "file": "refuse/release-one-key-twice", "what": "release", "channel": "pair", "reason": "threshold 2, one key twice" }),
        json!({ "file": "refuse/release-one-key-and-a-stranger", "what": "release", "channel": "pair", "reason": "threshold 2, one of the keys has no grant" }),
    ];
    for (name, channel, reason, document) in cases {
        let file = format!("refuse/release-{name}");
        listed.push(json!({ "file": file, "what": "release", "channel": channel, "reason": reason }));
        out.insert(file, document);
    }
    listed
}

fn refused_others(out: &mut Vectors, history: &[Step]) -> Vec<Value> {
    let mut listed = Vec::new();
    let step = &history[1];
    let record = |index: u64, leaf: u64| ReleaseRecord {
        document: step.document.clone(),
        leaves: vec![(index, step.leaves[leaf as usize].clone())],
        siblings: step.proof(&[index]),
    };
    let mut forged = record(0, 0);
    forged.leaves[0].1.root = history[0].leaf("base").root;
    let old = ReleaseRecord { document: history[2].document.clone(), ..record(2, 2) };
    for (name, reason, record) in [
        ("other-leaf", "the leaf of plan in the place of base", record(0, 1)),
        ("forged-leaf", "a leaf with another root", forged),
        ("old-leaf", "a leaf of release 2 under release 3", old),
    ] {
        let file = format!("refuse/record-{name}");
        listed.push(json!({ "file": file, "what": "record", "channel": "prod", "reason": reason }));
        out.insert(file, codec::encode(&record));
    }
    let edit = &step.edits[&signing::bundle("base")];
    let first = &history[0].edits[&signing::bundle("base")];
    for (name, reason, edit) in [
        ("not-in-chain", "the edit of release 1 offered for release 2", first.clone()),
        ("truncated", "the last byte is missing", edit[..edit.len() - 1].to_vec()),
        ("longer", "a byte after the end", [&edit[..], &[0]].concat()),
    ] {
        let file = format!("refuse/edit-{name}");
        listed
            .push(json!({ "file": file, "what": "edit", "release": 2, "bundle": "base", "reason": reason }));
        out.insert(file, edit);
    }
    let fields = signing::trust_fields();
    let payload = fields.encode();
    let root = |n: usize| signing::sign(DocumentKind::Trust, PLATFORM, &signing::root_keys()[n], &payload);
    let mut zero = fields.clone();
    zero.roots.threshold = 0;
    // The second root key with the point (0, 1), of order 1, in its place: everything verifies under it.
    let mut small = payload.clone();
    let key = signing::public(&signing::root_keys()[1]).to_bytes();
    let at = small.windows(32).position(|window| window == key).unwrap();
    small[at..at + 32].copy_from_slice(&[&[1][..], &[0; 31]].concat());
    let signed = |payload: &[u8]| {
        signing::root_keys()
            .iter()
            .flat_map(|key| signing::sign(DocumentKind::Trust, PLATFORM, key, payload))
            .collect()
    };
    let cases: [(&str, &str, Vec<u8>, TrustHash); 4] = [
        ("one-signature", "threshold 2, signed once", root(0), TrustHash::of(&payload)),
        ("threshold-zero", "a threshold of zero", signed(&zero.encode()), TrustHash::of(&zero.encode())),
        ("small-order-key", "a root key of order 1", signed(&small), TrustHash::of(&small)),
        ("fingerprint", "another fingerprint is pinned", signed(&payload), TrustHash::of(b"")),
    ];
    for (name, reason, document, fingerprint) in cases {
        let file = format!("refuse/trust-{name}");
        listed.push(json!({ "file": file, "what": "trust", "fingerprint": fingerprint.to_string(), "reason": reason }));
        out.insert(file, document);
    }
    listed
}

fn acceptance() -> Value {
    let hash = |n: u8| ReleaseHash::from_bytes([n; 32]);
    let floors = [
        None,
        Some(Accepted { epoch: 1, number: 1, hash: hash(1) }),
        Some(Accepted { epoch: 2, number: 7, hash: hash(7) }),
    ];
    let offers = [
        (0, 0, None),
        (1, 1, None),
        (1, 9, None),
        (1, 1, Some(9)),
        (2, 2, None),
        (2, 2, Some(1)),
        (2, 2, Some(9)),
        (6, 6, Some(5)),
        (7, 7, Some(6)),
        (7, 9, Some(6)),
        (8, 8, Some(7)),
        (8, 8, Some(9)),
        (9, 9, Some(8)),
        ((1 << 53) - 1, 9, Some(9)),
        (1 << 53, 9, Some(9)),
        (u64::MAX, 9, Some(9)),
    ];
    let mut cases = Vec::new();
    for floor in floors {
        for (epoch, (number, own, previous)) in
            [1, 2, 3].into_iter().flat_map(|epoch| offers.map(|offer| (epoch, offer)))
        {
            let release = Accepted { epoch, number, hash: hash(own) };
            let offer = Offer { release, previous: previous.map(hash) };
            let verdict = match judge(&Floors { release: floor, ..Floors::default() }, &offer) {
                Ok(Verdict::Next) => "next",
                Ok(Verdict::Jump) => "jump",
                Ok(Verdict::Same) => "same",
                Err(Refusal::Rollback { .. }) => "rollback",
                Err(Refusal::Equivocation { .. }) => "equivocation",
                Err(Refusal::Fork { .. }) => "fork",
                Err(Refusal::OutOfRange { .. }) => "out of range",
                Err(Refusal::Epoch { .. }) => "epoch",
            };
            cases.push(json!({
                "floor": floor.map(|floor| json!({ "epoch": floor.epoch, "number": floor.number, "hash": floor.hash.to_string() })),
                "epoch": epoch,
                // As text: it may be beyond what a JSON number holds.
                "number": number.to_string(), "hash": release.hash.to_string(),
                "previous": offer.previous.map(|hash| hash.to_string()), "verdict": verdict,
            }));
        }
    }
    json!(cases)
}

/// Versions 2 and 3 of the trust, what does not follow, and heads.
fn succession(out: &mut Vectors, history: &[Step]) -> (Value, Value, Vec<Value>) {
    use signing::succession::{not_second, second, third};
    out.insert("trust-2.cose".into(), second());
    out.insert("trust-3.cose".into(), third());
    let mut refuse = Vec::new();
    for (name, reason, document) in not_second() {
        let file = format!("refuse/trust-2-{name}");
        refuse.push(json!({ "file": file, "what": "trust-2", "reason": reason }));
        out.insert(file, document);
    }
    let head = signing::head_of(&history[2], 3);
    out.insert("head.cose".into(), signing::sign_head(&head).into());
    let by = |key: &SigningKey, head: &Head| -> Vec<u8> {
        signing::sign(DocumentKind::Head, PLATFORM, key, &head.encode())
    };
    let online = signing::head_key();
    let other = |change: &dyn Fn(&mut Head)| {
        let mut head = head.clone();
        change(&mut head);
        by(&online, &head)
    };
    let as_release = signing::sign(DocumentKind::Release, PLATFORM, &online, &head.encode());
    for (name, reason, document) in [
        ("publisher", "signed by a publisher's key", by(&signing::publisher(), &head)),
        ("kind", "signed as a release", as_release),
        ("channel", "of another channel", other(&|head| head.channel = signing::channel("team"))),
        ("epoch", "of an epoch that is not granted", other(&|head| head.epoch = 2)),
        ("sequence", "sequence zero", other(&|head| head.sequence = 0)),
        ("lapsed", "expires when it was issued", other(&|head| head.expires = head.issued)),
    ] {
        let file = format!("refuse/head-{name}");
        refuse.push(json!({ "file": file, "what": "head", "channel": "prod", "reason": reason }));
        out.insert(file, document);
    }
    let heads = json!([{
        "file": "head.cose", "channel": "prod", "epoch": 1, "sequence": 3, "release": 3,
        "hash": head.release.hash.to_string(), "issued": head.issued, "expires": head.expires,
    }]);
    (json!(["trust-2.cose", "trust-3.cose"]), heads, refuse)
}

fn make() -> Vectors {
    let mut out = Vectors::new();
    let blobs = blobs(&mut out);
    let (built, trees) = build_trees(&mut out);
    let edits = edits(&mut out, &built);
    let (document, fingerprint) = signing::sign_trust(&signing::trust_fields());
    out.insert("trust.cose".into(), document);
    let (_, history) = signing::prod_history();
    let releases = releases(&mut out, &history);
    let pair = pair(&mut out, &history);
    let mut refuse = refused_releases(&mut out, &history);
    refuse.extend(refused_others(&mut out, &history));
    let (later_trust, heads, refused) = succession(&mut out, &history);
    refuse.extend(refused);
    let index = json!({
        "platform": PLATFORM.to_string(),
        "empty_root": empty_root().to_string(),
        "blobs": blobs, "trees": trees, "edits": edits,
        "trust": { "file": "trust.cose", "fingerprint": fingerprint.to_string(), "later": later_trust },
        "heads": heads,
        "releases": releases, "other_releases": pair,
        "acceptance": acceptance(), "refuse": refuse,
    });
    out.insert("index.json".into(), pretty(&index));
    out
}

fn files_below(directory: &Path, prefix: &str, found: &mut Vectors) {
    let Ok(listing) = std::fs::read_dir(directory) else { return };
    for entry in listing {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

#[test]
fn the_bytes_are_those_of_the_committed_vectors() {
    let made = make();
    if std::env::var("ROOTCAST_BLESS").is_ok() {
        for (name, bytes) in &made {
            let path = directory().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
    let mut held = Vectors::new();
    files_below(&directory(), "", &mut held);
    let names = |vectors: &Vectors| vectors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&made), names(&held), "left: made, right: committed");
    let differ: Vec<_> = made.keys().filter(|name| made[*name] != held[*name]).collect();
    assert!(differ.is_empty(), "a format changed, or needs ROOTCAST_BLESS=1: {differ:?}");
    let total: usize = held.values().map(Vec::len).sum();
    assert!(total < 400 << 10, "{total} bytes of vectors");
}

#[test]
fn what_must_be_refused_is_refused() {
    let made = make();
    let index: Value = serde_json::from_slice(&made["index.json"]).unwrap();
    let (_, history) = signing::prod_history();
    let trust = signing::trust();
    let mut count = 0;
    for case in index["refuse"].as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let bytes = &made[file];
        let channel = || signing::channel(case["channel"].as_str().unwrap());
        let refused = match case["what"].as_str().unwrap() {
            "release" => trust.release(&channel(), &Bytes::from(bytes.clone())).is_err(),
            "record" => match codec::decode::<ReleaseRecord>(bytes, 1 << 20) {
                Ok(record) => record.verify(&signing::chain(), &channel()).is_err(),
                Err(error) => panic!("{file}: {error}"),
            },
            "edit" => {
                let verified = trust.release(&signing::channel("prod"), &history[1].document).unwrap();
                let bundles = verified.bundles(history[1].known(&[0, 1, 2]), &[]).unwrap();
                let before = Some(history[0].leaf("base"));
                bundles.admit_logged(&signing::bundle("base"), before, bytes).is_err()
            }
            "trust" => {
                let fingerprint = case["fingerprint"].as_str().unwrap().parse().unwrap();
                rootcast::trust::VerifiedTrust::pinned(bytes, fingerprint).is_err()
            }
            "trust-2" => trust.next(bytes).is_err(),
            "head" => trust.head(&channel(), &Bytes::from(bytes.clone())).is_err(),
            other => panic!("{other}"),
        };
        assert!(refused, "{file}: {}", case["reason"]);
        count += 1;
    }
    assert!(count > 20, "{count}");
    let pair = Bytes::from(made["releases/pair.cose"].clone());
    trust.release(&signing::channel("pair"), &pair).unwrap();
    let mut chain = signing::chain();
    for later in ["trust-2.cose", "trust-3.cose"] {
        chain.extend(&made[later]).unwrap();
    }
    trust.head(&signing::channel("prod"), &Bytes::from(made["head.cose"].clone())).unwrap();
}
