//! Layers: which bundles a host's labels select, and which bundle a file of
//! the repository belongs to (specs/configuration.md, F-10 to F-17).

use crate::path::{BundleName, PathError};
use core::fmt;
use std::collections::BTreeMap;

/// The bundle that the compiler makes itself; no layer may be called so.
pub const PLAN_BUNDLE: &str = "plan";
/// The one bundle of a repository without layers.
pub const BASE_BUNDLE: &str = "base";

/// Why text is not a layer pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayerError {
    /// A literal segment, or the pattern as a whole, cannot be part of a bundle name.
    #[error("a layer names bundles: {0}")]
    Name(#[from] PathError),
    /// Braces that are not `{label}` around a whole segment.
    #[error("`{segment}`: braces stand around a whole segment, as in `region/{{region}}`")]
    Braces {
        /// The segment.
        segment: String,
    },
    /// A label of other characters.
    #[error("`{{{label}}}`: a label may have only a-z and `_`")]
    Label {
        /// The label.
        label: String,
    },
    /// The same label in two segments.
    #[error("names the label `{{{label}}}` twice")]
    LabelTwice {
        /// The label.
        label: String,
    },
    /// The compiler's own bundle.
    #[error(
        "`{PLAN_BUNDLE}` is the name of a bundle that is made for every channel: choose another directory"
    )]
    Reserved,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Segment {
    Literal(Box<str>),
    Label(Box<str>),
}

/// The pattern of a layer, as `base`, `region/{region}` or `host/{host}`:
/// literal segments, and segments that stand for a label's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerPattern {
    segments: Vec<Segment>,
}

impl LayerPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When a bundle could never be called so; see [`LayerError`].
    pub fn parse(text: &str) -> Result<Self, LayerError> {
        let mut segments = Vec::new();
        for segment in text.split('/') {
            let segment = match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(label) => Segment::Label(Self::check_label(label, &segments)?),
                None if segment.contains(['{', '}']) => {
                    let segment = segment.chars().take(120).collect();
                    return Err(LayerError::Braces { segment });
                }
                None => Segment::Literal(segment.into()),
            };
            segments.push(segment);
        }
        let pattern = Self { segments };
        // The shortest name that the pattern can give must be one: it bounds
        // length and depth, and checks the literals.
        let shortest = BundleName::new(&pattern.join(|_| Some("x")).unwrap_or_default())?;
        match pattern.segments.as_slice() {
            [Segment::Literal(_)] if shortest.as_str() == PLAN_BUNDLE => Err(LayerError::Reserved),
            _ => Ok(pattern),
        }
    }

    /// The one layer of a repository that names none.
    ///
    /// # Errors
    /// Never: the name is fixed.
    pub fn base() -> Result<Self, LayerError> {
        Self::parse(BASE_BUNDLE)
    }

    fn check_label(label: &str, before: &[Segment]) -> Result<Box<str>, LayerError> {
        let own = || label.chars().take(120).collect();
        if label.is_empty() || !label.chars().all(|c| matches!(c, 'a'..='z' | '_')) {
            return Err(LayerError::Label { label: own() });
        }
        if before.iter().any(|segment| matches!(segment, Segment::Label(l) if **l == *label)) {
            return Err(LayerError::LabelTwice { label: own() });
        }
        Ok(label.into())
    }

    /// How many segments the pattern has; at least one.
    pub fn depth(&self) -> usize {
        self.segments.len()
    }

    /// The labels that a host needs for this layer, in the pattern's order.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Label(label) => Some(&**label),
            Segment::Literal(_) => None,
        })
    }

    /// Whether both patterns claim the same directories: they differ at most in
    /// what their labels are called.
    pub fn is_alike(&self, other: &Self) -> bool {
        let alike = |(one, two): (&Segment, &Segment)| match (one, two) {
            (Segment::Literal(one), Segment::Literal(two)) => one == two,
            (Segment::Label(_), Segment::Label(_)) => true,
            _ => false,
        };
        self.depth() == other.depth() && self.segments.iter().zip(&other.segments).all(alike)
    }

    /// The bundle of this layer for a host with these labels.
    ///
    /// `None` when the host lacks a label, or has a value for it that is not
    /// one segment of a bundle name: such a host has no such layer.
    pub fn bundle_for(&self, labels: &BTreeMap<String, String>) -> Option<BundleName> {
        let one_segment = |value: &&str| !value.contains('/');
        let name = self.join(|label| labels.get(label).map(String::as_str).filter(one_segment))?;
        BundleName::new(&name).ok().filter(|name| name.as_str() != PLAN_BUNDLE)
    }

    /// Whether the directory that `path`'s first segments name has this
    /// pattern's shape, and what its bundle is called.
    ///
    /// `path` is a directory, or a file with its directories before it: only as
    /// many segments as the pattern has are looked at. `None` when they do not
    /// match; an error when they do but cannot be a bundle's name, as in `region/EU`.
    ///
    /// # Errors
    /// The rule for names that the directory breaks.
    pub fn claim<'a>(
        &self,
        path: impl IntoIterator<Item = &'a str>,
    ) -> Option<Result<BundleName, LayerError>> {
        let mut path = path.into_iter();
        let mut directory = Vec::with_capacity(self.depth());
        for segment in &self.segments {
            let given = path.next()?;
            match segment {
                Segment::Literal(literal) if **literal != *given => return None,
                _ => directory.push(given),
            }
        }
        let name = directory.join("/");
        if name == PLAN_BUNDLE {
            return Some(Err(LayerError::Reserved));
        }
        Some(BundleName::new(&name).map_err(LayerError::Name))
    }

    /// As [`LayerPattern::claim`], with a directory that cannot be a bundle's
    /// name counted as no match.
    pub fn matches_directory<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<BundleName> {
        self.claim(path)?.ok()
    }

    fn join<'a>(&'a self, value: impl Fn(&'a str) -> Option<&'a str>) -> Option<String> {
        let name: Option<Vec<&str>> = self
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(literal) => Some(&**literal),
                Segment::Label(label) => value(label),
            })
            .collect();
        Some(name?.join("/"))
    }
}

impl fmt::Display for LayerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.segments.iter().enumerate() {
            let slash = if at == 0 { "" } else { "/" };
            match segment {
                Segment::Literal(literal) => write!(f, "{slash}{literal}")?,
                Segment::Label(label) => write!(f, "{slash}{{{label}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> LayerPattern {
        LayerPattern::parse(text).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(label, value)| (label.to_string(), value.to_string())).collect()
    }

    fn name(text: &str) -> Option<BundleName> {
        Some(BundleName::new(text).unwrap())
    }

    #[test]
    fn prints_as_it_was_written() {
        for text in ["base", "region/{region}", "{a}/{b_c}", "a.b-c_9/x"] {
            assert_eq!(pattern(text).to_string(), text);
        }
        assert_eq!(pattern("a/{b}/c/{d}").labels().collect::<Vec<_>>(), ["b", "d"]);
    }

    #[test]
    fn refuses_what_can_never_name_a_bundle() {
        let cases = [
            ("", "empty"),
            ("/", "absolute"),
            ("/base", "absolute"),
            ("a//b", "empty segment"),
            ("a/", "empty segment"),
            ("a/../b", "`.` or `..`"),
            ("Region/{region}", "a-z, 0-9"),
            ("region/{Region}", "a-z and `_`"),
            ("region/{}", "a-z and `_`"),
            ("region/{r1}", "a-z and `_`"),
            ("region/x{region}", "whole segment"),
            ("region/{region", "whole segment"),
            ("region/{a}{b}", "a-z and `_`"),
            ("{a}/{a}", "twice"),
            ("plan", "made for every channel"),
        ];
        for (text, part) in cases {
            let message = LayerPattern::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text:?}: {message}");
        }
        assert!(LayerPattern::parse("x/".repeat(100).trim_end_matches('/')).is_err());
        assert!(LayerPattern::parse("plan/{a}").is_ok(), "only the whole name is reserved");
    }

    #[test]
    fn labels_select_bundles() {
        let region = pattern("region/{region}");
        assert_eq!(region.bundle_for(&labels(&[("region", "eu"), ("x", "y")])), name("region/eu"));
        assert_eq!(region.bundle_for(&labels(&[("role", "eu")])), None);
        assert_eq!(pattern("base").bundle_for(&labels(&[])), name("base"));
        for hostile in ["", "a/b", "..", ".", "EU", "a b", "e\0u"] {
            assert_eq!(region.bundle_for(&labels(&[("region", hostile)])), None, "{hostile:?}");
        }
        assert_eq!(pattern("{x}").bundle_for(&labels(&[("x", "plan")])), None);
    }

    #[test]
    fn directories_match_by_shape() {
        let region = pattern("region/{region}");
        assert_eq!(region.matches_directory(["region", "eu", "nginx", "a"]), name("region/eu"));
        assert_eq!(region.matches_directory(["region", "eu"]), name("region/eu"));
        assert_eq!(region.matches_directory(["region"]), None);
        assert_eq!(region.matches_directory(["regions", "eu", "a"]), None);
        assert_eq!(region.matches_directory(["region", "EU", "a"]), None);
        assert!(matches!(region.claim(["region", "EU"]), Some(Err(LayerError::Name(_)))));
        assert!(matches!(pattern("{x}").claim(["plan", "a"]), Some(Err(LayerError::Reserved))));
    }

    #[test]
    fn what_a_host_selects_is_what_a_directory_makes() {
        let pattern = pattern("dc/{region}/rack/{rack}");
        let selected = pattern.bundle_for(&labels(&[("region", "eu"), ("rack", "r-1")]));
        assert_eq!(selected, pattern.matches_directory(["dc", "eu", "rack", "r-1", "file"]));
        assert!(selected.is_some());
    }

    #[test]
    fn alike_is_the_same_shape() {
        assert!(pattern("a/{x}").is_alike(&pattern("a/{y}")));
        assert!(!pattern("a/{x}").is_alike(&pattern("a/x")));
        assert!(!pattern("a/{x}").is_alike(&pattern("a/{x}/b")));
    }
}
