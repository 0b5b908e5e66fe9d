//! Decoders allocate no more than a stated function of the bytes that they are given.
//!
//! Counted is all that Rust code allocates, whether it is freed again or not, so that the bound holds
//! for what is held at any moment. What zstd's own contexts take is not counted.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use rootcast::codec;
use rootcast::cose::{self, DocumentKind};
use rootcast::edit::{self, Declared, Policy};
use rootcast::entry::ChunkList;
use rootcast::id::NodeId;
use rootcast::object::ObjectMap;
use rootcast::plan::Plan;
use rootcast::protocol::{ObjectsAnswer, ObjectsRequest, Opening, Publication, UpdateHead, Welcome};
use rootcast::release::Release;
use rootcast::status::{HostsAnswer, Question, Report, StatusAnswer};
use rootcast::tree::{Node, Totals, empty_root};
use rootcast::trust::Trust;
use rootcast::verify::ReleaseRecord;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Whatever the input: serde reserves at most 1 MiB for a sequence before it sees its elements.
const CONSTANT: usize = (1 << 20) + (64 << 10);
/// For each byte of input: the decoded value, and its encoding for comparison. An empty text is one byte
/// and becomes a `String` of 24, in a sequence that may have twice the room it needs.
const FACTOR: usize = 48;

type Decode = Box<dyn Fn(&[u8])>;

fn decoders() -> Vec<(&'static str, Decode)> {
    const LIMIT: u64 = 8 << 20;
    let declared =
        Declared { root: empty_root(), totals: Totals { files: 10, bytes: 1000 }, policy: Policy::ANY };
    vec![
        ("canonical", Box::new(|bytes| drop(codec::check_canonical(bytes)))),
        ("release", Box::new(|bytes| drop(Release::decode(bytes)))),
        ("trust", Box::new(|bytes| drop(Trust::unverified(bytes)))),
        ("COSE_Sign1", Box::new(|bytes| drop(cose::claimed_keys(DocumentKind::Release, bytes)))),
        ("node", Box::new(|bytes| drop(Node::decode(NodeId::from_bytes([0; 32]), bytes)))),
        ("chunk list", Box::new(|bytes| drop(ChunkList::decode(bytes, 1 << 28)))),
        ("plan", Box::new(|bytes| drop(Plan::decode(bytes)))),
        ("opening", Box::new(|bytes| drop(codec::decode::<Opening>(bytes, LIMIT)))),
        ("publication", Box::new(|bytes| drop(codec::decode::<Publication>(bytes, LIMIT)))),
        ("objects", Box::new(|bytes| drop(codec::decode::<ObjectsRequest>(bytes, LIMIT)))),
        ("update", Box::new(|bytes| drop(codec::decode::<UpdateHead>(bytes, LIMIT)))),
        ("sizes", Box::new(|bytes| drop(codec::decode::<ObjectsAnswer>(bytes, LIMIT)))),
        ("welcome", Box::new(|bytes| drop(codec::decode::<Welcome>(bytes, LIMIT)))),
        ("report", Box::new(|bytes| drop(codec::decode::<Report>(bytes, LIMIT)))),
        ("status answer", Box::new(|bytes| drop(codec::decode::<StatusAnswer>(bytes, LIMIT)))),
        ("hosts answer", Box::new(|bytes| drop(codec::decode::<HostsAnswer>(bytes, LIMIT)))),
        ("question", Box::new(|bytes| drop(codec::decode::<Question>(bytes, LIMIT)))),
        ("record", Box::new(|bytes| drop(codec::decode::<ReleaseRecord>(bytes, LIMIT)))),
        (
            "edit",
            Box::new(move |bytes| {
                drop(edit::apply(&ObjectMap::new(), empty_root(), bytes, &declared, &mut ObjectMap::new()));
            }),
        ),
    ]
}

/// An array of `count` times `item`, inside `around` many arrays of one.
fn array(around: usize, count: usize, item: &[u8]) -> Vec<u8> {
    let head = [&[0x9a][..], &(count as u32).to_be_bytes()].concat();
    [&vec![0x81; around][..], &head, &item.repeat(count)].concat()
}

fn hostile() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for head in [0x5b, 0x7b, 0x9b, 0xbb] {
        for length in [1u64 << 32, 1 << 40, 1 << 63, u64::MAX] {
            inputs.push([&[head][..], &length.to_be_bytes(), &[0; 32]].concat());
            inputs.push([&[0xd2, 0x84, head][..], &length.to_be_bytes(), &[0; 32]].concat());
        }
    }
    for count in [16_000, 60_000, 1 << 19] {
        for item in [&[0x00][..], &[0x80], &[0xf6], &[0x40], &[0x60], &[0x82, 0x61, b'a']] {
            inputs.push(array(0, count, item));
            inputs.push([&[0x82, 0x00][..], &array(0, count, item)].concat());
            inputs.push([&[0x82, 0x01][..], &array(0, count, item)].concat());
            inputs.push([&[0x83, 0x40][..], &array(0, count, item), &[0x80]].concat());
            inputs.push([&[0x83, 0x40, 0x80][..], &array(0, count, item)].concat());
            inputs.push([&[0x84, 0x61, b'a', 0x40][..], &array(0, count, item), &[0x80]].concat());
            inputs.push(array(5, count, item));
            // A welcome, and a plan before its layers are looked at.
            inputs.push([&[0x83, 0xf6, 0x00][..], &array(0, count, item)].concat());
            inputs.push([&[0x82][..], &array(0, count, item), &[0x80]].concat());
        }
        inputs.push(vec![0x81; count]);
        inputs.push(vec![0xff; count]);
        inputs.push(array(0, count / 32, &[&[0x82, 0x58, 0x20][..], &[7; 32], &[0x01]].concat()));
    }
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    for form in [1, 2] {
        // Three operations, and columns of 8 MiB, packed.
        inputs.push(vec![form, 3, 0x80, 0x80, 0x80, 0x04, 0]);
        inputs.push([&[form][..], &huge, &huge, &huge].concat());
        inputs.push([&[form, 3][..], &huge, &huge].concat());
        inputs.push([&[form, 3, 100, 100][..], &[0x55; 200]].concat());
    }
    let mut junk = blake3::Hasher::new().update(b"junk").finalize_xof();
    for size in [1, 10, 100, 1000, 100_000] {
        let mut bytes = vec![0; size];
        junk.fill(&mut bytes);
        inputs.push(bytes);
    }
    inputs
}

// One test in this file: the counter is of the whole process.
#[test]
fn threat_11_hostile_input_costs_what_it_weighs() {
    for input in hostile() {
        for (name, decode) in decoders() {
            let region = Region::new(ALLOCATOR);
            decode(&input);
            let allocated = region.change().bytes_allocated;
            let allowed = CONSTANT + FACTOR * input.len();
            let start = &input[..input.len().min(16)];
            assert!(allocated <= allowed, "{name}: {allocated} bytes for {}: {start:02x?}", input.len());
        }
    }
}
