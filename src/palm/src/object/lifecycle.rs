//! Carrying out lifecycle rules.
//!
//! Again and again each peer walks the buckets with rules that it sees to (see `chores.rs`) by strong listings, and does what
//! [`Configuration::decide`] says. The rules are read anew for every page, so that those taken back do no more harm than one
//! page. Each action carries its own condition into the ledger update that performs it: what a rule was decided on must
//! still stand there. So it does not matter who walks, how often, or that a client wrote in between.

use std::time::Duration;

use futures::{StreamExt, stream};
use palm_core::hlc::Stamp;
use palm_core::id::BodyId;
use palm_core::s3::lifecycle::{Action, Configuration, Days, Standing, Version};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::store::Counters;
use super::{Deletion, ListQuery, Listed, ObjectError, Store, WriteConditions, after_key};

/// Entries read at a time.
const PAGE: u32 = 1000;
/// Deletions under way at once.
const AT_ONCE: usize = 16;
/// After each page the walk rests this many times as long as the page took, and no longer than the second.
const REST: u32 = 4;
const MAX_REST: Duration = Duration::from_secs(2);
/// Rounds in a day of the rules. What is due is done within an hour.
const ROUNDS_A_DAY: u32 = 24;
/// With a day of seconds, for tests, rounds are not closer than this.
const MIN_ROUND: Duration = Duration::from_millis(500);

impl Store {
    /// Carries out lifecycle rules for as long as it is polled. Costs a look at this peer's own copy of the buckets, an hour,
    /// where none has rules.
    pub async fn keep_lifecycle(&self) {
        let mut rounds = interval((self.chores.day / ROUNDS_A_DAY).max(MIN_ROUND));
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            for bucket in self.buckets_to_see_to(|record| record.config.lifecycle.is_some()) {
                let walk = Walk { store: self, bucket: &bucket, days: Days::of(self.chores.day.as_millis() as u64) };
                match walk.run().await {
                    // Deleted meanwhile.
                    Ok(()) | Err(ObjectError::NoSuchBucket) => {}
                    Err(error) => warn!(bucket, %error, "lifecycle rules wait for the next round"),
                }
            }
        }
    }
}

/// One walk over a bucket.
struct Walk<'a> {
    store: &'a Store,
    bucket: &'a str,
    days: Days,
}

impl Walk<'_> {
    async fn run(&self) -> Result<(), ObjectError> {
        self.objects().await?;
        self.uploads().await
    }

    /// The rules as they are now.
    async fn rules(&self) -> Result<Option<Configuration>, ObjectError> {
        Ok(self.store.bucket(self.bucket).await?.config.lifecycle)
    }

    async fn objects(&self) -> Result<(), ObjectError> {
        let mut query = ListQuery { limit: PAGE, ..ListQuery::default() };
        while let Some(rules) = self.rules().await?.filter(Configuration::expires) {
            let began = Instant::now();
            let page = self.store.list(self.bucket, query.clone()).await?;
            if page.stale {
                return Err(ObjectError::Unavailable("the listing is stale".to_owned()));
            }
            let objects = page.items.iter().filter_map(|item| match item {
                Listed::Key(key, object) => Some((key, object)),
                Listed::Group(_) => None,
            });
            let looked = objects.map(|(key, _)| self.object(&rules, key));
            stream::iter(looked).for_each_concurrent(AT_ONCE, std::convert::identity).await;
            let Some(next) = page.next else { break };
            query.start = next;
            rest(began).await;
        }
        Ok(())
    }

    async fn object(&self, rules: &Configuration, key: &str) {
        let Ok(object) = self.store.head(self.bucket, key, None).await else { return };
        let version = Version {
            key,
            size: object.record.size,
            tags: &object.record.subresources.tags,
            modified_ms: object.modified_ms(),
            delete_marker: false,
            standing: Standing::Current { only: true },
        };
        if rules.decide(&version, self.store.ledger.now_ms(), self.days) == Some(Action::Expire) {
            self.expire(key, object.version.stamp).await;
        }
    }

    /// Expires the current version of a key, if it is this one still.
    async fn expire(&self, key: &str, made: Stamp) {
        let conditions = WriteConditions { unchanged: Some(made), ..WriteConditions::default() };
        let deletion = Deletion { conditions, ..Deletion::default() };
        match self.store.delete(self.bucket, key, deletion).await {
            Ok(deleted) if deleted.found => {
                Counters::add(&self.store.counters.expired_objects);
                debug!(bucket = self.bucket, key, "expired");
            }
            // Changed since, or done by another peer.
            Ok(_) | Err(ObjectError::PreconditionFailed | ObjectError::NoSuchKey) => {}
            Err(error) => warn!(bucket = self.bucket, key, %error, "not expired; the next round tries again"),
        }
    }

    async fn uploads(&self) -> Result<(), ObjectError> {
        let mut query = ListQuery { limit: PAGE, ..ListQuery::default() };
        let mut marker: Option<BodyId> = None;
        while let Some(rules) = self.rules().await?.filter(Configuration::aborts_any) {
            let began = Instant::now();
            let page = self.store.list_uploads(self.bucket, query.clone(), marker).await?;
            let mut last = None;
            for item in &page.items {
                let Listed::Key(key, (id, upload)) = item else { continue };
                last = Some((key.clone(), *id));
                if rules.aborts(key, upload.created_ms, self.store.ledger.now_ms(), self.days) {
                    self.abort(key, *id).await;
                }
            }
            if page.next.is_none() {
                break;
            }
            match last {
                Some((key, id)) => (query.start, marker) = (key, Some(id)),
                // A page of what earlier buckets of this name left behind: on with the next key.
                None => (query.start, marker) = (page.next.map_or_else(String::new, |next| after_key(&next)), None),
            }
            rest(began).await;
        }
        Ok(())
    }

    async fn abort(&self, key: &str, id: BodyId) {
        match self.store.abort_upload(self.bucket, key, id).await {
            Ok(()) => {
                Counters::add(&self.store.counters.aborted_uploads);
                info!(bucket = self.bucket, key, upload = %id, "upload aborted by a lifecycle rule");
            }
            // Completed or aborted meanwhile, or about to be.
            Err(ObjectError::NoSuchUpload | ObjectError::Conflict) => {}
            Err(error) => warn!(bucket = self.bucket, key, upload = %id, %error, "upload not aborted"),
        }
    }
}

/// Leaves the voters to clients for a while.
async fn rest(began: Instant) {
    sleep((began.elapsed() * REST).min(MAX_REST)).await;
}
