//! How TLS and QUIC are set, with the reasons. Figures are from measurements
//! of many small pushes to many children.

use crate::error::TransportError;
use crate::identity::{AuthorityCertificate, Identity};
use crate::tickets::{Sessions, TicketKeys};
use crate::unverified::AnyServer;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt, congestion};
use rootcast::limits::{
    CHILD_WINDOW, CONNECTION_WINDOW, HANDSHAKE_BUFFER, IDLE_WAIT, INITIAL_WINDOW, KEEP_ALIVE,
    MAX_HOST_SUBSCRIPTIONS, MAX_PENDING_HANDSHAKES, MAX_REQUEST_STREAMS, MAX_SUBSCRIPTIONS,
    MAX_UPDATE_STREAMS, MAX_WAITING_HANDSHAKES, RELAY_KEEP_ALIVE, STREAM_WINDOW, TICKETS_GIVEN,
};
use rootcast::member::Role;
use rootcast::protocol::JOIN_ALPN;
use rustls::RootCertStore;
use rustls::client::{Resumption, TicketRequest, Tls12Resumption};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use std::sync::Arc;
use std::time::Duration;

/// The protocol's name and version in the handshake (specs/wire.md, W-6).
pub(crate) const ALPN_TEXT: &str = "rootcast/1";

/// Streams that a child relay or a publisher may have open towards us: all its subscriptions and requests.
pub(crate) const LARGE_CHILD_STREAMS: VarInt =
    VarInt::from_u32(MAX_REQUEST_STREAMS + MAX_SUBSCRIPTIONS as u32);
/// The same for a host; every stream allowed costs memory even while it is not open.
pub(crate) const HOST_STREAMS: VarInt = VarInt::from_u32(MAX_REQUEST_STREAMS + MAX_HOST_SUBSCRIPTIONS as u32);
const PARENT_STREAMS: VarInt = VarInt::from_u32(MAX_REQUEST_STREAMS);
const UNI_STREAMS: VarInt = VarInt::from_u32(MAX_UPDATE_STREAMS);
/// [`CONNECTION_WINDOW`] as QUIC takes it.
pub(crate) const LARGE_WINDOW: VarInt = VarInt::from_u32(CONNECTION_WINDOW as u32);
const SMALL_WINDOW: VarInt = VarInt::from_u32(CHILD_WINDOW as u32);

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(authority: &AuthorityCertificate) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone())?;
    Ok(Arc::new(roots))
}

fn idle() -> Option<IdleTimeout> {
    Some(VarInt::from_u32(IDLE_WAIT.as_millis() as u32).into())
}

fn common() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut congestion = congestion::CubicConfig::default();
    // 20 KB in half a round trip, instead of one and a half.
    congestion.initial_window(INITIAL_WINDOW);
    transport
        .congestion_controller_factory(Arc::new(congestion))
        .max_idle_timeout(idle())
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW as u32))
        .max_concurrent_uni_streams(UNI_STREAMS)
        // No datagrams in this protocol, and their buffer is memory per connection.
        .datagram_receive_buffer_size(None)
        // An update fits the smallest packet. Searching for a larger one costs each of many
        // idle children kilobytes of probes every ten minutes, to save 17 % of the
        // packets of the rare snapshot.
        .mtu_discovery_config(None);
    transport
}

/// For connections that we dial: one or two, through which everything comes.
fn dialled(keep_alive: Duration) -> TransportConfig {
    let mut transport = common();
    transport
        .receive_window(LARGE_WINDOW)
        .send_window(CONNECTION_WINDOW)
        .max_concurrent_bidi_streams(PARENT_STREAMS)
        // One side's are enough; the child's, so that a parent with many has no timers to serve.
        .keep_alive_interval(Some(keep_alive));
    transport
}

/// For connections that we accept, before it is known whose they are: small.
/// `Connection` raises them for a child that is no host.
fn accepted() -> TransportConfig {
    let mut transport = common();
    transport
        .receive_window(SMALL_WINDOW)
        .send_window(CHILD_WINDOW)
        .max_concurrent_bidi_streams(HOST_STREAMS);
    transport
}

/// TLS 1.3 only, our authority only, both ends with certificates. No 0-RTT, which can
/// be replayed; sessions are resumed where [`resuming`] says so (W-7).
pub(crate) fn client_tls(identity: &Identity) -> Result<rustls::ClientConfig, TransportError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| Ok(builder.with_root_certificates(roots(identity.authority())?)))
        .and_then(|builder| builder.with_client_auth_cert(identity.chain(), identity.key()))
        .map_err(|source| TransportError::Tls { source })?;
    tls.alpn_protocols = vec![ALPN_TEXT.into()];
    tls.resumption = Resumption::disabled();
    tls.send_ticket_request =
        Some(TicketRequest { new_session_count: TICKETS_GIVEN as u8, resumption_count: 1 });
    Ok(tls)
}

/// How we dial one relay: with sessions of its own, since all relays are dialled by one name.
/// `tls` is shared by all, so that a session is good for as long as our certificate.
pub(crate) fn resuming(tls: &rustls::ClientConfig, role: Role) -> Result<ClientConfig, TransportError> {
    let mut tls = tls.clone();
    tls.resumption =
        Resumption::store(Arc::new(Sessions::default())).tls12_resumption(Tls12Resumption::Disabled);
    let quic = QuicClientConfig::try_from(tls).map_err(no_initial_suite)?;
    let mut config = ClientConfig::new(Arc::new(quic));
    let keep_alive = if role == Role::Relay { RELAY_KEEP_ALIVE } else { KEEP_ALIVE };
    config.transport_config(Arc::new(dialled(keep_alive)));
    Ok(config)
}

/// How one dials who is not a member (yet): the relay proves itself, we do not.
pub(crate) fn joining_config(authority: &AuthorityCertificate) -> Result<ClientConfig, TransportError> {
    joining(nameless_tls(authority)?)
}

/// TLS of one that shows no certificate to a relay that proves itself.
pub(crate) fn nameless_tls(authority: &AuthorityCertificate) -> Result<rustls::ClientConfig, TransportError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| Ok(builder.with_root_certificates(roots(authority)?).with_no_client_auth()))
        .map_err(|source| TransportError::Tls { source })?;
    tls.resumption = Resumption::disabled();
    Ok(tls)
}

/// How one dials who cannot know yet whom to believe: neither end proves itself.
pub(crate) fn meeting_config() -> Result<ClientConfig, TransportError> {
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TransportError::Tls { source })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider())))
        .with_no_client_auth();
    joining(tls)
}

fn joining(mut tls: rustls::ClientConfig) -> Result<ClientConfig, TransportError> {
    tls.alpn_protocols = vec![JOIN_ALPN.into()];
    tls.resumption = Resumption::disabled();
    let quic = QuicClientConfig::try_from(tls).map_err(no_initial_suite)?;
    let mut config = ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(dialled(KEEP_ALIVE)));
    Ok(config)
}

/// The accepting side of [`client_tls`]. Without keys it gives out no tickets.
pub(crate) fn server_tls(
    identity: &Identity,
    tickets: Option<Arc<TicketKeys>>,
) -> Result<rustls::ServerConfig, TransportError> {
    let tls = |source| TransportError::Tls { source };
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(identity.authority()).map_err(tls)?, provider())
            // Who joins has none yet. On any other protocol its absence is refused after the handshake (W-5).
            .allow_unauthenticated()
            .build()
            .map_err(|error| tls(rustls::Error::General(error.to_string())))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| {
            builder.with_client_cert_verifier(verifier).with_single_cert(identity.chain(), identity.key())
        })
        .map_err(tls)?;
    tls.alpn_protocols = vec![ALPN_TEXT.into(), JOIN_ALPN.into()];
    tls.send_tls13_tickets = if tickets.is_some() { TICKETS_GIVEN } else { 0 };
    // For clients that want fewer: one that resumes replaces the ticket that it used.
    tls.max_tls13_tickets = tls.send_tls13_tickets;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    if let Some(tickets) = tickets {
        tls.ticketer = tickets;
    }
    Ok(tls)
}

/// How we accept.
pub(crate) fn server_config(
    identity: &Identity,
    tickets: Option<Arc<TicketKeys>>,
) -> Result<ServerConfig, TransportError> {
    let quic = QuicServerConfig::try_from(server_tls(identity, tickets)?).map_err(no_initial_suite)?;
    let mut config = ServerConfig::with_crypto(Arc::new(quic));
    config
        .transport_config(Arc::new(accepted()))
        // Those that wait count as well.
        .max_incoming(MAX_PENDING_HANDSHAKES + MAX_WAITING_HANDSHAKES)
        .incoming_buffer_size(HANDSHAKE_BUFFER)
        .incoming_buffer_size_total(HANDSHAKE_BUFFER * MAX_PENDING_HANDSHAKES as u64);
    Ok(config)
}

fn no_initial_suite(error: quinn::crypto::rustls::NoInitialCipherSuite) -> TransportError {
    TransportError::Tls { source: rustls::Error::General(error.to_string()) }
}
