//! The bundler: reads a configuration source and its settings, compiles them
//! into bundles, signs the release and publishes it to the origin.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

mod checking;
mod compile;
pub mod config;
mod founding;
mod offline;
mod preview;
mod publisher;
mod seal;
pub mod secrets;
pub mod source;
mod targets;
mod trying;
pub mod views;

pub use checking::{Finding, Findings};
pub use compile::{CompileError, Compiled, LastPublished, Making, Progress, Signed, Stage, Unsigned};
pub use founding::{Founding, HEAD_KEY_FILE, PUBLISHER_KEY_FILE, ROOT_KEY_FILE};
pub use offline::{draft_edits, files_of};
pub use preview::{Preview, Shown};
pub use publisher::{PublishConfig, PublishError, Published, Publisher};
pub use seal::{SEALING_KEY_FILE, SealError, Sealer};
pub use trying::Roots;
