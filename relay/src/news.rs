//! What a child hears on its control stream: versions of trust, heads, and to a relay who is denied.

use bytes::Bytes;
use rootcast::head::VerifiedHead;
use rootcast::protocol::{News, Subscribe};
use rootcast_replica::{Replica, ReplicaError};
use rootcast_transport::Sender;
use tokio::sync::watch;

/// What a child has been told, or said that it knows.
pub(crate) struct Told {
    trust: u64,
    rank: (u64, u64),
    /// When the head was issued, and the version of trust at that time; `None`
    /// where the child's head is not ours.
    head: Option<(u64, u64)>,
}

impl Told {
    pub(crate) fn new(subscribe: &Subscribe, trust: u64) -> Self {
        // What the welcome said counts as told.
        Self { trust: trust.max(subscribe.trust), rank: subscribe.head, head: None }
    }

    /// Whether a head is worth sending: heads travel a few times in their validity, not with each release.
    fn lacks(&self, head: &VerifiedHead, trust: u64) -> bool {
        let (epoch, _) = self.rank;
        let newer = head.head().rank() > self.rank;
        match self.head {
            Some((issued, at)) => {
                newer && (at != trust || epoch != head.head().epoch || head.head().replaces(issued))
            }
            None => newer,
        }
    }

    /// Tells a child what is new, for as long as it is subscribed.
    pub(crate) async fn tell(
        mut self,
        replica: &Replica,
        mut denials: Option<watch::Receiver<Option<Bytes>>>,
        sender: &mut Sender,
    ) -> Result<(), ReplicaError> {
        let (mut trust, mut head) = (replica.trust().watch(), replica.watch_head());
        if let Some(denials) = &mut denials {
            denials.mark_changed();
        }
        loop {
            trust.mark_unchanged();
            head.mark_unchanged();
            let version = replica.trust().version();
            if version > self.trust {
                sender.send_message(&News::Trust(version)).await?;
                self.trust = version;
            }
            if let Some(newest) = replica.head() {
                let (rank, issued) = (newest.head().rank(), newest.head().issued);
                if self.lacks(&newest, version) {
                    sender.send_message(&News::Head(newest.document().clone())).await?;
                    (self.rank, self.head) = (rank, Some((issued, version)));
                } else if rank == self.rank {
                    self.head.get_or_insert((issued, version));
                }
            }
            tokio::select! {
                biased;
                changed = trust.changed() => changed.map_err(|_| ReplicaError::Stopped)?,
                changed = head.changed() => changed.map_err(|_| ReplicaError::Stopped)?,
                document = denied(&mut denials) => {
                    if let Some(document) = document? {
                        sender.send_message(&News::Denials(document)).await?;
                    }
                }
            }
        }
    }
}

/// Waits for another document that says who is denied.
async fn denied(denials: &mut Option<watch::Receiver<Option<Bytes>>>) -> Result<Option<Bytes>, ReplicaError> {
    let Some(denials) = denials else { return std::future::pending().await };
    denials.changed().await.map_err(|_| ReplicaError::Stopped)?;
    Ok(denials.borrow_and_update().clone())
}
