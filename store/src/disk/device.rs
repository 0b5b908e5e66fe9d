//! What changes files and names on disk, all of it, so that a test can say what
//! a power cut may leave of it ([`power`]).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

#[cfg(test)]
mod power;

/// Creates a file, or empties it, as `options` say.
pub(super) fn create(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.open(path)?;
    #[cfg(test)]
    power::note(power::Change::Create(path.to_owned()));
    Ok(file)
}

/// Writes all bytes at a place of a file.
pub(super) fn write(file: &File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    #[cfg(test)]
    power::note(power::Change::Write(path.to_owned(), offset, bytes.to_vec()));
    #[cfg(not(test))]
    let _ = path;
    Ok(())
}

/// Gives a file this size.
pub(super) fn cut(file: &File, path: &Path, size: u64) -> io::Result<()> {
    file.set_len(size)?;
    #[cfg(test)]
    power::note(power::Change::Cut(path.to_owned(), size));
    #[cfg(not(test))]
    let _ = path;
    Ok(())
}

/// Asks for space, which reads as zeros until it is written.
pub(super) fn allocate(file: &File, path: &Path, from: u64, length: u64) -> io::Result<()> {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), from, length)?;
    #[cfg(test)]
    power::note(power::Change::Allocate(path.to_owned(), from + length));
    #[cfg(not(test))]
    let _ = path;
    Ok(())
}

/// Makes what was written to a file durable, with its size.
pub(super) fn sync(file: &File, path: &Path) -> io::Result<()> {
    file.sync_data()?;
    #[cfg(test)]
    power::note(power::Change::Sync(path.to_owned()));
    #[cfg(not(test))]
    let _ = path;
    Ok(())
}

/// Gives a file another name, in the place of what had it.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    #[cfg(test)]
    power::note(power::Change::Rename(from.to_owned(), to.to_owned()));
    Ok(())
}

/// Takes a file's name away.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    #[cfg(test)]
    power::note(power::Change::Remove(path.to_owned()));
    Ok(())
}

/// Makes the names in a directory durable.
pub(super) fn sync_names(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    #[cfg(test)]
    power::note(power::Change::SyncNames);
    Ok(())
}
