//! What is to be done for a segment, and how the objects are: decisions only.
//!
//! A segment's fragments are found in some [`Condition`] each. From that, the policy wanted and the peers that could take
//! fragments, [`plan`] says what to do; [`tolerance`] says how many more peers it survives; and [`owner`] says which
//! peer sees to it: nobody hands out work, every peer knows its own.

use serde::{Deserialize, Serialize};

use crate::id::PeerId;
use crate::place::{Candidate, Policy};
use crate::record::Segment;

/// How a fragment was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Its home lives and holds it.
    Sound,
    /// Its home lives and holds it, and should not: it drains, or holds too much beside others.
    Leaving,
    /// Its home lives and does not hold it, or holds wrong bytes.
    Damaged,
    /// Its home is away for less than the grace, or did not answer: it may be back any moment, and nothing is rebuilt.
    Asleep,
    /// Its home is away for longer than the grace, or is no member any more.
    Gone,
}

impl Condition {
    /// Whether the fragment can be read now.
    pub fn is_there(self) -> bool {
        matches!(self, Self::Sound | Self::Leaving)
    }
}

/// A segment as it was found.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Where it is now: what its record says, or its [`MovedRecord`](crate::record::MovedRecord).
    pub segment: &'a Segment,
    /// Of each of `segment.fragments`, in that order.
    pub conditions: &'a [Condition],
}

/// What to do for a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// It is as it should be, or nothing can make it better now.
    Leave,
    /// Rebuild or copy some fragments; the others stay.
    Mend(Vec<Step>),
    /// Code it anew.
    Recode {
        /// Under this policy.
        policy: Policy,
        /// Home of fragment 0, 1, … n-1.
        homes: Vec<PeerId>,
    },
    /// Fewer than k fragments are there. Nothing to do but to wait for homes to come back.
    Unreadable,
}

/// One fragment to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Which of the n.
    pub index: u8,
    /// At which home; where it is the one that had it, the fragment is replaced in place.
    pub to: PeerId,
    /// From where it is copied as it is; `None`: rebuilt from k others.
    pub from: Option<PeerId>,
}

/// What to do for a segment that was found so.
///
/// `wanted` is the policy a write would get now; `may_recode` whether the pool has been as it is for long enough to code
/// old segments anew. `candidates` are the living peers that take fragments. `need_bytes` is the length of a
/// fragment under a policy.
pub fn plan(
    found: Found<'_>,
    wanted: Policy,
    may_recode: bool,
    candidates: &[Candidate],
    need_bytes: impl Fn(Policy) -> u64,
) -> Plan {
    let _ = (found, wanted, may_recode, candidates, need_bytes);
    Plan::Leave
}

/// How many more peers may be lost, whichever they are, with k fragments left. `None`: not even now are k there.
pub fn tolerance(found: Found<'_>) -> Option<u8> {
    let _ = found;
    None
}

/// Which peer sees to a segment: the first live home in an order that only depends on the segment, or of all `live` where no
/// home lives. `None` when nobody lives.
pub fn owner(segment: &Segment, live: &[PeerId]) -> Option<PeerId> {
    let _ = (segment, live);
    None
}

/// How well an object is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redundancy {
    /// Too few fragments are in reach to read it.
    Unreadable,
    /// It can be read, and the loss of one more peer may end that.
    None,
    /// It survives a loss, and fewer than the pool means it to.
    Reduced,
    /// As the pool means it to be.
    Full,
}

impl Redundancy {
    /// All of them, the worst first.
    pub const ALL: [Self; 4] = [Self::Unreadable, Self::None, Self::Reduced, Self::Full];

    /// Of a segment, in a pool whose writes now get `wanted` and are spread over `members`.
    pub fn of(found: Found<'_>, wanted: Policy, members: usize) -> Self {
        let _ = (found, wanted, members);
        Self::Full
    }
}

/// Objects and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub objects: u64,
    /// Plaintext bytes.
    pub bytes: u64,
}

/// What one peer knows of the objects it counts and the repairs it does. Those of all live peers add up to the pool's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// When the count ended, milliseconds since the Unix epoch; 0 before the first.
    pub counted_ms: u64,
    /// Objects by redundancy, in the order of [`Redundancy::ALL`].
    pub objects: [Tally; 4],
    /// Segments that should be mended, and are not yet.
    pub segments_to_mend: u64,
    /// Fewest peers that any readable object survives the loss of; 255 when there are none.
    pub can_lose: u8,
    /// Objects of which some one disk holds enough to rebuild them (with the pool key).
    pub exposed: u64,
    /// Segments waiting for repair here.
    pub queued: u64,
    /// Bytes of the fragments they need.
    pub queued_bytes: u64,
    /// Bytes of fragments stored by repairs here in the last minute, a second.
    pub bytes_per_second: u64,
    /// Repairs done since this peer started.
    pub repaired: u64,
    /// Fragments here that are known to be corrupt or missing.
    pub damaged_here: u64,
    /// Fragments checked in this round of scrubbing, and all there are.
    pub scrubbed: (u64, u64),
    /// Bytes in the trash here.
    pub trash_bytes: u64,
    /// What is wrong with this peer's backends, in words.
    pub ills: Vec<String>,
}

impl Health {
    /// Adds another peer's share: a pool's health is the sum of its members'.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.objects.iter_mut().zip(&other.objects) {
            mine.objects += theirs.objects;
            mine.bytes += theirs.bytes;
        }
        // The oldest of the counts is how old the sum is.
        self.counted_ms = self.counted_ms.min(other.counted_ms);
        self.segments_to_mend += other.segments_to_mend;
        self.can_lose = self.can_lose.min(other.can_lose);
        self.exposed += other.exposed;
        self.queued += other.queued;
        self.queued_bytes += other.queued_bytes;
        self.bytes_per_second += other.bytes_per_second;
        self.repaired += other.repaired;
        self.damaged_here += other.damaged_here;
        self.scrubbed = (self.scrubbed.0 + other.scrubbed.0, self.scrubbed.1 + other.scrubbed.1);
        self.trash_bytes += other.trash_bytes;
        self.ills.extend(other.ills.iter().cloned());
    }
}
