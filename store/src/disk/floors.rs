//! The floors file: two slots, written in turn, each durable before the next
//! is touched (specs/store.md, S-9 and S-12).

use super::device;
use super::format::{Header, SLOT, Slot, higher};
use super::pack::{FILE_MODE, is_at, sync_dir};
use crate::error::{Damage, StoreError};
use rootcast::acceptance::Floors;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Slots begin this far apart, so that no sector and no page holds both.
pub(super) const SLOT_SPACING: u64 = 4096;
const SLOTS: u64 = 2;

/// What the slots said when they were read.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// The newer of the readable ones.
    pub(super) newest: Option<Slot>,
    /// The higher floors of the readable ones.
    pub(super) floors: Floors,
    /// Which were not readable.
    pub(super) damage: Vec<Damage>,
}

fn floors_path(dir: &Path) -> PathBuf {
    dir.join("floors")
}

impl Slots {
    /// Stands for a file that is not there, which is damage unless the store is new.
    pub(super) fn missing(dir: &Path, is_new: bool) -> Self {
        let path = floors_path(dir);
        let region = Damage::Region { path, offset: 0, length: SLOTS * SLOT_SPACING };
        let damage = if is_new { Vec::new() } else { vec![region] };
        Self { damage, ..Self::default() }
    }

    /// Reads the file; `None` if there is none.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = floors_path(dir);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::io(&path, "open it", source)),
        };
        let mut slots = Self::default();
        for number in 0..SLOTS {
            let mut bytes = [0; SLOT];
            let read = file.read_exact_at(&mut bytes, number * SLOT_SPACING);
            match read.map_or(Header::Bad, |()| Slot::decode(&bytes)) {
                Header::Good(slot) => {
                    // The newer slot goes first: on equal numbers its release wins.
                    let newer = slots.newest.is_none_or(|other| slot.sequence > other.sequence);
                    slots.floors = if newer {
                        higher(slot.floors, slots.floors)
                    } else {
                        higher(slots.floors, slot.floors)
                    };
                    slots.newest = if newer { Some(slot) } else { slots.newest };
                }
                Header::Newer(found) => return Err(StoreError::NewerFormat { path, found }),
                Header::Bad => slots.damage.push(Damage::Region {
                    path: path.clone(),
                    offset: number * SLOT_SPACING,
                    length: SLOT as u64,
                }),
            }
        }
        Ok(Some(slots))
    }
}

/// The file, open to write.
#[derive(Debug)]
pub(super) struct FloorsFile {
    path: PathBuf,
    file: File,
    /// Of the last slot written or tried.
    sequence: u64,
    /// Which slot is written next: never the one that holds the newest whole statement.
    next: u64,
}

impl FloorsFile {
    /// Replaces the file by a new one, whole in both slots.
    pub(super) fn create(dir: &Path, slot: &Slot) -> Result<Self, StoreError> {
        let (path, draft) = (floors_path(dir), dir.join("floors.new"));
        let failed = |action| {
            let draft = &draft;
            move |source| StoreError::io(draft, action, source)
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        let file = device::create(&options, &draft).map_err(failed("create it"))?;
        let mut bytes = vec![0; (SLOTS * SLOT_SPACING) as usize];
        for number in 0..SLOTS {
            let slot = Slot { sequence: slot.sequence + number, ..*slot }.encode();
            let place = bytes.iter_mut().skip((number * SLOT_SPACING) as usize);
            place.zip(slot).for_each(|(place, byte)| *place = byte);
        }
        device::write(&file, &draft, &bytes, 0).map_err(failed("write"))?;
        device::sync(&file, &draft).map_err(failed("sync it"))?;
        device::rename(&draft, &path).map_err(failed("rename it"))?;
        sync_dir(dir)?;
        Ok(Self { path, file, sequence: slot.sequence + SLOTS - 1, next: 0 })
    }

    /// Opens a file of which both slots are whole.
    pub(super) fn open(dir: &Path, newest: &Slot) -> Result<Self, StoreError> {
        let path = floors_path(dir);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let file = opened.map_err(|source| StoreError::io(&path, "open it", source))?;
        let mut first = [0; SLOT];
        let read = file.read_exact_at(&mut first, 0);
        read.map_err(|source| StoreError::io(&path, "read it", source))?;
        let next = if Slot::decode(&first) == Header::Good(*newest) { 1 } else { 0 };
        Ok(Self { path, file, sequence: newest.sequence, next })
    }

    /// Of the last slot written or tried.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether its name still leads to it.
    pub(super) fn is_there(&self) -> bool {
        is_at(&self.file, &self.path)
    }

    /// Writes one slot and makes it durable.
    pub(super) fn write(&mut self, slot: Slot) -> Result<(), StoreError> {
        // Counted even if it fails: what did reach the disk must not outrank the next.
        self.sequence += 1;
        let bytes = Slot { sequence: self.sequence, ..slot }.encode();
        let written = device::write(&self.file, &self.path, &bytes, self.next * SLOT_SPACING);
        written.map_err(|source| StoreError::io(&self.path, "write", source))?;
        let synced = device::sync(&self.file, &self.path);
        synced.map_err(|source| StoreError::io(&self.path, "sync it", source))?;
        self.next = (self.next + 1) % SLOTS;
        Ok(())
    }
}
