//! Reading an object, or a version of it, and changing what is kept beside its bytes.
//!
//! What a key is has two kinds of registers ([`palm_core::s3::version`]): its *head*, which names its versions and holds the
//! null version, and one for each version with an id. A version is there while its own register is; its line in the head
//! comes after that and goes after it. So a line whose register is empty is what a deletion left behind that did not come to
//! its end, and whoever meets one removes it.

use bytes::Bytes;
use palm_core::record::{HeadRecord, LineRecord, ObjectRecord, PageRecord, Stored, key};
use palm_core::s3::Refusal;
use palm_core::s3::version::{self, Kind, Name, Null, VersionId, Versioning, no_such_version};

use super::store::At;
use super::{Object, ObjectError, Store};
use crate::pool::{Current, Decision};

/// Who is sent from the head to a version's register finds it empty so often only where versions come and go all the time.
const ATTEMPTS: usize = 8;

/// The head in a register; an empty one where there is none.
pub(super) fn head_in(current: Option<&Current>) -> Result<HeadRecord, ObjectError> {
    Ok(current.map(HeadRecord::of).transpose()?.unwrap_or_default())
}

/// The object whose body a holder refers to: a head's null version, or a version by its own register.
pub(super) fn object_in(holder: &[u8], current: Option<&Current>) -> Result<Option<ObjectRecord>, ObjectError> {
    let Some(current) = current else { return Ok(None) };
    if key::parse_version(holder).is_some() {
        return Ok(Some(ObjectRecord::decode(&current.value)?));
    }
    let null = HeadRecord::of(current)?.null;
    Ok(null.and_then(|null| match null.kind {
        Kind::Object(object) => Some(object),
        Kind::DeleteMarker => None,
    }))
}

/// What was found of a version in its head.
enum Found {
    Object(Box<Object>),
    /// It has an id, and is in its own register.
    Version(VersionId),
}

impl Store {
    /// An object's record, or one version of it, by a strong read; labelled where it is stale.
    ///
    /// # Errors
    /// [`ObjectError::Marker`] where that version is a delete marker.
    pub async fn head(&self, bucket: &str, key: &str, version: Option<Name>) -> Result<Object, ObjectError> {
        let at = At::new(bucket, key);
        let found = match version {
            Some(Name::Id(id)) => self.version(&at, id).await,
            Some(Name::Null) => self.null_version(&at).await,
            None => self.current(&at).await,
        };
        self.or_no_bucket(bucket, found).await
    }

    /// Changes an object, or one version of it, but not its bytes: `change` is asked inside the ledger update, perhaps
    /// more than once. When it was last modified stays.
    pub async fn change_object(
        &self,
        bucket: &str,
        key: &str,
        version: Option<Name>,
        change: impl Fn(&mut ObjectRecord) -> Result<(), Refusal> + Send + Sync,
    ) -> Result<Object, ObjectError> {
        let at = At::new(bucket, key);
        let changed = async {
            if let Some(Name::Id(id)) = version {
                return match self.change_version(&at, id, &change).await? {
                    Some(object) => Ok(object),
                    None => Err(self.no_object(&at, id).await),
                };
            }
            for _ in 0..ATTEMPTS {
                match self.change_in_head(&at, version.is_some(), &change).await? {
                    Found::Object(object) => return Ok(*object),
                    Found::Version(id) => match self.change_version(&at, id, &change).await? {
                        Some(object) => return Ok(object),
                        None => self.drop_line(&at, id).await?,
                    },
                };
            }
            Err(ObjectError::Overloaded)
        };
        self.or_no_bucket(bucket, changed.await).await
    }

    /// The current version.
    async fn current(&self, at: &At) -> Result<Object, ObjectError> {
        for _ in 0..ATTEMPTS {
            // This peer's own copy nearly always knows which version that is: then both registers are asked in one round. A
            // null version is most often all there is, and then there is no second register.
            let known = self.ledger.peek(&at.register).filter(|known| !HeadRecord::has_null(&known.value));
            let likely = known.and_then(|known| current_id(&HeadRecord::of(&known).ok()?));
            let ahead = async {
                let register = key::version(&at.register, likely?);
                self.ledger.read(&register).await.ok()?
            };
            let (read, ahead) = tokio::join!(self.ledger.read(&at.register), ahead);
            let (current, stale) = self.or_stale(read, &at.register)?;
            let id = match self.found_in(at, current.as_ref(), false, stale)? {
                Found::Object(object) => return Ok(*object),
                Found::Version(id) => id,
            };
            let register = key::version(&at.register, id);
            let (current, stale) = match ahead.filter(|_| likely == Some(id)) {
                Some(ahead) => (Some(ahead), stale),
                None => self.or_stale(self.ledger.read(&register).await, &register)?,
            };
            match current {
                Some(current) => return Ok(Object::of_version(id, ObjectRecord::decode(&current.value)?, stale)),
                None => self.drop_line(at, id).await?,
            };
        }
        Err(ObjectError::Overloaded)
    }

    async fn null_version(&self, at: &At) -> Result<Object, ObjectError> {
        let (current, stale) = self.or_stale(self.ledger.read(&at.register).await, &at.register)?;
        match self.found_in(at, current.as_ref(), true, stale)? {
            Found::Object(object) => Ok(*object),
            Found::Version(_) => Err(no_such_version().into()),
        }
    }

    /// A version by its id.
    async fn version(&self, at: &At, id: VersionId) -> Result<Object, ObjectError> {
        let register = key::version(&at.register, id);
        let (current, stale) = self.or_stale(self.ledger.read(&register).await, &register)?;
        match current {
            Some(current) => Ok(Object::of_version(id, ObjectRecord::decode(&current.value)?, stale)),
            None => Err(self.no_object(at, id).await),
        }
    }

    /// The current version, or (`named`) the null version, as the head has it.
    fn found_in(&self, at: &At, current: Option<&Current>, named: bool, stale: bool) -> Result<Found, ObjectError> {
        let mut head = head_in(current)?;
        match head.current() {
            _ if named => {}
            None => return Err(ObjectError::NoSuchKey),
            Some(version::Current::Version(line)) => return found_line(line),
            Some(version::Current::Null(_)) => {}
        }
        let Null { stamp, kind } = head.null.take().ok_or_else(no_such_version)?;
        match kind {
            Kind::Object(record) => {
                let id = (self.versioning(at) != Versioning::Off).then_some(Name::Null);
                Ok(Found::Object(Box::new(Object { stale, ..Object::new(stamp, id, record) })))
            }
            Kind::DeleteMarker => Err(ObjectError::Marker { named, version: Name::Null, modified_ms: stamp.millis() }),
        }
    }

    async fn change_in_head(
        &self,
        at: &At,
        named: bool,
        change: impl Fn(&mut ObjectRecord) -> Result<(), Refusal> + Send + Sync,
    ) -> Result<Found, ObjectError> {
        let changed = self.ledger.update(at.register.clone(), |current| {
            let changed = self.found_in(at, current, named, false).and_then(|found| {
                let Found::Object(mut object) = found else { return Ok((None, found)) };
                let mut head = head_in(current)?;
                change(&mut object.record)?;
                let kind = Kind::Object(object.record.clone());
                head.null = head.null.map(|null| Null { kind, ..null });
                Ok((Some(head.encode()), Found::Object(object)))
            });
            match changed {
                Ok((Some(value), found)) => Decision::Put(value, Ok(found)),
                Ok((None, found)) => Decision::Keep(Ok(found)),
                Err(error) => Decision::Keep(Err(error)),
            }
        });
        changed.await?.answer
    }

    /// Changes a version with an id; `None` where it is not.
    async fn change_version(
        &self,
        at: &At,
        id: VersionId,
        change: impl Fn(&mut ObjectRecord) -> Result<(), Refusal> + Send + Sync,
    ) -> Result<Option<Object>, ObjectError> {
        let register = key::version(&at.register, id);
        let changed = self.ledger.update(register.clone(), |current| {
            let changed = object_in(&register, current).and_then(|object| {
                let Some(mut object) = object else { return Ok(None) };
                change(&mut object)?;
                Ok(Some(object))
            });
            match changed {
                Ok(Some(object)) => Decision::Put(object.encode(), Ok(Some(object))),
                other => Decision::Keep(other),
            }
        });
        Ok(changed.await?.answer?.map(|record| Object::of_version(id, record, false)))
    }

    /// Why a version has no register: it is a marker, or it is not there.
    async fn no_object(&self, at: &At, id: VersionId) -> ObjectError {
        let line = async {
            let head = head_in(self.ledger.read(&at.register).await?.as_ref())?;
            self.line(at, &head, id).await
        };
        match line.await {
            Ok(Some(line)) if line.kind == Kind::DeleteMarker => {
                ObjectError::Marker { named: true, version: Name::Id(id), modified_ms: id.stamp.millis() }
            }
            Ok(_) => no_such_version().into(),
            Err(error) => error,
        }
    }

    /// A version's line, wherever it is.
    async fn line(&self, at: &At, head: &HeadRecord, id: VersionId) -> Result<Option<LineRecord>, ObjectError> {
        if let Some(line) = head.recent.iter().find(|line| line.id == id) {
            return Ok(Some(line.clone()));
        }
        let Some(page) = head.page_of(id) else { return Ok(None) };
        let page = self.ledger.read(&key::page(&at.register, page)).await?;
        let page = page.ok_or_else(|| self.gone("a page of versions"))?;
        Ok(PageRecord::decode(&page.value)?.lines.into_iter().find(|line| line.id == id))
    }

    /// Whether an object's head names this version, where the head is read so that nothing older surfaces later.
    pub(super) async fn is_named(&self, object: Bytes, id: VersionId) -> Result<bool, ObjectError> {
        let head = head_in(self.ledger.read_fenced(&object).await?.as_ref())?;
        let at = At { bucket: String::new(), register: object };
        Ok(self.line(&at, &head, id).await?.is_some())
    }

    /// The same by this peer's own copy.
    pub(super) fn seems_named(&self, object: &Bytes, id: VersionId) -> bool {
        let Some(head) = self.ledger.peek(object).and_then(|known| HeadRecord::of(&known).ok()) else { return false };
        let holds = |page: u64| {
            let page = PageRecord::decode(&self.ledger.peek(&key::page(object, page))?.value).ok()?;
            page.lines.iter().any(|line| line.id == id).then_some(())
        };
        head.recent.iter().any(|line| line.id == id) || head.page_of(id).and_then(holds).is_some()
    }

    /// Whether a bucket keeps versions, by this peer's own copy. Good enough for what answers say of the null version.
    pub(super) fn versioning(&self, at: &At) -> Versioning {
        self.peek_bucket(&at.bucket).map(|bucket| bucket.config.versioning).unwrap_or_default()
    }

    /// What was not found may be so because there is no bucket, and only then that matters.
    async fn or_no_bucket<T>(&self, bucket: &str, found: Result<T, ObjectError>) -> Result<T, ObjectError> {
        match found {
            Err(error) if error.is_absence() => match self.missing(bucket).await {
                ObjectError::NoSuchKey => Err(error),
                other => Err(other),
            },
            other => other,
        }
    }
}

fn current_id(head: &HeadRecord) -> Option<VersionId> {
    match head.current()? {
        version::Current::Version(line) => Some(line.id),
        version::Current::Null(_) => None,
    }
}

fn found_line(line: &LineRecord) -> Result<Found, ObjectError> {
    match line.kind {
        Kind::Object(_) => Ok(Found::Version(line.id)),
        Kind::DeleteMarker => {
            let modified_ms = line.id.stamp.millis();
            Err(ObjectError::Marker { named: false, version: Name::Id(line.id), modified_ms })
        }
    }
}
