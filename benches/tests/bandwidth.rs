//! The whole harness, through its binary, on a small history made here.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // a test does I/O
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Commits of the history.
const COMMITS: usize = 6;
/// The commit, from 0, whose tree has what no host may be given, where a test wants one.
const UNPUBLISHABLE: usize = 3;

fn git(repository: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .arg("-C")
        .arg(repository)
        .args(["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgSign=false"])
        .args(arguments)
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn settings(commit: usize, file: usize) -> String {
    let line = |key: usize| {
        let value = if key == commit * 7 { key * 31 + commit } else { key * key % 97 };
        format!("service_{file}.limit_{key} = {value}\n")
    };
    (0..120).map(line).collect()
}

/// A history of small changes; one link out of the tree where `with_bad` says so.
fn history(repository: &Path, commits: usize, with_bad: bool) {
    fs::create_dir_all(repository.join("hosts")).unwrap();
    git(repository, &["init", "--quiet"]);
    for commit in 0..commits {
        for file in 0..4 {
            let name = repository.join(format!("hosts/{file}.conf"));
            fs::write(name, settings(if file == commit % 4 { commit } else { 0 }, file)).unwrap();
        }
        let bad = repository.join("bad");
        let _ = fs::remove_file(&bad);
        if with_bad && commit == UNPUBLISHABLE {
            std::os::unix::fs::symlink("/etc/passwd", &bad).unwrap();
        }
        fs::write(repository.join("number"), commit.to_string()).unwrap();
        git(repository, &["add", "--all"]);
        git(repository, &["commit", "--quiet", "-m", "a change"]);
    }
}

fn bandwidth(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rootcast-benches")).arg("bandwidth").args(arguments).output().unwrap()
}

fn measured(repository: &Path, directory: &Path, more: &[&str]) -> (Value, String, String) {
    let (json, plot) = (directory.join("figures.json"), directory.join("figures.svg"));
    let mut arguments = vec!["--repo", repository.to_str().unwrap(), "--peers", ""];
    arguments.extend(["--json", json.to_str().unwrap(), "--plot", plot.to_str().unwrap()]);
    arguments.extend(more);
    let output = bandwidth(&arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert_eq!(error, "", "no progress where there is no terminal");
    let figures = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    (figures, String::from_utf8(output.stdout).unwrap(), fs::read_to_string(plot).unwrap())
}

fn positive(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value[key].as_f64().is_some_and(|number| number > 0.0), "{key} of {value:#}");
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn samples<'j>(json: &'j Value, mode: &str) -> &'j Vec<Value> {
    json["modes"][mode]["samples"].as_array().unwrap_or_else(|| panic!("{mode}: {json:#}"))
}

/// What must be true of a host's sample in any mode.
fn check_sample(mode: &str, sample: &Value) {
    let ours = &sample["rootcast"];
    positive(ours, &["edit_bytes", "down", "up", "origin_cpu_us", "client_cpu_us", "wall_us"]);
    let (edit, update, down) = (&ours["edit_bytes"], &ours["update_bytes"], &ours["down"]);
    assert!(number(edit) + 64 < number(update), "{mode}: an edit without a signature: {ours:#}");
    assert!(number(update) <= number(down), "{mode}: {ours:#}");
    for way in ["down", "up"] {
        let udp = &ours["udp"][way];
        positive(udp, &["bytes", "datagrams"]);
        let handshake = number(&udp["handshake_bytes"]);
        assert_eq!(handshake > 0, mode != "step", "{mode}: {ours:#}");
        assert!(number(&udp["bytes"]) - handshake > number(&ours[way]), "{mode}: less than its streams");
    }
    match mode {
        "step" => assert_eq!(number(update), number(down), "a step is pushed, and nothing else comes down"),
        _ => positive(ours, &["connected_us", "first_byte_us"]),
    }
    if mode != "cold" {
        let floor = &sample["floor"];
        positive(floor, &["bytes", "signed"]);
        assert!(number(&floor["bytes"]) <= number(edit), "{mode}: {sample:#}");
        assert!(number(&floor["signed"]) < number(down), "{mode}: {sample:#}");
        positive(ours, &["publisher_cpu_us", "publish_us"]);
    }
}

#[test]
fn every_mode_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("repository");
    history(&repository, COMMITS, false);
    let more = ["--mode", "all", "--steps", "2", "--jump", "3", "--relays", "1", "--agents", "2"];
    let (json, table, plot) = measured(&repository, directory.path(), &more);
    for (mode, title) in [("step", "step: one"), ("jump", "jump: a stopped"), ("cold", "cold: an empty")] {
        assert_eq!(samples(&json, mode).len(), 2);
        samples(&json, mode).iter().for_each(|sample| check_sample(mode, sample));
        for text in [&table, &plot] {
            assert!(text.contains(title), "{mode}: {text}");
        }
    }
    assert_eq!(samples(&json, "jump")[1]["commits"], 3);
    assert_eq!(samples(&json, "step")[1]["to"], json["head"]);
    let trips = |mode: &str| json["modes"][mode]["round_trips_measured"].as_f64().unwrap();
    assert!(trips("step") < trips("jump"), "a push waits for nothing, a handshake does: {json:#}");
    let down = |sample: &Value| number(&sample["rootcast"]["down"]);
    assert!(down(&samples(&json, "step")[1]) < down(&samples(&json, "cold")[1]), "{json:#}");

    assert_eq!(samples(&json, "fanout").len(), 2);
    for sample in samples(&json, "fanout") {
        let ours = &sample["rootcast"];
        let links = ours["links"].as_array().unwrap();
        assert_eq!(links.len(), 3, "one relay and two hosts");
        links.iter().for_each(|link| positive(link, &["down", "up"]));
        positive(ours, &["publisher_cpu_us", "origin_cpu_us", "relay_cpu_us", "host_cpu_us"]);
        for delays in ["from_publish_us", "from_durable_us"] {
            assert_eq!(ours[delays].as_array().unwrap().len(), 2);
        }
        // The same update passes on every link.
        assert!(links.iter().all(|link| link["down"] == links[0]["down"]), "{ours:#}");
    }
    assert!(table.contains("| relay → host, each |") && plot.contains(">fanout: 1 relays"), "{table}");
}

#[test]
fn a_root_commit_alone_is_cold_only() {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("repository");
    history(&repository, 1, false);
    let (json, table, _) = measured(&repository, directory.path(), &["--mode", "all"]);
    assert_eq!(samples(&json, "cold").len(), 1);
    check_sample("cold", &samples(&json, "cold")[0]);
    assert!(json["modes"]["step"].is_null() && json["modes"]["fanout"].is_null());
    assert!(table.contains("- step: the history is its first commit alone"), "{table}");
}

#[test]
fn a_commit_that_cannot_be_published_is_left_out_and_said() {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("repository");
    history(&repository, COMMITS, true);
    // Bare, and with fewer commits than asked for.
    let bare = directory.path().join("bare.git");
    git(&repository, &["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    let (json, table, _) = measured(&bare, directory.path(), &["--mode", "step", "--steps", "40"]);
    let all = samples(&json, "step");
    assert_eq!(all.len(), COMMITS - 1);
    let failed: Vec<usize> = (0..all.len()).filter(|at| all[*at]["rootcast"]["failed"].is_string()).collect();
    assert_eq!(failed, [UNPUBLISHABLE - 1, UNPUBLISHABLE], "to it, and from it");
    assert!(table.contains("the history has 6 commits along first parents, so there are 5"), "{table}");
    assert!(table.contains("2 of 5 samples are left out") && table.contains("| Rootcast: edit (3 of 5) |"));
}

#[test]
fn wrong_usage_ends_with_2_and_failure_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let code = |arguments: &[&str], message: &str| {
        let output = bandwidth(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(message), "{error}");
        output.status.code()
    };
    assert_eq!(code(&["--repo", path, "--peers", "git,svn"], "no peer `svn`"), Some(2));
    assert_eq!(code(&["--repo", path, "--steps", "0"], "0 is not in 1..=10000"), Some(2));
    assert_eq!(code(&["--repo", path], "root of no git repository"), Some(2));
    assert_eq!(code(&["--repo", &format!("{path}/absent")], "No such file"), Some(1));
    git(directory.path(), &["init", "--quiet"]);
    assert_eq!(code(&["--repo", path], "no commit yet"), Some(1));
}
