//! `bandwidth`: samples, measures, reports.

use crate::args::{Bandwidth, ModeArgument};
use crate::content;
use crate::cost::Cost;
use crate::error::BenchError;
use crate::figures::{Column, Figures, Mode, ModeFigures, own_columns};
use crate::floor::{Floor, floor};
use crate::ours::{Measure, fanout, measure};
use crate::peers::{self, Found, Peer};
use crate::sample::{History, Pair, Wanted};
use crate::{plot, report, table};
use indicatif::{ProgressBar, ProgressStyle};
use rootcast_bundler::source::Source;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

/// What measuring needs at hand.
struct Run<'a> {
    arguments: &'a Bandwidth,
    repository: PathBuf,
    peers: Vec<String>,
    scratch: PathBuf,
    runtime: Runtime,
    source: Source,
    bar: ProgressBar,
    figures: Figures,
}

/// Measures what is asked for, and prints it.
pub(crate) fn run(arguments: &Bandwidth) -> Result<(), BenchError> {
    let peers = arguments.peers().map_err(BenchError::Usage)?;
    let repository = &arguments.repo;
    let repository = repository.canonicalize().map_err(BenchError::io(repository))?;
    let wanted = wanted(arguments);
    let history = History::read(&repository, &[wanted, jump(arguments)])?;
    // Before an hour of measuring, not after it.
    for file in [&arguments.json, &arguments.plot].into_iter().flatten() {
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        if directory.is_some_and(|directory| !directory.is_dir()) {
            return Err(BenchError::Usage(format!("{}: its directory is not there", file.display())));
        }
    }
    let temporary = tempfile::Builder::new().prefix("rootcast-benches-").tempdir();
    let temporary = temporary.map_err(BenchError::io(&std::env::temp_dir()))?;
    let scratch = arguments.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    empty(&scratch)?;
    let scratch = scratch.canonicalize().map_err(BenchError::io(&scratch))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(BenchError::io(Path::new("the runtime")))?;
    let source = Source::open(&repository, None)?;
    let figures = Figures {
        // Its name: where it lies is nobody's business in a table that is passed on.
        repository: repository.file_name().map_or_else(String::new, |name| name.display().to_string()),
        head: history.head().to_owned(),
        ..Figures::default()
    };
    let mut run = Run { arguments, repository, peers, scratch, runtime, source, bar: progress(), figures };
    run.measure(&history)?;
    run.bar.finish_and_clear();
    run.report()
}

fn wanted(arguments: &Bandwidth) -> Wanted {
    Wanted { steps: arguments.steps as usize, every: arguments.every as usize, span: 1 }
}

fn jump(arguments: &Bandwidth) -> Wanted {
    Wanted { span: arguments.jump as usize, ..wanted(arguments) }
}

/// Makes the directory; one that holds something already is not ours to fill.
fn empty(directory: &Path) -> Result<(), BenchError> {
    std::fs::create_dir_all(directory).map_err(BenchError::io(directory))?;
    let mut entries = std::fs::read_dir(directory).map_err(BenchError::io(directory))?;
    match entries.next() {
        Some(_) => Err(BenchError::Usage(format!("--keep: {} is not empty", directory.display()))),
        None => Ok(()),
    }
}

/// A progress bar on standard error, if that is a terminal.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template("{msg:>24} [{bar:32}] {pos}/{len} {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl Run<'_> {
    fn is_asked(&self, mode: ModeArgument) -> bool {
        let asked = &self.arguments.mode;
        asked.contains(&mode) || asked.contains(&ModeArgument::All)
    }

    fn measure(&mut self, history: &History) -> Result<(), BenchError> {
        let wanted = wanted(self.arguments);
        let modes = [
            (ModeArgument::Step, Mode::Step, wanted),
            (ModeArgument::Jump, Mode::Jump, jump(self.arguments)),
            (ModeArgument::Cold, Mode::Cold, wanted),
        ];
        for (asked, mode, wanted) in modes {
            if !self.is_asked(asked) {
                continue;
            }
            let (pairs, note) = match mode {
                Mode::Cold => (history.sample_cold(wanted), None),
                Mode::Step | Mode::Jump => history.sample(wanted),
            };
            if pairs.is_empty() {
                let note = format!(
                    "{}: the history is its first commit alone; only cold is possible",
                    mode.as_str()
                );
                self.figures.notes.push(note);
                continue;
            }
            let figures = self.mode(mode, pairs, note)?;
            self.figures.modes.push(figures);
        }
        if self.is_asked(ModeArgument::Fanout) {
            self.fanout(history.sample(wanted))?;
        }
        if self.figures.modes.is_empty() && self.figures.fanout.is_none() {
            return Err(BenchError::Nothing(self.figures.notes.join("; ")));
        }
        Ok(())
    }

    /// A new part of the work, of so many steps.
    fn begin(&self, what: &str, steps: usize) {
        self.bar.set_length(steps as u64);
        self.bar.set_position(0);
        self.bar.set_message(what.to_owned());
    }

    fn mode(
        &mut self,
        mode: Mode,
        pairs: Vec<Pair>,
        note: Option<String>,
    ) -> Result<ModeFigures, BenchError> {
        self.begin(&format!("{}: Rootcast", mode.as_str()), pairs.len());
        let bar = self.bar.clone();
        let measured = measure(mode, &self.scratch, &self.repository, &pairs, || bar.inc(1));
        let measure = self.runtime.block_on(measured)?;
        let mut notes: Vec<String> = note.into_iter().collect();
        let failed: Vec<&String> =
            measure.samples.iter().filter_map(|sample| sample.as_ref().err()).collect();
        if let Some(first) = failed.first() {
            if failed.len() == pairs.len() {
                return Err(BenchError::Nothing((*first).clone()));
            }
            notes.push(format!(
                "{} of {} samples are left out; the first: {first}",
                failed.len(),
                pairs.len()
            ));
        }
        let floors = self.floors(mode, &pairs, &measure, &mut notes)?;
        let mut columns = own_columns(mode, &measure, &floors);
        columns.extend(self.plain(mode, &pairs)?);
        columns.extend(self.peers(mode, &pairs, &mut notes)?);
        notes.extend(explained(mode));
        let span = pairs.iter().map(|pair| pair.commits.len()).max().unwrap_or(1);
        Ok(ModeFigures { mode, span, pairs, measure, floors, columns, notes })
    }

    fn floors(
        &mut self,
        mode: Mode,
        pairs: &[Pair],
        measure: &Measure,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Option<Floor>>, BenchError> {
        if mode == Mode::Cold {
            return Ok(vec![None; pairs.len()]);
        }
        self.begin(&format!("{}: floors", mode.as_str()), pairs.len());
        let mut floors = Vec::new();
        for (pair, sample) in pairs.iter().zip(&measure.samples) {
            let from = pair.from.as_deref().unwrap_or_default();
            floors.push(match content::changed(&self.source, from, pair.to()) {
                Ok(difference) => {
                    let diff = content::bare_diff(&self.repository, from, pair.to())?;
                    let mut floor = floor(&difference, diff.as_deref(), &self.scratch)?;
                    if let Ok(ours) = sample {
                        floor.consider("Rootcast's own edit", ours.edit);
                    }
                    Some(floor)
                }
                // What cannot be published has no floor either.
                Err(BenchError::Source(error)) if error.is_invalid_source() => None,
                Err(error) => return Err(error),
            });
            self.bar.inc(1);
        }
        let coders: std::collections::BTreeMap<&str, usize> =
            floors.iter().flatten().fold(Default::default(), |mut counts, floor| {
                *counts.entry(floor.coder).or_default() += 1;
                counts
            });
        let coders: Vec<String> = coders.iter().map(|(coder, count)| format!("{coder} ({count})")).collect();
        notes.push(format!("floor: the smallest coding of the changed content found: {}", coders.join("; ")));
        Ok(floors)
    }

    /// What has no protocol at all.
    fn plain(&mut self, mode: Mode, pairs: &[Pair]) -> Result<Option<Column>, BenchError> {
        let name = if mode == Mode::Cold { "tar | zstd -19" } else { "git diff --binary | zstd -19" };
        self.begin(&format!("{}: {name}", mode.as_str()), pairs.len());
        let mut costs = Vec::new();
        for pair in pairs {
            let cost = match &pair.from {
                None => content::archive(&self.repository, pair.to())?,
                Some(from) => content::patch(&self.repository, from, pair.to())?,
            };
            self.bar.inc(1);
            if cost.is_none() {
                self.skip(name, "git");
                return Ok(None);
            }
            costs.push(cost);
        }
        Ok(Some(Column::peer(name, costs)))
    }

    fn skip(&mut self, name: &str, package: &str) {
        let skipped = (name.to_owned(), package.to_owned());
        if !self.figures.skipped.contains(&skipped) {
            self.figures.skipped.push(skipped);
        }
    }

    fn peers(
        &mut self,
        mode: Mode,
        pairs: &[Pair],
        notes: &mut Vec<String>,
    ) -> Result<Vec<Column>, BenchError> {
        let scratch = self.scratch.join(format!("peers-{}", mode.as_str()));
        std::fs::create_dir_all(&scratch).map_err(BenchError::io(&scratch))?;
        let mut columns = Vec::new();
        for found in peers::find(&self.peers, &self.repository, &scratch) {
            match found {
                Found::Skipped { name, package } => self.skip(name, package),
                Found::Here(mut peer) => columns.push(self.peer(&mut *peer, mode, pairs, notes)),
            }
        }
        Ok(columns)
    }

    fn peer(&self, peer: &mut dyn Peer, mode: Mode, pairs: &[Pair], notes: &mut Vec<String>) -> Column {
        self.begin(&format!("{}: {}", mode.as_str(), peer.name()), pairs.len());
        let mut costs: Vec<Option<Cost>> = Vec::new();
        for pair in pairs {
            match peer.step(pair.from.as_ref(), &pair.to().to_owned()) {
                Ok(cost) => costs.push(Some(cost)),
                Err(error) => {
                    // What it holds now is not known, so the later steps would say nothing.
                    let done = costs.len();
                    notes.push(format!("{} failed after {done} samples and was left: {error}", peer.name()));
                    costs.resize(pairs.len(), None);
                    break;
                }
            }
            self.bar.inc(1);
        }
        Column::peer(peer.name(), costs)
    }

    fn fanout(&mut self, (pairs, note): (Vec<Pair>, Option<String>)) -> Result<(), BenchError> {
        if pairs.is_empty() {
            self.figures
                .notes
                .push("fanout: the history is its first commit alone; only cold is possible".into());
            return Ok(());
        }
        self.begin("fanout", pairs.len());
        let shape = (self.arguments.relays as usize, self.arguments.agents as usize);
        let bar = self.bar.clone();
        let measured = fanout(&self.scratch, &self.repository, &pairs, shape, || bar.inc(1));
        let fanout = self.runtime.block_on(measured)?;
        if let Some(Err(first)) = fanout.steps.iter().find(|step| step.is_err())
            && fanout.steps.iter().all(Result::is_err)
        {
            return Err(BenchError::Nothing(first.clone()));
        }
        let mut notes: Vec<String> = note.into_iter().collect();
        notes.push("all processes share this machine: delays and CPU time are those of a loaded one".into());
        self.figures.fanout = Some((pairs, fanout, notes));
        Ok(())
    }

    fn report(&self) -> Result<(), BenchError> {
        if let Some(file) = &self.arguments.json {
            let text = format!("{:#}\n", report::json(&self.figures));
            std::fs::write(file, text).map_err(BenchError::io(file))?;
        }
        if let Some(file) = &self.arguments.plot {
            std::fs::write(file, plot::svg(&self.figures)).map_err(BenchError::io(file))?;
        }
        let mut output = io::stdout();
        match output.write_all(table::markdown(&self.figures).as_bytes()).and_then(|()| output.flush()) {
            // The reader has enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(BenchError::io(Path::new("standard output"))),
        }
    }
}

/// What is counted in a mode, where the help does not say it.
fn explained(mode: Mode) -> Vec<String> {
    let notes: &[&str] = match mode {
        Mode::Step => &[
            "Rootcast's wall time: from durable at the origin to active on disk; its server CPU has the publication (read, compile, sign) in it",
            "Rootcast's bytes up: the host's status reports and nothing else",
        ],
        Mode::Jump => &[
            "Rootcast's wall time and client CPU: from the start of the agent's process, the check of its store included; its server CPU: each commit published as a release of its own, and the update",
        ],
        Mode::Cold => &[
            "Rootcast's wall time and client CPU: from the start of the agent's process; its server CPU: that of serving, not of publishing nor of the snapshot that the origin makes ahead when it has nothing else to do",
            "tar | zstd -19: its server CPU is that of packing alone",
        ],
    };
    let mut notes: Vec<String> = notes.iter().map(|note| (*note).to_owned()).collect();
    if cfg!(debug_assertions) {
        notes.push("this is a debug build: times and CPU times mean nothing".into());
    }
    notes
}
