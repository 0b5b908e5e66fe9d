//! What happened, and when. The same seed gives the same trace.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// One line of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When, since the beginning.
    pub at: Duration,
    /// Who.
    pub who: String,
    /// What.
    pub what: String,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>11.3} s  {:<10} {}", self.at.as_secs_f64(), self.who, self.what)
    }
}

/// A timeline.
#[derive(Debug)]
pub struct Trace {
    begun: Instant,
    lines: Mutex<(String, Vec<Line>)>,
    prints: bool,
}

impl Trace {
    /// An empty one, which begins now; with `prints`, each line goes to standard output at once.
    pub fn new(prints: bool) -> Self {
        Self { begun: Instant::now(), lines: Mutex::default(), prints }
    }

    fn lines(&self) -> MutexGuard<'_, (String, Vec<Line>)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A directory that is another one in each run: left out of all lines.
    pub fn hide(&self, directory: &Path) {
        self.lines().0 = directory.display().to_string();
    }

    /// A text without that directory.
    pub fn plain(&self, text: &str) -> String {
        let hidden = self.lines().0.clone();
        if hidden.is_empty() { text.to_owned() } else { text.replace(&hidden, "") }
    }

    /// Adds a line.
    pub fn add(&self, who: &str, what: String) {
        let line = Line { at: self.begun.elapsed(), who: who.to_owned(), what: self.plain(&what) };
        if self.prints {
            println!("{line}");
        }
        self.lines().1.push(line);
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<Line> {
        self.lines().1.clone()
    }
}
