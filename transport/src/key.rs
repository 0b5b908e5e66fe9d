//! A private key of this process: that of its identity, of a join token, or the
//! origin's online key. ring keeps and uses it; nothing here is an algorithm of ours.

use crate::error::TransportError;
use crate::identity::{Exposure, bad_pem, read_bounded};
use crate::pem;
use rootcast::cose::{self, DocumentKind, PublicKey};
use rootcast::id::PlatformId;
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

/// What stands before the 32 bytes of an Ed25519 seed in PKCS#8 (RFC 8410, section 7).
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// What stands before an Ed25519 public key in a SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The public key in a DER `SubjectPublicKeyInfo`, if it is an Ed25519 one.
pub(crate) fn public_of(spki: &[u8]) -> Option<PublicKey> {
    let key = spki.strip_prefix(&SPKI_HEAD)?;
    PublicKey::from_bytes(key.try_into().ok()?).ok()
}

/// An Ed25519 private key, which never leaves this machine.
pub struct OwnKey {
    der: PrivatePkcs8KeyDer<'static>,
    public: PublicKey,
}

impl OwnKey {
    /// Makes one from the system's random source.
    ///
    /// # Errors
    /// When that source fails.
    pub fn generate() -> Result<Self, TransportError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|source| TransportError::Random { source })?;
        Self::from_seed(&seed)
    }

    /// The key of a 32-byte seed.
    ///
    /// # Errors
    /// Practically never: every seed is a key.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, TransportError> {
        let der = [&PKCS8_HEAD[..], seed].concat();
        Self::from_pkcs8(PrivatePkcs8KeyDer::from(der))
    }

    /// Reads a file that holds one key as PKCS#8 PEM, and refuses one that others can read.
    ///
    /// # Errors
    /// [`TransportError`], which names the file.
    pub fn load(path: &Path) -> Result<Self, TransportError> {
        let pem = Zeroizing::new(read_bounded(path, Exposure::OwnerOnly)?);
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|e| bad_pem(path, &e.to_string()))?;
        Self::from_pkcs8(der)
    }

    pub(crate) fn from_pkcs8(der: PrivatePkcs8KeyDer<'static>) -> Result<Self, TransportError> {
        let key = any_eddsa_type(&der).map_err(|source| TransportError::Tls { source })?;
        let public = key.public_key().and_then(|spki| public_of(spki.as_ref()));
        let unusable = || rustls::Error::General("the private key is not an Ed25519 one".into());
        Ok(Self { public: public.ok_or_else(|| TransportError::Tls { source: unusable() })?, der })
    }

    /// The public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a payload: a whole COSE_Sign1 (specs/documents.md, D-2).
    ///
    /// # Errors
    /// Practically never: an Ed25519 key signs anything.
    pub fn sign(
        &self,
        kind: DocumentKind,
        platform: PlatformId,
        payload: &[u8],
    ) -> Result<Vec<u8>, TransportError> {
        let tls = |source| TransportError::Tls { source };
        let failed = || tls(rustls::Error::General("Ed25519 could not sign".into()));
        let id = self.public.id();
        let key = any_eddsa_type(&self.der).map_err(tls)?;
        let signer = key.choose_scheme(&[SignatureScheme::ED25519]).ok_or_else(failed)?;
        let signature = signer.sign(&cose::to_be_signed(kind, platform, id, payload)).map_err(tls)?;
        let signature: [u8; 64] = signature.try_into().map_err(|_| failed())?;
        Ok(cose::assemble(kind, id, payload, &signature))
    }

    /// The key as PKCS#8 PEM.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem::encode("PRIVATE KEY", self.der.secret_pkcs8_der()))
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnKey({})", self.public.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootcast::cose::KeySet;

    const PLATFORM: PlatformId = PlatformId::from_bytes([3; 16]);

    #[test]
    fn what_is_signed_verifies_by_the_public_half() {
        let key = OwnKey::generate().unwrap();
        let document = key.sign(DocumentKind::Release, PLATFORM, b"payload").unwrap();
        let keys = KeySet { threshold: 1, keys: vec![key.public().clone()] };
        assert_eq!(cose::verify(DocumentKind::Release, PLATFORM, &document, &keys).unwrap(), "payload");
        let other = KeySet { threshold: 1, keys: vec![OwnKey::generate().unwrap().public().clone()] };
        assert!(cose::verify(DocumentKind::Release, PLATFORM, &document, &other).is_err());
    }

    #[test]
    fn a_seed_gives_the_key_of_rfc_8032() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let bytes = |text: &str| -> [u8; 32] {
            let digit = |at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap();
            core::array::from_fn(digit)
        };
        let key = OwnKey::from_seed(&bytes(seed)).unwrap();
        assert_eq!(key.public().to_bytes(), bytes(public));
    }

    #[test]
    fn a_key_survives_its_file_and_is_refused_where_others_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let (path, key) = (directory.path().join("key"), OwnKey::generate().unwrap());
        std::fs::write(&path, key.to_pem().as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(OwnKey::load(&path), Err(TransportError::KeyExposed { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(OwnKey::load(&path).unwrap().public(), key.public());
    }
}
