//! The daemon: opens the stores, follows the parents, serves the children.

use crate::audit::{Audit, Event, ORIGIN};
use crate::child;
use crate::heads::HeadSigner;
use crate::status::Statuses;
use crate::{RelayConfig, RelayError};
use rootcast::head::Freshness;
use rootcast::limits::{MAX_CHILDREN, SHUTDOWN_WAIT};
use rootcast::path::ChannelName;
use rootcast::protocol::{HostState, HostStatus, Interest};
use rootcast_replica::{Follow, FollowEvent, Member, Replica, Tending, Trusted, follow};
use rootcast_store::{DiskStore, Store};
use rootcast_transport::{Code, Endpoint, Handshake};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

/// What happens in a relay, for whoever runs it.
#[derive(Debug, Clone)]
pub enum RelayEvent {
    /// It serves.
    Ready {
        /// Its name.
        name: String,
        /// Where.
        address: SocketAddr,
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
    pub(crate) trust: Arc<Trusted>,
    pub(crate) replicas: BTreeMap<ChannelName, Arc<Replica>>,
    pub(crate) statuses: Arc<Statuses>,
    pub(crate) publishing: Mutex<()>,
    /// The origin's record of what it was asked and did; no other relay has one.
    pub(crate) audit: Option<Arc<Audit>>,
    /// Constant: a relay wants all bundles of its channels.
    interest: watch::Sender<Interest>,
    pub(crate) events: Arc<dyn Fn(RelayEvent) + Send + Sync>,
}

impl Shared {
    pub(crate) fn replica(&self, channel: &ChannelName) -> Option<&Arc<Replica>> {
        self.replicas.get(channel)
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
    let member = Member::load(&config.identity, &config.state)?;
    let mut replicas = BTreeMap::new();
    for channel in &config.channels {
        let directory = config.state.join("channels").join(channel.as_str().replace('/', "%"));
        let store: Arc<dyn Store> = Arc::new(DiskStore::open(&directory)?);
        let replica =
            Replica::open(store, member.trust.clone(), channel.clone(), true, Some(directory.clone()))?;
        replicas.insert(channel.clone(), Arc::new(replica));
    }
    let audit = if config.parents.is_empty() { Some(Arc::new(audit(&config, &member)?)) } else { None };
    let endpoint = Endpoint::listen(&member.identity, config.listen)?;
    let shared = Arc::new(Shared {
        name: member.identity.name().name().to_owned(),
        is_origin: config.parents.is_empty(),
        trust: member.trust.clone(),
        replicas,
        statuses: Arc::default(),
        publishing: Mutex::new(()),
        audit,
        interest: watch::Sender::new(Interest::All),
        events,
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(own_status(shared.clone()));
    for replica in shared.replicas.values() {
        tasks.spawn(replica.clone().tend(Tending::Serves));
    }
    if shared.is_origin {
        if let Some(signer) = HeadSigner::load(&config)?.map(Arc::new) {
            for replica in shared.replicas.values() {
                tasks.spawn(signer.clone().sign_all(replica.clone(), shared.audit.clone()));
            }
        }
    } else {
        for replica in shared.replicas.values() {
            tasks.spawn(follow(follow_of(&shared, replica, &endpoint, &config)));
        }
    }
    let (name, address) = (shared.name.clone(), endpoint.local_addr()?);
    tracing::info!(%name, %address, origin = shared.is_origin, "serving");
    (shared.events)(RelayEvent::Ready { name, address });
    tokio::select! {
        () = accept(&shared, &endpoint) => {}
        () = shutdown => {}
    }
    tracing::info!("stopping");
    endpoint.close(Code::LEAVING, "the relay is stopping");
    tasks.shutdown().await;
    if tokio::time::timeout(SHUTDOWN_WAIT, endpoint.wait_idle()).await.is_err() {
        tracing::debug!("some children did not hear of it");
    }
    Ok(())
}

/// The origin's record, with its start in it.
fn audit(config: &RelayConfig, member: &Member) -> Result<Audit, RelayError> {
    let audit = Audit::open(&config.state)?;
    let trust = member.trust.newest();
    audit.record(ORIGIN, &Event::Start(trust.trust().version, trust.hash().to_string()));
    tracing::info!(newest = %audit.newest(), "the audit record; note this hash elsewhere");
    Ok(audit)
}

/// What it takes to follow the parents in one channel. A relay carries all its bundles.
fn follow_of(
    shared: &Arc<Shared>,
    replica: &Arc<Replica>,
    endpoint: &Endpoint,
    config: &RelayConfig,
) -> Follow {
    let (channel, events) = (replica.channel().clone(), shared.events.clone());
    Follow {
        endpoint: endpoint.clone(),
        parents: config.parents.clone(),
        replica: replica.clone(),
        interest: shared.interest.subscribe(),
        report: shared.statuses.watch(),
        events: Arc::new(move |event| {
            tracing::info!(%channel, ?event, "parent");
            events(RelayEvent::Follow { channel: channel.clone(), event });
        }),
    }
}

/// Keeps this relay's own rows current.
async fn own_status(shared: Arc<Shared>) {
    let mut changes: Vec<_> = shared.replicas.values().map(|replica| replica.watch_held()).collect();
    let mut heads: Vec<_> = shared.replicas.values().map(|replica| replica.watch_head()).collect();
    loop {
        changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
        heads.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let rows = shared.replicas.values().map(|replica| own_row(&shared, replica)).collect();
        shared.statuses.set_own(rows);
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

fn own_row(shared: &Shared, replica: &Replica) -> HostStatus {
    let held = replica.held();
    let release = held.as_ref().map(|held| held.bundles.release().release());
    HostStatus {
        name: shared.name.clone(),
        role: "relay".into(),
        parent: String::new(),
        channel: replica.channel().clone(),
        release: release.map_or(0, |release| release.number),
        state: match replica.freshness() {
            Freshness::Fresh { .. } => HostState::Active,
            Freshness::Stale => HostState::Stale,
        },
        files: release.map_or(0, |release| release.files),
        healed: replica.healed(),
        received: replica.received(),
    }
}

/// Accepts children until the endpoint closes. A slow handshake holds nobody up.
async fn accept(shared: &Arc<Shared>, endpoint: &Endpoint) {
    let mut children = JoinSet::new();
    loop {
        tokio::select! {
            handshake = endpoint.accept() => {
                let Some(handshake) = handshake else { break };
                if children.len() < MAX_CHILDREN {
                    children.spawn(welcome(shared.clone(), handshake));
                }
            }
            Some(_) = children.join_next() => {}
        }
    }
}

async fn welcome(shared: Arc<Shared>, handshake: Handshake) {
    let remote = handshake.remote();
    match handshake.finish().await {
        Ok(connection) => child::serve(shared, connection).await,
        Err(error) => tracing::warn!(%remote, %error, "a handshake failed"),
    }
}
