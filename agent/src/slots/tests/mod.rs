//! The slots on a real disk: what is read back, planted, interrupted and raced.

mod crash;
mod figures;
mod planted;
mod readers;
mod refused;
mod repair;
mod views;

use super::*;
use bytes::Bytes;
use rootcast::entry::{Chunk, ChunkList, Content};
use rootcast::id::{BlobId, ChunkListId};
use rootcast::object::ObjectMap;
use rootcast::path::LinkTarget;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

pub(super) type Files = BTreeMap<ConfigPath, Entry>;
pub(super) type Changes = BTreeMap<ConfigPath, Option<Entry>>;

/// What a path of a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    File { mode: u32, bytes: Vec<u8> },
    Link(String),
    Directory { mode: u32, empty: bool },
    Other,
}

/// A directory with slots, and the objects of all views made for it.
pub(super) struct Host {
    pub(super) dir: TempDir,
    pub(super) objects: ObjectMap,
}

pub(super) fn path(text: &str) -> ConfigPath {
    ConfigPath::new(text).unwrap()
}

impl Host {
    pub(super) fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), objects: ObjectMap::new() }
    }
    pub(super) fn open(&self) -> Slots {
        Slots::open(self.dir.path()).unwrap()
    }
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub(super) fn file(&mut self, text: impl AsRef<[u8]>, executable: bool) -> Entry {
        let bytes = Bytes::copy_from_slice(text.as_ref());
        let (id, size) = (BlobId::of(&bytes), bytes.len() as u64);
        self.objects.insert(id.into(), bytes);
        Entry::File { content: Content::Blob { id, size }, executable }
    }
    /// A file in pieces of `piece` bytes.
    pub(super) fn chunked(&mut self, text: impl AsRef<[u8]>, piece: usize) -> Entry {
        let mut list = ChunkList(Vec::new());
        for bytes in text.as_ref().chunks(piece) {
            let id = BlobId::of(bytes);
            self.objects.insert(id.into(), Bytes::copy_from_slice(bytes));
            list.0.push(Chunk { id, size: bytes.len() as u64 });
        }
        let (encoded, size) = (list.encode(), list.size());
        let id = ChunkListId::of(&encoded);
        self.objects.insert(id.into(), encoded.into());
        Entry::File { content: Content::Chunked { id, size }, executable: false }
    }
    /// Files by path and text; ` -> target` at the end of a path makes a link, ` *` an executable.
    pub(super) fn view(&mut self, files: &[(&str, &str)]) -> Files {
        files.iter().map(|(name, text)| self.named(name, text)).collect()
    }
    fn named(&mut self, name: &str, text: &str) -> (ConfigPath, Entry) {
        if let Some((name, target)) = name.split_once(" -> ") {
            return (path(name), link(name, target));
        }
        match name.strip_suffix(" *") {
            Some(name) => (path(name), self.file(text, true)),
            None => (path(name), self.file(text, false)),
        }
    }
    /// Stages in full and flips.
    pub(super) fn run(&self, slots: &mut Slots, view: &Files) -> Activated {
        let staged = slots.stage_full(view, &self.objects).unwrap();
        slots.activate(staged).unwrap()
    }
    /// What a view should look like on disk.
    pub(super) fn expected(&self, view: &Files) -> BTreeMap<String, Read> {
        let mut tree = BTreeMap::new();
        for (path, entry) in view {
            for parent in path.parents() {
                tree.insert(parent.into(), Read::Directory { mode: 0o755, empty: false });
            }
            let read = match entry {
                Entry::Symlink { target } => Read::Link(target.as_str().into()),
                Entry::Secret { .. } => unreachable!("secrets have tests of their own"),
                Entry::File { content, executable } => {
                    let mode = if *executable { 0o755 } else { 0o644 };
                    Read::File { mode, bytes: self.bytes(content) }
                }
            };
            tree.insert(path.as_str().into(), read);
        }
        tree
    }
    fn bytes(&self, content: &Content) -> Vec<u8> {
        match content {
            Content::Blob { id, .. } => self.objects[&(*id).into()].to_vec(),
            Content::Chunked { id, size } => {
                let list = ChunkList::decode(&self.objects[&(*id).into()], *size).unwrap();
                let pieces = list.0.iter().map(|chunk| &self.objects[&chunk.id.into()][..]);
                pieces.collect::<Vec<_>>().concat()
            }
        }
    }
    /// Panics unless what `current` leads to is exactly the view.
    #[track_caller]
    pub(super) fn assert_current(&self, view: &Files) {
        assert_eq!(read_back(&self.at("current")), self.expected(view));
    }
}

pub(super) fn link(at: &str, target: &str) -> Entry {
    Entry::Symlink { target: LinkTarget::new(&path(at), target).unwrap() }
}

/// Reads a tree with nothing but the standard library.
pub(super) fn read_back(root: &Path) -> BTreeMap<String, Read> {
    let mut tree = BTreeMap::new();
    let mut todo = vec![(root.to_owned(), String::new())];
    while let Some((dir, prefix)) = todo.pop() {
        for item in fs::read_dir(&dir).unwrap() {
            let item = item.unwrap();
            let name = format!("{prefix}{}", item.file_name().to_string_lossy());
            let meta = fs::symlink_metadata(item.path()).unwrap();
            let mode = meta.permissions().mode() & 0o7777;
            let kind = meta.file_type();
            let read = if kind.is_symlink() {
                Read::Link(fs::read_link(item.path()).unwrap().to_string_lossy().into())
            } else if kind.is_dir() {
                todo.push((item.path(), format!("{name}/")));
                let empty = fs::read_dir(item.path()).unwrap().next().is_none();
                Read::Directory { mode, empty }
            } else if kind.is_file() {
                Read::File { mode, bytes: fs::read(item.path()).unwrap() }
            } else {
                Read::Other
            };
            tree.insert(name, read);
        }
    }
    tree
}

/// The changes that lead from one view to another.
pub(super) fn changes(from: &Files, to: &Files) -> Changes {
    let gone = from.keys().filter(|path| !to.contains_key(*path));
    let new = to.iter().filter(|(path, entry)| from.get(*path) != Some(*entry));
    gone.map(|path| (path.clone(), None))
        .chain(new.map(|(path, entry)| (path.clone(), Some(entry.clone()))))
        .collect()
}

pub(super) fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}
