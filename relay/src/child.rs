//! One child's streams: its subscription, and the questions it asks.

use crate::joins;
use crate::neighbours::{Entered, Neighbours};
use crate::news::Told;
use crate::publish;
use crate::questions;
use crate::server::Shared;
use crate::status::{Channel, Session};
use crate::wanted::Wish;
use rootcast::limits::{
    ANSWER_WAIT, FILL_WAIT, MAX_FRAME, MAX_HOST_REPORT, MAX_OPENING, MAX_STATUS_ANSWER, REPORT_GAP,
};
use rootcast::path::ChannelName;
use rootcast::protocol::{Interest, Opening, Standing, Subscribe, UpdateAnswer, UpdateRequest, Welcome};
use rootcast::reader::Reader;
use rootcast::rollup::{Certified, Child};
use rootcast::status::{Report, StatusAnswer};
use rootcast::topology::{Address, Alternate, Place};
use rootcast_replica::{Outgoing, Replica, ReplicaError, child_of};
use rootcast_transport::{Code, Connection, PeerFault, PeerName, Receiver, Role, Sender, TransportError};
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Above 0, which is the session of those of before our start.
static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// A peer, and what it may have of this relay at once: one update or answer with
/// objects is made for it at a time, however many it asks for.
struct Peer {
    connection: Connection,
    reader: Reader,
    updates: Mutex<()>,
    objects: Mutex<()>,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(shared: Arc<Shared>, connection: Connection) {
    let _counted = shared.peers.connected(connection.peer().role());
    let peer = Arc::new(Peer {
        reader: reader(&connection),
        connection: connection.clone(),
        updates: Mutex::default(),
        objects: Mutex::default(),
    });
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
                let (shared, peer) = (shared.clone(), peer.clone());
                streams.spawn(async move {
                    if let Err(error) = stream_of(&shared, &peer, sender, receiver).await {
                        ended(&shared, &peer.connection, &error);
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
fn ended(shared: &Shared, connection: &Connection, error: &ReplicaError) {
    let fault = match error {
        ReplicaError::Transport(transport) => transport.fault(),
        _ => None,
    };
    match fault {
        Some(fault) => {
            shared.peers.fault(fault);
            tracing::warn!(peer = %connection.peer(), %error, "dropped: the peer broke the protocol");
            connection.close(Code::FAULT, &error.to_string());
        }
        None => tracing::debug!(peer = %connection.peer(), %error, "stream ended"),
    }
}

async fn stream_of(
    shared: &Arc<Shared>,
    peer: &Peer,
    sender: Sender,
    mut receiver: Receiver,
) -> Result<(), ReplicaError> {
    let limit = if peer.connection.peer().role() == Role::Agent { MAX_OPENING } else { MAX_FRAME };
    match receiver.receive_message::<Opening>(limit).await? {
        None => Ok(()),
        // The only one that lasts: the others have no room in each child's task.
        Some(Opening::Subscribe(subscribe)) => subscription(shared, peer, subscribe, sender, receiver).await,
        Some(request) => Box::pin(answer(shared, peer, request, sender, receiver)).await,
    }
}

/// Answers one question.
async fn answer(
    shared: &Arc<Shared>,
    peer: &Peer,
    request: Opening,
    mut sender: Sender,
    mut receiver: Receiver,
) -> Result<(), ReplicaError> {
    let connection = &peer.connection;
    match request {
        Opening::Subscribe(_) => Ok(()), // served elsewhere
        Opening::Update(request) => {
            let answer = match shared.replica(&request.channel) {
                Some(replica) => pulled(shared, replica, peer, &request, &mut sender).await?,
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
                let _turn = peer.objects.lock().await;
                if !replica.answer_objects(&peer.reader, request, &mut sender).await? {
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
        Opening::Condition(channel) => {
            if let (Some(replica), Some(neighbours)) =
                (shared.replica(&channel), shared.neighbours.get(&channel))
            {
                sender.send_message(&neighbours.condition(replica)).await?;
            }
            Ok(sender.finish()?)
        }
        Opening::Status => {
            shared.tell_own();
            let for_host = connection.peer().role() == Role::Agent;
            let channels = shared.statuses.all().map(|channel| channel.status(for_host)).collect();
            sender.send_message(&StatusAnswer(channels)).await?;
            Ok(sender.finish()?)
        }
        Opening::Hosts(query) => {
            let answer = questions::answer_member(shared, connection, query).await;
            sender.send_message(&answer).await?;
            Ok(sender.finish()?)
        }
    }
}

/// Who a peer is to the rules of reading, by its certificate.
fn reader(connection: &Connection) -> Reader {
    let peer = connection.peer();
    Reader::new(peer.role(), peer.labels().of_host(peer.name()))
}

impl Peer {
    /// What it lacks of the newest release.
    async fn outgoing(
        &self,
        replica: &Arc<Replica>,
        interest: &Interest,
        standing: &Standing,
    ) -> Result<Option<Arc<Outgoing>>, ReplicaError> {
        let _turn = self.updates.lock().await;
        replica.outgoing(&self.reader, interest, standing).await
    }

    /// Has this relay want what the peer asks for. A publisher asks for all, of the origin.
    fn wish(&self, shared: &Shared, channel: &ChannelName, asked: &Interest) -> Option<Wish> {
        let wanted = shared.wanted.get(channel)?;
        (self.reader != Reader::Publisher).then(|| Wish::new(wanted, &self.reader, asked))
    }
}

/// Answers a pull, once what is asked for is held here. `Some` is what is left to be said in a message.
async fn pulled(
    shared: &Shared,
    replica: &Arc<Replica>,
    peer: &Peer,
    request: &UpdateRequest,
    sender: &mut Sender,
) -> Result<Option<UpdateAnswer>, ReplicaError> {
    let mut wish = peer.wish(shared, &request.channel, &request.interest);
    let mut held = replica.watch_held();
    let end = Instant::now() + FILL_WAIT;
    loop {
        held.mark_unchanged();
        wish.iter_mut().for_each(Wish::renew);
        let error = match peer.outgoing(replica, &request.interest, &request.standing).await {
            Ok(Some(outgoing)) => {
                outgoing.answer(sender).await?;
                return Ok(None);
            }
            Ok(None) => return Ok(Some(UpdateAnswer::Nothing)),
            Err(error) => error,
        };
        let is_coming = wish.is_some() && matches!(error, ReplicaError::NotHeld(_));
        if is_coming && let Ok(Ok(())) = tokio::time::timeout_at(end, held.changed()).await {
            continue;
        }
        tracing::warn!(channel = %replica.channel(), %error, "an update could not be made");
        return Ok(Some(UpdateAnswer::NotFound));
    }
}

/// Pushes to a child for as long as its control stream is open, and takes its reports.
async fn subscription(
    shared: &Arc<Shared>,
    peer: &Peer,
    subscribe: Subscribe,
    mut sender: Sender,
    mut receiver: Receiver,
) -> Result<(), ReplicaError> {
    let channel = &subscribe.channel;
    let (neighbours, status) = (shared.neighbours.get(channel).cloned(), shared.statuses.channel(channel));
    let (Some(replica), Some(neighbours), Some(status)) =
        (shared.replica(channel).cloned(), neighbours, status)
    else {
        return Ok(sender.finish()?);
    };
    let (connection, reader) = (&peer.connection, &peer.reader);
    let forbidden = replica.forbidden(reader, &subscribe.interest);
    if forbidden > 0 {
        shared.refuse(connection, &format!("{forbidden} bundles"));
    }
    let time = shared.trust.machine().seconds();
    let trust = shared.trust.version();
    let who = child_of(connection.peer());
    let (condition, alternates) = (neighbours.condition(&replica), neighbours.alternates(&who));
    let news = Told::new(&subscribe, trust, &condition, &alternates, who);
    sender.send_message(&Welcome { condition, time, alternates, trust }).await?;
    // Who is denied is no business of hosts.
    let denials = (connection.peer().role() == Role::Relay).then(|| shared.denials.subscribe());
    let role = connection.peer().role();
    let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
    let child = Child { relay: role == Role::Relay, name: connection.peer().name().to_owned() };
    let session = Session { child, number };
    status.connected(&session, connection);
    let _ends = Ends { status, session: &session };
    let _entered = entered(&neighbours, connection, subscribe.serves.clone(), number);
    let wish = peer.wish(shared, channel, &subscribe.interest);
    let reports = async {
        let limit = if role == Role::Relay { MAX_STATUS_ANSWER } else { MAX_HOST_REPORT };
        let mut next = Instant::now();
        while let Some(report) = receiver.receive_message::<Report>(limit).await? {
            // One that reports more often waits in its own stream, and nobody else does.
            if next > Instant::now() {
                Box::pin(tokio::time::sleep_until(next)).await;
            }
            next = Instant::now() + REPORT_GAP;
            // A publisher is nobody's host.
            if role != Role::Publisher {
                let tell = status.report(&session, certified(connection), report);
                questions::tell(tell, replica.channel());
            }
        }
        Ok::<(), ReplicaError>(())
    };
    tokio::select! {
        biased;
        outcome = reports => outcome,
        outcome = news.tell(&replica, &neighbours, denials, &mut sender) => outcome,
        outcome = push(&replica, status, peer, wish, subscribe) => outcome,
    }
}

/// A relay is told of to others. Its name and place are its certificate's.
fn entered(
    neighbours: &Arc<Neighbours>,
    connection: &Connection,
    serves: Option<Address>,
    session: u64,
) -> Option<Entered> {
    let peer = connection.peer();
    // A relay dials from the socket that it listens at, so where it comes from it can be found.
    let address = serves.or_else(|| Address::new(connection.remote().to_string()).ok())?;
    let relay = Alternate { name: peer.member().clone(), place: Place::of(peer.labels()), address };
    (peer.role() == Role::Relay).then(|| neighbours.enter(relay, session))
}

/// What a child's certificate says besides its name.
fn certified(connection: &Connection) -> Certified {
    let expires = connection.expires().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Certified { labels: connection.peer().labels().to_string(), expires }
}

/// Notes that a subscription is over, also where its task is dropped with the connection.
struct Ends<'a> {
    status: &'a Channel,
    session: &'a Session,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.status.lost(self.session);
    }
}

/// Sends one update after the other; what is newest when a child is ready is what it gets.
async fn push(
    replica: &Arc<Replica>,
    status: &Channel,
    peer: &Peer,
    mut wish: Option<Wish>,
    subscribe: Subscribe,
) -> Result<(), ReplicaError> {
    let connection = &peer.connection;
    let Subscribe { interest, mut standing, subscription, mut begun, .. } = subscribe;
    let (mut offered, mut held) = (replica.watch_offered(), replica.watch_held());
    let mut trust = replica.trust().watch();
    // The release of which the child has all that it may.
    let mut settled = None;
    loop {
        // Whatever else changes is nothing to a child that has the newest: it sleeps.
        let is_behind = |newest: &_| settled.is_none() || settled != *newest;
        offered.wait_for(is_behind).await.map_err(|_| ReplicaError::Stopped)?;
        held.mark_unchanged();
        trust.mark_unchanged();
        wish.iter_mut().for_each(Wish::renew);
        match peer.outgoing(replica, &interest, &standing).await {
            Ok(Some(outgoing)) => {
                let mut stream = next_stream(connection).await?;
                // Only of the first update: the child then stands elsewhere.
                let bytes = match mem::take(&mut begun) {
                    none if none.is_empty() => outgoing.push(subscription, &mut stream).await?,
                    begun => Box::pin(outgoing.push_rest(replica, subscription, begun, &mut stream)).await?,
                };
                let number = outgoing.accepted.number;
                status.sent.fetch_add(bytes, Ordering::Relaxed);
                status.pushes.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(peer = %connection.peer(), number, bytes, "pushed");
                standing = outgoing.standing.clone();
                settled = standing.release;
                continue;
            }
            Ok(None) => settled = standing.release,
            Err(error @ ReplicaError::NotHeld(_)) => {
                settled = None;
                tracing::info!(peer = %connection.peer(), %error, "a child waits");
            }
            Err(error) => {
                settled = None;
                tracing::warn!(peer = %connection.peer(), %error, "no update could be made; trying again after the next change")
            }
        }
        tokio::select! {
            biased;
            changed = offered.changed() => changed.map_err(|_| ReplicaError::Stopped)?,
            changed = held.changed() => changed.map_err(|_| ReplicaError::Stopped)?,
            changed = trust.changed() => changed.map_err(|_| ReplicaError::Stopped)?,
        }
    }
}

/// A stream for the next update: before the answers that are under way, so that a
/// large one does not hold a release up. A child that takes none for long is stuck.
async fn next_stream(connection: &Connection) -> Result<Sender, ReplicaError> {
    let Ok(stream) = tokio::time::timeout(ANSWER_WAIT, connection.open_uni()).await else {
        let (peer, fault) = (connection.peer().to_string(), PeerFault::Stalled { wait: ANSWER_WAIT });
        return Err(TransportError::Peer { peer, fault }.into());
    };
    let stream = stream?;
    stream.set_priority(1);
    Ok(stream)
}
