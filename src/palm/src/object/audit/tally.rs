//! Adding up what was found: decisions and sums only.

use palm_core::code::Shape;
use palm_core::id::PeerId;

use palm_core::place::{Candidate, Policy, is_exposed};
use palm_core::record::Segment;
use palm_core::repair::{Found, Health, Plan, Redundancy, plan, tolerance};
use serde::{Deserialize, Serialize};

/// What a count has found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Findings {
    /// The objects counted.
    pub health: Health,
    /// Segments that repair would mend or code anew, by their redundancy, in the order of [`Redundancy::ALL`].
    pub to_mend: [u64; 4],
    /// Of those, the ones that it would code anew under a wider policy.
    pub to_recode: u64,
    /// Bytes of the fragments that it would store.
    pub bytes: u64,
    /// Segments of which this peer has a fragment, whoever sees to them.
    pub segments_here: u64,
    /// Bytes of parts of uploads that are not completed.
    pub upload_bytes: u64,
}

impl Findings {
    /// Counts an object that was looked at to its end.
    pub(super) fn count(&mut self, bytes: u64, kept: Kept) {
        let tally = &mut self.health.objects[kept.redundancy as usize];
        tally.objects += 1;
        tally.bytes += bytes;
        self.health.exposed += u64::from(kept.exposed);
        if let Some(tolerance) = kept.tolerance {
            self.health.can_lose = self.health.can_lose.min(tolerance);
        }
    }

    /// Counts a segment that is to be mended or coded anew.
    pub(super) fn wanting(&mut self, redundancy: Redundancy, work: Work) {
        self.health.segments_to_mend += 1;
        self.to_mend[redundancy as usize] += 1;
        self.to_recode += u64::from(work.recodes);
        self.bytes += work.bytes;
    }
}

/// How well an object, or a segment of it, is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) redundancy: Redundancy,
    /// Peers it survives the loss of; `None`: it cannot be read now.
    pub(super) tolerance: Option<u8>,
    /// Some one home has enough fragments to rebuild it.
    pub(super) exposed: bool,
}

impl Kept {
    /// An object without segments: nothing of it can be lost.
    pub(super) const NOTHING: Self = Self { redundancy: Redundancy::Full, tolerance: Some(u8::MAX), exposed: false };

    pub(super) fn of(found: Found<'_>, wanted: Policy, members: usize) -> Self {
        let Segment { k, n, fragments, .. } = found.segment;
        let homes: Vec<PeerId> = fragments.iter().map(|placed| placed.home).collect();
        Self {
            redundancy: Redundancy::of(found, wanted, members),
            tolerance: tolerance(found),
            exposed: is_exposed(Policy { k: *k, n: *n }, &homes),
        }
    }

    /// An object is kept as well as its worst segment.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            redundancy: self.redundancy.min(other.redundancy),
            // `None` is less than any number.
            tolerance: self.tolerance.min(other.tolerance),
            exposed: self.exposed || other.exposed,
        }
    }
}

/// What repair would do for a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) recodes: bool,
    /// Bytes of the fragments to be stored.
    pub(super) bytes: u64,
}

impl Work {
    /// `None`: nothing.
    pub(super) fn of(found: Found<'_>, wanted: Policy, may_recode: bool, candidates: &[Candidate]) -> Option<Self> {
        let Segment { len, k, n, .. } = *found.segment;
        let fragment_len = |policy| Shape::new(policy, len).map_or(u64::MAX, |shape| shape.fragment_len());
        match plan(found, wanted, may_recode, candidates, fragment_len) {
            Plan::Leave | Plan::Unreadable => None,
            Plan::Mend(steps) => {
                let bytes = fragment_len(Policy { k, n }).saturating_mul(steps.len() as u64);
                Some(Self { recodes: false, bytes })
            }
            Plan::Recode { policy, homes } => {
                Some(Self { recodes: true, bytes: fragment_len(policy).saturating_mul(homes.len() as u64) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use palm_core::id::{FragmentId, SegmentId};
    use palm_core::record::Placed;
    use palm_core::repair::{Condition, Tally};

    use super::*;

    fn kept(redundancy: Redundancy, tolerance: Option<u8>, exposed: bool) -> Kept {
        Kept { redundancy, tolerance, exposed }
    }

    /// An object of three segments, of which one is worse off and another one exposed. Counted by its best or its first, it
    /// would be called safe while a part of it is about to go.
    #[test]
    fn an_object_is_as_safe_as_its_worst_segment() {
        let segments = [
            kept(Redundancy::Full, Some(2), false),
            kept(Redundancy::Reduced, Some(1), false),
            kept(Redundancy::Full, Some(2), true),
        ];
        let object = segments.into_iter().fold(Kept::NOTHING, Kept::and);
        assert_eq!(object, kept(Redundancy::Reduced, Some(1), true));
        let lost = object.and(kept(Redundancy::Unreadable, None, false));
        assert_eq!(lost, kept(Redundancy::Unreadable, None, true));
    }

    /// `palm status` says how many peers may be lost: the least of all readable objects. One that cannot be read is told
    /// of by itself, and empty ones bound nothing.
    #[test]
    fn a_count_says_the_least_of_what_is_readable() {
        let mut findings = Findings::default();
        findings.count(0, Kept::NOTHING);
        assert_eq!(findings.health.can_lose, u8::MAX);
        findings.count(10, kept(Redundancy::Full, Some(2), true));
        findings.count(20, kept(Redundancy::None, Some(0), false));
        findings.count(30, kept(Redundancy::Unreadable, None, false));
        let [unreadable, none, reduced, full] = findings.health.objects;
        assert_eq!((unreadable, none), (Tally { objects: 1, bytes: 30 }, Tally { objects: 1, bytes: 20 }));
        assert_eq!((reduced, full), (Tally::default(), Tally { objects: 2, bytes: 10 }));
        assert_eq!((findings.health.can_lose, findings.health.exposed), (0, 1));
    }

    /// Promise 3 by the fragments themselves: two of a 2-of-3 segment at one home are the segment.
    #[test]
    fn exposure_is_counted_by_home() {
        let segment = |homes: [u8; 3]| Segment {
            id: SegmentId::from_bytes([1; 16]),
            len: 5,
            k: 2,
            n: 3,
            fragments: (0..)
                .zip(homes)
                .map(|(index, home)| Placed {
                    index,
                    home: PeerId::from_bytes([home; 32]),
                    id: FragmentId::of(&[index]),
                })
                .collect(),
        };
        let exposed = |homes| {
            let segment = segment(homes);
            let found = Found { segment: &segment, conditions: &[Condition::Sound; 3] };
            Kept::of(found, Policy { k: 2, n: 3 }, 3).exposed
        };
        assert!(!exposed([1, 2, 3]));
        assert!(exposed([1, 2, 1]));
    }
}
