//! The one encoding of every document, node and message: canonical CBOR.
//!
//! RFC 8949 section 4.2.1 (core deterministic encoding), narrowed: no floats,
//! no tags but the one that `cose` reads, no indefinite lengths, structures as
//! arrays. [`decode`] refuses everything else before `serde_cbor` sees it, and
//! then demands that encoding the value again gives the same bytes, so one
//! value has one encoding (specs/codec.md, K-1 to K-6).

use crate::limits::MAX_NESTING;
use core::fmt;
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};

/// Why bytes are not the canonical encoding of what was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end inside an item.
    #[error("truncated at byte {at}")]
    Truncated {
        /// Offset of the item that is not whole.
        at: usize,
    },
    /// Bytes follow the item.
    #[error("{extra} bytes after the end")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// Well-formed CBOR, but not in the one allowed form.
    #[error("not canonical at byte {at}: {reason}")]
    NotCanonical {
        /// Offset of the item.
        at: usize,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// Nested deeper than any document here.
    #[error("nested deeper than {MAX_NESTING} levels at byte {at}")]
    TooDeep {
        /// Offset of the item.
        at: usize,
    },
    /// Canonical, but not the shape that was wanted.
    #[error("not {wanted}: {reason}")]
    Shape {
        /// The type that was wanted.
        wanted: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// More than the bound for this kind of document.
    #[error("{size} bytes, over the limit of {limit}")]
    TooLarge {
        /// Bytes given.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
}

/// Encodes a value. Our types have one encoding each and nothing that can fail.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut serializer = serde_cbor::Serializer::new(&mut bytes).packed_format();
    // Writing to a Vec cannot fail and no type of this crate refuses to be serialised.
    let outcome = value.serialize(&mut serializer);
    debug_assert!(outcome.is_ok(), "{outcome:?}");
    bytes
}

/// Decodes a value of at most `limit` bytes, refusing all but its one encoding.
///
/// Allocates at most a small multiple of `bytes.len()`: lengths are checked
/// against the bytes that are there before anything is built.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], limit: u64) -> Result<T, CodecError> {
    let size = bytes.len() as u64;
    if size > limit {
        return Err(CodecError::TooLarge { size, limit });
    }
    check_canonical(bytes)?;
    let wanted = core::any::type_name::<T>();
    let value: T = serde_cbor::from_slice(bytes)
        .map_err(|error| CodecError::Shape { wanted, reason: error.to_string() })?;
    if encode(&value) != bytes {
        return Err(CodecError::Shape { wanted, reason: "another form of the same value".into() });
    }
    Ok(value)
}

/// Checks that `bytes` are exactly one canonical item, without building it.
pub fn check_canonical(bytes: &[u8]) -> Result<(), CodecError> {
    let mut scan = Scan { bytes, at: 0 };
    scan.item(0)?;
    match bytes.len() - scan.at {
        0 => Ok(()),
        extra => Err(CodecError::Trailing { extra }),
    }
}

/// The length of the canonical item that `bytes` begin with.
pub(crate) fn item_length(bytes: &[u8]) -> Result<usize, CodecError> {
    let mut scan = Scan { bytes, at: 0 };
    scan.item(0)?;
    Ok(scan.at)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], CodecError> {
        let at = self.at;
        let rest = self.bytes.get(at..).unwrap_or_default();
        let count = usize::try_from(count).map_err(|_| CodecError::Truncated { at })?;
        let taken = rest.get(..count).ok_or(CodecError::Truncated { at })?;
        self.at += count;
        Ok(taken)
    }

    /// Reads a head: major type and argument, in the shortest form only.
    fn head(&mut self) -> Result<(u8, u64), CodecError> {
        let at = self.at;
        let not_canonical = |reason| CodecError::NotCanonical { at, reason };
        let first = self.take(1)?.first().copied().ok_or(CodecError::Truncated { at })?;
        let (major, info) = (first >> 5, first & 0x1f);
        if major == 7 {
            // Only false, true and null; serde writes Option and bool with them.
            return match info {
                20..=22 => Ok((7, info.into())),
                _ => Err(not_canonical("floats, undefined and other simple values are not used")),
            };
        }
        let (argument, least) = match info {
            0..=23 => return Ok((major, info.into())),
            24 => (self.take(1)?, 24),
            25 => (self.take(2)?, 1 << 8),
            26 => (self.take(4)?, 1 << 16),
            27 => (self.take(8)?, 1 << 32),
            31 => return Err(not_canonical("indefinite length")),
            _ => return Err(not_canonical("reserved length")),
        };
        let argument = argument.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        if argument < least {
            return Err(not_canonical("integer or length not in its shortest form"));
        }
        Ok((major, argument))
    }

    fn item(&mut self, depth: usize) -> Result<(), CodecError> {
        let at = self.at;
        if depth > MAX_NESTING {
            return Err(CodecError::TooDeep { at });
        }
        let (major, argument) = self.head()?;
        match major {
            0 | 1 | 7 => Ok(()),
            2 => self.take(argument).map(drop),
            3 => core::str::from_utf8(self.take(argument)?)
                .map(drop)
                .map_err(|_| CodecError::NotCanonical { at, reason: "text is not UTF-8" }),
            4 => {
                self.fits(at, argument)?;
                (0..argument).try_for_each(|_| self.item(depth + 1))
            }
            5 => {
                self.fits(at, argument)?;
                let mut last: Option<&[u8]> = None;
                for _ in 0..argument {
                    let start = self.at;
                    self.item(depth + 1)?;
                    let key = self.bytes.get(start..self.at).unwrap_or_default();
                    if last.is_some_and(|last| last >= key) {
                        let reason = "map keys repeated or out of order";
                        return Err(CodecError::NotCanonical { at: start, reason });
                    }
                    last = Some(key);
                    self.item(depth + 1)?;
                }
                Ok(())
            }
            _ => Err(CodecError::NotCanonical { at, reason: "tag" }),
        }
    }

    /// Refuses a count of items that the bytes left could not hold.
    fn fits(&self, at: usize, count: u64) -> Result<(), CodecError> {
        if count > (self.bytes.len() - self.at) as u64 {
            return Err(CodecError::Truncated { at });
        }
        Ok(())
    }
}

/// Visitor of a byte string of exactly `N` bytes.
pub(crate) struct FixedBytes<const N: usize>;

impl<'de, const N: usize> Visitor<'de> for FixedBytes<N> {
    type Value = [u8; N];
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a byte string of {N} bytes")
    }
    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<[u8; N], A::Error> {
        Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self))
    }
}

/// Gives a struct the encoding of an array of its fields, in the order named.
#[macro_export]
macro_rules! encode_as_array {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                ($(&self.$field,)+).serialize(serializer)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let ($($field,)+) = serde::Deserialize::deserialize(deserializer)?;
                Ok(Self { $($field),+ })
            }
        }
    };
}
