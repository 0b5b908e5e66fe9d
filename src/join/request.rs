//! The request to join or to renew: one payload, signed by whoever must stand for it.

use crate::codec;
use crate::cose::{self, DocumentKind, KeySet, PublicKey, SignatureError};
use crate::encode_as_array;
use crate::id::{KeyId, PlatformId};
use crate::limits::{MAX_JOIN_REQUEST, MAX_RECIPIENT};
use crate::member::Role;
use crate::path::MemberName;
use bytes::Bytes;

/// What a machine asks for (J-5). The platform is in the signature (D-4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What it wants to be, or is.
    pub role: Role,
    /// Its name.
    pub name: MemberName,
    /// The public key that the certificate is to be for.
    pub key: PublicKey,
    /// When it was signed, in seconds since 1970.
    pub issued: u64,
    /// The age recipient that secrets for this member are encrypted to; empty for none.
    pub recipient: String,
}
encode_as_array!(Request { role, name, key, issued, recipient });

/// Why bytes are no request, or none that its keys stand for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Not COSE_Sign1 of this kind, or a signature that does not verify.
    #[error("the request is not signed as it must be: {0}")]
    Signature(#[from] SignatureError),
    /// The payload is not a request.
    #[error("not a join request: {0}")]
    Codec(#[from] codec::CodecError),
    /// Signed by others than at most one token and the key that it is for.
    #[error("the request is signed by the key that it is for, and by at most one token")]
    Signers,
    /// The recipient is not one.
    #[error("the recipient in the request is not one of age")]
    Recipient,
}

impl Request {
    /// The payload to sign.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

/// A request as it came: nothing of it is verified.
#[derive(Debug, Clone)]
pub struct Claimed {
    request: Request,
    token: Option<KeyId>,
    document: Bytes,
}

impl Claimed {
    /// Reads a request, and by which token it claims to be signed.
    ///
    /// # Errors
    /// When it is not one, or not signed by the right number of keys.
    pub fn read(document: &[u8]) -> Result<Self, JoinError> {
        let size = document.len() as u64;
        if size > MAX_JOIN_REQUEST {
            return Err(codec::CodecError::TooLarge { size, limit: MAX_JOIN_REQUEST }.into());
        }
        let payload = cose::unverified_payload(DocumentKind::Join, document)?;
        let request: Request = codec::decode(&payload, MAX_JOIN_REQUEST)?;
        let is_plain = request.recipient.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if request.recipient.len() > MAX_RECIPIENT || !is_plain {
            return Err(JoinError::Recipient);
        }
        let own = request.key.id();
        let token = match *cose::claimed_keys(DocumentKind::Join, document)?.as_slice() {
            [only] if only == own => None,
            [token, second] if second == own && token != own => Some(token),
            _ => return Err(JoinError::Signers),
        };
        Ok(Self { request, token, document: Bytes::copy_from_slice(document) })
    }

    /// What it asks for.
    pub const fn request(&self) -> &Request {
        &self.request
    }
    /// The key id of the token that it claims to be signed by.
    pub const fn token(&self) -> Option<KeyId> {
        self.token
    }

    /// Verifies that the key it is for has signed it, and the token's key where that is given (J-6).
    ///
    /// # Errors
    /// When a signature is missing or bad.
    pub fn verify(self, platform: PlatformId, token: Option<&PublicKey>) -> Result<Proved, JoinError> {
        let keys: Vec<PublicKey> = [Some(&self.request.key), token].into_iter().flatten().cloned().collect();
        let keys = KeySet { threshold: keys.len() as u64, keys };
        cose::verify(DocumentKind::Join, platform, &self.document, &keys)?;
        Ok(Proved { request: self.request, token: token.map(PublicKey::id) })
    }
}

/// A request that those keys stand for. Nothing but [`Claimed::verify`] makes one.
#[derive(Debug, Clone)]
pub struct Proved {
    request: Request,
    token: Option<KeyId>,
}

impl Proved {
    /// What it asks for.
    pub const fn request(&self) -> &Request {
        &self.request
    }
    /// The token whose key signed it.
    pub const fn token(&self) -> Option<KeyId> {
        self.token
    }
}
