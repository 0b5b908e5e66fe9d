//! What a host should get, and the checks that are made before anything is written.

use super::error::SlotError;
use rootcast::entry::Entry;
use rootcast::path::ConfigPath;
use std::collections::BTreeMap;
use std::ops::Bound;

/// A host's resolved files, sorted by the bytes of their paths.
///
/// It is read more than once, and must be the same each time: once to refuse
/// what cannot be written, before anything is; then to remove; then to write.
pub trait View {
    /// The entries in ascending order. An error ends the use of the iterator.
    fn entries(&self) -> Entries<'_>;

    /// The entry at `path`, or those beneath it; all of them where it is empty.
    fn below<'a>(&'a self, path: &'a str) -> Entries<'a> {
        Box::new(self.entries().filter(move |item| item.as_ref().map_or(true, |(at, _)| is_below(path, at))))
    }
}

/// Entries in ascending order.
pub type Entries<'a> = Box<dyn Iterator<Item = Result<(ConfigPath, Entry), SlotError>> + 'a>;

fn is_below(path: &str, at: &ConfigPath) -> bool {
    let rest = at.as_str().strip_prefix(path);
    path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What of a view lies beneath a directory, with paths from there.
pub(super) struct Below<'a> {
    pub(super) view: &'a dyn View,
    pub(super) path: &'a str,
}

impl View for Below<'_> {
    fn entries(&self) -> Entries<'_> {
        let items = self.view.below(self.path);
        Box::new(items.filter_map(|item| match item {
            Err(error) => Some(Err(error)),
            Ok((path, entry)) => {
                let rest = path.as_str().strip_prefix(self.path)?.strip_prefix('/')?;
                Some(Ok((ConfigPath::new(rest).ok()?, entry)))
            }
        }))
    }
}

impl View for BTreeMap<ConfigPath, Entry> {
    fn entries(&self) -> Entries<'_> {
        Box::new(self.iter().map(|(path, entry)| Ok((path.clone(), entry.clone()))))
    }

    fn below<'a>(&'a self, path: &'a str) -> Entries<'a> {
        let from = self.range::<str, _>((Bound::Included(path), Bound::Unbounded));
        let near = from.take_while(move |(at, _)| at.as_str().starts_with(path));
        let below = near.filter(move |(at, _)| is_below(path, at));
        Box::new(below.map(|(path, entry)| Ok((path.clone(), entry.clone()))))
    }
}

/// What files take on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Bytes, each file rounded up to whole blocks.
    pub(super) bytes: u64,
    /// Files and links.
    pub(super) inodes: u64,
}

/// The unit of allocation that the estimates assume.
const BLOCK: u64 = 4096;

impl Totals {
    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes.next_multiple_of(BLOCK));
        self.inodes += 1;
    }
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            inodes: self.inodes.saturating_sub(other.inodes),
        }
    }
}

/// The checks of a sequence of entries, one at a time.
///
/// Memory is bounded by the longest path, except on a file system that folds
/// case, where every name has to be remembered.
#[derive(Default)]
pub(super) struct Checks {
    last: Option<ConfigPath>,
    /// Earlier paths that are a prefix of the last one, as text. In byte order all
    /// paths beginning with such a prefix are neighbours, so nothing else can lie beneath it.
    prefixes: Vec<ConfigPath>,
    folded: Option<BTreeMap<String, String>>,
    totals: Totals,
}

impl Checks {
    pub(super) fn new(folds: bool) -> Self {
        Self { folded: folds.then(BTreeMap::new), ..Self::default() }
    }

    /// Checks the next entry.
    pub(super) fn next(&mut self, path: &ConfigPath, entry: &Entry) -> Result<(), SlotError> {
        if self.last.as_ref().is_some_and(|last| last >= path) {
            return Err(SlotError::OutOfOrder { path: path.clone() });
        }
        while self.prefixes.last().is_some_and(|above| !path.as_str().starts_with(above.as_str())) {
            self.prefixes.pop();
        }
        // A longer prefix would lie beneath such a path itself, and have been refused.
        if let Some(above) = self.prefixes.last().filter(|above| above.is_above(path)) {
            return Err(SlotError::Conflict { above: above.clone(), below: path.clone() });
        }
        entry.check_at(path).map_err(SlotError::Link)?;
        self.no_twin(path)?;
        self.totals.add(size_on_disk(entry));
        self.prefixes.push(path.clone());
        self.last = Some(path.clone());
        Ok(())
    }

    /// Equal in lower case stands for equal on disk; Unicode forms are not compared.
    fn no_twin(&mut self, path: &ConfigPath) -> Result<(), SlotError> {
        let Some(folded) = &mut self.folded else { return Ok(()) };
        for name in path.parents().chain([path.as_str()]) {
            let one = folded.entry(name.to_lowercase()).or_insert_with(|| name.into());
            if one != name {
                return Err(SlotError::Twins { one: one.clone(), other: name.into() });
            }
        }
        Ok(())
    }

    /// What the entries take in all.
    pub(super) fn totals(&self) -> Totals {
        self.totals
    }
}

/// Checks a whole view and returns what it takes.
pub(super) fn check(view: &dyn View, folds: bool) -> Result<Totals, SlotError> {
    let mut checks = Checks::new(folds);
    for item in view.entries() {
        let (path, entry) = item?;
        checks.next(&path, &entry)?;
    }
    Ok(checks.totals())
}

/// Bytes that an entry takes in a slot: a secret is a link there.
pub(super) fn size_on_disk(entry: &Entry) -> u64 {
    match entry {
        Entry::File { .. } | Entry::Symlink { .. } => entry.size(),
        Entry::Secret { .. } => 1,
    }
}

/// The directories of a path, outermost first, and its last name.
pub(super) fn split(path: &ConfigPath) -> (impl Iterator<Item = &str>, &str) {
    let mut segments = path.segments();
    let name = segments.next_back().unwrap_or_default();
    (segments, name)
}
