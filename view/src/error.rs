//! What is wrong with a file, and where.

use crate::document::Place;
use rootcast::limits::{MAX_DERIVED, MAX_DOCUMENT_NESTING, MAX_DOCUMENT_VALUES};

/// What can be wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Over the bound.
    #[error("has {size} bytes, and at most {MAX_DERIVED} are merged, rendered or checked")]
    TooLarge {
        /// Its size.
        size: u64,
    },
    /// Not text.
    #[error("is not UTF-8")]
    NotUtf8,
    /// What its format does not allow.
    #[error("{0}")]
    Syntax(String),
    /// A key twice in one map or section.
    #[error("duplicate key `{}`", shown(key))]
    Duplicate {
        /// The key.
        key: String,
    },
    /// Maps and lists in each other.
    #[error("is nested deeper than {MAX_DOCUMENT_NESTING} levels")]
    TooDeep,
    /// A bomb of aliases, or just very many.
    #[error("has more than {MAX_DOCUMENT_VALUES} values, aliases written out")]
    TooManyValues,
    /// What is merged is a map.
    #[error("only documents that are a map are merged, and this is none")]
    NoMap,
    /// A document that is several.
    #[error("has several documents in one file, which cannot be merged")]
    SeveralDocuments,
    /// `$delete` that does not say `true`, or has others beside it.
    #[error("`$delete` stands alone in its map (in a keyed list, beside the field), and is `true`")]
    Delete,
    /// `$delete` where nothing could be meant.
    #[error("`$delete` in a list that replaces another as a whole, or instead of the whole file")]
    NothingToDelete,
    /// An item of a keyed list without its field.
    #[error("the items of this list are told apart by `{}`, and this one has none", shown(field))]
    NoKey {
        /// The field.
        field: String,
    },
    /// Two items of a keyed list.
    #[error("two items of this list have `{}` `{}`", shown(field), shown(value))]
    SameKey {
        /// The field.
        field: String,
        /// Its value in both.
        value: String,
    },
    /// A file of another format.
    #[error("cannot be merged: only files whose names end in .yaml, .yml, .json or .toml are")]
    NoFormat,
    /// The merged document has no text that means the same.
    #[error("the merged document cannot be written so that it means the same")]
    Unwritable,
    /// A template that is none, or that goes wrong.
    #[error("template: {0}")]
    Template(String),
    /// What had to be filled in was not.
    #[error("`REPLACE_ME` is still there")]
    ReplaceMe,
}

/// Text of a file as a message repeats it: no control characters, not too long.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// A fault and its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {fault}", place.line, place.column)]
pub struct Flaw {
    /// Where.
    pub place: Place,
    /// What.
    pub fault: Fault,
}

impl Flaw {
    pub(crate) fn new(place: Place, fault: Fault) -> Self {
        Self { place, fault }
    }
}
