//! `rootcast publish`

use crate::failure::{Exit, Failure};
use crate::output::{Output, bytes, plain};
use crate::passphrase::Asking;
use crate::sign;
use indicatif::ProgressBar;
use rootcast::draft::ReleaseDraft;
use rootcast::settings::SettingsError;
use rootcast::trust::TrustChain;
use rootcast_bundler::config::CONFIG_FILE;
use rootcast_bundler::source::Source;
use rootcast_bundler::{Progress, PublishConfig, PublishError, Published, Publisher, Stage};
use rootcast_replica::renewal::{ask_parents, is_past_half, renew};
use rootcast_transport::{Endpoint, IDENTITY_FILE, Identity};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The git repository or plain directory to publish
    #[arg(required_unless_present = "signed")]
    source: Option<PathBuf>,
    /// The publisher's configuration file
    #[arg(long, default_value = "publish.toml")]
    config: PathBuf,
    /// The branch, tag or commit to publish [default: HEAD]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Publish even if no file is left, which removes every file on every host
    #[arg(long)]
    allow_empty: bool,
    /// Sign and publish nothing: write the release to FILE, for `rootcast sign`
    #[arg(long, value_name = "FILE")]
    unsigned: Option<PathBuf>,
    /// Publish the release in FILE, which enough publishers have signed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "unsigned", "revision", "allow_empty"])]
    signed: Option<PathBuf>,
    #[command(flatten)]
    asking: Asking,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let begun = Instant::now();
    let config = PublishConfig::load(&arguments.config)?;
    // What is compiled for others to sign, or was signed by them, needs no key here.
    let keyless = PublishConfig { key: None, ..config.clone() };
    if let Some(file) = &arguments.signed {
        let draft = sign::load(file)?;
        let published = runtime()?.block_on(async {
            let mut publisher = Publisher::open(&keyless)?;
            publisher.publish_signed(draft).await
        });
        return told(&published?, begun, output);
    }
    let path = arguments.source.as_ref().ok_or_else(|| Failure::new(Exit::Usage, "no source is given"))?;
    let source = Source::open(path, arguments.revision.as_deref())?;
    keeps_secrets(&source, path, &config)?;
    let source = Arc::new(Mutex::new(source));
    let bar = output.progress("reading");
    let progress = shown(bar.clone());
    if let Some(file) = &arguments.unsigned {
        let drafted = runtime()?.block_on(async {
            let mut publisher = Publisher::open(&keyless)?;
            publisher.set_allow_empty(arguments.allow_empty);
            let (draft, warnings) = publisher.draft(&source, progress).await?;
            Ok::<_, PublishError>((draft, warnings, publisher.trust()))
        });
        bar.finish_and_clear();
        let (draft, warnings, trust) = drafted?;
        output.value(&json!({ "event": "compiled", "warnings": warn(&warnings) }));
        return unsigned(draft, &trust, file, output);
    }
    let published = runtime()?.block_on(async {
        let mut publisher = Publisher::open_with(&config, &arguments.asking)?;
        publisher.set_allow_empty(arguments.allow_empty);
        let published = publisher.publish(&source, progress).await;
        keep_certified(&config).await;
        published
    });
    bar.finish_and_clear();
    told(&published?, begun, output)
}

/// Writes a draft, and shows what those who are to sign it will see.
fn unsigned(
    draft: Option<ReleaseDraft>,
    trust: &TrustChain,
    file: &Path,
    output: &Output,
) -> Result<(), Failure> {
    let Some(draft) = draft else {
        output.value(&json!({ "event": "unchanged" }));
        output.line("nothing changed since the newest release; nothing was written");
        return Ok(());
    };
    let release = draft.release()?;
    let (signed_by, threshold) = draft.signed_by(trust.newest())?;
    sign::create(file, &draft.encode())?;
    sign::show(&draft, &release, &signed_by, threshold, output)?;
    output.line(format!("next: rootcast sign {} --key KEY", file.display()));
    Ok(())
}

/// Says what of the settings has no effect; and gives it for whoever reads JSON.
pub(crate) fn warn(warnings: &[SettingsError]) -> Vec<String> {
    let messages: Vec<String> =
        warnings.iter().map(|warning| plain(&format!("{CONFIG_FILE}:{warning}"))).collect();
    messages.iter().for_each(|message| eprintln!("warning: {message}"));
    messages
}

fn told(published: &Published, begun: Instant, output: &Output) -> Result<(), Failure> {
    let warnings = warn(&published.warnings);
    let ms = begun.elapsed().as_millis() as u64;
    output.value(&json!({
        "channel": published.channel.as_str(), "release": published.number, "commit": published.commit,
        "files_changed": published.files_changed, "edit_bytes": published.edit_bytes,
        "bundles": published.bundles, "overtaken": published.overtaken, "published": published.is_new, "ms": ms,
        "warnings": warnings,
    }));
    if published.is_new {
        output.line(format!(
            "release {} of channel {}: {} files changed, edits of {}, {} ms",
            published.number,
            published.channel,
            published.files_changed,
            bytes(published.edit_bytes),
            ms
        ));
    } else {
        output.line(format!(
            "nothing changed since release {} of channel {}; nothing was published",
            published.number, published.channel
        ));
    }
    Ok(())
}

/// Renews the publisher's certificate where half of its life is over. Where that fails, the
/// one that there is serves on, and the next publication tries again.
async fn keep_certified(config: &PublishConfig) {
    let identity = Identity::load(&config.identity);
    if identity.is_ok_and(|identity| is_past_half(&identity, SystemTime::now()))
        && let Err(failure) = renew_publisher(config).await
    {
        eprintln!("warning: the publisher's certificate could not be renewed: {}", failure.message);
    }
}

/// Renews the publisher's certificate now.
pub(crate) async fn renew_publisher(config: &PublishConfig) -> Result<Identity, Failure> {
    let endpoint = Endpoint::dial_only(&Identity::load(&config.identity)?)?;
    let ask = |own: Identity, request| {
        let (endpoint, origin) = (endpoint.clone(), config.origin.clone());
        async move { ask_parents(&endpoint, &origin, &own, SystemTime::now(), request).await }
    };
    Ok(renew(&config.identity, SystemTime::now(), ask).await?)
}

/// Refuses a source that has the publisher's own secrets or state in it: a
/// wrong directory on the command line must not send a key to every host.
fn keeps_secrets(source: &Source, directory: &Path, config: &PublishConfig) -> Result<(), Failure> {
    let root = fs::canonicalize(directory).map_err(|error| Failure::io(directory, &error))?;
    let refused = |path: &Path, what: &str| {
        let message = format!("{} is in {}: {what}", path.display(), directory.display());
        Err(Failure::new(Exit::InvalidSource, message)
            .next("publish a directory that holds nothing but configuration; nothing was signed"))
    };
    for secret in config.key.iter().cloned().chain([config.identity.join(IDENTITY_FILE)]) {
        // A file that is not there is told of where it is wanted.
        let Ok(secret) = fs::canonicalize(secret) else { continue };
        let Some(inside) = secret.strip_prefix(&root).ok().and_then(Path::to_str) else { continue };
        if source.read_path(inside)?.is_some() {
            return refused(&secret, "every host would get this secret key");
        }
    }
    let is_directory = source.commit().is_empty();
    if is_directory && fs::canonicalize(&config.state).is_ok_and(|state| state.starts_with(&root)) {
        return refused(&config.state, "each publication would change what is published");
    }
    Ok(())
}

/// A runtime for one command.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, error.to_string()))
}

/// Shows a publisher's progress on a bar.
pub(crate) fn shown(bar: ProgressBar) -> Arc<Progress> {
    Arc::new(move |stage, done, total| {
        bar.set_message(match stage {
            Stage::Read => "reading",
            Stage::Encode => "encoding",
        });
        bar.set_length(total);
        bar.set_position(done);
    })
}
