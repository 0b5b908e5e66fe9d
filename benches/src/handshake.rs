//! What a handshake costs a relay: ours and bare quinn's, full and with sessions
//! resumed (specs/wire.md, W-7).
//!
//! Server and client each have a thread, and each thread's own CPU time is taken.

use crate::error::BenchError;
use crate::ours::platform::Platform;
use clap::Args;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rootcast::path::ChannelName;
use rootcast_bundler::config::DEFAULT_CHANNEL;
use rootcast_transport::{Code, Endpoint, Identity, RELAY_SERVER_NAME, Role, TicketKeys};
use rustix::time::{ClockId, clock_gettime};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

/// What to measure.
#[derive(Args)]
pub(crate) struct Handshake {
    /// Handshakes of each kind
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    count: u32,
}

pub(crate) const PROTOCOL: &[u8] = b"rootcast-bench/1";

/// CPU time of the server's thread for each handshake, and of the client's.
pub(crate) struct Costs {
    name: &'static str,
    pub(crate) server: Duration,
    client: Duration,
}

pub(crate) fn run(arguments: &Handshake) -> Result<(), BenchError> {
    let directory = tempfile::tempdir().map_err(BenchError::io(Path::new("the temporary directory")))?;
    let channel =
        ChannelName::new(DEFAULT_CHANNEL).map_err(|error| BenchError::Nothing(error.to_string()))?;
    let platform = Platform::create(directory.path(), channel)?;
    let (relay, host) = (platform.identity(Role::Relay, "relay")?, platform.identity(Role::Agent, "host")?);
    let rows = [
        ours(&relay, &host, arguments.count, false)?,
        ours(&relay, &host, arguments.count, true)?,
        bare(&relay, &host, arguments.count, false)?,
        bare(&relay, &host, arguments.count, true)?,
    ];
    println!(
        "| handshakes, mutual TLS | CPU of the relay, each | a second on one core | CPU of the host, each |"
    );
    println!("|---|---:|---:|---:|");
    for Costs { name, server, client } in rows {
        let rate = 1.0 / server.as_secs_f64();
        println!("| {name} | {} µs | {rate:.0} | {} µs |", server.as_micros(), client.as_micros());
    }
    Ok(())
}

/// CPU time of this thread.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(BenchError::io(Path::new("the runtime")))
}

pub(crate) fn tls(error: impl std::fmt::Display) -> BenchError {
    BenchError::Program { program: "TLS".into(), what: error.to_string() }
}

/// Runs `serve` on a thread of its own until `client` is done; gives the CPU time of both threads.
fn measure<S, C>(
    name: &'static str,
    count: u32,
    serve: impl FnOnce(oneshot::Sender<SocketAddr>, oneshot::Receiver<()>) -> S + Send + 'static,
    client: impl FnOnce(SocketAddr) -> C,
) -> Result<Costs, BenchError>
where
    S: Future<Output = Result<(), BenchError>>,
    C: Future<Output = Result<(), BenchError>>,
{
    let (tell, told) = oneshot::channel();
    let (stop, stopped) = oneshot::channel();
    let server = std::thread::spawn(move || {
        let runtime = runtime()?;
        runtime.block_on(serve(tell, stopped))?;
        Ok::<_, BenchError>(cpu())
    });
    let begun = cpu();
    runtime()?.block_on(async {
        let address = told.await.map_err(tls)?;
        client(address).await
    })?;
    let client = (cpu() - begun) / count;
    let _ = stop.send(());
    let server = server.join().map_err(|_| tls("the server's thread ended early"))?? / count;
    Ok(Costs { name, server, client })
}

/// Ours: endpoints as daemons have them.
fn ours(relay: &Path, host: &Path, count: u32, resumed: bool) -> Result<Costs, BenchError> {
    let (relay, host) = (Identity::load(relay)?, Identity::load(host)?);
    let serve = async move |tell: oneshot::Sender<SocketAddr>, mut stopped: oneshot::Receiver<()>| {
        let endpoint = Endpoint::listen(&relay, (Ipv4Addr::LOCALHOST, 0).into())?;
        if resumed {
            let keys = TicketKeys::open(&relay, &[], SystemTime::now())?;
            endpoint.resume_with(&relay, Arc::new(keys))?;
        }
        let _ = tell.send(endpoint.local_addr()?);
        loop {
            tokio::select! {
                handshake = endpoint.accept() => {
                    let Some(handshake) = handshake else { return Ok(()) };
                    let connection = handshake.finish().await?;
                    // The client waits for it: by then it has its tickets.
                    connection.open_uni().await?.finish()?;
                    connection.closed().await;
                }
                _ = &mut stopped => return Ok(()),
            }
        }
    };
    let name = if resumed { "Rootcast, resumed" } else { "Rootcast, full" };
    measure(name, count, serve, async |address: SocketAddr| {
        let endpoint = Endpoint::dial_only(&host)?;
        for _ in 0..count {
            let connection = endpoint.connect(&address.to_string()).await?;
            connection.accept_uni().await?;
            connection.close(Code::DONE, "");
        }
        endpoint.wait_idle().await;
        Ok(())
    })
}

/// quinn and rustls with the same certificates, with tickets or without.
pub(crate) fn bare(relay: &Path, host: &Path, count: u32, resumed: bool) -> Result<Costs, BenchError> {
    let (server, client) = (server_config(relay, resumed)?, client_config(host, resumed)?);
    let serve = async move |tell: oneshot::Sender<SocketAddr>, mut stopped: oneshot::Receiver<()>| {
        let endpoint = quinn::Endpoint::server(server, (Ipv4Addr::LOCALHOST, 0).into()).map_err(tls)?;
        let _ = tell.send(endpoint.local_addr().map_err(tls)?);
        loop {
            tokio::select! {
                incoming = endpoint.accept() => {
                    let Some(incoming) = incoming else { return Ok(()) };
                    let connection = incoming.await.map_err(tls)?;
                    // The client waits for it: by then it has its tickets.
                    connection.open_uni().await.map_err(tls)?.finish().map_err(tls)?;
                    connection.closed().await;
                }
                _ = &mut stopped => return Ok(()),
            }
        }
    };
    let name = if resumed { "bare quinn, resumed" } else { "bare quinn, full" };
    measure(name, count, serve, async |address: SocketAddr| {
        let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).map_err(tls)?;
        endpoint.set_default_client_config(client);
        for _ in 0..count {
            let connecting = endpoint.connect(address, RELAY_SERVER_NAME).map_err(tls)?;
            let connection = connecting.await.map_err(tls)?;
            let mut stream = connection.accept_uni().await.map_err(tls)?;
            stream.read_to_end(1).await.map_err(tls)?;
            connection.close(quinn::VarInt::from_u32(0), b"");
        }
        endpoint.wait_idle().await;
        Ok(())
    })
}

/// The certificates and the key of an identity's directory, and the authority that it trusts.
pub(crate) fn credentials(
    identity: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, Arc<RootCertStore>), BenchError> {
    let file = |name: &str| -> PathBuf { identity.join(name) };
    let path = file(rootcast_transport::IDENTITY_FILE);
    let chain = CertificateDer::pem_file_iter(&path).map_err(tls)?.collect::<Result<_, _>>().map_err(tls)?;
    let key = PrivateKeyDer::from_pem_file(&path).map_err(tls)?;
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(file(rootcast_transport::AUTHORITY_FILE)).map_err(tls)?;
    roots.add(authority).map_err(tls)?;
    Ok((chain, key, Arc::new(roots)))
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn server_config(identity: &Path, resumed: bool) -> Result<quinn::ServerConfig, BenchError> {
    let (chain, key, roots) = credentials(identity)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(tls)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(tls)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = if resumed { 1 } else { 0 };
    if resumed {
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(tls)?;
    }
    let quic = QuicServerConfig::try_from(config).map_err(tls)?;
    Ok(quinn::ServerConfig::with_crypto(Arc::new(quic)))
}

pub(crate) fn client_config(identity: &Path, resumed: bool) -> Result<quinn::ClientConfig, BenchError> {
    let (chain, key, roots) = credentials(identity)?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(tls)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    if !resumed {
        config.resumption = rustls::client::Resumption::disabled();
    }
    Ok(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).map_err(tls)?)))
}
