//! Storing an object: its body streams to the homes in bounded memory, then one ledger update makes it visible.
//!
//! A body is received whole before the ledger hears of it: a client that stalls must not hold up the other
//! writers of its key. What remains then (the last fragments becoming durable; for a body of one stripe, all of
//! them) runs while the ledger prepares, so a small object costs one round to the homes and one to the
//! voters.

use std::sync::Arc;

use palm_core::code::{SEGMENT_BYTES, STRIPE_BYTES};
use palm_core::id::SegmentId;
use palm_core::record::{Checksum, Content, Etag, ObjectRecord, Segment, Subresources};
use palm_core::s3::version::Versioning;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::body::{Cutter, Stripe};
use super::budget::{STREAM_BYTES, Share};
use super::commit::new_nonce;
use super::digest::{Digested, Digests};
use super::draft::Draft;
use super::get::INLINE_BYTES;
use super::store::{At, DataKey, new_body, random};
use super::whole::Whole;
use super::write::SegmentWriter;
use super::{BodyError, Cipher, Incoming, NewObject, Object, ObjectError, Store, WriteConditions};
use crate::blocking::spawn_blocking;

/// What a body of one stripe holds for each of its bytes: as it came, and sealed with its parity.
const WHOLE_FACTOR: u64 = 3;

impl Store {
    /// Stores an object. When this answers `Ok` it is durable (promise 4) and visible to every peer.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        new: NewObject,
        conditions: WriteConditions,
        body: Incoming,
    ) -> Result<Object, ObjectError> {
        if new.customer_key.as_ref() != body.cipher.as_ref().map(Cipher::record) {
            return Err(ObjectError::Internal("a body is encrypted with another key than its object".to_owned()));
        }
        let known = self.bucket_to_write(bucket).await?;
        let at = At::new(bucket, key);
        let sealing = self.data_key(known.data_key).await?;
        let aiming = async {
            let target = self.target(at.clone(), new_nonce()?).await?;
            let lock = target.lock(new.subresources.lock, self.ledger.now_ms())?;
            Ok::<_, ObjectError>((target, lock))
        };
        // Fragments are noted under what will refer to them. The id of a version comes before them, then; where there are no
        // versions, the voters say so while the body comes in.
        let class = new.attributes.storage_class.clone();
        let draft = |object| Ok::<_, ObjectError>(Arc::new(Draft::new(self, new_body()?, object, class)));
        let (draft, (target, lock), received) = if known.config.versioning == Versioning::Enabled {
            let (target, lock) = aiming.await?;
            let draft = draft(target.holder())?;
            let received = self.receive(&draft, sealing, body).await?;
            (draft, (target, lock), received)
        } else {
            let draft = draft(at.register.clone())?;
            let (received, aimed) = tokio::try_join!(self.receive(&draft, sealing, body), aiming)?;
            (draft, aimed, received)
        };

        let (store, data_key) = (self.clone(), known.data_key);
        Self::settle(async move {
            if draft.object != target.holder() {
                // The bucket's versioning is not what this peer knew.
                store.share(draft.body, [&draft.object, &target.holder()]).await?;
            }
            let body = draft.body;
            let Received { digested, checksum, rest, share } = received;
            let etag = Etag { md5: digested.md5, parts: 0 };
            let storing = async {
                let content = Content::Segments(rest.store(&draft).await?);
                drop(share);
                let NewObject { attributes, subresources, customer_key } = new;
                let subresources = Subresources { lock, ..subresources };
                Ok(ObjectRecord {
                    size: digested.size,
                    etag,
                    attributes,
                    checksum,
                    data_key,
                    body,
                    content,
                    subresources,
                    customer_key,
                })
            };
            store.commit(&target, conditions.into(), storing, Some(&draft)).await
        })
        .await
    }

    /// Receives a body to its end, judges it, and has all but its last fragments on their way. On any error
    /// nothing remains: see [`Draft`].
    pub(super) async fn receive(
        &self,
        draft: &Arc<Draft>,
        data_key: Arc<DataKey>,
        incoming: Incoming,
    ) -> Result<Received, ObjectError> {
        let Incoming { stream, length, algorithms, verify, cipher } = incoming;
        let stripe_bytes = STRIPE_BYTES as u64;
        let first_bytes = length.map_or(stripe_bytes, |length| length.min(stripe_bytes));
        let mut share = self.budget.take(first_bytes * WHOLE_FACTOR).await?;
        let mut cutter = Cutter::new(stream, length);
        let digests = Digests::new(&algorithms);
        let first = cutter.next().await?;
        let (digested, rest) = if !cutter.ended() {
            drop(share);
            share = self.budget.take(STREAM_BYTES).await?;
            let cipher = cipher.clone();
            let long = Long { draft, data_key, cipher, remaining: length, finished: Vec::new(), finishing: None };
            long.receive(cutter, first, digests).await?
        } else if first.len() > 0 {
            let (digested, whole) = self.receive_whole(draft, data_key, cipher.clone(), first, digests).await?;
            (digested, Rest::Whole(Box::new(whole)))
        } else {
            (digests.finish(), Rest::Empty)
        };
        let checksum = verify(&digested).map_err(BodyError::Refused)?;
        let md5 = cipher.map_or(digested.md5, |cipher| cipher.etag(digested.md5));
        let digested = Digested { md5, ..digested };
        Ok(Received { digested, checksum, rest, share })
    }

    /// Hashes and seals a body of one stripe, side by side.
    async fn receive_whole(
        &self,
        draft: &Draft,
        data_key: Arc<DataKey>,
        cipher: Option<Cipher>,
        stripe: Stripe,
        mut digests: Digests,
    ) -> Result<(Digested, Whole), ObjectError> {
        let planned = self.plan(SegmentId::from_bytes(random()?), stripe.len() as u64, draft.class.as_deref())?;
        if stripe.len() <= INLINE_BYTES {
            digests.update_stripe(&stripe);
            return Ok((digests.finish(), Whole::seal(planned, &data_key, cipher, &stripe)?));
        }
        let stripe = Arc::new(stripe);
        let hashed = stripe.clone();
        let hashing = spawn_blocking(move || {
            digests.update_stripe(&hashed);
            digests.finish()
        });
        let sealing = spawn_blocking(move || Whole::seal(planned, &data_key, cipher, &stripe));
        let (digested, whole) = tokio::join!(hashing, sealing);
        Ok((digested?, whole??))
    }
}

/// A body that has been received and judged.
pub(super) struct Received {
    /// With the entity tag for its MD5, which differ where it is encrypted.
    pub(super) digested: Digested,
    /// The checksum to store.
    pub(super) checksum: Option<Checksum>,
    pub(super) rest: Rest,
    /// Its part of the buffer budget, to be held until `rest` is stored.
    pub(super) share: Share,
}

/// What of a body is still to be stored.
pub(super) enum Rest {
    Empty,
    Whole(Box<Whole>),
    Long { finished: Vec<Segment>, finishing: AbortOnDropHandle<Result<Segment, ObjectError>> },
}

impl Rest {
    /// Waits until all is durable; answers the body's segments.
    pub(super) async fn store(self, draft: &Arc<Draft>) -> Result<Vec<Segment>, ObjectError> {
        match self {
            Self::Empty => Ok(Vec::new()),
            Self::Whole(whole) => Ok(vec![whole.store(draft).await?]),
            Self::Long { mut finished, finishing } => {
                finished.push(finishing.await??);
                Ok(finished)
            }
        }
    }
}

/// A body of several stripes while it is received.
///
/// Three things run side by side: the next stripe is received, the last one is hashed, and the last one is
/// sealed and the one before it sent. MD5 can use one core only and is the slowest of them, so it sets the pace.
struct Long<'a> {
    draft: &'a Arc<Draft>,
    data_key: Arc<DataKey>,
    cipher: Option<Cipher>,
    /// Bytes still to come, where the client declared a length.
    remaining: Option<u64>,
    finished: Vec<Segment>,
    /// The segment whose fragments are being synced while the next one flows.
    finishing: Option<AbortOnDropHandle<Result<Segment, ObjectError>>>,
}

impl Long<'_> {
    async fn receive(
        mut self,
        mut cutter: Cutter,
        first: Stripe,
        digests: Digests,
    ) -> Result<(Digested, Rest), ObjectError> {
        let mut writer = self.open()?;
        let mut hashing = Hashing::Idle(digests);
        let mut stripe = Arc::new(first);
        loop {
            if writer.is_full() {
                self.close(writer).await?;
                writer = self.open()?;
            }
            self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(stripe.len() as u64));
            writer.write(stripe.clone()).await?;
            hashing = hashing.update(stripe).await?;
            if cutter.ended() {
                break;
            }
            stripe = Arc::new(cutter.next().await?);
        }
        self.close(writer).await?;
        let digested = hashing.finish().await?;
        match self.finishing {
            Some(finishing) => Ok((digested, Rest::Long { finished: self.finished, finishing })),
            None => Err(ObjectError::Internal("a body without segments".to_owned())),
        }
    }

    fn open(&self) -> Result<SegmentWriter, ObjectError> {
        let expected = self.remaining.map_or(SEGMENT_BYTES, |remaining| remaining.clamp(1, SEGMENT_BYTES));
        let planned = self.draft.store.plan(SegmentId::from_bytes(random()?), expected, self.draft.class.as_deref())?;
        SegmentWriter::new(self.draft, planned, &self.data_key, self.cipher.clone())
    }

    /// Ends a segment, after the one before it has become durable: at most one is syncing.
    async fn close(&mut self, writer: SegmentWriter) -> Result<(), ObjectError> {
        let finishing = writer.finish().await?;
        if let Some(before) = self.finishing.replace(finishing) {
            self.finished.push(before.await??);
        }
        Ok(())
    }
}

/// Hashing runs on the blocking pool, one stripe after the other.
enum Hashing {
    Idle(Digests),
    Running(JoinHandle<Digests>),
}

impl Hashing {
    async fn idle(self) -> Result<Digests, ObjectError> {
        match self {
            Self::Idle(digests) => Ok(digests),
            Self::Running(task) => Ok(task.await?),
        }
    }

    async fn update(self, stripe: Arc<Stripe>) -> Result<Self, ObjectError> {
        let mut digests = self.idle().await?;
        Ok(Self::Running(spawn_blocking(move || {
            digests.update_stripe(&stripe);
            digests
        })))
    }

    async fn finish(self) -> Result<Digested, ObjectError> {
        Ok(self.idle().await?.finish())
    }
}
