//! The platform that `rootcast dev` makes: identities and configuration files.

use super::process::Process;
use crate::failure::{Exit, Failure};
use crate::init;
use rootcast::member::{self, Role};
use rootcast::path::ChannelName;
use rootcast_bundler::PublishConfig;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Everything on disk of one `rootcast dev`.
pub(super) struct Platform {
    pub(super) directory: PathBuf,
    pub(super) channel: ChannelName,
}

/// A relay and whom it follows.
pub(super) struct RelayPlan {
    pub(super) name: String,
    /// None: the origin.
    pub(super) parent: Option<String>,
}

/// The relays of a tree: the origin, then two levels.
pub(super) fn relays(count: usize) -> Vec<RelayPlan> {
    let upper = count.div_ceil(3).max(usize::from(count > 0));
    let mut plans = vec![RelayPlan { name: "origin".into(), parent: None }];
    for number in 1..=count {
        let parent = match number.checked_sub(upper + 1) {
            None => "origin".to_owned(),
            Some(lower) => format!("relay-{}", lower % upper + 1),
        };
        plans.push(RelayPlan { name: format!("relay-{number}"), parent: Some(parent) });
    }
    plans
}

/// The relays that agents follow: those without a relay below them.
pub(super) fn leaves(plans: &[RelayPlan]) -> Vec<String> {
    let has_child = |name: &str| plans.iter().any(|plan| plan.parent.as_deref() == Some(name));
    plans.iter().filter(|plan| !has_child(&plan.name)).map(|plan| plan.name.clone()).collect()
}

/// Name and labels of an agent, from 1: roles and regions take turns.
pub(super) fn host(number: usize, relay: &str) -> Result<(String, member::Labels), Failure> {
    let (role, region) = if number % 2 == 1 { ("web", "eu") } else { ("db", "us") };
    let name = format!("{role}-{}", number.div_ceil(2));
    let labels = member::Labels::new([("role", role), ("region", region), ("datacenter", relay)])
        .map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
    Ok((name, labels))
}

impl Platform {
    /// Makes a platform, or goes on with the one that an earlier run left.
    pub(super) fn open(directory: &Path, channel: &ChannelName) -> Result<Self, Failure> {
        fs::create_dir_all(directory).map_err(|error| Failure::io(directory, &error))?;
        let directory = fs::canonicalize(directory).map_err(|error| Failure::io(directory, &error))?;
        let platform = Self { directory, channel: channel.clone() };
        if !platform.home().join(rootcast_replica::FINGERPRINT_FILE).exists() {
            init::create(&platform.home(), channel, SystemTime::now(), None)?;
        }
        Ok(platform)
    }

    fn home(&self) -> PathBuf {
        self.directory.join("platform")
    }

    fn identity(&self, role: Role, name: &str, labels: &member::Labels) -> Result<PathBuf, Failure> {
        let home = self.home().join("identities").join(format!("{role}-{name}"));
        if home.join(rootcast_transport::IDENTITY_FILE).exists() {
            return Ok(home);
        }
        init::add(
            &self.home(),
            &init::Wanted { role, name: name.to_owned(), labels: labels.clone() },
            SystemTime::now(),
        )
    }

    /// How to publish to this platform.
    pub(super) fn publisher(&self, origin: SocketAddr) -> Result<PublishConfig, Failure> {
        Ok(PublishConfig {
            identity: self.home().join("publisher"),
            key: Some(self.home().join("keys").join(rootcast_bundler::PUBLISHER_KEY_FILE)),
            state: self.directory.join("publisher"),
            origin: vec![origin.to_string()],
        })
    }

    fn member(&self, name: &str, role: &'static str) -> Result<Process, Failure> {
        let home = self.directory.join(name);
        fs::create_dir_all(&home).map_err(|error| Failure::io(&home, &error))?;
        Ok(Process::new(name, role, home))
    }

    /// A relay that serves at `listen`.
    pub(super) fn relay(
        &self,
        name: &str,
        listen: SocketAddr,
        parents: &[String],
    ) -> Result<Process, Failure> {
        let process = self.member(name, "relay")?;
        // The origin is there from the beginning, with the keys and the state that its members are in.
        let (identity, state, keys) = if parents.is_empty() {
            let keys = format!("keys = {:?}\n", init::origin_keys(&self.home()).display().to_string());
            (self.home().join("origin/identity"), init::state(&self.home()), keys)
        } else {
            let identity = self.identity(Role::Relay, name, &member::Labels::default())?;
            (identity, "state".into(), String::new())
        };
        let config = format!(
            "listen = {:?}\n{keys}identity = {:?}\nstate = {:?}\nchannels = [{:?}]\nparents = {:?}\n",
            listen.to_string(),
            identity.display().to_string(),
            state.display().to_string(),
            self.channel.as_str(),
            parents,
        );
        fs::write(process.config(), config).map_err(|error| Failure::io(&process.config(), &error))?;
        Ok(process)
    }

    /// An agent that follows the relay at `relay`.
    pub(super) fn agent(&self, name: &str, relay: &str, labels: &member::Labels) -> Result<Process, Failure> {
        let process = self.member(name, "agent")?;
        let identity = self.identity(Role::Agent, name, labels)?;
        // Secrets have a place of their own: the usual one may be a real host's of the same name.
        let config = format!(
            "identity = {:?}\nstate = \"state\"\nlive = \"live\"\nsecrets = \"secrets\"\nrelays = [{:?}]\nchannel = {:?}\n",
            identity.display().to_string(),
            relay,
            self.channel.as_str(),
        );
        fs::write(process.config(), config).map_err(|error| Failure::io(&process.config(), &error))?;
        Ok(process)
    }
}
