//! The relays above a host: which are followed, and who hears of it.

use crate::AgentConfig;
use crate::AgentEvent;
use crate::local::Relay;
use rootcast::limits::REPORT_GAP;
use rootcast::protocol::Interest;
use rootcast::status::{Condition, reason};
use rootcast::topology::{Address, Child, Patience};
use rootcast_replica::operations::{Vitals, changes};
use rootcast_replica::{Fallback, Follow, FollowEvent, Replica, Reporting, follow, known_addresses};
use rootcast_transport::https::HttpsDialer;
use rootcast_transport::{Endpoint, Identity, TransportError};
use std::sync::Arc;
use tokio::sync::watch;

/// Who hears what happens with the relays.
pub(crate) struct Heard {
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) refused: watch::Sender<Option<String>>,
    /// How the host stands with its relays, for local clients.
    pub(crate) relay: watch::Sender<Relay>,
    pub(crate) events: Arc<dyn Fn(AgentEvent) + Send + Sync>,
}

impl Heard {
    fn hear(&self, replica: &Replica, event: FollowEvent) {
        tracing::info!(?event, "relay");
        self.vitals.hear(replica.channel(), &event);
        let now = replica.machine().seconds();
        match &event {
            FollowEvent::Connected { address, .. } => {
                self.relay.send_replace(Relay { address: address.clone(), since: now });
            }
            FollowEvent::Lost { .. } => drop(self.relay.send_if_modified(|relay| {
                let was = !relay.address.is_empty();
                if was {
                    *relay = Relay { address: String::new(), since: now };
                }
                was
            })),
            _ => {}
        }
        match &event {
            FollowEvent::Failed { reason: why } => drop(self.refused.send_replace(Some(reason(why)))),
            // Another relay may not offer what was refused.
            FollowEvent::Held { .. } | FollowEvent::Connected { .. } => drop(self.refused.send_replace(None)),
            _ => {}
        }
        (self.events)(AgentEvent::Follow(event));
    }
}

/// The relays above this host.
pub(crate) struct Relays {
    pub(crate) endpoint: Endpoint,
    /// What is done where QUIC reaches none.
    pub(crate) fallback: Option<Fallback>,
    pub(crate) child: Child,
    /// Told which addresses can be asked.
    pub(crate) ways: watch::Sender<Vec<Address>>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) heard: Arc<Heard>,
}

impl Relays {
    /// Follows those that the settings say; others, when they say so.
    pub(crate) async fn follow(
        self,
        interest: watch::Receiver<Interest>,
        (said, changed): (watch::Receiver<Condition>, watch::Receiver<()>),
        mut settings: watch::Receiver<AgentConfig>,
    ) {
        let relays = |config: &AgentConfig| config.relays.clone();
        let mut now = relays(&settings.borrow_and_update());
        loop {
            let (said, telling, of) = (said.clone(), self.heard.clone(), self.replica.clone());
            let say = move || (said.borrow().clone(), None);
            let following = follow(Follow {
                endpoint: self.endpoint.clone(),
                child: self.child.clone(),
                parents: known_addresses(&now),
                patience: Patience::STANDARD,
                serves: None,
                upstream: None,
                ways: self.ways.clone(),
                replica: self.replica.clone(),
                interest: interest.clone(),
                report: Reporting { changed: changed.clone(), say: Arc::new(say), gap: REPORT_GAP },
                questions: None,
                fallback: self.fallback.clone(),
                events: Arc::new(move |event| telling.hear(&of, event)),
            });
            tokio::select! {
                biased;
                () = following => return,
                wanted = changes(&mut settings, &now, relays) => now = wanted,
            }
            tracing::info!(relays = ?now, "other relays are followed");
            self.ways.send_replace(known_addresses(&now));
            let reason = "the configuration names other relays".to_owned();
            self.heard.hear(&self.replica, FollowEvent::Lost { address: String::new(), reason });
        }
    }
}

/// What puts a renewed certificate to use.
pub(crate) fn adopting(
    endpoint: Endpoint,
    dialer: Option<HttpsDialer>,
) -> impl Fn(&Identity) -> Result<(), TransportError> + Clone {
    move |renewed| {
        endpoint.adopt(renewed)?;
        dialer.as_ref().map_or(Ok(()), |dialer| dialer.adopt(renewed))
    }
}
