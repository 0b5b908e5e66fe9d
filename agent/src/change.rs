//! What an activation would do: which services it touches.

use crate::AgentError;
use crate::required::{Required, read_small};
use rootcast::activation::Generation;
use rootcast::id::NodeId;
use rootcast::object::ObjectSource;
use rootcast::path::ConfigPath;
use rootcast::plan::plan_bundle;
use rootcast::service::{Phase, Service, ServiceName, Services, services_path};
use rootcast::tree::Tree;
use rootcast::view::{self, Layers};
use rootcast_replica::Held;
use std::collections::{BTreeMap, BTreeSet};

/// What one generation in the place of another means for services.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The services of what is to be live.
    pub services: Services,
    /// The services of what was live.
    pub before: Services,
    /// Which of the first run.
    pub touched: BTreeSet<ServiceName>,
    /// The paths that differ, as far as they were looked at.
    pub paths: Vec<ConfigPath>,
}

impl Change {
    /// Whether services have nothing to do with it.
    pub fn is_quiet(&self) -> bool {
        let installs = |services: &Services| {
            services.iter().flat_map(|service| service.install.clone()).collect::<Vec<_>>()
        };
        self.touched.is_empty() && installs(&self.services) == installs(&self.before)
    }

    /// Whether a touched service has a hook in one of these phases.
    pub fn has_hooks(&self, phases: &[Phase]) -> bool {
        let touched = self.touched.iter().filter_map(|name| self.services.get(name));
        touched.into_iter().any(|service| phases.iter().any(|phase| service.hooks(*phase).next().is_some()))
    }

    /// Finds what is touched (configuration.md, F-91): the services that own one of the paths that differ; and those
    /// whose `install` is another than before, or that are new, if they own any of `all`.
    pub(crate) fn touch(
        &mut self,
        all: impl FnOnce() -> Result<Vec<ConfigPath>, AgentError>,
    ) -> Result<(), AgentError> {
        self.services.owners().add(&self.paths, &mut self.touched);
        let is_rewritten = |service: &&Service| {
            self.before.get(&service.name).is_none_or(|before| before.install != service.install)
                && !self.touched.contains(&service.name)
        };
        let rewritten = self.services.iter().filter(is_rewritten).map(|service| service.name.clone());
        let rewritten: Vec<ServiceName> = rewritten.collect();
        if !rewritten.is_empty() {
            let mut owners = BTreeSet::new();
            self.services.owners().add(&all()?, &mut owners);
            self.touched.extend(rewritten.into_iter().filter(|name| owners.contains(name)));
        }
        Ok(())
    }
}

/// The services that a tree of the bundle `plan` names.
///
/// # Errors
/// When they cannot be read.
pub(crate) fn services_of(objects: &dyn ObjectSource, plan: Option<NodeId>) -> Result<Services, AgentError> {
    let Some(plan) = plan else { return Ok(Services::default()) };
    let services = read_small(&Tree::open(objects, plan)?, objects, &services_path()?)?;
    Ok(services.map(|services| Services::decode(&services)).transpose()?.unwrap_or_default())
}

/// What a held release would change on a host with these labels, layer by layer: a file that is made of several is
/// told where one of them differs.
///
/// # Errors
/// When the release or its layers cannot be read.
pub fn change_of(
    objects: &dyn ObjectSource,
    held: &Held,
    labels: &BTreeMap<String, String>,
    live: Option<&Generation>,
) -> Result<Change, AgentError> {
    let layers = Required::of(held, objects, labels)?.layers;
    let new: Vec<NodeId> = layers.iter().filter_map(|layer| held.bundles.root(layer)).collect();
    let services = services_of(objects, held.bundles.root(&plan_bundle()?))?;
    let before = services_of(objects, live.and_then(|live| live.plan)).unwrap_or_default();
    let old: Option<Vec<NodeId>> = live.map(|live| live.layers.iter().map(|(_, root)| *root).collect());
    let differing = old.and_then(|old| view::changes(objects, &old, &new).ok());
    let all = || Ok::<_, AgentError>(Layers::open(objects, &new)?.resolve()?.into_keys().collect::<Vec<_>>());
    let paths = differing.map_or_else(all, |changes| Ok(changes.into_keys().collect()))?;
    let mut change = Change { services, before, touched: BTreeSet::new(), paths };
    change.touch(all)?;
    Ok(change)
}
