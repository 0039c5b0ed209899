//! Copying an object: the new record shares the body, no data moves. (In a local pool the bytes are copied.)
//!
//! A body may then have several holders, so collection must find them all. The rules that keep a body from being
//! collected under a copy, given that collection looks at the original object, then at the sharers, then asks every
//! peer whether the body is in flight, then looks at the sharers' objects, then whether the sharers have changed
//! (see `collect.rs`):
//!
//! 1. The copier has the body in flight from before 2 until after 4,
//! 2. adds source and destination to the body's [`SharersRecord`],
//! 3. *then* checks by a strong read that the source still holds the body,
//! 4. then writes the destination, at most [`HOLD`] after 2.
//!
//! A collection that read the sharers before 2 sees them changed in the end, or has found the source without the body before
//! 3, which then fails. One that read them after 2 is told that the body is in flight, or finds the destination. From a
//! copier that is out of reach nothing comes after [`HOLD`], and collection waits for far longer.

use std::time::Duration;

use bytes::Bytes;
use palm_core::id::BodyId;
use palm_core::record::{ChecksumKind, Content, ObjectRecord, SharersRecord, Stored, Subresources, key};
use palm_core::s3::Refusal;
use palm_core::s3::version::Name;

use super::commit::new_nonce;
use super::head::object_in;
use super::store::At;
use super::{Incoming, NewObject, Object, ObjectError, Store, WriteConditions};
use crate::pool::Decision;

/// Objects sharing one body at most; a further copy gets a body of its own.
const MAX_SHARERS: usize = 1000;
/// A copy that takes longer than this from sharing to writing gives up.
const HOLD: Duration = Duration::from_mins(5);

impl Store {
    /// Makes `bucket/key` an object of the same bytes as `source`, which was read at `source_at` (bucket and
    /// key), with what `new` says of it. [`ObjectError::Conflict`] where the source has been replaced meanwhile.
    pub async fn copy(
        &self,
        source: &Object,
        source_at: (&str, &str),
        bucket: &str,
        key: &str,
        new: NewObject,
        conditions: WriteConditions,
    ) -> Result<Object, ObjectError> {
        let target = self.target(At::new(bucket, key), new_nonce()?).await?;
        let from = At::new(source_at.0, source_at.1).register;
        let from = match source.id {
            Some(Name::Id(id)) => key::version(&from, id),
            _ => from,
        };
        let body = source.record.body;
        let empty = matches!(&source.record.content, Content::Segments(segments) if segments.is_empty());
        let shared_ms = self.ledger.now_ms();
        if self.ledger.is_local() {
            // Two islands may add sharers to one body at the same time, and merging would keep one of the two lists.
            return Box::pin(self.copy_bytes(source, bucket, key, new, conditions)).await;
        }
        let in_flight = self.in_flight.enter(body);
        if !empty {
            if !self.share(body, [&from, &target.holder()]).await? {
                return Box::pin(self.copy_bytes(source, bucket, key, new, conditions)).await;
            }
            let current = self.ledger.read(&from).await?;
            match object_in(&from, current.as_ref())? {
                Some(now) if now.body == body => {}
                Some(_) => return Err(ObjectError::Conflict),
                None => return Err(ObjectError::NoSuchKey),
            }
        }
        // The bytes are the source's, and so is the key they are encrypted with.
        let NewObject { attributes, subresources, .. } = new;
        let lock = target.lock(subresources.lock, shared_ms)?;
        let subresources = Subresources { lock, ..subresources };
        let record = ObjectRecord { attributes, subresources, ..source.record.clone() };
        let store = self.clone();
        Self::settle(async move {
            let in_time = async {
                let held_ms = store.ledger.now_ms().saturating_sub(shared_ms);
                if u128::from(held_ms) > HOLD.as_millis() {
                    return Err(ObjectError::Unavailable("the copy took too long".to_owned()));
                }
                Ok(record)
            };
            let copied = store.commit(&target, conditions.into(), in_time, None).await;
            drop(in_flight);
            copied
        })
        .await
    }

    /// Adds objects to those that share a body, or, where they are already, makes their claim new. `false` when there are
    /// too many. The source is among them, so that all holders of a shared body are found from whichever of them repair
    /// knew it by.
    pub(super) async fn share(&self, body: BodyId, objects: [&Bytes; 2]) -> Result<bool, ObjectError> {
        let shared = self.ledger.update(key::sharers(body), |current| {
            let decoded = current.map(|current| SharersRecord::decode(&current.value)).transpose();
            let mut sharers = match decoded {
                Ok(sharers) => sharers.unwrap_or_default(),
                Err(error) => return Decision::Keep(Err(error)),
            };
            for object in objects {
                if !sharers.objects.iter().any(|sharer| sharer == object) {
                    sharers.objects.push(object.to_vec());
                }
            }
            if sharers.objects.len() > MAX_SHARERS {
                return Decision::Keep(Ok(false));
            }
            Decision::Put(sharers.encode(), Ok(true))
        });
        Ok(shared.await?.answer?)
    }

    /// A copy with a body of its own.
    async fn copy_bytes(
        &self,
        source: &Object,
        bucket: &str,
        key: &str,
        new: NewObject,
        conditions: WriteConditions,
    ) -> Result<Object, ObjectError> {
        if source.record.customer_key.is_some() {
            // Only renames come here with one: whoever copies brings the key, and encrypts anew.
            let message = "An object under a key of the client's cannot be renamed where its bytes have to move";
            return Err(Refusal::with_status(501, "NotImplemented", message).into());
        }
        let size = source.record.size;
        let checksum = source.record.checksum.as_ref().filter(|checksum| checksum.kind == ChecksumKind::FullObject);
        let body = Incoming {
            stream: self.read(source, 0..size).await?,
            length: Some(size),
            algorithms: checksum.map(|checksum| checksum.algorithm).into_iter().collect(),
            verify: Box::new(|digested| Ok(digested.checksums.first().cloned())),
            cipher: None,
        };
        self.put(bucket, key, new, conditions, body).await
    }
}
