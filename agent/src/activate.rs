//! Bringing a held release to life: which layers, which files, which slot.

mod generations;
mod installed;
mod live;

pub(crate) use installed::{Placed, Turned};
pub(crate) use live::Looked;

use crate::AgentError;
use crate::required::Required;
use crate::secrets::{Secrets, ViewSecrets};
use crate::slots::{Moment, Patterns, Report, SlotError, SlotName, Slots, Staged};
use installed::Installing;
use rootcast::activation::Generation;
use rootcast::entry::{Content, Entry};
use rootcast::id::{BlobId, NodeId};
use rootcast::object::ObjectSource;
use rootcast::path::{BundleName, ConfigPath};
use rootcast::tree::{Changes, TreeError};
use rootcast::view_rules::ViewRules;
use rootcast_replica::{Held, Replica};
use rootcast_view::{Derived, Resolved, Variables, ViewError, Views, WithDerived};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// What is live and what stands by, as far as this process knows.
pub struct Activation {
    replica: Arc<Replica>,
    /// What templates may name; the host's labels choose its layers.
    variables: Variables,
    slots: Slots,
    secrets: Secrets,
    /// What of the live tree is left alone.
    ignored: Patterns,
    /// What the active slot holds, once it was checked or activated.
    active: Option<Shown>,
    /// What the standby slot holds, once it was staged.
    standby: Option<Shown>,
    /// What the last flip changed.
    changed: Option<Vec<Box<str>>>,
    /// The standby, while it waits to be made live.
    ready: Option<(Staged, Shown)>,
    /// What is installed outside the slots, while nothing is under way.
    installed: Option<Arc<Installing>>,
    /// Whether an activation with services is under way.
    under_way: bool,
    /// How often another tree became live, or what is live was found whole; and the same of what is installed.
    turned: watch::Sender<Turned>,
}

/// What a slot holds.
#[derive(Clone)]
struct Shown {
    of: Made,
    /// Files of the view that were merged or rendered.
    derived: Derived,
    /// Files of the view that they resolve to. Counted on the way: several layers
    /// overlap, and to resolve them again costs as much as all their files.
    files: u64,
    /// The secrets among them.
    secrets: ViewSecrets,
    /// Secrets of other hosts, which the slot has not.
    left_out: u64,
}

/// What a view is made of. The host's labels and facts stay for as long as its process runs.
#[derive(Clone)]
struct Made {
    /// The layers' bundles, from the lowest to the highest, and their trees.
    names: Vec<BundleName>,
    roots: Vec<NodeId>,
    rules: Arc<ViewRules>,
}

impl Made {
    /// Whether this makes the same files. Layers of the same content may be called otherwise.
    fn is_same(&self, other: &Self) -> bool {
        self.roots == other.roots && self.rules == other.rules
    }

    fn views<'a>(
        &'a self,
        objects: &'a dyn ObjectSource,
        variables: &'a Variables,
    ) -> Result<Views<'a>, TreeError> {
        Views::open(objects, (&self.names, &self.roots), &self.rules, variables)
    }
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
    pub fn new(replica: Arc<Replica>, variables: Variables, slots: Slots) -> Self {
        Self {
            replica,
            variables,
            slots,
            secrets: Secrets::default(),
            ignored: Patterns::default(),
            active: None,
            standby: None,
            changed: None,
            ready: None,
            installed: None,
            under_way: false,
            turned: watch::Sender::default(),
        }
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
        Required::of(held, &**self.replica.store(), &self.variables.labels)
    }

    /// Makes the view of a held release live. Blocking.
    ///
    /// # Errors
    /// `current` and the slot it names are then what they were.
    pub fn activate(&mut self, held: &Held, required: &Required) -> Result<Live, AgentError> {
        let generation = self.generation(held, required)?;
        self.bring(&generation)
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
        let made = self.made(generation)?;
        let store = self.replica.store().clone();
        let objects: &dyn ObjectSource = &*store;
        if self.active.is_none() {
            self.adopt(&made, objects)?;
        }
        if self.active.as_ref().is_some_and(|active| active.of.is_same(&made)) {
            self.put_aside();
            let live = self.slots.active()?.unwrap_or(SlotName::A);
            return Ok(self.slots.path(live));
        }
        if let Some((staged, _)) = self.ready.as_ref().filter(|(_, shown)| shown.of.is_same(&made)) {
            return Ok(staged.path().to_owned());
        }
        self.put_aside();
        let (staged, shown) = self.prepare(made, objects)?;
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
        let store = self.replica.store().clone();
        self.changed = self.note_changes(&*store);
        self.forget_secrets();
        self.turned.send_modify(|turned| turned.tree += 1);
        outcome?;
        Ok(live)
    }

    /// Changes whenever another tree is live, or what is live is known; and what is installed of it.
    pub(crate) fn turned(&self) -> watch::Receiver<Turned> {
        self.turned.subscribe()
    }

    /// The link `current`.
    pub(crate) fn current(&self) -> PathBuf {
        self.slots.current()
    }

    /// The whole view of these layers, without the secrets of other hosts.
    fn view(
        &self,
        made: &Made,
        views: &Views<'_>,
        objects: &dyn ObjectSource,
    ) -> Result<(View, Shown), AgentError> {
        let Resolved { entries: mut view, derived } = views.resolve()?;
        let all = view.len();
        let secrets = self.secrets.filter(&mut view, objects)?;
        let (files, left_out) = (view.len() as u64, (all - view.len()) as u64);
        Ok((view, Shown { of: made.clone(), derived, files, secrets, left_out }))
    }

    /// After a start: what `current` points to is trusted only if every byte of
    /// it is this view's.
    fn adopt(&mut self, made: &Made, objects: &dyn ObjectSource) -> Result<(), AgentError> {
        if self.slots.active()?.is_none() {
            return Ok(());
        }
        let views = made.views(objects, &self.variables)?;
        let (view, shown) = self.view(made, &views, objects)?;
        let since = Moment::now();
        let checked = self.slots.check_active(&view, objects)?;
        if checked.is_whole() {
            // After the machine was started its memory holds none of them.
            self.secrets.put(&shown.secrets, objects)?;
            self.slots.adopt_active(since)?;
            self.active = Some(shown);
            self.turned.send_modify(|turned| turned.tree += 1);
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

    fn prepare(&mut self, made: Made, objects: &dyn ObjectSource) -> Result<(Staged, Shown), AgentError> {
        let variables = self.variables.clone();
        let views = made.views(objects, &variables)?;
        // Other rules make other files of the same layers: all of them are looked at then.
        let base = self.standby.take().filter(|base| base.of.rules == made.rules);
        let staged = match base {
            Some(base) => match self.changes(objects, &base, &made, &views) {
                Ok((changes, shown)) => {
                    // Before anything leads to them.
                    self.secrets.put(&shown.secrets, objects)?;
                    let contents = WithDerived::new(&views, &shown.derived);
                    match self.slots.stage_changes(&changes, &contents) {
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
                let (view, shown) = self.view(&made, &views, objects)?;
                self.secrets.put(&shown.secrets, objects)?;
                let contents = WithDerived::new(&views, &shown.derived);
                Ok((self.slots.stage_full(&view, &contents)?, shown))
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
        made: &Made,
        after: &Views<'_>,
    ) -> Result<(Changes, Shown), AgentError> {
        let mut changes = Changes::new();
        let mut shown = Shown { of: made.clone(), ..base.clone() };
        let before = base.of.views(objects, &self.variables)?;
        for (path, changed) in changed(&before, &base.derived, after)? {
            match &changed.after {
                Some(Entry::File { content: Content::Blob { id, size }, .. })
                    if made.rules.derives(&path) =>
                {
                    shown.derived.insert(path.clone(), (*id, *size));
                }
                _ => drop(shown.derived.remove(&path)),
            }
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
        let variables = self.variables.clone();
        let views = active.of.views(&*store, &variables)?;
        let (view, shown) = self.view(&active.of, &views, &*store)?;
        let _ready = self.slots.stage_full(&view, &WithDerived::new(&views, &shown.derived))?;
        self.standby = Some(active);
        self.forget_secrets();
        Ok(())
    }
}

/// More differing paths than this are told from whole views: to look up each costs
/// more than to read all, from about a hundredth of a tree on.
const LOOK_UP_MOST: usize = 1000;

/// What differs between two views of the same rules. What of the first was derived is taken
/// from `derived`: it need not be made again to be compared.
fn changed(
    before: &Views<'_>,
    derived: &Derived,
    after: &Views<'_>,
) -> Result<BTreeMap<ConfigPath, Changed>, ViewError> {
    let as_derived = |path: &ConfigPath, entry: Entry| match (derived.get(path), entry) {
        (Some((id, size)), Entry::File { executable, .. }) => {
            Entry::File { content: Content::Blob { id: *id, size: *size }, executable }
        }
        (_, entry) => entry,
    };
    let mut changed = BTreeMap::new();
    let differing = before.layers().differing(after.layers())?;
    if differing.len() > LOOK_UP_MOST {
        let only_after = |entry| Changed { before: None, after: Some(entry) };
        changed.extend(after.resolve()?.entries.into_iter().map(|(path, entry)| (path, only_after(entry))));
        for (path, entry) in before.layers().resolve()? {
            let entry = as_derived(&path, entry);
            let after = changed.get(&path).and_then(|changed| changed.after.clone());
            if after.as_ref() == Some(&entry) {
                changed.remove(&path);
            } else {
                changed.insert(path, Changed { before: Some(entry), after });
            }
        }
        return Ok(changed);
    }
    let mut changes = Changes::new();
    for path in differing {
        let before = before.layers().get(&path)?.map(|entry| as_derived(&path, entry));
        let after = after.get(&path)?;
        if before != after {
            changes.insert(path.clone(), after.clone());
            changed.insert(path, Changed { before, after });
        }
    }
    after.layers().check(&changes)?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast::chunking;
    use rootcast::object::ObjectMap;
    use rootcast::path::ConfigPath;
    use rootcast::pattern::Pattern;
    use rootcast::tree::{empty_root, update};
    use rootcast::view::{self, Layers};
    use rootcast::view_rules::MergeRule;

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

    fn made(names: usize, roots: &[NodeId], rules: ViewRules) -> Made {
        let name = |at| BundleName::new(&format!("l{at}")).unwrap();
        Made { names: (0..names).map(name).collect(), roots: roots.to_vec(), rules: Arc::new(rules) }
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
        let variables = Variables::default();
        let mut many = 0;
        for new in cases {
            let objects: &dyn ObjectSource = &objects;
            let (before, after) = (made(2, &old, ViewRules::default()), made(2, &new, ViewRules::default()));
            let before = before.views(objects, &variables).unwrap();
            let after = after.views(objects, &variables).unwrap();
            let changed = changed(&before, &Derived::new(), &after).unwrap();
            let come = changed.values().filter(|changed| changed.before.is_none()).count();
            let gone = changed.values().filter(|changed| changed.after.is_none()).count();
            assert_eq!(count(&old) + come - gone, count(&new));
            let told: Changes = changed.into_iter().map(|(path, changed)| (path, changed.after)).collect();
            assert_eq!(told, view::changes(objects, &old, &new).unwrap());
            many += usize::from(before.layers().differing(after.layers()).unwrap().len() > LOOK_UP_MOST);
        }
        assert_eq!(many, 3, "both ways are taken");
    }

    #[test]
    fn f_52_a_change_of_any_layer_is_a_change_of_what_is_derived_from_it() {
        let pattern = |text: &str| vec![Pattern::new(text).unwrap()];
        let merge = MergeRule { files: pattern("*.yaml"), keys: BTreeMap::new() };
        let rules = ViewRules { merges: vec![merge], templates: pattern("t*") };
        let mut objects = ObjectMap::new();
        let mut layer = |files: &[(&str, &str)]| {
            let mut new = ObjectMap::new();
            let entries = files.iter().map(|(path, content)| {
                let content = chunking::store(content.to_string().into(), &mut new).unwrap();
                (ConfigPath::new(path).unwrap(), Some(Entry::File { content, executable: false }))
            });
            let entries: Changes = entries.collect();
            let (root, _) = update(&objects, empty_root(), &entries, &mut new).unwrap();
            objects.append(&mut new);
            root
        };
        let base = layer(&[("a.yaml", "x: 1\ny: 1\n"), ("b.yaml", "x: 1\n"), ("t", "{{ host }}")]);
        let over = layer(&[("a.yaml", "x: 2\n")]);
        let lower = layer(&[("a.yaml", "x: 1\ny: 2\n"), ("b.yaml", "x: 1\n"), ("t", "{{ host }}")]);
        let hidden = layer(&[("a.yaml", "x: 3\ny: 1\n"), ("b.yaml", "x: 1\n"), ("t", "{{ host }}")]);
        let wrong = layer(&[("a.yaml", "x: [\n"), ("t", "{{ host }}")]);
        let variables = Variables { host: "web-1".into(), ..Variables::default() };
        let objects: &dyn ObjectSource = &objects;
        let old = made(2, &[base, over], rules.clone());
        let before = old.views(objects, &variables).unwrap();
        let Resolved { entries, derived } = before.resolve().unwrap();
        assert_eq!((entries.len(), derived.len()), (3, 3));
        let contents = WithDerived::new(&before, &derived);
        let read = |path: &str| contents.read(&derived[path].0.into()).unwrap();
        assert_eq!((&read("a.yaml")[..], &read("t")[..]), (&b"x: 2\ny: 1\n"[..], &b"web-1"[..]));
        let told = |root| {
            let new = made(2, &[root, over], rules.clone());
            let after = new.views(objects, &variables).unwrap();
            changed(&before, &derived, &after)
                .map(|changed| changed.into_keys().map(|path| path.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(told(lower).unwrap(), ["a.yaml"], "what shows through is changed");
        assert_eq!(told(hidden).unwrap(), Vec::<String>::new(), "what is overridden is not");
        let refused = AgentError::from(told(wrong).unwrap_err()).to_string();
        assert!(
            refused.starts_with("a file of the view cannot be made: bundle `l0`, a.yaml:2:1: "),
            "{refused}"
        );
    }
}
