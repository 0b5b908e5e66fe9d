//! Threat 16 and its kin: what someone put into the slots beforehand is
//! neither followed nor opened nor kept.

use super::*;
use rustix::fs::{CWD, mkfifoat, mknodat};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

/// A host with `view` in both slots, a directory outside that nobody may touch, and what it held.
struct Scene {
    host: Host,
    slots: Slots,
    view: Files,
    outside: PathBuf,
    outside_before: BTreeMap<String, Read>,
}

impl Scene {
    fn new() -> Self {
        let mut host = Host::new();
        let view = host.view(&[("etc/deep/x", "1"), ("etc/y", "1"), ("top", "1")]);
        let mut slots = host.open();
        host.run(&mut slots, &view);
        host.run(&mut slots, &view);
        let outside = host.at("outside");
        fs::create_dir_all(outside.join("deep")).unwrap();
        for name in ["deep/x", "y", "top", "x"] {
            fs::write(outside.join(name), "precious").unwrap();
        }
        let outside_before = read_back(&outside);
        Self { host, slots, view, outside, outside_before }
    }

    /// A place in the standby slot.
    fn standby(&self, name: &str) -> PathBuf {
        // Joining nothing would add a slash, which follows a link.
        self.slots.path(SlotName::A).components().chain(Path::new(name).components()).collect()
    }

    /// Removes what is in the standby slot at `name`.
    fn clear(&self, name: &str) -> PathBuf {
        let at = self.standby(name);
        if at.is_dir() { fs::remove_dir_all(&at) } else { fs::remove_file(&at) }.unwrap();
        at
    }

    #[track_caller]
    fn assert_outside_untouched(&self) {
        assert_eq!(read_back(&self.outside), self.outside_before);
    }

    /// A full staging puts all right; the check of it agrees.
    #[track_caller]
    fn assert_staged_in_full(mut self) {
        let staged = self.slots.stage_full(&self.view, &self.host.objects).unwrap();
        assert_eq!(read_back(staged.path()), self.host.expected(&self.view));
        assert!(!fs::symlink_metadata(staged.path()).unwrap().is_symlink());
        self.slots.activate(staged).unwrap();
        self.host.assert_current(&self.view);
        assert!(self.slots.check_active(&self.view, &self.host.objects).unwrap().is_whole());
        self.assert_outside_untouched();
    }
}

/// Every level at which a link can be planted, and what it leads to.
const LEVELS: [(&str, &str); 5] =
    [("", ""), ("etc", ""), ("etc/deep", "deep"), ("etc/deep/x", "deep/x"), ("top", "top")];

#[test]
fn threat_16_planted_links_are_replaced_by_a_full_staging() {
    for (name, target) in LEVELS {
        let scene = Scene::new();
        symlink(scene.outside.join(target), scene.clear(name)).unwrap();
        scene.assert_staged_in_full();
    }
}

#[test]
fn threat_16_planted_links_are_not_followed_by_changes() {
    for (name, target) in LEVELS {
        for removal in [true, false] {
            let mut scene = Scene::new();
            symlink(scene.outside.join(target), scene.clear(name)).unwrap();
            let is_leaf = matches!(name, "etc/deep/x" | "top");
            let changed = if name == "top" { "top" } else { "etc/deep/x" };
            let entry = (!removal).then(|| scene.host.file("2", false));
            let change = Changes::from([(path(changed), entry)]);
            let outcome = scene.slots.stage_changes(&change, &scene.host.objects);
            scene.assert_outside_untouched();
            if is_leaf {
                // A name is removed or replaced as itself, whatever it is.
                let staged = outcome.unwrap();
                assert!(!staged.path().join(changed).is_symlink());
            } else {
                let refused = outcome.unwrap_err();
                assert!(refused.needs_full(), "{name}: {refused}");
            }
            scene.assert_staged_in_full();
        }
    }
}

#[test]
fn threat_16_a_check_follows_no_link() {
    for (name, target) in LEVELS {
        let mut scene = Scene::new();
        symlink(scene.outside.join(target), scene.clear(name)).unwrap();
        let flip = scene.slots.stage_changes(&Changes::new(), &scene.host.objects);
        match flip {
            Ok(staged) => scene.slots.activate(staged).unwrap(),
            // The slot itself is the link: only a hand on `current` can make it live.
            Err(_) => {
                fs::remove_file(scene.host.at("current")).unwrap();
                symlink("slots/a", scene.host.at("current")).unwrap();
                Activated { slot: SlotName::A, previous: None, syncs: 0 }
            }
        };
        let checked = scene.slots.check_active(&scene.view, &scene.host.objects).unwrap();
        let first = &checked.differences[0];
        assert_eq!((first.path.to_str(), first.fault), (Some(name), Fault::Kind));
    }
}

#[test]
fn threat_16_links_where_unfinished_work_goes() {
    let mut scene = Scene::new();
    let unfinished = scene.host.at("slots").join(UNFINISHED);
    symlink(scene.outside.join("top"), &unfinished).unwrap();
    symlink(&scene.outside, scene.host.at(".current.new")).unwrap();
    scene.host.run(&mut scene.slots, &scene.view);
    symlink(&scene.outside, &unfinished).unwrap();
    let change = Changes::from([(path("top"), Some(scene.host.file("2", false)))]);
    let staged = scene.slots.stage_changes(&change, &scene.host.objects).unwrap();
    drop(staged);
    fs::create_dir_all(unfinished.join("a/b")).unwrap();
    scene.assert_staged_in_full();
}

#[test]
fn threat_16_the_slots_directory_is_no_link() {
    let host = Host::new();
    fs::create_dir(host.at("elsewhere")).unwrap();
    symlink("elsewhere", host.at("slots")).unwrap();
    assert!(matches!(Slots::open(host.dir.path()), Err(SlotError::Foreign { .. })));
    assert_eq!(fs::read_dir(host.at("elsewhere")).unwrap().count(), 0);
}

#[test]
fn threat_16_a_hard_link_to_elsewhere_is_cut() {
    let mut scene = Scene::new();
    let shared = scene.outside.join("shared");
    fs::write(&shared, "1").unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o644)).unwrap();
    fs::hard_link(&shared, scene.clear("top")).unwrap();
    scene.outside_before = read_back(&scene.outside);
    scene.assert_staged_in_full();
}

#[test]
fn a_file_that_can_change_from_outside_is_written_anew() {
    let mut scene = Scene::new();
    let before = inode(&scene.standby("top"));
    fs::hard_link(scene.standby("top"), scene.host.at("second")).unwrap();
    let staged = scene.slots.stage_full(&scene.view, &scene.host.objects).unwrap();
    assert_eq!(staged.report().written, 1);
    assert_ne!(inode(&scene.standby("top")), before);
}

#[test]
fn threat_17_fifos_and_devices_are_removed_and_never_opened() {
    for name in ["top", "etc/deep", "etc", "", "new-name"] {
        let scene = Scene::new();
        let at = if name == "new-name" { scene.standby(name) } else { scene.clear(name) };
        mkfifoat(CWD, at, Mode::from_raw_mode(0o644)).unwrap();
        // A reader would block on a fifo for ever: the check would too.
        if !name.is_empty() {
            let mut scene = scene;
            let staged = scene.slots.stage_changes(&Changes::new(), &scene.host.objects).unwrap();
            scene.slots.activate(staged).unwrap();
            let checked = scene.slots.check_active(&scene.view, &scene.host.objects).unwrap();
            assert!(!checked.is_whole());
            scene.host.run(&mut scene.slots, &scene.view);
            scene.assert_staged_in_full();
        } else {
            scene.assert_staged_in_full();
        }
    }
    let scene = Scene::new();
    let at = scene.clear("top");
    let mode = Mode::from_raw_mode(0o644);
    let device = rustix::fs::makedev(1, 3);
    // Only root can make one.
    if mknodat(CWD, at, FileType::CharacterDevice, mode, device).is_ok() {
        scene.assert_staged_in_full();
    }
}

#[test]
fn sockets_directories_and_names_of_any_bytes_are_removed() {
    let scene = Scene::new();
    let _socket = std::os::unix::net::UnixListener::bind(scene.standby("socket")).unwrap();
    fs::create_dir_all(scene.clear("top").join("a/b/c")).unwrap();
    fs::write(scene.clear("etc/deep"), "a file").unwrap();
    let odd = scene.slots.path(SlotName::A).join(OsStr::from_bytes(b"not \xff utf-8 \n\x01"));
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join(OsStr::from_bytes(b"\xfe")), "x").unwrap();
    fs::write(scene.slots.path(SlotName::A).join(OsStr::from_bytes(b"etc/\xfd")), "x").unwrap();
    scene.assert_staged_in_full();
}

#[test]
fn unreadable_modes_are_put_right() {
    let scene = Scene::new();
    for name in ["top", "etc/deep/x", "etc/deep", "etc", ""] {
        fs::set_permissions(scene.standby(name), fs::Permissions::from_mode(0o0)).unwrap();
        if name == "etc/deep" {
            fs::create_dir_all(scene.host.at("slots/a/etc/extra/closed")).unwrap();
            fs::write(scene.host.at("slots/a/etc/extra/closed/x"), "x").unwrap();
            let closed = fs::Permissions::from_mode(0o0);
            fs::set_permissions(scene.host.at("slots/a/etc/extra/closed"), closed).unwrap();
        }
    }
    scene.assert_staged_in_full();
}

#[test]
fn a_tree_deeper_than_any_path_is_removed() {
    let scene = Scene::new();
    let mut here = disk::open_mounted(CWD, scene.standby("").as_path()).unwrap();
    for _ in 0..5000 {
        rustix::fs::mkdirat(&here, "deeper", Mode::from_raw_mode(0o755)).unwrap();
        here = disk::open_directory(here.as_fd(), "deeper").unwrap();
    }
    disk::create(here.as_fd(), "bottom").unwrap();
    drop(here);
    scene.assert_staged_in_full();
}

#[test]
fn a_wide_tree_is_removed() {
    let scene = Scene::new();
    for dir in 0..40 {
        for file in 0..60 {
            let at = scene.standby(&format!("extra/d{dir}/e{}", file % 3));
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join(format!("f{file}")), "x").unwrap();
        }
    }
    for file in 0..1500 {
        fs::write(scene.standby(&format!("extra/f{file}")), "").unwrap();
    }
    scene.assert_staged_in_full();
}

/// By hand, as root: what is mounted inside a slot is not emptied.
#[test]
#[ignore = "mounts something"]
fn a_mount_in_a_slot_is_left_alone() {
    for (place, extra) in [("etc", false), ("extra/deep", true)] {
        let mut scene = Scene::new();
        let at = scene.standby(place);
        fs::create_dir_all(&at).unwrap();
        let mount = |args: &[&OsStr]| {
            let done = std::process::Command::new(if args.len() > 1 { "mount" } else { "umount" })
                .args(args)
                .status();
            assert!(done.unwrap().success());
        };
        mount(&[OsStr::new("--bind"), scene.outside.as_os_str(), at.as_os_str()]);
        let refused = scene.slots.stage_full(&scene.view, &scene.host.objects);
        let untouched = read_back(&scene.outside) == scene.outside_before;
        mount(&[at.as_os_str()]);
        assert!(untouched);
        match refused {
            Err(SlotError::Foreign { .. }) => {}
            // As an empty extra directory it is busy.
            Err(SlotError::Io { .. }) if extra => {}
            other => panic!("{place}: {other:?}"),
        }
        scene.assert_staged_in_full();
    }
}
