//! Reading everything again (specs/store.md, S-18).

use super::floors::Slots;
use super::format::Header;
use super::format::{PACK_HEADER, PART_HEADER, read_contents, read_pack_header};
use super::index::Location;
use super::pack::Found;
use super::recover::PackState;
use super::{DiskStore, Fault};
use crate::error::{Damage, RecordId, StoreError};

/// Checks each record that can be seen, then the structure around them.
///
/// Records are taken from the index and not from the tables on disk, so a
/// table that is damaged after the store was opened hides none of them.
pub(super) fn verify(
    store: &DiskStore,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Damage>, StoreError> {
    let (mut records, packs) = {
        let state = store.look();
        let records: Vec<_> = state.index.records().map(|(record, at)| (at, record)).collect();
        (records, state.packs.clone())
    };
    records.sort_unstable();
    let stored: u64 = records.iter().map(|(at, _)| u64::from(at.stored)).sum();
    let total = stored + packs.values().map(|pack| pack.end).sum::<u64>();
    let mut done = 0;
    let mut damage = Vec::new();
    let mut places = Vec::new();
    progress(done, total);
    for (location, record) in records {
        if !is_sound(store, &record, &location)? {
            store.mark_damaged(&record, location);
            damage.push(Damage::Record(record));
            places.push((location.pack, location.offset));
        }
        done += u64::from(location.stored);
        progress(done, total);
    }
    for pack in packs.values() {
        structure(store, pack, &places, &mut damage)?;
        done += pack.end;
        progress(done, total);
    }
    let slots = Slots::read(&store.dir)?.unwrap_or_else(|| Slots::missing(&store.dir, false));
    // A slot that another process is writing may look torn; once more tells.
    if !slots.damage.is_empty() {
        let again = Slots::read(&store.dir)?;
        damage.extend(again.map_or(slots.damage, |again| again.damage));
    }
    damage.sort_unstable();
    damage.dedup();
    Ok(damage)
}

fn is_sound(store: &DiskStore, record: &RecordId, location: &Location) -> Result<bool, StoreError> {
    let located = || store.look().index.locate(record);
    let outcome = match record {
        RecordId::Object(id) => store.object_at(id, location).map(drop),
        RecordId::Edit { bundle, sequence } => {
            let Some(edit) = store.look().index.edit(bundle, *sequence) else { return Ok(true) };
            store.hashed_at(&edit).map(drop)
        }
        RecordId::Release(number) => {
            let Some(release) = store.look().index.release(*number) else { return Ok(true) };
            store.hashed_at(&release).map(drop)
        }
    };
    match outcome {
        Ok(()) => Ok(true),
        // Moved or dropped by a collection meanwhile: it was sound when it was moved.
        Err(_) if located() != Some(*location) => Ok(true),
        Err(Fault::Damaged) => Ok(false),
        Err(Fault::Failed(error)) => Err(error),
    }
}

/// Checks a pack's header, and each part whole: damage to bytes that no record
/// uses any more, or that a decoder passes over, shows here only. `places` are
/// where records were found damaged, which need not be said twice.
fn structure(
    store: &DiskStore,
    pack: &PackState,
    places: &[(u32, u64)],
    damage: &mut Vec<Damage>,
) -> Result<(), StoreError> {
    let number = pack.file.number;
    let mut regions = Vec::new();
    let header = pack.file.read(0, PACK_HEADER as usize).unwrap_or_default();
    if read_pack_header(&header, number) != Header::Good(store.key) {
        regions.push((0, PACK_HEADER));
    }
    for found in pack.file.walk(&store.key, Some(pack.end))? {
        match found {
            Found::Gap { offset, length } => regions.push((offset, length)),
            // A batch that is being written, or was written since.
            Found::Part(header) if header.offset >= pack.end => break,
            Found::Part(header) => {
                let length = header.contents_length as usize;
                let contents = pack.file.read(header.offset + PART_HEADER, length);
                let body = header.body()..header.end();
                let named = || places.iter().any(|(at, offset)| *at == number && body.contains(offset));
                if contents.ok().and_then(|bytes| read_contents(&header, &bytes)).is_none() {
                    regions.push((header.offset, header.end() - header.offset));
                } else if !pack.file.whole(&header) && !named() {
                    regions.push((body.start, header.body_length));
                }
            }
        }
    }
    if regions.is_empty() {
        return Ok(());
    }
    if let Some(known) = store.change().packs.get_mut(&number) {
        known.damaged = true;
    }
    let path = &pack.file.path;
    let region = |(offset, length)| Damage::Region { path: path.clone(), offset, length };
    damage.extend(regions.into_iter().map(region));
    Ok(())
}
