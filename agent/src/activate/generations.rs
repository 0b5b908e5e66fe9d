//! Generations of a host: what one is made of, and what it means for services that it comes in
//! the place of another.

use super::{Activation, Made, changed};
use crate::AgentError;
use crate::change::{Change, services_of};
use crate::required::{Required, read_small};
use rootcast::activation::Generation;
use rootcast::entry::{Content, Entry};
use rootcast::object::ObjectSource;
use rootcast::path::ConfigPath;
use rootcast::plan::{plan_bundle, plan_path};
use rootcast::service::Services;
use rootcast::tree::{Tree, TreeError};
use rootcast::view_rules::{ViewRules, view_rules_path};
use rootcast_replica::Held;
use std::sync::Arc;

impl Activation {
    /// What a held release would be as a generation of this host.
    ///
    /// # Errors
    /// [`AgentError::Awaiting`], where bundles are missing.
    pub(crate) fn generation(&self, held: &Held, required: &Required) -> Result<Generation, AgentError> {
        let layers = required.layers.iter().map(|name| (name, held.bundles.root(name)));
        let (mut there, mut missing) = (Vec::new(), Vec::new());
        for (name, root) in layers {
            match root {
                Some(root) => there.push((name.clone(), root)),
                None => missing.push(name.clone()),
            }
        }
        if !missing.is_empty() {
            return Err(AgentError::Awaiting(missing));
        }
        let plan = held.bundles.root(&plan_bundle()?);
        let mut rules = Vec::new();
        if let Some(plan) = plan {
            let own = plan_path()?;
            Tree::open(&**self.replica.store(), plan)?.walk::<TreeError>(|path, entry| {
                if let Entry::File { content: Content::Blob { id, .. }, .. } = entry
                    && path != own
                {
                    rules.push(id);
                }
                Ok(())
            })?;
        }
        let (release, since) = (held.accepted(), self.replica.machine().seconds());
        Ok(Generation { number: 0, release, plan, rules, layers: there, since, replaced: 0 })
    }

    /// The services of a generation.
    pub(super) fn services(&self, generation: &Generation) -> Result<Services, AgentError> {
        let objects: &dyn ObjectSource = &**self.replica.store();
        services_of(objects, generation.plan)
    }

    /// What it means for services that `to` comes in the place of `from`. Blocking.
    ///
    /// # Errors
    /// When what `to` has cannot be read.
    pub(crate) fn change(&self, from: Option<&Generation>, to: &Generation) -> Result<Change, AgentError> {
        let (services, store) = (self.services(to)?, self.replica.store().clone());
        // What cannot be read any more is as good as unknown: then everything counts as changed.
        let readable = |generation: &&Generation| match self.services(generation) {
            Ok(_) => true,
            Err(error) => {
                tracing::info!(%error, "what was live cannot be compared; all services run");
                false
            }
        };
        let from = from.filter(readable);
        let before = from.map_or_else(|| Ok(Services::default()), |from| self.services(from))?;
        let mut change = Change { services, before, ..Change::default() };
        if change.services.is_empty() && change.before.is_empty() {
            return Ok(change);
        }
        let (new, objects): (_, &dyn ObjectSource) = (self.made(to)?, &*store);
        let differing = from.map(|from| self.made(from).and_then(|old| self.differing(&old, &new, objects)));
        let all = || {
            let views = new.views(objects, &self.variables)?;
            Ok::<_, AgentError>(self.view(&new, &views, objects)?.0.into_keys().collect::<Vec<_>>())
        };
        change.paths = match differing {
            Some(Ok(differing)) => differing,
            None | Some(Err(_)) => all()?,
        };
        change.touch(all)?;
        Ok(change)
    }

    /// Paths of which two views have different entries.
    fn differing(
        &self,
        from: &Made,
        to: &Made,
        objects: &dyn ObjectSource,
    ) -> Result<Vec<ConfigPath>, AgentError> {
        let (before, after) = (from.views(objects, &self.variables)?, to.views(objects, &self.variables)?);
        if from.rules != to.rules {
            let (old, mut new) = (before.resolve()?.entries, after.resolve()?.entries);
            let mut paths = Vec::new();
            for (path, entry) in old {
                if new.remove(&path).as_ref() != Some(&entry) {
                    paths.push(path);
                }
            }
            paths.extend(new.into_keys());
            return Ok(paths);
        }
        let known = self.active.as_ref().filter(|active| active.of.is_same(from));
        let derived = known.map_or_else(
            || Ok(before.resolve()?.derived),
            |active| Ok::<_, AgentError>(active.derived.clone()),
        )?;
        Ok(changed(&before, &derived, &after)?.into_keys().collect())
    }

    /// What the view of a generation is made of.
    pub(super) fn made(&self, generation: &Generation) -> Result<Made, AgentError> {
        let (names, roots) = generation.layers.iter().cloned().unzip();
        let objects: &dyn ObjectSource = &**self.replica.store();
        let rules = match generation.plan {
            Some(plan) => read_small(&Tree::open(objects, plan)?, objects, &view_rules_path()?)?,
            None => None,
        };
        let rules = rules.map(|rules| ViewRules::decode(&rules)).transpose()?.unwrap_or_default();
        Ok(Made { names, roots, rules: Arc::new(rules) })
    }
}
