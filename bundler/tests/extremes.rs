//! Commits at the edge: very many files, very large ones, everything changed,
//! moved or gone. Each is published and taken in by a host's replica whole,
//! or refused before anything is signed, with the limit in the message.
//!
//! The sizes here are small enough for every run; `--ignored` has the full ones.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests start git and measure time
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use rootcast::cose::{self, DocumentKind};
use rootcast::edit::{self, Summary};
use rootcast::id::{AuthorityHash, PlatformId, TrustHash};
use rootcast::path::ChannelName;
use rootcast::protocol::Interest;
use rootcast::tree::Totals;
use rootcast::trust::TrustChain;
use rootcast_bundler::config::Rootcast;
use rootcast_bundler::source::{Source, SourceLimits};
use rootcast_bundler::{CompileError, Founding, Making, PUBLISHER_KEY_FILE, Sealer};
use rootcast_keys::Signer;
use rootcast_replica::{Replica, Rule, Trusted, Update};
use rootcast_store::DiskStore;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

const PLATFORM: PlatformId = PlatformId::from_bytes([7; 16]);

/// A publisher with its repository, and one host.
struct Scene {
    home: tempfile::TempDir,
    signer: Signer,
    publisher: Replica,
    host: Replica,
    allow_empty: bool,
}

/// What one publication took.
struct Outcome {
    number: u64,
    edit_bytes: u64,
    files_changed: u64,
    summary: Summary,
    totals: Totals,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let channel = ChannelName::new("main").unwrap();
        let authority = AuthorityHash::from_bytes([9; 32]);
        let founding =
            Founding { platform: PLATFORM, authority, grant: &channel, issued: 1, expires: 1 << 40 };
        let (document, _) = founding.found(home.path(), None).unwrap();
        let payload = cose::unverified_payload(DocumentKind::Trust, &document).unwrap();
        let trust = Trusted::in_memory(TrustChain::pinned(&document, TrustHash::of(&payload)).unwrap());
        let replica = |name: &str| {
            let store = Arc::new(DiskStore::open(home.path().join(name)).unwrap());
            Replica::open(store, trust.clone(), channel.clone(), true, None).unwrap()
        };
        let (publisher, host) = (replica("publisher"), replica("host"));
        let signer = Signer::load(&home.path().join(PUBLISHER_KEY_FILE), PLATFORM).unwrap();
        let status =
            git(home.path()).args(["init", "--bare", "--initial-branch=main", "source.git"]).status();
        assert!(status.unwrap().success());
        Self { home, signer, publisher, host, allow_empty: false }
    }

    /// Adds a commit: `write` writes `git fast-import` commands.
    fn commit(&self, write: impl FnOnce(&mut Commit)) {
        let repository = self.home.path().join("source.git");
        let mut import = git(&repository);
        let mut import =
            import.args(["fast-import", "--quiet", "--depth=1"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut commit = Commit(BufWriter::with_capacity(1 << 20, import.stdin.take().unwrap()));
        let parent = git(&repository).args(["rev-parse", "--verify", "--quiet", "main"]).status().unwrap();
        commit.line("commit refs/heads/main");
        commit.line("committer T <t@example.com> 1700000000 +0000");
        commit.line("data 0");
        if parent.success() {
            commit.line("from refs/heads/main^0");
        }
        write(&mut commit);
        commit.line("done");
        drop(commit);
        assert!(import.wait().unwrap().success());
    }

    /// Publishes the newest commit; the host takes it.
    fn publish(&self, what: &str) -> Result<Outcome, CompileError> {
        let begun = Instant::now();
        let mut source = Source::open(&self.home.path().join("source.git"), Some("main")).unwrap();
        let settings = Rootcast::read(&source)?;
        source.set_limits(SourceLimits { file_size: settings.limits.file_size, ..SourceLimits::default() });
        let making = Making {
            source: &source,
            settings: &settings,
            replica: &self.publisher,
            sealer: &Sealer::random().unwrap(),
            issued: 1,
            last: None,
            allow_empty: self.allow_empty,
            progress: &|_, _, _| {},
        };
        let signed = making.make(&self.signer)?;
        let made = begun.elapsed();
        let update = Update::of_publication(signed.publication.clone(), signed.edits.clone());
        self.publisher.receive(&update, &Interest::All, Rule::Own).unwrap();
        let begun = Instant::now();
        self.host.receive(&update, &Interest::All, Rule::Follow).unwrap();
        let taken = begun.elapsed();
        let (ours, theirs) = (self.publisher.held().unwrap(), self.host.held().unwrap());
        assert_eq!(ours.bundles.leaves(), theirs.bundles.leaves());
        let edit_bytes = signed.edits.iter().map(|edit| edit.len() as u64).sum();
        let summary = signed.edits.first().map(|edit| edit::summary(edit).unwrap()).unwrap_or_default();
        let totals = theirs.bundles.leaves().values().next().unwrap().totals();
        eprintln!(
            "{what}: {totals:?}, made in {made:.2?}, taken in {taken:.2?}, edits {edit_bytes} bytes, peak {} MiB",
            peak_mib()
        );
        let files_changed = signed.files_changed;
        Ok(Outcome { number: signed.number, edit_bytes, files_changed, summary, totals })
    }
}

struct Commit(BufWriter<ChildStdin>);

impl Commit {
    fn line(&mut self, line: &str) {
        writeln!(self.0, "{line}").unwrap();
    }
    fn file(&mut self, path: &str, content: &[u8]) {
        writeln!(self.0, "M 100644 inline {path}\ndata {}", content.len()).unwrap();
        self.0.write_all(content).unwrap();
        self.line("");
    }
}

fn git(at: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(at).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The peak of memory of this process, which with `--test-threads=1` and one test is that test's.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().split(' ').next().unwrap().parse::<u64>().unwrap() / 1024
}

/// Bytes that no compressor makes fewer, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    });
    words.flatten().take(length).collect()
}

fn text(seed: u64, length: usize) -> Vec<u8> {
    let line = |number: u64| {
        format!("setting_{number} = {}\n", (seed + number).wrapping_mul(2_654_435_761) % 10_000)
    };
    (0..).flat_map(|number| line(number).into_bytes()).take(length).collect()
}

fn path(number: u64) -> String {
    format!("top/team-{:03}/service-{:05}/part-{:02}.conf", number / 2000, number / 40, number % 40)
}

fn every_file_changed(files: u64) {
    let scene = Scene::new();
    scene.commit(|commit| (0..files).for_each(|number| commit.file(&path(number), &text(number, 1200))));
    let first = scene.publish("all files, first").unwrap();
    assert_eq!((first.files_changed, first.totals.files), (files, files));
    scene.commit(|commit| (0..files).for_each(|number| commit.file(&path(number), &text(number + 7, 1300))));
    let second = scene.publish("all files, changed").unwrap();
    assert_eq!((second.files_changed, second.summary.replaced), (files, files));
    assert!(second.edit_bytes < second.totals.bytes, "{} bytes", second.edit_bytes);
}

fn top_directory_renamed(files: u64) {
    let scene = Scene::new();
    scene.commit(|commit| (0..files).for_each(|number| commit.file(&path(number), &noise(number, 600))));
    scene.publish("before the rename").unwrap();
    scene.commit(|commit| commit.line("R top peak"));
    let renamed = scene.publish("top directory renamed").unwrap();
    assert_eq!((renamed.summary.copied, renamed.summary.deleted), (files, files));
    assert!(renamed.edit_bytes < files * 3 + 200, "{} bytes: not three for each file", renamed.edit_bytes);
}

fn everything_deleted(files: u64) {
    let mut scene = Scene::new();
    scene.commit(|commit| (0..files).for_each(|number| commit.file(&path(number), &text(number, 300))));
    scene.publish("before the deletion").unwrap();
    scene.commit(|commit| commit.line("deleteall"));
    let Err(refused) = scene.publish("everything deleted") else { panic!("must be refused") };
    assert!(refused.to_string().contains(&format!("would remove all {files} files")), "{refused}");
    assert_eq!(scene.publisher.held().unwrap().accepted().number, 1);
    scene.allow_empty = true;
    let emptied = scene.publish("everything deleted, as allowed").unwrap();
    assert_eq!((emptied.files_changed, emptied.totals), (files, Totals::default()));
    assert!(emptied.edit_bytes < 64, "{} bytes", emptied.edit_bytes);
}

fn one_large_file(length: usize, content: fn(u64, usize) -> Vec<u8>, compressible: bool) {
    let scene = Scene::new();
    let mut bytes = content(1, length);
    scene.commit(|commit| commit.file("large.bin", &bytes));
    let first = scene.publish("one large file").unwrap();
    // Frames of what does not compress are as long as it, with a little around.
    let most = if compressible { length as u64 / 2 } else { length as u64 + length as u64 / 1000 + 100 };
    assert!(first.edit_bytes < most, "{} bytes", first.edit_bytes);
    bytes.splice(length / 2..length / 2, *b"one more setting");
    scene.commit(|commit| commit.file("large.bin", &bytes));
    let changed = scene.publish("16 bytes inserted").unwrap();
    assert!(changed.edit_bytes < 4096, "{} bytes", changed.edit_bytes);
}

fn tiny_files(files: u64) {
    let scene = Scene::new();
    let tiny = |number: u64| format!("{number}\n").into_bytes();
    scene.commit(|commit| (0..files).for_each(|number| commit.file(&path(number), &tiny(number))));
    let first = scene.publish("tiny files").unwrap();
    assert_eq!(first.totals.files, files);
    assert!(first.edit_bytes < files * 8 + 1000, "{} bytes", first.edit_bytes);
    scene.commit(|commit| commit.file(&path(files / 2), b"changed\n"));
    let changed = scene.publish("one of them changed").unwrap();
    assert_eq!(changed.files_changed, 1);
    assert!(changed.edit_bytes < 64, "{} bytes", changed.edit_bytes);
}

#[test]
fn a_commit_that_changes_every_file() {
    every_file_changed(1500);
}

#[test]
fn a_commit_that_renames_the_top_directory_is_copies() {
    top_directory_renamed(1500);
}

#[test]
fn a_commit_that_deletes_everything_is_refused_and_small_when_allowed() {
    everything_deleted(500);
}

#[test]
fn a_commit_without_a_change_is_a_release_without_an_edit() {
    let scene = Scene::new();
    scene.commit(|commit| commit.file("a", b"one"));
    scene.publish("one file").unwrap();
    scene.commit(|_| {});
    let empty = scene.publish("an empty commit").unwrap();
    assert_eq!((empty.number, empty.edit_bytes, empty.files_changed), (2, 0, 0));
    assert_eq!(scene.host.held().unwrap().accepted().number, 2);
}

#[test]
fn a_large_file_that_compresses() {
    one_large_file(3 << 20, text, true);
}

#[test]
fn a_large_file_that_does_not_compress() {
    one_large_file(3 << 20, noise, false);
}

#[test]
fn many_tiny_files() {
    tiny_files(4000);
}

#[test]
fn binary_files_travel_at_their_size() {
    let scene = Scene::new();
    scene.commit(|commit| (0..300).for_each(|number| commit.file(&path(number), &noise(number, 5000))));
    let first = scene.publish("binary files").unwrap();
    assert!(first.edit_bytes < 300 * 5000 + 300 * 8 + 1000, "{} bytes", first.edit_bytes);
}

#[test]
fn threat_28_over_a_limit_nothing_is_signed_and_limit_and_value_are_named() {
    let cases = [
        ("bytes = 5000", "bundle `base` has 6000 bytes, over limits.bytes = 5000"),
        ("files = 2", "bundle `base` has 3 files, over limits.files = 2"),
        ("file_size = 1999", "2000 bytes"),
    ];
    for (limit, message) in cases {
        let scene = Scene::new();
        scene.commit(|commit| {
            commit.file("rootcast.toml", format!("[limits]\n{limit}\n").as_bytes());
            (0..3).for_each(|number| commit.file(&path(number), &text(number, 2000)));
        });
        let Err(refused) = scene.publish(limit) else { panic!("{limit} must be refused") };
        let (refused, value) = (refused.to_string(), limit.split(' ').next_back().unwrap_or_default());
        assert!(refused.contains(message) && refused.contains(value), "{limit}: {refused}");
        assert!(scene.publisher.held().is_none());
    }
}

#[test]
#[ignore = "full size: minutes"]
fn full_size_every_file_changed() {
    every_file_changed(100_000);
}

#[test]
#[ignore = "full size: minutes"]
fn full_size_top_directory_renamed() {
    top_directory_renamed(100_000);
}

#[test]
#[ignore = "full size: minutes"]
fn full_size_everything_deleted() {
    everything_deleted(100_000);
}

#[test]
#[ignore = "full size: minutes"]
fn full_size_large_file_that_compresses() {
    one_large_file(100 << 20, text, true);
}

#[test]
#[ignore = "full size: minutes"]
fn full_size_large_file_that_does_not_compress() {
    one_large_file(100 << 20, noise, false);
}

#[test]
#[ignore = "full size: minutes"]
fn full_size_tiny_files() {
    tiny_files(1_000_000);
}
