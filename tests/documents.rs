//! Properties of signed documents, messages and acceptance.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

mod signing;

use bytes::Bytes;
use proptest::prelude::*;
use rootcast::acceptance::{Accepted, Floors, Offer, Verdict, judge};
use rootcast::codec::{self, CodecError};
use rootcast::cose::{self, DocumentKind};
use rootcast::entry::{Chunk, ChunkList, Entry};
use rootcast::head::Head;
use rootcast::id::{BlobId, BundlesRoot, Chain, EditHash, NodeId, ObjectId, ProofHash, ReleaseHash};
use rootcast::limits::{MAX_BUNDLES, MAX_NUMBER};
use rootcast::path::MemberName;
use rootcast::plan::Plan;
use rootcast::protocol::*;
use rootcast::release::{BundleLeaf, Release};
use rootcast::resumption::{Beginnings, Begun};
use rootcast::selector::Selector;
use rootcast::status::{
    self, Below, ChannelStatus, Count, HostRow, HostState, HostsAnswer, HostsQuery, Move, Question, RelayRow,
    Remembered, Report, Serving, StatusAnswer,
};
use rootcast::topology::{Address, Alternate, Alternates, Child, Condition, Place, Route};
use rootcast::tree::Node;
use rootcast::trust::{Trust, VerifiedTrust};
use rootcast::verify::{ReleaseRecord, VerifyError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use signing::{PLATFORM, Step, channel};
use std::collections::BTreeMap;

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9_-]{1,12}(/[a-z0-9_-]{1,12}){0,3}"
}

fn leaf() -> impl Strategy<Value = BundleLeaf> {
    (name(), any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u64; 3]>()).prop_map(
        |(name, root, chain, numbers)| BundleLeaf {
            name: signing::bundle(&name),
            sequence: numbers[0],
            root: NodeId::from_bytes(root),
            chain: Chain::from_bytes(chain),
            files: numbers[1],
            bytes: numbers[2],
        },
    )
}

fn release() -> impl Strategy<Value = Release> {
    let commit = prop_oneof![Just(0usize), Just(20), Just(32)];
    (
        name(),
        1..=MAX_NUMBER,
        any::<[u8; 32]>(),
        any::<[u8; 32]>(),
        1..=MAX_BUNDLES as u64,
        commit,
        any::<u32>(),
    )
        .prop_map(|(name, number, previous, root, bundles, commit, sum)| Release {
            channel: channel(&name),
            epoch: 1 + u64::from(sum) % 3,
            number,
            previous: (number > 1).then_some(ReleaseHash::from_bytes(previous)),
            bundles_root: BundlesRoot::from_bytes(root),
            bundles,
            files: u64::from(sum) % 1000,
            bytes: u64::from(sum),
            commit: Bytes::from(vec![7; commit]),
            issued: u64::from(sum),
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn releases_and_leaves_read_back(release in release(), leaf in leaf()) {
        prop_assert_eq!(Release::decode(&release.encode()), Ok(release.clone()));
        let encoded = codec::encode(&leaf);
        prop_assert_eq!(codec::decode::<BundleLeaf>(&encoded, 1024), Ok(leaf.clone()));
        let changed = BundleLeaf { files: leaf.files ^ 1, ..leaf.clone() };
        prop_assert_ne!(changed.hash(), leaf.hash());
    }

    #[test]
    fn signed_payloads_come_back_as_they_are(payload in proptest::collection::vec(any::<u8>(), 0..300), copies in 1usize..4) {
        let key = signing::publisher();
        let keys = signing::keys(1, &[signing::second_publisher(), key.clone()]);
        let document = signing::sign(DocumentKind::Release, PLATFORM, &key, &payload).repeat(copies);
        let verified = cose::verify(DocumentKind::Release, PLATFORM, &document, &keys);
        prop_assert_eq!(verified.as_deref(), Ok(&payload[..]));
        let claimed = cose::claimed_keys(DocumentKind::Release, &document).unwrap();
        prop_assert_eq!(claimed, vec![signing::public(&key).id(); copies]);
    }

    #[test]
    fn a_trust_document_reads_back(threshold in 1u64..3, prefixes in proptest::collection::btree_set("[a-z]{1,8}", 1..6), expires in 1u64..9) {
        let mut trust = signing::trust_fields();
        let grant = trust.grants[0].clone();
        trust.grants = prefixes.iter().map(|prefix| rootcast::trust::Grant { prefix: channel(prefix), ..grant.clone() }).collect();
        trust.roots.threshold = threshold;
        trust.expires = trust.issued + expires;
        let (document, fingerprint) = signing::sign_trust(&trust);
        let verified = VerifiedTrust::pinned(&document, fingerprint).unwrap();
        prop_assert_eq!(verified.trust(), &trust);
        prop_assert_eq!(verified.hash(), fingerprint);
    }

    /// Whatever is offered in whatever order: no floor goes back, and only what was accepted moves it.
    #[test]
    fn threat_06_floors_never_go_back(offers in proptest::collection::vec((0u64..9, 0u8..4, proptest::option::of(0u8..4)), 0..60)) {
        let mut floors = Floors::default();
        let mut highest = 0;
        for (number, own, previous) in offers {
            // Some offers are far away.
            let number = if number == 8 { u64::MAX - u64::from(own) } else { number };
            let hash = |n: u8| ReleaseHash::from_bytes([n; 32]);
            let offer = Offer { release: Accepted { epoch: 1, number, hash: hash(own) }, previous: previous.map(hash) };
            let next = Floors { release: Some(offer.release), ..floors };
            match judge(&floors, &offer) {
                Ok(verdict) => {
                    prop_assert!(floors.may_become(&next), "{:?} -> {:?}", floors, next);
                    prop_assert_eq!(verdict == Verdict::Same, floors == next);
                    if verdict == Verdict::Next && floors.number() > 0 {
                        prop_assert_eq!(offer.previous, floors.release.map(|accepted| accepted.hash));
                        prop_assert_eq!(number, floors.number() + 1);
                    }
                    floors = next;
                }
                // What is accepted already is never refused, unless it could be no release at all.
                Err(_) => {
                    let shaped = (number == 1) == previous.is_none();
                    prop_assert!(floors.release != Some(offer.release) || !shaped);
                }
            }
            prop_assert!(floors.number() >= highest && floors.number() <= MAX_NUMBER);
            highest = floors.number();
            let encoded = codec::encode(&floors);
            prop_assert_eq!(codec::decode::<Floors>(&encoded, 1024), Ok(floors));
        }
    }
}

#[test]
fn threat_06_no_floor_is_lowered_for_another() {
    let accepted = |number, n| Some(Accepted { epoch: 1, number, hash: ReleaseHash::from_bytes([n; 32]) });
    let floors = Floors { trust_version: 3, head_epoch: 1, head_sequence: 5, release: accepted(7, 7) };
    assert!(floors.may_become(&floors) && Floors::default().may_become(&floors));
    assert!(floors.may_become(&Floors {
        trust_version: 4,
        head_epoch: 1,
        head_sequence: 5,
        release: accepted(9, 9)
    }));
    for lower in [
        Floors { trust_version: 2, head_epoch: 1, head_sequence: 9, release: accepted(9, 9) },
        Floors { trust_version: 4, head_epoch: 1, head_sequence: 4, release: accepted(9, 9) },
        Floors { trust_version: 4, head_epoch: 1, head_sequence: 6, release: accepted(6, 7) },
        Floors { trust_version: 4, head_epoch: 1, head_sequence: 6, release: accepted(7, 8) },
        Floors { trust_version: 4, head_epoch: 1, head_sequence: 6, release: None },
    ] {
        assert!(!floors.may_become(&lower), "{lower:?}");
    }
}

fn flips(bytes: &[u8], mut refused: impl FnMut(&[u8]) -> bool) {
    for at in 0..bytes.len() {
        for bit in [at % 8, (at + 3) % 8] {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1 << bit;
            assert!(refused(&changed), "byte {at} of {}, bit {bit}", bytes.len());
        }
        assert!(refused(&bytes[..at]), "cut to {at} bytes");
    }
}

#[test]
fn tuf_arbitrary_installation_a_flipped_byte_of_anything_signed_is_refused() {
    let (document, fingerprint) = signing::sign_trust(&signing::trust_fields());
    flips(&document, |changed| VerifiedTrust::pinned(changed, fingerprint).is_err());
    let trust = signing::trust();
    let (_, history) = signing::prod_history();
    let step = &history[2];
    flips(&step.document, |changed| {
        trust.release(&channel("prod"), &Bytes::copy_from_slice(changed)).is_err()
    });
    for indices in [&[0][..], &[1, 2]] {
        let siblings = step.proof(indices);
        let record = ReleaseRecord {
            document: step.document.clone(),
            leaves: step.known(indices).into_iter().collect(),
            siblings: siblings.clone(),
        };
        record.verify(&signing::chain(), &channel("prod")).unwrap();
        flips(&codec::encode(&record), |changed| match codec::decode::<ReleaseRecord>(changed, 1 << 20) {
            Ok(record) => record.verify(&signing::chain(), &channel("prod")).is_err(),
            Err(_) => true,
        });
        let verified = || trust.release(&channel("prod"), &step.document).unwrap();
        for missing in 0..siblings.len() {
            let mut short = siblings.clone();
            short.remove(missing);
            assert!(verified().bundles(step.known(indices), &short).is_err());
        }
        let longer = [&siblings[..], &[ProofHash::from_bytes([0; 32])]].concat();
        assert!(verified().bundles(step.known(indices), &longer).is_err());
    }
}

#[test]
fn tuf_wrong_software_installation_leaves_prove_only_in_their_own_place() {
    let trust = signing::trust();
    let (_, history) = signing::prod_history();
    let step = &history[1];
    let prove = |leaves: BTreeMap<u64, BundleLeaf>, siblings: &[ProofHash]| {
        trust.release(&channel("prod"), &step.document).unwrap().bundles(leaves, siblings)
    };
    for index in 0..3 {
        let proof = step.proof(&[index]);
        assert!(!prove(step.known(&[index]), &proof).unwrap().is_complete());
        for other in (0..3).filter(|other| *other != index) {
            let moved = BTreeMap::from([(index, step.leaves[other as usize].clone())]);
            assert!(matches!(prove(moved, &proof), Err(VerifyError::Proof { .. })), "{other} at {index}");
        }
    }
    assert!(prove(step.known(&[0, 1, 2]), &[]).unwrap().is_complete());
    assert!(prove(BTreeMap::new(), &[ProofHash::from_bytes(*step.release.bundles_root.as_bytes())]).is_err());
    assert!(prove(BTreeMap::from([(u64::MAX, step.leaves[0].clone())]), &[]).is_err());
}

#[test]
fn a_log_is_followed_edit_by_edit() {
    let trust = signing::trust();
    let (_, history) = signing::prod_history();
    let base = signing::bundle("base");
    let bundles = |step: &Step| {
        let verified = trust.release(&channel("prod"), &step.document).unwrap();
        verified.bundles(step.known(&[0, 1, 2]), &[]).unwrap()
    };
    let [first, second, third] = &history[..] else { panic!("three releases") };
    let (one, two) = (&first.edits[&base], &second.edits[&base]);
    let refused = |outcome: Result<rootcast::verify::Admitted<'_>, VerifyError>| {
        matches!(outcome, Err(VerifyError::Chain(_)))
    };
    assert!(bundles(first).admit_logged(&base, None, one).is_ok());
    assert!(bundles(second).admit_logged(&base, Some(first.leaf("base")), two).is_ok());
    assert!(refused(bundles(second).admit_logged(&base, None, two)));
    assert!(refused(bundles(second).admit_logged(&base, Some(first.leaf("base")), one)));
    assert!(refused(bundles(second).admit_logged(&base, Some(second.leaf("base")), two)));
    let skewed = BundleLeaf { sequence: u64::MAX, ..first.leaf("base").clone() };
    assert!(refused(bundles(second).admit_logged(&base, Some(&skewed), two)));
    assert_eq!(bundles(third).unchanged(&base, second.leaf("base").root).unwrap().name(), &base);
    assert!(bundles(second).unchanged(&base, first.leaf("base").root).is_none());
    let absent = signing::bundle("role/db");
    assert!(matches!(
        bundles(first).admit_direct(&absent, first.leaf("base").root, one),
        Err(VerifyError::NoSuchBundle(_))
    ));
    let chain = Chain::START.next(&EditHash::of(one)).next(&EditHash::of(two));
    assert_eq!(chain, third.leaf("base").chain);
}

type Takes = Box<dyn Fn(&[u8]) -> bool>;

/// A decoder, and the encoding of something that it takes.
struct Decoder {
    name: &'static str,
    sample: Vec<u8>,
    /// Whether the bytes are taken; then they must be the one encoding of what was read.
    takes: Takes,
}

fn message<T: Serialize + DeserializeOwned + 'static>(name: &'static str, sample: &T) -> Decoder {
    let takes = |bytes: &[u8]| match codec::decode::<T>(bytes, 1 << 20) {
        Ok(value) => {
            assert_eq!(codec::encode(&value), bytes);
            true
        }
        Err(_) => false,
    };
    Decoder { name, sample: codec::encode(sample), takes: Box::new(takes) }
}

fn document(name: &'static str, sample: Vec<u8>, takes: impl Fn(&[u8]) -> bool + 'static) -> Decoder {
    Decoder { name, sample, takes: Box::new(takes) }
}

fn messages(step: &Step) -> Vec<Decoder> {
    let prod = channel("prod");
    let accepted = step.release_accepted();
    let base = signing::bundle("base");
    let standing = Standing { release: Some(accepted), whole: vec![base.clone()] };
    let interest = Interest::Named(vec![base]);
    let name = |text: &str| MemberName::new(text).unwrap();
    let place = Place::of(&"datacenter=fra&region=eu".parse().unwrap());
    let relay =
        Alternate { name: name("fra-2"), place: place.clone(), address: Address::new("relay:1").unwrap() };
    let alternates = Alternates::ranked(&Child { name: name("web-1"), place, is_relay: false }, [&relay]);
    let route = Route::origin(name("origin")).below(name("fra-1"));
    let condition = Condition { latest: Some(accepted), route, behind: false };
    let mut begun = Begun::default();
    begun.extend(b"the first bytes of an edit");
    let subscribe = Subscribe {
        channel: prod.clone(),
        subscription: 3,
        interest: interest.clone(),
        standing: standing.clone(),
        trust: 1,
        head: (1, 2),
        serves: Some(relay.address.clone()),
        begun: Beginnings::of([&begun]),
    };
    let edit = Some(EditHead { base: EditBase::Held, length: 9, before: Vec::new() });
    let listed = ListedBundle { index: 0, leaf: step.leaves[0].clone(), edit };
    let head = UpdateHead {
        subscription: 1,
        release: step.document.clone(),
        listed: vec![listed],
        keep_others: true,
        siblings: step.proof(&[0]),
    };
    let objects = vec![ObjectId::from(step.leaves[0].root), BlobId::of(b"").into()];
    let publication = Publication {
        channel: prod.clone(),
        release: step.document.clone(),
        leaves: step.leaves.clone(),
        edits: vec![Some(3), None, Some(4)],
    };
    vec![
        message("subscribe", &Opening::Subscribe(subscribe)),
        message("status", &Opening::Status),
        message("pull", &Opening::Update(UpdateRequest { channel: prod.clone(), interest, standing })),
        message(
            "objects",
            &Opening::Objects(ObjectsRequest {
                channel: prod,
                release: 2,
                bundle: signing::bundle("base"),
                objects,
            }),
        ),
        message("publish", &Opening::Publish(publication)),
        message(
            "welcome",
            &Welcome { condition: condition.clone(), time: 9, alternates: alternates.clone(), trust: 2 },
        ),
        message("condition", &News::Condition(condition)),
        message("alternates", &News::Alternates(alternates)),
        message("update head", &head),
        message("update", &UpdateAnswer::Update(head.clone())),
        message("sizes", &ObjectsAnswer(vec![Some(1), None])),
        message("accepted", &PublishAnswer::Accepted(accepted)),
        message("refused", &PublishAnswer::Refused("no".into())),
        message("ask trust", &Opening::Trust(1)),
        message("apply trust", &Opening::ApplyTrust(Bytes::from_static(b"a document"))),
        message("trust answer", &TrustAnswer(vec![Bytes::from_static(b"a document"), Bytes::new()])),
        message("applied", &TrustApplied::InForce(2)),
        message("trust refused", &TrustApplied::Refused("no".into())),
        message("news of trust", &News::Trust(3)),
        message("news of a head", &News::Head(Bytes::from_static(b"a document"))),
    ]
}

fn status_messages() -> Vec<Decoder> {
    let prod = channel("prod");
    let condition =
        status::Condition { release: 2, files: 3, received: 999, ..status::Condition::none(1_800_000_000) };
    let count = Count { release: 2, state: HostState::Updating, hosts: 3 };
    let serving = Serving { lag: 1, sent: 70_000, children: 3, counts: vec![count] };
    let relay = RelayRow {
        name: "eu".into(),
        parent: "origin".into(),
        place: "region=eu".into(),
        condition: condition.clone(),
        serving: serving.clone(),
    };
    let host = HostRow {
        name: "web-1".into(),
        relays: vec!["eu".into()],
        labels: "role=web".into(),
        expires: 1_800_100_000,
        condition: condition.clone(),
    };
    let moves = vec![Move { host: "web-2".into(), from: "us".into() }];
    let (relays, rest, worst) = (vec![relay.clone()], vec![count], vec![host.clone()]);
    let below = Below { serving, relays, rest: rest.clone(), worst: worst.clone(), moves: moves.clone() };
    let own_report = Report { sequence: 1, own: condition.clone(), before: "us".into(), below: None };
    let relay_report =
        Report { sequence: 2, own: condition.clone(), before: String::new(), below: Some(below) };
    let status = ChannelStatus { channel: prod.clone(), relays: vec![relay], rest, worst };
    let selector = Selector::parse("web-* release!=2").unwrap();
    let after = ("web-0".into(), "eu".into());
    let query = HostsQuery { channel: prod.clone(), selector, limit: 9, after, wait: 1000 };
    let hosts = HostsAnswer { hosts: vec![host], more: true, unanswered: vec!["us".into()] };
    let remembered = Remembered {
        channel: prod.clone(),
        relay: false,
        name: "web-1".into(),
        labels: "role=web".into(),
        expires: 9,
        seen: 8,
        condition,
    };
    vec![
        message("ask for hosts", &Opening::Hosts(query.clone())),
        message("question", &Question::Hosts(query)),
        message("moved", &Question::Moved(prod, moves)),
        message("report of a host", &own_report),
        message("report of a relay", &relay_report),
        message("status answer", &StatusAnswer(vec![status])),
        message("hosts answer", &hosts),
        message("children", &vec![remembered]),
    ]
}

fn decoders() -> Vec<Decoder> {
    let (objects, history) = signing::prod_history();
    let step = &history[1];
    let mut decoders = messages(step);
    decoders.extend(status_messages());
    let record = ReleaseRecord {
        document: step.document.clone(),
        leaves: step.known(&[0]).into_iter().collect(),
        siblings: step.proof(&[0]),
    };
    decoders.push(message("record", &record));
    decoders.push(message("floors", &Floors { release: Some(step.release_accepted()), ..Floors::default() }));
    decoders.push(document("release", step.release.encode(), |bytes| Release::decode(bytes).is_ok()));
    decoders.push(document("head", signing::head_of(step, 3).encode(), |bytes| Head::decode(bytes).is_ok()));
    decoders.push(document("trust", signing::trust_fields().encode(), |bytes| {
        let document = signing::sign(DocumentKind::Trust, PLATFORM, &signing::stranger(), bytes);
        Trust::unverified(&document).is_ok()
    }));
    decoders.push(document("COSE_Sign1", step.document[1..].to_vec(), |bytes| {
        cose::claimed_keys(DocumentKind::Release, &[&[0xd2], bytes].concat()).is_ok()
    }));
    let leaf = objects[&step.leaves[2].root.into()].to_vec();
    decoders.push(document("leaf node", leaf, |bytes| Node::decode(NodeId::of(bytes), bytes).is_ok()));
    let root = objects[&step.leaves[0].root.into()].to_vec();
    decoders.push(document("inner node", root, |bytes| Node::decode(NodeId::of(bytes), bytes).is_ok()));
    let list = ChunkList(vec![Chunk { id: BlobId::of(b"x"), size: 5 }; 2]).encode();
    decoders.push(document("chunk list", list, |bytes| ChunkList::decode(bytes, 10).is_ok()));
    let signing::File::Regular(plan) =
        &signing::plan_files(&["base", "role/{role}"], &["base", "role/web"])["plan"]
    else {
        panic!("a plan is a file")
    };
    decoders.push(document("plan", plan.clone(), |bytes| Plan::decode(bytes).is_ok()));
    decoders.push(message::<Entry>("entry", &codec::decode(&codec::encode(&(2u8, "x")), 99).unwrap()));
    decoders
}

/// The places of all items in a canonical encoding.
fn items(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    fn item(bytes: &[u8], at: usize, found: &mut Vec<std::ops::Range<usize>>) -> usize {
        let info = bytes[at] & 0x1f;
        let size = if info < 24 { 0 } else { 1 << (info - 24) };
        let argument = match size {
            0 => usize::from(info),
            _ => bytes[at + 1..at + 1 + size].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        let place = found.len();
        found.push(at..at);
        let mut end = at + 1 + size;
        match bytes[at] >> 5 {
            2 | 3 => end += argument,
            4 => (0..argument).for_each(|_| end = item(bytes, end, found)),
            5 => (0..argument * 2).for_each(|_| end = item(bytes, end, found)),
            _ => {}
        }
        found[place].end = end;
        end
    }
    let mut found = Vec::new();
    assert_eq!(item(bytes, 0, &mut found), bytes.len());
    found
}

/// Each item of each encoding, in turn, is replaced by well-formed items of other kinds.
#[test]
fn threat_03_the_wrong_shape_at_every_decoder() {
    let other: [&[u8]; 9] = [
        &[0xf6],
        &[0xf4],
        &[0x20],
        &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x40],
        &[0x60],
        &[0x80],
        &[0xa0],
        &[0x82, 0x81, 0x00, 0xa1, 0x00, 0x41, 0x00],
    ];
    for Decoder { name, sample, takes } in decoders() {
        assert!(takes(&sample), "{name}");
        let (mut tried, mut taken) = (0, 0);
        for place in items(&sample) {
            let original = sample[place.start] >> 5;
            for item in other {
                let changed = [&sample[..place.start], item, &sample[place.end..]].concat();
                if changed == sample {
                    continue;
                }
                assert!(
                    codec::check_canonical(&changed).is_ok() || original == 5 || item[0] == 0x82,
                    "{name}"
                );
                let took = takes(&changed);
                // A null may be an absent value, 2^64-1 a large one; another kind of item is never taken.
                let kind = item[0] >> 5;
                assert!(
                    !took
                        || kind == original
                        || item == [0xf6]
                        || item == [0xf4]
                        || sample[place.start] == 0xf6,
                    "{name}: {item:02x?} at {place:?}"
                );
                tried += 1;
                taken += usize::from(took);
            }
        }
        assert!(taken * 2 < tried, "{name}: {taken} of {tried} taken");
        // One element more, or less, in the outermost array.
        if sample[0] >> 5 == 4
            && sample[0] & 0x1f < 23
            && !matches!(name, "sizes" | "status answer" | "children" | "chunk list" | "trust answer")
        {
            let longer = [&[sample[0] + 1], &sample[1..], &[0]].concat();
            assert!(!takes(&longer), "{name}");
            let last = items(&sample)
                .into_iter()
                .filter(|place| place.end == sample.len() && place.start > 0)
                .map(|p| p.start)
                .min();
            let shorter = [&[sample[0] - 1], &sample[1..last.unwrap()]].concat();
            assert!(!takes(&shorter), "{name}");
        }
    }
}

#[test]
fn one_value_has_one_encoding() {
    // Enums have two spellings in serde's CBOR, options and byte strings more: only ours is taken.
    let status = codec::encode(&"Status");
    assert!(matches!(codec::decode::<Opening>(&status, 99), Err(CodecError::Shape { .. })));
    assert_eq!(codec::decode::<Opening>(&codec::encode(&Opening::Status), 99), Ok(Opening::Status));
    let named = codec::encode(&Interest::Named(vec![signing::bundle("a")]));
    assert_eq!(named, b"\xa1\x65Named\x81\x61a");
    assert!(codec::decode::<Interest>(b"\xa1\x01\x81\x61a", 99).is_err());
    assert_eq!(codec::encode(&Interest::All), [0]);
    let hash = vec![0u8; 32];
    assert!(
        codec::decode::<NodeId>(&codec::encode(&hash), 99).is_err(),
        "an array of numbers is no byte string"
    );
    let plan = codec::encode(&(vec!["base"], vec!["role/web", "base"]));
    assert!(Plan::decode(&plan).is_err(), "bundles out of order");
    assert!(Plan::decode(&codec::encode(&(vec!["base"], vec!["base", "base"]))).is_err());
}
