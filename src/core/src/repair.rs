//! What is to be done for a segment, and how the objects are: decisions only.
//!
//! A segment's fragments are found in some [`Condition`] each. From that, the policy wanted and the peers that could take
//! fragments, [`plan`] says what to do; [`tolerance`] says how many more peers it survives; and [`owner`] says which
//! peer sees to it: nobody hands out work, every peer knows its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{PeerId, SegmentId};
use crate::place::{self, Candidate, Policy};
use crate::record::Segment;

mod health;
mod layout;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use health::{Health, Tally};
use layout::Layout;

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

impl Found<'_> {
    /// Home and condition of each of the n fragments that has a home. A record from elsewhere may name an index twice or one
    /// that cannot be: the first counts, and the latter not.
    fn by_index(&self) -> BTreeMap<u8, (PeerId, Condition)> {
        let mut fragments = BTreeMap::new();
        for (placed, &condition) in self.segment.fragments.iter().zip(self.conditions) {
            if placed.index < self.segment.n {
                fragments.entry(placed.index).or_insert((placed.home, condition));
            }
        }
        fragments
    }
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
///
/// - A damaged fragment is rebuilt where it was if that home has room, one that is gone or was never written at the
///   best candidate: the one with the fewest fragments of the segment, in the least used domain, first in rendezvous order.
/// - A leaving one is copied elsewhere. If its home is no candidate it drains, and all must go; if it is one, it holds too
///   much beside others, is given no more, and only those go that are no less safe elsewhere.
/// - One that sleeps stays, and so does its place.
/// - No home gets more than the durability cap: losing that home would lose the segment, with the fragment or without it.
/// - A placement that survives less, or shows one disk more, than the same policy would if it were placed now (the pool
///   grew) is levelled by the fewest copies that mend it.
/// - A segment is coded anew when `wanted` is wider, or when its own policy cannot be met any more and `wanted` can: four
///   peers became three, and no home may take a second fragment of 3-of-4. As long as its own policy can be met, a
///   pool that shrank changes nothing.
///
/// A plan carried out leaves nothing to do: planning again answers [`Plan::Leave`].
pub fn plan(
    found: Found<'_>,
    wanted: Policy,
    may_recode: bool,
    candidates: &[Candidate],
    need_bytes: impl Fn(Policy) -> u64,
) -> Plan {
    let segment = found.segment;
    let Ok(policy) = (Policy { k: segment.k, n: segment.n }).check() else { return Plan::Leave };
    let is_readable = tolerance(found).is_some();
    let mut layout = Layout::new(found, policy, candidates, need_bytes(policy));
    if is_readable {
        layout.rebuild();
    }
    layout.drain();
    if is_readable {
        if let Ok(fresh) = place::plan(segment.id, policy, false, candidates, need_bytes(policy)) {
            layout.level(&fresh);
        }
        layout.relieve();
        if may_recode
            && wanted != policy
            && let Ok(fresh) = place::plan(segment.id, wanted, false, candidates, need_bytes(wanted))
            && layout.is_worse_than(&fresh)
        {
            return Plan::Recode { policy: wanted, homes: fresh.homes };
        }
    }
    match layout.steps() {
        steps if !steps.is_empty() => Plan::Mend(steps),
        _ if is_readable => Plan::Leave,
        _ => Plan::Unreadable,
    }
}

/// How many more peers may be lost, whichever they are, with k fragments left. `None`: not even now are k there.
pub fn tolerance(found: Found<'_>) -> Option<u8> {
    let there = found.by_index().into_values().filter(|(_, condition)| condition.is_there());
    place::losses(place::counts(there.map(|(home, _)| home)).into_values(), found.segment.k)
}

/// Which peer sees to a segment: the first live home in an order that only depends on the segment, or of all `live` where no
/// home lives. `None` when nobody lives.
///
/// Free space plays no part, so that all peers that see the same ones alive name the same one.
pub fn owner(segment: &Segment, live: &[PeerId]) -> Option<PeerId> {
    let homes = segment.fragments.iter().map(|placed| placed.home).filter(|home| live.contains(home));
    place::first(segment.id, homes).or_else(|| place::first(segment.id, live.iter().copied()))
}

/// Which peer sees to something that has no segments, such as an empty object, whose body's id may stand for one.
pub fn owner_of_id(id: SegmentId, live: &[PeerId]) -> Option<PeerId> {
    place::first(id, live.iter().copied())
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
        let Some(tolerance) = tolerance(found) else { return Self::Unreadable };
        let meant = wanted.losses_over(members);
        let there = found.by_index().into_values().filter(|(_, condition)| condition.is_there()).count();
        if there >= usize::from(found.segment.n) && tolerance >= meant {
            Self::Full
        } else if tolerance == 0 && meant > 0 {
            Self::None
        } else {
            Self::Reduced
        }
    }
}
