//! The origin's heads: signed with the online key for each release, and again
//! long before the last one lapses (specs/documents.md, D-31, D-36).

use crate::RelayError;
use crate::audit::{Audit, Event, ORIGIN};
use crate::config::RelayConfig;
use crate::membership::ONLINE_KEY_FILE;
use rootcast::acceptance::Accepted;
use rootcast::cose::DocumentKind;
use rootcast::head::Head;
use rootcast::limits::{HEAD_RENEWALS, RETRY_MAX};
use rootcast_replica::{Replica, ReplicaError};
use rootcast_transport::OwnKey;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What signs heads.
pub(crate) struct HeadSigner {
    key: OwnKey,
    path: PathBuf,
    validity: Duration,
}

impl HeadSigner {
    /// Reads the online key of an origin's configuration. None: it is not there.
    pub(crate) fn load(config: &RelayConfig) -> Result<Option<Self>, RelayError> {
        let Some(keys) = &config.keys else {
            tracing::warn!(
                "`keys` is not set, so no heads are signed, and hosts will say that they are STALE"
            );
            return Ok(None);
        };
        let path = keys.join(ONLINE_KEY_FILE);
        let validity = Duration::from_secs(config.head_validity_seconds);
        Ok(Some(Self { key: OwnKey::load(&path)?, path, validity }))
    }

    /// Signs heads of a channel for as long as it is not dropped.
    pub(crate) async fn sign_all(self: Arc<Self>, replica: Arc<Replica>, audit: Option<Arc<Audit>>) {
        let mut told = String::new();
        let (mut held, mut trust) = (replica.watch_held(), replica.trust().watch());
        loop {
            held.mark_unchanged();
            trust.mark_unchanged();
            let (signer, of) = (self.clone(), replica.clone());
            let signed = replica.machine().blocking(move || signer.sign_if_due(&of)).await;
            let wait = match signed {
                Ok(Ok(wait)) => wait,
                Ok(Err(error)) => {
                    tracing::error!(
                        channel = %replica.channel(), %error, key = %self.path.display(),
                        "no head could be signed; hosts will say that they are STALE when the last one lapses"
                    );
                    let problem = error.to_string();
                    if let Some(audit) = audit.as_ref().filter(|_| problem != told) {
                        let event = Event::Heads(replica.channel().to_string(), problem.clone());
                        audit.note(ORIGIN.into(), event).await;
                        told = problem;
                    }
                    RETRY_MAX
                }
                Err(_) => return,
            };
            tokio::select! {
                biased;
                changed = held.changed() => if changed.is_err() { return },
                changed = trust.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Signs a head if the newest one does not say what is so, or is getting
    /// old. How long until the next look. Blocking.
    fn sign_if_due(&self, replica: &Replica) -> Result<Duration, ReplicaError> {
        let renewal = (self.validity.as_secs() / HEAD_RENEWALS).max(1);
        let (Some(held), now) = (replica.granted(), replica.now()) else {
            return Ok(Duration::from_secs(renewal));
        };
        let release = held.accepted();
        if let Some(head) = replica.head().filter(|head| head.head().release == release) {
            let age = now.saturating_sub(head.head().issued);
            if age < renewal && head.head().validity() == self.validity.as_secs() {
                return Ok(Duration::from_secs(renewal - age));
            }
        }
        let document = self.sign(replica, release, now)?;
        replica.accept_head(&document.into())?;
        Ok(Duration::from_secs(renewal))
    }

    fn sign(&self, replica: &Replica, release: Accepted, now: u64) -> Result<Vec<u8>, ReplicaError> {
        let floors = replica.floors();
        let epoch = release.epoch;
        let sequence = if floors.head_epoch == epoch { floors.head_sequence + 1 } else { 1 };
        let channel = replica.channel().clone();
        let expires = now + self.validity.as_secs();
        let head = Head { channel, epoch, sequence, release, issued: now, expires };
        let platform = replica.trust().newest().trust().platform;
        Ok(self.key.sign(DocumentKind::Head, platform, &head.encode())?)
    }
}
