//! What publishing and applying cost as trees grow.
//!
//! Each step runs in a process of its own, so that its peak of memory is its own.

mod step;
mod tree;

use clap::Args;
use rootcast_agent::AgentError;
use rootcast_agent::slots::SlotError;
use rootcast_bundler::CompileError;
use rootcast_replica::ReplicaError;
use rootcast_store::StoreError;
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use step::Step;
pub(crate) use tree::{Shape, repository};

/// What is measured, and where.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Files of each tree.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    files: Vec<u64>,
    /// How the files lie.
    #[arg(long, value_enum, default_value = "nested")]
    shape: Shape,
    /// Writes the figures to this file as well.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Puts trees and stores here. On a file system in memory syncs cost nothing.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// One step, in a process of its own.
    #[arg(long, hide = true)]
    step: Option<Step>,
}

/// A measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScaleError {
    /// A file or program.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program, or a step in its own process, ended badly.
    #[error("{what} failed: {status}")]
    Ended {
        /// Which.
        what: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A step printed what is not its figures.
    #[error("the step {0} printed no figures")]
    NoFigures(&'static str),
    /// What was measured gave a wrong outcome.
    #[error("{0}")]
    Wrong(&'static str),
    /// Publishing failed.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Slots failed.
    #[error(transparent)]
    Slots(#[from] SlotError),
    /// An agent failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A key, document, tree or edit could not be made or read.
    #[error("{0}")]
    Core(String),
}

impl ScaleError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    fn core(error: impl ToString) -> Self {
        Self::Core(error.to_string())
    }

    fn ran(what: &str, ended: io::Result<ExitStatus>) -> Result<(), Self> {
        let status = ended.map_err(|source| Self::io(Path::new(what), source))?;
        if status.success() { Ok(()) } else { Err(Self::Ended { what: what.to_owned(), status }) }
    }
}

/// Measures, and prints a table.
///
/// # Errors
/// The first step that fails.
pub(crate) fn run(arguments: &Arguments) -> Result<(), ScaleError> {
    if let (Some(step), Some(directory), [files]) = (&arguments.step, &arguments.directory, &*arguments.files)
    {
        println!("{}", step.run(directory, *files, arguments.shape)?);
        return Ok(());
    }
    let parent = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
    let mut all = Vec::new();
    for files in &arguments.files {
        let home = tempfile::tempdir_in(&parent).map_err(|source| ScaleError::io(&parent, source))?;
        println!("{files} files, {:?}", arguments.shape);
        let mut figures = json!({ "files": files, "shape": format!("{:?}", arguments.shape) });
        for step in Step::ALL {
            let measured = apart(step, home.path(), *files, arguments.shape)?;
            show(step, &measured);
            if let Some(figures) = figures.as_object_mut() {
                figures.insert(step.name().to_owned(), measured);
            }
        }
        all.push(figures);
    }
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", Value::from(all));
        std::fs::write(path, text).map_err(|source| ScaleError::io(path, source))?;
    }
    Ok(())
}

/// Runs a step in a process of its own.
fn apart(step: Step, home: &Path, files: u64, shape: Shape) -> Result<Value, ScaleError> {
    let program = std::env::current_exe().map_err(|source| ScaleError::io(home, source))?;
    let mut command = Command::new(&program);
    command.args(["scale", "--step", step.name(), "--files", &files.to_string()]);
    command.args(["--shape", &format!("{shape:?}").to_lowercase(), "--directory"]).arg(home);
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|source| ScaleError::io(&program, source))?;
    if !output.status.success() {
        return Err(ScaleError::Ended { what: step.name().to_owned(), status: output.status });
    }
    serde_json::from_slice(&output.stdout).map_err(|_| ScaleError::NoFigures(step.name()))
}

fn show(step: Step, figures: &Value) {
    let figures = figures.as_object().into_iter().flatten();
    let shown: Vec<String> = figures.map(|(name, value)| format!("{name} {value}")).collect();
    println!("  {:<10}{}", step.name(), shown.join("  "));
}
