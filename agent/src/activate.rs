//! Bringing a held release to life: which layers, which files, which slot.

use crate::AgentError;
use crate::slots::{Report, SlotError, Slots};
use rootcast::entry::{Content, Entry};
use rootcast::id::NodeId;
use rootcast::object::ObjectSource;
use rootcast::path::BundleName;
use rootcast::plan::{Plan, base_bundle, plan_bundle, plan_path};
use rootcast::tree::{Tree, TreeError};
use rootcast::view::{self, Layers};
use rootcast_replica::{Held, Replica};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a release asks of this host: its layers, and what to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Required {
    /// The bundles of the view, from the lowest layer to the highest.
    pub layers: Vec<BundleName>,
    /// All bundles to ask for, so that one that appears arrives at once.
    pub subscription: Vec<BundleName>,
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
            return Ok(Self { layers: vec![base_bundle()?], subscription: Self::at_first(labels)? });
        };
        let plan = Tree::open(objects, root)?.get(&plan_path()?)?;
        let Some(Entry::File { content: Content::Blob { id, .. }, .. }) = plan else {
            return Err(AgentError::NoPlan);
        };
        let plan = Plan::decode(&objects.read(&id.into()).map_err(TreeError::from)?)?;
        let subscription = Self::always(plan.subscription(labels))?;
        Ok(Self { layers: plan.view(labels), subscription })
    }
}

/// What is live and what stands by, as far as this process knows.
pub struct Activation {
    replica: Arc<Replica>,
    labels: BTreeMap<String, String>,
    slots: Slots,
    /// Layers of the active slot, once it was checked or activated.
    active: Option<Vec<NodeId>>,
    /// Layers of the standby slot, once it was staged.
    standby: Option<Vec<NodeId>>,
}

/// What became of a held release.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// Files of the view.
    pub files: u64,
    /// What staging took; nothing where the view did not change.
    pub report: Report,
    /// Whether `current` flipped.
    pub flipped: bool,
}

impl Activation {
    /// Over slots that are open.
    pub fn new(replica: Arc<Replica>, labels: BTreeMap<String, String>, slots: Slots) -> Self {
        Self { replica, labels, slots, active: None, standby: None }
    }

    /// What a held release asks of this host.
    ///
    /// # Errors
    /// As [`Required::of`].
    pub fn required(&self, held: &Held) -> Result<Required, AgentError> {
        Required::of(held, &**self.replica.store(), &self.labels)
    }

    /// Makes the view of a held release live. Blocking.
    ///
    /// # Errors
    /// `current` and the slot it names are then what they were.
    pub fn activate(&mut self, held: &Held, required: &Required) -> Result<Live, AgentError> {
        let roots: Vec<_> = required.layers.iter().map(|name| held.bundles.root(name)).collect();
        let missing = required.layers.iter().zip(&roots).filter(|(_, root)| root.is_none());
        let missing: Vec<BundleName> = missing.map(|(name, _)| name.clone()).collect();
        if !missing.is_empty() {
            return Err(AgentError::Awaiting(missing));
        }
        let roots: Vec<NodeId> = roots.into_iter().flatten().collect();
        let store = self.replica.store().clone();
        let objects: &dyn ObjectSource = &*store;
        if self.active.is_none() {
            self.adopt(&roots, objects)?;
        }
        if self.active.as_ref() == Some(&roots) {
            return Ok(Live {
                files: self.files(&roots, objects)?,
                report: Report::default(),
                flipped: false,
            });
        }
        let report = self.stage(&roots, objects)?;
        Ok(Live { files: self.files(&roots, objects)?, report, flipped: true })
    }

    /// After a start: what `current` points to is trusted only if every byte of
    /// it is this view's.
    fn adopt(&mut self, roots: &[NodeId], objects: &dyn ObjectSource) -> Result<(), AgentError> {
        if self.slots.active()?.is_none() {
            return Ok(());
        }
        let view = Layers::open(objects, roots)?.resolve()?;
        let checked = self.slots.check_active(&view, objects)?;
        if checked.is_whole() {
            self.active = Some(roots.to_vec());
        } else {
            tracing::info!(
                differences = checked.differences.len(),
                "what is live is not this release; staging it"
            );
        }
        Ok(())
    }

    fn stage(&mut self, roots: &[NodeId], objects: &dyn ObjectSource) -> Result<Report, AgentError> {
        let staged = match self.standby.take() {
            Some(base) => match view::changes(objects, &base, roots) {
                Ok(changes) => match self.slots.stage_changes(&changes, objects) {
                    Err(error) if error.needs_full() => {
                        tracing::info!(%error, "staging in full");
                        None
                    }
                    staged => Some(staged?),
                },
                // The old trees may be collected by now; the new ones are judged by what follows.
                Err(error) => {
                    tracing::info!(%error, "the standby's layers cannot be compared; staging in full");
                    None
                }
            },
            None => None,
        };
        let staged = match staged {
            Some(staged) => staged,
            None => self.slots.stage_full(&Layers::open(objects, roots)?.resolve()?, objects)?,
        };
        let report = staged.report();
        let outcome = self.slots.activate(staged);
        if !matches!(outcome, Ok(_) | Err(SlotError::FlipNotDurable { .. })) {
            outcome?;
            return Ok(report);
        }
        self.standby = self.active.take();
        self.active = Some(roots.to_vec());
        outcome?;
        Ok(report)
    }

    /// Brings the standby to what is live, so that the next release costs only
    /// what it changes. Blocking; for when nothing else is to be done.
    ///
    /// # Errors
    /// What is live is not touched.
    pub fn prepare_standby(&mut self) -> Result<(), AgentError> {
        let (Some(active), None) = (self.active.clone(), &self.standby) else { return Ok(()) };
        let store = self.replica.store().clone();
        let view = Layers::open(&*store, &active)?.resolve()?;
        let _ready = self.slots.stage_full(&view, &*store)?;
        self.standby = Some(active);
        Ok(())
    }

    /// Files of a view. With one layer its tree knows; several overlap.
    fn files(&self, roots: &[NodeId], objects: &dyn ObjectSource) -> Result<u64, AgentError> {
        match roots {
            [] => Ok(0),
            [only] => Ok(Tree::open(objects, *only)?.totals().files),
            _ => Ok(Layers::open(objects, roots)?.resolve()?.len() as u64),
        }
    }
}
