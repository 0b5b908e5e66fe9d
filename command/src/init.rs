//! `rootcast init`: a platform, and identities for its members.

use crate::failure::{Exit, Failure};
use crate::output::Output;
use rootcast::id::{PlatformId, TrustHash};
use rootcast::path::ChannelName;
use rootcast_agent::{AgentError, RECIPIENT_FILE, make_decryption_key};
use rootcast_bundler::config::DEFAULT_CHANNEL;
use rootcast_bundler::{Founding, ROOT_KEY_FILE};
use rootcast_relay::authority::Authority;
use rootcast_replica::{FINGERPRINT_FILE, TRUST_FILE};
use rootcast_transport::{PeerName, Role};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The platform's directory; it is made if it is not there
    directory: PathBuf,
    /// Add an identity to the platform: ROLE:NAME, the role being relay, agent or publisher
    #[arg(long = "identity", value_name = "ROLE:NAME")]
    identities: Vec<String>,
    /// The channels that the publisher may publish to: this one and those under it
    /// [default: main]
    #[arg(long, value_name = "CHANNEL")]
    grant: Option<String>,
}

/// How long a member's certificate is good. Renewal over the network comes with joining.
const MEMBER_VALIDITY: Duration = Duration::from_secs(365 * 86_400);
/// How long the first trust document is current.
const TRUST_VALIDITY: Duration = Duration::from_secs(5 * 365 * 86_400);

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let directory = &arguments.directory;
    let grant = arguments.grant.as_deref().unwrap_or(DEFAULT_CHANNEL);
    let grant =
        ChannelName::new(grant).map_err(|error| Failure::new(Exit::Usage, format!("--grant {error}")))?;
    let is_new = !directory.join(TRUST_FILE).exists();
    // All of them before any is made, so that a slip leaves nothing behind.
    for identity in &arguments.identities {
        parse(identity)?;
    }
    if !is_new && arguments.grant.is_some() {
        let message =
            format!("{} already holds a platform; its grants cannot be changed yet", directory.display());
        return Err(Failure::new(Exit::Usage, message).next("leave --grant out, or make another platform"));
    }
    if !is_new && arguments.identities.is_empty() {
        let message = format!("{} already holds a platform; nothing was changed", directory.display());
        let next =
            format!("rootcast init {} --identity agent:NAME   adds a member to it", directory.display());
        return Err(Failure::new(Exit::Failure, message).next(next));
    }
    let now = SystemTime::now();
    if is_new {
        create(directory, &grant, now)?;
        add(directory, "publisher:publisher", now)?;
    }
    let fingerprint = fs::read_to_string(directory.join(FINGERPRINT_FILE))
        .map_err(|error| Failure::io(&directory.join(FINGERPRINT_FILE), &error))?;
    let mut added = Vec::new();
    for identity in &arguments.identities {
        added.push(add(directory, identity, now)?);
    }
    // Those of agents: whom their secrets are encrypted to.
    let recipient = |home: &PathBuf| fs::read_to_string(home.join(RECIPIENT_FILE)).ok();
    let recipients: Vec<_> =
        added.iter().map(|home| recipient(home).map(|text| text.trim().to_owned())).collect();
    output.value(&json!({
        "platform": directory, "fingerprint": fingerprint.trim(), "created": is_new, "identities": added,
        "recipients": recipients,
    }));
    if is_new {
        output.line(format!(
            "platform    {}   keep it off the hosts: it holds every secret",
            directory.display()
        ));
        output.line(format!("fingerprint {}", fingerprint.trim()));
        output.line("keys/       root.key, head.key and publisher.key: keep root.key offline");
        output.line("authority/  the certificate authority: who has ca.key can be anyone");
    }
    for (path, recipient) in added.iter().zip(&recipients) {
        output.line(format!("identity    {}   copy this directory to its machine", path.display()));
        if let Some(recipient) = recipient {
            output.line(format!("recipient   {recipient}   its secrets are encrypted to this"));
        }
    }
    Ok(())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Makes a platform. The trust document comes last: where it is, all else is.
pub(crate) fn create(directory: &Path, grant: &ChannelName, now: SystemTime) -> Result<TrustHash, Failure> {
    let keys = directory.join("keys");
    if keys.join(ROOT_KEY_FILE).exists() {
        let message =
            format!("{} has keys but no trust document: an earlier init was cut off", directory.display());
        return Err(
            Failure::new(Exit::Failure, message).next("remove what it left, or choose another directory")
        );
    }
    fs::create_dir_all(&keys).map_err(|error| Failure::io(&keys, &error))?;
    // Its keys are 0600 each; nobody else needs to know their names either.
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o700))
        .map_err(|error| Failure::io(&keys, &error))?;
    let mut platform = [0; 16];
    getrandom::fill(&mut platform).map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
    let platform = PlatformId::from_bytes(platform);
    let authority = Authority::create(&directory.join("authority"), platform, now)?;
    let founding = Founding {
        platform,
        authority: authority.hash(),
        grant,
        issued: seconds(now),
        expires: seconds(now + TRUST_VALIDITY),
    };
    let (document, fingerprint) = founding.found(&keys)?;
    write(&directory.join(FINGERPRINT_FILE), format!("{fingerprint}\n").as_bytes())?;
    write(&directory.join(TRUST_FILE), &document)?;
    Ok(fingerprint)
}

/// Role and name of `ROLE:NAME`.
fn parse(identity: &str) -> Result<(Role, &str), Failure> {
    let usage = |reason: String| Failure::new(Exit::Usage, format!("--identity {identity}: {reason}"));
    let (role, name) =
        identity.split_once(':').ok_or_else(|| usage("want ROLE:NAME, as agent:web-1".into()))?;
    let role: Role = role.parse().map_err(|_| usage("the role is relay, agent or publisher".into()))?;
    // The platform has no say in what a name may be.
    PeerName::new(PlatformId::from_bytes([0; 16]), role, name).map_err(|error| usage(error.to_string()))?;
    Ok((role, name))
}

/// Adds a member: a directory with all that its machine needs.
pub(crate) fn add(directory: &Path, identity: &str, now: SystemTime) -> Result<PathBuf, Failure> {
    let (role, name) = parse(identity)?;
    let authority = Authority::load(&directory.join("authority"))?;
    let home = directory.join("identities").join(format!("{role}-{name}"));
    authority.issue(role, name, MEMBER_VALIDITY, now, &home)?;
    if role == Role::Agent {
        make_decryption_key(&home).map_err(AgentError::from)?;
    }
    for file in [TRUST_FILE, FINGERPRINT_FILE] {
        let from = directory.join(file);
        let bytes = fs::read(&from).map_err(|error| Failure::io(&from, &error))?;
        write(&home.join(file), &bytes)?;
    }
    Ok(home)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|error| Failure::io(path, &error))
}
