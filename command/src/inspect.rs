//! `rootcast inspect`

pub(crate) mod document;
pub(crate) mod place;
mod store;

use crate::failure::{Exit, Failure};
use crate::output::Output;
use place::{Configured, known_trust, read};
use rootcast::limits::MAX_DOCUMENT;
use rootcast::trust::{Trust, TrustChain};
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A signed document, an edit, or the state directory or configuration of a relay, agent or publisher
    path: PathBuf,
    /// Check signatures against the trust document of this identity or platform directory
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// Check signatures against this trust document, which is taken as it is
    #[arg(long, value_name = "FILE", conflicts_with = "identity")]
    trust: Option<PathBuf>,
    /// The channel, where the state has several
    #[arg(long)]
    channel: Option<String>,
    /// Show this release and its bundles; with --bundle and --file, of this release instead of the newest
    #[arg(long, value_name = "NUMBER")]
    release: Option<u64>,
    /// List the files of a bundle
    #[arg(long, value_name = "NAME", conflicts_with_all = ["edit", "file"])]
    bundle: Option<String>,
    /// Count what an edit of a bundle's log does
    #[arg(long, value_name = "BUNDLE:SEQUENCE", conflicts_with_all = ["file", "release"])]
    edit: Option<String>,
    /// Write a file's content to standard output
    #[arg(long, value_name = "BUNDLE:PATH")]
    file: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let path = &arguments.path;
    let configured = match path.extension() {
        Some(extension) if extension == "toml" => Some(Configured::load(path)?),
        _ => None,
    };
    let trust = match (&arguments.trust, &arguments.identity, &configured) {
        (Some(file), ..) => Some(self_signed(file)?),
        (None, Some(identity), _) => Some(known_trust(identity, None)?),
        (None, None, Some(configured)) => Some(known_trust(&configured.identity, Some(&configured.state))?),
        (None, None, None) => None,
    };
    if configured.is_none() && !path.is_dir() {
        return document::show(path, trust.as_ref(), output);
    }
    let state = configured.as_ref().map_or(path, |configured| &configured.state);
    store::show(arguments, state, trust.as_ref(), output)
}

/// A trust document that the user vouches for.
fn self_signed(path: &Path) -> Result<TrustChain, Failure> {
    let document = read(path, MAX_DOCUMENT).map_err(|error| Failure::io(path, &error))?;
    let (_, hash) = Trust::unverified(&document).map_err(|error| refused(path, &error))?;
    TrustChain::pinned(&document, hash).map_err(|error| refused(path, &error))
}

fn refused(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Trust, format!("{}: {error}", path.display()))
}

/// Whether signatures verify; `None` where there is nothing to check them against.
type Signatures = Option<Result<(), String>>;

fn signatures_text(signatures: &Signatures) -> String {
    match signatures {
        None => "not checked (give --identity)".into(),
        Some(Ok(())) => "verified".into(),
        Some(Err(reason)) => format!("DO NOT VERIFY: {reason}"),
    }
}

fn signatures_json(signatures: &Signatures) -> serde_json::Value {
    match signatures {
        None => "not checked".into(),
        Some(Ok(())) => "verified".into(),
        Some(Err(reason)) => serde_json::json!({ "refused": reason }),
    }
}

/// Refused signatures end the command with their own exit code, after all is shown.
fn signatures_outcome(signatures: &Signatures, what: &str) -> Result<(), Failure> {
    match signatures {
        Some(Err(reason)) => Err(Failure::new(Exit::Trust, format!("{what}: {reason}"))),
        None | Some(Ok(())) => Ok(()),
    }
}

/// A time in seconds since 1970, for people.
pub(crate) fn utc(seconds: u64) -> String {
    let time =
        i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    match time {
        Some(time) => {
            format!("{} {:02}:{:02}:{:02} UTC", time.date(), time.hour(), time.minute(), time.second())
        }
        None => format!("{seconds} s after 1970"),
    }
}

pub(crate) fn commit(hex: &str) -> &str {
    if hex.is_empty() { "none (a plain directory)" } else { hex }
}
