//! What a relay knows of the hosts below it, in each of its channels (specs/status.md).

use rootcast::limits::FOLD_GAP;
use rootcast::path::ChannelName;
use rootcast::rollup::{Certified, Child, Rollup};
use rootcast::status::{
    Below, ChannelStatus, Condition, Count, HostsAnswer, HostsQuery, Move, RelayRow, Remembered, Report,
    Serving,
};
use rootcast_replica::{Machine, Reporting};
use rootcast_transport::Connection;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// All channels of a relay.
pub(crate) struct Statuses {
    channels: BTreeMap<ChannelName, Arc<Channel>>,
}

/// One channel's children, and how the relay itself is doing in it.
pub(crate) struct Channel {
    pub(crate) name: ChannelName,
    relay: String,
    machine: Arc<dyn Machine>,
    known: Mutex<Known>,
    changed: watch::Sender<()>,
    /// Bytes of updates sent to children.
    pub(crate) sent: AtomicU64,
    /// Updates pushed to children.
    pub(crate) pushes: AtomicU64,
}

struct Known {
    rollup: Rollup,
    own: Condition,
    /// Since when a release is known of that is not held.
    behind: Option<u64>,
    /// Connections to child relays, by name, with the session they belong to.
    relays: BTreeMap<String, (u64, Connection)>,
    /// Whether children changed since they were last kept on disk.
    unsaved: bool,
}

/// A child's subscription to one channel.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) child: Child,
    pub(crate) number: u64,
}

impl Statuses {
    pub(crate) fn new(
        machine: &Arc<dyn Machine>,
        relay: &str,
        channels: impl Iterator<Item = ChannelName>,
    ) -> Self {
        let channel = |name: ChannelName| {
            let known = Known {
                rollup: Rollup::new(relay),
                own: Condition::none(machine.seconds()),
                behind: None,
                relays: BTreeMap::new(),
                unsaved: false,
            };
            let channel = Channel {
                name: name.clone(),
                relay: relay.to_owned(),
                machine: machine.clone(),
                known: Mutex::new(known),
                changed: watch::Sender::new(()),
                sent: AtomicU64::new(0),
                pushes: AtomicU64::new(0),
            };
            (name, Arc::new(channel))
        };
        Self { channels: channels.map(channel).collect() }
    }

    pub(crate) fn channel(&self, name: &ChannelName) -> Option<&Arc<Channel>> {
        self.channels.get(name)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Channel>> {
        self.channels.values()
    }

    /// All children, for the next start; `None` where nothing changed since they were last taken.
    pub(crate) fn remembered(&self, in_any_case: bool) -> Option<Vec<Remembered>> {
        let mut unsaved = false;
        let mut all = Vec::new();
        for channel in self.channels.values() {
            let mut known = channel.lock();
            unsaved |= std::mem::take(&mut known.unsaved);
            all.extend(known.rollup.remembered(&channel.name, channel.machine.seconds()));
        }
        (unsaved || in_any_case).then_some(all)
    }

    pub(crate) fn restore(&self, children: Vec<Remembered>) {
        for kept in children {
            if let Some(channel) = self.channels.get(&kept.channel) {
                channel.lock().rollup.restore(kept, channel.machine.seconds());
            }
        }
    }

    pub(crate) fn expire(&self) {
        self.channels
            .values()
            .for_each(|channel| channel.change(|known| known.rollup.expire(channel.machine.seconds())));
    }
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and says so to the relay above if there is something to say.
    fn change(&self, change: impl FnOnce(&mut Known) -> bool) {
        let changed = {
            let mut known = self.lock();
            let changed = change(&mut known);
            known.unsaved |= changed;
            changed
        };
        if changed {
            self.changed.send_replace(());
        }
    }

    /// How the relay itself is doing, and whether it knows of a newer release than it holds.
    pub(crate) fn set_own(&self, mut own: Condition, is_behind: bool) {
        self.change(|known| {
            let same = (known.own.release, known.own.state) == (own.release, own.state);
            own.since = if same { known.own.since } else { self.machine.seconds() };
            let behind = is_behind.then(|| known.behind.unwrap_or_else(|| self.machine.seconds()));
            let changed = (&known.own, known.behind) != (&own, behind);
            (known.own, known.behind) = (own, behind);
            changed
        });
    }

    /// Takes a child's report. Gives what child relays are to be told.
    pub(crate) fn report(
        &self,
        session: &Session,
        certified: Certified,
        report: Report,
    ) -> Vec<(Connection, Move)> {
        let mut tell = Vec::new();
        self.change(|known| {
            let outcome = known.rollup.report(&session.child, certified, session.number, report);
            let to = outcome.tell.into_iter();
            tell.extend(to.filter_map(|(name, moved)| Some((known.relays.get(&name)?.1.clone(), moved))));
            outcome.changed
        });
        tell
    }

    /// A child's session begins. A relay can be asked over its connection.
    pub(crate) fn connected(&self, session: &Session, connection: &Connection) {
        let mut known = self.lock();
        known.rollup.begins(&session.child, session.number);
        if session.child.relay {
            known.relays.insert(session.child.name.clone(), (session.number, connection.clone()));
        }
    }

    /// A child's session ended.
    pub(crate) fn lost(&self, session: &Session) {
        self.change(|known| {
            let name = &session.child.name;
            if session.child.relay && known.relays.get(name).is_some_and(|(of, _)| *of == session.number) {
                known.relays.remove(name);
            }
            known.rollup.lost(&session.child, session.number, self.machine.seconds())
        });
    }

    /// Hosts of ours that are elsewhere now. Gives what child relays are to be told.
    pub(crate) fn moved(&self, moves: Vec<Move>) -> Vec<(Connection, Move)> {
        let mut tell = Vec::new();
        self.change(|known| {
            for moved in moves {
                if let Some((name, moved)) = known.rollup.moved(moved) {
                    tell.extend(known.relays.get(&name).map(|(_, connection)| (connection.clone(), moved)));
                }
            }
            true
        });
        tell
    }

    fn serving(&self, known: &Known) -> Serving {
        let lag = known.behind.map_or(0, |since| self.machine.seconds().saturating_sub(since));
        Serving { lag, sent: self.sent.load(Ordering::Relaxed), ..Serving::default() }
    }

    /// What is said to the relay above.
    pub(crate) fn reporting(self: &Arc<Self>) -> Reporting {
        let channel = self.clone();
        let say = move || {
            let mut known = channel.lock();
            let serving = channel.serving(&known);
            let newest = known.own.release;
            let below = known.rollup.below(newest, serving);
            (known.own.clone(), Some(below))
        };
        Reporting { changed: self.changed.subscribe(), say: Arc::new(say), gap: FOLD_GAP }
    }

    /// All that is known, this relay first. For a host (ST-21): relays alone, without counts of others.
    pub(crate) fn status(&self, for_host: bool) -> ChannelStatus {
        let known = self.lock();
        let below = known.rollup.look(known.own.release, self.serving(&known));
        let own = known.own.clone();
        drop(known);
        let Below { serving, relays, rest, worst, moves: _ } = below;
        let name = self.relay.clone();
        let own = RelayRow { name, parent: String::new(), place: String::new(), condition: own, serving };
        let mut status = ChannelStatus { channel: self.name.clone(), relays: vec![own], rest, worst };
        status.relays.extend(relays);
        if for_host {
            status.rest.clear();
            status.worst.clear();
            for relay in &mut status.relays {
                relay.serving.counts.clear();
                relay.serving.children = 0;
            }
        }
        status
    }

    /// Our own hosts that match, the child relays to ask for theirs, and those that cannot be asked.
    pub(crate) fn page(&self, query: &HostsQuery) -> (HostsAnswer, Vec<(String, Connection)>, Vec<String>) {
        let known = self.lock();
        let (here, mut gone) = known.rollup.to_ask(&query.selector);
        let mut ask = Vec::new();
        for name in here {
            match known.relays.get(&name) {
                Some((_, connection)) => ask.push((name, connection.clone())),
                None => gone.push(name),
            }
        }
        (known.rollup.page(query), ask, gone)
    }

    /// Counts of the hosts that are connected here, or were.
    pub(crate) fn counts(&self) -> Vec<Count> {
        let known = self.lock();
        known.rollup.look(known.own.release, Serving::default()).serving.counts
    }

    /// The release that is held.
    pub(crate) fn release(&self) -> u64 {
        self.lock().own.release
    }

    /// For how many seconds a release has been known of that is not held.
    pub(crate) fn lag(&self) -> u64 {
        self.serving(&self.lock()).lag
    }
}
