//! Those who come to join or to renew: served here by the origin, passed on by any
//! other relay (specs/join.md, J-10 to J-15).

use crate::membership::Membership;
use crate::server::Shared;
use bytes::Bytes;
use rootcast::join::{JoinAnswer, PublicDocuments};
use rootcast::limits::{JOIN_WAIT, MAX_JOIN_REQUEST};
use rootcast::protocol::Opening;
use rootcast::topology::Address;
use rootcast_replica::joining::ask;
use rootcast_transport::{Code, Endpoint, PeerFault, Receiver, Sender, TransportError, Unproven};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// Who answers requests.
pub(crate) enum Answers {
    /// This origin; the room keeps requests from taking all threads that wait for the disk.
    Here { membership: Arc<Membership>, room: Semaphore },
    /// The origin, by way of our parents.
    Parents(Box<Parents>),
    /// Nobody: an origin that was given no keys.
    Nobody,
}

/// Whom a relay that is not the origin asks.
pub(crate) struct Parents {
    /// Our end of the network.
    pub(crate) endpoint: Endpoint,
    /// Their addresses, that of the one that is followed first.
    pub(crate) ways: watch::Receiver<Vec<Address>>,
    /// How many more requests may be under way.
    pub(crate) room: Semaphore,
}

impl Answers {
    /// What becomes of a request.
    pub(crate) async fn answer(&self, request: Bytes) -> JoinAnswer {
        match self {
            Self::Here { membership, room } => {
                let Ok(_room) = room.acquire().await else { return JoinAnswer::Unavailable };
                let membership = membership.clone();
                let machine = membership.machine().clone();
                let now = machine.now();
                let work = move || membership.answer(&request, now);
                machine.blocking(work).await.unwrap_or(JoinAnswer::Unavailable)
            }
            Self::Parents(parents) => match parents.room.try_acquire() {
                Ok(_room) => pass_on(parents, &request).await,
                Err(_) => JoinAnswer::Unavailable,
            },
            Self::Nobody => JoinAnswer::Unavailable,
        }
    }
}

async fn pass_on(parents: &Parents, request: &Bytes) -> JoinAnswer {
    let ways = parents.ways.borrow().clone();
    for address in &ways {
        let asked = async { ask(&parents.endpoint.connect(address.as_str()).await?, request.clone()).await };
        match asked.await {
            Ok(JoinAnswer::Unavailable) => {}
            Ok(answer) => return answer,
            Err(error) => tracing::warn!(%address, %error, "a request to join could not be passed on"),
        }
    }
    JoinAnswer::Unavailable
}

/// Serves one who is nobody yet: few, for a short time, and with nothing but this.
pub(crate) async fn serve(shared: &Arc<Shared>, joiner: Unproven) {
    let Ok(_room) = shared.joiners.try_acquire() else {
        joiner.close(Code::BUSY, "too many are joining");
        return;
    };
    let (code, reason) = match tokio::time::timeout(JOIN_WAIT, streams(shared, &joiner)).await {
        Ok(Err(error)) if error.fault().is_some() => (Code::FAULT, error.to_string()),
        Ok(_) => (Code::DONE, String::new()),
        Err(_) => (Code::DONE, "joining takes too long".into()),
    };
    if code == Code::FAULT {
        tracing::warn!(remote = %joiner.remote(), %reason, "dropped: a joiner broke the protocol");
    }
    joiner.close(code, &reason);
}

async fn streams(shared: &Shared, joiner: &Unproven) -> Result<(), TransportError> {
    loop {
        let (sender, receiver) = joiner.accept_bi().await?;
        stream(shared, joiner, sender, receiver).await?;
    }
}

async fn stream(
    shared: &Shared,
    joiner: &Unproven,
    mut sender: Sender,
    mut receiver: Receiver,
) -> Result<(), TransportError> {
    match receiver.receive_message::<Opening>(MAX_JOIN_REQUEST + 64).await? {
        Some(Opening::Platform) => sender.send_message(&documents(shared)).await?,
        Some(Opening::Join(request)) => {
            sender.send_message(&shared.answers.answer(request).await).await?;
        }
        // Nothing that a relay carries is for those who have not joined.
        Some(_) => {
            let peer = joiner.remote().to_string();
            return Err(TransportError::Peer { peer, fault: PeerFault::MembersOnly });
        }
        None => {}
    }
    sender.finish()
}

/// What this relay tells everybody about its platform.
pub(crate) fn documents(shared: &Shared) -> PublicDocuments {
    let trust = shared.trust.chain().after(0).cloned().collect();
    PublicDocuments { trust, authority: shared.authority.clone() }
}
