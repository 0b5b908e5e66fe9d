//! The replica: what origin, relay, agent and publisher have in common.
//!
//! A [`Replica`] holds one channel's bundles, verified and durable. [`follow`]
//! keeps it up with a parent; [`Replica::outgoing`] serves a child from it.
//! Everything that decides is in core; everything durable is in the store.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

mod cache;
mod daemon;
pub mod durable;
mod error;
mod evidence;
mod fallback;
mod fill;
mod follow;
mod heads;
mod https;
pub mod joining;
mod machine;
mod member;
mod objects;
pub mod operations;
mod outgoing;
mod parents;
mod reach;
mod receive;
pub mod renewal;
mod repair;
mod resources;
mod session;
mod snapshot;
mod trusted;
mod update;

pub use daemon::{ConfigError, read_config, signalled, told_to_end};
pub use error::ReplicaError;
pub use fallback::Fallback;
pub use follow::{Follow, FollowEvent, Questions, Reporting, Upstream, follow};
pub use machine::{Machine, System};
pub use member::{FINGERPRINT_FILE, Member, MemberError, TRUST_FILE};
pub use outgoing::Outgoing;
use outgoing::Prepared;
pub use parents::{child_of, known_addresses};
use reach::Reaches;
pub use receive::{Received, Rule};
pub use resources::Offered;
use resources::Older;
pub use session::{Kept, Pushed, pull, receive_update};
use snapshot::Snapshots;
pub use snapshot::Tending;
pub use trusted::Trusted;
pub use update::Update;

use bytes::Bytes;
use cache::EditCache;
use evidence::Evidence;
use rootcast::acceptance::{Accepted, Floors};
use rootcast::compact::Before;
use rootcast::head::VerifiedHead;
use rootcast::id::{NodeId, ProofHash};
use rootcast::limits::{EDITS_AT_ONCE, LOOKED_INTO_AT_ONCE};
use rootcast::merkle::PartialTree;
use rootcast::path::{BundleName, ChannelName};
use rootcast::plan::Plan;
use rootcast::protocol::{Interest, Standing, UpdateMessage};
use rootcast::trust::TrustChain;
use rootcast::verify::{ReleaseRecord, VerifiedBundles, VerifyError};
use rootcast_store::Store;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use tokio::sync::{Notify, Semaphore, watch};

/// A release that a replica holds whole and durable, as far as it is interested.
#[derive(Debug)]
pub struct Held {
    /// The verified release and its proved leaves.
    pub bundles: VerifiedBundles,
    /// The proof of those leaves.
    pub siblings: Vec<ProofHash>,
    /// The version of trust that it was last judged by.
    judged_by: u64,
    /// What leaves and proof tell of the release's tree of leaves, once a child needs a part of it.
    tree: OnceLock<Result<PartialTree, VerifyError>>,
}

impl Held {
    pub(crate) fn new(bundles: VerifiedBundles, siblings: Vec<ProofHash>, judged_by: u64) -> Self {
        Self { bundles, siblings, judged_by, tree: OnceLock::new() }
    }

    pub(crate) fn tree(&self) -> Result<&PartialTree, ReplicaError> {
        let tree = self.tree.get_or_init(|| self.bundles.tree(&self.siblings));
        tree.as_ref().map_err(|error| error.clone().into())
    }

    /// The proof of the leaves at `indices` (ascending), which are all held.
    ///
    /// # Errors
    /// Where one is not.
    pub fn prove(&self, indices: &[u64]) -> Result<Vec<ProofHash>, ReplicaError> {
        self.tree()?.prove(indices).map_err(|_| ReplicaError::NotFound)
    }

    /// Judges a record anew. One that verifies under an older version of trust alone is held, and not served.
    ///
    /// # Errors
    /// When it verifies under none.
    pub fn of_record(
        record: &ReleaseRecord,
        trust: &TrustChain,
        channel: &ChannelName,
    ) -> Result<Self, ReplicaError> {
        let bundles = record.verify(trust, channel)?;
        Ok(Self::new(bundles, record.siblings.clone(), trust.newest().trust().version))
    }

    /// Whether the trust that it was last judged by lets its keys publish: what was
    /// accepted stays, and only what is granted is served to others.
    pub fn is_granted(&self) -> bool {
        self.bundles.release().trust_version() == self.judged_by
    }

    /// Its number and hash.
    pub fn accepted(&self) -> Accepted {
        self.bundles.release().accepted()
    }
}

impl Fresh {
    /// Its number and hash.
    pub fn accepted(&self) -> Accepted {
        self.held.accepted()
    }
}

/// A release that is verified and complete, with its log's edits at hand. It
/// may be on its way to the disk still: what it holds verifies itself, so a
/// child may have it before we do (architecture invariant 6).
#[derive(Debug)]
pub struct Fresh {
    held: Arc<Held>,
    /// What was held when it came.
    before: Option<Arc<Held>>,
    edits: BTreeMap<BundleName, Bytes>,
}

/// One channel's bundles, verified and durable.
pub struct Replica {
    store: Arc<dyn Store>,
    trust: Arc<Trusted>,
    channel: ChannelName,
    keep_log: bool,
    directory: Option<PathBuf>,
    head: watch::Sender<Option<Arc<VerifiedHead>>>,
    held: watch::Sender<Option<Arc<Held>>>,
    fresh: Mutex<Option<Arc<Fresh>>>,
    /// The newest release that children can have: held, or fresh.
    offered: watch::Sender<Option<Accepted>>,
    evidence: Evidence,
    /// Held while an update is taken in: what is judged and what is held stay one.
    receiving: Mutex<()>,
    /// Held while the store is written to; taken after `receiving` where both are. A
    /// bundle that is being fetched is written without `receiving`, so that nobody's
    /// release waits to be passed on until that is done.
    writing: Mutex<()>,
    /// Bundles of releases that are being fetched: not to be collected.
    filling: Mutex<Vec<Weak<Held>>>,
    /// Trees that are kept because somebody said so.
    pinned: Mutex<Vec<NodeId>>,
    /// Room to compute edits in.
    computing: Semaphore,
    cache: EditCache,
    prepared: Prepared,
    /// The plan that was read last, by its bundle's root.
    plan: Mutex<Option<(NodeId, Arc<Plan>)>>,
    reaches: Reaches,
    older: Older,
    snapshots: Snapshots,
    repair: Notify,
    withheld: Notify,
    healed: AtomicU64,
    received: AtomicU64,
    collected_at: AtomicU64,
}

impl Replica {
    /// Opens the replica of a channel over a store, and verifies anew what the
    /// store holds. `keep_log`: whether edits are kept for children.
    /// `directory`: where heads, and offers that break the acceptance rule, are kept.
    ///
    /// # Errors
    /// When the store fails. A damaged record is none: an older one is held
    /// until the newest has been fetched again, and floors stay.
    pub fn open(
        store: Arc<dyn Store>,
        trust: Arc<Trusted>,
        channel: ChannelName,
        keep_log: bool,
        directory: Option<PathBuf>,
    ) -> Result<Self, ReplicaError> {
        let mut newest = None;
        // Numbers of an epoch that is over may be higher than the accepted one.
        let accepted = store.floors().number();
        let (mut numbers, over): (Vec<_>, Vec<_>) =
            store.releases().into_iter().rev().partition(|number| *number <= accepted || accepted == 0);
        numbers.extend(over);
        for number in numbers {
            match Self::load(&*store, &trust.chain(), &channel, number) {
                Ok(Some(held)) => {
                    newest = Some(Arc::new(held));
                    break;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%channel, number, %error, "a stored release is not usable"),
            }
        }
        let evidence = directory.as_ref().map(|directory| directory.join("evidence"));
        let replica = Self {
            store,
            trust,
            channel,
            keep_log,
            directory,
            head: watch::Sender::new(None),
            offered: watch::Sender::new(newest.as_ref().map(|held| held.accepted())),
            held: watch::Sender::new(newest),
            fresh: Mutex::default(),
            evidence: Evidence::new(evidence),
            receiving: Mutex::default(),
            writing: Mutex::default(),
            filling: Mutex::default(),
            pinned: Mutex::default(),
            computing: Semaphore::new(EDITS_AT_ONCE),
            cache: EditCache::default(),
            prepared: Prepared::default(),
            plan: Mutex::default(),
            reaches: Reaches::default(),
            older: Older::default(),
            snapshots: Snapshots::default(),
            repair: Notify::new(),
            withheld: Notify::new(),
            healed: AtomicU64::new(0),
            received: AtomicU64::new(0),
            collected_at: AtomicU64::new(0),
        };
        replica.head.send_replace(replica.stored_head());
        Ok(replica)
    }

    fn load(
        store: &dyn Store,
        trust: &TrustChain,
        channel: &ChannelName,
        number: u64,
    ) -> Result<Option<Held>, ReplicaError> {
        let Some(bytes) = store.release(number)? else { return Ok(None) };
        let record: ReleaseRecord = rootcast::codec::decode(&bytes, rootcast::limits::MAX_RECORD)?;
        Ok(Some(Held::of_record(&record, trust, channel)?))
    }

    /// The channel.
    pub fn channel(&self) -> &ChannelName {
        &self.channel
    }
    /// The machine that it is on.
    pub fn machine(&self) -> &Arc<dyn Machine> {
        self.trust.machine()
    }
    /// The platform's trust.
    pub fn trust(&self) -> &Arc<Trusted> {
        &self.trust
    }
    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
    /// The newest release held; none before the first.
    pub fn held(&self) -> Option<Arc<Held>> {
        self.held.borrow().clone()
    }
    /// The newest release held, judged by the trust in force; none where that
    /// does not let its keys publish.
    pub fn granted(&self) -> Option<Arc<Held>> {
        let held = self.held()?;
        let chain = self.trust.chain();
        if held.judged_by == chain.newest().trust().version {
            return held.is_granted().then_some(held);
        }
        let record = ReleaseRecord::new(&held.bundles, &held.siblings);
        let judged = Arc::new(Held::of_record(&record, &chain, &self.channel).ok()?);
        self.held.send_if_modified(|held| {
            let same = held.as_ref().is_some_and(|held| held.accepted() == judged.accepted());
            if same {
                *held = Some(judged.clone());
            }
            false // nothing that anyone waits for
        });
        judged.is_granted().then_some(judged)
    }
    /// Changes when a newer release is held.
    pub fn watch_held(&self) -> watch::Receiver<Option<Arc<Held>>> {
        self.held.subscribe()
    }
    /// The newest release that children can have. It changes once for each, before that is held where
    /// it can be forwarded sooner: a child that stands there needs to wait for nothing else.
    pub fn watch_offered(&self) -> watch::Receiver<Option<Accepted>> {
        self.offered.subscribe()
    }
    fn offer(&self, newest: Accepted) {
        self.offered.send_if_modified(|offered| offered.replace(newest) != Some(newest));
    }
    /// The highest statements accepted.
    pub fn floors(&self) -> Floors {
        self.store.floors()
    }
    /// Damaged objects healed since the start.
    pub fn healed(&self) -> u64 {
        self.healed.load(Ordering::Relaxed)
    }
    /// Bytes of updates received since the start.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
    /// Offers that broke the acceptance rule since the start.
    pub fn refused(&self) -> u64 {
        self.evidence.count()
    }
    /// Asks whoever follows a parent to look for damage and fetch what is missing.
    pub fn request_repair(&self) {
        self.repair.notify_one();
    }

    /// Says that the parent withholds what the release must have, so that
    /// whoever follows it goes on to the next.
    pub fn leave_parent(&self) {
        self.withheld.notify_one();
    }

    /// The release record of a number, verified anew.
    ///
    /// # Errors
    /// When the store fails or the record does not verify.
    pub fn release(&self, number: u64) -> Result<Option<Held>, ReplicaError> {
        Self::load(&*self.store, &self.trust.chain(), &self.channel, number)
    }

    /// The update that was pushed, its head rebuilt where it came without what
    /// we can compute; `None` where it does not build on what is held. `interest`: of the subscription that it came over.
    pub fn rebuild(&self, pushed: Pushed, interest: &Interest) -> Option<Update> {
        let Pushed { message, edits } = pushed;
        let head = match message {
            UpdateMessage::Whole(head) | UpdateMessage::Resumed(head, _) => head,
            UpdateMessage::Compact(head) => {
                let held = self.held()?;
                Before::new(&held.bundles, |leaf| interest.covers(&leaf.name)).expand(&head, &edits)?
            }
        };
        Some(Update { head, edits })
    }

    /// As [`Replica::rebuild`], where the edits and leaves to be hashed are many on a thread that may take long.
    pub(crate) async fn rebuild_anywhere(
        self: &Arc<Self>,
        pushed: Pushed,
        interest: &Interest,
    ) -> Result<Option<Update>, ReplicaError> {
        let leaves = self.held().map_or(0, |held| held.bundles.leaves().len());
        if !is_large(&pushed.edits, leaves) {
            return Ok(self.rebuild(pushed, interest));
        }
        let (replica, interest) = (self.clone(), interest.clone());
        self.blocking(move || Ok(replica.rebuild(pushed, &interest))).await
    }

    /// The right to write to the store.
    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs work that may wait for the disk where it may.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ReplicaError> + Send + 'static,
    ) -> Result<T, ReplicaError> {
        self.machine().blocking(work).await?
    }

    /// Where this replica stands, as it tells a parent. Bundles count as whole
    /// where their tree is held: damage is found later, and healed then.
    pub fn standing(&self, interest: &Interest) -> Standing {
        match self.held() {
            None => Standing { release: None, whole: Vec::new() },
            Some(held) => {
                let names = held.bundles.leaves().values().map(|leaf| leaf.name.clone());
                let whole = names.filter(|name| interest.covers(name)).collect();
                Standing { release: Some(held.accepted()), whole }
            }
        }
    }
}

/// Whether hashing these edits and so many leaves would hold up others on its thread.
fn is_large(edits: &[Bytes], leaves: usize) -> bool {
    let bytes = edits.iter().map(|edit| edit.len() as u64).fold(leaves as u64 * 256, u64::saturating_add);
    bytes > LOOKED_INTO_AT_ONCE
}
