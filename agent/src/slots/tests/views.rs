//! Whatever the sequence of views, and however each is staged, the disk reads back as the view.

use super::*;
use proptest::prelude::*;

/// How a view is brought to the disk.
#[derive(Debug, Clone, Copy)]
enum How {
    Full,
    Changes,
    /// The process ends and another begins.
    Restart,
    /// Someone was at the standby before.
    Damaged(u8, u8),
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        2 => Just(How::Full),
        5 => Just(How::Changes),
        1 => Just(How::Restart),
        3 => (any::<u8>(), 0u8..8).prop_map(|(which, what)| How::Damaged(which, what)),
    ]
}

/// Paths that often are another's directory, and sort before or after what lies beneath it.
fn some_path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "a-", "a0", "b", "c.d", "é"]);
    prop::collection::vec(segment, 1..5).prop_map(|segments| segments.join("/"))
}

#[derive(Debug, Clone, Copy)]
enum What {
    Text(u8),
    Program(u8),
    Link(u8),
    Large(u8),
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        8 => (0u8..4).prop_map(What::Text),
        2 => (0u8..4).prop_map(What::Program),
        2 => (0u8..3).prop_map(What::Link),
        1 => (0u8..2).prop_map(What::Large),
    ]
}

fn build(host: &mut Host, wanted: &BTreeMap<String, What>) -> Files {
    let mut view = Files::new();
    for (name, what) in wanted {
        let name = path(name);
        // Shorter paths come first, so what lies beneath one is dropped.
        if view.keys().any(|above: &ConfigPath| above.is_above(&name)) {
            continue;
        }
        let entry = match what {
            What::Text(n) => host.file(vec![b'x'; *n as usize * 3000], false),
            What::Program(n) => host.file(format!("#!{n}"), true),
            What::Link(n) => link(name.as_str(), &format!("t{n}")),
            What::Large(n) => host.chunked(vec![*n; 1_100_000], 250_000),
        };
        view.insert(name, entry);
    }
    view
}

/// Does one unkind thing to something in a slot.
fn damage(slot: &Path, which: u8, what: u8) {
    let Ok(found) = fs::read_dir(slot) else { return };
    let mut names: Vec<PathBuf> = found.map(|item| item.unwrap().path()).collect();
    let mut at = 0;
    while at < names.len() {
        if names[at].is_dir() && !names[at].is_symlink() {
            names.extend(fs::read_dir(&names[at]).unwrap().map(|item| item.unwrap().path()));
        }
        at += 1;
    }
    names.sort();
    let Some(victim) = names.get(which as usize % names.len().max(1)) else { return };
    let is_dir = victim.is_dir() && !victim.is_symlink();
    let clear = || if is_dir { fs::remove_dir_all(victim) } else { fs::remove_file(victim) };
    match what {
        0 => clear().unwrap(),
        1 => {
            clear().unwrap();
            std::os::unix::fs::symlink("/", victim).unwrap();
        }
        2 => {
            clear().unwrap();
            fs::create_dir_all(victim.join("x/y/z")).unwrap();
            fs::write(victim.join("x/w"), "planted").unwrap();
        }
        3 => {
            clear().unwrap();
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::mkfifoat(rustix::fs::CWD, victim, mode).unwrap();
        }
        4 => fs::write(slot.join("planted"), "planted").unwrap(),
        5 if !victim.is_symlink() => {
            fs::set_permissions(victim, fs::Permissions::from_mode(0o4711)).unwrap();
        }
        6 if !is_dir && !victim.is_symlink() => {
            let mut bytes = fs::read(victim).unwrap();
            match bytes.last_mut() {
                Some(last) => *last ^= 1,
                None => bytes.push(0),
            }
            fs::write(victim, bytes).unwrap();
        }
        _ => fs::create_dir_all(slot.join("empty/below")).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_of_views_reads_back_exactly(
        steps in prop::collection::vec(
            (prop::collection::btree_map(some_path(), what(), 0..14), how()), 1..9),
    ) {
        let mut host = Host::new();
        let mut slots = host.open();
        let mut known: BTreeMap<&str, Files> = BTreeMap::new();
        for (wanted, how) in steps {
            let view = build(&mut host, &wanted);
            let standby = slots.standby().unwrap();
            let base = known.get(standby.directory());
            if let How::Restart = how {
                drop(slots);
                slots = host.open();
                known.clear();
                continue;
            }
            if let How::Damaged(which, what) = how {
                damage(&slots.path(standby), which, what);
            }
            let staged = match (how, base) {
                (How::Changes, Some(base)) => {
                    slots.stage_changes(&changes(base, &view), &host.objects).unwrap()
                }
                (How::Changes, None) => {
                    let refused = slots.stage_changes(&changes(&Files::new(), &view), &host.objects);
                    prop_assert!(refused.unwrap_err().needs_full());
                    slots.stage_full(&view, &host.objects).unwrap()
                }
                _ => slots.stage_full(&view, &host.objects).unwrap(),
            };
            prop_assert_eq!(read_back(staged.path()), host.expected(&view));
            slots.activate(staged).unwrap();
            known.insert(standby.directory(), view.clone());
            prop_assert_eq!(slots.active().unwrap(), Some(standby));
            prop_assert_eq!(read_back(&host.at("current")), host.expected(&view));
            let checked = slots.check_active(&view, &host.objects).unwrap();
            prop_assert!(checked.is_whole(), "{:?}", checked);
            prop_assert_eq!(checked.entries, view.len() as u64);
        }
    }

    /// The check finds a difference exactly where reading back finds one.
    #[test]
    fn check_agrees_with_reading_back(
        wanted in prop::collection::btree_map(some_path(), what(), 1..14),
        which in any::<u8>(),
        what in 0u8..8,
    ) {
        let mut host = Host::new();
        let mut slots = host.open();
        let view = build(&mut host, &wanted);
        host.run(&mut slots, &view);
        damage(&slots.path(SlotName::A), which, what);
        let same = read_back(&host.at("current")) == host.expected(&view);
        let checked = slots.check_active(&view, &host.objects).unwrap();
        prop_assert_eq!(checked.is_whole(), same, "{:?}", checked);
    }
}

#[test]
fn threat_17_modes_are_exact_under_any_umask() {
    let mut host = Host::new();
    let view = host.view(&[("a/b/c", "1"), ("a/run *", "2")]);
    let before = rustix::process::umask(Mode::from_raw_mode(0o077));
    host.run(&mut host.open(), &view);
    rustix::process::umask(before);
    host.assert_current(&view);
    let mode = fs::metadata(host.at("current")).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o755);
}

#[test]
fn a_change_costs_what_changed() {
    let mut host = Host::new();
    let mut slots = host.open();
    let first = host.view(&[("a/b", "1"), ("a/c", "2"), ("d -> a", "")]);
    let second = host.view(&[("a/b", "changed"), ("a/c", "2"), ("d -> a", "")]);
    host.run(&mut slots, &first);
    host.run(&mut slots, &first);
    let kept = inode(&host.at("slots/a/a/c"));
    let staged = slots.stage_changes(&changes(&first, &second), &host.objects).unwrap();
    // The file and its directory.
    let report = Report { written: 1, removed: 0, bytes: 7, syncs: 2 };
    assert_eq!((staged.slot(), staged.report()), (SlotName::A, report));
    let activated = slots.activate(staged).unwrap();
    let previous = Some(SlotName::B);
    assert_eq!(activated, Activated { slot: SlotName::A, previous, syncs: 1 });
    host.assert_current(&second);
    assert_eq!(inode(&host.at("current/a/c")), kept);
    // A full staging of what is there already writes nothing.
    host.run(&mut slots, &second);
    let staged = slots.stage_full(&second, &host.objects).unwrap();
    assert_eq!(staged.report(), Report { syncs: 1, ..Report::default() });
    // Rolling back is a flip with nothing to write.
    let back = slots.stage_changes(&Changes::new(), &host.objects).unwrap();
    assert_eq!(back.report(), Report::default());
    assert_eq!(slots.activate(back).unwrap().slot, SlotName::A);
}

#[test]
fn check_names_what_differs() {
    let mut host = Host::new();
    let mut slots = host.open();
    let view = host.view(&[
        ("gone/a", "1"),
        ("changed", "abc"),
        ("longer", "abc"),
        ("mode", "x"),
        ("kind", "x"),
        ("link -> mode", ""),
        ("d/e/f", "x"),
    ]);
    assert!(matches!(slots.check_active(&view, &host.objects), Err(SlotError::NothingActive { .. })));
    host.run(&mut slots, &view);
    let slot = slots.path(SlotName::A);
    fs::remove_dir_all(slot.join("gone")).unwrap();
    fs::write(slot.join("changed"), "abd").unwrap();
    fs::write(slot.join("longer"), "abcd").unwrap();
    fs::set_permissions(slot.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(slot.join("kind")).unwrap();
    fs::create_dir(slot.join("kind")).unwrap();
    fs::remove_file(slot.join("link")).unwrap();
    std::os::unix::fs::symlink("changed", slot.join("link")).unwrap();
    fs::create_dir_all(slot.join("d/more/deep")).unwrap();
    fs::set_permissions(slot.join("d/e"), fs::Permissions::from_mode(0o700)).unwrap();
    let checked = slots.check_active(&view, &host.objects).unwrap();
    let mut found: Vec<_> = checked.differences.iter().map(|d| (d.path.to_str().unwrap(), d.fault)).collect();
    found.sort_by_key(|(path, _)| *path);
    assert_eq!(
        found,
        [
            ("changed", Fault::Content),
            ("d/e", Fault::Mode),
            ("d/more", Fault::Extra),
            ("gone/a", Fault::Missing),
            ("kind", Fault::Kind),
            ("link", Fault::Content),
            ("longer", Fault::Content),
            ("mode", Fault::Mode),
        ]
    );
    assert_eq!((checked.found, checked.entries), (8, 7));
    // The whole slot gone.
    fs::remove_dir_all(&slot).unwrap();
    let checked = slots.check_active(&view, &host.objects).unwrap();
    assert_eq!(checked.found, 8);
    assert_eq!(checked.differences[0], Difference { path: "".into(), fault: Fault::Kind });
    // Repair is a full staging of the other slot.
    host.run(&mut slots, &view);
    host.assert_current(&view);
}

#[test]
fn a_check_lists_a_bounded_number_of_differences() {
    let mut host = Host::new();
    let mut slots = host.open();
    host.run(&mut slots, &Files::new());
    let entry = host.file("x", false);
    let wanted = rootcast::limits::MAX_DIFFERENCES + 5;
    let view: Files = (0..wanted).map(|n| (path(&format!("f{n}")), entry.clone())).collect();
    let checked = slots.check_active(&view, &host.objects).unwrap();
    assert_eq!(checked.differences.len(), rootcast::limits::MAX_DIFFERENCES);
    assert_eq!(checked.found, wanted as u64);
}
