//! Serving a child: what it lacks, from where it stands.

use crate::{Fresh, Held, Machine, Replica, ReplicaError, is_large};
use bytes::Bytes;
use rootcast::acceptance::Accepted;
use rootcast::compact::{Before, CompactHead};
use rootcast::edit::{self, Effort};
use rootcast::entry::{Content, Entry};
use rootcast::id::{EditHash, NodeId};
use rootcast::limits::{CACHED_EDIT_BYTES, PREPARED_UPDATES};
use rootcast::object::ObjectSource;
use rootcast::path::BundleName;
use rootcast::plan::{Plan, plan_bundle, plan_path};
use rootcast::protocol::{EditBase, EditHead, Interest, ListedBundle, Standing, UpdateHead, Waypoint};
use rootcast::reader::Reader;
use rootcast::release::BundleLeaf;
use rootcast::subscriptions::lacking;
use rootcast::tree::{Tree, empty_root};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// An update ready to be sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The release that it brings.
    pub accepted: Accepted,
    /// Its head, for subscription 0.
    pub head: UpdateHead,
    /// The head without what the child can compute, where that can be done.
    pub compact: Option<CompactHead>,
    /// The edits, in the head's order.
    pub edits: Vec<Bytes>,
    /// Where the child stands once it has taken it in.
    pub standing: Standing,
}

/// Updates made lately, or being made: children that stand alike get the same
/// one, however many ask for it at once.
#[derive(Default)]
pub(crate) struct Prepared(Mutex<VecDeque<(Key, Cell)>>);

type Cell = Arc<OnceCell<Arc<Outgoing>>>;

#[derive(PartialEq, Clone)]
struct Key {
    target: Accepted,
    /// What it asks for and may read.
    interest: Interest,
    standing: Standing,
}

impl Prepared {
    /// The place of the update that this key stands for.
    fn cell(&self, key: &Key) -> Cell {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cell)) = made.iter().find(|(held, _)| held == key) {
            return cell.clone();
        }
        let cell = Cell::default();
        made.push_back((key.clone(), cell.clone()));
        cell
    }

    /// Forgets all, since better ones can be made now.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets the oldest beyond the bounds; who waits for one of them gets it all the same.
    fn trim(&self) {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let size = |(_, cell): &(Key, Cell)| -> u64 {
            cell.get().map_or(0, |made| made.edits.iter().map(|edit| edit.len() as u64).sum())
        };
        let mut bytes: u64 = made.iter().map(&size).sum();
        while made.len() > PREPARED_UPDATES || bytes > CACHED_EDIT_BYTES {
            let Some(oldest) = made.pop_front() else { return };
            bytes -= size(&oldest);
        }
    }
}

/// The release to bring a child to, and where its logged edits are.
pub(crate) struct Target {
    held: Arc<Held>,
    /// The release that the child stands at, where we still know it.
    before: Option<Arc<Held>>,
    /// The release that the child stands at, where it is yet to be read for `before`.
    older: Option<Accepted>,
    /// The edits of `held`, where it came just now.
    fresh: Option<BTreeMap<BundleName, Bytes>>,
}

impl Target {
    /// A release that is held, whatever a child has.
    pub(crate) fn of(held: Arc<Held>) -> Self {
        Self { held, before: None, older: None, fresh: None }
    }
}

/// How a bundle's content goes to a child.
pub(crate) struct Way {
    base: EditBase,
    before: Vec<(Waypoint, Bytes)>,
    last: Bytes,
}

impl Way {
    fn direct(base: EditBase, last: Bytes) -> Self {
        Self { base, before: Vec::new(), last }
    }

    pub(crate) fn head(&self) -> EditHead {
        let before = self.before.iter().map(|(waypoint, _)| *waypoint).collect();
        EditHead { base: self.base, length: self.last.len() as u64, before }
    }

    pub(crate) fn edits(self) -> impl Iterator<Item = Bytes> {
        self.before.into_iter().map(|(_, edit)| edit).chain([self.last])
    }
}

impl Replica {
    /// The update that brings a child from `standing` to the newest release, as
    /// far as it asks for it and may read it; `None` when it has all of that.
    ///
    /// # Errors
    /// [`ReplicaError::NotHeld`] while a bundle that it may have is yet to be
    /// fetched: no child gets half a release. Or the store fails.
    pub async fn outgoing(
        self: &Arc<Self>,
        reader: &Reader,
        asked: &Interest,
        standing: &Standing,
    ) -> Result<Option<Arc<Outgoing>>, ReplicaError> {
        let newest = match reader {
            Reader::Publisher => self.held(),
            // Nothing that they could not verify by the trust in force.
            Reader::Relay | Reader::Host(_) => self.granted(),
        };
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fresh = fresh.filter(|fresh| fresh.held.judged_by == self.trust.version());
        // What came at first may be a part where what is held is whole by now, and the other way round.
        let is_part = |held: &Held| !held.bundles.is_complete();
        let fresh_is_part = fresh.as_ref().is_some_and(|fresh| is_part(&fresh.held));
        let plan = match &newest {
            Some(newest) if matches!(reader, Reader::Host(_)) || is_part(newest) || fresh_is_part => {
                match self.known_plan(newest) {
                    Some(plan) => plan?,
                    None => Box::pin(self.read_plan(newest)).await?,
                }
            }
            _ => None,
        };
        let plan = plan.as_deref();
        let interest = reader.narrow(plan, asked);
        let target = self.target((newest.clone(), fresh), plan, &interest, standing, reader);
        let looked_at = target.as_ref().map(|target| &target.held).or(newest.as_ref());
        let lacks = looked_at.and_then(|held| lacking(&held.bundles, plan, &interest).into_iter().next());
        if let Some(bundle) = lacks {
            return Err(ReplicaError::NotHeld(bundle));
        }
        let Some(target) = target else { return Ok(None) };
        if !target.held.bundles.leaves().values().any(|leaf| interest.covers(&leaf.name)) {
            return Ok(None);
        }
        let key = Key { target: target.held.accepted(), interest, standing: standing.clone() };
        let cell = self.prepared.cell(&key);
        if let Some(made) = cell.get() {
            return Ok(Some(made.clone()));
        }
        // A child's task waits for most of its life: it has no room in it for what making an update takes.
        let made = Box::pin(cell.get_or_try_init(|| self.make(target, key))).await.cloned();
        self.prepared.trim();
        made.map(Some)
    }

    async fn make(self: &Arc<Self>, mut target: Target, key: Key) -> Result<Arc<Outgoing>, ReplicaError> {
        if let Some(at) = target.older {
            // Read and verified anew: not on the thread that serves this child's siblings.
            let replica = self.clone();
            let before = self.blocking(move || replica.release(at.number)).await.ok().flatten();
            target.before = before.map(Arc::new).filter(|before| before.accepted() == at);
        }
        self.prepare(&target, &key).await.map(Arc::new)
    }

    /// How many bundles of the newest release are asked for that this reader may not have.
    pub fn forbidden(&self, reader: &Reader, asked: &Interest) -> usize {
        let (Some(held), Interest::Named(names)) = (self.held(), asked) else { return 0 };
        let Ok(plan) = self.plan(&held) else { return 0 };
        let plan = plan.as_deref();
        let exists = |name: &&BundleName| {
            held.bundles.index(name).is_some() || plan.is_some_and(|plan| plan.bundles.contains(*name))
        };
        names.iter().filter(exists).filter(|name| !reader.covers(plan, name)).count()
    }

    /// What a child may have of what it asks for, by the newest release; nothing before
    /// there is one. With the plan that says so, which changes seldom.
    pub fn allowed(&self, reader: &Reader, asked: &Interest) -> (Option<Option<NodeId>>, Interest) {
        let plan = match reader {
            Reader::Publisher | Reader::Relay => return (self.plan_root(), asked.clone()),
            Reader::Host(_) => self.held().map(|held| self.plan(&held)),
        };
        match plan {
            Some(Ok(plan)) => (self.plan_root(), reader.narrow(plan.as_deref(), asked)),
            Some(Err(_)) | None => (None, Interest::Named(Vec::new())),
        }
    }

    /// The root of the newest release's plan, where it has one; `None` before there is a release.
    pub fn plan_root(&self) -> Option<Option<NodeId>> {
        let held = self.held()?;
        Some(plan_bundle().ok().and_then(|name| held.bundles.root(&name)))
    }

    /// The plan of the newest release held; none where it has none, or cannot be read.
    pub fn newest_plan(&self) -> Option<Arc<Plan>> {
        self.plan(&*self.held()?).ok().flatten()
    }

    /// As [`Replica::plan`], where that takes no reading.
    pub(crate) fn known_plan(&self, held: &Held) -> Option<Result<Option<Arc<Plan>>, ReplicaError>> {
        let Some(root) = plan_bundle().ok().and_then(|name| held.bundles.root(&name)) else {
            return Some(self.plan(held));
        };
        let kept = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(of, _)| *of == root).map(|(_, plan)| Ok(Some(plan.clone())))
    }

    /// As [`Replica::plan`], read where reading may take long.
    pub(crate) async fn read_plan(
        self: &Arc<Self>,
        held: &Arc<Held>,
    ) -> Result<Option<Arc<Plan>>, ReplicaError> {
        let (replica, held) = (self.clone(), held.clone());
        self.blocking(move || replica.plan(&held)).await
    }

    /// The plan of a release that is held; none where it has none.
    pub(crate) fn plan(&self, held: &Held) -> Result<Option<Arc<Plan>>, ReplicaError> {
        let name = plan_bundle().map_err(|_| ReplicaError::NotFound)?;
        let Some(root) = held.bundles.root(&name) else {
            // One of several bundles has a plan (W-37): not here, then, or not yet.
            let has_none = held.bundles.release().release().bundles <= 1;
            return if has_none { Ok(None) } else { Err(ReplicaError::NotHeld(name)) };
        };
        let mut kept = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = kept.as_ref().filter(|(of, _)| *of == root) {
            return Ok(Some(plan.clone()));
        }
        let source: &dyn ObjectSource = &*self.store;
        let path = plan_path().map_err(|_| ReplicaError::NotFound)?;
        let Some(Entry::File { content: Content::Blob { id, .. }, .. }) =
            Tree::open(source, root)?.get(&path)?
        else {
            return Err(ReplicaError::NotFound);
        };
        let plan = Arc::new(Plan::decode(&source.read(&id.into())?)?);
        *kept = Some((root, plan.clone()));
        Ok(Some(plan))
    }

    fn target(
        &self,
        (newest, fresh): (Option<Arc<Held>>, Option<Arc<Fresh>>),
        plan: Option<&Plan>,
        interest: &Interest,
        standing: &Standing,
        reader: &Reader,
    ) -> Option<Target> {
        let child_has: BTreeSet<&BundleName> = standing.whole.iter().collect();
        // With another plan there are other bundles, and a host may read others: until that plan can be
        // read only one who may read all is served, by a parent that has all.
        let plan_of = |held: &Held| plan_bundle().ok().and_then(|name| held.bundles.root(&name));
        let same_plan =
            |fresh: &Fresh| newest.as_ref().is_some_and(|newest| plan_of(&fresh.held) == plan_of(newest));
        let fresh = fresh.filter(|fresh| {
            let all = fresh.held.bundles.is_complete() && !matches!(reader, Reader::Host(_));
            all || (same_plan(fresh) && lacking(&fresh.held.bundles, plan, interest).is_empty())
        });
        if let Some(fresh) = fresh {
            let release = fresh.held.bundles.release().release();
            let follows = match (&standing.release, &fresh.before) {
                (Some(at), Some(before)) => before.accepted() == *at && release.previous == Some(at.hash),
                // Once it is held there may be a better snapshot than the log's first edit.
                (None, None) => self.held().is_none(),
                _ => false,
            };
            // Only what the log's edits alone can bring: what a child has not
            // whole needs trees that may not be on disk yet.
            let whole = |name: &BundleName| child_has.contains(name);
            let known =
                |name: &BundleName| fresh.before.as_ref().is_some_and(|b| b.bundles.leaf(name).is_some());
            let covered = fresh.held.bundles.leaves().values().filter(|leaf| interest.covers(&leaf.name));
            if follows && covered.into_iter().all(|leaf| whole(&leaf.name) || !known(&leaf.name)) {
                let (held, before) = (fresh.held.clone(), fresh.before.clone());
                return Some(Target { held, before, older: None, fresh: Some(fresh.edits.clone()) });
            }
        }
        let held = newest?;
        let lacks = |leaf: &BundleLeaf| interest.covers(&leaf.name) && !child_has.contains(&leaf.name);
        let older = standing.release.is_none_or(|at| at.rank() < held.accepted().rank());
        let same = standing.release == Some(held.accepted());
        let incomplete = same && held.bundles.leaves().values().any(lacks);
        if !older && !incomplete {
            return None;
        }
        let before = same.then(|| held.clone());
        let older = standing.release.filter(|_| !same);
        Some(Target { held, before, older, fresh: None })
    }

    async fn prepare(
        self: &Arc<Self>,
        target: &Target,
        Key { interest, standing, .. }: &Key,
    ) -> Result<Outgoing, ReplicaError> {
        let bundles = &target.held.bundles;
        let covered: Vec<(u64, &BundleLeaf)> = bundles
            .leaves()
            .iter()
            .filter(|(_, leaf)| interest.covers(&leaf.name))
            .map(|(index, leaf)| (*index, leaf))
            .collect();
        let whole: BTreeSet<&BundleName> = standing.whole.iter().collect();
        let at_before = |index: &u64| target.before.as_ref().and_then(|b| b.bundles.leaves().get(index));
        // A child keeps unlisted leaves only where we know all that it has, and each of them kept its
        // place. One that it asks for and may not read any more it must not keep.
        let stays = |before: &Held, name: &BundleName| {
            let index = before.bundles.index(name);
            index.is_some() && index == bundles.index(name) && interest.covers(name)
        };
        let keep_others = target.before.as_ref().filter(|_| !whole.is_empty());
        let keep_others = keep_others.filter(|before| whole.iter().all(|name| stays(before, name)));
        let (mut listed, mut edits) = (Vec::new(), Vec::new());
        for (index, leaf) in &covered {
            let old = target.before.as_ref().and_then(|b| b.bundles.leaf(&leaf.name));
            let old = old.filter(|_| whole.contains(&leaf.name));
            let way = self.way(target, old, leaf).await?;
            if keep_others.is_some() && way.is_none() && old.is_some() && at_before(index) == Some(leaf) {
                continue;
            }
            let edit = way.as_ref().map(Way::head);
            listed.push(ListedBundle { index: *index, leaf: (*leaf).clone(), edit });
            edits.extend(way.into_iter().flat_map(Way::edits));
        }
        let indices: Vec<u64> = covered.iter().map(|(index, _)| *index).collect();
        let accepted = target.held.accepted();
        let head = UpdateHead {
            subscription: 0,
            release: bundles.release().document().clone(),
            listed,
            keep_others: keep_others.is_some(),
            siblings: target.held.prove(&indices)?,
        };
        let compact = match keep_others {
            Some(before) => compacted(self.machine(), before, &standing.whole, &head, &edits).await?,
            None => None,
        };
        let whole = covered.iter().map(|(_, leaf)| leaf.name.clone()).collect();
        let standing = Standing { release: Some(accepted), whole };
        Ok(Outgoing { accepted, head, compact, edits, standing })
    }

    /// How a child that holds `old` of a bundle gets `new`; `None` if it has it.
    pub(crate) async fn way(
        self: &Arc<Self>,
        target: &Target,
        old: Option<&BundleLeaf>,
        new: &BundleLeaf,
    ) -> Result<Option<Way>, ReplicaError> {
        if old.map_or_else(empty_root, |old| old.root) == new.root {
            return Ok(None);
        }
        if let Some(edits) = &target.fresh {
            // A bundle without an edit here is one that did not change, met above.
            let edit = edits.get(&new.name).ok_or_else(|| ReplicaError::Incomplete(new.name.clone()))?;
            return Ok(Some(Way::direct(EditBase::Logged, edit.clone())));
        }
        let Some(old) = old else { return Ok(Some(self.snapshot(new).await?)) };
        if old.sequence.checked_add(1) == Some(new.sequence)
            && let Ok(Some(edit)) = self.logged(new).await
            && old.chain.next(&EditHash::of(&edit)) == new.chain
        {
            return Ok(Some(Way::direct(EditBase::Logged, edit)));
        }
        match self.computed(old.root, new.root, Effort::Usual).await {
            Ok(edit) => Ok(Some(Way::direct(EditBase::Held, edit))),
            // The old tree is no longer here: then all of the new one.
            Err(ReplicaError::NeedObject(_) | ReplicaError::Edit { .. }) => {
                Ok(Some(self.snapshot(new).await?))
            }
            Err(error) => Err(error),
        }
    }

    /// The whole tree: the snapshot that was made ahead and the way from it, or one made now.
    async fn snapshot(self: &Arc<Self>, new: &BundleLeaf) -> Result<Way, ReplicaError> {
        let Some(made) = self.snapshots.find(&new.name) else {
            return Ok(Way::direct(
                EditBase::Empty,
                self.computed(empty_root(), new.root, Effort::Fast).await?,
            ));
        };
        if made.root == new.root {
            return Ok(Way::direct(EditBase::Empty, made.edit.clone()));
        }
        match self.computed(made.root, new.root, Effort::Usual).await {
            Ok(last) if !made.is_outgrown_by(last.len()) => {
                Ok(Way { base: EditBase::Empty, before: vec![(made.waypoint(), made.edit.clone())], last })
            }
            _ => Ok(Way::direct(EditBase::Empty, self.computed(empty_root(), new.root, Effort::Fast).await?)),
        }
    }

    /// The log's edit that made this leaf.
    async fn logged(self: &Arc<Self>, leaf: &BundleLeaf) -> Result<Option<Bytes>, ReplicaError> {
        let (replica, name, sequence) = (self.clone(), leaf.name.clone(), leaf.sequence);
        self.blocking(move || Ok(replica.store.edit(&name, sequence)?)).await
    }

    /// An edit between two trees that the store holds.
    pub(crate) async fn computed(
        self: &Arc<Self>,
        from: NodeId,
        to: NodeId,
        effort: Effort,
    ) -> Result<Bytes, ReplicaError> {
        let replica = self.clone();
        let make = async move {
            // One after the other where there is no room, in the order in which they were asked for.
            let _room = self.computing.acquire().await.map_err(|_| ReplicaError::Stopped)?;
            let machine = replica.machine().clone();
            let encoding = machine.blocking(move || {
                let source: &dyn ObjectSource = &*replica.store;
                edit::encode_with((source, from), (source, to), effort).inspect_err(|error| {
                    if error.refetch().is_some() {
                        replica.request_repair();
                    }
                })
            });
            match encoding.await {
                Ok(Ok(edit)) => Ok(Bytes::from(edit)),
                Ok(Err(error)) => match error.refetch() {
                    Some(id) => Err(ReplicaError::NeedObject(id)),
                    None => match error {
                        edit::EditError::Tree(error) => Err(error.into()),
                        _ => {
                            Err(ReplicaError::Publication("an edit between two releases is over the limits"))
                        }
                    },
                },
                Err(_) => Err(ReplicaError::Stopped),
            }
        };
        self.cache.get((from, to), make).await
    }
}

/// The head without what a child that holds these bundles whole can compute, where that can be done.
async fn compacted(
    machine: &Arc<dyn Machine>,
    before: &Arc<Held>,
    whole: &[BundleName],
    head: &UpdateHead,
    edits: &[Bytes],
) -> Result<Option<CompactHead>, ReplicaError> {
    let (before, whole, head, edits) = (before.clone(), whole.to_vec(), head.clone(), edits.to_vec());
    let is_large = is_large(&edits, whole.len());
    let work = move || {
        let has: BTreeSet<&BundleName> = whole.iter().collect();
        Before::new(&before.bundles, |leaf| has.contains(&leaf.name)).compact(&head, &edits)
    };
    if is_large { machine.blocking(work).await } else { Ok(work()) }
}
