//! What an activation would do, without doing any of it (specs/activation.md, A-60).

use crate::books::Books;
use crate::change::{Change, services_of};
use crate::required::{Required, read_small};
use crate::secrets::Secrets;
use crate::services::{AFTER, BEFORE, Installer, Placing, ServiceError, VALIDATE};
use crate::{AgentConfig, AgentError, load_decryption_key};
use rootcast::activation::Generation;
use rootcast::entry::Entry;
use rootcast::id::NodeId;
use rootcast::limits::MAX_REFUSALS_NAMED;
use rootcast::object::ObjectSource;
use rootcast::path::{BundleName, ConfigPath};
use rootcast::plan::plan_bundle;
use rootcast::service::{Hook, Phase, Schedule, ServiceName};
use rootcast::tree::Tree;
use rootcast::view_rules::{ViewRules, view_rules_path};
use rootcast_replica::Held;
use rootcast_transport::PeerName;
use rootcast_view::{FileError, Variables, ViewError, Views};
use std::collections::BTreeMap;

/// What would become of a file of the live tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It would be there then.
    Added,
    /// It would be another.
    Changed,
    /// It would be gone.
    Removed,
}

impl Fate {
    /// As it is told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// What an activation would do.
#[derive(Debug)]
pub struct Foreseen {
    /// The files of the live tree that would be others.
    pub files: BTreeMap<ConfigPath, Fate>,
    /// Files of this host that cannot be made: the release would be refused. The first [`MAX_REFUSALS_NAMED`].
    pub wrong: Vec<FileError>,
    /// How many more there are.
    pub more_wrong: u64,
    /// The hooks that would run before the flip, in an order in which they may; services that do not wait
    /// for each other run at the same time.
    pub before: Vec<(ServiceName, Hook)>,
    /// What would be done at fixed places of the host with the flip.
    pub places: Vec<Placing>,
    /// The hooks that would run after the flip.
    pub after: Vec<(ServiceName, Hook)>,
    /// Why the release would be refused or rolled back, as far as that can be told: something that is not
    /// permitted, or a place that cannot be taken.
    pub refused: Option<ServiceError>,
}

type View = BTreeMap<ConfigPath, Entry>;

/// Whose views are resolved.
struct Host<'a> {
    objects: &'a dyn ObjectSource,
    variables: Variables,
    secrets: Secrets,
}

/// Foresees the activation of a held release in the place of what the books say is live.
///
/// # Errors
/// When what the release has for this host cannot be read, or is not all there.
pub fn foresee(
    objects: &dyn ObjectSource,
    held: &Held,
    books: &Books,
    (config, name): (&AgentConfig, &PeerName),
) -> Result<Foreseen, AgentError> {
    let labels = name.labels().of_host(name.name());
    let required = Required::of(held, objects, &labels)?;
    let variables = Variables { host: name.name().to_owned(), labels, facts: config.facts.clone() };
    let secrets = Secrets::new(load_decryption_key(&config.identity)?, None);
    let host = Host { objects, variables, secrets };
    let layers = required.layers.iter().map(|layer| held.bundles.root(layer).ok_or_else(|| layer.clone()));
    let (roots, missing): (Vec<_>, Vec<_>) = layers.partition(Result::is_ok);
    let missing: Vec<BundleName> = missing.into_iter().filter_map(Result::err).collect();
    if !missing.is_empty() {
        return Err(AgentError::Awaiting(missing));
    }
    let roots: Vec<NodeId> = roots.into_iter().flatten().collect();
    let (after, wrong) = host.view((&required.layers, &roots), &required.rules)?;
    // What cannot be read any more is as good as unknown: then everything counts as changed.
    let live = books.history.live();
    let known = live.and_then(|live| host.view_of(live).ok().zip(services_of(objects, live.plan).ok()));
    let (before, services_before) = known.unwrap_or_default();
    let files = differing(&before, &after);
    let services = services_of(objects, held.bundles.root(&plan_bundle()?))?;
    let mut change = Change {
        services,
        before: services_before,
        paths: files.keys().cloned().collect(),
        ..Change::default()
    };
    change.touch(|| Ok(after.keys().cloned().collect()))?;
    // What was left inconsistent runs with the next.
    change.touched.extend(books.journal.touched.iter().cloned());
    change.touched.retain(|name| change.services.get(name).is_some());
    let (places, refused) = places(&change, &after, &host, (config, books));
    let mut wrong = wrong.into_iter();
    Ok(Foreseen {
        before: [VALIDATE, BEFORE].into_iter().flat_map(|phases| hooks(&change, phases)).collect(),
        after: hooks(&change, AFTER),
        wrong: wrong.by_ref().take(MAX_REFUSALS_NAMED).collect(),
        more_wrong: wrong.count() as u64,
        files,
        places,
        refused,
    })
}

impl Host<'_> {
    /// A view without the secrets of other hosts, and which of its files cannot be made.
    fn view(
        &self,
        (names, roots): (&[BundleName], &[NodeId]),
        rules: &ViewRules,
    ) -> Result<(View, Vec<FileError>), AgentError> {
        let views = Views::open(self.objects, (names, roots), rules, &self.variables)?;
        let (mut view, mut wrong) = (views.layers().resolve()?, Vec::new());
        for (path, entry) in &mut view {
            if !rules.derives(path) {
                continue;
            }
            match views.get(path) {
                Ok(made) => *entry = made.unwrap_or_else(|| entry.clone()),
                Err(ViewError::File(error)) => wrong.push(*error),
                Err(ViewError::Tree(error)) => return Err(error.into()),
            }
        }
        self.secrets.filter(&mut view, self.objects)?;
        Ok((view, wrong))
    }

    fn view_of(&self, generation: &Generation) -> Result<View, AgentError> {
        let (names, roots): (Vec<_>, Vec<_>) = generation.layers.iter().cloned().unzip();
        let rules = match generation.plan {
            Some(plan) => read_small(&Tree::open(self.objects, plan)?, self.objects, &view_rules_path()?)?,
            None => None,
        };
        let rules = rules.map(|rules| ViewRules::decode(&rules)).transpose()?.unwrap_or_default();
        Ok(self.view((&names, &roots), &rules)?.0)
    }
}

fn differing(before: &View, after: &View) -> BTreeMap<ConfigPath, Fate> {
    let gone =
        before.keys().filter(|path| !after.contains_key(*path)).map(|path| (path.clone(), Fate::Removed));
    let come = after.iter().filter_map(|(path, entry)| match before.get(path) {
        None => Some((path.clone(), Fate::Added)),
        Some(was) => (was != entry).then(|| (path.clone(), Fate::Changed)),
    });
    gone.chain(come).collect()
}

/// The hooks of some phases of the services that run, each service after those that it waits for.
fn hooks(change: &Change, phases: &[Phase]) -> Vec<(ServiceName, Hook)> {
    let mut schedule = Schedule::new(&change.services, &change.touched, 1);
    let mut hooks = Vec::new();
    while let Some(name) = schedule.begin() {
        if let Some(service) = change.services.get(&name) {
            let own = phases.iter().flat_map(|phase| service.hooks(*phase));
            hooks.extend(own.map(|hook| (name.clone(), hook.clone())));
        }
        schedule.end(&name, true);
    }
    hooks
}

/// What would be installed, and what is in the way of the activation.
fn places(
    change: &Change,
    view: &View,
    host: &Host<'_>,
    (config, books): (&AgentConfig, &Books),
) -> (Vec<Placing>, Option<ServiceError>) {
    if change.is_quiet() {
        return (Vec::new(), None);
    }
    let is_there = |from: &ConfigPath| view.keys().any(|path| path == from || from.is_above(path));
    let wants = change.services.iter().filter(|service| {
        change.touched.contains(&service.name)
            || service.install.iter().any(|install| is_there(&install.from))
    });
    if let Err(refused) = config.allow.judge(wants) {
        return (Vec::new(), Some(refused));
    }
    let installer = Installer::new(books.directory().to_owned(), config.live.join("current"));
    match installer.foresee(&change.services, (view, host.objects), &config.allow) {
        Ok(places) => (places, None),
        Err(error) => (Vec::new(), Some(error)),
    }
}
