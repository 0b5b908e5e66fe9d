//! From the difference of two trees to the operations that say it shortest.

use super::EditError;
use super::columns::is_large;
use super::operation::{Base, Body, Kind, OldEntries, Operation, Piece, Placed};
use super::patch::{self, Hunk};
use crate::entry::{Chunk, ChunkList, Content, Entry};
use crate::id::ObjectId;
use crate::object::{ObjectSource, ReadError};
use crate::path::ConfigPath;
use crate::tree::TreeChange;
use std::collections::BTreeMap;

/// Where the content that this change drops or replaces stands in the old tree.
struct Leaving<'c> {
    by_content: BTreeMap<ObjectId, u64>,
    by_name: BTreeMap<&'c str, u64>,
}

fn object(entry: &Entry) -> Option<ObjectId> {
    match entry {
        Entry::Symlink { .. } => None,
        Entry::File { content: Content::Blob { id, .. }, .. } | Entry::Secret { id, .. } => {
            Some((*id).into())
        }
        Entry::File { content: Content::Chunked { id, .. }, .. } => Some((*id).into()),
    }
}

/// Whether the content resembles other content: not a link's, and not what is encrypted.
fn is_file(entry: &Entry) -> bool {
    matches!(entry, Entry::File { .. })
}

/// The object of a small file.
fn blob(entry: &Entry) -> Option<ObjectId> {
    match entry {
        Entry::File { content: Content::Blob { id, .. }, .. } => Some((*id).into()),
        _ => None,
    }
}

fn kind(entry: &Entry) -> Kind {
    match entry {
        Entry::Symlink { .. } => Kind::Symlink,
        Entry::File { executable: true, .. } => Kind::Executable,
        Entry::File { executable: false, .. } => Kind::Regular,
        Entry::Secret { .. } => Kind::Secret,
    }
}

fn name(path: &ConfigPath) -> &str {
    path.segments().next_back().unwrap_or_default()
}

impl<'c> Leaving<'c> {
    fn of(changes: &'c [TreeChange]) -> Self {
        let mut leaving = Self { by_content: BTreeMap::new(), by_name: BTreeMap::new() };
        for change in changes {
            let Some(old) = &change.old else { continue };
            if let Some(object) = object(old) {
                leaving.by_content.entry(object).or_insert(change.position);
                if change.new.is_none() && is_file(old) {
                    leaving.by_name.entry(name(&change.path)).or_insert(change.position);
                }
            }
        }
        leaving
    }
}

/// Whether files that have a base are told by what differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patching {
    Yes,
    No,
}

/// Plans the operations of a difference. `new` holds the new objects.
pub(super) fn plan<S, N>(
    changes: &[TreeChange],
    old: &mut OldEntries<'_, '_, S>,
    new: &N,
    patching: Patching,
) -> Result<Vec<Placed>, EditError>
where
    S: ObjectSource + ?Sized,
    N: ObjectSource + ?Sized,
{
    let leaving = Leaving::of(changes);
    let mut placed = Vec::with_capacity(changes.len());
    for change in changes {
        let position = change.position;
        let operation = match (&change.old, &change.new) {
            (_, None) => Operation::Delete,
            (Some(before), Some(after)) => {
                if is_file(before) && is_file(after) && object(before) == object(after) {
                    Operation::SetMode
                } else {
                    let base = is_file(before).then_some(position);
                    let body = body(after, base, old, new, patching)?;
                    Operation::Replace { kind: kind(after), body }
                }
            }
            (None, Some(after)) => {
                let path = change.path.clone();
                let kind = kind(after);
                match object(after).and_then(|object| leaving.by_content.get(&object)) {
                    Some(from) => Operation::Copy { path, kind, from: *from },
                    None => {
                        let base = match leaving.by_name.get(name(&path)) {
                            Some(from) if is_file(after) => Base::At(*from),
                            _ => neighbour(&path, kind, position, old)?,
                        };
                        let operation = Operation::Add { path, kind, body: Body::Whole(0), base };
                        let from = Placed { position, operation: operation.clone() }.base();
                        let body = body(after, from, old, new, patching)?;
                        let Operation::Add { path, kind, base, .. } = operation else { continue };
                        Operation::Add { path, kind, body, base }
                    }
                }
            }
        };
        placed.push(Placed { position, operation });
    }
    Ok(placed)
}

/// Which of the two old entries around a new path resembles it more: the one
/// with the same extension, then the one with the longer common path.
fn neighbour<S: ObjectSource + ?Sized>(
    path: &ConfigPath,
    kind: Kind,
    position: u64,
    old: &mut OldEntries<'_, '_, S>,
) -> Result<Base, EditError> {
    if matches!(kind, Kind::Symlink | Kind::Secret) {
        return Ok(Base::None);
    }
    let extension = |path: &ConfigPath| name(path).rsplit_once('.').map(|(_, end)| end.to_owned());
    let mut likeness = |position: Option<u64>| -> Result<Option<(bool, usize)>, EditError> {
        let Some(position) = position else { return Ok(None) };
        Ok(old.find(position)?.and_then(|(other, entry)| {
            is_file(entry).then_some(())?;
            let (a, b) = (path.as_str().bytes(), other.as_str().bytes());
            let common = a.zip(b).take_while(|(a, b)| a == b).count();
            Some((extension(path) == extension(other), common))
        }))
    };
    let before = likeness(position.checked_sub(1))?;
    let after = likeness(Some(position))?;
    Ok(match (before, after) {
        (None, None) => Base::None,
        (before, after) if after > before => Base::After,
        _ => Base::Before,
    })
}

fn chunks<N: ObjectSource + ?Sized>(entry: &Entry, new: &N) -> Result<Vec<Chunk>, EditError> {
    let Entry::File { content: Content::Chunked { id, size }, .. } = entry else { return Ok(Vec::new()) };
    let object = ObjectId::from(*id);
    let bytes = new.read(&object)?;
    Ok(ChunkList::decode(&bytes, *size).map_err(|_| ReadError::Damaged(object))?.0)
}

/// How the new content is sent: whole, as what the base has not, or as the chunks that it has not.
fn body<S, N>(
    entry: &Entry,
    base: Option<u64>,
    old: &mut OldEntries<'_, '_, S>,
    new: &N,
    patching: Patching,
) -> Result<Body, EditError>
where
    S: ObjectSource + ?Sized,
    N: ObjectSource + ?Sized,
{
    if !is_large(entry) {
        let hunks = match (patching, base, blob(entry)) {
            (Patching::Yes, Some(base), Some(id)) if old.get(base).is_ok_and(|(_, e)| blob(e).is_some()) => {
                patch::hunks(&old.blob(base)?, &new.read(&id)?)
            }
            _ => None,
        };
        return Ok(hunks.map_or(Body::Whole(entry.size()), Body::Patched));
    }
    let mut at_old = BTreeMap::new();
    if let Some(base) = base {
        for (at, chunk) in (0u64..).zip(old.chunks(base)?) {
            at_old.entry(chunk.id).or_insert(at);
        }
    }
    let mut pieces: Vec<Piece> = Vec::new();
    for chunk in chunks(entry, new)? {
        match (at_old.get(&chunk.id), pieces.last_mut()) {
            (Some(at), Some(Piece::Keep { first, count })) if *first + *count == *at => *count += 1,
            (Some(at), _) => pieces.push(Piece::Keep { first: *at, count: 1 }),
            (None, Some(Piece::New(sizes))) => sizes.push(chunk.size),
            (None, _) => pieces.push(Piece::New(vec![chunk.size])),
        }
    }
    Ok(Body::Pieces(pieces))
}

/// The new content of a planned operation, piece by piece, in the order of its sizes.
pub(super) fn contents<N: ObjectSource + ?Sized>(
    entry: &Entry,
    body: &Body,
    new: &N,
) -> Result<Vec<Piecewise>, EditError> {
    match (entry, body) {
        (Entry::Symlink { target }, _) => Ok(vec![Piecewise::Text(target.as_str().to_owned())]),
        (Entry::File { content: Content::Blob { id, .. }, .. }, Body::Patched(hunks)) => {
            Ok(vec![Piecewise::Inserted((*id).into(), hunks.clone())])
        }
        (Entry::File { content: Content::Blob { id, .. }, .. } | Entry::Secret { id, .. }, _) => {
            Ok(vec![Piecewise::Object((*id).into())])
        }
        (_, Body::Whole(_) | Body::Patched(_)) => Ok(Vec::new()),
        (_, Body::Pieces(pieces)) => {
            let mut chunks = chunks(entry, new)?.into_iter();
            let mut contents = Vec::new();
            for piece in pieces {
                match piece {
                    Piece::Keep { count, .. } => {
                        let _ = chunks.by_ref().take(usize::try_from(*count).unwrap_or(0)).last();
                    }
                    Piece::New(sizes) => {
                        contents.extend(
                            chunks.by_ref().take(sizes.len()).map(|chunk| Piecewise::Object(chunk.id.into())),
                        );
                    }
                }
            }
            Ok(contents)
        }
    }
}

/// Where the bytes of one unit are.
pub(super) enum Piecewise {
    Object(ObjectId),
    /// What hunks insert into the base to make this object.
    Inserted(ObjectId, Vec<Hunk>),
    Text(String),
}
