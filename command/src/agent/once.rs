//! `rootcast agent once` and `gc`

use super::Which;
use crate::failure::{Exit, Failure};
use crate::output::{Output, bytes, plain};
use rootcast_agent::Once;
use serde_json::json;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// For how many seconds it must show that without a break, while it follows a relay
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    converged_timeout: u64,
    /// After how many seconds to give up
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    #[command(flatten)]
    which: Which,
}

impl Arguments {
    pub(crate) fn run(&self, level: Option<&str>, output: &Output) -> Result<(), Failure> {
        let (stable, most) = (Duration::from_secs(self.converged_timeout), Duration::from_secs(self.timeout));
        match rootcast_agent::once(&self.which.config, output.json, level, stable, most)? {
            Once::Converged | Once::Ended => Ok(()),
            Once::RolledBack(reason, said) => {
                let said: Vec<String> = said.lines().map(plain).collect();
                let message = format!("{}\n{}", plain(&reason), said.join("\n"));
                Err(Failure::new(Exit::RolledBack, message.trim_end())
                    .next("publish a newer release, or try it again: rootcast agent release"))
            }
            Once::TimedOut(failure) => {
                let why = failure.map(|why| format!(": {}", plain(&why))).unwrap_or_default();
                let message = format!("not converged after {} s{why}", self.timeout);
                Err(Failure::new(Exit::TimeOut, message).next("-v says what it waits for"))
            }
        }
    }
}

#[derive(clap::Args)]
pub(crate) struct Collect {
    #[command(flatten)]
    which: Which,
}

impl Collect {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        let (before, after) = rootcast_agent::collect(&self.which.config)
            .map_err(|error| Failure::from(error).next("an agent that runs does this by itself"))?;
        output.value(&json!({ "before": before, "after": after }));
        output.line(format!("the store has {}, and had {}", bytes(after), bytes(before)));
        Ok(())
    }
}
