//! Asking the agent of this host over its unix socket (specs/local.md).

use crate::failure::{Exit, Failure};
use rootcast::limits::{LOCAL_STUCK, MAX_LOCAL_FILE, MAX_LOCAL_HEAD};
use rootcast_agent::AgentConfig;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest line of an event.
const MAX_EVENT: u64 = 8 * 1024 * 1024;
/// Where the agent's configuration is, unless it is said.
const CONFIG: &str = "/etc/rootcast/agent.toml";

/// Which agent is asked.
#[derive(clap::Args, Clone)]
pub(crate) struct Place {
    /// The agent's configuration file, which says where its socket is
    #[arg(long, default_value = CONFIG, value_name = "FILE")]
    config: PathBuf,
    /// The agent's socket, without a look at its configuration
    #[arg(long, conflicts_with = "config")]
    socket: Option<PathBuf>,
}

/// An agent that can be asked.
#[derive(Clone)]
pub(crate) struct Asked {
    socket: PathBuf,
}

/// What it answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) generation: u64,
    pub(crate) body: Vec<u8>,
}

/// Another generation is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) generation: u64,
    /// What differs from the one known before; none where that is not known.
    pub(crate) changed: Option<Vec<String>>,
}

impl Place {
    pub(crate) fn agent(&self) -> Result<Asked, Failure> {
        let socket = match &self.socket {
            Some(socket) => socket.clone(),
            None => AgentConfig::load(&self.config)?.socket().ok_or_else(|| {
                let message = format!("{}: the agent's local API is off", self.config.display());
                Failure::new(Exit::Usage, message)
                    .next("take `socket = \"off\"` out of it, and restart the agent")
            })?,
        };
        Ok(Asked::at(socket))
    }
}

impl Asked {
    /// The one that listens at this socket.
    pub(crate) fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks for `target`, and takes the whole answer.
    pub(crate) fn get(&self, target: &str) -> Result<Answer, Failure> {
        let (mut reader, status, generation) = self.ask(target, None, Duration::from_secs(30))?;
        let mut body = Vec::new();
        let read = reader.by_ref().take(MAX_LOCAL_FILE + 1).read_to_end(&mut body);
        read.map_err(|error| self.broke(&error))?;
        Ok(Answer { status, generation, body })
    }

    /// As [`Asked::get`] of what must be there and be JSON.
    pub(crate) fn value(&self, target: &str) -> Result<(Value, u64), Failure> {
        let answer = self.get(target)?.expect_found()?;
        let value = serde_json::from_slice(&answer.body);
        let value =
            value.map_err(|error| Failure::new(Exit::Failure, format!("the agent's answer: {error}")))?;
        Ok((value, answer.generation))
    }

    /// Watches from the generation `after` on, or from the one that is live.
    pub(crate) fn watch(&self, after: Option<u64>) -> Result<Events, Failure> {
        let (mut reader, status, generation) = self.ask("/v1/watch", after, LOCAL_STUCK)?;
        if status != 200 {
            let mut body = Vec::new();
            let _ = reader.by_ref().take(MAX_LOCAL_FILE).read_to_end(&mut body);
            Answer { status, generation, body }.expect_found()?;
        }
        Ok(Events(reader))
    }

    /// Sends a request, and reads the head of the answer: its status and generation.
    fn ask(
        &self,
        target: &str,
        after: Option<u64>,
        wait: Duration,
    ) -> Result<(BufReader<UnixStream>, u16, u64), Failure> {
        let connect = || -> io::Result<UnixStream> {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(wait))?;
            stream.set_write_timeout(Some(wait))?;
            let after = after.map(|after| format!("Last-Event-ID: {after}\r\n")).unwrap_or_default();
            // The older version has the end of the connection for the end of the answer.
            write!(stream, "GET {target} HTTP/1.0\r\nHost: agent\r\n{after}\r\n")?;
            Ok(stream)
        };
        let mut reader = BufReader::new(connect().map_err(|error| self.unreachable(&error))?);
        let mut head = reader.by_ref().take(MAX_LOCAL_HEAD as u64);
        let mut line = String::new();
        let (mut status, mut generation) = (None, 0);
        loop {
            line.clear();
            head.read_line(&mut line).map_err(|error| self.broke(&error))?;
            match (line.trim_end(), status) {
                ("", Some(status)) => return Ok((reader, status, generation)),
                ("", None) => return Err(self.broke(&io::ErrorKind::UnexpectedEof.into())),
                (first, None) => status = first.split(' ').nth(1).and_then(|status| status.parse().ok()),
                (field, Some(_)) => {
                    if let Some((name, value)) = field.split_once(':')
                        && name.eq_ignore_ascii_case("x-rootcast-generation")
                    {
                        generation = value.trim().parse().unwrap_or(0);
                    }
                }
            }
        }
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let message = format!("no agent answers at {}: {error}", self.socket.display());
        let next = match error.kind() {
            io::ErrorKind::PermissionDenied => "run this as a member of the socket's group, or as root",
            _ => "start it with `rootcast agent CONFIG`, or name its configuration with --config",
        };
        Failure::new(Exit::Unreachable, message).next(next)
    }

    fn broke(&self, error: &io::Error) -> Failure {
        let message = format!("the agent at {} broke off: {error}", self.socket.display());
        Failure::new(Exit::Unreachable, message)
    }
}

impl Answer {
    /// Itself, or what the agent said instead.
    pub(crate) fn expect_found(self) -> Result<Self, Failure> {
        if self.status == 200 {
            return Ok(self);
        }
        let said: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let reason =
            said.get("error").and_then(Value::as_str).unwrap_or("the agent refuses, and does not say why");
        Err(Failure::new(Exit::Failure, crate::output::plain(reason)))
    }
}

/// Events as they come.
pub(crate) struct Events(BufReader<UnixStream>);

impl Events {
    /// The next one; none where the agent has ended, or says nothing any more.
    pub(crate) fn next(&mut self) -> Option<Event> {
        loop {
            let mut line = Vec::new();
            let read = self.0.by_ref().take(MAX_EVENT).read_until(b'\n', &mut line).ok()?;
            if read == 0 {
                return None;
            }
            let Some(data) = line.strip_prefix(b"data: ") else { continue };
            let data: Value = serde_json::from_slice(data).ok()?;
            let paths = data.get("changed").and_then(Value::as_array);
            let changed =
                paths.map(|paths| paths.iter().filter_map(|path| Some(path.as_str()?.into())).collect());
            return Some(Event { generation: data.get("generation")?.as_u64()?, changed });
        }
    }
}

impl Event {
    /// Whether it concerns what these patterns mean, as far as is known.
    pub(crate) fn concerns(&self, patterns: &rootcast_agent::slots::Patterns) -> bool {
        let is_meant = |path: &String| patterns.covers(Path::new(path));
        self.changed.as_ref().is_none_or(|changed| changed.iter().any(is_meant))
    }
}

/// Text as a part of a URL.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// `PATH` or `PATH:KEY`, as the agent is asked for it.
pub(crate) fn target(what: &str) -> (String, bool) {
    match what.split_once(':') {
        Some((path, key)) => (format!("/v1/values/{}?key={}", encoded(path), encoded(key)), true),
        None => (format!("/v1/files/{}", encoded(what)), false),
    }
}

/// A value as a program takes it: text as it is, all else as JSON.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
