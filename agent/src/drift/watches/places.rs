//! Watches of what leads to installed places: the directory of each, and all above it, for the names on the way.

use super::{Limit, Seen, TREE, limit};
use rootcast::drift::Spot;
use rustix::fd::BorrowedFd;
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Names that come and go, in a directory above that of a place. With what the directory is watched for already.
const ABOVE: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::MASK_ADD);

/// Of the directory of a place: as in the tree, but a link may lead to it.
const OF_PLACE: WatchFlags = TREE.difference(WatchFlags::DONT_FOLLOW).union(WatchFlags::MASK_ADD);

/// The places, and what leads to them.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: BTreeSet<Box<str>>,
    /// Directories by their watch: several where links lead to one.
    above: BTreeMap<i32, Vec<Box<str>>>,
}

/// The directory of a path, the root being empty.
fn parent(path: &str) -> Option<&str> {
    path.rfind('/').and_then(|at| path.get(..at))
}

impl Places {
    /// Takes other places.
    pub(super) fn set<'p>(&mut self, places: impl IntoIterator<Item = &'p str>) {
        self.places = places.into_iter().map(Box::from).collect();
    }

    /// How many directories are watched for them.
    pub(super) fn count(&self) -> usize {
        self.above.len()
    }

    /// The directories that lead to places, and whether one is in it.
    fn directories(&self) -> BTreeMap<&str, bool> {
        let mut directories = BTreeMap::new();
        for place in &self.places {
            let Some(mut at) = parent(place) else { continue };
            directories.insert(at, true);
            while let Some(above) = parent(at) {
                // What is above it is known as well then.
                if directories.contains_key(above) {
                    break;
                }
                directories.insert(above, false);
                at = above;
            }
        }
        directories
    }

    /// Watches each directory that there is. Gives watches that are of no use any more.
    pub(super) fn cover(&mut self, instance: BorrowedFd<'_>, room: usize) -> (Vec<i32>, Result<(), Limit>) {
        let (mut above, mut outcome): (BTreeMap<i32, Vec<Box<str>>>, _) = (BTreeMap::new(), Ok(()));
        for (directory, has_place) in self.directories() {
            let path = if directory.is_empty() { "/" } else { directory };
            let flags = if has_place { OF_PLACE } else { ABOVE };
            match inotify::add_watch(instance, path, flags) {
                Ok(watch) => above.entry(watch).or_default().push(directory.into()),
                // The one above tells when it is there.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {}
                Err(Errno::ACCESS) if !has_place => {}
                Err(errno) => outcome = Err(limit(errno)),
            }
            if above.len() > room {
                outcome = Err(Limit::Directories);
            }
            if outcome.is_err() {
                break;
            }
        }
        let before = std::mem::replace(&mut self.above, above);
        (before.into_keys().filter(|watch| !self.above.contains_key(watch)).collect(), outcome)
    }

    /// Takes in an event, if it is about a place or what leads to one.
    pub(super) fn take(&mut self, watch: i32, what: ReadFlags, name: Option<&[u8]>, seen: &mut Seen) {
        let Some(directories) = self.above.get(&watch) else { return };
        for directory in directories {
            match name.map(std::str::from_utf8) {
                Some(Ok(name)) => {
                    let path = format!("{directory}/{name}");
                    if let Some(place) = self.places.get(path.as_str()) {
                        seen.spots.insert(Spot::Installed(place.clone()));
                    }
                    seen.led_away |= self.beneath(&path, seen);
                }
                Some(Err(_)) => {}
                None if what.intersects(GONE) => seen.led_away |= self.beneath(directory, seen),
                None => {}
            }
        }
        if what.contains(ReadFlags::IGNORED) {
            self.above.remove(&watch);
        }
    }

    /// Has all places beneath a path looked at. Whether there are any.
    fn beneath(&self, path: &str, seen: &mut Seen) -> bool {
        let beneath = format!("{path}/");
        let from = self.places.range::<str, _>((Bound::Excluded(beneath.as_str()), Bound::Unbounded));
        let mut places = from.take_while(|place| place.starts_with(&beneath)).peekable();
        let are_any = places.peek().is_some();
        seen.spots.extend(places.map(|place| Spot::Installed(place.clone())));
        are_any
    }
}

/// A directory is not where it was.
const GONE: ReadFlags =
    ReadFlags::DELETE_SELF.union(ReadFlags::MOVE_SELF).union(ReadFlags::IGNORED).union(ReadFlags::UNMOUNT);
