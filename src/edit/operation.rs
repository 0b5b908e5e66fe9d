//! What an edit says, in memory: operations on the old tree, in path order.

use super::EditError;
use super::patch::{self, Hunk};
use crate::entry::{Chunk, ChunkList, Content, Entry};
use crate::id::ObjectId;
use crate::object::{ObjectSource, ReadError};
use crate::path::ConfigPath;
use crate::tree::{Leaf, Tree};
use bytes::Bytes;

/// An operation and where in the old tree it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    /// Entries of the old tree before it.
    pub(super) position: u64,
    pub(super) operation: Operation,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    /// Drop the old entry.
    Delete,
    /// Keep the old entry's content and change whether it is executable.
    SetMode,
    /// Give the old entry's path new content.
    Replace { kind: Kind, body: Body },
    /// A new path with new content.
    Add { path: ConfigPath, kind: Kind, body: Body, base: Base },
    /// A new path with the content of an old entry.
    Copy { path: ConfigPath, kind: Kind, from: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    Executable,
    Symlink,
    Secret,
}

/// New content: in one piece, for a large file chunk by chunk, or as what differs from its base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Whole(u64),
    Pieces(Vec<Piece>),
    Patched(Vec<Hunk>),
}

/// A run of a large file's chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Chunks of the base file.
    Keep { first: u64, count: u64 },
    /// New chunks of these sizes.
    New(Vec<u64>),
}

/// Which old entry resembles an added one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    None,
    /// The old entry before.
    Before,
    /// The old entry after.
    After,
    At(u64),
}

impl Placed {
    /// Position after this operation: one further where it used up an old entry.
    pub(super) fn end(&self) -> u64 {
        match self.operation {
            Operation::Delete | Operation::SetMode | Operation::Replace { .. } => self.position + 1,
            Operation::Add { .. } | Operation::Copy { .. } => self.position,
        }
    }

    pub(super) fn body(&self) -> Option<&Body> {
        match &self.operation {
            Operation::Replace { body, .. } | Operation::Add { body, .. } => Some(body),
            _ => None,
        }
    }

    /// Position of the old entry whose content is the base of the new one.
    pub(super) fn base(&self) -> Option<u64> {
        match &self.operation {
            Operation::Replace { kind: Kind::Regular | Kind::Executable, .. } => Some(self.position),
            Operation::Add { base: Base::Before, .. } => self.position.checked_sub(1),
            Operation::Add { base: Base::After, .. } => Some(self.position),
            Operation::Add { base: Base::At(position), .. } => Some(*position),
            _ => None,
        }
    }
}

impl Body {
    /// Sizes of the new pieces of content, in order.
    pub(super) fn sizes(&self) -> impl Iterator<Item = u64> + '_ {
        let (whole, pieces) = match self {
            Self::Whole(size) => (Some(*size), &[][..]),
            Self::Pieces(pieces) => (None, &pieces[..]),
            Self::Patched(hunks) => (Some(patch::insertion(hunks)), &[][..]),
        };
        let new = pieces.iter().flat_map(|piece| match piece {
            Piece::New(sizes) => &sizes[..],
            Piece::Keep { .. } => &[],
        });
        whole.into_iter().chain(new.copied())
    }
}

/// The old tree's entries by position, one leaf of them at a time.
pub(super) struct OldEntries<'t, 'a, S: ?Sized> {
    tree: &'t Tree<'a, S>,
    source: &'a S,
    leaf: Option<Leaf>,
}

impl<'t, 'a, S: ObjectSource + ?Sized> OldEntries<'t, 'a, S> {
    pub(super) fn new(tree: &'t Tree<'a, S>, source: &'a S) -> Self {
        Self { tree, source, leaf: None }
    }

    pub(super) fn find(&mut self, position: u64) -> Result<Option<&(ConfigPath, Entry)>, EditError> {
        let held = self
            .leaf
            .as_ref()
            .is_some_and(|leaf| (leaf.first..leaf.first + leaf.entries.len() as u64).contains(&position));
        if !held {
            self.leaf = self.tree.leaf_at(position)?;
        }
        Ok(self.leaf.as_ref().and_then(|leaf| {
            let at = position.checked_sub(leaf.first)?;
            leaf.entries.get(usize::try_from(at).ok()?)
        }))
    }

    pub(super) fn get(&mut self, position: u64) -> Result<&(ConfigPath, Entry), EditError> {
        self.find(position)?.ok_or(EditError::Malformed("names a position past the old tree"))
    }

    /// The chunks that hold a file's bytes; a small file is one.
    pub(super) fn chunks(&mut self, position: u64) -> Result<Vec<Chunk>, EditError> {
        let (_, entry) = self.get(position)?;
        match entry.clone() {
            // Nothing resembles what is encrypted.
            Entry::Symlink { .. } | Entry::Secret { .. } => Ok(Vec::new()),
            Entry::File { content: Content::Blob { id, size }, .. } => Ok(vec![Chunk { id, size }]),
            Entry::File { content: Content::Chunked { id, size }, .. } => {
                let object = ObjectId::from(id);
                let bytes = self.source.read(&object)?;
                let list = ChunkList::decode(&bytes, size).map_err(|_| ReadError::Damaged(object))?;
                Ok(list.0)
            }
        }
    }

    /// The base of a patched file, which is one blob.
    pub(super) fn blob(&mut self, position: u64) -> Result<Bytes, EditError> {
        match self.get(position)?.1 {
            Entry::File { content: Content::Blob { id, .. }, .. } => Ok(self.source.read(&id.into())?),
            _ => Err(EditError::Malformed("patches what is no small file")),
        }
    }

    /// The chunks of an operation's base that may stand in a prefix: those
    /// that the new content does not keep whole.
    pub(super) fn prefix(&mut self, placed: &Placed) -> Result<Vec<Chunk>, EditError> {
        let (Some(body), Some(base)) = (placed.body(), placed.base()) else { return Ok(Vec::new()) };
        let mut chunks = self.chunks(base)?;
        if let Body::Pieces(pieces) = body {
            let mut kept = vec![false; chunks.len()];
            for piece in pieces {
                let Piece::Keep { first, count } = piece else { continue };
                let range = usize::try_from(*first).ok().zip(usize::try_from(*count).ok());
                let run = range.and_then(|(first, count)| kept.get_mut(first..first.checked_add(count)?));
                run.ok_or(EditError::Malformed("keeps chunks that are not there"))?.fill(true);
            }
            let mut kept = kept.into_iter();
            chunks.retain(|_| kept.next() == Some(false));
        }
        Ok(chunks)
    }
}

/// What an edit does, for people: its operations counted, from the encoding alone.
pub fn summary(edit: &[u8]) -> Result<Summary, EditError> {
    super::columns::summary(edit)
}

/// Counts of an edit's operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Paths added with new content.
    pub added: u64,
    /// Paths added with content that the old tree has.
    pub copied: u64,
    /// Paths with new content.
    pub replaced: u64,
    /// Paths whose mode alone changed.
    pub mode_changed: u64,
    /// Paths dropped.
    pub deleted: u64,
    /// Bytes of the operations, as encoded.
    pub operation_bytes: u64,
    /// Bytes of the contents, as encoded.
    pub content_bytes: u64,
}
