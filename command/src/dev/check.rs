//! Whether what is on a host's disk is what a commit says, from the files
//! themselves: neither side asks an agent.

use crate::failure::{Exit, Failure};
use bytes::Bytes;
use rootcast::chunking;
use rootcast::entry::Entry;
use rootcast::id::{BlobId, NodeId, ObjectId};
use rootcast::object::{ObjectMap, ObjectSink, WriteError};
use rootcast::path::{BundleName, ConfigPath, LinkTarget};
use rootcast::tree::{self, Changes as TreeChanges, empty_root};
use rootcast_bundler::config::Rootcast;
use rootcast_bundler::source::{Changes, FileKind, Source, SourceFile};
use rootcast_view::{Variables, Version, derive};
use std::collections::BTreeMap;
use std::path::Path;

/// A host's labels.
pub(super) type Labels = BTreeMap<String, String>;

/// Hashes are wanted, not the objects.
struct Discard;

impl ObjectSink for Discard {
    fn write(&mut self, _: ObjectId, _: Bytes) -> Result<(), WriteError> {
        Ok(())
    }
}

fn failed(error: impl ToString) -> Failure {
    Failure::new(Exit::Failure, error.to_string())
}

fn listing(source: &Source) -> Result<Vec<SourceFile>, Failure> {
    // What is no commit of the source gives the whole listing.
    match source.changes(&[0; 20])? {
        Changes::Full(files) => Ok(files),
        Changes::Since(_) => Err(failed("a source gave changes where its whole listing was wanted")),
    }
}

fn entry(source: &Source, file: &SourceFile, path: &ConfigPath) -> Result<Entry, Failure> {
    let bytes = source.read(file)?;
    if file.kind == FileKind::Symlink {
        let target = LinkTarget::new(path, &String::from_utf8_lossy(&bytes)).map_err(failed)?;
        return Ok(Entry::Symlink { target });
    }
    let content = chunking::store(Bytes::from(bytes), &mut Discard).map_err(failed)?;
    Ok(Entry::File { content, executable: file.kind == FileKind::Executable })
}

/// Stands for a secret, whatever it holds.
const SECRET: Entry = Entry::Secret { id: BlobId::from_bytes([0; 32]), size: 0 };

fn root(view: BTreeMap<ConfigPath, Entry>) -> Result<NodeId, Failure> {
    let changes: TreeChanges = view.into_iter().map(|(path, entry)| (path, Some(entry))).collect();
    let (root, _) = tree::update(&ObjectMap::new(), empty_root(), &changes, &mut Discard).map_err(failed)?;
    Ok(root)
}

/// What layers have at a path, by their rank: a file's content, or what stands for itself.
type Versions = BTreeMap<usize, (BundleName, Option<Bytes>)>;

/// What a host makes of a file. The hosts of a development platform declare no facts.
fn made(
    settings: &Rootcast,
    path: &ConfigPath,
    versions: &Versions,
    labels: &Labels,
) -> Result<Bytes, Failure> {
    let mut files = Vec::new();
    for (bundle, content) in versions.values().cloned() {
        match content {
            Some(content) => files.push(Version { bundle, content }),
            None => files.clear(),
        }
    }
    let host = labels.get("host").cloned().unwrap_or_default();
    let variables = Variables { host, labels: labels.clone(), ..Variables::default() };
    derive(&settings.views, path, &files, &variables).map(|made| made.content).map_err(failed)
}

/// The root of what a host with these labels should have of a source.
pub(super) fn expected(source: &Source, labels: &Labels) -> Result<NodeId, Failure> {
    let settings = Rootcast::read(source).map_err(failed)?;
    let rank: Option<BTreeMap<BundleName, usize>> = settings.layers.as_ref().map(|layers| {
        let bundles = layers.iter().enumerate();
        bundles.filter_map(|(at, layer)| layer.bundle_for(labels).map(|bundle| (bundle, at))).collect()
    });
    let mut view: BTreeMap<ConfigPath, (usize, Entry)> = BTreeMap::new();
    let mut versions: BTreeMap<ConfigPath, Versions> = BTreeMap::new();
    for file in listing(source)? {
        let Some((bundle, path)) = settings.place(&file.path) else { continue };
        let rank = match &rank {
            None => 0,
            Some(ranks) => match ranks.get(&bundle) {
                Some(rank) => *rank,
                None => continue,
            },
        };
        let is_secret = settings.secrets.recipients(&file.path).is_some();
        if settings.views.derives(&path) {
            let is_file = !is_secret && file.kind != FileKind::Symlink;
            let content = is_file.then(|| source.read(&file)).transpose()?.map(Bytes::from);
            versions.entry(path.clone()).or_default().insert(rank, (bundle, content));
        }
        if view.get(&path).is_none_or(|(below, _)| *below <= rank) {
            let entry = if is_secret { SECRET } else { entry(source, &file, &path)? };
            view.insert(path, (rank, entry));
        }
    }
    for (path, (_, entry)) in &mut view {
        if let (Entry::File { content, .. }, Some(versions)) = (entry, versions.get(path)) {
            let made = made(&settings, path, versions, labels)?;
            *content = chunking::store(made, &mut Discard).map_err(failed)?;
        }
    }
    // The hosts of a development platform have keys of their own, which no settings name.
    view.retain(|_, (_, entry)| !matches!(entry, Entry::Secret { .. }));
    root(view.into_iter().map(|(path, (_, entry))| (path, entry)).collect())
}

/// The root of what is on a host's disk under `current`; `None` where nothing is live.
pub(super) fn on_disk(live: &Path) -> Result<Option<NodeId>, Failure> {
    // The link is resolved once, so that a flip in between cannot mix two generations.
    let Ok(current) = std::fs::canonicalize(live.join("current")) else { return Ok(None) };
    let source = Source::open_directory(&current)?;
    let mut view = BTreeMap::new();
    for file in listing(&source)? {
        let entry = entry(&source, &file, &file.path)?;
        view.insert(file.path.clone(), entry);
    }
    root(view).map(Some)
}
