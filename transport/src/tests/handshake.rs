//! Who may meet whom (specs/wire.md, W-2 to W-7).

use super::*;
use crate::{CloseReason, Code, NameError, PeerFault, TicketKeys};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

async fn meet(
    child: &Identity,
    relay: &Identity,
) -> (Result<Connection, TransportError>, Result<Connection, TransportError>) {
    call(&Endpoint::dial_only(child).unwrap(), &listener(relay)).await
}

fn fault(outcome: Result<Connection, TransportError>) -> PeerFault {
    let error = outcome.expect_err("should be refused");
    error.fault().unwrap_or_else(|| panic!("{error}")).clone()
}

fn is_certificate(outcome: Result<Connection, TransportError>, words: &str) {
    match fault(outcome) {
        PeerFault::Certificate { reason } => assert!(reason.contains(words), "{reason}"),
        other => panic!("{other}"),
    }
}

/// The client's view of a refusal may come before or after its own handshake has ended.
async fn reason_of(outcome: Result<Connection, TransportError>) -> CloseReason {
    match outcome {
        Ok(connection) => soon(connection.closed()).await,
        Err(TransportError::Closed { reason, .. }) => reason,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn w_4_both_ends_know_each_other_by_certificate() {
    for role in [Role::Agent, Role::Relay, Role::Publisher] {
        let pair = Pair::meet_as(role).await;
        assert_eq!(*pair.down.peer(), PeerName::new(PLATFORM, role, "child").unwrap());
        assert_eq!(*pair.up.peer(), PeerName::new(PLATFORM, Role::Relay, "r1").unwrap());
        assert!(pair.down.remote().ip().is_loopback() && pair.down.remote().is_ipv4());
    }
}

/// An authority that is not ours: of another name, and of the very same name.
const STRANGERS: [(&str, &str, u8); 2] =
    [("stranger", "UnknownIssuer", 48), ("test authority", "BadSignature", 51)];

#[tokio::test]
async fn threat_22_another_authoritys_relay_is_refused() {
    for (name, words, expected) in STRANGERS {
        let (ours, other) = (TestAuthority::new(), TestAuthority::named(name));
        let (up, down) = meet(&ours.identity(&Leaf::agent()), &other.identity(&Leaf::relay())).await;
        is_certificate(up, words);
        let reason = reason_of(down).await;
        assert!(matches!(reason, CloseReason::RefusedUs { alert, .. } if alert == expected), "{reason:?}");
    }
}

#[tokio::test]
async fn threat_22_another_authoritys_agent_is_refused() {
    for (name, words, expected) in STRANGERS {
        let (ours, other) = (TestAuthority::new(), TestAuthority::named(name));
        let pem = other.pem_of(&Leaf::agent());
        let impostor = TestAuthority::identity_from(&pem, ours.certificate());
        let (up, down) = meet(&impostor, &ours.identity(&Leaf::relay())).await;
        is_certificate(down, words);
        let reason = reason_of(up).await;
        assert!(matches!(reason, CloseReason::RefusedUs { alert, .. } if alert == expected), "{reason:?}");
    }
}

#[tokio::test]
async fn threat_22_an_agent_cannot_pose_as_a_relay() {
    let authority = TestAuthority::new();
    let agent = authority.identity(&Leaf::agent());
    assert!(matches!(Endpoint::listen(&agent, loopback()), Err(TransportError::MayNotListen { .. })));
    let child = authority.identity(&Leaf::agent());
    let usages = Leaf::relay().usages;
    let named = Leaf { server_name: true, ..Leaf::agent() };
    let useful = Leaf { usages: usages.clone(), ..Leaf::agent() };
    for (leaf, words) in [(Leaf::agent(), "usage"), (named, "usage"), (useful, "not valid for name")] {
        let (up, _) = meet(&child, &authority.identity(&leaf)).await;
        is_certificate(up, words);
    }
    // With both, by an authority's mistake: its role still says agent.
    let both = Leaf { usages, server_name: true, ..Leaf::agent() };
    let (up, down) = meet(&child, &authority.identity(&both)).await;
    assert_eq!(fault(up), PeerFault::NotARelay { role: Role::Agent });
    let reason = reason_of(down).await;
    assert!(matches!(reason, CloseReason::ByPeer { code: Code::REFUSED, .. }), "{reason:?}");
}

#[tokio::test]
async fn threat_22_a_certificate_for_serving_only_cannot_call() {
    let authority = TestAuthority::new();
    let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let child = authority.identity(&Leaf { usages, ..Leaf::relay() });
    let (_, down) = meet(&child, &authority.identity(&Leaf::relay())).await;
    is_certificate(down, "usage");
}

#[tokio::test]
async fn threat_22_another_platform_is_refused() {
    // One authority for two platforms, as nobody should have it: the name decides.
    let authority = TestAuthority::new();
    let foreign = PeerFault::OtherPlatform { theirs: OTHER_PLATFORM, ours: PLATFORM };
    let pem = authority.pem_of(&Leaf::of(OTHER_PLATFORM, Role::Agent, "web-1"));
    let relay = authority.identity(&Leaf::relay());
    let down = raw_call(&relay, &authority, Some(&pem), b"rootcast/1").await;
    assert_eq!(fault(down), foreign);
    let relay = authority.identity(&Leaf::of(OTHER_PLATFORM, Role::Relay, "r1"));
    let (up, _) = meet(&authority.identity(&Leaf::agent()), &relay).await;
    assert_eq!(fault(up), foreign);
}

#[tokio::test]
async fn threat_22_expired_and_not_yet_valid_are_refused() {
    let authority = TestAuthority::new();
    for (valid, word) in [((-600, -300), "expired"), ((300, 600), "not valid yet")] {
        let child = authority.identity(&Leaf { valid, ..Leaf::agent() });
        let (up, down) = meet(&child, &authority.identity(&Leaf::relay())).await;
        is_certificate(down, word);
        let reason = reason_of(up).await;
        assert!(matches!(reason, CloseReason::RefusedUs { alert: 45, .. }), "{reason:?}");
        let relay = authority.identity(&Leaf { valid, ..Leaf::relay() });
        let (up, _) = meet(&authority.identity(&Leaf::agent()), &relay).await;
        is_certificate(up, word);
    }
}

#[tokio::test]
async fn threat_22_a_certificate_without_one_name_is_refused() {
    let authority = TestAuthority::new();
    let relay = authority.identity(&Leaf::relay());
    let two = [Leaf::agent().uris, Leaf::of(PLATFORM, Role::Publisher, "ci").uris].concat();
    for (uris, refusal) in [
        (vec![], NameError::Count { count: 0 }),
        (two, NameError::Count { count: 2 }),
        (vec!["spiffe://x/y".into()], NameError::Form { uri: "spiffe://x/y".into() }),
    ] {
        let pem = authority.pem_of(&Leaf { uris, ..Leaf::agent() });
        let down = raw_call(&relay, &authority, Some(&pem), b"rootcast/1").await;
        assert_eq!(fault(down), PeerFault::Name(refusal));
    }
}

#[tokio::test]
async fn w_5_a_caller_without_certificate_is_refused() {
    let authority = TestAuthority::new();
    let relay = authority.identity(&Leaf::relay());
    let down = raw_call(&relay, &authority, None, b"rootcast/1").await;
    assert_eq!(fault(down), PeerFault::NoCertificate);
}

#[tokio::test]
async fn w_6_another_protocol_is_refused() {
    let authority = TestAuthority::new();
    let relay = authority.identity(&Leaf::relay());
    let pem = authority.pem_of(&Leaf::agent());
    let down = raw_call(&relay, &authority, Some(&pem), b"rootcast/2").await;
    assert_eq!(fault(down), PeerFault::WrongProtocol);
}

/// A caller that is not ours calls `relay`; what the relay makes of it.
async fn raw_call(
    relay: &Identity,
    authority: &TestAuthority,
    pem: Option<&str>,
    protocol: &[u8],
) -> Result<Connection, TransportError> {
    let relay = listener(relay);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate().certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match pem {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    tls.alpn_protocols = vec![protocol.into()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let caller = quinn::Endpoint::client(loopback()).unwrap();
    let address = relay.local_addr().unwrap();
    let calling = caller.connect_with(config, address, RELAY_SERVER_NAME).unwrap();
    let accepted = async { relay.accept().await.unwrap().finish().await };
    soon(async { tokio::join!(calling, accepted).1 }).await
}

/// A session store that counts what it is given and asked for, and otherwise works.
#[derive(Debug)]
struct Counting<S> {
    inner: S,
    uses: AtomicUsize,
}

impl<S> Counting<S> {
    fn over(inner: S) -> Arc<Self> {
        Arc::new(Self { inner, uses: AtomicUsize::new(0) })
    }
    fn count(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientSessionStore for Counting<ClientSessionMemoryCache> {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.inner.set_kx_hint(server, group);
    }
    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.inner.kx_hint(server)
    }
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
    fn insert_tls13_ticket(&self, server: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.count();
        self.inner.insert_tls13_ticket(server, value);
    }
    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.inner.take_tls13_ticket(server)
    }
}

impl StoresServerSessions for Counting<Arc<ServerSessionMemoryCache>> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.inner.put(key, value)
    }
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.count();
        self.inner.get(key)
    }
    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.count();
        self.inner.take(key)
    }
    fn can_cache(&self) -> bool {
        true
    }
}

/// Calls twice with one client and one server configuration, and waits each time
/// for bytes that the server sends after any ticket.
async fn call_twice(client: &quinn::ClientConfig, server: quinn::ServerConfig) {
    let relay = quinn::Endpoint::server(server, loopback()).unwrap();
    let caller = quinn::Endpoint::client(loopback()).unwrap();
    let address = relay.local_addr().unwrap();
    for _ in 0..2 {
        let calling = caller.connect_with(client.clone(), address, RELAY_SERVER_NAME).unwrap();
        let calling = calling.into_0rtt().err().expect("keys for 0-RTT");
        let accepting = async { relay.accept().await.unwrap().await.unwrap() };
        let (up, down) = soon(async { tokio::join!(calling, accepting) }).await;
        let mut sender = down.open_uni().await.unwrap();
        sender.write_all(b"x").await.unwrap();
        soon(up.unwrap().accept_uni()).await.unwrap();
    }
}

#[tokio::test]
async fn threat_23_a_relay_takes_no_early_data() {
    let authority = TestAuthority::new();
    let child = authority.identity(&Leaf::agent());
    let mut tls = crate::tuning::client_tls(&child).unwrap();
    let store = Counting::over(ClientSessionMemoryCache::new(8));
    tls.resumption = Resumption::store(Arc::clone(&store) as Arc<dyn ClientSessionStore>);
    tls.enable_early_data = true;
    let client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let relay = authority.identity(&Leaf::relay());
    let tickets = Arc::new(TicketKeys::open(&relay, &[], SystemTime::now()).unwrap());
    call_twice(&client, crate::tuning::server_config(&relay, Some(tickets.clone())).unwrap()).await;
    assert!(store.uses.load(Ordering::Relaxed) > 0 && tickets.resumed() == 1, "sessions were resumed");
}

#[tokio::test]
async fn threat_23_a_child_sends_no_early_data() {
    let authority = TestAuthority::new();
    let relay = authority.identity(&Leaf::relay());
    let mut tls = crate::tuning::server_tls(&relay, None).unwrap();
    let store = Counting::over(ServerSessionMemoryCache::new(8));
    tls.session_storage = Arc::clone(&store) as Arc<dyn StoresServerSessions>;
    tls.send_tls13_tickets = 2;
    tls.max_early_data_size = u32::MAX;
    let server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let child = crate::tuning::client_tls(&authority.identity(&Leaf::agent())).unwrap();
    call_twice(&crate::tuning::resuming(&child, Role::Agent).unwrap(), server).await;
    assert!(store.uses.load(Ordering::Relaxed) > 0, "a session was resumed");
}
