//! Removal of directory trees of any shape, whoever made them.

use super::disk;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, Result};
use std::ffi::{CStr, CString};

/// Names that are read from a directory before they are removed.
const BATCH: usize = 1024;

/// Which directory a descriptor is.
type Identity = (u64, u64);

fn identity(fd: BorrowedFd<'_>) -> Result<Identity> {
    let stat = fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Removes the directory `name` and all beneath it. Returns how many files and links went.
///
/// The tree may be deeper than any path: it is walked with one open directory
/// at a time, up again by `..`, and going up is refused when it does not lead
/// to where the walk came from.
pub(super) fn remove_tree(parent: BorrowedFd<'_>, name: &CStr) -> Result<u64> {
    let mut removed = 0;
    let mut here = disk::open_own_directory(parent, name)?;
    let mut above: Vec<(CString, Identity)> = Vec::new();
    loop {
        match clear_files(here.as_fd(), &mut removed)? {
            Some(below) => {
                let next = disk::open_own_directory(here.as_fd(), below.as_c_str())?;
                above.push((below, identity(here.as_fd())?));
                here = next;
            }
            None => {
                let Some((below, from)) = above.pop() else { break };
                let up = disk::open_directory(here.as_fd(), c"..")?;
                if identity(up.as_fd())? != from {
                    return Err(Errno::BUSY);
                }
                disk::remove_directory(up.as_fd(), below.as_c_str())?;
                here = up;
            }
        }
    }
    disk::remove_directory(parent, name)?;
    Ok(removed)
}

/// Removes what is not a directory, and empty directories, until a directory
/// is met that is not empty: its name is returned. `None`: all is gone.
fn clear_files(here: BorrowedFd<'_>, removed: &mut u64) -> Result<Option<CString>> {
    loop {
        let names = disk::list(here, BATCH)?;
        if names.is_empty() {
            return Ok(None);
        }
        for (name, kind) in names {
            if kind != FileType::Directory {
                disk::unlink(here, name.as_c_str())?;
                *removed += 1;
                continue;
            }
            match disk::remove_directory(here, name.as_c_str()) {
                Ok(()) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name)),
                Err(errno) => return Err(errno),
            }
        }
    }
}
