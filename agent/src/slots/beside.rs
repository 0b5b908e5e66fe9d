//! A view and a directory tree, walked side by side without writing.
//!
//! In byte order everything beneath a directory is together, so one listing
//! for each directory on the way to the current path is all that is held.

use super::disk::{self, Place};
use super::error::SlotError;
use super::view::{View, split};
use rootcast::entry::Entry;
use rootcast::path::ConfigPath;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::FileType;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

/// What is done where view and disk meet.
pub(super) trait Visitor {
    /// The view has a directory where the disk has `found`. Returns it opened, if it is to be entered.
    fn directory(&mut self, at: &Place, name: &str, found: FileType) -> Result<Option<OwnedFd>, SlotError>;
    /// The view has an entry; `at` is its directory, if that is there, and `found` what it holds.
    fn entry(
        &mut self,
        at: Option<&Place>,
        path: &ConfigPath,
        entry: &Entry,
        found: Option<FileType>,
    ) -> Result<(), SlotError>;
    /// The disk has what the view has not.
    fn extra(&mut self, at: &Place, name: &CStr, found: FileType) -> Result<(), SlotError>;
}

/// A directory on the way to the current path.
struct Frame {
    name: Box<str>,
    place: Option<Place>,
    /// What it holds that the view has not named yet.
    unnamed: BTreeMap<Vec<u8>, FileType>,
}

impl Frame {
    fn new(name: &str, place: Option<Place>) -> Result<Self, SlotError> {
        let mut unnamed = BTreeMap::new();
        if let Some(place) = &place {
            let names = disk::list(place.fd.as_fd(), usize::MAX)
                .map_err(|errno| SlotError::io("list", &place.path, errno))?;
            unnamed = names.into_iter().map(|(name, kind)| (name.into_bytes(), kind)).collect();
        }
        Ok(Self { name: name.into(), place, unnamed })
    }

    fn leave(self, visitor: &mut dyn Visitor) -> Result<(), SlotError> {
        let Some(place) = &self.place else { return Ok(()) };
        for (name, kind) in self.unnamed {
            // A listed name has no NUL.
            let name = CString::new(name).unwrap_or_default();
            visitor.extra(place, &name, kind)?;
        }
        Ok(())
    }
}

/// Walks `view` beside the tree at `root`; without a root everything in the view is absent.
pub(super) fn walk(root: Option<Place>, view: &dyn View, visitor: &mut dyn Visitor) -> Result<(), SlotError> {
    let mut top = Frame::new("", root)?;
    let mut below: Vec<Frame> = Vec::new();
    for item in view.entries() {
        let (path, entry) = item?;
        let (directories, name) = split(&path);
        let mut directories = directories.peekable();
        let mut depth = 0;
        while let (Some(frame), Some(segment)) = (below.get(depth), directories.peek()) {
            if &*frame.name != *segment {
                break;
            }
            directories.next();
            depth += 1;
        }
        leave_to(&mut below, depth, visitor)?;
        for segment in directories {
            let frame = below.last_mut().unwrap_or(&mut top);
            let next = enter(frame, segment, visitor)?;
            below.push(next);
        }
        let frame = below.last_mut().unwrap_or(&mut top);
        let found = frame.unnamed.remove(name.as_bytes());
        visitor.entry(frame.place.as_ref(), &path, &entry, found)?;
    }
    leave_to(&mut below, 0, visitor)?;
    top.leave(visitor)
}

fn enter(from: &mut Frame, name: &str, visitor: &mut dyn Visitor) -> Result<Frame, SlotError> {
    let found = from.unnamed.remove(name.as_bytes());
    let place = match (&from.place, found) {
        (Some(at), Some(found)) => {
            visitor.directory(at, name, found)?.map(|fd| Place { fd, path: at.join(name) })
        }
        _ => None,
    };
    Frame::new(name, place)
}

fn leave_to(below: &mut Vec<Frame>, depth: usize, visitor: &mut dyn Visitor) -> Result<(), SlotError> {
    while below.len() > depth {
        if let Some(frame) = below.pop() {
            frame.leave(visitor)?;
        }
    }
    Ok(())
}
