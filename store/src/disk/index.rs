//! Where everything is: built from the tables of contents when a store is
//! opened, kept in memory, 49 bytes an object.

use super::format::Line;
use crate::error::RecordId;
use crate::{Retained, Stats};
use rootcast::id::ObjectId;
use rootcast::path::BundleName;
use std::collections::{BTreeMap, HashMap};

/// Where a record's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Location {
    pub(super) pack: u32,
    pub(super) offset: u64,
    /// Bytes on disk.
    pub(super) stored: u32,
    /// Bytes as given; the same as `stored` if it is not compressed.
    pub(super) raw: u32,
}

/// A [`Location`] of an object in 16 bytes: 4, 6, 3 and 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed([u8; 16]);

impl Packed {
    fn of(location: &Location) -> Self {
        let low = u128::from(location.pack)
            | u128::from(location.offset & ((1 << 48) - 1)) << 32
            | u128::from(location.stored & ((1 << 24) - 1)) << 80
            | u128::from(location.raw & ((1 << 24) - 1)) << 104;
        Self(low.to_le_bytes())
    }
    fn open(self) -> Location {
        let all = u128::from_le_bytes(self.0);
        Location {
            pack: all as u32,
            offset: (all >> 32) as u64 & ((1 << 48) - 1),
            stored: (all >> 80) as u32 & ((1 << 24) - 1),
            raw: (all >> 104) as u32,
        }
    }
}

/// An edit or a release record: where it is, and the hash of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hashed {
    pub(super) location: Location,
    pub(super) hash: [u8; 32],
}

/// All records that can be seen.
#[derive(Debug, Default)]
pub(super) struct Index {
    objects: HashMap<ObjectId, Packed>,
    edits: BTreeMap<BundleName, BTreeMap<u64, Hashed>>,
    releases: BTreeMap<u64, Hashed>,
}

impl Index {
    pub(super) fn object(&self, id: &ObjectId) -> Option<Location> {
        self.objects.get(id).map(|packed| packed.open())
    }
    pub(super) fn edit(&self, bundle: &BundleName, sequence: u64) -> Option<Hashed> {
        self.edits.get(bundle)?.get(&sequence).copied()
    }
    pub(super) fn release(&self, number: u64) -> Option<Hashed> {
        self.releases.get(&number).copied()
    }
    pub(super) fn releases(&self) -> Vec<u64> {
        self.releases.keys().copied().collect()
    }

    /// Where the record of this name is.
    pub(super) fn locate(&self, record: &RecordId) -> Option<Location> {
        match record {
            RecordId::Object(id) => self.object(id),
            RecordId::Edit { bundle, sequence } => self.edit(bundle, *sequence).map(|edit| edit.location),
            RecordId::Release(number) => self.release(*number).map(|release| release.location),
        }
    }

    /// Applies one line of a table of contents. A later line wins (S-8).
    pub(super) fn apply(&mut self, pack: u32, offset: u64, line: Line) {
        match line {
            Line::Object { id, stored, raw } => {
                let location = Location { pack, offset, stored, raw };
                self.objects.insert(id, Packed::of(&location));
            }
            Line::Edit { bundle, sequence, length, hash } => {
                let location = Location { pack, offset, stored: length, raw: length };
                self.edits.entry(bundle).or_default().insert(sequence, Hashed { location, hash });
            }
            Line::Release { number, length, hash } => {
                let location = Location { pack, offset, stored: length, raw: length };
                self.releases.insert(number, Hashed { location, hash });
            }
            Line::Drop(record) => self.forget(&record),
        }
    }

    /// Takes a record out.
    pub(super) fn forget(&mut self, record: &RecordId) {
        match record {
            RecordId::Object(id) => {
                self.objects.remove(id);
            }
            RecordId::Edit { bundle, sequence } => {
                if let Some(log) = self.edits.get_mut(bundle) {
                    log.remove(sequence);
                    if log.is_empty() {
                        self.edits.remove(bundle);
                    }
                }
            }
            RecordId::Release(number) => {
                self.releases.remove(number);
            }
        }
    }

    /// Takes over everything of `later`, which wins.
    pub(super) fn absorb(&mut self, later: Self) {
        self.objects.extend(later.objects);
        for (bundle, log) in later.edits {
            self.edits.entry(bundle).or_default().extend(log);
        }
        self.releases.extend(later.releases);
    }

    /// Every record, in no particular order.
    pub(super) fn records(&self) -> impl Iterator<Item = (RecordId, Location)> + '_ {
        let objects = self.objects.iter().map(|(id, at)| (RecordId::Object(*id), at.open()));
        let edits = self.edits.iter().flat_map(|(bundle, log)| {
            log.iter().map(|(sequence, edit)| {
                let (bundle, sequence) = (bundle.clone(), *sequence);
                (RecordId::Edit { bundle, sequence }, edit.location)
            })
        });
        let releases = self.releases.iter().map(|(number, at)| (RecordId::Release(*number), at.location));
        objects.chain(edits).chain(releases)
    }

    /// Counts and sizes of records; nothing about files.
    pub(super) fn stats(&self) -> Stats {
        let mut stats = Stats {
            objects: self.objects.len() as u64,
            edits: self.edits.values().map(|log| log.len() as u64).sum(),
            releases: self.releases.len() as u64,
            ..Stats::default()
        };
        let edits = self.edits.values().flat_map(BTreeMap::values);
        let hashed = edits.chain(self.releases.values()).map(|hashed| hashed.location);
        for location in self.objects.values().map(|packed| packed.open()).chain(hashed) {
            stats.bytes_raw += u64::from(location.raw);
            stats.bytes_stored += u64::from(location.stored);
        }
        stats
    }
}

/// Whether a collection keeps this record.
pub(super) fn keeps(retained: &Retained, record: &RecordId) -> bool {
    match record {
        RecordId::Object(id) => retained.objects.contains(id),
        RecordId::Edit { bundle, sequence } => retained.keeps_edit(bundle, *sequence),
        RecordId::Release(number) => *number >= retained.oldest_release,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_location_holds_the_largest_values() {
        for location in [
            Location { pack: u32::MAX, offset: (1 << 48) - 1, stored: 0, raw: (1 << 24) - 1 },
            Location { pack: 0, offset: 0, stored: (1 << 24) - 1, raw: 0 },
            Location { pack: 1, offset: 72, stored: 3, raw: 4 },
        ] {
            assert_eq!(Packed::of(&location).open(), location);
        }
        assert!(size_of::<(ObjectId, Packed)>() <= 49);
    }
}
