//! What a bucket holds, where it has a quota.

use serde::{Deserialize, Serialize};

use super::Stored;
use crate::s3::Refusal;
use crate::s3::quota::{Quota, Usage};

/// A bucket's usage: a register of its own, changed by each write to a bucket with a quota before the write is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UsageRecord {
    /// What the bucket holds, with what is about to be added.
    pub usage: Usage,
    /// All that was ever added and taken away. It bounds how far a count of the bucket can be off by what was written
    /// while it was counted.
    pub turnover: Usage,
}

impl Stored for UsageRecord {
    const VERSION: u8 = 1;
    const KIND: &'static str = "usage";
}

impl UsageRecord {
    /// The usage after something is added and something else taken away.
    pub fn change(self, added: Usage, removed: Usage, quota: Quota) -> Result<Self, Refusal> {
        let usage = self.usage.change(added, removed, quota)?;
        let turnover = Usage {
            bytes: self.turnover.bytes.wrapping_add(added.bytes).wrapping_add(removed.bytes),
            objects: self.turnover.objects.wrapping_add(added.objects).wrapping_add(removed.objects),
        };
        Ok(Self { usage, turnover })
    }

    /// The usage as a count found it, that began at `before`: `None` where the difference may be what was written
    /// meanwhile.
    pub fn counted(self, found: Usage, before: Self) -> Option<Self> {
        let off =
            |now: u64, found: u64, turnover: u64, before: u64| now.abs_diff(found) > turnover.wrapping_sub(before);
        let (Usage { bytes, objects }, turnover) = (self.usage, self.turnover);
        let wrong = off(bytes, found.bytes, turnover.bytes, before.turnover.bytes)
            || off(objects, found.objects, turnover.objects, before.turnover.objects);
        wrong.then_some(Self { usage: found, turnover })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a peer died between counting a write and making it; later the bucket is counted, once while others write and
    /// once while nobody does. Danger: the usage is off for ever, or a count that raced with writes makes it worse.
    /// Expectation: what cannot be a race is set right.
    #[test]
    fn a_count_sets_right_what_no_race_explains() {
        let quota = Quota::default();
        let put =
            |before: UsageRecord, bytes| before.change(Usage::of(Some(bytes)), Usage::default(), quota).expect("room");
        let before = put(UsageRecord::default(), 100);
        let drifted = put(before, 40);
        let found = Usage { bytes: 100, objects: 1 };
        assert_eq!(drifted.counted(found, before), None, "the write may have come after the count");
        let right = UsageRecord { usage: found, ..drifted };
        assert_eq!(drifted.counted(found, drifted), Some(right), "nothing was written meanwhile");
        let busy = put(drifted, 3);
        assert_eq!(busy.counted(found, drifted), Some(UsageRecord { usage: found, ..busy }), "40 bytes are not 3");
        assert_eq!(right.counted(found, right), None);
    }
}
