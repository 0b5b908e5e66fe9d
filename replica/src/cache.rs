//! Edits that a parent computed for its children, each made once.

use crate::ReplicaError;
use bytes::Bytes;
use rootcast::id::NodeId;
use rootcast::limits::{CACHED_EDIT_BYTES, CACHED_EDITS};
use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// From which root to which.
pub(crate) type Step = (NodeId, NodeId);
type Cell = Arc<OnceCell<Bytes>>;

/// The newest edits computed, bounded in number and bytes.
#[derive(Default)]
pub(crate) struct EditCache {
    cells: Mutex<VecDeque<(Step, Cell)>>,
}

impl EditCache {
    /// The edit of this step; `make` runs at most once at a time for it.
    pub(crate) async fn get<F>(&self, step: Step, make: F) -> Result<Bytes, ReplicaError>
    where
        F: Future<Output = Result<Bytes, ReplicaError>>,
    {
        let cell = self.cell(step);
        let made = cell.get_or_try_init(|| make).await.cloned();
        self.trim();
        made
    }

    fn cell(&self, step: Step) -> Cell {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cell)) = cells.iter().find(|(held, _)| *held == step) {
            return cell.clone();
        }
        let cell = Cell::default();
        cells.push_back((step, cell.clone()));
        cell
    }

    fn trim(&self) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let size = |cell: &Cell| cell.get().map_or(0, |bytes| bytes.len() as u64);
        let mut total: u64 = cells.iter().map(|(_, cell)| size(cell)).sum();
        while cells.len() > CACHED_EDITS || (total > CACHED_EDIT_BYTES && cells.len() > 1) {
            if let Some((_, cell)) = cells.pop_front() {
                total -= size(&cell);
            }
        }
    }
}
