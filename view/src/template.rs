//! Templates: a layer's file with this host's names filled in
//! (specs/configuration.md, F-60 to F-63).

use crate::document::{Place, text_of};
use crate::error::{Fault, Flaw, shown};
use crate::lines::Lines;
use bytes::Bytes;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use rootcast::limits::{MAX_DERIVED, MAX_FACT, MAX_FACTS, TEMPLATE_FUEL, TEMPLATE_NESTING};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::sync::LazyLock;

/// What a host's own configuration says of it, for templates.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a fact is text, a whole number, or true or false")]
pub enum Fact {
    /// True or false.
    Flag(bool),
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(String),
}

/// Facts by name.
pub type Facts = BTreeMap<String, Fact>;

/// Checks names and sizes of facts (F-62).
///
/// # Errors
/// What is wrong, for people.
pub fn check_facts(facts: &Facts) -> Result<(), String> {
    if facts.len() > MAX_FACTS {
        return Err(format!("{} facts, and a host has at most {MAX_FACTS}", facts.len()));
    }
    for (name, fact) in facts {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(good) {
            return Err(format!(
                "fact `{}`: a name has a-z, 0-9 and `_`, and begins with a letter",
                shown(name)
            ));
        }
        if matches!(fact, Fact::Text(text) if text.len() > MAX_FACT) {
            return Err(format!("fact `{name}` is longer than {MAX_FACT} bytes"));
        }
    }
    Ok(())
}

/// What a template can name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables {
    /// `host`: the host's name.
    pub host: String,
    /// `labels`: its labels, `host` among them.
    pub labels: BTreeMap<String, String>,
    /// `facts`.
    pub facts: Facts,
}

impl Variables {
    fn context(&self) -> Value {
        let labels = self.labels.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        let facts = self.facts.iter().map(|(name, fact)| {
            let value = match fact {
                Fact::Flag(flag) => Value::from(*flag),
                Fact::Integer(number) => Value::from(*number),
                Fact::Text(text) => Value::from(text.as_str()),
            };
            (name.clone(), value)
        });
        let names = [
            ("host".to_owned(), Value::from(self.host.as_str())),
            ("labels".to_owned(), Value::from(labels.collect::<BTreeMap<_, _>>())),
            ("facts".to_owned(), Value::from(facts.collect::<BTreeMap<_, _>>())),
        ];
        Value::from(BTreeMap::from(names))
    }
}

/// The language, and nothing that reaches out of the template or makes steps without end.
static LANGUAGE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(TEMPLATE_FUEL));
    environment.set_recursion_limit(TEMPLATE_NESTING);
    // A line with nothing but a statement leaves none; the last newline stays.
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true);
    // The delimiters are those of the builder itself, which do not clash.
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax);
    }
    environment.set_debug(true);
    // They show, or keep, more than a template needs.
    for name in ["debug", "namespace"] {
        environment.remove_global(name);
    }
    environment
});

/// Takes output up to the bound.
struct Output(Vec<u8>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > MAX_DERIVED {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Fills in a template.
///
/// # Errors
/// Where it is none, names what is not defined, or takes more steps, levels or bytes than it may.
pub fn render(bytes: &[u8], layer: usize, variables: &Variables) -> Result<Bytes, Flaw> {
    let text = text_of(bytes, layer)?;
    let template = LANGUAGE.template_from_str(text).map_err(|error| flaw(text, layer, &error))?;
    let mut output = Output(Vec::new());
    let rendered = template.render_captured_to(variables.context(), &mut output);
    rendered.map_err(|error| flaw(text, layer, &error))?;
    Ok(Bytes::from(output.0))
}

/// Checks that a text is a template, whatever it names.
///
/// # Errors
/// Where it is none.
pub fn check_template(bytes: &[u8], layer: usize) -> Result<(), Flaw> {
    let text = text_of(bytes, layer)?;
    let parsed = LANGUAGE.template_from_str(text).map(drop);
    parsed.map_err(|error| flaw(text, layer, &error))
}

fn flaw(text: &str, layer: usize, error: &Error) -> Flaw {
    let (line, column) = match error.range() {
        Some(range) => Lines::of(text).place(range.start),
        None => (error.line().unwrap_or(1), 1),
    };
    let message = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("takes more than {TEMPLATE_FUEL} steps"),
        (ErrorKind::InvalidOperation, Some("recursion limit exceeded")) => {
            format!("nests deeper than {TEMPLATE_NESTING} levels; does it call itself?")
        }
        (ErrorKind::WriteFailure, _) => format!("makes more than {MAX_DERIVED} bytes"),
        (ErrorKind::UndefinedError, _) => match error.range().and_then(|range| text.get(range)) {
            Some(named) => format!("`{}` is not defined", shown(named.trim())),
            None => "a name that is not defined".into(),
        },
        (kind, Some(detail)) => format!("{kind}: {}", shown(detail)),
        (kind, None) => kind.to_string(),
    };
    Flaw::new(Place { layer, line, column }, Fault::Template(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let labels = [("host", "web-1"), ("region", "eu")];
        Variables {
            host: "web-1".into(),
            labels: labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            facts: Facts::from([
                ("cores".into(), Fact::Integer(8)),
                ("tls".into(), Fact::Flag(true)),
                ("rack".into(), Fact::Text("<r&1>".into())),
            ]),
        }
    }

    fn rendered(text: &str) -> Result<String, String> {
        let done = render(text.as_bytes(), 0, &variables());
        done.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).map_err(|flaw| flaw.to_string())
    }

    #[test]
    fn f_60_names_are_filled_in_as_they_are() {
        let text = "name {{ host }}\n{% if facts.tls %}\n  tls {{ labels.region }}\n{% endif %}\nn {{ facts.cores * 2 }} {{ facts.rack|upper }}\n";
        assert_eq!(rendered(text).unwrap(), "name web-1\n  tls eu\nn 16 <R&1>\n");
        assert_eq!(rendered("{% for i in range(2) %}{{ i }},{% endfor %}").unwrap(), "0,1,");
        assert_eq!(rendered("{{ labels.role|default('none') }}").unwrap(), "none");
    }

    #[test]
    fn f_61_what_is_not_defined_is_an_error_with_its_place() {
        let cases = [
            ("a\n  {{ labels.role }}\n", "2:6: template: `labels.role` is not defined"),
            ("ü {{ hostt }}", "1:6: template: `hostt` is not defined"),
            ("{% if nothing %}x{% endif %}", "1:7: template: `nothing` is not defined"),
            ("a\n{{ host", "2:"),
            ("a\n{% include 'x' %}", "2:4: template: syntax error: unknown statement include"),
            ("{% extends 'x' %}", "1:4: template: syntax error: unknown statement extends"),
            ("{% import 'x' as x %}", "1:4: template: syntax error: unknown statement import"),
            ("{% macro m() %}{% endmacro %}", "1:"),
            ("{{ debug() }}", "1:4: "),
            ("{{ 1 // 0 }}", "1:4: "),
        ];
        for (text, start) in cases {
            let message = rendered(text).unwrap_err();
            assert!(message.starts_with(start), "{text}: {message}");
        }
    }

    #[test]
    fn f_63_steps_levels_and_output_are_bounded() {
        let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(rendered(loops).unwrap_err().contains("takes more than 1000000 steps"));
        let wide = "{% set a = 'x' * 60000 %}{% for i in range(99) %}{{ a }}{% endfor %}";
        assert!(rendered(wide).unwrap_err().contains("makes more than 1048576 bytes"));
        let recursive = "a\n{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}";
        assert_eq!(
            rendered(recursive).unwrap_err(),
            format!("2:13: template: nests deeper than {TEMPLATE_NESTING} levels; does it call itself?")
        );
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(rendered(&deep).is_err());
        assert!(rendered("{{ namespace() }}").is_err());
    }

    proptest::proptest! {
        #[test]
        fn f_63_any_text_is_rendered_or_refused(text in "([a-z ]|\\{\\{|\\}\\}|\\{%|%\\}|if|for|in|set|host|[|~*()'0-9]){0,24}") {
            let _ = rendered(&text);
        }
    }
}
