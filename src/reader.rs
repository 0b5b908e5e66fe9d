//! Who reads, and which bundles of a channel it may have (specs/wire.md, W-45 to W-47).
//!
//! Labels come from the reader's certificate, and from nowhere else. What is
//! forbidden and what does not exist get the same answer.

use crate::member::Role;
use crate::path::BundleName;
use crate::plan::{Plan, base_bundle, plan_bundle};
use crate::protocol::Interest;
use std::collections::BTreeMap;

/// Who reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// A publisher: all bundles, of the newest release whoever signed it, to build its own on.
    Publisher,
    /// A relay: all bundles, since it serves hosts that it does not know yet.
    Relay,
    /// A host: the plan, and the bundles that its labels name in the plan's layers. `host` is among the labels.
    Host(BTreeMap<String, String>),
}

impl Reader {
    /// A peer by what its certificate says.
    pub fn new(role: Role, labels: BTreeMap<String, String>) -> Self {
        match role {
            Role::Publisher => Self::Publisher,
            Role::Relay => Self::Relay,
            Role::Agent => Self::Host(labels),
        }
    }

    /// Whether it may read a bundle of a release with this plan, or without one.
    pub fn covers(&self, plan: Option<&Plan>, bundle: &BundleName) -> bool {
        let Self::Host(labels) = self else { return true };
        let is = |name: Result<BundleName, _>| name.is_ok_and(|name| name == *bundle);
        match plan {
            None => is(base_bundle()),
            Some(plan) => {
                is(plan_bundle())
                    || plan.layers.iter().any(|layer| layer.bundle_for(labels).as_ref() == Some(bundle))
            }
        }
    }

    /// What is left of an interest.
    pub fn narrow(&self, plan: Option<&Plan>, interest: &Interest) -> Interest {
        match (self, interest) {
            (Self::Publisher | Self::Relay, _) => interest.clone(),
            (Self::Host(_), Interest::Named(names)) => {
                Interest::Named(names.iter().filter(|name| self.covers(plan, name)).cloned().collect())
            }
            (Self::Host(labels), Interest::All) => {
                let always = if plan.is_some() { plan_bundle() } else { base_bundle() };
                let layers = plan.into_iter().flat_map(|plan| &plan.layers);
                let mut names: Vec<_> = layers.filter_map(|layer| layer.bundle_for(labels)).collect();
                names.extend(always);
                names.sort();
                names.dedup();
                Interest::Named(names)
            }
        }
    }
}
