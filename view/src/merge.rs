//! What documents of several layers make together (specs/configuration.md, F-54 to F-58).

use crate::document::{Field, Format, Node, Value, read};
use crate::error::{Fault, Flaw};
use bytes::Bytes;
use rootcast::limits::MAX_DERIVED;
use std::collections::{BTreeMap, BTreeSet};

/// The key that takes away what lower layers say.
pub(crate) const DELETE: &str = "$delete";

/// Fields by which items of lists are told apart, by the names of the keys that lead to the list.
pub type Keys = BTreeMap<String, String>;

/// A merged file.
#[derive(Debug, Clone)]
pub struct Merged {
    /// What it says, each value with the place that it is from.
    pub node: Node,
    /// Its content.
    pub content: Bytes,
}

/// Merges documents, from the lowest layer to the highest.
///
/// Where all but one say nothing, that one's bytes are the result as they are.
///
/// # Errors
/// The first flaw of one of them, or of the result.
pub fn merge(format: Format, texts: &[Bytes], keys: &Keys) -> Result<Merged, Flaw> {
    let mut nodes = Vec::new();
    for (layer, text) in texts.iter().enumerate() {
        let node = read(format, text, layer)?;
        let Value::Map(_) = &node.value else { return Err(Flaw::new(node.place, Fault::NoMap)) };
        nodes.push(node);
    }
    let mut merged: Option<Node> = None;
    let mut merging = Merging { keys, path: Vec::new(), deleted: false };
    let said =
        nodes.iter().enumerate().filter(|(_, node)| !matches!(&node.value, Value::Map(f) if f.is_empty()));
    let said: Vec<usize> = said.map(|(layer, _)| layer).collect();
    for node in nodes {
        if delete_marker(&node)?.is_some() {
            return Err(Flaw::new(node.place, Fault::NothingToDelete));
        }
        merged = Some(match merged {
            Some(base) => merging.over(base, node)?,
            None => merging.settle(node)?,
        });
    }
    let node = merged.unwrap_or_else(|| Node::nothing(0));
    let content = match (said.as_slice(), merging.deleted) {
        ([], _) => texts.first().cloned().unwrap_or_default(),
        ([only], false) => texts.get(*only).cloned().unwrap_or_default(),
        _ => Bytes::from(write(format, texts, keys, &node)?),
    };
    Ok(Merged { node, content })
}

/// The text of a merged document, which says exactly that when it is read again.
fn write(format: Format, texts: &[Bytes], keys: &Keys, node: &Node) -> Result<String, Flaw> {
    let text = match format {
        Format::Json => crate::json::write(node),
        Format::Yaml => crate::yaml::write(node),
        Format::Toml => crate::toml::merge(texts, keys)?,
    };
    if text.len() as u64 > MAX_DERIVED {
        return Err(Flaw::new(node.place, Fault::TooLarge { size: text.len() as u64 }));
    }
    match read(format, text.as_bytes(), 0) {
        Ok(again) if again.same(node) || (format == Format::Toml && same_unordered(&again, node)) => Ok(text),
        _ => Err(Flaw::new(node.place, Fault::Unwritable)),
    }
}

/// The same but for the order of keys: TOML writes plain values before tables.
fn same_unordered(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::Map(one), Value::Map(two)) => {
            let index: BTreeMap<&str, &Node> =
                two.iter().map(|field| (field.name.text.as_str(), &field.node)).collect();
            one.len() == two.len()
                && one.iter().all(|field| {
                    index.get(field.name.text.as_str()).is_some_and(|node| same_unordered(&field.node, node))
                })
        }
        (Value::List(one), Value::List(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| same_unordered(one, two))
        }
        _ => one.same(other),
    }
}

/// Whether a map is a marker that deletes, and the other fields in it.
pub(crate) fn delete_marker(node: &Node) -> Result<Option<Vec<&Field>>, Flaw> {
    let Value::Map(fields) = &node.value else { return Ok(None) };
    let Some(marker) = node.get(DELETE) else { return Ok(None) };
    match &marker.value {
        Value::Scalar(scalar) if scalar.text == "true" && scalar.style == crate::document::Style::Plain => {
            Ok(Some(fields.iter().filter(|field| field.name.text != DELETE).collect()))
        }
        _ => Err(Flaw::new(marker.place, Fault::Delete)),
    }
}

struct Merging<'k> {
    keys: &'k Keys,
    /// Names of the keys that lead to where it is.
    path: Vec<String>,
    /// Whether a marker was met, which must not be delivered.
    deleted: bool,
}

impl Merging<'_> {
    fn key(&self) -> Option<String> {
        self.keys.get(&self.path.join(".")).cloned()
    }

    /// Whether a value deletes what is below it. Nothing but the marker may be in it.
    fn deletes(&mut self, node: &Node) -> Result<bool, Flaw> {
        match delete_marker(node)? {
            Some(others) if others.is_empty() => {
                self.deleted = true;
                Ok(true)
            }
            Some(_) => Err(Flaw::new(node.place, Fault::Delete)),
            None => Ok(false),
        }
    }

    /// A value that nothing is below: markers in it have nothing to delete, and go.
    fn settle(&mut self, mut node: Node) -> Result<Node, Flaw> {
        node.value = match node.value {
            Value::Map(fields) => {
                let mut settled = Vec::with_capacity(fields.len());
                for Field { name, node } in fields {
                    if self.deletes(&node)? {
                        continue;
                    }
                    self.path.push(name.text.clone());
                    let node = self.settle(node)?;
                    self.path.pop();
                    settled.push(Field { name, node });
                }
                Value::Map(settled)
            }
            Value::List(items) => match self.key() {
                Some(field) => Value::List(self.keyed(Vec::new(), items, &field)?),
                None => {
                    items.iter().try_for_each(refuse_markers)?;
                    Value::List(items)
                }
            },
            scalar => scalar,
        };
        Ok(node)
    }

    /// A value over another.
    fn over(&mut self, base: Node, node: Node) -> Result<Node, Flaw> {
        match (base.value, node.value) {
            (Value::Map(lower), Value::Map(upper)) => {
                let value = Value::Map(self.fields(lower, upper)?);
                Ok(Node { place: base.place, tag: node.tag.or(base.tag), value })
            }
            (Value::List(lower), Value::List(upper)) if self.key().is_some() => {
                let field = self.key().unwrap_or_default();
                let value = Value::List(self.keyed(lower, upper, &field)?);
                Ok(Node { place: base.place, tag: node.tag.or(base.tag), value })
            }
            (_, value) => self.settle(Node { value, ..node }),
        }
    }

    fn fields(&mut self, lower: Vec<Field>, upper: Vec<Field>) -> Result<Vec<Field>, Flaw> {
        let index: BTreeMap<String, usize> =
            lower.iter().enumerate().map(|(at, field)| (field.name.text.clone(), at)).collect();
        let mut merged: Vec<Option<Field>> = lower.into_iter().map(Some).collect();
        for Field { name, node } in upper {
            let slot = index.get(&name.text).and_then(|at| merged.get_mut(*at));
            if self.deletes(&node)? {
                slot.map(Option::take);
                continue;
            }
            self.path.push(name.text.clone());
            let base = slot.and_then(Option::take);
            let field = match base {
                Some(base) => Field { name: base.name, node: self.over(base.node, node)? },
                None => Field { name, node: self.settle(node)? },
            };
            self.path.pop();
            match index.get(&field.name.text).and_then(|at| merged.get_mut(*at)) {
                Some(slot) => *slot = Some(field),
                None => merged.push(Some(field)),
            }
        }
        Ok(merged.into_iter().flatten().collect())
    }

    /// Items of a list that are told apart by a field.
    fn keyed(&mut self, lower: Vec<Node>, upper: Vec<Node>, field: &str) -> Result<Vec<Node>, Flaw> {
        let mut index = BTreeMap::new();
        for (at, item) in lower.iter().enumerate() {
            // Twice in a lower layer was refused there, unless the list was none then.
            index.insert(key_of(item, field)?, at);
        }
        let mut merged: Vec<Option<Node>> = lower.into_iter().map(Some).collect();
        let mut seen = BTreeSet::new();
        for item in upper {
            let key = key_of(&item, field)?;
            if !seen.insert(key.clone()) {
                let fault = Fault::SameKey { field: field.into(), value: key };
                return Err(Flaw::new(item.place, fault));
            }
            let slot = index.get(&key).and_then(|at| merged.get_mut(*at));
            if let Some(others) = delete_marker(&item)? {
                if others.len() != 1 {
                    return Err(Flaw::new(item.place, Fault::Delete));
                }
                self.deleted = true;
                slot.map(Option::take);
                continue;
            }
            match slot {
                Some(slot) if slot.is_some() => {
                    let base = slot.take();
                    *slot = base.map(|base| self.over(base, item)).transpose()?;
                }
                _ => merged.push(Some(self.settle(item)?)),
            }
        }
        Ok(merged.into_iter().flatten().collect())
    }
}

/// What tells an item of a keyed list apart.
fn key_of(item: &Node, field: &str) -> Result<String, Flaw> {
    match item.get(field).map(|node| &node.value) {
        Some(Value::Scalar(scalar)) => Ok(scalar.text.clone()),
        _ => Err(Flaw::new(item.place, Fault::NoKey { field: field.into() })),
    }
}

/// In a list that replaces another there is nothing to delete.
fn refuse_markers(node: &Node) -> Result<(), Flaw> {
    if delete_marker(node)?.is_some() {
        return Err(Flaw::new(node.place, Fault::NothingToDelete));
    }
    match &node.value {
        Value::Map(fields) => fields.iter().try_for_each(|field| refuse_markers(&field.node)),
        Value::List(items) => items.iter().try_for_each(refuse_markers),
        Value::Scalar(_) => Ok(()),
    }
}
