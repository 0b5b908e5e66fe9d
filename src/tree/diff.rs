//! The difference of two trees; subtrees that are equal are never read.

use super::node::{Node, NodeRef};
use super::{Tree, TreeError};
use crate::entry::Entry;
use crate::object::ObjectSource;
use crate::path::ConfigPath;

/// One path at which two trees differ. At least one side has an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeChange {
    /// The path.
    pub path: ConfigPath,
    /// How many entries of the old tree come before this path.
    pub position: u64,
    /// The entry in the old tree.
    pub old: Option<Entry>,
    /// The entry in the new tree.
    pub new: Option<Entry>,
}

/// All paths at which `old` and `new` differ, in path order.
///
/// Reads a number of nodes that follows the number of differences, not the
/// size of the trees.
pub fn diff<A, B>(old: &Tree<'_, A>, new: &Tree<'_, B>) -> Result<Vec<TreeChange>, TreeError>
where
    A: ObjectSource + ?Sized,
    B: ObjectSource + ?Sized,
{
    let mut changes = Vec::new();
    let mut old = Side::new(old);
    let mut new = Side::new(new);
    let mut position = 0;
    loop {
        match (old.head.as_ref(), new.head.as_ref()) {
            (None, None) => return Ok(changes),
            (Some(Head::Node(a, _)), Some(Head::Node(b, _))) if a.id == b.id => {
                position += a.totals.files;
                old.pop();
                new.pop();
            }
            // Open the higher of two nodes first, so that equal subtrees meet at their own level.
            (Some(Head::Node(_, a)), Some(Head::Node(_, b))) => {
                let (a, b) = (*a, *b);
                if a >= b {
                    old.open()?;
                }
                if b >= a {
                    new.open()?;
                }
            }
            (Some(Head::Node(..)), _) => old.open()?,
            (_, Some(Head::Node(..))) => new.open()?,
            (a, b) => {
                let (a, b) = (a.and_then(Head::entry), b.and_then(Head::entry));
                let (take_old, take_new) = match (a, b) {
                    (Some((a, _)), Some((b, _))) => (a <= b, b <= a),
                    (a, b) => (a.is_some(), b.is_some()),
                };
                let before = if take_old { old.pop() } else { None };
                let after = if take_new { new.pop() } else { None };
                let differ = before != after;
                let (before, after) = (before.and_then(Head::into_entry), after.and_then(Head::into_entry));
                let path = before.as_ref().or(after.as_ref()).map(|(path, _)| path.clone());
                if let (true, Some(path)) = (differ, path) {
                    let (old, new) = (before.map(|(_, e)| e), after.map(|(_, e)| e));
                    changes.push(TreeChange { path, position, old, new });
                }
                position += u64::from(take_old);
            }
        }
    }
}

#[derive(PartialEq)]
enum Head {
    Node(NodeRef, u8),
    Entry(ConfigPath, Entry),
}

impl Head {
    fn entry(&self) -> Option<(&ConfigPath, &Entry)> {
        match self {
            Self::Entry(path, entry) => Some((path, entry)),
            Self::Node(..) => None,
        }
    }
    fn into_entry(self) -> Option<(ConfigPath, Entry)> {
        match self {
            Self::Entry(path, entry) => Some((path, entry)),
            Self::Node(..) => None,
        }
    }
}

/// What is left of one tree: the next item, and behind it the rest in reverse.
struct Side<'a, S: ?Sized> {
    source: &'a S,
    head: Option<Head>,
    rest: Vec<Head>,
}

impl<'a, S: ObjectSource + ?Sized> Side<'a, S> {
    fn new(tree: &Tree<'a, S>) -> Self {
        let head = tree.root.clone().map(|root| Head::Node(root, tree.level));
        Self { source: tree.source, head, rest: Vec::new() }
    }

    fn pop(&mut self) -> Option<Head> {
        let next = self.rest.pop();
        core::mem::replace(&mut self.head, next)
    }

    /// Puts what the node at the head holds in its place.
    fn open(&mut self) -> Result<(), TreeError> {
        if let Some(Head::Node(child, level)) = self.pop() {
            self.rest.extend(self.head.take());
            match Node::read_child(self.source, &child, level)? {
                Node::Leaf(entries) => {
                    self.rest.extend(entries.into_iter().rev().map(|(path, entry)| Head::Entry(path, entry)));
                }
                Node::Inner { refs, .. } => {
                    let below = level.saturating_sub(1);
                    self.rest.extend(refs.into_iter().rev().map(|child| Head::Node(child, below)));
                }
            }
            self.head = self.rest.pop();
        }
        Ok(())
    }
}
