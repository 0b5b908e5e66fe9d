//! what others did to the live slot, put right in place.

use super::*;
use crate::slots::steps::plan::{self, Fault as Broken};
use rootcast::limits::MAX_SET_ASIDE;
use std::os::unix::fs::symlink;

fn view(host: &mut Host) -> Files {
    let mut view = host.view(&[
        ("a.conf", "one"),
        ("bin/run *", "two"),
        ("d/x/y", "three"),
        ("d/z", "four"),
        ("l -> d", ""),
    ]);
    let large = host.chunked([7; 9000], 3000);
    view.insert(path("large"), large);
    view
}

/// Compares the whole slot and repairs what differs.
fn mend(host: &Host, slots: &mut Slots, view: &Files, paths: &[&str]) -> Result<Repaired, SlotError> {
    let checked = slots.check_paths(view, &host.objects, paths)?;
    slots.repair(view, &host.objects, &checked.differences)
}

type Harm = (&'static str, fn(&Path));

/// What others may do, and where it shows.
const HARMS: [Harm; 13] = [
    ("a.conf", |at| fs::write(at.join("a.conf"), "other").unwrap()),
    ("a.conf", |at| fs::remove_file(at.join("a.conf")).unwrap()),
    ("large", |at| fs::write(at.join("large"), vec![8; 9000]).unwrap()),
    ("new", |at| fs::write(at.join("new"), "?").unwrap()),
    ("new", |at| {
        fs::create_dir_all(at.join("new/deep/er")).unwrap();
        fs::write(at.join("new/deep/er/f"), "?").unwrap();
    }),
    ("bin/run", |at| fs::set_permissions(at.join("bin/run"), fs::Permissions::from_mode(0o4777)).unwrap()),
    ("d", |at| fs::set_permissions(at.join("d"), fs::Permissions::from_mode(0o700)).unwrap()),
    ("a.conf", |at| {
        fs::remove_file(at.join("a.conf")).unwrap();
        fs::create_dir_all(at.join("a.conf/inside")).unwrap();
    }),
    ("d", |at| {
        fs::rename(at.join("d"), at.join("../../elsewhere")).unwrap();
        symlink("../../elsewhere", at.join("d")).unwrap();
    }),
    ("d", |at| fs::remove_dir_all(at.join("d")).unwrap()),
    ("l", |at| {
        fs::remove_file(at.join("l")).unwrap();
        symlink("/etc", at.join("l")).unwrap();
    }),
    // Named by a path beneath what was replaced.
    ("d/x/y", |at| {
        fs::remove_dir_all(at.join("d")).unwrap();
        fs::write(at.join("d"), "a file").unwrap();
    }),
    ("", |at| fs::remove_dir_all(at).unwrap()),
];

#[test]
fn a_52_each_way_to_differ_is_put_right_and_nothing_else_touched() {
    for (at, (named, harm)) in HARMS.into_iter().enumerate() {
        let mut host = Host::new();
        let view = view(&mut host);
        let mut slots = host.open();
        host.run(&mut slots, &view);
        let kept = inode(&host.at("current/bin"));
        harm(&host.at("slots/a"));
        mend(&host, &mut slots, &view, &[named]).unwrap();
        host.assert_current(&view);
        if !named.is_empty() {
            assert_eq!(inode(&host.at("current/bin")), kept, "{at}: what was right was left alone");
        }
        let again = slots.check_paths(&view, &host.objects, &[named, ""]).unwrap();
        assert!(again.is_whole(), "{at}: {again:?}");
        // A second repair finds all in place.
        plan::clear();
        let repaired = mend(&host, &mut slots, &view, &[named]).unwrap();
        assert_eq!((repaired, plan::clear()), (Repaired::default(), vec![]), "{at}: it is nothing");
        if named == "d" && host.at("elsewhere").exists() {
            assert!(host.at("elsewhere/x/y").exists(), "what a link led to is not ours");
        }
    }
}

#[test]
fn a_52_killed_at_every_step_of_a_repair_no_name_shows_part_of_a_file() {
    let mut steps = 0;
    for (_, harm) in HARMS {
        for at in 0.. {
            let mut host = Host::new();
            let view = view(&mut host);
            let mut slots = host.open();
            host.run(&mut slots, &view);
            harm(&host.at("slots/a"));
            let harmed = read_back(&host.dir.path().join("slots"));
            plan::fail_at(at, Broken::Crash);
            let outcome = mend(&host, &mut slots, &view, &[""]);
            let done = plan::clear().len();
            assert!(done >= at || outcome.is_ok(), "failed without a fault: {outcome:?}");
            // Every file is as it was found, or as it should be.
            let wanted = host.expected(&view);
            if host.at("slots/a").is_dir() {
                for (name, read) in read_back(&host.at("slots/a")) {
                    let Read::File { bytes, .. } = &read else { continue };
                    let same = |other: Option<&Read>| matches!(other, Some(Read::File { bytes: b, .. }) if b == bytes);
                    let before = harmed.get(&format!("a/{name}"));
                    assert!(same(wanted.get(&name)) || same(before), "{name}: {read:?}");
                }
            }
            // Another process goes on.
            drop(slots);
            let mut slots = host.open();
            slots.adopt_active(Moment::now()).unwrap();
            mend(&host, &mut slots, &view, &[""]).unwrap();
            host.assert_current(&view);
            if outcome.is_ok() && done <= at {
                break;
            }
            steps += 1;
        }
    }
    assert!(steps > 60, "only {steps} steps");
}

#[test]
fn a_52_a_file_is_durable_before_it_takes_its_place() {
    use crate::slots::steps::Step;
    let mut host = Host::new();
    let view = view(&mut host);
    let mut slots = host.open();
    host.run(&mut slots, &view);
    fs::write(host.at("current/a.conf"), "other").unwrap();
    plan::clear();
    mend(&host, &mut slots, &view, &["a.conf"]).unwrap();
    let steps: Vec<Step> = plan::clear().into_iter().map(|(step, _)| step).collect();
    use Step::*;
    assert_eq!(steps, [Create, Write, SetMode, Sync, Rename, Sync], "the last is the directory's");
}

#[test]
fn a_58_current_is_put_back_and_what_was_in_its_place_is_kept() {
    let mut host = Host::new();
    let view = view(&mut host);
    let mut slots = host.open();
    assert_eq!(slots.repair_current().unwrap(), None, "nothing was live");
    host.run(&mut slots, &view);
    assert_eq!(slots.repair_current().unwrap(), None);
    let current = host.at("current");
    fs::remove_file(&current).unwrap();
    assert_eq!(slots.repair_current().unwrap(), Some(CurrentRepaired::Missing));
    for other in ["/etc", "slots/b"] {
        fs::remove_file(&current).unwrap();
        symlink(other, &current).unwrap();
        assert!(!slots.current_is_right());
        assert_eq!(slots.repair_current().unwrap(), Some(CurrentRepaired::Link));
    }
    for number in 1..=MAX_SET_ASIDE + 1 {
        fs::remove_file(&current).unwrap();
        fs::create_dir(&current).unwrap();
        fs::write(current.join("precious"), "data").unwrap();
        let outcome = slots.repair_current();
        if number > MAX_SET_ASIDE {
            assert!(matches!(outcome, Err(SlotError::Foreign { .. })), "{outcome:?}");
            assert!(current.join("precious").exists());
            break;
        }
        let aside = host.at(&format!("current.found-{number}"));
        assert_eq!(outcome.unwrap(), Some(CurrentRepaired::SetAside(aside.clone())));
        assert_eq!(fs::read(aside.join("precious")).unwrap(), b"data");
        host.assert_current(&view);
    }
}

#[test]
fn a_58_where_another_hand_turned_current_no_changes_are_staged_onto_what_was_live() {
    let mut host = Host::new();
    let (one, two) = (host.view(&[("f", "1"), ("g", "1")]), host.view(&[("f", "2"), ("g", "1")]));
    let mut slots = host.open();
    host.run(&mut slots, &one);
    host.run(&mut slots, &two);
    fs::remove_file(host.at("current")).unwrap();
    symlink("slots/a", host.at("current")).unwrap();
    let refused = slots.stage_changes(&changes(&one, &two), &host.objects).unwrap_err();
    assert!(refused.needs_full());
}

#[test]
fn a_52_the_directory_of_both_slots_may_be_gone() {
    let mut host = Host::new();
    let view = view(&mut host);
    let mut slots = host.open();
    host.run(&mut slots, &view);
    fs::remove_dir_all(host.at("slots")).unwrap();
    mend(&host, &mut slots, &view, &[""]).unwrap();
    host.assert_current(&view);
    fs::rename(host.at("slots"), host.at("elsewhere")).unwrap();
    mend(&host, &mut slots, &view, &[""]).unwrap();
    host.assert_current(&view);
    assert!(matches!(Slots::open(host.dir.path()), Err(SlotError::Busy { .. })), "and is held as before");
}

#[test]
fn a_57_s4_6_what_is_ignored_is_neither_compared_nor_removed() {
    let mut host = Host::new();
    let view = view(&mut host);
    let mut slots = host.open();
    let patterns = ["data/", "**/*.log", "a.conf"].map(str::to_owned);
    slots.set_ignored(Patterns::new(&patterns).unwrap());
    host.run(&mut slots, &view);
    let at = host.at("slots/a");
    fs::create_dir_all(at.join("data/deep")).unwrap();
    fs::create_dir_all(at.join("new/inside")).unwrap();
    for name in ["data/deep/db", "d/x/app.log", "new/inside/app.log", "new/gone", "a.conf"] {
        fs::write(at.join(name), "theirs").unwrap();
    }
    let checked = slots.check_paths(&view, &host.objects, &[""]).unwrap();
    let found: Vec<_> = checked.differences.iter().map(|one| one.path.to_str().unwrap()).collect();
    assert_eq!(found, ["new/gone"]);
    mend(&host, &mut slots, &view, &["new", "data", "data/deep/db", "d/x/app.log", "a.conf"]).unwrap();
    // Also by the sweep of a full staging: twice, so that this slot is swept.
    host.run(&mut slots, &view);
    host.run(&mut slots, &view);
    for name in ["data/deep/db", "d/x/app.log", "new/inside/app.log"] {
        assert_eq!(fs::read(at.join(name)).unwrap(), b"theirs", "{name}");
    }
    assert!(!at.join("new/gone").exists());
    assert!(Patterns::new(&["/etc".to_owned()]).is_err() && Patterns::new(&["[".to_owned()]).is_err());
}
