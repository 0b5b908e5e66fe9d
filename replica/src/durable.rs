//! Small files that must be whole or not there, also after a crash.

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The mode of a file with a secret.
pub const PRIVATE: u32 = 0o600;
/// The mode of a file without.
pub const PUBLIC: u32 = 0o644;

/// Writes a new file whole and durably, or not at all, and never over another.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] where there is one, or what the system says.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write(path, bytes, mode, RenameFlags::NOREPLACE)
}

/// Writes a file whole and durably in the place of any that is there: a crash leaves one or the other.
///
/// # Errors
/// What the system says; then the old file is what it was.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write(path, bytes, mode, RenameFlags::empty())
}

/// As [`write_new`], and content with a file that holds the same already.
///
/// # Errors
/// As [`write_new`].
pub fn write_same(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    match write_new(path, bytes, mode) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::read(path)? == bytes => Ok(()),
        outcome => outcome,
    }
}

/// Makes names in a directory, or their absence, durable.
///
/// # Errors
/// What the system says.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory that a file lies in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name of its own each time, so that what a crash left behind is not in the way;
/// no name of a member or id begins so.
fn temporary(path: &Path) -> io::Result<PathBuf> {
    let unique = getrandom::u64().map_err(io::Error::other)?;
    let mut name = OsString::from("~");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{unique:016x}"));
    Ok(path.with_file_name(name))
}

fn write(path: &Path, bytes: &[u8], mode: u32, flags: RenameFlags) -> io::Result<()> {
    let temporary = temporary(path)?;
    // The mode is set as the file is made: there is no moment at which others can open it.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    let outcome = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| Ok(renameat_with(CWD, &temporary, CWD, path, flags)?));
    if outcome.is_err() {
        // It may hold a key.
        let _ = fs::remove_file(&temporary);
    }
    outcome?;
    sync_directory(parent(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_race_for_a_name_leaves_the_winner_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let outcomes: Vec<bool> = std::thread::scope(|scope| {
            let write = |byte: u8| write_new(&path, &[byte; 5000], PRIVATE).is_ok();
            let racers: Vec<_> = (0..8).map(|byte| scope.spawn(move || write(byte))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let winner = outcomes.iter().position(|won| *won).unwrap();
        assert_eq!(outcomes.iter().filter(|won| **won).count(), 1);
        assert_eq!(fs::read(&path).unwrap(), vec![winner as u8; 5000]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn replacing_leaves_nothing_beside_and_the_same_is_no_conflict() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        replace(&path, b"one", PRIVATE).unwrap();
        replace(&path, b"two", PRIVATE).unwrap();
        write_same(&path, b"two", PRIVATE).unwrap();
        let other = write_same(&path, b"three", PRIVATE).unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
