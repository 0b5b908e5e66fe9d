//! What is served over HTTPS: the routes from names of resources to the replica
//! (specs/http.md, HT-5 to HT-18).

use crate::config::HttpCache;
use crate::server::Shared;
use bytes::Bytes;
use rootcast::codec;
use rootcast::http::{Resource, Target, Url, entity_tag, has_tag};
use rootcast::limits::{MIB, NEWS_AGE};
use rootcast::path::ChannelName;
use rootcast::reader::Reader;
use rootcast_replica::{Offered, Replica, ReplicaError};
use rootcast_transport::https::{
    HttpAnswer, HttpRequest, HttpsArrival, HttpsListener, HttpsSession, Keep, Verb,
};
use std::sync::Arc;
use tokio::task::JoinSet;

const OK: u16 = 200;
const NOT_MODIFIED: u16 = 304;
const UNAUTHORIZED: u16 = 401;
const NOT_FOUND: u16 = 404;
const NOT_ALLOWED: u16 = 405;
const UNAVAILABLE: u16 = 503;

const COSE: &str = "application/cose";
const CBOR: &str = "application/cbor";
const BYTES: &str = "application/octet-stream";

/// Accepts callers until the future is dropped. A slow handshake holds nobody up.
pub(crate) async fn accept(shared: Arc<Shared>, listener: HttpsListener) {
    let mut callers = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = callers.join_next() => {}
            arrival = listener.accept() => {
                callers.spawn(welcome(shared.clone(), arrival));
            }
        }
    }
}

async fn welcome(shared: Arc<Shared>, arrival: HttpsArrival) {
    let remote = arrival.remote();
    match arrival.arrive().await {
        Ok(session) => serve(shared, session).await,
        Err(error) => tracing::debug!(%remote, %error, "a handshake over TCP failed"),
    }
}

/// Answers requests until the connection ends, or its caller may no longer be here (threat 22).
async fn serve(shared: Arc<Shared>, session: HttpsSession) {
    let (remote, member) = (session.remote(), session.member().cloned());
    let unwelcome = async {
        match &member {
            Some((name, expires)) => crate::child::unwelcome(&shared, name, *expires).await,
            None => std::future::pending().await,
        }
    };
    let served = session.serve(|request| answer(&shared, request));
    tokio::select! {
        biased;
        reason = unwelcome => tracing::warn!(%remote, %reason, "connection over HTTPS closed"),
        outcome = served => {
            if let Err(error) = outcome {
                tracing::debug!(%remote, %error, "a connection over HTTPS ended");
            }
        }
    }
}

async fn answer(shared: &Arc<Shared>, request: HttpRequest) -> HttpAnswer {
    let url: Option<Url> = request.target.parse().ok();
    let url = url.filter(|url| url.platform == shared.trust.newest().trust().platform);
    // What proves itself may come from anybody, whose certificate has ended say.
    if let Some(Url { target: Target::Join, .. }) = url {
        return joined(shared, request).await;
    }
    let caller = request.caller.as_ref().map(|(name, _)| name).filter(|name| !shared.denied.is_denied(name));
    let Some(caller) = caller else { return HttpAnswer::of_status(UNAUTHORIZED) };
    if request.verb != Verb::Get {
        return HttpAnswer::of_status(NOT_ALLOWED);
    }
    let Some(Url { target: Target::Channel(channel, resource), .. }) = url else {
        return HttpAnswer::of_status(NOT_FOUND);
    };
    let reader = Reader::new(caller.role(), caller.labels().of_host(caller.name()));
    // Nobody subscribes over HTTPS: to ask for a bundle is to want it (HT-11a). A publisher asks the origin.
    let wanted = shared.wanted.get(&channel).filter(|_| reader != Reader::Publisher);
    if let (Some(wanted), Some(bundle)) = (wanted, resource.bundle()) {
        wanted.ask(&reader, bundle);
    }
    let outcome = match shared.replica(&channel) {
        Some(replica) => look_up(replica, &reader, &resource).await,
        None => Ok(Offered::Absent),
    };
    match outcome {
        Ok(Offered::Here(found)) => shown(shared, &resource, found, request.if_none_match).await,
        Ok(Offered::Absent) => HttpAnswer::of_status(NOT_FOUND),
        Ok(Offered::Forbidden) => {
            shared.refuse_peer(caller, &resource.to_string());
            HttpAnswer::of_status(NOT_FOUND)
        }
        Err(ReplicaError::NotHeld(_)) if wanted.is_some() => HttpAnswer::of_status(UNAVAILABLE),
        Err(error) => {
            warn(&channel, &resource, &error);
            HttpAnswer::of_status(NOT_FOUND)
        }
    }
}

fn warn(channel: &ChannelName, resource: &Resource, error: &ReplicaError) {
    tracing::warn!(%channel, %resource, %error, "a resource could not be made");
}

/// Requests to renew: few at once, and none of them large.
async fn joined(shared: &Arc<Shared>, request: HttpRequest) -> HttpAnswer {
    if request.verb != Verb::Post {
        return HttpAnswer::of_status(NOT_ALLOWED);
    }
    let Ok(_room) = shared.joiners.try_acquire() else { return HttpAnswer::of_status(UNAVAILABLE) };
    let answer = shared.answers.answer(request.body).await;
    let pieces = vec![codec::encode(&answer).into()];
    HttpAnswer { status: OK, media_type: CBOR, tag: None, keep: Keep::No, pieces }
}

/// A body, and what kind it is of.
struct Found {
    media_type: &'static str,
    pieces: Vec<Bytes>,
}

impl Found {
    fn one(media_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        Self { media_type, pieces: vec![bytes.into()] }
    }
}

/// What a resource is to who asks for it.
async fn look_up(
    replica: &Arc<Replica>,
    reader: &Reader,
    resource: &Resource,
) -> Result<Offered<Found>, ReplicaError> {
    let document = |document: Option<Bytes>| {
        document.map_or(Offered::Absent, |document| Offered::Here(Found::one(COSE, document)))
    };
    Ok(match resource {
        Resource::News(after) => {
            let news = match after {
                Some(after) => replica.news_after(after).await,
                None => replica.news(),
            };
            Offered::Here(Found::one(CBOR, codec::encode(&news)))
        }
        Resource::Trust(version) => {
            let chain = replica.trust().chain();
            let found = version.checked_sub(1).and_then(|before| chain.after(before).next().cloned());
            document(found.filter(|_| *version <= chain.newest().trust().version))
        }
        Resource::Head(epoch, sequence) => document(replica.head_document((*epoch, *sequence))),
        Resource::Release(release) => {
            replica.release_document(*release).await?.map(|bytes| Found::one(COSE, bytes))
        }
        Resource::Leaf(release, bundle) => {
            let leaf = replica.leaf(reader, *release, bundle).await?;
            leaf.map(|leaf| Found::one(CBOR, codec::encode(&leaf)))
        }
        Resource::Edit { to, bundle, from } => {
            let edit = replica.edit(reader, *to, bundle, *from).await?;
            edit.map(|edit| Found { media_type: BYTES, pieces: edit.into_pieces() })
        }
        Resource::Object(release, bundle, object) => {
            let object = replica.object(reader, *release, bundle, *object).await?;
            object.map(|bytes| Found::one(BYTES, bytes))
        }
    })
}

/// The answer with a body, or without it where the caller has it already.
async fn shown(
    shared: &Shared,
    resource: &Resource,
    found: Found,
    if_none_match: Option<String>,
) -> HttpAnswer {
    let Found { media_type, pieces } = found;
    let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
    let tag = if bytes <= MIB {
        Some(entity_tag(&pieces))
    } else {
        // No child's siblings wait for the hash of a large snapshot.
        let hashed = pieces.clone();
        shared.trust.machine().blocking(move || entity_tag(&hashed)).await.ok()
    };
    let seconds = NEWS_AGE.as_secs();
    let keep = match (resource, shared.http_cache) {
        // It stands for the moment at which it was asked for.
        (Resource::News(Some(_)), _) => Keep::No,
        (Resource::News(None), HttpCache::Private) => Keep::PrivateFor(seconds),
        (Resource::News(None), HttpCache::Shared) => Keep::SharedFor(seconds),
        (_, HttpCache::Private) => Keep::Private,
        (_, HttpCache::Shared) => Keep::Shared,
    };
    let known = if_none_match.zip(tag.as_ref()).is_some_and(|(has, tag)| has_tag(&has, tag));
    let (status, pieces) = if known { (NOT_MODIFIED, Vec::new()) } else { (OK, pieces) };
    HttpAnswer { status, media_type, tag, keep, pieces }
}
