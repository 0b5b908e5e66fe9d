//! The views of known hosts, tried before anything is signed (specs/configuration.md, F-65 and F-66).

use crate::checking::Checking;
use crate::compile::CompileError;
use crate::config::Rootcast;
use crate::targets::Delivered;
use rootcast::codec;
use rootcast::entry::Entry;
use rootcast::id::NodeId;
use rootcast::layers::{BASE_BUNDLE, LayerPattern};
use rootcast::object::ObjectSource;
use rootcast::path::{BundleName, ConfigPath};
use rootcast::plan::{Plan, base_bundle, plan_bundle};
use rootcast::settings::SettingsError;
use rootcast::tree::{Tree, TreeError};
use rootcast_view::{Variables, ViewError, Views};
use std::collections::{BTreeMap, BTreeSet};

/// The bundles of a release with their trees.
pub type Roots = BTreeMap<BundleName, NodeId>;

impl Rootcast {
    /// The plan of a release with these bundles.
    fn plan_of(&self, bundles: &Roots) -> Plan {
        let layers = match &self.layers {
            Some(layers) => layers.clone(),
            None => LayerPattern::parse(BASE_BUNDLE).into_iter().collect(),
        };
        Plan { layers, bundles: bundles.keys().cloned().collect() }
    }

    /// Where the file of a bundle is in the source.
    pub fn source_path(&self, bundle: &BundleName, path: &ConfigPath) -> String {
        match &self.layers {
            Some(_) => format!("{bundle}/{path}"),
            None => path.to_string(),
        }
    }
}

/// A release's bundles and its plan.
struct Release<'a> {
    roots: &'a Roots,
    plan: Plan,
}

impl<'a> Release<'a> {
    fn of(settings: &Rootcast, roots: &'a Roots) -> Self {
        Self { roots, plan: settings.plan_of(roots) }
    }

    /// The layers of a host, from the lowest to the highest.
    fn layers_of(&self, host: &Variables) -> (Vec<BundleName>, Vec<NodeId>) {
        let names = self.plan.view(&host.labels);
        let roots = names.iter().filter_map(|name| self.roots.get(name).copied()).collect();
        (names, roots)
    }
}

/// Tries what every known host makes of these bundles. With `before`, the bundles of a release
/// that was tried under the same settings, only what differs from it.
pub(crate) fn try_hosts(
    settings: &Rootcast,
    checking: &mut Checking<'_>,
    objects: &dyn ObjectSource,
    before: Option<&Roots>,
    after: &Roots,
) -> Result<(), CompileError> {
    // What is made of the same versions without a host's names is made once.
    let mut merged = BTreeSet::new();
    let mut resolved: BTreeMap<Vec<NodeId>, Vec<ConfigPath>> = BTreeMap::new();
    let (before, after) = (before.map(|roots| Release::of(settings, roots)), Release::of(settings, after));
    for host in &settings.hosts {
        let (names, roots) = after.layers_of(host);
        let views = open(objects, (&names, &roots), settings, host)?;
        let paths = match &before {
            Some(before) => differing(settings, objects, (before, &views), host)?,
            None => match resolved.get(&roots) {
                Some(paths) => Ok(paths.clone()),
                None => views.layers().resolve().map(|entries| entries.into_keys().collect()),
            },
        };
        let paths: Vec<ConfigPath> = match paths {
            Ok(paths) => paths,
            Err(error @ TreeError::FileAndDirectory { .. }) => {
                checking.findings.add(error.to_string(), Some(&host.host));
                continue;
            }
            Err(source) => return Err(failed(source)),
        };
        let derived = paths.iter().filter(|path| settings.views.derives(path));
        for path in derived {
            let versions = views.layers().versions(path).map_err(failed)?;
            let made_once = !settings.views.is_template(path);
            let entries: Vec<_> = versions.into_iter().map(|(_, entry)| entry).collect();
            let key = (path.clone(), codec::encode(&entries));
            if entries.is_empty() || (made_once && !merged.insert(key)) {
                continue;
            }
            try_file(settings, checking, &views, path, host)?;
        }
        if before.is_none() {
            resolved.insert(roots.clone(), paths);
        }
    }
    Ok(())
}

/// What of the settings has no effect, as no file is under it (F-44 and F-99).
pub(crate) fn without_effect(
    settings: &Rootcast,
    objects: &dyn ObjectSource,
    roots: &Roots,
) -> Result<Vec<SettingsError>, CompileError> {
    let release = Release::of(settings, roots);
    let known: BTreeSet<BundleName> =
        settings.hosts.iter().flat_map(|host| release.plan.view(&host.labels)).collect();
    let mut files = Vec::new();
    for (bundle, root) in roots.iter().filter(|(name, _)| plan_bundle().as_ref() != Ok(*name)) {
        let is_known = settings.hosts.is_empty() || known.contains(bundle);
        let walked = Tree::open(objects, *root).and_then(|tree| {
            tree.walk::<TreeError>(|path, entry| {
                let is_link = matches!(entry, Entry::Symlink { .. });
                // All of them were read from there.
                if let Ok(source) = ConfigPath::new(&settings.source_path(bundle, &path)) {
                    files.push(Delivered { source, path, is_known, is_link });
                }
                Ok(())
            })
        });
        walked.map_err(|source| CompileError::Tree { bundle: bundle.clone(), source })?;
    }
    let mut found = settings.secrets.unused(files.iter().map(|file| &file.source));
    found.extend(settings.targets.missed(&files, !settings.hosts.is_empty()));
    found.sort_by_key(|told| (told.line, told.column));
    Ok(found)
}

fn failed(source: TreeError) -> CompileError {
    match base_bundle() {
        Ok(bundle) => CompileError::Tree { bundle, source },
        Err(error) => error.into(),
    }
}

fn open<'v>(
    objects: &'v dyn ObjectSource,
    layers: (&'v [BundleName], &[NodeId]),
    settings: &'v Rootcast,
    host: &'v Variables,
) -> Result<Views<'v>, CompileError> {
    Views::open(objects, layers, &settings.views, host).map_err(failed)
}

/// The paths at which a host's layers differ from those it had, none of which may be a file and a directory.
fn differing(
    settings: &Rootcast,
    objects: &dyn ObjectSource,
    (before, after): (&Release<'_>, &Views<'_>),
    host: &Variables,
) -> Result<Result<Vec<ConfigPath>, TreeError>, CompileError> {
    let (names, roots) = before.layers_of(host);
    let before = open(objects, (&names, &roots), settings, host)?;
    let differing = before.layers().differing(after.layers()).map_err(failed)?;
    let changes: Result<rootcast::tree::Changes, TreeError> =
        differing.iter().map(|path| Ok((path.clone(), after.layers().get(path)?))).collect();
    let checked = changes.and_then(|changes| after.layers().check(&changes));
    Ok(checked.map(|()| differing.into_iter().collect()))
}

fn try_file(
    settings: &Rootcast,
    checking: &mut Checking<'_>,
    views: &Views<'_>,
    path: &ConfigPath,
    host: &Variables,
) -> Result<(), CompileError> {
    // A link or secret stands for itself.
    let Some(Entry::File { .. }) = views.layers().get(path).map_err(failed)? else { return Ok(()) };
    match views.make(path) {
        Ok(made) => {
            // Places in what was rendered are none of the source.
            let node = made.node.as_ref().filter(|_| !settings.views.is_template(path));
            let file = |layer: usize| match made.bundles.get(layer) {
                Some(bundle) => settings.source_path(bundle, path),
                None => path.to_string(),
            };
            Ok(checking.made(path, (&made.content, node), file, &host.host)?)
        }
        Err(ViewError::File(error)) => {
            let at = settings.source_path(&error.bundle, &error.path);
            let rendered = settings.views.is_template(path)
                && !matches!(error.flaw.fault, rootcast_view::Fault::Template(_));
            let how = if rendered { " as it is rendered" } else { "" };
            checking.findings.add(format!("{at}{how}:{}", error.flaw), Some(&host.host));
            Ok(())
        }
        Err(ViewError::Tree(source)) => Err(failed(source)),
    }
}
