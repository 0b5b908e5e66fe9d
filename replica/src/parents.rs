//! Parents, and looking for better ones: what [`Choice`] decides is done here.

use crate::follow::{Follow, FollowEvent, Upstream};
use crate::session::answered;
use crate::{Replica, ReplicaError, durable};
use rootcast::codec;
use rootcast::limits::{ANSWER_WAIT, DIALS_IN_VAIN, MAX_NEWS, RELAY_SILENCE_WAIT, SILENCE_WAIT};
use rootcast::path::ChannelName;
use rootcast::protocol::{Opening, Welcome};
use rootcast::topology::{
    Address, Alternate, Alternates, Child, Choice, Condition, Errand, Hold, KeptParents, Next, Place, Seen,
    Verdict, Worth,
};
use rootcast_transport::{CloseReason, Connection, Endpoint, PeerName, Role, TransportError};
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The file beside a channel's store that holds the newest list of alternates.
const ALTERNATES_FILE: &str = "alternates";
/// Gap between two looks at whether a parent has sent anything.
const SILENCE_LOOK: Duration = Duration::from_secs(1);

/// What a member is to those that choose its parent.
pub fn child_of(name: &PeerName) -> Child {
    Child {
        name: name.member().clone(),
        place: Place::of(name.labels()),
        is_relay: name.role() == Role::Relay,
    }
}

/// Configured addresses, without those that are none.
pub fn known_addresses(configured: &[String]) -> Vec<Address> {
    let read = |text: &String| {
        Address::new(text.clone()).inspect_err(|error| tracing::warn!(%error, "left out of the parents")).ok()
    };
    configured.iter().filter_map(read).collect()
}

/// A connection to a relay that may become the parent.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) address: Address,
    pub(crate) connection: Connection,
}

/// A look at another relay, under way. Dropping it ends it.
struct Scout {
    address: Address,
    hold: Hold,
    task: JoinHandle<Option<(Connection, Condition)>>,
    /// Its connection, once the relay has said that it stands well.
    ready: Arc<Mutex<Option<Connection>>>,
}

impl Drop for Scout {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The parents of one child in one channel.
pub(crate) struct Parents {
    choice: Choice,
    begun: Instant,
    endpoint: Endpoint,
    replica: Arc<Replica>,
    child: Child,
    kept: Option<PathBuf>,
    /// What is in that file, as far as we wrote it.
    written: Vec<u8>,
    configured: Vec<Address>,
    alternates: Alternates,
    /// The parent.
    parent: Option<Alternate>,
    /// How the parent said that it stands.
    condition: Option<Condition>,
    upstream: Option<watch::Sender<Upstream>>,
    ways: watch::Sender<Vec<Address>>,
    scout: Option<Scout>,
    /// When QUIC last reached anybody.
    reached: Instant,
    /// Datagrams of the parent when they last became more, and when that was.
    heard: (u64, Instant),
    /// When it is next looked at.
    listen_at: Instant,
}

impl Parents {
    /// Begins with what is configured, and with what an earlier process was told.
    pub(crate) async fn open(follow: &Follow) -> Self {
        let child = follow.child.clone();
        let kept = follow.replica.directory.as_ref().map(|directory| directory.join(ALTERNATES_FILE));
        // Few relays have many children each: those keep a connection to the next one.
        let choice = Choice::new(child.clone(), &follow.parents, child.is_relay, follow.patience);
        let mut parents = Self {
            choice,
            begun: Instant::now(),
            endpoint: follow.endpoint.clone(),
            replica: follow.replica.clone(),
            child,
            kept,
            written: Vec::new(),
            configured: follow.parents.clone(),
            alternates: Alternates::default(),
            parent: None,
            condition: None,
            upstream: follow.upstream.clone(),
            ways: follow.ways.clone(),
            scout: None,
            reached: Instant::now(),
            heard: (0, Instant::now()),
            listen_at: Instant::now(),
        };
        if let Some(path) = parents.kept.clone() {
            match parents.replica.machine().blocking(move || read_kept(&path)).await {
                Ok(Some(KeptParents { parent, alternates })) => {
                    parents.choice.learn(&alternates);
                    parent.iter().for_each(|parent| parents.choice.remember(parent));
                    parents.alternates = alternates;
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "no alternates were read"),
            }
        }
        parents
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The rank of the newest release that we know of.
    fn newest(&self) -> Option<(u64, u64)> {
        let head = self.replica.head().map(|head| head.head().release.rank());
        head.max(self.replica.held().map(|held| held.accepted().rank()))
    }

    /// A connection to the next parent to try: one that is there already, or else by dialling.
    ///
    /// # Errors
    /// Where it is time for something else than to dial: how long to wait before more are dialled.
    pub(crate) async fn dial(
        &mut self,
        events: &(dyn Fn(FollowEvent) + Send + Sync),
    ) -> Result<Arrived, Duration> {
        if let Some(arrived) = self.scout.take().and_then(|scout| scout.arrived()) {
            return Ok(arrived);
        }
        for _ in 0..DIALS_IN_VAIN {
            let address = match self.choice.next_step() {
                Next::Dial(address) => address,
                Next::Wait(wait) => return Err(wait),
            };
            match self.endpoint.connect(address.as_str()).await {
                Ok(connection) => return Ok(Arrived { address, connection }),
                Err(error) => {
                    // A relay that is busy, say, is no reason to look for another way to it.
                    if error.is_answer() {
                        self.reached = Instant::now();
                    }
                    self.choice.lost(self.now(), &address, false);
                    events(FollowEvent::Lost { address: address.to_string(), reason: error.to_string() });
                }
            }
        }
        Err(Duration::ZERO)
    }

    /// QUIC reaches somebody again.
    pub(crate) fn returned(&mut self) {
        self.reached = Instant::now();
        self.choice.restart();
    }

    /// When QUIC last reached anybody.
    pub(crate) const fn reached(&self) -> Instant {
        self.reached
    }

    /// All that are known, the best first.
    pub(crate) fn known(&self) -> Vec<Address> {
        self.choice.known().cloned().collect()
    }

    /// Takes a parent's welcome; whether it is followed.
    pub(crate) async fn welcomed(
        &mut self,
        arrived: &Arrived,
        welcome: Welcome,
    ) -> Result<bool, ReplicaError> {
        let Welcome { condition, alternates, .. } = welcome;
        self.heard = (0, Instant::now());
        let (now, newest) = (self.now(), self.newest());
        let seen = seen(&arrived.connection);
        match condition.worth(&self.child, newest) {
            Worth::Loop => return Err(ReplicaError::Loop),
            // It was judged already.
            _ if self.choice.current() == Some(&arrived.address) => {}
            _ => match self.choice.judge(now, &arrived.address, seen.clone(), &condition, newest) {
                Verdict::Take => {}
                Verdict::Later => return Ok(false),
            },
        }
        let parent = Alternate { name: seen.name, place: seen.place, address: arrived.address.clone() };
        if let Some(upstream) = &self.upstream {
            upstream.send_modify(|upstream| upstream.parent = Some(parent.clone()));
        }
        self.parent = Some(parent);
        self.learn(alternates).await;
        self.heard(condition)?;
        Ok(true)
    }

    /// Hears how the parent stands.
    pub(crate) fn heard(&mut self, condition: Condition) -> Result<(), ReplicaError> {
        let loops = self.choice.heard(self.now(), &condition, self.newest());
        if let Some(upstream) = &self.upstream {
            let route = if loops { Default::default() } else { condition.route.clone() };
            upstream.send_if_modified(|upstream| {
                let changes = upstream.route != route;
                upstream.route = route;
                changes
            });
        }
        self.condition = Some(condition);
        if loops { Err(ReplicaError::Loop) } else { Ok(()) }
    }

    /// The parent has sent what we hold now: it is behind no longer, if it was.
    pub(crate) fn supplied(&mut self) {
        if let (Some(condition), Some(held)) = (&mut self.condition, self.replica.held()) {
            condition.latest = Some(held.accepted());
            let condition = condition.clone();
            self.choice.heard(self.begun.elapsed(), &condition, self.newest());
        }
    }

    /// Takes the list of relays that may be dialled besides, and keeps it for the next start.
    pub(crate) async fn learn(&mut self, alternates: Alternates) {
        self.choice.learn(&alternates);
        self.alternates = alternates;
        if let Some(upstream) = &self.upstream {
            upstream.send_modify(|upstream| upstream.alternates = self.alternates.clone());
        }
        self.tell_ways();
        let bytes =
            codec::encode(&KeptParents { parent: self.parent.clone(), alternates: self.alternates.clone() });
        let Some(path) = self.kept.clone().filter(|_| bytes != self.written) else { return };
        self.written.clone_from(&bytes);
        let written = self.replica.machine().blocking(move || {
            if let Err(error) = durable::replace(&path, &bytes, durable::PUBLIC) {
                tracing::warn!(path = %path.display(), %error, "the alternates could not be kept for the next start");
            }
        });
        if let Err(error) = written.await {
            tracing::debug!(%error, "the alternates were not kept");
        }
    }

    fn tell_ways(&self) {
        let current = self.choice.current().into_iter();
        let told = self.alternates.iter().map(|told| &told.address);
        let mut ways: Vec<Address> = Vec::new();
        for address in current.chain(&self.configured).chain(told) {
            if !ways.contains(address) {
                ways.push(address.clone());
            }
        }
        self.ways.send_replace(ways);
    }

    /// The parent is lost.
    pub(crate) fn lost(&mut self, address: &Address, ours: bool) {
        self.reached = Instant::now();
        if self.choice.current() == Some(address) || ours {
            self.choice.lost(self.now(), address, ours);
        }
        self.condition = None;
        if let Some(upstream) = &self.upstream {
            upstream.send_modify(|upstream| (upstream.route, upstream.parent) = Default::default());
        }
    }

    /// Looks at other relays as the choice wants it, until there is one to move to.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the parent, whose connection is given, is silent for too long.
    pub(crate) async fn look_around(&mut self, connection: &Connection) -> Result<Arrived, ReplicaError> {
        loop {
            if self.is_silent(connection) {
                let (peer, reason) = (connection.peer().to_string(), CloseReason::Silent);
                return Err(TransportError::Closed { peer, reason }.into());
            }
            let listen_until = self.listen_at;
            let has_spare = self.scout.as_ref().is_some_and(|scout| scout.hold == Hold::Spare);
            let looks = self.scout.is_some() && !has_spare;
            let errand = if looks { None } else { self.choice.errand(self.now(), has_spare) };
            let due = errand.as_ref().map(|errand| self.begun + errand.at);
            let returned = async {
                match &mut self.scout {
                    Some(scout) => (&mut scout.task).await.ok().flatten(),
                    None => std::future::pending().await,
                }
            };
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                found = returned => if let Some(arrived) = self.take_back(found) { return Ok(arrived) },
                () = tokio::time::sleep_until(listen_until) => self.listen_at = Instant::now() + SILENCE_LOOK,
                () = due => self.scout = errand.map(|errand| self.send(errand)),
            }
        }
    }

    fn send(&self, errand: Errand) -> Scout {
        let Errand { address, hold, .. } = errand;
        let ready = Arc::default();
        let look = look(
            self.endpoint.clone(),
            address.clone(),
            self.replica.channel().clone(),
            hold,
            Arc::clone(&ready),
        );
        Scout { address, hold, task: tokio::spawn(look), ready }
    }

    /// Takes what a look has brought; a connection where the child moves there.
    fn take_back(&mut self, found: Option<(Connection, Condition)>) -> Option<Arrived> {
        let scout = self.scout.take()?;
        let (now, newest, address) = (self.now(), self.newest(), scout.address.clone());
        let outcome = found.as_ref().map(|(connection, condition)| (seen(connection), condition));
        if !self.choice.looked(now, &address, outcome, newest) {
            return None;
        }
        let (connection, _) = found?;
        self.choice.moved(now, &address);
        Some(Arrived { address, connection })
    }

    /// Whether the parent has been silent for so long that another is better, if there is one.
    /// Its acknowledgements of our keep-alives count, so it costs the parent nothing.
    fn is_silent(&mut self, connection: &Connection) -> bool {
        let received = connection.traffic().received_datagrams;
        if received != self.heard.0 || !self.choice.has_others() {
            self.heard = (received, Instant::now());
        }
        let wait = if self.child.is_relay { RELAY_SILENCE_WAIT } else { SILENCE_WAIT };
        self.heard.1.elapsed() >= wait
    }
}

impl Scout {
    /// Its connection, where that is of use already.
    fn arrived(self) -> Option<Arrived> {
        let connection = self.ready.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        (!connection.is_closed()).then(|| Arrived { address: self.address.clone(), connection })
    }
}

/// What a connection shows of the relay at its other end.
fn seen(connection: &Connection) -> Seen {
    let peer = connection.peer();
    Seen { name: peer.member().clone(), place: Place::of(peer.labels()), round_trip: connection.rtt() }
}

fn read_kept(path: &std::path::Path) -> Option<KeptParents> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MAX_NEWS).read_to_end(&mut bytes).ok()?;
    let read = codec::decode(&bytes, MAX_NEWS);
    read.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "kept alternates are not read"))
        .ok()
}

/// Looks at a relay: dials it, asks how it stands, and keeps the connection as long as it is to be kept.
async fn look(
    endpoint: Endpoint,
    address: Address,
    channel: ChannelName,
    hold: Hold,
    ready: Arc<Mutex<Option<Connection>>>,
) -> Option<(Connection, Condition)> {
    let connection = endpoint.connect(address.as_str()).await.ok()?;
    let condition = ask_condition(&connection, &channel).await.ok()?;
    let keep = || *ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
    match hold {
        _ if condition.route.is_cut_off() => {}
        Hold::No => {}
        Hold::For(stable) => {
            keep();
            tokio::select! {
                biased;
                _ = connection.closed() => return None,
                () = tokio::time::sleep(stable) => {}
            }
            let condition = ask_condition(&connection, &channel).await.ok()?;
            return Some((connection, condition));
        }
        Hold::Spare => {
            keep();
            connection.closed().await;
            return None;
        }
    }
    Some((connection, condition))
}

async fn ask_condition(connection: &Connection, channel: &ChannelName) -> Result<Condition, ReplicaError> {
    let (mut sender, mut receiver) = connection.open_bi().await?;
    sender.send_message(&Opening::Condition(channel.clone())).await?;
    sender.finish()?;
    let answer = receiver.receive_message(MAX_NEWS);
    answered(connection.peer().to_string(), ANSWER_WAIT, answer).await?.ok_or(ReplicaError::NotFound)
}
