//! How the pool is.

use palm_core::repair::Health;
use serde::{Deserialize, Serialize};

use super::{Status, Waiting};

/// The pool, in figures and in words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatusReport {
    /// Members, voters and policy.
    #[serde(flatten)]
    pub status: Status,
    /// What the living members found counting, added up.
    pub health: Health,
    /// How old the oldest of their counts is, seconds. `None`: some member has not counted yet.
    pub counted_seconds: Option<u64>,
    /// Names of living members that did not tell what they found.
    pub silent: Vec<String>,
    /// Seconds until the repair queues are empty, at the pace of the last minute. `None`: they are, or nothing moves.
    pub repair_eta_seconds: Option<u64>,
    /// Members that are not there.
    pub absent: Vec<Absent>,
    /// Members whose disks have lost or spoilt fragments that are not replaced yet.
    pub damaged: Vec<Damaged>,
    /// Who waits to be let in; missing without a majority of voters.
    pub waiting: Vec<Waiting>,
    /// Members that give their fragments away.
    pub draining: Vec<Draining>,
    /// The words, the most urgent first.
    pub words: Vec<String>,
}

/// A member that gives its fragments away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// What it calls itself.
    pub name: String,
    /// Which.
    pub peer_id: String,
    /// Bytes that it still keeps.
    pub used_bytes: u64,
}

/// A member that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// What it calls itself.
    pub name: String,
    /// Which.
    pub peer_id: String,
    /// For how long the peer that answers has not seen it, seconds.
    pub absent_seconds: u64,
}

/// A member whose disks have lost or spoilt fragments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// What it calls itself.
    pub name: String,
    /// Fragments known to be corrupt or missing there.
    pub fragments: u64,
}
