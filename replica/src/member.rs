//! A process's place in a platform: its identity, and the trust it pins.

use rootcast::id::{AuthorityHash, ParseIdError, TrustHash};
use rootcast::limits::MAX_DOCUMENT;
use rootcast::trust::{TrustError, VerifiedTrust};
use rootcast_transport::{Identity, TransportError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The signed trust document, beside `identity.pem` and `ca.pem`.
pub const TRUST_FILE: &str = "trust.cose";
/// The fingerprint that the trust document is pinned to, in hexadecimal.
pub const FINGERPRINT_FILE: &str = "fingerprint";

/// A process's place in a platform could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// A file could not be read.
    #[error("{}: {source}; `rootcast init` writes it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The fingerprint is not one.
    #[error("{}: {source}", path.display())]
    Fingerprint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ParseIdError,
    },
    /// The trust document is refused.
    #[error("{}: {source}", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TrustError,
    },
    /// The identity is not usable.
    #[error(transparent)]
    Identity(#[from] TransportError),
    /// The certificate authority is not the one that the trust document names.
    #[error("the certificate authority in {} is {got}, and the trust document names {want}", directory.display())]
    Authority {
        /// The identity's directory.
        directory: PathBuf,
        /// The authority found.
        got: AuthorityHash,
        /// The authority named.
        want: AuthorityHash,
    },
}

/// An identity, and the trust document that it pins.
pub struct Member {
    /// Who this process is.
    pub identity: Identity,
    /// The hash of trust version 1, which it pins.
    pub fingerprint: TrustHash,
    /// Whom it trusts.
    pub trust: Arc<VerifiedTrust>,
}

impl Member {
    /// Reads and checks a directory that `rootcast init` wrote.
    ///
    /// # Errors
    /// [`MemberError`], which names the file.
    pub fn load(directory: &Path) -> Result<Self, MemberError> {
        let identity = Identity::load(directory)?;
        let path = directory.join(FINGERPRINT_FILE);
        let text = String::from_utf8_lossy(&read(&path)?).trim().to_owned();
        let fingerprint: TrustHash =
            text.parse().map_err(|source| MemberError::Fingerprint { path, source })?;
        let path = directory.join(TRUST_FILE);
        let trust = VerifiedTrust::pinned(&read(&path)?, fingerprint)
            .map_err(|source| MemberError::Trust { path, source })?;
        let (got, want) = (identity.authority_hash(), trust.trust().authority);
        if got != want {
            return Err(MemberError::Authority { directory: directory.to_owned(), got, want });
        }
        Ok(Self { identity, fingerprint, trust: Arc::new(trust) })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, MemberError> {
    let failed = |source| MemberError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
