//! Whether a newer release waits while one is being made live.

use rootcast_replica::{Held, Replica};
use std::sync::Arc;
use tokio::sync::watch;

/// A newer release than one.
#[derive(Clone)]
pub(crate) struct Newer {
    held: watch::Receiver<Option<Arc<Held>>>,
    /// Epoch and number of the newest when the activation began.
    than: (u64, u64),
}

impl Newer {
    pub(crate) fn new(replica: &Replica, than: (u64, u64)) -> Self {
        Self { held: replica.watch_held(), than }
    }

    /// Completes when one is held.
    pub(crate) async fn waits(&self) {
        let is_newer =
            |held: &Option<Arc<Held>>| held.as_ref().is_some_and(|held| held.accepted().rank() > self.than);
        if self.held.clone().wait_for(is_newer).await.is_err() {
            // The replica is gone, and with it whoever could bring one.
            std::future::pending().await
        }
    }
}
