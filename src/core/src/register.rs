//! One metadata key as a leaderless consensus register: CASPaxos (Rystsov, arXiv 1802.07000) with the rules
//! of `docs/ledger.md`, cited as `R1`…`R8`.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::hlc::Ballot;
use crate::id::{PeerId, RequestId};
use crate::record::Stored;

/// The voters of one epoch; in a joint phase also those of the epoch before (R8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Rises by one with every change. Every ledger message carries it; older ones are refused.
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

/// The request ids of a record and its recent ancestors, newest last (R5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// Each write's request and version.
    pub writes: Vec<(RequestId, Ballot)>,
    /// The newest version that was dropped from the list: nothing is known of requests at or below it.
    pub truncated: Ballot,
}

/// What a voter has accepted for a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The ballot it was last accepted at.
    pub ballot: Ballot,
    /// The record.
    pub record: Record,
}
