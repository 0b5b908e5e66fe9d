//! What a child relay said of what lies below it, put in its place.

use super::{is_bad, urgency};
use crate::limits::{
    MAX_DEPTH, MAX_LABEL, MAX_LABELS, MAX_NAME, MAX_RELAY_ROWS, MAX_STATUS_COUNTS, MAX_WORST,
};
use crate::status::{Count, HostRow, HostState, Move, RelayRow, clip, reason};
use std::collections::{BTreeMap, BTreeSet};

/// Longest labels of a certificate, as text.
const MAX_PLACE: usize = MAX_LABELS * (MAX_LABEL * 2 + 2);

/// A child relay and all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subtree {
    /// Its own row first.
    rows: Vec<RelayRow>,
    rest: Vec<Count>,
    worst: Vec<HostRow>,
    /// Hosts that are known to be elsewhere since it was lost.
    moved: BTreeSet<String>,
}

impl Subtree {
    /// Takes a report. Its own row's name and parent are what we know of it. Every other row lies
    /// below a relay of the same report; what claims another place is put right below the
    /// child, so that no child can move relays that are not its own.
    pub(super) fn new(own: RelayRow, below: Vec<RelayRow>, rest: Vec<Count>, worst: Vec<HostRow>) -> Self {
        let mut names = BTreeSet::from([own.name.clone()]);
        let child = own.name.clone();
        let mut rows = vec![own];
        for mut row in below.into_iter().take(MAX_RELAY_ROWS) {
            row.bound();
            // Parents come before their children, so no circle can be made either.
            if !names.contains(&row.parent) {
                row.parent.clone_from(&child);
            }
            if names.insert(row.name.clone()) {
                rows.push(row);
            }
        }
        rows.iter_mut().for_each(|row| row.serving.counts = bounded_counts(row.serving.counts.drain(..)));
        let mut worst: Vec<HostRow> = worst.into_iter().take(MAX_WORST).collect();
        for row in &mut worst {
            row.bound();
            if row.relays.first() != Some(&child) {
                row.relays = vec![child.clone()];
            }
        }
        Self { rows, rest: bounded_counts(rest.into_iter()), worst, moved: BTreeSet::new() }
    }

    pub(super) fn own(&self) -> &RelayRow {
        // There always is one: `new` puts it there and nothing takes it away.
        static NONE: std::sync::LazyLock<RelayRow> = std::sync::LazyLock::new(RelayRow::nobody);
        self.rows.first().unwrap_or(&NONE)
    }

    /// Whether a relay is among these.
    pub(super) fn has(&self, name: &str) -> bool {
        self.rows.iter().any(|row| row.name == name)
    }

    /// Whether hosts below can be of a release and state.
    pub(super) fn any(&self, wanted: impl Fn(u64, HostState) -> bool) -> bool {
        let counts = self.rows.iter().flat_map(|row| &row.serving.counts).chain(&self.rest);
        counts.into_iter().any(|count| count.hosts > 0 && wanted(count.release, count.state))
    }

    /// Nobody here has been heard of since.
    pub(super) fn offline(&mut self, since: u64) {
        for row in &mut self.rows {
            row.condition.offline(since);
            row.serving.children = 0;
            row.serving.counts.iter_mut().for_each(|count| count.state = HostState::Offline);
            row.serving.counts = bounded_counts(row.serving.counts.drain(..));
        }
        self.rest.iter_mut().for_each(|count| count.state = HostState::Offline);
        self.rest = bounded_counts(self.rest.drain(..));
        self.worst.iter_mut().for_each(|row| row.condition.offline(since));
    }

    /// A host that was counted here, and is offline as all here, is elsewhere now.
    pub(super) fn gone(&mut self, moved: &Move) {
        let Some(row) = self.rows.iter_mut().find(|row| row.name == moved.from) else { return };
        let Some(count) = row.serving.counts.iter_mut().find(|count| count.hosts > 0) else { return };
        // Once for each host, whatever is repeated.
        if self.moved.insert(moved.host.clone()) {
            count.hosts -= 1;
            self.worst.retain(|row| row.name != moved.host);
        }
    }
}

impl RelayRow {
    fn nobody() -> Self {
        let condition = crate::status::Condition::none(0);
        Self {
            name: String::new(),
            parent: String::new(),
            place: String::new(),
            condition,
            serving: crate::status::Serving::default(),
        }
    }

    /// Cuts what a peer made too long.
    fn bound(&mut self) {
        self.name = clip(&self.name, MAX_NAME);
        self.parent = clip(&self.parent, MAX_NAME);
        self.place = clip(&self.place, MAX_PLACE);
        self.condition.reason = reason(&self.condition.reason);
    }
}

impl HostRow {
    /// Cuts what a peer made too long.
    pub(super) fn bound(&mut self) {
        self.name = clip(&self.name, MAX_NAME);
        self.labels = clip(&self.labels, MAX_PLACE);
        self.condition.reason = reason(&self.condition.reason);
        self.relays.truncate(MAX_DEPTH);
        self.relays.iter_mut().for_each(|relay| *relay = clip(relay, MAX_NAME));
    }
}

/// Counts by release and state, one for each, the newest first. Where there are too many,
/// those of the fewest hosts are put together under release 0.
pub(super) fn bounded_counts(counts: impl Iterator<Item = Count>) -> Vec<Count> {
    let mut all: BTreeMap<(u64, HostState), u64> = BTreeMap::new();
    for Count { release, state, hosts } in counts.filter(|count| count.hosts > 0) {
        let sum = all.entry((release, state)).or_default();
        *sum = sum.saturating_add(hosts);
    }
    if all.len() > MAX_STATUS_COUNTS {
        let mut by_hosts: Vec<_> = all.into_iter().collect();
        by_hosts.sort_by_key(|(key, hosts)| (core::cmp::Reverse(*hosts), *key));
        all = BTreeMap::new();
        // Room for release 0 in every state.
        let kept = MAX_STATUS_COUNTS - HostState::ALL.len();
        for (at, ((release, state), hosts)) in by_hosts.into_iter().enumerate() {
            let release = if at < kept { release } else { 0 };
            let sum = all.entry((release, state)).or_default();
            *sum = sum.saturating_add(hosts);
        }
    }
    let counts = all.into_iter().rev();
    counts.map(|((release, state), hosts)| Count { release, state, hosts }).collect()
}

/// The rows of all subtrees of the relay `name`, parents before their children, and the counts of
/// those for which there is no room. A relay that moved is where it is connected. Our own
/// children come first: their names are those of their certificates, and nobody below takes one.
pub(super) fn rows<'a>(
    name: &'a str,
    subtrees: impl Iterator<Item = &'a Subtree> + Clone,
) -> (Vec<RelayRow>, Vec<Count>) {
    let is_on = |row: &&RelayRow| row.condition.state != HostState::Offline;
    let all = || subtrees.clone().flat_map(|subtree| &subtree.rows);
    let online: BTreeSet<&str> = all().filter(is_on).map(|row| row.name.as_str()).collect();
    let own = subtrees.clone().filter_map(|subtree| subtree.rows.first());
    let deeper = subtrees.clone().flat_map(|subtree| subtree.rows.iter().skip(1));
    let mut seen = BTreeSet::from([name]);
    let (mut rows, mut rest) = (Vec::new(), Vec::new());
    for row in own.chain(deeper) {
        let is_elsewhere = !is_on(&row) && online.contains(row.name.as_str());
        if is_elsewhere || !seen.insert(row.name.as_str()) {
            continue;
        }
        if rows.len() < MAX_RELAY_ROWS {
            rows.push(row.clone());
        } else {
            rest.extend(row.serving.counts.iter().copied());
        }
    }
    rest.extend(subtrees.flat_map(|subtree| subtree.rest.iter().copied()));
    (rows, bounded_counts(rest.into_iter()))
}

/// The hosts that do worst: our own, in that order, and those that the relays below named.
pub(super) fn worst_of<'a>(
    own: impl Iterator<Item = HostRow>,
    subtrees: impl Iterator<Item = &'a Subtree>,
    name: &str,
    newest: u64,
) -> Vec<HostRow> {
    let mut worst: Vec<HostRow> = own.take(MAX_WORST).collect();
    for row in subtrees.flat_map(|subtree| &subtree.worst) {
        if is_bad(&row.condition, newest) {
            let mut row = row.clone();
            row.relays.insert(0, name.to_owned());
            row.relays.truncate(MAX_DEPTH);
            worst.push(row);
        }
    }
    worst.sort_by(|a, b| (urgency(&a.condition), &a.name).cmp(&(urgency(&b.condition), &b.name)));
    worst.truncate(MAX_WORST);
    worst
}
