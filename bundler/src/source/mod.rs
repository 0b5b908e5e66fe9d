//! Configuration sources: a git repository at a commit, or a plain directory.
//!
//! A source is read, never run. Of a repository only objects are read: nothing
//! is checked out, and no hook, filter, attribute or configured command has a
//! part in it. Of a directory, files are opened beneath the root without
//! following a link (threats 15, 16 and 18). Whatever a bundle cannot hold is
//! refused with the file's name, before anything is signed.

mod directory;
mod git;
mod names;

use directory::{DirectorySource, Stamp};
use git::GitSource;
use rootcast::limits::{MAX_FILE, MAX_REFUSALS_NAMED, MAX_SOURCE_FILES};
use rootcast::path::{ConfigPath, LinkTarget, PathFault};
use std::fmt;
use std::path::{Path, PathBuf};

pub use names::{Twins, twins};

/// What a file of a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A file.
    Regular,
    /// A file that its owner may execute.
    Executable,
    /// A symbolic link that stays inside the source; its bytes are its target.
    Symlink,
}

/// A file of a source: everything but its bytes, which [`Source::read`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is, from the source's root.
    pub path: ConfigPath,
    /// What it is.
    pub kind: FileKind,
    /// Its size in bytes; of a link, its target's.
    pub size: u64,
    handle: Handle,
}

/// Where the bytes of a file are, and what they were when it was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handle {
    Object(gix::ObjectId),
    Stamp(Stamp),
}

/// One difference between a source now and a source before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The file is new, or its bytes or kind are.
    Put(SourceFile),
    /// There is no file there any more.
    Remove(ConfigPath),
}

impl Change {
    /// The path that the change is about.
    pub fn path(&self) -> &ConfigPath {
        match self {
            Self::Put(file) => &file.path,
            Self::Remove(path) => path,
        }
    }
}

/// What a source holds, whole or relative to what was asked for. Sorted by
/// path; no path is there twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Every file.
    Full(Vec<SourceFile>),
    /// What differs from the state asked for.
    Since(Vec<Change>),
}

/// What a source may hold. The limits of single bundles are the settings' matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLimits {
    /// Most files, all bundles together.
    pub files: u64,
    /// Largest file, in bytes.
    pub file_size: u64,
}

impl Default for SourceLimits {
    fn default() -> Self {
        Self { files: MAX_SOURCE_FILES, file_size: MAX_FILE }
    }
}

/// Why a source's file cannot be delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A path that no bundle can hold.
    #[error("path {0}")]
    Path(PathFault),
    /// A link whose target leaves the source, or that is no path at all.
    #[error("link target {0}")]
    Link(PathFault),
    /// A submodule: a commit of another repository.
    #[error("is a submodule; commit its files instead, or remove it")]
    Submodule,
    /// A name that git, on some system, would take for its own directory.
    #[error("has a segment that some systems take for `.git`; rename it")]
    DotGit,
    /// A `/` inside one name, which only a forged tree has.
    #[error("has a `/` inside one segment; the repository is damaged, try `git fsck`")]
    Slash,
    /// Not a file, directory or link.
    #[error("is a {0}, not a file, directory or link")]
    Special(&'static str),
    /// Permission bits that are not those of a file.
    #[error("has the unknown mode {0:o}")]
    Mode(u32),
    /// Over the limit.
    #[error("has {size} bytes, over the limit of {limit}; raise limits.file_size or remove it")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Twice in one directory.
    #[error("is there twice in one directory; the repository is damaged, try `git fsck`")]
    Duplicate,
    /// Its object is not in the repository.
    #[error("has no object {0} here; fetch it, as `git fetch` does for a shallow or partial clone")]
    Missing(String),
    /// Its object is of another type than its mode says.
    #[error("names object {0}, which is of another type; the repository is damaged, try `git fsck`")]
    WrongObject(String),
}

/// A file that cannot be delivered, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` {reason}")]
pub struct RefusedFile {
    /// Its path, as far as it can be printed: escaped and shortened.
    pub path: String,
    /// Why.
    pub reason: Refusal,
}

/// Every file that was refused: the first are named, all are counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refused {
    /// The first, at most [`MAX_REFUSALS_NAMED`], in the order they were met.
    pub files: Vec<RefusedFile>,
    /// How many more there are.
    pub more: u64,
}

impl Refused {
    fn add(&mut self, path: &[u8], reason: Refusal) {
        if self.files.len() >= MAX_REFUSALS_NAMED {
            self.more += 1;
            return;
        }
        self.files.push(RefusedFile { path: printable(path), reason });
    }

    fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            write!(f, "\n  {file}")?;
        }
        if self.more > 0 {
            write!(f, "\n  and {} more", self.more)?;
        }
        Ok(())
    }
}

/// A path for people: no control character, no more than a line or two.
fn printable(path: &[u8]) -> String {
    const SHOWN: usize = 200;
    let text = String::from_utf8_lossy(path);
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Checks that a link's target stays inside the source.
fn check_target(path: &ConfigPath, target: &[u8]) -> Result<(), Refusal> {
    let target = std::str::from_utf8(target).map_err(|_| Refusal::Link(PathFault::NotUtf8))?;
    LinkTarget::new(path, target).map(|_| ()).map_err(|error| Refusal::Link(error.reason))
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No such directory, or no right to enter it.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The source.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Git's own directory is there, but is not a repository that can be read.
    #[error("{} is not a git repository that can be read: {source}", path.display())]
    NotARepository {
        /// The source.
        path: PathBuf,
        /// What the reader said.
        source: Cause,
    },
    /// A revision of something that has none.
    #[error("{} is a plain directory and has no revision `{revision}`: give the root of a git repository", path.display())]
    RevisionOfDirectory {
        /// The source.
        path: PathBuf,
        /// What was asked for.
        revision: String,
    },
    /// No commit of that name.
    #[error("{} has no revision `{revision}`: give a branch, a tag or a whole commit id ({source})", path.display())]
    NoRevision {
        /// The source.
        path: PathBuf,
        /// What was asked for.
        revision: String,
        /// What the reader said.
        source: Cause,
    },
    /// The repository is empty.
    #[error("{} has no commit yet: commit something first", path.display())]
    NoCommit {
        /// The source.
        path: PathBuf,
    },
    /// The repository does not give what it should hold.
    #[error("cannot read {what} of {}: {source}; try `git fsck`", path.display())]
    Damaged {
        /// The source.
        path: PathBuf,
        /// What was read.
        what: String,
        /// What the reader said.
        source: Cause,
    },
    /// A file or directory cannot be read.
    #[error("cannot read `{file}` in {}: {source}", path.display())]
    Read {
        /// The source.
        path: PathBuf,
        /// The file, from the source's root.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what it was when it was listed.
    #[error("`{file}` in {} changed while it was read: try again", path.display())]
    Changed {
        /// The source.
        path: PathBuf,
        /// The file, from the source's root.
        file: String,
    },
    /// Something that is not a regular file stands where one is wanted.
    #[error("`{file}` in {} is not a regular file", path.display())]
    NotAFile {
        /// The source.
        path: PathBuf,
        /// The file, from the source's root.
        file: String,
    },
    /// Files that no bundle can hold.
    #[error("{} has files that cannot be delivered:{refused}", path.display())]
    Refused {
        /// The source.
        path: PathBuf,
        /// The files.
        refused: Refused,
    },
    /// Over the limit of files.
    #[error("{} has more than {limit} files, the limit of one source: split it into channels", path.display())]
    TooManyFiles {
        /// The source.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// Over the bound of entries looked at, directories included.
    #[error("{} has more than {limit} directory entries to look at: its directories repeat or are empty", path.display())]
    TooManyEntries {
        /// The source.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// A file was listed by another source.
    #[error("`{file}` was not listed by the source {}", path.display())]
    ForeignFile {
        /// The source.
        path: PathBuf,
        /// The file.
        file: String,
    },
}

impl SourceError {
    /// Whether the source itself is at fault, so that only a change to it helps:
    /// not the disk, and not what was asked for.
    pub fn is_invalid_source(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::TooManyFiles { .. }
                | Self::TooManyEntries { .. }
                | Self::NotAFile { .. }
        )
    }
}

/// A configuration source, opened: a git repository at a commit, or a directory.
///
/// It can move to another thread, but is used by one at a time.
#[derive(Debug)]
pub struct Source {
    place: Place,
    kind: Kind,
}

/// What both kinds of source have: for bounds and for messages.
#[derive(Debug, Clone)]
struct Place {
    path: PathBuf,
    limits: SourceLimits,
}

#[derive(Debug)]
enum Kind {
    Git(Box<GitSource>),
    Directory(DirectorySource),
}

impl Source {
    /// Opens the source at `path`.
    ///
    /// A repository's root, git directory, linked worktree or bare repository is
    /// read at `revision`: a branch, tag or other reference, or a whole commit
    /// id; `HEAD` without one. Any other directory, one inside a work tree
    /// included, is a plain directory. The environment and settings outside the
    /// repository have no say.
    ///
    /// # Errors
    /// When there is nothing there, when a repository cannot be read or has no
    /// such commit, or when a plain directory is asked for a revision.
    pub fn open(path: &Path, revision: Option<&str>) -> Result<Self, SourceError> {
        if !git::is_repository(path) {
            if let Some(revision) = revision {
                let (path, revision) = (path.to_owned(), revision.to_owned());
                return Err(SourceError::RevisionOfDirectory { path, revision });
            }
            return Self::open_directory(path);
        }
        let place = Place { path: path.to_owned(), limits: SourceLimits::default() };
        let kind = Kind::Git(Box::new(GitSource::open(&place, revision.unwrap_or("HEAD"))?));
        Ok(Self { place, kind })
    }

    /// Opens `path` as a plain directory, even where it is a work tree: what is
    /// there now, committed or not. `.git` is left out.
    ///
    /// # Errors
    /// When it is not a directory that can be opened.
    pub fn open_directory(path: &Path) -> Result<Self, SourceError> {
        let place = Place { path: path.to_owned(), limits: SourceLimits::default() };
        let kind = Kind::Directory(DirectorySource::open(&place)?);
        Ok(Self { place, kind })
    }

    /// Where the source is, as it was given.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Sets what the source may hold; [`SourceLimits::default`] until then.
    pub fn set_limits(&mut self, limits: SourceLimits) {
        self.place.limits = limits;
    }

    /// The commit that is read, 20 or 32 bytes; empty for a directory.
    pub fn commit(&self) -> &[u8] {
        match &self.kind {
            Kind::Git(git) => git.commit(),
            Kind::Directory(_) => &[],
        }
    }

    /// What the source holds, relative to `since` where that can be told.
    ///
    /// Of a repository, `since` is a commit: the two trees are compared by
    /// object id, equal directories are skipped and no file's bytes are read,
    /// links apart. What is unchanged is not judged again, so `since` is to be a
    /// commit that was delivered. One that is not there gives the whole listing.
    ///
    /// Of a directory, an empty `since` is the last listing that was accepted
    /// with [`Source::accept`]; before the first, and for any other `since`, the
    /// whole listing is given. Files that changed a moment before the accepted
    /// listing may be put again unchanged: their time stamps cannot tell.
    ///
    /// # Errors
    /// When anything in it cannot be delivered (every such file is counted, the
    /// first are named), when it is over a limit, or when it cannot be read.
    pub fn changes(&self, since: &[u8]) -> Result<Changes, SourceError> {
        match &self.kind {
            Kind::Git(git) => git.changes(&self.place, since),
            Kind::Directory(directory) => directory.changes(&self.place, since),
        }
    }

    /// Says that the changes last given have been dealt with, so that a
    /// directory's next ones may be relative to them. Nothing for a repository.
    pub fn accept(&self) {
        if let Kind::Directory(directory) = &self.kind {
            directory.accept();
        }
    }

    /// The bytes of a file that this source listed; of a link, its target.
    ///
    /// # Errors
    /// When it cannot be read, or is no longer what was listed.
    pub fn read(&self, file: &SourceFile) -> Result<Vec<u8>, SourceError> {
        match (&self.kind, &file.handle) {
            (Kind::Git(git), Handle::Object(id)) => git.read(&self.place, file, *id),
            (Kind::Directory(directory), Handle::Stamp(stamp)) => directory.read(&self.place, file, stamp),
            _ => {
                let file = printable(file.path.as_str().as_bytes());
                Err(SourceError::ForeignFile { path: self.place.path.clone(), file })
            }
        }
    }

    /// The bytes of the regular file at `path`; `None` when nothing is there.
    /// Bounded by the limit of a file's size. For the settings, which are read
    /// before any listing.
    ///
    /// # Errors
    /// When it is there but is no regular file, is over the limit, or cannot be read.
    pub fn read_path(&self, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let Ok(path) = ConfigPath::new(path) else { return Ok(None) };
        match &self.kind {
            Kind::Git(git) => git.read_path(&self.place, &path),
            Kind::Directory(directory) => directory.read_path(&self.place, &path),
        }
    }

    /// The target of the link at `path`; `None` where something else is there, or nothing.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn link_at(&self, path: &ConfigPath) -> Result<Option<String>, SourceError> {
        let target = match &self.kind {
            Kind::Git(git) => git.link_at(&self.place, path),
            Kind::Directory(directory) => directory.link_at(&self.place, path),
        };
        Ok(target?.map(|target| printable(&target)))
    }

    /// The newest `count` commits along first parents, oldest first, ending with
    /// the one that is read. Fewer where history begins, or a shallow clone ends;
    /// none for a directory.
    ///
    /// # Errors
    /// When a commit cannot be read.
    pub fn first_parents(&self, count: usize) -> Result<Vec<Vec<u8>>, SourceError> {
        match &self.kind {
            Kind::Git(git) => git.first_parents(&self.place, count),
            Kind::Directory(_) => Ok(Vec::new()),
        }
    }

    /// The same repository at another commit; it shares the open packs and no
    /// longer follows a branch.
    ///
    /// # Errors
    /// When there is no such commit, or the source is a directory.
    pub fn at(&self, commit: &[u8]) -> Result<Self, SourceError> {
        match &self.kind {
            Kind::Git(git) => {
                let kind = Kind::Git(Box::new(git.at(&self.place, commit)?));
                Ok(Self { place: self.place.clone(), kind })
            }
            Kind::Directory(_) => {
                let (path, revision) = (self.place.path.clone(), hex::encode(commit));
                Err(SourceError::RevisionOfDirectory { path, revision })
            }
        }
    }

    /// The commit that the revision names now, which may be newer than the one
    /// that is read; empty for a directory.
    ///
    /// # Errors
    /// When the revision is gone.
    pub fn head(&self) -> Result<Vec<u8>, SourceError> {
        match &self.kind {
            Kind::Git(git) => git.head(&self.place),
            Kind::Directory(_) => Ok(Vec::new()),
        }
    }

    /// Moves to the commit that the revision names now. Whether it moved;
    /// always true for a directory, of which only [`Source::changes`] can tell.
    ///
    /// # Errors
    /// When the revision is gone; then the source stays where it was.
    pub fn refresh(&mut self) -> Result<bool, SourceError> {
        match &mut self.kind {
            Kind::Git(git) => git.refresh(&self.place),
            Kind::Directory(_) => Ok(true),
        }
    }
}
