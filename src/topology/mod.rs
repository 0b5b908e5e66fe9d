//! Where members are, and which relay a child follows (specs/topology.md).
//!
//! A [`Place`] follows from a certificate's labels. [`rank`] orders relays for a child;
//! [`Choice`] decides which of them it dials, when it leaves one, and when it goes home.
//! Time is how long the process has run, and jitter a hash of the child's name: nothing
//! here is random, and equal children still do not act together.

mod choice;

pub use choice::{Choice, Errand, Hold, Next, Patience, Seen, Verdict};

use crate::acceptance::Accepted;
use crate::id::{context, derive};
use crate::join::is_address;
use crate::limits::{MAX_ALTERNATES, MAX_ROUTE, NEAR_ROUND_TRIP};
use crate::member::Labels;
use crate::path::MemberName;
use crate::{codec, encode_as_array};
use core::fmt;
use core::time::Duration;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The labels that say where a member is, from the widest to the narrowest (TP-1).
pub const PLACE_LABELS: [&str; 3] = ["region", "datacenter", "rack"];

/// Where a member is: its region, datacenter and rack, as far as its labels say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place([Option<String>; 3]);

impl Place {
    /// The place that labels give.
    pub fn of(labels: &Labels) -> Self {
        Self(PLACE_LABELS.map(|label| labels.get(label).map(str::to_owned)))
    }

    /// How narrow it is: 0 for anywhere, then 1 for a region, 2 for a datacenter, 3 for a rack.
    pub fn depth(&self) -> usize {
        self.0.iter().rposition(Option::is_some).map_or(0, |at| at + 1)
    }

    /// Whether what it says holds of `other` too.
    pub fn encloses(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(own, theirs)| own.is_none() || own == theirs)
    }

    const fn region(&self) -> &Option<String> {
        let Self([region, ..]) = self;
        region
    }
}

/// `region=eu&datacenter=fra-1`; nothing for anywhere.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said =
            PLACE_LABELS.iter().zip(&self.0).filter_map(|(label, value)| Some((label, value.as_ref()?)));
        for (at, (label, value)) in said.enumerate() {
            let and = if at == 0 { "" } else { "&" };
            write!(f, "{and}{label}={value}")?;
        }
        Ok(())
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let place = Self(Deserialize::deserialize(deserializer)?);
        let said =
            PLACE_LABELS.iter().zip(&place.0).filter_map(|(label, value)| Some((*label, value.clone()?)));
        // The rules are those of the labels that it follows from.
        Labels::new(said).map_err(D::Error::custom)?;
        Ok(place)
    }
}

/// A list of at most `N`, refused as soon as it is longer.
struct Bounded<T, const N: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Bounded<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const N: usize>(core::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for ListVisitor<T, N> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if list.len() == N {
                        return Err(A::Error::custom(format!("a list has more than {N}")));
                    }
                    list.push(item);
                }
                Ok(list)
            }
        }
        deserializer.deserialize_seq(ListVisitor::<T, N>(core::marker::PhantomData)).map(Self)
    }
}

/// Where a relay can be dialled: `host:port`. It is a place to dial and nothing
/// more: who answers there is known by its certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(String);

/// Not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not host:port", text.escape_debug())]
pub struct AddressError {
    /// What stands there, shortened.
    pub text: String,
}

impl Address {
    /// Takes `host:port`.
    ///
    /// # Errors
    /// When it is not of that form.
    pub fn new(text: impl Into<String>) -> Result<Self, AddressError> {
        let text = text.into();
        if is_address(&text) {
            return Ok(Self(text));
        }
        Err(AddressError { text: text.chars().take(120).collect() })
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Address {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A relay that a child may dial should it lose its parent (TP-10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternate {
    /// Its name.
    pub name: MemberName,
    /// Where it is.
    pub place: Place,
    /// Where it can be dialled.
    pub address: Address,
}
encode_as_array!(Alternate { name, place, address });

/// What a parent tells a child of other relays, the best for that child first (TP-10).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Alternates(Vec<Alternate>);

impl Alternates {
    /// The best [`MAX_ALTERNATES`] of those that a relay knows, for a child.
    pub fn ranked<'a>(child: &Child, known: impl IntoIterator<Item = &'a Alternate>) -> Self {
        let others = known.into_iter().filter(|known| known.name != child.name);
        let mut keyed: Vec<_> = others.map(|known| (rank(child, known, None), known)).collect();
        // By name as well, so that one relay is there once.
        keyed.sort_by(|one, other| {
            (&one.0, &one.1.name, &one.1.address).cmp(&(&other.0, &other.1.name, &other.1.address))
        });
        keyed.dedup_by(|one, other| one.1.name == other.1.name);
        Self(keyed.into_iter().take(MAX_ALTERNATES).map(|(_, known)| known.clone()).collect())
    }
    /// A hash, to tell lists apart without keeping them.
    pub fn digest(&self) -> [u8; 32] {
        derive(context::TOPOLOGY, &[&codec::encode(self)])
    }
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Alternate> {
        self.0.iter()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Alternates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Bounded::<_, MAX_ALTERNATES>::deserialize(deserializer).map(|list| Self(list.0))
    }
}

/// What a child keeps for its next start (TP-12): its parent, which it may have dialled at an
/// address that nobody configured, and the relays that the parent named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptParents {
    /// The parent.
    pub parent: Option<Alternate>,
    /// The others.
    pub alternates: Alternates,
}
encode_as_array!(KeptParents { parent, alternates });

/// The relays from the origin down to one, which is the last; empty where
/// it is cut off from the origin (TP-20).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Route(Vec<MemberName>);

impl Route {
    /// The origin's own.
    pub fn origin(name: MemberName) -> Self {
        Self(vec![name])
    }
    /// That of a child of the last one: cut off where that one is, or where it would become too long.
    #[must_use]
    pub fn below(&self, name: MemberName) -> Self {
        if self.0.is_empty() || self.0.len() >= MAX_ROUTE {
            return Self::default();
        }
        let mut route = self.0.clone();
        route.push(name);
        Self(route)
    }
    /// Whether it does not lead to the origin.
    pub fn is_cut_off(&self) -> bool {
        self.0.is_empty()
    }
    /// Whether it leads through a relay.
    pub fn leads_through(&self, name: &MemberName) -> bool {
        self.0.contains(name)
    }
    /// The names, the origin's first.
    pub fn names(&self) -> &[MemberName] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Route {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Bounded::<_, MAX_ROUTE>::deserialize(deserializer).map(|list| Self(list.0))
    }
}

/// What a relay says of how it stands itself, in one channel (TP-20).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The newest release that it holds.
    pub latest: Option<Accepted>,
    /// How it reaches the origin.
    pub route: Route,
    /// Whether it has known for long of a release that it could not get.
    pub behind: bool,
}
encode_as_array!(Condition { latest, route, behind });

/// What a relay is worth as a parent, the best first (TP-21).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// It reaches the origin and has what we know of.
    Good,
    /// It reaches the origin and lacks what we know of.
    Behind,
    /// It does not reach the origin.
    CutOff,
    /// It reaches the origin through us: never followed.
    Loop,
}

impl Condition {
    /// What the relay is worth to a child that knows of a release of rank `newest`.
    pub fn worth(&self, child: &Child, newest: Option<(u64, u64)>) -> Worth {
        if child.is_relay && self.route.leads_through(&child.name) {
            return Worth::Loop;
        }
        if self.route.is_cut_off() {
            return Worth::CutOff;
        }
        if self.behind || self.latest.as_ref().map(Accepted::rank) < newest {
            return Worth::Behind;
        }
        Worth::Good
    }
}

/// Who chooses a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub name: MemberName,
    /// Where it is.
    pub place: Place,
    /// Whether it has children itself.
    pub is_relay: bool,
}

/// How far a relay is from a child, the nearest first (TP-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    /// It serves the child's rack.
    Rack,
    /// It serves the child's datacenter.
    Datacenter,
    /// It serves the child's region.
    Region,
    /// It is elsewhere in the child's region; to hosts alone: the way past the origin.
    Beside,
    /// It serves everybody: the origin, or a relay without labels.
    Top,
    /// A relay's sibling, or another in its region that does not serve it.
    Sibling,
    /// It serves another region.
    Elsewhere,
}

impl Distance {
    /// Between a child and a relay that is at `relay`.
    pub fn between(child: &Child, relay: &Place) -> Self {
        // Two relays of one place are siblings, not parent and child.
        let encloses = relay.encloses(&child.place) && !(child.is_relay && *relay == child.place);
        match relay.depth() {
            0 => Self::Top,
            1 if encloses => Self::Region,
            2 if encloses => Self::Datacenter,
            _ if encloses => Self::Rack,
            _ if relay.region() != child.place.region() => Self::Elsewhere,
            _ if child.is_relay => Self::Sibling,
            _ => Self::Beside,
        }
    }
}

/// A relay's place in a child's order, the best first (TP-4): distance, then, beyond the datacenter,
/// round trip, where it differs by much, then a hash of both names, so that
/// the children of a place spread over its relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    distance: Distance,
    round_trip: u32,
    spread: u64,
}

/// The rank of a relay for a child. A round trip that was not measured counts as short, so that it gets measured.
pub fn rank(child: &Child, relay: &Alternate, round_trip: Option<Duration>) -> Rank {
    Rank::new(child, &relay.place, round_trip, relay.name.as_str())
}

impl Rank {
    fn new(child: &Child, place: &Place, round_trip: Option<Duration>, who: &str) -> Self {
        let distance = Distance::between(child, place);
        // Within a datacenter what differs is how busy machines are, and nobody moves for that. Beyond,
        // steps double: what differs by less is alike.
        let measured = round_trip.filter(|_| distance > Distance::Datacenter).unwrap_or_default();
        let steps = measured.as_micros() / NEAR_ROUND_TRIP.as_micros();
        Self {
            distance,
            round_trip: u128::BITS - steps.leading_zeros(),
            spread: hash(&[child.name.as_str(), who]),
        }
    }
    /// How far it is.
    pub const fn distance(&self) -> Distance {
        self.distance
    }
}

/// A number that follows from texts, and is spread evenly.
fn hash(parts: &[&str]) -> u64 {
    let digest = derive(context::TOPOLOGY, &[&codec::encode(&parts)]);
    digest.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
}
