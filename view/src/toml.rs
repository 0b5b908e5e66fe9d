//! TOML, read with places, and merged in the text of the lowest layer, so that
//! its comments and its order stay.

use crate::document::{Budget, Field, Fields, Kind, Node, Place, Scalar, Style, Value, check_depth};
use crate::error::{Fault, Flaw, shown};
use crate::lines::Lines;
use crate::merge::{DELETE, Keys};
use bytes::Bytes;
use std::ops::Range;
use toml_edit::{Array, ArrayOfTables, Document, DocumentMut, InlineTable, Item, Table, TableLike};

struct Reader<'t> {
    lines: Lines<'t>,
    layer: usize,
    budget: Budget,
}

pub(crate) fn read(text: &str, layer: usize) -> Result<Node, Flaw> {
    let lines = Lines::of(text);
    let document = Document::parse(text).map_err(|error| {
        let (line, column) = lines.place(error.span().map_or(0, |span| span.start));
        let message = error.message().lines().next().unwrap_or("is not TOML").to_owned();
        let fault = match message.strip_prefix("duplicate key") {
            Some(_) => Fault::Duplicate { key: key_at(text, error.span()) },
            None => Fault::Syntax(shown(&message)),
        };
        Flaw::new(Place { layer, line, column }, fault)
    })?;
    let mut reader = Reader { lines, layer, budget: Budget::default() };
    let first = Place { layer, line: 1, column: 1 };
    let fields = reader.table(document.as_table(), first, 0)?;
    Ok(Node::new(first, Value::Map(fields)))
}

fn key_at(text: &str, span: Option<Range<usize>>) -> String {
    let key = span.and_then(|span| text.get(span)).unwrap_or_default();
    key.trim_matches(['[', ']', ' ', '"', '\'']).to_owned()
}

impl Reader<'_> {
    fn place(&self, span: Option<Range<usize>>, otherwise: Place) -> Place {
        let Some(span) = span else { return otherwise };
        let (line, column) = self.lines.place(span.start);
        Place { layer: self.layer, line, column }
    }

    fn table(&mut self, table: &dyn TableLike, above: Place, depth: usize) -> Result<Vec<Field>, Flaw> {
        check_depth(depth, above)?;
        let mut fields = Fields::default();
        for (name, item) in table.iter() {
            let at = self.place(table.key(name).and_then(toml_edit::Key::span), above);
            let node = self.item(item, at, depth + 1)?;
            fields.push(Scalar::quoted(name.to_owned()), at, node)?;
        }
        Ok(fields.list)
    }

    fn item(&mut self, item: &Item, key: Place, depth: usize) -> Result<Node, Flaw> {
        let place = self.place(item.span(), key);
        self.budget.take(1, place)?;
        check_depth(depth, place)?;
        let value = if let Some(table) = item.as_table_like() {
            Value::Map(self.table(table, place, depth)?)
        } else if let Some(tables) = item.as_array_of_tables() {
            let mut items = Vec::new();
            for table in tables {
                self.budget.take(1, place)?;
                let place = self.place(table.span(), place);
                items.push(Node::new(place, Value::Map(self.table(table, place, depth + 1)?)));
            }
            Value::List(items)
        } else if let Some(array) = item.as_array() {
            let items = array.iter().map(|value| self.item(&Item::Value(value.clone()), place, depth + 1));
            Value::List(items.collect::<Result<_, _>>()?)
        } else {
            Value::Scalar(item.as_value().map_or_else(|| Scalar::quoted(String::new()), scalar))
        };
        Ok(Node::new(place, value))
    }
}

fn scalar(value: &toml_edit::Value) -> Scalar {
    let kind = match value {
        toml_edit::Value::String(text) => return Scalar::quoted(text.value().clone()),
        toml_edit::Value::Boolean(_) => Kind::Flag,
        toml_edit::Value::Integer(_) | toml_edit::Value::Float(_) => Kind::Number,
        _ => Kind::Text,
    };
    let text = value.clone().decorated("", "").to_string();
    Scalar { text, kind, style: Style::Plain }
}

/// Merges texts that were read and merged as documents already: none of them has a flaw.
pub(crate) fn merge(texts: &[Bytes], keys: &Keys) -> Result<String, Flaw> {
    let mut merging = Merging { keys, path: Vec::new() };
    let mut merged: Option<DocumentMut> = None;
    for (layer, text) in texts.iter().enumerate() {
        let text = crate::document::text_of(text, layer)?;
        let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
            let place = Place { layer, line: 1, column: 1 };
            Flaw::new(place, Fault::Syntax(shown(error.message())))
        })?;
        match &mut merged {
            None => {
                merging.settle_table(document.as_table_mut(), false);
                merged = Some(document);
            }
            Some(base) => merging.over_table(base.as_table_mut(), document.as_table(), false),
        }
    }
    Ok(merged.map(|document| document.to_string()).unwrap_or_default())
}

struct Merging<'k> {
    keys: &'k Keys,
    path: Vec<String>,
}

fn is_marker(table: &dyn TableLike) -> bool {
    table.contains_key(DELETE)
}

fn deletes(item: &Item) -> bool {
    item.as_table_like().is_some_and(is_marker)
}

/// What tells a table of a keyed list apart.
fn key_of(table: &dyn TableLike, field: &str) -> Option<String> {
    table.get(field).and_then(Item::as_value).map(|value| scalar(value).text)
}

/// The tables of a list, in either of the two ways in which they are written.
fn tables(item: &Item) -> Vec<Table> {
    match item {
        Item::ArrayOfTables(tables) => tables.iter().cloned().collect(),
        Item::Value(toml_edit::Value::Array(array)) => {
            array.iter().filter_map(|value| Some(value.as_inline_table()?.clone().into_table())).collect()
        }
        _ => Vec::new(),
    }
}

impl Merging<'_> {
    fn key(&self) -> Option<String> {
        self.keys.get(&self.path.join(".")).cloned()
    }

    fn below<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(name.to_owned());
        let done = work(self);
        self.path.pop();
        done
    }

    /// Takes the markers out. What is `fresh` in its document gets its place there anew.
    fn settle_table(&mut self, table: &mut dyn TableLike, fresh: bool) {
        let names: Vec<String> = table.iter().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            if table.get(&name).is_some_and(deletes) {
                table.remove(&name);
            } else if let Some(item) = table.get_mut(&name) {
                self.below(&name, |merging| merging.settle(item, fresh));
            }
        }
    }

    fn settle(&mut self, item: &mut Item, fresh: bool) {
        let keyed = self.key().is_some();
        match item {
            Item::Table(table) => {
                if fresh {
                    table.set_position(None);
                }
                self.settle_table(table, fresh);
            }
            Item::ArrayOfTables(tables) => {
                tables.retain(|table| !keyed || !is_marker(table));
                for table in tables.iter_mut() {
                    if fresh {
                        table.set_position(None);
                    }
                    self.settle_table(table, fresh);
                }
            }
            Item::Value(toml_edit::Value::InlineTable(table)) => self.settle_table(table, fresh),
            Item::Value(toml_edit::Value::Array(array)) if keyed => {
                array.retain(|value| !value.as_inline_table().is_some_and(|table| is_marker(table)));
                for table in array.iter_mut().filter_map(toml_edit::Value::as_inline_table_mut) {
                    self.settle_table(table, fresh);
                }
            }
            _ => {}
        }
    }

    /// An item as it is put into another document; as a value where tables have no place.
    fn fresh(&mut self, item: &Item, inline: bool) -> Item {
        let mut item = item.clone();
        self.settle(&mut item, true);
        if inline {
            item.make_value();
        }
        item
    }

    fn over_table(&mut self, base: &mut dyn TableLike, over: &dyn TableLike, inline: bool) {
        for (name, item) in over.iter() {
            if deletes(item) {
                base.remove(name);
                continue;
            }
            self.below(name, |merging| match base.get_mut(name) {
                Some(below) => merging.over(below, item, inline),
                None => {
                    let item = merging.fresh(item, inline);
                    match over.key(name) {
                        Some(key) if !inline => drop(base.entry_format(key).or_insert(item)),
                        _ => drop(base.insert(name, item)),
                    }
                }
            });
        }
    }

    fn over(&mut self, base: &mut Item, item: &Item, inline: bool) {
        let inline =
            inline || base.is_inline_table() || base.as_table().is_some_and(|table| table.is_dotted());
        if let (Some(base), Some(over)) = (base.as_table_like_mut(), item.as_table_like()) {
            return self.over_table(base, over, inline);
        }
        let is_list = |item: &Item| item.is_array() || item.is_array_of_tables();
        if let Some(field) = self.key().filter(|_| is_list(base) && is_list(item)) {
            match base {
                Item::ArrayOfTables(base) => return self.over_tables(base, item, &field),
                Item::Value(toml_edit::Value::Array(base)) => return self.over_array(base, item, &field),
                _ => {}
            }
        }
        let mut new = self.fresh(item, inline);
        // The comments around the value stay.
        if let (Some(new), Some(old)) = (new.as_value_mut(), base.as_value()) {
            *new.decor_mut() = old.decor().clone();
        }
        *base = new;
    }

    fn over_tables(&mut self, base: &mut ArrayOfTables, item: &Item, field: &str) {
        for mut table in tables(item) {
            let key = key_of(&table, field);
            let at = base.iter().position(|below| key_of(below, field) == key);
            match at {
                Some(at) if is_marker(&table) => drop(base.remove(at)),
                Some(at) => {
                    if let Some(below) = base.get_mut(at) {
                        self.over_table(below, &table, false);
                    }
                }
                None if is_marker(&table) => {}
                None => {
                    table.set_position(None);
                    self.settle_table(&mut table, true);
                    base.push(table);
                }
            }
        }
    }

    fn over_array(&mut self, base: &mut Array, item: &Item, field: &str) {
        let key_in = |value: &toml_edit::Value| key_of(value.as_inline_table()?, field);
        for table in tables(item) {
            let key = key_of(&table, field);
            let at = base.iter().position(|below| key_in(below) == key);
            match at {
                Some(at) if is_marker(&table) => drop(base.remove(at)),
                Some(at) => {
                    let below = base.get_mut(at).and_then(toml_edit::Value::as_inline_table_mut);
                    if let Some(below) = below {
                        self.over_table(below, &table, true);
                    }
                }
                None if is_marker(&table) => {}
                None => {
                    let mut table: InlineTable = table.into_inline_table();
                    self.settle_table(&mut table, true);
                    let mut value = toml_edit::Value::InlineTable(table);
                    if let Some(last) = base.iter().last() {
                        *value.decor_mut() = last.decor().clone();
                    }
                    base.push_formatted(value);
                }
            }
        }
    }
}
