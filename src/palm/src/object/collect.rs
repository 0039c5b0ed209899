//! Collection: a home deletes fragments that nothing refers to any more, in two looks with the trash between them.
//!
//! **Garbage bodies.** Two ways lead to a body: a hint ([`Request::Release`](palm_core::wire::Request)) after a write
//! replaced or deleted its object, and a walk over all fragments kept here, which finds what failed uploads, crashed
//! writers and lost hints left. It is garbage only when **every** question has been answered with no; a ledger without
//! quorum answers nothing, so then nothing goes. The order of the questions matters ([`judge`]):
//!
//! 1. Are all its fragments here older than the grace?
//! 2. Do its writers say that no upload and no repair of it is under way? Asked before the ledger: a writer enters its
//!    record into the ledger before it calls the work ended. A writer out of reach is waited for, until it is no member any
//!    more or its newest fragment here is a day old: no upload and no repair of a segment lasts that long.
//! 3. Is its multipart upload still open? Asked before 4: completing writes the object before it removes the upload.
//! 4. Does the object or version it was uploaded for hold it? A version counts only if its object's head names it, read after
//!    everyone has said that no upload is under way: it is written first and named second, and its writer may have died between.
//! 5. Does any object that shares it (`copy.rs`) hold it, is no copy of it under way at any peer, and has no sharer been
//!    added while this was asked?
//!
//! A write whose outcome its writer never learnt may lie accepted with a minority of voters and surface later,
//! after its fragments are gone. So question 4 is a [fenced read](crate::pool::Ledger::read_fenced): a read that fences such
//! writes off. Only the first look after a hint goes without 1, 2 and the fence: it deletes nothing.
//!
//! Who is garbage stays garbage: no upload under way, no accept that could surface, and a copy needs an object that holds it.
//! So its other registers (parts, moved segments, sharers) go with it, whichever of its homes comes first.
//!
//! **Surplus** ([`surplus`]). Repair moves fragments and leaves the old ones. A fragment of a body in use goes when its
//! segment's placement names another home or another id in its place. What repair promises: *it stores a fragment here, even
//! if it finds it here, before it commits a placement that names it here; it is in flight from before the storing until after
//! the commit; and the commit changes only what it stored, on the placement found there.* Then:
//!
//! 6. The note is read first, then everyone's word that the body is not in flight, then the placement, fenced; the deletion
//!    is void if the note has changed. A repair that stored after the note was read has changed it. One that stored
//!    before and has ended is in the placement read. One that has not ended says so, and if it died, what it sent is fenced
//!    off. Everyone is asked, not the noted writer alone: of two that repair a segment at once the second to store a fragment is
//!    noted, and the first may still commit it (a fragment that is rebuilt has one id, whoever rebuilds it).
//! 7. Once named elsewhere, a fragment here is named again only after it was stored again, which makes its note new, takes it
//!    out of the trash and starts its grace: a second repair that comes back to it has saved it, or is too late and finds it gone
//!    before it stores it.
//! 8. It goes only while all n fragments of the placement are there, verified by their homes in the second look: until then it
//!    may be what the segment is rebuilt from. A segment written with fewer than n is first to be repaired.
//! 9. A segment that neither the object nor a placement names is a part dropped on completion. The list of parts of an object is
//!    written once, and each part's register too, so any copy of it will do; where one is missing here nothing is decided.
//!
//! **The trash.** What was found goes into the trash: its note says since when, and it stays readable. After
//! `collection.trash` it is judged anew, by all questions, and deleted only if every answer is no again; what is in use by then
//! is taken out. What is stored again meanwhile has a new note, is out of the trash by that, and is never deleted on a judgement
//! of the old one ([`Home::delete_if`](super::Home)).
//!
//! **Local pools.** No quorum speaks for the others: another island may hold, or a member that lags may yet write, a record
//! that refers to the body. There, 3, 4 and the placement are asked of **every member**
//! ([`read_everywhere`](crate::pool::Ledger::read_everywhere)), any yes keeps the fragment, and while one member is away
//! nothing is collected. Nothing shares a body there.
//!
//! Fragment ids never join two bodies: stripes are sealed under random keys, so equal plaintexts give different
//! fragments, and the same id in two notes is the same fragment of the same body sent twice.

mod judge;
mod moved;
mod report;
mod surplus;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use palm_backends::StoreError;
use palm_core::id::{BodyId, FragmentId};
use palm_core::record::{FragmentRecord, SharersRecord, Stored, key};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use self::judge::{Found, Suspect, Verdict, held};
use self::report::Walk;
pub use self::report::{Amount, Because, GcReport};
use super::home::after_body;
use super::store::is_upload;
use super::{ObjectError, Store};
use crate::blocking::spawn_blocking;
use crate::pool::Decision;

/// Bodies examined at once: their questions to the voters share frames.
const CONCURRENT: usize = 16;
/// Bodies taken from the index, or from the hints, at a time.
const BATCH: usize = 256;
/// Pause after each batch, so that a walk over a million bodies stays in the background.
const PAUSE: Duration = Duration::from_millis(250);
/// How often hints are looked at, at least.
const TICK: Duration = Duration::from_secs(1);

/// A fragment kept here and its note, as they were when its judgement began.
type Noted = (FragmentId, FragmentRecord);

/// When garbage goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectSettings {
    /// Fragments younger than this are left alone, unless their body was released.
    pub grace: Duration,
    /// A released body is left alone for this long, for the readers that are still at it.
    pub released_grace: Duration,
    /// Garbage is readable in the trash for this long before the second look.
    pub trash: Duration,
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
            trash: Duration::from_hours(1),
            unreachable_grace: Duration::from_hours(24),
            walk_every: Duration::from_hours(1),
        }
    }
}

/// What collection keeps in a store.
pub(super) struct Collector {
    settings: CollectSettings,
    /// One walk at a time: the loop's, or a command's.
    walking: tokio::sync::Mutex<()>,
    /// In the trash here, as of the last walk and what was done since.
    trash_bytes: AtomicU64,
}

impl Collector {
    pub(super) fn new(settings: CollectSettings) -> Self {
        Self { settings, walking: tokio::sync::Mutex::default(), trash_bytes: AtomicU64::default() }
    }
}

impl Store {
    /// Collects garbage among this peer's fragments for as long as it is polled.
    pub async fn collect(&self) {
        let settings = &self.collector.settings;
        let mut tick = interval(settings.walk_every.clamp(PAUSE, TICK));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Not by the ledger's clock, which stands still for as long as another peer's was ahead.
        let mut walk_at = Instant::now() + settings.walk_every;
        loop {
            tick.tick().await;
            self.collect_released().await;
            if Instant::now() >= walk_at {
                if let Err(error) = self.walk(&Walk::in_background()).await {
                    warn!(%error, "the walk over all fragments came to no end");
                }
                walk_at = Instant::now() + settings.walk_every;
            }
        }
    }

    /// Looks at everything kept here once, now; the graces hold. In a dry run nothing changes, and the report says what
    /// would have. `progress` is told of every batch.
    ///
    /// # Errors
    /// This peer's notes on its fragments cannot be read.
    pub async fn collect_now(
        &self,
        dry_run: bool,
        progress: impl Fn(&GcReport) + Send + Sync + 'static,
    ) -> Result<GcReport, ObjectError> {
        self.walk(&Walk::at_once(dry_run, Box::new(progress))).await
    }

    /// Bytes of the fragments in the trash here, as of the last walk.
    pub fn trash_bytes(&self) -> u64 {
        self.collector.trash_bytes.load(Ordering::Relaxed)
    }

    /// Looks at the bodies whose release has aged enough. What cannot be decided now is left to the walk.
    async fn collect_released(&self) {
        let walk = Walk::in_background();
        loop {
            let before_ms = self.ledger.now_ms().saturating_sub(millis(self.collector.settings.released_grace));
            let batch: BTreeSet<BodyId> =
                std::iter::from_fn(|| self.home.next_released(before_ms)).take(BATCH).collect();
            if batch.is_empty() {
                return;
            }
            self.examine_all(batch.into_iter().collect(), Found::Released, &walk).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks at every body that has fragments here, then at the moved segments, once.
    async fn walk(&self, walk: &Walk) -> Result<GcReport, ObjectError> {
        let _one = self.collector.walking.lock().await;
        let mut from = Some(BodyId::from_bytes([0; BodyId::LEN]));
        while let Some(first) = from {
            let home = self.home.clone();
            let bodies = spawn_blocking(move || home.bodies(first, BATCH)).await??;
            if bodies.is_empty() {
                break;
            }
            from = bodies.last().copied().and_then(after_body);
            self.examine_all(bodies, Found::Walking, walk).await;
            walk.rest(PAUSE).await;
        }
        self.sweep_moved(walk).await?;
        let report = walk.report();
        if !walk.is_dry() {
            self.collector.trash_bytes.store(report.in_trash.bytes, Ordering::Relaxed);
        }
        Ok(report)
    }

    async fn examine_all(&self, bodies: Vec<BodyId>, found: Found, walk: &Walk) {
        stream::iter(bodies)
            .for_each_concurrent(CONCURRENT, |body| async move {
                if let Err(error) = self.examine(body, found, walk).await {
                    debug!(%body, %error, "collection could not decide; the body stays");
                }
            })
            .await;
    }

    /// Decides about one body and does what follows for its fragments here.
    async fn examine(&self, body: BodyId, found: Found, walk: &Walk) -> Result<(), ObjectError> {
        let fragments = self.home.fragments_of(body)?;
        let Some(suspect) = Suspect::of(body, &fragments) else { return Ok(()) };
        walk.body();
        let waits = |(_, note): &Noted| note.trashed_ms.is_some() && !self.is_due(note);
        if fragments.iter().all(waits) {
            walk.wait_all(&fragments);
            return Ok(());
        }
        match self.judge(&suspect, found).await {
            Ok(Verdict::Garbage) => self.take_away(body, fragments, found, walk).await,
            Ok(Verdict::InUse(holder)) if found == Found::Walking => {
                self.sort_out(body, &holder, fragments, walk).await
            }
            Ok(Verdict::InUse(_)) => Ok(()),
            Ok(Verdict::Kept(because)) => {
                walk.keep_all(&fragments, because);
                Ok(())
            }
            Err(error) => {
                walk.keep_all(&fragments, Because::Undecided);
                Err(error)
            }
        }
    }

    /// The fragments of a garbage body: into the trash, or out of this world.
    async fn take_away(
        &self,
        body: BodyId,
        fragments: Vec<Noted>,
        found: Found,
        walk: &Walk,
    ) -> Result<(), ObjectError> {
        // A first look asks too little to delete.
        let (due, others): (Vec<_>, Vec<_>) =
            fragments.into_iter().partition(|(_, note)| found == Found::Walking && self.is_due(note));
        if !due.is_empty() && !walk.is_dry() {
            self.forget_registers(body, &due).await?;
        }
        for fragment in others {
            self.trash(fragment, walk).await?;
        }
        for fragment in due {
            self.purge(fragment, walk).await?;
        }
        Ok(())
    }

    /// Whether it has been in the trash for long enough.
    fn is_due(&self, note: &FragmentRecord) -> bool {
        let trash_ms = millis(self.collector.settings.trash);
        note.trashed_ms.is_some_and(|since_ms| self.ledger.now_ms().saturating_sub(since_ms) >= trash_ms)
    }

    /// Puts a fragment into the trash, unless it is there.
    async fn trash(&self, (id, note): Noted, walk: &Walk) -> Result<(), ObjectError> {
        if note.trashed_ms.is_some() {
            walk.waits(&note);
            return Ok(());
        }
        let trashed_ms = Some(self.ledger.now_ms());
        if walk.is_dry() || self.home.renote_if(id, &note, &FragmentRecord { trashed_ms, ..note.clone() }).await? {
            debug!(fragment = %id, body = %note.body, "into the trash");
            walk.trashes(&note);
            walk.act(|| self.collector.trash_bytes.fetch_add(note.len, Ordering::Relaxed));
        }
        Ok(())
    }

    /// Takes a fragment out of the trash, if it is there: it is in use.
    async fn restore(&self, (id, note): Noted, walk: &Walk) -> Result<(), ObjectError> {
        if note.trashed_ms.is_none() {
            return Ok(());
        }
        if walk.is_dry() || self.home.renote_if(id, &note, &FragmentRecord { trashed_ms: None, ..note.clone() }).await?
        {
            info!(fragment = %id, body = %note.body, "out of the trash: in use again");
            walk.restores(&note);
            walk.act(|| self.take_from_trash(note.len));
        }
        Ok(())
    }

    /// Deletes a fragment for good, if nobody has stored it again.
    async fn purge(&self, (id, note): Noted, walk: &Walk) -> Result<(), ObjectError> {
        if walk.is_dry() || self.home.delete_if(id, &note).await? {
            debug!(fragment = %id, body = %note.body, segment = %note.segment, "collected");
            walk.deletes(&note);
            walk.act(|| {
                self.take_from_trash(note.len);
                self.counters.collected_fragments.fetch_add(1, Ordering::Relaxed);
                self.counters.collected_bytes.fetch_add(note.len, Ordering::Relaxed);
            });
        } else {
            // Stored again since, or within this millisecond of a clock that stands still: the next walk sees.
            walk.waits(&note);
        }
        Ok(())
    }

    fn take_from_trash(&self, bytes: u64) {
        let less = |trash: u64| Some(trash.saturating_sub(bytes));
        let _ = self.collector.trash_bytes.try_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Removes the registers that only a garbage body needed. Every home of it does this; the first finds some.
    async fn forget_registers(&self, body: BodyId, fragments: &[Noted]) -> Result<(), ObjectError> {
        if is_upload(body) {
            let parts = self.parts(body).await?;
            for (&number, part) in &parts.newest {
                self.forget(key::part(body, number, part.attempt)).await?;
            }
            for (register, _) in parts.outdated {
                self.forget(register).await?;
            }
        }
        let noted = fragments.iter().map(|(_, note)| Bytes::copy_from_slice(&note.object));
        let sharers =
            self.ledger.peek(&key::sharers(body)).map(|known| SharersRecord::decode(&known.value)).transpose()?;
        let shared = sharers.into_iter().flat_map(|sharers| sharers.objects).map(Bytes::from);
        for version in
            noted.chain(shared).filter(|holder| key::parse_version(holder).is_some()).collect::<BTreeSet<_>>()
        {
            // What still refers to the body is a version that was never named.
            let withdrawn = self.ledger.update(version.clone(), |current| match held(&version, current, body) {
                Ok(Some(_)) => Decision::Delete(()),
                _ => Decision::Keep(()),
            });
            withdrawn.await?;
        }
        let segments: BTreeSet<_> = fragments.iter().map(|(_, note)| note.segment).collect();
        let moved = segments.into_iter().map(key::moved);
        for register in moved.chain([key::sharers(body)]) {
            // Most bodies have none; one that this peer has not heard of yet is found by another, or by the sweep.
            if self.ledger.peek(&register).is_some() {
                self.forget(register).await?;
            }
        }
        Ok(())
    }

    /// Deletes a register, if it is there.
    async fn forget(&self, register: Bytes) -> Result<(), ObjectError> {
        let gone = self.ledger.update(register, |current| match current {
            Some(_) => Decision::Delete(()),
            None => Decision::Keep(()),
        });
        gone.await?;
        Ok(())
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
