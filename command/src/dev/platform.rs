//! The platform that `rootcast dev` makes: identities and configuration files.

use super::process::Process;
use crate::failure::Failure;
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
        labels: &member::Labels,
    ) -> Result<Process, Failure> {
        let process = self.member(name, "relay")?;
        // The origin is there from the beginning, with the keys and the state that its members are in.
        let (identity, state, keys) = if parents.is_empty() {
            let keys = format!("keys = {:?}\n", init::origin_keys(&self.home()).display().to_string());
            (self.home().join("origin/identity"), init::state(&self.home()), keys)
        } else {
            let identity = self.identity(Role::Relay, name, labels)?;
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

    /// An agent that knows these relays, the first to be followed first.
    pub(super) fn agent(
        &self,
        name: &str,
        relays: &[String],
        labels: &member::Labels,
    ) -> Result<Process, Failure> {
        let process = self.member(name, "agent")?;
        let identity = self.identity(Role::Agent, name, labels)?;
        // Secrets have a place of their own: the usual one may be a real host's of the same name.
        let config = format!(
            "identity = {:?}\nstate = \"state\"\nlive = \"live\"\nsecrets = \"secrets\"\nrelays = {:?}\nchannel = {:?}\n",
            identity.display().to_string(),
            relays,
            self.channel.as_str(),
        );
        fs::write(process.config(), config).map_err(|error| Failure::io(&process.config(), &error))?;
        Ok(process)
    }
}
