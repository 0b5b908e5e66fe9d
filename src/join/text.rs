//! The join string: what a person carries from the origin to a new machine.

use crate::codec;
use crate::encode_as_array;
use crate::id::{PlatformId, TrustHash, context, derive};
use crate::limits::{MAX_ADDRESS, MAX_JOIN_ADDRESSES, MAX_JOIN_STRING};
use crate::member::{Labels, Role};
use crate::path::MemberName;
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const FAMILY: &str = "rootcast-join-";
const VERSION: &str = "1";
const CHECKSUM: usize = 4;
/// RFC 4648 base 32, in lower case and without padding: it survives dictation and a double click.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Why text is not a join string that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinStringError {
    /// It does not begin as one.
    #[error("this is not a join string: it begins with `{FAMILY}{VERSION}:`; `rootcast invite` prints one")]
    NotOne,
    /// Another version of the format.
    #[error(
        "this join string is of version {version}, and this program reads version {VERSION}; use the same release of rootcast on both machines"
    )]
    OtherVersion {
        /// What stands there, shortened.
        version: String,
    },
    /// A part at the end is missing.
    #[error("the join string is cut off; copy the whole line")]
    CutOff,
    /// Some character is another one.
    #[error("the join string is mistyped{}; copy it again", at(*.position))]
    Mistyped {
        /// Where, counted from 1, if it is known.
        position: Option<usize>,
    },
    /// Whole and unchanged, and still not what a join string holds.
    #[error("the join string is not sound: {0}; make another with `rootcast invite`")]
    Unsound(String),
    /// Its time is over.
    #[error("the join string has expired; make another with `rootcast invite`")]
    Expired,
}

fn at(position: Option<usize>) -> String {
    position.map_or_else(String::new, |position| format!(" at character {position}"))
}

/// The secret of a token. Whoever has it can join in the token's place.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; 16]);

impl TokenSecret {
    /// Takes 16 random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
    /// The seed of the token's Ed25519 key, whose public half is all that the origin keeps (J-3).
    pub fn seed(&self) -> [u8; 32] {
        derive(context::JOIN_TOKEN, &[&self.0])
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

impl Serialize for TokenSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for TokenSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(codec::FixedBytes::<16>).map(Self)
    }
}

/// What a join string says (J-1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinString {
    /// The platform to join.
    pub platform: PlatformId,
    /// The fingerprint of its trust document, version 1: what the joiner believes in.
    pub fingerprint: TrustHash,
    /// Relays that can be asked, as `host:port`, the best first.
    pub addresses: Vec<String>,
    /// The secret of the token.
    pub secret: TokenSecret,
    /// What the joiner will be.
    pub role: Role,
    /// The name it must take, where the token names it.
    pub name: Option<MemberName>,
    /// The labels it will have.
    pub labels: Labels,
    /// When it stops being good, in seconds since 1970.
    pub expires: u64,
    /// How many machines it is good for.
    pub uses: u64,
}
encode_as_array!(JoinString { platform, fingerprint, addresses, secret, role, name, labels, expires, uses });

impl JoinString {
    /// The one line.
    pub fn to_text(&self) -> String {
        let mut bytes = codec::encode(self);
        bytes.extend(checksum(&bytes));
        format!("{FAMILY}{VERSION}:{}", to_base32(&bytes))
    }

    /// Reads the line; space around it is left aside.
    ///
    /// # Errors
    /// [`JoinStringError`], which says what is wrong with it. Expiry is
    /// [`JoinString::check_time`]'s.
    pub fn parse(text: &str) -> Result<Self, JoinStringError> {
        let text = text.trim();
        if text.len() > MAX_JOIN_STRING {
            return Err(JoinStringError::Unsound("it is too long".into()));
        }
        let rest = match text.strip_prefix(FAMILY) {
            Some(rest) => rest,
            None if !text.is_empty() && FAMILY.starts_with(text) => return Err(JoinStringError::CutOff),
            None => return Err(JoinStringError::NotOne),
        };
        let (version, encoded) = rest.split_once(':').ok_or(JoinStringError::CutOff)?;
        if version != VERSION {
            return Err(JoinStringError::OtherVersion { version: version.chars().take(20).collect() });
        }
        let before = FAMILY.len() + VERSION.len() + 1;
        let bytes = from_base32(encoded, before)?;
        let whole = bytes.len().checked_sub(CHECKSUM).and_then(|length| bytes.split_at_checked(length));
        let Some((content, sum)) = whole.filter(|(content, _)| !content.is_empty()) else {
            return Err(JoinStringError::CutOff);
        };
        if checksum(content) != sum {
            // An item that says that it is longer than what is there was cut off, or its length was mistyped.
            return Err(match codec::item_length(&bytes) {
                Ok(length) if length + CHECKSUM <= bytes.len() => {
                    JoinStringError::Mistyped { position: None }
                }
                Ok(_) | Err(codec::CodecError::Truncated { .. }) => JoinStringError::CutOff,
                Err(_) => JoinStringError::Mistyped { position: None },
            });
        }
        let join: Self = codec::decode(content, MAX_JOIN_STRING as u64)
            .map_err(|error| JoinStringError::Unsound(error.to_string()))?;
        join.check()?;
        Ok(join)
    }

    /// Checks what the fields alone can show.
    ///
    /// # Errors
    /// [`JoinStringError::Unsound`].
    pub fn check(&self) -> Result<(), JoinStringError> {
        let unsound = |reason: &str| Err(JoinStringError::Unsound(reason.into()));
        if self.addresses.is_empty() || self.addresses.len() > MAX_JOIN_ADDRESSES {
            return unsound("it names no address, or too many");
        }
        if self.addresses.iter().any(|address| !is_address(address)) {
            return unsound("an address is not host:port");
        }
        if self.uses == 0 { unsound("it is good for no machine") } else { Ok(()) }
    }

    /// Checks that its time is not over; the joiner's clock may be wrong, the origin's decides.
    ///
    /// # Errors
    /// [`JoinStringError::Expired`].
    pub const fn check_time(&self, now: u64) -> Result<(), JoinStringError> {
        if now >= self.expires { Err(JoinStringError::Expired) } else { Ok(()) }
    }
}

/// Whether text has the form `host:port`.
pub(crate) fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_is_plain = host.chars().all(|c| c.is_ascii_alphanumeric() || "-._[]:%".contains(c));
    text.len() <= MAX_ADDRESS && !host.is_empty() && host_is_plain && port.parse::<u16>().is_ok_and(|p| p > 0)
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    let [a, b, c, d, ..] = derive(context::JOIN_STRING, &[content]);
    [a, b, c, d]
}

fn to_base32(bytes: &[u8]) -> String {
    let (mut text, mut held, mut bits) = (String::new(), 0u32, 0u32);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(letter(held >> bits));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(letter(held << (5 - bits)));
    }
    text
}

fn letter(value: u32) -> char {
    ALPHABET.get((value & 31) as usize).copied().map_or('a', char::from)
}

/// `before` is how many characters stand before `text`, for messages.
fn from_base32(text: &str, before: usize) -> Result<Vec<u8>, JoinStringError> {
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0u32, 0u32);
    for (at, character) in text.chars().enumerate() {
        let value = ALPHABET.iter().position(|letter| char::from(*letter) == character);
        let position = Some(before + at + 1);
        let value = value.ok_or(JoinStringError::Mistyped { position })? as u32;
        held = held << 5 | value;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
            held &= (1 << bits) - 1;
        }
    }
    // What is left over is less than a character's worth of zeros, or characters are missing.
    if bits >= 5 || held != 0 { Err(JoinStringError::CutOff) } else { Ok(bytes) }
}
