//! The plan: what every host needs to know to put its layers together.
//!
//! It travels as the one file of the bundle `plan`, signed and delivered like
//! all else. It names every bundle of its release, so no relay can hide one: a
//! host whose labels call for a bundle that the plan lists will not activate
//! without it (specs/configuration.md, F-30 to F-34).

use crate::codec::{self, CodecError};
use crate::layers::{BASE_BUNDLE, LayerPattern, PLAN_BUNDLE};
use crate::limits::{MAX_BLOB, MAX_LAYERS};
use crate::path::{BundleName, ConfigPath, PathError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Layers and bundles of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// From the lowest layer to the highest: a later one wins a path.
    pub layers: Vec<LayerPattern>,
    /// Every bundle of the release but the plan itself.
    pub bundles: BTreeSet<BundleName>,
}

/// The name of a bundle that this crate itself fixes.
fn fixed(name: &str) -> Result<BundleName, PathError> {
    BundleName::new(name)
}

/// The path of the plan's one file.
pub fn plan_path() -> Result<ConfigPath, PathError> {
    ConfigPath::new(PLAN_BUNDLE)
}

/// The plan's bundle.
pub fn plan_bundle() -> Result<BundleName, PathError> {
    fixed(PLAN_BUNDLE)
}

/// The bundle of a repository without layers.
pub fn base_bundle() -> Result<BundleName, PathError> {
    fixed(BASE_BUNDLE)
}

#[derive(Serialize, Deserialize)]
struct EncodedPlan(Vec<String>, Vec<BundleName>);

impl Plan {
    /// The content of the plan's file.
    pub fn encode(&self) -> Vec<u8> {
        let layers = self.layers.iter().map(LayerPattern::to_string).collect();
        codec::encode(&EncodedPlan(layers, self.bundles.iter().cloned().collect()))
    }

    /// Reads the plan's file.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let EncodedPlan(layers, bundles) = codec::decode(bytes, MAX_BLOB)?;
        let shape = |reason: String| CodecError::Shape { wanted: "a plan", reason };
        if layers.is_empty() || layers.len() > MAX_LAYERS {
            return Err(shape("no layers, or too many".into()));
        }
        let layers: Result<Vec<_>, _> = layers.iter().map(|layer| LayerPattern::parse(layer)).collect();
        let plan = Self {
            layers: layers.map_err(|error| shape(error.to_string()))?,
            bundles: bundles.into_iter().collect(),
        };
        if plan.encode() == bytes { Ok(plan) } else { Err(shape("bundles out of order".into())) }
    }

    /// The bundles that make up the view of a host with these labels, from the
    /// lowest layer to the highest.
    pub fn view(&self, labels: &BTreeMap<String, String>) -> Vec<BundleName> {
        let mut seen = BTreeSet::new();
        let layers = self.layers.iter().filter_map(|layer| layer.bundle_for(labels));
        layers.filter(|bundle| self.bundles.contains(bundle) && seen.insert(bundle.clone())).collect()
    }

    /// The bundles that such a host would have if they existed: what it
    /// subscribes to, so that a bundle that appears arrives with the release it appears in.
    pub fn subscription(&self, labels: &BTreeMap<String, String>) -> BTreeSet<BundleName> {
        self.layers.iter().filter_map(|layer| layer.bundle_for(labels)).collect()
    }
}
