//! Updates and objects over a connection: one question, one answer.

use crate::{Outgoing, ReplicaError, Update};
use bytes::Bytes;
use rootcast::compact::CompactHead;
use rootcast::id::ObjectId;
use rootcast::limits::{ANSWER_WAIT, MAX_EDIT, MAX_FRAME, MAX_OBJECT, MAX_OBJECTS_ANSWER};
use rootcast::protocol::{
    EditHead, ObjectsAnswer, ObjectsRequest, Opening, UpdateAnswer, UpdateHead, UpdateMessage, UpdateRequest,
};
use rootcast_transport::{Connection, PeerFault, Receiver, Sender, TransportError, frame_of};
use std::future::Future;
use std::time::Duration;

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
        self.send(frame_of(&message)?, sender).await
    }

    /// Sends the update as the answer to a pull.
    ///
    /// # Errors
    /// When the child or the network fails.
    pub async fn answer(&self, sender: &mut Sender) -> Result<u64, ReplicaError> {
        self.send(frame_of(&UpdateAnswer::Update(self.head.clone()))?, sender).await
    }

    async fn send(&self, head: Bytes, sender: &mut Sender) -> Result<u64, ReplicaError> {
        let mut pieces: Vec<Bytes> = core::iter::once(head).chain(self.edits.iter().cloned()).collect();
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
            UpdateMessage::Whole(head) => head.subscription,
            UpdateMessage::Compact(head) => head.subscription,
        }
    }
}

/// Reads an update from an update stream.
///
/// # Errors
/// When the parent or the network fails, or an edit is over its bound.
pub async fn receive_update(peer: String, receiver: &mut Receiver) -> Result<Option<Pushed>, ReplicaError> {
    let head = receiver.receive_message::<UpdateMessage>(MAX_FRAME);
    let Some(message) = answered(peer, ANSWER_WAIT, head).await? else { return Ok(None) };
    let lengths = match &message {
        UpdateMessage::Whole(head) => lengths(head),
        UpdateMessage::Compact(head) => head.listed.iter().map(|bundle| bundle.length).collect(),
    };
    let edits = receive_edits(&lengths, receiver).await?;
    Ok(Some(Pushed { message, edits }))
}

fn lengths(head: &UpdateHead) -> Vec<u64> {
    head.listed.iter().filter_map(|listed| listed.edit.as_ref()).flat_map(EditHead::lengths).collect()
}

async fn receive_edits(lengths: &[u64], receiver: &mut Receiver) -> Result<Vec<Bytes>, ReplicaError> {
    let mut edits = Vec::new();
    let mut left = MAX_EDIT;
    for length in lengths {
        edits.push(receiver.receive_exact(*length, left).await?);
        left = left.saturating_sub(*length);
    }
    receiver.receive_end().await?;
    Ok(edits)
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
    match answered(connection.peer().to_string(), ANSWER_WAIT * SNAPSHOT_WAITS, answer).await? {
        Some(UpdateAnswer::Update(head)) => {
            let edits = receive_edits(&lengths(&head), &mut receiver).await?;
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
