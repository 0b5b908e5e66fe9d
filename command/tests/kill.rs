//! Threat 25: `kill -9` of any process at any time. What is live is the old
//! release or the new one, whole; nothing goes back; everything converges.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // tests
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

mod common;

use common::{Deployment, Random, Repository, Running, run, signal};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

const COMMITS: usize = 25;
/// Who is killed in one run, and how often: no more than `dev` restarts a
/// process that keeps ending soon after its start.
const KILLS: [(&str, usize); 6] =
    [("origin", 2), ("relay-1", 2), ("relay-2", 2), ("web-1", 4), ("web-2", 3), ("db-1", 3)];
/// Longest silence of a run: peers of a killed process must find out by its silence.
const SILENCE: Duration = Duration::from_secs(120);

const LAYERS: &str = "layers = ['base', 'region/{region}', 'role/{role}', 'host/{host}']\n";

/// A history in which files come, go, move, change, and change their mode, from a seed.
fn history(path: &Path, seed: u64, directories: &[&str], settings: Option<&str>) -> Repository {
    let mut random = Random(seed);
    let repository = Repository::init(path);
    if let Some(settings) = settings {
        repository.write("rootcast.toml", settings);
    }
    let mut files: Vec<String> = Vec::new();
    let content = |name: &str, random: &mut Random| {
        let lines = 1 + random.below(40);
        (0..lines).map(|line| format!("{name} {line} = {}\n", random.below(1 << 30))).collect::<String>()
    };
    for number in 0..120 {
        // Some names are there in several layers, so that one hides the other.
        let name = format!("{}/app/part-{}.conf", random.pick(directories), number % 90);
        repository.write(&name, &content(&name, &mut random));
        files.push(name);
    }
    files.sort();
    files.dedup();
    let link = format!("{}/app/current", directories[0]);
    for commit in 0..COMMITS {
        for _ in 0..1 + random.below(5) {
            let name = random.pick(&files).clone();
            repository.write(&name, &content(&name, &mut random));
        }
        if commit % 3 == 1 {
            let name = format!("{}/new/{commit}.conf", random.pick(directories));
            repository.write(&name, &content(&name, &mut random));
            files.push(name);
            let gone = files.remove(random.below(files.len()));
            std::fs::remove_file(repository.path.join(gone)).unwrap();
        }
        if commit % 4 == 2 {
            let at = random.below(files.len());
            let to = format!("{}/moved/{commit}.conf", random.pick(directories));
            repository.write(&to, "");
            std::fs::rename(repository.path.join(&files[at]), repository.path.join(&to)).unwrap();
            files[at] = to;
        }
        if commit % 5 == 3 {
            let path = repository.path.join(random.pick(&files));
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() ^ 0o111;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        if commit % 6 == 0 {
            let path = repository.path.join(&link);
            let _ = std::fs::remove_file(&path);
            symlink(format!("part-{commit}.conf"), path).unwrap();
        }
        repository.commit(&format!("commit {commit}"));
    }
    repository
}

/// What a run of `dev` has shown so far, and what must hold of it.
#[derive(Default)]
struct Shown {
    pids: BTreeMap<String, u64>,
    active: BTreeMap<String, u64>,
    restarts: usize,
    checked_whole: usize,
    releases: Vec<String>,
    summary: Option<Value>,
    killed: Vec<String>,
}

impl Shown {
    fn take(&mut self, event: &Value) {
        match event["event"].as_str().unwrap() {
            "process" => {
                let name = event["name"].as_str().unwrap().to_owned();
                assert_ne!(event["current_whole"], false, "torn: {event}; killed {:?}", self.killed);
                self.checked_whole += usize::from(event["current_whole"] == true);
                self.restarts += usize::from(event["restarts"] != 0);
                self.pids.insert(name, event["pid"].as_u64().unwrap());
            }
            "active" => {
                let (host, now) = (event["host"].as_str().unwrap(), event["release"].as_u64().unwrap());
                let before = self.active.insert(host.to_owned(), now).unwrap_or(0);
                assert!(now >= before, "{host} went back from {before}: {event}; killed {:?}", self.killed);
            }
            "release" => self.releases.push(event["commit"].as_str().unwrap().to_owned()),
            "summary" => self.summary = Some(event.clone()),
            "error" => panic!("{event}; killed {:?}", self.killed),
            _ => {}
        }
    }
}

/// Replays a history on a tree of processes and kills them as it goes.
fn storm(seed: u64, directories: &[&str], settings: Option<&str>) {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("repository");
    let repository = history(&source, seed, directories, settings);
    let commits = commits(&repository);
    let directory = home.path().join("dev");
    let (source, directory) = (source.to_str().unwrap(), directory.to_str().unwrap());
    let tree = ["--replay", "24", "--relays", "2", "--agents", "3", "--timeout", "300"];
    let arguments = [&["dev", source, "--once", "--dir", directory], &tree[..]].concat();
    let mut dev = Running::start(&arguments);
    let mut random = Random(seed);
    let mut shown = Shown::default();
    let mut victims: Vec<&str> = KILLS.iter().flat_map(|(name, times)| vec![*name; *times]).collect();
    for at in (1..victims.len()).rev() {
        victims.swap(at, random.below(at + 1));
    }
    let kills = victims.len();
    // Events until the next kill. Not before the tree stands.
    let mut left = 8;
    while let Some(event) = dev.next(SILENCE) {
        shown.take(&event);
        left -= 1;
        // Some kills hit right after a release has converged and the next begins, the others anywhere.
        let between = event["event"] == "release" && random.below(4) == 0;
        let (true, Some(name)) = (left <= 0 || between, victims.last()) else { continue };
        // One that is being started again is killed at the next event.
        let Some(id) = shown.pids.remove(*name) else { continue };
        assert!(signal("KILL", id), "{name} was not there");
        shown.killed.extend(victims.pop().map(str::to_owned));
        left = 1 + random.below(5) as i32;
    }
    let killed = &shown.killed;
    assert_eq!(dev.status().code(), Some(0), "killed {killed:?}");
    assert_eq!((killed.len(), shown.restarts), (kills, kills), "killed {killed:?}");
    assert!(shown.checked_whole > 0, "no host was killed while a release was live");
    let summary = shown.summary.expect("a summary");
    assert_eq!(
        (&summary["roots_equal"], &summary["torn"]),
        (&true.into(), &0.into()),
        "{summary}; killed {killed:?}"
    );
    assert_eq!(shown.releases, commits, "killed {killed:?}");
    assert!(
        shown.active.len() == 3 && shown.active.values().all(|at| *at >= COMMITS as u64),
        "{:?}",
        shown.active
    );
    let log = releases(&format!("{directory}/origin/config.toml"));
    check_log(&log, &commits);
}

#[test]
fn threat_25_kill_minus_9_of_any_process_at_any_time() {
    storm(25, &["app", "nginx/conf.d", "etc/deep/er"], None);
}

#[test]
fn threat_25_kill_minus_9_of_any_process_at_any_time_with_layers() {
    let directories = [
        "base",
        "region/eu",
        "region/us",
        "role/web",
        "role/db",
        "host/web-1",
        "host/db-1",
        "host/elsewhere",
    ];
    storm(1825, &directories, Some(&format!("channel = 'prod/eu'\n{LAYERS}")));
}

/// The releases that the origin's store holds.
fn releases(config: &str) -> Vec<Value> {
    let (lines, _) = run(0, &["inspect", config]);
    lines[0]["channels"][0]["releases"].as_array().cloned().unwrap_or_default()
}

/// All commits of a history, the first one first.
fn commits(repository: &Repository) -> Vec<String> {
    repository.git(&["rev-list", "--reverse", "HEAD"]).lines().map(str::to_owned).collect()
}

/// Consecutive numbers, each release signed; and every commit, in order and
/// once: a publisher that did not hear the answer finds out.
fn check_log(log: &[Value], commits: &[String]) {
    let numbers: Vec<u64> = log.iter().map(|release| release["release"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=log.len() as u64).collect::<Vec<_>>());
    assert!(log.iter().all(|release| release["signatures"] == "verified"), "{log:?}");
    let published: Vec<&str> = log.iter().map(|release| release["commit"].as_str().unwrap()).collect();
    assert_eq!(published, commits);
}

/// A channel and its publisher, which is killed, or whose origin is.
struct Channel {
    deployment: Deployment,
    repository: Repository,
    commits: Vec<String>,
    random: Random,
    /// What publishing took at last.
    took: Duration,
}

impl Channel {
    fn new(seed: u64) -> Self {
        let deployment = Deployment::new("main");
        let repository = history(&deployment.home.path().join("repository"), seed, &["app", "nginx"], None);
        let commits = commits(&repository)[..10].to_vec();
        Self { deployment, repository, commits, random: Random(seed), took: Duration::from_millis(100) }
    }

    fn arguments<'a>(&'a self, config: &'a str, commit: &'a str) -> [&'a str; 6] {
        ["publish", self.repository.path.to_str().unwrap(), "--config", config, "--revision", commit]
    }

    /// Publishes undisturbed, which must succeed.
    fn publish(&mut self, config: &str, commit: &str) -> u64 {
        let begun = Instant::now();
        let answer = run(0, &self.arguments(config, commit)).0.pop().unwrap();
        self.took = begun.elapsed();
        assert_eq!(answer["commit"], commit);
        answer["release"].as_u64().unwrap()
    }

    /// Some moment of a publication, or shortly after it.
    fn moment(&mut self) -> Duration {
        self.took.mul_f64(self.random.below(120) as f64 / 100.0)
    }

    fn log(&self) -> Vec<Value> {
        releases(&self.deployment.path("origin.toml"))
    }
}

#[test]
fn threat_25_a_publisher_is_killed_and_publishes_again() {
    let mut channel = Channel::new(7);
    let (_origin, address) = channel.deployment.relay("origin", "127.0.0.1:0", &[]);
    let config = channel.deployment.publisher("publisher", &address);
    let commits = channel.commits.clone();
    let mut last = 0;
    for commit in &commits {
        for _ in 0..3 {
            let moment = channel.moment();
            let publisher = Running::start(&channel.arguments(&config, commit));
            publisher.ends_within(moment);
            publisher.kill();
        }
        let number = channel.publish(&config, commit);
        assert!(number > last, "{number} after {last}");
        last = number;
    }
    let log = channel.log();
    check_log(&log, &commits);
    assert_eq!(log.len() as u64, last);
    let agent = channel.deployment.agent(&address);
    agent.wait_for("newest release", |event| event["event"] == "active" && event["release"] == last);
    channel.repository.git(&["checkout", "-q", commits.last().unwrap()]);
    let live = channel.deployment.home.path().join("live/current");
    assert_eq!(common::files(&live), common::files(&channel.repository.path));
}

#[test]
fn threat_25_the_origin_is_killed_while_it_is_published_to() {
    let mut channel = Channel::new(8);
    let (mut origin, address) = channel.deployment.relay("origin", "127.0.0.1:0", &[]);
    let config = channel.deployment.publisher("publisher", &address);
    let commits = channel.commits.clone();
    let mut acknowledged: Vec<&String> = Vec::new();
    for commit in &commits {
        let moment = channel.moment();
        let mut publisher = Running::start(&channel.arguments(&config, commit));
        publisher.ends_within(moment);
        origin.kill();
        if publisher.ends_within(Duration::from_millis(20)) && publisher.status().success() {
            acknowledged.push(commit);
        }
        publisher.kill();
        origin = channel.deployment.relay("origin", &address, &[]).0;
        // What was acknowledged is durable; anything else may be or not.
        let log = channel.log();
        let held = |commit: &&&String| log.iter().any(|release| release["commit"] == commit.as_str());
        let lost: Vec<_> = acknowledged.iter().filter(|commit| !held(commit)).collect();
        assert!(lost.is_empty(), "{lost:?} were acknowledged and are lost; held are {log:?}");
        channel.publish(&config, commit);
        acknowledged.push(commit);
    }
    drop(origin);
    check_log(&channel.log(), &commits);
}
