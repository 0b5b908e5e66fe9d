//! Finding what the store lacks, and fetching exactly that.

use crate::objects::Objects;
use crate::{Replica, ReplicaError};
use rootcast::id::{NodeId, ObjectId};
use rootcast::limits::{
    COLLECT_FROM, LOGGED_RELEASES, MAX_OBJECTS_PER_REQUEST, MAX_REPAIR_ROUNDS, RETAINED_RELEASES,
};
use rootcast::object::{ObjectSource, ReadError};
use rootcast::path::BundleName;
use rootcast::protocol::ObjectsRequest;
use rootcast::release::BundleLeaf;
use rootcast::tree::{Tree, TreeError};
use rootcast_store::{Damage, RecordId, Retained};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

impl Replica {
    /// Re-hashes the whole store; damage found counts as absent from then on.
    /// Blocking.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find_damage(&self) -> Result<Vec<Damage>, ReplicaError> {
        let damage = self.store.verify(&mut |_, _| {})?;
        for damage in &damage {
            tracing::warn!(channel = %self.channel, %damage, "the store is damaged");
        }
        Ok(damage)
    }

    /// Objects of the held release that are missing, as far as they can be
    /// known: below a missing node nothing is. Blocking.
    fn missing(&self) -> Result<Vec<(BundleName, Vec<ObjectId>)>, ReplicaError> {
        let Some(held) = self.held() else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        let mut seen = HashSet::new();
        for leaf in held.bundles.leaves().values() {
            let mut missing = Vec::new();
            self.missing_below(leaf.root, &mut seen, &mut missing)?;
            if !missing.is_empty() {
                all.push((leaf.name.clone(), missing));
            }
        }
        Ok(all)
    }

    fn missing_below(
        &self,
        root: NodeId,
        seen: &mut HashSet<ObjectId>,
        missing: &mut Vec<ObjectId>,
    ) -> Result<(), ReplicaError> {
        let source: &dyn ObjectSource = &*self.store;
        let tree = match Tree::open(source, root) {
            Ok(tree) => tree,
            Err(TreeError::Read(ReadError::Missing(id) | ReadError::Damaged(id))) => {
                missing.push(id);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        tree.objects::<ReplicaError>(&mut |id| {
            if !seen.insert(id) {
                return Ok(false);
            }
            // Nodes and lists are read to go on below them; a blob's bytes were
            // looked at by `find_damage`, so for it being there is enough.
            let there = match id {
                ObjectId::Blob(_) => self.store.contains(&id),
                ObjectId::Node(_) | ObjectId::ChunkList(_) => source.read(&id).is_ok(),
            };
            if !there {
                missing.push(id);
            }
            Ok(there)
        })
    }

    /// Fetches what the held release lacks here, level by level, and nothing else.
    ///
    /// # Errors
    /// [`ReplicaError::Unrepaired`] when the parent does not have it either.
    pub(crate) async fn repair(self: &Arc<Self>, mut parent: impl Objects) -> Result<u64, ReplicaError> {
        let mut fetched = 0;
        for _ in 0..MAX_REPAIR_ROUNDS {
            let replica = self.clone();
            let missing = self.blocking(move || replica.missing()).await?;
            if missing.is_empty() {
                return Ok(fetched);
            }
            for (bundle, missing) in &missing {
                for some in missing.chunks(MAX_OBJECTS_PER_REQUEST) {
                    fetched += self.fetch(&mut parent, bundle, some).await?;
                }
            }
        }
        let replica = self.clone();
        match self.blocking(move || replica.missing()).await?.iter().map(|(_, missing)| missing.len()).sum() {
            0 => Ok(fetched),
            left => Err(ReplicaError::Unrepaired(left)),
        }
    }

    /// Fetches an object of whichever bundle of the held release has it.
    pub(crate) async fn fetch_any(
        self: &Arc<Self>,
        parent: &mut impl Objects,
        object: ObjectId,
    ) -> Result<(), ReplicaError> {
        let held = self.held().ok_or(ReplicaError::Unrepaired(1))?;
        for leaf in held.bundles.leaves().values() {
            match self.fetch(parent, &leaf.name, &[object]).await {
                Err(ReplicaError::Unrepaired(_)) => {}
                outcome => return outcome.map(drop),
            }
        }
        Err(ReplicaError::Unrepaired(1))
    }

    /// Fetches these objects of a bundle of the held release and makes them durable.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        parent: &mut impl Objects,
        bundle: &BundleName,
        objects: &[ObjectId],
    ) -> Result<u64, ReplicaError> {
        let request = ObjectsRequest {
            channel: self.channel.clone(),
            release: self.held().map_or(0, |held| held.accepted().number),
            bundle: bundle.clone(),
            objects: objects.to_vec(),
        };
        let fetched = parent.objects(request).await?;
        if fetched.is_empty() {
            return Err(ReplicaError::Unrepaired(objects.len()));
        }
        let count = fetched.len() as u64;
        let replica = self.clone();
        self.blocking(move || {
            let _turn = replica.receiving.lock().unwrap_or_else(PoisonError::into_inner);
            let _write = replica.writing();
            let mut batch = replica.store.begin()?;
            for (id, bytes) in fetched {
                batch.write(id, bytes).map_err(TreeError::from)?;
            }
            Ok(batch.commit(replica.store.floors())?)
        })
        .await?;
        self.healed.fetch_add(count, Ordering::Relaxed);
        tracing::info!(channel = %self.channel, objects = count, parent = %parent.name(), "healed");
        Ok(count)
    }

    /// Keeps exactly these trees, beside those of releases that are kept: what of them is in the
    /// store stays there, whichever release it is of.
    pub fn pin(&self, roots: Vec<NodeId>) {
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner) = roots;
    }

    /// Drops what no retained release reaches, once enough has gathered. Blocking.
    ///
    /// A replica with a log keeps as many releases as cost little beside the
    /// newest: who comes back from far behind then gets what changed, and not all.
    ///
    /// # Errors
    /// When the store fails; nothing is lost then.
    pub fn collect(&self) -> Result<(), ReplicaError> {
        let last = self.collected_at.load(Ordering::Relaxed);
        if self.store.size() < last.saturating_mul(2).saturating_add(COLLECT_FROM) {
            return Ok(());
        }
        self.collect_now()
    }

    /// As [`Replica::collect`], whatever there is. Blocking.
    ///
    /// # Errors
    /// When the store fails; nothing is lost then.
    pub fn collect_now(&self) -> Result<(), ReplicaError> {
        let _turn = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        let _write = self.writing();
        let Some(newest) = self.held() else { return Ok(()) };
        let mut retained = Retained { oldest_release: newest.accepted().number, ..Retained::default() };
        let mut bytes = 0;
        if let Err(error) = self.retain(newest.bundles.leaves().values(), &mut retained, &mut bytes) {
            // It is repaired first, and collected later.
            self.request_repair();
            return Err(error);
        }
        let allowed = bytes.max(COLLECT_FROM).saturating_mul(2);
        let most = if self.keep_log { LOGGED_RELEASES } else { RETAINED_RELEASES } as usize;
        let older = self.store.releases().into_iter().rev();
        let older = older.filter(|number| *number < newest.accepted().number).take(most - 1);
        for (count, number) in (1u64..).zip(older) {
            if count >= RETAINED_RELEASES && bytes > allowed {
                break;
            }
            // An older release that is damaged is let go.
            let Some(held) = self.release(number).ok().flatten() else { continue };
            let leaves = held.bundles.leaves().values();
            // What a relay holds no more nobody below it asks for; a host may still show it.
            let leaves = leaves.filter(|leaf| !self.keep_log || newest.bundles.index(&leaf.name).is_some());
            let _ = self.retain(leaves, &mut retained, &mut bytes);
            retained.oldest_release = number;
        }
        let source: &dyn ObjectSource = &*self.store;
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for root in self.snapshots.roots().into_iter().chain(self.filling_roots()).chain(pinned) {
            let _ = Tree::open(source, root)
                .and_then(|tree| tree.objects::<TreeError>(&mut |id| Ok(retained.objects.insert(id))));
        }
        let collected = self.store.collect(&retained)?;
        self.collected_at.store(self.store.size(), Ordering::Relaxed);
        if !collected.damaged.is_empty() {
            self.request_repair();
        }
        tracing::debug!(channel = %self.channel, freed = collected.bytes_freed, "collected");
        Ok(())
    }

    /// Retains a release's trees and the edits from there on, and adds what they take to `bytes`.
    fn retain<'l>(
        &self,
        leaves: impl Iterator<Item = &'l BundleLeaf>,
        retained: &mut Retained,
        bytes: &mut u64,
    ) -> Result<(), ReplicaError> {
        let source: &dyn ObjectSource = &*self.store;
        for leaf in leaves {
            let oldest = retained.edits.entry(leaf.name.clone()).or_insert(leaf.sequence);
            *oldest = leaf.sequence.min(*oldest);
            Tree::open(source, leaf.root)?.objects::<TreeError>(&mut |id| {
                let is_new = retained.objects.insert(id);
                if is_new {
                    *bytes = bytes.saturating_add(self.store.stored(&id).unwrap_or(0));
                }
                Ok(is_new)
            })?;
        }
        Ok(())
    }

    /// Whether the newest record can be read; if not it is written again from memory. Blocking.
    pub(crate) fn restore_records(&self, damage: &[Damage]) -> Result<(), ReplicaError> {
        let Some(held) = self.held() else { return Ok(()) };
        let number = held.accepted().number;
        let lost = damage.contains(&Damage::Record(RecordId::Release(number)));
        if lost || self.store.release(number).ok().flatten().is_none() {
            let _turn = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
            let _write = self.writing();
            let record = rootcast::verify::ReleaseRecord::new(&held.bundles, &held.siblings);
            let mut batch = self.store.begin()?;
            batch.put_release(number, rootcast::codec::encode(&record).into())?;
            batch.commit(self.store.floors())?;
        }
        Ok(())
    }
}
