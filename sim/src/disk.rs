//! A machine's disk: the real store over real files in memory, between them what can
//! go wrong. A crash in the middle of a commit keeps what was synced, and of what was not
//! each sector or not; a full disk takes nothing; bits flip in what lies still.

use crate::checks::Checks;
use crate::random::Random;
use bytes::Bytes;
use rootcast::acceptance::Floors;
use rootcast::id::{ObjectId, ReleaseHash};
use rootcast::object::{ObjectSink, ObjectSource, ReadError, WriteError};
use rootcast::path::BundleName;
use rootcast_store::{Batch, Collected, Damage, DiskStore, Retained, Stats, Store, StoreError};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes at once.
const SECTOR: usize = 512;

/// A fault of our own making, to see that a checker finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The store forgets its floors when it is opened again.
    ForgetsFloors,
    /// What is read is not compared with its id.
    ReadsUnverified,
    /// A release is accepted that nobody published.
    TakesForks,
}

/// A crash that waits for a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    No,
    AtNextCommit,
    Happened,
}

#[derive(Debug)]
struct Faults {
    random: Random,
    full: bool,
    crash: Crash,
    planted: Option<Planted>,
    opened: BTreeMap<PathBuf, u64>,
}

/// A node's disk. It outlives the node's processes.
#[derive(Debug)]
pub struct Disk {
    node: usize,
    faults: Mutex<Faults>,
    checks: Arc<Checks>,
    crashed: Arc<tokio::sync::Notify>,
}

impl Disk {
    /// A sound one. `crashed` is told when a crash has happened.
    pub fn new(node: usize, random: Random, checks: Arc<Checks>, crashed: Arc<tokio::sync::Notify>) -> Self {
        let opened = BTreeMap::new();
        let faults = Faults { random, full: false, crash: Crash::No, planted: None, opened };
        Self { node, faults: Mutex::new(faults), checks, crashed }
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it has no room, or has again.
    pub fn set_full(&self, full: bool) {
        self.faults().full = full;
    }

    /// The machine loses its power in the middle of the next commit.
    pub fn crash_at_next_commit(&self) {
        self.faults().crash = Crash::AtNextCommit;
    }

    /// Whether it did; the disk is good for a new process from then on.
    pub fn take_crash(&self) -> bool {
        let mut faults = self.faults();
        let happened = faults.crash == Crash::Happened;
        if happened {
            faults.crash = Crash::No;
        }
        happened
    }

    /// Forgets about a crash that did not come to be.
    pub fn disarm(&self) {
        let mut faults = self.faults();
        if faults.crash == Crash::AtNextCommit {
            faults.crash = Crash::No;
        }
    }

    /// Plants a fault.
    pub fn plant(&self, planted: Planted) {
        self.faults().planted = Some(planted);
    }

    /// Flips some bits of the packs in a directory. How many.
    pub fn flip_bits(&self, directory: &Path) -> io::Result<usize> {
        let mut faults = self.faults();
        let mut flipped = 0;
        for (path, mut bytes) in files(directory)? {
            let is_pack = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pack-"));
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if !is_pack || used == 0 {
                continue;
            }
            for _ in 0..1 + faults.random.below(3) {
                let (at, bit) = (faults.random.below(used), faults.random.below(8));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                    flipped += 1;
                }
            }
            overwrite(&path, &bytes)?;
        }
        Ok(flipped)
    }

    /// Opens the store in a directory.
    ///
    /// # Errors
    /// As [`DiskStore::open`].
    pub fn store(self: &Arc<Self>, directory: &Path) -> Result<Arc<dyn Store>, StoreError> {
        let inner = DiskStore::open(directory)?;
        let (times, planted) = {
            let mut faults = self.faults();
            let times = faults.opened.entry(directory.to_owned()).or_default();
            *times += 1;
            (*times, faults.planted)
        };
        let forgets = planted == Some(Planted::ForgetsFloors) && times > 1;
        let tampers = planted == Some(Planted::ReadsUnverified);
        let store =
            FaultyStore { inner, disk: self.clone(), directory: directory.to_owned(), forgets, tampers };
        self.checks.floors(self.node, directory, &store.floors());
        Ok(Arc::new(store))
    }
}

/// Small files of a directory, in name order.
fn files(directory: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() {
            let bytes = fs::read(&path)?;
            all.push((path, bytes));
        }
    }
    all.sort();
    Ok(all)
}

/// Writes over a file in place: who has it open sees it, as with a disk.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(path)?;
    file.set_len(bytes.len() as u64)?;
    file.write_all_at(bytes, 0)
}

/// Leaves a directory as a loss of power does that came before the commit was through: of
/// the packs each sector is the old or the new one; the floors, which come after the sync, are old.
fn tear(directory: &Path, before: &[(PathBuf, Vec<u8>)], random: &mut Random) -> io::Result<()> {
    let old: BTreeMap<&PathBuf, &Vec<u8>> = before.iter().map(|(path, bytes)| (path, bytes)).collect();
    for (path, new) in files(directory)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match old.get(&path) {
            Some(old) if name == "floors" => overwrite(&path, old)?,
            None if name == "floors" => fs::remove_file(&path)?,
            Some(old) if **old == new => {}
            old => {
                let none = Vec::new();
                let old = old.copied().unwrap_or(&none);
                let mut torn = new.clone();
                for (at, sector) in torn.chunks_mut(SECTOR).enumerate() {
                    if random.chance(0.5) {
                        continue;
                    }
                    for (within, byte) in sector.iter_mut().enumerate() {
                        *byte = old.get(at * SECTOR + within).copied().unwrap_or(0);
                    }
                }
                overwrite(&path, &torn)?;
            }
        }
    }
    Ok(())
}

struct FaultyStore {
    inner: DiskStore,
    disk: Arc<Disk>,
    directory: PathBuf,
    forgets: bool,
    tampers: bool,
}

impl FaultyStore {
    /// Why nothing can be written now.
    fn refuses(&self) -> Option<StoreError> {
        let (path, faults) = (self.directory.clone(), self.disk.faults());
        match (faults.crash, faults.full) {
            (Crash::Happened, _) => Some(StoreError::Broken { path }),
            (_, true) => {
                let source = Arc::new(io::Error::from(io::ErrorKind::StorageFull));
                Some(StoreError::DiskFull { path, source })
            }
            _ => None,
        }
    }
}

impl ObjectSource for FaultyStore {
    fn read(&self, id: &ObjectId) -> Result<Bytes, ReadError> {
        let bytes = self.inner.read(id)?;
        if self.tampers && matches!(id, ObjectId::Blob(_)) {
            return Ok(Bytes::from([&b"planted "[..], &bytes].concat()));
        }
        Ok(bytes)
    }
}

impl Store for FaultyStore {
    fn floors(&self) -> Floors {
        if self.forgets { Floors::default() } else { self.inner.floors() }
    }
    fn stored(&self, id: &ObjectId) -> Option<u64> {
        self.inner.stored(id)
    }
    fn release(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        self.inner.release(number)
    }
    fn releases(&self) -> Vec<u64> {
        self.inner.releases()
    }
    fn edit(&self, bundle: &BundleName, sequence: u64) -> Result<Option<Bytes>, StoreError> {
        self.inner.edit(bundle, sequence)
    }
    fn begin(&self) -> Result<Box<dyn Batch + '_>, StoreError> {
        if let Some(refusal) = self.refuses() {
            return Err(refusal);
        }
        Ok(Box::new(FaultyBatch { inner: self.inner.begin()?, store: self }))
    }
    fn collect(&self, retained: &Retained) -> Result<Collected, StoreError> {
        match self.refuses() {
            Some(refusal) => Err(refusal),
            None => self.inner.collect(retained),
        }
    }
    fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<Damage>, StoreError> {
        self.inner.verify(progress)
    }
    fn size(&self) -> u64 {
        self.inner.size()
    }
    fn stats(&self) -> Stats {
        self.inner.stats()
    }
}

struct FaultyBatch<'a> {
    inner: Box<dyn Batch + 'a>,
    store: &'a FaultyStore,
}

impl ObjectSink for FaultyBatch<'_> {
    fn write(&mut self, id: ObjectId, bytes: Bytes) -> Result<(), WriteError> {
        self.inner.write(id, bytes)
    }
}

impl Batch for FaultyBatch<'_> {
    fn put_edit(&mut self, bundle: &BundleName, sequence: u64, edit: Bytes) -> Result<(), StoreError> {
        self.inner.put_edit(bundle, sequence, edit)
    }
    fn put_release(&mut self, number: u64, record: Bytes) -> Result<(), StoreError> {
        self.inner.put_release(number, record)
    }

    fn commit(self: Box<Self>, mut floors: Floors) -> Result<(), StoreError> {
        let (store, disk) = (self.store, &self.store.disk);
        if disk.faults().planted == Some(Planted::TakesForks)
            && let Some(release) = &mut floors.release
        {
            // The same number, and another release.
            release.hash = ReleaseHash::of(release.hash.as_bytes());
        }
        let crashes = disk.faults().crash == Crash::AtNextCommit;
        let io = |source| StoreError::Io {
            path: store.directory.clone(),
            action: "simulate a crash",
            source: Arc::new(source),
        };
        let before = if crashes { files(&store.directory).map_err(io)? } else { Vec::new() };
        self.inner.commit(floors)?;
        if crashes {
            let kept = {
                let mut faults = disk.faults();
                faults.crash = Crash::Happened;
                let kept = faults.random.chance(0.5);
                if !kept {
                    tear(&store.directory, &before, &mut faults.random).map_err(io)?;
                }
                kept
            };
            if kept {
                disk.checks.committed(disk.node, &store.directory, &floors);
            }
            disk.crashed.notify_one();
            return Err(StoreError::Broken { path: store.directory.clone() });
        }
        disk.checks.committed(disk.node, &store.directory, &floors);
        Ok(())
    }
}
