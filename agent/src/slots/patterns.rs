//! Patterns of paths, and what in a live tree they leave alone (specs/activation.md, A-57).

use super::disk;
use rootcast::limits::MAX_IGNORED;
use rootcast::pattern::Pattern;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::FileType;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Patterns of paths: each with all beneath what it matches.
#[derive(Debug, Clone, Default)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Of patterns as specs/configuration.md, F-42 has them; `data/` is the same as `data`.
    ///
    /// # Errors
    /// What is wrong with which pattern, or that there are more than [`MAX_IGNORED`].
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        if patterns.len() > MAX_IGNORED {
            return Err(format!(
                "{} patterns are given, and at most {MAX_IGNORED} are taken",
                patterns.len()
            ));
        }
        let read = |text: &String| {
            let bare = text.strip_suffix('/').unwrap_or(text);
            Pattern::new(bare).map_err(|error| format!("`{text}`: {error}"))
        };
        Ok(Self(patterns.iter().map(read).collect::<Result<_, _>>()?))
    }

    /// Whether one of them matches a path, or a directory above it.
    pub fn covers(&self, path: &Path) -> bool {
        let is_match = |above: &Path| {
            let text = above.to_str().filter(|text| !text.is_empty());
            text.is_some_and(|text| self.0.iter().any(|pattern| pattern.matches(text)))
        };
        !self.0.is_empty() && path.ancestors().any(is_match)
    }

    /// What of a name that the view has not may be removed: itself, or, where something in it is left
    /// alone, what is beside that. `path` is the name's, from the slot.
    pub(super) fn removable(
        &self,
        at: BorrowedFd<'_>,
        path: &Path,
        name: &CStr,
        kind: FileType,
    ) -> Vec<PathBuf> {
        let mut found = Vec::new();
        if self.0.is_empty() {
            found.push(path.to_owned());
        } else if !self.collect(at, path, name, kind, &mut found) {
            found = vec![path.to_owned()];
        }
        found
    }

    /// Collects what may be removed; whether something is left alone.
    fn collect(
        &self,
        at: BorrowedFd<'_>,
        path: &Path,
        name: &CStr,
        kind: FileType,
        found: &mut Vec<PathBuf>,
    ) -> bool {
        if self.covers(path) {
            return true;
        }
        let mut holds = false;
        let before = found.len();
        // A path is never this long; what cannot be named by a pattern is not left alone.
        if kind == FileType::Directory
            && path.as_os_str().len() <= rootcast::limits::MAX_PATH
            && let Ok(fd) = disk::open_directory(at, name)
        {
            for (name, kind) in disk::list(fd.as_fd(), usize::MAX).unwrap_or_default() {
                let below = path.join(OsStr::from_bytes(name.to_bytes()));
                holds |= self.collect(fd.as_fd(), &below, &name, kind, found);
            }
        }
        if !holds {
            found.truncate(before);
            found.push(path.to_owned());
        }
        holds
    }
}
