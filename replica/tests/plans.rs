//! A host below a relay, at the moment when the relay has a release and has not stored it yet.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in a test a panic is the failure
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // threads wait for each other here

#[path = "support/mod.rs"]
mod support;

use bytes::Bytes;
use rootcast::acceptance::Floors;
use rootcast::id::ObjectId;
use rootcast::object::{ObjectSource, ReadError};
use rootcast::path::BundleName;
use rootcast::protocol::{Interest, Standing};
use rootcast::reader::Reader;
use rootcast_replica::Rule;
use rootcast_store::{Batch, Collected, Damage, MemoryStore, Retained, Stats, Store, StoreError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use support::*;

/// What the next batch waits for before it begins: that the other end is dropped.
type Gate = Arc<Mutex<Option<mpsc::Receiver<()>>>>;

/// A store whose next batch can be held up.
struct Gated(MemoryStore, Gate);

impl ObjectSource for Gated {
    fn read(&self, id: &ObjectId) -> Result<Bytes, ReadError> {
        self.0.read(id)
    }
}

impl Store for Gated {
    fn floors(&self) -> Floors {
        self.0.floors()
    }
    fn stored(&self, id: &ObjectId) -> Option<u64> {
        self.0.stored(id)
    }
    fn release(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        self.0.release(number)
    }
    fn releases(&self) -> Vec<u64> {
        self.0.releases()
    }
    fn edit(&self, bundle: &BundleName, sequence: u64) -> Result<Option<Bytes>, StoreError> {
        self.0.edit(bundle, sequence)
    }
    fn begin(&self) -> Result<Box<dyn Batch + '_>, StoreError> {
        let gate = self.1.lock().unwrap().take();
        if let Some(gate) = gate {
            let _ = gate.recv();
        }
        self.0.begin()
    }
    fn collect(&self, retained: &Retained) -> Result<Collected, StoreError> {
        self.0.collect(retained)
    }
    fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<Damage>, StoreError> {
        self.0.verify(progress)
    }
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn stats(&self) -> Stats {
        self.0.stats()
    }
}

#[tokio::test]
async fn f_34_a_host_gets_no_release_whose_plan_its_relay_cannot_read_yet() {
    let publisher = Publisher::new();
    let first = publisher.publish(&[("base", "a", Some(b"one\n"))]);
    let second = publisher.publish(&[("role/web", "w", Some(b"web\n"))]);
    let gate = Gate::default();
    let relay = replica_over(Arc::new(Gated(MemoryStore::new(), gate.clone())));
    relay.receive(&first.update(), &Interest::All, Rule::Follow).unwrap();

    let host = Reader::Host(BTreeMap::from([("role".to_owned(), "web".to_owned())]));
    let asked = named(&["base", "plan", "role/web"]);
    let standing = Standing { release: Some(relay.held().unwrap().accepted()), whole: vec![bundle("base")] };
    let (closed, waited_for) = mpsc::channel();
    *gate.lock().unwrap() = Some(waited_for);
    let mut offered = relay.watch_offered();
    offered.mark_unchanged();
    let (taking, update) = (relay.clone(), second.update());
    let stored = std::thread::spawn(move || taking.receive(&update, &Interest::All, Rule::Follow).map(drop));
    offered.changed().await.unwrap();
    // A child relay may have it now, a host must wait: its new bundles are named by a plan that is not stored.
    assert!(relay.outgoing(&Reader::Relay, &Interest::All, &standing).await.unwrap().is_some());
    assert!(relay.outgoing(&host, &asked, &standing).await.unwrap().is_none());
    drop(closed);
    stored.join().unwrap().unwrap();
    let update = relay.outgoing(&host, &asked, &standing).await.unwrap().expect("the whole release");
    assert_eq!(update.accepted.number, 2);
    assert_eq!(update.standing.whole, ["base", "plan", "role/web"].map(bundle));
}
