//! Putting back files that somebody deleted under an open store (specs/store.md, S-21).
//!
//! What was deleted is readable for as long as it is open: nothing is lost yet,
//! and nothing needs to be fetched.

use super::format::Slot;
use super::pack::{self, PackFile};
use super::recover::PackState;
use super::{DiskStore, floors::FloorsFile, lock};
use crate::error::StoreError;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// Puts back what is not there any more under its own name. Whether there was any. The turn is the caller's.
pub(super) fn put_back(store: &DiskStore) -> Result<bool, StoreError> {
    let mut writer = store.writer()?;
    let packs: Vec<(u32, PackState)> =
        store.look().packs.iter().map(|(number, pack)| (*number, pack.clone())).collect();
    let gone: Vec<&(u32, PackState)> = packs.iter().filter(|(_, pack)| !pack.file.is_there()).collect();
    let mut held = store.held_lock.lock().unwrap_or_else(PoisonError::into_inner);
    let lock_path = store.dir.join("LOCK");
    let unlocked = held.as_ref().is_some_and(|file| !pack::is_at(file, &lock_path));
    if gone.is_empty() && !unlocked && writer.floors_file.is_there() {
        return Ok(false);
    }
    let created = DirBuilder::new().recursive(true).mode(0o700).create(&store.dir);
    created.map_err(|source| StoreError::io(&store.dir, "create the directory", source))?;
    if unlocked {
        // Another process may have begun a store of its own here; then that is the store.
        *held = Some(lock(&store.dir)?);
    }
    for (number, pack) in gone {
        let file = Arc::new(PackFile::restore(&store.dir, &pack.file, pack.end)?);
        if let Some(pack) = store.change().packs.get_mut(number) {
            pack.file = file;
        }
    }
    pack::sync_dir(&store.dir)?;
    let (pack, end) = packs.last().map_or((0, 0), |(number, pack)| (*number, pack.end));
    let (sequence, serial) = (writer.floors_file.sequence() + 1, writer.serial());
    let slot = Slot { sequence, serial, pack, end, key: store.key, floors: store.look().floors };
    let floors_file = FloorsFile::create(&store.dir, &slot)?;
    writer.restored(floors_file, end);
    let parent = store.dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    pack::sync_dir(parent.unwrap_or(Path::new(".")))?;
    Ok(true)
}
