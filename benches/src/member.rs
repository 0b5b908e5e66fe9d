//! A process of the platform under measurement: relay, agent or publisher as
//! they are, and beside them one thread that answers for what they cost.
//!
//! A line on standard input asks. `totals` is answered with the CPU time of the
//! whole process, threads that ended included and the answering one excluded,
//! and the bytes on streams so far. The end of standard input ends the process,
//! so that none outlives the harness.

use crate::args::{Member, MemberRole};
use crate::error::BenchError;
use rootcast_bundler::source::Source;
use rootcast_bundler::{PublishConfig, PublishError, Publisher};
use rootcast_transport::StreamTotals;
use rustix::process::{Signal, getpid, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The question for the totals.
pub(crate) const TOTALS: &str = "totals";
/// What comes before the commit that a publisher is to publish.
pub(crate) const PUBLISH: &str = "publish ";
/// Commits that may wait to be published.
const WAITING: usize = 16;

/// Runs a process until it is told to end.
pub(crate) fn run(member: &Member) -> Result<(), BenchError> {
    let (commits, waiting) = mpsc::channel(WAITING);
    std::thread::spawn(move || answer(&commits));
    match member.role {
        MemberRole::Relay => Ok(rootcast_relay::start(&member.config, true, None)?),
        MemberRole::Agent => Ok(rootcast_agent::start(&member.config, true, None)?),
        MemberRole::Publisher => {
            let repository = member.repository.as_ref();
            let repository =
                repository.ok_or_else(|| BenchError::Usage("a publisher needs a repository".into()))?;
            publish_all(&member.config, repository, waiting)
        }
    }
}

/// Tells a line to the harness. One that went away reads no more, and that is no error.
fn tell(line: &Value) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of the calling thread so far.
pub(crate) fn thread_cpu() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

/// CPU time of this process so far, without the calling thread's.
fn others_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime).saturating_sub(thread_cpu())
}

fn answer(commits: &mpsc::Sender<String>) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        if line == TOTALS {
            let StreamTotals { sent, received } = StreamTotals::now();
            let cpu = u64::try_from(others_cpu().as_nanos()).unwrap_or(u64::MAX);
            tell(&json!({ "event": "totals", "cpu_ns": cpu, "sent": sent, "received": received }));
        } else if let Some(commit) = line.strip_prefix(PUBLISH)
            && commits.blocking_send(commit.to_owned()).is_err()
        {
            return;
        }
    }
    // As a terminal that closes does: whoever waits for signals ends in order.
    let _ = kill_process(getpid(), Signal::TERM);
}

fn publish_all(
    config: &Path,
    repository: &Path,
    mut waiting: mpsc::Receiver<String>,
) -> Result<(), BenchError> {
    let config = PublishConfig::load(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::io(&PathBuf::from("the runtime")))?;
    runtime.block_on(async {
        let source = Source::open(repository, None)?;
        let mut publisher = Publisher::open(&config)?;
        // A history that empties its tree at some commit is published as it is.
        publisher.set_allow_empty(true);
        tell(&json!({ "event": "ready" }));
        while let Some(commit) = waiting.recv().await {
            tell(&publish(&mut publisher, &source, &commit).await?);
        }
        Ok(())
    })
}

async fn publish(publisher: &mut Publisher, source: &Source, commit: &str) -> Result<Value, BenchError> {
    let refused = |reason: String| json!({ "event": "unpublishable", "commit": commit, "reason": reason });
    let bytes = hex::decode(commit).unwrap_or_default();
    let at = Arc::new(Mutex::new(source.at(&bytes)?));
    let begun = Instant::now();
    let published = match publisher.publish(&at, Arc::new(|_, _, _| {})).await {
        Ok(published) => published,
        // The commit's own fault, not the platform's.
        Err(
            error @ (PublishError::Compile(_) | PublishError::NotGranted { .. } | PublishError::Refused(_)),
        ) => return Ok(refused(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    Ok(json!({
        "event": "acknowledged", "release": published.number, "new": published.is_new,
        "files_changed": published.files_changed, "edit_bytes": published.edit_bytes,
        "publish_us": u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
    }))
}
