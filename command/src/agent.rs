//! `rootcast agent`

mod history;
mod noop;
mod once;
mod orders;

use crate::failure::Failure;
use crate::output::Output;
use rootcast_agent::AgentConfig;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// The agent's configuration file: runs the agent
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// Which agent of this machine is meant.
#[derive(clap::Args)]
struct Which {
    /// The agent's configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/rootcast/agent.toml")]
    config: PathBuf,
}

impl Which {
    fn load(&self) -> Result<AgentConfig, Failure> {
        Ok(AgentConfig::load(&self.config)?)
    }
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List the generations that this host can go back to, and what is in the way of the newest release
    History(history::Arguments),
    /// Go back to an earlier generation, and stay there
    Rollback(orders::Rollback),
    /// Keep what is live, whatever releases come
    Hold(orders::Hold),
    /// Follow the newest release again, one that was rolled back too
    Release(orders::Release),
    /// Show what the newest release that is held would change, and which hooks would run
    Noop(noop::Arguments),
    /// Run the agent until this host shows the newest release
    Once(once::Arguments),
    /// Drop from the store what neither releases nor generations need (while the agent does not run)
    Gc(once::Collect),
}

impl Arguments {
    /// Whether an agent runs, with its own log.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.verb, None | Some(Verb::Once(_)))
    }
}

pub(crate) fn run(arguments: &Arguments, level: Option<&str>, output: &Output) -> Result<(), Failure> {
    match (&arguments.config, &arguments.verb) {
        (_, Some(Verb::History(arguments))) => history::run(arguments, output),
        (_, Some(Verb::Rollback(arguments))) => arguments.run(output),
        (_, Some(Verb::Hold(arguments))) => arguments.run(output),
        (_, Some(Verb::Release(arguments))) => arguments.run(output),
        (_, Some(Verb::Noop(arguments))) => noop::run(arguments, output),
        (_, Some(Verb::Once(arguments))) => arguments.run(level, output),
        (_, Some(Verb::Gc(arguments))) => arguments.run(output),
        (Some(config), None) => Ok(rootcast_agent::start(config, output.json, level)?),
        // clap shows the help instead.
        (None, None) => Ok(()),
    }
}
