//! What a release does on a host beside showing its files: hooks, and what is installed at fixed places
//! (specs/activation.md, A-40 to A-49).

mod account;
mod allow;
mod error;
mod hook;
mod install;
mod newer;
mod process;
mod runner;

pub use allow::{Allow, Wanted};
pub use error::ServiceError;
pub(crate) use hook::Trees;
pub use install::{Compared, Doing, Installed, Installer, Placing};
pub(crate) use newer::Newer;
pub use runner::HookRun;
pub(crate) use runner::{AFTER, BACK, BEFORE, Runner, VALIDATE};
