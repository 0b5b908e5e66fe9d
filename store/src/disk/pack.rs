//! One pack file: positional reads and writes, and the walk over its parts.

use super::device;
use super::format::{Key, PACK_HEADER, PART_HEADER, PART_MARKER, PartHeader, pack_header};
use crate::error::StoreError;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes that a search or a check reads at once.
const STEP: usize = 64 * 1024;
/// A store may hold secrets of a configuration: only its owner reads it.
pub(super) const FILE_MODE: u32 = 0o600;

/// An open pack. Readers keep it while they read, so it stays readable after
/// a collection has unlinked it.
#[derive(Debug)]
pub(super) struct PackFile {
    pub(super) path: PathBuf,
    pub(super) number: u32,
    file: File,
}

/// Where pack `number` is.
pub(super) fn pack_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("pack-{number:08}"))
}

/// The numbers of the packs in `dir`, in order. Other files are none of ours.
pub(super) fn list(dir: &Path) -> Result<Vec<u32>, StoreError> {
    let failed = |source| StoreError::io(dir, "list the directory", source);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("pack-")?.parse().ok());
        numbers.extend(number.filter(|number| pack_path(dir, *number) == dir.join(&name)));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Whether a path leads to an open file.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let same =
        |one: &fs::Metadata, other: &fs::Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(open), Ok(named)) if same(&open, &named))
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    device::sync_names(dir).map_err(|source| StoreError::io(dir, "sync the directory", source))
}

/// What a walk meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A part whose header is whole.
    Part(PartHeader),
    /// Bytes that belong to no such part.
    Gap { offset: u64, length: u64 },
}

impl Found {
    /// Where it begins.
    pub(super) fn offset(&self) -> u64 {
        match self {
            Self::Part(header) => header.offset,
            Self::Gap { offset, .. } => *offset,
        }
    }
}

impl PackFile {
    /// Opens pack `number`, to append as well if `write`.
    pub(super) fn open(dir: &Path, number: u32, write: bool) -> io::Result<Self> {
        let path = pack_path(dir, number);
        let file = OpenOptions::new().read(true).write(write).open(&path)?;
        Ok(Self { path, number, file })
    }

    /// Creates pack `number` with its header; nothing is synced yet.
    pub(super) fn create(dir: &Path, number: u32, key: &Key) -> Result<Self, StoreError> {
        let path = pack_path(dir, number);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(FILE_MODE);
        let created = device::create(&options, &path);
        let file = created.map_err(|source| StoreError::io(&path, "create it", source))?;
        let pack = Self { path, number, file };
        if let Err(error) = pack.write(0, &pack_header(number, key)) {
            // What made the write fail is the error to report; recovery discards an empty pack.
            let _ = device::remove(&pack.path);
            return Err(error);
        }
        Ok(pack)
    }

    /// Writes the first `end` bytes of a pack that was deleted to a new file of its name, durably but for the name.
    pub(super) fn restore(dir: &Path, deleted: &Self, end: u64) -> Result<Self, StoreError> {
        let path = pack_path(dir, deleted.number);
        let draft = dir.join("pack.new");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        let failed = |action| {
            let draft = &draft;
            move |source| StoreError::io(draft, action, source)
        };
        let file = device::create(&options, &draft).map_err(failed("create it"))?;
        let mut at = 0;
        while at < end {
            let step = (end - at).min(STEP as u64);
            let bytes = deleted.read(at, step as usize).map_err(deleted.failed("read it"))?;
            device::write(&file, &draft, &bytes, at).map_err(failed("write"))?;
            at += step;
        }
        device::sync(&file, &draft).map_err(failed("sync it"))?;
        device::rename(&draft, &path).map_err(failed("rename it"))?;
        Ok(Self { path, number: deleted.number, file })
    }

    /// Whether its name still leads to it.
    pub(super) fn is_there(&self) -> bool {
        is_at(&self.file, &self.path)
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> StoreError + '_ {
        move |source| StoreError::io(&self.path, action, source)
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> Result<u64, StoreError> {
        Ok(self.file.metadata().map_err(self.failed("ask its size"))?.len())
    }
    /// Reads exactly `length` bytes. The caller has bounded `length` by the file's size.
    pub(super) fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        device::write(&self.file, &self.path, bytes, offset).map_err(self.failed("write"))
    }
    /// Gives the file this size.
    pub(super) fn cut(&self, size: u64) -> Result<(), StoreError> {
        device::cut(&self.file, &self.path, size).map_err(self.failed("truncate it"))
    }
    /// Makes all that was written durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        device::sync(&self.file, &self.path).map_err(self.failed("sync it"))
    }
    /// Asks for space, which reads as zeros until it is written.
    pub(super) fn allocate(&self, from: u64, length: u64) -> io::Result<()> {
        device::allocate(&self.file, &self.path, from, length)
    }

    /// Whether contents and body of a part are the bytes that its header names.
    pub(super) fn whole(&self, header: &PartHeader) -> bool {
        let hash = |mut offset: u64, end: u64| -> io::Result<blake3::Hash> {
            let mut hasher = blake3::Hasher::new();
            while offset < end {
                let step = (end - offset).min(STEP as u64);
                hasher.update(&self.read(offset, step as usize)?);
                offset += step;
            }
            Ok(hasher.finalize())
        };
        let contents = hash(header.offset + PART_HEADER, header.body());
        let body = hash(header.body(), header.end());
        contents.is_ok_and(|hash| hash.as_bytes() == &header.contents_hash)
            && body.is_ok_and(|hash| hash.as_bytes() == &header.body_hash)
    }

    fn part_at(&self, key: &Key, offset: u64, size: u64) -> Option<PartHeader> {
        (offset.checked_add(PART_HEADER)? <= size).then_some(())?;
        // A header that the disk cannot give back is as lost as one that changed.
        let bytes = self.read(offset, PART_HEADER as usize).ok()?;
        PartHeader::decode(&bytes, key, self.number, offset, size)
    }

    /// Walks the parts (S-15). Up to `synced` every byte belongs to a part that
    /// was synced, so what cannot be read there is a gap; beyond, the walk ends
    /// at the first thing that is no part. Without `synced` nothing is known:
    /// the walk goes to the end of the file, and zeros at the end are no gap.
    pub(super) fn walk(&self, key: &Key, synced: Option<u64>) -> Result<Vec<Found>, StoreError> {
        let size = self.size()?;
        let certain = synced.unwrap_or(size);
        let mut found = Vec::new();
        let mut at = PACK_HEADER;
        loop {
            if let Some(header) = self.part_at(key, at, size) {
                found.push(Found::Part(header));
                at = header.end();
                continue;
            }
            if at >= certain {
                return Ok(found);
            }
            let next = match self.search(key, at + 1, certain.min(size), size) {
                Search::Part(offset) => offset,
                Search::None { .. } if synced.is_some() => certain,
                Search::None { used: 0 } => return Ok(found),
                Search::None { used } => used.max(at + 1),
            };
            found.push(Found::Gap { offset: at, length: next - at });
            at = next;
        }
    }

    /// Looks for a part that begins in `from..until`.
    fn search(&self, key: &Key, from: u64, until: u64, size: u64) -> Search {
        let mut used = 0;
        // The byte before `from` was the beginning of what could not be read.
        let mut at = from - 1;
        while at < until {
            let step = (size - at).min(STEP as u64);
            let bytes = self.read(at, step as usize).unwrap_or_default();
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                used = at + last as u64 + 1;
            }
            for (place, window) in bytes.windows(PART_MARKER.len()).enumerate() {
                let offset = at + place as u64;
                let marked = window == PART_MARKER && (from..until).contains(&offset);
                if marked && self.part_at(key, offset, size).is_some() {
                    return Search::Part(offset);
                }
            }
            // Steps overlap, so that no marker is missed between two.
            let advance = step.saturating_sub(PART_MARKER.len() as u64 - 1);
            at += advance.max(1);
        }
        Search::None { used }
    }
}

enum Search {
    Part(u64),
    /// There is none; `used` is where the last byte that is not zero ends, 0 if all are.
    None {
        used: u64,
    },
}
