//! The header: lines of text that give each recipient the file key, and their HMAC.

use crate::AgeError;
use crate::primitives::{FileKey, derive};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::hmac;
use rootcast::limits::MAX_SECRET_RECIPIENTS;

/// The type of the stanzas that are understood.
pub(crate) const X25519: &str = "X25519";
/// The type of the stanza that stands for a passphrase.
pub(crate) const PASSPHRASE: &str = "scrypt";
/// The first line of every age file.
pub const VERSION: &str = "age-encryption.org/v1\n";
const STANZA: &str = "-> ";
const END: &str = "---";
/// Characters of a full line of a stanza's body.
const LINE: usize = 64;
/// Characters of 32 bytes in base64: an HMAC, a share, a wrapped key.
const HASH_TEXT: u64 = 43;

/// Bytes of the header for so many X25519 recipients.
pub(crate) const fn size(recipients: u64) -> u64 {
    let stanza = (STANZA.len() + X25519.len() + 3) as u64 + 2 * HASH_TEXT;
    (VERSION.len() + END.len() + 2) as u64 + HASH_TEXT + recipients * stanza
}

/// One way to the file key.
pub(crate) struct Stanza {
    /// Its type, and what that needs.
    pub(crate) arguments: Vec<String>,
    /// The wrapped key.
    pub(crate) body: Vec<u8>,
}

impl Stanza {
    /// Whether a passphrase opens it.
    pub(crate) fn is_passphrase(&self) -> bool {
        self.arguments.first().is_some_and(|kind| kind == PASSPHRASE)
    }
}

/// A header that was read, and not authenticated yet.
pub(crate) struct Header<'f> {
    pub(crate) stanzas: Vec<Stanza>,
    /// What the HMAC is over.
    authenticated: &'f [u8],
    mac: Vec<u8>,
}

fn mac_key(file_key: &FileKey) -> Result<hmac::Key, AgeError> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &*derive(&**file_key, &[], b"header")?))
}

/// Writes a header.
pub(crate) fn encode(stanzas: &[Stanza], file_key: &FileKey) -> Result<Vec<u8>, AgeError> {
    let mut text = VERSION.to_owned();
    for stanza in stanzas {
        let body = STANDARD_NO_PAD.encode(&stanza.body);
        text.push_str(STANZA);
        text.push_str(&stanza.arguments.join(" "));
        // The body of either kind of stanza is shorter than a full line, so it is one line.
        text.push('\n');
        text.push_str(&body);
        text.push('\n');
    }
    text.push_str(END);
    let mac = hmac::sign(&mac_key(file_key)?, text.as_bytes());
    text.push(' ');
    text.push_str(&STANDARD_NO_PAD.encode(mac));
    text.push('\n');
    Ok(text.into_bytes())
}

/// Takes a line off, without its end.
fn line<'f>(rest: &mut &'f [u8]) -> Result<&'f str, AgeError> {
    let end = rest.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or(AgeError::Header("it ends before its payload"))?;
    let (line, after) = rest.split_at(end);
    *rest = after.get(1..).unwrap_or_default();
    core::str::from_utf8(line).map_err(|_| AgeError::Header("a line that is not text"))
}

fn decode_base64(text: &str) -> Result<Vec<u8>, AgeError> {
    STANDARD_NO_PAD.decode(text).map_err(|_| AgeError::Header("a line that is not canonical base64"))
}

fn arguments(line: &str) -> Result<Vec<String>, AgeError> {
    let is_argument =
        |argument: &str| !argument.is_empty() && argument.bytes().all(|byte| byte.is_ascii_graphic());
    let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
    if arguments.iter().all(|argument| is_argument(argument)) {
        Ok(arguments)
    } else {
        Err(AgeError::Header("a stanza with an argument that is none"))
    }
}

fn body(rest: &mut &[u8]) -> Result<Vec<u8>, AgeError> {
    let mut body = Vec::new();
    loop {
        let line = line(rest)?;
        if line.len() > LINE {
            return Err(AgeError::Header("a line that is too long"));
        }
        body.extend(decode_base64(line)?);
        // A body ends with its first line that is not full, which may be empty.
        if line.len() < LINE {
            return Ok(body);
        }
    }
}

impl<'f> Header<'f> {
    /// Reads the header at the beginning of a file, and gives what follows it.
    pub(crate) fn decode(file: &'f [u8]) -> Result<(Self, &'f [u8]), AgeError> {
        let mut rest = file.strip_prefix(VERSION.as_bytes()).ok_or(AgeError::Header("another first line"))?;
        let mut stanzas = Vec::new();
        loop {
            let before = rest;
            let line = line(&mut rest)?;
            if let Some(mac) = line.strip_prefix(END) {
                let mac = mac.strip_prefix(' ').ok_or(AgeError::Header("a last line without a space"))?;
                let mac = decode_base64(mac)?;
                if stanzas.is_empty() || mac.len() != 32 {
                    return Err(AgeError::Header("a last line that is none"));
                }
                let length = file.len() - before.len() + END.len();
                let authenticated = file.get(..length).unwrap_or_default();
                return Ok((Self { stanzas, authenticated, mac }, rest));
            }
            let line = line.strip_prefix(STANZA).ok_or(AgeError::Header("a stanza that begins otherwise"))?;
            let stanza = Stanza { arguments: arguments(line)?, body: body(&mut rest)? };
            // Who knows a passphrase could else open what is meant for others, too.
            if !stanzas.is_empty() && (stanza.is_passphrase() || stanzas.iter().any(Stanza::is_passphrase)) {
                return Err(AgeError::Header("it has several recipients, and a passphrase stands alone"));
            }
            if stanzas.len() == MAX_SECRET_RECIPIENTS {
                return Err(AgeError::Header("it has too many recipients"));
            }
            stanzas.push(stanza);
        }
    }

    /// Checks that nothing of the header was changed.
    pub(crate) fn authenticate(&self, file_key: &FileKey) -> Result<(), AgeError> {
        hmac::verify(&mac_key(file_key)?, self.authenticated, &self.mac).map_err(|_| AgeError::Changed)
    }
}
