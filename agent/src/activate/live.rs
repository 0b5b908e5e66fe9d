//! The tree that is live, compared and put right (specs/activation.md, A-50 to A-58).

use super::{Activation, Placed, Shown, View};
use crate::AgentError;
use crate::services::Allow;
use crate::slots::{self, Checked, CurrentRepaired, Difference, Fault, Moment, Patterns};
use crate::slots::{Entries, SlotError};
use rootcast::drift::{Spot, outermost};
use rootcast::entry::{Content, Entry};
use rootcast::limits::{MAX_CHANGED, MAX_REPAIRS_IN_PLACE};
use rootcast::object::ObjectSource;
use rootcast::tree::TreeError;
use rootcast_replica::Replica;
use rootcast_view::{Variables, Views, WithDerived};
use std::path::PathBuf;
use std::sync::Arc;

/// What a look at the live tree found, and what was done.
#[derive(Debug, Clone, Default)]
pub struct Looked {
    /// What differed, of at most [`rootcast::limits::MAX_DIFFERENCES`] paths.
    pub differences: Vec<Difference>,
    /// How many differed.
    pub found: u64,
    /// How `current` was put right, where it was not.
    pub current: Option<CurrentRepaired>,
    /// Whether `current` differs and was left so.
    pub current_differs: bool,
    /// The places outside the slots that differed.
    pub installed: Vec<Spot>,
    /// Places that differ and cannot be put right, and why.
    pub refused: Vec<(Spot, String)>,
    /// Whether what differed was put right.
    pub repaired: bool,
    /// Whether that took the other slot.
    pub flipped: bool,
    /// Things removed that the view has not, those in directories counted each.
    pub removed: u64,
}

impl Looked {
    /// Whether all was as it should be.
    pub fn is_whole(&self) -> bool {
        self.found == 0 && self.current.is_none() && !self.current_differs && self.installed.is_empty()
    }

    /// The places that differed.
    pub fn spots(&self) -> impl Iterator<Item = Spot> + '_ {
        let current = (self.current.is_some() || self.current_differs).then_some(Spot::Current);
        let paths = self.differences.iter().map(|one| Spot::path(&one.path.to_string_lossy()));
        current.into_iter().chain(paths).chain(self.installed.iter().cloned())
    }
}

/// More paths than this are looked up in the whole view: each costs a way down each layer's tree.
const LOOK_UP_MOST: usize = 64;

/// The view that a slot shows, of which no more is resolved than is asked for: what had to be made for that, and
/// what was left out, is known already.
pub(super) struct ShownView<'a> {
    pub(super) views: &'a Views<'a>,
    pub(super) shown: &'a Shown,
}

impl ShownView<'_> {
    /// What is at a path and beneath it; all where that is empty.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub(super) fn part(&self, path: &str) -> Result<View, TreeError> {
        let mut part = self.views.layers().below(path)?;
        part.retain(|path, entry| match entry {
            Entry::Secret { .. } => self.shown.secrets.contains_key(path),
            Entry::File { content, .. } => {
                if let Some((id, size)) = self.shown.derived.get(path) {
                    *content = Content::Blob { id: *id, size: *size };
                }
                true
            }
            Entry::Symlink { .. } => true,
        });
        Ok(part)
    }
}

impl slots::View for ShownView<'_> {
    fn entries(&self) -> Entries<'_> {
        self.below("")
    }

    fn below<'a>(&'a self, path: &'a str) -> Entries<'a> {
        match self.part(path) {
            Ok(part) => Box::new(part.into_iter().map(Ok)),
            Err(TreeError::Read(error)) => Box::new(std::iter::once(Err(error.into()))),
            Err(error) => Box::new(std::iter::once(Err(SlotError::View(Box::new(error))))),
        }
    }
}

/// A view that is read at somebody's pace.
struct Paced<'a> {
    view: &'a View,
    pace: &'a dyn Fn(u64) -> bool,
}

impl slots::View for Paced<'_> {
    fn entries(&self) -> Entries<'_> {
        let ended = || Err(SlotError::View("the comparison was ended".into()));
        let go_on = |entry: &Entry| (self.pace)(entry.size());
        Box::new(self.view.entries().map(move |item| match item {
            Ok((_, entry)) if !go_on(&entry) => ended(),
            item => item,
        }))
    }
}

/// A tree to be compared, with no hold on the activation.
pub struct Comparable {
    root: PathBuf,
    view: View,
    shown: Shown,
    variables: Variables,
    secrets: Option<PathBuf>,
    ignored: Patterns,
    replica: Arc<Replica>,
    placed: Option<Placed>,
}

impl Comparable {
    /// The first places outside the slots that differ.
    ///
    /// # Errors
    /// As [`Placed::differing`].
    pub fn differing_places(&self) -> Result<Vec<Spot>, AgentError> {
        self.placed.as_ref().map_or_else(|| Ok(Vec::new()), Placed::differing)
    }

    /// Compares all of the tree. Before each file `pace` is told how many bytes it has, and says whether to go on. Another generation may become live meanwhile: what is found is to be looked at again.
    ///
    /// # Errors
    /// As [`slots::Slots::check_active`].
    pub fn check(&self, pace: &dyn Fn(u64) -> bool) -> Result<Checked, AgentError> {
        let views = self.shown.of.views(&**self.replica.store(), &self.variables)?;
        let contents = WithDerived::new(&views, &self.shown.derived);
        let view = Paced { view: &self.view, pace };
        Ok(slots::check_tree(&self.root, &view, &contents, self.secrets.as_deref(), &self.ignored)?)
    }
}

impl Activation {
    /// The same, with paths of the live tree that are left alone.
    #[must_use]
    pub fn with_ignored(mut self, ignored: Patterns) -> Self {
        self.ignored = ignored.clone();
        self.slots.set_ignored(ignored);
        self
    }

    /// What differs between what was live and what is, before the old one is forgotten; none where
    /// that is not known, or more than [`MAX_CHANGED`].
    pub(super) fn note_changes(&self, objects: &dyn ObjectSource) -> Option<Vec<Box<str>>> {
        let (before, now) = (self.standby.as_ref()?, self.active.as_ref()?);
        // Other rules make other files of the same layers.
        if before.of.rules != now.of.rules {
            return None;
        }
        let was = before.of.views(objects, &self.variables).ok()?;
        let is = now.of.views(objects, &self.variables).ok()?;
        let changed = super::changed(&was, &before.derived, &is).ok()?;
        (changed.len() <= MAX_CHANGED).then(|| changed.keys().map(|path| path.as_str().into()).collect())
    }

    /// What the last flip changed, as far as it is known. Told once.
    pub(crate) fn take_changed(&mut self) -> Option<Vec<Box<str>>> {
        self.changed.take()
    }

    /// Where the live tree is, once it is known to be whole, and since when.
    pub(crate) fn live_tree(&self) -> Option<(PathBuf, Moment)> {
        self.active.as_ref()?;
        let slot = self.slots.live()?;
        Some((self.slots.path(slot), self.slots.whole_since()))
    }

    /// What is live, to be compared. Also makes its secrets again that are not there any more.
    ///
    /// # Errors
    /// The layers cannot be resolved.
    pub fn comparable(&mut self) -> Result<Option<Comparable>, AgentError> {
        let (Some((root, _)), Some(active)) = (self.live_tree(), self.active.clone()) else {
            return Ok(None);
        };
        let store = self.replica.store().clone();
        if !active.secrets.is_empty() {
            self.secrets.put(&active.secrets, &*store)?;
        }
        let variables = self.variables.clone();
        let views = active.of.views(&*store, &variables)?;
        let (view, shown) = self.view(&active.of, &views, &*store)?;
        let secrets = self.secrets.path().map(PathBuf::from);
        let (ignored, replica, placed) = (self.ignored.clone(), self.replica.clone(), self.placed());
        let variables = variables.clone();
        Ok(Some(Comparable { root, view, shown, variables, secrets, ignored, replica, placed }))
    }

    /// Compares places, and puts right what differs if `allow` is given, which says where outside the slots:
    /// in place where that is little, by staging the other slot and flipping to it where it is much.
    ///
    /// # Errors
    /// What is not in the store, and what the disk refuses; the same can be tried again.
    pub fn look(&mut self, spots: &[Spot], allow: Option<&Allow>) -> Result<Looked, AgentError> {
        let repair = allow.is_some();
        let mut looked = Looked { repaired: repair, ..Looked::default() };
        let Some(active) = self.active.clone() else { return Ok(looked) };
        if spots.contains(&Spot::Current) {
            if repair {
                looked.current = self.slots.repair_current()?;
            } else {
                looked.current_differs = !self.slots.current_is_right();
            }
        }
        // What is installed is compared with the tree, so that part of it is looked at first.
        let in_tree = spots.iter().filter(|spot| matches!(spot, Spot::Path(_))).cloned();
        let in_tree = outermost(in_tree.chain(self.sources(spots)));
        let paths: Vec<&str> = in_tree
            .iter()
            .filter_map(|spot| match spot {
                Spot::Path(path) => Some(&**path),
                Spot::Current | Spot::Installed(_) => None,
            })
            .collect();
        if !paths.is_empty() {
            self.look_at_tree(&active, &paths, repair, &mut looked)?;
        }
        // What was done to the tree is done, and told.
        if let Err(error) = self.look_at_places(spots, allow, &mut looked) {
            let places = spots.iter().filter(|spot| matches!(spot, Spot::Installed(_)));
            looked.refused = places.map(|place| (place.clone(), error.to_string())).collect();
        }
        Ok(looked)
    }

    fn look_at_tree(
        &mut self,
        active: &Shown,
        paths: &[&str],
        repair: bool,
        looked: &mut Looked,
    ) -> Result<(), AgentError> {
        let store = self.replica.store().clone();
        let variables = self.variables.clone();
        let views = active.of.views(&*store, &variables)?;
        let contents = WithDerived::new(&views, &active.derived);
        let lazy = ShownView { views: &views, shown: active };
        let whole = if paths.len() > LOOK_UP_MOST { Some(lazy.part("")?) } else { None };
        let view = whole.as_ref().map_or(&lazy as &dyn slots::View, |whole| whole);
        let checked = self.slots.check_paths(view, &contents, paths)?;
        if checked.is_whole() {
            return Ok(());
        }
        (looked.differences, looked.found) = (checked.differences, checked.found);
        if !repair {
            // What is staged on top of it must not be by changes alone.
            // Hooks judge what is in the other slot, and that is what they have to find there.
            if self.under_way && self.ready.is_some() {
                return Err(AgentError::UnderWay);
            }
            self.slots.distrust_live();
            return Ok(());
        }
        let extra = looked.differences.iter().filter(|one| one.fault == Fault::Extra).count() as u64;
        if looked.found - extra <= MAX_REPAIRS_IN_PLACE && looked.found == looked.differences.len() as u64 {
            match self.slots.repair(view, &contents, &looked.differences) {
                Ok(repaired) => {
                    looked.removed = repaired.things;
                    return Ok(());
                }
                Err(error) if error.needs_full() => tracing::info!(%error, "repairing by the other slot"),
                Err(error) => return Err(error.into()),
            }
        }
        let whole = whole.map_or_else(|| lazy.part(""), Ok)?;
        self.replace_live(&whole, &contents, looked)
    }

    /// Makes the other slot what the live one should be, and flips to it.
    fn replace_live(
        &mut self,
        view: &View,
        contents: &dyn ObjectSource,
        looked: &mut Looked,
    ) -> Result<(), AgentError> {
        self.slots.distrust_live();
        self.slots.put_back()?;
        looked.current = self.slots.repair_current()?.or(looked.current.take());
        // What waits to be made live was in that slot; it is staged again when its turn comes.
        (self.standby, self.ready) = (None, None);
        let staged = self.slots.stage_full(view, contents)?;
        self.slots.activate(staged)?;
        looked.flipped = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Made;
    use super::*;
    use crate::slots::View as _;
    use rootcast::chunking;
    use rootcast::id::{BlobId, NodeId};
    use rootcast::object::ObjectMap;
    use rootcast::path::{BundleName, ConfigPath};
    use rootcast::pattern::Pattern;
    use rootcast::tree::{Changes, empty_root, update};
    use rootcast::view_rules::{MergeRule, ViewRules};
    use rootcast_view::Resolved;
    use std::collections::BTreeMap;

    /// A layer of these files; a name that begins with `secret` is a secret.
    fn layer(objects: &mut ObjectMap, files: impl IntoIterator<Item = (String, String)>) -> NodeId {
        let mut new = ObjectMap::new();
        let entries = files.into_iter().map(|(path, content)| {
            let size = content.len() as u64;
            let entry = if path.starts_with("secret") {
                Entry::Secret { id: BlobId::of(content.as_bytes()), size }
            } else {
                let content = chunking::store(content.into(), &mut new).unwrap();
                Entry::File { content, executable: false }
            };
            (ConfigPath::new(&path).unwrap(), Some(entry))
        });
        let entries: Changes = entries.collect();
        let (root, _) = update(objects, empty_root(), &entries, &mut new).unwrap();
        objects.append(&mut new);
        root
    }

    #[test]
    fn a_52_a_part_of_the_view_is_what_the_whole_view_has_there() {
        let mut objects = ObjectMap::new();
        let file = |path: &str, content: &str| (path.to_owned(), content.to_owned());
        let many = (0..2000).map(|number| file(&format!("d{}/f{number}", number % 12), "1"));
        let few = ["d1-x", "d1.yaml", "m.yaml", "secret/ours", "secret/theirs"];
        let low = layer(&mut objects, many.chain(few.iter().map(|path| file(path, "a: 1\n"))));
        let some = (0..2000).step_by(7).map(|number| file(&format!("d{}/f{number}", number % 12), "2"));
        let high =
            layer(&mut objects, some.chain([file("m.yaml", "b: 2\n"), file("d1/only/here/deep", "3")]));
        let merge = MergeRule { files: vec![Pattern::new("*.yaml").unwrap()], keys: BTreeMap::new() };
        let rules = Arc::new(ViewRules { merges: vec![merge], ..ViewRules::default() });
        let names = ["low", "high"].map(|name| BundleName::new(name).unwrap()).to_vec();
        let (of, variables) = (Made { names, roots: vec![low, high], rules }, Variables::default());
        let (source, made): (&dyn ObjectSource, _) = (&objects, of.clone());
        let views = made.views(source, &variables).unwrap();
        let Resolved { entries: mut whole, derived } = views.resolve().unwrap();
        whole.remove("secret/theirs").unwrap();
        let secret = match whole.get_key_value("secret/ours").unwrap() {
            (path, Entry::Secret { id, size }) => (path.clone(), (*id, *size)),
            other => panic!("{other:?}"),
        };
        let secrets = [secret].into_iter().collect();
        let shown = Shown { of, derived, files: 0, secrets, left_out: 1 };
        let lazy = ShownView { views: &views, shown: &shown };
        let parents = whole.keys().flat_map(ConfigPath::parents).map(str::to_owned);
        let mut paths: Vec<String> =
            parents.chain(whole.keys().step_by(5).map(ToString::to_string)).collect();
        paths.extend(
            ["", "d1", "d", "d1/f", "m", "secret/theirs", "nowhere/at/all", "zzz"].map(str::to_owned),
        );
        paths.sort();
        paths.dedup();
        for path in &paths {
            let wanted: View = whole.below(path).collect::<Result<_, _>>().unwrap();
            let found: View = lazy.below(path).collect::<Result<_, _>>().unwrap();
            assert_eq!(found, wanted, "{path}");
        }
        assert!(paths.len() > 400 && whole.len() > 2000);
    }
}
