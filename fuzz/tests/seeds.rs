//! The seeds of the corpus are made of the golden vectors.
//!
//! `ROOTCAST_BLESS=1 cargo test -p rootcast-fuzz --test seeds` writes them.

#![allow(clippy::disallowed_methods, reason = "this test reads and writes the committed corpus")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

#[path = "seeds/activation.rs"]
mod activation;
#[path = "seeds/views.rs"]
mod views;

use ed25519_dalek::{Signer, SigningKey};
use rootcast::acceptance::{Accepted, Floors};
use rootcast::codec;
use rootcast::compact::Before;
use rootcast::cose::PublicKey;
use rootcast::cose::{self, DocumentKind};
use rootcast::denials::{Denials, Denied};
use rootcast::draft::{ReleaseDraft, TrustProposal};
use rootcast::entry::ChunkList;
use rootcast::http::{After, Bearer, EditBody, LeafAnswer, NewsAnswer, Resource, Target, Token, Url};
use rootcast::id::{NodeId, ObjectId};
use rootcast::join::{JoinAnswer, JoinString, PublicDocuments, Request, TokenSecret};
use rootcast::layers::LayerPattern;
use rootcast::member::Role;
use rootcast::path::{BundleName, MemberName};
use rootcast::plan::Plan;
use rootcast::protocol::*;
use rootcast::release::BundleLeaf;
use rootcast::resumption::{Beginnings, Begun};
use rootcast::selector::Selector;
use rootcast::status::{
    self, Below, ChannelStatus, Count, HostRow, HostState, HostsAnswer, HostsQuery, Move, Question, RelayRow,
    Remembered, Report, Serving, StatusAnswer,
};
use rootcast::topology::{Address, Alternate, Alternates, Child, Condition, KeptParents, Place, Route};
use rootcast::trust::Trust;
use rootcast::verify::{ReleaseRecord, VerifiedBundles};
use rootcast_age::DecryptionKey;
use rootcast_fuzz::golden::{GOLDEN, channel, directory, index, record, vector};
use rootcast_fuzz::objects::secret_key;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Inputs by `target/seed-name`.
#[derive(Default)]
struct Seeds(BTreeMap<String, Vec<u8>>);

impl Seeds {
    fn add(&mut self, target: &str, name: &str, bytes: impl Into<Vec<u8>>) {
        let name = format!("{target}/seed-{}", name.replace(['/', ' '], "-"));
        assert!(self.0.insert(name.clone(), bytes.into()).is_none(), "{name} twice");
    }
    fn message(&mut self, target: &str, name: &str, message: &impl Serialize) {
        self.add(target, name, codec::encode(message));
    }
}

fn documents(seeds: &mut Seeds) {
    let index = index();
    let trust = vector("trust.cose");
    seeds.add("trust", "payload", cose::unverified_payload(DocumentKind::Trust, &trust).unwrap());
    seeds.add("trust", "document", trust.clone());
    seeds.add("cose", "trust", trust);
    let signed = index.releases.iter().map(|release| release.file.clone());
    for file in signed.chain(["releases/pair.cose".into()]) {
        let document = vector(&file);
        let payload = cose::unverified_payload(DocumentKind::Release, &document).unwrap();
        seeds.add("release", &format!("{file} payload"), payload);
        seeds.add("release", &file, document.clone());
        seeds.add("cose", &file, document);
    }
    for refused in &index.refuse {
        let bytes = vector(&refused.file);
        match refused.what.as_str() {
            "release" => seeds.add("cose", &refused.file, bytes),
            "trust" => seeds.add("trust", &refused.file, bytes),
            "trust-2" => seeds.add("trust-next", &refused.file, bytes),
            "head" => seeds.add("head", &refused.file, bytes),
            "record" => seeds.add("record", &refused.file, bytes),
            // From the tree that the golden edit starts at.
            "edit" => seeds.add("edit", &refused.file, [&[2][..], &bytes].concat()),
            other => panic!("{other}"),
        }
    }
    for file in &index.trust.later {
        seeds.add("trust-next", file, vector(file));
    }
    for head in &index.heads {
        let document = vector(&head.file);
        seeds.add("head", "payload", cose::unverified_payload(DocumentKind::Head, &document).unwrap());
        seeds.add("head", &head.file, document);
    }
    for proof in index.releases.iter().flat_map(|release| &release.proofs) {
        seeds.add("record", &proof.record, vector(&proof.record));
    }
    let edits = index.edits.iter().enumerate();
    for (at, edit) in edits {
        seeds.add("edit", &edit.file, [&[at as u8][..], &vector(&edit.file)].concat());
    }
}

/// The signatures of a document, each as the document of one signer.
fn apart(kind: DocumentKind, document: &[u8]) -> Vec<bytes::Bytes> {
    let payload = cose::unverified_payload(kind, document).unwrap();
    let signatures = cose::signatures(kind, document).unwrap().into_iter();
    signatures.map(|(key, bytes)| cose::assemble(kind, key, &payload, &bytes).into()).collect()
}

fn drafts(seeds: &mut Seeds) {
    let index = index();
    let signed = &index.releases[0];
    let whole = record(&signed.proofs.last().unwrap().record);
    let payload = cose::unverified_payload(DocumentKind::Release, &whole.document).unwrap();
    let leaves: Vec<_> = whole.leaves.iter().map(|(_, leaf)| leaf.clone()).collect();
    let edit = |leaf: &BundleLeaf| signed.edits.get(leaf.name.as_str()).map(|file| vector(file).into());
    let edits = leaves.iter().map(edit).collect();
    let mut draft = ReleaseDraft::new(GOLDEN.trust.trust().platform, payload, leaves, edits);
    seeds.add("release-draft", "unsigned", draft.encode());
    draft.signatures = apart(DocumentKind::Release, &whole.document);
    draft.signed_by(&GOLDEN.trust).unwrap();
    seeds.add("release-draft", "signed", draft.encode());
    let mut chain = GOLDEN.pinned.clone();
    for file in &index.trust.later {
        let document = vector(file);
        let (trust, _) = Trust::unverified(&document).unwrap();
        let mut proposal = TrustProposal::new(&chain, &trust).unwrap();
        seeds.add("trust-proposal", &format!("{file} unsigned"), proposal.encode());
        proposal.signatures = apart(DocumentKind::Trust, &document);
        assert!(proposal.judge(&GOLDEN.pinned).unwrap().signed.is_enough());
        seeds.add("trust-proposal", &format!("{file} signed"), proposal.encode());
        chain.extend(&document).unwrap();
    }
}

fn secrets(seeds: &mut Seeds) {
    let (own, other) = (secret_key().recipient(), DecryptionKey::from_bytes([8; 32].into()).recipient());
    // Nothing but repeatable: these secrets are none.
    let mut next = 0u8;
    let mut random = |bytes: &mut [u8]| {
        bytes.fill_with(|| {
            next = next.wrapping_mul(5).wrapping_add(17);
            next
        })
    };
    let long = vec![b'x'; (1 << 16) + 1];
    for (name, text, recipients) in [
        ("one", &b"a secret"[..], &[own][..]),
        ("second", b"", &[other, own]),
        ("of another", b"a secret", &[other]),
        ("two chunks", &long, &[own]),
    ] {
        let file = rootcast_age::encrypt(text, recipients, &mut random).unwrap();
        assert_eq!(secret_key().opens(&file), Ok(recipients.contains(&own)));
        seeds.add("secret", name, file);
    }
}

fn objects(seeds: &mut Seeds) {
    for (id, bytes) in &GOLDEN.objects {
        let name = hex(&id.hash()[..4]);
        match id {
            ObjectId::Node(_) => seeds.add("node", &name, bytes.clone()),
            ObjectId::ChunkList(_) => {
                let size = codec::decode::<ChunkList>(bytes, 1 << 22).unwrap().size();
                seeds.add("chunks", &name, [&size.to_le_bytes()[..], bytes].concat());
            }
            ObjectId::Blob(_) => {}
        }
    }
    seeds.add("node", "empty", b"\x82\x00\x80");
    let names = |names: &[&str]| names.iter().map(|name| BundleName::new(name).unwrap()).collect();
    let layers = |layers: &[&str]| layers.iter().map(|text| LayerPattern::parse(text).unwrap()).collect();
    let one = Plan { layers: layers(&["base"]), bundles: names(&["base"]) };
    let many = Plan {
        layers: layers(&["base", "region/{region}", "role/{role}", "host/{host}", "{region}/{role}/x"]),
        bundles: names(&["base", "eu/web/x", "host/web-1", "region/eu", "role/web"]),
    };
    seeds.add("plan", "one", one.encode());
    seeds.add("plan", "many", many.encode());
    views::add(seeds);
}

fn http(seeds: &mut Seeds, accepted: Accepted) {
    let platform = GOLDEN.trust.trust().platform;
    let bundle = BundleName::new("role/web").unwrap();
    let (id, bytes) = GOLDEN.objects.iter().next().unwrap();
    let after = After { trust: 1, release: accepted.rank(), head: (1, 7), wait: 30 };
    let resources = [
        ("news", Resource::News(None)),
        ("news after", Resource::News(Some(after))),
        ("trust", Resource::Trust(2)),
        ("head", Resource::Head(1, 7)),
        ("release", Resource::Release(accepted)),
        ("leaf", Resource::Leaf(accepted, bundle.clone())),
        ("edit", Resource::Edit { to: accepted, bundle: bundle.clone(), from: Some(accepted) }),
        ("snapshot", Resource::Edit { to: accepted, bundle: bundle.clone(), from: None }),
        ("object", Resource::Object(accepted, bundle, *id)),
    ];
    for (name, resource) in resources {
        let target = Target::Channel(channel(), resource);
        seeds.add("http-url", name, Url { platform, target }.to_string());
    }
    seeds.add("http-url", "join", Url { platform, target: Target::Join }.to_string());
    seeds.add("http-url", "refused", format!("{}main/../trust/01", Url::prefix(platform)));
    seeds.message("http-news", "none", &NewsAnswer { trust: 1, latest: None, head: (0, 0) });
    seeds.message("http-news", "some", &NewsAnswer { trust: 2, latest: Some(accepted), head: (1, 7) });
    let (index, leaf) = GOLDEN.first.leaves().first_key_value().unwrap();
    let siblings = record("releases/1-first-1.record").siblings;
    seeds.message("http-leaf", "one", &LeafAnswer { index: *index, leaf: leaf.clone(), siblings });
    seeds.message("http-leaf", "alone", &LeafAnswer { index: 0, leaf: leaf.clone(), siblings: Vec::new() });
    let (root, length) = (NodeId::of(bytes), GOLDEN.next[0].len() as u64);
    let waypoint = Waypoint { root, files: 1, bytes: 2, length };
    let head = EditHead { base: EditBase::Logged, length, before: Vec::new() };
    let logged = EditBody { head, edits: vec![GOLDEN.next[0].clone()] };
    let head = EditHead { base: EditBase::Empty, length, before: vec![waypoint] };
    let snapshot = EditBody { head, edits: vec![GOLDEN.next[0].clone(), GOLDEN.next[0].clone()] };
    seeds.add("http-edits", "logged", logged.clone().into_pieces().concat());
    seeds.add("http-edits", "snapshot", snapshot.into_pieces().concat());
    seeds.add("http-edits", "cut", logged.into_pieces().concat().split_last().unwrap().1);
    let key = SigningKey::from_bytes(&[9; 32]);
    let id = rootcast::id::KeyId::of(&key.verifying_key().to_bytes());
    let payload = Bearer::new(platform, 1_800_000_000).encode();
    let signature = key.sign(&cose::to_be_signed(DocumentKind::Bearer, platform, id, &payload));
    let document = cose::assemble(DocumentKind::Bearer, id, &payload, &signature.to_bytes()).into();
    let token = Token { chain: vec![bytes::Bytes::from_static(b"no certificate")], document };
    seeds.add("http-token", "signed", token.to_text());
    seeds.add("http-token", "capitals", token.to_text().to_uppercase());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The head that brings a child with all of release 1 to release 2.
fn head(before: &VerifiedBundles, next: &ReleaseRecord) -> UpdateHead {
    let mut edits = GOLDEN.next.iter();
    let changed = next.leaves.iter().filter(|(index, leaf)| before.leaves().get(index) != Some(leaf));
    let listed = changed.map(|(index, leaf)| {
        let length = edits.next().map_or(0, |edit| edit.len() as u64);
        let edit = Some(EditHead { base: EditBase::Logged, length, before: Vec::new() });
        ListedBundle { index: *index, leaf: leaf.clone(), edit }
    });
    UpdateHead {
        subscription: 3,
        release: next.document.clone(),
        listed: listed.collect(),
        keep_others: true,
        siblings: next.siblings.clone(),
    }
}

fn updates(seeds: &mut Seeds, accepted: Accepted) {
    let next = record("releases/2-first-3.record");
    let whole = head(&GOLDEN.first, &next);
    let compact = Before::new(&GOLDEN.first, |_| true).compact(&whole, &GOLDEN.next).unwrap();
    let mut snapshot = whole.clone();
    snapshot.keep_others = false;
    for bundle in &mut snapshot.listed {
        let (root, files, bytes) = (bundle.leaf.root, bundle.leaf.files, bundle.leaf.bytes);
        let before = vec![Waypoint { root, files, bytes, length: 7 }];
        bundle.edit = Some(EditHead { base: EditBase::Empty, length: 9, before });
    }
    for (name, head) in [("whole", &whole), ("snapshot", &snapshot)] {
        seeds.message("update", name, &UpdateMessage::Whole(head.clone()));
        seeds.message(
            "update",
            &format!("{name}-resumed"),
            &UpdateMessage::Resumed(head.clone(), vec![Some(0), None]),
        );
        seeds.message("update-answer", name, &UpdateAnswer::Update(head.clone()));
    }
    seeds.message("update", "compact", &UpdateMessage::Compact(compact));
    seeds.message("update-answer", "nothing", &UpdateAnswer::Nothing);
    seeds.message("update-answer", "not-found", &UpdateAnswer::NotFound);
    let leaves = next.leaves.into_iter().map(|(_, leaf)| leaf).collect();
    let publication = Publication {
        channel: channel(),
        release: next.document,
        leaves,
        edits: vec![Some(9), None, Some(0)],
    };
    seeds.message("opening", "publish", &Opening::Publish(publication));
    seeds.message("publish-answer", "accepted", &PublishAnswer::Accepted(accepted));
    seeds.message("publish-answer", "conflict", &PublishAnswer::Conflict(accepted));
    seeds.message("publish-answer", "refused", &PublishAnswer::Refused("no such grant".into()));
    seeds.message("publish-answer", "not-origin", &PublishAnswer::NotOrigin);
}

fn messages(seeds: &mut Seeds) {
    let accepted = GOLDEN.first.release().accepted();
    updates(seeds, accepted);
    http(seeds, accepted);
    let names: Vec<_> = GOLDEN.first.leaves().values().map(|leaf| leaf.name.clone()).collect();
    let standing = Standing { release: Some(accepted), whole: names.clone() };
    let nowhere = Standing { release: None, whole: Vec::new() };
    let interest = Interest::Named(names);
    let mut begun = Begun::default();
    begun.extend(b"the first bytes of an edit");
    let subscribe = Subscribe {
        channel: channel(),
        subscription: 3,
        interest: interest.clone(),
        standing: standing.clone(),
        trust: 1,
        head: (1, 3),
        serves: Some(Address::new("fra-1.example.net:7400").unwrap()),
        begun: Beginnings::of([&begun]),
    };
    seeds.message("opening", "subscribe", &Opening::Subscribe(subscribe));
    let all = UpdateRequest { channel: channel(), interest: Interest::All, standing: nowhere };
    let some = UpdateRequest { channel: channel(), interest, standing };
    seeds.message("opening", "pull-all", &Opening::Update(all));
    seeds.message("opening", "pull", &Opening::Update(some));
    seeds.message("opening", "status", &Opening::Status);
    seeds.message("opening", "hosts", &Opening::Hosts(hosts_query()));
    let bundle = BundleName::new("base").unwrap();
    let request = ObjectsRequest {
        channel: channel(),
        release: 2,
        bundle,
        objects: GOLDEN.objects.keys().take(5).copied().collect(),
    };
    seeds.message("objects-request", "five", &request);
    seeds.message("objects-request", "none", &ObjectsRequest { objects: Vec::new(), ..request.clone() });
    seeds.message("opening", "objects", &Opening::Objects(request));
    seeds.message("objects-answer", "three", &ObjectsAnswer(vec![Some(1), None, Some(1 << 20)]));
    seeds.message("objects-answer", "none", &ObjectsAnswer(Vec::new()));
    topology(seeds, accepted);
    status_messages(seeds);
    seeds.message("floors", "none", &Floors::default());
    seeds.message(
        "floors",
        "some",
        &Floors { trust_version: 1, head_epoch: 1, head_sequence: 70_000, release: Some(accepted) },
    );
}

/// Of parents: how they stand, and who else there is.
fn topology(seeds: &mut Seeds, accepted: Accepted) {
    let name = |text: &str| MemberName::new(text).unwrap();
    let place = |labels: &str| Place::of(&labels.parse().unwrap());
    let relay = |text: &str, labels: &str, address: &str| Alternate {
        name: name(text),
        place: place(labels),
        address: Address::new(address).unwrap(),
    };
    let relays = [
        relay("fra-2", "datacenter=fra&region=eu", "relay-1:7400"),
        relay("eu-1", "region=eu", "[::1]:7400"),
        Alternate { place: Place::default(), ..relay("origin", "region=eu", "origin:1") },
    ];
    let child = Child { name: name("web-1"), place: place("datacenter=fra&region=eu"), is_relay: false };
    let alternates = Alternates::ranked(&child, &relays);
    let route = Route::origin(name("origin")).below(name("eu-1"));
    let condition = Condition { latest: Some(accepted), route, behind: false };
    let nothing = Condition { latest: None, route: Route::default(), behind: true };
    let kept = KeptParents { parent: alternates.iter().next().cloned(), alternates: alternates.clone() };
    seeds.message("kept-parents", "some", &kept);
    seeds.message("kept-parents", "none", &KeptParents { parent: None, alternates: Alternates::default() });
    seeds.message("news", "condition", &News::Condition(condition.clone()));
    seeds.message("news", "alternates", &News::Alternates(alternates.clone()));
    let none = Welcome { condition: nothing, time: 0, alternates: Alternates::default(), trust: 1 };
    seeds.message("welcome", "some", &Welcome { condition, time: 1_800_000_000, alternates, trust: 2 });
    seeds.message("welcome", "none", &none);
    seeds.message("opening", "condition", &Opening::Condition(channel()));
}

fn hosts_query() -> HostsQuery {
    let selector = Selector::parse("web-* !web-9 region=eu state!=active release!=2").unwrap();
    HostsQuery { channel: channel(), selector, limit: 40, after: ("web-1".into(), "eu".into()), wait: 9000 }
}

/// Of what relays and hosts say of themselves.
fn status_messages(seeds: &mut Seeds) {
    let condition = status::Condition {
        release: 2,
        state: HostState::Failed,
        since: 1_800_000_000,
        reason: "the disk is full".into(),
        files: 300,
        healed: 0,
        received: 70_000,
        refused: 0,
    };
    let own = condition.clone();
    let counts: Vec<Count> =
        HostState::ALL.into_iter().map(|state| Count { release: 2, state, hosts: 1000 }).collect();
    let serving = Serving { lag: 0, sent: 1 << 20, children: 2, counts: counts.clone() };
    let relays = vec![RelayRow {
        name: "ams".into(),
        parent: "eu".into(),
        place: "datacenter=ams&region=eu".into(),
        condition: condition.clone(),
        serving: serving.clone(),
    }];
    let worst = vec![HostRow {
        name: "web-1".into(),
        relays: vec!["eu".into(), "ams".into()],
        labels: "region=eu&role=web".into(),
        expires: 1_800_600_000,
        condition: condition.clone(),
    }];
    let moves = vec![Move { host: "web-2".into(), from: "us".into() }];
    seeds.message("question", "hosts", &Question::Hosts(hosts_query()));
    seeds.message("question", "moved", &Question::Moved(channel(), moves.clone()));
    let answer = HostsAnswer { hosts: worst.clone(), more: true, unanswered: vec!["us".into()] };
    seeds.message("hosts-answer", "one", &answer);
    seeds.message("hosts-answer", "none", &HostsAnswer::default());
    let status = ChannelStatus {
        channel: channel(),
        relays: relays.clone(),
        rest: counts.clone(),
        worst: worst.clone(),
    };
    seeds.message("status-answer", "one", &StatusAnswer(vec![status]));
    seeds.message("status-answer", "none", &StatusAnswer(Vec::new()));
    let below = Some(Below { serving, relays, rest: counts, worst, moves });
    let before = "us".to_owned();
    seeds.message(
        "report",
        "host",
        &Report { sequence: 1, own: own.clone(), before: before.clone(), below: None },
    );
    seeds.message("report", "relay", &Report { sequence: 2, own, before, below });
    let kept = |relay| Remembered {
        channel: channel(),
        relay,
        name: "web-1".into(),
        labels: "role=web".into(),
        expires: 1_800_600_000,
        seen: 1_800_000_001,
        condition: condition.clone(),
    };
    seeds.message("children", "two", &vec![kept(false), kept(true)]);
    seeds.message("children", "none", &Vec::<Remembered>::new());
}

/// Of trust, heads and joining.
fn trust_messages(seeds: &mut Seeds) {
    let document: bytes::Bytes = vector("trust-2.cose").into();
    seeds.message("opening", "trust", &Opening::Trust(1));
    seeds.message("opening", "apply-trust", &Opening::ApplyTrust(document.clone()));
    seeds.message("trust-answer", "one", &TrustAnswer(vec![document.clone()]));
    seeds.message("trust-answer", "none", &TrustAnswer(Vec::new()));
    seeds.message("news", "trust", &News::Trust(2));
    seeds.message("news", "head", &News::Head(vector("head.cose").into()));
    seeds.message("news", "denials", &News::Denials(document.clone()));
    let authority = bytes::Bytes::from_static(b"a certificate");
    seeds.message(
        "public-documents",
        "one",
        &PublicDocuments { trust: vec![document], authority: authority.clone() },
    );
    let none = PublicDocuments { trust: Vec::new(), authority: authority.clone() };
    seeds.message("public-documents", "none", &none);
    seeds.message("join-answer", "issued", &JoinAnswer::Issued(vec![authority.clone(), authority]));
    seeds.message("join-answer", "refused", &JoinAnswer::Refused);
    let denied = |name: &str| Denied { role: Role::Agent, name: MemberName::new(name).unwrap() };
    let denials =
        Denials { sequence: 3, issued: 1_800_000_000, denied: vec![denied("web-1"), denied("web-2")] };
    seeds.add("denials", "payload", denials.encode());
    let unsigned = cose::assemble(
        DocumentKind::Denials,
        PublicKey::id(&GOLDEN.trust.trust().heads.keys[0]),
        &denials.encode(),
        &[1; 64],
    );
    seeds.add("denials", "not signed", unsigned);
    for (name, text) in
        [("two", "region=eu&role=web"), ("order", "role=web&region=eu"), ("host", "host=web-1")]
    {
        seeds.add("member", name, text);
    }
    let string = JoinString {
        platform: GOLDEN.trust.trust().platform,
        fingerprint: GOLDEN.fingerprint,
        addresses: vec!["origin.example:7400".into(), "[::1]:7400".into()],
        secret: TokenSecret::from_bytes([7; 16]),
        role: Role::Agent,
        name: Some(MemberName::new("web-1").unwrap()),
        labels: "region=eu&role=web".parse().unwrap(),
        expires: 1_800_000_000,
        uses: 1,
    };
    seeds.add("join-string", "whole", string.to_text());
    seeds.add("join-string", "cut off", &string.to_text()[..90]);
    let own = SigningKey::from_bytes(&[9; 32]);
    let key = PublicKey::from_bytes(&own.verifying_key().to_bytes()).unwrap();
    let request = Request {
        role: Role::Agent,
        name: MemberName::new("web-1").unwrap(),
        key: key.clone(),
        issued: 1_800_000_000,
        recipient: String::new(),
    };
    let (kind, payload) = (DocumentKind::Join, request.encode());
    let message = cose::to_be_signed(kind, GOLDEN.trust.trust().platform, key.id(), &payload);
    let signature = own.sign(&message).to_bytes();
    seeds.add("join-request", "payload", payload.clone());
    seeds.add("join-request", "renewal", cose::assemble(kind, key.id(), &payload, &signature));
}

fn text(seeds: &mut Seeds) {
    for (name, bytes) in [
        ("rfc-8", &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..]),
        ("rfc-4", &[0x9d, 0x7f, 0x3e, 0x7d]),
        ("rfc-2", &[0x7b, 0xbd]),
        ("rfc-1", &[0x25]),
        ("longer", &[0x40, 0x25]),
    ] {
        seeds.add("frame-length", name, bytes);
    }
    for (name, bytes) in [
        ("plain", "etc/nginx/nginx.conf"),
        ("unicode", "ünïcode/日本.txt"),
        ("link", "etc/stop\0../bin/stop"),
        ("link-down", "a/b/c\0.././/d"),
        ("escapes", "etc/stop\0../../bin"),
        ("dots", "a/./b/../c"),
        ("control", "a\r\nb"),
    ] {
        seeds.add("path", name, bytes);
    }
    for (name, bytes) in [
        ("bundle", "role/web"),
        ("peer", "rootcast://766563746f7220706c6174666f726d2e/relay/eu-1"),
        ("capitals", "rootcast://766563746F7220706C6174666F726D2E/agent/web-1"),
        ("layer", "region/{region}"),
        ("layers", "{region}/{role}/x"),
        ("braces", "a/{b"),
    ] {
        seeds.add("names", name, bytes);
    }
    let sample = fs::read(directory().join("../sample/rootcast.toml")).unwrap();
    seeds.add("settings", "sample", sample);
    for (name, bytes) in [
        ("limits", "channel = \"main\"\n[limits]\nfiles = 10\nbytes = 1_000\nfile_size = 4194304\n"),
        ("layers", "layers = [\"base\", \"region/{region}\", '{role}/x', \"host/{host}\"]\n"),
        ("unknown", "chanel = \"main\"\n"),
        ("twice", "channel = \"a\"\nchannel = \"b\"\n"),
        ("alike", "layers = [\"a/{b}\", \"a/{c}\"]"),
        ("range", "[limits]\nfiles = 0\n"),
        ("type", "limits = 3\nlayers = \"\"\"\nbase\"\"\"\n"),
        ("empty", ""),
    ] {
        seeds.add("settings", name, bytes);
    }
}

#[test]
fn seeds_are_those_of_the_golden_vectors() {
    let mut seeds = Seeds::default();
    documents(&mut seeds);
    drafts(&mut seeds);
    secrets(&mut seeds);
    objects(&mut seeds);
    activation::services(&mut seeds);
    activation::journals(&mut seeds);
    messages(&mut seeds);
    trust_messages(&mut seeds);
    text(&mut seeds);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    if std::env::var_os("ROOTCAST_BLESS").is_some() {
        for (name, bytes) in &seeds.0 {
            let path = corpus.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    let next = "next: ROOTCAST_BLESS=1 cargo test -p rootcast-fuzz --test seeds";
    for (name, bytes) in &seeds.0 {
        let committed = fs::read(corpus.join(name)).unwrap_or_else(|error| panic!("{name}: {error}; {next}"));
        assert!(committed == *bytes, "{name} is not what the vectors give; {next}");
    }
    let mut committed = BTreeSet::new();
    for target in fs::read_dir(&corpus).unwrap().map(Result::unwrap) {
        for entry in fs::read_dir(target.path()).unwrap().map(Result::unwrap) {
            let name = format!("{}/{}", target.file_name().display(), entry.file_name().display());
            committed.extend(name.contains("/seed-").then_some(name));
        }
    }
    let idle: Vec<_> = committed.iter().filter(|name| !seeds.0.contains_key(*name)).collect();
    assert!(idle.is_empty(), "no longer made, delete them: {idle:?}");
}
