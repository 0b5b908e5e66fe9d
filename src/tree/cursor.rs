//! A position among the nodes of one level, moving either way.

use super::TreeError;
use super::node::{Node, NodeRef};
use crate::entry::Entry;
use crate::object::ObjectSource;
use crate::path::ConfigPath;

/// Walks the nodes of `level` of a tree without reading more than the inner
/// nodes on the way.
pub(super) struct Cursor<'a, S: ?Sized> {
    source: &'a S,
    root: Option<NodeRef>,
    root_level: u8,
    level: u8,
    /// From the root down: siblings, and which of them. The last pair holds nodes of `level`.
    stack: Vec<(Vec<NodeRef>, usize)>,
}

impl<'a, S: ObjectSource + ?Sized> Cursor<'a, S> {
    pub(super) fn new(source: &'a S, root: Option<NodeRef>, root_level: u8, level: u8) -> Self {
        Self { source, root, root_level, level, stack: Vec::new() }
    }

    fn descend(&mut self, choose: impl Fn(&[NodeRef]) -> usize) -> Result<(), TreeError> {
        loop {
            let level = self.root_level + 1 - self.stack.len() as u8;
            if level <= self.level {
                return Ok(());
            }
            let Some(child) = self.current() else { return Ok(()) };
            match Node::read_child(self.source, child, level)? {
                Node::Inner { refs, .. } => {
                    let chosen = choose(&refs).min(refs.len().saturating_sub(1));
                    self.stack.push((refs, chosen));
                }
                Node::Leaf(_) => return Ok(()),
            }
        }
    }

    fn start(&mut self) -> bool {
        self.stack.clear();
        match (&self.root, self.level <= self.root_level) {
            (Some(root), true) => {
                self.stack.push((vec![root.clone()], 0));
                true
            }
            _ => false,
        }
    }

    /// Goes to the first node. False when there is none.
    pub(super) fn first(&mut self) -> Result<bool, TreeError> {
        if !self.start() {
            return Ok(false);
        }
        self.descend(|_| 0)?;
        Ok(true)
    }

    /// Goes to the node that holds `path` or would: the first whose last path
    /// is not before it, or else the last node. False when there is none.
    pub(super) fn seek<K: Ord + ?Sized>(&mut self, path: &K) -> Result<bool, TreeError>
    where
        ConfigPath: core::borrow::Borrow<K>,
    {
        use core::borrow::Borrow;
        if !self.start() {
            return Ok(false);
        }
        self.descend(|refs| refs.partition_point(|child| child.last.borrow() < path))?;
        Ok(true)
    }

    /// The node here.
    pub(super) fn current(&self) -> Option<&NodeRef> {
        self.stack.last().and_then(|(refs, at)| refs.get(*at))
    }

    /// Goes to the next node of the level. False, and no move, at the end.
    pub(super) fn advance(&mut self) -> Result<bool, TreeError> {
        let can = |(refs, at): &(Vec<NodeRef>, usize)| at + 1 < refs.len();
        let Some(depth) = self.stack.iter().rposition(can) else { return Ok(false) };
        self.stack.truncate(depth + 1);
        if let Some((_, at)) = self.stack.last_mut() {
            *at += 1;
        }
        self.descend(|_| 0)?;
        Ok(true)
    }

    /// Goes to the node before. False, and no move, at the beginning.
    pub(super) fn retreat(&mut self) -> Result<bool, TreeError> {
        let Some(depth) = self.stack.iter().rposition(|(_, at)| *at > 0) else {
            return Ok(false);
        };
        self.stack.truncate(depth + 1);
        if let Some((_, at)) = self.stack.last_mut() {
            *at -= 1;
        }
        self.descend(|refs| refs.len())?;
        Ok(true)
    }

    /// Reads the node here.
    pub(super) fn node(&self) -> Result<Node, TreeError> {
        match self.current() {
            Some(child) => Node::read_child(self.source, child, self.level),
            None => Ok(Node::EMPTY),
        }
    }

    /// Reads the leaf here; the cursor is of level 0.
    pub(super) fn leaf(&self) -> Result<Vec<(ConfigPath, Entry)>, TreeError> {
        match self.node()? {
            Node::Leaf(entries) => Ok(entries),
            Node::Inner { .. } => Ok(Vec::new()),
        }
    }
}
