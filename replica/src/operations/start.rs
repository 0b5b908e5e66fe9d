//! A daemon as a process: its runtime, its log, signals, and a line per event.

use super::{HangUps, Notifier, Settings, start_log};
use crate::told_to_end;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;

/// What happens in a daemon.
pub trait Event {
    /// Whether the daemon serves from now on.
    fn is_ready(&self) -> bool;

    /// The event as a line for programs.
    fn to_json(&self) -> Value;
}

/// The system gives no runtime: no threads or descriptors are left.
#[derive(Debug, thiserror::Error)]
#[error("the runtime cannot be started: {0}")]
pub struct RuntimeError(#[source] std::io::Error);

/// Where a daemon tells of what happens.
pub type Events<E> = Arc<dyn Fn(E) + Send + Sync>;

/// Completes when the process is asked to end.
pub type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a daemon in this process until SIGTERM or SIGINT; SIGHUP reads the configuration
/// again. With `json`, each event is a line on standard output. `level` of the log, where it
/// is given, comes before the configuration's.
///
/// # Errors
/// What `run` gives; or the runtime cannot be started.
pub fn start<C: Settings, E: Event, F, X>(
    (path, config): (&Path, C),
    json: bool,
    level: Option<&str>,
    run: impl FnOnce(watch::Receiver<C>, Events<E>, Ended) -> F,
) -> Result<(), X>
where
    F: Future<Output = Result<(), X>>,
    X: From<RuntimeError>,
{
    start_log(config.log_format(), level.unwrap_or(config.log_level()));
    // One thread for the network: small sends, to many children of a relay above all, are far cheaper
    // without hand-overs. What waits for the disk or computes has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(RuntimeError)?;
    let notifier = Arc::new(Notifier::from_environment());
    let telling = notifier.clone();
    let events = Arc::new(move |event: E| {
        if event.is_ready() {
            telling.ready();
        }
        if json {
            // A reader that went away is no reason to stop.
            let _ = writeln!(std::io::stdout(), "{}", event.to_json());
        }
    });
    let settings = watch::Sender::new(config);
    let ending = notifier.clone();
    let ended = Box::pin(async move {
        told_to_end().await;
        ending.stopping();
    });
    runtime.block_on(async {
        let hang_ups = HangUps::listen();
        tokio::select! {
            biased;
            outcome = run(settings.subscribe(), events, ended) => outcome,
            () = hang_ups.reload(path, &settings, &notifier) => Ok(()),
            () = notifier.keep_alive() => Ok(()),
        }
    })
}
