//! The segments that wait for repair at this peer: the most endangered first, kept through restarts.
//!
//! Kept in the index space [`Space::Fragments`] under `q`, urgency (one byte, smaller is more urgent) and segment id. Losing
//! an entry loses nothing but time: the audit finds the segment again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use palm_backends::{Durability, IndexStore, Next, Space, StoreError, Write};
use palm_core::id::{BodyId, SegmentId};
use palm_core::record::Stored;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::object::home::Damaged;
use crate::object::placement::Whose;

/// Segments that wait at most; of more the most endangered are kept.
const MAX_QUEUED: usize = 64 << 10;
const PREFIX: &[u8] = b"q";

/// A segment to look at, and to repair if it needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::object) struct Job {
    /// The body it belongs to.
    pub(in crate::object) body: BodyId,
    /// Register key of an object that holds it, or for which it is being uploaded.
    pub(in crate::object) object: Vec<u8>,
    /// Number and attempt of the part it is of, where that is known.
    pub(in crate::object) part: Option<(u16, u64)>,
    /// Which.
    pub(in crate::object) segment: SegmentId,
    /// Fragments it could lose before it is unreadable; negative where it is.
    pub(in crate::object) spare: i8,
    /// Plaintext bytes.
    pub(in crate::object) bytes: u64,
    /// This peer's own fragments should go elsewhere.
    pub(in crate::object) leaving: bool,
    /// It may be coded anew for the pool as it is now.
    pub(in crate::object) recode: bool,
    /// Homes should read their fragments, not say what they last knew.
    pub(in crate::object) verify: bool,
    /// How often it failed since this peer started.
    #[serde(skip)]
    pub(in crate::object) attempts: u32,
}

impl Stored for Job {
    const VERSION: u8 = 1;
    const KIND: &'static str = "repair job";
}

impl From<Damaged> for Job {
    /// How endangered it is nobody has asked yet: it is looked at soon.
    fn from(damaged: Damaged) -> Self {
        let Damaged { segment, body, object } = damaged;
        let (spare, bytes, part) = (0, 0, None);
        Self { body, object, part, segment, spare, bytes, leaving: false, recode: false, verify: true, attempts: 0 }
    }
}

impl Job {
    pub(in crate::object) fn whose(&self) -> Whose {
        Whose { body: self.body, object: self.object.clone().into(), part: self.part }
    }

    fn place(&self) -> Place {
        (self.spare, self.segment)
    }

    fn key(&self) -> Bytes {
        // Flipping the sign bit makes the order of the byte that of the number.
        [PREFIX, &[self.spare.cast_unsigned() ^ 0x80], self.segment.as_bytes()].concat().into()
    }

    /// What is asked for by either of two jobs for one segment.
    fn and(self, other: &Self) -> Self {
        Self {
            spare: self.spare.min(other.spare),
            leaving: self.leaving || other.leaving,
            recode: self.recode || other.recode,
            verify: self.verify || other.verify,
            ..self
        }
    }
}

type Place = (i8, SegmentId);

/// The queue.
pub(in crate::object) struct Queue {
    index: Arc<dyn IndexStore>,
    jobs: Mutex<Jobs>,
    changed: Notify,
}

#[derive(Default)]
struct Jobs {
    waiting: BTreeMap<Place, Job>,
    /// Those that failed and are tried again later.
    resting: BTreeMap<(Instant, SegmentId), Job>,
    /// Where each segment stands, and whether it was asked for again while it is worked on.
    places: HashMap<SegmentId, Standing>,
    /// Since when each has been wanted.
    since: HashMap<SegmentId, Instant>,
    bytes: u64,
}

enum Standing {
    Waiting(Place),
    Resting(Instant),
    Working(Option<Box<Job>>),
}

impl Jobs {
    /// Adds a job; answers what must be kept of it: writes to the index.
    fn add(&mut self, job: Job) -> Vec<Write> {
        let segment = job.segment;
        let before = match self.places.get_mut(&segment) {
            Some(Standing::Working(again)) => {
                *again = Some(Box::new(match again.take() {
                    Some(before) => job.and(&before),
                    None => job,
                }));
                return Vec::new();
            }
            Some(&mut Standing::Waiting(place)) => self.waiting.remove(&place),
            Some(&mut Standing::Resting(until)) => self.resting.remove(&(until, segment)),
            None => None,
        };
        let mut writes = Vec::new();
        let job = match before {
            Some(before) => {
                writes.push(Write::Delete(Space::Fragments, before.key()));
                self.bytes -= before.bytes;
                job.and(&before)
            }
            None => job,
        };
        writes.push(Write::Put(Space::Fragments, job.key(), job.encode()));
        self.bytes += job.bytes;
        self.since.entry(segment).or_insert_with(Instant::now);
        self.places.insert(segment, Standing::Waiting(job.place()));
        self.waiting.insert(job.place(), job);
        if self.waiting.len() > MAX_QUEUED
            && let Some((_, least)) = self.waiting.pop_last()
        {
            self.places.remove(&least.segment);
            self.since.remove(&least.segment);
            self.bytes -= least.bytes;
            writes.push(Write::Delete(Space::Fragments, least.key()));
        }
        writes
    }

    fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.resting.first_entry().filter(|entry| entry.key().0 <= now) {
            let job = entry.remove();
            self.places.insert(job.segment, Standing::Waiting(job.place()));
            self.waiting.insert(job.place(), job);
        }
    }
}

impl Queue {
    /// An empty queue; [`load`](Self::load) brings what a last life left.
    pub(in crate::object) fn new(index: Arc<dyn IndexStore>) -> Self {
        Self { index, jobs: Mutex::default(), changed: Notify::new() }
    }

    /// Takes in what is kept. Entries that do not read are passed over.
    pub(in crate::object) fn load(&self) -> Result<(), StoreError> {
        let mut jobs = self.jobs.lock();
        self.index.scan(Space::Fragments, PREFIX, &mut |key, value| {
            if !key.starts_with(PREFIX) || jobs.waiting.len() >= MAX_QUEUED {
                return Next::Stop;
            }
            if let Ok(job) = Job::decode(value) {
                jobs.add(job);
            }
            Next::Continue
        })
    }

    /// Adds segments, or raises the urgency of those that wait already.
    pub(in crate::object) async fn enqueue(&self, jobs: Vec<Job>) -> Result<(), StoreError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let mut writes = Vec::new();
        {
            let mut queue = self.jobs.lock();
            for job in jobs {
                writes.extend(queue.add(job));
            }
        }
        self.changed.notify_one();
        self.index.commit(writes, Durability::Buffered).await
    }

    /// The most urgent job, if it gets the `permit` it needs now.
    pub(in crate::object) fn take<P>(&self, permit: impl FnOnce(&Job) -> Option<P>) -> Option<(Job, P)> {
        let mut jobs = self.jobs.lock();
        jobs.wake(Instant::now());
        let permit = permit(jobs.waiting.first_key_value()?.1)?;
        let (_, job) = jobs.waiting.pop_first()?;
        jobs.places.insert(job.segment, Standing::Working(None));
        Some((job, permit))
    }

    /// Ends a job; with `after` it is tried again then.
    pub(in crate::object) async fn done(&self, mut job: Job, after: Option<Duration>) -> Result<(), StoreError> {
        let writes = {
            let mut jobs = self.jobs.lock();
            let again = match jobs.places.remove(&job.segment) {
                Some(Standing::Working(again)) => again,
                _ => None,
            };
            match (again, after) {
                (Some(again), _) => {
                    jobs.bytes -= job.bytes;
                    let mut writes = vec![Write::Delete(Space::Fragments, job.key())];
                    writes.extend(jobs.add(*again));
                    writes
                }
                (None, Some(after)) => {
                    job.attempts += 1;
                    let until = Instant::now() + after;
                    jobs.places.insert(job.segment, Standing::Resting(until));
                    jobs.resting.insert((until, job.segment), job);
                    Vec::new()
                }
                (None, None) => {
                    jobs.bytes -= job.bytes;
                    jobs.since.remove(&job.segment);
                    vec![Write::Delete(Space::Fragments, job.key())]
                }
            }
        };
        if writes.is_empty() { Ok(()) } else { self.index.commit(writes, Durability::Buffered).await }
    }

    /// Waits until there may be something to take that was not there before.
    pub(in crate::object) async fn changed(&self) {
        let due = self.jobs.lock().resting.keys().next().map(|(until, _)| *until);
        match due {
            Some(due) => tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(due) => {}
            },
            None => self.changed.notified().await,
        }
    }

    /// For how long the oldest job has waited, since this peer started; zero where there is none.
    pub(in crate::object) fn oldest(&self) -> Duration {
        self.jobs.lock().since.values().min().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// Segments that wait or are worked on, and their plaintext bytes.
    pub(in crate::object) fn len(&self) -> (u64, u64) {
        let jobs = self.jobs.lock();
        (jobs.places.len() as u64, jobs.bytes)
    }
}

#[cfg(test)]
mod tests {
    use palm_backends::memory::MemoryIndex;

    use super::*;

    fn job(segment: u8, spare: i8) -> Job {
        Job {
            body: BodyId::from_bytes([segment; 16]),
            object: b"ob\0k".to_vec(),
            part: None,
            segment: SegmentId::from_bytes([segment; 16]),
            spare,
            bytes: 10,
            leaving: false,
            recode: false,
            verify: false,
            attempts: 0,
        }
    }

    fn drain(queue: &Queue) -> Vec<(u8, i8)> {
        let taken = std::iter::from_fn(|| queue.take(|_| Some(())));
        taken.map(|(job, ())| (job.segment.as_bytes()[0], job.spare)).collect()
    }

    /// A peer dies, and then another one: segments that lost two fragments must not wait behind thousands that lost one.
    /// The peer is restarted in the middle of it and goes on where it was.
    #[tokio::test]
    async fn the_most_endangered_come_first_also_after_a_restart() {
        let index: Arc<dyn IndexStore> = Arc::new(MemoryIndex::new());
        let queue = Queue::new(Arc::clone(&index));
        queue.enqueue(vec![job(1, 1), job(2, 1), job(3, -1), job(4, 2)]).await.unwrap();
        queue.enqueue(vec![job(2, 0), job(1, 2)]).await.unwrap();
        assert_eq!(queue.len(), (4, 40));
        let (first, ()) = queue.take(|_| Some(())).unwrap();
        assert_eq!(first, job(3, -1));
        queue.done(first, None).await.unwrap();
        let (unfinished, ()) = queue.take(|_| Some(())).unwrap();
        assert_eq!(unfinished, job(2, 0));

        let next_life = Queue::new(index);
        next_life.load().unwrap();
        assert_eq!(next_life.len(), (3, 30));
        assert_eq!(drain(&next_life), [(2, 0), (1, 1), (4, 2)]);
    }

    /// A segment is damaged again while it is being repaired: that repair may have looked before. It must be looked at once
    /// more, and one that failed must rest and not spin.
    #[tokio::test(start_paused = true)]
    async fn what_is_asked_for_again_is_done_again_and_failures_rest() {
        let queue = Queue::new(Arc::new(MemoryIndex::new()));
        queue.enqueue(vec![job(1, 1)]).await.unwrap();
        let (working, ()) = queue.take(|_| Some(())).unwrap();
        queue.enqueue(vec![job(1, 0)]).await.unwrap();
        assert!(queue.take(|_| Some(())).is_none(), "one at a time");
        queue.done(working, None).await.unwrap();
        let (again, ()) = queue.take(|_| Some(())).unwrap();
        assert_eq!(again, job(1, 0));
        queue.done(again, Some(Duration::from_secs(2))).await.unwrap();
        assert!(queue.take(|_| Some(())).is_none());
        assert_eq!(queue.len(), (1, 10));
        queue.changed().await;
        queue.changed().await;
        let (third, ()) = queue.take(|_| Some(())).unwrap();
        assert_eq!(third.attempts, 1);
        assert!(queue.oldest() >= Duration::from_secs(2), "however often it was tried");
        queue.done(third, None).await.unwrap();
        assert_eq!((queue.len(), queue.oldest()), ((0, 0), Duration::ZERO));
    }
}
