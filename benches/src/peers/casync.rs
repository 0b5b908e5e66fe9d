//! casync: an index of chunks over HTTP, with the old tree as seed.

use super::http::{Content, Counted};
use super::program::Call;
use super::worktree::{Worktree, clear};
use super::{CommitId, Peer, PeerError, Place};
use crate::cost::Cost;
use std::collections::BTreeMap;
use std::fs;
#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// As shown.
pub(super) const NAME: &str = "casync (64 KiB chunks, HTTP)";
/// The store of chunks.
const STORE: &str = "default.castr";
/// Content and what a configuration file needs of its inode; no owners, no times. (`--without=all`
/// would undo these, wherever it stands.)
const FEATURES: [&str; 2] = ["--with=permissions", "--with=symlinks"];

/// Index and chunks as static files, and a client that extracts the new index with the old tree as seed.
/// It asks for the index and then for each chunk that the seed lacks: round trips are requests. The server's
/// CPU time is that of `casync make` of the new commit and of the HTTP server.
pub(super) struct Casync {
    place: Place,
    /// The server's tree.
    tree: Worktree,
    /// The client's tree before the step.
    seed: Worktree,
    /// The client's tree after the step.
    client: PathBuf,
    server: Option<Counted>,
    /// CPU time that the index of each commit took.
    published: BTreeMap<CommitId, Option<Duration>>,
}

impl Casync {
    pub(super) fn new(place: Place) -> Self {
        Self {
            tree: Worktree::new(&place, "tree"),
            seed: Worktree::new(&place, "seed"),
            client: place.scratch.join("client"),
            place,
            server: None,
            published: BTreeMap::new(),
        }
    }

    fn serve(&self) -> Result<Counted, PeerError> {
        let files = self.place.scratch.join("served");
        fs::create_dir_all(&files).map_err(PeerError::at("casync", &files))?;
        Counted::start("casync", Content::Files(files))
    }

    /// Makes the index and the chunks of a commit, and says what CPU time that took.
    fn publish(&mut self, commit: &CommitId) -> Result<Option<Duration>, PeerError> {
        if let Some(cpu) = self.published.get(commit) {
            return Ok(*cpu);
        }
        self.tree.go(commit)?;
        let served = self.place.scratch.join("served");
        let make = Call::new("casync", &self.place.scratch).arg("make").args(FEATURES);
        let make = make.arg(format!("--store={}", served.join(STORE).display()));
        let cpu = make.arg(served.join(format!("{commit}.caidx"))).arg(self.tree.root()).timed()?.cpu;
        self.published.insert(commit.clone(), cpu);
        Ok(cpu)
    }
}

impl Peer for Casync {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step(&mut self, from: Option<&CommitId>, to: &CommitId) -> Result<Cost, PeerError> {
        if self.server.is_none() {
            self.server = Some(self.serve()?);
        }
        if let Some(from) = from {
            // What is new is what the server had not chunked before.
            self.publish(from)?;
            self.seed.go(from)?;
        }
        let publication = self.publish(to)?;
        clear(&self.client).map_err(PeerError::at("casync", &self.client))?;
        let Some(server) = &self.server else { return Err(super::no_server("casync")) };
        let mut client = Call::new("casync", &self.place.scratch).arg("extract");
        client = client.arg(format!("--store={}", server.url(STORE)));
        if from.is_some() {
            client = client.arg(format!("--seed={}", self.seed.root().display()));
        }
        client = client.arg(server.url(&format!("{to}.caidx"))).arg(&self.client);
        let (client, served) = server.serve(&client)?;
        Ok(Cost {
            down: served.traffic.down,
            up: served.traffic.up,
            round_trips: Some(served.requests),
            server_cpu: served.cpu.zip(publication).map(|(serving, making)| serving + making),
            client_cpu: client.cpu,
            wall: client.wall,
        })
    }

    #[cfg(test)]
    fn held(&self, into: &Path) -> Result<(), PeerError> {
        fs::rename(&self.client, into).map_err(PeerError::at("casync", into))
    }
}
