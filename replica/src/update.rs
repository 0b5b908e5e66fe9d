//! An update in memory: its head and the edits that follow it.

use bytes::Bytes;
use rootcast::protocol::{EditBase, EditHead, ListedBundle, Publication, UpdateHead, Waypoint};

/// An update as received, not verified.
#[derive(Debug, Clone)]
pub struct Update {
    /// Its head.
    pub head: UpdateHead,
    /// The edits of the listed bundles, in order.
    pub edits: Vec<Bytes>,
}

/// How the content of one bundle comes.
pub(crate) struct Run<'u> {
    /// What its first edit applies to.
    pub(crate) base: EditBase,
    /// The edits before the last, each with where it leads.
    pub(crate) before: Vec<(&'u Waypoint, &'u Bytes)>,
    /// The edit that leads to the signed root.
    pub(crate) last: &'u Bytes,
}

impl Update {
    /// Listed bundles, each with its edits.
    pub(crate) fn listed(&self) -> impl Iterator<Item = (&ListedBundle, Option<Run<'_>>)> {
        let mut edits = self.edits.iter();
        self.head.listed.iter().map(move |listed| {
            let run = listed.edit.as_ref().and_then(|head| {
                let before = head.before.iter().zip(edits.by_ref()).collect();
                Some(Run { base: head.base, before, last: edits.next()? })
            });
            (listed, run)
        })
    }

    /// A publication, seen as the update that it is to the origin.
    pub fn of_publication(publication: Publication, edits: Vec<Bytes>) -> Self {
        let logged = |length| EditHead { base: EditBase::Logged, length, before: Vec::new() };
        let edit = |length: &Option<u64>| length.map(logged);
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
