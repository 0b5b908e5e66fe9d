//! Secret signing keys on disk: PKCS#8 PEM, readable by their owner alone.
//!
//! Used where documents are signed, by publishers, root key holders and the
//! origin, and nowhere else: no host and no plain relay has a use for it.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use ed25519_dalek::{Signer as _, SigningKey};
use rootcast::cose::{self, DocumentKind, PublicKey, SignatureError};
use rootcast::id::PlatformId;
use rootcast::limits::MAX_KEY_FILE;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A secret key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than the owner can read it.
    #[error("{} has mode {mode:03o}, so others can read the secret key; run `chmod 600` on it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// It is not an Ed25519 key in PKCS#8 PEM.
    #[error("{} is not an Ed25519 secret key in PKCS#8 PEM", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// It is not what the publisher derives the keys of secrets from.
    #[error(
        "{} is not 32 bytes in hexadecimal; remove it, and the next publication of each secret sends it anew",
        path.display()
    )]
    MalformedSealing {
        /// The file.
        path: PathBuf,
    },
    /// The system's random source failed.
    #[error("the system's random source failed: {0}")]
    Random(getrandom::Error),
    /// The public half is not usable.
    #[error(transparent)]
    Public(#[from] SignatureError),
}

/// Writes a new file of mode 0600, durably.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<(), KeyError> {
    let failed = |source| KeyError::Io { path: path.to_owned(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

/// Reads a small file that nobody but its owner may read.
///
/// # Errors
/// [`KeyError`], which names the file.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let failed = |source| KeyError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    // All of its room from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE as usize));
    file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// A secret Ed25519 key. Wiped from memory when dropped.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Makes one from the system's random source.
    ///
    /// # Errors
    /// When that source fails.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(KeyError::Random)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Writes it to a new file of mode 0600.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let malformed = |_| KeyError::Malformed { path: path.to_owned() };
        let pem = self.0.to_pkcs8_pem(LineEnding::LF).map_err(malformed)?;
        write_private(path, &pem)
    }

    /// Reads it, and refuses a file that others can read.
    ///
    /// # Errors
    /// [`KeyError`], which names the file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let pem = read_private(path)?;
        let key = SigningKey::from_pkcs8_pem(&pem);
        Ok(Self(key.map_err(|_| KeyError::Malformed { path: path.to_owned() })?))
    }

    /// The public half.
    ///
    /// # Errors
    /// Never for a key made at random.
    pub fn public(&self) -> Result<PublicKey, KeyError> {
        Ok(PublicKey::from_bytes(&self.0.verifying_key().to_bytes())?)
    }

    /// Signs a payload: a whole COSE_Sign1.
    ///
    /// # Errors
    /// As [`SecretKey::public`].
    pub fn sign(
        &self,
        kind: DocumentKind,
        platform: PlatformId,
        payload: &[u8],
    ) -> Result<Vec<u8>, KeyError> {
        let key = self.public()?.id();
        let signature = self.0.sign(&cose::to_be_signed(kind, platform, key, payload));
        Ok(cose::assemble(kind, key, payload, &signature.to_bytes()))
    }
}

/// A publisher's key and the platform that it signs for. Who has one can have
/// releases signed, and cannot take the key out.
pub struct Signer {
    key: SecretKey,
    platform: PlatformId,
}

impl Signer {
    /// Reads the key as [`SecretKey::load`] does.
    ///
    /// # Errors
    /// [`KeyError`], which names the file.
    pub fn load(path: &Path, platform: PlatformId) -> Result<Self, KeyError> {
        Ok(Self { key: SecretKey::load(path)?, platform })
    }

    /// The public half.
    ///
    /// # Errors
    /// As [`SecretKey::public`].
    pub fn public(&self) -> Result<PublicKey, KeyError> {
        self.key.public()
    }

    /// Signs a payload: a whole COSE_Sign1.
    ///
    /// # Errors
    /// As [`SecretKey::public`].
    pub fn sign(&self, kind: DocumentKind, payload: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.key.sign(kind, self.platform, payload)
    }
}
