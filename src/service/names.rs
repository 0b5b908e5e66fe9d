//! Names and places that services use, and what can be wrong with a service.

use crate::limits::{MAX_LABEL, MAX_PATH};
use core::fmt;
use serde::{Deserialize, Serialize};

/// Why a service cannot be one. Prints as one line, without the service's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceFault {
    /// Text that is no name.
    #[error("`{}` is no name of a {what}: {rule}", .text.escape_debug())]
    Name {
        /// The text, shortened.
        text: String,
        /// Of what.
        what: &'static str,
        /// What a name is.
        rule: &'static str,
    },
    /// Text that is no absolute path.
    #[error("`{}` is no absolute path without empty, `.` and `..` segments, of at most {MAX_PATH} bytes", .0.escape_debug())]
    Path(String),
    /// No pattern of files at all.
    #[error("has no `files`, so it would never run")]
    NoFiles,
    /// Over a limit.
    #[error("has more than {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// Hooks that are not in the order of their phases.
    #[error("has hooks out of the order of the phases")]
    OutOfOrder,
    /// Bits that are no permissions.
    #[error("has a mode beyond 0777")]
    Mode,
    /// It waits for one that is not there.
    #[error("is after `{after}`, which is no service")]
    UnknownAfter {
        /// The one that is not there.
        after: ServiceName,
    },
    /// Services that wait for each other.
    #[error("waits for itself: {}", .0.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(" -> "))]
    Cycle(Vec<ServiceName>),
    /// Two things at one place.
    #[error("installs `{to}`, where the service `{other}` installs something too")]
    InstalledTwice {
        /// The place.
        to: HostPath,
        /// The other service.
        other: ServiceName,
    },
    /// A placeholder in an argument that stands for nothing.
    #[error(
        "`{0}` stands for nothing; {{staged}} and {{current}} do, and `{{{0}}}` is the text `{0}` itself"
    )]
    Placeholder(String),
    /// A hook that cannot be one.
    #[error("{0}")]
    Hook(String),
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $is:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks text and takes it.
            ///
            /// # Errors
            #[doc = concat!("When it is not this: ", $rule, ".")]
            pub fn new(text: &str) -> Result<Self, ServiceFault> {
                let is: fn(&str) -> bool = $is;
                if is(text) {
                    return Ok(Self(text.to_owned()));
                }
                let text = text.chars().take(120).collect();
                Err(ServiceFault::Name { text, what: $what, rule: $rule })
            }
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = ServiceFault;
            fn try_from(text: String) -> Result<Self, ServiceFault> {
                Self::new(&text)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_short(text: &str, may_have: fn(char) -> bool) -> bool {
    (1..=MAX_LABEL).contains(&text.len()) && !text.starts_with(['-', '.']) && text.chars().all(may_have)
}

checked_name!(
    /// The name of a service.
    ServiceName,
    "service",
    "1 to 64 of a-z, 0-9, `.`, `_` and `-`, not beginning with `.` or `-`",
    |text| is_short(text, |c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'))
);
checked_name!(
    /// The name of a user or group of the host.
    AccountName,
    "user or group",
    "1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`, not beginning with `.` or `-`",
    |text| is_short(text, |c| matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | '-'))
);
checked_name!(
    /// The name of a systemd unit.
    UnitName,
    "unit",
    "1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `@`, `:` and `-`, not beginning with `.` or `-`",
    |text| is_short(text, |c| matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | '@' | ':' | '-'))
);

/// An absolute path of a host: no empty, `.` or `..` segment, no control character.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPath(String);

impl HostPath {
    /// Checks text and takes it.
    ///
    /// # Errors
    /// [`ServiceFault::Path`].
    pub fn new(text: &str) -> Result<Self, ServiceFault> {
        let is_segment = |segment: &str| !matches!(segment, "" | "." | "..");
        let is_path = text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_segment));
        if is_path && text.len() <= MAX_PATH && !text.chars().any(char::is_control) {
            return Ok(Self(text.to_owned()));
        }
        Err(ServiceFault::Path(text.chars().take(120).collect()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other` lies beneath this path.
    pub fn is_above(&self, other: &Self) -> bool {
        other.0.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl TryFrom<String> for HostPath {
    type Error = ServiceFault;
    fn try_from(text: String) -> Result<Self, ServiceFault> {
        Self::new(&text)
    }
}

impl From<HostPath> for String {
    fn from(path: HostPath) -> Self {
        path.0
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
