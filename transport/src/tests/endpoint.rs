//! Many callers, slow callers, and the end.

use super::*;
use crate::{CloseReason, Code, HandshakeCounts, PeerFault};
use std::net::UdpSocket;

struct House {
    authority: TestAuthority,
    relay: Endpoint,
    address: String,
}

impl House {
    fn with(caps: Caps) -> Self {
        let authority = TestAuthority::new();
        let identity = authority.identity(&Leaf::relay());
        let relay = Endpoint::listen_with(&identity, loopback(), caps).unwrap();
        let address = relay.local_addr().unwrap().to_string();
        Self { authority, relay, address }
    }
    fn child(&self) -> Endpoint {
        Endpoint::dial_only(&self.authority.identity(&Leaf::agent())).unwrap()
    }
    /// A caller whose handshake is begun and then left alone.
    async fn slow_caller(&self) -> (crate::Handshake, tokio::task::JoinHandle<()>) {
        let (child, address) = (self.child(), self.address.clone());
        let calling = tokio::spawn(async move {
            let _ = child.connect(&address).await;
        });
        (soon(self.relay.accept()).await.unwrap(), calling)
    }
}

#[tokio::test]
async fn threat_19_many_handshakes_bring_address_validation() {
    let house = House::with(Caps { pending: 8, retry_above: 2, waiting: 0, children: 100 });
    let first = house.slow_caller().await;
    let second = house.slow_caller().await;
    assert_eq!(house.relay.handshakes().retried, 0);
    // The third must prove its address, does, and passes the two that stand still.
    let (up, down) = call(&house.child(), &house.relay).await;
    assert_eq!(up.unwrap().peer().name(), "r1");
    assert_eq!(down.unwrap().peer().name(), "web-1");
    let counts = HandshakeCounts { admitted: 3, retried: 1, ..HandshakeCounts::default() };
    assert_eq!(house.relay.handshakes(), counts);
    drop((first, second));
}

#[tokio::test]
async fn threat_19_handshakes_have_a_cap_and_their_room_comes_back() {
    let house = House::with(Caps { pending: 1, retry_above: 1, waiting: 0, children: 100 });
    let (slow, _calling) = house.slow_caller().await;
    let child = house.child();
    let accepting = house.relay.accept();
    let refused = soon(async {
        tokio::select! {
            outcome = child.connect(&house.address) => outcome.unwrap_err(),
            _ = accepting => panic!("admitted over the cap"),
        }
    })
    .await;
    assert!(matches!(refused, TransportError::Closed { reason: CloseReason::TurnedAway, .. }), "{refused}");
    assert!(refused.is_answer(), "one that is busy is no reason for another way (HT-30)");
    assert_eq!(house.relay.handshakes().refused, 1);
    drop(slow);
    let (up, down) = call(&child, &house.relay).await;
    up.unwrap();
    down.unwrap();
}

#[tokio::test]
async fn w_8_who_has_proved_its_address_waits_for_room_and_is_served() {
    let house = House::with(Caps { pending: 1, retry_above: 1, waiting: 8, children: 100 });
    let (slow, _calling) = house.slow_caller().await;
    let children: Vec<Endpoint> = (0..3).map(|_| house.child()).collect();
    let calls = children.iter().map(|child| child.connect(&house.address));
    let calls: Vec<_> = calls.map(Box::pin).collect();
    let relay = house.relay.clone();
    let served = tokio::spawn(async move {
        let mut served = Vec::new();
        while served.len() < 3 {
            served.push(relay.accept().await.unwrap().finish().await.unwrap());
        }
        served
    });
    let mut calls = calls.into_iter();
    let mut first = calls.next().unwrap();
    // Nobody is served while the one place is taken, and nobody is turned away.
    tokio::select! {
        _ = &mut first => panic!("served over the cap"),
        () = async { while house.relay.handshakes().waited == 0 { tokio::task::yield_now().await } } => {}
    }
    drop(slow);
    soon(first).await.unwrap();
    for call in calls {
        soon(call).await.unwrap();
    }
    assert_eq!(soon(served).await.unwrap().len(), 3);
    assert_eq!(house.relay.handshakes().refused, 0);
}

#[tokio::test]
async fn threat_20_children_have_a_cap() {
    let house = House::with(Caps { pending: 8, retry_above: 8, waiting: 0, children: 1 });
    let first = house.child();
    let (up, down) = call(&first, &house.relay).await;
    let (up, _down) = (up.unwrap(), down.unwrap());
    let second = house.child();
    let refused = soon(async {
        tokio::select! {
            outcome = second.connect(&house.address) => outcome.unwrap_err(),
            _ = house.relay.accept() => panic!("admitted over the cap"),
        }
    })
    .await;
    assert!(matches!(refused, TransportError::Closed { reason: CloseReason::TurnedAway, .. }));
    assert!(!up.is_closed());
}

#[tokio::test]
async fn a_silent_address_does_not_hold_the_caller_for_ever() {
    let house = House::with(Caps::STANDARD);
    let silent = UdpSocket::bind(loopback()).unwrap();
    let wait = Duration::from_millis(100);
    let error = soon(house.child().dial(silent.local_addr().unwrap(), wait)).await.unwrap_err();
    assert_eq!(error.fault(), Some(&PeerFault::HandshakeTimeout { wait }));
    assert!(!error.is_answer(), "so another way may be tried (HT-30)");
}

#[tokio::test]
async fn addresses_that_are_none_are_told_apart() {
    let child = House::with(Caps::STANDARD).child();
    for bad in ["", "host-without-port", "127.0.0.1", "127.0.0.1:99999"] {
        let error = soon(child.connect(bad)).await.unwrap_err();
        assert!(matches!(error, TransportError::Resolve { .. }), "{bad}: {error}");
    }
    let error = soon(child.connect("127.0.0.1:0")).await.unwrap_err();
    assert!(matches!(error, TransportError::Dial { .. }), "{error}");
}

#[tokio::test]
async fn w_14_the_end_comes_with_its_reason() {
    let pair = Pair::meet().await;
    pair.down.close(Code::REFUSED, "denied by \u{7} the operator");
    let reason = soon(pair.up.closed()).await;
    let CloseReason::ByPeer { code, reason } = reason else { panic!("{reason}") };
    assert_eq!(code, Code::REFUSED);
    assert_eq!(reason, "denied by \\u{7} the operator", "control characters reach no terminal");
    assert!(pair.up.is_closed());
    assert_eq!(soon(pair.down.closed()).await, CloseReason::ByUs);
    let error = pair.up.open_bi().await.unwrap_err();
    assert!(matches!(error, TransportError::Closed { .. }) && error.to_string().contains("relay r1"));
}

#[tokio::test]
async fn an_endpoint_that_closes_tells_its_peers_and_accepts_no_more() {
    let house = House::with(Caps::STANDARD);
    let child = house.child();
    let (up, down) = call(&child, &house.relay).await;
    let (up, _down) = (up.unwrap(), down.unwrap());
    house.relay.close(Code::LEAVING, "restart");
    assert!(soon(house.relay.wait_idle()).await);
    assert!(soon(house.relay.accept()).await.is_none());
    let reason = soon(up.closed()).await;
    assert_eq!(reason, CloseReason::ByPeer { code: Code::LEAVING, reason: "restart".into() });
}
