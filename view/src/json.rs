//! JSON (RFC 8259), read strictly and with places, and written again.
//!
//! Numbers keep their text: no digit is lost on the way through a merge.

use crate::document::{Budget, Fields, Kind, Node, Place, Scalar, Style, Value, check_depth};
use crate::error::{Fault, Flaw};
use crate::lines::Lines;
use std::fmt::Write;

struct Reader<'t> {
    text: &'t str,
    at: usize,
    lines: Lines<'t>,
    layer: usize,
    budget: Budget,
}

pub(crate) fn read(text: &str, layer: usize) -> Result<Node, Flaw> {
    let mut reader = Reader { text, at: 0, lines: Lines::of(text), layer, budget: Budget::default() };
    reader.space();
    let node = reader.value(0)?;
    reader.space();
    if reader.at < text.len() {
        return Err(reader.wrong("more after the end of the document"));
    }
    Ok(node)
}

impl Reader<'_> {
    fn place(&self, at: usize) -> Place {
        let (line, column) = self.lines.place(at);
        Place { layer: self.layer, line, column }
    }

    fn wrong(&self, what: &str) -> Flaw {
        Flaw::new(self.place(self.at), Fault::Syntax(what.into()))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn take(&mut self, sign: u8) -> bool {
        let there = self.peek() == Some(sign);
        self.at += usize::from(there);
        there
    }

    fn value(&mut self, depth: usize) -> Result<Node, Flaw> {
        let place = self.place(self.at);
        check_depth(depth, place)?;
        self.budget.take(1, place)?;
        let value = match self.peek() {
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Scalar(Scalar::quoted(self.string()?)),
            Some(b'-' | b'0'..=b'9') => Value::Scalar(self.number()?),
            _ => Value::Scalar(self.word()?),
        };
        Ok(Node::new(place, value))
    }

    fn map(&mut self, depth: usize) -> Result<Value, Flaw> {
        self.at += 1;
        let mut fields = Fields::default();
        self.space();
        if self.take(b'}') {
            return Ok(Value::Map(fields.list));
        }
        loop {
            self.space();
            let at = self.place(self.at);
            if self.peek() != Some(b'"') {
                return Err(self.wrong("a key in double quotes is wanted here"));
            }
            let name = Scalar::quoted(self.string()?);
            self.space();
            if !self.take(b':') {
                return Err(self.wrong("`:` is wanted here"));
            }
            self.space();
            let node = self.value(depth + 1)?;
            fields.push(name, at, node)?;
            self.space();
            if self.take(b'}') {
                return Ok(Value::Map(fields.list));
            }
            if !self.take(b',') {
                return Err(self.wrong("`,` or `}` is wanted here"));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Flaw> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.take(b']') {
            return Ok(Value::List(items));
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            if self.take(b']') {
                return Ok(Value::List(items));
            }
            if !self.take(b',') {
                return Err(self.wrong("`,` or `]` is wanted here"));
            }
        }
    }

    fn word(&mut self) -> Result<Scalar, Flaw> {
        let words = [("null", Kind::Null), ("true", Kind::Flag), ("false", Kind::Flag)];
        for (word, kind) in words {
            if self.rest().starts_with(word) {
                self.at += word.len();
                return Ok(Scalar { text: word.into(), kind, style: Style::Plain });
            }
        }
        Err(self.wrong("a value is wanted here"))
    }

    fn digits(&mut self) -> usize {
        let rest = self.rest();
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        self.at += digits;
        digits
    }

    fn number(&mut self) -> Result<Scalar, Flaw> {
        let begin = self.at;
        self.take(b'-');
        let zero = self.peek() == Some(b'0');
        let whole = self.digits();
        if whole == 0 || (zero && whole > 1) {
            self.at = begin;
            return Err(self.wrong("a number has a digit, and no zero before others"));
        }
        if self.take(b'.') && self.digits() == 0 {
            return Err(self.wrong("a digit is wanted here"));
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            if self.digits() == 0 {
                return Err(self.wrong("a digit is wanted here"));
            }
        }
        let text = self.text.get(begin..self.at).unwrap_or_default().to_owned();
        Ok(Scalar { text, kind: Kind::Number, style: Style::Plain })
    }

    fn string(&mut self) -> Result<String, Flaw> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let plain = rest.find(|c: char| matches!(c, '"' | '\\') || c < ' ').unwrap_or(rest.len());
            text.push_str(rest.get(..plain).unwrap_or_default());
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => return Err(self.wrong("a control character in a string is written as an escape")),
                None => return Err(self.wrong("the string does not end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Flaw> {
        let sign = self.text.as_bytes().get(self.at + 1).copied();
        let plain = match sign {
            Some(b'u') => None,
            Some(b'n') => Some('\n'),
            Some(b't') => Some('\t'),
            Some(b'r') => Some('\r'),
            Some(b'b') => Some('\u{8}'),
            Some(b'f') => Some('\u{c}'),
            Some(other @ (b'"' | b'\\' | b'/')) => Some(char::from(other)),
            _ => return Err(self.wrong("no such escape")),
        };
        if let Some(plain) = plain {
            self.at += 2;
            return Ok(plain);
        }
        let first = self.unit(2)?;
        let code = match first {
            0xd800..=0xdbff => {
                let low = if self.rest().get(6..8) == Some("\\u") { self.unit(8)? } else { 0 };
                if !(0xdc00..=0xdfff).contains(&low) {
                    return Err(self.wrong("half of a surrogate pair"));
                }
                self.at += 6;
                0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00)
            }
            other => other,
        };
        let character = char::from_u32(code).ok_or_else(|| self.wrong("half of a surrogate pair"))?;
        self.at += 6;
        Ok(character)
    }

    fn unit(&self, from: usize) -> Result<u32, Flaw> {
        let digits =
            self.rest().get(from..from + 4).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        digits
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.wrong("`\\u` takes four hexadecimal digits"))
    }
}

/// Writes a document, two spaces a level, with a newline at its end.
pub(crate) fn write(node: &Node) -> String {
    let mut text = String::new();
    value(node, 0, &mut text);
    text.push('\n');
    text
}

fn value(node: &Node, depth: usize, out: &mut String) {
    let line = |depth: usize, out: &mut String| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    match &node.value {
        Value::Scalar(scalar) if scalar.kind == Kind::Text => quote(&scalar.text, out),
        Value::Scalar(scalar) => out.push_str(&scalar.text),
        Value::List(items) if items.is_empty() => out.push_str("[]"),
        Value::Map(fields) if fields.is_empty() => out.push_str("{}"),
        Value::List(items) => {
            for (at, item) in items.iter().enumerate() {
                out.push(if at == 0 { '[' } else { ',' });
                line(depth + 1, out);
                value(item, depth + 1, out);
            }
            line(depth, out);
            out.push(']');
        }
        Value::Map(fields) => {
            for (at, field) in fields.iter().enumerate() {
                out.push(if at == 0 { '{' } else { ',' });
                line(depth + 1, out);
                quote(&field.name.text, out);
                out.push_str(": ");
                value(&field.node, depth + 1, out);
            }
            line(depth, out);
            out.push('}');
        }
    }
}

/// Text in double quotes, as JSON and YAML both read it.
pub(crate) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // What YAML does not take as it is, or takes for the end of a line.
            c if c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                // A `String` takes everything.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
