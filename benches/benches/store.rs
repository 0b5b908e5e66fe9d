//! The store on disk, each beside its floor: the same bytes written and synced
//! once, or hashed.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // the disk is what is measured
#![allow(clippy::unwrap_used)] // a benchmark that cannot be set up is a panic

use bytes::Bytes;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use rootcast::acceptance::Floors;
use rootcast::id::{BlobId, ObjectId};
use rootcast::object::ObjectSource;
use rootcast_store::{DiskStore, Store};
use std::fs::File;
use std::io::Write;
use std::path::Path;

const OBJECTS: usize = 1000;

fn main() {
    divan::main();
}

fn blobs() -> Vec<(ObjectId, Bytes)> {
    let blob = |number: usize| {
        let bytes =
            Bytes::from(format!("listen = 10.0.0.{number}\ntimeout_ms = {}\n", number * 7).repeat(24));
        (BlobId::of(&bytes).into(), bytes)
    };
    (0..OBJECTS).map(blob).collect()
}

fn put(store: &DiskStore, blobs: &[(ObjectId, Bytes)]) {
    let mut batch = store.begin().unwrap();
    for (id, bytes) in blobs {
        batch.write(*id, bytes.clone()).unwrap();
    }
    batch.commit(Floors::default()).unwrap();
}

fn size(blobs: &[(ObjectId, Bytes)]) -> BytesCount {
    BytesCount::new(blobs.iter().map(|(_, bytes)| bytes.len()).sum::<usize>())
}

#[divan::bench_group(sample_count = 10, sample_size = 1)]
mod write_of_1000 {
    use super::*;

    #[divan::bench]
    fn measured(bencher: Bencher<'_, '_>) {
        let (blobs, home) = (blobs(), tempfile::tempdir().unwrap());
        let mut number = 0;
        let fresh = || {
            number += 1;
            DiskStore::open(home.path().join(number.to_string())).unwrap()
        };
        bencher
            .counter(size(&blobs))
            .counter(ItemsCount::new(OBJECTS))
            .with_inputs(fresh)
            .bench_local_values(|store| {
                put(&store, &blobs);
                store
            });
    }

    fn write_synced(path: &Path, blobs: &[(ObjectId, Bytes)]) {
        let mut file = File::create(path).unwrap();
        let all: Vec<u8> = blobs.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        file.write_all(&all).unwrap();
        file.sync_data().unwrap();
    }

    #[divan::bench]
    fn floor_one_file_synced(bencher: Bencher<'_, '_>) {
        let (blobs, home) = (blobs(), tempfile::tempdir().unwrap());
        let path = home.path().join("floor");
        bencher.counter(size(&blobs)).bench_local(|| write_synced(&path, &blobs));
    }
}

/// Its floor is two syncs.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn commit_of_one(bencher: Bencher<'_, '_>) {
    let (blobs, home) = (blobs(), tempfile::tempdir().unwrap());
    let store = DiskStore::open(home.path().join("store")).unwrap();
    let mut left = blobs.chunks(1).cycle();
    bencher.bench_local(|| put(&store, left.next().unwrap_or_default()));
}

#[divan::bench_group(sample_count = 20)]
mod read_of_1000 {
    use super::*;

    #[divan::bench]
    fn measured(bencher: Bencher<'_, '_>) {
        let (blobs, home) = (blobs(), tempfile::tempdir().unwrap());
        let store = DiskStore::open(home.path().join("store")).unwrap();
        put(&store, &blobs);
        bencher
            .counter(size(&blobs))
            .counter(ItemsCount::new(OBJECTS))
            .bench_local(|| blobs.iter().map(|(id, _)| store.read(id).unwrap().len()).sum::<usize>());
    }

    #[divan::bench]
    fn floor_blake3(bencher: Bencher<'_, '_>) {
        let blobs = blobs();
        bencher.counter(size(&blobs)).bench_local(|| {
            blobs.iter().filter(|(id, bytes)| ObjectId::from(BlobId::of(bytes)) != *id).count()
        });
    }
}
