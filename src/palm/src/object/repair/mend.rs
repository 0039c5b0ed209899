//! Storing what a plan says: fragments rebuilt or copied.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use palm_core::code::Shape;
use palm_core::id::FragmentId;
use palm_core::record::Placed;
use palm_core::repair::Step;
use palm_core::wire::FragmentOrigin;
use tokio::time::timeout;
use tracing::{debug, info};

use super::read::StripeReader;
use super::{Outcome, Task};
use crate::object::fetch::Lane;
use crate::object::homes::{HomeError, Upload};
use crate::object::placement::Change;
use crate::object::{ObjectError, Store};

/// A home takes a shard, or makes a fragment durable, within this, or is left out.
const STALL: Duration = Duration::from_secs(15);

impl Store {
    /// Stores the fragments that some steps call for, as far as that goes, and enters those that are elsewhere now.
    pub(super) async fn mend(&self, task: Task, steps: &[Step]) -> Result<Outcome, ObjectError> {
        // Kept whatever happens: what is rebuilt in place is part of the segment already, and what comes to nothing is surplus.
        task.draft.keep();
        let mended = self.store_steps(&task, steps).await?;
        let count = mended.len();
        let moved = mended.iter().any(|placed| !task.seen.fragments.contains(placed));
        if moved && !self.enter_move(&task.whose, &task.recorded.segment, &task.seen, &Change::Mended(mended)).await? {
            return Ok(Outcome::Idle);
        }
        info!(segment = %task.seen.id, fragments = count, moved, "segment mended");
        Ok(Outcome::Repaired)
    }

    /// Stores what some steps call for; answers what is stored. Fails when nothing is.
    async fn store_steps(&self, task: &Task, steps: &[Step]) -> Result<Vec<Placed>, ObjectError> {
        let (seen, shape) = (&task.seen, task.shape()?);
        let secret = self.data_key(task.recorded.data_key).await?.secret(seen.id);
        let rebuilt: Arc<[u8]> = steps.iter().filter(|step| step.from.is_none()).map(|step| step.index).collect();
        let mut reader = (!rebuilt.is_empty()).then(|| StripeReader::new(self, task.readable.clone(), shape, secret));
        let mut sinks: Vec<Sink> = Vec::with_capacity(steps.len());
        let source = |step: &Step| {
            seen.fragments.iter().find(|placed| Some(placed.home) == step.from && placed.index == step.index)
        };
        for step in steps {
            let lane = source(step).map(|placed| Lane::closed(placed.clone()));
            sinks.push(Sink::new(self, *step, task.draft.origin(seen.id, step.index), lane, shape).await);
        }
        for stripe in 0..shape.stripes() {
            let mut shards = match &mut reader {
                Some(reader) => reader.next(&rebuilt).await?.wanted.into_iter(),
                None => Vec::new().into_iter(),
            };
            // Rebuilt shards come in the order of the steps that want them.
            let given: Vec<Option<Bytes>> =
                sinks.iter().map(|sink| if sink.lane.is_none() { shards.next() } else { None }).collect();
            join_all(sinks.iter_mut().zip(given).map(|(sink, shard)| sink.take(self, shard, shape, stripe))).await;
            if sinks.iter().all(|sink| sink.failed.is_some()) {
                break;
            }
        }
        let mut stored = Vec::with_capacity(sinks.len());
        let mut last = None;
        for (step, unread, finished) in join_all(sinks.into_iter().map(|sink| sink.finish(self))).await {
            match (finished, source(&step)) {
                // Its home knows it by its note; once it has tried to read it, it is rebuilt and not copied.
                (Err(error), Some(source)) if unread => {
                    self.report(source);
                    last = Some(error);
                }
                // Bytes that are copied were read by nobody. Entered under the id they have now, they would pass for right.
                (Ok(id), Some(source)) if id != source.id => {
                    self.report(source);
                    last = Some(HomeError::Failed("the fragment to be copied is corrupt".to_owned()));
                }
                (Ok(id), _) => stored.push(Placed { index: step.index, home: step.to, id }),
                (Err(error), _) => {
                    debug!(segment = %seen.id, index = step.index, peer = %step.to, %error, "fragment not stored");
                    if step.to != self.me && error != HomeError::Full {
                        self.suspects.add(step.to);
                    }
                    last = Some(error);
                }
            }
        }
        match last {
            Some(error) if stored.is_empty() => {
                Err(ObjectError::Unavailable(format!("no fragment was stored: {error}")))
            }
            _ => Ok(stored),
        }
    }
}

/// One fragment on its way to its home.
struct Sink {
    step: Step,
    origin: FragmentOrigin,
    /// From where it is copied; `None` where it is rebuilt.
    lane: Option<Lane>,
    hasher: blake3::Hasher,
    len: u64,
    to: Destination,
    failed: Option<HomeError>,
    /// It failed since what it copies could not be read.
    unread: bool,
}

enum Destination {
    /// A fragment of one shard travels whole.
    Whole(Bytes),
    Stream(Upload),
    Nowhere,
}

impl Sink {
    async fn new(store: &Store, step: Step, origin: FragmentOrigin, lane: Option<Lane>, shape: Shape) -> Self {
        let (to, failed) = match shape.stripes() {
            1 => (Destination::Whole(Bytes::new()), None),
            _ => match store.begin_fragment(step.to, origin.clone()).await {
                Ok(upload) => (Destination::Stream(upload), None),
                Err(error) => (Destination::Nowhere, Some(error)),
            },
        };
        Self { step, origin, lane, hasher: blake3::Hasher::new(), len: 0, to, failed, unread: false }
    }

    /// Takes the shard of a stripe: the one given, or the one it copies.
    async fn take(&mut self, store: &Store, given: Option<Bytes>, shape: Shape, stripe: u32) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.pass_on(store, given, shape, stripe).await {
            self.to = Destination::Nowhere;
            self.failed = Some(error);
        }
    }

    async fn pass_on(
        &mut self,
        store: &Store,
        given: Option<Bytes>,
        shape: Shape,
        stripe: u32,
    ) -> Result<(), HomeError> {
        let shard = match (given, &mut self.lane) {
            (Some(shard), _) => shard,
            (None, Some(lane)) => {
                let read = in_time(lane.read(store, shape, stripe..shape.stripes())).await;
                self.unread = read.is_err();
                let shard = read?;
                if self.step.from != Some(store.me) {
                    store.pace.read(shard.len() as u64).await;
                }
                shard
            }
            (None, None) => return Err(HomeError::Failed("a shard is missing".to_owned())),
        };
        self.hasher.update(&shard);
        self.len += shard.len() as u64;
        store.pace.wrote(shard.len() as u64).await;
        match &mut self.to {
            Destination::Whole(whole) => *whole = shard,
            Destination::Stream(upload) => in_time(upload.write(shard)).await?,
            Destination::Nowhere => {}
        }
        Ok(())
    }

    /// Waits until it is durable; answers whether what it copies could not be read, and its id.
    async fn finish(self, store: &Store) -> (Step, bool, Result<FragmentId, HomeError>) {
        let Self { step, origin, hasher, to, failed, unread, .. } = self;
        let expected = FragmentId::from_bytes(*hasher.finalize().as_bytes());
        let stored = match (failed, to) {
            (Some(error), _) => Err(error),
            (None, Destination::Whole(bytes)) => in_time(store.store_fragment(step.to, origin, bytes)).await,
            (None, Destination::Stream(upload)) => in_time(upload.finish()).await,
            (None, Destination::Nowhere) => Err(HomeError::Failed("given up".to_owned())),
        };
        let checked = match stored {
            Ok(id) if id != expected => Err(HomeError::Failed("home stored other bytes than it was sent".to_owned())),
            stored => stored,
        };
        (step, unread, checked)
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, HomeError>>) -> Result<T, HomeError> {
    timeout(STALL, work).await.unwrap_or_else(|_| Err(HomeError::Failed("home stalls".to_owned())))
}
