//! Messages between peers: one form of each, and what a compact head says is verified like a whole one.

use crate::bounded;
use crate::documents::{was_signed, were_signed};
use crate::golden::{GOLDEN, channel};
use rootcast::codec;
use rootcast::compact::Before;
use rootcast::limits::MAX_FRAME;
use rootcast::protocol::{UpdateHead, UpdateMessage};
use rootcast_transport::varint;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// K-4: what is read is written again as the same bytes.
pub(crate) fn canonical<T: Serialize + DeserializeOwned>(input: &[u8]) {
    let _ = read::<T>(input);
}

fn read<T: Serialize + DeserializeOwned>(input: &[u8]) -> Option<T> {
    let value = bounded(input, |input| codec::decode::<T>(input, MAX_FRAME)).ok()?;
    codec::check_canonical(input).expect("K-1: what was read is canonical");
    assert_eq!(codec::encode(&value), input, "K-4");
    Some(value)
}

/// W-28, W-33: whatever an update says, rebuilt or not, what verifies of it was signed.
pub(crate) fn update(input: &[u8]) {
    let head = match read::<UpdateMessage>(input) {
        Some(UpdateMessage::Whole(head) | UpdateMessage::Resumed(head, _)) => head,
        Some(UpdateMessage::Compact(compact)) => {
            let before = Before::new(&GOLDEN.first, |_| true);
            let edits: Vec<_> = GOLDEN.next.iter().cycle().take(compact.listed.len()).cloned().collect();
            let Some(head) = before.expand(&compact, &edits) else { return };
            let encoded = codec::encode(&head);
            assert_eq!(codec::decode::<UpdateHead>(&encoded, MAX_FRAME).as_ref(), Ok(&head), "W-33");
            head
        }
        None => return,
    };
    let Ok(release) = GOLDEN.trust.release(&channel(), &head.release) else { return };
    was_signed(&release);
    let leaves = head.listed.into_iter().map(|bundle| (bundle.index, bundle.leaf)).collect();
    if let Ok(bundles) = release.bundles(leaves, &head.siblings) {
        were_signed(&bundles);
    }
}

/// W-9: a length that is read is in the one form in which it would be written.
pub(crate) fn frame_length(input: &[u8]) {
    let Some(first) = input.first() else { return };
    let size = varint::size_from_first(*first);
    let Some(length) = input.get(..size) else { return };
    let mut again = Vec::new();
    match varint::read(length) {
        Some(value) => {
            varint::put(value, &mut again);
            assert_eq!(again, length, "W-9: {value}");
        }
        None => {
            // Refused, so a shorter form says the same: RFC 9000, section 16.
            let value =
                length.iter().skip(1).fold(u64::from(first & 0x3f), |v, byte| v << 8 | u64::from(*byte));
            varint::put(value, &mut again);
            assert!(again.len() < size, "W-9: {value} is refused in its shortest form");
        }
    }
}
