//! Properties of the tree, against a plain sorted map.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use rootcast::entry::{Content, Entry};
use rootcast::id::{BlobId, NodeId};
use rootcast::limits::NODE_MAX_ENTRIES;
use rootcast::object::ObjectMap;
use rootcast::path::{ConfigPath, LinkTarget};
use rootcast::tree::{Changes, Node, Totals, Tree, TreeError, diff, empty_root, update};
use std::collections::BTreeMap;

fn path(text: &str) -> ConfigPath {
    ConfigPath::new(text).unwrap()
}

fn file(value: u16) -> Entry {
    let content = Content::Blob { id: BlobId::of(&value.to_le_bytes()), size: u64::from(value) };
    Entry::File { content, executable: value.is_multiple_of(7) }
}

fn build(objects: &mut ObjectMap, entries: &BTreeMap<ConfigPath, Entry>) -> NodeId {
    let changes: Changes = entries.iter().map(|(p, e)| (p.clone(), Some(e.clone()))).collect();
    change(objects, empty_root(), &changes).0
}

fn change(objects: &mut ObjectMap, root: NodeId, changes: &Changes) -> (NodeId, Totals) {
    let before = objects.clone();
    update(&before, root, changes, objects).unwrap()
}

fn read(objects: &ObjectMap, root: NodeId) -> BTreeMap<ConfigPath, Entry> {
    let mut all = BTreeMap::new();
    Tree::open(objects, root)
        .unwrap()
        .walk::<TreeError>(|path, entry| {
            all.insert(path, entry);
            Ok(())
        })
        .unwrap();
    all
}

/// Names that never make one path both file and directory.
fn names() -> impl Strategy<Value = ConfigPath> {
    (0u16..40, 0u16..300).prop_map(|(dir, name)| path(&format!("d{dir}/f{name}.yaml")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn same_content_has_same_root_however_reached(
        first in btree_map(names(), any::<u16>(), 0..600),
        steps in vec(btree_map(names(), proptest::option::weighted(0.6, any::<u16>()), 1..80), 1..6),
    ) {
        let mut objects = ObjectMap::new();
        let mut model: BTreeMap<_, _> = first.into_iter().map(|(p, v)| (p, file(v))).collect();
        let mut root = build(&mut objects, &model);
        for step in steps {
            let changes: Changes = step.into_iter().map(|(p, v)| (p, v.map(file))).collect();
            let old = model.clone();
            for (path, entry) in &changes {
                match entry {
                    Some(entry) => model.insert(path.clone(), entry.clone()),
                    None => model.remove(path),
                };
            }
            let (next, totals) = change(&mut objects, root, &changes);
            prop_assert_eq!(read(&objects, next), model.clone());
            prop_assert_eq!(totals.files, model.len() as u64);
            prop_assert_eq!(totals.bytes, model.values().map(Entry::size).sum::<u64>());
            prop_assert_eq!(next, build(&mut ObjectMap::new(), &model));

            let (a, b) = (Tree::open(&objects, root).unwrap(), Tree::open(&objects, next).unwrap());
            let mut seen = BTreeMap::new();
            for change in diff(&a, &b).unwrap() {
                prop_assert_eq!(change.position, old.range(..change.path.clone()).count() as u64);
                prop_assert_eq!(change.old.as_ref(), old.get(&change.path));
                prop_assert_eq!(change.new.as_ref(), model.get(&change.path));
                prop_assert_ne!(&change.old, &change.new);
                seen.insert(change.path, ());
            }
            let differing = old.keys().chain(model.keys()).filter(|p| old.get(*p) != model.get(*p));
            prop_assert!(differing.clone().all(|p| seen.contains_key(p)));
            for (position, (path, entry)) in model.iter().enumerate().step_by(37) {
                let leaf = b.leaf_at(position as u64).unwrap().unwrap();
                let at = position - leaf.first as usize;
                prop_assert_eq!(&leaf.entries[at], &(path.clone(), entry.clone()));
                let found = b.get(path).unwrap();
                prop_assert_eq!(found.as_ref(), Some(entry));
            }
            root = next;
        }
    }
}

/// Paths none of which ends a leaf, so that the cap alone cuts.
fn paths_without_boundaries(count: usize) -> Vec<ConfigPath> {
    (0u32..)
        .map(|n| path(&format!("n{n:08}")))
        .filter(|p| blake3::hash(p.as_str().as_bytes()).as_bytes()[0] & 63 != 0)
        .take(count)
        .collect()
}

#[test]
fn nodes_cut_by_the_cap_alone_stay_history_independent() {
    let paths = paths_without_boundaries(NODE_MAX_ENTRIES * 3 + 10);
    let all: BTreeMap<_, _> = paths.iter().cloned().map(|p| (p, file(1))).collect();
    let mut objects = ObjectMap::new();
    let root = build(&mut objects, &all);
    for drop_at in [0, 1, NODE_MAX_ENTRIES - 1, NODE_MAX_ENTRIES, 2 * NODE_MAX_ENTRIES, paths.len() - 1] {
        let changes = Changes::from([(paths[drop_at].clone(), None), (paths[5].clone(), Some(file(9)))]);
        let (changed, _) = change(&mut objects, root, &changes);
        let mut model = all.clone();
        model.insert(paths[5].clone(), file(9));
        model.remove(&paths[drop_at]);
        assert_eq!(changed, build(&mut ObjectMap::new(), &model), "dropped {drop_at}");
        let undo =
            Changes::from([(paths[drop_at].clone(), Some(file(1))), (paths[5].clone(), Some(file(1)))]);
        assert_eq!(change(&mut objects, changed, &undo).0, root);
    }
}

#[test]
fn a_small_change_reads_and_writes_few_nodes() {
    let all: BTreeMap<_, _> = (0..20_000u32).map(|n| (path(&format!("d{}/f{n}", n % 50)), file(3))).collect();
    let mut objects = ObjectMap::new();
    let root = build(&mut objects, &all);
    let mut written = ObjectMap::new();
    let changes = Changes::from([(path("d7/f10007"), Some(file(4)))]);
    update(&objects, root, &changes, &mut written).unwrap();
    assert!(written.len() <= 4, "one node a level, not {}", written.len());
}

#[test]
fn everything_deleted_is_the_empty_root() {
    let all: BTreeMap<_, _> = (0..500u32).map(|n| (path(&format!("f{n}")), file(3))).collect();
    let mut objects = ObjectMap::new();
    let root = build(&mut objects, &all);
    let none: Changes = all.keys().map(|p| (p.clone(), None)).collect();
    assert_eq!(change(&mut objects, root, &none), (empty_root(), Totals::default()));
}

#[test]
fn threat_16_no_entry_lies_beneath_a_link_or_file() {
    let mut objects = ObjectMap::new();
    let link = Entry::Symlink { target: LinkTarget::new(&path("a"), "b").unwrap() };
    let root = build(&mut objects, &BTreeMap::from([(path("a"), link), (path("a-b"), file(1))]));
    for changes in [
        Changes::from([(path("a/x"), Some(file(1)))]),
        Changes::from([(path("a-b/c/d"), Some(file(1)))]),
        Changes::from([(path("q"), Some(file(1))), (path("q/r"), Some(file(1)))]),
    ] {
        let refused = update(&objects.clone(), root, &changes, &mut objects);
        assert!(matches!(refused, Err(TreeError::FileAndDirectory { .. })), "{refused:?}");
    }
    let deep = build(&mut objects, &BTreeMap::from([(path("z/y/x"), file(1))]));
    let refused = update(&objects.clone(), deep, &Changes::from([(path("z"), Some(file(1)))]), &mut objects);
    assert!(matches!(refused, Err(TreeError::FileAndDirectory { .. })), "{refused:?}");
    let swapped = Changes::from([(path("z"), Some(file(1))), (path("z/y/x"), None)]);
    update(&objects.clone(), deep, &swapped, &mut objects).unwrap();
}

#[test]
fn threat_14_a_child_named_twice_or_a_false_level_is_refused() {
    let mut objects = ObjectMap::new();
    let all: BTreeMap<_, _> = (0..5000u32).map(|n| (path(&format!("f{n}")), file(3))).collect();
    let root = build(&mut objects, &all);
    let Node::Inner { level, refs } = Node::read(&objects, root).unwrap() else { panic!("too small") };
    let mut twice = refs.clone();
    twice.insert(1, refs[0].clone());
    for bad in [
        Node::Inner { level, refs: twice },
        Node::Inner { level: level + 1, refs: refs.clone() },
        Node::Inner { level: 200, refs: refs.clone() },
        Node::Inner { level, refs: vec![rootcast::tree::NodeRef { last: path("zz"), ..refs[0].clone() }] },
    ] {
        let bytes = bad.encode();
        let id = NodeId::of(&bytes);
        objects.insert(id.into(), bytes.into());
        let outcome = Tree::open(&objects, id).and_then(|tree| tree.walk::<TreeError>(|_, _| Ok(())));
        assert!(outcome.is_err(), "{bad:?}");
    }
}

#[test]
fn a_kept_node_with_one_child_does_not_become_the_root() {
    // A path that ends a leaf and the node above it stands alone under both.
    let bits = |path: &ConfigPath| {
        u16::from_le_bytes(*blake3::hash(path.as_str().as_bytes()).as_bytes().first_chunk().unwrap())
    };
    let first = (0u32..).map(|n| path(&format!("a{n}"))).find(|path| bits(path) & 0xfff == 0).unwrap();
    let last = path("z");
    let mut objects = ObjectMap::new();
    let one = BTreeMap::from([(first.clone(), file(1))]);
    let two = BTreeMap::from([(first, file(1)), (last.clone(), file(2))]);
    let root = build(&mut objects, &two);
    let (dropped, _) = change(&mut objects, root, &Changes::from([(last, None)]));
    assert_eq!(dropped, build(&mut ObjectMap::new(), &one));
}

#[test]
fn threat_16_links_together_do_not_leave_the_bundle() {
    // `d/a -> ..` is the bundle's root, so `d/b -> a/../x` would lie outside of it.
    assert!(LinkTarget::new(&path("d/a"), "..").is_ok());
    assert!(LinkTarget::new(&path("d/e/b"), "../../x/y").is_ok());
    for (at, target) in
        [("d/b", "a/../x"), ("d/e/b", "../a/../x"), ("d/b", "../.."), ("b", ".."), ("b", "./../x")]
    {
        assert!(LinkTarget::new(&path(at), target).is_err(), "{at} -> {target}");
    }
}
