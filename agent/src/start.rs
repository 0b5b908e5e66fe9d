//! The agent as a process.

use crate::books::Books;
use crate::run::run_reloading;
use crate::{AgentConfig, AgentError, AgentEvent};
use rootcast::head::Freshness;
use rootcast::limits::NEWER_WAIT;
use rootcast_replica::operations::{self, Event, Events};
use rootcast_replica::{FollowEvent, Machine, Member, Replica, System};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Runs an agent in this process, as [`operations::start`] says.
///
/// # Errors
/// When it cannot start.
pub fn start(path: &Path, json: bool, level: Option<&str>) -> Result<(), AgentError> {
    let config = AgentConfig::load(path)?;
    operations::start((path, config), json, level, |settings, events, ended| {
        run_reloading(Arc::new(System), settings, events, ended)
    })
}

/// How it ended with [`once`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once {
    /// The host shows what it should, and did for as long as was asked for.
    Converged,
    /// The newest release failed here: why, and the end of what the hook wrote.
    RolledBack(String, String),
    /// It took too long; with the last failure, if there was one.
    TimedOut(Option<String>),
    /// The process was asked to end.
    Ended,
}

/// As [`start`], but ends when the host has shown for `stable` what it should while a relay said what that is, when
/// a release is rolled back, or after `most`.
///
/// # Errors
/// As [`start`].
pub fn once(
    path: &Path,
    json: bool,
    level: Option<&str>,
    stable: Duration,
    most: Duration,
) -> Result<Once, AgentError> {
    let config = AgentConfig::load(path)?;
    let end = Arc::new(Mutex::new(Once::Ended));
    let ending = end.clone();
    operations::start((path, config), json, level, |settings, events: Events<AgentEvent>, ended| {
        let told = watch::Sender::new(Told::default());
        let listened = told.subscribe();
        let listening = move |event: AgentEvent| {
            told.send_if_modified(|told| told.hear(&event));
            events(event);
        };
        let over = async move {
            let last = listened.clone();
            let outcome = tokio::select! {
                biased;
                () = ended => Once::Ended,
                outcome = stays(listened, stable) => outcome,
                () = tokio::time::sleep(most) => Once::TimedOut(last.borrow().failure.clone()),
            };
            *ending.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
        };
        run_reloading(Arc::new(System), settings, Arc::new(listening), over)
    })?;
    let end = end.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(end)
}

/// What an agent has said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    /// Whether a relay says what is newest: what is known without one may be old.
    follows: bool,
    /// How it would end if it stayed so.
    outcome: Option<Once>,
    /// The last failure.
    failure: Option<String>,
}

impl Told {
    /// Whether anything is otherwise now.
    fn hear(&mut self, event: &AgentEvent) -> bool {
        let before = self.clone();
        match event {
            AgentEvent::Follow(FollowEvent::Connected { .. }) => self.follows = true,
            AgentEvent::Follow(FollowEvent::Lost { .. }) => self.follows = false,
            AgentEvent::Converged(true) => self.outcome = Some(Once::Converged),
            AgentEvent::Converged(false) if self.outcome == Some(Once::Converged) => self.outcome = None,
            AgentEvent::Activation { .. } | AgentEvent::Active { .. } => self.outcome = None,
            AgentEvent::RolledBack { reason, output, .. } => {
                self.outcome = Some(Once::RolledBack(reason.clone(), output.clone()));
            }
            AgentEvent::Failed { reason, .. } => self.failure = Some(reason.clone()),
            _ => {}
        }
        *self != before
    }
}

/// Completes when it was as it is for as long, without a break.
async fn stays(mut told: watch::Receiver<Told>, stable: Duration) -> Once {
    loop {
        let now = told.borrow_and_update().clone();
        let over = async {
            match now.outcome.filter(|_| now.follows) {
                None => std::future::pending().await,
                Some(outcome) => {
                    // A release that failed is not better for being looked at; but a newer one may be on its way.
                    let bad = matches!(outcome, Once::RolledBack(..));
                    tokio::time::sleep(if bad { stable.min(NEWER_WAIT) } else { stable }).await;
                    outcome
                }
            }
        };
        tokio::select! {
            biased;
            changed = told.changed() => if changed.is_err() { return Once::Ended },
            outcome = over => return outcome,
        }
    }
}

/// Drops from the store of an agent that does not run what neither its releases nor its generations need.
/// Returns the bytes on disk before and after.
///
/// # Errors
/// When the store is in use, or fails.
pub fn collect(path: &Path) -> Result<(u64, u64), AgentError> {
    let config = AgentConfig::load(path)?;
    let machine: Arc<dyn Machine> = Arc::new(System);
    let member = Member::load_on(machine.clone(), &config.identity, &config.state)?;
    let channel = config.channel()?;
    let directory = config.state.join("channels").join(channel.as_str().replace('/', "%"));
    let replica = Replica::open(machine.store(&directory)?, member.trust, channel, false, Some(directory))?;
    replica.pin(Books::read(&config.state)?.roots());
    let before = replica.store().stats().bytes_on_disk;
    replica.collect_now()?;
    Ok((before, replica.store().stats().bytes_on_disk))
}

impl Event for AgentEvent {
    fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Ready { name, operations } => json!({
                "event": "ready", "name": name, "operations": operations.map(|address| address.to_string()),
            }),
            Self::Active { number, files, report, flipped, healed, secrets, left_out } => json!({
                "event": "active", "release": number, "files": files, "flipped": flipped, "healed": healed,
                "written": report.written, "removed": report.removed, "syncs": report.syncs,
                "secrets": secrets, "secrets_left_out": left_out,
            }),
            Self::Drift(found) => json!({
                "event": "drift", "paths": found.paths, "count": found.count, "repaired": found.repaired,
                "flipped": found.flipped, "removed": found.removed, "micros": found.took.as_micros() as u64,
                "set_aside": found.set_aside.as_ref().map(|path| path.display().to_string()),
            }),
            Self::Converged(is) => json!({ "event": "converged", "is": is }),
            Self::Activation { release, state } => {
                json!({ "event": "activation", "release": release, "state": state.as_str() })
            }
            Self::Hook(run) => json!({
                "event": "hook", "service": run.service.as_str(), "phase": run.phase.as_str(), "what": run.what,
                "failure": run.failure, "output": run.output, "milliseconds": run.milliseconds,
            }),
            Self::RolledBack { number, live, state, reason, output } => json!({
                "event": "rolled-back", "release": number, "live": live, "state": state.as_str(),
                "reason": reason, "output": output,
            }),
            Self::Failed { number, reason } => {
                json!({ "event": "failed", "release": number, "reason": reason })
            }
            Self::Freshness(Freshness::Fresh { until }) => json!({ "event": "fresh", "until": until }),
            Self::Freshness(Freshness::Stale) => json!({ "event": "stale" }),
            Self::Follow(event) => event.to_json(),
        }
    }
}
