//! Where sockets come from: the only place that knows how QUIC reaches the
//! network, so that another runtime or a simulated network enters here.

use quinn::{AsyncUdpSocket, EndpointConfig, Runtime, ServerConfig};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// The address of an endpoint that only dials.
pub(crate) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Opens a UDP socket to accept on, and to dial from.
pub(crate) fn listening(server: ServerConfig, address: SocketAddr) -> io::Result<quinn::Endpoint> {
    quinn::Endpoint::server(server, address)
}

/// Opens a UDP socket to dial from, for both IP versions where the host has both.
pub(crate) fn dialling() -> io::Result<quinn::Endpoint> {
    quinn::Endpoint::client(ANY)
        .or_else(|_| quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
}

/// Takes a socket and a runtime that are given.
pub(crate) fn given(
    server: Option<ServerConfig>,
    socket: Arc<dyn AsyncUdpSocket>,
    runtime: Arc<dyn Runtime>,
) -> io::Result<quinn::Endpoint> {
    quinn::Endpoint::new_with_abstract_socket(EndpointConfig::default(), server, socket, runtime)
}
