//! What operators need of every long-running process: probes, measurements, logs, and word
//! to the service manager (specs/status.md, ST-40 to ST-46).

mod listener;
mod logs;
mod notify;
mod process;
mod reload;
mod start;
mod vitals;

pub use listener::{Listener, Operated, Readiness, operate};
pub use logs::{LOG_ENVIRONMENT, LogFormat, change_level, level, start_log};
pub use notify::Notifier;
pub use reload::{HangUps, Settings};
pub use start::{Ended, Event, Events, RuntimeError, start};
pub use vitals::Vitals;

/// Takes over those keys from an old configuration that take a restart to change, and notes which differed.
#[macro_export]
macro_rules! keep_keys {
    ($new:ident, $old:ident, $differ:ident: $($key:ident),+ $(,)?) => {$(
        if $new.$key != $old.$key {
            $new.$key.clone_from(&$old.$key);
            $differ.push(stringify!($key));
        }
    )+};
}

use rootcast_transport::{Identity, PeerName, TransportError};
use std::path::PathBuf;
use tokio::sync::watch;

/// Reads the identity again whenever the settings are, for ever: a certificate that was put there by
/// hand is used for new connections. One of another member is not.
pub async fn reread_identity<C>(
    mut settings: watch::Receiver<C>,
    directory: PathBuf,
    own: PeerName,
    adopt: impl Fn(&Identity) -> Result<(), TransportError>,
) {
    while settings.changed().await.is_ok() {
        match Identity::load(&directory) {
            Ok(identity) if *identity.name() != own => {
                tracing::error!(found = %identity.name(), %own, "the identity is another member's, and was not taken");
            }
            Ok(identity) => match adopt(&identity) {
                Ok(()) => tracing::info!(name = %identity.name(), "the identity was read again"),
                Err(error) => tracing::error!(%error, "the identity was not taken; the old one stays in use"),
            },
            Err(error) => tracing::error!(%error, "the identity could not be read; the old one stays in use"),
        }
    }
    std::future::pending().await
}

/// Waits until a part of the settings is another than `now`; for ever where nobody changes them any more.
pub async fn changes<C, T: PartialEq>(
    settings: &mut watch::Receiver<C>,
    now: &T,
    part: impl Fn(&C) -> T,
) -> T {
    loop {
        if settings.changed().await.is_err() {
            return std::future::pending().await;
        }
        let wanted = part(&settings.borrow_and_update());
        if wanted != *now {
            return wanted;
        }
    }
}
