//! Scrubbing: every fragment kept here is read and hashed from time to time, so that rot is found while there is enough left
//! to repair it from.
//!
//! A walk in the order of ids, evenly over the period: how long it rests before a fragment follows from the fragments and
//! the time left. Where it is and when it began survive a restart:
//!
//! | space | key | value |
//! | --- | --- | --- |
//! | [`Space::Meta`] | `scrub` | [`Round`] |

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use palm_backends::{Backend, Durability, FragmentStore, Space, StoreError, Write};
use palm_core::id::FragmentId;
use palm_core::record::Stored;
use palm_core::wire::FragmentState;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::home::Home;
use crate::blocking::spawn_blocking;

const KEY: &[u8] = b"scrub";
/// Notes taken from the index at a time.
const PAGE: usize = 256;
/// Fragments without a note looked at for one page; a store without its index has nothing but such.
const MAX_STRAYS: usize = 64 << 10;
/// While it rests it looks this often whether there is more or less to do than there was.
const SLICE: Duration = Duration::from_mins(1);
/// Where it is, is kept at least this often.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// After each fragment it rests this many times as long as that took: when it is late, and more while requests are served.
const REST: u32 = 1;
const REST_BUSY: u32 = 9;
/// No such rest is longer, or a slow disk would stop it.
const MAX_REST: Duration = Duration::from_secs(5);
/// After an error it waits so long.
const RETRY: Duration = Duration::from_mins(1);
/// What stores hold in memory is forgotten so often while fragments are checked: rot is in the medium.
const FORGET_EVERY: Duration = Duration::from_mins(1);
/// Fragments checked at once on command.
const AT_ONCE: usize = 2;

/// A round of scrubbing, as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Round {
    /// When it began, milliseconds since the Unix epoch.
    began_ms: u64,
    /// The fragment checked last.
    after: Option<FragmentId>,
    /// Fragments checked.
    done: u64,
    /// Fragments without a note met.
    orphans: u64,
    /// When the round before ended; 0: there was none.
    last_ended_ms: u64,
}

impl Stored for Round {
    const VERSION: u8 = 1;
    const KIND: &'static str = "scrub";
}

/// How scrubbing stands, for figures.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) done: AtomicU64,
    pub(super) last_round_ms: AtomicU64,
    pub(super) orphans: AtomicU64,
}

/// What a scrub on command found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Fragments read and hashed.
    pub checked: u64,
    /// Those that were wrong or missing.
    pub damaged: u64,
    /// Fragments without a note.
    pub orphans: u64,
}

/// Some neighbouring fragments.
struct Page {
    noted: Vec<FragmentId>,
    /// Stored and not noted there, at first sight: a fragment is noted a moment after it is stored.
    strays: Vec<(Backend, FragmentId)>,
}

impl Home {
    /// Scrubs for as long as it is polled, each fragment once a period.
    pub async fn keep_scrubbing(&self, period: Duration) {
        let mut round = self.begin_round(period);
        loop {
            match self.page(round.after).await {
                Ok(page) if page.noted.is_empty() => {
                    round.orphans += self.settle(page.strays).await;
                    let ended_ms = self.now_ms();
                    info!(fragments = round.done, orphans = round.orphans, "scrubbed all fragments");
                    self.0.scrub.orphans.store(round.orphans, Ordering::Relaxed);
                    self.0.scrub.last_round_ms.store(ended_ms, Ordering::Relaxed);
                    let next_ms = (round.began_ms + millis(period)).max(ended_ms);
                    round = Round { began_ms: next_ms, last_ended_ms: ended_ms, ..Round::default() };
                    self.keep_round(&round).await;
                    sleep(Duration::from_millis(next_ms - ended_ms)).await;
                    self.0.scrub.done.store(0, Ordering::Relaxed);
                }
                Ok(page) => self.scrub_page(&mut round, page, period).await,
                Err(error) => {
                    warn!(%error, "scrubbing waits: notes or fragments cannot be listed");
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn scrub_page(&self, round: &mut Round, page: Page, period: Duration) {
        let (mut kept, mut forgot) = (Instant::now(), None);
        for id in page.noted {
            self.rest_before(round, period).await;
            self.forget_cached(&mut forgot);
            let (begun, served) = (Instant::now(), self.0.served.load(Ordering::Relaxed));
            self.verify(id).await;
            round.after = Some(id);
            round.done += 1;
            self.0.scrub.done.store(round.done, Ordering::Relaxed);
            if kept.elapsed() > KEEP_EVERY {
                self.keep_round(round).await;
                kept = Instant::now();
            }
            let busy = self.0.served.load(Ordering::Relaxed) != served;
            sleep((begun.elapsed() * if busy { REST_BUSY } else { REST }).min(MAX_REST)).await;
        }
        round.orphans += self.settle(page.strays).await;
        self.keep_round(round).await;
    }

    /// Has what is read next come from the medium, now and then.
    fn forget_cached(&self, last: &mut Option<Instant>) {
        if last.is_none_or(|last| last.elapsed() >= FORGET_EVERY) {
            self.0.backends.forget_cached();
            *last = Some(Instant::now());
        }
    }

    /// Waits until the next fragment is due.
    async fn rest_before(&self, round: &Round, period: Duration) {
        let (since, since_ms) = (Instant::now(), self.now_ms());
        loop {
            let all = self.usage().await.unwrap_or_default().fragments;
            let left = rest(all.saturating_sub(round.done), (round.began_ms + millis(period)).saturating_sub(since_ms));
            let left = left.saturating_sub(since.elapsed());
            if left.is_zero() {
                return;
            }
            sleep(left.min(SLICE)).await;
        }
    }

    /// Checks every fragment now, as fast as the disk gives them. Tells how many were checked and how many there are.
    pub async fn scrub_now(&self, progress: impl Fn(u64, u64) + Send) -> Result<Scrubbed, StoreError> {
        let mut found = Scrubbed::default();
        let (mut after, mut forgot) = (None, None);
        loop {
            let page = self.page(after).await?;
            self.forget_cached(&mut forgot);
            let is_last = page.noted.is_empty();
            after = page.noted.last().copied();
            let checks = page.noted.into_iter().map(|id| {
                let home = self.clone();
                async move { home.verify(id).await }
            });
            let mut checks = stream::iter(checks).buffer_unordered(AT_ONCE);
            while let Some(state) = checks.next().await {
                found.checked += 1;
                found.damaged += u64::from(state != FragmentState::Sound);
            }
            found.orphans += self.settle(page.strays).await;
            progress(found.checked, self.usage().await.unwrap_or_default().fragments);
            if is_last {
                self.0.scrub.orphans.store(found.orphans, Ordering::Relaxed);
                self.0.scrub.last_round_ms.store(self.now_ms(), Ordering::Relaxed);
                return Ok(found);
            }
        }
    }

    /// The fragments after this one; none noted: those after the last note.
    async fn page(&self, after: Option<FragmentId>) -> Result<Page, StoreError> {
        let home = self.clone();
        let noted = spawn_blocking(move || home.notes(after, PAGE)).await;
        let noted = noted.unwrap_or_else(|error| Err(StoreError::Io(std::io::Error::other(error))))?;
        let mut strays = Vec::new();
        for backend in self.0.backends.iter() {
            let mut from = after;
            // One that failed lists nothing; its fragments are missing to those who check them.
            while let Ok(listed) = backend.list(from, PAGE).await {
                let within =
                    listed.iter().map(|stat| stat.id).take_while(|id| noted.last().is_none_or(|end| id <= end));
                let ids: Vec<FragmentId> = within.collect();
                let found = ids.iter().filter(|&&id| !self.is_noted(id, &noted, &backend));
                strays.extend(found.map(|&id| (backend.clone(), id)));
                if ids.len() < PAGE || strays.len() >= MAX_STRAYS {
                    break;
                }
                from = ids.last().copied();
            }
        }
        Ok(Page { noted, strays })
    }

    /// Looks at strays again: those that are also where their note says are deleted. Answers how many are still there and
    /// have no note.
    async fn settle(&self, strays: Vec<(Backend, FragmentId)>) -> u64 {
        let mut orphans = 0;
        for (backend, id) in strays {
            match self.record(id) {
                Ok(None) => orphans += u64::from(matches!(backend.stat(id).await, Ok(Some(_)))),
                // A rotten one is replaced first: the copy may be all there is.
                Ok(Some(note)) if !note.corrupt && note.backend != backend.number() => {
                    let deleted = self.delete_copy(id, &backend).await;
                    debug!(fragment = %id, backend = %backend.place(), ?deleted, "a second copy");
                }
                _ => {}
            }
        }
        orphans
    }

    fn is_noted(&self, id: FragmentId, noted: &[FragmentId], at: &Backend) -> bool {
        let is_there = || matches!(self.record(id), Ok(Some(note)) if note.backend == at.number());
        noted.binary_search(&id).is_ok() && (self.0.backends.only().is_some() || is_there())
    }

    /// The round that a restart interrupted, or a new one.
    fn begin_round(&self, period: Duration) -> Round {
        let kept = self.0.index.get(Space::Meta, KEY).ok().flatten();
        let now_ms = self.now_ms();
        let round =
            kept.and_then(|kept| Round::decode(&kept).ok()).unwrap_or(Round { began_ms: now_ms, ..Round::default() });
        // The next round may not be due yet; but for a clock that was set back none waits longer than a period.
        let round = Round { began_ms: round.began_ms.min(now_ms + millis(period)), ..round };
        self.0.scrub.done.store(round.done, Ordering::Relaxed);
        self.0.scrub.last_round_ms.store(round.last_ended_ms, Ordering::Relaxed);
        round
    }

    async fn keep_round(&self, round: &Round) {
        let write = Write::Put(Space::Meta, Bytes::from_static(KEY), round.encode());
        if let Err(error) = self.0.index.commit(vec![write], Durability::Buffered).await {
            warn!(%error, "where scrubbing is cannot be kept; after a restart some is done again");
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long to rest before each of the fragments that are left, so that they take the time that is left.
fn rest(fragments_left: u64, time_left_ms: u64) -> Duration {
    Duration::from_millis(time_left_ms / fragments_left.max(1))
}
