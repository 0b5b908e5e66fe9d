//! What every relay but the origin does: it follows parents in each channel, says how it is and what is
//! below it, answers what they ask, and renews its certificate through them.

use crate::neighbours::Neighbours;
use crate::server::{Adopt, RelayEvent, Shared};
use crate::status::Channel;
use crate::wanted::Wanted;
use crate::{RelayConfig, questions};
use rootcast::topology::{Address, Child, Patience};
use rootcast_replica::operations::{Vitals, changes};
use rootcast_replica::renewal::{ask_parents, keep_renewed};
use rootcast_replica::{Follow, FollowEvent, Machine, Replica, follow, known_addresses};
use rootcast_transport::Endpoint;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How a relay reaches those above it, in all channels.
#[derive(Clone)]
pub(crate) struct Upward {
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) endpoint: Endpoint,
    /// Puts its renewed certificate to use.
    pub(crate) adopt: Adopt,
    /// They say who the parents are.
    pub(crate) settings: watch::Receiver<RelayConfig>,
    /// Who the relay is to a parent.
    pub(crate) child: Child,
    /// Where it can be dialled.
    pub(crate) serves: Option<Address>,
    /// Told which addresses can be asked.
    pub(crate) ways: watch::Sender<Vec<Address>>,
}

/// One channel of a relay that follows parents.
struct Followed {
    shared: Arc<Shared>,
    vitals: Arc<Vitals>,
    replica: Arc<Replica>,
    status: Arc<Channel>,
    wanted: Arc<Wanted>,
    neighbours: Arc<Neighbours>,
    upward: Upward,
}

/// Starts all of it.
pub(crate) fn keep_up(tasks: &mut JoinSet<()>, shared: &Arc<Shared>, vitals: &Arc<Vitals>, upward: &Upward) {
    let Upward { machine, endpoint, adopt, settings, ways, .. } = upward.clone();
    let (dialling, known, clock) = (endpoint, ways.subscribe(), machine.clone());
    let identity = settings.borrow().identity.clone();
    tasks.spawn(keep_renewed(
        machine,
        identity,
        move |renewed| adopt(renewed),
        move |own, request| {
            let (dialling, parents, now) = (dialling.clone(), known.borrow().clone(), clock.now());
            async move { ask_parents(&dialling, &parents, &own, now, request).await }
        },
    ));
    for (channel, wanted) in &shared.wanted {
        tasks.spawn(wanted.clone().keep_up());
        let (replica, neighbours) = (shared.replica(channel), shared.neighbours.get(channel));
        let status = shared.statuses.channel(channel);
        let (Some(replica), Some(neighbours), Some(status)) = (replica, neighbours, status) else { continue };
        tasks.spawn(neighbours.clone().speak(replica.clone()));
        let followed = Followed {
            shared: shared.clone(),
            vitals: vitals.clone(),
            replica: replica.clone(),
            status: status.clone(),
            wanted: wanted.clone(),
            neighbours: neighbours.clone(),
            upward: upward.clone(),
        };
        tasks.spawn(followed.follow());
    }
}

impl Followed {
    /// Follows the parents that the settings say; others, when they say so.
    async fn follow(self) {
        let mut settings = self.upward.settings.clone();
        let parents = |config: &RelayConfig| config.parents.clone();
        let mut now = parents(&settings.borrow_and_update());
        loop {
            let following = follow(self.of(known_addresses(&now)));
            tokio::select! {
                biased;
                () = following => return,
                wanted = changes(&mut settings, &now, parents) => now = wanted,
            }
            let channel = self.replica.channel();
            tracing::info!(%channel, parents = ?now, "other parents are followed");
            self.neighbours.upstream().send_modify(|above| (above.route, above.parent) = Default::default());
            self.upward.ways.send_replace(known_addresses(&now));
            let reason = "the configuration names other parents".to_owned();
            self.vitals.hear(channel, &FollowEvent::Lost { address: String::new(), reason });
        }
    }

    /// What it takes to follow them.
    fn of(&self, parents: Vec<Address>) -> Follow {
        let Upward { endpoint, child, serves, ways, .. } = self.upward.clone();
        let asked = self.shared.clone();
        Follow {
            endpoint,
            child,
            parents,
            patience: Patience::STANDARD,
            serves,
            upstream: Some(self.neighbours.upstream().clone()),
            ways,
            replica: self.replica.clone(),
            interest: self.wanted.watch(),
            report: self.status.reporting(),
            fallback: None,
            questions: Some(Arc::new(move |sender, receiver| {
                questions::hear(asked.clone(), sender, receiver)
            })),
            events: self.events(),
        }
    }

    fn events(&self) -> Arc<dyn Fn(FollowEvent) + Send + Sync> {
        let (shared, vitals) = (self.shared.clone(), self.vitals.clone());
        let (replica, status) = (self.replica.clone(), self.status.clone());
        Arc::new(move |event| {
            let channel = replica.channel();
            vitals.hear(channel, &event);
            match &event {
                FollowEvent::Denials { document } => shared.take_denials(document),
                FollowEvent::Failed { reason } => {
                    shared.note_refusal(channel, Some(reason));
                    shared.tell_of(&replica, &status);
                }
                // Another parent may not offer what was refused.
                FollowEvent::Held { .. } | FollowEvent::Connected { .. } => {
                    shared.note_refusal(channel, None);
                    shared.tell_of(&replica, &status);
                }
                _ => {}
            }
            tracing::info!(%channel, ?event, "parent");
            (shared.events)(RelayEvent::Follow { channel: channel.clone(), event });
        })
    }
}
