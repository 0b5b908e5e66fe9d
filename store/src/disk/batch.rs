//! Writing: a batch is one or more parts at the end of a pack, of which the
//! last commits all (specs/store.md, S-10).

use super::device;
use super::floors::FloorsFile;
use super::format::{Key, Line, PACK_HEADER, PartHeader, Slot};
use super::index::{Index, Location};
use super::pack::{PackFile, sync_dir};
use super::recover::PackState;
use super::{DiskStore, State, codec};
use crate::Batch;
use crate::error::{RecordId, StoreError};
use crate::turn::Turn;
use bytes::Bytes;
use rootcast::acceptance::Floors;
use rootcast::id::ObjectId;
use rootcast::limits::{MAX_EDIT, MAX_OBJECT, MAX_RELEASE_RECORD};
use rootcast::limits::{STORE_CONTENTS, STORE_PREALLOCATE};
use rootcast::object::{ObjectSink, WriteError};
use rootcast::path::BundleName;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zstd::bulk::Compressor;

/// Longest line of a table of contents, with room to spare.
const MAX_LINE: u64 = 256;

/// What only the one writer touches.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    /// The last serial used, also by a batch that came to nothing.
    serial: u64,
    /// Size of the last pack's file, which reads as zeros after the last batch.
    allocated: u64,
    pub(super) floors_file: FloorsFile,
    /// Whether a failure was left on disk that only recovery can undo.
    pub(super) broken: bool,
}

/// Where a batch is being written.
struct Target {
    pack: Arc<PackFile>,
    /// Whether the batch created the pack.
    created: bool,
    start: u64,
    at: u64,
    parts: u32,
    serial: u64,
}

impl Writer {
    pub(super) fn new(dir: &Path, serial: u64, allocated: u64, floors_file: FloorsFile) -> Self {
        Self { dir: dir.to_path_buf(), serial, allocated, floors_file, broken: false }
    }

    /// The last serial used.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// Goes on with files that were put back; the last pack's has this size.
    pub(super) fn restored(&mut self, floors_file: FloorsFile, allocated: u64) {
        (self.floors_file, self.allocated) = (floors_file, allocated);
    }

    /// Begins at the end of `last`, or in a new pack after it.
    fn target(
        &mut self,
        key: &Key,
        last: Option<(u32, PackState)>,
        may_append: bool,
    ) -> Result<Target, StoreError> {
        // Never the serial of a batch that may have left parts behind.
        self.serial += 1;
        let serial = self.serial;
        if let (Some((_, state)), true) = (&last, may_append) {
            let (pack, start) = (Arc::clone(&state.file), state.end);
            return Ok(Target { pack, created: false, start, at: start, parts: 0, serial });
        }
        let number = last.map_or(0, |(number, _)| number) + 1;
        let pack = Arc::new(PackFile::create(&self.dir, number, key)?);
        self.allocated = PACK_HEADER;
        let start = PACK_HEADER;
        Ok(Target { pack, created: true, start, at: start, parts: 0, serial })
    }

    /// Makes room, so that the sync of a small commit need not make a new size
    /// durable as well. That is only worth something: no room, no matter.
    fn reserve(&mut self, target: &Target, end: u64) {
        if end <= self.allocated || end - target.at > STORE_PREALLOCATE {
            self.allocated = self.allocated.max(end);
            return;
        }
        let length = end + STORE_PREALLOCATE - target.at;
        self.allocated = match target.pack.allocate(target.at, length) {
            Ok(()) => target.at + length,
            // What was got of it may be what is now missing.
            Err(_) => target.pack.cut(target.at).map_or(self.allocated, |()| end),
        };
    }

    /// Removes from disk what a batch wrote.
    fn undo(&mut self, target: &Target) {
        let undone = if target.created {
            self.allocated = 0;
            let removed = device::remove(&target.pack.path);
            removed.map_err(|source| StoreError::io(&target.pack.path, "remove it", source))
        } else {
            self.allocated = target.start;
            target.pack.cut(target.start).and_then(|()| target.pack.sync())
        };
        self.broken |= undone.is_err();
    }
}

/// A batch on its way to disk.
pub(super) struct DiskBatch<'a> {
    store: &'a DiskStore,
    /// The part that is being gathered: its contents, encoded and not, and its body.
    contents: Vec<u8>,
    lines: Vec<Line>,
    body: Vec<u8>,
    /// Everything that the batch puts. What is not yet written is at pack 0.
    placed: Index,
    /// Records that end with this batch.
    pub(super) forgotten: Vec<RecordId>,
    /// Packs whose live records this batch holds all of.
    pub(super) replaced: Vec<u32>,
    /// Whether it goes to a new pack and is written even if it is empty.
    pub(super) fresh: bool,
    target: Option<Target>,
    lost: Option<StoreError>,
    compressor: Option<Compressor<'static>>,
    // The last field: given back only after `drop` has undone what was written.
    _turn: Turn<'a>,
}

impl<'a> DiskBatch<'a> {
    pub(super) fn new(store: &'a DiskStore, turn: Turn<'a>) -> Self {
        Self {
            store,
            contents: Vec::new(),
            lines: Vec::new(),
            body: Vec::new(),
            placed: Index::default(),
            forgotten: Vec::new(),
            replaced: Vec::new(),
            fresh: false,
            target: None,
            lost: None,
            compressor: None,
            _turn: turn,
        }
    }

    /// Runs one step; a failure loses the batch.
    fn attempt<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(cause) = &self.lost {
            return Err(cause.clone());
        }
        let outcome = step(self);
        if let Err(cause) = &outcome {
            self.lost = Some(cause.clone());
        }
        outcome
    }

    /// Appends one line with its bytes.
    pub(super) fn add(&mut self, line: Line, bytes: &[u8]) -> Result<(), StoreError> {
        let spool = self.store.bounds.spool;
        let full = self.body.len() as u64 + bytes.len() as u64 > spool
            || self.contents.len() as u64 + MAX_LINE > STORE_CONTENTS;
        if full && !self.lines.is_empty() {
            self.write_gathered(None)?;
        }
        line.encode(&mut self.contents);
        if !matches!(line, Line::Drop(_)) {
            self.placed.apply(0, 0, line.clone());
        }
        self.lines.push(line);
        if bytes.len() as u64 > spool {
            return self.write_part(bytes, None);
        }
        self.body.extend_from_slice(bytes);
        Ok(())
    }

    fn write_gathered(&mut self, commit: Option<Floors>) -> Result<(), StoreError> {
        let mut body = core::mem::take(&mut self.body);
        let outcome = self.write_part(&body, commit);
        body.clear();
        self.body = body;
        outcome
    }

    /// Writes the gathered lines, whose bytes are `body`, as one part.
    fn write_part(&mut self, body: &[u8], commit: Option<Floors>) -> Result<(), StoreError> {
        let mut writer = self.store.writer()?;
        if self.target.is_none() {
            let state = self.store.look();
            let last = state.packs.last_key_value();
            let last = last.map(|(number, pack)| (*number, pack.clone()));
            drop(state);
            let small = |pack: &PackState| pack.end < self.store.bounds.segment;
            let may_append = !self.fresh && last.as_ref().is_some_and(|(_, pack)| small(pack));
            self.target = Some(writer.target(&self.store.key, last, may_append)?);
        }
        let Some(target) = &mut self.target else { return Ok(()) };
        let header = PartHeader {
            pack: target.pack.number,
            offset: target.at,
            serial: target.serial,
            index: target.parts,
            contents_length: self.contents.len() as u32,
            body_length: body.len() as u64,
            contents_hash: *blake3::hash(&self.contents).as_bytes(),
            body_hash: *blake3::hash(body).as_bytes(),
            floors: commit,
        };
        let mut front = header.encode(&self.store.key);
        front.extend_from_slice(&self.contents);
        writer.reserve(target, header.end());
        if (body.len() as u64) < STORE_PREALLOCATE {
            front.extend_from_slice(body);
            target.pack.write(target.at, &front)?;
        } else {
            target.pack.write(target.at, &front)?;
            target.pack.write(header.body(), body)?;
        }
        let mut offset = header.body();
        for line in self.lines.drain(..) {
            let length = line.length();
            if !matches!(line, Line::Drop(_)) {
                self.placed.apply(header.pack, offset, line);
            }
            offset += length;
        }
        self.contents.clear();
        target.at = header.end();
        target.parts += 1;
        Ok(())
    }

    /// Makes everything durable, then visible.
    pub(super) fn finish(&mut self, floors: Floors) -> Result<(), StoreError> {
        self.attempt(|batch| batch.try_finish(floors))
    }

    fn try_finish(&mut self, floors: Floors) -> Result<(), StoreError> {
        let accepted = self.store.look().floors;
        if !accepted.may_become(&floors) {
            let (accepted, offered) = (Box::new(accepted), Box::new(floors));
            return Err(StoreError::FloorsBack { accepted, offered });
        }
        if self.lines.is_empty() && self.target.is_none() && !self.fresh {
            return if floors == accepted { Ok(()) } else { self.finish_floors(floors) };
        }
        self.write_gathered(Some(floors))?;
        let mut writer = self.store.writer()?;
        let Some(target) = &self.target else { return Ok(()) };
        target.pack.sync()?;
        if target.created {
            sync_dir(&writer.dir)?;
        }
        let (serial, pack, end) = (target.serial, target.pack.number, target.at);
        let key = self.store.key;
        writer.floors_file.write(Slot { sequence: 0, serial, pack, end, key, floors })?;
        drop(writer);
        self.publish(floors);
        Ok(())
    }

    /// Only the floors change: both slots take them, so that no single damage
    /// takes them back, and no pack grows.
    fn finish_floors(&mut self, floors: Floors) -> Result<(), StoreError> {
        let mut writer = self.store.writer()?;
        let last = |state: &State| state.packs.last_key_value().map(|(at, pack)| (*at, pack.end));
        let (pack, end) = last(&self.store.look()).unwrap_or_default();
        let (serial, key) = (writer.serial, self.store.key);
        let slot = Slot { sequence: 0, serial, pack, end, key, floors };
        writer.floors_file.write(slot)?;
        writer.floors_file.write(slot)?;
        self.store.change().floors = floors;
        Ok(())
    }

    fn publish(&mut self, floors: Floors) {
        let Some(target) = self.target.take() else { return };
        let mut state = self.store.change();
        for record in &self.forgotten {
            state.index.forget(record);
        }
        state.index.absorb(core::mem::take(&mut self.placed));
        for number in &self.replaced {
            state.packs.remove(number);
        }
        let damaged = state.packs.get(&target.pack.number).is_some_and(|pack| pack.damaged);
        let pack = PackState { file: Arc::clone(&target.pack), end: target.at, damaged };
        state.packs.insert(target.pack.number, pack);
        state.floors = floors;
        let gone = |record: &RecordId, at: &Location| state.index.locate(record) != Some(*at);
        self.store.damaged().retain(|record, at| !gone(record, at));
    }

    fn put_object(&mut self, id: ObjectId, raw: &[u8]) -> Result<(), StoreError> {
        self.check(|| RecordId::Object(id), raw.len(), MAX_OBJECT)?;
        if !id.matches(raw) {
            return Err(StoreError::Mismatch { id });
        }
        if self.placed.object(&id).is_some() || self.store.sound_object(&id).is_some() {
            return Ok(());
        }
        let mut compressor = match self.compressor.take() {
            Some(compressor) => compressor,
            None => codec::compressor()
                .map_err(|source| StoreError::io(&self.store.dir, "make a compressor for it", source))?,
        };
        let packed = codec::pack(&mut compressor, raw);
        self.compressor = Some(compressor);
        let bytes = packed.as_deref().unwrap_or(raw);
        let line = Line::Object { id, stored: bytes.len() as u32, raw: raw.len() as u32 };
        self.add(line, bytes)
    }

    fn check(&self, record: impl FnOnce() -> RecordId, length: usize, limit: u64) -> Result<(), StoreError> {
        let length = length as u64;
        if length <= limit {
            return Ok(());
        }
        Err(StoreError::TooLarge { record: record(), length, limit })
    }
}

impl ObjectSink for DiskBatch<'_> {
    fn write(&mut self, id: ObjectId, bytes: Bytes) -> Result<(), WriteError> {
        let written = self.attempt(|batch| batch.put_object(id, &bytes));
        written.map_err(|error| WriteError { id, reason: error.to_string() })
    }
}

impl Batch for DiskBatch<'_> {
    fn put_edit(&mut self, bundle: &BundleName, sequence: u64, edit: Bytes) -> Result<(), StoreError> {
        self.attempt(|batch| {
            let bundle = bundle.clone();
            let record = || RecordId::Edit { bundle: bundle.clone(), sequence };
            batch.check(record, edit.len(), MAX_EDIT)?;
            let hash = *blake3::hash(&edit).as_bytes();
            let length = edit.len() as u32;
            batch.add(Line::Edit { bundle, sequence, length, hash }, &edit)
        })
    }

    fn put_release(&mut self, number: u64, record: Bytes) -> Result<(), StoreError> {
        self.attempt(|batch| {
            batch.check(|| RecordId::Release(number), record.len(), MAX_RELEASE_RECORD)?;
            let hash = *blake3::hash(&record).as_bytes();
            batch.add(Line::Release { number, length: record.len() as u32, hash }, &record)
        })
    }

    fn commit(mut self: Box<Self>, floors: Floors) -> Result<(), StoreError> {
        self.finish(floors)
    }
}

impl Drop for DiskBatch<'_> {
    fn drop(&mut self) {
        if let (Some(target), Ok(mut writer)) = (self.target.take(), self.store.writer()) {
            writer.undo(&target);
        }
    }
}
