//! Running a program: a clean environment, a deadline, and the CPU time it took.

use super::PeerError;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, thread};

/// Longest that one program may run; a cold client of a large repository takes the longest.
const DEADLINE: Duration = Duration::from_secs(900);
/// Bytes of standard error that an error shows.
const SHOWN: usize = 600;
/// Runs its arguments, then tells the CPU time of all its (waited-for) descendants, on the last line
/// of standard error. The shell's own time is not in it. Resolution: 1 ms with bash, 10 ms with dash.
const TIMED: &str = r#""$@"; status=$?; times >&2; exit $status"#;

/// Whether `program` is on the search path.
pub(super) fn is_installed(program: &str) -> bool {
    let Some(path) = env::var_os("PATH") else { return false };
    env::split_paths(&path).any(|directory| {
        directory
            .join(program)
            .metadata()
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

/// A program to run, in an environment that has nothing of the user's.
#[derive(Clone)]
pub(super) struct Call {
    program: &'static str,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    input: Option<PathBuf>,
    output: Option<PathBuf>,
    home: PathBuf,
}

/// What a program that was timed left.
#[derive(Debug)]
pub(super) struct Timed {
    /// User and system time of it and its descendants; nothing where the shell does not tell.
    pub(super) cpu: Option<Duration>,
    /// From start to end.
    pub(super) wall: Duration,
}

/// What a program said, and how it ended.
struct Ended {
    status: ExitStatus,
    output: Vec<u8>,
    complaints: Vec<u8>,
}

impl Call {
    /// `program` without arguments. `home` is its directory, its home and its place for temporary files.
    pub(super) fn new(program: &'static str, home: &Path) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            environment: Vec::new(),
            input: None,
            output: None,
            home: home.to_owned(),
        }
    }

    /// Git, never asking, with no configuration but ours, and no housekeeping of its own.
    pub(super) fn git(home: &Path) -> Self {
        Self::new("git", home).args([
            "-c",
            "safe.directory=*",
            "-c",
            "gc.auto=0",
            "-c",
            "maintenance.auto=false",
            "-c",
            "advice.detachedHead=false",
            "-c",
            "protocol.version=2",
        ])
    }

    /// One more argument.
    pub(super) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// More arguments.
    pub(super) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// One more variable.
    pub(super) fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name, value.as_ref().to_owned()));
        self
    }

    /// Standard input from a file; there is none otherwise.
    pub(super) fn input(mut self, file: &Path) -> Self {
        self.input = Some(file.to_owned());
        self
    }

    /// Standard output into a file, instead of into memory.
    pub(super) fn output(mut self, file: &Path) -> Self {
        self.output = Some(file.to_owned());
        self
    }

    /// Runs it to its end and returns its standard output.
    ///
    /// # Errors
    /// When it cannot start, fails, or misses the deadline.
    pub(super) fn run(&self) -> Result<Vec<u8>, PeerError> {
        let mut command = Command::new(self.program);
        command.args(&self.arguments);
        self.finish(command).map(|ended| ended.output)
    }

    /// Runs it to its end and says what that took.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub(super) fn timed(&self) -> Result<Timed, PeerError> {
        let start = Instant::now();
        let ended = self.finish(self.under_a_clock())?;
        Ok(Timed { cpu: cpu_told(&ended.complaints), wall: start.elapsed() })
    }

    /// The program under a shell that tells its CPU time when it has ended: see [`cpu_told`].
    /// All three standard streams are still to be set.
    pub(super) fn under_a_clock(&self) -> Command {
        let shell = if is_installed("bash") { "bash" } else { "sh" };
        let mut command = Command::new(shell);
        command.args(["-c", TIMED, shell, self.program]).args(&self.arguments);
        self.surround(&mut command);
        command
    }

    /// Sets directory and environment.
    fn surround(&self, command: &mut Command) {
        command.current_dir(&self.home).env_clear();
        if let Some(path) = env::var_os("PATH") {
            command.env("PATH", path);
        }
        for variable in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            command.env(variable, &self.home);
        }
        command.envs([("LC_ALL", "C"), ("TZ", "UTC"), ("GIT_CONFIG_NOSYSTEM", "1")]);
        command.envs([("GIT_TERMINAL_PROMPT", "0"), ("GIT_CONFIG_GLOBAL", "/dev/null")]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    fn finish(&self, mut command: Command) -> Result<Ended, PeerError> {
        self.surround(&mut command);
        command.stdin(match &self.input {
            Some(file) => Stdio::from(File::open(file).map_err(PeerError::at(self.program, file))?),
            None => Stdio::null(),
        });
        command.stdout(match &self.output {
            Some(file) => Stdio::from(File::create(file).map_err(PeerError::at(self.program, file))?),
            None => Stdio::piped(),
        });
        // A group of its own, so that a deadline ends what it has started as well.
        command.stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(|error| self.failed(&error.to_string(), &[]))?;
        let (told, heard) = mpsc::sync_channel(2);
        read_whole(child.stdout.take(), Stream::Output, told.clone());
        read_whole(child.stderr.take(), Stream::Complaints, told);
        let (mut output, mut complaints) = (Vec::new(), Vec::new());
        let end = Instant::now() + DEADLINE;
        loop {
            match heard.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((Stream::Output, bytes)) => output = bytes,
                Ok((Stream::Complaints, bytes)) => complaints = bytes,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(group) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
                        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                    }
                    let _ = child.wait();
                    return Err(self.failed(&format!("no end after {} s", DEADLINE.as_secs()), &[]));
                }
            }
        }
        let status = child.wait().map_err(|error| self.failed(&error.to_string(), &complaints))?;
        let ended = Ended { status, output, complaints };
        if ended.status.success() {
            Ok(ended)
        } else {
            Err(self.failed(&ended.status.to_string(), &ended.complaints))
        }
    }

    /// The error that names the command and shows the end of what it complained of.
    fn failed(&self, what: &str, complaints: &[u8]) -> PeerError {
        let arguments = self.arguments.iter().map(|argument| argument.to_string_lossy());
        let command = arguments.collect::<Vec<_>>().join(" ");
        let shown = complaints.get(complaints.len().saturating_sub(SHOWN)..).unwrap_or_default();
        let shown = String::from_utf8_lossy(shown);
        PeerError { program: self.program, what: format!("`{command}`: {what}: {}", shown.trim()) }
    }
}

/// Which of a program's streams.
enum Stream {
    Output,
    Complaints,
}

/// Reads a stream to its end on a thread, which ends with the stream.
fn read_whole(
    stream: Option<impl Read + Send + 'static>,
    which: Stream,
    told: mpsc::SyncSender<(Stream, Vec<u8>)>,
) {
    let Some(mut stream) = stream else { return };
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What cannot be read is missing from the output, and its reader complains.
        let _ = stream.read_to_end(&mut bytes);
        let _ = told.send((which, bytes));
    });
}

/// The CPU time told at the end of standard error by a program [`Call::under_a_clock`].
pub(super) fn cpu_told(complaints: &[u8]) -> Option<Duration> {
    let complaints = String::from_utf8_lossy(complaints);
    let last = complaints.trim_end().lines().next_back()?;
    let (user, system) = last.split_once(' ')?;
    Some(minutes_and_seconds(user)? + minutes_and_seconds(system)?)
}

/// Parses `1m2.345s`.
fn minutes_and_seconds(text: &str) -> Option<Duration> {
    let (minutes, seconds) = text.trim().strip_suffix('s')?.split_once('m')?;
    let minutes: u64 = minutes.parse().ok()?;
    let seconds = Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?;
    Some(Duration::from_secs(minutes.checked_mul(60)?) + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_that_of_the_last_line() {
        let said = b"fatal: no\n0m0.000s 0m9.000s\n1m2.250s 0m0.125s\n";
        assert_eq!(cpu_told(said), Some(Duration::from_millis(62_375)));
        assert_eq!(
            cpu_told(b"0m0.010000s 0m0.000000s\n0m0.010000s 0m0.020000s\n"),
            Some(Duration::from_millis(30))
        );
        assert_eq!(cpu_told(b"fatal: not a repository\n"), None);
        assert_eq!(cpu_told(b""), None);
    }

    #[test]
    fn a_failure_names_the_command_and_shows_the_complaint() {
        let scratch = tempfile::tempdir().unwrap();
        let call = Call::new("sh", scratch.path()).args(["-c", "echo no such thing >&2; exit 3"]);
        let error = call.run().unwrap_err().to_string();
        assert!(error.starts_with("sh: `-c echo no such thing"), "{error}");
        assert!(error.contains("exit status: 3: no such thing"), "{error}");
        assert!(call.timed().unwrap_err().to_string().contains("no such thing"));
    }

    #[test]
    fn work_is_timed_and_the_environment_is_clean() {
        let scratch = tempfile::tempdir().unwrap();
        let burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let timed = Call::new("sh", scratch.path()).args(["-c", burn]).timed().unwrap();
        let cpu = timed.cpu.unwrap();
        assert!(cpu >= Duration::from_millis(10) && cpu <= timed.wall + Duration::from_millis(20), "{cpu:?}");
        let home = Call::new("sh", scratch.path()).args(["-c", "echo $HOME; echo $USER"]).run().unwrap();
        assert_eq!(String::from_utf8(home).unwrap(), format!("{}\n\n", scratch.path().display()));
    }
}
