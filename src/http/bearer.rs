//! The token of a member whose certificate does not reach the relay, since TLS
//! ends before it (specs/http.md, HT-20 to HT-24).

use crate::codec::{self, CodecError};
use crate::cose::{self, DocumentKind, KeySet, PublicKey, SignatureError};
use crate::encode_as_array;
use crate::id::PlatformId;
use crate::limits::{BEARER_SKEW, MAX_BEARER, MAX_BEARER_LIFE, MAX_CHAIN, MAX_URL};
use bytes::Bytes;

/// What a member says with its key: that whoever shows this may read for it what
/// lies below a path, for a while. It is good for reading, and for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// What the path of a request must begin with; it ends with a slash.
    pub prefix: String,
    /// When it was signed, in seconds since 1970.
    pub issued: u64,
    /// From when on it is good no more.
    pub expires: u64,
}
encode_as_array!(Bearer { prefix, issued, expires });

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// It is not one.
    #[error("not a token: {0}")]
    Codec(#[from] CodecError),
    /// It is not hexadecimal digits, or more than any token needs.
    #[error("a token is at most {MAX_BEARER} bytes in hexadecimal digits")]
    Text,
    /// The key of the certificate in it did not sign it.
    #[error("the token is not signed as it must be: {0}")]
    Signature(#[from] SignatureError),
    /// It is for something else.
    #[error("the token is for paths below {}", prefix.escape_debug())]
    Path {
        /// What it is for.
        prefix: String,
    },
    /// It is for longer than any token may be, or for no time at all.
    #[error("the token is good for longer than {} s, or for no time", MAX_BEARER_LIFE.as_secs())]
    Life,
    /// It is too old, or from the future.
    #[error("the token is good from {issued} to {expires}, and it is {now}; are the clocks right?")]
    Time {
        /// When it was signed.
        issued: u64,
        /// When it ends.
        expires: u64,
        /// The time here.
        now: u64,
    },
}

impl Bearer {
    /// One for all of a platform, from now on, as long as one may be.
    pub fn new(platform: PlatformId, now: u64) -> Self {
        let prefix = super::Url::prefix(platform);
        Self { prefix, issued: now, expires: now.saturating_add(MAX_BEARER_LIFE.as_secs()) }
    }

    /// The payload to sign.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Whether it lets a path be read at this time (HT-22).
    ///
    /// # Errors
    /// [`BearerError`], which says why not.
    pub fn judge(&self, path: &str, now: u64) -> Result<(), BearerError> {
        let (issued, expires) = (self.issued, self.expires);
        if self.prefix.len() > MAX_URL || !self.prefix.ends_with('/') || !path.starts_with(&self.prefix) {
            return Err(BearerError::Path { prefix: self.prefix.chars().take(80).collect() });
        }
        if expires <= issued || expires - issued > MAX_BEARER_LIFE.as_secs() {
            return Err(BearerError::Life);
        }
        let skew = BEARER_SKEW.as_secs();
        if issued > now.saturating_add(skew) || now >= expires.saturating_add(skew) {
            return Err(BearerError::Time { issued, expires, now });
        }
        Ok(())
    }
}

/// A token as it travels: a certificate chain, DER, leaf first, and what the leaf's key signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The chain. Nothing here has verified it.
    pub chain: Vec<Bytes>,
    /// The signed [`Bearer`].
    pub document: Bytes,
}
encode_as_array!(Token { chain, document });

impl Token {
    /// The token as text.
    pub fn to_text(&self) -> String {
        hex::encode(codec::encode(self))
    }

    /// Reads the text, which has one form.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_text(text: &str) -> Result<Self, BearerError> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() as u64 > MAX_BEARER * 2 || !text.bytes().all(is_digit) {
            return Err(BearerError::Text);
        }
        let bytes = hex::decode(text).map_err(|_| BearerError::Text)?;
        let token: Self = codec::decode(&bytes, MAX_BEARER)?;
        if token.chain.is_empty() || token.chain.len() > MAX_CHAIN {
            return Err(BearerError::Text);
        }
        Ok(token)
    }

    /// What it says, if this key signed it; the caller has verified that it is the chain's.
    ///
    /// # Errors
    /// [`BearerError`].
    pub fn open(&self, platform: PlatformId, key: &PublicKey) -> Result<Bearer, BearerError> {
        let keys = KeySet { threshold: 1, keys: vec![key.clone()] };
        let payload = cose::verify(DocumentKind::Bearer, platform, &self.document, &keys)?;
        Ok(codec::decode(&payload, MAX_BEARER)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLATFORM: PlatformId = PlatformId::from_bytes([0xab; 16]);
    const NOW: u64 = 1_800_000_000;

    #[test]
    fn ht_22_a_token_is_good_below_its_path_and_in_its_time() {
        let bearer = Bearer::new(PLATFORM, NOW);
        let path = format!("{}main/news", bearer.prefix);
        let (life, skew) = (MAX_BEARER_LIFE.as_secs(), BEARER_SKEW.as_secs());
        for now in [NOW - skew, NOW, NOW + life + skew - 1] {
            assert_eq!(bearer.judge(&path, now), Ok(()));
        }
        for now in [NOW - skew - 1, NOW + life + skew, 0, u64::MAX] {
            assert!(matches!(bearer.judge(&path, now), Err(BearerError::Time { .. })), "{now}");
        }
        let other = Bearer::new(PlatformId::from_bytes([1; 16]), NOW);
        assert!(matches!(other.judge(&path, NOW), Err(BearerError::Path { .. })));
        let all = Bearer { prefix: String::new(), ..bearer.clone() };
        assert!(matches!(all.judge(&path, NOW), Err(BearerError::Path { .. })), "a prefix ends at a segment");
        for expires in [NOW, NOW - 1, NOW + life + 1, u64::MAX] {
            let odd = Bearer { expires, ..bearer.clone() };
            assert_eq!(odd.judge(&path, NOW), Err(BearerError::Life), "{expires}");
        }
    }

    #[test]
    fn ht_20_a_token_has_one_text() {
        let token = Token { chain: vec![Bytes::from_static(b"leaf")], document: Bytes::from_static(b"x") };
        let text = token.to_text();
        assert_eq!(Token::from_text(&text), Ok(token.clone()));
        assert!(Token::from_text(&text.to_uppercase()).is_err());
        assert!(Token::from_text(&format!("{text}00")).is_err());
        assert!(Token::from_text(&Token { chain: Vec::new(), ..token.clone() }.to_text()).is_err());
        let long = Token { document: vec![0; MAX_BEARER as usize].into(), ..token };
        assert_eq!(Token::from_text(&long.to_text()), Err(BearerError::Text));
    }
}
