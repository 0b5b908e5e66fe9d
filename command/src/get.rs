//! `rootcast get`: a live file of this host, or a value in it.

use crate::failure::Failure;
use crate::local::{Place, target, text};
use crate::output::Output;
use serde_json::json;
use std::io::Write;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file; with a key, one value of a JSON, YAML or TOML file: app/app.json:server.port
    #[arg(value_name = "PATH[:KEY]")]
    what: String,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let agent = arguments.place.agent()?;
    let (target, is_value) = target(&arguments.what);
    if is_value {
        let (value, generation) = agent.value(&target)?;
        output.value(&json!({ "generation": generation, "value": value }));
        output.line(text(&value));
        return Ok(());
    }
    let answer = agent.get(&target)?.expect_found()?;
    let content = String::from_utf8_lossy(&answer.body);
    output.value(&json!({ "generation": answer.generation, "content": content }));
    if !output.json {
        // As it is, to the last byte.
        let _ = std::io::stdout().write_all(&answer.body);
    }
    Ok(())
}
