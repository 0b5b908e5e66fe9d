//! The origin and a relay in this process, with real publishers and children.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // disks and sockets are what is tested

#[path = "../../replica/tests/support/network.rs"]
mod network;
#[path = "../../replica/tests/support/mod.rs"]
mod support;

use bytes::Bytes;
use network::{DEADLINE, Following};
use rootcast::limits::MAX_FRAME;
use rootcast::protocol::{
    Interest, Opening, Publication, PublishAnswer, Subscribe, TrustApplied, UpdateMessage, Welcome,
};
use rootcast::resumption::Beginnings;
use rootcast::selector::Selector;
use rootcast::status::{
    ChannelStatus, Condition, Count, HostState, HostsAnswer, HostsQuery, RelayRow, StatusAnswer,
};
use rootcast_relay::audit::{AUDIT_FILE, check};
use rootcast_relay::authority::Authority;
use rootcast_relay::issuing::Issuing;
use rootcast_relay::{RelayConfig, RelayEvent, run};
use rootcast_replica::{FINGERPRINT_FILE, FollowEvent, Received, Rule, TRUST_FILE};
use rootcast_store::{DiskStore, Store, StoreError};
use rootcast_transport::{Connection, Endpoint, Identity, PeerName, Receiver, Role, Sender};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use support::*;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A platform's directories, as `rootcast init` makes them.
struct Platform {
    directory: TempDir,
    authority: Authority,
    issuing: Issuing,
}

impl Platform {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority =
            Authority::create(&directory.path().join("authority"), PLATFORM, SystemTime::now()).unwrap();
        let issuing = Issuing::create(&authority, &directory.path().join("keys"), SystemTime::now()).unwrap();
        Self { directory, authority, issuing }
    }

    fn identity(&self, role: Role, name: &str) -> Identity {
        let directory = self.directory.path().join(name);
        let peer = PeerName::new(PLATFORM, role, name).unwrap();
        let identity = self.issuing.issue(&peer, DAY, SystemTime::now(), &directory).unwrap();
        let (document, fingerprint) = trust_document(self.authority.hash());
        std::fs::write(directory.join(TRUST_FILE), document).unwrap();
        std::fs::write(directory.join(FINGERPRINT_FILE), format!("{fingerprint}\n")).unwrap();
        identity
    }

    fn client(&self, role: Role, name: &str) -> Endpoint {
        Endpoint::dial_only(&self.identity(role, name)).unwrap()
    }

    async fn relay(&self, name: &str, parents: &[SocketAddr]) -> Running {
        self.identity(Role::Relay, name);
        let config = RelayConfig {
            https: Default::default(),
            http_cache: Default::default(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            identity: self.directory.path().join(name),
            state: self.directory.path().join(name).join("state"),
            channels: vec![channel()],
            keys: None,
            addresses: Vec::new(),
            advertise: None,
            parents: parents.iter().map(SocketAddr::to_string).collect(),
            head_validity_seconds: 3600,
            keep: Vec::new(),
            keep_seconds: 3600,
            operations: None,
            log: Default::default(),
            log_level: "info".into(),
        };
        let store = config.state.join("channels").join("main");
        let (told, mut events) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let tell = Arc::new(move |event: RelayEvent| {
            let _ = told.send(event);
        });
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            run(config, tell, shutdown).await.unwrap();
        });
        let ready = tokio::time::timeout(DEADLINE, events.recv()).await.expect("ready").unwrap();
        let RelayEvent::Ready { address, .. } = ready else { panic!("{ready:?}") };
        Running { address, store, events, stop: Some(stop), task }
    }
}

struct Running {
    address: SocketAddr,
    store: PathBuf,
    events: mpsc::UnboundedReceiver<RelayEvent>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    async fn connect(&self, endpoint: &Endpoint) -> Connection {
        endpoint.connect(&self.address.to_string()).await.unwrap()
    }

    /// The newest release that is on the disk now.
    fn durable(&self) -> u64 {
        let store = DiskStore::open_read_only(&self.store).unwrap();
        let latest = store.latest_release().unwrap_or(0);
        assert_eq!(store.floors().number(), latest);
        latest
    }

    async fn until(&mut self, what: &str, mut wanted: impl FnMut(&RelayEvent) -> bool) {
        let wait = async { while !wanted(&self.events.recv().await.unwrap()) {} };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("waiting for {what}"));
    }

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(DEADLINE, self.task).await.expect("an orderly end").unwrap();
    }
}

async fn offer(connection: &Connection, publication: Publication, edits: Vec<Bytes>) -> PublishAnswer {
    let (mut sender, mut receiver) = connection.open_bi().await.unwrap();
    sender.send_message(&Opening::Publish(publication)).await.unwrap();
    for edit in edits {
        sender.send_bytes(edit).await.unwrap();
    }
    sender.finish().unwrap();
    let answer =
        tokio::time::timeout(DEADLINE, receiver.receive_message(MAX_FRAME)).await.expect("an answer");
    answer.unwrap().expect("an answer")
}

async fn offer_draft(connection: &Connection, draft: &Draft) -> PublishAnswer {
    let (publication, edits) = draft.publication();
    offer(connection, publication, edits).await
}

/// Publishes to the origin, and keeps it in the publisher's own replica.
async fn publish(connection: &Connection, publisher: &Publisher, files: Edits<'_>) -> Draft {
    let draft = publisher.draft(files);
    let answer = offer_draft(connection, &draft).await;
    adopt(publisher, &draft);
    assert_eq!(answer, PublishAnswer::Accepted(publisher.replica.held().unwrap().accepted()));
    draft
}

fn adopt(publisher: &Publisher, draft: &Draft) {
    let received = publisher.replica.receive(&draft.update(), &Interest::All, Rule::Origin).unwrap();
    assert!(matches!(received, Received::Held(_)));
}

async fn subscribe(connection: &Connection) -> (Sender, Receiver) {
    let (mut sender, mut receiver) = connection.open_bi().await.unwrap();
    let opening = Subscribe {
        channel: channel(),
        subscription: 1,
        interest: Interest::All,
        standing: nowhere(),
        trust: 1,
        head: (0, 0),
        serves: None,
        begun: Beginnings::default(),
    };
    sender.send_message(&Opening::Subscribe(opening)).await.unwrap();
    receiver.receive_message::<Welcome>(MAX_FRAME).await.unwrap().expect("a welcome");
    (sender, receiver)
}

async fn ask<T: serde::Serialize + serde::de::DeserializeOwned>(
    connection: &Connection,
    opening: Opening,
) -> T {
    let (mut sender, mut receiver) = connection.open_bi().await.unwrap();
    sender.send_message(&opening).await.unwrap();
    sender.finish().unwrap();
    receiver.receive_message(MAX_FRAME).await.unwrap().unwrap()
}

async fn status(connection: &Connection) -> ChannelStatus {
    let StatusAnswer(mut channels) = ask(connection, Opening::Status).await;
    channels.remove(0)
}

async fn hosts(connection: &Connection, selector: &str) -> HostsAnswer {
    let selector = Selector::parse(selector).unwrap();
    let query =
        HostsQuery { channel: channel(), selector, limit: 99, after: Default::default(), wait: 5_000 };
    ask(connection, Opening::Hosts(query)).await
}

/// Asks until the answer is as wanted; each question is a round trip.
async fn until<T, F: Future<Output = T>>(what: &str, ask: impl Fn() -> F, wanted: impl Fn(&T) -> bool) -> T {
    let wait = async {
        loop {
            let answer = ask().await;
            if wanted(&answer) {
                return answer;
            }
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("waiting for {what}"))
}

#[tokio::test]
async fn a_release_is_durable_before_a_child_or_the_publisher_hears_of_it() {
    let platform = Platform::new();
    let origin = platform.relay("origin", &[]).await;
    let publisher = Publisher::new();
    let publishing = origin.connect(&platform.client(Role::Publisher, "publisher")).await;
    // The first bytes of an update already find it on the disk.
    let watching = origin.connect(&platform.client(Role::Relay, "watcher")).await;
    let _control = subscribe(&watching).await;
    let followers = [platform.client(Role::Relay, "one"), platform.client(Role::Relay, "two")]
        .map(|endpoint| Following::start(&endpoint, replica(), &[origin.address], Interest::All));
    let mut random = Numbers::new(5);
    for number in 1..=5 {
        let text = random.text(20_000);
        let draft =
            publisher.draft(&[("base", "a", Some(&text)), ("role/web", "b", Some(text.split_at(9).0))]);
        let heard = async {
            let mut stream = watching.accept_uni().await.unwrap();
            let durable = origin.durable();
            let message = stream.receive_message::<UpdateMessage>(MAX_FRAME).await.unwrap();
            assert!(message.is_some());
            durable
        };
        let offered = async {
            let answer = offer_draft(&publishing, &draft).await;
            (answer, origin.durable())
        };
        let both = async { tokio::join!(heard, offered) };
        let (durable, (answer, acknowledged)) = tokio::time::timeout(DEADLINE, both).await.expect("both");
        adopt(&publisher, &draft);
        assert_eq!(answer, PublishAnswer::Accepted(publisher.replica.held().unwrap().accepted()));
        assert_eq!((durable, acknowledged), (number, number));
        for follower in &followers {
            follower.until("the release", |child| roots(child) == roots(&publisher.replica)).await;
        }
    }
    for follower in followers {
        assert_eq!(needed(&follower.replica), needed(&publisher.replica));
        follower.stop().await;
    }
    let store = origin.store.clone();
    origin.stop().await;
    let free = async {
        loop {
            match DiskStore::open(&store) {
                Err(StoreError::Locked { .. }) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
    };
    let reopened = tokio::time::timeout(DEADLINE, free).await.expect("the store is let go");
    let reopened = replica_over(Arc::new(reopened));
    assert_eq!(state(&reopened), state(&publisher.replica), "what was acknowledged is there after the end");
}

#[tokio::test]
async fn only_publishers_publish_and_only_to_the_origin() {
    let platform = Platform::new();
    let origin = platform.relay("origin", &[]).await;
    let mut relay = platform.relay("relay", &[origin.address]).await;
    let publisher = Publisher::new();
    let client = platform.client(Role::Publisher, "publisher");
    let publishing = origin.connect(&client).await;
    publish(&publishing, &publisher, &[("base", "a", Some(b"1"))]).await;
    relay
        .until("the release at the relay", |event| {
            matches!(event, RelayEvent::Follow { event: FollowEvent::Held { number: 1, .. }, .. })
        })
        .await;
    let next = publisher.draft(&[("base", "a", Some(b"2"))]);
    let aside = relay.connect(&client).await;
    assert_eq!(offer_draft(&aside, &next).await, PublishAnswer::NotOrigin);
    for (role, name) in [(Role::Agent, "agent"), (Role::Relay, "other")] {
        let connection = origin.connect(&platform.client(role, name)).await;
        let answer = offer_draft(&connection, &next).await;
        assert!(matches!(answer, PublishAnswer::Refused(_)), "{role}: {answer:?}");
    }
    let (mut elsewhere, edits) = next.publication();
    elsewhere.channel = rootcast::path::ChannelName::new("elsewhere").unwrap();
    assert!(matches!(offer(&publishing, elsewhere, edits).await, PublishAnswer::Refused(_)));
    assert_eq!((origin.durable(), relay.durable()), (1, 1));
    assert!(matches!(offer_draft(&publishing, &next).await, PublishAnswer::Accepted(_)));
}

#[tokio::test]
async fn threat_08_a_bad_publication_is_refused_and_the_good_one_taken() {
    let platform = Platform::new();
    let origin = platform.relay("origin", &[]).await;
    let publisher = Publisher::new();
    let client = platform.client(Role::Publisher, "publisher");
    let publishing = origin.connect(&client).await;
    publish(&publishing, &publisher, &[("base", "a", Some(b"1")), ("role/web", "w", Some(b"1"))]).await;
    let good = publisher.draft(&[("base", "a", Some(b"2")), ("role/web", "w", Some(b"2"))]);
    let (publication, edits) = good.publication();
    for at in (0..publication.release.len()).step_by(3) {
        let mut document = publication.release.to_vec();
        document[at] ^= 1 << (at % 8);
        let spoiled = Publication { release: document.into(), ..publication.clone() };
        let answer = offer(&publishing, spoiled, edits.clone()).await;
        assert!(matches!(answer, PublishAnswer::Refused(_)), "document byte {at}: {answer:?}");
    }
    for which in 0..edits.len() {
        for at in (0..edits[which].len()).step_by(2) {
            let mut spoiled = edits.clone();
            let mut edit = spoiled[which].to_vec();
            edit[at] ^= 1 << (at % 8);
            spoiled[which] = edit.into();
            let answer = offer(&publishing, publication.clone(), spoiled).await;
            assert!(matches!(answer, PublishAnswer::Refused(_)), "edit {which} byte {at}: {answer:?}");
        }
    }
    for at in 0..publication.leaves.len() {
        let mut spoiled = publication.clone();
        spoiled.leaves[at].files += 1;
        assert!(matches!(offer(&publishing, spoiled, edits.clone()).await, PublishAnswer::Refused(_)));
    }
    let mut short = publication.clone();
    short.edits.pop();
    assert!(matches!(offer(&publishing, short, edits.clone()).await, PublishAnswer::Refused(_)));
    // A publication that ends in the middle is a broken peer's: it loses its connection, nobody else does.
    let broken = origin.connect(&client).await;
    let (mut sender, _receiver) = broken.open_bi().await.unwrap();
    sender.send_message(&Opening::Publish(publication)).await.unwrap();
    sender.send_bytes(edits[0].slice(..1)).await.unwrap();
    sender.finish().unwrap();
    tokio::time::timeout(DEADLINE, broken.closed()).await.expect("the broken peer is dropped");
    assert_eq!(origin.durable(), 1);
    assert!(matches!(offer_draft(&publishing, &good).await, PublishAnswer::Accepted(_)));
    assert_eq!(origin.durable(), 2);
}

#[tokio::test]
async fn of_publishers_that_race_exactly_one_wins() {
    let platform = Platform::new();
    let origin = platform.relay("origin", &[]).await;
    let publishers = [Publisher::new(), Publisher::new(), Publisher::new()];
    let mut connections = Vec::new();
    for name in ["one", "two", "three"] {
        connections.push(origin.connect(&platform.client(Role::Publisher, name)).await);
    }
    let child = Following::start(
        &platform.client(Role::Agent, "child"),
        host_replica(),
        &[origin.address],
        Interest::All,
    );
    for number in 1..=12u64 {
        let drafts: Vec<Draft> = (0..publishers.len())
            .map(|at| publishers[at].draft(&[("base", "a", Some(format!("{number} by {at}").as_bytes()))]))
            .collect();
        let race = async {
            tokio::join!(
                offer_draft(&connections[0], &drafts[0]),
                offer_draft(&connections[1], &drafts[1]),
                offer_draft(&connections[2], &drafts[2]),
            )
        };
        let (one, two, three) = race.await;
        let answers = [one, two, three];
        let winners: Vec<_> =
            (0..answers.len()).filter(|at| matches!(answers[*at], PublishAnswer::Accepted(_))).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        for publisher in &publishers {
            adopt(publisher, &drafts[winners[0]]);
        }
        let accepted = publishers[0].replica.held().unwrap().accepted();
        assert_eq!(accepted.number, number);
        for (at, answer) in answers.iter().enumerate() {
            let expected = if at == winners[0] {
                PublishAnswer::Accepted(accepted)
            } else {
                PublishAnswer::Conflict(accepted)
            };
            assert_eq!(*answer, expected);
        }
    }
    child.until("the last winner's release", |child| roots(child) == roots(&publishers[0].replica)).await;
    assert_eq!(child.replica.refused(), 0, "no child has ever seen a loser's release");
}

#[tokio::test]
async fn status_shows_who_holds_what() {
    let platform = Platform::new();
    let origin = platform.relay("origin", &[]).await;
    let relay = platform.relay("relay", &[origin.address]).await;
    let publisher = Publisher::new();
    let publishing = origin.connect(&platform.client(Role::Publisher, "publisher")).await;
    publish(&publishing, &publisher, &[("base", "a", Some(b"1")), ("base", "b", Some(b"2"))]).await;
    let agent = Following::start(
        &platform.client(Role::Agent, "agent"),
        host_replica(),
        &[relay.address],
        Interest::All,
    );
    agent.until("the release", |child| roots(child) == roots(&publisher.replica)).await;
    let condition =
        Condition { release: 1, state: HostState::Active, files: 2, received: 77, ..Condition::none(9) };
    agent.say(condition.clone());
    let status = until(
        "all rows",
        || status(&publishing),
        |status| {
            let at = |row: &RelayRow| row.condition.release == 1 && row.serving.children == 1;
            status.relays.len() == 2 && status.relays.iter().all(at) && status.counts().count() == 1
        },
    )
    .await;
    let shown: Vec<_> = status
        .relays
        .iter()
        .map(|row| (&*row.name, &*row.parent, row.condition.files, row.serving.sent > 0))
        .collect();
    assert_eq!(shown, [("origin", "", 2, true), ("relay", "origin", 2, true)]);
    let count = Count { release: 1, state: HostState::Active, hosts: 1 };
    assert_eq!(status.relays[1].serving.counts, [count], "the agent is counted where it is");
    // The origin asks the relay, which it knows to have such a host.
    let answer = hosts(&publishing, "state=active").await;
    let [row] = answer.hosts.as_slice() else { panic!("{answer:?}") };
    assert_eq!((&*row.name, &row.condition), ("agent", &condition), "its name is that of its certificate");
    assert_eq!(row.relays, ["origin", "relay"]);
    assert!(row.expires > 0);
    assert_eq!(hosts(&publishing, "release!=1").await, HostsAnswer::default());

    agent.stop().await;
    let offline = || hosts(&publishing, "state=offline");
    until("the agent offline", offline, |answer| answer.hosts.len() == 1).await;
}

#[tokio::test]
async fn threat_20_a_child_that_does_not_read_holds_nobody_up() {
    let platform = Platform::new();
    let origin = platform.relay("origin", &[]).await;
    let publisher = Publisher::new();
    let publishing = origin.connect(&platform.client(Role::Publisher, "publisher")).await;
    let idle = platform.client(Role::Relay, "idle");
    let unread = origin.connect(&idle).await;
    let _control = subscribe(&unread).await;
    let child = Following::start(
        &platform.client(Role::Agent, "child"),
        host_replica(),
        &[origin.address],
        Interest::All,
    );
    let mut random = Numbers::new(3);
    // More than the windows of a connection hold, and it does not compress.
    let large: Vec<u8> = (0..6_000_000 / 4).flat_map(|_| (random.next() as u32).to_le_bytes()).collect();
    let begun = std::time::Instant::now();
    for at in 0..10u8 {
        let content = if at == 0 { &large } else { &large[..usize::from(at)] };
        publish(&publishing, &publisher, &[("base", &format!("f{at}"), Some(content))]).await;
        child.until("the release", |child| roots(child) == roots(&publisher.replica)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "far below the wait for one that does not read");
    assert!(!unread.is_closed(), "it is waited for, aside");
    // It starts to read, and gets what it missed.
    let mut stream = tokio::time::timeout(DEADLINE, unread.accept_uni()).await.expect("its update").unwrap();
    let pushed = rootcast_replica::receive_update(
        "parent".into(),
        &mut stream,
        &mut rootcast_replica::Kept::default(),
    )
    .await
    .unwrap();
    assert!(pushed.is_some());
}

/// A second version of the platform's trust that differs by when it expires.
fn second_version(platform: &Platform, expires: u64) -> Bytes {
    use ed25519_dalek::{Signer, SigningKey};
    use rootcast::cose::{self, DocumentKind};
    let (first, _) = trust_document(platform.authority.hash());
    let (first, _) = rootcast::trust::Trust::unverified(&first).unwrap();
    let id = first.roots.keys[0].id();
    let payload = rootcast::trust::Trust { version: 2, expires, ..first }.encode();
    // The root key of `trust_document`.
    let root = SigningKey::from_bytes(&[1; 32]);
    let signature = root.sign(&cose::to_be_signed(DocumentKind::Trust, PLATFORM, id, &payload));
    cose::assemble(DocumentKind::Trust, id, &payload, &signature.to_bytes()).into()
}

async fn bring(connection: &Connection, document: Bytes) -> TrustApplied {
    let (mut sender, mut receiver) = connection.open_bi().await.unwrap();
    sender.send_message(&Opening::ApplyTrust(document)).await.unwrap();
    sender.finish().unwrap();
    receiver.receive_message(MAX_FRAME).await.unwrap().unwrap()
}

#[tokio::test]
async fn d_43a_au_4_a_version_of_trust_that_has_expired_is_refused_and_all_is_recorded() {
    let platform = Platform::new();
    let origin = platform.relay("origin", &[]).await;
    let publishing = origin.connect(&platform.client(Role::Publisher, "ann")).await;
    let agent = origin.connect(&platform.client(Role::Agent, "web")).await;
    let good = second_version(&platform, 1 << 40);
    assert!(matches!(bring(&agent, good.clone()).await, TrustApplied::Refused(_)));
    let refused = bring(&publishing, second_version(&platform, 2)).await;
    assert!(matches!(&refused, TrustApplied::Refused(reason) if reason.contains("expired")), "{refused:?}");
    assert_eq!(bring(&publishing, good).await, TrustApplied::InForce(2));
    let publisher = Publisher::new();
    let draft = publisher.draft(&[("base", "a", Some(b"1"))]);
    assert!(matches!(offer_draft(&agent, &draft).await, PublishAnswer::Refused(_)));
    assert!(matches!(offer_draft(&publishing, &draft).await, PublishAnswer::Accepted(_)));
    // What was answered is in the record already.
    let mut told = Vec::new();
    let path = platform.directory.path().join("origin/state").join(AUDIT_FILE);
    check(&path, &mut |record| told.push((record.event.clone(), record.who.contains("ann")))).unwrap();
    let told: Vec<_> = told.iter().map(|(event, is_ann)| (event.as_str(), *is_ann)).collect();
    let expected = [
        ("start", false),
        ("trust-refused", false),
        ("trust-refused", true),
        ("trust", true),
        ("publish-refused", false),
        ("publish", true),
    ];
    assert_eq!(told, expected);
}
