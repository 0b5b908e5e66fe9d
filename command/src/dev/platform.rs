//! The platform that `rootcast dev` makes: identities and configuration files.

use super::check::Labels;
use super::process::Process;
use crate::failure::Failure;
use crate::init;
use rootcast::path::ChannelName;
use rootcast_bundler::{HEAD_KEY_FILE, PublishConfig};
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
pub(super) fn host(number: usize, relay: &str) -> (String, Labels) {
    let (role, region) = if number % 2 == 1 { ("web", "eu") } else { ("db", "us") };
    let name = format!("{role}-{}", number.div_ceil(2));
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let labels =
        [label("role", role), label("region", region), label("datacenter", relay), label("host", &name)];
    (name.clone(), labels.into())
}

impl Platform {
    /// Makes a platform, or goes on with the one that an earlier run left.
    pub(super) fn open(directory: &Path, channel: &ChannelName) -> Result<Self, Failure> {
        fs::create_dir_all(directory).map_err(|error| Failure::io(directory, &error))?;
        let directory = fs::canonicalize(directory).map_err(|error| Failure::io(directory, &error))?;
        let platform = Self { directory, channel: channel.clone() };
        if !platform.home().join(rootcast_replica::TRUST_FILE).exists() {
            init::create(&platform.home(), channel, SystemTime::now())?;
        }
        platform.identity("publisher", "publisher")?;
        Ok(platform)
    }

    fn home(&self) -> PathBuf {
        self.directory.join("platform")
    }

    fn identity(&self, role: &str, name: &str) -> Result<PathBuf, Failure> {
        let home = self.home().join("identities").join(format!("{role}-{name}"));
        if home.join(rootcast_transport::IDENTITY_FILE).exists() {
            return Ok(home);
        }
        init::add(&self.home(), &format!("{role}:{name}"), SystemTime::now())
    }

    /// How to publish to this platform.
    pub(super) fn publisher(&self, origin: SocketAddr) -> Result<PublishConfig, Failure> {
        Ok(PublishConfig {
            identity: self.identity("publisher", "publisher")?,
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
        let identity = self.identity("relay", name)?;
        let mut config = format!(
            "listen = {:?}\nidentity = {:?}\nstate = \"state\"\nchannels = [{:?}]\nparents = {:?}\n",
            listen.to_string(),
            identity.display().to_string(),
            self.channel.as_str(),
            parents,
        );
        if parents.is_empty() {
            let key = self.home().join("keys").join(HEAD_KEY_FILE);
            config.push_str(&format!("head_key = {:?}\n", key.display().to_string()));
        }
        fs::write(process.config(), config).map_err(|error| Failure::io(&process.config(), &error))?;
        Ok(process)
    }

    /// An agent that follows the relay at `relay`.
    pub(super) fn agent(&self, name: &str, relay: &str, labels: &Labels) -> Result<Process, Failure> {
        let process = self.member(name, "agent")?;
        let identity = self.identity("agent", name)?;
        let mut config = format!(
            "identity = {:?}\nstate = \"state\"\nlive = \"live\"\nrelays = [{:?}]\nchannel = {:?}\n\n[labels]\n",
            identity.display().to_string(),
            relay,
            self.channel.as_str(),
        );
        for (label, value) in labels {
            config.push_str(&format!("{label} = {value:?}\n"));
        }
        fs::write(process.config(), config).map_err(|error| Failure::io(&process.config(), &error))?;
        Ok(process)
    }
}
