//! One child's streams: its subscription, and the questions it asks.

use crate::joins;
use crate::news::Told;
use crate::publish;
use crate::server::Shared;
use crate::status::Key;
use rootcast::limits::{MAX_FRAME, MAX_NAME, MAX_OPENING, REPORT_GAP};
use rootcast::protocol::{Opening, Report, Subscribe, UpdateAnswer, UpdateRequest, Welcome};
use rootcast::reader::Reader;
use rootcast_replica::{Replica, ReplicaError};
use rootcast_transport::{Code, Connection, PeerName, Receiver, Role, Sender};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

static SESSIONS: AtomicU64 = AtomicU64::new(0);

/// Serves a connection until it ends.
pub(crate) async fn serve(shared: Arc<Shared>, connection: Connection) {
    let mut streams = tokio::task::JoinSet::new();
    let mut unwelcome = pin!(unwelcome(&shared, connection.peer(), connection.expires()));
    loop {
        tokio::select! {
            // First, so that one who is denied is not served a single stream.
            biased;
            reason = &mut unwelcome => {
                tracing::warn!(peer = %connection.peer(), %reason, "connection closed");
                connection.close(Code::REFUSED, reason);
                break;
            }
            stream = connection.accept_bi() => {
                let Ok((sender, receiver)) = stream else { break };
                let (shared, connection) = (shared.clone(), connection.clone());
                streams.spawn(async move {
                    if let Err(error) = stream_of(&shared, &connection, sender, receiver).await {
                        ended(&connection, &error);
                    }
                });
            }
            Some(_) = streams.join_next() => {}
        }
    }
    let reason = connection.closed().await;
    tracing::debug!(peer = %connection.peer(), %reason, "connection ended");
}

/// Waits until the peer may no longer be here, and says why (threat 22).
pub(crate) async fn unwelcome(shared: &Shared, peer: &PeerName, expires: SystemTime) -> &'static str {
    tokio::select! {
        biased;
        () = shared.denied.until_denied(peer) => "denied",
        () = shared.trust.machine().sleep_until(expires) => "the certificate has ended",
    }
}

/// A stream failed: a peer that breaks the protocol loses its connection, and nobody else's.
fn ended(connection: &Connection, error: &ReplicaError) {
    match error {
        ReplicaError::Transport(transport) if transport.fault().is_some() => {
            tracing::warn!(peer = %connection.peer(), %error, "dropped: the peer broke the protocol");
            connection.close(Code::FAULT, &error.to_string());
        }
        _ => tracing::debug!(peer = %connection.peer(), %error, "stream ended"),
    }
}

async fn stream_of(
    shared: &Arc<Shared>,
    connection: &Connection,
    mut sender: Sender,
    mut receiver: Receiver,
) -> Result<(), ReplicaError> {
    let limit = if connection.peer().role() == Role::Agent { MAX_OPENING } else { MAX_FRAME };
    let Some(opening) = receiver.receive_message::<Opening>(limit).await? else { return Ok(()) };
    match opening {
        Opening::Subscribe(subscribe) => subscription(shared, connection, subscribe, sender, receiver).await,
        Opening::Update(request) => {
            let answer = match shared.replica(&request.channel) {
                Some(replica) => pulled(replica, &reader(connection), &request, &mut sender).await?,
                None => Some(UpdateAnswer::NotFound),
            };
            if let Some(answer) = answer {
                sender.send_message(&answer).await?;
                sender.finish()?;
            }
            Ok(())
        }
        Opening::Objects(request) => match shared.replica(&request.channel) {
            Some(replica) => {
                let bundle = request.bundle.clone();
                if !replica.answer_objects(&reader(connection), request, &mut sender).await? {
                    shared.refuse(connection, &format!("objects of bundle {bundle}"));
                }
                Ok(())
            }
            None => Ok(sender.finish()?),
        },
        Opening::Publish(publication) => {
            let answer = publish::take(shared, connection, publication, &mut receiver).await?;
            sender.send_message(&answer).await?;
            Ok(sender.finish()?)
        }
        Opening::Trust(version) => {
            sender.send_message(&shared.trust.answer(version)).await?;
            Ok(sender.finish()?)
        }
        Opening::ApplyTrust(document) => {
            let answer = publish::apply_trust(shared, connection, document).await?;
            sender.send_message(&answer).await?;
            Ok(sender.finish()?)
        }
        Opening::Platform => {
            sender.send_message(&joins::documents(shared)).await?;
            Ok(sender.finish()?)
        }
        Opening::Join(request) => {
            sender.send_message(&shared.answers.answer(request).await).await?;
            Ok(sender.finish()?)
        }
        Opening::Status => {
            shared.tell_own();
            let mut rows = shared.statuses.watch().borrow().clone();
            if connection.peer().role() == Role::Agent {
                // A host sees itself and the relays, and no other host.
                rows.retain(|row| row.role != Role::Agent.as_str() || row.name == connection.peer().name());
            }
            sender.send_message(&Report(rows)).await?;
            Ok(sender.finish()?)
        }
    }
}

/// Who a peer is to the rules of reading, by its certificate.
fn reader(connection: &Connection) -> Reader {
    let peer = connection.peer();
    Reader::new(peer.role(), peer.labels().of_host(peer.name()))
}

/// Answers a pull. `Some` is what is left to be said in a message.
async fn pulled(
    replica: &Arc<Replica>,
    reader: &Reader,
    request: &UpdateRequest,
    sender: &mut Sender,
) -> Result<Option<UpdateAnswer>, ReplicaError> {
    match replica.outgoing(reader, &request.interest, &request.standing).await {
        Ok(Some(outgoing)) => {
            outgoing.answer(sender).await?;
            Ok(None)
        }
        Ok(None) => Ok(Some(UpdateAnswer::Nothing)),
        Err(error) => {
            tracing::warn!(channel = %replica.channel(), %error, "an update could not be made");
            Ok(Some(UpdateAnswer::NotFound))
        }
    }
}

/// Pushes to a child for as long as its control stream is open, and takes its reports.
async fn subscription(
    shared: &Arc<Shared>,
    connection: &Connection,
    subscribe: Subscribe,
    mut sender: Sender,
    mut receiver: Receiver,
) -> Result<(), ReplicaError> {
    let Some(replica) = shared.replica(&subscribe.channel).cloned() else {
        return Ok(sender.finish()?);
    };
    let reader = reader(connection);
    let forbidden = replica.forbidden(&reader, &subscribe.interest);
    if forbidden > 0 {
        shared.refuse(connection, &format!("{forbidden} bundles"));
    }
    let time = shared.trust.machine().seconds();
    let latest = replica.held().map(|held| held.accepted());
    let trust = shared.trust.version();
    sender.send_message(&Welcome { latest, time, alternates: Vec::new(), trust }).await?;
    let news = Told::new(&subscribe, trust);
    // Who is denied is no business of hosts.
    let denials = (connection.peer().role() == Role::Relay).then(|| shared.denials.subscribe());
    let session = SESSIONS.fetch_add(1, Ordering::Relaxed);
    let peer = connection.peer();
    let (name, role, channel) = (peer.name(), peer.role(), &subscribe.channel);
    let key = Key { name: name.into(), role: role.to_string(), channel: channel.to_string() };
    let _ends = Ends { shared, key: &key, session };
    let reports = async {
        // A host's report is one row, of two names and little more.
        let limit = if role == Role::Relay { MAX_FRAME } else { MAX_NAME as u64 * 8 };
        while let Some(Report(rows)) = receiver.receive_message(limit).await? {
            shared.statuses.report(key.clone(), session, &shared.name, rows);
            // One that reports more often waits in its own stream, and nobody else does.
            tokio::time::sleep(REPORT_GAP).await;
        }
        Ok::<(), ReplicaError>(())
    };
    tokio::select! {
        biased;
        outcome = reports => outcome,
        outcome = news.tell(&replica, denials, &mut sender) => outcome,
        outcome = push(&replica, connection, &reader, subscribe) => outcome,
    }
}

/// Notes that a subscription is over, also where its task is dropped with the connection.
struct Ends<'a> {
    shared: &'a Shared,
    key: &'a Key,
    session: u64,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.shared.statuses.lost(self.key, self.session);
    }
}

/// Sends one update after the other; what is newest when a child is ready is what it gets.
async fn push(
    replica: &Arc<Replica>,
    connection: &Connection,
    reader: &Reader,
    subscribe: Subscribe,
) -> Result<(), ReplicaError> {
    let Subscribe { interest, mut standing, subscription, .. } = subscribe;
    let (mut held, mut fresh) = (replica.watch_held(), replica.watch_fresh());
    let mut trust = replica.trust().watch();
    loop {
        held.mark_unchanged();
        fresh.mark_unchanged();
        trust.mark_unchanged();
        match replica.outgoing(reader, &interest, &standing).await {
            Ok(Some(outgoing)) => {
                let mut stream = connection.open_uni().await?;
                let bytes = outgoing.push(subscription, &mut stream).await?;
                let number = outgoing.accepted.number;
                tracing::debug!(peer = %connection.peer(), number, bytes, "pushed");
                standing = outgoing.standing.clone();
                continue;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(peer = %connection.peer(), %error, "no update could be made; trying again after the next change")
            }
        }
        tokio::select! {
            biased;
            changed = held.changed() => changed.map_err(|_| ReplicaError::Stopped)?,
            changed = fresh.changed() => changed.map_err(|_| ReplicaError::Stopped)?,
            changed = trust.changed() => changed.map_err(|_| ReplicaError::Stopped)?,
        }
    }
}
