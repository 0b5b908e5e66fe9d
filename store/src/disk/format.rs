//! The bytes of packs and of the floors file (specs/store.md, S-4 to S-9).
//! Everything is little-endian; everything decoded is bounded and checked.

use crate::error::RecordId;
use rootcast::acceptance::{Accepted, Floors};
use rootcast::id::{BlobId, ChunkListId, NodeId, ObjectId, ReleaseHash};
use rootcast::limits::{MAX_EDIT, MAX_NAME, MAX_OBJECT, MAX_RELEASE_RECORD, STORE_CONTENTS};
use rootcast::path::BundleName;

/// The one format there is.
pub(super) const FORMAT: u8 = 1;
const PACK_MAGIC: [u8; 8] = *b"RCpack\r\n";
/// What a search for the next part looks for.
pub(super) const PART_MARKER: [u8; 8] = *b"\xf1RCpart\n";
const SLOT_MAGIC: [u8; 8] = *b"RCfloor\n";
const CHECK: usize = 24;
/// Bytes of a pack's header.
pub(super) const PACK_HEADER: u64 = 72;
/// Bytes of a part's header.
pub(super) const PART_HEADER: u64 = 208;
/// Bytes of a floors slot.
pub(super) const SLOT: usize = 176;
const LAST: u8 = 1;

/// The secret that all parts of a store are checked under, so that no content
/// that a stranger wrote can pass for a part (S-6).
pub(super) type Key = [u8; 32];

/// Takes fields off the front of bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(front)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }
    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    fn zeros(&mut self, length: usize) -> Option<()> {
        self.slice(length)?.iter().all(|byte| *byte == 0).then_some(())
    }
}

fn floors_bytes(floors: &Floors, out: &mut Vec<u8>) {
    out.extend(floors.trust_version.to_le_bytes());
    out.extend(floors.head_epoch.to_le_bytes());
    out.extend(floors.head_sequence.to_le_bytes());
    out.extend(floors.release.map_or(0, |accepted| accepted.epoch).to_le_bytes());
    out.extend(floors.number().to_le_bytes());
    out.extend(floors.release.map_or([0; 32], |accepted| *accepted.hash.as_bytes()));
}

fn floors_from(fields: &mut Fields<'_>) -> Option<Floors> {
    let (trust_version, head_epoch, head_sequence) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let (epoch, number, hash) = (fields.u64()?, fields.u64()?, ReleaseHash::from_bytes(fields.array()?));
    let release = (number != 0).then_some(Accepted { epoch, number, hash });
    Some(Floors { trust_version, head_epoch, head_sequence, release })
}

/// Floors at least as high as both. Where both name one number, `one` wins.
pub(super) fn higher(one: Floors, other: Floors) -> Floors {
    let (head_epoch, head_sequence) = one.head().max(other.head());
    let rank = |floors: &Floors| floors.release.map(|accepted| accepted.rank());
    Floors {
        trust_version: one.trust_version.max(other.trust_version),
        head_epoch,
        head_sequence,
        release: if rank(&other) > rank(&one) { other.release } else { one.release },
    }
}

/// What a file's fixed header turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header<T> {
    /// Whole.
    Good(T),
    /// Whole, and of a format to come.
    Newer(u8),
    /// Not whole.
    Bad,
}

/// The header of pack `number`.
pub(super) fn pack_header(number: u32, key: &Key) -> Vec<u8> {
    let mut out = Vec::with_capacity(PACK_HEADER as usize);
    out.extend(PACK_MAGIC);
    out.extend([FORMAT, 0, 0, 0]);
    out.extend(number.to_le_bytes());
    out.extend(key);
    seal(&mut out, blake3::Hasher::new());
    out
}

/// Reads the header of pack `number`, for the key.
pub(super) fn read_pack_header(bytes: &[u8], number: u32) -> Header<Key> {
    let good = |format: u8, mut fields: Fields<'_>| {
        fields.zeros(3)?;
        (fields.u32()? == number && format == FORMAT).then_some(())?;
        fields.array()
    };
    read_header(bytes, PACK_MAGIC, good)
}

fn read_header<T>(bytes: &[u8], magic: [u8; 8], body: impl FnOnce(u8, Fields<'_>) -> Option<T>) -> Header<T> {
    let Some(sealed) = unseal(bytes, blake3::Hasher::new()) else { return Header::Bad };
    let mut fields = Fields(sealed);
    if fields.array() != Some(magic) {
        return Header::Bad;
    }
    match fields.u8() {
        Some(format) if format > FORMAT => Header::Newer(format),
        Some(format) => body(format, fields).map_or(Header::Bad, Header::Good),
        None => Header::Bad,
    }
}

/// Appends the check of what is there.
fn seal(out: &mut Vec<u8>, mut hasher: blake3::Hasher) {
    hasher.update(out);
    out.extend(hasher.finalize().as_bytes().iter().take(CHECK));
}

/// What stands before a check that holds.
fn unseal(bytes: &[u8], mut hasher: blake3::Hasher) -> Option<&[u8]> {
    let (sealed, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK)?)?;
    hasher.update(sealed);
    hasher.finalize().as_bytes().starts_with(check).then_some(sealed)
}

/// The header of one part of a batch (S-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartHeader {
    /// The pack it is in, and where: a copy elsewhere is no part.
    pub(super) pack: u32,
    pub(super) offset: u64,
    /// Of the batch. Never used twice by batches that can be seen.
    pub(super) serial: u64,
    /// Which part of the batch, from 0.
    pub(super) index: u32,
    pub(super) contents_length: u32,
    pub(super) body_length: u64,
    pub(super) contents_hash: [u8; 32],
    pub(super) body_hash: [u8; 32],
    /// In the last part of a batch, which commits it: the floors.
    pub(super) floors: Option<Floors>,
}

impl PartHeader {
    /// Where the body begins.
    pub(super) fn body(&self) -> u64 {
        self.offset + PART_HEADER + u64::from(self.contents_length)
    }
    /// Where the part ends.
    pub(super) fn end(&self) -> u64 {
        self.body() + self.body_length
    }

    pub(super) fn encode(&self, key: &Key) -> Vec<u8> {
        let mut out = Vec::with_capacity(PART_HEADER as usize + self.contents_length as usize);
        out.extend(PART_MARKER);
        out.extend([FORMAT, if self.floors.is_some() { LAST } else { 0 }, 0, 0]);
        out.extend(self.pack.to_le_bytes());
        out.extend(self.offset.to_le_bytes());
        out.extend(self.serial.to_le_bytes());
        out.extend(self.index.to_le_bytes());
        out.extend(self.contents_length.to_le_bytes());
        out.extend(self.body_length.to_le_bytes());
        out.extend(self.contents_hash);
        out.extend(self.body_hash);
        floors_bytes(&self.floors.unwrap_or_default(), &mut out);
        seal(&mut out, blake3::Hasher::new_keyed(key));
        out
    }

    /// Reads a header found at `offset` of `pack`, whose file has `size` bytes.
    pub(super) fn decode(bytes: &[u8], key: &Key, pack: u32, offset: u64, size: u64) -> Option<Self> {
        let mut fields = Fields(bytes);
        (fields.array() == Some(PART_MARKER) && fields.u8()? == FORMAT).then_some(())?;
        let flags = fields.u8()?;
        fields.zeros(2)?;
        // Cheap before dear: a search meets many markers that are not at their own place.
        (fields.u32()? == pack && fields.u64()? == offset && flags <= LAST).then_some(())?;
        unseal(bytes, blake3::Hasher::new_keyed(key))?;
        let header = Self {
            pack,
            offset,
            serial: fields.u64()?,
            index: fields.u32()?,
            contents_length: fields.u32()?,
            body_length: fields.u64()?,
            contents_hash: fields.array()?,
            body_hash: fields.array()?,
            floors: floors_from(&mut fields).filter(|_| flags == LAST),
        };
        let room = size.checked_sub(offset)?.checked_sub(PART_HEADER)?;
        let room = room.checked_sub(u64::from(header.contents_length))?;
        let fits = header.body_length <= room && u64::from(header.contents_length) <= STORE_CONTENTS;
        fits.then_some(header)
    }
}

/// One line of a part's table of contents (S-7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// An object; `stored < raw` means that it is compressed.
    Object { id: ObjectId, stored: u32, raw: u32 },
    /// An edit, as given.
    Edit { bundle: BundleName, sequence: u64, length: u32, hash: [u8; 32] },
    /// A release record, as given.
    Release { number: u64, length: u32, hash: [u8; 32] },
    /// The record of this name, in any earlier part, is no more.
    Drop(RecordId),
}

const DROP: u8 = 0x80;
const BLOB: u8 = 1;
const NODE: u8 = 2;
const CHUNK_LIST: u8 = 3;
const EDIT: u8 = 4;
const RELEASE: u8 = 5;

impl Line {
    /// Bytes of the body that belong to this line.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Object { stored, .. } => u64::from(*stored),
            Self::Edit { length, .. } | Self::Release { length, .. } => u64::from(*length),
            Self::Drop(_) => 0,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Object { id, stored, raw } => {
                put_object(id, 0, out);
                out.extend(stored.to_le_bytes());
                out.extend(raw.to_le_bytes());
            }
            Self::Edit { bundle, sequence, length, hash } => {
                put_edit(bundle, *sequence, 0, out);
                out.extend(length.to_le_bytes());
                out.extend(hash);
            }
            Self::Release { number, length, hash } => {
                out.push(RELEASE);
                out.extend(number.to_le_bytes());
                out.extend(length.to_le_bytes());
                out.extend(hash);
            }
            Self::Drop(RecordId::Object(id)) => put_object(id, DROP, out),
            Self::Drop(RecordId::Edit { bundle, sequence }) => {
                put_edit(bundle, *sequence, DROP, out);
            }
            Self::Drop(RecordId::Release(number)) => {
                out.push(RELEASE | DROP);
                out.extend(number.to_le_bytes());
            }
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let kind = fields.u8()?;
        let dropped = kind & DROP != 0;
        let name = match kind & !DROP {
            BLOB => RecordId::Object(ObjectId::Blob(BlobId::from_bytes(fields.array()?))),
            NODE => RecordId::Object(ObjectId::Node(NodeId::from_bytes(fields.array()?))),
            CHUNK_LIST => RecordId::Object(ObjectId::ChunkList(ChunkListId::from_bytes(fields.array()?))),
            EDIT => {
                let (sequence, length) = (fields.u64()?, fields.u8()?);
                let name = core::str::from_utf8(fields.slice(usize::from(length))?).ok()?;
                RecordId::Edit { bundle: BundleName::new(name).ok()?, sequence }
            }
            RELEASE => RecordId::Release(fields.u64()?),
            _ => return None,
        };
        if dropped {
            return Some(Self::Drop(name));
        }
        let length = fields.u32()?;
        let (line, limit) = match name {
            RecordId::Object(id) => {
                let raw = fields.u32()?;
                (raw >= length).then_some(())?;
                return (u64::from(raw) <= MAX_OBJECT).then_some(Self::Object { id, stored: length, raw });
            }
            RecordId::Edit { bundle, sequence } => {
                (Self::Edit { bundle, sequence, length, hash: fields.array()? }, MAX_EDIT)
            }
            RecordId::Release(number) => {
                (Self::Release { number, length, hash: fields.array()? }, MAX_RELEASE_RECORD)
            }
        };
        (u64::from(length) <= limit).then_some(line)
    }
}

fn put_object(id: &ObjectId, flag: u8, out: &mut Vec<u8>) {
    let kind = match id {
        ObjectId::Blob(_) => BLOB,
        ObjectId::Node(_) => NODE,
        ObjectId::ChunkList(_) => CHUNK_LIST,
    };
    out.push(kind | flag);
    out.extend(id.hash());
}

fn put_edit(bundle: &BundleName, sequence: u64, flag: u8, out: &mut Vec<u8>) {
    const { assert!(MAX_NAME <= u8::MAX as usize) };
    out.push(EDIT | flag);
    out.extend(sequence.to_le_bytes());
    out.push(bundle.as_str().len() as u8);
    out.extend(bundle.as_str().as_bytes());
}

/// Reads a part's table of contents: each line, with where its bytes begin in
/// the pack. `None` unless all of it is as the header says.
pub(super) fn read_contents(header: &PartHeader, bytes: &[u8]) -> Option<Vec<(u64, Line)>> {
    (blake3::hash(bytes).as_bytes() == &header.contents_hash).then_some(())?;
    let mut fields = Fields(bytes);
    let mut lines = Vec::new();
    let mut offset = header.body();
    while !fields.0.is_empty() {
        let line = Line::decode(&mut fields)?;
        let end = offset.checked_add(line.length())?;
        lines.push((offset, line));
        offset = end;
    }
    (offset == header.end()).then_some(lines)
}

/// One slot of the floors file (S-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// The higher of two slots is the newer.
    pub(super) sequence: u64,
    /// The last batch that was synced before this slot was written.
    pub(super) serial: u64,
    /// Where that batch ended; pack 0 before any.
    pub(super) pack: u32,
    pub(super) end: u64,
    pub(super) key: Key,
    pub(super) floors: Floors,
}

impl Slot {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SLOT);
        out.extend(SLOT_MAGIC);
        out.extend([FORMAT, 0, 0, 0, 0, 0, 0, 0]);
        out.extend(self.sequence.to_le_bytes());
        out.extend(self.serial.to_le_bytes());
        out.extend(self.pack.to_le_bytes());
        out.extend([0; 4]);
        out.extend(self.end.to_le_bytes());
        out.extend(self.key);
        floors_bytes(&self.floors, &mut out);
        seal(&mut out, blake3::Hasher::new());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Header<Self> {
        read_header(bytes, SLOT_MAGIC, |format, mut fields| {
            (format == FORMAT).then_some(())?;
            fields.zeros(7)?;
            let (sequence, serial, pack) = (fields.u64()?, fields.u64()?, fields.u32()?);
            fields.zeros(4)?;
            let (end, key) = (fields.u64()?, fields.array()?);
            let floors = floors_from(&mut fields)?;
            Some(Self { sequence, serial, pack, end, key, floors })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_specification() {
        let header = PartHeader {
            pack: 1,
            offset: 72,
            serial: 3,
            index: 0,
            contents_length: 0,
            body_length: 0,
            contents_hash: *blake3::hash(b"").as_bytes(),
            body_hash: *blake3::hash(b"").as_bytes(),
            floors: Some(Floors::default()),
        };
        let key = [7; 32];
        let bytes = header.encode(&key);
        assert_eq!(bytes.len() as u64, PART_HEADER);
        assert_eq!(PartHeader::decode(&bytes, &key, 1, 72, 280), Some(header));
        assert_eq!(PartHeader::decode(&bytes, &key, 1, 72, 279), None, "beyond the file");
        assert_eq!(PartHeader::decode(&bytes, &key, 2, 72, 280), None, "of another pack");
        assert_eq!(PartHeader::decode(&bytes, &key, 1, 80, 999), None, "at another place");
        assert_eq!(PartHeader::decode(&bytes, &[8; 32], 1, 72, 280), None, "of another store");
        assert_eq!(pack_header(1, &key).len() as u64, PACK_HEADER);
        assert_eq!(read_pack_header(&pack_header(1, &key), 1), Header::Good(key));
        let slot = Slot { sequence: 1, serial: 2, pack: 3, end: 4, key, floors: Floors::default() };
        assert_eq!(slot.encode().len(), SLOT);
        assert_eq!(Slot::decode(&slot.encode()), Header::Good(slot));
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let mut bytes = pack_header(1, &[7; 32]);
        bytes.truncate(bytes.len() - CHECK);
        bytes[8] = 2;
        seal(&mut bytes, blake3::Hasher::new());
        assert_eq!(read_pack_header(&bytes, 1), Header::Newer(2));
        bytes[9] ^= 1;
        assert_eq!(read_pack_header(&bytes, 1), Header::Bad);
    }

    #[test]
    fn contents_are_read_back_and_must_add_up() {
        let lines = [
            Line::Object { id: BlobId::of(b"x").into(), stored: 3, raw: 9 },
            Line::Edit {
                bundle: BundleName::new("role/web").unwrap(),
                sequence: 4,
                length: 5,
                hash: [1; 32],
            },
            Line::Release { number: 6, length: 7, hash: [2; 32] },
            Line::Drop(RecordId::Release(5)),
            Line::Drop(RecordId::Object(NodeId::of(b"n").into())),
        ];
        let mut bytes = Vec::new();
        lines.iter().for_each(|line| line.encode(&mut bytes));
        let mut header = PartHeader {
            pack: 1,
            offset: 0,
            serial: 1,
            index: 0,
            contents_length: bytes.len() as u32,
            body_length: 15,
            contents_hash: *blake3::hash(&bytes).as_bytes(),
            body_hash: [0; 32],
            floors: None,
        };
        let read = read_contents(&header, &bytes).unwrap();
        assert_eq!(read.iter().map(|(_, line)| line.clone()).collect::<Vec<_>>(), lines);
        let offsets: Vec<_> = read.iter().map(|(offset, _)| offset - header.body()).collect();
        assert_eq!(offsets, [0, 3, 8, 15, 15]);
        header.body_length = 16;
        assert_eq!(read_contents(&header, &bytes), None);
    }
}
