//! Updates and objects over a connection: one question, one answer.

use crate::{Outgoing, Replica, ReplicaError, Update};
use bytes::Bytes;
use rootcast::compact::CompactHead;
use rootcast::id::ObjectId;
use rootcast::limits::{
    ANSWER_WAIT, MAX_BEGINNINGS, MAX_EDIT, MAX_FRAME, MAX_OBJECT, MAX_OBJECTS_ANSWER, MIN_RESUMED,
};
use rootcast::protocol::{
    EditHead, ObjectsAnswer, ObjectsRequest, Opening, UpdateAnswer, UpdateHead, UpdateMessage, UpdateRequest,
};
use rootcast::resumption::{Beginnings, Begun};
use rootcast_transport::{Connection, PeerFault, Receiver, Sender, TransportError, frame_of};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use std::{iter, mem};

/// How much longer than another answer an update may take to begin: a parent may have to make a snapshot.
const SNAPSHOT_WAITS: u32 = 10;

/// Waits for a peer's answer to begin; one that is silent, though its connection lives, is left.
pub(crate) async fn answered<T>(
    peer: String,
    wait: Duration,
    answer: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    let stalled = |_| TransportError::Peer { peer, fault: PeerFault::Stalled { wait } };
    tokio::time::timeout(wait, answer).await.map_err(stalled)?
}

impl Outgoing {
    /// Sends the update of a subscription, head and edits with one write, and
    /// returns how many bytes the stream took.
    ///
    /// # Errors
    /// When the child or the network fails.
    pub async fn push(&self, subscription: u64, sender: &mut Sender) -> Result<u64, ReplicaError> {
        let message = match &self.compact {
            Some(head) => UpdateMessage::Compact(CompactHead { subscription, ..head.clone() }),
            None => UpdateMessage::Whole(UpdateHead { subscription, ..self.head.clone() }),
        };
        Self::send(frame_of(&message)?, &self.edits, sender).await
    }

    /// Sends the update as the answer to a pull.
    ///
    /// # Errors
    /// When the child or the network fails.
    pub async fn answer(&self, sender: &mut Sender) -> Result<u64, ReplicaError> {
        Self::send(frame_of(&UpdateAnswer::Update(self.head.clone()))?, &self.edits, sender).await
    }

    /// As [`Outgoing::push`], without what the child has from an update that broke off (W-59).
    ///
    /// # Errors
    /// When the child or the network fails.
    pub async fn push_rest(
        self: &Arc<Self>,
        replica: &Replica,
        subscription: u64,
        begun: Beginnings,
        sender: &mut Sender,
    ) -> Result<u64, ReplicaError> {
        if self.edits.iter().all(|edit| (edit.len() as u64) < MIN_RESUMED) {
            return self.push(subscription, sender).await;
        }
        let (outgoing, known) = (self.clone(), begun.clone());
        let places = replica.blocking(move || Ok(known.found(&outgoing.edits))).await?;
        if places.iter().all(Option::is_none) {
            return self.push(subscription, sender).await;
        }
        let rest = |(edit, place): (&Bytes, &Option<u64>)| {
            let had = place.and_then(|place| usize::try_from(begun.length(place)?).ok()).unwrap_or(0);
            edit.slice(had.min(edit.len())..)
        };
        let rests: Vec<Bytes> = self.edits.iter().zip(&places).map(rest).collect();
        let head = UpdateHead { subscription, ..self.head.clone() };
        Self::send(frame_of(&UpdateMessage::Resumed(head, places))?, &rests, sender).await
    }

    async fn send(head: Bytes, edits: &[Bytes], sender: &mut Sender) -> Result<u64, ReplicaError> {
        let mut pieces: Vec<Bytes> = iter::once(head).chain(edits.iter().cloned()).collect();
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        // One small buffer leaves as one datagram; large ones are not copied.
        if bytes <= rootcast::limits::FRAME_CONTENT / 16 {
            pieces = vec![Bytes::from(pieces.concat())];
        }
        sender.send_all(&mut pieces).await?;
        sender.finish()?;
        Ok(bytes)
    }
}

/// What an update stream brought, its head perhaps still to be rebuilt.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The head.
    pub message: UpdateMessage,
    /// The edits that follow it.
    pub edits: Vec<Bytes>,
}

impl Pushed {
    /// The subscription that it is for.
    pub fn subscription(&self) -> u64 {
        match &self.message {
            UpdateMessage::Whole(head) | UpdateMessage::Resumed(head, _) => head.subscription,
            UpdateMessage::Compact(head) => head.subscription,
        }
    }
}

/// What is left of an update that broke off, for the next that brings the same edits (W-58).
#[derive(Default)]
pub struct Kept {
    begun: Vec<Begun>,
}

impl Kept {
    /// What to tell a parent of it. The rest is forgotten.
    pub fn beginnings(&mut self) -> Beginnings {
        self.begun.retain(|begun| begun.length() >= MIN_RESUMED);
        self.begun.truncate(MAX_BEGINNINGS);
        Beginnings::of(&self.begun)
    }
}

/// Reads an update from an update stream. What had arrived of it when it breaks off is left in `kept`.
///
/// # Errors
/// When the parent or the network fails, or an edit is over its bound.
pub async fn receive_update(
    peer: String,
    receiver: &mut Receiver,
    kept: &mut Kept,
) -> Result<Option<Pushed>, ReplicaError> {
    let head = receiver.receive_message::<UpdateMessage>(MAX_FRAME);
    let Some(message) = answered(peer.clone(), ANSWER_WAIT, head).await? else { return Ok(None) };
    let edits = receive_edits(&peer, receiver, announced(&message), kept).await?;
    Ok(Some(Pushed { message, edits }))
}

/// Receives edits of these lengths, each whole or as what is left of one in `kept`, and the stream's end.
async fn receive_edits(
    peer: &str,
    receiver: &mut Receiver,
    announced: Vec<(u64, Option<u64>)>,
    kept: &mut Kept,
) -> Result<Vec<Bytes>, ReplicaError> {
    // What this update does not go on with, none will: the child stands elsewhere after it.
    let mut had: Vec<Option<Begun>> = mem::take(&mut kept.begun).into_iter().map(Some).collect();
    let mut edits = Vec::new();
    let mut left = MAX_EDIT;
    for (length, place) in announced {
        let begun = match place {
            None => Begun::default(),
            Some(place) => usize::try_from(place)
                .ok()
                .and_then(|place| had.get_mut(place)?.take())
                .filter(|begun| begun.length() <= length)
                .ok_or_else(|| TransportError::Peer { peer: peer.to_owned(), fault: PeerFault::NotBegun })?,
        };
        edits.push(receive_edit(receiver, length, left, begun, kept).await?);
        left = left.saturating_sub(length);
    }
    receiver.receive_end().await?;
    kept.begun.clear();
    Ok(edits)
}

/// The length of each edit, and the place of what is left out of it.
fn announced(message: &UpdateMessage) -> Vec<(u64, Option<u64>)> {
    let lengths = match message {
        UpdateMessage::Whole(head) | UpdateMessage::Resumed(head, _) => lengths(head),
        UpdateMessage::Compact(head) => head.listed.iter().map(|bundle| bundle.length).collect(),
    };
    let places: &[Option<u64>] = match message {
        UpdateMessage::Resumed(_, places) => places,
        UpdateMessage::Whole(_) | UpdateMessage::Compact(_) => &[],
    };
    let places = places.iter().copied().chain(iter::repeat(None));
    lengths.into_iter().zip(places).collect()
}

/// Receives one edit, or the rest of it. A large one is kept as it comes, until its update is whole.
async fn receive_edit(
    receiver: &mut Receiver,
    length: u64,
    limit: u64,
    begun: Begun,
    kept: &mut Kept,
) -> Result<Bytes, ReplicaError> {
    if length < MIN_RESUMED || length > limit {
        return Ok(receiver.receive_exact(length, limit).await?);
    }
    let rest = length - begun.length();
    kept.begun.push(begun);
    let last = kept.begun.len() - 1;
    receiver
        .receive_into(rest, |piece| {
            kept.begun.get_mut(last).into_iter().for_each(|begun| begun.extend(piece));
            Ok::<(), ReplicaError>(())
        })
        .await?;
    Ok(kept.begun.get_mut(last).map(Begun::share).unwrap_or_default())
}

fn lengths(head: &UpdateHead) -> Vec<u64> {
    head.listed.iter().filter_map(|listed| listed.edit.as_ref()).flat_map(EditHead::lengths).collect()
}

/// Asks a parent for one update.
///
/// # Errors
/// When the parent or the network fails, or the channel is not found.
pub async fn pull(
    connection: &Connection,
    request: UpdateRequest,
) -> Result<Option<(Update, u64)>, ReplicaError> {
    let (mut sender, mut receiver) = connection.open_bi().await?;
    sender.send_message(&Opening::Update(request)).await?;
    sender.finish()?;
    let answer = receiver.receive_message::<UpdateAnswer>(MAX_FRAME);
    let peer = connection.peer().to_string();
    match answered(peer.clone(), ANSWER_WAIT * SNAPSHOT_WAITS, answer).await? {
        Some(UpdateAnswer::Update(head)) => {
            let whole = lengths(&head).into_iter().map(|length| (length, None)).collect();
            let edits = receive_edits(&peer, &mut receiver, whole, &mut Kept::default()).await?;
            Ok(Some((Update { head, edits }, receiver.bytes())))
        }
        Some(UpdateAnswer::Nothing) => Ok(None),
        Some(UpdateAnswer::NotFound) | None => Err(ReplicaError::NotFound),
    }
}

/// Asks a parent for objects of a bundle, and returns those that it sent and that match their ids.
///
/// # Errors
/// When the parent or the network fails.
pub(crate) async fn fetch_objects(
    connection: &Connection,
    request: ObjectsRequest,
) -> Result<Vec<(ObjectId, Bytes)>, ReplicaError> {
    let (mut sender, mut receiver) = connection.open_bi().await?;
    let objects = request.objects.clone();
    sender.send_message(&Opening::Objects(request)).await?;
    sender.finish()?;
    // A size is at most nine bytes: the frame is bounded by what was asked.
    let answer = receiver.receive_message(objects.len() as u64 * 9 + 9);
    let answer = answered(connection.peer().to_string(), ANSWER_WAIT, answer).await?;
    let Some(ObjectsAnswer(sizes)) = answer else {
        return Err(ReplicaError::NotFound);
    };
    let mut fetched = Vec::new();
    let mut left = MAX_OBJECTS_ANSWER;
    for (id, size) in objects.into_iter().zip(sizes) {
        let Some(size) = size else { continue };
        let bytes = receiver.receive_exact(size, left.min(MAX_OBJECT)).await?;
        left = left.saturating_sub(size);
        if id.matches(&bytes) {
            fetched.push((id, bytes));
        } else {
            tracing::warn!(peer = %connection.peer(), %id, "a parent sent other bytes than this object; dropped");
        }
    }
    Ok(fetched)
}
