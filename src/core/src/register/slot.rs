//! The acceptor: what a voter may answer about one key (R2, R3), and when it may forget one (R7).

use std::collections::HashMap;

use bytes::Bytes;

use super::{Accepted, Record};
use crate::hlc::{Ballot, Stamp};

/// Collection floors are kept for this many ranges of key hashes, so that they stay few however many keys were ever
/// collected (R7). A key in the range of another's floor loses nothing but ballots that are older than that.
pub const FLOOR_RANGES: usize = 1_024;
/// Promises kept one by one in a [`Promises`]; beyond, the older half is forgotten and its highest ballot stands for it.
const MAX_PROMISES: usize = 64;
/// How far ahead of the ballots the durable clock ceiling is set (R3).
const CEILING_STEP_MILLIS: u64 = 2_000;

/// Which of the [`FLOOR_RANGES`] holds the collection floor of a key. Stored floors depend on it: it never changes.
pub fn floor_range(key: &[u8]) -> usize {
    let hash = blake3::hash(key);
    usize::from(u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]])) % FLOOR_RANGES
}

/// R3: where the durable ceiling goes to cover a stamp, ahead of it so that most ballots need no write.
pub fn ceiling_above(stamp: Stamp) -> Stamp {
    Stamp::from_millis(stamp.millis() + CEILING_STEP_MILLIS)
}

/// What one lock's share of the keys has been promised in this life of the voter. Not durable: the floor of the clock
/// ceiling stands for them after a restart (R3).
#[derive(Debug, Clone, Default)]
pub struct Promises {
    promised: HashMap<Bytes, Ballot>,
    /// The highest promise forgotten: stands for all keys that have none here.
    forgotten: Ballot,
}

impl Promises {
    /// The highest ballot promised for a key, or one at least as high.
    pub fn of(&self, key: &Bytes) -> Ballot {
        self.promised.get(key).copied().unwrap_or(self.forgotten)
    }

    /// Notes a promise.
    pub fn promise(&mut self, key: Bytes, ballot: Ballot) {
        self.promised.insert(key, ballot);
        if self.promised.len() > MAX_PROMISES {
            let mut ballots: Vec<Ballot> = self.promised.values().copied().collect();
            ballots.sort_unstable();
            let median = ballots[ballots.len() / 2];
            self.promised.retain(|_, ballot| *ballot > median);
            self.forgotten = self.forgotten.max(median);
        }
    }

    /// Drops the promise of a key whose accepted ballot, durable now, stands for it.
    pub fn fulfilled(&mut self, key: &Bytes) {
        self.promised.remove(key);
    }
}

/// What a voter's answers to one key depend on, besides the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The highest ballot promised in this life of the voter. Not durable: `floor` stands in for it after
    /// a restart (R3).
    pub promised: Ballot,
    /// What was accepted; durable.
    pub accepted: Option<Accepted>,
    /// The clock ceiling at the voter's last restart: no ballot up to it is taken (R3).
    pub floor: Stamp,
    /// The durable collection floor of this key (R7).
    pub collected: Ballot,
}

/// A refusal, with the highest ballot that stands in the way, for the proposer to go above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("refused: {highest:?} is in the way")]
pub struct Refused {
    /// The highest ballot seen.
    pub highest: Ballot,
}

impl Slot {
    /// The highest ballot this voter took for the key.
    pub(super) fn highest(&self) -> Ballot {
        let accepted = self.accepted.as_ref().map_or(Ballot::ZERO, |accepted| accepted.ballot);
        let floor = Ballot { stamp: self.floor, ..Ballot::ZERO };
        self.promised.max(accepted).max(floor).max(self.collected)
    }

    /// Phase 1. On `Ok` the voter has promised and answers with what it accepted before.
    ///
    /// Strictly above everything: two proposers can never hold the same promise.
    pub fn prepare(&mut self, ballot: Ballot) -> Result<Option<&Accepted>, Refused> {
        let accepted = self.accepted.as_ref().map_or(Ballot::ZERO, |accepted| accepted.ballot);
        let free = ballot > self.promised && ballot > accepted && ballot.stamp > self.floor && ballot > self.collected;
        if !free {
            return Err(Refused { highest: self.highest() });
        }
        self.promised = ballot;
        Ok(self.accepted.as_ref())
    }

    /// Phase 2. On `Ok` the voter must make the new state durable before it answers or shows it (R2).
    ///
    /// `accepted` is checked beside `promised` because promises do not survive a restart (R2).
    pub fn accept(&mut self, ballot: Ballot, record: Record) -> Result<&Accepted, Refused> {
        let accepted = self.accepted.as_ref().map_or(Ballot::ZERO, |accepted| accepted.ballot);
        let in_order = ballot >= accepted || planted!(AcceptChecksPromiseOnly);
        let free = ballot >= self.promised && in_order && ballot.stamp > self.floor && ballot > self.collected;
        if !free {
            return Err(Refused { highest: self.highest() });
        }
        self.promised = ballot;
        Ok(self.accepted.insert(Accepted { ballot, record }))
    }

    /// R7: whether this voter's accepted ballot is at least that of the tombstone: what all must confirm, durably,
    /// before any may forget it.
    pub fn holds(&self, tombstone: Ballot) -> bool {
        self.accepted.as_ref().is_some_and(|accepted| accepted.ballot >= tombstone)
    }

    /// R7: forgets a tombstone that all voters hold, if this one holds exactly it. Answers the collection floor that
    /// must become durable in the same batch as the removal: without it, a late accept would bring the deleted back.
    pub fn collect(&self, tombstone: Ballot) -> Option<Ballot> {
        let exactly = |accepted: &Accepted| accepted.ballot == tombstone && accepted.record.value.is_none();
        self.accepted.as_ref().is_some_and(exactly).then(|| self.collected.max(tombstone).max(self.promised))
    }
}
