//! Structured logs on standard error: as text or JSON lines, at a level that can be changed.

use serde::Deserialize;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Overrides the level that a configuration says, in the form of [`level`].
pub const LOG_ENVIRONMENT: &str = "ROOTCAST_LOG";

/// How each line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object.
    Json,
}

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Reads a level: `error`, `warn`, `info`, `debug` or `trace`, or several for parts of the
/// program, as `info,rootcast_relay=debug`.
///
/// # Errors
/// What is wrong with it.
pub fn level(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(text).map_err(|error| format!("`{text}` is no level of the log: {error}"))
}

/// Starts the log of this process. What the environment says of the level comes before `wanted`.
/// The first call counts.
pub fn start_log(format: LogFormat, wanted: &str) {
    let from_environment = std::env::var(LOG_ENVIRONMENT).ok();
    let text = from_environment.as_deref().unwrap_or(wanted);
    let filter = level(text).unwrap_or_else(|error| {
        eprintln!("{LOG_ENVIRONMENT}: {error}; logging at `info`");
        EnvFilter::new("info")
    });
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry.with(fmt::layer().with_writer(io::stderr).with_ansi(colours)).try_init()
        }
        LogFormat::Json => {
            let lines =
                fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
            registry.with(lines.with_writer(io::stderr)).try_init()
        }
    };
    if started.is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Logs at another level from now on. Whether it could be changed: not where the environment
/// says the level, nor where somebody else writes the log.
pub fn change_level(wanted: &str) -> bool {
    if std::env::var_os(LOG_ENVIRONMENT).is_some() {
        return false;
    }
    match (FILTER.get(), level(wanted)) {
        (Some(handle), Ok(filter)) => handle.reload(filter).is_ok(),
        _ => false,
    }
}
