//! What a relay knows of the hosts and relays below it in one channel, and
//! what it says of them (specs/status.md, ST-3 to ST-9).
//!
//! A change of one host costs the logarithm of their number. What is sent up,
//! and what a report from below costs, follows the relays of the subtree.

mod answer;
mod below;
#[cfg(test)]
mod tests;

pub use answer::{merge, page_after};

use crate::limits::{MAX_MOVES, MAX_OFFLINE, OFFLINE_KEPT};
use crate::path::ChannelName;
use crate::status::{
    Below, Condition, Count, HostRow, HostState, Move, RelayRow, Remembered, Report, Serving,
};
use below::Subtree;
use std::collections::{BTreeMap, BTreeSet};

/// A child, by its certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Child {
    /// Whether it is a relay; else it is a host.
    pub relay: bool,
    /// Its name.
    pub name: String,
}

/// What else a child's certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Certified {
    /// Its labels, `a=b&c=d`.
    pub labels: String,
    /// The end of its certificate, in seconds since 1970.
    pub expires: u64,
}

/// What a report changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Whether there is something to say to the relay above.
    pub changed: bool,
    /// Moves to tell child relays of: their name, and what moved.
    pub tell: Vec<(String, Move)>,
}

/// How much a host needs looking at; the least first.
type Urgency = (u8, u64, u64);

fn urgency(condition: &Condition) -> Urgency {
    match condition.state {
        HostState::Failed => (0, 0, condition.since),
        HostState::Offline => (1, 0, condition.since),
        HostState::Stale => (2, 0, condition.since),
        HostState::Active | HostState::Updating => (3, condition.release, condition.since),
    }
}

/// Whether a host is among those that are named, where the newest release is this.
fn is_bad(condition: &Condition, newest: u64) -> bool {
    !matches!(condition.state, HostState::Active | HostState::Updating) || condition.release < newest
}

#[derive(Debug, Clone)]
struct Host {
    certified: Certified,
    condition: Condition,
    session: u64,
    sequence: u64,
    /// Its newest session, which may not have reported yet.
    begun: u64,
    /// When it left; `None` while it is connected.
    left: Option<u64>,
    /// It is known to be elsewhere, and its connection here has not ended yet.
    moved: bool,
}

#[derive(Debug, Clone)]
struct Relay {
    subtree: Subtree,
    session: u64,
    sequence: u64,
    begun: u64,
    left: Option<u64>,
}

/// One channel's children, and what they said.
#[derive(Debug, Clone)]
pub struct Rollup {
    name: String,
    hosts: BTreeMap<String, Host>,
    relays: BTreeMap<String, Relay>,
    counts: BTreeMap<(u64, HostState), u64>,
    urgent: BTreeSet<(Urgency, String)>,
    /// Children that left, by when.
    left: BTreeSet<(u64, Child)>,
    moves: Vec<Move>,
}

impl Rollup {
    /// That of the relay of this name, without children.
    pub fn new(name: &str) -> Self {
        let (hosts, relays, counts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (urgent, left, moves) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        Self { name: name.to_owned(), hosts, relays, counts, urgent, left, moves }
    }

    /// A session of a child begins: the end of an older one is none of the child's from now on (ST-4).
    pub fn begins(&mut self, child: &Child, session: u64) {
        let begun = if child.relay {
            self.relays.get_mut(&child.name).map(|relay| &mut relay.begun)
        } else {
            self.hosts.get_mut(&child.name).map(|host| &mut host.begun)
        };
        if let Some(begun) = begun {
            *begun = session.max(*begun);
        }
    }

    /// Takes a child's report. One of an older session, or that comes after a later one
    /// of the same session, changes nothing (ST-4).
    pub fn report(&mut self, child: &Child, certified: Certified, session: u64, report: Report) -> Outcome {
        let mut outcome = Outcome::default();
        let known = self.standing(child);
        if known.is_some_and(|known| (session, report.sequence) <= known) {
            return outcome;
        }
        let is_new = known.is_none_or(|(of, _)| of < session);
        if is_new && !report.before.is_empty() && report.before != self.name {
            let moved = Move { host: child.name.clone(), from: report.before };
            // A relay is known by its name in all reports, and needs no such message.
            if !child.relay {
                outcome.tell.extend(self.moved(moved));
            }
        }
        let sequence = report.sequence;
        let mut condition = report.own;
        condition.reason = crate::status::reason(&condition.reason);
        if child.relay {
            let Below { serving, relays, rest, worst, moves } = report.below.unwrap_or_default();
            outcome.tell.extend(moves.into_iter().take(MAX_MOVES).filter_map(|moved| self.moved(moved)));
            let own = RelayRow {
                name: child.name.clone(),
                parent: self.name.clone(),
                place: certified.labels,
                condition,
                serving,
            };
            let subtree = Subtree::new(own, relays, rest, worst);
            let begun = session.max(self.newest(child).unwrap_or(0));
            let relay = Relay { subtree, session, sequence, begun, left: None };
            let before = self.relays.insert(child.name.clone(), relay);
            outcome.changed = before.as_ref().map(|before| &before.subtree)
                != self.relays.get(&child.name).map(|relay| &relay.subtree);
            if let Some(at) = before.and_then(|before| before.left) {
                self.left.remove(&(at, child.clone()));
            }
        } else {
            let begun = session.max(self.newest(child).unwrap_or(0));
            let host = Host { certified, condition, session, sequence, begun, left: None, moved: false };
            outcome.changed = self.put(&child.name, Some(host));
        }
        outcome.changed |= !self.moves.is_empty();
        outcome
    }

    /// The session and sequence of a child's newest report.
    fn standing(&self, child: &Child) -> Option<(u64, u64)> {
        if child.relay {
            self.relays.get(&child.name).map(|relay| (relay.session, relay.sequence))
        } else {
            self.hosts.get(&child.name).map(|host| (host.session, host.sequence))
        }
    }

    /// The newest session of a child that is known.
    fn newest(&self, child: &Child) -> Option<u64> {
        if child.relay {
            self.relays.get(&child.name).map(|relay| relay.begun)
        } else {
            self.hosts.get(&child.name).map(|host| host.begun)
        }
    }

    /// Puts a host in the place of what was known of it, and keeps counts and order.
    /// Whether anything changed that is said to others.
    fn put(&mut self, name: &str, host: Option<Host>) -> bool {
        let said = |host: &Host| {
            let Condition { release, state, since, reason, .. } = host.condition.clone();
            (release, state, since, reason)
        };
        let after = host.as_ref().map(said);
        if let Some(host) = &host {
            *self.counts.entry((host.condition.release, host.condition.state)).or_default() += 1;
        }
        let before = match host {
            Some(host) => {
                let key = (urgency(&host.condition), name.to_owned());
                let left = host.left;
                let before = self.hosts.insert(name.to_owned(), host);
                self.forget_place(name, before.as_ref());
                self.urgent.insert(key);
                self.left.extend(left.map(|at| (at, Child { relay: false, name: name.to_owned() })));
                before
            }
            None => {
                let before = self.hosts.remove(name);
                self.forget_place(name, before.as_ref());
                before
            }
        };
        before.as_ref().map(said) != after
    }

    fn forget_place(&mut self, name: &str, before: Option<&Host>) {
        let Some(before) = before else { return };
        let key = (before.condition.release, before.condition.state);
        if let Some(count) = self.counts.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
        self.urgent.remove(&(urgency(&before.condition), name.to_owned()));
        if let Some(at) = before.left {
            self.left.remove(&(at, Child { relay: false, name: name.to_owned() }));
        }
    }

    /// A child's session ended at this time. Whether that changed anything.
    pub fn lost(&mut self, child: &Child, session: u64, now: u64) -> bool {
        if self.newest(child) != Some(session) {
            return false;
        }
        let changed = if child.relay {
            let Some(relay) = self.relays.get_mut(&child.name).filter(|relay| relay.left.is_none()) else {
                return false;
            };
            relay.left = Some(now);
            relay.subtree.offline(now);
            self.left.insert((now, child.clone()));
            true
        } else {
            let Some(host) = self.hosts.get(&child.name).filter(|host| host.left.is_none()) else {
                return false;
            };
            let mut gone = host.clone();
            gone.left = Some(now);
            gone.condition.offline(now);
            let kept = (!gone.moved).then_some(gone);
            self.put(&child.name, kept)
        };
        while self.left.len() > MAX_OFFLINE {
            let Some((_, first)) = self.left.first().cloned() else { break };
            self.forget(&first);
        }
        changed
    }

    /// Forgets children that left long ago (ST-7). Whether there were any.
    pub fn expire(&mut self, now: u64) -> bool {
        let mut any = false;
        while let Some((at, first)) = self.left.first().cloned() {
            if at.saturating_add(OFFLINE_KEPT.as_secs()) > now {
                break;
            }
            self.forget(&first);
            any = true;
        }
        any
    }

    fn forget(&mut self, child: &Child) {
        if child.relay {
            if let Some(at) = self.relays.remove(&child.name).and_then(|relay| relay.left) {
                self.left.remove(&(at, child.clone()));
            }
        } else {
            self.put(&child.name, None);
        }
    }

    /// Takes note that a host is elsewhere now. Gives the child relay to be told, if it is one's below;
    /// what concerns no relay below goes up with the next report (ST-8).
    pub fn moved(&mut self, moved: Move) -> Option<(String, Move)> {
        if moved.from == self.name {
            match self.hosts.get_mut(&moved.host) {
                Some(host) if host.left.is_none() => host.moved = true,
                Some(_) => drop(self.put(&moved.host, None)),
                None => {}
            }
            return None;
        }
        let below = self.relays.iter_mut().find(|(_, relay)| relay.subtree.has(&moved.from));
        match below {
            Some((name, relay)) if relay.left.is_none() => Some((name.clone(), moved)),
            Some((_, relay)) => {
                relay.subtree.gone(&moved);
                None
            }
            None => {
                if self.moves.len() < MAX_MOVES {
                    self.moves.push(moved);
                }
                None
            }
        }
    }

    /// What is said to the relay above. `newest` is the release that this relay holds; of
    /// `serving`, the counts and the number of children are filled in here.
    pub fn below(&mut self, newest: u64, serving: Serving) -> Below {
        let moves = core::mem::take(&mut self.moves);
        Below { moves, ..self.look(newest, serving) }
    }

    /// As [`Rollup::below`], without the moves, which are said once.
    pub fn look(&self, newest: u64, serving: Serving) -> Below {
        let connected = (self.hosts.len() + self.relays.len()).saturating_sub(self.left.len());
        let serving = Serving { counts: self.counts(), children: connected as u64, ..serving };
        let (relays, rest) = below::rows(&self.name, self.relays.values().map(|relay| &relay.subtree));
        Below { serving, relays, rest, worst: self.worst(newest), moves: Vec::new() }
    }

    fn counts(&self) -> Vec<Count> {
        below::bounded_counts(self.counts.iter().map(|((release, state), hosts)| Count {
            release: *release,
            state: *state,
            hosts: *hosts,
        }))
    }

    fn worst(&self, newest: u64) -> Vec<HostRow> {
        let own = self.urgent.iter().filter_map(|(_, name)| Some((name, self.hosts.get(name)?)));
        let own = own
            .take_while(|(_, host)| is_bad(&host.condition, newest))
            .map(|(name, host)| self.row(name, host));
        below::worst_of(own, self.relays.values().map(|relay| &relay.subtree), &self.name, newest)
    }

    fn row(&self, name: &str, host: &Host) -> HostRow {
        HostRow {
            name: name.to_owned(),
            relays: vec![self.name.clone()],
            labels: host.certified.labels.clone(),
            expires: host.certified.expires,
            condition: host.condition.clone(),
        }
    }

    /// Its children as they are kept for the next start.
    pub fn remembered(&self, channel: &ChannelName, now: u64) -> Vec<Remembered> {
        let relays = self.relays.iter().map(|(name, relay)| {
            let own = relay.subtree.own();
            (true, name, own.place.clone(), 0, relay.left, own.condition.clone())
        });
        let hosts = self.hosts.iter().map(|(name, host)| {
            let Certified { labels, expires } = host.certified.clone();
            (false, name, labels, expires, host.left, host.condition.clone())
        });
        let kept = relays.chain(hosts).map(|(relay, name, labels, expires, left, condition)| Remembered {
            channel: channel.clone(),
            relay,
            name: name.clone(),
            labels,
            expires,
            seen: left.unwrap_or(now),
            condition,
        });
        kept.take(MAX_OFFLINE).collect()
    }

    /// Takes a child as it was when this relay ended: offline since then, until it comes back (ST-9).
    pub fn restore(&mut self, kept: Remembered, now: u64) {
        let Remembered { relay, name, labels, expires, seen, mut condition, .. } = kept;
        let child = Child { relay, name };
        let seen = seen.min(now);
        let is_over = seen.saturating_add(OFFLINE_KEPT.as_secs()) <= now;
        if is_over || self.standing(&child).is_some() || self.left.len() >= MAX_OFFLINE {
            return;
        }
        condition.offline(seen);
        let (session, sequence, begun, left) = (0, 0, 0, Some(seen));
        if relay {
            let parent = self.name.clone();
            let own = RelayRow {
                name: child.name.clone(),
                parent,
                place: labels,
                condition,
                serving: Serving::default(),
            };
            let subtree = Subtree::new(own, Vec::new(), Vec::new(), Vec::new());
            self.relays.insert(child.name.clone(), Relay { subtree, session, sequence, begun, left });
            self.left.insert((seen, child));
        } else {
            let certified = Certified { labels, expires };
            let host = Host { certified, condition, session, sequence, begun, left, moved: false };
            self.put(&child.name, Some(host));
        }
    }
}
