//! The asking side: one connection, one question after the other.

use super::ALPN;
use super::bearer::{Signer, member_of};
use crate::endpoint::{nobody, resolved};
use crate::error::{PeerFault, TransportError};
use crate::identity::Identity;
use crate::name::{PeerName, RELAY_SERVER_NAME};
use crate::sender::Pace;
use crate::{totals, tuning};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, HOST, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rootcast::id::PlatformId;
use rootcast::limits::{ANSWER_WAIT, HANDSHAKE_WAIT, HTTP_RETRY, MAX_HTTP_HEAD, MAX_HTTP_LINES, STREAM_WAIT};
use rootcast::member::Role;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What caches on the way may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caches {
    /// They may.
    Welcome,
    /// They are to ask anew: what they gave was not good.
    Avoided,
}

/// What bounds the answer to a question.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Most bytes of its body.
    pub limit: u64,
    /// Longest until it begins.
    pub wait: Duration,
    /// Who may give it.
    pub caches: Caches,
}

/// What it takes to dial.
#[derive(Debug)]
struct Own {
    tls: Arc<rustls::ClientConfig>,
    signer: Signer,
    platform: PlatformId,
}

impl Own {
    fn of(identity: &Identity) -> Result<Arc<Self>, TransportError> {
        Self::with(tuning::client_tls(identity)?, identity)
    }

    fn with(mut tls: rustls::ClientConfig, identity: &Identity) -> Result<Arc<Self>, TransportError> {
        tls.alpn_protocols = vec![ALPN.into()];
        // Connections are few here, and none is resumed (HT-1).
        tls.send_ticket_request = None;
        let (signer, platform) = (Signer::of(identity)?, identity.name().platform());
        Ok(Arc::new(Self { tls: Arc::new(tls), signer, platform }))
    }
}

/// Dials relays over TCP under one identity. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpsDialer(Arc<RwLock<Arc<Own>>>);

impl HttpsDialer {
    /// Dials as this member.
    ///
    /// # Errors
    /// When TLS does not take the identity.
    pub fn new(identity: &Identity) -> Result<Self, TransportError> {
        Ok(Self(Arc::new(RwLock::new(Own::of(identity)?))))
    }

    /// Dials without showing a certificate: it has ended, and a request to renew proves itself.
    ///
    /// # Errors
    /// When TLS does not take the authority.
    pub fn nameless(identity: &Identity) -> Result<Self, TransportError> {
        let own = Own::with(tuning::nameless_tls(identity.authority())?, identity)?;
        Ok(Self(Arc::new(RwLock::new(own))))
    }

    /// Uses a renewed certificate of the same member for new connections.
    ///
    /// # Errors
    /// When TLS does not take it; then nothing changes.
    pub fn adopt(&self, identity: &Identity) -> Result<(), TransportError> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Own::of(identity)?;
        Ok(())
    }

    fn own(&self) -> Arc<Own> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Dials the relay, or what stands before it with a relay's certificate, at `host:port`.
    ///
    /// # Errors
    /// When nobody answers there, or it is no relay of our platform.
    pub async fn connect(&self, address: &str) -> Result<HttpsConnection, TransportError> {
        let live = Live::dial(&self.own(), address).await?;
        let (dialer, address) = (self.clone(), address.to_owned());
        Ok(HttpsConnection { dialer, address, live, token: None, bytes: 0 })
    }
}

/// What reads and writes a connection, until that is dropped.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection as it is now.
#[derive(Debug)]
struct Live {
    sender: SendRequest<Full<Bytes>>,
    peer: PeerName,
    /// Whether it has answered before: then the other end may have ended it for idleness since.
    used: bool,
    _driver: Driver,
}

impl Live {
    async fn dial(own: &Own, address: &str) -> Result<Self, TransportError> {
        let found = resolved(address).await?;
        let end = Instant::now() + HANDSHAKE_WAIT;
        let mut outcome = Err(nobody(address));
        for (tried, candidate) in found.iter().enumerate() {
            let left = end.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(found.len() - tried).unwrap_or(1);
            outcome = Self::dial_one(own, *candidate, share).await;
            match &outcome {
                Ok(_) => break,
                Err(error) => tracing::debug!(%candidate, %error, "could not connect over TCP"),
            }
        }
        outcome
    }

    async fn dial_one(own: &Own, address: SocketAddr, wait: Duration) -> Result<Self, TransportError> {
        let peer = || address.to_string();
        let shaking = async {
            let tcp = TcpStream::connect(address)
                .await
                .map_err(|source| TransportError::Tcp { peer: peer(), source })?;
            // Small questions are not held back for more to come.
            let _ = tcp.set_nodelay(true);
            let name = ServerName::try_from(RELAY_SERVER_NAME)
                .map_err(|error| TransportError::Tls { source: rustls::Error::General(error.to_string()) })?;
            let connecting = TlsConnector::from(own.tls.clone()).connect(name, tcp);
            connecting.await.map_err(|source| TransportError::of_tls(peer(), source))
        };
        let Ok(shaken) = timeout(wait, shaking).await else {
            let fault = PeerFault::HandshakeTimeout { wait };
            return Err(TransportError::Peer { peer: peer(), fault });
        };
        let stream = shaken?;
        let name =
            relay_of(&stream, own.platform).map_err(|fault| TransportError::Peer { peer: peer(), fault })?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HTTP_HEAD)
            .max_headers(MAX_HTTP_LINES * 2) // proxies add some
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| TransportError::Http { peer: name.to_string(), source })?;
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer hears of the error.
            let _ = connection.await;
        });
        Ok(Self { sender, peer: name, used: false, _driver: Driver(driver) })
    }
}

/// Who is there, by the same rule as over QUIC (specs/wire.md, W-4); rustls has verified the chain.
fn relay_of(stream: &TlsStream<TcpStream>, ours: PlatformId) -> Result<PeerName, PeerFault> {
    let chain = stream.get_ref().1.peer_certificates().ok_or(PeerFault::NoCertificate)?;
    let (name, _) = member_of(chain)?;
    let theirs = name.platform();
    if theirs != ours {
        return Err(PeerFault::OtherPlatform { theirs, ours });
    }
    match name.role() {
        Role::Relay => Ok(name),
        role => Err(PeerFault::NotARelay { role }),
    }
}

/// A way to ask one parent. Where its connection ends between two questions, it is made anew.
#[derive(Debug)]
pub struct HttpsConnection {
    dialer: HttpsDialer,
    address: String,
    live: Live,
    /// Present once the other end has asked who we are; with the time for the next one.
    token: Option<(String, SystemTime)>,
    bytes: u64,
}

impl HttpsConnection {
    /// Who is there, by its certificate.
    pub const fn peer(&self) -> &PeerName {
        &self.live.peer
    }

    /// Bytes of all answers' bodies so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Asks for a resource; `None` where there is none that we may read.
    ///
    /// # Errors
    /// [`TransportError::Later`] where it is yet to come; or when the other end or the network fails, or the
    /// answer is over its bounds.
    pub async fn get(&mut self, target: &str, ask: Ask) -> Result<Option<Bytes>, TransportError> {
        self.exchange(Method::GET, target, Bytes::new(), ask).await
    }

    /// Brings something; `None` where it is not taken.
    ///
    /// # Errors
    /// As [`HttpsConnection::get`].
    pub async fn post(
        &mut self,
        target: &str,
        body: Bytes,
        ask: Ask,
    ) -> Result<Option<Bytes>, TransportError> {
        self.exchange(Method::POST, target, body, ask).await
    }

    async fn exchange(
        &mut self,
        method: Method,
        target: &str,
        body: Bytes,
        ask: Ask,
    ) -> Result<Option<Bytes>, TransportError> {
        let mut answer = self.asked(&method, target, &body, ask).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.token.is_none() {
            // TLS ends before the relay: it has not seen our certificate (HT-20).
            self.token = Some((String::new(), SystemTime::UNIX_EPOCH));
            self.drained(answer, ask).await?;
            answer = self.asked(&method, target, &body, ask).await?;
        }
        match answer.status() {
            StatusCode::OK => self.drained(answer, ask).await.map(Some),
            StatusCode::NOT_FOUND => {
                self.drained(answer, ask).await?;
                Ok(None)
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                let said =
                    answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                let wait = said.map_or(HTTP_RETRY, Duration::from_secs).clamp(HTTP_RETRY, ANSWER_WAIT);
                self.drained(answer, ask).await?;
                Err(TransportError::Later { peer: self.peer().to_string(), wait })
            }
            status => {
                let fault = PeerFault::Status { status: status.as_u16() };
                Err(TransportError::Peer { peer: self.peer().to_string(), fault })
            }
        }
    }

    /// Sends a request; once more where the connection had ended for idleness.
    async fn asked(
        &mut self,
        method: &Method,
        target: &str,
        body: &Bytes,
        ask: Ask,
    ) -> Result<Response<Incoming>, TransportError> {
        if self.live.sender.ready().await.is_err() {
            self.live = Live::dial(&self.dialer.own(), &self.address).await?;
        }
        let request = self.request(method, target, body.clone(), ask)?;
        match self.sent(request, ask).await {
            Err(TransportError::Http { .. }) if self.live.used => {
                self.live = Live::dial(&self.dialer.own(), &self.address).await?;
                let request = self.request(method, target, body.clone(), ask)?;
                self.sent(request, ask).await
            }
            outcome => outcome,
        }
    }

    async fn sent(
        &mut self,
        request: Request<Full<Bytes>>,
        ask: Ask,
    ) -> Result<Response<Incoming>, TransportError> {
        let answer = timeout(ask.wait, self.live.sender.send_request(request)).await;
        let peer = self.live.peer.to_string();
        match answer {
            Ok(Ok(answer)) => {
                self.live.used = true;
                Ok(answer)
            }
            Ok(Err(source)) => Err(TransportError::Http { peer, source }),
            Err(_) => Err(TransportError::Peer { peer, fault: PeerFault::Stalled { wait: ask.wait } }),
        }
    }

    fn request(
        &mut self,
        method: &Method,
        target: &str,
        body: Bytes,
        ask: Ask,
    ) -> Result<Request<Full<Bytes>>, TransportError> {
        let mut request =
            Request::builder().method(method.clone()).uri(target).header(HOST, RELAY_SERVER_NAME);
        if ask.caches == Caches::Avoided {
            request = request.header(CACHE_CONTROL, "no-cache");
        }
        if let Some((token, next)) = &mut self.token {
            let now = SystemTime::now();
            if now >= *next || now + rootcast::limits::MAX_BEARER_LIFE < *next {
                (*token, *next) = self.dialer.own().signer.sign(now)?;
            }
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let unusable = |error: hyper::http::Error| TransportError::Tls {
            source: rustls::Error::General(error.to_string()),
        };
        request.body(Full::new(body)).map_err(unusable)
    }

    /// Reads a body, which must come at a least rate and within the limit.
    async fn drained(&mut self, answer: Response<Incoming>, ask: Ask) -> Result<Bytes, TransportError> {
        let peer = self.live.peer.to_string();
        let fault = |fault| TransportError::Peer { peer: peer.clone(), fault };
        let mut body = answer.into_body();
        let announced = body.size_hint().exact();
        if let Some(size) = announced.filter(|size| *size > ask.limit) {
            return Err(fault(PeerFault::TooLarge { size, limit: ask.limit }));
        }
        let pace = Pace::begin(announced.unwrap_or(ask.limit), STREAM_WAIT);
        let mut all = BytesMut::new();
        loop {
            let Ok(frame) = timeout_at(pace.next(), body.frame()).await else {
                return Err(fault(PeerFault::Stalled { wait: STREAM_WAIT }));
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|source| TransportError::Http { peer: peer.clone(), source })?;
            // Trailers say nothing to us.
            let Ok(piece) = frame.into_data() else { continue };
            let size = (all.len() + piece.len()) as u64;
            if size > ask.limit {
                return Err(fault(PeerFault::TooLarge { size, limit: ask.limit }));
            }
            all.extend_from_slice(&piece);
        }
        totals::count_received(all.len() as u64);
        self.bytes = self.bytes.saturating_add(all.len() as u64);
        Ok(all.freeze())
    }
}
