//! One ballot of a proposer: counting promises and accepts of distinct voters.

use std::collections::{BTreeMap, BTreeSet};

use super::{Accepted, Config};
use crate::hlc::Ballot;
use crate::id::PeerId;

/// What a quorum of promises says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promised {
    /// The record with the highest accepted ballot.
    pub current: Option<Accepted>,
    /// Whether all promises carried the same ballot, or all none: then the record is known to be chosen.
    pub unanimous: bool,
    /// The highest collection floor among the answers (R5).
    pub collected: Ballot,
}

/// One ballot of a proposer. Belongs to one epoch for both phases (R8).
#[derive(Debug, Clone)]
pub struct Attempt {
    config: Config,
    ballot: Ballot,
    promises: BTreeMap<PeerId, (Option<Accepted>, Ballot)>,
    accepts: BTreeSet<PeerId>,
    refusals: BTreeSet<PeerId>,
    highest: Ballot,
}

impl Attempt {
    /// A new ballot among the voters of this configuration. The ballot must never have been used (R3).
    pub fn new(config: Config, ballot: Ballot) -> Self {
        Self {
            config,
            ballot,
            promises: BTreeMap::new(),
            accepts: BTreeSet::new(),
            refusals: BTreeSet::new(),
            highest: ballot,
        }
    }

    /// Its ballot.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// The configuration it counts by.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The highest ballot any refusal named; the next attempt goes above it.
    pub fn highest(&self) -> Ballot {
        self.highest
    }

    /// Counts a promise; the same voter counts once. Answers once a quorum has promised, and only then.
    pub fn on_promise(&mut self, voter: PeerId, accepted: Option<Accepted>, collected: Ballot) -> Option<Promised> {
        if self.config.is_voter(&voter) {
            self.promises.entry(voter).or_insert((accepted, collected));
        }
        let promised: BTreeSet<PeerId> = self.promises.keys().copied().collect();
        if !self.config.is_quorum(&promised) {
            return None;
        }
        let ballot_of = |accepted: &Option<Accepted>| accepted.as_ref().map(|accepted| accepted.ballot);
        let newest = self.promises.values().map(|(accepted, _)| accepted).max_by_key(|accepted| ballot_of(accepted));
        let current = newest.cloned().flatten();
        Some(Promised {
            unanimous: self.promises.values().all(|(accepted, _)| ballot_of(accepted) == ballot_of(&current)),
            collected: self.promises.values().map(|(_, floor)| *floor).max().unwrap_or(Ballot::ZERO),
            current,
        })
    }

    /// Counts an accept; answers whether a quorum has accepted: the record is chosen.
    pub fn on_accept(&mut self, voter: PeerId) -> bool {
        if self.config.is_voter(&voter) {
            self.accepts.insert(voter);
        }
        self.config.is_quorum(&self.accepts)
    }

    /// Counts a refusal; answers whether a quorum is out of reach for this ballot.
    pub fn on_refusal(&mut self, voter: PeerId, highest: Ballot) -> bool {
        self.highest = self.highest.max(highest);
        self.on_silence(voter)
    }

    /// Counts a voter that will not answer; answers whether a quorum is out of reach for this ballot.
    pub fn on_silence(&mut self, voter: PeerId) -> bool {
        self.refusals.insert(voter);
        let hopeful: BTreeSet<PeerId> =
            self.config.electorate().into_iter().filter(|peer| !self.refusals.contains(peer)).collect();
        !self.config.is_quorum(&hopeful)
    }

    /// How many more promises a quorum needs.
    pub fn missing_promises(&self) -> usize {
        self.config.missing(&self.promises.keys().copied().collect())
    }
}
