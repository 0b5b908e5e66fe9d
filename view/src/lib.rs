//! What several layers make of one file: merges of YAML, JSON and TOML, templates, and
//! the checks of what people write (specs/configuration.md, F-50 to F-75).
//!
//! Pure: texts come in, texts or flaws with their places come out.

mod document;
mod error;
mod json;
mod lines;
mod merge;
mod toml;
mod yaml;

pub use document::{Format, Node, Place, read};
pub use error::{Fault, Flaw};
pub use merge::{Keys, Merged, merge};
