//! A platform's identities, and parents that answer children over loopback,
//! well or badly.
#![allow(dead_code, unreachable_pub)]

use crate::support::{Numbers, PLATFORM, channel, named};
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rootcast::limits::{MAX_EDIT, MAX_FRAME};
use rootcast::path::MemberName;
use rootcast::protocol::{Interest, ObjectsAnswer, Opening, Subscribe, UpdateAnswer, UpdateMessage, Welcome};
use rootcast::reader::Reader;
use rootcast::status;
use rootcast::topology::{self, Address, Alternates, Condition, Patience, Place, Route};
use rootcast_replica::{Fallback, Follow, FollowEvent, Outgoing, Replica, ReplicaError, Reporting, follow};
use rootcast_transport::{
    AuthorityCertificate, Code, Connection, Endpoint, Identity, PeerName, RELAY_SERVER_NAME, Receiver, Role,
    Sender, authority_uri, frame_of,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Generous: only a test that fails waits this long.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A certificate authority in memory.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = valid("authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI(authority_uri(PLATFORM).try_into().unwrap())];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    pub fn issue(&self, role: Role, name: &str) -> Identity {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let uri = PeerName::new(PLATFORM, role, name).unwrap().to_uri();
        let mut params = valid(name);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role == Role::Relay {
            params.subject_alt_names.push(SanType::DnsName(RELAY_SERVER_NAME.try_into().unwrap()));
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let issuer = Issuer::from_params(&self.params, &self.key);
        let pem = params.signed_by(&key, &issuer).unwrap().pem() + &key.serialize_pem();
        let path = Path::new("memory");
        let authority = AuthorityCertificate::from_pem(self.pem.as_bytes(), path).unwrap();
        Identity::from_pem(pem.as_bytes(), authority, path).unwrap()
    }
}

fn valid(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2120, 1, 1));
    params
}

/// How a parent behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    Good,
    /// One byte of every object is flipped, and no update is answered.
    BadObjects,
    /// One byte of the first update stream is flipped; `pulls`: of the first pull's answer too.
    Flips {
        seed: u64,
        pulls: bool,
    },
    /// No welcome at all.
    NotFound,
    GarbageWelcome,
    HugeEdit,
    LongEdit,
    ManyLongEdits,
    TruncatedEdit,
    TrailingBytes,
    GarbageFrame,
    UnknownKind,
    HugeFrame,
    Reset,
    ClosesInTheMiddle,
    /// Leaves out of each edit what the child never had.
    NotBegun,
    WrongBundles,
    /// Pushes, and leaves pulls unanswered.
    NoPulls,
}

/// A parent that serves a replica.
pub struct Parent {
    pub replica: Arc<Replica>,
    pub address: SocketAddr,
    endpoint: Endpoint,
    habit: Habit,
    served: JoinHandle<()>,
    counts: Arc<Counts>,
}

#[derive(Default)]
pub struct Counts {
    /// Objects that children asked for.
    pub objects: AtomicU64,
    /// Bytes of the update that was sent last.
    pub sent: AtomicU64,
    /// Update streams begun.
    pub pushes: watch::Sender<u64>,
    /// Pulls asked for.
    asked: watch::Sender<u64>,
    pulls: AtomicU64,
}

impl Drop for Parent {
    fn drop(&mut self) {
        self.served.abort();
        self.endpoint.close(Code::LEAVING, "the test is over");
    }
}

impl Parent {
    pub fn start(authority: &Authority, replica: Arc<Replica>, habit: Habit) -> Self {
        let identity = authority.issue(Role::Relay, "parent");
        Self::start_as(&identity, replica, habit)
    }

    pub fn start_as(identity: &Identity, replica: Arc<Replica>, habit: Habit) -> Self {
        let endpoint = Endpoint::listen(identity, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let counts = Arc::new(Counts::default());
        let (accepting, serving, counting) = (endpoint.clone(), replica.clone(), counts.clone());
        let served = tokio::spawn(async move {
            let mut children = tokio::task::JoinSet::new();
            while let Some(handshake) = accepting.accept().await {
                let child = Child { replica: serving.clone(), habit, counts: counting.clone() };
                children.spawn(async move {
                    if let Ok(connection) = handshake.finish().await {
                        child.serve(connection).await;
                    }
                });
            }
        });
        Self { address: endpoint.local_addr().unwrap(), replica, endpoint, habit, served, counts }
    }

    /// Bytes of the update that was sent last.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::SeqCst)
    }

    pub fn objects_asked(&self) -> u64 {
        self.counts.objects.load(Ordering::SeqCst)
    }

    /// Waits until a child has asked for an update.
    pub async fn pulled(&self) {
        let mut asked = self.counts.asked.subscribe();
        tokio::time::timeout(DEADLINE, asked.wait_for(|asked| *asked > 0)).await.expect("a pull").unwrap();
    }

    /// Waits until this many update streams were begun.
    pub async fn pushed(&self, count: u64) {
        let mut pushes = self.counts.pushes.subscribe();
        let wait = pushes.wait_for(|pushes| *pushes >= count);
        tokio::time::timeout(DEADLINE, wait).await.expect("a push").unwrap();
    }
}

#[derive(Clone)]
struct Child {
    replica: Arc<Replica>,
    habit: Habit,
    counts: Arc<Counts>,
}

impl Child {
    async fn serve(self, connection: Connection) {
        let mut streams = tokio::task::JoinSet::new();
        while let Ok((sender, receiver)) = connection.accept_bi().await {
            let (child, connection) = (self.clone(), connection.clone());
            streams.spawn(async move { child.stream(&connection, sender, receiver).await });
        }
    }

    async fn stream(
        &self,
        connection: &Connection,
        mut sender: Sender,
        mut receiver: Receiver,
    ) -> Result<(), ReplicaError> {
        match receiver.receive_message::<Opening>(MAX_FRAME).await? {
            Some(Opening::Subscribe(subscribe)) => {
                self.subscription(connection, subscribe, sender, receiver).await
            }
            Some(Opening::Update(request)) => {
                self.counts.asked.send_modify(|asked| *asked += 1);
                if self.habit == Habit::NoPulls {
                    return std::future::pending().await;
                }
                let outgoing =
                    self.replica.outgoing(&Reader::Relay, &request.interest, &request.standing).await?;
                match outgoing.filter(|_| !matches!(self.habit, Habit::BadObjects)) {
                    Some(outgoing) => self.answer(&outgoing, &mut sender).await,
                    None => {
                        sender.send_message(&UpdateAnswer::Nothing).await?;
                        Ok(sender.finish()?)
                    }
                }
            }
            Some(Opening::Objects(request)) => {
                self.counts.objects.fetch_add(request.objects.len() as u64, Ordering::SeqCst);
                if self.habit != Habit::BadObjects {
                    return self.replica.answer_objects(&Reader::Relay, request, &mut sender).await.map(drop);
                }
                let objects: Vec<Bytes> =
                    request.objects.iter().filter_map(|id| self.replica.store().read(id).ok()).collect();
                let sizes = objects.iter().map(|bytes| Some(bytes.len() as u64)).collect();
                sender.send_message(&ObjectsAnswer(sizes)).await?;
                for object in objects {
                    let at = object.len() / 2;
                    sender.send_bytes(flipped(object, at)).await?;
                }
                Ok(sender.finish()?)
            }
            Some(Opening::Trust(version)) => {
                sender.send_message(&self.replica.trust().answer(version)).await?;
                Ok(sender.finish()?)
            }
            _ => Ok(()),
        }
    }

    async fn answer(&self, outgoing: &Outgoing, sender: &mut Sender) -> Result<(), ReplicaError> {
        let first = self.counts.pulls.fetch_add(1, Ordering::SeqCst) == 0;
        if let (Habit::Flips { seed, pulls: true }, true) = (self.habit, first) {
            let bytes = joined(frame_of(&UpdateAnswer::Update(outgoing.head.clone()))?, &outgoing.edits);
            let at = Numbers::new(seed + 1000).below(bytes.len());
            sender.send_bytes(flipped(bytes, at)).await?;
            return Ok(sender.finish()?);
        }
        outgoing.answer(sender).await.map(drop)
    }

    async fn subscription(
        &self,
        connection: &Connection,
        subscribe: Subscribe,
        mut sender: Sender,
        mut receiver: Receiver,
    ) -> Result<(), ReplicaError> {
        match self.habit {
            Habit::NotFound => return Ok(sender.finish()?),
            Habit::GarbageWelcome => sender.send_frame(b"\x83garbage").await?,
            _ => {
                let latest = self.replica.held().map(|held| held.accepted());
                let condition = Condition {
                    latest,
                    route: Route::origin(MemberName::new("origin").unwrap()),
                    behind: false,
                };
                let alternates = Alternates::default();
                sender.send_message(&Welcome { condition, time: 1, alternates, trust: 1 }).await?;
            }
        }
        let reports = async {
            while receiver.receive_frame(MAX_FRAME).await?.is_some() {}
            Ok::<(), ReplicaError>(())
        };
        tokio::select! {
            outcome = reports => outcome,
            outcome = self.push(connection, subscribe) => outcome,
        }
    }

    async fn push(&self, connection: &Connection, subscribe: Subscribe) -> Result<(), ReplicaError> {
        let Subscribe { mut interest, mut standing, subscription, mut begun, .. } = subscribe;
        if self.habit == Habit::WrongBundles {
            interest = named(&["base", "plan", "role/web"]);
        }
        let (mut held, mut offered) = (self.replica.watch_held(), self.replica.watch_offered());
        loop {
            held.mark_unchanged();
            offered.mark_unchanged();
            if let Some(outgoing) = self.replica.outgoing(&Reader::Relay, &interest, &standing).await? {
                let mut stream = connection.open_uni().await?;
                let count = *self.counts.pushes.borrow() + 1;
                if matches!(
                    self.habit,
                    Habit::Good | Habit::BadObjects | Habit::WrongBundles | Habit::NoPulls
                ) || (matches!(self.habit, Habit::Flips { .. }) && count > 1)
                {
                    let begun = core::mem::take(&mut begun);
                    let sent = outgoing.push_rest(&self.replica, subscription, begun, &mut stream).await?;
                    self.counts.sent.store(sent, Ordering::SeqCst);
                } else {
                    self.spoil(connection, &outgoing, subscription, &mut stream).await?;
                }
                self.counts.pushes.send_replace(count);
                standing = outgoing.standing.clone();
                continue;
            }
            tokio::select! {
                _ = held.changed() => {}
                _ = offered.changed() => {}
            }
        }
    }

    /// Sends an update as badly as the habit says.
    async fn spoil(
        &self,
        connection: &Connection,
        good: &Outgoing,
        subscription: u64,
        stream: &mut Sender,
    ) -> Result<(), ReplicaError> {
        let mut head = good.head.clone();
        head.subscription = subscription;
        let mut edits = good.edits.clone();
        let announce = |head: &mut rootcast::protocol::UpdateHead, length| {
            for edit in head.listed.iter_mut().filter_map(|listed| listed.edit.as_mut()) {
                edit.length = length;
            }
        };
        match self.habit {
            Habit::HugeEdit => announce(&mut head, u64::MAX),
            Habit::LongEdit => announce(&mut head, MAX_EDIT + 1),
            Habit::ManyLongEdits => announce(&mut head, MAX_EDIT),
            Habit::TruncatedEdit => {
                edits = edits.into_iter().map(|edit| edit.slice(..edit.len() / 2)).collect()
            }
            Habit::TrailingBytes => edits.push(Bytes::from_static(&[0])),
            _ => {}
        }
        let message = match (&good.compact, self.habit) {
            (Some(compact), Habit::Flips { .. }) => {
                UpdateMessage::Compact(rootcast::compact::CompactHead { subscription, ..compact.clone() })
            }
            (_, Habit::NotBegun) => UpdateMessage::Resumed(head, vec![Some(0); edits.len()]),
            _ => UpdateMessage::Whole(head),
        };
        let whole = joined(frame_of(&message)?, &edits);
        match self.habit {
            Habit::GarbageFrame => stream.send_frame(&Numbers::new(1).text(500)).await?,
            Habit::UnknownKind => stream.send_message(&(3u8, 1u8)).await?,
            // Four GiB, in the length's own encoding.
            Habit::HugeFrame => stream.send_bytes(Bytes::from_static(&[0xc0, 0, 0, 1, 0, 0, 0, 0])).await?,
            Habit::Reset => {
                stream.send_bytes(whole.slice(..whole.len() / 2)).await?;
                stream.reset(Code::FAULT);
                return Ok(());
            }
            Habit::ClosesInTheMiddle => {
                stream.send_bytes(whole.slice(..whole.len() / 2)).await?;
                connection.close(Code::LEAVING, "in the middle");
                return Ok(());
            }
            Habit::Flips { seed, .. } => {
                let at = Numbers::new(seed).below(whole.len());
                stream.send_bytes(flipped(whole, at)).await?;
            }
            _ => stream.send_bytes(whole).await?,
        }
        Ok(stream.finish()?)
    }
}

fn joined(head: Bytes, edits: &[Bytes]) -> Bytes {
    core::iter::once(head).chain(edits.iter().cloned()).collect::<Vec<_>>().concat().into()
}

fn flipped(bytes: Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << (at % 8);
    }
    bytes.into()
}

/// A replica that follows parents for as long as this is alive.
pub struct Following {
    pub replica: Arc<Replica>,
    pub events: mpsc::UnboundedReceiver<FollowEvent>,
    pub interest: watch::Sender<Interest>,
    pub report: watch::Sender<status::Condition>,
    pub ways: watch::Sender<Vec<Address>>,
    changed: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Following {
    /// Says this of itself.
    pub fn say(&self, condition: status::Condition) {
        self.report.send_replace(condition);
        self.changed.send_replace(());
    }

    pub fn start(
        endpoint: &Endpoint,
        replica: Arc<Replica>,
        parents: &[SocketAddr],
        interest: Interest,
    ) -> Self {
        let (child, patience) = (Self::child(), Patience::STANDARD);
        Self::start_whole(endpoint, None, child, patience, replica, parents, interest)
    }

    fn child() -> topology::Child {
        let name = MemberName::new("child").unwrap();
        topology::Child { name, place: Place::default(), is_relay: false }
    }

    /// As [`Following::start`], with something to fall back to.
    pub fn start_with(
        endpoint: &Endpoint,
        fallback: Option<Fallback>,
        replica: Arc<Replica>,
        parents: &[SocketAddr],
        interest: Interest,
    ) -> Self {
        let (child, patience) = (Self::child(), Patience::STANDARD);
        Self::start_whole(endpoint, fallback, child, patience, replica, parents, interest)
    }

    /// As [`Following::start`], as this child with this patience.
    pub fn start_as(
        endpoint: &Endpoint,
        child: topology::Child,
        patience: Patience,
        replica: Arc<Replica>,
        parents: &[SocketAddr],
        interest: Interest,
    ) -> Self {
        Self::start_whole(endpoint, None, child, patience, replica, parents, interest)
    }

    fn start_whole(
        endpoint: &Endpoint,
        fallback: Option<Fallback>,
        child: topology::Child,
        patience: Patience,
        replica: Arc<Replica>,
        parents: &[SocketAddr],
        interest: Interest,
    ) -> Self {
        assert_eq!(*replica.channel(), channel());
        let (told, events) = mpsc::unbounded_channel();
        let (interest, report) =
            (watch::Sender::new(interest), watch::Sender::new(status::Condition::none(1)));
        let ways = watch::Sender::default();
        let (changed, said) = (watch::Sender::new(()), report.subscribe());
        let task = tokio::spawn(follow(Follow {
            endpoint: endpoint.clone(),
            fallback,
            child,
            parents: parents.iter().map(|address| Address::new(address.to_string()).unwrap()).collect(),
            patience,
            serves: None,
            upstream: None,
            ways: ways.clone(),
            replica: replica.clone(),
            interest: interest.subscribe(),
            report: Reporting {
                changed: changed.subscribe(),
                say: Arc::new(move || (said.borrow().clone(), None)),
                gap: Duration::ZERO,
            },
            questions: None,
            events: Arc::new(move |event| {
                let _ = told.send(event);
            }),
        }));
        Self { replica, events, interest, report, ways, changed, task }
    }

    /// Waits until what is held is as wanted; looks again after each change.
    pub async fn until(&self, what: &str, mut wanted: impl FnMut(&Replica) -> bool) {
        let mut held = self.replica.watch_held();
        let wait = async {
            loop {
                held.mark_unchanged();
                if wanted(&self.replica) {
                    return;
                }
                held.changed().await.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("waiting for {what}"));
    }

    pub async fn event(&mut self, what: &str, mut wanted: impl FnMut(&FollowEvent) -> bool) -> FollowEvent {
        let wait = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if wanted(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("waiting for {what}"))
    }

    /// Waits until a good head is held.
    pub async fn head_is_fresh(&self) {
        let mut head = self.replica.watch_head();
        let wait = async {
            while !matches!(self.replica.freshness(), rootcast::head::Freshness::Fresh { .. }) {
                head.changed().await.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("a good head");
    }

    /// Stops, and waits until nothing of it runs any more.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}
