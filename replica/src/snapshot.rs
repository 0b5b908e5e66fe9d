//! Snapshots made ahead, as small as can be, so that a cold child neither waits nor gets more than it must.
//!
//! A snapshot ages well: what a bundle's newest tree has beyond it follows as
//! one edit. It is made anew once that edit is worth a fair part of it.

use crate::{Replica, ReplicaError};
use bytes::Bytes;
use rootcast::edit::{self, Effort};
use rootcast::id::NodeId;
use rootcast::limits::{SNAPSHOT_BYTES, SNAPSHOT_FROM, STORE_LOOK, TEND_AFTER, TEND_WITHIN};
use rootcast::object::ObjectSource;
use rootcast::path::BundleName;
use rootcast::protocol::Waypoint;
use rootcast::release::BundleLeaf;
use rootcast::tree::{Totals, empty_root};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A snapshot of a bundle as it once was.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) root: NodeId,
    pub(crate) edit: Bytes,
    totals: Totals,
    /// Whether it is as small as can be.
    is_best: bool,
}

impl Snapshot {
    /// Whether an edit from here is so long that a new snapshot serves better.
    pub(crate) fn is_outgrown_by(&self, edit: usize) -> bool {
        edit > self.edit.len() / 32
    }

    pub(crate) fn waypoint(&self) -> Waypoint {
        let Totals { files, bytes } = self.totals;
        Waypoint { root: self.root, files, bytes, length: self.edit.len() as u64 }
    }
}

/// The newest snapshot of each bundle that has one.
#[derive(Default)]
pub(crate) struct Snapshots(Mutex<BTreeMap<BundleName, Arc<Snapshot>>>);

impl Snapshots {
    pub(crate) fn find(&self, name: &BundleName) -> Option<Arc<Snapshot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The trees that they stand for: to be kept, as long as edits start from there.
    pub(crate) fn roots(&self) -> Vec<NodeId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(|made| made.root).collect()
    }

    fn keep(&self, name: BundleName, made: Snapshot) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&name);
        let held: u64 = all.values().map(|made| made.edit.len() as u64).sum();
        if held.saturating_add(made.edit.len() as u64) <= SNAPSHOT_BYTES {
            all.insert(name, Arc::new(made));
        }
    }

    /// Keeps a snapshot that came in, until there is a better one.
    pub(crate) fn inherit(&self, name: &BundleName, root: NodeId, totals: Totals, edit: &Bytes) {
        if totals.bytes >= SNAPSHOT_FROM && self.find(name).is_none() {
            self.keep(name.clone(), Snapshot { root, edit: edit.clone(), totals, is_best: false });
        }
    }

    fn retain(&self, leaves: &BTreeMap<u64, BundleLeaf>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|name, _| leaves.values().any(|leaf| leaf.name == *name));
    }
}

/// What [`Replica::tend`] does beside collecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tending {
    /// A relay: it makes snapshots for cold children.
    Serves,
    /// An agent: it has none.
    Follows,
}

impl Replica {
    /// Does what can wait until nothing else is to be done: collects, and makes
    /// snapshots. Runs beside [`crate::follow`] until it is dropped.
    pub async fn tend(self: Arc<Self>, tending: Tending) {
        let mut held = self.watch_held();
        held.mark_changed();
        loop {
            match tokio::time::timeout(STORE_LOOK, held.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    self.put_back().await;
                    continue;
                }
            }
            let latest = tokio::time::Instant::now() + TEND_WITHIN;
            loop {
                let quiet = (tokio::time::Instant::now() + TEND_AFTER).min(latest);
                match tokio::time::timeout_at(quiet, held.changed()).await {
                    Ok(Ok(())) if quiet < latest => {}
                    Ok(Err(_)) => return,
                    _ => break,
                }
            }
            let replica = self.clone();
            if let Err(error) = self.blocking(move || replica.collect()).await {
                tracing::warn!(channel = %self.channel, %error, "collection failed; nothing is lost");
            }
            if tending == Tending::Serves
                && let Err(error) = self.make_snapshots().await
            {
                tracing::warn!(channel = %self.channel, %error, "no snapshot could be made ahead");
            }
        }
    }

    /// Puts back what somebody deleted of the store.
    async fn put_back(self: &Arc<Self>) {
        let replica = self.clone();
        let outcome = self.blocking(move || {
            let _write = replica.writing();
            Ok(replica.store.put_back()?)
        });
        match outcome.await {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!(channel = %self.channel, "files of the store were deleted; they are put back")
            }
            Err(error) => {
                tracing::error!(channel = %self.channel, %error, "files of the store are gone and could not be put back")
            }
        }
    }

    /// Forgets the snapshots of bundles that are not held any more.
    pub(crate) fn forget_snapshots(&self) {
        if let Some(held) = self.held() {
            self.snapshots.retain(held.bundles.leaves());
        }
    }

    /// Makes the snapshots that the held release wants and that are not there yet.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn make_snapshots(self: &Arc<Self>) -> Result<(), ReplicaError> {
        let Some(held) = self.held() else { return Ok(()) };
        self.forget_snapshots();
        let mut leaves: Vec<BundleLeaf> = held.bundles.leaves().values().cloned().collect();
        leaves.sort_by_key(|leaf| core::cmp::Reverse(leaf.bytes));
        for leaf in leaves.into_iter().take_while(|leaf| leaf.bytes >= SNAPSHOT_FROM) {
            if !self.is_wanted(&leaf).await {
                continue;
            }
            let (replica, to) = (self.clone(), leaf.root);
            let made = self.blocking(move || {
                let source: &dyn ObjectSource = &*replica.store;
                let made = edit::encode_with((source, empty_root()), (source, to), Effort::Best);
                made.map_err(|error| ReplicaError::edit(&leaf.name, error)).map(|edit| (leaf, edit))
            });
            let (leaf, edit) = made.await?;
            tracing::debug!(channel = %self.channel, bundle = %leaf.name, bytes = edit.len(), "snapshot made ahead");
            let (root, totals) = (leaf.root, leaf.totals());
            let made = Snapshot { root, edit: Bytes::from(edit), totals, is_best: true };
            self.snapshots.keep(leaf.name, made);
            // What was made ready for cold children before is larger.
            self.prepared.clear();
        }
        Ok(())
    }

    /// Whether a bundle has no snapshot, or one that it has outgrown.
    async fn is_wanted(self: &Arc<Self>, leaf: &BundleLeaf) -> bool {
        let Some(made) = self.snapshots.find(&leaf.name) else {
            return true;
        };
        if !made.is_best || made.root == leaf.root {
            return !made.is_best;
        }
        match self.computed(made.root, leaf.root, Effort::Usual).await {
            Ok(edit) => made.is_outgrown_by(edit.len()),
            Err(_) => true,
        }
    }
}
