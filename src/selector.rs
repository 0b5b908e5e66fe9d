//! Which hosts are meant (specs/status.md, ST-30).

use crate::limits::{MAX_LABEL, MAX_NAME, MAX_NUMBER, MAX_SELECTOR, MAX_TERMS};
use crate::status::{Condition, HostState};
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Over a bound.
    #[error("a selector has at most {MAX_TERMS} terms and {MAX_SELECTOR} bytes")]
    TooLong,
    /// No name, label or pattern of one.
    #[error("`{term}` is no pattern: a-z 0-9 . _ - and the wildcards * and ?")]
    Pattern {
        /// The term, shortened.
        term: String,
    },
    /// No state.
    #[error("`{word}` is no state; there are active, stale, updating, failed and offline")]
    State {
        /// The word, shortened.
        word: String,
    },
    /// No release.
    #[error("`{word}` is no number of a release")]
    Release {
        /// The word, shortened.
        word: String,
    },
    /// Not a label.
    #[error("`{key}` is no label: a label is of a-z and _")]
    Label {
        /// The key, shortened.
        key: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Name,
    Label(String),
    State(HostState),
    Release(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    key: Key,
    negated: bool,
    /// Of a name or the value of a label.
    pattern: String,
}

/// Terms that a host must all meet; none is met by every host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(Vec<Term>);

impl Selector {
    /// Reads terms that are separated by blanks or commas: `web-*`, `region=eu`,
    /// `state!=active`, `release!=42`.
    ///
    /// # Errors
    /// [`SelectorError`], which names the term.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR {
            return Err(SelectorError::TooLong);
        }
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let terms = words.map(Term::parse).collect::<Result<Vec<_>, _>>()?;
        if terms.len() > MAX_TERMS {
            return Err(SelectorError::TooLong);
        }
        Ok(Self(terms))
    }

    /// The host of this name alone.
    ///
    /// # Errors
    /// When it is no name.
    pub fn named(name: &str) -> Result<Self, SelectorError> {
        if name.contains(['*', '?']) {
            return Err(SelectorError::Pattern { term: short(name) });
        }
        let pattern = pattern(name, MAX_NAME)?;
        Ok(Self(vec![Term { key: Key::Name, negated: false, pattern }]))
    }

    /// Whether a host is meant. `labels` as in its certificate, `a=b&c=d`.
    pub fn matches(&self, name: &str, labels: &str, condition: &Condition) -> bool {
        self.0.iter().all(|term| match &term.key {
            Key::Name => glob(&term.pattern, name) != term.negated,
            Key::Label(key) => {
                let value = labels.split('&').find_map(|pair| {
                    let (known, value) = pair.split_once('=')?;
                    (known == key).then_some(value)
                });
                value.is_some_and(|value| glob(&term.pattern, value)) != term.negated
            }
            Key::State(_) | Key::Release(_) => term.counts(condition.release, condition.state),
        })
    }

    /// Whether hosts of this release and state can be meant. Release 0 in a count stands for others too.
    pub fn may_match(&self, release: u64, state: HostState) -> bool {
        self.0.iter().all(|term| match &term.key {
            Key::Release(_) if release == 0 => true,
            _ => term.counts(release, state),
        })
    }
}

impl Term {
    fn parse(word: &str) -> Result<Self, SelectorError> {
        let (key, negated, value) = match (word.split_once("!="), word.split_once('=')) {
            (Some((key, value)), _) => (key, true, value),
            (None, Some((key, value))) => (key, false, value),
            (None, None) => {
                let (negated, name) = word.strip_prefix('!').map_or((false, word), |name| (true, name));
                return Ok(Self { key: Key::Name, negated, pattern: pattern(name, MAX_NAME)? });
            }
        };
        let (key, pattern) = match key {
            "state" => {
                let state = HostState::of(value).ok_or_else(|| SelectorError::State { word: short(value) });
                (Key::State(state?), String::new())
            }
            "release" => {
                let number = value.parse().ok().filter(|number| *number <= MAX_NUMBER);
                let number = number.ok_or_else(|| SelectorError::Release { word: short(value) })?;
                (Key::Release(number), String::new())
            }
            "name" | "host" => (Key::Name, pattern(value, MAX_NAME)?),
            label => {
                let is_label = (1..=MAX_LABEL).contains(&label.len())
                    && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_'));
                if !is_label {
                    return Err(SelectorError::Label { key: short(label) });
                }
                (Key::Label(label.to_owned()), pattern(value, MAX_LABEL)?)
            }
        };
        Ok(Self { key, negated, pattern })
    }

    fn counts(&self, release: u64, state: HostState) -> bool {
        match self.key {
            Key::State(wanted) => (wanted == state) != self.negated,
            Key::Release(wanted) => (wanted == release) != self.negated,
            Key::Name | Key::Label(_) => true,
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(MAX_LABEL).flat_map(char::escape_debug).collect()
}

fn pattern(text: &str, most: usize) -> Result<String, SelectorError> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'*' | b'?');
    if (1..=most).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(SelectorError::Pattern { term: short(text) })
}

/// Whether text is of a pattern of `*` and `?`. Goes back to the last `*` only,
/// so it takes at most the product of both lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(seen) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((star_at, star_seen)) = star else { return false };
                star = Some((star_at, star_seen + 1));
                (at, seen) = (star_at + 1, star_seen + 1);
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            let is = if term.negated { "!=" } else { "=" };
            match &term.key {
                Key::Name => write!(f, "{}{}", if term.negated { "!" } else { "" }, term.pattern)?,
                Key::Label(label) => write!(f, "{label}{is}{}", term.pattern)?,
                Key::State(state) => write!(f, "state{is}{}", state.as_str())?,
                Key::Release(release) => write!(f, "release{is}{release}")?,
            }
        }
        Ok(())
    }
}

// As text, in the one form that `Display` writes.
impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(selector: &str) -> bool {
        let condition = Condition { release: 41, ..Condition::none(1) };
        Selector::parse(selector).unwrap().matches("web-17", "region=eu&role=web", &condition)
    }

    #[test]
    fn st_30_every_kind_of_term() {
        for yes in [
            "",
            "web-17",
            "web-*",
            "*",
            "w?b-1*",
            "host=web-17",
            "name=web*",
            "!db-*",
            "region=eu",
            "region!=us",
            "rack!=1",
            "role=w*",
            "state=updating",
            "state!=failed",
            "release=41",
            "release!=42",
            "web-* region=eu,release!=42",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in [
            "web-1",
            "db-*",
            "!web-*",
            "region=us",
            "region!=eu",
            "rack=1",
            "rack=*",
            "state=failed",
            "state!=updating",
            "release=42",
            "release!=41",
            "web-* region=us",
            "?",
        ] {
            assert!(!matches(no), "{no}");
        }
    }

    #[test]
    fn st_30_what_is_no_selector_is_refused_with_what_it_may_be() {
        let error = |text: &str| Selector::parse(text).unwrap_err().to_string();
        assert!(error("state=broken").contains("there are active"), "{}", error("state=broken"));
        assert!(error("release=new").contains("`new` is no number"));
        assert!(error("release=9007199254740992").contains("no number"));
        assert!(error("Region=eu").contains("`Region` is no label"));
        assert!(error("WEB").contains("`WEB` is no pattern"));
        assert!(error("=x").contains("no label"));
        assert!(error("region=").contains("no pattern"));
        assert!(error("!").contains("no pattern"));
        assert_eq!(Selector::parse(&"a ".repeat(MAX_TERMS + 1)), Err(SelectorError::TooLong));
        assert_eq!(Selector::parse(&" ".repeat(MAX_SELECTOR + 1)), Err(SelectorError::TooLong));
        assert!(Selector::named("web-*").is_err() && Selector::named("web-1").is_ok());
    }

    #[test]
    fn a_count_of_release_0_can_stand_for_any_release() {
        let selector = Selector::parse("release=42 web-*").unwrap();
        let may = [0, 41, 42].map(|release| selector.may_match(release, HostState::Active));
        assert_eq!(may, [true, false, true]);
        let failed = Selector::parse("state=failed").unwrap();
        assert!(!failed.may_match(0, HostState::Active));
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_the_recursive_definition_says(pattern in "[ab*?]{0,7}", text in "[ab]{0,8}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) if slow(rest, text) => true,
                    (Some((b'*', _)), Some((_, left))) => slow(pattern, left),
                    (Some((b'?', rest)), Some((_, left))) => slow(rest, left),
                    (Some((byte, rest)), Some((wanted, left))) => byte == wanted && slow(rest, left),
                    _ => false,
                }
            }
            prop_assert_eq!(glob(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn what_is_written_is_read_as_the_same(text in "(!?[a-z*?-]{1,5}|region!?=[a-z*]{1,4}|state!?=stale|release!?=[0-9]{1,9})( (web|role=x)){0,2}") {
            let selector = Selector::parse(&text).unwrap();
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector.clone()));
            let bytes = crate::codec::encode(&selector);
            prop_assert_eq!(crate::codec::decode::<Selector>(&bytes, 1024), Ok(selector));
        }
    }
}
