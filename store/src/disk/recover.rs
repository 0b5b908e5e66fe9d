//! What a directory holds, whatever became of it: the rules of recovery
//! (specs/store.md, S-11, S-14 to S-16). Nothing here changes a file.

use super::floors::Slots;
use super::format::{Header, Key, PACK_HEADER, PART_HEADER, PartHeader, Slot, higher};
use super::format::{read_contents, read_pack_header};
use super::index::Index;
use super::pack::{Found, PackFile, pack_path};
use crate::error::{Damage, StoreError};
use rootcast::acceptance::Floors;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A pack in use.
#[derive(Debug, Clone)]
pub(super) struct PackState {
    pub(super) file: Arc<PackFile>,
    /// Where the last batch ends.
    pub(super) end: u64,
    /// Whether some of its structure is unreadable; a collection rewrites it.
    pub(super) damaged: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// `None` for a directory without packs and without a readable floors slot.
    pub(super) key: Option<Key>,
    pub(super) packs: BTreeMap<u32, PackState>,
    pub(super) index: Index,
    pub(super) floors: Floors,
    pub(super) damage: Vec<Damage>,
    /// The highest serial of a batch that was ever begun.
    pub(super) serial: u64,
    /// Packs in which nothing was ever committed.
    pub(super) discard: Vec<Arc<PackFile>>,
}

/// One pack as walked.
struct Walked {
    file: Arc<PackFile>,
    found: Vec<Found>,
    /// Up to where its bytes are known to have been synced.
    certain: u64,
    header_damaged: bool,
}

/// Reads what `packs`, in order of number, and the slots hold.
pub(super) fn recover(dir: &Path, slots: &Slots, packs: Vec<Arc<PackFile>>) -> Result<Recovered, StoreError> {
    let mut found = Recovered { floors: slots.floors, ..Recovered::default() };
    found.damage.extend(slots.damage.iter().cloned());
    let mark = slots.newest;
    let headers = packs.iter().map(read_header).collect::<Result<Vec<_>, _>>()?;
    found.key = mark.map(|slot| slot.key).or_else(|| headers.iter().find_map(|key| *key));
    let Some(key) = found.key else {
        return if packs.is_empty() {
            Ok(found)
        } else {
            Err(StoreError::Unreadable { path: dir.to_path_buf() })
        };
    };
    if let Some(Slot { pack, end, .. }) = mark
        && pack != 0
        && packs.iter().all(|file| file.number != pack)
    {
        let path = pack_path(dir, pack);
        found.damage.push(Damage::Region { path, offset: 0, length: end });
    }
    let mut walked = Vec::new();
    for (file, header) in packs.into_iter().zip(headers) {
        let synced = synced_end(mark.as_ref(), file.number);
        walked.push(Walked {
            found: file.walk(&key, synced)?,
            certain: synced.unwrap_or(PACK_HEADER),
            header_damaged: header != Some(key),
            file,
        });
    }
    found.take_in(walked, mark.as_ref());
    Ok(found)
}

/// Up to where a pack is known to have been synced; `None` if it must be
/// searched to its end.
fn synced_end(mark: Option<&Slot>, pack: u32) -> Option<u64> {
    let mark = mark?;
    match pack.cmp(&mark.pack) {
        core::cmp::Ordering::Less => None,
        core::cmp::Ordering::Equal => Some(mark.end),
        core::cmp::Ordering::Greater => Some(PACK_HEADER),
    }
}

fn read_header(file: &Arc<PackFile>) -> Result<Option<Key>, StoreError> {
    let bytes = file.read(0, PACK_HEADER as usize).unwrap_or_default();
    match read_pack_header(&bytes, file.number) {
        Header::Good(key) => Ok(Some(key)),
        Header::Bad => Ok(None),
        Header::Newer(found) => Err(StoreError::NewerFormat { path: file.path.clone(), found }),
    }
}

impl Recovered {
    fn take_in(&mut self, walked: Vec<Walked>, mark: Option<&Slot>) {
        let parts = |found: &[Found]| -> Vec<PartHeader> {
            let part = |found: &Found| match found {
                Found::Part(header) => Some(*header),
                Found::Gap { .. } => None,
            };
            found.iter().filter_map(part).collect()
        };
        let top = walked.iter().flat_map(|pack| parts(&pack.found)).map(|part| part.serial).max();
        let marked = mark.map_or(0, |mark| mark.serial);
        let top = top.unwrap_or(0);
        self.serial = top.max(marked);
        // A batch is synced before the next begins, so only the last can be torn (S-11).
        let synced = marked.max(top.saturating_sub(1));
        for mut pack in walked {
            let last: Vec<PartHeader> =
                parts(&pack.found).into_iter().filter(|part| part.serial > synced).collect();
            let torn = match last.first() {
                Some(first) if !is_whole_batch(&pack.file, &last) => Some(first.offset),
                _ => None,
            };
            if let Some(torn) = torn {
                // Nothing was begun after it, so all that follows is its own.
                pack.found.retain(|found| found.offset() < torn);
            }
            let mut state = self.take_in_pack(pack, mark);
            if let (Some(offset), Some(state), None) = (torn, &mut state, mark) {
                // Without a mark this may as well be damage to what was committed.
                let length = state.file.size().unwrap_or(offset).saturating_sub(offset);
                let path = state.file.path.clone();
                self.damage.push(Damage::Region { path, offset, length });
            }
            self.packs.extend(state.map(|state| (state.file.number, state)));
        }
    }

    /// Takes in one pack; `None` if nothing was ever committed to it.
    fn take_in_pack(&mut self, pack: Walked, mark: Option<&Slot>) -> Option<PackState> {
        let Walked { file, found, certain, header_damaged } = pack;
        let unmarked = mark.is_none_or(|mark| file.number > mark.pack);
        if found.is_empty() && unmarked && (mark.is_some() || header_damaged) {
            self.discard.push(file);
            return None;
        }
        let mut state = PackState { file, end: certain.max(PACK_HEADER), damaged: false };
        if header_damaged {
            self.region(&mut state, 0, PACK_HEADER);
        }
        for found in found {
            match found {
                Found::Part(header) => {
                    state.end = state.end.max(header.end());
                    self.take_in_part(&mut state, &header);
                }
                Found::Gap { offset, length } => {
                    state.end = state.end.max(offset + length);
                    self.region(&mut state, offset, length);
                }
            }
        }
        Some(state)
    }

    fn take_in_part(&mut self, state: &mut PackState, header: &PartHeader) {
        if let Some(floors) = header.floors {
            self.floors = higher(self.floors, floors);
        }
        let length = header.contents_length as usize;
        let contents = state.file.read(header.offset + PART_HEADER, length).ok();
        match contents.and_then(|bytes| read_contents(header, &bytes)) {
            Some(lines) => {
                for (offset, line) in lines {
                    self.index.apply(header.pack, offset, line);
                }
            }
            None => self.region(state, header.offset, header.end() - header.offset),
        }
    }

    fn region(&mut self, state: &mut PackState, offset: u64, length: u64) {
        state.damaged = true;
        self.damage.push(Damage::Region { path: state.file.path.clone(), offset, length });
    }
}

/// Whether these parts, all of one serial, are one batch from its beginning to
/// its commit, every byte as written.
fn is_whole_batch(file: &PackFile, parts: &[PartHeader]) -> bool {
    let in_order = parts.iter().enumerate().all(|(place, part)| part.index as usize == place);
    let adjoining = parts.iter().zip(parts.iter().skip(1)).all(|(part, next)| part.end() == next.offset);
    let commits = parts.iter().rposition(|part| part.floors.is_some());
    let once = parts.iter().position(|part| part.floors.is_some()) == commits;
    in_order
        && adjoining
        && once
        && commits == parts.len().checked_sub(1)
        && parts.iter().all(|part| file.whole(part))
}
