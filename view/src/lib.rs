//! What several layers make of one file: merges of YAML, JSON and TOML, templates, and
//! the checks of what people write (specs/configuration.md, F-50 to F-75).
//!
//! Pure: texts come in, texts or flaws with their places come out.

mod check;
mod derive;
mod document;
mod error;
mod ini;
mod json;
mod lines;
mod merge;
mod template;
mod toml;
mod yaml;

pub use check::{check_replaced, check_syntax};
pub use derive::{Derived, FileError, Made, Resolved, Version, ViewError, Views, WithDerived, derive};
pub use document::{Format, Node, Place, read};
pub use error::{Fault, Flaw};
pub use merge::{Keys, Merged, merge};
pub use template::{Fact, Facts, Variables, check_facts, check_template, render};
