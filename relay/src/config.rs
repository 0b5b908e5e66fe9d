//! The relay's configuration file.

use crate::RelayError;
use rootcast::limits::{
    HEAD_VALIDITY, HEAD_VALIDITY_LEAST, HEAD_VALIDITY_MOST, MAX_CHANNELS, MAX_KEEP, WANTED_KEPT,
    WANTED_KEPT_MOST,
};
use rootcast::path::ChannelName;
use rootcast::subscriptions::Keep;
use rootcast::topology::Address;
use rootcast_replica::operations::{LogFormat, Settings, level};
use rootcast_replica::{ConfigError, keep_keys, read_config};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What a relay is told. Paths are relative to the file's directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// The UDP address to serve at.
    pub listen: SocketAddr,
    /// The TCP address to serve HTTPS at, or `off`; unless given, that of `listen`.
    #[serde(default)]
    pub https: HttpsAddress,
    /// Whether caches between this relay and hosts may keep what one host asked for, for others
    /// (specs/http.md, HT-14): `private` or `shared`.
    #[serde(default)]
    pub http_cache: HttpCache,
    /// The directory of its identity, as `rootcast init` wrote it.
    pub identity: PathBuf,
    /// The directory of its state.
    pub state: PathBuf,
    /// The channels that it carries.
    #[serde(default = "default_channels")]
    pub channels: Vec<ChannelName>,
    /// The directory of the origin's keys: `issuing.key`, `issuing.pem`, `head.key`. Without it, nobody
    /// can join or renew. No other relay has one.
    #[serde(default)]
    pub keys: Option<PathBuf>,
    /// Where those who are invited find the platform (origin); for the operator's commands.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Addresses of parents, the best first. None: this is the origin.
    #[serde(default)]
    pub parents: Vec<String>,
    /// Where other relays and hosts can dial this relay, `host:port`. Its parent passes it on. Without it: what
    /// `listen` says, or, where that is every address of the machine, where the parent sees it
    /// (specs/topology.md, TP-11).
    #[serde(default)]
    pub advertise: Option<String>,
    /// Bundles that a relay keeps up although no child wants them: names, `role/*` for those below one, `*` for
    /// all. The origin keeps all.
    #[serde(default)]
    pub keep: Vec<Keep>,
    /// How long a relay keeps up a bundle after the last child that wanted it has left, in seconds.
    #[serde(default = "default_keep")]
    pub keep_seconds: u64,
    /// How long the origin's heads are good for, in seconds. A host that hears of none for so long is STALE.
    #[serde(default = "default_head_validity")]
    pub head_validity_seconds: u64,
    /// The TCP address at which operators find `/healthz`, `/readyz` and `/metrics`; none unless it is given.
    #[serde(default)]
    pub operations: Option<SocketAddr>,
    /// How the log is written: `text` or `json` lines.
    #[serde(default)]
    pub log: LogFormat,
    /// How much is logged: `error`, `warn`, `info`, `debug`, `trace`, or `info,rootcast_relay=debug`.
    #[serde(default = "default_log_level")]
    pub log_level: String,
}

fn default_log_level() -> String {
    "info".into()
}

/// Where HTTPS is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpsAddress {
    /// At the TCP port of the same number as QUIC's, if that is to be had.
    #[default]
    Beside,
    /// Here.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl<'de> Deserialize<'de> for HttpsAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::At).map_err(|_| {
                D::Error::custom(format!(
                    "`{address}` is neither an address, as \"0.0.0.0:7400\", nor \"off\""
                ))
            }),
        }
    }
}

/// Who may keep what is served over HTTPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpCache {
    /// Who asked for it.
    #[default]
    Private,
    /// Caches on the way as well, which then give it to all who reach them.
    Shared,
}

fn default_keep() -> u64 {
    WANTED_KEPT.as_secs()
}

fn default_head_validity() -> u64 {
    HEAD_VALIDITY.as_secs()
}

fn default_channels() -> Vec<ChannelName> {
    ChannelName::new("main").into_iter().collect()
}

impl RelayConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`RelayError::Config`], with line and column where there is a mistake.
    pub fn load(path: &Path) -> Result<Self, RelayError> {
        let (mut config, directory): (Self, _) = read_config(path)?;
        if config.channels.is_empty() || config.channels.len() > MAX_CHANNELS {
            let message = format!("`channels` names between 1 and {MAX_CHANNELS} channels");
            return Err(ConfigError::wrong(path, message).into());
        }
        let allowed = HEAD_VALIDITY_LEAST.as_secs()..=HEAD_VALIDITY_MOST.as_secs();
        if !allowed.contains(&config.head_validity_seconds) {
            let message =
                format!("`head_validity_seconds` is between {} and {}", allowed.start(), allowed.end());
            return Err(ConfigError::wrong(path, message).into());
        }
        if config.keep_seconds == 0 || config.keep_seconds > WANTED_KEPT_MOST.as_secs() {
            let message = format!("`keep_seconds` is between 1 and {}", WANTED_KEPT_MOST.as_secs());
            return Err(ConfigError::wrong(path, message).into());
        }
        if config.keep.len() > MAX_KEEP || (config.parents.is_empty() && !config.keep.is_empty()) {
            let message = format!(
                "`keep` is for a relay with `parents`, and names at most {MAX_KEEP}; the origin keeps all"
            );
            return Err(ConfigError::wrong(path, message).into());
        }
        level(&config.log_level)
            .map_err(|error| ConfigError::wrong(path, format!("`log_level`: {error}")))?;
        if config.keys.is_some() && !config.parents.is_empty() {
            let message = "`keys` are the origin's, and a relay with `parents` is not the origin";
            return Err(ConfigError::wrong(path, message).into());
        }
        for address in config.parents.iter().chain(&config.advertise) {
            Address::new(address.clone()).map_err(|error| ConfigError::wrong(path, error.to_string()))?;
        }
        config.keys = config.keys.map(|keys| directory.join(keys));
        config.identity = directory.join(&config.identity);
        config.state = directory.join(&config.state);
        Ok(config)
    }

    /// Where the relay, which listens at `bound`, can be dialled; `None` where its parent can tell better.
    pub(crate) fn serves(&self, bound: SocketAddr) -> Option<Address> {
        match &self.advertise {
            Some(address) => Address::new(address.clone()).ok(),
            None if bound.ip().is_unspecified() => None,
            None => Address::new(bound.to_string()).ok(),
        }
    }
}

impl Settings for RelayConfig {
    fn read(path: &Path) -> Result<Self, String> {
        Self::load(path).map_err(|error| error.to_string())
    }

    fn keep_fixed(&mut self, old: &Self) -> Vec<&'static str> {
        let mut differ = Vec::new();
        keep_keys!(self, old, differ:
            listen,
            https,
            http_cache,
            advertise,
            identity,
            state,
            channels,
            keys,
            keep,
            keep_seconds,
            head_validity_seconds,
            log
        );
        // The origin is another thing than a relay that follows one.
        if self.parents.is_empty() != old.parents.is_empty() {
            self.parents.clone_from(&old.parents);
            differ.push("parents");
        }
        differ
    }

    fn log_format(&self) -> LogFormat {
        self.log
    }

    fn log_level(&self) -> &str {
        &self.log_level
    }
}
