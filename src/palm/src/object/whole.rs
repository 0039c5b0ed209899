//! Storing a segment of one stripe, whose shards are all in memory: one round to the homes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use palm_core::id::{FragmentId, PeerId};
use palm_core::place::Policy;
use palm_core::record::{Placed, Segment};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::body::Stripe;
use super::draft::Draft;
use super::homes::{HomeError, Planned};
use super::store::{Counters, DataKey, random};
use super::write::{Sealer, shortage};
use super::{Cipher, ObjectError};

/// A home that has not stored its fragment by then has it sent to another one as well.
const HEDGE: Duration = Duration::from_millis(500);
/// Once the write is durable, homes that are nearly there get this much longer.
const GRACE: Duration = Duration::from_millis(200);
/// A write that is not durable by then has failed.
const DEADLINE: Duration = Duration::from_secs(10);

/// A sealed stripe on its way to its homes.
pub(super) struct Whole {
    planned: Planned,
    len: u64,
    shards: Vec<Bytes>,
    ids: Vec<FragmentId>,
}

impl Whole {
    /// Seals a stripe under a plan. Takes as long as its bytes take: for more than a few KiB call it on the
    /// blocking pool.
    pub(super) fn seal(
        planned: Planned,
        data_key: &DataKey,
        cipher: Option<Cipher>,
        stripe: &Stripe,
    ) -> Result<Self, ObjectError> {
        let mut sealer = Sealer::new(&planned, data_key, cipher)?;
        let shards = sealer.seal(stripe, random()?)?;
        Ok(Self { planned, len: stripe.len() as u64, shards, ids: sealer.ids() })
    }

    /// Stores the fragments. Where a home fails or is slow, its fragment goes to another one. Ends when all
    /// are stored, or when enough are to be durable and the others had their [`GRACE`].
    pub(super) async fn store(self, draft: &Arc<Draft>) -> Result<Segment, ObjectError> {
        let mut round = Round::new(self, draft.clone());
        let begun = Instant::now();
        let (mut hedge_at, mut until) = (Some(begun + HEDGE), begun + DEADLINE);
        let mut durable = false;
        let mut pending = FuturesUnordered::new();
        for index in 0..round.policy().n {
            pending.push(round.send(index, round.home_of(index)));
        }
        while round.missing().next().is_some() && !pending.is_empty() {
            if !durable && round.is_durable() {
                durable = true;
                hedge_at = None;
                until = until.min(Instant::now() + GRACE);
            }
            tokio::select! {
                Some(outcome) = pending.next() => {
                    if let Some((index, home)) = round.take(outcome) {
                        pending.push(round.send(index, home));
                    }
                }
                () = sleep_until(hedge_at.unwrap_or(until)), if hedge_at.is_some() => {
                    hedge_at = None;
                    for (index, home) in round.hedge() {
                        pending.push(round.send(index, home));
                    }
                }
                () = sleep_until(until) => break,
            }
        }
        round.finish()
    }
}

/// One try to store one fragment at one home.
struct Outcome {
    index: u8,
    home: PeerId,
    result: Result<FragmentId, HomeError>,
}

/// Which fragments are stored where, and who failed.
struct Round {
    whole: Whole,
    draft: Arc<Draft>,
    stored: Vec<Option<PeerId>>,
    failed: Vec<PeerId>,
    /// Fragments sent to the same home again, each once.
    retried: Vec<bool>,
    full: usize,
}

impl Round {
    fn new(whole: Whole, draft: Arc<Draft>) -> Self {
        let (stored, retried) = (vec![None; whole.shards.len()], vec![false; whole.shards.len()]);
        Self { whole, draft, stored, failed: Vec::new(), retried, full: 0 }
    }

    fn policy(&self) -> Policy {
        self.whole.planned.plan.policy
    }

    fn is_durable(&self) -> bool {
        self.whole.planned.plan.durable(&self.homes())
    }

    fn home_of(&self, index: u8) -> PeerId {
        self.whole.planned.plan.homes[usize::from(index)]
    }

    /// Fragments not stored yet.
    fn missing(&self) -> impl Iterator<Item = u8> {
        self.stored.iter().zip(0..).filter(|(home, _)| home.is_none()).map(|(_, index)| index)
    }

    /// Homes of the stored fragments.
    fn homes(&self) -> Vec<PeerId> {
        self.stored.iter().flatten().copied().collect()
    }

    fn send(&self, index: u8, home: PeerId) -> impl Future<Output = Outcome> + use<> {
        let shard = self.whole.shards[usize::from(index)].clone();
        let origin = self.draft.origin(self.whole.planned.segment, index);
        let store = self.draft.store.clone();
        async move { Outcome { index, home, result: store.store_fragment(home, origin, shard).await } }
    }

    /// Takes note of an outcome; answers where to send the fragment instead, after a failure.
    fn take(&mut self, outcome: Outcome) -> Option<(u8, PeerId)> {
        let Outcome { index, home, result } = outcome;
        let at = usize::from(index);
        let suspects = &self.draft.store.suspects;
        let mut again = false;
        match result {
            Ok(id) if id == self.whole.ids[at] => {
                suspects.clear(home);
                self.draft.add(home, id);
                self.stored[at].get_or_insert(home);
                return None;
            }
            // What it stored is named by its own hash and referred to by nobody.
            Ok(_) => warn!(peer = %home, "home stored other bytes than it was sent"),
            Err(HomeError::Full) => self.full += 1,
            Err(error) => {
                debug!(peer = %home, %error, "fragment refused");
                suspects.add(home);
                again = true;
            }
        }
        // A hedge may have stored it or be about to.
        if self.stored[at].is_some() || self.home_of(index) != home {
            return None;
        }
        // Where nobody else can take it, a home whose connection broke may be back on another: storing the same
        // fragment twice stores it once.
        self.reassign(index)
            .or_else(|| (again && !std::mem::replace(&mut self.retried[at], true)).then_some((index, home)))
    }

    /// Every home still owing a fragment is slow: other homes for their fragments.
    fn hedge(&mut self) -> Vec<(u8, PeerId)> {
        let slow: Vec<u8> = self.missing().collect();
        for &index in &slow {
            self.draft.store.suspects.add(self.home_of(index));
        }
        slow.into_iter().filter_map(|index| self.reassign(index)).collect()
    }

    fn reassign(&mut self, index: u8) -> Option<(u8, PeerId)> {
        let home = self.home_of(index);
        if !self.failed.contains(&home) {
            self.failed.push(home);
        }
        let alternate = self.whole.planned.reassign(index, &self.failed)?;
        Some((index, alternate))
    }

    fn finish(self) -> Result<Segment, ObjectError> {
        let policy = self.policy();
        let homes = self.homes();
        if !self.is_durable() {
            return Err(shortage(policy, homes.len(), self.full));
        }
        if self.whole.planned.is_reduced(homes.len()) {
            Counters::add(&self.draft.store.counters.reduced_segments);
        }
        let fragments = (0..)
            .zip(&self.whole.ids)
            .zip(&self.stored)
            .filter_map(|((index, &id), home)| Some(Placed { index, home: (*home)?, id }))
            .collect();
        Ok(Segment { id: self.whole.planned.segment, len: self.whole.len, k: policy.k, n: policy.n, fragments })
    }
}
