//! Reading and deleting an object's record, and giving up its body.

use std::collections::BTreeSet;
use std::time::Duration;

use palm_core::id::PeerId;
use palm_core::record::{Content, ObjectRecord, Stored, key};
use palm_core::s3::Refusal;
use palm_core::s3::version::{Name, no_such_version};
use palm_core::wire::Request;

use super::conditions::object_in;
use super::store::At;
use super::{Object, ObjectError, Store, WriteConditions};
use crate::pool::Decision;

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

/// Until objects have versions: the null version is all there is.
fn check_version(version: Option<Name>) -> Result<(), ObjectError> {
    match version {
        None | Some(Name::Null) => Ok(()),
        Some(Name::Id(_)) => Err(no_such_version().into()),
    }
}

impl Store {
    /// An object's record, or one version of it, by a strong read; labelled where it is stale.
    pub async fn head(&self, bucket: &str, key: &str, version: Option<Name>) -> Result<Object, ObjectError> {
        check_version(version)?;
        let at = At::new(bucket, key);
        let (current, stale) = self.or_stale(self.ledger.read(&at.register).await, &at.register)?;
        match current {
            Some(current) => Ok(Object { stale, ..Object::decode(&current)? }),
            // Only now does it matter whether the bucket is there.
            None => Err(self.missing(bucket).await),
        }
    }

    /// Changes an object, or one version of it, but not its bytes: `change` is asked inside the ledger update, perhaps
    /// more than once.
    pub async fn change_object(
        &self,
        bucket: &str,
        key: &str,
        version: Option<Name>,
        change: impl Fn(&mut ObjectRecord) -> Result<(), Refusal> + Send + Sync,
    ) -> Result<Object, ObjectError> {
        check_version(version)?;
        let at = At::new(bucket, key);
        let changed = self.ledger.update(at.register, |current| {
            let changed = object_in(current).and_then(|object| {
                let mut object = object.ok_or(ObjectError::NoSuchKey)?;
                change(&mut object)?;
                Ok(object)
            });
            match changed {
                Ok(object) => Decision::Put(object.encode(), Ok(object)),
                Err(error) => Decision::Keep(Err(error)),
            }
        });
        let changed = changed.await?;
        match changed.answer {
            Ok(record) => Ok(Object { version: changed.version, id: None, record, stale: false }),
            Err(ObjectError::NoSuchKey) => Err(self.missing(bucket).await),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object. That nothing was there is no error.
    pub async fn delete(&self, bucket: &str, key: &str, deletion: Deletion) -> Result<Deleted, ObjectError> {
        let Deletion { version, conditions, .. } = deletion;
        check_version(version)?;
        let at = At::new(bucket, key);
        // What is not here may be on another island of a local pool, and the deletion must win over it.
        let unheard_of = self.is_local() && self.ledger.peek(&key::bucket(bucket)).is_some();
        let deleted = self.ledger.update(at.register, |current| {
            let checked = object_in(current).and_then(|object| {
                conditions.check(object.as_ref())?;
                Ok(object)
            });
            match checked {
                Ok(Some(object)) => Decision::Delete(Ok(Some(object))),
                Ok(None) if unheard_of => Decision::Delete(Ok(None)),
                other => Decision::Keep(other),
            }
        });
        match deleted.await?.answer {
            Ok(Some(object)) => {
                self.release(&object);
                Ok(Deleted { found: true, ..Deleted::default() })
            }
            Ok(None) => match self.missing(bucket).await {
                ObjectError::NoSuchKey => Ok(Deleted::default()),
                error => Err(error),
            },
            Err(ObjectError::NoSuchKey) => Err(self.missing(bucket).await),
            Err(error) => Err(error),
        }
    }

    /// Why there is no object: because there is no bucket, or just so.
    async fn missing(&self, bucket: &str) -> ObjectError {
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
