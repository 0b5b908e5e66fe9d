//! Changing a tree: only the nodes on the way to a change are read and written.

use super::cursor::Cursor;
use super::node::{Node, NodeRef, ends_node};
use super::{Totals, Tree, TreeError, empty_root};
use crate::entry::Entry;
use crate::id::NodeId;
use crate::limits::{MAX_LEVEL, NODE_MAX_ENTRIES};
use crate::object::{ObjectSink, ObjectSource};
use crate::path::ConfigPath;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// What to change: a new entry for a path, or none.
pub type Changes = BTreeMap<ConfigPath, Option<Entry>>;

/// Applies `changes` to the tree at `root`, writes the new nodes to `sink` and
/// returns the new root with its totals.
///
/// The same content gives the same root whatever tree it started from. Refuses
/// a tree in which one path is both a file and a directory.
pub fn update<S: ObjectSource + ?Sized, W: ObjectSink + ?Sized>(
    source: &S,
    root: NodeId,
    changes: &Changes,
    sink: &mut W,
) -> Result<(NodeId, Totals), TreeError> {
    let tree = Tree::open(source, root)?;
    if changes.is_empty() {
        return Ok((root, tree.totals()));
    }
    check_directories(&tree, changes)?;
    for (path, entry) in changes {
        if let Some(entry) = entry {
            entry.check_at(path).map_err(|source| TreeError::Link { path: path.clone(), source })?;
        }
    }
    let mut writer = Writer { sink, inner: BTreeMap::new() };
    let entries = changes.iter().map(|(path, entry)| (path.clone(), entry.clone())).collect();
    let mut spliced = splice::<Entry, S, W>(&tree, 0, entries, &mut writer)?;
    let mut level = 0;
    while level < tree.level && tree.root.is_some() {
        let refs = spliced.changed();
        if refs.is_empty() {
            return Ok((root, tree.totals()));
        }
        level += 1;
        spliced = splice::<NodeRef, S, W>(&tree, level, refs, &mut writer)?;
    }
    let nodes: Vec<NodeRef> = spliced.written.into_values().collect();
    writer.top(source, nodes, level)
}

/// Looks forward through a tree: one leaf is held, so that ascending paths read each once.
struct Leaves<'a, S: ?Sized> {
    cursor: Cursor<'a, S>,
    entries: Vec<(ConfigPath, Entry)>,
}

impl<S: ObjectSource + ?Sized> Leaves<'_, S> {
    fn first_from(&mut self, path: &str) -> Result<Option<ConfigPath>, TreeError> {
        let covers = self.entries.first().is_some_and(|(first, _)| first.as_str() <= path)
            && self.entries.last().is_some_and(|(last, _)| path <= last.as_str());
        if !covers {
            if !self.cursor.seek(path)? {
                return Ok(None);
            }
            self.entries = self.cursor.leaf()?;
        }
        let at = self.entries.partition_point(|(at, _)| at.as_str() < path);
        Ok(self.entries.get(at).map(|(at, _)| at.clone()))
    }
}

/// Refuses what would make one path both a file and a directory.
fn check_directories<S: ObjectSource + ?Sized>(
    tree: &Tree<'_, S>,
    changes: &Changes,
) -> Result<(), TreeError> {
    let mut clear = BTreeSet::new();
    let mut leaves = Leaves { cursor: tree.cursor(0), entries: Vec::new() };
    for (path, _) in changes.iter().filter(|(_, entry)| entry.is_some()) {
        for parent in path.parents() {
            if !clear.insert(parent.to_owned()) {
                continue;
            }
            let Ok(parent) = ConfigPath::new(parent) else { continue };
            let is_entry = match changes.get(&parent) {
                Some(entry) => entry.is_some(),
                None => tree.get(&parent)?.is_some(),
            };
            if is_entry {
                return Err(TreeError::FileAndDirectory { file: parent, below: path.clone() });
            }
        }
        // What the changes put beneath `path` meets the check above; here is what they leave there.
        let mut from = format!("{path}/");
        while let Some(below) = leaves.first_from(&from)?.filter(|below| path.is_above(below)) {
            if !matches!(changes.get(&below), Some(None)) {
                return Err(TreeError::FileAndDirectory { file: path.clone(), below });
            }
            from = format!("{below}\0");
        }
    }
    Ok(())
}

/// An item of a level: an entry of level 0, or a child of a higher one.
trait Item: Clone {
    fn node(level: u8, items: Vec<(ConfigPath, Self)>) -> Node;
    fn items(node: Node) -> Vec<(ConfigPath, Self)>;
}

impl Item for Entry {
    fn node(_: u8, items: Vec<(ConfigPath, Self)>) -> Node {
        Node::Leaf(items)
    }
    fn items(node: Node) -> Vec<(ConfigPath, Self)> {
        match node {
            Node::Leaf(entries) => entries,
            Node::Inner { .. } => Vec::new(),
        }
    }
}

impl Item for NodeRef {
    fn node(level: u8, items: Vec<(ConfigPath, Self)>) -> Node {
        Node::Inner { level, refs: items.into_iter().map(|(_, child)| child).collect() }
    }
    fn items(node: Node) -> Vec<(ConfigPath, Self)> {
        match node {
            Node::Inner { refs, .. } => refs.into_iter().map(|child| (child.last.clone(), child)).collect(),
            Node::Leaf(_) => Vec::new(),
        }
    }
}

/// Writes nodes, and keeps the inner ones to find the topmost that is needed.
struct Writer<'w, W: ?Sized> {
    sink: &'w mut W,
    inner: BTreeMap<NodeId, Vec<NodeRef>>,
}

impl<W: ObjectSink + ?Sized> Writer<'_, W> {
    fn write(&mut self, node: Node) -> Result<Option<NodeRef>, TreeError> {
        let encoded = node.encode();
        let id = NodeId::of(&encoded);
        let reference = node.reference(id);
        if reference.is_some() {
            self.sink.write(id.into(), Bytes::from(encoded))?;
        }
        if let Node::Inner { refs, .. } = node {
            self.inner.insert(id, refs);
        }
        Ok(reference)
    }

    /// Builds levels over `nodes`, all that there are of `level`, up to one root.
    fn top<S: ObjectSource + ?Sized>(
        &mut self,
        source: &S,
        mut nodes: Vec<NodeRef>,
        mut level: u8,
    ) -> Result<(NodeId, Totals), TreeError> {
        while nodes.len() > 1 {
            level += 1;
            if level > MAX_LEVEL {
                return Err(TreeError::TooDeep);
            }
            let mut builder = Builder::new(level);
            for child in nodes {
                builder.push(child.last.clone(), child, self)?;
            }
            nodes = builder.finish(self)?;
        }
        let Some(mut root) = nodes.pop() else {
            return Ok((empty_root(), Totals::default()));
        };
        // A root with one child is not needed: the lowest level with one node is the root.
        while level > 0 {
            let refs = match self.inner.remove(&root.id) {
                Some(refs) => refs,
                // Kept from the old tree as it was: it may have one child itself.
                None => match Node::read_child(source, &root, level)? {
                    Node::Inner { refs, .. } => refs,
                    Node::Leaf(_) => break,
                },
            };
            let [only] = refs.as_slice() else { break };
            root = only.clone();
            level -= 1;
        }
        Ok((root.id, root.totals))
    }
}

/// Cuts a run of items into nodes (specs/tree.md, T-7).
struct Builder<I> {
    level: u8,
    items: Vec<(ConfigPath, I)>,
    written: Vec<NodeRef>,
    /// Whether the last item pushed was no boundary, so that what follows belongs to its run.
    open: bool,
}

impl<I: Item> Builder<I> {
    fn new(level: u8) -> Self {
        Self { level, items: Vec::new(), written: Vec::new(), open: false }
    }

    fn push<W: ObjectSink + ?Sized>(
        &mut self,
        path: ConfigPath,
        item: I,
        writer: &mut Writer<'_, W>,
    ) -> Result<(), TreeError> {
        self.open = !ends_node(&path, self.level);
        self.items.push((path, item));
        if !self.open || self.items.len() == NODE_MAX_ENTRIES { self.cut(writer) } else { Ok(()) }
    }

    fn cut<W: ObjectSink + ?Sized>(&mut self, writer: &mut Writer<'_, W>) -> Result<(), TreeError> {
        let items = core::mem::take(&mut self.items);
        self.written.extend(writer.write(I::node(self.level, items))?);
        Ok(())
    }

    fn finish<W: ObjectSink + ?Sized>(
        mut self,
        writer: &mut Writer<'_, W>,
    ) -> Result<Vec<NodeRef>, TreeError> {
        if !self.items.is_empty() {
            self.cut(writer)?;
        }
        Ok(self.written)
    }
}

/// What changing a level did to its nodes, by last path.
#[derive(Default)]
struct Spliced {
    replaced: BTreeMap<ConfigPath, NodeRef>,
    written: BTreeMap<ConfigPath, NodeRef>,
}

impl Spliced {
    /// The change to the level above.
    fn changed(self) -> BTreeMap<ConfigPath, Option<NodeRef>> {
        let Self { replaced, written } = self;
        let mut changes: BTreeMap<_, _> = replaced.keys().map(|last| (last.clone(), None)).collect();
        for (last, child) in written {
            if replaced.get(&last) == Some(&child) {
                changes.remove(&last);
            } else {
                changes.insert(last, Some(child));
            }
        }
        changes
    }
}

/// Applies changes to the items of one level: around each change, the run of
/// nodes from the boundary before it to where old and new cuts meet again.
fn splice<I: Item, S: ObjectSource + ?Sized, W: ObjectSink + ?Sized>(
    tree: &Tree<'_, S>,
    level: u8,
    changes: BTreeMap<ConfigPath, Option<I>>,
    writer: &mut Writer<'_, W>,
) -> Result<Spliced, TreeError> {
    let mut spliced = Spliced::default();
    let mut changes = changes.into_iter().peekable();
    let mut nodes = tree.cursor(level);
    while let Some((path, _)) = changes.peek() {
        let mut builder = Builder::new(level);
        let mut more = nodes.seek(path)?;
        if more {
            rewind(&mut nodes, level)?;
        }
        while more {
            if let Some(old) = nodes.current() {
                spliced.replaced.insert(old.last.clone(), old.clone());
            }
            for (path, item) in I::items(nodes.node()?) {
                while let Some((before, change)) = changes.next_if(|(change, _)| *change < path) {
                    if let Some(new) = change {
                        builder.push(before, new, writer)?;
                    }
                }
                match changes.next_if(|(change, _)| *change == path) {
                    Some((_, None)) => {}
                    Some((_, Some(new))) => builder.push(path, new, writer)?,
                    None => builder.push(path, item, writer)?,
                }
            }
            let run_ended = nodes.current().is_some_and(|old| ends_node(&old.last, level));
            if run_ended && !builder.open {
                break;
            }
            more = nodes.advance()?;
        }
        // Past the last node, what is left of the changes follows.
        let at_end =
            nodes.current().is_none_or(|last| changes.peek().is_some_and(|(next, _)| *next > last.last));
        if (!more || at_end) && is_last(&mut nodes)? {
            for (path, change) in changes.by_ref() {
                if let Some(new) = change {
                    builder.push(path, new, writer)?;
                }
            }
        }
        for child in builder.finish(writer)? {
            spliced.written.insert(child.last.clone(), child);
        }
    }
    Ok(spliced)
}

/// Whether no node of the level follows. Moves the cursor if one does.
fn is_last<S: ObjectSource + ?Sized>(nodes: &mut Cursor<'_, S>) -> Result<bool, TreeError> {
    Ok(nodes.current().is_none() || !nodes.advance()?)
}

/// Goes back to the first node of the run that a boundary began: nodes that
/// the cap alone cut are cut anew when anything before them changes.
fn rewind<S: ObjectSource + ?Sized>(nodes: &mut Cursor<'_, S>, level: u8) -> Result<(), TreeError> {
    while nodes.retreat()? {
        if nodes.current().is_some_and(|before| ends_node(&before.last, level)) {
            nodes.advance()?;
            break;
        }
    }
    Ok(())
}
