//! A bare QUIC server, tuned as a relay is, that opens a stream to each child and writes the bytes.

use super::server::id;
use super::{Heard, Scratch, Server};
use crate::error::BenchError;
use crate::handshake::{client_config, runtime, server_config, tls};
use clap::Args;
use quinn::{TransportConfig, VarInt, congestion};
use rootcast::limits::{
    CHILD_WINDOW, INITIAL_WINDOW, MAX_HOST_SUBSCRIPTIONS, MAX_REQUEST_STREAMS, MAX_UPDATE_STREAMS,
    STREAM_WINDOW,
};
use rootcast_transport::RELAY_SERVER_NAME;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};

/// The process that pushes.
#[derive(Args)]
pub(crate) struct Bare {
    /// The directory of its identity
    identity: PathBuf,
    /// Bytes of a push
    size: usize,
}

fn tuned() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let mut congestion = congestion::CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW);
    transport
        .congestion_controller_factory(Arc::new(congestion))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW as u32))
        .receive_window(VarInt::from_u32(CHILD_WINDOW as u32))
        .send_window(CHILD_WINDOW)
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_UPDATE_STREAMS))
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_REQUEST_STREAMS + MAX_HOST_SUBSCRIPTIONS as u32))
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(None)
        .max_idle_timeout(Some(VarInt::from_u32(300_000).into()));
    Arc::new(transport)
}

/// Runs the server: each line on standard input is a push. It ends with its standard input.
pub(crate) fn serve(arguments: &Bare) -> Result<(), BenchError> {
    let mut config = server_config(&arguments.identity, false)?;
    config.transport_config(tuned());
    let bytes = bytes::Bytes::from(vec![b'x'; arguments.size]);
    runtime()?.block_on(async move {
        let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).map_err(tls)?;
        println!("{}", endpoint.local_addr().map_err(tls)?);
        let mut connections = Vec::new();
        let mut accepting = tokio::task::JoinSet::new();
        let (tell, mut lines) = mpsc::channel(1);
        std::thread::spawn(move || {
            let lines = std::io::stdin().lines().map_while(Result::ok);
            lines.take_while(|_| tell.blocking_send(()).is_ok()).for_each(drop);
        });
        loop {
            tokio::select! {
                Some(incoming) = endpoint.accept() => { accepting.spawn(incoming.into_future()); }
                Some(accepted) = accepting.join_next() => connections.push(accepted.map_err(tls)?.map_err(tls)?),
                line = lines.recv() => {
                    if line.is_none() {
                        return Ok(());
                    }
                    for connection in &connections {
                        let mut stream = connection.open_uni().await.map_err(tls)?;
                        stream.write_chunk(bytes.clone()).await.map_err(tls)?;
                        stream.finish().map_err(tls)?;
                    }
                }
            }
        }
    })
}

/// The server as it is seen from here.
pub(super) struct Loop {
    process: Child,
    input: ChildStdin,
    address: SocketAddr,
    client: quinn::ClientConfig,
}

impl Loop {
    pub(super) async fn start(scratch: &Scratch, size: usize) -> Result<Self, BenchError> {
        let binary = std::env::current_exe().map_err(BenchError::io(Path::new("/proc/self/exe")))?;
        let mut process = Command::new(&binary)
            .arg("bare")
            .arg(scratch.server()?)
            .arg(size.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(BenchError::io(&binary))?;
        let ended = || BenchError::Program { program: "the bare server".into(), what: "it ended".into() };
        let output = process.stdout.take().ok_or_else(ended)?;
        let input = process.stdin.take().ok_or_else(ended)?;
        let line = BufReader::new(output).lines().next_line().await.ok().flatten().ok_or_else(ended)?;
        let address = line.parse().map_err(tls)?;
        let mut client = client_config(&scratch.child()?, false)?;
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(VarInt::from_u32(300_000).into())).mtu_discovery_config(None);
        transport.keep_alive_interval(Some(Duration::from_secs(25)));
        client.transport_config(Arc::new(transport));
        Ok(Self { process, input, address, client })
    }
}

impl Server for Loop {
    const AT_ONCE: usize = 0;

    fn name(&self) -> &'static str {
        "bare quinn, tuned alike"
    }

    fn id(&self) -> Result<u32, BenchError> {
        id(&self.process, "the bare server")
    }

    fn child(
        &self,
        _: usize,
        heard: Heard,
        connected: oneshot::Sender<()>,
    ) -> impl Future<Output = Result<(), BenchError>> + 'static {
        let (address, client) = (self.address, self.client.clone());
        async move {
            let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).map_err(tls)?;
            endpoint.set_default_client_config(client);
            let connecting = endpoint.connect(address, RELAY_SERVER_NAME).map_err(tls)?;
            let connection = connecting.await.map_err(tls)?;
            let _ = connected.send(());
            loop {
                let mut stream = connection.accept_uni().await.map_err(tls)?;
                heard.one(stream.read_to_end(1 << 20).await.map_err(tls)?.len());
            }
        }
    }

    async fn push(&mut self) -> Result<Instant, BenchError> {
        let begun = Instant::now();
        self.input.write_all(b"push\n").await.map_err(tls)?;
        Ok(begun)
    }
}
