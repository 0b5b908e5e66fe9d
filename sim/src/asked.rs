//! What the origin says of all below it, when it is asked as an operator asks.

use crate::error::SimError;
use crate::machine::SimMachine;
use crate::network::Network;
use crate::world::ORIGIN;
use rootcast::limits::MAX_STATUS_ANSWER;
use rootcast::protocol::Opening;
use rootcast::status::{ChannelStatus, HostState, StatusAnswer};
use rootcast_replica::Machine;
use rootcast_transport::{Code, Identity};
use std::path::Path;

/// Asks it, from a machine, as a member.
///
/// # Errors
/// When it does not answer.
pub async fn status(machine: &SimMachine, identity: &Path) -> Result<ChannelStatus, SimError> {
    let failed = |error: String| SimError::Platform(error);
    let identity = Identity::load(identity).map_err(|error| failed(error.to_string()))?;
    let endpoint = machine.dial_only(&identity)?;
    let asking = async {
        let connection = endpoint.connect(&Network::served_at(ORIGIN).to_string()).await?;
        let (mut sender, mut receiver) = connection.open_bi().await?;
        sender.send_message(&Opening::Status).await?;
        sender.finish()?;
        let answer = receiver.receive_message::<StatusAnswer>(MAX_STATUS_ANSWER).await?;
        connection.close(Code::LEAVING, "answered");
        Ok::<_, rootcast_transport::TransportError>(answer)
    };
    let answer = asking.await.map_err(|error| failed(error.to_string()))?;
    let channel = answer.and_then(|StatusAnswer(channels)| channels.into_iter().next());
    channel.ok_or_else(|| failed("the origin has no status".into()))
}

/// Whether a member is as it should be. One that lost its head, and whose floor is above its parent's, is stale
/// until heads travel again (specs/documents.md, D-33).
fn is_good((release, state): (u64, HostState), newest: u64) -> bool {
    release == newest && matches!(state, HostState::Active | HostState::Stale)
}

/// What is wrong with a status, where all relays are there and all hosts show this release.
pub fn wrong(status: &ChannelStatus, relays: usize, hosts: usize, newest: u64) -> Option<String> {
    let online = status.relays.iter().filter(|row| row.condition.state != HostState::Offline);
    let (there, good) = online.fold((0, 0), |(there, good), row| {
        let good_too = is_good((row.condition.release, row.condition.state), newest);
        (there + 1, good + usize::from(good_too))
    });
    let counts = status.relays.iter().flat_map(|row| &row.serving.counts).chain(&status.rest);
    // A host that restarted and came to another relay may be offline at the one before (docs/decisions/0014-status.md).
    let (mut all, mut current) = (0, 0);
    for count in counts.filter(|count| count.state != HostState::Offline) {
        all += count.hosts;
        current += if is_good((count.release, count.state), newest) { count.hosts } else { 0 };
    }
    let (relays, hosts) = (relays + 1, hosts as u64);
    let is_right = (there, good, all, current) == (relays, relays, hosts, hosts);
    let bad = status.relays.iter().filter(|row| row.condition.state != HostState::Active);
    let bad: Vec<String> = bad
        .map(|row| format!("{} {} {}", row.name, row.condition.state.as_str(), row.condition.reason))
        .collect();
    (!is_right).then(|| {
        format!(
            "{bad:?}: the origin counts {there} relays, {good} of them good, and {all} hosts, {current} of them at release \
             {newest}; there are {relays} and {hosts}"
        )
    })
}
