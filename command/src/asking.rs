//! Asking a relay about those below it.

use crate::failure::{Exit, Failure};
use crate::inspect::place::Configured;
use rootcast::limits::{MAX_STATUS_ANSWER, QUESTION_WAIT};
use rootcast::protocol::Opening;
use rootcast::status::{ChannelStatus, HostsAnswer, HostsQuery, StatusAnswer};
use rootcast_replica::Member;
use rootcast_transport::{Code, Connection, Endpoint, TransportError};
use std::future::Future;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Asking {
    /// The configuration of a relay, agent or publisher: its identity and its relay are used
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory of the identity to ask with
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// The relay to ask; the origin knows everybody
    #[arg(long, value_name = "HOST:PORT")]
    relay: Option<String>,
}

/// A relay that answers.
pub(crate) struct Asked {
    /// Its name, as its certificate has it.
    pub(crate) relay: String,
    pub(crate) address: String,
    connection: Connection,
}

/// Asks the first relay that answers: `work` is given the connection to it, and what it knows.
pub(crate) fn ask<F: Future<Output = Result<T, Failure>>, T>(
    arguments: &Asking,
    work: impl FnOnce(Asked, Vec<ChannelStatus>) -> F,
) -> Result<T, Failure> {
    let configured = arguments.config.as_deref().map(Configured::load).transpose()?;
    let identity = arguments.identity.as_ref().or(configured.as_ref().map(|found| &found.identity));
    let identity = identity.ok_or_else(|| {
        Failure::new(Exit::Usage, "no identity to ask with")
            .next("give --config FILE, or --identity DIR and --relay HOST:PORT")
    })?;
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
    crate::publish::runtime()?.block_on(async {
        let endpoint = Endpoint::dial_only(&member.identity)?;
        let (asked, channels) = first(&endpoint, &relays).await?;
        let connection = asked.connection.clone();
        let outcome = work(asked, channels).await;
        connection.close(Code::LEAVING, "answered");
        endpoint.wait_idle().await;
        outcome
    })
}

async fn first(endpoint: &Endpoint, relays: &[String]) -> Result<(Asked, Vec<ChannelStatus>), Failure> {
    let mut failure = Failure::new(Exit::Usage, "no relay to ask");
    for address in relays {
        let outcome = async {
            let connection = endpoint.connect(address).await?;
            let answer: Option<StatusAnswer> = question(&connection, &Opening::Status).await?;
            Ok((connection, answer))
        };
        match outcome.await {
            Ok((connection, Some(StatusAnswer(channels)))) => {
                let relay = connection.peer().name().to_owned();
                return Ok((Asked { relay, address: address.clone(), connection }, channels));
            }
            Ok((connection, None)) => {
                let relay = connection.peer().name();
                let message = format!("relay {relay} at {address} ended without an answer");
                failure = Failure::new(Exit::Unreachable, message);
            }
            Err(error) => failure = explain(address, &error),
        }
    }
    Err(failure)
}

async fn question<T: serde::Serialize + serde::de::DeserializeOwned>(
    connection: &Connection,
    opening: &Opening,
) -> Result<Option<T>, TransportError> {
    let (mut sender, mut receiver) = connection.open_bi().await?;
    sender.send_message(opening).await?;
    sender.finish()?;
    receiver.receive_message(MAX_STATUS_ANSWER).await
}

impl Asked {
    /// One page of hosts.
    pub(crate) async fn hosts(&self, query: HostsQuery) -> Result<HostsAnswer, Failure> {
        let wait = u64::try_from(QUESTION_WAIT.as_millis()).unwrap_or(u64::MAX);
        let opening = Opening::Hosts(HostsQuery { wait, ..query });
        let answer = tokio::time::timeout(QUESTION_WAIT * 2, question(&self.connection, &opening)).await;
        let answer = answer.map_err(|_| {
            Failure::new(
                Exit::TimeOut,
                format!("relay {} at {} took too long to answer", self.relay, self.address),
            )
        })?;
        let answer: Option<HostsAnswer> = answer.map_err(|error| explain(&self.address, &error))?;
        answer.ok_or_else(|| {
            let message = format!("relay {} at {} ended without an answer", self.relay, self.address);
            Failure::new(Exit::Unreachable, message)
        })
    }
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
