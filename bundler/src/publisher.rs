//! Publishing: catch up with the origin, compile, sign, offer; and when
//! another publisher was faster, again on top of its release.

use crate::compile::{CompileError, LastPublished, Making, Progress, Signed, Unsigned};
use crate::config::Rootcast;
use crate::seal::Sealer;
use crate::source::{Source, SourceLimits};
use rootcast::draft::DraftError;
use rootcast::limits::MAX_PUBLISH_TRIES;
use rootcast::path::ChannelName;
use rootcast::protocol::{Interest, Opening, PublishAnswer, UpdateRequest};
use rootcast::settings::SettingsError;
use rootcast_keys::{KeyError, NoPassphrase, Passphrase, SecretKey, Signer};
use rootcast_replica::{
    ConfigError, Machine, Member, MemberError, Replica, ReplicaError, Rule, System, Update, pull, read_config,
};
use rootcast_store::StoreError;
use rootcast_transport::{Connection, Endpoint, TransportError};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a publisher is told. Paths are relative to the file's directory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishConfig {
    /// The directory of its identity, as `rootcast init` wrote it.
    pub identity: PathBuf,
    /// The file of its signing key; who only compiles, or sends what others signed, needs none.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The directory of its state.
    pub state: PathBuf,
    /// Addresses of the origin.
    pub origin: Vec<String>,
}

/// A publication failed. Nothing was published, unless it says that this is not known.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Its configuration file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its place in the platform is not usable.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// Its signing key is not usable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its store is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Its replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// No origin answers.
    #[error("no origin could be reached: {0}")]
    Unreachable(TransportError),
    /// The connection broke.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// There is no key to sign with.
    #[error("no key is configured, so nothing can be signed")]
    NoKey,
    /// One key is not enough for this channel.
    #[error("channel `{channel}` takes the signatures of {threshold} publishers, and this is one")]
    Threshold {
        /// The channel.
        channel: ChannelName,
        /// How many publishers must sign.
        threshold: u64,
    },
    /// A release that others signed is not signed by enough of them.
    #[error("the release has {got} of the {threshold} signatures that its channel takes")]
    TooFew {
        /// Signatures by granted keys.
        got: usize,
        /// How many must be.
        threshold: u64,
    },
    /// A file of an unsigned release, or of a proposed version of trust, is not usable.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// Others published since a release was compiled.
    #[error("release {number} was compiled on top of an older one: release {newest} is there already")]
    Overdue {
        /// The number it would have had.
        number: u64,
        /// The newest release.
        newest: u64,
    },
    /// What hosts need to know of a release cannot be read.
    #[error("the plan of the newest release cannot be read: {0}")]
    Unreadable(rootcast::codec::CodecError),
    /// The origin refuses a new version of trust.
    #[error("the origin refuses the trust document: {0}")]
    TrustRefused(String),
    /// The trust document does not let this key publish to this channel.
    #[error("key {key} is not granted channel `{channel}`; the trust document must grant it")]
    NotGranted {
        /// The key.
        key: rootcast::id::KeyId,
        /// The channel.
        channel: ChannelName,
    },
    /// The origin refuses it.
    #[error("the origin refuses the release: {0}")]
    Refused(String),
    /// The relay that was asked is not the origin.
    #[error("{0} is not the origin; publish to the relay that has no parents")]
    NotOrigin(String),
    /// Others were faster every time.
    #[error("other publishers were faster {0} times in a row; try again")]
    Overtaken(usize),
    /// Blocking work was cut off by the end of the process.
    #[error("stopped")]
    Stopped,
}

/// What was published.
#[derive(Debug, Clone)]
pub struct Published {
    /// The channel.
    pub channel: ChannelName,
    /// The release.
    pub number: u64,
    /// The source commit in hexadecimal; empty for a directory.
    pub commit: String,
    /// Files put or removed.
    pub files_changed: u64,
    /// Bytes of the edits of all bundles.
    pub edit_bytes: u64,
    /// Bundles in the release.
    pub bundles: u64,
    /// How often another publisher was faster.
    pub overtaken: usize,
    /// When the origin's answer came.
    pub acknowledged: Instant,
    /// False where the newest release is this very commit and content, so that nothing was published.
    pub is_new: bool,
    /// What of the settings has no effect ([`Signed::warnings`]).
    pub warnings: Vec<SettingsError>,
}

/// Publishes sources to an origin.
pub struct Publisher {
    pub(crate) member: Member,
    signer: Option<Signer>,
    state: PathBuf,
    pub(crate) origin: Vec<String>,
    endpoint: Endpoint,
    pub(crate) connection: Option<Connection>,
    replica: Option<Arc<Replica>>,
    last: Option<LastPublished>,
    allow_empty: bool,
}

fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PublishConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`PublishError::Config`], with line and column where there is a mistake.
    pub fn load(path: &Path) -> Result<Self, PublishError> {
        let (mut config, directory): (Self, _) = read_config(path)?;
        if config.origin.is_empty() {
            return Err(ConfigError::wrong(path, "`origin` names no address").into());
        }
        for path in [&mut config.identity, &mut config.state].into_iter().chain(&mut config.key) {
            *path = directory.join(&*path);
        }
        Ok(config)
    }
}

impl Publisher {
    /// Opens a publisher whose key is not encrypted. Needs no network yet.
    ///
    /// # Errors
    /// When identity, key or socket are not usable.
    pub fn open(config: &PublishConfig) -> Result<Self, PublishError> {
        Self::open_with(config, &NoPassphrase)
    }

    /// Opens a publisher, asking for the passphrase of its key. Needs no network yet.
    ///
    /// # Errors
    /// When identity, key or socket are not usable.
    pub fn open_with(config: &PublishConfig, passphrase: &dyn Passphrase) -> Result<Self, PublishError> {
        Self::open_on(Arc::new(System), config, passphrase)
    }

    /// As [`Publisher::open_with`], on another machine than this process's.
    ///
    /// # Errors
    /// As [`Publisher::open_with`].
    pub fn open_on(
        machine: Arc<dyn Machine>,
        config: &PublishConfig,
        passphrase: &dyn Passphrase,
    ) -> Result<Self, PublishError> {
        let member = Member::load_on(machine.clone(), &config.identity, &config.state)?;
        let endpoint = machine.dial_only(&member.identity)?;
        let platform = member.trust.newest().trust().platform;
        let key = config.key.as_ref().map(|key| SecretKey::open(key, passphrase)).transpose()?;
        Ok(Self {
            signer: key.map(|key| Signer::new(key, platform)),
            state: config.state.clone(),
            origin: config.origin.clone(),
            endpoint,
            connection: None,
            replica: None,
            last: None,
            allow_empty: false,
            member,
        })
    }

    /// Whether a source without any file may be published over one that had
    /// some, which removes every file on every host. Not unless this says so.
    pub fn set_allow_empty(&mut self, allow: bool) {
        self.allow_empty = allow;
    }

    /// Compiles a source and publishes it as the channel's next release.
    ///
    /// # Errors
    /// See [`PublishError`]. After a lost connection it finds out by itself
    /// whether the origin had taken the release.
    pub async fn publish(
        &mut self,
        source: &Arc<Mutex<Source>>,
        progress: Arc<Progress>,
    ) -> Result<Published, PublishError> {
        if self.signer.is_none() {
            return Err(PublishError::NoKey);
        }
        let settings = Self::settings(source)?;
        let replica = self.replica(&settings.channel)?;
        let mut offered: Option<Arc<Signed>> = None;
        for overtaken in 0..MAX_PUBLISH_TRIES {
            match self.catch_up(&replica).await {
                // An origin that was restarted; the next try dials anew.
                Err(PublishError::Replica(ReplicaError::Transport(error)))
                    if overtaken + 1 < MAX_PUBLISH_TRIES =>
                {
                    tracing::warn!(%error, "the connection broke while catching up");
                    self.connection = None;
                    continue;
                }
                caught_up => caught_up?,
            }
            self.check_grant(&settings)?;
            if let Some(signed) = &offered
                && Self::is_held(&replica, signed)
            {
                return Ok(Self::published(&settings, signed, overtaken));
            }
            let (unsigned, idle) = self.make(source, &settings, &replica, &progress).await?;
            if idle {
                return Ok(Self::unchanged(&settings, &replica, unsigned.warnings));
            }
            let signed = Arc::new(unsigned.sign(self.signer()?)?);
            match self.offer(&signed).await {
                Ok(PublishAnswer::Accepted(_)) => {
                    let acknowledged = Instant::now();
                    Self::adopt(&replica, &signed).await?;
                    lock(source).accept();
                    self.last = replica
                        .held()
                        .map(|held| LastPublished { settings: settings.clone(), accepted: held.accepted() });
                    return Ok(Published { acknowledged, ..Self::published(&settings, &signed, overtaken) });
                }
                Ok(PublishAnswer::Conflict(by)) => {
                    tracing::info!(
                        release = by.number,
                        "another publisher was faster; compiling on top of it"
                    );
                }
                Ok(PublishAnswer::Refused(reason)) => return Err(PublishError::Refused(reason)),
                Ok(PublishAnswer::NotOrigin) => {
                    return Err(PublishError::NotOrigin(self.origin.join(", ")));
                }
                // It may or may not have been taken: catching up will tell.
                Err(error) => {
                    tracing::warn!(%error, "the connection broke while publishing");
                    self.connection = None;
                }
            }
            offered = Some(signed);
        }
        Err(PublishError::Overtaken(MAX_PUBLISH_TRIES))
    }

    /// The settings of a source, whose own limits hold from now on.
    pub(crate) fn settings(source: &Mutex<Source>) -> Result<Rootcast, PublishError> {
        let mut source = lock(source);
        let settings = Rootcast::read(&source).map_err(CompileError::from)?;
        let file_size = settings.limits.file_size;
        source.set_limits(SourceLimits { file_size, ..SourceLimits::default() });
        Ok(settings)
    }

    fn signer(&self) -> Result<&Signer, PublishError> {
        self.signer.as_ref().ok_or(PublishError::NoKey)
    }

    fn check_grant(&self, settings: &Rootcast) -> Result<(), PublishError> {
        let key = self.signer()?.public()?;
        let (trust, channel) = (self.member.trust.newest(), settings.channel.clone());
        match trust.trust().grant(&channel).map(|grant| &grant.publishers) {
            Some(publishers) if publishers.keys.contains(&key) => match publishers.threshold {
                1 => Ok(()),
                threshold => Err(PublishError::Threshold { channel, threshold }),
            },
            _ => Err(PublishError::NotGranted { key: key.id(), channel }),
        }
    }

    /// The publisher's own replica of the channel.
    pub(crate) fn replica(&mut self, channel: &ChannelName) -> Result<Arc<Replica>, PublishError> {
        if let Some(replica) = self.replica.as_ref().filter(|replica| replica.channel() == channel) {
            return Ok(replica.clone());
        }
        let directory = self.state.join("channels").join(channel.as_str().replace('/', "%"));
        let store = self.member.trust.machine().store(&directory)?;
        let trust = self.member.trust.clone();
        let replica = Replica::open(store, trust, channel.clone(), false, Some(directory))?;
        Ok(self.replica.insert(Arc::new(replica)).clone())
    }

    /// A connection to the first origin that answers.
    pub(crate) async fn connected(&mut self) -> Result<Connection, PublishError> {
        if let Some(connection) = self.connection.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let mut last = None;
        for address in &self.origin {
            match self.endpoint.connect(address).await {
                Ok(connection) => {
                    self.member.trust.fetch(&connection).await?;
                    return Ok(self.connection.insert(connection).clone());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or(PublishError::Stopped, PublishError::Unreachable))
    }

    /// Takes in what the origin has and we have not.
    pub(crate) async fn catch_up(&mut self, replica: &Arc<Replica>) -> Result<(), PublishError> {
        let connection = self.connected().await?;
        let mut damaged = false;
        for _ in 0..MAX_PUBLISH_TRIES {
            let mut standing = replica.standing(&Interest::All);
            if damaged {
                // What our own store has lost comes back with the whole trees.
                standing.whole.clear();
            }
            let channel = replica.channel().clone();
            let request = UpdateRequest { channel, interest: Interest::All, standing };
            match pull(&connection, request).await {
                Ok(Some((update, _))) => {
                    let replica = replica.clone();
                    let machine = replica.machine().clone();
                    let taken = machine.blocking(move || {
                        replica.receive(&update, &Interest::All, Rule::Base)?;
                        replica.collect()
                    });
                    match taken.await? {
                        Err(ReplicaError::NeedObject(id)) if !damaged => {
                            tracing::warn!(%id, "our own store is damaged; fetching the trees whole");
                            damaged = true;
                        }
                        taken => {
                            taken?;
                            // With whole trees asked for, the answer never is that there is nothing.
                            if damaged {
                                return Ok(());
                            }
                        }
                    }
                }
                Ok(None) => return Ok(()),
                Err(ReplicaError::NotFound) => {
                    let reason = format!("it does not carry channel `{}`", replica.channel());
                    return Err(PublishError::Refused(reason));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(PublishError::Overtaken(MAX_PUBLISH_TRIES))
    }

    /// Compiles, and whether it is what is published already.
    pub(crate) async fn make(
        &self,
        source: &Arc<Mutex<Source>>,
        settings: &Rootcast,
        replica: &Arc<Replica>,
        progress: &Arc<Progress>,
    ) -> Result<(Unsigned, bool), PublishError> {
        let (source, settings, replica) = (source.clone(), settings.clone(), replica.clone());
        let (progress, last) = (progress.clone(), self.last.clone());
        let allow_empty = self.allow_empty;
        let state = self.state.clone();
        let machine = self.member.trust.machine();
        let issued = machine.seconds();
        let made = machine.blocking(move || {
            let source = lock(&source);
            // The key is made with the first secret.
            let sealer = if settings.secrets.is_empty() { Sealer::random() } else { Sealer::open(&state) }?;
            let making = Making {
                source: &source,
                settings: &settings,
                replica: &replica,
                sealer: &sealer,
                issued,
                last: last.as_ref(),
                allow_empty,
                progress: &*progress,
            };
            let unsigned = making.unsigned(&making.compile()?)?;
            // The same commit with the same content is published already: by a run that was cut off, say.
            let same_commit =
                replica.held().is_some_and(|held| held.bundles.release().release().commit == source.commit());
            // One that the trust in force does not grant any more is published anew.
            let is_same = unsigned.edits.iter().all(Option::is_none);
            let idle = same_commit && is_same && replica.granted().is_some();
            Ok::<_, PublishError>((unsigned, idle))
        });
        made.await?
    }

    pub(crate) async fn offer(&mut self, signed: &Signed) -> Result<PublishAnswer, PublishError> {
        let connection = self.connected().await?;
        let (mut sender, mut receiver) = connection.open_bi().await?;
        sender.send_message(&Opening::Publish(signed.publication.clone())).await?;
        let mut edits = signed.edits.clone();
        let sent = match sender.send_all(&mut edits).await {
            Ok(()) => sender.finish(),
            failed => failed,
        };
        // Who refuses at once does not read the edits, but says why.
        match (receiver.receive_message(rootcast::limits::MAX_OPENING).await, sent) {
            (Ok(Some(answer)), _) => Ok(answer),
            (_, Err(error)) | (Err(error), Ok(())) => Err(error.into()),
            (Ok(None), Ok(())) => Err(PublishError::Replica(ReplicaError::NotFound)),
        }
    }

    fn is_held(replica: &Replica, signed: &Signed) -> bool {
        replica.held().is_some_and(|held| *held.bundles.release().document() == signed.publication.release)
    }

    /// Keeps what the origin took, so that the next compilation starts from it.
    async fn adopt(replica: &Arc<Replica>, signed: &Arc<Signed>) -> Result<(), PublishError> {
        let (replica, signed) = (replica.clone(), signed.clone());
        let machine = replica.machine().clone();
        let adopted = machine.blocking(move || {
            let update = Update::of_publication(signed.publication.clone(), signed.edits.clone());
            replica.receive(&update, &Interest::All, Rule::Own)?;
            replica.collect()
        });
        Ok(adopted.await??)
    }

    fn published(settings: &Rootcast, signed: &Signed, overtaken: usize) -> Published {
        let document = &signed.publication.release;
        let payload = rootcast::cose::unverified_payload(rootcast::cose::DocumentKind::Release, document);
        let release = payload.ok().and_then(|payload| rootcast::release::Release::decode(&payload).ok());
        Published {
            channel: settings.channel.clone(),
            number: signed.number,
            commit: release.map(|release| release.commit_hex()).unwrap_or_default(),
            files_changed: signed.files_changed,
            edit_bytes: signed.edits.iter().map(|edit| edit.len() as u64).sum(),
            bundles: signed.publication.leaves.len() as u64,
            overtaken,
            acknowledged: Instant::now(),
            is_new: true,
            warnings: signed.warnings.clone(),
        }
    }

    fn unchanged(settings: &Rootcast, replica: &Replica, warnings: Vec<SettingsError>) -> Published {
        let held = replica.held();
        Published {
            channel: settings.channel.clone(),
            number: held.as_ref().map_or(0, |held| held.accepted().number),
            commit: held.map(|held| held.bundles.release().release().commit_hex()).unwrap_or_default(),
            files_changed: 0,
            edit_bytes: 0,
            bundles: 0,
            overtaken: 0,
            acknowledged: Instant::now(),
            is_new: false,
            warnings,
        }
    }
}
