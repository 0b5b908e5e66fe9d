//! The edit: the encoded change from one root of a bundle to another.
//!
//! No hash travels. The receiver owns the old tree, applies the operations,
//! and compares the root it computes with the signed one. An edit whose base
//! is the empty root is a snapshot (specs/edit.md, E-1 to E-15).

mod apply;
mod columns;
mod encode;
mod frame;
mod operation;
mod patch;
mod plan;
mod varint;

pub use apply::{Declared, Policy, apply};
pub use encode::{encode, encode_with};
pub use frame::Effort;
pub use operation::{Summary, summary};

use crate::object::{ReadError, WriteError};
use crate::path::PathError;
use crate::tree::TreeError;

/// Why an edit could not be made or applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The old tree, or the new one, could not be read or built.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The bytes are not an edit.
    #[error("not an edit: {0}")]
    Malformed(&'static str),
    /// A path in it is not safe.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It declares or holds more than was signed or than the limits allow.
    #[error("the edit holds more than it may: {what} {given}, allowed {allowed}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        given: u64,
        /// How much is allowed.
        allowed: u64,
    },
    /// A frame of contents does not unpack to what was declared.
    #[error("contents do not unpack: {0}")]
    Frame(String),
    /// A file or link that the grant does not allow.
    #[error("{path}: {reason}")]
    NotAllowed {
        /// The path.
        path: crate::path::ConfigPath,
        /// Why.
        reason: &'static str,
    },
    /// It applies, and gives another root than the signed one.
    #[error("the edit gives root {got:?}, and {want:?} was signed")]
    WrongRoot {
        /// The root that applying gave.
        got: crate::id::NodeId,
        /// The signed root.
        want: crate::id::NodeId,
    },
}

impl From<ReadError> for EditError {
    fn from(error: ReadError) -> Self {
        Self::Tree(error.into())
    }
}

impl From<WriteError> for EditError {
    fn from(error: WriteError) -> Self {
        Self::Tree(error.into())
    }
}

impl EditError {
    /// The object of the old tree that is missing or damaged, where fetching
    /// it again and applying once more may succeed.
    pub fn refetch(&self) -> Option<crate::id::ObjectId> {
        match self {
            Self::Tree(TreeError::Read(error)) => error.refetch(),
            _ => None,
        }
    }
}
