//! The accepting side: connections, handshakes, requests, each within bounds.

use super::bearer::{Gate, member_of};
use super::patience::Patient;
use super::{ALPN, HttpAnswer, HttpRequest, Keep, Proof, Verb};
use crate::error::{PeerFault, TransportError};
use crate::identity::Identity;
use crate::name::PeerName;
use crate::{totals, tuning};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rootcast::limits::{
    HANDSHAKE_WAIT, HTTP_HEAD_WAIT, HTTP_RETRY, MAX_HTTP_BODY, MAX_HTTP_CONNECTIONS, MAX_HTTP_HANDSHAKES,
    MAX_HTTP_HEAD, MAX_HTTP_LINES, MAX_HTTP_REQUESTS, MAX_HTTP_STRANGERS, RETRY_FIRST, STREAM_WAIT,
};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long an answer that never changes may be kept, in seconds: a year, which stands for ever.
const FOR_EVER: u64 = 365 * 24 * 3600;

/// How many callers there may be, and how long they may take to say what they want.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HttpCaps {
    pub(crate) connections: usize,
    pub(crate) strangers: usize,
    pub(crate) handshakes: usize,
    pub(crate) head_wait: Duration,
}

impl HttpCaps {
    pub(crate) const STANDARD: Self = Self {
        connections: MAX_HTTP_CONNECTIONS,
        strangers: MAX_HTTP_STRANGERS,
        handshakes: MAX_HTTP_HANDSHAKES,
        head_wait: HTTP_HEAD_WAIT,
    };
}

/// A TCP socket under a relay's identity. Cheap to clone; all clones are one listener.
#[derive(Debug, Clone)]
pub struct HttpsListener {
    tcp: Arc<TcpListener>,
    tls: Arc<RwLock<Arc<rustls::ServerConfig>>>,
    gate: Gate,
    connections: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    head_wait: Duration,
}

fn tls_of(identity: &Identity) -> Result<Arc<rustls::ServerConfig>, TransportError> {
    let mut tls = tuning::server_tls(identity, None)?;
    tls.alpn_protocols = vec![ALPN.into()];
    Ok(Arc::new(tls))
}

impl HttpsListener {
    /// Opens a socket and accepts callers; only a relay's identity can.
    ///
    /// # Errors
    /// When the address cannot be had, or the identity is none of a relay.
    pub fn listen(identity: &Identity, address: SocketAddr) -> Result<Self, TransportError> {
        Self::listen_with(identity, address, HttpCaps::STANDARD)
    }

    pub(crate) fn listen_with(
        identity: &Identity,
        address: SocketAddr,
        caps: HttpCaps,
    ) -> Result<Self, TransportError> {
        crate::endpoint::may_listen(identity)?;
        let bind = |source| TransportError::BindTcp { address, source };
        let tcp = std::net::TcpListener::bind(address).map_err(bind)?;
        tcp.set_nonblocking(true).map_err(bind)?;
        let tcp = Arc::new(TcpListener::from_std(tcp).map_err(bind)?);
        Ok(Self {
            tcp,
            tls: Arc::new(RwLock::new(tls_of(identity)?)),
            gate: Gate::of(identity),
            connections: Arc::new(Semaphore::new(caps.connections)),
            strangers: Arc::new(Semaphore::new(caps.strangers)),
            handshakes: Arc::new(Semaphore::new(caps.handshakes)),
            head_wait: caps.head_wait,
        })
    }

    /// The address of the socket, with the port that the system chose.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_addr(&self) -> Result<SocketAddr, TransportError> {
        let bind = |source| TransportError::BindTcp { address: crate::socket::ANY, source };
        self.tcp.local_addr().map_err(bind)
    }

    /// Uses a renewed certificate of the same member for new connections.
    ///
    /// # Errors
    /// When TLS does not take it; then nothing changes.
    pub fn adopt(&self, identity: &Identity) -> Result<(), TransportError> {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls_of(identity)?;
        Ok(())
    }

    /// The next caller. Beyond a cap callers are turned away at once; nothing of the
    /// handshake is waited for here.
    pub async fn accept(&self) -> HttpsArrival {
        loop {
            let (stream, remote) = match self.tcp.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // For want of descriptors, say: they come back as connections end.
                    tracing::warn!(%error, "a caller over TCP could not be accepted");
                    tokio::time::sleep(RETRY_FIRST).await;
                    continue;
                }
            };
            let room = Arc::clone(&self.connections).try_acquire_owned();
            let handshake = Arc::clone(&self.handshakes).try_acquire_owned();
            let (Ok(room), Ok(handshake)) = (room, handshake) else {
                tracing::debug!(%remote, "turned away over TCP for want of room");
                continue;
            };
            let tls = self.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
            let (gate, head_wait) = (self.gate.clone(), self.head_wait);
            let strangers = Arc::clone(&self.strangers);
            return HttpsArrival {
                stream,
                remote,
                tls,
                gate,
                head_wait,
                strangers,
                room,
                _handshake: handshake,
            };
        }
    }
}

/// A caller whose handshake has not been looked at. Dropping it ends it.
#[derive(Debug)]
pub struct HttpsArrival {
    stream: TcpStream,
    remote: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    gate: Gate,
    head_wait: Duration,
    strangers: Arc<Semaphore>,
    room: OwnedSemaphorePermit,
    _handshake: OwnedSemaphorePermit,
}

impl HttpsArrival {
    /// Where the caller is.
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Completes the handshake, within [`HANDSHAKE_WAIT`]. A certificate, where there is
    /// one, verifies and names a member of our platform.
    ///
    /// # Errors
    /// When the handshake fails, or the caller may not be here.
    pub async fn arrive(self) -> Result<HttpsSession, TransportError> {
        let peer = || self.remote.to_string();
        // Small answers are not held back for more to come.
        let _ = self.stream.set_nodelay(true);
        let shaking = TlsAcceptor::from(self.tls).accept(self.stream);
        let stream = match timeout(HANDSHAKE_WAIT, shaking).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(TransportError::of_tls(peer(), source)),
            Err(_) => {
                let fault = PeerFault::HandshakeTimeout { wait: HANDSHAKE_WAIT };
                return Err(TransportError::Peer { peer: peer(), fault });
            }
        };
        let fault = |fault| TransportError::Peer { peer: peer(), fault };
        let chain = stream.get_ref().1.peer_certificates();
        let member = match chain.map(member_of) {
            Some(Ok((name, expires))) => Some((name, expires)),
            Some(Err(error)) => return Err(fault(error.into())),
            None => None,
        };
        let (ours, theirs) = (self.gate.platform(), member.as_ref().map(|(name, _)| name.platform()));
        if let Some(theirs) = theirs.filter(|theirs| *theirs != ours) {
            return Err(fault(PeerFault::OtherPlatform { theirs, ours }));
        }
        let mut room = vec![self.room];
        if member.is_none() {
            // So that those who prove nothing can never take all the room.
            let stranger = self.strangers.try_acquire_owned().map_err(|_| fault(PeerFault::NoCertificate))?;
            room.push(stranger);
        }
        let (remote, gate, head_wait) = (self.remote, self.gate, self.head_wait);
        Ok(HttpsSession { stream, remote, gate, head_wait, member, _room: room })
    }
}

/// A connection over which requests come.
#[derive(Debug)]
pub struct HttpsSession {
    stream: TlsStream<TcpStream>,
    remote: SocketAddr,
    gate: Gate,
    head_wait: Duration,
    member: Option<(PeerName, SystemTime)>,
    _room: Vec<OwnedSemaphorePermit>,
}

impl HttpsSession {
    /// Where the caller is.
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Who the certificate says is there, and until when that is good; `None`
    /// where there is none: a proxy, or one that comes to renew.
    pub const fn member(&self) -> Option<&(PeerName, SystemTime)> {
        self.member.as_ref()
    }

    /// Answers requests until the connection ends. `answer` is called for each, one after the other.
    ///
    /// # Errors
    /// When the caller breaks HTTP, or takes too long.
    pub async fn serve<F, A>(self, answer: F) -> Result<(), TransportError>
    where
        F: Fn(HttpRequest) -> A,
        A: Future<Output = HttpAnswer>,
    {
        let peer = match &self.member {
            Some((name, _)) => name.to_string(),
            None => self.remote.to_string(),
        };
        let asked = AtomicU64::new(0);
        let (member, gate) = (self.member.map(|(name, _)| name), self.gate);
        let service = service_fn(|request: Request<Incoming>| {
            let last = asked.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_HTTP_REQUESTS;
            let (member, gate, answer) = (member.as_ref(), &gate, &answer);
            async move {
                let answered = match understood(request, member, gate).await {
                    Ok(request) => answer(request).await,
                    Err(status) => HttpAnswer::of_status(status),
                };
                Ok::<_, Infallible>(response(answered, last))
            }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_wait)
            .max_headers(MAX_HTTP_LINES)
            .max_buf_size(MAX_HTTP_HEAD)
            .serve_connection(TokioIo::new(Patient::new(self.stream)), service)
            .await
            .map_err(|source| TransportError::Http { peer, source })
    }
}

/// Reads a request; the error is the status to answer with.
async fn understood(
    request: Request<Incoming>,
    member: Option<&PeerName>,
    gate: &Gate,
) -> Result<HttpRequest, u16> {
    let verb = match *request.method() {
        Method::GET => Verb::Get,
        Method::POST => Verb::Post,
        _ => Verb::Other,
    };
    let target = match request.uri().path_and_query() {
        // Only what stands behind a host: a proxy's form of a request is none of ours.
        Some(target) if request.uri().authority().is_none() => target.as_str().to_owned(),
        _ => return Err(StatusCode::BAD_REQUEST.as_u16()),
    };
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let caller = match request.headers().get(AUTHORIZATION) {
        Some(value) => {
            let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
            let opened = token.map(|token| gate.open(token, &target, SystemTime::now()));
            match opened {
                Some(Ok(name)) => Some((name, Proof::Token)),
                refused => {
                    let reason = refused.and_then(Result::err).map(|fault| fault.to_string());
                    tracing::warn!(reason = reason.as_deref().unwrap_or("not a token"), "a token is refused");
                    return Err(StatusCode::UNAUTHORIZED.as_u16());
                }
            }
        }
        None => member.map(|name| (name.clone(), Proof::Certificate)),
    };
    let if_none_match = request.headers().get(IF_NONE_MATCH).and_then(text);
    let asks_anew = request.headers().get(CACHE_CONTROL).is_some_and(|value| value == "no-cache");
    let body = Limited::new(request.into_body(), MAX_HTTP_BODY);
    let body = match timeout(STREAM_WAIT, body.collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err(StatusCode::PAYLOAD_TOO_LARGE.as_u16()),
        Err(_) => return Err(StatusCode::REQUEST_TIMEOUT.as_u16()),
    };
    Ok(HttpRequest { verb, target, if_none_match, asks_anew, caller, body })
}

fn response(answer: HttpAnswer, last: bool) -> Response<Pieces> {
    let length: u64 = answer.pieces.iter().map(|piece| piece.len() as u64).sum();
    totals::count_sent(length);
    let mut response = Response::new(Pieces { left: length, pieces: answer.pieces.into() });
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.media_type));
    if let Some(tag) = answer.tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
        headers.insert(ETAG, tag);
    }
    let keep = match answer.keep {
        Keep::No => "no-store".to_owned(),
        Keep::Private => format!("private, max-age={FOR_EVER}, immutable"),
        Keep::Shared => format!("public, max-age={FOR_EVER}, immutable"),
        Keep::PrivateFor(seconds) => format!("private, max-age={seconds}"),
        Keep::SharedFor(seconds) => format!("public, max-age={seconds}"),
    };
    if let Ok(keep) = HeaderValue::from_str(&keep) {
        headers.insert(CACHE_CONTROL, keep);
    }
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            // One who proves nothing keeps no connection.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, HeaderValue::from(HTTP_RETRY.as_secs()));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        // What the rest of such a body would be taken for is anybody's guess.
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT | StatusCode::BAD_REQUEST => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    if last {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A body that is there already, in pieces.
struct Pieces {
    left: u64,
    pieces: VecDeque<Bytes>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        self.left = self.left.saturating_sub(piece.as_ref().map_or(0, |piece| piece.len() as u64));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
