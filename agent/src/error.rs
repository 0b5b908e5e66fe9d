//! What stops an agent, or keeps it at what it had.

use crate::key::KeyError;
use crate::secrets::SecretError;
use crate::services::ServiceError;
use crate::slots::SlotError;
use rootcast::codec::CodecError;
use rootcast::path::{BundleName, PathError};
use rootcast::tree::TreeError;
use rootcast_replica::operations::RuntimeError;
use rootcast_replica::{ConfigError, MemberError, ReplicaError};
use rootcast_store::StoreError;
use rootcast_transport::TransportError;
use rootcast_view::{FileError, ViewError};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// An agent could not start, or could not activate a release.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
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
    /// A directory could not be made.
    #[error("{} could not be made: {source}", path.display())]
    MakeDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its place in the platform is not usable.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// Its store is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its replica could not be opened.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// Its socket is not usable.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Staging or flipping failed; `current` is what it was.
    #[error(transparent)]
    Slots(#[from] SlotError),
    /// The key that opens its secrets is not usable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A secret cannot be opened or put in its place; `current` is what it was.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A service cannot be brought to its new files.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A file about this host's activations cannot be read or written.
    #[error("{}: {source}; if it is damaged, remove it and start again: the host then knows of no earlier activation", path.display())]
    Books {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The operator holds a generation that is not kept any more.
    #[error(
        "generation {0} is held by order, and not kept any more; `rootcast agent history` lists those that are"
    )]
    NoGeneration(u64),
    /// The layers do not resolve.
    #[error("the layers do not resolve: {0}")]
    View(#[from] TreeError),
    /// A file of the view cannot be merged or rendered; `current` is what it was.
    #[error("a file of the view cannot be made: {0}")]
    File(#[from] Box<FileError>),
    /// The plan cannot be read.
    #[error("the plan of the release cannot be read: {0}")]
    Plan(#[from] CodecError),
    /// A release of several bundles without its plan: without it, a hidden
    /// layer could not be told from one that is not there.
    #[error("the parent sent a release of several bundles without its plan; it is not activated")]
    NoPlan,
    /// A fixed name is not one.
    #[error(transparent)]
    Name(#[from] PathError),
    /// Bundles that this host's layers call for have not come yet.
    #[error("bundles of this host have not come yet: {}", .0.iter().map(BundleName::as_str).collect::<Vec<_>>().join(", "))]
    Awaiting(Vec<BundleName>),
    /// The process could not be set up.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Bundles that were asked for, that the plan names and that the parent leaves out.
    #[error("the parent withholds bundles of this host: {}", .0.iter().map(BundleName::as_str).collect::<Vec<_>>().join(", "))]
    Withheld(Vec<BundleName>),
    /// So much of the live tree differs that it takes the other slot, which an activation needs now.
    #[error("so much of it differs that it is put right once the activation under way is over")]
    UnderWay,
    /// Blocking work was cut off by the end of the process.
    #[error("stopped")]
    Stopped,
}

impl From<ViewError> for AgentError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::Tree(error) => Self::View(error),
            ViewError::File(error) => Self::File(error),
        }
    }
}

impl AgentError {
    /// Whether fetching objects again would help.
    pub(crate) fn needs_repair(&self) -> bool {
        match self {
            Self::Slots(SlotError::Object(error))
            | Self::View(TreeError::Read(error))
            | Self::Secret(SecretError::Object(error)) => error.refetch().is_some(),
            Self::Slots(SlotError::ChunkList { .. }) => true,
            _ => false,
        }
    }
}
