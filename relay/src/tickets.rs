//! The keys of session tickets, kept for the next start: a restarted relay then resumes the
//! sessions of its children instead of verifying all their certificates at once (specs/wire.md, W-7).

use crate::RelayError;
use rootcast::limits::MAX_DOCUMENT;
use rootcast_replica::Machine;
use rootcast_replica::durable::{self, PRIVATE};
use rootcast_transport::{Endpoint, Identity, TICKET_LOOK, TicketKeys};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file of a relay's state that holds them; it is a secret.
const TICKET_KEYS_FILE: &str = "ticket.keys";

/// Takes the keys of the last process, and resumes the sessions of callers under them.
/// What is returned keeps the keys fresh for as long as it runs.
pub(crate) fn resume(
    machine: Arc<dyn Machine>,
    state: &Path,
    endpoint: &Endpoint,
    identity: &Identity,
) -> Result<impl Future<Output = ()> + use<>, RelayError> {
    let path = state.join(TICKET_KEYS_FILE);
    // Without them all children come with full handshakes, once.
    let kept = read(&path).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "ticket keys are made anew");
        Vec::new()
    });
    let keys = Arc::new(TicketKeys::open(identity, &kept, machine.now())?);
    if *keys.to_bytes() != kept {
        keep(&path, &keys);
    }
    endpoint.resume_with(identity, keys.clone())?;
    Ok(rotate(machine, path, keys))
}

/// What an earlier process kept; nothing where there was none, or where others could read it.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    if file.metadata()?.mode() & 0o077 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others than its owner can read it"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

async fn rotate(machine: Arc<dyn Machine>, path: PathBuf, keys: Arc<TicketKeys>) {
    loop {
        tokio::time::sleep(TICKET_LOOK).await;
        match keys.rotate(machine.now()) {
            Ok(true) => {
                let (path, keys) = (path.clone(), keys.clone());
                // It cannot fail but by the end of the process.
                let _ = machine.blocking(move || keep(&path, &keys)).await;
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the ticket keys stay as they are"),
        }
    }
}

fn keep(path: &Path, keys: &TicketKeys) {
    if let Err(error) = durable::replace(path, &keys.to_bytes(), PRIVATE) {
        tracing::warn!(path = %path.display(), %error, "ticket keys could not be kept for the next start");
    }
}
