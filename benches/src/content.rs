//! What changed between two commits: the files themselves; and what programs
//! without a protocol make of the same step.

use crate::cost::Cost;
use crate::error::BenchError;
use crate::member::thread_cpu;
use rootcast::path::ConfigPath;
use rootcast_bundler::source::{Change, Changes, Source};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Level of what is packed for a wire without a protocol.
const LEVEL: i32 = 19;
/// Files before and after a new one that count as near it.
const NEAR_FILES: usize = 64;
/// Most bytes of all that is near.
const NEAR_BYTES: u64 = 2 << 20;
/// Bytes of a program's standard error that a message quotes.
const QUOTED: usize = 500;

/// A file that differs between two commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Its content in the earlier one; empty where it is new.
    pub(crate) old: Vec<u8>,
    /// Its content in the later one; empty where it is gone.
    pub(crate) new: Vec<u8>,
}

/// What changed, and what a coder may have beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The files that differ, in path order.
    pub(crate) files: Vec<Changed>,
    /// Contents of files of the earlier commit that stand near those that are new: they often resemble them.
    pub(crate) near: Vec<u8>,
}

/// What differs between two commits.
///
/// # Errors
/// When a commit cannot be read, or has what no host could be given.
pub(crate) fn changed(source: &Source, from: &str, to: &str) -> Result<Difference, BenchError> {
    let bytes = |commit: &str| hex::decode(commit).unwrap_or_default();
    let (from, to) = (source.at(&bytes(from))?, source.at(&bytes(to))?);
    let mut files: BTreeMap<ConfigPath, Changed> = BTreeMap::new();
    let both = [(&from, &to), (&to, &from)];
    for (side, (here, there)) in both.into_iter().enumerate() {
        let changes = match here.changes(there.commit())? {
            Changes::Since(changes) => changes,
            Changes::Full(files) => files.into_iter().map(Change::Put).collect(),
        };
        for change in changes {
            let Change::Put(file) = change else { continue };
            let content = here.read(&file)?;
            let none = || Changed { old: Vec::new(), new: Vec::new() };
            let changed = files.entry(file.path).or_insert_with(none);
            *(if side == 0 { &mut changed.old } else { &mut changed.new }) = content;
        }
    }
    let is_new = |changed: &Changed| changed.old.is_empty();
    let new: Vec<&ConfigPath> =
        files.iter().filter(|(_, changed)| is_new(changed)).map(|(path, _)| path).collect();
    let near = if new.is_empty() { Vec::new() } else { near(&from, &new)? };
    Ok(Difference { files: files.into_values().collect(), near })
}

/// Contents of the files of a commit around where new ones would stand, the nearest last.
fn near(from: &Source, new: &[&ConfigPath]) -> Result<Vec<u8>, BenchError> {
    let Changes::Full(all) = from.changes(&[])? else { return Ok(Vec::new()) };
    let mut distances: BTreeMap<usize, usize> = BTreeMap::new();
    for path in new {
        let place = all.partition_point(|file| file.path < **path);
        for at in place.saturating_sub(NEAR_FILES)..(place + NEAR_FILES).min(all.len()) {
            let distance = if at < place { place - at } else { at - place + 1 };
            let known = distances.entry(at).or_insert(distance);
            *known = distance.min(*known);
        }
    }
    let mut nearest: Vec<(usize, usize)> =
        distances.into_iter().map(|(at, distance)| (distance, at)).collect();
    nearest.sort_unstable();
    let (mut contents, mut left) = (Vec::new(), NEAR_BYTES);
    for file in nearest.iter().filter_map(|(_, at)| all.get(*at)) {
        let Some(rest) = left.checked_sub(file.size) else { continue };
        left = rest;
        contents.push(from.read(file)?);
    }
    contents.reverse();
    Ok(contents.concat())
}

/// Runs `git` over a repository and returns what it prints; `None` where it is not installed.
fn git(repository: &Path, arguments: &[&str]) -> Result<Option<Vec<u8>>, BenchError> {
    let failed = |what: String| BenchError::Program { program: format!("git {}", arguments.join(" ")), what };
    let output = Command::new("git")
        .arg("-C")
        .arg(repository)
        // Owned by another user, perhaps; it is only read.
        .args(["-c", "safe.directory=*", "-c", "core.quotePath=true"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(Some(output.stdout)),
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr);
            let quoted: String = error.trim().chars().take(QUOTED).collect();
            Err(failed(format!("{}: {quoted}", output.status)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// The changed lines of a step, without context and without the lines that only name objects.
pub(crate) fn bare_diff(repository: &Path, from: &str, to: &str) -> Result<Option<Vec<u8>>, BenchError> {
    let arguments =
        ["diff", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--binary", "-U0"];
    let Some(diff) = git(repository, &[&arguments[..], &[from, to]].concat())? else { return Ok(None) };
    let noise: [&[u8]; 4] = [b"diff --git ", b"index ", b"--- ", b"\\ No newline"];
    let mut bare = Vec::with_capacity(diff.len());
    for line in diff.split_inclusive(|byte| *byte == b'\n') {
        if !noise.iter().any(|start| line.starts_with(start)) {
            bare.extend_from_slice(line);
        }
    }
    Ok(Some(bare))
}

fn packed(repository: &Path, arguments: &[&str]) -> Result<Option<Cost>, BenchError> {
    let begun = Instant::now();
    let Some(bytes) = git(repository, arguments)? else { return Ok(None) };
    let before = thread_cpu();
    let packed = zstd::bulk::compress(&bytes, LEVEL)
        .map_err(|error| BenchError::Program { program: "zstd".into(), what: error.to_string() })?;
    let server_cpu = Some(thread_cpu().saturating_sub(before));
    let down = packed.len() as u64;
    Ok(Some(Cost { down, up: 0, round_trips: None, server_cpu, client_cpu: None, wall: begun.elapsed() }))
}

/// `git diff --binary | zstd -19`: a patch, and no word of how it travels. The
/// CPU time is that of packing. `None` where git is not installed.
///
/// # Errors
/// When git fails.
pub(crate) fn patch(repository: &Path, from: &str, to: &str) -> Result<Option<Cost>, BenchError> {
    packed(repository, &["diff", "--no-color", "--no-ext-diff", "--no-textconv", "--binary", from, to])
}

/// `tar | zstd -19` of a commit's tree. The CPU time is that of packing.
/// `None` where git is not installed.
///
/// # Errors
/// When git fails.
pub(crate) fn archive(repository: &Path, commit: &str) -> Result<Option<Cost>, BenchError> {
    packed(repository, &["archive", "--format=tar", commit])
}
