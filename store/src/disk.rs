//! A store in append-only packs: one sequential write and one sync for a whole
//! batch, one positional read for an object (specs/store.md).

mod batch;
mod codec;
mod collect;
mod device;
mod floors;
mod format;
mod index;
mod pack;
mod recover;
mod rescue;
mod verify;

use self::batch::{DiskBatch, Writer};
use self::floors::{FloorsFile, Slots};
use self::format::{Key, Slot};
use self::index::{Hashed, Index, Location};
use self::pack::PackFile;
use self::recover::{PackState, Recovered, recover};
use crate::error::{Damage, RecordId, StoreError};
use crate::turn::Turns;
use crate::{Batch, Collected, Retained, Stats, Store};
use bytes::Bytes;
use rootcast::acceptance::Floors;
use rootcast::id::ObjectId;
use rootcast::limits::{STORE_COLLECT_WHOLE, STORE_OPEN_TRIES, STORE_SEGMENT, STORE_SPOOL};
use rootcast::object::{ObjectSource, ReadError};
use rootcast::path::BundleName;
use std::collections::{BTreeMap, HashMap};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Sizes at which a store changes what it does. The defaults suit all uses;
/// tests set them low to get there quickly.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of a batch that are held in memory before they are written out.
    pub spool: u64,
    /// A pack of this many bytes takes no more batches.
    pub segment: u64,
    /// A store of up to this many bytes is rewritten whole by a collection.
    pub collect_whole: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { spool: STORE_SPOOL, segment: STORE_SEGMENT, collect_whole: STORE_COLLECT_WHOLE }
    }
}

/// A [`Store`] in a directory.
#[derive(Debug)]
pub struct DiskStore {
    dir: PathBuf,
    key: Key,
    bounds: Bounds,
    state: RwLock<State>,
    /// Records found damaged, and where: written anew they are elsewhere, and sound.
    damaged: Mutex<HashMap<RecordId, Location>>,
    turns: Turns,
    /// `None` if the store is open read-only.
    writer: Option<Mutex<Writer>>,
    found_at_open: Vec<Damage>,
    /// Held for as long as the store is open.
    held_lock: Mutex<Option<File>>,
}

/// What readers see. It changes only at a commit.
#[derive(Debug)]
struct State {
    index: Index,
    packs: BTreeMap<u32, PackState>,
    floors: Floors,
}

/// Why a record could not be given.
enum Fault {
    /// Its bytes are not what was stored, or the disk lost them.
    Damaged,
    Failed(StoreError),
}

impl DiskStore {
    /// Opens the store in `dir` to read and write, and creates it if there is
    /// none. What a crash left half-written is removed; what is damaged is
    /// left out and listed by [`DiskStore::found_at_open`].
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it; [`StoreError::NewerFormat`];
    /// [`StoreError::Unreadable`]; or the system refuses.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(dir, Bounds::default())
    }

    /// As [`DiskStore::open`], with other sizes.
    ///
    /// # Errors
    /// As [`DiskStore::open`].
    pub fn open_with(dir: impl AsRef<Path>, bounds: Bounds) -> Result<Self, StoreError> {
        let dir = dir.as_ref().to_path_buf();
        let created = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        created.map_err(|source| StoreError::io(&dir, "create the directory", source))?;
        let lock = lock(&dir)?;
        let slots = Slots::read(&dir)?;
        let packs = open_packs(&dir, &pack::list(&dir)?, true)?;
        let is_new = slots.is_none() && packs.is_empty();
        let slots = slots.unwrap_or_else(|| Slots::missing(&dir, is_new));
        let mut found = recover(&dir, &slots, packs)?;
        let key = match found.key {
            Some(key) => key,
            None => new_key(&dir)?,
        };
        found.key = Some(key);
        let (floors_file, allocated) = settle(&dir, key, &slots, &found)?;
        if is_new && let Some(parent) = dir.parent() {
            let here = parent.as_os_str().is_empty();
            pack::sync_dir(if here { Path::new(".") } else { parent })?;
        }
        let writer = Writer::new(&dir, found.serial, allocated, floors_file);
        let found_at_open = core::mem::take(&mut found.damage);
        Ok(Self::assemble(dir, bounds, found, found_at_open, Some((writer, lock))))
    }

    /// Opens the store in `dir` to read, whether or not another process writes
    /// to it. It shows the store as it was at some moment of the opening.
    ///
    /// # Errors
    /// [`StoreError::Io`] if there is none, or as [`DiskStore::open`], except
    /// `Locked`; [`StoreError::Unsettled`].
    pub fn open_read_only(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let dir = dir.as_ref().to_path_buf();
        for _ in 0..STORE_OPEN_TRIES {
            if let Some(mut found) = look(&dir)? {
                let found_at_open = core::mem::take(&mut found.damage);
                return Ok(Self::assemble(dir, Bounds::default(), found, found_at_open, None));
            }
        }
        Err(StoreError::Unsettled { path: dir })
    }

    fn assemble(
        dir: PathBuf,
        bounds: Bounds,
        found: Recovered,
        found_at_open: Vec<Damage>,
        writer: Option<(Writer, File)>,
    ) -> Self {
        let Recovered { key, index, packs, floors, .. } = found;
        let (writer, lock) = writer.unzip();
        Self {
            dir,
            // Without a key there are no packs, and a reader will make none.
            key: key.unwrap_or_default(),
            bounds,
            state: RwLock::new(State { index, packs, floors }),
            damaged: Mutex::default(),
            turns: Turns::default(),
            writer: writer.map(Mutex::new),
            found_at_open,
            held_lock: Mutex::new(lock),
        }
    }

    /// What was unreadable when the store was opened. What it held counts as absent.
    pub fn found_at_open(&self) -> &[Damage] {
        &self.found_at_open
    }

    /// The store's directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    // Every holder leaves the state whole, so a panic elsewhere spoils nothing.
    fn look(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
    fn damaged(&self) -> MutexGuard<'_, HashMap<RecordId, Location>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn writer(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        let path = || self.dir.clone();
        let writer = self.writer.as_ref().ok_or_else(|| StoreError::ReadOnly { path: path() })?;
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.broken { Err(StoreError::Broken { path: path() }) } else { Ok(writer) }
    }

    fn batch(&self) -> Result<DiskBatch<'_>, StoreError> {
        drop(self.writer()?);
        let turn = self.turns.take(&self.dir)?;
        rescue::put_back(self)?;
        Ok(DiskBatch::new(self, turn))
    }

    /// Whether the record at this place is one that was found damaged.
    fn is_damaged(&self, record: &RecordId, location: &Location) -> bool {
        self.damaged().get(record) == Some(location)
    }

    /// Where an object is, if it is not known to be damaged.
    fn sound_object(&self, id: &ObjectId) -> Option<Location> {
        let location = self.look().index.object(id)?;
        (!self.is_damaged(&RecordId::Object(*id), &location)).then_some(location)
    }

    /// The bytes of a record as stored.
    fn stored(&self, location: &Location) -> Result<Vec<u8>, Fault> {
        let pack = self.look().packs.get(&location.pack).map(|pack| Arc::clone(&pack.file));
        let pack = pack.ok_or(Fault::Damaged)?;
        pack.read(location.offset, location.stored as usize).map_err(|source| {
            let lost = source.kind() == io::ErrorKind::UnexpectedEof
                || source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
            if lost { Fault::Damaged } else { Fault::Failed(StoreError::io(&pack.path, "read it", source)) }
        })
    }

    /// The bytes of an object as stored and as given, checked against its id.
    fn object_at(&self, id: &ObjectId, location: &Location) -> Result<(Vec<u8>, Bytes), Fault> {
        let stored = self.stored(location)?;
        let raw = codec::unpack(&stored, location.raw).ok_or(Fault::Damaged)?;
        if id.matches(&raw) { Ok((stored, raw)) } else { Err(Fault::Damaged) }
    }

    /// The bytes of an edit or a release record, checked against their hash.
    fn hashed_at(&self, hashed: &Hashed) -> Result<Bytes, Fault> {
        let bytes = self.stored(&hashed.location)?;
        let sound = blake3::hash(&bytes).as_bytes() == &hashed.hash;
        if sound { Ok(bytes.into()) } else { Err(Fault::Damaged) }
    }

    /// Remembers what was found, so that writing it again is not skipped and the
    /// next collection rewrites the pack.
    fn mark_damaged(&self, record: &RecordId, location: Location) {
        if let Some(pack) = self.change().packs.get_mut(&location.pack) {
            pack.damaged = true;
        }
        self.damaged().insert(record.clone(), location);
    }

    fn read_hashed(
        &self,
        record: impl FnOnce() -> RecordId,
        find: impl Fn(&Index) -> Option<Hashed>,
    ) -> Result<Option<Bytes>, StoreError> {
        let outcome = self.settled(|| find(&self.look().index), |at| self.hashed_at(at));
        match outcome {
            None => Ok(None),
            Some((_, Ok(bytes))) => Ok(Some(bytes)),
            Some((_, Err(Fault::Failed(error)))) => Err(error),
            Some((hashed, Err(Fault::Damaged))) => {
                let record = record();
                self.mark_damaged(&record, hashed.location);
                Err(StoreError::Damaged { path: self.dir.clone(), record })
            }
        }
    }

    /// Finds a record and reads it. A collection may move the record between
    /// the two; a fault stands only if the record still is where it was looked for.
    fn settled<P: PartialEq, T>(
        &self,
        find: impl Fn() -> Option<P>,
        read: impl Fn(&P) -> Result<T, Fault>,
    ) -> Option<(P, Result<T, Fault>)> {
        let mut place = find()?;
        loop {
            let outcome = read(&place);
            if outcome.is_ok() {
                return Some((place, outcome));
            }
            let now = find()?;
            if now == place {
                return Some((place, outcome));
            }
            place = now;
        }
    }
}

impl ObjectSource for DiskStore {
    fn read(&self, id: &ObjectId) -> Result<Bytes, ReadError> {
        let outcome = self.settled(|| self.look().index.object(id), |location| self.object_at(id, location));
        match outcome {
            None => Err(ReadError::Missing(*id)),
            Some((_, Ok((_, bytes)))) => Ok(bytes),
            Some((location, Err(Fault::Damaged))) => {
                self.mark_damaged(&RecordId::Object(*id), location);
                Err(ReadError::Damaged(*id))
            }
            Some((_, Err(Fault::Failed(error)))) => {
                Err(ReadError::Failed { id: *id, reason: error.to_string() })
            }
        }
    }
}

impl Store for DiskStore {
    fn floors(&self) -> Floors {
        self.look().floors
    }
    fn stored(&self, id: &ObjectId) -> Option<u64> {
        self.sound_object(id).map(|location| location.stored.into())
    }
    fn release(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        self.read_hashed(|| RecordId::Release(number), |index| index.release(number))
    }
    fn releases(&self) -> Vec<u64> {
        self.look().index.releases()
    }

    fn edit(&self, bundle: &BundleName, sequence: u64) -> Result<Option<Bytes>, StoreError> {
        let record = || RecordId::Edit { bundle: bundle.clone(), sequence };
        self.read_hashed(record, |index| index.edit(bundle, sequence))
    }
    fn begin(&self) -> Result<Box<dyn Batch + '_>, StoreError> {
        Ok(Box::new(self.batch()?))
    }
    fn collect(&self, retained: &Retained) -> Result<Collected, StoreError> {
        collect::collect(self, retained)
    }
    fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<Damage>, StoreError> {
        verify::verify(self, progress)
    }
    fn put_back(&self) -> Result<bool, StoreError> {
        let _turn = self.turns.take(&self.dir)?;
        rescue::put_back(self)
    }
    fn size(&self) -> u64 {
        self.look().packs.values().map(|pack| pack.end).sum()
    }

    fn stats(&self) -> Stats {
        let state = self.look();
        Stats {
            files: state.packs.len() as u64,
            bytes_on_disk: state.packs.values().map(|pack| pack.end).sum(),
            ..state.index.stats()
        }
    }
}

/// Takes the lock that keeps other writers out, for as long as the file is open.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("LOCK");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(pack::FILE_MODE);
    let file = options.open(&path).map_err(|source| StoreError::io(&path, "open it", source))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked { path }),
        Err(error) => Err(StoreError::io(&path, "lock it", error.into())),
    }
}

fn new_key(dir: &Path) -> Result<Key, StoreError> {
    let mut key = [0; 32];
    let filled = getrandom::fill(&mut key).map_err(io::Error::other);
    filled.map_err(|source| StoreError::io(dir, "draw a random key", source))?;
    Ok(key)
}

fn open_packs(dir: &Path, numbers: &[u32], write: bool) -> Result<Vec<Arc<PackFile>>, StoreError> {
    let open = |number: &u32| {
        let opened = PackFile::open(dir, *number, write).map(Arc::new);
        opened.map_err(|source| StoreError::io(&pack::pack_path(dir, *number), "open it", source))
    };
    numbers.iter().map(open).collect()
}

/// Removes from disk what was never committed and makes the floors file whole,
/// in that order (S-14). Returns it with the size of the last pack's file.
fn settle(dir: &Path, key: Key, slots: &Slots, found: &Recovered) -> Result<(FloorsFile, u64), StoreError> {
    for pack in &found.discard {
        device::remove(&pack.path).map_err(|source| StoreError::io(&pack.path, "remove it", source))?;
    }
    if !found.discard.is_empty() {
        pack::sync_dir(dir)?;
    }
    let mut last = (0, 0);
    if let Some((number, pack)) = found.packs.last_key_value() {
        last = (*number, pack.end);
        if pack.file.size()? > pack.end {
            pack.file.cut(pack.end)?;
            pack.file.sync()?;
        }
    }
    let (pack, end) = last;
    let sequence = slots.newest.map_or(0, |slot| slot.sequence);
    let slot = Slot { sequence, serial: found.serial, pack, end, key, floors: found.floors };
    let file = match slots.newest {
        Some(newest) if slots.damage.is_empty() && newest == slot => FloorsFile::open(dir, &newest)?,
        _ => FloorsFile::create(dir, &Slot { sequence: sequence + 1, ..slot })?,
    };
    Ok((file, end))
}

/// One look at a store that may be changing; `None` if a collection came between.
fn look(dir: &Path) -> Result<Option<Recovered>, StoreError> {
    let slots = Slots::read(dir)?;
    let numbers = pack::list(dir)?;
    let mut packs = Vec::new();
    for number in &numbers {
        match PackFile::open(dir, *number, false) {
            Ok(pack) => packs.push(Arc::new(pack)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(StoreError::io(&pack::pack_path(dir, *number), "open it", source));
            }
        }
    }
    if slots.is_none() && packs.is_empty() {
        let source = io::ErrorKind::NotFound.into();
        return Err(StoreError::io(dir, "find a store in it", source));
    }
    let slots = slots.unwrap_or_else(|| Slots::missing(dir, false));
    // Read only after the slots, so that what they vouch for is there.
    let found = recover(dir, &slots, packs)?;
    let marked = |slots: &Slots| slots.newest.map(|slot| slot.pack);
    let after = Slots::read(dir)?;
    let settled = after.as_ref().and_then(marked) == marked(&slots)
        && after.is_none_or(|after| after.damage == slots.damage)
        && pack::list(dir)? == numbers;
    Ok(settled.then_some(found))
}
