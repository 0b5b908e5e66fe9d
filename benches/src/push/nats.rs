//! NATS over mutual TLS: each child subscribes to one subject.

use super::etcd::{connector, split};
use super::server::{free_address, id, patiently, start};
use super::{Heard, Scratch, Server};
use crate::error::BenchError;
use crate::handshake::tls;
use rootcast_transport::RELAY_SERVER_NAME;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

type Stream = BufReader<TlsStream<TcpStream>>;

pub(super) struct Nats {
    process: Child,
    address: SocketAddr,
    connector: TlsConnector,
    publisher: Stream,
    value: Vec<u8>,
    _home: tempfile::TempDir,
}

impl Nats {
    pub(super) async fn start(scratch: &Scratch, size: usize) -> Result<Option<Self>, BenchError> {
        let home = tempfile::tempdir_in(scratch.path()).map_err(BenchError::io(scratch.path()))?;
        let address = free_address()?;
        let (chain, key, authority) = split(&scratch.server()?, home.path())?;
        let port = address.port().to_string();
        let arguments = [
            "--addr",
            "127.0.0.1",
            "--port",
            &port,
            "--tls",
            "--tlscert",
            &chain,
            "--tlskey",
            &key,
            "--tlsverify",
            "--tlscacert",
            &authority,
        ];
        let Some(process) = start("nats-server", home.path(), &arguments)? else { return Ok(None) };
        let connector = connector(&scratch.child()?, None)?;
        let publisher = patiently(|| connect(address, connector.clone())).await?;
        Ok(Some(Self { process, address, connector, publisher, value: vec![b'x'; size], _home: home }))
    }
}

/// Connects: the server greets in the clear, TLS begins, the client says how it will speak.
async fn connect(address: SocketAddr, connector: TlsConnector) -> Result<Stream, BenchError> {
    let mut plain = BufReader::new(TcpStream::connect(address).await.map_err(tls)?);
    plain.get_ref().set_nodelay(true).map_err(tls)?;
    plain.read_line(&mut String::new()).await.map_err(tls)?;
    let name = RELAY_SERVER_NAME.try_into().map_err(tls)?;
    let stream = connector.connect(name, plain.into_inner()).await.map_err(tls)?;
    let mut stream = BufReader::with_capacity(1024, stream);
    stream.write_all(b"CONNECT {\"verbose\":false,\"tls_required\":true}\r\nPING\r\n").await.map_err(tls)?;
    let mut line = String::new();
    while line != "PONG\r\n" {
        line.clear();
        if stream.read_line(&mut line).await.map_err(tls)? == 0 || line.starts_with("-ERR") {
            return Err(BenchError::Program { program: "nats-server".into(), what: line });
        }
    }
    Ok(stream)
}

async fn subscribe(
    address: SocketAddr,
    connector: TlsConnector,
    heard: Heard,
    connected: oneshot::Sender<()>,
) -> Result<(), BenchError> {
    let mut stream = connect(address, connector).await?;
    stream.write_all(b"SUB prod 1\r\nPING\r\n").await.map_err(tls)?;
    let mut connected = Some(connected);
    let (mut line, mut payload) = (String::new(), Vec::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await.map_err(tls)? == 0 {
            return Err(BenchError::Program { program: "nats-server".into(), what: "it hung up".into() });
        }
        if line == "PONG\r\n" {
            connected.take().map(|connected| connected.send(()));
        } else if line == "PING\r\n" {
            stream.write_all(b"PONG\r\n").await.map_err(tls)?;
        } else if line.starts_with("MSG ") {
            let length: usize = line.trim_end().rsplit(' ').next().unwrap_or("").parse().map_err(tls)?;
            payload.resize(length + 2, 0);
            stream.read_exact(&mut payload).await.map_err(tls)?;
            heard.one(length);
        }
    }
}

impl Server for Nats {
    const AT_ONCE: usize = 0;

    fn name(&self) -> &'static str {
        "NATS, mutual TLS"
    }

    fn id(&self) -> Result<u32, BenchError> {
        id(&self.process, "nats-server")
    }

    fn child(
        &self,
        _: usize,
        heard: Heard,
        connected: oneshot::Sender<()>,
    ) -> impl Future<Output = Result<(), BenchError>> + 'static {
        subscribe(self.address, self.connector.clone(), heard, connected)
    }

    async fn push(&mut self) -> Result<Instant, BenchError> {
        let begun = Instant::now();
        let mut message = format!("PUB prod {}\r\n", self.value.len()).into_bytes();
        message.extend_from_slice(&self.value);
        message.extend_from_slice(b"\r\n");
        self.publisher.write_all(&message).await.map_err(tls)?;
        self.publisher.flush().await.map_err(tls)?;
        Ok(begun)
    }
}
