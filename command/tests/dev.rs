//! `rootcast dev`: a whole platform of real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // tests
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

mod common;

use common::{Repository, Running, is_running, run, signal};
use serde_json::Value;
use std::path::Path;

/// The value of the only event of this name.
fn only<'e>(events: &'e [Value], name: &str) -> &'e Value {
    let found: Vec<&Value> = events.iter().filter(|event| event["event"] == name).collect();
    assert_eq!(found.len(), 1, "{name} in {events:?}");
    found[0]
}

fn pids(events: &[Value]) -> Vec<u64> {
    let started = events.iter().filter(|event| event["event"] == "process");
    started.map(|event| event["pid"].as_u64().unwrap()).collect()
}

#[test]
fn the_sample_repository_converges_on_every_host() {
    let (events, _) = run(0, &["dev", "--once"]);
    let summary = only(&events, "summary");
    assert_eq!((&summary["roots_equal"], &summary["torn"]), (&true.into(), &0.into()));
    assert_eq!((&summary["hosts"], &summary["releases"]), (&3.into(), &1.into()));
    assert_eq!(only(&events, "converged")["hosts"], 3);
    let pids = pids(&events);
    assert!(pids.len() == 6 && !pids.iter().any(|id| is_running(*id)), "{pids:?}");
}

#[test]
fn one_agent_right_below_the_origin_is_a_platform() {
    let (events, _) = run(0, &["dev", "--once", "--relays", "0", "--agents", "1"]);
    let summary = only(&events, "summary");
    assert_eq!((&summary["roots_equal"], &summary["hosts"]), (&true.into(), &1.into()));
    assert_eq!(pids(&events).len(), 2);
}

#[test]
fn a_host_that_is_late_is_named_and_the_processes_end() {
    let home = tempfile::tempdir().unwrap();
    let repository = Repository::init(&home.path().join("repository"));
    repository.write("a", "1");
    repository.commit("one");
    let path = repository.path.to_str().unwrap();
    let mut dev = Running::start(&["dev", path, "--relays", "0", "--agents", "1", "--timeout", "1"]);
    let host = dev.wait_for("host", |event| event["event"] == "process" && event["role"] == "agent");
    let id = host["pid"].as_u64().unwrap();
    dev.wait_for("first release", |event| event["event"] == "converged");
    assert!(signal("STOP", id));
    repository.write("a", "2");
    repository.commit("two");
    let error = dev.wait_for("error", |event| event["event"] == "error");
    assert!(error["message"].as_str().unwrap().contains("web-1 is at 1"), "{error}");
    assert_eq!(dev.status().code(), Some(6));
    assert!(!is_running(id), "a paused process is left behind");
}

/// Starts `dev`, lets a test change the source, and ends it with a signal.
fn follow(source: &Path, changes: &[&dyn Fn()], end: &str) {
    let mut dev = Running::start(&["dev", source.to_str().unwrap(), "--relays", "1", "--agents", "1"]);
    let started: Vec<Value> =
        (0..3).map(|_| dev.wait_for("process", |event| event["event"] == "process")).collect();
    let directory = Path::new(started[0]["home"].as_str().unwrap()).parent().unwrap().to_owned();
    let live = Path::new(started[2]["home"].as_str().unwrap()).join("live/current");
    let converged =
        |number: usize| move |event: &Value| event["event"] == "converged" && event["release"] == number;
    dev.wait_for("release 1", converged(1));
    assert_eq!(common::files(&live), common::files(source));
    for (number, change) in (2..).zip(changes) {
        change();
        dev.wait_for("next release", converged(number));
        assert_eq!(common::files(&live), common::files(source));
    }
    assert!(directory.is_dir());
    dev.signal(end);
    assert_eq!(dev.status().code(), Some(0));
    let left: Vec<u64> = pids(&started).into_iter().filter(|id| is_running(*id)).collect();
    assert!(left.is_empty(), "processes {left:?} are left behind");
    assert!(!directory.exists(), "{} is left behind", directory.display());
}

#[test]
fn a_directory_is_followed_until_sigint() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| std::fs::write(home.path().join(name), content).unwrap();
    write("a.conf", "a = 1\n");
    write("b.conf", "b = 1\n");
    follow(home.path(), &[&|| write("a.conf", "a = 22\n")], "INT");
}

#[test]
fn new_commits_are_followed_until_sigterm() {
    let home = tempfile::tempdir().unwrap();
    let repository = Repository::init(home.path());
    repository.write("a.conf", "a = 1\n");
    repository.write("old/b.conf", "b = 1\n");
    repository.commit("one");
    let change = || {
        repository.write("a.conf", "a = 2\n");
        repository.git(&["mv", "old", "new"]);
        repository.commit("two");
    };
    let empty = || drop(repository.commit("nothing"));
    follow(home.path(), &[&change, &empty], "TERM");
}

#[test]
fn a_mistake_in_the_settings_is_pointed_at() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("rootcast.toml"), "channel = 'main'\n\nlayrs = ['base']\n").unwrap();
    let (events, errors) = run(4, &["dev", home.path().to_str().unwrap(), "--once"]);
    let message = only(&events, "error")["message"].as_str().unwrap();
    assert!(message.contains("rootcast.toml:3:1") && message.contains("did you mean `layers`"), "{message}");
    assert!(errors.contains("rootcast.toml:3:1"), "{errors}");
}
