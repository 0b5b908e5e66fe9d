//! Updates that broke off (specs/wire.md, W-58 to W-60).

use bytes::Bytes;
use proptest::prelude::*;
use rootcast::codec;
use rootcast::limits::{MAX_BEGINNINGS, MAX_OPENING, MIN_RESUMED};
use rootcast::resumption::{Beginnings, Begun};

const LEAST: usize = MIN_RESUMED as usize;

/// Bytes that depend on the seed, and differ from the first on.
fn edit(seed: u8, length: usize) -> Bytes {
    (0..length).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3] ^ seed).collect()
}

fn begun(bytes: &[u8]) -> Begun {
    let mut begun = Begun::default();
    bytes.chunks(LEAST / 3 + 1).for_each(|piece| begun.extend(piece));
    begun
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn w_59_what_is_left_out_is_what_the_child_has(
        cuts in prop::collection::vec((0_u8..6, 0_usize..4 * LEAST), 0..MAX_BEGINNINGS),
        sizes in prop::collection::vec(0_usize..4 * LEAST, 1..5),
    ) {
        let edits: Vec<Bytes> = (0_u8..).zip(&sizes).map(|(seed, size)| edit(seed, *size)).collect();
        let begun: Vec<Begun> = cuts.iter().map(|(seed, length)| begun(&edit(*seed, *length))).collect();
        let told = Beginnings::of(&begun);
        let found = told.found(&edits);
        prop_assert_eq!(found.len(), edits.len());
        for ((seed, edit_), place) in (0_u8..).zip(&edits).zip(&found) {
            // The longest that fits, of those large enough, is the one that saves most.
            let fits = |(cut, length): &&(u8, usize)| *cut == seed && *length <= edit_.len() && *length >= LEAST;
            let longest = cuts.iter().filter(fits).map(|(_, length)| *length).max();
            let left_out = place.map(|place| told.length(place).unwrap() as usize);
            prop_assert_eq!(left_out, longest);
            if let Some(place) = place {
                let mut whole = begun[*place as usize].clone();
                whole.extend(&edit_[whole.length() as usize..]);
                prop_assert_eq!(&whole.share(), edit_);
            }
        }
    }
}

#[test]
fn w_59_a_beginning_is_used_once() {
    let twice = [edit(1, 2 * LEAST), edit(1, 2 * LEAST)];
    let told = Beginnings::of([&begun(&twice[0][..LEAST])]);
    assert_eq!(told.found(&twice), [Some(0), None]);
}

#[test]
fn w_58_an_edit_that_is_shared_can_still_grow() {
    let (short, long) = (edit(1, LEAST), edit(1, 2 * LEAST));
    let mut had = begun(&short);
    let shared = had.share();
    had.extend(&long[LEAST..]);
    assert_eq!((shared, had.share()), (short, long));
}

#[test]
fn w_58_no_more_than_a_few_are_told() {
    let many = vec![begun(b"begun"); MAX_BEGINNINGS + 1];
    let told = Beginnings::of(&many);
    let bytes = codec::encode(&told);
    assert_eq!(codec::decode::<Beginnings>(&bytes, MAX_OPENING), Ok(told));
    // One more, in the same encoding.
    let all: Vec<_> = many.iter().map(Begun::beginning).collect();
    assert!(codec::decode::<Beginnings>(&codec::encode(&all), MAX_OPENING).is_err());
}
