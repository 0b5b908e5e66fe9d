//! The daemon: opens the stores, follows the parents, serves the children.

use crate::audit::{Audit, Event, ORIGIN};
use crate::child;
use crate::children;
use crate::config::{HttpCache, HttpsAddress};
use crate::denied::DeniedSet;
use crate::following::{self, Upward};
use crate::heads::HeadSigner;
use crate::http;
use crate::joins::{self, Answers, Parents};
use crate::membership::Membership;
use crate::neighbours::Neighbours;
use crate::operations::{Peers, Watched};
use crate::status::{Channel, Statuses};
use crate::wanted::Wanted;
use crate::{RelayConfig, RelayError};
use bytes::Bytes;
use rootcast::denials::{Denials, VerifiedDenials};
use rootcast::head::Freshness;
use rootcast::join::JoinAnswer;
use rootcast::limits::{
    DENIED_LOOK, MAX_CHILDREN, MAX_DOCUMENT, MAX_JOINS, MAX_JOINS_FORWARDED, MAX_JOINS_JUDGED, MAX_QUESTIONS,
    SHUTDOWN_WAIT,
};
use rootcast::path::ChannelName;
use rootcast::status::{Condition, HostState, reason};
use rootcast::topology::Address;
use rootcast_replica::durable::{self, PUBLIC};
use rootcast_replica::joining::JoinFailure;
use rootcast_replica::operations::{Listener, Vitals, operate, reread_identity};
use rootcast_replica::renewal::{is_past_half, keep_renewed, renew};
use rootcast_replica::{
    FollowEvent, Machine, Member, Replica, System, Tending, Trusted, child_of, known_addresses,
};
use rootcast_transport::https::HttpsListener;
use rootcast_transport::{
    Arrival, Code, Connection, Endpoint, Handshake, Identity, PeerName, TransportError,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;

/// The file of a relay's state that says who is denied.
const DENIALS_FILE: &str = "denials.cose";

/// Puts a renewed certificate to use.
pub(crate) type Adopt = Arc<dyn Fn(&Identity) -> Result<(), TransportError> + Send + Sync>;

/// What happens in a relay, for whoever runs it.
#[derive(Debug, Clone)]
pub enum RelayEvent {
    /// It serves.
    Ready {
        /// Its name.
        name: String,
        /// Where.
        address: SocketAddr,
        /// Where over HTTPS; nowhere, if that is off or the port is taken.
        https: Option<SocketAddr>,
        /// Where operators are served, if they are.
        operations: Option<SocketAddr>,
    },
    /// It took a publication (origin).
    Published {
        /// The channel.
        channel: ChannelName,
        /// The release.
        number: u64,
        /// Who published.
        publisher: String,
    },
    /// A version of the trust document is in force (origin).
    Trust {
        /// Its number.
        version: u64,
        /// Who brought it.
        by: String,
    },
    /// Something about following a parent.
    Follow {
        /// The channel.
        channel: ChannelName,
        /// What.
        event: FollowEvent,
    },
}

/// What all tasks of a relay share.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) is_origin: bool,
    pub(crate) replicas: BTreeMap<ChannelName, Arc<Replica>>,
    /// The relays around us, by channel.
    pub(crate) neighbours: BTreeMap<ChannelName, Arc<Neighbours>>,
    pub(crate) statuses: Statuses,
    /// Who is connected, and what peers did wrong.
    pub(crate) peers: Peers,
    /// Questions about hosts that may still be worked on.
    pub(crate) questions: Semaphore,
    /// Of those, what hosts may take.
    pub(crate) host_questions: Semaphore,
    /// Why the newest update of a channel was refused, while that stands.
    refusals: std::sync::Mutex<BTreeMap<ChannelName, String>>,
    pub(crate) publishing: Mutex<()>,
    /// Who answers requests to join and to renew.
    pub(crate) answers: Answers,
    /// Connections of joiners that may still come.
    pub(crate) joiners: Semaphore,
    /// The certificate authority's certificate, DER.
    pub(crate) authority: Bytes,
    pub(crate) trust: Arc<Trusted>,
    /// Who is denied.
    pub(crate) denied: DeniedSet,
    /// Where a relay keeps that for its next start.
    denials_path: PathBuf,
    /// Who may keep what is served over HTTPS.
    pub(crate) http_cache: HttpCache,
    /// Requests for what a peer may not have.
    pub(crate) refused: AtomicU64,
    /// The document that says so, for relays below.
    pub(crate) denials: watch::Sender<Option<Bytes>>,
    /// The origin's record of what it was asked and did; no other relay has one.
    pub(crate) audit: Option<Arc<Audit>>,
    /// What this relay wants of each channel; the origin has all.
    pub(crate) wanted: BTreeMap<ChannelName, Arc<Wanted>>,
    pub(crate) events: Arc<dyn Fn(RelayEvent) + Send + Sync>,
}

impl Shared {
    pub(crate) fn replica(&self, channel: &ChannelName) -> Option<&Arc<Replica>> {
        self.replicas.get(channel)
    }

    /// Brings what is known of this relay itself up to date.
    pub(crate) fn tell_own(&self) {
        for (replica, channel) in self.replicas.values().zip(self.statuses.all()) {
            self.tell_of(replica, channel);
        }
    }

    pub(crate) fn tell_of(&self, replica: &Replica, channel: &Channel) {
        let head = replica.head().map(|head| head.head().release.rank());
        let held = replica.held().map(|held| held.accepted().rank());
        channel.set_own(own_condition(self, replica), head > held);
    }

    /// Notes that an update is refused, and why, or that one was taken.
    pub(crate) fn note_refusal(&self, channel: &ChannelName, refusal: Option<&str>) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        match refusal {
            Some(text) => refusals.insert(channel.clone(), reason(text)),
            None => refusals.remove(channel),
        };
    }

    /// Counts what a peer asked for and may not have. It is told what it would be told if there were no such thing.
    pub(crate) fn refuse(&self, connection: &Connection, what: &str) {
        self.refuse_peer(connection.peer(), what);
    }

    /// As [`Shared::refuse`], for one that is known by other means than a connection.
    pub(crate) fn refuse_peer(&self, peer: &PeerName, what: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%peer, what, "asked for what it may not read, or what is not there");
    }

    /// Takes what a parent passes on of who is denied, if the online key signed it.
    pub(crate) fn take_denials(&self, document: &Bytes) {
        let held = self.denials.borrow().clone();
        let sequence = held.and_then(|held| Denials::sequence_of(&held)).unwrap_or(0);
        let newest = self.trust.newest();
        match VerifiedDenials::verify(document, newest.trust(), sequence) {
            Ok(denials) => {
                if let Err(error) = durable::replace(&self.denials_path, document, PUBLIC) {
                    tracing::warn!(path = %self.denials_path.display(), %error, "who is denied could not be kept for the next start");
                }
                self.denied.take(&denials);
                self.denials.send_replace(Some(document.clone()));
            }
            Err(error) => tracing::error!(%error, "ALARM: a list of denied members is refused"),
        }
    }
}

/// Runs a relay until `shutdown` completes.
///
/// # Errors
/// When it cannot start; later trouble is handled and logged.
pub async fn run(
    config: RelayConfig,
    events: Arc<dyn Fn(RelayEvent) + Send + Sync>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RelayError> {
    run_on(Arc::new(System), config, events, shutdown).await
}

/// As [`run`], on another machine than this process's.
///
/// # Errors
/// As [`run`].
pub async fn run_on(
    machine: Arc<dyn Machine>,
    config: RelayConfig,
    events: Arc<dyn Fn(RelayEvent) + Send + Sync>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RelayError> {
    let settings = watch::Sender::new(config);
    run_reloading(machine, settings.subscribe(), events, shutdown).await
}

/// As [`run_on`], with settings that may change meanwhile: parents, and where operators are served.
pub(crate) async fn run_reloading(
    machine: Arc<dyn Machine>,
    settings: watch::Receiver<RelayConfig>,
    events: Arc<dyn Fn(RelayEvent) + Send + Sync>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RelayError> {
    let config = settings.borrow().clone();
    let (member, membership) = open_member(&machine, &config).await?;
    let replicas = open_replicas(&*machine, &config, &member)?;
    let audit = if config.parents.is_empty() { Some(Arc::new(audit(&config, &member)?)) } else { None };
    let endpoint = machine.listen(&member.identity, config.listen)?;
    let https = listen_https(&*machine, &config, &member.identity, endpoint.local_addr()?)?;
    let operators = open_for_operators(&config).await?;
    let operations = operators.as_ref().and_then(|listener| listener.address().ok());
    let vitals = Arc::new(Vitals::new(replicas.clone(), config.identity.clone(), !config.parents.is_empty()));
    let ways = watch::Sender::new(known_addresses(&config.parents));
    let answers = answers(&config, &endpoint, membership.clone(), ways.subscribe());
    let shared = Arc::new(share(&machine, &config, &member, replicas, answers, audit, events));
    if let (false, Ok(document)) = (shared.is_origin, read_document(&shared.denials_path)) {
        shared.take_denials(&document.into());
    }
    let children_path = config.state.join(children::FILE);
    children::load(&shared, &children_path);
    let watched = Watched { shared: shared.clone(), vitals: vitals.clone(), endpoint: endpoint.clone() };
    let mut tasks = JoinSet::new();
    tasks.spawn(crate::tickets::resume(machine.clone(), &config.state, &endpoint, &member.identity)?);
    tasks.spawn(operate(operators, settings.clone(), |config| config.operations, Arc::new(watched)));
    let own = member.identity.name().clone();
    let adopt = adopting(&endpoint, &https);
    tasks.spawn(reread_identity(settings.clone(), config.identity.clone(), own, move |new| adopt(new)));
    tasks.spawn(own_status(shared.clone()));
    tasks.spawn(children::keep(shared.clone(), children_path.clone()));
    for replica in shared.replicas.values() {
        tasks.spawn(replica.clone().tend(Tending::Serves));
    }
    if let Some(membership) = membership {
        let adopt = adopting(&endpoint, &https);
        keep_members(&mut tasks, &shared, membership, (machine.clone(), adopt, &config)).await?;
    }
    if shared.is_origin {
        if let Some(signer) = HeadSigner::load(&config)?.map(Arc::new) {
            for replica in shared.replicas.values() {
                tasks.spawn(signer.clone().sign_all(replica.clone(), shared.audit.clone()));
            }
        }
    } else {
        let (child, serves) = (child_of(member.identity.name()), config.serves(endpoint.local_addr()?));
        let adopt = adopting(&endpoint, &https);
        let upward = Upward { machine, endpoint: endpoint.clone(), adopt, settings, child, serves, ways };
        following::keep_up(&mut tasks, &shared, &vitals, &upward);
    }
    let (name, address) = (shared.name.clone(), endpoint.local_addr()?);
    let over_https = https.as_ref().and_then(|listener| listener.local_addr().ok());
    if let Some(listener) = https {
        tasks.spawn(http::accept(shared.clone(), listener));
    }
    tracing::info!(%name, %address, https = ?over_https, origin = shared.is_origin, "serving");
    (shared.events)(RelayEvent::Ready { name, address, https: over_https, operations });
    tokio::select! {
        biased;
        () = shutdown => {}
        () = accept(&shared, &endpoint) => {}
    }
    tracing::info!("stopping");
    // As they are while their connections live.
    children::save(&shared, &children_path, true);
    endpoint.close(Code::LEAVING, "the relay is stopping");
    tasks.shutdown().await;
    if tokio::time::timeout(SHUTDOWN_WAIT, endpoint.wait_idle()).await.is_err() {
        tracing::debug!("some children did not hear of it");
    }
    Ok(())
}

/// What all tasks share, at the start.
fn share(
    machine: &Arc<dyn Machine>,
    config: &RelayConfig,
    member: &Member,
    replicas: BTreeMap<ChannelName, Arc<Replica>>,
    answers: Answers,
    audit: Option<Arc<Audit>>,
    events: Arc<dyn Fn(RelayEvent) + Send + Sync>,
) -> Shared {
    let name = member.identity.name();
    Shared {
        name: name.name().to_owned(),
        is_origin: config.parents.is_empty(),
        trust: member.trust.clone(),
        neighbours: neighbours(member, config, &replicas),
        statuses: Statuses::new(machine, name.name(), replicas.keys().cloned()),
        wanted: if config.parents.is_empty() { BTreeMap::new() } else { wanted(config, &replicas) },
        replicas,
        peers: Peers::default(),
        questions: Semaphore::new(MAX_QUESTIONS),
        host_questions: Semaphore::new(1),
        refusals: std::sync::Mutex::default(),
        publishing: Mutex::new(()),
        answers,
        joiners: Semaphore::new(MAX_JOINS),
        authority: Bytes::copy_from_slice(member.identity.authority().der()),
        denied: DeniedSet::default(),
        denials_path: config.state.join(DENIALS_FILE),
        http_cache: config.http_cache,
        refused: AtomicU64::new(0),
        denials: watch::Sender::new(None),
        audit,
        events,
    }
}

fn open_replicas(
    machine: &dyn Machine,
    config: &RelayConfig,
    member: &Member,
) -> Result<BTreeMap<ChannelName, Arc<Replica>>, RelayError> {
    let mut replicas = BTreeMap::new();
    for channel in &config.channels {
        let directory = config.state.join("channels").join(channel.as_str().replace('/', "%"));
        let store = machine.store(&directory)?;
        let replica = Replica::open(store, member.trust.clone(), channel.clone(), true, Some(directory))?;
        replicas.insert(channel.clone(), Arc::new(replica));
    }
    Ok(replicas)
}

async fn open_for_operators(config: &RelayConfig) -> Result<Option<Listener>, RelayError> {
    let Some(address) = config.operations else { return Ok(None) };
    let opened = Listener::open(address).await;
    opened.map(Some).map_err(|source| RelayError::Operations { address, source })
}

/// What the origin does for its members: it keeps who is denied in force, and its own certificate good.
async fn keep_members(
    tasks: &mut JoinSet<()>,
    shared: &Arc<Shared>,
    membership: Arc<Membership>,
    (machine, adopt, config): (Arc<dyn Machine>, Adopt, &RelayConfig),
) -> Result<(), RelayError> {
    if let Some(audit) = &shared.audit {
        membership.audit_to(audit.clone());
    }
    look_at_denied(shared, &membership).await?;
    tasks.spawn(enforce(shared.clone(), membership.clone()));
    tasks.spawn(keep_renewed(
        machine,
        config.identity.clone(),
        move |renewed| adopt(renewed),
        move |own, _| {
            let membership = membership.clone();
            async move { renew_itself(&membership, own).await }
        },
    ));
    Ok(())
}

/// Opens the socket for HTTPS. One that nobody asked for by address may be taken; then there is none.
fn listen_https(
    machine: &dyn Machine,
    config: &RelayConfig,
    identity: &Identity,
    quic: SocketAddr,
) -> Result<Option<HttpsListener>, RelayError> {
    match config.https {
        HttpsAddress::Off => Ok(None),
        HttpsAddress::At(address) => Ok(machine.listen_https(identity, address)?),
        HttpsAddress::Beside => match machine.listen_https(identity, quic) {
            Ok(listener) => Ok(listener),
            Err(error) => {
                tracing::warn!(%error, "no HTTPS here; `https` in relay.toml gives it another address, or turns it off");
                Ok(None)
            }
        },
    }
}

/// What uses a renewed certificate from then on.
fn adopting(endpoint: &Endpoint, https: &Option<HttpsListener>) -> Adopt {
    let (endpoint, https) = (endpoint.clone(), https.clone());
    Arc::new(move |renewed| {
        endpoint.adopt(renewed)?;
        https.as_ref().map_or(Ok(()), |https| https.adopt(renewed))
    })
}

/// Loads who we are. An origin whose certificate is past half of its life renews it
/// before it serves: the members whose certificates ended with it can then renew theirs.
async fn open_member(
    machine: &Arc<dyn Machine>,
    config: &RelayConfig,
) -> Result<(Member, Option<Arc<Membership>>), RelayError> {
    let member = Member::load_on(machine.clone(), &config.identity, &config.state)?;
    let Some(keys) = &config.keys else { return Ok((member, None)) };
    let membership = Membership::open(&config.state, keys, &member.identity, member.trust.clone())?;
    let membership = Arc::new(membership);
    if !is_past_half(&member.identity, machine.now()) {
        return Ok((member, Some(membership)));
    }
    renew(&config.identity, machine.now(), |own, _| renew_itself(&membership, own)).await?;
    Ok((Member::load_on(machine.clone(), &config.identity, &config.state)?, Some(membership)))
}

async fn renew_itself(membership: &Membership, own: Identity) -> Result<JoinAnswer, JoinFailure> {
    membership.answer_itself(&own, membership.machine().now()).map_err(|error| {
        tracing::error!(%error, "the origin could not certify itself");
        JoinFailure::Unavailable { tried: "this origin itself".into() }
    })
}

fn neighbours(
    member: &Member,
    config: &RelayConfig,
    replicas: &BTreeMap<ChannelName, Arc<Replica>>,
) -> BTreeMap<ChannelName, Arc<Neighbours>> {
    let own = member.identity.name().member();
    let of = || Arc::new(Neighbours::new(own.clone(), config.parents.is_empty()));
    replicas.keys().map(|channel| (channel.clone(), of())).collect()
}

fn answers(
    config: &RelayConfig,
    endpoint: &Endpoint,
    membership: Option<Arc<Membership>>,
    ways: watch::Receiver<Vec<Address>>,
) -> Answers {
    match membership {
        Some(membership) => Answers::Here { membership, room: Semaphore::new(MAX_JOINS_JUDGED) },
        None if config.parents.is_empty() => Answers::Nobody,
        None => Answers::Parents(Box::new(Parents {
            endpoint: endpoint.clone(),
            ways,
            room: Semaphore::new(MAX_JOINS_FORWARDED),
        })),
    }
}

/// Looks again and again at what the operator's commands have denied and allowed (J-40).
async fn enforce(shared: Arc<Shared>, membership: Arc<Membership>) {
    loop {
        tokio::time::sleep(DENIED_LOOK).await;
        if let Err(error) = look_at_denied(&shared, &membership).await {
            tracing::error!(%error, "what is denied could not be read; what was denied stays so");
        }
    }
}

async fn look_at_denied(shared: &Shared, membership: &Arc<Membership>) -> Result<(), RelayError> {
    let (machine, membership) = (membership.machine(), membership.clone());
    let now = machine.now();
    let (denied, document) = machine.blocking(move || membership.denials(now)).await??;
    shared.denied.replace(denied);
    shared.denials.send_if_modified(|held| {
        let changes = held.as_ref() != Some(&document);
        *held = Some(document);
        changes
    });
    Ok(())
}

/// The origin's record, with its start in it.
fn audit(config: &RelayConfig, member: &Member) -> Result<Audit, RelayError> {
    let audit = Audit::open(member.trust.machine().clone(), &config.state)?;
    let trust = member.trust.newest();
    audit.record(ORIGIN, &Event::Start(trust.trust().version, trust.hash().to_string()));
    tracing::info!(newest = %audit.newest(), "the audit record; note this hash elsewhere");
    Ok(audit)
}

/// A small signed document of our own state.
fn read_document(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_DOCUMENT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a relay wants of its channels.
fn wanted(
    config: &RelayConfig,
    replicas: &BTreeMap<ChannelName, Arc<Replica>>,
) -> BTreeMap<ChannelName, Arc<Wanted>> {
    let kept = Duration::from_secs(config.keep_seconds);
    let of = |replica: &Arc<Replica>| Arc::new(Wanted::new(replica.clone(), config.keep.clone(), kept));
    replicas.iter().map(|(channel, replica)| (channel.clone(), of(replica))).collect()
}

/// Keeps what is known of this relay itself current.
async fn own_status(shared: Arc<Shared>) {
    let mut changes: Vec<_> = shared.replicas.values().map(|replica| replica.watch_held()).collect();
    let mut heads: Vec<_> = shared.replicas.values().map(|replica| replica.watch_head()).collect();
    loop {
        changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
        heads.iter_mut().for_each(watch::Receiver::mark_unchanged);
        shared.tell_own();
        let mut waits = JoinSet::new();
        for mut change in changes.iter().cloned() {
            waits.spawn(async move { change.changed().await });
        }
        for mut head in heads.iter().cloned() {
            waits.spawn(async move { head.changed().await });
        }
        for lapses in shared.replicas.values().filter_map(|replica| replica.lapses()) {
            waits.spawn(async move {
                tokio::time::sleep(lapses).await;
                Ok(())
            });
        }
        if waits.join_next().await.is_none() {
            return;
        }
    }
}

fn own_condition(shared: &Shared, replica: &Replica) -> Condition {
    let held = replica.held();
    let release = held.as_ref().map(|held| held.bundles.release().release());
    let refusals = shared.refusals.lock().unwrap_or_else(PoisonError::into_inner);
    let refusal = refusals.get(replica.channel()).cloned();
    let state = match (&refusal, replica.freshness()) {
        (Some(_), _) => HostState::Failed,
        (None, Freshness::Fresh { .. }) => HostState::Active,
        (None, Freshness::Stale) => HostState::Stale,
    };
    Condition {
        release: release.map_or(0, |release| release.number),
        state,
        since: 0,
        reason: refusal.unwrap_or_default(),
        files: release.map_or(0, |release| release.files),
        healed: replica.healed(),
        received: replica.received(),
        refused: shared.refused.load(Ordering::Relaxed),
    }
}

/// Accepts children until the endpoint closes. A slow handshake holds nobody up.
async fn accept(shared: &Arc<Shared>, endpoint: &Endpoint) {
    let mut children = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = children.join_next() => {}
            handshake = endpoint.accept() => {
                let Some(handshake) = handshake else { break };
                if children.len() < MAX_CHILDREN {
                    children.spawn(welcome(shared.clone(), handshake));
                }
            }
        }
    }
}

async fn welcome(shared: Arc<Shared>, handshake: Handshake) {
    let remote = handshake.remote();
    // Boxed: a child's task is there for long, and this at its beginning only.
    match Box::pin(handshake.arrive()).await {
        Ok(Arrival::Member(connection)) => child::serve(shared, connection).await,
        Ok(Arrival::Joiner(joiner)) => Box::pin(joins::serve(&shared, joiner)).await,
        Err(error) => {
            if let Some(fault) = error.fault() {
                shared.peers.fault(fault);
            }
            tracing::warn!(%remote, %error, "a handshake failed");
        }
    }
}
