//! One metadata key as a leaderless consensus register: CASPaxos (Rystsov, arXiv 1802.07000) with the rules
//! of `docs/ledger.md`, cited here as `R1`…`R8`.
//!
//! Three pieces, none of which does I/O:
//! - [`Slot`] is what a voter knows of one key; [`Slot::prepare`] and [`Slot::accept`] say what it may answer.
//!   The shell makes an accept durable before it answers (R2).
//! - [`Attempt`] is one ballot of a proposer: it counts promises and accepts of distinct voters.
//! - [`Change`] is one client mutation over as many attempts as it takes: it recognises itself (R5).
//!
//! What is absent: no leader, no log, no term. Two keys never share anything but the configuration.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::hlc::{Ballot, Stamp};
use crate::id::{PeerId, RequestId};
use crate::record::{DecodeError, Stored};

#[cfg(test)]
mod tests;

/// A record's history lists no more writes than this (R5); each costs about 30 bytes.
pub const HISTORY_WRITES: usize = 8;
/// Writes older than this leave the history when the next one comes: no retry lives that long.
pub const HISTORY_MILLIS: u64 = 60_000;

/// The voters of one epoch; in a joint phase also those of the epoch before (R8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Rises by one with every change. Every ledger message carries it; other ones are refused.
    pub epoch: u64,
    /// Who votes.
    pub voters: BTreeSet<PeerId>,
    /// In a joint phase, the voters before the change: a quorum then needs a majority of both.
    pub outgoing: Option<BTreeSet<PeerId>>,
}

impl Stored for Config {
    const VERSION: u8 = 1;
    const KIND: &'static str = "voter configuration";
}

/// Whether `acks` holds more than half of `voters`.
fn is_majority(voters: &BTreeSet<PeerId>, acks: &BTreeSet<PeerId>) -> bool {
    voters.intersection(acks).count() * 2 > voters.len()
}

impl Config {
    /// The first configuration of a pool: its creator alone.
    pub fn genesis(creator: PeerId) -> Self {
        Self { epoch: 1, voters: BTreeSet::from([creator]), outgoing: None }
    }

    /// Everyone whose vote may count.
    pub fn electorate(&self) -> BTreeSet<PeerId> {
        self.voters.iter().chain(self.outgoing.iter().flatten()).copied().collect()
    }

    /// Whether this peer's vote may count.
    pub fn is_voter(&self, peer: &PeerId) -> bool {
        self.voters.contains(peer) || self.outgoing.as_ref().is_some_and(|old| old.contains(peer))
    }

    /// Whether these peers form a quorum: a majority of the voters, and in a joint phase also of the old ones.
    pub fn is_quorum(&self, acks: &BTreeSet<PeerId>) -> bool {
        is_majority(&self.voters, acks) && self.outgoing.as_ref().is_none_or(|old| is_majority(old, acks))
    }

    /// How many more voters would have to answer for a quorum, at least.
    pub fn missing(&self, acks: &BTreeSet<PeerId>) -> usize {
        let short =
            |voters: &BTreeSet<PeerId>| (voters.len() / 2 + 1).saturating_sub(voters.intersection(acks).count());
        short(&self.voters).max(self.outgoing.as_ref().map_or(0, short))
    }

    /// R8 (1): the joint configuration on the way to `voters`, which differ from today's by one member.
    /// `None` when a change is under way already or `voters` is not one member away.
    pub fn begin_change(&self, voters: BTreeSet<PeerId>) -> Option<Self> {
        let one_apart = self.voters.symmetric_difference(&voters).count() == 1;
        (self.outgoing.is_none() && one_apart && !voters.is_empty()).then(|| Self {
            epoch: self.epoch + 1,
            voters,
            outgoing: Some(self.voters.clone()),
        })
    }

    /// R8 (6): the configuration that ends a joint phase.
    pub fn finish_change(&self) -> Option<Self> {
        self.outgoing.is_some().then(|| Self { epoch: self.epoch + 1, voters: self.voters.clone(), outgoing: None })
    }
}

/// The state of one register: what was written, and by which request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The ballot of the original write; re-accepting never changes it (R1).
    pub version: Ballot,
    /// The value, or `None` for a tombstone.
    pub value: Option<Bytes>,
    /// Who wrote this and its recent ancestors (R5).
    pub history: History,
}

impl Record {
    /// The record that `request` writes over `current` at `ballot`.
    pub fn write(current: Option<&Self>, request: RequestId, ballot: Ballot, value: Option<Bytes>) -> Self {
        let history = current.map_or_else(History::default, |record| record.history.clone());
        Self { version: ballot, value, history: history.with(request, ballot) }
    }
}

/// The request ids of a record and its recent ancestors, newest last (R5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// Each write's request and version.
    pub writes: Vec<(RequestId, Ballot)>,
    /// The newest version that was dropped from the list: nothing is known of requests at or below it.
    pub truncated: Ballot,
}

impl History {
    /// This history with one more write, within its bounds.
    fn with(mut self, request: RequestId, ballot: Ballot) -> Self {
        let oldest = Stamp::from_millis(ballot.stamp.millis().saturating_sub(HISTORY_MILLIS));
        let expired = self.writes.iter().take_while(|(_, version)| version.stamp < oldest).count();
        let surplus = (self.writes.len() + 1).saturating_sub(HISTORY_WRITES);
        for (_, version) in self.writes.drain(..expired.max(surplus)) {
            self.truncated = self.truncated.max(version);
        }
        self.writes.push((request, ballot));
        self
    }

    /// The version this request wrote, if it is among the listed ones.
    pub fn find(&self, request: RequestId) -> Option<Ballot> {
        self.writes.iter().rev().find(|(id, _)| *id == request).map(|(_, version)| *version)
    }
}

/// What a voter has accepted for a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The ballot it was last accepted at.
    pub ballot: Ballot,
    /// The record.
    pub record: Record,
}

impl Stored for Accepted {
    const VERSION: u8 = 1;
    const KIND: &'static str = "accepted record";
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
    fn highest(&self) -> Ballot {
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
        let free =
            ballot >= self.promised && ballot >= accepted && ballot.stamp > self.floor && ballot > self.collected;
        if !free {
            return Err(Refused { highest: self.highest() });
        }
        self.promised = ballot;
        Ok(self.accepted.insert(Accepted { ballot, record }))
    }
}

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

/// One mutation of one client request, over all its attempts (R4, R5).
#[derive(Debug, Clone)]
pub struct Change {
    request: RequestId,
    first_accept: Option<Ballot>,
}

/// What a mutation may do about the record a quorum showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Decide on it: no earlier attempt of this mutation has taken effect, nor ever will.
    Decide,
    /// An earlier attempt took effect and wrote this version. Report success, after a re-accept of the
    /// current record unless the quorum was unanimous.
    Done(Ballot),
    /// Whether an earlier attempt took effect can no longer be told (R4): report just that.
    Unknown,
}

impl Change {
    /// A mutation not yet attempted.
    pub fn new(request: RequestId) -> Self {
        Self { request, first_accept: None }
    }

    /// Its request id.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// Whether any accept of it was ever sent: from then on, silence means unknown (R4).
    pub fn may_have_taken_effect(&self) -> bool {
        self.first_accept.is_some()
    }

    /// To be called before the first accept of an attempt goes out.
    pub fn sending_accept(&mut self, ballot: Ballot) {
        self.first_accept.get_or_insert(ballot);
    }

    /// R5, on what a quorum of promises showed.
    pub fn judge(&self, promised: &Promised) -> Verdict {
        let Some(first) = self.first_accept else { return Verdict::Decide };
        let history = promised.current.as_ref().map(|accepted| &accepted.record.history);
        if let Some(version) = history.and_then(|history| history.find(self.request)) {
            return Verdict::Done(version);
        }
        let reaches_back = history.is_none_or(|history| history.truncated < first);
        if promised.collected >= first || !reaches_back { Verdict::Unknown } else { Verdict::Decide }
    }

    /// R5: whether a decision not to write may be reported as it is, or the current record must first be
    /// re-accepted by a quorum at the new ballot.
    pub fn may_refuse_at_once(&self, promised: &Promised) -> bool {
        promised.unanimous && self.first_accept.is_none()
    }
}

/// The first fields of a stored [`Accepted`], read without copying the value: what a page needs.
#[derive(Deserialize)]
struct Head<'a> {
    ballot: Ballot,
    #[expect(dead_code, reason = "stands between the fields that are read")]
    version: Ballot,
    #[serde(borrow)]
    value: Option<&'a [u8]>,
}

impl Accepted {
    /// Ballot and liveness of stored bytes, cheaper than decoding them whole.
    pub fn head(bytes: &[u8]) -> Result<(Ballot, bool), DecodeError> {
        let malformed = |detail: String| DecodeError::Malformed { kind: Self::KIND, detail };
        match bytes.split_first() {
            None => Err(DecodeError::Empty),
            Some((&version, rest)) if version == Self::VERSION => postcard::take_from_bytes::<Head<'_>>(rest)
                .map(|(head, _)| (head.ballot, head.value.is_some()))
                .map_err(|error| malformed(error.to_string())),
            Some((&version, _)) => Err(DecodeError::UnknownVersion { kind: Self::KIND, version }),
        }
    }
}
