//! Which answer a request gets.

use super::events::{self, Generations};
use super::{Local, files, values};
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH};
use hyper::{Method, Response, StatusCode};
use rootcast::head::Freshness;
use rootcast::http::has_tag;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{Notify, mpsc};

/// Names the generation that an answer is of.
const GENERATION: HeaderName = HeaderName::from_static("x-rootcast-generation");

/// A request, and whom to tell of its answer.
pub(super) struct Request {
    pub(super) request: hyper::Request<Incoming>,
    /// Told when the answer has no end.
    pub(super) watches: Arc<Notify>,
    /// Told when such an answer is not taken.
    pub(super) stuck: Arc<Notify>,
}

/// The body of an answer.
pub(super) enum Body {
    Whole(Option<Bytes>),
    Events(mpsc::Receiver<Bytes>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Events(events) => {
                events.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

pub(super) async fn answer(request: Request, local: Arc<Local>) -> Response<Body> {
    let path = request.request.uri().path().to_owned();
    let Some(route) = path.strip_prefix("/v1/") else {
        return fault(StatusCode::NOT_FOUND, "all names begin with /v1/");
    };
    let route = route.to_owned();
    if request.request.method() != Method::GET {
        return fault(StatusCode::METHOD_NOT_ALLOWED, "only GET: `rootcast agent` gives the agent orders");
    }
    match route.split_once('/') {
        None if route == "status" => value(StatusCode::OK, &status(&local)),
        None if route == "watch" => watch(&request, &local),
        Some(("files", path)) => file(&request, &local, path).await,
        Some(("values", path)) => values_of(&request, &local, path).await,
        _ => fault(StatusCode::NOT_FOUND, "there are status, files/PATH, values/PATH?key=, and watch"),
    }
}

fn status(local: &Local) -> Value {
    let said = local.said.borrow().clone();
    let (drift, relay) = (local.drift.borrow().clone(), local.relay.borrow().clone());
    let now = local.replica.machine().seconds();
    let ago = |then: u64| (then > 0).then(|| now.saturating_sub(then));
    let generations = local.generations.borrow();
    let active = generations.current();
    let (fresh, until) = match local.replica.freshness() {
        Freshness::Fresh { until } => ("fresh", Some(until)),
        Freshness::Stale => ("stale", None),
    };
    json!({
        "name": local.name,
        "channel": local.replica.channel().as_str(),
        "release": said.release,
        "generation": active.map(|active| active.number),
        "files": said.files,
        "state": said.state.as_str(),
        "reason": said.reason,
        "state_age": ago(said.since),
        "active_age": active.and_then(|active| ago(active.since)),
        "release_age": active.and_then(|active| active.issued).and_then(ago),
        "freshness": fresh,
        "fresh_until": until,
        "relay": {
            "connected": !relay.address.is_empty(),
            "address": relay.address,
            "age": ago(relay.since),
        },
        "drift": {
            "mode": drift.mode.as_str(),
            "state": drift.state(),
            "limit": drift.limit.map(|limit| limit.as_str()),
            "watched": drift.watched,
            "repaired": drift.repaired,
            "differing": drift.differing,
            "checked_age": ago(drift.checked),
            "alarm": drift.alarm,
        },
    })
}

async fn file(request: &Request, local: &Local, path: &str) -> Response<Body> {
    let read = match files::read(local, path, files::WHOLE).await {
        Ok(read) => read,
        Err(error) => return fault(error.status(), &error.to_string()),
    };
    let tag = format!("\"{}\"", read.id);
    let known = request.request.headers().get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| has_tag(known, &tag));
    let mut response = match is_known {
        true => Response::new(Body::Whole(None)),
        false => Response::new(Body::Whole(Some(read.bytes))),
    };
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    head(&mut response, "application/octet-stream", read.generation);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

async fn values_of(request: &Request, local: &Local, path: &str) -> Response<Body> {
    let key = match values::key_of(request.request.uri().query().unwrap_or_default()) {
        Ok(key) => key,
        Err(reason) => return fault(StatusCode::BAD_REQUEST, &reason),
    };
    let read = match files::read(local, path, files::VALUES).await {
        Ok(read) => read,
        Err(error) => return fault(error.status(), &error.to_string()),
    };
    match values::value(&read.path, &read.bytes, &key) {
        Ok(found) => {
            let mut response = value(StatusCode::OK, &found);
            head(&mut response, "application/json", read.generation);
            response
        }
        Err(error) => fault(error.status(), &error.to_string()),
    }
}

fn watch(request: &Request, local: &Local) -> Response<Body> {
    let Ok(permit) = local.room.watchers.clone().try_acquire_owned() else {
        return fault(StatusCode::SERVICE_UNAVAILABLE, "as many watch as may; try again later");
    };
    let after = request.request.headers().get("last-event-id");
    let after = after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let (sender, receiver) = mpsc::channel(1);
    let (generations, stuck) = (local.generations.clone(), request.stuck.clone());
    request.watches.notify_one();
    tokio::spawn(async move {
        events::send(generations, after, sender).await;
        stuck.notify_one();
        drop(permit);
    });
    let mut response = Response::new(Body::Events(receiver));
    let generation = local.generations.borrow().current().map_or(0, |active| active.number);
    head(&mut response, "text/event-stream", generation);
    response
}

fn head(response: &mut Response<Body>, kind: &'static str, generation: u64) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(GENERATION, HeaderValue::from(generation));
}

fn value(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Some(format!("{value}\n").into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn fault(status: StatusCode, reason: &str) -> Response<Body> {
    value(status, &json!({ "error": reason }))
}

impl Generations {
    /// The number of what is live; 0 for nothing.
    pub(super) fn number(&self) -> u64 {
        self.current().map_or(0, |active| active.number)
    }
}
