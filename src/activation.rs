//! Activation of a release with services: what is done in which order, what a failure and a crash lead to,
//! and what is kept about it (specs/activation.md, A-30 to A-39).
//!
//! Pure: whoever runs it makes the [`Journal`] durable, does what [`Journal::step`] says, and gives
//! what came of it to [`Journal::next`].

use crate::acceptance::Accepted;
use crate::encode_as_array;
use crate::id::{BlobId, NodeId, ReleaseHash};
use crate::limits::{KEPT_FAILURES, KEPT_GENERATIONS, KEPT_OUTPUT, MAX_REASON, MAX_RESUMES};
use crate::path::BundleName;
use crate::service::ServiceName;
use crate::status::clip;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Where a host is with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Nothing is under way.
    Idle,
    /// The standby slot holds the new generation.
    Staged,
    /// Hooks judge it.
    Validating,
    /// Hooks prepare the host; what is live is the old one.
    Draining,
    /// `current` flips, and what is installed follows.
    Activating,
    /// Hooks have programs take up the new files, and find out whether they work.
    Checking,
    /// The new generation is live and good.
    Active,
    /// The old one becomes live again, and its hooks run.
    RollingBack,
    /// The old one is live and good; the new one is quarantined.
    RolledBack,
    /// The old one is live, and hooks of its failed too: somebody has to look.
    Inconsistent,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Idle,
        Self::Staged,
        Self::Validating,
        Self::Draining,
        Self::Activating,
        Self::Checking,
        Self::Active,
        Self::RollingBack,
        Self::RolledBack,
        Self::Inconsistent,
    ];

    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Staged => "staged",
            Self::Validating => "validating",
            Self::Draining => "draining",
            Self::Activating => "activating",
            Self::Checking => "checking",
            Self::Active => "active",
            Self::RollingBack => "rolling back",
            Self::RolledBack => "rolled back",
            Self::Inconsistent => "inconsistent",
        }
    }

    /// Whether nothing is under way.
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Idle | Self::Active | Self::RolledBack | Self::Inconsistent)
    }
}

/// What is to be done next. Each may be done again after a crash in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Run the hooks of phase validate.
    Validate,
    /// Run those of drain and pre.
    Drain,
    /// Make the new generation live, and install what it installs.
    Switch,
    /// Run the hooks of activate, check, undrain, test and post.
    Check,
    /// Make the old generation live, install what it installs, and run its hooks of activate, check and undrain.
    Return,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is done.
    Done,
    /// It failed.
    Failed(Cause),
    /// The agent was started, and finds this journal.
    Restarted,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cause {
    /// In one line.
    pub reason: String,
    /// The last that the hook wrote.
    pub output: String,
}

/// One view that was or is to be live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its number on this host, from 1; 0 before it was live.
    pub number: u64,
    /// The release that it is of.
    pub release: Accepted,
    /// The tree of the bundle `plan`, if there is one.
    pub plan: Option<NodeId>,
    /// The files of that bundle which say what is made of the layers and done with it: all but `plan`.
    pub rules: Vec<BlobId>,
    /// The layers, from the lowest to the highest: each bundle and its tree.
    pub layers: Vec<(BundleName, NodeId)>,
    /// When it became live, in seconds since 1970 by the host's clock.
    pub since: u64,
    /// The number of the one in whose place it became live first; 0 for none.
    pub replaced: u64,
}
encode_as_array!(Generation { number, release, plan, rules, layers, since, replaced });

impl Generation {
    /// Whether both show the same with the same services.
    pub fn is_same(&self, other: &Self) -> bool {
        let roots = |generation: &Self| generation.layers.iter().map(|(_, root)| *root).collect::<Vec<_>>();
        (&self.rules, roots(self)) == (&other.rules, roots(other))
    }

    /// Trees that are needed to make it live.
    pub fn roots(&self) -> impl Iterator<Item = NodeId> {
        self.layers.iter().map(|(_, root)| *root).chain(self.plan)
    }
}

/// What is kept of an activation; made durable before each step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// Where it is.
    pub state: State,
    /// Which activation of this host it is, from 1.
    pub run: u64,
    /// What was live and good before.
    pub old: Option<Generation>,
    /// What is being made live, or last was.
    pub new: Option<Generation>,
    /// Services whose hooks run in it; of one that is over, those that run again with the next.
    pub touched: BTreeSet<ServiceName>,
    /// Those of them that activations before left inconsistent.
    pub owed: BTreeSet<ServiceName>,
    /// Whether the new generation may have been live in it.
    pub switched: bool,
    /// How often the agent was started in the midst of it.
    pub resumed: u64,
    /// Why it is or was rolled back.
    pub reason: String,
    /// The last that the hook wrote which failed.
    pub output: String,
}
encode_as_array!(Journal { state, run, old, new, touched, owed, switched, resumed, reason, output });

impl Default for Journal {
    fn default() -> Self {
        Self {
            state: State::Idle,
            run: 0,
            old: None,
            new: None,
            touched: BTreeSet::new(),
            owed: BTreeSet::new(),
            switched: false,
            resumed: 0,
            reason: String::new(),
            output: String::new(),
        }
    }
}

impl Journal {
    /// The journal of the next activation. What of the one before was left inconsistent is touched again.
    #[must_use]
    pub fn begin(
        &self,
        old: Option<Generation>,
        new: Generation,
        mut touched: BTreeSet<ServiceName>,
    ) -> Self {
        let owed = self.touched.clone();
        touched.extend(owed.iter().cloned());
        let (state, run) = (State::Staged, self.run.saturating_add(1));
        Self { state, run, old, new: Some(new), touched, owed, ..Self::default() }
    }

    /// What is to be done; `None` where nothing is under way.
    pub fn step(&self) -> Option<Step> {
        match self.state {
            State::Validating => Some(Step::Validate),
            State::Draining => Some(Step::Drain),
            State::Activating => Some(Step::Switch),
            State::Checking => Some(Step::Check),
            State::RollingBack => Some(Step::Return),
            // What is staged needs no more than to be written down.
            State::Staged | State::Idle | State::Active | State::RolledBack | State::Inconsistent => None,
        }
    }

    /// What follows.
    #[must_use]
    pub fn next(mut self, event: Event) -> Self {
        let state = match (self.state, &event) {
            (settled, _) if settled.is_settled() => settled,
            (State::Staged, Event::Done) => State::Validating,
            (State::Validating, Event::Done) => State::Draining,
            (State::Draining, Event::Done) => State::Activating,
            (State::Activating, Event::Done) => State::Checking,
            (State::Checking, Event::Done) => State::Active,
            (State::RollingBack, Event::Done) => State::RolledBack,
            // Staging says nothing about the release, and nothing was changed.
            (State::Staged, Event::Failed(_)) => State::Idle,
            (State::Staged | State::Validating, Event::Restarted) => State::Idle,
            // Nothing was changed, and what somebody had to look at is as it was.
            (State::Validating, Event::Failed(_)) if self.owed.is_empty() => State::RolledBack,
            (State::Validating, Event::Failed(_)) => State::Inconsistent,
            (State::Draining | State::Activating | State::Checking, Event::Failed(_)) => State::RollingBack,
            (State::RollingBack, Event::Failed(_)) => State::Inconsistent,
            (under_way, Event::Restarted) => self.resume(under_way),
            (other, _) => other,
        };
        if let Event::Failed(cause) = event {
            self.fail(cause);
        }
        if state.is_settled() && !self.state.is_settled() {
            match self.state {
                // No hook ran that changes anything.
                State::Staged | State::Validating => self.touched = core::mem::take(&mut self.owed),
                _ if state == State::Inconsistent => {}
                _ => self.touched.clear(),
            }
            self.owed.clear();
        }
        self.state = state;
        self.switched |= state == State::Activating;
        self
    }

    /// What changed something is gone on with, or gone back on with, but not for ever: the
    /// new configuration may be what ends the agent.
    fn resume(&mut self, state: State) -> State {
        self.resumed = self.resumed.saturating_add(1);
        if self.resumed < MAX_RESUMES {
            return state;
        }
        self.resumed = 0;
        let cause = format!("the agent ended {MAX_RESUMES} times while it was {}", state.as_str());
        self.fail(Cause { reason: cause, output: String::new() });
        if state == State::RollingBack { State::Inconsistent } else { State::RollingBack }
    }

    /// The first reason stays in front: it is why there is anything to be told.
    fn fail(&mut self, cause: Cause) {
        let reason = match self.reason.as_str() {
            "" => cause.reason,
            first => format!("{first}; and then: {}", cause.reason),
        };
        self.reason = clip(&reason, MAX_REASON);
        if self.output.is_empty() {
            let start = cause.output.len().saturating_sub(KEPT_OUTPUT);
            let start = (start..=cause.output.len()).find(|at| cause.output.is_char_boundary(*at));
            self.output = cause.output.get(start.unwrap_or(0)..).unwrap_or_default().to_owned();
        }
    }

    /// Whether this release failed here, and nobody has lifted that since.
    pub fn quarantines(&self, release: &ReleaseHash, orders: &Orders) -> bool {
        matches!(self.state, State::RolledBack | State::Inconsistent)
            && self.run > orders.lifted
            && self.new.as_ref().is_some_and(|new| new.release.hash == *release)
    }

    /// Trees that it may yet need.
    pub fn roots(&self) -> impl Iterator<Item = NodeId> {
        let generations = [&self.old, &self.new].into_iter().flatten();
        generations.flat_map(Generation::roots)
    }
}

/// The generations that a host can go back to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// The number of the one that is live; 0 for none.
    pub live: u64,
    /// Those that are kept, by number.
    pub generations: Vec<Generation>,
    /// Releases that were not made live, the newest last.
    pub failures: Vec<Failure>,
}
encode_as_array!(History { live, generations, failures });

/// A release that a host did not make live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The release.
    pub release: Accepted,
    /// How its activation ended; [`State::Idle`] where none was begun.
    pub state: State,
    /// When, in seconds since 1970 by the host's clock; of one that was tried again, the first time.
    pub since: u64,
    /// Why; at most [`MAX_REASON`] bytes.
    pub reason: String,
}
encode_as_array!(Failure { release, state, since, reason });

impl History {
    /// The generation of a number.
    pub fn get(&self, number: u64) -> Option<&Generation> {
        self.generations.iter().find(|kept| kept.number == number)
    }

    /// What is live.
    pub fn live(&self) -> Option<&Generation> {
        self.get(self.live)
    }

    /// What the one that is live came in the place of; where that is not kept any more, the newest that is older.
    /// Between them may be one that was gone back from.
    pub fn before_live(&self) -> Option<&Generation> {
        let replaced = self.live().and_then(|live| self.get(live.replaced));
        replaced.or_else(|| self.generations.iter().rev().find(|kept| kept.number < self.live))
    }

    /// Takes what has become live: one that is kept, by its number, or a new one, which gets the next. Whether
    /// anything differs from before.
    pub fn made_live(&mut self, generation: &Generation) -> bool {
        if let Some(kept) = self.get(generation.number).filter(|kept| kept.is_same(generation)) {
            let differs = self.live != kept.number;
            self.live = kept.number;
            return differs;
        }
        if let Some(live) = self.live().filter(|live| live.is_same(generation)) {
            // A release that changes nothing here is no other generation, but another release.
            let differs = live.release != generation.release;
            let number = live.number;
            if let Some(live) = self.generations.iter_mut().find(|kept| kept.number == number) {
                live.release = generation.release;
            }
            return differs;
        }
        let number = self.generations.last().map_or(0, |last| last.number) + 1;
        self.generations.push(Generation { number, replaced: self.live, ..generation.clone() });
        self.live = number;
        let surplus = self.generations.len().saturating_sub(KEPT_GENERATIONS);
        self.generations.drain(..surplus);
        true
    }

    /// Takes a failure. Whether it is news, and not the same again.
    pub fn failed(&mut self, failure: Failure) -> bool {
        let failure = Failure { reason: clip(&failure.reason, MAX_REASON), ..failure };
        let is_same = |kept: &Failure| {
            (kept.release, kept.state, &kept.reason) == (failure.release, failure.state, &failure.reason)
        };
        if self.failures.iter().any(is_same) {
            return false;
        }
        self.failures.push(failure);
        let surplus = self.failures.len().saturating_sub(KEPT_FAILURES);
        self.failures.drain(..surplus);
        true
    }
}

/// What the host's operator has said, which comes before what releases say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Orders {
    /// The generation that is to stay live.
    pub hold: Option<u64>,
    /// The last activation whose quarantine was lifted.
    pub lifted: u64,
}
encode_as_array!(Orders { hold, lifted });

/// What is to be live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The newest release that is held.
    Newest,
    /// This generation: the operator said so.
    Held(u64),
    /// What is live: the newest release is quarantined.
    Quarantined,
}

/// What is to be live.
pub fn target(newest: &ReleaseHash, journal: &Journal, history: &History, orders: &Orders) -> Target {
    if let Some(number) = orders.hold {
        let quarantined =
            history.get(number).is_some_and(|held| journal.quarantines(&held.release.hash, orders));
        return if quarantined { Target::Quarantined } else { Target::Held(number) };
    }
    if journal.quarantines(newest, orders) { Target::Quarantined } else { Target::Newest }
}

#[cfg(test)]
mod tests;
