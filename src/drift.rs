//! What is done about a live tree that others change, and what services installed of it: which
//! places are looked at, when, and when a path is left to whoever keeps rewriting it
//! (specs/activation.md, A-50 to A-59). `now` is the time since any fixed moment.

use crate::limits::{
    LEFT_FIRST, LEFT_MAX, LOOKS_WINDOW, MAX_DRIFT_HISTORIES, MAX_DRIFT_NAMED, MAX_DRIFT_SPOTS, MAX_LOOKS,
    MAX_REPAIRS, MAX_REPAIRS_OF_PATH, RECHECK, RECHECK_AFTER_FLIP, RECHECK_UNWATCHED, REPAIR_WINDOW,
};
use core::fmt;
use core::time::Duration;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What is done about drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing: the tree is compared at the start, and when somebody asks.
    Off,
    /// It is named, and left as it is.
    Report,
    /// It is put right.
    #[default]
    Repair,
}

impl Mode {
    /// One word, as settings have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Report => "report",
            Self::Repair => "repair",
        }
    }
}

/// A place that can drift.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spot {
    /// The link `current`.
    Current,
    /// A path in the live slot; empty for the slot itself. Of a directory: all beneath it too.
    Path(Box<str>),
    /// A place of the host where a service has a file or link installed: an absolute path.
    Installed(Box<str>),
}

impl Spot {
    /// A path in the live slot.
    pub fn path(path: &str) -> Self {
        Self::Path(path.into())
    }

    /// A place outside the slots.
    pub fn installed(place: &str) -> Self {
        Self::Installed(place.into())
    }

    fn is_installed(&self) -> bool {
        matches!(self, Self::Installed(_))
    }

    /// Whether this is a directory somewhere above `other`.
    fn is_above(&self, other: &Self) -> bool {
        let (Self::Path(above), Self::Path(path)) = (self, other) else { return false };
        match path.strip_prefix(&**above) {
            Some(_) if above.is_empty() => !path.is_empty(),
            Some(rest) => rest.starts_with('/'),
            None => false,
        }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => f.write_str("current"),
            Self::Path(path) if path.is_empty() => f.write_str("."),
            Self::Path(path) | Self::Installed(path) => f.write_str(path),
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Compare these places, and repair them if `repair` says so. None lies beneath another.
    Look {
        /// The places.
        spots: Vec<Spot>,
        /// Whether to put right what differs.
        repair: bool,
    },
    /// Compare everything, and say with [`Drift::touched`] what differs.
    Check {
        /// Whether something is known to have changed. Otherwise it may take its time, and other work come first.
        hurry: bool,
    },
}

/// What an operator should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// These differ and are not repaired, as the settings want it.
    Differs(Named),
    /// These are rewritten again and again, and are left for now.
    Left(Named),
    /// Somebody has to make way for what is to be there.
    Refused {
        /// Why the first of these places is not put right.
        why: String,
        /// How many there are beside it.
        more: usize,
    },
    /// So much was repaired in [`REPAIR_WINDOW`] that the rest waits.
    Flood,
}

/// Some of many paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The first [`MAX_DRIFT_NAMED`] in order.
    pub first: Vec<String>,
    /// How many there are.
    pub count: usize,
}

impl Named {
    fn of<'a>(spots: impl Iterator<Item = &'a Spot> + Clone) -> Option<Self> {
        let first: Vec<String> = spots.clone().take(MAX_DRIFT_NAMED).map(Spot::to_string).collect();
        (!first.is_empty()).then(|| Self { first, count: spots.count() })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join(", "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs(named) => write!(f, "drift: {named} differ from the release and are only reported"),
            Self::Left(named) => {
                write!(f, "drift: {named} are rewritten again and again; they are left for now")
            }
            Self::Refused { why, more: 0 } => write!(f, "drift: {why}"),
            Self::Refused { why, more } => write!(f, "drift: {why}; and {more} more are not put right"),
            Self::Flood => write!(f, "drift: more than {MAX_REPAIRS} repairs in a minute; the rest waits"),
        }
    }
}

/// What is remembered of a place that was repaired.
#[derive(Debug, Default)]
struct History {
    /// When, within [`REPAIR_WINDOW`].
    repairs: VecDeque<Duration>,
    /// How often in a row it was left.
    strikes: u32,
    /// Until when it is left.
    left: Option<Duration>,
    /// When it was repaired last.
    last: Duration,
    /// Whether it was made right by a flip or activation since it was left, and touched by nobody since.
    is_void: bool,
}

impl History {
    /// How long it is left after so many strikes.
    fn wait(&self) -> Duration {
        LEFT_FIRST.saturating_mul(1 << self.strikes.saturating_sub(1).min(16)).min(LEFT_MAX)
    }

    /// Whether it is left, and differs as far as anybody knows.
    fn is_left(&self) -> bool {
        self.left.is_some() && !self.is_void
    }

    /// Whether nothing of it matters any more.
    fn is_over(&self, now: Duration) -> bool {
        let calm = if self.strikes > 0 { self.wait() } else { REPAIR_WINDOW };
        self.left.is_none() && now.saturating_sub(self.last) >= calm
    }
}

/// The state of a live tree and of what is installed of it, as far as it is known.
#[derive(Debug)]
pub struct Drift {
    mode: Mode,
    waiting: BTreeSet<Spot>,
    histories: BTreeMap<Spot, History>,
    /// What differs and stays so, as the settings want it.
    differing: BTreeSet<Spot>,
    /// What differs and cannot be put right: why, and when that is tried again.
    refused: BTreeMap<Spot, (String, Duration)>,
    /// Times of the repairs within [`REPAIR_WINDOW`].
    repairs: VecDeque<Duration>,
    /// Since when looks are counted, and how many there were.
    looks: (Duration, u32),
    next_check: Duration,
    /// Whether something changed, and it is not known what.
    is_blind: bool,
    /// Whether all of the tree is watched.
    watched: bool,
}

impl Drift {
    /// For a tree that was just compared, or is to be soon. `jitter` is at random, and spreads checks of many hosts.
    pub fn new(mode: Mode, now: Duration, jitter: u32) -> Self {
        let mut drift = Self {
            mode,
            waiting: BTreeSet::new(),
            histories: BTreeMap::new(),
            differing: BTreeSet::new(),
            refused: BTreeMap::new(),
            repairs: VecDeque::new(),
            looks: (now, 0),
            next_check: now,
            is_blind: false,
            watched: true,
        };
        drift.flipped(now, jitter);
        drift
    }

    /// Another tree is live, made whole a moment ago: nothing that was seen before concerns it. What is rewritten
    /// again and again will be so there too, and is left for as long as before, but is an alarm only once it was.
    pub fn flipped(&mut self, now: Duration, jitter: u32) {
        self.void(|spot| !spot.is_installed());
        self.is_blind = false;
        self.next_check = now + spread(RECHECK_AFTER_FLIP, jitter);
    }

    /// Services have installed what they install, a moment ago: as [`Drift::flipped`], for those places.
    pub fn reinstalled(&mut self) {
        self.void(Spot::is_installed);
    }

    fn void(&mut self, is_void: impl Fn(&Spot) -> bool) {
        self.waiting.retain(|spot| !is_void(spot));
        self.differing.retain(|spot| !is_void(spot));
        self.refused.retain(|spot, _| !is_void(spot));
        for (spot, history) in &mut self.histories {
            history.is_void |= is_void(spot);
        }
    }

    /// Something changed there.
    pub fn touched(&mut self, spot: Spot, now: Duration) {
        if let Some(history) = self.histories.get_mut(&spot) {
            history.is_void = false;
        }
        self.suspected(spot, now);
    }

    /// Something may have changed there; or nothing, so that it is no reason for an alarm.
    pub fn suspected(&mut self, spot: Spot, now: Duration) {
        if self.mode == Mode::Off || self.waiting.contains(&spot) {
            return;
        }
        if self.waiting.len() >= MAX_DRIFT_SPOTS {
            return self.lost_sight(now);
        }
        self.waiting.insert(spot);
    }

    /// It is not known what changed: everything is compared at once.
    pub fn lost_sight(&mut self, now: Duration) {
        self.waiting.retain(|spot| *spot == Spot::Current);
        (self.next_check, self.is_blind) = (now, true);
    }

    /// Whether all of the tree is watched. Where it is not, it is compared more often.
    pub fn watches(&mut self, all: bool, now: Duration, jitter: u32) {
        if !all {
            self.next_check = self.next_check.min(now + spread(RECHECK_UNWATCHED, jitter));
        }
        self.watched = all;
    }

    /// What is to be done now, if anything. What it says is regarded as begun.
    pub fn work(&mut self, now: Duration, jitter: u32) -> Option<Work> {
        if self.mode == Mode::Off {
            return None;
        }
        self.forget(now);
        if now < self.next_look(now) {
            return None;
        }
        let room = MAX_REPAIRS.saturating_sub(self.repairs.len());
        let spots = self.due(now, room);
        if !spots.is_empty() {
            self.count_look(now);
            return Some(Work::Look { spots, repair: self.mode == Mode::Repair });
        }
        if self.next_check <= now {
            self.count_look(now);
            let gap = if self.watched { RECHECK } else { RECHECK_UNWATCHED };
            self.next_check = now + spread(gap, jitter);
            return Some(Work::Check { hurry: core::mem::take(&mut self.is_blind) });
        }
        None
    }

    /// When there may be something to do, if nothing happens before.
    pub fn wakes(&self, now: Duration) -> Option<Duration> {
        if self.mode == Mode::Off {
            return None;
        }
        let mut wakes = self.next_check;
        if self.is_waiting() {
            let full = self.repairs.len() >= MAX_REPAIRS;
            let room = self.repairs.front().filter(|_| full).map_or(now, |first| *first + REPAIR_WINDOW);
            wakes = wakes.min(room);
        }
        for (_, again) in self.refused.values() {
            wakes = wakes.min(*again);
        }
        for left in self.histories.values().filter_map(|history| history.left) {
            wakes = wakes.min(left);
        }
        Some(wakes.max(self.next_look(now)))
    }

    /// A place was compared. `repaired`: it differed, and was put right.
    pub fn repaired(&mut self, spot: &Spot, now: Duration) {
        self.differing.remove(spot);
        self.repairs.push_back(now);
        if self.histories.len() >= MAX_DRIFT_HISTORIES && !self.histories.contains_key(spot) {
            // The one that has been calm for longest; those that are left are remembered first.
            let oldest =
                self.histories.iter().min_by_key(|(_, history)| (history.left.is_some(), history.last));
            if let Some(oldest) = oldest.map(|(spot, _)| spot.clone()) {
                self.histories.remove(&oldest);
            }
        }
        let history = self.histories.entry(spot.clone()).or_default();
        history.repairs.push_back(now);
        history.last = now;
        history.is_void = false;
        let allowed = if history.strikes > 0 { 2 } else { MAX_REPAIRS_OF_PATH };
        if history.repairs.len() >= allowed {
            history.strikes += 1;
            history.left = Some(now + history.wait());
            history.repairs.clear();
        }
    }

    /// These differ and were not repaired: all that is known to differ at or beneath the places that were compared.
    pub fn differ(&mut self, looked: &[Spot], found: impl IntoIterator<Item = Spot>) {
        self.differing.retain(|spot| !looked.iter().any(|at| at == spot || at.is_above(spot)));
        let room = MAX_DRIFT_SPOTS.saturating_sub(self.differing.len());
        self.differing.extend(found.into_iter().take(room));
    }

    /// These differ and cannot be put right, with the reasons: all of that kind at the places that were compared. Each
    /// is tried again when something happens there, and every [`RECHECK_UNWATCHED`].
    pub fn refuse(
        &mut self,
        looked: &[Spot],
        found: impl IntoIterator<Item = (Spot, String)>,
        now: Duration,
        jitter: u32,
    ) {
        self.refused.retain(|spot, _| !looked.contains(spot));
        let room = MAX_DRIFT_SPOTS.saturating_sub(self.refused.len());
        let again = now + spread(RECHECK_UNWATCHED, jitter);
        self.refused.extend(found.into_iter().take(room).map(|(spot, why)| (spot, (why, again))));
    }

    /// Whether a place is not known to differ yet.
    pub fn is_news(&self, spot: &Spot) -> bool {
        !self.differing.contains(spot)
    }

    /// The work failed: it is tried again no sooner than a check of all would be.
    pub fn failed(&mut self, now: Duration, jitter: u32) {
        self.next_check = self.next_check.min(now + spread(RECHECK_UNWATCHED, jitter));
    }

    /// What an operator should look at, the worst first.
    pub fn alarm(&self) -> Option<Alarm> {
        let left = self.histories.iter().filter(|(_, history)| history.is_left()).map(|(spot, _)| spot);
        if let Some(named) = Named::of(left) {
            return Some(Alarm::Left(named));
        }
        if let Some((why, _)) = self.refused.values().next() {
            return Some(Alarm::Refused { why: why.clone(), more: self.refused.len() - 1 });
        }
        if self.repairs.len() >= MAX_REPAIRS && self.is_waiting() {
            return Some(Alarm::Flood);
        }
        Named::of(self.differing.iter()).map(Alarm::Differs)
    }

    /// How many places are known to differ: those that are left, refused, and only reported.
    pub fn known_to_differ(&self) -> usize {
        let left = self.histories.values().filter(|history| history.is_left()).count();
        self.differing.len() + self.refused.len() + left
    }

    /// Whether something waits that is not left.
    fn is_waiting(&self) -> bool {
        self.waiting.iter().any(|spot| self.left_until(spot).is_none())
    }

    fn left_until(&self, spot: &Spot) -> Option<Duration> {
        self.histories.get(spot)?.left
    }

    /// Takes out of what waits the places that can be looked at, at most `room`.
    fn due(&mut self, now: Duration, room: usize) -> Vec<Spot> {
        // Report mode repairs nothing, and is not held up by repairs.
        let room = if self.mode == Mode::Repair { room } else { MAX_DRIFT_SPOTS };
        let mut due: Vec<Spot> = Vec::new();
        for spot in &self.waiting {
            if due.len() >= room {
                break;
            }
            if self.left_until(spot).is_none_or(|left| left <= now) {
                due.push(spot.clone());
            }
        }
        for spot in &due {
            self.waiting.remove(spot);
        }
        outermost(due)
    }

    fn next_look(&self, now: Duration) -> Duration {
        let (since, count) = self.looks;
        let over = since + LOOKS_WINDOW;
        if count >= MAX_LOOKS && now < over { over } else { now }
    }

    fn count_look(&mut self, now: Duration) {
        if now >= self.looks.0 + LOOKS_WINDOW {
            self.looks = (now, 0);
        }
        self.looks.1 += 1;
    }

    /// Drops what is over, and lets places that were left wait for a look again.
    fn forget(&mut self, now: Duration) {
        while self.repairs.front().is_some_and(|first| now.saturating_sub(*first) >= REPAIR_WINDOW) {
            self.repairs.pop_front();
        }
        for (spot, history) in &mut self.histories {
            while history.repairs.front().is_some_and(|first| now.saturating_sub(*first) >= REPAIR_WINDOW) {
                history.repairs.pop_front();
            }
            if history.left.is_some_and(|left| left <= now) {
                (history.left, history.last) = (None, now);
                self.waiting.insert(spot.clone());
            }
        }
        self.histories.retain(|_, history| !history.is_over(now));
        for (spot, (_, again)) in &mut self.refused {
            if *again <= now {
                *again = now + RECHECK_UNWATCHED;
                self.waiting.insert(spot.clone());
            }
        }
    }
}

/// These places without those that lie beneath another of them.
pub fn outermost(spots: impl IntoIterator<Item = Spot>) -> Vec<Spot> {
    let all: BTreeSet<Spot> = spots.into_iter().collect();
    all.iter().filter(|spot| !lies_beneath(spot, &all)).cloned().collect()
}

fn lies_beneath(spot: &Spot, all: &BTreeSet<Spot>) -> bool {
    let Spot::Path(path) = spot else { return false };
    if path.is_empty() {
        return false;
    }
    let above = path.match_indices('/').map(|(at, _)| path.get(..at).unwrap_or_default());
    core::iter::once("").chain(above).any(|above| all.contains(&Spot::path(above)))
}

/// Between three quarters and five quarters of a time.
fn spread(time: Duration, jitter: u32) -> Duration {
    time.mul_f64(0.75 + f64::from(jitter) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests;
