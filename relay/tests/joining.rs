//! Joining, with the real origin and relays: tokens, impostors, relays on the way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks and sockets are what is tested

mod house;
#[path = "../../replica/tests/support/mod.rs"]
mod support;

use bytes::Bytes;
use house::*;
use rootcast::join::{JoinAnswer, JoinString};
use rootcast::limits::{MAX_FRAME, MAX_JOINS};
use rootcast::member::{Labels, Role};
use rootcast::protocol::Opening;
use rootcast_relay::membership::Invitation;
use rootcast_replica::joining::{JoinFailure, ask, ask_platform};
use rootcast_replica::{Member, joining};
use rootcast_transport::{Arrival, CloseReason, Code, Endpoint, Identity, Joiner, OwnKey};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::task::JoinSet;

/// Asks as one who is no member, over the network.
async fn ask_at(house: &House, at: &Running, request: Bytes) -> JoinAnswer {
    let connection = Joiner::new().unwrap();
    let connection =
        connection.connect(&at.address.to_string(), house.authority.certificate()).await.unwrap();
    soon(ask(&connection, request)).await.unwrap()
}

#[tokio::test]
async fn j_25_a_machine_joins_through_a_relay_and_is_served() {
    let house = House::new();
    let origin = house.origin().await;
    // The relay has joined as well.
    let invitation = Invitation { role: Role::Relay, ..house.invitation(&origin) };
    let relay = join_as(&house.invite(invitation), "eu-1").await.unwrap();
    relay.write(&house.path("eu-1")).unwrap();
    let relay = house.run("eu-1", &[&origin]).await;

    let string = house.invite(house.invitation(&relay));
    let string = JoinString::parse(&string.to_text()).unwrap();
    let joined = join_as(&string, "web-1").await.unwrap();
    let home = house.path("home");
    joining::refuse_member(&home).unwrap();
    joined.write(&home).unwrap();
    assert!(matches!(joining::refuse_member(&home), Err(JoinFailure::AlreadyThere { .. })));
    assert!(matches!(joined.write(&home), Err(JoinFailure::AlreadyThere { .. })));

    let member = Member::load_stateless(&home).unwrap();
    assert_eq!(member.identity.name().to_string(), "agent web-1");
    assert_eq!(*member.identity.name().labels(), Labels::from_pairs(["region=eu"]).unwrap());
    let left = member.identity.expires().duration_since(SystemTime::now()).unwrap();
    assert!(left > 6 * DAY && left <= 7 * DAY, "{left:?}");
    let endpoint = Endpoint::dial_only(&member.identity).unwrap();
    for address in [origin.address, relay.address] {
        let connection = endpoint.connect(&address.to_string()).await.unwrap();
        let (mut sender, mut receiver) = connection.open_bi().await.unwrap();
        sender.send_message(&Opening::Status).await.unwrap();
        sender.finish().unwrap();
        assert!(soon(receiver.receive_frame(MAX_FRAME)).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn threat_24_a_token_used_twice_joins_one_machine() {
    let house = House::new();
    let origin = house.origin().await;
    let string = house.invite(house.invitation(&origin));
    assert!(join_as(&string, "web-1").await.is_ok());
    for again in ["web-1", "web-2"] {
        assert!(matches!(join_as(&string, again).await, Err(JoinFailure::Refused)), "{again}");
    }
    let members: Vec<_> = house.records().members().unwrap();
    assert_eq!(members.iter().filter(|member| member.role == Role::Agent).count(), 1);
}

#[tokio::test]
async fn threat_24_of_many_that_race_as_many_join_as_the_token_has_uses() {
    let house = House::new();
    let origin = house.origin().await;
    for uses in [1, 3] {
        let string = house.invite(Invitation { uses, ..house.invitation(&origin) });
        let mut racers = JoinSet::new();
        for number in 0..12 {
            let string = string.clone();
            racers.spawn(async move { join_as(&string, &format!("web-{uses}-{number}")).await.is_ok() });
        }
        let won = racers.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(won as u64, uses);
    }
}

#[tokio::test]
async fn threat_24_what_the_token_does_not_allow_is_refused_alike() {
    let house = House::new();
    let origin = house.origin().await;
    let own = OwnKey::generate().unwrap();
    let plain = house.invite(house.invitation(&origin));
    let named = house.invite(Invitation { name: Some(name("web-9")), ..house.invitation(&origin) });
    let old = house.invited(house.invitation(&origin), SystemTime::now() - 2 * HOUR);
    let stranger = OwnKey::generate().unwrap();
    house.member(Role::Agent, "taken");
    house.records().deny(&denied("out")).unwrap();
    for (why, request) in [
        ("expired", request(&old, Role::Agent, "web-1", &own)),
        ("another role", request(&plain, Role::Relay, "web-1", &own)),
        ("another name", request(&named, Role::Agent, "web-1", &own)),
        ("no such token", signed(Role::Agent, "web-1", &own, &[&stranger, &own])),
        ("no token", signed(Role::Agent, "web-1", &own, &[&own])),
        ("a name that is taken", request(&plain, Role::Agent, "taken", &own)),
        ("a denied name", request(&plain, Role::Agent, "out", &own)),
        ("no request", Bytes::from_static(b"hello")),
    ] {
        assert_eq!(ask_at(&house, &origin, request).await, JoinAnswer::Refused, "{why}");
    }
    // None of these has used the token up.
    assert!(is_issued(&ask_at(&house, &origin, request(&plain, Role::Agent, "web-1", &own)).await));
}

fn denied(text: &str) -> rootcast::denials::Denied {
    rootcast::denials::Denied { role: Role::Agent, name: name(text) }
}

#[tokio::test]
async fn threat_24_a_use_is_durable_before_the_certificate_and_its_answer_can_be_asked_for_again() {
    let house = House::new();
    let origin = house.origin().await;
    let string = house.invite(house.invitation(&origin));
    drop(origin);
    let (own, other) = (OwnKey::generate().unwrap(), OwnKey::generate().unwrap());
    let asked = request(&string, Role::Agent, "web-1", &own);
    assert!(is_issued(&house.membership().answer(&asked, SystemTime::now())));
    // As after a crash between the two files: the use is there, the member is not.
    std::fs::remove_file(house.path("origin/state/membership/members/agent/web-1")).unwrap();
    let membership = house.membership();
    let thief = request(&string, Role::Agent, "web-1", &other);
    assert_eq!(membership.answer(&thief, SystemTime::now()), JoinAnswer::Refused);
    let first = membership.answer(&asked, SystemTime::now());
    assert!(is_issued(&first));
    // And however often: one certificate, for one key.
    assert_eq!(membership.answer(&asked, SystemTime::now()), first);
    // What a crash left half written is no token and no member.
    std::fs::write(house.path("origin/state/membership/tokens/~x.1.2"), b"half").unwrap();
    std::fs::write(house.path("origin/state/membership/members/agent/~web-1.1.2"), b"half").unwrap();
    assert_eq!(house.records().members().unwrap().len(), 2);
    house.invite(Invitation {
        addresses: string.addresses.clone(),
        name: Some(name("web-1")),
        fingerprint: house.fingerprint(),
        role: Role::Agent,
        labels: Labels::default(),
        valid: HOUR,
        uses: 1,
    });
}

#[tokio::test]
async fn j_7_a_token_that_names_a_member_takes_its_name_over() {
    let house = House::new();
    let origin = house.origin().await;
    let first = house.invite(house.invitation(&origin));
    let old = join_as(&first, "web-1").await.unwrap();
    let naming = Invitation { name: Some(name("web-1")), ..house.invitation(&origin) };
    let reinstalled = join_as(&house.invite(naming), "web-1").await.unwrap();
    assert_ne!(old.identity.public_key(), reinstalled.identity.public_key());
    // The machine that had it can renew no longer.
    let renewal =
        signed(Role::Agent, "web-1", &old.identity.own_key().unwrap(), &[&old.identity.own_key().unwrap()]);
    assert_eq!(ask_at(&house, &origin, renewal).await, JoinAnswer::Refused);
}

#[tokio::test]
async fn j_11_an_impostor_is_not_asked() {
    let (house, other) = (House::new(), House::new());
    let impostor = other.origin().await;
    house.member(Role::Relay, "origin");
    // Another platform's origin at the address that the join string names.
    let string = house.invite(house.invitation(&impostor));
    let refused = join_as(&string, "web-1").await;
    assert!(matches!(refused, Err(JoinFailure::Imposter { .. })));
    // One that shows the right trust document, which is public, and its own authority.
    let liar = Endpoint::listen(&other.member(Role::Relay, "liar"), (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = liar.local_addr().unwrap().to_string();
    let trust = std::fs::read(house.path("origin").join("trust.cose")).unwrap();
    let authority = Bytes::copy_from_slice(other.authority.certificate().der());
    let lying = tokio::spawn(async move {
        let Arrival::Joiner(joiner) = liar.accept().await.unwrap().arrive().await.unwrap() else { panic!() };
        let (mut sender, mut receiver) = joiner.accept_bi().await.unwrap();
        let asked: Option<Opening> = receiver.receive_message(MAX_FRAME).await.unwrap();
        assert_eq!(asked, Some(Opening::Platform));
        let documents = rootcast::join::PublicDocuments { trust: vec![trust.into()], authority };
        sender.send_message(&documents).await.unwrap();
        sender.finish().unwrap();
        // Nothing more comes: no request was sent.
        assert!(joiner.accept_bi().await.is_err());
    });
    let string = JoinString { addresses: vec![address], ..string };
    assert!(matches!(join_as(&string, "web-1").await, Err(JoinFailure::Authority { .. })));
    soon(lying).await.unwrap();
}

/// A relay of the platform that is hostile: it hands each request over, and the answer that it is given.
fn hostile(house: &House, name: &str) -> (Endpoint, String) {
    let identity = house.member(Role::Relay, name);
    let endpoint = Endpoint::listen(&identity, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = endpoint.local_addr().unwrap().to_string();
    (endpoint, address)
}

/// Serves one joiner up to its request; what it asked, and where the answer goes.
async fn intercept(house: &House, endpoint: &Endpoint) -> (Bytes, rootcast_transport::Sender, Vec<Arrival>) {
    let trust = std::fs::read(house.path("origin").join("trust.cose")).unwrap();
    let authority = Bytes::copy_from_slice(house.authority.certificate().der());
    let mut kept = Vec::new();
    loop {
        let arrival = soon(endpoint.accept()).await.unwrap().arrive().await.unwrap();
        let Arrival::Joiner(joiner) = &arrival else { panic!("{arrival:?}") };
        let (mut sender, mut receiver) = soon(joiner.accept_bi()).await.unwrap();
        match receiver.receive_message::<Opening>(MAX_FRAME).await.unwrap() {
            Some(Opening::Join(request)) => {
                kept.push(arrival);
                return (request, sender, kept);
            }
            _ => {
                let trust = vec![trust.clone().into()];
                let documents = rootcast::join::PublicDocuments { trust, authority: authority.clone() };
                sender.send_message(&documents).await.unwrap();
                sender.finish().unwrap();
            }
        }
        kept.push(arrival);
    }
}

#[tokio::test]
async fn threat_24_a_relay_that_tampers_or_replays_gains_nothing() {
    let house = House::new();
    let origin = house.origin().await;
    let (endpoint, address) = hostile(&house, "evil");
    let string = JoinString { addresses: vec![address], ..house.invite(house.invitation(&origin)) };
    let joiner = tokio::spawn(async move { join_as(&string, "web-1").await });
    let (request, mut answer, _kept) = intercept(&house, &endpoint).await;
    // Any altered byte, and any half of it, is refused and uses nothing up.
    let at_once = house.membership();
    for at in (0..request.len()).step_by(7) {
        let mut changed = request.to_vec();
        changed[at] ^= 1;
        assert_eq!(at_once.answer(&changed, SystemTime::now()), JoinAnswer::Refused, "byte {at}");
    }
    let half = request.slice(request.len() / 2..);
    assert_eq!(at_once.answer(&half, SystemTime::now()), JoinAnswer::Refused);
    // Sent twice, it gives one certificate, for a key that the relay does not have.
    let first = ask_at(&house, &origin, request.clone()).await;
    let JoinAnswer::Issued(chain) = &first else { panic!("{first:?}") };
    assert_eq!(ask_at(&house, &origin, request.clone()).await, first);
    let (thief, path) = (OwnKey::generate().unwrap(), Path::new("stolen"));
    assert!(Identity::of_chain(chain, &thief, house.authority.certificate().clone(), path).is_err());
    // Another member's certificate in its place is noticed.
    let other = house.member(Role::Agent, "web-2");
    answer.send_message(&JoinAnswer::Issued(other.chain_der())).await.unwrap();
    answer.finish().unwrap();
    assert!(soon(joiner).await.unwrap().is_err());
}

#[tokio::test]
async fn j_10_joiners_are_answered_nothing_else_and_are_few() {
    let house = House::new();
    let origin = house.origin().await;
    let (joiner, address) = (Joiner::new().unwrap(), origin.address.to_string());
    let certificate = house.authority.certificate();
    let connection = joiner.connect(&address, certificate).await.unwrap();
    let (mut sender, _receiver) = connection.open_bi().await.unwrap();
    sender.send_message(&Opening::Status).await.unwrap();
    let reason = soon(connection.closed()).await;
    assert!(matches!(reason, CloseReason::ByPeer { code: Code::FAULT, .. }), "{reason:?}");
    let mut open = Vec::new();
    for _ in 0..MAX_JOINS {
        let met = joiner.meet(&address).await.unwrap();
        // Served, so it counts.
        ask_platform(&met).await.unwrap();
        open.push(met);
    }
    let reason = soon(joiner.meet(&address).await.unwrap().closed()).await;
    assert!(matches!(reason, CloseReason::ByPeer { code: Code::BUSY, .. }), "{reason:?}");
    // Members are served meanwhile, and may renew.
    let member = house.member(Role::Agent, "web-1");
    let connection = Endpoint::dial_only(&member).unwrap().connect(&address).await.unwrap();
    let own = member.own_key().unwrap();
    let answer = soon(ask(&connection, signed(Role::Agent, "web-1", &own, &[&own]))).await.unwrap();
    assert!(is_issued(&answer));
}

#[tokio::test]
async fn j_13_without_an_origin_a_relay_says_that_it_cannot_ask() {
    let house = House::new();
    let origin = house.origin().await;
    house.member(Role::Relay, "eu-1");
    let relay = house.run("eu-1", &[&origin]).await;
    let string = house.invite(house.invitation(&relay));
    drop(origin);
    let outcome = tokio::time::timeout(Duration::from_secs(60), async { join_as(&string, "web-1").await });
    let outcome = outcome.await.unwrap();
    assert!(matches!(outcome, Err(JoinFailure::Unavailable { .. })));
}
