//! `rootcast-benches`: what Rootcast and its peers cost on a real history.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

mod args;
mod bandwidth;
mod content;
mod cost;
mod drift;
mod error;
mod figures;
mod floor;
mod handshake;
mod herd;
mod member;
mod ours;
mod peers;
mod plot;
mod push;
mod report;
mod sample;
mod scale;
mod table;

use args::{Arguments, Command};
use clap::Parser;
use error::BenchError;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

/// What `clap` ends with when the command line is wrong, and so do we.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = match &arguments.command {
        Command::Member(_) | Command::Bare(_) => tracing::Level::WARN,
        Command::Bandwidth(_)
        | Command::Scale(_)
        | Command::Handshake(_)
        | Command::Herd(_)
        | Command::Drift(_)
        | Command::Push(_) => tracing::Level::ERROR,
    };
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(level)
        .init();
    let outcome = match arguments.command {
        Command::Bandwidth(arguments) => bandwidth::run(&arguments),
        Command::Scale(arguments) => scale::run(&arguments).map_err(BenchError::from),
        Command::Handshake(arguments) => handshake::run(&arguments),
        Command::Herd(arguments) => herd::run(&arguments),
        Command::Drift(arguments) => drift::run(&arguments),
        Command::Push(arguments) => push::run(&arguments),
        Command::Bare(arguments) => push::serve_bare(&arguments),
        Command::Member(member) => member::run(&member),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            match error {
                BenchError::Usage(_) => ExitCode::from(USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
