//! Answers to questions for hosts, made of our own rows and of the answers from below.

use super::Rollup;
use crate::limits::{MAX_DEPTH, MAX_HOSTS_ANSWER, MAX_NAME, MAX_RELAY_ROWS};
use crate::selector::Selector;
use crate::status::{HostRow, HostsAnswer, HostsQuery, clip};
use std::ops::Bound;

impl Rollup {
    /// Our own hosts that match, by name.
    pub fn page(&self, query: &HostsQuery) -> HostsAnswer {
        let limit = limit(query);
        let (name, relay) = &query.after;
        // Of the host at the cursor, a row of ours is still to come where our name is above the cursor's.
        let from = if *self.name > **relay { Bound::Included(name) } else { Bound::Excluded(name) };
        let from = if name.is_empty() { Bound::Unbounded } else { from };
        let matching = self
            .hosts
            .range::<String, _>((from, Bound::Unbounded))
            .filter(|(name, host)| query.selector.matches(name, &host.certified.labels, &host.condition));
        let mut hosts: Vec<HostRow> =
            matching.take(limit + 1).map(|(name, host)| self.row(name, host)).collect();
        let more = hosts.len() > limit;
        hosts.truncate(limit);
        HostsAnswer { hosts, more, unanswered: Vec::new() }
    }

    /// The child relays below which hosts may match: those to ask, and those that cannot be asked
    /// because they are offline.
    pub fn to_ask(&self, selector: &Selector) -> (Vec<String>, Vec<String>) {
        let may = self
            .relays
            .iter()
            .filter(|(_, relay)| relay.subtree.any(|release, state| selector.may_match(release, state)));
        let (here, gone): (Vec<_>, Vec<_>) = may.partition(|(_, relay)| relay.left.is_none());
        let names = |relays: Vec<(&String, _)>| relays.into_iter().map(|(name, _)| name.clone()).collect();
        (names(here), names(gone))
    }
}

fn limit(query: &HostsQuery) -> usize {
    usize::try_from(query.limit).map_or(MAX_HOSTS_ANSWER, |limit| limit.clamp(1, MAX_HOSTS_ANSWER))
}

fn key(row: &HostRow) -> (&str, &str) {
    (&row.name, row.relays.last().map_or("", String::as_str))
}

/// Where the page after an answer begins.
pub fn page_after(answer: &HostsAnswer) -> Option<(String, String)> {
    let (name, relay) = key(answer.hosts.last()?);
    answer.more.then(|| (name.to_owned(), relay.to_owned()))
}

/// One answer of the relay `name`: its own page, and those of the child relays that it asked.
pub fn merge(
    name: &str,
    own: HostsAnswer,
    below: impl IntoIterator<Item = (String, HostsAnswer)>,
    query: &HostsQuery,
) -> HostsAnswer {
    let limit = limit(query);
    let HostsAnswer { mut hosts, mut more, mut unanswered } = own;
    for (relay, answer) in below {
        more |= answer.more || answer.hosts.len() > limit;
        for mut row in answer.hosts.into_iter().take(limit) {
            row.bound();
            // Its first relay is the one that answered, whatever it says.
            if row.relays.first() != Some(&relay) {
                row.relays = vec![relay.clone()];
            }
            // The last stays: pages are told apart by it.
            if row.relays.len() >= MAX_DEPTH {
                row.relays.remove(0);
            }
            row.relays.insert(0, name.to_owned());
            hosts.push(row);
        }
        unanswered.extend(answer.unanswered.iter().map(|relay| clip(relay, MAX_NAME)));
    }
    hosts.sort_by(|a, b| key(a).cmp(&key(b)));
    more |= hosts.len() > limit;
    hosts.truncate(limit);
    unanswered.sort();
    unanswered.dedup();
    unanswered.truncate(MAX_RELAY_ROWS);
    HostsAnswer { hosts, more, unanswered }
}
