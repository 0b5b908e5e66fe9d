//! Trust in a running tree: rotation, heads, denial below the origin, and who may read what.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks and sockets are what is tested

mod house;
#[path = "../../replica/tests/support/network.rs"]
mod network;
#[path = "../../replica/tests/support/mod.rs"]
mod support;

use bytes::Bytes;
use house::*;
use network::Following;
use rootcast::denials::Denied;
use rootcast::head::Freshness;
use rootcast::id::ObjectId;
use rootcast::limits::MAX_FRAME;
use rootcast::member::Role;
use rootcast::protocol::{
    HostState, HostStatus, Interest, ObjectsAnswer, ObjectsRequest, Opening, Publication, PublishAnswer,
    Report, TrustApplied,
};
use rootcast::trust::Trust;
use rootcast_replica::{FollowEvent, Replica, Rule, Trusted, Update};
use rootcast_transport::{CloseReason, Code, Connection, Endpoint, Identity};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use support::*;

async fn dial(identity: &Identity, at: &Running) -> (Endpoint, Connection) {
    let endpoint = Endpoint::dial_only(identity).unwrap();
    let connection = soon(endpoint.connect(&at.address.to_string())).await.unwrap();
    (endpoint, connection)
}

/// One question with what follows it, one answer.
async fn ask<A: DeserializeOwned + Serialize>(
    connection: &Connection,
    opening: &Opening,
    bodies: Vec<Bytes>,
) -> A {
    let (mut sender, mut receiver) = connection.open_bi().await.unwrap();
    sender.send_message(opening).await.unwrap();
    for body in bodies {
        sender.send_bytes(body).await.unwrap();
    }
    sender.finish().unwrap();
    soon(receiver.receive_message(MAX_FRAME)).await.unwrap().expect("an answer")
}

async fn offer(connection: &Connection, (publication, edits): (Publication, Vec<Bytes>)) -> PublishAnswer {
    ask(connection, &Opening::Publish(publication), edits).await
}

async fn apply(connection: &Connection, trust: &Trust, signers: &[u8]) -> TrustApplied {
    ask(connection, &Opening::ApplyTrust(sign_trust(trust, signers).into()), Vec::new()).await
}

/// A publisher that is connected to the origin.
struct Publishing {
    publisher: Publisher,
    connection: Connection,
    _endpoint: Endpoint,
}

impl Publishing {
    async fn at(house: &House, origin: &Running) -> Self {
        let (_endpoint, connection) = dial(&house.member(Role::Publisher, "ci"), origin).await;
        Self { publisher: Publisher::new(), connection, _endpoint }
    }

    /// Publishes under the key of a seed, and keeps it in the publisher's own replica.
    async fn publish(&self, draft: &Draft, seed: u8) {
        let (publication, edits) = draft.signed_by(seed);
        let answer = offer(&self.connection, (publication.clone(), edits.clone())).await;
        let update = Update::of_publication(publication, edits);
        self.publisher.replica.receive(&update, &Interest::All, Rule::Origin).unwrap();
        assert_eq!(answer, PublishAnswer::Accepted(self.publisher.replica.held().unwrap().accepted()));
    }

    async fn apply(&self, trust: &Trust, signers: &[u8]) -> TrustApplied {
        apply(&self.connection, trust, signers).await
    }

    /// Takes a version of trust itself, as a publisher does when it connects.
    fn takes(&self, trust: &Trust) {
        self.publisher.replica.trust().offer(&sign_trust(trust, &[1])).unwrap();
    }
}

/// Waits until the other end has put this connection out.
async fn is_put_out(connection: &Connection) {
    let reason = soon(connection.closed()).await;
    assert!(matches!(reason, CloseReason::ByPeer { code: Code::REFUSED, .. }), "{reason:?}");
}

async fn version(trusted: &Arc<Trusted>, version: u64) {
    let mut watch = trusted.watch();
    let reached = watch.wait_for(|chain| chain.newest().trust().version == version);
    soon(reached).await.unwrap();
}

fn has(replica: &Replica, number: u64) -> bool {
    replica.held().is_some_and(|held| held.accepted().number == number)
}

/// An origin, and a relay below it.
async fn tree(house: &House) -> (Running, Running) {
    let origin = house.origin().await;
    house.member(Role::Relay, "eu");
    let relay = house.run("eu", &[&origin]).await;
    (origin, relay)
}

/// A host that follows a relay.
fn host_below(house: &House, name: &str, relay: &Running) -> Following {
    let endpoint = Endpoint::dial_only(&house.member(Role::Agent, name)).unwrap();
    Following::start(&endpoint, host_replica(), &[relay.address], Interest::All)
}

/// Version 2 of a house: key 4 publishes instead of key 2, in another epoch if wanted.
fn second(house: &House, epoch: u64) -> Trust {
    let mut trust = house.trust.trust().clone();
    trust.version = 2;
    trust.grants[0].publishers = seeds(&[4]);
    trust.grants[0].epoch = epoch;
    trust
}

#[tokio::test]
async fn tuf_key_compromise_a_rotation_reaches_every_member_and_shuts_the_old_key_out() {
    let house = House::new();
    let (origin, relay) = tree(&house).await;
    let publishing = Publishing::at(&house, &origin).await;
    let publisher = &publishing.publisher;
    let host = host_below(&house, "web-1", &relay);
    let first = publisher.draft(&[("base", "a", Some(b"one\n"))]);
    publishing.publish(&first, 2).await;
    host.until("release 1", |host| has(host, 1)).await;

    // Neither a version that skips, nor one that the root key did not sign, nor a plain relay's word.
    let skips = Trust { version: 3, ..second(&house, 1) };
    assert!(matches!(publishing.apply(&skips, &[1]).await, TrustApplied::Refused(_)));
    assert!(matches!(publishing.apply(&second(&house, 1), &[2]).await, TrustApplied::Refused(_)));
    let (_at_relay, at_relay) = dial(&house.member(Role::Publisher, "ci-2"), &relay).await;
    assert_eq!(apply(&at_relay, &second(&house, 1), &[1]).await, TrustApplied::NotOrigin);
    assert_eq!(publishing.apply(&second(&house, 1), &[1]).await, TrustApplied::InForce(2));
    assert_eq!(publishing.apply(&second(&house, 1), &[1]).await, TrustApplied::InForce(2), "again");
    version(host.replica.trust(), 2).await;

    // The old key signs nothing any more; what it signed before still runs.
    let next = publisher.draft(&[("base", "a", Some(b"two\n"))]);
    assert!(matches!(offer(&publishing.connection, next.publication()).await, PublishAnswer::Refused(_)));
    assert!(has(&host.replica, 1) && host.replica.granted().is_none());
    publishing.takes(&second(&house, 1));
    publishing.publish(&next, 4).await;
    host.until("release 2", |host| has(host, 2)).await;

    // Who comes later takes version 1 by its fingerprint, then version 2, then the release.
    let late = host_below(&house, "web-2", &relay);
    late.until("release 2", |late| has(late, 2)).await;
    assert_eq!(late.replica.trust().version(), 2);
    // And the relay knows it after a restart, from its own disk.
    drop(relay);
    let kept = Trusted::open(&house.path("eu"), &house.path("eu").join("state")).unwrap();
    assert_eq!(kept.version(), 2);
}

#[tokio::test]
async fn tuf_fast_forward_a_host_that_was_driven_up_comes_back_by_a_new_epoch() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    let publisher = &publishing.publisher;
    let first = publisher.draft(&[("base", "a", Some(b"one\n"))]);
    publishing.publish(&first, 2).await;
    // A thief of key 2 hands the host a release far ahead, by a relay in between.
    let thief = Publisher::new();
    let mut far = thief.draft(&[("base", "a", Some(b"evil\n"))]);
    far.release.number = rootcast::limits::MAX_NUMBER;
    far.release.previous = Some(rootcast::id::ReleaseHash::from_bytes([1; 32]));
    let driven = host_replica();
    driven.receive(&far.update(), &Interest::All, Rule::Follow).unwrap();
    let (host, _connection) = dial(&house.member(Role::Agent, "web-1"), &origin).await;
    let host = Following::start(&host, driven, &[origin.address], Interest::All);

    let trust = second(&house, 2);
    assert_eq!(publishing.apply(&trust, &[1]).await, TrustApplied::InForce(2));
    publishing.takes(&trust);
    let mut next = publisher.draft(&[("base", "a", Some(b"two\n"))]);
    next.release.epoch = 2;
    publishing.publish(&next, 4).await;
    host.until("release 2 of epoch 2", |host| has(host, 2)).await;
    assert_eq!(host.replica.floors().release.unwrap().rank(), (2, 2));
    // The thief's release is an old epoch's now.
    assert!(host.replica.receive(&far.update(), &Interest::All, Rule::Follow).is_err());
}

#[tokio::test]
async fn d_33_heads_come_down_the_tree_and_make_members_fresh() {
    let house = House::new();
    let (origin, relay) = tree(&house).await;
    let publishing = Publishing::at(&house, &origin).await;
    let publisher = &publishing.publisher;
    let host = host_below(&house, "web-1", &relay);
    assert_eq!(host.replica.freshness(), Freshness::Stale, "no head yet");
    let first = publisher.draft(&[("base", "a", Some(b"one\n"))]);
    publishing.publish(&first, 2).await;
    let mut head = host.replica.watch_head();
    soon(head.wait_for(Option::is_some)).await.unwrap();
    let head = host.replica.head().unwrap();
    assert_eq!(head.head().release, publisher.replica.held().unwrap().accepted());
    assert!(matches!(host.replica.freshness(), Freshness::Fresh { until } if until == head.head().expires));
    assert_eq!(host.replica.floors().head(), head.head().rank());
    // A release soon after brings no head: it would say nothing that matters.
    let next = publisher.draft(&[("base", "a", Some(b"two\n"))]);
    publishing.publish(&next, 2).await;
    host.until("release 2", |host| has(host, 2)).await;
    assert_eq!(host.replica.head().unwrap().head().sequence, head.head().sequence);
}

#[tokio::test]
async fn threat_22_denial_at_the_origin_closes_connections_at_a_relay_below() {
    let house = House::new();
    let (origin, relay) = tree(&house).await;
    let (denied, kept) = (house.member(Role::Agent, "web-1"), house.member(Role::Agent, "web-2"));
    let ((out, lost), (_kept, kept)) = (dial(&denied, &relay).await, dial(&kept, &relay).await);
    house.records().deny(&Denied { role: Role::Agent, name: name("web-1") }).unwrap();
    is_put_out(&lost).await;
    let again = soon(out.connect(&relay.address.to_string())).await.unwrap();
    is_put_out(&again).await;
    let Report(_) = ask(&kept, &Opening::Status, Vec::new()).await;
    // Also after a restart of the relay, before its parent has told it anything.
    relay.end().await;
    origin.end().await;
    let relay = house.run("eu", &[&Running::nowhere()]).await;
    let again = soon(out.connect(&relay.address.to_string())).await.unwrap();
    let reason = soon(again.closed()).await;
    assert!(matches!(reason, CloseReason::ByPeer { code: Code::REFUSED, .. }), "{reason:?}");
}

/// The objects of a bundle in a publisher's replica.
fn objects_of(publisher: &Publisher, name: &str) -> Vec<ObjectId> {
    let root = publisher.replica.held().unwrap().bundles.root(&bundle(name)).unwrap();
    let store = publisher.replica.store().clone();
    let source: &dyn rootcast::object::ObjectSource = &*store;
    let mut all = Vec::new();
    let tree = rootcast::tree::Tree::open(source, root).unwrap();
    let walked = tree.objects::<rootcast::tree::TreeError>(&mut |id| {
        all.push(id);
        Ok(true)
    });
    walked.unwrap();
    all
}

#[tokio::test]
async fn threat_21_a_host_reads_its_own_bundles_and_absent_and_forbidden_look_the_same() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    let publisher = &publishing.publisher;
    let files: Edits<'_> =
        &[("base", "a", Some(b"one\n")), ("role/web", "w", Some(b"web\n")), ("role/db", "d", Some(b"db\n"))];
    let first = publisher.draft(files);
    publishing.publish(&first, 2).await;
    let (web, asking) = dial(&house.labelled(Role::Agent, "web-1", &["role=web"]), &origin).await;
    let host = Following::start(&web, host_replica(), &[origin.address], Interest::All);
    host.until("release 1", |host| has(host, 1)).await;
    let names = |replica: &Replica| {
        let held = replica.held().unwrap();
        held.bundles.leaves().values().map(|leaf| leaf.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&host.replica), ["base", "plan", "role/web"]);
    // One that names what it may not have gets the rest, as if there were no such thing.
    let (greedy, _connection) = dial(&house.labelled(Role::Agent, "web-2", &["role=web"]), &origin).await;
    let interest = named(&["base", "plan", "role/db", "role/none", "role/web"]);
    let greedy = Following::start(&greedy, host_replica(), &[origin.address], interest);
    greedy.until("release 1", |host| has(host, 1)).await;
    assert_eq!(names(&greedy.replica), ["base", "plan", "role/web"]);

    let db = objects_of(publisher, "role/db");
    let sizes = async |bundle_name: &str, objects: &[ObjectId]| -> Vec<Option<u64>> {
        let request = ObjectsRequest {
            channel: channel(),
            release: 1,
            bundle: bundle(bundle_name),
            objects: objects.to_vec(),
        };
        let ObjectsAnswer(sizes) = ask(&asking, &Opening::Objects(request), Vec::new()).await;
        sizes
    };
    let nothing = vec![None; db.len()];
    assert_eq!(sizes("role/db", &db).await, nothing, "forbidden");
    assert_eq!(sizes("role/none", &db).await, nothing, "absent");
    assert_eq!(sizes("role/web", &db).await, nothing, "never by bare hash");
    let web = objects_of(publisher, "role/web");
    assert!(sizes("role/web", &web).await.iter().all(Option::is_some));
    // It is counted, and a host sees no other host.
    let (_observing, observing) = dial(&house.member(Role::Publisher, "desk"), &origin).await;
    let row = |name: &str| HostStatus {
        name: name.into(),
        role: "agent".into(),
        parent: String::new(),
        channel: channel(),
        release: 1,
        state: HostState::Active,
        files: 2,
        healed: 0,
        received: 0,
        refused: 0,
    };
    host.report.send_replace(vec![row("web-1")]);
    greedy.report.send_replace(vec![row("web-2")]);
    let both = async {
        loop {
            let Report(rows) = ask(&observing, &Opening::Status, Vec::new()).await;
            if ["web-1", "web-2"].iter().all(|name| rows.iter().any(|row| row.name == *name)) {
                return rows;
            }
        }
    };
    let rows = soon(both).await;
    assert!(rows.iter().any(|row| row.name == "origin" && row.refused > 0), "{rows:?}");
    let Report(rows) = ask(&asking, &Opening::Status, Vec::new()).await;
    let names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["origin", "web-1"]);
}

#[tokio::test]
async fn f_34_a_host_whose_layers_grow_gets_the_new_bundle_with_the_release_it_appears_in() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    let publisher = &publishing.publisher;
    // Without a plan at first: what the next release's says is not known before it is held.
    let first = publisher.draft(&[("base", "a", Some(b"one\n"))]);
    publishing.publish(&first, 2).await;
    let (web, _connection) = dial(&house.labelled(Role::Agent, "web-1", &["role=web"]), &origin).await;
    let interest = named(&["base", "plan", "role/web"]);
    let mut host = Following::start(&web, host_replica(), &[origin.address], interest);
    host.until("release 1", |host| has(host, 1)).await;
    let next = publisher.draft(&[("role/web", "w", Some(b"web\n"))]);
    publishing.publish(&next, 2).await;
    host.until("release 2 with role/web", |host| {
        has(host, 2) && host.held().unwrap().bundles.leaf(&bundle("role/web")).is_some()
    })
    .await;
    // In one step: a host that held the release without its new bundles would think that they are kept from it.
    let mut held = 0;
    while let Ok(event) = host.events.try_recv() {
        held += u64::from(matches!(event, FollowEvent::Held { number: 2, .. }));
    }
    assert!(held <= 1, "{held} steps to release 2");
}
