//! Bringing the standby slot to a view: sweep, write, sync.

use super::beside::{self, Visitor};
use super::check::{Comparison, Contents, file_mode, read_list};
use super::disk::{self, Place};
use super::error::SlotError;
use super::patterns::Patterns;
use super::view::{Totals, View, size_on_disk, split};
use super::{Report, remove};
use rootcast::entry::{Content, Entry};
use rootcast::id::ObjectId;
use rootcast::limits::SYNC_EACH;
use rootcast::path::ConfigPath;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::FileType;
use rustix::io::Errno;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

/// Where the next file or link is made whole, beside the slots and so on their
/// file system, before it takes its place by a rename: no reader of any age sees half a file.
pub(super) const UNFINISHED: &str = ".writing";

/// Removes from a slot what the view has not, and what is of another kind there.
pub(super) struct Sweep<'a> {
    /// Files and links removed.
    pub(super) removed: u64,
    /// What of the view the slot holds already, going by name and kind.
    pub(super) kept: Totals,
    home: PathBuf,
    ignored: &'a Patterns,
}

impl<'a> Sweep<'a> {
    pub(super) fn run(root: Place, view: &dyn View, ignored: &'a Patterns) -> Result<Self, SlotError> {
        let home = root.path.clone();
        let mut sweep = Self { removed: 0, kept: Totals::default(), home, ignored };
        beside::walk(Some(root), view, &mut sweep)?;
        Ok(sweep)
    }

    fn remove(&mut self, at: &Place, name: &CStr, found: FileType) -> Result<(), SlotError> {
        let gone = match found {
            FileType::Directory => remove::remove_tree(at.fd.as_fd(), name),
            _ => disk::unlink(at.fd.as_fd(), name).map(|()| 1),
        };
        let fail = |errno| SlotError::io("remove", &at.join(&*name.to_string_lossy()), errno);
        self.removed += gone.map_err(fail)?;
        Ok(())
    }

    fn remove_named(&mut self, at: &Place, name: &str) -> Result<(), SlotError> {
        self.removed += disk::clear(at, name)?;
        Ok(())
    }
}

impl Visitor for Sweep<'_> {
    fn directory(&mut self, at: &Place, name: &str, found: FileType) -> Result<Option<OwnedFd>, SlotError> {
        if found != FileType::Directory {
            self.remove_named(at, name)?;
            return Ok(None);
        }
        disk::open_own_directory(at.fd.as_fd(), name)
            .map(Some)
            .map_err(|errno| SlotError::io("open", &at.join(name), errno))
    }

    fn entry(
        &mut self,
        at: Option<&Place>,
        path: &ConfigPath,
        entry: &Entry,
        found: Option<FileType>,
    ) -> Result<(), SlotError> {
        let (Some(at), Some(found)) = (at, found) else { return Ok(()) };
        let (_, name) = split(path);
        let wanted = match entry {
            Entry::File { .. } => FileType::RegularFile,
            Entry::Symlink { .. } | Entry::Secret { .. } => FileType::Symlink,
        };
        if found != wanted {
            return self.remove_named(at, name);
        }
        let stat = disk::look(at.fd.as_fd(), name)
            .map_err(|errno| SlotError::io("look at", &at.join(name), errno))?;
        if let Some(stat) = stat {
            self.kept.add(u64::try_from(stat.st_size).unwrap_or(0).min(size_on_disk(entry)));
        }
        Ok(())
    }

    fn extra(&mut self, at: &Place, name: &CStr, found: FileType) -> Result<(), SlotError> {
        let path = at.join(OsStr::from_bytes(name.to_bytes()));
        let path = path.strip_prefix(&self.home).unwrap_or(&path);
        // A directory that holds what is left alone stays with all in it until it is live and compared.
        if self.ignored.removable(at.fd.as_fd(), path, name, found) != [path] {
            return Ok(());
        }
        self.remove(at, name, found)
    }
}

/// What was written and is not durable yet.
pub(super) enum Unsynced {
    /// These files and directories, at most [`SYNC_EACH`].
    Each(Vec<Rc<OwnedFd>>),
    /// More than that, or it is not known what: everything.
    All,
}

impl Unsynced {
    fn add(&mut self, fd: &Rc<OwnedFd>) {
        match self {
            Self::Each(each) if each.len() < SYNC_EACH => each.push(Rc::clone(fd)),
            _ => *self = Self::All,
        }
    }

    /// Makes it durable; returns how many syncs that took.
    fn settle(self, root: &Rc<OwnedFd>) -> Result<u64, Errno> {
        match self {
            Self::All => disk::sync_all(root.as_fd()).map(|()| 1),
            Self::Each(each) => {
                for fd in &each {
                    disk::sync(fd.as_fd())?;
                }
                Ok(each.len() as u64)
            }
        }
    }
}

/// An open directory of the slot.
struct Level {
    name: Box<str>,
    fd: Rc<OwnedFd>,
    /// Names came or went, so that it has to be synced.
    touched: bool,
    /// Names went, so that it may be empty.
    thinned: bool,
}

impl Level {
    fn new(name: &str, fd: OwnedFd) -> Self {
        Self { name: name.into(), fd: Rc::new(fd), touched: false, thinned: false }
    }
}

/// The standby slot while it is written.
///
/// Entries come in path order, so the open directories are those of the
/// current path: each directory is opened once, and at most as many are open as a path has segments.
pub(super) struct Standby<'a> {
    slots: &'a Place,
    path: PathBuf,
    root: Level,
    below: Vec<Level>,
    unsynced: Unsynced,
    report: Report,
    comparison: Comparison<'a>,
    /// Whether others read what is written as soon as it is in its place.
    live: bool,
}

const NOT_A_DIRECTORY: &str = "is not the directory that it should be";

impl<'a> Standby<'a> {
    pub(super) fn new(slots: &'a Place, root: Place, contents: Contents<'a>, unsynced: Unsynced) -> Self {
        Self {
            slots,
            path: root.path,
            root: Level::new("", root.fd),
            below: Vec::new(),
            unsynced,
            report: Report::default(),
            comparison: Comparison { contents, buffer: Vec::new() },
            live: false,
        }
    }

    /// The same of a slot that is live: a file is durable before it takes its place, so that no
    /// power failure leaves an empty one there.
    pub(super) fn live(mut self) -> Self {
        self.live = true;
        self
    }

    /// Makes the directories of a path, where they are not there, with their mode.
    pub(super) fn enter_directory_of(&mut self, path: &ConfigPath) -> Result<(), SlotError> {
        self.enter(path, true)
    }

    fn io(&self, doing: &'static str, path: &ConfigPath, errno: Errno) -> SlotError {
        SlotError::io(doing, &self.path.join(path.as_str()), errno)
    }

    fn needs_full(&self, path: &str, reason: &'static str) -> SlotError {
        SlotError::NeedsFull { path: self.path.join(path), reason }
    }

    /// The innermost open directory.
    fn level(&mut self) -> &mut Level {
        self.below.last_mut().unwrap_or(&mut self.root)
    }

    /// Notes that the innermost open directory has other names now.
    fn touch(&mut self) {
        let level = self.below.last_mut().unwrap_or(&mut self.root);
        if !level.touched {
            level.touched = true;
            self.unsynced.add(&level.fd);
        }
    }

    /// Opens the directory of `path`, making what is missing if `make` says so.
    fn enter(&mut self, path: &ConfigPath, make: bool) -> Result<(), SlotError> {
        let (directories, _) = split(path);
        let mut directories = directories.zip(path.parents()).peekable();
        let mut depth = 0;
        while let (Some(level), Some((segment, _))) = (self.below.get(depth), directories.peek()) {
            if &*level.name != *segment {
                break;
            }
            directories.next();
            depth += 1;
        }
        self.leave_to(depth)?;
        for (segment, above) in directories {
            let at = Rc::clone(&self.level().fd);
            let fd = match disk::open_own_directory(at.as_fd(), segment) {
                Ok(fd) => fd,
                Err(Errno::NOENT) if make => {
                    self.touch();
                    disk::make_directory(at.as_fd(), segment)
                        .map_err(|errno| self.io("make the directory of", path, errno))?
                }
                Err(Errno::NOENT) => return Err(self.needs_full(above, "is not there")),
                Err(errno) if disk::is_not_directory(errno) => {
                    return Err(self.needs_full(above, NOT_A_DIRECTORY));
                }
                Err(errno) => return Err(self.io("open the directory of", path, errno)),
            };
            self.below.push(Level::new(segment, fd));
        }
        Ok(())
    }

    /// Leaves directories until `depth` are open below the root, removing those that became empty.
    fn leave_to(&mut self, depth: usize) -> Result<(), SlotError> {
        while self.below.len() > depth {
            let Some(left) = self.below.pop() else { break };
            if !left.thinned {
                continue;
            }
            let at = Rc::clone(&self.level().fd);
            match disk::remove_directory(at.as_fd(), &*left.name) {
                Ok(()) => {
                    self.touch();
                    self.level().thinned = true;
                }
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(errno) => {
                    let above = self.below.iter().map(|level| &*level.name);
                    let path =
                        above.chain([&*left.name]).fold(self.path.clone(), |path, name| path.join(name));
                    return Err(SlotError::io("remove the empty directory", &path, errno));
                }
            }
        }
        Ok(())
    }

    /// Writes an entry unless exactly it is there.
    pub(super) fn put_if_different(&mut self, path: &ConfigPath, entry: &Entry) -> Result<(), SlotError> {
        self.enter(path, true)?;
        let at = Rc::clone(&self.level().fd);
        let found = self.comparison.compare(at.as_fd(), path, entry)?;
        if found.fault.is_none() && !found.shared {
            return Ok(());
        }
        self.put(path, entry)
    }

    /// Writes an entry, over whatever file or link is there.
    pub(super) fn put(&mut self, path: &ConfigPath, entry: &Entry) -> Result<(), SlotError> {
        self.enter(path, true)?;
        let outcome = self.write_and_place(path, entry);
        if outcome.is_err() {
            // Gives room back on a full disk; if it fails, the next staging clears it.
            let _ = disk::unlink(self.slots.fd.as_fd(), UNFINISHED);
        }
        outcome
    }

    fn write_and_place(&mut self, path: &ConfigPath, entry: &Entry) -> Result<(), SlotError> {
        let slots = self.slots.fd.as_fd();
        let written = match entry {
            Entry::File { content, executable } => {
                let fd = disk::create(slots, UNFINISHED).map_err(|errno| self.io("create", path, errno))?;
                self.write_content(fd.as_fd(), path, content)?;
                disk::set_mode(fd.as_fd(), file_mode(*executable))
                    .map_err(|errno| self.io("set the mode of", path, errno))?;
                if self.live {
                    disk::sync(fd.as_fd()).map_err(|errno| self.io("sync", path, errno))?;
                }
                Some(Rc::new(fd)).filter(|_| !self.live)
            }
            Entry::Symlink { target } => {
                disk::link(target.as_str(), slots, UNFINISHED)
                    .map_err(|errno| self.io("make link", path, errno))?;
                None
            }
            Entry::Secret { id, .. } => {
                let target = self.comparison.contents.secret_link(path, id)?;
                disk::link(target, slots, UNFINISHED).map_err(|errno| self.io("make link", path, errno))?;
                None
            }
        };
        let (_, name) = split(path);
        let at = Rc::clone(&self.level().fd);
        self.touch();
        match disk::rename(slots, UNFINISHED, at.as_fd(), name) {
            Ok(()) => {}
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                return Err(self.needs_full(path.as_str(), "is a directory where a file should go"));
            }
            Err(errno) => return Err(self.io("put in place", path, errno)),
        }
        self.report.written += 1;
        self.report.bytes += size_on_disk(entry);
        if let Some(fd) = written {
            self.unsynced.add(&fd);
        }
        Ok(())
    }

    fn write_content(
        &self,
        fd: BorrowedFd<'_>,
        path: &ConfigPath,
        content: &Content,
    ) -> Result<(), SlotError> {
        match content {
            Content::Blob { id, size } => self.write_piece(fd, path, &(*id).into(), *size),
            Content::Chunked { id, size } => {
                let list = read_list(self.comparison.contents.objects, path, &(*id).into(), *size)?;
                list.0.iter().try_for_each(|chunk| self.write_piece(fd, path, &chunk.id.into(), chunk.size))
            }
        }
    }

    fn write_piece(
        &self,
        fd: BorrowedFd<'_>,
        path: &ConfigPath,
        id: &ObjectId,
        size: u64,
    ) -> Result<(), SlotError> {
        let bytes = self.comparison.contents.objects.read(id)?;
        let found = bytes.len() as u64;
        if found != size {
            return Err(SlotError::WrongSize { path: path.clone(), wanted: size, found });
        }
        disk::write(fd, &bytes).map_err(|errno| self.io("write", path, errno))
    }

    /// Removes a file or link that must be there.
    pub(super) fn remove(&mut self, path: &ConfigPath) -> Result<(), SlotError> {
        self.enter(path, false)?;
        let (_, name) = split(path);
        let at = Rc::clone(&self.level().fd);
        match disk::unlink(at.as_fd(), name) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Err(self.needs_full(path.as_str(), "is not there")),
            Err(Errno::ISDIR) => {
                return Err(self.needs_full(path.as_str(), "is a directory where a file should be"));
            }
            Err(errno) => return Err(self.io("remove", path, errno)),
        }
        self.touch();
        self.level().thinned = true;
        self.report.removed += 1;
        Ok(())
    }

    /// Leaves all directories, so that paths may begin from the first again.
    pub(super) fn rewind(&mut self) -> Result<(), SlotError> {
        self.leave_to(0)
    }

    /// Makes all of it durable, and tells what was done.
    pub(super) fn finish(mut self) -> Result<Report, SlotError> {
        self.leave_to(0)?;
        self.report.syncs =
            self.unsynced.settle(&self.root.fd).map_err(|errno| SlotError::io("sync", &self.path, errno))?;
        Ok(self.report)
    }
}
