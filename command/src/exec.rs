//! `rootcast exec`: runs a program that is restarted or signalled when what it needs has changed.

use crate::failure::{Exit, Failure};
use crate::local::{Asked, Place, target, text};
use crate::output::Output;
use crate::watch::{follow, patterns};
use rootcast_agent::slots::Patterns;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// On a change end the program and start it again (unless --signal is given)
    #[arg(long, conflicts_with = "signal")]
    restart: bool,
    /// On a change send this signal, as HUP
    #[arg(long, value_name = "NAME")]
    signal: Option<String>,
    /// Only changes of what this pattern means, as app/** (may be repeated; unless given: the files of --env, or all)
    #[arg(long, value_name = "PATTERN")]
    on: Vec<String>,
    /// Put a value into the program's environment (may be repeated); the file is JSON, YAML or TOML
    #[arg(long, value_name = "NAME=PATH[:KEY]")]
    env: Vec<String>,
    /// Seconds that the program has to end before it is killed
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    stop_wait: u64,
    #[command(flatten)]
    place: Place,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What is done on a change.
enum OnChange {
    Restart,
    Signal(Signal),
}

struct Run<'a> {
    arguments: &'a Arguments,
    agent: Asked,
    on_change: OnChange,
    patterns: Patterns,
    /// Whether every generation is a change.
    all: bool,
    output: &'a Output,
}

/// Signals that are passed on.
const PASSED: [(&str, Signal); 6] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("TERM", Signal::TERM),
    ("QUIT", Signal::QUIT),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode, Failure> {
    let on_change = match &arguments.signal {
        None => OnChange::Restart,
        Some(name) => OnChange::Signal(signal_of(name)?),
    };
    let mut meant = arguments.on.clone();
    if meant.is_empty() {
        let files = arguments.env.iter().filter_map(|given| given.split_once('='));
        // A path may have characters that mean something in a pattern.
        meant.extend(files.map(|(_, what)| literal(what.split(':').next().unwrap_or_default())));
    }
    let (patterns, all) = (patterns(&meant)?, meant.is_empty());
    let agent = arguments.place.agent()?;
    let run = Run { arguments, agent, on_change, patterns, all, output };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failure, format!("the runtime: {error}")))?;
    let outcome = runtime.block_on(run.go());
    // The thread that watches may be waiting; it ends with the process.
    runtime.shutdown_background();
    outcome
}

fn signal_of(name: &str) -> Result<Signal, Failure> {
    let bare = name.trim_start_matches("SIG");
    let found = PASSED.iter().find(|(known, _)| known.eq_ignore_ascii_case(bare));
    found.map(|(_, signal)| *signal).ok_or_else(|| {
        let known: Vec<&str> = PASSED.iter().map(|(name, _)| *name).collect();
        Failure::new(Exit::Usage, format!("`{name}` is no signal that can be sent")).next(known.join(", "))
    })
}

fn literal(path: &str) -> String {
    let mut pattern = String::new();
    for character in path.chars() {
        match character {
            '*' | '?' | '[' | ']' | '{' | '}' => pattern.extend(['[', character, ']']),
            other => pattern.push(other),
        }
    }
    pattern
}

impl Run<'_> {
    async fn go(&self) -> Result<ExitCode, Failure> {
        let mut signals = signals()?;
        // No agent, and no such value, is told before anything is started.
        let known = self.agent.get("/v1/status")?.expect_found()?.generation_of_status();
        let mut child = self.start()?;
        let (sender, mut changes) = mpsc::channel(16);
        let agent = self.agent.clone();
        std::thread::spawn(move || follow(&agent, known, |event| sender.blocking_send(event).is_ok()));
        loop {
            tokio::select! {
                biased;
                ended = child.wait() => return Ok(code(ended.map_err(|error| started(&error))?)),
                Some((signal, from_terminal)) = signals.recv() => {
                    // A terminal sends its signals to the program as well.
                    if !from_terminal {
                        send(&child, signal);
                    }
                }
                Some(event) = changes.recv() => {
                    if !self.all && !event.concerns(&self.patterns) {
                        continue;
                    }
                    self.output.value(&json!({ "event": "changed", "generation": event.generation, "changed": event.changed }));
                    match &self.on_change {
                        OnChange::Signal(signal) => send(&child, *signal),
                        OnChange::Restart => match self.again(child, &mut signals).await? {
                            Ok(next) => child = next,
                            Err(code) => return Ok(code),
                        },
                    }
                }
            }
        }
    }

    /// Ends the program and starts it again; or, where we are told to end meanwhile, its code.
    async fn again(
        &self,
        mut child: Child,
        signals: &mut mpsc::Receiver<(Signal, bool)>,
    ) -> Result<Result<Child, ExitCode>, Failure> {
        // What the next would start with is read first: a value that is gone ends nothing that runs.
        let environment = match self.environment() {
            Ok(environment) => environment,
            Err(failure) => {
                self.output.failure(&failure);
                return Ok(Ok(child));
            }
        };
        send(&child, Signal::TERM);
        let patience = tokio::time::sleep(Duration::from_secs(self.arguments.stop_wait));
        tokio::pin!(patience);
        let mut told_to_end = false;
        let ended = loop {
            tokio::select! {
                biased;
                ended = child.wait() => break ended,
                Some((signal, _)) = signals.recv() => {
                    told_to_end |= matches!(signal, Signal::TERM | Signal::INT | Signal::QUIT);
                    send(&child, signal);
                }
                () = &mut patience => {
                    send(&child, Signal::KILL);
                    break child.wait().await;
                }
            }
        };
        let ended = ended.map_err(|error| started(&error))?;
        if told_to_end {
            return Ok(Err(code(ended)));
        }
        self.start_with(environment).map(Ok)
    }

    fn start(&self) -> Result<Child, Failure> {
        self.start_with(self.environment()?)
    }

    fn start_with(&self, environment: Vec<(String, String)>) -> Result<Child, Failure> {
        let Some((program, rest)) = self.arguments.command.split_first() else {
            return Err(Failure::new(Exit::Usage, "no program was named"));
        };
        let child = Command::new(program).args(rest).envs(environment).spawn();
        let child = child.map_err(|error| {
            Failure::new(Exit::Failure, format!("`{program}` could not be started: {error}"))
        })?;
        self.output.value(&json!({ "event": "started", "pid": child.id() }));
        Ok(child)
    }

    fn environment(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut environment = Vec::new();
        for given in &self.arguments.env {
            let Some((name, what)) = given.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                let message = format!("--env {given}: want NAME=PATH or NAME=PATH:KEY");
                return Err(Failure::new(Exit::Usage, message));
            };
            let (target, is_value) = target(what);
            let value = match is_value {
                true => text(&self.agent.value(&target)?.0),
                false => {
                    let answer = self.agent.get(&target)?.expect_found()?;
                    String::from_utf8_lossy(&answer.body).trim_end_matches('\n').to_owned()
                }
            };
            if value.contains('\0') {
                let message = format!("--env {given}: the value has a NUL, which no environment can hold");
                return Err(Failure::new(Exit::Failure, message));
            }
            environment.push((name.to_owned(), value));
        }
        Ok(environment)
    }
}

/// Signals to this process, and whether a terminal sent them to the program too.
fn signals() -> Result<mpsc::Receiver<(Signal, bool)>, Failure> {
    let (sender, receiver) = mpsc::channel(16);
    for (_, passed) in PASSED {
        let kind = SignalKind::from_raw(passed.as_raw());
        let mut heard = signal(kind)
            .map_err(|error| Failure::new(Exit::Failure, format!("signals cannot be heard: {error}")))?;
        let sender = sender.clone();
        let from_terminal = matches!(passed, Signal::INT | Signal::QUIT) && io::stdin().is_terminal();
        tokio::spawn(async move {
            while heard.recv().await.is_some() && sender.send((passed, from_terminal)).await.is_ok() {}
        });
    }
    Ok(receiver)
}

fn send(child: &Child, signal: Signal) {
    // One that was waited for has no id any more.
    let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(id) = id {
        let _ = kill_process(id, signal);
    }
}

fn started(error: &io::Error) -> Failure {
    Failure::new(Exit::Failure, format!("the program's end cannot be waited for: {error}"))
}

/// As a shell has it: the program's own code, or 128 and the signal that ended it.
fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(1))
}
