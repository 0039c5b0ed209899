//! Which peers keep the fragments of a segment, and when a write is durable.
//!
//! Everything is a pure function of the segment id and the candidates, so any peer can compute it and a
//! test can replay it. The outcome is stored in the object's record: two peers that see different free
//! space place differently and nothing breaks.
//!
//! Two caps bound how many fragments of a segment one peer keeps:
//!
//! - **durability**: `n - k`, so that any one home may vanish at once and k fragments remain
//!   (promise 4). It is never exceeded. With `n = k` no home may vanish anyway and it does not bind.
//! - **privacy**: also below `k`, so that no single disk holds enough to rebuild the segment
//!   (promise 3). Exceeded only when the living peers are too few, and then the plan says so.
//!
//! In a pool of one peer its disks take the place of peers: the caps hold for each of them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{PeerId, SegmentId};

mod rendezvous;
mod surplus;
#[cfg(test)]
mod tests;

pub(crate) use rendezvous::first;
pub use rendezvous::order;
pub use surplus::{Fill, surplus_bytes};

/// No segment has more fragments: a pool has at most 64 members.
pub const MAX_FRAGMENTS: usize = 64;
/// Beyond this many members `auto` adds no more fragments: each would cost every small write a request.
const MAX_AUTO_FRAGMENTS: u8 = 8;

/// Any `k` of `n` fragments rebuild a segment. Written `3-of-5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// Fragments needed; at least 1.
    pub k: u8,
    /// Fragments kept; at least `k`, at most [`MAX_FRAGMENTS`].
    pub n: u8,
}

/// A policy that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The numbers do not fit.
    #[error("policy {k}-of-{n} out of bounds: it takes 1 <= k <= n <= {MAX_FRAGMENTS}")]
    Bounds {
        /// Fragments needed.
        k: u8,
        /// Fragments kept.
        n: u8,
    },
    /// Not written as `3-of-5`.
    #[error("not a policy: expected k-of-n such as 3-of-5, got {0:?}")]
    Syntax(String),
}

impl Policy {
    /// Any `k` of `n`, where `1 <= k <= n <= MAX_FRAGMENTS`.
    pub fn new(k: u8, n: u8) -> Result<Self, PolicyError> {
        Self { k, n }.check()
    }

    /// Itself when it is within bounds: for policies that came as two numbers from a record or a file.
    pub fn check(self) -> Result<Self, PolicyError> {
        let Self { k, n } = self;
        if 1 <= k && k <= n && usize::from(n) <= MAX_FRAGMENTS { Ok(self) } else { Err(PolicyError::Bounds { k, n }) }
    }

    /// What a pool of `members` uses when nothing else is set: data as tough as metadata, which survives
    /// the loss of a minority of at most seven voters. `members` of 0 counts as 1.
    pub fn auto(members: usize) -> Self {
        let n = u8::try_from(members).unwrap_or(u8::MAX).clamp(1, MAX_AUTO_FRAGMENTS);
        let tolerated = match n {
            1 => 0,
            2..=4 => 1,
            5..=6 => 2,
            _ => 3,
        };
        Self { k: n - tolerated, n }
    }

    /// What a pool uses when nothing else is set. One of a single member treats that member's `disks` as if they were
    /// members, so that any one of them may be lost. For two that is 2-of-4 instead of 1-of-2: with k = 1 all fragments are the
    /// same bytes and have one id, and a home keeps each id once.
    pub fn auto_over(members: usize, disks: usize) -> Self {
        match (members, disks) {
            (0 | 1, 2) => Self { k: 2, n: 4 },
            (0 | 1, _) => Self::auto(disks),
            _ => Self::auto(members),
        }
    }

    /// How many fragments may be lost: `n - k`.
    pub fn spare(self) -> u8 {
        self.n.saturating_sub(self.k)
    }

    /// How many of `members` homes may vanish, the fullest first, when the fragments are spread over them as evenly as
    /// can be. `members` of 0 counts as 1.
    pub fn losses_over(self, members: usize) -> u8 {
        let n = usize::from(self.n);
        let homes = members.clamp(1, n.max(1));
        losses((0..homes).map(|home| n / homes + usize::from(home < n % homes)), self.k).unwrap_or(0)
    }

    /// Most fragments one home may keep so that any one home may vanish at once.
    pub(crate) fn durability_cap(self) -> usize {
        usize::from(if self.n > self.k { self.n - self.k } else { self.n })
    }

    /// Most fragments one home may keep so that it may vanish and cannot rebuild the segment alone:
    /// `min(k - 1, n - k)`, and `k - 1` where `n = k`. With `k = 1` it is 0: a single fragment is
    /// already enough.
    pub fn privacy_cap(self) -> usize {
        usize::from(self.k.saturating_sub(1)).min(self.durability_cap())
    }

    /// How many homes a segment needs at least to survive the loss of any one of them (one home when
    /// `n = k`, which survives no loss however it is spread).
    pub fn homes_needed(self) -> usize {
        usize::from(self.n).div_ceil(self.durability_cap().max(1))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-of-{}", self.k, self.n)
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let numbers = text.split_once("-of-").and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        let (k, n) = numbers.ok_or_else(|| PolicyError::Syntax(text.chars().take(80).collect()))?;
        Self::new(k, n)
    }
}

/// A peer that could keep a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub peer: PeerId,
    /// Free bytes; its weight.
    pub free: u64,
    /// What fails together with it, or with one of its disks: hosts, or rooms and hosts in them as `room/host`. Empty when
    /// none is set, and then the peer is its own domain.
    pub domains: Vec<String>,
    /// How many disks that fail apart it spreads the fragments of a segment over, at least 1. Counts only while it is the only
    /// candidate of a pool of one member: in a wider pool a peer is lost whole, and it is to be 1 (`View::candidates`).
    pub disks: u8,
}

impl Candidate {
    /// The disks that take the place of homes: those of the only one of `candidates`, 1 where there are others.
    pub(crate) fn disks_that_count(&self, candidates: usize) -> usize {
        if candidates == 1 { usize::from(self.disks.max(1)) } else { 1 }
    }

    /// The hosts that it shares with others.
    fn hosts(&self) -> impl Iterator<Item = &str> {
        self.domains.iter().map(String::as_str)
    }

    /// The rooms that it shares with others: its domains up to the first slash.
    fn rooms(&self) -> impl Iterator<Item = &str> {
        self.hosts().filter_map(|domain| domain.split('/').next()).filter(|room| !room.is_empty())
    }

    /// Whether both are known to be, or to have disks, at one host.
    pub(crate) fn shares_host(&self, other: &Self) -> bool {
        self.hosts().any(|mine| other.hosts().any(|host| host == mine))
    }

    /// Whether both are known to be, or to have disks, in one room.
    pub(crate) fn shares_room(&self, other: &Self) -> bool {
        self.rooms().any(|mine| other.rooms().any(|room| room == mine))
    }

    /// How many fragments of `need_bytes` fit.
    pub(crate) fn room(&self, need_bytes: u64) -> usize {
        usize::try_from(self.free / need_bytes.max(1)).unwrap_or(usize::MAX)
    }
}

/// Where the fragments of a segment go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The policy used; `auto` falls to a narrower one while members are away.
    pub policy: Policy,
    /// Home of fragment 0, 1, … n-1.
    pub homes: Vec<PeerId>,
    /// Some home gets as many fragments as rebuild the segment: with the pool key its disk reveals it.
    pub exposed: bool,
}

impl Plan {
    /// Whether a write is durable once fragments are stored at these homes (one entry for each distinct fragment):
    /// as [`durable`] says, and where one peer spreads them over its disks, when all n are stored.
    pub fn durable(&self, stored: &[PeerId]) -> bool {
        let is_one_peer = self.homes.windows(2).all(|pair| pair[0] == pair[1]);
        if is_one_peer { stored.len() >= usize::from(self.policy.n) } else { durable(self.policy, stored) }
    }
}

/// Why there is no place for a segment. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Too few peers live: wait for members to return, or choose a narrower policy.
    #[error("{policy} needs {need} homes and {have} are in reach, {} missing", need - have)]
    TooFewHomes {
        /// The policy wanted.
        policy: Policy,
        /// Homes needed for one of them to vanish.
        need: usize,
        /// Living peers.
        have: usize,
    },
    /// Enough peers live and too few have room: free or add space.
    #[error("pool is full: {policy} finds too few homes with {need_bytes} bytes free")]
    Full {
        /// The policy wanted.
        policy: Policy,
        /// Bytes of one fragment.
        need_bytes: u64,
    },
    /// The policy cannot be.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Homes for the fragments of a segment among the living `candidates` (each peer once).
///
/// Fragments go round in rendezvous order, so they spread as evenly as room allows. A home needs
/// `need_bytes` free for each fragment it gets. Where `wanted` cannot be placed so that any one home may
/// vanish, an `automatic` policy narrows to what the peers with room allow, and a chosen one is an error.
pub fn plan(
    segment: SegmentId,
    wanted: Policy,
    automatic: bool,
    candidates: &[Candidate],
    need_bytes: u64,
) -> Result<Plan, PlaceError> {
    let policy = wanted.check()?;
    let ordered: Vec<&Candidate> =
        order(segment, candidates).into_iter().filter(|candidate| candidate.room(need_bytes) > 0).collect();
    if let Some(plan) = spread(policy, &ordered, need_bytes) {
        return Ok(plan);
    }
    let narrower =
        Policy::auto_over(ordered.len(), ordered.first().map_or(1, |only| only.disks_that_count(ordered.len())));
    if automatic && let Some(plan) = spread(narrower, &ordered, need_bytes) {
        return Ok(plan);
    }
    let need = if automatic { 1 } else { policy.homes_needed() };
    Err(if candidates.len() < need {
        PlaceError::TooFewHomes { policy, need, have: candidates.len() }
    } else {
        PlaceError::Full { policy, need_bytes }
    })
}

/// Deals the fragments round `ordered`: within the privacy cap if that goes, else within the durability
/// cap; one peer alone gets as many for each of its disks, and sees them all.
fn spread(policy: Policy, ordered: &[&Candidate], need_bytes: u64) -> Option<Plan> {
    let disks = ordered.first().map_or(1, |first| first.disks_that_count(ordered.len()));
    let private = if disks > 1 { None } else { deal(policy, policy.privacy_cap(), ordered, need_bytes) };
    let exposed = private.is_none();
    let homes = private.or_else(|| deal(policy, policy.durability_cap() * disks, ordered, need_bytes))?;
    Some(Plan { policy, homes, exposed })
}

fn deal(policy: Policy, cap: usize, ordered: &[&Candidate], need_bytes: u64) -> Option<Vec<PeerId>> {
    let n = usize::from(policy.n);
    let mut homes = Vec::with_capacity(n);
    for round in 0..cap {
        let open = ordered.iter().filter(|candidate| candidate.room(need_bytes) > round);
        homes.extend(open.take(n - homes.len()).map(|candidate| candidate.peer));
        if homes.len() == n {
            return Some(homes);
        }
    }
    None
}

/// Whether an acknowledged write is durable (promise 4), given the home of each fragment that is stored
/// (one entry for each distinct fragment): with the fullest home gone, k fragments remain. With `n = k`,
/// where every fragment is needed, all of them are stored.
pub fn durable(policy: Policy, stored: &[PeerId]) -> bool {
    if policy.n == policy.k {
        return stored.len() >= usize::from(policy.n);
    }
    let fullest = counts(stored.iter().copied()).into_values().max().unwrap_or(0);
    stored.len() - fullest >= usize::from(policy.k)
}

/// Who takes a fragment of `plan` whose home failed: of the `candidates` that are not among the `failed`
/// and have room, the one with the fewest fragments, first in rendezvous order. `None` where all are at
/// the cap the plan was made under; what is stored may be durable all the same.
pub fn alternate(
    segment: SegmentId,
    plan: &Plan,
    failed: &[PeerId],
    candidates: &[Candidate],
    need_bytes: u64,
) -> Option<PeerId> {
    let cap = if plan.exposed { plan.policy.durability_cap() } else { plan.policy.privacy_cap() };
    let held = counts(plan.homes.iter().copied());
    order(segment, candidates)
        .into_iter()
        .filter(|candidate| !failed.contains(&candidate.peer))
        .map(|candidate| (held.get(&candidate.peer).copied().unwrap_or(0), candidate))
        .filter(|&(count, candidate)| count < cap.min(candidate.room(need_bytes)))
        .min_by_key(|&(count, _)| count)
        .map(|(_, candidate)| candidate.peer)
}

/// Whether some home keeps as many of these fragments as rebuild the segment.
pub fn is_exposed(policy: Policy, homes: &[PeerId]) -> bool {
    counts(homes.iter().copied()).into_values().max().unwrap_or(0) >= usize::from(policy.k)
}

/// How many homes may vanish, the fullest first, with `k` fragments left, given how many each of them keeps. `None`: fewer
/// than `k` are kept now.
pub(crate) fn losses(kept: impl IntoIterator<Item = usize>, k: u8) -> Option<u8> {
    let mut kept: Vec<usize> = kept.into_iter().collect();
    kept.sort_unstable();
    let mut spare = kept.iter().sum::<usize>().checked_sub(k.into())?;
    let mut losses = 0;
    while let Some(left) = kept.pop().and_then(|fullest| spare.checked_sub(fullest)) {
        spare = left;
        losses += 1;
    }
    Some(losses)
}

/// How many fragments each home keeps, given the home of each.
pub(crate) fn counts(homes: impl IntoIterator<Item = PeerId>) -> BTreeMap<PeerId, usize> {
    let mut counts = BTreeMap::new();
    for home in homes {
        *counts.entry(home).or_default() += 1;
    }
    counts
}
