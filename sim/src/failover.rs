//! A home relay that goes, and what its hosts then wait for.

use crate::error::SimError;
use crate::run::runtime;
use crate::trace::Trace;
use crate::world::{Kind, Size, World};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// For the tree to come up, and hosts to learn of their relay's siblings.
const WARM_UP: Duration = Duration::from_secs(120);
/// How long the next release may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(1);

/// How the relay goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its process is asked to end, and says good-bye.
    Asked,
    /// Its machine is gone without a word, and nothing answers in its place.
    Silent,
}

/// What one of its hosts waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedOver {
    /// From the relay's end until the host gave it up.
    pub detected: Duration,
    /// From then until the host showed the release that was published at the relay's end,
    /// or from when the origin had it, where that was later.
    pub shown: Duration,
}

/// Ends the relay that the first host follows, at a moment that the seed draws, and publishes.
/// Gives what each host waited for that followed it; one that never showed the release is missing.
///
/// # Errors
/// When it cannot be set up.
pub fn fail_over(seed: u64, size: Size, end: End) -> Result<Vec<FailedOver>, SimError> {
    runtime(seed)?.block_on(async {
        let mut world = World::new(seed, size, Arc::new(Trace::new(false)))?;
        let carrying = tokio::spawn(world.network.clone().carry());
        let (ticks, _published) = world.publisher(seed, 0)?;
        for index in 0..world.nodes.len() {
            world.start(index)?;
        }
        let _ = ticks.send(());
        // Keep-alives have another phase in each.
        tokio::time::sleep(WARM_UP + Duration::from_millis(seed * 997 % 10_000)).await;
        let hosts = world.of(Kind::Agent);
        let home = hosts.first().and_then(|host| world.checks.parent(*host)).unwrap_or_default();
        let hosts: Vec<_> =
            hosts.into_iter().filter(|host| world.checks.parent(*host) == Some(home)).collect();
        let (ended, next) = (Instant::now(), world.checks.newest() + 1);
        match end {
            End::Asked => world.stop(home),
            End::Silent => world.kill(home),
        }
        let _ = ticks.send(());
        while ended.elapsed() < PATIENCE && hosts.iter().any(|host| world.checks.active(*host) < next) {
            tokio::time::sleep(LOOK).await;
        }
        carrying.abort();
        let Some(durable) = world.checks.durable_at(next) else { return Ok(Vec::new()) };
        let waited = hosts.into_iter().filter_map(|host| {
            let lost = world.checks.lost_at(host).filter(|lost| *lost >= ended)?;
            let shown = world.checks.shown_at(host, next)?;
            Some(FailedOver {
                detected: lost.duration_since(ended),
                shown: shown.saturating_duration_since(lost.max(durable)),
            })
        });
        Ok(waited.collect())
    })
}
