//! Identifiers: every content hash and every number that names something.
//!
//! A blob's id is the plain BLAKE3 of its bytes, so `b3sum` prints it. Every
//! other hash uses BLAKE3's `derive_key` mode under a context string of its
//! own, so that no hash of one kind can pass for another (specs/tree.md, T-2).

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Contexts of `derive_key`, one for each kind of hash. They never change.
pub mod context {
    /// A tree node.
    pub const NODE: &str = "rootcast 2026 tree node";
    /// The chunk list of a large file.
    pub const CHUNK_LIST: &str = "rootcast 2026 chunk list";
    /// An encoded edit.
    pub const EDIT: &str = "rootcast 2026 edit";
    /// A link of a bundle's log.
    pub const CHAIN: &str = "rootcast 2026 log chain";
    /// A bundle leaf of a release.
    pub const BUNDLE_LEAF: &str = "rootcast 2026 bundle leaf";
    /// An inner node over bundle leaves.
    pub const BUNDLE_INNER: &str = "rootcast 2026 bundle inner";
    /// A release payload.
    pub const RELEASE: &str = "rootcast 2026 release";
    /// A trust document payload.
    pub const TRUST: &str = "rootcast 2026 trust";
    /// A public key.
    pub const KEY: &str = "rootcast 2026 key";
    /// The key of a join token, from its secret.
    pub const JOIN_TOKEN: &str = "rootcast 2026 join token";
    /// The checksum of a join string.
    pub const JOIN_STRING: &str = "rootcast 2026 join string";
    /// The certificate authority's certificate.
    pub const CERTIFICATE_AUTHORITY: &str = "rootcast 2026 certificate authority";
    /// A record of the origin's audit.
    pub const AUDIT: &str = "rootcast 2026 audit";
    /// The bytes that an edit begins with.
    pub const EDIT_BEGINNING: &str = "rootcast 2026 edit beginning";
    /// How children spread over relays.
    pub const TOPOLOGY: &str = "rootcast 2026 topology";
}

/// Hashes the concatenation of `parts` under a `derive_key` context.
pub(crate) fn derive(context: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// The text given is not an identifier of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {kind}: want {digits} hexadecimal digits")]
pub struct ParseIdError {
    text: String,
    kind: &'static str,
    digits: usize,
}

macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $size:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $size]);

        impl $name {
            /// Wraps raw bytes.
            pub const fn from_bytes(bytes: [u8; $size]) -> Self {
                Self(bytes)
            }
            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
            /// The first eight hexadecimal digits, for people.
            pub fn short(&self) -> String {
                hex::encode(self.0).chars().take(8).collect()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $size];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError {
                    text: text.chars().take(80).collect(),
                    kind: $kind,
                    digits: $size * 2,
                })?;
                Ok(Self(bytes))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_bytes(crate::codec::FixedBytes::<$size>).map(Self)
            }
        }
    };
}

fixed_bytes!(
    /// A blob: the plain BLAKE3 of its bytes.
    BlobId, 32, "a blob id"
);
fixed_bytes!(
    /// A tree node; the id of the topmost is the bundle's root.
    NodeId, 32, "a node id"
);
fixed_bytes!(
    /// The list of a large file's chunks.
    ChunkListId, 32, "a chunk list id"
);
fixed_bytes!(
    /// An edit, hashed as encoded.
    EditHash, 32, "an edit hash"
);
fixed_bytes!(
    /// The bytes that an edit begins with, hashed.
    BeginningHash, 32, "a hash of an edit's beginning"
);
fixed_bytes!(
    /// A point in a bundle's log: the hash of everything up to it.
    Chain, 32, "a chain hash"
);
fixed_bytes!(
    /// The Merkle root over the bundle leaves of a release.
    BundlesRoot, 32, "a bundles root"
);
fixed_bytes!(
    /// A leaf or inner node of the Merkle tree over bundle leaves.
    ProofHash, 32, "a proof hash"
);
fixed_bytes!(
    /// A release, hashed over its signed payload.
    ReleaseHash, 32, "a release hash"
);
fixed_bytes!(
    /// A trust document, hashed over its signed payload. Version 1's hash is
    /// the platform's fingerprint.
    TrustHash, 32, "a trust document hash"
);
fixed_bytes!(
    /// A certificate authority, hashed over its DER certificate.
    AuthorityHash, 32, "a certificate authority hash"
);
fixed_bytes!(
    /// A record of the origin's audit, and all before it.
    AuditHash, 32, "an audit hash"
);
fixed_bytes!(
    /// A platform: random, made once by `rootcast init`.
    PlatformId, 16, "a platform id"
);
fixed_bytes!(
    /// A signing key: the first eight bytes of the hash of the public key.
    KeyId, 8, "a key id"
);

impl BlobId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}
impl NodeId {
    /// The id of this encoded node.
    pub fn of(encoded: &[u8]) -> Self {
        Self(derive(context::NODE, &[encoded]))
    }
}
impl ChunkListId {
    /// The id of this encoded chunk list.
    pub fn of(encoded: &[u8]) -> Self {
        Self(derive(context::CHUNK_LIST, &[encoded]))
    }
}
impl EditHash {
    /// The hash of this encoded edit.
    pub fn of(encoded: &[u8]) -> Self {
        Self(derive(context::EDIT, &[encoded]))
    }
}
impl Chain {
    /// Where every log begins.
    pub const START: Self = Self([0; 32]);

    /// The next point of the log, after an edit (specs/documents.md, D-12).
    pub fn next(&self, edit: &EditHash) -> Self {
        Self(derive(context::CHAIN, &[&self.0, edit.as_bytes()]))
    }
}
impl ReleaseHash {
    /// The hash of this release payload.
    pub fn of(payload: &[u8]) -> Self {
        Self(derive(context::RELEASE, &[payload]))
    }
}
impl TrustHash {
    /// The hash of this trust document payload.
    pub fn of(payload: &[u8]) -> Self {
        Self(derive(context::TRUST, &[payload]))
    }
}
impl AuthorityHash {
    /// The hash of this DER certificate.
    pub fn of(der: &[u8]) -> Self {
        Self(derive(context::CERTIFICATE_AUTHORITY, &[der]))
    }
}
impl AuditHash {
    /// What the first record follows.
    pub const START: Self = Self([0; 32]);

    /// The hash of the record after this one (specs/audit.md, AU-3).
    pub fn next(&self, record: &[u8]) -> Self {
        Self(derive(context::AUDIT, &[&self.0, record]))
    }
}
impl KeyId {
    /// The id of this public key.
    pub fn of(public_key: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = derive(context::KEY, &[public_key]);
        Self([a, b, c, d, e, f, g, h])
    }
}

/// The id of anything in the store: what it is, and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectId {
    /// A file, or a chunk of a large one.
    Blob(BlobId),
    /// A node of a tree.
    Node(NodeId),
    /// The chunk list of a large file.
    ChunkList(ChunkListId),
}

impl ObjectId {
    /// Whether `bytes` are the object that this id names.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Blob(id) => *id == BlobId::of(bytes),
            Self::Node(id) => *id == NodeId::of(bytes),
            Self::ChunkList(id) => *id == ChunkListId::of(bytes),
        }
    }
    /// The raw hash.
    pub const fn hash(&self) -> &[u8; 32] {
        match self {
            Self::Blob(id) => id.as_bytes(),
            Self::Node(id) => id.as_bytes(),
            Self::ChunkList(id) => id.as_bytes(),
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(id) => write!(f, "blob {id}"),
            Self::Node(id) => write!(f, "node {id}"),
            Self::ChunkList(id) => write!(f, "chunk list {id}"),
        }
    }
}

impl From<BlobId> for ObjectId {
    fn from(id: BlobId) -> Self {
        Self::Blob(id)
    }
}
impl From<NodeId> for ObjectId {
    fn from(id: NodeId) -> Self {
        Self::Node(id)
    }
}
impl From<ChunkListId> for ObjectId {
    fn from(id: ChunkListId) -> Self {
        Self::ChunkList(id)
    }
}
