//! `rootcast relay`

use crate::failure::Failure;
use crate::output::Output;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The relay's configuration file
    config: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, level: Option<&str>, output: &Output) -> Result<(), Failure> {
    Ok(rootcast_relay::start(&arguments.config, output.json, level)?)
}
