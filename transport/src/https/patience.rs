//! A stream whose other end must take what is written to it, at no less than a
//! least rate: one that reads slowly, or not at all, is left (threat 20).

use rootcast::limits::{MIN_STREAM_RATE, STREAM_WAIT};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What must be taken within [`STREAM_WAIT`], once the other end has not taken all at once.
const LEAST: u64 = MIN_STREAM_RATE * STREAM_WAIT.as_secs();

/// The stream. Reading is bounded where what is read is known.
pub(super) struct Patient<S> {
    stream: S,
    wait: Duration,
    /// Runs while the other end has not taken what is there for it.
    deadline: Option<Pin<Box<Sleep>>>,
    /// What it has taken since that began.
    taken: u64,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S) -> Self {
        Self::with_wait(stream, STREAM_WAIT)
    }

    fn with_wait(stream: S, wait: Duration) -> Self {
        Self { stream, wait, deadline: None, taken: 0 }
    }

    fn judge(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => {
                self.taken = self.taken.saturating_add(*bytes as u64);
                if self.taken >= LEAST {
                    self.deadline = None;
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending if self.deadline.is_none() => {
                self.taken = 0;
                self.deadline = Some(Box::pin(tokio::time::sleep_until(Instant::now() + self.wait)));
            }
            Poll::Pending => {}
        }
        let late = self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready());
        if late && written.is_pending() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end takes nothing")));
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if let Poll::Ready(Ok(())) = flushed {
            // All is with the system, which is to say: under way.
            self.deadline = None;
            return flushed;
        }
        match self.judge(flushed.map_ok(|()| 0), context) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map(drop)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        match self.judge(shut.map_ok(|()| 0), context) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map(drop)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.judge(written, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const WAIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn threat_20_one_that_takes_nothing_is_left() {
        let (ours, _theirs) = tokio::io::duplex(1024);
        let mut ours = Patient::with_wait(ours, WAIT);
        let begun = Instant::now();
        let error = ours.write_all(&[0; 4096]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((WAIT..WAIT * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn threat_20_one_that_drips_is_left() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut ours = Patient::with_wait(ours, WAIT);
        let drips = tokio::spawn(async move {
            let mut byte = [0];
            while theirs.read_exact(&mut byte).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let error = ours.write_all(&vec![0; 1 << 20]).await.expect_err("a byte a second is too slow");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drips.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn w_12_one_that_is_slow_but_fast_enough_gets_it_all() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut ours = Patient::with_wait(ours, WAIT);
        let reads = tokio::spawn(async move {
            let (mut all, mut some) = (0, [0; 512]);
            while let Ok(count @ 1..) = theirs.read(&mut some).await {
                all += count;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            all
        });
        ours.write_all(&vec![0; 100_000]).await.unwrap();
        ours.shutdown().await.unwrap();
        drop(ours);
        assert_eq!(reads.await.unwrap(), 100_000);
    }
}
