//! A platform's keys and identities. The keys follow from constants, so that
//! documents are the same in each run of a seed; certificates are made once a run.

use crate::error::SimError;
use crate::machine::BEGINNING;
use rootcast::cose::{DocumentKind, KeySet};
use rootcast::id::{PlatformId, TrustHash};
use rootcast::member::{Labels, Role};
use rootcast::path::ChannelName;
use rootcast::trust::{Grant, GrantLimits, Trust};
use rootcast_bundler::{HEAD_KEY_FILE, PUBLISHER_KEY_FILE};
use rootcast_relay::authority::Authority;
use rootcast_relay::issuing::Issuing;
use rootcast_replica::{FINGERPRINT_FILE, TRUST_FILE};
use rootcast_transport::{OwnKey, PeerName};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The platform.
pub const PLATFORM: PlatformId = PlatformId::from_bytes([5; 16]);
const ROOT_SEED: [u8; 32] = [1; 32];
/// The publisher's key; a lying relay that has it can fork a channel.
pub const PUBLISHER_SEED: [u8; 32] = [2; 32];
const HEAD_SEED: [u8; 32] = [3; 32];
/// How long certificates are good, by the real clock, which TLS reads: longer than any run.
const VALIDITY: Duration = Duration::from_secs(300 * 86_400);

/// Everything of the platform on disk.
pub struct Platform {
    directory: PathBuf,
    issuing: Issuing,
    trust: Vec<u8>,
    fingerprint: TrustHash,
}

/// The one channel.
///
/// # Errors
/// Never.
pub fn channel() -> Result<ChannelName, SimError> {
    ChannelName::new("main").map_err(|error| SimError::Platform(error.to_string()))
}

impl Platform {
    /// Makes it.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn found(directory: &Path) -> Result<Self, SimError> {
        let keys = directory.join("keys");
        std::fs::create_dir_all(&keys)?;
        let now = SystemTime::now();
        let authority = Authority::create(&directory.join("authority"), PLATFORM, now)?;
        let issuing = Issuing::create(&authority, &keys, now)?;
        let key = |seed: &[u8; 32]| OwnKey::from_seed(seed);
        for (file, seed) in [(PUBLISHER_KEY_FILE, PUBLISHER_SEED), (HEAD_KEY_FILE, HEAD_SEED)] {
            rootcast_keys::write_private(&keys.join(file), &key(&seed)?.to_pem())?;
        }
        let one = |seed: &[u8; 32]| -> Result<KeySet, SimError> {
            Ok(KeySet { threshold: 1, keys: vec![key(seed)?.public().clone()] })
        };
        let trust = Trust {
            platform: PLATFORM,
            version: 1,
            issued: BEGINNING,
            expires: BEGINNING + 3650 * 86_400,
            roots: one(&ROOT_SEED)?,
            grants: vec![Grant {
                prefix: channel()?,
                epoch: 1,
                publishers: one(&PUBLISHER_SEED)?,
                limits: GrantLimits::default(),
                symlinks: true,
            }],
            heads: one(&HEAD_SEED)?,
            authorities: vec![authority.hash()],
        };
        let payload = trust.encode();
        let document = key(&ROOT_SEED)?.sign(DocumentKind::Trust, PLATFORM, &payload)?;
        let fingerprint = TrustHash::of(&payload);
        Ok(Self { directory: directory.to_owned(), issuing, trust: document, fingerprint })
    }

    /// The origin's keys.
    pub fn keys(&self) -> PathBuf {
        self.directory.join("keys")
    }

    /// Makes a member, and says where its identity is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn member(&self, role: Role, name: &str, labels: &[(&str, String)]) -> Result<PathBuf, SimError> {
        let failed = |error: String| SimError::Platform(error);
        let home = self.directory.join("identities").join(name);
        let labels = Labels::new(labels.iter().map(|(key, value)| (*key, value.clone())))
            .map_err(|error| failed(error.to_string()))?;
        let peer = PeerName::new(PLATFORM, role, name)
            .map_err(|error| failed(error.to_string()))?
            .with_labels(labels);
        self.issuing.issue(&peer, VALIDITY, SystemTime::now(), &home)?;
        std::fs::write(home.join(TRUST_FILE), &self.trust)?;
        std::fs::write(home.join(FINGERPRINT_FILE), self.fingerprint.to_string())?;
        Ok(home)
    }
}
