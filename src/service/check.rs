//! A check that may be tried again and has to stay good: when to try next, and when it is over.

use super::Patience;

/// What comes after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Another try, after so many milliseconds.
    Again(u64),
    /// It is good.
    Good,
    /// It is bad.
    Bad,
}

/// A check under way. Knows no clock: the milliseconds of any clock that does not go back are given (F-96).
#[derive(Debug, Clone)]
pub struct Probe {
    patience: Patience,
    left: u64,
    good_since: Option<u64>,
}

impl Probe {
    /// One that was not tried yet.
    pub const fn new(patience: Patience) -> Self {
        Self { patience, left: patience.retries, good_since: None }
    }

    /// Takes how a try ended that began at `now`.
    pub fn tried(&mut self, now: u64, is_good: bool) -> Verdict {
        if !is_good {
            self.good_since = None;
            return match self.left.checked_sub(1) {
                Some(left) => {
                    self.left = left;
                    Verdict::Again(self.patience.interval)
                }
                None => Verdict::Bad,
            };
        }
        let since = *self.good_since.get_or_insert(now);
        let left = self.patience.stable.saturating_sub(now.saturating_sub(since));
        // The last try is at the end of the window, not past it.
        if left == 0 { Verdict::Good } else { Verdict::Again(left.min(self.patience.interval)) }
    }
}
