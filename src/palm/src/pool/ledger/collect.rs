//! Collecting tombstones (R7): a deleted key is forgotten once every voter durably holds its tombstone.
//!
//! Only then can no voter come back with what was deleted; and what might still be under way to one (an accept older
//! than the tombstone) is refused for ever by a durable *collection floor*. Floors are kept per range of key hashes, so
//! that they stay few. An absent voter blocks collection until it returns or is replaced: clocks decide nothing here,
//! the rest before a tombstone is looked at only keeps retries of recent writes from meeting a floor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use palm_backends::{Durability, IndexStore, Next, Space, Write};
use palm_core::hlc::{Ballot, Stamp};
use palm_core::id::PeerId;
use palm_core::register::{Accepted, Config, FLOOR_RANGES, Promises, floor_range};
use palm_core::wire::{MAX_TOMBSTONES, Request, Response};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::voter::{Voter, storage_failed};
use super::{Ledger, LedgerError};

/// A tombstone younger than this is left alone: many times the longest retry of a write.
const REST: Duration = Duration::from_mins(10);
/// How often tombstones are looked for. A round walks this peer's copy once, off the workers.
const INTERVAL: Duration = Duration::from_mins(5);
/// Tombstones taken in one walk; when there are more, another follows at once.
const ROUND_TOMBSTONES: usize = 64 * MAX_TOMBSTONES;
/// Questions to voters under way at the same time.
const ASK_AT_ONCE: usize = 8;

const FLOOR_PREFIX: &[u8] = b"ledger.floor.";
const BALLOT_BYTES: usize = 20;

/// The durable collection floors, one per range of key hashes.
pub(super) struct Floors {
    known: Mutex<Box<[Ballot]>>,
    /// Raising reads, commits and then shows: one at a time, or an older commit could end above a newer one.
    raising: tokio::sync::Mutex<()>,
}

impl Floors {
    /// Reads those that were ever raised.
    pub(super) fn open(index: &dyn IndexStore) -> Result<Self, LedgerError> {
        let mut known = vec![Ballot::ZERO; FLOOR_RANGES].into_boxed_slice();
        let mut broken = false;
        index.scan(Space::Meta, FLOOR_PREFIX, &mut |key, value| {
            let Some(range) = key.strip_prefix(FLOOR_PREFIX) else { return Next::Stop };
            let range = <[u8; 2]>::try_from(range).map(|range| usize::from(u16::from_be_bytes(range)));
            match (range.ok().and_then(|range| known.get_mut(range)), read_ballot(value)) {
                (Some(floor), Some(ballot)) => *floor = ballot,
                _ => broken = true,
            }
            Next::Continue
        })?;
        if broken {
            return Err(LedgerError::Storage("malformed collection floor".to_owned()));
        }
        Ok(Self { known: Mutex::new(known), raising: tokio::sync::Mutex::default() })
    }

    /// The floor of a key.
    pub(super) fn of(&self, key: &[u8]) -> Ballot {
        self.known.lock()[floor_range(key)]
    }

    fn all(&self) -> Vec<Ballot> {
        self.known.lock().to_vec()
    }

    fn show(&self, range: usize, floor: Ballot) {
        let mut known = self.known.lock();
        known[range] = known[range].max(floor);
    }
}

fn put_floor(range: usize, floor: Ballot) -> Write {
    let key = [FLOOR_PREFIX, &(range as u16).to_be_bytes()].concat();
    let mut value = Vec::with_capacity(BALLOT_BYTES);
    value.extend(floor.stamp.0.to_le_bytes());
    value.extend(floor.peer.to_le_bytes());
    value.extend(floor.nonce.to_le_bytes());
    Write::Put(Space::Meta, key.into(), value.into())
}

fn read_ballot(bytes: &[u8]) -> Option<Ballot> {
    let bytes: &[u8; BALLOT_BYTES] = bytes.try_into().ok()?;
    let (stamp, rest) = bytes.split_first_chunk()?;
    let (peer, nonce) = rest.split_first_chunk()?;
    Some(Ballot {
        stamp: Stamp(u64::from_le_bytes(*stamp)),
        peer: u64::from_le_bytes(*peer),
        nonce: u32::from_le_bytes(nonce.try_into().ok()?),
    })
}

impl Voter {
    /// Answers which tombstones this voter holds, or something newer under their keys.
    pub(super) async fn holds(&self, epoch: u64, tombstones: Vec<(Bytes, Ballot)>) -> Response {
        let gate = self.gate.read().await;
        if let Some(refusal) = self.refusal(&gate, epoch) {
            return refusal;
        }
        let held: Result<Vec<bool>, LedgerError> = tombstones
            .iter()
            .take(MAX_TOMBSTONES)
            .map(|(key, ballot)| Ok(self.slot(&Promises::default(), key)?.holds(*ballot)))
            .collect();
        held.map_or_else(|error| storage_failed(&error), Response::Holds)
    }

    /// Forgets tombstones that all voters of this epoch hold. In a task of its own, like an accept.
    pub(super) async fn collect(self: &Arc<Self>, epoch: u64, tombstones: Vec<(Bytes, Ballot)>) -> Response {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let gate = this.gate.read().await;
            if let Some(refusal) = this.refusal(&gate, epoch) {
                return refusal;
            }
            match this.collect_to_the_end(tombstones).await {
                Ok(()) => Response::Done,
                Err(error) => storage_failed(&error),
            }
        });
        task.await.unwrap_or_else(|error| storage_failed(&LedgerError::Storage(error.to_string())))
    }

    async fn collect_to_the_end(&self, tombstones: Vec<(Bytes, Ballot)>) -> Result<(), LedgerError> {
        let _one = self.floors.raising.lock().await;
        let tombstones: Vec<_> = tombstones.into_iter().take(MAX_TOMBSTONES).collect();
        // Until the batch is durable.
        let held = self.hold(tombstones.iter().map(|(key, _)| key)).await;
        let mut batch = Vec::new();
        let mut raised = BTreeMap::new();
        let mut gone = Vec::new();
        for (key, ballot) in tombstones {
            let Some(promises) = held.get(&self.stripe_of(&key)) else { continue };
            if let Some(floor) = self.slot(promises, &key)?.collect(ballot) {
                let highest = raised.entry(floor_range(&key)).or_insert(floor);
                *highest = floor.max(*highest);
                batch.push(Write::Delete(Space::Accepted, key.clone()));
                // What was followed before this peer became a voter must not shine through.
                batch.push(Write::Delete(Space::Followed, key.clone()));
                gone.push((key, ballot));
            }
        }
        batch.extend(raised.iter().map(|(range, floor)| put_floor(*range, *floor)));
        self.index().commit(batch, Durability::Synced).await?;
        for (range, floor) in raised {
            self.floors.show(range, floor);
        }
        for (key, ballot) in gone {
            self.forgotten(&key, ballot);
        }
        Ok(())
    }

    /// This voter's collection floors.
    pub(super) async fn all_floors(&self, epoch: u64) -> Response {
        let gate = self.gate.read().await;
        self.refusal(&gate, epoch).unwrap_or_else(|| Response::Floors(self.floors.all()))
    }

    /// R8 (5): durably raises floors to at least these.
    pub(super) async fn raise_floors(&self, epoch: u64, floors: Vec<Ballot>) -> Response {
        let gate = self.gate.read().await;
        if let Some(refusal) = self.refusal(&gate, epoch) {
            return refusal;
        }
        let _one = self.floors.raising.lock().await;
        let known = self.floors.all();
        let higher = || floors.iter().take(FLOOR_RANGES).enumerate().filter(|(range, floor)| **floor > known[*range]);
        let batch: Vec<Write> = higher().map(|(range, floor)| put_floor(range, *floor)).collect();
        if let Err(error) = self.index().commit(batch, Durability::Synced).await {
            return storage_failed(&error.into());
        }
        for (range, floor) in higher() {
            self.floors.show(range, *floor);
        }
        Response::Done
    }

    /// Tombstones of this peer's copy that were accepted before `before`, up to a round's worth.
    async fn tombstones(&self, before: Stamp) -> Result<Vec<(Bytes, Ballot)>, LedgerError> {
        let index = Arc::clone(self.index());
        super::pages::blocking(move || {
            let mut found = Vec::new();
            let mut broken = None;
            index.scan(Space::Accepted, &[], &mut |key, value| match Accepted::head(value) {
                Ok((ballot, value)) => {
                    if value.is_none() && ballot.stamp < before {
                        found.push((Bytes::copy_from_slice(key), ballot));
                    }
                    if found.len() < ROUND_TOMBSTONES { Next::Continue } else { Next::Stop }
                }
                Err(error) => {
                    broken = Some(error);
                    Next::Stop
                }
            })?;
            broken.map_or(Ok(found), |error| Err(error.into()))
        })
        .await
    }
}

impl Ledger {
    /// Collects tombstones from time to time, until cancelled. One voter does it: the first of those connected.
    pub async fn keep_collecting(self, stop: CancellationToken) {
        let mut wait = INTERVAL;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = INTERVAL;
            let config = self.config();
            let first =
                config.electorate().into_iter().find(|&peer| peer == self.me() || self.0.net.is_connected(peer));
            if first != Some(self.me()) {
                continue;
            }
            match self.collect_tombstones(REST).await {
                Ok(0) => {}
                Ok(count) => {
                    tracing::info!(count, "tombstones collected");
                    if count >= ROUND_TOMBSTONES {
                        wait = Duration::ZERO;
                    }
                }
                Err(error) => tracing::debug!(%error, "tombstones stay"),
            }
        }
    }

    /// Collects tombstones that have rested this long, if every voter confirms. Answers how many.
    ///
    /// # Errors
    /// A voter that does not answer, or an epoch that changes meanwhile; what was collected until then stays so.
    pub async fn collect_tombstones(&self, rest: Duration) -> Result<usize, LedgerError> {
        let config = self.config();
        if !config.is_voter(&self.me()) {
            return Ok(0);
        }
        // One more, so that without rest the youngest are among them.
        let before = Stamp::from_millis((self.now_ms() + 1).saturating_sub(rest.as_millis() as u64));
        let mut collected = 0;
        for batch in self.0.voter.tombstones(before).await?.chunks(MAX_TOMBSTONES) {
            let ready = self.held_by_all(&config, batch).await?;
            let order = Request::CollectTombstones { epoch: config.epoch, tombstones: ready.clone() };
            // A voter that misses this keeps a tombstone that is settled and collected another time.
            self.ask_everyone(&config, &order).await?;
            collected += ready.len();
        }
        Ok(collected)
    }

    /// R7: those tombstones that all voters of the epoch, old and new in a joint phase, durably hold.
    async fn held_by_all(
        &self,
        config: &Config,
        tombstones: &[(Bytes, Ballot)],
    ) -> Result<Vec<(Bytes, Ballot)>, LedgerError> {
        let question = Request::HoldsTombstones { epoch: config.epoch, tombstones: tombstones.to_vec() };
        let mut ready = tombstones.to_vec();
        let mut all = vec![true; ready.len()];
        for answer in self.ask_everyone(config, &question).await? {
            let Response::Holds(held) = answer else { return Err(self.no_quorum(1)) };
            for (at, all) in all.iter_mut().enumerate() {
                *all &= held.get(at) == Some(&true);
            }
        }
        let mut held = all.into_iter();
        ready.retain(|_| held.next() == Some(true));
        Ok(ready)
    }

    /// Asks every voter; anything but an answer of each is an error.
    async fn ask_everyone(&self, config: &Config, request: &Request) -> Result<Vec<Response>, LedgerError> {
        let asked = stream::iter(config.electorate()).map(|voter| async move {
            match self.ask(voter, request.clone()).await {
                Ok(answer @ (Response::Done | Response::Holds(_) | Response::Floors(_))) => Some(answer),
                Ok(Response::WrongEpoch(theirs)) => {
                    self.settle_epoch(voter, theirs, config.epoch).await;
                    None
                }
                _ => None,
            }
        });
        let answers: Vec<Option<Response>> = asked.buffer_unordered(ASK_AT_ONCE).collect().await;
        answers.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| self.no_quorum(1))
    }

    /// R8 (5): a joiner takes over the highest floors of a fenced majority of the old voters; without them it would
    /// accept what the others refuse for ever.
    pub(super) async fn carry_floors(&self, joint: &Config) -> Result<(), LedgerError> {
        let Some(outgoing) = &joint.outgoing else { return Ok(()) };
        let old = Config { epoch: joint.epoch, voters: outgoing.clone(), outgoing: None };
        let mut highest = vec![Ballot::ZERO; FLOOR_RANGES];
        let mut answered = BTreeSet::<PeerId>::new();
        for &voter in outgoing {
            if let Ok(Response::Floors(floors)) = self.ask(voter, Request::GetFloors { epoch: joint.epoch }).await {
                answered.insert(voter);
                for (highest, floor) in highest.iter_mut().zip(floors) {
                    *highest = floor.max(*highest);
                }
            }
        }
        if !old.is_quorum(&answered) {
            return Err(self.no_quorum(old.missing(&answered)));
        }
        for &joiner in joint.voters.difference(outgoing) {
            let request = Request::RaiseFloors { epoch: joint.epoch, floors: highest.clone() };
            if !matches!(self.ask(joiner, request).await, Ok(Response::Done)) {
                return Err(self.no_quorum(1));
            }
        }
        Ok(())
    }
}
