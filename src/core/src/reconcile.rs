//! Finding where two replicas differ, at a cost that follows the difference: range-based set reconciliation
//! (Meyer, arXiv 2212.13567) over (key, ballot) pairs.
//!
//! The asker sends the fingerprint of a range. Equal: done. Otherwise the answerer cuts its range into
//! [`BRANCHES`] parts of equal count and sends their fingerprints, or, when few keys are left, the keys
//! themselves. Rounds grow with the logarithm of the size, bytes with the number of differences.

use bytes::Bytes;

use crate::hlc::Ballot;

/// A differing range is cut into this many parts.
pub const BRANCHES: usize = 16;
/// A differing range of at most this many keys is sent whole.
pub const LEAF_KEYS: usize = 128;

/// A multiset hash of (key, ballot) pairs: the sum of their BLAKE3 hashes as four wrapping 64-bit lanes, and
/// their count. Sums can be kept up to date by one addition and one subtraction per change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint {
    count: u64,
    lanes: [u64; 4],
}

impl Fingerprint {
    fn lanes_of(key: &[u8], ballot: Ballot) -> [u64; 4] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&ballot.stamp.0.to_le_bytes());
        hasher.update(&ballot.peer.to_le_bytes());
        hasher.update(&ballot.nonce.to_le_bytes());
        hasher.update(key);
        let hash = *hasher.finalize().as_bytes();
        let lane = |at: usize| hash[at * 8..][..8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        [lane(0), lane(1), lane(2), lane(3)]
    }

    /// Adds a pair.
    pub fn add(&mut self, key: &[u8], ballot: Ballot) {
        self.count = self.count.wrapping_add(1);
        for (sum, lane) in self.lanes.iter_mut().zip(Self::lanes_of(key, ballot)) {
            *sum = sum.wrapping_add(lane);
        }
    }

    /// Takes a pair away that was added before.
    pub fn remove(&mut self, key: &[u8], ballot: Ballot) {
        self.count = self.count.wrapping_sub(1);
        for (sum, lane) in self.lanes.iter_mut().zip(Self::lanes_of(key, ballot)) {
            *sum = sum.wrapping_sub(lane);
        }
    }

    /// The fingerprint of some pairs.
    pub fn of(pairs: &[(Bytes, Ballot)]) -> Self {
        let mut sum = Self::default();
        for (key, ballot) in pairs {
            sum.add(key, *ballot);
        }
        sum
    }

    /// How it is sent: BLAKE3 of count and lanes.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.count.to_le_bytes());
        for lane in self.lanes {
            hasher.update(&lane.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// What the answerer says of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Same here.
    Same,
    /// Parts of the range, each with its first key (the first part starts where the range does) and digest.
    Parts(Vec<(Bytes, [u8; 32])>),
    /// Everything in the range.
    Pairs(Vec<(Bytes, Ballot)>),
}

/// The answerer's side: `pairs` are its own in the range that starts at `from`, in key order.
pub fn answer(from: &Bytes, pairs: Vec<(Bytes, Ballot)>, digest: [u8; 32]) -> Answer {
    if Fingerprint::of(&pairs).digest() == digest {
        return Answer::Same;
    }
    if pairs.len() <= LEAF_KEYS {
        return Answer::Pairs(pairs);
    }
    let part = pairs.len().div_ceil(BRANCHES);
    let parts = pairs.chunks(part).enumerate().map(|(index, chunk)| {
        let first = if index == 0 { from.clone() } else { chunk[0].0.clone() };
        (first, Fingerprint::of(chunk).digest())
    });
    Answer::Parts(parts.collect())
}

/// Keys that differ between two small ranges, in key order.
pub fn differing(mine: &[(Bytes, Ballot)], theirs: &[(Bytes, Ballot)]) -> Vec<Bytes> {
    let mut keys = Vec::new();
    let (mut left, mut right) = (mine.iter().peekable(), theirs.iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (None, None) => return keys,
            (Some((key, ballot)), Some((other, theirs))) if key == other => {
                if ballot != theirs {
                    keys.push(key.clone());
                }
                left.next();
                right.next();
            }
            (Some((key, _)), other) if other.is_none_or(|(other, _)| key < other) => {
                keys.push(key.clone());
                left.next();
            }
            (_, Some((key, _))) => {
                keys.push(key.clone());
                right.next();
            }
            (Some(_), None) => unreachable!("covered by the guard above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::hlc::Stamp;

    type Map = BTreeMap<Bytes, Ballot>;

    fn range(map: &Map, from: &Bytes, to: Option<&Bytes>) -> Vec<(Bytes, Ballot)> {
        map.range(from.clone()..)
            .take_while(|(key, _)| to.is_none_or(|to| *key < to))
            .map(|(key, ballot)| (key.clone(), *ballot))
            .collect()
    }

    /// The whole dialogue, counting the ranges looked at.
    fn reconcile(mine: &Map, theirs: &Map, from: &Bytes, to: Option<&Bytes>, looks: &mut usize) -> BTreeSet<Bytes> {
        *looks += 1;
        let own = range(mine, from, to);
        match answer(from, range(theirs, from, to), Fingerprint::of(&own).digest()) {
            Answer::Same => BTreeSet::new(),
            Answer::Pairs(pairs) => differing(&own, &pairs).into_iter().collect(),
            Answer::Parts(parts) => (0..parts.len())
                .flat_map(|at| {
                    let to = parts.get(at + 1).map(|(key, _)| key).or(to);
                    let own = Fingerprint::of(&range(mine, &parts[at].0, to)).digest();
                    if own == parts[at].1 { BTreeSet::new() } else { reconcile(mine, theirs, &parts[at].0, to, looks) }
                })
                .collect(),
        }
    }

    fn map_of(pairs: &BTreeMap<u16, u8>) -> Map {
        let ballot = |time: &u8| Ballot { stamp: Stamp(u64::from(*time)), ..Ballot::ZERO };
        pairs.iter().map(|(key, time)| (Bytes::from(key.to_be_bytes().to_vec()), ballot(time))).collect()
    }

    proptest! {
        /// Whatever two replicas hold, the dialogue finds exactly the keys on which they differ.
        #[test]
        fn finds_exactly_the_difference(
            base in prop::collection::btree_map(any::<u16>(), any::<u8>(), 0..2_000),
            edits in prop::collection::btree_map(any::<u16>(), any::<u8>(), 0..40),
        ) {
            let mut other = base.clone();
            other.extend(edits);
            let (mine, theirs) = (map_of(&base), map_of(&other));
            let expected: BTreeSet<Bytes> = theirs.iter().filter(|(key, ballot)| mine.get(*key) != Some(ballot)).map(|(key, _)| key.clone()).collect();
            prop_assert_eq!(reconcile(&mine, &theirs, &Bytes::new(), None, &mut 0), expected.clone());
            prop_assert_eq!(reconcile(&theirs, &mine, &Bytes::new(), None, &mut 0), expected);
        }
    }

    /// One change among 60,000 keys is found by looking at a few ranges, not at thousands.
    #[test]
    fn cost_follows_the_difference() {
        let base: BTreeMap<u16, u8> = (0..60_000).map(|key| (key, 1)).collect();
        let mut other = base.clone();
        other.insert(31_337, 2);
        let mut looks = 0;
        assert_eq!(reconcile(&map_of(&base), &map_of(&other), &Bytes::new(), None, &mut looks).len(), 1);
        assert!(looks <= 5, "{looks} ranges for one difference");
    }
}
