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
    known: &BTreeMap<u64, Hash>,
    siblings: &[Hash],
) -> Result<BundlesRoot, ProofError> {
    let in_range = known.last_key_value().is_some_and(|(last, _)| *last < count);
    if !in_range || count > MAX_BUNDLES as u64 {
        return Err(ProofError);
    }
    let mut rest = siblings.iter();
    let root = fold(0, count, known, &mut rest)?;
    if rest.len() == 0 { Ok(BundlesRoot::from_bytes(*root.as_bytes())) } else { Err(ProofError) }
}

fn fold(
    start: u64,
    length: u64,
    known: &BTreeMap<u64, Hash>,
    siblings: &mut core::slice::Iter<'_, Hash>,
) -> Result<Hash, ProofError> {
    let Some((_, leaf)) = known.range(start..start + length).next() else {
        return siblings.next().copied().ok_or(ProofError);
    };
    if length == 1 {
        return Ok(*leaf);
    }
    let left = split(length);
    let before = fold(start, left, known, siblings)?;
    let after = fold(start + left, length - left, known, siblings)?;
    Ok(inner_hash(&before, &after))
}

/// The proof of several leaves together, out of the proofs of each alone, by index.
///
/// What comes out proves nothing yet: hashes that contradict each other are found
/// where the root is.
///
/// # Errors
/// When one of the proofs is not of a leaf of a tree of `count` leaves.
pub fn join(count: u64, alone: &BTreeMap<u64, Vec<Hash>>) -> Result<Vec<Hash>, ProofError> {
    let in_range = alone.last_key_value().is_some_and(|(last, _)| *last < count);
    if !in_range || count > MAX_BUNDLES as u64 {
        return Err(ProofError);
    }
    let mut subtrees = BTreeMap::new();
    for (index, proof) in alone {
        let mut rest = proof.iter();
        place(0, count, *index, &mut rest, &mut subtrees)?;
        if rest.len() != 0 {
            return Err(ProofError);
        }
    }
    let mut siblings = Vec::new();
    gather(0, count, alone, &subtrees, &mut siblings)?;
    Ok(siblings)
}

/// Notes the subtree of each hash in the proof of one leaf.
fn place(
    start: u64,
    length: u64,
    index: u64,
    proof: &mut core::slice::Iter<'_, Hash>,
    subtrees: &mut BTreeMap<(u64, u64), Hash>,
) -> Result<(), ProofError> {
    if !(start..start + length).contains(&index) {
        subtrees.insert((start, length), *proof.next().ok_or(ProofError)?);
    } else if length > 1 {
        let left = split(length);
        place(start, left, index, proof, subtrees)?;
        place(start + left, length - left, index, proof, subtrees)?;
    }
    Ok(())
}

/// The hashes of the subtrees that hold none of the leaves, from left to right.
fn gather(
    start: u64,
    length: u64,
    known: &BTreeMap<u64, Vec<Hash>>,
    subtrees: &BTreeMap<(u64, u64), Hash>,
    siblings: &mut Vec<Hash>,
) -> Result<(), ProofError> {
    if known.range(start..start + length).next().is_none() {
        siblings.push(*subtrees.get(&(start, length)).ok_or(ProofError)?);
    } else if length > 1 {
        let left = split(length);
        gather(start, left, known, subtrees, siblings)?;
        gather(start + left, length - left, known, subtrees, siblings)?;
    }
    Ok(())
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
        fn ht_8_proofs_of_single_leaves_join_into_the_proof_of_all(count in 1u64..70, chosen in proptest::collection::btree_set(0u64..70, 1..9)) {
            let leaves: Vec<Hash> = (0..count).map(|n| leaf_hash(&[n as u8])).collect();
            let chosen: Vec<u64> = chosen.into_iter().filter(|n| *n < count).collect();
            prop_assume!(!chosen.is_empty());
            let mut alone: BTreeMap<_, _> = chosen.iter().map(|n| (*n, prove(&leaves, &[*n]))).collect();
            prop_assert_eq!(join(count, &alone), Ok(prove(&leaves, &chosen)));
            alone.entry(chosen[0]).or_default().push(leaves[0]);
            prop_assert_eq!(join(count, &alone), Err(ProofError), "too long");
            alone.insert(count, Vec::new());
            prop_assert_eq!(join(count, &alone), Err(ProofError), "outside");
        }
    }
}
