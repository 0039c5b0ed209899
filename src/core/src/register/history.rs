//! What one register holds: the record, who wrote it and its recent ancestors (R1, R5).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::hlc::{Ballot, Stamp};
use crate::id::RequestId;
use crate::record::{DecodeError, Stored};

/// A record's history lists no more writes than this (R5); each costs about 30 bytes, and only a key that is
/// written all the time has many. Long enough that a proposer that was outrun, and waits its turn, still
/// finds itself: with 8, five proposers of one key were told "unknown" now and then.
pub const HISTORY_WRITES: usize = 64;
/// Writes older than this leave the history when the next one comes: no retry lives that long.
pub const HISTORY_MILLIS: u64 = 60_000;

/// How many writes a record lists. Fewer in some seeds of the simulation, so that lists are cut short.
#[cfg(feature = "sim")]
fn history_writes() -> usize {
    crate::sim::fault::history_writes()
}

#[cfg(not(feature = "sim"))]
const fn history_writes() -> usize {
    HISTORY_WRITES
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
        let forget = value.is_none() && planted!(TombstoneForgetsAncestors);
        let history = current.filter(|_| !forget).map_or_else(History::default, |record| record.history.clone());
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
        let surplus = (self.writes.len() + 1).saturating_sub(history_writes());
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
    /// Ballot and value of stored bytes, cheaper than decoding them whole.
    pub fn head(bytes: &[u8]) -> Result<(Ballot, Option<&[u8]>), DecodeError> {
        let malformed = |detail: String| DecodeError::Malformed { kind: Self::KIND, detail };
        match bytes.split_first() {
            None => Err(DecodeError::Empty),
            Some((&version, rest)) if version == Self::VERSION => postcard::take_from_bytes::<Head<'_>>(rest)
                .map(|(head, _)| (head.ballot, head.value))
                .map_err(|error| malformed(error.to_string())),
            Some((&version, _)) => Err(DecodeError::UnknownVersion { kind: Self::KIND, version }),
        }
    }
}
