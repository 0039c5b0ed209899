//! A peer's acceptor, as `pool/ledger/voter.rs` wraps it: durable before visible, the clock ceiling, the epoch fence.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;

use super::disk::{Stored, Write, range_of};
use super::exec::{Exec, Guard, Lock, Mailbox};
use super::fault::{Fault, is_planted};
use super::world::{Ask, Letter, MS, Node, Reply, World};
use crate::hlc::{Ballot, Clock, Stamp};
use crate::id::PeerId;
use crate::listing::{Go, PageBuilder};
use crate::register::{Accepted, Config, Promises, Record, Refusal, Slot, ceiling_above};
use crate::wire::{MAX_SCAN_ENTRIES, ScanPage, ScanQuery};

/// Locks by key; few, so that keys share one.
const STRIPES: usize = 2;

/// What a peer knows between two crashes.
pub struct Life {
    /// Its tasks.
    pub owner: u64,
    floor: Cell<Stamp>,
    /// The highest stamp promised or accepted.
    highest: Cell<Stamp>,
    clock: RefCell<Clock>,
    config: RefCell<Rc<Config>>,
    /// Accepts hold it for reading until they are durable; adopting a configuration takes it for writing (R8).
    gate: Rc<Lock>,
    extending: Rc<Lock>,
    stripes: Vec<(Rc<Lock>, RefCell<Promises>)>,
    queues: RefCell<BTreeMap<Bytes, Rc<Lock>>>,
    /// Answers of past attempts too: for a planted fault (R3).
    pub old_mailbox: Rc<Mailbox<Letter>>,
}

/// A peer that is up.
#[derive(Clone)]
pub struct Peer {
    /// Where it is.
    pub world: Rc<World>,
    /// Its machine.
    pub node: Rc<Node>,
    /// This life of it.
    pub life: Rc<Life>,
}

/// How a batch is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// Shown once durable.
    Synced,
    /// Shown at once, durable later.
    Buffered,
    /// Shown at once, never durable: a planted fault.
    Volatile,
}

impl Life {
    /// R3: a new life, a new nonce, a floor at the durable ceiling, and a clock above it.
    pub fn open(exec: &Rc<Exec>, node: &Node, nonce: u32) -> Self {
        let disk = node.disk.borrow();
        let ceiling = disk.shown().ceiling;
        let remembered = |config: &Config| config.is_voter(&node.id) || !is_planted(Fault::RemovedForgetsEpoch);
        let config = disk.shown().config.clone().filter(remembered).unwrap_or_else(|| node.initial.clone());
        Self {
            owner: exec.fresh(),
            floor: Cell::new(if is_planted(Fault::NoRestartFloor) { Stamp(0) } else { ceiling }),
            highest: Cell::new(ceiling),
            clock: RefCell::new(Clock::new(&node.id, nonce, ceiling)),
            config: RefCell::new(Rc::new(config)),
            gate: Lock::new(exec),
            extending: Lock::new(exec),
            stripes: (0..STRIPES).map(|_| (Lock::new(exec), RefCell::default())).collect(),
            queues: RefCell::default(),
            old_mailbox: Rc::new(Mailbox::new(exec)),
        }
    }
}

impl Peer {
    /// Its id.
    pub fn me(&self) -> PeerId {
        self.node.id
    }

    /// The configuration it has adopted.
    pub fn config(&self) -> Rc<Config> {
        Rc::clone(&self.life.config.borrow())
    }

    /// Whether it votes.
    pub fn is_voter(&self) -> bool {
        self.config().is_voter(&self.me())
    }

    /// A new ballot.
    pub fn tick(&self) -> Ballot {
        self.life.clock.borrow_mut().tick(self.world.wall_ms(&self.node))
    }

    /// Takes note of a ballot.
    pub fn observe(&self, ballot: Ballot) {
        self.life.clock.borrow_mut().observe(ballot.stamp);
    }

    /// Milliseconds by its hybrid clock.
    pub fn now_ms(&self) -> u64 {
        self.world.wall_ms(&self.node).max(self.life.clock.borrow().last().millis())
    }

    /// One update per key at a time.
    pub async fn enter(&self, key: &Bytes) -> Guard {
        let queue =
            self.life.queues.borrow_mut().entry(key.clone()).or_insert_with(|| Lock::new(&self.world.exec)).clone();
        queue.write().await
    }

    /// A look at its disk.
    pub fn stored<T>(&self, look: impl FnOnce(&Stored) -> T) -> T {
        look(self.node.disk.borrow().shown())
    }

    async fn commit(&self, batch: Vec<Write>, durability: Durability) {
        if durability == Durability::Volatile {
            self.node.disk.borrow_mut().only_show(&batch);
            return;
        }
        let buffered = durability == Durability::Buffered;
        let id = self.node.disk.borrow_mut().write(batch, buffered);
        let latency =
            if self.world.chance(30) { self.world.draw(10 * MS..200 * MS) } else { self.world.draw(50..2_000) };
        if buffered {
            let node = Rc::clone(&self.node);
            let owner = self.life.owner;
            let exec = Rc::clone(&self.world.exec);
            self.world.exec.spawn(owner, async move {
                exec.sleep(latency).await;
                node.disk.borrow_mut().synced(id);
            });
        } else {
            self.world.exec.sleep(latency).await;
            self.node.disk.borrow_mut().synced(id);
        }
    }

    fn stripe(&self, key: &Bytes) -> &(Rc<Lock>, RefCell<Promises>) {
        &self.life.stripes[stripe_of(key)]
    }

    fn slot(&self, key: &Bytes) -> Slot {
        self.stored(|stored| Slot {
            promised: self.stripe(key).1.borrow().of(key),
            accepted: stored.accepted.get(key).cloned(),
            floor: self.life.floor.get(),
            collected: stored.floor_of(key),
        })
    }

    /// R3: makes sure that the durable ceiling is at or above the stamp.
    async fn ensure_ceiling(&self, stamp: Stamp) {
        self.life.highest.set(self.life.highest.get().max(stamp));
        if stamp <= self.stored(|stored| stored.ceiling) {
            return;
        }
        let _one = self.life.extending.write().await;
        if stamp <= self.stored(|stored| stored.ceiling) {
            return;
        }
        let durability = if is_planted(Fault::VolatileCeiling) { Durability::Volatile } else { Durability::Synced };
        self.commit(vec![Write::Ceiling(ceiling_above(stamp))], durability).await;
    }

    /// The refusal of a message of this epoch, unless it may be answered here.
    fn refusal(&self, epoch: u64) -> Option<Reply> {
        let config = self.config();
        config.refuses(&self.me(), epoch).map(|refusal| match refusal {
            Refusal::OtherEpoch => Reply::WrongEpoch((*config).clone()),
            Refusal::NotAVoter => Reply::No,
        })
    }

    /// Answers a question.
    pub async fn handle(&self, ask: Ask) -> Reply {
        match ask {
            Ask::Prepare { epoch, key, ballot } => self.on_prepare(epoch, key, ballot).await,
            Ask::Accept { epoch, key, ballot, record } => self.on_accept(epoch, key, ballot, record).await,
            Ask::Read { epoch, key, have } => match self.refusal(epoch) {
                Some(refusal) if !is_planted(Fault::ReadsWithoutEpoch) => refusal,
                _ => self.stored(|stored| match stored.accepted.get(&key) {
                    Some(Accepted { ballot, record }) => {
                        Reply::Digest(Some(*ballot), (have != Some(*ballot)).then(|| record.clone()))
                    }
                    None => Reply::Digest(None, None),
                }),
            },
            Ask::Scan { epoch, mut query } => match self.refusal(epoch) {
                Some(refusal) if !is_planted(Fault::ReadsWithoutEpoch) => refusal,
                _ => {
                    query.limit = query.limit.min(MAX_SCAN_ENTRIES);
                    Reply::Page(self.stored(|stored| page_of(&stored.accepted, &query)))
                }
            },
            Ask::Fetch { keys } => {
                let found = keys.into_iter().filter_map(|key| self.copy(&key).0.map(|accepted| (key, accepted)));
                Reply::Registers(found.collect())
            }
            Ask::Learn { key, accepted } => {
                self.observe(accepted.ballot);
                if self.is_voter() {
                    if is_planted(Fault::GossipPastPromises) {
                        self.overwrite(vec![(key, accepted)]).await;
                    }
                } else {
                    self.follow(vec![(key, accepted)]).await;
                }
                Reply::Done
            }
            Ask::Pairs => Reply::Pairs(self.copy_all().iter().map(|(key, copy)| (key.clone(), copy.ballot)).collect()),
            Ask::GetConfig => Reply::Config((*self.config()).clone()),
            Ask::Adopt(config) => {
                self.adopt(config).await;
                Reply::Done
            }
            Ask::Holds { epoch, key, tombstone } => match self.refusal(epoch) {
                Some(refusal) if !is_planted(Fault::CollectingWithoutEpoch) => refusal,
                _ if self.slot(&key).holds(tombstone) => Reply::Done,
                _ => Reply::No,
            },
            Ask::Collect { epoch, key, tombstone } => self.on_collect(epoch, key, tombstone).await,
            Ask::Floors { epoch } => self.refusal(epoch).unwrap_or_else(|| {
                Reply::Floors(
                    self.stored(|stored| stored.floors.iter().map(|(range, floor)| (*range, *floor)).collect()),
                )
            }),
            Ask::RaiseFloors { epoch, floors } => {
                let _gate = self.life.gate.read().await;
                if let Some(refusal) = self.refusal(epoch) {
                    return refusal;
                }
                let batch = floors.into_iter().map(|(range, floor)| Write::Floor(range, floor)).collect();
                self.commit(batch, floor_durability()).await;
                Reply::Done
            }
            Ask::Raise { epoch, floor } => self.on_raise(epoch, floor).await,
            Ask::Confirm { epoch, pairs } => self.refusal(epoch).unwrap_or_else(|| {
                let holds = |stored: &Stored, (key, ballot): &(Bytes, Ballot)| {
                    stored.accepted.get(key).is_some_and(|accepted| accepted.ballot == *ballot)
                };
                Reply::Confirmed(self.stored(|stored| pairs.iter().map(|pair| holds(stored, pair)).collect()))
            }),
            Ask::CatchUp => {
                self.catch_up_now().await;
                Reply::Done
            }
            Ask::Overwrite(registers) => {
                self.overwrite(registers).await;
                Reply::Done
            }
        }
    }

    async fn on_prepare(&self, epoch: u64, key: Bytes, ballot: Ballot) -> Reply {
        self.observe(ballot);
        let _gate = self.life.gate.read().await;
        if let Some(refusal) = self.refusal(epoch) {
            return refusal;
        }
        self.ensure_ceiling(ballot.stamp).await;
        let (lock, promises) = self.stripe(&key);
        let _one = lock.write().await;
        let mut slot = self.slot(&key);
        match slot.prepare(ballot) {
            Ok(accepted) => {
                let accepted = accepted.cloned();
                promises.borrow_mut().promise(key, ballot);
                Reply::Promised(accepted, slot.collected)
            }
            Err(refused) => Reply::Nack(refused.highest),
        }
    }

    async fn on_accept(&self, epoch: u64, key: Bytes, ballot: Ballot, record: Record) -> Reply {
        self.observe(ballot);
        let _gate = self.life.gate.read().await;
        match self.refusal(epoch) {
            Some(Reply::WrongEpoch(_)) if is_planted(Fault::PromisesAcrossEpochs) && self.is_voter() => {}
            Some(refusal) => return refusal,
            None => {}
        }
        self.ensure_ceiling(ballot.stamp).await;
        let (lock, promises) = self.stripe(&key);
        let _one = lock.write().await;
        let mut slot = self.slot(&key);
        let accepted = match slot.accept(ballot, record) {
            Ok(accepted) => accepted.clone(),
            Err(refused) => return Reply::Nack(refused.highest),
        };
        let durability = if is_planted(Fault::AcceptBeforeSync) { Durability::Buffered } else { Durability::Synced };
        self.commit(vec![Write::Accept(key.clone(), accepted)], durability).await;
        self.world.log(|| {
            format!(
                "peer {} accepted {} at {ballot:?} in epoch {epoch}",
                self.node.number,
                super::history::name_of(&key)
            )
        });
        // The accepted ballot now stands for the promise.
        promises.borrow_mut().fulfilled(&key);
        Reply::Accepted
    }

    /// R8 (4): promises, for all keys at once, to take no ballot up to `floor`.
    async fn on_raise(&self, epoch: u64, floor: Stamp) -> Reply {
        let _gate = self.life.gate.write().await;
        if let Some(refusal) = self.refusal(epoch) {
            return refusal;
        }
        self.ensure_ceiling(floor).await;
        self.life.floor.set(self.life.floor.get().max(floor));
        Reply::Raised(self.life.highest.get())
    }

    /// Takes records for which enough voters of this epoch vouch, as if their accepts came late: one sync for all.
    /// Answers the keys it had to refuse.
    pub async fn install(&self, epoch: u64, records: BTreeMap<Bytes, Accepted>) -> Vec<Bytes> {
        let _gate = self.life.gate.read().await;
        if self.refusal(epoch).is_some() {
            return records.into_keys().collect();
        }
        let highest = records.values().map(|accepted| accepted.ballot.stamp).max().unwrap_or_default();
        self.ensure_ceiling(highest).await;
        let mut held = Vec::new();
        // In order, so that two who lock several never wait for each other.
        for stripe in records.keys().map(stripe_of).collect::<BTreeSet<_>>() {
            held.push(self.life.stripes[stripe].0.write().await);
        }
        let (mut batch, mut taken, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for (key, Accepted { ballot, record }) in records {
            let mut slot = self.slot(&key);
            if slot.accepted.as_ref().is_some_and(|accepted| accepted.ballot >= ballot) {
                continue; // it came the usual way meanwhile
            }
            match slot.accept(ballot, record) {
                Ok(accepted) => {
                    batch.push(Write::Accept(key.clone(), accepted.clone()));
                    taken.push(key);
                }
                Err(_) => refused.push(key),
            }
        }
        if !batch.is_empty() {
            self.commit(batch, Durability::Synced).await;
        }
        self.world.stats.borrow_mut().installed += taken.len() as u64;
        for key in taken {
            self.world.log(|| {
                format!("peer {} installs {} in epoch {epoch}", self.node.number, super::history::name_of(&key))
            });
            self.stripe(&key).1.borrow_mut().fulfilled(&key);
        }
        refused
    }

    /// R7: forgets a tombstone that every voter holds.
    async fn on_collect(&self, epoch: u64, key: Bytes, tombstone: Ballot) -> Reply {
        let _gate = self.life.gate.read().await;
        match self.refusal(epoch) {
            Some(refusal) if !is_planted(Fault::CollectingWithoutEpoch) => return refusal,
            _ => {}
        }
        let (lock, promises) = self.stripe(&key);
        let _one = lock.write().await;
        let slot = self.slot(&key);
        let Some(mut floor) = slot.collect(tombstone) else { return Reply::No };
        if is_planted(Fault::CollectingDropsPromise) {
            floor = slot.collected.max(tombstone);
            *promises.borrow_mut() = Promises::default();
        }
        self.world.stats.borrow_mut().collected += 1;
        self.world
            .log(|| format!("peer {} collects {} at {tombstone:?}", self.node.number, super::history::name_of(&key)));
        match floor_durability() {
            Durability::Synced => {
                let batch = vec![Write::Forget(key.clone()), Write::Floor(range_of(&key), floor)];
                self.commit(batch, Durability::Synced).await;
            }
            volatile => {
                self.commit(vec![Write::Forget(key.clone())], Durability::Synced).await;
                if !is_planted(Fault::NoCollectionFloor) {
                    self.commit(vec![Write::Floor(range_of(&key), floor)], volatile).await;
                }
            }
        }
        Reply::Done
    }

    /// R8: durably adopts a chosen configuration, if it is newer. A joiner starts with an empty acceptor; who ceases to
    /// vote goes on as a learner from what it accepted.
    pub async fn adopt(&self, config: Config) {
        let _gate = self.life.gate.write().await;
        let before = self.config();
        let mut batch = vec![Write::Config(config.clone())];
        if config.epoch <= before.epoch {
            return;
        }
        let votes = before.is_voter(&self.me());
        let ceases = votes && !config.is_voter(&self.me());
        if (ceases || before.starts_empty(&self.me(), &config)) && !is_planted(Fault::JoinerKeepsState) {
            if votes {
                self.follow(self.copy_all().into_iter().collect()).await;
            }
            batch.push(Write::Clear);
        }
        let volatile = is_planted(Fault::VolatileEpoch);
        let durability = if volatile { Durability::Volatile } else { Durability::Synced };
        self.commit(batch, durability).await;
        self.world.log(|| {
            let names = |peers: &BTreeSet<PeerId>| peers.iter().map(|peer| peer.as_bytes()[0] - 1).collect::<Vec<_>>();
            let (voters, outgoing) = (names(&config.voters), config.outgoing.as_ref().map(names));
            format!("peer {} adopts epoch {}: {voters:?}, outgoing {outgoing:?}", self.node.number, config.epoch)
        });
        *self.life.config.borrow_mut() = Rc::new(config);
    }

    /// A learner takes newer records.
    pub async fn follow(&self, registers: Vec<(Bytes, Accepted)>) {
        let newer =
            |key: &Bytes, ballot| self.stored(|s| s.followed.get(key).is_none_or(|known| known.ballot < ballot));
        let batch: Vec<Write> = registers
            .into_iter()
            .filter(|(key, accepted)| newer(key, accepted.ballot))
            .map(|(key, accepted)| Write::Follow(key, accepted))
            .collect();
        self.commit(batch, Durability::Buffered).await;
    }

    /// A planted fault: takes newer records as if it had accepted them (R6, R8).
    pub async fn overwrite(&self, registers: Vec<(Bytes, Accepted)>) {
        let newer =
            |key: &Bytes, ballot| self.stored(|s| s.accepted.get(key).is_none_or(|known| known.ballot < ballot));
        let batch: Vec<Write> = registers
            .into_iter()
            .filter(|(key, accepted)| newer(key, accepted.ballot))
            .map(|(key, accepted)| Write::Accept(key, accepted))
            .collect();
        self.commit(batch, Durability::Synced).await;
    }

    /// This peer's copy of a register, and the ballot it has accepted as a voter, if any.
    pub fn copy(&self, key: &Bytes) -> (Option<Accepted>, Option<Ballot>) {
        let voter = self.is_voter();
        self.stored(|stored| {
            let accepted = if voter { stored.accepted.get(key) } else { None };
            let ballot = accepted.map(|accepted| accepted.ballot);
            (accepted.or_else(|| stored.followed.get(key)).cloned(), ballot)
        })
    }

    /// All of this peer's copy.
    pub fn copy_all(&self) -> BTreeMap<Bytes, Accepted> {
        let voter = self.is_voter();
        self.stored(|stored| if voter { stored.accepted.clone() } else { stored.followed.clone() })
    }

    /// A page of this peer's own copy, and whether it counts as a voter's of this epoch.
    pub fn own_page(&self, query: &ScanQuery, epoch: u64) -> (ScanPage, bool) {
        let config = self.config();
        (page_of(&self.copy_all(), query), config.epoch == epoch && config.is_voter(&self.me()))
    }
}

fn stripe_of(key: &Bytes) -> usize {
    range_of(key) % STRIPES
}

fn floor_durability() -> Durability {
    let volatile = is_planted(Fault::VolatileFloor) || is_planted(Fault::NoCollectionFloor);
    if volatile { Durability::Volatile } else { Durability::Synced }
}

/// Builds a page as the real voter does: with seeks past groups.
fn page_of(registers: &BTreeMap<Bytes, Accepted>, query: &ScanQuery) -> ScanPage {
    let mut builder = PageBuilder::new(query);
    let mut from = query.first().clone();
    'seek: loop {
        for (key, accepted) in registers.range(from.clone()..) {
            match builder.visit(key, accepted.ballot, accepted.record.value.is_some()).1 {
                Go::On => {}
                Go::To(next) => {
                    from = next;
                    continue 'seek;
                }
                Go::Stop => break 'seek,
            }
        }
        break;
    }
    builder.finish()
}
