//! The relay: follows a parent, serves children. Without a parent it is the
//! origin: it takes publications, makes them durable and tells everybody.
//!
//! Also here: the platform's certificate authority, since its key lives where
//! the origin does.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

pub mod audit;
pub mod authority;
mod child;
mod children;
mod config;
mod denied;
mod error;
mod following;
mod heads;
mod http;
pub mod issuing;
mod joins;
pub mod membership;
mod neighbours;
mod news;
mod operations;
mod publish;
mod questions;
mod server;
mod start;
mod status;
mod tickets;
mod wanted;

pub use config::{HttpCache, HttpsAddress, RelayConfig};
pub use error::RelayError;
pub use server::{RelayEvent, run, run_on};
pub use start::start;
