//! Patterns of paths: the one matcher for all settings that name files
//! (specs/configuration.md, F-42).
//!
//! A pattern becomes a small program whose possible states are all followed at
//! once, so a match takes at most the product of both lengths, whatever the pattern.

use crate::limits::{MAX_PATTERN, MAX_PATTERN_NESTING};
use core::fmt;

/// Why text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing at all.
    #[error("a pattern is not empty")]
    Empty,
    /// Over the bound.
    #[error("a pattern has at most {MAX_PATTERN} bytes")]
    TooLong,
    /// Begins with `/`, which no path does.
    #[error("no path begins with `/`: leave it out")]
    Absolute,
    /// `[` without what belongs to it.
    #[error("`[` without its `]`, or with nothing in it; a `[` itself is written `\\[`")]
    Class,
    /// A range that ends before it begins.
    #[error("a range in `[…]` ends before it begins")]
    Range,
    /// Braces that do not pair.
    #[error("`{{` and `}}` do not pair; a brace itself is written `\\{{`")]
    Braces,
    /// Braces in braces in braces.
    #[error("braces are nested deeper than {MAX_PATTERN_NESTING} levels")]
    TooDeep,
    /// A `\` at the end.
    #[error("`\\` at the end, with nothing to stand for")]
    Escape,
}

#[derive(Debug, Clone)]
enum Step {
    /// This character.
    One(char),
    /// Any character but `/`.
    Any,
    /// One of these, or none of them; never `/`.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// Any number of characters but `/`.
    Run,
    /// Any number of characters.
    Deep,
    /// Goes on at each of these.
    Fork(Vec<usize>),
}

/// A pattern of paths: `?`, `*`, `**` as a whole segment, `[…]` and `{a,b}`.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    steps: Vec<Step>,
    /// What every path under it begins with, and ends with.
    prefix: String,
    suffix: String,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Braces that are open while a pattern is read.
struct Open {
    fork: usize,
    /// Where each alternative ends: forks that go on behind the braces.
    ends: Vec<usize>,
    starts: Vec<usize>,
    /// Whether the braces begin a segment.
    at_start: bool,
}

/// A pattern while it is read.
struct Reading {
    steps: Vec<Step>,
    open: Vec<Open>,
    /// Steps from here on are characters that every match ends with.
    tail: usize,
}

impl Reading {
    /// Reads one sign; what is left, and whether a segment begins there.
    fn next<'t>(
        &mut self,
        next: char,
        rest: &'t str,
        at_start: bool,
    ) -> Result<(&'t str, bool), PatternError> {
        let after = rest.get(next.len_utf8()..).unwrap_or_default();
        match next {
            '*' => Ok(self.stars(rest, at_start)),
            '?' => {
                self.steps.push(Step::Any);
                self.tail = self.steps.len();
                Ok((after, false))
            }
            '[' => {
                let (class, behind) = class(after)?;
                self.steps.push(class);
                self.tail = self.steps.len();
                Ok((behind, false))
            }
            '{' if self.open.len() >= MAX_PATTERN_NESTING => Err(PatternError::TooDeep),
            '{' => {
                let fork = self.steps.len();
                self.steps.push(Step::Fork(Vec::new()));
                self.open.push(Open { fork, ends: Vec::new(), starts: vec![fork + 1], at_start });
                Ok((after, at_start))
            }
            ',' if !self.open.is_empty() => {
                let braces = self.open.last_mut().ok_or(PatternError::Braces)?;
                braces.ends.push(self.steps.len());
                self.steps.push(Step::Fork(Vec::new()));
                braces.starts.push(self.steps.len());
                Ok((after, braces.at_start))
            }
            '}' => {
                let braces = self.open.pop().ok_or(PatternError::Braces)?;
                close(&mut self.steps, braces);
                self.tail = self.steps.len();
                Ok((after, false))
            }
            '\\' => {
                let escaped = after.chars().next().ok_or(PatternError::Escape)?;
                self.steps.push(Step::One(escaped));
                Ok((after.get(escaped.len_utf8()..).unwrap_or_default(), false))
            }
            other => {
                self.steps.push(Step::One(other));
                Ok((after, other == '/'))
            }
        }
    }

    fn stars<'t>(&mut self, rest: &'t str, at_start: bool) -> (&'t str, bool) {
        let behind = rest.trim_start_matches('*');
        let segment = at_start && rest.len() - behind.len() == 2;
        let ends = behind.is_empty() || (!self.open.is_empty() && behind.starts_with([',', '}']));
        let left = match behind.strip_prefix('/').filter(|_| segment) {
            // Whole segments with their `/`, or none.
            Some(left) => {
                let fork = self.steps.len();
                self.steps.extend([Step::Fork(vec![fork + 1, fork + 3]), Step::Deep, Step::One('/')]);
                (left, true)
            }
            None => {
                self.steps.push(if segment && ends { Step::Deep } else { Step::Run });
                (behind, false)
            }
        };
        self.tail = self.steps.len();
        left
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// See [`PatternError`].
    pub fn new(text: &str) -> Result<Self, PatternError> {
        match text {
            "" => return Err(PatternError::Empty),
            _ if text.len() > MAX_PATTERN => return Err(PatternError::TooLong),
            _ if text.starts_with('/') => return Err(PatternError::Absolute),
            _ => {}
        }
        let mut reading = Reading { steps: Vec::new(), open: Vec::new(), tail: 0 };
        let (mut rest, mut at_start) = (text, true);
        while let Some(next) = rest.chars().next() {
            (rest, at_start) = reading.next(next, rest, at_start)?;
        }
        let Reading { steps, open, tail } = reading;
        if !open.is_empty() {
            return Err(PatternError::Braces);
        }
        let letter = |step: &Step| if let Step::One(one) = step { Some(*one) } else { None };
        let prefix = steps.iter().map_while(letter).collect();
        let suffix = steps.get(tail..).unwrap_or_default().iter().filter_map(letter).collect();
        Ok(Self { text: text.into(), steps, prefix, suffix })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a path is under the pattern.
    pub fn matches(&self, path: &str) -> bool {
        if !path.starts_with(&self.prefix) || !path.ends_with(&self.suffix) {
            return false;
        }
        let mut now = States::new(self.steps.len());
        let mut next = States::new(self.steps.len());
        self.enter(0, &mut now);
        for character in path.chars() {
            for &state in &now.list {
                match self.steps.get(state) {
                    Some(Step::One(one)) if *one == character => self.enter(state + 1, &mut next),
                    Some(Step::Any) if character != '/' => self.enter(state + 1, &mut next),
                    Some(Step::Class { negated, ranges }) if character != '/' => {
                        let inside = ranges.iter().any(|(from, to)| (*from..=*to).contains(&character));
                        if inside != *negated {
                            self.enter(state + 1, &mut next);
                        }
                    }
                    Some(Step::Run) if character != '/' => self.enter(state, &mut next),
                    Some(Step::Deep) => self.enter(state, &mut next),
                    _ => {}
                }
            }
            core::mem::swap(&mut now, &mut next);
            next.clear();
            if now.list.is_empty() {
                return false;
            }
        }
        now.list.contains(&self.steps.len())
    }

    /// Adds a state, and all that it goes on to without a character.
    fn enter(&self, state: usize, states: &mut States) {
        let mut pending = vec![state];
        while let Some(state) = pending.pop() {
            if !states.add(state) {
                continue;
            }
            match self.steps.get(state) {
                Some(Step::Fork(to)) => pending.extend(to),
                Some(Step::Run | Step::Deep) => pending.push(state + 1),
                _ => {}
            }
        }
    }
}

/// States of a match, each once.
struct States {
    list: Vec<usize>,
    there: Vec<bool>,
}

impl States {
    fn new(steps: usize) -> Self {
        Self { list: Vec::new(), there: vec![false; steps + 1] }
    }

    fn add(&mut self, state: usize) -> bool {
        let Some(there) = self.there.get_mut(state).filter(|there| !**there) else { return false };
        *there = true;
        self.list.push(state);
        true
    }

    fn clear(&mut self) {
        for state in self.list.drain(..) {
            if let Some(there) = self.there.get_mut(state) {
                *there = false;
            }
        }
    }
}

fn close(steps: &mut [Step], braces: Open) {
    let behind = steps.len();
    for end in braces.ends {
        if let Some(step) = steps.get_mut(end) {
            *step = Step::Fork(vec![behind]);
        }
    }
    if let Some(step) = steps.get_mut(braces.fork) {
        *step = Step::Fork(braces.starts);
    }
}

/// Reads a class behind its `[`, up to and with its `]`.
fn class(text: &str) -> Result<(Step, &str), PatternError> {
    let (negated, mut rest) = match text.strip_prefix(['!', '^']) {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges: Vec<(char, char)> = Vec::new();
    let take = |rest: &mut &str| {
        let mut characters = rest.chars();
        let taken = characters.next().ok_or(PatternError::Class)?;
        *rest = characters.as_str();
        Ok::<_, PatternError>(taken)
    };
    loop {
        let mut from = take(&mut rest)?;
        // As the first, it is itself.
        if from == ']' && !ranges.is_empty() {
            return Ok((Step::Class { negated, ranges }, rest));
        }
        if from == '\\' {
            from = take(&mut rest)?;
        }
        let mut to = from;
        if let Some(behind) = rest.strip_prefix('-').filter(|behind| !behind.starts_with(']')) {
            rest = behind;
            to = take(&mut rest)?;
            if to == '\\' {
                to = take(&mut rest)?;
            }
        }
        if from > to {
            return Err(PatternError::Range);
        }
        ranges.push((from, to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn under(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(path)
    }

    #[test]
    fn f_42_each_sign_stands_for_what_it_says() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("a/b", &["a/b"], &["a/bc", "xa/b", "a", "a/b/c"]),
            ("*.yaml", &["a.yaml", ".yaml"], &["a/b.yaml", "a.yml"]),
            ("**/*.yaml", &["a.yaml", "a/b.yaml", "a/b/c.yaml"], &["a.yaml/b"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "ab/c", "b/a/c"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["a/bz", "az", "a/b/z/y"]),
            ("**", &["a", "a/b"], &[]),
            ("a**b", &["ab", "axb"], &["a/b", "ax/b"]),
            ("a?c", &["abc", "aüc"], &["a/c", "ac"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x"]),
            ("[!a-c]x", &["dx", "-x"], &["ax", "/x"]),
            ("[]-]", &["]", "-"], &["a"]),
            ("[^/]", &["a"], &["/"]),
            ("f.{yaml,yml}", &["f.yaml", "f.yml"], &["f.yaml,yml", "f."]),
            ("{a,b/{c,d*}}/x", &["a/x", "b/c/x", "b/dd/x"], &["b/x", "b/c", "b/d/d/x"]),
            ("{**/k,a/**}", &["k", "x/k", "a/b"], &["xk", "a"]),
            ("x{,y}", &["x", "xy"], &["xyy"]),
            ("\\*\\{", &["*{"], &["a{"]),
            ("host/*/tls/*.key", &["host/a/tls/b.key"], &["host/a/b/tls/b.key", "host/a/tls/b.keys"]),
        ];
        for (pattern, yes, no) in cases {
            for path in *yes {
                assert!(under(pattern, path), "{pattern} {path}");
            }
            for path in *no {
                assert!(!under(pattern, path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn f_42_what_is_no_pattern_is_refused() {
        let cases = [
            ("", PatternError::Empty),
            ("/a", PatternError::Absolute),
            ("[", PatternError::Class),
            ("[]", PatternError::Class),
            ("[b-a]", PatternError::Range),
            ("{a", PatternError::Braces),
            ("a}", PatternError::Braces),
            ("a\\", PatternError::Escape),
        ];
        for (text, error) in cases {
            assert_eq!(Pattern::new(text), Err(error), "{text}");
        }
        assert_eq!(Pattern::new(&"a".repeat(MAX_PATTERN + 1)), Err(PatternError::TooLong));
        assert_eq!(Pattern::new(&"{".repeat(MAX_PATTERN_NESTING + 1)), Err(PatternError::TooDeep));
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let stars = Pattern::new(&"*a".repeat(MAX_PATTERN / 2)).unwrap();
        assert!(!stars.matches(&"a".repeat(400)));
        let choices = Pattern::new(&"{a,aa}".repeat(MAX_PATTERN / 6)).unwrap();
        assert!(!choices.matches(&format!("{}b", "a".repeat(1000))));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_pattern_or_refused_and_matching_ends(text in "[a*?/{},\\[\\]!^\\\\-]{0,24}", path in "[a/]{0,12}") {
            if let Ok(pattern) = Pattern::new(&text) {
                let _ = pattern.matches(&path);
            }
        }

        #[test]
        fn what_has_no_sign_matches_itself_alone(text in "[a-z][a-z/.]{0,12}", other in "[a-z/.]{0,12}") {
            let pattern = Pattern::new(&text).unwrap();
            proptest::prop_assert!(pattern.matches(&text));
            proptest::prop_assert_eq!(pattern.matches(&other), text == other);
        }
    }
}
