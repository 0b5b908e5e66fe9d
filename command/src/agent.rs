//! `rootcast agent`

use crate::failure::Failure;
use crate::output::Output;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The agent's configuration file
    config: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, level: Option<&str>, output: &Output) -> Result<(), Failure> {
    Ok(rootcast_agent::start(&arguments.config, output.json, level)?)
}
