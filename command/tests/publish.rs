//! A platform set up by hand, and what `rootcast publish` says and does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // tests
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

mod common;

use common::{Deployment, Repository, Running, run};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The origin, a relay below it, an agent below that, and a publisher's configuration.
struct Platform {
    deployment: Deployment,
    origin: Running,
    _eu: Running,
    agent: Running,
    address: String,
    config: String,
}

impl Platform {
    fn start() -> Self {
        let deployment = Deployment::new("main");
        let (origin, address) = deployment.relay("origin", "127.0.0.1:0", &[]);
        let (eu, below) = deployment.relay("eu", "127.0.0.1:0", &[&address]);
        let agent = deployment.agent(&below);
        let config = deployment.publisher("publisher", &address);
        Self { deployment, origin, _eu: eu, agent, address, config }
    }

    fn repository(&self, name: &str) -> Repository {
        Repository::init(&self.deployment.home.path().join(name))
    }

    fn publish(&self, repository: &Repository) -> Value {
        run(0, &["publish", repository.path.to_str().unwrap(), "--config", &self.config]).0.pop().unwrap()
    }

    /// Publishes, waits for the agent, and compares what is live with the repository.
    fn delivers(&self, repository: &Repository) -> Value {
        let published = self.publish(repository);
        let number = &published["release"];
        self.agent
            .wait_for("active release", |event| event["event"] == "active" && event["release"] == *number);
        let live = self.deployment.home.path().join("live/current");
        assert_eq!(common::files(&live), common::files(&repository.path), "release {number}");
        published
    }

    /// Numbers and commits of the releases that the origin's store holds.
    fn log(&self) -> Vec<(u64, String)> {
        let (lines, _) = run(0, &["inspect", &self.deployment.path("origin.toml")]);
        let releases = lines[0]["channels"][0]["releases"].as_array().unwrap();
        let row = |release: &Value| {
            assert_eq!(release["signatures"], "verified");
            (release["release"].as_u64().unwrap(), release["commit"].as_str().unwrap().to_owned())
        };
        releases.iter().map(row).collect()
    }
}

#[test]
fn every_kind_of_commit_arrives_at_a_hand_made_deployment() {
    let platform = Platform::start();
    let repository = platform.repository("repository");
    for number in 0..60 {
        repository.write(&format!("etc/part-{number}.conf"), &format!("value = {number}\n"));
    }
    repository.write("bin/check", "#!/bin/sh\n");
    fs::set_permissions(repository.path.join("bin/check"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("part-1.conf", repository.path.join("etc/link")).unwrap();
    let first = repository.commit("first");
    let published = platform.delivers(&repository);
    assert_eq!((&published["release"], &published["commit"]), (&1.into(), &first.as_str().into()));
    assert_eq!(published["files_changed"], 62);

    let empty = repository.commit("nothing");
    let published = platform.delivers(&repository);
    let row = ["release", "files_changed", "edit_bytes"].map(|key| published[key].as_u64().unwrap());
    assert_eq!((row, &published["commit"]), ([2, 0, 0], &empty.as_str().into()));

    repository.git(&["mv", "etc", "moved"]);
    let renamed = repository.commit("a mass rename");
    let published = platform.delivers(&repository);
    assert_eq!((&published["release"], &published["files_changed"]), (&3.into(), &122.into()));

    repository.git(&["rm", "-q", "-r", "."]);
    let nothing = repository.commit("nothing is left");
    let arguments = ["publish", repository.path.to_str().unwrap(), "--config", &platform.config];
    let (events, _) = run(4, &arguments);
    assert!(events[0]["message"].as_str().unwrap().contains("remove all 62 files"), "{events:?}");
    run(0, &[&arguments[..], &["--allow-empty"]].concat());
    platform.delivers(&repository);
    assert!(common::files(&repository.path).is_empty());

    repository.write("back", "again\n");
    let back = repository.commit("something again");
    platform.delivers(&repository);
    let expected: Vec<(u64, String)> = (1..).zip([first, empty, renamed, nothing, back]).collect();
    assert_eq!(platform.log(), expected);
}

#[test]
fn publishers_that_race_both_publish() {
    let platform = Platform::start();
    let ours = platform.repository("ours");
    let theirs = platform.repository("theirs");
    let second = platform.deployment.publisher("second", &platform.address);
    let mut numbers = Vec::new();
    let mut commits = Vec::new();
    for round in 0..4 {
        let started = [(&ours, &platform.config), (&theirs, &second)].map(|(repository, config)| {
            repository.write("who", &format!("{} {round}\n", repository.path.display()));
            commits.push(repository.commit("round"));
            Running::start(&["publish", repository.path.to_str().unwrap(), "--config", config])
        });
        for mut publisher in started {
            let answer = publisher.wait_for("answer", |answer| answer["published"] == true);
            assert_eq!(publisher.status().code(), Some(0));
            numbers.push(answer["release"].as_u64().unwrap());
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
    let (logged, mut published): (Vec<u64>, Vec<String>) = platform.log().into_iter().unzip();
    published.sort();
    commits.sort();
    assert_eq!((logged, published), (numbers, commits));
    platform.agent.wait_for("newest release", |event| event["event"] == "active" && event["release"] == 8);
    let live = fs::read_to_string(platform.deployment.home.path().join("live/current/who")).unwrap();
    assert!(live.ends_with(" 3\n"), "{live}");
}

#[test]
fn a_source_that_cannot_be_published_is_named_and_changes_nothing() {
    let platform = Platform::start();
    let repository = platform.repository("repository");
    repository.write("a", "1\n");
    repository.commit("one");
    platform.delivers(&repository);
    let object = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{object},vendor/library")]);
    repository.git(&["commit", "-q", "-m", "a submodule"]);
    let path = repository.path.to_str().unwrap();
    let (events, _) = run(4, &["publish", path, "--config", &platform.config]);
    let message = events[0]["message"].as_str().unwrap();
    assert!(message.contains("vendor/library") && message.contains("submodule"), "{message}");
    assert_eq!(platform.log().len(), 1);
    repository.git(&["rm", "-q", "--cached", "vendor/library"]);
    repository.write("a", "2\n");
    repository.commit("corrected");
    assert_eq!(platform.delivers(&repository)["release"], 2);
}

#[test]
fn an_origin_that_is_down_is_told_and_the_next_try_publishes() {
    let mut platform = Platform::start();
    let repository = platform.repository("repository");
    repository.write("a", "1\n");
    repository.commit("one");
    platform.origin.signal("TERM");
    assert!(platform.origin.status().success());
    let (events, _) = run(7, &["publish", repository.path.to_str().unwrap(), "--config", &platform.config]);
    assert!(events[0]["next"].as_str().unwrap().contains("rootcast relay"), "{events:?}");
    platform.origin = platform.deployment.relay("origin", &platform.address, &[]).0;
    assert_eq!(platform.delivers(&repository)["release"], 1);
}
