//! What the kernel tells of a live tree, and of what is installed of it: one inotify instance, a watch for each
//! directory (specs/activation.md, A-51).

mod places;

use crate::slots::{Moment, Patterns};
use places::Places;
use rootcast::drift::Spot;
use rootcast::limits::{MAX_DRIFT_SPOTS, MAX_WATCHES, WATCH_BUFFER};
use rustix::fd::AsFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::Metadata;
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use tokio::net::unix::pipe::Receiver;

/// Why not all of a tree is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// This user has no inotify instance left, or this process no descriptor.
    Instances,
    /// This user has no watch left.
    Watches,
    /// The tree has more than [`MAX_WATCHES`] directories.
    Directories,
    /// The system has no inotify, or refuses it.
    Refused,
}

impl Limit {
    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::Watches => "watches",
            Self::Directories => "directories",
            Self::Refused => "refused",
        }
    }

    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Instances => {
                "raise the sysctl fs.inotify.max_user_instances, or this process's limit of files"
            }
            Self::Watches => "raise the sysctl fs.inotify.max_user_watches",
            Self::Directories => "have fewer directories",
            Self::Refused => "look at what the system says of inotify",
        }
    }
}

/// Names that come and go, contents and modes.
const TREE: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW)
    .union(WatchFlags::EXCL_UNLINK);

/// Of the directory above the slots: names alone.
const HOME: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Where something may have changed.
    pub(super) spots: BTreeSet<Spot>,
    /// Whether a directory that leads to something installed is another now.
    pub(super) led_away: bool,
    /// Whether more happened than the kernel kept.
    pub(super) overflowed: bool,
    /// Whether the directory above the slots is not where it was.
    pub(super) home_gone: bool,
}

/// The watches of one live tree and of what is installed of it.
pub(super) struct Watches {
    /// Tokio waits for any descriptor that can be read; nothing but its readiness is asked of this one.
    instance: Receiver,
    /// The directory above the slots.
    home: i32,
    /// Directories by their watch; the tree's own is empty.
    tree: BTreeMap<i32, Box<str>>,
    root: PathBuf,
    places: Places,
    most: usize,
}

impl Watches {
    /// Watches the directory above the slots, and nothing else yet.
    pub(super) fn open(home: &Path) -> Result<Self, Limit> {
        let refused = |_| Limit::Refused;
        let instance = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(limit)?;
        let home = inotify::add_watch(&instance, home, HOME).map_err(limit)?;
        let instance = Receiver::from_owned_fd_unchecked(instance).map_err(refused)?;
        let (tree, root, places) = (BTreeMap::new(), PathBuf::new(), Places::default());
        Ok(Self { instance, home, tree, root, places, most: MAX_WATCHES })
    }

    /// The same with room for fewer directories.
    #[cfg(test)]
    pub(super) fn at_most(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// How many directories are watched.
    pub(super) fn count(&self) -> usize {
        self.tree.len() + self.places.count()
    }

    /// Watches another tree instead. Returns what of it was changed after `since`.
    pub(super) fn turn_to(
        &mut self,
        root: PathBuf,
        since: Moment,
        ignored: &Patterns,
    ) -> Result<Vec<Box<str>>, Limit> {
        for watch in std::mem::take(&mut self.tree).into_keys() {
            let _ = inotify::remove_watch(&self.instance, watch);
        }
        self.root = root;
        let mut changed = Vec::new();
        self.cover_each("", ignored, |path, at| {
            if at.is_ok_and(|at| Moment::of(&at) > since) && changed.len() <= MAX_DRIFT_SPOTS {
                changed.push(path.into());
            }
        })?;
        Ok(changed)
    }

    /// Watches a directory of the tree and those beneath it, if it is one. Returns those that were not watched.
    pub(super) fn cover(&mut self, path: &str, ignored: &Patterns) -> Result<Vec<Box<str>>, Limit> {
        self.cover_each(path, ignored, |_, _| {})
    }

    /// As [`Watches::cover`]; `visit` is shown all that is there, after it is watched.
    fn cover_each(
        &mut self,
        path: &str,
        ignored: &Patterns,
        mut visit: impl FnMut(&str, io::Result<Metadata>),
    ) -> Result<Vec<Box<str>>, Limit> {
        let mut new = Vec::new();
        let mut left: Vec<Box<str>> = vec![path.into()];
        while let Some(path) = left.pop() {
            if ignored.covers(Path::new(&*path)) {
                continue;
            }
            let at = if path.is_empty() { self.root.clone() } else { self.root.join(&*path) };
            let watch = match inotify::add_watch(&self.instance, &at, TREE) {
                Ok(watch) => watch,
                Err(Errno::NOTDIR | Errno::NOENT | Errno::LOOP | Errno::ACCESS) => continue,
                Err(errno) => return Err(limit(errno)),
            };
            if self.tree.insert(watch, path.clone()).as_ref() != Some(&path) {
                new.push(path.clone());
            }
            if self.count() > self.most {
                self.tree.remove(&watch);
                let _ = inotify::remove_watch(&self.instance, watch);
                return Err(Limit::Directories);
            }
            for item in std::fs::read_dir(&at).into_iter().flatten().flatten() {
                let is_directory = item.file_type().is_ok_and(|kind| kind.is_dir());
                let name = item.file_name();
                let Some(name) = name.to_str() else { continue };
                let below = join(&path, name);
                match is_directory {
                    true => left.push(below),
                    false if ignored.covers(Path::new(&*below)) => {}
                    false => visit(&below, item.metadata()),
                }
            }
            visit(&path, std::fs::symlink_metadata(&at));
        }
        Ok(new)
    }

    /// Watches what leads to these places instead of what led to others: absolute paths.
    pub(super) fn turn_to_places<'p>(
        &mut self,
        places: impl IntoIterator<Item = &'p str>,
    ) -> Result<(), Limit> {
        self.places.set(places);
        self.cover_places()
    }

    /// Watches what leads to the places by now.
    pub(super) fn cover_places(&mut self) -> Result<(), Limit> {
        let room = self.most.saturating_sub(self.tree.len());
        let (gone, outcome) = self.places.cover(self.instance.as_fd(), room);
        for watch in gone.into_iter().filter(|watch| *watch != self.home && !self.tree.contains_key(watch)) {
            let _ = inotify::remove_watch(&self.instance, watch);
        }
        outcome
    }

    /// Waits until something can be read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.instance.readable().await
    }

    /// Reads what happened, as far as it fits the buffer. Whether there may be more.
    pub(super) fn read(&mut self, seen: &mut Seen) -> bool {
        let mut buffer = [MaybeUninit::uninit(); WATCH_BUFFER];
        let mut events: Vec<(i32, ReadFlags, Option<Vec<u8>>)> = Vec::new();
        let outcome = self.instance.try_io(|| {
            let mut reader = Reader::new(self.instance.as_fd(), &mut buffer);
            loop {
                let event = reader.next()?;
                let name = event.file_name().map(CStr::to_bytes).map(<[u8]>::to_vec);
                events.push((event.wd(), event.events(), name));
                if reader.is_buffer_empty() {
                    return Ok(());
                }
            }
        });
        for (watch, what, name) in events {
            self.take(watch, what, name.as_deref(), seen);
        }
        outcome.is_ok()
    }

    fn take(&mut self, watch: i32, what: ReadFlags, name: Option<&[u8]>, seen: &mut Seen) {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            seen.overflowed = true;
            return;
        }
        self.places.take(watch, what, name, seen);
        if watch == self.home {
            match name {
                Some(b"current") => drop(seen.spots.insert(Spot::Current)),
                Some(b"slots") => seen.spots.extend([Spot::Current, Spot::path("")]),
                Some(_) => {}
                None => seen.home_gone |= what.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF),
            }
            return;
        }
        let Some(directory) = self.tree.get(&watch).cloned() else { return };
        if what.intersects(ReadFlags::MOVE_SELF) {
            // It is watched where it is now, and would be taken for what it was.
            self.forget(&directory);
        }
        if what.intersects(ReadFlags::IGNORED) {
            self.tree.remove(&watch);
        }
        let name = name.map(std::str::from_utf8);
        match name {
            Some(Ok(name)) => {
                let path = join(&directory, name);
                if what.contains(ReadFlags::ISDIR) && what.contains(ReadFlags::MOVED_FROM) {
                    self.forget(&path);
                }
                seen.spots.insert(Spot::Path(path));
            }
            // A name that no path has: what is in the directory beside its files.
            Some(Err(_)) | None => drop(seen.spots.insert(Spot::Path(directory))),
        }
    }

    /// Ends the watches of a directory and of those beneath it.
    fn forget(&mut self, path: &str) {
        let is_below = |at: &str| {
            path.is_empty()
                || at.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let gone: Vec<i32> =
            self.tree.iter().filter(|(_, at)| is_below(at)).map(|(watch, _)| *watch).collect();
        for watch in gone {
            self.tree.remove(&watch);
            let _ = inotify::remove_watch(&self.instance, watch);
        }
    }
}

fn join(directory: &str, name: &str) -> Box<str> {
    if directory.is_empty() { name.into() } else { format!("{directory}/{name}").into() }
}

fn limit(errno: Errno) -> Limit {
    match errno {
        Errno::MFILE | Errno::NFILE => Limit::Instances,
        Errno::NOSPC => Limit::Watches,
        _ => Limit::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    struct Scene {
        home: tempfile::TempDir,
        watches: Watches,
    }

    impl Scene {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            fs::create_dir_all(home.path().join("slots/a/d/e")).unwrap();
            fs::write(home.path().join("slots/a/d/f"), "1").unwrap();
            let mut watches = Watches::open(home.path()).unwrap();
            watches.turn_to(home.path().join("slots/a"), Moment::now(), &Patterns::default()).unwrap();
            Self { home, watches }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.home.path().join("slots/a").join(name)
        }

        /// Waits until all of these were told of, and gives all that were.
        async fn told(&mut self, wanted: &[&str]) -> BTreeSet<String> {
            let mut told = BTreeSet::new();
            let wait = async {
                while !wanted.iter().all(|path| told.contains(*path)) {
                    self.watches.readable().await.unwrap();
                    let mut seen = Seen::default();
                    while self.watches.read(&mut seen) {}
                    told.extend(seen.spots.iter().map(Spot::to_string));
                    if seen.led_away {
                        self.watches.cover_places().unwrap();
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
            told
        }
    }

    #[tokio::test]
    async fn a_51_each_kind_of_change_is_told_of_with_its_path() {
        let mut scene = Scene::new();
        assert_eq!(scene.watches.count(), 3);
        fs::write(scene.at("d/f"), "2").unwrap();
        scene.told(&["d/f"]).await;
        fs::set_permissions(scene.at("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        scene.told(&["d/f"]).await;
        fs::write(scene.at("new"), "2").unwrap();
        scene.told(&["new"]).await;
        fs::set_permissions(scene.at("d"), fs::Permissions::from_mode(0o700)).unwrap();
        scene.told(&["d"]).await;
        fs::rename(scene.at("d/f"), scene.at("d/e/g")).unwrap();
        scene.told(&["d/f", "d/e/g"]).await;
        std::os::unix::fs::symlink("slots/a", scene.home.path().join("current")).unwrap();
        assert_eq!(scene.told(&["current"]).await.len(), 1);
        use std::os::unix::ffi::OsStrExt;
        fs::write(scene.at("d/e").join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        scene.told(&["d/e"]).await;
    }

    #[tokio::test]
    async fn a_51_a_directory_that_moved_or_went_is_not_watched_under_its_old_name() {
        let mut scene = Scene::new();
        fs::rename(scene.at("d"), scene.home.path().join("elsewhere")).unwrap();
        scene.told(&["d"]).await;
        assert_eq!(scene.watches.count(), 1, "neither it nor what is beneath");
        fs::create_dir(scene.at("d")).unwrap();
        assert_eq!(scene.watches.cover("d", &Patterns::default()).unwrap(), ["d".into()]);
        assert!(scene.watches.cover("d", &Patterns::default()).unwrap().is_empty(), "it is watched already");
        fs::write(scene.home.path().join("elsewhere/f"), "2").unwrap();
        fs::write(scene.at("d/h"), "2").unwrap();
        assert!(!scene.told(&["d/h"]).await.contains("d/f"));
        fs::remove_dir_all(scene.home.path().join("slots/a")).unwrap();
        scene.told(&["."]).await;
        assert_eq!(scene.watches.count(), 0);
    }

    #[tokio::test]
    async fn a_51_what_is_installed_is_told_of_by_its_name_and_others_in_its_directory_are_not() {
        let mut scene = Scene::new();
        let etc = scene.home.path().join("etc");
        fs::create_dir_all(etc.join("app")).unwrap();
        let place = |name: &str| etc.join(name).to_str().unwrap().to_owned();
        let (one, two) = (place("app/one"), place("app/deep/two"));
        scene.watches.turn_to_places([one.as_str(), &two]).unwrap();
        // The home is above it, and was watched when the directories were made.
        fs::write(&one, "").unwrap();
        scene.told(&[&one]).await;
        fs::write(place("app/other"), "").unwrap();
        fs::write(&one, "1").unwrap();
        assert_eq!(scene.told(&[&one]).await, BTreeSet::from([one.clone()]));
        fs::set_permissions(&one, fs::Permissions::from_mode(0o600)).unwrap();
        scene.told(&[&one]).await;
        fs::remove_file(&one).unwrap();
        scene.told(&[&one]).await;
        // A directory that was not there is waited for.
        fs::create_dir(place("app/deep")).unwrap();
        scene.told(&[&two]).await;
        fs::write(&two, "2").unwrap();
        assert_eq!(scene.told(&[&two]).await, BTreeSet::from([two.clone()]));
        // One that is another now, also further up: what is there now counts.
        let before = scene.watches.count();
        fs::rename(place("app"), place("gone")).unwrap();
        scene.told(&[&one, &two]).await;
        fs::create_dir_all(place("app/deep")).unwrap();
        scene.told(&[&one, &two]).await;
        // What was told of the one before is not told again.
        fs::write(place("gone/one"), "").unwrap();
        fs::write(&two, "3").unwrap();
        scene.told(&[&two]).await;
        assert_eq!(scene.watches.count(), before);
        // The home is above none of them any more, and still watched.
        scene.watches.turn_to_places([]).unwrap();
        assert_eq!(scene.watches.count(), 3);
        std::os::unix::fs::symlink("slots/a", scene.home.path().join("current")).unwrap();
        scene.told(&["current"]).await;
    }

    #[tokio::test]
    async fn a_51_a_link_for_the_directory_of_a_place_is_followed_and_a_limit_is_named() {
        let mut scene = Scene::new();
        let at = |name: &str| scene.home.path().join(name);
        fs::create_dir(at("real")).unwrap();
        std::os::unix::fs::symlink("real", at("link")).unwrap();
        let (by_link, really) = (at("link/a"), at("real/a"));
        let both = [by_link.to_str().unwrap(), really.to_str().unwrap()];
        scene.watches.turn_to_places(both).unwrap();
        fs::write(&really, "").unwrap();
        scene.told(&both).await;
        let count = scene.watches.count();
        scene.watches = scene.watches.at_most(count - 1);
        assert_eq!(scene.watches.turn_to_places(both), Err(Limit::Directories));
    }

    #[tokio::test]
    async fn a_57_what_is_ignored_is_not_watched_and_a_limit_is_named() {
        let mut scene = Scene::new();
        let ignored = Patterns::new(&["d/e/".to_owned()]).unwrap();
        scene.watches.turn_to(scene.home.path().join("slots/a"), Moment::now(), &ignored).unwrap();
        assert_eq!(scene.watches.count(), 2);
        let root = scene.home.path().join("slots/a");
        // All of before is in a tick of its own, and so is all of after. Times of files may be finer than this clock,
        // and ahead of it where a tick came late: by less than two.
        let tick = || {
            let before = Moment::now();
            while Moment::now() == before {}
            Moment::now()
        };
        tick();
        tick();
        let since = tick();
        tick();
        fs::write(scene.at("d/f"), "theirs").unwrap();
        let changed = scene.watches.turn_to(root, since, &ignored).unwrap();
        assert_eq!(changed, ["d/f".into()], "before it was watched");
        scene.watches = scene.watches.at_most(2);
        let root = scene.home.path().join("slots/a");
        assert_eq!(scene.watches.turn_to(root, Moment::now(), &Patterns::default()), Err(Limit::Directories));
        assert_eq!(scene.watches.count(), 2);
        assert_eq!((limit(Errno::NOSPC), limit(Errno::MFILE)), (Limit::Watches, Limit::Instances));
    }
}
