//! `rootcast dev`: a whole platform on this machine, of real processes.

mod check;
mod platform;
mod process;
mod table;
mod tree;

use crate::failure::{Exit, Failure};
use crate::output::{Output, bytes};
use crate::publish::{runtime, shown, warn};
use check::Labels;
use platform::Platform;
use process::{News, Process};
use rootcast::id::NodeId;
use rootcast_bundler::config::Rootcast;
use rootcast_bundler::source::{Changes, Source};
use rootcast_bundler::{PublishError, Published, Publisher};
use rootcast_replica::{ReplicaError, signalled};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use table::Table;
use tokio::sync::mpsc;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The git repository or plain directory to publish [default: the sample repository]
    repository: Option<PathBuf>,
    /// Relays below the origin: two for each datacenter, one for each region
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=64))]
    relays: u64,
    /// Agents
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=256))]
    agents: u64,
    /// Start at HEAD~K (first parents) and publish each step, waiting for all hosts
    #[arg(long, value_name = "K", default_value_t = 0)]
    replay: usize,
    /// End when all hosts have converged
    #[arg(long)]
    once: bool,
    /// Seconds that all hosts may take to converge on a release
    #[arg(long, value_name = "S", default_value_t = 120)]
    timeout: u64,
    /// Where to keep everything [default: a temporary directory, removed at the end]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// How often a repository or directory is looked at for changes.
const LOOK: Duration = Duration::from_millis(500);
/// How long a relay may take to serve.
const READY_WAIT: Duration = Duration::from_secs(30);
/// News of processes that may wait to be heard.
const NEWS: usize = 4096;

/// A relay or host, as it is shown.
pub(super) struct Member {
    parent: String,
    /// Agents only.
    labels: Option<Labels>,
    up: bool,
    release: u64,
    files: u64,
    received: u64,
    /// Bytes that the update of the newest release took.
    pushed: Option<(u64, u64)>,
    /// Milliseconds from acknowledged to active, of the newest release.
    ms: Option<f64>,
    restarts: u64,
}

struct Dev<'o> {
    output: &'o Output,
    table: Table,
    news: mpsc::Receiver<(String, News)>,
    teller: mpsc::Sender<(String, News)>,
    processes: BTreeMap<String, Process>,
    members: BTreeMap<String, Member>,
    timeout: Duration,
    source: Arc<Mutex<Source>>,
    /// Commits published, the newest last.
    commits: Vec<Vec<u8>>,
    roots: BTreeMap<(usize, String), NodeId>,
    releases: u64,
    acknowledged: Option<(u64, Instant)>,
    push_bytes: Vec<u64>,
    delays: Vec<f64>,
    torn: u64,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let temporary = tempfile::Builder::new().prefix("rootcast-dev-").tempdir();
    let temporary = temporary.map_err(|error| Failure::io(&std::env::temp_dir(), &error))?;
    let directory = arguments.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let repository = match &arguments.repository {
        Some(repository) => repository.clone(),
        None => tree::sample()?,
    };
    let source = Source::open(&repository, None)?;
    runtime()?.block_on(session(arguments, output, source, &directory))
}

async fn session(
    arguments: &Arguments,
    output: &Output,
    source: Source,
    directory: &Path,
) -> Result<(), Failure> {
    let settings =
        Rootcast::read(&source).map_err(|error| Failure::new(Exit::InvalidSource, error.to_string()))?;
    let platform = Platform::open(directory, &settings.channel)?;
    let (teller, news) = mpsc::channel(NEWS);
    let mut dev = Dev {
        output,
        table: Table::new(output.json),
        news,
        teller,
        processes: BTreeMap::new(),
        members: BTreeMap::new(),
        timeout: Duration::from_secs(arguments.timeout),
        source: Arc::new(Mutex::new(source)),
        commits: Vec::new(),
        roots: BTreeMap::new(),
        releases: 0,
        acknowledged: None,
        push_bytes: Vec::new(),
        delays: Vec::new(),
        torn: 0,
    };
    let outcome = tokio::select! {
        outcome = dev.work(&platform, arguments) => outcome,
        () = signalled() => Ok(()),
    };
    // Also after an interrupt: a directory in which processes still write cannot be removed.
    dev.stop_all().await;
    outcome
}

impl Dev<'_> {
    /// Stops everything from the leaves up: what has lost its parent waits for it in vain.
    async fn stop_all(&mut self) {
        let (mut relays, mut agents): (Vec<_>, Vec<_>) =
            self.processes.values_mut().partition(|process| process.role == "relay");
        agents.iter().for_each(|agent| agent.ask_to_stop());
        for agent in &mut agents {
            agent.stop().await;
        }
        // A relay's parent has a lower number, and the origin none.
        relays.sort_by_key(|relay| {
            std::cmp::Reverse((relay.name != "origin", relay.name.len(), relay.name.clone()))
        });
        for relay in &mut relays {
            relay.stop().await;
        }
    }

    async fn work(&mut self, platform: &Platform, arguments: &Arguments) -> Result<(), Failure> {
        let origin = self.start_all(platform, arguments.relays as usize, arguments.agents as usize).await?;
        let mut publisher = Publisher::open(&platform.publisher(origin)?)?;
        // A history that empties its tree at some commit is replayed as it is.
        publisher.set_allow_empty(true);
        self.publish_all(&mut publisher, arguments).await
    }

    /// Starts the tree from the top, so that each member knows where its parent serves.
    async fn start_all(
        &mut self,
        platform: &Platform,
        relays: usize,
        agents: usize,
    ) -> Result<SocketAddr, Failure> {
        let (plans, datacenters) = tree::plan(relays)?;
        let mut addresses: BTreeMap<String, SocketAddr> = BTreeMap::new();
        for plan in &plans {
            let parents = serving(&addresses, &plan.parents);
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let process = platform.relay(&plan.name, any, &parents, &plan.labels)?;
            self.add(process, plan.parents.first().cloned().unwrap_or_default(), None)?;
            let address = self.ready(&plan.name).await?;
            // A restart must serve where its children look for it.
            platform.relay(&plan.name, address, &parents, &plan.labels)?;
            addresses.insert(plan.name.clone(), address);
        }
        for (number, place) in (1..=agents).zip(datacenters.iter().cycle()) {
            let (name, labels) = tree::host(number, place)?;
            let process = platform.agent(&name, &serving(&addresses, &place.relays), &labels)?;
            let relay = place.relays.first().cloned().unwrap_or_default();
            self.add(process, relay, Some(labels.of_host(&name)))?;
        }
        addresses
            .get("origin")
            .copied()
            .ok_or_else(|| Failure::new(Exit::Failure, "the origin has no address"))
    }

    fn add(&mut self, mut process: Process, parent: String, labels: Option<Labels>) -> Result<(), Failure> {
        let pid = process.start(&self.teller)?;
        let name = process.name.clone();
        self.output.value(
            &json!({ "event": "process", "name": name, "role": process.role, "pid": pid, "restarts": 0,
            "home": process.home }),
        );
        let member = Member {
            parent,
            labels,
            up: true,
            release: 0,
            files: 0,
            received: 0,
            pushed: None,
            ms: None,
            restarts: 0,
        };
        self.members.insert(name.clone(), member);
        self.processes.insert(name, process);
        Ok(())
    }

    /// Waits until a relay serves.
    async fn ready(&mut self, name: &str) -> Result<SocketAddr, Failure> {
        let deadline = tokio::time::Instant::now() + READY_WAIT;
        loop {
            let late = || Failure::new(Exit::TimeOut, format!("{name} does not serve"));
            let news = tokio::time::timeout_at(deadline, self.news.recv()).await.map_err(|_| late())?;
            let Some((from, news)) = news else { return Err(late()) };
            if let (true, News::Event(event)) = (from == name, &news)
                && event["event"] == "ready"
            {
                let address = event["address"].as_str().and_then(|address| address.parse().ok());
                return address.ok_or_else(late);
            }
            self.hear(&from, news).await?;
        }
    }

    async fn publish_all(&mut self, publisher: &mut Publisher, arguments: &Arguments) -> Result<(), Failure> {
        let history = match arguments.replay {
            0 => Vec::new(),
            steps => self.source().first_parents(steps + 1)?,
        };
        let newest = self.source.clone();
        if history.is_empty() {
            self.step(publisher).await?;
        }
        for commit in history {
            let at = lock(&newest).at(&commit)?;
            self.source = Arc::new(Mutex::new(at));
            self.step(publisher).await?;
        }
        self.source = newest;
        if arguments.once {
            return self.summary();
        }
        if !self.output.json {
            let path = self.source().path().display().to_string();
            self.table.line(&format!("following {path}; Ctrl-C ends and cleans up"), &self.members);
        }
        loop {
            self.idle(LOOK).await?;
            if self.moved()? {
                self.step(publisher).await?;
            }
        }
    }

    fn source(&self) -> std::sync::MutexGuard<'_, Source> {
        lock(&self.source)
    }

    /// Whether there is something new to publish.
    fn moved(&self) -> Result<bool, Failure> {
        let mut source = self.source();
        if !source.commit().is_empty() {
            return Ok(source.refresh()?);
        }
        Ok(match source.changes(&[])? {
            Changes::Full(_) => true,
            Changes::Since(changes) => !changes.is_empty(),
        })
    }

    /// Publishes what the source holds, and waits until every host runs it.
    async fn step(&mut self, publisher: &mut Publisher) -> Result<(), Failure> {
        let deadline = Instant::now() + self.timeout;
        let published = loop {
            match self.publish(publisher).await? {
                Ok(published) => break published,
                // An origin that ended is started again, and the publisher finds out what it took.
                Err(error) if is_lost(&error) && Instant::now() < deadline => self.idle(LOOK).await?,
                Err(error) => return Err(error.into()),
            }
        };
        if !published.is_new && self.releases > 0 {
            return Ok(());
        }
        warn(&published.warnings);
        let commit = self.source().commit().to_vec();
        self.commits.push(commit);
        self.releases += 1;
        self.acknowledged = Some((published.number, published.acknowledged));
        for member in self.members.values_mut() {
            // What was active before the answer was read took no time at all.
            let early = member.labels.is_some() && member.release >= published.number;
            member.ms = early.then_some(0.0);
        }
        self.converge(&published).await
    }

    /// Publishes once, hearing news meanwhile.
    async fn publish(
        &mut self,
        publisher: &mut Publisher,
    ) -> Result<Result<Published, PublishError>, Failure> {
        let bar = self.output.progress("reading");
        let source = self.source.clone();
        let published = {
            let publishing = publisher.publish(&source, shown(bar.clone()));
            tokio::pin!(publishing);
            loop {
                tokio::select! {
                    published = &mut publishing => break published,
                    news = self.news.recv() => {
                        if let Some((from, news)) = news {
                            self.hear(&from, news).await?;
                        }
                    }
                }
            }
        };
        bar.finish_and_clear();
        Ok(published)
    }

    async fn converge(&mut self, published: &Published) -> Result<(), Failure> {
        let number = published.number;
        let deadline = tokio::time::Instant::now() + self.timeout;
        // Only hosts: a relay that was killed after the disk had a release, and before
        // it said so, has nothing to say after its restart.
        while self.members.values().any(|member| member.labels.is_some() && member.release < number) {
            let Ok(news) = tokio::time::timeout_at(deadline, self.news.recv()).await else {
                return Err(self.too_late(number));
            };
            if let Some((from, news)) = news {
                self.hear(&from, news).await?;
                self.table.draw(&self.members);
            }
        }
        let hosts = self.members.values().filter(|member| member.labels.is_some());
        let pushed =
            hosts.clone().filter_map(|m| m.pushed).filter(|(n, _)| *n == number).map(|(_, b)| b).max();
        let delays: Vec<f64> = hosts.filter_map(|member| member.ms).collect();
        self.push_bytes.extend(pushed);
        self.delays.extend(&delays);
        let (p50, max) = (percentile(&delays, 50), percentile(&delays, 100));
        self.output.value(&json!({
            "event": "release", "release": number, "commit": published.commit,
            "files_changed": published.files_changed, "edit_bytes": published.edit_bytes, "push_bytes": pushed,
        }));
        self.output.value(&json!({
            "event": "converged", "release": number, "hosts": delays.len(), "ms_p50": p50, "ms_max": max,
        }));
        if !self.output.json {
            let commit: String = published.commit.chars().take(10).collect();
            let line = format!(
                "release {number:>4} {commit:<10} {:>5} files changed, edit {:>8}, push {:>8}; active on {} hosts after {:.1} ms (median), {:.1} ms (last)",
                published.files_changed,
                bytes(published.edit_bytes),
                bytes(pushed.unwrap_or(0)),
                delays.len(),
                p50.unwrap_or(0.0),
                max.unwrap_or(0.0),
            );
            self.table.line(&line, &self.members);
        }
        Ok(())
    }

    fn too_late(&self, number: u64) -> Failure {
        let late: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.labels.is_some() && member.release < number)
            .map(|(name, member)| format!("{name} is at {}", member.release))
            .collect();
        let message = format!(
            "release {number} did not reach every host in {} s: {}",
            self.timeout.as_secs(),
            late.join(", ")
        );
        let log = self.members.iter().find(|(_, member)| member.labels.is_some() && member.release < number);
        let log = log.and_then(|(name, _)| self.processes.get(name)).map(Process::log);
        let failure = Failure::new(Exit::TimeOut, message);
        match log {
            Some(log) => failure
                .next(format!("rootcast dev --dir DIR keeps the logs; the first of them: {}", log.display())),
            None => failure,
        }
    }

    /// Hears news for a while.
    async fn idle(&mut self, time: Duration) -> Result<(), Failure> {
        let deadline = tokio::time::Instant::now() + time;
        while let Ok(news) = tokio::time::timeout_at(deadline, self.news.recv()).await {
            if let Some((from, news)) = news {
                self.hear(&from, news).await?;
                self.table.draw(&self.members);
            }
        }
        Ok(())
    }

    async fn hear(&mut self, from: &str, news: News) -> Result<(), Failure> {
        match news {
            News::Event(event) => self.event(from, &event),
            News::Ended => self.restart(from).await?,
        }
        Ok(())
    }

    fn event(&mut self, from: &str, event: &Value) {
        let Some(member) = self.members.get_mut(from) else { return };
        let number = event["release"].as_u64().unwrap_or(0);
        let is_relay = member.labels.is_none();
        match event["event"].as_str().unwrap_or_default() {
            "held" => {
                let took = event["bytes"].as_u64().unwrap_or(0);
                member.received += took;
                member.pushed = Some((number, took));
                if is_relay {
                    member.release = member.release.max(number);
                }
            }
            "connected" => {
                let parent = event["parent"].as_str().unwrap_or_default();
                member.parent = parent.trim_start_matches("relay ").to_owned();
                self.output.value(&json!({ "event": "connected", "name": from, "parent": member.parent }));
            }
            "published" => member.release = member.release.max(number),
            "active" => {
                if number < member.release {
                    self.torn += 1;
                }
                member.release = number;
                member.files = event["files"].as_u64().unwrap_or(0);
                let since = self.acknowledged.filter(|(published, _)| *published == number);
                if let Some((_, at)) = since {
                    member.ms = Some(at.elapsed().as_secs_f64() * 1e3);
                }
                self.output.value(&json!({
                    "event": "active", "host": from, "release": number, "files": member.files,
                    "written": event["written"], "syncs": event["syncs"], "healed": event["healed"],
                }));
            }
            "refused" | "failed" => {
                self.output.value(&json!({ "event": "trouble", "host": from, "reason": event["reason"] }));
            }
            _ => {}
        }
    }

    /// A process ended: looks at what it left on disk, and starts it again.
    async fn restart(&mut self, name: &str) -> Result<(), Failure> {
        let Some(process) = self.processes.get_mut(name) else { return Ok(()) };
        let status = process.ended().await?;
        let live = process.home.join("live");
        let labels = self.members.get(name).and_then(|member| member.labels.clone());
        let whole = match &labels {
            Some(labels) => self.is_a_generation(&live, labels)?,
            None => None,
        };
        if whole == Some(false) {
            self.torn += 1;
        }
        let Some(process) = self.processes.get_mut(name) else { return Ok(()) };
        let pid = process.start(&self.teller)?;
        let (role, home) = (process.role, process.home.clone());
        let mut restarts = 0;
        if let Some(member) = self.members.get_mut(name) {
            member.restarts += 1;
            restarts = member.restarts;
        }
        self.output.value(&json!({
            "event": "process", "name": name, "role": role, "pid": pid, "restarts": restarts, "home": home,
            "ended": status, "current_whole": whole,
        }));
        if !self.output.json {
            self.table.line(&format!("{name} ended ({status}) and was started again"), &self.members);
        }
        Ok(())
    }

    /// Whether what is live is exactly some release published so far; `None`
    /// where that cannot be told: nothing is live, or a directory has no history.
    fn is_a_generation(&mut self, live: &Path, labels: &Labels) -> Result<Option<bool>, Failure> {
        if self.source().commit().is_empty() {
            return Ok(None);
        }
        let Some(root) = check::on_disk(live)? else { return Ok(None) };
        // The commit being published now may be live already.
        let now = self.source().commit().to_vec();
        if check::expected(&self.source(), labels)? == root {
            return Ok(Some(true));
        }
        for at in (0..self.commits.len()).rev() {
            let key = (at, format!("{labels:?}"));
            let known = match self.roots.get(&key) {
                Some(known) => *known,
                None => {
                    let commit = self.commits.get(at).cloned().unwrap_or_else(|| now.clone());
                    let expected = check::expected(&self.source().at(&commit)?, labels)?;
                    self.roots.insert(key, expected);
                    expected
                }
            };
            if known == root {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }

    /// Compares every host's files with the commit's, and says how it all went.
    fn summary(&mut self) -> Result<(), Failure> {
        let mut differing = Vec::new();
        let mut hosts = 0;
        for (name, member) in &self.members {
            let (Some(labels), Some(process)) = (&member.labels, self.processes.get(name)) else { continue };
            hosts += 1;
            let expected = check::expected(&self.source(), labels)?;
            if check::on_disk(&process.home.join("live"))? != Some(expected) {
                differing.push(name.clone());
            }
        }
        let bytes_of =
            |percent| percentile(&self.push_bytes.iter().map(|b| *b as f64).collect::<Vec<_>>(), percent);
        let (median, p90) = (bytes_of(50), bytes_of(90));
        let (p50, max) = (percentile(&self.delays, 50), percentile(&self.delays, 100));
        self.output.value(&json!({
            "event": "summary", "releases": self.releases, "hosts": hosts,
            "push_bytes_median": median, "push_bytes_p90": p90, "ms_p50": p50, "ms_max": max,
            "roots_equal": differing.is_empty(), "torn": self.torn,
        }));
        self.output.line(format!(
            "{} releases on {hosts} hosts: push {} (median), {} (p90); active after {:.1} ms (median), {:.1} ms (longest); files on disk {}",
            self.releases,
            bytes(median.unwrap_or(0.0) as u64),
            bytes(p90.unwrap_or(0.0) as u64),
            p50.unwrap_or(0.0),
            max.unwrap_or(0.0),
            if differing.is_empty() { "equal the commit's on every host" } else { "DIFFER from the commit's" },
        ));
        if differing.is_empty() && self.torn == 0 {
            return Ok(());
        }
        let message = format!(
            "hosts whose files differ from the commit: {:?}; torn or backward steps: {}",
            differing, self.torn
        );
        Err(Failure::new(Exit::Differences, message))
    }
}

/// The addresses of relays that serve.
fn serving(addresses: &BTreeMap<String, SocketAddr>, relays: &[String]) -> Vec<String> {
    relays.iter().filter_map(|relay| addresses.get(relay)).map(SocketAddr::to_string).collect()
}

fn lock(source: &Mutex<Source>) -> std::sync::MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether publishing failed for want of an origin, which passes.
fn is_lost(error: &PublishError) -> bool {
    matches!(
        error,
        PublishError::Unreachable(_)
            | PublishError::Transport(_)
            | PublishError::Replica(ReplicaError::Transport(_))
    )
}

/// The smallest value that at least `percent` of all are not above.
fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}
