//! YAML 1.2, read with places and written again.
//!
//! A scalar is written as it was: plain stays plain and quoted stays quoted,
//! so that a program of either version of YAML reads what its author wrote.
//! Aliases and `<<` are written out.

use crate::document::{Budget, Fields, Kind, Node, Place, Scalar, Style, Value, check_depth};
use crate::error::{Fault, Flaw};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use std::collections::BTreeMap;

/// Where the tags of YAML's own types begin.
const CORE_TAGS: &str = "tag:yaml.org,2002:";

struct Reader<'t> {
    events: Parser<'t, StrInput<'t>>,
    layer: usize,
    budget: Budget,
    /// What anchors stand for, with the number of its values.
    anchors: BTreeMap<usize, (Node, usize)>,
}

type Next<'t> = (Event<'t>, Place);

/// Reads the one document of a text; none at all says nothing.
pub(crate) fn read(text: &str, layer: usize) -> Result<Node, Flaw> {
    let mut documents = read_all(text, layer)?;
    match (documents.pop(), documents.first()) {
        (None, _) => Ok(Node::nothing(layer)),
        (Some(node), None) => Ok(match &node.value {
            // `---` alone, or only comments.
            Value::Scalar(scalar) if scalar.text.is_empty() && scalar.style == Style::Plain => {
                Node::nothing(layer)
            }
            _ => node,
        }),
        (Some(last), Some(_)) => Err(Flaw::new(last.place, Fault::SeveralDocuments)),
    }
}

/// Reads all documents of a text.
pub(crate) fn read_all(text: &str, layer: usize) -> Result<Vec<Node>, Flaw> {
    let events = Parser::new_from_str(text);
    let mut reader = Reader { events, layer, budget: Budget::default(), anchors: BTreeMap::new() };
    let mut documents = Vec::new();
    loop {
        let (event, place) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart(_) => {
                reader.anchors.clear();
                let first = reader.next()?;
                documents.push(reader.node(first, 0)?.0);
            }
            Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
            _ => return Err(Flaw::new(place, Fault::Syntax("a document is wanted here".into()))),
        }
    }
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Next<'t>, Flaw> {
        let next: Option<Result<(Event<'t>, Span), ScanError>> = self.events.next_event();
        let at = |mark: &saphyr_parser::Marker| Place {
            layer: self.layer,
            line: mark.line().max(1),
            column: mark.col() + 1,
        };
        match next {
            Some(Ok((event, span))) => Ok((event, at(&span.start))),
            Some(Err(error)) => {
                Err(Flaw::new(at(error.marker()), Fault::Syntax(crate::error::shown(error.info()))))
            }
            // After the end there is no more to read, whatever was hoped for.
            None => Ok((Event::StreamEnd, Place { layer: self.layer, line: 1, column: 1 })),
        }
    }

    /// The value that an event begins, and how many values it holds.
    fn node(&mut self, (event, place): Next<'t>, depth: usize) -> Result<(Node, usize), Flaw> {
        check_depth(depth, place)?;
        let (anchor, node, values) = match event {
            Event::Alias(anchor) => {
                let (node, values) = self.anchors.get(&anchor).ok_or_else(|| {
                    Flaw::new(place, Fault::Syntax("an alias of what is not there yet, or of itself".into()))
                })?;
                let (node, values) = (node.clone(), *values);
                self.budget.take(values, place)?;
                // Deeper than where it was read first.
                check_depth(depth + height(&node), place)?;
                return Ok((node, values));
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.budget.take(1, place)?;
                let tag = tag.as_deref().map(written);
                let scalar = scalar(text.into_owned(), style, tag.as_deref());
                (anchor, Node { place, tag, value: Value::Scalar(scalar) }, 1)
            }
            Event::SequenceStart(anchor, tag) => {
                self.budget.take(1, place)?;
                let (mut items, mut values) = (Vec::new(), 1);
                loop {
                    let next = self.next()?;
                    if matches!(next.0, Event::SequenceEnd) {
                        break;
                    }
                    let (item, more) = self.node(next, depth + 1)?;
                    items.push(item);
                    values += more;
                }
                (anchor, Node { place, tag: tag.as_deref().map(written), value: Value::List(items) }, values)
            }
            Event::MappingStart(anchor, tag) => {
                self.budget.take(1, place)?;
                let (fields, values) = self.fields(depth)?;
                (anchor, Node { place, tag: tag.as_deref().map(written), value: Value::Map(fields) }, values)
            }
            _ => return Err(Flaw::new(place, Fault::Syntax("the document ends too early".into()))),
        };
        if anchor > 0 {
            self.budget.take(values, place)?;
            self.anchors.insert(anchor, (node.clone(), values));
        }
        Ok((node, values))
    }

    fn fields(&mut self, depth: usize) -> Result<(Vec<crate::document::Field>, usize), Flaw> {
        let (mut fields, mut merged, mut values) = (Fields::default(), Vec::new(), 1);
        loop {
            let next = self.next()?;
            if matches!(next.0, Event::MappingEnd) {
                break;
            }
            let at = next.1;
            let Value::Scalar(name) = self.node(next, depth + 1)?.0.value else {
                return Err(Flaw::new(at, Fault::Syntax("a key that is a map or list".into())));
            };
            let next = self.next()?;
            let (node, more) = self.node(next, depth + 1)?;
            values += more;
            if name.style == Style::Plain && name.text == "<<" {
                merged.push(node);
            } else {
                fields.push(name, at, node)?;
            }
        }
        // What the map itself says wins, and then the first that is merged into it.
        for node in merged {
            let place = node.place;
            let maps = match node.value {
                Value::List(maps) => maps,
                _ => vec![node],
            };
            for map in maps {
                let Value::Map(inherited) = map.value else {
                    return Err(Flaw::new(
                        place,
                        Fault::Syntax("`<<` takes a map, or a list of maps".into()),
                    ));
                };
                for field in inherited {
                    if !fields.has(&field.name.text) {
                        fields.push(field.name, field.node.place, field.node)?;
                    }
                }
            }
        }
        Ok((fields.list, values))
    }
}

fn height(node: &Node) -> usize {
    let above = |heights: &mut dyn Iterator<Item = usize>| heights.max().map_or(0, |height| height + 1);
    match &node.value {
        Value::Scalar(_) => 0,
        Value::List(items) => above(&mut items.iter().map(height)),
        Value::Map(fields) => above(&mut fields.iter().map(|field| height(&field.node))),
    }
}

fn scalar(text: String, style: ScalarStyle, tag: Option<&str>) -> Scalar {
    let style = match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
        ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
    };
    let kind = if style == Style::Plain && tag.is_none() { kind(&text) } else { Kind::Text };
    Scalar { text, kind, style }
}

/// What a plain scalar is in YAML's core schema.
fn kind(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return Kind::Flag,
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let all = |digits: &str, of: fn(&char) -> bool| !digits.is_empty() && digits.chars().all(|c| of(&c));
    let octal = text.strip_prefix("0o").is_some_and(|digits| all(digits, |c| matches!(c, '0'..='7')));
    let hexadecimal = text.strip_prefix("0x").is_some_and(|digits| all(digits, char::is_ascii_hexdigit));
    let special = matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN");
    // Rust's own reading takes names of numbers too, which begin with a letter.
    let decimal = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.bytes().any(|byte| byte.is_ascii_digit())
        && unsigned.parse::<f64>().is_ok();
    if octal || hexadecimal || special || decimal { Kind::Number } else { Kind::Text }
}

/// A tag as it is written.
fn written(tag: &Tag) -> String {
    match (tag.handle.as_str(), tag.suffix.as_str()) {
        (CORE_TAGS, suffix) => format!("!!{suffix}"),
        ("!", suffix) => format!("!{suffix}"),
        ("", "!") => "!".into(),
        (handle, suffix) => format!("!<{handle}{suffix}>"),
    }
}

/// Writes a document; what it says is checked by whoever asked for it.
pub(crate) fn write(node: &Node) -> String {
    let mut text = String::new();
    match &node.value {
        Value::Map(fields) if fields.is_empty() => text.push_str("{}\n"),
        _ => block(node, 0, true, &mut text),
    }
    text
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// The lines of a map or list. With `begun`, the first stands where the text ends.
fn block(node: &Node, depth: usize, mut begun: bool, out: &mut String) {
    match &node.value {
        Value::Map(fields) => {
            for field in fields {
                if !std::mem::take(&mut begun) {
                    indent(depth, out);
                }
                flat(&field.name, None, out);
                out.push(':');
                value(&field.node, depth, false, out);
            }
        }
        Value::List(items) => {
            for item in items {
                if !std::mem::take(&mut begun) {
                    indent(depth, out);
                }
                out.push('-');
                value(item, depth, true, out);
            }
        }
        Value::Scalar(_) => value(node, depth, false, out),
    }
}

/// A value behind `key:` or `-`, with the end of its line.
fn value(node: &Node, depth: usize, in_list: bool, out: &mut String) {
    if let Some(tag) = &node.tag {
        out.push(' ');
        out.push_str(tag);
    }
    match &node.value {
        Value::List(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Map(fields) if fields.is_empty() => out.push_str(" {}\n"),
        Value::Scalar(scalar) => {
            if !(scalar.text.is_empty() && scalar.style == Style::Plain) {
                out.push(' ');
                flat(scalar, Some(depth + 1), out);
            }
            out.push('\n');
        }
        _ if in_list && node.tag.is_none() => {
            out.push(' ');
            block(node, depth + 1, true, out);
        }
        _ => {
            out.push('\n');
            block(node, depth + 1, false, out);
        }
    }
}

/// A scalar without the end of its line. Only where `lines` says how deep may it take several.
fn flat(scalar: &Scalar, lines: Option<usize>, out: &mut String) {
    let text = scalar.text.as_str();
    let printable =
        |c: char| !c.is_control() && !matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    match (scalar.style, lines) {
        (Style::Plain, _) if text.chars().all(printable) => out.push_str(text),
        (Style::Block, Some(depth)) if is_literal(text) => {
            out.push_str(if text.ends_with('\n') { "|" } else { "|-" });
            for line in text.lines() {
                out.push('\n');
                if !line.is_empty() {
                    indent(depth, out);
                    out.push_str(line);
                }
            }
        }
        _ => crate::json::quote(text, out),
    }
}

/// Whether a text can be written as lines after `|`, with at most one newline at its end.
fn is_literal(text: &str) -> bool {
    let plain = |c: char| {
        c == '\n'
            || c == '\t'
            || (!c.is_control() && !matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}'))
    };
    !text.is_empty()
        && !text.ends_with("\n\n")
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(plain)
}
