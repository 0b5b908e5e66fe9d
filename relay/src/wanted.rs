//! What a relay holds of a channel: what its children want, for a while what
//! those wanted that left, and what its settings keep (specs/wire.md, W-50 to W-53).

use rootcast::id::NodeId;
use rootcast::limits::INTEREST_GAP;
use rootcast::path::BundleName;
use rootcast::protocol::Interest;
use rootcast::reader::Reader;
use rootcast::subscriptions::{Keep, Subscriptions};
use rootcast_replica::{Replica, ReplicaError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// What is wanted of one channel. The origin has none of this: it holds all.
pub(crate) struct Wanted {
    replica: Arc<Replica>,
    keep: Vec<Keep>,
    known: Mutex<Subscriptions>,
    grown: Notify,
    interest: watch::Sender<Interest>,
    begun: Instant,
}

impl Wanted {
    /// `kept`: how long a bundle is wanted after the last child that wanted it.
    pub(crate) fn new(replica: Arc<Replica>, keep: Vec<Keep>, kept: Duration) -> Self {
        let held = replica.held();
        let leaves = held.iter().flat_map(|held| held.bundles.leaves().values());
        let mut known = Subscriptions::new(leaves.map(|leaf| leaf.name.clone()), kept, Duration::ZERO);
        known.set_own(Keep::interest(&keep, replica.newest_plan().as_deref()), Duration::ZERO);
        let interest = watch::Sender::new(known.interest());
        Self {
            replica,
            keep,
            known: Mutex::new(known),
            grown: Notify::new(),
            interest,
            begun: Instant::now(),
        }
    }

    /// What this relay asks its parents for.
    pub(crate) fn watch(&self) -> watch::Receiver<Interest> {
        self.interest.subscribe()
    }

    fn known(&self) -> MutexGuard<'_, Subscriptions> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is asked for in line with what is wanted. What is wanted anew is
    /// asked for at once, and what is not wanted any more is let go when its time is over.
    pub(crate) async fn keep_up(self: Arc<Self>) {
        let mut held = self.replica.watch_held();
        let mut plan = None;
        loop {
            held.mark_unchanged();
            let root = self.replica.plan_root();
            let own = (root != plan).then(|| self.replica.newest_plan());
            plan = root;
            let over = self.review(own.map(|plan| Keep::interest(&self.keep, plan.as_deref())));
            if over && let Err(error) = self.let_go().await {
                tracing::warn!(channel = %self.replica.channel(), %error, "bundles that nobody wants could not be let go; they are kept");
            }
            // Children that come together are asked for together.
            tokio::time::sleep(INTEREST_GAP).await;
            let next = self.known().next_expiry();
            let expiry = async {
                match next {
                    Some(next) => tokio::time::sleep(next.saturating_sub(self.begun.elapsed())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(expiry);
            loop {
                tokio::select! {
                    biased;
                    () = self.grown.notified() => break,
                    () = &mut expiry => break,
                    changed = held.changed() => match changed {
                        Ok(()) if self.replica.plan_root() == plan => {}
                        Ok(()) => break,
                        Err(_) => return,
                    }
                }
            }
        }
    }

    /// Says what is wanted now. Whether something is not wanted any more.
    fn review(&self, own: Option<Interest>) -> bool {
        let mut known = self.known();
        let now = self.begun.elapsed();
        if let Some(own) = own {
            known.set_own(own, now);
        }
        let over = known.expire(now);
        let interest = known.interest();
        drop(known);
        self.interest.send_if_modified(|asked| {
            let changes = *asked != interest;
            *asked = interest;
            changes
        });
        over
    }

    async fn let_go(&self) -> Result<(), ReplicaError> {
        let (replica, interest) = (self.replica.clone(), self.interest.borrow().clone());
        let machine = replica.machine().clone();
        if machine.blocking(move || replica.narrow(&interest)).await?? {
            tracing::info!(channel = %self.replica.channel(), "let go of bundles that nobody wants any more");
        }
        Ok(())
    }

    /// Notes that a reader has asked for a bundle without subscribing to it, as over HTTPS:
    /// it is wanted as if a child that subscribed to it had just left.
    pub(crate) fn ask(self: &Arc<Self>, reader: &Reader, bundle: &BundleName) {
        drop(Wish::new(self, reader, &Interest::Named(vec![bundle.clone()])));
    }
}

/// What one child wants, for as long as it subscribes.
pub(crate) struct Wish {
    wanted: Arc<Wanted>,
    reader: Reader,
    asked: Interest,
    /// The plan by which it was last judged what it may have, as [`Replica::plan_root`] tells it.
    plan: Option<Option<NodeId>>,
    entered: Interest,
}

impl Wish {
    pub(crate) fn new(wanted: &Arc<Wanted>, reader: &Reader, asked: &Interest) -> Self {
        let (reader, asked) = (reader.clone(), asked.clone());
        let nothing = Interest::Named(Vec::new());
        let mut wish = Self { wanted: wanted.clone(), reader, asked, plan: None, entered: nothing };
        wish.enter();
        wish
    }

    /// Judges anew what the child may have, where another plan has come.
    pub(crate) fn renew(&mut self) {
        if self.plan.is_none() || self.plan != self.wanted.replica.plan_root() {
            self.enter();
        }
    }

    fn enter(&mut self) {
        let (plan, allowed) = self.wanted.replica.allowed(&self.reader, &self.asked);
        self.plan = plan;
        if allowed == self.entered {
            return;
        }
        let mut known = self.wanted.known();
        let grows = known.enter(&allowed);
        known.leave(&self.entered, self.wanted.begun.elapsed());
        drop(known);
        self.entered = allowed;
        if grows {
            self.wanted.grown.notify_one();
        }
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.wanted.known().leave(&self.entered, self.wanted.begun.elapsed());
        // What there is to forget has a time from now on.
        self.wanted.grown.notify_one();
    }
}
