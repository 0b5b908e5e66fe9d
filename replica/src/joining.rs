//! Joining a platform: whom to believe, what to ask, what to check (specs/join.md, J-11 to J-25).

use crate::durable::{self, PRIVATE, PUBLIC};
use crate::member::{FINGERPRINT_FILE, TRUST_FILE};
use bytes::Bytes;
use rootcast::cose::DocumentKind;
use rootcast::id::{AuthorityHash, PlatformId, TrustHash};
use rootcast::join::{JoinAnswer, JoinString, JoinStringError, PublicDocuments, Request};
use rootcast::limits::{JOIN_WAIT, MAX_JOIN_ANSWER, MAX_PUBLIC_DOCUMENTS};
use rootcast::member::Role;
use rootcast::path::MemberName;
use rootcast::protocol::Opening;
use rootcast::trust::{TrustChain, TrustError, VerifiedTrust};
use rootcast_transport::{
    AUTHORITY_FILE, AuthorityCertificate, Connection, IDENTITY_FILE, Identity, Joiner, NameError, OwnKey,
    PeerFault, PeerName, Receiver, Sender, TransportError, Unproven,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Joining or renewing failed; nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum JoinFailure {
    /// The join string cannot be used.
    #[error(transparent)]
    Text(#[from] JoinStringError),
    /// A file is in the way; it may be an identity in use.
    #[error("{} is already there; this machine has joined, or choose another directory", path.display())]
    AlreadyThere {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The network, or the other end.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// What answers is not the platform of the join string.
    #[error("{address} is not of the platform in the join string: {source}")]
    Imposter {
        /// Who answered.
        address: String,
        /// Why it is not believed.
        source: TrustError,
    },
    /// Its trust document names another authority than it shows.
    #[error("{address} shows certificate authority {got}, which the platform's trust document does not name")]
    Authority {
        /// Who answered.
        address: String,
        /// The authority shown.
        got: AuthorityHash,
    },
    /// Its trust document is another platform's than the string says.
    #[error("{address} is of platform {got}, and the join string is for {want}")]
    Platform {
        /// Who answered.
        address: String,
        /// Its platform.
        got: PlatformId,
        /// The string's.
        want: PlatformId,
    },
    /// The name cannot be a member's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Another name than the token's.
    #[error("the join string is for {want}, not for {got}")]
    OtherName {
        /// The name given.
        got: MemberName,
        /// The name that the token gives.
        want: MemberName,
    },
    /// The origin refuses.
    #[error("refused: the token is not valid for this, or no longer")]
    Refused,
    /// No origin could be asked.
    #[error("no origin could be reached through {tried}; try again later")]
    Unavailable {
        /// The addresses.
        tried: String,
    },
    /// The origin issued something else than was asked for.
    #[error("the certificate issued is for `{got}`, and `{want}` was asked for")]
    OtherCertificate {
        /// The name in it.
        got: String,
        /// The name that should be in it.
        want: String,
    },
}

pub(crate) fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A request, signed by these keys in this order (J-6).
pub(crate) fn signed(
    request: &Request,
    platform: PlatformId,
    keys: &[&OwnKey],
) -> Result<Bytes, TransportError> {
    let payload = request.encode();
    let mut document = Vec::new();
    for key in keys {
        document.extend(key.sign(DocumentKind::Join, platform, &payload)?);
    }
    Ok(document.into())
}

async fn answer<T: serde::de::DeserializeOwned + serde::Serialize>(
    (mut sender, mut receiver): (Sender, Receiver),
    opening: &Opening,
    limit: u64,
    peer: String,
) -> Result<T, TransportError> {
    sender.send_message(opening).await?;
    sender.finish()?;
    let silent = |fault| TransportError::Peer { peer: peer.clone(), fault };
    match tokio::time::timeout(JOIN_WAIT, receiver.receive_message::<T>(limit)).await {
        Ok(message) => message?.ok_or_else(|| silent(PeerFault::Truncated)),
        Err(_) => Err(silent(PeerFault::Stalled { wait: JOIN_WAIT })),
    }
}

/// Sends a request to a relay that has proved itself, and gives its answer.
///
/// # Errors
/// When the relay or the network fails.
pub async fn ask(connection: &Connection, request: Bytes) -> Result<JoinAnswer, TransportError> {
    let streams = connection.open_bi().await?;
    answer(streams, &Opening::Join(request), MAX_JOIN_ANSWER, connection.peer().to_string()).await
}

/// Asks whoever is there for its platform's public documents; they prove themselves.
///
/// # Errors
/// When it or the network fails.
pub async fn ask_platform(peer: &Unproven) -> Result<PublicDocuments, TransportError> {
    let streams = peer.open_bi().await?;
    answer(streams, &Opening::Platform, MAX_PUBLIC_DOCUMENTS, peer.remote().to_string()).await
}

/// Who wants to join, and with what.
pub struct Joining<'a> {
    /// The join string.
    pub join: &'a JoinString,
    /// The name, where the string leaves it open.
    pub name: Option<MemberName>,
    /// The age recipient of this machine's secrets; empty for none.
    pub recipient: String,
}

/// A machine that has joined, and has written nothing yet.
pub struct Joined {
    /// Its identity.
    pub identity: Identity,
    /// The platform's fingerprint.
    pub fingerprint: TrustHash,
    /// The version of trust in force.
    pub trust: Arc<VerifiedTrust>,
    /// Version 1, which the fingerprint pins.
    document: Bytes,
}

/// A platform that has proved itself.
struct Believed {
    authority: AuthorityCertificate,
    fingerprint: TrustHash,
    trust: Arc<VerifiedTrust>,
    document: Bytes,
}

/// Joins: believes only the platform of the string, makes a key here, asks each
/// address in turn, and checks what is issued.
///
/// # Errors
/// [`JoinFailure`]; the last address's, where all fail.
pub async fn join(joining: &Joining<'_>, now: SystemTime) -> Result<Joined, JoinFailure> {
    let join = joining.join;
    join.check_time(seconds(now))?;
    let name = match (&joining.name, &join.name) {
        (Some(got), Some(want)) if got != want => {
            return Err(JoinFailure::OtherName { got: got.clone(), want: want.clone() });
        }
        (Some(name), _) | (None, Some(name)) => name.clone(),
        (None, None) => {
            return Err(JoinStringError::Unsound("it names no member, and no name was given".into()).into());
        }
    };
    let peer = PeerName::new(join.platform, join.role, name.as_str())?.with_labels(join.labels.clone());
    let token = OwnKey::from_seed(&join.secret.seed())?;
    // One key for all tries: should an answer get lost, the origin knows us again (J-7, line 6).
    let own = OwnKey::generate()?;
    let request = Request {
        role: join.role,
        name,
        key: own.public().clone(),
        issued: seconds(now),
        recipient: joining.recipient.clone(),
    };
    let request = signed(&request, join.platform, &[&token, &own])?;
    let joiner = Joiner::new()?;
    let mut last = JoinFailure::Unavailable { tried: join.addresses.join(", ") };
    for address in &join.addresses {
        match attempt(&joiner, address, join, request.clone()).await {
            Ok((believed, chain)) => {
                let path = Path::new(IDENTITY_FILE);
                let identity = Identity::of_chain(&chain, &own, believed.authority.clone(), path)?;
                if *identity.name() != peer {
                    let (got, want) = (identity.name().to_uri(), peer.to_uri());
                    return Err(JoinFailure::OtherCertificate { got, want });
                }
                let Believed { fingerprint, trust, document, .. } = believed;
                return Ok(Joined { identity, fingerprint, trust, document });
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn attempt(
    joiner: &Joiner,
    address: &str,
    join: &JoinString,
    request: Bytes,
) -> Result<(Believed, Vec<Bytes>), JoinFailure> {
    let met = joiner.meet(address).await?;
    let believed = believe(ask_platform(&met).await?, address, join)?;
    let connection = joiner.connect(address, &believed.authority).await?;
    match ask(&connection, request).await? {
        JoinAnswer::Issued(chain) => Ok((believed, chain)),
        JoinAnswer::Refused => Err(JoinFailure::Refused),
        JoinAnswer::Unavailable => Err(JoinFailure::Unavailable { tried: join.addresses.join(", ") }),
    }
}

/// Believes documents that the fingerprint proves, and nothing else (J-11).
fn believe(documents: PublicDocuments, address: &str, join: &JoinString) -> Result<Believed, JoinFailure> {
    let imposter = |source| JoinFailure::Imposter { address: address.to_owned(), source };
    let mut documents_of_trust = documents.trust.into_iter();
    let document = documents_of_trust.next().unwrap_or_default();
    let mut chain = TrustChain::pinned(&document, join.fingerprint).map_err(imposter)?;
    for later in documents_of_trust {
        chain.extend(&later).map_err(imposter)?;
    }
    let trust = chain.newest().clone();
    let (platform, want) = (trust.trust().platform, &trust.trust().authorities);
    if platform != join.platform {
        let address = address.to_owned();
        return Err(JoinFailure::Platform { address, got: platform, want: join.platform });
    }
    let authority = AuthorityCertificate::from_bytes(&documents.authority, Path::new(AUTHORITY_FILE))?;
    let got = authority.hash();
    if !want.contains(&got) {
        return Err(JoinFailure::Authority { address: address.to_owned(), got });
    }
    Ok(Believed { authority, fingerprint: chain.fingerprint(), trust, document })
}

impl Joined {
    /// Writes the identity's directory, made if it is not there; `identity.pem` last, so that
    /// where it is, all is there. Never over another's files.
    ///
    /// # Errors
    /// [`JoinFailure::AlreadyThere`] or [`JoinFailure::Write`].
    pub fn write(&self, directory: &Path) -> Result<(), JoinFailure> {
        std::fs::create_dir_all(directory)
            .map_err(|source| JoinFailure::Write { path: directory.to_owned(), source })?;
        let put = |name: &str, bytes: &[u8]| {
            let path = directory.join(name);
            durable::write_same(&path, bytes, PUBLIC).map_err(|source| failed(path, source))
        };
        put(AUTHORITY_FILE, self.identity.authority().to_pem().as_bytes())?;
        put(TRUST_FILE, &self.document)?;
        put(FINGERPRINT_FILE, format!("{}\n", self.fingerprint).as_bytes())?;
        let path = directory.join(IDENTITY_FILE);
        let pem = self.identity.to_pem()?;
        durable::write_new(&path, pem.as_bytes(), PRIVATE).map_err(|source| failed(path, source))
    }

    /// What it has become.
    pub const fn role(&self) -> Role {
        self.identity.name().role()
    }
}

/// Refuses a directory that holds an identity, before a token is used up for it.
///
/// # Errors
/// [`JoinFailure::AlreadyThere`].
pub fn refuse_member(directory: &Path) -> Result<(), JoinFailure> {
    let path = directory.join(IDENTITY_FILE);
    match std::fs::symlink_metadata(&path) {
        Ok(_) => Err(JoinFailure::AlreadyThere { path }),
        Err(_) => Ok(()),
    }
}

pub(crate) fn failed(path: PathBuf, source: io::Error) -> JoinFailure {
    match source.kind() {
        io::ErrorKind::AlreadyExists => JoinFailure::AlreadyThere { path },
        _ => JoinFailure::Write { path, source },
    }
}
