//! The key schedule of age: HKDF-SHA-256, HMAC-SHA-256, ChaCha20-Poly1305.

use crate::AgeError;
use ring::aead::{self, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

/// Bytes of a file key, from which all keys of one file follow.
pub(crate) const FILE_KEY_SIZE: usize = 16;
/// Bytes that authentication adds.
pub(crate) const TAG: usize = 16;

/// The key of one file.
pub(crate) type FileKey = Zeroizing<[u8; FILE_KEY_SIZE]>;

/// HKDF-SHA-256, 32 bytes long.
pub(crate) fn derive(secret: &[u8], salt: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; 32]>, AgeError> {
    let mut key = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, salt).extract(secret).expand(&[info], HKDF_SHA256)?.fill(&mut *key)?;
    Ok(key)
}

/// A key of ChaCha20-Poly1305.
pub(crate) fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, AgeError> {
    Ok(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key)?))
}

/// A nonce of these bytes: zero for a key that is used once, a counter in a payload.
pub(crate) fn nonce(bytes: [u8; aead::NONCE_LEN]) -> aead::Nonce {
    aead::Nonce::assume_unique_for_key(bytes)
}
