//! Putting the live slot right, in place and file by file (specs/activation.md, A-52 to A-56).

use super::check::{self, Check, Checked, Difference, Fault};
use super::current::{self, CURRENT};
use super::disk::{self, Place};
use super::error::SlotError;
use super::view::{Below, View};
use super::write::{Standby, UNFINISHED, Unsynced};
use super::{Moment, SlotName, Slots, open_slots};
use rootcast::limits::MAX_SET_ASIDE;
use rootcast::object::ObjectSource;
use rustix::fd::AsFd;
use rustix::fs::{FileType, FlockOperation, flock, fstat};
use rustix::io::Errno;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Files and links written.
    pub written: u64,
    /// What was removed because the view has it not, or not so, from the slot.
    pub removed: Vec<PathBuf>,
    /// Files, links and other things that went with it, those in directories counted each.
    pub things: u64,
}

/// How `current` was put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CurrentRepaired {
    /// It was gone.
    Missing,
    /// It was a link to something else.
    Link,
    /// It was no link; that is here now.
    SetAside(PathBuf),
}

impl Slots {
    /// Takes what is live for this process's own, as after a check that began then and found it whole.
    pub fn adopt_active(&mut self, since: Moment) -> Result<(), SlotError> {
        (self.last, self.since) = (self.active()?, since);
        Ok(())
    }

    /// The slot that should be live: what was activated or adopted last.
    pub fn live(&self) -> Option<SlotName> {
        self.last
    }

    /// Since when the live slot is known to be whole, and what was changed since may not be.
    pub fn whole_since(&self) -> Moment {
        self.since
    }

    /// Makes `slots/` again where it is not the directory any more that was opened.
    pub fn put_back(&mut self) -> Result<(), SlotError> {
        self.reopen()
    }

    /// What stages from the live slot's content must not do so any more: it is not what it was staged to.
    pub fn distrust_live(&mut self) {
        let live = self.last;
        self.whole.retain(|slot| Some(*slot) != live);
    }

    /// Compares some paths of the live slot with the view, reading them whole and writing nothing.
    /// A directory is compared with all beneath it; an empty path is the slot itself.
    pub fn check_paths(
        &self,
        view: &dyn View,
        objects: &dyn ObjectSource,
        paths: &[&str],
    ) -> Result<Checked, SlotError> {
        let mut check = Check::new(self.contents(objects), &self.ignored);
        let Some(slot) = self.last else { return Ok(check.checked) };
        let root = match self.in_place()? {
            true => check::open_slot(&self.slots, slot, self.path(slot))?,
            false => None,
        };
        let Some(root) = root else {
            check::check_into(None, view, &mut check)?;
            return Ok(check.checked);
        };
        check.home.clone_from(&root.path);
        for path in paths {
            check_path(&root, view, path, &mut check)?;
        }
        Ok(check.checked)
    }

    /// Puts right what a check of the live slot found. Each file is made whole and durable
    /// beside the slots before it takes its place; what is right already is not touched.
    ///
    /// # Errors
    /// What was put right before stays so; the same call can be made again.
    pub fn repair(
        &mut self,
        view: &dyn View,
        objects: &dyn ObjectSource,
        differences: &[Difference],
    ) -> Result<Repaired, SlotError> {
        let mut repaired = Repaired::default();
        let Some(slot) = self.last else { return Ok(repaired) };
        self.reopen()?;
        disk::clear(&self.slots, UNFINISHED)?;
        let root = self.make_standby(slot)?;
        for difference in differences.iter().filter(|one| matches!(one.fault, Fault::Extra | Fault::Kind)) {
            if let Some(things) = remove(&root, &difference.path)? {
                repaired.removed.push(difference.path.clone());
                repaired.things += things;
            }
        }
        let mut sorted: Vec<&str> = differences.iter().filter_map(|one| one.path.to_str()).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let unsynced = Unsynced::Each(Vec::new());
        let mut live = Standby::new(&self.slots, root, self.contents(objects), unsynced).live();
        for path in sorted {
            let Some(item) = view.below(path).next() else { continue };
            let (first, entry) = item?;
            if first.as_str() == path {
                live.put_if_different(&first, &entry)?;
            } else {
                // A directory: to open it makes it and sets its mode.
                live.enter_directory_of(&first)?;
            }
        }
        repaired.written = live.finish()?.written;
        Ok(repaired)
    }

    /// Puts `current` right. What is in its place and is no link may be somebody's data: it is moved
    /// aside, to the first free of `current.found-1` and so on, and never removed.
    pub fn repair_current(&mut self) -> Result<Option<CurrentRepaired>, SlotError> {
        let Some(slot) = self.last else { return Ok(None) };
        let how = match current::read(&self.home) {
            Ok(Some(found)) if found == slot => return Ok(None),
            Ok(None) => CurrentRepaired::Missing,
            Ok(Some(_)) => CurrentRepaired::Link,
            Err(SlotError::Foreign { .. }) => self.make_way()?,
            Err(error) => return Err(error),
        };
        current::flip(&self.home, slot)?;
        Ok(Some(how))
    }

    /// Whether `current` is what it should be.
    pub fn current_is_right(&self) -> bool {
        self.last.is_none() || matches!(current::read(&self.home), Ok(found) if found == self.last)
    }

    fn make_way(&self) -> Result<CurrentRepaired, SlotError> {
        let path = self.home.join(CURRENT);
        let at = self.home.fd.as_fd();
        let fail = |errno| SlotError::io("move aside", &path, errno);
        match disk::look(at, CURRENT).map_err(fail)? {
            None => return Ok(CurrentRepaired::Missing),
            Some(stat) if disk::kind(&stat) == FileType::Symlink => return Ok(CurrentRepaired::Link),
            Some(_) => {}
        }
        for number in 1..=MAX_SET_ASIDE {
            let name = format!("{CURRENT}.found-{number}");
            match disk::rename_new(at, CURRENT, &name) {
                Ok(()) => return Ok(CurrentRepaired::SetAside(self.home.join(name))),
                Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
        Err(SlotError::Foreign { path, found: format!("no link, the {}th", MAX_SET_ASIDE + 1) })
    }

    /// Whether `slots/` is the directory that was opened.
    fn in_place(&self) -> Result<bool, SlotError> {
        let fail = |errno| SlotError::io("look at", &self.slots.path, errno);
        let ours = fstat(&self.slots.fd).map_err(fail)?;
        let found = disk::look(self.home.fd.as_fd(), super::SLOTS).map_err(fail)?;
        Ok(found.is_some_and(|found| (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)))
    }

    /// Opens `slots/` again if it is not the directory any more that was opened.
    fn reopen(&mut self) -> Result<(), SlotError> {
        if self.in_place()? {
            return Ok(());
        }
        let slots = open_slots(&self.home)?;
        flock(&slots.fd, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            Errno::WOULDBLOCK => SlotError::Busy { path: slots.path.clone() },
            errno => SlotError::io("lock", &slots.path, errno),
        })?;
        self.slots = slots;
        self.whole.clear();
        Ok(())
    }
}

/// Compares one path, or, where a directory above it is none, that.
fn check_path(root: &Place, view: &dyn View, path: &str, check: &mut Check<'_>) -> Result<(), SlotError> {
    if path.is_empty() {
        let fd = root.fd.try_clone().map_err(|source| SlotError::Io {
            doing: "look at",
            path: root.path.clone(),
            source,
        })?;
        return check::check_into(Some(Place { fd, path: root.path.clone() }), view, check);
    }
    let mut at: Option<Place> = None;
    let mut path = path;
    for (end, _) in path.match_indices('/') {
        let above = path.get(..end).unwrap_or_default();
        let name = above.rsplit('/').next().unwrap_or_default();
        let here = at.as_ref().unwrap_or(root);
        match disk::open_directory(here.fd.as_fd(), name) {
            Ok(fd) => at = Some(Place { fd, path: here.join(name) }),
            Err(_) => {
                path = above;
                break;
            }
        }
    }
    let here = at.as_ref().unwrap_or(root);
    let name = path.rsplit('/').next().unwrap_or_default();
    let found = match disk::look(here.fd.as_fd(), name) {
        Ok(found) => found.map(|stat| disk::kind(&stat)),
        // As a name that is too long: nothing of the view, and nothing on disk.
        Err(_) => None,
    };
    match view.below(path).next().transpose()? {
        None => {
            let (Some(kind), Ok(name)) = (found, CString::new(name)) else { return Ok(()) };
            check.visit_extra(here, &name, kind);
            Ok(())
        }
        Some((first, entry)) if first.as_str() == path => check.visit_entry(here, &first, &entry),
        Some(_) => {
            let opened = match found {
                Some(kind) => check.visit_directory(here, name, kind),
                None => None,
            };
            let place = opened.map(|fd| Place { fd, path: here.join(name) });
            check.below(place, path, &Below { view, path })
        }
    }
}

/// Removes what is at a path of a slot. `None`: nothing was there, or nothing that a path leads to.
fn remove(root: &Place, path: &Path) -> Result<Option<u64>, SlotError> {
    let Some(name) = path.file_name() else { return Ok(None) };
    let fail = |errno| SlotError::io("remove", &root.join(path), errno);
    let mut at: Option<Place> = None;
    for name in path.parent().into_iter().flat_map(Path::iter) {
        let here = at.as_ref().unwrap_or(root);
        match disk::open_own_directory(here.fd.as_fd(), name) {
            Ok(fd) => at = Some(Place { fd, path: here.join(name) }),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) if disk::is_not_directory(errno) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        }
    }
    let here = at.as_ref().unwrap_or(root);
    if disk::look(here.fd.as_fd(), name).map_err(fail)?.is_none() {
        return Ok(None);
    }
    disk::clear_name(here, OsStr::from_bytes(name.as_bytes())).map(Some)
}
