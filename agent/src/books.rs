//! What a host keeps about its activations, in files that are whole at all times
//! (specs/activation.md, A-31 and ).

use crate::AgentError;
use rootcast::activation::{Generation, History, Journal, Orders};
use rootcast::codec;
use rootcast::id::NodeId;
use rootcast::limits::MAX_JOURNAL;
use rootcast_replica::durable;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

const JOURNAL: &str = "journal";
const HISTORY: &str = "history";
const ORDERS: &str = "orders";
/// The socket that says: look at the orders.
const BELL: &str = "bell";

/// Where the files are, below an agent's state.
pub fn directory(state: &Path) -> PathBuf {
    state.join("activation")
}

/// The files of a host, as they were last read or written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    directory: PathBuf,
    /// The activation that is under way, or was last.
    pub journal: Journal,
    /// What can be gone back to.
    pub history: History,
    /// What the operator said.
    pub orders: Orders,
}

impl Books {
    /// Reads the files of a state directory. What is not there says nothing.
    ///
    /// # Errors
    /// [`AgentError::Books`], by the file.
    pub fn read(state: &Path) -> Result<Self, AgentError> {
        let directory = directory(state);
        Ok(Self {
            journal: read(&directory, JOURNAL)?,
            history: read(&directory, HISTORY)?,
            orders: read(&directory, ORDERS)?,
            directory,
        })
    }

    /// Reads the orders again.
    ///
    /// # Errors
    /// As [`Books::read`].
    pub(crate) fn reread_orders(&mut self) -> Result<(), AgentError> {
        self.orders = read(&self.directory, ORDERS)?;
        Ok(())
    }

    /// Trees that may be gone back to, or on to.
    pub fn roots(&self) -> Vec<NodeId> {
        let kept = self.history.generations.iter().flat_map(Generation::roots);
        kept.chain(self.journal.roots()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn write_journal(&self) -> Result<(), AgentError> {
        self.write(JOURNAL, &self.journal)
    }

    pub(crate) fn write_history(&self) -> Result<(), AgentError> {
        self.write(HISTORY, &self.history)
    }

    /// Gives orders. The agent is told, if it runs; whether it does.
    ///
    /// # Errors
    /// When they cannot be written; then those before stand.
    pub fn order(&mut self, orders: Orders) -> Result<bool, AgentError> {
        self.write(ORDERS, &orders)?;
        self.orders = orders;
        let bell = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"!", self.directory.join(BELL)));
        Ok(bell.is_ok())
    }

    /// The socket that is rung when there are orders; one that is there is of an agent that is gone.
    pub(crate) fn bell(&self) -> io::Result<tokio::net::UnixDatagram> {
        fs::create_dir_all(&self.directory)?;
        let path = self.directory.join(BELL);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        tokio::net::UnixDatagram::bind(path)
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), AgentError> {
        let path = self.directory.join(name);
        let failed = |source| AgentError::Books { path: path.clone(), source };
        if !self.directory.is_dir() {
            fs::create_dir_all(&self.directory).map_err(failed)?;
        }
        durable::replace(&path, &codec::encode(value), durable::PRIVATE).map_err(failed)
    }
}

fn read<T: Serialize + DeserializeOwned + Default>(directory: &Path, name: &str) -> Result<T, AgentError> {
    let path = directory.join(name);
    let failed = |source| AgentError::Books { path: path.clone(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_JOURNAL + 1).read_to_end(&mut bytes).map_err(failed)?;
    codec::decode(&bytes, MAX_JOURNAL)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_38_what_is_written_is_read_and_what_is_damaged_is_named() {
        let state = tempfile::tempdir().unwrap();
        let mut books = Books::read(state.path()).unwrap();
        assert_eq!(books.journal, Journal::default());
        assert!(!books.order(Orders { hold: Some(3), lifted: 1 }).unwrap(), "nobody listens");
        books.write_journal().unwrap();
        books.write_history().unwrap();
        assert_eq!(Books::read(state.path()).unwrap(), books);
        fs::write(books.directory().join(JOURNAL), b"\x80").unwrap();
        let said = Books::read(state.path()).unwrap_err().to_string();
        assert!(said.contains("activation/journal") && said.contains("remove it"), "{said}");
    }

    #[tokio::test]
    async fn a_39_orders_ring() {
        let state = tempfile::tempdir().unwrap();
        let mut books = Books::read(state.path()).unwrap();
        drop(books.bell().unwrap());
        let bell = books.bell().unwrap();
        assert!(books.order(Orders { hold: None, lifted: 2 }).unwrap());
        assert_eq!(bell.recv(&mut [0; 8]).await.unwrap(), 1);
    }
}
