//! The platform under measurement: keys, authority, identities, configuration files.

use crate::error::BenchError;
use rootcast::id::PlatformId;
use rootcast::path::ChannelName;
use rootcast_bundler::{Founding, PUBLISHER_KEY_FILE};
use rootcast_relay::authority::Authority;
use rootcast_relay::issuing::Issuing;
use rootcast_replica::{FINGERPRINT_FILE, TRUST_FILE};
use rootcast_transport::{PeerName, Role};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long its certificates and its trust document are good: longer than any measurement.
const VALIDITY: Duration = Duration::from_secs(30 * 86_400);

/// Everything of one platform on disk.
pub(crate) struct Platform {
    directory: PathBuf,
    channel: ChannelName,
    issuing: Issuing,
    trust: Vec<u8>,
    fingerprint: String,
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BenchError> {
    fs::write(path, bytes).map_err(BenchError::io(path))
}

impl Platform {
    /// Makes a platform in `directory`, which is made if it is not there.
    pub(crate) fn create(directory: &Path, channel: ChannelName) -> Result<Self, BenchError> {
        let keys = directory.join("keys");
        fs::create_dir_all(&keys).map_err(BenchError::io(&keys))?;
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|error| BenchError::Program { program: "getrandom".into(), what: error.to_string() })?;
        let (platform, now) = (PlatformId::from_bytes(id), SystemTime::now());
        let authority = Authority::create(&directory.join("authority"), platform, now)?;
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let issuing = Issuing::create(&authority, &keys, now)?;
        let founding = Founding {
            platform,
            authority: authority.hash(),
            grant: &channel,
            issued: seconds(now),
            expires: seconds(now + VALIDITY),
        };
        let (trust, fingerprint) = founding.found(&keys, None)?;
        let fingerprint = format!("{fingerprint}\n");
        Ok(Self { directory: directory.to_owned(), channel, issuing, trust, fingerprint })
    }

    /// The channel that is published to.
    pub(crate) const fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// The directory of a member's identity; it is issued the first time.
    pub(crate) fn identity(&self, role: Role, name: &str) -> Result<PathBuf, BenchError> {
        let home = self.directory.join("identities").join(format!("{role}-{name}"));
        if !home.exists() {
            let peer = PeerName::new(self.issuing.platform(), role, name).map_err(|error| {
                BenchError::Program { program: "identity".into(), what: error.to_string() }
            })?;
            self.issuing.issue(&peer, VALIDITY, SystemTime::now(), &home)?;
            write(&home.join(TRUST_FILE), &self.trust)?;
            write(&home.join(FINGERPRINT_FILE), self.fingerprint.as_bytes())?;
        }
        Ok(home)
    }

    /// A member's directory, with its configuration in it.
    fn home(&self, name: &str, config: &str) -> Result<PathBuf, BenchError> {
        let home = self.directory.join(name);
        fs::create_dir_all(&home).map_err(BenchError::io(&home))?;
        write(&home.join(super::process::CONFIG_FILE), config.as_bytes())?;
        Ok(home)
    }

    /// The home of a relay below `parent`; of the origin without one.
    pub(crate) fn relay(&self, name: &str, parent: Option<SocketAddr>) -> Result<PathBuf, BenchError> {
        let parents: Vec<String> = parent.iter().map(SocketAddr::to_string).collect();
        let mut config = format!(
            "listen = {:?}\nidentity = {:?}\nstate = \"state\"\nchannels = [{:?}]\nparents = {parents:?}\n",
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).to_string(),
            self.identity(Role::Relay, name)?.display().to_string(),
            self.channel.as_str(),
        );
        if parent.is_none() {
            let keys = self.directory.join("keys");
            config.push_str(&format!("keys = {:?}\n", keys.display().to_string()));
        }
        self.home(name, &config)
    }

    /// The home of an agent that follows the relay at `relay`, in a directory of
    /// its own: the same host may join empty again and again.
    pub(crate) fn agent(
        &self,
        name: &str,
        directory: &str,
        relay: SocketAddr,
    ) -> Result<PathBuf, BenchError> {
        let config = format!(
            "identity = {:?}\nstate = \"state\"\nlive = \"live\"\nrelays = [{:?}]\nchannel = {:?}\n",
            self.identity(Role::Agent, name)?.display().to_string(),
            relay.to_string(),
            self.channel.as_str(),
        );
        self.home(directory, &config)
    }

    /// The home of the publisher.
    pub(crate) fn publisher(&self, origin: SocketAddr) -> Result<PathBuf, BenchError> {
        let config = format!(
            "identity = {:?}\nkey = {:?}\nstate = \"state\"\norigin = [{:?}]\n",
            self.identity(Role::Publisher, "publisher")?.display().to_string(),
            self.directory.join("keys").join(PUBLISHER_KEY_FILE).display().to_string(),
            origin.to_string(),
        );
        self.home("publisher", &config)
    }
}
