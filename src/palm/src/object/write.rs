//! Storing a segment that streams: one lane to each home, each with a short queue of shards.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use palm_core::code::{CodeError, Coder, SEGMENT_BYTES, SegmentSecret, StripeKey};
use palm_core::id::{FragmentId, PeerId, SegmentId};
use palm_core::place::{Plan, Policy};
use palm_core::record::{Placed, Segment};
use palm_core::wire::FragmentOrigin;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, debug, warn};

use super::body::Stripe;
use super::draft::Draft;
use super::homes::{HomeError, Planned};
use super::store::{Counters, DataKey, random};
use super::{Cipher, ObjectError, rebuild};
use crate::blocking::spawn_blocking;

/// Shards waiting for one home. With the one being written, a home may lag the others by this many stripes
/// before it holds them up.
const LANE_SHARDS: usize = 2;
/// A home whose queue stays full for this long is left out of the segment; the others go on.
const HOME_STALL: Duration = Duration::from_millis(2500);
/// A home has this long to make a complete fragment durable.
const SYNC_STALL: Duration = Duration::from_secs(15);
/// Once the segment is durable, homes still syncing get this much longer. The next segment flows meanwhile, so
/// it costs only the end of a body, and only where a home is in trouble.
const GRACE: Duration = Duration::from_secs(1);
/// Rounds of rebuilding missing fragments elsewhere before a write that is not durable fails.
const REBUILD_ROUNDS: usize = 2;

/// Seals stripe after stripe of one segment and hashes each fragment as it grows, to check the home's answer.
pub(super) struct Sealer {
    coder: Coder,
    segment: SegmentId,
    secret: SegmentSecret,
    /// Encrypts what is sealed.
    cipher: Option<Cipher>,
    next: u32,
    /// Bytes sealed.
    len: u64,
    /// One for each fragment; a single one where k is 1 and all fragments are the same.
    hashers: Vec<blake3::Hasher>,
}

impl Sealer {
    pub(super) fn new(planned: &Planned, data_key: &DataKey, cipher: Option<Cipher>) -> Result<Self, CodeError> {
        let coder = Coder::new(planned.plan.policy)?;
        let Policy { k, n } = coder.policy();
        let distinct = if k == 1 { 1 } else { usize::from(n) };
        let (segment, hashers) = (planned.segment, vec![blake3::Hasher::new(); distinct]);
        Ok(Self { coder, segment, secret: data_key.secret(segment), cipher, next: 0, len: 0, hashers })
    }

    /// Seals the next stripe under a key drawn for it alone.
    pub(super) fn seal(&mut self, stripe: &Stripe, key: [u8; 32]) -> Result<Vec<Bytes>, ObjectError> {
        let mut plaintext = stripe.gather(stripe.len() + SEALING_SLACK);
        if let Some(cipher) = &self.cipher {
            cipher.apply(self.segment, self.len, &mut plaintext)?;
        }
        self.len += stripe.len() as u64;
        let shards = self.coder.seal_encode(&self.secret, self.next, plaintext, StripeKey::from_random(key))?;
        self.next += 1;
        for (hasher, shard) in self.hashers.iter_mut().zip(&shards) {
            hasher.update(shard);
        }
        Ok(shards)
    }

    /// The ids of the n fragments as they are now.
    pub(super) fn ids(&self) -> Vec<FragmentId> {
        let ids: Vec<FragmentId> =
            self.hashers.iter().map(|hasher| FragmentId::from_bytes(*hasher.finalize().as_bytes())).collect();
        let n = usize::from(self.coder.policy().n);
        ids.iter().cycle().take(n).copied().collect()
    }
}

/// Sealing adds less than this to a stripe: tag, tail and rounding up to at most 64 even shards of at least 32
/// bytes.
const SEALING_SLACK: usize = 64 * 32 + 64;

/// A segment being written.
pub(super) struct SegmentWriter {
    draft: Arc<Draft>,
    planned: Planned,
    lanes: Vec<Lane>,
    len: u64,
    state: State,
}

/// The sealer, and the shards of the stripe it has just sealed.
type Sealed = Result<(Box<Sealer>, Vec<Bytes>), ObjectError>;

/// Sealing runs one stripe ahead of sending, on the blocking pool.
enum State {
    Idle(Box<Sealer>),
    Sealing(JoinHandle<Sealed>),
    /// A step failed; so has the write.
    Failed,
}

impl SegmentWriter {
    /// Begins a segment; nothing is sent before the first stripe is sealed.
    pub(super) fn new(
        draft: &Arc<Draft>,
        planned: Planned,
        data_key: &DataKey,
        cipher: Option<Cipher>,
    ) -> Result<Self, ObjectError> {
        let sealer = Sealer::new(&planned, data_key, cipher)?;
        let lanes = planned
            .plan
            .homes
            .iter()
            .zip(0..)
            .map(|(&home, index)| Lane::new(draft, home, draft.origin(planned.segment, index)))
            .collect();
        let state = State::Idle(Box::new(sealer));
        Ok(Self { draft: draft.clone(), planned, lanes, len: 0, state })
    }

    /// Whether it holds [`SEGMENT_BYTES`].
    pub(super) fn is_full(&self) -> bool {
        self.len >= SEGMENT_BYTES
    }

    /// Begins to seal a stripe, after the one before it has been sealed and handed to the lanes.
    pub(super) async fn write(&mut self, stripe: Arc<Stripe>) -> Result<(), ObjectError> {
        let mut sealer = self.flush().await?;
        self.len += stripe.len() as u64;
        self.state = State::Sealing(spawn_blocking(move || {
            let shards = sealer.seal(&stripe, random()?)?;
            Ok((sealer, shards))
        }));
        Ok(())
    }

    /// Ends the segment. The answer is there once it is durable; dropping the handle gives it up.
    pub(super) async fn finish(mut self) -> Result<AbortOnDropHandle<Result<Segment, ObjectError>>, ObjectError> {
        let sealer = self.flush().await?;
        let ids = sealer.ids();
        drop(sealer);
        Ok(AbortOnDropHandle::new(tokio::spawn(self.settle(ids).in_current_span())))
    }

    /// Waits for the stripe being sealed and sends it.
    async fn flush(&mut self) -> Result<Box<Sealer>, ObjectError> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Idle(sealer) => Ok(sealer),
            State::Sealing(sealing) => {
                let (sealer, shards) = sealing.await??;
                self.send(shards).await?;
                Ok(sealer)
            }
            State::Failed => Err(ObjectError::Internal("write after a failed write".to_owned())),
        }
    }

    /// Hands a stripe's shards to the lanes. A home that failed, or takes none for [`HOME_STALL`], drops out.
    async fn send(&mut self, shards: Vec<Bytes>) -> Result<(), ObjectError> {
        let suspects = &self.draft.store.suspects;
        let sends = self.lanes.iter_mut().zip(shards).map(|(lane, shard)| lane.send(Parcel::Shard(shard)));
        for stalled in join_all(sends).await.into_iter().flatten() {
            warn!(peer = %stalled, segment = %self.planned.segment, "home stalls; left out of the segment");
            suspects.add(stalled);
        }
        let policy = self.planned.plan.policy;
        let living = self.lanes.iter().filter(|lane| lane.is_open()).count();
        // With k fragments the others can still be rebuilt when the segment ends.
        if living < usize::from(policy.k) { Err(self.shortage(living).await) } else { Ok(()) }
    }

    /// Why too few homes are left.
    async fn shortage(&mut self, living: usize) -> ObjectError {
        let mut full = 0;
        for lane in self.lanes.iter_mut().filter(|lane| !lane.is_open()) {
            if let Some(task) = lane.task.take().filter(JoinHandle::is_finished)
                && matches!(task.await, Ok(Err(HomeError::Full)))
            {
                full += 1;
            }
        }
        shortage(self.planned.plan.policy, living, full)
    }

    /// Ends every lane, waits for the homes, and rebuilds elsewhere what is missing to be durable.
    async fn settle(mut self, ids: Vec<FragmentId>) -> Result<Segment, ObjectError> {
        join_all(self.lanes.iter_mut().map(|lane| lane.send(Parcel::End))).await;
        let policy = self.planned.plan.policy;
        let id = self.planned.segment;
        let lanes = std::mem::take(&mut self.lanes).into_iter().zip(0..);
        let targets = lanes.map(|(lane, index)| Target { lane, index, id: ids[usize::from(index)] }).collect();
        let mut stored = Vec::new();
        let mut failed = Vec::new();
        let mut full = collect(&self.draft, &self.planned.plan, targets, &mut stored, &mut failed).await;

        for _ in 0..REBUILD_ROUNDS {
            if self.planned.plan.durable(&homes(&stored)) || stored.len() < usize::from(policy.k) {
                break;
            }
            let missing = (0..policy.n).filter(|&index| stored.iter().all(|placed: &Placed| placed.index != index));
            let targets: Vec<Target> = missing
                .collect::<Vec<u8>>()
                .into_iter()
                .map(|index| {
                    // Where nobody else can take it, a home whose connection broke may be back on another.
                    let home = match self.planned.reassign(index, &failed) {
                        Some(home) => home,
                        None => self.planned.plan.homes[usize::from(index)],
                    };
                    let lane = Lane::new(&self.draft, home, self.draft.origin(id, index));
                    Target { lane, index, id: ids[usize::from(index)] }
                })
                .collect();
            if targets.is_empty() {
                break;
            }
            let partial = Segment { id, len: self.len, k: policy.k, n: policy.n, fragments: stored.clone() };
            debug!(segment = %id, missing = targets.len(), "rebuilding fragments whose homes failed");
            let targets = rebuild::rebuild(&self.draft.store, partial, targets).await?;
            full += collect(&self.draft, &self.planned.plan, targets, &mut stored, &mut failed).await;
        }

        if !self.planned.plan.durable(&homes(&stored)) {
            return Err(shortage(policy, stored.len(), full));
        }
        if self.planned.is_reduced(stored.len()) {
            Counters::add(&self.draft.store.counters.reduced_segments);
        }
        stored.sort_unstable_by_key(|placed| placed.index);
        Ok(Segment { id, len: self.len, k: policy.k, n: policy.n, fragments: stored })
    }
}

/// Not durable: because the homes are full, or out of reach.
pub(super) fn shortage(policy: Policy, stored: usize, full: usize) -> ObjectError {
    if full > 0 && stored + full >= usize::from(policy.k) {
        ObjectError::PoolFull
    } else {
        ObjectError::Unavailable(format!("a {policy} segment reached {stored} homes, too few to be durable"))
    }
}

fn homes(stored: &[Placed]) -> Vec<PeerId> {
    stored.iter().map(|placed| placed.home).collect()
}

/// A lane that has been ended, and what the home should answer.
pub(super) struct Target {
    pub(super) lane: Lane,
    pub(super) index: u8,
    pub(super) id: FragmentId,
}

/// Waits for the homes' answers: for all, or until the segment is durable and [`GRACE`] has passed. Notes what
/// is stored and who failed; answers how many were full.
async fn collect(
    draft: &Arc<Draft>,
    plan: &Plan,
    targets: Vec<Target>,
    stored: &mut Vec<Placed>,
    failed: &mut Vec<PeerId>,
) -> usize {
    let mut full = 0;
    let mut until = Instant::now() + SYNC_STALL;
    let mut waiting: Vec<PeerId> = targets.iter().map(|target| target.lane.home).collect();
    let mut pending: FuturesUnordered<_> = targets.into_iter().map(Target::answer).collect();
    let mut durable = false;
    loop {
        if !durable && plan.durable(&homes(stored)) {
            durable = true;
            until = until.min(Instant::now() + GRACE);
        }
        let (index, home, expected, result) = tokio::select! {
            answer = pending.next() => match answer {
                Some(answer) => answer,
                None => break,
            },
            () = sleep_until(until) => break,
        };
        if let Some(at) = waiting.iter().position(|&waits| waits == home) {
            waiting.swap_remove(at);
        }
        match result {
            Ok(id) if id == expected => {
                draft.store.suspects.clear(home);
                stored.push(Placed { index, home, id });
                continue;
            }
            Ok(_) => warn!(peer = %home, "home stored other bytes than it was sent"),
            Err(HomeError::Full) => full += 1,
            Err(error) => {
                debug!(peer = %home, %error, "fragment refused");
                draft.store.suspects.add(home);
            }
        }
        failed.push(home);
    }
    for home in waiting {
        draft.store.suspects.add(home);
        failed.push(home);
    }
    full
}

impl Target {
    async fn answer(mut self) -> (u8, PeerId, FragmentId, Result<FragmentId, HomeError>) {
        let result = match self.lane.task.take() {
            Some(task) => task.await.unwrap_or_else(|error| Err(HomeError::Failed(error.to_string()))),
            None => Err(HomeError::Failed("stalled".to_owned())),
        };
        (self.index, self.lane.home, self.id, result)
    }
}

/// What travels down a lane. A lane that closes without an end is given up, and the home stores nothing.
pub(super) enum Parcel {
    Shard(Bytes),
    End,
}

/// The way of one fragment to its home: a queue, and a task that empties it.
pub(super) struct Lane {
    pub(super) home: PeerId,
    queue: Option<mpsc::Sender<Parcel>>,
    /// Goes on by itself once it has its end, so that whatever the home stores is noted in the draft.
    task: Option<JoinHandle<Result<FragmentId, HomeError>>>,
    ended: bool,
}

impl Lane {
    pub(super) fn new(draft: &Arc<Draft>, home: PeerId, origin: FragmentOrigin) -> Self {
        let (queue, parcels) = mpsc::channel(LANE_SHARDS);
        let task = tokio::spawn(carry(draft.clone(), home, origin, parcels).in_current_span());
        Self { home, queue: Some(queue), task: Some(task), ended: false }
    }

    /// Whether its home still takes shards.
    pub(super) fn is_open(&self) -> bool {
        self.queue.is_some()
    }

    /// Queues a parcel; closes the lane where the home has failed or stalls, and answers a home that stalls.
    pub(super) async fn send(&mut self, parcel: Parcel) -> Option<PeerId> {
        let queue = self.queue.as_ref()?;
        let end = matches!(parcel, Parcel::End);
        let sent = match queue.try_send(parcel) {
            Ok(()) => Ok(true),
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(false),
            Err(mpsc::error::TrySendError::Full(parcel)) => {
                timeout(HOME_STALL, queue.send(parcel)).await.map(|sent| sent.is_ok())
            }
        };
        match sent {
            Ok(true) => {
                self.ended = end;
                None
            }
            // The task has ended; its answer says why.
            Ok(false) => {
                self.queue = None;
                None
            }
            Err(_) => {
                self.queue = None;
                self.give_up();
                Some(self.home)
            }
        }
    }

    fn give_up(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if !self.ended {
            self.give_up();
        }
    }
}

async fn carry(
    draft: Arc<Draft>,
    home: PeerId,
    origin: FragmentOrigin,
    mut parcels: mpsc::Receiver<Parcel>,
) -> Result<FragmentId, HomeError> {
    let mut upload = draft.store.begin_fragment(home, origin).await?;
    while let Some(parcel) = parcels.recv().await {
        match parcel {
            Parcel::Shard(shard) => upload.write(shard).await?,
            Parcel::End => {
                let id = upload.finish().await?;
                draft.add(home, id);
                return Ok(id);
            }
        }
    }
    Err(HomeError::Failed("given up by the writer".to_owned()))
}
