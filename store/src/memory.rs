//! A store in memory, for simulations and for what needs no disk.

use crate::error::{Damage, RecordId, StoreError};
use crate::turn::{Turn, Turns};
use crate::{Batch, Collected, Retained, Stats, Store};
use bytes::Bytes;
use rootcast::acceptance::Floors;
use rootcast::id::ObjectId;
use rootcast::limits::{MAX_EDIT, MAX_OBJECT, MAX_RELEASE_RECORD};
use rootcast::object::{ObjectMap, ObjectSink, ObjectSource, ReadError, WriteError};
use rootcast::path::BundleName;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A [`Store`] that lasts as long as its value.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: RwLock<Contents>,
    turns: Turns,
}

#[derive(Debug, Default)]
struct Contents {
    objects: ObjectMap,
    edits: BTreeMap<BundleName, BTreeMap<u64, Bytes>>,
    releases: BTreeMap<u64, Bytes>,
    floors: Floors,
}

/// Stands where an error names a path.
const NOWHERE: &str = "memory";

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
    // The lock guards plain maps that every holder leaves whole, so a panic elsewhere spoils nothing.
    fn look(&self) -> RwLockReadGuard<'_, Contents> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn change(&self) -> RwLockWriteGuard<'_, Contents> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ObjectSource for MemoryStore {
    fn read(&self, id: &ObjectId) -> Result<Bytes, ReadError> {
        self.look().objects.read(id)
    }
}

impl Store for MemoryStore {
    fn floors(&self) -> Floors {
        self.look().floors
    }
    fn stored(&self, id: &ObjectId) -> Option<u64> {
        self.look().objects.get(id).map(|bytes| bytes.len() as u64)
    }
    fn release(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        Ok(self.look().releases.get(&number).cloned())
    }
    fn releases(&self) -> Vec<u64> {
        self.look().releases.keys().copied().collect()
    }

    fn edit(&self, bundle: &BundleName, sequence: u64) -> Result<Option<Bytes>, StoreError> {
        Ok(self.look().edits.get(bundle).and_then(|log| log.get(&sequence)).cloned())
    }
    fn begin(&self) -> Result<Box<dyn Batch + '_>, StoreError> {
        let turn = self.turns.take(Path::new(NOWHERE))?;
        Ok(Box::new(MemoryBatch { store: self, _turn: turn, pending: Contents::default(), lost: None }))
    }

    fn collect(&self, retained: &Retained) -> Result<Collected, StoreError> {
        let _turn = self.turns.take(Path::new(NOWHERE))?;
        let mut contents = self.change();
        let mut collected = Collected::default();
        contents.objects.retain(|id, bytes| {
            let kept = retained.objects.contains(id);
            collected.objects += u64::from(!kept);
            collected.bytes_freed += if kept { 0 } else { bytes.len() as u64 };
            kept
        });
        contents.edits.retain(|bundle, log| {
            log.retain(|sequence, bytes| {
                let kept = retained.keeps_edit(bundle, *sequence);
                collected.edits += u64::from(!kept);
                collected.bytes_freed += if kept { 0 } else { bytes.len() as u64 };
                kept
            });
            !log.is_empty()
        });
        contents.releases.retain(|number, bytes| {
            let kept = *number >= retained.oldest_release;
            collected.releases += u64::from(!kept);
            collected.bytes_freed += if kept { 0 } else { bytes.len() as u64 };
            kept
        });
        Ok(collected)
    }

    fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<Damage>, StoreError> {
        let contents = self.look();
        let total = contents.objects.values().map(|bytes| bytes.len() as u64).sum();
        let mut done = 0;
        let mut damage = Vec::new();
        progress(done, total);
        for (id, bytes) in &contents.objects {
            if !id.matches(bytes) {
                damage.push(Damage::Record(RecordId::Object(*id)));
            }
            done += bytes.len() as u64;
            progress(done, total);
        }
        Ok(damage)
    }

    fn size(&self) -> u64 {
        self.stats().bytes_stored
    }

    fn stats(&self) -> Stats {
        let contents = self.look();
        let edits = || contents.edits.values().flat_map(BTreeMap::values);
        let everything = contents.objects.values().chain(edits()).chain(contents.releases.values());
        let bytes = everything.map(|bytes| bytes.len() as u64).sum();
        Stats {
            objects: contents.objects.len() as u64,
            edits: edits().count() as u64,
            releases: contents.releases.len() as u64,
            bytes_raw: bytes,
            bytes_stored: bytes,
            files: 0,
            bytes_on_disk: 0,
        }
    }
}

struct MemoryBatch<'a> {
    store: &'a MemoryStore,
    _turn: Turn<'a>,
    pending: Contents,
    lost: Option<StoreError>,
}

impl MemoryBatch<'_> {
    fn check(&mut self, record: RecordId, length: usize, limit: u64) -> Result<(), StoreError> {
        if let Some(cause) = &self.lost {
            return Err(cause.clone());
        }
        let length = length as u64;
        if length > limit {
            let cause = StoreError::TooLarge { record, length, limit };
            return Err(self.lost.insert(cause).clone());
        }
        Ok(())
    }
}

impl ObjectSink for MemoryBatch<'_> {
    fn write(&mut self, id: ObjectId, bytes: Bytes) -> Result<(), WriteError> {
        let refuse = |error: StoreError| WriteError { id, reason: error.to_string() };
        self.check(RecordId::Object(id), bytes.len(), MAX_OBJECT).map_err(refuse)?;
        if !id.matches(&bytes) {
            self.lost = Some(StoreError::Mismatch { id });
            return Err(refuse(StoreError::Mismatch { id }));
        }
        self.pending.objects.insert(id, bytes);
        Ok(())
    }
}

impl Batch for MemoryBatch<'_> {
    fn put_edit(&mut self, bundle: &BundleName, sequence: u64, edit: Bytes) -> Result<(), StoreError> {
        let record = RecordId::Edit { bundle: bundle.clone(), sequence };
        self.check(record, edit.len(), MAX_EDIT)?;
        self.pending.edits.entry(bundle.clone()).or_default().insert(sequence, edit);
        Ok(())
    }

    fn put_release(&mut self, number: u64, record: Bytes) -> Result<(), StoreError> {
        self.check(RecordId::Release(number), record.len(), MAX_RELEASE_RECORD)?;
        self.pending.releases.insert(number, record);
        Ok(())
    }

    fn commit(mut self: Box<Self>, floors: Floors) -> Result<(), StoreError> {
        if let Some(cause) = self.lost.take() {
            return Err(cause);
        }
        let mut contents = self.store.change();
        if !contents.floors.may_become(&floors) {
            let (accepted, offered) = (Box::new(contents.floors), Box::new(floors));
            return Err(StoreError::FloorsBack { accepted, offered });
        }
        contents.objects.append(&mut self.pending.objects);
        for (bundle, mut log) in core::mem::take(&mut self.pending.edits) {
            contents.edits.entry(bundle).or_default().append(&mut log);
        }
        contents.releases.append(&mut self.pending.releases);
        contents.floors = floors;
        Ok(())
    }
}
