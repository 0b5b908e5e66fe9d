//! `rootcast agent history`

use super::{Which, noop};
use crate::failure::Failure;
use crate::local::Asked;
use crate::output::{Output, age, now, plain};
use rootcast::activation::State;
use rootcast_agent::books::Books;
use serde_json::json;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
}

/// What every reason has that is about permission.
const NOT_PERMITTED: &str = "which this host does not permit";

/// How a release ended that was not made live, or not at once.
fn told(state: State) -> &'static str {
    match state {
        State::Idle => "not begun",
        state => state.as_str(),
    }
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let config = arguments.which.load()?;
    let Books { journal, history, orders, .. } = Books::read(&config.state)?;
    let refused = journal.new.as_ref().filter(|new| journal.quarantines(&new.release.hash, &orders));
    for kept in &history.generations {
        let live = kept.number == history.live;
        let (number, release) = (kept.number, kept.release.number);
        output.value(&json!({
            "generation": number, "release": release, "live": live, "since": kept.since,
            "held": orders.hold == Some(number),
        }));
        output.line(format!(
            "{} generation {number:<4} release {release:<6} {} ago{}",
            if live { "*" } else { " " },
            age(now().saturating_sub(kept.since)),
            if orders.hold == Some(number) { ", held" } else { "" },
        ));
    }
    if history.generations.is_empty() {
        output.line("nothing was live yet");
    }
    for failure in &history.failures {
        let (release, state) = (failure.release.number, told(failure.state));
        output.value(&json!({
            "failed": release, "state": state, "since": failure.since, "reason": failure.reason,
        }));
        let ago = age(now().saturating_sub(failure.since));
        output.line(format!("! release {release:<6} {state} {ago} ago: {}", plain(&failure.reason)));
    }
    // What is in the way before an activation begins is known to the running agent alone.
    let asked = config.socket().and_then(|socket| Asked::at(socket).value("/v1/status").ok());
    let now_says =
        asked.map(|(status, _)| json!({ "state": status.get("state"), "reason": status.get("reason") }));
    let permitting = now_says
        .as_ref()
        .and_then(|said| said.get("reason")?.as_str())
        .filter(|reason| reason.contains(NOT_PERMITTED))
        .and_then(|_| noop::wanting(&config));
    output.value(&json!({
        "state": journal.state.as_str(), "hold": orders.hold, "permitting": permitting,
        "quarantined": refused.map(|new| new.release.number),
        "reason": journal.reason, "output": journal.output, "now": now_says,
    }));
    let is_more = |text: &&str| refused.is_none() && !text.is_empty();
    if let Some(reason) = now_says.as_ref().and_then(|said| said.get("reason")?.as_str()).filter(is_more) {
        let is_told = history.failures.last().is_some_and(|failure| failure.reason == reason);
        if is_told {
            output.line("the last of these still stands");
        } else {
            output.line(format!("the agent says: {}", plain(reason)));
        }
        if let Some(lines) = &permitting {
            output.line(format!("this would permit it, in the agent's configuration:\n\n{lines}\n"));
        }
    }
    if let Some(new) = refused {
        output.line(format!("release {} is quarantined: {}", new.release.number, plain(&journal.reason)));
        journal.output.lines().for_each(|line| output.line(format!("  {}", plain(line))));
        output.line("publish a newer one; or try it again: rootcast agent release");
    }
    Ok(())
}
