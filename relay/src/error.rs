//! What stops a relay.

use crate::audit::AuditError;
use rootcast_replica::{ConfigError, MemberError, ReplicaError};
use rootcast_store::StoreError;
use rootcast_transport::TransportError;
use std::io;

/// A relay could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Its configuration file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its place in the platform is not usable.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// Its store is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit record is not usable.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The online key is not usable.
    #[error(transparent)]
    Key(#[from] rootcast_keys::KeyError),
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
