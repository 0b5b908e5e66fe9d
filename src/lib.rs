//! The core of Rootcast: formats and decisions, and nothing else.
//!
//! This crate knows no file system, socket, clock, thread or random source
//! (architecture invariant 4): `now` is an argument, objects come through
//! [`object::ObjectSource`], and whatever must happen is returned as a value.
//! The byte-level formats are specified in `specs/`; the clause ids that the
//! comments cite (`T-3`, `E-7`, …) are found there.

pub mod acceptance;
pub mod activation;
pub mod chunking;
pub mod codec;
pub mod compact;
pub mod cose;
pub mod denials;
pub mod draft;
pub mod drift;
pub mod edit;
pub mod entry;
pub mod exposition;
pub mod head;
pub mod http;
pub mod id;
pub mod join;
pub mod layers;
pub mod limits;
pub mod member;
pub mod merkle;
pub mod object;
pub mod path;
pub mod pattern;
pub mod plan;
pub mod protocol;
pub mod reader;
pub mod release;
pub mod resumption;
pub mod rollup;
pub mod selector;
pub mod service;
pub mod settings;
pub mod status;
pub mod subscriptions;
pub mod succession;
pub mod topology;
pub mod tree;
pub mod trust;
pub mod verify;
pub mod view;
pub mod view_rules;
