//! One host at the end of a link of its own, that comes up with nothing (requirements S0.2 and S1.3).

use crate::error::SimError;
use crate::network::Link;
use crate::run::runtime;
use crate::trace::Trace;
use crate::world::{Kind, Size, World};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// For the tree to come up, and the release to reach the relay.
const WARM_UP: Duration = Duration::from_secs(20);
/// How long the host may take.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);
/// How long the release after the first may take.
const NEXT: Duration = Duration::from_secs(20);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);

/// The link, and what goes over it.
#[derive(Debug, Clone, Copy)]
pub struct Far {
    /// From which everything follows.
    pub seed: u64,
    /// Bytes of text in the release; its edit has about half.
    pub size: usize,
    /// What is wrong with the link.
    pub link: Link,
    /// After how many bytes sent to the host the link is cut, and for how long.
    pub cut: Option<(u64, Duration)>,
    /// How long nothing happens then, before one more release.
    pub idle: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// UDP bytes that the relay sent to the host.
    pub bytes: u64,
    /// From the host's start to the release shown; `None` where it never was.
    pub took: Option<Duration>,
    /// Of `bytes`, those while nothing happened.
    pub idle_bytes: u64,
    /// From the origin's disk to the release after that shown; `None` where it never was.
    pub next: Option<Duration>,
}

impl Far {
    /// Runs it under a clock of its own.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub fn run(self) -> Result<Arrived, SimError> {
        runtime(self.seed)?.block_on(self.arrives())
    }

    async fn arrives(self) -> Result<Arrived, SimError> {
        let trace = Arc::new(Trace::new(false));
        let mut world = World::new(self.seed, Size { hosts: 1, relays: 1, share: 1 }, trace)?;
        let carrying = tokio::spawn(world.network.clone().carry());
        let (ticks, _published) = world.publisher(self.seed, self.size)?;
        let (host, relay) = (first(&world, Kind::Agent), first(&world, Kind::Relay));
        for index in (0..world.nodes.len()).filter(|index| *index != host) {
            world.start(index)?;
        }
        let _ = ticks.send(());
        tokio::time::sleep(WARM_UP).await;
        world.network.set_link(host, self.link);
        let begun = Instant::now();
        world.start(host)?;
        let sent = |world: &World| world.network.sent_to(relay).get(&host).copied().unwrap_or(0);
        let mut cut = self.cut;
        let mut took = None;
        while took.is_none() && begun.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK).await;
            if let Some((_, lasts)) = cut.filter(|(after, _)| sent(&world) >= *after) {
                world.network.set_group(host, 1);
                tokio::time::sleep(lasts).await;
                world.network.set_group(host, 0);
                cut = None;
            }
            took = (world.checks.active(host) == 1).then(|| begun.elapsed());
        }
        let before = sent(&world);
        tokio::time::sleep(self.idle).await;
        let idle_bytes = sent(&world) - before;
        let _ = ticks.send(());
        tokio::time::sleep(NEXT).await;
        let (from, to) = (world.checks.durable_at(2), world.checks.shown_at(host, 2));
        let next = from.zip(to).map(|(from, to)| to.saturating_duration_since(from));
        carrying.abort();
        Ok(Arrived { bytes: sent(&world), took, idle_bytes, next })
    }
}

fn first(world: &World, kind: Kind) -> usize {
    world.of(kind).first().copied().unwrap_or_default()
}
