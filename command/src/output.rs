//! What the user sees: data on standard output, everything else on standard error.

use crate::failure::Failure;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where and how a command prints.
pub(crate) struct Output {
    /// Whether the user asked for JSON.
    pub(crate) json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// A line for people; nothing with `--json`.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            // A closed pipe is the reader's way of saying that it has enough.
            let _ = writeln!(io::stdout(), "{}", text.as_ref());
        }
    }

    /// A line for programs; nothing without `--json`.
    pub(crate) fn value(&self, value: &Value) {
        if self.json {
            let _ = writeln!(io::stdout(), "{value}");
        }
    }

    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json {
            let next = failure.next.as_deref();
            self.value(&json!({ "event": "error", "message": failure.message, "next": next }));
        }
        eprintln!("error: {}", failure.message);
        if let Some(next) = &failure.next {
            eprintln!("  next: {next}");
        }
    }

    /// A progress bar on standard error, if that is a terminal.
    pub(crate) fn progress(&self, what: &'static str) -> ProgressBar {
        if !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg:>10} [{bar:32}] {pos}/{len} {eta}");
        let bar = ProgressBar::new(0).with_message(what);
        match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=9_999_999 => format!("{:.1} KB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A time for people, in its largest unit.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Text from a file or a peer, made safe for a terminal: what could drive it is escaped.
pub(crate) fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\'' | '"' => safe.push(character),
            _ => safe.extend(character.escape_debug()),
        }
    }
    safe
}
