//! Dropping what is no longer needed, and giving its space back (specs/store.md,
//! S-17).

use super::device;
use super::format::{Key, Line, PART_HEADER, read_contents};
use super::index::{Location, keeps};
use super::pack::{Found, PackFile, sync_dir};
use super::recover::PackState;
use super::{DiskStore, Fault};
use crate::error::{Damage, RecordId, StoreError};
use crate::{Collected, Retained, Store};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What the line of an object takes, and about what the others do: space that
/// rewriting does not save.
const LINE: u64 = 41;

/// What a collection is going to do.
struct Plan {
    /// Packs to rewrite, oldest first.
    rewrite: BTreeMap<u32, PackState>,
    /// Records to keep that lie in those packs, in the order of the disk.
    moved: Vec<(Location, RecordId)>,
    dropped: Vec<RecordId>,
    /// The oldest pack that stays.
    oldest_left: Option<u32>,
}

fn plan(store: &DiskStore, retained: &Retained) -> Plan {
    let state = store.look();
    let mut live: HashMap<u32, u64> = HashMap::new();
    let mut dropped = Vec::new();
    for (record, location) in state.index.records() {
        if keeps(retained, &record) {
            *live.entry(location.pack).or_default() += u64::from(location.stored) + LINE;
        } else {
            dropped.push(record);
        }
    }
    let total: u64 = state.packs.values().map(|pack| pack.end).sum();
    let small = total <= store.bounds.collect_whole;
    let worth_it = !dropped.is_empty() || state.packs.len() > 1;
    let mut rewrite = state.packs.clone();
    rewrite.retain(|number, pack| {
        let live = live.get(number).copied().unwrap_or(0);
        pack.damaged || if small { worth_it } else { live < pack.end / 2 }
    });
    let in_rewritten = |(_, location): &(RecordId, Location)| rewrite.contains_key(&location.pack);
    let kept = state.index.records().filter(|(record, _)| keeps(retained, record));
    let mut moved: Vec<_> = kept.filter(in_rewritten).map(|(record, location)| (location, record)).collect();
    moved.sort_unstable();
    let oldest_left = state.packs.keys().find(|number| !rewrite.contains_key(number)).copied();
    Plan { rewrite, moved, dropped, oldest_left }
}

pub(super) fn collect(store: &DiskStore, retained: &Retained) -> Result<Collected, StoreError> {
    let mut batch = store.batch()?;
    let plan = plan(store, retained);
    let mut collected = Collected::default();
    for record in &plan.dropped {
        match record {
            RecordId::Object(_) => collected.objects += 1,
            RecordId::Edit { .. } => collected.edits += 1,
            RecordId::Release(_) => collected.releases += 1,
        }
    }
    if plan.rewrite.is_empty() && plan.dropped.is_empty() {
        return Ok(collected);
    }
    let before = store.stats().bytes_on_disk;
    batch.fresh = !plan.rewrite.is_empty();
    for (location, record) in &plan.moved {
        match reread(store, record, location) {
            Ok((line, bytes)) => batch.add(line, &bytes)?,
            Err(Fault::Failed(error)) => return Err(error),
            Err(Fault::Damaged) => {
                collected.damaged.push(Damage::Record(record.clone()));
                batch.forgotten.push(record.clone());
            }
        }
    }
    batch.forgotten.extend(plan.dropped.iter().cloned());
    if let Some(oldest) = plan.oldest_left {
        for record in batch.forgotten.clone() {
            batch.add(Line::Drop(record), &[])?;
        }
        for record in older_drops(store, &plan, oldest)? {
            batch.add(Line::Drop(record), &[])?;
        }
    }
    batch.replaced = plan.rewrite.keys().copied().collect();
    batch.finish(store.floors())?;
    unlink(store, &plan)?;
    collected.bytes_freed = before.saturating_sub(store.stats().bytes_on_disk);
    Ok(collected)
}

/// Reads a record, checks it, and gives its line and its bytes as stored.
fn reread(store: &DiskStore, record: &RecordId, location: &Location) -> Result<(Line, Vec<u8>), Fault> {
    match record {
        RecordId::Object(id) => {
            let (bytes, _) = store.object_at(id, location)?;
            Ok((Line::Object { id: *id, stored: location.stored, raw: location.raw }, bytes))
        }
        RecordId::Edit { bundle, sequence } => {
            let edit = store.look().index.edit(bundle, *sequence).ok_or(Fault::Damaged)?;
            let bytes = store.hashed_at(&edit)?;
            let (length, hash) = (location.stored, edit.hash);
            let line = Line::Edit { bundle: bundle.clone(), sequence: *sequence, length, hash };
            Ok((line, bytes.into()))
        }
        RecordId::Release(number) => {
            let release = store.look().index.release(*number).ok_or(Fault::Damaged)?;
            let bytes = store.hashed_at(&release)?;
            let (length, hash) = (location.stored, release.hash);
            Ok((Line::Release { number: *number, length, hash }, bytes.into()))
        }
    }
}

/// Drops that the packs to be rewritten say of packs older than themselves
/// that stay: without them, what they dropped would come back.
fn older_drops(store: &DiskStore, plan: &Plan, oldest: u32) -> Result<Vec<RecordId>, StoreError> {
    let mut drops = Vec::new();
    for pack in plan.rewrite.values().filter(|pack| pack.file.number > oldest) {
        for lines in contents(&pack.file, &store.key, pack.end)? {
            drops.extend(lines.into_iter().filter_map(|line| match line {
                Line::Drop(record) => Some(record),
                _ => None,
            }));
        }
    }
    drops.sort_unstable();
    drops.dedup();
    let state = store.look();
    drops.retain(|record| state.index.locate(record).is_none());
    Ok(drops)
}

/// The tables of contents of a pack, as far as they can be read.
fn contents(pack: &Arc<PackFile>, key: &Key, end: u64) -> Result<Vec<Vec<Line>>, StoreError> {
    let read = |found: Found| {
        let Found::Part(header) = found else { return None };
        let bytes = pack.read(header.offset + PART_HEADER, header.contents_length as usize).ok()?;
        let lines = read_contents(&header, &bytes)?;
        Some(lines.into_iter().map(|(_, line)| line).collect())
    };
    Ok(pack.walk(key, Some(end))?.into_iter().filter_map(read).collect())
}

/// Removes the rewritten packs, oldest first: a drop must outlive what it drops.
fn unlink(store: &DiskStore, plan: &Plan) -> Result<(), StoreError> {
    for pack in plan.rewrite.values() {
        let removed = device::remove(&pack.file.path);
        removed.map_err(|source| StoreError::io(&pack.file.path, "remove it", source))?;
    }
    if plan.rewrite.is_empty() { Ok(()) } else { sync_dir(&store.dir) }
}
