//! What an activation would do: which services it touches.

use rootcast::path::ConfigPath;
use rootcast::service::{Phase, Service, ServiceName, Services};
use std::collections::BTreeSet;

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

    /// Adds the services that own one of the paths that differ.
    pub(crate) fn touch(&mut self) {
        self.services.owners().add(&self.paths, &mut self.touched);
    }

    /// Services whose `install` is another than before, or that are new: they are touched if they own any file.
    pub(crate) fn rewritten(&self) -> Vec<&Service> {
        let is_rewritten = |service: &&Service| {
            self.before.get(&service.name).is_none_or(|before| before.install != service.install)
                && !self.touched.contains(&service.name)
        };
        self.services.iter().filter(is_rewritten).collect()
    }
}
