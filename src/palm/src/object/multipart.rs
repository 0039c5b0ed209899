//! Multipart uploads until they are completed: begun, filled with parts, listed, aborted.
//!
//! An upload is one register; each attempt at each part is a register of its own, written once, so that parts
//! uploaded at the same time through different peers never wait for each other. Of several attempts at one
//! number the newest version counts. An upload belongs to its bucket only while it carries the bucket's data key:
//! a bucket deleted and created anew starts without uploads.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use palm_core::hlc::Ballot;
use palm_core::id::BodyId;
use palm_core::record::{
    BucketRecord, Checksum, ChecksumAlgorithm, ChecksumKind, PartRecord, Stored, Subresources, UploadRecord,
    UploadState, key,
};
use palm_core::s3::lock::Lock;
use palm_core::s3::quota::{Quota, Usage};
use palm_core::wire::{Request, ScanQuery};

use super::commit::nothing_written;
use super::draft::Draft;
use super::put::Received;
use super::quota::Room;
use super::store::{At, new_upload, random};
use super::{Incoming, ListPage, ListQuery, Listed, NewObject, ObjectError, Store, list};
use crate::pool::Decision;
use crate::pool::ledger::Item;

/// Part numbers go from 1 to this.
pub const MAX_PARTS: u16 = 10_000;
/// Part registers per page of a scan.
const PART_PAGE: u32 = 1000;
/// An upload marked as being completed for longer than this was left so by a peer that died, and may be aborted.
/// A completion gives up long before (see `complete.rs`).
const COMPLETING_MS: u64 = 60 * 60 * 1000;

/// A new upload's properties.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewUpload {
    /// Canonical id of the asker.
    pub owner: String,
    /// The object to come.
    pub object: NewObject,
    /// Checksum asked for.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
}

/// A part as listed or stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartInfo {
    /// 1 to 10,000.
    pub number: u16,
    /// Bytes.
    pub size: u64,
    /// MD5: its entity tag.
    pub md5: [u8; 16],
    /// Its checksum.
    pub checksum: Option<Checksum>,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: u64,
}

/// One attempt at a part, as a scan finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredPart {
    pub(super) attempt: u64,
    pub(super) version: Ballot,
    pub(super) record: PartRecord,
}

/// The newest attempt at each part, and the registers of all others.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) newest: BTreeMap<u16, StoredPart>,
    pub(super) outdated: Vec<(Bytes, PartRecord)>,
}

impl Parts {
    /// Bytes of those that count.
    pub(super) fn bytes(&self) -> u64 {
        self.newest.values().map(|part| part.record.size).fold(0, u64::saturating_add)
    }

    fn add(&mut self, upload: BodyId, number: u16, part: StoredPart) {
        let older = match self.newest.remove(&number) {
            Some(held) if held.version > part.version => {
                self.newest.insert(number, held);
                Some(part)
            }
            held => {
                self.newest.insert(number, part);
                held
            }
        };
        self.outdated.extend(older.map(|older| (key::part(upload, number, older.attempt), older.record)));
    }
}

impl Store {
    /// Begins an upload.
    pub async fn create_upload(&self, bucket: &str, key: &str, new: NewUpload) -> Result<BodyId, ObjectError> {
        let BucketRecord { data_key, config, .. } = self.bucket(bucket).await?;
        let now_ms = self.ledger.now_ms();
        let id = new_upload(now_ms)?;
        let NewUpload { owner, object, checksum } = new;
        let NewObject { attributes, subresources, customer_key } = object;
        let lock = Lock::for_new(subresources.lock, config.object_lock.map(|lock| lock.default), now_ms)?;
        let subresources = Subresources { lock, ..subresources };
        let record = UploadRecord {
            owner,
            created_ms: now_ms,
            state: UploadState::Open,
            attributes,
            checksum,
            data_key,
            subresources,
            customer_key,
        };
        let value = record.encode();
        self.ledger.update(key::upload(bucket, key, id), |_| Decision::Put(value.clone(), ())).await?;
        Ok(id)
    }

    /// An upload that has not ended, by a strong read.
    pub async fn upload(&self, bucket: &str, key: &str, id: BodyId) -> Result<UploadRecord, ObjectError> {
        Ok(self.upload_and_bucket(bucket, key, id).await?.0)
    }

    async fn upload_and_bucket(
        &self,
        bucket: &str,
        key: &str,
        id: BodyId,
    ) -> Result<(UploadRecord, BucketRecord), ObjectError> {
        let register = key::upload(bucket, key, id);
        let (of, current) = tokio::join!(self.bucket(bucket), self.ledger.read(&register));
        let record = UploadRecord::decode(&current?.ok_or(ObjectError::NoSuchUpload)?.value)?;
        let of = of?;
        if record.data_key == of.data_key { Ok((record, of)) } else { Err(ObjectError::NoSuchUpload) }
    }

    /// Stores a part. One of the same number stored before is replaced.
    pub async fn put_part(
        &self,
        bucket: &str,
        key: &str,
        id: BodyId,
        number: u16,
        mut body: Incoming,
    ) -> Result<PartInfo, ObjectError> {
        let (upload, of) = self.upload_and_bucket(bucket, key, id).await?;
        if upload.state != UploadState::Open {
            return Err(ObjectError::NoSuchUpload);
        }
        let algorithm = upload.checksum.map(|(algorithm, _)| algorithm);
        if let Some(algorithm) = algorithm
            && !body.algorithms.contains(&algorithm)
        {
            body.algorithms.push(algorithm);
        }
        let at = At::new(bucket, key);
        let draft = Arc::new(Draft::new(self, id, at.register, upload.attributes.storage_class.clone()));
        let data_key = self.data_key(upload.data_key).await?;
        let received = self.receive(&draft, data_key, body).await?;

        let (store, bucket) = (self.clone(), bucket.to_owned());
        Self::settle(async move {
            let room = store.room_for_part((&bucket, of.config.quota), (id, number), received.digested.size).await?;
            let stored = store.commit_part(&draft, number, algorithm, received).await;
            match (room, &stored) {
                (Some(room), Err(error)) if error.is_certain() => room.returned().await,
                // Entered already. Where it is not known whether the part was written, it counts until somebody looks.
                _ => {}
            }
            stored
        })
        .await
    }

    /// Room for a part in a bucket with a quota, in the place of an earlier attempt at it.
    async fn room_for_part(
        &self,
        (bucket, quota): (&str, Quota),
        (upload, number): (BodyId, u16),
        bytes: u64,
    ) -> Result<Option<Room>, ObjectError> {
        if quota == Quota::default() {
            return Ok(None);
        }
        let earlier = self.parts_under(upload, key::attempts(upload, number)).await?.bytes();
        self.hold_room(bucket, quota, Usage::of_parts(bytes), Usage::of_parts(earlier)).await
    }

    async fn commit_part(
        &self,
        draft: &Arc<Draft>,
        number: u16,
        algorithm: Option<ChecksumAlgorithm>,
        received: Received,
    ) -> Result<PartInfo, ObjectError> {
        let Received { digested, checksum, rest, share } = received;
        // An upload that asked for a checksum has one of every part, or it could not be completed with one.
        let checksum = match (algorithm, checksum) {
            (Some(algorithm), given) if given.as_ref().is_none_or(|given| given.algorithm != algorithm) => {
                digested.checksums.iter().find(|computed| computed.algorithm == algorithm).cloned()
            }
            (_, given) => given,
        };
        let attempt = u64::from_be_bytes(random()?);
        let storing = async {
            let segments = rest.store(draft).await?;
            drop(share);
            let record = PartRecord { size: digested.size, md5: digested.md5, checksum: checksum.clone(), segments };
            let value = record.encode();
            Ok::<_, ObjectError>(move |_: Option<&_>| Decision::Put(value.clone(), ()))
        };
        let written = self.ledger.update_when(key::part(draft.body, number, attempt), storing).await?;
        if !written.as_ref().is_err_and(nothing_written) {
            draft.keep();
        }
        let modified_ms = written?.version.stamp.millis();
        Ok(PartInfo { number, size: digested.size, md5: digested.md5, checksum, modified_ms })
    }

    /// An upload and all its parts in order, the newest attempt at each.
    pub async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        id: BodyId,
    ) -> Result<(UploadRecord, Vec<PartInfo>), ObjectError> {
        let upload = self.upload(bucket, key, id).await?;
        let parts = self.parts(id).await?.newest;
        let infos = parts.into_iter().map(|(number, StoredPart { version, record, .. })| PartInfo {
            number,
            size: record.size,
            md5: record.md5,
            checksum: record.checksum,
            modified_ms: version.stamp.millis(),
        });
        Ok((upload, infos.collect()))
    }

    /// The uploads of a bucket by key, those of one key by the time they began. `query.start` is the first key
    /// of interest; with `upload_marker`, only uploads of that key after this one, and all later keys. Where a
    /// page ends among the uploads of one key, go on with that key and the last upload's id as marker.
    pub async fn list_uploads(
        &self,
        bucket: &str,
        query: ListQuery,
        upload_marker: Option<BodyId>,
    ) -> Result<ListPage<(BodyId, UploadRecord)>, ObjectError> {
        let of = self.bucket(bucket).await?;
        let base = key::uploads(bucket);
        let mut scan = list::scan_query(&base, &query);
        if let Some(marker) = upload_marker {
            // Just after the marker's own register.
            scan.start = [key::upload(bucket, &query.start, marker).as_ref(), b"\0"].concat().into();
        }
        let page = self.ledger.scan(scan).await?;
        let mut items = Vec::with_capacity(page.items.len());
        for item in page.items {
            match item {
                Item::Register(register, current) => {
                    let record = UploadRecord::decode(&current.value)?;
                    let parsed = register.get(base.len()..).and_then(key::parse_upload);
                    let (key, id) =
                        parsed.ok_or_else(|| ObjectError::Internal("malformed upload register".to_owned()))?;
                    if record.data_key == of.data_key {
                        items.push(Listed::Key(key.to_owned(), (id, record)));
                    }
                }
                Item::Group(prefix) => items.push(Listed::Group(list::text(&prefix, base.len())?)),
            }
        }
        // A next register key holds the object key up to NUL.
        let next = page.next.and_then(|next| {
            let end = next.get(base.len()..)?.iter().position(|&byte| byte == 0).map(|nul| base.len() + nul);
            list::resume_at(&next[..end.unwrap_or(next.len())], base.len())
        });
        Ok(ListPage { items, next, stale: false })
    }

    /// Aborts an upload. Its parts go by collection.
    pub async fn abort_upload(&self, bucket: &str, key: &str, id: BodyId) -> Result<(), ObjectError> {
        let (_, of) = self.upload_and_bucket(bucket, key, id).await?;
        let entered = if of.config.quota == Quota::default() { 0 } else { self.parts(id).await?.bytes() };
        let at = At::new(bucket, key);
        let now_ms = self.ledger.now_ms();
        let aborted = self.ledger.update(key::upload(bucket, key, id), |current| {
            let Some(current) = current else { return Decision::Keep(Err(ObjectError::NoSuchUpload)) };
            let since_ms = now_ms.saturating_sub(current.version.stamp.millis());
            match UploadRecord::decode(&current.value) {
                Ok(record) if record.state == UploadState::Open || since_ms > COMPLETING_MS => Decision::Delete(Ok(())),
                // Its parts may be part of an object any moment.
                Ok(_) => Decision::Keep(Err(ObjectError::Conflict)),
                Err(error) => Decision::Keep(Err(error.into())),
            }
        });
        match aborted.await?.answer {
            Err(ObjectError::Conflict) if self.completed(&at, id).await?.is_some() => Err(ObjectError::NoSuchUpload),
            Err(error) => Err(error),
            Ok(()) => {
                self.give_room(bucket, Usage::of_parts(entered)).await;
                let homes = self.view.candidates().into_iter().map(|candidate| candidate.peer);
                self.tell(homes, &Request::Release { body: id });
                Ok(())
            }
        }
    }

    /// All parts of an upload, by a strong scan.
    pub(super) async fn parts(&self, id: BodyId) -> Result<Parts, ObjectError> {
        self.parts_under(id, key::parts(id)).await
    }

    async fn parts_under(&self, id: BodyId, prefix: Bytes) -> Result<Parts, ObjectError> {
        let mut start = prefix.clone();
        let mut parts = Parts::default();
        loop {
            let query = ScanQuery { prefix: prefix.clone(), start, delimiter: None, limit: PART_PAGE };
            let page = self.ledger.scan(query).await?;
            for item in page.items {
                let Item::Register(register, current) = item else { continue };
                let (number, attempt) = key::parse_part(&register)
                    .ok_or_else(|| ObjectError::Internal("malformed part register".to_owned()))?;
                let record = PartRecord::decode(&current.value)?;
                parts.add(id, number, StoredPart { attempt, version: current.version, record });
            }
            match page.next {
                Some(next) => start = next,
                None => return Ok(parts),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use palm_core::hlc::Stamp;

    use super::*;

    /// A client uploads part 1 twice, the second time with other bytes, and completes. The newest must count
    /// whatever order the scan finds them in, and the older one must be known, so that its space is freed.
    #[test]
    fn the_newest_attempt_at_a_part_counts() {
        let upload = BodyId::from_bytes([1; 16]);
        let part = |attempt, stamp, size| StoredPart {
            attempt,
            version: Ballot { stamp: Stamp(stamp), ..Ballot::ZERO },
            record: PartRecord { size, md5: [0; 16], checksum: None, segments: Vec::new() },
        };
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let attempts = [part(9, 5, 100), part(7, 6, 200), part(8, 4, 300)];
            let mut parts = Parts::default();
            for at in order {
                parts.add(upload, 1, attempts[at].clone());
            }
            assert_eq!(parts.newest[&1].record.size, 200);
            let mut outdated: Vec<u64> = parts.outdated.iter().map(|(_, record)| record.size).collect();
            outdated.sort_unstable();
            assert_eq!(outdated, [100, 300]);
            let keys: Vec<_> = parts.outdated.iter().map(|(key, _)| key::parse_part(key).unwrap().1).collect();
            assert!(!keys.contains(&7));
        }
    }
}
