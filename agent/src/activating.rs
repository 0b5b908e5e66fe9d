//! Making live what is held, release after release, and saying how that goes.

use crate::activate::{Activation, Live};
use crate::converge::{Converging, Outcome, Refused};
use crate::drift::DriftStatus;
use crate::local::{Generation, Generations};
use crate::{AgentError, AgentEvent};
use rootcast::activation::State;
use rootcast::head::Freshness;
use rootcast::limits::ACTIVATION_RETRY;
use rootcast::protocol::Interest;
use rootcast::status::{Condition, HostState, reason};
use rootcast_replica::{Held, Replica};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What joins making live to the rest of the agent.
pub(crate) struct Joints {
    /// Which bundles are followed.
    pub(crate) interest: watch::Sender<Interest>,
    /// What is said of this host to its relay.
    pub(crate) report: watch::Sender<Condition>,
    /// Changed when that is to be said now.
    pub(crate) changed: watch::Sender<()>,
    /// Why the newest update was refused, while that stands.
    pub(crate) refusal: watch::Receiver<Option<String>>,
    /// How the live tree is kept.
    pub(crate) drift: watch::Receiver<DriftStatus>,
    /// What is live, and what it changed, for local clients.
    pub(crate) generations: watch::Sender<Generations>,
    pub(crate) events: Arc<dyn Fn(AgentEvent) + Send + Sync>,
}

/// What was last said.
#[derive(Default)]
struct Said {
    /// The release that is live; 0 for none.
    active: u64,
    files: u64,
    /// Why the newest release could not be made live, while that stands.
    failure: Option<String>,
    /// The generation that the operator holds.
    held: Option<u64>,
    /// What of the live tree an operator should look at.
    alarm: Option<String>,
    /// Nothing before the first head.
    freshness: Option<Freshness>,
    /// Secrets of other hosts.
    left_out: u64,
    converged: bool,
}

/// Makes live what the replica holds.
pub(crate) struct Agent {
    replica: Arc<Replica>,
    activation: Arc<Mutex<Activation>>,
    converging: Converging,
    joints: Joints,
    said: Said,
}

impl Agent {
    pub(crate) fn new(
        replica: Arc<Replica>,
        activation: Arc<Mutex<Activation>>,
        converging: Converging,
        joints: Joints,
    ) -> Self {
        Self { replica, activation, converging, joints, said: Said::default() }
    }

    /// Makes live whatever is held, and then each newer release.
    pub(crate) async fn activate_all(mut self) {
        let (mut held, mut head) = (self.replica.watch_held(), self.replica.watch_head());
        let (mut refusal, mut drift) = (self.joints.refusal.clone(), self.joints.drift.clone());
        loop {
            head.mark_unchanged();
            self.tell_freshness();
            let newest = held.borrow_and_update().clone();
            let settled = match newest {
                None => true,
                // The newest record was lost: an older release is never gone back to, its
                // successor is on its way (architecture invariant 2).
                Some(older)
                    if self
                        .replica
                        .floors()
                        .release
                        .is_some_and(|floor| older.accepted().rank() < floor.rank()) =>
                {
                    tracing::warn!(
                        held = older.accepted().number,
                        "the newest release is being fetched again; what is live stays"
                    );
                    true
                }
                Some(newest) => self.activate(&newest).await,
            };
            // Nothing to do: the time to make the next activation cheap.
            if settled && !held.has_changed().unwrap_or(true) {
                let _ = self.blocking(|activation| activation.prepare_standby()).await;
            }
            let retry = async {
                if settled {
                    std::future::pending().await
                } else {
                    tokio::time::sleep(ACTIVATION_RETRY).await
                }
            };
            tokio::pin!(retry);
            loop {
                let lapses = self.replica.lapses();
                let lapse = async {
                    match lapses {
                        Some(wait) => tokio::time::sleep(wait).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    changed = held.changed() => if changed.is_err() { return } else { break },
                    () = &mut retry => break,
                    () = self.converging.rung() => break,
                    changed = head.changed() => if changed.is_err() { return },
                    changed = refusal.changed() => {
                        if changed.is_err() { return }
                        self.tell(HostState::Active);
                    }
                    changed = drift.changed() => {
                        if changed.is_err() { return }
                        self.tell_drift();
                    }
                    () = lapse => {}
                }
                self.tell_freshness();
                self.tell_converged();
            }
        }
    }

    /// Says so where the host has come to know, or does not know any more, that it is up to date.
    fn tell_freshness(&mut self) {
        let freshness = self.replica.freshness();
        let stale = |freshness: Option<Freshness>| freshness.is_none_or(|known| known == Freshness::Stale);
        if self.said.freshness.is_some() && stale(self.said.freshness) == stale(Some(freshness)) {
            return;
        }
        self.said.freshness = Some(freshness);
        match freshness {
            Freshness::Fresh { until } => tracing::info!(until, "the head is good"),
            Freshness::Stale => tracing::warn!("STALE: no good head; what runs stays, and may be old"),
        }
        if self.said.active > 0 {
            self.tell(HostState::Active);
        }
        (self.joints.events)(AgentEvent::Freshness(freshness));
    }

    /// Says to local clients what is live now.
    async fn tell_generation(&self) {
        let paths = self.blocking(|activation| Ok(activation.take_changed())).await.unwrap_or_default();
        let Some(live) = self.converging.live() else { return };
        let held = self.replica.held().filter(|held| held.accepted() == live.release);
        let issued = held.map(|held| held.bundles.release().release().issued);
        let next = Generation { number: live.number, since: self.replica.machine().seconds(), issued };
        self.joints.generations.send_if_modified(|generations| generations.push(next, paths));
    }

    /// Says so where the live tree has begun, or ceased, to need an operator.
    fn tell_drift(&mut self) {
        let alarm = self.joints.drift.borrow_and_update().alarm.clone();
        if alarm != self.said.alarm {
            self.said.alarm = alarm;
            if self.said.active > 0 {
                self.tell(HostState::Active);
            }
        }
    }

    /// Makes a release live. Whether nothing is left to be tried again.
    async fn activate(&mut self, held: &Arc<Held>) -> bool {
        let number = held.accepted().number;
        self.tell(HostState::Updating);
        let outcome = self.attempt(held).await;
        match outcome {
            Ok(outcome) => {
                self.settled(outcome).await;
                true
            }
            // A wider subscription is on its way to the relay and brings what is missing.
            Err(AgentError::Awaiting(bundles)) => {
                tracing::info!(?bundles, "waiting for bundles");
                if let Some((release, live)) = self.converging.keep_live().await {
                    self.show(release, live).await;
                    self.tell(HostState::Updating);
                }
                true
            }
            Err(error) => {
                let why = error.to_string();
                // It is tried again and again, and told once.
                if self.converging.remember_failure(held.accepted(), State::Idle, &why).await {
                    tracing::error!(number, %error, "the release could not be made live; what was live stays");
                }
                self.said.failure = Some(reason(&why));
                if let Some((release, live)) = self.converging.keep_live().await {
                    self.show(release, live).await;
                }
                self.tell(HostState::Failed);
                (self.joints.events)(AgentEvent::Failed { number, reason: why });
                if error.needs_repair() {
                    let replica = self.replica.clone();
                    // The damage may be wider than the object met first.
                    let machine = replica.machine().clone();
                    let _ = machine.blocking(move || replica.find_damage()).await;
                    self.replica.request_repair();
                }
                false
            }
        }
    }

    /// Says what is live now, and what is not.
    async fn settled(&mut self, Outcome { release, live, refused, held }: Outcome) {
        self.said.held = held;
        if let Some(live) = live {
            self.show(release, live).await;
        }
        self.said.failure = refused.as_ref().map(|refused| reason(&refused.reason));
        self.tell(if refused.is_some() { HostState::Failed } else { HostState::Active });
        if let Some(Refused { release: number, state, reason, output }) = refused {
            tracing::error!(
                number,
                state = state.as_str(),
                output,
                "{reason}; it waits for a newer release, or for `rootcast agent release`"
            );
            let live = self.said.active;
            (self.joints.events)(AgentEvent::RolledBack { number, live, state, reason, output });
        }
    }

    /// Says what is live.
    async fn show(&mut self, release: u64, live: Live) {
        if live.left_out != self.said.left_out {
            self.said.left_out = live.left_out;
            tracing::info!(count = live.left_out, "secrets of this host's layers are for other hosts");
        }
        let news = release != self.said.active;
        (self.said.active, self.said.files) = (release, live.files);
        if news || live.flipped {
            self.tell_generation().await;
            let Live { files, report, flipped, secrets, left_out } = live;
            let (number, healed) = (release, self.replica.healed());
            tracing::info!(number, files, written = report.written, syncs = report.syncs, "active");
            (self.joints.events)(AgentEvent::Active {
                number,
                files,
                report,
                flipped,
                healed,
                secrets,
                left_out,
            });
        }
    }

    async fn attempt(&mut self, held: &Arc<Held>) -> Result<Outcome, AgentError> {
        let newest = held.clone();
        let required = self.blocking(move |activation| activation.required(&newest)).await;
        let required = required.inspect_err(|error| {
            if matches!(error, AgentError::NoPlan) {
                self.replica.leave_parent();
            }
        })?;
        let wanted = Interest::named(required.subscription.iter().cloned());
        let widened = self.joints.interest.send_if_modified(|interest| {
            let changes = *interest != wanted;
            *interest = wanted;
            changes
        });
        let newest = held.clone();
        match self.blocking(move |activation| activation.generation(&newest, &required)).await {
            // They were asked for before; another parent may not hide them.
            Err(AgentError::Awaiting(bundles)) if !widened => {
                self.replica.leave_parent();
                Err(AgentError::Withheld(bundles))
            }
            generation => self.converging.towards(generation?).await,
        }
    }

    /// Runs work that waits for the disk on a thread that may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Activation) -> Result<T, AgentError> + Send + 'static,
    ) -> Result<T, AgentError> {
        let activation = self.activation.clone();
        let done = self
            .replica
            .machine()
            .blocking(move || work(&mut activation.lock().unwrap_or_else(PoisonError::into_inner)));
        done.await.map_err(|_| AgentError::Stopped)?
    }

    /// Says how this host is doing. What was refused or could not be made live is a failure, whatever
    /// runs, until that is over.
    fn tell(&mut self, state: HostState) {
        let why = self.said.failure.clone().or_else(|| self.joints.refusal.borrow().clone());
        let why = why.or_else(|| self.said.alarm.as_deref().map(reason));
        let (state, why) = match (state, why) {
            (HostState::Active | HostState::Failed, Some(why)) => (HostState::Failed, why),
            (HostState::Active, None) if self.replica.freshness() == Freshness::Stale => {
                (HostState::Stale, String::new())
            }
            (HostState::Active, None) => {
                (HostState::Active, self.said.held.map(held_back).unwrap_or_default())
            }
            (state, _) => (state, String::new()),
        };
        let before = self.joints.report.borrow().clone();
        let same = (before.release, before.state) == (self.said.active, state);
        self.joints.report.send_replace(Condition {
            release: self.said.active,
            state,
            since: if same { before.since } else { self.replica.machine().seconds() },
            reason: why,
            files: self.said.files,
            healed: self.replica.healed(),
            received: self.replica.received(),
            refused: 0,
        });
        self.joints.changed.send_replace(());
        self.tell_converged();
    }

    fn tell_converged(&mut self) {
        let known = self.replica.head().map(|head| head.head().release.rank());
        let held = self.replica.held().map(|held| held.accepted().rank());
        let converged =
            self.joints.report.borrow().state == HostState::Active && known.is_some() && known <= held;
        if std::mem::replace(&mut self.said.converged, converged) != converged {
            (self.joints.events)(AgentEvent::Converged(converged));
        }
    }
}

/// Why a host that is well may not show the newest release.
fn held_back(generation: u64) -> String {
    format!("held at generation {generation} by its operator, until `rootcast agent release`")
}
