//! The relay as a process: runtime, signals, and a line per event.

use crate::server::run_reloading;
use crate::{RelayConfig, RelayError, RelayEvent};
use rootcast_replica::operations::{HangUps, Notifier, start_log};
use rootcast_replica::{System, told_to_end};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// Runs a relay in this process until SIGTERM or SIGINT; SIGHUP reads the configuration
/// again. With `json`, each event is a line on standard output. `level` of the log, where it
/// is given, comes before the configuration's.
///
/// # Errors
/// When it cannot start.
pub fn start(path: &Path, json: bool, level: Option<&str>) -> Result<(), RelayError> {
    let config = RelayConfig::load(path)?;
    start_log(config.log, level.unwrap_or(&config.log_level));
    // One thread for the network: small sends to many children are far cheaper
    // without hand-overs. What waits for the disk or computes has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RelayError::Runtime { source })?;
    let notifier = Arc::new(Notifier::from_environment());
    let telling = notifier.clone();
    let events = Arc::new(move |event: RelayEvent| {
        if matches!(event, RelayEvent::Ready { .. }) {
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

fn line(event: &RelayEvent) -> serde_json::Value {
    use serde_json::json;
    match event {
        RelayEvent::Ready { name, address, https, operations } => json!({
            "event": "ready", "name": name, "address": address.to_string(),
            "https": https.map(|https| https.to_string()),
            "operations": operations.map(|address| address.to_string()),
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
