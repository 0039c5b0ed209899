//! Quotas of buckets: an extension, as S3 has none. Asked inside the update of the bucket's usage, so that requests which
//! race are counted one after the other.

use serde::{Deserialize, Serialize};

use super::Refusal;

/// The most a bucket may hold; `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes of all versions, and of parts of open uploads.
    pub bytes: Option<u64>,
    /// Versions, markers not counted.
    pub objects: Option<u64>,
}

/// What a bucket holds, or what a write changes of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of all versions, and of parts of open uploads.
    pub bytes: u64,
    /// Versions, markers not counted.
    pub objects: u64,
}

impl Usage {
    /// One version of these bytes, if there is one.
    pub fn of(version: Option<u64>) -> Self {
        Self { bytes: version.unwrap_or(0), objects: u64::from(version.is_some()) }
    }

    /// Parts of these bytes, which are no object yet.
    pub fn of_parts(bytes: u64) -> Self {
        Self { bytes, objects: 0 }
    }

    /// The usage after something is added and perhaps something else taken away, as when it is written over. What takes
    /// no more than it gives is let through even above the quota, which may have been lowered.
    pub fn change(self, added: Self, removed: Self, quota: Quota) -> Result<Self, Refusal> {
        let after = Self {
            bytes: self.bytes.saturating_sub(removed.bytes).saturating_add(added.bytes),
            objects: self.objects.saturating_sub(removed.objects).saturating_add(added.objects),
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
        let (one, none) = (|bytes| Usage::of(Some(bytes)), Usage::default());
        assert_eq!(half.change(one(40), none, quota), Ok(Usage { bytes: 100, objects: 2 }));
        assert_eq!(half.change(one(41), none, quota).expect_err("too many bytes").status, 403);
        assert_eq!(half.change(one(100), one(60), quota), Ok(Usage { bytes: 100, objects: 1 }));
        let full = Usage { bytes: 0, objects: 2 };
        assert_eq!(full.change(one(0), none, quota).expect_err("too many objects").code, "QuotaExceeded");
        let parts = full.change(Usage::of_parts(100), none, quota).expect("parts are no object");
        assert_eq!(parts.change(Usage::of_parts(1), none, quota).expect_err("too many bytes").code, "QuotaExceeded");
        let above = Usage { bytes: 500, objects: 9 };
        assert_eq!(above.change(one(10), one(10), quota), Ok(above), "no worse than before");
        assert_eq!(above.change(none, one(10), quota), Ok(Usage { bytes: 490, objects: 8 }));
        assert!(above.change(one(u64::MAX), none, Quota::default()).is_ok(), "no limit, no overflow");
    }
}
