//! Settings files: TOML text to typed settings, with errors that say where.
//!
//! Every settings file of Rootcast is read through [`parse`]: the repository's
//! `rootcast.toml` and each daemon's own. The types given refuse unknown keys,
//! and a mistyped key is answered with the nearest known one
//! (specs/configuration.md, F-2 to F-5). Pure: whoever has the file gives its text.

use crate::limits::MAX_SETTINGS;
use core::ops::Range;
use serde::de::DeserializeOwned;

/// Longest piece of the file's own text that a message repeats, in characters.
const QUOTED: usize = 80;

/// What is wrong with a settings file, and where.
///
/// Prints as `7:1: unknown key `chanel`; did you mean `channel`?`, so that a
/// caller puts the file's name and a colon before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}{}", hint(.suggestion.as_deref()))]
pub struct SettingsError {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong there, in one line.
    pub message: String,
    /// For an unknown key, the known one that is nearest to it.
    pub suggestion: Option<String>,
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}

impl SettingsError {
    /// An error at byte `offset` of `text`: for what only the caller can judge
    /// of a value that it read as [`Spanned`].
    pub fn at(text: &str, offset: usize, message: impl Into<String>) -> Self {
        let (line, column) = position(text.as_bytes(), offset);
        Self { line, column, message: message.into(), suggestion: None }
    }
}

/// A value and the bytes of the file that it was read from.
pub use toml::Spanned;

/// Reads settings from the text of a file.
///
/// # Errors
/// When the text is over [`MAX_SETTINGS`] bytes, is not TOML, lacks a key, has
/// one twice, or has one that `T` does not know (`T` denies unknown fields).
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, SettingsError> {
    if text.len() as u64 > MAX_SETTINGS {
        let message = format!("{} bytes, over the limit of {MAX_SETTINGS}", text.len());
        return Err(SettingsError { line: 1, column: 1, message, suggestion: None });
    }
    toml::from_str(text).map_err(|error| explain(text, error.message(), error.span()))
}

/// Reads settings from the bytes of a file, which must be UTF-8.
///
/// # Errors
/// As [`parse`]; and at the first byte that is not UTF-8.
pub fn parse_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SettingsError> {
    parse(text_of(bytes)?)
}

/// The text of a settings file's bytes.
///
/// # Errors
/// At the first byte that is not UTF-8.
pub fn text_of(bytes: &[u8]) -> Result<&str, SettingsError> {
    core::str::from_utf8(bytes).map_err(|error| {
        let (line, column) = position(bytes, error.valid_up_to());
        SettingsError { line, column, message: "is not UTF-8".into(), suggestion: None }
    })
}

/// Line and column of a byte, both from 1, the column in characters.
fn position(bytes: &[u8], offset: usize) -> (usize, usize) {
    let before = bytes.get(..offset).unwrap_or(bytes);
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = String::from_utf8_lossy(before.get(line_start..).unwrap_or_default());
    (line, column.chars().count() + 1)
}

/// Puts the parser's words into ours: one line, keys instead of fields.
fn explain(text: &str, message: &str, span: Option<Range<usize>>) -> SettingsError {
    let offset = span.map_or(0, |span| span.start);
    if let Some((key, known)) = unknown_key(message) {
        let near = nearest(key, &known).map(str::to_owned);
        let mut error = SettingsError::at(text, offset, format!("unknown key `{}`", quoted(key)));
        if near.is_none() && !known.is_empty() {
            error.message.push_str(&format!("; known here: `{}`", known.join("`, `")));
        }
        error.suggestion = near;
        return error;
    }
    let message = match message.strip_prefix("missing field ") {
        Some(key) => format!("missing key {key}"),
        None => message.lines().collect::<Vec<_>>().join(", "),
    };
    SettingsError::at(text, offset, message)
}

fn quoted(key: &str) -> String {
    let mut short: String = key.escape_debug().take(QUOTED).collect();
    if key.escape_debug().nth(QUOTED).is_some() {
        short.push('…');
    }
    short
}

/// The key that serde does not know, and those it does, from its message.
///
/// The message is all that serde leaves; the key is the only part of it that
/// comes from the file, so the split is at the last place it can be.
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    if let Some(key) = rest.strip_suffix("`, there are no fields") {
        return Some((key, Vec::new()));
    }
    let (key, expected) = rest.rsplit_once("`, expected ")?;
    // Names stand between backticks: every second piece.
    Some((key, expected.split('`').skip(1).step_by(2).collect()))
}

/// The known key that a slip of the fingers most likely meant, if any.
pub(crate) fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    near(&key.to_lowercase().replace('-', "_"), known).first().copied()
}

/// The known names that a slip of the fingers may have meant, the nearest first.
pub fn near<'a>(name: &str, known: &[&'a str]) -> Vec<&'a str> {
    let length = name.chars().take(QUOTED + 1).count();
    if length > QUOTED {
        return Vec::new();
    }
    let distance = |candidate: &&'a str| {
        let long = candidate.chars().count();
        let most = (long / 3).max(1);
        // Half of all names are told by their lengths.
        let distance = || strsim::damerau_levenshtein(name, candidate);
        (long.abs_diff(length) <= most).then(distance).filter(|distance| *distance <= most)
    };
    let mut near: Vec<(usize, &str)> =
        known.iter().filter_map(|candidate| Some((distance(candidate)?, *candidate))).collect();
    near.sort();
    near.into_iter().map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        channel: String,
        #[serde(default)]
        limits: Limits,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Limits {
        files: u64,
        file_size: u64,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    fn refusal(text: &str) -> String {
        parse::<Sample>(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn reads_what_is_right() {
        let sample: Sample = parse("channel = 'prod'\n[limits]\nfiles = 3\n").unwrap();
        assert_eq!(sample.channel, "prod");
        assert_eq!(sample.limits, Limits { files: 3, file_size: 0 });
    }

    #[test]
    fn a_mistyped_key_is_named_with_its_place_and_the_nearest_key() {
        assert_eq!(
            refusal("# one\n\n  chanel = 'x'\n"),
            "3:3: unknown key `chanel`; did you mean `channel`?"
        );
        assert_eq!(
            refusal("channel = 'x'\n[limits]\n\nfile-size = 1\n"),
            "4:1: unknown key `file-size`; did you mean `file_size`?"
        );
        assert_eq!(
            refusal("channel = 'x'\nlimits = { fiels = 1 }\n"),
            "2:12: unknown key `fiels`; did you mean `files`?"
        );
    }

    #[test]
    fn a_key_that_resembles_none_gets_the_list() {
        assert_eq!(refusal("colour = 'x'\n"), "1:1: unknown key `colour`; known here: `channel`, `limits`");
        let error = parse::<Nothing>("a = 1").unwrap_err();
        assert_eq!(error.to_string(), "1:1: unknown key `a`");
    }

    #[test]
    fn a_key_cannot_forge_the_message() {
        let text = "\"x`, expected `channel`, `y\\n\" = 1\n";
        let message = refusal(text);
        assert!(message.starts_with("1:1: unknown key `x`, expected `channel`, `y\\n`"), "{message}");
        let long = format!("{} = 1\n", "k".repeat(500));
        assert!(refusal(&long).len() < 200);
    }

    #[test]
    fn other_errors_say_where_in_one_line() {
        let cases = [
            ("channel = 'a'\nchannel = 'b'\n", "2:1: "),
            ("channel = 'a'\n[limits]\nfiles = 'many'\n", "3:9: "),
            ("channel = 'a'\n[limits]\nfiles = -1\n", "3:9: "),
            ("channel = 'a\n", "1:"),
            ("# only a remark\n", "1:1: missing key `channel`"),
            // The column counts characters, not bytes.
            ("limits = { 'ü' = 1 }\n", "1:12: unknown key `ü`"),
            ("channel = 'ü' x\n", "1:15: "),
        ];
        for (text, start) in cases {
            let message = refusal(text);
            assert!(message.starts_with(start), "{text:?}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_named_by_place() {
        let error = parse_bytes::<Sample>(b"channel = 'a'\n# \xff\n").unwrap_err();
        assert_eq!(error.to_string(), "2:3: is not UTF-8");
    }

    #[test]
    fn size_and_nesting_are_bounded() {
        let fill = "#".repeat(MAX_SETTINGS as usize);
        assert!(refusal(&fill).contains("missing key"), "the limit itself is allowed");
        assert!(refusal(&(fill + "#")).contains("over the limit"));
        let deep = format!("channel = {}", "[".repeat(100_000));
        assert!(refusal(&deep).starts_with("1:"));
        let dotted = format!("limits{} = 1", ".a".repeat(100_000));
        assert!(refusal(&dotted).starts_with("1:"));
    }
}
