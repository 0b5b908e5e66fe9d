//! Rules on source text: secret keys (H-3), the pure core (H-2), nothing left
//! unfinished (H-8), no file too long (H-9), nothing that no simulation can have (H-10).

use crate::{CheckError, Findings};
use std::path::{Path, PathBuf};

/// Most lines of one source file, without its tests.
pub const MAX_LINES: usize = 600;

/// Names of types that hold a secret key which signs documents.
pub const SECRET_TYPES: &[&str] =
    &[concat!("Signing", "Key"), concat!("Secret", "Key"), concat!("ExpandedSecret", "Key")];

/// Paths that the core must not name, and why. `clippy.toml` bans the same by
/// type; this finds them where a lint was allowed.
pub const NOT_IN_CORE: &[(&str, &str)] = &[
    ("std::env", "the core reads no environment"),
    ("std::fs", "the core knows no file system"),
    ("std::net", "the core knows no network; addresses are in `core::net`"),
    ("std::os", "the core makes no system calls"),
    ("std::process", "the core starts no process"),
    ("std::thread", "the core has no threads"),
    ("std::time", "the core reads no clock; durations are in `core::time`"),
    ("std::{", "name each module of std by itself, so that this rule sees it"),
    ("RandomState", "the core draws no randomness"),
    (concat!("allow(clippy::dis", "allowed"), "the bans of clippy.toml hold in all of the core"),
];

/// What a member takes from `Machine` alone, so that it runs on a simulated one too.
pub const OF_THE_MACHINE: &[(&str, &str)] = &[
    (concat!("SystemTime", "::now"), "ask `Machine::now`"),
    (concat!("std::time::", "Instant"), "use tokio's, which a simulation moves"),
    (concat!("spawn", "_blocking"), "use `Machine::blocking`"),
    (concat!("thread::", "spawn"), "use `Machine::blocking`"),
    (concat!("DiskStore", "::open"), "use `Machine::store`"),
    (concat!("Endpoint::", "listen("), "use `Machine::listen`"),
    (concat!("Endpoint::", "dial_only("), "use `Machine::dial_only`"),
];

/// A source file, or what is left of it without its tests.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path, for messages.
    pub path: PathBuf,
    /// Text.
    pub text: String,
}

impl Source {
    /// Without its inline test modules, from `#[cfg(test)]` to the bracket that
    /// closes the module. If that bracket is not found where rustfmt puts it,
    /// more is looked at, never less.
    pub fn without_tests(&self) -> Self {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut kept = Vec::new();
        let mut rest = lines.as_slice();
        while let Some((line, after)) = rest.split_first() {
            let opens = after.first().is_some_and(|next| next.contains("mod ") && next.ends_with('{'));
            let closes = after.iter().position(|line| *line == "}");
            rest = match closes {
                Some(index) if *line == "#[cfg(test)]" && opens => after.get(index + 1..).unwrap_or_default(),
                _ => {
                    kept.push(*line);
                    after
                }
            };
        }
        Self { path: self.path.clone(), text: kept.join("\n") }
    }

    /// Lines that are not comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

/// Reads every `.rs` file below a directory. `tests` directories and files are
/// left out unless `with_tests`. A directory that does not exist has none.
///
/// # Errors
/// [`CheckError::Read`].
pub fn read_all(directory: &Path, with_tests: bool) -> Result<Vec<Source>, CheckError> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let is_tests = path.file_stem().is_some_and(|stem| stem == "tests");
        if is_tests && !with_tests {
            continue;
        }
        if path.is_dir() {
            let failed = |source| CheckError::Read { path: path.clone(), source };
            for entry in std::fs::read_dir(&path).map_err(failed)? {
                pending.push(entry.map_err(failed)?.path());
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(Source { text: crate::manifest::read(&path)?, path });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// No code names a type that holds a secret signing key. For all crates but
/// [`crate::closure::KEY_HOME`] and [`crate::closure::KEY_USERS`].
pub fn secret_keys(sources: &[Source]) -> Findings {
    let mut findings = Findings::new();
    for source in sources {
        for (number, line) in source.code() {
            for name in SECRET_TYPES.iter().filter(|name| has_word(line, name)) {
                findings.push(format!(
                    "{}: `{name}` belongs to the crate `rootcast-keys` and those that may use it",
                    source.at(number)
                ));
            }
        }
    }
    findings
}

/// The word as a whole, not as part of another name.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).unwrap_or_default().chars().next_back();
        let after = line.get(at + word.len()..).unwrap_or_default().chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

/// No code of the core names what does I/O, waits, or draws randomness.
pub fn core_does_no_io(sources: &[Source]) -> Findings {
    let mut findings = Findings::new();
    for source in sources {
        for (number, line) in source.code() {
            for (name, reason) in NOT_IN_CORE.iter().filter(|(name, _)| line.contains(name)) {
                findings.push(format!("{}: `{name}`: {reason}", source.at(number)));
            }
        }
    }
    findings
}

/// Nothing takes past `Machine` what a simulation has to give, and every `select!` says
/// in which order it looks: otherwise tokio draws one at random, and no seed repeats.
pub fn can_be_simulated(sources: &[Source]) -> Findings {
    let mut findings = Findings::new();
    for source in sources {
        let mut lines = source.code().peekable();
        while let Some((number, line)) = lines.next() {
            for (name, instead) in OF_THE_MACHINE.iter().filter(|(name, _)| line.contains(name)) {
                findings.push(format!("{}: `{name}`: {instead}", source.at(number)));
            }
            if line.contains("std::time::{") && has_word(line, "Instant") {
                findings
                    .push(format!("{}: `Instant`: use tokio's, which a simulation moves", source.at(number)));
            }
            let next = lines.peek().map_or("", |(_, next)| next.trim());
            if line.contains(concat!("select", "! {")) && next != "biased;" {
                findings.push(format!("{}: `select!` without `biased;`", source.at(number)));
            }
        }
    }
    findings
}

/// Nothing is left unfinished, in tests either.
pub fn finished(sources: &[Source]) -> Findings {
    let marks = [concat!("todo", "!("), concat!("unimplemented", "!(")];
    let mut findings = Findings::new();
    for source in sources {
        for (number, line) in source.code() {
            for mark in marks.iter().filter(|mark| line.contains(**mark)) {
                findings.push(format!(
                    "{}: `{mark}`: write it, or return an error that says so",
                    source.at(number)
                ));
            }
        }
    }
    findings
}

/// No file has more than [`MAX_LINES`] lines.
pub fn sizes(sources: &[Source]) -> Findings {
    let sizes = sources.iter().map(|source| (source, source.text.lines().count()));
    sizes
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(source, lines)| format!("{}: {lines} lines; split it by idea", source.path.display()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> [Source; 1] {
        [Source { path: PathBuf::from("x.rs"), text: text.to_owned() }]
    }

    #[test]
    fn test_modules_are_left_out_and_what_follows_them_is_not() {
        let text = "a\n#[cfg(test)]\nmod tests {\n    b\n}\nc\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\nfn d() {\n}\n";
        let [source] = source(text);
        assert_eq!(source.without_tests().text, "a\nc\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\nfn d() {\n}");
    }

    #[test]
    fn a_test_module_that_is_never_closed_is_looked_at() {
        let [source] = source("#[cfg(test)]\nmod tests {\n    b\n");
        assert!(source.without_tests().text.contains('b'));
    }

    #[test]
    fn a_secret_key_in_code_is_found_and_in_a_comment_is_not() {
        for name in SECRET_TYPES {
            assert_eq!(secret_keys(&source(&format!("fn f(key: &{name}) {{}}"))).len(), 1, "{name}");
            assert!(secret_keys(&source(&format!("    /// Not a {name}."))).is_empty());
            assert!(secret_keys(&source(&format!("struct No{name}2;"))).is_empty());
        }
    }

    #[test]
    fn each_path_that_the_core_must_not_name_is_found() {
        for (name, _) in NOT_IN_CORE {
            let findings = core_does_no_io(&source(&format!("use core::fmt;\nuse {name}::x;")));
            assert_eq!(findings.len(), 1, "{name}: {findings:?}");
            assert!(findings[0].starts_with("x.rs:2"));
        }
        assert!(core_does_no_io(&source("use core::time::Duration;\nuse std::io;")).is_empty());
    }

    #[test]
    fn what_only_a_real_machine_has_is_found_and_so_is_an_order_left_to_chance() {
        for (name, _) in OF_THE_MACHINE {
            assert_eq!(can_be_simulated(&source(&format!("let a = {name}"))).len(), 1, "{name}");
        }
        assert_eq!(can_be_simulated(&source("use std::time::{Duration, Instant};")).len(), 1);
        let select = concat!("select", "! {\n");
        assert_eq!(can_be_simulated(&source(&format!("tokio::{select}    a => {{}}\n"))).len(), 1);
        assert!(can_be_simulated(&source(&format!("tokio::{select}    // why\n    biased;\n"))).is_empty());
        assert!(
            can_be_simulated(&source("use std::time::{Duration, SystemTime};\nuse tokio::time::Instant;"))
                .is_empty()
        );
    }

    #[test]
    fn unfinished_code_is_found() {
        for mark in [concat!("todo", "!()"), concat!("unimplemented", "!(\"later\")")] {
            assert_eq!(finished(&source(mark)).len(), 1);
        }
    }

    #[test]
    fn a_file_is_too_long_from_one_line_over_the_limit() {
        assert!(sizes(&source(&"x\n".repeat(MAX_LINES))).is_empty());
        assert_eq!(sizes(&source(&"x\n".repeat(MAX_LINES + 1))).len(), 1);
    }

    #[test]
    fn sources_are_read_to_any_depth_with_or_without_tests() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("a/tests")).unwrap();
        for name in ["a/b.rs", "a/tests.rs", "a/tests/c.rs", "a/d.txt"] {
            std::fs::write(directory.path().join(name), "x").unwrap();
        }
        assert_eq!(read_all(directory.path(), false).unwrap().len(), 1);
        assert_eq!(read_all(directory.path(), true).unwrap().len(), 3);
        assert!(read_all(&directory.path().join("absent"), true).unwrap().is_empty());
    }
}
