//! Cutting files: small ones are one blob, large ones are cut by content.

use crate::entry::{Chunk, ChunkList, Content};
use crate::id::{BlobId, ChunkListId};
use crate::limits::{CHUNK_AVERAGE, CHUNK_MAX, CHUNK_MIN, MAX_BLOB};
use crate::object::{ObjectSink, WriteError};
use bytes::Bytes;

/// The chunks of a large file, by FastCDC 2020 with normalisation 1 and the
/// bounds of `limits` (specs/tree.md, T-10).
pub fn cut(file: &[u8]) -> impl Iterator<Item = core::ops::Range<usize>> + '_ {
    fastcdc::v2020::FastCDC::new(file, CHUNK_MIN as usize, CHUNK_AVERAGE as usize, CHUNK_MAX as usize)
        .map(|chunk| chunk.offset..chunk.offset + chunk.length)
}

/// Writes a file's objects to `sink` and says where its bytes are.
pub fn store<W: ObjectSink + ?Sized>(file: Bytes, sink: &mut W) -> Result<Content, WriteError> {
    let size = file.len() as u64;
    if size <= MAX_BLOB {
        let id = BlobId::of(&file);
        sink.write(id.into(), file)?;
        return Ok(Content::Blob { id, size });
    }
    let mut list = ChunkList(Vec::new());
    for range in cut(&file) {
        let bytes = file.slice(range);
        let chunk = Chunk { id: BlobId::of(&bytes), size: bytes.len() as u64 };
        sink.write(chunk.id.into(), bytes)?;
        list.0.push(chunk);
    }
    store_list(&list, sink)
}

/// Writes a chunk list to `sink` and says where the file's bytes are.
pub fn store_list<W: ObjectSink + ?Sized>(list: &ChunkList, sink: &mut W) -> Result<Content, WriteError> {
    let encoded = list.encode();
    let id = ChunkListId::of(&encoded);
    sink.write(id.into(), Bytes::from(encoded))?;
    Ok(Content::Chunked { id, size: list.size() })
}
