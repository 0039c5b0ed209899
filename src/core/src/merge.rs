//! How the copies of a local pool become one.
//!
//! In a pool of [local consistency](crate::record::Consistency::Local) every peer changes its own copy of a register and
//! stamps the change from its hybrid clock. When two copies meet, the higher version wins, tombstones included. That is
//! all: the rule is a maximum, so it is commutative, associative and idempotent, and copies that have heard of the same
//! writes, in whatever order and however often, are equal.
//!
//! A write's version is above that of the record it was decided on, so a later writer that saw the earlier write wins
//! whatever the clocks say. Between writers that did not see each other the clocks decide, and the loser's write is gone.

use bytes::Bytes;

use crate::hlc::Ballot;
use crate::register::{History, Record};

/// Whether `theirs` takes the place of `mine`. Versions are unique (time, peer and nonce); the value decides between
/// equal ones only so that even bytes which no peer ever wrote end the same everywhere.
pub fn supersedes(theirs: &Record, mine: Option<&Record>) -> bool {
    let rank = |record: &Record| (record.version, record.value.clone());
    mine.is_none_or(|mine| rank(theirs) > rank(mine))
}

/// A record as a local pool keeps it. Histories (R5) are for proposers that retry; a local write is decided once.
pub fn write(version: Ballot, value: Option<Bytes>) -> Record {
    Record { version, value, history: History::default() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hlc::{Clock, Stamp};
    use crate::id::PeerId;

    fn merge(mine: Option<Record>, theirs: Option<Record>) -> Option<Record> {
        match theirs {
            Some(theirs) if supersedes(&theirs, mine.as_ref()) => Some(theirs),
            _ => mine,
        }
    }

    /// Few stamps, peers and values, so that equal ones meet often.
    fn any_copy() -> impl Strategy<Value = Option<Record>> {
        let record = (0..4_u64, 0..3_u64, prop::option::of(0..3_u8)).prop_map(|(stamp, peer, value)| {
            let version = Ballot { stamp: Stamp(stamp), peer, nonce: 0 };
            write(version, value.map(|value| Bytes::from(vec![value])))
        });
        prop::option::of(record)
    }

    proptest! {
        #[test]
        fn merging_is_a_semilattice(a in any_copy(), b in any_copy(), c in any_copy()) {
            prop_assert_eq!(merge(a.clone(), b.clone()), merge(b.clone(), a.clone()));
            prop_assert_eq!(merge(merge(a.clone(), b.clone()), c.clone()), merge(a.clone(), merge(b, c)));
            prop_assert_eq!(merge(a.clone(), a.clone()), a);
        }

        /// Story: three peers with clocks that are off write, delete and tell each other in any order, messages lost and
        /// doubled. Danger: copies that differ for good, or an acknowledged write undone by an older one that its
        /// writer had seen. Expectation: one more exchange makes all equal, and the winner is the highest version.
        #[test]
        fn copies_converge_and_a_writer_that_saw_the_other_wins(
            steps in prop::collection::vec((0..3_usize, 0..3_usize, prop::option::of(any::<u8>()), any::<bool>()), 1..60),
            skews in prop::array::uniform3(0..1_000_u64),
        ) {
            let mut clocks = [1_u8, 2, 3].map(|tag| Clock::new(&PeerId::from_bytes([tag; 32]), 7, Stamp(0)));
            let mut copies: [Option<Record>; 3] = Default::default();
            let mut highest = None;
            for (now, (from, to, value, tell)) in steps.into_iter().enumerate() {
                if tell {
                    copies[to] = merge(copies[to].clone(), copies[from].clone());
                    continue;
                }
                if let Some(seen) = &copies[from] {
                    clocks[from].observe(seen.version.stamp);
                }
                let version = clocks[from].tick(now as u64 + skews[from]);
                let written = write(version, value.map(|value| Bytes::from(vec![value])));
                prop_assert!(supersedes(&written, copies[from].as_ref()), "it saw what it replaces");
                highest = merge(highest, Some(written.clone()));
                copies[from] = Some(written);
            }
            let all = copies.iter().cloned().fold(None, merge);
            prop_assert_eq!(&all, &highest);
            for copy in copies.clone() {
                prop_assert_eq!(copies.iter().cloned().fold(copy, merge), all.clone());
            }
        }
    }
}
