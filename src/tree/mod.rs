//! The tree of a bundle: a Merkle search tree from path to entry.
//!
//! Sorted full paths are cut into nodes after an entry whose path hash has
//! zero bits at the node's level, so where nodes end depends on the set of
//! paths alone, never on history or on values: the same content has the same
//! root however it was reached (specs/tree.md, T-5 to T-9).

mod cursor;
mod diff;
mod node;
mod update;

pub use diff::{TreeChange, diff};
pub use node::{Node, NodeRef};
pub use update::{Changes, update};

use crate::codec::CodecError;
use crate::entry::Entry;
use crate::id::{NodeId, ObjectId};
use crate::object::{ObjectSource, ReadError, WriteError};
use crate::path::{ConfigPath, PathError};
use cursor::Cursor;

/// Why a tree could not be read or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A node or blob could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A new node could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A node's bytes are not a node.
    #[error("node {id}: {source}")]
    Codec {
        /// The node.
        id: NodeId,
        /// What is wrong with it.
        source: CodecError,
    },
    /// A node breaks a rule of the tree.
    #[error("node {id}: {reason}")]
    Shape {
        /// The node.
        id: NodeId,
        /// The rule.
        reason: &'static str,
    },
    /// A link leaves the bundle.
    #[error("{path}: {source}")]
    Link {
        /// Path of the link.
        path: ConfigPath,
        /// Why it is refused.
        source: PathError,
    },
    /// One path is a file or link, and a directory of another.
    #[error("{file} is a file, and {below} lies beneath it")]
    FileAndDirectory {
        /// The file or link.
        file: ConfigPath,
        /// The entry beneath it.
        below: ConfigPath,
    },
    /// More levels than any tree within the limits has.
    #[error("the tree is too deep")]
    TooDeep,
}

/// Files and bytes below a node or in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Entries, links included.
    pub files: u64,
    /// Bytes of all files, and of link targets.
    pub bytes: u64,
}

impl Totals {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { files: self.files.saturating_add(other.files), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// A leaf and where it stands.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Position of its first entry in path order.
    pub first: u64,
    /// Its entries.
    pub entries: Vec<(ConfigPath, Entry)>,
}

/// The root of a tree without entries.
pub fn empty_root() -> NodeId {
    NodeId::of(&Node::EMPTY.encode())
}

/// A tree that can be read: its root and where its objects are.
pub struct Tree<'a, S: ?Sized> {
    source: &'a S,
    root: Option<NodeRef>,
    level: u8,
}

impl<'a, S: ObjectSource + ?Sized> Tree<'a, S> {
    /// Reads the root node.
    pub fn open(source: &'a S, root: NodeId) -> Result<Self, TreeError> {
        if root == empty_root() {
            return Ok(Self { source, root: None, level: 0 });
        }
        let node = Node::read(source, root)?;
        let level = node.level();
        Ok(Self { source, root: node.reference(root), level })
    }

    /// Files and bytes in the whole tree.
    pub fn totals(&self) -> Totals {
        self.root.as_ref().map(|root| root.totals).unwrap_or_default()
    }

    /// The entry at a path.
    pub fn get(&self, path: &ConfigPath) -> Result<Option<Entry>, TreeError> {
        let mut leaves = self.cursor(0);
        if !leaves.seek(path)? {
            return Ok(None);
        }
        Ok(leaves.leaf()?.into_iter().find(|(at, _)| at == path).map(|(_, entry)| entry))
    }

    /// The first entry at or after a path.
    pub fn first_from(&self, path: &str) -> Result<Option<(ConfigPath, Entry)>, TreeError> {
        let mut leaves = self.cursor(0);
        if !leaves.seek(path)? {
            return Ok(None);
        }
        Ok(leaves.leaf()?.into_iter().find(|(at, _)| at.as_str() >= path))
    }

    /// The leaf that holds the entry at a position in path order, from 0, and
    /// the position of the leaf's first entry.
    pub fn leaf_at(&self, position: u64) -> Result<Option<Leaf>, TreeError> {
        let Some(root) = &self.root else { return Ok(None) };
        if position >= root.totals.files {
            return Ok(None);
        }
        let (mut child, mut level, mut first) = (root.clone(), self.level, 0);
        loop {
            match Node::read_child(self.source, &child, level)? {
                Node::Leaf(entries) => return Ok(Some(Leaf { first, entries })),
                Node::Inner { refs, .. } => {
                    let mut found = None;
                    for below in refs {
                        let end = first + below.totals.files;
                        if position < end {
                            found = Some(below);
                            break;
                        }
                        first = end;
                    }
                    let shape = TreeError::Shape { id: child.id, reason: "totals do not add up" };
                    child = found.ok_or(shape)?;
                    level = level.saturating_sub(1);
                }
            }
        }
    }

    /// Calls `each` for every entry in path order.
    pub fn walk<E: From<TreeError>>(
        &self,
        mut each: impl FnMut(ConfigPath, Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut leaves = self.cursor(0);
        let mut more = leaves.first()?;
        while more {
            for (path, entry) in leaves.leaf()? {
                each(path, entry)?;
            }
            more = leaves.advance()?;
        }
        Ok(())
    }

    /// Calls `each` for the entry at a path and for those beneath it, in path order; for all where it is empty.
    ///
    /// # Errors
    /// When the tree cannot be read, and those of `each`.
    pub fn walk_below<E: From<TreeError>>(
        &self,
        path: &str,
        mut each: impl FnMut(ConfigPath, Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        if path.is_empty() {
            return self.walk(each);
        }
        let mut leaves = self.cursor(0);
        // Between a path and what is beneath it there may be others, as `a-b` between `a` and `a/b`.
        if leaves.seek(path)?
            && let Some((at, entry)) = leaves.leaf()?.into_iter().find(|(at, _)| at.as_str() == path)
        {
            each(at, entry)?;
        }
        let beneath = format!("{path}/");
        let mut more = leaves.seek(beneath.as_str())?;
        while more {
            for (at, entry) in leaves.leaf()?.into_iter().skip_while(|(at, _)| at.as_str() < beneath.as_str())
            {
                if !at.as_str().starts_with(&beneath) {
                    return Ok(());
                }
                each(at, entry)?;
            }
            more = leaves.advance()?;
        }
        Ok(())
    }

    /// Calls `each` for every object the tree is made of: nodes, blobs and
    /// chunk lists. Where `each` says no, what lies below is skipped.
    pub fn objects<E: From<TreeError>>(
        &self,
        each: &mut dyn FnMut(ObjectId) -> Result<bool, E>,
    ) -> Result<(), E> {
        match &self.root {
            Some(root) => self.objects_below(root.id, self.level, each),
            None => Ok(()),
        }
    }

    fn objects_below<E: From<TreeError>>(
        &self,
        id: NodeId,
        level: u8,
        each: &mut dyn FnMut(ObjectId) -> Result<bool, E>,
    ) -> Result<(), E> {
        if !each(id.into())? {
            return Ok(());
        }
        match Node::read_at(self.source, id, level)? {
            Node::Leaf(entries) => {
                for (_, entry) in entries {
                    self.objects_of(&entry, each)?;
                }
            }
            Node::Inner { refs, .. } => {
                for child in refs {
                    self.objects_below(child.id, level.saturating_sub(1), each)?;
                }
            }
        }
        Ok(())
    }

    fn objects_of<E: From<TreeError>>(
        &self,
        entry: &Entry,
        each: &mut dyn FnMut(ObjectId) -> Result<bool, E>,
    ) -> Result<(), E> {
        use crate::entry::{ChunkList, Content};
        match entry {
            Entry::Symlink { .. } => Ok(()),
            Entry::File { content: Content::Blob { id, .. }, .. } | Entry::Secret { id, .. } => {
                each((*id).into()).map(drop)
            }
            Entry::File { content: Content::Chunked { id, size }, .. } => {
                let object = ObjectId::from(*id);
                if !each(object)? {
                    return Ok(());
                }
                let bytes = self.source.read(&object).map_err(TreeError::from)?;
                let list = ChunkList::decode(&bytes, *size)
                    .map_err(|_| TreeError::from(ReadError::Damaged(object)))?;
                list.0.iter().try_for_each(|chunk| each(chunk.id.into()).map(drop))
            }
        }
    }

    fn cursor(&self, level: u8) -> Cursor<'a, S> {
        Cursor::new(self.source, self.root.clone(), self.level, level)
    }
}
