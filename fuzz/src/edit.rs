//! The edit: it gives the declared root or nothing, and whatever it gives is a sound tree.

use crate::golden::{GOLDEN, Way};
use rootcast::edit::{self, EditError};
use rootcast::id::{NodeId, ObjectId};
use rootcast::object::{ObjectMap, ObjectSource, Overlay};
use rootcast::path::ConfigPath;
use rootcast::tree::{Totals, Tree, TreeError};
use std::collections::BTreeSet;

/// The first byte chooses a golden tree and what was signed of the next; the rest is the edit (E-13).
pub(crate) fn edit(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    let way = GOLDEN.ways.get(usize::from(*choice) % GOLDEN.ways.len()).expect("the index is in range");
    // Without what was signed, only the limits of any edit bound what this unpacks.
    let summary = edit::summary(bytes);
    if apply(way, bytes) {
        summary.expect("E-2: what applies can be counted");
    }
}

/// Applies an edit, and says whether it gave what was declared.
fn apply(way: &Way, bytes: &[u8]) -> bool {
    let mut new = ObjectMap::new();
    let outcome = edit::apply(&GOLDEN.objects, way.from, bytes, &way.to, &mut new);
    let mut content = 0;
    for (id, object) in &new {
        assert!(id.matches(object), "T-1: {id} is not the hash of what was written");
        if let ObjectId::Blob(_) = id {
            content += object.len() as u64;
        }
    }
    assert!(content <= way.to.totals.bytes, "E-13: {content} bytes of content, {:?} signed", way.to.totals);
    let source = Overlay { over: &new, under: &GOLDEN.objects };
    match outcome {
        Ok(()) => {
            assert_eq!(walk(&source, way.to.root), way.to.totals, "E-13");
            true
        }
        // It was built all the same, by the same rules, and must not be what was declared.
        Err(EditError::WrongRoot { got, want }) => {
            let totals = walk(&source, got);
            assert!(
                want == way.to.root && (got, totals) != (want, way.to.totals),
                "E-13: refused, and right"
            );
            false
        }
        Err(_) => false,
    }
}

/// Reads all of a tree and checks what a reader relies on (T-3, T-4, T-6, T-8, T-10).
fn walk(source: &impl ObjectSource, root: NodeId) -> Totals {
    let tree = Tree::open(source, root).expect("the root can be read");
    let mut totals = Totals::default();
    let mut paths = BTreeSet::<ConfigPath>::new();
    let walked = tree.walk::<TreeError>(|path, entry| {
        totals.files += 1;
        totals.bytes += entry.size();
        entry.check_at(&path).expect("T-3: no link leaves the bundle");
        assert!(paths.iter().next_back().is_none_or(|last| *last < path), "T-6: paths out of order");
        assert!(!path.parents().any(|above| paths.contains(above)), "T-8: {path} lies beneath an entry");
        paths.insert(path);
        Ok(())
    });
    walked.expect("every entry can be read");
    let objects = tree.objects::<TreeError>(&mut |id| source.read(&id).map(|_| true).map_err(Into::into));
    objects.expect("every object can be read");
    assert_eq!(totals, tree.totals(), "T-6: totals");
    totals
}
