//! What comes over HTTPS: names, bodies and tokens.

use crate::bounded;
use crate::golden::GOLDEN;
use bytes::Bytes;
use rootcast::http::{EditBody, Token, Url};
use rootcast::limits::{MAX_BEARER, MAX_URL};

/// HT-3: a name that is read is printed as it was written, and stays below its platform.
pub(crate) fn url(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(url) = bounded(input, |_| text.parse::<Url>()) else { return };
    assert_eq!(url.to_string(), text, "HT-3");
    assert!(text.len() <= MAX_URL && text.starts_with(&Url::prefix(url.platform)), "HT-3");
    let is_plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b'~' | b'?' | b'&' | b'=');
    assert!(text.bytes().all(is_plain) && !text.contains("//") && !text.contains("/../"), "HT-2: {text}");
}

/// HT-9: edits are exactly what their head announces.
pub(crate) fn edits(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    let Ok(edits) = bounded(input, |_| EditBody::read(&body)) else { return };
    assert_eq!(edits.into_pieces().concat(), input, "K-4");
}

/// HT-21: a token has one text, and is nobody's who did not sign it.
pub(crate) fn token(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(token) = bounded(input, |_| Token::from_text(text)) else { return };
    assert_eq!(token.to_text(), text, "HT-21");
    assert!(text.len() as u64 <= MAX_BEARER * 2, "HT-21");
    let trust = GOLDEN.trust.trust();
    for key in trust.roots.keys.iter().chain(&trust.heads.keys) {
        assert!(token.open(trust.platform, key).is_err(), "HT-22: nobody signed this");
    }
}
