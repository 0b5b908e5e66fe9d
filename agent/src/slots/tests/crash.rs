//! Threat 25: the process killed, or the disk full, at every step.

use super::*;
use crate::slots::steps::Step;
use crate::slots::steps::plan::{self, Done, Fault};
use std::collections::BTreeSet;

/// How the new generation is staged.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Full,
    Changes,
}

/// A host that runs `old` from slot b, with `older` whole in slot a.
struct Scene {
    host: Host,
    slots: Slots,
    old: Files,
    older: Files,
    new: Files,
}

impl Scene {
    fn new() -> Self {
        let mut host = Host::new();
        let older = host.view(&[("d/a", "1"), ("d/b", "1"), ("gone/x/y", "1"), ("k", "1"), ("l -> k", "")]);
        let old = host.view(&[("d/a", "2"), ("d/b", "1"), ("gone/x/y", "1"), ("k", "1")]);
        let mut new =
            host.view(&[("d/a", "3"), ("d/b *", "1"), ("gone", "3"), ("k/deep/er", "3"), ("l -> d", "")]);
        let large = host.chunked([7; 9000], 3000);
        new.insert(path("large"), large);
        let mut slots = host.open();
        host.run(&mut slots, &older);
        host.run(&mut slots, &old);
        plan::clear();
        Self { host, slots, old, older, new }
    }

    fn go(&mut self, by: By) -> Result<Activated, SlotError> {
        let objects = &self.host.objects;
        let staged = match by {
            By::Full => self.slots.stage_full(&self.new, objects)?,
            By::Changes => self.slots.stage_changes(&changes(&self.older, &self.new), objects)?,
        };
        self.slots.activate(staged)
    }

    /// Whether `current` is the new generation. Panics if it is neither that nor the old one.
    #[track_caller]
    fn is_new(&self) -> bool {
        let found = read_back(&self.host.at("current"));
        let is_new = found == self.host.expected(&self.new);
        assert!(is_new || found == self.host.expected(&self.old), "{found:?}");
        is_new
    }

    /// Another process takes over and succeeds, leaving nothing behind.
    fn recovers(self) {
        let Self { host, slots, new, .. } = self;
        drop(slots);
        let mut slots = host.open();
        assert_tidy(&host);
        host.run(&mut slots, &new);
        host.assert_current(&new);
        assert_tidy(&host);
    }
}

#[track_caller]
fn assert_tidy(host: &Host) {
    let names = |dir: &Path| -> BTreeSet<_> {
        fs::read_dir(dir).unwrap().map(|item| item.unwrap().file_name()).collect()
    };
    let home = names(host.dir.path());
    assert!(home.iter().all(|name| name == "slots" || name == "current"), "{home:?}");
    let slots = names(&host.at("slots"));
    assert!(slots.iter().all(|name| name == "a" || name == "b"), "{slots:?}");
}

/// Runs the scene with a fault at the first step, then the second, until the fault comes too late.
/// Returns how often the old and how often the new generation was current afterwards.
fn at_every_step(by: By, fault: Fault, judge: fn(&Scene, Result<Activated, SlotError>)) -> (usize, usize) {
    let (mut old, mut new) = (0, 0);
    for at in 0.. {
        let mut scene = Scene::new();
        plan::fail_at(at, fault);
        let outcome = scene.go(by);
        let steps = plan::clear().len();
        // A fault that was never reached excuses nothing; without this the loop might not end.
        assert!(steps >= at || outcome.is_ok(), "failed without a fault: {outcome:?}");
        let ended = steps <= at && outcome.is_ok();
        if scene.is_new() {
            new += 1
        } else {
            old += 1
        }
        if ended {
            break;
        }
        judge(&scene, outcome);
        scene.recovers();
    }
    (old, new)
}

#[test]
fn threat_25_killed_at_every_step() {
    for by in [By::Full, By::Changes] {
        let (old, new) = at_every_step(by, Fault::Crash, |scene, outcome| match outcome {
            Err(SlotError::FlipNotDurable { .. }) => assert!(scene.is_new()),
            outcome => {
                outcome.unwrap_err();
                assert!(!scene.is_new());
            }
        });
        // Killed before the last sync, and not at all.
        assert_eq!(new, 2, "{by:?}");
        assert!(old > 25, "{by:?}: only {old} steps");
    }
}

#[test]
fn threat_25_full_disk_at_every_step() {
    for by in [By::Full, By::Changes] {
        let (old, new) = at_every_step(by, Fault::Full, |scene, outcome| match outcome {
            // Nothing that takes room came after.
            Ok(_) => assert!(scene.is_new()),
            Err(SlotError::DiskFull { .. }) => {
                assert!(!scene.is_new());
                // What was half written has been given back already.
                assert_tidy(&scene.host);
            }
            Err(other) => panic!("{other}"),
        });
        assert!(old > 10 && new > 0, "{by:?}: {old} {new}");
    }
}

#[test]
fn threat_25_full_disk_and_the_same_process_tries_again() {
    let mut scene = Scene::new();
    plan::fail_at(4, Fault::Full);
    assert!(matches!(scene.go(By::Changes), Err(SlotError::DiskFull { .. })));
    plan::clear();
    // The standby is half of each, and known to be.
    assert!(scene.go(By::Changes).unwrap_err().needs_full());
    scene.go(By::Full).unwrap();
    assert!(scene.is_new());
}

#[test]
fn threat_25_first_activation_killed_at_every_step() {
    for at in 0.. {
        let mut host = Host::new();
        let view = host.view(&[("a/b", "1"), ("c -> a", "")]);
        plan::fail_at(at, Fault::Crash);
        let outcome = Slots::open(host.dir.path()).and_then(|mut slots| {
            let staged = slots.stage_full(&view, &host.objects)?;
            slots.activate(staged)
        });
        assert!(plan::clear().len() >= at || outcome.is_ok(), "failed without a fault: {outcome:?}");
        if fs::symlink_metadata(host.at("current")).is_ok() {
            host.assert_current(&view);
        }
        let mut slots = host.open();
        host.run(&mut slots, &view);
        host.assert_current(&view);
        assert_tidy(&host);
        if outcome.is_ok() {
            assert!(at > 10, "only {at} steps");
            break;
        }
    }
}

/// Panics unless everything done before the flip is synced before it, and the flip after it.
#[track_caller]
fn assert_durable(host: &Host, done: &[Done]) {
    let ino = |name: &str| fs::metadata(host.at(name)).unwrap().ino();
    let (home, slots) = (ino("."), ino("slots"));
    let flip = done.iter().rposition(|(step, at)| *step == Step::Rename && *at == home).unwrap();
    assert!(done[flip..].contains(&(Step::Sync, home)), "the flip itself");
    let mut there = BTreeSet::new();
    let mut todo = vec![host.at("current/")];
    while let Some(dir) = todo.pop() {
        there.insert(fs::metadata(&dir).unwrap().ino());
        for item in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            there.insert(inode(&item.path()));
            if item.file_type().unwrap().is_dir() {
                todo.push(item.path());
            }
        }
    }
    let mut written = 0;
    for (at, (step, which)) in done.iter().enumerate().take(flip) {
        // The place where files are made, and what was removed again, need not last.
        if matches!(step, Step::Sync | Step::SyncAll) || *which == slots || !there.contains(which) {
            continue;
        }
        written += 1;
        let synced =
            done[at..flip].iter().any(|later| later.0 == Step::SyncAll || *later == (Step::Sync, *which));
        assert!(synced, "{step:?} of {which} is not synced before the flip: {done:?}");
    }
    assert!(written > 0);
}

#[test]
fn all_is_durable_before_the_flip() {
    for by in [By::Full, By::Changes] {
        let mut scene = Scene::new();
        scene.go(by).unwrap();
        assert_durable(&scene.host, &plan::clear());
    }
}

#[test]
fn few_files_are_synced_one_by_one_and_many_at_once() {
    let limit = rootcast::limits::SYNC_EACH;
    // The root directory is synced too.
    for (files, syncs) in [(1, 2), (limit - 1, limit), (limit, 1), (limit * 3, 1)] {
        let mut host = Host::new();
        let mut slots = host.open();
        host.run(&mut slots, &Files::new());
        host.run(&mut slots, &Files::new());
        let view: Files =
            (0..files).map(|n| (path(&format!("f{n}")), host.file(format!("{n}"), false))).collect();
        plan::clear();
        let staged = slots.stage_changes(&changes(&Files::new(), &view), &host.objects).unwrap();
        assert_eq!(staged.report().syncs, syncs as u64, "{files} files");
        slots.activate(staged).unwrap();
        assert_durable(&host, &plan::clear());
    }
}

#[test]
fn new_and_emptied_directories_are_durable_when_synced_one_by_one() {
    let mut host = Host::new();
    let mut slots = host.open();
    let old = host.view(&[("d/e/f", "1"), ("d/g", "1"), ("k", "1")]);
    let new = host.view(&[("d/g", "1"), ("k/l/m", "1")]);
    host.run(&mut slots, &old);
    host.run(&mut slots, &old);
    plan::clear();
    let staged = slots.stage_changes(&changes(&old, &new), &host.objects).unwrap();
    slots.activate(staged).unwrap();
    host.assert_current(&new);
    let done = plan::clear();
    assert!(!done.iter().any(|(step, _)| *step == Step::SyncAll));
    assert_durable(&host, &done);
}

/// A full staging that finds all in place must still sync: whoever wrote it may have been killed before that.
#[test]
fn what_a_killed_process_wrote_is_synced_by_the_next() {
    let mut scene = Scene::new();
    let staged = scene.slots.stage_full(&scene.new, &scene.host.objects).unwrap();
    drop(staged);
    plan::clear();
    let Scene { host, slots, new, .. } = scene;
    drop(slots);
    host.run(&mut host.open(), &new);
    assert!(plan::clear().iter().any(|(step, _)| *step == Step::SyncAll));
}

#[test]
fn room_is_looked_for_before_anything_is_written() {
    let mut scene = Scene::new();
    let huge = Content::Chunked { id: ChunkListId::of(b"no one has it"), size: 1 << 60 };
    let change = Changes::from([(path("huge"), Some(Entry::File { content: huge, executable: false }))]);
    let Err(SlotError::DiskFull { shortage: Some(shortage), .. }) =
        scene.slots.stage_changes(&change, &scene.host.objects)
    else {
        panic!("there is no such disk");
    };
    assert!(shortage.bytes_wanted > 1 << 60 && shortage.bytes_free < 1 << 60);
    assert_eq!(plan::clear(), []);
    // The standby was not touched, so changes still apply.
    scene.go(By::Changes).unwrap();
    assert!(scene.is_new());
}

/// By hand: mount a tmpfs of 8 MiB somewhere and name it in `ROOTCAST_SMALL_DISK`.
#[test]
#[ignore = "needs a small file system"]
fn threat_25_a_disk_that_is_really_full() {
    let disk = std::env::var("ROOTCAST_SMALL_DISK").expect("ROOTCAST_SMALL_DISK names a small file system");
    let mut host = Host::new();
    host.dir = TempDir::new_in(disk).unwrap();
    let old = host.view(&[("a/b", "1")]);
    let mut slots = host.open();
    host.run(&mut slots, &old);
    host.run(&mut slots, &old);
    // Room for the files by the estimate, not for what is written meanwhile by others.
    let new = Files::from([(path("a/c"), host.file(vec![1; 900_000], false))]);
    let room = fstatvfs(&slots.slots.fd).unwrap();
    let filler = host.at("filler");
    fs::write(&filler, vec![0; (room.f_bavail * room.f_frsize) as usize - 400_000]).unwrap();
    let estimate = slots.stage_changes(&changes(&old, &new), &host.objects).unwrap_err();
    assert!(matches!(estimate, SlotError::DiskFull { shortage: Some(_), .. }), "{estimate}");
    let mut standby = Standby::new(
        &slots.slots,
        slots.open_standby(SlotName::A).unwrap(),
        slots.contents(&host.objects),
        Unsynced::All,
    );
    for (path, entry) in &new {
        let refused = standby.put(path, entry).unwrap_err();
        assert!(matches!(refused, SlotError::DiskFull { shortage: None, .. }), "{refused}");
    }
    drop(standby);
    host.assert_current(&old);
    fs::remove_file(filler).unwrap();
    assert_tidy(&host);
    host.run(&mut slots, &new);
    host.assert_current(&new);
}
