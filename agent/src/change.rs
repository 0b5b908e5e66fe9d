//! What an activation would do: which services it touches.

use crate::AgentError;
use crate::required::read_small;
use rootcast::id::NodeId;
use rootcast::object::ObjectSource;
use rootcast::path::ConfigPath;
use rootcast::service::{Phase, Service, ServiceName, Services, services_path};
use rootcast::tree::Tree;
use std::collections::BTreeSet;

/// What one generation in the place of another means for services.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
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
    pub(crate) fn is_quiet(&self) -> bool {
        let installs = |services: &Services| {
            services.iter().flat_map(|service| service.install.clone()).collect::<Vec<_>>()
        };
        self.touched.is_empty() && installs(&self.services) == installs(&self.before)
    }

    /// Whether a touched service has a hook in one of these phases.
    pub(crate) fn has_hooks(&self, phases: &[Phase]) -> bool {
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
