//! Where sockets come from: the only place that knows how QUIC reaches the
//! network, so that another runtime or a simulated network enters here.

use crate::identity::Identity;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{AsyncUdpSocket, EndpointConfig, Runtime, ServerConfig};
use quinn_proto::HashedConnectionIdGenerator;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

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

fn bound(
    identity: &Identity,
    server: Option<ServerConfig>,
    address: SocketAddr,
) -> io::Result<quinn::Endpoint> {
    let socket = std::net::UdpSocket::bind(address)?;
    quinn::Endpoint::new(lasting(identity), server, socket, Arc::new(quinn::TokioRuntime))
}

/// Opens a UDP socket to accept on, and to dial from.
pub(crate) fn listening(
    identity: &Identity,
    server: ServerConfig,
    address: SocketAddr,
) -> io::Result<quinn::Endpoint> {
    bound(identity, Some(server), address)
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
