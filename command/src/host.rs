//! `rootcast host`: how one is doing, who is a member, and who may no longer be one.

use crate::failure::{Exit, Failure};
use crate::hosts;
use crate::inspect::utc;
use crate::output::Output;
use rootcast::denials::Denied;
use rootcast::member::RoleError;
use rootcast::path::MemberName;
use rootcast_relay::RelayConfig;
use rootcast_relay::membership::Records;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    override_usage = "rootcast host NAME [OPTIONS]\n       rootcast host <show|deny|allow|list> …"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    one: hosts::One,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Show how one host is doing: release, state, why, and the relays above it (`host NAME` for short)
    Show(hosts::One),
    /// Put a member out: its connections are closed, its certificate is not renewed
    Deny(One),
    /// Let a denied member in again
    Allow(One),
    /// Show all members, with their labels and the end of their certificates
    List {
        /// The origin's configuration file, on the origin's machine
        config: PathBuf,
    },
}

#[derive(clap::Args)]
struct One {
    /// The origin's configuration file, on the origin's machine
    config: PathBuf,
    /// The member, as agent:web-1
    #[arg(value_name = "ROLE:NAME")]
    member: String,
}

/// The configuration of an origin that keeps a membership.
pub(crate) fn origin_of(path: &Path) -> Result<RelayConfig, Failure> {
    let config = RelayConfig::load(path)?;
    if config.keys.is_none() {
        let message = format!("{} is not the configuration of an origin with `keys`", path.display());
        return Err(
            Failure::new(Exit::Usage, message).next("run this on the origin's machine, with its relay.toml")
        );
    }
    Ok(config)
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    match &arguments.verb {
        None => hosts::one(&arguments.one, output),
        Some(Verb::Show(one)) => hosts::one(one, output),
        Some(Verb::Deny(one)) => change(one, true, output),
        Some(Verb::Allow(one)) => change(one, false, output),
        Some(Verb::List { config }) => list(config, output),
    }
}

fn change(one: &One, deny: bool, output: &Output) -> Result<(), Failure> {
    let usage = |reason: String| Failure::new(Exit::Usage, format!("{}: {reason}", one.member));
    let (role, name) =
        one.member.split_once(':').ok_or_else(|| usage("want ROLE:NAME, as agent:web-1".into()))?;
    let role = role.parse().map_err(|error: RoleError| usage(error.to_string()))?;
    let name = MemberName::new(name).map_err(|error| usage(error.to_string()))?;
    let records = Records::of(&origin_of(&one.config)?.state);
    let is_known = records.member(role, &name)?.is_some();
    let denied = Denied { role, name };
    let changed = if deny { records.deny(&denied)? } else { records.allow(&denied)? };
    output.value(&json!({ "member": one.member, "denied": deny, "changed": changed, "known": is_known }));
    let known = if is_known { "" } else { "; no member has this name" };
    output.line(match (deny, changed) {
        (true, true) => format!("{} is denied{known}", one.member),
        (true, false) => format!("{} was denied already{known}", one.member),
        (false, true) => format!("{} is allowed again{known}", one.member),
        (false, false) => format!("{} was not denied{known}", one.member),
    });
    Ok(())
}

fn list(config: &Path, output: &Output) -> Result<(), Failure> {
    let records = Records::of(&origin_of(config)?.state);
    let (members, denied) = (records.members()?, records.denied()?);
    let is_denied = |member: &rootcast::join::Member| {
        denied.contains(&Denied { role: member.role, name: member.name.clone() })
    };
    let rows: Vec<_> = members
        .iter()
        .map(|member| {
            json!({
                "role": member.role.as_str(), "name": member.name.as_str(), "labels": member.labels.to_string(),
                "key": member.key.id().to_string(), "recipient": member.recipient, "expires": member.expires, "denied": is_denied(member),
            })
        })
        .collect();
    output.value(&json!({ "members": rows }));
    output.line(format!("{:<10} {:<24} {:<17} {:<21} LABELS", "ROLE", "NAME", "KEY", "CERTIFICATE ENDS"));
    for member in &members {
        let denied = if is_denied(member) { "   denied" } else { "" };
        output.line(format!(
            "{:<10} {:<24} {:<17} {:<21} {}{denied}",
            member.role.as_str(),
            member.name.as_str(),
            member.key.id().to_string(),
            utc(member.expires),
            member.labels,
        ));
        if !member.recipient.is_empty() {
            output.line(format!("{:<10} {}", "", member.recipient));
        }
    }
    for gone in
        denied.iter().filter(|gone| !members.iter().any(|m| m.role == gone.role && m.name == gone.name))
    {
        output.line(format!("{:<10} {:<24} never seen   denied", gone.role.as_str(), gone.name.as_str()));
    }
    Ok(())
}
