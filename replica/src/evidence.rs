//! Offers that break the acceptance rule, kept for a person to look at.

use rootcast::acceptance::Refusal;
use rootcast::id::ReleaseHash;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most documents kept; the first ones tell the most.
const MOST: usize = 16;

pub(crate) struct Evidence {
    directory: Option<PathBuf>,
    count: AtomicU64,
}

impl Evidence {
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, count: AtomicU64::new(0) }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Raises the alarm and keeps the signed document. Failing to keep it must
    /// not stop the replica: the alarm is in the log either way.
    pub(crate) fn keep(&self, refusal: &Refusal, hash: ReleaseHash, document: &[u8]) {
        self.count.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%refusal, release_hash = %hash, "ALARM: a signed release breaks the acceptance rule; the last good one stays");
        let Some(directory) = &self.directory else { return };
        let kept = std::fs::create_dir_all(directory).and_then(|()| {
            let full = std::fs::read_dir(directory)?.count() >= MOST;
            let path = directory.join(format!("{hash}.cose"));
            if full || path.exists() { Ok(()) } else { std::fs::write(path, document) }
        });
        if let Err(error) = kept {
            tracing::warn!(directory = %directory.display(), %error, "the evidence could not be kept");
        }
    }
}
