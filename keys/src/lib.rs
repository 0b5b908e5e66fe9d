//! Secret signing keys on disk, readable by their owner alone: PKCS#8 PEM, or
//! the same encrypted with a passphrase (specs/documents.md, D-37 to D-39).
//!
//! Used where documents are signed, by publishers, root key holders and the
//! origin, and nowhere else: no host and no plain relay has a use for it.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

mod error;
mod file;

pub use error::KeyError;
pub use file::{KeyFile, NoPassphrase, Passphrase, key_files, public_key, read_private, write_private};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use ed25519_dalek::{Signer as _, SigningKey};
use rootcast::cose::{self, DocumentKind, PublicKey};
use rootcast::id::PlatformId;
use std::path::Path;
use zeroize::Zeroizing;

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

    /// Writes it to a new file of mode 0600, not encrypted, and its public half beside it.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        file::write_key(path, self.to_pem(path)?.as_bytes(), &self.public()?)
    }

    /// Writes it to a new file of mode 0600, encrypted with a passphrase, and its public half beside it.
    ///
    /// # Errors
    /// When there is no usable passphrase, or the file exists or cannot be written.
    pub fn save_encrypted(&self, path: &Path, passphrase: &dyn Passphrase) -> Result<(), KeyError> {
        file::write_key(path, &file::seal(path, &self.to_pem(path)?, passphrase)?, &self.public()?)
    }

    /// Reads it where nobody can give a passphrase, as daemons must.
    ///
    /// # Errors
    /// As [`SecretKey::open`]; [`KeyError::Encrypted`] for a file that needs a passphrase.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::open(path, &NoPassphrase)
    }

    /// Reads it, finding out whether it is encrypted, and checks the public half beside it.
    ///
    /// # Errors
    /// [`KeyError`], which names the file: also when others than the owner can read it.
    pub fn open(path: &Path, passphrase: &dyn Passphrase) -> Result<Self, KeyError> {
        let key = Self::from_pem(path, &file::read_key(path, passphrase)?)?;
        file::check_public(path, &key.public()?)?;
        Ok(key)
    }

    /// Reads PKCS#8 PEM; the path is for the message.
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn from_pem(path: &Path, pem: &[u8]) -> Result<Self, KeyError> {
        let key = core::str::from_utf8(pem).ok().and_then(|pem| SigningKey::from_pkcs8_pem(pem).ok());
        Ok(Self(key.ok_or_else(|| KeyError::Malformed { path: path.to_owned() })?))
    }

    /// As PKCS#8 PEM; the path is for the message.
    ///
    /// # Errors
    /// Never for an Ed25519 key.
    pub fn to_pem(&self, path: &Path) -> Result<Zeroizing<String>, KeyError> {
        self.0.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyError::Malformed { path: path.to_owned() })
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
    /// Binds a key to a platform.
    pub fn new(key: SecretKey, platform: PlatformId) -> Self {
        Self { key, platform }
    }

    /// Reads the key as [`SecretKey::load`] does.
    ///
    /// # Errors
    /// [`KeyError`], which names the file.
    pub fn load(path: &Path, platform: PlatformId) -> Result<Self, KeyError> {
        Ok(Self::new(SecretKey::load(path)?, platform))
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
