//! One channel's durable state: objects, edits, release records and floors
//! (specs/store.md).
//!
//! [`DiskStore`] keeps it in append-only packs, [`MemoryStore`] in maps; one
//! conformance suite holds both to the same behaviour. A store has one writer
//! and many readers: every method takes `&self`, and what a [`Batch`] holds
//! becomes visible at its commit, all of it or none.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

// The tests' common parts name this crate as others do.
#[cfg(test)]
extern crate self as rootcast_store;

mod disk;
mod error;
mod memory;
mod turn;

pub use disk::{Bounds, DiskStore};
pub use error::{Damage, RecordId, StoreError};
pub use memory::MemoryStore;

use bytes::Bytes;
use rootcast::acceptance::Floors;
use rootcast::id::ObjectId;
use rootcast::object::{ObjectSink, ObjectSource};
use rootcast::path::BundleName;
use std::collections::{BTreeMap, HashSet};

/// One channel's durable state.
///
/// Reading never returns bytes that do not match their id or hash: an object
/// that does not is [`rootcast::object::ReadError::Damaged`], and from then on
/// it counts as absent, so that writing it again heals it (S-19).
pub trait Store: ObjectSource + Send + Sync {
    /// The highest statements accepted. They never go back (S-1).
    fn floors(&self) -> Floors;

    /// Bytes that the object takes as stored; `None` if it is not held or known to be damaged.
    fn stored(&self, id: &ObjectId) -> Option<u64>;

    /// Whether the object is held and not known to be damaged.
    fn contains(&self, id: &ObjectId) -> bool {
        self.stored(id).is_some()
    }

    /// The release record of this number; `None` if it is not held.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if its bytes are not what was stored, or the read fails.
    fn release(&self, number: u64) -> Result<Option<Bytes>, StoreError>;

    /// The highest number of a release record held. It may be below
    /// `floors().number()` after damage; the replica fetches what is missing.
    fn latest_release(&self) -> Option<u64> {
        self.releases().last().copied()
    }

    /// The lowest number of a release record held.
    fn oldest_release(&self) -> Option<u64> {
        self.releases().first().copied()
    }

    /// The numbers of all release records held, ascending.
    fn releases(&self) -> Vec<u64>;

    /// The edit that leads to this sequence of the bundle; `None` if it is not held.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if its bytes are not what was stored, or the read fails.
    fn edit(&self, bundle: &BundleName, sequence: u64) -> Result<Option<Bytes>, StoreError>;

    /// Begins a batch. There is one writer at a time.
    ///
    /// # Errors
    /// [`StoreError::Busy`] at once, without waiting, while another batch or a
    /// collection is open; [`StoreError::ReadOnly`]; [`StoreError::Broken`].
    fn begin(&self) -> Result<Box<dyn Batch + '_>, StoreError>;

    /// Drops everything that `retained` does not name, and gives the space back
    /// where enough of it has gathered. Damage met on the way is dropped and
    /// listed. Takes the place of the one writer while it runs; readers go on.
    ///
    /// # Errors
    /// As [`Store::begin`] and [`Batch::commit`]; the store is then as it was.
    fn collect(&self, retained: &Retained) -> Result<Collected, StoreError>;

    /// Reads and re-hashes everything held, and names what is damaged.
    /// `progress` is told bytes done and bytes in all.
    ///
    /// # Errors
    /// Only if reading fails in a way that is not damage.
    fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<Damage>, StoreError>;

    /// Puts back files that were deleted under the open store; every batch does so, too.
    /// Whether there were any.
    ///
    /// # Errors
    /// As [`Store::begin`], or writing fails.
    fn put_back(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Bytes that it takes up, with what is dropped and not yet given back. Unlike
    /// [`Store::stats`], told without a look at every object.
    fn size(&self) -> u64;

    /// Sizes and counts.
    fn stats(&self) -> Stats;
}

/// Changes that become visible and durable together. Dropping it abandons them.
///
/// An object whose bytes do not match its id is refused. Once a write has
/// failed the batch is lost: further writes and `commit` fail with the same
/// cause, which `commit` returns typed.
pub trait Batch: ObjectSink + Send {
    /// Takes the edit that leads to `sequence` of the bundle, in place of any there.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], or the write fails.
    fn put_edit(&mut self, bundle: &BundleName, sequence: u64, edit: Bytes) -> Result<(), StoreError>;

    /// Takes the record of a release, in place of any there. The store does not look into it.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], or the write fails.
    fn put_release(&mut self, number: u64, record: Bytes) -> Result<(), StoreError>;

    /// Makes the batch and the floors durable, then visible. After an error the
    /// store is as it was before the batch began.
    ///
    /// # Errors
    /// [`StoreError::FloorsBack`] if the floors held may not become `floors`;
    /// [`StoreError::DiskFull`]; or what made an earlier write fail.
    fn commit(self: Box<Self>, floors: Floors) -> Result<(), StoreError>;
}

/// What a collection keeps.
#[derive(Debug, Clone, Default)]
pub struct Retained {
    /// Objects to keep.
    pub objects: HashSet<ObjectId>,
    /// The lowest number of a release record to keep.
    pub oldest_release: u64,
    /// For each bundle, the lowest sequence of an edit to keep. A bundle that
    /// is not named keeps none.
    pub edits: BTreeMap<BundleName, u64>,
}

impl Retained {
    /// Whether this edit is kept.
    pub fn keeps_edit(&self, bundle: &BundleName, sequence: u64) -> bool {
        self.edits.get(bundle).is_some_and(|oldest| sequence >= *oldest)
    }
}

/// What a collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects dropped.
    pub objects: u64,
    /// Edits dropped.
    pub edits: u64,
    /// Release records dropped.
    pub releases: u64,
    /// Bytes of disk given back. What was dropped beyond that goes with a later collection.
    pub bytes_freed: u64,
    /// What was to be kept and turned out damaged; it is dropped, to be fetched again.
    pub damaged: Vec<Damage>,
}

/// Sizes and counts of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Objects held.
    pub objects: u64,
    /// Edits held.
    pub edits: u64,
    /// Release records held.
    pub releases: u64,
    /// Bytes of all of them, as given.
    pub bytes_raw: u64,
    /// Bytes of all of them, as stored.
    pub bytes_stored: u64,
    /// Pack files on disk.
    pub files: u64,
    /// Bytes that the pack files use, with what is dropped and not yet given back.
    pub bytes_on_disk: u64,
}
