//! `rootcast verify`

mod channel;
mod live;

use crate::failure::{Exit, Failure};
use crate::inspect::place::{Configured, channels, known_trust};
use crate::output::{Output, bytes};
use channel::{Checked, Checking};
use live::Compared;
pub(crate) use live::newest;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The configuration of a relay, agent or publisher, or its state directory
    path: PathBuf,
    /// The directory of the identity whose trust document to verify against; a configuration names its own
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let begun = Instant::now();
    let configured = if arguments.path.is_dir() { None } else { Some(Configured::load(&arguments.path)?) };
    let identity = arguments.identity.as_ref().or(configured.as_ref().map(|found| &found.identity));
    let identity = identity.ok_or_else(|| {
        let message = "releases are verified against a trust document, and none is given";
        Failure::new(Exit::Usage, message).next(format!(
            "rootcast verify {} --identity DIR   (or give the configuration file, which names it)",
            arguments.path.display()
        ))
    })?;
    let state = configured.as_ref().map_or(&arguments.path, |found| &found.state);
    let trust = known_trust(identity, Some(state))?;
    let mut checked = Vec::new();
    for (name, directory) in channels(state)? {
        checked.push(Checking::new(&name, &trust).run(&directory, output)?);
    }
    let live = match configured.as_ref().and_then(|found| found.agent.as_ref()) {
        Some(agent) => Some(live::compare(agent, &trust)?),
        None => None,
    };
    let seconds = begun.elapsed().as_secs_f64();
    show(&checked, live.as_ref(), seconds, output);
    let found = checked.iter().map(|channel| channel.damage.len() as u64).sum::<u64>()
        + live.as_ref().map_or(0, |live| live.found);
    if found == 0 {
        return Ok(());
    }
    let message = format!("{found} things in {} are not as they should be", state.display());
    Err(Failure::new(Exit::Differences, message).next(
        "restart its daemon: it then re-hashes its store and fetches what is missing from its parent; \
         an origin's store is restored from a copy",
    ))
}

fn show(checked: &[Checked], live: Option<&Compared>, seconds: f64, output: &Output) {
    let channels: Vec<Value> = checked
        .iter()
        .map(|channel| {
            let stats = channel.stats;
            json!({
                "channel": channel.name.as_str(), "newest": channel.newest, "releases": channel.releases,
                "objects": stats.objects, "edits": stats.edits, "bytes": stats.bytes_on_disk,
                "damage": channel.damage,
            })
        })
        .collect();
    let current = live.map(|live| {
        json!({
            "path": live.path, "release": live.release, "files": live.files, "bytes": live.bytes,
            "found": live.found, "differences": live.differences,
        })
    });
    let damaged: usize = checked.iter().map(|channel| channel.damage.len()).sum();
    output.value(&json!({
        "channels": channels, "current": current, "damaged": damaged,
        "differences": live.map_or(0, |live| live.found), "seconds": seconds,
    }));
    for channel in checked {
        let stats = channel.stats;
        output.line(format!(
            "channel {}: {} releases, {} objects, {} edits, {}: {}",
            channel.name,
            channel.releases,
            stats.objects,
            stats.edits,
            bytes(stats.bytes_on_disk),
            verdict(channel.damage.len() as u64, "damaged")
        ));
        channel.damage.iter().for_each(|damage| output.line(format!("  {damage}")));
    }
    if let Some(live) = live {
        output.line(format!(
            "{}: {} files, {}, against release {}: {}",
            live.path.display(),
            live.files,
            bytes(live.bytes),
            live.release,
            verdict(live.found, "different")
        ));
        live.differences.iter().for_each(|difference| output.line(format!("  {difference}")));
    }
    output.line(format!("{seconds:.2} s"));
}

fn verdict(found: u64, what: &str) -> String {
    if found == 0 { "good".into() } else { format!("{found} {what}") }
}
