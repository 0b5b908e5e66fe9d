//! The house rules of this repository, as functions (specs/architecture.md, H-1 to H-10).
//!
//! A rule is a pure function from what the build knows of itself (the resolved
//! graph, the manifests, the source text) to a list of findings, one sentence
//! each; an empty list means that the rule holds. `tests/layers.rs` runs every
//! rule on this workspace. The unit tests run it on made-up input that breaks
//! it, so a rule that could never fail would be noticed.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

pub mod closure;
pub mod graph;
pub mod layers;
pub mod licence;
pub mod manifest;
pub mod policy;
pub mod source;

use std::path::PathBuf;

/// What a rule found, one sentence each. Empty: the rule holds.
pub type Findings = Vec<String>;

/// The rules cannot be checked, which is not the same as one being broken.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// `cargo` did not start.
    #[error("cannot start `{cargo}`: {source}; run this through `cargo test`")]
    Start {
        /// What was to be started.
        cargo: String,
        /// Why it was not.
        source: std::io::Error,
    },
    /// `cargo metadata` ended with an error.
    #[error("`cargo metadata` failed; run `cargo fetch --locked` and try again. It said: {said}")]
    Metadata {
        /// Its standard error.
        said: String,
    },
    /// The answer of `cargo metadata` has another shape than version 1.
    #[error("cannot read the answer of `cargo metadata`: {0}")]
    Answer(#[from] serde_json::Error),
    /// A file of the repository cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the repository is not the TOML that it should be.
    #[error("{}: {source}; correct the file", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}
