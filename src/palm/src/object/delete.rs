//! Deleting an object or a version of it, and giving up its body.
//!
//! In a bucket with versions a deletion adds a marker to the head, in one update. A version with an id is deleted in two: its own
//! register is emptied, under its lock, and then its line removed. Never the other way round: a version without a line
//! could be found by nobody, and its lock would keep it for ever.

use std::collections::BTreeSet;
use std::time::Duration;

use palm_core::id::PeerId;
use palm_core::record::{Content, HeadRecord, LineRecord, ObjectRecord, Stored, Summary, key};
use palm_core::s3::lock::Asking;
use palm_core::s3::quota::Usage;
use palm_core::s3::version::{self, Done, Kind, Name, Stop, VersionId, Versioning};
use palm_core::wire::Request;

use super::commit::{Made, new_nonce};
use super::head::{head_in, object_in};
use super::moves::ATTEMPTS;
use super::store::At;
use super::{ObjectError, Store, WriteConditions};
use crate::pool::{Current, Decision};

/// A home that does not take the hint in this time finds the body on its own walk.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be deleted, and on which terms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deletion {
    /// One version for good; `None`: what is current, which in a bucket with versions leaves a marker.
    pub version: Option<Name>,
    /// Conditions on what is deleted.
    pub conditions: WriteConditions,
    /// The asker may, and wants to, get around a governance retention.
    pub bypass: bool,
    /// Only where what is deleted is this version, made at this time (milliseconds since the Unix epoch): what somebody looked
    /// at before. A version with an id is always the same one.
    pub only: Option<(Name, u64)>,
}

impl Deletion {
    fn check_only(&self, found: Option<(Name, u64)>) -> Result<(), ObjectError> {
        if self.only.is_none() || self.only == found { Ok(()) } else { Err(ObjectError::PreconditionFailed) }
    }
}

/// What a deletion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deleted {
    /// `x-amz-version-id`: the version deleted, or the marker made.
    pub version: Option<Name>,
    /// A marker was made, or deleted.
    pub delete_marker: bool,
    /// There was something to delete.
    pub found: bool,
}

/// What became of an attempt at a head. `None`: there was nothing to delete.
type Outcome = Result<Option<Done<ObjectRecord, Summary>>, Stop>;

impl Store {
    /// Deletes an object, or one version of it. That nothing was there is no error.
    pub async fn delete(&self, bucket: &str, key: &str, deletion: Deletion) -> Result<Deleted, ObjectError> {
        let (store, at) = (self.clone(), At::new(bucket, key));
        Self::settle(async move {
            match deletion.version {
                Some(Name::Id(id)) => store.delete_version(&at, id, &deletion).await,
                _ => store.delete_in_head(&at, &deletion).await,
            }
        })
        .await
    }

    /// Deletes what is current, or the null version.
    async fn delete_in_head(&self, at: &At, deletion: &Deletion) -> Result<Deleted, ObjectError> {
        let null_only = deletion.version.is_some();
        // What is not here may be on another island of a local pool, and the deletion must win over it.
        let spread = self.is_local() && self.peek_bucket(&at.bucket).is_some();
        for _ in 0..ATTEMPTS {
            let deciding = async {
                // Asked while the update's first phase runs.
                let versioning = self.bucket(&at.bucket).await?.config.versioning;
                Ok::<_, ObjectError>(move |current: Option<&Current>| {
                    let decided = head_in(current).and_then(|head| {
                        let found =
                            if null_only { head.null_object().is_some() } else { head.current_etag().is_some() };
                        Ok((found, self.decide_deletion(head, deletion, versioning)?))
                    });
                    match decided {
                        Err(error) => Decision::Keep(Err(error)),
                        Ok((found, Ok(Some(done)))) => match &done.head {
                            Some(head) => Decision::Put(head.encode(), Ok((found, Ok(Some(done))))),
                            None => Decision::Delete(Ok((found, Ok(Some(done))))),
                        },
                        Ok(nothing @ (_, Ok(None))) if spread => Decision::Delete(Ok(nothing)),
                        Ok(other) => Decision::Keep(Ok(other)),
                    }
                })
            };
            let updated = self.ledger.update_when(at.register.clone(), deciding).await?;
            match updated?.answer? {
                (found, Ok(done)) => return self.deleted_in_head(at, deletion, found, done).await,
                (_, Err(stop)) => self.clear_way(at, stop).await?,
            }
        }
        Err(ObjectError::Overloaded)
    }

    fn decide_deletion(
        &self,
        head: HeadRecord,
        deletion: &Deletion,
        versioning: Versioning,
    ) -> Result<Outcome, ObjectError> {
        let asking = self.asking(deletion);
        let check = |old: &ObjectRecord| old.subresources.lock.check_delete(asking);
        if deletion.version.is_some() {
            deletion.check_only(head.null.as_ref().map(|null| (Name::Null, null.stamp.millis())))?;
            let null = head.null_object().map(|(stamp, object)| (stamp, object.etag));
            let (made, etag) = null.unzip();
            deletion.conditions.check(etag, made.unwrap_or_default())?;
            let there = head.null.is_some();
            return Ok(head.delete_version(Name::Null, check).map(|done| there.then_some(done)));
        }
        deletion.check_only(head.current().map(|current| match current {
            version::Current::Null(null) => (Name::Null, null.stamp.millis()),
            version::Current::Version(line) => (Name::Id(line.id), line.id.stamp.millis()),
        }))?;
        deletion.conditions.check(head.current_etag(), head.latest())?;
        Ok(match versioning {
            Versioning::Off if head.is_empty() => Ok(None),
            Versioning::Off => head.delete(check).map(Some),
            Versioning::Enabled => {
                let id = self.next_id(&head, new_nonce()?);
                head.add_version(LineRecord { id, kind: Kind::DeleteMarker }).map(Some)
            }
            Versioning::Suspended => {
                let now = self.ledger.stamp_after(head.latest());
                head.put_null(Kind::DeleteMarker, now, versioning, check).map(Some)
            }
        })
    }

    /// What follows once a head is without what was deleted.
    async fn deleted_in_head(
        &self,
        at: &At,
        deletion: &Deletion,
        found: bool,
        done: Option<Done<ObjectRecord, Summary>>,
    ) -> Result<Deleted, ObjectError> {
        let Some(done) = done else { return Ok(Deleted { version: deletion.version, ..Deleted::default() }) };
        if let Some(freed) = &done.freed {
            self.give_room(&at.bucket, Usage::of(Some(freed.size))).await;
            self.release(freed);
        }
        if deletion.version.is_none()
            && done.delete_marker
            && let Some(head) = &done.head
        {
            // A marker is something the bucket holds.
            let made = match (done.version, &head.null) {
                (Some(Name::Id(id)), _) => Some(Made::Version(id)),
                (_, null) => null.as_ref().map(|null| Made::Null(null.stamp)),
            };
            if let Some(made) = made {
                self.confirm(at, made).await?;
            }
            self.seal_if_due(at, head.recent.len());
        }
        Ok(Deleted { version: done.version, delete_marker: done.delete_marker, found })
    }

    /// Deletes a version with an id for good: first its own register, under its lock, then its line.
    async fn delete_version(&self, at: &At, id: VersionId, deletion: &Deletion) -> Result<Deleted, ObjectError> {
        let register = key::version(&at.register, id);
        let emptied = self.ledger.update(register.clone(), |current| {
            let checked = object_in(&register, current).and_then(|object| {
                let Some(object) = object else { return Ok(None) };
                deletion.conditions.check(Some(object.etag), id.stamp)?;
                object.subresources.lock.check_delete(self.asking(deletion))?;
                Ok(Some(object))
            });
            match checked {
                Ok(Some(object)) => Decision::Delete(Ok(Some(object))),
                other => Decision::Keep(other),
            }
        });
        let object = emptied.await?.answer?;
        if let Some(object) = &object {
            self.give_room(&at.bucket, Usage::of(Some(object.size))).await;
            self.release(object);
        }
        // A deletion that came no further than this before is ended here, too.
        let line = self.drop_line(at, id).await?;
        if object.is_none() && line.is_none() {
            // Only now does it matter whether the bucket is there.
            self.bucket(&at.bucket).await?;
        }
        let delete_marker = line.as_ref().is_some_and(|line| line.kind == Kind::DeleteMarker);
        let found = object.is_some() || line.is_some();
        Ok(Deleted { version: Some(Name::Id(id)), delete_marker, found })
    }

    fn asking(&self, deletion: &Deletion) -> Asking {
        Asking { now_ms: self.ledger.now_ms(), bypass: deletion.bypass }
    }

    /// Why there is no object: because there is no bucket, or just so.
    pub(super) async fn missing(&self, bucket: &str) -> ObjectError {
        match self.ledger.read_shared(&key::bucket(bucket)).await {
            Ok(Some(_)) => ObjectError::NoSuchKey,
            Ok(None) => ObjectError::NoSuchBucket,
            Err(error) => error.into(),
        }
    }

    /// Tells the homes of a record that no longer stands that its body may be garbage. Only a hint, sent and
    /// forgotten: each home asks the ledger itself, and its walk finds what hints missed.
    pub(super) fn release(&self, record: &ObjectRecord) {
        let homes: BTreeSet<PeerId> = match &record.content {
            Content::Segments(segments) if segments.is_empty() => return,
            Content::Segments(segments) => {
                let now = segments.iter().flat_map(|segment| self.placed(segment).fragments);
                let written = segments.iter().flat_map(|segment| segment.fragments.clone());
                now.chain(written).map(|placed| placed.home).collect()
            }
            // The parts' registers would have to be read to know; there are at most 64 members.
            Content::Parts(_) => self.view.candidates().into_iter().map(|candidate| candidate.peer).collect(),
        };
        self.tell(homes, &Request::Release { body: record.body });
    }

    /// Sends a request to some homes (this one too) without waiting.
    pub(super) fn tell(&self, homes: impl IntoIterator<Item = PeerId>, request: &Request) {
        let mut remote = Vec::new();
        for home in homes {
            match request {
                Request::Release { body } if home == self.me => self.home.release(*body),
                _ => remote.push((home, request.clone())),
            }
        }
        if remote.is_empty() {
            return;
        }
        let store = self.clone();
        tokio::spawn(async move {
            let calls = remote.into_iter().map(|(home, request)| store.ask(home, request, RELEASE_TIMEOUT));
            futures::future::join_all(calls).await;
        });
    }
}
