//! Making an edit.

use super::EditError;
use super::columns;
use super::frame::{self, Effort, Unit};
use super::operation::{Body, OldEntries, Placed};
use super::patch;
use super::plan::{self, Patching, Piecewise};
use super::varint::put;
use crate::entry::Entry;
use crate::id::NodeId;
use crate::limits::{KIB, MAX_EDIT};
use crate::object::ObjectSource;
use crate::tree::{Tree, TreeChange, diff};

/// Up to this much content with its bases, both ways to tell a file are tried.
const TRY_BOTH: u64 = 128 * KIB;

/// Encodes the change from the tree at `old` to the tree at `new`.
///
/// Memory: the edit itself, one frame of contents with its prefix, and the
/// list of differing paths.
pub fn encode<A, B>(old: (&A, NodeId), new: (&B, NodeId)) -> Result<Vec<u8>, EditError>
where
    A: ObjectSource + ?Sized,
    B: ObjectSource + ?Sized,
{
    encode_with(old, new, Effort::Usual)
}

/// [`encode`], with as much work as is said.
pub fn encode_with<A, B>(old: (&A, NodeId), new: (&B, NodeId), effort: Effort) -> Result<Vec<u8>, EditError>
where
    A: ObjectSource + ?Sized,
    B: ObjectSource + ?Sized,
{
    let old_tree = Tree::open(old.0, old.1)?;
    let new_tree = Tree::open(new.0, new.1)?;
    let changes = diff(&old_tree, &new_tree)?;
    let mut entries = OldEntries::new(&old_tree, old.0);
    let patched = plan::plan(&changes, &mut entries, new.0, Patching::Yes)?;
    let sources = (old.0, new.0);
    let edit = write(&patched, &changes, &mut entries, sources, effort)?;
    let sizes = |change: &TreeChange| {
        let size = |entry: &Option<Entry>| entry.as_ref().map_or(0, Entry::size);
        size(&change.old).saturating_add(size(&change.new))
    };
    let has_patch = patched.iter().any(|placed| matches!(placed.body(), Some(Body::Patched(_))));
    if !has_patch || changes.iter().map(sizes).fold(0, u64::saturating_add) > TRY_BOTH {
        return Ok(edit);
    }
    let whole = plan::plan(&changes, &mut entries, new.0, Patching::No)?;
    let whole = write(&whole, &changes, &mut entries, sources, effort)?;
    Ok(if whole.len() <= edit.len() { whole } else { edit })
}

fn write<A, B>(
    operations: &[Placed],
    changes: &[TreeChange],
    entries: &mut OldEntries<'_, '_, A>,
    (old, new): (&A, &B),
    effort: Effort,
) -> Result<Vec<u8>, EditError>
where
    A: ObjectSource + ?Sized,
    B: ObjectSource + ?Sized,
{
    let mut edit = columns::encode(operations, entries)?;
    let mut units = Vec::new();
    let mut sources = Vec::new();
    for (placed, change) in operations.iter().zip(changes) {
        let (Some(body), Some(entry)) = (placed.body(), &change.new) else { continue };
        let mut base = entries.prefix(placed)?;
        units.extend(body.sizes().map(|size| Unit { size, base: core::mem::take(&mut base) }));
        sources.extend(plan::contents(entry, body, new)?);
    }
    let frames = frame::group(&units);
    let mut sources = sources.into_iter();
    let mut content = Vec::new();
    for (at, frame) in frames.iter().enumerate() {
        let prefix = frame::prefix(frame, &content, old)?;
        content.clear();
        for piece in sources.by_ref().take(frame.len()) {
            match piece {
                Piecewise::Object(id) => content.extend_from_slice(&new.read(&id)?),
                Piecewise::Inserted(id, hunks) => {
                    content.extend_from_slice(&patch::inserted(&new.read(&id)?, &hunks));
                }
                Piecewise::Text(text) => content.extend_from_slice(text.as_bytes()),
            }
        }
        let packed = frame::pack(&content, &prefix, effort)?;
        if at + 1 < frames.len() {
            put(&mut edit, packed.len() as u64);
        }
        edit.extend_from_slice(&packed);
        let (given, allowed) = (edit.len() as u64, MAX_EDIT);
        if given > allowed {
            return Err(EditError::TooLarge { what: "bytes of the edit", given, allowed });
        }
    }
    Ok(edit)
}
