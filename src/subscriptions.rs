//! What the children of a relay want, and so what it holds (specs/wire.md, W-50 to W-53).
//!
//! A name is wanted while a child that may have it subscribes to it, and for a
//! while after the last one left: children restart, and networks part. So a
//! relay sheds nothing that is asked for again soon.

use crate::layers::BASE_BUNDLE;
use crate::limits::MAX_WANTED;
use crate::path::{BundleName, PathError};
use crate::plan::{Plan, base_bundle, plan_bundle};
use crate::protocol::Interest;
use crate::verify::VerifiedBundles;
use core::str::FromStr;
use core::time::Duration;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a relay's own settings keep, whatever its children want.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Keep {
    /// `*`: every bundle; a mirror of the origin.
    All,
    /// `role/*`: every bundle whose name begins so.
    Below(Box<str>),
    /// One bundle.
    Named(BundleName),
}

impl FromStr for Keep {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text == "*" {
            return Ok(Self::All);
        }
        match text.strip_suffix("/*") {
            Some(parent) => BundleName::new(parent).map(|parent| Self::Below(parent.as_str().into())),
            None => BundleName::new(text).map(Self::Named),
        }
    }
}

impl TryFrom<String> for Keep {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

impl Keep {
    fn covers(&self, name: &BundleName) -> bool {
        match self {
            Self::All => true,
            Self::Below(parent) => {
                name.as_str().strip_prefix(&**parent).is_some_and(|rest| rest.starts_with('/'))
            }
            Self::Named(kept) => kept == name,
        }
    }

    /// What these settings come to in a release with this plan. The plan itself
    /// is always kept: it says what children may read. Before anything is known
    /// `base` is too, which a release without a plan consists of.
    pub fn interest(kept: &[Self], plan: Option<&Plan>) -> Interest {
        if kept.contains(&Self::All) {
            return Interest::All;
        }
        let mut names: BTreeSet<BundleName> = plan_bundle().into_iter().collect();
        match plan {
            None => names.extend(base_bundle()),
            Some(plan) => {
                let keeps = |name: &&BundleName| kept.iter().any(|keep| keep.covers(name));
                names.extend(plan.bundles.iter().filter(keeps).cloned());
            }
        }
        names.extend(kept.iter().filter_map(|keep| match keep {
            Self::Named(name) => Some(name.clone()),
            Self::All | Self::Below(_) => None,
        }));
        Interest::named(names)
    }
}

/// How one name, or all, is wanted.
#[derive(Debug, Clone, Copy, Default)]
struct Want {
    /// Children that subscribe to it.
    children: u32,
    /// When the last of them left.
    left: Duration,
}

impl Want {
    fn is_over(&self, now: Duration, kept: Duration) -> bool {
        self.children == 0 && now.saturating_sub(self.left) >= kept
    }
}

/// What is wanted of one channel. Times are measured from any one moment.
#[derive(Debug, Clone)]
pub struct Subscriptions {
    kept: Duration,
    own: Interest,
    all: Option<Want>,
    names: BTreeMap<BundleName, Want>,
}

impl Subscriptions {
    /// What is wanted at the start: what is held counts as wanted a moment ago,
    /// so that a restart sheds nothing. `kept`: how long a name is wanted after the last child that wanted it.
    pub fn new(held: impl IntoIterator<Item = BundleName>, kept: Duration, now: Duration) -> Self {
        let want = Want { children: 0, left: now };
        let names = held.into_iter().map(|name| (name, want)).collect();
        Self { kept, own: Interest::Named(Vec::new()), all: None, names }
    }

    /// What the relay itself wants from now on. What it does not want any more is kept like what a child left.
    pub fn set_own(&mut self, own: Interest, now: Duration) {
        let before = core::mem::replace(&mut self.own, own);
        let want = Want { children: 0, left: now };
        match before {
            Interest::All if self.own != Interest::All => drop(self.all.get_or_insert(want)),
            Interest::All => {}
            Interest::Named(names) => {
                for name in names.into_iter().filter(|name| !self.own.covers(name)) {
                    self.names.entry(name).or_insert(want);
                }
            }
        }
    }

    /// A child subscribes to what it may have. Whether something is wanted now that was not.
    pub fn enter(&mut self, interest: &Interest) -> bool {
        let names = match interest {
            Interest::Named(names) => names,
            Interest::All => {
                let grows = self.all.is_none();
                self.all.get_or_insert_default().children += 1;
                return grows;
            }
        };
        let mut new = Vec::new();
        for name in names {
            match self.names.get_mut(name) {
                Some(want) => want.children = want.children.saturating_add(1),
                None => new.push(name.clone()),
            }
        }
        self.make_room(new.len());
        // Names beyond the bound are wanted for nobody.
        new.truncate(MAX_WANTED.saturating_sub(self.names.len()));
        let grows = !new.is_empty();
        self.names.extend(new.into_iter().map(|name| (name, Want { children: 1, left: Duration::ZERO })));
        grows
    }

    /// A child that had entered with this is gone.
    pub fn leave(&mut self, interest: &Interest, now: Duration) {
        let leave = |want: &mut Want| {
            want.children = want.children.saturating_sub(1);
            want.left = now;
        };
        match interest {
            Interest::All => self.all.iter_mut().for_each(leave),
            Interest::Named(names) => {
                for name in names {
                    self.names.get_mut(name).into_iter().for_each(leave);
                }
            }
        }
    }

    /// Forgets the names that were left longest ago, as far as so many others need their room.
    fn make_room(&mut self, names: usize) {
        let over = (self.names.len() + names).saturating_sub(MAX_WANTED);
        if over == 0 {
            return;
        }
        let mut idle: Vec<(Duration, BundleName)> = self
            .names
            .iter()
            .filter(|(_, want)| want.children == 0)
            .map(|(name, want)| (want.left, name.clone()))
            .collect();
        idle.sort_unstable();
        for (_, name) in idle.into_iter().take(over) {
            self.names.remove(&name);
        }
    }

    /// Forgets what nobody has wanted for long. Whether there was any.
    pub fn expire(&mut self, now: Duration) -> bool {
        let (kept, before) = (self.kept, (self.names.len(), self.all.is_some()));
        self.names.retain(|_, want| !want.is_over(now, kept));
        self.all = self.all.filter(|want| !want.is_over(now, kept));
        before != (self.names.len(), self.all.is_some())
    }

    /// When there may be something to forget next.
    pub fn next_expiry(&self) -> Option<Duration> {
        let idle = self.names.values().chain(&self.all).filter(|want| want.children == 0);
        idle.map(|want| want.left.saturating_add(self.kept)).min()
    }

    /// All that is wanted.
    pub fn interest(&self) -> Interest {
        match &self.own {
            Interest::Named(own) if self.all.is_none() => {
                Interest::named(own.iter().chain(self.names.keys()).cloned())
            }
            _ => Interest::All,
        }
    }
}

/// The bundles of an interest that are in a release and not among those that are
/// held of it. What is in a release its plan says; one without a plan consists of `base`.
pub fn lacking(held: &VerifiedBundles, plan: Option<&Plan>, interest: &Interest) -> Vec<BundleName> {
    if held.is_complete() {
        return Vec::new();
    }
    let is_there = |name: &BundleName| match plan {
        Some(plan) => plan.bundles.contains(name),
        None => name.as_str() == BASE_BUNDLE,
    };
    let lacks = |name: &&BundleName| held.index(name).is_none();
    match (interest, plan) {
        (Interest::Named(names), _) => {
            names.iter().filter(|name| is_there(name)).filter(lacks).cloned().collect()
        }
        (Interest::All, Some(plan)) => plan.bundles.iter().filter(lacks).cloned().collect(),
        (Interest::All, None) => base_bundle().iter().filter(lacks).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Duration = Duration::from_secs(100);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn name(text: &str) -> BundleName {
        BundleName::new(text).unwrap()
    }

    fn named(names: &[&str]) -> Interest {
        Interest::named(names.iter().map(|text| name(text)))
    }

    fn nothing() -> Subscriptions {
        Subscriptions::new([], KEPT, at(0))
    }

    #[test]
    fn w_50_what_is_wanted_is_what_live_children_and_the_relay_itself_want() {
        let mut wanted = nothing();
        wanted.set_own(named(&["plan"]), at(0));
        assert!(wanted.enter(&named(&["base", "role/web"])));
        assert!(!wanted.enter(&named(&["base"])), "it is wanted already");
        assert!(wanted.enter(&named(&["role/nothing"])), "also what there is not, yet");
        assert_eq!(wanted.interest(), named(&["base", "plan", "role/nothing", "role/web"]));
        assert!(wanted.enter(&Interest::All) && !wanted.enter(&Interest::All));
        assert_eq!(wanted.interest(), Interest::All);
    }

    #[test]
    fn w_51_what_a_lost_child_wanted_is_kept_for_the_stated_time_after_the_last() {
        let mut wanted = nothing();
        for _ in 0..2 {
            wanted.enter(&named(&["base"]));
        }
        wanted.enter(&Interest::All);
        wanted.leave(&named(&["base"]), at(10));
        assert_eq!(wanted.next_expiry(), None, "one is left");
        wanted.leave(&named(&["base"]), at(20));
        wanted.leave(&Interest::All, at(30));
        assert_eq!(wanted.next_expiry(), Some(at(120)));
        assert!(!wanted.expire(at(119)) && wanted.interest() == Interest::All);
        assert!(wanted.expire(at(130)) && wanted.interest() == named(&[]));
        // One that comes back in time keeps it.
        wanted.enter(&named(&["base"]));
        wanted.leave(&named(&["base"]), at(200));
        assert!(!wanted.enter(&named(&["base"])));
        assert!(!wanted.expire(at(1000)) && wanted.interest() == named(&["base"]));
    }

    #[test]
    fn w_51_what_the_relay_itself_wanted_is_kept_for_the_stated_time_too() {
        let mut wanted = nothing();
        wanted.set_own(named(&["base", "plan"]), at(0));
        wanted.set_own(named(&["plan"]), at(10));
        assert!(!wanted.expire(at(109)) && wanted.interest() == named(&["base", "plan"]));
        assert!(wanted.expire(at(110)) && wanted.interest() == named(&["plan"]));
        wanted.set_own(Interest::All, at(200));
        assert!(!wanted.expire(at(1000)));
        wanted.set_own(named(&["plan"]), at(1000));
        assert!(!wanted.expire(at(1099)) && wanted.interest() == Interest::All);
        assert!(wanted.expire(at(1100)) && wanted.interest() == named(&["plan"]));
    }

    #[test]
    fn w_51_a_restart_sheds_nothing_at_once() {
        let mut wanted = Subscriptions::new([name("base"), name("role/web")], KEPT, at(5));
        assert_eq!(wanted.interest(), named(&["base", "role/web"]));
        wanted.enter(&named(&["base"]));
        assert!(!wanted.expire(at(104)) && wanted.expire(at(105)));
        assert_eq!(wanted.interest(), named(&["base"]));
    }

    #[test]
    fn w_52_names_are_bounded_and_the_longest_idle_goes_first() {
        let mut wanted = nothing();
        for (number, text) in ["old", "older"].into_iter().enumerate() {
            wanted.enter(&named(&[text]));
            wanted.leave(&named(&[text]), at(9 - number as u64));
        }
        wanted.enter(&Interest::named((0..MAX_WANTED).map(|n| name(&format!("host/h{n}")))));
        let held = |wanted: &Subscriptions, text| wanted.interest().covers(&name(text));
        assert!(!held(&wanted, "old") && !held(&wanted, "older"), "both made room");
        assert_eq!(wanted.names.len(), MAX_WANTED);
        assert!(!wanted.enter(&named(&["new"])) && !held(&wanted, "new"), "those in use stay");
        wanted.leave(&named(&["host/h7", "new"]), at(10));
        assert!(wanted.enter(&named(&["new"])) && held(&wanted, "new") && !held(&wanted, "host/h7"));
    }

    #[test]
    fn w_53_settings_keep_all_what_is_below_a_name_or_one_bundle() {
        let keep = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Keep>>();
        let layers = vec![crate::layers::LayerPattern::parse("base").unwrap()];
        let bundles = ["base", "role/db", "role/web", "roles"].map(name).into();
        let plan = Plan { layers, bundles };
        let interest = |texts| Keep::interest(&keep(texts), Some(&plan));
        assert_eq!(interest(&[]), named(&["plan"]));
        assert_eq!(interest(&["*"]), Interest::All);
        assert_eq!(interest(&["role/*"]), named(&["plan", "role/db", "role/web"]));
        assert_eq!(interest(&["base", "later"]), named(&["base", "later", "plan"]));
        assert_eq!(Keep::interest(&keep(&["role/*"]), None), named(&["base", "plan"]));
        for text in ["", "**", "*/web", "Role", "/*", "role/"] {
            assert!(text.parse::<Keep>().is_err(), "{text}");
        }
    }
}
