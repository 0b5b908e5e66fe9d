//! Which files of a view are made on the host, and how: the file `views` of the
//! bundle `plan` (specs/configuration.md, F-50 to F-53).

use crate::codec::{self, CodecError};
use crate::limits::{MAX_BLOB, MAX_MERGE_KEY, MAX_MERGE_KEYS, MAX_VIEW_PATTERNS};
use crate::path::{ConfigPath, PathError};
use crate::pattern::Pattern;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Files of which all layers' versions become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeRule {
    /// Which, by their paths on the host.
    pub files: Vec<Pattern>,
    /// Lists whose items are told apart by a field: names of keys joined by `.`, and the field.
    pub keys: BTreeMap<String, String>,
}

/// Rules of a release for its hosts' views. Without any, a view is file by file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ViewRules {
    /// What is merged; of several rules for a file the first holds.
    pub merges: Vec<MergeRule>,
    /// What is rendered, by paths on the host.
    pub templates: Vec<Pattern>,
}

/// The path of the rules in the bundle `plan`.
///
/// # Errors
/// Never, unless a fixed path were no path.
pub fn view_rules_path() -> Result<ConfigPath, PathError> {
    ConfigPath::new("views")
}

type EncodedMerge = (Vec<String>, Vec<(String, String)>);

#[derive(Serialize, Deserialize)]
struct EncodedRules(Vec<EncodedMerge>, Vec<String>);

fn texts(patterns: &[Pattern]) -> Vec<String> {
    patterns.iter().map(Pattern::to_string).collect()
}

impl ViewRules {
    /// Whether all views are file by file.
    pub fn is_empty(&self) -> bool {
        self.merges.is_empty() && self.templates.is_empty()
    }

    /// How a file is merged, if it is.
    pub fn merge(&self, path: &ConfigPath) -> Option<&MergeRule> {
        self.merges.iter().find(|rule| rule.files.iter().any(|files| files.matches(path.as_str())))
    }

    /// Whether a file is a template.
    pub fn is_template(&self, path: &ConfigPath) -> bool {
        self.templates.iter().any(|files| files.matches(path.as_str()))
    }

    /// Whether a file is made on the host, rather than taken as a layer has it.
    pub fn derives(&self, path: &ConfigPath) -> bool {
        self.is_template(path) || self.merge(path).is_some()
    }

    /// The content of the file.
    pub fn encode(&self) -> Vec<u8> {
        let keys = |rule: &MergeRule| rule.keys.iter().map(|(list, by)| (list.clone(), by.clone())).collect();
        let merges = self.merges.iter().map(|rule| (texts(&rule.files), keys(rule))).collect();
        codec::encode(&EncodedRules(merges, texts(&self.templates)))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it is not the one encoding of rules within the bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let EncodedRules(merges, templates) = codec::decode(bytes, MAX_BLOB)?;
        let shape = |reason: String| CodecError::Shape { wanted: "rules of views", reason };
        let patterns = |texts: &[String]| {
            let read = texts.iter().map(|text| Pattern::new(text));
            read.collect::<Result<Vec<_>, _>>().map_err(|error| shape(error.to_string()))
        };
        let mut rules = Self { merges: Vec::new(), templates: patterns(&templates)? };
        for (files, keys) in &merges {
            rules.merges.push(MergeRule { files: patterns(files)?, keys: keys.iter().cloned().collect() });
        }
        rules.check().map_err(|reason| shape(reason.into()))?;
        // One encoding: fields in order, each list once.
        if rules.encode() == bytes { Ok(rules) } else { Err(shape("lists out of order".into())) }
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// The bound that is passed, for people.
    pub fn check(&self) -> Result<(), &'static str> {
        let merged: usize = self.merges.iter().map(|rule| rule.files.len()).sum();
        if merged + self.templates.len() > MAX_VIEW_PATTERNS {
            return Err("more patterns of merges and templates than a host takes");
        }
        if self.merges.iter().any(|rule| rule.files.is_empty()) {
            return Err("a merge of no files");
        }
        if self.merges.iter().map(|rule| rule.keys.len()).sum::<usize>() > MAX_MERGE_KEYS {
            return Err("more keyed lists than a host takes");
        }
        let mut names =
            self.merges.iter().flat_map(|rule| rule.keys.iter()).flat_map(|(list, by)| [list, by]);
        if names.any(|name| name.is_empty() || name.len() > MAX_MERGE_KEY) {
            return Err("a keyed list, or its field, without a name or with one that is too long");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> ViewRules {
        let pattern = |text: &str| Pattern::new(text).unwrap();
        let merge = |files: &[&str], keys: &[(&str, &str)]| MergeRule {
            files: files.iter().map(|text| pattern(text)).collect(),
            keys: keys.iter().map(|(list, by)| (list.to_string(), by.to_string())).collect(),
        };
        ViewRules {
            merges: vec![merge(&["a/*.yaml"], &[("servers", "name")]), merge(&["**/*.yaml", "x"], &[])],
            templates: vec![pattern("t/**")],
        }
    }

    fn path(text: &str) -> ConfigPath {
        ConfigPath::new(text).unwrap()
    }

    #[test]
    fn f_50_the_first_rule_for_a_file_holds() {
        let rules = rules();
        assert_eq!(rules.merge(&path("a/b.yaml")).unwrap().keys.len(), 1);
        assert_eq!(rules.merge(&path("b/b.yaml")).unwrap().keys.len(), 0);
        assert_eq!(rules.merge(&path("a/b.conf")), None);
        assert!(rules.derives(&path("t/a")) && !rules.derives(&path("u/a")));
    }

    #[test]
    fn f_53_rules_come_back_and_have_one_encoding() {
        let rules = rules();
        assert_eq!(ViewRules::decode(&rules.encode()).unwrap(), rules);
        let twice: EncodedMerge =
            (vec!["x".into()], vec![("b".into(), "n".into()), ("a".into(), "n".into())]);
        let unordered = codec::encode(&EncodedRules(vec![twice], vec![]));
        assert!(ViewRules::decode(&unordered).is_err());
        let many = codec::encode(&EncodedRules(vec![], vec!["x".into(); MAX_VIEW_PATTERNS + 1]));
        assert!(ViewRules::decode(&many).unwrap_err().to_string().contains("more patterns"));
        let none = codec::encode(&EncodedRules(vec![(vec![], vec![])], vec![]));
        assert!(ViewRules::decode(&none).is_err());
        let wrong = codec::encode(&EncodedRules(vec![], vec!["[".into()]));
        assert!(ViewRules::decode(&wrong).is_err());
    }
}
