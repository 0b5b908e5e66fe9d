//! `rootcast`: one binary, one file per subcommand.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // this crate does I/O

mod agent;
mod asking;
mod audit;
mod completions;
mod dev;
mod diff;
mod exec;
mod explain;
mod failure;
mod get;
mod graph;
mod host;
mod hosts;
mod init;
mod inspect;
mod invite;
mod join;
mod key;
mod local;
mod output;
mod passphrase;
mod publish;
mod relay;
mod sign;
mod status;
mod trust;
mod verify;
mod watch;

use clap::{Parser, Subcommand};
use output::Output;
use rootcast_replica::operations::{LogFormat, start_log};
use std::process::ExitCode;

/// Configuration delivery to very many hosts: signed, small, atomic.
#[derive(Parser)]
#[command(
    name = "rootcast",
    version,
    about = "Configuration delivery to very many hosts: signed, small, atomic",
    max_term_width = 100
)]
struct Arguments {
    /// Print JSON on standard output (one object; one line per event where it streams)
    #[arg(long, global = true)]
    json: bool,
    /// Log more on standard error (-v info, -vv debug)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a platform: keys, certificate authority, trust, its origin and its publisher
    Init(init::Arguments),
    /// Print a join string for a new host, relay or publisher (on the origin's machine)
    Invite(invite::Arguments),
    /// Become a member of a platform, with a join string
    Join(join::Arguments),
    /// Show one host; on the origin's machine: list members, deny them, allow them again
    Host(host::Arguments),
    /// List hosts with their release, state and what is wrong
    Hosts(hosts::Arguments),
    /// Compile a repository or directory, sign it and publish it to the origin
    Publish(publish::Arguments),
    /// Show what a publication would change on hosts, before it is one
    Diff(diff::Arguments),
    /// Show which layer gives a host a file, and each value in it
    Explain(explain::Arguments),
    /// Sign a release that `publish --unsigned` wrote
    Sign(sign::Arguments),
    /// Make, show, import and export secret keys
    Key(key::Arguments),
    /// Show who may sign what, and change it
    Trust(trust::Arguments),
    /// Print the origin's record of publishes, trust changes and members, and check it
    Audit(audit::Arguments),
    /// Run a relay; without parents it is the origin
    Relay(relay::Arguments),
    /// Run the agent of this host, or say what it is to do
    Agent(agent::Arguments),
    /// Print a live file of this host, or a value in it
    Get(get::Arguments),
    /// Print a line for each generation that becomes live on this host
    Watch(watch::Arguments),
    /// Run a program; restart or signal it when its configuration changes
    Exec(exec::Arguments),
    /// Show relays and hosts, and which release each has
    Status(status::Arguments),
    /// Re-hash a relay's, an agent's or a publisher's store and name what is damaged
    Verify(verify::Arguments),
    /// Show the services of a repository, and what waits for what
    Graph(graph::Arguments),
    /// Show a release, bundle, edit or signed file readably
    Inspect(inspect::Arguments),
    /// Run a whole platform on this machine and watch releases travel through it
    Dev(dev::Arguments),
    /// Print shell completions
    Completions(completions::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A daemon logs as its configuration says, unless it is asked for more.
    let asked = match arguments.verbose {
        0 => None,
        1 => Some("info"),
        _ => Some("debug"),
    };
    let output = Output::new(arguments.json);
    let is_daemon = match &arguments.command {
        Command::Relay(_) => true,
        Command::Agent(arguments) => arguments.runs(),
        _ => false,
    };
    if !is_daemon {
        start_log(LogFormat::Text, asked.unwrap_or("error"));
    }
    let outcome = match arguments.command {
        Command::Init(arguments) => init::run(&arguments, &output),
        Command::Invite(arguments) => invite::run(&arguments, &output),
        Command::Join(arguments) => join::run(&arguments, &output),
        Command::Host(arguments) => host::run(&arguments, &output),
        Command::Hosts(arguments) => hosts::run(&arguments, &output),
        Command::Publish(arguments) => publish::run(&arguments, &output),
        Command::Diff(arguments) => diff::run(&arguments, &output),
        Command::Explain(arguments) => explain::run(&arguments, &output),
        Command::Sign(arguments) => sign::run(&arguments, &output),
        Command::Key(arguments) => key::run(&arguments, &output),
        Command::Trust(arguments) => trust::run(&arguments, &output),
        Command::Audit(arguments) => audit::run(&arguments, &output),
        Command::Relay(arguments) => relay::run(&arguments, asked, &output),
        Command::Agent(arguments) => agent::run(&arguments, asked, &output),
        Command::Get(arguments) => get::run(&arguments, &output),
        Command::Watch(arguments) => watch::run(&arguments, &output),
        Command::Exec(arguments) => match exec::run(&arguments, &output) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        Command::Status(arguments) => status::run(&arguments, &output),
        Command::Verify(arguments) => verify::run(&arguments, &output),
        Command::Graph(arguments) => graph::run(&arguments, &output),
        Command::Inspect(arguments) => inspect::run(&arguments, &output),
        Command::Dev(arguments) => dev::run(&arguments, &output),
        Command::Completions(arguments) => completions::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.exit.into()
        }
    }
}
