//! An update in memory: its head and the edits that follow it.

use bytes::Bytes;
use rootcast::protocol::{EditBase, EditHead, ListedBundle, Publication, UpdateHead};

/// An update as received, not verified.
#[derive(Debug, Clone)]
pub struct Update {
    /// Its head.
    pub head: UpdateHead,
    /// For each listed bundle that has an edit, its bytes, in order.
    pub edits: Vec<Bytes>,
}

impl Update {
    /// Listed bundles, each with its edit.
    pub(crate) fn listed(&self) -> impl Iterator<Item = (&ListedBundle, Option<(EditBase, &Bytes)>)> {
        let mut edits = self.edits.iter();
        self.head.listed.iter().map(move |listed| {
            let edit = listed.edit.and_then(|edit| edits.next().map(|bytes| (edit.base, bytes)));
            (listed, edit)
        })
    }

    /// A publication, seen as the update that it is to the origin.
    pub fn of_publication(publication: Publication, edits: Vec<Bytes>) -> Self {
        let edit = |length: &Option<u64>| length.map(|length| EditHead { base: EditBase::Logged, length });
        let listed = (0u64..)
            .zip(publication.leaves)
            .zip(&publication.edits)
            .map(|((index, leaf), length)| ListedBundle { index, leaf, edit: edit(length) })
            .collect();
        let release = publication.release;
        let head = UpdateHead { subscription: 0, release, listed, keep_others: false, siblings: Vec::new() };
        Self { head, edits }
    }
}
