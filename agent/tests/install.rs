//! What services install at fixed places of a host (specs/activation.md, A-46 to A-49).
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

use rootcast::service::{Services, WrittenServices};
use rootcast_agent::services::{Allow, Compared, Installed, Installer, ServiceError};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

struct Host(TempDir);

impl Host {
    /// A host with two trees, `old` and `new`.
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        for (tree, text) in [("old", "1"), ("new", "2")] {
            host.write(&format!("{tree}/app/a.conf"), text);
            host.write(&format!("{tree}/app/sub/b.conf"), text);
            symlink("/run/secret", host.path(&format!("{tree}/app/key"))).unwrap();
        }
        fs::create_dir(host.path("etc")).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn allow(&self) -> Allow {
        Allow { install: vec![self.path("etc")], ..Allow::default() }
    }

    fn installer(&self) -> Installer {
        Installer::new(self.path("state"), self.path("current"))
    }

    fn services(&self, install: &str) -> Services {
        services(&install.replace("ETC", self.path("etc").to_str().unwrap()))
    }

    fn apply(&self, install: &str, tree: &str) -> Result<Installed, ServiceError> {
        self.installer().apply(&self.services(install), &self.path(tree), &self.allow())
    }

    /// Compares all that is installed of `old`, and puts it right where that is permitted.
    fn compare(&self, install: &str, allow: Option<&Allow>) -> Compared {
        let (services, places, root) = (self.services(install), self.places(), self.path("old"));
        let differing =
            self.installer().differing(&services, &root, places.iter().map(PathBuf::as_path)).unwrap();
        let compared = self.installer().compare(&services, &root, &places, allow).unwrap();
        let refused = compared.refused.iter().map(|(place, _)| place.clone());
        let all: BTreeSet<PathBuf> = compared.differing.iter().cloned().chain(refused).collect();
        assert_eq!(differing, all.into_iter().collect::<Vec<_>>(), "both ways find the same");
        compared
    }

    /// Puts the copies right, and gives those that differed.
    fn compare_copies(&self) -> Vec<PathBuf> {
        let (services, root) = (self.services(COPIES), self.path("old"));
        self.installer().compare(&services, &root, &self.places(), Some(&self.allow())).unwrap().differing
    }

    fn places(&self) -> BTreeSet<PathBuf> {
        ALL.iter().map(|name| self.path(name)).collect()
    }

    /// Names in a directory.
    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn services(install: &str) -> Services {
    #[derive(serde::Deserialize)]
    struct File {
        services: WrittenServices,
    }
    let text = format!("[services.a]\nfiles = ['a']\ninstall = [{install}]\n");
    Services::of(&text, &rootcast::settings::parse::<File>(&text).unwrap().services).unwrap()
}

const COPIES: &str = "{ from = 'app', to = 'ETC/app', how = 'copy', mode = '0640' }";
const LINK: &str = "{ from = 'app/a.conf', to = 'ETC/a.conf' }, { from = 'not/there', to = 'ETC/none' }";

/// What these two install.
const ALL: [&str; 4] = ["etc/a.conf", "etc/app/a.conf", "etc/app/sub/b.conf", "etc/app/key"];

/// Everything about a file that writing it anew would change.
fn identity(path: &Path) -> (u64, i64, i64) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[test]
fn a_47_a_second_time_writes_nothing() {
    let host = Host::new();
    let install = format!("{COPIES}, {LINK}");
    assert_eq!(host.apply(&install, "old").unwrap(), Installed { written: 4, removed: 0 });
    assert_eq!(fs::read_link(host.path("etc/a.conf")).unwrap(), host.path("current/app/a.conf"));
    assert_eq!((host.read("etc/app/a.conf"), host.read("etc/app/sub/b.conf")), ("1".into(), "1".into()));
    assert_eq!(fs::metadata(host.path("etc/app/a.conf")).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_link(host.path("etc/app/key")).unwrap(), host.path("current/app/key"), "A-46");
    let all = ["etc/a.conf", "etc/app/a.conf", "etc/app/sub/b.conf", "etc/app/key", "state/installed"];
    let before: Vec<_> = all.iter().map(|name| identity(&host.path(name))).collect();
    assert_eq!(host.apply(&install, "old").unwrap(), Installed::default());
    let after: Vec<_> = all.iter().map(|name| identity(&host.path(name))).collect();
    assert_eq!(before, after);
    assert_eq!(host.apply(&install, "new").unwrap().written, 2, "links lead to what is new by themselves");
    assert_eq!(host.apply("", "new").unwrap(), Installed { written: 0, removed: 4 });
    assert_eq!(host.names("etc"), ["app"]);
}

#[test]
fn a_47_what_was_there_before_comes_back() {
    let host = Host::new();
    host.write("etc/a.conf", "by hand");
    let before = identity(&host.path("etc/a.conf")).0;
    for tree in ["old", "new"] {
        host.apply(LINK, tree).unwrap();
        assert_eq!(host.read("etc/a.conf.before-rootcast"), "by hand");
    }
    host.apply("", "new").unwrap();
    assert_eq!((identity(&host.path("etc/a.conf")).0, host.names("etc")), (before, vec!["a.conf".into()]));
}

#[test]
fn a_47_a_directory_in_the_way_is_refused_before_anything_is_written() {
    let host = Host::new();
    host.write("etc/a.conf/x", "by hand");
    let both = format!("{{ from = 'app/a.conf', to = 'ETC/0' }}, {LINK}");
    let said = host.apply(&both, "old").unwrap_err().to_string();
    assert!(said.contains("etc/a.conf is a directory, which rootcast did not make"), "{said}");
    assert_eq!(host.names("etc"), ["a.conf"]);
}

#[test]
fn a_49_a_link_out_of_what_is_permitted_is_not_followed() {
    let host = Host::new();
    fs::create_dir(host.path("elsewhere")).unwrap();
    symlink(host.path("elsewhere"), host.path("etc/app")).unwrap();
    assert!(matches!(host.apply(COPIES, "old"), Err(ServiceError::LedAway { .. })));
    assert!(host.names("elsewhere").is_empty());
}

/// The process is killed when any one write has been done; then the same is done again, or what was there
/// before is gone back to. Each write is stood for by the state it leaves, as it is between two calls.
#[test]
fn a_49_a_link_planted_later_does_not_choose_what_is_removed() {
    let host = Host::new();
    host.apply(COPIES, "old").unwrap();
    fs::rename(host.path("etc/app"), host.path("etc/kept")).unwrap();
    host.write("elsewhere/a.conf", "another's");
    symlink(host.path("elsewhere"), host.path("etc/app")).unwrap();
    host.apply("", "old").unwrap();
    assert_eq!(host.read("elsewhere/a.conf"), "another's");
}

#[test]
fn a_48_what_a_crash_leaves_is_completed_or_taken_back() {
    let install = format!("{COPIES}, {LINK}");
    // What a crash may leave of going from nothing to these: any of the places, with the manifest that came first.
    let places = ["etc/a.conf", "etc/app/a.conf", "etc/app/sub/b.conf", "etc/app/key"];
    for left in 0u32..16 {
        for unfinished in [false, true] {
            for goes_on in [true, false] {
                let host = Host::new();
                host.write("etc/a.conf", "by hand");
                host.apply(&install, "old").unwrap();
                for (at, place) in places.iter().enumerate().filter(|(at, _)| left & (1 << at) == 0) {
                    fs::remove_file(host.path(place)).unwrap();
                    if at == 0 {
                        fs::hard_link(host.path("etc/a.conf.before-rootcast"), host.path(place)).unwrap();
                    }
                }
                if unfinished {
                    host.write("etc/app/a.conf.writing-rootcast", "half");
                }
                if goes_on {
                    host.apply(&install, "new").unwrap();
                    assert_eq!(
                        (host.read("etc/app/a.conf"), host.read("etc/app/sub/b.conf")),
                        ("2".into(), "2".into())
                    );
                    assert_eq!(host.names("etc"), ["a.conf", "a.conf.before-rootcast", "app"]);
                    assert_eq!(host.names("etc/app"), ["a.conf", "key", "sub"]);
                } else {
                    host.apply("", "old").unwrap();
                    assert_eq!(
                        (host.read("etc/a.conf"), host.names("etc")),
                        ("by hand".into(), vec!["a.conf".into(), "app".into()])
                    );
                    assert_eq!(host.names("etc/app"), ["sub"], "{left} {unfinished}");
                }
            }
        }
    }
}

type Harm = fn(&Path);

/// What others may do to a place.
const HARMS: [Harm; 8] = [
    |at| {
        fs::remove_file(at).unwrap();
        fs::write(at, "by hand").unwrap();
    },
    |at| fs::remove_file(at).unwrap(),
    |at| {
        fs::remove_file(at).unwrap();
        symlink("/etc/hostname", at).unwrap();
    },
    |at| {
        let link = fs::symlink_metadata(at).unwrap().is_symlink();
        if link { fs::remove_file(at).unwrap() } else { fs::write(at, "by hand").unwrap() }
    },
    |at| match fs::symlink_metadata(at).unwrap().is_symlink() {
        true => fs::remove_file(at).unwrap(),
        false => fs::set_permissions(at, fs::Permissions::from_mode(0o666)).unwrap(),
    },
    // Reading it would wait for ever.
    |at| {
        fs::remove_file(at).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at, rustix::fs::Mode::from(0o640)).unwrap();
    },
    |at| drop(UnixListener::bind(at).or_else(|_| fs::remove_file(at).and_then(|()| UnixListener::bind(at)))),
    |at| fs::rename(at.parent().unwrap(), at.parent().unwrap().with_extension("gone")).unwrap(),
];

#[test]
fn a_52_what_others_did_to_what_is_installed_is_found_and_put_right() {
    let install = format!("{COPIES}, {LINK}");
    for place in ALL {
        for (number, harm) in HARMS.into_iter().enumerate() {
            let host = Host::new();
            host.apply(&install, "old").unwrap();
            assert!(host.compare(&install, None).differing.is_empty());
            let (at, kept) = (host.path(place), identity(&host.path("state/installed")));
            harm(&at);
            let found = host.compare(&install, None);
            assert!(found.differing.contains(&at) && found.refused.is_empty(), "{place} {number}: {found:?}");
            assert!(host.compare(&install, None).differing.contains(&at), "nothing was written");
            let compared = host.compare(&install, Some(&host.allow()));
            assert_eq!(
                (compared.differing, compared.refused.len()),
                (found.differing, 0),
                "{place} {number}"
            );
            let all: Vec<_> = ALL.iter().map(|name| identity(&host.path(name))).collect();
            assert_eq!(host.apply(&install, "old").unwrap(), Installed::default(), "{place} {number}");
            assert!(host.compare(&install, Some(&host.allow())).differing.is_empty());
            assert_eq!(all, ALL.map(|name| identity(&host.path(name))), "what is right is not touched");
            assert_eq!(kept, identity(&host.path("state/installed")));
            assert!(!host.path("etc/a.conf.before-rootcast").exists(), "nothing of theirs is kept");
        }
    }
}

#[test]
fn a_52_the_owner_of_a_copy_is_the_agents_where_nobody_is_named_and_a_second_name_is_no_drift() {
    let host = Host::new();
    host.apply(COPIES, "old").unwrap();
    fs::hard_link(host.path("etc/app/a.conf"), host.path("backup")).unwrap();
    assert!(host.compare_copies().is_empty(), "a backup");
    if !rustix::process::geteuid().is_root() {
        return;
    }
    std::os::unix::fs::chown(host.path("etc/app/a.conf"), Some(12345), None).unwrap();
    assert_eq!(host.compare_copies(), [host.path("etc/app/a.conf")]);
    assert_eq!(fs::metadata(host.path("etc/app/a.conf")).unwrap().uid(), 0);
}

#[test]
fn a_58_a_directory_in_the_place_of_what_is_installed_is_kept_and_the_rest_put_right() {
    let host = Host::new();
    let install = format!("{COPIES}, {LINK}");
    host.apply(&install, "old").unwrap();
    for name in ["etc/a.conf", "etc/app/a.conf"] {
        fs::remove_file(host.path(name)).unwrap();
    }
    host.write("etc/a.conf/theirs", "1");
    let compared = host.compare(&install, Some(&host.allow()));
    assert_eq!(compared.differing, [host.path("etc/app/a.conf")]);
    let [(place, ServiceError::Foreign { path, .. })] = compared.refused.as_slice() else {
        panic!("{compared:?}")
    };
    assert_eq!((place, path), (&host.path("etc/a.conf"), &host.path("etc/a.conf")));
    assert_eq!(host.read("etc/a.conf/theirs"), "1");
    // They move it away.
    fs::remove_dir_all(host.path("etc/a.conf")).unwrap();
    assert_eq!(host.compare(&install, Some(&host.allow())).differing, [host.path("etc/a.conf")]);
}

#[test]
fn a_49_what_is_put_right_must_be_permitted_still() {
    let host = Host::new();
    let install = format!("{COPIES}, {LINK}");
    host.apply(&install, "old").unwrap();
    fs::remove_file(host.path("etc/app/a.conf")).unwrap();
    let refused = |allow: &Allow| host.compare(&install, Some(allow)).refused.remove(0).1;
    let said = refused(&Allow { install: vec!["/opt".into()], ..Allow::default() }).to_string();
    let line = format!("install = [\"/opt\", \"{}\"]", host.path("etc/app/a.conf").display());
    assert!(said.ends_with(&line) && !host.path("etc/app/a.conf").exists(), "{said}");
    // A link for the directory leads elsewhere.
    fs::rename(host.path("etc/app"), host.path("elsewhere")).unwrap();
    symlink(host.path("elsewhere"), host.path("etc/app")).unwrap();
    assert!(matches!(refused(&host.allow()), ServiceError::LedAway { .. }));
    assert!(!host.path("elsewhere/a.conf").exists());
}
