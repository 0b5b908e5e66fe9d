//! Who may not be here, though its certificate is good.

use rootcast::denials::{Denied, VerifiedDenials};
use rootcast_transport::PeerName;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;

/// The members that are denied now. Each served connection watches it.
pub(crate) struct DeniedSet {
    set: watch::Sender<Arc<BTreeSet<Denied>>>,
}

impl Default for DeniedSet {
    fn default() -> Self {
        Self { set: watch::Sender::new(Arc::default()) }
    }
}

impl DeniedSet {
    /// Takes the place of what was denied; connections of those that are new to it are closed.
    pub(crate) fn replace(&self, denied: BTreeSet<Denied>) {
        self.set.send_if_modified(|set| {
            let changes = **set != denied;
            if changes {
                *set = Arc::new(denied);
            }
            changes
        });
    }

    /// As [`DeniedSet::replace`], by a document from the origin.
    pub(crate) fn take(&self, denials: &VerifiedDenials) {
        self.replace(denials.denials().denied.iter().cloned().collect());
    }

    /// Whether this peer is denied now.
    pub(crate) fn is_denied(&self, peer: &PeerName) -> bool {
        self.set.borrow().contains(&Denied { role: peer.role(), name: peer.member().clone() })
    }

    /// Waits until this peer is denied; at once, if it is.
    pub(crate) async fn until_denied(&self, peer: &PeerName) {
        let wanted = Denied { role: peer.role(), name: peer.member().clone() };
        let mut set = self.set.subscribe();
        // The sender lives as long as we do.
        let _ = set.wait_for(|set| set.contains(&wanted)).await;
    }
}
