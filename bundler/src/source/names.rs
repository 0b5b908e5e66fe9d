//! Names that are unsafe, or unwise, although they are well-formed paths.

use super::Refusal;
use rootcast::limits::{MAX_PATH, MAX_REFUSALS_NAMED, MAX_SEGMENTS};
use rootcast::path::{ConfigPath, PathFault};
use std::fmt;
use unicode_normalization::UnicodeNormalization;

/// What is wrong with a directory called `name`, `depth` directories down,
/// whose path is `length` bytes long.
pub(super) fn directory_fault(length: usize, depth: usize, name: &[u8]) -> Option<Refusal> {
    if length >= MAX_PATH {
        return Some(Refusal::Path(PathFault::TooLong));
    }
    if depth + 1 >= MAX_SEGMENTS {
        return Some(Refusal::Path(PathFault::TooDeep));
    }
    match ConfigPath::from_bytes(name) {
        Err(error) => Some(Refusal::Path(error.reason)),
        // Only a forged tree of git has such a name.
        Ok(name) if name.as_str().contains('/') => Some(Refusal::Slash),
        Ok(name) if is_dot_git(name.as_str()) => Some(Refusal::DotGit),
        Ok(_) => None,
    }
}

/// Whether some system's git would take this segment for its own directory:
/// `.git` in any case, with dots, spaces or a stream name behind it, its short
/// name `git~1`, or with characters that HFS+ does not see.
pub(super) fn is_dot_git(segment: &str) -> bool {
    let seen: String = segment.chars().filter(|c| !is_ignored_by_hfs(*c)).collect();
    // Windows ends a name at a stream's colon, a backslash, or trailing dots and spaces.
    let name = seen.split([':', '\\']).next().unwrap_or_default();
    let name = name.trim_end_matches(['.', ' ']);
    name.eq_ignore_ascii_case(".git") || name.eq_ignore_ascii_case("git~1")
}

fn is_ignored_by_hfs(c: char) -> bool {
    matches!(c,
        '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

/// Two paths that some file systems take for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twins {
    /// The one that sorts first; a file's path, or a directory's.
    pub first: String,
    /// The other.
    pub second: String,
}

impl fmt::Display for Twins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = (self.first.escape_debug(), self.second.escape_debug());
        write!(f, "`{first}` and `{second}` differ only by case or Unicode form")
    }
}

/// Files and directories among `paths` (sorted) whose names differ only by case
/// or Unicode normalisation. They are a warning: the hosts' file systems tell
/// them apart, an editor's may not. At most [`MAX_REFUSALS_NAMED`] are given.
pub fn twins<'a>(paths: impl IntoIterator<Item = &'a ConfigPath>) -> Vec<Twins> {
    let mut folded: Vec<(String, &str)> = Vec::new();
    let mut before = "";
    for path in paths {
        let known = |parent: &&str| before.strip_prefix(*parent).is_none_or(|rest| !rest.starts_with('/'));
        folded.extend(path.parents().filter(known).map(|parent| (fold(parent), parent)));
        before = path.as_str();
        folded.push((fold(before), before));
    }
    folded.sort_unstable();
    folded.dedup();
    let pairs = folded.iter().zip(folded.iter().skip(1));
    pairs
        .filter(|(one, two)| one.0 == two.0 && is_named_apart(one.1, two.1))
        .take(MAX_REFUSALS_NAMED)
        .map(|(one, two)| Twins { first: one.1.to_owned(), second: two.1.to_owned() })
        .collect()
}

/// Whether the last segments differ: below directories that are twins, every
/// path is the twin of another, and only the directories are worth naming.
fn is_named_apart(one: &str, two: &str) -> bool {
    let name = |path: &'_ str| path.rsplit('/').next().unwrap_or_default().to_owned();
    name(one) != name(two)
}

fn fold(path: &str) -> String {
    if path.is_ascii() {
        return path.to_ascii_lowercase();
    }
    path.nfd().flat_map(char::to_lowercase).nfd().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(paths: &[&str]) -> Vec<(String, String)> {
        let mut paths: Vec<_> = paths.iter().map(|path| ConfigPath::new(path).unwrap()).collect();
        paths.sort();
        twins(&paths).into_iter().map(|twins| (twins.first, twins.second)).collect()
    }

    #[test]
    fn threat_18_variants_of_dot_git_are_known() {
        let variants = [
            ".git",
            ".GIT",
            ".gIt",
            ".git ",
            ".git.",
            ".git. . ",
            "git~1",
            "GIT~1",
            "git~1.",
            ".git:stream",
            ".git::$INDEX_ALLOCATION",
            ".git\\config",
            ".g\u{200c}it",
            "\u{feff}.git",
            ".git\u{206f}",
            ".\u{202e}GIT",
        ];
        for variant in variants {
            assert!(is_dot_git(variant), "{variant:?}");
        }
        for fine in [".gitignore", ".gitattributes", "git", "git~2", "x.git", ".gi", ".git-x"] {
            assert!(!is_dot_git(fine), "{fine:?}");
        }
    }

    #[test]
    fn threat_15_twins_by_case_or_unicode_form_are_found() {
        let pair = |one: &str, two: &str| (one.to_owned(), two.to_owned());
        assert_eq!(found(&["a/x", "b/X", "c"]), []);
        assert_eq!(found(&["a/x", "a/X"]), [pair("a/X", "a/x")]);
        assert_eq!(found(&["caf\u{e9}", "cafe\u{301}"]), [pair("cafe\u{301}", "caf\u{e9}")]);
        // A directory is named once, not once for each file in it.
        assert_eq!(found(&["Dir/one", "Dir/two", "dir/one", "dir/two"]), [pair("Dir", "dir")]);
        assert_eq!(found(&["a/b/c", "a/b/d", "a/e"]), []);
        let many: Vec<String> = (0..30).flat_map(|n| [format!("x{n}"), format!("X{n}")]).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(found(&many).len(), MAX_REFUSALS_NAMED);
    }
}
