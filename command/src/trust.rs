//! `rootcast trust`

mod propose;

use crate::failure::{Exit, Failure};
use crate::inspect::document::{trust_json, trust_lines};
use crate::inspect::place::{channels, read, trust_of};
use crate::inspect::utc;
use crate::output::Output;
use crate::passphrase::Asking;
use crate::publish::runtime;
use crate::sign::{confirm, replace};
use clap::Subcommand;
use rootcast::codec;
use rootcast::cose::{self, DocumentKind};
use rootcast::draft::{DraftError, Judged, Signed, TrustProposal};
use rootcast::limits::{MAX_PROPOSAL, MAX_RECORD};
use rootcast::path::ChannelName;
use rootcast::release::Release;
use rootcast::succession::differences;
use rootcast::trust::{Trust, TrustChain};
use rootcast::verify::ReleaseRecord;
use rootcast_bundler::{PublishConfig, Publisher};
use rootcast_keys::SecretKey;
use rootcast_store::{DiskStore, Store};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show the version in force, and those before it
    Show {
        /// Whose: a configuration file, or the directory of an identity or a platform
        #[arg(long, value_name = "PATH", default_value = "publish.toml")]
        identity: PathBuf,
    },
    /// Write a proposal of the next version, for the holders of root keys to sign
    Propose(Box<propose::Arguments>),
    /// Show what a proposal changes, and sign it with a root key
    Sign {
        /// The proposal
        file: PathBuf,
        /// The root key to sign with
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Whose trust to judge by: a configuration file, or the directory of an identity or a
        /// platform; the platform's first version and fingerprint are enough
        #[arg(long, value_name = "PATH", default_value = "publish.toml")]
        identity: PathBuf,
        /// Sign without being asked
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Bring a signed proposal to the origin, which puts it in force
    Apply {
        /// The proposal
        file: PathBuf,
        /// The publisher's configuration file
        #[arg(long, default_value = "publish.toml")]
        config: PathBuf,
    },
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::Show { identity } => show(&trust_of(identity)?, output),
        Verb::Propose(arguments) => propose::run(arguments, output),
        Verb::Sign { file, key, identity, yes, asking } => sign(file, key, identity, *yes, asking, output),
        Verb::Apply { file, config } => apply(file, config, output),
    }
}

fn show(chain: &TrustChain, output: &Output) -> Result<(), Failure> {
    let newest = chain.newest();
    let mut older: Vec<_> = chain.newest_first().collect();
    older.reverse();
    let versions: Vec<_> = older
        .iter()
        .map(|version| {
            let trust = version.trust();
            let before = older.iter().find(|before| before.trust().version + 1 == trust.version);
            let changes = before.map(|before| differences(before.trust(), trust)).unwrap_or_default();
            let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
            json!({
                "version": trust.version, "hash": version.hash().to_string(), "issued": trust.issued,
                "expires": trust.expires, "changes": changes,
            })
        })
        .collect();
    let mut value = trust_json(newest.trust());
    if let Some(fields) = value.as_object_mut() {
        fields.insert("fingerprint".into(), chain.fingerprint().to_string().into());
        fields.insert("hash".into(), newest.hash().to_string().into());
        fields.insert("versions".into(), versions.into());
    }
    output.value(&value);
    let line = |name: &str, text: &str| output.line(format!("{name:12} {text}"));
    if newest.trust().version > 1 {
        line("fingerprint", &chain.fingerprint().to_string());
    }
    trust_lines(newest.trust(), newest.hash(), &line);
    for pair in older.windows(2) {
        if let [before, after] = pair {
            output.line(format!("version {}, {}", after.trust().version, utc(after.trust().issued)));
            let changes = differences(before.trust(), after.trust());
            changes.iter().for_each(|change| output.line(format!("  {change}")));
        }
    }
    Ok(())
}

fn load(file: &Path) -> Result<TrustProposal, Failure> {
    let bytes = read(file, MAX_PROPOSAL).map_err(|error| Failure::io(file, &error))?;
    Ok(TrustProposal::decode(&bytes)?)
}

fn of(what: &str, (have, need): (u64, u64)) -> String {
    format!("{have} of {need} signatures of {what}")
}

fn counts(signed: &Signed, version: u64) -> String {
    let before = of(&format!("version {}'s root keys", version - 1), signed.before);
    format!("{before}, {}", of(&format!("version {version}'s own"), signed.after))
}

/// Shows what a proposal changes against the version that it follows.
fn tell(judged: &Judged, output: &Output) {
    let (base, next) = (judged.base.trust(), &judged.trust);
    let changes = differences(base, next);
    let rows: Vec<_> = changes
        .iter()
        .map(|change| json!({ "of": change.of, "was": change.was, "becomes": change.becomes }))
        .collect();
    let signed_by: Vec<_> = judged.signed.keys.iter().map(ToString::to_string).collect();
    output.value(&json!({
        "event": "proposal", "version": next.version, "issued": next.issued, "expires": next.expires,
        "changes": rows, "signed_by": signed_by,
        "before": { "have": judged.signed.before.0, "need": judged.signed.before.1 },
        "after": { "have": judged.signed.after.0, "need": judged.signed.after.1 },
        "complete": judged.signed.is_enough(),
    }));
    output.line(format!("version {} of the trust document, good until {}", next.version, utc(next.expires)));
    changes.iter().for_each(|change| output.line(format!("  {change}")));
    output.line(format!("it has {}", counts(&judged.signed, next.version)));
}

fn sign(
    file: &Path,
    key: &Path,
    identity: &Path,
    yes: bool,
    asking: &Asking,
    output: &Output,
) -> Result<(), Failure> {
    let known = trust_of(identity)?;
    let mut proposal = load(file)?;
    let judged = proposal.judge(&known)?;
    // Before anybody is asked for a passphrase.
    let id = rootcast_keys::public_key(key, asking)?.id();
    let roots = judged.base.trust().roots.keys.iter().chain(&judged.trust.roots.keys);
    let accepted: Vec<_> = roots.map(|root| root.id()).collect();
    if !accepted.contains(&id) {
        return Err(DraftError::Stranger { key: id, accepted }.into());
    }
    if judged.signed.keys.contains(&id) {
        return Err(DraftError::Again(id).into());
    }
    tell(&judged, output);
    confirm("sign this version of trust", yes)?;
    let secret = SecretKey::open(key, asking)?;
    let signature = secret.sign(DocumentKind::Trust, judged.trust.platform, &proposal.payload)?;
    let judged = proposal.add(signature.into(), &known)?;
    replace(file, &proposal.encode())?;
    let (signed, version) = (&judged.signed, judged.trust.version);
    output.value(&json!({
        "event": "signed", "key": id.to_string(), "complete": signed.is_enough(),
        "before": { "have": signed.before.0, "need": signed.before.1 },
        "after": { "have": signed.after.0, "need": signed.after.1 },
    }));
    output.line(format!("signed with key {id}; it has {}", counts(signed, version)));
    if signed.is_enough() {
        output.line(format!("next: rootcast trust apply {}", file.display()));
    }
    Ok(())
}

fn apply(file: &Path, config: &Path, output: &Output) -> Result<(), Failure> {
    let proposal = load(file)?;
    // Whoever brings it signs nothing.
    let config = PublishConfig { key: None, ..PublishConfig::load(config)? };
    let (version, trust) = runtime()?.block_on(async {
        let mut publisher = Publisher::open(&config)?;
        publisher.refresh_trust().await?;
        let known = publisher.trust();
        // Brought before: the answer is the same, and no mistake.
        let in_force = known.newest().trust().encode() == proposal.payload;
        if !in_force {
            let judged = proposal.judge(&known)?;
            if !judged.signed.is_enough() {
                let message = format!("the proposal has {}", counts(&judged.signed, judged.trust.version));
                let next =
                    format!("rootcast trust sign {} --key KEY   with another root key", file.display());
                return Err(Failure::new(Exit::Trust, message).next(next));
            }
            publisher.apply_trust(proposal.document()).await?;
        }
        let newest = publisher.trust().newest().clone();
        Ok::<_, Failure>((newest.trust().version, newest))
    })?;
    let warnings = lapsing(&config.state, trust.trust());
    output.value(&json!({ "version": version, "hash": trust.hash().to_string(), "warnings": warnings }));
    output.line(format!("version {version} of the trust document is in force: {}", trust.hash()));
    warnings.iter().for_each(|warning| output.line(format!("warning: {warning}")));
    Ok(())
}

/// Of the channels whose newest release is known here, those that it does not verify under a version of trust.
fn lapsing(state: &Path, trust: &Trust) -> Vec<String> {
    let held = channels(state).unwrap_or_default();
    let lapses = held.into_iter().filter(|(name, directory)| {
        newest_release(directory).is_some_and(|(document, epoch)| {
            let grant = trust.grant(name).filter(|grant| grant.epoch == epoch);
            grant.is_none_or(|grant| {
                cose::verify(DocumentKind::Release, trust.platform, &document, &grant.publishers).is_err()
            })
        })
    });
    lapses.map(|(name, _)| warning(&name)).collect()
}

fn warning(channel: &ChannelName) -> String {
    format!(
        "the newest release of channel {channel} does not verify under this version; hosts keep what they run, \
         and nobody is sent it any more: publish anew"
    )
}

fn newest_release(directory: &Path) -> Option<(bytes::Bytes, u64)> {
    let store = DiskStore::open_read_only(directory).ok()?;
    let record = store.release(store.latest_release()?).ok()??;
    let record: ReleaseRecord = codec::decode(&record, MAX_RECORD).ok()?;
    let payload = cose::unverified_payload(DocumentKind::Release, &record.document).ok()?;
    Some((record.document, Release::decode(&payload).ok()?.epoch))
}
