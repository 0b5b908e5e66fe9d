//! The files of a commit in a directory, moved from commit to commit by what changes.
//!
//! Read from git's objects, not checked out: no filters, attributes, hooks or line ends of the user's.

use super::program::Call;
use super::{CommitId, PeerError, Place};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// Time of the first commit's files, in seconds; each later commit's changes are a second newer.
/// Whole seconds and few different ones are what a file list packs best.
const FIRST: i64 = 1_000_000_000;

/// Why a path may have no file to remove.
const NOTHING: [io::ErrorKind; 3] =
    [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory, io::ErrorKind::IsADirectory];

/// A directory with the files of one commit, submodules left out. What did not change keeps its times.
pub(super) struct Worktree {
    place: Place,
    root: PathBuf,
    at: Option<CommitId>,
    now: i64,
}

/// What a path is to become.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    path: PathBuf,
    /// Mode and object of its new content; nothing where it goes.
    to: Option<(Kind, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Program,
    Link,
}

impl Worktree {
    /// An empty one below the place's directory. It keeps a file of its own beside the files' directory.
    pub(super) fn new(place: &Place, name: &str) -> Self {
        Self { place: place.clone(), root: place.scratch.join(name), at: None, now: FIRST }
    }

    /// Where the files are.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the directory that of `commit`.
    ///
    /// # Errors
    /// When history cannot be read or a file not be written; the next call then starts from nothing.
    pub(super) fn go(&mut self, commit: &CommitId) -> Result<(), PeerError> {
        if self.at.as_ref() == Some(commit) {
            return Ok(());
        }
        let from = self.at.take();
        let changes = match &from {
            Some(from) => {
                self.now += 1;
                let arguments =
                    ["diff-tree", "-r", "-z", "--raw", "--no-renames", "--full-index", from, commit];
                changed(&self.git(&arguments).run()?)
            }
            None => {
                clear(&self.root).map_err(PeerError::at("git", &self.root))?;
                make(&self.root).map_err(PeerError::at("git", &self.root))?;
                listed(&self.git(&["ls-tree", "-r", "-z", "--full-tree", commit]).run()?)
            }
        };
        let changes = changes.ok_or_else(|| self.unreadable(commit))?;
        self.apply(&changes, commit)?;
        self.at = Some(commit.clone());
        Ok(())
    }

    fn git(&self, arguments: &[&str]) -> Call {
        Call::git(&self.place.scratch).arg("-C").arg(&self.place.repository).args(arguments)
    }

    fn unreadable(&self, commit: &CommitId) -> PeerError {
        let repository = self.place.repository.display();
        PeerError { program: "git", what: format!("the tree of {commit} in {repository} cannot be read") }
    }

    fn apply(&self, changes: &[Change], commit: &CommitId) -> Result<(), PeerError> {
        let mut touched = BTreeSet::new();
        // First what goes: a directory may make way for a file of its name.
        for change in changes {
            let path = self.root.join(&change.path);
            self.remove(&path, &mut touched).map_err(PeerError::at("git", &path))?;
        }
        let objects = changes.iter().filter_map(|change| Some(&change.to.as_ref()?.1));
        let list = self.root.with_extension("objects");
        let wanted: Vec<u8> = objects.flat_map(|object| [object.as_bytes(), b"\n"].concat()).collect();
        fs::write(&list, wanted).map_err(PeerError::at("git", &list))?;
        let contents = self.git(&["cat-file", "--batch", "--buffer"]).input(&list).run()?;
        let mut rest = contents.as_slice();
        for (path, kind) in changes.iter().filter_map(|change| Some((&change.path, change.to.as_ref()?.0))) {
            let (content, after) = next_object(rest).ok_or_else(|| self.unreadable(commit))?;
            rest = after;
            let path = self.root.join(path);
            self.write(&path, kind, content, &mut touched).map_err(PeerError::at("git", &path))?;
        }
        for directory in touched.iter().filter(|directory| directory.is_dir()) {
            self.stamp(directory).map_err(PeerError::at("git", directory))?;
        }
        Ok(())
    }

    fn write(
        &self,
        path: &Path,
        kind: Kind,
        content: &[u8],
        touched: &mut BTreeSet<PathBuf>,
    ) -> io::Result<()> {
        self.parent(path, touched)?;
        match kind {
            Kind::Link => symlink(OsStr::from_bytes(content), path)?,
            Kind::File | Kind::Program => {
                let mut file = fs::File::create_new(path)?;
                file.write_all(content)?;
                file.set_permissions(Permissions::from_mode(if kind == Kind::Program {
                    0o755
                } else {
                    0o644
                }))?;
            }
        }
        self.stamp(path)
    }

    /// Makes the directory that `path` is in.
    fn parent(&self, path: &Path, touched: &mut BTreeSet<PathBuf>) -> io::Result<()> {
        let Some(directory) = path.parent().filter(|parent| parent.starts_with(&self.root)) else {
            return Ok(());
        };
        if !directory.is_dir() {
            self.parent(directory, touched)?;
            make(directory)?;
        }
        touched.insert(directory.to_owned());
        Ok(())
    }

    /// Removes a file, and the directories that are then empty.
    fn remove(&self, path: &Path, touched: &mut BTreeSet<PathBuf>) -> io::Result<()> {
        match fs::remove_file(path) {
            Ok(()) => {}
            // A new file, one below a submodule, or one whose name a directory has, which goes by its files.
            Err(error) if NOTHING.contains(&error.kind()) => return Ok(()),
            Err(error) => return Err(error),
        }
        let above = path.ancestors().skip(1).take_while(|above| *above != self.root);
        for directory in above {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    touched.insert(directory.to_owned());
                    return Ok(());
                }
                other => other?,
            }
        }
        touched.insert(self.root.clone());
        Ok(())
    }

    fn stamp(&self, path: &Path) -> io::Result<()> {
        let time = Timespec { tv_sec: self.now, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Removes a directory with all that is in it; one that is not there is no error.
pub(super) fn clear(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes a directory, whatever the umask, and those above it.
fn make(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o755))
}

/// What `git diff-tree -r -z --raw` says: `:mode mode object object status NUL path NUL`.
fn changed(output: &[u8]) -> Option<Vec<Change>> {
    let mut fields = output.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    let mut changes = Vec::new();
    while let Some(head) = fields.next() {
        let mut head = std::str::from_utf8(head).ok()?.strip_prefix(':')?.split(' ').skip(1);
        let (mode, object) = (head.next()?, head.nth(1)?);
        changes.push(Change { path: plain(fields.next()?)?, to: content(mode, object)? });
    }
    Some(changes)
}

/// What `git ls-tree -r -z` says: `mode type object TAB path NUL`.
fn listed(output: &[u8]) -> Option<Vec<Change>> {
    let entries = output.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    let change = |entry: &[u8]| {
        let tab = entry.iter().position(|byte| *byte == b'\t')?;
        let (head, path) = entry.split_at_checked(tab)?;
        let mut head = std::str::from_utf8(head).ok()?.split(' ');
        let (mode, object) = (head.next()?, head.nth(1)?);
        Some(Change { path: plain(path.get(1..)?)?, to: content(mode, object)? })
    };
    entries.map(change).collect()
}

/// What a mode and an object make; nothing for what goes and for submodules, none at all for a mode unknown.
#[expect(clippy::option_option, reason = "a path may have no content, which is no failure to read")]
fn content(mode: &str, object: &str) -> Option<Option<(Kind, String)>> {
    let kind = match mode {
        "000000" | "160000" => return Some(None),
        "100644" | "100664" => Kind::File,
        "100755" => Kind::Program,
        "120000" => Kind::Link,
        _ => return None,
    };
    Some(Some((kind, object.to_owned())))
}

/// A path below the root and nowhere else.
fn plain(path: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(path));
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| path.to_owned())
}

/// The first object of what `git cat-file --batch` says, and the rest: `object type size LF bytes LF`.
fn next_object(output: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = output.iter().position(|byte| *byte == b'\n')?;
    let (head, rest) = output.split_at_checked(line)?;
    let size: usize = std::str::from_utf8(head).ok()?.split(' ').nth(2)?.parse().ok()?;
    let (content, rest) = rest.get(1..)?.split_at_checked(size)?;
    Some((content, rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_is_understood() {
        let output = b":100644 000000 aaaa 0000 D\0a b\0:120000 100755 bbbb cccc T\0d/e\0";
        let expected = [
            Change { path: "a b".into(), to: None },
            Change { path: "d/e".into(), to: Some((Kind::Program, "cccc".into())) },
        ];
        assert_eq!(changed(output).unwrap(), expected);
        let output = b"120000 blob aaaa\tl\x00160000 commit bbbb\tsub\0";
        let expected = [
            Change { path: "l".into(), to: Some((Kind::Link, "aaaa".into())) },
            Change { path: "sub".into(), to: None },
        ];
        assert_eq!(listed(output).unwrap(), expected);
        assert_eq!(next_object(b"aaaa blob 3\na\nb\nrest"), Some((&b"a\nb"[..], &b"rest"[..])));
        assert_eq!(next_object(b"aaaa missing\n"), None);
    }

    #[test]
    fn no_path_leaves_the_root() {
        assert_eq!(listed(b"100644 blob aaaa\t../x\0"), None);
        assert_eq!(changed(b":000000 100644 0000 aaaa A\0/etc/x\0"), None);
    }
}
