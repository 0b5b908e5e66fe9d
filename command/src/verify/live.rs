//! What is live on a host against the view of the newest release it holds.
//! Reads only, and takes no lock: the agent may be running.

use crate::failure::{Exit, Failure};
use crate::output::plain;
use rootcast::codec;
use rootcast::entry::{ChunkList, Content, Entry};
use rootcast::id::{BlobId, NodeId};
use rootcast::limits::{MAX_DIFFERENCES, MAX_RECORD};
use rootcast::object::ObjectSource;
use rootcast::path::ConfigPath;
use rootcast::trust::TrustChain;
use rootcast::verify::ReleaseRecord;
use rootcast_agent::secrets::{SECRET_MODE, Secrets};
use rootcast_agent::{AgentConfig, AgentError, Required, load_decryption_key};
use rootcast_replica::Held;
use rootcast_store::{DiskStore, Store};
use rootcast_transport::{Identity, PeerName};
use rootcast_view::{Variables, Views};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What a comparison found.
pub(super) struct Compared {
    /// The link `current`.
    pub(super) path: PathBuf,
    /// The release compared with.
    pub(super) release: u64,
    /// Files of its view.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// How many differences there are.
    pub(super) found: u64,
    /// The first [`MAX_DIFFERENCES`] of them.
    pub(super) differences: Vec<String>,
}

type View = BTreeMap<ConfigPath, Entry>;

/// Tries at a comparison that no activation comes between.
const TRIES: usize = 5;

const FILE_MODE: u32 = 0o644;
const EXECUTABLE_MODE: u32 = 0o755;

/// Compares `current` of an agent.
pub(super) fn compare(agent: &AgentConfig, trust: &TrustChain) -> Result<Compared, Failure> {
    let current = agent.live.join("current");
    let mut tries = 0;
    loop {
        tries += 1;
        let target = fs::read_link(&current);
        let compared = compare_once(agent, trust, &current, target.as_ref().ok())?;
        // A slot is only rewritten after `current` has left it.
        if compared.found == 0 || tries == TRIES || fs::read_link(&current).ok() == target.ok() {
            return Ok(compared);
        }
    }
}

fn compare_once(
    agent: &AgentConfig,
    trust: &TrustChain,
    current: &Path,
    target: Option<&PathBuf>,
) -> Result<Compared, Failure> {
    let channel = agent.channel()?;
    let directory = agent.state.join("channels").join(channel.as_str().replace('/', "%"));
    let store = DiskStore::open_read_only(&directory)?;
    let mut compared = Compared {
        path: current.to_owned(),
        release: 0,
        files: 0,
        bytes: 0,
        found: 0,
        differences: Vec::new(),
    };
    let Some(held) = newest(&store, agent, trust)? else {
        if target.is_some() {
            compared.add("something is live, and no good release is held".into());
        }
        return Ok(compared);
    };
    compared.release = held.accepted().number;
    let identity = Identity::load(&agent.identity)?;
    let host = identity.name();
    let key = load_decryption_key(&agent.identity).map_err(AgentError::from)?;
    let secrets = Secrets::new(key, agent.secrets_directory(host.name()));
    let view = match view(&store, &held, (host, agent), &secrets) {
        Ok(view) => view,
        Err(failure) => {
            compared.add(failure.message);
            return Ok(compared);
        }
    };
    compared.files = view.len() as u64;
    compared.bytes = view.values().map(Entry::size).sum();
    match target {
        Some(target) if [Path::new("slots/a"), Path::new("slots/b")].contains(&target.as_path()) => {
            let slot = agent.live.join(target);
            Comparison { objects: &store, secrets: &secrets, compared: &mut compared }.slot(&slot, &view);
        }
        Some(target) => compared.add(format!("current is a link to {}, which is no slot", target.display())),
        None => compared.add("nothing is live: current is not there, or no link".into()),
    }
    Ok(compared)
}

/// The newest release whose record verifies.
pub(crate) fn newest(
    store: &DiskStore,
    agent: &AgentConfig,
    trust: &TrustChain,
) -> Result<Option<Held>, Failure> {
    let channel = agent.channel()?;
    for number in store.releases().into_iter().rev() {
        // What cannot be read or verified is named by the check of the store.
        let Ok(Some(bytes)) = store.release(number) else { continue };
        let Ok(record) = codec::decode::<ReleaseRecord>(&bytes, MAX_RECORD) else { continue };
        if let Ok(held) = Held::of_record(&record, trust, &channel) {
            return Ok(Some(held));
        }
    }
    Ok(None)
}

/// What this host should have of a release.
fn view(
    store: &DiskStore,
    held: &Held,
    (host, agent): (&PeerName, &AgentConfig),
    secrets: &Secrets,
) -> Result<View, Failure> {
    let failed = |message: String| Failure::new(Exit::Failure, message);
    let labels = host.labels().of_host(host.name());
    let required = Required::of(held, store, &labels)?;
    let mut roots: Vec<NodeId> = Vec::new();
    for layer in &required.layers {
        let root = held.bundles.root(layer);
        roots.push(root.ok_or_else(|| failed(format!("bundle {layer} of this host is not held")))?);
    }
    let variables = Variables { host: host.name().to_owned(), labels, facts: agent.facts.clone() };
    let views = Views::open(store, (&required.layers, &roots), &required.rules, &variables)
        .map_err(AgentError::from)?;
    let mut view = views.resolve().map_err(AgentError::from)?.entries;
    secrets.filter(&mut view, store).map_err(AgentError::from)?;
    Ok(view)
}

impl Compared {
    fn add(&mut self, difference: String) {
        self.found += 1;
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(plain(&difference));
        }
    }
}

struct Comparison<'a> {
    objects: &'a DiskStore,
    secrets: &'a Secrets,
    compared: &'a mut Compared,
}

impl Comparison<'_> {
    fn slot(&mut self, slot: &Path, view: &View) {
        let mut directories = BTreeSet::new();
        for path in view.keys() {
            directories.extend(path.parents().map(PathBuf::from));
        }
        directories.insert(PathBuf::new());
        for (path, entry) in view {
            let found = match entry {
                Entry::Secret { id, .. } => self.secret(&slot.join(path.as_str()), path, id),
                _ => self.entry(&slot.join(path.as_str()), entry),
            };
            match found {
                Ok(None) => {}
                Ok(Some(fault)) => self.compared.add(format!("{path}: {fault}")),
                Err(error) => self.compared.add(format!("{path}: {error}")),
            }
        }
        for directory in &directories {
            if let Err(error) = self.directory(slot, directory, &directories, view) {
                self.compared.add(format!("{}: {error}", directory.display()));
            }
        }
    }

    /// Lists a directory that the view has: nothing else may be in it.
    fn directory(
        &mut self,
        slot: &Path,
        at: &Path,
        known: &BTreeSet<PathBuf>,
        view: &View,
    ) -> io::Result<()> {
        let here = slot.join(at);
        let metadata = fs::symlink_metadata(&here)?;
        if !metadata.is_dir() {
            self.compared.add(format!("{}: is not a directory", at.display()));
            return Ok(());
        }
        if permissions(&metadata) != EXECUTABLE_MODE {
            self.compared.add(format!("{}/: has mode {:04o}", at.display(), permissions(&metadata)));
        }
        for entry in fs::read_dir(&here)? {
            let path = at.join(entry?.file_name());
            let expected = known.contains(&path) || path.to_str().is_some_and(|path| view.contains_key(path));
            if !expected {
                self.compared.add(format!("{}: does not belong here", path.display()));
            }
        }
        Ok(())
    }

    /// How what is at `path` differs from an entry.
    fn entry(&self, path: &Path, entry: &Entry) -> io::Result<Option<String>> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Some("is missing".into()));
            }
            Err(error) => return Err(error),
        };
        match entry {
            Entry::Symlink { target } if metadata.is_symlink() => {
                let same = fs::read_link(path)?.as_os_str() == target.as_str();
                Ok((!same).then(|| "is a link to something else".into()))
            }
            Entry::File { content, executable } if metadata.is_file() => {
                let wanted = if *executable { EXECUTABLE_MODE } else { FILE_MODE };
                if metadata.len() != content.size() || !self.content(path, content)? {
                    return Ok(Some("has other content".into()));
                }
                let mode = permissions(&metadata);
                Ok((mode != wanted).then(|| format!("has mode {mode:04o} instead of {wanted:04o}")))
            }
            Entry::Symlink { .. } | Entry::Secret { .. } => Ok(Some("is not a link".into())),
            Entry::File { .. } => Ok(Some("is not a file".into())),
        }
    }

    /// How the link at `at`, or the file in memory that it leads to, differs from a secret.
    fn secret(&self, at: &Path, path: &ConfigPath, id: &BlobId) -> io::Result<Option<String>> {
        let Some(file) = self.secrets.path().map(|directory| directory.join(id.to_string())) else {
            return Ok(Some("is a secret, and no directory is set for secrets".into()));
        };
        match fs::read_link(at) {
            Ok(target) if target == file => {}
            Ok(_) => return Ok(Some("is a link to something else".into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some("is missing".into())),
            Err(_) => return Ok(Some("is not a link".into())),
        }
        let metadata = match fs::symlink_metadata(&file) {
            Ok(metadata) if metadata.is_file() => metadata,
            _ => return Ok(Some("is a secret that is not in memory".into())),
        };
        let plaintext = self.secrets.decrypt(path, id, self.objects).map_err(io::Error::other)?;
        let mut same = metadata.len() == plaintext.len() as u64;
        if same {
            let mut found = Zeroizing::new(Vec::with_capacity(plaintext.len()));
            File::open(&file)?.take(plaintext.len() as u64).read_to_end(&mut found)?;
            same = **found == *plaintext;
        }
        let mode = permissions(&metadata);
        Ok(match same {
            false => Some("is a secret with other content in memory".into()),
            true if mode != SECRET_MODE => Some(format!("has mode {mode:04o} instead of {SECRET_MODE:04o}")),
            true => None,
        })
    }

    fn content(&self, path: &Path, content: &Content) -> io::Result<bool> {
        let mut file = File::open(path)?;
        match content {
            Content::Blob { id, size } => piece(&mut file, id, *size),
            Content::Chunked { id, size } => {
                let bytes = self.objects.read(&(*id).into()).map_err(io::Error::other)?;
                let list = ChunkList::decode(&bytes, *size).map_err(io::Error::other)?;
                for chunk in list.0 {
                    if !piece(&mut file, &chunk.id, chunk.size)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }
}

/// Whether the next `size` bytes are the blob.
fn piece(file: &mut File, id: &BlobId, size: u64) -> io::Result<bool> {
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    Ok(BlobId::of(&bytes) == *id)
}

fn permissions(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}
