//! One run: a tree comes up, things go wrong, they are put right, and all must be well.

use crate::asked;
use crate::checks::{Rule, Violation};
use crate::disk::Planted;
use crate::error::SimError;
use crate::faults::{self, Planned};
use crate::network::Link;
use crate::random::Random;
use crate::trace::{Line, Trace};
use crate::world::{Kind, ORIGIN, Size, World};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Within this time after healing every host shows the newest release. A silent connection is
/// noticed after 30 s, a parent that does not answer is left after 10 s, rounds wait up to 15 s.
pub const CONVERGES: Duration = Duration::from_secs(180);
/// Within this time after that every host and relay is home: what is better is looked at after up to 240 s,
/// and must be reachable for 20 s, doubled for each time that it was lost within minutes, up to an hour.
pub const HOME: Duration = Duration::from_secs(4500);
/// Within this time after that the origin counts all as they are: a report for each level takes a fraction of a
/// second, and a child that is gone is noticed after 30 s.
pub const COUNTED: Duration = Duration::from_secs(60);
/// Within this time after the origin has it, a host that is well shows a release: three hops of
/// at most 110 ms, the disks' 4 ms for each of a dozen steps, and room for one lost datagram.
pub const PROMPT: Duration = Duration::from_millis(1500);
/// Bytes that one session of a direct child may cost the origin, beside what is published.
const SESSION_BYTES: u64 = 40_000;
/// When hosts leave their relays, where that is planted.
const PASSED_BY: Duration = Duration::from_secs(75);
/// Time before the faults begin, for the tree to come up.
const WARM_UP: Duration = Duration::from_secs(10);
/// How often convergence is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A fault in the checked system that a checker must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A store's.
    Store(Planted),
    /// Hosts that show what nobody verified.
    ShowsUnverified,
    /// A push loop that waits for the slowest child.
    WaitsForSlowest,
    /// A cut that is never healed.
    NeverHealed,
    /// Hosts leave their relays, which are well.
    BypassesRelays,
    /// Relays of datacenters that stay down.
    StaysDown,
    /// Hosts go back to the release before.
    GoesBack,
    /// A host's disk rots when it is too late to mend it.
    Rots,
}

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setup {
    /// From which everything follows.
    pub seed: u64,
    /// How many nodes.
    pub size: Size,
    /// How long faults go on, in virtual time.
    pub time: Duration,
    /// Mean time between faults; none without.
    pub every: Option<Duration>,
    /// Mean time between releases.
    pub publishes: Duration,
    /// Whether lines are printed as they come.
    pub prints: bool,
    /// A planted bug.
    pub sabotage: Option<Sabotage>,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Rules that were broken.
    pub violations: Vec<Violation>,
    /// The timeline.
    pub lines: Vec<Line>,
    /// Releases published.
    pub releases: u64,
    /// Faults injected.
    pub faults: usize,
    /// Virtual time that it took.
    pub virtual_time: Duration,
    /// How long the hosts took to converge after healing.
    pub converged: Duration,
    /// Bytes that the origin sent.
    pub origin_bytes: u64,
    /// In how many datagrams.
    pub origin_datagrams: u64,
    /// Datagrams delivered, and a number that stands for all their times, ends and sizes.
    pub datagrams: (u64, u64),
    /// Files compared with what was published.
    pub files_compared: u64,
    /// From the origin's disk to the last host, in releases without faults: median and longest.
    pub last_host: Option<(Duration, Duration)>,
    /// Wall time.
    pub wall: Duration,
}

/// Runs one under a clock of its own.
///
/// # Errors
/// When it cannot be set up.
pub fn run(setup: &Setup) -> Result<Outcome, SimError> {
    let wall = std::time::Instant::now();
    let runtime = runtime(setup.seed)?;
    let outcome = runtime.block_on(run_all(setup))?;
    drop(runtime);
    Ok(Outcome { wall: wall.elapsed(), ..outcome })
}

/// A clock of its own, that moves when nothing is left to do.
pub(crate) fn runtime(seed: u64) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // In which order those wake that wait for one thing, the runtime draws.
    #[cfg(not(tokio_unstable))]
    let _ = seed;
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()));
    // Sockets of a host's own programs are there; nobody uses them.
    builder.enable_all().start_paused(true).build()
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Publish,
    Begin(Planned),
    End(Planned),
    Start(usize),
}

struct Run {
    world: World,
    begun: Instant,
    random: Random,
    ticks: mpsc::UnboundedSender<()>,
    published: watch::Receiver<u64>,
    ticked: u64,
    steps: BTreeMap<(Duration, u64), Step>,
    count: u64,
    prompt: Vec<Duration>,
}

async fn run_all(setup: &Setup) -> Result<Outcome, SimError> {
    let trace = Arc::new(Trace::new(setup.prints));
    let mut world = World::new(setup.seed, setup.size, trace.clone())?;
    plant(&mut world, setup.sabotage);
    let carrying = tokio::spawn(world.network.clone().carry());
    let (ticks, published) = world.publisher(setup.seed, 0)?;
    let mut random = Random::of(setup.seed, "run");
    let end = WARM_UP + setup.time;
    let planned = match setup.every {
        Some(every) => faults::plan(&world, &mut random, WARM_UP, end, every),
        None => Vec::new(),
    };
    let faults = planned.len();
    let begun = Instant::now();
    let (steps, prompt) = (BTreeMap::new(), Vec::new());
    let mut run = Run { world, begun, random, ticks, published, ticked: 0, steps, count: 0, prompt };
    for index in 0..run.world.nodes.len() {
        run.world.start(index)?;
    }
    run.add(Duration::from_secs(1), Step::Publish);
    let mut at = WARM_UP;
    while at < end {
        run.add(at, Step::Publish);
        at += run.random.between(Duration::from_secs(1), setup.publishes * 2);
    }
    for planned in planned {
        run.add(planned.at, Step::Begin(planned));
        run.add(planned.at + planned.lasts, Step::End(planned));
    }
    run.go_on(end).await?;
    let converged = run.heal(setup).await?;
    if run.world.checks.violations().is_empty() {
        run.calm().await;
    }
    run.finish(setup.sabotage == Some(Sabotage::Rots)).await?;
    carrying.abort();
    let Run { world, mut prompt, .. } = run;
    prompt.sort();
    let last_host = prompt.get(prompt.len() / 2).copied().zip(prompt.last().copied());
    let (digest, count) = world.network.digest();
    Ok(Outcome {
        seed: setup.seed,
        violations: world.checks.violations(),
        lines: trace.all(),
        releases: world.checks.newest(),
        faults,
        virtual_time: begun.elapsed(),
        converged,
        origin_bytes: world.network.sent(ORIGIN),
        origin_datagrams: world.network.datagrams(ORIGIN),
        datagrams: (count, digest),
        files_compared: world.checks.files_compared(),
        last_host,
        wall: Duration::ZERO,
    })
}

/// Puts the planted bug in its place.
fn plant(world: &mut World, sabotage: Option<Sabotage>) {
    match sabotage {
        Some(Sabotage::Store(planted)) => {
            for index in world.of(Kind::Agent) {
                if let Some(node) = world.nodes.get(index) {
                    node.machine.disk.plant(planted);
                }
            }
        }
        Some(Sabotage::ShowsUnverified) => world.spoils = true,
        Some(Sabotage::GoesBack) => world.goes_back = true,
        Some(Sabotage::WaitsForSlowest) => world.network.plant_waiting_for_slowest(),
        Some(Sabotage::BypassesRelays) => {
            let (hosts, relays) = (world.of(Kind::Agent), world.of(Kind::Relay));
            world.network.plant_wall(Instant::now() + PASSED_BY, &hosts, &relays);
        }
        Some(Sabotage::NeverHealed | Sabotage::StaysDown | Sabotage::Rots) | None => {}
    }
}

impl Run {
    fn add(&mut self, at: Duration, step: Step) {
        self.count += 1;
        self.steps.insert((at, self.count), step);
    }

    /// Takes all steps up to a time.
    async fn go_on(&mut self, end: Duration) -> Result<(), SimError> {
        loop {
            let due = self.steps.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= end);
            let crashed = self.world.crashed.clone();
            tokio::select! {
                biased;
                () = crashed.notified() => self.take_crashed(),
                () = tokio::time::sleep_until(self.begun + due.unwrap_or(end)) => {
                    if due.is_none() {
                        return Ok(());
                    }
                    if let Some((_, step)) = self.steps.pop_first() {
                        self.take(step)?;
                    }
                }
            }
        }
    }

    fn take_crashed(&mut self) {
        for node in self.world.take_crashed() {
            let name = self.world.name(node).to_owned();
            self.world.trace.add("fault", format!("{name}: power lost in the middle of a commit"));
            self.world.checks.set_troubled(node, node, true);
            let wait = self.random.between(Duration::from_secs(1), Duration::from_secs(20));
            self.add(self.begun.elapsed() + wait, Step::Start(node));
        }
    }

    fn take(&mut self, step: Step) -> Result<(), SimError> {
        match step {
            Step::Publish => {
                self.ticked += 1;
                let _ = self.ticks.send(());
                Ok(())
            }
            Step::Begin(planned) => faults::begin(&mut self.world, &planned),
            Step::End(planned) => {
                faults::end(&mut self.world, &planned)?;
                // A moment later: what was killed has let go of its files by then.
                self.add(self.begun.elapsed() + Duration::from_millis(20), Step::Start(planned.node));
                Ok(())
            }
            Step::Start(node) if self.world.runs(node) => Ok(()),
            Step::Start(node) => {
                let name = self.world.name(node).to_owned();
                self.world.trace.add(&name, "starts".into());
                self.world.start(node)
            }
        }
    }

    /// Ends all faults, publishes once more, and demands that all hosts have it in time.
    async fn heal(&mut self, setup: &Setup) -> Result<Duration, SimError> {
        let hosts = self.world.of(Kind::Agent);
        if let (Some(Sabotage::NeverHealed), Some(host)) = (setup.sabotage, hosts.first()) {
            self.world.network.set_group(*host, u32::MAX);
        }
        for node in 0..self.world.nodes.len() {
            if let Some(node) = self.world.nodes.get(node) {
                node.machine.disk.disarm();
            }
        }
        self.world.trace.add("run", "all faults are over".into());
        // Those that a crash keeps down start at the latest now.
        let left = std::mem::take(&mut self.steps);
        let now = self.begun.elapsed();
        for ((_, _), step) in left {
            self.add(now + Duration::from_millis(20), step);
        }
        self.add(now, Step::Publish);
        let healed = now + Duration::from_millis(50);
        self.go_on(healed).await?;
        if setup.sabotage == Some(Sabotage::StaysDown) {
            let relays = self.world.of(Kind::Relay).into_iter();
            let local = |relay: &usize| self.world.nodes.get(*relay).is_some_and(|relay| relay.is_local);
            for relay in relays.filter(local).collect::<Vec<_>>() {
                self.world.kill(relay);
            }
        }
        let end = self.begun + healed + CONVERGES;
        while !self.has_all(&hosts) {
            if Instant::now() >= end {
                let newest = self.world.checks.newest();
                for host in hosts.iter().filter(|host| self.world.checks.active(**host) != newest) {
                    let (name, active) = (self.world.name(*host), self.world.checks.active(*host));
                    let what = format!("{name} shows release {active}, and the newest is {newest}");
                    self.world.checks.violated(Rule::Converges, what);
                }
                if *self.published.borrow() < self.ticked {
                    self.world.checks.violated(Rule::Converges, "the publisher could not publish".into());
                }
                break;
            }
            self.go_on(self.begun.elapsed() + LOOK).await?;
        }
        let took = (self.begun.elapsed()).saturating_sub(healed);
        self.world
            .trace
            .add("run", format!("all hosts have the newest release after {:.1} s", took.as_secs_f64()));
        Ok(took)
    }

    fn has_all(&self, hosts: &[usize]) -> bool {
        let newest = self.world.checks.newest();
        *self.published.borrow() == self.ticked
            && hosts.iter().all(|host| self.world.checks.active(*host) == newest)
    }

    /// Those who were thrown off their track come back to rest.
    async fn go_home(&mut self) {
        let all: Vec<_> = [Kind::Agent, Kind::Relay].map(|kind| self.world.of(kind)).concat();
        let all: Vec<_> = all.into_iter().map(|node| (node, self.world.nearer(node))).collect();
        let (begun, mut away) = (self.begun.elapsed(), all.len());
        while away > 0 && self.begun.elapsed() < begun + HOME {
            let _ = self.go_on(self.begun.elapsed() + Duration::from_secs(20)).await;
            away = all.iter().filter(|(node, nearer)| !self.world.checks.is_home(*node, nearer)).count();
        }
        for (node, _) in all.iter().filter(|(node, nearer)| !self.world.checks.is_home(*node, nearer)) {
            let what = format!("{} is not home {} s after healing", self.world.name(*node), HOME.as_secs());
            self.world.checks.violated(Rule::Home, what);
        }
        let took = self.begun.elapsed().saturating_sub(begun).as_secs();
        self.world.trace.add("run", format!("all but {away} are home after {took} s"));
    }

    /// What the origin knows of all below it becomes what is.
    async fn ask_status(&mut self, hosts: usize) {
        let Some(publisher) = self.world.nodes.iter().find(|node| node.kind == Kind::Publisher) else {
            return;
        };
        let (machine, identity) = (publisher.machine.clone(), publisher.identity.clone());
        let relays = self.world.of(Kind::Relay).len();
        let begun = Instant::now();
        loop {
            let newest = self.world.checks.newest();
            let answer = tokio::time::timeout(COUNTED, asked::status(&machine, &identity)).await;
            let wrong = match answer {
                Ok(Ok(status)) => asked::wrong(&status, relays, hosts, newest),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the origin does not say how all are".into()),
            };
            let Some(wrong) = wrong else { break };
            if begun.elapsed() >= COUNTED {
                self.world.checks.violated(Rule::Status, wrong);
                break;
            }
            let _ = self.go_on(self.begun.elapsed() + Duration::from_secs(1)).await;
        }
    }

    /// All is well, but for one host that is slow and far: the others must not notice.
    async fn calm(&mut self) {
        let hosts = self.world.of(Kind::Agent);
        self.go_home().await;
        self.ask_status(hosts.len()).await;
        let Some(slow) = self.random.pick(&hosts).copied() else { return };
        let link = Link { extra: Duration::from_secs(1), loss: 0.1, rate: 2000.0, ..Link::GOOD };
        self.world.network.set_link(slow, link);
        self.world.trace.add("run", format!("{} is slow and far", self.world.name(slow)));
        for _ in 0..3 {
            self.ticked += 1;
            let _ = self.ticks.send(());
            let _ = self.go_on(self.begun.elapsed() + Duration::from_secs(10)).await;
            let newest = self.world.checks.newest();
            let Some(durable) = self.world.checks.durable_at(newest) else { continue };
            let mut last = Duration::ZERO;
            for host in hosts.iter().filter(|host| **host != slow) {
                let took = self.world.checks.shown_at(*host, newest).map(|at| at.duration_since(durable));
                last = last.max(took.unwrap_or(Duration::MAX));
                if took.is_none_or(|took| took > PROMPT) {
                    let what = format!("{} has release {newest} after {took:?}", self.world.name(*host));
                    self.world.checks.violated(Rule::Prompt, what);
                }
            }
            self.prompt.push(last);
        }
        self.world.network.set_link(slow, Link::GOOD);
    }

    /// Ends all processes, and looks at what they leave.
    async fn finish(&mut self, rots: bool) -> Result<(), SimError> {
        for node in 0..self.world.nodes.len() {
            self.world.kill(node);
        }
        tokio::time::sleep(LOOK).await;
        for host in self.world.of(Kind::Agent).into_iter().filter(|_| rots) {
            if let (Some(node), Some(path)) = (self.world.nodes.get(host), self.world.store(host)) {
                node.machine.disk.flip_bits(&path)?;
            }
        }
        self.world.check_stores();
        self.check_origin();
        Ok(())
    }

    /// What the origin sent is bounded by its direct children's sessions, and by what was published to each.
    fn check_origin(&self) {
        let network = &self.world.network;
        let direct = network.sent_to(ORIGIN).len() as u64;
        let sessions = self.world.checks.origin_sessions() + direct;
        let published: u64 = self.world.trace.all().iter().filter_map(|line| edit_bytes(&line.what)).sum();
        let minutes = self.begun.elapsed().as_secs() / 60 + 1;
        let releases = self.world.checks.newest();
        let each = published * 2 + releases * 4000 + minutes * 2000;
        let (sent, bound) = (network.sent(ORIGIN), sessions * (SESSION_BYTES + published) + direct * each);
        if sent > bound {
            let what = format!("the origin sent {sent} B, over {bound} B for {sessions} sessions");
            self.world.checks.violated(Rule::Origin, what);
        }
    }
}

/// The bytes of edits that a line says were published.
fn edit_bytes(line: &str) -> Option<u64> {
    line.strip_prefix("published release ")?.split_once("edits of ")?.1.strip_suffix(" B")?.parse().ok()
}
