//! The agent as a process.

use crate::run::run_reloading;
use crate::{AgentConfig, AgentError, AgentEvent};
use rootcast::head::Freshness;
use rootcast_replica::System;
use rootcast_replica::operations::{self, Event};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Runs an agent in this process, as [`operations::start`] says.
///
/// # Errors
/// When it cannot start.
pub fn start(path: &Path, json: bool, level: Option<&str>) -> Result<(), AgentError> {
    let config = AgentConfig::load(path)?;
    operations::start((path, config), json, level, |settings, events, ended| {
        run_reloading(Arc::new(System), settings, events, ended)
    })
}

impl Event for AgentEvent {
    fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Ready { name, operations } => json!({
                "event": "ready", "name": name, "operations": operations.map(|address| address.to_string()),
            }),
            Self::Active { number, files, report, flipped, healed, secrets, left_out } => json!({
                "event": "active", "release": number, "files": files, "flipped": flipped, "healed": healed,
                "written": report.written, "removed": report.removed, "syncs": report.syncs,
                "secrets": secrets, "secrets_left_out": left_out,
            }),
            Self::Drift(found) => json!({
                "event": "drift", "paths": found.paths, "count": found.count, "repaired": found.repaired,
                "flipped": found.flipped, "removed": found.removed, "micros": found.took.as_micros() as u64,
                "set_aside": found.set_aside.as_ref().map(|path| path.display().to_string()),
            }),
            Self::Failed { number, reason } => {
                json!({ "event": "failed", "release": number, "reason": reason })
            }
            Self::Freshness(Freshness::Fresh { until }) => json!({ "event": "fresh", "until": until }),
            Self::Freshness(Freshness::Stale) => json!({ "event": "stale" }),
            Self::Follow(event) => event.to_json(),
        }
    }
}
