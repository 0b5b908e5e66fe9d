//! Many seeds, one on each core at a time.

use crate::run::{Outcome, Setup, run};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What came of many seeds.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Seeds run.
    pub seeds: u64,
    /// Those in which a rule was broken, or that could not be run.
    pub failed: Vec<u64>,
    /// Releases.
    pub releases: u64,
    /// Faults.
    pub faults: u64,
    /// Files compared with what was published.
    pub files: u64,
    /// Virtual time.
    pub virtual_time: Duration,
    /// The longest time to converge.
    pub converged: Duration,
    /// Wall time of all together.
    pub wall: Duration,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>8} {:>8} {:>9} {:>9} {:>10} {:>12} {:>12} {:>8}",
            "seeds", "failed", "releases", "faults", "files", "virtual h", "converged s", "wall s"
        )?;
        write!(
            f,
            "{:>8} {:>8} {:>9} {:>9} {:>10} {:>12.1} {:>12.1} {:>8.1}",
            self.seeds,
            self.failed.len(),
            self.releases,
            self.faults,
            self.files,
            self.virtual_time.as_secs_f64() / 3600.0,
            self.converged.as_secs_f64(),
            self.wall.as_secs_f64()
        )
    }
}

/// The command that runs a setup again.
pub fn command(setup: &Setup) -> String {
    format!(
        "cargo sim --seed {} --hosts {} --relays {} --share {} --hours {} --every {}",
        setup.seed,
        setup.size.hosts,
        setup.size.relays,
        setup.size.share,
        setup.time.as_secs_f64() / 3600.0,
        setup.every.map_or(0.0, |every| every.as_secs_f64())
    )
}

/// Runs `count` seeds from the setup's on, and tells of each that is done. A panic in one is its failure.
pub fn run_all(setup: &Setup, count: u64, tell: &(dyn Fn(u64, &Result<Outcome, String>) + Sync)) -> Totals {
    let (next, begun) = (AtomicU64::new(0), Instant::now());
    let totals = Mutex::new(Totals::default());
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return;
            }
            let seed = setup.seed + at;
            let setup = Setup { seed, prints: false, ..*setup };
            let result = match std::panic::catch_unwind(|| run(&setup)) {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err("it panicked".to_owned()),
            };
            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
            totals.take(seed, &result);
            tell(seed, &result);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let mut totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    totals.failed.sort_unstable();
    Totals { wall: begun.elapsed(), ..totals }
}

impl Totals {
    fn take(&mut self, seed: u64, result: &Result<Outcome, String>) {
        self.seeds += 1;
        if result.as_ref().map_or(true, |outcome| !outcome.violations.is_empty()) {
            self.failed.push(seed);
        }
        let Ok(outcome) = result else { return };
        self.releases += outcome.releases;
        self.faults += outcome.faults as u64;
        self.files += outcome.files_compared;
        self.virtual_time += outcome.virtual_time;
        self.converged = self.converged.max(outcome.converged);
    }
}
