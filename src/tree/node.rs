//! One node: its encoding, its bounds and where it ends.

use super::{Totals, TreeError};
use crate::codec;
use crate::encode_as_array;
use crate::entry::Entry;
use crate::id::NodeId;
use crate::limits::{MAX_FILES, MAX_LEVEL, MAX_OBJECT, NODE_BITS, NODE_MAX_ENTRIES};
use crate::object::ObjectSource;
use crate::path::ConfigPath;

/// A child of an inner node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRef {
    /// The last path below it.
    pub last: ConfigPath,
    /// The child.
    pub id: NodeId,
    /// What lies below it.
    pub totals: Totals,
}

struct EncodedRef {
    last: ConfigPath,
    id: NodeId,
    files: u64,
    bytes: u64,
}
encode_as_array!(EncodedRef { last, id, files, bytes });

/// A node of a tree (specs/tree.md, T-6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Level 0: entries in path order.
    Leaf(Vec<(ConfigPath, Entry)>),
    /// Children in path order, each of the level below.
    Inner {
        /// From 1; a root's level is the height of its tree.
        level: u8,
        /// The children.
        refs: Vec<NodeRef>,
    },
}

impl Node {
    pub(super) const EMPTY: Self = Self::Leaf(Vec::new());

    pub(super) fn level(&self) -> u8 {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner { level, .. } => *level,
        }
    }

    /// The encoding, which is the object: `[0, [[path, entry], …]]` or
    /// `[level, [[last, child, files, bytes], …]]`.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Leaf(entries) => codec::encode(&(0u8, entries)),
            Self::Inner { level, refs } => {
                let refs: Vec<EncodedRef> = refs.iter().cloned().map(Into::into).collect();
                codec::encode(&(level, refs))
            }
        }
    }

    /// How an inner node names this one; `None` for the empty node.
    pub(super) fn reference(&self, id: NodeId) -> Option<NodeRef> {
        let totals = self.totals();
        let last = match self {
            Self::Leaf(entries) => entries.last()?.0.clone(),
            Self::Inner { refs, .. } => refs.last()?.last.clone(),
        };
        Some(NodeRef { last, id, totals })
    }

    fn totals(&self) -> Totals {
        match self {
            Self::Leaf(entries) => entries.iter().fold(Totals::default(), |sum, (_, entry)| {
                sum.plus(Totals { files: 1, bytes: entry.size() })
            }),
            Self::Inner { refs, .. } => {
                refs.iter().fold(Totals::default(), |sum, child| sum.plus(child.totals))
            }
        }
    }

    /// Reads a node of any level.
    pub fn read<S: ObjectSource + ?Sized>(source: &S, id: NodeId) -> Result<Self, TreeError> {
        let bytes = source.read(&id.into())?;
        Self::decode(id, &bytes)
    }

    /// Reads a node that its parent says is of this level.
    pub(super) fn read_at<S: ObjectSource + ?Sized>(
        source: &S,
        id: NodeId,
        level: u8,
    ) -> Result<Self, TreeError> {
        let node = Self::read(source, id)?;
        if node.level() != level {
            return Err(TreeError::Shape { id, reason: "is of another level than its parent says" });
        }
        Ok(node)
    }

    /// Reads a child and checks that it is what its parent says.
    pub(super) fn read_child<S: ObjectSource + ?Sized>(
        source: &S,
        child: &NodeRef,
        level: u8,
    ) -> Result<Self, TreeError> {
        let node = Self::read_at(source, child.id, level)?;
        if node.reference(child.id).as_ref() != Some(child) {
            let reason = "last path or totals differ from what its parent says";
            return Err(TreeError::Shape { id: child.id, reason });
        }
        Ok(node)
    }

    /// Decodes a node and checks every rule that one node alone can show.
    pub fn decode(id: NodeId, bytes: &[u8]) -> Result<Self, TreeError> {
        let codec = |source| TreeError::Codec { id, source };
        let shape = |reason| Err(TreeError::Shape { id, reason });
        // `[level, …]`: the second byte of a canonical node is its level.
        let level = bytes.get(1).copied().unwrap_or(0);
        let node = if level == 0 {
            let (_, entries): (u8, Vec<(ConfigPath, Entry)>) =
                codec::decode(bytes, MAX_OBJECT).map_err(codec)?;
            Self::Leaf(entries)
        } else {
            let (level, refs): (u8, Vec<EncodedRef>) = codec::decode(bytes, MAX_OBJECT).map_err(codec)?;
            Self::Inner { level, refs: refs.into_iter().map(Into::into).collect() }
        };
        let (count, sorted) = match &node {
            Self::Leaf(entries) => {
                for (path, entry) in entries {
                    entry.check_at(path).map_err(|source| TreeError::Link { path: path.clone(), source })?;
                }
                (entries.len(), entries.is_sorted_by(|(a, _), (b, _)| a < b))
            }
            Self::Inner { refs, .. } => (refs.len(), refs.is_sorted_by(|a, b| a.last < b.last)),
        };
        if node.level() > MAX_LEVEL {
            return shape("is above the highest level");
        }
        if count > NODE_MAX_ENTRIES {
            return shape("has too many entries");
        }
        if count == 0 && node != Self::EMPTY {
            return shape("is empty");
        }
        if !sorted {
            return shape("is out of order or names a path twice");
        }
        if node.totals().files > MAX_FILES {
            return shape("has more files than a bundle may have");
        }
        Ok(node)
    }
}

impl From<NodeRef> for EncodedRef {
    fn from(child: NodeRef) -> Self {
        let Totals { files, bytes } = child.totals;
        Self { last: child.last, id: child.id, files, bytes }
    }
}

impl From<EncodedRef> for NodeRef {
    fn from(child: EncodedRef) -> Self {
        let totals = Totals { files: child.files, bytes: child.bytes };
        Self { last: child.last, id: child.id, totals }
    }
}

/// Whether a node of this level ends after the item with this last path (specs/tree.md, T-7).
pub(super) fn ends_node(path: &ConfigPath, level: u8) -> bool {
    let hash = blake3::hash(path.as_str().as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    let bits = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    (bits >> (NODE_BITS * u32::from(level))) & ((1 << NODE_BITS) - 1) == 0
}
