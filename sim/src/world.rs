//! A tree of relays and hosts on simulated machines, and what can be done to it.

use crate::checks::{Checks, Host, Nearer, Rule};
use crate::content::{Content, ROLES};
use crate::disk::Disk;
use crate::error::SimError;
use crate::liar::{self, Habit};
use crate::machine::SimMachine;
use crate::network::{Network, Place};
use crate::platform::{Platform, channel};
use crate::random::Random;
use crate::trace::Trace;
use rootcast::drift::Mode;
use rootcast::limits::{MAX_RECORD, WANTED_KEPT};
use rootcast::member::Role;
use rootcast::object::ObjectSource;
use rootcast::tree::{Tree, TreeError};
use rootcast::verify::ReleaseRecord;
use rootcast_agent::{AgentConfig, AgentEvent};
use rootcast_bundler::source::Source;
use rootcast_bundler::{PUBLISHER_KEY_FILE, PublishConfig, Publisher};
use rootcast_keys::NoPassphrase;
use rootcast_relay::{HttpCache, HttpsAddress, RelayConfig, RelayEvent};
use rootcast_replica::operations::LogFormat;
use rootcast_replica::{FollowEvent, Held, Machine, Trusted};
use rootcast_store::{DiskStore, Store};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc, watch};

/// How long a supervisor waits before it starts a process again that ended by itself.
const SUPERVISED: Duration = Duration::from_secs(5);
/// How long the origin's heads are good.
const HEAD_VALIDITY_SECONDS: u64 = 3600;
/// How often a publisher that failed tries again.
const PUBLISH_AGAIN: Duration = Duration::from_secs(2);

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The root of the tree.
    Origin,
    /// A relay.
    Relay,
    /// A host.
    Agent,
    /// Who publishes.
    Publisher,
}

/// A node.
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub place: Place,
    /// Whether it is in its datacenter, or serves it; else, if a relay, its region.
    pub is_local: bool,
    /// Whom it is told to follow.
    pub parents: Vec<usize>,
    /// Its machine.
    pub machine: Arc<SimMachine>,
    /// Where its identity is.
    pub identity: PathBuf,
    home: PathBuf,
    stop: Option<watch::Sender<bool>>,
}

/// How large a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Hosts.
    pub hosts: usize,
    /// Relays, the origin not counted. A third of them serve regions, the others datacenters.
    pub relays: usize,
    /// How many relays share the load of a datacenter.
    pub share: usize,
}

/// All of it.
pub struct World {
    /// The network.
    pub network: Arc<Network>,
    /// The checkers.
    pub checks: Arc<Checks>,
    /// What happened.
    pub trace: Arc<Trace>,
    /// Nodes: the origin, relays, hosts, the publisher.
    pub nodes: Vec<Node>,
    /// Told when a machine has crashed.
    pub crashed: Arc<Notify>,
    /// Planted: hosts show what nobody verified.
    pub spoils: bool,
    /// Planted: hosts go back to releases before.
    pub goes_back: bool,
    keys: PathBuf,
    directory: TempDir,
}

/// Which node is the origin.
pub const ORIGIN: usize = 0;

/// A node before it is made.
struct Plan {
    kind: Kind,
    place: Place,
    /// Whether it serves its datacenter or is in it; a relay of a region serves all of that.
    is_local: bool,
    /// Whom it is told to follow.
    parents: Vec<usize>,
}

/// Nodes of a tree in order: the origin, relays of regions, relays of datacenters, hosts, the publisher.
/// Of the relays around it each is told of one or two, as by a careless operator, and learns of the rest.
fn plan(size: Size) -> Vec<Plan> {
    let upper = size.relays.div_ceil(3);
    let regions = upper.clamp(1, 4);
    let here = Place { region: 0, datacenter: 0 };
    let mut nodes = vec![Plan { kind: Kind::Origin, place: here, is_local: false, parents: Vec::new() }];
    for relay in 1..=upper {
        let place = Place { region: relay % regions, datacenter: relay };
        nodes.push(Plan { kind: Kind::Relay, place, is_local: false, parents: vec![ORIGIN] });
    }
    for relay in upper + 1..=size.relays {
        let number = (relay - upper - 1) / size.share.max(1);
        let home = number % upper.max(1) + 1;
        let place = Place { region: home % regions, datacenter: upper + 1 + number };
        nodes.push(Plan { kind: Kind::Relay, place, is_local: true, parents: vec![home, ORIGIN] });
    }
    // Hosts are in datacenters with a relay; without any they are where the regions' relays are.
    let leaves = if size.relays > upper { upper + 1..size.relays + 1 } else { 1..size.relays + 1 };
    let leaves: Vec<(usize, Place)> =
        leaves.filter_map(|relay| nodes.get(relay).map(|node| (relay, node.place))).collect();
    for host in 0..size.hosts {
        let (home, place) = leaves.get(host % leaves.len().max(1)).copied().unwrap_or((ORIGIN, here));
        let others = leaves.iter().filter(|(relay, at)| *at == place && *relay != home);
        let mut parents = vec![home];
        parents.extend(others.map(|(relay, _)| *relay).filter(|_| host % 2 == 0));
        nodes.push(Plan { kind: Kind::Agent, place, is_local: size.relays > upper, parents });
    }
    nodes.push(Plan { kind: Kind::Publisher, place: here, is_local: false, parents: vec![ORIGIN] });
    nodes
}

impl World {
    /// Makes a platform and its machines; nothing runs yet.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn new(seed: u64, size: Size, trace: Arc<Trace>) -> Result<Self, SimError> {
        let memory = Path::new("/dev/shm");
        let mut builder = tempfile::Builder::new();
        builder.prefix("rootcast-sim-");
        let directory = if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() }?;
        trace.hide(directory.path());
        let platform = Platform::found(&directory.path().join("platform"))?;
        let network = Network::new(seed);
        let checks = Arc::new(Checks::new(ORIGIN));
        let crashed = Arc::new(Notify::new());
        let mut nodes = Vec::new();
        for (index, Plan { kind, place, is_local, parents }) in plan(size).into_iter().enumerate() {
            network.add(place);
            let (name, role) = match kind {
                Kind::Origin => ("origin".to_owned(), Role::Relay),
                Kind::Relay => (format!("relay-{index}"), Role::Relay),
                Kind::Agent => (format!("host-{}", index - size.relays), Role::Agent),
                Kind::Publisher => ("publisher".to_owned(), Role::Publisher),
            };
            let region = format!("r{}", place.region);
            let job = ROLES.get(index % ROLES.len()).copied().unwrap_or_default();
            let mut labels = vec![("region", region.clone())];
            labels.extend(is_local.then(|| ("datacenter", format!("d{}", place.datacenter))));
            match kind {
                Kind::Agent => labels.push(("role", job.to_owned())),
                Kind::Relay => {}
                Kind::Origin | Kind::Publisher => labels.clear(),
            }
            let identity = platform.member(role, &name, &labels)?;
            let home = directory.path().join(&name);
            std::fs::create_dir_all(&home)?;
            if kind == Kind::Agent {
                let layers = vec![
                    "base".to_owned(),
                    format!("region/{region}"),
                    format!("role/{job}"),
                    format!("host/{name}"),
                ];
                checks.add_host(index, Host { layers, live: home.join("live") });
            }
            let disk =
                Disk::new(index, Random::of(seed, &format!("disk {name}")), checks.clone(), crashed.clone());
            let random = Random::of(seed, &format!("machine {name}"));
            let machine = Arc::new(SimMachine::new(index, network.clone(), Arc::new(disk), random));
            nodes.push(Node { name, kind, place, is_local, parents, machine, identity, home, stop: None });
        }
        let keys = platform.keys();
        Ok(Self { network, checks, trace, nodes, crashed, spoils: false, goes_back: false, keys, directory })
    }

    /// Indices of the nodes of a kind.
    pub fn of(&self, kind: Kind) -> Vec<usize> {
        let all = self.nodes.iter().enumerate();
        all.filter(|(_, node)| node.kind == kind).map(|(index, _)| index).collect()
    }

    /// A node's name.
    pub fn name(&self, node: usize) -> &str {
        self.nodes.get(node).map_or("?", |node| &node.name)
    }

    /// Whether a process of it runs.
    pub fn runs(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.stop.is_some())
    }

    /// The directory of a node's store.
    pub fn store(&self, node: usize) -> Option<PathBuf> {
        self.nodes.get(node).map(|node| node.home.join("state/channels/main"))
    }

    /// The relays that are nearer to a node than the origin.
    pub fn nearer(&self, node: usize) -> Nearer {
        let mut nearer = Nearer::default();
        let Some(own) = self.nodes.get(node) else { return nearer };
        let around = |relay: &Node| relay.kind == Kind::Relay && relay.place.region == own.place.region;
        for (index, relay) in self.nodes.iter().enumerate().filter(|(_, relay)| around(relay)) {
            let is_home = match own.kind {
                Kind::Agent if own.is_local => relay.is_local && relay.place == own.place,
                Kind::Agent => !relay.is_local,
                Kind::Relay => own.is_local && !relay.is_local,
                Kind::Origin | Kind::Publisher => false,
            };
            if is_home {
                nearer.homes.push(index);
            } else if own.is_local && !relay.is_local {
                nearer.above.push(index);
            }
        }
        nearer
    }

    fn addresses(parents: &[usize]) -> Vec<String> {
        parents.iter().map(|parent| Network::served_at(*parent).to_string()).collect()
    }

    /// Starts a node's process.
    ///
    /// # Errors
    /// Never for what this module made.
    pub fn start(&mut self, index: usize) -> Result<(), SimError> {
        let (trace, checks, keys) = (self.trace.clone(), self.checks.clone(), self.keys.clone());
        let nearer = self.nearer(index);
        let Some(node) = self.nodes.get_mut(index) else { return Ok(()) };
        // A tree that comes up is in trouble, too.
        checks.set_troubled(index, index, false);
        let (stop, stopped) = watch::channel(false);
        node.stop = Some(stop);
        let machine: Arc<dyn Machine> = node.machine.clone();
        let name = node.name.clone();
        match node.kind {
            Kind::Origin | Kind::Relay => {
                let is_origin = node.kind == Kind::Origin;
                let config = RelayConfig {
                    listen: Network::served_at(index),
                    // There is no TCP here.
                    https: HttpsAddress::Off,
                    http_cache: HttpCache::Private,
                    identity: node.identity.clone(),
                    state: node.home.join("state"),
                    channels: vec![channel()?],
                    keys: is_origin.then_some(keys),
                    addresses: Vec::new(),
                    parents: Self::addresses(&node.parents),
                    advertise: None,
                    head_validity_seconds: HEAD_VALIDITY_SECONDS,
                    keep: Vec::new(),
                    keep_seconds: WANTED_KEPT.as_secs(),
                    operations: None,
                    log: LogFormat::default(),
                    log_level: "off".into(),
                };
                node.machine.tasks.spawn(async move {
                    while !*stopped.borrow() {
                        let events =
                            relay_events(index, nearer.clone(), name.clone(), trace.clone(), checks.clone());
                        let shutdown = until(stopped.clone());
                        let outcome =
                            rootcast_relay::run_on(machine.clone(), config.clone(), events, shutdown);
                        if let Err(error) = outcome.await {
                            trace.add(&name, format!("ended: {error}"));
                        }
                        tokio::time::sleep(SUPERVISED).await;
                    }
                });
            }
            Kind::Agent => {
                let config = AgentConfig {
                    allow: Default::default(),
                    identity: node.identity.clone(),
                    state: node.home.join("state"),
                    live: node.home.join("live"),
                    secrets: Some(node.home.join("secrets")),
                    relays: Self::addresses(&node.parents),
                    channel: "main".into(),
                    facts: Default::default(),
                    operations: None,
                    // The simulated clock does not wait for the disk of this machine; the checks plant drift.
                    drift: Mode::Off,
                    ignore: Vec::new(),
                    socket: Some("off".into()),
                    log: LogFormat::default(),
                    log_level: "off".into(),
                };
                let goes_back = self.goes_back;
                let spoiled = self.spoils.then(|| node.home.join("live/current/always"));
                node.machine.tasks.spawn(async move {
                    while !*stopped.borrow() {
                        let events = agent_events(
                            index,
                            nearer.clone(),
                            name.clone(),
                            trace.clone(),
                            checks.clone(),
                            spoiled.clone(),
                            goes_back,
                        );
                        let shutdown = until(stopped.clone());
                        let outcome =
                            rootcast_agent::run_on(machine.clone(), config.clone(), events, shutdown);
                        if let Err(error) = outcome.await {
                            trace.add(&name, format!("ended: {error}"));
                        }
                        tokio::time::sleep(SUPERVISED).await;
                    }
                });
            }
            Kind::Publisher => {}
        }
        Ok(())
    }

    /// Runs a lying relay in the place of a node's process, which is killed.
    pub fn lie(&mut self, index: usize, habit: Habit) {
        self.kill(index);
        let trace = self.trace.clone();
        let Some(node) = self.nodes.get_mut(index) else { return };
        node.stop = Some(watch::channel(false).0);
        let (machine, identity, name) = (node.machine.clone(), node.identity.clone(), node.name.clone());
        let parents: Vec<SocketAddr> =
            node.parents.iter().map(|parent| Network::served_at(*parent)).collect();
        node.machine.tasks.spawn(async move {
            // The address is taken away with the process that had it, a moment ago.
            tokio::time::sleep(Duration::from_millis(10)).await;
            if let Err(error) =
                liar::run(machine, &identity, Network::served_at(index), &parents, habit).await
            {
                trace.add(&name, format!("could not lie: {error}"));
            }
        });
    }

    /// Asks a node's process to end. It says good-bye.
    pub fn stop(&self, index: usize) {
        if let Some(stop) = self.nodes.get(index).and_then(|node| node.stop.as_ref()) {
            stop.send_replace(true);
        }
    }

    /// Ends a node's process without a word, and looks at what a host shows then.
    pub fn kill(&mut self, index: usize) {
        self.network.unplug(index);
        let Some(node) = self.nodes.get_mut(index) else { return };
        node.stop = None;
        node.machine.tasks.kill();
        if node.kind == Kind::Agent {
            self.checks.look(index, None);
        }
    }

    /// Kills what runs on machines whose power failed. Which.
    pub fn take_crashed(&mut self) -> Vec<usize> {
        let of = |(index, node): (usize, &Node)| node.machine.disk.take_crash().then_some(index);
        let crashed: Vec<usize> = self.nodes.iter().enumerate().filter_map(of).collect();
        for index in &crashed {
            self.kill(*index);
            // What was written and not synced beside the store: the head is allowed to be lost.
            if let Some(store) = self.store(*index) {
                let _ = std::fs::remove_file(store.join("head.cose"));
            }
        }
        crashed
    }

    /// Starts the publisher: for each tick it changes the source, and publishes until it has succeeded.
    /// Returns where to send ticks, and what is told when one is done. `large`: bytes of a file that is there from the first.
    ///
    /// # Errors
    /// When the source or the publisher cannot be opened.
    pub fn publisher(
        &self,
        seed: u64,
        large: usize,
    ) -> Result<(mpsc::UnboundedSender<()>, watch::Receiver<u64>), SimError> {
        let regions = self.nodes.iter().map(|node| node.place.region).max().unwrap_or(0) + 1;
        let hosts: Vec<String> =
            self.of(Kind::Agent).iter().map(|host| self.name(*host).to_owned()).collect();
        let random = Random::of(seed, "content");
        let mut content = Content::new(&self.directory.path().join("source"), random, regions, &hosts)?;
        if large > 0 {
            content.add_large(large)?;
        }
        let (ticks, mut ticked) = mpsc::unbounded_channel();
        let (done, published) = watch::channel(0);
        let Some(node) = self.nodes.iter().find(|node| node.kind == Kind::Publisher) else {
            return Ok((ticks, published));
        };
        let config = PublishConfig {
            identity: node.identity.clone(),
            key: Some(self.keys.join(PUBLISHER_KEY_FILE)),
            state: node.home.join("state"),
            origin: Self::addresses(&node.parents),
        };
        let mut publisher = Publisher::open_on(node.machine.clone(), &config, &NoPassphrase)?;
        let source = Arc::new(Mutex::new(Source::open_directory(content.directory())?));
        let (trace, checks) = (self.trace.clone(), self.checks.clone());
        node.machine.tasks.spawn(async move {
            while ticked.recv().await.is_some() {
                let bundles = match content.change() {
                    Ok(bundles) => bundles,
                    Err(error) => return trace.add("publisher", format!("cannot write its source: {error}")),
                };
                loop {
                    checks.publishes(checks.newest() + 1, bundles.clone());
                    match publisher.publish(&source, Arc::new(|_, _, _| {})).await {
                        Ok(published) => {
                            let (number, bytes) = (published.number, published.edit_bytes);
                            trace.add("publisher", format!("published release {number}, edits of {bytes} B"));
                            break;
                        }
                        Err(error) => trace.add("publisher", format!("could not publish: {error}")),
                    }
                    tokio::time::sleep(PUBLISH_AGAIN).await;
                }
                done.send_modify(|done| *done += 1);
            }
        });
        Ok((ticks, published))
    }

    /// Opens each store that nothing runs on, and reads all of the release that it holds.
    pub fn check_stores(&self) {
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.stop.is_none()) {
            let Some(path) = self.store(index).filter(|path| path.is_dir()) else { continue };
            if let Err(error) = read_held(&path, &node.identity) {
                let error = self.trace.plain(&error);
                self.checks.violated(Rule::Whole, format!("{}: {error}", node.name));
            }
        }
    }
}

/// Reads every object of the newest release of a store. What only older releases have may be damaged still.
fn read_held(path: &Path, identity: &Path) -> Result<(), String> {
    let store = DiskStore::open_read_only(path).map_err(|error| error.to_string())?;
    let chain = Trusted::pinned(identity).map_err(|error| error.to_string())?;
    let Some(record) = store.release(store.floors().number()).map_err(|error| error.to_string())? else {
        return if store.floors().number() == 0 { Ok(()) } else { Err("the newest record is lost".into()) };
    };
    let record: ReleaseRecord =
        rootcast::codec::decode(&record, MAX_RECORD).map_err(|error| error.to_string())?;
    let channel = channel().map_err(|error| error.to_string())?;
    let held = Held::of_record(&record, &chain, &channel).map_err(|error| error.to_string())?;
    let source: &dyn ObjectSource = &store;
    for leaf in held.bundles.leaves().values() {
        let mut lost = 0;
        let walked = Tree::open(source, leaf.root).and_then(|tree| {
            tree.objects::<TreeError>(&mut |id| {
                lost += usize::from(source.read(&id).is_err());
                Ok(true)
            })
        });
        walked.map_err(|error| format!("bundle {}: {error}", leaf.name))?;
        if lost > 0 {
            return Err(format!("bundle {}: {lost} objects are damaged", leaf.name));
        }
    }
    Ok(())
}

async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn followed(event: &FollowEvent) -> Option<String> {
    Some(match event {
        FollowEvent::Connected { parent, .. } => format!("follows {parent}"),
        FollowEvent::Lost { address, reason } => format!("lost {address}: {reason}"),
        FollowEvent::Held { number, bytes } => format!("holds release {number}, {bytes} B"),
        FollowEvent::Failed { reason } => format!("refused: {reason}"),
        FollowEvent::HeadRefused { reason } => format!("refused a head: {reason}"),
        FollowEvent::Trust { version } => format!("trust version {version}"),
        FollowEvent::Fallback { reason } => format!("falls back: {reason}"),
        FollowEvent::Returned { address } => format!("returns to QUIC at {address}"),
        FollowEvent::Denials { .. } => return None,
    })
}

/// Tells the checkers whom a member follows.
fn note_parent(checks: &Checks, node: usize, nearer: &Nearer, event: &FollowEvent) {
    let (FollowEvent::Connected { address, .. } | FollowEvent::Lost { address, .. }) = event else { return };
    let Some(parent) = address.parse().ok().and_then(Network::node_at) else { return };
    match event {
        FollowEvent::Connected { .. } => checks.follows(node, parent, nearer),
        _ => checks.lost(node, parent),
    }
}

fn relay_events(
    node: usize,
    nearer: Nearer,
    name: String,
    trace: Arc<Trace>,
    checks: Arc<Checks>,
) -> Arc<dyn Fn(RelayEvent) + Send + Sync> {
    Arc::new(move |event| match event {
        RelayEvent::Ready { .. } => trace.add(&name, "serves".into()),
        RelayEvent::Published { number, .. } => trace.add(&name, format!("took release {number}")),
        RelayEvent::Follow { event, .. } => {
            note_parent(&checks, node, &nearer, &event);
            followed(&event).into_iter().for_each(|text| trace.add(&name, text));
        }
        RelayEvent::Trust { version, .. } => trace.add(&name, format!("trust version {version}")),
    })
}

fn agent_events(
    node: usize,
    nearer: Nearer,
    name: String,
    trace: Arc<Trace>,
    checks: Arc<Checks>,
    spoiled: Option<PathBuf>,
    goes_back: bool,
) -> Arc<dyn Fn(AgentEvent) + Send + Sync> {
    Arc::new(move |event| match event {
        AgentEvent::Follow(event) => {
            note_parent(&checks, node, &nearer, &event);
            followed(&event).into_iter().for_each(|text| trace.add(&name, text));
        }
        AgentEvent::Active { number, files, .. } => {
            trace.add(&name, format!("shows release {number}, {files} files"));
            if let Some(path) = &spoiled {
                let _ = std::fs::write(path, "planted");
            }
            checks.shows(node, number);
            if goes_back && number > 1 {
                checks.shows(node, number - 1);
            }
        }
        AgentEvent::Ready { .. }
        | AgentEvent::Drift(_)
        | AgentEvent::Activation { .. }
        | AgentEvent::Hook(_)
        | AgentEvent::Converged(_) => {}
        AgentEvent::RolledBack { number, reason, .. } => {
            trace.add(&name, format!("rolled back {number}: {reason}"))
        }
        AgentEvent::Freshness(freshness) => trace.add(&name, format!("{freshness:?}")),
        AgentEvent::Failed { number, reason } => {
            trace.add(&name, format!("could not show release {number}: {reason}"));
        }
    })
}
