//! What of a view is at fixed places of the host: links into `current`, and copies.

mod placing;

pub use placing::{Doing, Placing};

use super::{Allow, ServiceError, account};
use rootcast::codec;
use rootcast::limits::{MAX_DIFFERENCES, MAX_INSTALLED, MAX_INSTALLED_FILE};
use rootcast::service::{HostPath, How, Install, Services};
use rootcast_replica::durable;
use rustix::fs::OFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What is added to the name of a file that was there before.
const BEFORE: &str = ".before-rootcast";
/// How the file under way is called, beside its place.
const UNFINISHED: &str = ".writing-rootcast";
/// The file that names all places.
const MANIFEST: &str = "installed";

/// What an installing did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Installed {
    /// Files and links that were put in their places.
    pub written: u64,
    /// Places that were emptied, or given back to what was there before.
    pub removed: u64,
}

/// What is at places that are compared again.
#[derive(Debug, Default)]
pub struct Compared {
    /// Those that differed, and were put right if that was wanted.
    pub differing: Vec<PathBuf>,
    /// Those that differ and could not be put right.
    pub refused: Vec<(PathBuf, ServiceError)>,
}

/// What is to be at a place.
enum Want {
    Link(PathBuf),
    Copy { source: PathBuf, owner: (Option<u32>, Option<u32>), mode: u32 },
}

/// Brings about what services install.
pub struct Installer {
    directory: PathBuf,
    current: PathBuf,
}

fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ServiceError {
    move |source| ServiceError::Io { doing, path: path.to_owned(), source }
}

/// What is at a place, without following it.
fn look(path: &Path) -> Result<Option<Metadata>, ServiceError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(io("look at", path)(error)),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

impl Installer {
    /// One that remembers in `directory`, and has links lead through `current`, an absolute path.
    pub fn new(directory: PathBuf, current: PathBuf) -> Self {
        Self { directory, current }
    }

    /// Brings about what these services install of the tree at `root`, and takes away what others did. Blocking.
    ///
    /// # Errors
    /// Some of it may be done then; doing it again, or with other services, leaves nothing behind.
    pub fn apply(&self, services: &Services, root: &Path, allow: &Allow) -> Result<Installed, ServiceError> {
        let wanted = self.wanted(services, root)?;
        let before = self.remembered()?;
        for path in wanted.keys() {
            check_place(path, allow)?;
        }
        self.take(wanted.keys(), &before)?;
        let (mut done, mut touched) = (Installed::default(), BTreeSet::new());
        for (path, want) in &wanted {
            // Under a second name it is what was there before, and only looks like ours.
            if !is_right(path, want)? || look(path)?.is_some_and(|found| found.is_file() && found.nlink() > 1)
            {
                put(path, want)?;
                done.written += 1;
                touched.extend(path.parent().map(Path::to_owned));
            }
        }
        for path in before.iter().filter(|path| !wanted.contains_key(*path)) {
            // A link that somebody planted on the way must not choose what is removed.
            if let Err(error @ ServiceError::LedAway { .. }) = check_place(path, allow) {
                tracing::warn!(%error, "what was installed there is left");
                continue;
            }
            done.removed += u64::from(give_back(path)?);
            touched.extend(path.parent().map(Path::to_owned).filter(|parent| parent.is_dir()));
        }
        for directory in &touched {
            durable::sync_directory(directory).map_err(io("sync", directory))?;
        }
        if before.iter().any(|path| !wanted.contains_key(path)) {
            self.remember(&wanted.into_keys().collect())?;
        }
        Ok(done)
    }

    /// Those of these places that are not as these services have them installed of the tree at `root`, at
    /// most [`MAX_DIFFERENCES`]. Writes nothing. Blocking.
    ///
    /// # Errors
    /// When the tree, or accounts that are named, cannot be read.
    pub fn differing<'p>(
        &self,
        services: &Services,
        root: &Path,
        places: impl IntoIterator<Item = &'p Path>,
    ) -> Result<Vec<PathBuf>, ServiceError> {
        let wanted = self.wanted(services, root)?;
        let differs =
            |place: &&Path| !wanted.get(*place).is_some_and(|want| matches!(is_right(place, want), Ok(true)));
        Ok(places.into_iter().filter(differs).take(MAX_DIFFERENCES).map(Path::to_owned).collect())
    }

    /// Compares these places, and puts right what differs if `allow` is given: as [`Installer::apply`], but a place
    /// that cannot be put right is no hindrance to the others. Blocking.
    ///
    /// # Errors
    /// When the tree, or accounts that are named, cannot be read.
    pub fn compare(
        &self,
        services: &Services,
        root: &Path,
        places: &BTreeSet<PathBuf>,
        allow: Option<&Allow>,
    ) -> Result<Compared, ServiceError> {
        let wanted = self.wanted(services, root)?;
        let (mut compared, mut touched) = (Compared::default(), BTreeSet::new());
        for (path, want) in wanted.iter().filter(|(path, _)| places.contains(*path)) {
            let put_right = |allow| {
                check_place(path, allow)?;
                if !is_right(path, want)? {
                    self.take([path], &self.remembered()?)?;
                    put(path, want)?;
                }
                Ok(())
            };
            let outcome = match (is_right(path, want), allow) {
                (Ok(true), _) => continue,
                (_, Some(allow)) => put_right(allow),
                (_, None) => Ok(()),
            };
            match outcome {
                Ok(()) => {
                    touched.extend(path.parent().filter(|_| allow.is_some()));
                    compared.differing.push(path.clone());
                }
                Err(error) => compared.refused.push((path.clone(), error)),
            }
        }
        for directory in touched {
            if let Err(error) = durable::sync_directory(directory) {
                tracing::warn!(directory = %directory.display(), %error, "what was put right may not be durable");
            }
        }
        Ok(compared)
    }

    /// Makes places ours that were not: what was there is kept, and they are remembered before anything is written.
    fn take<'p>(
        &self,
        places: impl IntoIterator<Item = &'p PathBuf>,
        before: &BTreeSet<PathBuf>,
    ) -> Result<(), ServiceError> {
        let new: BTreeSet<&PathBuf> = places.into_iter().filter(|path| !before.contains(*path)).collect();
        for path in &new {
            keep_what_was_there(path)?;
        }
        if new.is_empty() {
            return Ok(());
        }
        self.remember(&before.iter().chain(new).cloned().collect())
    }

    /// What is to be where.
    fn wanted(&self, services: &Services, root: &Path) -> Result<BTreeMap<PathBuf, Want>, ServiceError> {
        let mut wanted = BTreeMap::new();
        for install in services.iter().flat_map(|service| &service.install) {
            let source = root.join(install.from.as_str());
            let Some(found) = look(&source)? else { continue };
            let to = PathBuf::from(install.to.as_str());
            match &install.how {
                How::Link => drop(wanted.insert(to, Want::Link(self.current.join(install.from.as_str())))),
                How::Copy { .. } => self.copies(install, root, to, found, &mut wanted)?,
            }
        }
        if let Some(long) = wanted.keys().find(|to| to.to_str().is_none_or(|to| HostPath::new(to).is_err())) {
            return Err(io("install", long)(io::Error::other("the path is too long")));
        }
        if wanted.len() > MAX_INSTALLED {
            let error = io::Error::other(format!("more than {MAX_INSTALLED} files are to be installed"));
            return Err(io("install", root)(error));
        }
        Ok(wanted)
    }

    /// A file that is copied, or each file of a directory.
    fn copies(
        &self,
        install: &Install,
        root: &Path,
        to: PathBuf,
        found: Metadata,
        wanted: &mut BTreeMap<PathBuf, Want>,
    ) -> Result<(), ServiceError> {
        let How::Copy { owner, group, mode } = &install.how else { return Ok(()) };
        let user = owner.as_ref().map(account::user).transpose()?;
        let gid = group.as_ref().map(account::group).transpose()?.or(user.map(|user| user.gid));
        let owner = (user.map(|user| user.uid), gid);
        let mut pending = vec![(PathBuf::from(install.from.as_str()), to, found)];
        while let Some((from, to, found)) = pending.pop().filter(|_| wanted.len() <= MAX_INSTALLED) {
            let source = root.join(&from);
            if found.is_dir() {
                for entry in fs::read_dir(&source).map_err(io("list", &source))? {
                    let entry = entry.map_err(io("list", &source))?;
                    let (name, found) = (entry.file_name(), entry.metadata());
                    let found = found.map_err(io("look at", &entry.path()))?;
                    pending.push((from.join(&name), to.join(&name), found));
                }
            } else if found.is_symlink() {
                // A secret among them; its bytes must not be copied to a disk.
                wanted.insert(to, Want::Link(self.current.join(from)));
            } else {
                let mode = mode.map_or(found.mode() & 0o777, u32::from);
                wanted.insert(to, Want::Copy { source, owner, mode });
            }
        }
        Ok(())
    }

    /// The places that may hold something installed.
    fn remembered(&self) -> Result<BTreeSet<PathBuf>, ServiceError> {
        let path = self.directory.join(MANIFEST);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(io("read", &path)(error)),
        };
        let places: Vec<HostPath> = codec::decode(&bytes, MAX_INSTALLED_FILE)
            .map_err(|error| io("read", &path)(io::Error::other(error)))?;
        Ok(places.iter().map(|place| PathBuf::from(place.as_str())).collect())
    }

    fn remember(&self, places: &BTreeSet<PathBuf>) -> Result<(), ServiceError> {
        let path = self.directory.join(MANIFEST);
        let texts: Vec<String> = places.iter().map(|place| place.to_string_lossy().into_owned()).collect();
        fs::create_dir_all(&self.directory).map_err(io("make", &self.directory))?;
        durable::replace(&path, &codec::encode(&texts), durable::PRIVATE).map_err(io("write", &path))
    }
}

/// Refuses a place that links lead out of what is permitted.
fn check_place(place: &Path, allow: &Allow) -> Result<(), ServiceError> {
    let led_away = || ServiceError::LedAway { path: place.to_owned() };
    let prefix = allow.install_prefix(place).ok_or_else(|| {
        let all = allow.install.iter().map(PathBuf::as_path).chain([place]);
        let all: Vec<String> = all.map(|path| format!("{:?}", path.display().to_string())).collect();
        let first = format!("{} differs from what is installed there", place.display());
        ServiceError::NotPermitted { first, lines: format!("install = [{}]", all.join(", ")) }
    })?;
    // The place itself may be permitted, as a single file.
    let beneath = if prefix == place { prefix.parent().unwrap_or(prefix) } else { prefix };
    let Some(there) = place.ancestors().skip(1).find(|above| above.exists()) else { return Err(led_away()) };
    if !there.starts_with(beneath) {
        // The permitted directory is still to be made.
        return Ok(());
    }
    let real = |path: &Path| fs::canonicalize(path).map_err(io("look at", path));
    let real_there = real(there)?;
    let permitted = allow.install.iter().filter_map(|prefix| fs::canonicalize(prefix).ok());
    if real_there.starts_with(real(beneath)?)
        || permitted.into_iter().any(|allowed| real_there.starts_with(allowed))
    {
        return Ok(());
    }
    Err(led_away())
}

/// Gives a file that Rootcast did not make a second name, before its place is taken.
fn keep_what_was_there(path: &Path) -> Result<(), ServiceError> {
    match look(path)? {
        None => Ok(()),
        Some(found) if found.is_dir() => {
            Err(ServiceError::Foreign { path: path.to_owned(), found: "a directory" })
        }
        Some(_) => {
            let kept = beside(path, BEFORE);
            match fs::hard_link(path, &kept) {
                Ok(()) => durable::sync_directory(path.parent().unwrap_or(path)).map_err(io("sync", path)),
                // Of an earlier time; that one is what was there before.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(io("keep", path)(error)),
            }
        }
    }
}

/// Whether what is wanted is at a place, and is as it should be.
fn is_right(path: &Path, want: &Want) -> Result<bool, ServiceError> {
    let Some(found) = look(path)? else { return Ok(false) };
    if found.is_dir() {
        return Err(ServiceError::Foreign { path: path.to_owned(), found: "a directory" });
    }
    match want {
        Want::Link(target) => Ok(found.is_symlink() && fs::read_link(path).is_ok_and(|text| text == *target)),
        Want::Copy { source, owner: (uid, gid), mode } => {
            // What nobody is named for is the agent's own; its group may be that of its directory.
            let uid = uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
            let is_owned = uid == found.uid() && gid.is_none_or(|gid| gid == found.gid());
            let is_alike = found.is_file() && found.mode() & 0o7777 == *mode && is_owned;
            Ok(is_alike && same(path, source, found.len())?)
        }
    }
}

/// Whether two files have the same bytes.
fn same(one: &Path, other: &Path, length: u64) -> Result<bool, ServiceError> {
    // Should something else have taken the place of the file just looked at, it is neither followed nor waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut how = OpenOptions::new();
    how.read(true).custom_flags(flags.bits() as i32);
    let open = |path: &Path| how.open(path).map_err(io("read", path));
    let (mut one_file, mut other_file) = (open(one)?, open(other)?);
    if other_file.metadata().map_err(io("look at", other))?.len() != length {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let count = one_file.read(&mut left).map_err(io("read", one))?;
        if count == 0 {
            return Ok(true);
        }
        let (left, right) =
            (left.get(..count).unwrap_or_default(), right.get_mut(..count).unwrap_or_default());
        if other_file.read_exact(right).is_err() || left != right {
            return Ok(false);
        }
    }
}

/// Makes what is wanted beside its place, and puts it there.
fn put(path: &Path, want: &Want) -> Result<(), ServiceError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(io("make", parent))?;
    }
    let unfinished = beside(path, UNFINISHED);
    if look(&unfinished)?.is_some() {
        fs::remove_file(&unfinished).map_err(io("remove", &unfinished))?;
    }
    let made = match want {
        Want::Link(target) => symlink(target, &unfinished).map_err(io("make link", &unfinished)),
        Want::Copy { source, owner, mode } => copy(source, &unfinished, *owner, *mode),
    };
    let placed = made.and_then(|()| fs::rename(&unfinished, path).map_err(io("put in place", path)));
    if placed.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    placed
}

fn copy(source: &Path, to: &Path, owner: (Option<u32>, Option<u32>), mode: u32) -> Result<(), ServiceError> {
    let mut from = File::open(source).map_err(io("read", source))?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(io("create", to))?;
    io::copy(&mut from, &mut file).map_err(io("write", to))?;
    if owner != (None, None) {
        std::os::unix::fs::fchown(&file, owner.0, owner.1).map_err(io("set the owner of", to))?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(io("set the mode of", to))?;
    file.sync_all().map_err(io("sync", to))
}

/// Empties a place, or puts back what was there before. Whether anything was done.
fn give_back(path: &Path) -> Result<bool, ServiceError> {
    let _ = fs::remove_file(beside(path, UNFINISHED));
    let kept = beside(path, BEFORE);
    if look(&kept)?.is_some() {
        fs::rename(&kept, path).map_err(io("put back", path))?;
        // Where it was never replaced, both are one file, and renaming leaves both names.
        let _ = fs::remove_file(&kept);
        return Ok(true);
    }
    match look(path)? {
        Some(found) if !found.is_dir() => fs::remove_file(path).map_err(io("remove", path)).map(|()| true),
        _ => Ok(false),
    }
}
