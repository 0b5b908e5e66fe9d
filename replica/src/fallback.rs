//! Where QUIC reaches no parent, since something on the way lets no UDP through:
//! the same parents over HTTPS, until QUIC reaches one again (specs/http.md, HT-30 to HT-34).

use crate::follow::{Follow, FollowEvent};
use crate::parents::Parents;
use crate::{Machine, ReplicaError, https};
use rootcast::limits::{FALLBACK_AFTER, QUIC_PROBE_FIRST, QUIC_PROBE_MAX, RETRY_FIRST, RETRY_MAX};
use rootcast::topology::Address;
use rootcast_transport::https::HttpsDialer;
use rootcast_transport::{Code, Endpoint};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What is done where QUIC reaches nobody.
#[derive(Debug, Clone)]
pub struct Fallback {
    pub(crate) dialer: HttpsDialer,
    after: Duration,
    probe: Duration,
}

impl Fallback {
    /// HTTPS with this dialer, after [`FALLBACK_AFTER`].
    pub fn new(dialer: HttpsDialer) -> Self {
        Self { dialer, after: FALLBACK_AFTER, probe: QUIC_PROBE_FIRST }
    }

    /// With other times: QUIC has reached nobody for `after`, and is tried again after `probe`,
    /// and then ever more rarely.
    #[must_use]
    pub fn with_times(self, after: Duration, probe: Duration) -> Self {
        Self { after, probe, ..self }
    }
}

/// Follows the parents over HTTPS, if it is time for that and one answers; returns
/// once QUIC reaches one (`true`), or HTTPS reaches none either.
pub(crate) async fn instead(follow: &mut Follow, parents: &Parents) -> bool {
    let reached = parents.reached();
    let Some(fallback) = follow.fallback.clone().filter(|fallback| reached.elapsed() >= fallback.after)
    else {
        return false;
    };
    let machine = follow.replica.machine().clone();
    let known = parents.known();
    let probing = probe(machine, follow.endpoint.clone(), &known, fallback.probe);
    let events = follow.events.clone();
    tokio::select! {
        biased;
        address = probing => {
            (events)(FollowEvent::Returned { address: address.to_string() });
            true
        }
        () = rounds(follow, &fallback.dialer, &known, reached) => false,
    }
}

/// One parent after the other, as [`crate::follow`] does over QUIC, until none answers.
async fn rounds(follow: &mut Follow, dialer: &HttpsDialer, parents: &[Address], reached: Instant) {
    let mut wait = RETRY_FIRST;
    let mut told = false;
    loop {
        let mut answered = false;
        for address in parents {
            let over = format!("https://{address}");
            let connection = match dialer.connect(address.as_str()).await {
                Ok(connection) => connection,
                Err(error) => {
                    (follow.events)(FollowEvent::Lost { address: over, reason: error.to_string() });
                    continue;
                }
            };
            answered = true;
            if !core::mem::replace(&mut told, true) {
                let seconds = reached.elapsed().as_secs();
                let reason =
                    format!("QUIC has reached no parent for {seconds} s, and HTTPS does: is UDP blocked?");
                (follow.events)(FollowEvent::Fallback { reason });
            }
            let begun = Instant::now();
            let parent = connection.peer().to_string();
            (follow.events)(FollowEvent::Connected { parent, address: over.clone() });
            let outcome = https::session(follow, dialer, address.as_str(), connection).await;
            // Our own disk is no reason to hurry back.
            let ours = matches!(outcome, Err(ReplicaError::Store(_)));
            if begun.elapsed() > wait && !ours {
                wait = RETRY_FIRST;
            }
            let reason = outcome.err().map_or_else(|| "it ended the session".to_owned(), |e| e.to_string());
            (follow.events)(FollowEvent::Lost { address: over, reason });
        }
        if !answered {
            return;
        }
        tokio::time::sleep(follow.replica.machine().jitter(wait)).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Waits until QUIC reaches one of the parents, and says which. Rarely, and at times of
/// its own: hosts behind one blocked way must not knock together.
async fn probe(
    machine: Arc<dyn Machine>,
    endpoint: Endpoint,
    parents: &[Address],
    first: Duration,
) -> Address {
    let mut wait = first;
    loop {
        tokio::time::sleep(machine.jitter(wait)).await;
        wait = (wait * 2).min(QUIC_PROBE_MAX);
        for address in parents {
            match endpoint.connect(address.as_str()).await {
                Ok(connection) => {
                    connection.close(Code::DONE, "QUIC gets through");
                    return address.clone();
                }
                Err(error) => tracing::debug!(%address, %error, "QUIC does not get through yet"),
            }
        }
    }
}
