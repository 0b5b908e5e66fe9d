//! A whole tree of relays and hosts in one process under virtual time: real members on
//! simulated machines, one seed, one run (sim/README.md).

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

pub mod asked;
pub mod checks;
pub mod content;
pub mod disk;
pub mod error;
pub mod failover;
pub mod far;
pub mod faults;
pub mod liar;
pub mod machine;
pub mod many;
pub mod model;
pub mod network;
pub mod platform;
pub mod random;
pub mod run;
pub mod trace;
pub mod world;
