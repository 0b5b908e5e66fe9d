//! One host: a step, a jump, a cold start.

use super::process::{Event, Process, Totals};
use super::proxy::{Proxy, Tally};
use super::{Ours, QUIET, START_WAIT, STEP_WAIT, STILL, Scene, Server, is_still, place};
use crate::args::MemberRole;
use crate::error::BenchError;
use crate::figures::Mode;
use crate::sample::Pair;
use rootcast::acceptance::Accepted;
use rootcast::limits::TEND_AFTER;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the proxy holds a datagram back, each way, when round trips are counted.
const DELAY: Duration = Duration::from_millis(100);
/// From the size on a datagram down is surely one of the update: a full one.
const FULL: u64 = 1000;
/// Name of the host.
const HOST: &str = "host";

/// What the samples of one mode cost.
#[derive(Default)]
pub(crate) struct Measure {
    /// One for each sample; why there is none where its commits cannot be published.
    pub(crate) samples: Vec<Result<Ours, String>>,
    /// Round trips from asking to active, to the half, as the time that a delay of each datagram adds.
    pub(crate) round_trips: Option<f64>,
}

struct Bench {
    scene: Scene,
    proxy: Proxy,
    agent: Option<Process>,
    /// Agents that joined empty so far.
    joined: u32,
    home: String,
}

/// A moment at which nothing is under way.
#[derive(Debug, Clone, Copy)]
struct Moment {
    server: Server,
    agent: Totals,
    tally: Tally,
}

/// Measures the samples of a mode, one after the other. `done` is called after each.
pub(crate) async fn measure(
    mode: Mode,
    scratch: &Path,
    repository: &Path,
    pairs: &[Pair],
    done: impl Fn(),
) -> Result<Measure, BenchError> {
    let scene = Scene::open(&place(scratch, mode.as_str())?, repository).await?;
    let proxy = Proxy::open(scene.address).await?;
    let mut bench = Bench { scene, proxy, agent: None, joined: 0, home: HOST.into() };
    let mut measure = Measure::default();
    for pair in pairs {
        measure.samples.push(match bench.sample(mode, pair).await {
            Ok(ours) => Ok(ours),
            Err(error @ BenchError::Unpublishable { .. }) => Err(error.to_string()),
            Err(error) => return Err(error),
        });
        done();
    }
    let measured = pairs.iter().zip(&measure.samples).rev().find(|(_, sample)| sample.is_ok());
    if let Some((pair, _)) = measured {
        measure.round_trips = Some(bench.round_trips(mode, pair).await?);
    }
    bench.stop().await;
    Ok(measure)
}

impl Bench {
    async fn sample(&mut self, mode: Mode, pair: &Pair) -> Result<Ours, BenchError> {
        match mode {
            Mode::Step => self.step(pair).await,
            Mode::Jump => self.jump(pair).await,
            Mode::Cold => self.cold(pair).await,
        }
    }

    /// Samples a pair twice more, that both find the same caches: the second time with a delay.
    async fn round_trips(&mut self, mode: Mode, pair: &Pair) -> Result<f64, BenchError> {
        let mut walls = [Duration::ZERO; 2];
        for (wall, delay) in walls.iter_mut().zip([Duration::ZERO, DELAY]) {
            if mode != Mode::Cold {
                self.bring_to(pair).await?;
            }
            self.proxy.set_delay(delay);
            *wall = self.sample(mode, pair).await?.wall;
        }
        let [at_once, delayed] = walls.map(|wall| wall.as_secs_f64());
        // One way is half a round trip; what is between is the machine's noise.
        Ok(((delayed - at_once) / DELAY.as_secs_f64()).round().max(0.0) / 2.0)
    }

    async fn start_agent(&mut self) -> Result<Instant, BenchError> {
        let home = self.scene.platform.agent(HOST, &self.home, self.proxy.address())?;
        let begun = Instant::now();
        self.agent = Some(Process::start(MemberRole::Agent, HOST, &home, None)?);
        Ok(begun)
    }

    async fn stop_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.stop().await;
        }
    }

    fn agent(&mut self) -> Result<&mut Process, BenchError> {
        self.agent.as_mut().ok_or_else(|| BenchError::Nothing("the agent is not running".into()))
    }

    async fn event(&mut self, name: &str, release: u64) -> Result<Event, BenchError> {
        self.agent()?.of_release(name, release, STEP_WAIT).await
    }

    /// Has origin and host at the commit that a sample begins with, and everything quiet.
    async fn bring_to(&mut self, pair: &Pair) -> Result<Moment, BenchError> {
        let from = pair.from.as_deref().unwrap_or_default();
        if self.agent.is_none() {
            self.start_agent().await?;
        }
        if let Some(release) = self.scene.publish(from).await? {
            self.event("active", release.number).await?;
        }
        let release = self.scene.release;
        self.settled(release).await?;
        // The answers to the harness's own question are acknowledged, too.
        tokio::time::sleep(STILL).await;
        if let Some(agent) = &mut self.agent {
            agent.forget();
        }
        self.scene.origin.forget();
        self.proxy.mark();
        self.moment().await
    }

    async fn moment(&mut self) -> Result<Moment, BenchError> {
        let agent = match &mut self.agent {
            Some(agent) => agent.totals().await?,
            None => Totals::default(),
        };
        Ok(Moment { server: self.scene.server().await?, agent, tally: self.proxy.tally() })
    }

    /// Waits until the host has told the origin that it runs the newest release, and nothing is
    /// under way any more. What the question for that takes is not in the moment returned.
    async fn settled(&mut self, release: u64) -> Result<Moment, BenchError> {
        let deadline = Instant::now() + STEP_WAIT;
        loop {
            self.proxy.quiet(QUIET).await;
            let before = self.moment().await?;
            tokio::time::sleep(STILL).await;
            let after = self.moment().await?;
            let totals = |moment: &Moment| [moment.agent, moment.server.origin, moment.server.publisher];
            let still = before.tally == after.tally && is_still(&totals(&before), &totals(&after));
            if still && self.scene.reported(&[HOST.to_owned()]).await? {
                return Ok(after);
            }
            if Instant::now() > deadline {
                let what = format!("release {release} did not settle in {} s", STEP_WAIT.as_secs());
                return Err(BenchError::Nothing(what));
            }
        }
    }

    fn cost(before: &Moment, after: &Moment) -> Ours {
        let (server, agent) = (after.server.since(before.server), after.agent.since(before.agent));
        Ours {
            down: agent.received,
            up: agent.sent,
            udp: after.tally.since(before.tally),
            publisher_cpu: server.publisher.cpu,
            origin_cpu: server.origin.cpu,
            client_cpu: agent.cpu,
            ..Ours::default()
        }
    }

    async fn step(&mut self, pair: &Pair) -> Result<Ours, BenchError> {
        let before = self.bring_to(pair).await?;
        let Some(release) = self.scene.publish(pair.to()).await? else {
            return Err(BenchError::Nothing(format!("commit {} was there already", pair.to())));
        };
        let durable = self.scene.origin.of_release("published", release.number, STEP_WAIT).await?;
        let held = self.event("held", release.number).await?;
        let active = self.event("active", release.number).await?;
        let after = self.settled(release.number).await?;
        Ok(Ours {
            edit: release.edit_bytes,
            update: held.number("bytes"),
            wall: active.at.saturating_duration_since(durable.at),
            publish: release.took,
            ..Self::cost(&before, &after)
        })
    }

    async fn jump(&mut self, pair: &Pair) -> Result<Ours, BenchError> {
        self.bring_to(pair).await?;
        let from = self.scene.latest().await?;
        self.stop_agent().await;
        self.proxy.quiet(QUIET).await;
        let before = self.moment().await?;
        let mut publish = Duration::ZERO;
        for commit in &pair.commits {
            publish += self.scene.publish(commit).await?.map_or(Duration::ZERO, |release| release.took);
        }
        let ours = self.join(&before, from).await?;
        Ok(Ours { publish, ..ours })
    }

    async fn cold(&mut self, pair: &Pair) -> Result<Ours, BenchError> {
        self.stop_agent().await;
        // Before the window, its publication is not part of what joining costs.
        let publish = self.scene.publish(pair.to()).await?.map_or(Duration::ZERO, |release| release.took);
        self.made_ahead().await?;
        self.joined += 1;
        self.home = format!("{HOST}-{}", self.joined);
        let before = self.moment().await?;
        let ours = self.join(&before, None).await?;
        self.stop_agent().await;
        Ok(Ours { publish, ..ours })
    }

    /// Waits until the origin has made what it makes ahead for hosts that join.
    async fn made_ahead(&mut self) -> Result<(), BenchError> {
        let deadline = Instant::now() + STEP_WAIT;
        tokio::time::sleep(TEND_AFTER + QUIET).await;
        loop {
            let before = self.moment().await?;
            tokio::time::sleep(QUIET).await;
            let after = self.moment().await?;
            if is_still(&[before.server.origin], &[after.server.origin]) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(BenchError::Nothing("the origin does not come to rest".into()));
            }
        }
    }

    /// Starts the host, and measures until it runs the newest release.
    async fn join(&mut self, before: &Moment, from: Option<Accepted>) -> Result<Ours, BenchError> {
        let release = self.scene.release;
        self.proxy.mark();
        let begun = self.start_agent().await?;
        let connected = self.agent()?.named("connected", START_WAIT).await?;
        let held = self.event("held", release).await?;
        let active = self.event("active", release).await?;
        let update = held.number("bytes");
        let first = self.proxy.first_down(update.min(FULL));
        let after = self.settled(release).await?;
        let since = |at: Instant| at.saturating_duration_since(begun);
        Ok(Ours {
            edit: self.scene.edit_bytes(from).await?,
            update,
            wall: since(active.at),
            connected: Some(since(connected.at)),
            first: first.map(since),
            ..Self::cost(&Moment { agent: Totals::default(), ..*before }, &after)
        })
    }

    async fn stop(mut self) {
        self.stop_agent().await;
        self.scene.stop().await;
    }
}
