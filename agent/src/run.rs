//! The agent's life: follow, verify, activate, report.

use crate::activate::{Activation, Turned};
use crate::activating::{Agent, Joints};
use crate::books::Books;
use crate::converge::Converging;
use crate::drift::{DriftStatus, Keeper};
use crate::local::{self, Local, Relay};
use crate::operations::Watched;
use crate::relays::{Heard, Relays, adopting};
use crate::required::Required;
use crate::secrets::Secrets;
use crate::slots::{Patterns, Slots};
use crate::{AgentConfig, AgentError, AgentEvent, load_decryption_key};
use rootcast::limits::SHUTDOWN_WAIT;
use rootcast::protocol::Interest;
use rootcast::status::Condition;
use rootcast_replica::operations::{Listener, Vitals, operate, reread_identity};
use rootcast_replica::renewal::{ask_either_way, keep_renewed};
use rootcast_replica::{Fallback, Machine, Member, Replica, System, Tending, child_of, known_addresses};
use rootcast_transport::Code;
use rootcast_view::Variables;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

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
    let Opened { member, replica, variables, activation, turned, ignored } = open(&machine, &config)?;
    let own = member.identity.name().clone();
    let name = variables.host;
    let interest = watch::Sender::new(Interest::named(Required::at_first(&variables.labels)?));
    let endpoint = machine.dial_only(&member.identity)?;
    let dialer = machine.dial_https(&member.identity)?;
    let report = watch::Sender::new(Condition::none(machine.seconds()));
    let (changed, generations) = (watch::Sender::new(()), watch::Sender::default());
    let (drift, relay) = (watch::Sender::new(DriftStatus::default()), watch::Sender::new(Relay::default()));
    let (refused, refusal) = watch::channel(None);

    let replicas = BTreeMap::from([(replica.channel().clone(), replica.clone())]);
    let vitals = Arc::new(Vitals::new(replicas, config.identity.clone(), true));
    let operators = open_for_operators(&config).await?;
    let operations = operators.as_ref().and_then(|listener| listener.address().ok());
    let watched = Watched::new(vitals.clone(), replica.clone(), report.subscribe());
    let operating = operate(operators, settings.clone(), |config| config.operations, Arc::new(watched));

    let asked = Local::new(
        name.clone(),
        config.live.clone(),
        replica.clone(),
        report.subscribe(),
        drift.subscribe(),
        relay.subscribe(),
        generations.subscribe(),
    );
    let answering = local::serve(local_api(&config), Arc::new(asked));

    let adopt = adopting(endpoint.clone(), dialer.clone());
    let rereading = reread_identity(settings.clone(), config.identity.clone(), own.clone(), adopt.clone());
    let heard = Arc::new(Heard { vitals, refused, relay, events: events.clone() });
    let ways = watch::Sender::new(known_addresses(&config.relays));
    let (known, fallback) = (ways.subscribe(), dialer.clone().map(Fallback::new));
    let (child, of) = (child_of(&own), replica.clone());
    let relays = Relays { endpoint: endpoint.clone(), fallback, child, ways, replica: of, heard };
    let said = (report.subscribe(), changed.subscribe());
    let following = relays.follow(interest.subscribe(), said, settings.clone());
    tracing::info!(channel = %replica.channel(), relays = ?config.relays, live = %config.live.display(), "following");
    let (dialling, clock) = ((endpoint.clone(), dialer), machine.clone());
    let renewing = keep_renewed(machine, config.identity.clone(), adopt, move |own, request| {
        let ((endpoint, dialer), relays, now) = (dialling.clone(), known.borrow().clone(), clock.now());
        async move { ask_either_way(&endpoint, dialer.as_ref(), &relays, &own, now, request).await }
    });
    let tending = replica.clone().tend(Tending::Follows);

    let kept = drift.subscribe();
    let keeper = Keeper {
        activation: activation.clone(),
        replica: replica.clone(),
        home: config.live.clone(),
        mode: config.drift,
        ignored,
        settings: settings.clone(),
        turned,
        status: drift,
        events: events.clone(),
    };
    let (books, to, of) = (Books::read(&config.state)?, activation.clone(), replica.clone());
    let converging = Converging::new(to, of, settings, events.clone(), report.clone(), books);
    events(AgentEvent::Ready { name, operations });
    let joints = Joints { interest, report, changed, refusal, drift: kept, generations, events };
    let agent = Agent::new(replica, activation, converging, joints);
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

/// What an agent has on this machine.
struct Opened {
    member: Member,
    replica: Arc<Replica>,
    variables: Variables,
    activation: Arc<Mutex<Activation>>,
    /// Changed when a generation has become live.
    turned: watch::Receiver<Turned>,
    ignored: Patterns,
}

fn open(machine: &Arc<dyn Machine>, config: &AgentConfig) -> Result<Opened, AgentError> {
    let member = Member::load_on(machine.clone(), &config.identity, &config.state)?;
    let channel = config.channel()?;
    let directory = config.state.join("channels").join(channel.as_str().replace('/', "%"));
    make(&config.live)?;
    let store = machine.store(&directory)?;
    let replica = Arc::new(Replica::open(store, member.trust.clone(), channel, false, Some(directory))?);
    let host = member.identity.name().name().to_owned();
    let labels = member.identity.name().labels().of_host(&host);
    let slots = Slots::open(&config.live)?;
    let secrets = Secrets::new(load_decryption_key(&config.identity)?, config.secrets_directory(&host));
    let ignored = Patterns::new(&config.ignore).unwrap_or_default();
    let variables = Variables { host, labels, facts: config.facts.clone() };
    let activation = Activation::new(replica.clone(), variables.clone(), slots)
        .with_secrets(secrets)
        .with_ignored(ignored.clone());
    let turned = activation.turned();
    Ok(Opened { member, replica, variables, activation: Arc::new(Mutex::new(activation)), turned, ignored })
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
