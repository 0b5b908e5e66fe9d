//! A git repository at a commit, read object by object.

use super::names::{directory_fault, is_dot_git};
use super::{
    Cause, Change, Changes, FileKind, Handle, Place, Refusal, Refused, SourceError, SourceFile, check_target,
    printable,
};
use gix::ObjectId;
use gix::objs::{Kind, TreeRefIter};
use rootcast::limits::{MAX_FILE, MAX_SEGMENTS, MAX_SYMLINK, SOURCE_ENTRIES_PER_FILE};
use rootcast::path::{ConfigPath, PathFault};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether git's own files are here, so that the directory must be read as a
/// repository or not at all: never as plain files because git's are damaged.
pub(super) fn is_repository(path: &Path) -> bool {
    let has = |name: &str| path.join(name).symlink_metadata().is_ok();
    has(".git") || path.ends_with(".git") || (has("HEAD") && has("objects") && has("refs"))
}

/// A repository, and the commit of it that is read.
#[derive(Debug)]
pub(super) struct GitSource {
    repository: gix::Repository,
    /// What `head` resolves again.
    revision: String,
    commit: ObjectId,
    tree: ObjectId,
    trees: Trees,
}

impl GitSource {
    pub(super) fn open(place: &Place, revision: &str) -> Result<Self, SourceError> {
        let not_a_repository =
            |source: Cause| SourceError::NotARepository { path: place.path.clone(), source };
        // No settings but the repository's own, and none of the environment.
        // Trust is about running what the settings say; nothing is run here, so
        // a repository of another owner is read like any other. Replaced objects
        // are not followed: the commit that a release names is the one delivered.
        let options = gix::open::Options::isolated().with(gix::sec::Trust::Full).config_overrides([
            "core.useReplaceRefs=false".to_owned(),
            format!("gitoxide.objects.allocLimit={MAX_FILE}"),
        ]);
        let repository =
            gix::open_opts(&place.path, options).map_err(|error| not_a_repository(Box::new(error)))?;
        let null = ObjectId::null(repository.object_hash());
        let (revision, trees) = (revision.to_owned(), Trees::default());
        let mut source = Self { repository, revision, commit: null, tree: null, trees };
        source.commit = source.resolve(place)?;
        source.tree = source.tree_of(place, source.commit)?;
        Ok(source)
    }

    pub(super) fn commit(&self) -> &[u8] {
        self.commit.as_bytes()
    }

    pub(super) fn head(&self, place: &Place) -> Result<Vec<u8>, SourceError> {
        Ok(self.resolve(place)?.as_bytes().to_vec())
    }

    pub(super) fn refresh(&mut self, place: &Place) -> Result<bool, SourceError> {
        let commit = self.resolve(place)?;
        if commit == self.commit {
            return Ok(false);
        }
        self.tree = self.tree_of(place, commit)?;
        self.commit = commit;
        Ok(true)
    }

    pub(super) fn at(&self, place: &Place, commit: &[u8]) -> Result<Self, SourceError> {
        let revision = hex::encode(commit);
        if commit.len() != self.repository.object_hash().len_in_bytes() {
            let (path, source) = (place.path.clone(), "not a whole commit id".into());
            return Err(SourceError::NoRevision { path, revision, source });
        }
        let (repository, trees) = (self.repository.clone(), self.trees.clone());
        let mut source = Self { repository, revision, commit: self.commit, tree: self.tree, trees };
        source.commit = source.resolve(place)?;
        source.tree = source.tree_of(place, source.commit)?;
        Ok(source)
    }

    /// The commit that the revision names now, through tags.
    fn resolve(&self, place: &Place) -> Result<ObjectId, SourceError> {
        let no_revision = |source: Cause| SourceError::NoRevision {
            path: place.path.clone(),
            revision: printable(self.revision.as_bytes()),
            source,
        };
        let is_full_id = self.revision.len() == self.repository.object_hash().len_in_hex();
        if is_full_id && let Ok(id) = ObjectId::from_hex(self.revision.as_bytes()) {
            let object = self.repository.find_object(id).map_err(|e| no_revision(Box::new(e)))?;
            let commit = object.peel_to_commit().map_err(|e| no_revision(Box::new(e)))?;
            return Ok(commit.id);
        }
        if self.revision == "HEAD" {
            let head = self.repository.head().map_err(|e| no_revision(Box::new(e)))?;
            if head.is_unborn() {
                return Err(SourceError::NoCommit { path: place.path.clone() });
            }
        }
        let mut reference =
            self.repository.find_reference(self.revision.as_str()).map_err(|e| no_revision(Box::new(e)))?;
        let commit = reference.peel_to_commit().map_err(|e| no_revision(Box::new(e)))?;
        Ok(commit.id)
    }

    fn tree_of(&self, place: &Place, commit: ObjectId) -> Result<ObjectId, SourceError> {
        let damaged = |source: Cause| damaged(place, format!("commit {commit}"), source);
        let found = self.repository.find_commit(commit).map_err(|e| damaged(Box::new(e)))?;
        Ok(found.tree_id().map_err(|e| damaged(Box::new(e)))?.detach())
    }

    pub(super) fn changes(&self, place: &Place, since: &[u8]) -> Result<Changes, SourceError> {
        if let Some(old) = self.known_tree(place, since) {
            match self.compare(place, Some(old)) {
                Ok(changes) => return Ok(Changes::Since(changes)),
                // What cannot be compared with is as good as unknown.
                Err(Stop::OldSide) => {}
                Err(Stop::Error(error)) => return Err(*error),
            }
        }
        let changes = match self.compare(place, None) {
            Ok(changes) => changes,
            Err(Stop::Error(error)) => return Err(*error),
            Err(Stop::OldSide) => Vec::new(), // there is no old side
        };
        let put = |change| match change {
            Change::Put(file) => Some(file),
            Change::Remove(_) => None,
        };
        Ok(Changes::Full(changes.into_iter().filter_map(put).collect()))
    }

    /// The tree of a commit, when both are here.
    fn known_tree(&self, place: &Place, commit: &[u8]) -> Option<ObjectId> {
        let id = ObjectId::try_from(commit).ok()?;
        if id.kind() != self.repository.object_hash() || !self.repository.has_object(id) {
            return None;
        }
        self.tree_of(place, id).ok()
    }

    fn compare(&self, place: &Place, old: Option<ObjectId>) -> Result<Vec<Change>, Stop> {
        let entries = place.limits.files.saturating_mul(SOURCE_ENTRIES_PER_FILE);
        let mut walk = Walk {
            source: self,
            place,
            path: Vec::new(),
            depth: 0,
            changes: Vec::new(),
            refused: Refused::default(),
            files: 0,
            entries,
        };
        if old != Some(self.tree) {
            walk.directory(old, Some(self.tree))?;
        }
        if !walk.refused.is_empty() {
            let (path, refused) = (place.path.clone(), walk.refused);
            return Err(SourceError::Refused { path, refused }.into());
        }
        walk.changes.sort_unstable_by(|one, two| one.path().cmp(two.path()));
        Ok(walk.changes)
    }

    pub(super) fn read(
        &self,
        place: &Place,
        file: &SourceFile,
        id: ObjectId,
    ) -> Result<Vec<u8>, SourceError> {
        let what = || format!("`{}`", printable(file.path.as_str().as_bytes()));
        let bytes = self.read_blob(id, file.size).map_err(|source| damaged(place, what(), source))?;
        if bytes.len() as u64 == file.size {
            return Ok(bytes);
        }
        let reason = format!("{} bytes where {} were listed", bytes.len(), file.size);
        Err(damaged(place, what(), reason.into()))
    }

    /// Reads a blob whose header says at most `limit` bytes.
    fn read_blob(&self, id: ObjectId, limit: u64) -> Result<Vec<u8>, Cause> {
        let header = self.repository.find_header(id)?;
        if header.size() > limit {
            return Err(format!("{} bytes, over {limit}", header.size()).into());
        }
        let object = self.repository.find_object(id)?;
        if object.kind != Kind::Blob {
            return Err(format!("object {id} is not a file").into());
        }
        Ok(object.detach().data)
    }

    pub(super) fn read_path(&self, place: &Place, path: &ConfigPath) -> Result<Option<Vec<u8>>, SourceError> {
        let file = printable(path.as_str().as_bytes());
        match self.entry(place, path)? {
            None => Ok(None),
            Some((mode, id)) => match what_is(mode) {
                What::File(FileKind::Regular | FileKind::Executable) => {
                    let read = self.read_blob(id, place.limits.file_size);
                    read.map(Some).map_err(|source| damaged(place, format!("`{file}`"), source))
                }
                _ => Err(SourceError::NotAFile { path: place.path.clone(), file }),
            },
        }
    }

    pub(super) fn link_at(&self, place: &Place, path: &ConfigPath) -> Result<Option<Vec<u8>>, SourceError> {
        match self.entry(place, path)? {
            Some((mode, id)) if matches!(what_is(mode), What::File(FileKind::Symlink)) => {
                let read = self.read_blob(id, MAX_SYMLINK as u64);
                let file = || printable(path.as_str().as_bytes());
                read.map(Some).map_err(|source| damaged(place, format!("`{}`", file()), source))
            }
            _ => Ok(None),
        }
    }

    /// What the commit's tree has at a path.
    fn entry(&self, place: &Place, path: &ConfigPath) -> Result<Option<(u16, ObjectId)>, SourceError> {
        let damaged =
            |source: Cause| damaged(place, format!("`{}`", printable(path.as_str().as_bytes())), source);
        let (mut mode, mut id) = (TREE, self.tree);
        for segment in path.segments() {
            if mode != TREE {
                return Ok(None);
            }
            let object = self.read_tree(id).map_err(&damaged)?;
            let mut entries = TreeRefIter::from_bytes(&object, self.repository.object_hash());
            // It ends at the entry, or at the first that cannot be read.
            let found = entries
                .find(|entry| entry.as_ref().map_or(true, |entry| entry.filename == segment.as_bytes()));
            match found.transpose().map_err(|error| damaged(error.into()))? {
                Some(entry) => (mode, id) = (entry.mode.value(), entry.oid.to_owned()),
                None => return Ok(None),
            }
        }
        Ok(Some((mode, id)))
    }

    /// The bytes of a tree object.
    fn read_tree(&self, id: ObjectId) -> Result<Arc<[u8]>, Cause> {
        if let Some(kept) = self.trees.find(&id) {
            return Ok(kept);
        }
        let object = self.repository.find_object(id)?;
        if object.kind != Kind::Tree {
            return Err(format!("object {id} is not a directory").into());
        }
        let bytes: Arc<[u8]> = object.data.as_slice().into();
        self.trees.keep(id, &bytes);
        Ok(bytes)
    }

    pub(super) fn first_parents(&self, place: &Place, count: usize) -> Result<Vec<Vec<u8>>, SourceError> {
        let mut commits = Vec::new();
        let mut next = Some(self.commit);
        while let Some(id) = next.filter(|_| commits.len() < count) {
            let damaged = |source: Cause| damaged(place, format!("commit {id}"), source);
            let commit = self.repository.find_commit(id).map_err(|e| damaged(Box::new(e)))?;
            commits.push(id.as_bytes().to_vec());
            // A shallow clone names parents that it does not have.
            let parent = commit.parent_ids().next().map(gix::Id::detach);
            next = parent.filter(|parent| self.repository.has_object(parent));
        }
        commits.reverse();
        Ok(commits)
    }
}

fn damaged(place: &Place, what: String, source: Cause) -> SourceError {
    SourceError::Damaged { path: place.path.clone(), what, source }
}

/// Why a comparison ends early.
enum Stop {
    /// The state compared with cannot be read.
    OldSide,
    Error(Box<SourceError>),
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        Self::Error(Box::new(error))
    }
}

/// The mode of a directory, as git writes it.
const TREE: u16 = 0o040_000;

/// One entry of a git tree object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Item<'t> {
    name: &'t [u8],
    mode: u16,
    id: &'t gix::oid,
}

/// Large tree objects that were read last, shared by the sources of one
/// repository: a publication reads the directories at the root twice, and so
/// does the next, which starts from them. Small ones cost nothing to read again.
#[derive(Debug, Clone, Default)]
struct Trees(Arc<Mutex<KeptTrees>>);

type KeptTrees = VecDeque<(ObjectId, Arc<[u8]>)>;

impl Trees {
    fn kept(&self) -> MutexGuard<'_, KeptTrees> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &ObjectId) -> Option<Arc<[u8]>> {
        self.kept().iter().find(|(kept, _)| kept == id).map(|(_, bytes)| bytes.clone())
    }

    fn keep(&self, id: ObjectId, bytes: &Arc<[u8]>) {
        if !(KEPT_TREE_FROM..=KEPT_TREE_MOST).contains(&bytes.len()) {
            return;
        }
        let mut kept = self.kept();
        kept.push_back((id, bytes.clone()));
        if kept.len() > KEPT_TREES {
            kept.pop_front();
        }
    }
}

/// Tree objects that are kept: an old and a new one, of the root and of a directory in it.
const KEPT_TREES: usize = 4;
/// A tree object of fewer bytes is not kept.
const KEPT_TREE_FROM: usize = 64 * 1024;
/// A tree object of more bytes is not kept: ten times what 100,000 files in one directory take.
const KEPT_TREE_MOST: usize = 64 * 1024 * 1024;

/// What a mode says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Directory,
    File(FileKind),
    Submodule,
    Unknown,
}

fn what_is(mode: u16) -> What {
    match mode {
        TREE => What::Directory,
        0o120_000 => What::File(FileKind::Symlink),
        0o160_000 => What::Submodule,
        // Old repositories have other permissions than 644 and 755; as git does,
        // only the owner's right to execute counts. Set-user-id and the like stay unknown.
        0o100_000..=0o100_777 if mode & 0o100 != 0 => What::File(FileKind::Executable),
        0o100_000..=0o100_777 => What::File(FileKind::Regular),
        _ => What::Unknown,
    }
}

/// The entries of a tree object, sorted by name; at most one more than `limit`.
fn entries_of(object: &[u8], hash: gix::hash::Kind, limit: u64) -> Result<Vec<Item<'_>>, Cause> {
    let mut items = Vec::new();
    for entry in TreeRefIter::from_bytes(object, hash) {
        if items.len() as u64 > limit {
            break; // one over: the caller counts and refuses
        }
        let entry = entry?;
        items.push(Item { name: entry.filename, mode: entry.mode.value(), id: entry.oid });
    }
    // Git's own order is trusted no more than the rest of the object.
    items.sort_unstable();
    Ok(items)
}

/// The comparison of two trees, or of a tree with nothing.
struct Walk<'a> {
    source: &'a GitSource,
    place: &'a Place,
    /// The directory that is looked at, with a `/` at its end unless it is the root.
    path: Vec<u8>,
    depth: usize,
    changes: Vec<Change>,
    refused: Refused,
    /// Files put.
    files: u64,
    /// Entries that may still be looked at.
    entries: u64,
}

impl Walk<'_> {
    /// Compares two directories at the current path; `None` is an empty one.
    fn directory(&mut self, old: Option<ObjectId>, new: Option<ObjectId>) -> Result<(), Stop> {
        let hash = self.source.repository.object_hash();
        let old = old.map(|id| self.source.read_tree(id)).transpose().map_err(|_| Stop::OldSide)?;
        let old = entries_of(old.as_deref().unwrap_or_default(), hash, self.entries);
        let old = self.count(old.map_err(|_| Stop::OldSide)?).map_err(|_| Stop::OldSide)?;
        if old.windows(2).any(|pair| matches!(pair, [one, two] if one.name == two.name)) {
            return Err(Stop::OldSide);
        }
        let shown = || printable(self.path.strip_suffix(b"/").unwrap_or(&self.path));
        let failed = |source| damaged(self.place, format!("directory `{}`", shown()), source);
        let new = new.map(|id| self.source.read_tree(id)).transpose().map_err(failed)?;
        let new = entries_of(new.as_deref().unwrap_or_default(), hash, self.entries).map_err(failed)?;
        let new = self.count(new)?;
        let new = self.without_duplicates(new);
        let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.name.cmp(new.name),
            };
            let old = if order.is_le() { old.next() } else { None };
            let new = if order.is_ge() { new.next() } else { None };
            self.entry(old, new)?;
        }
    }

    fn count<'t>(&mut self, items: Vec<Item<'t>>) -> Result<Vec<Item<'t>>, SourceError> {
        match self.entries.checked_sub(items.len() as u64) {
            Some(left) => {
                self.entries = left;
                Ok(items)
            }
            None => {
                let limit = self.place.limits.files.saturating_mul(SOURCE_ENTRIES_PER_FILE);
                Err(SourceError::TooManyEntries { path: self.place.path.clone(), limit })
            }
        }
    }

    /// Drops and refuses every entry whose name is there already.
    fn without_duplicates<'t>(&mut self, mut items: Vec<Item<'t>>) -> Vec<Item<'t>> {
        items.dedup_by(|later, first| {
            let same = later.name == first.name;
            if same {
                let path = [&self.path[..], later.name].concat();
                self.refused.add(&path, Refusal::Duplicate);
            }
            same
        });
        items
    }

    /// Compares two entries of one name.
    fn entry(&mut self, old: Option<Item<'_>>, new: Option<Item<'_>>) -> Result<(), Stop> {
        let what = |item: Option<Item<'_>>| item.map(|item| what_is(item.mode));
        let (old_what, new_what) = (what(old), what(new));
        // Another mode that says the same is no change.
        if old_what == new_what
            && old.map(|item| item.id) == new.map(|item| item.id)
            && old_what != Some(What::Unknown)
        {
            return Ok(());
        }
        let Some(name) = new.or(old).map(|item| item.name) else {
            return Ok(());
        };
        let directory_of = |what, item: Option<Item<'_>>| {
            item.filter(|_| what == Some(What::Directory)).map(|item| item.id.to_owned())
        };
        let old_directory = directory_of(old_what, old);
        let new_directory = directory_of(new_what, new);
        if let (Some(What::File(_)), None | Some(What::Directory)) = (old_what, new_what) {
            let path = [&self.path[..], name].concat();
            let path = ConfigPath::from_bytes(&path).map_err(|_| Stop::OldSide)?;
            self.changes.push(Change::Remove(path));
        }
        if let Some(new) = new
            && new_directory.is_none()
        {
            self.put(new)?;
        }
        if old_directory.is_some() || new_directory.is_some() {
            self.descend(name, old_directory, new_directory)?;
        }
        Ok(())
    }

    fn descend(&mut self, name: &[u8], old: Option<ObjectId>, new: Option<ObjectId>) -> Result<(), Stop> {
        let length = self.path.len();
        self.path.extend_from_slice(name);
        let fault = if new.is_some() { directory_fault(self.path.len(), self.depth, name) } else { None };
        if let Some(reason) = fault {
            // All beneath it is refused with it.
            let path = self.path.clone();
            self.refused.add(&path, reason);
        } else if self.depth >= MAX_SEGMENTS {
            return Err(Stop::OldSide); // a new one so deep has a fault
        } else {
            self.path.push(b'/');
            self.depth += 1;
            self.directory(old, new)?;
            self.depth -= 1;
        }
        self.path.truncate(length);
        Ok(())
    }

    /// Puts a file, or refuses it.
    fn put(&mut self, item: Item<'_>) -> Result<(), SourceError> {
        self.files += 1;
        let limit = self.place.limits.files;
        if self.files > limit {
            return Err(SourceError::TooManyFiles { path: self.place.path.clone(), limit });
        }
        let path = [&self.path[..], item.name].concat();
        match self.file(&path, item) {
            Ok(file) => self.changes.push(Change::Put(file)),
            Err(reason) => self.refused.add(&path, reason),
        }
        Ok(())
    }

    fn file(&self, path: &[u8], item: Item<'_>) -> Result<SourceFile, Refusal> {
        let path = ConfigPath::from_bytes(path).map_err(|error| Refusal::Path(error.reason))?;
        let name = std::str::from_utf8(item.name).unwrap_or_default();
        if name.contains('/') {
            return Err(Refusal::Slash);
        }
        if is_dot_git(name) {
            return Err(Refusal::DotGit);
        }
        let kind = match what_is(item.mode) {
            What::File(kind) => kind,
            What::Submodule => return Err(Refusal::Submodule),
            What::Directory | What::Unknown => return Err(Refusal::Mode(item.mode.into())),
        };
        let id = item.id.to_owned();
        let header = match self.source.repository.try_find_header(id) {
            Ok(Some(header)) => header,
            _ => return Err(Refusal::Missing(id.to_string())),
        };
        if header.kind() != Kind::Blob {
            return Err(Refusal::WrongObject(id.to_string()));
        }
        let (size, limit) = (header.size(), self.place.limits.file_size);
        if kind == FileKind::Symlink {
            self.check_link(&path, id, size)?;
        } else if size > limit {
            return Err(Refusal::TooLarge { size, limit });
        }
        Ok(SourceFile { path, kind, size, handle: Handle::Object(id) })
    }

    fn check_link(&self, path: &ConfigPath, id: ObjectId, size: u64) -> Result<(), Refusal> {
        if size > MAX_SYMLINK as u64 {
            return Err(Refusal::Link(PathFault::TooLong));
        }
        let target = self.source.repository.find_object(id);
        let target = target.map_err(|_| Refusal::Missing(id.to_string()))?;
        check_target(path, &target.data)
    }
}
