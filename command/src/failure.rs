//! The one place where errors become messages and exit codes.

use crate::output::plain;
use rootcast::draft::DraftError;
use rootcast::succession::ChangeError;
use rootcast_agent::AgentError;
use rootcast_bundler::source::SourceError;
use rootcast_bundler::{CompileError, PublishError};
use rootcast_keys::KeyError;
use rootcast_relay::RelayError;
use rootcast_relay::authority::AuthorityError;
use rootcast_relay::membership::MembershipError;
use rootcast_replica::joining::JoinFailure;
use rootcast_replica::{ConfigError, MemberError, ReplicaError};
use rootcast_store::StoreError;
use rootcast_transport::{CloseReason, Code, PeerFault, TransportError};
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// Exit codes. They do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something failed.
    Failure = 1,
    /// The command line was wrong.
    Usage = 2,
    /// Differences or damage were found.
    Differences = 3,
    /// The source cannot be published.
    InvalidSource = 4,
    /// A release was rolled back, or something halted.
    RolledBack = 5,
    /// It took too long.
    TimeOut = 6,
    /// A peer could not be reached.
    Unreachable = 7,
    /// Trust: keys, signatures, certificates.
    Trust = 8,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What to do about a daemon's configuration that is not there.
const WRITE_CONFIG: &str = "write it as README.md shows (\"A real deployment\"), or give another path";

/// Why a command did not succeed: what happened, where, why, and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) next: Option<String>,
    pub(crate) exit: Exit,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { message: message.into(), next: None, exit }
    }

    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        Self::new(Exit::Failure, format!("{}: {error}", path.display()))
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let failure = |exit| Self::new(exit, error.to_string());
        match &error {
            PublishError::Compile(inner) => match inner {
                CompileError::Source(source) if !source.is_invalid_source() => failure(Exit::Failure),
                CompileError::Store(_) | CompileError::Replica(_) | CompileError::Write(_) => failure(Exit::Failure),
                CompileError::Key(_) => failure(Exit::Trust),
                CompileError::Empty { .. } => failure(Exit::InvalidSource)
                    .next("name the right directory, or say --allow-empty; nothing was signed"),
                _ => failure(Exit::InvalidSource).next("correct the source and publish again; nothing was signed"),
            },
            PublishError::Unreachable(inner) => match Self::from_transport(inner).exit {
                Exit::Trust => failure(Exit::Trust)
                    .next("publish with an identity of the origin's own platform (`identity` in the publisher's configuration)"),
                _ => failure(Exit::Unreachable)
                    .next("start the origin with `rootcast relay CONFIG`, or correct `origin` in the publisher's configuration"),
            },
            PublishError::NotGranted { .. } => failure(Exit::Trust).next(
                "`rootcast trust show` says which keys may publish where; set `key` in the publisher's configuration, or `channel` in rootcast.toml, to fit",
            ),
            PublishError::NoKey => failure(Exit::Usage).next(
                "set `key` in the publisher's configuration, or write the release with --unsigned for others to sign",
            ),
            PublishError::Threshold { .. } => failure(Exit::Trust).next(
                "rootcast publish --unsigned FILE SOURCE, then each publisher `rootcast sign FILE --key KEY`, \
                 then rootcast publish --signed FILE",
            ),
            PublishError::TooFew { .. } => {
                failure(Exit::Trust).next("rootcast sign FILE --key KEY   with another granted key")
            }
            PublishError::Overdue { .. } => failure(Exit::Failure)
                .next("compile it again with `rootcast publish --unsigned`, and have it signed anew"),
            PublishError::TrustRefused(_) => failure(Exit::Trust)
                .next("`rootcast trust show` says what is in force; propose the change anew from there"),
            PublishError::Draft(inner) => Self::from(inner.clone()),
            PublishError::Replica(ReplicaError::Verify(_)) => failure(Exit::Trust)
                .next("`rootcast trust show` says which keys may publish where"),
            PublishError::Config(ConfigError::Read { .. }) => failure(Exit::Failure)
                .next("write it, or name another with --config (README.md, \"A real deployment\")"),
            PublishError::NotOrigin(_) => failure(Exit::Failure).next("correct `origin` in the publisher's configuration"),
            PublishError::Refused(_) => failure(Exit::Failure).next("the origin's `channels` and its log say more"),
            PublishError::Transport(inner) | PublishError::Replica(ReplicaError::Transport(inner)) => {
                Self::from_transport(inner)
            }
            PublishError::Member(_) | PublishError::Key(_) => failure(Exit::Trust),
            PublishError::Config(error) => failure(config_exit(error)),
            _ => failure(Exit::Failure),
        }
    }
}

impl Failure {
    pub(crate) fn from_transport(error: &TransportError) -> Self {
        let exit = match error {
            TransportError::Peer {
                fault:
                    PeerFault::HandshakeTimeout { .. } | PeerFault::Stalled { .. } | PeerFault::NoStreams { .. },
                ..
            } => Exit::Unreachable,
            TransportError::Closed { reason: CloseReason::RefusedUs { .. }, .. } => Exit::Trust,
            TransportError::Closed { reason: CloseReason::ByPeer { code, .. }, .. }
                if *code == Code::REFUSED =>
            {
                Exit::Trust
            }
            TransportError::Peer { .. }
            | TransportError::KeyExposed { .. }
            | TransportError::BadPem { .. }
            | TransportError::MayNotListen { .. } => Exit::Trust,
            TransportError::ReadFile { .. } | TransportError::Bind { .. } => Exit::Failure,
            _ => Exit::Unreachable,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        Self::from_transport(&error)
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Self {
        match &error {
            ReplicaError::Transport(inner) => Self::from_transport(inner),
            ReplicaError::Verify(_) | ReplicaError::Refused(_) => Self::new(Exit::Trust, error.to_string()),
            _ => Self::new(Exit::Failure, error.to_string()),
        }
    }
}

/// A mistake in a file is the user's; a file that cannot be read need not be.
fn config_exit(error: &ConfigError) -> Exit {
    match error {
        ConfigError::Wrong { .. } => Exit::Usage,
        ConfigError::Read { .. } => Exit::Failure,
    }
}

impl From<RelayError> for Failure {
    fn from(error: RelayError) -> Self {
        let exit = match &error {
            RelayError::Config(error) => config_exit(error),
            RelayError::Member(_)
            | RelayError::Membership(MembershipError::Authority(_) | MembershipError::Key(_)) => Exit::Trust,
            RelayError::Transport(inner) => Self::from_transport(inner).exit,
            _ => Exit::Failure,
        };
        let failure = Self::new(exit, error.to_string());
        match &error {
            RelayError::Config(ConfigError::Read { .. }) => failure.next(WRITE_CONFIG),
            RelayError::Transport(TransportError::Bind { .. }) => {
                failure.next("correct `listen`, or stop what serves there (`ss -lunp` shows it)")
            }
            _ => failure,
        }
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        let exit = match &error {
            AgentError::Config(error) => config_exit(error),
            AgentError::Name(_) => Exit::Usage,
            AgentError::Member(_) | AgentError::Key(_) => Exit::Trust,
            AgentError::Transport(inner) => Self::from_transport(inner).exit,
            _ => Exit::Failure,
        };
        let failure = Self::new(exit, error.to_string());
        match &error {
            AgentError::Config(ConfigError::Read { .. }) => failure.next(WRITE_CONFIG),
            AgentError::Name(_) => failure.next("correct `channel` in the agent's configuration"),
            _ => failure,
        }
    }
}

impl From<JoinFailure> for Failure {
    fn from(error: JoinFailure) -> Self {
        let message = error.to_string();
        match error {
            JoinFailure::Text(_) | JoinFailure::OtherName { .. } => Self::new(Exit::Usage, message)
                .next("`rootcast invite`, on the origin's machine, prints a join string"),
            JoinFailure::AlreadyThere { .. } | JoinFailure::Write { .. } => Self::new(Exit::Failure, message),
            JoinFailure::Transport(inner) => Self::from_transport(&inner),
            JoinFailure::Unavailable { .. } => Self::new(Exit::Unreachable, message),
            JoinFailure::Refused => Self::new(Exit::Trust, message)
                .next("make another with `rootcast invite`; the origin's log says why this one is refused"),
            JoinFailure::Imposter { .. }
            | JoinFailure::Authority { .. }
            | JoinFailure::Platform { .. }
            | JoinFailure::Name(_)
            | JoinFailure::OtherCertificate { .. } => Self::new(Exit::Trust, message),
        }
    }
}

impl From<DraftError> for Failure {
    fn from(error: DraftError) -> Self {
        let exit = match &error {
            DraftError::Codec { .. } | DraftError::Kind(_) => Exit::Failure,
            _ => Exit::Trust,
        };
        let failure = Self::new(exit, plain(&error.to_string()));
        match &error {
            DraftError::Codec { .. } | DraftError::Kind(_) => {
                failure.next("give a file that `publish --unsigned` or `trust propose` wrote")
            }
            DraftError::Behind { .. } => failure.next("rootcast trust propose   from the version in force"),
            DraftError::Stranger { .. } => {
                failure.next("`rootcast trust show` says which keys may sign what")
            }
            _ => failure,
        }
    }
}

impl From<MembershipError> for Failure {
    fn from(error: MembershipError) -> Self {
        let exit = match &error {
            MembershipError::TokenBounds => Exit::Usage,
            MembershipError::Authority(_) | MembershipError::Key(_) => Exit::Trust,
            _ => Exit::Failure,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        Self::new(Exit::Trust, error.to_string())
            .next("`rootcast trust show` says what is in force; nothing was written")
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        let exit = if error.is_invalid_source() { Exit::InvalidSource } else { Exit::Failure };
        Self::new(exit, error.to_string())
    }
}

macro_rules! plain {
    ($exit:expr, $($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new($exit, error.to_string())
            }
        })+
    };
}
plain!(Exit::Failure, StoreError);
plain!(Exit::Trust, KeyError, MemberError, AuthorityError);
