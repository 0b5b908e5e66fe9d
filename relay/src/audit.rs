//! The origin's audit record: an append-only file of what it was asked and
//! what it did, each record chained to the one before (specs/audit.md).

use rootcast::codec;
use rootcast::id::AuditHash;
use rootcast::limits::{AUDIT_WINDOW, MAX_AUDIT_LINE, MAX_AUDIT_REFUSALS, MAX_AUDIT_TEXT};
use rootcast_replica::Machine;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// The record's file in the origin's state directory.
pub const AUDIT_FILE: &str = "audit.jsonl";
/// Who did it where that was no peer.
pub const ORIGIN: &str = "origin";

/// Why a record cannot be read or written on.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not what was written.
    #[error("{}:{line}: the record is broken here: {reason}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The last line is broken, so that nothing can follow it.
    #[error(
        "{}: its last line is broken; see `rootcast audit`, move the file away, keep it, and start again",
        path.display()
    )]
    End {
        /// The file.
        path: PathBuf,
    },
}

/// What is recorded (specs/audit.md, AU-4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The origin started under a version of trust, by its number and hash.
    Start(u64, String),
    /// So many bytes of a torn last line were cut off.
    Cut(u64),
    /// A release was taken.
    Publish {
        /// The channel.
        channel: String,
        /// Its number.
        number: u64,
        /// Its hash.
        hash: String,
        /// The source commit; empty for a directory.
        commit: String,
        /// The ids of the keys that signed.
        keys: String,
    },
    /// A publication to a channel was refused, and why.
    PublishRefused(String, String),
    /// A version of trust came in force: its number and hash.
    Trust(u64, String),
    /// A version of trust was refused, and why.
    TrustRefused(String),
    /// No head of a channel could be signed, and why.
    Heads(String, String),
    /// A member joined: by which token, with which key and labels.
    Join(String, String),
    /// A request to join or to renew was refused, and why.
    JoinRefused(String, String),
    /// A member is denied from now on; its last certificate.
    Deny(String, String),
    /// A member is allowed again; nothing.
    Allow(String, String),
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Start(..) => "start",
            Self::Cut(_) => "cut",
            Self::Publish { .. } => "publish",
            Self::PublishRefused(..) => "publish-refused",
            Self::Trust(..) => "trust",
            Self::TrustRefused(_) => "trust-refused",
            Self::Heads(..) => "heads",
            Self::Join(..) => "join",
            Self::JoinRefused(..) => "join-refused",
            Self::Deny(..) => "deny",
            Self::Allow(..) => "allow",
        }
    }

    /// Whether any peer can have as many of it as it likes.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::PublishRefused(..) | Self::TrustRefused(_) | Self::JoinRefused(..))
    }

    fn fields(&self) -> BTreeMap<String, Value> {
        let number = |name: &str, value: &u64| (name.to_owned(), Value::Number(*value));
        let text = |name: &str, value: &str| (name.to_owned(), Value::Text(plain(value)));
        BTreeMap::from_iter(match self {
            Self::Start(version, hash) => vec![number("trust", version), text("trust_hash", hash)],
            Self::Cut(bytes) => vec![number("bytes", bytes)],
            Self::Publish { channel, number: release, hash, commit, keys } => vec![
                text("channel", channel),
                number("number", release),
                text("hash", hash),
                text("commit", commit),
                text("keys", keys),
            ],
            Self::PublishRefused(channel, reason) => vec![text("channel", channel), text("reason", reason)],
            Self::Trust(version, hash) => vec![number("version", version), text("hash", hash)],
            Self::TrustRefused(reason) => vec![text("reason", reason)],
            Self::Heads(channel, problem) => vec![text("channel", channel), text("problem", problem)],
            Self::JoinRefused(member, reason) => vec![text("member", member), text("reason", reason)],
            Self::Join(member, note) | Self::Deny(member, note) | Self::Allow(member, note) => {
                vec![text("member", member), text("note", note)]
            }
        })
    }
}

/// Text that a peer may have chosen, escaped and bounded (AU-5).
fn plain(text: &str) -> String {
    let mut safe = String::new();
    for character in text.chars() {
        let is_plain = character.is_ascii_graphic() || character == ' ';
        let escaped = if is_plain { character.to_string() } else { character.escape_default().to_string() };
        if safe.len() + escaped.len() > MAX_AUDIT_TEXT {
            break;
        }
        safe.push_str(&escaped);
    }
    safe
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// From 1.
    pub sequence: u64,
    /// Seconds since 1970.
    pub time: u64,
    /// What happened.
    pub event: String,
    /// Who did it.
    pub who: String,
    /// What else there is to say.
    pub fields: BTreeMap<String, Value>,
    /// The hash of the record before, in hexadecimal.
    pub previous: String,
    /// The record's own hash, in hexadecimal.
    pub hash: String,
}

impl Record {
    /// The hash that it must have after `previous` (AU-3).
    fn hash_after(&self, previous: &AuditHash) -> AuditHash {
        let fields: Vec<_> = self.fields.iter().collect();
        previous.next(&codec::encode(&(self.sequence, self.time, &self.event, &self.who, fields)))
    }

    fn line(&self) -> Option<Vec<u8>> {
        let mut line = serde_json::to_vec(self).ok()?;
        line.push(b'\n');
        Some(line)
    }

    /// Reads a line, its end included, and checks it by itself.
    fn parse(line: &[u8]) -> Result<(Self, AuditHash), &'static str> {
        let record: Self = serde_json::from_slice(line).map_err(|_| "it is not a record")?;
        if record.line().as_deref() != Some(line) {
            return Err("it is written otherwise than it would have been");
        }
        let previous = record.previous.parse().map_err(|_| "`previous` is not a hash")?;
        let hash = record.hash_after(&previous);
        if hash.to_string() == record.hash { Ok((record, hash)) } else { Err("its hash is another one") }
    }
}

struct Open {
    file: File,
    length: u64,
    sequence: u64,
    hash: AuditHash,
    unrecorded: u64,
    window: Instant,
    refusals: u64,
}

/// The record of a running origin.
pub struct Audit {
    machine: Arc<dyn Machine>,
    path: PathBuf,
    open: Mutex<Open>,
}

impl Audit {
    /// Opens or begins the record in a state directory, and takes off a torn last line (AU-6).
    ///
    /// # Errors
    /// When the file cannot be used, or its last line is broken.
    pub fn open(machine: Arc<dyn Machine>, state: &Path) -> Result<Self, AuditError> {
        let path = state.join(AUDIT_FILE);
        let failed = |source| AuditError::Io { path: path.clone(), source };
        std::fs::create_dir_all(state).map_err(failed)?;
        let options = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path);
        let mut file = options.map_err(failed)?;
        File::open(state).and_then(|directory| directory.sync_all()).map_err(failed)?;
        let (end, last) = last_line(&mut file).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let (sequence, hash) = match &last {
            None if end == 0 && length < MAX_AUDIT_LINE => (0, AuditHash::START),
            None => return Err(AuditError::End { path }),
            Some(line) => match Record::parse(line) {
                Ok((record, hash)) => (record.sequence, hash),
                Err(_) => return Err(AuditError::End { path }),
            },
        };
        file.set_len(end).and_then(|()| file.sync_all()).map_err(failed)?;
        let (window, refusals, unrecorded) = (Instant::now(), 0, 0);
        let open = Open { file, length: end, sequence, hash, unrecorded, window, refusals };
        let audit = Self { machine, path, open: Mutex::new(open) };
        if length > end {
            audit.record(ORIGIN, &Event::Cut(length - end));
        }
        Ok(audit)
    }

    /// The hash of the newest record: noted elsewhere, it vouches for all up to it.
    pub fn newest(&self) -> AuditHash {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).hash
    }

    /// Appends a record and makes it durable. Blocking. What the disk does not
    /// take is logged and counted: what happened has happened.
    pub fn record(&self, who: &str, event: &Event) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if event.is_refusal() && !open.admits_refusal() {
            open.unrecorded += 1;
            return;
        }
        if let Err(error) = open.append(self.machine.seconds(), who, event) {
            open.unrecorded += 1;
            tracing::error!(path = %self.path.display(), %error, ?event, "the audit record could not be written");
        }
    }

    /// As [`Audit::record`], from a task.
    pub async fn note(self: &Arc<Self>, who: String, event: Event) {
        let audit = self.clone();
        let recorded = self.machine.blocking(move || audit.record(&who, &event));
        if recorded.await.is_err() {
            tracing::error!(path = %self.path.display(), "the end of the process cut off a record");
        }
    }
}

impl Open {
    fn admits_refusal(&mut self) -> bool {
        if self.window.elapsed() >= AUDIT_WINDOW {
            (self.window, self.refusals) = (Instant::now(), 0);
        }
        self.refusals += 1;
        self.refusals <= MAX_AUDIT_REFUSALS
    }

    fn append(&mut self, time: u64, who: &str, event: &Event) -> io::Result<()> {
        let mut fields = event.fields();
        if self.unrecorded > 0 {
            fields.insert("unrecorded".into(), Value::Number(self.unrecorded));
        }
        let mut record = Record {
            sequence: self.sequence + 1,
            time,
            event: event.name().into(),
            who: plain(who),
            fields,
            previous: self.hash.to_string(),
            hash: String::new(),
        };
        let hash = record.hash_after(&self.hash);
        record.hash = hash.to_string();
        let line = record.line().ok_or_else(|| io::Error::other("it cannot be written as JSON"))?;
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line must not stand before the next one.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += line.len() as u64;
        (self.sequence, self.hash, self.unrecorded) = (record.sequence, hash, 0);
        Ok(())
    }
}

/// Where the last whole line of a file ends, and that line; `None` where there is none within reach.
fn last_line(file: &mut File) -> io::Result<(u64, Option<Vec<u8>>)> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(2 * MAX_AUDIT_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(2 * MAX_AUDIT_LINE).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else { return Ok((0, None)) };
    let whole = tail.get(..=end).unwrap_or_default();
    let before = whole.get(..end).unwrap_or_default();
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok((from + end as u64 + 1, whole.get(start..).map(<[u8]>::to_vec)))
}

/// What a whole reading found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// How many records there are.
    pub records: u64,
    /// The newest hash.
    pub newest: AuditHash,
    /// Bytes of a last line without its end: one that is being written, or was cut off by a crash.
    pub torn: u64,
}

/// Reads a record from its beginning, gives each line to `each` as soon as it is checked, and
/// stops at the first that is broken.
///
/// # Errors
/// [`AuditError::Broken`], which names the line.
pub fn check(path: &Path, each: &mut dyn FnMut(&Record)) -> Result<Checked, AuditError> {
    let failed = |source| AuditError::Io { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut checked = Checked { records: 0, newest: AuditHash::START, torn: 0 };
    loop {
        let mut line = Vec::new();
        let read = (&mut reader).take(MAX_AUDIT_LINE).read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 {
            return Ok(checked);
        }
        let number = checked.records + 1;
        let broken = |reason| AuditError::Broken { path: path.to_owned(), line: number, reason };
        if line.last() != Some(&b'\n') {
            if (read as u64) < MAX_AUDIT_LINE {
                checked.torn = read as u64;
                return Ok(checked);
            }
            return Err(broken("it is too long"));
        }
        let (record, hash) = Record::parse(&line).map_err(broken)?;
        if record.previous != checked.newest.to_string() {
            return Err(broken("it does not follow the line before"));
        }
        if record.sequence != number {
            return Err(broken("its number does not follow"));
        }
        each(&record);
        (checked.records, checked.newest) = (number, hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast_replica::System;

    fn filled(home: &Path) -> PathBuf {
        let audit = Audit::open(Arc::new(System), home).unwrap();
        audit.record(ORIGIN, &Event::Start(1, "ab".into()));
        audit.record("publisher/ann", &Event::PublishRefused("prod".into(), "because".into()));
        audit.record("publisher/ann", &Event::Trust(2, "cd".into()));
        home.join(AUDIT_FILE)
    }

    fn checked(path: &Path) -> Result<(Checked, Vec<Record>), AuditError> {
        let mut records = Vec::new();
        let checked = check(path, &mut |record| records.push(record.clone()))?;
        Ok((checked, records))
    }

    #[test]
    fn au_3_the_chain_goes_on_after_a_start_and_checks() {
        let home = tempfile::tempdir().unwrap();
        let path = filled(home.path());
        let audit = Audit::open(Arc::new(System), home.path()).unwrap();
        audit.record(ORIGIN, &Event::Start(2, "cd".into()));
        let (found, records) = checked(&path).unwrap();
        assert_eq!((found.records, found.newest, found.torn), (4, audit.newest(), 0));
        let events: Vec<_> = records.iter().map(|record| record.event.as_str()).collect();
        assert_eq!(events, ["start", "publish-refused", "trust", "start"]);
    }

    #[test]
    fn au_3_every_changed_byte_and_every_line_taken_away_is_found() {
        let home = tempfile::tempdir().unwrap();
        let path = filled(home.path());
        let good = std::fs::read(&path).unwrap();
        let newest = checked(&path).unwrap().0.newest;
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            // Only what touches the last line's end looks like a crash; it then is not the newest that was noted.
            assert!(checked(&path).is_err() || checked(&path).unwrap().0.newest != newest, "byte {at}");
        }
        let lines: Vec<_> = good.split_inclusive(|byte| *byte == b'\n').collect();
        for (without, at) in [(vec![lines[1], lines[2]], 1), (vec![lines[0], lines[2]], 2)] {
            std::fs::write(&path, without.concat()).unwrap();
            let error = checked(&path).unwrap_err();
            assert!(matches!(error, AuditError::Broken { line, .. } if line == at), "{error}");
        }
    }

    #[test]
    fn au_6_a_torn_last_line_is_cut_and_told_and_a_broken_one_stops_the_start() {
        let home = tempfile::tempdir().unwrap();
        let path = filled(home.path());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"sequence\":4,\"ti");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(checked(&path).unwrap().0.torn, 17);
        drop(Audit::open(Arc::new(System), home.path()).unwrap());
        let (found, records) = checked(&path).unwrap();
        assert_eq!((found.records, found.torn), (4, 0));
        assert_eq!(records[3].fields["bytes"], Value::Number(17));
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() - 5;
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(Audit::open(Arc::new(System), home.path()), Err(AuditError::End { .. })));
    }

    #[test]
    fn au_5_what_a_peer_says_is_escaped_cut_and_counted() {
        let home = tempfile::tempdir().unwrap();
        let audit = Audit::open(Arc::new(System), home.path()).unwrap();
        let hostile = format!("\u{1b}[2J\u{202e}{}", "\u{10ffff}".repeat(100_000));
        for _ in 0..MAX_AUDIT_REFUSALS + 5 {
            audit.record(&hostile, &Event::PublishRefused(hostile.clone(), hostile.clone()));
        }
        audit.record(ORIGIN, &Event::Trust(2, "ab".into()));
        let path = home.path().join(AUDIT_FILE);
        let (found, records) = checked(&path).unwrap();
        assert_eq!(found.records, MAX_AUDIT_REFUSALS + 1);
        assert_eq!(records.last().unwrap().fields["unrecorded"], Value::Number(5));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.is_ascii() && !text.contains('\u{1b}'));
        assert!(text.lines().all(|line| (line.len() as u64) < MAX_AUDIT_LINE));
    }
}
