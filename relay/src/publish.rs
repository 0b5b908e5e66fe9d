//! Taking a publication: only the origin does, and it is durable before anyone hears of it.

use crate::audit::Event;
use crate::server::{RelayEvent, Shared};
use bytes::Bytes;
use rootcast::acceptance::Accepted;
use rootcast::cose::{self, DocumentKind};
use rootcast::limits::MAX_EDIT;
use rootcast::protocol::{Interest, Publication, PublishAnswer, TrustApplied};
use rootcast::trust::{Trust, TrustError};
use rootcast_replica::{Held, Received, ReplicaError, Rule, Update};
use rootcast_transport::{Connection, Receiver, Role};
use std::sync::Arc;

/// Puts a new version of trust in force. It verifies itself; the role only keeps noise away.
pub(crate) async fn apply_trust(
    shared: &Arc<Shared>,
    connection: &Connection,
    document: Bytes,
) -> Result<TrustApplied, ReplicaError> {
    if !shared.is_origin {
        return Ok(TrustApplied::NotOrigin);
    }
    if connection.peer().role() != Role::Publisher {
        let reason = "only an identity with the role publisher may bring a new version of trust";
        record(shared, connection, Event::TrustRefused(reason.into())).await;
        return Ok(TrustApplied::Refused(reason.into()));
    }
    let trust = shared.trust.clone();
    let machine = trust.machine().clone();
    let offered = machine.blocking(move || {
        // It would be in force, and nothing could be published any more.
        if Trust::unverified(&document)?.0.expires <= trust.now([]) {
            return Err(TrustError::Unsound("it has expired before it was brought; propose it anew").into());
        }
        trust.offer(&document)
    });
    match offered.await? {
        Ok(new) => {
            let (version, by) = (shared.trust.version(), connection.peer().to_string());
            if new {
                let hash = shared.trust.newest().hash().to_string();
                record(shared, connection, Event::Trust(version, hash)).await;
                (shared.events)(RelayEvent::Trust { version, by });
            }
            Ok(TrustApplied::InForce(version))
        }
        Err(error) => {
            let reason = error.to_string();
            record(shared, connection, Event::TrustRefused(reason.clone())).await;
            Ok(TrustApplied::Refused(reason))
        }
    }
}

/// Records what a peer brought about, before it is answered (specs/audit.md, AU-1).
async fn record(shared: &Shared, connection: &Connection, event: Event) {
    if let Some(audit) = &shared.audit {
        audit.note(connection.peer().to_string(), event).await;
    }
}

/// The record of a release that is held.
fn published(held: &Held) -> Event {
    let release = held.bundles.release();
    let keys = cose::claimed_keys(DocumentKind::Release, release.document()).unwrap_or_default();
    let (fields, accepted) = (release.release(), held.accepted());
    Event::Publish {
        channel: fields.channel.to_string(),
        number: accepted.number,
        hash: accepted.hash.to_string(),
        commit: fields.commit_hex(),
        keys: keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    }
}

/// Takes or refuses a publication, and records which.
pub(crate) async fn take(
    shared: &Arc<Shared>,
    connection: &Connection,
    publication: Publication,
    receiver: &mut Receiver,
) -> Result<PublishAnswer, ReplicaError> {
    let channel = publication.channel.to_string();
    let answer = judge(shared, connection, publication, receiver).await?;
    if let PublishAnswer::Refused(reason) = &answer {
        record(shared, connection, Event::PublishRefused(channel, reason.clone())).await;
    }
    Ok(answer)
}

async fn judge(
    shared: &Arc<Shared>,
    connection: &Connection,
    publication: Publication,
    receiver: &mut Receiver,
) -> Result<PublishAnswer, ReplicaError> {
    if !shared.is_origin {
        return Ok(PublishAnswer::NotOrigin);
    }
    let refuse = |reason: &str| Ok(PublishAnswer::Refused(reason.to_owned()));
    if connection.peer().role() != Role::Publisher {
        return refuse("only an identity with the role publisher may publish");
    }
    let Some(replica) = shared.replica(&publication.channel).cloned() else {
        return Ok(PublishAnswer::Refused(format!(
            "the origin does not carry channel `{}`; add it to `channels` in its configuration",
            publication.channel
        )));
    };
    if publication.leaves.len() != publication.edits.len() {
        return refuse("the publication names as many edits as leaves");
    }
    let mut left = MAX_EDIT;
    let mut edits = Vec::new();
    for length in publication.edits.iter().flatten() {
        edits.push(receiver.receive_exact(*length, left).await?);
        left = left.saturating_sub(*length);
    }
    let channel = publication.channel.clone();
    let update = Update::of_publication(publication, edits);
    // One at a time: of two that race, the second finds the first's release in its way.
    let _turn = shared.publishing.lock().await;
    let taking = replica.clone();
    let taken = move || taking.receive(&update, &Interest::All, Rule::Origin);
    match replica.machine().blocking(taken).await? {
        Ok(Received::Held(held)) => {
            let accepted: Accepted = held.accepted();
            let publisher = connection.peer().to_string();
            record(shared, connection, published(&held)).await;
            tracing::info!(%channel, number = accepted.number, %publisher, "published");
            (shared.events)(RelayEvent::Published { channel, number: accepted.number, publisher });
            Ok(PublishAnswer::Accepted(accepted))
        }
        Ok(Received::Known) | Err(ReplicaError::NotNext) => match replica.held() {
            Some(held) => Ok(PublishAnswer::Conflict(held.accepted())),
            None => refuse("the first release of a channel has number 1"),
        },
        Err(error) => {
            tracing::warn!(%channel, peer = %connection.peer(), %error, "a publication is refused");
            Ok(PublishAnswer::Refused(error.to_string()))
        }
    }
}
