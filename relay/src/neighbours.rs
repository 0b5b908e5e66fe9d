//! The relays around this one, in one channel: those above, as the parent tells of them,
//! and those below. From them come the alternates that children are told,
//! and what this relay says of how it stands (specs/topology.md, TP-10, TP-20).

use rootcast::limits::{BEHIND_SAID, CUT_OFF_SAID};
use rootcast::path::MemberName;
use rootcast::topology::{Alternate, Alternates, Child, Condition, Route};
use rootcast_replica::{Replica, Upstream};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// How this relay stands, as children hear it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Said {
    pub(crate) route: Route,
    pub(crate) behind: bool,
}

/// The relays around this one.
pub(crate) struct Neighbours {
    own: MemberName,
    /// The origin needs no way to itself.
    is_origin: bool,
    upstream: watch::Sender<Upstream>,
    /// Relays below, each with the session that told of it.
    below: Mutex<BTreeMap<MemberName, (u64, Alternate)>>,
    /// Told when `below` changes.
    changed: watch::Sender<()>,
    said: watch::Sender<Said>,
}

impl Neighbours {
    pub(crate) fn new(own: MemberName, is_origin: bool) -> Self {
        let route = if is_origin { Route::origin(own.clone()) } else { Route::default() };
        Self {
            own,
            is_origin,
            upstream: watch::Sender::default(),
            below: Mutex::default(),
            changed: watch::Sender::default(),
            said: watch::Sender::new(Said { route, behind: false }),
        }
    }

    /// Where what follows the parent tells of it.
    pub(crate) const fn upstream(&self) -> &watch::Sender<Upstream> {
        &self.upstream
    }
    /// Changes when the alternates may have.
    pub(crate) fn watch(&self) -> (watch::Receiver<Upstream>, watch::Receiver<()>) {
        (self.upstream.subscribe(), self.changed.subscribe())
    }
    /// Changes when children are to hear how we stand.
    pub(crate) fn watch_said(&self) -> watch::Receiver<Said> {
        self.said.subscribe()
    }

    fn route(&self) -> Route {
        if self.is_origin {
            return Route::origin(self.own.clone());
        }
        self.upstream.borrow().route.below(self.own.clone())
    }

    /// How we stand: good news at once, bad news when it was decided to be said.
    pub(crate) fn condition(&self, replica: &Replica) -> Condition {
        let latest = replica.held().map(|held| held.accepted());
        let Said { route: said, behind } = self.said.borrow().clone();
        let now = self.route();
        Condition { latest, route: if now.is_cut_off() { said } else { now }, behind }
    }

    /// The relays that a child may go to when it loses us.
    pub(crate) fn alternates(&self, child: &Child) -> Alternates {
        let above = self.upstream.borrow().clone();
        let below = self.below.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            above.parent.iter().chain(above.alternates.iter()).chain(below.values().map(|(_, told)| told));
        Alternates::ranked(child, known.filter(|told| told.name != self.own))
    }

    /// Notes a relay below, for as long as what is returned lives.
    pub(crate) fn enter(self: &Arc<Self>, relay: Alternate, session: u64) -> Entered {
        let name = relay.name.clone();
        self.below.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), (session, relay));
        self.changed.send_replace(());
        Entered { neighbours: self.clone(), name, session }
    }

    /// Decides when children hear that we are cut off or behind, and that we are no longer:
    /// bad news waits, for it may pass by itself.
    pub(crate) async fn speak(self: Arc<Self>, replica: Arc<Replica>) {
        let (mut upstream, mut held) = (self.upstream.subscribe(), replica.watch_held());
        let mut head = replica.watch_head();
        loop {
            upstream.mark_unchanged();
            held.mark_unchanged();
            head.mark_unchanged();
            let newest = replica.head().map(|head| head.head().release.rank());
            let now = Said {
                route: self.route(),
                behind: newest > replica.held().map(|held| held.accepted().rank()),
            };
            let before = self.said.borrow().clone();
            let is_lost = now.route.is_cut_off() && !before.route.is_cut_off();
            let falls_behind = now.behind && !before.behind;
            self.say(Said {
                route: if is_lost { before.route } else { now.route.clone() },
                behind: now.behind && before.behind,
            });
            let wait = match (is_lost, falls_behind) {
                (true, _) => Some(CUT_OFF_SAID),
                (false, true) => Some(BEHIND_SAID),
                (false, false) => None,
            };
            let bad = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = bad => self.say(Said { behind: if is_lost { before.behind } else { now.behind }, ..now }),
                changed = upstream.changed() => if changed.is_err() { return },
                changed = held.changed() => if changed.is_err() { return },
                changed = head.changed() => if changed.is_err() { return },
            }
        }
    }

    fn say(&self, said: Said) {
        self.said.send_if_modified(|before| {
            let changes = *before != said;
            *before = said;
            changes
        });
    }
}

/// A relay below that is there.
pub(crate) struct Entered {
    neighbours: Arc<Neighbours>,
    name: MemberName,
    session: u64,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut below = self.neighbours.below.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have come back by another connection meanwhile.
        if below.get(&self.name).is_some_and(|(session, _)| *session == self.session) {
            below.remove(&self.name);
            self.neighbours.changed.send_replace(());
        }
    }
}
