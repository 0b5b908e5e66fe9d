//! What every manifest must say: a reason for each dependency (H-6), and the
//! workspace's lints (H-7).

use crate::{CheckError, Findings};
use serde::de::DeserializeOwned;
use std::path::Path;
use toml::{Table, Value};

/// Reads a file of the repository.
///
/// # Errors
/// [`CheckError::Read`].
pub fn read(path: &Path) -> Result<String, CheckError> {
    std::fs::read_to_string(path).map_err(|source| CheckError::Read { path: path.to_owned(), source })
}

/// Reads a TOML file of the repository.
///
/// # Errors
/// [`CheckError::Read`] or [`CheckError::Toml`].
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, CheckError> {
    toml::from_str(&read(path)?)
        .map_err(|source| CheckError::Toml { path: path.to_owned(), source: Box::new(source) })
}

/// In the text of the root manifest, every line of `[workspace.dependencies]`
/// has a comment directly above that says why it is there. Members of the
/// workspace need none.
pub fn reasons(text: &str) -> Findings {
    let mut findings = Findings::new();
    let (mut inside, mut seen, mut reasoned, mut open) = (false, false, false, 0_i64);
    for line in text.lines().map(str::trim) {
        if open == 0 && line.starts_with('[') {
            inside = line == "[workspace.dependencies]";
            seen |= inside;
            reasoned = false;
            continue;
        }
        if !inside {
            continue;
        }
        // A list that goes on over lines belongs to the line that opened it.
        let continued = open > 0;
        if !line.starts_with('#') {
            open += count(line, &['[', '{']) - count(line, &[']', '}']);
        }
        if continued {
            continue;
        }
        if let Some(words) = line.strip_prefix('#') {
            reasoned |= !words.trim().is_empty();
            continue;
        }
        if let Some((name, value)) = line.split_once('=')
            && !reasoned
            && !value.contains("path = ")
        {
            findings.push(format!("`{}` of [workspace.dependencies] has no reason above it", name.trim()));
        }
        reasoned = false;
    }
    if !seen {
        findings.push("there is no [workspace.dependencies], so nothing was checked".to_owned());
    }
    findings
}

fn count(line: &str, marks: &[char]) -> i64 {
    line.chars().filter(|c| marks.contains(c)).fold(0, |sum, _| sum + 1)
}

/// A member takes its lints, and every dependency, from the workspace; so no
/// dependency is without a reason, and none has two versions by mistake.
pub fn inherits(name: &str, manifest: &Table) -> Findings {
    let mut findings = Findings::new();
    let from_workspace =
        |value: Option<&Value>| value.and_then(|table| table.get("workspace")) == Some(&Value::Boolean(true));
    if !from_workspace(manifest.get("lints")) {
        findings.push(format!("`{name}` lacks `[lints] workspace = true`"));
    }
    let per_target = manifest.get("target").and_then(Value::as_table).into_iter().flatten();
    let tables = std::iter::once(manifest).chain(per_target.filter_map(|(_, value)| value.as_table()));
    for table in tables {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (wanted, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
                if !from_workspace(Some(value)) {
                    findings.push(format!(
                        "`{name}` declares `{wanted}` itself; move it to [workspace.dependencies]"
                    ));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_a_comment_directly_above_is_found() {
        let text = "[package]\nname = \"x\"\n[workspace.dependencies]\nown = { path = \"own\" }\n\
                    # why\na = \"1\"\nb = \"1\"\n# why not directly\n\nc = \"1\"\n#\nd = \"1\"\n[other]\ne = \"1\"\n";
        let findings = reasons(text);
        assert_eq!(findings.len(), 3, "{findings:?}");
        for (finding, name) in findings.iter().zip(["`b`", "`c`", "`d`"]) {
            assert!(finding.contains(name), "{finding}");
        }
    }

    #[test]
    fn a_list_over_several_lines_is_one_declaration() {
        let text = "[workspace.dependencies]\n# why\na = { version = \"1\", features = [\n  \"x=y\",\n] }\nb = \"1\"\n";
        assert_eq!(reasons(text).len(), 1);
    }

    #[test]
    fn a_manifest_without_the_table_fails() {
        assert_eq!(reasons("[package]\n").len(), 1);
    }

    #[test]
    fn lints_and_dependencies_that_are_not_inherited_are_found() {
        let good = "[dependencies]\na.workspace = true\n[dev-dependencies]\nb = { workspace = true }\n\
                    [lints]\nworkspace = true\n";
        assert!(inherits("x", &toml::from_str(good).unwrap()).is_empty());
        let bad = "[dependencies]\na = \"1\"\n[target.'cfg(unix)'.dependencies]\nb = \"1\"\n\
                   [lints]\nworkspace = false\n";
        assert_eq!(inherits("x", &toml::from_str(bad).unwrap()).len(), 3);
    }
}
