//! The issuing certificate: what the origin signs the identities of relays, agents
//! and publishers with (specs/wire.md, W-1 to W-3).

use crate::authority::{
    Authority, AuthorityError, check_validity, failed, make_directory, read, read_key, refuse_existing,
    validity,
};
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use rootcast::cose::PublicKey;
use rootcast::id::PlatformId;
use rootcast::member::Role;
use rootcast_replica::durable::{self, PRIVATE, PUBLIC};
use rootcast_transport::{
    AUTHORITY_FILE, AuthorityCertificate, IDENTITY_FILE, Identity, OwnKey, PeerName, RELAY_SERVER_NAME,
    TransportError,
};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The file that holds the issuing certificate.
pub const ISSUING_FILE: &str = "issuing.pem";
/// The file that holds its private key. Whoever has it can be anyone until the certificate ends.
pub const ISSUING_KEY_FILE: &str = "issuing.key";
/// How long an issuing certificate is valid.
pub const ISSUING_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);

/// An issuing certificate with its key.
pub struct Issuing {
    certificate: AuthorityCertificate,
    key: KeyPair,
    authority: AuthorityCertificate,
    platform: PlatformId,
}

impl std::fmt::Debug for Issuing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Issuing(of {})", self.platform)
    }
}

/// A public key to certify.
struct Subject<'a>(&'a [u8]);

impl PublicKeyData for Subject<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl Issuing {
    /// Makes an issuing certificate and writes `issuing.key` and `issuing.pem` into
    /// `directory`, which is made if it is not there. Never writes over anything.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn create(authority: &Authority, directory: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        make_directory(directory)?;
        let (key_path, path) = (directory.join(ISSUING_KEY_FILE), directory.join(ISSUING_FILE));
        refuse_existing(&[&key_path, &path])?;
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = issuing_params(authority.platform());
        params.serial_number = Some(serial()?);
        let pem = authority.sign_issuing(&mut params, &key, ISSUING_VALIDITY, now)?;
        let key_pem = key.serialize_pem();
        durable::write_new(&key_path, key_pem.as_bytes(), PRIVATE).map_err(failed("writing", &key_path))?;
        durable::write_new(&path, pem.as_bytes(), PUBLIC).map_err(failed("writing", &path))?;
        Self::load(directory, authority.certificate(), now)
    }

    /// Reads what [`Issuing::create`] wrote, and tries it out: what it issues must verify under `authority`.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn load(
        directory: &Path,
        authority: &AuthorityCertificate,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let (key_path, path) = (directory.join(ISSUING_KEY_FILE), directory.join(ISSUING_FILE));
        let platform =
            authority.platform().ok_or_else(|| AuthorityError::NoPlatform { path: path.clone() })?;
        let certificate = AuthorityCertificate::from_pem(&read(&path)?.0, &path)?;
        let key = read_key(&key_path, &certificate.public_key())?;
        let issuing = Self { certificate, key, authority: authority.clone(), platform };
        let probe = OwnKey::generate()?;
        let name = PeerName::new(platform, Role::Agent, "probe")?;
        let left = issuing.expires().duration_since(now).unwrap_or_default();
        if left.is_zero() {
            tracing::error!(path = %path.display(), "the issuing certificate has ended: nobody can join or renew");
            return Ok(issuing);
        }
        let chain = issuing.certify(&name, probe.public(), left, now)?;
        Identity::of_chain(&chain, &probe, authority.clone(), &path)?;
        Ok(issuing)
    }

    /// The last moment of its validity.
    pub const fn expires(&self) -> SystemTime {
        self.certificate.expires()
    }
    /// The platform that it is for.
    pub const fn platform(&self) -> PlatformId {
        self.platform
    }

    /// Certifies a key under a name: the chain, leaf first, in DER.
    ///
    /// # Errors
    /// When the name is another platform's, or the validity goes beyond our own.
    pub fn certify(
        &self,
        name: &PeerName,
        key: &PublicKey,
        valid: Duration,
        now: SystemTime,
    ) -> Result<Vec<Bytes>, AuthorityError> {
        if name.platform() != self.platform {
            return Err(AuthorityError::OtherPlatform { theirs: name.platform(), ours: self.platform });
        }
        check_validity(valid, now, self.expires())?;
        let mut params = leaf_params(name)?;
        params.serial_number = Some(serial()?);
        (params.not_before, params.not_after) = validity(now, valid)?;
        let (issuer, public) = (issuing_params(self.platform), key.to_bytes());
        let leaf = params.signed_by(&Subject(&public), &Issuer::from_params(&issuer, &self.key))?;
        let part = Bytes::copy_from_slice;
        Ok(vec![part(leaf.der()), part(self.certificate.der())])
    }

    /// Makes an identity, its key included, and writes `identity.pem` and `ca.pem`
    /// into `directory`, which is made if it is not there.
    ///
    /// What is written has passed the same checks that loading it makes.
    /// Never writes over an identity, nor over another authority's certificate.
    ///
    /// # Errors
    /// As [`Issuing::certify`], or when a file is there already.
    pub fn issue(
        &self,
        name: &PeerName,
        valid: Duration,
        now: SystemTime,
        directory: &Path,
    ) -> Result<Identity, AuthorityError> {
        let (path, authority) = (directory.join(IDENTITY_FILE), directory.join(AUTHORITY_FILE));
        let key = OwnKey::generate()?;
        let chain = self.certify(name, key.public(), valid, now)?;
        let identity = Identity::of_chain(&chain, &key, self.authority.clone(), &path)?;
        make_directory(directory)?;
        refuse_existing(&[&path])?;
        // The identity comes last: where it is, all is there.
        durable::write_same(&authority, self.authority.to_pem().as_bytes(), PUBLIC)
            .map_err(failed("writing", &authority))?;
        durable::write_new(&path, identity.to_pem()?.as_bytes(), PRIVATE)
            .map_err(failed("writing", &path))?;
        Ok(identity)
    }
}

/// A serial number of its own for each certificate, also of one key (RFC 5280, section 4.1.2.2).
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|source| TransportError::Random { source })?;
    if let Some(first) = bytes.first_mut() {
        // Positive, and of one length.
        *first = *first & 0x7f | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// What of the issuing certificate goes into each leaf: a function of the platform
/// alone, so that loading needs no certificate parser.
fn issuing_params(platform: PlatformId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Rootcast issuing {platform}"));
    // No authorities below this one.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{AUTHORITY_KEY_FILE, AUTHORITY_VALIDITY};
    use rootcast::member::Labels;
    use rootcast_transport::Endpoint;
    use std::fs::{self, Permissions};
    use std::net::{Ipv4Addr, SocketAddr};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use tempfile::TempDir;

    const PLATFORM: PlatformId = PlatformId::from_bytes([3; 16]);
    const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

    fn created() -> (TempDir, Issuing) {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let authority = Authority::create(&directory.path().join("authority"), PLATFORM, now).unwrap();
        let issuing = Issuing::create(&authority, &directory.path().join("keys"), now).unwrap();
        (directory, issuing)
    }

    /// Another authority of the same platform, and its issuing certificate.
    fn other(directory: &TempDir) -> Issuing {
        let (path, now) = (directory.path().join("other"), SystemTime::now());
        Issuing::create(&Authority::create(&path, PLATFORM, now).unwrap(), &path, now).unwrap()
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
    fn w_3_a_loaded_authority_and_its_issuer_are_as_they_were_made() {
        let (directory, created) = created();
        let (own, keys) = (directory.path().join("authority"), directory.path().join("keys"));
        assert_eq!(names(&own), [AUTHORITY_KEY_FILE, AUTHORITY_FILE]);
        assert_eq!(names(&keys), [ISSUING_KEY_FILE, ISSUING_FILE]);
        assert_eq!(mode(&own.join(AUTHORITY_KEY_FILE)), 0o600);
        assert_eq!(mode(&keys.join(ISSUING_KEY_FILE)), 0o600);
        let authority = Authority::load(&own).unwrap();
        let loaded = Issuing::load(&keys, authority.certificate(), SystemTime::now()).unwrap();
        assert_eq!((loaded.platform(), authority.platform()), (PLATFORM, PLATFORM));
        for (end, whole) in [(authority.expires(), AUTHORITY_VALIDITY), (loaded.expires(), ISSUING_VALIDITY)]
        {
            let left = end.duration_since(SystemTime::now()).unwrap();
            assert!(left <= whole && left > whole - MONTH);
        }
        for (at, role) in [Role::Relay, Role::Agent, Role::Publisher].into_iter().enumerate() {
            for (by, issuing) in [&created, &loaded].into_iter().enumerate() {
                let out = directory.path().join(format!("deep/{at}{by}"));
                let labels = Labels::new([("region", "eu")]).unwrap();
                let name = peer(role, "web-1").with_labels(labels);
                let issued = issuing.issue(&name, MONTH, SystemTime::now(), &out).unwrap();
                let identity = Identity::load(&out).unwrap();
                assert_eq!(identity.name(), issued.name());
                assert_eq!(*identity.name(), name);
                assert_eq!(identity.authority_hash(), authority.hash());
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
        let loaded = Authority::load(&own).unwrap();
        let again = Issuing::create(&loaded, &directory.path().join("keys"), SystemTime::now());
        assert!(matches!(again, Err(AuthorityError::AlreadyThere { .. })));
        assert_eq!(fs::read(own.join(AUTHORITY_KEY_FILE)).unwrap(), before);

        let out = directory.path().join("out");
        let issue = |authority: &Issuing, out: &Path| {
            authority.issue(&peer(Role::Agent, "web-1"), MONTH, SystemTime::now(), out)
        };
        issue(&authority, &out).unwrap();
        let before = fs::read(out.join(IDENTITY_FILE)).unwrap();
        assert!(matches!(issue(&authority, &out), Err(AuthorityError::AlreadyThere { .. })));
        assert_eq!(fs::read(out.join(IDENTITY_FILE)).unwrap(), before);
        // An issue that was cut off after its first file can be made again, by the same authority.
        fs::remove_file(out.join(IDENTITY_FILE)).unwrap();
        let other = other(&directory);
        assert!(matches!(issue(&other, &out), Err(AuthorityError::AlreadyThere { .. })));
        issue(&authority, &out).unwrap();
        assert_eq!(names(&out), [AUTHORITY_FILE, IDENTITY_FILE], "nothing is left lying about");
    }

    #[test]
    fn what_is_issued_ends_before_its_issuer_does() {
        let (directory, authority) = created();
        let now = SystemTime::now();
        let (name, out) = (peer(Role::Agent, "web-1"), directory.path().join("out"));
        let issue = |valid, now| authority.issue(&name, valid, now, &out);
        for valid in [Duration::ZERO, ISSUING_VALIDITY + MONTH, Duration::MAX] {
            assert!(matches!(issue(valid, now), Err(AuthorityError::Validity { .. })), "{valid:?}");
        }
        let late = now + ISSUING_VALIDITY;
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
        let other_key = fs::read({
            other(&directory);
            directory.path().join("other").join(AUTHORITY_KEY_FILE)
        });
        for wrong in [&other_key.unwrap()[..], b"junk", &[0xff; 40]] {
            fs::write(&key_path, wrong).unwrap();
            fs::set_permissions(&key_path, Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Authority::load(&own), Err(AuthorityError::WrongKey { .. })));
        }
        fs::remove_file(&key_path).unwrap();
        assert!(matches!(Authority::load(&own), Err(AuthorityError::File { .. })));
    }

    #[test]
    fn w_3_an_issuer_of_another_authority_is_refused() {
        let (directory, _) = created();
        other(&directory);
        let own = Authority::load(&directory.path().join("authority")).unwrap();
        let refused = Issuing::load(&directory.path().join("other"), own.certificate(), SystemTime::now());
        assert!(matches!(refused, Err(AuthorityError::Refused(_))), "{refused:?}");
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
