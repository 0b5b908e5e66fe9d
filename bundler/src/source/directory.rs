//! A plain directory, read beneath its root without following a link.

use super::names::{directory_fault, is_dot_git};
use super::{
    Change, Changes, FileKind, Handle, Place, Refusal, Refused, SourceError, SourceFile, check_target,
    printable,
};
use rootcast::limits::{MAX_SYMLINK, SOURCE_ENTRIES_PER_FILE};
use rootcast::path::{ConfigPath, PathFault};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::fs::File;
use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file whose time stamps are younger than this when it is listed may be
/// written again without a trace: file systems count time in steps of up to two seconds.
const SETTLE: Duration = Duration::from_secs(2);

/// What the system says of a file: if all of it is the same, so are the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    mode: u32,
    size: u64,
    modified: (i64, u64),
    /// When the inode last changed; unlike `modified` nobody can set it.
    changed: (i64, u64),
}

impl Stamp {
    // The fields' types differ between architectures, so some of these conversions are no-ops.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            mode: stat.st_mode as u32,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u64),
        }
    }

    fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Whether a later write must show in the stamp.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = |at: (i64, u64)| u64::try_from(at.0).unwrap_or_default();
        let youngest = seconds(self.modified).max(seconds(self.changed));
        youngest.saturating_add(SETTLE.as_secs()) < now.as_secs()
    }
}

/// One listing, and when it was begun.
#[derive(Debug, Clone)]
struct Listing {
    begun: SystemTime,
    files: Vec<SourceFile>,
}

/// What was last accepted of a directory.
///
/// The root is opened for each call: a handle that is kept would show a
/// directory that was replaced as empty, and everything in it as removed.
#[derive(Debug, Default)]
pub(super) struct DirectorySource {
    /// The listing given last, not accepted yet.
    given: RefCell<Option<Listing>>,
    accepted: RefCell<Option<Listing>>,
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Without `NONBLOCK` a pipe that takes a file's place would hold us for ever.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open_root(place: &Place) -> Result<OwnedFd, SourceError> {
    // The root itself is the operator's word, and may be a link.
    let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
    rustix::fs::open(&place.path, flags, Mode::empty())
        .map_err(|error| SourceError::Open { path: place.path.clone(), source: error.into() })
}

impl DirectorySource {
    pub(super) fn open(place: &Place) -> Result<Self, SourceError> {
        open_root(place)?;
        Ok(Self::default())
    }

    pub(super) fn changes(&self, place: &Place, since: &[u8]) -> Result<Changes, SourceError> {
        self.changes_at(place, since, SystemTime::now())
    }

    fn changes_at(&self, place: &Place, since: &[u8], now: SystemTime) -> Result<Changes, SourceError> {
        let files = list(place)?;
        let changes = match &*self.accepted.borrow() {
            Some(accepted) if since.is_empty() => Changes::Since(difference(accepted, &files)),
            _ => Changes::Full(files.clone()),
        };
        self.given.replace(Some(Listing { begun: now, files }));
        Ok(changes)
    }

    pub(super) fn accept(&self) {
        if let Some(given) = self.given.take() {
            self.accepted.replace(Some(given));
        }
    }

    pub(super) fn read(
        &self,
        place: &Place,
        file: &SourceFile,
        stamp: &Stamp,
    ) -> Result<Vec<u8>, SourceError> {
        let root = open_root(place)?;
        let result = match file.kind {
            FileKind::Symlink => read_link(&root, &file.path, stamp),
            FileKind::Regular | FileKind::Executable => {
                open_file(&root, &file.path).and_then(|opened| read_file(opened, stamp))
            }
        };
        match result {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) | Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {
                let file = printable(file.path.as_str().as_bytes());
                Err(SourceError::Changed { path: place.path.clone(), file })
            }
            Err(error) => Err(cannot_read(place, file.path.as_str().as_bytes(), error)),
        }
    }

    pub(super) fn read_path(&self, place: &Place, path: &ConfigPath) -> Result<Option<Vec<u8>>, SourceError> {
        let bytes = path.as_str().as_bytes();
        let not_a_file = || SourceError::NotAFile { path: place.path.clone(), file: printable(bytes) };
        let opened = match open_file(&open_root(place)?, path) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => return Err(not_a_file()),
            Err(error) => return Err(cannot_read(place, bytes, error)),
        };
        let stat = rustix::fs::fstat(&opened).map_err(|e| cannot_read(place, bytes, e))?;
        let stamp = Stamp::of(&stat);
        if stamp.file_type() != FileType::RegularFile {
            return Err(not_a_file());
        }
        let (size, limit) = (stamp.size, place.limits.file_size);
        if size > limit {
            let mut refused = Refused::default();
            refused.add(bytes, Refusal::TooLarge { size, limit });
            return Err(SourceError::Refused { path: place.path.clone(), refused });
        }
        match read_file(opened, &stamp) {
            Ok(Some(content)) => Ok(Some(content)),
            Ok(None) => {
                let (path, file) = (place.path.clone(), printable(bytes));
                Err(SourceError::Changed { path, file })
            }
            Err(error) => Err(cannot_read(place, bytes, error)),
        }
    }

    pub(super) fn link_at(&self, place: &Place, path: &ConfigPath) -> Result<Option<Vec<u8>>, SourceError> {
        let read = beneath(&open_root(place)?, path, |directory, name| {
            rustix::fs::readlinkat(directory, name, Vec::new())
        });
        match read {
            Ok(target) => Ok(Some(target.into_bytes())),
            // It is something else; or lies beneath what is no directory.
            Err(Errno::NOENT | Errno::INVAL | Errno::LOOP | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(cannot_read(place, path.as_str().as_bytes(), error)),
        }
    }
}

/// Every file, sorted.
fn list(place: &Place) -> Result<Vec<SourceFile>, SourceError> {
    let mut walk = Walk {
        place,
        path: Vec::new(),
        depth: 0,
        files: Vec::new(),
        refused: Refused::default(),
        count: 0,
        entries: place.limits.files.saturating_mul(SOURCE_ENTRIES_PER_FILE),
    };
    walk.directory(open_root(place)?.as_fd())?;
    if !walk.refused.is_empty() {
        return Err(SourceError::Refused { path: place.path.clone(), refused: walk.refused });
    }
    walk.files.sort_unstable_by(|one, two| one.path.cmp(&two.path));
    Ok(walk.files)
}

/// Opens what is at `path`, no segment of which may be a link.
fn open_file(root: &OwnedFd, path: &ConfigPath) -> Result<OwnedFd, Errno> {
    beneath(root, path, |directory, name| rustix::fs::openat(directory, name, FILE, Mode::empty()))
}

fn read_link(root: &OwnedFd, path: &ConfigPath, stamp: &Stamp) -> Result<Option<Vec<u8>>, Errno> {
    beneath(root, path, |directory, name| {
        let target = rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes();
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((Stamp::of(&stat) == *stamp).then_some(target))
    })
}

/// Does something with the last segment of `path`, in the directory before it.
fn beneath<T>(
    root: &OwnedFd,
    path: &ConfigPath,
    act: impl FnOnce(BorrowedFd<'_>, &str) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let mut opened: Option<OwnedFd> = None;
    let mut segments = path.segments().peekable();
    while let Some(segment) = segments.next() {
        let directory = opened.as_ref().unwrap_or(root).as_fd();
        if segments.peek().is_none() {
            return act(directory, segment);
        }
        opened = Some(rustix::fs::openat(directory, segment, DIRECTORY, Mode::empty())?);
    }
    Err(Errno::NOENT) // a path has at least one segment
}

/// Reads a file that is what its stamp says, before and after; `None` when it is not.
fn read_file(opened: OwnedFd, stamp: &Stamp) -> Result<Option<Vec<u8>>, Errno> {
    let is_same = |file: &File| -> Result<bool, Errno> { Ok(Stamp::of(&rustix::fs::fstat(file)?) == *stamp) };
    let file = File::from(opened);
    if !is_same(&file)? {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(stamp.size).unwrap_or_default());
    let failed = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    (&file).take(stamp.size + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok((bytes.len() as u64 == stamp.size && is_same(&file)?).then_some(bytes))
}

fn cannot_read(place: &Place, file: &[u8], error: Errno) -> SourceError {
    let (path, file) = (place.path.clone(), printable(file));
    SourceError::Read { path, file, source: error.into() }
}

/// What differs between two sorted listings. A file that was not settled when
/// the older one was begun counts as changed.
fn difference(old: &Listing, new: &[SourceFile]) -> Vec<Change> {
    let mut changes = Vec::new();
    let (mut old_files, mut new_files) = (old.files.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old_files.peek(), new_files.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.path.cmp(&new.path),
        };
        let before = if order.is_le() { old_files.next() } else { None };
        let now = if order.is_ge() { new_files.next() } else { None };
        match (before, now) {
            (Some(before), None) => changes.push(Change::Remove(before.path.clone())),
            (Some(before), Some(now)) if before == now && is_settled(before, old.begun) => {}
            (_, Some(now)) => changes.push(Change::Put(now.clone())),
            (None, None) => {}
        }
    }
}

fn is_settled(file: &SourceFile, begun: SystemTime) -> bool {
    match &file.handle {
        Handle::Stamp(stamp) => stamp.is_settled(begun),
        Handle::Object(_) => true,
    }
}

/// A walk over a directory and those beneath it.
struct Walk<'a> {
    place: &'a Place,
    /// The directory that is looked at, with a `/` at its end unless it is the root.
    path: Vec<u8>,
    depth: usize,
    files: Vec<SourceFile>,
    refused: Refused,
    /// Files met, refused ones included.
    count: u64,
    /// Entries that may still be looked at.
    entries: u64,
}

impl Walk<'_> {
    fn directory(&mut self, directory: BorrowedFd<'_>) -> Result<(), SourceError> {
        for name in self.names(directory)? {
            let length = self.path.len();
            self.path.extend_from_slice(&name);
            self.entry(directory, &name)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    /// The names in a directory, sorted. Taken at once, so that the number of
    /// open directories is that of the depth.
    fn names(&mut self, directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, SourceError> {
        let failed = |error| cannot_read(self.place, &self.path, error);
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            // Git's directory is no part of the configuration, nor is a nested one's.
            if matches!(name, b"." | b".." | b".git") {
                continue;
            }
            if names.len() as u64 >= self.entries {
                let limit = self.place.limits.files.saturating_mul(SOURCE_ENTRIES_PER_FILE);
                return Err(SourceError::TooManyEntries { path: self.place.path.clone(), limit });
            }
            names.push(name.to_vec());
        }
        self.entries -= names.len() as u64;
        names.sort_unstable();
        Ok(names)
    }

    /// Looks at the entry `name`, which is at the current path.
    fn entry(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), SourceError> {
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()), // gone since the directory was read
            Err(error) => return Err(cannot_read(self.place, &self.path, error)),
        };
        let stamp = Stamp::of(&stat);
        if stamp.file_type() == FileType::Directory {
            return self.descend(directory, name);
        }
        self.count += 1;
        let limit = self.place.limits.files;
        if self.count > limit {
            return Err(SourceError::TooManyFiles { path: self.place.path.clone(), limit });
        }
        match self.file(directory, name, stamp)? {
            Ok(file) => self.files.push(file),
            Err(reason) => self.refused.add(&self.path, reason),
        }
        Ok(())
    }

    fn descend(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), SourceError> {
        if let Some(reason) = directory_fault(self.path.len(), self.depth, name) {
            // All beneath it is refused with it.
            self.refused.add(&self.path, reason);
            return Ok(());
        }
        let inner = match rustix::fs::openat(directory, name, DIRECTORY, Mode::empty()) {
            Ok(inner) => inner,
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let (path, file) = (self.place.path.clone(), printable(&self.path));
                return Err(SourceError::Changed { path, file });
            }
            Err(error) => return Err(cannot_read(self.place, &self.path, error)),
        };
        self.path.push(b'/');
        self.depth += 1;
        self.directory(inner.as_fd())?;
        self.depth -= 1;
        Ok(())
    }

    /// The file at the current path, or why it cannot be delivered.
    fn file(
        &self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        stamp: Stamp,
    ) -> Result<Result<SourceFile, Refusal>, SourceError> {
        let path = match ConfigPath::from_bytes(&self.path) {
            Ok(path) => path,
            Err(error) => return Ok(Err(Refusal::Path(error.reason))),
        };
        if std::str::from_utf8(name).is_ok_and(is_dot_git) {
            return Ok(Err(Refusal::DotGit));
        }
        let kind = match stamp.file_type() {
            FileType::RegularFile if stamp.mode & 0o100 != 0 => FileKind::Executable,
            FileType::RegularFile => FileKind::Regular,
            FileType::Symlink => FileKind::Symlink,
            other => return Ok(Err(Refusal::Special(name_of(other)))),
        };
        let mut size = stamp.size;
        let limit = self.place.limits.file_size;
        if kind == FileKind::Symlink {
            let target = rustix::fs::readlinkat(directory, name, Vec::new())
                .map_err(|error| cannot_read(self.place, &self.path, error))?
                .into_bytes();
            if target.len() > MAX_SYMLINK {
                return Ok(Err(Refusal::Link(PathFault::TooLong)));
            }
            if let Err(reason) = check_target(&path, &target) {
                return Ok(Err(reason));
            }
            size = target.len() as u64;
        } else if size > limit {
            return Ok(Err(Refusal::TooLarge { size, limit }));
        }
        Ok(Ok(SourceFile { path, kind, size, handle: Handle::Stamp(stamp) }))
    }
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "thing unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceLimits;

    #[test]
    fn settled_files_are_put_once_and_unsettled_ones_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        for name in ["gone", "kept", "rewritten", "same_size", "mode"] {
            std::fs::write(file(name), name).unwrap();
        }
        let place = Place { path: dir.path().to_owned(), limits: SourceLimits::default() };
        let source = DirectorySource::open(&place).unwrap();
        let told = |now| match source.changes_at(&place, &[], now).unwrap() {
            Changes::Full(files) => vec![format!("all {}", files.len())],
            Changes::Since(changes) => changes.iter().map(|change| change.path().to_string()).collect(),
        };
        let now = SystemTime::now();
        let later = now + Duration::from_secs(60);
        assert_eq!(told(now), ["all 5"]);
        source.accept();
        assert_eq!(told(later).len(), 5, "listed too soon after they were written");
        source.accept();
        assert_eq!(told(later), [""; 0], "listed long after");

        std::fs::write(file("rewritten"), "rewritten and longer").unwrap();
        std::fs::write(file("new"), "").unwrap();
        std::fs::remove_file(file("gone")).unwrap();
        // Neither size nor modification time give these away; the inode's own time does.
        let before = std::fs::metadata(file("same_size")).unwrap().modified().unwrap();
        std::fs::write(file("other"), "SAME_SIZE").unwrap();
        let opened = File::options().write(true).open(file("other")).unwrap();
        opened.set_modified(before).unwrap();
        std::fs::rename(file("other"), file("same_size")).unwrap();
        rustix::fs::chmod(file("mode"), Mode::from_raw_mode(0o755)).unwrap();
        let changed = ["gone", "mode", "new", "rewritten", "same_size"];
        assert_eq!(told(later), changed);
        assert_eq!(told(later), changed, "until they are accepted");
        source.accept();
        assert_eq!(told(later), [""; 0]);
    }
}
