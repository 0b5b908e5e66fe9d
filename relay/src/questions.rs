//! Which hosts are below: asked of us, and of the relays below us (specs/status.md, ST-22 to ST-25).

use crate::server::Shared;
use rootcast::limits::{MAX_STATUS_ANSWER, QUESTION_HOP_SHARE, QUESTION_WAIT};
use rootcast::path::ChannelName;
use rootcast::rollup::merge;
use rootcast::selector::Selector;
use rootcast::status::{HostsAnswer, HostsQuery, Move, Question};
use rootcast_replica::ReplicaError;
use rootcast_transport::{Connection, Receiver, Role, Sender};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Answers a member's question. A host learns of itself alone (ST-21).
pub(crate) async fn answer_member(
    shared: &Shared,
    connection: &Connection,
    mut query: HostsQuery,
) -> HostsAnswer {
    if connection.peer().role() != Role::Agent {
        return answer(shared, query).await;
    }
    let Some(channel) = shared.statuses.channel(&query.channel) else { return HostsAnswer::default() };
    let name = connection.peer().name();
    match Selector::named(name) {
        Ok(selector) => query.selector = selector,
        Err(_) => return HostsAnswer::default(),
    }
    let own = channel.page(&query).0;
    if !own.hosts.is_empty() {
        return own;
    }
    // It follows another relay. Hosts are many, so they do not take the room of those who operate.
    let Ok(_turn) = shared.host_questions.acquire().await else { return own };
    answer(shared, query).await
}

/// Answers with our own hosts, and with those of the relays below. What does not
/// answer in its share of the time is named, and holds nothing up beyond that.
pub(crate) async fn answer(shared: &Shared, query: HostsQuery) -> HostsAnswer {
    let Some(channel) = shared.statuses.channel(&query.channel) else { return HostsAnswer::default() };
    let Ok(_room) = shared.questions.acquire().await else { return HostsAnswer::default() };
    let wait = Duration::from_millis(query.wait).min(QUESTION_WAIT);
    let wait = wait - wait / QUESTION_HOP_SHARE;
    let (mut own, ask, gone) = channel.page(&query);
    own.unanswered = gone;
    let mut asked = JoinSet::new();
    for (name, connection) in ask {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let query = HostsQuery { wait: wait_ms, ..query.clone() };
        asked.spawn(async move {
            let outcome = tokio::time::timeout(wait, ask_relay(&connection, query)).await;
            (name, outcome.ok().and_then(Result::ok))
        });
    }
    let mut below = Vec::new();
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((name, Some(answer))) => below.push((name, answer)),
            Ok((name, None)) => own.unanswered.push(name),
            Err(_) => {}
        }
    }
    merge(&shared.name, own, below, &query)
}

async fn ask_relay(connection: &Connection, query: HostsQuery) -> Result<HostsAnswer, ReplicaError> {
    let (mut sender, mut receiver) = connection.open_bi().await?;
    sender.send_message(&Question::Hosts(query)).await?;
    sender.finish()?;
    receiver.receive_message(MAX_STATUS_ANSWER).await?.ok_or(ReplicaError::NotFound)
}

/// Takes a stream that our parent opened, and answers it beside everything else.
pub(crate) fn hear(shared: Arc<Shared>, mut sender: Sender, mut receiver: Receiver) {
    tokio::spawn(async move {
        let outcome = async {
            match receiver.receive_message::<Question>(MAX_STATUS_ANSWER).await? {
                Some(Question::Hosts(query)) => {
                    sender.send_message(&answer(&shared, query).await).await?;
                }
                Some(Question::Moved(channel, moves)) => {
                    if let Some(known) = shared.statuses.channel(&channel) {
                        tell(known.moved(moves), &channel);
                    }
                }
                None => {}
            }
            sender.finish()?;
            Ok::<(), ReplicaError>(())
        };
        if let Err(error) = outcome.await {
            tracing::debug!(%error, "a question from above was not answered");
        }
    });
}

/// Tells child relays which of their hosts are elsewhere now (ST-8). One that does not hear
/// of it shows them as offline for a time, which is no reason to wait or to try again.
pub(crate) fn tell(moves: Vec<(Connection, Move)>, channel: &ChannelName) {
    let mut by_relay: BTreeMap<String, (Connection, Vec<Move>)> = BTreeMap::new();
    for (connection, moved) in moves {
        let name = connection.peer().name().to_owned();
        by_relay.entry(name).or_insert_with(|| (connection, Vec::new())).1.push(moved);
    }
    for (connection, moves) in by_relay.into_values() {
        let question = Question::Moved(channel.clone(), moves);
        tokio::spawn(async move {
            let sent = async {
                let (mut sender, _receiver) = connection.open_bi().await?;
                sender.send_message(&question).await?;
                sender.finish_delivered().await
            };
            if let Err(error) = sent.await {
                tracing::debug!(%error, "a child relay was not told of hosts that moved");
            }
        });
    }
}
