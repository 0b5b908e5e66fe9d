//! `rootcast-sim`: runs seeds, and prints what came of them.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

use clap::{Parser, ValueEnum};
use rootcast_sim::error::SimError;
use rootcast_sim::many;
use rootcast_sim::model;
use rootcast_sim::run::{Outcome, Setup, run};
use rootcast_sim::world::Size;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// A rule was broken, or differences were found.
const DIFFERENCES: u8 = 3;
const FAILURE: u8 = 1;

/// A whole tree in one process under virtual time: real relays and agents, simulated machines.
#[derive(Debug, Parser)]
#[command(version, next_line_help = false)]
struct Arguments {
    /// The seed; with --seeds, the first one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs this many seeds, one on each core at a time, and prints a table
    #[arg(long)]
    seeds: Option<u64>,
    /// Hosts
    #[arg(long)]
    hosts: Option<usize>,
    /// Relays, the origin not counted
    #[arg(long)]
    relays: Option<usize>,
    /// Relays that share the load of one datacenter
    #[arg(long)]
    share: Option<usize>,
    /// Virtual hours with faults
    #[arg(long)]
    hours: Option<f64>,
    /// Mean virtual seconds between faults; 0: none
    #[arg(long)]
    every: Option<f64>,
    /// A tree of a known shape instead
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// The discrete-event model, to this many hosts, instead of a simulation
    #[arg(long, value_name = "HOSTS")]
    model: Option<u64>,
    /// Prints results as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// 100 datacenters with a relay each, three hosts in each for its thirty applications, and a day's 3 changes within 2 hours
    Datacenters,
}

impl Arguments {
    fn setup(&self) -> Setup {
        let hours = |hours: f64| Duration::from_secs_f64((hours * 3600.0).clamp(0.0, 1e7));
        let (size, time, every, publishes) = match self.preset {
            // 50 relays of regions, and below them 100 of datacenters.
            Some(Preset::Datacenters) => {
                (Size { hosts: 300, relays: 150, share: 1 }, hours(2.0), 0.0, Duration::from_secs(40 * 60))
            }
            None => (Size { hosts: 12, relays: 5, share: 2 }, hours(0.1), 12.0, Duration::from_secs(20)),
        };
        let every = self.every.unwrap_or(every);
        Setup {
            seed: self.seed,
            size: Size {
                hosts: self.hosts.unwrap_or(size.hosts),
                relays: self.relays.unwrap_or(size.relays),
                share: self.share.unwrap_or(size.share),
            },
            time: self.hours.map_or(time, hours),
            every: (every > 0.0).then(|| Duration::from_secs_f64(every)),
            publishes,
            prints: false,
            sabotage: None,
        }
    }
}

fn as_json(outcome: &Outcome) -> Value {
    let violations: Vec<Value> = outcome
        .violations
        .iter()
        .map(|v| json!({ "at": v.at.as_secs_f64(), "rule": v.rule.as_str(), "what": v.what }))
        .collect();
    json!({
        "seed": outcome.seed,
        "violations": violations,
        "releases": outcome.releases,
        "faults": outcome.faults,
        "virtual_seconds": outcome.virtual_time.as_secs_f64(),
        "converged_seconds": outcome.converged.as_secs_f64(),
        "last_host_ms": outcome.last_host.map(|(median, most)| [median.as_millis() as u64, most.as_millis() as u64]),
        "origin_bytes": outcome.origin_bytes,
        "origin_datagrams": outcome.origin_datagrams,
        "datagrams": outcome.datagrams.0,
        "digest": format!("{:016x}", outcome.datagrams.1),
        "files_compared": outcome.files_compared,
        "wall_seconds": outcome.wall.as_secs_f64(),
    })
}

fn summary(outcome: &Outcome, setup: &Setup) {
    let Size { hosts, relays, .. } = setup.size;
    println!(
        "seed {}: {hosts} hosts, {relays} relays, {:.0} s of virtual time in {:.2} s",
        outcome.seed,
        outcome.virtual_time.as_secs_f64(),
        outcome.wall.as_secs_f64()
    );
    println!(
        "{} releases, {} faults; converged {:.1} s after them; {} files compared with what was published",
        outcome.releases,
        outcome.faults,
        outcome.converged.as_secs_f64(),
        outcome.files_compared
    );
    if let Some((median, most)) = outcome.last_host {
        println!(
            "origin's disk to the last host: {} ms (median), {} ms (longest)",
            median.as_millis(),
            most.as_millis()
        );
    }
    println!(
        "the origin sent {} B in {} datagrams; {} datagrams in all, digest {:016x}",
        outcome.origin_bytes, outcome.origin_datagrams, outcome.datagrams.0, outcome.datagrams.1
    );
    for violation in &outcome.violations {
        println!(
            "VIOLATION at {:.3} s, {}: {}",
            violation.at.as_secs_f64(),
            violation.rule.as_str(),
            violation.what
        );
    }
    if !outcome.violations.is_empty() {
        println!("again: {}", many::command(setup));
    }
}

fn one(arguments: &Arguments) -> Result<ExitCode, SimError> {
    let setup = Setup { prints: !arguments.json, ..arguments.setup() };
    let outcome = run(&setup)?;
    if arguments.json {
        for line in &outcome.lines {
            println!("{}", json!({ "at": line.at.as_secs_f64(), "who": line.who, "what": line.what }));
        }
        println!("{}", as_json(&outcome));
    } else {
        summary(&outcome, &setup);
    }
    Ok(if outcome.violations.is_empty() { ExitCode::SUCCESS } else { DIFFERENCES.into() })
}

fn several(arguments: &Arguments, count: u64) -> ExitCode {
    let setup = arguments.setup();
    let is_json = arguments.json;
    let failed = many::run_all(&setup, count, &|seed, result| match result {
        Ok(outcome) if is_json => println!("{}", as_json(outcome)),
        Err(error) if is_json => println!("{}", json!({ "seed": seed, "error": error })),
        Ok(outcome) => {
            for violation in &outcome.violations {
                let at = violation.at.as_secs_f64();
                println!("seed {seed} at {at:.3} s, {}: {}", violation.rule.as_str(), violation.what);
            }
        }
        Err(error) => println!("seed {seed}: {error}"),
    });
    if !is_json {
        println!("{failed}");
        for seed in &failed.failed {
            println!("again: {}", many::command(&Setup { seed: *seed, ..setup }));
        }
    }
    if failed.failed.is_empty() { ExitCode::SUCCESS } else { DIFFERENCES.into() }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let wanted = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines.with_filter(wanted.unwrap_or_default())).init();
    let outcome = match (arguments.model, arguments.seeds) {
        (Some(hosts), _) => {
            let model = model::Tree::of_hosts(hosts);
            if arguments.json {
                println!("{}", model.to_json())
            } else {
                print!("{model}")
            }
            Ok(ExitCode::SUCCESS)
        }
        (None, Some(count)) => Ok(several(&arguments, count)),
        (None, None) => one(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: the simulation could not be run: {error}");
        eprintln!("next: see that there is room in memory and below /dev/shm, or set TMPDIR");
        FAILURE.into()
    })
}
