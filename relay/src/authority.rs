//! The platform's certificate authority: made once, it issues the identities
//! of relays, agents and publishers (specs/wire.md, W-1 to W-3).
//!
//! Keys are made where the identity is written and are never sent anywhere.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType,
};
use rootcast::id::{AuthorityHash, PlatformId};
use rootcast::limits::MAX_DOCUMENT;
use rootcast_transport::{
    AUTHORITY_FILE, AuthorityCertificate, IDENTITY_FILE, Identity, PeerName, RELAY_SERVER_NAME, Role,
    TransportError, authority_uri,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;

/// The file of an authority that holds its private key. Whoever has it can be anyone.
pub const AUTHORITY_KEY_FILE: &str = "ca.key";

/// How long an authority is valid.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(5 * 365 * 24 * 3600);
/// How far back a certificate's validity begins, for clocks that are behind.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

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
    /// The name is of another platform.
    #[error("the name is of platform {theirs}, and this is the authority of {ours}")]
    OtherPlatform {
        /// The name's.
        theirs: PlatformId,
        /// The authority's.
        ours: PlatformId,
    },
    /// What is issued must end before the authority does: TLS itself does not look at that.
    #[error("a validity of {asked} days is not possible; the authority ends in {left} days")]
    Validity {
        /// Days asked for.
        asked: u64,
        /// Days that the authority is still valid.
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
    pem: Vec<u8>,
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
        write_new(&key_path, key.serialize_pem().as_bytes(), PRIVATE)?;
        write_new(&path, &pem, PUBLIC)?;
        Ok(Self { certificate, pem, platform, key })
    }

    /// Reads what [`Authority::create`] wrote.
    pub fn load(directory: &Path) -> Result<Self, AuthorityError> {
        let (key_path, path) = (directory.join(AUTHORITY_KEY_FILE), directory.join(AUTHORITY_FILE));
        let (pem, _) = read(&path)?;
        let certificate = AuthorityCertificate::from_pem(&pem, &path)?;
        let platform =
            certificate.platform().ok_or_else(|| AuthorityError::NoPlatform { path: path.clone() })?;
        let (key_pem, mode) = read(&key_path)?;
        if mode & 0o077 != 0 {
            return Err(AuthorityError::KeyExposed { path: key_path, mode });
        }
        let wrong = |reason: String| AuthorityError::WrongKey { path: key_path.clone(), reason };
        let key_pem = String::from_utf8(key_pem).map_err(|_| wrong("it is not PEM".into()))?;
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(&key_pem, &PKCS_ED25519)
            .map_err(|error| wrong(error.to_string()))?;
        if key.subject_public_key_info() != certificate.public_key() {
            return Err(wrong("it is another key".into()));
        }
        Ok(Self { certificate, pem, platform, key })
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

    /// Makes an identity, its key included, and writes `identity.pem` and `ca.pem`
    /// into `directory`, which is made if it is not there.
    ///
    /// What is written has passed the same checks that loading it makes.
    /// Never writes over an identity, nor over another authority's certificate.
    pub fn issue(
        &self,
        name: &PeerName,
        valid: Duration,
        now: SystemTime,
        directory: &Path,
    ) -> Result<Identity, AuthorityError> {
        if name.platform() != self.platform {
            return Err(AuthorityError::OtherPlatform { theirs: name.platform(), ours: self.platform });
        }
        self.check_validity(valid, now)?;
        make_directory(directory)?;
        let path = directory.join(IDENTITY_FILE);
        refuse_existing(&[&path])?;

        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = leaf_params(name)?;
        (params.not_before, params.not_after) = validity(now, valid)?;
        let authority = authority_params(self.platform);
        let certificate = params.signed_by(&key, &Issuer::from_params(&authority, &self.key))?;
        let pem = certificate.pem() + &key.serialize_pem();
        let identity = Identity::from_pem(pem.as_bytes(), self.certificate.clone(), &path)?;

        // The identity comes last: where it is, all is there.
        self.write_beside(&directory.join(AUTHORITY_FILE))?;
        write_new(&path, pem.as_bytes(), PRIVATE)?;
        Ok(identity)
    }

    fn check_validity(&self, valid: Duration, now: SystemTime) -> Result<(), AuthorityError> {
        const DAY: u64 = 24 * 3600;
        let left = self.expires().duration_since(now).unwrap_or_default();
        if valid.is_zero() || valid > left {
            let (asked, left) = (valid.as_secs() / DAY, left.as_secs() / DAY);
            return Err(AuthorityError::Validity { asked, left });
        }
        Ok(())
    }

    /// Our certificate may be there from an issue that was cut off; another's may not.
    fn write_beside(&self, path: &Path) -> Result<(), AuthorityError> {
        match write_new(path, &self.pem, PUBLIC) {
            Err(AuthorityError::AlreadyThere { path }) if read(&path)?.0 == self.pem => Ok(()),
            outcome => outcome,
        }
    }
}

/// What of the authority's certificate goes into each that it issues. It is a
/// function of the platform alone, so that loading needs no certificate parser.
fn authority_params(platform: PlatformId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Rootcast {platform}"));
    // No authorities below this one.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if let Ok(uri) = authority_uri(platform).try_into() {
        params.subject_alt_names = vec![SanType::URI(uri)];
    }
    params
}

fn leaf_params(name: &PeerName) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    // For people who look at it. Peers read the URI only, and a common name is at most 64 bytes.
    let common: String = name.to_string().chars().take(64).collect();
    params.distinguished_name.push(DnType::CommonName, common);
    params.subject_alt_names = vec![SanType::URI(name.to_uri().try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if name.role() == Role::Relay {
        params.subject_alt_names.push(SanType::DnsName(RELAY_SERVER_NAME.try_into()?));
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn validity(now: SystemTime, valid: Duration) -> Result<(OffsetDateTime, OffsetDateTime), AuthorityError> {
    let at = |time: Option<SystemTime>| {
        let since = time?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        OffsetDateTime::from_unix_timestamp(i64::try_from(since.as_secs()).ok()?).ok()
    };
    let (Some(from), Some(to)) = (at(now.checked_sub(CLOCK_SKEW)), at(now.checked_add(valid))) else {
        return Err(AuthorityError::Clock);
    };
    Ok((from, to))
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> AuthorityError + use<'a> {
    move |source| AuthorityError::File { doing, path: path.into(), source }
}

fn make_directory(directory: &Path) -> Result<(), AuthorityError> {
    fs::create_dir_all(directory).map_err(failed("making the directory", directory))
}

/// Only so that nothing is begun in vain; [`write_new`] is what keeps the promise.
fn refuse_existing(paths: &[&Path]) -> Result<(), AuthorityError> {
    match paths.iter().find(|path| fs::symlink_metadata(path).is_ok()) {
        Some(path) => Err(AuthorityError::AlreadyThere { path: path.into() }),
        None => Ok(()),
    }
}

/// Reads a small file and its mode bits.
fn read(path: &Path) -> Result<(Vec<u8>, u32), AuthorityError> {
    let failed = failed("reading", path);
    let file = File::open(path).map_err(&failed)?;
    let mode = file.metadata().map_err(&failed)?.mode() & 0o777;
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(&failed)?;
    Ok((bytes, mode))
}

/// Writes a new file whole and durably, or not at all, and never over another.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    // A name of its own each time, so that what a crash left behind is not in the way.
    let unique = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut name = OsString::from(path.file_name().unwrap_or_default());
    name.push(format!(".{}.{}.new", std::process::id(), unique.as_nanos()));
    let temporary = path.with_file_name(name);
    // The mode is set as the file is made: there is no moment at which others can open it.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(failed("writing", path))?;
    let outcome = fill_and_rename(file, &temporary, path, bytes);
    if outcome.is_err() {
        // It may hold a key. Where it has its final name already, it is not found, and stays.
        let _ = fs::remove_file(&temporary);
    }
    outcome
}

fn fill_and_rename(
    mut file: File,
    temporary: &Path,
    path: &Path,
    bytes: &[u8],
) -> Result<(), AuthorityError> {
    let failed = failed("writing", path);
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(&failed)?;
    match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => {
            return Err(AuthorityError::AlreadyThere { path: path.into() });
        }
        Err(error) => return Err(failed(error.into())),
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(&failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast::member::Labels;
    use rootcast_transport::Endpoint;
    use std::fs::Permissions;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    const PLATFORM: PlatformId = PlatformId::from_bytes([3; 16]);
    const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

    fn created() -> (TempDir, Authority) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authority");
        let authority = Authority::create(&path, PLATFORM, SystemTime::now()).unwrap();
        (directory, authority)
    }

    fn peer(role: Role, name: &str) -> PeerName {
        PeerName::new(PLATFORM, role, name).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn w_3_a_loaded_authority_issues_as_the_created_one() {
        let (directory, created) = created();
        let own = directory.path().join("authority");
        assert_eq!(names(&own), [AUTHORITY_KEY_FILE, AUTHORITY_FILE]);
        assert_eq!(mode(&own.join(AUTHORITY_KEY_FILE)), 0o600);
        let loaded = Authority::load(&own).unwrap();
        assert_eq!((loaded.hash(), loaded.platform()), (created.hash(), PLATFORM));
        let left = loaded.expires().duration_since(SystemTime::now()).unwrap();
        assert!(left <= AUTHORITY_VALIDITY && left > AUTHORITY_VALIDITY - MONTH);
        for (at, role) in [Role::Relay, Role::Agent, Role::Publisher].into_iter().enumerate() {
            for (by, authority) in [&created, &loaded].into_iter().enumerate() {
                let out = directory.path().join(format!("deep/{at}{by}"));
                let labels = Labels::new([("region", "eu")]).unwrap();
                let name = peer(role, "web-1").with_labels(labels);
                let issued = authority.issue(&name, MONTH, SystemTime::now(), &out).unwrap();
                let identity = Identity::load(&out).unwrap();
                assert_eq!(identity.name(), issued.name());
                assert_eq!(*identity.name(), name);
                assert_eq!(identity.authority_hash(), created.hash());
                assert_eq!(names(&out), [AUTHORITY_FILE, IDENTITY_FILE]);
                assert_eq!(mode(&out.join(IDENTITY_FILE)), 0o600);
            }
        }
    }

    #[test]
    fn w_3_the_longest_name_can_be_issued() {
        let (directory, authority) = created();
        let name = "a".repeat(128);
        let out = directory.path().join("out");
        authority.issue(&peer(Role::Agent, &name), MONTH, SystemTime::now(), &out).unwrap();
        assert_eq!(Identity::load(&out).unwrap().name().name(), name);
    }

    #[test]
    fn nothing_is_ever_written_over() {
        let (directory, authority) = created();
        let own = directory.path().join("authority");
        let before = fs::read(own.join(AUTHORITY_KEY_FILE)).unwrap();
        let again = Authority::create(&own, PLATFORM, SystemTime::now());
        assert!(matches!(again, Err(AuthorityError::AlreadyThere { .. })));
        assert_eq!(fs::read(own.join(AUTHORITY_KEY_FILE)).unwrap(), before);

        let out = directory.path().join("out");
        let issue = |authority: &Authority, out: &Path| {
            authority.issue(&peer(Role::Agent, "web-1"), MONTH, SystemTime::now(), out)
        };
        issue(&authority, &out).unwrap();
        let before = fs::read(out.join(IDENTITY_FILE)).unwrap();
        assert!(matches!(issue(&authority, &out), Err(AuthorityError::AlreadyThere { .. })));
        assert_eq!(fs::read(out.join(IDENTITY_FILE)).unwrap(), before);
        // An issue that was cut off after its first file can be made again, by the same authority.
        fs::remove_file(out.join(IDENTITY_FILE)).unwrap();
        let other = Authority::create(&directory.path().join("b"), PLATFORM, SystemTime::now());
        assert!(matches!(issue(&other.unwrap(), &out), Err(AuthorityError::AlreadyThere { .. })));
        issue(&authority, &out).unwrap();
        assert_eq!(names(&out), [AUTHORITY_FILE, IDENTITY_FILE], "nothing is left lying about");
    }

    #[test]
    fn a_lost_race_for_a_name_leaves_the_winner_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let outcomes: Vec<bool> = std::thread::scope(|scope| {
            let write = |byte: u8| write_new(&path, &[byte; 5000], PRIVATE).is_ok();
            let racers: Vec<_> = (0..8).map(|byte| scope.spawn(move || write(byte))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let winner = outcomes.iter().position(|won| *won).unwrap();
        assert_eq!(outcomes.iter().filter(|won| **won).count(), 1);
        assert_eq!(fs::read(&path).unwrap(), vec![winner as u8; 5000]);
        assert_eq!(names(directory.path()), ["file"]);
    }

    #[test]
    fn what_is_issued_ends_before_the_authority_does() {
        let (directory, authority) = created();
        let now = SystemTime::now();
        let (name, out) = (peer(Role::Agent, "web-1"), directory.path().join("out"));
        let issue = |valid, now| authority.issue(&name, valid, now, &out);
        for valid in [Duration::ZERO, AUTHORITY_VALIDITY + MONTH, Duration::MAX] {
            assert!(matches!(issue(valid, now), Err(AuthorityError::Validity { .. })), "{valid:?}");
        }
        let late = now + AUTHORITY_VALIDITY;
        assert!(matches!(issue(MONTH, late), Err(AuthorityError::Validity { .. })));
        assert!(matches!(issue(MONTH, SystemTime::UNIX_EPOCH), Err(AuthorityError::Clock)));
        assert!(!directory.path().join("out").join(IDENTITY_FILE).exists());
    }

    #[test]
    fn a_name_of_another_platform_is_refused() {
        let (directory, authority) = created();
        let out = directory.path().join("out");
        let other = PeerName::new(PlatformId::from_bytes([4; 16]), Role::Agent, "web-1").unwrap();
        let outcome = authority.issue(&other, MONTH, SystemTime::now(), &out);
        assert!(matches!(outcome, Err(AuthorityError::OtherPlatform { .. })));
        assert!(!out.exists());
    }

    #[test]
    fn an_authority_that_is_damaged_is_refused() {
        let (directory, _) = created();
        let own = directory.path().join("authority");
        let key_path = own.join(AUTHORITY_KEY_FILE);
        fs::set_permissions(&key_path, Permissions::from_mode(0o640)).unwrap();
        let exposed = Authority::load(&own).unwrap_err();
        assert!(matches!(exposed, AuthorityError::KeyExposed { mode: 0o640, .. }));
        let other = directory.path().join("other");
        Authority::create(&other, PLATFORM, SystemTime::now()).unwrap();
        let other_key = fs::read(other.join(AUTHORITY_KEY_FILE)).unwrap();
        for wrong in [&other_key[..], b"junk", &[0xff; 40]] {
            fs::write(&key_path, wrong).unwrap();
            fs::set_permissions(&key_path, Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Authority::load(&own), Err(AuthorityError::WrongKey { .. })));
        }
        fs::remove_file(&key_path).unwrap();
        assert!(matches!(Authority::load(&own), Err(AuthorityError::File { .. })));
    }

    #[tokio::test]
    async fn w_4_what_is_issued_meets() {
        let (directory, authority) = created();
        let issue = |role, name| {
            let out = directory.path().join(name);
            authority.issue(&peer(role, name), MONTH, SystemTime::now(), &out).unwrap()
        };
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let relay = Endpoint::listen(&issue(Role::Relay, "r1"), any_port).unwrap();
        let child = Endpoint::dial_only(&issue(Role::Agent, "web-1")).unwrap();
        let address = relay.local_addr().unwrap().to_string();
        let accepted = async { relay.accept().await.unwrap().finish().await };
        let meeting = async { tokio::join!(child.connect(&address), accepted) };
        let (up, down) = tokio::time::timeout(Duration::from_secs(15), meeting).await.unwrap();
        assert_eq!(up.unwrap().peer().to_string(), "relay r1");
        assert_eq!(down.unwrap().peer().to_string(), "agent web-1");
    }
}
