//! The tree that is live, compared and put right (specs/activation.md, A-50 to A-58).

use super::{Activation, Placed, Shown, View};
use crate::AgentError;
use crate::services::Allow;
use crate::slots::{self, Checked, CurrentRepaired, Difference, Fault, Moment, Patterns};
use rootcast::drift::{Spot, outermost};
use rootcast::limits::{MAX_CHANGED, MAX_REPAIRS_IN_PLACE};
use rootcast::object::ObjectSource;
use rootcast_replica::Replica;
use rootcast_view::{Variables, WithDerived};
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

    /// Compares all of the tree. Another generation may become live meanwhile: what is found is to be looked at again.
    ///
    /// # Errors
    /// As [`slots::Slots::check_active`].
    pub fn check(&self) -> Result<Checked, AgentError> {
        let views = self.shown.of.views(&**self.replica.store(), &self.variables)?;
        let contents = WithDerived::new(&views, &self.shown.derived);
        Ok(slots::check_tree(&self.root, &self.view, &contents, self.secrets.as_deref(), &self.ignored)?)
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
        self.look_at_places(spots, allow, &mut looked)?;
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
        let (view, shown) = self.view(&active.of, &views, &*store)?;
        let contents = WithDerived::new(&views, &shown.derived);
        let checked = self.slots.check_paths(&view, &contents, paths)?;
        if checked.is_whole() {
            return Ok(());
        }
        (looked.differences, looked.found) = (checked.differences, checked.found);
        if !repair {
            // What is staged on top of it must not be by changes alone.
            self.slots.distrust_live();
            return Ok(());
        }
        let extra = looked.differences.iter().filter(|one| one.fault == Fault::Extra).count() as u64;
        if looked.found - extra <= MAX_REPAIRS_IN_PLACE && looked.found == looked.differences.len() as u64 {
            match self.slots.repair(&view, &contents, &looked.differences) {
                Ok(repaired) => {
                    looked.removed = repaired.things;
                    return Ok(());
                }
                Err(error) if error.needs_full() => tracing::info!(%error, "repairing by the other slot"),
                Err(error) => return Err(error.into()),
            }
        }
        self.replace_live(&view, &contents, looked)
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
        self.standby = None;
        let staged = self.slots.stage_full(view, contents)?;
        self.slots.activate(staged)?;
        looked.flipped = true;
        Ok(())
    }
}
