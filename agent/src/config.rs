//! The agent's configuration file.

use crate::AgentError;
use rootcast::path::ChannelName;
use rootcast::settings::{self, SettingsError};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What an agent is told. Paths are relative to the file's directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The directory of its identity, as `rootcast init` wrote it.
    pub identity: PathBuf,
    /// The directory of its store.
    pub state: PathBuf,
    /// The directory in which `current` points to the live configuration.
    pub live: PathBuf,
    /// Addresses of relays, the nearest first.
    pub relays: Vec<String>,
    /// The channel that this host follows.
    #[serde(default = "default_channel")]
    pub channel: String,
    /// What the layers ask for: `region`, `datacenter`, `role` and any other.
    /// `host` is the identity's name unless it is given here.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn default_channel() -> String {
    "main".into()
}

impl AgentConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`AgentError::ReadConfig`], or [`AgentError::Config`] with line and column.
    pub fn load(path: &Path) -> Result<Self, AgentError> {
        let read = |source| AgentError::ReadConfig { path: path.to_owned(), source };
        let wrong = |source| AgentError::Config { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(read)?;
        let mut config: Self = settings::parse_bytes(&bytes).map_err(wrong)?;
        if config.relays.is_empty() {
            return Err(wrong(SettingsError::at("", 0, "`relays` names no address")));
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        for path in [&mut config.identity, &mut config.state, &mut config.live] {
            *path = directory.join(&*path);
        }
        Ok(config)
    }

    /// The channel's name.
    ///
    /// # Errors
    /// When it is not one.
    pub fn channel(&self) -> Result<ChannelName, AgentError> {
        Ok(ChannelName::new(&self.channel)?)
    }
}
