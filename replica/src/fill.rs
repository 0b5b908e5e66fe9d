//! Bundles that are wanted and not held: fetched beside what is followed, so
//! that no child's next release waits for them, and joined to the release that
//! is held (specs/wire.md, W-54 and W-55).

use crate::session::pull;
use crate::{Held, Replica, ReplicaError, Update};
use rootcast::codec;
use rootcast::id::NodeId;
use rootcast::limits::MAX_FILLS;
use rootcast::merkle::PartialTree;
use rootcast::path::BundleName;
use rootcast::protocol::{Interest, Standing, UpdateRequest};
use rootcast::release::BundleLeaf;
use rootcast::subscriptions::lacking;
use rootcast::verify::ReleaseRecord;
use rootcast_transport::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, Weak};
use tokio::task::JoinSet;

impl Replica {
    /// Which bundles of an interest are in the release held, and not held of it.
    pub(crate) fn lacking(&self, interest: &Interest) -> Vec<BundleName> {
        let Some(held) = self.held() else { return Vec::new() };
        // A plan that cannot be read is mended first.
        let Ok(plan) = self.plan(&held) else { return Vec::new() };
        lacking(&held.bundles, plan.as_deref(), interest)
    }

    /// Fetches bundles as they are in the release held. The parent may be a release
    /// ahead or behind: what it sent is then the base of the rest. Nothing becomes visible.
    async fn fill(
        self: Arc<Self>,
        connection: Connection,
        interest: Interest,
        mut part: Option<Arc<Held>>,
    ) -> Result<Arc<Held>, ReplicaError> {
        let mut held = self.watch_held();
        loop {
            if let Some(part) = &part {
                let reached = |held: &Option<Arc<Held>>| {
                    held.as_ref().is_some_and(|held| held.accepted().rank() >= part.accepted().rank())
                };
                let reached = held.wait_for(reached).await.map_err(|_| ReplicaError::Stopped)?.clone();
                if reached.is_some_and(|held| held.accepted() == part.accepted()) {
                    return Ok(part.clone());
                }
            }
            let standing = match &part {
                None => Standing { release: None, whole: Vec::new() },
                Some(part) => Standing {
                    release: Some(part.accepted()),
                    whole: part.bundles.leaves().values().map(|leaf| leaf.name.clone()).collect(),
                },
            };
            let request =
                UpdateRequest { channel: self.channel.clone(), interest: interest.clone(), standing };
            let (update, bytes) = pull(&connection, request).await?.ok_or(ReplicaError::Withheld)?;
            self.count_received(bytes);
            let (replica, interest) = (self.clone(), interest.clone());
            part = Some(self.blocking(move || replica.take_part(&update, &interest, part.as_deref())).await?);
        }
    }

    /// Verifies bundles of a release and stores them. The release itself is not accepted by this.
    fn take_part(
        &self,
        update: &Update,
        interest: &Interest,
        before: Option<&Held>,
    ) -> Result<Arc<Held>, ReplicaError> {
        let trust = self.judging()?;
        let release = trust.release(&self.channel, &update.head.release)?;
        let leaves = Self::leaves(update, before, interest, release.accepted().number)?;
        let bundles = release.bundles(leaves, &update.head.siblings)?;
        if let Some(other) = bundles.leaves().values().find(|leaf| !interest.covers(&leaf.name)) {
            return Err(ReplicaError::NotAsked(other.name.clone()));
        }
        let admitted = Self::admit(&bundles, update, before)?;
        let siblings = update.head.siblings.clone();
        let part = Arc::new(Held::new(bundles, siblings, trust.trust().version));
        // Before it is there, so that no collection comes between.
        self.filling.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&part));
        let _turn = self.writing();
        let floors = self.store.floors();
        self.pass(&admitted, &floors)?;
        let mut batch = self.store.begin()?;
        for admission in &admitted {
            let applied = admission.last.apply(&*self.store, &mut *batch);
            applied.map_err(|error| ReplicaError::edit(&admission.name, error))?;
        }
        self.log(update, &mut *batch)?;
        batch.commit(floors)?;
        self.inherit_snapshots(&part.bundles, update, before);
        Ok(part)
    }

    /// Makes a part that was fetched one with what is held; not where that is another release by now. Blocking.
    fn join(&self, part: &Held) -> Result<bool, ReplicaError> {
        let _turn = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = self.held().filter(|held| held.accepted() == part.accepted()) else {
            return Ok(false);
        };
        let mut tree = held.tree()?.clone();
        tree.join(part.tree()?).map_err(|_| ReplicaError::Unfit)?;
        let mut leaves = held.bundles.leaves().clone();
        leaves.extend(part.bundles.leaves().clone());
        self.hold(&held, &tree, leaves)?;
        Ok(true)
    }

    /// Lets go of all bundles that an interest does not cover, and of what the store
    /// has of them. Whether there were any. Blocking.
    ///
    /// # Errors
    /// When the store fails.
    pub fn narrow(&self, interest: &Interest) -> Result<bool, ReplicaError> {
        {
            let _turn = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(held) = self.held() else { return Ok(false) };
            let mut leaves = held.bundles.leaves().clone();
            leaves.retain(|_, leaf| interest.covers(&leaf.name));
            // A release of which nothing is held proves nothing.
            if leaves.is_empty() || leaves.len() == held.bundles.leaves().len() {
                return Ok(false);
            }
            self.hold(&held, held.tree()?, leaves)?;
        }
        self.forget_snapshots();
        self.collect_now()?;
        Ok(true)
    }

    /// Holds these leaves of the release that is held, and no others. `receiving` is the caller's.
    fn hold(
        &self,
        held: &Held,
        tree: &PartialTree,
        leaves: BTreeMap<u64, BundleLeaf>,
    ) -> Result<(), ReplicaError> {
        let indices: Vec<u64> = leaves.keys().copied().collect();
        let siblings = tree.prove(&indices).map_err(|_| ReplicaError::Unfit)?;
        let bundles = held.bundles.release().clone().bundles(leaves, &siblings)?;
        let record = ReleaseRecord::new(&bundles, &siblings);
        let now = Arc::new(Held::new(bundles, siblings, held.judged_by));
        now.tree()?;
        let _write = self.writing();
        let mut batch = self.store.begin()?;
        batch.put_release(held.accepted().number, codec::encode(&record).into())?;
        batch.commit(self.store.floors())?;
        self.held.send_replace(Some(now));
        Ok(())
    }

    /// The trees of what is being fetched.
    pub(crate) fn filling_roots(&self) -> Vec<NodeId> {
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        filling.retain(|part| part.strong_count() > 0);
        let parts: Vec<Arc<Held>> = filling.iter().filter_map(Weak::upgrade).collect();
        parts.iter().flat_map(|part| part.bundles.leaves().values().map(|leaf| leaf.root)).collect()
    }
}

/// A fetch that ended: of which bundles, and what came of it.
pub(crate) type Filled = (Interest, Result<Arc<Held>, ReplicaError>);

/// The fetches of one session with a parent.
pub(crate) struct Filling {
    replica: Arc<Replica>,
    connection: Connection,
    tasks: JoinSet<Filled>,
    names: BTreeSet<BundleName>,
    /// The plan that was looked at last.
    plan: Option<Option<NodeId>>,
}

impl Filling {
    pub(crate) fn new(replica: &Arc<Replica>, connection: &Connection) -> Self {
        let (replica, connection) = (replica.clone(), connection.clone());
        Self { replica, connection, tasks: JoinSet::new(), names: BTreeSet::new(), plan: None }
    }

    /// What of an interest can be subscribed to now: all but what is yet to be
    /// fetched, whose fetch this begins. A host has no children that it could
    /// keep waiting, and subscribes to all at once.
    pub(crate) fn begin(&mut self, wanted: &Interest) -> Interest {
        self.plan = self.replica.plan_root();
        let lacking = if self.replica.keep_log { self.replica.lacking(wanted) } else { Vec::new() };
        if lacking.is_empty() {
            return wanted.clone();
        }
        let new: Vec<BundleName> =
            lacking.iter().filter(|name| !self.names.contains(*name)).cloned().collect();
        if !new.is_empty() && self.tasks.len() < MAX_FILLS {
            tracing::info!(channel = %self.replica.channel, bundles = new.len(), first = ?new.first(), "fetching bundles for children");
            self.names.extend(new.iter().cloned());
            self.spawn(Interest::Named(new), None);
        }
        match wanted {
            Interest::Named(names) => {
                let held = |name: &&BundleName| lacking.binary_search(name).is_err();
                Interest::Named(names.iter().filter(held).cloned().collect())
            }
            Interest::All => {
                let held = self.replica.held();
                let leaves = held.iter().flat_map(|held| held.bundles.leaves().values());
                Interest::named(leaves.map(|leaf| leaf.name.clone()))
            }
        }
    }

    /// Whether another release has come with another plan since [`Filling::begin`].
    pub(crate) fn is_outdated(&self) -> bool {
        self.plan != self.replica.plan_root()
    }

    fn spawn(&mut self, interest: Interest, part: Option<Arc<Held>>) {
        let (replica, connection) = (self.replica.clone(), self.connection.clone());
        self.tasks.spawn(async move {
            let outcome = replica.fill(connection, interest.clone(), part).await;
            (interest, outcome)
        });
    }

    /// Waits for a fetch to end; for ever where there is none.
    pub(crate) async fn next(&mut self) -> Result<Filled, ReplicaError> {
        match self.tasks.join_next().await {
            Some(ended) => ended.map_err(|_| ReplicaError::Stopped),
            None => std::future::pending().await,
        }
    }

    /// Makes what was fetched a part of what is held.
    ///
    /// # Errors
    /// Where the parent did not have it: another may.
    pub(crate) async fn take(&mut self, (interest, outcome): Filled) -> Result<(), ReplicaError> {
        let part = outcome?;
        let (replica, joining) = (self.replica.clone(), part.clone());
        if !self.replica.blocking(move || replica.join(&joining)).await? {
            // A release came in between, and what changed is fetched.
            self.spawn(interest, Some(part));
            return Ok(());
        }
        if let Interest::Named(names) = &interest {
            self.names.retain(|name| names.binary_search(name).is_err());
        }
        // What the plan names is there, and an honest parent waits until it has it.
        if self.replica.lacking(&interest).is_empty() { Ok(()) } else { Err(ReplicaError::Withheld) }
    }
}
