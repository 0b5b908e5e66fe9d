//! `rootcast status`

mod tree;

use crate::failure::{Exit, Failure};
use crate::inspect::place::Configured;
use crate::output::{Output, bytes, plain};
use rootcast::limits::MAX_FRAME;
use rootcast::path::ChannelName;
use rootcast::protocol::{HostState, HostStatus, Opening, Report};
use rootcast_replica::Member;
use rootcast_transport::{Code, Connection, Endpoint, TransportError};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The configuration of a relay, agent or publisher: its identity and its relay are used
    #[arg(long, value_name = "FILE", required_unless_present_all = ["identity", "relay"])]
    config: Option<PathBuf>,
    /// The directory of the identity to ask with
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// The relay to ask; the origin knows everybody
    #[arg(long, value_name = "HOST:PORT")]
    relay: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let configured = arguments.config.as_deref().map(Configured::load).transpose()?;
    let identity = arguments.identity.as_ref().or(configured.as_ref().map(|found| &found.identity));
    let identity =
        identity.ok_or_else(|| Failure::new(Exit::Usage, "no identity; give --identity or --config"))?;
    let relays = match (&arguments.relay, &configured) {
        (Some(relay), _) => vec![relay.clone()],
        (None, Some(configured)) => configured.relays.clone(),
        (None, None) => Vec::new(),
    };
    if relays.is_empty() {
        let message =
            "the configuration does not tell which address to ask (its port is chosen at the start)";
        return Err(Failure::new(Exit::Usage, message).next("give --relay HOST:PORT"));
    }
    let member = Member::load_stateless(identity)?;
    let asked = crate::publish::runtime()?.block_on(ask(&member, &relays))?;
    let channels = by_channel(&asked.rows);
    print_json(&asked, &channels, output);
    if !output.json {
        print(&asked, &channels, output);
    }
    Ok(())
}

/// A relay's answer.
struct Asked {
    /// Its name, as its certificate has it.
    relay: String,
    address: String,
    rows: Vec<HostStatus>,
}

/// Asks the first relay that answers.
async fn ask(member: &Member, relays: &[String]) -> Result<Asked, Failure> {
    let endpoint = Endpoint::dial_only(&member.identity)?;
    let mut failure = Failure::new(Exit::Usage, "no relay to ask");
    for address in relays {
        let outcome = match endpoint.connect(address).await {
            Ok(connection) => {
                let outcome = question(&connection).await;
                connection.close(Code::LEAVING, "answered");
                outcome.map(|rows| (connection.peer().name().to_owned(), rows))
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok((relay, Some(rows))) => {
                endpoint.wait_idle().await;
                return Ok(Asked { relay, address: address.clone(), rows });
            }
            Ok((relay, None)) => {
                failure = Failure::new(
                    Exit::Unreachable,
                    format!("relay {relay} at {address} ended without an answer"),
                );
            }
            Err(error) => failure = explain(address, &error),
        }
    }
    Err(failure)
}

async fn question(connection: &Connection) -> Result<Option<Vec<HostStatus>>, TransportError> {
    let (mut sender, mut receiver) = connection.open_bi().await?;
    sender.send_message(&Opening::Status).await?;
    sender.finish()?;
    let report: Option<Report> = receiver.receive_message(MAX_FRAME).await?;
    Ok(report.map(|Report(rows)| rows))
}

fn explain(address: &str, error: &TransportError) -> Failure {
    let mut failure = Failure::from_transport(error);
    failure.message = format!("relay {address} could not be asked: {}", failure.message);
    match failure.exit {
        Exit::Unreachable => failure.next("start it with `rootcast relay CONFIG`, or give another one with --relay"),
        Exit::Trust => failure.next("ask with an identity of the relay's own platform (`rootcast init PLATFORM --identity ROLE:NAME`)"),
        _ => failure,
    }
}

/// Rows of one channel.
struct Channel<'a> {
    rows: Vec<&'a HostStatus>,
    /// The release of the relay that was asked: the origin's, where it is the origin.
    newest: u64,
}

fn by_channel(rows: &[HostStatus]) -> BTreeMap<&ChannelName, Channel<'_>> {
    let mut channels: BTreeMap<_, Channel<'_>> = BTreeMap::new();
    for row in rows {
        let channel = channels.entry(&row.channel).or_insert(Channel { rows: Vec::new(), newest: 0 });
        if row.parent.is_empty() {
            channel.newest = channel.newest.max(row.release);
        }
        channel.rows.push(row);
    }
    channels
}

/// Counts over the agents.
#[derive(Default)]
struct Counts {
    hosts: u64,
    newest: u64,
    behind: u64,
    stale: u64,
    failed: u64,
    offline: u64,
}

impl Channel<'_> {
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for row in self.rows.iter().filter(|row| row.role == "agent") {
            counts.hosts += 1;
            counts.stale += u64::from(row.state == HostState::Stale);
            match row.state {
                HostState::Offline => counts.offline += 1,
                HostState::Failed => counts.failed += 1,
                HostState::Active | HostState::Stale | HostState::Updating => {
                    let is_newest = row.release >= self.newest;
                    *(if is_newest { &mut counts.newest } else { &mut counts.behind }) += 1;
                }
            }
        }
        counts
    }
}

fn print_json(asked: &Asked, channels: &BTreeMap<&ChannelName, Channel<'_>>, output: &Output) {
    let hosts: Vec<_> = channels
        .values()
        .flat_map(|channel| channel.rows.iter().map(move |row| (row, channel.newest)))
        .map(|(row, newest)| {
            json!({
                "name": plain(&row.name), "role": plain(&row.role), "parent": plain(&row.parent),
                "channel": row.channel.as_str(), "release": row.release, "state": row.state.as_str(),
                "files": row.files, "received": row.received, "healed": row.healed, "refused": row.refused,
                "behind": newest.saturating_sub(row.release),
            })
        })
        .collect();
    let summary = |(name, channel): (&&ChannelName, &Channel<'_>)| {
        let counts = channel.counts();
        json!({
            "channel": name.as_str(), "newest": channel.newest, "hosts": counts.hosts, "on_newest": counts.newest,
            "behind": counts.behind, "stale": counts.stale, "failed": counts.failed, "offline": counts.offline,
        })
    };
    output.value(&json!({
        "relay": asked.relay, "address": asked.address, "hosts": hosts,
        "newest": channels.values().map(|channel| channel.newest).max().unwrap_or(0),
        "channels": channels.iter().map(summary).collect::<Vec<_>>(),
    }));
}

fn print(asked: &Asked, channels: &BTreeMap<&ChannelName, Channel<'_>>, output: &Output) {
    let on_terminal = io::stdout().is_terminal();
    let colours = on_terminal && std::env::var_os("NO_COLOR").is_none();
    output.line(format!("asked relay {} at {}", asked.relay, plain(&asked.address)));
    for (name, channel) in channels {
        output.line(format!("\nchannel {name}, release {}", channel.newest));
        let lines = tree::lines(&channel.rows, on_terminal);
        let width = lines.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, row) in lines {
            output.line(format!("{label:width$}  {}", details(row, channel.newest, colours)));
        }
        let Counts { hosts, newest, behind, stale, failed, offline } = channel.counts();
        let release = channel.newest;
        output.line(format!(
            "{hosts} {}: {newest} on release {release}, {behind} behind, {stale} stale, {failed} failed, {offline} offline",
            if hosts == 1 { "host" } else { "hosts" }
        ));
    }
}

/// What a row says, after its place in the tree.
fn details(row: &HostStatus, newest: u64, colours: bool) -> String {
    let state = format!("{:8}", row.state.as_str());
    let state = match (colours, row.state) {
        (false, _) => state,
        (true, HostState::Active) => format!("\x1b[32m{state}\x1b[0m"),
        (true, HostState::Updating | HostState::Stale) => format!("\x1b[33m{state}\x1b[0m"),
        (true, HostState::Failed | HostState::Offline) => format!("\x1b[31m{state}\x1b[0m"),
    };
    let role = plain(&row.role);
    let release = if row.release == 0 { "none".into() } else { row.release.to_string() };
    let mut text = format!(
        "{role:5}  release {release:<5}  {state}  {} files, {} received",
        row.files,
        bytes(row.received)
    );
    if row.healed > 0 {
        text.push_str(&format!(", {} healed", row.healed));
    }
    if row.refused > 0 {
        text.push_str(&format!(", {} requests refused", row.refused));
    }
    match newest.saturating_sub(row.release) {
        0 => {}
        behind => text.push_str(&format!(", {behind} behind")),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast_transport::{CloseReason, PeerFault};
    use std::time::Duration;

    #[test]
    fn silence_is_unreachable_and_refusal_is_trust() {
        let exit = |error| explain("relay:1", &error).exit;
        let peer = || "127.0.0.1:1".to_owned();
        let fault = PeerFault::HandshakeTimeout { wait: Duration::ZERO };
        assert_eq!(exit(TransportError::Peer { peer: peer(), fault }), Exit::Unreachable);
        let fault = PeerFault::Certificate { reason: "unknown issuer".into() };
        assert_eq!(exit(TransportError::Peer { peer: peer(), fault }), Exit::Trust);
        let reason = CloseReason::RefusedUs { alert: 48, reason: String::new() };
        assert_eq!(exit(TransportError::Closed { peer: peer(), reason }), Exit::Trust);
        let closed = |code| CloseReason::ByPeer { code, reason: String::new() };
        assert_eq!(exit(TransportError::Closed { peer: peer(), reason: closed(Code::REFUSED) }), Exit::Trust);
        assert_eq!(
            exit(TransportError::Closed { peer: peer(), reason: closed(Code::BUSY) }),
            Exit::Unreachable
        );
    }
}
