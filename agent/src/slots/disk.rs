//! The system calls of the slots, all relative to an open directory, none
//! following a link. What changes the disk passes [`before`].

use super::error::SlotError;
use super::steps::{Step, before};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, Result};
use rustix::path::Arg;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Permission bits of every directory.
pub(super) const DIRECTORY_MODE: u32 = 0o755;
/// Permission bits of a file that is being written: nobody else's yet.
const UNFINISHED_MODE: u32 = 0o600;

/// An open directory and, for messages, its path.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

impl Place {
    /// Where `name` is, for messages.
    pub(super) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

/// Whether an error says that a name is not the directory it should be: a
/// link (never followed) or another kind of file.
pub(super) fn is_not_directory(errno: Errno) -> bool {
    matches!(errno, Errno::LOOP | Errno::NOTDIR)
}

const OPEN_DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory that is a directory, not a link to one; it may be a mount point.
pub(super) fn open_mounted(at: BorrowedFd<'_>, name: impl Arg) -> Result<OwnedFd> {
    fs::openat(at, name, OPEN_DIRECTORY | OFlags::RDONLY, Mode::empty())
}

/// Opens a directory that is a directory, not a link to one, and no mount
/// point: what is mounted in a slot is not ours to remove ([`Errno::XDEV`]).
pub(super) fn open_directory(at: BorrowedFd<'_>, name: impl Arg + Copy) -> Result<OwnedFd> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    match fs::openat2(at, name, OPEN_DIRECTORY | OFlags::RDONLY, Mode::empty(), resolve) {
        // Before Linux 5.6, or behind a filter that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {}
        outcome => return outcome,
    }
    let fd = open_mounted(at, name)?;
    if fs::fstat(&fd)?.st_dev != fs::fstat(at)?.st_dev { Err(Errno::XDEV) } else { Ok(fd) }
}

/// Opens a directory as [`open_directory`] does, and sets its mode right where it is not.
pub(super) fn open_own_directory(at: BorrowedFd<'_>, name: impl Arg + Copy) -> Result<OwnedFd> {
    let fd = match open_directory(at, name) {
        Err(Errno::ACCESS) => {
            unlock_directory(at, name)?;
            open_directory(at, name)?
        }
        outcome => outcome?,
    };
    if permissions(&fs::fstat(&fd)?) != DIRECTORY_MODE {
        set_mode(fd.as_fd(), DIRECTORY_MODE)?;
    }
    Ok(fd)
}

/// Makes a directory readable that its owner, not being root, cannot open.
fn unlock_directory(at: BorrowedFd<'_>, name: impl Arg) -> Result<()> {
    let fd = fs::openat(at, name, OPEN_DIRECTORY | OFlags::PATH, Mode::empty())?;
    before(Step::SetMode, fd.as_fd())?;
    // fchmod refuses an O_PATH descriptor; through /proc it is exactly the file that was opened.
    let number = rustix::fd::AsRawFd::as_raw_fd(&fd);
    let through = format!("/proc/self/fd/{number}");
    fs::chmodat(CWD, through, Mode::from_raw_mode(DIRECTORY_MODE), AtFlags::empty())
}

/// Makes a directory with its exact mode, whatever the umask, and opens it.
pub(super) fn make_directory(at: BorrowedFd<'_>, name: impl Arg + Copy) -> Result<OwnedFd> {
    before(Step::MakeDirectory, at)?;
    fs::mkdirat(at, name, Mode::from_raw_mode(DIRECTORY_MODE))?;
    open_own_directory(at, name)
}

/// Makes a file that did not exist.
pub(super) fn create(at: BorrowedFd<'_>, name: impl Arg) -> Result<OwnedFd> {
    before(Step::Create, at)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(at, name, flags, Mode::from_raw_mode(UNFINISHED_MODE))
}

/// Writes all of `bytes` at the end of a new file.
pub(super) fn write(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    before(Step::Write, fd)?;
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Sets the exact permission bits.
pub(super) fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    before(Step::SetMode, fd)?;
    fs::fchmod(fd, Mode::from_raw_mode(mode))
}

/// Makes a symbolic link.
pub(super) fn link(target: impl Arg, at: BorrowedFd<'_>, name: impl Arg) -> Result<()> {
    before(Step::Link, at)?;
    fs::symlinkat(target, at, name)
}

/// Removes a name that is not a directory's.
pub(super) fn unlink(at: BorrowedFd<'_>, name: impl Arg) -> Result<()> {
    before(Step::Unlink, at)?;
    fs::unlinkat(at, name, AtFlags::empty())
}

/// Removes an empty directory.
pub(super) fn remove_directory(at: BorrowedFd<'_>, name: impl Arg) -> Result<()> {
    before(Step::RemoveDirectory, at)?;
    fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}

/// Gives what was written as `name` its place, in one step, over whatever file or link is there.
pub(super) fn rename(
    from: BorrowedFd<'_>,
    name: impl Arg,
    to: BorrowedFd<'_>,
    place: impl Arg,
) -> Result<()> {
    before(Step::Rename, to)?;
    fs::renameat(from, name, to, place)
}

/// Gives a name another, if nothing has that.
pub(super) fn rename_new(at: BorrowedFd<'_>, name: impl Arg, to: impl Arg + Copy) -> Result<()> {
    before(Step::Rename, at)?;
    fs::renameat_with(at, name, at, to, fs::RenameFlags::NOREPLACE)
}

/// Makes one file's content and mode, or one directory's names, durable.
pub(super) fn sync(fd: BorrowedFd<'_>) -> Result<()> {
    before(Step::Sync, fd)?;
    fs::fsync(fd)
}

/// Makes the whole file system durable.
pub(super) fn sync_all(fd: BorrowedFd<'_>) -> Result<()> {
    before(Step::SyncAll, fd)?;
    fs::syncfs(fd)
}

/// What a name is, links not followed; `None` if it is not there.
pub(super) fn look(at: BorrowedFd<'_>, name: impl Arg) -> Result<Option<Stat>> {
    match fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// What kind of file it is.
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Its permission bits, set-user-id and the like included.
pub(super) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// The names in a directory, `.` and `..` left out: `at_most` of them.
pub(super) fn list(fd: BorrowedFd<'_>, at_most: usize) -> Result<Vec<(CString, FileType)>> {
    let mut names = Vec::new();
    for item in Dir::read_from(fd)? {
        let item = item?;
        let name = item.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match item.file_type() {
            FileType::Unknown => match look(fd, name)? {
                Some(stat) => kind(&stat),
                None => continue,
            },
            known => known,
        };
        names.push((name.to_owned(), kind));
        if names.len() >= at_most {
            break;
        }
    }
    Ok(names)
}

/// Removes whatever has this name; it is no error if nothing has.
/// Returns how many files and links went.
pub(super) fn clear(at: &Place, name: &str) -> std::result::Result<u64, SlotError> {
    clear_name(at, OsStr::new(name))
}

/// As [`clear`], of any name.
pub(super) fn clear_name(at: &Place, name: &OsStr) -> std::result::Result<u64, SlotError> {
    let fail = |errno| SlotError::io("remove", &at.join(name), errno);
    match look(at.fd.as_fd(), name).map_err(fail)? {
        None => Ok(0),
        Some(stat) if kind(&stat) == FileType::Directory => {
            let name = CString::new(name.as_bytes()).map_err(|_| fail(Errno::INVAL))?;
            super::remove::remove_tree(at.fd.as_fd(), &name).map_err(fail)
        }
        Some(_) => unlink(at.fd.as_fd(), name).map_err(fail).map(|()| 1),
    }
}
