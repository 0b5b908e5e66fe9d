//! What a publication would change, before it is one (specs/configuration.md, F-75).

use crate::compile::Progress;
use crate::config::Rootcast;
use crate::publisher::{PublishError, Publisher};
use crate::source::Source;
use crate::trying::Roots;
use rootcast::entry::{Content, Entry};
use rootcast::object::ObjectSource;
use rootcast::path::{BundleName, ConfigPath};
use rootcast::plan::{Plan, base_bundle, plan_bundle, plan_path};
use rootcast::service::{Services, services_path};
use rootcast::settings::SettingsError;
use rootcast::tree::{Tree, TreeError};
use rootcast::view_rules::{ViewRules, view_rules_path};
use rootcast_store::Store;
use rootcast_view::Variables;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A release as hosts resolve it.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Its bundles.
    pub roots: Roots,
    /// Its plan; without one, all is `base`.
    pub plan: Option<Plan>,
    /// What is merged and rendered.
    pub rules: ViewRules,
    /// What is done when files change.
    pub services: Services,
}

impl Shown {
    fn of(objects: &dyn ObjectSource, roots: Roots) -> Result<Self, PublishError> {
        let mut shown = Self { roots, ..Self::default() };
        let bundle = plan_bundle().map_err(crate::CompileError::from)?;
        let failed =
            |source| PublishError::Compile(crate::CompileError::Tree { bundle: bundle.clone(), source });
        let Some(root) = shown.roots.get(&bundle) else { return Ok(shown) };
        let tree = Tree::open(objects, *root).map_err(failed)?;
        let read = |path: ConfigPath| match tree.get(&path)? {
            Some(Entry::File { content: Content::Blob { id, .. }, .. }) => {
                Ok(Some(objects.read(&id.into())?))
            }
            _ => Ok::<_, TreeError>(None),
        };
        let unreadable = |error: rootcast::codec::CodecError| PublishError::Unreadable(error);
        if let Some(plan) = read(plan_path().map_err(crate::CompileError::from)?).map_err(failed)? {
            shown.plan = Some(Plan::decode(&plan).map_err(unreadable)?);
        }
        if let Some(rules) = read(view_rules_path().map_err(crate::CompileError::from)?).map_err(failed)? {
            shown.rules = ViewRules::decode(&rules).map_err(unreadable)?;
        }
        if let Some(services) = read(services_path().map_err(crate::CompileError::from)?).map_err(failed)? {
            shown.services = Services::decode(&services).map_err(unreadable)?;
        }
        Ok(shown)
    }

    /// The layers of a host, from the lowest to the highest, and their trees.
    pub fn layers_of(&self, host: &Variables) -> (Vec<BundleName>, Vec<rootcast::id::NodeId>) {
        let names = match &self.plan {
            Some(plan) => plan.view(&host.labels),
            None => base_bundle().into_iter().filter(|base| self.roots.contains_key(base)).collect(),
        };
        let roots = names.iter().filter_map(|name| self.roots.get(name).copied()).collect();
        (names, roots)
    }
}

/// A source beside the release that this publisher knows as the newest.
pub struct Preview {
    /// The source's settings.
    pub settings: Rootcast,
    /// Where the objects of both are.
    pub store: Arc<dyn Store>,
    /// The newest release's number; 0 before the first.
    pub release: u64,
    /// That release.
    pub before: Shown,
    /// What the source would be.
    pub after: Shown,
    /// What of the settings has no effect ([`crate::Signed::warnings`]).
    pub warnings: Vec<SettingsError>,
}

impl Publisher {
    /// Compiles a source beside the newest release that this publisher holds, with all checks of a publication.
    /// Nothing is signed, and nobody is asked.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn preview(
        &mut self,
        source: &Arc<Mutex<Source>>,
        progress: Arc<Progress>,
    ) -> Result<Preview, PublishError> {
        let settings = Self::settings(source)?;
        let replica = self.replica(&settings.channel)?;
        let held = replica.held();
        let before = held.as_ref().map_or_else(BTreeMap::new, |held| {
            held.bundles.leaves().values().map(|leaf| (leaf.name.clone(), leaf.root)).collect()
        });
        let (unsigned, _) = self.make(source, &settings, &replica, &progress).await?;
        let after: Roots = unsigned.leaves.iter().map(|leaf| (leaf.name.clone(), leaf.root)).collect();
        let store = replica.store().clone();
        Ok(Preview {
            before: Shown::of(&*store, before)?,
            after: Shown::of(&*store, after)?,
            release: held.map_or(0, |held| held.accepted().number),
            warnings: unsigned.warnings,
            settings,
            store,
        })
    }
}
