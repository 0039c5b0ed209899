//! Quotas of buckets: an extension, as S3 has none. Asked inside the update of the bucket's usage, so that requests which
//! race are counted one after the other.

use serde::{Deserialize, Serialize};

use super::Refusal;

/// The most a bucket may hold; `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes of all versions.
    pub bytes: Option<u64>,
    /// Versions, markers not counted.
    pub objects: Option<u64>,
}

/// What a bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of all versions.
    pub bytes: u64,
    /// Versions, markers not counted.
    pub objects: u64,
}

impl Usage {
    /// The usage after something of these bytes is added and perhaps something else taken away, as when it is written
    /// over. What takes no more than it gives is let through even above the quota, which may have been lowered.
    pub fn change(self, added: Option<u64>, removed: Option<u64>, quota: Quota) -> Result<Self, Refusal> {
        let count = |change: Option<u64>| u64::from(change.is_some());
        let after = Self {
            bytes: self.bytes.saturating_sub(removed.unwrap_or(0)).saturating_add(added.unwrap_or(0)),
            objects: self.objects.saturating_sub(count(removed)).saturating_add(count(added)),
        };
        let over =
            |after: u64, before: u64, limit: Option<u64>| after > before && limit.is_some_and(|limit| after > limit);
        if over(after.bytes, self.bytes, quota.bytes) || over(after.objects, self.objects, quota.objects) {
            return Err(exceeded());
        }
        Ok(after)
    }
}

fn exceeded() -> Refusal {
    Refusal::with_status(403, "QuotaExceeded", "The quota of the bucket has been reached.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_counted_and_the_rest_refused() {
        let quota = Quota { bytes: Some(100), objects: Some(2) };
        let half = Usage { bytes: 60, objects: 1 };
        assert_eq!(half.change(Some(40), None, quota), Ok(Usage { bytes: 100, objects: 2 }));
        assert_eq!(half.change(Some(41), None, quota).expect_err("too many bytes").status, 403);
        assert_eq!(half.change(Some(100), Some(60), quota), Ok(Usage { bytes: 100, objects: 1 }));
        let full = Usage { bytes: 0, objects: 2 };
        assert_eq!(full.change(Some(0), None, quota).expect_err("too many objects").code, "QuotaExceeded");
        let above = Usage { bytes: 500, objects: 9 };
        assert_eq!(above.change(Some(10), Some(10), quota), Ok(above), "no worse than before");
        assert_eq!(above.change(None, Some(10), quota), Ok(Usage { bytes: 490, objects: 8 }));
        assert!(above.change(Some(u64::MAX), None, Quota::default()).is_ok(), "no limit, no overflow");
    }
}
