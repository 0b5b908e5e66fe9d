//! Structured logs on standard error: as text or JSON lines, at a level that can be changed.

use serde::Deserialize;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

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

static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Reads a level: `error`, `warn`, `info`, `debug` or `trace`, or several for parts of the
/// program, as `info,rootcast_relay=debug`.
///
/// # Errors
/// What is wrong with it.
pub fn level(text: &str) -> Result<Targets, String> {
    let refused = |why: String| format!("`{text}` is no level of the log: {why}");
    // A word alone could be a part of the program, at its fullest, with all the rest silent: nobody means that.
    let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    let unknown = text.split(',').find(|part| !part.contains('=') && !is_level(part));
    if let Some(unknown) = unknown {
        return Err(refused(format!("`{unknown}` is none of error, warn, info, debug, trace and off")));
    }
    text.parse::<Targets>().map_err(|error| refused(error.to_string()))
}

/// Starts the log of this process. What the environment says of the level comes before `wanted`.
/// The first call counts.
pub fn start_log(format: LogFormat, wanted: &str) {
    let from_environment = std::env::var(LOG_ENVIRONMENT).ok();
    let text = from_environment.as_deref().unwrap_or(wanted);
    let filter = level(text).unwrap_or_else(|error| {
        eprintln!("{LOG_ENVIRONMENT}: {error}; logging at `info`");
        Targets::new().with_default(Level::INFO)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for good in ["info", "off", "warn,rootcast_relay=debug", "rootcast_agent=trace"] {
            level(good).unwrap();
        }
        for bad in ["verbose", "info,rootcast_relay", "rootcast_relay=loud", "", "info,"] {
            let said = level(bad).unwrap_err();
            assert!(said.contains("is no level of the log"), "{bad}: {said}");
        }
    }
}
