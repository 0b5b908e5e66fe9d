//! What a relay knows of the hosts below it.

use rootcast::limits::{MAX_STATUS_ROWS, OFFLINE_KEPT};
use rootcast::protocol::{HostState, HostStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;

/// Rows by child and channel, folded into one report after each change.
pub(crate) struct Statuses {
    rows: Mutex<Rows>,
    all: watch::Sender<Vec<HostStatus>>,
}

/// Who reports over which subscription, by certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) name: String,
    /// `relay`, `agent` or `publisher`.
    pub(crate) role: String,
    pub(crate) channel: String,
}

#[derive(Default)]
struct Rows {
    own: Vec<HostStatus>,
    children: BTreeMap<Key, Child>,
}

struct Child {
    rows: Vec<HostStatus>,
    /// The session that these rows came over; a later one takes the place over.
    session: u64,
    lost: Option<Instant>,
}

impl Default for Statuses {
    fn default() -> Self {
        Self { rows: Mutex::default(), all: watch::Sender::new(Vec::new()) }
    }
}

impl Statuses {
    /// Everything known, own rows first. Changes after every report.
    pub(crate) fn watch(&self) -> watch::Receiver<Vec<HostStatus>> {
        self.all.subscribe()
    }

    pub(crate) fn set_own(&self, rows: Vec<HostStatus>) {
        let known = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        // Every question for status brings them; what all wait for is a change.
        if known.own != rows {
            drop(known);
            self.change(|known| known.own = rows);
        }
    }

    /// Takes a child's report over its subscription to one channel.
    pub(crate) fn report(&self, key: Key, session: u64, parent: &str, mut rows: Vec<HostStatus>) {
        // A host speaks for itself; a relay for all below it.
        rows.truncate(if key.role == "relay" { MAX_STATUS_ROWS } else { 1 });
        rows.retain(|row| row.channel.as_str() == key.channel);
        rows.iter_mut().take(1).for_each(|own| own.role.clone_from(&key.role));
        place(&key.name, parent, &mut rows);
        self.change(|known| {
            known.children.insert(key, Child { rows, session, lost: None });
        });
    }

    /// A child's session ended.
    pub(crate) fn lost(&self, key: &Key, session: u64) {
        self.change(|known| {
            if let Some(child) = known.children.get_mut(key).filter(|child| child.session == session) {
                child.lost = Some(Instant::now());
                child.rows.iter_mut().for_each(|row| row.state = HostState::Offline);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Rows)) {
        let mut known = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        known.children.retain(|_, child| child.lost.is_none_or(|lost| lost.elapsed() < OFFLINE_KEPT));
        let below = known.children.values().flat_map(|child| child.rows.iter().cloned());
        // A host that moved is under its new parent; its old parent's row is dropped.
        let mut all: Vec<HostStatus> = known.own.clone();
        let mut online = BTreeMap::new();
        let below: Vec<HostStatus> = below.collect();
        for row in &below {
            if row.state != HostState::Offline {
                online.insert((row.name.clone(), row.channel.clone()), ());
            }
        }
        all.extend(below.into_iter().filter(|row| {
            row.state != HostState::Offline || !online.contains_key(&(row.name.clone(), row.channel.clone()))
        }));
        all.truncate(MAX_STATUS_ROWS);
        self.all.send_replace(all);
    }
}

/// Puts the rows of a child's report below the child. Its own row is the first,
/// and its name and parent are what we know of it. Every other row lies below a
/// relay of the same report: what claims another place is put right below the
/// child, so that no child can move hosts that are not its own.
fn place(child: &str, parent: &str, rows: &mut [HostStatus]) {
    let Some((own, below)) = rows.split_first_mut() else { return };
    child.clone_into(&mut own.name);
    parent.clone_into(&mut own.parent);
    let mut relays: BTreeSet<String> =
        below.iter().filter(|row| row.role == "relay").map(|row| row.name.clone()).collect();
    relays.insert(child.to_owned());
    for row in below.iter_mut().filter(|row| !relays.contains(&row.parent)) {
        child.clone_into(&mut row.parent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast::path::ChannelName;

    fn key(name: &str, role: &str, channel: &str) -> Key {
        Key { name: name.into(), role: role.into(), channel: channel.into() }
    }

    fn row(name: &str, role: &str, parent: &str, channel: &str) -> HostStatus {
        HostStatus {
            name: name.into(),
            role: role.into(),
            parent: parent.into(),
            channel: ChannelName::new(channel).unwrap(),
            release: 1,
            state: HostState::Active,
            files: 0,
            healed: 0,
            received: 0,
            refused: 0,
        }
    }

    fn known(statuses: &Statuses) -> Vec<(String, String, String)> {
        let all = statuses.watch().borrow().clone();
        all.into_iter().map(|row| (row.channel.to_string(), row.name, row.parent)).collect()
    }

    fn expect(rows: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
        rows.iter().map(|(a, b, c)| ((*a).into(), (*b).into(), (*c).into())).collect()
    }

    #[test]
    fn three_levels_and_two_channels_can_be_rebuilt() {
        let (origin, relay) = (Statuses::default(), Statuses::default());
        for (statuses, name) in [(&origin, "o"), (&relay, "r")] {
            statuses.set_own(vec![row(name, "relay", "", "a"), row(name, "relay", "", "b")]);
        }
        relay.report(key("w", "agent", "b"), 1, "r", vec![row("w", "agent", "", "b")]);
        // A relay sends all it knows over each of its subscriptions.
        for channel in ["a", "b"] {
            let rows = relay.watch().borrow().clone();
            origin.report(key("r", "relay", channel), 1, "o", rows);
        }
        let expected = [("a", "o", ""), ("b", "o", ""), ("a", "r", "o"), ("b", "r", "o"), ("b", "w", "r")];
        assert_eq!(known(&origin), expect(&expected));
    }

    #[test]
    fn a_child_cannot_claim_another_place_for_itself_or_others() {
        let origin = Statuses::default();
        origin.set_own(vec![row("o", "relay", "", "a")]);
        let rows = vec![
            row("other", "relay", "", "a"),
            row("x", "agent", "", "a"),
            row("y", "agent", "o", "a"),
            row("z", "agent", "deep", "a"),
            row("deep", "relay", "r", "a"),
        ];
        origin.report(key("r", "relay", "a"), 1, "o", rows);
        let expected = [
            ("a", "o", ""),
            ("a", "r", "o"),
            ("a", "x", "r"),
            ("a", "y", "r"),
            ("a", "z", "deep"),
            ("a", "deep", "r"),
        ];
        assert_eq!(known(&origin), expect(&expected));
    }
}
