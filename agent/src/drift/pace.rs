//! Work on a thread of its own that reads no faster than a host should notice (specs/activation.md, A-55).

use rootcast::limits::{CHECK_FILE, CHECK_RATE, CHECK_SLICE};
use rootcast_replica::{Machine, ReplicaError};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Does work that says before each file how much it is about to read, and goes on when it may: on average
/// [`CHECK_RATE`] at most. Once this is dropped, it may not.
///
/// # Errors
/// [`ReplicaError::Stopped`].
pub(super) async fn gently<T: Send + 'static>(
    machine: Arc<dyn Machine>,
    work: impl FnOnce(&dyn Fn(u64) -> bool) -> T + Send + 'static,
) -> Result<T, ReplicaError> {
    // The thread waits while the slice before the last is made up for.
    let (slices, mut read) = mpsc::channel::<u64>(1);
    let work = machine.blocking(move || {
        let bytes = Cell::new(0);
        work(&|size| {
            bytes.set(size.max(CHECK_FILE).saturating_add(bytes.get()));
            bytes.get() < CHECK_SLICE || slices.blocking_send(bytes.take()).is_ok()
        })
    });
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            Some(bytes) = read.recv() => {
                tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / CHECK_RATE as f64)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast_replica::System;
    use std::sync::mpsc::channel;
    use tokio::time::{Instant, timeout};

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_55_a_comparison_takes_its_time_and_a_small_file_counts() {
        let (begun, slices) = (Instant::now(), 8);
        let files = slices * CHECK_SLICE / CHECK_FILE;
        let work = move |pace: &dyn Fn(u64) -> bool| (0..files).filter(|_| pace(1)).count() as u64;
        assert_eq!(gently(Arc::new(System), work).await.unwrap(), files);
        // The last two are not waited for.
        let least = Duration::from_secs_f64(((slices - 3) * CHECK_SLICE) as f64 / CHECK_RATE as f64);
        assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_55_a_comparison_that_nobody_waits_for_ends() {
        let (ended, is_ended) = channel();
        let work = move |pace: &dyn Fn(u64) -> bool| {
            while pace(CHECK_SLICE) {}
            ended.send(()).unwrap();
        };
        let endless = gently(Arc::new(System), work);
        assert!(timeout(Duration::from_millis(50), endless).await.is_err());
        is_ended.recv_timeout(LONG).unwrap();
    }
}
