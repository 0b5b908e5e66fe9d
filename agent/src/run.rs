//! The agent's life: follow, verify, activate, report.

use crate::activate::{Activation, Live};
use crate::books::Books;
use crate::converge::{Converging, Outcome, Refused};
use crate::drift::{DriftStatus, Found, Keeper};
use crate::local::{self, Generation, Generations, Local, Relay};
use crate::operations::Watched;
use crate::relays::{Heard, Relays, adopting};
use crate::required::Required;
use crate::secrets::Secrets;
use crate::services::HookRun;
use crate::slots::{Patterns, Report, Slots};
use crate::{AgentConfig, AgentError, load_decryption_key};
use rootcast::activation::State;
use rootcast::head::Freshness;
use rootcast::limits::{ACTIVATION_RETRY, SHUTDOWN_WAIT};
use rootcast::protocol::Interest;
use rootcast::status::{Condition, HostState, reason};
use rootcast_replica::operations::{Listener, Vitals, operate, reread_identity};
use rootcast_replica::renewal::{ask_either_way, keep_renewed};
use rootcast_replica::{
    Fallback, FollowEvent, Held, Machine, Member, Replica, System, Tending, child_of, known_addresses,
};
use rootcast_transport::Code;
use rootcast_view::Variables;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::UnixDatagram;
use tokio::sync::watch;

/// What happens in an agent, for whoever runs it.
#[derive(Debug, Clone)]
pub enum AgentEvent {
    /// It follows its relays.
    Ready {
        /// The host's name.
        name: String,
        /// Where operators are served, if they are.
        operations: Option<SocketAddr>,
    },
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
    /// The live tree was not as its release has it.
    Drift(Found),
    /// Whether the host knows that it is up to date has changed.
    Freshness(Freshness),
    /// An activation with services has come to a state.
    Activation {
        /// The release.
        release: u64,
        /// The state.
        state: State,
    },
    /// A hook was run.
    Hook(HookRun),
    /// Whether this host shows what it should has changed: the newest release that a good head names, or what
    /// the operator holds.
    Converged(bool),
    /// A release is quarantined: its activation was rolled back, or is inconsistent.
    RolledBack {
        /// Its number.
        number: u64,
        /// What is live instead; 0 for nothing good.
        live: u64,
        /// How it ended.
        state: State,
        /// Why.
        reason: String,
        /// The last that the hook wrote which failed.
        output: String,
    },
    /// A release could not be made live; what was live stays.
    Failed {
        /// Its number.
        number: u64,
        /// Why.
        reason: String,
    },
}

struct Agent {
    replica: Arc<Replica>,
    activation: Arc<Mutex<Activation>>,
    converging: Converging,
    /// Rung when the operator has given orders.
    bell: Option<UnixDatagram>,
    interest: watch::Sender<Interest>,
    /// What is said of this host to its relay.
    report: watch::Sender<Condition>,
    changed: watch::Sender<()>,
    /// Why the newest update was refused, while that stands.
    refusal: watch::Receiver<Option<String>>,
    /// How the live tree is kept.
    drift: watch::Receiver<DriftStatus>,
    /// What is live, and what it changed, for local clients.
    generations: watch::Sender<Generations>,
    /// Why the newest release could not be made live, while that stands.
    failure: Option<String>,
    /// The generation that the operator holds.
    held: Option<u64>,
    /// What of the live tree an operator should look at.
    alarm: Option<String>,
    events: Arc<dyn Fn(AgentEvent) + Send + Sync>,
    active: u64,
    files: u64,
    /// What was last said of it; nothing before the first head.
    freshness: Option<Freshness>,
    /// Secrets of other hosts, as they were last told of.
    left_out: u64,
    /// What was last said of that.
    converged: bool,
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
    let settings = watch::Sender::new(config);
    run_reloading(machine, settings.subscribe(), events, shutdown).await
}

/// As [`run_on`], with settings that may change meanwhile: relays, and where operators are served.
pub(crate) async fn run_reloading(
    machine: Arc<dyn Machine>,
    settings: watch::Receiver<AgentConfig>,
    events: Arc<dyn Fn(AgentEvent) + Send + Sync>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let config = settings.borrow().clone();
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
    let ignored = Patterns::new(&config.ignore).unwrap_or_default();
    let variables = Variables { host: name.clone(), labels, facts: config.facts.clone() };
    let activation = Activation::new(replica.clone(), variables, slots)
        .with_secrets(secrets)
        .with_ignored(ignored.clone());
    let turned = activation.turned();
    let activation = Arc::new(Mutex::new(activation));
    let endpoint = machine.dial_only(&member.identity)?;
    let dialer = machine.dial_https(&member.identity)?;
    let report = watch::Sender::new(Condition::none(machine.seconds()));
    let changed = watch::Sender::new(());
    let (refused, refusal) = watch::channel(None);
    let replicas = BTreeMap::from([(replica.channel().clone(), replica.clone())]);
    let vitals = Arc::new(Vitals::new(replicas, config.identity.clone(), true));
    let operators = open_for_operators(&config).await?;
    let operations = operators.as_ref().and_then(|listener| listener.address().ok());
    let watched = Watched::new(vitals.clone(), replica.clone(), report.subscribe());
    let operating = operate(operators, settings.clone(), |config| config.operations, Arc::new(watched));
    let own = member.identity.name().clone();
    let child = child_of(&own);
    let adopt = adopting(endpoint.clone(), dialer.clone());
    let rereading = reread_identity(settings.clone(), config.identity.clone(), own, adopt.clone());
    let (generations, relay) = (watch::Sender::default(), watch::Sender::new(Relay::default()));
    let (live, standing) = (generations.subscribe(), relay.subscribe());
    let heard = Arc::new(Heard { vitals, refused, relay, events: events.clone() });
    let ways = watch::Sender::new(known_addresses(&config.relays));
    let known = ways.subscribe();
    let fallback = dialer.clone().map(Fallback::new);
    let relays =
        Relays { endpoint: endpoint.clone(), fallback, child, ways, replica: replica.clone(), heard };
    let allowing = settings.clone();
    let said = (report.subscribe(), changed.subscribe());
    let following = relays.follow(interest.subscribe(), said, settings);
    tracing::info!(channel = %replica.channel(), relays = ?config.relays, live = %config.live.display(), "following");
    let (dialling, clock) = ((endpoint.clone(), dialer), machine.clone());
    let renewing = keep_renewed(machine, config.identity.clone(), adopt, move |own, request| {
        let ((endpoint, dialer), relays, now) = (dialling.clone(), known.borrow().clone(), clock.now());
        async move { ask_either_way(&endpoint, dialer.as_ref(), &relays, &own, now, request).await }
    });
    let tending = replica.clone().tend(Tending::Follows);
    let drift = watch::Sender::new(DriftStatus::default());
    let kept = drift.subscribe();
    let local = local_api(&config);
    let asked = Local::new(
        name.clone(),
        config.live.clone(),
        replica.clone(),
        report.subscribe(),
        drift.subscribe(),
        standing,
        live,
    );
    let answering = local::serve(local, Arc::new(asked));
    let keeper = Keeper {
        activation: activation.clone(),
        replica: replica.clone(),
        home: config.live.clone(),
        mode: config.drift,
        ignored,
        settings: allowing.clone(),
        turned,
        status: drift,
        events: events.clone(),
    };
    let (active, files, left_out, freshness) = (0, 0, 0, None);
    let books = Books::read(&config.state)?;
    let bell = books.bell();
    if let Err(error) = &bell {
        tracing::warn!(%error, "orders are looked at when a release comes, and at the start, only");
    }
    let (activating, of) = (activation.clone(), replica.clone());
    let converging = Converging::new(activating, of, allowing, events.clone(), books);
    let agent = Agent {
        replica,
        activation,
        converging,
        bell: bell.ok(),
        interest,
        report,
        changed,
        refusal,
        drift: kept,
        generations,
        failure: None,
        held: None,
        alarm: None,
        events,
        active,
        files,
        left_out,
        freshness,
        converged: false,
    };
    (agent.events)(AgentEvent::Ready { name, operations });
    tokio::select! {
        biased;
        () = shutdown => {}
        () = operating => {}
        () = rereading => {}
        () = following => {}
        () = tending => {}
        () = renewing => {}
        () = keeper.keep() => {}
        () = answering => {}
        () = agent.activate_all() => {}
    }
    tracing::info!("stopping; what is live stays");
    endpoint.close(Code::LEAVING, "the agent is stopping");
    let _ = tokio::time::timeout(SHUTDOWN_WAIT, endpoint.wait_idle()).await;
    Ok(())
}

/// The socket of the local API. A host without it is as good as before to everybody else.
fn local_api(config: &AgentConfig) -> Option<tokio::net::UnixListener> {
    let path = config.socket()?;
    let opened = local::open(&path);
    opened
        .inspect_err(|error| {
            tracing::error!(path = %path.display(), %error, "the local API cannot be served; `socket` names another place");
        })
        .ok()
}

async fn open_for_operators(config: &AgentConfig) -> Result<Option<Listener>, AgentError> {
    let Some(address) = config.operations else { return Ok(None) };
    let opened = Listener::open(address).await;
    opened.map(Some).map_err(|source| AgentError::Operations { address, source })
}

fn make(directory: &Path) -> Result<(), AgentError> {
    std::fs::create_dir_all(directory)
        .map_err(|source| AgentError::MakeDirectory { path: directory.to_owned(), source })
}

impl Agent {
    /// Makes live whatever is held, and then each newer release.
    async fn activate_all(mut self) {
        let (mut held, mut head) = (self.replica.watch_held(), self.replica.watch_head());
        let (mut refusal, mut drift) = (self.refusal.clone(), self.drift.clone());
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
                    () = rung(self.bell.as_ref()) => break,
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

    /// Says to local clients what is live now.
    async fn tell_generation(&self) {
        let paths = self.blocking(|activation| Ok(activation.take_changed())).await.unwrap_or_default();
        let Some(live) = self.converging.live() else { return };
        let held = self.replica.held().filter(|held| held.accepted() == live.release);
        let issued = held.map(|held| held.bundles.release().release().issued);
        let next = Generation { number: live.number, since: self.replica.machine().seconds(), issued };
        self.generations.send_if_modified(|generations| generations.push(next, paths));
    }

    /// Says so where the live tree has begun, or ceased, to need an operator.
    fn tell_drift(&mut self) {
        let alarm = self.drift.borrow_and_update().alarm.clone();
        if alarm != self.alarm {
            self.alarm = alarm;
            if self.active > 0 {
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
                true
            }
            Err(error) => {
                tracing::error!(number, %error, "the release could not be made live; what was live stays");
                self.failure = Some(reason(&error.to_string()));
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

    /// Says what is live now, and what is not.
    async fn settled(&mut self, Outcome { release, live, refused, held }: Outcome) {
        self.held = held;
        if let Some(live) = live {
            if live.left_out != self.left_out {
                self.left_out = live.left_out;
                tracing::info!(count = live.left_out, "secrets of this host's layers are for other hosts");
            }
            let news = release != self.active;
            (self.active, self.files) = (release, live.files);
            if news || live.flipped {
                self.tell_generation().await;
                let Live { files, report, flipped, secrets, left_out } = live;
                let (number, healed) = (release, self.replica.healed());
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
        }
        self.failure = refused.as_ref().map(|refused| reason(&refused.reason));
        self.tell(if refused.is_some() { HostState::Failed } else { HostState::Active });
        if let Some(Refused { release: number, state, reason, output }) = refused {
            tracing::error!(
                number,
                state = state.as_str(),
                output,
                "{reason}; it waits for a newer release, or for `rootcast agent release`"
            );
            let live = self.active;
            (self.events)(AgentEvent::RolledBack { number, live, state, reason, output });
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
        let widened = self.interest.send_if_modified(|interest| {
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
        let why = self.failure.clone().or_else(|| self.refusal.borrow().clone());
        let why = why.or_else(|| self.alarm.as_deref().map(reason));
        let (state, why) = match (state, why) {
            (HostState::Active | HostState::Failed, Some(why)) => (HostState::Failed, why),
            (HostState::Active, None) if self.replica.freshness() == Freshness::Stale => {
                (HostState::Stale, String::new())
            }
            (HostState::Active, None) => (HostState::Active, self.held.map(held_back).unwrap_or_default()),
            (state, _) => (state, String::new()),
        };
        let before = self.report.borrow().clone();
        let same = (before.release, before.state) == (self.active, state);
        self.report.send_replace(Condition {
            release: self.active,
            state,
            since: if same { before.since } else { self.replica.machine().seconds() },
            reason: why,
            files: self.files,
            healed: self.replica.healed(),
            received: self.replica.received(),
            refused: 0,
        });
        self.changed.send_replace(());
        self.tell_converged();
    }

    fn tell_converged(&mut self) {
        let known = self.replica.head().map(|head| head.head().release.rank());
        let held = self.replica.held().map(|held| held.accepted().rank());
        let converged = self.report.borrow().state == HostState::Active && known.is_some() && known <= held;
        if std::mem::replace(&mut self.converged, converged) != converged {
            (self.events)(AgentEvent::Converged(converged));
        }
    }
}

/// Why a host that is well may not show the newest release.
fn held_back(generation: u64) -> String {
    format!("held at generation {generation} by its operator, until `rootcast agent release`")
}

/// Completes when the operator has given orders.
async fn rung(bell: Option<&UnixDatagram>) {
    match bell {
        // Whatever it says, and also where it cannot be heard: to look costs little.
        Some(bell) => drop(bell.recv(&mut [0; 1]).await),
        None => std::future::pending().await,
    }
}
