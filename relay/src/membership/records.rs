//! What the origin remembers of tokens, members and denials: one file each, whole or
//! not there, so that the operator's commands and the running origin can share them.

use crate::authority::AuthorityError;
use rootcast::codec::{self, CodecError};
use rootcast::denials::Denied;
use rootcast::id::KeyId;
use rootcast::join::{JoinStringError, Member, Token};
use rootcast::limits::{MAX_DENIED, MAX_MEMBER_FILE, MAX_TOKEN_LIFE, MAX_TOKEN_USES, MAX_TOKENS};
use rootcast::member::Role;
use rootcast::path::MemberName;
use rootcast_replica::durable::{self, PRIVATE};
use rootcast_transport::TransportError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The directory in the origin's state.
const DIRECTORY: &str = "membership";
const TOKENS: &str = "tokens";
const MEMBERS: &str = "members";
const DENIED: &str = "denied";
const DENIALS: &str = "denials.cose";
const ROLES: [Role; 3] = [Role::Relay, Role::Agent, Role::Publisher];

/// What the origin remembers could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged: {source}; restore it, or remove it and let the member join again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CodecError,
    },
    /// More tokens than are kept.
    #[error("there are {MAX_TOKENS} tokens that have not expired; let some expire first")]
    TooManyTokens,
    /// A token that could be used too long or too often.
    #[error("a token is good for at most {} days and {MAX_TOKEN_USES} machines, and for one if it names it", MAX_TOKEN_LIFE.as_secs() / 86_400)]
    TokenBounds,
    /// More denials than one document holds.
    #[error(
        "{MAX_DENIED} members are denied; allow some whose certificates have ended (`rootcast host list`)"
    )]
    TooManyDenied,
    /// The certificate could not be issued.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A key is not usable.
    #[error(transparent)]
    Key(#[from] TransportError),
    /// A join string could not be made.
    #[error(transparent)]
    Text(#[from] JoinStringError),
    /// The system's random source failed.
    #[error("the system's random source failed: {0}")]
    Random(getrandom::Error),
}

fn file(path: &Path) -> impl Fn(io::Error) -> MembershipError + '_ {
    move |source| MembershipError::File { path: path.to_owned(), source }
}

/// The origin's files of tokens, members and denials.
#[derive(Debug, Clone)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    /// Those in an origin's state directory; made when first written to.
    pub fn of(state: &Path) -> Self {
        Self { directory: state.join(DIRECTORY) }
    }

    fn read<T: Serialize + DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, MembershipError> {
        let Some(bytes) = read(path)? else { return Ok(None) };
        let damaged = |source| MembershipError::Damaged { path: path.to_owned(), source };
        codec::decode(&bytes, MAX_MEMBER_FILE).map(Some).map_err(damaged)
    }

    /// The directory of such records, and that it is there durably.
    fn place(&self, kind: &str, below: &str) -> Result<PathBuf, MembershipError> {
        let path = self.directory.join(kind).join(below);
        if !path.is_dir() {
            fs::create_dir_all(&path).map_err(file(&path))?;
            let above = path.ancestors().skip(1).take_while(|above| above.starts_with(&self.directory));
            for directory in above.chain(self.directory.parent()) {
                durable::sync_directory(directory).map_err(file(directory))?;
            }
        }
        Ok(path)
    }

    fn token_path(&self, id: KeyId) -> PathBuf {
        self.directory.join(TOKENS).join(id.to_string())
    }

    /// The token of this key id.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn token(&self, id: KeyId) -> Result<Option<Token>, MembershipError> {
        self.read(&self.token_path(id))
    }

    /// Adds a token, and forgets those whose time is long over.
    ///
    /// # Errors
    /// When it is out of bounds, there are too many, or a file cannot be written.
    pub fn add_token(&self, token: &Token, now: u64) -> Result<(), MembershipError> {
        let long = token.expires > now.saturating_add(MAX_TOKEN_LIFE.as_secs());
        let often = token.uses > MAX_TOKEN_USES || (token.name.is_some() && token.uses != 1);
        if long || often || token.uses == 0 {
            return Err(MembershipError::TokenBounds);
        }
        self.place(TOKENS, "")?;
        let mut kept = 0;
        for name in names(&self.directory.join(TOKENS))? {
            let Ok(id) = name.parse::<KeyId>() else { continue };
            match self.token(id)? {
                Some(old) if old.expires < now => {
                    fs::remove_file(self.token_path(id)).map_err(file(&self.token_path(id)))?;
                }
                _ => kept += 1,
            }
        }
        if kept >= MAX_TOKENS {
            return Err(MembershipError::TooManyTokens);
        }
        let path = self.token_path(token.id());
        durable::write_new(&path, &codec::encode(token), PRIVATE).map_err(file(&path))
    }

    /// Records a token's uses; durable when it returns.
    pub(super) fn put_token(&self, token: &Token) -> Result<(), MembershipError> {
        let path = self.token_path(token.id());
        durable::replace(&path, &codec::encode(token), PRIVATE).map_err(file(&path))
    }

    /// The member of this role and name.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn member(&self, role: Role, name: &MemberName) -> Result<Option<Member>, MembershipError> {
        self.read(&self.directory.join(MEMBERS).join(role.as_str()).join(name.as_str()))
    }

    /// Records a member; durable when it returns.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn put_member(&self, member: &Member) -> Result<(), MembershipError> {
        let path = self.place(MEMBERS, member.role.as_str())?.join(member.name.as_str());
        durable::replace(&path, &codec::encode(member), PRIVATE).map_err(file(&path))
    }

    /// All members, by role and name.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn members(&self) -> Result<Vec<Member>, MembershipError> {
        let mut all = Vec::new();
        for role in ROLES {
            for name in names(&self.directory.join(MEMBERS).join(role.as_str()))? {
                if let Ok(name) = MemberName::new(&name) {
                    all.extend(self.member(role, &name)?);
                }
            }
        }
        Ok(all)
    }

    /// Denies a member, known or not; whether it was not denied before.
    ///
    /// # Errors
    /// When too many are denied, or a file cannot be written.
    pub fn deny(&self, denied: &Denied) -> Result<bool, MembershipError> {
        let before = self.denied()?;
        if before.contains(denied) {
            return Ok(false);
        }
        if before.len() >= MAX_DENIED {
            return Err(MembershipError::TooManyDenied);
        }
        let path = self.place(DENIED, denied.role.as_str())?.join(denied.name.as_str());
        durable::write_same(&path, b"", PRIVATE).map_err(file(&path)).map(|()| true)
    }

    /// Lifts a denial; whether there was one.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn allow(&self, denied: &Denied) -> Result<bool, MembershipError> {
        let directory = self.directory.join(DENIED).join(denied.role.as_str());
        let path = directory.join(denied.name.as_str());
        match fs::remove_file(&path) {
            Ok(()) => durable::sync_directory(&directory).map_err(file(&directory)).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(file(&path)(error)),
        }
    }

    /// Who is denied.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn denied(&self) -> Result<BTreeSet<Denied>, MembershipError> {
        let mut all = BTreeSet::new();
        for role in ROLES {
            for name in names(&self.directory.join(DENIED).join(role.as_str()))? {
                all.extend(MemberName::new(&name).ok().map(|name| Denied { role, name }));
            }
        }
        Ok(all)
    }

    /// Whether this member is denied.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn is_denied(&self, role: Role, name: &MemberName) -> Result<bool, MembershipError> {
        let path = self.directory.join(DENIED).join(role.as_str()).join(name.as_str());
        path.try_exists().map_err(file(&path))
    }

    /// The signed denials document that was made last.
    pub(super) fn denials(&self) -> Result<Option<Vec<u8>>, MembershipError> {
        read(&self.directory.join(DENIALS))
    }

    pub(super) fn put_denials(&self, document: &[u8]) -> Result<(), MembershipError> {
        let path = self.place("", "")?.join(DENIALS);
        durable::replace(&path, document, PRIVATE).map_err(file(&path))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, MembershipError> {
    let opened = match File::open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file(path)(error)),
    };
    let mut bytes = Vec::new();
    opened.take(MAX_MEMBER_FILE + 1).read_to_end(&mut bytes).map_err(file(path))?;
    Ok(Some(bytes))
}

/// The names in a directory, in order; none where it is not there. What a crash left behind has a `~`.
fn names(directory: &Path) -> Result<Vec<String>, MembershipError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(file(directory)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(file(directory))?.file_name().into_string().ok());
    }
    names.retain(|name| !name.starts_with('~'));
    names.sort();
    Ok(names)
}
