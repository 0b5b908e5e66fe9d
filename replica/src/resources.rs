//! Serving over HTTPS: each part of a release by itself, under a name that never
//! changes its meaning (specs/http.md, HT-5 to HT-12).

use crate::outgoing::Target;
use crate::reach::half;
use crate::{Held, Replica, ReplicaError};
use bytes::Bytes;
use rootcast::acceptance::Accepted;
use rootcast::http::{After, EditBody, LeafAnswer, NewsAnswer};
use rootcast::id::ObjectId;
use rootcast::limits::KEPT_RELEASES;
use rootcast::object::ObjectSource;
use rootcast::path::BundleName;
use rootcast::protocol::Interest;
use rootcast::reader::Reader;
use rootcast::release::BundleLeaf;
use rootcast::subscriptions::lacking;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What there is of a resource for a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered<T> {
    /// This.
    Here(T),
    /// Nothing of that name.
    Absent,
    /// Something that this reader may not have; it hears what it would hear if it were absent.
    Forbidden,
}

impl<T> Offered<T> {
    /// The same of something made from it.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Offered<U> {
        match self {
            Self::Here(found) => Offered::Here(make(found)),
            Self::Absent => Offered::Absent,
            Self::Forbidden => Offered::Forbidden,
        }
    }
}

/// Releases beside the newest that were asked for lately, each as this version of trust judges it.
#[derive(Default)]
pub(crate) struct Older(Mutex<VecDeque<(u64, Arc<Held>)>>);

impl Older {
    fn find(&self, version: u64, wanted: Accepted) -> Option<Arc<Held>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(at, held)| *at == version && held.accepted() == wanted);
        found.map(|(_, held)| held.clone())
    }

    fn keep(&self, version: u64, held: Arc<Held>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(at, _)| *at == version);
        kept.push_back((version, held));
        if kept.len() > KEPT_RELEASES {
            kept.pop_front();
        }
    }
}

impl Replica {
    /// What is newest here, of what is served.
    pub fn news(&self) -> NewsAnswer {
        NewsAnswer {
            trust: self.trust.version(),
            latest: self.granted().map(|held| held.accepted()),
            head: self.head().map_or((0, 0), |head| head.head().rank()),
        }
    }

    /// As [`Replica::news`], once it is newer than what is known, or the wait is over (HT-7).
    pub async fn news_after(&self, after: &After) -> NewsAnswer {
        let (mut held, mut head) = (self.watch_held(), self.watch_head());
        let mut trust = self.trust.watch();
        let newer = async {
            loop {
                held.mark_unchanged();
                head.mark_unchanged();
                trust.mark_unchanged();
                if self.news().is_news(after) {
                    return;
                }
                // None of the senders ends before this replica.
                tokio::select! {
                    biased;
                    _ = held.changed() => {}
                    _ = head.changed() => {}
                    _ = trust.changed() => {}
                }
            }
        };
        // Either way what is newest now is the answer.
        let _ = tokio::time::timeout(Duration::from_secs(after.wait), newer).await;
        self.news()
    }

    /// The head of this epoch and sequence, if it is the newest.
    pub fn head_document(&self, rank: (u64, u64)) -> Option<Bytes> {
        self.head().filter(|head| head.head().rank() == rank).map(|head| head.document().clone())
    }

    /// A release that is held, whether it is served or not.
    async fn known(self: &Arc<Self>, wanted: Accepted) -> Result<Option<Arc<Held>>, ReplicaError> {
        if let Some(newest) = self.granted().or_else(|| self.held()).filter(|held| held.accepted() == wanted)
        {
            return Ok(Some(newest));
        }
        let version = self.trust.version();
        if let Some(kept) = self.older.find(version, wanted) {
            return Ok(Some(kept));
        }
        let replica = self.clone();
        // One that cannot be read is not held: another parent has it.
        let read = self.blocking(move || Ok(replica.release(wanted.number).ok().flatten())).await?;
        let read = read.filter(|held| held.accepted() == wanted).map(Arc::new);
        if let Some(held) = &read {
            self.older.keep(version, held.clone());
        }
        Ok(read)
    }

    /// The signed document of a release that is served.
    ///
    /// # Errors
    /// When this process is ending.
    pub async fn release_document(
        self: &Arc<Self>,
        release: Accepted,
    ) -> Result<Offered<Bytes>, ReplicaError> {
        let known = self.known(release).await?.filter(|held| held.is_granted());
        Ok(known.map_or(Offered::Absent, |held| Offered::Here(held.bundles.release().document().clone())))
    }

    /// A bundle of a release that is served, where this reader may have it.
    ///
    /// # Errors
    /// [`ReplicaError::NotHeld`] where it is in the release, and is yet to be fetched. Or the store fails.
    async fn readable(
        self: &Arc<Self>,
        reader: &Reader,
        release: Accepted,
        bundle: &BundleName,
    ) -> Result<Offered<(Arc<Held>, BundleLeaf)>, ReplicaError> {
        let Some(held) = self.known(release).await?.filter(|held| held.is_granted()) else {
            return Ok(Offered::Absent);
        };
        let leaf = held.bundles.leaf(bundle).cloned();
        let plan = match (reader, &leaf) {
            (Reader::Publisher | Reader::Relay, Some(_)) => None,
            _ => match self.known_plan(&held) {
                Some(plan) => plan?,
                None => self.read_plan(&held).await?,
            },
        };
        let asked = Interest::Named(vec![bundle.clone()]);
        let is_there = leaf.is_some() || !lacking(&held.bundles, plan.as_deref(), &asked).is_empty();
        match leaf {
            _ if !is_there => Ok(Offered::Absent),
            _ if !reader.covers(plan.as_deref(), bundle) => Ok(Offered::Forbidden),
            Some(leaf) => Ok(Offered::Here((held, leaf))),
            None => Err(ReplicaError::NotHeld(bundle.clone())),
        }
    }

    /// The leaf of a bundle in a release, with the proof of it alone.
    ///
    /// # Errors
    /// As [`Replica::edit`].
    pub async fn leaf(
        self: &Arc<Self>,
        reader: &Reader,
        release: Accepted,
        bundle: &BundleName,
    ) -> Result<Offered<LeafAnswer>, ReplicaError> {
        let (held, leaf) = match self.readable(reader, release, bundle).await? {
            Offered::Here(found) => found,
            Offered::Absent => return Ok(Offered::Absent),
            Offered::Forbidden => return Ok(Offered::Forbidden),
        };
        let index = held.bundles.index(bundle).ok_or(ReplicaError::NotFound)?;
        let siblings = held.prove(&[index])?;
        Ok(Offered::Here(LeafAnswer { index, leaf, siblings }))
    }

    /// The edits that bring a bundle to a release, from another release or from nothing.
    /// Absent also where it is the same in both, or the other release is not held any more.
    ///
    /// # Errors
    /// [`ReplicaError::NotHeld`] where the bundle is yet to be fetched. Or the store fails.
    pub async fn edit(
        self: &Arc<Self>,
        reader: &Reader,
        to: Accepted,
        bundle: &BundleName,
        from: Option<Accepted>,
    ) -> Result<Offered<EditBody>, ReplicaError> {
        let (held, leaf) = match self.readable(reader, to, bundle).await? {
            Offered::Here(found) => found,
            Offered::Absent => return Ok(Offered::Absent),
            Offered::Forbidden => return Ok(Offered::Forbidden),
        };
        let old = match from {
            None => None,
            Some(from) => {
                // From the same bundle only: an edit tells of what it starts from as well.
                let old = self.known(from).await?.and_then(|from| from.bundles.leaf(bundle).cloned());
                let Some(old) = old else { return Ok(Offered::Absent) };
                Some(old)
            }
        };
        let way = self.way(&Target::of(held), old.as_ref(), &leaf).await?;
        Ok(way.map_or(Offered::Absent, |way| {
            Offered::Here(EditBody { head: way.head(), edits: way.edits().collect() })
        }))
    }

    /// An object that lies in a bundle of a release (specs/wire.md, W-47).
    ///
    /// # Errors
    /// As [`Replica::edit`].
    pub async fn object(
        self: &Arc<Self>,
        reader: &Reader,
        release: Accepted,
        bundle: &BundleName,
        object: ObjectId,
    ) -> Result<Offered<Bytes>, ReplicaError> {
        let root = match self.readable(reader, release, bundle).await? {
            Offered::Here((_, leaf)) => leaf.root,
            Offered::Absent => return Ok(Offered::Absent),
            Offered::Forbidden => return Ok(Offered::Forbidden),
        };
        let replica = self.clone();
        self.blocking(move || {
            let objects: &dyn ObjectSource = &*replica.store;
            // A tree that is damaged here cannot say what belongs to it; another parent can.
            let belongs = replica.reaches.of(objects, root).is_ok_and(|reach| reach.contains(&half(&object)));
            let bytes = belongs.then(|| objects.read(&object).ok()).flatten();
            Ok(bytes.map_or(Offered::Absent, Offered::Here))
        })
        .await
    }
}
