//! Who may come without a certificate, and how a renewed one is taken into use.

use super::*;
use crate::{Arrival, Code, Joiner, OwnKey, PeerFault};
use std::time::SystemTime;

/// What a relay makes of the next caller.
async fn arrival(relay: &Endpoint) -> Result<Arrival, TransportError> {
    relay.accept().await.unwrap().arrive().await
}

#[tokio::test]
async fn j_10_a_joiner_comes_without_a_certificate_and_the_relay_still_proves_itself() {
    let authority = TestAuthority::new();
    let relay = listener(&authority.identity(&Leaf::relay()));
    let address = relay.local_addr().unwrap().to_string();
    let joiner = Joiner::new().unwrap();
    let certificate = authority.certificate();
    let calling = joiner.connect(&address, &certificate);
    let (up, down) = soon(async { tokio::join!(calling, arrival(&relay)) }).await;
    assert_eq!(up.unwrap().peer().to_uri(), Leaf::relay().uris[0]);
    assert!(matches!(down.unwrap(), Arrival::Joiner(_)));
    // One that serves under another authority is not believed.
    let other = TestAuthority::new().certificate();
    let calling = joiner.connect(&address, &other);
    let (up, _) = soon(async { tokio::join!(calling, arrival(&relay)) }).await;
    assert!(matches!(up.unwrap_err().fault(), Some(PeerFault::Certificate { .. })));
}

#[tokio::test]
async fn j_11_whoever_answers_can_be_met_and_asked() {
    let (authority, joiner) = (TestAuthority::new(), Joiner::new().unwrap());
    let relay = listener(&authority.identity(&Leaf::relay()));
    let address = relay.local_addr().unwrap().to_string();
    let (up, down) = soon(async { tokio::join!(joiner.meet(&address), arrival(&relay)) }).await;
    let (up, down) = (up.unwrap(), down.unwrap());
    let Arrival::Joiner(down) = down else { panic!("{down:?}") };
    let (mut sender, _receiver) = up.open_bi().await.unwrap();
    sender.send_message(&"who are you").await.unwrap();
    let (_sender, mut receiver) = soon(down.accept_bi()).await.unwrap();
    assert_eq!(receiver.receive_message::<String>(100).await.unwrap().unwrap(), "who are you");
}

#[tokio::test]
async fn j_10_where_nobody_can_join_a_joiner_is_refused() {
    let authority = TestAuthority::new();
    let relay = listener(&authority.identity(&Leaf::relay()));
    let address = relay.local_addr().unwrap().to_string();
    let (joiner, certificate) = (Joiner::new().unwrap(), authority.certificate());
    let calling = joiner.connect(&address, &certificate);
    let accepted = async { relay.accept().await.unwrap().finish().await };
    let (up, down) = soon(async { tokio::join!(calling, accepted) }).await;
    assert_eq!(down.unwrap_err().fault(), Some(&PeerFault::NoCertificate));
    let reason = soon(up.unwrap().closed()).await;
    assert!(matches!(reason, crate::CloseReason::ByPeer { code: Code::REFUSED, .. }), "{reason:?}");
}

#[tokio::test]
async fn j_30_a_renewed_certificate_serves_new_connections_and_live_ones_go_on() {
    let authority = TestAuthority::new();
    let of = |leaf: Leaf, seconds| authority.identity(&Leaf { valid: (-300, seconds), ..leaf });
    let relay = listener(&of(Leaf::relay(), 600));
    let child = Endpoint::dial_only(&of(Leaf::agent(), 600)).unwrap();
    let (first_up, first_down) = call(&child, &relay).await;
    let (first_up, first_down) = (first_up.unwrap(), first_down.unwrap());
    // Clones made before it renew with the endpoint.
    let clone = child.clone();
    child.adopt(&of(Leaf::agent(), 6000)).unwrap();
    relay.adopt(&of(Leaf::relay(), 6000)).unwrap();
    let (up, down) = call(&clone, &relay).await;
    let left = |end: SystemTime| end.duration_since(SystemTime::now()).unwrap().as_secs();
    for renewed in [up.unwrap(), down.unwrap()] {
        assert!((5900..=6000).contains(&left(renewed.expires())));
    }
    for live in [first_up, first_down] {
        assert!(!live.is_closed() && left(live.expires()) <= 600);
    }
}

#[test]
fn j_25_a_chain_for_another_key_is_no_identity() {
    let authority = TestAuthority::new();
    let identity = authority.identity(&Leaf::agent());
    let (chain, path) = (identity.chain(), Path::new("identity.pem"));
    let (own, certificate) = (identity.own_key().unwrap(), authority.certificate());
    let again = Identity::of_chain(&chain, &own, certificate.clone(), path).unwrap();
    assert_eq!((again.name(), again.expires()), (identity.name(), identity.expires()));
    let loaded = Identity::from_pem(again.to_pem().unwrap().as_bytes(), certificate.clone(), path).unwrap();
    assert_eq!(loaded.public_key().unwrap(), *own.public());
    let other = OwnKey::generate().unwrap();
    assert!(Identity::of_chain(&chain, &other, certificate, path).is_err());
    let foreign = TestAuthority::new().certificate();
    assert!(Identity::of_chain(&chain, &own, foreign, path).is_err());
}
