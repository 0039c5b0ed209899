//! The store: what every operation of this room works with.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use palm_backends::decorate::{Bandwidth, Pace as Bound, local_minute};
use palm_backends::{Backends, IndexStore, Strain};
use palm_core::code::SegmentSecret;
use palm_core::hlc::{Ballot, Stamp};
use palm_core::id::{BodyId, KeyId, PeerId, SegmentId};
use palm_core::record::{
    Attributes, CustomerKey, DataKeyRecord, ObjectRecord, Stored, Subresources, WhenMinority, key,
};
use palm_core::s3::account::Account;
use palm_core::s3::version::{Name, VersionId};
use palm_core::wire::ScanQuery;
use parking_lot::{Mutex, RwLock};
use tracing::Instrument as _;
use zeroize::Zeroizing;

use super::access_log::AccessLog;
use super::audit::Audit;
use super::budget::Budget;
use super::collect::Collector;
use super::emptying::Emptying;
use super::events::Events;
use super::home::Home;
use super::repair::{Pace, Queue};
use super::suspects::{Reports, Suspects};
use super::{ChoreSettings, CollectSettings, ObjectError, RepairSettings};
use crate::net::Net;
use crate::pool::ledger::Page;
use crate::pool::secret::{SealingKey, fill_random};
use crate::pool::{Current, Ledger, LedgerError, View};

/// Data keys kept open in memory; beyond it the cache starts anew. One per bucket in use.
const MAX_OPEN_DATA_KEYS: usize = 4096;

/// An object as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Stamp of the version, from when it was made; its milliseconds are the last-modified time.
    pub version: Ballot,
    /// Its version id; `None` in buckets that never had versions, and of a null version just put.
    pub id: Option<Name>,
    /// The record.
    pub record: ObjectRecord,
    /// Not what a strong read found, but what this peer knew while no majority was in reach.
    pub stale: bool,
}

impl Object {
    /// Milliseconds since the Unix epoch.
    pub fn modified_ms(&self) -> u64 {
        self.version.stamp.millis()
    }

    pub(super) fn new(stamp: Stamp, id: Option<Name>, record: ObjectRecord) -> Self {
        Self { version: Ballot { stamp, ..Ballot::ZERO }, id, record, stale: false }
    }

    pub(super) fn of_version(id: VersionId, record: ObjectRecord, stale: bool) -> Self {
        Self { stale, ..Self::new(id.stamp, Some(Name::Id(id)), record) }
    }
}

/// What an object to come is to be, beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewObject {
    /// Headers and user metadata.
    pub attributes: Attributes,
    /// ACL, tags, lock.
    pub subresources: Subresources,
    /// Its bytes come encrypted with a key of the client's.
    pub customer_key: Option<CustomerKey>,
}

impl From<Attributes> for NewObject {
    fn from(attributes: Attributes) -> Self {
        Self { attributes, ..Self::default() }
    }
}

/// What a store is made of.
pub struct StoreParts {
    /// The metadata.
    pub ledger: Ledger,
    /// The way to other homes.
    pub net: Net,
    /// Who is there.
    pub view: View,
    /// This peer's fragments.
    pub fragments: Arc<Backends>,
    /// This peer's index, for its notes on fragments.
    pub index: Arc<dyn IndexStore>,
    /// Opens data keys and access keys.
    pub sealing_key: SealingKey,
    /// When garbage goes.
    pub collect: CollectSettings,
    /// How repair goes about it.
    pub repair: RepairSettings,
    /// How chores are done.
    pub chores: ChoreSettings,
    /// How fast fragments may come from other peers and go to them, together.
    pub traffic: Bandwidth,
}

/// Buckets, objects and uploads over the ledger and the homes. Cheap to clone.
#[derive(Clone)]
pub struct Store(pub(super) Arc<Inner>);

/// The parts of a [`Store`]; its clones share them.
pub struct Inner {
    pub(super) ledger: Ledger,
    pub(super) net: Net,
    pub(super) view: View,
    pub(super) me: PeerId,
    pub(super) home: Home,
    pub(super) budget: Budget,
    pub(super) suspects: Suspects,
    pub(super) reports: Reports,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) collector: Collector,
    pub(super) counters: Counters,
    pub(super) repair: RepairSettings,
    pub(super) chores: ChoreSettings,
    pub(super) events: Events,
    pub(super) access_log: AccessLog,
    pub(super) emptying: Emptying,
    pub(super) traffic: Arc<Bound>,
    pub(super) index: Arc<dyn IndexStore>,
    pub(super) repairs: Queue,
    pub(super) pace: Pace,
    pub(super) audit: Audit,
    /// Accounts by canonical id, as far as they were asked for.
    pub(super) accounts: RwLock<HashMap<String, Account>>,
    sealing_key: SealingKey,
    data_keys: RwLock<HashMap<KeyId, Arc<DataKey>>>,
}

impl std::ops::Deref for Store {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// What went on, for metrics. All only rise.
#[derive(Debug, Default)]
pub struct Counters {
    /// Shards that did not fit their stripe.
    pub corrupt_shards: AtomicU64,
    /// Substitutes asked for because a home was slow.
    pub hedged_reads: AtomicU64,
    /// Segments written with fewer fragments than meant.
    pub reduced_segments: AtomicU64,
    /// Fragments deleted by collection.
    pub collected_fragments: AtomicU64,
    /// Their bytes.
    pub collected_bytes: AtomicU64,
    /// Objects and versions that lifecycle rules took away.
    pub expired_objects: AtomicU64,
    /// Uploads that lifecycle rules aborted.
    pub aborted_uploads: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Store {
    /// A store of these parts. Nothing runs by itself: see [`collect`](Self::collect).
    pub fn new(parts: StoreParts) -> Self {
        let StoreParts { ledger, net, view, fragments, index, sealing_key, collect, repair, chores, traffic } = parts;
        let traffic = Arc::new(Bound::new(traffic, local_minute));
        let in_flight = Arc::new(InFlight::default());
        let clock = ledger.clone();
        let repairs = Queue::new(Arc::clone(&index));
        let home =
            Home::new(fragments, Arc::clone(&index), in_flight.clone(), Arc::clone(&traffic), move || clock.now_ms());
        Self(Arc::new(Inner {
            me: view.me(),
            ledger,
            net,
            view,
            home,
            budget: Budget::default(),
            suspects: Suspects::default(),
            reports: Reports::default(),
            in_flight,
            collector: Collector::new(collect),
            counters: Counters::default(),
            repair,
            events: Events::new(chores.targets.clone()),
            index,
            access_log: AccessLog::default(),
            emptying: Emptying::default(),
            traffic,
            chores,
            repairs,
            pace: Pace::new(repair.bandwidth),
            audit: Audit::new(),
            accounts: RwLock::default(),
            sealing_key,
            data_keys: RwLock::default(),
        }))
    }

    /// What this peer does as a home: answers other peers' requests about fragments.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Notes that this peer serves a client now: what can wait goes slower meanwhile.
    pub fn touch(&self) {
        self.view.touch();
    }

    /// Whether objects of these storage classes have the same policy, so that they may share a body.
    pub fn codes_alike(&self, one: &Attributes, other: &Attributes) -> bool {
        let policy = |attributes: &Attributes| self.view.class_policy(attributes.storage_class.as_deref());
        policy(one) == policy(other)
    }

    /// The time by the ledger's clock, milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.ledger.now_ms()
    }

    /// Counts for metrics.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes of bodies that may still be buffered before requests are refused as [`ObjectError::Overloaded`].
    pub fn free_buffer_bytes(&self) -> u64 {
        self.budget.free_bytes()
    }

    /// Bytes of bodies that are buffered now.
    pub fn buffer_bytes(&self) -> u64 {
        self.budget.taken_bytes()
    }

    /// Approximate bytes of its index on disk.
    pub fn index_bytes(&self) -> u64 {
        self.index.size()
    }

    /// How its index copes with what is written.
    pub fn index_strain(&self) -> Strain {
        self.index.strain()
    }

    pub(super) fn sealing_key(&self) -> &SealingKey {
        &self.sealing_key
    }

    /// A new data key, sealed, as its register holds it.
    pub(super) fn new_data_key(&self, id: KeyId) -> Result<DataKeyRecord, ObjectError> {
        let mut bytes = Zeroizing::new([0; 32]);
        fill_random(bytes.as_mut_slice())?;
        Ok(DataKeyRecord { sealed: self.sealing_key.seal(&data_key_context(id), bytes.as_slice())? })
    }

    /// A bucket's data key. Its register is written once, so any copy of it is the right one.
    pub(super) async fn data_key(&self, id: KeyId) -> Result<Arc<DataKey>, ObjectError> {
        if let Some(opened) = self.data_keys.read().get(&id) {
            return Ok(opened.clone());
        }
        let register = key::data_key(id);
        let current = match self.ledger.peek(&register) {
            Some(current) => Some(current),
            None => self.ledger.read(&register).await?,
        };
        let current = current.ok_or_else(|| self.gone(&format!("data key {id}")))?;
        let record = DataKeyRecord::decode(&current.value)?;
        let opened = self.sealing_key.open(&data_key_context(id), &record.sealed)?;
        let bytes: [u8; 32] = opened
            .as_slice()
            .try_into()
            .map_err(|_| ObjectError::Internal(format!("data key {id} has not 32 bytes")))?;
        let opened = Arc::new(DataKey(Zeroizing::new(bytes)));
        let mut open = self.data_keys.write();
        if open.len() >= MAX_OPEN_DATA_KEYS {
            open.clear();
        }
        open.insert(id, opened.clone());
        Ok(opened)
    }

    /// Why a register is missing that another one names: deleted while a reader was at it, or, in a local pool, not here
    /// yet. Trying again finds out.
    pub(super) fn gone(&self, what: &str) -> ObjectError {
        if self.is_local() {
            return ObjectError::Unavailable(format!("{what} has not reached this peer yet"));
        }
        ObjectError::Unavailable(format!("{what} is gone"))
    }

    /// What a strong read of a register found or, where there is no majority and the pool's settings allow it, what this
    /// peer knows of it (`true`: stale). That it knows nothing tells nobody anything.
    pub(super) fn or_stale(
        &self,
        read: Result<Option<Current>, LedgerError>,
        register: &Bytes,
    ) -> Result<(Option<Current>, bool), ObjectError> {
        match read {
            Err(error @ LedgerError::NoQuorum { .. }) if self.reads_stale() => {
                Ok((Some(self.ledger.peek(register).ok_or(error)?), true))
            }
            other => Ok((other?, false)),
        }
    }

    /// The same of a page.
    pub(super) async fn scan_or_stale(&self, query: ScanQuery) -> Result<(Page, bool), ObjectError> {
        match self.ledger.scan(query.clone()).await {
            Err(LedgerError::NoQuorum { .. }) if self.reads_stale() => Ok((self.ledger.local_page(query).await?, true)),
            other => Ok((other?, false)),
        }
    }

    /// The same of objects that listings show.
    pub(super) async fn objects_or_stale(&self, query: ScanQuery) -> Result<(Page, bool), ObjectError> {
        match self.ledger.scan_objects(query.clone()).await {
            Err(LedgerError::NoQuorum { .. }) if self.reads_stale() => {
                Ok((self.ledger.local_objects(query).await?, true))
            }
            other => Ok((other?, false)),
        }
    }

    fn reads_stale(&self) -> bool {
        self.view.pool().is_some_and(|pool| pool.when_minority == WhenMinority::ReadStale)
    }

    /// Whether the pool answers from this peer's own copy ([`Consistency::Local`](palm_core::record::Consistency)).
    pub fn is_local(&self) -> bool {
        self.ledger.is_local()
    }

    /// Runs the rest of an operation to its end even when the client hangs up and its request is dropped:
    /// a write that may have been committed still has its follow-ups (the bucket check, the release of what it
    /// replaced).
    pub(super) async fn settle<T: Send + 'static>(
        work: impl Future<Output = Result<T, ObjectError>> + Send + 'static,
    ) -> Result<T, ObjectError> {
        tokio::spawn(work.in_current_span()).await?
    }
}

fn data_key_context(id: KeyId) -> String {
    format!("palm data key {id}")
}

/// A bucket's key in the clear. Zeroed on drop.
pub(super) struct DataKey(Zeroizing<[u8; 32]>);

impl DataKey {
    /// What seals a segment.
    pub(super) fn secret(&self, segment: SegmentId) -> SegmentSecret {
        SegmentSecret::derive(&self.0, segment)
    }
}

/// Random bytes for ids and keys.
pub(super) fn random<const N: usize>() -> Result<[u8; N], ObjectError> {
    let mut bytes = [0; N];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

/// The last byte of a body id tells multipart uploads from bodies uploaded whole, so that collection
/// asks for an upload register only where there can be one.
const UPLOAD_BIT: u8 = 1;

/// A new id for a body uploaded whole.
pub(super) fn new_body() -> Result<BodyId, ObjectError> {
    let mut bytes = random::<{ BodyId::LEN }>()?;
    bytes[BodyId::LEN - 1] &= !UPLOAD_BIT;
    Ok(BodyId::from_bytes(bytes))
}

/// A new multipart upload id: milliseconds first, so that the uploads of a key sort by when they began, as
/// `ListMultipartUploads` has them.
pub(super) fn new_upload(now_ms: u64) -> Result<BodyId, ObjectError> {
    let mut bytes = random::<{ BodyId::LEN }>()?;
    bytes[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
    bytes[BodyId::LEN - 1] |= UPLOAD_BIT;
    Ok(BodyId::from_bytes(bytes))
}

/// Whether a body is a multipart upload's.
pub(super) fn is_upload(body: BodyId) -> bool {
    body.as_bytes()[BodyId::LEN - 1] & UPLOAD_BIT != 0
}

/// The bodies being uploaded through this peer: while one is here, no home collects its fragments.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashMap<BodyId, usize>>);

impl InFlight {
    /// Notes a body until the guard is dropped. Several requests may upload parts of one body.
    pub(super) fn enter(self: &Arc<Self>, body: BodyId) -> InFlightGuard {
        *self.0.lock().entry(body).or_default() += 1;
        InFlightGuard { bodies: self.clone(), body }
    }

    /// Whether an upload of it is under way here.
    pub(super) fn contains(&self, body: BodyId) -> bool {
        self.0.lock().contains_key(&body)
    }
}

/// Keeps a body noted as being uploaded.
pub(super) struct InFlightGuard {
    bodies: Arc<InFlight>,
    body: BodyId,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut bodies = self.bodies.0.lock();
        if let Some(count) = bodies.get_mut(&self.body) {
            *count -= 1;
            if *count == 0 {
                bodies.remove(&self.body);
            }
        }
    }
}

/// Where an object is: names and register key.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) bucket: String,
    pub(super) register: Bytes,
}

impl At {
    pub(super) fn new(bucket: &str, key: &str) -> Self {
        Self { bucket: bucket.to_owned(), register: key::object(bucket, key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two parts of one upload end at different times. The body must count as in flight until the last has
    /// ended, or its fragments could be collected under the slower one.
    #[test]
    fn a_body_is_in_flight_until_its_last_request_ends() {
        let bodies = Arc::new(InFlight::default());
        let body = new_upload(7).unwrap();
        let first = bodies.enter(body);
        let second = bodies.enter(body);
        drop(first);
        assert!(bodies.contains(body));
        drop(second);
        assert!(!bodies.contains(body));
    }

    /// Collection asks for an upload register by the kind of body id alone, so a kind must never be mistaken;
    /// and uploads must sort by the time they began.
    #[test]
    fn body_ids_tell_their_kind_and_uploads_sort_by_time() {
        for now_ms in [0, 1_795_000_000_000, (1 << 48) - 1] {
            assert!(!is_upload(new_body().unwrap()));
            assert!(is_upload(new_upload(now_ms).unwrap()));
        }
        assert!(new_upload(1_795_000_000_000).unwrap() < new_upload(1_795_000_000_001).unwrap());
    }
}
