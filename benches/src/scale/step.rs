//! The steps: each takes up what the one before left in the directory.

use super::ScaleError;
use super::tree::{self, CHANGES, Shape};
use bytes::Bytes;
use clap::ValueEnum;
use rootcast::cose::{self, DocumentKind};
use rootcast::edit;
use rootcast::id::{AuthorityHash, ObjectId, PlatformId, TrustHash};
use rootcast::object::{ObjectSink, ObjectSource, WriteError};
use rootcast::path::ChannelName;
use rootcast::plan::base_bundle;
use rootcast::protocol::{Interest, Publication};
use rootcast::tree::{Changes, Tree, TreeError, empty_root, update};
use rootcast::trust::TrustChain;
use rootcast_agent::slots::Slots;
use rootcast_agent::{Activation, Required};
use rootcast_bundler::config::{DEFAULT_CHANNEL, Rootcast};
use rootcast_bundler::source::Source;
use rootcast_bundler::{CompileError, Founding, Making, PUBLISHER_KEY_FILE, Sealer, Signed};
use rootcast_keys::Signer;
use rootcast_replica::{Held, Replica, Rule, Trusted, Update};
use rootcast_store::DiskStore;
use rootcast_view::Variables;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PLATFORM: PlatformId = PlatformId::from_bytes([7; 16]);

/// One measurement.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Step {
    /// The source: a repository with a history.
    Tree,
    /// The first publication of the whole tree.
    Publish,
    /// The root, computed from all entries.
    Root,
    /// The snapshot for a host that has nothing.
    Snapshot,
    /// That snapshot, applied and made live on such a host.
    Apply,
    /// One changed file, again and again: published, applied, made live.
    Change,
    /// Every file changed at once: the same.
    Rewrite,
}

impl Step {
    pub(super) const ALL: [Self; 7] =
        [Self::Tree, Self::Publish, Self::Root, Self::Snapshot, Self::Apply, Self::Change, Self::Rewrite];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Publish => "publish",
            Self::Root => "root",
            Self::Snapshot => "snapshot",
            Self::Apply => "apply",
            Self::Change => "change",
            Self::Rewrite => "rewrite",
        }
    }

    /// Measures, in this process.
    pub(super) fn run(self, home: &Path, files: u64, shape: Shape) -> Result<Value, ScaleError> {
        let home = Home(home);
        let mut figures = match self {
            Self::Tree => tree::repository(&home.source_path(), files, shape).map(|()| json!({})),
            Self::Publish => publish(home, files),
            Self::Root => root(home),
            Self::Snapshot => snapshot(home),
            Self::Apply => apply(home, files),
            Self::Change => changes(home, 1..=CHANGES as usize, 1),
            Self::Rewrite => changes(home, CHANGES as usize + 1..=CHANGES as usize + 1, files),
        }?;
        if let Some(figures) = figures.as_object_mut() {
            figures.insert("peak_mib".to_owned(), peak_mib().into());
        }
        Ok(figures)
    }
}

/// The peak of this process's memory.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0).div_ceil(1024)
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(0.0)
}

fn timed<T, E: Into<ScaleError>>(work: impl FnOnce() -> Result<T, E>) -> Result<(T, f64), ScaleError> {
    let begun = Instant::now();
    let done = work().map_err(Into::into)?;
    Ok((done, milliseconds(begun.elapsed())))
}

/// The directory of one tree's measurements.
#[derive(Clone, Copy)]
struct Home<'a>(&'a Path);

impl Home<'_> {
    fn source_path(self) -> PathBuf {
        self.0.join("source.git")
    }

    fn source(self) -> Result<Source, ScaleError> {
        Ok(Source::open(&self.source_path(), Some("main")).map_err(CompileError::from)?)
    }

    /// Keys and trust document, made when they are first asked for.
    fn trust(self) -> Result<Arc<Trusted>, ScaleError> {
        let path = self.0.join("trust");
        if !path.exists() {
            let channel = ChannelName::new(DEFAULT_CHANNEL).map_err(ScaleError::core)?;
            let authority = AuthorityHash::from_bytes([9; 32]);
            let founding =
                Founding { platform: PLATFORM, authority, grant: &channel, issued: 1, expires: 1 << 40 };
            let (document, _) = founding.found(self.0, None).map_err(ScaleError::core)?;
            std::fs::write(&path, document).map_err(|source| ScaleError::io(&path, source))?;
        }
        let document = std::fs::read(&path).map_err(|source| ScaleError::io(&path, source))?;
        let payload = cose::unverified_payload(DocumentKind::Trust, &document).map_err(ScaleError::core)?;
        let fingerprint = TrustHash::of(&payload);
        let chain = TrustChain::pinned(&document, fingerprint).map_err(ScaleError::core)?;
        Ok(Trusted::in_memory(chain))
    }

    fn replica(self, name: &str) -> Result<Arc<Replica>, ScaleError> {
        let channel = ChannelName::new(DEFAULT_CHANNEL).map_err(ScaleError::core)?;
        let store = Arc::new(DiskStore::open(self.0.join(name))?);
        Ok(Arc::new(Replica::open(store, self.trust()?, channel, false, None)?))
    }

    fn activation(self, replica: &Arc<Replica>) -> Result<Activation, ScaleError> {
        let live = self.0.join("live");
        std::fs::create_dir_all(&live).map_err(|source| ScaleError::io(&live, source))?;
        let variables = Variables { labels: labels(), ..Variables::default() };
        Ok(Activation::new(replica.clone(), variables, Slots::open(&live)?))
    }
}

/// What makes releases of one source.
struct Bench<'a> {
    replica: &'a Arc<Replica>,
    signer: Signer,
    sealer: Sealer,
}

impl<'a> Bench<'a> {
    fn new(home: Home<'_>, replica: &'a Arc<Replica>) -> Result<Self, ScaleError> {
        let signer = Signer::load(&home.0.join(PUBLISHER_KEY_FILE), PLATFORM).map_err(ScaleError::core)?;
        let sealer = Sealer::random().map_err(ScaleError::core)?;
        Ok(Self { replica, signer, sealer })
    }

    /// Compiles and signs; how long each took.
    fn make(&self, source: &Source) -> Result<(Signed, f64, f64), ScaleError> {
        let begun = Instant::now();
        let settings = Rootcast::read(source).map_err(CompileError::from)?;
        let making = Making {
            source,
            settings: &settings,
            replica: self.replica,
            sealer: &self.sealer,
            issued: 1,
            last: None,
            allow_empty: false,
            progress: &|_, _, _| {},
        };
        let compiled = making.compile()?;
        let compiling = milliseconds(begun.elapsed());
        let (signed, signing) = timed(|| making.sign(&compiled, &self.signer))?;
        Ok((signed, compiling, signing))
    }

    fn adopt(&self, signed: &Signed) -> Result<Update, ScaleError> {
        let update = Update::of_publication(signed.publication.clone(), signed.edits.clone());
        self.replica.receive(&update, &Interest::All, Rule::Own)?;
        Ok(update)
    }
}

fn publish(home: Home<'_>, files: u64) -> Result<Value, ScaleError> {
    let replica = home.replica("publisher")?;
    let bench = Bench::new(home, &replica)?;
    let source = home.source()?;
    let commits = source.first_parents(CHANGES as usize + 2).map_err(CompileError::from)?;
    let first = commits.first().ok_or(ScaleError::Wrong("the repository has no commit"))?;
    let source = source.at(first).map_err(CompileError::from)?;
    let (signed, compile_ms, sign_ms) = bench.make(&source)?;
    if signed.files_changed != files {
        return Err(ScaleError::Wrong("the first release has not all files"));
    }
    let edit_bytes: usize = signed.edits.iter().map(|edit| edit.len()).sum();
    bench.adopt(&signed)?;
    Ok(json!({ "compile_ms": compile_ms, "sign_ms": sign_ms, "edit_bytes": edit_bytes }))
}

fn held(replica: &Replica) -> Result<Arc<Held>, ScaleError> {
    replica.held().ok_or(ScaleError::Wrong("nothing is held"))
}

/// Where new nodes go that nobody needs.
struct Nowhere;

impl ObjectSink for Nowhere {
    fn write(&mut self, _: ObjectId, _: Bytes) -> Result<(), WriteError> {
        Ok(())
    }
}

fn root(home: Home<'_>) -> Result<Value, ScaleError> {
    let replica = home.replica("publisher")?;
    let objects: &dyn ObjectSource = &**replica.store();
    let leaf = held(&replica)?.bundles.leaf(&base_bundle().map_err(ScaleError::core)?).cloned();
    let leaf = leaf.ok_or(ScaleError::Wrong("there is no base"))?;
    let mut entries = Changes::new();
    let ((), walk_ms) = timed(|| {
        let walked = Tree::open(objects, leaf.root).and_then(|tree| {
            tree.walk::<TreeError>(|path, entry| {
                entries.insert(path, Some(entry));
                Ok(())
            })
        });
        walked.map_err(ScaleError::core)
    })?;
    let anew = || update(objects, empty_root(), &entries, &mut Nowhere).map_err(ScaleError::core);
    let (made, root_ms) = timed(anew)?;
    if made != (leaf.root, leaf.totals()) {
        return Err(ScaleError::Wrong("the root computed anew is another"));
    }
    Ok(json!({ "walk_ms": walk_ms, "root_ms": root_ms }))
}

fn snapshot_path(home: Home<'_>, sequence: usize) -> PathBuf {
    home.0.join(format!("snapshot-{sequence}"))
}

fn snapshot(home: Home<'_>) -> Result<Value, ScaleError> {
    let replica = home.replica("publisher")?;
    let objects: &dyn ObjectSource = &**replica.store();
    let (mut encode_ms, mut edit_bytes) = (0.0, 0);
    for (at, leaf) in held(&replica)?.bundles.leaves().values().enumerate() {
        let encode = || edit::encode((objects, empty_root()), (objects, leaf.root)).map_err(ScaleError::core);
        let (edit, ms) = timed(encode)?;
        encode_ms += ms;
        edit_bytes += edit.len();
        let path = snapshot_path(home, at);
        std::fs::write(&path, &edit).map_err(|source| ScaleError::io(&path, source))?;
    }
    Ok(json!({ "encode_ms": encode_ms, "edit_bytes": edit_bytes }))
}

/// What a host that has nothing is sent.
fn snapshot_update(home: Home<'_>) -> Result<Update, ScaleError> {
    let publisher = home.replica("publisher")?;
    let held = held(&publisher)?;
    let leaves: Vec<_> = held.bundles.leaves().values().cloned().collect();
    let mut edits = Vec::new();
    for at in 0..leaves.len() {
        let path = snapshot_path(home, at);
        edits.push(Bytes::from(std::fs::read(&path).map_err(|source| ScaleError::io(&path, source))?));
    }
    let lengths = edits.iter().map(|edit| Some(edit.len() as u64)).collect();
    let (channel, release) = (publisher.channel().clone(), held.bundles.release().document().clone());
    Ok(Update::of_publication(Publication { channel, release, leaves, edits: lengths }, edits))
}

/// The labels of the one host.
fn labels() -> BTreeMap<String, String> {
    [("region", "eu"), ("role", "web")].map(|(label, value)| (label.to_owned(), value.to_owned())).into()
}

/// What that host asks for before it knows any plan.
fn interest() -> Result<Interest, ScaleError> {
    Ok(Interest::named(Required::at_first(&labels())?))
}

fn apply(home: Home<'_>, files: u64) -> Result<Value, ScaleError> {
    let update = snapshot_update(home)?;
    let replica = home.replica("agent")?;
    let interest = interest()?;
    let (_, receive_ms) = timed(|| replica.receive(&update, &interest, Rule::Follow))?;
    drop(update);
    let held = held(&replica)?;
    let receive_peak = peak_mib();
    let mut activation = home.activation(&replica)?;
    let required = activation.required(&held)?;
    let (live, activate_ms) = timed(|| activation.activate(&held, &required))?;
    if live.files != files || live.report.written != files {
        return Err(ScaleError::Wrong("not all files became live"));
    }
    Ok(json!({ "receive_ms": receive_ms, "receive_peak_mib": receive_peak, "activate_ms": activate_ms }))
}

/// Publishes, applies and makes live these commits, each of which changes so many files.
fn changes(home: Home<'_>, which: RangeInclusive<usize>, files: u64) -> Result<Value, ScaleError> {
    let (publisher, agent) = (home.replica("publisher")?, home.replica("agent")?);
    let bench = Bench::new(home, &publisher)?;
    let interest = interest()?;
    let mut activation = home.activation(&agent)?;
    let first = held(&agent)?;
    let ((), adopt_ms) = timed(|| {
        activation.activate(&first, &activation.required(&first)?)?;
        activation.prepare_standby()
    })?;
    let source = home.source()?;
    let commits = source.first_parents(CHANGES as usize + 2).map_err(CompileError::from)?;
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut slot_syncs = 0;
    for commit in commits.get(which).unwrap_or_default() {
        let source = source.at(commit).map_err(CompileError::from)?;
        let (signed, compile_ms, sign_ms) = bench.make(&source)?;
        let edit_bytes: usize = signed.edits.iter().map(|edit| edit.len()).sum();
        let update = bench.adopt(&signed)?;
        let (_, receive_ms) = timed(|| agent.receive(&update, &interest, Rule::Follow))?;
        let now = held(&agent)?;
        let (live, activate_ms) = timed(|| activation.activate(&now, &activation.required(&now)?))?;
        let ((), collect_ms) = timed(|| agent.collect())?;
        // The standby is one release behind: it takes the files of that one too.
        if !live.flipped || !(files..=files + 1).contains(&live.report.written) {
            return Err(ScaleError::Wrong("other files were staged than those that changed"));
        }
        slot_syncs = live.report.syncs + 1;
        let figures = [
            ("compile_ms", compile_ms),
            ("sign_ms", sign_ms),
            ("publish_ms", compile_ms + sign_ms),
            ("edit_bytes", edit_bytes as f64),
            ("receive_ms", receive_ms),
            ("activate_ms", activate_ms),
            ("collect_ms", collect_ms),
            ("apply_ms", receive_ms + activate_ms),
        ];
        figures.into_iter().for_each(|(name, figure)| times.entry(name).or_default().push(figure));
    }
    let mut figures = json!({ "adopt_ms": adopt_ms, "slot_syncs": slot_syncs, "sync_ms": sync_ms(home)? });
    if let Some(figures) = figures.as_object_mut() {
        figures.extend(times.into_iter().map(|(name, times)| (name.to_owned(), median(times).into())));
    }
    Ok(figures)
}

/// The floor of a durable write here: 512 bytes over old ones, and `fdatasync`.
fn sync_ms(home: Home<'_>) -> Result<f64, ScaleError> {
    let path = home.0.join("floor");
    let failed = |source| ScaleError::io(&path, source);
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).map_err(failed)?;
    let mut times = Vec::new();
    for round in 0..32_u64 {
        let begun = Instant::now();
        file.write_all_at(&[round as u8; 512], 0).and_then(|()| file.sync_data()).map_err(failed)?;
        times.push(milliseconds(begun.elapsed()));
    }
    Ok(median(times))
}
