//! What every long-running process of a platform does alike: read its
//! configuration file, end on a signal, say what happens.

use crate::FollowEvent;
use rootcast::settings::{self, SettingsError};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};

/// A configuration file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has a mistake.
    #[error("{}:{source}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: SettingsError,
    },
}

impl ConfigError {
    /// A mistake that no single line shows.
    pub fn wrong(path: &Path, message: impl Into<String>) -> Self {
        Self::Wrong { path: path.to_owned(), source: SettingsError::at("", 0, message) }
    }
}

/// Reads a configuration file, and gives the directory that its paths are relative to.
///
/// # Errors
/// [`ConfigError`], with line and column where there is a mistake.
pub fn read_config<T: DeserializeOwned>(path: &Path) -> Result<(T, PathBuf), ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let wrong = |source| ConfigError::Wrong { path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(read)?;
    let config = settings::parse_bytes(&bytes).map_err(wrong)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    // What is written of it, in links say, must not depend on where a process was started.
    let directory = std::path::absolute(directory.unwrap_or(Path::new("."))).map_err(read)?;
    Ok((config, directory))
}

/// Waits for SIGTERM, SIGINT, or SIGHUP as of a closed terminal. Where signals
/// cannot be heard, for ever.
pub async fn signalled() {
    let (terminate, hang_up) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut hang_up)) = (terminate, hang_up) else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Waits for SIGTERM or SIGINT: SIGHUP is for reading the configuration again. Where signals
/// cannot be heard, for ever.
pub async fn told_to_end() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

impl FollowEvent {
    /// The event as a line for programs.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Held { number, bytes } => json!({ "event": "held", "release": number, "bytes": bytes }),
            Self::Connected { parent, address } => {
                json!({ "event": "connected", "parent": parent, "address": address })
            }
            Self::Lost { address, reason } => {
                json!({ "event": "lost", "address": address, "reason": reason })
            }
            Self::Fallback { reason } => json!({ "event": "fallback", "over": "https", "reason": reason }),
            Self::Returned { address } => json!({ "event": "returned", "over": "quic", "address": address }),
            Self::Denials { document } => json!({ "event": "denials", "bytes": document.len() }),
            Self::Trust { version } => json!({ "event": "trust", "version": version }),
            Self::HeadRefused { reason } => json!({ "event": "head refused", "reason": reason }),
            Self::Failed { reason } => json!({ "event": "refused", "reason": reason }),
        }
    }
}
