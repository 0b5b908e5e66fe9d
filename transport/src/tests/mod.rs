//! Real certificates, real sockets on the loopback.

mod endpoint;
mod handshake;
mod https;
mod identity;
mod joining;
mod resumption;
mod streams;

use crate::endpoint::Caps;
use crate::name::authority_uri;
use crate::{
    AuthorityCertificate, Connection, Endpoint, Identity, PeerName, RELAY_SERVER_NAME, Receiver, Role,
    Sender, TransportError,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rootcast::id::PlatformId;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use time::OffsetDateTime;

const PLATFORM: PlatformId = PlatformId::from_bytes([7; 16]);
const OTHER_PLATFORM: PlatformId = PlatformId::from_bytes([8; 16]);

/// A certificate to be made; the fields are what attackers change.
struct Leaf {
    uris: Vec<String>,
    server_name: bool,
    usages: Vec<ExtendedKeyUsagePurpose>,
    valid: (i64, i64),
}

impl Leaf {
    /// What the authority of a platform issues.
    fn of(platform: PlatformId, role: Role, name: &str) -> Self {
        let mut usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role == Role::Relay {
            usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let uris = vec![PeerName::new(platform, role, name).unwrap().to_uri()];
        Self { uris, server_name: role == Role::Relay, usages, valid: (-300, 3600) }
    }
    fn relay() -> Self {
        Self::of(PLATFORM, Role::Relay, "r1")
    }
    fn agent() -> Self {
        Self::of(PLATFORM, Role::Agent, "web-1")
    }
}

struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl TestAuthority {
    fn new() -> Self {
        Self::named("test authority")
    }

    fn named(name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI(authority_uri(PLATFORM).try_into().unwrap())];
        params.not_after = OffsetDateTime::now_utc() + time::Duration::days(30);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn certificate(&self) -> AuthorityCertificate {
        AuthorityCertificate::from_pem(self.pem.as_bytes(), Path::new("ca.pem")).unwrap()
    }

    fn pem_of(&self, leaf: &Leaf) -> String {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        for uri in &leaf.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().unwrap()));
        }
        if leaf.server_name {
            params.subject_alt_names.push(SanType::DnsName(RELAY_SERVER_NAME.try_into().unwrap()));
        }
        params.extended_key_usages.clone_from(&leaf.usages);
        let now = OffsetDateTime::now_utc();
        params.not_before = now + time::Duration::seconds(leaf.valid.0);
        params.not_after = now + time::Duration::seconds(leaf.valid.1);
        params.signed_by(&key, &self.issuer).unwrap().pem() + &key.serialize_pem()
    }

    fn identity(&self, leaf: &Leaf) -> Identity {
        Self::identity_from(&self.pem_of(leaf), self.certificate())
    }

    /// As an attacker would: our loader's checks are not for it.
    fn identity_from(pem: &str, authority: AuthorityCertificate) -> Identity {
        Identity::from_pem_unverified(pem.as_bytes(), authority, Path::new("identity.pem")).unwrap()
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Nothing here takes long; what does has failed.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(15), future).await.expect("took too long")
}

fn listener(identity: &Identity) -> Endpoint {
    Endpoint::listen_with(identity, loopback(), Caps::STANDARD).unwrap()
}

/// What `child` and `relay` each make of a call.
async fn call(
    child: &Endpoint,
    relay: &Endpoint,
) -> (Result<Connection, TransportError>, Result<Connection, TransportError>) {
    let address = relay.local_addr().unwrap().to_string();
    let accepted = async { relay.accept().await.unwrap().finish().await };
    soon(async { tokio::join!(child.connect(&address), accepted) }).await
}

/// A child and a relay that have met.
struct Pair {
    _child: Endpoint,
    _relay: Endpoint,
    up: Connection,
    down: Connection,
}

impl Pair {
    async fn meet() -> Self {
        Self::meet_as(Role::Agent).await
    }

    async fn meet_as(role: Role) -> Self {
        let authority = TestAuthority::new();
        let relay = Endpoint::listen(&authority.identity(&Leaf::relay()), loopback()).unwrap();
        let leaf = Leaf::of(PLATFORM, role, "child");
        let child = Endpoint::dial_only(&authority.identity(&leaf)).unwrap();
        let (up, down) = call(&child, &relay).await;
        Self { _child: child, _relay: relay, up: up.unwrap(), down: down.unwrap() }
    }

    /// A stream that the child sends on, after `first` bytes as they are.
    async fn stream(&self, first: &'static [u8]) -> (Sender, Receiver) {
        let mut sender = self.up.open_uni().await.unwrap();
        sender.send_bytes(first.into()).await.unwrap();
        let receiver = soon(self.down.accept_uni()).await.unwrap();
        (sender, receiver)
    }
}
