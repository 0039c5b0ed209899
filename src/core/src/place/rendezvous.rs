//! Weighted rendezvous hashing over domains.
//!
//! Each candidate draws a number u in (0, 1) from a hash of segment and peer, and scores
//! `weight / -ln(u)`; the highest scores win (the logarithmic method of Schindelhauer and Schomaker,
//! "Weighted distributed hash tables", SPAA'05). A peer wins in proportion to its weight, and a peer that
//! comes or goes moves only the segments it wins or held.
//!
//! Floating-point logarithms differ between platforms in the last digit, and one digit is enough for two
//! peers to disagree. So the logarithm is computed in integers (base 2: a constant factor changes no
//! order) and scores are compared as exact fractions.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::Candidate;
use crate::id::{PeerId, SegmentId};

/// Keeps these hashes apart from any other BLAKE3 of the same ids. With a segment and a peer id it fills
/// one 64-byte block.
const CONTEXT: &[u8; 16] = b"palm placement 1";
/// Binary digits of a logarithm after the point.
const FRACTION_BITS: u32 = 40;

/// A candidate and its score `weight / cost`.
struct Scored<'a> {
    candidate: &'a Candidate,
    cost: u64,
}

impl Scored<'_> {
    /// Best first. Products of two 64-bit numbers fit 128 bits, so this is exact; ties go by peer id.
    fn compare(&self, other: &Self) -> Ordering {
        let mine = u128::from(self.candidate.free.max(1)) * u128::from(other.cost);
        let others = u128::from(other.candidate.free.max(1)) * u128::from(self.cost);
        others.cmp(&mine).then_with(|| self.candidate.peer.cmp(&other.candidate.peer))
    }
}

/// The candidates (each peer once) in the order in which they are asked to keep fragments of `segment`:
/// first the best of each room, best room first, then the second of each, and so on; and within a room the best of
/// each of its hosts before the second of any. One that has disks in several rooms counts in all of them.
pub fn order(segment: SegmentId, candidates: &[Candidate]) -> Vec<&Candidate> {
    let mut scored: Vec<Scored<'_>> =
        candidates.iter().map(|candidate| Scored { candidate, cost: cost(draw(segment, candidate.peer)) }).collect();
    scored.sort_unstable_by(Scored::compare);
    let by_score = scored.into_iter().map(|scored| scored.candidate).collect();
    take_turns(take_turns(by_score, |candidate| candidate.hosts().collect()), |candidate| candidate.rooms().collect())
}

/// In rounds: each goes, in the order they have, into the first round where nobody shares a domain with it. Those without one
/// are never behind another.
fn take_turns<'a>(ordered: Vec<&'a Candidate>, domains: impl Fn(&'a Candidate) -> Vec<&'a str>) -> Vec<&'a Candidate> {
    let mut rounds: Vec<(BTreeSet<&str>, Vec<&Candidate>)> = Vec::new();
    for candidate in ordered {
        let domains = domains(candidate);
        let is_open = |(taken, _): &(BTreeSet<&str>, _)| domains.iter().all(|domain| !taken.contains(domain));
        let round = rounds.iter().position(is_open).unwrap_or_else(|| {
            rounds.push(Default::default());
            rounds.len() - 1
        });
        rounds[round].0.extend(domains);
        rounds[round].1.push(candidate);
    }
    rounds.into_iter().flat_map(|(_, candidates)| candidates).collect()
}

/// The peer that draws most for a segment, whatever its weight.
pub(crate) fn first(segment: SegmentId, peers: impl Iterator<Item = PeerId>) -> Option<PeerId> {
    peers.max_by_key(|&peer| (draw(segment, peer), peer))
}

/// 64 uniform bits for this pair.
fn draw(segment: SegmentId, peer: PeerId) -> u64 {
    let mut block = [0; 64];
    block[..16].copy_from_slice(CONTEXT);
    block[16..32].copy_from_slice(segment.as_bytes());
    block[32..].copy_from_slice(peer.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(&block).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// `-log2(draw / 2^64)` in units of `2^-FRACTION_BITS`, rounded up; at least 1.
///
/// The integer part is the number of leading zeros. The digits after the point come one at a time:
/// squaring a number in [1, 2) doubles its logarithm, and where the square reaches 2 the digit is 1.
pub(super) fn cost(draw: u64) -> u64 {
    let draw = draw.max(1);
    let zeros = draw.leading_zeros();
    // In [1, 2) with 63 bits after the point.
    let mut mantissa = draw << zeros;
    let mut fraction = 0;
    for _ in 0..FRACTION_BITS {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let digit = (square >> 64) as u64;
        mantissa = (square >> digit) as u64;
        fraction = fraction << 1 | digit;
    }
    (u64::from(zeros + 1) << FRACTION_BITS) - fraction
}
