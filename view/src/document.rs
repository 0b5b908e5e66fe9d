//! A document with places: what YAML, JSON and TOML have in common.

use crate::error::{Fault, Flaw};
use rootcast::limits::{MAX_DERIVED, MAX_DOCUMENT_NESTING, MAX_DOCUMENT_VALUES};
use rootcast::path::ConfigPath;
use std::collections::BTreeSet;

/// A format whose documents can be merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.json`
    Json,
    /// `.toml`
    Toml,
    /// `.yaml`, `.yml`
    Yaml,
}

impl Format {
    /// The format that a file's name says.
    pub fn of(path: &ConfigPath) -> Option<Self> {
        match path.as_str().rsplit_once('.')?.1 {
            "json" => Some(Self::Json),
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Which of the texts that were given, from the lowest layer on.
    pub layer: usize,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
}

/// How a scalar was written, for formats in which that decides what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Quoted,
    Block,
}

/// What a scalar is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Flag,
    Number,
    Text,
}

/// A value that holds no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) kind: Kind,
    pub(crate) style: Style,
}

impl Scalar {
    pub(crate) fn quoted(text: String) -> Self {
        Self { text, kind: Kind::Text, style: Style::Quoted }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) place: Place,
    /// YAML's, as it is written.
    pub(crate) tag: Option<String>,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Field>),
}

/// A key of a map with its value.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: Scalar,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn new(place: Place, value: Value) -> Self {
        Self { place, tag: None, value }
    }

    /// A document that says nothing.
    pub(crate) fn nothing(layer: usize) -> Self {
        Self::new(Place { layer, line: 1, column: 1 }, Value::Map(Vec::new()))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let Value::Map(fields) = &self.value else { return None };
        fields.iter().find(|field| field.name.text == name).map(|field| &field.node)
    }

    /// The same value, wherever it stands.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let alike = |one: &Scalar, other: &Scalar| one.text == other.text && one.kind == other.kind;
        self.tag == other.tag
            && match (&self.value, &other.value) {
                (Value::Scalar(one), Value::Scalar(other)) => alike(one, other),
                (Value::List(one), Value::List(other)) => {
                    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.same(other))
                }
                (Value::Map(one), Value::Map(other)) => {
                    let alike = |(one, other): (&Field, &Field)| {
                        one.name.text == other.name.text && one.node.same(&other.node)
                    };
                    one.len() == other.len() && one.iter().zip(other).all(alike)
                }
                _ => false,
            }
    }

    /// Every value that holds no other, and every empty list or map: its key, names
    /// joined by `.` and items of lists by their number; its place; and its text.
    pub fn values(&self) -> Vec<(String, Place, String)> {
        let mut values = Vec::new();
        self.collect(&mut String::new(), &mut values);
        values
    }

    fn collect(&self, key: &mut String, values: &mut Vec<(String, Place, String)>) {
        let length = key.len();
        let mut below = |name: &str, node: &Self, values: &mut Vec<_>| {
            if length > 0 {
                key.push('.');
            }
            key.push_str(name);
            node.collect(key, values);
            key.truncate(length);
        };
        match &self.value {
            Value::List(items) if !items.is_empty() => {
                for (at, item) in items.iter().enumerate() {
                    below(&at.to_string(), item, values);
                }
            }
            Value::Map(fields) if !fields.is_empty() => {
                for field in fields {
                    below(&field.name.text, &field.node, values);
                }
            }
            Value::Scalar(scalar) => {
                let text = match scalar.style {
                    Style::Plain => scalar.text.clone(),
                    _ => format!("{:?}", scalar.text),
                };
                values.push((key.clone(), self.place, text));
            }
            Value::List(_) => values.push((key.clone(), self.place, "[]".into())),
            Value::Map(_) => values.push((key.clone(), self.place, "{}".into())),
        }
    }
}

/// Counts what a document holds while it is read.
#[derive(Default)]
pub(crate) struct Budget {
    values: usize,
}

impl Budget {
    /// Takes in so many values more.
    pub(crate) fn take(&mut self, values: usize, place: Place) -> Result<(), Flaw> {
        self.values += values;
        if self.values > MAX_DOCUMENT_VALUES { Err(Flaw::new(place, Fault::TooManyValues)) } else { Ok(()) }
    }
}

/// Refuses what is nested too deep.
pub(crate) fn check_depth(depth: usize, place: Place) -> Result<(), Flaw> {
    if depth > MAX_DOCUMENT_NESTING { Err(Flaw::new(place, Fault::TooDeep)) } else { Ok(()) }
}

/// The fields of a map while it is read: no name twice.
#[derive(Default)]
pub(crate) struct Fields {
    pub(crate) list: Vec<Field>,
    names: BTreeSet<String>,
}

impl Fields {
    pub(crate) fn push(&mut self, name: Scalar, at: Place, node: Node) -> Result<(), Flaw> {
        if !self.names.insert(name.text.clone()) {
            return Err(Flaw::new(at, Fault::Duplicate { key: name.text }));
        }
        self.list.push(Field { name, node });
        Ok(())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

/// Bytes as the text of a document.
pub(crate) fn text_of(bytes: &[u8], layer: usize) -> Result<&str, Flaw> {
    let first = Place { layer, line: 1, column: 1 };
    if bytes.len() as u64 > MAX_DERIVED {
        return Err(Flaw::new(first, Fault::TooLarge { size: bytes.len() as u64 }));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let good =
            std::str::from_utf8(bytes.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default();
        let (line, column) = crate::lines::Lines::of(good).place(good.len());
        Flaw::new(Place { layer, line, column }, Fault::NotUtf8)
    })
}

/// Reads a document of a format. `layer` is only noted in its places.
///
/// # Errors
/// Where it is not well-formed, has a key twice, or is over a bound.
pub fn read(format: Format, bytes: &[u8], layer: usize) -> Result<Node, Flaw> {
    let text = text_of(bytes, layer)?;
    match format {
        Format::Json => crate::json::read(text, layer),
        Format::Toml => crate::toml::read(text, layer),
        Format::Yaml => crate::yaml::read(text, layer),
    }
}

impl Node {
    /// The document as JSON: numbers that JSON has not, and dates, are text.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(fields) => {
                let field = |field: &Field| (field.name.text.clone(), field.node.to_json());
                Json::Object(fields.iter().map(field).collect())
            }
            Value::Scalar(scalar) => match scalar.kind {
                Kind::Null => Json::Null,
                Kind::Flag => Json::Bool(scalar.text.eq_ignore_ascii_case("true")),
                Kind::Number => number(&scalar.text).unwrap_or_else(|| Json::String(scalar.text.clone())),
                Kind::Text => Json::String(scalar.text.clone()),
            },
        }
    }

    /// The place of the value that these names of keys and numbers of items lead to; of
    /// what is nearest above it, where it is not there.
    pub fn place_of<'s>(&self, path: impl IntoIterator<Item = &'s str>) -> Place {
        let mut node = self;
        for name in path {
            let below = match &node.value {
                Value::List(items) => name.parse::<usize>().ok().and_then(|at| items.get(at)),
                _ => node.get(name),
            };
            match below {
                Some(below) => node = below,
                None => break,
            }
        }
        node.place
    }
}

/// A number as JSON has it.
fn number(text: &str) -> Option<serde_json::Value> {
    let plain = text.replace('_', "");
    let radix = |prefix: &str, radix| {
        let digits = plain.strip_prefix(prefix)?;
        i64::from_str_radix(digits, radix).ok()
    };
    let whole = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2));
    if let Some(whole) = whole.or_else(|| plain.trim_start_matches('+').parse().ok()) {
        return Some(whole.into());
    }
    serde_json::Number::from_f64(plain.parse().ok()?).map(serde_json::Value::Number)
}
