//! Comparing what is on disk with what should be, byte for byte, without writing.

use super::SlotName;
use super::beside::{self, Visitor};
use super::disk::{self, DIRECTORY_MODE, Place};
use super::error::SlotError;
use super::patterns::Patterns;
use super::view::{View, split};
use rootcast::entry::{ChunkList, Content, Entry};
use rootcast::id::{BlobId, ObjectId};
use rootcast::limits::{MAX_BLOB, MAX_DIFFERENCES};
use rootcast::object::ObjectSource;
use rootcast::path::ConfigPath;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How something on disk differs from the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The view has it, the disk has not.
    Missing,
    /// The disk has it, the view has not. A directory counts once, with all in it.
    Extra,
    /// A directory, link, file or something else in the place of another of these.
    Kind,
    /// Other bytes, or another link target.
    Content,
    /// The right bytes with other permission bits.
    Mode,
    /// It is there and cannot be read.
    Unreadable,
}

/// One path at which disk and view differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Relative to the slot; empty for the slot itself.
    pub path: PathBuf,
    /// How.
    pub fault: Fault,
}

/// What a check of the active slot found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// The first [`MAX_DIFFERENCES`] differences, in the order of the walk.
    pub differences: Vec<Difference>,
    /// How many differences there are.
    pub found: u64,
    /// Files and links of the view that were looked at.
    pub entries: u64,
    /// Bytes that the view's files have.
    pub bytes: u64,
}

impl Checked {
    /// Whether the slot is exactly the view.
    pub fn is_whole(&self) -> bool {
        self.found == 0
    }

    fn add(&mut self, path: impl Into<PathBuf>, fault: Fault) {
        self.found += 1;
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(Difference { path: path.into(), fault });
        }
    }
}

/// The permission bits of a file.
pub(super) const fn file_mode(executable: bool) -> u32 {
    if executable { 0o755 } else { 0o644 }
}

/// What one name on disk turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// How it differs, if it does.
    pub(super) fault: Option<Fault>,
    /// Whether its bytes can be reached by another name, or belong to another
    /// user, so that they may change without us.
    pub(super) shared: bool,
}

impl From<Fault> for Found {
    fn from(fault: Fault) -> Self {
        Self { fault: Some(fault), shared: false }
    }
}

/// Where what entries name is to be had.
#[derive(Clone, Copy)]
pub(super) struct Contents<'a> {
    /// Blobs and chunk lists.
    pub(super) objects: &'a dyn ObjectSource,
    /// The directory that links to secrets lead to.
    pub(super) secrets: Option<&'a Path>,
}

impl Contents<'_> {
    /// The text of the link that stands for a secret (specs/activation.md, A-21).
    pub(super) fn secret_link(&self, path: &ConfigPath, id: &BlobId) -> Result<PathBuf, SlotError> {
        let directory = self.secrets.ok_or_else(|| SlotError::NoSecrets { path: path.clone() })?;
        Ok(directory.join(id.to_string()))
    }
}

/// Compares names on disk with entries; holds the one buffer that takes.
pub(super) struct Comparison<'a> {
    pub(super) contents: Contents<'a>,
    pub(super) buffer: Vec<u8>,
}

impl Comparison<'_> {
    /// Compares the name at `at` with `entry`, which is at `path` of the view.
    /// Only what the store cannot give is an error.
    pub(super) fn compare(
        &mut self,
        at: BorrowedFd<'_>,
        path: &ConfigPath,
        entry: &Entry,
    ) -> Result<Found, SlotError> {
        let (_, name) = split(path);
        // Looked at before it is opened: opening a device can do something.
        let stat = match disk::look(at, name) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Ok(Fault::Missing.into()),
            Err(_) => return Ok(Fault::Unreadable.into()),
        };
        let mut found = Found {
            fault: None,
            shared: stat.st_nlink != 1 || stat.st_uid != rustix::process::geteuid().as_raw(),
        };
        found.fault = match (entry, disk::kind(&stat)) {
            (Entry::Symlink { target }, FileType::Symlink) => {
                link_fault(at, name, target.as_str().as_bytes())
            }
            (Entry::Secret { id, .. }, FileType::Symlink) => {
                let text = self.contents.secret_link(path, id)?;
                link_fault(at, name, text.as_os_str().as_bytes())
            }
            (Entry::File { content, executable }, FileType::RegularFile) => {
                let wanted = file_mode(*executable);
                match self.file(at, name, path, content)? {
                    None if disk::permissions(&stat) != wanted => Some(Fault::Mode),
                    fault => fault,
                }
            }
            _ => Some(Fault::Kind),
        };
        Ok(found)
    }

    fn file(
        &mut self,
        at: BorrowedFd<'_>,
        name: &str,
        path: &ConfigPath,
        content: &Content,
    ) -> Result<Option<Fault>, SlotError> {
        // Should a fifo have taken the place of the file just looked at, opening must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(fd) = openat(at, name, flags, Mode::empty()) else {
            return Ok(Some(Fault::Unreadable));
        };
        let Ok(stat) = fstat(&fd) else { return Ok(Some(Fault::Unreadable)) };
        if disk::kind(&stat) != FileType::RegularFile {
            return Ok(Some(Fault::Kind));
        }
        if u64::try_from(stat.st_size) != Ok(content.size()) {
            return Ok(Some(Fault::Content));
        }
        let same = match content {
            Content::Blob { id, size } => self.piece(fd.as_fd(), id, *size),
            Content::Chunked { id, size } => {
                let list = read_list(self.contents.objects, path, &(*id).into(), *size)?;
                let mut pieces = list.0.iter();
                pieces
                    .try_fold(true, |same, chunk| Ok(same && self.piece(fd.as_fd(), &chunk.id, chunk.size)?))
            }
        };
        match same {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(Fault::Content)),
            Err(_) => Ok(Some(Fault::Unreadable)),
        }
    }

    /// Whether the next `size` bytes of a file are the blob.
    fn piece(&mut self, fd: BorrowedFd<'_>, id: &BlobId, size: u64) -> Result<bool, Errno> {
        let Ok(size) = usize::try_from(size.min(MAX_BLOB + 1)) else { return Ok(false) };
        self.buffer.resize(size, 0);
        let mut rest = self.buffer.as_mut_slice();
        while !rest.is_empty() {
            match rustix::io::read(fd, &mut *rest) {
                Ok(0) => return Ok(false),
                Ok(read) => rest = rest.get_mut(read..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(BlobId::of(&self.buffer) == *id)
    }
}

/// How the link at `at` differs from one with this text.
fn link_fault(at: BorrowedFd<'_>, name: &str, text: &[u8]) -> Option<Fault> {
    match readlinkat(at, name, Vec::new()) {
        Ok(found) if found.as_bytes() == text => None,
        Ok(_) => Some(Fault::Content),
        Err(_) => Some(Fault::Unreadable),
    }
}

/// Reads the chunk list of a large file.
pub(super) fn read_list(
    objects: &dyn ObjectSource,
    path: &ConfigPath,
    id: &ObjectId,
    size: u64,
) -> Result<ChunkList, SlotError> {
    let bytes = objects.read(id)?;
    ChunkList::decode(&bytes, size).map_err(|source| SlotError::ChunkList { path: path.clone(), source })
}

/// Compares a whole slot with a view. `root` is `None` if the slot is no directory.
pub(super) fn check(
    root: Option<Place>,
    view: &dyn View,
    contents: Contents<'_>,
    ignored: &Patterns,
) -> Result<Checked, SlotError> {
    let mut check = Check::new(contents, ignored);
    check_into(root, view, &mut check)?;
    Ok(check.checked)
}

/// As [`check`], into what is found already.
pub(super) fn check_into(
    root: Option<Place>,
    view: &dyn View,
    check: &mut Check<'_>,
) -> Result<(), SlotError> {
    match &root {
        None => check.checked.add("", Fault::Kind),
        Some(root) => {
            check.home.clone_from(&root.path);
            check.directory_mode(root.fd.as_fd(), Path::new(""));
        }
    }
    beside::walk(root, view, check)
}

/// Compares the tree at `root` with the view that it should hold, as [`super::Slots::check_active`] does,
/// with no hold on the slots: what stages or flips them meanwhile makes differences that are none.
///
/// # Errors
/// As [`super::Slots::check_active`].
pub fn check_tree(
    root: &Path,
    view: &dyn View,
    objects: &dyn ObjectSource,
    secrets: Option<&Path>,
    ignored: &Patterns,
) -> Result<Checked, SlotError> {
    // What lies above the slot may be a link or a mount point: the operator's choice.
    let opened = match disk::open_mounted(rustix::fs::CWD, root) {
        Ok(fd) => Some(Place { fd, path: root.to_owned() }),
        Err(Errno::NOENT) => None,
        Err(errno) if disk::is_not_directory(errno) => None,
        Err(errno) => return Err(SlotError::io("open", root, errno)),
    };
    check(opened, view, Contents { objects, secrets }, ignored)
}

/// Opens a slot to read it; `None` where it is no directory.
pub(super) fn open_slot(slots: &Place, slot: SlotName, path: PathBuf) -> Result<Option<Place>, SlotError> {
    match disk::open_directory(slots.fd.as_fd(), slot.directory()) {
        Ok(fd) => Ok(Some(Place { fd, path })),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) if disk::is_not_directory(errno) => Ok(None),
        Err(errno) => Err(SlotError::io("open", &path, errno)),
    }
}

/// A comparison under way.
pub(super) struct Check<'a> {
    /// The slot.
    pub(super) home: PathBuf,
    /// Where in it the paths of the view begin.
    prefix: PathBuf,
    comparison: Comparison<'a>,
    ignored: &'a Patterns,
    pub(super) checked: Checked,
}

impl<'a> Check<'a> {
    pub(super) fn new(contents: Contents<'a>, ignored: &'a Patterns) -> Self {
        let comparison = Comparison { contents, buffer: Vec::new() };
        let (home, prefix, checked) = (PathBuf::new(), PathBuf::new(), Checked::default());
        Self { home, prefix, comparison, ignored, checked }
    }

    /// Compares what is beneath the directory `path`, which is at `place`, with this part of the view.
    pub(super) fn below(
        &mut self,
        place: Option<Place>,
        path: &str,
        view: &dyn View,
    ) -> Result<(), SlotError> {
        self.prefix = path.into();
        let outcome = beside::walk(place, view, self);
        self.prefix = PathBuf::new();
        outcome
    }

    fn add(&mut self, path: PathBuf, fault: Fault) {
        if !self.ignored.covers(&path) {
            self.checked.add(path, fault);
        }
    }

    /// The view has not what is there.
    pub(super) fn visit_extra(&mut self, at: &Place, name: &CStr, kind: FileType) {
        let path = self.relative(at, name.to_bytes());
        for path in self.ignored.removable(at.fd.as_fd(), &path, name, kind) {
            self.add(path, Fault::Extra);
        }
    }

    /// The view has a directory where something is.
    pub(super) fn visit_directory(&mut self, at: &Place, name: &str, found: FileType) -> Option<OwnedFd> {
        let path = self.relative(at, name.as_bytes());
        if found != FileType::Directory {
            self.add(path, Fault::Kind);
            return None;
        }
        match disk::open_directory(at.fd.as_fd(), name) {
            Ok(fd) => {
                self.directory_mode(fd.as_fd(), &path);
                Some(fd)
            }
            Err(_) => {
                self.add(path, Fault::Unreadable);
                None
            }
        }
    }

    /// The view has this entry, in a directory that is there.
    pub(super) fn visit_entry(
        &mut self,
        at: &Place,
        path: &ConfigPath,
        entry: &Entry,
    ) -> Result<(), SlotError> {
        self.checked.entries += 1;
        self.checked.bytes += entry.size();
        if let Some(fault) = self.comparison.compare(at.fd.as_fd(), path, entry)?.fault {
            self.add(self.prefix.join(path.as_str()), fault);
        }
        Ok(())
    }

    fn relative(&self, at: &Place, name: &[u8]) -> PathBuf {
        let path = at.join(OsStr::from_bytes(name));
        path.strip_prefix(&self.home).map(Path::to_owned).unwrap_or(path)
    }

    fn directory_mode(&mut self, fd: BorrowedFd<'_>, path: &Path) {
        match fstat(fd) {
            Ok(stat) if disk::permissions(&stat) == DIRECTORY_MODE => {}
            Ok(_) => self.add(path.to_owned(), Fault::Mode),
            Err(_) => self.add(path.to_owned(), Fault::Unreadable),
        }
    }
}

impl Visitor for Check<'_> {
    fn directory(&mut self, at: &Place, name: &str, found: FileType) -> Result<Option<OwnedFd>, SlotError> {
        Ok(self.visit_directory(at, name, found))
    }

    fn entry(
        &mut self,
        at: Option<&Place>,
        path: &ConfigPath,
        entry: &Entry,
        _: Option<FileType>,
    ) -> Result<(), SlotError> {
        match at {
            Some(at) => self.visit_entry(at, path, entry),
            None => {
                self.checked.entries += 1;
                self.checked.bytes += entry.size();
                self.add(self.prefix.join(path.as_str()), Fault::Missing);
                Ok(())
            }
        }
    }

    fn extra(&mut self, at: &Place, name: &CStr, kind: FileType) -> Result<(), SlotError> {
        self.visit_extra(at, name, kind);
        Ok(())
    }
}
