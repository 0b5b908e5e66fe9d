//! Where the passphrase of a key file comes from: a file, or whoever sits at the terminal.

use rootcast::limits::MAX_PASSPHRASE;
use rootcast_keys::{KeyError, Passphrase};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Names a file where there is no terminal, and the command line is another program's.
const VARIABLE: &str = "ROOTCAST_PASSPHRASE_FILE";

/// How commands that open secret keys take a passphrase; never as an argument itself.
#[derive(clap::Args)]
pub(crate) struct Asking {
    /// Read the passphrase of the key file from the first line of FILE [default: ask at the
    /// terminal, or the file that ROOTCAST_PASSPHRASE_FILE names]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Passphrase for Asking {
    fn passphrase(&self, path: &Path, new: bool) -> Result<Zeroizing<String>, KeyError> {
        let file = self.passphrase_file.clone().or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
        if let Some(file) = file {
            return from_file(path, &file);
        }
        let given = ask(path, if new { "new passphrase for" } else { "passphrase for" })?;
        if new && *ask(path, "again, for")? != *given {
            return Err(refused(path, "the two that were typed differ"));
        }
        Ok(given)
    }
}

fn refused(path: &Path, reason: &'static str) -> KeyError {
    KeyError::Passphrase { path: path.to_owned(), reason }
}

/// The first line of what a reader gives.
fn line(path: &Path, reader: impl Read) -> io::Result<Result<Zeroizing<String>, KeyError>> {
    // No growing: it would leave pieces of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PASSPHRASE as usize + 2));
    reader.take(MAX_PASSPHRASE + 1).read_to_end(&mut bytes)?;
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = core::str::from_utf8(first).map(|text| Zeroizing::new(text.trim_end_matches('\r').to_owned()));
    Ok(text.map_err(|_| refused(path, "it is not UTF-8")))
}

fn from_file(path: &Path, file: &Path) -> Result<Zeroizing<String>, KeyError> {
    let failed = |source| KeyError::Io { path: file.to_owned(), source };
    let opened = File::open(file).map_err(failed)?;
    let data = opened.metadata().map_err(failed)?;
    if data.is_file() && data.permissions().mode() & 0o077 != 0 {
        return Err(refused(path, "others can read its file; run `chmod 600` on it"));
    }
    line(path, opened).map_err(failed)?
}

/// Puts the terminal back as it was, however asking ends.
struct Silent<'t> {
    terminal: &'t File,
    before: Termios,
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // Nothing more can be done where this fails; the shell restores its own.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

fn ask(path: &Path, what: &str) -> Result<Zeroizing<String>, KeyError> {
    let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
        return Err(KeyError::NoTerminal { path: path.to_owned() });
    };
    let failed = |source| KeyError::Io { path: PathBuf::from("/dev/tty"), source };
    write!(terminal, "{what} {}: ", path.display()).map_err(failed)?;
    let before = tcgetattr(&terminal).map_err(|error| failed(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Now, &silent).map_err(|error| failed(error.into()))?;
    let typed = {
        let mut restored = Silent { terminal: &terminal, before };
        // A terminal gives a line at a time, so one read is one answer.
        let mut bytes = Zeroizing::new(vec![0; MAX_PASSPHRASE as usize + 1]);
        let count = restored.terminal.read(&mut bytes).map_err(failed)?;
        line(path, bytes.get(..count).unwrap_or_default()).map_err(failed)?
    };
    writeln!(terminal).map_err(failed)?;
    typed
}
