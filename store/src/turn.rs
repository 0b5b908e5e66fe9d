//! The right to write, which one batch or collection has at a time.

use crate::error::StoreError;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the one writer is at work.
#[derive(Debug, Default)]
pub(crate) struct Turns(AtomicBool);

impl Turns {
    /// Takes the turn, or says at once that it is taken: waiting here could
    /// wait for the caller itself.
    pub(crate) fn take(&self, path: &Path) -> Result<Turn<'_>, StoreError> {
        if self.0.swap(true, Ordering::Acquire) {
            return Err(StoreError::Busy { path: path.to_path_buf() });
        }
        Ok(Turn(&self.0))
    }
}

/// The turn, given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
