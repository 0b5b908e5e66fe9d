//! The relay as a process.

use crate::server::run_reloading;
use crate::{RelayConfig, RelayError, RelayEvent};
use rootcast_replica::System;
use rootcast_replica::operations::{self, Event};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Runs a relay in this process, as [`operations::start`] says.
///
/// # Errors
/// When it cannot start.
pub fn start(path: &Path, json: bool, level: Option<&str>) -> Result<(), RelayError> {
    let config = RelayConfig::load(path)?;
    operations::start((path, config), json, level, |settings, events, ended| {
        run_reloading(Arc::new(System), settings, events, ended)
    })
}

impl Event for RelayEvent {
    fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Ready { name, address, https, operations } => json!({
                "event": "ready", "name": name, "address": address.to_string(),
                "https": https.map(|https| https.to_string()),
                "operations": operations.map(|address| address.to_string()),
            }),
            Self::Published { channel, number, publisher } => json!({
                "event": "published", "channel": channel.as_str(), "release": number, "publisher": publisher,
            }),
            Self::Trust { version, by } => json!({ "event": "trust", "version": version, "by": by }),
            Self::Follow { channel, event } => {
                let mut line = event.to_json();
                if let Some(fields) = line.as_object_mut() {
                    fields.insert("channel".into(), channel.as_str().into());
                }
                line
            }
        }
    }
}
