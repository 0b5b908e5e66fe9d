//! Encrypting secrets so that the same one is the same bytes each time
//! (specs/configuration.md, F-45; docs/decisions/0009-age.md).

use rootcast::limits::MAX_SECRET;
use rootcast_age::{AgeError, Recipient, encrypt};
use rootcast_keys::{KeyError, read_private, write_private};
use std::fmt;
use std::io;
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

/// The file in a publisher's state from which the keys of its secrets are derived.
pub const SEALING_KEY_FILE: &str = "sealing.key";

/// Why a file cannot be delivered as a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Its content would be a path that everybody may read.
    #[error("is marked secret and is a link; mark the file that it points to")]
    Link,
    /// Secrets are installed with mode 0400.
    #[error("is marked secret and is executable; a secret cannot be run: take the mode away, or the mark")]
    Executable,
    /// Over the limit of the format.
    #[error("is marked secret and has {size} bytes; a secret has at most {MAX_SECRET}")]
    TooLarge {
        /// Its size.
        size: u64,
    },
    /// It could not be encrypted.
    #[error(transparent)]
    Age(#[from] AgeError),
}

/// What encrypts secrets: a key from which the randomness of each follows.
pub struct Sealer(Zeroizing<[u8; 32]>);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// With a key that is forgotten with this: an unchanged secret that is
    /// encrypted by another is other bytes.
    ///
    /// # Errors
    /// When the system's random source fails.
    pub fn random() -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(KeyError::Random)?;
        Ok(Self(key))
    }

    /// With the key in a publisher's state, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be read or made, or others can read it.
    pub fn open(state: &Path) -> Result<Self, KeyError> {
        let path = state.join(SEALING_KEY_FILE);
        let made = Self::random()?;
        let mut text = Zeroizing::new(hex::encode(*made.0));
        match write_private(&path, &text) {
            Ok(()) => return Ok(made),
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        text.zeroize();
        let text = read_private(&path)?;
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim_ascii(), &mut *key)
            .map_err(|_| KeyError::MalformedSealing { path: path.clone() })?;
        Ok(Self(key))
    }

    /// Encrypts to recipients, who are in ascending order.
    ///
    /// # Errors
    /// When there are none, or too many.
    pub fn seal(&self, plaintext: &[u8], recipients: &[Recipient]) -> Result<Vec<u8>, AgeError> {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // The number of them first: so that no recipient can pass for the beginning of a plaintext.
        hasher.update(&(recipients.len() as u64).to_le_bytes());
        for recipient in recipients {
            hasher.update(recipient.as_bytes());
        }
        hasher.update(plaintext);
        let mut stream = hasher.finalize_xof();
        let sealed = encrypt(plaintext, recipients, &mut |bytes| stream.fill(bytes));
        hasher.zeroize();
        stream.zeroize();
        sealed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast_age::DecryptionKey;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn key(seed: u8) -> DecryptionKey {
        DecryptionKey::from_bytes([seed; 32].into())
    }

    #[test]
    fn f_45_the_same_secret_is_the_same_bytes_and_any_other_is_all_other() {
        let state = tempfile::tempdir().unwrap();
        let (one, two) = (key(1).recipient(), key(2).recipient());
        let seal =
            |text: &[u8], to: &[Recipient]| Sealer::open(state.path()).unwrap().seal(text, to).unwrap();
        let file = seal(b"hunter2", &[one]);
        assert_eq!(file, seal(b"hunter2", &[one]), "also after a restart");
        assert_eq!(&*key(1).decrypt(&file).unwrap().unwrap(), b"hunter2");
        let others = [seal(b"hunter3", &[one]), seal(b"hunter2", &[two]), seal(b"hunter2", &[one, two])];
        let stanza = |file: &[u8]| file[22..110].to_vec();
        for other in &others {
            assert_ne!(stanza(&file), stanza(other), "no share is used for two files");
        }
        let forgotten = Sealer::random().unwrap().seal(b"hunter2", &[one]).unwrap();
        assert_ne!(stanza(&file), stanza(&forgotten));
    }

    #[test]
    fn f_45_a_key_that_others_can_read_or_that_is_none_is_refused() {
        let state = tempfile::tempdir().unwrap();
        Sealer::open(state.path()).unwrap();
        let path = state.path().join(SEALING_KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Sealer::open(state.path()), Err(KeyError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short").unwrap();
        assert!(matches!(Sealer::open(state.path()), Err(KeyError::MalformedSealing { .. })));
    }
}
