//! The agent as a process: runtime, signals, and a line per event.

use crate::run::run_reloading;
use crate::{AgentConfig, AgentError, AgentEvent};
use rootcast::head::Freshness;
use rootcast_replica::operations::{HangUps, Notifier, start_log};
use rootcast_replica::{System, told_to_end};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// Runs an agent in this process until SIGTERM or SIGINT; SIGHUP reads the configuration
/// again. With `json`, each event is a line on standard output. `level` of the log, where it
/// is given, comes before the configuration's.
///
/// # Errors
/// When it cannot start.
pub fn start(path: &Path, json: bool, level: Option<&str>) -> Result<(), AgentError> {
    let config = AgentConfig::load(path)?;
    start_log(config.log, level.unwrap_or(&config.log_level));
    // One thread: an agent waits most of its life, and small sends are cheaper without hand-overs.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AgentError::Runtime { source })?;
    let notifier = Arc::new(Notifier::from_environment());
    let telling = notifier.clone();
    let events = Arc::new(move |event: AgentEvent| {
        if matches!(event, AgentEvent::Ready { .. }) {
            telling.ready();
        }
        if json {
            // A reader that went away is no reason to stop.
            let _ = writeln!(std::io::stdout(), "{}", line(&event));
        }
    });
    let settings = watch::Sender::new(config);
    runtime.block_on(async {
        let hang_ups = HangUps::listen();
        let ends = async {
            told_to_end().await;
            notifier.stopping();
        };
        tokio::select! {
            biased;
            outcome = run_reloading(Arc::new(System), settings.subscribe(), events, ends) => outcome,
            () = hang_ups.reload(path, &settings, &notifier) => Ok(()),
            () = notifier.keep_alive() => Ok(()),
        }
    })
}

fn line(event: &AgentEvent) -> serde_json::Value {
    use serde_json::json;
    match event {
        AgentEvent::Ready { name, operations } => json!({
            "event": "ready", "name": name, "operations": operations.map(|address| address.to_string()),
        }),
        AgentEvent::Active { number, files, report, flipped, healed, secrets, left_out } => json!({
            "event": "active", "release": number, "files": files, "flipped": flipped, "healed": healed,
            "written": report.written, "removed": report.removed, "syncs": report.syncs,
            "secrets": secrets, "secrets_left_out": left_out,
        }),
        AgentEvent::Activation { release, state } => {
            json!({ "event": "activation", "release": release, "state": state.as_str() })
        }
        AgentEvent::Hook(run) => json!({
            "event": "hook", "service": run.service.as_str(), "phase": run.phase.as_str(), "what": run.what,
            "failure": run.failure, "output": run.output, "milliseconds": run.milliseconds,
        }),
        AgentEvent::RolledBack { number, live, state, reason, output } => json!({
            "event": "rolled-back", "release": number, "live": live, "state": state.as_str(),
            "reason": reason, "output": output,
        }),
        AgentEvent::Failed { number, reason } => {
            json!({ "event": "failed", "release": number, "reason": reason })
        }
        AgentEvent::Freshness(Freshness::Fresh { until }) => json!({ "event": "fresh", "until": until }),
        AgentEvent::Freshness(Freshness::Stale) => json!({ "event": "stale" }),
        AgentEvent::Follow(event) => event.to_json(),
    }
}
