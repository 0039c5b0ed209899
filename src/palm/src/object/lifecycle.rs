//! Carrying out lifecycle rules.
//!
//! Again and again each peer walks the buckets with rules that it sees to (see `chores.rs`) by strong listings, and does what
//! [`Configuration::decide`] says. The rules are read anew for every page, so that those taken back do no more harm than one
//! page. Each action carries its own condition into the ledger update that performs it: what a rule was decided on must
//! still stand there. So it does not matter who walks, how often, or that a client wrote in between.

use std::time::Duration;

use futures::{StreamExt, stream};
use palm_core::id::BodyId;
use palm_core::s3::lifecycle::{Action, Configuration, Days, Standing, Version};
use palm_core::s3::notification::Event;
use palm_core::s3::tags::Tag;
use palm_core::s3::version::{Kind, Name, Versioning};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::store::Counters;
use super::{About, Deletion, ListQuery, Listed, ListedVersion, Notice, ObjectError, Store, VersionsQuery, after_key};

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
        self.versions().await?;
        self.uploads().await
    }

    /// The rules as they are now.
    async fn rules(&self) -> Result<Option<Configuration>, ObjectError> {
        Ok(self.store.bucket(self.bucket).await?.config.lifecycle)
    }

    async fn versions(&self) -> Result<(), ObjectError> {
        let keys = ListQuery { limit: PAGE, ..ListQuery::default() };
        let (mut query, mut line_up) = (VersionsQuery { keys, after: None }, LineUp::default());
        while let Some(rules) = self.rules().await?.filter(Configuration::expires) {
            let began = Instant::now();
            let page = self.store.list_versions(self.bucket, query.clone()).await?;
            if page.stale {
                return Err(ObjectError::Unavailable("the listing is stale".to_owned()));
            }
            let mut placed = Vec::with_capacity(page.items.len());
            for item in page.items {
                let Listed::Key(key, version) = item else { continue };
                (query.keys.start, query.after) = (key.clone(), Some(version.id));
                placed.extend(line_up.place(key, version));
            }
            if !page.truncated {
                placed.extend(line_up.end());
            }
            let untagged = rules.without_tags();
            let looked = placed.iter().map(|found| self.look(&rules, untagged.as_ref(), found));
            stream::iter(looked).for_each_concurrent(AT_ONCE, std::convert::identity).await;
            if !page.truncated {
                break;
            }
            rest(began).await;
        }
        Ok(())
    }

    /// Does what the rules say to a version. Listings know no tags: where rules ask for them, the version is read, if they have
    /// something to do with it but for these.
    async fn look(&self, rules: &Configuration, untagged: Option<&Configuration>, found: &Placed) {
        let decide = |rules: &Configuration, tags: &[Tag]| {
            rules.decide(&found.as_ruled(tags), self.store.ledger.now_ms(), self.days)
        };
        let Some(mut action) = decide(untagged.unwrap_or(rules), &[]) else { return };
        if untagged.is_some() {
            let tags = match found.size {
                Some(_) => match self.store.head(self.bucket, &found.key, Some(found.id)).await {
                    Ok(object) => object.record.subresources.tags,
                    Err(error) => return debug!(bucket = self.bucket, key = found.key, %error, "tags not read"),
                },
                None => Vec::new(),
            };
            let Some(tagged) = decide(rules, &tags) else { return };
            action = tagged;
        }
        self.carry_out(action, found).await;
    }

    async fn carry_out(&self, action: Action, found: &Placed) {
        let Placed { key, id, modified_ms, .. } = found;
        let version = match action {
            Action::Expire => None,
            Action::DeleteVersion => Some(*id),
        };
        let deletion = Deletion { version, only: Some((*id, *modified_ms)), ..Deletion::default() };
        let notice = match self.announce(action, key).await {
            Ok(notice) => notice,
            Err(error) => return warn!(bucket = self.bucket, key, %error, "not expired; the next round tries again"),
        };
        let deleted = self.store.delete(self.bucket, key, deletion).await;
        match &deleted {
            Ok(deleted) if deleted.found || deleted.delete_marker => {
                notice.happened(self.store.outcome_of_deletion(deleted));
            }
            Err(error) if !error.is_certain() => notice.unknown(),
            _ => notice.cancelled(),
        }
        match deleted {
            Ok(deleted) if deleted.found || deleted.delete_marker => {
                Counters::add(&self.store.counters.expired_objects);
                debug!(bucket = self.bucket, key, version = %id, ?action, "expired");
            }
            // Changed since, done by another peer, or locked.
            Ok(_) => {}
            Err(error) if error.is_certain() => {
                debug!(bucket = self.bucket, key, version = %id, %error, "let be");
            }
            Err(error) => {
                warn!(bucket = self.bucket, key, version = %id, %error, "not expired; the next round tries again");
            }
        }
    }

    /// Says what is about to happen to whom a bucket's notifications tell.
    async fn announce(&self, action: Action, key: &str) -> Result<Notice, ObjectError> {
        let Some(record) = self.store.peek_bucket(self.bucket) else { return Ok(Notice::none()) };
        let event = match (action, record.config.versioning) {
            (Action::Expire, Versioning::Enabled | Versioning::Suspended) => Event::ExpirationDeleteMarkerCreated,
            _ => Event::ExpirationDelete,
        };
        let about =
            About { event, bucket: self.bucket, key, principal: "s3.amazonaws.com", source_ip: "", request_id: "" };
        self.store.begin_event(&record, about).await
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
            (query.start, marker) = if let Some((key, id)) = last {
                (key, Some(id))
            } else {
                // A page of what earlier buckets of this name left behind: on with the next key.
                (page.next.map_or_else(String::new, |next| after_key(&next)), None)
            };
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

/// A version, or a delete marker, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Placed {
    key: String,
    id: Name,
    modified_ms: u64,
    /// `None`: a delete marker.
    size: Option<u64>,
    standing: Standing,
}

impl Placed {
    fn as_ruled<'a>(&'a self, tags: &'a [Tag]) -> Version<'a> {
        Version {
            key: &self.key,
            size: self.size.unwrap_or(0),
            tags,
            modified_ms: self.modified_ms,
            delete_marker: self.size.is_none(),
            standing: self.standing,
        }
    }
}

/// Finds out where each version of a listing stands, which takes a look at its neighbours.
#[derive(Debug, Default)]
struct LineUp {
    /// The current version that came last: whether it is the only one of its key is known when the next one comes.
    held: Option<Placed>,
    key: String,
    /// When the version before was made: since then the next one is not current.
    since_ms: u64,
    newer: u32,
}

impl LineUp {
    /// Takes the next version of a listing; answers those that can be told of by now.
    fn place(&mut self, key: String, version: ListedVersion) -> Vec<Placed> {
        let ListedVersion { id, is_latest, modified_ms, kind } = version;
        let same_key = key == self.key;
        let mut told: Vec<Placed> = self.held.take().into_iter().collect();
        for held in &mut told {
            held.standing = Standing::Current { only: !same_key };
        }
        let size = match kind {
            Kind::Object(summary) => Some(summary.size),
            Kind::DeleteMarker => None,
        };
        let placed = |standing| Placed { key: key.clone(), id, modified_ms, size, standing };
        if is_latest {
            self.held = Some(placed(Standing::Current { only: true }));
            self.newer = 0;
        } else if same_key {
            told.push(placed(Standing::Noncurrent { since_ms: self.since_ms, newer: self.newer }));
            self.newer = self.newer.saturating_add(1);
        }
        (self.key, self.since_ms) = (key, modified_ms);
        told
    }

    /// Nothing follows.
    fn end(&mut self) -> Option<Placed> {
        self.held.take()
    }
}

/// Leaves the voters to clients for a while.
async fn rest(began: Instant) {
    sleep((began.elapsed() * REST).min(MAX_REST)).await;
}

#[cfg(test)]
mod tests {
    use palm_core::hlc::Stamp;
    use palm_core::record::{Etag, Summary};
    use palm_core::s3::version::VersionId;

    use super::*;

    fn version(ms: u64, is_latest: bool, marker: bool) -> ListedVersion {
        let (stamp, etag) = (Stamp::from_millis(ms), Etag { md5: [0; 16], parts: 0 });
        let summary = Summary { size: 1, etag, owner: None, storage_class: None, checksum: None };
        let kind = if marker { Kind::DeleteMarker } else { Kind::Object(summary) };
        ListedVersion { id: Name::Id(VersionId { stamp, nonce: 1 }), is_latest, modified_ms: ms, kind }
    }

    /// Scenario: a listing of three keys, whose pages may end anywhere. Danger: a delete marker is taken for one that covers
    /// nothing, and what it hides comes back; or a version counts as superseded since it was made. Expectation: each
    /// stands where its neighbours put it.
    #[test]
    fn versions_stand_where_their_neighbours_put_them() {
        let mut line_up = LineUp::default();
        let listed = [
            ("a", version(50, true, true)),
            ("a", version(40, false, false)),
            ("a", version(30, false, false)),
            ("b", version(20, true, true)),
            ("c", version(10, true, false)),
        ];
        let mut told: Vec<Placed> =
            listed.into_iter().flat_map(|(key, version)| line_up.place(key.to_owned(), version)).collect();
        told.extend(line_up.end());
        let found: Vec<_> =
            told.iter().map(|placed| (placed.key.as_str(), placed.modified_ms, placed.standing)).collect();
        let noncurrent = |since_ms, newer| Standing::Noncurrent { since_ms, newer };
        let expected = [
            ("a", 50, Standing::Current { only: false }),
            ("a", 40, noncurrent(50, 0)),
            ("a", 30, noncurrent(40, 1)),
            ("b", 20, Standing::Current { only: true }),
            ("c", 10, Standing::Current { only: true }),
        ];
        assert_eq!(found, expected);
    }
}
