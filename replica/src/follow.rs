//! Following a parent: subscribe, take in what it pushes, heal, report; and
//! when it is lost, the next one.

use crate::fallback::{self, Fallback};
use crate::fill::Filling;
use crate::objects::Objects;
use crate::parents::{Arrived, Parents};
use crate::session::{Kept, answered, pull, receive_update};
use crate::{Received, Replica, ReplicaError, Rule, Update};
use bytes::Bytes;
use rootcast::limits::{ANSWER_WAIT, BEHIND_HEAD_WAIT, MAX_FRAME, MAX_NEWS, MAX_REPAIR_ROUNDS};
use rootcast::protocol::{Interest, News, Opening, Standing, Subscribe, UpdateRequest, Welcome};
use rootcast::resumption::Beginnings;
use rootcast::status::{self, Below, Report};
use rootcast::topology::{Address, Alternate, Alternates, Child, Patience, Route};
use rootcast_transport::{Code, Connection, Endpoint, Receiver, Sender};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What happens while a parent is followed.
#[derive(Debug, Clone)]
pub enum FollowEvent {
    /// A parent answers.
    Connected {
        /// Its name.
        parent: String,
        /// Its address, as configured.
        address: String,
    },
    /// A parent is lost, or could not be reached.
    Lost {
        /// Its address, as configured.
        address: String,
        /// Why.
        reason: String,
    },
    /// QUIC reaches no parent, so HTTPS is used until it does again.
    Fallback {
        /// Why.
        reason: String,
    },
    /// QUIC reaches a parent again: it is followed as usual.
    Returned {
        /// The parent's address, as configured.
        address: String,
    },
    /// A release is held and durable.
    Held {
        /// Its number.
        number: u64,
        /// All bytes that its update took on our streams.
        bytes: u64,
    },
    /// A newer version of the trust document is in force.
    Trust {
        /// Its number.
        version: u64,
    },
    /// The parent passes on who is denied; not verified. For relays.
    Denials {
        /// The signed document.
        document: Bytes,
    },
    /// A head is refused; the one in force stays.
    HeadRefused {
        /// Why.
        reason: String,
    },
    /// An update failed; what was held stays.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Takes a stream that a parent opened, and answers on it without holding up what calls it.
pub type Questions = Arc<dyn Fn(Sender, Receiver) + Send + Sync>;

/// What is reported up, made when it is sent: what happens in the gap between two reports costs nothing.
pub struct Reporting {
    /// Changes when there is something new to say.
    pub changed: watch::Receiver<()>,
    /// Says it.
    pub say: Arc<dyn Fn() -> (status::Condition, Option<Below>) + Send + Sync>,
    /// How long after a change it is said, so that changes that follow each other are one report.
    pub gap: Duration,
}

impl Reporting {
    fn report(&mut self, sequence: u64, before: &str) -> Report {
        self.changed.mark_unchanged();
        let (own, below) = (self.say)();
        Report { sequence, own, before: before.to_owned(), below }
    }
}

/// What it takes to follow a parent.
pub struct Follow {
    /// Our end of the network.
    pub endpoint: Endpoint,
    /// Who we are.
    pub child: Child,
    /// Addresses of parents, as configured, the best first.
    pub parents: Vec<Address>,
    /// How long to wait for what.
    pub patience: Patience,
    /// Where we can be dialled; relays.
    pub serves: Option<Address>,
    /// Where the way to the origin is told; relays.
    pub upstream: Option<watch::Sender<Upstream>>,
    /// Told which addresses to ask: the parent's first, then the others that are known.
    pub ways: watch::Sender<Vec<Address>>,
    /// What is kept up.
    pub replica: Arc<Replica>,
    /// Which bundles; a change subscribes anew.
    pub interest: watch::Receiver<Interest>,
    /// What is said of us and of those below.
    pub report: Reporting,
    /// Takes the streams that a parent opens; a host has nothing to be asked.
    pub questions: Option<Questions>,
    /// What is done where QUIC reaches nobody; nothing, for a relay.
    pub fallback: Option<Fallback>,
    /// Told what happens.
    pub events: Arc<dyn Fn(FollowEvent) + Send + Sync>,
}

/// What a relay knows of those above it, in one channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upstream {
    /// The parent's way to the origin; cut off where there is no parent.
    pub route: Route,
    /// The parent.
    pub parent: Option<Alternate>,
    /// Those that the parent named.
    pub alternates: Alternates,
}

/// How a session ended without anybody's fault.
enum Ended {
    /// By the parent.
    Over,
    /// Others are to be tried first.
    Poor,
    /// There is a better parent, and a connection to it.
    Better(Arrived),
}

/// Follows parents until the future is dropped, as [`Choice`](rootcast::topology::Choice) says which.
pub async fn follow(mut follow: Follow) {
    look_for_damage(&follow.replica).await;
    let mut parents = Parents::open(&follow).await;
    let mut next = None;
    let (mut kept, mut before) = (Kept::default(), String::new());
    loop {
        let arrived = match next.take() {
            Some(arrived) => arrived,
            None => match parents.dial(&*follow.events).await {
                Ok(arrived) => arrived,
                Err(wait) => {
                    if fallback::instead(&mut follow, &parents).await {
                        parents.returned();
                    } else {
                        tokio::time::sleep(wait).await;
                    }
                    continue;
                }
            },
        };
        let (address, connection) = (arrived.address.clone(), arrived.connection.clone());
        let parent = connection.peer().to_string();
        (follow.events)(FollowEvent::Connected { parent, address: address.to_string() });
        let outcome = session(&mut follow, &mut parents, (&mut kept, &mut before), arrived).await;
        connection.close(Code::LEAVING, "the child leaves");
        // Our own disk is no reason to hurry to anybody.
        let ours = matches!(outcome, Err(ReplicaError::Store(_)));
        let reason = match outcome {
            Ok(Ended::Better(better)) => {
                let reason = format!("{} is better", better.connection.peer());
                next = Some(better);
                reason
            }
            Ok(Ended::Poor) => "it is behind or cut off, and others are tried first".into(),
            Ok(Ended::Over) => "it ended the session".into(),
            Err(error) => error.to_string(),
        };
        if next.is_none() {
            parents.lost(&address, ours);
        }
        (follow.events)(FollowEvent::Lost { address: address.to_string(), reason });
    }
}

/// Re-hashes the store once, so that damage is healed before it is needed.
async fn look_for_damage(replica: &Arc<Replica>) {
    let looked = replica.clone();
    let outcome = replica.blocking(move || {
        let damage = looked.find_damage()?;
        if !damage.is_empty() {
            looked.restore_records(&damage)?;
        }
        Ok(())
    });
    if let Err(error) = outcome.await {
        tracing::warn!(%error, "the store could not be checked");
    }
    replica.request_repair();
}

/// One subscription: its control stream's two ends.
struct Control {
    sender: Sender,
    receiver: Receiver,
    number: u64,
    /// What was subscribed to: what is wanted but for what is yet to be fetched.
    interest: Interest,
}

async fn subscribe(
    follow: &mut Follow,
    connection: &Connection,
    number: u64,
    interest: Interest,
    begun: Beginnings,
) -> Result<(Control, Welcome), ReplicaError> {
    let standing = follow.replica.standing(&interest);
    let channel = follow.replica.channel().clone();
    let (mut sender, mut receiver) = connection.open_bi().await?;
    let trust = follow.replica.trust().version();
    let head = follow.replica.head().map_or((0, 0), |head| head.head().rank());
    let (asked, serves) = (interest.clone(), follow.serves.clone());
    let subscribe =
        Subscribe { channel, subscription: number, interest: asked, standing, trust, head, serves, begun };
    sender.send_message(&Opening::Subscribe(subscribe)).await?;
    let welcome = receiver.receive_message(MAX_FRAME);
    let welcome: Option<Welcome> = answered(connection.peer().to_string(), ANSWER_WAIT, welcome).await?;
    let welcome = welcome.ok_or(ReplicaError::NotFound)?;
    Ok((Control { sender, receiver, number, interest }, welcome))
}

/// Subscribes anew where what is wanted, or can be subscribed to, has changed.
async fn resubscribe(
    follow: &mut Follow,
    connection: &Connection,
    filling: &mut Filling,
    control: &mut Control,
) -> Result<(), ReplicaError> {
    let interest = filling.begin(&follow.interest.borrow_and_update());
    if interest != control.interest {
        let (again, welcome) =
            subscribe(follow, connection, control.number + 1, interest, Beginnings::default()).await?;
        *control = again;
        update_trust(follow, connection, welcome.trust).await?;
        follow.report.changed.mark_changed();
    }
    Ok(())
}

/// Fetches the versions of trust up to the one that the parent says it has.
async fn update_trust(follow: &Follow, connection: &Connection, version: u64) -> Result<(), ReplicaError> {
    let trusted = follow.replica.trust();
    if version > trusted.version() && trusted.fetch(connection).await? {
        (follow.events)(FollowEvent::Trust { version: trusted.version() });
    }
    Ok(())
}

/// Takes in what the parent says on the control stream.
async fn hear(
    follow: &Follow,
    parents: &mut Parents,
    connection: &Connection,
    news: News,
) -> Result<(), ReplicaError> {
    let document = match news {
        News::Condition(condition) => return parents.heard(condition),
        News::Alternates(alternates) => {
            parents.learn(alternates).await;
            return Ok(());
        }
        News::Trust(version) => return update_trust(follow, connection, version).await,
        News::Denials(document) => {
            (follow.events)(FollowEvent::Denials { document });
            return Ok(());
        }
        News::Head(document) => document,
    };
    let replica = follow.replica.clone();
    let offered = document.clone();
    let outcome = match follow.replica.blocking(move || replica.accept_head(&offered)).await {
        // Signed by a key that we do not know yet?
        Err(error) if error.is_trust() && follow.replica.trust().fetch(connection).await? => {
            (follow.events)(FollowEvent::Trust { version: follow.replica.trust().version() });
            tracing::debug!(%error, "a head needed a newer version of trust");
            let replica = follow.replica.clone();
            follow.replica.blocking(move || replica.accept_head(&document)).await
        }
        outcome => outcome,
    };
    match outcome {
        // A head that breaks the rule is an alarm, and no reason to lose what else this parent has.
        Err(error @ (ReplicaError::Head(_) | ReplicaError::Verify(_))) => {
            tracing::error!(%error, parent = %connection.peer(), "ALARM: a head is refused");
            (follow.events)(FollowEvent::HeadRefused { reason: error.to_string() });
            Ok(())
        }
        Err(error @ ReplicaError::TrustLapsed { .. }) => {
            tracing::warn!(%error, "a head cannot be judged");
            Ok(())
        }
        outcome => outcome.map(drop),
    }
}

/// Waits until the parent has held less than our head says there is for too long.
pub(crate) async fn behind(replica: &Replica) {
    loop {
        let mut news = (replica.watch_head(), replica.watch_held());
        let head = replica.head().map(|head| head.head().release.rank());
        let held = replica.held().map(|held| held.accepted().rank());
        let wait = async {
            if head > held {
                tokio::time::sleep(BEHIND_HEAD_WAIT).await;
            } else {
                std::future::pending().await
            }
        };
        tokio::select! {
            biased;
            () = wait => return,
            _ = news.0.changed() => {}
            _ = news.1.changed() => {}
        }
    }
}

/// Waits until a moment; for ever for none.
async fn at(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Follows one parent until it is lost, or left for a better one.
async fn session(
    follow: &mut Follow,
    parents: &mut Parents,
    (kept, before): (&mut Kept, &mut String),
    arrived: Arrived,
) -> Result<Ended, ReplicaError> {
    let connection = &arrived.connection;
    let mut filling = Filling::new(&follow.replica, connection);
    let interest = filling.begin(&follow.interest.borrow_and_update());
    let (mut control, welcome) = subscribe(follow, connection, 1, interest, kept.beginnings()).await?;
    let trust = welcome.trust;
    if !parents.welcomed(&arrived, welcome).await? {
        return Ok(Ended::Poor);
    }
    // The relay that knows us as its child still, where it is another.
    let before = std::mem::replace(before, connection.peer().name().to_owned());
    update_trust(follow, connection, trust).await?;
    follow.report.changed.mark_changed();
    let mut sequence = 0;
    let mut report_at: Option<tokio::time::Instant> = None;
    let replica = follow.replica.clone();
    let behind = behind(&replica);
    tokio::pin!(behind);
    loop {
        tokio::select! {
            biased;
            () = replica.withheld.notified() => return Err(ReplicaError::Withheld),
            () = &mut behind => return Err(ReplicaError::Withheld),
            filled = filling.next() => {
                filling.take(filled?).await?;
                resubscribe(follow, connection, &mut filling, &mut control).await?;
            }
            changed = follow.interest.changed() => {
                changed.map_err(|_| ReplicaError::Stopped)?;
                resubscribe(follow, connection, &mut filling, &mut control).await?;
            }
            // Later: what an activation changes one after the other is one report.
            changed = follow.report.changed.changed(), if report_at.is_none() => {
                changed.map_err(|_| ReplicaError::Stopped)?;
                report_at = Some(tokio::time::Instant::now() + follow.report.gap);
            }
            () = at(report_at) => {
                report_at = None;
                sequence += 1;
                let report = follow.report.report(sequence, &before);
                control.sender.send_message(&report).await?;
            }
            _ = replica.repair.notified() => {
                // What this parent cannot mend, the next one is asked to.
                if let Err(error) = heal(follow, connection, &control.interest).await {
                    replica.request_repair();
                    return Err(error);
                }
            }
            news = control.receiver.receive_message::<News>(MAX_NEWS) => match news? {
                Some(news) => hear(follow, parents, connection, news).await?,
                None => return Ok(Ended::Over),
            },
            better = parents.look_around(connection) => return Ok(Ended::Better(better?)),
            asked = connection.accept_bi(), if follow.questions.is_some() => {
                let (sender, receiver) = asked?;
                if let Some(questions) = &follow.questions {
                    questions(sender, receiver);
                }
            }
            // The last: a parent that sends without end keeps nothing else from being done.
            stream = connection.accept_uni() => {
                let mut stream = stream?;
                let peer = connection.peer().to_string();
                let pushed = receive_update(peer, &mut stream, kept).await?;
                if let Some(pushed) = pushed {
                    let bytes = stream.bytes();
                    if pushed.subscription() == control.number {
                        let update = replica.rebuild_anywhere(pushed, &control.interest).await?;
                        take_in(follow, connection, &control.interest, update, bytes).await?;
                        // A relay may have all that it asks for: a parent that leaves some of it out is left.
                        if replica.keep_log && !replica.lacking(&control.interest).is_empty() {
                            return Err(ReplicaError::Withheld);
                        }
                        parents.supplied();
                    }
                }
                if filling.is_outdated() {
                    resubscribe(follow, connection, &mut filling, &mut control).await?;
                }
            }
        }
    }
}

/// Fetches what the held release lacks; where the parent has not all of that,
/// takes in whole what it does have.
async fn heal(follow: &Follow, connection: &Connection, interest: &Interest) -> Result<(), ReplicaError> {
    let replica = &follow.replica;
    match replica.repair(connection).await {
        Ok(0) => {}
        Ok(_) => replica.held.send_modify(|_| {}),
        Err(ReplicaError::Unrepaired(left)) => {
            let standing = Standing { whole: Vec::new(), ..replica.standing(interest) };
            let channel = replica.channel().clone();
            let request = UpdateRequest { channel, interest: interest.clone(), standing };
            let snapshot = pull(connection, request).await?;
            let (update, bytes) = snapshot.ok_or(ReplicaError::Unrepaired(left))?;
            attempt(follow, connection, interest, update, bytes).await?;
            replica.repair(connection).await?;
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Takes in an update; where it does not fit, asks for one that does, and in
/// the end for everything.
async fn take_in(
    follow: &Follow,
    connection: &Connection,
    interest: &Interest,
    update: Option<Update>,
    bytes: u64,
) -> Result<(), ReplicaError> {
    let replica = &follow.replica;
    let attempted = match update {
        Some(ref update) => attempt(follow, connection, interest, update.clone(), bytes).await,
        None => Err(ReplicaError::Unfit),
    };
    // Signed by keys that a newer version of trust may name: judged once more by that.
    let attempted = match (attempted, update) {
        (Err(error), Some(update)) if error.is_trust() && replica.trust().fetch(connection).await? => {
            (follow.events)(FollowEvent::Trust { version: replica.trust().version() });
            attempt(follow, connection, interest, update, bytes).await
        }
        (attempted, _) => attempted,
    };
    let error = match attempted {
        Ok(()) => return Ok(()),
        Err(error) if error.is_offer() => error,
        // Evidence of a bad publisher is not this parent's doing. What runs stays.
        Err(error @ ReplicaError::Refused(_)) => {
            (follow.events)(FollowEvent::Failed { reason: error.to_string() });
            return Ok(());
        }
        Err(error @ ReplicaError::TrustLapsed { .. }) => {
            (follow.events)(FollowEvent::Failed { reason: error.to_string() });
            return Ok(());
        }
        // Our own trouble (a full disk, say) may pass: a new session, after a
        // wait, asks again from where we stand.
        Err(error @ ReplicaError::Store(_)) => {
            (follow.events)(FollowEvent::Failed { reason: error.to_string() });
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    tracing::info!(%error, parent = %connection.peer(), "a pushed update does not fit; asking from where we stand");
    let mut last = error;
    let release = replica.standing(interest).release;
    for standing in [replica.standing(interest), Standing { release, whole: Vec::new() }] {
        let channel = replica.channel().clone();
        let request = UpdateRequest { channel, interest: interest.clone(), standing };
        let pulled = match pull(connection, request).await? {
            Some((update, bytes)) => attempt(follow, connection, interest, update, bytes).await,
            None => Ok(()),
        };
        match pulled {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    (follow.events)(FollowEvent::Failed { reason: last.to_string() });
    Err(last)
}

/// Takes in one update, fetching objects that our own store turns out to lack.
pub(crate) async fn attempt(
    follow: &Follow,
    mut parent: impl Objects,
    interest: &Interest,
    update: Update,
    bytes: u64,
) -> Result<(), ReplicaError> {
    let replica = &follow.replica;
    replica.count_received(bytes);
    let update = Arc::new(update);
    for _ in 0..MAX_REPAIR_ROUNDS {
        let (taking, update, interest) = (replica.clone(), update.clone(), interest.clone());
        let outcome = replica.blocking(move || taking.receive(&update, &interest, Rule::Follow));
        match outcome.await {
            Ok(Received::Held(held)) => {
                let number = held.accepted().number;
                (follow.events)(FollowEvent::Held { number, bytes });
                return Ok(());
            }
            Ok(Received::Known) => return Ok(()),
            Err(ReplicaError::NeedObject(id)) => replica.fetch_any(&mut parent, id).await?,
            Err(error) => return Err(error),
        }
    }
    Err(ReplicaError::Unrepaired(1))
}
