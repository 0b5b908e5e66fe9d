//! Many hosts below relays: bytes on every link, delays, CPU time.

use super::process::{Process, Totals};
use super::{QUIET, STEP_WAIT, STILL, Scene, is_still, place, serving};
use crate::args::MemberRole;
use crate::error::BenchError;
use crate::sample::Pair;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// What one step took on one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkCost {
    pub(crate) parent: String,
    pub(crate) child: String,
    /// Bytes written to streams to the child, and by it.
    pub(crate) down: u64,
    pub(crate) up: u64,
}

/// What one step cost.
#[derive(Debug, Clone, Default)]
pub(crate) struct FanoutStep {
    pub(crate) links: Vec<LinkCost>,
    pub(crate) publisher_cpu: Duration,
    pub(crate) origin_cpu: Duration,
    /// Of all relays below the origin together.
    pub(crate) relay_cpu: Duration,
    /// Of all hosts together.
    pub(crate) host_cpu: Duration,
    /// For each host, from the beginning of the publication to active.
    pub(crate) from_publish: Vec<Duration>,
    /// For each host, from durable at the origin to active.
    pub(crate) from_durable: Vec<Duration>,
}

/// What all steps cost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fanout {
    pub(crate) relays: usize,
    pub(crate) hosts: usize,
    /// One for each sample; why there is none where its commits cannot be published.
    pub(crate) steps: Vec<Result<FanoutStep, String>>,
}

struct Node {
    process: Process,
    /// Index of the relay that it follows; the origin without one.
    parent: Option<usize>,
}

struct Tree {
    scene: Scene,
    relays: Vec<Node>,
    hosts: Vec<Node>,
}

/// Totals of all processes, in the order origin, publisher, relays, hosts.
type All = Vec<Totals>;

/// Measures steps through `relays` relays to `hosts` hosts. `done` is called after each.
pub(crate) async fn fanout(
    scratch: &Path,
    repository: &Path,
    pairs: &[Pair],
    (relays, hosts): (usize, usize),
    done: impl Fn(),
) -> Result<Fanout, BenchError> {
    let mut tree = Tree::open(scratch, repository, relays, hosts).await?;
    let mut fanout = Fanout { relays, hosts, steps: Vec::new() };
    for pair in pairs {
        fanout.steps.push(match tree.step(pair).await {
            Ok(step) => Ok(step),
            Err(error @ BenchError::Unpublishable { .. }) => Err(error.to_string()),
            Err(error) => return Err(error),
        });
        done();
    }
    tree.stop().await;
    Ok(fanout)
}

impl Tree {
    async fn open(
        scratch: &Path,
        repository: &Path,
        relays: usize,
        hosts: usize,
    ) -> Result<Self, BenchError> {
        let scene = Scene::open(&place(scratch, "fanout")?, repository).await?;
        let mut tree = Self { scene, relays: Vec::new(), hosts: Vec::new() };
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for number in 1..=relays {
            let name = format!("relay-{number}");
            let home = tree.scene.platform.relay(&name, Some(tree.scene.address))?;
            let mut process = Process::start(MemberRole::Relay, &name, &home, None)?;
            addresses.push(serving(&mut process).await?);
            tree.relays.push(Node { process, parent: None });
        }
        for number in 1..=hosts {
            let parent = (number - 1).checked_rem(relays);
            let above = parent.and_then(|parent| addresses.get(parent)).copied();
            let name = format!("host-{number}");
            let home = tree.scene.platform.agent(&name, &name, above.unwrap_or(tree.scene.address))?;
            let process = Process::start(MemberRole::Agent, &name, &home, None)?;
            tree.hosts.push(Node { process, parent });
        }
        Ok(tree)
    }

    fn below(&mut self) -> impl Iterator<Item = &mut Process> {
        self.relays.iter_mut().chain(&mut self.hosts).map(|node| &mut node.process)
    }

    async fn totals(&mut self) -> Result<All, BenchError> {
        let server = self.scene.server().await?;
        let mut all = vec![server.origin, server.publisher];
        for process in self.below() {
            all.push(process.totals().await?);
        }
        Ok(all)
    }

    /// Waits until every host has told the origin that it runs the newest release, and nothing
    /// is under way any more.
    async fn settled(&mut self) -> Result<All, BenchError> {
        let names: Vec<String> = self.hosts.iter().map(|host| host.process.name.clone()).collect();
        let deadline = Instant::now() + STEP_WAIT;
        let mut before = self.totals().await?;
        loop {
            // A report may wait that long at each level, and then changes the totals.
            tokio::time::sleep(QUIET).await;
            let after = self.totals().await?;
            if is_still(&before, &after) && self.scene.reported(&names).await? {
                return Ok(after);
            }
            if Instant::now() > deadline {
                let what = format!("{} hosts did not settle in {} s", names.len(), STEP_WAIT.as_secs());
                return Err(BenchError::Nothing(what));
            }
            before = after;
        }
    }

    async fn step(&mut self, pair: &Pair) -> Result<FanoutStep, BenchError> {
        let from = pair.from.as_deref().unwrap_or_default();
        self.scene.publish(from).await?;
        self.settled().await?;
        // The answers to the harness's own question are acknowledged, too.
        tokio::time::sleep(STILL).await;
        self.scene.origin.forget();
        self.below().for_each(Process::forget);
        let before = self.totals().await?;
        let begun = Instant::now();
        let Some(release) = self.scene.publish(pair.to()).await? else {
            return Err(BenchError::Nothing(format!("commit {} was there already", pair.to())));
        };
        let durable = self.scene.origin.of_release("published", release.number, STEP_WAIT).await?.at;
        let mut step = FanoutStep::default();
        for host in &mut self.hosts {
            let active = host.process.of_release("active", release.number, STEP_WAIT).await?.at;
            step.from_publish.push(active.saturating_duration_since(begun));
            step.from_durable.push(active.saturating_duration_since(durable));
        }
        let after = self.settled().await?;
        let since: All = after.iter().zip(&before).map(|(after, before)| after.since(*before)).collect();
        let mut each = since.into_iter();
        let mut next = || each.next().unwrap_or_default();
        (step.origin_cpu, step.publisher_cpu) = (next().cpu, next().cpu);
        let relays: All = self.relays.iter().map(|_| next()).collect();
        let hosts: All = self.hosts.iter().map(|_| next()).collect();
        step.relay_cpu = relays.iter().map(|relay| relay.cpu).sum();
        step.host_cpu = hosts.iter().map(|host| host.cpu).sum();
        step.links = self.links(relays, &hosts);
        Ok(step)
    }

    /// What passed on each link. A host has one link, so that all it read and wrote passed there;
    /// of what a relay read and wrote, the rest is its parent's.
    fn links(&self, mut relays: All, hosts: &All) -> Vec<LinkCost> {
        let mut links = Vec::new();
        for (host, totals) in self.hosts.iter().zip(hosts) {
            let above = host.parent.and_then(|parent| self.relays.get(parent));
            if let Some(relay) = host.parent.and_then(|parent| relays.get_mut(parent)) {
                relay.received = relay.received.saturating_sub(totals.sent);
                relay.sent = relay.sent.saturating_sub(totals.received);
            }
            let parent = above.map_or("origin", |relay| &relay.process.name).to_owned();
            let (down, up) = (totals.received, totals.sent);
            links.push(LinkCost { parent, child: host.process.name.clone(), down, up });
        }
        let upper = self.relays.iter().zip(&relays).map(|(relay, totals)| LinkCost {
            parent: "origin".into(),
            child: relay.process.name.clone(),
            down: totals.received,
            up: totals.sent,
        });
        upper.chain(links).collect()
    }

    async fn stop(self) {
        for host in self.hosts {
            host.process.stop().await;
        }
        for relay in self.relays {
            relay.process.stop().await;
        }
        self.scene.stop().await;
    }
}
