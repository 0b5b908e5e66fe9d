//! The agent's configuration file.

use crate::AgentError;
use crate::services::Allow;
use crate::slots::Patterns;
use rootcast::drift::Mode;
use rootcast::path::ChannelName;
use rootcast::topology::Address;
use rootcast_replica::operations::{LogFormat, Settings, level};
use rootcast_replica::{ConfigError, keep_keys, read_config};
use rootcast_view::{Facts, check_facts};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What an agent is told; its labels are in its certificate (specs/wire.md, W-2). Paths are relative to the file's directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The directory of its identity, as `rootcast init` wrote it.
    pub identity: PathBuf,
    /// The directory of its store.
    pub state: PathBuf,
    /// The directory in which `current` points to the live configuration.
    pub live: PathBuf,
    /// The directory of this host's secrets, in memory;
    /// [`AgentConfig::secrets_directory`] says which unless it is given here.
    pub secrets: Option<PathBuf>,
    /// Addresses of relays, the nearest first.
    pub relays: Vec<String>,
    /// The channel that this host follows.
    #[serde(default = "default_channel")]
    pub channel: String,
    /// What templates may name as `facts.NAME`: text, whole numbers, true and false.
    #[serde(default)]
    pub facts: Facts,
    /// The TCP address at which operators find `/healthz`, `/readyz` and `/metrics`; none unless it is given.
    #[serde(default)]
    pub operations: Option<SocketAddr>,
    /// What is done when others change the live tree: `repair`, `report`, or `off`.
    #[serde(default)]
    pub drift: Mode,
    /// Patterns of paths in the live tree that are neither compared nor removed.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// The unix socket of the local API, or `off`; `agent.sock` in `state` unless it is given.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// What releases may do on this host beside showing files: nothing, unless it is given.
    #[serde(default)]
    pub allow: Allow,
    /// How the log is written: `text` or `json` lines.
    #[serde(default)]
    pub log: LogFormat,
    /// How much is logged: `error`, `warn`, `info`, `debug`, `trace`, or `info,rootcast_agent=debug`.
    #[serde(default = "default_log_level")]
    pub log_level: String,
}

/// In the place of a path: there is to be none.
const OFF: &str = "off";

fn default_log_level() -> String {
    "info".into()
}

fn default_channel() -> String {
    "main".into()
}

impl AgentConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`AgentError::Config`], with line and column where there is a mistake.
    pub fn load(path: &Path) -> Result<Self, AgentError> {
        let (mut config, directory): (Self, _) = read_config(path)?;
        if config.relays.is_empty() {
            return Err(ConfigError::wrong(path, "`relays` names no address").into());
        }
        for relay in &config.relays {
            Address::new(relay.clone()).map_err(|error| ConfigError::wrong(path, error.to_string()))?;
        }
        check_facts(&config.facts).map_err(|error| ConfigError::wrong(path, error))?;
        level(&config.log_level)
            .map_err(|error| ConfigError::wrong(path, format!("`log_level`: {error}")))?;
        Patterns::new(&config.ignore)
            .map_err(|error| ConfigError::wrong(path, format!("`ignore`: {error}")))?;
        for path in [&mut config.identity, &mut config.state, &mut config.live] {
            *path = directory.join(&*path);
        }
        if let Some(socket) = config.socket.as_mut().filter(|socket| socket.as_path() != Path::new(OFF)) {
            *socket = directory.join(&*socket);
        }
        // What links say must not depend on where the agent was started.
        if let Some(secrets) = &mut config.secrets {
            let absolute = std::path::absolute(directory.join(&*secrets));
            *secrets = absolute.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        }
        Ok(config)
    }

    /// Where the secrets of the host of this name are (specs/activation.md, A-22);
    /// `None` where neither the configuration nor the environment says.
    pub fn secrets_directory(&self, host: &str) -> Option<PathBuf> {
        let below = |base: &Path| base.join("rootcast").join(host);
        match &self.secrets {
            Some(secrets) => Some(secrets.clone()),
            None if rustix::process::geteuid().is_root() => Some(below(Path::new("/run"))),
            None => std::env::var_os("XDG_RUNTIME_DIR").map(|base| below(Path::new(&base))),
        }
    }

    /// Where the local API is (specs/local.md, L-1); `None` where there is none.
    pub fn socket(&self) -> Option<PathBuf> {
        match &self.socket {
            Some(socket) if socket.as_path() == Path::new(OFF) => None,
            Some(socket) => Some(socket.clone()),
            None => Some(self.state.join("agent.sock")),
        }
    }

    /// The channel's name.
    ///
    /// # Errors
    /// When it is not one.
    pub fn channel(&self) -> Result<ChannelName, AgentError> {
        Ok(ChannelName::new(&self.channel)?)
    }
}

impl Settings for AgentConfig {
    fn read(path: &Path) -> Result<Self, String> {
        Self::load(path).map_err(|error| error.to_string())
    }

    fn keep_fixed(&mut self, old: &Self) -> Vec<&'static str> {
        let mut differ = Vec::new();
        keep_keys!(
            self, old, differ: identity, state, live, secrets, channel, facts, drift, ignore, socket, log
        );
        differ
    }

    fn log_format(&self) -> LogFormat {
        self.log
    }

    fn log_level(&self) -> &str {
        &self.log_level
    }
}
