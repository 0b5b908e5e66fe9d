//! etcd: each child watches one key, over gRPC on a connection of its own.

use super::server::{free_address, id, patiently, start};
use super::{Heard, Scratch, Server};
use crate::error::BenchError;
use crate::handshake::{credentials, provider, tls};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rootcast_transport::{AUTHORITY_FILE, IDENTITY_FILE, RELAY_SERVER_NAME};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;

const KEY: &[u8] = b"prod";
/// Messages that wait to be sent on a stream: there is one.
const WAITING: usize = 1;

/// The messages of a request, which goes on for as long as their sender lives.
struct Messages(mpsc::Receiver<Bytes>);

impl Body for Messages {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|message| message.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Etcd, without TLS or with certificates at both ends.
pub(super) struct Etcd {
    process: Child,
    address: SocketAddr,
    tls: Option<TlsConnector>,
    sender: SendRequest<Messages>,
    value: Vec<u8>,
    _home: tempfile::TempDir,
}

/// What a client of these identities connects with.
pub(super) fn connector(identity: &Path, protocol: Option<&[u8]>) -> Result<TlsConnector, BenchError> {
    let (chain, key, roots) = credentials(identity)?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(tls)?;
    config.alpn_protocols = protocol.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Writes chain and key of an identity to files of their own, as others want them.
pub(super) fn split(identity: &Path, home: &Path) -> Result<(String, String, String), BenchError> {
    let path = identity.join(IDENTITY_FILE);
    let pem = std::fs::read_to_string(&path).map_err(BenchError::io(&path))?;
    let at = pem.find("-----BEGIN PRIVATE KEY").unwrap_or(pem.len());
    let (chain, key) = pem.split_at(at);
    let write = |name: &str, text: &str| {
        let path = home.join(name);
        std::fs::write(&path, text).map_err(BenchError::io(&path))?;
        Ok::<_, BenchError>(path.display().to_string())
    };
    let authority = identity.join(AUTHORITY_FILE).display().to_string();
    Ok((write("cert.pem", chain)?, write("key.pem", key)?, authority))
}

impl Etcd {
    pub(super) async fn start(
        scratch: &Scratch,
        size: usize,
        with_tls: bool,
    ) -> Result<Option<Self>, BenchError> {
        let home = tempfile::tempdir_in(scratch.path()).map_err(BenchError::io(scratch.path()))?;
        let (address, peer) = (free_address()?, free_address()?);
        let (chain, key, authority) = split(&scratch.server()?, home.path())?;
        let scheme = if with_tls { "https" } else { "http" };
        let (url, peer) = (format!("{scheme}://{address}"), format!("http://{peer}"));
        let cluster = format!("default={peer}");
        let mut arguments = vec![
            "--data-dir=data",
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &cluster,
        ];
        if with_tls {
            arguments.extend(["--cert-file", &chain, "--key-file", &key]);
            arguments.extend(["--trusted-ca-file", &authority, "--client-cert-auth"]);
        }
        let Some(process) = start("etcd", home.path(), &arguments)? else { return Ok(None) };
        let tls = with_tls.then(|| connector(&scratch.child()?, Some(b"h2"))).transpose()?;
        let sender = patiently(|| async {
            let mut sender = connect(address, tls.clone()).await?;
            put(&mut sender, &vec![b'x'; size]).await?;
            Ok(sender)
        })
        .await?;
        Ok(Some(Self { process, address, tls, sender, value: vec![b'x'; size], _home: home }))
    }
}

async fn connect(
    address: SocketAddr,
    with: Option<TlsConnector>,
) -> Result<SendRequest<Messages>, BenchError> {
    let stream = TcpStream::connect(address).await.map_err(tls)?;
    stream.set_nodelay(true).map_err(tls)?;
    let executor = TokioExecutor::new();
    match with {
        None => {
            let (sender, connection) =
                hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.map_err(tls)?;
            tokio::spawn(connection);
            Ok(sender)
        }
        Some(connector) => {
            let name = RELAY_SERVER_NAME.try_into().map_err(tls)?;
            let stream = connector.connect(name, stream).await.map_err(tls)?;
            let (sender, connection) =
                hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.map_err(tls)?;
            tokio::spawn(connection);
            Ok(sender)
        }
    }
}

/// A field of bytes of a protocol buffer: its number and wire type 2, its length, itself. All lengths here
/// are below 2^14.
fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    if bytes.len() >= 128 {
        out.push((bytes.len() & 0x7f) as u8 | 0x80);
        out.push((bytes.len() >> 7) as u8);
    } else {
        out.push(bytes.len() as u8);
    }
    out.extend_from_slice(bytes);
}

/// A message of gRPC: not compressed, its length, itself.
fn message(bytes: &[u8]) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(bytes.len() as u32);
    message.put_slice(bytes);
    message.freeze()
}

async fn call(
    sender: &mut SendRequest<Messages>,
    path: &str,
    bytes: &[u8],
) -> Result<(Response<Incoming>, mpsc::Sender<Bytes>), BenchError> {
    let (tell, messages) = mpsc::channel(WAITING);
    tell.send(message(bytes)).await.map_err(tls)?;
    let request = Request::post(format!("http://etcd{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Messages(messages))
        .map_err(tls)?;
    sender.ready().await.map_err(tls)?;
    Ok((sender.send_request(request).await.map_err(tls)?, tell))
}

async fn put(sender: &mut SendRequest<Messages>, value: &[u8]) -> Result<(), BenchError> {
    let mut request = Vec::new();
    field(1, KEY, &mut request);
    field(2, value, &mut request);
    let (answer, tell) = call(sender, "/etcdserverpb.KV/Put", &request).await?;
    drop(tell);
    let body = answer.into_body().collect().await.map_err(tls)?;
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
    match status {
        Some(status) if status == "0" => Ok(()),
        other => Err(BenchError::Program { program: "etcd".into(), what: format!("put: {other:?}") }),
    }
}

async fn watch(
    address: SocketAddr,
    with: Option<TlsConnector>,
    heard: Heard,
    connected: oneshot::Sender<()>,
) -> Result<(), BenchError> {
    let mut sender = connect(address, with).await?;
    let (mut create, mut request) = (Vec::new(), Vec::new());
    field(1, KEY, &mut create);
    field(1, &create, &mut request);
    let (answer, _open) = call(&mut sender, "/etcdserverpb.Watch/Watch", &request).await?;
    let mut body = answer.into_body();
    let (mut read, mut connected) = (BytesMut::new(), Some(connected));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(tls)?.into_data() else { continue };
        read.extend_from_slice(&data);
        while let Some(length) = read.get(1..5).map(|mut bytes| bytes.get_u32() as usize) {
            if read.len() < 5 + length {
                break;
            }
            read.advance(5 + length);
            // The first says that the watch is there.
            match connected.take() {
                Some(connected) => drop(connected.send(())),
                None => heard.one(length),
            }
        }
    }
    Err(BenchError::Program { program: "etcd".into(), what: "it ended a watch".into() })
}

impl Server for Etcd {
    const AT_ONCE: usize = 0;

    fn name(&self) -> &'static str {
        if self.tls.is_some() { "etcd, mutual TLS" } else { "etcd, no TLS" }
    }

    fn id(&self) -> Result<u32, BenchError> {
        id(&self.process, "etcd")
    }

    fn child(
        &self,
        _: usize,
        heard: Heard,
        connected: oneshot::Sender<()>,
    ) -> impl Future<Output = Result<(), BenchError>> + 'static {
        watch(self.address, self.tls.clone(), heard, connected)
    }

    async fn push(&mut self) -> Result<Instant, BenchError> {
        let begun = Instant::now();
        put(&mut self.sender, &self.value).await?;
        Ok(begun)
    }
}
