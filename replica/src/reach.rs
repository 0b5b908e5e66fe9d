//! Serving objects: by channel, bundle and release, never by bare hash.
//!
//! A hash that somebody has learnt is no leave to read: what is asked for must
//! lie in the tree of a bundle that the reader may have (specs/wire.md, W-35, W-47).

use crate::{Held, Replica, ReplicaError};
use rootcast::id::{NodeId, ObjectId};
use rootcast::limits::{KEPT_REACHES, MAX_OBJECTS_ANSWER, MAX_OBJECTS_PER_REQUEST};
use rootcast::object::ObjectSource;
use rootcast::protocol::{ObjectsAnswer, ObjectsRequest};
use rootcast::reader::Reader;
use rootcast::tree::{Tree, TreeError};
use rootcast_transport::{Sender, frame_of};
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// All objects of a tree, by half of each hash: another object with the same half is out of reach.
pub(crate) type Reach = HashSet<[u8; 16]>;

/// The trees that were asked about lately.
#[derive(Default)]
pub(crate) struct Reaches(Mutex<VecDeque<(NodeId, Arc<Reach>)>>);

pub(crate) fn half(id: &ObjectId) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(id.hash().split_at(16).0);
    half
}

impl Reaches {
    /// What lies below a root. Blocking: the first time the whole tree is walked.
    pub(crate) fn of(&self, objects: &dyn ObjectSource, root: NodeId) -> Result<Arc<Reach>, ReplicaError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, reach)) = kept.iter().find(|(of, _)| *of == root) {
            return Ok(reach.clone());
        }
        let mut reach = Reach::new();
        let walked = Tree::open(objects, root)
            .and_then(|tree| tree.objects::<TreeError>(&mut |id| Ok(reach.insert(half(&id)))));
        walked?;
        let reach = Arc::new(reach);
        kept.push_back((root, reach.clone()));
        if kept.len() > KEPT_REACHES {
            kept.pop_front();
        }
        Ok(reach)
    }
}

impl Replica {
    /// The root of a bundle in a release, where this reader may have it.
    fn root_of(&self, reader: &Reader, request: &ObjectsRequest) -> Option<NodeId> {
        let newest = self.held()?;
        let held: Arc<Held> = if newest.accepted().number == request.release {
            newest
        } else {
            Arc::new(self.release(request.release).ok()??)
        };
        let plan = self.plan(&held).ok()?;
        held.bundles.root(&request.bundle).filter(|_| reader.covers(plan.as_deref(), &request.bundle))
    }

    /// Answers a request for objects, as far as one answer may go. What is
    /// forbidden is answered like what is not held. Whether there was a bundle to read.
    ///
    /// # Errors
    /// When the child or the network fails.
    pub async fn answer_objects(
        self: &Arc<Self>,
        reader: &Reader,
        request: ObjectsRequest,
        sender: &mut Sender,
    ) -> Result<bool, ReplicaError> {
        let (replica, reader) = (self.clone(), reader.clone());
        // Up to the whole answer is read, unpacked and hashed: no child's siblings wait for that.
        let (found, sizes, mut pieces) = self
            .blocking(move || {
                let root = replica.root_of(&reader, &request);
                let objects: &dyn ObjectSource = &*replica.store;
                // A tree that is damaged here cannot say what belongs to it; another parent can.
                let reach = root.and_then(|root| replica.reaches.of(objects, root).ok());
                let mut left = MAX_OBJECTS_ANSWER;
                let (mut sizes, mut pieces) = (Vec::new(), Vec::new());
                for id in request.objects.iter().take(MAX_OBJECTS_PER_REQUEST) {
                    let belongs = reach.as_ref().is_some_and(|reach| reach.contains(&half(id)));
                    let bytes = belongs.then(|| objects.read(id).ok()).flatten();
                    let bytes = bytes.filter(|bytes| bytes.len() as u64 <= left);
                    sizes.push(bytes.as_ref().map(|bytes| bytes.len() as u64));
                    left -= bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
                    pieces.extend(bytes);
                }
                Ok((root.is_some(), sizes, pieces))
            })
            .await?;
        pieces.insert(0, frame_of(&ObjectsAnswer(sizes))?);
        sender.send_all(&mut pieces).await?;
        sender.finish()?;
        Ok(found)
    }
}
