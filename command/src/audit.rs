//! `rootcast audit`

use crate::failure::{Exit, Failure};
use crate::output::Output;
use rootcast_relay::RelayConfig;
use rootcast_relay::audit::{AUDIT_FILE, AuditError, Record, Value, check};
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The origin's configuration, or its state directory
    path: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let path = &arguments.path;
    let state = if path.is_dir() { path.clone() } else { RelayConfig::load(path)?.state };
    let checked = check(&state.join(AUDIT_FILE), &mut |record| show(record, output));
    let checked = checked.map_err(|error| match &error {
        AuditError::Io { .. } => Failure::new(Exit::Failure, error.to_string())
            .next("only the origin has a record; name its configuration or its state directory"),
        AuditError::Broken { .. } | AuditError::End { .. } => {
            Failure::new(Exit::Differences, error.to_string())
                .next("what was shown before it is as it was written, if its hash is one that you noted")
        }
    })?;
    output.value(&json!({
        "event": "checked", "records": checked.records, "newest": checked.newest.to_string(), "torn": checked.torn,
    }));
    if checked.torn > 0 {
        output.line(format!(
            "{} bytes without an end follow: a record that is being written, or was cut off by a crash",
            checked.torn
        ));
    }
    output.line(format!("{} records, a good chain; newest {}", checked.records, checked.newest));
    Ok(())
}

fn show(record: &Record, output: &Output) {
    if output.json {
        output.value(&json!(record));
        return;
    }
    let fields: Vec<String> = record
        .fields
        .iter()
        .map(|(name, value)| match value {
            Value::Number(number) => format!("{name}={number}"),
            Value::Text(text) => format!("{name}={text:?}"),
        })
        .collect();
    let time = crate::inspect::utc(record.time);
    output.line(format!(
        "{} {time} {} by {}: {}",
        record.sequence,
        record.event,
        record.who,
        fields.join(" ")
    ));
}
