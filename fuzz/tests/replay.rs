//! Every committed input keeps the property of its target.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of committed files"
)]

use rootcast_fuzz::TARGETS;
use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

/// Bytes of the whole corpus at most, so that a clone stays small.
const CORPUS: u64 = 1_500_000;

// One test in this file: what a decoder allocates is counted for the whole process.
#[test]
fn every_input_of_the_corpus_keeps_its_property() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let directories: BTreeSet<String> = fs::read_dir(&corpus)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    let targets = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(directories, targets, "one directory of fuzz/corpus for each target");
    let (mut size, mut broken) = (0, Vec::new());
    for (name, run) in TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(name)).expect("the target's corpus") {
            let path = entry.expect("an entry").path();
            let input = fs::read(&path).expect("an input");
            (size, inputs) = (size + input.len() as u64, inputs + 1);
            if catch_unwind(|| run(&input)).is_err() {
                broken.push(path);
            }
        }
        assert!(inputs > 1, "{name}: a corpus of {inputs}; next: add seeds in fuzz/tests/seeds.rs");
    }
    assert!(broken.is_empty(), "the property does not hold for {broken:#?}");
    assert!(size <= CORPUS, "{size} bytes of corpus; next: delete large inputs that are no seeds");
}
