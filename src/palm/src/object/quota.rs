//! Quotas of buckets: an extension, as S3 has none.
//!
//! The usage of a bucket with a quota is a register of its own. A write enters what it will add there before it is
//! committed ([`Store::hold_room`]), and is refused inside that update when it does not fit: so of writes that race for the last
//! room, one gets it. Afterwards what it replaced is given back. A peer that dies in between, or a write whose
//! outcome is unknown, leaves the register off by one object or upload. Therefore each
//! bucket with a quota is counted anew by strong listings when the quota is set and every [`EVERY`], by the peer that sees to it
//! (`chores.rs`). A difference that what was written meanwhile can explain is let be, any other is corrected.
//!
//! Counted are all versions and the parts of open uploads, of several attempts at a part the newest. Buckets without a quota pay
//! nothing.

use std::time::Duration;

use palm_core::record::{Stored, UsageRecord, key};
use palm_core::s3::quota::{Quota, Usage};
use palm_core::s3::version::Kind;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{ListQuery, Listed, ObjectError, Store, VersionsQuery};
use crate::pool::{Current, Decision};

/// How often usage is counted anew.
const EVERY: Duration = Duration::from_hours(1);
/// Entries of a listing read at a time.
const PAGE: u32 = 1000;

/// Room that a write has entered for itself. Dropped without a word (the outcome of the write is not known), it stays taken
/// until the bucket is counted.
#[must_use]
pub(super) struct Room {
    store: Store,
    bucket: String,
    added: Usage,
    removed: Usage,
}

impl Room {
    /// The write was made, and this is gone for it.
    pub(super) async fn taken(self, removed: Usage) {
        if removed != self.removed {
            // What was to be replaced stays after all, or is another.
            self.store.enter_usage(&self.bucket, self.removed, removed).await;
        }
    }

    /// The write was not made, for certain.
    pub(super) async fn returned(self) {
        self.store.enter_usage(&self.bucket, self.removed, self.added).await;
    }
}

impl Store {
    /// Enters a write, and what will likely be gone for it, into the usage of a bucket; `None` where that has no
    /// quota. 403 `QuotaExceeded` where it does not fit.
    pub(super) async fn hold_room(
        &self,
        bucket: &str,
        quota: Quota,
        added: Usage,
        removed: Usage,
    ) -> Result<Option<Room>, ObjectError> {
        if quota == Quota::default() {
            return Ok(None);
        }
        let held = self.ledger.update(key::usage(bucket), |current| match usage_in(current) {
            Ok(usage) => match usage.change(added, removed, quota) {
                Ok(usage) => Decision::Put(usage.encode(), Ok(())),
                Err(refusal) => Decision::Keep(Err(ObjectError::from(refusal))),
            },
            Err(error) => Decision::Keep(Err(error)),
        });
        held.await?.answer?;
        Ok(Some(Room { store: self.clone(), bucket: bucket.to_owned(), added, removed }))
    }

    /// Something was deleted from a bucket.
    pub(super) async fn give_room(&self, bucket: &str, removed: Usage) {
        let has_quota = self.peek_bucket(bucket).is_some_and(|record| record.config.quota != Quota::default());
        if has_quota {
            self.enter_usage(bucket, Usage::default(), removed).await;
        }
    }

    /// Changes the usage of a bucket by what has happened already.
    async fn enter_usage(&self, bucket: &str, added: Usage, removed: Usage) {
        let entered = self.ledger.update(key::usage(bucket), |current| {
            let changed = usage_in(current).and_then(|usage| Ok(usage.change(added, removed, Quota::default())?));
            match changed {
                Ok(usage) => Decision::Put(usage.encode(), Ok(())),
                Err(error) => Decision::Keep(Err(error)),
            }
        });
        if let Err(error) = entered.await.map_err(ObjectError::from).and_then(|entered| entered.answer) {
            warn!(bucket, %error, "usage is off until the bucket is counted");
        }
    }

    /// Sets what a bucket may hold, and counts what it holds.
    pub async fn set_quota(&self, bucket: &str, quota: Quota) -> Result<(), ObjectError> {
        self.change_bucket(bucket, |record| {
            record.config.quota = quota;
            Ok(())
        })
        .await?;
        info!(bucket, ?quota, "quota set");
        if quota == Quota::default() {
            self.ledger.update(key::usage(bucket), |_| Decision::Delete(())).await?;
            return Ok(());
        }
        self.count_usage(bucket).await
    }

    /// What a bucket may hold and, where that is bounded, what it holds.
    pub async fn quota(&self, bucket: &str) -> Result<(Quota, Option<Usage>), ObjectError> {
        let quota = self.bucket(bucket).await?.config.quota;
        if quota == Quota::default() {
            return Ok((quota, None));
        }
        let current = self.ledger.read(&key::usage(bucket)).await?;
        Ok((quota, Some(usage_in(current.as_ref())?.usage)))
    }

    /// Counts the buckets with quotas that this peer sees to, for as long as it is polled.
    pub async fn keep_counting(&self) {
        let mut rounds = interval(EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first comes at once, when a peer that has just begun knows of nobody yet.
        rounds.tick().await;
        loop {
            rounds.tick().await;
            for bucket in self.buckets_to_see_to(|record| record.config.quota != Quota::default()) {
                if let Err(error) = self.count_usage(&bucket).await {
                    warn!(bucket, %error, "usage not counted");
                }
            }
        }
    }

    async fn count_usage(&self, bucket: &str) -> Result<(), ObjectError> {
        let register = key::usage(bucket);
        let before = usage_in(self.ledger.read(&register).await?.as_ref())?;
        let found = self.usage_by_listing(bucket).await?;
        let corrected = self.ledger.update(register, |current| match usage_in(current) {
            Ok(usage) => match usage.counted(found, before) {
                Some(right) => Decision::Put(right.encode(), Ok(Some(usage.usage))),
                None => Decision::Keep(Ok(None)),
            },
            Err(error) => Decision::Keep(Err(error)),
        });
        if let Some(was) = corrected.await?.answer? {
            info!(bucket, ?was, ?found, "usage counted anew");
        }
        Ok(())
    }

    async fn usage_by_listing(&self, bucket: &str) -> Result<Usage, ObjectError> {
        let mut usage = Usage::of_parts(self.bytes_of_uploads(bucket).await?);
        let mut query = VersionsQuery { keys: ListQuery { limit: PAGE, ..ListQuery::default() }, after: None };
        loop {
            let page = self.list_versions(bucket, query.clone()).await?;
            if page.stale {
                return Err(ObjectError::Unavailable("the listing is stale".to_owned()));
            }
            for item in page.items {
                let Listed::Key(key, version) = item else { continue };
                (query.keys.start, query.after) = (key, Some(version.id));
                if let Kind::Object(object) = version.kind {
                    usage.bytes = usage.bytes.saturating_add(object.size);
                    usage.objects += 1;
                }
            }
            if !page.truncated {
                return Ok(usage);
            }
        }
    }

    async fn bytes_of_uploads(&self, bucket: &str) -> Result<u64, ObjectError> {
        let (mut bytes, mut after) = (0_u64, None);
        let mut query = ListQuery { limit: PAGE, ..ListQuery::default() };
        loop {
            let page = self.list_uploads(bucket, query.clone(), after).await?;
            for item in page.items {
                let Listed::Key(key, (id, _)) = item else { continue };
                bytes = bytes.saturating_add(self.parts(id).await?.bytes());
                (query.start, after) = (key, Some(id));
            }
            if page.next.is_none() {
                return Ok(bytes);
            }
        }
    }
}

/// The usage in a register; none is nothing.
fn usage_in(current: Option<&Current>) -> Result<UsageRecord, ObjectError> {
    Ok(current.map(|current| UsageRecord::decode(&current.value)).transpose()?.unwrap_or_default())
}
