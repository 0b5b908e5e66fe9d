//! Messages between parent and child, publisher and origin (specs/wire.md, W-20 to W-40).
//!
//! All are canonical CBOR in length-prefixed frames. Edits and objects follow
//! the frame that announces them as raw bytes.

use crate::acceptance::Accepted;
use crate::compact::CompactHead;
use crate::encode_as_array;
use crate::id::{NodeId, ObjectId, ProofHash};
use crate::path::{BundleName, ChannelName};
use crate::release::BundleLeaf;
use crate::resumption::Beginnings;
use crate::status::HostsQuery;
use crate::topology::{Address, Alternates, Condition};
use crate::tree::Totals;
use bytes::Bytes;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The application protocol that both ends must speak.
pub const ALPN: &[u8] = b"rootcast/1";
/// The protocol of those who join or renew without a certificate (specs/join.md, J-10).
pub const JOIN_ALPN: &[u8] = b"rootcast-join/1";

/// What a child opens a bidirectional stream with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opening {
    /// The stream becomes a control stream: a subscription for as long as it is open.
    Subscribe(Subscribe),
    /// One answer: an update from where the child stands, or nothing newer.
    Update(UpdateRequest),
    /// One answer: objects.
    Objects(ObjectsRequest),
    /// One answer: what became of a publication. Edits follow the frame.
    Publish(Publication),
    /// One answer: the relays below, with counts of their hosts (specs/status.md, ST-20).
    Status,
    /// One answer: hosts below, those that match (specs/status.md, ST-22).
    Hosts(HostsQuery),
    /// One answer: the trust documents after this version, in order.
    Trust(u64),
    /// One answer: what became of a new version of the trust document.
    ApplyTrust(Bytes),
    /// One answer: the platform's public documents (specs/join.md, J-11).
    Platform,
    /// One answer: what became of a request to join or to renew (specs/join.md, J-12).
    Join(Bytes),
    /// One answer: how this relay stands in a channel, a [`Condition`].
    Condition(ChannelName),
}

/// Which bundles a child wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interest {
    /// All that there are: a mirror of the origin, or a publisher.
    All,
    /// These, where they exist: an agent, or a relay for those below it. In
    /// name order, each once; see [`Interest::named`].
    Named(#[serde(deserialize_with = "ascending")] Vec<BundleName>),
}

fn ascending<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BundleName>, D::Error> {
    let names = Vec::<BundleName>::deserialize(deserializer)?;
    let in_order = names.is_sorted_by(|one, next| one < next);
    if in_order { Ok(names) } else { Err(D::Error::custom("names are out of order")) }
}

impl Interest {
    /// These bundles, in whatever order.
    pub fn named(names: impl IntoIterator<Item = BundleName>) -> Self {
        let mut names: Vec<BundleName> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        Self::Named(names)
    }

    /// Whether a bundle is among them.
    pub fn covers(&self, name: &BundleName) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.binary_search(name).is_ok(),
        }
    }
}

/// Where a child stands in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The release it holds; `None` before the first.
    pub release: Option<Accepted>,
    /// The bundles that it holds whole at that release, in name order. A
    /// bundle it cannot use as a base (new to it, or damaged) is not among them.
    pub whole: Vec<BundleName>,
}
encode_as_array!(Standing { release, whole });

/// A subscription to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// The channel.
    pub channel: ChannelName,
    /// The number that update streams of this subscription carry.
    pub subscription: u64,
    /// Which bundles.
    pub interest: Interest,
    /// From where.
    pub standing: Standing,
    /// The version of trust in force at the child.
    pub trust: u64,
    /// Epoch and sequence of the child's head; zeros for none.
    pub head: (u64, u64),
    /// Where the child, a relay, can be dialled by others; `None` for hosts, and where the parent sees it best.
    pub serves: Option<Address>,
    /// What it has of the edits of an update that broke off.
    pub begun: Beginnings,
}
encode_as_array!(Subscribe { channel, subscription, interest, standing, trust, head, serves, begun });

/// The parent's first answer on a control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// What the parent holds, and how it reaches the origin.
    pub condition: Condition,
    /// The parent's time, in seconds since 1970.
    pub time: u64,
    /// Relays that serve the same, should this parent be lost.
    pub alternates: Alternates,
    /// The version of trust in force at the parent.
    pub trust: u64,
}
encode_as_array!(Welcome { condition, time, alternates, trust });

/// What a parent says on a control stream after the welcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// This version of trust is in force at the parent; it can be asked for.
    Trust(u64),
    /// A head of the subscription's channel.
    Head(Bytes),
    /// Members that may not be served; for relays (specs/join.md, J-40).
    Denials(Bytes),
    /// How the parent stands, where that has changed.
    Condition(Condition),
    /// Relays that serve the same, in the place of those named before.
    Alternates(Alternates),
}

/// The answer to a question for trust documents: those after the version that
/// was named, in order, at most [`crate::limits::MAX_TRUST_ANSWER`]. Empty: there are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrustAnswer(pub Vec<Bytes>);

/// What became of a new version of the trust document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrustApplied {
    /// It is durable at the origin, in force, and on its way.
    InForce(u64),
    /// It is refused, and why.
    Refused(String),
    /// This relay is not the origin.
    NotOrigin,
}

/// A pull: one update from where the child stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateRequest {
    /// The channel.
    pub channel: ChannelName,
    /// Which bundles.
    pub interest: Interest,
    /// From where.
    pub standing: Standing,
}
encode_as_array!(UpdateRequest { channel, interest, standing });

/// The head of an update: a release, what changed in it for this child, and
/// the proof. The edits follow as raw bytes, in the order listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateHead {
    /// Whose update this is; 0 in the answer to a pull.
    pub subscription: u64,
    /// The signed release.
    pub release: Bytes,
    /// The bundles whose leaf or place changed, by ascending index. Those that
    /// are not listed keep the leaf and the index that the child knows.
    pub listed: Vec<ListedBundle>,
    /// Whether bundles that are not listed are kept; otherwise the list is all there is.
    pub keep_others: bool,
    /// The hashes that prove all the child's leaves.
    pub siblings: Vec<ProofHash>,
}
encode_as_array!(UpdateHead { subscription, release, listed, keep_others, siblings });

/// What an update stream begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateMessage {
    /// A whole head.
    Whole(UpdateHead),
    /// One without what the child can compute.
    Compact(CompactHead),
    /// A whole head, and for each edit the place of the [`Beginning`](crate::resumption::Beginning) that is left out of it.
    Resumed(UpdateHead, Vec<Option<u64>>),
}

const WHOLE: u8 = 0;
const COMPACT: u8 = 1;
const RESUMED: u8 = 2;

// `[0, head]`, `[1, head]` or `[2, head, places]`: a name would cost more than some edits do.
impl Serialize for UpdateMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole(head) => (WHOLE, head).serialize(serializer),
            Self::Compact(head) => (COMPACT, head).serialize(serializer),
            Self::Resumed(head, places) => (RESUMED, head, places).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for UpdateMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MessageVisitor;
        impl<'de> Visitor<'de> for MessageVisitor {
            type Value = UpdateMessage;
            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("[0, head], [1, compact head] or [2, head, places]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<UpdateMessage, A::Error> {
                let short = || A::Error::custom("message is too short");
                match seq.next_element::<u8>()?.ok_or_else(short)? {
                    WHOLE => Ok(UpdateMessage::Whole(seq.next_element()?.ok_or_else(short)?)),
                    COMPACT => Ok(UpdateMessage::Compact(seq.next_element()?.ok_or_else(short)?)),
                    RESUMED => {
                        let head = seq.next_element()?.ok_or_else(short)?;
                        Ok(UpdateMessage::Resumed(head, seq.next_element()?.ok_or_else(short)?))
                    }
                    _ => Err(A::Error::custom("unknown kind of update")),
                }
            }
        }
        deserializer.deserialize_seq(MessageVisitor)
    }
}

/// A bundle in an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedBundle {
    /// Its place among the release's leaves.
    pub index: u64,
    /// Its leaf.
    pub leaf: BundleLeaf,
    /// How its content follows; `None` when its tree did not change.
    pub edit: Option<EditHead>,
}
encode_as_array!(ListedBundle { index, leaf, edit });

/// Edits of one bundle that follow as raw bytes, each to what the one before gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditHead {
    /// What the first applies to.
    pub base: EditBase,
    /// Bytes of the last, which leads to the signed root.
    pub length: u64,
    /// Those that go before it: a snapshot that was made earlier, say.
    pub before: Vec<Waypoint>,
}
encode_as_array!(EditHead { base, length, before });

impl EditHead {
    /// Bytes of each edit, in order.
    pub fn lengths(&self) -> impl Iterator<Item = u64> + '_ {
        self.before.iter().map(|waypoint| waypoint.length).chain([self.length])
    }
}

/// An edit to a tree on the way to the signed one. No signature covers it: the
/// grant bounds it, and the root after the last edit decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waypoint {
    /// The root that it leads to.
    pub root: NodeId,
    /// Files of that tree.
    pub files: u64,
    /// Bytes of that tree.
    pub bytes: u64,
    /// Bytes of the edit.
    pub length: u64,
}
encode_as_array!(Waypoint { root, files, bytes, length });

impl Waypoint {
    /// Files and bytes of its tree.
    pub fn totals(&self) -> Totals {
        Totals { files: self.files, bytes: self.bytes }
    }
}

/// What an edit in an update applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EditBase {
    /// The bundle as the child holds it; it is the log's own next edit.
    Logged,
    /// The bundle as the child holds it; the parent computed it.
    Held,
    /// The empty tree: a snapshot.
    Empty,
}

/// The answer to a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateAnswer {
    /// The child holds all there is.
    Nothing,
    /// An update; its edits follow.
    Update(UpdateHead),
    /// No such channel, or none that this child may read.
    NotFound,
}

/// A request for objects of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectsRequest {
    /// The channel.
    pub channel: ChannelName,
    /// The number of the release that has them.
    pub release: u64,
    /// The bundle that has them.
    pub bundle: BundleName,
    /// The objects.
    pub objects: Vec<ObjectId>,
}
encode_as_array!(ObjectsRequest { channel, release, bundle, objects });

/// The answer to a request for objects: sizes in the order asked, `None` for
/// what is not held or did not fit. The bytes follow in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectsAnswer(pub Vec<Option<u64>>);

/// A new release, offered to the origin. The edits follow as raw bytes, in
/// the order of their leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The channel.
    pub channel: ChannelName,
    /// The signed release.
    pub release: Bytes,
    /// All its leaves, in name order.
    pub leaves: Vec<BundleLeaf>,
    /// For each leaf whose bundle changed, the length of its edit.
    pub edits: Vec<Option<u64>>,
}
encode_as_array!(Publication { channel, release, leaves, edits });

/// What became of a publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PublishAnswer {
    /// It is durable, and on its way.
    Accepted(Accepted),
    /// Another release has that number. Compile on top of it and publish again.
    Conflict(Accepted),
    /// It is refused, and why.
    Refused(String),
    /// This relay is not the origin.
    NotOrigin,
}
