//! `rootcast status`

mod tree;

use crate::asking::{self, Asked};
use crate::failure::{Exit, Failure};
use crate::output::{Output, age, bytes, now, plain};
use rootcast::selector::Selector;
use rootcast::status::{ChannelStatus, Condition, Count, HostRow, HostState, HostsQuery, RelayRow};
use serde_json::{Value, json};
use std::io::{self, IsTerminal};
use tree::Place;

/// Up to so many hosts of a channel have a line each; more are counted.
const HOSTS_SHOWN: u64 = 40;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    asking: asking::Asking,
    /// End with 3 unless every host is active on this release
    #[arg(long, value_name = "RELEASE")]
    expect: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let (asked, channels) = asking::ask(&arguments.asking, |asked, statuses| async {
        let mut channels = Vec::new();
        for status in statuses {
            channels.push(Channel::with_hosts(&asked, status).await?);
        }
        Ok((asked, channels))
    })?;
    print_json(&asked, &channels, output);
    if !output.json {
        print(&asked, &channels, output);
    }
    arguments.expect.map_or(Ok(()), |release| expect(release, &channels))
}

fn expect(release: u64, channels: &[Channel]) -> Result<(), Failure> {
    let counts = || channels.iter().flat_map(Channel::counted);
    let all: u64 = counts().map(|count| count.hosts).sum();
    let as_wanted = counts().filter(|count| (count.release, count.state) == (release, HostState::Active));
    let others = all - as_wanted.map(|count| count.hosts).sum::<u64>();
    if others == 0 {
        return Ok(());
    }
    let message = format!("{others} of {all} hosts are not active on release {release}");
    let next = format!(
        "`rootcast hosts 'release!={release}'` and `rootcast hosts 'state!=active'` say which, and why"
    );
    Err(Failure::new(Exit::Differences, message).next(next))
}

/// What is known of a channel.
struct Channel {
    status: ChannelStatus,
    /// Its hosts, where they are few.
    hosts: Option<Vec<HostRow>>,
}

/// Counts over the hosts.
#[derive(Default)]
struct Counts {
    hosts: u64,
    newest: u64,
    behind: u64,
    stale: u64,
    failed: u64,
    offline: u64,
}

impl Channel {
    async fn with_hosts(asked: &Asked, status: ChannelStatus) -> Result<Self, Failure> {
        let total: u64 = status.counts().map(|count| count.hosts).sum();
        if total > HOSTS_SHOWN {
            return Ok(Self { status, hosts: None });
        }
        let (channel, selector) = (status.channel.clone(), Selector::default());
        let query = HostsQuery { channel, selector, limit: HOSTS_SHOWN, after: Default::default(), wait: 0 };
        let answer = asked.hosts(query).await?;
        Ok(Self { status, hosts: Some(answer.hosts) })
    }

    /// All hosts by release and state: as listed, where they are, and else as counted.
    fn counted(&self) -> Vec<Count> {
        match &self.hosts {
            Some(hosts) => hosts
                .iter()
                .map(|row| Count { release: row.condition.release, state: row.condition.state, hosts: 1 })
                .collect(),
            None => self.status.counts().copied().collect(),
        }
    }

    fn counts(&self) -> Counts {
        let newest = self.status.newest();
        let mut counts = Counts::default();
        for Count { release, state, hosts } in self.counted() {
            counts.hosts += hosts;
            if state == HostState::Stale {
                counts.stale += hosts;
            }
            match state {
                HostState::Offline => counts.offline += hosts,
                HostState::Failed => counts.failed += hosts,
                HostState::Active | HostState::Stale | HostState::Updating => {
                    *(if release >= newest { &mut counts.newest } else { &mut counts.behind }) += hosts;
                }
            }
        }
        counts
    }

    fn places(&self) -> Vec<Place<'_>> {
        let relays = self.status.relays.iter().map(|row| Place {
            name: &row.name,
            parent: &row.parent,
            relay: Some(row),
            host: None,
        });
        let hosts = self.hosts.iter().flatten().map(|row| Place {
            name: &row.name,
            parent: row.relays.last().map_or("", String::as_str),
            relay: None,
            host: Some(row),
        });
        relays.chain(hosts).collect()
    }
}

/// What a relay or host says, for programs.
pub(crate) fn condition_json(condition: &Condition) -> Value {
    json!({
        "release": condition.release, "state": condition.state.as_str(), "since": condition.since,
        "reason": plain(&condition.reason), "files": condition.files, "received": condition.received,
        "healed": condition.healed, "refused": condition.refused,
    })
}

/// Puts the fields of `more` into `value`.
pub(crate) fn with(mut value: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (value.as_object_mut(), more) {
        fields.extend(more);
    }
    value
}

fn counts_json(counts: &[Count]) -> Value {
    let rows = counts.iter().map(
        |count| json!({ "release": count.release, "state": count.state.as_str(), "hosts": count.hosts }),
    );
    rows.collect()
}

fn row_json(place: &Place<'_>, channel: &Channel) -> Value {
    let newest = channel.status.newest();
    let (role, condition, more) = match (place.relay, place.host) {
        (Some(row), _) => (
            "relay",
            &row.condition,
            json!({
                "place": plain(&row.place), "lag": row.serving.lag, "sent": row.serving.sent,
                "children": row.serving.children, "counts": counts_json(&row.serving.counts),
            }),
        ),
        (None, Some(row)) => {
            ("agent", &row.condition, json!({ "labels": plain(&row.labels), "expires": row.expires }))
        }
        (None, None) => return Value::Null,
    };
    let own = json!({
        "name": plain(place.name), "role": role, "parent": plain(place.parent),
        "channel": channel.status.channel.as_str(), "behind": newest.saturating_sub(condition.release),
    });
    with(with(own, condition_json(condition)), more)
}

fn print_json(asked: &Asked, channels: &[Channel], output: &Output) {
    let rows: Vec<Value> = channels
        .iter()
        .flat_map(|channel| channel.places().iter().map(|place| row_json(place, channel)).collect::<Vec<_>>())
        .collect();
    let summary = |channel: &Channel| {
        let counts = channel.counts();
        let worst = channel.status.worst.iter().map(crate::hosts::row_json);
        json!({
            "channel": channel.status.channel.as_str(), "newest": channel.status.newest(),
            "hosts": counts.hosts, "on_newest": counts.newest, "behind": counts.behind, "stale": counts.stale,
            "failed": counts.failed, "offline": counts.offline, "worst": worst.collect::<Vec<_>>(),
            "relays_not_shown": counts_json(&channel.status.rest),
        })
    };
    output.value(&json!({
        "relay": asked.relay, "address": asked.address, "hosts": rows,
        "newest": channels.iter().map(|channel| channel.status.newest()).max().unwrap_or(0),
        "channels": channels.iter().map(summary).collect::<Vec<_>>(),
    }));
}

fn print(asked: &Asked, channels: &[Channel], output: &Output) {
    let on_terminal = io::stdout().is_terminal();
    let colours = on_terminal && std::env::var_os("NO_COLOR").is_none();
    output.line(format!("asked relay {} at {}", asked.relay, plain(&asked.address)));
    for channel in channels {
        let release = channel.status.newest();
        output.line(format!("\nchannel {}, release {release}", channel.status.channel));
        let places = channel.places();
        let lines = tree::lines(&places, on_terminal);
        let width = lines.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, place) in lines {
            output.line(format!("{label:width$}  {}", details(place, channel, colours)));
        }
        if !channel.status.rest.is_empty() {
            output
                .line(format!("(and relays that are not shown: {})", summary(&channel.status.rest, release)));
        }
        if channel.hosts.is_none() && !channel.status.worst.is_empty() {
            output.line("\nworst:");
            crate::hosts::print(&channel.status.worst, true, output);
        }
        let Counts { hosts, newest, behind, stale, failed, offline } = channel.counts();
        output.line(format!(
            "{hosts} {}: {newest} on release {release}, {behind} behind, {stale} stale, {failed} failed, {offline} offline",
            if hosts == 1 { "host" } else { "hosts" }
        ));
    }
}

/// A state as a word of equal width.
pub(crate) fn word(state: HostState, colours: bool) -> String {
    let word = format!("{:8}", state.as_str());
    match (colours, state) {
        (false, _) => word,
        (true, HostState::Active) => format!("\x1b[32m{word}\x1b[0m"),
        (true, HostState::Updating | HostState::Stale) => format!("\x1b[33m{word}\x1b[0m"),
        (true, HostState::Failed | HostState::Offline) => format!("\x1b[31m{word}\x1b[0m"),
    }
}

/// What a row says, after its place in the tree.
fn details(place: &Place<'_>, channel: &Channel, colours: bool) -> String {
    let newest = channel.status.newest();
    match (place.relay, place.host) {
        (Some(row), _) => {
            let mut text = condition("relay", &row.condition, newest, colours);
            relay_details(row, newest, channel.hosts.is_none(), &mut text);
            text
        }
        (None, Some(row)) => condition("agent", &row.condition, newest, colours),
        (None, None) => String::new(),
    }
}

fn relay_details(row: &RelayRow, newest: u64, counted: bool, text: &mut String) {
    if row.serving.sent > 0 {
        text.push_str(&format!(", {} sent", bytes(row.serving.sent)));
    }
    if row.serving.lag > 0 {
        text.push_str(&format!(", lag {}", age(row.serving.lag)));
    }
    if counted && !row.serving.counts.is_empty() {
        text.push_str(&format!("; {}", summary(&row.serving.counts, newest)));
    }
}

/// Hosts of a relay on one line.
fn summary(counts: &[Count], newest: u64) -> String {
    let sum = |wanted: &dyn Fn(&Count) -> bool| {
        counts.iter().filter(|count| wanted(count)).map(|count| count.hosts).sum::<u64>()
    };
    let mut text = format!("{} hosts", sum(&|_| true));
    let behind = sum(&|count| {
        count.release < newest && !matches!(count.state, HostState::Failed | HostState::Offline)
    });
    let of = |state| sum(&|count: &Count| count.state == state);
    let bad = [
        (behind, "behind"),
        (of(HostState::Stale), "stale"),
        (of(HostState::Failed), "failed"),
        (of(HostState::Offline), "offline"),
    ];
    for (hosts, what) in bad.into_iter().filter(|(hosts, _)| *hosts > 0) {
        text.push_str(&format!(", {hosts} {what}"));
    }
    text
}

fn condition(role: &str, condition: &Condition, newest: u64, colours: bool) -> String {
    let state = word(condition.state, colours);
    let release = if condition.release == 0 { "none".into() } else { condition.release.to_string() };
    let mut text = format!(
        "{role:5}  release {release:<5}  {state}  {} files, {} received",
        condition.files,
        bytes(condition.received)
    );
    if condition.healed > 0 {
        text.push_str(&format!(", {} healed", condition.healed));
    }
    if condition.refused > 0 {
        text.push_str(&format!(", {} requests refused", condition.refused));
    }
    match newest.saturating_sub(condition.release) {
        0 => {}
        behind => text.push_str(&format!(", {behind} behind")),
    }
    if condition.state == HostState::Offline {
        text.push_str(&format!(", last seen {} ago", age(now().saturating_sub(condition.since))));
    }
    if !condition.reason.is_empty() {
        text.push_str(&format!(": {}", plain(&condition.reason)));
    }
    text
}
