//! `rootcast agent rollback`, `hold` and `release`: orders, which are files, so that they hold whether the
//! agent runs or not (specs/activation.md, A-37 and A-39).

use super::Which;
use crate::failure::{Exit, Failure};
use crate::output::{Output, plain};
use rootcast::activation::{Orders, State};
use rootcast_agent::books::Books;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks at what the agent has made of an order.
const LOOK: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub(crate) struct Rollback {
    /// The generation. Where it is left out: what is being replaced, if an activation is under way, or the
    /// one before what is live
    generation: Option<u64>,
    /// For how many seconds to wait until it is live
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    #[command(flatten)]
    which: Which,
}

#[derive(clap::Args)]
pub(crate) struct Hold {
    #[command(flatten)]
    which: Which,
}

#[derive(clap::Args)]
pub(crate) struct Release {
    #[command(flatten)]
    which: Which,
}

const HISTORY: &str = "rootcast agent history   lists the generations that are kept";

impl Rollback {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        let state = self.which.load()?.state;
        let mut books = Books::read(&state)?;
        let found = match self.generation {
            Some(number) => books.history.get(number),
            None if !books.journal.state.is_settled() => books.history.live(),
            None => books.history.before_live(),
        };
        let Some(number) = found.map(|found| found.number) else {
            let message = match self.generation {
                Some(number) => format!("generation {number} is not kept"),
                None => "there is no earlier generation".to_owned(),
            };
            return Err(Failure::new(Exit::Usage, message).next(HISTORY));
        };
        // What failed here before may be gone back to by order.
        let run = books.journal.run;
        let runs = books.order(Orders { hold: Some(number), lifted: run })?;
        let release = books.history.get(number).map(|found| found.release.number);
        output.value(
            &json!({ "event": "ordered", "generation": number, "release": release, "agent_runs": runs }),
        );
        if !runs {
            output.line(format!(
                "generation {number} is ordered; the agent does not run, and makes it live when it starts"
            ));
            return Ok(());
        }
        wait(&state, number, run, Duration::from_secs(self.timeout))?;
        output.value(&json!({ "event": "active", "generation": number }));
        output.line(format!("generation {number} is live, and stays so until: rootcast agent release"));
        Ok(())
    }
}

/// Waits until a generation is live, or has failed to be.
fn wait(state: &Path, number: u64, run: u64, most: Duration) -> Result<(), Failure> {
    let end = Instant::now() + most;
    loop {
        let Books { journal, history, .. } = Books::read(state)?;
        if journal.state.is_settled() {
            if journal.run > run && matches!(journal.state, State::RolledBack | State::Inconsistent) {
                let said: Vec<String> = journal.output.lines().map(plain).collect();
                let message = format!("generation {number}: {}\n{}", plain(&journal.reason), said.join("\n"));
                return Err(Failure::new(Exit::RolledBack, message.trim_end()).next(HISTORY));
            }
            // One that is inconsistent runs its hooks again first, in an activation of its own.
            if history.live == number && journal.state != State::Inconsistent {
                return Ok(());
            }
        }
        if Instant::now() >= end {
            let message =
                format!("generation {number} is not live after {} s; the order stands", most.as_secs());
            return Err(Failure::new(Exit::TimeOut, message).next("the agent's log says what it waits for"));
        }
        std::thread::sleep(LOOK);
    }
}

impl Hold {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        let mut books = Books::read(&self.which.load()?.state)?;
        let Some(live) = books.history.live().cloned() else {
            return Err(Failure::new(Exit::Failure, "nothing is live that could be held").next(HISTORY));
        };
        let lifted = books.orders.lifted;
        books.order(Orders { hold: Some(live.number), lifted })?;
        let release = live.release.number;
        output.value(&json!({ "event": "held", "generation": live.number, "release": release }));
        let under_way = books.journal.new.as_ref().filter(|_| !books.journal.state.is_settled());
        if let Some(new) = under_way {
            let (new, state) = (new.release.number, books.journal.state.as_str());
            output.line(format!("release {new} is {state}; that is gone back from, and then:"));
        }
        output.line(format!(
            "generation {} (release {release}) stays live until: rootcast agent release",
            live.number
        ));
        Ok(())
    }
}

impl Release {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        let mut books = Books::read(&self.which.load()?.state)?;
        let lifted = books.journal.run;
        let runs = books.order(Orders { hold: None, lifted })?;
        output.value(&json!({ "event": "released", "agent_runs": runs }));
        output.line("the newest release is followed, one that was rolled back too");
        Ok(())
    }
}
