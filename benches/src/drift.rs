//! How long a live file of a host stays as somebody wrote it: a real agent under a real origin, files of a
//! whole tree written one after the other (specs/activation.md, A-52).

use crate::args::MemberRole;
use crate::error::BenchError;
use crate::ours::Scene;
use crate::ours::process::Process;
use crate::scale::{Shape, repository};
use clap::Args;
use rootcast_bundler::source::Source;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What to measure.
#[derive(Args)]
pub(crate) struct Drift {
    /// Files of the live tree
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1000..=1_000_000))]
    files: u64,
    /// How the files lie
    #[arg(long, value_enum, default_value = "nested")]
    shape: Shape,
    /// Files that are written, each once
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(20..=500))]
    samples: u64,
    /// Puts everything here. On a file system in memory syncs cost nothing
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// How long anything may take.
const WAIT: Duration = Duration::from_secs(300);
/// Quiet time between two writes: also that after a start, in which trees are brought level.
const PAUSE: Duration = Duration::from_millis(20);
const SETTLE: Duration = Duration::from_secs(2);

fn failed(what: impl ToString) -> BenchError {
    BenchError::Program { program: "drift".into(), what: what.to_string() }
}

/// Writes another text, and waits until the old one is back.
async fn sample(path: &Path) -> Result<Duration, BenchError> {
    let wanted = std::fs::read(path).map_err(BenchError::io(path))?;
    std::fs::write(path, b"written by another hand\n").map_err(BenchError::io(path))?;
    let begun = Instant::now();
    while begun.elapsed() < WAIT {
        if std::fs::read(path).is_ok_and(|found| found == wanted) {
            return Ok(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    Err(failed(format!("{} was not put right", path.display())))
}

async fn measure(arguments: &Drift, directory: &Path) -> Result<(), BenchError> {
    let source = directory.join("source.git");
    repository(&source, arguments.files, arguments.shape).map_err(failed)?;
    let commit = hex::encode(Source::open(&source, Some("main"))?.commit());
    let mut scene = Scene::open(&directory.join("platform"), &source).await?;
    scene.publish(&commit).await?;
    let home = scene.platform.agent("host", "host", scene.address)?;
    let mut agent = Process::start(MemberRole::Agent, "host", &home, None)?;
    agent.of_release("active", 1, WAIT).await?;
    tokio::time::sleep(SETTLE).await;
    let live = home.join("live/current");
    let mut times = Vec::new();
    for number in 0..arguments.samples {
        // Spread over the tree; the multiplier shares no factor with usual sizes.
        let path = live.join(arguments.shape.path(number * 7919 % arguments.files));
        times.push(sample(&path).await?);
        tokio::time::sleep(PAUSE).await;
    }
    times.sort_unstable();
    let part = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1)).copied();
    let millis = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64() * 1e3;
    println!("| {} files, {} written one by one | p50 | p99 | longest |", arguments.files, times.len());
    println!("|---|---:|---:|---:|");
    println!(
        "| written to put right | {:.1} ms | {:.1} ms | {:.1} ms |",
        millis(part(50)),
        millis(part(99)),
        millis(times.last().copied())
    );
    agent.stop().await;
    scene.stop().await;
    Ok(())
}

pub(crate) fn run(arguments: &Drift) -> Result<(), BenchError> {
    let made = match &arguments.directory {
        Some(directory) => tempfile::tempdir_in(directory),
        None => tempfile::tempdir(),
    };
    let directory = made.map_err(BenchError::io(Path::new("the temporary directory")))?;
    crate::handshake::runtime()?.block_on(measure(arguments, directory.path()))
}
