//! Heads: whether this replica knows that it is up to date.

use crate::{Replica, ReplicaError};
use bytes::Bytes;
use rootcast::acceptance::Floors;
use rootcast::head::{Freshness, VerifiedHead, judge_head};
use rootcast::limits::MAX_DOCUMENT;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// The file of a channel's state that holds its newest head.
pub(crate) const HEAD_FILE: &str = "head.cose";

impl Replica {
    /// Reads the head that was kept. One that is damaged or gone is none: the
    /// floors stay, and a parent sends it again.
    pub(crate) fn stored_head(&self) -> Option<Arc<VerifiedHead>> {
        let bytes = read(&self.directory.as_ref()?.join(HEAD_FILE))?;
        let head = self.trust.newest().head(&self.channel, &bytes).ok()?;
        (head.head().rank() >= self.store.floors().head()).then(|| Arc::new(head))
    }

    /// The newest head, as long as the trust in force lets its key sign; it may have lapsed.
    pub fn head(&self) -> Option<Arc<VerifiedHead>> {
        let head = self.head.borrow().clone()?;
        if head.trust_version() == self.trust.version() {
            return Some(head);
        }
        self.trust.newest().head(&self.channel, head.document()).ok().map(Arc::new)
    }

    /// Changes when there is a newer head.
    pub fn watch_head(&self) -> tokio::sync::watch::Receiver<Option<Arc<VerifiedHead>>> {
        self.head.subscribe()
    }

    /// Verifies a head, makes it durable, and takes it. Blocking. `false`: it was known.
    ///
    /// # Errors
    /// What was held stays; see [`ReplicaError`].
    pub fn accept_head(&self, document: &Bytes) -> Result<bool, ReplicaError> {
        let _turn = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        let offered = self.judging()?.head(&self.channel, document)?;
        let floors = self.store.floors();
        if !judge_head(&floors, self.head().as_deref(), &offered)? {
            return Ok(false);
        }
        let (head_epoch, head_sequence) = offered.head().rank();
        if let Some(directory) = &self.directory {
            // Not synced: one that is lost is sent, or signed, again. The floors are what lasts.
            let path = directory.join(HEAD_FILE);
            let draft = path.with_extension("new");
            std::fs::write(&draft, document)
                .and_then(|()| std::fs::rename(&draft, &path))
                .map_err(|source| ReplicaError::KeepTrust { path, source })?;
        }
        if floors.head() != (head_epoch, head_sequence) {
            let _write = self.writing();
            self.store.begin()?.commit(Floors { head_epoch, head_sequence, ..floors })?;
        }
        self.head.send_replace(Some(Arc::new(offered)));
        Ok(true)
    }

    /// The time to judge by: the clock's, and never before what a verified
    /// document of this platform was signed at, releases apart.
    pub fn now(&self) -> u64 {
        self.trust.now(self.head.borrow().as_ref().map(|head| head.head().issued))
    }

    /// How long the head is good for yet; `None` if it is not.
    pub fn lapses(&self) -> Option<Duration> {
        match self.freshness() {
            Freshness::Fresh { until } => Some(Duration::from_secs(until.saturating_sub(self.now()))),
            Freshness::Stale => None,
        }
    }

    /// Whether this replica knows that it is up to date.
    pub fn freshness(&self) -> Freshness {
        let head = self.head();
        Freshness::of(head.as_ref().map(|head| head.head()), self.trust.newest().trust().expires, self.now())
    }
}

fn read(path: &Path) -> Option<Bytes> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MAX_DOCUMENT).read_to_end(&mut bytes).ok()?;
    Some(bytes.into())
}
