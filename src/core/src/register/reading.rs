//! Counting the answers of a one-round strong read (`docs/ledger.md`, Reads).

use std::collections::{BTreeMap, BTreeSet};

use super::Config;
use crate::hlc::Ballot;
use crate::id::PeerId;

/// Where a read stands after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A quorum answered this ballot (or all that nothing was accepted): that record is chosen, and nothing newer
    /// was before the read began.
    Agreed(Option<Ballot>),
    /// A quorum answered, and no quorum alike so far: ask everyone; if that does not help, consensus must settle it.
    /// Taking the highest without agreement would not do: it may yet be undone.
    Differ,
    /// Too few have answered.
    TooFew,
}

/// One round of asking voters for the accepted ballot of a key. Belongs to one epoch.
#[derive(Debug, Clone)]
pub struct Reading {
    config: Config,
    answers: BTreeMap<Option<Ballot>, BTreeSet<PeerId>>,
    heard: BTreeSet<PeerId>,
}

impl Reading {
    /// A round among the voters of this configuration.
    pub fn new(config: Config) -> Self {
        Self { config, answers: BTreeMap::new(), heard: BTreeSet::new() }
    }

    /// Counts a voter's answer; the same voter counts once, a stranger never.
    pub fn on_answer(&mut self, voter: PeerId, ballot: Option<Ballot>) -> Heard {
        if self.config.is_voter(&voter) && self.heard.insert(voter) {
            self.answers.entry(ballot).or_default().insert(voter);
        }
        match self.answers.iter().find(|(_, voters)| self.config.is_quorum(voters)) {
            Some((ballot, _)) => Heard::Agreed(*ballot),
            None if self.config.is_quorum(&self.heard) => Heard::Differ,
            None => Heard::TooFew,
        }
    }

    /// Who has answered.
    pub fn heard(&self) -> &BTreeSet<PeerId> {
        &self.heard
    }

    /// How many more answers a quorum needs.
    pub fn missing(&self) -> usize {
        self.config.missing(&self.heard)
    }
}
