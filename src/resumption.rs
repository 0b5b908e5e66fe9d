//! Updates that broke off: what a child has of their edits, so that a parent sends the rest
//! (specs/wire.md, W-58 to W-60).
//!
//! Nothing names an edit while it is under way, and nothing needs to: the child tells the hash of
//! what it has, and whichever parent has an edit that begins so leaves that out. Bytes that a
//! parent made up fit no other's edit, and cost no more than to be sent again.

use crate::encode_as_array;
use crate::id::{BeginningHash, context};
use crate::limits::{MAX_BEGINNINGS, MIN_RESUMED};
use bytes::{Bytes, BytesMut};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// The bytes that an edit begins with, as far as a child has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// How many there are.
    pub length: u64,
    /// Their hash.
    pub hash: BeginningHash,
}
encode_as_array!(Beginning { length, hash });

/// What a child has of edits, at most [`MAX_BEGINNINGS`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Beginnings(Vec<Beginning>);

impl<'de> Deserialize<'de> for Beginnings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = Vec::<Beginning>::deserialize(deserializer)?;
        if all.len() > MAX_BEGINNINGS {
            return Err(D::Error::custom("too many beginnings"));
        }
        Ok(Self(all))
    }
}

impl Beginnings {
    /// Those of the edits that a child has begun: the first [`MAX_BEGINNINGS`].
    pub fn of<'b>(begun: impl IntoIterator<Item = &'b Begun>) -> Self {
        Self(begun.into_iter().take(MAX_BEGINNINGS).map(Begun::beginning).collect())
    }
    /// Whether there are none, as after most updates.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For each edit the place of the longest beginning that it has, each named once.
    /// Hashes the edits once over, as far as it must.
    pub fn found(&self, edits: &[Bytes]) -> Vec<Option<u64>> {
        let mut left: Vec<(u64, &Beginning)> = (0u64..).zip(&self.0).collect();
        left.retain(|(_, beginning)| beginning.length >= MIN_RESUMED);
        left.sort_unstable_by_key(|(_, beginning)| beginning.length);
        let mut found = |edit: &Bytes| {
            let (mut hasher, mut done) = (hasher(), 0);
            let mut longest = None;
            for (place, (index, beginning)) in left.iter().enumerate() {
                let end = usize::try_from(beginning.length).ok();
                let Some(more) = end.and_then(|end| edit.get(done..end)) else { break };
                hasher.update(more);
                done += more.len();
                if *hasher.finalize().as_bytes() == *beginning.hash.as_bytes() {
                    longest = Some((place, *index));
                }
            }
            let (place, index) = longest?;
            left.remove(place);
            Some(index)
        };
        edits.iter().map(&mut found).collect()
    }

    /// How many bytes of an edit a place stands for; `None` where there is no such place.
    pub fn length(&self, place: u64) -> Option<u64> {
        let place = usize::try_from(place).ok()?;
        self.0.get(place).map(|beginning| beginning.length)
    }
}

fn hasher() -> blake3::Hasher {
    blake3::Hasher::new_derive_key(context::EDIT_BEGINNING)
}

/// An edit that is under way, or was when its update broke off.
#[derive(Debug, Clone)]
pub struct Begun {
    bytes: BytesMut,
    /// All of it in the place of `bytes`, where it is whole and shared.
    whole: Bytes,
    hasher: blake3::Hasher,
}

impl Default for Begun {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), whole: Bytes::new(), hasher: hasher() }
    }
}

impl Begun {
    /// Adds bytes that arrived.
    pub fn extend(&mut self, more: &[u8]) {
        if !self.whole.is_empty() {
            self.bytes = core::mem::take(&mut self.whole).into();
        }
        self.bytes.extend_from_slice(more);
        self.hasher.update(more);
    }
    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        (self.bytes.len() + self.whole.len()) as u64
    }
    /// What to tell a parent of it.
    pub fn beginning(&self) -> Beginning {
        let hash = BeginningHash::from_bytes(*self.hasher.finalize().as_bytes());
        Beginning { length: self.length(), hash }
    }
    /// The bytes, shared: more are not expected.
    pub fn share(&mut self) -> Bytes {
        if self.whole.is_empty() {
            self.whole = core::mem::take(&mut self.bytes).freeze();
        }
        self.whole.clone()
    }
}
