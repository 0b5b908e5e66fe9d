//! The platform's certificate authority: made once, it signs issuing certificates, and
//! then its key is taken offline (specs/wire.md, W-3).

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519,
    PublicKeyData, SanType,
};
use rootcast::id::{AuthorityHash, PlatformId};
use rootcast::limits::MAX_DOCUMENT;
use rootcast_replica::durable::{self, PRIVATE, PUBLIC};
use rootcast_transport::{AUTHORITY_FILE, AuthorityCertificate, NameError, TransportError, authority_uri};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;

/// The file of an authority that holds its private key. Whoever has it can be anyone.
pub const AUTHORITY_KEY_FILE: &str = "ca.key";

/// How long an authority is valid.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(5 * 365 * 24 * 3600);
/// How far back a certificate's validity begins, for clocks that are behind.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Why an authority could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read, written or made durable.
    #[error("{}: {doing} failed: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is there is never written over: it may be the only copy of a key.
    #[error("{} is already there; move it away if nothing needs it, or choose another directory", path.display())]
    AlreadyThere {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner can read the authority's key.
    #[error(
        "{} has mode {mode:03o}, so others can read the key; run `chmod 600` on it, and consider it stolen",
        path.display()
    )]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// The key file does not hold an Ed25519 key in PEM, or not that of the certificate.
    #[error("{} is not the key of the certificate beside it: {reason}", path.display())]
    WrongKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate was not made by [`Authority::create`].
    #[error("{} does not name a platform; it was not made by Rootcast", path.display())]
    NoPlatform {
        /// The file.
        path: PathBuf,
    },
    /// The name cannot be a peer's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name is of another platform.
    #[error("the name is of platform {theirs}, and this is the authority of {ours}")]
    OtherPlatform {
        /// The name's.
        theirs: PlatformId,
        /// The authority's.
        ours: PlatformId,
    },
    /// What is issued must end before the authority does: TLS itself does not look at that.
    #[error("a validity of {asked} days is not possible; what would sign it ends in {left} days")]
    Validity {
        /// Days asked for.
        asked: u64,
        /// Days that what signs is still valid.
        left: u64,
    },
    /// The clock shows a time that certificates cannot express.
    #[error("the clock of this machine cannot be right; set it")]
    Clock,
    /// The certificate library refused.
    #[error("the certificate could not be made: {source}")]
    Certificate {
        /// What it said.
        #[from]
        source: rcgen::Error,
    },
    /// A certificate was refused by the rules that peers will apply to it.
    #[error(transparent)]
    Refused(#[from] TransportError),
}

/// A platform's certificate authority, with its key.
pub struct Authority {
    certificate: AuthorityCertificate,
    platform: PlatformId,
    key: KeyPair,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({} of {})", self.certificate.hash().short(), self.platform)
    }
}

impl Authority {
    /// Makes a platform's authority and writes `ca.key` and `ca.pem` into
    /// `directory`, which is made if it is not there. Never writes over anything.
    pub fn create(directory: &Path, platform: PlatformId, now: SystemTime) -> Result<Self, AuthorityError> {
        make_directory(directory)?;
        let (key_path, path) = (directory.join(AUTHORITY_KEY_FILE), directory.join(AUTHORITY_FILE));
        refuse_existing(&[&key_path, &path])?;
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = authority_params(platform);
        (params.not_before, params.not_after) = validity(now, AUTHORITY_VALIDITY)?;
        let pem = params.self_signed(&key)?.pem().into_bytes();
        let certificate = AuthorityCertificate::from_pem(&pem, &path)?;
        // The certificate comes last: where it is, the key is too.
        durable::write_new(&key_path, key.serialize_pem().as_bytes(), PRIVATE)
            .map_err(failed("writing", &key_path))?;
        durable::write_new(&path, &pem, PUBLIC).map_err(failed("writing", &path))?;
        Ok(Self { certificate, platform, key })
    }

    /// Reads what [`Authority::create`] wrote.
    pub fn load(directory: &Path) -> Result<Self, AuthorityError> {
        let (key_path, path) = (directory.join(AUTHORITY_KEY_FILE), directory.join(AUTHORITY_FILE));
        let (pem, _) = read(&path)?;
        let certificate = AuthorityCertificate::from_pem(&pem, &path)?;
        let platform =
            certificate.platform().ok_or_else(|| AuthorityError::NoPlatform { path: path.clone() })?;
        let key = read_key(&key_path, &certificate.public_key())?;
        Ok(Self { certificate, platform, key })
    }

    /// The hash of the authority's certificate, which the trust document names.
    pub const fn hash(&self) -> AuthorityHash {
        self.certificate.hash()
    }
    /// The platform that it is for.
    pub const fn platform(&self) -> PlatformId {
        self.platform
    }
    /// The last moment of its validity.
    pub const fn expires(&self) -> SystemTime {
        self.certificate.expires()
    }

    /// Signs an issuing certificate (specs/wire.md, W-3), which ends before the authority does.
    pub(crate) fn sign_issuing(
        &self,
        params: &mut CertificateParams,
        key: &KeyPair,
        valid: Duration,
        now: SystemTime,
    ) -> Result<String, AuthorityError> {
        check_validity(valid, now, self.expires())?;
        (params.not_before, params.not_after) = validity(now, valid)?;
        let authority = authority_params(self.platform);
        Ok(params.signed_by(key, &Issuer::from_params(&authority, &self.key))?.pem())
    }

    /// Its certificate.
    pub const fn certificate(&self) -> &AuthorityCertificate {
        &self.certificate
    }
}

pub(crate) fn check_validity(
    valid: Duration,
    now: SystemTime,
    end: SystemTime,
) -> Result<(), AuthorityError> {
    const DAY: u64 = 24 * 3600;
    let left = end.duration_since(now).unwrap_or_default();
    if valid.is_zero() || valid > left {
        let (asked, left) = (valid.as_secs() / DAY, left.as_secs() / DAY);
        return Err(AuthorityError::Validity { asked, left });
    }
    Ok(())
}

/// What of the authority's certificate goes into each that it issues. It is a
/// function of the platform alone, so that loading needs no certificate parser.
fn authority_params(platform: PlatformId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Rootcast {platform}"));
    // One below this one, which issues.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if let Ok(uri) = authority_uri(platform).try_into() {
        params.subject_alt_names = vec![SanType::URI(uri)];
    }
    params
}

pub(crate) fn validity(
    now: SystemTime,
    valid: Duration,
) -> Result<(OffsetDateTime, OffsetDateTime), AuthorityError> {
    let at = |time: Option<SystemTime>| {
        let since = time?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        OffsetDateTime::from_unix_timestamp(i64::try_from(since.as_secs()).ok()?).ok()
    };
    let (Some(from), Some(to)) = (at(now.checked_sub(CLOCK_SKEW)), at(now.checked_add(valid))) else {
        return Err(AuthorityError::Clock);
    };
    Ok((from, to))
}

pub(crate) fn failed<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> AuthorityError + use<'a> {
    move |source| match source.kind() {
        io::ErrorKind::AlreadyExists => AuthorityError::AlreadyThere { path: path.into() },
        _ => AuthorityError::File { doing, path: path.into(), source },
    }
}

pub(crate) fn make_directory(directory: &Path) -> Result<(), AuthorityError> {
    fs::create_dir_all(directory).map_err(failed("making the directory", directory))
}

/// Only so that nothing is begun in vain; [`durable::write_new`] is what keeps the promise.
pub(crate) fn refuse_existing(paths: &[&Path]) -> Result<(), AuthorityError> {
    match paths.iter().find(|path| fs::symlink_metadata(path).is_ok()) {
        Some(path) => Err(AuthorityError::AlreadyThere { path: path.into() }),
        None => Ok(()),
    }
}

/// Reads a small file.
pub(crate) fn read(path: &Path) -> Result<(Vec<u8>, u32), AuthorityError> {
    let failed = failed("reading", path);
    let file = File::open(path).map_err(&failed)?;
    let mode = file.metadata().map_err(&failed)?.mode() & 0o777;
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(&failed)?;
    Ok((bytes, mode))
}

/// Reads a private key, of which `public` is the `SubjectPublicKeyInfo`, and refuses one that others can read.
pub(crate) fn read_key(path: &Path, public: &[u8]) -> Result<KeyPair, AuthorityError> {
    let (pem, mode) = read(path)?;
    if mode & 0o077 != 0 {
        return Err(AuthorityError::KeyExposed { path: path.into(), mode });
    }
    let wrong = |reason: String| AuthorityError::WrongKey { path: path.into(), reason };
    let pem = String::from_utf8(pem).map_err(|_| wrong("it is not PEM".into()))?;
    let key = KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &PKCS_ED25519)
        .map_err(|error| wrong(error.to_string()))?;
    if key.subject_public_key_info() != public {
        return Err(wrong("it is another key".into()));
    }
    Ok(key)
}
