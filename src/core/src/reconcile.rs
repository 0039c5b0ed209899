//! Finding where two copies differ, at a cost that follows the difference, and saying which records one lacks:
//! range-based set reconciliation (Meyer, arXiv 2212.13567) over (key, ballot) pairs.
//!
//! Each peer keeps a [`Summary`] of its copy in memory: the keys in order, cut into leaves of about
//! [`LEAF_KEYS`], and of each leaf a fingerprint and 8 bytes per pair. Where a leaf ends is decided by the hash
//! of the key it ends at, so two copies cut alike wherever they hold the same keys, and no range is ever read to
//! be compared.
//!
//! | step | asker sends | answerer sends |
//! | --- | --- | --- |
//! | 1 | the fingerprint of everything | "same", or its fingerprints of [`BRANCHES`] parts |
//! | 2, 3, … | the fingerprint of each part that differs | the same, down to leaves |
//! | last | 8 bytes per pair it holds in the differing leaves | the records it lacks |
//!
//! Rounds grow with the logarithm of the size, bytes with the number of differences: one changed key among a
//! million costs some 5 kB, a scattered tenth of them 80 bytes each besides the records.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::hlc::Ballot;
use crate::id::PeerId;
use crate::register::Config;

mod summary;
#[cfg(test)]
mod tests;

pub use summary::{Lacking, Summary, leaves};

/// A differing range is cut into this many parts.
pub const BRANCHES: usize = 16;
/// Keys of a leaf, on average.
pub const LEAF_KEYS: usize = 64;

/// What a (key, ballot) pair is told apart by within a range: the first 8 bytes of its hash. Two pairs of one
/// leaf share it once in 2^52 comparisons of differing leaves, and then only until either is written again.
pub type PairHash = [u8; 8];

/// Whether a leaf begins at this key: so for one key in [`LEAF_KEYS`], whoever holds it.
pub fn is_boundary(key: &[u8]) -> bool {
    usize::from(blake3::hash(key).as_bytes()[0]).is_multiple_of(LEAF_KEYS)
}

/// A multiset hash of (key, ballot) pairs: the sum of their BLAKE3 hashes as four wrapping 64-bit lanes, and
/// their count. Sums can be kept up to date by one addition and one subtraction per change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint {
    count: u64,
    lanes: [u64; 4],
}

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

/// The short hash of a pair.
pub fn pair_hash(key: &[u8], ballot: Ballot) -> PairHash {
    lanes_of(key, ballot)[0].to_le_bytes()
}

impl Fingerprint {
    /// Adds a pair.
    pub fn add(&mut self, key: &[u8], ballot: Ballot) {
        self.add_lanes(1, lanes_of(key, ballot));
    }

    /// Adds all that another counts.
    fn merge(&mut self, other: &Self) {
        self.add_lanes(other.count, other.lanes);
    }

    fn add_lanes(&mut self, count: u64, lanes: [u64; 4]) {
        self.count = self.count.wrapping_add(count);
        for (sum, lane) in self.lanes.iter_mut().zip(lanes) {
            *sum = sum.wrapping_add(lane);
        }
    }

    fn remove_lanes(&mut self, lanes: [u64; 4]) {
        self.count = self.count.wrapping_sub(1);
        for (sum, lane) in self.lanes.iter_mut().zip(lanes) {
            *sum = sum.wrapping_sub(lane);
        }
    }

    /// The fingerprint of some pairs.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a Bytes, &'a Ballot)>) -> Self {
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

/// Part of the keys: from a key (inclusive) to another (exclusive), or to the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range {
    /// Its first possible key.
    pub from: Bytes,
    /// Where it ends.
    pub to: Option<Bytes>,
}

impl Range {
    /// Whether a key is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.from <= key && self.to.as_ref().is_none_or(|to| key < to)
    }
}

/// What the answerer says of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Same here.
    Same,
    /// Its parts, each with its first key (the first part starts where the range does) and digest. A single
    /// part is a leaf: it is not cut further.
    Parts(Vec<(Bytes, [u8; 32])>),
}

/// What the asker does about an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Narrowed {
    /// Parts that differ and are to be compared further, with the asker's digest.
    pub compare: Vec<(Range, [u8; 32])>,
    /// Parts that differ and can be cut no further: their records are to be exchanged.
    pub exchange: Vec<Range>,
}

/// Whether a voter may install a record, accepted at some ballot by each of `holders` (who said so in messages of
/// this epoch), as if the accept of that ballot reached it late. It then still applies every accept rule.
///
/// R6 forbids installing what gossip brings, for it may never have been chosen: a ballot of an earlier epoch, left
/// with a minority, would override what this epoch chose below it. With a majority it cannot: every quorum of this
/// epoch meets the holders (in a joint phase every quorum has a majority of the old voters), so whatever this
/// epoch chooses or has chosen was decided by a proposer that saw this ballot, or is below it at a holder, where it
/// was superseded by the rules. The installing voter itself never counts: it holds nothing yet
/// (`docs/decisions/0007-…`).
pub fn may_install(config: &Config, holders: &BTreeSet<PeerId>) -> bool {
    let voters = config.outgoing.as_ref().unwrap_or(&config.voters);
    voters.intersection(holders).count() * 2 > voters.len()
}
