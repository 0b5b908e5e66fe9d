//! `rootcast invite`: a join string for a new machine.

use crate::failure::{Exit, Failure};
use crate::host::origin_of;
use crate::output::Output;
use rootcast::member::{Labels, Role, RoleError};
use rootcast::path::MemberName;
use rootcast_relay::membership::{Invitation, Records};
use rootcast_replica::Member;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The origin's configuration file, on the origin's machine
    config: PathBuf,
    /// What the machine becomes: agent, relay or publisher
    #[arg(long)]
    role: String,
    /// The name that it must take; left out, the machine chooses (its host name, mostly)
    #[arg(long)]
    name: Option<String>,
    /// A label that it gets, as region=eu; several for several
    #[arg(long = "label", value_name = "LABEL=VALUE")]
    labels: Vec<String>,
    /// How long the join string is good: a number with s, m, h or d
    #[arg(long, default_value = "1h", value_name = "TIME")]
    expires: String,
    /// How many machines it is good for
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    uses: u64,
    /// Where the machine finds the platform, instead of the origin's own addresses: its nearest relay, say
    #[arg(long = "address", value_name = "HOST:PORT")]
    addresses: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let role: Role = arguments.role.parse().map_err(|error: RoleError| usage(format!("--role: {error}")))?;
    let name = arguments.name.as_deref().map(MemberName::new).transpose();
    let name = name.map_err(|error| usage(format!("--name {error}")))?;
    let labels = Labels::from_pairs(arguments.labels.iter().map(String::as_str));
    let labels = labels.map_err(|error| usage(format!("--label: {error}")))?;
    let valid = duration(&arguments.expires)
        .ok_or_else(|| usage(format!("--expires {}: want a number with s, m, h or d", arguments.expires)))?;
    let config = origin_of(&arguments.config)?;
    let addresses =
        if arguments.addresses.is_empty() { config.addresses.clone() } else { arguments.addresses.clone() };
    if addresses.is_empty() {
        let message = format!("{} names no `addresses`", arguments.config.display());
        return Err(usage(message).next("add `addresses = [\"HOST:PORT\"]`, or say --address HOST:PORT"));
    }
    let member = Member::load(&config.identity, &config.state)?;
    let fingerprint = member.fingerprint;
    let invitation = Invitation { fingerprint, addresses, role, name, labels, valid, uses: arguments.uses };
    let records = Records::of(&config.state);
    let join = invitation.invite(&records, member.trust.newest().trust(), SystemTime::now())?;
    output.value(&json!({
        "join": join.to_text(), "role": role.as_str(), "name": join.name.as_ref().map(MemberName::as_str),
        "labels": join.labels.to_string(), "expires": join.expires, "uses": join.uses,
    }));
    output.line(join.to_text());
    if !output.json {
        eprintln!(
            "a {role} joins with it within {}: rootcast join, with this line on its standard input",
            arguments.expires
        );
    }
    Ok(())
}

/// A time as `90s`, `15m`, `1h` or `7d`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let number = number.parse::<u64>().ok().filter(|number| *number > 0)?;
    number.checked_mul(unit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_number_and_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800)] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)));
        }
        for text in ["", "h", "1", "1w", "0h", "-1h", "1.5h", "h1", "99999999999999999d", "1ü"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
