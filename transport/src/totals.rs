//! What this process has put on streams and taken off them, all connections together.

use std::sync::atomic::{AtomicU64, Ordering};

static SENT: AtomicU64 = AtomicU64::new(0);
static RECEIVED: AtomicU64 = AtomicU64::new(0);

/// Bytes on all streams of this process since its start, lengths of frames
/// included; packets, acknowledgements and handshakes are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamTotals {
    /// Bytes written to streams.
    pub sent: u64,
    /// Bytes read from streams.
    pub received: u64,
}

impl StreamTotals {
    /// The counts now.
    pub fn now() -> Self {
        Self { sent: SENT.load(Ordering::Relaxed), received: RECEIVED.load(Ordering::Relaxed) }
    }
}

pub(crate) fn count_sent(bytes: u64) {
    SENT.fetch_add(bytes, Ordering::Relaxed);
}

pub(crate) fn count_received(bytes: u64) {
    RECEIVED.fetch_add(bytes, Ordering::Relaxed);
}
