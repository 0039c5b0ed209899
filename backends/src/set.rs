//! The fragment stores of one peer.
//!
//! Each has a number that stays with its place: it is kept in the index, so that notes can say where a fragment is and
//! nothing changes when the settings are put in another order. One that fails takes no new fragments, says so, and is
//! tried again until it works; the others go on.
//!
//! | space | key | value |
//! | --- | --- | --- |
//! | [`Space::Meta`] | `backend/`, URL without its options | its number, u16 big-endian |

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::id::FragmentId;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::fragment::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};
use crate::index::{Durability, IndexStore, Next, Space, Write};
use crate::open::{self, OpenError};

/// Before the place in a key of the index.
const KEY: &[u8] = b"backend/";
/// How often each backend is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// With less room than this a backend is called full.
const FULL_BELOW_BYTES: u64 = 1 << 20;
/// What a backend that failed has to take before it is trusted again.
const TRIAL: &[u8] = b"palm: does this backend take writes again?";

/// How a backend is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendState {
    /// It takes fragments and gives them.
    Well,
    /// It gives fragments, and has no room for more.
    Full,
    /// It gives fragments, and takes no more since a write failed; why, in words.
    ReadOnly(String),
    /// Nothing can be had from it; why, in words.
    Failed(String),
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("well"),
            Self::Full => f.write_str("full"),
            Self::ReadOnly(reason) => write!(f, "{reason}; takes no more writes"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// All fragment stores of a peer. Their order is that of the settings and means nothing.
#[derive(Debug)]
pub struct Backends {
    all: Vec<Backend>,
    changes: Arc<watch::Sender<u64>>,
    /// Where the next fragment goes is drawn from these.
    draws: AtomicU64,
    hasher: RandomState,
}

impl Backends {
    /// One store, as number 0. It is not opened again when it fails.
    pub fn single(store: Arc<dyn FragmentStore>) -> Arc<Self> {
        Self::of([store])
    }

    /// These stores, numbered from 0. They are not opened again when they fail.
    pub fn of(stores: impl IntoIterator<Item = Arc<dyn FragmentStore>>) -> Arc<Self> {
        let changes = Arc::new(watch::Sender::new(0));
        let backend = |(number, store)| Backend::new(number, String::new(), None, Ok(store), &changes);
        let all = (0..).zip(stores).map(backend).collect();
        Arc::new(Self::with(all, changes))
    }

    fn with(all: Vec<Backend>, changes: Arc<watch::Sender<u64>>) -> Self {
        Self { all, changes, draws: AtomicU64::new(0), hasher: RandomState::new() }
    }

    /// Opens the stores at these URLs; their numbers are kept in the index. A place never seen before is made. One that
    /// was there at an earlier start and is not now (a disk that is not mounted) is never made anew: it counts as failed,
    /// and the peer goes on without it. What can only be a mistake in the settings stops the start. Blocks while logs are
    /// read.
    pub async fn open(urls: &[String], index: &dyn IndexStore) -> Result<Arc<Self>, OpenError> {
        let changes = Arc::new(watch::Sender::new(0));
        let mut known = known(index)?;
        let mut all: Vec<Backend> = Vec::new();
        for url in urls {
            let place = open::place(url);
            if all.iter().any(|backend| backend.place() == place) {
                return Err(OpenError::BadUrl { url: url.clone(), reason: "is named twice".into() });
            }
            let (number, store) = if let Some(&number) = known.get(place) {
                match open::known_fragments(url) {
                    Err(error @ (OpenError::Absent(_) | OpenError::Store(_))) => (number, Err(error.to_string())),
                    opened => (number, Ok(opened?)),
                }
            } else {
                let number = known.values().max().map_or(0, |last| last.saturating_add(1));
                let store = open::fragments(url)?;
                // Made first, noted then: what is noted must have been there.
                let key = [KEY, place.as_bytes()].concat().into();
                let value = Bytes::copy_from_slice(&number.to_be_bytes());
                index.commit(vec![Write::Put(Space::Meta, key, value)], Durability::Synced).await?;
                known.insert(place.to_owned(), number);
                (number, Ok(store))
            };
            all.push(Backend::new(number, place.to_owned(), Some(url.clone()), store, &changes));
        }
        Ok(Arc::new(Self::with(all, changes)))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Backend> {
        self.all.iter()
    }

    /// The only one, where there is one.
    pub fn only(&self) -> Option<&Backend> {
        match self.all.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The one with this number; `None` when the settings name it no more.
    pub fn get(&self, number: u16) -> Option<&Backend> {
        self.all.iter().find(|backend| backend.number() == number)
    }

    /// Makes the next read of each fragment come from the medium.
    pub fn forget_cached(&self) {
        self.all.iter().for_each(FragmentStore::forget_cached);
    }

    /// What those that can be asked hold together. An error when none can.
    pub async fn usage(&self) -> Result<Usage, StoreError> {
        let mut sum: Option<Usage> = None;
        let mut last = None;
        for backend in &self.all {
            match backend.usage().await {
                Ok(usage) => {
                    let sum = sum.get_or_insert_default();
                    sum.fragments += usage.fragments;
                    sum.bytes += usage.bytes;
                    // What a read-only backend has left is no use to anybody.
                    sum.free = sum.free.saturating_add(if backend.takes_writes() { usage.free } else { 0 });
                }
                Err(error) => last = Some(error),
            }
        }
        match (sum, last) {
            (Some(sum), _) => Ok(sum),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(Usage::default()),
        }
    }

    /// Those that take writes, in the order to try them for one fragment of up to `len` bytes. `held` says how many
    /// fragments of its segment each holds: of those with room the fewest first, so that a disk takes few of them with it.
    /// Among equals it is drawn by the room they have, so that all fill up together and none gets all the work.
    pub async fn for_writing(&self, len: u64, held: &BTreeMap<u16, u32>) -> Vec<Backend> {
        if let Some(only) = self.only() {
            return if only.takes_writes() { vec![only.clone()] } else { Vec::new() };
        }
        let mut drawn = Vec::with_capacity(self.all.len());
        for backend in self.all.iter().filter(|backend| backend.takes_writes()) {
            let Ok(Usage { free, .. }) = backend.usage().await else { continue };
            let draw = self.hasher.hash_one((self.draws.fetch_add(1, Ordering::Relaxed), backend.number()));
            // Of u^(1/weight) the largest wins in proportion to its weight (Efraimidis, Spirakis 2006); here -ln of it.
            let key = -((draw as f64 + 1.0) / (u64::MAX as f64 + 2.0)).ln() / (free as f64 + 1.0);
            let held = held.get(&backend.number()).copied().unwrap_or(0);
            drawn.push((free < len, held, key, backend.clone()));
        }
        drawn.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)));
        drawn.into_iter().map(|(.., backend)| backend).collect()
    }

    /// Tells each time that a backend fails or works again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Keeps looking at all of them, for as long as it is polled.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look().await;
        }
    }

    /// Looks at all of them now: notices what is gone, and tries again what failed.
    pub async fn look(&self) {
        for backend in &self.all {
            backend.look().await;
        }
    }
}

/// Every backend of an earlier start: its place, and its number.
fn known(index: &dyn IndexStore) -> Result<BTreeMap<String, u16>, StoreError> {
    let (mut known, mut is_wrong) = (BTreeMap::new(), false);
    index.scan(Space::Meta, KEY, &mut |key, value| {
        let Some(place) = key.strip_prefix(KEY) else { return Next::Stop };
        if let (Ok(place), Ok(number)) = (std::str::from_utf8(place), value.try_into()) {
            known.insert(place.to_owned(), u16::from_be_bytes(number));
            return Next::Continue;
        }
        is_wrong = true;
        Next::Stop
    })?;
    if is_wrong { Err(StoreError::Corrupt("number of a backend".into())) } else { Ok(known) }
}

/// One fragment store of a peer, and how it is. Cheap to clone.
///
/// A [`FragmentStore`] itself, over the one at its place: it watches how that one's writes go, and opens it again after
/// it failed.
#[derive(Debug, Clone)]
pub struct Backend(Arc<Inner>);

struct Inner {
    number: u16,
    place: String,
    /// To open it again.
    url: Option<String>,
    slot: RwLock<Slot>,
    changes: Arc<watch::Sender<u64>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("number", &self.number).field("place", &self.place).finish_non_exhaustive()
    }
}

struct Slot {
    /// `None`: failed.
    store: Option<Arc<dyn FragmentStore>>,
    /// Why it takes no writes; `None`: it does.
    ill: Option<String>,
    /// Whether it had no room when it was last looked at.
    full: bool,
}

impl Backend {
    fn new(
        number: u16,
        place: String,
        url: Option<String>,
        store: Result<Arc<dyn FragmentStore>, String>,
        changes: &Arc<watch::Sender<u64>>,
    ) -> Self {
        let (store, ill) = match store {
            Ok(store) => (Some(store), None),
            Err(reason) => {
                warn!(backend = %place, reason, "backend failed; going on without it");
                (None, Some(reason))
            }
        };
        let slot = RwLock::new(Slot { store, ill, full: false });
        Self(Arc::new(Inner { number, place, url, slot, changes: Arc::clone(changes) }))
    }

    /// Its number in the notes.
    pub fn number(&self) -> u16 {
        self.0.number
    }

    /// Its URL without options, for people.
    pub fn place(&self) -> &str {
        &self.0.place
    }

    /// Whether it may be given fragments, room aside.
    pub fn takes_writes(&self) -> bool {
        self.0.slot.read().ill.is_none()
    }

    /// How it is.
    pub async fn state(&self) -> BackendState {
        let full = self.usage().await.is_ok_and(|usage| usage.free < FULL_BELOW_BYTES);
        if self.takes_writes() {
            self.tell_room(full);
        }
        let slot = self.0.slot.read();
        match (&slot.store, &slot.ill) {
            (None, ill) => BackendState::Failed(ill.clone().unwrap_or_default()),
            (Some(_), Some(ill)) => BackendState::ReadOnly(ill.clone()),
            (Some(_), None) if full => BackendState::Full,
            (Some(_), None) => BackendState::Well,
        }
    }

    fn store(&self) -> Result<Arc<dyn FragmentStore>, StoreError> {
        let slot = self.0.slot.read();
        slot.store.clone().ok_or_else(|| StoreError::Gone(slot.ill.clone().unwrap_or_default()))
    }

    /// Draws the conclusion from how a write went.
    fn wrote<T>(&self, written: Result<T, StoreError>) -> Result<T, StoreError> {
        match &written {
            Err(error @ (StoreError::Io(_) | StoreError::Poisoned(_) | StoreError::Corrupt(_))) => {
                self.fall_ill(error.to_string());
                written
            }
            _ => self.seen(written),
        }
    }

    /// Draws the conclusion from how anything else went: one bad sector condemns no disk, a directory that is gone does.
    fn seen<T>(&self, seen: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Gone(_)) = &seen {
            self.fail(error.to_string());
        }
        seen
    }

    fn fall_ill(&self, reason: String) {
        let mut slot = self.0.slot.write();
        if slot.ill.is_none() {
            warn!(backend = %self.0.place, reason, "backend takes no more writes");
            slot.ill = Some(reason);
            self.0.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// Lets go of the store.
    fn fail(&self, reason: String) {
        let mut slot = self.0.slot.write();
        if let Some(store) = slot.store.take() {
            warn!(backend = %self.0.place, reason, "backend failed; going on without it");
            slot.ill = Some(reason);
            self.0.changes.send_modify(|changes| *changes += 1);
            // Closing a database waits for its threads.
            spawn_blocking(move || drop(store));
        }
    }

    async fn look(&self) {
        let store = self.0.slot.read().store.clone();
        let Some(store) = store else { return self.reopen().await };
        if self.takes_writes() {
            // Notices, and says, what is gone.
            let usage = self.seen(store.usage().await);
            self.tell_room(usage.is_ok_and(|usage| usage.free < FULL_BELOW_BYTES));
        } else if self.seen(trial(&*store).await).is_ok() {
            self.recover(store);
        } else if self.writable().await {
            // The disk takes writes and the store does not: after a failed sync only opening it again reads the truth.
            self.0.slot.write().store = None;
            let _closed = spawn_blocking(move || drop(store)).await;
            self.reopen().await;
        }
    }

    /// Says once that it is full, and once that it is not any more.
    fn tell_room(&self, full: bool) {
        let before = std::mem::replace(&mut self.0.slot.write().full, full);
        match (before, full) {
            (false, true) => warn!(backend = %self.0.place, "backend is full; fragments go elsewhere"),
            (true, false) => info!(backend = %self.0.place, "backend has room again"),
            _ => {}
        }
    }

    /// Whether its place takes writes, the store aside.
    async fn writable(&self) -> bool {
        let Some(url) = self.0.url.clone() else { return false };
        spawn_blocking(move || open::takes_writes(&url)).await.unwrap_or(false)
    }

    async fn reopen(&self) {
        let Some(url) = self.0.url.clone() else { return };
        let opened = match spawn_blocking(move || open::known_fragments(&url)).await {
            Ok(Ok(store)) => trial(&*store).await.map(|()| store).map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match opened {
            Ok(store) => self.recover(store),
            Err(reason) => self.0.slot.write().ill = Some(reason),
        }
    }

    fn recover(&self, store: Arc<dyn FragmentStore>) {
        info!(backend = %self.0.place, "backend works again");
        *self.0.slot.write() = Slot { store: Some(store), ill: None, full: false };
        self.0.changes.send_modify(|changes| *changes += 1);
    }
}

/// Whether a store takes a fragment, and lets go of it.
async fn trial(store: &dyn FragmentStore) -> Result<(), StoreError> {
    let stat = store.put(Bytes::from_static(TRIAL)).await?;
    store.delete(stat.id).await.map(drop)
}

#[async_trait]
impl FragmentStore for Backend {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        let writer = self.wrote(self.store()?.writer(len).await)?;
        Ok(Box::new(Watched { backend: self.clone(), writer }))
    }

    async fn put(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        self.wrote(self.store()?.put(bytes).await)
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        self.seen(self.store()?.open(id).await)
    }

    async fn get(&self, id: FragmentId) -> Result<Bytes, StoreError> {
        self.seen(self.store()?.get(id).await)
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        self.seen(self.store()?.stat(id).await)
    }

    async fn stats(&self, ids: Vec<FragmentId>) -> Result<Vec<Option<FragmentStat>>, StoreError> {
        self.seen(self.store()?.stats(ids).await)
    }

    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        self.wrote(self.store()?.delete(id).await)
    }

    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        self.seen(self.store()?.list(after, limit).await)
    }

    fn forget_cached(&self) {
        if let Ok(store) = self.store() {
            store.forget_cached();
        }
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.seen(self.store()?.usage().await)
    }
}

/// A writer whose backend learns how it goes.
struct Watched {
    backend: Backend,
    writer: Box<dyn FragmentWriter>,
}

#[async_trait]
impl FragmentWriter for Watched {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let written = self.writer.write(bytes).await;
        self.backend.wrote(written)
    }

    async fn finish(self: Box<Self>) -> Result<FragmentStat, StoreError> {
        self.backend.wrote(self.writer.finish().await)
    }
}

#[cfg(test)]
mod tests;
