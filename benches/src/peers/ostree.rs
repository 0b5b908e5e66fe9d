//! ostree: a pull of objects over HTTP, and a static delta.

use super::http::{Content, Counted};
use super::program::Call;
use super::worktree::{Worktree, clear};
use super::{CommitId, Peer, PeerError, Place};
use crate::cost::Cost;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// As shown, for [`Transfer::Objects`].
pub(super) const PULL: &str = "ostree pull (archive, HTTP)";
/// As shown, for [`Transfer::Delta`].
pub(super) const DELTA: &str = "ostree static delta (one file)";
/// The same commit, whoever commits when.
const CANONICAL: [&str; 6] = [
    "--orphan",
    "--no-xattrs",
    "--owner-uid=0",
    "--owner-gid=0",
    "--canonical-permissions",
    "--timestamp=@1000000000",
];

/// What the client is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    /// Objects, each a file.
    Objects,
    /// A delta from the commit that the client holds, or from nothing: one file.
    Delta,
}

/// An archive repository, without signatures, and a client (bare, user only) that holds exactly one commit.
///
/// Objects: they are static files, and the client pulls the new commit by its id. Round trips are requests;
/// several are under way at once where a client wants many objects, so it waits less often than that.
///
/// Delta: one file, applied offline, and nothing that carries it. `ostree pull` takes deltas too, but looks
/// for the new objects while it still unpacks them and so fetches a part of them twice (four fifths of
/// a cold client's, over loopback); how many is a race, so that would be neither a fair figure nor a stable one.
///
/// The server's CPU time is that of the commit, of the delta, and of the HTTP server.
pub(super) struct Ostree {
    place: Place,
    transfer: Transfer,
    tree: Worktree,
    client: PathBuf,
    server: Option<Counted>,
    /// ostree's id of each commit, and the CPU time that committing it took.
    published: BTreeMap<CommitId, (String, Option<Duration>)>,
}

impl Ostree {
    pub(super) fn new(place: Place, transfer: Transfer) -> Self {
        Self {
            tree: Worktree::new(&place, "tree"),
            client: place.scratch.join("client"),
            place,
            transfer,
            server: None,
            published: BTreeMap::new(),
        }
    }

    fn origin(&self) -> PathBuf {
        self.place.scratch.join("served")
    }

    fn on(&self, repository: &Path) -> Call {
        Call::new("ostree", &self.place.scratch).arg(format!("--repo={}", repository.display()))
    }

    /// A repository that does not wait for the disk.
    fn init(&self, repository: &Path, mode: &str) -> Result<(), PeerError> {
        self.on(repository).args(["init", "--mode", mode]).run()?;
        self.on(repository).args(["config", "set", "core.fsync", "false"]).run().map(|_| ())
    }

    fn serve(&self) -> Result<Counted, PeerError> {
        let origin = self.origin();
        fs::create_dir_all(&origin).map_err(PeerError::at("ostree", &origin))?;
        self.init(&origin, "archive")?;
        Counted::start("ostree", Content::Files(origin))
    }

    /// Commits a tree, once; returns its id and the CPU time that took.
    fn publish(&mut self, commit: &CommitId) -> Result<(String, Option<Duration>), PeerError> {
        if let Some(published) = self.published.get(commit) {
            return Ok(published.clone());
        }
        self.tree.go(commit)?;
        let files = format!("--tree=dir={}", self.tree.root().display());
        // The id is told on standard output, so it goes through a file under the clock.
        let told = self.place.scratch.join("commit");
        let call = self.on(&self.origin()).arg("commit").args(CANONICAL).args(["--subject", commit, &files]);
        let timed = call.output(&told).timed()?;
        let id = fs::read_to_string(&told).map_err(PeerError::at("ostree", &told))?;
        let published = (id.trim().to_owned(), timed.cpu);
        self.published.insert(commit.clone(), published.clone());
        Ok(published)
    }

    /// Makes the delta, and says what CPU time that took.
    fn delta(&self, from: Option<&str>, to: &str, into: &Path) -> Result<Option<Duration>, PeerError> {
        let from = from.map_or_else(|| "--empty".to_owned(), |from| format!("--from={from}"));
        let call = self.on(&self.origin()).args(["static-delta", "generate", "--inline", &from]);
        let call = call.arg(format!("--to={to}")).arg(format!("--filename={}", into.display()));
        Ok(call.timed()?.cpu)
    }

    /// Makes the client hold `from` and nothing else.
    fn prepare(&self, from: Option<&str>, url: &str) -> Result<(), PeerError> {
        let new = from.is_none() || !self.client.exists();
        if new {
            clear(&self.client).map_err(PeerError::at("ostree", &self.client))?;
            self.init(&self.client, "bare-user-only")?;
            let unsigned = ["--no-gpg-verify", "--set=gpg-verify-summary=false", "origin", url];
            self.on(&self.client).args(["remote", "add"]).args(unsigned).run()?;
        }
        let Some(from) = from else { return Ok(()) };
        let pull = self.on(&self.client).args(["pull-local"]);
        pull.arg(self.origin()).arg(from).run()?;
        self.hold(from)?;
        self.on(&self.client).args(["prune", "--refs-only"]).run().map(|_| ())
    }

    /// Names what the client holds, so that pruning leaves it.
    fn hold(&self, id: &str) -> Result<(), PeerError> {
        self.on(&self.client).args(["refs", "--force", "--create=held", id]).run().map(|_| ())
    }

    /// Pulls over HTTP.
    fn pull(&self, to: &str) -> Result<Cost, PeerError> {
        let Some(server) = &self.server else { return Err(super::no_server("ostree")) };
        let pull = self.on(&self.client).args(["pull", "--disable-static-deltas"]);
        let (client, served) = server.serve(&pull.args(["origin", to]))?;
        Ok(Cost {
            down: served.traffic.down,
            up: served.traffic.up,
            round_trips: Some(served.requests),
            server_cpu: served.cpu,
            client_cpu: client.cpu,
            wall: client.wall,
        })
    }

    /// Takes a delta that has arrived.
    fn apply(&self, delta: &Path) -> Result<Cost, PeerError> {
        let down = fs::metadata(delta).map_err(PeerError::at("ostree", delta))?.len();
        let client = self.on(&self.client).args(["static-delta", "apply-offline"]).arg(delta).timed()?;
        Ok(Cost {
            down,
            client_cpu: client.cpu,
            wall: client.wall,
            server_cpu: Some(Duration::ZERO),
            ..Cost::default()
        })
    }
}

impl Peer for Ostree {
    fn name(&self) -> &'static str {
        match self.transfer {
            Transfer::Objects => PULL,
            Transfer::Delta => DELTA,
        }
    }

    fn step(&mut self, from: Option<&CommitId>, to: &CommitId) -> Result<Cost, PeerError> {
        if self.server.is_none() {
            self.server = Some(self.serve()?);
        }
        let from = from.map(|from| self.publish(from)).transpose()?.map(|(id, _)| id);
        let (to, mut publication) = self.publish(to)?;
        let url = self.server.as_ref().map(|server| server.url("")).unwrap_or_default();
        self.prepare(from.as_deref(), url.trim_end_matches('/'))?;
        let done = match self.transfer {
            Transfer::Objects => self.pull(&to),
            Transfer::Delta => {
                let delta = self.place.scratch.join("delta");
                publication = together(publication, self.delta(from.as_deref(), &to, &delta)?);
                self.apply(&delta)
            }
        };
        // One that is half-way somewhere holds more than it should.
        let cost = done.inspect_err(|_| {
            let _ = clear(&self.client);
        })?;
        self.hold(&to)?;
        Ok(Cost { server_cpu: together(publication, cost.server_cpu), ..cost })
    }

    #[cfg(test)]
    fn held(&self, into: &Path) -> Result<(), PeerError> {
        self.on(&self.client).args(["checkout", "--user-mode", "held"]).arg(into).run().map(|_| ())
    }
}

fn together(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.zip(other).map(|(one, other)| one + other)
}
