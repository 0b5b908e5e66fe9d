//! What is refused, and that nothing was written before it was.

use super::*;
use crate::slots::steps::plan;
use rootcast::id::ObjectId;
use rootcast::object::ReadError;
use std::os::unix::fs::symlink;

/// A view whose entries come as they are given.
struct Unsorted(Vec<(ConfigPath, Entry)>);

impl View for Unsorted {
    fn entries(&self) -> Box<dyn Iterator<Item = Result<(ConfigPath, Entry), SlotError>> + '_> {
        Box::new(self.0.iter().cloned().map(Ok))
    }
}

/// A view that cannot be read to its end.
struct Broken(Files, fn() -> SlotError);

impl View for Broken {
    fn entries(&self) -> Box<dyn Iterator<Item = Result<(ConfigPath, Entry), SlotError>> + '_> {
        Box::new(self.0.entries().chain([Err((self.1)())]))
    }
}

/// A host that has run an empty view from both slots.
fn running() -> (Host, Slots) {
    let host = Host::new();
    let mut slots = host.open();
    host.run(&mut slots, &Files::new());
    host.run(&mut slots, &Files::new());
    plan::clear();
    (host, slots)
}

#[test]
fn threat_16_a_path_beneath_a_file_is_refused_before_anything_is_written() {
    // `a-` and `a.b` sort between `a` and `a/b`.
    let names = [["a", "a-", "a.b", "a/b"], ["x", "x/y", "x/z", "y"], ["l -> x", "l/m", "x", "y"]];
    for files in names {
        let (mut host, mut slots) = running();
        let view = host.view(&files.map(|name| (name, "1")));
        let refused = slots.stage_full(&view, &host.objects).unwrap_err();
        assert!(matches!(refused, SlotError::Conflict { .. }), "{refused}");
        let refused = slots.stage_changes(&changes(&Files::new(), &view), &host.objects).unwrap_err();
        assert!(matches!(refused, SlotError::Conflict { .. }), "{refused}");
        assert_eq!(plan::clear(), []);
    }
}

#[test]
fn a_change_that_conflicts_with_its_base_asks_for_a_full_staging() {
    for (base, changed) in [("a", "a/b/c"), ("a/b", "a"), ("a -> x", "a/b")] {
        let (mut host, mut slots) = running();
        let view = host.view(&[(base, "1")]);
        host.run(&mut slots, &view);
        host.run(&mut slots, &view);
        let change = Changes::from([(path(changed), Some(host.file("2", false)))]);
        let refused = slots.stage_changes(&change, &host.objects).unwrap_err();
        assert!(refused.needs_full(), "{refused}");
        host.assert_current(&view);
        assert!(!host.at("slots").join(UNFINISHED).exists());
    }
}

#[test]
fn a_removal_of_what_is_not_there_asks_for_a_full_staging() {
    for gone in ["a", "a/b", "d", "d/f/g"] {
        let (mut host, mut slots) = running();
        let view = host.view(&[("d/f", "1")]);
        host.run(&mut slots, &view);
        host.run(&mut slots, &view);
        let change = Changes::from([(path(gone), None)]);
        assert!(slots.stage_changes(&change, &host.objects).unwrap_err().needs_full(), "{gone}");
        host.assert_current(&view);
    }
}

#[test]
fn threat_15_twins_are_refused_where_the_disk_ignores_case() {
    for names in [["Etc/x", "etc/y"], ["README", "readme"], ["straße/É", "straße/é"]] {
        let (mut host, mut slots) = running();
        assert!(!slots.folds, "this test wants a file system that tells case apart");
        let view = host.view(&names.map(|name| (name, "1")));
        slots.folds = true;
        let refused = slots.stage_full(&view, &host.objects).unwrap_err();
        assert!(matches!(refused, SlotError::Twins { .. }), "{refused}");
        // Changes alone cannot tell.
        assert!(slots.stage_changes(&Changes::new(), &host.objects).unwrap_err().needs_full());
        assert_eq!(plan::clear(), []);
        slots.folds = false;
        host.run(&mut slots, &view);
        host.assert_current(&view);
    }
}

#[test]
fn a_view_out_of_order_is_refused() {
    let (mut host, mut slots) = running();
    let entry = host.file("1", false);
    for names in [["b", "a"], ["a", "a"]] {
        let view = Unsorted(names.map(|name| (path(name), entry.clone())).into());
        let refused = slots.stage_full(&view, &host.objects).unwrap_err();
        assert!(matches!(refused, SlotError::OutOfOrder { .. }), "{refused}");
    }
    assert_eq!(plan::clear(), []);
}

#[test]
fn threat_16_a_link_that_leaves_the_slot_is_refused() {
    let (host, mut slots) = running();
    // Valid where it was made, not where it is put.
    let view = Files::from([(path("a"), link("x/y/z", "../../out"))]);
    let refused = slots.stage_full(&view, &host.objects).unwrap_err();
    assert!(matches!(refused, SlotError::Link(_)), "{refused}");
    assert_eq!(plan::clear(), []);
}

#[test]
fn a_view_that_cannot_be_read_is_told_as_it_is() {
    let (mut host, mut slots) = running();
    let view = Broken(host.view(&[("a", "1")]), || SlotError::View("torn".into()));
    let refused = slots.stage_full(&view, &host.objects).unwrap_err();
    assert!(matches!(refused, SlotError::View(_)), "{refused}");
    assert_eq!(plan::clear(), []);
}

#[test]
fn a_missing_object_is_named_and_staging_succeeds_once_it_is_there() {
    let (mut host, mut slots) = running();
    let mut view = host.view(&[("a", "1"), ("b", "2")]);
    let large = host.chunked(vec![3; 5000], 2000);
    view.insert(path("large"), large.clone());
    let Entry::File { content: Content::Chunked { id: list, .. }, .. } = large else { panic!() };
    let lost: [ObjectId; 3] = [BlobId::of(b"2").into(), list.into(), BlobId::of(&[3; 1000]).into()];
    for id in lost {
        let bytes = host.objects.remove(&id).unwrap();
        let failed = slots.stage_full(&view, &host.objects).unwrap_err();
        let SlotError::Object(error) = &failed else { panic!("{failed}") };
        assert_eq!(error, &ReadError::Missing(id));
        host.assert_current(&Files::new());
        // What was begun is not taken for whole.
        assert!(slots.stage_changes(&Changes::new(), &host.objects).unwrap_err().needs_full());
        host.objects.insert(id, bytes);
    }
    host.run(&mut slots, &view);
    host.assert_current(&view);
}

#[test]
fn an_object_of_another_size_than_its_entry_is_refused() {
    let (mut host, mut slots) = running();
    let Entry::File { content: Content::Blob { id, .. }, executable } = host.file("four", false) else {
        panic!()
    };
    for size in [3, 5] {
        let content = Content::Blob { id, size };
        let view = Files::from([(path("a"), Entry::File { content, executable })]);
        let refused = slots.stage_full(&view, &host.objects).unwrap_err();
        assert!(matches!(refused, SlotError::WrongSize { found: 4, .. }), "{refused}");
    }
    let encoded = Bytes::from_static(b"\xff");
    let id = ChunkListId::of(&encoded);
    host.objects.insert(id.into(), encoded);
    let content = Content::Chunked { id, size: 9 };
    let view = Files::from([(path("a"), Entry::File { content, executable })]);
    let refused = slots.stage_full(&view, &host.objects).unwrap_err();
    assert!(matches!(refused, SlotError::ChunkList { .. }), "{refused}");
}

#[test]
fn a_current_that_is_not_ours_is_left_alone() {
    let host = Host::new();
    let current = host.at("current");
    let refuse = || {
        let refused = Slots::open(host.dir.path()).unwrap_err();
        assert!(matches!(refused, SlotError::Foreign { .. }), "{refused}");
    };
    fs::create_dir(&current).unwrap();
    refuse();
    fs::remove_dir(&current).unwrap();
    fs::write(&current, "").unwrap();
    refuse();
    fs::remove_file(&current).unwrap();
    let absolute = host.at("slots/a");
    for target in ["/etc", "slots/c", "slots/a/", "./slots/a", absolute.to_str().unwrap()] {
        symlink(target, &current).unwrap();
        refuse();
        fs::remove_file(&current).unwrap();
    }
    host.open();
}

#[test]
fn a_current_that_was_put_there_meanwhile_is_left_alone() {
    let (host, mut slots) = running();
    host.run(&mut slots, &Files::new());
    assert_eq!(slots.active().unwrap(), Some(SlotName::A));
    let staged = slots.stage_full(&Files::new(), &host.objects).unwrap();
    fs::remove_file(host.at("current")).unwrap();
    fs::create_dir(host.at("current")).unwrap();
    assert!(matches!(slots.activate(staged), Err(SlotError::Foreign { .. })));
    assert!(slots.active().is_err());
    // It is gone again: the slot that was live is not the one to write to.
    fs::remove_dir(host.at("current")).unwrap();
    assert_eq!(slots.active().unwrap(), None);
    let staged = slots.stage_full(&Files::new(), &host.objects).unwrap();
    assert_eq!(staged.slot(), SlotName::B);
    assert_eq!(slots.activate(staged).unwrap().previous, None);
}

#[test]
fn only_the_newest_staging_of_the_same_slots_can_be_activated() {
    let (host, mut slots) = running();
    let (other_host, mut other) = running();
    let first = slots.stage_full(&Files::new(), &host.objects).unwrap();
    let second = slots.stage_full(&Files::new(), &host.objects).unwrap();
    let strange = other.stage_full(&Files::new(), &other_host.objects).unwrap();
    for stale in [first, strange] {
        assert!(matches!(slots.activate(stale), Err(SlotError::Superseded { .. })));
    }
    slots.activate(second).unwrap();
}

#[test]
fn one_process_at_a_time() {
    let host = Host::new();
    let slots = host.open();
    assert!(matches!(Slots::open(host.dir.path()), Err(SlotError::Busy { .. })));
    drop(slots);
    host.open();
    let missing = Slots::open(&host.at("missing")).unwrap_err();
    assert!(matches!(missing, SlotError::Io { .. }), "{missing}");
}
