//! Other tools, each doing the same step with its real program.
//!
//! Where a choice had to be made it was made in favour of the peer: no owners, times or attributes
//! where the tool can leave them out, short response headers, no file system flushes, and a client
//! that holds exactly the commit before. Bytes are those of the TCP streams, without the headers of
//! TCP and IP. Getting the files out of a client's own store (`git checkout`, `ostree checkout`,
//! `tar x`) is not part of any figure; rsync and casync have no such store and write the files.

mod casync;
mod counter;
mod git;
mod http;
mod ostree;
mod program;
mod rsync;
#[cfg(test)]
mod tests;
mod worktree;
mod zstd;

use crate::cost::Cost;
use std::path::{Path, PathBuf};

/// Commit ids are lower-case hex.
pub(crate) type CommitId = String;

/// What [`find`] knows.
#[cfg_attr(not(test), expect(dead_code, reason = "the command line has a list of its own"))]
pub(crate) const NAMES: &[&str] = &["git", "rsync", "casync", "ostree", "zstd"];

/// A tool that brings a client from one commit of a repository to another.
pub(crate) trait Peer {
    /// As shown in the table, for example `git (shallow, smart HTTP)`.
    fn name(&self) -> &'static str;

    /// Brings a client that holds `from` (nothing: an empty client) to `to`, and says what that took.
    /// The client is prepared here, at no cost to the figures. Steps come in the order of history.
    ///
    /// # Errors
    /// When the program fails; the message has its name, the command and the end of its standard error.
    fn step(&mut self, from: Option<&CommitId>, to: &CommitId) -> Result<Cost, PeerError>;

    /// Writes the files that the client holds to `into`, which does not exist yet: what a test compares.
    #[cfg(test)]
    fn held(&self, into: &Path) -> Result<(), PeerError>;
}

/// Why a peer could not do a step.
#[derive(Debug, thiserror::Error)]
#[error("{program}: {what}")]
pub(crate) struct PeerError {
    /// The program.
    pub(crate) program: &'static str,
    /// What happened.
    pub(crate) what: String,
}

impl PeerError {
    /// For `map_err` on what `program` (or the harness on its behalf) did at `path`.
    fn at(program: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self { program, what: format!("{}: {error}", path.display()) }
    }
}

/// A peer, or why it is skipped: the package that has the missing program.
pub(crate) enum Found {
    /// It is installed.
    Here(Box<dyn Peer>),
    /// It is not; `apt-get install` of this package brings it.
    Skipped {
        /// The peer's name.
        name: &'static str,
        /// Debian package with the program.
        package: &'static str,
    },
}

/// How a peer is made.
type Make = fn(Place) -> Box<dyn Peer>;

/// Where a peer reads history and where it may write.
#[derive(Clone)]
struct Place {
    /// The git repository.
    repository: PathBuf,
    /// The peer's own directory, the only one it writes to. It exists from the first step on.
    scratch: PathBuf,
}

/// One row of the table.
struct Row {
    /// The name it is asked for by.
    asked: &'static str,
    /// As shown.
    shown: &'static str,
    /// Name of its directory.
    directory: &'static str,
    /// Programs that it needs, each with its Debian package. All of them need git, to read history.
    needs: &'static [(&'static str, &'static str)],
    /// Makes it.
    make: Make,
}

const ROWS: &[Row] = &[
    Row {
        asked: "git",
        shown: git::NAME,
        directory: "git",
        needs: &[("git", "git")],
        make: |place| Box::new(git::Git::new(place)),
    },
    Row {
        asked: "rsync",
        shown: rsync::NAME,
        directory: "rsync",
        needs: &[("git", "git"), ("rsync", "rsync")],
        make: |place| Box::new(rsync::Rsync::new(place)),
    },
    Row {
        asked: "casync",
        shown: casync::NAME,
        directory: "casync",
        needs: &[("git", "git"), ("casync", "casync")],
        make: |place| Box::new(casync::Casync::new(place)),
    },
    Row {
        asked: "ostree",
        shown: ostree::PULL,
        directory: "ostree",
        needs: &[("git", "git"), ("ostree", "ostree")],
        make: |place| Box::new(ostree::Ostree::new(place, ostree::Transfer::Objects)),
    },
    Row {
        asked: "ostree",
        shown: ostree::DELTA,
        directory: "ostree-delta",
        needs: &[("git", "git"), ("ostree", "ostree")],
        make: |place| Box::new(ostree::Ostree::new(place, ostree::Transfer::Delta)),
    },
    Row {
        asked: "zstd",
        shown: zstd::NAME,
        directory: "zstd",
        needs: &[("git", "git"), ("tar", "tar"), ("zstd", "zstd")],
        make: |place| Box::new(zstd::Zstd::new(place)),
    },
];

/// The peers named (see [`NAMES`]), each over `repository`, working below `scratch`, in the order of
/// the names. `ostree` is two rows. A name that is none is ignored.
pub(crate) fn find(names: &[String], repository: &Path, scratch: &Path) -> Vec<Found> {
    let rows = names.iter().flat_map(|name| ROWS.iter().filter(move |row| row.asked == name));
    rows.map(|row| match row.needs.iter().find(|(program, _)| !program::is_installed(program)) {
        Some((_, package)) => Found::Skipped { name: row.shown, package },
        None => Found::Here((row.make)(Place {
            repository: absolute(repository),
            scratch: absolute(scratch).join(row.directory),
        })),
    })
    .collect()
}

/// What cannot be: a step starts its server first.
fn no_server(program: &'static str) -> PeerError {
    PeerError { program, what: "its server has not started".to_owned() }
}

/// Programs run in other directories than ours.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
