//! What relays and hosts say of themselves, and what is answered about them
//! (specs/status.md). Who keeps and folds it is [`crate::rollup`].

use crate::encode_as_array;
use crate::limits::MAX_REASON;
use crate::path::ChannelName;
use crate::selector::Selector;
use serde::{Deserialize, Serialize};

/// What a relay or host is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HostState {
    /// It holds or runs the newest release that it knows.
    Active,
    /// It holds or runs the newest release that it knows, and has no good head:
    /// it cannot know that there is none newer.
    Stale,
    /// It is bringing in a newer one.
    Updating,
    /// It refused or failed the newest one and keeps what it had.
    Failed,
    /// Its connection ended; what is shown was last known.
    Offline,
}

impl HostState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Active, Self::Stale, Self::Updating, Self::Failed, Self::Offline];

    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Stale => "stale",
            Self::Updating => "updating",
            Self::Failed => "failed",
            Self::Offline => "offline",
        }
    }

    /// The state of a word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// How one relay or host is doing in a channel, in its own words (ST-2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The release it holds (relay) or runs (host); 0 for none.
    pub release: u64,
    /// What it is doing.
    pub state: HostState,
    /// Since when release and state are so, in seconds since 1970 by its own clock.
    pub since: u64,
    /// Why it failed, what it is at, or what holds it back; mostly empty. At most [`MAX_REASON`] bytes.
    pub reason: String,
    /// Files it serves or runs.
    pub files: u64,
    /// Damaged objects that it has healed since it started.
    pub healed: u64,
    /// Bytes of updates it received since it started.
    pub received: u64,
    /// Requests for what a peer may not read, since it started (relay).
    pub refused: u64,
}
encode_as_array!(Condition { release, state, since, reason, files, healed, received, refused });

impl Condition {
    /// One that has nothing yet.
    pub const fn none(since: u64) -> Self {
        let state = HostState::Updating;
        Self { release: 0, state, since, reason: String::new(), files: 0, healed: 0, received: 0, refused: 0 }
    }

    /// As it is from the moment in which nobody answers any more.
    pub fn offline(&mut self, since: u64) {
        if self.state != HostState::Offline {
            (self.state, self.since) = (HostState::Offline, since);
        }
    }
}

/// A reason, cut to [`MAX_REASON`] bytes at a character.
pub fn reason(text: &str) -> String {
    clip(text, MAX_REASON)
}

/// Text cut to at most `most` bytes, at a character; what is cut ends with `…`.
pub(crate) fn clip(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// How many hosts have this release and are in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The release; 0 for none, or one of those for which there was no room.
    pub release: u64,
    /// The state.
    pub state: HostState,
    /// How many.
    pub hosts: u64,
}
encode_as_array!(Count { release, state, hosts });

/// A relay's work, beside its condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Serving {
    /// For how many seconds it has known of a release that it does not hold; 0 where it holds the newest.
    pub lag: u64,
    /// Bytes of updates that it sent since it started.
    pub sent: u64,
    /// Relays and hosts that are connected to it.
    pub children: u64,
    /// Its hosts, those that are offline included; not those of relays below it.
    pub counts: Vec<Count>,
}
encode_as_array!(Serving { lag, sent, children, counts });

/// A relay in a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayRow {
    /// Its name.
    pub name: String,
    /// The relay that it follows; empty for the one that was asked.
    pub parent: String,
    /// The labels of its certificate, as `datacenter=ams1&region=eu`.
    pub place: String,
    /// How it is doing.
    pub condition: Condition,
    /// What it does for those below.
    pub serving: Serving,
}
encode_as_array!(RelayRow { name, parent, place, condition, serving });

/// A host in a report or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRow {
    /// Its name.
    pub name: String,
    /// The relays above it, the topmost first.
    pub relays: Vec<String>,
    /// The labels of its certificate.
    pub labels: String,
    /// The end of the certificate it came with, in seconds since 1970; 0 where that is not known.
    pub expires: u64,
    /// How it is doing, or was doing when it was last seen: [`HostState::Offline`] since then.
    pub condition: Condition,
}
encode_as_array!(HostRow { name, relays, labels, expires, condition });

/// A host that follows another relay than before, so that the one before stops
/// showing it as offline (ST-8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The host.
    pub host: String,
    /// The relay that it followed before.
    pub from: String,
}
encode_as_array!(Move { host, from });

/// What lies below a relay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Below {
    /// The reporting relay's own work.
    pub serving: Serving,
    /// The relays below, parents before their children.
    pub relays: Vec<RelayRow>,
    /// Hosts of relays for which there was no room.
    pub rest: Vec<Count>,
    /// Hosts that do worst, the worst first.
    pub worst: Vec<HostRow>,
    /// Hosts that came from relays that are not below this one.
    pub moves: Vec<Move>,
}
encode_as_array!(Below { serving, relays, rest, worst, moves });

/// What a child says on its control stream after the subscription (ST-1). Each
/// replaces the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Higher than that of every report before it in the same session.
    pub sequence: u64,
    /// How the child itself is doing.
    pub own: Condition,
    /// The relay that it followed before this one, as far as it knows; else empty.
    pub before: String,
    /// What lies below it, where it is a relay.
    pub below: Option<Below>,
}
encode_as_array!(Report { sequence, own, before, below });

/// One channel in the answer to [`crate::protocol::Opening::Status`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelStatus {
    /// The channel.
    pub channel: ChannelName,
    /// The relay that was asked, and those below, parents before their children.
    pub relays: Vec<RelayRow>,
    /// Hosts of relays for which there was no room.
    pub rest: Vec<Count>,
    /// Hosts that do worst, the worst first; none for a host that asks.
    pub worst: Vec<HostRow>,
}
encode_as_array!(ChannelStatus { channel, relays, rest, worst });

impl ChannelStatus {
    /// The release of the relay that was asked: the newest, where it is the origin.
    pub fn newest(&self) -> u64 {
        self.relays.first().map_or(0, |own| own.condition.release)
    }

    /// All counts, of several relays one after the other.
    pub fn counts(&self) -> impl Iterator<Item = &Count> {
        self.relays.iter().flat_map(|relay| &relay.serving.counts).chain(&self.rest)
    }
}

/// The answer to [`crate::protocol::Opening::Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StatusAnswer(pub Vec<ChannelStatus>);

/// A question for hosts (ST-22).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsQuery {
    /// The channel.
    pub channel: ChannelName,
    /// Which hosts.
    pub selector: Selector,
    /// Most hosts to answer with; at most [`crate::limits::MAX_HOSTS_ANSWER`] are.
    pub limit: u64,
    /// Only hosts after this name and relay; both empty for the first page.
    pub after: (String, String),
    /// Milliseconds in which the answer has to be there.
    pub wait: u64,
}
encode_as_array!(HostsQuery { channel, selector, limit, after, wait });

/// The answer to a question for hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostsAnswer {
    /// Those that match, by name, and by relay where several have one of that name.
    pub hosts: Vec<HostRow>,
    /// Whether there are more after the last.
    pub more: bool,
    /// Relays below which hosts may match and that did not answer.
    pub unanswered: Vec<String>,
}
encode_as_array!(HostsAnswer { hosts, more, unanswered });

/// What a relay says to a child relay on a stream that it opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// One answer, [`HostsAnswer`]: hosts below the child.
    Hosts(HostsQuery),
    /// No answer: these hosts are elsewhere now, in this channel.
    Moved(ChannelName, Vec<Move>),
}

/// A child as its relay keeps it on disk (ST-9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The channel.
    pub channel: ChannelName,
    /// Whether it is a relay.
    pub relay: bool,
    /// Its name.
    pub name: String,
    /// The labels of its certificate.
    pub labels: String,
    /// The end of its certificate.
    pub expires: u64,
    /// When it was last known to be there, in seconds since 1970.
    pub seen: u64,
    /// How it was doing.
    pub condition: Condition,
}
encode_as_array!(Remembered { channel, relay, name, labels, expires, seen, condition });
