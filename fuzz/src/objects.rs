//! Objects: what is read of one is written again as the same bytes, so it has the same id.

use crate::bounded;
use rootcast::entry::{ChunkList, Entry};
use rootcast::id::NodeId;
use rootcast::limits::{MAX_CHUNKS, MAX_FILES, NODE_MAX_ENTRIES};
use rootcast::plan::Plan;
use rootcast::service::{Schedule, ServiceName, Services};
use rootcast::tree::Node;
use rootcast_age::DecryptionKey;
use std::collections::{BTreeMap, BTreeSet};
use zeroize::Zeroizing;

/// T-6.
pub(crate) fn node(input: &[u8]) {
    let id = NodeId::of(input);
    let Ok(node) = bounded(input, |input| Node::decode(id, input)) else { return };
    let again = node.encode();
    assert!(again == input && NodeId::of(&again) == id, "K-4");
    match node {
        Node::Leaf(entries) => {
            assert!(entries.len() <= NODE_MAX_ENTRIES);
            assert!(entries.is_sorted_by(|(a, _), (b, _)| a < b), "T-6: out of order");
            for (path, entry) in entries {
                entry.check_at(&path).expect("T-3: no link leaves the bundle");
                assert!(matches!(entry, Entry::File { .. } | Entry::Secret { .. } | Entry::Symlink { .. }));
            }
        }
        Node::Inner { level, refs } => {
            assert!((1..=9).contains(&level) && (1..=NODE_MAX_ENTRIES).contains(&refs.len()));
            assert!(refs.is_sorted_by(|a, b| a.last < b.last), "T-6: out of order");
            assert!(refs.iter().all(|child| child.totals.files <= MAX_FILES));
        }
    }
}

/// T-10: eight bytes of the file's size, then its chunk list.
pub(crate) fn chunks(input: &[u8]) {
    let Some((size, bytes)) = input.split_first_chunk::<8>() else { return };
    let size = u64::from_le_bytes(*size);
    let Ok(list) = bounded(bytes, |bytes| ChunkList::decode(bytes, size)) else { return };
    assert_eq!(list.encode(), bytes, "K-4");
    assert!(list.0.len() <= MAX_CHUNKS && list.0.iter().all(|chunk| (1..=1 << 20).contains(&chunk.size)));
    assert_eq!(list.0.iter().map(|chunk| u128::from(chunk.size)).sum::<u128>(), u128::from(size));
}

/// F-31, F-33, F-37: a plan has one form, and gives hosts only bundles that it lists.
pub(crate) fn plan(input: &[u8]) {
    let Ok(plan) = bounded(input, Plan::decode) else { return };
    assert_eq!(plan.encode(), input, "K-4");
    let label = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let labels = [("host", "web-1"), ("region", "eu"), ("role", "web")].map(label);
    let labels = BTreeMap::from(labels);
    let subscription = plan.subscription(&labels);
    let view = plan.view(&labels);
    assert!(view.iter().all(|bundle| plan.bundles.contains(bundle) && subscription.contains(bundle)));
    assert!(plan.view(&BTreeMap::new()).iter().all(|bundle| view.contains(bundle)));
}

/// F-97: services that are read fit one another, so each of them runs and ends.
pub(crate) fn services(input: &[u8]) {
    let Ok(services) = bounded(input, Services::decode) else { return };
    assert_eq!(services.encode(), input, "K-4");
    let all: BTreeSet<ServiceName> = services.iter().map(|service| service.name.clone()).collect();
    let mut schedule = Schedule::new(&services, &all, 4);
    while let Some(name) = schedule.begin() {
        schedule.end(&name, true);
    }
    assert!(schedule.is_over() && schedule.ended().len() == services.len(), "F-92");
}

/// T-11: a secret that opens says so beforehand, and is no longer than its file.
pub(crate) fn secret(input: &[u8]) {
    let key = secret_key();
    let opened = bounded(input, |input| key.decrypt(input));
    let Ok(opened) = opened else { return };
    assert_eq!(key.opens(input), Ok(opened.is_some()), "T-11");
    assert!(opened.is_none_or(|plaintext| plaintext.len() < input.len()), "T-11");
}

/// The key that the seeds of `secret` are encrypted to.
pub fn secret_key() -> DecryptionKey {
    DecryptionKey::from_bytes(Zeroizing::new([7; 32]))
}
