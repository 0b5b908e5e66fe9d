//! One channel's store: every byte, every signature, every tree.

use crate::failure::{Exit, Failure};
use crate::output::{Output, plain};
use rootcast::codec;
use rootcast::entry::{Content, Entry};
use rootcast::id::{EditHash, ObjectId};
use rootcast::limits::MAX_RECORD;
use rootcast::object::{ObjectSource, ReadError};
use rootcast::path::ChannelName;
use rootcast::release::BundleLeaf;
use rootcast::tree::{Tree, TreeError};
use rootcast::trust::TrustChain;
use rootcast::verify::{ReleaseRecord, VerifiedBundles};
use rootcast_store::{Damage, DiskStore, RecordId, Stats, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// What a check of a store found.
pub(super) struct Checked {
    pub(super) name: ChannelName,
    /// The newest release that verifies; 0 for none.
    pub(super) newest: u64,
    /// Releases that verify.
    pub(super) releases: u64,
    pub(super) stats: Stats,
    /// One line for each thing that is not as it should be.
    pub(super) damage: Vec<String>,
}

/// A check under way.
pub(super) struct Checking<'a> {
    trust: &'a TrustChain,
    checked: Checked,
    /// Records that are known to be damaged already.
    named: BTreeSet<RecordId>,
    /// Objects that were looked at, in whatever release.
    seen: HashSet<ObjectId>,
}

impl<'a> Checking<'a> {
    pub(super) fn new(name: &ChannelName, trust: &'a TrustChain) -> Self {
        let checked = Checked {
            name: name.clone(),
            newest: 0,
            releases: 0,
            stats: Stats::default(),
            damage: Vec::new(),
        };
        Self { trust, checked, named: BTreeSet::new(), seen: HashSet::new() }
    }

    /// Reads the whole store, without its lock: its daemon may be running.
    pub(super) fn run(mut self, directory: &Path, output: &Output) -> Result<Checked, Failure> {
        let store = match DiskStore::open_read_only(directory) {
            Ok(store) => store,
            Err(error @ StoreError::Unreadable { .. }) => {
                self.found(error.to_string());
                return Ok(self.checked);
            }
            Err(error) => return Err(error.into()),
        };
        self.rehash(&store, output)?;
        let releases = self.records(&store)?;
        self.floors(&store, &releases);
        for bundles in releases.iter().rev() {
            for leaf in bundles.leaves().values() {
                self.tree(&store, bundles, leaf)?;
            }
        }
        self.log(&store, &releases)?;
        self.checked.stats = store.stats();
        self.checked.releases = releases.len() as u64;
        self.checked.newest = releases.last().map_or(0, |bundles| bundles.release().accepted().number);
        Ok(self.checked)
    }

    fn found(&mut self, what: String) {
        self.checked.damage.push(plain(&what));
    }

    /// Every record and every stretch of file.
    fn rehash(&mut self, store: &DiskStore, output: &Output) -> Result<(), Failure> {
        let bar = output.progress("verifying");
        let verified = store.verify(&mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let damage: BTreeSet<Damage> =
            verified?.into_iter().chain(store.found_at_open().iter().cloned()).collect();
        for damage in damage {
            self.found(damage.to_string());
            if let Damage::Record(record) = damage {
                self.named.insert(record);
            }
        }
        Ok(())
    }

    /// The releases that verify, oldest first.
    fn records(&mut self, store: &DiskStore) -> Result<Vec<VerifiedBundles>, Failure> {
        let mut releases = Vec::new();
        for number in store.releases() {
            let record = match store.release(number) {
                Ok(Some(record)) => record,
                // Dropped by a collection since the list was made.
                Ok(None) => continue,
                Err(StoreError::Damaged { record, .. }) => {
                    if self.named.insert(record.clone()) {
                        self.found(format!("{record} is damaged"));
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match self.record(number, &record) {
                Ok(bundles) => releases.push(bundles),
                Err(reason) => self.found(format!("release {number} does not verify: {reason}")),
            }
        }
        for pair in releases.windows(2) {
            let [before, after] = pair else { continue };
            let (accepted, next) = (before.release().accepted(), after.release());
            let number = next.accepted().number;
            if number == accepted.number + 1 && next.release().previous != Some(accepted.hash) {
                self.found(format!("release {number} does not follow the release {} held", accepted.number));
            }
        }
        Ok(releases)
    }

    fn record(&self, number: u64, record: &[u8]) -> Result<VerifiedBundles, String> {
        let record: ReleaseRecord = codec::decode(record, MAX_RECORD).map_err(|error| error.to_string())?;
        let bundles = record.verify(self.trust, &self.checked.name).map_err(|error| error.to_string())?;
        match bundles.release().accepted().number {
            got if got == number => Ok(bundles),
            got => Err(format!("it is release {got}")),
        }
    }

    /// The floors and the newest record say the same.
    fn floors(&mut self, store: &DiskStore, releases: &[VerifiedBundles]) {
        let floors = store.floors();
        let newest = releases.last().map(|bundles| bundles.release().accepted());
        match (floors.release, newest) {
            (None, None) => {}
            (Some(floor), Some(newest)) if floor == newest => {}
            (Some(floor), Some(newest)) if floor.number == newest.number => {
                self.found(format!("the floors name another release {} than the one held", floor.number));
            }
            (Some(floor), newest) if newest.is_none_or(|newest| newest.number < floor.number) => {
                self.found(format!(
                    "release {} was accepted, and no good record of it is held",
                    floor.number
                ));
            }
            (floor, _) => {
                let floor = floor.map_or(0, |floor| floor.number);
                self.found(format!("the floors are at release {floor}, below the newest release held"));
            }
        }
        let version = self.trust.newest().trust().version;
        if floors.trust_version > version {
            self.found(format!(
                "trust version {} was accepted, and the trust document given has version {version}",
                floors.trust_version
            ));
        }
    }

    /// One bundle's tree: totals as signed, and every object there and good.
    fn tree(
        &mut self,
        store: &DiskStore,
        bundles: &VerifiedBundles,
        leaf: &BundleLeaf,
    ) -> Result<(), Failure> {
        let at = format!("release {}, bundle {}", bundles.release().accepted().number, leaf.name);
        if self.seen.contains(&leaf.root.into()) {
            return Ok(());
        }
        let tree = match Tree::open(store, leaf.root) {
            Ok(tree) => tree,
            Err(error) => return self.unreadable(&at, leaf, error),
        };
        if tree.totals() != leaf.totals() {
            self.found(format!("{at}: the tree's totals are not those that were signed"));
        }
        let (mut missing, seen) = (BTreeSet::new(), &mut self.seen);
        let walked = tree.objects::<TreeError>(&mut |id| {
            if !seen.insert(id) {
                return Ok(false);
            }
            let there = match id {
                // Re-hashed already: what is damaged is not contained any more.
                ObjectId::Blob(_) => store.contains(&id),
                ObjectId::Node(_) | ObjectId::ChunkList(_) => match store.read(&id) {
                    Ok(_) => true,
                    Err(ReadError::Missing(_) | ReadError::Damaged(_)) => false,
                    Err(error) => return Err(error.into()),
                },
            };
            if !there {
                missing.insert(id);
            }
            Ok(there)
        });
        if let Err(error) = walked {
            self.unreadable(&at, leaf, error)?;
        }
        let paths = if missing.is_empty() { BTreeMap::new() } else { paths(&tree, &missing) };
        for id in missing {
            let path = paths.get(&id).map_or_else(String::new, |path| format!("{path}: "));
            self.found(format!("{at}: {path}{id} is missing or damaged"));
        }
        Ok(())
    }

    fn unreadable(&mut self, at: &str, leaf: &BundleLeaf, error: TreeError) -> Result<(), Failure> {
        self.seen.insert(leaf.root.into());
        if let TreeError::Read(ReadError::Failed { .. }) = error {
            return Err(Failure::new(Exit::Failure, format!("{at}: {error}")));
        }
        self.found(format!("{at}: {error}"));
        Ok(())
    }

    /// The edits that are kept are those that the log was signed with.
    fn log(&mut self, store: &DiskStore, releases: &[VerifiedBundles]) -> Result<(), Failure> {
        for pair in releases.windows(2) {
            let [before, after] = pair else { continue };
            for leaf in after.leaves().values() {
                let Some(old) = before.leaf(&leaf.name) else { continue };
                if old.sequence.checked_add(1) != Some(leaf.sequence) {
                    continue;
                }
                let edit = match store.edit(&leaf.name, leaf.sequence) {
                    Ok(Some(edit)) => edit,
                    // None is kept, or it is named already.
                    Ok(None) | Err(StoreError::Damaged { .. }) => continue,
                    Err(error) => return Err(error.into()),
                };
                if old.chain.next(&EditHash::of(&edit)) != leaf.chain {
                    self.found(format!(
                        "edit {} of bundle {} is not the one that was signed",
                        leaf.sequence, leaf.name
                    ));
                }
            }
        }
        Ok(())
    }
}

/// A path at which each of these objects stands, as far as the tree can be read.
fn paths(tree: &Tree<'_, DiskStore>, wanted: &BTreeSet<ObjectId>) -> BTreeMap<ObjectId, String> {
    let mut paths = BTreeMap::new();
    // Where the walk cannot go on, what it has found will do.
    let _ = tree.walk::<TreeError>(|path, entry| {
        let id = match entry {
            Entry::File { content: Content::Blob { id, .. }, .. } | Entry::Secret { id, .. } => {
                ObjectId::from(id)
            }
            Entry::File { content: Content::Chunked { id, .. }, .. } => ObjectId::from(id),
            Entry::Symlink { .. } => return Ok(()),
        };
        if wanted.contains(&id) {
            paths.entry(id).or_insert_with(|| path.to_string());
        }
        Ok(())
    });
    paths
}
