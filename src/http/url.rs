//! The names of resources: one text for each (specs/http.md, HT-3).

use crate::acceptance::Accepted;
use crate::id::{ObjectId, PlatformId};
use crate::limits::{MAX_NEWS_WAIT, MAX_NUMBER, MAX_URL};
use crate::path::{BundleName, ChannelName};
use core::fmt;
use core::str::FromStr;

/// The version of the interface, which every name begins with.
const ROOT: &str = "/v1/";
/// What stands in a name for the `/` of a channel or bundle: no name has one.
const SLASH: char = '~';
/// The origin of an edit that makes a bundle from nothing.
const EMPTY: &str = "empty";

/// The text names no resource, or not in its one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no name of a resource")]
pub struct UrlError;

/// A resource of a platform: the path of a request, and its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// The platform.
    pub platform: PlatformId,
    /// What of it.
    pub target: Target,
}

/// What of a platform is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Where requests to join and to renew go; they prove themselves.
    Join,
    /// Something of a channel.
    Channel(ChannelName, Resource),
}

/// What of a channel is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// What is newest; with `Some`, once something is newer than what is known.
    News(Option<After>),
    /// A version of the trust document.
    Trust(u64),
    /// The head of an epoch and sequence.
    Head(u64, u64),
    /// A signed release.
    Release(Accepted),
    /// The leaf of a bundle in a release, and its proof.
    Leaf(Accepted, BundleName),
    /// The edits that bring a bundle to a release, from another or from nothing.
    Edit {
        /// The release that they lead to.
        to: Accepted,
        /// The bundle.
        bundle: BundleName,
        /// The release that holds what the first applies to; `None`: the empty tree.
        from: Option<Accepted>,
    },
    /// An object of a bundle in a release.
    Object(Accepted, BundleName, ObjectId),
}

/// What who waits for news knows already, and how long it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// The version of trust; 0 for none.
    pub trust: u64,
    /// Epoch and number of the release; zeros for none.
    pub release: (u64, u64),
    /// Epoch and sequence of the head; zeros for none.
    pub head: (u64, u64),
    /// Longest wait, in seconds.
    pub wait: u64,
}

impl Resource {
    /// Whether what has this name never changes its meaning (HT-5).
    pub const fn is_immutable(&self) -> bool {
        !matches!(self, Self::News(_))
    }

    /// The bundle that it is of; none where it is of the channel.
    pub const fn bundle(&self) -> Option<&BundleName> {
        match self {
            Self::Leaf(_, bundle) | Self::Edit { bundle, .. } | Self::Object(_, bundle, _) => Some(bundle),
            Self::News(_) | Self::Trust(_) | Self::Head(..) | Self::Release(_) => None,
        }
    }
}

impl Url {
    /// What every name of a platform begins with.
    pub fn prefix(platform: PlatformId) -> String {
        format!("{ROOT}{platform}/")
    }
}

struct Release<'a>(&'a Accepted);

impl fmt::Display for Release<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0.epoch, self.0.number, self.0.hash)
    }
}

struct Segment<'a>(&'a str);

impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.split('/').enumerate().try_for_each(|(at, part)| {
            let between = if at > 0 { "~" } else { "" };
            write!(f, "{between}{part}")
        })
    }
}

struct Object<'a>(&'a ObjectId);

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ObjectId::Blob(id) => write!(f, "blob-{id}"),
            ObjectId::Node(id) => write!(f, "node-{id}"),
            ObjectId::ChunkList(id) => write!(f, "list-{id}"),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}{}/", self.platform)?;
        match &self.target {
            Target::Join => f.write_str("join"),
            Target::Channel(channel, resource) => {
                write!(f, "{}/{resource}", Segment(channel.as_str()))
            }
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::News(None) => f.write_str("news"),
            Self::News(Some(after)) => {
                let (After { trust, wait, .. }, release, head) = (after, after.release, after.head);
                write!(f, "news?after={trust}.{}.{}.{}.{}", release.0, release.1, head.0, head.1)?;
                write!(f, "&wait={wait}")
            }
            Self::Trust(version) => write!(f, "trust/{version}"),
            Self::Head(epoch, sequence) => write!(f, "head/{epoch}.{sequence}"),
            Self::Release(release) => write!(f, "releases/{}", Release(release)),
            Self::Leaf(release, bundle) => {
                write!(f, "releases/{}/leaf/{}", Release(release), Segment(bundle.as_str()))
            }
            Self::Edit { to, bundle, from } => {
                write!(f, "releases/{}/edit/{}/", Release(to), Segment(bundle.as_str()))?;
                match from {
                    Some(from) => write!(f, "{}", Release(from)),
                    None => f.write_str(EMPTY),
                }
            }
            Self::Object(release, bundle, object) => {
                let (release, bundle) = (Release(release), Segment(bundle.as_str()));
                write!(f, "releases/{release}/object/{bundle}/{}", Object(object))
            }
        }
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL {
            return Err(UrlError);
        }
        let rest = text.strip_prefix(ROOT).ok_or(UrlError)?;
        let (platform, rest) = rest.split_once('/').ok_or(UrlError)?;
        let target = match rest.split_once('/') {
            None if rest == "join" => Target::Join,
            None => return Err(UrlError),
            Some((channel, rest)) => Target::Channel(name(channel)?, resource(rest)?),
        };
        let url = Self { platform: platform.parse().map_err(|_| UrlError)?, target };
        // Hexadecimal digits would also be read in capitals, numbers with zeros before them.
        if url.to_string() == text { Ok(url) } else { Err(UrlError) }
    }
}

fn resource(text: &str) -> Result<Resource, UrlError> {
    if let Some(query) = text.strip_prefix("news?") {
        return Ok(Resource::News(Some(after(query)?)));
    }
    let parts: Vec<&str> = text.splitn(7, '/').collect();
    Ok(match *parts.as_slice() {
        ["news"] => Resource::News(None),
        ["trust", version] => Resource::Trust(number(version)?),
        ["head", rank] => {
            let (epoch, sequence) = rank.split_once('.').ok_or(UrlError)?;
            Resource::Head(number(epoch)?, number(sequence)?)
        }
        ["releases", of] => Resource::Release(release(of)?),
        ["releases", of, "leaf", bundle] => Resource::Leaf(release(of)?, name(bundle)?),
        ["releases", to, "edit", bundle, from] => {
            let from = if from == EMPTY { None } else { Some(release(from)?) };
            Resource::Edit { to: release(to)?, bundle: name(bundle)?, from }
        }
        ["releases", of, "object", bundle, id] => Resource::Object(release(of)?, name(bundle)?, object(id)?),
        _ => return Err(UrlError),
    })
}

fn name<T: FromStr>(segment: &str) -> Result<T, UrlError> {
    segment.replace(SLASH, "/").parse().map_err(|_| UrlError)
}

fn number(text: &str) -> Result<u64, UrlError> {
    text.parse().ok().filter(|number| *number <= MAX_NUMBER).ok_or(UrlError)
}

fn release(text: &str) -> Result<Accepted, UrlError> {
    let mut parts = text.splitn(3, '.');
    let (Some(epoch), Some(of), Some(hash)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(UrlError);
    };
    let hash = hash.parse().map_err(|_| UrlError)?;
    Ok(Accepted { epoch: number(epoch)?, number: number(of)?, hash })
}

fn object(text: &str) -> Result<ObjectId, UrlError> {
    let (kind, hash) = text.split_once('-').ok_or(UrlError)?;
    match kind {
        "blob" => hash.parse().map(ObjectId::Blob),
        "node" => hash.parse().map(ObjectId::Node),
        "list" => hash.parse().map(ObjectId::ChunkList),
        _ => return Err(UrlError),
    }
    .map_err(|_| UrlError)
}

fn after(query: &str) -> Result<After, UrlError> {
    let (known, wait) =
        query.strip_prefix("after=").and_then(|rest| rest.split_once("&wait=")).ok_or(UrlError)?;
    let known: Vec<u64> = known.splitn(6, '.').map(number).collect::<Result<_, _>>()?;
    let wait = number(wait)?;
    match *known.as_slice() {
        [trust, epoch, of, head_epoch, sequence] if wait <= MAX_NEWS_WAIT.as_secs() => {
            Ok(After { trust, release: (epoch, of), head: (head_epoch, sequence), wait })
        }
        _ => Err(UrlError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BlobId, ReleaseHash};

    const PLATFORM: PlatformId = PlatformId::from_bytes([0xab; 16]);

    fn url(resource: Resource) -> Url {
        let channel = ChannelName::new("team/a").unwrap();
        Url { platform: PLATFORM, target: Target::Channel(channel, resource) }
    }

    fn accepted(number: u64) -> Accepted {
        Accepted { epoch: 1, number, hash: ReleaseHash::from_bytes([number as u8; 32]) }
    }

    #[test]
    fn ht_3_a_name_survives_its_text() {
        let bundle = BundleName::new("role/web").unwrap();
        let after = After { trust: 1, release: (1, 41), head: (1, 7), wait: 30 };
        let object = ObjectId::Blob(BlobId::from_bytes([7; 32]));
        let all = [
            Resource::News(None),
            Resource::News(Some(after)),
            Resource::Trust(3),
            Resource::Head(1, 8),
            Resource::Release(accepted(42)),
            Resource::Leaf(accepted(42), bundle.clone()),
            Resource::Edit { to: accepted(42), bundle: bundle.clone(), from: Some(accepted(41)) },
            Resource::Edit { to: accepted(42), bundle: bundle.clone(), from: None },
            Resource::Object(accepted(42), bundle, object),
        ];
        for resource in all {
            let url = url(resource);
            assert_eq!(url.to_string().parse(), Ok(url.clone()), "{url}");
            assert!(url.to_string().starts_with(&Url::prefix(PLATFORM)));
        }
        let join = Url { platform: PLATFORM, target: Target::Join };
        assert_eq!(join.to_string().parse(), Ok(join));
    }

    #[test]
    fn ht_3_only_the_one_form_is_read() {
        let (id, hash) = ("ab".repeat(16), "0a".repeat(32));
        let good = format!("/v1/{id}/main/releases/1.42.{hash}/leaf/role~web");
        assert!(good.parse::<Url>().is_ok());
        for bad in [
            good.to_uppercase(),
            good.replace("/v1/", "/v2/"),
            good.replace("/v1/", "//v1/"),
            good.replace(".42.", ".042."),
            good.replace(".42.", ".+42."),
            good.replace('~', "/"),
            good.replace('~', "%2F"),
            good.replace("role~web", ".."),
            good.replace("0a0a", "0A0a"),
            format!("{good}/"),
            format!("{good}?x=1"),
            format!("{good}#x"),
            format!("/v1/{id}/main/releases/1.42/leaf/base"),
            format!("/v1/{id}/main/releases/1.42.{hash}/object/base/{hash}"),
            format!("/v1/{id}/main/releases/1.42.{hash}/object/base/tree-{hash}"),
            format!("/v1/{id}/main/trust/9007199254740992"),
            format!("/v1/{id}/main/news?wait=1&after=0.0.0.0.0"),
            format!("/v1/{id}/main/news?after=0.0.0.0&wait=1"),
            format!("/v1/{id}/main/news?after=0.0.0.0.0.0&wait=1"),
            format!("/v1/{id}/main/news?after=0.0.0.0.0&wait=100000"),
            format!("/v1/{id}/main/"),
            format!("/v1/{id}/main"),
            format!("/v1/{id}"),
            format!("/v1/{id}/{}/news", "a".repeat(2000)),
            String::new(),
        ] {
            assert_eq!(bad.parse::<Url>(), Err(UrlError), "{bad}");
        }
    }
}
