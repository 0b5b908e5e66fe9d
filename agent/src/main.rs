//! `rootcast-agent`: the agent alone, for hosts that need nothing else.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Follow a relay and keep this host's configuration live.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The agent's configuration file
    config: PathBuf,
    /// Print one JSON line per event on standard output
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match rootcast_agent::start(&arguments.config, arguments.json, None) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
