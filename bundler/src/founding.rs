//! The keys and the first trust document of a platform.

use rootcast::cose::{DocumentKind, KeySet};
use rootcast::id::{AuthorityHash, PlatformId, TrustHash};
use rootcast::path::ChannelName;
use rootcast::trust::{Grant, GrantLimits, Trust};
use rootcast_keys::{KeyError, Passphrase, SecretKey};
use std::path::Path;

/// The file of the key that signs trust documents; it belongs offline.
pub const ROOT_KEY_FILE: &str = "root.key";
/// The file of the key that signs releases.
pub const PUBLISHER_KEY_FILE: &str = "publisher.key";
/// The file of the key that signs heads; it belongs to the origin.
pub const HEAD_KEY_FILE: &str = "head.key";

/// What a platform begins with.
pub struct Founding<'a> {
    /// Its id.
    pub platform: PlatformId,
    /// Its certificate authority.
    pub authority: AuthorityHash,
    /// The channels that its publisher may publish to.
    pub grant: &'a ChannelName,
    /// When, in seconds since 1970.
    pub issued: u64,
    /// Until when its trust document is current, in seconds since 1970.
    pub expires: u64,
}

impl Founding<'_> {
    /// Makes the keys in `directory`, which exists, and signs trust version 1:
    /// the document, and the fingerprint to pin it by. Root and publisher key are encrypted where
    /// there is a passphrase; the online key never is: a daemon opens it.
    ///
    /// # Errors
    /// When a key file is there already or cannot be written, or the passphrase is not usable.
    pub fn found(
        &self,
        directory: &Path,
        passphrase: Option<&dyn Passphrase>,
    ) -> Result<(Vec<u8>, TrustHash), KeyError> {
        let key = |name: &str| -> Result<SecretKey, KeyError> {
            let key = SecretKey::generate()?;
            let path = directory.join(name);
            match passphrase.filter(|_| name != HEAD_KEY_FILE) {
                Some(passphrase) => key.save_encrypted(&path, passphrase)?,
                None => key.save(&path)?,
            }
            Ok(key)
        };
        let one = |key: &SecretKey| -> Result<KeySet, KeyError> {
            Ok(KeySet { threshold: 1, keys: vec![key.public()?] })
        };
        let (root, publisher, head) = (key(ROOT_KEY_FILE)?, key(PUBLISHER_KEY_FILE)?, key(HEAD_KEY_FILE)?);
        let trust = Trust {
            platform: self.platform,
            version: 1,
            issued: self.issued,
            expires: self.expires,
            roots: one(&root)?,
            grants: vec![Grant {
                prefix: self.grant.clone(),
                epoch: 1,
                publishers: one(&publisher)?,
                limits: GrantLimits::default(),
                symlinks: true,
            }],
            heads: one(&head)?,
            authorities: vec![self.authority],
        };
        let payload = trust.encode();
        let document = root.sign(DocumentKind::Trust, self.platform, &payload)?;
        Ok((document, TrustHash::of(&payload)))
    }
}
