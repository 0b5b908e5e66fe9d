//! The plain HTTP listener for operators: `/healthz`, `/readyz`, `/metrics`.

use super::{changes, process};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rootcast::exposition::Exposition;
use rootcast::limits::{MAX_OPERATORS, OPERATOR_WAIT};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// Whether a process can do its work now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readiness {
    /// Why it cannot.
    pub blocked: Vec<String>,
    /// What is not as it should be, though it can.
    pub degraded: Vec<String>,
}

impl Readiness {
    /// The status of the answer, and its body: a line for each thing that is wrong.
    fn answer(&self) -> (StatusCode, String) {
        let lines = |what: &str, lines: &[String]| {
            lines.iter().map(|line| format!("{what}: {line}\n")).collect::<String>()
        };
        let status = if self.blocked.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let word = match (self.blocked.is_empty(), self.degraded.is_empty()) {
            (false, _) => "not ready\n",
            (true, false) => "degraded\n",
            (true, true) => "ready\n",
        };
        (status, format!("{word}{}{}", lines("blocked", &self.blocked), lines("degraded", &self.degraded)))
    }
}

/// What can be looked at.
pub trait Operated: Send + Sync {
    /// Adds what can be measured.
    fn measure(&self, page: &mut Exposition);
    /// Whether it can do its work.
    fn readiness(&self) -> Readiness;
}

/// A listener for operators.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
}

impl Listener {
    /// Opens the address.
    ///
    /// # Errors
    /// What the system says.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        process::begin();
        Ok(Self { tcp: TcpListener::bind(address).await? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers, for ever. At most [`MAX_OPERATORS`] at once, each within [`OPERATOR_WAIT`].
    pub async fn serve(self, operated: Arc<dyn Operated>) {
        let room = Arc::new(Semaphore::new(MAX_OPERATORS));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let stream = match self.tcp.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "an operator could not be accepted");
                    tokio::time::sleep(OPERATOR_WAIT / 10).await;
                    continue;
                }
            };
            let operated = operated.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let response = answer(&request, &*operated);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(OPERATOR_WAIT)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                let _ = tokio::time::timeout(OPERATOR_WAIT, connection).await;
                drop(permit);
            });
        }
    }
}

/// Serves at the address that the settings say, and at another when they say so, for ever. `listener` is
/// what was opened at the start.
pub async fn operate<C>(
    mut listener: Option<Listener>,
    mut settings: watch::Receiver<C>,
    address: impl Fn(&C) -> Option<SocketAddr>,
    operated: Arc<dyn Operated>,
) {
    let mut now = address(&settings.borrow());
    loop {
        let serving = async {
            match listener.take() {
                Some(listener) => listener.serve(operated.clone()).await,
                None => std::future::pending().await,
            }
        };
        let next = async {
            loop {
                now = changes(&mut settings, &now, &address).await;
                let wanted = now?;
                match Listener::open(wanted).await {
                    Ok(opened) => return Some(opened),
                    Err(error) => {
                        tracing::error!(address = %wanted, %error, "operators cannot be served there; they are where they were");
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = serving => return,
            next = next => listener = next,
        }
        tracing::info!(address = ?now, "operators are served");
    }
}

fn answer(request: &Request<Incoming>, operated: &dyn Operated) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return page(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
    }
    match request.uri().path() {
        "/healthz" => page(StatusCode::OK, "alive\n".into()),
        "/readyz" => {
            let (status, body) = operated.readiness().answer();
            page(status, body)
        }
        "/metrics" => {
            let mut measured = Exposition::default();
            operated.measure(&mut measured);
            process::measure(&mut measured);
            let mut response = page(StatusCode::OK, measured.into_text());
            let kind = HeaderValue::from_static(Exposition::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        _ => page(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n".into()),
    }
}

fn page(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
