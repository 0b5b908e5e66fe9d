//! The syntax of INI files: sections, keys and comments; nothing else is known of them.

use crate::document::Place;
use crate::error::{Fault, Flaw};
use std::collections::BTreeSet;

/// Checks a text: each line is a `[section]`, a key with its value, a comment, empty, or begins with
/// space and continues the value before. No section has a key twice, nor does a file have a section twice.
pub(crate) fn check(text: &str, layer: usize) -> Result<(), Flaw> {
    let (mut sections, mut keys) = (BTreeSet::new(), BTreeSet::new());
    let mut has_key = false;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        let begin = line.chars().take_while(|c| c.is_whitespace()).count();
        let place = Place { layer, line: index + 1, column: begin + 1 };
        let wrong = |what: &str| Err(Flaw::new(place, Fault::Syntax(what.into())));
        if trimmed.is_empty() || trimmed.starts_with([';', '#']) || (begin > 0 && has_key) {
            continue;
        }
        if let Some(rest) = trimmed.strip_prefix('[') {
            let Some((name, after)) = rest.split_once(']') else {
                return wrong("a section ends with `]`");
            };
            let after = after.trim_start();
            if name.trim().is_empty() || !(after.is_empty() || after.starts_with([';', '#'])) {
                return wrong("a section is `[name]`, on a line of its own");
            }
            if !sections.insert(name) {
                return Err(Flaw::new(place, Fault::Duplicate { key: format!("[{name}]") }));
            }
            keys.clear();
            has_key = false;
            continue;
        }
        let Some((key, _)) = trimmed.split_once(['=', ':']).filter(|(key, _)| !key.trim().is_empty()) else {
            return wrong("a line is `[section]`, `key = value` or a comment");
        };
        if !keys.insert(key.trim()) {
            return Err(Flaw::new(place, Fault::Duplicate { key: key.trim().to_owned() }));
        }
        has_key = true;
    }
    Ok(())
}
