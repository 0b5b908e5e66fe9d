//! Bytes of live files (LA-4, LA-5).

use super::Local;
use hyper::StatusCode;
use hyper::body::Bytes;
use rootcast::id::BlobId;
use rootcast::limits::{MAX_LOCAL_FILE, MAX_VALUES_FILE};
use rootcast::path::ConfigPath;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;
use std::io::Read;
use std::path::Path;

/// The largest file that is served as it is.
pub(super) const WHOLE: u64 = MAX_LOCAL_FILE;
/// The largest file whose values are looked into.
pub(super) const VALUES: u64 = MAX_VALUES_FILE;

/// Why a file is not served.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is no path.
    #[error("`{path}` is no path of a file: {reason}")]
    Path {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is not there, or is a directory.
    #[error("there is no file `{path}` in what is live")]
    Absent {
        /// The path.
        path: ConfigPath,
    },
    /// It is a link out of the tree: a secret.
    #[error("`{path}` is a secret, and secrets are not served here; open it where it lies")]
    Secret {
        /// The path.
        path: ConfigPath,
    },
    /// It is too large.
    #[error("`{path}` has {size} bytes, and at most {most} are served; open it where it lies")]
    TooLarge {
        /// The path.
        path: ConfigPath,
        /// Its size.
        size: u64,
        /// What is served at most.
        most: u64,
    },
    /// The system refused.
    #[error("`{path}` could not be read: {source}")]
    Io {
        /// The path.
        path: ConfigPath,
        /// What the system said.
        source: std::io::Error,
    },
    /// One generation after the other became live while it was read.
    #[error("what is live changed again and again while it was read; ask again")]
    Busy,
}

impl FileError {
    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Path { .. } => StatusCode::BAD_REQUEST,
            Self::Absent { .. } => StatusCode::NOT_FOUND,
            Self::Secret { .. } => StatusCode::FORBIDDEN,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A file that was read.
pub(super) struct File {
    pub(super) path: ConfigPath,
    pub(super) bytes: Bytes,
    /// The id of a blob of these bytes.
    pub(super) id: BlobId,
    /// The generation that it is of.
    pub(super) generation: u64,
}

/// Tries to read a file of one generation.
const TRIES: usize = 3;

/// Reads a live file, given as it stands in a request.
pub(super) async fn read(local: &Local, encoded: &str, most: u64) -> Result<File, FileError> {
    let wrong = |reason: String| FileError::Path { path: encoded.chars().take(120).collect(), reason };
    let text = decoded(encoded).ok_or_else(|| wrong("it is not percent-encoded UTF-8".into()))?;
    let path = ConfigPath::new(&text).map_err(|error| wrong(error.to_string()))?;
    let _turn = local.room.reads.acquire().await;
    for _ in 0..TRIES {
        let before = local.generations.borrow().number();
        let (home, wanted) = (local.home.clone(), path.clone());
        let read = move || read_live(&home, &wanted, most);
        let outcome = local.replica.machine().blocking(read).await;
        let bytes = outcome.map_err(|_| FileError::Busy)?;
        if local.generations.borrow().number() == before {
            let bytes = bytes?;
            let id = BlobId::of(&bytes);
            return Ok(File { path, bytes, id, generation: before });
        }
    }
    Err(FileError::Busy)
}

fn read_live(home: &Path, path: &ConfigPath, most: u64) -> Result<Bytes, FileError> {
    let fail = |errno: Errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::ISDIR => FileError::Absent { path: path.clone() },
        Errno::XDEV | Errno::LOOP => FileError::Secret { path: path.clone() },
        errno => FileError::Io { path: path.clone(), source: errno.into() },
    };
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let home = openat(CWD, home, directory, Mode::empty()).map_err(fail)?;
    // `current` is followed once, and must be one of ours.
    let target = readlinkat(&home, "current", Vec::new()).map_err(fail)?;
    if ![c"slots/a", c"slots/b"].contains(&&*target) {
        return Err(FileError::Absent { path: path.clone() });
    }
    let root = openat(&home, &*target, directory | OFlags::NOFOLLOW, Mode::empty()).map_err(fail)?;
    let fd = open_beneath(&root, path.as_str()).map_err(fail)?;
    let stat = fstat(&fd).map_err(fail)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::Absent { path: path.clone() });
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    let too_large = |size| FileError::TooLarge { path: path.clone(), size, most };
    if size > most {
        return Err(too_large(size));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    let read = std::fs::File::from(fd).take(most + 1).read_to_end(&mut bytes);
    read.map_err(|source| FileError::Io { path: path.clone(), source })?;
    if bytes.len() as u64 > most {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes.into())
}

/// Opens a file, following links that stay in the tree: where a link leaves it, [`Errno::XDEV`].
fn open_beneath(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, flags, Mode::empty(), resolve) {
        // Before Linux 5.6: no link is followed at all.
        Err(Errno::NOSYS | Errno::PERM) => {}
        outcome => return outcome,
    }
    let mut at: Option<OwnedFd> = None;
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let kind = if last { flags } else { OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC };
        let here = at.as_ref().unwrap_or(root);
        let next = openat(here.as_fd(), segment, kind | OFlags::NOFOLLOW, Mode::empty())?;
        at = Some(next);
    }
    at.ok_or(Errno::NOENT)
}

/// Text without its percent-encoding.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&digits).ok().filter(|text| !text.starts_with('+'))?.to_owned();
        bytes.push(u8::from_str_radix(&digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn la_5_files_and_links_in_the_tree_are_read_and_nothing_outside_it() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir_all(at("slots/a/d")).unwrap();
        fs::write(at("slots/a/d/f"), "bytes").unwrap();
        fs::write(at("secret"), "hunter2").unwrap();
        symlink("d/f", at("slots/a/l")).unwrap();
        symlink(at("secret"), at("slots/a/s")).unwrap();
        symlink("../../secret", at("slots/a/up")).unwrap();
        let read = |path: &str| read_live(home.path(), &ConfigPath::new(path).unwrap(), 8);
        assert!(matches!(read("d/f"), Err(FileError::Absent { .. })), "nothing is live");
        symlink("slots/a", at("current")).unwrap();
        assert_eq!(read("d/f").unwrap(), "bytes");
        assert_eq!(read("l").unwrap(), "bytes");
        for secret in ["s", "up"] {
            assert!(matches!(read(secret), Err(FileError::Secret { .. })), "{secret}");
        }
        for absent in ["d", "x", "d/f/x"] {
            assert!(matches!(read(absent), Err(FileError::Absent { .. })), "{absent}");
        }
        fs::write(at("slots/a/large"), "123456789").unwrap();
        assert!(matches!(read("large"), Err(FileError::TooLarge { size: 9, .. })));
        fs::remove_file(at("current")).and_then(|()| symlink("/etc", at("current"))).unwrap();
        assert!(matches!(read("passwd"), Err(FileError::Absent { .. })));
    }

    #[test]
    fn la_4_a_path_is_percent_decoded() {
        assert_eq!(decoded("a%20b/%C3%A9").as_deref(), Some("a b/\u{e9}"));
        for wrong in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
