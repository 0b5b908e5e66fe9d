//! The relay as a process: runtime, signals, and a line per event.

use crate::{RelayConfig, RelayError, RelayEvent, run};
use rootcast_replica::signalled;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Runs a relay in this process until SIGTERM or SIGINT. With `json`, each
/// event is a line on standard output.
///
/// # Errors
/// When it cannot start.
pub fn start(config: &Path, json: bool) -> Result<(), RelayError> {
    let config = RelayConfig::load(config)?;
    // One thread for the network: small sends to many children are far cheaper
    // without hand-overs. What waits for the disk or computes has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RelayError::Runtime { source })?;
    let events = Arc::new(move |event: RelayEvent| {
        if json {
            // A reader that went away is no reason to stop.
            let _ = writeln!(std::io::stdout(), "{}", line(&event));
        }
    });
    runtime.block_on(run(config, events, signalled()))
}

fn line(event: &RelayEvent) -> serde_json::Value {
    use serde_json::json;
    match event {
        RelayEvent::Ready { name, address, https } => json!({
            "event": "ready", "name": name, "address": address.to_string(),
            "https": https.map(|https| https.to_string()),
        }),
        RelayEvent::Published { channel, number, publisher } => json!({
            "event": "published", "channel": channel.as_str(), "release": number, "publisher": publisher,
        }),
        RelayEvent::Trust { version, by } => json!({ "event": "trust", "version": version, "by": by }),
        RelayEvent::Follow { channel, event } => {
            let mut line = event.to_json();
            if let Some(fields) = line.as_object_mut() {
                fields.insert("channel".into(), channel.as_str().into());
            }
            line
        }
    }
}
