//! Real repositories, made with git, and real processes of the binary.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part of this

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long a single step may take: far more than it does, also on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A generator of numbers that are the same in every run (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// A git repository with a working directory.
pub struct Repository {
    pub path: PathBuf,
}

impl Repository {
    pub fn init(path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        let repository = Self { path: path.to_owned() };
        repository.git(&["init", "-q", "-b", "main"]);
        repository
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(&self.path)
            // The same commits on every machine, whatever its settings.
            .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
            .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@example.org")])
            .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@example.org")])
            .envs([("GIT_AUTHOR_DATE", "1700000000 +0000"), ("GIT_COMMITTER_DATE", "1700000000 +0000")])
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.path.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Commits everything, also nothing, and gives the commit.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// A started command whose standard output is JSON lines; killed when dropped.
pub struct Running {
    child: Child,
    events: Receiver<Value>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_logged(arguments, Stdio::null())
    }

    /// With its log, which is its standard error.
    pub fn start_logged(arguments: &[&str], log: impl Into<Stdio>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rootcast"))
            .args(arguments)
            .arg("--json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || {
            // A line cut off by a kill is no event.
            for event in lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()) {
                let _ = sender.send(event);
            }
        });
        Self { child, events }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next event; `None` after the last.
    pub fn next(&self, within: Duration) -> Option<Value> {
        match self.events.recv_timeout(within) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no event within {within:?}"),
        }
    }

    /// Whether it ends within this time.
    pub fn ends_within(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(error) => return error == RecvTimeoutError::Disconnected,
            }
        }
    }

    /// Waits for an event that this says is the one, and gives it.
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) if is_it(&event) => return event,
                Ok(_) => {}
                Err(error) => panic!("no {what}: {error}"),
            }
        }
    }

    pub fn signal(&self, signal: &str) {
        self::signal(signal, u64::from(self.id()));
    }

    /// Waits for the end.
    pub fn status(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Sends a signal; false where the process is no more.
pub fn signal(signal: &str, id: u64) -> bool {
    let sent =
        Command::new("kill").args([&format!("-{signal}"), &id.to_string()]).stderr(Stdio::null()).status();
    sent.unwrap().success()
}

/// Whether there is a process of this id that is not only waited for.
pub fn is_running(id: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

pub fn rootcast(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rootcast")).args(arguments).output().unwrap()
}

/// Runs a command that must end with this code; its JSON lines, and its standard error.
pub fn run(code: i32, arguments: &[&str]) -> (Vec<Value>, String) {
    let output = rootcast(&[arguments, &["--json"]].concat());
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "rootcast {arguments:?}\n{out}\n{errors}");
    (out.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), errors.into_owned())
}

/// Every file below a directory: its bytes, a link's target, and whether it can be run.
pub fn files(root: &Path) -> BTreeMap<String, (Vec<u8>, bool)> {
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::PermissionsExt;
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for path in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            let data = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if data.is_dir() && name != ".git" {
                left.push(path);
            } else if data.is_symlink() {
                found.insert(name, (fs::read_link(&path).unwrap().into_os_string().into_vec(), false));
            } else if data.is_file() {
                let executable = data.permissions().mode() & 0o100 != 0;
                found.insert(name, (fs::read(&path).unwrap(), executable));
            }
        }
    }
    found
}

/// Where `init` puts the identity of a relay.
pub fn relay_identity(name: &str) -> String {
    match name {
        "origin" => "platform/origin/identity".into(),
        name => format!("platform/identities/relay-{name}"),
    }
}

/// A platform set up by hand, as a user would: identities and configuration files.
pub struct Deployment {
    pub home: tempfile::TempDir,
    channel: String,
}

impl Deployment {
    /// With identities for relays `origin` and `eu`, agent `web-1` and a publisher.
    pub fn new(channel: &str) -> Self {
        Self::with(channel, &[]).0
    }

    /// With these identities more; and what `init` said.
    pub fn with(channel: &str, more: &[&str]) -> (Self, Value) {
        let made = Self { home: tempfile::tempdir().unwrap(), channel: channel.to_owned() };
        let platform = made.path("platform");
        let identities = [&["relay:eu", "agent:web-1,region=eu,role=web"], more]
            .concat()
            .into_iter()
            .flat_map(|name| ["--identity", name]);
        let init = ["init", &platform, "--address", "localhost:7400", "--grant", channel, "--unencrypted"];
        let (told, _) = run(0, &init.into_iter().chain(identities).collect::<Vec<_>>());
        let said = told[0].clone();
        (made, said)
    }

    pub fn path(&self, name: &str) -> String {
        self.home.path().join(name).to_str().unwrap().to_owned()
    }

    fn configuration(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Starts a relay, and gives it with the address that it serves at.
    pub fn relay(&self, name: &str, listen: &str, parents: &[&str]) -> (Running, String) {
        let mut text = format!(
            "listen = '{listen}'\nidentity = '{}'\nstate = 'state-{name}'\n\
             channels = ['{}']\nparents = {parents:?}\n",
            relay_identity(name),
            self.channel
        );
        if parents.is_empty() {
            text.push_str("keys = 'platform/origin/keys'\n");
        }
        let relay = Running::start(&["relay", &self.configuration(&format!("{name}.toml"), &text)]);
        let ready = relay.wait_for("serving relay", |event| event["event"] == "ready");
        (relay, ready["address"].as_str().unwrap().to_owned())
    }

    /// Starts the agent `web-1`; its files are below `live/current`.
    pub fn agent(&self, relay: &str) -> Running {
        let text = format!(
            "identity = 'platform/identities/agent-web-1'\nstate = 'state-web-1'\nlive = 'live'\n\
             relays = ['{relay}']\nchannel = '{}'\n",
            self.channel
        );
        Running::start(&["agent", &self.configuration("web-1.toml", &text)])
    }

    /// Writes the configuration of a publisher whose state has this name.
    pub fn publisher(&self, state: &str, origin: &str) -> String {
        let text = format!(
            "identity = 'platform/publisher'\nkey = 'platform/keys/publisher.key'\n\
             state = '{state}'\norigin = ['{origin}']\n"
        );
        self.configuration(&format!("{state}.toml"), &text)
    }
}
