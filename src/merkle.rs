//! The Merkle tree over a release's bundle leaves, and proofs of several
//! leaves at once.
//!
//! Shape as in RFC 9162 section 2.1.1: a range splits at the largest power of
//! two below its length (specs/documents.md, D-13 to D-15).

use crate::id::{BundlesRoot, ProofHash as Hash, context, derive};
use crate::limits::MAX_BUNDLES;
use std::collections::BTreeMap;

/// A proof does not fit its leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof has another number of hashes than its leaves need, or names leaves that are not there")]
pub struct ProofError;

/// The hash of an encoded leaf.
pub fn leaf_hash(encoded: &[u8]) -> Hash {
    Hash::from_bytes(derive(context::BUNDLE_LEAF, &[encoded]))
}

fn inner_hash(left: &Hash, right: &Hash) -> Hash {
    Hash::from_bytes(derive(context::BUNDLE_INNER, &[left.as_bytes(), right.as_bytes()]))
}

/// Length of the left part of a range of at least two leaves.
fn split(length: u64) -> u64 {
    length.next_power_of_two() / 2
}

/// The root over leaf hashes; of none it is the hash of nothing.
pub fn root(leaves: &[Hash]) -> BundlesRoot {
    BundlesRoot::from_bytes(*subtree(leaves).as_bytes())
}

fn subtree(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => leaf_hash(&[]),
        [only] => *only,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
            inner_hash(&subtree(left), &subtree(right))
        }
    }
}

/// The hashes that, with the leaves at `indices` (ascending), give the root:
/// those of the subtrees that hold none of them, from left to right.
pub fn prove(leaves: &[Hash], indices: &[u64]) -> Vec<Hash> {
    let mut siblings = Vec::new();
    collect(leaves, 0, indices, &mut siblings);
    siblings
}

fn within(indices: &[u64], start: u64, length: u64) -> &[u64] {
    let from = indices.partition_point(|index| *index < start);
    let to = indices.partition_point(|index| *index < start.saturating_add(length));
    indices.get(from..to).unwrap_or_default()
}

fn collect(leaves: &[Hash], start: u64, indices: &[u64], siblings: &mut Vec<Hash>) {
    let indices = within(indices, start, leaves.len() as u64);
    if indices.is_empty() {
        siblings.push(subtree(leaves));
    } else if leaves.len() > 1 {
        let left = split(leaves.len() as u64);
        let (before, after) = leaves.split_at(left as usize);
        collect(before, start, indices, siblings);
        collect(after, start + left, indices, siblings);
    }
}

/// The root that known leaves, by index, and a proof give for a tree of `count` leaves.
pub fn root_from_proof(
    count: u64,
    leaves: &BTreeMap<u64, Hash>,
    siblings: &[Hash],
) -> Result<BundlesRoot, ProofError> {
    walk(count, leaves, siblings, &mut |_, _| {})
}

fn walk(
    count: u64,
    leaves: &BTreeMap<u64, Hash>,
    siblings: &[Hash],
    seen: &mut impl FnMut(Range, Hash),
) -> Result<BundlesRoot, ProofError> {
    let in_range = leaves.last_key_value().is_some_and(|(last, _)| *last < count);
    if !in_range || count > MAX_BUNDLES as u64 {
        return Err(ProofError);
    }
    let mut rest = siblings.iter();
    let root = fold((0, count), leaves, &mut rest, seen)?;
    if rest.len() == 0 { Ok(BundlesRoot::from_bytes(*root.as_bytes())) } else { Err(ProofError) }
}

/// The first leaf of a subtree, and how many it has.
type Range = (u64, u64);

fn fold(
    (start, length): Range,
    leaves: &BTreeMap<u64, Hash>,
    siblings: &mut core::slice::Iter<'_, Hash>,
    seen: &mut impl FnMut(Range, Hash),
) -> Result<Hash, ProofError> {
    let hash = match leaves.range(start..start + length).next() {
        None => *siblings.next().ok_or(ProofError)?,
        Some((_, leaf)) if length == 1 => *leaf,
        Some(_) => {
            let left = split(length);
            let before = fold((start, left), leaves, siblings, seen)?;
            let after = fold((start + left, length - left), leaves, siblings, seen)?;
            inner_hash(&before, &after)
        }
    };
    seen((start, length), hash);
    Ok(hash)
}

/// A part of the tree: what some leaves and their proof tell of it. Each of
/// those leaves, and any set of them, can be proved from it (specs/documents.md, D-15a).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialTree {
    count: u64,
    /// The hash of each subtree that holds a known leaf, or whose sibling does.
    hashes: BTreeMap<Range, Hash>,
}

impl PartialTree {
    /// What leaves, by index, and their proof tell of a tree of `count` leaves.
    pub fn new(count: u64, leaves: &BTreeMap<u64, Hash>, siblings: &[Hash]) -> Result<Self, ProofError> {
        let mut hashes = BTreeMap::new();
        walk(count, leaves, siblings, &mut |range, hash| {
            hashes.insert(range, hash);
        })?;
        Ok(Self { count, hashes })
    }

    /// The proof of the leaves at `indices` (ascending), which are all known here.
    pub fn prove(&self, indices: &[u64]) -> Result<Vec<Hash>, ProofError> {
        let mut siblings = Vec::new();
        self.collect((0, self.count), indices, &mut siblings)?;
        Ok(siblings)
    }

    fn collect(
        &self,
        (start, length): Range,
        indices: &[u64],
        siblings: &mut Vec<Hash>,
    ) -> Result<(), ProofError> {
        let indices = within(indices, start, length);
        if indices.is_empty() {
            siblings.push(*self.hashes.get(&(start, length)).ok_or(ProofError)?);
        } else if length > 1 {
            let left = split(length);
            self.collect((start, left), indices, siblings)?;
            self.collect((start + left, length - left), indices, siblings)?;
        }
        Ok(())
    }

    /// Adds what another part of the same tree tells.
    pub fn join(&mut self, other: &Self) -> Result<(), ProofError> {
        let root = |tree: &Self| tree.hashes.get(&(0, tree.count)).copied();
        if self.count != other.count || root(self) != root(other) {
            return Err(ProofError);
        }
        self.hashes.extend(&other.hashes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_set_of_leaves_proves_itself(count in 1usize..70, chosen in proptest::collection::btree_set(0u64..70, 1..9), flip in 0usize..40) {
            let leaves: Vec<Hash> = (0..count).map(|n| leaf_hash(&[n as u8])).collect();
            let chosen: Vec<u64> = chosen.into_iter().filter(|n| *n < count as u64).collect();
            prop_assume!(!chosen.is_empty());
            let proof = prove(&leaves, &chosen);
            let known: BTreeMap<_, _> = chosen.iter().map(|n| (*n, leaves[*n as usize])).collect();
            prop_assert_eq!(root_from_proof(count as u64, &known, &proof), Ok(root(&leaves)));
            let mut bad = proof.clone();
            match bad.get_mut(flip) {
                Some(hash) => {
                    *hash = leaf_hash(hash.as_bytes());
                    prop_assert_ne!(root_from_proof(count as u64, &known, &bad), Ok(root(&leaves)));
                }
                None => {
                    bad.push(leaf_hash(&[]));
                    prop_assert_eq!(root_from_proof(count as u64, &known, &bad), Err(ProofError));
                }
            }
            prop_assert_eq!(root_from_proof(chosen[chosen.len() - 1], &known, &proof), Err(ProofError));
        }

        #[test]
        fn d_15a_a_part_of_the_tree_proves_each_part_of_itself_and_two_parts_join(
            count in 1usize..70,
            one in proptest::collection::btree_set(0u64..70, 1..9),
            two in proptest::collection::btree_set(0u64..70, 1..9),
            chosen in proptest::collection::btree_set(0u64..70, 0..9),
        ) {
            let leaves: Vec<Hash> = (0..count).map(|n| leaf_hash(&[n as u8])).collect();
            let part = |indices: &std::collections::BTreeSet<u64>| {
                let indices: Vec<u64> = indices.iter().copied().filter(|n| *n < count as u64).collect();
                let known = indices.iter().map(|n| (*n, leaves[*n as usize])).collect();
                (PartialTree::new(count as u64, &known, &prove(&leaves, &indices)).unwrap(), indices)
            };
            prop_assume!(one.first() < Some(&(count as u64)) && two.first() < Some(&(count as u64)));
            let (mut tree, mut known) = part(&one);
            let (other, more) = part(&two);
            for (tree, known) in [(&tree, &known), (&other, &more)] {
                let chosen: Vec<u64> = known.iter().copied().filter(|n| chosen.contains(n)).collect();
                prop_assert_eq!(tree.prove(&chosen), Ok(prove(&leaves, &chosen)));
            }
            tree.join(&other).unwrap();
            known.extend(more);
            known.sort_unstable();
            known.dedup();
            prop_assert_eq!(tree.prove(&known), Ok(prove(&leaves, &known)));
            let mut others = leaves.clone();
            others[0] = leaf_hash(b"another");
            let first = BTreeMap::from([(0, others[0])]);
            let another = PartialTree::new(count as u64, &first, &prove(&others, &[0])).unwrap();
            prop_assert_eq!(tree.join(&another), Err(ProofError));
        }
    }
}
