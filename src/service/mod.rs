//! Services: which files a program owns, where they are installed, and what is done when they change.
//!
//! They are declared in the repository's `rootcast.toml` and travel as the file `services` of the
//! bundle `plan` (specs/configuration.md, F-90 to F-99). What a host permits is the host's own business.

mod check;
mod names;
mod order;
mod placeholder;
mod settings;
mod work;

pub use check::{Probe, Verdict};
pub use names::{AccountName, HostPath, ServiceFault, ServiceName, UnitName};
pub use order::{Ended, Schedule, cycle};
pub use settings::WrittenServices;
pub use work::{Hook, Patience, Phase, SHELL, Signal, UnitAction, Url, Work};

use crate::codec::{self, CodecError};
use crate::encode_as_array;
use crate::limits::{
    MAX_BLOB, MAX_INSTALLS, MAX_PATTERN, MAX_SERVICE_HOOKS, MAX_SERVICE_PATTERNS, MAX_SERVICES,
};
use crate::path::{ConfigPath, PathError};
use crate::pattern::Pattern;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The path of the services in the bundle `plan`.
pub const SERVICES_FILE: &str = "services";

/// The path of the services in the bundle `plan`, as a path.
///
/// # Errors
/// Never: the name is fixed.
pub fn services_path() -> Result<ConfigPath, PathError> {
    ConfigPath::new(SERVICES_FILE)
}

/// How something is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// As a symbolic link into `current`: it changes with the flip.
    Link,
    /// As an atomic copy, for programs that need a real file.
    Copy {
        /// Whose it is; the agent's own user's where that is not said.
        owner: Option<AccountName>,
        /// Its group; that of the owner where that is not said.
        group: Option<AccountName>,
        /// Its permission bits; those of the file in the view where that is not said.
        mode: Option<u16>,
    },
}

/// Something of the view that is to be at a fixed place of the host as well (F-93).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// A file or directory of the view.
    pub from: ConfigPath,
    /// Where it is to be.
    pub to: HostPath,
    /// How.
    pub how: How,
}
encode_as_array!(Install { from, to, how });

impl Install {
    /// Where what the view has at a path is installed, and the path that a link there leads to; `None` of a
    /// path that is neither `from` nor beneath it. All of a directory that is linked is behind the one link.
    pub fn place_of<'p>(&'p self, path: &'p ConfigPath) -> Option<(String, &'p ConfigPath)> {
        let inside = path.as_str().strip_prefix(self.from.as_str())?;
        match (&self.how, inside) {
            (How::Copy { .. }, "") => Some((self.to.as_str().to_owned(), path)),
            (_, inside) if !inside.is_empty() && !inside.starts_with('/') => None,
            (How::Link, _) => Some((self.to.as_str().to_owned(), &self.from)),
            (How::Copy { .. }, inside) => Some((format!("{}{inside}", self.to.as_str()), path)),
        }
    }
}

/// A service (F-90).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Patterns of the files that it owns, beside what it installs: it runs when one of them changes.
    /// Settings are judged; one that came otherwise and is none matches nothing.
    pub files: Vec<String>,
    /// What of the view is to be elsewhere.
    pub install: Vec<Install>,
    /// Services that must be done before it.
    pub after: BTreeSet<ServiceName>,
    /// What is done when its files change, by phase and then in the order given.
    pub hooks: Vec<Hook>,
}
encode_as_array!(Service { name, files, install, after, hooks });

impl Service {
    /// Its hooks of a phase, in their order.
    pub fn hooks(&self, phase: Phase) -> impl Iterator<Item = &Hook> {
        self.hooks.iter().filter(move |hook| hook.phase == phase)
    }

    fn check(&self) -> Result<(), ServiceFault> {
        let too_many = |what, most| Err(ServiceFault::TooMany { what, most });
        if self.files.is_empty() {
            return Err(ServiceFault::NoFiles);
        }
        if self.files.len() > MAX_SERVICE_PATTERNS || self.files.iter().any(|text| text.len() > MAX_PATTERN) {
            return too_many("patterns", MAX_SERVICE_PATTERNS);
        }
        if self.install.len() > MAX_INSTALLS {
            return too_many("entries of `install`", MAX_INSTALLS);
        }
        if self.hooks.len() > MAX_SERVICE_HOOKS {
            return too_many("hooks", MAX_SERVICE_HOOKS);
        }
        if !self.hooks.is_sorted_by_key(|hook| hook.phase) {
            return Err(ServiceFault::OutOfOrder);
        }
        for install in &self.install {
            if let How::Copy { mode: Some(mode), .. } = install.how
                && mode & !0o777 != 0
            {
                return Err(ServiceFault::Mode);
            }
        }
        self.hooks.iter().try_for_each(Hook::check)
    }
}

/// The services of a release, by name. There is no other way to have them than checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Services(BTreeMap<ServiceName, Service>);

impl Services {
    /// Takes services that fit one another.
    ///
    /// # Errors
    /// The first that does not, by name: over a limit, after one that is not there, in a cycle, or
    /// installed where another is.
    pub fn new(services: impl IntoIterator<Item = Service>) -> Result<Self, (ServiceName, ServiceFault)> {
        let mut by_name = BTreeMap::new();
        for service in services {
            let name = service.name.clone();
            service.check().map_err(|fault| (name.clone(), fault))?;
            if by_name.len() == MAX_SERVICES {
                return Err((name, ServiceFault::TooMany { what: "services", most: MAX_SERVICES }));
            }
            by_name.insert(name, service);
        }
        let services = Self(by_name);
        let mut places: Vec<(&HostPath, &ServiceName)> = Vec::new();
        for service in services.iter() {
            if let Some(after) = service.after.iter().find(|after| !services.0.contains_key(*after)) {
                return Err((service.name.clone(), ServiceFault::UnknownAfter { after: after.clone() }));
            }
            places.extend(service.install.iter().map(|install| (&install.to, &service.name)));
        }
        places.sort();
        for pair in places.windows(2) {
            if let [(one, name), (other, second)] = pair
                && (one == other || one.is_above(other))
            {
                let (to, other) = ((*other).clone(), (*name).clone());
                return Err(((*second).clone(), ServiceFault::InstalledTwice { to, other }));
            }
        }
        if let Some(names) = cycle(&services) {
            let first = names.first().cloned();
            return match first {
                Some(first) => Err((first, ServiceFault::Cycle(names))),
                None => Ok(services),
            };
        }
        Ok(services)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.0.values()
    }

    /// The service of a name.
    pub fn get(&self, name: &ServiceName) -> Option<&Service> {
        self.0.get(name)
    }

    /// Who owns what, ready to be asked.
    pub fn owners(&self) -> Owners {
        let owned = self.iter().flat_map(|service| {
            let files = service.files.iter().filter_map(|text| Pattern::new(text).ok()).map(Owned::Files);
            let installed = service.install.iter().cloned().map(Owned::Installed);
            files.chain(installed).map(|owned| (owned, service.name.clone()))
        });
        Owners(owned.collect())
    }

    /// The content of the file `services`.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&self.iter().collect::<Vec<_>>())
    }

    /// Reads the file `services`.
    ///
    /// # Errors
    /// When it is too large, has another form, or services that do not fit one another.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let services: Vec<Service> = codec::decode(bytes, MAX_BLOB)?;
        let shape = |reason: String| CodecError::Shape { wanted: "services", reason };
        if !services.is_sorted_by(|one, other| one.name < other.name) {
            return Err(shape("services out of order".into()));
        }
        Self::new(services).map_err(|(name, fault)| shape(format!("service `{name}`: {fault}")))
    }
}

/// Paths that a service owns.
enum Owned {
    Files(Pattern),
    Installed(Install),
}

impl Owned {
    fn has(&self, path: &ConfigPath) -> bool {
        match self {
            Self::Files(pattern) => pattern.matches(path.as_str()),
            Self::Installed(install) => install.place_of(path).is_some(),
        }
    }
}

/// Which services own a path.
pub struct Owners(Vec<(Owned, ServiceName)>);

impl Owners {
    /// Adds the services that own one of these paths.
    pub fn add<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a ConfigPath>,
        owners: &mut BTreeSet<ServiceName>,
    ) {
        let mut left: Vec<&(Owned, ServiceName)> = self.0.iter().collect();
        for path in paths {
            left.retain(|(owned, name)| {
                if owners.contains(name) {
                    return false;
                }
                let owns = owned.has(path);
                if owns {
                    owners.insert(name.clone());
                }
                !owns
            });
        }
    }
}

#[cfg(test)]
mod tests;
