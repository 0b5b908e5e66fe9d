//! Renewing certificates: each member its own, in time (specs/join.md, J-30 to J-32).

use crate::Machine;
use crate::durable::{self, PRIVATE};
use crate::joining::{JoinFailure, ask, failed, seconds, signed};
use bytes::Bytes;
use rootcast::codec::{self, CodecError};
use rootcast::http::{Target, Url};
use rootcast::join::{JoinAnswer, Request};
use rootcast::limits::{JOIN_WAIT, MAX_JOIN_ANSWER, RENEWAL_RETRY_FIRST, RENEWAL_RETRY_MAX};
use rootcast_transport::https::{Ask, Caches, HttpsDialer};
use rootcast_transport::{Endpoint, IDENTITY_FILE, Identity, Joiner, TransportError};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// When a certificate is to be renewed: after half of its life, and up to a tenth
/// of it later, so that members that joined together do not renew together.
pub fn due(machine: &dyn Machine, identity: &Identity) -> SystemTime {
    let life = identity.expires().duration_since(identity.begins()).unwrap_or_default();
    // Between half and all of a tenth.
    identity.begins() + life / 2 + machine.jitter(life / 10)
}

/// Whether half of a certificate's life is over.
pub fn is_past_half(identity: &Identity, now: SystemTime) -> bool {
    let life = identity.expires().duration_since(identity.begins()).unwrap_or_default();
    now >= identity.begins() + life / 2
}

/// Renews the identity in a directory once, for the same key, and writes it there.
///
/// # Errors
/// When it cannot be asked for, is refused, or is not as it must be; the old one stays.
pub async fn renew<F>(
    directory: &Path,
    now: SystemTime,
    ask: impl FnOnce(Identity, Bytes) -> F,
) -> Result<Identity, JoinFailure>
where
    F: Future<Output = Result<JoinAnswer, JoinFailure>>,
{
    let identity = Identity::load(directory)?;
    let (own, authority, name) = (identity.own_key()?, identity.authority().clone(), identity.name().clone());
    let request = Request {
        role: name.role(),
        name: name.member().clone(),
        key: own.public().clone(),
        issued: seconds(now),
        recipient: String::new(),
    };
    let request = signed(&request, name.platform(), &[&own])?;
    let chain = match ask(identity, request).await? {
        JoinAnswer::Issued(chain) => chain,
        JoinAnswer::Refused => return Err(JoinFailure::Refused),
        JoinAnswer::Unavailable => return Err(JoinFailure::Unavailable { tried: "the parents".into() }),
    };
    let path = directory.join(IDENTITY_FILE);
    let renewed = Identity::of_chain(&chain, &own, authority, &path)?;
    if *renewed.name() != name {
        let (got, want) = (renewed.name().to_uri(), name.to_uri());
        return Err(JoinFailure::OtherCertificate { got, want });
    }
    durable::replace(&path, renewed.to_pem()?.as_bytes(), PRIVATE)
        .map_err(|source| failed(path.clone(), source))?;
    Ok(renewed)
}

fn list(parents: &[impl AsRef<str>]) -> String {
    parents.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

/// Asks parents in turn: as a member while our certificate is good, and
/// as one without when it is no longer.
///
/// # Errors
/// [`JoinFailure`]; the last parent's, where none issues.
pub async fn ask_parents(
    endpoint: &Endpoint,
    parents: &[impl AsRef<str>],
    identity: &Identity,
    now: SystemTime,
    request: Bytes,
) -> Result<JoinAnswer, JoinFailure> {
    let is_good = identity.expires() > now;
    let mut last = Err(JoinFailure::Unavailable { tried: list(parents) });
    for address in parents.iter().map(AsRef::as_ref) {
        let connecting = async {
            if is_good {
                endpoint.connect(address).await
            } else {
                Joiner::new()?.connect(address, identity.authority()).await
            }
        };
        let outcome = async { ask(&connecting.await?, request.clone()).await };
        match outcome.await {
            Ok(issued @ JoinAnswer::Issued(_)) => return Ok(issued),
            // This parent may be the one that is wrong.
            Ok(other) => last = Ok(other),
            Err(error) => last = Err(error.into()),
        }
    }
    last
}

/// As [`ask_parents`], and where QUIC reaches none of them, over HTTPS.
///
/// # Errors
/// As [`ask_parents`].
pub async fn ask_either_way(
    endpoint: &Endpoint,
    dialer: Option<&HttpsDialer>,
    parents: &[impl AsRef<str>],
    identity: &Identity,
    now: SystemTime,
    request: Bytes,
) -> Result<JoinAnswer, JoinFailure> {
    match (ask_parents(endpoint, parents, identity, now, request.clone()).await, dialer) {
        (Err(error), Some(dialer)) => {
            tracing::info!(%error, "renewing over HTTPS");
            ask_over_https(dialer, parents, identity, now, request).await
        }
        (answered, _) => answered,
    }
}

/// As [`ask_parents`], over HTTPS: where QUIC reaches none of them.
///
/// # Errors
/// As [`ask_parents`].
pub async fn ask_over_https(
    dialer: &HttpsDialer,
    parents: &[impl AsRef<str>],
    identity: &Identity,
    now: SystemTime,
    request: Bytes,
) -> Result<JoinAnswer, JoinFailure> {
    let nameless;
    let dialer = if identity.expires() > now {
        dialer
    } else {
        nameless = HttpsDialer::nameless(identity)?;
        &nameless
    };
    let target = Url { platform: identity.name().platform(), target: Target::Join }.to_string();
    let ask = Ask { limit: MAX_JOIN_ANSWER, wait: JOIN_WAIT * 2, caches: Caches::Avoided };
    let mut last = Err(JoinFailure::Unavailable { tried: list(parents) });
    for address in parents.iter().map(AsRef::as_ref) {
        let outcome = async {
            let mut connection = dialer.connect(address).await?;
            let answer = connection.post(&target, request.clone(), ask).await?;
            let peer = connection.peer().to_string();
            let refused = |error: CodecError| TransportError::Peer { peer, fault: error.into() };
            let Some(answer) = answer else { return Ok(JoinAnswer::Unavailable) };
            codec::decode(&answer, MAX_JOIN_ANSWER).map_err(refused)
        };
        match outcome.await {
            Ok(issued @ JoinAnswer::Issued(_)) => return Ok(issued),
            // This parent may be the one that is wrong.
            Ok(other) => last = Ok(other),
            Err(error) => last = Err(error.into()),
        }
    }
    last
}

/// Keeps the certificate of a running member good until the future is dropped; `ask`
/// is as for [`renew`]. What is renewed is written, and `adopt` has it used for new connections.
pub async fn keep_renewed<F>(
    machine: Arc<dyn Machine>,
    directory: PathBuf,
    adopt: impl Fn(&Identity) -> Result<(), TransportError>,
    ask: impl Fn(Identity, Bytes) -> F,
) where
    F: Future<Output = Result<JoinAnswer, JoinFailure>>,
{
    let mut wait = RENEWAL_RETRY_FIRST;
    loop {
        if let Ok(identity) = Identity::load(&directory) {
            machine.sleep_until(due(&*machine, &identity)).await;
        }
        let outcome = renew(&directory, machine.now(), &ask).await;
        match outcome.and_then(|renewed| Ok(adopt(&renewed).map(|()| renewed)?)) {
            Ok(renewed) => {
                wait = RENEWAL_RETRY_FIRST;
                tracing::info!(name = %renewed.name(), "our certificate was renewed");
                // The origin may hold ours for young still, where the clocks differ.
                if due(&*machine, &renewed) <= machine.now() {
                    tokio::time::sleep(machine.jitter(RENEWAL_RETRY_MAX)).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "our certificate could not be renewed; trying again");
                tokio::time::sleep(machine.jitter(wait)).await;
                wait = (wait * 2).min(RENEWAL_RETRY_MAX);
            }
        }
    }
}
