//! HTTPS: who is known, and what the patience and the bounds are (specs/http.md, HT-15 to HT-24).

use super::*;
use crate::PeerFault;
use crate::https::{Ask, Caches, HttpAnswer, HttpRequest, HttpsDialer, HttpsListener, Keep, Proof};
use bytes::Bytes;
use rootcast::cose::DocumentKind;
use rootcast::http::{Bearer, Token};
use rootcast::limits::{MAX_HTTP_BODY, MAX_HTTP_HEAD};
use rustls::pki_types::ServerName;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const ASK: Ask = Ask { limit: 1 << 20, wait: Duration::from_secs(10), caches: Caches::Welcome };

fn path() -> String {
    format!("/v1/{PLATFORM}/main/news")
}

/// A relay that answers everybody with who they are to it.
struct Relay {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<HttpRequest>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tell(seen: &Mutex<Vec<HttpRequest>>, request: HttpRequest) -> HttpAnswer {
    seen.lock().unwrap().push(request.clone());
    if let Some(has) = request.if_none_match {
        let tag = Some("\"tag\"".to_owned());
        let (status, pieces) = if has == "\"tag\"" { (304, Vec::new()) } else { (200, vec!["new".into()]) };
        return HttpAnswer { status, media_type: "text/plain", tag, keep: Keep::Shared, pieces };
    }
    let Some((name, proof)) = request.caller else { return HttpAnswer::of_status(401) };
    let pieces = vec![format!("{name} ").into(), format!("{proof:?}").into()];
    HttpAnswer { status: 200, media_type: "text/plain", tag: None, keep: Keep::No, pieces }
}

impl Relay {
    async fn start(identity: &Identity, head_wait: Duration, connections: usize) -> Self {
        let caps =
            crate::https::HttpCaps { connections, strangers: connections / 2, handshakes: 16, head_wait };
        let listener = HttpsListener::listen_with(identity, loopback(), caps).unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let sees = seen.clone();
        let task = tokio::spawn(async move {
            let mut callers = tokio::task::JoinSet::new();
            loop {
                let (arrival, seen) = (listener.accept().await, sees.clone());
                callers.spawn(async move {
                    if let Ok(session) = arrival.arrive().await {
                        let _ = session.serve(|request| tell(&seen, request)).await;
                    }
                });
            }
        });
        Self { address, seen, task }
    }

    async fn usual(authority: &TestAuthority) -> Self {
        Self::start(&authority.identity(&Leaf::relay()), Duration::from_secs(10), 64).await
    }

    fn address(&self) -> String {
        self.address.to_string()
    }

    /// A connection of our own making; with a certificate, or without.
    async fn raw(&self, identity: &Identity, with: bool) -> TlsStream<TcpStream> {
        let tls = if with {
            crate::tuning::client_tls(identity)
        } else {
            crate::tuning::nameless_tls(identity.authority())
        };
        let mut tls = tls.unwrap();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(RELAY_SERVER_NAME).unwrap();
        TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap()
    }

    /// What comes back for bytes, until the other end closes or has nothing more to say for a while.
    async fn exchanged(&self, identity: &Identity, bytes: &[u8]) -> String {
        let mut stream = self.raw(identity, true).await;
        // It may be refused before all of it is taken.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let mut some = [0; 4096];
        while let Ok(Ok(count @ 1..)) =
            tokio::time::timeout(Duration::from_secs(2), stream.read(&mut some)).await
        {
            answer.extend_from_slice(&some[..count]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

async fn asked(dialer: &HttpsDialer, relay: &Relay) -> Result<Option<Bytes>, TransportError> {
    soon(dialer.connect(&relay.address())).await?.get(&path(), ASK).await
}

#[tokio::test]
async fn ht_15_a_member_is_known_by_its_certificate() {
    let authority = TestAuthority::new();
    let relay = Relay::usual(&authority).await;
    for (role, name) in [(Role::Agent, "web-1"), (Role::Relay, "eu"), (Role::Publisher, "ci")] {
        let dialer = HttpsDialer::new(&authority.identity(&Leaf::of(PLATFORM, role, name))).unwrap();
        let answer = asked(&dialer, &relay).await.unwrap().unwrap();
        assert_eq!(answer, format!("{role} {name} Certificate"));
    }
}

#[tokio::test]
async fn threat_22_who_may_not_be_here_is_refused_over_https_as_well() {
    let authority = TestAuthority::new();
    let relay = Relay::usual(&authority).await;
    let expired = Leaf { valid: (-600, -60), ..Leaf::agent() };
    let other = Leaf::of(OTHER_PLATFORM, Role::Agent, "web-1");
    for leaf in [expired, other] {
        let dialer = HttpsDialer::new(&authority.identity(&leaf)).unwrap();
        asked(&dialer, &relay).await.expect_err("it may not be here");
    }
    let stranger = TestAuthority::named("stranger").pem_of(&Leaf::agent());
    let stranger = TestAuthority::identity_from(&stranger, authority.certificate());
    asked(&HttpsDialer::new(&stranger).unwrap(), &relay).await.expect_err("of another authority");
    assert!(relay.seen.lock().unwrap().is_empty(), "none of them was answered anything");
}

#[tokio::test]
async fn threat_22_only_a_relay_of_ours_is_asked() {
    let authority = TestAuthority::new();
    let dialer = HttpsDialer::new(&authority.identity(&Leaf::agent())).unwrap();
    let other = Relay::usual(&TestAuthority::new()).await;
    let error = asked(&dialer, &other).await.expect_err("of another authority");
    assert!(matches!(error.fault(), Some(PeerFault::Certificate { .. })), "{error}");
    let elsewhere = authority.identity(&Leaf::of(OTHER_PLATFORM, Role::Relay, "r1"));
    let elsewhere = Relay::start(&elsewhere, Duration::from_secs(10), 8).await;
    let error = asked(&dialer, &elsewhere).await.expect_err("of another platform");
    assert!(matches!(error.fault(), Some(PeerFault::OtherPlatform { .. })), "{error}");
    let agent = HttpsListener::listen(&authority.identity(&Leaf::agent()), loopback());
    assert!(matches!(agent, Err(TransportError::MayNotListen { .. })));
}

#[tokio::test]
async fn ht_20_one_whose_certificate_does_not_arrive_shows_a_token_when_asked() {
    let authority = TestAuthority::new();
    let relay = Relay::usual(&authority).await;
    // As behind a proxy: TLS that shows nothing.
    let dialer = HttpsDialer::nameless(&authority.identity(&Leaf::agent())).unwrap();
    let mut connection = soon(dialer.connect(&relay.address())).await.unwrap();
    for _ in 0..3 {
        let answer = connection.get(&path(), ASK).await.unwrap().unwrap();
        assert_eq!(answer, "agent web-1 Token");
    }
    let seen = relay.seen.lock().unwrap();
    let first: Vec<bool> = seen.iter().map(|request| request.caller.is_some()).collect();
    assert_eq!(first, [false, true, true, true], "the token goes where it is asked for");
    assert_eq!(seen[1].caller.as_ref().unwrap().1, Proof::Token);
}

/// A request with a token, over a connection without a certificate; the status.
async fn shown(relay: &Relay, authority: &TestAuthority, token: &str) -> String {
    let mut stream = relay.raw(&authority.identity(&Leaf::agent()), false).await;
    let request = format!("GET {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n", path());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let count = soon(stream.read(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[..count]).split(' ').nth(1).unwrap_or_default().to_owned()
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn token(identity: &Identity, platform: PlatformId, kind: DocumentKind, bearer: &Bearer) -> Token {
    let document = identity.own_key().unwrap().sign(kind, platform, &bearer.encode()).unwrap();
    Token { chain: identity.chain_der(), document: document.into() }
}

#[tokio::test]
async fn threat_22_a_token_is_judged_as_the_certificate_would_be() {
    let authority = TestAuthority::new();
    let relay = Relay::usual(&authority).await;
    let agent = authority.identity(&Leaf::agent());
    let good = Bearer::new(PLATFORM, now());
    let of = |identity: &Identity| token(identity, PLATFORM, DocumentKind::Bearer, &good);
    assert_eq!(shown(&relay, &authority, &of(&agent).to_text()).await, "200");

    let expired = authority.identity(&Leaf { valid: (-600, -60), ..Leaf::agent() });
    let elsewhere = authority.identity(&Leaf::of(OTHER_PLATFORM, Role::Agent, "web-1"));
    let stranger = TestAuthority::named("stranger");
    let stranger = TestAuthority::identity_from(&stranger.pem_of(&Leaf::agent()), stranger.certificate());
    let unfit =
        authority.identity(&Leaf { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..Leaf::agent() });
    let other = authority.identity(&Leaf::agent());
    let borrowed = Token { chain: other.chain_der(), ..of(&agent) };
    let late = Bearer { issued: now() - 3600, expires: now() - 3300, ..good.clone() };
    let narrow = Bearer { prefix: format!("/v1/{PLATFORM}/other/"), ..good.clone() };
    let refused = [
        ("expired", of(&expired)),
        ("another platform's", of(&elsewhere)),
        ("another authority's", of(&stranger)),
        ("for servers", of(&unfit)),
        ("signed by another key", borrowed),
        ("of another kind", token(&agent, PLATFORM, DocumentKind::Head, &good)),
        ("signed for another platform", token(&agent, OTHER_PLATFORM, DocumentKind::Bearer, &good)),
        ("too old", token(&agent, PLATFORM, DocumentKind::Bearer, &late)),
        ("for other paths", token(&agent, PLATFORM, DocumentKind::Bearer, &narrow)),
    ];
    for (why, token) in refused {
        assert_eq!(shown(&relay, &authority, &token.to_text()).await, "401", "{why}");
    }
    assert_eq!(shown(&relay, &authority, "00").await, "401");
    assert_eq!(relay.seen.lock().unwrap().len(), 1, "nothing was answered to any of these");
}

#[tokio::test]
async fn threat_20_one_that_never_ends_its_request_is_closed_and_others_are_served_meanwhile() {
    let authority = TestAuthority::new();
    let agent = authority.identity(&Leaf::agent());
    let wait = Duration::from_millis(1500);
    let relay = Relay::start(&authority.identity(&Leaf::relay()), wait, 64).await;
    let begun = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = relay.raw(&agent, true).await;
        stream.write_all(format!("GET {} HTTP/1.1\r\n", path()).as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let dialer = HttpsDialer::new(&agent).unwrap();
    assert!(asked(&dialer, &relay).await.unwrap().is_some(), "a sibling is served");
    assert!(begun.elapsed() < wait, "at once");
    for mut stream in slow {
        // A line now and then does not help.
        let drips = async {
            while stream.write_all(b"x: y\r\n").await.is_ok() && stream.flush().await.is_ok() {
                let mut some = [0; 512];
                let reads = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut some)).await;
                if matches!(reads, Ok(Ok(0) | Err(_))) {
                    break;
                }
            }
        };
        soon(drips).await;
    }
    assert!(begun.elapsed() >= wait);
}

#[tokio::test]
async fn threat_20_a_head_or_body_over_its_bound_is_refused() {
    let authority = TestAuthority::new();
    let agent = authority.identity(&Leaf::agent());
    let relay = Relay::usual(&authority).await;
    let long = format!("GET {} HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", path(), "a".repeat(MAX_HTTP_HEAD));
    assert!(relay.exchanged(&agent, long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many = format!("GET {} HTTP/1.1\r\nhost: x\r\n{}\r\n", path(), "a: b\r\n".repeat(100));
    assert!(relay.exchanged(&agent, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let body = "b".repeat(MAX_HTTP_BODY + 1);
    let large =
        format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", path(), body.len());
    assert!(relay.exchanged(&agent, large.as_bytes()).await.starts_with("HTTP/1.1 413"));
    let proxied = format!("GET http://x{} HTTP/1.1\r\nhost: x\r\n\r\n", path());
    assert!(relay.exchanged(&agent, proxied.as_bytes()).await.starts_with("HTTP/1.1 400"));
    assert!(relay.exchanged(&agent, b"\x00\x01\x02\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    assert!(relay.seen.lock().unwrap().is_empty(), "none of it reached the routes");
}

#[tokio::test]
async fn threat_19_strangers_cannot_take_the_room_of_members() {
    let authority = TestAuthority::new();
    let agent = authority.identity(&Leaf::agent());
    let relay = Relay::start(&authority.identity(&Leaf::relay()), Duration::from_secs(10), 4).await;
    // Room for four, and for two of those without a certificate; the rest of these is closed.
    let (one, two) = (relay.raw(&agent, false).await, relay.raw(&agent, false).await);
    let mut third = relay.raw(&agent, false).await;
    assert!(matches!(soon(third.read(&mut [0; 16])).await, Ok(0) | Err(_)));
    let dialer = HttpsDialer::new(&agent).unwrap();
    assert!(asked(&dialer, &relay).await.unwrap().is_some(), "a member is served");
    drop((one, two));
}

#[tokio::test]
async fn ht_17_an_answer_over_the_limit_is_a_fault_and_a_lost_connection_is_made_anew() {
    let authority = TestAuthority::new();
    let relay = Relay::start(&authority.identity(&Leaf::relay()), Duration::from_millis(400), 64).await;
    let dialer = HttpsDialer::new(&authority.identity(&Leaf::agent())).unwrap();
    let mut connection = soon(dialer.connect(&relay.address())).await.unwrap();
    assert!(connection.get(&path(), ASK).await.unwrap().is_some());
    // Long enough for the relay to close it for idleness.
    let mut probe = relay.raw(&authority.identity(&Leaf::agent()), true).await;
    soon(probe.read(&mut [0; 16])).await.ok();
    assert!(connection.get(&path(), ASK).await.unwrap().is_some(), "it dials again by itself");
    let error = connection.get(&path(), Ask { limit: 5, ..ASK }).await.expect_err("too large");
    assert!(matches!(error.fault(), Some(PeerFault::TooLarge { limit: 5, .. })), "{error}");
}

#[tokio::test]
async fn ht_13_an_answer_says_how_it_may_be_kept_and_what_is_known_is_not_sent_again() {
    let authority = TestAuthority::new();
    let agent = authority.identity(&Leaf::agent());
    let relay = Relay::usual(&authority).await;
    let conditional =
        |tag: &str| format!("GET {} HTTP/1.1\r\nhost: x\r\nif-none-match: {tag}\r\n\r\n", path());
    let new = relay.exchanged(&agent, conditional("\"other\"").as_bytes()).await;
    assert!(new.starts_with("HTTP/1.1 200") && new.ends_with("\r\n\r\nnew"), "{new}");
    assert!(new.contains("etag: \"tag\"\r\n"), "{new}");
    assert!(new.contains("cache-control: public, max-age=31536000, immutable\r\n"), "{new}");
    let known = relay.exchanged(&agent, conditional("\"tag\"").as_bytes()).await;
    assert!(known.starts_with("HTTP/1.1 304") && known.ends_with("\r\n\r\n"), "{known}");
    assert!(known.contains("etag: \"tag\"\r\n") && !known.contains("content-length: 0"), "{known}");
    let plain =
        relay.exchanged(&agent, format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", path()).as_bytes()).await;
    assert!(plain.contains("cache-control: no-store\r\n"), "{plain}");
}
