//! `rootcast graph`: the services of a repository, and what waits for what.

use crate::failure::{Exit, Failure};
use crate::output::Output;
use rootcast::service::{Phase, Service, Services};
use rootcast_bundler::config::Rootcast;
use rootcast_bundler::source::Source;
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The repository or directory
    #[arg(default_value = ".")]
    source: PathBuf,
    /// The commit, where it is a repository
    #[arg(long)]
    revision: Option<String>,
    /// Print it for Graphviz: rootcast graph --dot | dot -Tsvg > services.svg
    #[arg(long)]
    dot: bool,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let source = Source::open(&arguments.source, arguments.revision.as_deref())?;
    let settings =
        Rootcast::read(&source).map_err(|error| Failure::new(Exit::InvalidSource, error.to_string()))?;
    let services = &settings.services;
    for service in services.iter() {
        output.value(&json!({
            "service": service.name.as_str(), "files": service.files,
            "after": service.after.iter().map(|after| after.as_str()).collect::<Vec<_>>(),
            "hooks": service.hooks.iter().map(|hook| {
                json!({ "phase": hook.phase.as_str(), "what": hook.work.to_string() })
            }).collect::<Vec<_>>(),
        }));
    }
    if arguments.dot {
        output.line(dot(services).trim_end());
        return Ok(());
    }
    for service in services.iter() {
        let after: Vec<&str> = service.after.iter().map(|after| after.as_str()).collect();
        let after = if after.is_empty() { String::new() } else { format!(" after {}", after.join(", ")) };
        output.line(format!("{}{after}", service.name));
        service
            .hooks
            .iter()
            .for_each(|hook| output.line(format!("  {:<9} {}", hook.phase.as_str(), hook.work)));
    }
    if services.is_empty() {
        output.line("no services");
    }
    Ok(())
}

/// The graph in Graphviz's language. Names of services need no escapes.
fn dot(services: &Services) -> String {
    let phases = |service: &Service| {
        let has = |phase: &&Phase| service.hooks(**phase).next().is_some();
        Phase::ALL.iter().filter(has).map(|phase| phase.as_str()).collect::<Vec<_>>().join(" ")
    };
    let mut text = String::from("digraph services {\n  rankdir=LR;\n  node [shape=box];\n");
    for service in services.iter() {
        text.push_str(&format!("  \"{0}\" [label=\"{0}\\n{1}\"];\n", service.name, phases(service)));
    }
    for service in services.iter() {
        for after in &service.after {
            text.push_str(&format!("  \"{after}\" -> \"{}\";\n", service.name));
        }
    }
    text.push_str("}\n");
    text
}
