//! Taking in an update: verify, judge, apply, make durable, tell.

use crate::{Fresh, Held, Replica, ReplicaError, Update};
use rootcast::acceptance::{Floors, Verdict, judge};
use rootcast::codec;
use rootcast::limits::MAX_WAYPOINTS;
use rootcast::object::ObjectSource;
use rootcast::path::BundleName;
use rootcast::protocol::{EditBase, Interest};
use rootcast::release::BundleLeaf;
use rootcast::tree::empty_root;
use rootcast::verify::{Admitted, Passage, ReleaseRecord, VerifiedBundles, VerifyError};
use rootcast_store::Batch;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Under which rule an update is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A replica's: what a parent sent.
    Follow,
    /// A publisher's: what it builds its own release on.
    Base,
    /// The origin's: what a publisher sent must be exactly the next release,
    /// whole, with the log's own edits.
    Origin,
    /// A publisher's own: the origin took it, and its trees are in the store already.
    Own,
}

/// What became of an update.
#[derive(Debug, Clone)]
pub enum Received {
    /// It is held and durable.
    Held(Arc<Held>),
    /// It was held already.
    Known,
}

impl Replica {
    /// Takes in an update. Blocking: runs on a thread that may wait for the disk.
    ///
    /// # Errors
    /// The replica stays at what it held; see [`ReplicaError`].
    pub fn receive(
        &self,
        update: &Update,
        interest: &Interest,
        rule: Rule,
    ) -> Result<Received, ReplicaError> {
        let _turn = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        let trust = self.judging()?;
        let release = match rule {
            // What it builds on may have been signed by keys that are gone since.
            Rule::Base => self.trust.chain().known_release(&self.channel, &update.head.release)?,
            _ => trust.release(&self.channel, &update.head.release)?,
        };
        let floors = self.store.floors();
        let held = self.held();
        let verdict = judge(&floors, &release.offer());
        // Publishers that race are no evidence of anything: the slower one compiles anew.
        if rule == Rule::Origin && !matches!(verdict, Ok(Verdict::Next)) {
            return Err(ReplicaError::NotNext);
        }
        let verdict = verdict.inspect_err(|refusal| {
            self.evidence.keep(refusal, release.accepted().hash, release.document());
        });
        let verdict = verdict?;
        let leaves = Self::leaves(update, held.as_deref(), interest, release.accepted().number)?;
        let bundles = release.bundles(leaves, &update.head.siblings)?;
        if let Some(other) = bundles.leaves().values().find(|leaf| !interest.covers(&leaf.name)) {
            return Err(ReplicaError::NotAsked(other.name.clone()));
        }
        // Of the release that is held no parent can take a bundle away again.
        if let Some(held) = held.as_ref().filter(|held| held.accepted() == bundles.release().accepted())
            && let Some(gone) = covered(held, interest).find(|(_, leaf)| bundles.leaf(&leaf.name).is_none())
        {
            return Err(ReplicaError::Incomplete(gone.1.name.clone()));
        }
        let gains = held.as_ref().is_none_or(|held| {
            held.accepted().rank() < bundles.release().accepted().rank()
                || bundles.leaves().values().any(|leaf| held.bundles.leaf(&leaf.name).is_none())
        });
        if verdict == Verdict::Same && !gains && update.edits.is_empty() {
            return Ok(Received::Known);
        }
        if rule == Rule::Origin {
            Self::check_publication(&bundles, update, held.as_deref())?;
        }
        let admitted = Self::admit(&bundles, update, held.as_deref())?;
        let now = Held::new(bundles.clone(), update.head.siblings.clone(), trust.trust().version);
        let now = Arc::new(now);
        if self.keep_log {
            // Here rather than where the first child waits for its proof.
            now.tree()?;
        }
        // The origin tells nobody before it is durable; a relay may (invariant 6).
        if rule == Rule::Follow && self.set_fresh(&now, update, verdict, held.clone()) {
            self.offer(now.accepted());
        }
        self.keep(&bundles, update, &admitted, &floors, rule)?;
        if self.keep_log {
            self.inherit_snapshots(&bundles, update, held.as_deref());
        }
        if rule == Rule::Origin {
            self.set_fresh(&now, update, verdict, held);
        }
        self.held.send_replace(Some(now.clone()));
        self.offer(now.accepted());
        Ok(Received::Held(now))
    }

    /// The leaves that an update says a replica has: those listed, and those it
    /// keeps, as far as it still wants them. Each is listed once, so that all that
    /// is listed is proved.
    pub(crate) fn leaves(
        update: &Update,
        held: Option<&Held>,
        interest: &Interest,
        number: u64,
    ) -> Result<BTreeMap<u64, BundleLeaf>, VerifyError> {
        if !update.head.listed.is_sorted_by(|one, next| one.index < next.index) {
            return Err(VerifyError::Proof { number, reason: "the bundles are out of order" });
        }
        let mut leaves = match held {
            Some(held) if update.head.keep_others => {
                covered(held, interest).map(|(index, leaf)| (*index, leaf.clone())).collect()
            }
            _ => BTreeMap::new(),
        };
        leaves.extend(update.head.listed.iter().map(|listed| (listed.index, listed.leaf.clone())));
        Ok(leaves)
    }

    /// Admits the edits, and checks that every bundle is held, edited or empty.
    pub(crate) fn admit<'e>(
        bundles: &VerifiedBundles,
        update: &'e Update,
        held: Option<&Held>,
    ) -> Result<Vec<Admission<'e>>, ReplicaError> {
        let before = |name: &BundleName| held.and_then(|held| held.bundles.leaf(name));
        let mut runs: BTreeMap<&BundleName, _> = BTreeMap::new();
        for (listed, run) in update.listed() {
            if let Some(run) = run {
                runs.insert(&listed.leaf.name, run);
            }
        }
        let mut admitted = Vec::new();
        for leaf in bundles.leaves().values() {
            let name = &leaf.name;
            let held_root = before(name).map_or_else(empty_root, |leaf| leaf.root);
            let Some(run) = runs.get(name) else {
                if held_root == leaf.root {
                    continue;
                }
                return Err(ReplicaError::Incomplete(name.clone()));
            };
            if run.base == EditBase::Logged && run.before.is_empty() {
                let last = bundles.admit_logged(name, before(name), run.last)?;
                admitted.push(Admission { name: name.clone(), passages: Vec::new(), last });
                continue;
            }
            if run.base == EditBase::Logged || run.before.len() > MAX_WAYPOINTS {
                return Err(VerifyError::Chain(name.clone()).into());
            }
            let mut base = if run.base == EditBase::Held { held_root } else { empty_root() };
            let mut passages = Vec::new();
            for (waypoint, edit) in &run.before {
                passages.push(bundles.admit_waypoint(name, base, waypoint, edit)?);
                base = waypoint.root;
            }
            let last = bundles.admit_direct(name, base, run.last)?;
            admitted.push(Admission { name: name.clone(), passages, last });
        }
        Ok(admitted)
    }

    /// Applies and commits: one batch, one release.
    fn keep(
        &self,
        bundles: &VerifiedBundles,
        update: &Update,
        admitted: &[Admission<'_>],
        floors: &Floors,
        rule: Rule,
    ) -> Result<(), ReplicaError> {
        let _turn = self.writing();
        self.pass(admitted, floors)?;
        let source: &dyn ObjectSource = &*self.store;
        let mut batch = self.store.begin()?;
        for Admission { name, last, .. } in admitted {
            let is_here =
                rule == Rule::Own && bundles.root(name).is_some_and(|root| self.store.contains(&root.into()));
            if is_here {
                continue;
            }
            last.apply(source, &mut *batch).map_err(|error| ReplicaError::edit(name, error))?;
        }
        self.log(update, &mut *batch)?;
        let accepted = bundles.release().accepted();
        let record = ReleaseRecord::new(bundles, &update.head.siblings);
        batch.put_release(accepted.number, codec::encode(&record).into())?;
        let trust_version = self.trust.version().max(floors.trust_version);
        batch.commit(Floors { trust_version, release: Some(accepted), ..*floors })?;
        Ok(())
    }

    /// Applies waypoints: each durable by itself, as the base of what follows; collected
    /// with the rest if nothing does. The right to write is the caller's.
    pub(crate) fn pass(&self, admitted: &[Admission<'_>], floors: &Floors) -> Result<(), ReplicaError> {
        let source: &dyn ObjectSource = &*self.store;
        for Admission { name, passages, .. } in admitted {
            for passage in passages {
                let mut batch = self.store.begin()?;
                passage.apply(source, &mut *batch).map_err(|error| ReplicaError::edit(name, error))?;
                batch.commit(*floors)?;
            }
        }
        Ok(())
    }

    /// Keeps the log's own edits of an update for children.
    pub(crate) fn log(&self, update: &Update, batch: &mut dyn Batch) -> Result<(), ReplicaError> {
        for (listed, run) in update.listed().filter(|_| self.keep_log) {
            if let Some(run) = run.filter(|run| run.base == EditBase::Logged) {
                batch.put_edit(&listed.leaf.name, listed.leaf.sequence, run.last.clone())?;
            }
        }
        Ok(())
    }

    /// Whole trees that came in will do for our own cold children.
    pub(crate) fn inherit_snapshots(&self, bundles: &VerifiedBundles, update: &Update, held: Option<&Held>) {
        for (listed, run) in update.listed() {
            let name = &listed.leaf.name;
            let Some((run, leaf)) = run.zip(bundles.leaf(name)) else { continue };
            let is_first = held.is_none_or(|held| held.bundles.leaf(name).is_none());
            if run.base != EditBase::Empty && !(run.base == EditBase::Logged && is_first) {
                continue;
            }
            match run.before.first() {
                Some((to, edit)) => self.snapshots.inherit(name, to.root, to.totals(), edit),
                None => self.snapshots.inherit(name, leaf.root, leaf.totals(), run.last),
            }
        }
    }

    /// Has a release at hand for children, if its edits are all the log's own.
    fn set_fresh(
        &self,
        held: &Arc<Held>,
        update: &Update,
        verdict: Verdict,
        before: Option<Arc<Held>>,
    ) -> bool {
        let logged = update.listed().all(|(_, run)| run.is_none_or(|run| run.base == EditBase::Logged));
        if verdict != Verdict::Next || !logged {
            return false;
        }
        let edits = update
            .listed()
            .filter_map(|(listed, run)| run.map(|run| (listed.leaf.name.clone(), run.last.clone())))
            .collect();
        *self.fresh.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::new(Fresh { held: held.clone(), before, edits }));
        true
    }

    /// The origin's own rules: whole, consistent, and nothing but the log's edits.
    fn check_publication(
        bundles: &VerifiedBundles,
        update: &Update,
        held: Option<&Held>,
    ) -> Result<(), ReplicaError> {
        let refuse = |reason| Err(ReplicaError::Publication(reason));
        if !bundles.is_complete() {
            return refuse("the publication does not bring all leaves of the release");
        }
        let release = bundles.release().release();
        let sum = |of: fn(&BundleLeaf) -> u64| bundles.leaves().values().map(of).fold(0, u64::saturating_add);
        if (release.files, release.bytes) != (sum(|leaf| leaf.files), sum(|leaf| leaf.bytes)) {
            return refuse("the release's totals are not those of its bundles");
        }
        let plan = rootcast::layers::PLAN_BUNDLE;
        let has_plan = bundles.leaves().values().any(|leaf| leaf.name.as_str() == plan);
        if bundles.leaves().len() > 1 && !has_plan {
            return refuse("a release of several bundles needs the bundle `plan`");
        }
        for (listed, run) in update.listed() {
            let before = held.and_then(|held| held.bundles.leaf(&listed.leaf.name));
            let is_logged = match run {
                Some(run) => run.base == EditBase::Logged,
                None => before == Some(&listed.leaf),
            };
            if !is_logged {
                return Err(VerifyError::Chain(listed.leaf.name.clone()).into());
            }
        }
        Ok(())
    }

    pub(crate) fn count_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A bundle's edits, admitted.
pub(crate) struct Admission<'e> {
    pub(crate) name: BundleName,
    passages: Vec<Passage<'e>>,
    pub(crate) last: Admitted<'e>,
}

/// The leaves that are held and wanted, by index.
fn covered<'h>(held: &'h Held, interest: &Interest) -> impl Iterator<Item = (&'h u64, &'h BundleLeaf)> {
    held.bundles.leaves().iter().filter(|(_, leaf)| interest.covers(&leaf.name))
}
