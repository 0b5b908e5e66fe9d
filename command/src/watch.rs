//! `rootcast watch`: a line for each generation that becomes live on this host.

use crate::failure::{Exit, Failure};
use crate::local::{Asked, Event, Place};
use crate::output::{Output, plain};
use rootcast_agent::slots::Patterns;
use serde_json::json;
use std::time::Duration;

/// Waits before an agent that went away is asked again: first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only generations that change what this pattern means, as app/** or nginx/
    pattern: Option<String>,
    /// End after the first such line
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn patterns(given: &[String]) -> Result<Patterns, Failure> {
    Patterns::new(given).map_err(|error| {
        Failure::new(Exit::Usage, format!("pattern: {error}"))
            .next("specs/configuration.md, F-42, has what patterns are")
    })
}

/// Tells `take` of each generation after `after`, for ever, or until it says that it has enough. An agent that
/// goes away is waited for.
pub(crate) fn follow(agent: &Asked, mut after: Option<u64>, mut take: impl FnMut(Event) -> bool) {
    let mut wait = AGAIN.0;
    loop {
        if let Ok(mut events) = agent.watch(after) {
            wait = AGAIN.0;
            while let Some(event) = events.next() {
                after = Some(event.generation);
                if !take(event) {
                    return;
                }
            }
        }
        std::thread::sleep(wait);
        wait = (wait * 2).min(AGAIN.1);
    }
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let agent = arguments.place.agent()?;
    let given: Vec<String> = arguments.pattern.iter().cloned().collect();
    let patterns = patterns(&given)?;
    // What is live now is no change; and no agent at all is told at once.
    let now = agent.get("/v1/status")?.generation_of_status();
    follow(&agent, now, |event| {
        if !given.is_empty() && !event.concerns(&patterns) {
            return true;
        }
        output.value(
            &json!({ "event": "generation", "generation": event.generation, "changed": event.changed }),
        );
        let changed = match &event.changed {
            Some(paths) => paths.iter().map(|path| plain(path)).collect::<Vec<_>>().join(" "),
            None => "(not known what changed)".into(),
        };
        output.line(format!("generation {}  {changed}", event.generation));
        !arguments.once
    });
    Ok(())
}

impl crate::local::Answer {
    /// The generation that a status tells of.
    pub(crate) fn generation_of_status(&self) -> Option<u64> {
        let status: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        status.get("generation")?.as_u64()
    }
}
