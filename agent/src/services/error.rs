//! What can go wrong with services.

use std::io;
use std::path::PathBuf;

/// A service cannot be brought to its new files, or a hook of its failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// More than the operator of this host permits. Nothing was changed.
    #[error(
        "{first}, which this host does not permit; if it should, put into [allow] of its agent.toml \
         (`rootcast agent noop` there shows it): {}", .lines.replace('\n', "; ")
    )]
    NotPermitted {
        /// The first such thing.
        first: String,
        /// The lines that would permit all of it, one below the other.
        lines: String,
    },
    /// Something could not be done to a file.
    #[error("could not {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that Rootcast did not make is where something is to be installed.
    #[error("{} is {found}, which rootcast did not make; look at it, and move it away", path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A place that a link leads out of what is permitted.
    #[error("{} leads out of what [allow] permits, by a link; permit where it leads, or remove the link", path.display())]
    LedAway {
        /// The place.
        path: PathBuf,
    },
    /// No such user or group.
    #[error("this host has no {what} `{name}`")]
    NoAccount {
        /// User or group.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Only root may act as somebody else.
    #[error("the agent does not run as root, and so cannot run a command as `{0}`")]
    NotRoot(String),
    /// A program could not be started.
    #[error("{program} could not be started: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A command ended with another code than 0.
    #[error("ended with code {0}")]
    Code(i32),
    /// A command was ended by a signal.
    #[error("was ended by signal {0}")]
    Signalled(i32),
    /// It took too long; what it started was ended.
    #[error("took longer than {} s", *.0 as f64 / 1000.0)]
    TimedOut(u64),
    /// It wrote too much, and was ended.
    #[error("wrote more than {0} bytes")]
    TooMuch(u64),
    /// A file that should hold the number of a process does not.
    #[error("{} holds no number of a running process; does the service run?", .0.display())]
    NoProcess(PathBuf),
    /// A file that should hold the number of a process can be written by others.
    #[error("{} can be written by others than its owner, so no signal is sent by it", .0.display())]
    OpenPidFile(PathBuf),
    /// Another answer than was wanted.
    #[error("answered {found}, where {wanted} is wanted")]
    Status {
        /// What came.
        found: String,
        /// What should.
        wanted: u16,
    },
    /// Nobody answered.
    #[error("{address}: {source}")]
    Unanswered {
        /// Who was asked.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// systemd is not on this host.
    #[error("there is no systemctl on this host, so the unit `{0}` cannot be acted on")]
    NoSystemd(String),
    /// It failed, and is not tried again, as a newer release waits (F-96).
    #[error("{0}; it is not tried again, as a newer release waits")]
    Superseded(Box<ServiceError>),
}
