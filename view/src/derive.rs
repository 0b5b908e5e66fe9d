//! Views with rules: what a host's layers resolve to where files are merged and rendered
//! (specs/configuration.md, F-50 to F-53).

use crate::document::{Format, Node, Place};
use crate::error::{Fault, Flaw};
use crate::merge::{Merged, merge};
use crate::template::{Variables, render};
use bytes::Bytes;
use rootcast::entry::{Content, Entry};
use rootcast::id::{BlobId, NodeId, ObjectId};
use rootcast::object::{ObjectSource, ReadError};
use rootcast::path::{BundleName, ConfigPath};
use rootcast::tree::TreeError;
use rootcast::view::Layers;
use rootcast::view_rules::ViewRules;
use std::collections::BTreeMap;

/// A file that cannot be made of what the layers have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bundle `{bundle}`, {path}:{flaw}")]
pub struct FileError {
    /// The bundle whose version is wrong.
    pub bundle: BundleName,
    /// The file's path on the host.
    pub path: ConfigPath,
    /// What is wrong, and where in that version; or in what it renders to.
    pub flaw: Flaw,
}

/// A view could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The layers do not resolve.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A file cannot be made.
    #[error(transparent)]
    File(#[from] Box<FileError>),
}

impl From<ReadError> for ViewError {
    fn from(error: ReadError) -> Self {
        Self::Tree(error.into())
    }
}

/// A layer's version of a file.
#[derive(Debug, Clone)]
pub struct Version {
    /// The layer's bundle.
    pub bundle: BundleName,
    /// Its content.
    pub content: Bytes,
}

/// A file that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its content.
    pub content: Bytes,
    /// What a merged one says, each value with its place in one of the versions.
    pub node: Option<Node>,
    /// The bundles of the versions, by which places count.
    pub bundles: Vec<BundleName>,
}

/// Makes a file of its versions, from the lowest layer to the highest: each is
/// rendered where the rules say so, and then they are merged, or the highest is taken.
///
/// # Errors
/// Which version is wrong, and where.
pub fn derive(
    rules: &ViewRules,
    path: &ConfigPath,
    versions: &[Version],
    variables: &Variables,
) -> Result<Made, Box<FileError>> {
    let bundles = versions.iter().map(|version| version.bundle.clone()).collect();
    let Some(first) = versions.first() else {
        return Ok(Made { content: Bytes::new(), node: None, bundles });
    };
    let (content, node) = made_of(rules, path, versions, variables).map_err(|flaw| {
        let version = versions.get(flaw.place.layer).unwrap_or(first);
        Box::new(FileError { bundle: version.bundle.clone(), path: path.clone(), flaw })
    })?;
    Ok(Made { content, node, bundles })
}

fn made_of(
    rules: &ViewRules,
    path: &ConfigPath,
    versions: &[Version],
    variables: &Variables,
) -> Result<(Bytes, Option<Node>), Flaw> {
    let rule = rules.merge(path);
    let hidden = if rule.is_some() { 0 } else { versions.len().saturating_sub(1) };
    let is_template = rules.is_template(path);
    let mut contents = Vec::new();
    for (layer, version) in versions.iter().enumerate().skip(hidden) {
        contents.push(match is_template {
            true => render(&version.content, layer, variables)?,
            false => version.content.clone(),
        });
    }
    let Some(rule) = rule else {
        return Ok((contents.pop().unwrap_or_default(), None));
    };
    let first = Place { layer: 0, line: 1, column: 1 };
    let format = Format::of(path).ok_or_else(|| Flaw::new(first, Fault::NoFormat))?;
    let Merged { node, content } = merge(format, &contents, &rule.keys)?;
    Ok((content, Some(node)))
}

/// Layers, the rules for them, and whose view it is.
pub struct Views<'a> {
    objects: &'a dyn ObjectSource,
    layers: Layers<'a, dyn ObjectSource + 'a>,
    names: &'a [BundleName],
    rules: &'a ViewRules,
    variables: &'a Variables,
}

/// A resolved view.
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    /// All entries; those of derived files hold their content's id, which no store need have.
    pub entries: BTreeMap<ConfigPath, Entry>,
    /// The derived ones.
    pub derived: Derived,
}

/// Derived files with the id of their content and its size.
pub type Derived = BTreeMap<ConfigPath, (BlobId, u64)>;

impl<'a> Views<'a> {
    /// Opens the trees: `names` and `roots` from the lowest layer to the highest.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn open(
        objects: &'a dyn ObjectSource,
        (names, roots): (&'a [BundleName], &[NodeId]),
        rules: &'a ViewRules,
        variables: &'a Variables,
    ) -> Result<Self, TreeError> {
        Ok(Self { objects, layers: Layers::open(objects, roots)?, names, rules, variables })
    }

    /// The layers themselves.
    pub fn layers(&self) -> &Layers<'a, dyn ObjectSource + 'a> {
        &self.layers
    }

    /// The entry of a path.
    ///
    /// # Errors
    /// When it cannot be read or made.
    pub fn get(&self, path: &ConfigPath) -> Result<Option<Entry>, ViewError> {
        Ok(match self.layers.get(path)? {
            Some(Entry::File { executable, .. }) if self.rules.derives(path) => {
                let content = self.make(path)?.content;
                Some(entry_of(&content, executable))
            }
            entry => entry,
        })
    }

    /// Makes a derived file, with the place that each value is from.
    ///
    /// # Errors
    /// When a version cannot be read, or is wrong.
    pub fn make(&self, path: &ConfigPath) -> Result<Made, ViewError> {
        Ok(derive(self.rules, path, &self.versions(path)?, self.variables)?)
    }

    /// The versions that a derived file is made of: the files above the highest link or
    /// secret, which stands for itself and hides what is below it.
    fn versions(&self, path: &ConfigPath) -> Result<Vec<Version>, ViewError> {
        let mut versions = Vec::new();
        for (at, entry) in self.layers.versions(path)? {
            let Entry::File { content, .. } = entry else {
                versions.clear();
                continue;
            };
            let Some(bundle) = self.names.get(at).cloned() else { continue };
            match content {
                Content::Blob { id, .. } => {
                    versions.push(Version { bundle, content: self.objects.read(&id.into())? });
                }
                // Larger than one blob, and so than what is derived.
                Content::Chunked { size, .. } => {
                    let first = Place { layer: at, line: 1, column: 1 };
                    let flaw = Flaw::new(first, Fault::TooLarge { size });
                    return Err(Box::new(FileError { bundle, path: path.clone(), flaw }).into());
                }
            }
        }
        Ok(versions)
    }

    /// The whole view. Memory follows its number of files, not their content.
    ///
    /// # Errors
    /// When the layers do not resolve, or a file cannot be made.
    pub fn resolve(&self) -> Result<Resolved, ViewError> {
        let mut resolved = Resolved { entries: self.layers.resolve()?, derived: Derived::new() };
        if self.rules.is_empty() {
            return Ok(resolved);
        }
        for (path, entry) in &mut resolved.entries {
            if let Entry::File { executable, .. } = entry
                && self.rules.derives(path)
            {
                let content = self.make(path)?.content;
                *entry = entry_of(&content, *executable);
                resolved.derived.insert(path.clone(), (BlobId::of(&content), content.len() as u64));
            }
        }
        Ok(resolved)
    }
}

fn entry_of(content: &Bytes, executable: bool) -> Entry {
    let content = Content::Blob { id: BlobId::of(content), size: content.len() as u64 };
    Entry::File { content, executable }
}

/// Objects, with the derived files of a view among them: those are made again when they are read.
pub struct WithDerived<'a> {
    views: &'a Views<'a>,
    paths: BTreeMap<ObjectId, &'a ConfigPath>,
}

impl<'a> WithDerived<'a> {
    /// The objects of a view, and these of its derived files.
    pub fn new(views: &'a Views<'a>, derived: &'a Derived) -> Self {
        Self { views, paths: derived.iter().map(|(path, (id, _))| ((*id).into(), path)).collect() }
    }
}

impl ObjectSource for WithDerived<'_> {
    fn read(&self, id: &ObjectId) -> Result<Bytes, ReadError> {
        let Some(path) = self.paths.get(id) else { return self.views.objects.read(id) };
        let content = match self.views.make(path) {
            Ok(made) => made.content,
            Err(ViewError::Tree(TreeError::Read(error))) => return Err(error),
            Err(error) => return Err(ReadError::Failed { id: *id, reason: error.to_string() }),
        };
        if id.matches(&content) { Ok(content) } else { Err(ReadError::Damaged(*id)) }
    }
}
