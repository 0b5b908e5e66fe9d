//! A process's place in a platform: its identity, and the trust it pins.

use crate::machine::{Machine, System};
use crate::trusted::Trusted;
use rootcast::id::{AuthorityHash, ParseIdError, TrustHash};
use rootcast::limits::MAX_DOCUMENT;
use rootcast::trust::{TrustChain, TrustError};
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
    /// The certificate authority is none that the trust document names.
    #[error("the certificate authority in {} is {got}, and the trust document names {}", directory.display(), list(want))]
    Authority {
        /// The identity's directory.
        directory: PathBuf,
        /// The authority found.
        got: AuthorityHash,
        /// Those named.
        want: Vec<AuthorityHash>,
    },
}

fn list(hashes: &[AuthorityHash]) -> String {
    hashes.iter().map(AuthorityHash::to_string).collect::<Vec<_>>().join(", ")
}

/// An identity, and the trust that it pins.
pub struct Member {
    /// Who this process is.
    pub identity: Identity,
    /// The hash of trust version 1, which it pins.
    pub fingerprint: TrustHash,
    /// Whom it trusts.
    pub trust: Arc<Trusted>,
}

impl Member {
    /// Reads and checks a directory that `rootcast init` or `rootcast join` wrote, and the
    /// later versions of trust that the process keeps in its state directory.
    ///
    /// # Errors
    /// [`MemberError`], which names the file.
    pub fn load(directory: &Path, state: &Path) -> Result<Self, MemberError> {
        Self::load_on(Arc::new(System), directory, state)
    }

    /// As [`Member::load`], on another machine than this process's.
    ///
    /// # Errors
    /// As [`Member::load`].
    pub fn load_on(machine: Arc<dyn Machine>, directory: &Path, state: &Path) -> Result<Self, MemberError> {
        let identity = Identity::load(directory)?;
        let trust = Trusted::open_on(machine, directory, state)?;
        check_authority(&identity, &trust.chain(), directory)?;
        let fingerprint = trust.chain().fingerprint();
        Ok(Self { identity, fingerprint, trust })
    }

    /// As [`Member::load`], for who only asks and keeps no state.
    ///
    /// # Errors
    /// [`MemberError`], which names the file.
    pub fn load_stateless(directory: &Path) -> Result<Self, MemberError> {
        let identity = Identity::load(directory)?;
        let chain = Trusted::pinned(directory)?;
        check_authority(&identity, &chain, directory)?;
        let fingerprint = chain.fingerprint();
        Ok(Self { identity, fingerprint, trust: Trusted::in_memory(chain) })
    }
}

fn check_authority(identity: &Identity, chain: &TrustChain, directory: &Path) -> Result<(), MemberError> {
    let (got, want) = (identity.authority_hash(), &chain.newest().trust().authorities);
    if want.contains(&got) {
        return Ok(());
    }
    Err(MemberError::Authority { directory: directory.to_owned(), got, want: want.clone() })
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, MemberError> {
    let failed = |source| MemberError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
