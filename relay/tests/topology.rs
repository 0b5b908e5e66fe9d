//! Failover, return and cut off subtrees, with real relays (specs/topology.md).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks and sockets are what is tested

mod house;
#[path = "../../replica/tests/support/network.rs"]
mod network;
#[path = "../../replica/tests/support/mod.rs"]
mod support;

use house::*;
use network::Following;
use rootcast::denials::Denied;
use rootcast::limits::MAX_FRAME;
use rootcast::member::Role;
use rootcast::protocol::{Interest, Opening, PublishAnswer};
use rootcast::topology::{Address, Alternate, Condition, Patience, Place, rank};
use rootcast_replica::joining::JoinFailure;
use rootcast_replica::{FollowEvent, Replica, Rule, Update, child_of};
use rootcast_transport::{Connection, Endpoint};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use support::*;

const FRA: &str = "datacenter=fra&region=eu";

/// As daemons have it, for who has no time.
const QUICK: Patience = Patience {
    retry: Duration::from_millis(20),
    probe: Duration::from_millis(100),
    stable: Duration::from_millis(300),
    cut_off: Duration::from_millis(50),
    spread: Duration::from_millis(50),
};

/// A publisher that is connected to the origin.
struct Publishing {
    publisher: Publisher,
    connection: Connection,
    _endpoint: Endpoint,
}

impl Publishing {
    async fn at(house: &House, origin: &Running) -> Self {
        let endpoint = Endpoint::dial_only(&house.member(Role::Publisher, "ci")).unwrap();
        let connection = soon(endpoint.connect(&origin.address.to_string())).await.unwrap();
        Self { publisher: Publisher::new(), connection, _endpoint: endpoint }
    }

    async fn publish(&self, content: &str) {
        let draft = self.publisher.draft(&[("base", "a", Some(content.as_bytes()))]);
        let (publication, edits) = draft.signed_by(2);
        let (mut sender, mut receiver) = self.connection.open_bi().await.unwrap();
        sender.send_message(&Opening::Publish(publication.clone())).await.unwrap();
        for edit in edits.clone() {
            sender.send_bytes(edit).await.unwrap();
        }
        sender.finish().unwrap();
        let answer: Option<PublishAnswer> = soon(receiver.receive_message(MAX_FRAME)).await.unwrap();
        assert!(matches!(answer, Some(PublishAnswer::Accepted(_))), "{answer:?}");
        let update = Update::of_publication(publication, edits);
        self.publisher.replica.receive(&update, &Interest::All, Rule::Origin).unwrap();
    }
}

fn has(replica: &Replica, number: u64) -> bool {
    replica.held().is_some_and(|held| held.accepted().number == number)
}

/// A host in `fra`.
fn host(house: &House, name: &str, relays: &[SocketAddr]) -> Following {
    let identity = house.placed(Role::Agent, name, FRA);
    let endpoint = Endpoint::dial_only(&identity).unwrap();
    Following::start_as(&endpoint, child_of(identity.name()), QUICK, replica(), relays, Interest::All)
}

/// The name of a host in `fra` whose home is the first of two relays there.
fn at_home_with(first: &str, second: &str) -> String {
    let place = Place::of(&FRA.parse().unwrap());
    let relay = |text: &str| Alternate {
        name: name(text),
        place: place.clone(),
        address: Address::new("nowhere:1").unwrap(),
    };
    let child =
        |text: &str| rootcast::topology::Child { name: name(text), place: place.clone(), is_relay: false };
    let is_home =
        |text: &String| rank(&child(text), &relay(first), None) < rank(&child(text), &relay(second), None);
    (0..).map(|number| format!("web-{number}")).find(is_home).unwrap()
}

/// Waits until the child has connected to a relay; gives whom else it met before.
async fn meets(host: &mut Following, relay: &str) -> Vec<String> {
    let mut met = Vec::new();
    loop {
        if let FollowEvent::Connected { parent, .. } = soon(host.events.recv()).await.unwrap() {
            if parent == format!("relay {relay}") {
                return met;
            }
            met.push(parent);
        }
    }
}

/// Waits until a child knows a relay as one to go to.
async fn knows(host: &Following, relay: &Running) {
    let address = relay.address.to_string();
    let mut ways = host.ways.subscribe();
    let known = ways.wait_for(|ways| ways.iter().any(|way| way.as_str() == address));
    soon(known).await.unwrap();
}

/// What a relay says of itself.
async fn condition(endpoint: &Endpoint, relay: &Running) -> Condition {
    let connection = soon(endpoint.connect(&relay.address.to_string())).await.unwrap();
    let (mut sender, mut receiver) = connection.open_bi().await.unwrap();
    sender.send_message(&Opening::Condition(channel())).await.unwrap();
    sender.finish().unwrap();
    soon(receiver.receive_message(MAX_FRAME)).await.unwrap().expect("an answer")
}

async fn until(endpoint: &Endpoint, relay: &Running, mut wanted: impl FnMut(&Condition) -> bool) {
    soon(async { while !wanted(&condition(endpoint, relay).await) {} }).await;
}

fn way(condition: &Condition) -> Vec<&str> {
    condition.route.names().iter().map(|name| name.as_str()).collect()
}

/// An origin, and two relays of one datacenter below it.
struct Datacenter {
    house: House,
    origin: Running,
    publishing: Publishing,
    observer: Endpoint,
    home: Running,
    sibling: Running,
}

impl Datacenter {
    async fn new() -> Self {
        let house = House::new();
        let origin = house.origin().await;
        let publishing = Publishing::at(&house, &origin).await;
        house.placed(Role::Relay, "fra-1", FRA);
        house.placed(Role::Relay, "fra-2", FRA);
        let home = house.run("fra-1", &[&origin]).await;
        let sibling = house.run("fra-2", &[&origin]).await;
        // Until a relay has found the origin it is cut off, and hosts go on to others.
        let observer = Endpoint::dial_only(&house.member(Role::Publisher, "observer")).unwrap();
        until(&observer, &home, |home| way(home) == ["origin", "fra-1"]).await;
        until(&observer, &sibling, |sibling| way(sibling) == ["origin", "fra-2"]).await;
        Self { house, origin, publishing, observer, home, sibling }
    }
}

#[tokio::test]
async fn tp_31_when_the_home_relay_dies_its_sibling_brings_the_next_release_and_hosts_go_home_again() {
    let Datacenter { house, origin, publishing, home, sibling, observer: _ } = Datacenter::new().await;
    // It is told of the home alone, and learns of the sibling.
    let mut host = host(&house, &at_home_with("fra-1", "fra-2"), &[home.address]);
    publishing.publish("one").await;
    assert!(meets(&mut host, "fra-1").await.is_empty());
    host.until("release 1", |host| has(host, 1)).await;
    knows(&host, &sibling).await;
    let address = home.address;
    home.end().await;
    meets(&mut host, "fra-2").await;
    publishing.publish("two").await;
    host.until("release 2", |host| has(host, 2)).await;
    let home = house.run_at("fra-1", address, &[origin.address]).await;
    assert!(meets(&mut host, "fra-1").await.is_empty(), "from one straight to the other");
    publishing.publish("three").await;
    host.until("release 3", |host| has(host, 3)).await;
    sibling.end().await;
    publishing.publish("four").await;
    host.until("release 4", |host| has(host, 4)).await;
    while let Ok(event) = host.events.try_recv() {
        assert!(!matches!(event, FollowEvent::Connected { .. } | FollowEvent::Lost { .. }), "{event:?}");
    }
    drop(home);
}

#[tokio::test]
async fn tp_35_a_host_leaves_a_relay_that_is_cut_off_for_one_that_is_not() {
    let Datacenter { house, origin: _origin, publishing, observer, home, sibling } = Datacenter::new().await;
    let addresses = [home.address, sibling.address];
    let mut host = host(&house, &at_home_with("fra-1", "fra-2"), &addresses);
    assert!(meets(&mut host, "fra-1").await.is_empty());
    publishing.publish("one").await;
    host.until("release 1", |host| has(host, 1)).await;
    // It may connect nowhere any more; it lives, and its children are still welcome.
    house.records().deny(&Denied { role: Role::Relay, name: name("fra-1") }).unwrap();
    meets(&mut host, "fra-2").await;
    publishing.publish("two").await;
    host.until("release 2", |host| has(host, 2)).await;
    until(&observer, &home, |home| home.route.is_cut_off()).await;
    house.records().allow(&Denied { role: Role::Relay, name: name("fra-1") }).unwrap();
    until(&observer, &home, |home| way(home) == ["origin", "fra-1"]).await;
    assert!(meets(&mut host, "fra-1").await.is_empty());
}

#[tokio::test]
async fn tp_12_a_relay_whose_parent_dies_goes_up_and_knows_the_way_after_a_restart() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    house.placed(Role::Relay, "eu-1", "region=eu");
    house.placed(Role::Relay, "fra-1", FRA);
    let region = house.run("eu-1", &[&origin]).await;
    let relay = house.run("fra-1", &[&region]).await;
    let observer = Endpoint::dial_only(&house.member(Role::Publisher, "observer")).unwrap();
    until(&observer, &relay, |relay| way(relay) == ["origin", "eu-1", "fra-1"]).await;
    let host = host(&house, "web-1", &[relay.address]);
    publishing.publish("one").await;
    host.until("release 1", |host| has(host, 1)).await;
    // By then it has been told of the origin, and has noted it.
    let kept = house.path("fra-1/state/channels/main/alternates");
    let noted = || std::fs::read(&kept).is_ok_and(|kept| kept.windows(6).any(|text| text == b"origin"));
    soon(async {
        while !noted() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let gone = region.address;
    region.end().await;
    until(&observer, &relay, |relay| way(relay) == ["origin", "fra-1"]).await;
    publishing.publish("two").await;
    host.until("release 2", |host| has(host, 2)).await;
    // Its configuration names the dead one alone.
    let address = relay.address;
    relay.end().await;
    let keys = std::fs::read(house.path("fra-1/state/ticket.keys")).unwrap();
    let relay = house.run_at("fra-1", address, &[gone]).await;
    until(&observer, &relay, |relay| way(relay) == ["origin", "fra-1"]).await;
    publishing.publish("three").await;
    host.until("release 3", |host| has(host, 3)).await;
    // W-7: its children's sessions outlive it.
    let path = house.path("fra-1/state/ticket.keys");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read(path).unwrap(), keys);
}

#[tokio::test]
async fn tp_22_relays_that_lose_the_origin_do_not_follow_each_other_and_find_it_again() {
    let house = House::new();
    let origin = house.origin().await;
    let observer = Endpoint::dial_only(&house.member(Role::Publisher, "observer")).unwrap();
    house.member(Role::Relay, "r1");
    house.member(Role::Relay, "r2");
    let one = house.run("r1", &[&origin]).await;
    let two = house.run("r2", &[&origin, &one]).await;
    until(&observer, &two, |two| way(two) == ["origin", "r2"]).await;
    // Each knows the other as one to go to.
    let at = one.address;
    one.end().await;
    let one = house.run_at("r1", at, &[origin.address, two.address]).await;
    until(&observer, &one, |one| way(one) == ["origin", "r1"]).await;
    let home = origin.address;
    origin.end().await;
    for relay in [&one, &two] {
        until(&observer, relay, |relay| relay.route.is_cut_off()).await;
    }
    let origin = house.run_at("origin", home, &[]).await;
    for relay in [&one, &two] {
        until(&observer, relay, |relay| way(relay).first() == Some(&"origin")).await;
    }
    drop(origin);
}

#[tokio::test]
async fn s3_4_without_the_origin_hosts_run_restart_and_fill_from_a_relay_and_only_joining_waits() {
    let house = House::new();
    let origin = house.origin().await;
    let publishing = Publishing::at(&house, &origin).await;
    house.placed(Role::Relay, "fra-1", FRA);
    let relay = house.run("fra-1", &[&origin]).await;
    let first = host(&house, "web-1", &[relay.address]);
    publishing.publish("one").await;
    first.until("release 1", |host| has(host, 1)).await;
    let string = house.invite(house.invitation(&relay));
    let home = origin.address;
    origin.end().await;
    assert!(has(&first.replica, 1));
    // A host that is a member: from nothing, out of the relay's store.
    let second = host(&house, "web-2", &[relay.address]);
    second.until("release 1", |host| has(host, 1)).await;
    // The relay itself starts anew, and serves.
    let address = relay.address;
    relay.end().await;
    let relay = house.run_at("fra-1", address, &[home]).await;
    let third = host(&house, "web-3", &[relay.address]);
    third.until("release 1", |host| has(host, 1)).await;
    // Who is no member becomes one by the origin's key alone; the string stays good.
    let refused = join_as(&string, "web-4").await;
    assert!(matches!(refused, Err(JoinFailure::Unavailable { .. })));
    let origin = house.run_at("origin", home, &[]).await;
    assert!(join_as(&string, "web-4").await.is_ok());
    drop(origin);
}
