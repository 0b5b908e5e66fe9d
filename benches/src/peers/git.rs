//! Git: a shallow fetch over smart HTTP.

use super::http::{Content, Counted};
use super::program::Call;
use super::worktree::clear;
use super::{CommitId, Peer, PeerError, Place};
use crate::cost::Cost;
use std::fs;
#[cfg(test)]
use std::path::Path;

/// As shown.
pub(super) const NAME: &str = "git (shallow, smart HTTP)";
/// The server's repository.
const MIRROR: &str = "mirror.git";
/// The branch that clients follow: what they ask for is its newest commit, whose id they do not know.
const BRANCH: &str = "refs/heads/published";

/// A bare mirror of the repository as the server, and a client that holds one commit without its
/// history; it asks for the newest commit of a branch. A round trip is a request; each waits for the one before. The server's CPU time is that of
/// `git http-backend` with its descendants and of the HTTP server; the mirror has the commit already,
/// so publication takes none.
pub(super) struct Git {
    place: Place,
    server: Option<Counted>,
    client: std::path::PathBuf,
}

impl Git {
    pub(super) fn new(place: Place) -> Self {
        let client = place.scratch.join("client");
        Self { place, server: None, client }
    }

    /// Makes the mirror and serves it.
    fn publish(&self) -> Result<Counted, PeerError> {
        let scratch = &self.place.scratch;
        clear(scratch).and_then(|()| fs::create_dir_all(scratch)).map_err(PeerError::at("git", scratch))?;
        let mirror = scratch.join(MIRROR);
        let clone = Call::git(scratch).args(["clone", "--quiet", "--mirror", "--template="]);
        clone.arg(&self.place.repository).arg(&mirror).run()?;
        // Any commit may be asked for by its id. One thread: the pack that several make depends on chance.
        for setting in [["uploadpack.allowAnySHA1InWant", "true"], ["pack.threads", "1"]] {
            Call::git(scratch).arg("-C").arg(&mirror).arg("config").args(setting).run()?;
        }
        Counted::start("git", Content::Git(scratch.clone()))
    }

    fn client(&self) -> Call {
        Call::git(&self.place.scratch).arg("-C").arg(&self.client)
    }

    /// A client that has never held anything but `from`, past commits left neither objects nor refs.
    fn prepare(&self, from: Option<&CommitId>) -> Result<(), PeerError> {
        clear(&self.client).map_err(PeerError::at("git", &self.client))?;
        let init = Call::git(&self.place.scratch).args(["init", "--quiet", "--template="]);
        init.arg(&self.client).run()?;
        let Some(from) = from else { return Ok(()) };
        let mirror = format!("file://{}", self.place.scratch.join(MIRROR).display());
        self.client().args(["fetch", "--quiet", "--no-tags", "--depth=1", &mirror, from]).run()?;
        self.client().args(["update-ref", "refs/heads/held", from]).run().map(|_| ())
    }
}

impl Peer for Git {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step(&mut self, from: Option<&CommitId>, to: &CommitId) -> Result<Cost, PeerError> {
        if self.server.is_none() {
            self.server = Some(self.publish()?);
        }
        self.prepare(from)?;
        let mirror = self.place.scratch.join(MIRROR);
        Call::git(&self.place.scratch).arg("-C").arg(&mirror).args(["update-ref", BRANCH, to]).run()?;
        let Some(server) = &self.server else { return Err(super::no_server("git")) };
        let url = server.url(MIRROR);
        let (client, served) = server.serve(&self.client().args([
            "fetch",
            "--quiet",
            "--no-tags",
            "--depth=1",
            &url,
            BRANCH,
        ]))?;
        self.client().args(["update-ref", "refs/heads/held", to]).run()?;
        Ok(Cost {
            down: served.traffic.down,
            up: served.traffic.up,
            round_trips: Some(served.requests),
            server_cpu: served.cpu,
            client_cpu: client.cpu,
            wall: client.wall,
        })
    }

    #[cfg(test)]
    fn held(&self, into: &Path) -> Result<(), PeerError> {
        let tree = Call::git(&self.place.scratch).arg("-C").arg(&self.client);
        fs::create_dir(into).map_err(PeerError::at("git", into))?;
        tree.arg("--work-tree").arg(into).args(["checkout", "--quiet", "held", "--", "."]).run().map(|_| ())
    }
}
