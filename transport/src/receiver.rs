//! The receiving end of a stream.

use crate::close::Code;
use crate::connection::Peer;
use crate::error::{PeerFault, TransportError};
use crate::sender::Pace;
use crate::{totals, varint};
use bytes::{Bytes, BytesMut};
use quinn::ReadError;
use rootcast::codec;
use rootcast::limits::{BODY_PIECE, STREAM_WAIT};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout_at;

/// Bytes that arrive towards a known size. The space grows by what has already
/// arrived, or by one piece, whichever is more.
#[derive(Debug)]
struct Filling {
    size: usize,
    have: usize,
    space: BytesMut,
    pace: Pace,
}

impl Filling {
    fn begin(size: usize, wait: Duration) -> Self {
        let pace = Pace::begin(size as u64, wait);
        Self { size, have: 0, space: BytesMut::new(), pace }
    }
    const fn is_full(&self) -> bool {
        self.have == self.size
    }
    /// Reads what is there. Given up, only space is left behind, and no byte lost.
    async fn step(&mut self, stream: &mut quinn::RecvStream) -> Read {
        if self.space.len() == self.have {
            let more = (self.size - self.have).min(self.have.max(BODY_PIECE));
            self.space.resize(self.have + more, 0);
        }
        let space = self.space.get_mut(self.have..).unwrap_or_default();
        let read = read_some(stream, space, &self.pace).await;
        if let Read::Some(count) = read {
            self.have += count;
        }
        read
    }
    fn take(&mut self) -> Bytes {
        self.space.truncate(self.have);
        std::mem::take(&mut self.space).freeze()
    }
}

/// What one read gave.
enum Read {
    Some(usize),
    End,
    Stalled,
    Failed(ReadError),
}

impl From<Result<Option<usize>, ReadError>> for Read {
    fn from(outcome: Result<Option<usize>, ReadError>) -> Self {
        match outcome {
            Ok(Some(count)) => Self::Some(count),
            Ok(None) => Self::End,
            Err(error) => Self::Failed(error),
        }
    }
}

async fn read_some(stream: &mut quinn::RecvStream, space: &mut [u8], pace: &Pace) -> Read {
    timeout_at(pace.next(), stream.read(space)).await.map_or(Read::Stalled, Read::from)
}

/// How far a frame has been read. It outlives the call that reads it, so that
/// giving the call up, as `select!` does, loses nothing.
#[derive(Debug)]
enum Progress {
    Between,
    Length {
        bytes: [u8; 8],
        have: usize,
        pace: Pace,
    },
    Body(Filling),
    /// A raw read failed or was given up half way: where the next frame begins is not known.
    Interrupted,
}

/// The receiving end of a stream. Dropping it tells the peer that the rest is not wanted.
///
/// Memory follows what arrived, never what was announced: at most twice the
/// bytes received, and one piece of [`BODY_PIECE`] (specs/wire.md, W-11).
#[derive(Debug)]
pub struct Receiver {
    stream: quinn::RecvStream,
    peer: Arc<Peer>,
    progress: Progress,
    received: u64,
    wait: Duration,
}

impl Receiver {
    pub(crate) const fn new(stream: quinn::RecvStream, peer: Arc<Peer>) -> Self {
        Self { stream, peer, progress: Progress::Between, received: 0, wait: STREAM_WAIT }
    }

    /// Receives one frame of at most `limit` bytes; `None` at the good end of the stream.
    ///
    /// Waits for a frame to begin for as long as the connection lives; once begun, its
    /// bytes must keep coming. The call may be given up and made again: nothing is lost.
    pub async fn receive_frame(&mut self, limit: u64) -> Result<Option<Bytes>, TransportError> {
        loop {
            match &mut self.progress {
                Progress::Between => {
                    let mut bytes = [0; 8];
                    let [first, ..] = &mut bytes;
                    let read = self.stream.read(std::slice::from_mut(first)).await;
                    if self.taken(read.into())?.is_none() {
                        return Ok(None);
                    }
                    let pace = Pace::begin(0, self.wait);
                    self.progress = Progress::Length { bytes, have: 1, pace };
                }
                Progress::Length { bytes: [first, ..], have, .. }
                    if *have == varint::size_from_first(*first) =>
                {
                    self.begin_body(limit)?;
                }
                Progress::Length { bytes, have, pace } => {
                    let size = varint::size_from_first(bytes[0]);
                    let space = bytes.get_mut(*have..size).unwrap_or_default();
                    let read = read_some(&mut self.stream, space, pace).await;
                    if let Read::Some(count) = read {
                        *have += count;
                    }
                    self.more(read)?;
                }
                Progress::Body(filling) if filling.is_full() => {
                    let whole = filling.take();
                    self.progress = Progress::Between;
                    return Ok(Some(whole));
                }
                Progress::Body(filling) => {
                    let read = filling.step(&mut self.stream).await;
                    self.more(read)?;
                }
                Progress::Interrupted => return Err(self.ended()),
            }
        }
    }

    /// The length is there: judges it, before anything is allocated for it.
    fn begin_body(&mut self, limit: u64) -> Result<(), TransportError> {
        let Progress::Length { bytes, have, .. } = &self.progress else { return Ok(()) };
        let length = varint::read(bytes.get(..*have).unwrap_or_default());
        let length = length.ok_or_else(|| self.fault(PeerFault::LengthNotShortest))?;
        let size = self.within(length, limit)?;
        self.progress = Progress::Body(Filling::begin(size, self.wait));
        Ok(())
    }

    /// Receives one message, of at most `limit` bytes, in its one canonical encoding;
    /// otherwise as [`Receiver::receive_frame`].
    pub async fn receive_message<T: Serialize + DeserializeOwned>(
        &mut self,
        limit: u64,
    ) -> Result<Option<T>, TransportError> {
        let Some(bytes) = self.receive_frame(limit).await? else { return Ok(None) };
        codec::decode(&bytes, limit).map(Some).map_err(|error| self.fault(error.into()))
    }

    /// Receives exactly `size` bytes that follow, as one; more than `limit` are refused unread.
    /// A call that fails or is given up ends the stream's use.
    pub async fn receive_exact(&mut self, size: u64, limit: u64) -> Result<Bytes, TransportError> {
        let wanted = self.within(size, limit)?;
        self.begin_raw()?;
        let mut filling = Filling::begin(wanted, self.wait);
        while !filling.is_full() {
            let read = filling.step(&mut self.stream).await;
            self.more(read)?;
        }
        self.progress = Progress::Between;
        Ok(filling.take())
    }

    /// Receives exactly `size` bytes that follow, giving them to `sink` in pieces of
    /// at most [`BODY_PIECE`] as they arrive. The sink's first error ends it.
    /// A call that fails or is given up ends the stream's use.
    pub async fn receive_into<E: From<TransportError>>(
        &mut self,
        size: u64,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.begin_raw()?;
        let pace = Pace::begin(size, self.wait);
        let mut piece = vec![0; usize::try_from(size).unwrap_or(BODY_PIECE).min(BODY_PIECE)];
        let mut left = size;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(BODY_PIECE).min(BODY_PIECE);
            let space = piece.get_mut(..room).unwrap_or_default();
            let read = read_some(&mut self.stream, space, &pace).await;
            let count = self.more(read)?;
            sink(piece.get(..count).unwrap_or_default())?;
            left -= count as u64;
        }
        self.progress = Progress::Between;
        Ok(())
    }

    fn begin_raw(&mut self) -> Result<(), TransportError> {
        match std::mem::replace(&mut self.progress, Progress::Interrupted) {
            Progress::Between => Ok(()),
            _ => Err(self.ended()),
        }
    }

    /// Waits for the good end of the stream; anything more is a fault.
    pub async fn receive_end(&mut self) -> Result<(), TransportError> {
        match self.receive_frame(0).await? {
            None => Ok(()),
            Some(_) => Err(self.fault(PeerFault::TooLarge { size: 1, limit: 0 })),
        }
    }

    /// Tells the peer that the rest is not wanted, and why.
    pub fn stop(&mut self, code: Code) {
        // It fails only where the stream is over already.
        let _ = self.stream.stop(code.to_wire());
    }

    /// Bytes received so far, lengths included.
    pub const fn bytes(&self) -> u64 {
        self.received
    }

    /// Counts what one read gave; `None` at the good end of the stream.
    fn taken(&mut self, read: Read) -> Result<Option<usize>, TransportError> {
        match read {
            Read::Some(count) => {
                self.received += count as u64;
                totals::count_received(count as u64);
                Ok(Some(count))
            }
            Read::End => Ok(None),
            Read::Stalled => Err(self.fault(PeerFault::Stalled { wait: self.wait })),
            Read::Failed(error) => Err(self.failed(error)),
        }
    }

    /// As [`Receiver::taken`], where the stream may not end.
    fn more(&mut self, read: Read) -> Result<usize, TransportError> {
        self.taken(read)?.ok_or_else(|| self.fault(PeerFault::Truncated))
    }

    fn within(&self, size: u64, limit: u64) -> Result<usize, TransportError> {
        let too_large = || self.fault(PeerFault::TooLarge { size, limit });
        if size > limit {
            return Err(too_large());
        }
        usize::try_from(size).map_err(|_| too_large())
    }

    fn fault(&self, fault: PeerFault) -> TransportError {
        TransportError::Peer { peer: self.peer.to_string(), fault }
    }
    fn ended(&self) -> TransportError {
        TransportError::StreamEnded { peer: self.peer.to_string() }
    }
    fn failed(&self, error: ReadError) -> TransportError {
        let peer = self.peer.to_string();
        match error {
            ReadError::Reset(code) => TransportError::StreamReset { peer, code: Code::from_wire(code) },
            ReadError::ConnectionLost(error) => TransportError::from_close(peer, error),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                TransportError::StreamEnded { peer }
            }
        }
    }

    /// Bytes of memory that the frame under way holds.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        match &self.progress {
            Progress::Body(filling) => filling.space.capacity(),
            _ => 0,
        }
    }

    #[cfg(test)]
    pub(crate) const fn set_wait(&mut self, wait: Duration) {
        self.wait = wait;
    }
}
