//! What one client's step from one commit to another cost.

use std::time::Duration;

/// What moving one client from one commit to another took. Preparing the
/// client (bringing it to the first commit) and the server (having the second
/// one published) are not part of `down`, `up`, `round_trips`, `client_cpu` and `wall`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cost {
    /// Bytes that the client received, as counted at a socket or as the exact objects fetched.
    pub(crate) down: u64,
    /// Bytes that the client sent.
    pub(crate) up: u64,
    /// Exchanges that waited for the one before; `None` where they are pipelined or cannot be told.
    pub(crate) round_trips: Option<u64>,
    /// CPU time that the server spent on the publication of the step and on serving it.
    pub(crate) server_cpu: Option<Duration>,
    /// CPU time of the client.
    pub(crate) client_cpu: Option<Duration>,
    /// From asking to done.
    pub(crate) wall: Duration,
}
