//! Paths and names. A decoded one is a safe one: there is no other way to
//! make it, so nothing downstream checks again (specs/tree.md, T-3).

use crate::limits::{MAX_NAME, MAX_PATH, MAX_SEGMENT, MAX_SEGMENTS, MAX_SYMLINK};
use core::borrow::Borrow;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize};

/// Why text is not a path, link target or name that a bundle may hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}`: {reason}", text.escape_debug())]
pub struct PathError {
    /// The text, shortened.
    pub text: String,
    /// Which rule it breaks.
    pub reason: PathFault,
}

/// The rules that a path, link target or name can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Nothing at all.
    #[error("is empty")]
    Empty,
    /// Longer than the bound.
    #[error("is longer than {MAX_PATH} bytes")]
    TooLong,
    /// Begins with `/`.
    #[error("is absolute")]
    Absolute,
    /// `//`, or a `/` at the end.
    #[error("has an empty segment")]
    EmptySegment,
    /// `.` or `..`.
    #[error("has a `.` or `..` segment")]
    DotSegment,
    /// A segment that no file system here can name.
    #[error("has a segment longer than {MAX_SEGMENT} bytes")]
    SegmentTooLong,
    /// More segments than the bound.
    #[error("has more than {MAX_SEGMENTS} segments")]
    TooDeep,
    /// NUL, CR, LF or another control character.
    #[error("has a control character")]
    Control,
    /// Not UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
    /// A link out of its own bundle.
    #[error("is a link that leaves the bundle")]
    Escapes,
    /// A link that goes through a directory and up again.
    #[error("is a link with `..` after a name: that name may be a link itself, and lead out of the bundle")]
    ClimbsAfterName,
    /// A character that names do not have.
    #[error("may have only a-z, 0-9, `.`, `_`, `-`, and `/` between segments")]
    NameCharacter,
    /// A name over the bound.
    #[error("is longer than {MAX_NAME} bytes")]
    NameTooLong,
    /// Several segments where one is wanted.
    #[error("may not contain `/`")]
    Slash,
}

fn fault(text: &str, reason: PathFault) -> PathError {
    PathError { text: text.chars().take(120).collect(), reason }
}

fn check_path(text: &str) -> Result<(), PathFault> {
    if text.is_empty() {
        return Err(PathFault::Empty);
    }
    if text.len() > MAX_PATH {
        return Err(PathFault::TooLong);
    }
    if text.starts_with('/') {
        return Err(PathFault::Absolute);
    }
    if text.chars().any(char::is_control) {
        return Err(PathFault::Control);
    }
    let mut segments = 0;
    for segment in text.split('/') {
        segments += 1;
        match segment {
            "" => return Err(PathFault::EmptySegment),
            "." | ".." => return Err(PathFault::DotSegment),
            _ if segment.len() > MAX_SEGMENT => return Err(PathFault::SegmentTooLong),
            _ => {}
        }
    }
    if segments > MAX_SEGMENTS { Err(PathFault::TooDeep) } else { Ok(()) }
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks text and takes it.
            pub fn new(text: &str) -> Result<Self, PathError> {
                $check(text).map_err(|reason| fault(text, reason))?;
                Ok(Self(text.into()))
            }
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = PathError;
            fn from_str(text: &str) -> Result<Self, PathError> {
                Self::new(text)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

checked_text!(
    /// The path of a file inside a bundle: relative, UTF-8, no `.`, `..`,
    /// empty or over-long segment, no control character. Ordered by bytes.
    ConfigPath,
    check_path
);
checked_text!(
    /// The name of a channel: segments of `a-z 0-9 . _ -` joined by `/`.
    ChannelName,
    check_name
);
checked_text!(
    /// The name of a bundle: segments of `a-z 0-9 . _ -` joined by `/`, as `role/web`.
    BundleName,
    check_name
);

checked_text!(
    /// The name of a relay, host or publisher: one segment of `a-z 0-9 . _ -`.
    MemberName,
    check_member
);

fn check_member(text: &str) -> Result<(), PathFault> {
    check_name(text)?;
    if text.contains('/') { Err(PathFault::Slash) } else { Ok(()) }
}

fn check_name(text: &str) -> Result<(), PathFault> {
    if text.len() > MAX_NAME {
        return Err(PathFault::NameTooLong);
    }
    check_path(text)?;
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-' | '/');
    if text.chars().all(allowed) { Ok(()) } else { Err(PathFault::NameCharacter) }
}

impl ConfigPath {
    /// Checks bytes and takes them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PathError> {
        match core::str::from_utf8(bytes) {
            Ok(text) => Self::new(text),
            Err(_) => Err(fault(&String::from_utf8_lossy(bytes), PathFault::NotUtf8)),
        }
    }
    /// The segments, outermost first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
    /// Whether `self` is a directory that `other` lies in.
    pub fn is_above(&self, other: &Self) -> bool {
        other.0.strip_prefix(&*self.0).is_some_and(|rest| rest.starts_with('/'))
    }
    /// The directories above this path, outermost first.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').filter_map(|(at, _)| self.0.get(..at))
    }
}

impl ChannelName {
    /// Whether this name is `prefix` or lies under it, on a segment boundary:
    /// `team` covers `team/a` and not `team-b`.
    pub fn is_under(&self, prefix: &Self) -> bool {
        self == prefix || self.0.strip_prefix(&*prefix.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// The target of a symbolic link that stays inside its bundle.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct LinkTarget(Box<str>);

impl LinkTarget {
    /// Checks that a link at `path` with this target resolves inside the bundle.
    pub fn new(path: &ConfigPath, target: &str) -> Result<Self, PathError> {
        let link = Self::check_text(target)?;
        link.check_at(path)?;
        Ok(link)
    }

    fn check_text(target: &str) -> Result<Self, PathError> {
        let refuse = |reason| Err(fault(target, reason));
        if target.is_empty() {
            return refuse(PathFault::Empty);
        }
        if target.len() > MAX_SYMLINK {
            return refuse(PathFault::TooLong);
        }
        if target.starts_with('/') {
            return refuse(PathFault::Absolute);
        }
        if target.chars().any(char::is_control) {
            return refuse(PathFault::Control);
        }
        Ok(Self(target.into()))
    }

    /// Checks that a link at `path` with this target resolves inside the bundle.
    pub fn check_at(&self, path: &ConfigPath) -> Result<(), PathError> {
        // Directories above `path` are real, so `..` at the front climbs them one by one. What a
        // name leads to only the whole tree tells: it may be a link upwards.
        let mut above = path.segments().count() - 1;
        let mut named = false;
        for segment in self.0.split('/') {
            match segment {
                "" | "." => {}
                ".." if named => return Err(fault(&self.0, PathFault::ClimbsAfterName)),
                ".." if above == 0 => return Err(fault(&self.0, PathFault::Escapes)),
                ".." => above -= 1,
                _ => named = true,
            }
        }
        Ok(())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-> {:?}", self.0)
    }
}

impl<'de> Deserialize<'de> for LinkTarget {
    /// Text rules only; whoever knows the path calls [`LinkTarget::check_at`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::check_text(&text).map_err(serde::de::Error::custom)
    }
}
