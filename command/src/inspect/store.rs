//! A state directory: its channels, releases, bundles, edits and files.

use super::document::{release_json, release_lines, show_edit};
use super::place::channels;
use super::{Arguments, Signatures, commit, signatures_json, signatures_outcome, signatures_text, utc};
use crate::failure::{Exit, Failure};
use crate::output::{Output, bytes, plain};
use rootcast::codec;
use rootcast::cose::{self, DocumentKind};
use rootcast::edit;
use rootcast::entry::{ChunkList, Content, Entry};
use rootcast::id::{BlobId, ReleaseHash};
use rootcast::limits::MAX_RECORD;
use rootcast::object::{ObjectSource, ReadError};
use rootcast::path::{BundleName, ChannelName, ConfigPath};
use rootcast::release::{BundleLeaf, Release};
use rootcast::tree::{Tree, TreeError};
use rootcast::trust::TrustChain;
use rootcast::verify::ReleaseRecord;
use rootcast_store::{DiskStore, Store};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(super) fn show(
    arguments: &Arguments,
    state: &Path,
    trust: Option<&TrustChain>,
    output: &Output,
) -> Result<(), Failure> {
    let mut channels = channels(state)?;
    if let Some(wanted) = &arguments.channel {
        channels.retain(|(name, _)| name.as_str() == wanted);
        if channels.is_empty() {
            return Err(Failure::new(
                Exit::Usage,
                format!("{} holds no channel `{}`", state.display(), plain(wanted)),
            ));
        }
    }
    let wants_one = arguments.release.is_some()
        || arguments.bundle.is_some()
        || arguments.edit.is_some()
        || arguments.file.is_some();
    if !wants_one {
        return overview(channels, trust, output);
    }
    let [(name, directory)] = channels.as_slice() else {
        let names: Vec<_> = channels.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!("{} holds several channels", state.display());
        return Err(Failure::new(Exit::Usage, message).next(format!("give --channel: {}", names.join(", "))));
    };
    let shown = Shown { name: name.clone(), store: DiskStore::open_read_only(directory)?, trust };
    if let Some(edit) = &arguments.edit {
        return shown.edit(edit, output);
    }
    let release = shown.release(match arguments.release {
        Some(number) => number,
        None => shown.store.latest_release().ok_or_else(|| shown.fail("no release is held yet"))?,
    })?;
    match (&arguments.bundle, &arguments.file) {
        (Some(bundle), _) => shown.bundle(&release, bundle, output),
        (None, Some(file)) => shown.file(&release, file, output),
        (None, None) => {
            print_release(&release, output);
            signatures_outcome(&release.signatures, &format!("release {}", release.release.number))
        }
    }
}

/// A channel's store, open to read.
struct Shown<'a> {
    name: ChannelName,
    store: DiskStore,
    trust: Option<&'a TrustChain>,
}

/// A release record, read.
struct Held {
    release: Release,
    hash: ReleaseHash,
    leaves: Vec<(u64, BundleLeaf)>,
    keys: Vec<String>,
    signatures: Signatures,
}

impl Shown<'_> {
    fn fail(&self, message: impl std::fmt::Display) -> Failure {
        Failure::new(
            Exit::Failure,
            format!("{}: {}", self.store.path().display(), plain(&message.to_string())),
        )
    }

    fn damaged(&self, message: impl std::fmt::Display) -> Failure {
        self.fail(message).next("rootcast verify PATH --identity DIR   names all that is damaged")
    }

    fn release(&self, number: u64) -> Result<Held, Failure> {
        let bytes = self.store.release(number)?.ok_or_else(|| {
            let (first, last) = (self.store.oldest_release(), self.store.latest_release());
            self.fail(match (first, last) {
                (Some(first), Some(last)) => {
                    format!("release {number} is not held; releases from {first} to {last} are")
                }
                _ => format!("release {number} is not held; no release is"),
            })
        })?;
        let refuse =
            |error: &dyn std::error::Error| self.damaged(format!("the record of release {number}: {error}"));
        let record: ReleaseRecord = codec::decode(&bytes, MAX_RECORD).map_err(|error| refuse(&error))?;
        let kind = DocumentKind::Release;
        let payload = cose::unverified_payload(kind, &record.document).map_err(|error| refuse(&error))?;
        let keys = cose::claimed_keys(kind, &record.document).map_err(|error| refuse(&error))?;
        let verify = |trust| record.verify(trust, &self.name).map(drop).map_err(|error| error.to_string());
        Ok(Held {
            release: Release::decode(&payload).map_err(|error| refuse(&error))?,
            hash: ReleaseHash::of(&payload),
            signatures: self.trust.map(verify),
            keys: keys.iter().map(ToString::to_string).collect(),
            leaves: record.leaves,
        })
    }

    fn tree(&self, release: &Held, bundle: &str) -> Result<Tree<'_, DiskStore>, Failure> {
        let leaf = release.leaves.iter().find(|(_, leaf)| leaf.name.as_str() == bundle).ok_or_else(|| {
            let names: Vec<_> = release.leaves.iter().map(|(_, leaf)| leaf.name.as_str()).collect();
            let number = release.release.number;
            let message = format!("release {number} has no bundle `{bundle}` here");
            self.fail(message).next(format!("bundles held: {}", names.join(", ")))
        })?;
        Tree::open(&self.store, leaf.1.root).map_err(|error| self.damaged(error))
    }

    fn bundle(&self, release: &Held, bundle: &str, output: &Output) -> Result<(), Failure> {
        let tree = self.tree(release, bundle)?;
        let walked = tree.walk::<TreeError>(|path, entry| {
            output.value(&entry_json(&path, &entry));
            output.line(entry_line(&path, &entry));
            Ok(())
        });
        walked.map_err(|error| self.damaged(error))?;
        signatures_outcome(&release.signatures, &format!("release {}", release.release.number))
    }

    fn edit(&self, wanted: &str, output: &Output) -> Result<(), Failure> {
        let usage = || {
            Failure::new(Exit::Usage, format!("--edit {}: want BUNDLE:SEQUENCE, as base:3", plain(wanted)))
        };
        let (bundle, sequence) = wanted.split_once(':').ok_or_else(usage)?;
        let bundle = BundleName::new(bundle).map_err(|_| usage())?;
        let sequence: u64 = sequence.parse().map_err(|_| usage())?;
        let edit = self.store.edit(&bundle, sequence)?.ok_or_else(|| {
            self.fail(format!("edit {sequence} of bundle {bundle} is not held"))
                .next("relays keep the edits of the releases they keep; agents and publishers keep none")
        })?;
        let summary = edit::summary(&edit).map_err(|error| self.damaged(error))?;
        show_edit(&summary, edit.len() as u64, output);
        Ok(())
    }

    fn file(&self, release: &Held, wanted: &str, output: &Output) -> Result<(), Failure> {
        let usage = |reason: &str| {
            Failure::new(Exit::Usage, format!("--file {}: {reason}, as base:nginx/nginx.conf", plain(wanted)))
        };
        let (bundle, path) = wanted.split_once(':').ok_or_else(|| usage("want BUNDLE:PATH"))?;
        let path = ConfigPath::new(path).map_err(|error| usage(&error.to_string()))?;
        let found = self.tree(release, bundle)?.get(&path).map_err(|error| self.damaged(error))?;
        let entry = found.ok_or_else(|| {
            self.fail(format!("bundle {bundle} of release {} has no {path}", release.release.number))
        })?;
        // Bytes of a release that does not verify are nobody's configuration.
        signatures_outcome(&release.signatures, &format!("release {}", release.release.number))?;
        if let Entry::Secret { .. } = entry {
            // Not even as it is encrypted: what is printed ends up in logs and tickets.
            output.value(&entry_json(&path, &entry));
            output.line(entry_line(&path, &entry));
            return Ok(());
        }
        if output.json {
            return self.file_json(&path, &entry, output);
        }
        let mut out = io::stdout().lock();
        let written = self.content(&entry, &mut |bytes| out.write_all(bytes))?.and_then(|()| out.flush());
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::io(Path::new("standard output"), &error))
            }
            _ => Ok(()),
        }
    }

    fn file_json(&self, path: &ConfigPath, entry: &Entry, output: &Output) -> Result<(), Failure> {
        let mut content = Vec::new();
        let written = self.content(entry, &mut |bytes| {
            content.extend_from_slice(bytes);
            Ok(())
        })?;
        written.map_err(|error| self.fail(error))?;
        let mut value = entry_json(path, entry);
        if let Some(fields) = value.as_object_mut() {
            match String::from_utf8(content) {
                Ok(text) => fields.insert("text".into(), text.into()),
                Err(error) => fields.insert("hex".into(), hex::encode(error.into_bytes()).into()),
            };
        }
        output.value(&value);
        Ok(())
    }

    /// Gives the content of an entry piece by piece; a link's is its target.
    /// The outer error is the store's, the inner one that of `take`.
    fn content(
        &self,
        entry: &Entry,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<()>, Failure> {
        let damaged = |error: ReadError| self.damaged(error);
        let blobs: Vec<BlobId> = match entry {
            Entry::Symlink { target } => return Ok(take(target.as_str().as_bytes())),
            Entry::Secret { .. } => return Ok(Ok(())),
            Entry::File { content: Content::Blob { id, .. }, .. } => vec![*id],
            Entry::File { content: Content::Chunked { id, size }, .. } => {
                let bytes = self.store.read(&(*id).into()).map_err(damaged)?;
                let list = ChunkList::decode(&bytes, *size).map_err(|error| self.damaged(error))?;
                list.0.iter().map(|chunk| chunk.id).collect()
            }
        };
        for id in blobs {
            let bytes = self.store.read(&id.into()).map_err(damaged)?;
            if let Err(error) = take(&bytes) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }
}

fn entry_json(path: &ConfigPath, entry: &Entry) -> Value {
    let path = path.as_str();
    match entry {
        Entry::Symlink { target } => {
            json!({ "path": path, "kind": "link", "size": entry.size(), "target": target.as_str() })
        }
        Entry::Secret { id, size } => {
            json!({ "path": path, "kind": "secret", "size": size, "blob": id.to_string() })
        }
        Entry::File { content, executable } => {
            let (name, id) = match content {
                Content::Blob { id, .. } => ("blob", id.to_string()),
                Content::Chunked { id, .. } => ("chunk_list", id.to_string()),
            };
            let mode = if *executable { "0755" } else { "0644" };
            json!({ "path": path, "kind": "file", "mode": mode, "size": content.size(), name: id })
        }
    }
}

fn entry_line(path: &ConfigPath, entry: &Entry) -> String {
    let path = plain(path.as_str());
    match entry {
        Entry::Symlink { target } => {
            format!("link {:>10} {:64} {path} -> {}", entry.size(), "", plain(target.as_str()))
        }
        Entry::Secret { id, size } => format!("0400 {size:>10} {id} {path} (secret, encrypted)"),
        Entry::File { content, executable } => {
            let mode = if *executable { "0755" } else { "0644" };
            let id = match content {
                Content::Blob { id, .. } => id.to_string(),
                Content::Chunked { id, .. } => id.to_string(),
            };
            format!("{mode} {:>10} {id} {path}", content.size())
        }
    }
}

fn print_release(held: &Held, output: &Output) {
    let leaf = |(index, leaf): &(u64, BundleLeaf)| {
        json!({
            "index": index, "name": leaf.name.as_str(), "sequence": leaf.sequence, "root": leaf.root.to_string(),
            "chain": leaf.chain.to_string(), "files": leaf.files, "bytes": leaf.bytes,
        })
    };
    let mut value = release_json(&held.release, held.hash);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("signed_by".into(), held.keys.clone().into());
        fields.insert("signatures".into(), signatures_json(&held.signatures));
        fields.insert("leaves".into(), held.leaves.iter().map(leaf).collect());
    }
    output.value(&value);
    release_lines(&held.release, held.hash, output);
    output.line(format!("{:12} {}", "signed by", held.keys.join(", ")));
    output.line(format!("{:12} {}", "signatures", signatures_text(&held.signatures)));
    for (index, leaf) in &held.leaves {
        output.line(format!("\nbundle {index}     {}", leaf.name));
        output.line(format!("  sequence   {}", leaf.sequence));
        output.line(format!("  root       {}", leaf.root));
        output.line(format!("  chain      {}", leaf.chain));
        output.line(format!("  files      {}, {}", leaf.files, bytes(leaf.bytes)));
    }
    let others = held.release.bundles.saturating_sub(held.leaves.len() as u64);
    if others > 0 {
        output.line(format!("\n{others} more bundles of this release are not held here"));
    }
}

fn overview(
    channels: Vec<(ChannelName, PathBuf)>,
    trust: Option<&TrustChain>,
    output: &Output,
) -> Result<(), Failure> {
    let (mut values, mut outcome) = (Vec::new(), Ok(()));
    for (name, directory) in channels {
        let shown = Shown { name, store: DiskStore::open_read_only(directory)?, trust };
        let floors = shown.store.floors();
        let stats = shown.store.stats();
        let floor =
            floors.release.map(|floor| json!({ "release": floor.number, "hash": floor.hash.to_string() }));
        output.line(format!("channel {}   {}", shown.name, shown.store.path().display()));
        output.line(match floors.release {
            Some(floor) => {
                format!("  floors: release {} {}, trust {}", floor.number, floor.hash, floors.trust_version)
            }
            None => "  floors: no release accepted yet".into(),
        });
        let (objects, edits, size) = (stats.objects, stats.edits, stats.bytes_on_disk);
        output.line(format!("  store: {objects} objects, {edits} edits, {}", bytes(size)));
        if trust.is_none() {
            output.line(format!("  signatures: {}", signatures_text(&None)));
        }
        let mut releases = Vec::new();
        for number in shown.store.releases() {
            match shown.release(number) {
                Ok(held) => {
                    releases.push(overview_release(&held, trust.is_some(), output));
                    if let Err(failure) = signatures_outcome(&held.signatures, &format!("release {number}")) {
                        outcome = Err(failure);
                    }
                }
                Err(failure) => {
                    output.line(format!("  release {number}  {}", failure.message));
                    releases.push(json!({ "release": number, "damaged": failure.message }));
                }
            }
        }
        values.push(json!({
            "channel": shown.name.as_str(), "floor": floor, "trust_version": floors.trust_version,
            "head_sequence": floors.head_sequence, "objects": objects, "edits": edits, "bytes": size,
            "releases": releases,
        }));
    }
    output.value(&json!({ "channels": values }));
    outcome
}

fn overview_release(held: &Held, checked: bool, output: &Output) -> Value {
    let release = &held.release;
    let hex = release.commit_hex();
    let short: String = commit(&hex).chars().take(if hex.is_empty() { 64 } else { 12 }).collect();
    let state = if checked { format!("  {}", signatures_text(&held.signatures)) } else { String::new() };
    output.line(format!(
        "  release {}  {}  commit {short}  {} bundles, {} files, {}{state}",
        release.number,
        utc(release.issued),
        release.bundles,
        release.files,
        bytes(release.bytes)
    ));
    json!({
        "release": release.number, "hash": held.hash.to_string(), "commit": hex, "issued": release.issued,
        "bundles": release.bundles, "files": release.files, "bytes": release.bytes,
        "signatures": signatures_json(&held.signatures),
    })
}
