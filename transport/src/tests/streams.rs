//! Frames and bodies over real connections (specs/wire.md, W-9 to W-13).

use super::*;
use crate::{Code, PeerFault, frame};
use bytes::Bytes;
use rootcast::limits::{BODY_PIECE, MAX_FRAME, MAX_UPDATE_STREAMS, MIB};
use std::task::Poll;

fn fault<T: std::fmt::Debug>(outcome: Result<T, TransportError>) -> PeerFault {
    let error = outcome.expect_err("should fail");
    error.fault().unwrap_or_else(|| panic!("{error}")).clone()
}

/// Bytes that differ from place to place, so that a lost or moved piece shows.
fn pattern(size: usize) -> Vec<u8> {
    (0..size as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[tokio::test]
async fn w_9_frames_of_all_boundary_sizes_arrive_whole() {
    let pair = Pair::meet().await;
    let sizes = [0, 1, 63, 64, 1200, 16_383, 16_384, BODY_PIECE - 1, BODY_PIECE, BODY_PIECE + 1, 1 << 20];
    let mut sender = pair.up.open_uni().await.unwrap();
    let sending = async {
        for size in sizes {
            sender.send_frame(&pattern(size)).await.unwrap();
        }
        sender.finish().unwrap();
        sender.bytes()
    };
    let receiving = async {
        let mut receiver = pair.down.accept_uni().await.unwrap();
        for size in sizes {
            let bytes = receiver.receive_frame(size as u64).await.unwrap().unwrap();
            assert!(bytes == pattern(size), "{size}");
        }
        assert_eq!(receiver.receive_frame(1).await.unwrap(), None);
        receiver.bytes()
    };
    let (sent, received) = soon(async { tokio::join!(sending, receiving) }).await;
    assert_eq!(sent, received);
    assert!(sent > sizes.iter().sum::<usize>() as u64 + sizes.len() as u64);
}

#[tokio::test]
async fn w_10_tuf_endless_data_more_than_the_limit_is_refused_before_it_is_read() {
    let pair = Pair::meet().await;
    // 101, then 2^62 - 1.
    for (announced, size) in [(&[0x40, 101][..], 101), (&[0xff; 8][..], (1 << 62) - 1)] {
        let (_sender, mut receiver) = pair.stream(announced).await;
        for _ in ["refused", "and it stays refused"] {
            let outcome = soon(receiver.receive_frame(100)).await;
            assert_eq!(fault(outcome), PeerFault::TooLarge { size, limit: 100 });
        }
        assert_eq!((receiver.bytes(), receiver.held()), (announced.len() as u64, 0));
    }
    let (_sender, mut receiver) = pair.stream(b"x").await;
    let outcome = soon(receiver.receive_exact(1 << 62, 100)).await;
    assert_eq!(fault(outcome), PeerFault::TooLarge { size: 1 << 62, limit: 100 });
    let too_large = frame(&vec![0; MAX_FRAME as usize + 1]);
    assert!(matches!(too_large, Err(TransportError::FrameTooLarge { limit: MAX_FRAME, .. })));
}

#[tokio::test]
async fn w_11_memory_follows_what_arrived_not_what_was_announced() {
    let pair = Pair::meet().await;
    // One GiB is announced and allowed; three bytes come.
    let (_sender, mut receiver) = pair.stream(&[0xc0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3]).await;
    receiver.set_wait(Duration::from_millis(50));
    assert!(matches!(fault(soon(receiver.receive_frame(1 << 31)).await), PeerFault::Stalled { .. }));
    assert_eq!(receiver.bytes(), 11);
    assert!(receiver.held() <= BODY_PIECE, "{}", receiver.held());
}

#[tokio::test]
async fn w_9_a_length_in_a_longer_form_is_refused() {
    let pair = Pair::meet().await;
    for long in [&[0x40, 0x05][..], &[0x80, 0, 0, 5], &[0xc0, 0, 0, 0, 0, 0, 0, 5], &[0x40, 0]] {
        let (_sender, mut receiver) = pair.stream(long).await;
        let outcome = soon(receiver.receive_frame(100)).await;
        assert_eq!(fault(outcome), PeerFault::LengthNotShortest, "{long:?}");
    }
}

#[tokio::test]
async fn w_10_an_end_inside_a_frame_is_a_fault() {
    let pair = Pair::meet().await;
    for broken in [&[0x40][..], &[0x05], &[0x05, 1, 2, 3, 4], &[0x01, 7, 0x80, 0, 0x40]] {
        let (mut sender, mut receiver) = pair.stream(broken).await;
        sender.finish().unwrap();
        if broken.len() == 5 && broken[0] == 1 {
            assert_eq!(soon(receiver.receive_frame(9)).await.unwrap().unwrap(), &[7][..]);
        }
        assert_eq!(fault(soon(receiver.receive_frame(9)).await), PeerFault::Truncated, "{broken:?}");
    }
    let (mut sender, mut receiver) = pair.stream(b"four").await;
    sender.finish().unwrap();
    assert_eq!(fault(soon(receiver.receive_exact(5, 9)).await), PeerFault::Truncated);
}

#[tokio::test]
async fn w_10_messages_have_one_encoding() {
    let pair = Pair::meet().await;
    let mut sender = pair.up.open_uni().await.unwrap();
    sender.send_message(&(7u8, "seven")).await.unwrap();
    sender.send_frame(&[0x18, 7]).await.unwrap(); // 7, not in its shortest form
    sender.send_frame(&[7, 7]).await.unwrap(); // and something after it
    let mut receiver = soon(pair.down.accept_uni()).await.unwrap();
    let message: Option<(u8, String)> = soon(receiver.receive_message(64)).await.unwrap();
    assert_eq!(message, Some((7, "seven".into())));
    for _ in 0..2 {
        let outcome = soon(receiver.receive_message::<u8>(64)).await;
        assert!(matches!(fault(outcome), PeerFault::Message(_)));
    }
}

#[tokio::test]
async fn w_12_a_sender_that_stops_half_way_is_given_up() {
    let pair = Pair::meet().await;
    let wait = Duration::from_millis(50);
    for begun in [&[0x40][..], &[0x05, 1]] {
        let (_sender, mut receiver) = pair.stream(begun).await;
        receiver.set_wait(wait);
        assert_eq!(fault(soon(receiver.receive_frame(9)).await), PeerFault::Stalled { wait });
    }
    let (_sender, mut receiver) = pair.stream(b"ab").await;
    receiver.set_wait(wait);
    let outcome: Result<(), TransportError> = soon(receiver.receive_into(3, |_| Ok(()))).await;
    assert_eq!(fault(outcome), PeerFault::Stalled { wait });
    assert!(matches!(soon(receiver.receive_frame(9)).await, Err(TransportError::StreamEnded { .. })));
}

#[tokio::test]
async fn w_12_a_reader_that_takes_nothing_is_given_up_and_its_siblings_are_not() {
    let pair = Pair::meet().await;
    let wait = Duration::from_millis(200);
    let (mut sender, _unread) = pair.stream(b"x").await;
    sender.set_wait(wait);
    let outcome = soon(sender.send_bytes(Bytes::from(vec![0; 8 << 20]))).await;
    assert_eq!(fault(outcome), PeerFault::Stalled { wait });
    assert!(sender.bytes() <= 2 * MIB, "the windows bound what a reader can make us hold");
    let again = soon(sender.send_frame(b"y")).await;
    assert!(matches!(again, Err(TransportError::StreamEnded { .. })), "half a body was sent");
    // Giving the stream up gives its window back: another passes.
    drop(sender);
    drop(_unread);
    let (mut sender, mut receiver) = soon(pair.stream(&[1, 1])).await;
    sender.finish().unwrap();
    assert_eq!(soon(receiver.receive_frame(9)).await.unwrap().unwrap(), &[1][..]);
}

#[tokio::test(start_paused = true)]
async fn w_12_a_drip_is_too_slow() {
    use crate::sender::Pace;
    use rootcast::limits::{MIN_STREAM_RATE, STREAM_WAIT};
    let begun = tokio::time::Instant::now();
    let seconds = 100;
    let pace = Pace::begin(seconds * MIN_STREAM_RATE, STREAM_WAIT);
    assert_eq!(pace.next() - begun, STREAM_WAIT, "first the gap counts");
    tokio::time::advance(Duration::from_secs(seconds) + STREAM_WAIT / 2).await;
    let end = STREAM_WAIT + Duration::from_secs(seconds);
    assert_eq!(pace.next() - begun, end, "then the whole");
    tokio::time::advance(STREAM_WAIT).await;
    assert_eq!(pace.next() - begun, end, "however often bytes come");
    assert!(Pace::begin(u64::MAX, STREAM_WAIT).next() > begun, "no overflow");
}

#[tokio::test]
async fn w_13_only_finish_is_a_good_end() {
    let pair = Pair::meet().await;
    let (sender, mut receiver) = pair.stream(&[1, 7]).await;
    assert_eq!(soon(receiver.receive_frame(9)).await.unwrap().unwrap(), &[7][..]);
    drop(sender);
    let outcome = soon(receiver.receive_frame(9)).await;
    assert!(matches!(outcome, Err(TransportError::StreamReset { code: Code::DROPPED, .. })));
    let (mut sender, mut receiver) = pair.stream(&[1]).await;
    sender.reset(Code::SUPERSEDED);
    let outcome = soon(receiver.receive_frame(9)).await;
    assert!(matches!(outcome, Err(TransportError::StreamReset { code: Code::SUPERSEDED, .. })));
}

#[tokio::test]
async fn w_13_a_stream_no_longer_wanted_says_why() {
    let pair = Pair::meet().await;
    let (mut sender, mut receiver) = pair.stream(&[1]).await;
    receiver.stop(Code::BUSY);
    let outcome = soon(sender.finish_delivered()).await;
    assert!(matches!(outcome, Err(TransportError::StreamStopped { code: Code::BUSY, .. })));
    let (mut sender, mut receiver) = pair.stream(&[1, 7]).await;
    soon(sender.finish_delivered()).await.unwrap();
    assert_eq!(soon(receiver.receive_frame(9)).await.unwrap().unwrap(), &[7][..]);
    soon(receiver.receive_end()).await.unwrap();
    assert!(matches!(sender.finish(), Err(TransportError::StreamEnded { .. })));
}

#[tokio::test]
async fn w_10_giving_up_a_receive_loses_nothing() {
    let pair = Pair::meet().await;
    let whole = frame(&pattern(500)).unwrap();
    let (mut sender, mut receiver) = pair.stream(&[0x41]).await;
    let mut sent = 1;
    for cut in [2, 3, 250, 501] {
        // Given up as soon as it has taken all that was sent.
        while receiver.bytes() < sent as u64 {
            let short = Duration::from_millis(5);
            let given_up = tokio::time::timeout(short, receiver.receive_frame(500)).await;
            assert!(given_up.is_err(), "{given_up:?}");
        }
        sender.send_bytes(whole.slice(sent..cut)).await.unwrap();
        sent = cut;
    }
    sender.send_bytes(whole.slice(sent..)).await.unwrap();
    let received = soon(receiver.receive_frame(500)).await.unwrap().unwrap();
    assert!(received == pattern(500));
}

#[tokio::test]
async fn w_10_a_send_given_up_half_way_ends_the_stream() {
    let pair = Pair::meet().await;
    let (mut sender, mut receiver) = pair.stream(&[1, 7]).await;
    let large = Bytes::from(vec![0; 8 << 20]);
    let short = Duration::from_millis(20);
    tokio::time::timeout(short, sender.send_bytes(large)).await.unwrap_err();
    let again = soon(sender.send_frame(b"read as the rest of the body")).await;
    assert!(matches!(again, Err(TransportError::StreamEnded { .. })));
    assert!(matches!(sender.finish(), Err(TransportError::StreamEnded { .. })));
    assert_eq!(soon(receiver.receive_frame(9)).await.unwrap().unwrap(), &[7][..]);
}

#[tokio::test]
async fn w_10_a_small_update_leaves_in_one_piece() {
    let pair = Pair::meet().await;
    let (mut sender, mut receiver) = pair.stream(&[1, 7]).await;
    soon(receiver.receive_frame(9)).await.unwrap();
    let before = pair.up.quic().stats().frame_tx.stream;
    let mut pieces = [frame(&[1; 150]).unwrap(), Bytes::from(vec![2; 80])];
    sender.send_all(&mut pieces).await.unwrap();
    assert_eq!(soon(receiver.receive_frame(150)).await.unwrap().unwrap(), &[1; 150][..]);
    assert_eq!(soon(receiver.receive_exact(80, 80)).await.unwrap(), &[2; 80][..]);
    assert_eq!(pair.up.quic().stats().frame_tx.stream - before, 1);
}

#[tokio::test]
async fn w_11_a_large_body_passes_in_small_pieces() {
    const SIZE: usize = 32 << 20;
    let pair = Pair::meet().await;
    let body = Bytes::from(pattern(SIZE));
    let expected = body.clone();
    let sending = async {
        let mut sender = pair.down.open_uni().await.unwrap();
        sender.send_all(&mut [frame(b"header").unwrap(), body]).await.unwrap();
        sender.finish_delivered().await.unwrap();
    };
    let receiving = async {
        let mut receiver = pair.up.accept_uni().await.unwrap();
        receiver.receive_frame(6).await.unwrap().unwrap();
        let (mut at, mut largest) = (0, 0);
        receiver
            .receive_into(SIZE as u64, |piece| {
                assert!(piece == &expected[at..at + piece.len()], "at {at}");
                at += piece.len();
                largest = largest.max(piece.len());
                Ok::<(), TransportError>(())
            })
            .await
            .unwrap();
        receiver.receive_end().await.unwrap();
        (at, largest)
    };
    let ((), (received, largest)) = soon(async { tokio::join!(sending, receiving) }).await;
    assert_eq!(received, SIZE);
    assert!(largest <= BODY_PIECE);
    assert!(pair.up.traffic().received_bytes > SIZE as u64);
    assert!(pair.down.traffic().sent_bytes > SIZE as u64);
}

#[tokio::test]
async fn w_11_a_sink_that_fails_ends_the_body_with_its_own_error() {
    #[derive(Debug)]
    struct DiskFull;
    impl From<TransportError> for DiskFull {
        fn from(error: TransportError) -> Self {
            panic!("{error}")
        }
    }
    let pair = Pair::meet().await;
    let (_sender, mut receiver) = pair.stream(b"abc").await;
    let DiskFull = soon(receiver.receive_into(3, |_| Err(DiskFull))).await.unwrap_err();
}

/// How many streams a child may have open; then some are ended, and one more opens.
async fn open_streams(role: Role, expected: u64) {
    let pair = Pair::meet_as(role).await;
    let mut open = Vec::new();
    for _ in 0..expected {
        let (mut sender, receiver) = soon(pair.up.open_bi()).await.unwrap();
        sender.send_frame(b"x").await.unwrap();
        open.push((sender, receiver));
    }
    let mut next = Box::pin(pair.up.open_bi());
    let waits = std::future::poll_fn(|context| Poll::Ready(next.as_mut().poll(context).is_pending()));
    assert!(waits.await, "{role} opened more than {expected}");
    // QUIC gives room back in lots of an eighth.
    for (mut sender, mut receiver) in open.drain(..=expected as usize / 8) {
        let (mut answer, mut request) = soon(pair.down.accept_bi()).await.unwrap();
        soon(request.receive_frame(1)).await.unwrap();
        answer.finish().unwrap();
        sender.finish().unwrap();
        soon(receiver.receive_end()).await.unwrap();
        soon(request.receive_end()).await.unwrap();
    }
    soon(next).await.unwrap();
}

#[tokio::test]
async fn threat_20_a_host_has_few_streams() {
    open_streams(Role::Agent, crate::tuning::HOST_STREAMS.into_inner()).await;
}

#[tokio::test]
async fn threat_20_a_child_relay_has_as_many_as_its_subscriptions() {
    open_streams(Role::Relay, crate::tuning::LARGE_CHILD_STREAMS.into_inner()).await;
}

#[tokio::test]
async fn threat_20_updates_have_a_cap_too() {
    let pair = Pair::meet().await;
    let mut open = Vec::new();
    for _ in 0..MAX_UPDATE_STREAMS {
        open.push(soon(pair.down.open_uni()).await.unwrap());
    }
    let mut next = Box::pin(pair.down.open_uni());
    let waits = std::future::poll_fn(|context| Poll::Ready(next.as_mut().poll(context).is_pending()));
    assert!(waits.await);
}
