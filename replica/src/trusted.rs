//! The platform's trust as this process has verified it: every version, on
//! disk and in memory, and never fewer than before.

use crate::durable::{self, PUBLIC};
use crate::machine::{Machine, System};
use crate::member::{FINGERPRINT_FILE, MemberError, TRUST_FILE, read};
use crate::session::answered;
use crate::{Replica, ReplicaError};
use bytes::Bytes;
use rootcast::head::lower_bound;
use rootcast::id::TrustHash;
use rootcast::limits::{ANSWER_WAIT, MAX_FRAME, MAX_TRUST_ANSWER};
use rootcast::protocol::{Opening, TrustAnswer};
use rootcast::trust::{TrustChain, TrustError, VerifiedTrust};
use rootcast_transport::Connection;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Every version of the platform's trust that this process knows.
///
/// Version 1 lies beside the identity, pinned by its fingerprint; each later
/// one is a file of the state directory, written durably before it is in force.
pub struct Trusted {
    machine: Arc<dyn Machine>,
    directory: Option<PathBuf>,
    chain: watch::Sender<Arc<TrustChain>>,
    taking: Mutex<()>,
}

impl Trusted {
    /// Reads version 1 from an identity's directory, and the later ones from a
    /// process's state directory.
    ///
    /// # Errors
    /// [`MemberError`], which names the file.
    pub fn open(identity: &Path, state: &Path) -> Result<Arc<Self>, MemberError> {
        Self::open_on(Arc::new(System), identity, state)
    }

    /// As [`Trusted::open`], on another machine than this process's.
    ///
    /// # Errors
    /// As [`Trusted::open`].
    pub fn open_on(
        machine: Arc<dyn Machine>,
        identity: &Path,
        state: &Path,
    ) -> Result<Arc<Self>, MemberError> {
        let mut chain = Self::pinned(identity)?;
        let directory = state.join("trust");
        loop {
            let path = file(&directory, chain.newest().trust().version.saturating_add(1));
            if !path.exists() {
                break;
            }
            let document = read(&path)?;
            chain.extend(&document).map_err(|source| MemberError::Trust { path, source })?;
        }
        let chain = watch::Sender::new(Arc::new(chain));
        Ok(Arc::new(Self { machine, directory: Some(directory), chain, taking: Mutex::default() }))
    }

    /// Version 1 alone, from an identity's directory or a platform's.
    ///
    /// # Errors
    /// [`MemberError`], which names the file.
    pub fn pinned(identity: &Path) -> Result<TrustChain, MemberError> {
        let path = identity.join(FINGERPRINT_FILE);
        let text = String::from_utf8_lossy(&read(&path)?).trim().to_owned();
        let fingerprint: TrustHash =
            text.parse().map_err(|source| MemberError::Fingerprint { path, source })?;
        let path = identity.join(TRUST_FILE);
        TrustChain::pinned(&read(&path)?, fingerprint).map_err(|source| MemberError::Trust { path, source })
    }

    /// What is given, kept in memory only.
    pub fn in_memory(chain: TrustChain) -> Arc<Self> {
        let chain = watch::Sender::new(Arc::new(chain));
        Arc::new(Self { machine: Arc::new(System), directory: None, chain, taking: Mutex::default() })
    }

    /// The machine that this process runs on.
    pub fn machine(&self) -> &Arc<dyn Machine> {
        &self.machine
    }
    /// All versions.
    pub fn chain(&self) -> Arc<TrustChain> {
        self.chain.borrow().clone()
    }
    /// The version in force.
    pub fn newest(&self) -> Arc<VerifiedTrust> {
        self.chain.borrow().newest().clone()
    }
    /// The number of the version in force.
    pub fn version(&self) -> u64 {
        self.chain.borrow().newest().trust().version
    }
    /// Changes when a newer version is in force.
    pub fn watch(&self) -> watch::Receiver<Arc<TrustChain>> {
        self.chain.subscribe()
    }

    /// The time to judge by, in seconds since 1970 (specs/documents.md, D-35).
    pub fn now(&self, verified: impl IntoIterator<Item = u64>) -> u64 {
        lower_bound(self.machine.seconds(), verified.into_iter().chain([self.newest().trust().issued]))
    }

    /// Verifies the next version, makes it durable, and puts it in force. Blocking.
    /// `false`: it is the version in force already.
    ///
    /// # Errors
    /// When it does not follow from the version in force, or cannot be written.
    pub fn offer(&self, document: &[u8]) -> Result<bool, ReplicaError> {
        let _turn = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chain = (*self.chain()).clone();
        if chain.newest().document() == document {
            return Ok(false);
        }
        chain.extend(document)?;
        let version = chain.newest().trust().version;
        if let Some(directory) = &self.directory {
            let path = file(directory, version);
            std::fs::create_dir_all(directory)
                .and_then(|()| durable::replace(&path, document, PUBLIC))
                .map_err(|source| ReplicaError::KeepTrust { path, source })?;
        }
        tracing::info!(version, "a new version of the trust document is in force");
        self.chain.send_replace(Arc::new(chain));
        Ok(true)
    }

    /// The documents after a version, as many as one answer holds.
    pub fn answer(&self, version: u64) -> TrustAnswer {
        TrustAnswer(self.chain().after(version).take(MAX_TRUST_ANSWER).cloned().collect())
    }

    /// Asks a parent for the versions that it knows and we do not, one by one
    /// (The Update Framework 1.0.33, section 5.3). Whether there were any.
    ///
    /// # Errors
    /// When the parent or the network fails, or one does not verify.
    pub async fn fetch(self: &Arc<Self>, connection: &Connection) -> Result<bool, ReplicaError> {
        let mut gained = false;
        loop {
            let (mut sender, mut receiver) = connection.open_bi().await?;
            sender.send_message(&Opening::Trust(self.version())).await?;
            sender.finish()?;
            let answer = receiver.receive_message::<TrustAnswer>(MAX_FRAME);
            let answer = answered(connection.peer().to_string(), ANSWER_WAIT, answer).await?;
            let documents = answer.map(|TrustAnswer(documents)| documents).unwrap_or_default();
            if documents.is_empty() {
                return Ok(gained);
            }
            let trusted = self.clone();
            let took = self.machine.blocking(move || {
                documents.iter().take(MAX_TRUST_ANSWER).try_fold(false, |took, document: &Bytes| {
                    Ok::<_, ReplicaError>(trusted.offer(document)? || took)
                })
            });
            if !took.await?? {
                return Ok(gained);
            }
            gained = true;
        }
    }
}

impl Replica {
    /// The trust in force, if it is one that new statements may be judged by:
    /// not one that went back behind what was accepted, nor one that has lapsed.
    pub(crate) fn judging(&self) -> Result<Arc<VerifiedTrust>, ReplicaError> {
        let trust = self.trust.newest();
        let (have, need) = (trust.trust().version, self.store.floors().trust_version);
        if have < need {
            return Err(ReplicaError::TrustBehind { have, need });
        }
        let now = self.now();
        if now >= trust.trust().expires {
            return Err(ReplicaError::TrustLapsed { version: have });
        }
        Ok(trust)
    }
}

fn file(directory: &Path, version: u64) -> PathBuf {
    directory.join(format!("{version}.cose"))
}

impl From<TrustError> for ReplicaError {
    fn from(error: TrustError) -> Self {
        Self::Trust(error)
    }
}
