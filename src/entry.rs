//! What a tree maps a path to: a regular file, an executable one, a link or a secret.
//!
//! Set-user-id bits, owners, devices, hard links and modes cannot be expressed
//! (specs/tree.md, T-4).

use crate::codec::{self, CodecError};
use crate::encode_as_array;
use crate::id::{BlobId, ChunkListId};
use crate::limits::{MAX_BLOB, MAX_CHUNKS, MAX_FILE, MAX_OBJECT};
use crate::path::{ConfigPath, LinkTarget, PathError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where a file's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// In one blob, of at most [`MAX_BLOB`] bytes.
    Blob {
        /// The blob.
        id: BlobId,
        /// Its size.
        size: u64,
    },
    /// In the chunks that a list names; more than [`MAX_BLOB`] bytes in all.
    Chunked {
        /// The list.
        id: ChunkListId,
        /// Size of the file.
        size: u64,
    },
}

impl Content {
    /// Size of the file in bytes.
    pub const fn size(&self) -> u64 {
        match self {
            Self::Blob { size, .. } | Self::Chunked { size, .. } => *size,
        }
    }
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A file.
    File {
        /// Where its bytes are.
        content: Content,
        /// Whether it is installed executable (0755) or not (0644).
        executable: bool,
    },
    /// A symbolic link that stays inside its bundle.
    Symlink {
        /// Where it points, relative to its own directory.
        target: LinkTarget,
    },
    /// A file whose content is encrypted to some hosts (specs/tree.md, T-11).
    Secret {
        /// The blob that holds it, encrypted.
        id: BlobId,
        /// Size of that blob.
        size: u64,
    },
}

impl Entry {
    /// Bytes this entry counts for in a bundle's total.
    pub fn size(&self) -> u64 {
        match self {
            Self::File { content, .. } => content.size(),
            Self::Symlink { target } => target.as_str().len() as u64,
            Self::Secret { size, .. } => *size,
        }
    }

    /// Checks what only the path can tell: a link stays inside.
    pub fn check_at(&self, path: &ConfigPath) -> Result<(), PathError> {
        match self {
            Self::File { .. } | Self::Secret { .. } => Ok(()),
            Self::Symlink { target } => target.check_at(path),
        }
    }
}

const REGULAR: u8 = 0;
const EXECUTABLE: u8 = 1;
const SYMLINK: u8 = 2;
const SECRET: u8 = 3;

// `[0|1, size, hash]` for files, the size telling blob from chunk list, `[2, target]` for links
// and `[3, size, hash]` for secrets.
impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File { content, executable } => {
                let kind = if *executable { EXECUTABLE } else { REGULAR };
                match content {
                    Content::Blob { id, size } => (kind, size, id).serialize(serializer),
                    Content::Chunked { id, size } => (kind, size, id).serialize(serializer),
                }
            }
            Self::Symlink { target } => (SYMLINK, target).serialize(serializer),
            Self::Secret { id, size } => (SECRET, size, id).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;
        impl<'de> serde::de::Visitor<'de> for EntryVisitor {
            type Value = Entry;
            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("[0|1|3, size, hash] or [2, target]")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Entry, A::Error> {
                use serde::de::Error;
                let short = || A::Error::custom("entry is too short");
                let kind: u8 = seq.next_element()?.ok_or_else(short)?;
                match kind {
                    REGULAR | EXECUTABLE => {
                        let size: u64 = seq.next_element()?.ok_or_else(short)?;
                        let content = if size <= MAX_BLOB {
                            let id = seq.next_element()?.ok_or_else(short)?;
                            Content::Blob { id, size }
                        } else if size <= MAX_FILE {
                            let id = seq.next_element()?.ok_or_else(short)?;
                            Content::Chunked { id, size }
                        } else {
                            return Err(A::Error::custom("file is over the size limit"));
                        };
                        Ok(Entry::File { content, executable: kind == EXECUTABLE })
                    }
                    SYMLINK => {
                        let target = seq.next_element()?.ok_or_else(short)?;
                        Ok(Entry::Symlink { target })
                    }
                    SECRET => {
                        let size: u64 = seq.next_element()?.ok_or_else(short)?;
                        if size > MAX_BLOB {
                            return Err(A::Error::custom("secret is over the size limit"));
                        }
                        let id = seq.next_element()?.ok_or_else(short)?;
                        Ok(Entry::Secret { id, size })
                    }
                    _ => Err(A::Error::custom("unknown kind of entry")),
                }
            }
        }
        deserializer.deserialize_seq(EntryVisitor)
    }
}

/// One chunk of a large file: a blob and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The blob.
    pub id: BlobId,
    /// Its size.
    pub size: u64,
}
encode_as_array!(Chunk { id, size });

/// The chunks of a large file, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChunkList(pub Vec<Chunk>);

impl ChunkList {
    /// Size of the file.
    pub fn size(&self) -> u64 {
        self.0.iter().map(|chunk| chunk.size).sum()
    }

    /// The list's encoding, which is the object that an entry names.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a list whose file has `size` bytes.
    pub fn decode(bytes: &[u8], size: u64) -> Result<Self, CodecError> {
        let list: Self = codec::decode(bytes, MAX_OBJECT)?;
        let in_bounds =
            list.0.len() <= MAX_CHUNKS && list.0.iter().all(|chunk| (1..=MAX_BLOB).contains(&chunk.size));
        if !in_bounds || list.size() != size {
            let reason = "chunk sizes do not add up to the file".into();
            return Err(CodecError::Shape { wanted: "a chunk list", reason });
        }
        Ok(list)
    }
}
