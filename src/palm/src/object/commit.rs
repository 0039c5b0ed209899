//! Making an object visible: the one update of a head that every PUT, copy and completion ends with.
//!
//! Where a bucket keeps no versions, or keeps no more of them, the object becomes the null version in one update. Where it does,
//! it is written to a register of its own first and then named in the head, so that what is named is there. Its id is
//! drawn after a strong read of the head made by the same request: everything that was acknowledged before is below it,
//! whatever the clocks say.

use palm_core::hlc::Stamp;
use palm_core::record::{BucketRecord, Content, HeadRecord, LineRecord, ObjectRecord, Stored, Summary, key};
use palm_core::s3::lock::{Asking, Lock};
use palm_core::s3::quota::{Quota, Usage};
use palm_core::s3::version::{Done, Kind, Name, Stop, VersionId, Versioning};
use tracing::debug;

use bytes::Bytes;

use super::draft::Draft;
use super::head::{head_in, object_in};
use super::moves::ATTEMPTS;
use super::quota::Room;
use super::store::{At, random};
use super::{Object, ObjectError, Store, WriteConditions};
use crate::pool::{Current, Decision, LedgerError};

/// Where an object is to be.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) at: At,
    /// The bucket, as a strong read made by this request found it.
    pub(super) bucket: BucketRecord,
    /// The version it is to be; `None`: the null version.
    pub(super) id: Option<VersionId>,
}

impl Target {
    /// The register that will refer to its body.
    pub(super) fn holder(&self) -> Bytes {
        self.id.map_or_else(|| self.at.register.clone(), |id| key::version(&self.at.register, id))
    }

    /// What protects the object, if its maker asks for this.
    pub(super) fn lock(&self, asked: Lock, now_ms: u64) -> Result<Lock, ObjectError> {
        Ok(Lock::for_new(asked, self.bucket.config.object_lock.map(|lock| lock.default), now_ms)?)
    }
}

/// On which terms an object is made.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    /// Decided on the version that is current by then.
    pub(super) conditions: WriteConditions,
    /// It completes an upload, at this time at the latest. Who finds that another has done so comes second.
    pub(super) completes_until_ms: Option<u64>,
    /// Bytes of the parts it is made of, and of those it is made without.
    pub(super) parts_bytes: u64,
}

/// What became of an attempt to make an object visible. Nothing is changed by the latter two.
enum Added {
    Here(Box<Done<ObjectRecord, Summary>>),
    /// The same upload was completed as this version.
    Before(Name),
    Stopped(Stop),
}

/// What a write has changed.
enum Change {
    /// It made an object, in the place of one of so many bytes.
    Made { replaced: Option<u64> },
    /// An earlier one has made it.
    Nothing,
}

/// What a write has made, for taking it back.
#[derive(Debug, Clone, Copy)]
pub(super) enum Made {
    /// A null version with this stamp.
    Null(Stamp),
    /// A version or a marker.
    Version(VersionId),
}

impl Store {
    /// Where what is put now has to go, by strong reads. `nonce` becomes part of its version's id.
    pub(super) async fn target(&self, at: At, nonce: u64) -> Result<Target, ObjectError> {
        let likely = self.versioning(&at) == Versioning::Enabled;
        let ahead = async { if likely { Some(self.ledger.read(&at.register).await) } else { None } };
        let (bucket, ahead) = tokio::join!(self.bucket(&at.bucket), ahead);
        let bucket = bucket?;
        let id = match (bucket.config.versioning, ahead) {
            (Versioning::Off | Versioning::Suspended, _) => None,
            (Versioning::Enabled, ahead) => {
                let read = match ahead {
                    Some(read) => read?,
                    None => self.ledger.read(&at.register).await?,
                };
                Some(self.next_id(&head_in(read.as_ref())?, nonce))
            }
        };
        Ok(Target { at, bucket, id })
    }

    /// The id of a version that is newer than all there are.
    pub(super) fn next_id(&self, head: &HeadRecord, nonce: u64) -> VersionId {
        VersionId { stamp: self.ledger.stamp_after(head.latest()), nonce }
    }

    /// Makes a record visible once `ready` has it: decides the conditions, replaces what was there and releases
    /// it, and makes sure that the bucket outlived the write. The fragments of `draft` are kept, or deleted when
    /// it is certain that nothing refers to them.
    pub(super) async fn commit(
        &self,
        target: &Target,
        terms: Terms,
        ready: impl Future<Output = Result<ObjectRecord, ObjectError>> + Send,
        draft: Option<&Draft>,
    ) -> Result<Object, ObjectError> {
        let mut room = None;
        let ready = async {
            let record = ready.await?;
            room = Box::pin(self.room_for(target, &terms, record.size)).await?;
            Ok(record)
        };
        let committed = match target.id {
            // Boxed: each is large, and all that writes would be as large as both.
            None => Box::pin(self.commit_null(target, &terms, ready, draft)).await,
            Some(id) => Box::pin(self.commit_version(target, id, &terms, ready, draft)).await,
        };
        if let Some(room) = room {
            match &committed {
                Ok((_, Change::Made { replaced })) => room.taken(terms.removes(*replaced)).await,
                Ok((_, Change::Nothing)) => room.returned().await,
                Err(error) if error.is_certain() => room.returned().await,
                // Whether it was written is not known, so it counts until somebody looks.
                Err(_) => drop(room),
            }
        }
        committed.map(|(object, _)| object)
    }

    /// Room for a write in a bucket with a quota.
    async fn room_for(&self, target: &Target, terms: &Terms, bytes: u64) -> Result<Option<Room>, ObjectError> {
        let (at, quota) = (&target.at, target.bucket.config.quota);
        if quota == Quota::default() {
            return Ok(None);
        }
        // What it will likely replace: a full bucket still takes what needs no more room.
        let replaced = match target.id {
            None => head_in(self.ledger.read(&at.register).await?.as_ref())?.null_object().map(|(_, old)| old.size),
            Some(_) => None,
        };
        self.hold_room(&at.bucket, quota, Usage::of(Some(bytes)), terms.removes(replaced)).await
    }

    async fn commit_null(
        &self,
        Target { at, bucket, .. }: &Target,
        terms: &Terms,
        ready: impl Future<Output = Result<ObjectRecord, ObjectError>> + Send,
        draft: Option<&Draft>,
    ) -> Result<(Object, Change), ObjectError> {
        let versioning = bucket.config.versioning;
        let mut written = None;
        let deciding = async {
            let record: &ObjectRecord = written.insert(ready.await?);
            Ok::<_, ObjectError>(move |current: Option<&Current>| {
                self.decide(current, terms, |head| match head.null_object() {
                    Some((_, null)) if terms.completes_until_ms.is_some() && null.body == record.body => {
                        Ok(Added::Before(Name::Null))
                    }
                    _ => {
                        terms.conditions.check(head.current_etag(), head.latest())?;
                        let (now, kind) = (self.ledger.stamp_after(head.latest()), Kind::Object(record.clone()));
                        Ok(head.put_null(kind, now, versioning, |old| self.check_replaced(old)).into())
                    }
                })
            })
        };
        let updated = self.ledger.update_when(at.register.clone(), deciding).await?;
        let unwritten = match &updated {
            Ok(updated) => !matches!(updated.answer, Ok(Added::Here(_))),
            Err(error) => nothing_written(error),
        };
        if let Some(draft) = draft
            && !unwritten
        {
            draft.keep();
        }
        let done = match updated.map_err(|error| terms.lost(error))?.answer? {
            Added::Here(done) => done,
            Added::Before(_) => return Ok((self.null_object(at).await?, Change::Nothing)),
            Added::Stopped(stop) => return Err(refusal_of(stop)),
        };
        let record =
            written.ok_or_else(|| ObjectError::Internal("the ledger committed before the record was ready".into()))?;
        let stamp = done.head.and_then(|head| head.null.map(|null| null.stamp)).unwrap_or_default();
        let replaced = done.freed.as_ref().map(|replaced| replaced.size);
        if let Some(replaced) = done.freed.filter(|replaced| replaced.body != record.body) {
            self.release(&replaced);
        }
        if let Err(error) = self.confirm(at, Made::Null(stamp)).await {
            if matches!(error, ObjectError::NoSuchBucket) {
                // It was visible for a moment, so it may have been copied: collection looks, nobody just deletes.
                self.release(&record);
            }
            return Err(error);
        }
        // Who puts the null version is told no version id, as at AWS, also while versions are suspended.
        Ok((Object::new(stamp, None, record), Change::Made { replaced }))
    }

    async fn commit_version(
        &self,
        Target { at, .. }: &Target,
        id: VersionId,
        terms: &Terms,
        ready: impl Future<Output = Result<ObjectRecord, ObjectError>> + Send,
        draft: Option<&Draft>,
    ) -> Result<(Object, Change), ObjectError> {
        let register = key::version(&at.register, id);
        let mut written = None;
        let storing = async {
            let value = written.insert(ready.await?).encode();
            Ok::<_, ObjectError>(move |current: Option<&Current>| match current {
                None => Decision::Put(value.clone(), true),
                Some(_) => Decision::Keep(false),
            })
        };
        let stored = self.ledger.update_when(register.clone(), storing).await?;
        let keep = || draft.into_iter().for_each(Draft::keep);
        match stored {
            Ok(updated) if updated.answer => {}
            Ok(_) => return Err(ObjectError::Internal(format!("version {id} was drawn twice"))),
            Err(error) => {
                if !nothing_written(&error) {
                    keep();
                }
                return Err(terms.lost(error));
            }
        }
        let record =
            written.ok_or_else(|| ObjectError::Internal("the ledger committed before the record was ready".into()))?;
        let mut line = LineRecord { id, kind: Kind::Object(Summary::from(&record)) };
        let mut added = self.add(at, &line, terms).await;
        for _ in 0..ATTEMPTS {
            if !matches!(added, Ok(Added::Stopped(Stop::Overtaken))) {
                break;
            }
            added = match self.redraw(at, line.id, &record).await {
                Ok(id) => {
                    line.id = id;
                    self.add(at, &line, terms).await
                }
                Err(error) => Err((error, true)),
            };
        }
        let id = line.id;
        let register = key::version(&at.register, id);
        let certain = match &added {
            Ok(Added::Here(_)) => false,
            Ok(_) => true,
            Err((_, certain)) => *certain,
        };
        // A version that is certainly not named is taken back; where that fails, its fragments are collection's.
        if !certain || !self.withdraw(&register).await {
            keep();
        }
        let done = match added.map_err(|(error, _)| error)? {
            Added::Here(done) => done,
            Added::Before(Name::Id(first)) => {
                let read = self.ledger.read(&key::version(&at.register, first)).await?;
                let object = read.map(|current| ObjectRecord::decode(&current.value)).transpose()?;
                let object = object.filter(|object| object.body == record.body).ok_or(ObjectError::NoSuchUpload)?;
                return Ok((Object::of_version(first, object, false), Change::Nothing));
            }
            Added::Before(Name::Null) => return Ok((self.null_object(at).await?, Change::Nothing)),
            Added::Stopped(stop) => return Err(refusal_of(stop)),
        };
        if let Some(head) = &done.head {
            self.seal_if_due(at, head.recent.len());
        }
        if let Err(error) = self.confirm(at, Made::Version(id)).await {
            if matches!(error, ObjectError::NoSuchBucket) {
                self.release(&record);
            }
            return Err(error);
        }
        Ok((Object::of_version(id, record, false), Change::Made { replaced: None }))
    }

    /// Writes a version that others overtook under a newer id. Below them it would never have been current, and one of them may
    /// have been made on the condition that nothing was there.
    async fn redraw(&self, at: &At, old: VersionId, record: &ObjectRecord) -> Result<VersionId, ObjectError> {
        let head = head_in(self.ledger.read(&at.register).await?.as_ref())?;
        let id = self.next_id(&head, old.nonce);
        let (from, to) = (key::version(&at.register, old), key::version(&at.register, id));
        // Its fragments are noted under the old one.
        let empty = matches!(&record.content, Content::Segments(segments) if segments.is_empty());
        if !empty && !self.share(record.body, [&from, &to]).await? {
            return Err(ObjectError::Overloaded);
        }
        let value = record.encode();
        self.ledger.update(to, |_| Decision::Put(value.clone(), ())).await?;
        self.withdraw(&from).await;
        Ok(id)
    }

    /// Names a version in its head. An error says whether it certainly is not named.
    async fn add(&self, at: &At, line: &LineRecord, terms: &Terms) -> Result<Added, (ObjectError, bool)> {
        for _ in 0..ATTEMPTS {
            let added = self.ledger.update(at.register.clone(), |current| {
                self.decide(current, terms, |head| {
                    let same_upload = |known: &&LineRecord| known.id.nonce == line.id.nonce && known.id != line.id;
                    if terms.completes_until_ms.is_some()
                        && let Some(first) = head.recent.iter().find(same_upload)
                    {
                        return Ok(Added::Before(Name::Id(first.id)));
                    }
                    terms.conditions.check(head.current_etag(), head.latest())?;
                    Ok(head.add_version(line.clone()).into())
                })
            });
            let answer = match added.await {
                Ok(updated) => updated.answer,
                Err(error) => {
                    let certain = nothing_written(&error);
                    return Err((terms.lost(error), certain));
                }
            };
            match answer.map_err(|error| (error, true))? {
                Added::Stopped(Stop::Finish) => {
                    self.clear_way(at, Stop::Finish).await.map_err(|error| (error, true))?;
                }
                other => return Ok(other),
            }
        }
        Err((ObjectError::Overloaded, true))
    }

    /// Runs one decision on a head: what it adds is written, all else changes nothing.
    fn decide(
        &self,
        current: Option<&Current>,
        terms: &Terms,
        decide: impl FnOnce(HeadRecord) -> Result<Added, ObjectError>,
    ) -> Decision<Result<Added, ObjectError>> {
        if terms.completes_until_ms.is_some_and(|until_ms| self.ledger.now_ms() > until_ms) {
            return Decision::Keep(Err(ObjectError::Unavailable("the completion took too long".to_owned())));
        }
        match head_in(current).and_then(decide) {
            Ok(Added::Here(done)) => match &done.head {
                Some(head) => Decision::Put(head.encode(), Ok(Added::Here(done))),
                None => Decision::Keep(Ok(Added::Here(done))),
            },
            other => Decision::Keep(other),
        }
    }

    /// Empties a version's register that no head names. Answers whether that is certain.
    async fn withdraw(&self, register: &Bytes) -> bool {
        match self.ledger.update(register.clone(), |_| Decision::Delete(())).await {
            Ok(_) => true,
            Err(error) => {
                debug!(register = %register.escape_ascii(), %error, "a version that nobody was told of is left to collection");
                false
            }
        }
    }

    /// Takes back what a write has made in a bucket that is gone.
    pub(super) async fn undo(&self, at: &At, made: Made) -> Result<(), ObjectError> {
        let stamp = match made {
            Made::Null(stamp) => stamp,
            Made::Version(id) => {
                self.ledger.update(key::version(&at.register, id), |_| Decision::Delete(())).await?;
                self.drop_line(at, id).await?;
                return Ok(());
            }
        };
        let undone = self.ledger.update(at.register.clone(), |current| match head_in(current) {
            Ok(head) if head.null.as_ref().is_some_and(|null| null.stamp == stamp) => {
                let left = HeadRecord { null: None, ..head };
                if left.is_empty() { Decision::Delete(Ok(())) } else { Decision::Put(left.encode(), Ok(())) }
            }
            Ok(_) => Decision::Keep(Ok(())),
            Err(error) => Decision::Keep(Err(error)),
        });
        undone.await?.answer
    }

    /// Object lock protects a null version from being written over too.
    fn check_replaced(&self, old: &ObjectRecord) -> Result<(), palm_core::s3::Refusal> {
        old.subresources.lock.check_delete(Asking { now_ms: self.ledger.now_ms(), bypass: false })
    }

    async fn null_object(&self, at: &At) -> Result<Object, ObjectError> {
        let current = self.ledger.read(&at.register).await?;
        let head = head_in(current.as_ref())?;
        let (stamp, object) = head.null_object().ok_or(ObjectError::NoSuchUpload)?;
        Ok(Object::new(stamp, None, object.clone()))
    }

    /// The object that came of an upload, as long as it stands.
    pub(super) async fn completed(
        &self,
        at: &At,
        upload: palm_core::id::BodyId,
    ) -> Result<Option<Object>, ObjectError> {
        let current = self.ledger.read(&at.register).await?;
        let head = head_in(current.as_ref())?;
        if head.null_object().is_some_and(|(_, object)| object.body == upload) {
            return self.null_object(at).await.map(Some);
        }
        let nonce = nonce_of(upload);
        let Some(line) = head.recent.iter().find(|line| line.id.nonce == nonce) else { return Ok(None) };
        let register = key::version(&at.register, line.id);
        let object = object_in(&register, self.ledger.read(&register).await?.as_ref())?;
        Ok(object.filter(|object| object.body == upload).map(|object| Object::of_version(line.id, object, false)))
    }
}

impl Terms {
    fn is_conditional(&self) -> bool {
        self.conditions != WriteConditions::default()
    }

    /// What is gone from the bucket once the object is there, in the place of one of so many bytes.
    fn removes(&self, replaced: Option<u64>) -> Usage {
        let Usage { bytes, objects } = Usage::of(replaced);
        Usage { bytes: bytes.saturating_add(self.parts_bytes), objects }
    }

    /// An update that failed. A conditional one that others outran has lost a race.
    fn lost(&self, error: LedgerError) -> ObjectError {
        match error {
            LedgerError::Contended if self.is_conditional() => ObjectError::Conflict,
            other => other.into(),
        }
    }
}

impl From<WriteConditions> for Terms {
    fn from(conditions: WriteConditions) -> Self {
        Self { conditions, ..Self::default() }
    }
}

impl From<Result<Done<ObjectRecord, Summary>, Stop>> for Added {
    fn from(result: Result<Done<ObjectRecord, Summary>, Stop>) -> Self {
        result.map_or_else(Self::Stopped, |done| Self::Here(Box::new(done)))
    }
}

fn refusal_of(stop: Stop) -> ObjectError {
    match stop {
        Stop::Refused(refusal) => refusal.into(),
        // Others were so quick that the client had better try again.
        Stop::Finish | Stop::TakeBack(_) | Stop::InPage(_) | Stop::Overtaken => ObjectError::Overloaded,
    }
}

/// Whether an update that failed has certainly left no trace.
pub(super) fn nothing_written(error: &LedgerError) -> bool {
    matches!(error, LedgerError::NoQuorum { .. } | LedgerError::Contended)
}

/// A part of a version's id that no other version has.
pub(super) fn new_nonce() -> Result<u64, ObjectError> {
    Ok(u64::from_be_bytes(random()?))
}

/// The same of what completes an upload: by it, two completions know each other.
pub(super) fn nonce_of(upload: palm_core::id::BodyId) -> u64 {
    upload.as_bytes()[8..].iter().fold(0, |nonce, &byte| nonce << 8 | u64::from(byte))
}
