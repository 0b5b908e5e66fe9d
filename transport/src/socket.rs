//! Where sockets come from: the only place that knows how QUIC reaches the
//! network, so that another runtime or a simulated network enters here.

use crate::identity::Identity;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, EndpointConfig, Runtime, ServerConfig, UdpPoller};
use quinn_proto::HashedConnectionIdGenerator;
use rootcast::limits::TRANSMIT_SEGMENTS;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The address of an endpoint that only dials.
pub(crate) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Keys the tokens of stateless resets.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        let mac = blake3::keyed_hash(&self.0, data);
        for (to, from) in out.iter_mut().zip(mac.as_bytes()) {
            *to = *from;
        }
    }
    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }
    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let signature: [u8; 32] = signature.try_into().map_err(|_| CryptoError)?;
        // `blake3::Hash` compares in constant time.
        if blake3::keyed_hash(&self.0, data) == signature { Ok(()) } else { Err(CryptoError) }
    }
}

/// What must outlive a process that was killed: its next one then tells the
/// peers of the dead one so at their first packet, by a stateless reset. With
/// random keys they would notice only when the connection has been idle for long.
fn lasting(identity: &Identity) -> EndpointConfig {
    let key = identity.key();
    let secret = key.secret_der();
    let reset = blake3::derive_key("rootcast 2026 quic stateless reset", secret);
    let ids = blake3::derive_key("rootcast 2026 quic connection ids", secret);
    let ids = ids.iter().take(8).fold(0u64, |all, byte| all << 8 | u64::from(*byte));
    let mut config = EndpointConfig::new(Arc::new(ResetKey(reset)));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

/// A socket that takes fewer datagrams at once than the system would (see [`TRANSMIT_SEGMENTS`]).
#[derive(Debug)]
struct Sparing(Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for Sparing {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.0.clone().create_io_poller()
    }
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)
    }
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, bufs, meta)
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
    fn max_transmit_segments(&self) -> usize {
        self.0.max_transmit_segments().min(TRANSMIT_SEGMENTS)
    }
    fn max_receive_segments(&self) -> usize {
        self.0.max_receive_segments()
    }
    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}

/// Opens a UDP socket to accept on, and to dial from.
pub(crate) fn listening(
    identity: &Identity,
    server: ServerConfig,
    address: SocketAddr,
) -> io::Result<quinn::Endpoint> {
    let runtime = Arc::new(quinn::TokioRuntime);
    let socket = runtime.wrap_udp_socket(std::net::UdpSocket::bind(address)?)?;
    let (config, socket) = (lasting(identity), Arc::new(Sparing(socket)));
    quinn::Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime)
}

/// Opens a UDP socket to dial from, for both IP versions where the host has both.
pub(crate) fn dialling() -> io::Result<quinn::Endpoint> {
    quinn::Endpoint::client(ANY)
        .or_else(|_| quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
}

/// Takes a socket and a runtime that are given.
pub(crate) fn given(
    identity: &Identity,
    server: Option<ServerConfig>,
    socket: Arc<dyn AsyncUdpSocket>,
    runtime: Arc<dyn Runtime>,
    seed: [u8; 32],
) -> io::Result<quinn::Endpoint> {
    let mut config = if server.is_some() { lasting(identity) } else { EndpointConfig::default() };
    config.rng_seed(Some(seed));
    quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)
}
