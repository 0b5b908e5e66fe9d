//! What stops a relay.

use crate::audit::AuditError;
use crate::membership::MembershipError;
use rootcast_replica::joining::JoinFailure;
use rootcast_replica::operations::RuntimeError;
use rootcast_replica::{ConfigError, MemberError, ReplicaError};
use rootcast_store::StoreError;
use rootcast_transport::TransportError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A relay could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The address for operators could not be opened.
    #[error("TCP {address} could not be opened for operators: {source}; `operations` gives another")]
    Operations {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Its configuration file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its place in the platform is not usable.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// It cannot keep its membership, or issue.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The origin could not renew its own certificate.
    #[error("the origin's own certificate could not be renewed: {0}")]
    Renewal(#[from] JoinFailure),
    /// Its trust document could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its store is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit record is not usable.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A channel's replica could not be opened.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The process could not be set up.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Its socket is not usable.
    #[error(transparent)]
    Transport(#[from] TransportError),
}
