//! What the tests of the store share.

#![allow(dead_code, unreachable_pub)] // each test file uses some of it

use bytes::Bytes;
use rootcast::acceptance::{Accepted, Floors};
use rootcast::id::{BlobId, ChunkListId, NodeId, ObjectId, ReleaseHash};
use rootcast::path::BundleName;
use rootcast_store::{Bounds, DiskStore, Store};
use std::fs;
use std::path::Path;

/// Sizes at which a few small records already spill, roll and collect.
pub const SMALL: Bounds = Bounds { spool: 300, segment: 2000, collect_whole: 0 };

pub fn blob(bytes: impl Into<Bytes>) -> (ObjectId, Bytes) {
    let bytes = bytes.into();
    (BlobId::of(&bytes).into(), bytes)
}

/// Object `n`, each third of another kind; compressible where it is long.
pub fn object(n: u64) -> (ObjectId, Bytes) {
    let bytes = format!("object {n} ").repeat(n as usize % 40).into_bytes();
    let bytes = Bytes::from([bytes, n.to_le_bytes().to_vec()].concat());
    let id = match n % 3 {
        0 => BlobId::of(&bytes).into(),
        1 => NodeId::of(&bytes).into(),
        _ => ChunkListId::of(&bytes).into(),
    };
    (id, bytes)
}

pub fn bundle(name: &str) -> BundleName {
    BundleName::new(name).unwrap()
}

/// The floors after release `number`.
pub fn floors(number: u64) -> Floors {
    let hash = ReleaseHash::of(&number.to_le_bytes());
    let release = (number > 0).then_some(Accepted { epoch: 1, number, hash });
    Floors { trust_version: 1, head_epoch: 1, head_sequence: number * 10, release }
}

pub fn edit_of(number: u64) -> Bytes {
    format!("edit {number}, not compressed").into()
}
pub fn record_of(number: u64) -> Bytes {
    format!("record of release {number}").into()
}

/// Commits release `number` with its record, an edit, and these objects.
pub fn commit(store: &dyn Store, number: u64, objects: impl IntoIterator<Item = u64>) {
    let mut batch = store.begin().unwrap();
    for (id, bytes) in objects.into_iter().map(object) {
        batch.write(id, bytes).unwrap();
    }
    batch.put_edit(&bundle("base"), number, edit_of(number)).unwrap();
    batch.put_release(number, record_of(number)).unwrap();
    batch.commit(floors(number)).unwrap();
}

/// Asserts that release `number` is whole.
pub fn assert_whole(store: &dyn Store, number: u64, objects: impl IntoIterator<Item = u64>) {
    for (id, bytes) in objects.into_iter().map(object) {
        assert_eq!(store.read(&id).as_ref(), Ok(&bytes), "object of release {number}");
        assert!(store.contains(&id));
    }
    assert_eq!(store.edit(&bundle("base"), number).unwrap(), Some(edit_of(number)));
    assert_eq!(store.release(number).unwrap(), Some(record_of(number)));
}

/// All files of a store, by name.
pub type Files = Vec<(String, Vec<u8>)>;

pub fn files_of(dir: &Path) -> Files {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut files: Files = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Makes `dir` hold exactly these files.
pub fn put_files(dir: &Path, files: &Files) {
    if dir.exists() {
        fs::remove_dir_all(dir).unwrap();
    }
    fs::create_dir(dir).unwrap();
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

/// The one file of this name.
pub fn file<'a>(files: &'a mut Files, name: &str) -> &'a mut Vec<u8> {
    &mut files.iter_mut().find(|(has, _)| has == name).unwrap().1
}

/// Where the parts of a pack end, by its own stats: the store must have one pack.
pub fn end_of_only_pack(store: &DiskStore) -> usize {
    assert_eq!(store.stats().files, 1);
    store.stats().bytes_on_disk as usize
}

/// A directory for states of a store that the test itself makes up. They do not
/// depend on the disk, so they go where a sync costs nothing, if there is such a place.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}
