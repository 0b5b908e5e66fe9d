//! What answers hold.

use crate::acceptance::Accepted;
use crate::codec::{self, CodecError};
use crate::encode_as_array;
use crate::id::ProofHash;
use crate::limits::{MAX_DOCUMENT, MAX_EDIT, MAX_WAYPOINTS};
use crate::protocol::EditHead;
use crate::release::BundleLeaf;
use bytes::Bytes;

/// What is newest in a channel; each part has a resource of its own (HT-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewsAnswer {
    /// The version of trust in force.
    pub trust: u64,
    /// The newest release that is served; `None` before the first.
    pub latest: Option<Accepted>,
    /// Epoch and sequence of the newest head; zeros for none.
    pub head: (u64, u64),
}
encode_as_array!(NewsAnswer { trust, latest, head });

impl NewsAnswer {
    /// Whether there is anything in it for one that knows this much (HT-7).
    pub fn is_news(&self, after: &super::After) -> bool {
        let release = self.latest.map_or((0, 0), |latest| latest.rank());
        self.trust > after.trust || release > after.release || self.head > after.head
    }
}

/// A bundle in a release: its leaf, where that stands, and the hashes that prove it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafAnswer {
    /// Its place among the release's leaves.
    pub index: u64,
    /// The leaf.
    pub leaf: BundleLeaf,
    /// The proof of this one leaf (specs/documents.md, D-14).
    pub siblings: Vec<ProofHash>,
}
encode_as_array!(LeafAnswer { index, leaf, siblings });

/// The strong entity tag of a body: what its bytes are, and nothing else (HT-13).
pub fn entity_tag(pieces: &[Bytes]) -> String {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(piece);
    }
    format!("\"{}\"", hasher.finalize().to_hex().split_at(32).0)
}

/// Whether the entity tags that a caller says it has name this one (RFC 9110, section 13.1.2).
pub fn has_tag(if_none_match: &str, tag: &str) -> bool {
    let weak = |one: &str| one.trim().trim_start_matches("W/").to_owned();
    if_none_match.trim() == "*" || if_none_match.split(',').any(|one| weak(one) == tag)
}

/// Edits of a bundle: what they apply to, and themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditBody {
    /// What the first applies to, and how long each is.
    pub head: EditHead,
    /// The edits, in order.
    pub edits: Vec<Bytes>,
}

impl EditBody {
    /// The body of an answer, in pieces that follow one another.
    pub fn into_pieces(self) -> Vec<Bytes> {
        core::iter::once(codec::encode(&self.head).into()).chain(self.edits).collect()
    }

    /// Reads a body: the head, and then exactly the bytes that it announces (HT-9).
    ///
    /// # Errors
    /// When it is not that.
    pub fn read(body: &Bytes) -> Result<Self, CodecError> {
        let length = codec::item_length(body)?;
        let head: EditHead = codec::decode(body.get(..length).unwrap_or_default(), MAX_DOCUMENT)?;
        let shape = |reason: &str| CodecError::Shape { wanted: "edits of a bundle", reason: reason.into() };
        if head.before.len() > MAX_WAYPOINTS {
            return Err(shape("too many edits"));
        }
        let mut rest = body.slice(length..);
        let mut edits = Vec::with_capacity(head.before.len() + 1);
        for length in head.lengths() {
            if length > rest.len() as u64 || length > MAX_EDIT {
                return Err(shape("an edit is longer than what came"));
            }
            edits.push(rest.split_to(length as usize));
        }
        match rest.len() {
            0 => Ok(Self { head, edits }),
            extra => Err(CodecError::Trailing { extra }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::After;
    use crate::id::{NodeId, ReleaseHash};
    use crate::protocol::{EditBase, Waypoint};

    #[test]
    fn ht_7_news_is_what_is_higher_in_any_part() {
        let after = After { trust: 2, release: (1, 5), head: (1, 9), wait: 0 };
        let known = Accepted { epoch: 1, number: 5, hash: ReleaseHash::from_bytes([0; 32]) };
        let same = NewsAnswer { trust: 2, latest: Some(known), head: (1, 9) };
        assert!(!same.is_news(&after));
        assert!(!NewsAnswer { trust: 1, latest: None, head: (1, 8) }.is_news(&after), "older is none");
        assert!(NewsAnswer { trust: 3, ..same }.is_news(&after));
        assert!(NewsAnswer { head: (2, 1), ..same }.is_news(&after));
        assert!(NewsAnswer { latest: Some(Accepted { number: 6, ..known }), ..same }.is_news(&after));
        assert!(
            NewsAnswer { latest: Some(Accepted { epoch: 2, number: 1, ..known }), ..same }.is_news(&after)
        );
    }

    #[test]
    fn ht_13_a_tag_is_of_the_bytes_however_they_are_cut() {
        let whole = entity_tag(&[Bytes::from_static(b"abcd")]);
        assert_eq!(whole, entity_tag(&[Bytes::from_static(b"ab"), Bytes::from_static(b"cd")]));
        assert_ne!(whole, entity_tag(&[Bytes::from_static(b"abce")]));
        assert!(has_tag(&whole, &whole) && has_tag("*", &whole));
        assert!(has_tag(&format!("\"x\", W/{whole}"), &whole));
        assert!(!has_tag("\"x\"", &whole) && !has_tag("", &whole));
    }

    #[test]
    fn ht_9_edits_are_exactly_what_their_head_announces() {
        let waypoint = Waypoint { root: NodeId::from_bytes([1; 32]), files: 1, bytes: 2, length: 3 };
        let head = EditHead { base: EditBase::Empty, length: 2, before: vec![waypoint] };
        let edits = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"de")];
        let body = EditBody { head, edits };
        let bytes: Bytes = body.clone().into_pieces().concat().into();
        assert_eq!(EditBody::read(&bytes), Ok(body));
        assert!(EditBody::read(&bytes.slice(..bytes.len() - 1)).is_err());
        assert!(EditBody::read(&[&bytes[..], b"f"].concat().into()).is_err());
        assert!(EditBody::read(&Bytes::new()).is_err());
    }
}
