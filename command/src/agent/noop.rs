//! `rootcast agent noop`: what would be done. Reads only, and takes no lock: the agent may be running.

use super::Which;
use crate::failure::{Exit, Failure};
use crate::inspect::place::known_trust;
use crate::output::Output;
use crate::verify::newest;
use rootcast::limits::MAX_DIFFERENCES;
use rootcast::service::Phase;
use rootcast_agent::books::Books;
use rootcast_agent::change_of;
use rootcast_store::DiskStore;
use rootcast_transport::Identity;
use serde_json::json;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let agent = arguments.which.load()?;
    let directory = agent.state.join("channels").join(agent.channel()?.as_str().replace('/', "%"));
    let store = DiskStore::open_read_only(&directory)?;
    let trust = known_trust(&agent.identity, Some(&agent.state))?;
    let Some(held) = newest(&store, &agent, &trust)? else {
        return Err(Failure::new(Exit::Failure, "no good release is held")
            .next("start the agent, and let it follow a relay"));
    };
    let books = Books::read(&agent.state)?;
    let identity = Identity::load(&agent.identity)?;
    let name = identity.name();
    let labels = name.labels().of_host(name.name());
    let change = change_of(&store, &held, &labels, books.history.live())?;
    let release = held.accepted().number;
    let hooks: Vec<(String, &str, String)> = change
        .services
        .iter()
        .filter(|service| change.touched.contains(&service.name))
        .flat_map(|service| {
            let hooks = Phase::ALL.iter().flat_map(|phase| service.hooks(*phase));
            hooks.map(|hook| (service.name.to_string(), hook.phase.as_str(), hook.work.to_string()))
        })
        .collect();
    let touched = change.services.iter().filter(|service| change.touched.contains(&service.name));
    let refused = agent.allow.judge(touched).err().map(|error| error.to_string());
    output.value(&json!({
        "release": release, "refused": refused, "live": books.history.live().map(|live| live.release.number),
        "changed": change.paths.len(),
        "paths": change.paths.iter().take(MAX_DIFFERENCES).map(|path| path.as_str()).collect::<Vec<_>>(),
        "hooks": hooks.iter().map(|(service, phase, what)| json!({ "service": service, "phase": phase, "what": what }))
            .collect::<Vec<_>>(),
    }));
    output.line(format!("release {release} would change {} files", change.paths.len()));
    change.paths.iter().take(MAX_DIFFERENCES).for_each(|path| output.line(format!("  {path}")));
    for (service, phase, what) in hooks {
        output.line(format!("{phase} of {service}: {}", crate::output::plain(&what)));
    }
    if let Some(why) = refused {
        let message = format!("release {release} would be refused: {}", crate::output::plain(&why));
        return Err(Failure::new(Exit::RolledBack, message)
            .next("add those lines to the agent's configuration, and send it HUP"));
    }
    Ok(())
}
