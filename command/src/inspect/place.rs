//! What a command line points at: a daemon's configuration or its state.

use crate::failure::{Exit, Failure};
use rootcast::limits::MAX_SETTINGS;
use rootcast::path::ChannelName;
use rootcast::settings;
use rootcast::trust::TrustChain;
use rootcast_agent::AgentConfig;
use rootcast_bundler::PublishConfig;
use rootcast_relay::RelayConfig;
use rootcast_replica::Trusted;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// What the configuration of a relay, an agent or a publisher says.
pub(crate) struct Configured {
    /// The directory of its identity.
    pub(crate) identity: PathBuf,
    /// The directory of its state.
    pub(crate) state: PathBuf,
    /// Where to ask for status: itself for a relay, else those that it dials.
    pub(crate) relays: Vec<String>,
    /// All of it, where it is an agent's.
    pub(crate) agent: Option<AgentConfig>,
}

impl Configured {
    /// Reads the file. Whose it is shows in its keys.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let bytes = read(path, MAX_SETTINGS).map_err(|error| Failure::io(path, &error))?;
        let keys: serde_json::Value = settings::parse_bytes(&bytes)
            .map_err(|error| Failure::new(Exit::Usage, format!("{}:{error}", path.display())))?;
        let has = |key: &str| keys.get(key).is_some();
        if has("live") || has("relays") {
            let config = AgentConfig::load(path)?;
            let (identity, state) = (config.identity.clone(), config.state.clone());
            return Ok(Self { identity, state, relays: config.relays.clone(), agent: Some(config) });
        }
        if has("listen") {
            let RelayConfig { listen, identity, state, .. } = RelayConfig::load(path)?;
            let relays = reachable(listen).into_iter().collect();
            return Ok(Self { identity, state, relays, agent: None });
        }
        if has("origin") {
            let PublishConfig { identity, state, origin, .. } = PublishConfig::load(path)?;
            return Ok(Self { identity, state, relays: origin, agent: None });
        }
        let message = format!(
            "{} is not the configuration of a relay (`listen`), an agent (`live`) or a publisher (`origin`)",
            path.display()
        );
        Err(Failure::new(Exit::Usage, message))
    }
}

/// Where something on this machine that listens at `address` can be dialled.
/// `None` where the system chose the port.
fn reachable(mut address: SocketAddr) -> Option<String> {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    (address.port() != 0).then(|| address.to_string())
}

/// Reads a file of at most `limit` bytes; of a larger one, one byte more, for
/// the decoder to refuse.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The channels of a state directory, with the directories of their stores, by name.
pub(crate) fn channels(state: &Path) -> Result<Vec<(ChannelName, PathBuf)>, Failure> {
    let directory = state.join("channels");
    let list = |error: io::Error| {
        let failure = Failure::new(
            Exit::Usage,
            format!(
                "{} is not the state of a relay, agent or publisher: {}: {error}",
                state.display(),
                directory.display()
            ),
        );
        failure
            .next("give the directory that `state` names in its configuration, or the configuration itself")
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(&directory).map_err(list)? {
        let path = entry.map_err(list)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().replace('%', "/")).unwrap_or_default();
        if let (true, Ok(name)) = (path.is_dir(), ChannelName::new(&name)) {
            found.push((name, path));
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(Failure::new(Exit::Failure, format!("{} holds no channel yet", directory.display())));
    }
    Ok(found)
}

/// The platform's trust: as pinned beside an identity or in a platform's directory,
/// and the later versions that a state directory holds. Needs no private key.
pub(crate) fn known_trust(identity: &Path, state: Option<&Path>) -> Result<TrustChain, Failure> {
    Ok(match state {
        Some(state) => (*Trusted::open(identity, state)?.chain()).clone(),
        None => Trusted::pinned(identity)?,
    })
}

/// The platform's trust as a configuration file's process knows it, or as it is pinned in a directory.
pub(crate) fn trust_of(path: &Path) -> Result<TrustChain, Failure> {
    if path.is_dir() {
        return known_trust(path, None);
    }
    let configured = Configured::load(path)?;
    known_trust(&configured.identity, Some(&configured.state))
}
