//! Repair: segments that have lost fragments are made whole again, moved, or coded anew.
//!
//! The audit finds what needs it, scrubbing and readers report what they stumble upon, and all of it waits in one queue
//! ([`queue`]), the most endangered first. A job carries no decision: what is to be done is decided by
//! [`palm_core::repair::plan`] on what is found when its turn comes ([`look`]), so a peer that has returned meanwhile
//! ends it. Then stripes are read and verified ([`read`]), fragments
//! stored ([`mend`], or [`recode`] under another policy), and the new homes entered into the
//! ledger (`placement.rs`), in this order: a crash in between leaves fragments that nobody names, which collection takes.
//!
//! Repair yields to requests ([`pace`]). Any number of peers may repair the same segment: what they enter merges.

mod look;
mod mend;
mod pace;
mod queue;
mod read;
mod recode;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use palm_backends::decorate::Bandwidth;
use palm_core::code::{CodeError, Shape};
use palm_core::place::Policy;
use palm_core::record::{Placed, Segment};
use palm_core::repair::{Found, Plan, plan};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::draft::Draft;
use super::placement::{Recorded, Whose};
use super::{ObjectError, Store};
pub(super) use look::give_away;
pub(super) use queue::{Job, Queue};

pub use pace::Figures;
pub(super) use pace::Pace;
use pace::Rest;

/// Jobs of one stripe worked on at once; a longer segment takes all of it.
const CONCURRENT: u32 = 8;
/// While requests are served a short job takes this much of it.
const CONCURRENT_BUSY: u32 = 4;
/// Segments up to this count as short.
const SHORT_BYTES: u64 = 1 << 20;
/// A job that failed is tried again after this, longer each time; then it is left to the next audit.
const RETRY: Duration = Duration::from_secs(2);
const MAX_ATTEMPTS: u32 = 4;

/// How repair goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairSettings {
    /// A home absent for longer is gone: its fragments are made again elsewhere.
    pub grace: Duration,
    /// Bytes of fragments read and written at most, each second.
    pub bandwidth: Bandwidth,
    /// How often objects are counted and looked after when nothing happens.
    pub every: Duration,
    /// How long the pool has to have been as it is before segments are coded anew for it.
    pub settle: Duration,
}

impl Default for RepairSettings {
    fn default() -> Self {
        let (grace, settle) = (Duration::from_mins(15), Duration::from_mins(10));
        Self { grace, bandwidth: Bandwidth::UNBOUNDED, every: Duration::from_mins(10), settle }
    }
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing was to be done (any more).
    Idle,
    /// The segment is better off.
    Repaired,
}

impl Store {
    /// Puts segments on this peer's repair queue. Those that it has no room for are found again by the audit.
    pub(super) async fn enqueue(&self, jobs: Vec<Job>) {
        if let Err(error) = self.repairs.enqueue(jobs).await {
            warn!(%error, "repair queue cannot be kept; the audit finds its segments again");
        }
    }

    /// How repair is getting on.
    pub fn repair_figures(&self) -> Figures {
        self.pace.figures(self.repairs.len(), self.repairs.oldest(), self.traffic.bound())
    }

    /// Works off the queue for as long as it is polled.
    pub async fn keep_repairing(&self) {
        if let Err(error) = self.repairs.load() {
            warn!(%error, "repair queue does not read; the audit finds its segments again");
        }
        let permits = Arc::new(Semaphore::new(CONCURRENT as usize));
        let mut working = FuturesUnordered::new();
        loop {
            let short = if self.view.any_busy() { CONCURRENT_BUSY } else { 1 };
            while let Some(job) = self.repairs.take(|job| {
                let permits = Arc::clone(&permits);
                permits.try_acquire_many_owned(if job.bytes > SHORT_BYTES { CONCURRENT } else { short }).ok()
            }) {
                working.push(self.work(job));
            }
            tokio::select! {
                Some(()) = working.next() => {}
                () = self.repairs.changed() => {}
                damaged = self.home.damaged() => self.enqueue(vec![damaged.into()]).await,
            }
        }
    }

    async fn work(&self, (job, permit): (Job, tokio::sync::OwnedSemaphorePermit)) {
        let busy = self.view.any_busy();
        let rest = Rest::begin(busy);
        let worked = self.repair(&job).await;
        let again = match worked {
            Ok(Outcome::Idle) => false,
            Ok(Outcome::Repaired) => {
                self.pace.repaired.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(error) if job.attempts + 1 < MAX_ATTEMPTS => {
                debug!(segment = %job.segment, %error, "repair failed; it is tried again");
                true
            }
            Err(error) => {
                info!(segment = %job.segment, %error, "repair failed; left to the next audit");
                false
            }
        };
        let after = again.then(|| RETRY * 2_u32.pow(job.attempts));
        if let Err(error) = self.repairs.done(job, after).await {
            warn!(%error, "repair queue cannot be kept; after a restart some segments are looked at in vain");
        }
        sleep(rest.ended()).await;
        drop(permit);
    }

    /// Looks at a segment and does what is to be done for it.
    async fn repair(&self, job: &Job) -> Result<Outcome, ObjectError> {
        let Some(recorded) = self.recorded(&job.whose(), job.segment).await? else { return Ok(Outcome::Idle) };
        let seen = self.placed_now(&recorded.segment).await?;
        let mut conditions = self.look(&[&seen], job.verify).await.remove(0);
        if job.leaving {
            give_away(&seen, &mut conditions, self.me);
        }
        // Who just failed is asked again by the next try.
        let (candidates, _) = self.suspects.split(self.view.candidates());
        let decided = plan(
            Found { segment: &seen, conditions: &conditions },
            self.view.wanted_class_policy(recorded.class.as_deref()),
            job.recode,
            &candidates,
            |policy| Shape::new(policy, seen.len).map_or(u64::MAX, |shape| shape.fragment_len()),
        );
        let there = seen.fragments.iter().zip(&conditions).filter(|(_, found)| found.is_there());
        let readable: Vec<Placed> = there.map(|(placed, _)| placed.clone()).collect();
        let task = Task {
            whose: job.whose(),
            draft: Arc::new(Draft::new(self, job.body, job.object.clone().into(), recorded.class.clone())),
            readable: Segment { fragments: readable, ..seen.clone() },
            recorded,
            seen,
        };
        match decided {
            Plan::Leave => Ok(Outcome::Idle),
            Plan::Unreadable => Err(ObjectError::Unavailable(format!(
                "{} of the {} fragments that segment {} needs",
                task.readable.fragments.len(),
                task.seen.k,
                task.seen.id
            ))),
            Plan::Mend(steps) => self.mend(task, &steps).await,
            Plan::Recode { policy, homes } => self.recode(task, policy, homes, candidates).await,
        }
    }
}

/// A segment that is being repaired.
struct Task {
    whose: Whose,
    /// As its record has it.
    recorded: Recorded,
    /// As it is placed.
    seen: Segment,
    /// The same, with only those fragments that are there.
    readable: Segment,
    /// From before anything is stored until after it is entered the body is in flight here: collection relies on it.
    draft: Arc<Draft>,
}

impl Task {
    fn shape(&self) -> Result<Shape, CodeError> {
        Shape::new(Policy { k: self.seen.k, n: self.seen.n }, self.seen.len)
    }
}
