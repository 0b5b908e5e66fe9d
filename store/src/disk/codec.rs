//! Compression of stored objects: zstd frames without magic number, checksum
//! or content size, which the index makes superfluous (S-7).

use bytes::Bytes;
use core::cell::RefCell;
use std::io;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, DParameter, FrameFormat};

/// Better levels cost more time than the space is worth: what travels is edits, not this.
const LEVEL: i32 = 3;
/// No frame saves anything on less.
const WORTH_TRYING: usize = 64;

/// A compressor for a batch.
pub(super) fn compressor() -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.set_parameter(CParameter::Format(FrameFormat::Magicless))?;
    compressor.set_parameter(CParameter::ContentSizeFlag(false))?;
    compressor.set_parameter(CParameter::ChecksumFlag(false))?;
    Ok(compressor)
}

/// The compressed bytes, where they are fewer.
pub(super) fn pack(compressor: &mut Compressor<'_>, raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() < WORTH_TRYING {
        return None;
    }
    // A failure to compress costs space and nothing else.
    let packed = compressor.compress(raw).ok()?;
    (packed.len() < raw.len()).then_some(packed)
}

fn decompressor() -> io::Result<Decompressor<'static>> {
    let mut decompressor = Decompressor::new()?;
    decompressor.set_parameter(DParameter::Format(FrameFormat::Magicless))?;
    Ok(decompressor)
}

thread_local! {
    // A context is larger than most objects: one for each thread that reads, not one a read.
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The bytes as given, of which there must be exactly `raw`. Allocates no more than that.
pub(super) fn unpack(stored: &[u8], raw: u32) -> Option<Bytes> {
    let raw = raw as usize;
    if stored.len() == raw {
        return Some(Bytes::copy_from_slice(stored));
    }
    let mut bytes = Vec::with_capacity(raw);
    let written = DECOMPRESSOR.with_borrow_mut(|kept| {
        let mut own = match kept.take() {
            Some(own) => own,
            None => decompressor().ok()?,
        };
        // Not put back after a failure, so that no bad frame leaves its state behind.
        let written = own.decompress_to_buffer(stored, &mut bytes).ok()?;
        *kept = Some(own);
        Some(written)
    });
    (written == Some(raw)).then(|| bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks_to_the_same_and_to_no_other_length() {
        let raw = b"listen 80; ".repeat(50);
        let packed = pack(&mut compressor().unwrap(), &raw).unwrap();
        assert!(packed.len() < 40, "{}", packed.len());
        assert_eq!(unpack(&packed, raw.len() as u32).unwrap(), raw);
        assert_eq!(unpack(&packed, raw.len() as u32 - 1), None);
        assert_eq!(unpack(&packed, raw.len() as u32 + 1), None);
        assert_eq!(unpack(b"not a frame", 40), None);
        assert_eq!(unpack(&packed, raw.len() as u32).unwrap(), raw, "after failures");
    }
}
