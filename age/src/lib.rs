//! The age file format, version 1, for X25519 recipients (what the content of
//! a secret is: specs/tree.md, T-11) and for passphrases (what a key file can be).
//!
//! A pure format: no I/O, and randomness is an argument. The primitives are
//! ring's, curve25519-dalek's and scrypt's; why the format itself is here and not a
//! crate is in `docs/decisions/0009-age.md`. Checked against the age
//! project's own vectors in `testdata/age`.

mod bech32;
mod error;
mod header;
mod keys;
mod passphrase;
mod payload;
mod primitives;

pub use error::AgeError;
pub use header::VERSION;
pub use keys::{DecryptionKey, Recipient};
pub use passphrase::{decrypt_with_passphrase, encrypt_with_passphrase};

use header::{Header, Stanza};
use primitives::FILE_KEY_SIZE;
use rootcast::limits::MAX_SECRET_RECIPIENTS;
use zeroize::Zeroizing;

/// What a file decrypts to. Wiped when dropped, and never shown: its `Debug` is its length.
pub struct Plaintext(Zeroizing<Vec<u8>>);

impl core::ops::Deref for Plaintext {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl core::fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Plaintext({} bytes)", self.0.len())
    }
}

/// Most bytes that encrypting to so many recipients adds to `size` bytes.
pub const fn overhead(size: u64, recipients: u64) -> u64 {
    header::size(recipients) + payload::overhead(size)
}

/// Encrypts to recipients, at least one of whom there must be.
///
/// `random` fills what it is given with secret bytes. It decides whether two
/// encryptions of the same are the same: bytes that it gives for one pair of
/// plaintext and recipients it must not give for another.
///
/// # Errors
/// When there is no recipient, or more than [`MAX_SECRET_RECIPIENTS`].
pub fn encrypt(
    plaintext: &[u8],
    recipients: &[Recipient],
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<Vec<u8>, AgeError> {
    if recipients.is_empty() || recipients.len() > MAX_SECRET_RECIPIENTS {
        return Err(AgeError::Recipients(recipients.len()));
    }
    let mut file_key = Zeroizing::new([0; FILE_KEY_SIZE]);
    random(&mut *file_key);
    let wrap = |recipient: &Recipient| {
        let mut ephemeral = Zeroizing::new([0; 32]);
        random(&mut *ephemeral);
        recipient.wrap(&file_key, &ephemeral)
    };
    let stanzas = recipients.iter().map(wrap).collect::<Result<Vec<Stanza>, _>>()?;
    let mut file = header::encode(&stanzas, &file_key)?;
    payload::encrypt(plaintext, &file_key, random, &mut file)?;
    Ok(file)
}

impl DecryptionKey {
    /// Whether the file was encrypted to this key. Nothing but its header is looked at.
    ///
    /// # Errors
    /// When the header is not one, or was changed after it was encrypted.
    pub fn opens(&self, file: &[u8]) -> Result<bool, AgeError> {
        let (header, _) = Header::decode(file)?;
        Ok(self.file_key(&header)?.is_some())
    }

    /// What the file holds; `None` where it was not encrypted to this key.
    ///
    /// # Errors
    /// When the header is not one, or anything was changed after it was encrypted.
    pub fn decrypt(&self, file: &[u8]) -> Result<Option<Plaintext>, AgeError> {
        let (header, payload) = Header::decode(file)?;
        let Some(file_key) = self.file_key(&header)? else { return Ok(None) };
        Ok(Some(Plaintext(payload::decrypt(payload, &file_key)?)))
    }

    fn file_key(&self, header: &Header<'_>) -> Result<Option<primitives::FileKey>, AgeError> {
        for stanza in &header.stanzas {
            if stanza.is_passphrase() {
                return Err(AgeError::Header("it is encrypted to a passphrase"));
            }
            if let Some(file_key) = self.unwrap(stanza)? {
                header.authenticate(&file_key)?;
                return Ok(Some(file_key));
            }
        }
        Ok(None)
    }
}
