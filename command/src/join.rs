//! `rootcast join`: this machine becomes a member of a platform.

use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::publish;
use rootcast::join::JoinString;
use rootcast::limits::MAX_JOIN_STRING;
use rootcast::member::Role;
use rootcast::path::MemberName;
use rootcast_agent::{
    AgentError, DECRYPTION_KEY_FILE, RECIPIENT_FILE, load_decryption_key, make_decryption_key,
};
use rootcast_bundler::{PUBLISHER_KEY_FILE, PublishConfig};
use rootcast_replica::durable::{PUBLIC, write_new};
use rootcast_replica::joining::{Joined, Joining, join, refuse_member};
use serde_json::json;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where a machine's configuration is by default; state and files then have their usual places, too.
const DIRECTORY: &str = "/etc/rootcast";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A file that holds the join string; otherwise it is read from standard input
    #[arg(long)]
    file: Option<PathBuf>,
    /// Where to write the identity and the configuration
    #[arg(long, default_value = DIRECTORY)]
    directory: PathBuf,
    /// This machine's name, where the join string leaves it open [default: the host name]
    #[arg(long)]
    name: Option<String>,
    /// The address and UDP port that a relay serves at
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7400")]
    listen: SocketAddr,
    /// Renew the certificate of a publisher now, given its publish.toml; agents and relays do so by themselves
    #[arg(long, value_name = "PUBLISH_TOML", conflicts_with_all = ["file", "name"])]
    renew: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let runtime = publish::runtime()?;
    if let Some(config) = &arguments.renew {
        return runtime.block_on(renew_publisher(config, output));
    }
    let text = read_join_string(arguments.file.as_deref())?;
    let string = JoinString::parse(&text).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let name = match (&arguments.name, &string.name) {
        (Some(name), _) => Some(named(name, "--name")?),
        (None, Some(_)) => None,
        (None, None) => Some(host_name()?),
    };
    let directory = &arguments.directory;
    let (identity, config) = (directory.join("identity"), directory.join(config_file(string.role)));
    // All that can be wrong here is found out before the token is used up.
    refuse_member(&identity)?;
    if config.exists() {
        let message = format!("{} is already there", config.display());
        return Err(Failure::new(Exit::Failure, message).next("move it away, or choose another --directory"));
    }
    std::fs::create_dir_all(&identity).map_err(|error| Failure::io(&identity, &error))?;
    let recipient = if string.role == Role::Agent { recipient(&identity)? } else { String::new() };
    let joining = Joining { join: &string, name, recipient };
    let outcome = runtime.block_on(join(&joining, SystemTime::now()));
    if outcome.is_err() {
        // The key was for this try; a directory that is not empty then is not ours.
        for file in [DECRYPTION_KEY_FILE, RECIPIENT_FILE] {
            let _ = std::fs::remove_file(identity.join(file));
        }
        let _ = std::fs::remove_dir(&identity).and_then(|()| std::fs::remove_dir(directory));
    }
    let joined = outcome?;
    let text = configuration(&joined, &string, arguments);
    write_new(&config, text.as_bytes(), PUBLIC).map_err(|error| Failure::io(&config, &error))?;
    joined.write(&identity)?;
    let name = joined.identity.name();
    output.value(&json!({
        "role": name.role().as_str(), "name": name.name(), "labels": name.labels().to_string(),
        "config": config, "fingerprint": joined.fingerprint.to_string(),
    }));
    let labels = if name.labels().is_empty() { String::new() } else { format!(" ({})", name.labels()) };
    output.line(format!("joined as {name}{labels}"));
    output.line(match name.role() {
        Role::Publisher => format!(
            "next: put the publisher's key at {}, then rootcast publish --config {}",
            directory.join(PUBLISHER_KEY_FILE).display(),
            config.display()
        ),
        role => format!("next: rootcast {role} {}", config.display()),
    });
    Ok(())
}

/// Whom this host's secrets are encrypted to: its key is made here, or was by a join that was killed.
fn recipient(identity: &Path) -> Result<String, Failure> {
    let recipient = match load_decryption_key(identity).map_err(AgentError::from)? {
        Some(key) => key.recipient(),
        None => make_decryption_key(identity).map_err(AgentError::from)?,
    };
    Ok(recipient.to_string())
}

fn read_join_string(file: Option<&Path>) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let limit = MAX_JOIN_STRING as u64 + 64;
    let (read, path) = match file {
        Some(path) => {
            (File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)), path.to_owned())
        }
        None => (io::stdin().take(limit).read_to_end(&mut bytes), PathBuf::from("standard input")),
    };
    read.map_err(|error| Failure::io(&path, &error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn named(text: &str, from: &str) -> Result<MemberName, Failure> {
    MemberName::new(text).map_err(|error| {
        Failure::new(Exit::Usage, format!("{from}: {error}")).next("give a name with --name, as web-1")
    })
}

/// The first part of the machine's own name, in lower case.
fn host_name() -> Result<MemberName, Failure> {
    let path = Path::new("/proc/sys/kernel/hostname");
    let text = std::fs::read_to_string(path).map_err(|error| Failure::io(path, &error))?;
    let first = text.trim().split('.').next().unwrap_or_default().to_lowercase();
    named(&first, "the host name")
}

const fn config_file(role: Role) -> &'static str {
    match role {
        Role::Agent => "agent.toml",
        Role::Relay => "relay.toml",
        Role::Publisher => "publish.toml",
    }
}

/// What the daemon of this role needs to be told.
fn configuration(joined: &Joined, join: &JoinString, arguments: &Arguments) -> String {
    let is_usual = arguments.directory == Path::new(DIRECTORY);
    let (state, live) = if is_usual { ("/var/lib/rootcast", "/srv/rootcast") } else { ("state", "live") };
    let channels: Vec<&str> = joined.trust.trust().grants.iter().map(|grant| grant.prefix.as_str()).collect();
    let head = format!(
        "# Written by rootcast join. Relative paths count from this file's directory.\nidentity = \"identity\"\nstate = {state:?}\n"
    );
    match joined.role() {
        Role::Agent => {
            let channel = channels.first().copied().unwrap_or_default();
            let more = if channels.len() > 1 { format!("# or one of {channels:?}\n") } else { String::new() };
            format!("{head}live = {live:?}\nrelays = {:?}\n{more}channel = {channel:?}\n", join.addresses)
        }
        Role::Relay => {
            let listen = arguments.listen.to_string();
            format!("{head}listen = {listen:?}\nparents = {:?}\nchannels = {channels:?}\n", join.addresses)
        }
        Role::Publisher => {
            format!("{head}key = {PUBLISHER_KEY_FILE:?}\norigin = {:?}\n", join.addresses)
        }
    }
}

async fn renew_publisher(config: &Path, output: &Output) -> Result<(), Failure> {
    let renewed = publish::renew_publisher(&PublishConfig::load(config)?).await?;
    let left = renewed.expires().duration_since(SystemTime::now()).unwrap_or_default();
    output.value(&json!({ "name": renewed.name().name(), "left": left.as_secs() }));
    output.line(format!("{} is certified for {} days", renewed.name(), left.as_secs() / 86_400));
    Ok(())
}
