//! `rootcast init`: a platform, its origin and its publisher.

use crate::failure::{Exit, Failure};
use crate::inspect::utc;
use crate::output::Output;
use crate::passphrase::Asking;
use rootcast::id::{PlatformId, TrustHash};
use rootcast::join::validity;
use rootcast::member::{Labels, Role, RoleError};
use rootcast::path::{ChannelName, MemberName};
use rootcast_agent::{AgentError, RECIPIENT_FILE, make_decryption_key};
use rootcast_bundler::config::DEFAULT_CHANNEL;
use rootcast_bundler::{Founding, PUBLISHER_KEY_FILE, ROOT_KEY_FILE};
use rootcast_keys::{KeyError, Passphrase};
use rootcast_relay::authority::Authority;
use rootcast_relay::issuing::Issuing;
use rootcast_relay::membership::{ONLINE_KEY_FILE, Records, enrol};
use rootcast_replica::{FINGERPRINT_FILE, TRUST_FILE};
use rootcast_transport::{AuthorityCertificate, PeerName};
use serde_json::json;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// The directory of all that the origin's machine needs.
const ORIGIN: &str = "origin";
/// The origin's keys, in its directory.
const ORIGIN_KEYS: &str = "keys";
/// The keys that belong offline, and the publisher's.
const KEYS: &str = "keys";
const AUTHORITY: &str = "authority";
const STATE: &str = "state";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The platform's directory; it is made if it is not there
    directory: PathBuf,
    /// Where relays and hosts will find the origin; several for several ways to it
    #[arg(long = "address", value_name = "HOST:PORT", required_unless_present = "renew_issuing")]
    addresses: Vec<String>,
    /// The address and UDP port that the origin serves at
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7400")]
    listen: SocketAddr,
    /// The channels that the publisher may publish to: this one and those under it
    #[arg(long, value_name = "CHANNEL", default_value = DEFAULT_CHANNEL)]
    grant: String,
    /// Also make an identity, to be copied to its machine where joining is not wanted: ROLE:NAME, and
    /// its labels, as agent:web-1,region=eu,role=web
    #[arg(long = "identity", value_name = "ROLE:NAME")]
    identities: Vec<String>,
    /// Do not encrypt root.key and publisher.key: for tests, and where nobody can type a passphrase
    #[arg(long, conflicts_with = "passphrase_file")]
    unencrypted: bool,
    #[command(flatten)]
    asking: Asking,
    /// Make nothing but another issuing certificate, in this directory: the origin's ends after a year
    #[arg(long, value_name = "OUT", conflicts_with_all = ["addresses", "identities"])]
    renew_issuing: Option<PathBuf>,
}

/// A passphrase that was asked for once.
struct Given(Zeroizing<String>);

impl Passphrase for Given {
    fn passphrase(&self, _: &Path, _: bool) -> Result<Zeroizing<String>, KeyError> {
        Ok(self.0.clone())
    }
}

/// How long the first trust document is current.
const TRUST_VALIDITY: Duration = Duration::from_secs(5 * 365 * 86_400);

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let directory = &arguments.directory;
    if let Some(out) = &arguments.renew_issuing {
        return renew_issuing(directory, out, output);
    }
    let grant = ChannelName::new(&arguments.grant)
        .map_err(|error| Failure::new(Exit::Usage, format!("--grant {error}")))?;
    for address in &arguments.addresses {
        check_address(address)?;
    }
    // All of them before any is made, so that a slip leaves nothing behind.
    let wanted: Vec<Wanted> =
        arguments.identities.iter().map(|text| Wanted::parse(text)).collect::<Result<_, _>>()?;
    if directory.join(FINGERPRINT_FILE).exists() {
        let message = format!("{} already holds a platform; nothing was changed", directory.display());
        let next = "rootcast invite ORIGIN/relay.toml --role agent   on the origin's machine, invites a host";
        return Err(Failure::new(Exit::Failure, message).next(next));
    }
    let now = SystemTime::now();
    // Asked for before anything is made, and once for both keys.
    let passphrase = match arguments.unencrypted {
        true => None,
        false => Some(Given(arguments.asking.passphrase(&directory.join(KEYS), true)?)),
    };
    let passphrase = passphrase.as_ref().map(|given| given as &dyn Passphrase);
    let fingerprint = create(directory, &grant, now, passphrase)?;
    configure(directory, arguments, &grant)?;
    let mut added = Vec::new();
    for identity in &wanted {
        added.push(add(directory, identity, now)?);
    }
    // Those of agents: whom their secrets are encrypted to.
    let recipient = |home: &PathBuf| fs::read_to_string(home.join(RECIPIENT_FILE)).ok();
    let recipients: Vec<_> =
        added.iter().map(|home| recipient(home).map(|text| text.trim().to_owned())).collect();
    output.value(&json!({
        "platform": directory, "fingerprint": fingerprint.to_string(), "created": true, "identities": added,
        "recipients": recipients,
    }));
    output.line(format!("fingerprint {fingerprint}"));
    output.line(format!(
        "{}/keys, {}/authority   secrets; take root.key and ca.key offline",
        directory.display(),
        directory.display()
    ));
    output.line(format!(
        "{}/origin   copy it to the origin's machine, and run there: rootcast relay origin/relay.toml",
        directory.display()
    ));
    output.line(format!(
        "{}/publish.toml   publish with it: rootcast publish --config {}/publish.toml",
        directory.display(),
        directory.display()
    ));
    for (path, recipient) in added.iter().zip(&recipients) {
        output.line(format!("identity {}   copy it to its machine", path.display()));
        if let Some(recipient) = recipient {
            output.line(format!("recipient {recipient}   its secrets are encrypted to this"));
        }
    }
    output.line("next: on the origin's machine: rootcast invite origin/relay.toml --role agent");
    Ok(())
}

/// Signs another issuing certificate with the authority's key, which is offline otherwise.
fn renew_issuing(directory: &Path, out: &Path, output: &Output) -> Result<(), Failure> {
    let authority = Authority::load(&directory.join(AUTHORITY))?;
    let issuing = Issuing::create(&authority, out, SystemTime::now())?;
    output.value(&json!({ "issuing": out, "expires": seconds(issuing.expires()) }));
    output.line(format!(
        "{}   issuing.key and issuing.pem, good until {}",
        out.display(),
        utc(seconds(issuing.expires()))
    ));
    output.line("next: put both in place of those in the origin's keys/, and restart the origin");
    Ok(())
}

/// An address that join strings and configurations will carry.
fn check_address(address: &str) -> Result<(), Failure> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(()),
        _ => Err(Failure::new(Exit::Usage, format!("--address {address}: want HOST:PORT"))),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Makes a platform: keys, authority, origin and publisher. The fingerprint comes last: where it
/// is, all else is.
pub(crate) fn create(
    directory: &Path,
    grant: &ChannelName,
    now: SystemTime,
    passphrase: Option<&dyn Passphrase>,
) -> Result<TrustHash, Failure> {
    let (keys, origin) = (directory.join(KEYS), directory.join(ORIGIN));
    if keys.join(ROOT_KEY_FILE).exists() {
        let message =
            format!("{} has keys but no fingerprint: an earlier init was cut off", directory.display());
        return Err(
            Failure::new(Exit::Failure, message).next("remove what it left, or choose another directory")
        );
    }
    for path in [&keys, &directory.join(AUTHORITY), &origin, &origin.join(ORIGIN_KEYS)] {
        fs::create_dir_all(path).map_err(|error| Failure::io(path, &error))?;
        // Their keys are 0600 each; nobody else needs to know their names either.
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|error| Failure::io(path, &error))?;
    }
    let mut platform = [0; 16];
    getrandom::fill(&mut platform).map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
    let platform = PlatformId::from_bytes(platform);
    let authority = Authority::create(&directory.join(AUTHORITY), platform, now)?;
    Issuing::create(&authority, &origin.join(ORIGIN_KEYS), now)?;
    let founding = Founding {
        platform,
        authority: authority.hash(),
        grant,
        issued: seconds(now),
        expires: seconds(now + TRUST_VALIDITY),
    };
    let (document, fingerprint) = founding.found(&keys, passphrase)?;
    // The online key is the origin's, and nobody else's.
    let (made, online) = (keys.join(ONLINE_KEY_FILE), origin.join(ORIGIN_KEYS).join(ONLINE_KEY_FILE));
    fs::rename(&made, &online).map_err(|error| Failure::io(&online, &error))?;
    write(&directory.join(TRUST_FILE), &document)?;
    let text = format!("{fingerprint}\n");
    for (role, name, home) in [
        (Role::Relay, "origin", origin.join("identity")),
        (Role::Publisher, "publisher", directory.join("publisher")),
    ] {
        let wanted = Wanted { role, name: name.into(), labels: Labels::default() };
        issue(directory, &wanted, now, &home)?;
        write(&home.join(FINGERPRINT_FILE), text.as_bytes())?;
    }
    write(&directory.join(FINGERPRINT_FILE), text.as_bytes())?;
    Ok(fingerprint)
}

/// Writes the configurations of the origin and of the publisher.
fn configure(directory: &Path, arguments: &Arguments, grant: &ChannelName) -> Result<(), Failure> {
    let relay = format!(
        "# The origin. Relative paths count from this file's directory.\n\
         listen = {:?}\nidentity = \"identity\"\nkeys = \"{ORIGIN_KEYS}\"\nstate = \"{STATE}\"\nchannels = [{:?}]\n\
         # Where those who are invited find the platform.\naddresses = {:?}\n",
        arguments.listen.to_string(),
        grant.as_str(),
        arguments.addresses,
    );
    let publish = format!(
        "# How to publish. Relative paths count from this file's directory.\n\
         identity = \"publisher\"\nkey = \"{KEYS}/{PUBLISHER_KEY_FILE}\"\nstate = \"publisher-state\"\norigin = {:?}\n",
        arguments.addresses,
    );
    write(&directory.join(ORIGIN).join("relay.toml"), relay.as_bytes())?;
    write(&directory.join("publish.toml"), publish.as_bytes())
}

/// A member that is to be added.
pub(crate) struct Wanted {
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) labels: Labels,
}

impl Wanted {
    /// Reads `ROLE:NAME` or `ROLE:NAME,label=value,…`.
    fn parse(text: &str) -> Result<Self, Failure> {
        let usage = |reason: String| Failure::new(Exit::Usage, format!("--identity {text}: {reason}"));
        let (role, rest) =
            text.split_once(':').ok_or_else(|| usage("want ROLE:NAME, as agent:web-1".into()))?;
        let role = role.parse().map_err(|error: RoleError| usage(error.to_string()))?;
        let mut parts = rest.split(',');
        let name = parts.next().unwrap_or_default();
        let name = MemberName::new(name).map_err(|error| usage(error.to_string()))?;
        let labels = Labels::from_pairs(parts).map_err(|error| usage(error.to_string()))?;
        Ok(Self { role, name: name.to_string(), labels })
    }
}

/// Adds a member by hand: a directory with all that its machine needs. The origin knows it, so
/// that its certificate, as short as any, is renewed.
pub(crate) fn add(directory: &Path, wanted: &Wanted, now: SystemTime) -> Result<PathBuf, Failure> {
    let home = directory.join("identities").join(format!("{}-{}", wanted.role, wanted.name));
    issue(directory, wanted, now, &home)?;
    if wanted.role == Role::Agent {
        make_decryption_key(&home).map_err(AgentError::from)?;
    }
    let from = directory.join(FINGERPRINT_FILE);
    let bytes = fs::read(&from).map_err(|error| Failure::io(&from, &error))?;
    write(&home.join(FINGERPRINT_FILE), &bytes)?;
    Ok(home)
}

/// Issues an identity into `home`, with the trust document beside it.
fn issue(directory: &Path, wanted: &Wanted, now: SystemTime, home: &Path) -> Result<(), Failure> {
    let Wanted { role, name, labels } = wanted;
    let authority =
        AuthorityCertificate::load(&directory.join(AUTHORITY).join(rootcast_transport::AUTHORITY_FILE))?;
    let issuing = Issuing::load(&origin_keys(directory), &authority, SystemTime::now())?;
    let peer = PeerName::new(issuing.platform(), *role, name)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?
        .with_labels(labels.clone());
    let records = Records::of(&state(directory));
    if records.member(*role, peer.member())?.is_some() {
        return Err(Failure::new(Exit::Failure, format!("{peer} is a member already; nothing was changed")));
    }
    let identity = issuing.issue(&peer, validity(*role), now, home)?;
    enrol(&records, &identity)?;
    let from = directory.join(TRUST_FILE);
    let bytes = fs::read(&from).map_err(|error| Failure::io(&from, &error))?;
    write(&home.join(TRUST_FILE), &bytes)
}

/// The origin's state.
pub(crate) fn state(directory: &Path) -> PathBuf {
    directory.join(ORIGIN).join(STATE)
}

/// The origin's keys.
pub(crate) fn origin_keys(directory: &Path) -> PathBuf {
    directory.join(ORIGIN).join(ORIGIN_KEYS)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|error| Failure::io(path, &error))
}
