//! zstd: a patch from the tar of the old tree to that of the new one.

use super::program::{Call, Timed};
use super::worktree::Worktree;
use super::{CommitId, Peer, PeerError, Place};
use crate::cost::Cost;
use std::fs;
use std::path::{Path, PathBuf};

/// As shown.
pub(super) const NAME: &str = "zstd --patch-from -19 (tar)";
/// The same bytes for the same tree.
const CANONICAL: [&str; 7] =
    ["--format=gnu", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--create"];
/// Smallest and largest window, as powers of two.
const WINDOW: (u32, u32) = (27, 31);

/// One file for one pair of commits, which the client decodes with the whole old tar at hand. Nothing carries
/// it: no request, no signature. A client without a tree gets the tar compressed. The server's CPU time is
/// that of the compression, the client's and the wall time those of decoding.
pub(super) struct Zstd {
    place: Place,
    tree: Worktree,
}

impl Zstd {
    pub(super) fn new(place: Place) -> Self {
        Self { tree: Worktree::new(&place, "tree"), place }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.scratch.join(name)
    }

    /// Writes the tar of a commit.
    fn tar(&mut self, commit: &CommitId, name: &str) -> Result<PathBuf, PeerError> {
        self.tree.go(commit)?;
        let file = self.file(name);
        let tar = Call::new("tar", &self.place.scratch).args(CANONICAL).arg("--file").arg(&file);
        tar.arg("--directory").arg(self.tree.root()).arg(".").run()?;
        Ok(file)
    }

    fn zstd(
        &self,
        old: Option<&Path>,
        window: u32,
        mode: &[&str],
        from: &Path,
        into: &Path,
    ) -> Result<Timed, PeerError> {
        let mut call = Call::new("zstd", &self.place.scratch).args(["--quiet", "--force"]);
        call = call.args(mode).arg(format!("--long={window}"));
        if let Some(old) = old {
            call = call.arg(format!("--patch-from={}", old.display()));
        }
        call.arg(from).arg("-o").arg(into).timed()
    }
}

impl Peer for Zstd {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step(&mut self, from: Option<&CommitId>, to: &CommitId) -> Result<Cost, PeerError> {
        let scratch = &self.place.scratch;
        fs::create_dir_all(scratch).map_err(PeerError::at("zstd", scratch))?;
        let old = from.map(|from| self.tar(from, "old.tar")).transpose()?;
        let new = self.tar(to, "new.tar")?;
        let (patch, decoded) = (self.file("patch.zst"), self.file("decoded.tar"));
        let mut content = length(&new)?;
        if let Some(old) = &old {
            content += length(old)?;
        }
        let window = content.next_power_of_two().ilog2().clamp(WINDOW.0, WINDOW.1);
        // One thread: the result of several depends on how many.
        let coding = ["--ultra", "-19", "-T1"];
        let server = self.zstd(old.as_deref(), window, &coding, &new, &patch)?;
        let client = self.zstd(old.as_deref(), window, &["--decompress"], &patch, &decoded)?;
        Ok(Cost {
            down: length(&patch)?,
            up: 0,
            round_trips: None,
            server_cpu: server.cpu,
            client_cpu: client.cpu,
            wall: client.wall,
        })
    }

    #[cfg(test)]
    fn held(&self, into: &Path) -> Result<(), PeerError> {
        fs::create_dir(into).map_err(PeerError::at("zstd", into))?;
        let tar =
            Call::new("tar", &self.place.scratch).args(["--extract", "--file"]).arg(self.file("decoded.tar"));
        tar.arg("--directory").arg(into).run().map(|_| ())
    }
}

fn length(file: &Path) -> Result<u64, PeerError> {
    Ok(fs::metadata(file).map_err(PeerError::at("zstd", file))?.len())
}
