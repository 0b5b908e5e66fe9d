//! From a source to a release: only what changed is read and hashed.

use crate::checking::{Checking, Findings};
use crate::config::{ConfigError, LimitExceeded, Misplaced, Rootcast};
use crate::seal::{SealError, Sealer};
use crate::source::{Change, Changes, FileKind, Source, SourceError, SourceFile};
use crate::trying::{Roots, try_hosts, without_effect};
use bytes::Bytes;
use rootcast::acceptance::Accepted;
use rootcast::chunking;
use rootcast::cose::DocumentKind;
use rootcast::edit::{self, EditError};
use rootcast::entry::Entry;
use rootcast::id::{BlobId, Chain, EditHash, NodeId};
use rootcast::layers::{LayerError, LayerPattern, PLAN_BUNDLE};
use rootcast::limits::{MAX_BLOB, MAX_BUNDLES, MAX_SECRET};
use rootcast::merkle;
use rootcast::object::{ObjectSource, WriteError};
use rootcast::path::{BundleName, ChannelName, ConfigPath, LinkTarget, PathError};
use rootcast::plan::{Plan, base_bundle, plan_bundle, plan_path};
use rootcast::protocol::Publication;
use rootcast::release::{BundleLeaf, Release};
use rootcast::service::services_path;
use rootcast::settings::SettingsError;
use rootcast::tree::{self, Totals, Tree, TreeError, empty_root};
use rootcast::view_rules::view_rules_path;
use rootcast_keys::{KeyError, Signer};
use rootcast_replica::{Held, Replica, ReplicaError};
use rootcast_store::{Batch, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use zeroize::Zeroizing;

/// A source could not be compiled. Nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The source cannot be read, or holds what cannot be delivered.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Its settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A bundle is over a limit.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// A directory cannot be a bundle.
    #[error(transparent)]
    Misplaced(#[from] Misplaced),
    /// A link leaves its bundle.
    #[error("{path}: {source}")]
    Link {
        /// The link.
        path: ConfigPath,
        /// Why it is refused.
        source: PathError,
    },
    /// A file that is marked secret cannot be one.
    #[error("{path} {source}")]
    Secret {
        /// The file, from the source's root.
        path: ConfigPath,
        /// Why.
        source: SealError,
    },
    /// Files that are wrong, or that hosts cannot use.
    #[error(transparent)]
    Checks(#[from] Findings),
    /// A tree could not be built.
    #[error("bundle `{bundle}`: {source}")]
    Tree {
        /// The bundle.
        bundle: BundleName,
        /// Why.
        source: TreeError,
    },
    /// An edit could not be made.
    #[error("bundle `{bundle}`: {source}")]
    Edit {
        /// The bundle.
        bundle: BundleName,
        /// Why.
        source: EditError,
    },
    /// Nothing at all, where there was something.
    #[error(
        "the source has no files to deliver, and publishing it would remove all {files} files on every host"
    )]
    Empty {
        /// Files of the release before.
        files: u64,
    },
    /// More bundles than one plan can name.
    #[error(
        "the release has {bundles} bundles, whose names fill {size} bytes; the plan holds at most {MAX_BLOB}"
    )]
    TooManyBundles {
        /// How many.
        bundles: usize,
        /// Bytes of the plan.
        size: usize,
    },
    /// A new object could not be kept.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The bundler's own store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bundler's own replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The release could not be signed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A fixed name is not one.
    #[error(transparent)]
    Name(#[from] PathError),
    /// A fixed layer is not one.
    #[error(transparent)]
    Layer(#[from] LayerError),
}

/// What a long compilation is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading and hashing files.
    Read,
    /// Making the edits of bundles.
    Encode,
}

/// Told how far a stage is: done, and in all.
pub type Progress = dyn Fn(Stage, u64, u64) + Send + Sync;

/// A source compiled: the bundles it gives, their trees in the store.
pub struct Compiled {
    bundles: BTreeMap<BundleName, (NodeId, Totals)>,
    commit: Vec<u8>,
    warnings: Vec<SettingsError>,
}

/// What a process published last, and under which settings.
#[derive(Clone)]
pub struct LastPublished {
    /// The settings.
    pub settings: Rootcast,
    /// The release.
    pub accepted: Accepted,
}

/// A signed release and its edits, offered to nobody yet.
pub struct Signed {
    /// What the origin is told.
    pub publication: Publication,
    /// The edits of the bundles that changed, in the order of the bundles.
    pub edits: Vec<Bytes>,
    /// The release's number.
    pub number: u64,
    /// Files put or removed, those of the plan not counted.
    pub files_changed: u64,
    /// What of the settings has no effect, as no file is under it (configuration.md, F-44 and F-99).
    pub warnings: Vec<SettingsError>,
}

/// A release that is compiled, with its edits, and not signed yet.
pub struct Unsigned {
    /// What is to be signed: an encoded release.
    pub payload: Bytes,
    /// All its leaves, in name order.
    pub leaves: Vec<BundleLeaf>,
    /// For each leaf whose bundle changed, its edit.
    pub edits: Vec<Option<Bytes>>,
    /// The channel.
    pub channel: ChannelName,
    /// The release's number.
    pub number: u64,
    /// Files put or removed, those of the plan not counted.
    pub files_changed: u64,
    /// As in [`Signed`].
    pub warnings: Vec<SettingsError>,
}

/// A release in the making, on top of what a replica holds: what it is compiled
/// from. [`crate::Publisher`] makes one and offers it.
pub struct Making<'a> {
    /// The source, at the commit to publish.
    pub source: &'a Source,
    /// Its settings.
    pub settings: &'a Rootcast,
    /// The publisher's own replica of the channel.
    pub replica: &'a Replica,
    /// What encrypts its secrets.
    pub sealer: &'a Sealer,
    /// When, in seconds since 1970.
    pub issued: u64,
    /// What this process published last; a directory is read whole without it.
    pub last: Option<&'a LastPublished>,
    /// Whether a source without any file may follow one that had some.
    pub allow_empty: bool,
    /// Told how far it is.
    pub progress: &'a Progress,
}

/// Compiles the source; its objects are durable in the replica's store afterwards.
fn compile(making: &Making<'_>) -> Result<Compiled, CompileError> {
    let Making { source, settings, replica, last, allow_empty, .. } = *making;
    let held = replica.held();
    let since = held.as_ref().map(|held| held.bundles.release().release().commit.clone());
    let same_settings = match &since {
        // What changed in a directory can be told only since our own last look at it.
        Some(since) if since.is_empty() => last.is_some_and(|last| {
            source.commit().is_empty()
                && last.settings == *settings
                && held.as_ref().is_some_and(|held| held.accepted() == last.accepted)
        }),
        Some(since) => settings_at(source, since).as_ref() == Some(settings),
        None => false,
    };
    let unknown = [0; 20];
    let changes = match &since {
        Some(since) if same_settings => source.changes(since)?,
        // What is no commit of the source gives the whole listing.
        _ => source.changes(&unknown)?,
    };
    // Under another schema, what did not change is checked as well.
    let schemas = &settings.checks.schemas;
    let is_schema = |change: &Change| schemas.iter().any(|rule| rule.schema == *change.path());
    let changes = match changes {
        Changes::Since(some) if some.iter().any(is_schema) => source.changes(&unknown)?,
        changes => changes,
    };
    let mut checking = Checking::new(source, settings);
    let mut compiled = Compiled {
        bundles: held.as_deref().map(bundles_of).unwrap_or_default(),
        commit: source.commit().to_vec(),
        warnings: Vec::new(),
    };
    let mut batch = replica.store().begin()?;
    let mut new = read(making, &changes, &mut checking, &mut *batch)?;
    if let Changes::Full(_) = changes {
        remove_unlisted(replica, &compiled.bundles, &mut new)?;
    }
    let base = base_bundle()?;
    if settings.layers.is_none() {
        new.entry(base.clone()).or_default();
    }
    let objects: &dyn ObjectSource = &**replica.store();
    for (bundle, changes) in new {
        let old = compiled.bundles.get(&bundle).map_or_else(empty_root, |(root, _)| *root);
        let failed = |source| CompileError::Tree { bundle: bundle.clone(), source };
        let (root, totals) = tree::update(objects, old, &changes, &mut *batch).map_err(failed)?;
        settings.limits.check(&bundle, totals.files, totals.bytes)?;
        // A bundle without files is no bundle; only `base` of a repository without layers stays.
        if totals.files > 0 || (bundle == base && settings.layers.is_none()) {
            compiled.bundles.insert(bundle, (root, totals));
        } else {
            compiled.bundles.remove(&bundle);
        }
    }
    let had = held.as_deref().map(bundles_of).as_ref().map_or(0, files);
    let has = files(&compiled.bundles);
    if had > 0 && has == 0 && !allow_empty {
        return Err(CompileError::Empty { files: had });
    }
    add_plan(settings, &mut compiled, objects, &mut *batch)?;
    batch.commit(replica.store().floors())?;
    let before = held.as_deref().map(bundles_of).filter(|_| matches!(changes, Changes::Since(_)));
    let (before, after) = (before.as_ref().map(roots), roots(&compiled.bundles));
    try_hosts(settings, &mut checking, objects, before.as_ref(), &after)?;
    checking.findings.into_result()?;
    if takes_from_settings(settings, &changes) {
        compiled.warnings = without_effect(settings, objects, &after)?;
    }
    Ok(compiled)
}

fn roots(bundles: &BTreeMap<BundleName, (NodeId, Totals)>) -> Roots {
    bundles.iter().map(|(name, (root, _))| (name.clone(), *root)).collect()
}

/// Whether something that the settings name may have no file any more, or never had one.
fn takes_from_settings(settings: &Rootcast, changes: &Changes) -> bool {
    if settings.secrets.is_empty() && settings.targets.are_none() {
        return false;
    }
    let Changes::Since(changes) = changes else { return true };
    changes.iter().any(|change| match change {
        Change::Put(_) => false,
        Change::Remove(source) => settings.place(source).is_some_and(|(_, path)| {
            settings.secrets.recipients(source).is_some() || settings.targets.have(&path)
        }),
    })
}

/// Files of all bundles but the plan.
fn files(bundles: &BTreeMap<BundleName, (NodeId, Totals)>) -> u64 {
    let delivered = bundles.iter().filter(|(name, _)| name.as_str() != PLAN_BUNDLE);
    delivered.map(|(_, (_, totals))| totals.files).sum()
}

fn bundles_of(held: &Held) -> BTreeMap<BundleName, (NodeId, Totals)> {
    held.bundles.leaves().values().map(|leaf| (leaf.name.clone(), (leaf.root, leaf.totals()))).collect()
}

/// The settings that the release before was compiled with, where they can be told.
fn settings_at(source: &Source, commit: &[u8]) -> Option<Rootcast> {
    Rootcast::read(&source.at(commit).ok()?).ok()
}

/// Reads the files that changed and stores their content.
fn read(
    making: &Making<'_>,
    changes: &Changes,
    checking: &mut Checking<'_>,
    batch: &mut dyn Batch,
) -> Result<BTreeMap<BundleName, tree::Changes>, CompileError> {
    let Making { source, settings, progress, .. } = *making;
    let mut new: BTreeMap<BundleName, tree::Changes> = BTreeMap::new();
    let (puts, removed): (Vec<&SourceFile>, Vec<&ConfigPath>) = match changes {
        Changes::Full(files) => (files.iter().collect(), Vec::new()),
        Changes::Since(changes) => {
            let puts = changes.iter().filter_map(|change| match change {
                Change::Put(file) => Some(file),
                Change::Remove(_) => None,
            });
            let removed = changes.iter().filter(|change| matches!(change, Change::Remove(_)));
            (puts.collect(), removed.map(Change::path).collect())
        }
    };
    for path in removed {
        if let Some((bundle, path)) = settings.place(path) {
            new.entry(bundle).or_default().insert(path, None);
        }
    }
    let total = puts.len() as u64;
    for (done, file) in puts.into_iter().enumerate() {
        if let Some(misplaced) = settings.misplaced(&file.path) {
            return Err(misplaced.into());
        }
        let Some((bundle, path)) = settings.place(&file.path) else { continue };
        if let Some(secret) = secret(making, file, &path, checking, batch)? {
            new.entry(bundle).or_default().insert(path, Some(secret));
            progress(Stage::Read, done as u64 + 1, total);
            continue;
        }
        let bytes = source.read(file)?;
        if file.kind != FileKind::Symlink {
            checking.file(&file.path, &path, &bytes)?;
        }
        let entry = match file.kind {
            FileKind::Symlink => Entry::Symlink { target: link(&file.path, &path, &bytes)? },
            kind => Entry::File {
                content: chunking::store(Bytes::from(bytes), batch)?,
                executable: kind == FileKind::Executable,
            },
        };
        new.entry(bundle).or_default().insert(path, Some(entry));
        progress(Stage::Read, done as u64 + 1, total);
    }
    Ok(new)
}

/// The entry of a file that is marked secret; `None` for all others.
fn secret(
    making: &Making<'_>,
    file: &SourceFile,
    path: &ConfigPath,
    checking: &mut Checking<'_>,
    batch: &mut dyn Batch,
) -> Result<Option<Entry>, CompileError> {
    let Some(recipients) = making.settings.secrets.recipients(&file.path) else { return Ok(None) };
    let failed = |source| CompileError::Secret { path: file.path.clone(), source };
    match file.kind {
        FileKind::Symlink => return Err(failed(SealError::Link)),
        FileKind::Executable => return Err(failed(SealError::Executable)),
        FileKind::Regular if file.size > MAX_SECRET => {
            return Err(failed(SealError::TooLarge { size: file.size }));
        }
        FileKind::Regular => {}
    }
    let plaintext = Zeroizing::new(making.source.read(file)?);
    checking.secret(&file.path, path, &plaintext);
    let sealed = making.sealer.seal(&plaintext, &recipients).map_err(|error| failed(error.into()))?;
    let (id, size) = (BlobId::of(&sealed), sealed.len() as u64);
    batch.write(id.into(), Bytes::from(sealed))?;
    Ok(Some(Entry::Secret { id, size }))
}

fn link(at: &ConfigPath, path: &ConfigPath, target: &[u8]) -> Result<LinkTarget, CompileError> {
    let target = String::from_utf8_lossy(target);
    LinkTarget::new(path, &target).map_err(|source| CompileError::Link { path: at.clone(), source })
}

/// After a whole listing: what the trees have and it has not is removed.
fn remove_unlisted(
    replica: &Replica,
    bundles: &BTreeMap<BundleName, (NodeId, Totals)>,
    new: &mut BTreeMap<BundleName, tree::Changes>,
) -> Result<(), CompileError> {
    let objects: &dyn ObjectSource = &**replica.store();
    for (bundle, (root, _)) in bundles.iter().filter(|(name, _)| plan_bundle().as_ref() != Ok(*name)) {
        let changes = new.entry(bundle.clone()).or_default();
        let failed = |source| CompileError::Tree { bundle: bundle.clone(), source };
        let walked = Tree::open(objects, *root).and_then(|tree| {
            tree.walk::<TreeError>(|path, entry| {
                // What is there unchanged is no change.
                if changes.get(&path) == Some(&Some(entry)) {
                    changes.remove(&path);
                } else {
                    changes.entry(path).or_insert(None);
                }
                Ok(())
            })
        });
        walked.map_err(failed)?;
    }
    Ok(())
}

/// The plan of the bundles there are now, and what else hosts need to know; none for a repository
/// without layers of which they need to know nothing (F-30).
fn add_plan(
    settings: &Rootcast,
    compiled: &mut Compiled,
    objects: &dyn ObjectSource,
    batch: &mut dyn Batch,
) -> Result<(), CompileError> {
    let name = plan_bundle()?;
    compiled.bundles.retain(|bundle, _| *bundle != name);
    let rules = rules(settings)?;
    let layers = match &settings.layers {
        Some(layers) => layers.clone(),
        None if rules.is_empty() => return Ok(()),
        None => vec![LayerPattern::base()?],
    };
    let bundles: BTreeSet<BundleName> = compiled.bundles.keys().cloned().collect();
    let plan = Plan { layers, bundles };
    let (encoded, count) = (plan.encode(), plan.bundles.len());
    if encoded.len() as u64 > MAX_BLOB || count >= MAX_BUNDLES {
        return Err(CompileError::TooManyBundles { bundles: count, size: encoded.len() });
    }
    let mut changes = tree::Changes::new();
    for (path, bytes) in rules.into_iter().chain([(plan_path()?, encoded)]) {
        let content = chunking::store(Bytes::from(bytes), batch)?;
        changes.insert(path, Some(Entry::File { content, executable: false }));
    }
    let failed = |source| CompileError::Tree { bundle: name.clone(), source };
    let tree = tree::update(objects, empty_root(), &changes, batch).map_err(failed)?;
    compiled.bundles.insert(name, tree);
    Ok(())
}

/// The files of the plan's bundle beside the plan itself. Each is at most a settings file long, so one blob.
fn rules(settings: &Rootcast) -> Result<Vec<(ConfigPath, Vec<u8>)>, CompileError> {
    let mut rules = Vec::new();
    if !settings.views.is_empty() {
        rules.push((view_rules_path()?, settings.views.encode()));
    }
    if !settings.services.is_empty() {
        rules.push((services_path()?, settings.services.encode()));
    }
    Ok(rules)
}

impl Making<'_> {
    /// Compiles and signs.
    ///
    /// # Errors
    /// See [`CompileError`]; nothing was signed then.
    pub fn make(&self, signer: &Signer) -> Result<Signed, CompileError> {
        self.sign(&self.compile()?, signer)
    }

    /// Compiles the source; what is new of it is durable in the replica's store afterwards.
    ///
    /// # Errors
    /// When the source cannot be read or delivered, or the store fails.
    pub fn compile(&self) -> Result<Compiled, CompileError> {
        compile(self)
    }

    /// Makes the next release of what was compiled, with its edits, and signs it.
    ///
    /// # Errors
    /// When an edit cannot be made, or the key is not usable.
    pub fn sign(&self, compiled: &Compiled, signer: &Signer) -> Result<Signed, CompileError> {
        self.unsigned(compiled)?.sign(signer)
    }

    /// Makes the next release of what was compiled, with its edits.
    ///
    /// # Errors
    /// When an edit cannot be made.
    pub fn unsigned(&self, compiled: &Compiled) -> Result<Unsigned, CompileError> {
        unsigned(self, compiled)
    }
}

impl Unsigned {
    /// Signs it.
    ///
    /// # Errors
    /// When the key is not usable.
    pub fn sign(self, signer: &Signer) -> Result<Signed, CompileError> {
        let document = signer.sign(DocumentKind::Release, &self.payload)?;
        Ok(self.signed(document.into()))
    }

    /// With the signatures that it has got.
    pub fn signed(self, document: Bytes) -> Signed {
        let lengths: Vec<_> =
            self.edits.iter().map(|edit| edit.as_ref().map(|edit| edit.len() as u64)).collect();
        let publication =
            Publication { channel: self.channel, release: document, leaves: self.leaves, edits: lengths };
        let edits = self.edits.into_iter().flatten().collect();
        let Self { number, files_changed, warnings, .. } = self;
        Signed { publication, edits, number, files_changed, warnings }
    }
}

/// Files that the release before has in bundles that are no more.
fn files_gone(held: Option<&Held>, compiled: &Compiled) -> u64 {
    let leaves = held.into_iter().flat_map(|held| held.bundles.leaves().values());
    let gone = leaves.filter(|leaf| leaf.name.as_str() != PLAN_BUNDLE);
    gone.filter(|leaf| !compiled.bundles.contains_key(&leaf.name)).map(|leaf| leaf.files).sum()
}

fn unsigned(making: &Making<'_>, compiled: &Compiled) -> Result<Unsigned, CompileError> {
    let Making { settings, replica, issued, progress, .. } = *making;
    let held = replica.held();
    let objects: &dyn ObjectSource = &**replica.store();
    let (mut leaves, mut edits) = (Vec::new(), Vec::new());
    let mut files_changed = files_gone(held.as_deref(), compiled);
    for (done, (name, (root, totals))) in compiled.bundles.iter().enumerate() {
        let before = held.as_ref().and_then(|held| held.bundles.leaf(name));
        let old = before.map_or_else(empty_root, |leaf| leaf.root);
        if let Some(before) = before.filter(|before| before.root == *root) {
            leaves.push(before.clone());
            edits.push(None);
            continue;
        }
        let failed = |source| CompileError::Edit { bundle: name.clone(), source };
        let edit = edit::encode((objects, old), (objects, *root)).map_err(failed)?;
        if name.as_str() != PLAN_BUNDLE {
            let done = edit::summary(&edit).map_err(failed)?;
            files_changed += done.added + done.copied + done.replaced + done.mode_changed + done.deleted;
        }
        let chain = before.map_or(Chain::START, |leaf| leaf.chain).next(&EditHash::of(&edit));
        let sequence = before.map_or(0, |leaf| leaf.sequence) + 1;
        let Totals { files, bytes } = *totals;
        leaves.push(BundleLeaf { name: name.clone(), sequence, root: *root, chain, files, bytes });
        edits.push(Some(Bytes::from(edit)));
        progress(Stage::Encode, done as u64 + 1, compiled.bundles.len() as u64);
    }
    let hashes: Vec<_> = leaves.iter().map(BundleLeaf::hash).collect();
    let previous = held.as_ref().map(|held| held.accepted());
    let number = previous.map_or(0, |previous| previous.number) + 1;
    // A channel without a grant is refused before anything is compiled.
    let epoch = replica.trust().newest().trust().grant(&settings.channel).map_or(1, |grant| grant.epoch);
    let release = Release {
        channel: settings.channel.clone(),
        epoch,
        number,
        previous: previous.map(|previous| previous.hash),
        bundles_root: merkle::root(&hashes),
        bundles: leaves.len() as u64,
        files: leaves.iter().map(|leaf| leaf.files).sum(),
        bytes: leaves.iter().map(|leaf| leaf.bytes).sum(),
        commit: Bytes::copy_from_slice(&compiled.commit),
        issued,
    };
    let (channel, warnings) = (settings.channel.clone(), compiled.warnings.clone());
    Ok(Unsigned { payload: release.encode().into(), leaves, edits, channel, number, files_changed, warnings })
}
