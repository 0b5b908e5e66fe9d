//! A process of the platform, and what it tells.

use crate::args::MemberRole;
use crate::error::BenchError;
use crate::member::TOTALS;
use serde_json::Value;
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::timeout_at;

/// A member's configuration file in its home.
pub(crate) const CONFIG_FILE: &str = "config.toml";
const LOG_FILE: &str = "log";
/// How long a process may take to answer for its totals, or to end.
const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// Lines that may wait to be read.
const LINES: usize = 4096;

/// A line that a process told, and when it was read.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: Instant,
    pub(crate) value: Value,
}

impl Event {
    pub(crate) fn is(&self, name: &str) -> bool {
        self.text("event") == Some(name)
    }

    /// A text that it tells.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.value.get(key)?.as_str()
    }

    /// A number that it tells; 0 where it does not.
    pub(crate) fn number(&self, key: &str) -> u64 {
        self.value.get(key).and_then(Value::as_u64).unwrap_or(0)
    }
}

/// What a process has cost since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// CPU time of all its threads.
    pub(crate) cpu: Duration,
    /// Bytes it wrote to streams.
    pub(crate) sent: u64,
    /// Bytes it read from streams.
    pub(crate) received: u64,
}

impl Totals {
    /// What was added since an earlier moment.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            sent: self.sent.saturating_sub(before.sent),
            received: self.received.saturating_sub(before.received),
        }
    }
}

/// A process of the platform, running.
pub(crate) struct Process {
    pub(crate) name: String,
    home: PathBuf,
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<Event>,
    /// Lines that were read while another was waited for.
    heard: VecDeque<Event>,
}

impl Process {
    /// Starts a process whose configuration is in `home`.
    pub(crate) fn start(
        role: MemberRole,
        name: &str,
        home: &Path,
        repository: Option<&Path>,
    ) -> Result<Self, BenchError> {
        let binary = std::env::current_exe().map_err(BenchError::io(Path::new("/proc/self/exe")))?;
        let log = home.join(LOG_FILE);
        let log = File::options().create(true).append(true).open(&log).map_err(BenchError::io(&log))?;
        let mut child = Command::new(&binary)
            .arg("member")
            .arg(role.as_str())
            .arg(home.join(CONFIG_FILE))
            .args(repository)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(BenchError::io(&binary))?;
        let (teller, lines) = mpsc::channel(LINES);
        if let Some(output) = child.stdout.take() {
            tokio::spawn(async move {
                let mut read = BufReader::new(output).lines();
                while let Ok(Some(line)) = read.next_line().await {
                    let at = Instant::now();
                    if let Ok(value) = serde_json::from_str(&line)
                        && teller.send(Event { at, value }).await.is_err()
                    {
                        return;
                    }
                }
            });
        }
        let input = child.stdin.take();
        let (name, home) = (name.to_owned(), home.to_owned());
        Ok(Self { name, home, child, input, lines, heard: VecDeque::new() })
    }

    /// Its process id, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    fn error(&self, what: impl Into<String>) -> BenchError {
        BenchError::Member { name: self.name.clone(), what: what.into(), log: self.home.join(LOG_FILE) }
    }

    /// The first event of which `wanted` is true, of those told since the last [`Process::forget`].
    pub(crate) async fn wait(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Event, BenchError> {
        if let Some(at) = self.heard.iter().position(&wanted)
            && let Some(event) = self.heard.remove(at)
        {
            return Ok(event);
        }
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            match timeout_at(deadline, self.lines.recv()).await {
                Ok(Some(event)) if wanted(&event) => return Ok(event),
                Ok(Some(event)) => {
                    if self.heard.len() == LINES {
                        self.heard.pop_front();
                    }
                    self.heard.push_back(event);
                }
                Ok(None) => return Err(self.error(format!("it ended, and {what} was waited for"))),
                Err(_) => {
                    let trouble = self.heard.iter().rev().find(|event| event.text("reason").is_some());
                    let trouble = trouble.map_or(String::new(), |event| format!(" ({})", event.value));
                    return Err(self.error(format!("{what} did not come in {} s{trouble}", limit.as_secs())));
                }
            }
        }
    }

    /// As [`Process::wait`], for an event by its name.
    pub(crate) async fn named(&mut self, name: &str, limit: Duration) -> Result<Event, BenchError> {
        self.wait(name, limit, |event| event.is(name)).await
    }

    /// As [`Process::wait`], for an event of a release or a later one.
    pub(crate) async fn of_release(
        &mut self,
        name: &str,
        release: u64,
        limit: Duration,
    ) -> Result<Event, BenchError> {
        let what = format!("`{name}` of release {release}");
        self.wait(&what, limit, |event| event.is(name) && event.number("release") >= release).await
    }

    /// Drops what was told so far.
    pub(crate) fn forget(&mut self) {
        while self.lines.try_recv().is_ok() {}
        self.heard.clear();
    }

    /// Sends a line to its standard input.
    pub(crate) async fn ask(&mut self, line: &str) -> Result<(), BenchError> {
        let failed = self.error("it takes no questions any more");
        let Some(input) = &mut self.input else { return Err(failed) };
        let line = format!("{line}\n");
        input.write_all(line.as_bytes()).await.map_err(|_| failed)
    }

    /// What it has cost so far.
    pub(crate) async fn totals(&mut self) -> Result<Totals, BenchError> {
        self.ask(TOTALS).await?;
        let event = self.named("totals", ANSWER_WAIT).await?;
        Ok(Totals {
            cpu: Duration::from_nanos(event.number("cpu_ns")),
            sent: event.number("sent"),
            received: event.number("received"),
        })
    }

    /// Has it end by itself; kills it if it does not.
    pub(crate) async fn stop(mut self) {
        drop(self.input.take());
        if tokio::time::timeout(ANSWER_WAIT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}
