//! `rootcast dev` with a whole tree of real processes, abused: any process killed, any store deleted
//! (requirements S1.8, S2.5 and S3.4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // tests
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

mod common;

use common::{DEADLINE, Running, signal};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const RELAYS: usize = 6;
const AGENTS: usize = 6;

/// A tree that is published to from a directory.
struct Tree {
    dev: Running,
    source: tempfile::TempDir,
    /// Processes by name, as they were started last.
    processes: BTreeMap<String, (u64, PathBuf)>,
    release: u64,
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Killed, it would leave all of its processes behind.
        self.dev.signal("TERM");
        self.dev.ends_within(DEADLINE);
    }
}

impl Tree {
    fn start() -> Self {
        let source = tempfile::tempdir().unwrap();
        std::fs::write(source.path().join("a.conf"), "release = 1\n").unwrap();
        let (relays, agents) = (RELAYS.to_string(), AGENTS.to_string());
        let path = source.path().to_str().unwrap();
        let dev = Running::start(&["dev", path, "--relays", &relays, "--agents", &agents]);
        let mut tree = Self { dev, source, processes: BTreeMap::new(), release: 1 };
        tree.converged();
        assert_eq!(tree.processes.len(), 1 + RELAYS + AGENTS);
        tree
    }

    /// Waits until all hosts show the newest release, and notes which processes were started until then.
    fn converged(&mut self) {
        loop {
            let event = self.dev.wait_for("event", |_| true);
            match event["event"].as_str().unwrap() {
                "process" => self.note(&event),
                "converged" if event["release"] == self.release => {
                    assert_eq!(event["hosts"], AGENTS);
                    return;
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, event: &Value) {
        let (name, home) = (event["name"].as_str().unwrap(), event["home"].as_str().unwrap());
        self.processes.insert(name.to_owned(), (event["pid"].as_u64().unwrap(), home.into()));
    }

    /// Publishes, and waits until all show it, on their disks.
    fn publish(&mut self) {
        self.release += 1;
        let content = format!("release = {}\n", self.release);
        std::fs::write(self.source.path().join("a.conf"), &content).unwrap();
        self.converged();
        for (name, (_, home)) in &self.processes {
            let live = home.join("live/current/a.conf");
            if live.exists() {
                assert_eq!(std::fs::read_to_string(live).unwrap(), content, "{name}");
            }
        }
    }

    fn kill(&self, name: &str) {
        assert!(signal("KILL", self.processes[name].0), "{name}");
    }

    fn names(&self, of: &str) -> Vec<String> {
        self.processes.keys().filter(|name| name.starts_with(of)).cloned().collect()
    }

    /// The directory in which a relay keeps its bundles.
    fn store(&self, name: &str) -> PathBuf {
        let home: &Path = &self.processes[name].1;
        home.join("state/channels")
    }
}

#[test]
fn s1_8_s2_5_s3_4_a_tree_is_abused_and_every_release_arrives() {
    let mut tree = Tree::start();
    let relays = tree.names("relay-");
    assert_eq!(relays.len(), RELAYS);
    tree.publish();
    // Every relay in turn; its children go on through another.
    for relay in &relays {
        tree.kill(relay);
        tree.publish();
    }
    // Stores of relays that run, and of one that is killed at the same time.
    for relay in relays.iter().take(3) {
        std::fs::remove_dir_all(tree.store(relay)).unwrap();
    }
    tree.kill(&relays[2]);
    tree.publish();
    tree.publish();
    // The origin, with half of the hosts and relays.
    tree.kill("origin");
    let hosts: Vec<String> = tree.names("web-").into_iter().chain(tree.names("db-")).collect();
    assert_eq!(hosts.len(), AGENTS);
    relays.iter().chain(&hosts).step_by(2).for_each(|name| tree.kill(name));
    tree.publish();
}
