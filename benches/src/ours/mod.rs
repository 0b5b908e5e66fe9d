//! Rootcast itself, as real processes over real QUIC: what a step costs.

mod fanout;
mod modes;
pub(crate) mod platform;
pub(crate) mod process;
mod proxy;

#[cfg(test)]
pub(crate) use fanout::LinkCost;
pub(crate) use fanout::{Fanout, FanoutStep, fanout};
pub(crate) use modes::{Measure, measure};
pub(crate) use proxy::{Tally, Way};

use crate::args::MemberRole;
use crate::error::BenchError;
use crate::member::PUBLISH;
use platform::Platform;
use process::{Process, Totals};
use rootcast::acceptance::Accepted;
use rootcast::limits::{MAX_FRAME, REPORT_GAP};
use rootcast::path::BundleName;
use rootcast::plan::{base_bundle, plan_bundle};
use rootcast::protocol::{HostState, Interest, Opening, Report, Standing, UpdateRequest};
use rootcast::topology::Condition;
use rootcast_bundler::config::Rootcast;
use rootcast_bundler::source::Source;
use rootcast_replica::{Member, ReplicaError, pull};
use rootcast_transport::{Connection, Endpoint, Role};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What one step cost Rootcast.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ours {
    /// Bytes of the edits that the host got.
    pub(crate) edit: u64,
    /// Bytes of the update: edits, signed release and proofs.
    pub(crate) update: u64,
    /// All bytes that were written to streams to the host, and by it.
    pub(crate) down: u64,
    pub(crate) up: u64,
    /// Datagrams between origin and host.
    pub(crate) udp: Tally,
    pub(crate) publisher_cpu: Duration,
    pub(crate) origin_cpu: Duration,
    pub(crate) client_cpu: Duration,
    /// From durable at the origin (step), or from the start of the agent's process, to active.
    pub(crate) wall: Duration,
    /// From the publisher's beginning to the origin's answer, all releases of the step.
    pub(crate) publish: Duration,
    /// From the agent's start to the end of the handshake.
    pub(crate) connected: Option<Duration>,
    /// From the agent's start to the first datagram of the update.
    pub(crate) first: Option<Duration>,
}

/// Silence on the wire after which nothing is under way: a report waits for
/// [`REPORT_GAP`] at most, an acknowledgement for half of it.
const QUIET: Duration = Duration::from_millis(2 * REPORT_GAP.as_millis() as u64);
/// For how long processes must have been idle.
const STILL: Duration = Duration::from_millis(30);
/// CPU time within [`STILL`] up to which a process counts as idle: timers.
const IDLE_CPU: Duration = Duration::from_millis(1);
/// How long a step may take.
const STEP_WAIT: Duration = Duration::from_secs(300);
/// How long a process may take to start.
const START_WAIT: Duration = Duration::from_secs(30);

/// A release that the publisher made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Release {
    pub(crate) number: u64,
    edit_bytes: u64,
    took: Duration,
}

/// An origin, its publisher, and a connection of the harness to ask questions over.
pub(crate) struct Scene {
    pub(crate) platform: Platform,
    pub(crate) origin: Process,
    pub(crate) address: SocketAddr,
    publisher: Process,
    connection: Connection,
    _endpoint: Endpoint,
    /// The commit published last.
    at: Option<String>,
    release: u64,
}

impl Scene {
    pub(crate) async fn open(directory: &Path, repository: &Path) -> Result<Self, BenchError> {
        let source = Source::open(repository, None)?;
        let settings = Rootcast::read(&source).map_err(|error| BenchError::Nothing(error.to_string()))?;
        let platform = Platform::create(directory, settings.channel)?;
        let home = platform.relay("origin", None)?;
        let mut origin = Process::start(MemberRole::Relay, "origin", &home, None)?;
        let address = serving(&mut origin).await?;
        let home = platform.publisher(address)?;
        let mut publisher = Process::start(MemberRole::Publisher, "publisher", &home, Some(repository))?;
        publisher.named("ready", START_WAIT).await?;
        let member = Member::load_stateless(&platform.identity(Role::Publisher, "harness")?)?;
        let endpoint = Endpoint::dial_only(&member.identity)?;
        let connection = endpoint.connect(&address.to_string()).await?;
        Ok(Self {
            platform,
            origin,
            address,
            publisher,
            connection,
            _endpoint: endpoint,
            at: None,
            release: 0,
        })
    }

    /// Publishes a commit; `None` where it is the one that was published last.
    pub(crate) async fn publish(&mut self, commit: &str) -> Result<Option<Release>, BenchError> {
        if self.at.as_deref() == Some(commit) {
            return Ok(None);
        }
        self.publisher.ask(&format!("{PUBLISH}{commit}")).await?;
        let answer = |event: &process::Event| event.is("acknowledged") || event.is("unpublishable");
        let event = self.publisher.wait("the origin's answer", STEP_WAIT, answer).await?;
        if event.is("unpublishable") {
            let reason = event.text("reason").unwrap_or_default().to_owned();
            return Err(BenchError::Unpublishable { commit: commit.to_owned(), reason });
        }
        self.at = Some(commit.to_owned());
        self.release = event.number("release");
        Ok(Some(Release {
            number: self.release,
            edit_bytes: event.number("edit_bytes"),
            took: Duration::from_micros(event.number("publish_us")),
        }))
    }

    /// The release that the origin holds, as a child would learn of it.
    async fn latest(&self) -> Result<Option<Accepted>, BenchError> {
        let (mut sender, mut receiver) = self.connection.open_bi().await?;
        sender.send_message(&Opening::Condition(self.platform.channel().clone())).await?;
        let condition: Option<Condition> = receiver.receive_message(MAX_FRAME).await?;
        Ok(condition.and_then(|condition| condition.latest))
    }

    /// Bytes of the edits that bring a host without labels from a release, or from nothing, to the newest.
    async fn edit_bytes(&self, from: Option<Accepted>) -> Result<u64, BenchError> {
        let name =
            |name: Result<BundleName, _>| name.map_err(|_| BenchError::Replica(ReplicaError::NotFound));
        let bundles = vec![name(base_bundle())?, name(plan_bundle())?];
        let whole = if from.is_some() { bundles.clone() } else { Vec::new() };
        let standing = Standing { release: from, whole };
        let channel = self.platform.channel().clone();
        let request = UpdateRequest { channel, interest: Interest::named(bundles), standing };
        let update = pull(&self.connection, request).await?;
        Ok(update.map_or(0, |(update, _)| update.edits.iter().map(|edit| edit.len() as u64).sum()))
    }

    /// Whether the origin was told that these hosts run the newest release.
    async fn reported(&self, hosts: &[String]) -> Result<bool, BenchError> {
        let (mut sender, mut receiver) = self.connection.open_bi().await?;
        sender.send_message(&Opening::Status).await?;
        sender.finish()?;
        let report: Option<Report> = receiver.receive_message(MAX_FRAME).await?;
        let rows = report.map(|Report(rows)| rows).unwrap_or_default();
        let active: BTreeMap<&str, u64> = rows
            .iter()
            .filter(|row| matches!(row.state, HostState::Active | HostState::Stale))
            .map(|row| (row.name.as_str(), row.release))
            .collect();
        Ok(hosts.iter().all(|host| active.get(host.as_str()) == Some(&self.release)))
    }

    /// Totals of publisher and origin.
    async fn server(&mut self) -> Result<Server, BenchError> {
        Ok(Server { publisher: self.publisher.totals().await?, origin: self.origin.totals().await? })
    }

    pub(crate) async fn stop(self) {
        self.publisher.stop().await;
        self.origin.stop().await;
    }
}

/// What publisher and origin have cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Server {
    publisher: Totals,
    origin: Totals,
}

impl Server {
    fn since(self, before: Self) -> Self {
        Self { publisher: self.publisher.since(before.publisher), origin: self.origin.since(before.origin) }
    }
}

/// Whether nothing happened between two moments but timers.
fn is_still(before: &[Totals], after: &[Totals]) -> bool {
    before.iter().zip(after).all(|(before, after)| {
        let since = after.since(*before);
        since.cpu <= IDLE_CPU && since.sent == 0 && since.received == 0
    })
}

/// Where a relay serves, once it does.
pub(crate) async fn serving(relay: &mut Process) -> Result<SocketAddr, BenchError> {
    let ready = relay.named("ready", START_WAIT).await?;
    let address = ready.text("address").and_then(|address| address.parse().ok());
    address.ok_or_else(|| BenchError::Nothing(format!("{} serves nowhere", relay.name)))
}

/// A directory for one platform, below the scratch directory.
fn place(scratch: &Path, mode: &str) -> Result<PathBuf, BenchError> {
    let place = scratch.join(format!("rootcast-{mode}"));
    std::fs::create_dir_all(&place).map_err(BenchError::io(&place))?;
    place.canonicalize().map_err(BenchError::io(&place))
}
