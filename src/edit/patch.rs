//! A file told by what its base keeps, drops and gains (specs/edit.md, E-15).
//!
//! Most changes of configuration are a few words in long files, often in many
//! at once. Said as hunks they cost the places and the new words, whatever the
//! length of the files, and a packer has only the new words to pack.

use super::EditError;
use crate::limits::MAX_BLOB;
use bytes::Bytes;
use gix_imara_diff::{Algorithm, Diff, InternedInput};

/// A place at which a file differs from its base. Sizes in bytes, each at most [`MAX_BLOB`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hunk {
    /// Bytes of the base that stay, after the hunk before.
    pub(super) keep: u32,
    /// Bytes of the base that go.
    pub(super) drop: u32,
    /// New bytes that come in their place.
    pub(super) insert: u32,
}

/// Hunks closer than this are one: a hunk costs more than the bytes between.
const JOIN_WITHIN: usize = 2;
/// Longer hunks of lines are not looked at word by word.
const WORDS_WITHIN: usize = 64 * 1024;

/// The hunks that make `new` of `base`; `None` where sending it whole is as good.
pub(super) fn hunks(base: &[u8], new: &[u8]) -> Option<Vec<Hunk>> {
    let mut places: Vec<Place> = Vec::new();
    for lines in differences(&lines(base), &lines(new)) {
        let (old, fresh) = (base.get(lines.old.clone())?, new.get(lines.new.clone())?);
        if old.is_empty() || fresh.is_empty() || old.len() + fresh.len() > WORDS_WITHIN {
            join(&mut places, lines);
            continue;
        }
        for words in differences(&words(old), &words(fresh)) {
            join(&mut places, words.within(&lines).trimmed(base, new)?);
        }
    }
    // Beyond this the hunks tell of two unlike files (and E-2 bounds what they may take).
    if places.is_empty() || places.len() > base.len().min(new.len()) / 16 + 4 {
        return None;
    }
    let mut at = 0;
    let hunk = |place: Place| {
        let keep = place.old.start - at;
        at = place.old.end;
        let size = |size: usize| u32::try_from(size).ok();
        Some(Hunk { keep: size(keep)?, drop: size(place.old.len())?, insert: size(place.new.len())? })
    };
    let hunks: Vec<Hunk> = places.into_iter().map(hunk).collect::<Option<_>>()?;
    (insertion(&hunks) < new.len() as u64 / 4 * 3).then_some(hunks)
}

/// The bytes of `new` that its hunks insert.
pub(super) fn inserted(new: &[u8], hunks: &[Hunk]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0usize);
    for hunk in hunks {
        let from = at + hunk.keep as usize;
        at = from + hunk.insert as usize;
        out.extend_from_slice(new.get(from..at).unwrap_or_default());
    }
    out
}

/// Bytes that hunks insert in all.
pub(super) fn insertion(hunks: &[Hunk]) -> u64 {
    hunks.iter().map(|hunk| u64::from(hunk.insert)).sum()
}

/// Makes the new file. `inserted` has exactly the bytes that the hunks insert.
pub(super) fn apply(base: &[u8], hunks: &[Hunk], inserted: &[u8]) -> Result<Bytes, EditError> {
    let dropped: u64 = hunks.iter().map(|hunk| u64::from(hunk.drop)).sum();
    let size = (base.len() as u64).checked_sub(dropped).map(|kept| kept + inserted.len() as u64);
    let size = size.ok_or(EditError::Malformed("drops more than the base has"))?;
    if size > MAX_BLOB {
        return Err(EditError::TooLarge { what: "file size", given: size, allowed: MAX_BLOB });
    }
    let mut file = Vec::with_capacity(size as usize);
    let (mut base, mut inserted) = (base, inserted);
    for hunk in hunks {
        let short = EditError::Malformed("keeps or drops more than the base has");
        let (kept, rest) = base.split_at_checked(hunk.keep as usize).ok_or(short.clone())?;
        let (_, rest) = rest.split_at_checked(hunk.drop as usize).ok_or(short.clone())?;
        let (new, later) = inserted.split_at_checked(hunk.insert as usize).ok_or(short)?;
        file.extend_from_slice(kept);
        file.extend_from_slice(new);
        (base, inserted) = (rest, later);
    }
    file.extend_from_slice(base);
    Ok(Bytes::from(file))
}

/// Where two files differ, in bytes of each.
struct Place {
    old: core::ops::Range<usize>,
    new: core::ops::Range<usize>,
}

impl Place {
    /// This place, counted from the start of the files and not of `outer`.
    fn within(self, outer: &Self) -> Self {
        let shift = |range: core::ops::Range<usize>, by: usize| range.start + by..range.end + by;
        Self { old: shift(self.old, outer.old.start), new: shift(self.new, outer.new.start) }
    }

    /// Without the bytes that both sides begin or end with.
    fn trimmed(self, base: &[u8], file: &[u8]) -> Option<Self> {
        let (old, new) = (base.get(self.old.clone())?, file.get(self.new.clone())?);
        let front = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        let (old, new) = (old.get(front..)?, new.get(front..)?);
        let back = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
        let trim = |range: core::ops::Range<usize>| range.start + front..range.end - back;
        Some(Self { old: trim(self.old), new: trim(self.new) })
    }
}

fn join(places: &mut Vec<Place>, next: Place) {
    if next.old.is_empty() && next.new.is_empty() {
        return;
    }
    match places.last_mut() {
        Some(last) if next.old.start - last.old.end <= JOIN_WITHIN => {
            last.old.end = next.old.end;
            last.new.end = next.new.end;
        }
        _ => places.push(next),
    }
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

/// Runs of letters and digits, runs of spaces, and every other byte by itself.
fn words(bytes: &[u8]) -> Vec<&[u8]> {
    let class = |byte: u8| match byte {
        b' ' => 0,
        byte if byte.is_ascii_alphanumeric() || !byte.is_ascii() => 1,
        _ => 2,
    };
    bytes.chunk_by(|a, b| class(*a) == class(*b) && class(*a) < 2).collect()
}

fn differences(old: &[&[u8]], new: &[&[u8]]) -> Vec<Place> {
    let mut input = InternedInput::default();
    input.update_before(old.iter().copied());
    input.update_after(new.iter().copied());
    let ends = |tokens: &[&[u8]]| -> Vec<usize> {
        let mut end = 0;
        let each = tokens.iter().map(|token| {
            end += token.len();
            end
        });
        each.collect()
    };
    let (old_ends, new_ends) = (ends(old), ends(new));
    let offset = |ends: &[usize], token: u32| match (token as usize).checked_sub(1) {
        Some(before) => ends.get(before).copied().unwrap_or_default(),
        None => 0,
    };
    let diff = Diff::compute(Algorithm::Histogram, &input);
    let place = |hunk: gix_imara_diff::Hunk| Place {
        old: offset(&old_ends, hunk.before.start)..offset(&old_ends, hunk.before.end),
        new: offset(&new_ends, hunk.after.start)..offset(&new_ends, hunk.after.end),
    };
    diff.hunks().map(place).collect()
}
