//! Buckets, and why deleting one cannot lose an object.
//!
//! A bucket and its objects are different registers, so "the bucket is empty, remove it" and "the bucket is
//! there, add an object" could pass each other. They cannot, because each side looks at the other's register
//! *after* it changed its own:
//!
//! - `delete_bucket` marks the bucket [`Deleting`](BucketState::Deleting) by consensus, *then* lists its objects
//!   with a strong scan, and only if there is none replaces **its own mark** (by version, R1) by a tombstone.
//! - A write commits its object by consensus, *then* reads the bucket strongly ([`Store::confirm`]).
//!
//! Take a write that read `Active` after its commit. A mark that was set before that read has been lifted
//! before it too, so its deleter no longer finds its own mark and fails; a mark set after that read is
//! followed by a listing that sees the object. Either way the object is not lost.
//!
//! A write that finds the mark lifts it: its own object proves that the bucket is not empty, so there is
//! nothing to wait for, and a deleter that crashed blocks nobody. A write that finds the bucket gone takes its object
//! back. A reader may have seen that object for a moment; nobody was told that it was stored.

use palm_core::hlc::Ballot;
use palm_core::id::KeyId;
use palm_core::record::{BucketConfig, BucketRecord, BucketState, Stored, key};
use palm_core::s3::Refusal;
use palm_core::s3::version::Versioning;
use palm_core::wire::ScanQuery;
use tracing::{debug, info, warn};

use super::commit::Made;
use super::store::{At, random};
use super::{ListPage, ListQuery, Listed, ObjectError, Store, list};
use crate::pool::ledger::Item;
use crate::pool::{Current, Decision};

/// A deletion whose mark was lifted starts again this often before it gives up: each time a write was under way.
const DELETE_ATTEMPTS: usize = 3;
/// Uploads of a deleted bucket dropped per page.
const DROP_PAGE: u32 = 1000;
/// The settings of one bucket together, encoded: they are read with every request that depends on one. Each of AWS's own
/// limits fits but the largest together.
const BUCKET_MAX_BYTES: usize = 256 << 10;

fn too_many_settings() -> Refusal {
    let text = format!("The settings of a bucket may take {} KiB together", BUCKET_MAX_BYTES >> 10);
    Refusal::invalid_request(text)
}

impl Store {
    /// Creates a bucket of an account (its canonical id), with a data key of its own.
    pub async fn create_bucket(&self, name: &str, owner: &str, config: BucketConfig) -> Result<(), ObjectError> {
        self.check_versioning(&config)?;
        let register = key::bucket(name);
        if let Some(current) = self.ledger.read_shared(&register).await? {
            return Err(exists(&BucketRecord::decode(&current.value)?, owner));
        }
        // The key is stored before the bucket that names it. Losing the race below leaves a key that seals
        // nothing: 100 bytes.
        let data_key = KeyId::from_bytes(random()?);
        let sealed = self.new_data_key(data_key)?.encode();
        self.ledger.update(key::data_key(data_key), |_| Decision::Put(sealed.clone(), ())).await?;

        let record = BucketRecord {
            owner: owner.to_owned(),
            created_ms: self.ledger.now_ms(),
            state: BucketState::Active,
            data_key,
            config,
        };
        let value = record.encode();
        let created = self.ledger.update(register, |current| match current {
            None => Decision::Put(value.clone(), Ok(())),
            Some(current) => Decision::Keep(Err(match BucketRecord::decode(&current.value) {
                Ok(existing) => exists(&existing, owner),
                Err(error) => error.into(),
            })),
        });
        created.await?.answer?;
        info!(bucket = name, owner, "bucket created");
        Ok(())
    }

    /// A bucket, as a strong read finds it. One that is being deleted is still there.
    pub async fn bucket(&self, name: &str) -> Result<BucketRecord, ObjectError> {
        let current = self.ledger.read_shared(&key::bucket(name)).await?;
        let current = current.ok_or(ObjectError::NoSuchBucket)?;
        Ok(BucketRecord::decode(&current.value)?)
    }

    /// A bucket as this peer knows it, for what is told besides an answer and for what is looked at again later.
    pub fn peek_bucket(&self, name: &str) -> Option<BucketRecord> {
        BucketRecord::decode(&self.ledger.peek(&key::bucket(name))?.value).ok()
    }

    /// Changes a bucket: `change` is asked inside the ledger update, perhaps more than once.
    pub async fn change_bucket(
        &self,
        name: &str,
        change: impl Fn(&mut BucketRecord) -> Result<(), Refusal> + Send + Sync,
    ) -> Result<BucketRecord, ObjectError> {
        let changed = self.ledger.update(key::bucket(name), |current| {
            let Some(current) = current else { return Decision::Keep(Err(ObjectError::NoSuchBucket)) };
            let mut record = match BucketRecord::decode(&current.value) {
                Ok(record) => record,
                Err(error) => return Decision::Keep(Err(error.into())),
            };
            match change(&mut record).and_then(|()| self.check_versioning(&record.config)) {
                Ok(()) => match record.encode() {
                    value if value.len() > BUCKET_MAX_BYTES => Decision::Keep(Err(too_many_settings().into())),
                    value => Decision::Put(value, Ok(record)),
                },
                Err(refusal) => Decision::Keep(Err(refusal.into())),
            }
        });
        changed.await?.answer
    }

    /// Islands of a local pool that meet again would have to merge the versions of a key one by one: there are none there, and
    /// so no object lock.
    fn check_versioning(&self, config: &BucketConfig) -> Result<(), Refusal> {
        if self.is_local() && config.versioning != Versioning::Off {
            return Err(Refusal::with_status(501, "NotImplemented", "Versioning needs a pool of strong consistency"));
        }
        Ok(())
    }

    /// A bucket for a write to begin with: this peer's copy will do, since the write ends with
    /// [`confirm`](Self::confirm). Asks only when the copy says that there is none.
    pub(super) async fn bucket_to_write(&self, name: &str) -> Result<BucketRecord, ObjectError> {
        match self.peek_bucket(name) {
            Some(known) => Ok(known),
            None => self.bucket(name).await,
        }
    }

    /// Deletes a bucket without objects. Its open uploads go with it, as at AWS.
    pub async fn delete_bucket(&self, name: &str) -> Result<(), ObjectError> {
        for _ in 0..DELETE_ATTEMPTS {
            let marked = self.mark_deleting(name).await?;
            let occupied = self.has_objects(name).await;
            if !matches!(occupied, Ok(false)) {
                self.lift_mark(name, marked).await;
            }
            if occupied? {
                return Err(ObjectError::BucketNotEmpty);
            }
            let removed = self.ledger.update(key::bucket(name), |current| match current {
                Some(current) if current.version == marked => Decision::Delete(true),
                _ => Decision::Keep(false),
            });
            if removed.await?.answer {
                info!(bucket = name, "bucket deleted");
                let store = self.clone();
                let name = name.to_owned();
                tokio::spawn(async move { store.drop_uploads(&name).await });
                return Ok(());
            }
            debug!(bucket = name, "deletion was interrupted by a write; trying again");
        }
        Err(ObjectError::Conflict)
    }

    /// A bucket for an answer that says by itself whether it is stale.
    pub async fn known_bucket(&self, name: &str) -> Result<BucketRecord, ObjectError> {
        let register = key::bucket(name);
        let (current, _) = self.or_stale(self.ledger.read_shared(&register).await, &register)?;
        Ok(BucketRecord::decode(&current.ok_or(ObjectError::NoSuchBucket)?.value)?)
    }

    /// Buckets by name.
    pub async fn list_buckets(&self, query: ListQuery) -> Result<ListPage<BucketRecord>, ObjectError> {
        let (page, stale) = self.scan_or_stale(list::scan_query(&key::buckets(), &query)).await?;
        let mut items = Vec::with_capacity(page.items.len());
        for item in page.items {
            items.push(match item {
                Item::Register(register, current) => {
                    Listed::Key(list::text(&register, 1)?, BucketRecord::decode(&current.value)?)
                }
                Item::Group(prefix) => Listed::Group(list::text(&prefix, 1)?),
            });
        }
        Ok(ListPage { items, next: page.next.and_then(|next| list::resume_at(&next, 1)), stale })
    }

    /// Ends a write at `at` that was committed and made this: makes sure that its bucket outlived it, or takes
    /// the write back. See the top of this file.
    pub(super) async fn confirm(&self, at: &At, made: Made) -> Result<(), ObjectError> {
        let register = key::bucket(&at.bucket);
        if let Some(current) = self.ledger.read_shared(&register).await?
            && BucketRecord::decode(&current.value)?.state == BucketState::Active
        {
            return Ok(());
        }
        let lifted = self.ledger.update(register, |current| with_state(current, None, BucketState::Active));
        if lifted.await?.answer? {
            return Ok(());
        }
        self.undo(at, made).await?;
        Err(ObjectError::NoSuchBucket)
    }

    /// Marks a bucket as being deleted, afresh where it already is: whoever set that mark may have crashed.
    /// Answers the mark's version.
    async fn mark_deleting(&self, name: &str) -> Result<Ballot, ObjectError> {
        let marked = self.ledger.update(key::bucket(name), |current| {
            let Some(current) = current else { return Decision::Keep(Err(ObjectError::NoSuchBucket)) };
            match BucketRecord::decode(&current.value) {
                Ok(record) => Decision::Put(BucketRecord { state: BucketState::Deleting, ..record }.encode(), Ok(())),
                Err(error) => Decision::Keep(Err(error.into())),
            }
        });
        let marked = marked.await?;
        marked.answer?;
        Ok(marked.version)
    }

    /// Lifts one's own mark. Best effort: a mark left behind hinders nobody.
    async fn lift_mark(&self, name: &str, marked: Ballot) {
        let lifted =
            self.ledger.update(key::bucket(name), |current| with_state(current, Some(marked), BucketState::Active));
        if let Err(error) = lifted.await {
            debug!(bucket = name, %error, "mark of a deletion left behind");
        }
    }

    /// Whether a strong listing shows an object.
    async fn has_objects(&self, name: &str) -> Result<bool, ObjectError> {
        let prefix = key::objects(name);
        let mut start = prefix.clone();
        loop {
            let query = ScanQuery { prefix: prefix.clone(), start, delimiter: None, limit: 1 };
            let page = self.ledger.scan(query).await?;
            match page.next {
                _ if !page.items.is_empty() => return Ok(true),
                Some(next) => start = next,
                None => return Ok(false),
            }
        }
    }

    /// Drops what uploads a deleted bucket had. Should this not finish, they belong to no bucket all the
    /// same: an upload counts only under the data key of its bucket.
    async fn drop_uploads(&self, name: &str) {
        let prefix = key::uploads(name);
        let mut start = prefix.clone();
        loop {
            let query = ScanQuery { prefix: prefix.clone(), start, delimiter: None, limit: DROP_PAGE };
            let page = match self.ledger.scan(query).await {
                Ok(page) => page,
                Err(error) => return warn!(bucket = name, %error, "uploads of a deleted bucket remain"),
            };
            for item in page.items {
                let Item::Register(register, current) = item else { continue };
                let dropped = self.ledger.update(register, |now| match now {
                    // The bucket may have been created again, with new uploads.
                    Some(now) if now.version == current.version => Decision::Delete(()),
                    _ => Decision::Keep(()),
                });
                if let Err(error) = dropped.await {
                    return warn!(bucket = name, %error, "uploads of a deleted bucket remain");
                }
            }
            match page.next {
                Some(next) => start = next,
                None => return,
            }
        }
    }
}

fn exists(record: &BucketRecord, asker: &str) -> ObjectError {
    ObjectError::BucketExists { owned: record.owner == asker }
}

/// Sets a bucket's state, where its version is `only` (if given). Answers whether the bucket is there.
fn with_state(
    current: Option<&Current>,
    only: Option<Ballot>,
    state: BucketState,
) -> Decision<Result<bool, ObjectError>> {
    let Some(current) = current else { return Decision::Keep(Ok(false)) };
    match BucketRecord::decode(&current.value) {
        Ok(record) if record.state != state && only.is_none_or(|only| only == current.version) => {
            Decision::Put(BucketRecord { state, ..record }.encode(), Ok(true))
        }
        Ok(_) => Decision::Keep(Ok(true)),
        Err(error) => Decision::Keep(Err(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use palm_core::hlc::Stamp;

    fn current(state: BucketState, stamp: u64) -> Current {
        let record = BucketRecord {
            owner: "o".into(),
            created_ms: 0,
            state,
            data_key: KeyId::from_bytes([0; 16]),
            config: BucketConfig::default(),
        };
        Current { version: version(stamp), value: record.encode() }
    }

    fn version(stamp: u64) -> Ballot {
        Ballot { stamp: Stamp(stamp), ..Ballot::ZERO }
    }

    /// A deleter marks, is slow, and meanwhile a write lifts the mark and another deleter sets its own. The
    /// first must not lift (or act on) a mark that is not its own: the second's listing came later.
    #[test]
    fn a_mark_is_lifted_only_by_its_version_or_by_a_write() {
        use BucketState::{Active, Deleting};
        let state = |decision| match decision {
            Decision::Put(value, Ok(true)) => Some(BucketRecord::decode(&value).unwrap().state),
            Decision::Keep(Ok(_)) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(state(with_state(Some(&current(Deleting, 2)), Some(version(1)), Active)), None);
        assert_eq!(state(with_state(Some(&current(Deleting, 2)), Some(version(2)), Active)), Some(Active));
        assert_eq!(state(with_state(Some(&current(Deleting, 2)), None, Active)), Some(Active));
        assert_eq!(state(with_state(Some(&current(Active, 2)), None, Active)), None);
        assert!(matches!(with_state(None, None, Active), Decision::Keep(Ok(false))));
        let rotten = Current { version: version(1), value: Bytes::from_static(b"\xff") };
        assert!(matches!(with_state(Some(&rotten), None, Active), Decision::Keep(Err(_))));
    }
}
