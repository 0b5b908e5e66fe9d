//! Staying a member: renewal, the end of certificates, denial, with the real origin and relays.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks and sockets are what is tested

mod house;
#[path = "../../replica/tests/support/mod.rs"]
mod support;

use house::*;
use rootcast::denials::{Denied, VerifiedDenials};
use rootcast::join::JoinAnswer;
use rootcast::limits::{MAX_FRAME, RENEWAL_GRACE};
use rootcast::member::Role;
use rootcast::protocol::Opening;
use rootcast_replica::System;
use rootcast_replica::joining::JoinFailure;
use rootcast_replica::renewal::{ask_parents, due, is_past_half, renew};
use rootcast_transport::{CloseReason, Code, Connection, Endpoint, Identity, TransportError};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// One question, answered.
async fn is_served(connection: &Connection) -> Result<bool, TransportError> {
    let (mut sender, mut receiver) = connection.open_bi().await?;
    sender.send_message(&Opening::Status).await?;
    sender.finish()?;
    Ok(soon(receiver.receive_frame(MAX_FRAME)).await?.is_some())
}

fn is_refused(reason: &CloseReason, words: &str) {
    let CloseReason::ByPeer { code: Code::REFUSED, reason } = reason else { panic!("{reason:?}") };
    assert!(reason.contains(words), "{reason}");
}

async fn renewed(directory: &Path, at: &Running) -> Result<Identity, JoinFailure> {
    let endpoint = Endpoint::dial_only(&Identity::load(directory).unwrap()).unwrap();
    let parents = [at.address.to_string()];
    let ask = |own: Identity, request| {
        let (endpoint, parents) = (endpoint.clone(), parents.clone());
        async move { ask_parents(&endpoint, &parents, &own, SystemTime::now(), request).await }
    };
    soon(renew(directory, SystemTime::now(), ask)).await
}

/// A member of this name whose certificate began and ended as long ago as this.
fn aged(house: &House, text: &str, begun: Duration, valid: Duration) -> Identity {
    house.issue(Role::Agent, text, valid, SystemTime::now() - begun)
}

#[tokio::test]
async fn threat_22_a_member_that_is_denied_while_connected_is_closed_and_stays_out() {
    let house = House::new();
    let origin = house.origin().await;
    let (out, stays) = (house.member(Role::Agent, "web-1"), house.member(Role::Agent, "web-2"));
    let address = origin.address.to_string();
    let (out, stays) = (Endpoint::dial_only(&out).unwrap(), Endpoint::dial_only(&stays).unwrap());
    let (lost, kept) = (out.connect(&address).await.unwrap(), stays.connect(&address).await.unwrap());
    assert!(is_served(&lost).await.unwrap() && is_served(&kept).await.unwrap());
    let denied = Denied { role: Role::Agent, name: name("web-1") };
    assert!(house.records().deny(&denied).unwrap() && !house.records().deny(&denied).unwrap());
    is_refused(&soon(lost.closed()).await, "denied");
    is_refused(&soon(out.connect(&address).await.unwrap().closed()).await, "denied");
    assert!(renewed(&house.path("web-1"), &origin).await.is_err());
    assert!(is_served(&kept).await.unwrap(), "others stay");
    assert!(house.records().allow(&denied).unwrap() && !house.records().allow(&denied).unwrap());
    // The origin looks again within a second; each try is a handshake.
    let back = async {
        loop {
            let again = out.connect(&address).await.unwrap();
            if matches!(is_served(&again).await, Ok(true)) && !again.is_closed() {
                return;
            }
        }
    };
    soon(back).await;
}

#[tokio::test]
async fn threat_22_a_connection_ends_with_the_certificate_it_was_made_with() {
    let house = House::new();
    let origin = house.origin().await;
    let short = house.issue(Role::Agent, "web-1", Duration::from_secs(2), SystemTime::now());
    let endpoint = Endpoint::dial_only(&short).unwrap();
    let connection = endpoint.connect(&origin.address.to_string()).await.unwrap();
    assert!(is_served(&connection).await.unwrap());
    is_refused(&soon(connection.closed()).await, "certificate has ended");
    assert!(SystemTime::now() >= short.expires());
}

#[tokio::test]
async fn j_30_relays_and_the_origin_renew_by_themselves() {
    let house = House::new();
    let now = SystemTime::now();
    // Both are past the time at which they renew; the origin's has ended.
    house.issue(Role::Relay, "origin", 3 * DAY, now - 40 * DAY);
    let origin = house.run("origin", &[]).await;
    let own = Identity::load(&house.path("origin")).unwrap();
    assert!(own.expires() > now + 2 * DAY, "before it serves, whatever the grace");
    let old = house.issue(Role::Relay, "eu-1", 3 * DAY, now - 2 * DAY);
    let _relay = house.run("eu-1", &[&origin]).await;
    let watching = Endpoint::dial_only(&house.member(Role::Agent, "web-1")).unwrap();
    let connection = watching.connect(&origin.address.to_string()).await.unwrap();
    let renewed = async {
        loop {
            // A round trip between two looks.
            is_served(&connection).await.unwrap();
            let found = Identity::load(&house.path("eu-1")).unwrap();
            if found.expires() > old.expires() {
                return found;
            }
        }
    };
    let renewed = soon(renewed).await;
    assert_eq!((renewed.name(), renewed.public_key()), (old.name(), old.public_key()));
    assert!(renewed.expires() > now + 2 * DAY && !is_past_half(&renewed, now));
}

#[test]
fn j_30_a_renewal_is_due_after_half_of_its_life_and_a_little() {
    let house = House::new();
    let identity = aged(&house, "web-1", Duration::ZERO, 7 * DAY);
    let life = identity.expires().duration_since(identity.begins()).unwrap();
    for _ in 0..100 {
        let at = due(&System, &identity).duration_since(identity.begins()).unwrap();
        assert!(at >= life / 2 && at <= life / 2 + life / 10, "{at:?}");
    }
    let half = identity.begins() + life / 2;
    assert!(is_past_half(&identity, half) && !is_past_half(&identity, half - Duration::from_secs(1)));
}

#[tokio::test]
async fn j_31_an_ended_certificate_is_renewed_within_the_grace_and_by_its_own_key_only() {
    let house = House::new();
    let origin = house.origin().await;
    aged(&house, "ended", 8 * DAY, 7 * DAY);
    let fresh = renewed(&house.path("ended"), &origin).await.unwrap();
    assert!(fresh.expires() > SystemTime::now() + 6 * DAY);
    let connection = Endpoint::dial_only(&fresh).unwrap().connect(&origin.address.to_string()).await.unwrap();
    assert!(is_served(&connection).await.unwrap());

    aged(&house, "late", RENEWAL_GRACE + 9 * DAY, 7 * DAY);
    assert!(matches!(renewed(&house.path("late"), &origin).await, Err(JoinFailure::Refused)));

    let denied = Denied { role: Role::Agent, name: name("gone") };
    aged(&house, "gone", 8 * DAY, 7 * DAY);
    house.records().deny(&denied).unwrap();
    assert!(matches!(renewed(&house.path("gone"), &origin).await, Err(JoinFailure::Refused)));
    house.records().allow(&denied).unwrap();
    assert!(renewed(&house.path("gone"), &origin).await.is_ok());

    // A key that is not the member's gets nothing for its name.
    let stranger = rootcast_transport::OwnKey::generate().unwrap();
    let answer =
        house.membership().answer(&signed(Role::Agent, "ended", &stranger, &[&stranger]), SystemTime::now());
    assert_eq!(answer, JoinAnswer::Refused);
}

#[tokio::test]
async fn j_31_asking_again_soon_gives_the_same_certificate() {
    let house = House::new();
    let _origin = house.origin().await;
    let old = aged(&house, "web-1", 4 * DAY, 7 * DAY);
    let (own, membership) = (old.own_key().unwrap(), house.membership());
    let request = signed(Role::Agent, "web-1", &own, &[&own]);
    let first = membership.answer(&request, SystemTime::now());
    assert!(is_issued(&first) && first != JoinAnswer::Issued(old.chain_der()));
    assert_eq!(membership.answer(&request, SystemTime::now()), first);
}

#[tokio::test]
async fn j_44_denials_are_signed_rise_and_forget_who_has_no_certificate_left() {
    let house = House::new();
    house.member(Role::Relay, "origin");
    let (membership, records) = (house.membership(), house.records());
    let read = |document: &[u8], held| VerifiedDenials::verify(document, house.trust.trust(), held).unwrap();
    let (none, empty) = membership.denials(SystemTime::now()).unwrap();
    assert!(none.is_empty());
    let first = read(&empty, 0);
    let agent = |text: &str| Denied { role: Role::Agent, name: name(text) };
    house.member(Role::Agent, "web-1");
    aged(&house, "ended", 8 * DAY, 7 * DAY);
    for text in ["web-1", "ended", "unknown"] {
        records.deny(&agent(text)).unwrap();
    }
    let (denied, document) = membership.denials(SystemTime::now()).unwrap();
    assert_eq!(denied.len(), 3, "refused here all the same");
    let second = read(&document, first.denials().sequence);
    assert!(second.denials().sequence > first.denials().sequence);
    assert_eq!(second.denials().denied, [agent("unknown"), agent("web-1")]);
    // Nothing new: the same document, also after a restart; and the file is there before it is told.
    assert_eq!(house.membership().denials(SystemTime::now()).unwrap().1, document);
    // Its certificate ends.
    let (_, later) = membership.denials(SystemTime::now() + 2 * DAY).unwrap();
    let third = read(&later, second.denials().sequence + 1);
    assert_eq!(third.denials().denied, [agent("unknown")]);
}
