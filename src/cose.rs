//! Signatures: a tight profile of COSE_Sign1 (RFC 9052 section 4.2).
//!
//! Tag 18; the protected header is exactly alg (EdDSA), kid and typ; the
//! unprotected one is empty; the payload is attached; `external_aad` binds the
//! kind of document and the platform. Ed25519 with `verify_strict`. Several
//! signatures over one payload are several COSE_Sign1, one after the other
//! (specs/documents.md, D-1 to D-9).

use crate::codec::{self, CodecError};
use crate::id::{KeyId, PlatformId};
use crate::limits::{MAX_DOCUMENT, MAX_KEYS, MAX_SIGNATURES};
use bytes::Bytes;
use core::fmt;
use core::str::FromStr;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// Which kind of document a signature is for. One cannot pass for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// A trust document.
    Trust,
    /// A release.
    Release,
    /// A head.
    Head,
    /// A request to join or to renew.
    Join,
    /// Members that may not be served.
    Denials,
    /// Leave to read for a member, over HTTPS.
    Bearer,
}

impl DocumentKind {
    /// The `typ` header (RFC 9596): a media type without `application/`.
    pub const fn typ(self) -> &'static str {
        match self {
            Self::Trust => "rootcast-trust",
            Self::Release => "rootcast-release",
            Self::Head => "rootcast-head",
            Self::Join => "rootcast-join",
            Self::Denials => "rootcast-denials",
            Self::Bearer => "rootcast-bearer",
        }
    }
}

/// Why signatures do not make a document good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The bytes are not COSE_Sign1 in our profile.
    #[error("not a signed document: {0}")]
    Codec(#[from] CodecError),
    /// A header that the profile does not allow.
    #[error("not a signed {}: {reason}", kind.typ())]
    Header {
        /// The kind that was wanted.
        kind: DocumentKind,
        /// What is wrong.
        reason: &'static str,
    },
    /// Two signatures of one document are over different payloads.
    #[error("the signatures are over different payloads")]
    Payloads,
    /// A signature by a known key does not verify.
    #[error("the signature by key {0} does not verify")]
    Invalid(KeyId),
    /// Fewer good signatures by different keys than the threshold.
    #[error("{got} of {threshold} signatures needed; accepted keys: {}", list(accepted))]
    TooFew {
        /// Good signatures by different keys.
        got: usize,
        /// How many are needed.
        threshold: usize,
        /// The keys that would have counted.
        accepted: Vec<KeyId>,
    },
    /// A key set that nothing could satisfy, or anything.
    #[error("the key set is not usable: {0}")]
    KeySet(&'static str),
}

fn list(keys: &[KeyId]) -> String {
    keys.iter().map(KeyId::to_string).collect::<Vec<_>>().join(", ")
}

/// An Ed25519 public key that was checked when it was made: on the curve and
/// not of small order.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Checks 32 bytes and takes them.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, SignatureError> {
        let key = VerifyingKey::from_bytes(bytes)
            .map_err(|_| SignatureError::KeySet("a public key is not a point of the curve"))?;
        if key.is_weak() {
            return Err(SignatureError::KeySet("a public key has small order"));
        }
        Ok(Self(key))
    }
    /// The key's bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }
    /// The key's id.
    pub fn id(&self) -> KeyId {
        KeyId::of(self.0.as_bytes())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// The one form of a public key as text: 64 hexadecimal digits (specs/documents.md, D-38).
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = SignatureError;
    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| SignatureError::KeySet("a public key is 64 hexadecimal digits"))?;
        Self::from_bytes(&bytes)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_bytes())
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = deserializer.deserialize_bytes(codec::FixedBytes::<32>)?;
        Self::from_bytes(&bytes).map_err(serde::de::Error::custom)
    }
}

/// Keys of one role, and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    /// At least one, at most as many as there are keys.
    pub threshold: u64,
    /// Different keys.
    pub keys: Vec<PublicKey>,
}
crate::encode_as_array!(KeySet { threshold, keys });

impl KeySet {
    /// Refuses a set that would accept anything, or nothing.
    pub fn check(&self) -> Result<(), SignatureError> {
        let different: BTreeSet<_> = self.keys.iter().map(PublicKey::to_bytes).collect();
        let ids: BTreeSet<_> = self.keys.iter().map(PublicKey::id).collect();
        if self.threshold == 0 {
            Err(SignatureError::KeySet("a threshold of zero"))
        } else if different.len() != self.keys.len() || ids.len() != self.keys.len() {
            Err(SignatureError::KeySet("a key named twice"))
        } else if self.threshold > self.keys.len() as u64 {
            Err(SignatureError::KeySet("a threshold above the number of keys"))
        } else if self.keys.len() > MAX_KEYS {
            Err(SignatureError::KeySet("too many keys"))
        } else {
            Ok(())
        }
    }
}

/// The protected header: `{1: -8, 4: kid, 16: typ}`.
fn protected(kind: DocumentKind, key: KeyId) -> Vec<u8> {
    let mut header = vec![0xa3, 0x01, 0x27, 0x04, 0x48];
    header.extend_from_slice(key.as_bytes());
    header.push(0x10);
    header.extend(codec::encode(&kind.typ()));
    header
}

fn external_aad(kind: DocumentKind, platform: PlatformId) -> Vec<u8> {
    codec::encode(&(kind.typ(), platform))
}

/// The bytes that a signature is over: the Sig_structure of RFC 9052 section 4.4.
pub fn to_be_signed(kind: DocumentKind, platform: PlatformId, key: KeyId, payload: &[u8]) -> Vec<u8> {
    let part = Bytes::copy_from_slice;
    let header = Bytes::from(protected(kind, key));
    let aad = Bytes::from(external_aad(kind, platform));
    codec::encode(&("Signature1", header, aad, part(payload)))
}

/// Puts a signature and what it is over into a COSE_Sign1.
pub fn assemble(kind: DocumentKind, key: KeyId, payload: &[u8], signature: &[u8; 64]) -> Vec<u8> {
    let header = Bytes::from(protected(kind, key));
    let empty = BTreeMap::<u8, u8>::new();
    let (payload, signature) = (Bytes::copy_from_slice(payload), Bytes::copy_from_slice(signature));
    let mut signed = vec![TAG_18];
    signed.extend(codec::encode(&(header, empty, payload, signature)));
    signed
}

const TAG_18: u8 = 0xd2;

/// One COSE_Sign1, taken apart and not verified.
struct Sign1 {
    key: KeyId,
    payload: Bytes,
    signature: [u8; 64],
}

/// Takes apart the COSE_Sign1 items that make up a document.
fn parse(kind: DocumentKind, document: &[u8]) -> Result<Vec<Sign1>, SignatureError> {
    let refuse = |reason| SignatureError::Header { kind, reason };
    let size = document.len() as u64;
    if size > MAX_DOCUMENT {
        return Err(CodecError::TooLarge { size, limit: MAX_DOCUMENT }.into());
    }
    let mut items = Vec::new();
    let mut rest = document;
    while let Some((tag, untagged)) = rest.split_first() {
        if *tag != TAG_18 {
            return Err(refuse("no tag 18"));
        }
        if items.len() == MAX_SIGNATURES {
            return Err(refuse("too many signatures"));
        }
        let (item, after) = untagged.split_at(codec::item_length(untagged)?);
        rest = after;
        let (header, unprotected, payload, signature): (Bytes, BTreeMap<u8, u8>, Bytes, Bytes) =
            codec::decode(item, MAX_DOCUMENT)?;
        let key = header.get(5..13).and_then(|kid| <[u8; 8]>::try_from(kid).ok());
        let key = key.map(KeyId::from_bytes).ok_or(refuse("no key id in the protected header"))?;
        if header != protected(kind, key) {
            return Err(refuse("the protected header is not exactly alg EdDSA, kid and this typ"));
        }
        if !unprotected.is_empty() {
            return Err(refuse("the unprotected header is not empty"));
        }
        let signature = <[u8; 64]>::try_from(&*signature).map_err(|_| refuse("a signature has 64 bytes"))?;
        items.push(Sign1 { key, payload, signature });
    }
    if items.is_empty() { Err(refuse("no signature at all")) } else { Ok(items) }
}

/// The payload of a document, NOT verified: to find out who claims to have
/// signed what, for people and for the very first trust document.
pub fn unverified_payload(kind: DocumentKind, document: &[u8]) -> Result<Bytes, SignatureError> {
    let mut items = parse(kind, document)?;
    items.pop().map(|item| item.payload).ok_or(SignatureError::Payloads)
}

/// The signatures of a document with the key ids that they claim, NOT verified.
pub fn signatures(kind: DocumentKind, document: &[u8]) -> Result<Vec<(KeyId, [u8; 64])>, SignatureError> {
    Ok(parse(kind, document)?.into_iter().map(|item| (item.key, item.signature)).collect())
}

/// The key ids that a document claims to be signed by, NOT verified.
pub fn claimed_keys(kind: DocumentKind, document: &[u8]) -> Result<Vec<KeyId>, SignatureError> {
    Ok(parse(kind, document)?.into_iter().map(|item| item.key).collect())
}

/// Verifies a document and returns its payload, exactly as it was signed.
///
/// A key counts once however often it signed. Signatures by keys outside the
/// set count for nothing; a bad one by a key of the set refuses the document.
pub fn verify(
    kind: DocumentKind,
    platform: PlatformId,
    document: &[u8],
    keys: &KeySet,
) -> Result<Bytes, SignatureError> {
    keys.check()?;
    let items = parse(kind, document)?;
    let mut good = BTreeSet::new();
    let mut payload: Option<Bytes> = None;
    for item in items {
        if payload.as_ref().is_some_and(|payload| *payload != item.payload) {
            return Err(SignatureError::Payloads);
        }
        if let Some(key) = keys.keys.iter().find(|key| key.id() == item.key) {
            let message = to_be_signed(kind, platform, item.key, &item.payload);
            key.0
                .verify_strict(&message, &Signature::from_bytes(&item.signature))
                .map_err(|_| SignatureError::Invalid(item.key))?;
            good.insert(item.key);
        }
        payload = Some(item.payload);
    }
    match payload {
        Some(payload) if good.len() as u64 >= keys.threshold => Ok(payload),
        _ => Err(SignatureError::TooFew {
            got: good.len(),
            threshold: keys.threshold as usize,
            accepted: keys.keys.iter().map(PublicKey::id).collect(),
        }),
    }
}
