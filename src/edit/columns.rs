//! The operations of an edit as columns of like values (specs/edit.md, E-3 to E-7).

use super::EditError;
use super::frame::{self, Effort};
use super::operation::{Base, Body, Kind, OldEntries, Operation, Piece, Placed, Summary};
use super::patch::Hunk;
use super::varint::{Input, put, put_difference};
use crate::entry::Content;
use crate::entry::Entry;
use crate::limits::{
    CHUNK_MIN, MAX_BLOB, MAX_BUNDLE, MAX_CHUNKS, MAX_FILE, MAX_FILES, MAX_OPERATIONS, MAX_PATH,
};
use crate::object::ObjectSource;
use crate::path::ConfigPath;
use bytes::Bytes;

/// First byte of an edit whose operations stand as they are.
const PLAIN: u8 = 1;
/// First byte of an edit whose operations are one zstd frame.
const PACKED: u8 = 2;
/// Operations shorter than this are not worth packing.
const PACK_FROM: usize = 48;

const DELETE: u8 = 0;
const SET_MODE: u8 = 1;
const REPLACE: u8 = 2;
const ADD: u8 = 3;
const COPY: u8 = 4;
const PATCH: u8 = 5;
const ADD_PATCHED: u8 = 6;
const KIND_SHIFT: u8 = 3;
const PIECES: u8 = 1 << 5;
const BASE_SHIFT: u8 = 6;

/// The columns, in the order in which they are written.
#[derive(Default)]
struct Columns {
    tags: Vec<u8>,
    gaps: Vec<u8>,
    shared: Vec<u8>,
    suffix_lengths: Vec<u8>,
    suffixes: Vec<u8>,
    references: Vec<u8>,
    sizes: Vec<u8>,
    pieces: Vec<u8>,
    hunks: Vec<u8>,
    keeps: Vec<u8>,
    drops: Vec<u8>,
    inserts: Vec<u8>,
}

impl Columns {
    fn put_hunks(&mut self, hunks: &[Hunk]) {
        put(&mut self.hunks, hunks.len() as u64);
        for hunk in hunks {
            put(&mut self.keeps, hunk.keep.into());
            put(&mut self.drops, hunk.drop.into());
            put_difference(&mut self.inserts, hunk.insert.into(), hunk.drop.into());
        }
    }

    fn concat(self) -> Vec<u8> {
        let Self { tags, gaps, shared, suffix_lengths, suffixes, references, sizes, pieces, .. } = self;
        let Self { hunks, keeps, drops, inserts, .. } = self;
        let paths = [shared, suffix_lengths, suffixes].concat();
        [tags, gaps, paths, references, sizes, pieces, hunks, keeps, drops, inserts].concat()
    }
}

fn tag(operation: &Operation) -> u8 {
    let kind = |kind: &Kind| (*kind as u8) << KIND_SHIFT;
    let pieces = |body: &Body| if matches!(body, Body::Pieces(_)) { PIECES } else { 0 };
    match operation {
        Operation::Delete => DELETE,
        Operation::SetMode => SET_MODE,
        Operation::Replace { kind: k, body: Body::Patched(_) } => PATCH | kind(k),
        Operation::Replace { kind: k, body } => REPLACE | kind(k) | pieces(body),
        Operation::Copy { kind: k, .. } => COPY | kind(k),
        Operation::Add { kind: k, body, base, .. } => {
            let base = match base {
                Base::None => 0,
                Base::Before => 1,
                Base::After => 2,
                Base::At(_) => 3,
            };
            let add = if matches!(body, Body::Patched(_)) { ADD_PATCHED } else { ADD };
            add | kind(k) | pieces(body) | base << BASE_SHIFT
        }
    }
}

/// The path that an added one is front-coded against: the one before it, be
/// it the path just added or the old entry before.
fn path_before<S: ObjectSource + ?Sized>(
    old: &mut OldEntries<'_, '_, S>,
    position: u64,
    added: &Option<(u64, ConfigPath)>,
) -> Result<String, EditError> {
    if let Some((at, path)) = added
        && *at == position
    {
        return Ok(path.as_str().to_owned());
    }
    match position.checked_sub(1) {
        None => Ok(String::new()),
        Some(before) => Ok(old.get(before)?.0.as_str().to_owned()),
    }
}

/// The size that a whole body is written against.
fn size_before<S: ObjectSource + ?Sized>(
    old: &mut OldEntries<'_, '_, S>,
    placed: &Placed,
) -> Result<u64, EditError> {
    match placed.operation {
        Operation::Replace { .. } => Ok(old.get(placed.position)?.1.size()),
        _ => Ok(0),
    }
}

/// Encodes the head of an edit: format, counts, operations.
pub(super) fn encode<S: ObjectSource + ?Sized>(
    operations: &[Placed],
    old: &mut OldEntries<'_, '_, S>,
) -> Result<Vec<u8>, EditError> {
    let mut columns = Columns::default();
    let mut position = 0;
    let mut added: Option<(u64, ConfigPath)> = None;
    for placed in operations {
        columns.tags.push(tag(&placed.operation));
        put(&mut columns.gaps, placed.position.saturating_sub(position));
        position = placed.end();
        if let Operation::Add { path, .. } | Operation::Copy { path, .. } = &placed.operation {
            let before = path_before(old, placed.position, &added)?;
            let text = path.as_str().as_bytes();
            let shared = text.iter().zip(before.as_bytes()).take_while(|(a, b)| a == b).count();
            let suffix = text.get(shared..).unwrap_or_default();
            put(&mut columns.shared, shared as u64);
            put(&mut columns.suffix_lengths, suffix.len() as u64);
            columns.suffixes.extend_from_slice(suffix);
            added = Some((placed.position, path.clone()));
        }
        match &placed.operation {
            Operation::Add { base: Base::At(from), .. } | Operation::Copy { from, .. } => {
                put_difference(&mut columns.references, *from, placed.position);
            }
            _ => {}
        }
        match placed.body() {
            Some(Body::Whole(size)) => {
                put_difference(&mut columns.sizes, *size, size_before(old, placed)?);
            }
            Some(Body::Pieces(pieces)) => put_pieces(&mut columns.pieces, pieces),
            Some(Body::Patched(hunks)) => columns.put_hunks(hunks),
            None => {}
        }
    }
    let columns = columns.concat();
    let mut head = Vec::with_capacity(columns.len() + 8);
    let packed =
        if columns.len() < PACK_FROM { None } else { Some(frame::pack(&columns, &[], Effort::Usual)?) };
    match packed.filter(|packed| packed.len() + 2 < columns.len()) {
        None => {
            head.push(PLAIN);
            put(&mut head, operations.len() as u64);
            put(&mut head, columns.len() as u64);
            head.extend_from_slice(&columns);
        }
        Some(packed) => {
            head.push(PACKED);
            put(&mut head, operations.len() as u64);
            put(&mut head, columns.len() as u64);
            put(&mut head, packed.len() as u64);
            head.extend_from_slice(&packed);
        }
    }
    Ok(head)
}

fn put_pieces(out: &mut Vec<u8>, pieces: &[Piece]) {
    put(out, pieces.len() as u64);
    for piece in pieces {
        match piece {
            Piece::Keep { first, count } => {
                put(out, count << 1);
                put(out, *first);
            }
            Piece::New(sizes) => {
                put(out, (sizes.len() as u64) << 1 | 1);
                sizes.iter().for_each(|size| put(out, *size));
            }
        }
    }
}

/// What stands before the contents: how many operations, and their columns.
struct Head {
    count: u64,
    columns: Bytes,
    packed: u64,
}

/// Reads the head of an edit with at most `most` operations, to a tree of `content` bytes.
fn head(input: &mut Input<'_>, most: u64, content: u64) -> Result<Head, EditError> {
    let format = input.byte()?;
    let count = input.integer()?;
    if count > most {
        return Err(EditError::TooLarge { what: "operations", given: count, allowed: most });
    }
    let length = input.integer()?;
    // A tag, and up to eight integers of ten bytes, and a path; for every chunk of the new tree a
    // size, or a position and a count; and hunks, which take less than the file that they make.
    let chunks = (content / u64::from(CHUNK_MIN)).saturating_mul(8);
    let allowed =
        count.saturating_mul((MAX_PATH + 128) as u64).saturating_add(chunks).saturating_add(content);
    let allowed = allowed.min(MAX_OPERATIONS);
    if length > allowed {
        return Err(EditError::TooLarge { what: "bytes of operations", given: length, allowed });
    }
    match format {
        PLAIN => {
            let columns = Bytes::copy_from_slice(input.bytes(length)?);
            Ok(Head { count, columns, packed: length })
        }
        PACKED => {
            let packed = input.integer()?;
            let columns = frame::unpack(input.bytes(packed)?, &[], length)?;
            Ok(Head { count, columns, packed })
        }
        _ => Err(EditError::Malformed("unknown format")),
    }
}

/// Reads the operations of an edit on `old`. `most` bounds their number, `content` is the bytes of
/// the new tree.
pub(super) fn decode<S: ObjectSource + ?Sized>(
    input: &mut Input<'_>,
    old: &mut OldEntries<'_, '_, S>,
    most: u64,
    content: u64,
) -> Result<Vec<Placed>, EditError> {
    let Head { count, columns, .. } = head(input, most, content)?;
    let mut input = Input(&columns);
    let tags = input.bytes(count)?;
    let mut placed = Vec::with_capacity(tags.len());
    let mut position = 0u64;
    for tag in tags {
        let at = position.checked_add(input.integer()?).filter(|at| *at <= MAX_FILES);
        let at = at.ok_or(EditError::Malformed("position out of range"))?;
        let step = Placed { position: at, operation: operation(*tag)? };
        position = step.end();
        placed.push(step);
    }
    decode_paths(&mut input, old, &mut placed)?;
    for step in &mut placed {
        let position = step.position;
        if let Operation::Add { base: Base::At(from), .. } | Operation::Copy { from, .. } =
            &mut step.operation
        {
            *from = input.difference(position)?;
        }
    }
    for step in &mut placed {
        if let Some(Body::Whole(_)) = step.body() {
            let size = input.difference(size_before(old, step)?)?;
            if size > MAX_BLOB {
                return Err(EditError::TooLarge { what: "file size", given: size, allowed: MAX_BLOB });
            }
            set_body(step, Body::Whole(size));
        }
    }
    for step in &mut placed {
        if let Some(Body::Pieces(_)) = step.body() {
            let pieces = take_pieces(&mut input)?;
            set_body(step, Body::Pieces(pieces));
        }
    }
    decode_hunks(&mut input, &mut placed)?;
    if input.0.is_empty() { Ok(placed) } else { Err(EditError::Malformed("bytes after the operations")) }
}

fn decode_hunks(input: &mut Input<'_>, placed: &mut [Placed]) -> Result<(), EditError> {
    let range = EditError::Malformed("hunk out of range");
    let mut hunks: Vec<Vec<Hunk>> = Vec::new();
    let mut total = 0u64;
    for _ in placed.iter().filter(|step| matches!(step.body(), Some(Body::Patched(_)))) {
        let count = input.integer()?;
        total = total.saturating_add(count);
        // Each hunk has three more bytes at least.
        if count == 0 || total > (input.0.len() / 3) as u64 {
            return Err(range);
        }
        hunks.push(vec![Hunk { keep: 0, drop: 0, insert: 0 }; count as usize]);
    }
    let size = |size: u64| u32::try_from(size).ok().filter(|size| u64::from(*size) <= MAX_BLOB);
    for hunk in hunks.iter_mut().flatten() {
        hunk.keep = size(input.integer()?).ok_or(range.clone())?;
    }
    for hunk in hunks.iter_mut().flatten() {
        hunk.drop = size(input.integer()?).ok_or(range.clone())?;
    }
    for hunk in hunks.iter_mut().flatten() {
        hunk.insert = size(input.difference(hunk.drop.into())?).ok_or(range.clone())?;
    }
    let mut hunks = hunks.into_iter();
    for step in placed {
        if let Some(Body::Patched(_)) = step.body() {
            let hunks = hunks.next().unwrap_or_default();
            if hunks.iter().any(|hunk| hunk.drop == 0 && hunk.insert == 0) {
                return Err(EditError::Malformed("a hunk that changes nothing"));
            }
            set_body(step, Body::Patched(hunks));
        }
    }
    Ok(())
}

fn set_body(step: &mut Placed, new: Body) {
    if let Operation::Replace { body, .. } | Operation::Add { body, .. } = &mut step.operation {
        *body = new;
    }
}

/// An operation with what its tag alone says; the columns fill in the rest.
fn operation(tag: u8) -> Result<Operation, EditError> {
    let unknown = EditError::Malformed("unknown operation");
    let kind = match tag >> KIND_SHIFT & 3 {
        0 => Kind::Regular,
        1 => Kind::Executable,
        2 => Kind::Symlink,
        _ => Kind::Secret,
    };
    let body = if tag & PIECES == 0 { Body::Whole(0) } else { Body::Pieces(Vec::new()) };
    let base = match tag >> BASE_SHIFT {
        0 => Base::None,
        1 => Base::Before,
        2 => Base::After,
        _ => Base::At(0),
    };
    let path = unset_path();
    let operation = match tag & 7 {
        DELETE => Operation::Delete,
        SET_MODE => Operation::SetMode,
        REPLACE => Operation::Replace { kind, body },
        ADD => Operation::Add { path, kind, body, base },
        COPY => Operation::Copy { path, kind, from: 0 },
        PATCH => Operation::Replace { kind, body: Body::Patched(Vec::new()) },
        ADD_PATCHED => Operation::Add { path, kind, body: Body::Patched(Vec::new()), base },
        _ => return Err(unknown),
    };
    // Bits that an operation has no use for must be clear: one edit, one encoding of it.
    if self::tag(&operation) == tag { Ok(operation) } else { Err(EditError::Malformed("unused bits set")) }
}

/// Stands for a path until the path columns are read.
fn unset_path() -> ConfigPath {
    #[allow(clippy::unwrap_used, reason = "a literal that is a path")]
    ConfigPath::new("-").unwrap()
}

fn decode_paths<S: ObjectSource + ?Sized>(
    input: &mut Input<'_>,
    old: &mut OldEntries<'_, '_, S>,
    placed: &mut [Placed],
) -> Result<(), EditError> {
    let adds = placed
        .iter()
        .filter(|step| matches!(step.operation, Operation::Add { .. } | Operation::Copy { .. }))
        .count();
    let mut integers = |count| (0..count).map(|_| input.integer()).collect::<Result<Vec<_>, _>>();
    let shared = integers(adds)?;
    let lengths = integers(adds)?;
    let mut shares = shared.into_iter().zip(lengths);
    let mut added: Option<(u64, ConfigPath)> = None;
    for step in placed {
        let position = step.position;
        let (Operation::Add { path, .. } | Operation::Copy { path, .. }) = &mut step.operation else {
            continue;
        };
        let (shared, length) = shares.next().unwrap_or_default();
        let before = path_before(old, position, &added)?;
        let shared = usize::try_from(shared).ok().and_then(|shared| before.as_bytes().get(..shared));
        let shared = shared.ok_or(EditError::Malformed("shares more than the path before has"))?;
        if length > MAX_PATH as u64 {
            let (given, allowed) = (length, MAX_PATH as u64);
            return Err(EditError::TooLarge { what: "path length", given, allowed });
        }
        *path = ConfigPath::from_bytes(&[shared, input.bytes(length)?].concat())?;
        added = Some((position, path.clone()));
    }
    Ok(())
}

fn take_pieces(input: &mut Input<'_>) -> Result<Vec<Piece>, EditError> {
    let limit = MAX_CHUNKS as u64;
    let too_many = |given| EditError::TooLarge { what: "chunks of a file", given, allowed: limit };
    let count = input.integer()?;
    if count > limit {
        return Err(too_many(count));
    }
    let mut pieces = Vec::new();
    let (mut chunks, mut bytes) = (0u64, 0u64);
    for _ in 0..count {
        let run = input.integer()?;
        chunks = chunks.saturating_add(run >> 1);
        if chunks > limit {
            return Err(too_many(chunks));
        }
        if run & 1 == 0 {
            pieces.push(Piece::Keep { first: input.integer()?, count: run >> 1 });
            continue;
        }
        let mut sizes = Vec::new();
        for _ in 0..run >> 1 {
            let size = input.integer()?;
            bytes = bytes.saturating_add(size);
            if size == 0 || size > MAX_BLOB || bytes > MAX_FILE {
                return Err(EditError::Malformed("chunk size out of range"));
            }
            sizes.push(size);
        }
        pieces.push(Piece::New(sizes));
    }
    Ok(pieces)
}

/// Counts operations by their tags.
pub(super) fn summary(edit: &[u8]) -> Result<Summary, EditError> {
    let mut input = Input(edit);
    let Head { count, columns, packed } = head(&mut input, MAX_FILES * 2, MAX_BUNDLE)?;
    let mut summary =
        Summary { operation_bytes: packed, content_bytes: input.0.len() as u64, ..Summary::default() };
    for tag in Input(&columns).bytes(count)? {
        match tag & 7 {
            DELETE => summary.deleted += 1,
            SET_MODE => summary.mode_changed += 1,
            REPLACE | PATCH => summary.replaced += 1,
            ADD | ADD_PATCHED => summary.added += 1,
            _ => summary.copied += 1,
        }
    }
    Ok(summary)
}

/// Whether a file of this size is written chunk by chunk.
pub(super) fn is_large(entry: &Entry) -> bool {
    matches!(entry, Entry::File { content: Content::Chunked { .. }, .. })
}
