//! One backend: how it is, and what it does when it is not well.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::id::FragmentId;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::owner;
use crate::decorate::{Metered, Meters};
use crate::fragment::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};
use crate::open::{self, OpenError};

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

/// One fragment store of a peer, and how it is. Cheap to clone.
///
/// A [`FragmentStore`] itself, over the one at its place: it watches how that one's writes go, and opens it again after
/// it failed.
#[derive(Debug, Clone)]
pub struct Backend(Arc<Inner>);

struct Inner {
    number: u16,
    place: String,
    /// What it fails together with, where its URL says so.
    domain: Option<String>,
    /// To open it again.
    source: Option<Source>,
    slot: RwLock<Slot>,
    /// Writes under way.
    writers: AtomicUsize,
    meters: Arc<Meters>,
    changes: Arc<watch::Sender<u64>>,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// With its options.
    pub(super) url: String,
    /// Whose its directory has to be.
    pub(super) owner: String,
}

impl Source {
    /// Opens the store, and makes it where it need not exist. Blocks while a log is read.
    pub(super) fn open(&self, must_exist: bool) -> Result<Arc<dyn FragmentStore>, OpenError> {
        owner::is(&self.url, &self.owner)?;
        let store = if must_exist { open::known_fragments(&self.url) } else { open::fragments(&self.url) }?;
        // It is locked now.
        owner::claim(&self.url, &self.owner)?;
        Ok(store)
    }

    /// Opens a store for a peer that runs. One that holds fragments and does not say whose they are is refused: they may be
    /// another peer's, of a time when none said so.
    pub(super) async fn open_new(&self, must_exist: bool) -> Result<Arc<dyn FragmentStore>, OpenError> {
        let source = self.clone();
        let opened = spawn_blocking(move || {
            let is_own = owner::is(&source.url, &source.owner)?;
            let store = if must_exist { open::known_fragments(&source.url) } else { open::fragments(&source.url) }?;
            Ok((store, is_own || must_exist))
        });
        let (store, is_own) = opened.await.map_err(std::io::Error::other).map_err(OpenError::from).flatten()?;
        match open::own_directory(&self.url) {
            Some(dir) if !is_own && store.usage().await?.fragments > 0 => return Err(OpenError::Strange(dir)),
            _ => owner::claim(&self.url, &self.owner)?,
        }
        Ok(store)
    }
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
    /// It is to be removed: it takes no more.
    leaving: bool,
    /// It was removed: it is not opened again.
    removed: bool,
}

impl Backend {
    pub(super) fn new(
        number: u16,
        place: String,
        source: Option<Source>,
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
        let domain = source.as_ref().and_then(|source| open::domain(&source.url)).map(str::to_owned);
        let (writers, meters, changes) = (AtomicUsize::new(0), Arc::<Meters>::default(), Arc::clone(changes));
        let store = store.map(|store| metered(store, &meters));
        let slot = RwLock::new(Slot { store, ill, full: false, leaving: false, removed: false });
        Self(Arc::new(Inner { number, place, domain, source, slot, writers, meters, changes }))
    }

    /// Its number in the notes.
    pub fn number(&self) -> u16 {
        self.0.number
    }

    /// Its URL without options, for people ([`open::place()`]).
    pub fn place(&self) -> &str {
        &self.0.place
    }

    /// What it fails together with, where its URL says so; otherwise it is in its peer's domain.
    pub fn domain(&self) -> Option<&str> {
        self.0.domain.as_deref()
    }

    /// Whether both fail together: they are one, or of one domain.
    pub(super) fn fails_with(&self, other: &Self) -> bool {
        self.number() == other.number() || self.domain().is_some() && self.domain() == other.domain()
    }

    /// What it was asked since this peer started, and how it answered.
    pub fn meters(&self) -> &Meters {
        &self.0.meters
    }

    /// Whether it may be given fragments, room aside.
    pub fn takes_writes(&self) -> bool {
        let slot = self.0.slot.read();
        slot.ill.is_none() && !slot.leaving
    }

    /// Whether it is to be removed: it gives fragments and takes none.
    pub fn is_leaving(&self) -> bool {
        self.0.slot.read().leaving
    }

    pub(super) fn set_leaving(&self, leaving: bool) {
        self.0.slot.write().leaving = leaving;
    }

    /// Writes under way. None begins while it [leaves](Self::is_leaving): a listing made after this was 0 then is whole.
    pub fn writers(&self) -> usize {
        self.0.writers.load(Ordering::SeqCst)
    }

    /// Lets a write in, and counts it until it has ended: nobody takes the store away meanwhile.
    fn admit(&self) -> Result<Admitted, StoreError> {
        let slot = self.0.slot.read();
        if slot.leaving {
            return Err(StoreError::Full);
        }
        // Under the lock: whoever sets `leaving` waits for it, and sees the count then.
        self.0.writers.fetch_add(1, Ordering::SeqCst);
        Ok(Admitted(self.clone()))
    }

    /// Says of its place that it is nobody's.
    pub(super) async fn release(&self) -> std::io::Result<()> {
        let Some(source) = self.0.source.clone() else { return Ok(()) };
        spawn_blocking(move || owner::release(&source.url)).await.map_err(std::io::Error::other).flatten()
    }

    /// Takes away what a place that is no directory of this machine says of itself: anybody may have it.
    pub(super) async fn give_up(&self) -> Result<(), OpenError> {
        match &self.0.source {
            Some(source) => open::give_up(&source.url).await,
            None => Ok(()),
        }
    }

    /// Lets go of the store for good.
    pub(super) fn close(&self) {
        let mut slot = self.0.slot.write();
        (slot.ill, slot.removed) = (Some("removed".to_owned()), true);
        let store = slot.store.take();
        // Closing a database waits for its threads.
        spawn_blocking(move || drop(store));
    }

    /// How it is.
    pub async fn state(&self) -> BackendState {
        let full = self.usage().await.is_ok_and(|usage| usage.free < FULL_BELOW_BYTES);
        if self.is_sound() {
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

    fn is_sound(&self) -> bool {
        self.0.slot.read().ill.is_none()
    }

    pub(super) async fn look(&self) {
        let store = self.0.slot.read().store.clone();
        let Some(store) = store else { return self.reopen().await };
        if self.is_sound() {
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
        let Some(source) = self.0.source.clone() else { return false };
        spawn_blocking(move || open::takes_writes(&source.url)).await.unwrap_or(false)
    }

    async fn reopen(&self) {
        let Some(source) = self.0.source.clone().filter(|_| !self.0.slot.read().removed) else { return };
        let opened = match spawn_blocking(move || source.open(true)).await {
            Ok(Ok(store)) => trial(&*store).await.map(|()| store).map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match opened {
            Ok(store) => self.recover(metered(store, &self.0.meters)),
            Err(reason) => self.0.slot.write().ill = Some(reason),
        }
    }

    fn recover(&self, store: Arc<dyn FragmentStore>) {
        let mut slot = self.0.slot.write();
        if slot.removed {
            return;
        }
        info!(backend = %self.0.place, "backend works again");
        (slot.store, slot.ill, slot.full) = (Some(store), None, false);
        drop(slot);
        self.0.changes.send_modify(|changes| *changes += 1);
    }
}

/// Whether a store takes a fragment, and lets go of it.
pub(super) async fn trial(store: &dyn FragmentStore) -> Result<(), StoreError> {
    let stat = store.put(Bytes::from_static(TRIAL)).await?;
    store.delete(stat.id).await.map(drop)
}

#[async_trait]
impl FragmentStore for Backend {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        let admitted = self.admit()?;
        let writer = self.wrote(self.store()?.writer(len).await)?;
        Ok(Box::new(Watched { admitted, writer }))
    }

    async fn put(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        let _admitted = self.admit()?;
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

fn metered(store: Arc<dyn FragmentStore>, meters: &Arc<Meters>) -> Arc<dyn FragmentStore> {
    Arc::new(Metered::with(store, Arc::clone(meters)))
}

/// A write under way.
struct Admitted(Backend);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.0.writers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A writer whose backend learns how it goes.
struct Watched {
    admitted: Admitted,
    writer: Box<dyn FragmentWriter>,
}

#[async_trait]
impl FragmentWriter for Watched {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let written = self.writer.write(bytes).await;
        self.admitted.0.wrote(written)
    }

    async fn finish(self: Box<Self>) -> Result<FragmentStat, StoreError> {
        self.admitted.0.wrote(self.writer.finish().await)
    }
}
