//! Who this process is: a certificate, its key, and the authority it trusts.

use crate::error::TransportError;
use crate::key::{OwnKey, public_of};
use crate::name::{NameError, PeerName, RELAY_SERVER_NAME, platform_of_authority};
use crate::pem;
use bytes::Bytes;
use rootcast::cose::PublicKey;
use rootcast::id::{AuthorityHash, PlatformId};
use rootcast::limits::{MAX_CHAIN, MAX_DOCUMENT};
use rootcast::member::Role;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, TrustAnchor, UnixTime,
};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};
use webpki::{EndEntityCert, KeyUsage};
use zeroize::Zeroizing;

/// The file of an identity that holds its certificate chain and then its key.
pub const IDENTITY_FILE: &str = "identity.pem";
/// The file of an identity that holds the authority's certificate.
pub const AUTHORITY_FILE: &str = "ca.pem";

/// A certificate authority's certificate: what all peers of a platform trust.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorityCertificate {
    der: CertificateDer<'static>,
    hash: AuthorityHash,
    platform: Option<PlatformId>,
    expires: SystemTime,
}

impl AuthorityCertificate {
    /// Reads the PEM file that holds it.
    pub fn load(path: &Path) -> Result<Self, TransportError> {
        Self::from_pem(&read_bounded(path, Exposure::Public)?, path)
    }

    /// Reads it out of PEM; `path` is where the bytes are, or will be, for messages.
    pub fn from_pem(pem: &[u8], path: &Path) -> Result<Self, TransportError> {
        let mut found = certificates(pem, path)?;
        match (found.pop(), found.is_empty()) {
            (Some(der), true) => Self::from_der(der, path),
            _ => Err(bad_pem(path, "it must hold exactly one certificate")),
        }
    }

    /// Reads DER that came over the network; `path` is where it is to be, for messages.
    pub fn from_bytes(der: &[u8], path: &Path) -> Result<Self, TransportError> {
        Self::from_der(CertificateDer::from(der.to_vec()), path)
    }

    fn from_der(der: CertificateDer<'static>, path: &Path) -> Result<Self, TransportError> {
        let own = |source| TransportError::OwnCertificate { path: path.into(), source };
        webpki::anchor_from_trusted_cert(&der).map_err(own)?;
        let certificate = EndEntityCert::try_from(&der).map_err(own)?;
        let platform = platform_of_authority(&certificate);
        let expires = expiry(&certificate).map_err(own)?;
        Ok(Self { hash: AuthorityHash::of(&der), platform, expires, der })
    }

    /// The certificate's bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
    /// Its hash, which the trust document names.
    pub const fn hash(&self) -> AuthorityHash {
        self.hash
    }
    /// The platform it says it is for; `None` if it was not made by Rootcast.
    pub const fn platform(&self) -> Option<PlatformId> {
        self.platform
    }
    /// The last moment of its validity. TLS does not look at it: what it issues must end before.
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }
    /// The certificate as PEM.
    pub fn to_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der)
    }
    /// Its public key, as DER `SubjectPublicKeyInfo`.
    pub fn public_key(&self) -> Vec<u8> {
        EndEntityCert::try_from(&self.der)
            .map(|certificate| certificate.subject_public_key_info().to_vec())
            .unwrap_or_default() // `from_der` has read it before
    }
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

impl fmt::Debug for AuthorityCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityCertificate({})", self.hash.short())
    }
}

/// Who this process is on its platform (specs/wire.md, W-1 to W-5).
pub struct Identity {
    name: PeerName,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authority: AuthorityCertificate,
    begins: SystemTime,
    expires: SystemTime,
}

impl Identity {
    /// Reads `identity.pem` and `ca.pem` of a directory.
    ///
    /// Refuses a key that others than its owner can read, a certificate without
    /// our one name, and one that the authority beside it did not sign for the
    /// role it claims. One that has expired is loaded, with a warning: what the
    /// process does without the network must go on.
    pub fn load(directory: &Path) -> Result<Self, TransportError> {
        let authority = AuthorityCertificate::load(&directory.join(AUTHORITY_FILE))?;
        let path = directory.join(IDENTITY_FILE);
        Self::from_pem(&read_bounded(&path, Exposure::OwnerOnly)?, authority, &path)
    }

    /// As [`Identity::load`], from bytes; `path` is where they are, or will be, for messages.
    pub fn from_pem(
        pem: &[u8],
        authority: AuthorityCertificate,
        path: &Path,
    ) -> Result<Self, TransportError> {
        let identity = Self::from_pem_unverified(pem, authority, path)?;
        identity.verify_own(path)?;
        Ok(identity)
    }

    pub(crate) fn from_pem_unverified(
        pem: &[u8],
        authority: AuthorityCertificate,
        path: &Path,
    ) -> Result<Self, TransportError> {
        let chain = certificates(pem, path)?;
        let mut keys = PrivatePkcs8KeyDer::pem_slice_iter(pem);
        let key = match (keys.next(), keys.next()) {
            (Some(Ok(key)), None) => PrivateKeyDer::Pkcs8(key),
            (Some(Err(error)), _) => return Err(bad_pem(path, &error.to_string())),
            _ => return Err(bad_pem(path, "it must hold exactly one PKCS#8 private key")),
        };
        let own_name = |source| TransportError::OwnName { path: path.into(), source };
        let leaf = chain.first().ok_or_else(|| bad_pem(path, "it holds no certificate"))?;
        let name = PeerName::of_leaf(leaf).map_err(own_name)?;
        let unreadable = |error| own_name(NameError::Certificate(error));
        let begins = EndEntityCert::try_from(leaf).and_then(|leaf| beginning(&leaf)).map_err(unreadable)?;
        let expires = chain_expiry(&chain).map_err(unreadable)?;
        Ok(Self { name, chain, key, authority, begins, expires })
    }

    /// Takes a chain, leaf first, that was issued for `key`, after every check that
    /// loading it would make. `path` is where it is to be, for messages.
    ///
    /// # Errors
    /// Where the chain is not good under `authority`, or is for another key.
    pub fn of_chain<C: AsRef<[u8]>>(
        chain: &[C],
        key: &OwnKey,
        authority: AuthorityCertificate,
        path: &Path,
    ) -> Result<Self, TransportError> {
        let identity = Self::from_pem(pem_of(chain, key).as_bytes(), authority, path)?;
        if identity.public_key().as_ref() != Some(key.public()) {
            return Err(bad_pem(path, "the certificate is for another key"));
        }
        Ok(identity)
    }

    fn verify_own(&self, path: &Path) -> Result<(), TransportError> {
        let outcome = self.verify_leaf(KeyUsage::client_auth()).and_then(|()| match self.name.role() {
            Role::Relay => self.verify_leaf(KeyUsage::server_auth()),
            Role::Agent | Role::Publisher => Ok(()),
        });
        match outcome {
            Ok(()) => Ok(()),
            Err(error @ (webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. })) => {
                tracing::warn!(path = %path.display(), %error, "our certificate is not valid now; peers will refuse it");
                Ok(())
            }
            Err(source) => Err(TransportError::OwnCertificate { path: path.into(), source }),
        }
    }

    fn verify_leaf(&self, usage: KeyUsage) -> Result<(), webpki::Error> {
        let anchors = [webpki::anchor_from_trusted_cert(self.authority.certificate())?];
        let Some((leaf, above)) = self.chain.split_first() else { return Ok(()) };
        let leaf = EndEntityCert::try_from(leaf)?;
        if self.name.role() == Role::Relay {
            let server_name =
                ServerName::try_from(RELAY_SERVER_NAME).map_err(|_| webpki::Error::MalformedDnsIdentifier)?;
            leaf.verify_is_valid_for_subject_name(&server_name)?;
        }
        let provider = rustls::crypto::ring::default_provider();
        let algorithms = provider.signature_verification_algorithms.all;
        leaf.verify_for_usage(algorithms, &anchors, above, UnixTime::now(), usage, None, None).map(drop)
    }

    /// Our name, as every peer reads it.
    pub const fn name(&self) -> &PeerName {
        &self.name
    }
    /// The authority we trust, and no other.
    pub const fn authority(&self) -> &AuthorityCertificate {
        &self.authority
    }
    /// The hash of that authority, to compare with the trust document's.
    pub const fn authority_hash(&self) -> AuthorityHash {
        self.authority.hash()
    }
    /// The last moment at which peers accept our certificate.
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }
    /// The first moment at which peers accept our certificate.
    pub const fn begins(&self) -> SystemTime {
        self.begins
    }
    /// The public key that our certificate is for, if it is an Ed25519 one.
    pub fn public_key(&self) -> Option<PublicKey> {
        let leaf = EndEntityCert::try_from(self.chain.first()?).ok()?;
        public_of(leaf.subject_public_key_info().as_ref())
    }
    /// The chain as it goes over the wire, DER, leaf first.
    pub fn chain_der(&self) -> Vec<Bytes> {
        self.chain.iter().map(|certificate| Bytes::copy_from_slice(certificate)).collect()
    }
    /// The private key, to sign requests with.
    ///
    /// # Errors
    /// When it is not an Ed25519 key.
    pub fn own_key(&self) -> Result<OwnKey, TransportError> {
        match &self.key {
            PrivateKeyDer::Pkcs8(der) => OwnKey::from_pkcs8(der.clone_key()),
            _ => Err(TransportError::Tls { source: rustls::Error::General("the key is not PKCS#8".into()) }),
        }
    }
    /// Chain and key as `identity.pem` holds them.
    ///
    /// # Errors
    /// As [`Identity::own_key`].
    pub fn to_pem(&self) -> Result<Zeroizing<String>, TransportError> {
        Ok(pem_of(&self.chain, &self.own_key()?))
    }
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} of {})", self.name, self.name.platform())
    }
}

/// The end of a certificate's validity. The verifier tells it only by refusing
/// a time that lies beyond, and it looks at the time before anything else.
fn expiry(certificate: &EndEntityCert<'_>) -> Result<SystemTime, webpki::Error> {
    const BEYOND_ANY: Duration = Duration::from_secs(1 << 40);
    let nothing: [TrustAnchor<'_>; 0] = [];
    let time = UnixTime::since_unix_epoch(BEYOND_ANY);
    let usage = KeyUsage::client_auth();
    match certificate.verify_for_usage(&[], &nothing, &[], time, usage, None, None) {
        Err(webpki::Error::CertExpired { not_after, .. }) => {
            let since = Duration::from_secs(not_after.as_secs());
            SystemTime::UNIX_EPOCH.checked_add(since).ok_or(webpki::Error::InvalidCertValidity)
        }
        Err(other) => Err(other),
        Ok(_) => Err(webpki::Error::InvalidCertValidity),
    }
}

/// The beginning of a certificate's validity; told as [`expiry`] is, by a time before any.
fn beginning(certificate: &EndEntityCert<'_>) -> Result<SystemTime, webpki::Error> {
    let nothing: [TrustAnchor<'_>; 0] = [];
    let time = UnixTime::since_unix_epoch(Duration::ZERO);
    let usage = KeyUsage::client_auth();
    match certificate.verify_for_usage(&[], &nothing, &[], time, usage, None, None) {
        Err(webpki::Error::CertNotValidYet { not_before, .. }) => {
            let since = Duration::from_secs(not_before.as_secs());
            SystemTime::UNIX_EPOCH.checked_add(since).ok_or(webpki::Error::InvalidCertValidity)
        }
        Err(other) => Err(other),
        Ok(_) => Err(webpki::Error::InvalidCertValidity),
    }
}

/// Verifies a chain, leaf first, as the TLS handshake does that of a client.
pub(crate) fn verify_member_chain(
    chain: &[CertificateDer<'_>],
    authority: &AuthorityCertificate,
    now: SystemTime,
) -> Result<(), webpki::Error> {
    let anchors = [webpki::anchor_from_trusted_cert(authority.certificate())?];
    let (leaf, above) = chain.split_first().ok_or(webpki::Error::UnknownIssuer)?;
    let provider = rustls::crypto::ring::default_provider();
    let algorithms = provider.signature_verification_algorithms.all;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (now, usage) = (UnixTime::since_unix_epoch(now), KeyUsage::client_auth());
    EndEntityCert::try_from(leaf)?
        .verify_for_usage(algorithms, &anchors, above, now, usage, None, None)
        .map(drop)
}

/// The last moment at which a whole chain is valid.
pub(crate) fn chain_expiry(chain: &[CertificateDer<'_>]) -> Result<SystemTime, webpki::Error> {
    let mut first = None;
    for certificate in chain {
        let end = expiry(&EndEntityCert::try_from(certificate)?)?;
        first = Some(first.map_or(end, |first: SystemTime| first.min(end)));
    }
    first.ok_or(webpki::Error::InvalidCertValidity)
}

fn pem_of<C: AsRef<[u8]>>(chain: &[C], key: &OwnKey) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    for certificate in chain {
        text.push_str(&pem::encode("CERTIFICATE", certificate.as_ref()));
    }
    text.push_str(&key.to_pem());
    text
}

pub(crate) fn bad_pem(path: &Path, reason: &str) -> TransportError {
    TransportError::BadPem { path: path.into(), reason: reason.into() }
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        found.push(certificate.map_err(|error| bad_pem(path, &error.to_string()))?);
        if found.len() > MAX_CHAIN {
            return Err(bad_pem(path, "it holds too many certificates"));
        }
    }
    Ok(found)
}

#[derive(PartialEq)]
pub(crate) enum Exposure {
    Public,
    OwnerOnly,
}

/// Reads a small file, judging the mode of the very file that is read.
pub(crate) fn read_bounded(path: &Path, exposure: Exposure) -> Result<Vec<u8>, TransportError> {
    let failed = |source| TransportError::ReadFile { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if exposure == Exposure::OwnerOnly && mode & 0o077 != 0 {
        return Err(TransportError::KeyExposed { path: path.into(), mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(bad_pem(path, "it is too large"));
    }
    Ok(bytes)
}
