//! `rootcast completions`

use crate::failure::Failure;
use clap::CommandFactory;
use clap_complete::Shell;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    clap_complete::generate(
        arguments.shell,
        &mut crate::Arguments::command(),
        "rootcast",
        &mut std::io::stdout(),
    );
    Ok(())
}
