//! Where objects are read from and written to. Core decides what; the store
//! crate, a test's map or a bundler's batch decides where.

use crate::id::ObjectId;
use bytes::Bytes;
use std::collections::BTreeMap;

/// An object could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not there.
    #[error("{0} is not in the store")]
    Missing(ObjectId),
    /// Its bytes are not what its id says.
    #[error("{0} is damaged in the store")]
    Damaged(ObjectId),
    /// The store itself failed.
    #[error("{id} could not be read: {reason}")]
    Failed {
        /// Which object.
        id: ObjectId,
        /// What the store said, with its path.
        reason: String,
    },
}

impl ReadError {
    /// The object, where fetching it again would help.
    pub fn refetch(&self) -> Option<ObjectId> {
        match self {
            Self::Missing(id) | Self::Damaged(id) => Some(*id),
            Self::Failed { .. } => None,
        }
    }
}

/// An object could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id} could not be written: {reason}")]
pub struct WriteError {
    /// Which object.
    pub id: ObjectId,
    /// What the store said, with its path.
    pub reason: String,
}

/// Objects that can be read. What is returned has been checked against its id.
pub trait ObjectSource {
    /// Reads one object whole.
    fn read(&self, id: &ObjectId) -> Result<Bytes, ReadError>;
}

/// A place for new objects. Writing one that is already there is no error.
pub trait ObjectSink {
    /// Takes one object. The caller has computed `id` from `bytes`.
    fn write(&mut self, id: ObjectId, bytes: Bytes) -> Result<(), WriteError>;
}

/// Objects in memory.
pub type ObjectMap = BTreeMap<ObjectId, Bytes>;

impl ObjectSource for ObjectMap {
    fn read(&self, id: &ObjectId) -> Result<Bytes, ReadError> {
        let bytes = self.get(id).ok_or(ReadError::Missing(*id))?;
        if id.matches(bytes) { Ok(bytes.clone()) } else { Err(ReadError::Damaged(*id)) }
    }
}

impl ObjectSink for ObjectMap {
    fn write(&mut self, id: ObjectId, bytes: Bytes) -> Result<(), WriteError> {
        self.insert(id, bytes);
        Ok(())
    }
}

/// Objects of `over` where it has them, of `under` otherwise.
pub struct Overlay<'a, A: ?Sized, B: ?Sized> {
    /// Asked first.
    pub over: &'a A,
    /// Asked for what `over` lacks.
    pub under: &'a B,
}

impl<A: ObjectSource + ?Sized, B: ObjectSource + ?Sized> ObjectSource for Overlay<'_, A, B> {
    fn read(&self, id: &ObjectId) -> Result<Bytes, ReadError> {
        match self.over.read(id) {
            Err(ReadError::Missing(_)) => self.under.read(id),
            outcome => outcome,
        }
    }
}
