//! The agent's life: follow, verify, activate, report.

use crate::activate::{Activation, Live, Required};
use crate::secrets::Secrets;
use crate::slots::{Report, Slots};
use crate::{AgentConfig, AgentError, load_decryption_key};
use rootcast::head::Freshness;
use rootcast::limits::{ACTIVATION_RETRY, SHUTDOWN_WAIT};
use rootcast::protocol::{HostState, HostStatus, Interest};
use rootcast::topology::Patience;

use rootcast_replica::renewal::{ask_over_https, ask_parents, keep_renewed};
use rootcast_replica::{
    Fallback, Follow, FollowEvent, Held, Machine, Member, Replica, System, Tending, child_of, follow,
    known_addresses,
};
use rootcast_transport::{Code, Identity};
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What happens in an agent, for whoever runs it.
#[derive(Debug, Clone)]
pub enum AgentEvent {
    /// Something about following a relay.
    Follow(FollowEvent),
    /// A release is live on disk.
    Active {
        /// Its number.
        number: u64,
        /// Files of the view.
        files: u64,
        /// What staging took.
        report: Report,
        /// Whether `current` flipped; not where the view did not change.
        flipped: bool,
        /// Damaged objects healed since the start.
        healed: u64,
        /// Secrets of the view, which are counted in its files.
        secrets: u64,
        /// Secrets of other hosts, which the view has not.
        left_out: u64,
    },
    /// Whether the host knows that it is up to date has changed.
    Freshness(Freshness),
    /// A release could not be made live; what was live stays.
    Failed {
        /// Its number.
        number: u64,
        /// Why.
        reason: String,
    },
}

struct Agent {
    name: String,
    replica: Arc<Replica>,
    activation: Arc<Mutex<Activation>>,
    interest: watch::Sender<Interest>,
    report: watch::Sender<Vec<HostStatus>>,
    events: Arc<dyn Fn(AgentEvent) + Send + Sync>,
    active: u64,
    files: u64,
    /// What was last said of it; nothing before the first head.
    freshness: Option<Freshness>,
    /// Secrets of other hosts, as they were last told of.
    left_out: u64,
}

/// Runs an agent until `shutdown` completes.
///
/// # Errors
/// When it cannot start; later trouble is handled, reported and logged.
pub async fn run(
    config: AgentConfig,
    events: Arc<dyn Fn(AgentEvent) + Send + Sync>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    run_on(Arc::new(System), config, events, shutdown).await
}

/// As [`run`], on another machine than this process's.
///
/// # Errors
/// As [`run`].
pub async fn run_on(
    machine: Arc<dyn Machine>,
    config: AgentConfig,
    events: Arc<dyn Fn(AgentEvent) + Send + Sync>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let member = Member::load_on(machine.clone(), &config.identity, &config.state)?;
    let channel = config.channel()?;
    let directory = config.state.join("channels").join(channel.as_str().replace('/', "%"));
    make(&config.live)?;
    let store = machine.store(&directory)?;
    let replica = Arc::new(Replica::open(store, member.trust.clone(), channel, false, Some(directory))?);
    let name = member.identity.name().name().to_owned();
    let labels = member.identity.name().labels().of_host(&name);
    let interest = watch::Sender::new(Interest::named(Required::at_first(&labels)?));
    let slots = Slots::open(&config.live)?;
    let secrets = Secrets::new(load_decryption_key(&config.identity)?, config.secrets_directory(&name));
    let activation = Activation::new(replica.clone(), labels, slots).with_secrets(secrets);
    let activation = Arc::new(Mutex::new(activation));
    let endpoint = machine.dial_only(&member.identity)?;
    let dialer = machine.dial_https(&member.identity)?;
    let report = watch::Sender::new(Vec::new());
    let heard = events.clone();
    let known = known_addresses(&config.relays);
    let ways = watch::Sender::new(known.clone());
    let following = follow(Follow {
        endpoint: endpoint.clone(),
        child: child_of(member.identity.name()),
        parents: known.clone(),
        patience: Patience::STANDARD,
        serves: None,
        upstream: None,
        ways: ways.clone(),
        replica: replica.clone(),
        interest: interest.subscribe(),
        report: report.subscribe(),
        fallback: dialer.clone().map(Fallback::new),
        events: Arc::new(move |event| {
            tracing::info!(?event, "relay");
            heard(AgentEvent::Follow(event));
        }),
    });
    tracing::info!(channel = %replica.channel(), relays = ?config.relays, live = %config.live.display(), "following");
    let (adopting, dialling) = ((endpoint.clone(), dialer.clone()), (endpoint.clone(), dialer));
    let adopt = move |renewed: &Identity| {
        let (endpoint, dialer) = &adopting;
        endpoint.adopt(renewed)?;
        dialer.as_ref().map_or(Ok(()), |dialer| dialer.adopt(renewed))
    };
    let (known, clock) = (ways.subscribe(), machine.clone());
    let renewing = keep_renewed(machine, config.identity.clone(), adopt, move |own, request| {
        let ((endpoint, dialer), relays, now) = (dialling.clone(), known.borrow().clone(), clock.now());
        async move {
            match (ask_parents(&endpoint, &relays, &own, now, request.clone()).await, dialer) {
                (Err(error), Some(dialer)) => {
                    tracing::info!(%error, "renewing over HTTPS");
                    ask_over_https(&dialer, &relays, &own, now, request).await
                }
                (answered, _) => answered,
            }
        }
    });
    let tending = replica.clone().tend(Tending::Follows);
    let (active, files, left_out, freshness) = (0, 0, 0, None);
    let agent =
        Agent { name, replica, activation, interest, report, events, active, files, left_out, freshness };
    tokio::select! {
        biased;
        () = shutdown => {}
        () = following => {}
        () = tending => {}
        () = renewing => {}
        () = agent.activate_all() => {}
    }
    tracing::info!("stopping; what is live stays");
    endpoint.close(Code::LEAVING, "the agent is stopping");
    let _ = tokio::time::timeout(SHUTDOWN_WAIT, endpoint.wait_idle()).await;
    Ok(())
}

fn make(directory: &Path) -> Result<(), AgentError> {
    std::fs::create_dir_all(directory)
        .map_err(|source| AgentError::MakeDirectory { path: directory.to_owned(), source })
}

impl Agent {
    /// Makes live whatever is held, and then each newer release.
    async fn activate_all(mut self) {
        let (mut held, mut head) = (self.replica.watch_held(), self.replica.watch_head());
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
                    changed = head.changed() => if changed.is_err() { return },
                    () = lapse => {}
                }
                self.tell_freshness();
            }
        }
    }

    /// Says so where the host has come to know, or does not know any more, that it is up to date.
    fn tell_freshness(&mut self) {
        let freshness = self.replica.freshness();
        let stale = |freshness: Option<Freshness>| freshness.is_none_or(|known| known == Freshness::Stale);
        if self.freshness.is_some() && stale(self.freshness) == stale(Some(freshness)) {
            return;
        }
        self.freshness = Some(freshness);
        match freshness {
            Freshness::Fresh { until } => tracing::info!(until, "the head is good"),
            Freshness::Stale => tracing::warn!("STALE: no good head; what runs stays, and may be old"),
        }
        if self.active > 0 {
            self.tell(HostState::Active);
        }
        (self.events)(AgentEvent::Freshness(freshness));
    }

    /// Makes a release live. Whether nothing is left to be tried again.
    async fn activate(&mut self, held: &Arc<Held>) -> bool {
        let number = held.accepted().number;
        self.tell(HostState::Updating);
        let outcome = self.attempt(held).await;
        match outcome {
            Ok(live) => {
                if live.left_out != self.left_out {
                    self.left_out = live.left_out;
                    tracing::info!(
                        count = live.left_out,
                        "secrets of this host's layers are for other hosts"
                    );
                }
                let news = number != self.active;
                (self.active, self.files) = (number, live.files);
                self.tell(HostState::Active);
                if news || live.flipped {
                    let Live { files, report, flipped, secrets, left_out } = live;
                    let healed = self.replica.healed();
                    tracing::info!(number, files, written = report.written, syncs = report.syncs, "active");
                    (self.events)(AgentEvent::Active {
                        number,
                        files,
                        report,
                        flipped,
                        healed,
                        secrets,
                        left_out,
                    });
                }
                true
            }
            // A wider subscription is on its way to the relay and brings what is missing.
            Err(AgentError::Awaiting(bundles)) => {
                tracing::info!(?bundles, "waiting for bundles");
                true
            }
            Err(error) => {
                tracing::error!(number, %error, "the release could not be made live; what was live stays");
                self.tell(HostState::Failed);
                (self.events)(AgentEvent::Failed { number, reason: error.to_string() });
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

    async fn attempt(&self, held: &Arc<Held>) -> Result<Live, AgentError> {
        let newest = held.clone();
        let required = self.blocking(move |activation| activation.required(&newest)).await;
        let required = required.inspect_err(|error| {
            if matches!(error, AgentError::NoPlan) {
                self.replica.leave_parent();
            }
        })?;
        let wanted = Interest::named(required.subscription.iter().cloned());
        let widened = self.interest.send_if_modified(|interest| {
            let changes = *interest != wanted;
            *interest = wanted;
            changes
        });
        let newest = held.clone();
        match self.blocking(move |activation| activation.activate(&newest, &required)).await {
            // They were asked for before; another parent may not hide them.
            Err(AgentError::Awaiting(bundles)) if !widened => {
                self.replica.leave_parent();
                Err(AgentError::Withheld(bundles))
            }
            outcome => outcome,
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

    fn tell(&self, state: HostState) {
        let state = match state {
            HostState::Active if self.replica.freshness() == Freshness::Stale => HostState::Stale,
            state => state,
        };
        let row = HostStatus {
            name: self.name.clone(),
            role: "agent".into(),
            parent: String::new(),
            channel: self.replica.channel().clone(),
            release: self.active,
            state,
            files: self.files,
            healed: self.replica.healed(),
            received: self.replica.received(),
            refused: 0,
        };
        self.report.send_replace(vec![row]);
    }
}
