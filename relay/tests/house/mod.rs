//! A platform on disk, its origin and relays in this process, and what joins them.
#![allow(dead_code, unreachable_pub)] // each test file uses its own part of this

use crate::support::{PLATFORM, channel, trust_document};
use bytes::Bytes;
use rootcast::cose::DocumentKind;
use rootcast::id::TrustHash;
use rootcast::join::{JoinAnswer, JoinString, Request};
use rootcast::member::{Labels, Role};
use rootcast::path::MemberName;
use rootcast::trust::VerifiedTrust;
use rootcast_relay::authority::Authority;
use rootcast_relay::issuing::Issuing;
use rootcast_relay::membership::{Invitation, Membership, ONLINE_KEY_FILE, Records, enrol};
use rootcast_relay::{HttpsAddress, RelayConfig, RelayError, RelayEvent, run};
use rootcast_replica::joining::{JoinFailure, Joined, Joining, join};
use rootcast_replica::{FINGERPRINT_FILE, TRUST_FILE, Trusted, durable};
use rootcast_transport::{Identity, OwnKey, PeerName};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Generous: only a test that fails waits this long.
pub const DEADLINE: Duration = Duration::from_secs(30);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn name(text: &str) -> MemberName {
    MemberName::new(text).unwrap()
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub struct House {
    pub directory: TempDir,
    pub authority: Authority,
    pub issuing: Issuing,
    pub trust: VerifiedTrust,
    document: Vec<u8>,
}

impl House {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (path, now) = (directory.path(), SystemTime::now());
        let authority = Authority::create(&path.join("authority"), PLATFORM, now).unwrap();
        let issuing = Issuing::create(&authority, &path.join("keys"), now).unwrap();
        // The key that the trust document of these tests names for heads.
        let online = OwnKey::from_seed(&[3; 32]).unwrap().to_pem();
        durable::write_new(&path.join("keys").join(ONLINE_KEY_FILE), online.as_bytes(), 0o600).unwrap();
        let (document, fingerprint) = trust_document(authority.hash());
        let trust = VerifiedTrust::pinned(&document, fingerprint).unwrap();
        Self { directory, authority, issuing, trust, document }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn fingerprint(&self) -> TrustHash {
        self.trust.hash()
    }

    /// A member by hand with labels.
    pub fn labelled(&self, role: Role, name: &str, labels: &[&str]) -> Identity {
        let directory = self.path(name);
        let labels = Labels::from_pairs(labels.iter().copied()).unwrap();
        let peer = PeerName::new(PLATFORM, role, name).unwrap().with_labels(labels);
        self.issuing.issue(&peer, DAY, SystemTime::now(), &directory).unwrap()
    }

    /// A member by hand, certified from `begun` for `valid`.
    pub fn issue(&self, role: Role, name: &str, valid: Duration, begun: SystemTime) -> Identity {
        self.enrolled(PeerName::new(PLATFORM, role, name).unwrap(), valid, begun)
    }

    /// A member at a place.
    pub fn placed(&self, role: Role, name: &str, labels: &str) -> Identity {
        let peer = PeerName::new(PLATFORM, role, name).unwrap().with_labels(labels.parse().unwrap());
        self.enrolled(peer, DAY, SystemTime::now())
    }

    fn enrolled(&self, peer: PeerName, valid: Duration, begun: SystemTime) -> Identity {
        let directory = self.path(peer.name());
        let identity = self.issuing.issue(&peer, valid, begun, &directory).unwrap();
        std::fs::write(directory.join(TRUST_FILE), &self.document).unwrap();
        std::fs::write(directory.join(FINGERPRINT_FILE), self.fingerprint().to_string()).unwrap();
        enrol(&self.records(), &identity).unwrap();
        identity
    }

    pub fn member(&self, role: Role, name: &str) -> Identity {
        self.issue(role, name, DAY, SystemTime::now())
    }

    pub fn records(&self) -> Records {
        Records::of(&self.path("origin").join("state"))
    }

    /// The origin's membership, as a daemon that has just started has it.
    pub fn membership(&self) -> Membership {
        let identity = Identity::load(&self.path("origin")).unwrap();
        let trust = Trusted::open(&self.path("origin"), &self.path("origin/state")).unwrap();
        Membership::open(&self.path("origin/state"), &self.path("keys"), &identity, trust).unwrap()
    }

    /// Runs the relay whose identity is there. Without parents it is the origin.
    pub async fn run(&self, name: &str, parents: &[&Running]) -> Running {
        let parents: Vec<SocketAddr> = parents.iter().map(|parent| parent.address).collect();
        self.run_at(name, (Ipv4Addr::LOCALHOST, 0).into(), &parents).await
    }

    /// As [`House::run`], below whoever is at an address.
    pub async fn run_below(&self, name: &str, parent: SocketAddr) -> Running {
        self.run_at(name, (Ipv4Addr::LOCALHOST, 0).into(), &[parent]).await
    }

    /// As [`House::run`], at an address.
    pub async fn run_at(&self, name: &str, listen: SocketAddr, parents: &[SocketAddr]) -> Running {
        self.run_with_all(name, listen, parents, |_| {}).await
    }

    /// As [`House::run`], with other settings.
    pub async fn run_with(
        &self,
        name: &str,
        parents: &[&Running],
        set: impl FnOnce(&mut RelayConfig),
    ) -> Running {
        let parents: Vec<SocketAddr> = parents.iter().map(|parent| parent.address).collect();
        self.run_with_all(name, (Ipv4Addr::LOCALHOST, 0).into(), &parents, set).await
    }

    async fn run_with_all(
        &self,
        name: &str,
        listen: SocketAddr,
        parents: &[SocketAddr],
        set: impl FnOnce(&mut RelayConfig),
    ) -> Running {
        let mut config = RelayConfig {
            https: HttpsAddress::At((Ipv4Addr::LOCALHOST, 0).into()),
            http_cache: Default::default(),
            listen,
            identity: self.path(name),
            state: self.path(name).join("state"),
            channels: vec![channel()],
            keys: parents.is_empty().then(|| self.path("keys")),
            addresses: Vec::new(),
            head_validity_seconds: 3600,
            advertise: None,
            keep: Vec::new(),
            keep_seconds: 3600,
            parents: parents.iter().map(SocketAddr::to_string).collect(),
            operations: None,
            log: Default::default(),
            log_level: "info".into(),
        };
        set(&mut config);
        // The socket of a relay that has ended lives for a moment longer.
        let free = async {
            while std::net::UdpSocket::bind(listen).is_err() {
                tokio::task::yield_now().await
            }
        };
        soon(free).await;
        let (told, mut events) = mpsc::unbounded_channel();
        let tell = Arc::new(move |event: RelayEvent| {
            let _ = told.send(event);
        });
        let task = tokio::spawn(async move {
            // The store of a relay that has ended is locked for a moment longer.
            while let Err(error) = run(config.clone(), tell.clone(), std::future::pending()).await {
                assert!(matches!(error, RelayError::Store(_)), "{error}");
                tokio::task::yield_now().await;
            }
        });
        let ready = tokio::time::timeout(DEADLINE, events.recv()).await.expect("ready").unwrap();
        let RelayEvent::Ready { address, https, .. } = ready else { panic!("{ready:?}") };
        Running { address, https, task }
    }

    /// The origin, certified and running.
    pub async fn origin(&self) -> Running {
        self.member(Role::Relay, "origin");
        self.run("origin", &[]).await
    }

    /// An invitation of an agent, once, for an hour.
    pub fn invitation(&self, at: &Running) -> Invitation {
        Invitation {
            fingerprint: self.fingerprint(),
            addresses: vec![at.address.to_string()],
            role: Role::Agent,
            name: None,
            labels: Labels::from_pairs(["region=eu"]).unwrap(),
            valid: HOUR,
            uses: 1,
        }
    }

    pub fn invite(&self, invitation: Invitation) -> JoinString {
        self.invited(invitation, SystemTime::now())
    }

    pub fn invited(&self, invitation: Invitation, when: SystemTime) -> JoinString {
        invitation.invite(&self.records(), self.trust.trust(), when).unwrap()
    }
}

pub struct Running {
    pub address: SocketAddr,
    https: Option<SocketAddr>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Where it serves HTTPS.
    pub fn https(&self) -> SocketAddr {
        self.https.expect("HTTPS")
    }

    /// Ends it, and waits until nothing of it runs any more.
    pub async fn end(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// A parent that nobody is.
    pub fn nowhere() -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, 9).into(), https: None, task: tokio::spawn(async {}) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("took too long")
}

pub async fn join_as(string: &JoinString, text: &str) -> Result<Joined, JoinFailure> {
    let joining = Joining { join: string, name: Some(name(text)), recipient: String::new() };
    soon(join(&joining, SystemTime::now())).await
}

/// A request to join, with the key that it is for.
pub fn request(string: &JoinString, role: Role, text: &str, own: &OwnKey) -> Bytes {
    let token = OwnKey::from_seed(&string.secret.seed()).unwrap();
    signed(role, text, own, &[&token, own])
}

pub fn signed(role: Role, text: &str, own: &OwnKey, signers: &[&OwnKey]) -> Bytes {
    let request = Request {
        role,
        name: name(text),
        key: own.public().clone(),
        issued: now(),
        recipient: String::new(),
    };
    let payload = request.encode();
    let one = |key: &&OwnKey| key.sign(DocumentKind::Join, PLATFORM, &payload).unwrap();
    signers.iter().flat_map(one).collect::<Vec<u8>>().into()
}

pub fn is_issued(answer: &JoinAnswer) -> bool {
    matches!(answer, JoinAnswer::Issued(_))
}
