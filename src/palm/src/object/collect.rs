//! Collection: a home deletes fragments of bodies that nothing refers to any more.
//!
//! Two ways lead to a body: a hint ([`Request::Release`]) after a write replaced or deleted its object, and a walk
//! over all fragments kept here, which finds what failed uploads, crashed writers and lost hints left. A
//! body is deleted only when **every** question below has been answered with no; a ledger without quorum answers
//! nothing, so then nothing is deleted. The order of the questions matters:
//!
//! 1. Are all its fragments here older than the grace?
//! 2. Does its writer say that the upload has ended? Asked before the ledger: a writer enters its record into
//!    the ledger before it calls the upload ended. A writer out of reach is waited for, a day at most.
//! 3. Is its multipart upload still open? Asked before 4: completing writes the object before it removes the upload.
//! 4. Does the object it was uploaded for hold it?
//! 5. Does any object that shares it (`copy.rs`) hold it, and has no sharer been added lately, or while this was
//!    asked?
//!
//! A write whose outcome its writer never learnt may lie accepted with a minority of voters and surface later,
//! after its fragments are gone. So where the body was never seen replaced, question 4 is a
//! [fenced read](crate::pool::Ledger::read_fenced): a read that fences such writes off. After a hint a plain strong read
//! will do, since the body's record is known to have been replaced at a higher ballot.
//!
//! In a local pool no quorum speaks for the others: another island may hold, or a member that lags may yet write, a record
//! that refers to the body. There, questions 3 and 4 are put to **every member** ([`read_everywhere`](crate::pool::Ledger::read_everywhere)), any yes
//! keeps the body, and while one member is away nothing is collected. Nothing shares a body there.
//!
//! Fragment ids never join two bodies: stripes are sealed under random keys, so equal plaintexts give different
//! fragments, and the same id in two notes is the same fragment of the same body sent twice.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use palm_backends::StoreError;
use palm_core::id::{BodyId, FragmentId, PeerId};
use palm_core::record::{BucketRecord, FragmentRecord, SharersRecord, Stored, UploadRecord, key};
use palm_core::wire::{Request, Response};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::conditions::object_in;
use super::copy::HOLD;
use super::home::after_body;
use super::store::is_upload;
use super::{ObjectError, Store};
use crate::blocking::spawn_blocking;
use crate::pool::{Current, Decision};

/// A body stays this long after its sharers changed: longer than a copy may take ([`HOLD`]), with room for
/// the clocks of two peers to differ as much again.
pub(super) const SHARE_GRACE: Duration = Duration::from_secs(2 * HOLD.as_secs());
/// Bodies examined at once: their questions to the voters share frames.
const CONCURRENT: usize = 16;
/// Bodies taken from the index, or from the hints, at a time.
const BATCH: usize = 256;
/// Pause after each batch, so that a walk over a million bodies stays in the background.
const PAUSE: Duration = Duration::from_millis(250);
/// How often hints are looked at.
const TICK: Duration = Duration::from_secs(1);
/// A writer answers within this or counts as out of reach.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// When garbage goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectSettings {
    /// Fragments younger than this are left alone, unless their body was released.
    pub grace: Duration,
    /// A released body is left alone for this long, for the readers that are still at it.
    pub released_grace: Duration,
    /// A body whose writer is out of reach is left alone for this long.
    pub unreachable_grace: Duration,
    /// How often all fragments are walked.
    pub walk_every: Duration,
}

impl Default for CollectSettings {
    fn default() -> Self {
        Self {
            grace: Duration::from_hours(1),
            released_grace: Duration::from_mins(5),
            unreachable_grace: Duration::from_hours(24),
            walk_every: Duration::from_hours(1),
        }
    }
}

/// How a body came to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Its object was replaced or deleted.
    Released,
    /// On the walk.
    Walking,
}

/// What became of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    Garbage,
}

impl Store {
    /// Collects garbage among this peer's fragments for as long as it is polled.
    pub async fn collect(&self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let walk_every_ms = millis(self.0.collect.walk_every);
        let mut walk_at_ms = self.ledger.now_ms() + walk_every_ms;
        loop {
            tick.tick().await;
            self.collect_released().await;
            if self.ledger.now_ms() >= walk_at_ms {
                self.walk().await;
                walk_at_ms = self.ledger.now_ms() + walk_every_ms;
            }
        }
    }

    /// Looks at the bodies whose release has aged enough. What cannot be decided now is left to the walk.
    async fn collect_released(&self) {
        loop {
            let before_ms = self.ledger.now_ms().saturating_sub(millis(self.0.collect.released_grace));
            let batch: BTreeSet<BodyId> =
                std::iter::from_fn(|| self.home.next_released(before_ms)).take(BATCH).collect();
            if batch.is_empty() {
                return;
            }
            self.examine_all(batch.into_iter().collect(), Found::Released).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks at every body that has fragments here, once.
    pub(super) async fn walk(&self) {
        let mut from = Some(BodyId::from_bytes([0; BodyId::LEN]));
        while let Some(first) = from {
            let home = self.home.clone();
            let read = spawn_blocking(move || home.bodies(first, BATCH));
            let bodies = match read.await {
                Ok(Ok(bodies)) => bodies,
                Ok(Err(error)) => return warn!(%error, "fragment notes do not read"),
                Err(_) => return,
            };
            from = bodies.last().copied().and_then(after_body);
            if bodies.is_empty() {
                return;
            }
            self.examine_all(bodies, Found::Walking).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn examine_all(&self, bodies: Vec<BodyId>, found: Found) {
        stream::iter(bodies)
            .for_each_concurrent(CONCURRENT, |body| async move {
                if let Err(error) = self.examine(body, found).await {
                    debug!(%body, %error, "collection could not decide; the body stays");
                }
            })
            .await;
    }

    /// Decides about one body and deletes its fragments here if it is garbage.
    async fn examine(&self, body: BodyId, found: Found) -> Result<(), ObjectError> {
        let fragments = self.home.fragments_of(body)?;
        if self.judge(body, &fragments, found).await? == Verdict::Keep {
            return Ok(());
        }
        if is_upload(body) {
            self.forget_parts(body).await?;
        }
        let count = fragments.len() as u64;
        for (id, note) in fragments {
            self.home.delete_if(id, &note).await?;
        }
        self.counters.collected_fragments.fetch_add(count, Ordering::Relaxed);
        info!(%body, fragments = count, "garbage collected");
        Ok(())
    }

    async fn judge(
        &self,
        body: BodyId,
        fragments: &[(FragmentId, FragmentRecord)],
        found: Found,
    ) -> Result<Verdict, ObjectError> {
        let now_ms = self.ledger.now_ms();
        let Some(youngest_ms) = fragments.iter().map(|(_, record)| record.stored_ms).max() else {
            return Ok(Verdict::Keep);
        };
        let age_ms = now_ms.saturating_sub(youngest_ms);
        let objects: BTreeSet<Bytes> =
            fragments.iter().map(|(_, record)| Bytes::copy_from_slice(&record.object)).collect();
        // This peer's own copy of the ledger settles nearly all of a walk: a body it shows in use is in use, or
        // was a moment ago.
        if found == Found::Walking
            && (age_ms <= millis(self.0.collect.grace)
                || objects.iter().any(|object| holds(self.ledger.peek(object).as_ref(), body).unwrap_or(true)))
        {
            return Ok(Verdict::Keep);
        }
        if found == Found::Walking {
            let writers: BTreeSet<PeerId> = fragments.iter().map(|(_, record)| record.writer).collect();
            for writer in writers {
                let says = self.writer_says(writer, body).await;
                if !may_be_ended(says, age_ms, millis(self.0.collect.unreachable_grace)) {
                    return Ok(Verdict::Keep);
                }
            }
        }
        for object in &objects {
            if is_upload(body) && self.upload_lives(object, body).await? {
                return Ok(Verdict::Keep);
            }
            for current in self.states(object, found).await? {
                if holds(Some(&current), body)? {
                    return Ok(Verdict::Keep);
                }
            }
        }
        self.judge_sharers(body).await
    }

    /// Every state of an object's register that may count.
    async fn states(&self, object: &Bytes, found: Found) -> Result<Vec<Current>, ObjectError> {
        let current = match found {
            _ if self.ledger.is_local() => return Ok(self.ledger.read_everywhere(object).await?),
            Found::Released => self.ledger.read(object).await?,
            Found::Walking => self.ledger.read_fenced(object).await?,
        };
        Ok(current.into_iter().collect())
    }

    async fn judge_sharers(&self, body: BodyId) -> Result<Verdict, ObjectError> {
        let register = key::sharers(body);
        let Some(before) = self.ledger.read(&register).await? else { return Ok(Verdict::Garbage) };
        let age_ms = self.ledger.now_ms().saturating_sub(before.version.stamp.millis());
        if age_ms <= millis(SHARE_GRACE) {
            return Ok(Verdict::Keep);
        }
        for object in SharersRecord::decode(&before.value)?.objects {
            if holds(self.ledger.read_fenced(&object.into()).await?.as_ref(), body)? {
                return Ok(Verdict::Keep);
            }
        }
        let after = self.ledger.read(&register).await?;
        let unchanged = after.is_some_and(|after| after.version == before.version);
        Ok(if unchanged { Verdict::Garbage } else { Verdict::Keep })
    }

    /// Whether the body is a multipart upload that may still be completed: there, and of the bucket that is
    /// there now.
    async fn upload_lives(&self, object: &Bytes, body: BodyId) -> Result<bool, ObjectError> {
        let Some((bucket, key)) = key::parse_object(object) else { return Ok(true) };
        let register = key::upload(bucket, key, body);
        if self.ledger.is_local() {
            return Ok(!self.ledger.read_everywhere(&register).await?.is_empty());
        }
        let Some(upload) = self.ledger.read(&register).await? else { return Ok(false) };
        let upload = UploadRecord::decode(&upload.value)?;
        let of = self.ledger.read_shared(&key::bucket(bucket)).await?;
        let of = of.map(|current| BucketRecord::decode(&current.value)).transpose()?;
        Ok(of.is_some_and(|of| of.data_key == upload.data_key))
    }

    /// Whether the upload is under way at its writer; `None` when the writer does not say.
    async fn writer_says(&self, writer: PeerId, body: BodyId) -> Option<bool> {
        match self.ask(writer, Request::InFlight { body }, ASK_TIMEOUT).await {
            Ok(Response::InFlight(under_way)) => Some(under_way),
            _ => None,
        }
    }

    /// Removes the part registers of an upload that is garbage. Every home of it does this; the first finds some.
    async fn forget_parts(&self, upload: BodyId) -> Result<(), ObjectError> {
        let parts = self.parts(upload).await?;
        let newest = parts.newest.iter().map(|(&number, part)| key::part(upload, number, part.attempt));
        for register in newest.chain(parts.outdated.iter().map(|(register, _)| register.clone())) {
            let gone = self.ledger.update(register, |current| match current {
                Some(_) => Decision::Delete(()),
                None => Decision::Keep(()),
            });
            gone.await?;
        }
        Ok(())
    }
}

/// Whether an object register holds a body.
fn holds(current: Option<&Current>, body: BodyId) -> Result<bool, ObjectError> {
    Ok(object_in(current)?.is_some_and(|object| object.body == body))
}

/// Whether an upload has ended as far as its writer goes: it says so, or it has been silent for long.
fn may_be_ended(writer_says_under_way: Option<bool>, age_ms: u64, unreachable_grace_ms: u64) -> bool {
    match writer_says_under_way {
        Some(under_way) => !under_way,
        None => age_ms > unreachable_grace_ms,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<StoreError> for ObjectError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use palm_core::hlc::Ballot;
    use palm_core::id::KeyId;
    use palm_core::record::{Attributes, Content, Etag, ObjectRecord};

    use super::*;

    /// A writer is slow, asleep or dead. Deleting under a slow one loses an object that is about to be
    /// acknowledged; waiting for a dead one for ever loses the space.
    #[test]
    fn a_writer_is_believed_and_a_silent_one_waited_for() {
        let day = 86_400_000;
        assert!(!may_be_ended(Some(true), 10 * day, day), "it says the upload goes on");
        assert!(may_be_ended(Some(false), 0, day));
        assert!(!may_be_ended(None, day, day));
        assert!(may_be_ended(None, day + 1, day));
    }

    /// A key is overwritten: its register now holds another body. Only the body it holds is in use; a register
    /// that cannot be read settles nothing.
    #[test]
    fn a_register_holds_exactly_one_body() {
        let (mine, other) = (BodyId::from_bytes([1; 16]), BodyId::from_bytes([2; 16]));
        let record = ObjectRecord {
            size: 0,
            etag: Etag { md5: [0; 16], parts: 0 },
            attributes: Attributes::default(),
            checksum: None,
            data_key: KeyId::from_bytes([0; 16]),
            body: mine,
            content: Content::Segments(Vec::new()),
        };
        let current = Current { version: Ballot::ZERO, value: record.encode() };
        assert!(holds(Some(&current), mine).unwrap());
        assert!(!holds(Some(&current), other).unwrap());
        assert!(!holds(None, mine).unwrap());
        let rotten = Current { version: Ballot::ZERO, value: Bytes::from_static(b"\x63") };
        assert!(holds(Some(&rotten), mine).is_err());
    }

    /// The rules of copying and collecting rest on this order of times.
    #[test]
    fn a_copy_gives_up_before_collection_starts() {
        assert!(SHARE_GRACE > HOLD);
    }
}
