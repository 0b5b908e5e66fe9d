//! What stops a relay.

use rootcast::settings::SettingsError;
use rootcast_replica::{MemberError, ReplicaError};
use rootcast_store::StoreError;
use rootcast_transport::TransportError;
use std::io;
use std::path::PathBuf;

/// A relay could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The configuration could not be read.
    #[error("{}: {source}", path.display())]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration has a mistake.
    #[error("{}:{source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: SettingsError,
    },
    /// Its place in the platform is not usable.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// Its store is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A channel's replica could not be opened.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The process could not be set up.
    #[error("the runtime could not be set up: {source}")]
    Runtime {
        /// What the system said.
        source: io::Error,
    },
    /// Its socket is not usable.
    #[error(transparent)]
    Transport(#[from] TransportError),
}
