//! A child that takes nothing costs its siblings nothing, and is let go with a reason.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks and sockets are what is tested

mod house;
#[path = "../../replica/tests/support/network.rs"]
mod network;
#[path = "../../replica/tests/support/mod.rs"]
mod support;

use house::*;
use network::Following;
use rootcast::limits::{MAX_FRAME, STREAM_WAIT, STREAM_WINDOW};
use rootcast::member::Role;
use rootcast::protocol::{Interest, Opening, Publication, PublishAnswer, Subscribe, Welcome};
use rootcast::resumption::Beginnings;
use rootcast_replica::{Rule, Update};
use rootcast_transport::{CloseReason, Code, Connection, Endpoint};
use std::time::Instant;
use support::*;

async fn publish(connection: &Connection, publisher: &Publisher, files: Edits<'_>) {
    let (publication, edits): (Publication, _) = publisher.draft(files).publication();
    let (mut sender, mut receiver) = connection.open_bi().await.unwrap();
    sender.send_message(&Opening::Publish(publication.clone())).await.unwrap();
    for edit in edits.clone() {
        sender.send_bytes(edit).await.unwrap();
    }
    sender.finish().unwrap();
    let answer: PublishAnswer = soon(receiver.receive_message(MAX_FRAME)).await.unwrap().unwrap();
    assert!(matches!(answer, PublishAnswer::Accepted(_)));
    let update = Update::of_publication(publication, edits);
    publisher.replica.receive(&update, &Interest::All, Rule::Origin).unwrap();
}

#[tokio::test]
async fn w_12_a_child_that_takes_nothing_is_let_go_with_a_reason_and_its_siblings_get_every_release() {
    let house = House::new();
    let origin = house.origin().await;
    let dial = async |role, name: &str| {
        let endpoint = Endpoint::dial_only(&house.member(role, name)).unwrap();
        let connection = soon(endpoint.connect(&origin.address.to_string())).await.unwrap();
        (endpoint, connection)
    };
    let (_publishing, publishing) = dial(Role::Publisher, "ci").await;
    let (_stuck, stuck) = dial(Role::Relay, "stuck").await;
    let publisher = Publisher::new();
    // What does not pack, and more of it than a stream may hold unread.
    let mut random = Numbers::new(6);
    let large: Vec<u8> = (0..STREAM_WINDOW * 2).map(|_| random.next() as u8).collect();
    publish(&publishing, &publisher, &[("base", "large", Some(&large))]).await;
    let (mut sender, mut receiver) = stuck.open_bi().await.unwrap();
    let (channel, interest) = (channel(), Interest::All);
    let subscribe = Subscribe {
        channel,
        subscription: 1,
        interest,
        standing: nowhere(),
        trust: 1,
        head: (0, 0),
        serves: None,
        begun: Beginnings::default(),
    };
    sender.send_message(&Opening::Subscribe(subscribe)).await.unwrap();
    soon(receiver.receive_message::<Welcome>(MAX_FRAME)).await.unwrap().expect("a welcome");
    let mut update = soon(stuck.accept_uni()).await.unwrap();
    let begun = Instant::now();
    // It takes some bytes, and then none.
    let _ = soon(update.receive_exact(64, MAX_FRAME)).await.unwrap();

    let siblings: Vec<Following> = (0..2)
        .map(|n| {
            let endpoint = Endpoint::dial_only(&house.member(Role::Agent, &format!("web-{n}"))).unwrap();
            Following::start(&endpoint, host_replica(), &[origin.address], Interest::All)
        })
        .collect();
    for number in 1..=20 {
        for sibling in &siblings {
            let reached = |number| {
                move |replica: &rootcast_replica::Replica| {
                    replica.held().is_some_and(|held| held.accepted().number == number)
                }
            };
            sibling.until("the release", reached(number)).await;
        }
        if number < 20 {
            publish(&publishing, &publisher, &[("base", "a", Some(&random.text(500)))]).await;
        }
    }
    assert!(begun.elapsed() < STREAM_WAIT && !stuck.is_closed(), "all that while the stuck one was there");
    let reason = tokio::time::timeout(STREAM_WAIT * 2, stuck.closed()).await.expect("it is let go");
    let CloseReason::ByPeer { code: Code::FAULT, reason } = reason else { panic!("{reason:?}") };
    assert!(reason.contains("stuck") || !reason.is_empty(), "{reason}");
    println!("let go after {:?}: {reason}", begun.elapsed());
}
