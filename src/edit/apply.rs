//! Applying an edit.

use super::EditError;
use super::columns;
use super::frame::{self, Unit};
use super::operation::{Body, Kind, OldEntries, Operation, Piece, Placed};
use super::patch;
use super::varint::Input;
use crate::chunking;
use crate::entry::{Chunk, ChunkList, Content, Entry};
use crate::id::{BlobId, NodeId};
use crate::limits::{MAX_BLOB, MAX_EDIT, MAX_FILE, MAX_SYMLINK};
use crate::object::{ObjectSink, ObjectSource, WriteError};
use crate::path::{ConfigPath, LinkTarget, PathError, PathFault};
use crate::tree::{self, Changes, Totals, Tree};
use bytes::Bytes;

/// What was signed of the tree that an edit must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declared {
    /// Its root.
    pub root: NodeId,
    /// Its files and bytes, which bound what the edit may unpack.
    pub totals: Totals,
    /// What its files may be.
    pub policy: Policy,
}

/// What a grant allows of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Its bytes at most.
    pub file_size: u64,
    /// Whether it may be a symbolic link.
    pub symlinks: bool,
}

impl Policy {
    /// What the format itself allows.
    pub const ANY: Self = Self { file_size: MAX_FILE, symlinks: true };

    fn check(&self, path: &ConfigPath, entry: &Entry) -> Result<(), EditError> {
        let reason = match entry {
            Entry::Symlink { .. } if !self.symlinks => "the grant allows no symbolic links",
            Entry::File { .. } | Entry::Secret { .. } if entry.size() > self.file_size => {
                "is larger than the grant allows"
            }
            _ => return Ok(()),
        };
        Err(EditError::NotAllowed { path: path.clone(), reason })
    }
}

/// Applies `edit` to the tree at `old` and writes the new objects to `sink`.
///
/// On any error what `sink` has taken must be thrown away. Memory: the edit,
/// one frame of contents with its prefix, and the changed paths; what is
/// unpacked is bounded by `declared` before anything is allocated for it.
pub fn apply<S, W>(
    source: &S,
    old: NodeId,
    edit: &[u8],
    declared: &Declared,
    sink: &mut W,
) -> Result<(), EditError>
where
    S: ObjectSource + ?Sized,
    W: ObjectSink + ?Sized,
{
    if edit.len() as u64 > MAX_EDIT {
        let (given, allowed) = (edit.len() as u64, MAX_EDIT);
        return Err(EditError::TooLarge { what: "bytes of the edit", given, allowed });
    }
    let tree = Tree::open(source, old)?;
    let mut entries = OldEntries::new(&tree, source);
    let mut input = Input(edit);
    let most = tree.totals().files.saturating_add(declared.totals.files);
    let operations = columns::decode(&mut input, &mut entries, most, declared.totals.bytes)?;
    let units = units(&operations, &mut entries, declared)?;
    let mut contents = Contents::new(input, &units, source, declared.totals.bytes);
    let mut changes = Changes::new();
    for placed in &operations {
        change(placed, &mut entries, &mut contents, &mut changes, sink)?;
    }
    contents.finish()?;
    for (path, entry) in &changes {
        if let Some(entry) = entry {
            declared.policy.check(path, entry)?;
        }
    }
    let (root, totals) = tree::update(source, old, &changes, sink)?;
    if (root, totals) == (declared.root, declared.totals) {
        Ok(())
    } else {
        Err(EditError::WrongRoot { got: root, want: declared.root })
    }
}

/// Lists the units of content, and refuses more of it than was signed.
fn units<S: ObjectSource + ?Sized>(
    operations: &[Placed],
    entries: &mut OldEntries<'_, '_, S>,
    declared: &Declared,
) -> Result<Vec<Unit>, EditError> {
    let (mut units, mut given) = (Vec::new(), 0u64);
    let allowed = declared.totals.bytes;
    for placed in operations {
        let Some(body) = placed.body() else { continue };
        let mut base = entries.prefix(placed)?;
        for size in body.sizes() {
            given = given.saturating_add(size);
            if given > allowed {
                return Err(EditError::TooLarge { what: "bytes of content", given, allowed });
            }
            units.push(Unit { size, base: core::mem::take(&mut base) });
        }
    }
    Ok(units)
}

/// The unpacked contents, one frame at a time, and what was made of them.
struct Contents<'e, 'u, S: ?Sized> {
    input: Input<'e>,
    frames: std::vec::IntoIter<&'u [Unit]>,
    source: &'e S,
    frame: Bytes,
    /// What is left of `frame`.
    rest: Bytes,
    /// Bytes of the new entries so far.
    given: u64,
    /// Bytes of the new tree, as signed.
    allowed: u64,
}

impl<'e, 'u, S: ObjectSource + ?Sized> Contents<'e, 'u, S> {
    fn new(input: Input<'e>, units: &'u [Unit], source: &'e S, allowed: u64) -> Self {
        let frames = frame::group(units).into_iter();
        Self { input, frames, source, frame: Bytes::new(), rest: Bytes::new(), given: 0, allowed }
    }

    /// Counts a new entry, before it is written. Kept chunks, kept bytes and copies count too: what an edit
    /// can make us write follows what was signed (specs/edit.md, E-13).
    fn count(&mut self, size: u64) -> Result<u64, EditError> {
        self.given = self.given.saturating_add(size);
        let (given, allowed) = (self.given, self.allowed);
        if given > allowed {
            return Err(EditError::TooLarge { what: "bytes of files", given, allowed });
        }
        Ok(size)
    }

    fn take(&mut self, size: u64) -> Result<Bytes, EditError> {
        let size = usize::try_from(size).map_err(|_| EditError::Malformed("size out of range"))?;
        if size > 0 && self.rest.is_empty() {
            let frame = self.frames.next().ok_or(EditError::Malformed("has too little content"))?;
            let length = match self.frames.len() {
                0 => self.input.0.len() as u64,
                _ => self.input.integer()?,
            };
            let packed = self.input.bytes(length)?;
            let prefix = frame::prefix(frame, &self.frame, self.source)?;
            self.frame = frame::unpack(packed, &prefix, frame.iter().map(|unit| unit.size).sum())?;
            self.rest = self.frame.clone();
        }
        if size > self.rest.len() {
            return Err(EditError::Malformed("content crosses a frame"));
        }
        Ok(self.rest.split_to(size))
    }

    /// Refuses bytes that nothing used. A frame of empty files holds nothing and may be left.
    fn finish(mut self) -> Result<(), EditError> {
        if let Some(frame) = self.frames.next() {
            let empty = self.frames.len() == 0 && frame.iter().all(|unit| unit.size == 0);
            if !empty || !frame::unpack(self.input.bytes(self.input.0.len() as u64)?, &[], 0)?.is_empty() {
                return Err(EditError::Malformed("has too much content"));
            }
        }
        if self.rest.is_empty() && self.input.0.is_empty() {
            Ok(())
        } else {
            Err(EditError::Malformed("bytes after the end"))
        }
    }
}

/// Makes one change.
fn change<S, W>(
    placed: &Placed,
    entries: &mut OldEntries<'_, '_, S>,
    contents: &mut Contents<'_, '_, S>,
    changes: &mut Changes,
    sink: &mut W,
) -> Result<(), EditError>
where
    S: ObjectSource + ?Sized,
    W: ObjectSink + ?Sized,
{
    let (path, entry) = match &placed.operation {
        Operation::Delete => (entries.get(placed.position)?.0.clone(), None),
        Operation::SetMode => {
            let (path, entry) = entries.get(placed.position)?.clone();
            let Entry::File { content, executable } = entry else {
                return Err(EditError::Malformed("gives what is no file a mode"));
            };
            contents.count(content.size())?;
            (path, Some(Entry::File { content, executable: !executable }))
        }
        Operation::Copy { path, kind, from } => {
            let content = match entries.get(*from)?.1 {
                Entry::File { content, .. } => content,
                Entry::Secret { id, size } => Content::Blob { id, size },
                Entry::Symlink { .. } => return Err(EditError::Malformed("copies a link")),
            };
            contents.count(content.size())?;
            (path.clone(), Some(file(content, *kind)?))
        }
        Operation::Replace { kind, body } => {
            let path = entries.get(placed.position)?.0.clone();
            let entry = content(&path, *kind, body, placed, entries, contents, sink)?;
            (path, Some(entry))
        }
        Operation::Add { path, kind, body, .. } => {
            let entry = content(path, *kind, body, placed, entries, contents, sink)?;
            (path.clone(), Some(entry))
        }
    };
    match changes.insert(path, entry) {
        None => Ok(()),
        Some(_) => Err(EditError::Malformed("changes a path twice")),
    }
}

fn file(content: Content, kind: Kind) -> Result<Entry, EditError> {
    match (kind, content) {
        (Kind::Symlink, _) => Err(EditError::Malformed("makes a link of a file's content")),
        (Kind::Secret, Content::Blob { id, size }) => Ok(Entry::Secret { id, size }),
        (Kind::Secret, Content::Chunked { .. }) => Err(EditError::Malformed("makes a secret of chunks")),
        (Kind::Regular | Kind::Executable, _) => {
            Ok(Entry::File { content, executable: kind == Kind::Executable })
        }
    }
}

/// The new entry of an operation; its objects go to `sink`.
fn content<S, W>(
    path: &ConfigPath,
    kind: Kind,
    body: &Body,
    placed: &Placed,
    entries: &mut OldEntries<'_, '_, S>,
    contents: &mut Contents<'_, '_, S>,
    sink: &mut W,
) -> Result<Entry, EditError>
where
    S: ObjectSource + ?Sized,
    W: ObjectSink + ?Sized,
{
    match (kind, body) {
        (Kind::Symlink, Body::Whole(size)) => {
            if *size > MAX_SYMLINK as u64 {
                let text = format!("{path}");
                return Err(PathError { text, reason: PathFault::TooLong }.into());
            }
            contents.count(*size)?;
            let target = contents.take(*size)?;
            let not_text = EditError::Malformed("link target is not UTF-8");
            let target = core::str::from_utf8(&target).map_err(|_| not_text)?;
            Ok(Entry::Symlink { target: LinkTarget::new(path, target)? })
        }
        (Kind::Symlink | Kind::Secret, Body::Pieces(_) | Body::Patched(_)) => {
            Err(EditError::Malformed("makes a link or secret of chunks or hunks"))
        }
        (_, Body::Whole(size)) => {
            let size = contents.count(*size)?;
            let id = write_blob(contents.take(size)?, sink)?;
            file(Content::Blob { id, size }, kind)
        }
        (_, Body::Patched(hunks)) => {
            let base = placed.base().ok_or(EditError::Malformed("patches nothing"))?;
            let base = entries.blob(base)?;
            let inserted = contents.take(patch::insertion(hunks))?;
            let bytes = patch::apply(&base, hunks, &inserted)?;
            let size = contents.count(bytes.len() as u64)?;
            file(Content::Blob { id: write_blob(bytes, sink)?, size }, kind)
        }
        (_, Body::Pieces(pieces)) => {
            let base = match placed.base() {
                Some(base) => entries.chunks(base)?,
                None => Vec::new(),
            };
            let list = join(pieces, &base, contents, sink)?;
            if !(MAX_BLOB + 1..=MAX_FILE).contains(&list.size()) {
                return Err(EditError::Malformed("a file of chunks has a size that is not one's"));
            }
            file(chunking::store_list(&list, sink)?, kind)
        }
    }
}

fn write_blob<W: ObjectSink + ?Sized>(bytes: Bytes, sink: &mut W) -> Result<BlobId, WriteError> {
    let id = BlobId::of(&bytes);
    sink.write(id.into(), bytes)?;
    Ok(id)
}

/// Joins kept and new chunks to a list.
fn join<S, W>(
    pieces: &[Piece],
    base: &[Chunk],
    contents: &mut Contents<'_, '_, S>,
    sink: &mut W,
) -> Result<ChunkList, EditError>
where
    S: ObjectSource + ?Sized,
    W: ObjectSink + ?Sized,
{
    let mut list = ChunkList(Vec::new());
    for piece in pieces {
        match piece {
            Piece::Keep { first, count } => {
                let range = usize::try_from(*first).ok().zip(usize::try_from(*count).ok());
                let kept = range.and_then(|(first, count)| base.get(first..first.checked_add(count)?));
                for chunk in kept.ok_or(EditError::Malformed("keeps chunks that are not there"))? {
                    contents.count(chunk.size)?;
                    list.0.push(*chunk);
                }
            }
            Piece::New(sizes) => {
                for size in sizes {
                    let size = contents.count(*size)?;
                    let id = write_blob(contents.take(size)?, sink)?;
                    list.0.push(Chunk { id, size });
                }
            }
        }
    }
    Ok(list)
}
