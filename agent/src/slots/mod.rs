//! The two slots of a host and the link that says which is live.
//!
//! ```text
//! DIR/slots/a     one materialised generation
//! DIR/slots/b     the other
//! DIR/current  -> slots/a or slots/b
//! ```
//!
//! The standby slot is brought to the next generation, made durable, and then
//! `current` flips by one rename. Whatever fails before the rename leaves
//! `current` and the slot it names as they were (specs/activation.md).

mod beside;
mod check;
mod current;
mod disk;
mod error;
mod patterns;
mod remove;
mod repair;
mod steps;
mod view;
mod write;

#[cfg(test)]
mod tests;

pub use check::{Checked, Difference, Fault, check_tree};
pub use error::{Shortage, SlotError};
pub use patterns::Patterns;
pub use repair::{CurrentRepaired, Repaired};
pub use view::{Entries, View};

use crate::secrets::ViewSecrets;
use check::Contents;
use disk::Place;
use rootcast::entry::Entry;
use rootcast::limits::{SLOT_RESERVE, SLOT_RESERVE_INODES};
use rootcast::object::ObjectSource;
use rootcast::path::ConfigPath;
use rustix::fd::AsFd;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags, flock, fstatvfs, openat};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use view::{Checks, Totals};
use write::{Standby, Sweep, UNFINISHED, Unsynced};

/// The directory of both slots.
const SLOTS: &str = "slots";

/// One of the two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotName {
    /// `slots/a`
    A,
    /// `slots/b`
    B,
}

impl SlotName {
    /// The slot that this one is not.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
    const fn directory(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
    /// What `current` holds when it names this slot.
    const fn target(self) -> &'static str {
        match self {
            Self::A => "slots/a",
            Self::B => "slots/b",
        }
    }
}

/// What a staging did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Files and links written.
    pub written: u64,
    /// Files, links and other things removed, directories not counted.
    pub removed: u64,
    /// Bytes of content written, link targets included.
    pub bytes: u64,
    /// Syncs made: of single files and directories, or one of the file system.
    pub syncs: u64,
}

/// A standby slot that holds a whole view, durably. Only this can be activated.
#[derive(Debug)]
#[must_use = "a staged slot is not live before it is activated"]
pub struct Staged {
    slot: SlotName,
    path: PathBuf,
    serial: u64,
    report: Report,
}

impl Staged {
    /// Which slot it is.
    pub fn slot(&self) -> SlotName {
        self.slot
    }
    /// Where it is, for validation before it goes live.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// What staging it took.
    pub fn report(&self) -> Report {
        self.report
    }
}

/// A flip that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activated {
    /// The slot that is live now.
    pub slot: SlotName,
    /// The slot that was live before, if any.
    pub previous: Option<SlotName>,
    /// Syncs that the flip took.
    pub syncs: u64,
}

/// The slots of one host, held by one process.
#[derive(Debug)]
pub struct Slots {
    home: Place,
    slots: Place,
    folds: bool,
    /// The directory that links to secrets lead to.
    secrets: Option<PathBuf>,
    /// What is left alone.
    ignored: Patterns,
    /// Slots that this process has staged and not begun to stage again.
    whole: Vec<SlotName>,
    /// What this process activated last, for when the link is gone.
    last: Option<SlotName>,
    /// Whether the last flip may not be on disk; then nothing is staged before it is.
    unsynced_flip: bool,
    /// When that was, or its check began, by the clock of files.
    since: Moment,
    /// The serial of the newest staging, done or not.
    serial: u64,
}

/// A moment by the clock that the kernel marks changes of files with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64, i64);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        Self(now.tv_sec, now.tv_nsec)
    }

    /// When a file, link or directory was changed last.
    pub fn of(changed: &std::fs::Metadata) -> Self {
        Self(changed.ctime(), changed.ctime_nsec())
    }
}

/// Serials are of the process, so that no token of other slots passes here.
static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Slots {
    /// Opens the slots in `dir`, which must exist; makes `slots/` and removes
    /// what an interrupted staging or flip left. A missing `current` is no
    /// error: nothing is active then.
    ///
    /// Fails with [`SlotError::Foreign`] if `current` or `slots` is something
    /// that Rootcast did not make, [`SlotError::Busy`] if another process has
    /// the slots open, [`SlotError::Io`] otherwise.
    pub fn open(dir: &Path) -> Result<Self, SlotError> {
        let fail = |errno| SlotError::io("open", dir, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(rustix::fs::CWD, dir, flags, Mode::empty()).map_err(fail)?;
        let home = Place { fd, path: dir.to_owned() };
        let slots = open_slots(&home)?;
        match flock(&slots.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(SlotError::Busy { path: slots.path }),
            Err(errno) => return Err(SlotError::io("lock", &slots.path, errno)),
        }
        current::read(&home)?;
        current::clean(&home)?;
        // A flip that a killed process made may not be durable yet, and the slot that it left is written to next.
        rustix::fs::fsync(&home.fd).map_err(|errno| SlotError::io("sync", &home.path, errno))?;
        disk::clear(&slots, UNFINISHED)?;
        let folds = folds_case(&slots)?;
        let (whole, ignored) = (Vec::new(), Patterns::default());
        let (secrets, last, unsynced_flip, since, serial) = (None, None, false, Moment::now(), 0);
        Ok(Self { home, slots, folds, secrets, ignored, whole, last, unsynced_flip, since, serial })
    }

    /// Says what in a slot is left alone.
    pub fn set_ignored(&mut self, ignored: Patterns) {
        self.ignored = ignored;
    }

    /// Says where the files are that secrets of a view are links to
    /// (specs/activation.md, A-21). Without it a view with secrets is refused.
    pub fn set_secrets(&mut self, directory: PathBuf) {
        self.secrets = Some(directory);
    }

    fn contents<'a>(&'a self, objects: &'a dyn ObjectSource) -> Contents<'a> {
        Contents { objects, secrets: self.secrets.as_deref() }
    }

    /// The slot that `current` names, read from the link each time.
    pub fn active(&self) -> Result<Option<SlotName>, SlotError> {
        current::read(&self.home)
    }

    /// The link that names the active slot.
    pub fn current(&self) -> PathBuf {
        self.home.join(current::CURRENT)
    }

    /// Where a slot is.
    pub fn path(&self, slot: SlotName) -> PathBuf {
        self.slots.join(slot.directory())
    }

    /// Brings the standby slot to exactly `view`, trusting nothing that is in it.
    ///
    /// The view is checked first; then what is not in it is removed, every
    /// file is compared byte for byte, and what differs is written anew.
    /// After an error the standby is of no use, and the next staging must be full again.
    pub fn stage_full(&mut self, view: &dyn View, objects: &dyn ObjectSource) -> Result<Staged, SlotError> {
        let totals = view::check(view, self.folds)?;
        let slot = self.begin()?;
        let root = self.make_standby(slot)?;
        let sweep = Sweep::run(self.open_standby(slot)?, view, &self.ignored)?;
        check_room(&root, totals.minus(sweep.kept))?;
        // What was found right may have been written by a process that was killed before it synced.
        let mut standby = Standby::new(&self.slots, root, self.contents(objects), Unsynced::All);
        for item in view.entries() {
            let (path, entry) = item?;
            standby.put_if_different(&path, &entry)?;
        }
        let mut report = standby.finish()?;
        report.removed += sweep.removed;
        Ok(self.staged(slot, report))
    }

    /// Brings the standby slot, which this process has staged and which holds
    /// the base of `changes`, to the next view. `None` removes a path.
    ///
    /// Fails with [`SlotError::NeedsFull`] if this process does not know the
    /// standby to be whole, or it turns out not to be what `changes` are
    /// based on. Only what the changes touch is looked at.
    pub fn stage_changes(
        &mut self,
        changes: &BTreeMap<ConfigPath, Option<Entry>>,
        objects: &dyn ObjectSource,
    ) -> Result<Staged, SlotError> {
        let slot = self.standby()?;
        let needs_full = |reason| SlotError::NeedsFull { path: self.path(slot), reason };
        // Where another hand has turned `current`, the standby is the slot that was live.
        if !self.whole.contains(&slot) || self.last == Some(slot) {
            return Err(needs_full("is not known to be whole"));
        }
        if self.folds {
            return Err(needs_full("is on a file system that ignores case, where twins must be looked for"));
        }
        let mut checks = Checks::new(false);
        for (path, entry) in changes {
            if let Some(entry) = entry {
                checks.next(path, entry)?;
            }
        }
        let root = self.open_standby(slot)?;
        // Before the standby is touched, so that it stays known to be whole.
        check_room(&root, checks.totals())?;
        let slot = self.begin()?;
        let unsynced = Unsynced::Each(Vec::new());
        let mut standby = Standby::new(&self.slots, root, self.contents(objects), unsynced);
        // Removal first: a directory may have to make way for a file.
        for (path, _) in changes.iter().filter(|(_, entry)| entry.is_none()) {
            standby.remove(path)?;
        }
        standby.rewind()?;
        for (path, entry) in changes {
            if let Some(entry) = entry {
                standby.put(path, entry)?;
            }
        }
        let report = standby.finish()?;
        Ok(self.staged(slot, report))
    }

    /// Makes a staged slot live: one rename, made durable.
    ///
    /// After an error other than [`SlotError::FlipNotDurable`] the link is what it was.
    pub fn activate(&mut self, staged: Staged) -> Result<Activated, SlotError> {
        let slot = staged.slot;
        let previous = self.active()?;
        if staged.serial != self.serial || previous == Some(slot) {
            return Err(SlotError::Superseded { path: staged.path });
        }
        self.since = Moment::now();
        let outcome = current::flip(&self.home, slot);
        if matches!(outcome, Ok(()) | Err(SlotError::FlipNotDurable { .. })) {
            self.last = Some(slot);
            self.unsynced_flip = outcome.is_err();
        }
        outcome.map(|()| Activated { slot, previous, syncs: 1 })
    }

    /// Compares the active slot with the view that it should hold, reading every byte and writing none.
    ///
    /// `objects` gives the chunk lists of large files.
    pub fn check_active(&self, view: &dyn View, objects: &dyn ObjectSource) -> Result<Checked, SlotError> {
        let Some(slot) = self.active()? else {
            return Err(SlotError::NothingActive { path: self.home.join(current::CURRENT) });
        };
        let root = check::open_slot(&self.slots, slot, self.path(slot))?;
        check::check(root, view, self.contents(objects), &self.ignored)
    }

    /// The secrets that the active slot has links to, as far as it can be read:
    /// what is to be in memory while nothing newer is live.
    pub fn active_secrets(&self) -> ViewSecrets {
        let mut found = ViewSecrets::new();
        let (Some(secrets), Ok(Some(slot))) = (&self.secrets, self.active()) else { return found };
        let root = self.path(slot);
        let mut pending = vec![root.clone()];
        while let Some(directory) = pending.pop() {
            for item in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
                let (at, Ok(kind)) = (item.path(), item.file_type()) else { continue };
                if kind.is_dir() {
                    pending.push(at);
                    continue;
                }
                let target = std::fs::read_link(&at).unwrap_or_default();
                let id = target.strip_prefix(secrets).ok().and_then(|name| name.to_str()?.parse().ok());
                let path = at.strip_prefix(&root).ok().and_then(|path| ConfigPath::new(path.to_str()?).ok());
                if let (Some(id), Some(path)) = (id, path) {
                    found.insert(path, (id, 0));
                }
            }
        }
        found
    }

    fn standby(&self) -> Result<SlotName, SlotError> {
        let live = self.active()?.or(self.last);
        Ok(live.map_or(SlotName::A, SlotName::other))
    }

    /// Begins a staging: the standby is not whole from now on, and tokens for it are void.
    fn begin(&mut self) -> Result<SlotName, SlotError> {
        let slot = self.standby()?;
        if self.unsynced_flip {
            rustix::fs::fsync(&self.home.fd)
                .map_err(|errno| SlotError::io("sync", &self.home.path, errno))?;
            self.unsynced_flip = false;
        }
        self.whole.retain(|whole| *whole != slot);
        self.serial = SERIAL.fetch_add(1, Ordering::Relaxed) + 1;
        disk::clear(&self.slots, UNFINISHED)?;
        Ok(slot)
    }

    fn staged(&mut self, slot: SlotName, report: Report) -> Staged {
        self.whole.push(slot);
        Staged { slot, path: self.path(slot), serial: self.serial, report }
    }

    /// Opens the standby slot, or makes it, over whatever is there that is no directory.
    fn make_standby(&self, slot: SlotName) -> Result<Place, SlotError> {
        let (at, name) = (self.slots.fd.as_fd(), slot.directory());
        let fail = |errno| SlotError::io("make", &self.path(slot), errno);
        let found = disk::look(at, name).map_err(fail)?;
        if let Some(stat) = found {
            if disk::kind(&stat) == FileType::Directory {
                return self.open_standby(slot);
            }
            disk::unlink(at, name).map_err(fail)?;
        }
        let fd = disk::make_directory(at, name).map_err(fail)?;
        Ok(Place { fd, path: self.path(slot) })
    }

    fn open_standby(&self, slot: SlotName) -> Result<Place, SlotError> {
        let path = self.path(slot);
        match disk::open_own_directory(self.slots.fd.as_fd(), slot.directory()) {
            Ok(fd) => Ok(Place { fd, path }),
            Err(Errno::NOENT) => Err(SlotError::NeedsFull { path, reason: "is not there" }),
            Err(errno) if disk::is_not_directory(errno) => {
                Err(SlotError::NeedsFull { path, reason: "is not a directory" })
            }
            Err(errno) => Err(SlotError::io("open", &path, errno)),
        }
    }
}

/// Opens `slots/`, or makes it.
fn open_slots(home: &Place) -> Result<Place, SlotError> {
    let path = home.join(SLOTS);
    let fail = |doing| move |errno| (doing, errno);
    let opened = match disk::open_mounted(home.fd.as_fd(), SLOTS) {
        Err(Errno::NOENT) => disk::make_directory(home.fd.as_fd(), SLOTS)
            .and_then(|fd| disk::sync(home.fd.as_fd()).map(|()| fd))
            .map_err(fail("make")),
        Err(errno) if disk::is_not_directory(errno) => {
            return Err(SlotError::Foreign { path, found: "a link or file".into() });
        }
        outcome => outcome.map_err(fail("open")),
    };
    match opened {
        Ok(fd) => Ok(Place { fd, path }),
        Err((doing, errno)) => Err(SlotError::io(doing, &path, errno)),
    }
}

/// Whether the file system of the slots takes `a` and `A` for one name.
///
/// A slot's own name is the probe, so that nothing is left behind. Where it
/// cannot be made (a full disk) the answer is yes, which only refuses more.
fn folds_case(slots: &Place) -> Result<bool, SlotError> {
    let at = slots.fd.as_fd();
    let fail = |errno| SlotError::io("look at", &slots.path, errno);
    let name = SlotName::A.directory();
    let lower = match disk::look(at, name).map_err(fail)? {
        Some(stat) => stat,
        None => match disk::make_directory(at, name) {
            Ok(fd) => rustix::fs::fstat(&fd).map_err(fail)?,
            Err(Errno::NOSPC | Errno::DQUOT | Errno::ROFS) => return Ok(true),
            Err(errno) => return Err(fail(errno)),
        },
    };
    let upper = disk::look(at, name.to_uppercase()).map_err(fail)?;
    Ok(upper.is_some_and(|upper| (upper.st_dev, upper.st_ino) == (lower.st_dev, lower.st_ino)))
}

/// Refuses to begin what the disk has no room for, the reserve left alone.
fn check_room(at: &Place, wanted: Totals) -> Result<(), SlotError> {
    let room = fstatvfs(&at.fd).map_err(|errno| SlotError::io("look at", &at.path, errno))?;
    let shortage = Shortage {
        bytes_wanted: wanted.bytes.saturating_add(SLOT_RESERVE),
        bytes_free: room.f_bavail.saturating_mul(room.f_frsize),
        inodes_wanted: wanted.inodes.saturating_add(SLOT_RESERVE_INODES),
        inodes_free: room.f_favail,
    };
    // Some file systems do not count inodes, or blocks, and say zero of zero.
    let few_bytes = room.f_blocks > 0 && shortage.bytes_free < shortage.bytes_wanted;
    let few_inodes = room.f_files > 0 && shortage.inodes_free < shortage.inodes_wanted;
    if few_bytes || few_inodes {
        return Err(SlotError::DiskFull { path: at.path.clone(), shortage: Some(shortage) });
    }
    Ok(())
}
