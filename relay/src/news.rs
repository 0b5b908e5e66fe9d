//! What a child hears on its control stream: versions of trust, heads, and to a relay who is denied.

use crate::neighbours::{Neighbours, Said};
use bytes::Bytes;
use rootcast::head::VerifiedHead;
use rootcast::limits::ALTERNATES_GAP;
use rootcast::protocol::{News, Subscribe};
use rootcast::topology::{Alternates, Child, Condition, Route};
use rootcast_replica::{Replica, ReplicaError};
use rootcast_transport::Sender;
use tokio::sync::watch;
use tokio::time::Instant;

/// What a child has been told, or said that it knows.
pub(crate) struct Told {
    trust: u64,
    rank: (u64, u64),
    /// When the head was issued, and the version of trust at that time; `None`
    /// where the child's head is not ours.
    head: Option<(u64, u64)>,
    child: Child,
    /// The hash of the alternates that it was told: many children, so not the list.
    alternates: [u8; 32],
    /// How we stood: to a relay the way to the origin, to a host whether there is one.
    said: Said,
}

impl Told {
    pub(crate) fn new(
        subscribe: &Subscribe,
        trust: u64,
        condition: &Condition,
        alternates: &Alternates,
        child: Child,
    ) -> Self {
        // What the welcome said counts as told.
        Self {
            trust: trust.max(subscribe.trust),
            rank: subscribe.head,
            head: None,
            alternates: alternates.digest(),
            said: abridged(&child, condition),
            child,
        }
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
        neighbours: &Neighbours,
        mut denials: Option<watch::Receiver<Option<Bytes>>>,
        sender: &mut Sender,
    ) -> Result<(), ReplicaError> {
        let (mut trust, mut head) = (replica.trust().watch(), replica.watch_head());
        let (mut above, mut below) = neighbours.watch();
        let mut said = neighbours.watch_said();
        // Siblings come and go together: one list for all that happens in the gap.
        let mut alternates_due = None;
        // What changed between the welcome and now.
        below.mark_changed();
        if let Some(denials) = &mut denials {
            denials.mark_changed();
        }
        loop {
            trust.mark_unchanged();
            head.mark_unchanged();
            said.mark_unchanged();
            self.tell_condition(replica, neighbours, sender).await?;
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
            let due = async {
                match alternates_due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = above.changed() => {
                    changed.map_err(|_| ReplicaError::Stopped)?;
                    alternates_due.get_or_insert_with(|| Instant::now() + ALTERNATES_GAP);
                }
                changed = below.changed() => {
                    changed.map_err(|_| ReplicaError::Stopped)?;
                    alternates_due.get_or_insert_with(|| Instant::now() + ALTERNATES_GAP);
                }
                () = due => {
                    alternates_due = None;
                    Box::pin(self.tell_alternates(neighbours, sender)).await?;
                }
                changed = said.changed() => changed.map_err(|_| ReplicaError::Stopped)?,
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

impl Told {
    async fn tell_condition(
        &mut self,
        replica: &Replica,
        neighbours: &Neighbours,
        sender: &mut Sender,
    ) -> Result<(), ReplicaError> {
        let condition = neighbours.condition(replica);
        let brief = abridged(&self.child, &condition);
        if brief != self.said {
            sender.send_message(&News::Condition(condition)).await?;
            self.said = brief;
        }
        Ok(())
    }

    async fn tell_alternates(
        &mut self,
        neighbours: &Neighbours,
        sender: &mut Sender,
    ) -> Result<(), ReplicaError> {
        let alternates = neighbours.alternates(&self.child);
        let digest = alternates.digest();
        if digest != self.alternates {
            sender.send_message(&News::Alternates(alternates)).await?;
            self.alternates = digest;
        }
        Ok(())
    }
}

/// As much as a child acts upon: a host cares whether there is a way, not which.
fn abridged(child: &Child, condition: &Condition) -> Said {
    let route = match condition.route.names().first() {
        Some(origin) if !child.is_relay => Route::origin(origin.clone()),
        _ => condition.route.clone(),
    };
    Said { route, behind: condition.behind }
}

/// Waits for another document that says who is denied.
async fn denied(denials: &mut Option<watch::Receiver<Option<Bytes>>>) -> Result<Option<Bytes>, ReplicaError> {
    let Some(denials) = denials else { return std::future::pending().await };
    denials.changed().await.map_err(|_| ReplicaError::Stopped)?;
    Ok(denials.borrow_and_update().clone())
}
