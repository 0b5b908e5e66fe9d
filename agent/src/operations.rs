//! What operators see of an agent: its measurements, and whether it is ready.

use rootcast::exposition::{Exposition, Kind};
use rootcast::status::{Condition, HostState};
use rootcast_replica::Replica;
use rootcast_replica::operations::{Operated, Readiness, Vitals};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// An agent, to its operators.
pub(crate) struct Watched {
    vitals: Arc<Vitals>,
    replica: Arc<Replica>,
    said: watch::Receiver<Condition>,
    /// Since when a release is known of that is not live, as it was seen by who looked.
    behind: Mutex<Option<u64>>,
}

impl Watched {
    pub(crate) fn new(vitals: Arc<Vitals>, replica: Arc<Replica>, said: watch::Receiver<Condition>) -> Self {
        Self { vitals, replica, said, behind: Mutex::new(None) }
    }

    /// For how many seconds a newer release has been known of than is held: from the first look on.
    fn lag(&self) -> u64 {
        let now = self.replica.machine().seconds();
        let head = self.replica.head().map(|head| head.head().release.rank());
        let is_behind = head > self.replica.held().map(|held| held.accepted().rank());
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        *behind = is_behind.then(|| behind.unwrap_or(now));
        behind.map_or(0, |since| now.saturating_sub(since))
    }
}

impl Operated for Watched {
    fn measure(&self, page: &mut Exposition) {
        self.vitals.measure(page, "agent", |_| self.lag());
        let said = self.said.borrow().clone();
        let channel = self.replica.channel().as_str();
        let help = "The release that is live on this host; 0 for none.";
        page.family("rootcast_active_release_number", Kind::Gauge, help)
            .sample(&[("channel", channel)], said.release);
        page.family("rootcast_files", Kind::Gauge, "Files of what is live.")
            .sample(&[("channel", channel)], said.files);
        let mut family = page.family("rootcast_state", Kind::Gauge, "1 for the state that this host is in.");
        for state in [HostState::Active, HostState::Stale, HostState::Updating, HostState::Failed] {
            let is = u64::from(said.state == state);
            family.sample(&[("channel", channel), ("state", state.as_str())], is);
        }
    }

    fn readiness(&self) -> Readiness {
        let mut readiness = self.vitals.readiness();
        let said = self.said.borrow();
        if said.state == HostState::Failed {
            let why = said.reason.escape_debug();
            readiness.degraded.push(format!("the newest release is not live: {why}"));
        }
        readiness
    }
}
