//! This peer as acceptor, and its copy of the registers.
//!
//! What makes the shell around [`Slot`] right:
//! - R2: an accept is committed with a sync before anything shows it. The index shows a batch only once it is
//!   durable, so digests and pages read it directly.
//! - Prepare and accept of one key exclude each other (a stripe of locks by key hash), also across the sync: a
//!   promise given while an accept is on its way to disk would not know of it.
//! - An accept runs in a task of its own: the asker going away must not let go of the key halfway.
//! - R3: promises are kept in memory; a durable clock ceiling, extended ahead in steps, stands for them after
//!   a restart.
//! - R8: accepts hold the epoch gate for reading until they are durable; adopting a configuration takes it for
//!   writing. So once a voter has adopted, everything it accepted before is visible to the new epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use palm_backends::{Durability, IndexStore, Space, StoreError, Write};
use palm_core::hlc::{Ballot, Stamp};
use palm_core::id::PeerId;
use palm_core::record::Stored;
use palm_core::register::{Accepted, Config, Promises, Record, Refusal, Slot, ceiling_above};
use palm_core::wire::{Failure, Response};
use tokio::sync::{RwLock, broadcast, watch};

use super::collect::Floors;
use super::holdings::Holdings;
use super::{CHANGES_CAPACITY, LedgerError, space_of};

pub(super) mod handover;
mod install;

/// Locks by key hash. Many more than updates in flight, so that unrelated keys seldom wait for each other.
const STRIPES: usize = 4_096;
const CEILING_KEY: &[u8] = b"ledger.ceiling";
const CONFIG_KEY: &[u8] = b"ledger.config";

pub(super) struct Voter {
    me: PeerId,
    index: Arc<dyn IndexStore>,
    stripes: Box<[tokio::sync::Mutex<Promises>]>,
    hasher: RandomState,
    /// No ballot up to it is taken: the clock ceiling at the last restart (R3), or what was promised for all keys
    /// since (R8 (4)).
    floor: AtomicU64,
    /// The durable clock ceiling now.
    ceiling: AtomicU64,
    /// The highest ballot's stamp promised or accepted in this life.
    highest: AtomicU64,
    extending: tokio::sync::Mutex<()>,
    pub(super) floors: Floors,
    pub(super) gate: RwLock<Arc<Config>>,
    config: watch::Sender<Arc<Config>>,
    /// All of this peer's copy, summed up.
    holdings: Holdings,
    /// A learner's copy is written by one at a time, so that the newer of two records of a key stays.
    following: tokio::sync::Mutex<()>,
    changes: broadcast::Sender<Bytes>,
}

impl Voter {
    pub(super) async fn open(
        me: PeerId,
        index: Arc<dyn IndexStore>,
        initial: Option<Config>,
    ) -> Result<Self, LedgerError> {
        let ceiling = index.get(Space::Meta, CEILING_KEY)?.map_or(Ok(0), |bytes| read_u64(&bytes))?;
        let stored = index.get(Space::Meta, CONFIG_KEY)?.map(|bytes| Config::decode(&bytes)).transpose()?;
        let floors = Floors::open(index.as_ref())?;
        let config = match (stored, initial) {
            (Some(stored), Some(initial)) if initial.epoch > stored.epoch => initial,
            (Some(stored), _) => stored,
            (None, Some(initial)) => initial,
            (None, None) => return Err(LedgerError::Storage("no voter configuration".to_owned())),
        };
        let put = Write::Put(Space::Meta, Bytes::from_static(CONFIG_KEY), config.encode());
        index.commit(vec![put], Durability::Synced).await?;
        let config = Arc::new(config);
        Ok(Self {
            me,
            holdings: Holdings::new(Arc::clone(&index), space_of(config.is_voter(&me))),
            following: tokio::sync::Mutex::default(),
            index,
            stripes: (0..STRIPES).map(|_| tokio::sync::Mutex::default()).collect(),
            hasher: RandomState::new(),
            floor: AtomicU64::new(ceiling),
            ceiling: AtomicU64::new(ceiling),
            highest: AtomicU64::new(ceiling),
            extending: tokio::sync::Mutex::new(()),
            floors,
            gate: RwLock::new(Arc::clone(&config)),
            config: watch::Sender::new(config),
            changes: broadcast::Sender::new(CHANGES_CAPACITY),
        })
    }

    pub(super) fn me(&self) -> PeerId {
        self.me
    }

    pub(super) fn index(&self) -> &Arc<dyn IndexStore> {
        &self.index
    }

    pub(super) fn floor(&self) -> Stamp {
        Stamp(self.floor.load(Ordering::Acquire))
    }

    pub(super) fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    pub(super) fn config_changes(&self) -> watch::Receiver<Arc<Config>> {
        self.config.subscribe()
    }

    pub(super) fn watch(&self) -> broadcast::Receiver<Bytes> {
        self.changes.subscribe()
    }

    pub(super) fn is_voter(&self) -> bool {
        self.config.borrow().is_voter(&self.me)
    }

    /// Where this peer's copy of the registers is.
    pub(super) fn space(&self) -> Space {
        space_of(self.is_voter())
    }

    /// This peer's copy of a register. A voter that has just joined still finds what it followed before.
    pub(super) fn copy(&self, key: &[u8]) -> Result<Option<Accepted>, LedgerError> {
        Ok(self.copy_and_ballot(key)?.0)
    }

    /// The same, and the ballot this peer has accepted as a voter, if any: of one read, since every strong read needs
    /// both.
    pub(super) fn copy_and_ballot(&self, key: &[u8]) -> Result<(Option<Accepted>, Option<Ballot>), LedgerError> {
        let accepted = if self.is_voter() { self.get(Space::Accepted, key)? } else { None };
        match accepted {
            Some(accepted) => {
                let ballot = accepted.ballot;
                Ok((Some(accepted), Some(ballot)))
            }
            None => Ok((self.get(Space::Followed, key)?, None)),
        }
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Accepted>, LedgerError> {
        Ok(self.index.get(space, key)?.map(|bytes| Accepted::decode(&bytes)).transpose()?)
    }

    /// Which stripe guards a key.
    pub(super) fn stripe_of(&self, key: &Bytes) -> usize {
        self.hasher.hash_one(key) as usize % STRIPES
    }

    /// Holds every stripe of these keys, by its number. In order, so that two who hold several never wait for each other;
    /// all others hold one.
    pub(super) async fn hold<'a>(
        &self,
        keys: impl Iterator<Item = &'a Bytes>,
    ) -> BTreeMap<usize, tokio::sync::MutexGuard<'_, Promises>> {
        let stripes: BTreeSet<usize> = keys.map(|key| self.stripe_of(key)).collect();
        let mut held = BTreeMap::new();
        for stripe in stripes {
            held.insert(stripe, self.stripes[stripe].lock().await);
        }
        held
    }

    pub(super) fn slot(&self, promises: &Promises, key: &Bytes) -> Result<Slot, LedgerError> {
        Ok(Slot {
            promised: promises.of(key),
            accepted: self.get(Space::Accepted, key)?,
            floor: self.floor(),
            collected: self.floors.of(key),
        })
    }

    /// R3: makes sure that the durable ceiling is at or above the stamp.
    async fn ensure_ceiling(&self, stamp: Stamp) -> Result<(), StoreError> {
        self.highest.fetch_max(stamp.0, Ordering::AcqRel);
        if stamp.0 <= self.ceiling.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one = self.extending.lock().await;
        if stamp.0 <= self.ceiling.load(Ordering::Acquire) {
            return Ok(());
        }
        let ceiling = ceiling_above(stamp);
        let value = Bytes::copy_from_slice(&ceiling.0.to_le_bytes());
        let put = Write::Put(Space::Meta, Bytes::from_static(CEILING_KEY), value);
        self.index.commit(vec![put], Durability::Synced).await?;
        self.ceiling.store(ceiling.0, Ordering::Release);
        Ok(())
    }

    /// The refusal of a message of this epoch, unless it may be answered here.
    pub(super) fn refusal(&self, config: &Config, epoch: u64) -> Option<Response> {
        Some(match config.refuses(&self.me, epoch)? {
            Refusal::OtherEpoch => Response::WrongEpoch(config.clone()),
            Refusal::NotAVoter => Response::Failed { reason: Failure::NotReady, detail: "not a voter".to_owned() },
        })
    }

    pub(super) async fn prepare(&self, epoch: u64, key: Bytes, ballot: Ballot) -> Response {
        let gate = self.gate.read().await;
        if let Some(refusal) = self.refusal(&gate, epoch) {
            return refusal;
        }
        let answer = async {
            self.ensure_ceiling(ballot.stamp).await?;
            let mut promises = self.stripes[self.stripe_of(&key)].lock().await;
            let mut slot = self.slot(&promises, &key)?;
            Ok(match slot.prepare(ballot) {
                Ok(accepted) => {
                    let accepted = accepted.cloned();
                    promises.promise(key, ballot);
                    Response::Promised { accepted, floor: slot.collected }
                }
                Err(refused) => Response::Nack { highest: refused.highest },
            })
        };
        answer.await.unwrap_or_else(|error: LedgerError| storage_failed(&error))
    }

    pub(super) async fn accept(self: &Arc<Self>, epoch: u64, key: Bytes, ballot: Ballot, record: Record) -> Response {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.accept_to_the_end(epoch, key, ballot, record).await });
        task.await.unwrap_or_else(|error| storage_failed(&LedgerError::Storage(error.to_string())))
    }

    async fn accept_to_the_end(&self, epoch: u64, key: Bytes, ballot: Ballot, record: Record) -> Response {
        let gate = self.gate.read().await;
        if let Some(refusal) = self.refusal(&gate, epoch) {
            return refusal;
        }
        let answer = async {
            self.ensure_ceiling(ballot.stamp).await?;
            let mut promises = self.stripes[self.stripe_of(&key)].lock().await;
            let mut slot = self.slot(&promises, &key)?;
            let before = slot.accepted.as_ref().map(|accepted| accepted.ballot);
            let value = match slot.accept(ballot, record) {
                Ok(accepted) => accepted.encode(),
                Err(refused) => return Ok(Response::Nack { highest: refused.highest }),
            };
            self.index.commit(vec![Write::Put(Space::Accepted, key.clone(), value)], Durability::Synced).await?;
            // The accepted ballot now stands for the promise.
            promises.fulfilled(&key);
            self.changed(Space::Accepted, key, before, Some(ballot));
            Ok(Response::Accepted)
        };
        answer.await.unwrap_or_else(|error: LedgerError| storage_failed(&error))
    }

    /// Notes that this peer's copy of a key went from one ballot to another.
    fn changed(&self, space: Space, key: Bytes, before: Option<Ballot>, after: Option<Ballot>) {
        self.holdings.changed(space, &key, before, after);
        // Nobody watching is fine.
        let _ = self.changes.send(key);
    }

    /// Notes that this peer has forgotten a key that it held at this ballot.
    pub(super) fn forgotten(&self, key: &Bytes, ballot: Ballot) {
        self.holdings.changed(Space::Accepted, key, Some(ballot), None);
    }

    /// Whether this peer is, still, a voter of this epoch: what it has just read counts as its answer.
    pub(super) fn votes_in(&self, epoch: u64) -> bool {
        let config = self.config.borrow();
        config.epoch == epoch && config.is_voter(&self.me)
    }

    pub(super) fn read(&self, epoch: u64, key: &Bytes, have: Option<Ballot>) -> Response {
        if let Some(refusal) = self.refusal(&self.config(), epoch) {
            return refusal;
        }
        match self.get(Space::Accepted, key) {
            Ok(Some(accepted)) => Response::Digest {
                ballot: Some(accepted.ballot),
                record: (have != Some(accepted.ballot)).then_some(accepted.record),
            },
            Ok(None) => Response::Digest { ballot: None, record: None },
            Err(error) => storage_failed(&error),
        }
    }

    /// A chosen record, told by its proposer. Voters take none (R6): what they hold is settled by consensus.
    pub(super) async fn learn(&self, key: Bytes, accepted: Accepted) -> Response {
        if self.is_voter() {
            return Response::Done;
        }
        match self.follow(vec![(key, accepted)]).await {
            Ok(_) => Response::Done,
            Err(error) => storage_failed(&error),
        }
    }

    /// Takes newer records into a learner's copy; answers how many were.
    pub(super) async fn follow(&self, registers: Vec<(Bytes, Accepted)>) -> Result<usize, LedgerError> {
        let _one = self.following.lock().await;
        let mut batch = Vec::with_capacity(registers.len());
        let mut changes = Vec::with_capacity(registers.len());
        for (key, accepted) in registers {
            let before = self.get(Space::Followed, &key)?.map(|known| known.ballot);
            if before.is_none_or(|before| before < accepted.ballot) {
                batch.push(Write::Put(Space::Followed, key.clone(), accepted.encode()));
                changes.push((key, before, accepted.ballot));
            }
        }
        // A learner's copy is not counted by anyone: it may be lost and is fetched again.
        self.index.commit(batch, Durability::Buffered).await?;
        let newer = changes.len();
        for (key, before, after) in changes {
            self.changed(Space::Followed, key, before, Some(after));
        }
        Ok(newer)
    }

    /// Drops records of a learner's copy, those that are still at these ballots; answers how many.
    pub(super) async fn unfollow(&self, pairs: Vec<(Bytes, Ballot)>) -> Result<usize, LedgerError> {
        let _one = self.following.lock().await;
        let mut gone = Vec::with_capacity(pairs.len());
        for (key, ballot) in pairs {
            if self.get(Space::Followed, &key)?.is_some_and(|known| known.ballot == ballot) {
                gone.push((key, ballot));
            }
        }
        let batch = gone.iter().map(|(key, _)| Write::Delete(Space::Followed, key.clone())).collect();
        self.index.commit(batch, Durability::Buffered).await?;
        let count = gone.len();
        for (key, ballot) in gone {
            self.changed(Space::Followed, key, Some(ballot), None);
        }
        Ok(count)
    }

    pub(super) async fn adopt_answer(&self, config: Config) -> Response {
        match self.adopt(config).await {
            Ok(()) => Response::Done,
            Err(error) => storage_failed(&error),
        }
    }

    /// R8: durably adopts a chosen configuration, if it is newer. A peer that becomes a voter starts with an
    /// empty acceptor (R8 (3)); one that ceases to vote goes on as a learner from what it accepted.
    pub(super) async fn adopt(&self, config: Config) -> Result<(), LedgerError> {
        let mut gate = self.gate.write().await;
        if config.epoch <= gate.epoch {
            return Ok(());
        }
        let mut batch = vec![Write::Put(Space::Meta, Bytes::from_static(CONFIG_KEY), config.encode())];
        let votes = gate.is_voter(&self.me);
        if gate.starts_empty(&self.me, &config) || votes && !config.is_voter(&self.me) {
            if votes {
                self.keep_as_learner().await?;
            }
            batch.push(Write::Clear(Space::Accepted));
        }
        self.index.commit(batch, Durability::Synced).await?;
        self.enter(&mut gate, config);
        Ok(())
    }

    /// Begins to answer in a configuration that is durable.
    fn enter(&self, gate: &mut Arc<Config>, config: Config) {
        let voters: Vec<String> = config.voters.iter().map(PeerId::short).collect();
        tracing::info!(epoch = config.epoch, joint = config.outgoing.is_some(), ?voters, "voters changed");
        let space = space_of(config.is_voter(&self.me));
        let config = Arc::new(config);
        let before = std::mem::replace(gate, Arc::clone(&config));
        let publish = || drop(self.config.send_replace(config));
        if space == space_of(before.is_voter(&self.me)) && !before.starts_empty(&self.me, gate) {
            publish();
        } else {
            self.holdings.move_to(space, publish);
        }
    }
}

pub(super) fn storage_failed(error: &LedgerError) -> Response {
    tracing::error!(%error, "ledger storage failed");
    Response::Failed { reason: Failure::Storage, detail: error.to_string() }
}

fn read_u64(bytes: &[u8]) -> Result<u64, LedgerError> {
    let bytes = bytes.try_into().map_err(|_| LedgerError::Storage("malformed clock ceiling".to_owned()))?;
    Ok(u64::from_le_bytes(bytes))
}
