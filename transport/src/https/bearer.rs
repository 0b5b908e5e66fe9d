//! Tokens of those whose certificate does not reach the relay: TLS ends at a
//! proxy (specs/http.md, HT-20 to HT-24).

use crate::error::TransportError;
use crate::identity::{AuthorityCertificate, Identity, chain_expiry, verify_member_chain};
use crate::key::{OwnKey, public_of};
use crate::name::{NameError, PeerName};
use bytes::Bytes;
use rootcast::cose::DocumentKind;
use rootcast::http::{Bearer, BearerError, Token};
use rootcast::id::PlatformId;
use rootcast::limits::MAX_BEARER_LIFE;
use rustls::pki_types::CertificateDer;
use std::time::SystemTime;
use webpki::EndEntityCert;

/// Why a token is not taken. Whoever shows it learns only that it is not.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenFault {
    /// It is not sound, or not for this.
    #[error(transparent)]
    Bearer(#[from] BearerError),
    /// Its chain does not verify.
    #[error("the certificate in the token is refused: {0}")]
    Certificate(webpki::Error),
    /// Its certificate does not say who it is for.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It is a member's of another platform.
    #[error("the token is of platform {0}")]
    OtherPlatform(PlatformId),
    /// Its certificate is not for an Ed25519 key.
    #[error("the certificate in the token is for no Ed25519 key")]
    Key,
}

/// Whose tokens are taken.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    authority: AuthorityCertificate,
    platform: PlatformId,
}

impl Gate {
    pub(super) fn of(identity: &Identity) -> Self {
        Self { authority: identity.authority().clone(), platform: identity.name().platform() }
    }

    pub(super) const fn platform(&self) -> PlatformId {
        self.platform
    }

    /// Whose token this is, if it is good for this path now: by the same rules as a certificate in a handshake.
    pub(super) fn open(&self, text: &str, path: &str, now: SystemTime) -> Result<PeerName, TokenFault> {
        let token = Token::from_text(text)?;
        let chain: Vec<CertificateDer<'_>> =
            token.chain.iter().map(|der| CertificateDer::from(&der[..])).collect();
        verify_member_chain(&chain, &self.authority, now).map_err(TokenFault::Certificate)?;
        let leaf = chain.first().ok_or(TokenFault::Key)?;
        let name = PeerName::of_leaf(leaf)?;
        if name.platform() != self.platform {
            return Err(TokenFault::OtherPlatform(name.platform()));
        }
        let certificate = EndEntityCert::try_from(leaf).map_err(TokenFault::Certificate)?;
        let key = public_of(certificate.subject_public_key_info().as_ref()).ok_or(TokenFault::Key)?;
        token.open(self.platform, &key)?.judge(path, seconds(now))?;
        Ok(name)
    }
}

/// What makes our own tokens.
#[derive(Debug)]
pub(super) struct Signer {
    key: OwnKey,
    chain: Vec<Bytes>,
    platform: PlatformId,
}

impl Signer {
    pub(super) fn of(identity: &Identity) -> Result<Self, TransportError> {
        let (key, chain) = (identity.own_key()?, identity.chain_der());
        Ok(Self { key, chain, platform: identity.name().platform() })
    }

    /// A token from now on, and when it is time for the next.
    pub(super) fn sign(&self, now: SystemTime) -> Result<(String, SystemTime), TransportError> {
        let payload = Bearer::new(self.platform, seconds(now)).encode();
        let document = self.key.sign(DocumentKind::Bearer, self.platform, &payload)?.into();
        let text = Token { chain: self.chain.clone(), document }.to_text();
        Ok((text, now + MAX_BEARER_LIFE / 2))
    }
}

/// The last moment at which a chain from a handshake is good, and whose it is.
pub(super) fn member_of(chain: &[CertificateDer<'_>]) -> Result<(PeerName, SystemTime), NameError> {
    let leaf = chain.first().ok_or(NameError::Count { count: 0 })?;
    let expires = chain_expiry(chain).map_err(NameError::Certificate)?;
    Ok((PeerName::of_leaf(leaf)?, expires))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
