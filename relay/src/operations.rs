//! What operators see of a relay: its measurements, and whether it is ready.

use crate::server::Shared;
use rootcast::exposition::{Exposition, Kind};
use rootcast::status::HostState;
use rootcast_replica::operations::{Operated, Readiness, Vitals};
use rootcast_transport::{Endpoint, PeerFault, Role};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of members by role, and what peers did wrong.
#[derive(Default)]
pub(crate) struct Peers {
    relays: AtomicU64,
    agents: AtomicU64,
    publishers: AtomicU64,
    /// By [`PeerFault::kind`], of which there are few.
    faults: Mutex<BTreeMap<&'static str, u64>>,
}

impl Peers {
    fn of(&self, role: Role) -> &AtomicU64 {
        match role {
            Role::Relay => &self.relays,
            Role::Agent => &self.agents,
            Role::Publisher => &self.publishers,
        }
    }

    /// Counts a connection until what is returned is dropped.
    pub(crate) fn connected(&self, role: Role) -> Connected<'_> {
        self.of(role).fetch_add(1, Ordering::Relaxed);
        Connected(self.of(role))
    }

    pub(crate) fn fault(&self, fault: &PeerFault) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        *faults.entry(fault.kind()).or_default() += 1;
    }
}

/// One connection in the count.
pub(crate) struct Connected<'a>(&'a AtomicU64);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A relay, to its operators.
pub(crate) struct Watched {
    pub(crate) shared: Arc<Shared>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) endpoint: Endpoint,
}

impl Operated for Watched {
    fn measure(&self, page: &mut Exposition) {
        let shared = &self.shared;
        shared.tell_own();
        let lag = |channel: &_| shared.statuses.channel(channel).map_or(0, |channel| channel.lag());
        self.vitals.measure(page, if shared.is_origin { "origin" } else { "relay" }, lag);
        self.measure_serving(page);
        let mut family = page.family("rootcast_children", Kind::Gauge, "Connections of members, by role.");
        for role in [Role::Relay, Role::Agent, Role::Publisher] {
            family.sample(&[("role", role.as_str())], shared.peers.of(role).load(Ordering::Relaxed));
        }
        let shakes = self.endpoint.handshakes();
        let help =
            "Handshakes by what became of the caller: let in, asked to prove its address, turned away.";
        page.family("rootcast_handshakes_total", Kind::Counter, help)
            .sample(&[("outcome", "admitted")], shakes.admitted)
            .sample(&[("outcome", "retried")], shakes.retried)
            .sample(&[("outcome", "refused")], shakes.refused);
        let help = "Requests for what a peer may not read, or what is not there.";
        page.family("rootcast_requests_refused_total", Kind::Counter, help)
            .sample(&[], shared.refused.load(Ordering::Relaxed));
        let help = "What peers did wrong, by kind.";
        let mut family = page.family("rootcast_peer_faults_total", Kind::Counter, help);
        for (kind, count) in shared.peers.faults.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            family.sample(&[("kind", kind)], *count);
        }
    }

    fn readiness(&self) -> Readiness {
        self.vitals.readiness()
    }
}

impl Watched {
    /// By channel: what is sent, and how the hosts of this relay are.
    fn measure_serving(&self, page: &mut Exposition) {
        let channels = || self.shared.statuses.all();
        let mut family =
            page.family("rootcast_update_sent_bytes_total", Kind::Counter, "Bytes of updates sent.");
        for channel in channels() {
            family.sample(&[("channel", channel.name.as_str())], channel.sent.load(Ordering::Relaxed));
        }
        let mut family = page.family("rootcast_pushes_total", Kind::Counter, "Updates pushed to children.");
        for channel in channels() {
            family.sample(&[("channel", channel.name.as_str())], channel.pushes.load(Ordering::Relaxed));
        }
        let help = "Hosts that follow this relay, or did in the last day, by state.";
        let mut family = page.family("rootcast_hosts", Kind::Gauge, help);
        for channel in channels() {
            let counts = channel.counts();
            for state in HostState::ALL {
                let hosts = counts.iter().filter(|count| count.state == state).map(|count| count.hosts).sum();
                family.sample(&[("channel", channel.name.as_str()), ("state", state.as_str())], hosts);
            }
        }
        let help = "Hosts that follow this relay and run an older release than it holds.";
        let mut family = page.family("rootcast_hosts_behind", Kind::Gauge, help);
        for channel in channels() {
            let newest = channel.release();
            let behind = channel
                .counts()
                .iter()
                .filter(|count| count.release < newest && count.state != HostState::Offline)
                .map(|count| count.hosts)
                .sum();
            family.sample(&[("channel", channel.name.as_str())], behind);
        }
    }
}
