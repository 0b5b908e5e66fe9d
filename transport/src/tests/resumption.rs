//! Sessions that are resumed, and what must hold of them all the same (specs/wire.md, W-7).

use super::*;
use crate::{PeerFault, TicketKeys};
use rootcast::limits::TICKET_KEY_LIFE;
use rustls::server::ProducesTickets;
use std::sync::Arc;
use std::time::SystemTime;

/// A relay at an address, under ticket keys that it was given.
async fn relay_with(identity: &Identity, kept: &[u8], at: SocketAddr) -> (Endpoint, Arc<TicketKeys>) {
    // The socket of an endpoint that is gone lives for a moment longer.
    let relay = loop {
        match Endpoint::listen_with(identity, at, Caps::STANDARD) {
            Ok(relay) => break relay,
            Err(error) => assert!(at.port() != 0, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    let tickets = Arc::new(TicketKeys::open(identity, kept, SystemTime::now()).unwrap());
    relay.resume_with(identity, tickets.clone()).unwrap();
    (relay, tickets)
}

/// Calls, and sees to it that the tickets have arrived: they come before the stream.
async fn meet_and_part(child: &Endpoint, relay: &Endpoint) {
    let (up, down) = call(child, relay).await;
    let (up, down) = (up.unwrap(), down.unwrap());
    let mut sender = down.open_uni().await.unwrap();
    sender.send_bytes(b"x"[..].into()).await.unwrap();
    soon(up.accept_uni()).await.unwrap();
    assert_eq!(
        (up.peer().name(), down.peer().name()),
        ("r1", "web-1"),
        "both know each other, resumed or not"
    );
    up.close(crate::Code::DONE, "");
    soon(down.closed()).await;
}

#[tokio::test]
async fn w_7_a_restarted_relay_resumes_its_children_each_time() {
    let authority = TestAuthority::new();
    let identity = authority.identity(&Leaf::relay());
    let child = Endpoint::dial_only(&authority.identity(&Leaf::agent())).unwrap();
    let (relay, tickets) = relay_with(&identity, &[], loopback()).await;
    let address = relay.local_addr().unwrap();
    meet_and_part(&child, &relay).await;
    assert_eq!(relay.handshakes().resumed, 0);
    meet_and_part(&child, &relay).await;
    assert_eq!(relay.handshakes().resumed, 1);
    let kept = tickets.to_bytes();
    relay.close(crate::Code::LEAVING, "restart");
    soon(relay.wait_idle()).await;
    drop(relay);
    let (relay, _) = relay_with(&identity, &kept, address).await;
    for round in 1..=5 {
        meet_and_part(&child, &relay).await;
        assert_eq!(relay.handshakes().resumed, round);
    }
}

#[tokio::test]
async fn w_7_a_session_goes_to_the_relay_that_it_is_with() {
    let authority = TestAuthority::new();
    let child = Endpoint::dial_only(&authority.identity(&Leaf::agent())).unwrap();
    let one = relay_with(&authority.identity(&Leaf::relay()), &[], loopback()).await.0;
    let other = relay_with(&authority.identity(&Leaf::relay()), &[], loopback()).await.0;
    for _ in 0..3 {
        meet_and_part(&child, &one).await;
        meet_and_part(&child, &other).await;
    }
    assert_eq!((one.handshakes().resumed, other.handshakes().resumed), (2, 2));
}

#[tokio::test]
async fn threat_22_a_certificate_that_has_ended_is_refused_though_its_session_is_resumed() {
    let authority = TestAuthority::new();
    let identity = authority.identity(&Leaf::relay());
    let child = authority.identity(&Leaf { valid: (-300, 600), ..Leaf::agent() });
    let tls = crate::tuning::client_tls(&child).unwrap();
    let client = crate::tuning::resuming(&tls, Role::Agent).unwrap();
    let tickets = Arc::new(TicketKeys::open(&identity, &[], SystemTime::now()).unwrap());
    let server = crate::tuning::server_config(&identity, Some(tickets.clone())).unwrap();
    let relay = quinn::Endpoint::server(server, loopback()).unwrap();
    let caller = quinn::Endpoint::client(loopback()).unwrap();
    let address = relay.local_addr().unwrap();
    for (round, later, good) in [(0, 0, true), (1, 0, true), (2, 1200, false)] {
        let calling = caller.connect_with(client.clone(), address, RELAY_SERVER_NAME).unwrap();
        let accepting = async { relay.accept().await.unwrap().await.unwrap() };
        let (up, down) = soon(async { tokio::join!(calling, accepting) }).await;
        down.open_uni().await.unwrap().write_all(b"x").await.unwrap();
        let up = up.unwrap();
        soon(up.accept_uni()).await.unwrap();
        assert_eq!(tickets.resumed(), round, "this one is resumed");
        let now = SystemTime::now() + Duration::from_secs(later);
        let judged = Connection::establish(down, PLATFORM, None, now);
        let refused = judged.as_ref().err().and_then(TransportError::fault);
        assert_eq!(judged.is_ok(), good, "{refused:?}");
        assert!(
            good || matches!(refused, Some(PeerFault::Certificate { reason }) if reason.contains("expired"))
        );
        // Nor does a child follow a relay whose certificate has ended.
        let judged =
            Connection::establish(up, PLATFORM, Some(Role::Relay), now + Duration::from_secs(later * 3));
        assert_eq!(judged.is_ok(), good);
    }
}

#[tokio::test]
async fn w_7_a_renewed_certificate_begins_anew() {
    let authority = TestAuthority::new();
    let (relay, _) = relay_with(&authority.identity(&Leaf::relay()), &[], loopback()).await;
    let child = Endpoint::dial_only(&authority.identity(&Leaf::agent())).unwrap();
    meet_and_part(&child, &relay).await;
    child.adopt(&authority.identity(&Leaf::agent())).unwrap();
    meet_and_part(&child, &relay).await;
    assert_eq!(relay.handshakes().resumed, 0);
    meet_and_part(&child, &relay).await;
    assert_eq!(relay.handshakes().resumed, 1);
    relay.adopt(&authority.identity(&Leaf::relay())).unwrap();
    meet_and_part(&child, &relay).await;
    assert_eq!(relay.handshakes().resumed, 2, "the relay's keys outlive its certificate");
}

#[test]
fn w_7_a_key_is_given_out_for_a_time_and_taken_for_twice_as_long() {
    let authority = TestAuthority::new();
    let identity = authority.identity(&Leaf::relay());
    let begun = SystemTime::now();
    let tickets = TicketKeys::open(&identity, &[], begun).unwrap();
    let first = tickets.encrypt(b"session").unwrap();
    let taken = |ticket: &[u8]| tickets.decrypt(ticket).is_some_and(|plain| plain == b"session");
    assert!(taken(&first));
    assert!(!tickets.rotate(begun + TICKET_KEY_LIFE / 2).unwrap());
    assert!(tickets.rotate(begun + TICKET_KEY_LIFE).unwrap());
    let second = tickets.encrypt(b"session").unwrap();
    assert!(taken(&first) && taken(&second) && first[..16] != second[..16]);
    // The next process has both; another authority's has neither.
    let kept = tickets.to_bytes();
    let later = begun + TICKET_KEY_LIFE;
    let next = TicketKeys::open(&identity, &kept, later).unwrap();
    assert!(next.decrypt(&first).is_some() && next.decrypt(&second).is_some());
    let other = TestAuthority::new().identity(&Leaf::relay());
    assert!(TicketKeys::open(&other, &kept, later).unwrap().decrypt(&second).is_none());
    assert!(tickets.rotate(begun + TICKET_KEY_LIFE * 2).unwrap());
    assert!(!taken(&first) && taken(&second));
    // A clock that was set back makes no key good for longer.
    let back = TicketKeys::open(&identity, &tickets.to_bytes(), begun - TICKET_KEY_LIFE).unwrap();
    assert!(back.decrypt(&second).is_none());
}

#[test]
fn w_7_whatever_is_brought_as_a_ticket_or_kept_as_keys_is_taken_or_left() {
    let authority = TestAuthority::new();
    let identity = authority.identity(&Leaf::relay());
    let now = SystemTime::now();
    let tickets = TicketKeys::open(&identity, b"\x82garbage", now).unwrap();
    let ticket = tickets.encrypt(&[7; 900]).unwrap();
    for at in 0..ticket.len() {
        let mut other = ticket.clone();
        other[at] ^= 1;
        assert!(tickets.decrypt(&other).is_none() && tickets.decrypt(&ticket[..at]).is_none());
    }
    let long = [ticket.clone(), vec![0; rootcast::limits::MAX_TICKET]].concat();
    assert!(tickets.decrypt(&long).is_none() && tickets.decrypt(&ticket).is_some());
}
