//! The agent as a process: runtime, signals, and a line per event.

use crate::{AgentConfig, AgentError, AgentEvent, run};
use rootcast::head::Freshness;
use rootcast_replica::signalled;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Runs an agent in this process until SIGTERM or SIGINT. With `json`, each
/// event is a line on standard output.
///
/// # Errors
/// When it cannot start.
pub fn start(config: &Path, json: bool) -> Result<(), AgentError> {
    let config = AgentConfig::load(config)?;
    // One thread: an agent waits most of its life, and small sends are cheaper without hand-overs.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AgentError::Runtime { source })?;
    let events = Arc::new(move |event: AgentEvent| {
        if json {
            // A reader that went away is no reason to stop.
            let _ = writeln!(std::io::stdout(), "{}", line(&event));
        }
    });
    runtime.block_on(run(config, events, signalled()))
}

fn line(event: &AgentEvent) -> serde_json::Value {
    use serde_json::json;
    match event {
        AgentEvent::Active { number, files, report, flipped, healed, secrets, left_out } => json!({
            "event": "active", "release": number, "files": files, "flipped": flipped, "healed": healed,
            "written": report.written, "removed": report.removed, "syncs": report.syncs,
            "secrets": secrets, "secrets_left_out": left_out,
        }),
        AgentEvent::Failed { number, reason } => {
            json!({ "event": "failed", "release": number, "reason": reason })
        }
        AgentEvent::Freshness(Freshness::Fresh { until }) => json!({ "event": "fresh", "until": until }),
        AgentEvent::Freshness(Freshness::Stale) => json!({ "event": "stale" }),
        AgentEvent::Follow(event) => event.to_json(),
    }
}
