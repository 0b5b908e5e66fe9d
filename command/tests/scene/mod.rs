//! A platform of real processes on loopback, in a directory of its own.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part of this

use serde_json::Value;
use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything here may take.
pub const DEADLINE: Duration = Duration::from_secs(10);

pub struct Scene {
    home: TempDir,
    /// Lines that every daemon's configuration begins with.
    extra: RefCell<String>,
    /// What every daemon finds in its environment.
    environment: RefCell<Vec<(String, String)>>,
}

/// A relay or agent; killed when dropped.
pub struct Daemon {
    child: Child,
    events: Receiver<Value>,
    /// Its log, where that is JSON.
    log: Receiver<Value>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// Ends it in order, so that its parent hears of it at once.
    pub fn stop(mut self) {
        let stopped = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(stopped.success() && self.child.wait().unwrap().success());
    }

    /// Sends a signal, as `HUP`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Waits for a line of the log with this in its message.
    pub fn wait_for_log(&self, message: &str) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left).unwrap_or_else(|_| panic!("no `{message}` was logged"));
            if line["message"].as_str().is_some_and(|text| text.contains(message)) {
                return line;
            }
        }
    }

    /// Waits for the next event.
    pub fn next(&self) -> Value {
        self.events.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no event came"))
    }

    /// Waits for an event of this name.
    pub fn wait_for(&self, name: &str) -> Value {
        self.wait_within(name, DEADLINE)
    }

    /// As [`Daemon::wait_for`], for what takes its time.
    pub fn wait_within(&self, name: &str, wait: Duration) -> Value {
        let end = Instant::now() + wait;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|_| panic!("no event `{name}` came"));
            if event["event"] == name {
                return event;
            }
        }
    }
}

pub fn rootcast(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rootcast")).args(arguments).output().unwrap()
}

/// Runs a command that must end with this code, and gives its standard output.
pub fn run(code: i32, arguments: &[&str]) -> String {
    let output = rootcast(arguments);
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "rootcast {arguments:?}\n{out}\n{errors}");
    out.into_owned()
}

/// The JSON lines that a command prints.
pub fn json(code: i32, arguments: &[&str]) -> Vec<Value> {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    run(code, &arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of a pipe that are JSON, as they come.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<Value> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if let Ok(value) = serde_json::from_str(&line) {
                let _ = sender.send(value);
            }
        }
    });
    lines
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

impl Scene {
    /// A platform with identities for relays `origin` and `eu`, agent `web-1`
    /// and a publisher, and a copy of the sample repository in `source`.
    pub fn new() -> Self {
        let scene = Self {
            home: tempfile::tempdir().unwrap(),
            extra: RefCell::default(),
            environment: RefCell::default(),
        };
        let platform = scene.path("platform");
        let arguments =
            ["init", &platform, "--address", "localhost:7400", "--grant", "prod", "--unencrypted"];
        run(0, &[&arguments[..], &["--identity", "relay:eu", "--identity", "agent:web-1,role=web"]].concat());
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/sample"), &scene.source());
        scene
    }

    pub fn path(&self, name: &str) -> String {
        self.home.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn source(&self) -> PathBuf {
        self.home.path().join("source")
    }

    pub fn identity(&self, name: &str) -> String {
        self.path(&format!("platform/identities/{name}"))
    }

    /// The one pack of a store.
    pub fn pack(&self, state: &str) -> PathBuf {
        let directory = self.home.path().join(state).join("channels/prod");
        let mut packs: Vec<PathBuf> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().contains("pack"))
            .collect();
        assert_eq!(packs.len(), 1, "{packs:?} in {}", directory.display());
        packs.pop().unwrap()
    }

    fn relay_identity(&self, name: &str) -> String {
        match name {
            "origin" => self.path("platform/origin/identity"),
            name => self.identity(&format!("relay-{name}")),
        }
    }

    fn daemon(&self, kind: &str, config: &str, text: &str) -> Daemon {
        fs::write(self.path(config), format!("{}{text}", self.extra.borrow())).unwrap();
        let environment = self.environment.borrow().clone();
        let mut child = Command::new(env!("CARGO_BIN_EXE_rootcast"))
            .args([kind, &self.path(config), "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .envs(environment)
            .spawn()
            .unwrap();
        let events = lines(child.stdout.take().unwrap());
        let log = lines(child.stderr.take().unwrap());
        Daemon { child, events, log }
    }

    /// Puts lines into the configuration of every daemon from now on.
    pub fn extra(&self, lines: &str) {
        lines.clone_into(&mut self.extra.borrow_mut());
    }

    /// Puts this into the environment of every daemon from now on.
    pub fn environment(&self, variables: &[(&str, &str)]) {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        *self.environment.borrow_mut() = owned.collect();
    }

    /// Starts a relay, and gives it with its address. State in `state-NAME`.
    pub fn relay(&self, name: &str, parents: &[&str]) -> (Daemon, String) {
        let (daemon, address, _) = self.relay_with(name, parents, "");
        (daemon, address)
    }

    /// As [`Scene::relay`], with more settings; also gives the address of its HTTPS.
    pub fn relay_with(&self, name: &str, parents: &[&str], more: &str) -> (Daemon, String, Option<String>) {
        let (daemon, ready) = self.relay_ready(name, parents, more);
        let text = |field: &str| ready[field].as_str().map(str::to_owned);
        (daemon, text("address").unwrap(), text("https"))
    }

    /// As [`Scene::relay_with`], with all that it says when it serves.
    pub fn relay_ready(&self, name: &str, parents: &[&str], more: &str) -> (Daemon, Value) {
        let keys = if parents.is_empty() { "keys = 'platform/origin/keys'\n" } else { "" };
        let text = format!(
            "listen = '127.0.0.1:0'\nidentity = '{}'\nstate = 'state-{name}'\n\
             channels = ['prod']\nparents = {parents:?}\n{keys}{more}",
            self.relay_identity(name)
        );
        let daemon = self.daemon("relay", &format!("{name}.toml"), &text);
        let ready = daemon.wait_for("ready");
        (daemon, ready)
    }

    /// Starts the agent `web-1`. State in `state-web-1`, live in `live`.
    pub fn agent(&self, relay: &str) -> Daemon {
        self.agent_with(relay, "")
    }

    /// As [`Scene::agent`], with more settings.
    pub fn agent_with(&self, relay: &str, more: &str) -> Daemon {
        let text = format!(
            "identity = 'platform/identities/agent-web-1'\nstate = 'state-web-1'\nlive = 'live'\n\
             relays = ['{relay}']\nchannel = 'prod'\n{more}"
        );
        self.daemon("agent", "web-1.toml", &text)
    }

    /// Publishes `source`. State in `state-publisher`.
    pub fn publish(&self, origin: &str) {
        let config = self.path("publish.toml");
        let text = format!(
            "identity = 'platform/publisher'\nkey = 'platform/keys/publisher.key'\n\
             state = 'state-publisher'\norigin = ['{origin}']\n"
        );
        fs::write(&config, text).unwrap();
        run(0, &["publish", self.source().to_str().unwrap(), "--config", &config]);
    }
}
