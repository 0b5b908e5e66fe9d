//! What services install at fixed places of a host (specs/activation.md, A-46 to A-49).
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests do I/O
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests are tests

use rootcast::service::{Services, WrittenServices};
use rootcast_agent::services::{Allow, Installed, Installer, ServiceError};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
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

    fn apply(&self, install: &str, tree: &str) -> Result<Installed, ServiceError> {
        let allow = Allow { install: vec![self.path("etc")], ..Allow::default() };
        let installer = Installer::new(self.path("state"), self.path("current"));
        installer.apply(
            &services(&install.replace("ETC", self.path("etc").to_str().unwrap())),
            &self.path(tree),
            &allow,
        )
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
