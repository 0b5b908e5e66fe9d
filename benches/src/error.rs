//! Why a measurement could not be made.

use rootcast_bundler::PublishError;
use rootcast_bundler::source::SourceError;
use rootcast_keys::KeyError;
use rootcast_relay::authority::AuthorityError;
use rootcast_replica::ReplicaError;
use rootcast_transport::TransportError;
use std::io;
use std::path::{Path, PathBuf};

/// A measurement failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// What was asked for cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file or directory could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be run, or failed.
    #[error("{program}: {what}")]
    Program {
        /// The program.
        program: String,
        /// What happened.
        what: String,
    },
    /// A commit cannot be published.
    #[error("commit {commit} cannot be published: {reason}")]
    Unpublishable {
        /// The commit, in hexadecimal.
        commit: String,
        /// Why.
        reason: String,
    },
    /// A process of ours did not do in time what it should.
    #[error("{name}: {what}; its log is {}", log.display())]
    Member {
        /// The process.
        name: String,
        /// What did not happen.
        what: String,
        /// Its log.
        log: PathBuf,
    },
    /// Nothing at all could be measured.
    #[error("nothing could be measured: {0}")]
    Nothing(String),
    /// The repository cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The platform's authority failed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The platform's keys failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The publisher failed.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A question to the origin failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The network failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A relay could not start.
    #[error(transparent)]
    Relay(#[from] rootcast_relay::RelayError),
    /// An agent could not start.
    #[error(transparent)]
    Agent(#[from] rootcast_agent::AgentError),
    /// Trees of growing size could not be measured.
    #[error(transparent)]
    Scale(#[from] crate::scale::ScaleError),
    /// The identity of the harness is not usable.
    #[error(transparent)]
    Identity(#[from] rootcast_replica::MemberError),
}

impl BenchError {
    /// For `map_err` on what was done at `path`.
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path: path.clone(), source }
    }
}
