//! Hybrid logical clock (Kulkarni et al., 2014): stamps that follow real time where clocks agree and
//! causality where they do not.

use serde::{Deserialize, Serialize};

use crate::id::PeerId;

/// Bits of a stamp below the millisecond: a counter, carried into the milliseconds when it runs over.
const COUNTER_BITS: u32 = 16;

/// Milliseconds since the Unix epoch and a 16-bit counter in one number, so that comparing stamps is
/// comparing integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The first stamp of a millisecond.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis << COUNTER_BITS)
    }

    /// The real-time part, milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }
}

/// A ballot of the consensus register, and, as the stamp of the original write, a record's version.
///
/// Ordered by time first; `peer` and `nonce` keep two proposers, and two lives of one proposer, apart
/// (R3: a proposer never reuses a ballot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Ballot {
    /// When, by the proposer's hybrid clock.
    pub stamp: Stamp,
    /// [`PeerId::tag`] of the proposer.
    pub peer: u64,
    /// Drawn at random each time the proposer starts.
    pub nonce: u32,
}

impl Ballot {
    /// Below every real ballot: "nothing promised, nothing accepted".
    pub const ZERO: Self = Self { stamp: Stamp(0), peer: 0, nonce: 0 };
}

/// One peer's clock. Pure: the wall clock is passed in at every call.
#[derive(Debug, Clone)]
pub struct Clock {
    last: Stamp,
    peer: u64,
    nonce: u32,
}

impl Clock {
    /// A clock for this life of `peer`; every stamp it gives is above `floor` (R3).
    pub fn new(peer: &PeerId, nonce: u32, floor: Stamp) -> Self {
        Self { last: floor, peer: peer.tag(), nonce }
    }

    /// The next ballot: above every one given and every stamp observed before.
    pub fn tick(&mut self, now_ms: u64) -> Ballot {
        self.last = Stamp(self.last.0 + 1).max(Stamp::from_millis(now_ms));
        Ballot { stamp: self.last, peer: self.peer, nonce: self.nonce }
    }

    /// Takes note of a stamp seen elsewhere: later ballots are above it, whatever the wall clock says.
    pub fn observe(&mut self, seen: Stamp) {
        self.last = self.last.max(seen);
    }

    /// The highest stamp given or observed.
    pub fn last(&self) -> Stamp {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballots_rise_though_the_wall_clock_falls_back() {
        let mut clock = Clock::new(&PeerId::from_bytes([1; 32]), 9, Stamp::from_millis(500));
        let first = clock.tick(1_000);
        let second = clock.tick(10);
        assert!(second > first);
        clock.observe(Stamp::from_millis(5_000_000));
        assert!(clock.tick(20).stamp.millis() >= 5_000_000);
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut clock = Clock::new(&PeerId::from_bytes([1; 32]), 9, Stamp((7 << 16) | 0xffff));
        assert_eq!(clock.tick(7).stamp, Stamp::from_millis(8));
    }
}
