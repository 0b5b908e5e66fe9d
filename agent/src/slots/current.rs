//! The link `current`: which slot it names, and the flip.

use super::SlotName;
use super::disk::{self, Place};
use super::error::SlotError;
use rustix::fd::AsFd;
use rustix::fs::{FileType, readlinkat};
use rustix::io::Errno;

/// The link that consumers follow.
pub(super) const CURRENT: &str = "current";
/// The next link, before it takes the place of [`CURRENT`].
const NEXT: &str = ".current.new";

/// Reads which slot is active; `None` if there is no link.
pub(super) fn read(home: &Place) -> Result<Option<SlotName>, SlotError> {
    let path = home.join(CURRENT);
    let fail = |errno| SlotError::io("read link", &path, errno);
    let foreign = |found: String| SlotError::Foreign { path: path.clone(), found };
    let Some(stat) = disk::look(home.fd.as_fd(), CURRENT).map_err(fail)? else {
        return Ok(None);
    };
    match disk::kind(&stat) {
        FileType::Symlink => {}
        FileType::Directory => return Err(foreign("a directory".into())),
        _ => return Err(foreign("a file".into())),
    }
    let target = readlinkat(&home.fd, CURRENT, Vec::new()).map_err(fail)?;
    let known = [SlotName::A, SlotName::B];
    match known.into_iter().find(|slot| slot.target().as_bytes() == target.as_bytes()) {
        Some(slot) => Ok(Some(slot)),
        None => Err(foreign(format!("a link to {:?}", target.to_string_lossy()))),
    }
}

/// Removes what an interrupted flip left behind.
pub(super) fn clean(home: &Place) -> Result<(), SlotError> {
    let fail = |errno| SlotError::io("remove", &home.join(NEXT), errno);
    match disk::look(home.fd.as_fd(), NEXT).map_err(fail)? {
        None => Ok(()),
        Some(stat) if disk::kind(&stat) == FileType::Directory => {
            Err(SlotError::Foreign { path: home.join(NEXT), found: "a directory".into() })
        }
        Some(_) => disk::unlink(home.fd.as_fd(), NEXT).map_err(fail),
    }
}

/// Makes `current` name `slot`, by one rename, durably.
pub(super) fn flip(home: &Place, slot: SlotName) -> Result<(), SlotError> {
    clean(home)?;
    disk::link(slot.target(), home.fd.as_fd(), NEXT)
        .map_err(|errno| SlotError::io("make link", &home.join(NEXT), errno))?;
    match disk::rename(home.fd.as_fd(), NEXT, home.fd.as_fd(), CURRENT) {
        Ok(()) => {}
        Err(Errno::ISDIR) => {
            return Err(SlotError::Foreign { path: home.join(CURRENT), found: "a directory".into() });
        }
        Err(errno) => return Err(SlotError::io("flip", &home.join(CURRENT), errno)),
    }
    disk::sync(home.fd.as_fd())
        .map_err(|errno| SlotError::FlipNotDurable { path: home.path.clone(), source: errno.into() })
}
