//! What services of the live generation have installed outside the slots: compared and put right
//! (specs/activation.md, A-50 to A-59).

use super::live::ShownView;
use super::{Activation, Looked};
use crate::AgentError;
use crate::services::{Allow, Installer};
use rootcast::activation::Generation;
use rootcast::drift::Spot;
use rootcast::limits::MAX_INSTALLED;
use rootcast::path::ConfigPath;
use rootcast::service::{Install, Services};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How often what is live has become another, or is known anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Turned {
    /// The tree that `current` leads to.
    pub(crate) tree: u64,
    /// What is installed.
    pub(crate) installed: u64,
}

/// What a generation has installed.
pub(super) struct Installing {
    installer: Installer,
    services: Services,
    /// Where, and the path in the view that each is of.
    places: BTreeMap<PathBuf, Box<str>>,
}

/// What is installed, to be compared with the tree that it is of.
#[derive(Clone)]
pub(crate) struct Placed {
    installing: Arc<Installing>,
    root: PathBuf,
}

impl Placed {
    /// The places.
    pub(crate) fn places(&self) -> impl Iterator<Item = &str> {
        self.installing.places.keys().filter_map(|place| place.to_str())
    }

    /// The first places that differ, with no hold on the activation: what is found is to be looked at again.
    ///
    /// # Errors
    /// As [`Installer::differing`].
    pub(crate) fn differing(&self) -> Result<Vec<Spot>, AgentError> {
        let Installing { installer, services, places } = &*self.installing;
        let differing = installer.differing(services, &self.root, places.keys().map(PathBuf::as_path))?;
        Ok(differing.iter().map(|place| Spot::installed(&place.to_string_lossy())).collect())
    }
}

impl Activation {
    /// Nothing is under way any more: the services of what is live have installed what they install, and that is
    /// kept so from now on. `books` is where the installer remembers.
    pub(crate) fn settle(&mut self, live: &Generation, books: &Path) {
        self.under_way = false;
        let had = self.installed.take().is_some();
        match self.installing(live, books) {
            Ok(installing) => self.installed = installing.map(Arc::new),
            Err(error) => tracing::warn!(%error, "what services installed cannot be watched"),
        }
        if had || self.installed.is_some() {
            self.turned.send_modify(|turned| turned.installed += 1);
        }
    }

    /// An activation is under way: what is installed may be of one generation or another, and is its business alone.
    pub(crate) fn unsettle(&mut self) {
        (self.installed, self.under_way) = (None, true);
    }

    /// What is installed, if nothing is under way.
    pub(crate) fn placed(&self) -> Option<Placed> {
        let (root, _) = self.live_tree()?;
        Some(Placed { installing: self.installed.clone()?, root })
    }

    fn installing(&self, live: &Generation, books: &Path) -> Result<Option<Installing>, AgentError> {
        let services = self.services(live)?;
        let Some(active) = self.active.as_ref() else { return Ok(None) };
        if services.iter().all(|service| service.install.is_empty()) {
            return Ok(None);
        }
        let store = self.replica.store().clone();
        let views = active.of.views(&*store, &self.variables)?;
        let view = ShownView { views: &views, shown: active };
        let mut places = BTreeMap::new();
        for install in services.iter().flat_map(|service| &service.install) {
            add_places(view.part(install.from.as_str())?.keys(), install, &mut places);
        }
        // Of what is left alone in the tree nobody knows what is right.
        places.retain(|_, from| !self.ignored.covers(Path::new(&**from)));
        let installer = Installer::new(books.to_owned(), self.current());
        Ok(Some(Installing { installer, services, places }))
    }

    /// The paths of the tree that these places are copies of or links to.
    pub(super) fn sources(&self, spots: &[Spot]) -> Vec<Spot> {
        let Some(installing) = &self.installed else { return Vec::new() };
        let places = spots.iter().filter_map(|spot| match spot {
            Spot::Installed(place) => installing.places.get(Path::new(&**place)),
            Spot::Current | Spot::Path(_) => None,
        });
        places.map(|from| Spot::Path(from.clone())).collect()
    }

    /// Compares places with the tree, whose own part in them was compared a moment ago; and puts right what differs
    /// if `allow` is given.
    pub(super) fn look_at_places(
        &mut self,
        spots: &[Spot],
        allow: Option<&Allow>,
        looked: &mut Looked,
    ) -> Result<(), AgentError> {
        let Some(Placed { installing, root }) = self.placed() else { return Ok(()) };
        // Where the tree differs and is left so, nothing can be said of a copy.
        let is_unsure = |from: &str| {
            let from = Path::new(from);
            let differs = |path: &Path| from.starts_with(path) || path.starts_with(from);
            allow.is_none() && looked.differences.iter().any(|one| differs(&one.path))
        };
        let asked = spots.iter().filter_map(|spot| match spot {
            Spot::Installed(place) => Some(PathBuf::from(&**place)),
            Spot::Current | Spot::Path(_) => None,
        });
        let is_place = |place: &PathBuf| installing.places.get(place).is_some_and(|from| !is_unsure(from));
        let asked: BTreeSet<PathBuf> = asked.filter(is_place).collect();
        if asked.is_empty() {
            return Ok(());
        }
        let Installing { installer, services, .. } = &*installing;
        let compared = installer.compare(services, &root, &asked, allow)?;
        let spot = |place: &Path| Spot::installed(&place.to_string_lossy());
        looked.installed = compared.differing.iter().map(|place| spot(place)).collect();
        looked.refused =
            compared.refused.iter().map(|(place, error)| (spot(place), error.to_string())).collect();
        Ok(())
    }
}

/// Adds where an entry of `install` puts these, which are what the view has of it.
fn add_places<'p>(
    paths: impl Iterator<Item = &'p ConfigPath>,
    install: &Install,
    places: &mut BTreeMap<PathBuf, Box<str>>,
) {
    for (place, from) in paths.filter_map(|path| install.place_of(path)) {
        if places.len() >= MAX_INSTALLED {
            return;
        }
        places.insert(PathBuf::from(place), from.as_str().into());
    }
}
