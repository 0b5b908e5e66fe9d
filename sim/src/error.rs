//! What keeps a simulation from being run; what it finds is no error of its own.

use rootcast_bundler::PublishError;
use rootcast_bundler::source::SourceError;
use rootcast_keys::KeyError;
use rootcast_relay::authority::AuthorityError;
use rootcast_transport::TransportError;

/// A simulation could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The system refused.
    #[error("{0}; is there room in memory, and below the temporary directory?")]
    Io(#[from] std::io::Error),
    /// The certificate authority could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An identity or a socket is not usable.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A publisher could not be opened.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The source of releases is not usable.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The platform could not be made.
    #[error("the platform could not be made: {0}")]
    Platform(String),
}
