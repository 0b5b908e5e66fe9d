//! zstd frames of an edit: magicless, no checksum, no size, old content as prefix.

use super::EditError;
use crate::entry::Chunk;
use crate::limits::{FRAME_CONTENT, FRAME_PREFIX, FRAME_TAIL, KIB, MIB};
use crate::object::ObjectSource;
use bytes::Bytes;
use std::collections::BTreeSet;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, FrameFormat, get_error_name};

fn fail(code: usize) -> EditError {
    EditError::Frame(get_error_name(code).to_owned())
}

/// The base-two logarithm of the window that a frame of these sizes may need (specs/edit.md, E-11).
fn window_log(content: u64, prefix: u64) -> u32 {
    (content + prefix).max(1).next_power_of_two().ilog2().clamp(10, 26)
}

/// How much work an edit is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// A snapshot that somebody waits for.
    Fast,
    /// What is made once and sent to many: the best for what is small, less the longer it would take.
    #[default]
    Usual,
    /// As small as can be: a snapshot that is made ahead.
    Best,
}

/// zstd's level for a frame.
fn level(effort: Effort, content: u64, prefix: u64) -> i32 {
    match (effort, content + prefix) {
        (Effort::Best, _) => 19,
        (Effort::Fast, _) if prefix == 0 && content > 128 * KIB => 7,
        (_, size) if size <= MIB => 19,
        // Few new bytes: to index the long prefix is all the work, and the best level takes 30 times as long for it.
        (_, size) if size <= 16 * MIB && content <= prefix / 8 => 12,
        (_, size) if size <= 4 * MIB => 16,
        (_, size) if size <= 16 * MIB => 12,
        _ => 7,
    }
}

/// A frame this small at a fast level is hardly smaller at the best one.
const SMALL_ENOUGH: usize = 256;

/// Packs `content` with `prefix` before it in the window.
pub(super) fn pack(content: &[u8], prefix: &[u8], effort: Effort) -> Result<Vec<u8>, EditError> {
    let (size, before) = (content.len() as u64, prefix.len() as u64);
    if before > 128 * KIB && size <= before / 8 {
        let fast = pack_at(12, content, prefix)?;
        if fast.len() <= SMALL_ENOUGH {
            return Ok(fast);
        }
    }
    pack_at(level(effort, size, before), content, prefix)
}

fn pack_at(level: i32, content: &[u8], prefix: &[u8]) -> Result<Vec<u8>, EditError> {
    let (size, before) = (content.len() as u64, prefix.len() as u64);
    let mut context = CCtx::create();
    let mut set = |parameter| context.set_parameter(parameter).map_err(fail);
    set(CParameter::CompressionLevel(level))?;
    set(CParameter::Format(FrameFormat::Magicless))?;
    set(CParameter::ContentSizeFlag(false))?;
    set(CParameter::ChecksumFlag(false))?;
    set(CParameter::DictIdFlag(false))?;
    set(CParameter::WindowLog(window_log(size, before)))?;
    // The match finders index only the end of a long prefix; this one covers all of it.
    set(CParameter::EnableLongDistanceMatching(before > 2 * MIB))?;
    context.set_pledged_src_size(Some(size)).map_err(fail)?;
    context.ref_prefix(prefix).map_err(fail)?;
    let mut packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(content.len()));
    context.compress2(&mut packed, content).map_err(fail)?;
    Ok(packed)
}

/// Unpacks exactly `size` bytes. Allocates `size` bytes and no window: the
/// output itself is the window, so a frame cannot ask for more.
pub(super) fn unpack(packed: &[u8], prefix: &[u8], size: u64) -> Result<Bytes, EditError> {
    let mut context = DCtx::create();
    context.set_parameter(DParameter::Format(FrameFormat::Magicless)).map_err(fail)?;
    context.ref_prefix(prefix).map_err(fail)?;
    let size = usize::try_from(size).map_err(|_| EditError::Malformed("size out of range"))?;
    let mut content: Vec<u8> = Vec::new();
    content.try_reserve_exact(size).map_err(|error| EditError::Frame(error.to_string()))?;
    context.decompress(&mut content, packed).map_err(fail)?;
    if content.len() != size {
        return Err(EditError::Frame("another length than declared".into()));
    }
    Ok(Bytes::from(content))
}

/// One piece of content, and the old content that may help to code it.
pub(super) struct Unit {
    pub(super) size: u64,
    /// For the first unit of an operation: chunks of its base.
    pub(super) base: Vec<Chunk>,
}

/// Cuts units into frames of at most [`FRAME_CONTENT`] bytes, in order.
pub(super) fn group(units: &[Unit]) -> Vec<&[Unit]> {
    let mut frames = Vec::new();
    let mut rest = units;
    while !rest.is_empty() {
        let mut total = 0u64;
        let fits = rest.iter().take_while(|unit| {
            total = total.saturating_add(unit.size);
            total <= FRAME_CONTENT
        });
        let count = fits.count().max(1);
        let (frame, after) = rest.split_at(count.min(rest.len()));
        frames.push(frame);
        rest = after;
    }
    frames
}

/// The prefix of a frame: the end of the frame before, then the bases of its
/// units, each once, as far as [`FRAME_PREFIX`] allows (specs/edit.md, E-10).
pub(super) fn prefix<S: ObjectSource + ?Sized>(
    units: &[Unit],
    frame_before: &[u8],
    source: &S,
) -> Result<Vec<u8>, EditError> {
    let from = frame_before.len().saturating_sub(FRAME_TAIL as usize);
    let mut prefix = frame_before.get(from..).unwrap_or_default().to_vec();
    let mut seen = BTreeSet::new();
    let mut held = 0u64;
    for chunk in units.iter().filter(|unit| unit.size > 0).flat_map(|unit| &unit.base) {
        if held.saturating_add(chunk.size) > FRAME_PREFIX || !seen.insert(chunk.id) {
            continue;
        }
        held += chunk.size;
        prefix.extend_from_slice(&source.read(&chunk.id.into())?);
    }
    Ok(prefix)
}
