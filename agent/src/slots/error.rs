//! What can go wrong with the slots, and what to do about it.

use rootcast::codec::CodecError;
use rootcast::object::ReadError;
use rootcast::path::{ConfigPath, PathError};
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// Why a slot could not be opened, staged, activated or checked.
///
/// `current` is what it was, except where [`SlotError::FlipNotDurable`] says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The system refused an operation.
    #[error("could not {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No room for the new generation: bytes, inodes or quota.
    #[error("no room for the new files at {}{}; free some: the running configuration is untouched",
        path.display(), shortage.map(|s| s.to_string()).unwrap_or_default())]
    DiskFull {
        /// What could not be written.
        path: PathBuf,
        /// What is wanted and there, where it was known before writing.
        shortage: Option<Shortage>,
    },
    /// An object could not be read. Fetch it again where [`ReadError::refetch`] says so, then stage again.
    #[error(transparent)]
    Object(#[from] ReadError),
    /// The chunk list of a large file cannot be decoded.
    #[error("chunk list of `{path}`: {source}; the bundle was built wrongly")]
    ChunkList {
        /// The file.
        path: ConfigPath,
        /// What is wrong with it.
        source: CodecError,
    },
    /// An object has another size than the entry that names it.
    #[error("`{path}` has {found} bytes where its entry says {wanted}; the bundle was built wrongly")]
    WrongSize {
        /// The file.
        path: ConfigPath,
        /// Size in the entry or chunk list.
        wanted: u64,
        /// Size of the object.
        found: u64,
    },
    /// The view could not be read to its end.
    #[error("the view could not be read: {0}")]
    View(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The view is not sorted by path, or has a path twice.
    #[error("the view has `{path}` twice or out of order; this is a fault of the resolver")]
    OutOfOrder {
        /// The path that came too late.
        path: ConfigPath,
    },
    /// The view has a file or link where it has a directory too. Nothing was written.
    #[error(
        "the view has both `{above}` and `{below}`: a file cannot be a directory too; rename one in its layer"
    )]
    Conflict {
        /// The file or link.
        above: ConfigPath,
        /// What lies beneath it.
        below: ConfigPath,
    },
    /// Two paths of the view are one name on this file system. Nothing was written.
    #[error("`{one}` and `{other}` are the same name on this file system, which ignores case; rename one")]
    Twins {
        /// The first.
        one: String,
        /// The second.
        other: String,
    },
    /// A link of the view leaves the slot. Nothing was written.
    #[error("link in the view: {0}")]
    Link(#[source] PathError),
    /// The view has a secret, and it was not said where secrets are.
    #[error(
        "`{path}` is a secret, and no directory is set for secrets; set `secrets` in the agent's configuration"
    )]
    NoSecrets {
        /// The secret.
        path: ConfigPath,
    },
    /// Something that Rootcast did not make is in the way.
    #[error("{} is {found}, which rootcast did not make; look at it, move it away and start again", path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// Changes cannot be applied to the standby slot as it is; [`super::Slots::stage_full`] can.
    #[error("{} {reason}; the slot must be staged in full", path.display())]
    NeedsFull {
        /// Where it was noticed.
        path: PathBuf,
        /// What was noticed.
        reason: &'static str,
    },
    /// Another process has these slots open.
    #[error("{} is in use by another process; only one agent may run here", path.display())]
    Busy {
        /// The directory of the slots.
        path: PathBuf,
    },
    /// The staged slot was staged again, or flipped to, since. Stage again.
    #[error("slot {} is not as it was staged any more; stage again", path.display())]
    Superseded {
        /// The slot.
        path: PathBuf,
    },
    /// `current` points to the new generation, but a power failure now might undo that.
    #[error("{} is flipped, but the flip may not survive a power failure: {source}", path.display())]
    FlipNotDurable {
        /// The directory that was not synced.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no active generation to check.
    #[error("{} does not exist: nothing was activated yet, or the link was removed; stage in full and activate", path.display())]
    NothingActive {
        /// The link.
        path: PathBuf,
    },
}

/// What was wanted of a file system, and what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes wanted, the reserve included.
    pub bytes_wanted: u64,
    /// Bytes there.
    pub bytes_free: u64,
    /// Inodes wanted, the reserve included.
    pub inodes_wanted: u64,
    /// Inodes there.
    pub inodes_free: u64,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes_wanted, bytes_free, inodes_wanted, inodes_free } = self;
        write!(f, " (wanted {bytes_wanted} bytes and {inodes_wanted} inodes, ")?;
        write!(f, "have {bytes_free} and {inodes_free})")
    }
}

impl SlotError {
    /// Whether [`super::Slots::stage_full`] is the answer.
    pub fn needs_full(&self) -> bool {
        matches!(self, Self::NeedsFull { .. })
    }

    /// What a refused system call means.
    pub(super) fn io(doing: &'static str, path: &Path, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::NOSPC | Errno::DQUOT => Self::DiskFull { path, shortage: None },
            Errno::XDEV => Self::Foreign { path, found: "a mount point, or holds one".into() },
            _ => Self::Io { doing, path, source: errno.into() },
        }
    }
}
