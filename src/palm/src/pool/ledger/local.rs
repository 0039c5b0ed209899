//! Pools of local consistency: every peer changes its own copy of the data, and the copies merge.
//!
//! What the pool itself is (members, access keys, settings, voters) goes by consensus in every pool. In a local pool the
//! rest ([`key::is_data`]) does not: an update is decided on this peer's copy, stamped, made durable here, answered, and
//! told to whoever is connected; a read answers from this copy. Copies that meet exchange what differs, by the same
//! comparison as catch-up, between any two members, and the higher version wins ([`palm_core::merge`]).
//!
//! - The copy is a space of its own: no voter's register is ever written by gossip (R6), and nothing that clears or
//!   replaces those touches it.
//! - Who changes a key holds its lock from looking at it until the change is committed: a merge cannot put back what a
//!   write has just replaced.
//! - Tombstones stay (R7 needs voters that hold them all; here there are none).
//! - [`Ledger::read_everywhere`] is for who destroys what registers refer to: it wants every member's answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use palm_backends::{Durability, IndexStore, Space, Write};
use palm_core::hlc::Ballot;
use palm_core::id::PeerId;
use palm_core::merge::{supersedes, write};
use palm_core::reconcile::{Answer, Range};
use palm_core::record::{Consistency, Stored, key};
use palm_core::register::{Accepted, Record};
use palm_core::wire::{Failure, MAX_FRAME_BYTES, Request, Response, ScanQuery};
use parking_lot::RwLock;

use super::catchup::{EXCHANGE_KEYS, MAX_HAVE_PAIRS, TIMEOUT};
use super::holdings::{Holdings, Supplied};
use super::pages::{MAX_FETCH_KEYS, Shows, blocking, build_page};
use super::voter::storage_failed;
use super::{Current, Decision, Item, Ledger, LedgerError, Page, Updated};

/// Locks by key hash. Many more than changes in flight, so that unrelated keys seldom wait for each other.
const LOCKS: usize = 1_024;
/// A write is decided anew when a merge came between; it gives up after so many.
const MAX_ATTEMPTS: usize = 64;
/// Registers are left out of an answer beyond this: a frame must hold it. They are asked for again.
const FETCH_BYTES: usize = MAX_FRAME_BYTES / 4;

/// This peer's copy of a local pool's data.
pub(super) struct LocalCopy {
    index: Arc<dyn IndexStore>,
    /// What kind of pool this is; `None` while that is not known.
    consistency: RwLock<Option<Consistency>>,
    locks: Box<[tokio::sync::Mutex<()>]>,
    hasher: RandomState,
    holdings: Holdings,
}

impl LocalCopy {
    pub(super) fn new(index: Arc<dyn IndexStore>) -> Self {
        Self {
            holdings: Holdings::new(Arc::clone(&index), Space::Local),
            index,
            consistency: RwLock::new(Some(Consistency::Strong)),
            locks: (0..LOCKS).map(|_| tokio::sync::Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Record>, LedgerError> {
        let found = self.index.get(Space::Local, key)?.map(|bytes| Accepted::decode(&bytes)).transpose()?;
        Ok(found.map(|found| found.record))
    }

    /// Takes in the records that are `wanted` over what is there, durably; answers how many. Runs to its end though the
    /// asker goes away: the keys must not be let go of halfway.
    async fn put(
        self: &Arc<Self>,
        records: BTreeMap<Bytes, Record>,
        wanted: impl Fn(&Record, Option<&Record>) -> bool + Send + 'static,
    ) -> Result<usize, LedgerError> {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            // In order, so that two who want several never wait for each other.
            let locks: BTreeSet<usize> = records.keys().map(|key| this.hasher.hash_one(key) as usize % LOCKS).collect();
            let mut held = Vec::with_capacity(locks.len());
            for at in locks {
                held.push(this.locks[at].lock().await);
            }
            let (mut batch, mut changes) = (Vec::new(), Vec::new());
            for (key, record) in records {
                let current = this.get(&key)?;
                if wanted(&record, current.as_ref()) {
                    let version = record.version;
                    let value = Accepted { ballot: version, record }.encode();
                    batch.push(Write::Put(Space::Local, key.clone(), value));
                    changes.push((key, current.map(|current| current.version), version));
                }
            }
            if !batch.is_empty() {
                this.index.commit(batch, Durability::Synced).await?;
            }
            for (key, before, after) in &changes {
                this.holdings.changed(Space::Local, key, *before, Some(*after));
            }
            Ok(changes.len())
        });
        task.await.unwrap_or_else(|error| Err(LedgerError::Storage(error.to_string())))
    }

    /// The registers of some keys, as many as one answer may hold.
    fn fetch(&self, keys: &[Bytes]) -> Result<Vec<(Bytes, Accepted)>, LedgerError> {
        let mut found = Vec::new();
        let mut bytes = 0;
        for key in keys.iter().take(MAX_FETCH_KEYS) {
            let Some(record) = self.get(key)? else { continue };
            bytes += key.len() + record.value.as_ref().map_or(0, Bytes::len);
            found.push((key.clone(), Accepted { ballot: record.version, record }));
            if bytes > FETCH_BYTES {
                break;
            }
        }
        Ok(found)
    }
}

impl Ledger {
    /// Tells the ledger what kind of pool this is. While that is not known (`None`), data is neither read nor written: a
    /// newcomer must not ask voters for what they do not keep.
    pub fn set_consistency(&self, consistency: Option<Consistency>) {
        *self.0.local.consistency.write() = consistency;
    }

    /// Whether the pool's data is local.
    pub fn is_local(&self) -> bool {
        *self.0.local.consistency.read() == Some(Consistency::Local)
    }

    /// Whether this peer decides about the key by itself.
    pub(super) fn decides(&self, key: &[u8]) -> Result<bool, LedgerError> {
        if !key::is_data(key) {
            return Ok(false);
        }
        match *self.0.local.consistency.read() {
            Some(consistency) => Ok(consistency == Consistency::Local),
            None => Err(self.no_quorum(1)),
        }
    }

    /// Where this peer's copy of a key or family is.
    pub(super) fn space_of(&self, key: &[u8]) -> Space {
        if matches!(self.decides(key), Ok(true)) { Space::Local } else { self.0.voter.space() }
    }

    /// [`update`](Self::update), decided on this peer's copy.
    pub(super) async fn update_locally<T, F>(&self, key: &Bytes, mut decide: F) -> Result<Updated<T>, LedgerError>
    where
        F: FnMut(Option<&Current>) -> Decision<T>,
    {
        for _ in 0..MAX_ATTEMPTS {
            let current = self.0.local.get(key)?;
            let seen = current.as_ref().map(|record| record.version);
            let (value, answer) = match decide(current.and_then(Current::of).as_ref()) {
                Decision::Put(value, answer) => (Some(value), answer),
                Decision::Delete(answer) => (None, answer),
                Decision::Keep(answer) => return Ok(Updated { version: seen.unwrap_or(Ballot::ZERO), answer }),
            };
            // The new version is above the one decided on, whatever the clocks say.
            self.observe(seen.unwrap_or(Ballot::ZERO));
            let record = write(self.tick(), value);
            let version = record.version;
            let changed = BTreeMap::from([(key.clone(), record.clone())]);
            let untouched = move |_: &Record, now: Option<&Record>| now.map(|now| now.version) == seen;
            if self.0.local.put(changed, untouched).await? == 1 {
                self.tell_connected(key, record);
                return Ok(Updated { version, answer });
            }
        }
        Err(LedgerError::Contended)
    }

    /// Best effort: who does not hear it finds it by comparing.
    fn tell_connected(&self, key: &Bytes, record: Record) {
        let accepted = Accepted { ballot: record.version, record };
        let request = Request::Learn { key: key.clone(), accepted };
        let (ledger, peers) = (self.clone(), self.connected_members());
        tokio::spawn(async move {
            join_all(peers.into_iter().map(|peer| ledger.ask(peer, request.clone()))).await;
        });
    }

    fn connected_members(&self) -> Vec<PeerId> {
        let members = self.0.members.borrow();
        members.iter().copied().filter(|peer| *peer != self.me() && self.0.net.is_connected(*peer)).collect()
    }

    /// [`read`](Self::read), of this peer's copy.
    pub(super) fn read_locally(&self, key: &Bytes) -> Result<Option<Current>, LedgerError> {
        Ok(self.0.local.get(key)?.and_then(Current::of))
    }

    /// [`scan`](Self::scan), of this peer's copy: in a strong pool it may be stale.
    pub async fn local_page(&self, query: ScanQuery) -> Result<Page, LedgerError> {
        self.local_page_of(query, Shows::All).await
    }

    /// [`scan_objects`](Self::scan_objects), of this peer's copy.
    pub async fn local_objects(&self, query: ScanQuery) -> Result<Page, LedgerError> {
        self.local_page_of(query, Shows::Objects).await
    }

    pub(super) async fn local_page_of(&self, mut rest: ScanQuery, shows: Shows) -> Result<Page, LedgerError> {
        let space = self.space_of(&rest.prefix);
        let mut page = Page::default();
        loop {
            let (index, query) = (Arc::clone(&self.0.local.index), rest.clone());
            let (found, mut records) = blocking(move || {
                let mut records = HashMap::new();
                let found = build_page(index.as_ref(), space, (&query, shows), |key, value| {
                    records.insert(Bytes::copy_from_slice(key), Accepted::decode(value)?.record);
                    Ok(())
                })?;
                Ok((found, records))
            })
            .await?;
            for entry in found.entries.into_iter().filter(|entry| entry.live) {
                page.items.extend(match entry.group {
                    Some(len) => Some(Item::Group(entry.key.slice(..len as usize))),
                    None => records.remove(&entry.key).and_then(Current::of).map(|now| Item::Register(entry.key, now)),
                });
                rest.limit = rest.limit.saturating_sub(1);
            }
            page.next = found.next;
            match &page.next {
                // Tombstones filled the page: go on from there.
                Some(next) if rest.limit > 0 => rest.start = next.clone(),
                _ => return Ok(page),
            }
        }
    }

    /// What each member has of a register of a local pool, tombstones left out. An error where any does not answer: the
    /// one that is away may hold, or yet write, what the others have not heard of. For who destroys what registers
    /// refer to.
    pub async fn read_everywhere(&self, key: &Bytes) -> Result<Vec<Current>, LedgerError> {
        let members: Vec<PeerId> = self.0.members.borrow().iter().copied().collect();
        let answers = join_all(members.into_iter().map(|member| async move {
            let request = Request::Fetch { keys: vec![key.clone()] };
            match self.ask(member, request).await {
                Ok(Response::Registers(found)) => Ok(found),
                _ => Err(LedgerError::Absent(member.short())),
            }
        }));
        let mut found = Vec::new();
        for answer in answers.await {
            found.extend(
                answer?.into_iter().filter(|(at, _)| at == key).filter_map(|(_, held)| Current::of(held.record)),
            );
        }
        Ok(found)
    }

    /// Takes in what other members wrote.
    async fn merge(&self, registers: Vec<(Bytes, Accepted)>) -> Result<usize, LedgerError> {
        let mut newest: BTreeMap<Bytes, Record> = BTreeMap::new();
        for (key, Accepted { record, .. }) in registers {
            self.observe(record.version);
            if key::is_data(&key) && supersedes(&record, newest.get(&key)) {
                newest.insert(key, record);
            }
        }
        // Synced like a write of its own: who collects goes by what is said here, and power loss must not take it back.
        self.0.local.put(newest, supersedes).await
    }

    /// Compares this copy with another member's, another each round, and merges what differs. The other one does the
    /// same. Answers how many registers were taken in.
    pub(super) async fn level_local(&self, round: usize) -> Result<usize, LedgerError> {
        let peers = self.connected_members();
        let Some(&peer) = peers.get(round % peers.len().max(1)) else { return Ok(0) };
        let holdings = &self.0.local.holdings;
        let ranges = self.differing(peer, holdings).await?;
        if ranges.is_empty() {
            return Ok(0);
        }
        let mut taken = 0;
        for range in holdings.look(|summary| summary.gather(ranges, EXCHANGE_KEYS)).await? {
            taken += self.take_from(peer, range).await?;
        }
        tracing::info!(registers = taken, with = %peer.short(), "local copy merged");
        Ok(taken)
    }

    /// Merges what another member has of a range and this one lacks.
    async fn take_from(&self, peer: PeerId, mut rest: Range) -> Result<usize, LedgerError> {
        let mut taken = 0;
        loop {
            let mut have = self.0.local.holdings.look(|summary| summary.hashes(&rest)).await?;
            have.truncate(MAX_HAVE_PAIRS);
            let request = Request::SupplyLocal { from: rest.from.clone(), to: rest.to.clone(), have };
            let Ok(Response::Supplied { registers, next, .. }) = self.0.net.call(peer, request, TIMEOUT).await else {
                return Err(LedgerError::Absent(peer.short()));
            };
            taken += self.merge(registers).await?;
            match next {
                Some(next) if next > rest.from => rest.from = next,
                _ => return Ok(taken),
            }
        }
    }

    /// Answers what concerns a local pool's data; nothing to any other request.
    pub(super) async fn answer_locally(&self, request: &Request) -> Option<Response> {
        let local = &self.0.local;
        let concerned = match request {
            Request::Learn { key, .. } => self.decides(key),
            Request::Fetch { keys } => keys.first().map_or(Ok(false), |key| self.decides(key)),
            Request::CompareLocal { .. } | Request::SupplyLocal { .. } => self.decides(&key::buckets()),
            _ => Ok(false),
        };
        match concerned {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                return Some(Response::Failed { reason: Failure::NotReady, detail: error.to_string() });
            }
        }
        let answered = match request {
            Request::Learn { key, accepted } => {
                self.merge(vec![(key.clone(), accepted.clone())]).await.map(|_| Response::Done)
            }
            Request::Fetch { keys } => local.fetch(keys).map(Response::Registers),
            Request::CompareLocal { from, to, fingerprint } => {
                let range = Range { from: from.clone(), to: to.clone() };
                local.holdings.compare(&range, *fingerprint).await.map(|answer| match answer {
                    Answer::Same => Response::SameRange,
                    Answer::Parts(parts) => Response::Ranges(parts),
                })
            }
            Request::SupplyLocal { from, to, have } => {
                let supplied = local.holdings.supply(Range { from: from.clone(), to: to.clone() }, have).await;
                supplied.map(|Supplied { registers, next, left, surplus }| Response::Supplied {
                    registers,
                    next,
                    left,
                    surplus,
                })
            }
            _ => return None,
        };
        Some(answered.unwrap_or_else(|error| storage_failed(&error)))
    }
}
