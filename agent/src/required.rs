//! What a release asks of this host (specs/configuration.md, F-30 to F-37).

use crate::AgentError;
use bytes::Bytes;
use rootcast::entry::{Content, Entry};
use rootcast::object::ObjectSource;
use rootcast::path::{BundleName, ConfigPath};
use rootcast::plan::{Plan, base_bundle, plan_bundle, plan_path};
use rootcast::tree::{Tree, TreeError};
use rootcast::view_rules::{ViewRules, view_rules_path};
use rootcast_replica::Held;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a release asks of this host: its layers, and what to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Required {
    /// The bundles of the view, from the lowest layer to the highest.
    pub layers: Vec<BundleName>,
    /// All bundles to ask for, so that one that appears arrives at once.
    pub subscription: Vec<BundleName>,
    /// Which files of the view are made of what its layers have.
    pub rules: Arc<ViewRules>,
}

impl Required {
    /// What a host asks for before it knows any plan: the usual layers.
    ///
    /// # Errors
    /// Never, unless a fixed name were no name.
    pub fn at_first(labels: &BTreeMap<String, String>) -> Result<Vec<BundleName>, AgentError> {
        let usual = ["region/{region}", "datacenter/{datacenter}", "role/{role}", "host/{host}"];
        let layers = usual.iter().filter_map(|layer| rootcast::layers::LayerPattern::parse(layer).ok());
        let bundles: BTreeSet<BundleName> = layers.filter_map(|layer| layer.bundle_for(labels)).collect();
        Self::always(bundles)
    }

    fn always(mut bundles: BTreeSet<BundleName>) -> Result<Vec<BundleName>, AgentError> {
        bundles.extend([base_bundle()?, plan_bundle()?]);
        Ok(bundles.into_iter().collect())
    }

    /// What this release asks of a host with these labels.
    ///
    /// # Errors
    /// [`AgentError::NoPlan`] where a parent hides it; or the plan cannot be read.
    pub fn of(
        held: &Held,
        objects: &dyn ObjectSource,
        labels: &BTreeMap<String, String>,
    ) -> Result<Self, AgentError> {
        let Some(root) = held.bundles.root(&plan_bundle()?) else {
            if held.bundles.release().release().bundles > 1 {
                return Err(AgentError::NoPlan);
            }
            let (layers, subscription) = (vec![base_bundle()?], Self::at_first(labels)?);
            return Ok(Self { layers, subscription, rules: Arc::default() });
        };
        let tree = Tree::open(objects, root)?;
        let plan = read_small(&tree, objects, &plan_path()?)?.ok_or(AgentError::NoPlan)?;
        let plan = Plan::decode(&plan)?;
        let rules = match read_small(&tree, objects, &view_rules_path()?)? {
            Some(rules) => Arc::new(ViewRules::decode(&rules)?),
            None => Arc::default(),
        };
        let subscription = Self::always(plan.subscription(labels))?;
        Ok(Self { layers: plan.view(labels), subscription, rules })
    }
}

/// A file of the plan's bundle, which is one blob; `None` where it is not there, or no such file.
pub(crate) fn read_small(
    tree: &Tree<'_, dyn ObjectSource + '_>,
    objects: &dyn ObjectSource,
    path: &ConfigPath,
) -> Result<Option<Bytes>, AgentError> {
    let Some(Entry::File { content: Content::Blob { id, .. }, .. }) = tree.get(path)? else {
        return Ok(None);
    };
    Ok(Some(objects.read(&id.into()).map_err(TreeError::from)?))
}
