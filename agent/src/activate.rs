//! Bringing a held release to life: which layers, which files, which slot.

use crate::AgentError;
use crate::slots::{Report, SlotError, Slots};
use rootcast::entry::{Content, Entry};
use rootcast::id::NodeId;
use rootcast::object::ObjectSource;
use rootcast::path::BundleName;
use rootcast::plan::{Plan, base_bundle, plan_bundle, plan_path};
use rootcast::tree::{Changes, Tree, TreeError, diff, empty_root};
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
    /// What the active slot holds, once it was checked or activated.
    active: Option<Shown>,
    /// What the standby slot holds, once it was staged.
    standby: Option<Shown>,
}

/// What a slot holds.
#[derive(Clone)]
struct Shown {
    /// The layers.
    roots: Vec<NodeId>,
    /// Files of the view that they resolve to. Counted on the way: several layers
    /// overlap, and to resolve them again costs as much as all their files.
    files: u64,
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
        if let Some(active) = self.active.as_ref().filter(|active| active.roots == roots) {
            return Ok(Live { files: active.files, report: Report::default(), flipped: false });
        }
        let (report, files) = self.stage(roots, objects)?;
        Ok(Live { files, report, flipped: true })
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
            self.active = Some(Shown { roots: roots.to_vec(), files: view.len() as u64 });
        } else {
            tracing::info!(
                differences = checked.differences.len(),
                "what is live is not this release; staging it"
            );
        }
        Ok(())
    }

    fn stage(&mut self, roots: Vec<NodeId>, objects: &dyn ObjectSource) -> Result<(Report, u64), AgentError> {
        let staged = match self.standby.take() {
            Some(base) => match changes(objects, &base, &roots) {
                Ok((changes, files)) => match self.slots.stage_changes(&changes, objects) {
                    Err(error) if error.needs_full() => {
                        tracing::info!(%error, "staging in full");
                        None
                    }
                    staged => Some((staged?, files)),
                },
                // The old trees may be collected by now; the new ones are judged by what follows.
                Err(error) => {
                    tracing::info!(%error, "the standby's layers cannot be compared; staging in full");
                    None
                }
            },
            None => None,
        };
        let (staged, files) = match staged {
            Some(staged) => staged,
            None => {
                let view = Layers::open(objects, &roots)?.resolve()?;
                (self.slots.stage_full(&view, objects)?, view.len() as u64)
            }
        };
        let report = staged.report();
        let outcome = self.slots.activate(staged);
        if !matches!(outcome, Ok(_) | Err(SlotError::FlipNotDurable { .. })) {
            outcome?;
            return Ok((report, files));
        }
        self.standby = self.active.take();
        self.active = Some(Shown { roots, files });
        outcome?;
        Ok((report, files))
    }

    /// Brings the standby to what is live, so that the next release costs only
    /// what it changes. Blocking; for when nothing else is to be done.
    ///
    /// # Errors
    /// What is live is not touched.
    pub fn prepare_standby(&mut self) -> Result<(), AgentError> {
        let (Some(active), None) = (self.active.clone(), &self.standby) else { return Ok(()) };
        let store = self.replica.store().clone();
        let view = Layers::open(&*store, &active.roots)?.resolve()?;
        let _ready = self.slots.stage_full(&view, &*store)?;
        self.standby = Some(active);
        Ok(())
    }
}

/// More differing paths than this are told from whole views: to look up each costs
/// more than to read all, from about a hundredth of a tree on.
const LOOK_UP_MOST: usize = 1000;

/// What of a slot is to change for it to hold these layers, and the files that it has then.
fn changes(objects: &dyn ObjectSource, base: &Shown, roots: &[NodeId]) -> Result<(Changes, u64), TreeError> {
    if differing(objects, &base.roots, roots)? > LOOK_UP_MOST {
        let after = Layers::open(objects, roots)?.resolve()?;
        let files = after.len() as u64;
        let mut changes: Changes = after.into_iter().map(|(path, entry)| (path, Some(entry))).collect();
        for (path, entry) in Layers::open(objects, &base.roots)?.resolve()? {
            match changes.get(&path) {
                Some(now) if now.as_ref() == Some(&entry) => drop(changes.remove(&path)),
                Some(_) => {}
                None => drop(changes.insert(path, None)),
            }
        }
        return Ok((changes, files));
    }
    let changes = view::changes(objects, &base.roots, roots)?;
    if let [only] = roots {
        return Ok((changes, Tree::open(objects, *only)?.totals().files));
    }
    let before = Layers::open(objects, &base.roots)?;
    let mut files = base.files;
    for (path, entry) in &changes {
        match (before.get(path)?, entry) {
            (None, Some(_)) => files += 1,
            (Some(_), None) => files = files.saturating_sub(1),
            _ => {}
        }
    }
    Ok((changes, files))
}

/// How many paths the layers differ in, one by one.
fn differing(objects: &dyn ObjectSource, old: &[NodeId], new: &[NodeId]) -> Result<usize, TreeError> {
    let none = empty_root();
    let mut count = 0;
    for at in 0..old.len().max(new.len()) {
        let (old, new) = (old.get(at).unwrap_or(&none), new.get(at).unwrap_or(&none));
        count += diff(&Tree::open(objects, *old)?, &Tree::open(objects, *new)?)?.len();
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast::chunking;
    use rootcast::object::ObjectMap;
    use rootcast::path::ConfigPath;
    use rootcast::tree::update;

    /// The tree of these files: number and content.
    fn tree(objects: &mut ObjectMap, files: impl Iterator<Item = (usize, usize)>) -> NodeId {
        let mut new = ObjectMap::new();
        let entries = files.map(|(number, content)| {
            let path = ConfigPath::new(&format!("d{}/f{number}", number / 50)).unwrap();
            let content = chunking::store(format!("{content}").into(), &mut new).unwrap();
            (path, Some(Entry::File { content, executable: false }))
        });
        let entries: Changes = entries.collect();
        let (root, _) = update(objects, empty_root(), &entries, &mut new).unwrap();
        objects.append(&mut new);
        root
    }

    #[test]
    fn many_changes_and_few_are_told_alike() {
        let mut objects = ObjectMap::new();
        let low = tree(&mut objects, (0..3000).map(|number| (number, 1)));
        let high = tree(&mut objects, (0..3500).step_by(3).map(|number| (number, 2)));
        // One change; a third of the files; all of them; a layer that goes.
        let cases = [
            vec![tree(&mut objects, (0..2999).map(|number| (number, 1))), high],
            vec![low, tree(&mut objects, (1..3600).step_by(3).map(|number| (number, 2)))],
            vec![tree(&mut objects, (500..3100).map(|number| (number, 3))), high],
            vec![low],
        ];
        let old = vec![low, high];
        let files = Layers::open(&objects, &old).unwrap().resolve().unwrap().len() as u64;
        let base = Shown { roots: old.clone(), files };
        let mut many = 0;
        for new in cases {
            let objects: &dyn ObjectSource = &objects;
            let (changes, files) = changes(objects, &base, &new).unwrap();
            assert_eq!(changes, view::changes(objects, &old, &new).unwrap());
            assert_eq!(files, Layers::open(objects, &new).unwrap().resolve().unwrap().len() as u64);
            many += usize::from(differing(objects, &old, &new).unwrap() > LOOK_UP_MOST);
        }
        assert_eq!(many, 3, "both ways are taken");
    }
}
