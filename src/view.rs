//! What a host's layers resolve to: file by file, a later layer wins a path
//! (specs/configuration.md, F-35 to F-38).

use crate::entry::Entry;
use crate::id::NodeId;
use crate::object::ObjectSource;
use crate::path::ConfigPath;
use crate::tree::{Changes, Tree, TreeError, diff, empty_root};
use std::collections::{BTreeMap, BTreeSet};

/// The trees of a host's layers, from the lowest to the highest.
pub struct Layers<'a, S: ?Sized> {
    source: &'a S,
    trees: Vec<Tree<'a, S>>,
}

impl<'a, S: ObjectSource + ?Sized> Layers<'a, S> {
    /// Opens the trees.
    pub fn open(source: &'a S, roots: &[NodeId]) -> Result<Self, TreeError> {
        let trees = roots.iter().map(|root| Tree::open(source, *root)).collect::<Result<_, _>>()?;
        Ok(Self { source, trees })
    }

    /// The entry that wins a path.
    pub fn get(&self, path: &ConfigPath) -> Result<Option<Entry>, TreeError> {
        for layer in self.trees.iter().rev() {
            if let Some(entry) = layer.get(path)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// What each layer has at a path, with the layer's number from the lowest, 0, on.
    ///
    /// # Errors
    /// When a tree cannot be read.
    pub fn versions(&self, path: &ConfigPath) -> Result<Vec<(usize, Entry)>, TreeError> {
        let mut versions = Vec::new();
        for (at, layer) in self.trees.iter().enumerate() {
            versions.extend(layer.get(path)?.map(|entry| (at, entry)));
        }
        Ok(versions)
    }

    /// The part of the view at a path and beneath it; all where it is empty. That no path is a file and a directory
    /// is not looked at. Costs what is there, and the depth of the trees.
    ///
    /// # Errors
    /// When a tree cannot be read.
    pub fn below(&self, path: &str) -> Result<BTreeMap<ConfigPath, Entry>, TreeError> {
        let mut view = BTreeMap::new();
        for layer in &self.trees {
            layer.walk_below::<TreeError>(path, |path, entry| {
                view.insert(path, entry);
                Ok(())
            })?;
        }
        Ok(view)
    }

    /// The whole view. Memory follows its number of files.
    ///
    /// Refuses layers that together make one path a file and a directory.
    pub fn resolve(&self) -> Result<BTreeMap<ConfigPath, Entry>, TreeError> {
        let view = self.below("")?;
        for path in view.keys() {
            for parent in path.parents() {
                if let Some((file, _)) = view.get_key_value(parent) {
                    return Err(TreeError::FileAndDirectory { file: file.clone(), below: path.clone() });
                }
            }
        }
        Ok(view)
    }

    /// The paths at which the layers differ, taken pair by pair in order: at all
    /// others, both resolve to the same entries whatever the layers are called (F-38).
    ///
    /// # Errors
    /// When a tree cannot be read.
    pub fn differing(&self, other: &Self) -> Result<BTreeSet<ConfigPath>, TreeError> {
        let none = Tree::open(self.source, empty_root())?;
        let mut paths = BTreeSet::new();
        for at in 0..self.trees.len().max(other.trees.len()) {
            let (a, b) = (self.trees.get(at).unwrap_or(&none), other.trees.get(at).unwrap_or(&none));
            paths.extend(diff(a, b)?.into_iter().map(|change| change.path));
        }
        Ok(paths)
    }

    /// Refuses a changed path that is a file here and a directory there.
    ///
    /// # Errors
    /// Which they are; or when a tree cannot be read.
    pub fn check(&self, changes: &Changes) -> Result<(), TreeError> {
        for (path, _) in changes.iter().filter(|(_, entry)| entry.is_some()) {
            for parent in path.parents() {
                let Ok(parent) = ConfigPath::new(parent) else { continue };
                if self.get(&parent)?.is_some() {
                    return Err(TreeError::FileAndDirectory { file: parent, below: path.clone() });
                }
            }
            let beneath = format!("{path}/");
            for layer in &self.trees {
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
    let mut changes = Changes::new();
    for path in before.differing(&after)? {
        let entry = after.get(&path)?;
        if entry != before.get(&path)? {
            changes.insert(path, entry);
        }
    }
    after.check(&changes)?;
    Ok(changes)
}
