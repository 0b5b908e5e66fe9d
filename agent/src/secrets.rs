//! A host's secrets: which of a release are for it, and their files in memory
//! (specs/activation.md, A-21 to A-27).
//!
//! Slots hold links; what the links lead to is decrypted here, before `current`
//! flips, and never touches a disk.

use rootcast::entry::Entry;
use rootcast::id::BlobId;
use rootcast::limits::MAX_HOST_SECRETS;
use rootcast::object::{ObjectSource, ReadError};
use rootcast::path::ConfigPath;
use rootcast_age::{AgeError, DecryptionKey, Plaintext};
use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The permission bits of a secret.
pub const SECRET_MODE: u32 = 0o400;
/// The permission bits of their directory.
const DIRECTORY_MODE: u32 = 0o700;
/// The file that is being written.
const UNFINISHED: &str = ".writing";
/// What statfs calls file systems that live in memory.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

/// The secrets of a view by path: the blob that holds each, and its size.
pub type ViewSecrets = BTreeMap<ConfigPath, (BlobId, u64)>;

/// A secret could not be opened or put in its place.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It was changed after it was encrypted, or never was what it should be.
    #[error("secret `{path}` {source}")]
    Broken {
        /// The secret.
        path: ConfigPath,
        /// What is wrong.
        source: AgeError,
    },
    /// The encrypted bytes could not be read.
    #[error(transparent)]
    Object(#[from] ReadError),
    /// More than a host may hold in memory.
    #[error("the host's secrets have {size} bytes, and at most {MAX_HOST_SECRETS} are held; give it fewer")]
    TooMany {
        /// Their size, encrypted.
        size: u64,
    },
    /// Neither the configuration nor the environment says where.
    #[error(
        "there is no directory for secrets: set `secrets` in the agent's configuration to one on a tmpfs"
    )]
    NoDirectory,
    /// What is written there would reach a disk.
    #[error(
        "{} is not in memory; secrets are written to tmpfs or ramfs only: mount one there, or set `secrets` in \
         the agent's configuration to a directory on one",
        path.display()
    )]
    NotInMemory {
        /// The directory.
        path: PathBuf,
    },
    /// Others can enter it.
    #[error("{} is open to others (mode {mode:03o}, owner {owner}); make it its user's own with mode 700", path.display())]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
        /// Its owner's number.
        owner: u32,
    },
    /// Two agents would remove each other's secrets.
    #[error("{} is in use by another agent; set `secrets` in the configuration of one of them", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The system refused.
    #[error("could not {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The secrets of one host: its key, and the directory of their files.
#[derive(Debug, Default)]
pub struct Secrets {
    key: Option<DecryptionKey>,
    path: Option<PathBuf>,
    /// Open and locked since the first secret was written.
    directory: Option<Directory>,
}

impl Secrets {
    /// With the key of a host and the directory that it has for its secrets.
    /// Without a key every secret is another's.
    pub fn new(key: Option<DecryptionKey>, directory: Option<PathBuf>) -> Self {
        Self { key, path: directory, directory: None }
    }

    /// The directory.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Whether a secret is for this host.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn is_ours(
        &self,
        path: &ConfigPath,
        id: &BlobId,
        objects: &dyn ObjectSource,
    ) -> Result<bool, SecretError> {
        let Some(key) = &self.key else { return Ok(false) };
        let file = objects.read(&(*id).into())?;
        key.opens(&file).map_err(|source| SecretError::Broken { path: path.clone(), source })
    }

    /// Takes out of a view the secrets of other hosts. Returns those that stay.
    ///
    /// # Errors
    /// As [`Secrets::is_ours`].
    pub fn filter(
        &self,
        view: &mut BTreeMap<ConfigPath, Entry>,
        objects: &dyn ObjectSource,
    ) -> Result<ViewSecrets, SecretError> {
        let secret = |(path, entry): (&ConfigPath, &Entry)| match entry {
            Entry::Secret { id, size } => Some((path.clone(), (*id, *size))),
            _ => None,
        };
        let mut ours: ViewSecrets = view.iter().filter_map(secret).collect();
        let mut others = Vec::new();
        for (path, (id, _)) in &ours {
            if !self.is_ours(path, id, objects)? {
                others.push(path.clone());
            }
        }
        for path in others {
            ours.remove(&path);
            view.remove(&path);
        }
        Ok(ours)
    }

    /// What a secret of this host holds.
    ///
    /// # Errors
    /// When it cannot be read, is for another host, or was changed.
    pub fn decrypt(
        &self,
        path: &ConfigPath,
        id: &BlobId,
        objects: &dyn ObjectSource,
    ) -> Result<Plaintext, SecretError> {
        decrypt(self.key.as_ref(), path, id, objects)
    }

    /// Sees to it that the file of each of these secrets is there and right.
    ///
    /// # Errors
    /// When one does not decrypt, or the directory is not fit to hold them.
    pub fn put(&mut self, secrets: &ViewSecrets, objects: &dyn ObjectSource) -> Result<(), SecretError> {
        if secrets.is_empty() {
            return Ok(());
        }
        let size = secrets.values().map(|(_, size)| size).sum();
        if size > MAX_HOST_SECRETS {
            return Err(SecretError::TooMany { size });
        }
        let directory = match self.directory.take().filter(Directory::is_there) {
            Some(directory) => directory,
            None => Directory::open(self.path.as_deref().ok_or(SecretError::NoDirectory)?)?,
        };
        let directory = self.directory.insert(directory);
        for (path, (id, _)) in secrets {
            if directory.is_placed(id) {
                continue;
            }
            let plaintext = decrypt(self.key.as_ref(), path, id, objects)?;
            directory.put(&id.to_string(), &plaintext)?;
            directory.placed.insert(*id);
        }
        Ok(())
    }

    /// Removes the files of all other secrets: call it when both slots are known.
    ///
    /// # Errors
    /// When the directory cannot be read, or a file not removed.
    pub fn keep_only(&mut self, wanted: &BTreeSet<BlobId>) -> Result<(), SecretError> {
        if self.directory.is_none() && wanted.is_empty() {
            // Secrets of a process before this one may be there, and a directory need not be.
            let there = self.path.as_deref().filter(|path| path.is_dir());
            self.directory = match there.map(Directory::open).transpose() {
                // Nothing of ours was ever written there.
                Err(SecretError::NotInMemory { .. }) => None,
                opened => opened?,
            };
        }
        match &mut self.directory {
            Some(directory) => directory.keep_only(wanted),
            None => Ok(()),
        }
    }
}

fn decrypt(
    key: Option<&DecryptionKey>,
    path: &ConfigPath,
    id: &BlobId,
    objects: &dyn ObjectSource,
) -> Result<Plaintext, SecretError> {
    let broken = |source| SecretError::Broken { path: path.clone(), source };
    let file = objects.read(&(*id).into())?;
    let plaintext = key.map(|key| key.decrypt(&file)).transpose().map_err(broken)?.flatten();
    plaintext.ok_or_else(|| broken(AgeError::Header("it is for another host")))
}

/// The directory of a host's secrets, held by one process.
#[derive(Debug)]
struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    /// Those that this process wrote or compared.
    placed: BTreeSet<BlobId>,
}

impl Directory {
    fn open(path: &Path) -> Result<Self, SecretError> {
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
        made.map_err(|source| SecretError::Io { doing: "make", path: path.to_owned(), source })?;
        let failed =
            |errno: Errno| SecretError::Io { doing: "open", path: path.to_owned(), source: errno.into() };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = fs::openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
        let kind = fs::fstatfs(&fd).map_err(failed)?.f_type;
        if ![TMPFS, RAMFS].contains(&kind) {
            return Err(SecretError::NotInMemory { path: path.to_owned() });
        }
        let stat = fs::fstat(&fd).map_err(failed)?;
        let (mode, owner) = (stat.st_mode & 0o777, stat.st_uid);
        if mode != DIRECTORY_MODE || owner != rustix::process::geteuid().as_raw() {
            return Err(SecretError::Exposed { path: path.to_owned(), mode, owner });
        }
        match fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(SecretError::Busy { path: path.to_owned() }),
            Err(errno) => return Err(failed(errno)),
        }
        let directory = Self { fd, path: path.to_owned(), placed: BTreeSet::new() };
        directory.remove(UNFINISHED)?;
        Ok(directory)
    }

    /// Whether its path still leads to it: it may have been removed and made anew by others.
    fn is_there(&self) -> bool {
        let ours = fs::fstat(&self.fd).map(|stat| (stat.st_dev, stat.st_ino));
        let there =
            fs::statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (stat.st_dev, stat.st_ino));
        ours.is_ok() && ours == there
    }

    /// Whether a file that this process put there is still there.
    fn is_placed(&self, id: &BlobId) -> bool {
        let is_secret =
            |mode| FileType::from_raw_mode(mode) == FileType::RegularFile && mode & 0o7777 == SECRET_MODE;
        self.placed.contains(id)
            && fs::statat(&self.fd, id.to_string(), AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| is_secret(stat.st_mode))
    }

    fn failed(&self, doing: &'static str, name: &str) -> impl FnOnce(Errno) -> SecretError {
        let path = self.path.join(name);
        move |errno| SecretError::Io { doing, path, source: errno.into() }
    }

    fn remove(&self, name: &str) -> Result<(), SecretError> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed("remove", name)(errno)),
        }
    }

    /// Writes a file unless exactly it is there.
    fn put(&self, name: &str, plaintext: &[u8]) -> Result<(), SecretError> {
        if self.holds(name, plaintext) {
            return Ok(());
        }
        self.remove(UNFINISHED)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(SECRET_MODE);
        let fd = fs::openat(&self.fd, UNFINISHED, flags, mode).map_err(self.failed("create", name))?;
        let written = write(&fd, plaintext)
            .and_then(|()| fs::fchmod(&fd, mode))
            .and_then(|()| fs::renameat(&self.fd, UNFINISHED, &self.fd, name));
        if let Err(errno) = written {
            // Gives its memory back where there was too little.
            let _ = self.remove(UNFINISHED);
            return Err(self.failed("write", name)(errno));
        }
        Ok(())
    }

    /// Whether a file is there, with these bytes, for its owner alone.
    fn holds(&self, name: &str, plaintext: &[u8]) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(fd) = fs::openat(&self.fd, name, flags, Mode::empty()) else { return false };
        let Ok(stat) = fs::fstat(&fd) else { return false };
        let is_ours = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_mode & 0o7777 == SECRET_MODE
            && stat.st_nlink == 1
            && stat.st_uid == rustix::process::geteuid().as_raw();
        if !is_ours || u64::try_from(stat.st_size) != Ok(plaintext.len() as u64) {
            return false;
        }
        let mut found = Zeroizing::new(vec![0; plaintext.len()]);
        read(&fd, &mut found).is_ok() && **found == *plaintext
    }

    /// Removes what has the name of a secret, those wanted excepted. What others put there stays.
    fn keep_only(&mut self, wanted: &BTreeSet<BlobId>) -> Result<(), SecretError> {
        self.placed.retain(|id| wanted.contains(id));
        let mut gone = Vec::new();
        for item in Dir::read_from(&self.fd).map_err(self.failed("list", ""))? {
            let item = item.map_err(self.failed("list", ""))?;
            let Ok(name) = item.file_name().to_str() else { continue };
            if name.parse::<BlobId>().is_ok_and(|id| !wanted.contains(&id)) {
                gone.push(name.to_owned());
            }
        }
        gone.iter().try_for_each(|name| self.remove(name))
    }
}

fn write(fd: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
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

fn read(fd: &OwnedFd, mut into: &mut [u8]) -> Result<(), Errno> {
    while !into.is_empty() {
        match rustix::io::read(fd, &mut *into) {
            Ok(0) => return Err(Errno::IO),
            Ok(read) => into = into.get_mut(read..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
