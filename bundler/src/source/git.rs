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
use std::path::Path;

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
        let mut source = Self { repository, revision: revision.to_owned(), commit: null, tree: null };
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
        let repository = self.repository.clone();
        let mut source = Self { repository, revision, commit: self.commit, tree: self.tree };
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
            repository: &self.repository,
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
        let shown = printable(path.as_str().as_bytes());
        let damaged = |source: Cause| damaged(place, format!("`{shown}`"), source);
        let mut at = Item { name: Vec::new(), mode: TREE, id: self.tree };
        for segment in path.segments() {
            if at.mode != TREE {
                return Ok(None);
            }
            let found = read_tree(&self.repository, at.id, u64::MAX).map_err(&damaged)?;
            match found.into_iter().find(|item| item.name == segment.as_bytes()) {
                Some(item) => at = item,
                None => return Ok(None),
            }
        }
        if !matches!(what_is(at.mode), What::File(FileKind::Regular | FileKind::Executable)) {
            return Err(SourceError::NotAFile { path: place.path.clone(), file: shown });
        }
        self.read_blob(at.id, place.limits.file_size).map(Some).map_err(damaged)
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    name: Vec<u8>,
    mode: u16,
    id: ObjectId,
}

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

/// The entries of a tree object, sorted by name; at most `limit`.
fn read_tree(repository: &gix::Repository, id: ObjectId, limit: u64) -> Result<Vec<Item>, Cause> {
    let object = repository.find_object(id)?;
    if object.kind != Kind::Tree {
        return Err(format!("object {id} is not a directory").into());
    }
    let mut items = Vec::new();
    for entry in TreeRefIter::from_bytes(&object.data, repository.object_hash()) {
        if items.len() as u64 > limit {
            break; // one over: the caller counts and refuses
        }
        let entry = entry?;
        let (name, mode) = (entry.filename.to_vec(), entry.mode.value());
        items.push(Item { name, mode, id: entry.oid.to_owned() });
    }
    // Git's own order is trusted no more than the rest of the object.
    items.sort_unstable();
    Ok(items)
}

/// The comparison of two trees, or of a tree with nothing.
struct Walk<'a> {
    repository: &'a gix::Repository,
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
        let old = match old {
            Some(id) => {
                let items = read_tree(self.repository, id, self.entries);
                let items = items.map_err(|_| Stop::OldSide)?;
                self.count(items).map_err(|_| Stop::OldSide)?
            }
            None => Vec::new(),
        };
        if old.windows(2).any(|pair| matches!(pair, [one, two] if one.name == two.name)) {
            return Err(Stop::OldSide);
        }
        let new = match new {
            Some(id) => {
                let items = read_tree(self.repository, id, self.entries).map_err(|source| {
                    let shown = printable(self.path.strip_suffix(b"/").unwrap_or(&self.path));
                    damaged(self.place, format!("directory `{shown}`"), source)
                });
                self.count(items?)?
            }
            None => Vec::new(),
        };
        let new = self.without_duplicates(new);
        let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.name.cmp(&new.name),
            };
            let old = if order.is_le() { old.next() } else { None };
            let new = if order.is_ge() { new.next() } else { None };
            self.entry(old, new)?;
        }
    }

    fn count(&mut self, items: Vec<Item>) -> Result<Vec<Item>, SourceError> {
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
    fn without_duplicates(&mut self, mut items: Vec<Item>) -> Vec<Item> {
        items.dedup_by(|later, first| {
            let same = later.name == first.name;
            if same {
                let path = [&self.path[..], &later.name].concat();
                self.refused.add(&path, Refusal::Duplicate);
            }
            same
        });
        items
    }

    /// Compares two entries of one name.
    fn entry(&mut self, old: Option<Item>, new: Option<Item>) -> Result<(), Stop> {
        let what = |item: &Option<Item>| item.as_ref().map(|item| what_is(item.mode));
        let (old_what, new_what) = (what(&old), what(&new));
        let id = |item: &Option<Item>| item.as_ref().map(|item| item.id);
        // Another mode that says the same is no change.
        if old_what == new_what && id(&old) == id(&new) && old_what != Some(What::Unknown) {
            return Ok(());
        }
        let Some(name) = new.as_ref().or(old.as_ref()).map(|item| item.name.clone()) else {
            return Ok(());
        };
        let directory_of = |what, item: &Option<Item>| {
            item.as_ref().filter(|_| what == Some(What::Directory)).map(|item| item.id)
        };
        let old_directory = directory_of(old_what, &old);
        let new_directory = directory_of(new_what, &new);
        if let (Some(What::File(_)), None | Some(What::Directory)) = (old_what, new_what) {
            let path = [&self.path[..], &name].concat();
            let path = ConfigPath::from_bytes(&path).map_err(|_| Stop::OldSide)?;
            self.changes.push(Change::Remove(path));
        }
        if let Some(new) = &new
            && new_directory.is_none()
        {
            self.put(new)?;
        }
        if old_directory.is_some() || new_directory.is_some() {
            self.descend(&name, old_directory, new_directory)?;
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
    fn put(&mut self, item: &Item) -> Result<(), SourceError> {
        self.files += 1;
        let limit = self.place.limits.files;
        if self.files > limit {
            return Err(SourceError::TooManyFiles { path: self.place.path.clone(), limit });
        }
        let path = [&self.path[..], &item.name].concat();
        match self.file(&path, item) {
            Ok(file) => self.changes.push(Change::Put(file)),
            Err(reason) => self.refused.add(&path, reason),
        }
        Ok(())
    }

    fn file(&self, path: &[u8], item: &Item) -> Result<SourceFile, Refusal> {
        let path = ConfigPath::from_bytes(path).map_err(|error| Refusal::Path(error.reason))?;
        let name = std::str::from_utf8(&item.name).unwrap_or_default();
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
        let header = match self.repository.try_find_header(item.id) {
            Ok(Some(header)) => header,
            _ => return Err(Refusal::Missing(item.id.to_string())),
        };
        if header.kind() != Kind::Blob {
            return Err(Refusal::WrongObject(item.id.to_string()));
        }
        let (size, limit) = (header.size(), self.place.limits.file_size);
        if kind == FileKind::Symlink {
            self.check_link(&path, item.id, size)?;
        } else if size > limit {
            return Err(Refusal::TooLarge { size, limit });
        }
        Ok(SourceFile { path, kind, size, handle: Handle::Object(item.id) })
    }

    fn check_link(&self, path: &ConfigPath, id: ObjectId, size: u64) -> Result<(), Refusal> {
        if size > MAX_SYMLINK as u64 {
            return Err(Refusal::Link(PathFault::TooLong));
        }
        let target = self.repository.find_object(id);
        let target = target.map_err(|_| Refusal::Missing(id.to_string()))?;
        check_target(path, &target.data)
    }
}
