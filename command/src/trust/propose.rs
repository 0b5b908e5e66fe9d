//! `rootcast trust propose`

use super::{lapsing, tell};
use crate::failure::{Exit, Failure};
use crate::inspect::place::{Configured, trust_of};
use crate::output::Output;
use crate::sign::create;
use rootcast::cose::PublicKey;
use rootcast::draft::TrustProposal;
use rootcast::path::ChannelName;
use rootcast::succession::{TrustChange, propose};
use rootcast::trust::GrantLimits;
use serde_json::json;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file to write
    out: PathBuf,
    /// Whose trust it follows: a configuration file, or the directory of an identity or a platform
    #[arg(long, value_name = "PATH", default_value = "publish.toml")]
    from: PathBuf,
    /// How long it is good from now on [default: as long as the version before]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    expires: Option<u64>,
    /// Let a further key publish to the channels of a grant (`rootcast key show` prints it)
    #[arg(long, value_name = "PREFIX=KEY")]
    add_publisher: Vec<Named<PublicKey>>,
    /// Let a key publish there no more; it is named by its id
    #[arg(long, value_name = "PREFIX=KEYID")]
    remove_publisher: Vec<Named<rootcast::id::KeyId>>,
    /// A new grant: these keys may publish to this channel and those under it
    #[arg(long, value_name = "PREFIX=KEY[,KEY...]")]
    grant: Vec<Named<Many<PublicKey>>>,
    /// How many publishers must sign each release of a grant's channels
    #[arg(long, value_name = "PREFIX=N")]
    threshold: Vec<Named<u64>>,
    /// Take a grant away
    #[arg(long, value_name = "PREFIX")]
    revoke: Vec<ChannelName>,
    /// Begin the channels of a grant anew: after a stolen key has driven their numbers up
    #[arg(long, value_name = "PREFIX")]
    new_epoch: Vec<ChannelName>,
    /// What a bundle of a grant's channels may hold: files, bytes, bytes of a file
    #[arg(long, value_name = "PREFIX=FILES,BYTES,FILE_SIZE")]
    limits: Vec<Named<Many<u64>>>,
    /// Whether bundles of a grant's channels may hold symbolic links
    #[arg(long, value_name = "PREFIX=true|false")]
    symlinks: Vec<Named<bool>>,
    /// A further root key
    #[arg(long, value_name = "KEY")]
    add_root: Vec<PublicKey>,
    /// A root key less; it is named by its id
    #[arg(long, value_name = "KEYID")]
    remove_root: Vec<rootcast::id::KeyId>,
    /// How many root keys must sign a version of trust
    #[arg(long, value_name = "N")]
    root_threshold: Option<u64>,
    /// A further key that signs heads
    #[arg(long, value_name = "KEY")]
    add_head: Vec<PublicKey>,
    /// A head key less; it is named by its id
    #[arg(long, value_name = "KEYID")]
    remove_head: Vec<rootcast::id::KeyId>,
}

/// `PREFIX=VALUE`
#[derive(Debug, Clone)]
struct Named<T>(ChannelName, T);

impl<T: FromStr<Err: Display>> FromStr for Named<T> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (prefix, value) = text.split_once('=').ok_or("want PREFIX=VALUE")?;
        let prefix = ChannelName::new(prefix).map_err(|error| error.to_string())?;
        Ok(Self(prefix, value.parse().map_err(|error: T::Err| error.to_string())?))
    }
}

/// `VALUE,VALUE`
#[derive(Debug, Clone)]
struct Many<T>(Vec<T>);

impl<T: FromStr<Err: Display>> FromStr for Many<T> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let values = text.split(',').map(|value| value.parse().map_err(|error: T::Err| error.to_string()));
        Ok(Self(values.collect::<Result<_, _>>()?))
    }
}

impl Arguments {
    /// What is asked for. The order of options says nothing: what goes makes room for what comes.
    fn changes(&self) -> Result<Vec<TrustChange>, Failure> {
        let mut changes: Vec<_> = self.revoke.iter().cloned().map(TrustChange::Revoke).collect();
        let named = |Named(prefix, _): &Named<Many<PublicKey>>| prefix.clone();
        changes.extend(self.grant.iter().map(|grant| TrustChange::Grant(named(grant), grant.1.0.clone())));
        let add = self.add_publisher.iter().cloned();
        changes.extend(add.map(|Named(prefix, key)| TrustChange::AddPublisher(prefix, key)));
        let remove = self.remove_publisher.iter().cloned();
        changes.extend(remove.map(|Named(prefix, key)| TrustChange::RemovePublisher(prefix, key)));
        let thresholds = self.threshold.iter().cloned();
        changes.extend(thresholds.map(|Named(prefix, number)| TrustChange::Threshold(prefix, number)));
        for Named(prefix, Many(numbers)) in &self.limits {
            let [files, bytes, file_size] = numbers[..] else {
                let message =
                    format!("--limits {prefix}=…: want three numbers: files, bytes, bytes of a file");
                return Err(Failure::new(Exit::Usage, message));
            };
            changes.push(TrustChange::Limits(prefix.clone(), GrantLimits { files, bytes, file_size }));
        }
        let symlinks = self.symlinks.iter().cloned();
        changes.extend(symlinks.map(|Named(prefix, allowed)| TrustChange::Symlinks(prefix, allowed)));
        changes.extend(self.new_epoch.iter().cloned().map(TrustChange::NewEpoch));
        changes.extend(self.add_root.iter().cloned().map(TrustChange::AddRoot));
        changes.extend(self.remove_root.iter().copied().map(TrustChange::RemoveRoot));
        changes.extend(self.root_threshold.map(TrustChange::RootThreshold));
        changes.extend(self.add_head.iter().cloned().map(TrustChange::AddHead));
        changes.extend(self.remove_head.iter().copied().map(TrustChange::RemoveHead));
        Ok(changes)
    }
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let changes = arguments.changes()?;
    if changes.is_empty() && arguments.expires.is_none() {
        let next =
            "say what should change (`rootcast trust propose --help`), or how long it is good (--expires)";
        return Err(Failure::new(Exit::Usage, "nothing is to change").next(next));
    }
    let chain = trust_of(&arguments.from)?;
    let issued = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let kept = chain.newest().trust().expires;
    let expires = arguments.expires.map_or(kept, |days| issued.saturating_add(days.saturating_mul(DAY)));
    if expires <= issued {
        let message = "the version before has expired, and the new one would have with it";
        return Err(Failure::new(Exit::Trust, message).next("say how long it is good, with --expires DAYS"));
    }
    let trust = propose(&chain, &changes, issued, expires)?;
    let proposal = TrustProposal::new(&chain, &trust)?;
    let judged = proposal.judge(&chain)?;
    create(&arguments.out, &proposal.encode())?;
    tell(&judged, output);
    let state = if arguments.from.is_dir() { None } else { Some(Configured::load(&arguments.from)?.state) };
    let warnings = state.map(|state| lapsing(&state, &trust)).unwrap_or_default();
    output.value(&json!({ "event": "proposed", "file": arguments.out, "warnings": warnings }));
    warnings.iter().for_each(|warning| output.line(format!("warning: {warning}")));
    output.line(format!("next: rootcast trust sign {} --key ROOTKEY", arguments.out.display()));
    Ok(())
}
