//! Storing what a plan says: fragments rebuilt or copied, or a whole segment coded anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use palm_core::code::{STRIPE_BYTES, Shape};
use palm_core::id::{FragmentId, KeyId, PeerId};
use palm_core::place::{self, Candidate, Plan, Policy};
use palm_core::record::{Placed, Segment};
use palm_core::repair::Step;
use palm_core::wire::FragmentOrigin;
use tokio::time::timeout;
use tracing::{debug, info};

use super::read::StripeReader;
use super::{Job, Outcome};
use crate::blocking::spawn_blocking;
use crate::object::body::Stripe;
use crate::object::draft::Draft;
use crate::object::fetch::Lane;
use crate::object::homes::{HomeError, Planned, Upload};
use crate::object::placement::Change;
use crate::object::whole::Whole;
use crate::object::write::SegmentWriter;
use crate::object::{ObjectError, Store};

/// A home takes a shard, or makes a fragment durable, within this, or is left out.
const STALL: Duration = Duration::from_secs(15);

impl Store {
    /// Stores the fragments that some steps call for; answers those that are stored. Fails when none is.
    pub(super) async fn mend(
        &self,
        draft: &Draft,
        data_key: KeyId,
        seen: &Segment,
        readable: Segment,
        steps: &[Step],
    ) -> Result<Vec<Placed>, ObjectError> {
        let shape = Shape::new(Policy { k: seen.k, n: seen.n }, seen.len)?;
        let secret = self.data_key(data_key).await?.secret(seen.id);
        let rebuilt: Arc<[u8]> = steps.iter().filter(|step| step.from.is_none()).map(|step| step.index).collect();
        let mut reader = (!rebuilt.is_empty()).then(|| StripeReader::new(self, readable, shape, secret));
        let mut sinks: Vec<Sink> = Vec::with_capacity(steps.len());
        let source = |step: &Step| {
            seen.fragments.iter().find(|placed| Some(placed.home) == step.from && placed.index == step.index)
        };
        for step in steps {
            let lane = source(step).map(|placed| Lane::closed(placed.clone()));
            sinks.push(Sink::new(self, *step, draft.origin(seen.id, step.index), lane, shape).await);
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

    /// Codes a segment anew, as a write of the same bytes would, and enters it.
    #[expect(clippy::too_many_arguments, reason = "one caller, and each is another thing")]
    pub(super) async fn recode(
        &self,
        job: &Job,
        draft: Arc<Draft>,
        data_key: KeyId,
        recorded: &Segment,
        seen: &Segment,
        readable: Segment,
        policy: Policy,
        homes: Vec<PeerId>,
        candidates: Vec<Candidate>,
    ) -> Result<Outcome, ObjectError> {
        let key = self.data_key(data_key).await?;
        let old = Shape::new(Policy { k: seen.k, n: seen.n }, seen.len)?;
        let new = Shape::new(policy, seen.len)?;
        let plan = Plan { policy, exposed: place::is_exposed(policy, &homes), homes };
        let planned = Planned::new(seen.id, plan, candidates, new.fragment_len());
        let mut reader = StripeReader::new(self, readable, old, key.secret(seen.id));
        let none: Arc<[u8]> = Arc::new([]);
        let segment = if seen.len <= STRIPE_BYTES as u64 {
            let stripe = Stripe::from(reader.next(&none).await?.plaintext);
            let sealed = spawn_blocking(move || Whole::seal(planned, &key, &stripe)).await??;
            sealed.store(&draft).await?
        } else {
            let mut writer = SegmentWriter::new(&draft, planned, &key)?;
            for _ in 0..old.stripes() {
                writer.write(Arc::new(Stripe::from(reader.next(&none).await?.plaintext))).await?;
            }
            writer.finish().await?.await??
        };
        self.pace.wrote(segment.fragments.len() as u64 * new.fragment_len()).await;
        let change = Change::Recoded(segment);
        let entered = self.enter_move(&job.whose(), recorded, seen, &change).await;
        if !matches!(entered, Ok(false)) {
            // Entered, or perhaps.
            draft.keep();
        }
        if !entered? {
            return Ok(Outcome::Idle);
        }
        info!(segment = %seen.id, before = %old.policy(), now = %policy, "segment coded anew");
        Ok(Outcome::Repaired)
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
