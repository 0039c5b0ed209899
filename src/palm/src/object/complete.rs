//! Completing a multipart upload: its parts become an object, and no data moves.
//!
//! 1. The parts are listed by a strong scan and judged. A refusal leaves the upload as it was.
//! 2. The upload is marked [`Completing`](UploadState::Completing): from here no abort can win, and one that came
//!    first has taken the upload away.
//! 3. The object's record is written, its conditions decided inside the update. Whoever finds that the object
//!    already is this upload has come second and gives the same answer: identical requests agree, and a retry
//!    after a lost answer succeeds.
//! 4. The upload's register is removed, and parts that did not get into the object are dropped.
//!
//! A mark left by a peer that died stops no later completion. It stops an abort for an hour, after which the
//! completion is known to have given up: it does not write the record once [`GIVE_UP_MS`] have passed.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER_PERMISSIVE;
use palm_core::hlc::Ballot;
use palm_core::id::BodyId;
use palm_core::record::{
    Checksum, ChecksumKind, Content, Etag, ObjectRecord, PartRef, Stored, UploadRecord, UploadState, key,
};
use palm_core::wire::Request;
use tracing::debug;

use super::commit::{Terms, nonce_of};
use super::digest::{combine, composite, md5_of, pieces};
use super::head::head_in;
use super::multipart::{MAX_PARTS, Parts};
use super::store::At;
use super::{BodyError, Object, ObjectError, Rejection, Store, WriteConditions};
use crate::pool::Decision;

/// Every part but the last is at least this long
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>).
const MIN_PART_BYTES: u64 = 5 << 20;
/// The longest object S3 knows: 5 TiB.
const MAX_OBJECT_BYTES: u64 = 5 << 40;
/// A completion older than this by the ledger's clock is not written any more.
const GIVE_UP_MS: u64 = 10 * 60 * 1000;

/// A part as a client names it in `CompleteMultipartUpload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedPart {
    /// 1 to 10,000.
    pub number: u16,
    /// Entity tag without quotes.
    pub etag: String,
    /// The part's checksum as the client says; must match the stored one when given.
    pub checksum: Option<Checksum>,
}

/// What a client expects of a completed upload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Completion {
    /// Its parts, in ascending order.
    pub parts: Vec<CompletedPart>,
    /// Conditions on the object replaced.
    pub conditions: WriteConditions,
    /// Full-object checksum the client expects.
    pub checksum: Option<Checksum>,
    /// How the client thinks that the parts' checksums make the object's.
    pub kind: Option<ChecksumKind>,
    /// `x-amz-mp-object-size`.
    pub size: Option<u64>,
}

impl Store {
    /// Makes an object of an upload's parts.
    pub async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        id: BodyId,
        completion: Completion,
    ) -> Result<Object, ObjectError> {
        let at = At::new(bucket, key);
        let upload = match self.upload(bucket, key, id).await {
            // Completed already, and the answer was lost.
            Err(ObjectError::NoSuchUpload) => {
                return self.completed_as(&at, id, etag_of(&completion.parts)).await;
            }
            other => other?,
        };
        let parts = self.parts(id).await?;
        let assembled = assemble(&parts, &completion, &upload)?;
        // Refused here, the upload can still be aborted; only a race is left to the update itself.
        if self.completed(&at, id).await?.is_none() {
            let standing = self.ledger.read(&at.register).await?;
            let head = head_in(standing.as_ref())?;
            completion.conditions.check(head.current_etag(), head.latest())?;
        }

        let record = ObjectRecord {
            size: assembled.size,
            etag: assembled.etag,
            attributes: upload.attributes,
            checksum: assembled.checksum,
            data_key: upload.data_key,
            body: id,
            content: Content::Parts(assembled.parts),
            subresources: upload.subresources,
            customer_key: upload.customer_key,
        };
        let register = key::upload(bucket, key, id);
        let store = self.clone();
        Self::settle(async move {
            let mark = match store.mark_completing(&register).await {
                // Another completion has come to its end since.
                Err(ObjectError::NoSuchUpload) => {
                    return store.completed_as(&at, id, Some(record.etag)).await;
                }
                other => other?,
            };
            let terms = Terms {
                conditions: completion.conditions,
                completes_until_ms: Some(store.ledger.now_ms() + GIVE_UP_MS),
                parts_bytes: parts.bytes(),
            };
            let object = store.write_completed(&at, terms, record).await;
            match &object {
                Ok(object) => {
                    if let Err(error) = store.ledger.update(register, |_| Decision::Delete(())).await {
                        debug!(upload = %id, %error, "completed upload's register remains until its object goes");
                    }
                    store.drop_unused(id, parts, &object.record);
                }
                // The write has been refused for certain.
                Err(
                    ObjectError::PreconditionFailed
                    | ObjectError::NoSuchKey
                    | ObjectError::NoSuchBucket
                    | ObjectError::Refused(_),
                ) => {
                    store.unmark(&register, mark).await;
                }
                Err(_) => {}
            }
            object
        })
        .await
    }

    /// The object that an upload became, where it was completed with the same parts.
    async fn completed_as(&self, at: &At, id: BodyId, etag: Option<Etag>) -> Result<Object, ObjectError> {
        let object = self.completed(at, id).await?.filter(|object| Some(object.record.etag) == etag);
        object.ok_or(ObjectError::NoSuchUpload)
    }

    /// Marks an upload as being completed. Answers the mark's version where it was not marked before.
    async fn mark_completing(&self, register: &bytes::Bytes) -> Result<Option<Ballot>, ObjectError> {
        let marked = self.ledger.update(register.clone(), |current| {
            let Some(current) = current else { return Decision::Keep(Err(ObjectError::NoSuchUpload)) };
            match UploadRecord::decode(&current.value) {
                // Marked afresh even where it is marked: the mark's age is what an abort goes by, and the first
                // one to mark learns that it is no longer alone.
                Ok(record) => {
                    let first = record.state == UploadState::Open;
                    let marked = UploadRecord { state: UploadState::Completing, ..record };
                    Decision::Put(marked.encode(), Ok(first))
                }
                Err(error) => Decision::Keep(Err(error.into())),
            }
        });
        let marked = marked.await?;
        Ok(marked.answer?.then_some(marked.version))
    }

    /// Opens an upload again whose completion was refused, if nobody else has begun to complete it: another
    /// completion counts on the mark.
    async fn unmark(&self, register: &bytes::Bytes, mark: Option<Ballot>) {
        let Some(mark) = mark else { return };
        let opened = self.ledger.update(register.clone(), |current| {
            let Some(current) = current.filter(|current| current.version == mark) else {
                return Decision::Keep(());
            };
            match UploadRecord::decode(&current.value) {
                Ok(record) => Decision::Put(UploadRecord { state: UploadState::Open, ..record }.encode(), ()),
                Err(_) => Decision::Keep(()),
            }
        });
        if let Err(error) = opened.await {
            debug!(%error, "an upload stays marked as being completed");
        }
    }

    async fn write_completed(&self, at: &At, terms: Terms, record: ObjectRecord) -> Result<Object, ObjectError> {
        let (body, etag) = (record.body, record.etag);
        let target = self.target(at.clone(), nonce_of(body)).await?;
        let _in_flight = self.in_flight.enter(body);
        if target.id.is_some() && !self.share(body, [&at.register, &target.holder()]).await? {
            // The parts are noted under the object, so its version could not be found. So often nobody tries.
            return Err(ObjectError::Overloaded);
        }
        let object = self.commit(&target, terms, std::future::ready(Ok(record)), None).await?;
        // Another list of parts was quicker: this one cannot be had any more.
        if object.record.etag == etag { Ok(object) } else { Err(ObjectError::NoSuchUpload) }
    }

    /// Drops the parts that an object was completed without. They would otherwise stay as long as the object,
    /// since collection goes by body. Best effort: a home deletes only what this peer wrote.
    fn drop_unused(&self, id: BodyId, parts: Parts, object: &ObjectRecord) {
        let Content::Parts(used) = &object.content else { return };
        if self.ledger.is_local() {
            // Another island may have completed the same upload with other parts, and its object may win.
            return;
        }
        let used: BTreeSet<(u16, u64)> = used.iter().map(|part| (part.number, part.attempt)).collect();
        let mut unused = parts.outdated;
        unused.extend(
            parts
                .newest
                .into_iter()
                .filter(|(number, part)| !used.contains(&(*number, part.attempt)))
                .map(|(number, part)| (key::part(id, number, part.attempt), part.record)),
        );
        if unused.is_empty() {
            return;
        }
        let store = self.clone();
        tokio::spawn(async move {
            for (register, record) in unused {
                if let Err(error) = store.ledger.update(register, |_| Decision::Delete(())).await {
                    debug!(upload = %id, %error, "unused parts remain until their object goes");
                    return;
                }
                for placed in record.segments.iter().flat_map(|segment| &segment.fragments) {
                    store.tell([placed.home], &Request::DeleteFragments { ids: vec![placed.id] });
                }
            }
        });
    }
}

/// The entity tag of an object made of these parts, if theirs are such.
fn etag_of(parts: &[CompletedPart]) -> Option<Etag> {
    let md5 = |part: &CompletedPart| HEXLOWER_PERMISSIVE.decode(part.etag.trim_matches('"').as_bytes()).ok();
    let md5s: Vec<Vec<u8>> = parts.iter().map(md5).collect::<Option<_>>()?;
    Some(Etag { md5: md5_of(&md5s.concat()), parts: parts.len() as u16 })
}

/// What an upload's parts make.
#[derive(Debug, PartialEq, Eq)]
struct Assembled {
    parts: Vec<PartRef>,
    size: u64,
    etag: Etag,
    checksum: Option<Checksum>,
}

/// Judges a list of parts as AWS does.
fn assemble(stored: &Parts, completion: &Completion, upload: &UploadRecord) -> Result<Assembled, ObjectError> {
    if completion.parts.is_empty() {
        return Err(ObjectError::InvalidPart);
    }
    let ascending = completion.parts.windows(2).all(|pair| pair[0].number < pair[1].number);
    if !ascending || completion.parts.len() > usize::from(MAX_PARTS) {
        return Err(ObjectError::InvalidPartOrder);
    }
    let mut parts = Vec::with_capacity(completion.parts.len());
    let mut size: u64 = 0;
    for named in &completion.parts {
        let part = stored.newest.get(&named.number).ok_or(ObjectError::InvalidPart)?;
        let record = &part.record;
        let etag = Etag { md5: record.md5, parts: 0 }.to_string();
        let same_value = |given: &Checksum| {
            record.checksum.as_ref().is_some_and(|held| held.algorithm == given.algorithm && held.value == given.value)
        };
        if named.etag.trim_matches('"') != etag || !named.checksum.as_ref().is_none_or(same_value) {
            return Err(ObjectError::InvalidPart);
        }
        size += record.size;
        parts.push(PartRef {
            number: named.number,
            attempt: part.attempt,
            size: record.size,
            md5: record.md5,
            checksum: record.checksum.clone(),
        });
    }
    let all_but_last = &parts[..parts.len() - 1];
    if all_but_last.iter().any(|part| part.size < MIN_PART_BYTES) {
        return Err(ObjectError::PartTooSmall);
    }
    if size > MAX_OBJECT_BYTES {
        return Err(ObjectError::Body(BodyError::Refused(Rejection::TooLarge)));
    }
    if completion.size.is_some_and(|expected| expected != size) {
        return Err(ObjectError::Mismatch(Rejection::Malformed));
    }
    let checksum = checksum_of(&parts, upload)?;
    if let Some(expected) = &completion.checksum
        && checksum.as_ref().is_none_or(|have| (have.algorithm, &have.value) != (expected.algorithm, &expected.value))
    {
        return Err(ObjectError::Mismatch(Rejection::BadChecksum));
    }
    let other_kind = |kind| upload.checksum.is_some_and(|(_, asked)| asked != kind);
    if completion.kind.is_some_and(other_kind) {
        return Err(ObjectError::Mismatch(Rejection::BadChecksum));
    }
    let md5s: Vec<u8> = parts.iter().flat_map(|part| part.md5).collect();
    let etag = Etag { md5: md5_of(&md5s), parts: parts.len() as u16 };
    Ok(Assembled { parts, size, etag, checksum })
}

/// The object's checksum from its parts', where the upload asked for one.
fn checksum_of(parts: &[PartRef], upload: &UploadRecord) -> Result<Option<Checksum>, ObjectError> {
    let Some((algorithm, kind)) = upload.checksum else { return Ok(None) };
    let pieces = pieces(parts, algorithm).ok_or(ObjectError::InvalidPart)?;
    match kind {
        ChecksumKind::Composite => Ok(Some(composite(algorithm, pieces.into_iter().map(|(value, _)| value)))),
        // Hashes do not combine; the front end refuses such an upload when it is begun.
        ChecksumKind::FullObject => {
            combine(algorithm, &pieces).map(Some).ok_or(ObjectError::Mismatch(Rejection::BadChecksum))
        }
    }
}

#[cfg(test)]
mod tests {
    use palm_core::hlc::Stamp;
    use palm_core::id::KeyId;
    use palm_core::record::{Attributes, ChecksumAlgorithm, PartRecord, Subresources};

    use super::super::body::Stripe;
    use super::super::digest::Digests;
    use super::super::multipart::StoredPart;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn upload(checksum: Option<(ChecksumAlgorithm, ChecksumKind)>) -> UploadRecord {
        UploadRecord {
            owner: String::new(),
            created_ms: 0,
            state: UploadState::Open,
            attributes: Attributes::default(),
            checksum,
            data_key: KeyId::from_bytes([0; 16]),
            subresources: Subresources::default(),
            customer_key: None,
        }
    }

    fn part(attempt: u64, size: u64, checksum: Option<Checksum>) -> StoredPart {
        let record = PartRecord { size, md5: [attempt as u8; 16], checksum, segments: Vec::new() };
        StoredPart { attempt, version: Ballot { stamp: Stamp(attempt), ..Ballot::ZERO }, record }
    }

    fn stored(parts: impl IntoIterator<Item = (u16, StoredPart)>) -> Parts {
        Parts { newest: parts.into_iter().collect(), outdated: Vec::new() }
    }

    fn named(parts: &[(u16, u8)]) -> Completion {
        let parts = parts
            .iter()
            .map(|&(number, md5)| CompletedPart {
                number,
                etag: data_encoding::HEXLOWER.encode(&[md5; 16]),
                checksum: None,
            })
            .collect();
        Completion { parts, ..Completion::default() }
    }

    /// Clients rely on AWS's refusals to notice a lost or swapped part before the object is there. Each wrong
    /// list must get its own error, and a right one with gaps in the numbers the well-known entity tag.
    #[test]
    fn lists_of_parts_are_judged_as_at_aws() {
        let parts = stored([(1, part(1, 5 * MIB, None)), (3, part(3, 5 * MIB, None)), (7, part(7, 2, None))]);
        let plain = upload(None);
        let judge = |completion: &Completion| assemble(&parts, completion, &plain);

        let whole = judge(&named(&[(1, 1), (3, 3), (7, 7)])).unwrap();
        assert_eq!(whole.size, 10 * MIB + 2);
        let md5s = [[1; 16], [3; 16], [7; 16]].concat();
        assert_eq!(whole.etag, Etag { md5: md5_of(&md5s), parts: 3 });
        assert_eq!(whole.parts.iter().map(|part| part.number).collect::<Vec<_>>(), [1, 3, 7]);
        assert!(judge(&named(&[(7, 7)])).is_ok(), "a single part may be short");

        assert!(matches!(judge(&named(&[])), Err(ObjectError::InvalidPart)));
        assert!(matches!(judge(&named(&[(2, 1)])), Err(ObjectError::InvalidPart)));
        assert!(matches!(judge(&named(&[(1, 3)])), Err(ObjectError::InvalidPart)));
        assert!(matches!(judge(&named(&[(3, 3), (1, 1)])), Err(ObjectError::InvalidPartOrder)));
        assert!(matches!(judge(&named(&[(1, 1), (1, 1)])), Err(ObjectError::InvalidPartOrder)));
        let short_first = stored([(1, part(1, 2, None)), (2, part(2, 2, None))]);
        assert!(matches!(assemble(&short_first, &named(&[(1, 1), (2, 2)]), &plain), Err(ObjectError::PartTooSmall)));
        let wrong_size = Completion { size: Some(1), ..named(&[(1, 1)]) };
        assert!(matches!(judge(&wrong_size), Err(ObjectError::Mismatch(Rejection::Malformed))));
        let mut wrong_checksum = named(&[(1, 1)]);
        wrong_checksum.parts[0].checksum =
            Some(Checksum { algorithm: ChecksumAlgorithm::Crc32, kind: ChecksumKind::FullObject, value: vec![0; 4] });
        assert!(matches!(judge(&wrong_checksum), Err(ObjectError::InvalidPart)));
    }

    /// SDKs since 2025 ask for a full-object CRC of multipart uploads and compare it with their own. It must be
    /// that of the concatenated parts, computed without reading them, and a wrong expectation must be refused.
    #[tokio::test]
    async fn the_full_object_checksum_is_that_of_all_bytes() {
        let algorithm = ChecksumAlgorithm::Crc64Nvme;
        let bytes: Vec<u8> = (0..5 * MIB + 1000).map(|at| (at % 241) as u8).collect();
        let digest = async |bytes: &[u8]| {
            let mut digests = Digests::new(&[algorithm]);
            for piece in bytes.chunks(palm_core::code::STRIPE_BYTES) {
                digests.update_stripe(&stripe(piece).await);
            }
            digests.finish().checksums.remove(0)
        };
        let (first, second) = bytes.split_at(5 * MIB as usize);
        let parts = stored([
            (1, part(1, first.len() as u64, Some(digest(first).await))),
            (2, part(2, second.len() as u64, Some(digest(second).await))),
        ]);
        let expected = digest(&bytes).await;
        let upload = upload(Some((algorithm, ChecksumKind::FullObject)));
        let mut completion = named(&[(1, 1), (2, 2)]);
        completion.checksum = Some(expected.clone());
        assert_eq!(assemble(&parts, &completion, &upload).unwrap().checksum, Some(expected.clone()));

        completion.checksum = Some(Checksum { value: vec![0; 8], ..expected });
        let refused = assemble(&parts, &completion, &upload);
        assert!(matches!(refused, Err(ObjectError::Mismatch(Rejection::BadChecksum))));

        let bare = stored([(1, part(1, 1, None))]);
        assert!(matches!(assemble(&bare, &named(&[(1, 1)]), &upload), Err(ObjectError::InvalidPart)));
    }

    async fn stripe(bytes: &[u8]) -> Stripe {
        use futures::StreamExt;
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        let body = futures::stream::once(async { Ok(bytes) }).boxed();
        super::super::body::Cutter::new(body, None).next().await.unwrap()
    }
}
