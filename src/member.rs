//! What a certificate says of its holder beside its name: a role and labels
//! (specs/wire.md, W-2).

use crate::limits::{MAX_LABEL, MAX_LABELS};
use crate::path::{MemberName, PathError};
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// What a certificate lets its holder be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A relay; the origin is one too.
    Relay,
    /// A host's agent.
    Agent,
    /// A publisher of releases.
    Publisher,
}

impl Role {
    /// The role as a certificate writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Agent => "agent",
            Self::Publisher => "publisher",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is none of relay, agent, publisher", text.escape_debug())]
pub struct RoleError {
    /// What stands there, shortened.
    pub text: String,
}

impl FromStr for Role {
    type Err = RoleError;
    fn from_str(text: &str) -> Result<Self, RoleError> {
        match text {
            "relay" => Ok(Self::Relay),
            "agent" => Ok(Self::Agent),
            "publisher" => Ok(Self::Publisher),
            _ => Err(RoleError { text: text.chars().take(40).collect() }),
        }
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The label that every host has without being given it: its name.
pub const HOST_LABEL: &str = "host";

/// Why text is no set of labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Not `key=value`.
    #[error("`{}` is not of the form label=value", text.escape_debug())]
    Form {
        /// What stands there, shortened.
        text: String,
    },
    /// A key of other characters, or none.
    #[error("label `{}`: a label may have only a-z and `_`, at most {MAX_LABEL} of them", key.escape_debug())]
    Key {
        /// The key, shortened.
        key: String,
    },
    /// `host` follows from the name.
    #[error("label `{HOST_LABEL}` is the member's name, and cannot be given")]
    Host,
    /// A value that can be no segment of a bundle's name.
    #[error("label `{key}`: {source}")]
    Value {
        /// Its key.
        key: String,
        /// What is wrong with it.
        source: PathError,
    },
    /// A value over the bound.
    #[error("label `{key}`: a value has at most {MAX_LABEL} bytes")]
    ValueTooLong {
        /// Its key.
        key: String,
    },
    /// A key that is not above the one before it.
    #[error("label `{key}` is there twice, or not in ascending order")]
    Order {
        /// The key.
        key: String,
    },
    /// More than the bound.
    #[error("there are more than {MAX_LABELS} labels")]
    TooMany,
}

/// What a member is labelled with, as `region=eu` and `role=web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Takes pairs in any order.
    ///
    /// # Errors
    /// The first rule that one breaks; see [`LabelError`].
    pub fn new<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, LabelError> {
        let mut labels = BTreeMap::new();
        for (key, value) in pairs {
            let (key, value) = (key.into(), value.into());
            check(&key, &value)?;
            if labels.len() == MAX_LABELS {
                return Err(LabelError::TooMany);
            }
            if labels.contains_key(&key) {
                return Err(LabelError::Order { key });
            }
            labels.insert(key, value);
        }
        Ok(Self(labels))
    }

    /// Takes texts of the form `key=value`, in any order, as a person writes them.
    ///
    /// # Errors
    /// As [`Labels::new`].
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = &'a str>) -> Result<Self, LabelError> {
        let split: Result<Vec<_>, _> = pairs.into_iter().map(pair).collect();
        Self::new(split?)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
    /// All, by ascending key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
    /// What the layers of a host of this name are chosen by: its labels, and `host`.
    pub fn of_host(&self, name: &str) -> BTreeMap<String, String> {
        let mut all = self.0.clone();
        all.insert(HOST_LABEL.into(), name.into());
        all
    }
}

fn check(key: &str, value: &str) -> Result<(), LabelError> {
    let short = || key.chars().take(MAX_LABEL).collect();
    if key.is_empty() || key.len() > MAX_LABEL || !key.chars().all(|c| matches!(c, 'a'..='z' | '_')) {
        return Err(LabelError::Key { key: short() });
    }
    if key == HOST_LABEL {
        return Err(LabelError::Host);
    }
    if value.len() > MAX_LABEL {
        return Err(LabelError::ValueTooLong { key: short() });
    }
    MemberName::new(value).map_err(|source| LabelError::Value { key: short(), source }).map(drop)
}

fn pair(text: &str) -> Result<(&str, &str), LabelError> {
    text.split_once('=').ok_or_else(|| LabelError::Form { text: text.chars().take(120).collect() })
}

/// `key=value&key=value`, by ascending key; nothing where there are none.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.0.iter().enumerate() {
            let and = if at == 0 { "" } else { "&" };
            write!(f, "{and}{key}={value}")?;
        }
        Ok(())
    }
}

/// The inverse of `Display`, and nothing else: keys in strictly ascending order.
impl FromStr for Labels {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<Self, LabelError> {
        let mut last: Option<&str> = None;
        let mut pairs = Vec::new();
        for part in text.split('&') {
            let (key, value) = pair(part)?;
            if last.is_some_and(|last| last >= key) {
                return Err(LabelError::Order { key: key.chars().take(MAX_LABEL).collect() });
            }
            if pairs.len() == MAX_LABELS {
                return Err(LabelError::TooMany);
            }
            last = Some(key);
            pairs.push((key, value));
        }
        Self::new(pairs)
    }
}

/// As a list of pairs; decoding keeps the rules, and the codec (K-4) their order.
impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs: Vec<(String, String)> = Vec::deserialize(deserializer)?;
        Self::new(pairs).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w_2_labels_have_one_text() {
        let labels = Labels::from_pairs(["role=web", "region=eu"]).unwrap();
        assert_eq!(labels.to_string(), "region=eu&role=web");
        assert_eq!(labels.to_string().parse::<Labels>().unwrap(), labels);
        assert!("role=web&region=eu".parse::<Labels>().is_err());
        assert_eq!(labels.of_host("web-1").get("host").map(String::as_str), Some("web-1"));
    }

    #[test]
    fn w_2_labels_that_break_a_rule_are_refused_by_name() {
        let long = "a".repeat(MAX_LABEL + 1);
        for (text, part) in [
            ("", "form"),
            ("x", "form"),
            ("=v", "a-z"),
            ("K=v", "a-z"),
            ("k1=v", "a-z"),
            ("k=", "empty"),
            ("k=V", "a-z"),
            ("k=a/b", "`/`"),
            ("k=..", "`..`"),
            ("k=a&k=b", "twice"),
            ("host=a", "name"),
            (&format!("{long}=v"), "a-z"),
            (&format!("k={long}"), "at most"),
        ] {
            let message = text.parse::<Labels>().unwrap_err().to_string();
            assert!(message.contains(part), "{text:?}: {message}");
        }
        let many = |count: u8| (0..count).map(|n| (char::from(b'a' + n).to_string(), "v"));
        assert!(Labels::new(many(MAX_LABELS as u8)).is_ok());
        assert_eq!(Labels::new(many(MAX_LABELS as u8 + 1)), Err(LabelError::TooMany));
    }

    #[test]
    fn labels_and_roles_survive_their_encoding() {
        let labels = Labels::from_pairs(["role=web", "region=eu"]).unwrap();
        let bytes = crate::codec::encode(&(Role::Relay, &labels));
        assert_eq!(crate::codec::decode::<(Role, Labels)>(&bytes, 100).unwrap(), (Role::Relay, labels));
        let twisted = crate::codec::encode(&(Role::Relay, vec![("role", "web"), ("region", "eu")]));
        assert!(crate::codec::decode::<(Role, Labels)>(&twisted, 100).is_err(), "one order");
    }
}
