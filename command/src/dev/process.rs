//! One member of the platform as a process of this binary, kept running.

use crate::failure::{Exit, Failure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// What comes from a process.
pub(super) enum News {
    /// A line of its standard output.
    Event(Value),
    /// It ended.
    Ended,
}

/// A member, and how to start it.
pub(super) struct Process {
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) home: PathBuf,
    child: Option<Child>,
    started: Instant,
    /// Ends in a row, each soon after the start.
    early_ends: u32,
}

/// A process that ends sooner than this after its start counts as failing to start.
const SOON: Duration = Duration::from_secs(2);
/// Failing starts in a row before we give up.
const MOST_EARLY_ENDS: u32 = 5;
/// How long a process may take to end by itself.
const END_WAIT: Duration = Duration::from_secs(10);

impl Process {
    pub(super) fn new(name: &str, role: &'static str, home: PathBuf) -> Self {
        Self { name: name.to_owned(), role, home, child: None, started: Instant::now(), early_ends: 0 }
    }

    pub(super) fn config(&self) -> PathBuf {
        self.home.join("config.toml")
    }

    /// Its log.
    pub(super) fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// Starts it; its news go to `news`. Returns its process id.
    pub(super) fn start(&mut self, news: &mpsc::Sender<(String, News)>) -> Result<u32, Failure> {
        let failed = |path: &Path, error: &std::io::Error| Failure::io(path, error);
        let binary = std::env::current_exe().map_err(|error| failed(Path::new("/proc/self/exe"), &error))?;
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.map_err(|error| failed(&self.log(), &error))?;
        let mut child = Command::new(&binary)
            .arg("--json")
            .arg(self.role)
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&binary, &error))?;
        let id = child.id().unwrap_or(0);
        if let Some(stdout) = child.stdout.take() {
            let (name, news) = (self.name.clone(), news.clone());
            tokio::spawn(async move {
                let mut lines = BufReader::new(stdout).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if let Ok(event) = serde_json::from_str(&line)
                        && news.send((name.clone(), News::Event(event))).await.is_err()
                    {
                        return;
                    }
                }
                let _ = news.send((name, News::Ended)).await;
            });
        }
        self.child = Some(child);
        self.started = Instant::now();
        Ok(id)
    }

    /// After its end: how it ended. Fails when it keeps ending soon after the start.
    pub(super) async fn ended(&mut self) -> Result<String, Failure> {
        let status = match self.child.take() {
            Some(mut child) => {
                child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string())
            }
            None => "not started".into(),
        };
        self.early_ends = if self.started.elapsed() < SOON { self.early_ends + 1 } else { 0 };
        if self.early_ends > MOST_EARLY_ENDS {
            let message = format!("{} keeps ending right after its start: {status}", self.name);
            return Err(Failure::new(Exit::Failure, message).next(format!("less {}", self.log().display())));
        }
        Ok(status)
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().and_then(Child::id).and_then(|id| Pid::from_raw(id as i32));
        if let Some(id) = id {
            // It may have ended by itself; then there is nothing to be told.
            let _ = kill_process(id, signal);
        }
    }

    /// Asks it to end.
    pub(super) fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
        // One that is paused hears nothing until it goes on.
        self.signal(Signal::CONT);
    }

    /// Asks it to end, and waits; kills it if it does not.
    pub(super) async fn stop(&mut self) {
        self.ask_to_stop();
        if let Some(mut child) = self.child.take()
            && tokio::time::timeout(END_WAIT, child.wait()).await.is_err()
        {
            let _ = child.kill().await;
        }
    }
}
