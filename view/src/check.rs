//! Checks of files as people write them (specs/configuration.md, F-70 to F-72).

use crate::document::{Format, Place, read, text_of};
use crate::error::{Fault, Flaw};
use crate::lines::Lines;
use rootcast::path::ConfigPath;

/// What stands where something is still to be filled in.
const REPLACE_ME: &str = concat!("REPLACE", "_ME");

/// Checks the syntax of a file whose name says that it is YAML, JSON, TOML or INI, keys that are
/// there twice included. All other files pass.
///
/// # Errors
/// The first flaw.
pub fn check_syntax(path: &ConfigPath, bytes: &[u8]) -> Result<(), Flaw> {
    match Format::of(path) {
        Some(Format::Yaml) => crate::yaml::read_all(text_of(bytes, 0)?, 0).map(drop),
        Some(format) => read(format, bytes, 0).map(drop),
        None if path.as_str().ends_with(".ini") => crate::ini::check(text_of(bytes, 0)?, 0),
        None => Ok(()),
    }
}

/// Refuses `REPLACE_ME`, in any file that is text.
///
/// # Errors
/// The place of the first.
pub fn check_replaced(bytes: &[u8]) -> Result<(), Flaw> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    let Some(at) = text.find(REPLACE_ME) else { return Ok(()) };
    let (line, column) = Lines::of(text).place(at);
    Err(Flaw::new(Place { layer: 0, line, column }, Fault::ReplaceMe))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(path: &str, text: &str) -> Result<(), String> {
        let path = ConfigPath::new(path).unwrap();
        check_syntax(&path, text.as_bytes()).map_err(|flaw| flaw.to_string())
    }

    #[test]
    fn f_70_each_format_is_checked_by_its_name() {
        let good = [
            ("a.yaml", "a: 1\n---\nb: [1, {x: y}]\n"),
            ("a.yml", ""),
            ("a.json", "[1, 2]"),
            ("a.toml", "a = 1"),
            ("a.ini", "top = 1\n; c\n[s]\nkey: value\n  continued = value\n\n[t] # x\nkey=2\n"),
            ("a.conf", "{{{"),
        ];
        for (path, text) in good {
            assert_eq!(checked(path, text), Ok(()), "{path}");
        }
        let bad = [
            ("a.yaml", "a: 1\n b: 2\n", "2:"),
            ("a.yml", "x: 1\n---\na: 1\na: 2\n", "4:1: duplicate key `a`"),
            ("a.json", "", "1:1: a value is wanted"),
            ("a.toml", "a = 1\na = 2", "2:1: duplicate key `a`"),
            ("a.ini", "[s]\nk=1\n k2=2\nk=3", "4:1: duplicate key `k`"),
            ("a.ini", "[s\n", "1:1: a section ends"),
            ("a.ini", "[s]\nwords\n", "2:1: a line is"),
            ("a.ini", "[s]\n[t]\n[s]\n", "3:1: duplicate key `[s]`"),
        ];
        for (path, text, start) in bad {
            let message = checked(path, text).unwrap_err();
            assert!(message.starts_with(start), "{path}: {message}");
        }
    }

    #[test]
    fn f_71_what_is_to_be_replaced_is_found() {
        let text = format!("a\n ü {REPLACE_ME}");
        let flaw = check_replaced(text.as_bytes()).unwrap_err();
        assert_eq!(flaw.to_string(), format!("2:4: `{REPLACE_ME}` is still there"));
        assert_eq!(check_replaced(b"REPLACE-ME"), Ok(()));
        assert_eq!(check_replaced(b"\xff"), Ok(()));
    }
}
