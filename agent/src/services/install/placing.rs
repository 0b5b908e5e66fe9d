//! What installing would do at places of the host, told from a view that is not on the disk yet.

use super::{BEFORE, Installer, beside, check_place, io, look};
use crate::services::{Allow, ServiceError, account};
use rootcast::entry::{ChunkList, Content, Entry};
use rootcast::id::BlobId;
use rootcast::object::ObjectSource;
use rootcast::path::ConfigPath;
use rootcast::service::{How, Install, Services};
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self as std_io, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What would be done at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Nothing is there; something would be.
    Written,
    /// What Rootcast put there would be replaced.
    Replaced,
    /// What somebody else put there would be kept beside it, and replaced.
    TakenOver,
    /// What Rootcast put there would be removed.
    Removed,
    /// What was there before Rootcast would be put back.
    PutBack,
}

impl Doing {
    /// As it is told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Replaced => "replaced",
            Self::TakenOver => "taken over",
            Self::Removed => "removed",
            Self::PutBack => "put back",
        }
    }
}

/// A place at which something would be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placing {
    /// Where.
    pub place: PathBuf,
    /// What.
    pub doing: Doing,
    /// What of the view would be there then.
    pub from: Option<ConfigPath>,
}

/// What is to be at a place.
enum Foreseen<'v> {
    Link,
    Copy(&'v Content, (Option<u32>, Option<u32>), u32),
}

type View = BTreeMap<ConfigPath, Entry>;

impl Installer {
    /// What [`Installer::apply`] would do of a tree with these entries, in the order of the places. Reads only. Blocking.
    ///
    /// # Errors
    /// What it would fail with, as far as that can be told.
    pub fn foresee(
        &self,
        services: &Services,
        (view, objects): (&View, &dyn ObjectSource),
        allow: &Allow,
    ) -> Result<Vec<Placing>, ServiceError> {
        let mut wanted = BTreeMap::new();
        for install in services.iter().flat_map(|service| &service.install) {
            for (path, entry) in beneath(view, &install.from) {
                let Some((place, from)) = install.place_of(path) else { continue };
                wanted.insert(PathBuf::from(place), (from.clone(), foreseen(install, entry)?));
            }
        }
        let before = self.remembered()?;
        let mut placings = Vec::new();
        for (place, (from, want)) in &wanted {
            check_place(place, allow)?;
            let doing = match look(place)? {
                None => Doing::Written,
                Some(found) if found.is_dir() => {
                    return Err(ServiceError::Foreign { path: place.clone(), found: "a directory" });
                }
                // What is right already, but another's, is kept beside it all the same.
                Some(_) if !before.contains(place) => Doing::TakenOver,
                Some(found) if self.is_as_foreseen((place, &found), from, want, objects)? => continue,
                Some(_) => Doing::Replaced,
            };
            placings.push(Placing { place: place.clone(), doing, from: Some(from.clone()) });
        }
        for place in before.into_iter().filter(|place| !wanted.contains_key(place)) {
            let doing = match (look(&beside(&place, BEFORE))?, look(&place)?) {
                (Some(_), _) => Doing::PutBack,
                (None, Some(found)) if !found.is_dir() => Doing::Removed,
                (None, _) => continue,
            };
            placings.push(Placing { place, doing, from: None });
        }
        Ok(placings)
    }

    fn is_as_foreseen(
        &self,
        (place, found): (&Path, &Metadata),
        from: &ConfigPath,
        want: &Foreseen<'_>,
        objects: &dyn ObjectSource,
    ) -> Result<bool, ServiceError> {
        match want {
            Foreseen::Link => {
                let target = self.current.join(from.as_str());
                Ok(found.is_symlink() && fs::read_link(place).is_ok_and(|text| text == target))
            }
            Foreseen::Copy(content, (uid, gid), mode) => {
                let is_owned =
                    uid.is_none_or(|uid| uid == found.uid()) && gid.is_none_or(|gid| gid == found.gid());
                let is_alike = found.is_file() && found.mode() & 0o7777 == *mode && is_owned;
                Ok(is_alike
                    && found.len() == content.size()
                    && has(place, content, objects).map_err(io("read", place))?)
            }
        }
    }
}

/// What of a view is at a path or, where that is a directory, beneath it.
fn beneath<'v>(view: &'v View, path: &ConfigPath) -> Vec<(&'v ConfigPath, &'v Entry)> {
    if let Some((path, entry)) = view.get_key_value(path) {
        return vec![(path, entry)];
    }
    let within = format!("{path}/");
    let behind = view.range(path.clone()..).skip_while(|(path, _)| path.as_str() < within.as_str());
    behind.take_while(|(path, _)| path.as_str().starts_with(&within)).collect()
}

/// What an entry at or beneath `install.from` is to be in its place.
fn foreseen<'v>(install: &Install, entry: &'v Entry) -> Result<Foreseen<'v>, ServiceError> {
    let (How::Copy { owner, group, mode }, Entry::File { content, executable }) = (&install.how, entry)
    else {
        return Ok(Foreseen::Link);
    };
    let user = owner.as_ref().map(account::user).transpose()?;
    let gid = group.as_ref().map(account::group).transpose()?.or(user.map(|user| user.gid));
    let mode = mode.map_or(if *executable { 0o755 } else { 0o644 }, u32::from);
    Ok(Foreseen::Copy(content, (user.map(|user| user.uid), gid), mode))
}

/// Whether a file, whose length is right, has a content.
fn has(place: &Path, content: &Content, objects: &dyn ObjectSource) -> std_io::Result<bool> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(place)?;
    let mut is_next = |id: &BlobId, size: u64| {
        let mut bytes = Vec::new();
        Read::by_ref(&mut file as &mut File).take(size).read_to_end(&mut bytes)?;
        Ok::<_, std_io::Error>(BlobId::of(&bytes) == *id)
    };
    match content {
        Content::Blob { id, size } => is_next(id, *size),
        Content::Chunked { id, size } => {
            let list = objects.read(&(*id).into()).map_err(std_io::Error::other)?;
            let list = ChunkList::decode(&list, *size).map_err(std_io::Error::other)?;
            for chunk in list.0 {
                if !is_next(&chunk.id, chunk.size)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}
