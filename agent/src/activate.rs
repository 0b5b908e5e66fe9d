//! Bringing a held release to life: which layers, which files, which slot.

use crate::AgentError;
use crate::change::Change;
use crate::secrets::{Secrets, ViewSecrets};
use crate::slots::{Report, SlotError, SlotName, Slots, Staged};
use rootcast::activation::Generation;
use rootcast::entry::{Content, Entry};
use rootcast::id::{BlobId, NodeId};
use rootcast::object::ObjectSource;
use rootcast::path::{BundleName, ConfigPath};
use rootcast::plan::{Plan, base_bundle, plan_bundle, plan_path};
use rootcast::service::{ServiceName, Services, services_path};
use rootcast::tree::{Changes, Tree, TreeError, diff, empty_root};
use rootcast::view::{self, Layers};
use rootcast_replica::{Held, Replica};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
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
    secrets: Secrets,
    /// What the active slot holds, once it was checked or activated.
    active: Option<Shown>,
    /// What the standby slot holds, once it was staged.
    standby: Option<Shown>,
    /// The standby, while it waits to be made live.
    ready: Option<(Staged, Shown)>,
}

/// What a slot holds.
#[derive(Clone)]
struct Shown {
    /// The layers.
    roots: Vec<NodeId>,
    /// Files of the view that they resolve to. Counted on the way: several layers
    /// overlap, and to resolve them again costs as much as all their files.
    files: u64,
    /// The secrets among them.
    secrets: ViewSecrets,
    /// Secrets of other hosts, which the slot has not.
    left_out: u64,
}

/// An entry of a view before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Changed {
    before: Option<Entry>,
    after: Option<Entry>,
}

type View = BTreeMap<ConfigPath, Entry>;

/// What became of a held release.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// Files of the view.
    pub files: u64,
    /// What staging took; nothing where the view did not change.
    pub report: Report,
    /// Whether `current` flipped.
    pub flipped: bool,
    /// Secrets of the view, which are counted in its files.
    pub secrets: u64,
    /// Secrets of other hosts, which the view has not.
    pub left_out: u64,
}

impl Live {
    fn of(shown: &Shown, report: Report, flipped: bool) -> Self {
        let (files, secrets, left_out) = (shown.files, shown.secrets.len() as u64, shown.left_out);
        Self { files, report, flipped, secrets, left_out }
    }
}

impl Activation {
    /// Over slots that are open.
    pub fn new(replica: Arc<Replica>, labels: BTreeMap<String, String>, slots: Slots) -> Self {
        Self { replica, labels, slots, secrets: Secrets::default(), active: None, standby: None, ready: None }
    }

    /// The same on a host that may have secrets. Without this all are left out.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Secrets) -> Self {
        if let Some(directory) = secrets.path() {
            self.slots.set_secrets(directory.to_owned());
        }
        self.secrets = secrets;
        self
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
        let generation = self.generation(held, required)?;
        self.bring(&generation)
    }

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
        Ok(Generation { number: 0, release, plan, rules, layers: there, since })
    }

    /// The services of a generation.
    fn services(&self, generation: &Generation) -> Result<Services, AgentError> {
        let store = self.replica.store();
        let Some(plan) = generation.plan else { return Ok(Services::default()) };
        match Tree::open(&**store, plan)?.get(&services_path()?)? {
            Some(Entry::File { content: Content::Blob { id, .. }, .. }) => {
                Ok(Services::decode(&store.read(&id.into()).map_err(TreeError::from)?)?)
            }
            _ => Ok(Services::default()),
        }
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
        let (new, objects): (_, &dyn ObjectSource) = (roots(to), &*store);
        let old = from.map(roots);
        let differing = old.and_then(|old| changed(objects, &old, &new).ok());
        let all = || Ok::<_, AgentError>(self.view(&new, objects)?.0.into_keys().collect::<Vec<_>>());
        change.paths = match differing {
            Some(differing) => differing.into_keys().collect(),
            None => all()?,
        };
        change.touch();
        let rewritten: BTreeSet<ServiceName> =
            change.rewritten().into_iter().map(|service| service.name.clone()).collect();
        if !rewritten.is_empty() {
            let mut owners = BTreeSet::new();
            change.services.owners().add(&all()?, &mut owners);
            change.touched.extend(rewritten.into_iter().filter(|name| owners.contains(name)));
        }
        Ok(change)
    }

    /// Makes a generation live. Blocking.
    ///
    /// # Errors
    /// `current` and the slot it names are then what they were.
    pub(crate) fn bring(&mut self, generation: &Generation) -> Result<Live, AgentError> {
        self.stage(generation)?;
        self.flip()
    }

    /// Brings the standby to a generation, unless that is live; and gives the path of the slot that
    /// holds it then. Blocking.
    ///
    /// # Errors
    /// What is live is what it was.
    pub(crate) fn stage(&mut self, generation: &Generation) -> Result<PathBuf, AgentError> {
        let roots = roots(generation);
        let store = self.replica.store().clone();
        let objects: &dyn ObjectSource = &*store;
        if self.active.is_none() {
            self.adopt(&roots, objects)?;
        }
        if self.active.as_ref().is_some_and(|active| active.roots == roots) {
            self.put_aside();
            let live = self.slots.active()?.unwrap_or(SlotName::A);
            return Ok(self.slots.path(live));
        }
        if let Some((staged, _)) = self.ready.as_ref().filter(|(_, shown)| shown.roots == roots) {
            return Ok(staged.path().to_owned());
        }
        self.put_aside();
        let (staged, shown) = self.prepare(roots, objects)?;
        let path = staged.path().to_owned();
        self.ready = Some((staged, shown));
        Ok(path)
    }

    /// Leaves what waits to be made live: it is an ordinary standby then.
    fn put_aside(&mut self) {
        if let Some((_, shown)) = self.ready.take() {
            self.standby = Some(shown);
        }
    }

    /// Makes live what waits for it, if anything does. Blocking.
    ///
    /// # Errors
    /// As [`Slots::activate`].
    pub(crate) fn flip(&mut self) -> Result<Live, AgentError> {
        let Some((staged, shown)) = self.ready.take() else {
            let active = self.active.as_ref().ok_or(AgentError::Stopped)?;
            return Ok(Live::of(active, Report::default(), false));
        };
        let (report, live) = (staged.report(), Live::of(&shown, staged.report(), true));
        let outcome = self.slots.activate(staged);
        if !matches!(outcome, Ok(_) | Err(SlotError::FlipNotDurable { .. })) {
            outcome?;
            return Ok(Live { report, ..live });
        }
        self.standby = self.active.take();
        self.active = Some(shown);
        self.forget_secrets();
        outcome?;
        Ok(live)
    }

    /// The link `current`.
    pub(crate) fn current(&self) -> PathBuf {
        self.slots.current()
    }

    /// The whole view of these layers, without the secrets of other hosts.
    fn view(&self, roots: &[NodeId], objects: &dyn ObjectSource) -> Result<(View, Shown), AgentError> {
        let mut view = Layers::open(objects, roots)?.resolve()?;
        let all = view.len();
        let secrets = self.secrets.filter(&mut view, objects)?;
        let (files, left_out) = (view.len() as u64, (all - view.len()) as u64);
        Ok((view, Shown { roots: roots.to_vec(), files, secrets, left_out }))
    }

    /// After a start: what `current` points to is trusted only if every byte of
    /// it is this view's.
    fn adopt(&mut self, roots: &[NodeId], objects: &dyn ObjectSource) -> Result<(), AgentError> {
        if self.slots.active()?.is_none() {
            return Ok(());
        }
        let (view, shown) = self.view(roots, objects)?;
        let checked = self.slots.check_active(&view, objects)?;
        if checked.is_whole() {
            // After the machine was started its memory holds none of them.
            self.secrets.put(&shown.secrets, objects)?;
            self.active = Some(shown);
        } else {
            // What is live stays so for as long as nothing newer can be: its secrets too.
            if let Err(error) = self.secrets.put(&self.slots.active_secrets(), objects) {
                tracing::warn!(%error, "the secrets of what is live could not all be restored");
            }
            tracing::info!(
                differences = checked.differences.len(),
                "what is live is not this release; staging it"
            );
        }
        Ok(())
    }

    fn prepare(
        &mut self,
        roots: Vec<NodeId>,
        objects: &dyn ObjectSource,
    ) -> Result<(Staged, Shown), AgentError> {
        let staged = match self.standby.take() {
            Some(base) => match self.changes(objects, &base, &roots) {
                Ok((changes, shown)) => {
                    // Before anything leads to them.
                    self.secrets.put(&shown.secrets, objects)?;
                    match self.slots.stage_changes(&changes, objects) {
                        Err(error) if error.needs_full() => {
                            tracing::info!(%error, "staging in full");
                            None
                        }
                        staged => Some((staged?, shown)),
                    }
                }
                // The old trees may be collected by now; the new ones are judged by what follows.
                Err(error) => {
                    tracing::info!(%error, "the standby's layers cannot be compared; staging in full");
                    None
                }
            },
            None => None,
        };
        match staged {
            Some(staged) => Ok(staged),
            None => {
                let (view, shown) = self.view(&roots, objects)?;
                self.secrets.put(&shown.secrets, objects)?;
                Ok((self.slots.stage_full(&view, objects)?, shown))
            }
        }
    }

    /// Removes secrets that neither slot leads to, where both are known.
    fn forget_secrets(&mut self) {
        let (Some(active), Some(standby)) = (&self.active, &self.standby) else { return };
        let both = active.secrets.values().chain(standby.secrets.values());
        let wanted: BTreeSet<BlobId> = both.map(|(id, _)| *id).collect();
        if let Err(error) = self.secrets.keep_only(&wanted) {
            tracing::warn!(%error, "secrets that are not used any more could not be removed");
        }
    }

    /// What of a slot is to change for it to hold these layers, and what it holds then.
    fn changes(
        &self,
        objects: &dyn ObjectSource,
        base: &Shown,
        roots: &[NodeId],
    ) -> Result<(Changes, Shown), AgentError> {
        let mut changes = Changes::new();
        let mut shown = Shown { roots: roots.to_vec(), ..base.clone() };
        for (path, changed) in changed(objects, &base.roots, roots)? {
            // The slot has what was there but for secrets of other hosts.
            let had = match &changed.before {
                Some(Entry::Secret { .. }) => shown.secrets.remove(&path).is_some(),
                before => before.is_some(),
            };
            shown.left_out = shown.left_out.saturating_sub(u64::from(changed.before.is_some() && !had));
            let after = match changed.after {
                Some(Entry::Secret { id, .. }) if !self.secrets.is_ours(&path, &id, objects)? => {
                    shown.left_out += 1;
                    None
                }
                after => after,
            };
            if let Some(Entry::Secret { id, size }) = after {
                shown.secrets.insert(path.clone(), (id, size));
            }
            shown.files = (shown.files + u64::from(after.is_some())).saturating_sub(u64::from(had));
            if had || after.is_some() {
                changes.insert(path, after);
            }
        }
        Ok((changes, shown))
    }

    /// Brings the standby to what is live, so that the next release costs only
    /// what it changes. Blocking; for when nothing else is to be done.
    ///
    /// # Errors
    /// What is live is not touched.
    pub fn prepare_standby(&mut self) -> Result<(), AgentError> {
        let (Some(active), None, None) = (self.active.clone(), &self.standby, &self.ready) else {
            return Ok(());
        };
        let store = self.replica.store().clone();
        let (view, _) = self.view(&active.roots, &*store)?;
        let _ready = self.slots.stage_full(&view, &*store)?;
        self.standby = Some(active);
        self.forget_secrets();
        Ok(())
    }
}

/// The trees of a generation's layers.
fn roots(generation: &Generation) -> Vec<NodeId> {
    generation.layers.iter().map(|(_, root)| *root).collect()
}

/// More differing paths than this are told from whole views: to look up each costs
/// more than to read all, from about a hundredth of a tree on.
const LOOK_UP_MOST: usize = 1000;

/// What differs between two views.
fn changed(
    objects: &dyn ObjectSource,
    old: &[NodeId],
    new: &[NodeId],
) -> Result<BTreeMap<ConfigPath, Changed>, TreeError> {
    let before = Layers::open(objects, old)?;
    let mut changed = BTreeMap::new();
    if differing(objects, old, new)? > LOOK_UP_MOST {
        let after = Layers::open(objects, new)?.resolve()?;
        let only_after = |entry| Changed { before: None, after: Some(entry) };
        changed.extend(after.into_iter().map(|(path, entry)| (path, only_after(entry))));
        for (path, entry) in before.resolve()? {
            let after = changed.get(&path).and_then(|changed| changed.after.clone());
            if after.as_ref() == Some(&entry) {
                changed.remove(&path);
            } else {
                changed.insert(path, Changed { before: Some(entry), after });
            }
        }
        return Ok(changed);
    }
    for (path, after) in view::changes(objects, old, new)? {
        let before = before.get(&path)?;
        changed.insert(path, Changed { before, after });
    }
    Ok(changed)
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
        let count = |roots: &[NodeId]| Layers::open(&objects, roots).unwrap().resolve().unwrap().len();
        let mut many = 0;
        for new in cases {
            let objects: &dyn ObjectSource = &objects;
            let changed = changed(objects, &old, &new).unwrap();
            let come = changed.values().filter(|changed| changed.before.is_none()).count();
            let gone = changed.values().filter(|changed| changed.after.is_none()).count();
            assert_eq!(count(&old) + come - gone, count(&new));
            let after: Changes = changed.into_iter().map(|(path, changed)| (path, changed.after)).collect();
            assert_eq!(after, view::changes(objects, &old, &new).unwrap());
            many += usize::from(differing(objects, &old, &new).unwrap() > LOOK_UP_MOST);
        }
        assert_eq!(many, 3, "both ways are taken");
    }
}
