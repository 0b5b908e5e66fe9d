//! Following a parent over HTTPS: wait for news, fetch what is new piece by piece,
//! and take it in by the very path of what is pushed (specs/http.md, HT-30 to HT-33).

use crate::follow::{self, Follow, FollowEvent, behind};
use crate::objects::Objects;
use crate::{Held, Replica, ReplicaError, Update};
use bytes::Bytes;
use rootcast::acceptance::Accepted;
use rootcast::codec;
use rootcast::http::{After, EditBody, LeafAnswer, NewsAnswer, Resource, Target, Url};
use rootcast::id::{ObjectId, ProofHash};
use rootcast::limits::{
    ANSWER_WAIT, FILL_WAIT, HTTP_GAP, MAX_DOCUMENT, MAX_EDIT, MAX_HTTP_ANSWER, MAX_NEWS_WAIT, MAX_OBJECT,
};
use rootcast::merkle::{PartialTree, ProofError};
use rootcast::path::BundleName;
use rootcast::protocol::{Interest, ListedBundle, ObjectsRequest, UpdateHead};
use rootcast::tree::empty_root;
use rootcast_transport::TransportError;
use rootcast_transport::https::{Ask, Caches, HttpsConnection, HttpsDialer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How much longer than another answer edits may take to begin: a parent may have to make a snapshot.
const SNAPSHOT_WAITS: u32 = 10;

/// A parent that is asked.
struct Parent {
    connection: HttpsConnection,
    caches: Caches,
    replica: Arc<Replica>,
}

impl Parent {
    fn target(&self, resource: Resource) -> String {
        let platform = self.replica.trust().newest().trust().platform;
        Url { platform, target: Target::Channel(self.replica.channel().clone(), resource) }.to_string()
    }

    async fn get(
        &mut self,
        resource: Resource,
        limit: u64,
        wait: Duration,
    ) -> Result<Option<Bytes>, ReplicaError> {
        let target = self.target(resource);
        let ask = Ask { limit, wait, caches: self.caches };
        Ok(self.connection.get(&target, ask).await?)
    }

    async fn message<T: Serialize + DeserializeOwned>(
        &mut self,
        resource: Resource,
    ) -> Result<Option<T>, ReplicaError> {
        let wait = ANSWER_WAIT;
        let Some(body) = self.get(resource.clone(), MAX_HTTP_ANSWER, wait).await? else { return Ok(None) };
        let decoded = codec::decode(&body, MAX_HTTP_ANSWER);
        decoded.map(Some).map_err(|_| wrong(&resource, "it is not in the form of an answer"))
    }
}

fn wrong(resource: &Resource, reason: &'static str) -> ReplicaError {
    ReplicaError::Answer { resource: resource.to_string(), reason }
}

/// The objects of one release, as a parent has them over HTTPS.
struct Release<'p> {
    parent: &'p mut Parent,
    release: Accepted,
}

impl Objects for Release<'_> {
    fn name(&self) -> String {
        self.parent.connection.peer().to_string()
    }

    async fn objects(&mut self, request: ObjectsRequest) -> Result<Vec<(ObjectId, Bytes)>, ReplicaError> {
        let mut fetched = Vec::new();
        for id in request.objects {
            for caches in [Caches::Welcome, Caches::Avoided] {
                self.parent.caches = caches;
                let resource = Resource::Object(self.release, request.bundle.clone(), id);
                match self.parent.get(resource, MAX_OBJECT, ANSWER_WAIT).await? {
                    Some(bytes) if id.matches(&bytes) => {
                        fetched.push((id, bytes));
                        break;
                    }
                    Some(_) => {
                        let peer = self.name();
                        tracing::warn!(%peer, %id, "a parent, or a cache before it, sent other bytes than this object; dropped");
                    }
                    None => break,
                }
            }
        }
        self.parent.caches = Caches::Welcome;
        Ok(fetched)
    }
}

/// Follows one parent over HTTPS until it is lost. One connection waits for news, the other asks.
pub(crate) async fn session(
    follow: &mut Follow,
    dialer: &HttpsDialer,
    address: &str,
    waits: HttpsConnection,
) -> Result<(), ReplicaError> {
    let replica = follow.replica.clone();
    let connection = dialer.connect(address).await?;
    let mut parent = Parent { connection, caches: Caches::Welcome, replica: replica.clone() };
    let waiting = Parent { connection: waits, caches: Caches::Avoided, replica: replica.clone() };
    let mut known = After { trust: 0, release: (0, 0), head: (0, 0), wait: 0 };
    let mut polling = Box::pin(poll(waiting, known, Instant::now()));
    let behind = behind(&replica);
    tokio::pin!(behind);
    let mut newest = Newest::default();
    follow.interest.mark_unchanged();
    loop {
        tokio::select! {
            biased;
            (waiting, answer) = &mut polling => {
                let answer = answer?;
                hear(follow, &mut parent, &answer, &mut newest).await?;
                // What could not be taken in counts as known, too: it is no news a second time.
                known = After {
                    trust: answer.trust,
                    release: answer.latest.map_or((0, 0), |latest| latest.rank()),
                    head: answer.head,
                    wait: MAX_NEWS_WAIT.as_secs(),
                };
                polling = Box::pin(poll(waiting, known, Instant::now() + HTTP_GAP));
            }
            changed = follow.interest.changed() => {
                changed.map_err(|_| ReplicaError::Stopped)?;
                newest.bring(follow, &mut parent).await?;
            }
            () = again(newest.again) => newest.bring(follow, &mut parent).await?,
            _ = replica.repair.notified() => {
                // What this parent cannot mend, the next one is asked to.
                if let Err(error) = heal(follow, &mut parent).await {
                    replica.request_repair();
                    return Err(error);
                }
            }
            () = replica.withheld.notified() => return Err(ReplicaError::Withheld),
            () = &mut behind => return Err(ReplicaError::Withheld),
        }
    }
}

/// The newest release that a parent has named, and what of it is yet to come.
#[derive(Default)]
struct Newest {
    release: Option<Accepted>,
    /// Since when the parent has said that it has not all of it yet.
    since: Option<Instant>,
    /// When it is asked again.
    again: Option<Instant>,
}

impl Newest {
    /// Brings it; what the parent has yet to fetch it is asked for again (HT-11a).
    async fn bring(&mut self, follow: &Follow, parent: &mut Parent) -> Result<(), ReplicaError> {
        self.again = None;
        let Some(release) = self.release else { return Ok(()) };
        let wait = match bring(follow, parent, release).await {
            Err(ReplicaError::Transport(TransportError::Later { wait, .. })) => wait,
            outcome => {
                self.since = None;
                return outcome;
            }
        };
        self.later(Instant::now(), wait)
    }

    /// Notes that not all of it is there yet.
    fn later(&mut self, now: Instant, wait: Duration) -> Result<(), ReplicaError> {
        if now.saturating_duration_since(*self.since.get_or_insert(now)) >= FILL_WAIT {
            return Err(ReplicaError::Withheld);
        }
        self.again = Some(now + wait);
        Ok(())
    }
}

/// Waits until then; for ever where there is no such time.
async fn again(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Asks what is newer than what is known, and not before a time: whoever answers at
/// once, again and again, is not asked more often.
async fn poll(
    mut parent: Parent,
    known: After,
    not_before: Instant,
) -> (Parent, Result<NewsAnswer, ReplicaError>) {
    tokio::time::sleep_until(not_before).await;
    let resource = Resource::News(Some(known));
    let answer = parent.message(resource).await.and_then(|answer| answer.ok_or(ReplicaError::NotFound));
    (parent, answer)
}

/// Takes in what is new: trust first, by which the rest is judged.
async fn hear(
    follow: &Follow,
    parent: &mut Parent,
    news: &NewsAnswer,
    newest: &mut Newest,
) -> Result<(), ReplicaError> {
    update_trust(follow, parent, news.trust).await?;
    let replica = &follow.replica;
    if news.head > replica.head().map_or((0, 0), |head| head.head().rank()) {
        let resource = Resource::Head(news.head.0, news.head.1);
        // Where there is a newer one already, that is the next news.
        if let Some(document) = parent.get(resource, MAX_DOCUMENT, ANSWER_WAIT).await? {
            let taking = replica.clone();
            match replica.blocking(move || taking.accept_head(&document)).await {
                Err(error @ (ReplicaError::Head(_) | ReplicaError::Verify(_))) => {
                    tracing::error!(%error, parent = %parent.connection.peer(), "ALARM: a head is refused");
                    (follow.events)(FollowEvent::Failed { reason: error.to_string() });
                }
                Err(error @ ReplicaError::TrustLapsed { .. }) => {
                    tracing::warn!(%error, "a head cannot be judged");
                }
                outcome => outcome.map(drop)?,
            }
        }
    }
    // A parent that is behind us has nothing to offer, and does no harm.
    let held = replica.held().map(|held| held.accepted().rank());
    let ahead = |latest: &Accepted| Some(*latest) != newest.release && Some(latest.rank()) >= held;
    if let Some(latest) = news.latest.filter(ahead) {
        newest.release = Some(latest);
        newest.bring(follow, parent).await?;
    }
    Ok(())
}

/// Fetches the versions of trust up to this one; past the caches, where what came is not good.
async fn update_trust(follow: &Follow, parent: &mut Parent, version: u64) -> Result<(), ReplicaError> {
    let trusted = follow.replica.trust().clone();
    while trusted.version() < version {
        let next = Resource::Trust(trusted.version() + 1);
        let Some(document) = parent.get(next, MAX_DOCUMENT, ANSWER_WAIT).await? else { return Ok(()) };
        let taking = trusted.clone();
        match follow.replica.blocking(move || taking.offer(&document)).await {
            Ok(true) => (follow.events)(FollowEvent::Trust { version: trusted.version() }),
            Ok(false) => return Ok(()),
            Err(error) if parent.caches == Caches::Avoided => return Err(error),
            Err(error) => {
                tracing::warn!(%error, parent = %parent.connection.peer(), "asking past the caches");
                parent.caches = Caches::Avoided;
            }
        }
    }
    parent.caches = Caches::Welcome;
    Ok(())
}

/// Brings a release, as far as we are interested: by edits; past the caches on the way,
/// where what they gave was not good; and in the end from nothing.
async fn bring(follow: &Follow, parent: &mut Parent, release: Accepted) -> Result<(), ReplicaError> {
    let mut last = ReplicaError::NotFound;
    for (caches, base) in
        [(Caches::Welcome, Base::Held), (Caches::Avoided, Base::Held), (Caches::Avoided, Base::Nothing)]
    {
        parent.caches = caches;
        let outcome = attempt(follow, parent, release, base).await;
        parent.caches = Caches::Welcome;
        match outcome {
            Ok(()) => return Ok(()),
            // Evidence of a bad publisher is not this parent's doing. What runs stays.
            Err(error @ (ReplicaError::Refused(_) | ReplicaError::TrustLapsed { .. })) => {
                (follow.events)(FollowEvent::Failed { reason: error.to_string() });
                return Ok(());
            }
            Err(error @ ReplicaError::Store(_)) => {
                (follow.events)(FollowEvent::Failed { reason: error.to_string() });
                return Err(error);
            }
            Err(error) if error.is_offer() => {
                tracing::warn!(%error, parent = %parent.connection.peer(), "what came over HTTPS is not good; asking anew");
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    (follow.events)(FollowEvent::Failed { reason: last.to_string() });
    Err(last)
}

/// What edits are asked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    /// What is held.
    Held,
    /// The empty tree.
    Nothing,
}

/// Fetches an update and takes it in.
async fn attempt(
    follow: &Follow,
    parent: &mut Parent,
    release: Accepted,
    base: Base,
) -> Result<(), ReplicaError> {
    let before = parent.connection.bytes();
    let interest = follow.interest.borrow().clone();
    let Some(update) = fetch(parent, &interest, release, base).await? else { return Ok(()) };
    let bytes = parent.connection.bytes().saturating_sub(before);
    // What is lacking is a part of what is held.
    let release = follow.replica.held().map_or(release, |held| held.accepted());
    follow::attempt(follow, Release { parent, release }, &interest, update, bytes).await
}

/// The leaves of these bundles, by index, each with its own proof. What the parent has not yet
/// it hears of all at once.
async fn leaves(
    parent: &mut Parent,
    names: &[BundleName],
    release: Accepted,
) -> Result<BTreeMap<u64, LeafAnswer>, ReplicaError> {
    let (mut answers, mut later) = (BTreeMap::new(), None);
    for name in names {
        let resource = Resource::Leaf(release, name.clone());
        let answer = match parent.message::<LeafAnswer>(resource.clone()).await {
            Ok(Some(answer)) => answer,
            Ok(None) => continue,
            Err(error @ ReplicaError::Transport(TransportError::Later { .. })) => {
                later = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        if answer.leaf.name != *name {
            return Err(wrong(&resource, "it is another bundle's"));
        }
        answers.insert(answer.index, answer);
    }
    later.map_or(Ok(answers), Err)
}

/// The proof of several leaves of a release of `count` bundles together, out of the proofs of each
/// alone (HT-8); `None` where there are none.
fn joined(answers: &BTreeMap<u64, LeafAnswer>, count: u64) -> Result<Option<Vec<ProofHash>>, ProofError> {
    let mut tree: Option<PartialTree> = None;
    for (index, LeafAnswer { leaf, siblings, .. }) in answers {
        let alone = PartialTree::new(count, &BTreeMap::from([(*index, leaf.hash())]), siblings)?;
        match &mut tree {
            None => tree = Some(alone),
            Some(tree) => tree.join(&alone)?,
        }
    }
    let indices: Vec<u64> = answers.keys().copied().collect();
    tree.map(|tree| tree.prove(&indices)).transpose()
}

/// Puts an update together: the release, the leaves with one proof, the edits. `None`
/// where nothing of the release is for us.
async fn fetch(
    parent: &mut Parent,
    interest: &Interest,
    wanted: Accepted,
    base: Base,
) -> Result<Option<Update>, ReplicaError> {
    let Interest::Named(names) = interest else { return Err(ReplicaError::NotFound) };
    let resource = Resource::Release(wanted);
    let document = parent.get(resource.clone(), MAX_DOCUMENT, ANSWER_WAIT).await?;
    let document = document.ok_or(ReplicaError::NotFound)?;
    let replica = parent.replica.clone();
    let release = replica.judging()?.release(replica.channel(), &document)?;
    if release.accepted() != wanted {
        return Err(wrong(&resource, "it is another release"));
    }
    let answers = leaves(parent, names, wanted).await?;
    let Some(siblings) = joined(&answers, release.release().bundles)
        .map_err(|_| wrong(&resource, "the proofs of its leaves do not fit it"))?
    else {
        return Ok(None);
    };
    // Nothing large is fetched for a leaf that nobody signed.
    let leaves = answers.iter().map(|(index, answer)| (*index, answer.leaf.clone())).collect();
    release.bundles(leaves, &siblings)?;
    let held = replica.held();
    let (mut listed, mut edits) = (Vec::new(), Vec::new());
    for (index, LeafAnswer { leaf, .. }) in answers {
        let old = held.as_ref().and_then(|held| held.bundles.leaf(&leaf.name));
        let is_same = old.map_or_else(empty_root, |old| old.root) == leaf.root;
        let mut edit = None;
        if !is_same || (base == Base::Nothing && leaf.root != empty_root()) {
            let from = held.as_ref().filter(|_| old.is_some() && base == Base::Held);
            let body = edits_of(parent, wanted, &leaf.name, from).await?;
            edit = Some(body.head);
            edits.extend(body.edits);
        }
        listed.push(ListedBundle { index, leaf, edit });
    }
    let head = UpdateHead { subscription: 0, release: document, listed, keep_others: false, siblings };
    Ok(Some(Update { head, edits }))
}

/// The edits of one bundle from what is held; from nothing where the parent does not know that any more.
async fn edits_of(
    parent: &mut Parent,
    to: Accepted,
    bundle: &BundleName,
    held: Option<&Arc<Held>>,
) -> Result<EditBody, ReplicaError> {
    let from = held.map(|held| held.accepted());
    let origins: &[Option<Accepted>] = if from.is_some() { &[from, None] } else { &[None] };
    for from in origins {
        let resource = Resource::Edit { to, bundle: bundle.clone(), from: *from };
        // What announces the edits comes on top.
        let limit = MAX_EDIT + MAX_HTTP_ANSWER;
        if let Some(body) = parent.get(resource.clone(), limit, ANSWER_WAIT * SNAPSHOT_WAITS).await? {
            return EditBody::read(&body).map_err(|_| wrong(&resource, "it is not in the form of edits"));
        }
    }
    Err(ReplicaError::Incomplete(bundle.clone()))
}

/// Fetches what the held release lacks; where the parent has not all of that,
/// takes in whole what it does have.
async fn heal(follow: &Follow, parent: &mut Parent) -> Result<(), ReplicaError> {
    let replica = &follow.replica;
    let Some(release) = replica.held().map(|held| held.accepted()) else { return Ok(()) };
    match replica.repair(Release { parent, release }).await {
        Ok(0) => Ok(()),
        Ok(_) => {
            replica.held.send_modify(|_| {});
            Ok(())
        }
        Err(ReplicaError::Unrepaired(_)) => {
            attempt(follow, parent, release, Base::Nothing).await?;
            replica.repair(Release { parent, release }).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ht_11a_a_parent_that_never_gets_what_it_lacks_is_left() {
        let (mut newest, begun, wait) = (Newest::default(), Instant::now(), Duration::from_secs(1));
        newest.later(begun, wait).unwrap();
        assert_eq!(newest.again, Some(begun + wait));
        let late = begun + FILL_WAIT - wait;
        newest.later(late, wait).unwrap();
        assert_eq!(newest.again, Some(late + wait));
        let outcome = newest.later(begun + FILL_WAIT, wait);
        assert!(matches!(outcome, Err(ReplicaError::Withheld)), "{outcome:?}");
    }
}
