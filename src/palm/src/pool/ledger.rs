//! The ledger over the network: a replicated, ordered map of registers, linearizable per key, without a leader.
//!
//! - [`voter`]: this peer as acceptor: durable before visible, the clock ceiling, the epoch fence.
//! - [`propose`]: this peer as proposer: updates and their retries.
//! - [`read`]: one-round strong reads, shared reads of hot keys, and pages.
//! - [`change`]: changing the voters (R8); [`recover`]: founding the ledger anew when a majority is lost.
//! - [`collect`]: forgetting what was deleted (R7).
//! - [`catchup`]: copies are brought level; [`holdings`]: what this peer holds, as others compare with it.
//! - [`local`]: pools of local consistency, whose data goes none of these ways.
//!
//! The rules themselves are pure and stand in [`palm_core::register`] and [`palm_core::listing`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use palm_backends::{IndexStore, Next, Space, StoreError};
use palm_core::hlc::{Ballot, Clock, Stamp};
use palm_core::id::PeerId;
pub use palm_core::listing::{Item, Page};
use palm_core::reconcile::{Answer, Range};
use palm_core::record::Stored;
use palm_core::register::{Accepted, Config, Unknown, backoff};
pub use palm_core::register::{Current, Decision, Updated};
use palm_core::wire::{Failure, Request, Response};
use parking_lot::Mutex;
use prometheus::core::Collector;
use tokio::sync::{broadcast, watch};
use tracing::Instrument as _;

use crate::net::{Net, NetError};

mod catchup;
mod change;
mod collect;
mod holdings;
mod inquiry;
mod local;
mod measures;
mod pages;
mod progress;
mod propose;
mod queue;
mod read;
mod recover;
mod voter;

use holdings::Supplied;
use local::LocalCopy;
use measures::Measures;
use pages::Shows;
pub use progress::CatchUp;
use queue::{KeyQueues, SharedReads};
pub use recover::Survey;
use voter::{Voter, storage_failed};

/// A voter that has not answered by then counts as silent for this attempt.
const CALL_TIMEOUT: Duration = Duration::from_millis(1_500);
/// An update that has not settled by then is given up: as failed if no accept was sent, else as unknown.
const UPDATE_DEADLINE: Duration = Duration::from_secs(6);
/// A read or page that has found no quorum by then is given up. With it, a GET without a quorum is answered
/// 503 well within five seconds.
const READ_DEADLINE: Duration = Duration::from_millis(2_500);
/// Watchers that lag behind by more keys than this are told so and look at everything again.
const CHANGES_CAPACITY: usize = 1_024;

/// Why the ledger gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// Too few voters answered. Nothing was written.
    #[error("{missing} of {voters} voters missing for a majority")]
    NoQuorum {
        /// How many more are needed.
        missing: usize,
        /// How many there are.
        voters: usize,
    },
    /// Others kept changing the register until the deadline. Nothing was written.
    #[error("outrun by other writers of the same key")]
    Contended,
    /// An accept was sent and its outcome is not known (R4).
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// A recovery of a lost majority came to no end. The pool may stand still until another does.
    #[error("recovery: {0}; run it again")]
    Recovery(String),
    /// This member of a local pool did not answer, and all had to.
    #[error("member {0} is out of reach")]
    Absent(String),
    /// This peer's index failed or holds bytes it never wrote.
    #[error("index: {0}")]
    Storage(String),
    /// The metrics cannot be made.
    #[error("metrics: {0}")]
    Metrics(String),
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<Unknown> for LedgerError {
    fn from(unknown: Unknown) -> Self {
        Self::Unknown(unknown.to_string())
    }
}

impl From<palm_core::record::DecodeError> for LedgerError {
    fn from(error: palm_core::record::DecodeError) -> Self {
        Self::Storage(error.to_string())
    }
}

/// The replicated, ordered map of registers. Cheap to clone.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    net: Net,
    voter: Arc<Voter>,
    clock: Mutex<Clock>,
    /// Updates of one key by this peer go one at a time; later ones queue.
    queues: KeyQueues,
    shared: SharedReads,
    local: Arc<LocalCopy>,
    /// One comparison at a time.
    levelling: tokio::sync::Mutex<()>,
    catch_up: watch::Sender<Option<CatchUp>>,
    /// Peers that are being told the configuration: each by one call at a time.
    telling: Mutex<BTreeSet<PeerId>>,
    /// Everyone admitted to the pool: who is told of chosen records besides the voters.
    members: watch::Sender<BTreeSet<PeerId>>,
    measures: Measures,
}

impl Ledger {
    /// Opens this peer's part of the ledger. `initial` is the configuration a creator or joiner starts from; it is
    /// ignored where a newer one is stored already.
    pub async fn open(
        me: PeerId,
        index: Arc<dyn IndexStore>,
        net: Net,
        initial: Option<Config>,
    ) -> Result<Self, LedgerError> {
        let local = Arc::new(LocalCopy::new(Arc::clone(&index)));
        let voter = Voter::open(me, index, initial).await?;
        // R3: a new life, a new nonce, and a clock above everything the last life may have promised.
        let clock = Clock::new(&me, rand::random(), voter.floor());
        Ok(Self(Arc::new(Inner {
            net,
            voter: Arc::new(voter),
            clock: Mutex::new(clock),
            queues: KeyQueues::default(),
            shared: SharedReads::default(),
            local,
            levelling: tokio::sync::Mutex::default(),
            catch_up: watch::Sender::new(None),
            telling: Mutex::default(),
            members: watch::Sender::new(BTreeSet::from([me])),
            measures: Measures::new().map_err(|error| LedgerError::Metrics(error.to_string()))?,
        })))
    }

    /// What this peer knows of a key, without asking: may be stale.
    pub fn peek(&self, key: &Bytes) -> Option<Current> {
        let copy = match self.decides(key) {
            Ok(true) => self.read_locally(key),
            _ => self.0.voter.copy(key).map(|copy| copy.and_then(|accepted| Current::of(accepted.record))),
        };
        match copy {
            Ok(copy) => copy,
            Err(error) => {
                tracing::error!(%error, "local copy unreadable");
                None
            }
        }
    }

    /// This peer's copy of all live registers under a prefix: may be stale.
    pub fn local_scan(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Current)>, LedgerError> {
        let mut found = Vec::new();
        let mut broken = None;
        self.0.voter.index().scan(self.space_of(prefix), prefix, &mut |key, value| {
            if !key.starts_with(prefix) {
                return Next::Stop;
            }
            match Accepted::decode(value) {
                Ok(accepted) => {
                    if let Some(current) = Current::of(accepted.record) {
                        found.push((Bytes::copy_from_slice(key), current));
                    }
                    Next::Continue
                }
                Err(error) => {
                    broken = Some(error);
                    Next::Stop
                }
            }
        })?;
        broken.map_or(Ok(found), |error| Err(error.into()))
    }

    /// Milliseconds since the Unix epoch by the hybrid clock: never behind what this peer has seen.
    pub fn now_ms(&self) -> u64 {
        wall_ms().max(self.0.clock.lock().last().millis())
    }

    /// A stamp above this one, and above all that this peer has seen.
    pub fn stamp_after(&self, seen: Stamp) -> Stamp {
        let mut clock = self.0.clock.lock();
        clock.observe(seen);
        clock.tick(wall_ms()).stamp
    }

    /// The configuration this peer has adopted.
    pub fn config(&self) -> Arc<Config> {
        self.0.voter.config()
    }

    /// What is measured of it, for who shows it.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        self.0.measures.collectors()
    }

    /// Follows the configuration.
    pub fn config_changes(&self) -> watch::Receiver<Arc<Config>> {
        self.0.voter.config_changes()
    }

    /// Keys that changed in this peer's copy.
    pub fn watch(&self) -> broadcast::Receiver<Bytes> {
        self.0.voter.watch()
    }

    /// Tells the ledger who is in the pool, so that learners are told of chosen records.
    pub fn set_members(&self, members: BTreeSet<PeerId>) {
        self.0.members.send_if_modified(|known| {
            let changed = *known != members;
            *known = members;
            changed
        });
    }

    /// Answers another member's ledger request.
    pub async fn handle(&self, from: PeerId, request: Request) -> Response {
        if let Some(response) = self.answer_locally(&request).await {
            return response;
        }
        let voter = &self.0.voter;
        match request {
            Request::Ping => Response::Pong { epoch: voter.config().epoch },
            Request::Prepare { epoch, key, ballot } => {
                self.observe(ballot);
                voter.prepare(epoch, key, ballot).await
            }
            Request::Accept { epoch, key, ballot, record } => {
                self.observe(ballot);
                voter.accept(epoch, key, ballot, record).await
            }
            Request::Read { epoch, key, have } => voter.read(epoch, &key, have),
            Request::Scan { epoch, query, expect } => voter.scan(epoch, query, Shows::All, expect).await,
            Request::ScanObjects { epoch, query, expect } => voter.scan(epoch, query, Shows::Objects, expect).await,
            Request::Learn { key, accepted } => {
                self.observe(accepted.ballot);
                voter.learn(key, accepted).await
            }
            Request::GetConfig => Response::Config((*voter.config()).clone()),
            Request::AdoptConfig(config) => voter.adopt_answer(config).await,
            Request::Compare { from, to, fingerprint } => {
                match voter.holdings().compare(&Range { from, to }, fingerprint).await {
                    Ok(Answer::Same) => Response::SameRange,
                    Ok(Answer::Parts(parts)) => Response::Ranges(parts),
                    Err(error) => storage_failed(&error),
                }
            }
            Request::Supply { from, to, have } => match voter.holdings().supply(Range { from, to }, &have).await {
                Ok(Supplied { registers, next, left, surplus }) => {
                    Response::Supplied { registers, next, left, surplus }
                }
                Err(error) => storage_failed(&error),
            },
            Request::Confirm { epoch, ranges } => voter.confirm(epoch, ranges).await,
            Request::Raise { epoch, floor } => voter.raise(epoch, floor).await,
            Request::CatchUp => self.catch_up_now().await,
            Request::Fetch { keys } => voter.fetch(&keys),
            Request::HoldsTombstones { epoch, tombstones } => voter.holds(epoch, tombstones).await,
            Request::CollectTombstones { epoch, tombstones } => voter.collect(epoch, tombstones).await,
            Request::GetFloors { epoch } => voter.all_floors(epoch).await,
            Request::RaiseFloors { epoch, floors } => voter.raise_floors(epoch, floors).await,
            Request::HandOver { epoch, from } => voter.hand_over(epoch, from).await,
            other => {
                tracing::warn!(peer = %from.short(), request = ?std::mem::discriminant(&other), "not a ledger request");
                Response::Failed { reason: Failure::Malformed, detail: "not a ledger request".to_owned() }
            }
        }
    }

    fn me(&self) -> PeerId {
        self.0.voter.me()
    }

    fn tick(&self) -> Ballot {
        self.0.clock.lock().tick(wall_ms())
    }

    fn observe(&self, ballot: Ballot) {
        self.0.clock.lock().observe(ballot.stamp);
    }

    /// Asks a voter, which may be this peer itself.
    async fn ask(&self, peer: PeerId, request: Request) -> Result<Response, NetError> {
        if peer == self.me() {
            // In a task of its own: whoever asks may be busy with another's answer, with adopting an epoch say, for which
            // this one would have to let go of the gate first.
            let ledger = self.clone();
            let answer = tokio::spawn(async move { ledger.handle(peer, request).await }.in_current_span());
            return answer.await.map_err(|error| NetError::Local(error.to_string()));
        }
        self.0.net.call(peer, request, CALL_TIMEOUT).await
    }

    /// A refusal of what was asked in epoch `asked`. A newer configuration is adopted: ask again in it (`true`). One that is
    /// behind is told ours, without waiting for it: a voter that is slow to adopt is as good as silent (`false`). Both are
    /// chosen ones (R8): nobody adopts, and so nobody sends, any other.
    async fn settle_epoch(&self, peer: PeerId, theirs: Config, asked: u64) -> bool {
        let ours = self.config();
        if theirs.epoch > ours.epoch {
            if let Err(error) = self.0.voter.adopt(theirs.clone()).await {
                tracing::error!(%error, "cannot adopt the voter configuration");
            }
        } else if theirs.epoch < ours.epoch && peer != self.me() && self.0.telling.lock().insert(peer) {
            let ledger = self.clone();
            tokio::spawn(async move {
                let told = ledger.0.net.call(peer, Request::AdoptConfig((*ours).clone()), CALL_TIMEOUT).await;
                tracing::debug!(peer = %peer.short(), ?told, "told the voter configuration");
                ledger.0.telling.lock().remove(&peer);
            });
        }
        theirs.epoch > asked
    }

    fn no_quorum(&self, missing: usize) -> LedgerError {
        LedgerError::NoQuorum { missing: missing.max(1), voters: self.config().voters.len() }
    }
}

/// The wall clock: the shell's one look at it; the ledger's decisions get it passed in.
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A pause before asking again, when nobody was in the way.
async fn back_off(attempts: u32) {
    tokio::time::sleep(backoff(attempts, 0, None, wall_ms(), rand::random())).await;
}

/// Where this peer keeps its copy.
const fn space_of(voter: bool) -> Space {
    if voter { Space::Accepted } else { Space::Followed }
}
