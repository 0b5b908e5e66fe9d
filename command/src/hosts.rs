//! `rootcast hosts` and `rootcast host NAME`: which hosts there are, and how one is doing.

use crate::asking::{self, Asked};
use crate::failure::{Exit, Failure};
use crate::inspect::utc;
use crate::output::{Output, age, bytes, now, plain};
use crate::status::{condition_json, with, word};
use rootcast::limits::MAX_HOSTS_ANSWER;
use rootcast::path::ChannelName;
use rootcast::rollup::page_after;
use rootcast::selector::{Selector, SelectorError};
use rootcast::status::{ChannelStatus, HostRow, HostState, HostsQuery};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{self, IsTerminal};

#[derive(clap::Args)]
#[command(after_help = "A selector is one or more terms that a host must all meet:\n  \
    web-*             its name, with * and ?; !web-* is any other\n  \
    region=eu         a label of its certificate; region!=eu\n  \
    state=failed      active, stale, updating, failed or offline; state!=active\n  \
    release=42        the release that it runs; release!=42")]
pub(crate) struct Arguments {
    /// Which hosts, as `region=eu state!=active`; all, where there is none
    #[arg(value_name = "SELECTOR")]
    selector: Vec<String>,
    #[command(flatten)]
    asking: asking::Asking,
    /// Only this channel
    #[arg(long)]
    channel: Option<ChannelName>,
    /// Show at most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(clap::Args)]
pub(crate) struct One {
    /// The host's name
    name: Option<String>,
    #[command(flatten)]
    asking: asking::Asking,
}

fn wrong(error: &SelectorError) -> Failure {
    Failure::new(Exit::Usage, error.to_string()).next("`rootcast hosts --help` shows what a selector may be")
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let selector = Selector::parse(&arguments.selector.join(" ")).map_err(|error| wrong(&error))?;
    let wanted = |channel: &ChannelName| arguments.channel.as_ref().is_none_or(|only| only == channel);
    let unanswered = asking::ask(&arguments.asking, |asked, statuses| async move {
        let mut unanswered = BTreeSet::new();
        for status in statuses.iter().filter(|status| wanted(&status.channel)) {
            if statuses.len() > 1 {
                output.line(format!("channel {}", status.channel));
            }
            let mut left = arguments.limit.unwrap_or(usize::MAX);
            let mut is_first = true;
            let each = |rows: &[HostRow]| {
                rows.iter().for_each(|row| output.value(&channel_json(row, status)));
                print(rows, std::mem::take(&mut is_first), output);
            };
            unanswered.extend(pages(&asked, status, &selector, &mut left, each).await?);
        }
        Ok(unanswered)
    })?;
    complete(&unanswered)
}

/// Brings all hosts that match, page by page. Gives the relays that did not answer.
async fn pages(
    asked: &Asked,
    status: &ChannelStatus,
    selector: &Selector,
    left: &mut usize,
    mut each: impl FnMut(&[HostRow]),
) -> Result<BTreeSet<String>, Failure> {
    let mut unanswered = BTreeSet::new();
    let mut after = Some(<(String, String)>::default());
    while let Some(from) = after.take() {
        let limit = (*left).min(MAX_HOSTS_ANSWER) as u64;
        let (channel, selector) = (status.channel.clone(), selector.clone());
        let answer =
            asked.hosts(HostsQuery { channel, selector, limit, after: from.clone(), wait: 0 }).await?;
        each(&answer.hosts);
        *left = left.saturating_sub(answer.hosts.len());
        // A relay that sends the same page for ever gets no further.
        after = page_after(&answer).filter(|next| *next > from && *left > 0);
        unanswered.extend(answer.unanswered);
    }
    Ok(unanswered)
}

/// An answer that lacks hosts is told apart from one that has them all.
fn complete(unanswered: &BTreeSet<String>) -> Result<(), Failure> {
    if unanswered.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = unanswered.iter().map(|name| plain(name)).collect();
    let message = format!("not all: {} did not answer for the hosts below", names.join(", "));
    Err(Failure::new(Exit::Unreachable, message)
        .next("`rootcast status` shows those relays; ask one of them with --relay"))
}

pub(crate) fn one(arguments: &One, output: &Output) -> Result<(), Failure> {
    let Some(name) = &arguments.name else {
        return Err(Failure::new(Exit::Usage, "no host is named")
            .next("`rootcast host NAME`, or `rootcast host --help`"));
    };
    let selector = Selector::named(name).map_err(|error| wrong(&error))?;
    let (found, unanswered) = asking::ask(&arguments.asking, |asked, statuses| async move {
        let (mut found, mut unanswered) = (Vec::new(), BTreeSet::new());
        for status in statuses {
            let mut rows = Vec::new();
            let mut left = usize::MAX;
            unanswered.extend(
                pages(&asked, &status, &selector, &mut left, |page| rows.extend_from_slice(page)).await?,
            );
            found.extend(rows.into_iter().map(|row| (status.clone(), row)));
        }
        Ok((found, unanswered))
    })?;
    for (status, row) in &found {
        output.value(&channel_json(row, status));
        show(status, row, output);
    }
    if found.is_empty() {
        complete(&unanswered)?;
        let message = format!("no host {name} is known here");
        let next = "a host is known while it is connected and for a day after; ask the origin, which knows everybody";
        return Err(Failure::new(Exit::Differences, message).next(next));
    }
    Ok(())
}

/// A host, for programs.
pub(crate) fn row_json(row: &HostRow) -> Value {
    let relays: Vec<String> = row.relays.iter().map(|relay| plain(relay)).collect();
    let own = json!({
        "name": plain(&row.name), "relays": relays, "labels": plain(&row.labels), "expires": row.expires,
    });
    with(own, condition_json(&row.condition))
}

fn channel_json(row: &HostRow, status: &ChannelStatus) -> Value {
    let behind = status.newest().saturating_sub(row.condition.release);
    with(row_json(row), json!({ "channel": status.channel.as_str(), "behind": behind }))
}

fn release(row: &HostRow) -> String {
    if row.condition.release == 0 { "none".into() } else { row.condition.release.to_string() }
}

/// One line for each host, under a heading.
pub(crate) fn print(rows: &[HostRow], heading: bool, output: &Output) {
    if rows.is_empty() {
        return;
    }
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let names: Vec<(String, String)> = rows
        .iter()
        .map(|row| (plain(&row.name), plain(row.relays.last().map_or("", String::as_str))))
        .collect();
    let width = |of: fn(&(String, String)) -> &String, title: &str| {
        names.iter().map(|row| of(row).chars().count()).max().unwrap_or(0).max(title.len())
    };
    let (names_wide, relays_wide) = (width(|row| &row.0, "HOST"), width(|row| &row.1, "RELAY"));
    if heading {
        output.line(format!(
            "{:names_wide$}  {:relays_wide$}  RELEASE  {:8}    SINCE  WHY",
            "HOST", "RELAY", "STATE"
        ));
    }
    for (row, (name, relay)) in rows.iter().zip(&names) {
        let since = age(now().saturating_sub(row.condition.since));
        let mut line = format!(
            "{name:names_wide$}  {relay:relays_wide$}  {:>7}  {}  {since:>7}",
            release(row),
            word(row.condition.state, colours)
        );
        if !row.condition.reason.is_empty() {
            line.push_str(&format!("  {}", plain(&row.condition.reason)));
        }
        output.line(line);
    }
}

fn show(status: &ChannelStatus, row: &HostRow, output: &Output) {
    let since = utc(row.condition.since);
    let since = match row.condition.state {
        HostState::Offline => format!("last seen {since}"),
        _ => format!("since {since}"),
    };
    let path: Vec<String> = row.relays.iter().map(|relay| plain(relay)).collect();
    let behind = match status.newest().saturating_sub(row.condition.release) {
        0 => String::new(),
        behind => format!(", {behind} behind"),
    };
    let labels = if row.labels.is_empty() { "none".into() } else { plain(&row.labels).replace('&', " ") };
    output.line(format!("host         {}", plain(&row.name)));
    output.line(format!("channel      {}", status.channel));
    output.line(format!("release      {}{behind}", release(row)));
    output.line(format!("state        {}, {since}", row.condition.state.as_str()));
    if !row.condition.reason.is_empty() {
        output.line(format!("why          {}", plain(&row.condition.reason)));
    }
    output.line(format!("relays       {}", path.join(" > ")));
    output.line(format!("labels       {labels}"));
    if row.expires > 0 {
        output.line(format!("certificate  ends {}", utc(row.expires)));
    }
    let (files, received, healed) =
        (row.condition.files, bytes(row.condition.received), row.condition.healed);
    output
        .line(format!("files        {files}; {received} received, {healed} objects healed since it started"));
}
