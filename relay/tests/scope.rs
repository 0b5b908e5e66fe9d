//! A relay holds what is subscribed to below it, and only that; real relays and hosts in this process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks and sockets are what is tested

mod house;
#[path = "../../replica/tests/support/network.rs"]
mod network;
#[path = "../../replica/tests/support/mod.rs"]
mod support;

use house::*;
use network::{Following, Habit, Parent};
use rootcast::limits::MAX_FRAME;
use rootcast::member::Role;
use rootcast::protocol::{Interest, ObjectsAnswer, ObjectsRequest, Opening, Publication, PublishAnswer};
use rootcast::status::StatusAnswer;
use rootcast::topology::Condition;
use rootcast_replica::{Replica, Rule, Update};
use rootcast_store::{DiskStore, Store};
use rootcast_transport::{Connection, Endpoint, Identity};
use serde::Serialize;
use serde::de::DeserializeOwned;
use support::*;

/// One question with what follows it, one answer.
async fn ask<A: DeserializeOwned + Serialize>(connection: &Connection, opening: &Opening) -> A {
    let (mut sender, mut receiver) = connection.open_bi().await.unwrap();
    sender.send_message(opening).await.unwrap();
    sender.finish().unwrap();
    soon(receiver.receive_message(MAX_FRAME)).await.unwrap().expect("an answer")
}

/// A member that asks questions.
struct Asking {
    connection: Connection,
    _endpoint: Endpoint,
}

impl Asking {
    async fn at(identity: &Identity, at: &Running) -> Self {
        let _endpoint = Endpoint::dial_only(identity).unwrap();
        let connection = soon(_endpoint.connect(&at.address.to_string())).await.unwrap();
        Self { connection, _endpoint }
    }

    /// Bytes of updates that this relay received since its start.
    async fn received(&self) -> u64 {
        let StatusAnswer(channels) = ask(&self.connection, &Opening::Status).await;
        channels[0].relays[0].condition.received
    }

    /// Whether this relay has the root of a bundle of a release.
    async fn has(&self, publisher: &Publisher, name: &str) -> bool {
        let held = publisher.replica.held().unwrap();
        let request = ObjectsRequest {
            channel: channel(),
            release: held.accepted().number,
            bundle: bundle(name),
            objects: vec![held.bundles.root(&bundle(name)).unwrap().into()],
        };
        let ObjectsAnswer(sizes) = ask(&self.connection, &Opening::Objects(request)).await;
        sizes[0].is_some()
    }

    /// Waits until it has, or has not; each question is a round trip.
    async fn until_has(&self, publisher: &Publisher, name: &str, wanted: bool) {
        soon(async { while self.has(publisher, name).await != wanted {} }).await;
    }
}

/// A publisher that is connected to the origin.
struct Publishing {
    publisher: Publisher,
    asking: Asking,
}

impl Publishing {
    async fn at(house: &House, origin: &Running) -> Self {
        let asking = Asking::at(&house.member(Role::Publisher, "ci"), origin).await;
        Self { publisher: Publisher::new(), asking }
    }

    async fn publish(&self, files: Edits<'_>) {
        let (publication, edits): (Publication, _) = self.publisher.draft(files).publication();
        let (mut sender, mut receiver) = self.asking.connection.open_bi().await.unwrap();
        sender.send_message(&Opening::Publish(publication.clone())).await.unwrap();
        for edit in edits.clone() {
            sender.send_bytes(edit).await.unwrap();
        }
        sender.finish().unwrap();
        let answer: PublishAnswer = soon(receiver.receive_message(MAX_FRAME)).await.unwrap().unwrap();
        let update = Update::of_publication(publication, edits);
        self.publisher.replica.receive(&update, &Interest::All, Rule::Origin).unwrap();
        assert_eq!(answer, PublishAnswer::Accepted(self.publisher.replica.held().unwrap().accepted()));
    }
}

/// A relay that has found its parent: until then it is cut off, and hosts that know of others go on to those.
async fn below(house: &House, observer: &Identity, name: &str, parent: &Running) -> Running {
    let relay = house.run(name, &[parent]).await;
    let asking = Asking::at(observer, &relay).await;
    let found = async {
        loop {
            let condition: Condition = ask(&asking.connection, &Opening::Condition(channel())).await;
            if !condition.route.is_cut_off() {
                break;
            }
        }
    };
    soon(found).await;
    relay
}

/// A host of a datacenter that follows a relay.
fn host(house: &House, name: &str, datacenter: &str, at: std::net::SocketAddr) -> Following {
    let label = format!("datacenter={datacenter}");
    let endpoint = Endpoint::dial_only(&house.labelled(Role::Agent, name, &[&label])).unwrap();
    let own = format!("datacenter/{datacenter}");
    Following::start(&endpoint, host_replica(), &[at], named(&["base", &own, "plan", "role/none"]))
}

fn has(replica: &Replica, number: u64) -> bool {
    replica.held().is_some_and(|held| held.accepted().number == number)
}

fn names(replica: &Replica) -> Vec<String> {
    roots(replica).into_iter().map(|(name, _)| name.to_string()).collect()
}

#[tokio::test]
async fn s1_2_a_change_for_one_datacenter_moves_no_content_to_another() {
    let house = House::new();
    let origin = house.origin().await;
    let observer = house.member(Role::Publisher, "observer");
    let publishing = Publishing::at(&house, &origin).await;
    let publisher = &publishing.publisher;
    let mut random = Numbers::new(8);
    let (one, two) = (random.text(30_000), random.text(30_000));
    let files: Edits<'_> = &[
        ("base", "a", Some(b"one\n")),
        ("datacenter/a", "a", Some(&one)),
        ("datacenter/b", "b", Some(&two)),
    ];
    publishing.publish(files).await;
    house.member(Role::Relay, "a");
    house.member(Role::Relay, "b");
    let (a, b) = (below(&house, &observer, "a", &origin).await, below(&house, &observer, "b", &origin).await);
    let looking = house.member(Role::Relay, "looking");
    let (at_a, at_b) = (Asking::at(&looking, &a).await, Asking::at(&looking, &b).await);
    let (in_a, in_b) = (host(&house, "web-a", "a", a.address), host(&house, "web-b", "b", b.address));
    in_a.until("release 1", |host| has(host, 1)).await;
    in_b.until("release 1", |host| has(host, 1)).await;
    assert_eq!(names(&in_a.replica), ["base", "datacenter/a", "plan"]);
    assert_eq!(names(&in_b.replica), ["base", "datacenter/b", "plan"]);
    // A host may be a moment ahead of its relay's disk.
    at_a.until_has(publisher, "datacenter/a", true).await;
    at_b.until_has(publisher, "datacenter/b", true).await;
    assert!(!at_a.has(publisher, "datacenter/b").await && !at_b.has(publisher, "datacenter/a").await);

    for number in 2..=4 {
        let before = (at_a.received().await, at_b.received().await);
        let change = random.text(20_000);
        publishing.publish(&[("datacenter/a", "a", Some(&change))]).await;
        in_a.until("the release", |host| has(host, number)).await;
        in_b.until("the release", |host| has(host, number)).await;
        let (to_a, to_b) = (at_a.received().await - before.0, at_b.received().await - before.1);
        assert!(to_a > 5_000, "{to_a} B of content");
        // Signature, commit, time and proof: that there is a release 2 whose part for b is the old one.
        assert!(to_b < 200, "{to_b} B for a release without content for b");
        println!("release {number}: {to_a} B to a, {to_b} B to b");
    }
    at_a.until_has(publisher, "datacenter/a", true).await;
    assert!(!at_b.has(publisher, "datacenter/a").await);
}

#[tokio::test]
async fn w_54_a_new_subscription_is_filled_at_the_current_release_and_let_go_when_nobody_wants_it() {
    let house = House::new();
    let origin = house.origin().await;
    let observer = house.member(Role::Publisher, "observer");
    let publishing = Publishing::at(&house, &origin).await;
    let publisher = &publishing.publisher;
    let text = Numbers::new(9).text(100_000);
    let files: Edits<'_> = &[
        ("base", "a", Some(b"one\n")),
        ("datacenter/a", "a", Some(&text)),
        ("datacenter/b", "b", Some(b"b\n")),
    ];
    publishing.publish(files).await;
    // Two levels of relays, of which neither has anything of a.
    for name in ["region", "b"] {
        house.member(Role::Relay, name);
    }
    let region = below(&house, &observer, "region", &origin).await;
    let relay = house.run_with("b", &[&region], |config| config.keep_seconds = 1).await;
    let looking = house.member(Role::Relay, "looking");
    let (at_region, at_relay) = (Asking::at(&looking, &region).await, Asking::at(&looking, &relay).await);
    let stays = host(&house, "web-b", "b", relay.address);
    stays.until("release 1", |host| has(host, 1)).await;
    assert!(
        !at_relay.has(publisher, "datacenter/a").await && !at_region.has(publisher, "datacenter/a").await
    );
    // One of another datacenter has lost its relay.
    let comes = host(&house, "web-a", "a", relay.address);
    comes.until("release 1", |host| has(host, 1)).await;
    assert_eq!(names(&comes.replica), ["base", "datacenter/a", "plan"]);
    assert_eq!(needed(&comes.replica).len(), 3 * 2, "each a node and a blob");
    assert!(at_relay.has(publisher, "datacenter/a").await && at_region.has(publisher, "datacenter/a").await);
    publishing.publish(&[("datacenter/a", "a", Some(b"less\n"))]).await;
    comes.until("release 2", |host| has(host, 2)).await;
    stays.until("release 2", |host| has(host, 2)).await;
    for at in [&at_relay, &at_region] {
        at.until_has(publisher, "datacenter/a", true).await;
    }
    // And goes home: nobody here wants that any more, once the time is over.
    comes.stop().await;
    at_relay.until_has(publisher, "datacenter/a", false).await;
    assert!(at_relay.has(publisher, "datacenter/b").await, "what is wanted stays");
    assert!(at_region.has(publisher, "datacenter/a").await, "this one keeps it for an hour");
    publishing.publish(&[("datacenter/a", "a", Some(b"more\n")), ("base", "a", Some(b"two\n"))]).await;
    stays.until("release 3", |host| has(host, 3)).await;
    let again = host(&house, "web-a2", "a", relay.address);
    again.until("release 3", |host| has(host, 3)).await;
    assert_eq!(names(&again.replica), ["base", "datacenter/a", "plan"]);
}

#[tokio::test]
async fn w_51_a_restart_sheds_and_fetches_nothing_and_s1_13_a_mirror_keeps_all() {
    let house = House::new();
    let origin = house.origin().await;
    let observer = house.member(Role::Publisher, "observer");
    let publishing = Publishing::at(&house, &origin).await;
    let publisher = &publishing.publisher;
    let files: Edits<'_> = &[
        ("base", "a", Some(b"one\n")),
        ("datacenter/a", "a", Some(b"a\n")),
        ("role/db", "d", Some(b"db\n")),
    ];
    publishing.publish(files).await;
    for name in ["a", "mirror"] {
        house.member(Role::Relay, name);
    }
    let mirror =
        house.run_with("mirror", &[&origin], |config| config.keep = vec!["*".parse().unwrap()]).await;
    let looking = house.member(Role::Relay, "looking");
    let at_mirror = Asking::at(&looking, &mirror).await;
    for name in ["base", "datacenter/a", "plan", "role/db"] {
        at_mirror.until_has(publisher, name, true).await;
    }
    // Below the mirror, and of one datacenter.
    let relay = below(&house, &observer, "a", &mirror).await;
    let child = host(&house, "web-a", "a", relay.address);
    child.until("release 1", |host| has(host, 1)).await;
    // The child may have it before it is on the relay's disk (invariant 6).
    Asking::at(&looking, &relay).await.until_has(publisher, "datacenter/a", true).await;
    child.stop().await;
    relay.end().await;
    let relay = below(&house, &observer, "a", &mirror).await;
    let at_relay = Asking::at(&looking, &relay).await;
    publishing.publish(&[("datacenter/a", "a", Some(b"b\n"))]).await;
    at_relay.until_has(publisher, "datacenter/a", true).await;
    assert!(!at_relay.has(publisher, "role/db").await);
    assert!(at_relay.received().await < 400, "the release, and no snapshot");
}

#[tokio::test]
async fn s1_5_a_child_whose_bundle_is_on_its_way_waits_whole_and_its_siblings_do_not_wait() {
    let house = House::new();
    house.member(Role::Relay, "origin");
    let publisher = Publisher::new();
    publisher.publish(&[("base", "a", Some(b"one\n")), ("datacenter/a", "a", Some(b"a\n"))]);
    // A parent that pushes, and answers no question.
    let parent = house.member(Role::Relay, "silent");
    let parent = Parent::start_as(&parent, publisher.replica.clone(), Habit::NoPulls);
    house.member(Role::Relay, "a");
    let relay = house.run_below("a", parent.address).await;
    let sibling = host(&house, "web-b", "b", relay.address);
    sibling.until("release 1", |host| has(host, 1)).await;
    let waits = host(&house, "web-a", "a", relay.address);
    parent.pulled().await;
    for number in 2..=5 {
        let text = format!("{number}\n");
        publisher
            .publish(&[("base", "a", Some(text.as_bytes())), ("datacenter/a", "a", Some(text.as_bytes()))]);
        sibling.until("the release", |host| has(host, number)).await;
    }
    assert!(waits.replica.held().is_none(), "nothing, rather than half of it");
}

#[tokio::test]
async fn s2_5_a_store_deleted_under_a_running_relay_is_put_back_and_one_deleted_before_a_start_is_refilled() {
    let house = House::new();
    let origin = house.origin().await;
    let observer = house.member(Role::Publisher, "observer");
    let publishing = Publishing::at(&house, &origin).await;
    let publisher = &publishing.publisher;
    let text = Numbers::new(3).text(200_000);
    publishing.publish(&[("base", "a", Some(&text)), ("datacenter/a", "a", Some(b"a\n"))]).await;
    house.member(Role::Relay, "a");
    let relay = below(&house, &observer, "a", &origin).await;
    let child = host(&house, "web-a", "a", relay.address);
    child.until("release 1", |host| has(host, 1)).await;
    let looking = house.member(Role::Relay, "looking");
    Asking::at(&looking, &relay).await.until_has(publisher, "datacenter/a", true).await;
    let store = house.path("a").join("state/channels/main");
    let on_disk = || {
        let store: std::sync::Arc<dyn Store> =
            std::sync::Arc::new(DiskStore::open_read_only(&store).unwrap());
        let replica = replica_over_trust(store, &house);
        needed(&replica);
        roots(&replica)
    };
    let all = roots(&publisher.replica);
    assert_eq!(on_disk(), all);

    // While it runs: with the next release at the latest.
    std::fs::remove_dir_all(&store).unwrap();
    let late = host(&house, "web-a2", "a", relay.address);
    late.until("release 1", |host| has(host, 1)).await;
    publishing.publish(&[("datacenter/a", "a", Some(b"b\n"))]).await;
    late.until("release 2", |host| has(host, 2)).await;
    let at_relay = Asking::at(&looking, &relay).await;
    at_relay.until_has(publisher, "datacenter/a", true).await;
    assert_eq!(on_disk(), roots(&publisher.replica));

    // Before a start: from its parent, as far as a child asks for it.
    relay.end().await;
    std::fs::remove_dir_all(&store).unwrap();
    let relay = below(&house, &observer, "a", &origin).await;
    let new = host(&house, "web-a3", "a", relay.address);
    new.until("release 2", |host| has(host, 2)).await;
    Asking::at(&looking, &relay).await.until_has(publisher, "datacenter/a", true).await;
    assert_eq!(on_disk(), roots(&publisher.replica));
}

/// The replica over a relay's store, judged by the house's trust.
fn replica_over_trust(store: std::sync::Arc<dyn Store>, house: &House) -> std::sync::Arc<Replica> {
    let trust = rootcast_replica::Trusted::open(&house.path("a"), &house.path("looking/state")).unwrap();
    std::sync::Arc::new(Replica::open(store, trust, channel(), true, None).unwrap())
}

/// What two relays get from the origin for five releases, with so many hosts below them.
async fn sent_to_relays(hosts: usize) -> u64 {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    let text = Numbers::new(3).text(20_000);
    publishing.publish(&[("base", "a", Some(&text)), ("datacenter/a", "a", Some(b"a\n"))]).await;
    let looking = house.member(Role::Relay, "looking");
    let (mut relays, mut asking) = (Vec::new(), Vec::new());
    for name in ["one", "two"] {
        house.member(Role::Relay, name);
        relays.push(house.run(name, &[&origin]).await);
        asking.push(Asking::at(&looking, &relays[relays.len() - 1]).await);
    }
    let all: Vec<Following> = (0..hosts)
        .map(|n| host(&house, &format!("web-{n}"), "a", relays[n % relays.len()].address))
        .collect();
    for number in 1..=5 {
        for host in &all {
            host.until("the release", |host| has(host, number)).await;
        }
        if number < 5 {
            publishing.publish(&[("datacenter/a", "a", Some(format!("{number}\n").as_bytes()))]).await;
        }
    }
    let mut received = 0;
    for relay in &asking {
        relay.until_has(&publishing.publisher, "datacenter/a", true).await;
        received += relay.received().await;
    }
    println!("{received} B of updates from the origin to two relays with {hosts} hosts");
    received
}

#[tokio::test]
async fn s0_1_what_the_origin_sends_does_not_depend_on_the_number_of_hosts() {
    let (few, many) = (sent_to_relays(4).await, sent_to_relays(60).await);
    assert!(few.abs_diff(many) < 500, "{few} and {many} B to the same two relays");
}

/// As above with 1,000: `cargo test -p rootcast-relay --test scope -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "takes long"]
async fn s0_1_what_the_origin_sends_is_the_same_for_10_and_for_1000_hosts() {
    let (few, many) = (sent_to_relays(10).await, sent_to_relays(1000).await);
    assert!(few.abs_diff(many) < 500, "{few} and {many} B to the same two relays");
}
