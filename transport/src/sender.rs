//! The sending end of a stream.

use crate::close::Code;
use crate::connection::Peer;
use crate::error::{PeerFault, TransportError};
use crate::{totals, varint};
use bytes::Bytes;
use quinn::{StoppedError, WriteError};
use rootcast::codec;
use rootcast::limits::{MAX_FRAME, MIN_STREAM_RATE, STREAM_WAIT};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The patience with a peer for one frame or body: a gap between two bytes, and
/// the slowest rate over the whole, so that neither a peer that stands still
/// nor one that drips holds a stream for ever (specs/wire.md, W-12).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    gap: Duration,
    end: Option<Instant>,
}

impl Pace {
    pub(crate) fn begin(size: u64, gap: Duration) -> Self {
        let whole = gap.saturating_add(Duration::from_secs(size / MIN_STREAM_RATE));
        Self { gap, end: Instant::now().checked_add(whole) }
    }
    /// Until when the next bytes must come.
    pub(crate) fn next(&self) -> Instant {
        let next = Instant::now() + self.gap;
        self.end.map_or(next, |end| end.min(next))
    }
}

/// Frames `payload`: its length, and itself. One frame can be sent to many
/// peers, so it is made once and shared.
pub fn frame(payload: &[u8]) -> Result<Bytes, TransportError> {
    let size = payload.len() as u64;
    if size > MAX_FRAME {
        return Err(TransportError::FrameTooLarge { size, limit: MAX_FRAME });
    }
    let mut bytes = Vec::with_capacity(payload.len() + 8);
    varint::put(size, &mut bytes);
    bytes.extend_from_slice(payload);
    Ok(bytes.into())
}

/// Frames a message, encoded canonically.
pub fn frame_of<T: Serialize>(message: &T) -> Result<Bytes, TransportError> {
    frame(&codec::encode(message))
}

#[derive(Debug, PartialEq)]
enum State {
    Open,
    /// A send was given up half way: what follows would be read as its rest.
    Interrupted,
    Ended,
}

/// The sending end of a stream. Only [`Sender::finish`] ends it well: one that is
/// dropped is reset, so that a receiver never takes a broken stream for a whole one.
#[derive(Debug)]
pub struct Sender {
    stream: quinn::SendStream,
    peer: Arc<Peer>,
    state: State,
    sent: u64,
    wait: Duration,
}

impl Sender {
    pub(crate) const fn new(stream: quinn::SendStream, peer: Arc<Peer>) -> Self {
        Self { stream, peer, state: State::Open, sent: 0, wait: STREAM_WAIT }
    }

    /// Sends `payload` as one frame, in one write.
    pub async fn send_frame(&mut self, payload: &[u8]) -> Result<(), TransportError> {
        self.send_bytes(frame(payload)?).await
    }

    /// Sends a message, encoded canonically, as one frame.
    pub async fn send_message<T: Serialize>(&mut self, message: &T) -> Result<(), TransportError> {
        self.send_bytes(frame_of(message)?).await
    }

    /// Sends bytes as they are; the receiver must know how many. They are shared, not copied.
    pub async fn send_bytes(&mut self, bytes: Bytes) -> Result<(), TransportError> {
        self.send_all(&mut [bytes]).await
    }

    /// Sends several pieces in one write, so that a frame and a small body after it
    /// leave in one packet. The pieces are shared, not copied, and left empty.
    ///
    /// Fails with [`PeerFault::Stalled`] if the peer takes nothing for
    /// [`STREAM_WAIT`]. A send that fails or is given up ends the stream's use.
    pub async fn send_all(&mut self, pieces: &mut [Bytes]) -> Result<(), TransportError> {
        if self.state != State::Open {
            return Err(TransportError::StreamEnded { peer: self.peer.to_string() });
        }
        self.state = State::Interrupted;
        let size = pieces.iter().map(|piece| piece.len() as u64).sum();
        let pace = Pace::begin(size, self.wait);
        let mut left = pieces;
        while left.iter().any(|piece| !piece.is_empty()) {
            let written = timeout_at(pace.next(), self.stream.write_chunks(left))
                .await
                .map_err(|_| self.stalled())?
                .map_err(|error| self.failed(error))?;
            self.sent += written.bytes as u64;
            totals::count_sent(written.bytes as u64);
            left = left.get_mut(written.chunks..).unwrap_or_default();
        }
        self.state = State::Open;
        Ok(())
    }

    /// Ends the stream well. Does not wait for the peer to have it.
    pub fn finish(&mut self) -> Result<(), TransportError> {
        let ended = || TransportError::StreamEnded { peer: self.peer.to_string() };
        if self.state != State::Open {
            return Err(ended());
        }
        self.stream.finish().map_err(|_| ended())?;
        self.state = State::Ended;
        Ok(())
    }

    /// Ends the stream well, and waits until the peer's machine has all of it.
    /// That the peer has read it, only an answer can tell.
    pub async fn finish_delivered(&mut self) -> Result<(), TransportError> {
        self.finish()?;
        let pace = Pace::begin(self.sent, self.wait);
        // No gap here: the acknowledgements in between are not seen.
        let delivered = match pace.end {
            Some(end) => timeout_at(end, self.stream.stopped()).await.map_err(|_| self.stalled())?,
            None => self.stream.stopped().await,
        };
        match delivered {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(self.stopped(code)),
            Err(StoppedError::ConnectionLost(error)) => Err(self.lost(error)),
            Err(StoppedError::ZeroRttRejected) => {
                Err(TransportError::StreamEnded { peer: self.peer.to_string() })
            }
        }
    }

    /// Gives the stream up; what has not arrived yet will not.
    pub fn reset(&mut self, code: Code) {
        // It fails only where the stream is over already, and then there is nothing to give up.
        let _ = self.stream.reset(code.to_wire());
        self.state = State::Ended;
    }

    /// Sets how this stream goes before others of its connection: 0 at first, higher first.
    pub fn set_priority(&self, priority: i32) {
        // As for `reset`.
        let _ = self.stream.set_priority(priority);
    }

    /// Bytes sent so far, lengths included.
    pub const fn bytes(&self) -> u64 {
        self.sent
    }

    fn stalled(&self) -> TransportError {
        let fault = PeerFault::Stalled { wait: self.wait };
        TransportError::Peer { peer: self.peer.to_string(), fault }
    }
    fn stopped(&self, code: quinn::VarInt) -> TransportError {
        TransportError::StreamStopped { peer: self.peer.to_string(), code: Code::from_wire(code) }
    }
    fn lost(&self, error: quinn::ConnectionError) -> TransportError {
        TransportError::from_close(self.peer.to_string(), error)
    }
    fn failed(&self, error: WriteError) -> TransportError {
        match error {
            WriteError::Stopped(code) => self.stopped(code),
            WriteError::ConnectionLost(error) => self.lost(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => {
                TransportError::StreamEnded { peer: self.peer.to_string() }
            }
        }
    }

    #[cfg(test)]
    pub(crate) const fn set_wait(&mut self, wait: Duration) {
        self.wait = wait;
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // quinn would finish it, which the receiver takes for a good end (W-13).
        if self.state != State::Ended {
            self.reset(Code::DROPPED);
        }
    }
}
