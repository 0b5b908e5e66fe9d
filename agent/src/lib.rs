//! The agent on a host: what turns verified releases into running configuration.
//!
//! [`run`] follows a relay, keeps the replica of this host's bundles, and
//! brings each release to life. [`slots`] keeps the two materialised trees of
//! a host and the one link, `current`, that says which of them is live
//! (specs/activation.md).

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

mod activate;
mod activating;
pub mod books;
mod change;
mod config;
mod converge;
pub mod drift;
mod error;
mod event;
mod foresee;
mod key;
pub mod local;
mod operations;
mod relays;
mod required;
mod run;
pub mod secrets;
pub mod services;
pub mod slots;
mod start;

pub use activate::Activation;
pub use config::AgentConfig;
pub use error::AgentError;
pub use event::AgentEvent;
pub use foresee::{Fate, Foreseen, foresee};
pub use key::{DECRYPTION_KEY_FILE, KeyError, RECIPIENT_FILE, load_decryption_key, make_decryption_key};
pub use required::Required;
pub use run::{run, run_on};
pub use start::{Once, collect, once, start};
