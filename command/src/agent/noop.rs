//! `rootcast agent noop`: what would be done. Reads only, and takes no lock: the agent may be running.

use super::Which;
use crate::failure::{Exit, Failure};
use crate::inspect::place::known_trust;
use crate::output::{Output, plain};
use crate::verify::newest;
use rootcast::limits::MAX_DIFFERENCES;
use rootcast::service::{Hook, ServiceName};
use rootcast_agent::books::Books;
use rootcast_agent::services::ServiceError;
use rootcast_agent::{AgentConfig, Foreseen, foresee};
use rootcast_store::DiskStore;
use rootcast_transport::Identity;
use serde_json::{Value, json};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
}

/// What the newest release that an agent holds would do, and its number; the release that is live.
fn look(agent: &AgentConfig) -> Result<(Foreseen, u64, Option<u64>), Failure> {
    let directory = agent.state.join("channels").join(agent.channel()?.as_str().replace('/', "%"));
    let store = DiskStore::open_read_only(&directory)?;
    let trust = known_trust(&agent.identity, Some(&agent.state))?;
    let Some(held) = newest(&store, agent, &trust)? else {
        return Err(Failure::new(Exit::Failure, "no good release is held")
            .next("start the agent, and let it follow a relay"));
    };
    let books = Books::read(&agent.state)?;
    let identity = Identity::load(&agent.identity)?;
    let foreseen = foresee(&store, &held, &books, (agent, identity.name()))?;
    Ok((foreseen, held.accepted().number, books.history.live().map(|live| live.release.number)))
}

/// What would permit the newest release that an agent holds, where that is what it lacks.
pub(super) fn wanting(agent: &AgentConfig) -> Option<String> {
    let (foreseen, ..) = look(agent).ok()?;
    foreseen.refused.as_ref().map(permitting).filter(|lines| !lines.is_empty())
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let (foreseen, release, live) = look(&arguments.which.load()?)?;
    output.value(&value(&foreseen, release, live));
    show(&foreseen, release, output);
    if !foreseen.wrong.is_empty() {
        let count = foreseen.wrong.len() as u64 + foreseen.more_wrong;
        let files = if count == 1 { "a file".into() } else { format!("{count} files") };
        let mut message = format!("release {release} would be refused, as {files} cannot be made:");
        foreseen
            .wrong
            .iter()
            .for_each(|error| message.push_str(&format!("\n  {}", plain(&error.to_string()))));
        if foreseen.more_wrong > 0 {
            message.push_str(&format!("\n  and {} more", foreseen.more_wrong));
        }
        let next = "correct them in the source, or `[facts]` in the agent's configuration, and publish again";
        return Err(Failure::new(Exit::Failure, message).next(next));
    }
    let Some(refused) = foreseen.refused else { return Ok(()) };
    Err(match &refused {
        ServiceError::NotPermitted { first, .. } => {
            let message =
                format!("release {release} would be refused: {}, which is not permitted", plain(first));
            Failure::new(Exit::RolledBack, message).next(format!(
                "if it should be, put this into the agent's configuration, in the place of what is there, and send it HUP:\n\n{}\n",
                permitting(&refused)
            ))
        }
        error => {
            let message = format!("release {release} would be rolled back: {}", plain(&error.to_string()));
            Failure::new(Exit::RolledBack, message)
        }
    })
}

/// The part of a configuration that would permit what is not, to be pasted; nothing where that would not help.
fn permitting(refused: &ServiceError) -> String {
    match refused {
        ServiceError::NotPermitted { lines, .. } => format!("[allow]\n{lines}"),
        _ => String::new(),
    }
}

fn hooks(foreseen: &Foreseen) -> impl Iterator<Item = &(ServiceName, Hook)> {
    foreseen.before.iter().chain(&foreseen.after)
}

fn value(foreseen: &Foreseen, release: u64, live: Option<u64>) -> Value {
    let files = foreseen.files.iter().take(MAX_DIFFERENCES);
    let files = files.map(|(path, fate)| json!({ "path": path.as_str(), "what": fate.as_str() }));
    let hooks = hooks(foreseen).map(|(service, hook)| {
        json!({ "service": service.as_str(), "phase": hook.phase.as_str(), "what": hook.work.to_string() })
    });
    let places = foreseen.places.iter().take(MAX_DIFFERENCES).map(|placing| {
        let from = placing.from.as_ref().map(|from| from.as_str());
        json!({ "place": placing.place.display().to_string(), "what": placing.doing.as_str(), "from": from })
    });
    let refused = foreseen.refused.as_ref();
    json!({
        "release": release, "live": live, "changed": foreseen.files.len(), "files": files.collect::<Vec<_>>(),
        "hooks": hooks.collect::<Vec<_>>(), "places": places.collect::<Vec<_>>(),
        "wrong": foreseen.wrong.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "refused": refused.map(ToString::to_string),
        "permitting": refused.map(permitting).filter(|lines| !lines.is_empty()),
    })
}

fn show(foreseen: &Foreseen, release: u64, output: &Output) {
    let files = foreseen.files.len();
    output.line(format!("release {release} would change {files} file{}", if files == 1 { "" } else { "s" }));
    for (path, fate) in foreseen.files.iter().take(MAX_DIFFERENCES) {
        output.line(format!("  {:<8} {}", fate.as_str(), plain(path.as_str())));
    }
    let more = |count: usize| {
        if count > MAX_DIFFERENCES {
            output.line(format!("  and {} more", count - MAX_DIFFERENCES));
        }
    };
    more(files);
    if hooks(foreseen).next().is_none() && foreseen.places.is_empty() {
        return;
    }
    let hook = |(service, hook): &(ServiceName, Hook)| {
        output.line(format!("  {} of {service}: {}", hook.phase.as_str(), plain(&hook.work.to_string())));
    };
    output.line("it would, in this order:");
    foreseen.before.iter().for_each(hook);
    output.line("  make the new files live");
    for placing in foreseen.places.iter().take(MAX_DIFFERENCES) {
        let from = placing.from.as_ref().map(|from| format!(", from {}", plain(from.as_str())));
        let place = plain(&placing.place.display().to_string());
        output.line(format!("  {:<8} {place}{}", placing.doing.as_str(), from.unwrap_or_default()));
    }
    more(foreseen.places.len());
    foreseen.after.iter().for_each(hook);
}
