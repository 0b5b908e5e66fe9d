//! Who is at the other end: the one name that a certificate carries.

use core::fmt;
use rootcast::id::PlatformId;
use rootcast::member::{LabelError, Labels, Role, RoleError};
use rootcast::path::{MemberName, PathError};
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The server name in every relay's certificate, and in no other's. A client
/// dials it whatever the address, so ordinary certificate verification already
/// keeps an agent from posing as a relay (specs/wire.md, W-3).
pub const RELAY_SERVER_NAME: &str = "relay.rootcast.internal";

const SCHEME: &str = "rootcast://";

/// Why a certificate does not say who its holder is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is not an X.509 certificate as we read them.
    #[error("the certificate cannot be read: {0}")]
    Certificate(webpki::Error),
    /// None, or several: who the holder is would be a choice.
    #[error("the certificate has {count} URI names; it must have exactly one")]
    Count {
        /// How many there are.
        count: usize,
    },
    /// Not of the form `rootcast://<platform>/<role>/<name>`, with labels or without.
    #[error("`{}` is not of the form rootcast://<platform>/<role>/<name>?<label>=<value>", uri.escape_debug())]
    Form {
        /// The name, shortened.
        uri: String,
    },
    /// Not a role.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// The last part is not a name.
    #[error(transparent)]
    Name(#[from] PathError),
    /// What follows the name are no labels.
    #[error(transparent)]
    Labels(#[from] LabelError),
}

/// A peer: its platform, what it may be, which one it is, and its labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName {
    platform: PlatformId,
    role: Role,
    name: MemberName,
    labels: Labels,
}

impl PeerName {
    /// Names a peer without labels. `name` is one segment of `a-z 0-9 . _ -`, of at most
    /// [`rootcast::limits::MAX_NAME`] bytes, and neither `.` nor `..`.
    pub fn new(platform: PlatformId, role: Role, name: &str) -> Result<Self, NameError> {
        Ok(Self { platform, role, name: MemberName::new(name)?, labels: Labels::default() })
    }
    /// The same peer with these labels instead of any that it had.
    #[must_use]
    pub fn with_labels(self, labels: Labels) -> Self {
        Self { labels, ..self }
    }
    /// The platform it belongs to.
    pub const fn platform(&self) -> PlatformId {
        self.platform
    }
    /// What it may be.
    pub const fn role(&self) -> Role {
        self.role
    }
    /// Its own name, as `web-1`.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
    /// Its own name, checked.
    pub const fn member(&self) -> &MemberName {
        &self.name
    }
    /// What it is labelled with; what layers a host has follows from these.
    pub const fn labels(&self) -> &Labels {
        &self.labels
    }
    /// The name as a certificate carries it: `rootcast://<platform>/<role>/<name>`,
    /// then the labels, if there are any, as `?region=eu&role=web` (W-2).
    pub fn to_uri(&self) -> String {
        let plain = format!("{SCHEME}{}/{}/{}", self.platform, self.role, self.name);
        if self.labels.is_empty() { plain } else { format!("{plain}?{}", self.labels) }
    }

    /// Reads the name as a certificate carries it; there is one form of each (W-2).
    pub fn from_uri(uri: &str) -> Result<Self, NameError> {
        let form = || NameError::Form { uri: uri.chars().take(200).collect() };
        let rest = uri.strip_prefix(SCHEME).ok_or_else(form)?;
        let (plain, labels) =
            rest.split_once('?').map_or((rest, None), |(plain, after)| (plain, Some(after)));
        let mut parts = plain.splitn(3, '/');
        let (Some(platform), Some(role), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(form());
        };
        let peer = Self::new(platform.parse().map_err(|_| form())?, role.parse()?, name)?;
        let peer = match labels {
            Some(labels) => peer.with_labels(labels.parse()?),
            None => peer,
        };
        // The platform id would also be read in capitals.
        if peer.to_uri() == uri { Ok(peer) } else { Err(form()) }
    }

    /// Reads the name out of a leaf certificate, whose chain the caller has verified.
    pub(crate) fn of_leaf(leaf: &CertificateDer<'_>) -> Result<Self, NameError> {
        let certificate = EndEntityCert::try_from(leaf).map_err(NameError::Certificate)?;
        let mut uris = certificate.valid_uri_names();
        match (uris.next(), uris.count()) {
            (Some(uri), 0) => Self::from_uri(uri),
            (None, _) => Err(NameError::Count { count: 0 }),
            (Some(_), more) => Err(NameError::Count { count: more + 1 }),
        }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

/// The URI name in a certificate authority's own certificate: `rootcast://<platform>`.
pub fn authority_uri(platform: PlatformId) -> String {
    format!("{SCHEME}{platform}")
}

/// The platform that an authority's certificate names, if it names one.
pub(crate) fn platform_of_authority(authority: &EndEntityCert<'_>) -> Option<PlatformId> {
    let mut uris = authority.valid_uri_names();
    let platform = uris.next()?.strip_prefix(SCHEME)?.parse().ok()?;
    uris.next().is_none().then_some(platform)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLATFORM: PlatformId = PlatformId::from_bytes([0xab; 16]);

    #[test]
    fn w_2_a_name_survives_its_uri() {
        for role in [Role::Relay, Role::Agent, Role::Publisher] {
            let name = PeerName::new(PLATFORM, role, "web-1.example").unwrap();
            assert_eq!(PeerName::from_uri(&name.to_uri()).unwrap(), name);
        }
        assert_eq!(PeerName::new(PLATFORM, Role::Agent, "web-1").unwrap().to_string(), "agent web-1");
    }

    #[test]
    fn w_2_labels_survive_the_uri_in_their_one_order() {
        let labels = Labels::new([("role", "web"), ("region", "eu-1.a")]).unwrap();
        let name = PeerName::new(PLATFORM, Role::Agent, "web-1").unwrap().with_labels(labels);
        assert!(name.to_uri().ends_with("/agent/web-1?region=eu-1.a&role=web"), "{}", name.to_uri());
        assert_eq!(PeerName::from_uri(&name.to_uri()).unwrap(), name);
    }

    #[test]
    fn w_2_only_the_one_form_is_read() {
        let id = "ab".repeat(16);
        let good = format!("rootcast://{id}/agent/web-1");
        assert!(PeerName::from_uri(&good).is_ok());
        for bad in [
            format!("rootcast://{}/agent/web-1", id.to_uppercase()),
            format!("Rootcast://{id}/agent/web-1"),
            format!("https://{id}/agent/web-1"),
            format!("rootcast://{id}/root/web-1"),
            format!("rootcast://{id}/agent/"),
            format!("rootcast://{id}/agent"),
            format!("rootcast://{id}/agent/web-1/"),
            format!("rootcast://{id}/agent/a/b"),
            format!("rootcast://{id}/agent/.."),
            format!("rootcast://{id}/agent/Web"),
            format!("rootcast://{id}/agent/web 1"),
            format!("rootcast://{id}/agent/web-1?x"),
            format!("rootcast://{id}/agent/web-1?"),
            format!("rootcast://{id}/agent/web-1?region="),
            format!("rootcast://{id}/agent/web-1?region=eu&region=eu"),
            format!("rootcast://{id}/agent/web-1?role=web&region=eu"),
            format!("rootcast://{id}/agent/web-1?region=eu&"),
            format!("rootcast://{id}/agent/web-1?region=eu?role=web"),
            format!("rootcast://{id}/agent/web-1?region=EU"),
            format!("rootcast://{id}/agent/web-1?region=%65u"),
            format!("rootcast://{id}/agent/web-1?region=a/b"),
            format!("rootcast://{id}/agent/web-1?host=web-2"),
            format!("rootcast://{id}/agent/web-1#region=eu"),
            format!("rootcast://{}/agent/web-1", &id[2..]),
            format!("rootcast://{id}/agent/{}", "a".repeat(129)),
            String::new(),
        ] {
            assert!(PeerName::from_uri(&bad).is_err(), "{bad}");
        }
    }
}
