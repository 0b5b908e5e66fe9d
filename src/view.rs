//! What a host's layers resolve to: file by file, a later layer wins a path
//! (specs/configuration.md, F-35 to F-38).

use crate::entry::Entry;
use crate::id::NodeId;
use crate::object::ObjectSource;
use crate::path::ConfigPath;
use crate::tree::{Changes, Tree, TreeError, diff, empty_root};
use std::collections::{BTreeMap, BTreeSet};

/// The trees of a host's layers, from the lowest to the highest.
pub struct Layers<'a, S: ?Sized>(Vec<Tree<'a, S>>);

impl<'a, S: ObjectSource + ?Sized> Layers<'a, S> {
    /// Opens the trees.
    pub fn open(source: &'a S, roots: &[NodeId]) -> Result<Self, TreeError> {
        Ok(Self(roots.iter().map(|root| Tree::open(source, *root)).collect::<Result<_, _>>()?))
    }

    /// The entry that wins a path.
    pub fn get(&self, path: &ConfigPath) -> Result<Option<Entry>, TreeError> {
        for layer in self.0.iter().rev() {
            if let Some(entry) = layer.get(path)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The whole view. Memory follows its number of files.
    ///
    /// Refuses layers that together make one path a file and a directory.
    pub fn resolve(&self) -> Result<BTreeMap<ConfigPath, Entry>, TreeError> {
        let mut view = BTreeMap::new();
        for layer in &self.0 {
            layer.walk::<TreeError>(|path, entry| {
                view.insert(path, entry);
                Ok(())
            })?;
        }
        for path in view.keys() {
            for parent in path.parents() {
                if let Some((file, _)) = view.get_key_value(parent) {
                    return Err(TreeError::FileAndDirectory { file: file.clone(), below: path.clone() });
                }
            }
        }
        Ok(view)
    }

    /// Refuses a changed path that is a file here and a directory there.
    fn check(&self, changes: &Changes) -> Result<(), TreeError> {
        for (path, _) in changes.iter().filter(|(_, entry)| entry.is_some()) {
            for parent in path.parents() {
                let Ok(parent) = ConfigPath::new(parent) else { continue };
                if self.get(&parent)?.is_some() {
                    return Err(TreeError::FileAndDirectory { file: parent, below: path.clone() });
                }
            }
            let beneath = format!("{path}/");
            for layer in &self.0 {
                if let Some((below, _)) =
                    layer.first_from(&beneath)?.filter(|(below, _)| path.is_above(below))
                {
                    return Err(TreeError::FileAndDirectory { file: path.clone(), below });
                }
            }
        }
        Ok(())
    }
}

/// What differs between the views that two lists of layers resolve to.
///
/// Reads what the layers differ in, not all that they hold.
pub fn changes<S: ObjectSource + ?Sized>(
    source: &S,
    old: &[NodeId],
    new: &[NodeId],
) -> Result<Changes, TreeError> {
    let (before, after) = (Layers::open(source, old)?, Layers::open(source, new)?);
    let none = Tree::open(source, empty_root())?;
    // A path that is the same in each pair resolves to the same entry, whatever the layers are called.
    let mut paths = BTreeSet::new();
    for at in 0..before.0.len().max(after.0.len()) {
        let (a, b) = (before.0.get(at).unwrap_or(&none), after.0.get(at).unwrap_or(&none));
        paths.extend(diff(a, b)?.into_iter().map(|change| change.path));
    }
    let mut changes = Changes::new();
    for path in paths {
        let entry = after.get(&path)?;
        if entry != before.get(&path)? {
            changes.insert(path, entry);
        }
    }
    after.check(&changes)?;
    Ok(changes)
}
