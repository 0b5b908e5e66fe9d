//! What goes wrong in a store, and what is found damaged.

use core::fmt;
use rootcast::acceptance::Floors;
use rootcast::id::ObjectId;
use rootcast::path::BundleName;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of anything a store holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordId {
    /// An object.
    Object(ObjectId),
    /// An edit.
    Edit {
        /// Its bundle.
        bundle: BundleName,
        /// The sequence it leads to.
        sequence: u64,
    },
    /// A release record, by number.
    Release(u64),
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(id) => id.fmt(f),
            Self::Edit { bundle, sequence } => write!(f, "edit {sequence} of bundle {bundle}"),
            Self::Release(number) => write!(f, "the record of release {number}"),
        }
    }
}

/// Something that is not as it was stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// A record whose bytes changed. Writing it again heals it.
    Record(RecordId),
    /// A stretch of a file whose structure cannot be read. What it held is
    /// missing; the next collection rewrites the file.
    Region {
        /// The file.
        path: PathBuf,
        /// Where the stretch begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        length: u64,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(record) => write!(f, "{record} is damaged"),
            Self::Region { path, offset, length } => {
                write!(f, "{}: {length} bytes at offset {offset} are damaged", path.display())
            }
        }
    }
}

/// A store could not do what was asked. Unless the variant says otherwise, it
/// stays usable, at the state before the call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No room: the disk, the quota or the file size limit.
    #[error("{}: no space left; free some and try again: {source}", path.display())]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The system refused or failed.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Another process writes to this store.
    #[error("{}: another process has this store open; stop it first, or open read-only", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Another batch or collection of this process is open.
    #[error("{}: the store has an open batch or collection; finish it first", path.display())]
    Busy {
        /// The store's directory.
        path: PathBuf,
    },
    /// The store was opened read-only.
    #[error("{}: the store is open read-only", path.display())]
    ReadOnly {
        /// The store's directory.
        path: PathBuf,
    },
    /// An earlier failure could not be undone on disk. Nothing more is written
    /// through this handle; opening the store again recovers it.
    #[error("{}: an earlier failure could not be undone; open the store again", path.display())]
    Broken {
        /// The store's directory.
        path: PathBuf,
    },
    /// A commit would take a floor back.
    #[error("floors never go back: accepted {accepted:?}, offered {offered:?}")]
    FloorsBack {
        /// What the store holds.
        accepted: Box<Floors>,
        /// What the commit offered.
        offered: Box<Floors>,
    },
    /// A record beyond its bound.
    #[error("{record}: {length} bytes, over the limit of {limit}")]
    TooLarge {
        /// Which record.
        record: RecordId,
        /// Its bytes.
        length: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// An object offered under an id that is not its own.
    #[error("{id}: the bytes offered are not this object; drop them and ask another source")]
    Mismatch {
        /// The id.
        id: ObjectId,
    },
    /// A record whose bytes changed on disk.
    #[error("{}: {record} is damaged; fetch it again", path.display())]
    Damaged {
        /// The store's directory, or `memory`.
        path: PathBuf,
        /// Which record.
        record: RecordId,
    },
    /// A store of a later version of this program.
    #[error("{}: store format {found}; this program knows format 1: use the newer program", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format it says it has.
        found: u8,
    },
    /// Nothing in the directory can be recognised any more.
    #[error("{}: no file here can be read as part of a store; move the directory away and start afresh", path.display())]
    Unreadable {
        /// The store's directory.
        path: PathBuf,
    },
    /// A collection by another process kept changing the store while it was opened read-only.
    #[error("{}: the store kept changing while it was opened; try again", path.display())]
    Unsettled {
        /// The store's directory.
        path: PathBuf,
    },
}

impl StoreError {
    /// Sorts a system error into its variant.
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        let (path, kind) = (path.to_path_buf(), source.kind());
        let source = Arc::new(source);
        match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { path, source }
            }
            _ => Self::Io { path, action, source },
        }
    }
}
