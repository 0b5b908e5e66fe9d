//! `rootcast publish`

use crate::failure::{Exit, Failure};
use crate::output::{Output, bytes};
use indicatif::ProgressBar;
use rootcast_bundler::source::Source;
use rootcast_bundler::{Progress, PublishConfig, Publisher, Stage};
use serde_json::json;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The git repository or plain directory to publish
    #[arg(default_value = ".")]
    source: PathBuf,
    /// The publisher's configuration file
    #[arg(long, default_value = "publish.toml")]
    config: PathBuf,
    /// The branch, tag or commit to publish
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let begun = Instant::now();
    let config = PublishConfig::load(&arguments.config)?;
    let source = Source::open(&arguments.source, arguments.revision.as_deref())?;
    let bar = output.progress("reading");
    let progress = shown(bar.clone());
    let published = runtime()?.block_on(async {
        let mut publisher = Publisher::open(&config)?;
        publisher.publish(&Arc::new(Mutex::new(source)), progress).await
    });
    bar.finish_and_clear();
    let published = published?;
    let ms = begun.elapsed().as_millis() as u64;
    output.value(&json!({
        "channel": published.channel.as_str(), "release": published.number, "commit": published.commit,
        "files_changed": published.files_changed, "edit_bytes": published.edit_bytes,
        "bundles": published.bundles, "overtaken": published.overtaken, "published": published.is_new, "ms": ms,
    }));
    if published.is_new {
        output.line(format!(
            "release {} of channel {}: {} files changed, edits of {}, {} ms",
            published.number, published.channel, published.files_changed, bytes(published.edit_bytes), ms
        ));
    } else {
        output.line(format!(
            "nothing changed since release {} of channel {}; nothing was published",
            published.number, published.channel
        ));
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
