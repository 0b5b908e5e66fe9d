//! Reading the configuration again while a process runs (specs/status.md, ST-44).

use super::{LogFormat, Notifier, change_level};
use std::path::Path;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// A configuration that can be read again.
pub trait Settings: Clone {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// What is wrong with it: file, line, and what may have been meant.
    fn read(path: &Path) -> Result<Self, String>;

    /// Takes over from `old` what takes a restart to change, and names those keys that differ.
    fn keep_fixed(&mut self, old: &Self) -> Vec<&'static str>;

    /// How the log is written.
    fn log_format(&self) -> LogFormat;

    /// How much is logged.
    fn log_level(&self) -> &str;
}

/// SIGHUPs, which no longer end this process from the moment that this is made.
#[derive(Debug)]
pub struct HangUps(Option<Signal>);

impl HangUps {
    /// Begins to hear them. For a runtime's thread.
    pub fn listen() -> Self {
        Self(signal(SignalKind::hangup()).ok())
    }

    /// Reads the configuration again on each, for ever. One that is wrong changes nothing.
    pub async fn reload<C: Settings>(
        mut self,
        path: &Path,
        settings: &watch::Sender<C>,
        notifier: &Notifier,
    ) {
        while let Some(hang_ups) = &mut self.0 {
            if hang_ups.recv().await.is_none() {
                break;
            }
            notifier.reloading();
            reload(path, settings);
            notifier.ready();
        }
        std::future::pending().await
    }
}

fn reload<C: Settings>(path: &Path, settings: &watch::Sender<C>) {
    let mut new = match C::read(path) {
        Ok(new) => new,
        Err(error) => {
            tracing::error!(%error, "the configuration is wrong and was not taken; the old one stays in force");
            return;
        }
    };
    for key in new.keep_fixed(&settings.borrow()) {
        tracing::warn!(key, "changed in the configuration, and takes a restart; it stays as it was");
    }
    if settings.borrow().log_level() != new.log_level() && !change_level(new.log_level()) {
        tracing::warn!("the level of the log is what the environment or the command line says, and stays");
    }
    // Whoever listens compares: a file that says the same changes nothing, and the identity is read anew.
    settings.send_replace(new);
    tracing::info!(path = %path.display(), "the configuration was read again");
}
