//! Recipients, the keys that open files, and the stanza that connects them.

use crate::header::{Stanza, X25519};
use crate::primitives::{FILE_KEY_SIZE, FileKey, TAG, cipher, derive, nonce};
use crate::{AgeError, bech32};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use core::fmt;
use core::str::FromStr;
use curve25519_dalek::montgomery::MontgomeryPoint;
use ring::aead::Aad;
use zeroize::Zeroizing;

const RECIPIENT_PREFIX: &str = "age";
const KEY_PREFIX: &str = "age-secret-key-";
const WRAP_INFO: &[u8] = b"age-encryption.org/v1/X25519";
/// A wrapped file key.
const WRAPPED: usize = FILE_KEY_SIZE + TAG;

/// Whom a file is encrypted to: an X25519 public key, written `age1…`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recipient([u8; 32]);

impl Recipient {
    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The stanza that gives this recipient the file key.
    pub(crate) fn wrap(&self, file_key: &FileKey, ephemeral: &[u8; 32]) -> Result<Stanza, AgeError> {
        let share = MontgomeryPoint::mul_base_clamped(*ephemeral).to_bytes();
        let shared = agree(ephemeral, &self.0).ok_or(AgeError::Recipient("a point of low order"))?;
        let key = derive(&*shared, &[share, self.0].concat(), WRAP_INFO)?;
        let mut body = Vec::with_capacity(WRAPPED);
        body.extend_from_slice(&**file_key);
        cipher(&key)?.seal_in_place_append_tag(nonce([0; 12]), Aad::empty(), &mut body)?;
        Ok(Stanza { arguments: vec![X25519.into(), STANDARD_NO_PAD.encode(share)], body })
    }
}

/// X25519; `None` where the result is zero, which every key would have with that point.
fn agree(secret: &[u8; 32], point: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let shared = Zeroizing::new(MontgomeryPoint(*point).mul_clamped(*secret).to_bytes());
    (*shared != [0; 32]).then_some(shared)
}

impl FromStr for Recipient {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        let bytes = *bech32::decode(RECIPIENT_PREFIX, text).map_err(AgeError::Recipient)?;
        // Any scalar will do: clamping makes each a multiple of what brings such points to zero.
        agree(&[1; 32], &bytes).ok_or(AgeError::Recipient("a point of low order"))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32::encode(RECIPIENT_PREFIX, &self.0))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key that opens what was encrypted to its recipient. Wiped when dropped,
/// and never shown: its `Debug` is the recipient.
pub struct DecryptionKey {
    secret: Zeroizing<[u8; 32]>,
    recipient: Recipient,
}

impl DecryptionKey {
    /// The key of 32 secret random bytes.
    pub fn from_bytes(secret: Zeroizing<[u8; 32]>) -> Self {
        let recipient = Recipient(MontgomeryPoint::mul_base_clamped(*secret).to_bytes());
        Self { secret, recipient }
    }

    /// Reads `AGE-SECRET-KEY-1…`.
    ///
    /// # Errors
    /// [`AgeError::Key`], which repeats nothing of the text.
    pub fn parse(text: &str) -> Result<Self, AgeError> {
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(AgeError::Key("lower case"));
        }
        let text = Zeroizing::new(text.to_ascii_lowercase());
        Ok(Self::from_bytes(bech32::decode(KEY_PREFIX, &text).map_err(AgeError::Key)?))
    }

    /// The key as text, for its own file alone.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = bech32::encode(KEY_PREFIX, &self.secret);
        text.make_ascii_uppercase();
        text
    }

    /// Whom to encrypt to for this key to open it.
    pub const fn recipient(&self) -> Recipient {
        self.recipient
    }

    /// The file key, if this stanza has it for us.
    pub(crate) fn unwrap(&self, stanza: &Stanza) -> Result<Option<FileKey>, AgeError> {
        let Some((kind, arguments)) = stanza.arguments.split_first() else { return Ok(None) };
        if kind != X25519 {
            return Ok(None);
        }
        let [share] = arguments else {
            return Err(AgeError::Header("an X25519 stanza without its one share"));
        };
        let share = STANDARD_NO_PAD.decode(share).ok().and_then(|share| <[u8; 32]>::try_from(share).ok());
        let share = share.ok_or(AgeError::Header("an X25519 share of another length or writing"))?;
        // Before it is tried: an oracle for the length would tell which key opens it.
        if stanza.body.len() != WRAPPED {
            return Err(AgeError::Header("an X25519 stanza of another length"));
        }
        let shared = agree(&self.secret, &share).ok_or(AgeError::Header("an X25519 share of low order"))?;
        let key = derive(&*shared, &[share, self.recipient.0].concat(), WRAP_INFO)?;
        let mut body = Zeroizing::new(stanza.body.clone());
        let opened = cipher(&key)?.open_in_place(nonce([0; 12]), Aad::empty(), &mut body);
        let file_key = opened.ok().and_then(|bytes| <[u8; FILE_KEY_SIZE]>::try_from(&*bytes).ok());
        Ok(file_key.map(Zeroizing::new))
    }
}

impl fmt::Debug for DecryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecryptionKey({})", self.recipient)
    }
}
