//! Properties of edits, with real contents.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use rootcast::chunking;
use rootcast::codec;
use rootcast::edit::{Declared, EditError, Policy, apply, encode, summary};
use rootcast::entry::{ChunkList, Content, Entry};
use rootcast::id::{BlobId, NodeId};
use rootcast::limits::MAX_BLOB;
use rootcast::object::{ObjectMap, Overlay};
use rootcast::path::{ConfigPath, LinkTarget};
use rootcast::tree::{Changes, Totals, Tree, empty_root, update};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq)]
enum File {
    Regular(Vec<u8>),
    Executable(Vec<u8>),
    Link(String),
    Secret(Vec<u8>),
}

type Files = BTreeMap<String, File>;

fn build(objects: &mut ObjectMap, files: &Files) -> (NodeId, Totals) {
    let mut changes = Changes::new();
    for (name, file) in files {
        let path = ConfigPath::new(name).unwrap();
        let entry = match file {
            File::Link(target) => Entry::Symlink { target: LinkTarget::new(&path, target).unwrap() },
            File::Regular(bytes) | File::Executable(bytes) => Entry::File {
                content: chunking::store(Bytes::copy_from_slice(bytes), objects).unwrap(),
                executable: matches!(file, File::Executable(_)),
            },
            File::Secret(bytes) => match chunking::store(Bytes::copy_from_slice(bytes), objects).unwrap() {
                Content::Blob { id, size } => Entry::Secret { id, size },
                Content::Chunked { .. } => panic!("a secret is one blob"),
            },
        };
        changes.insert(path, Some(entry));
    }
    update(&ObjectMap::new(), empty_root(), &changes, objects).unwrap()
}

/// Encodes, applies with only the old objects at hand, and returns the edit.
fn round_trip(old: &Files, new: &Files) -> Vec<u8> {
    let (mut old_objects, mut new_objects) = (ObjectMap::new(), ObjectMap::new());
    let (old_root, _) = build(&mut old_objects, old);
    let (root, totals) = build(&mut new_objects, new);
    let edit = encode((&old_objects, old_root), (&new_objects, root)).unwrap();
    let mut got = ObjectMap::new();
    apply(&old_objects, old_root, &edit, &Declared { root, totals, policy: Policy::ANY }, &mut got).unwrap();
    let whole = Overlay { over: &got, under: &old_objects };
    Tree::open(&whole, root)
        .unwrap()
        .objects::<rootcast::tree::TreeError>(&mut |id| {
            use rootcast::object::ObjectSource;
            whole.read(&id).unwrap();
            Ok(true)
        })
        .unwrap();
    edit
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..400),
        vec("[a-z]{1,8}: [0-9]{1,4}\n", 0..60).prop_map(|lines| lines.concat().into_bytes()),
    ]
}

fn file() -> impl Strategy<Value = File> {
    prop_oneof![
        4 => text().prop_map(File::Regular),
        1 => text().prop_map(File::Executable),
        1 => "[a-z]{1,9}".prop_map(File::Link),
        1 => text().prop_map(File::Secret),
    ]
}

fn files(most: usize) -> impl Strategy<Value = Files> {
    btree_map("d[0-9]/[a-f]{1,3}\\.(yaml|json)", file(), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_tree_becomes_any_other(old in files(60), new in files(60)) {
        round_trip(&old, &new);
    }

    #[test]
    fn a_changed_tree_follows(
        old in files(200),
        changes in btree_map("d[0-9]/[a-f]{1,3}\\.(yaml|json)", proptest::option::of(file()), 0..8),
        rename in any::<bool>(),
    ) {
        let mut new = old.clone();
        for (name, change) in changes {
            match change {
                Some(file) => new.insert(name, file),
                None => new.remove(&name),
            };
        }
        if rename {
            new = new.into_iter().map(|(name, file)| (format!("moved/{name}"), file)).collect();
        }
        round_trip(&old, &new);
    }

    #[test]
    fn threat_03_bytes_that_are_no_edit_are_an_error(
        old in files(20), junk in vec(any::<u8>(), 0..80),
    ) {
        let mut objects = ObjectMap::new();
        let (root, totals) = build(&mut objects, &old);
        let declared = Declared { root: NodeId::from_bytes([7; 32]), totals, policy: Policy::ANY };
        prop_assert!(apply(&objects, root, &junk, &declared, &mut ObjectMap::new()).is_err());
    }
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn e_4_a_secret_that_moves_or_stays_is_not_sent_again() {
    let secret = |seed| File::Secret(noise(seed, 5000));
    let old = Files::from([("a/kept".into(), secret(1)), ("a/moved".into(), secret(2))]);
    let new = Files::from([("a/kept".into(), secret(1)), ("b/there".into(), secret(2))]);
    let edit = round_trip(&old, &new);
    assert!(edit.len() < 40, "{} bytes", edit.len());
    assert_eq!(summary(&edit).unwrap().copied, 1);
    // Opened, or closed, with the very same bytes: the mode alone cannot say it.
    let opened = Files::from([("a/kept".into(), File::Regular(noise(1, 5000)))]);
    round_trip(&old, &opened);
    round_trip(&opened, &old);
}

#[test]
fn an_edit_in_a_large_file_sends_the_chunks_around_it() {
    let large = noise(1, 5 << 20);
    let mut edited = large.clone();
    edited.splice(3_000_000..3_000_010, *b"another content");
    let old = Files::from([("big.bin".into(), File::Regular(large.clone()))]);
    let new = Files::from([("big.bin".into(), File::Regular(edited))]);
    let edit = round_trip(&old, &new);
    assert!(edit.len() < 400, "{} bytes", edit.len());
    round_trip(&old, &Files::from([("big.bin".into(), File::Regular(vec![1, 2, 3]))]));
    round_trip(&Files::from([("big.bin".into(), File::Regular(vec![1, 2, 3]))]), &old);
    let moved = round_trip(&old, &Files::from([("there/big.bin".into(), File::Executable(large))]));
    assert!(moved.len() < 64, "{} bytes", moved.len());
}

#[test]
fn content_over_many_frames_follows() {
    let many: Files =
        (0..45).map(|n| (format!("f{n}"), File::Regular(noise(n, MAX_BLOB as usize)))).collect();
    let edit = round_trip(&Files::new(), &many);
    assert!(edit.len() < 46 << 20);
    let mut changed = many.clone();
    changed.iter_mut().for_each(|(_, file)| {
        if let File::Regular(bytes) = file {
            bytes[77] ^= 1
        }
    });
    let edit = round_trip(&many, &changed);
    assert!(edit.len() < 30 << 20, "bases beyond the prefix bound are sent anew: {}", edit.len());
}

#[test]
fn empty_files_and_empty_trees_follow() {
    let one = Files::from([("empty".into(), File::Regular(Vec::new()))]);
    round_trip(&Files::new(), &one);
    round_trip(&one, &Files::new());
    round_trip(&Files::new(), &Files::new());
    assert!(round_trip(&one, &one).len() <= 3);
}

#[test]
fn one_changed_line_is_small() {
    let lines = |n: usize| {
        (0..300).map(|at| format!("setting_{at}: {}\n", if at == n { 9 } else { 1 })).collect::<String>()
    };
    let tree = |n| -> Files {
        (0..50)
            .map(|f| (format!("dir/{f}.yaml"), File::Regular(lines(if f == 7 { n } else { 0 }).into_bytes())))
            .collect()
    };
    let edit = round_trip(&tree(1), &tree(150));
    assert!(edit.len() < 60, "{} bytes", edit.len());
}

#[test]
fn threat_13_what_unpacks_is_bounded_by_what_was_signed() {
    let bomb = Files::from([("zeros".into(), File::Regular(vec![0; 1 << 20]))]);
    let mut objects = ObjectMap::new();
    let (root, totals) = build(&mut objects, &bomb);
    let edit = encode((&ObjectMap::new(), empty_root()), (&objects, root)).unwrap();
    assert!(edit.len() < 200);
    for bytes in [0, 100, totals.bytes - 1] {
        let declared = Declared { root, totals: Totals { bytes, ..totals }, policy: Policy::ANY };
        let refused = apply(&ObjectMap::new(), empty_root(), &edit, &declared, &mut ObjectMap::new());
        // By its operations, before anything is unpacked; by what was unpacked it would be "bytes of files".
        assert!(matches!(refused, Err(EditError::TooLarge { what: "bytes of content", .. })), "{refused:?}");
    }
    let declared = Declared { root, totals: Totals { files: 0, ..totals }, policy: Policy::ANY };
    let refused = apply(&ObjectMap::new(), empty_root(), &edit, &declared, &mut ObjectMap::new());
    assert!(matches!(refused, Err(EditError::TooLarge { .. })), "{refused:?}");
}

#[test]
fn flipping_any_byte_or_cutting_anywhere_is_detected() {
    let old: Files = (0..40).map(|n| (format!("d/{n}"), File::Regular(noise(n, 100)))).collect();
    let mut new = old.clone();
    new.insert("d/7".into(), File::Regular(b"seven\n".repeat(30)));
    new.insert("e/added.conf".into(), File::Executable(b"hello".to_vec()));
    new.insert("e/link".into(), File::Link("added.conf".into()));
    new.remove("d/9");
    let mut objects = ObjectMap::new();
    let (old_root, _) = build(&mut objects, &old);
    let (root, totals) = build(&mut objects, &new);
    let edit = encode((&objects, old_root), (&objects, root)).unwrap();
    let declared = Declared { root, totals, policy: Policy::ANY };
    let mut old_objects = ObjectMap::new();
    build(&mut old_objects, &old);
    for at in 0..edit.len() {
        for bit in 0..8 {
            let mut bad = edit.clone();
            bad[at] ^= 1 << bit;
            // A changed encoding that means the same change is no harm: the root decides.
            let mut got = ObjectMap::new();
            if apply(&old_objects, old_root, &bad, &declared, &mut got).is_ok() {
                Tree::open(&Overlay { over: &got, under: &old_objects }, root).unwrap();
            }
        }
        assert!(apply(&old_objects, old_root, &edit[..at], &declared, &mut ObjectMap::new()).is_err());
    }
    let counted = summary(&edit).unwrap();
    assert_eq!((counted.added, counted.replaced, counted.deleted), (2, 1, 1));
}

#[test]
fn pieces_of_many_large_files_follow() {
    use rootcast::entry::{Chunk, ChunkList};
    use rootcast::id::BlobId;
    // Kept chunks are never read, so the lists alone are enough: every chunk stands at another place.
    let mut old_objects = ObjectMap::new();
    let mut new_objects = ObjectMap::new();
    let (mut old, mut new) = (Changes::new(), Changes::new());
    for file in 0u64..8 {
        let chunk =
            |n: u64| Chunk { id: BlobId::of(&[file.to_le_bytes(), n.to_le_bytes()].concat()), size: 16384 };
        let mut list = ChunkList((0..16_384).map(chunk).collect());
        let path = ConfigPath::new(&format!("large-{file}")).unwrap();
        let content = chunking::store_list(&list, &mut old_objects).unwrap();
        old.insert(path.clone(), Some(Entry::File { content, executable: false }));
        list.0.reverse();
        let content = chunking::store_list(&list, &mut new_objects).unwrap();
        new.insert(path, Some(Entry::File { content, executable: false }));
    }
    let (old_root, _) = update(&ObjectMap::new(), empty_root(), &old, &mut old_objects).unwrap();
    let (root, totals) = update(&ObjectMap::new(), empty_root(), &new, &mut new_objects).unwrap();
    let edit = encode((&old_objects, old_root), (&new_objects, root)).unwrap();
    let declared = Declared { root, totals, policy: Policy::ANY };
    apply(&old_objects, old_root, &edit, &declared, &mut ObjectMap::new()).unwrap();
}

/// Keeping chunks costs a hostile parent a few bytes, and us a list for each file.
#[test]
fn threat_13_kept_chunks_are_bounded_by_what_was_signed() {
    let mut big = noise(7, 4 << 20);
    let old = Files::from([("a".to_owned(), File::Regular(big.clone()))]);
    let mut new = old.clone();
    for n in 0..16u8 {
        big[0] = n;
        new.insert(format!("a{n:02}"), File::Regular(big.clone()));
    }
    let (mut old_objects, mut new_objects) = (ObjectMap::new(), ObjectMap::new());
    let (old_root, totals) = build(&mut old_objects, &old);
    let (root, _) = build(&mut new_objects, &new);
    let edit = encode((&old_objects, old_root), (&new_objects, root)).unwrap();
    // Contents alone would fit what was signed.
    let totals = Totals { bytes: totals.bytes * 2, ..totals };
    let totals = Totals { files: 17, ..totals };
    let declared = Declared { root, totals, policy: Policy::ANY };
    let outcome = apply(&old_objects, old_root, &edit, &declared, &mut ObjectMap::new());
    assert!(matches!(outcome, Err(EditError::TooLarge { what: "bytes of files", .. })), "{outcome:?}");
}

fn letters(files: &[(&str, File)]) -> (ObjectMap, NodeId, Totals) {
    let files = files.iter().map(|(name, file)| ((*name).to_owned(), file.clone())).collect();
    let mut objects = ObjectMap::new();
    let (root, totals) = build(&mut objects, &files);
    (objects, root, totals)
}

/// An edit of one patch at position 0: hunks of (keep, drop), which insert nothing.
fn patch(hunks: &[(u8, u8)]) -> Vec<u8> {
    let mut columns = vec![5, 0, hunks.len() as u8];
    columns.extend(hunks.iter().map(|(keep, _)| keep));
    columns.extend(hunks.iter().map(|(_, drop)| drop));
    columns.extend(hunks.iter().map(|(_, drop)| if *drop == 0 { 0 } else { drop * 2 - 1 }));
    let mut edit = vec![1, 1, columns.len() as u8];
    edit.extend(columns);
    edit
}

#[test]
fn hunks_keep_and_drop_what_they_say_and_nothing_past_the_base() {
    let (objects, root, _) = letters(&[("a", File::Regular(b"0123456789".into()))]);
    let (_, want, totals) = letters(&[("a", File::Regular(b"012567".into()))]);
    let declared = Declared { root: want, totals: Totals { bytes: 10, ..totals }, policy: Policy::ANY };
    let tried = |edit: &[u8]| apply(&objects, root, edit, &declared, &mut ObjectMap::new());
    // Right but for the totals, which bound what is built before it is compared.
    assert!(matches!(tried(&patch(&[(3, 2), (3, 2)])), Err(EditError::WrongRoot { got, .. }) if got == want));
    let exact = Declared { totals, ..declared };
    apply(&objects, root, &patch(&[(3, 2), (3, 2)]), &exact, &mut ObjectMap::new()).unwrap();
    for past in [&[(3, 8)][..], &[(11, 1)], &[(3, 2), (3, 2), (0, 1)]] {
        assert!(matches!(tried(&patch(past)), Err(EditError::Malformed(_))), "{past:?}");
    }
    assert!(matches!(tried(&patch(&[(3, 0)])), Err(EditError::Malformed("a hunk that changes nothing"))));
    assert!(tried(&patch(&[])).is_err());
}

/// What an edit patches is counted before it is written, as what it brings is.
#[test]
fn e_13_threat_13_a_patched_file_over_what_was_signed_is_not_written() {
    let (objects, root, _) = letters(&[("a", File::Regular(b"0123456789".into()))]);
    for (bytes, is_written) in [(0, false), (8, false), (9, true)] {
        let declared = Declared { root, totals: Totals { files: 1, bytes }, policy: Policy::ANY };
        let mut sink = ObjectMap::new();
        let refused = apply(&objects, root, &patch(&[(3, 1)]), &declared, &mut sink);
        assert!(refused.is_err());
        let too_large = Err(EditError::TooLarge { what: "bytes of files", given: 9, allowed: bytes });
        assert_eq!(
            (refused == too_large, !sink.is_empty()),
            (!is_written, is_written),
            "{bytes}: {refused:?}"
        );
    }
}

#[test]
fn only_a_small_file_is_patched() {
    let large = File::Regular(noise(1, MAX_BLOB as usize + 1));
    for file in [File::Link("0123456789".into()), File::Secret(b"0123456789".into()), large] {
        let (objects, root, totals) = letters(&[("a", file)]);
        let declared = Declared { root, totals, policy: Policy::ANY };
        let refused = apply(&objects, root, &patch(&[(3, 2)]), &declared, &mut ObjectMap::new());
        assert_eq!(refused, Err(EditError::Malformed("patches what is no small file")));
    }
}

#[test]
fn one_word_changed_in_many_files_costs_its_places() {
    let text = |seed: u64, version: &str| {
        let line = |n: u64| format!("key-{}: {:x}\n", n, n.wrapping_mul(seed * 2654435761 + 97));
        let image = format!("image: registry/tool:{version}\n");
        let (front, back) = (1..40 + seed % 7, 40..90);
        let text = front.map(line).collect::<String>() + &image + &back.map(line).collect::<String>();
        File::Regular(text.into_bytes())
    };
    let files = |version: &str| -> Files {
        (0..400).map(|n| (format!("jobs/{n:03}.yaml"), text(n, version))).collect()
    };
    let edit = round_trip(&files("v2026-10-01"), &files("v2026-11-21"));
    assert!(edit.len() < 400 * 3, "{} bytes for 400 files", edit.len());
    assert_eq!(summary(&edit).unwrap().replaced, 400);
}

#[test]
fn threat_13_chunk_lists_and_totals_that_do_not_add_up() {
    let id = BlobId::of(b"x");
    let list = |sizes: &[u64]| codec::encode(&sizes.iter().map(|size| (id, *size)).collect::<Vec<_>>());
    assert!(ChunkList::decode(&list(&[1 << 20, 5]), (1 << 20) + 5).is_ok());
    for (sizes, size) in [
        (&[1u64 << 20, 5][..], 1 << 20),
        (&[0, 5], 5),
        (&[(1 << 20) + 1], (1 << 20) + 1),
        (&[u64::MAX, 2], 1),
    ] {
        assert!(ChunkList::decode(&list(sizes), size).is_err(), "{sizes:?}");
    }
    let declared = Declared { root: empty_root(), totals: Totals::default(), policy: Policy::ANY };
    let over = |edit: &[u8]| apply(&ObjectMap::new(), empty_root(), edit, &declared, &mut ObjectMap::new());
    over(&[1, 0, 0]).unwrap();
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for form in [1, 2] {
        assert!(matches!(over(&[&[form][..], &huge, &huge].concat()), Err(EditError::TooLarge { .. })));
        assert!(matches!(over(&[&[form, 0][..], &huge, &huge].concat()), Err(EditError::TooLarge { .. })));
    }
    let one = Declared { totals: Totals { files: 1, bytes: 0 }, ..declared };
    let no_frame = [2, 1, 1, 5, 0, 0, 0, 0, 0];
    let refused = apply(&ObjectMap::new(), empty_root(), &no_frame, &one, &mut ObjectMap::new());
    assert!(matches!(refused, Err(EditError::Frame(_))), "{refused:?}");
}
