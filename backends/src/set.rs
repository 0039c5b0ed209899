//! The fragment stores of one peer, which come and go while it runs.
//!
//! Each has a number that stays with its place ([`places`]), so that notes can say where a fragment is and nothing changes when
//! the settings are put in another order. One that fails takes no new fragments, says so, and is tried again until it
//! works; the others go on. One that is added takes fragments at once. One that is to be removed takes none from then on, is
//! emptied by who knows what its fragments are, and is detached when it is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use crate::fragment::{FragmentStore, StoreError, Usage};
use crate::index::{Durability, IndexStore};
use crate::open::{self, OpenError};

mod backend;
mod owner;
mod places;

use backend::Source;
pub use backend::{Backend, BackendState};

/// How often each backend is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A peer has no more.
const MAX_BACKENDS: usize = 256;

/// Why a backend was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Its fragments would have nowhere to go.
    #[error("it is the only backend of this peer that stays: add another one first, or `palm drain` the peer")]
    Last,
    /// It was not opened from settings, or is gone.
    #[error("it is no backend that can be removed")]
    Fixed,
    /// The index failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All fragment stores of a peer. Their order means nothing.
#[derive(Debug)]
pub struct Backends {
    all: RwLock<Arc<[Backend]>>,
    changes: Arc<watch::Sender<u64>>,
    /// Where the next fragment goes is drawn from these.
    draws: AtomicU64,
    hasher: RandomState,
    keeper: Option<Keeper>,
}

/// What those need that come and go.
struct Keeper {
    index: Arc<dyn IndexStore>,
    /// This peer.
    owner: String,
    /// One comes or goes at a time.
    changing: Mutex<()>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Backends {
    /// One store, as number 0. It is not opened again when it fails.
    pub fn single(store: Arc<dyn FragmentStore>) -> Arc<Self> {
        Self::of([store])
    }

    /// These stores, numbered from 0. They are not opened again when they fail, and none comes or goes.
    pub fn of(stores: impl IntoIterator<Item = Arc<dyn FragmentStore>>) -> Arc<Self> {
        let changes = Arc::new(watch::Sender::new(0));
        let backend = |(number, store)| Backend::new(number, String::new(), None, Ok(store), &changes);
        let all = (0..).zip(stores).map(backend).collect();
        Arc::new(Self::with(all, changes, None))
    }

    fn with(all: Vec<Backend>, changes: Arc<watch::Sender<u64>>, keeper: Option<Keeper>) -> Self {
        let (draws, hasher) = (AtomicU64::new(0), RandomState::new());
        Self { all: RwLock::new(all.into()), changes, draws, hasher, keeper }
    }

    /// Opens the stores at these URLs, but for those that were removed, and those that were added while an earlier run went on;
    /// what is known of them is kept in the index. A place never seen before is made. One that
    /// was there at an earlier start and is not now (a disk that is not mounted) is never made anew: it counts as failed,
    /// and the peer goes on without it. What can only be a mistake in the settings stops the start. Directories are marked as
    /// `owner`'s, and those of others refused. Blocks while logs are read.
    pub async fn open(urls: &[String], index: Arc<dyn IndexStore>, owner: &str) -> Result<Arc<Self>, OpenError> {
        let changes = Arc::new(watch::Sender::new(0));
        let mut known = places::load(&*index)?;
        let moved = places::move_programs(&mut known, urls);
        if !moved.is_empty() {
            index.commit(moved, Durability::Synced).await?;
        }
        let mut all: Vec<Backend> = Vec::new();
        let added: Vec<String> = known.values().filter_map(|place| place.url.clone()).collect();
        let named = |all: &[Backend], place: &str| all.iter().any(|backend| backend.place() == place);
        for (at, url) in urls.iter().chain(&added).enumerate() {
            let place = &*open::place(url);
            if named(&all, place) {
                if at >= urls.len() {
                    // The settings name it too by now, and theirs are the options.
                    continue;
                }
                return Err(OpenError::BadUrl { url: url.clone(), reason: "is named twice".into() });
            }
            let source = Source { url: url.clone(), owner: owner.to_owned() };
            let (number, store) = match known.get(place) {
                Some(found) if found.is_removed => {
                    warn!(
                        backend = place,
                        "the settings name a backend that was removed: it is not used; `palm backend add` takes it back"
                    );
                    continue;
                }
                Some(found) => match source.open(true) {
                    Err(error @ (OpenError::Absent(_) | OpenError::Store(_))) => (found.number, Err(error.to_string())),
                    opened => (found.number, Ok(opened?)),
                },
                None => {
                    let number = places::next_number(&known).ok_or_else(|| full(url))?;
                    // Made first, noted then: what is noted must have been there.
                    let store = source.open(false)?;
                    index.commit(places::used(place, number, None), Durability::Synced).await?;
                    let (url, is_leaving, is_removed) = (None, false, false);
                    known.insert(place.to_owned(), places::Place { number, url, is_leaving, is_removed });
                    (number, Ok(store))
                }
            };
            let backend = Backend::new(number, place.to_owned(), Some(source), store, &changes);
            backend.set_leaving(known.get(place).is_some_and(|found| found.is_leaving));
            all.push(backend);
        }
        let keeper = Keeper { index, owner: owner.to_owned(), changing: Mutex::new(()) };
        Ok(Arc::new(Self::with(all, changes, Some(keeper))))
    }

    /// Those of these URLs that were opened at an earlier start.
    pub fn known(urls: Vec<String>, index: &dyn IndexStore) -> Result<Vec<String>, StoreError> {
        let mut known = places::load(index)?;
        places::move_programs(&mut known, &urls);
        Ok(urls.into_iter().filter(|url| known.contains_key(&*open::place(url))).collect())
    }

    /// Adds the store at a URL, which is made where there is none; it takes fragments at once, and is there at the next start
    /// too. Nothing is added when it does not take a fragment on trial.
    pub async fn add(&self, url: &str) -> Result<Backend, OpenError> {
        let bad = |reason: String| OpenError::BadUrl { url: url.to_owned(), reason };
        let Some(keeper) = &self.keeper else { return Err(bad("this peer's backends are fixed".into())) };
        let _changing = keeper.changing.lock().await;
        let place = &*open::place(url);
        if let Some(there) = self.iter().find(|backend| backend.place() == place) {
            let number = there.number();
            return Err(bad(if there.is_leaving() {
                format!("is being removed; `palm backend remove {number} --undo` keeps it")
            } else {
                format!("is backend {number} of this peer already")
            }));
        }
        if self.iter().len() >= MAX_BACKENDS {
            return Err(full(url));
        }
        let known = places::load(&*keeper.index)?;
        let former = known.get(place);
        let next = || places::next_number(&known);
        let number = former.map(|former| former.number).or_else(next).ok_or_else(|| full(url))?;
        // One that was here before and never removed must not be made anew because its disk is not mounted.
        let must_exist = former.is_some_and(|former| !former.is_removed);
        let source = Source { url: url.to_owned(), owner: keeper.owner.clone() };
        let store = source.open_new(must_exist).await?;
        backend::trial(&*store).await?;
        keeper.index.commit(places::used(place, number, Some(url)), Durability::Synced).await?;
        let backend = Backend::new(number, place.to_owned(), Some(source), Ok(store), &self.changes);
        self.change(|all| all.push(backend.clone()));
        info!(backend = place, number, "backend added");
        Ok(backend)
    }

    /// Has a backend take no more fragments, so that it can be emptied, now and after a restart.
    pub async fn leave(&self, backend: &Backend) -> Result<(), RemoveError> {
        let keeper = self.keeper.as_ref().ok_or(RemoveError::Fixed)?;
        let _changing = keeper.changing.lock().await;
        if !self.iter().any(|other| other.number() != backend.number() && !other.is_leaving()) {
            return Err(RemoveError::Last);
        }
        self.set_leaving(keeper, backend, true).await
    }

    /// Has a backend that was to be removed take fragments again.
    pub async fn stay(&self, backend: &Backend) -> Result<(), RemoveError> {
        let keeper = self.keeper.as_ref().ok_or(RemoveError::Fixed)?;
        let _changing = keeper.changing.lock().await;
        self.set_leaving(keeper, backend, false).await
    }

    async fn set_leaving(&self, keeper: &Keeper, backend: &Backend, is_leaving: bool) -> Result<(), RemoveError> {
        // It may have been detached while this waited.
        if self.get(backend.number()).is_none() {
            return Err(RemoveError::Fixed);
        }
        keeper.index.commit(places::leaving(backend.place(), is_leaving), Durability::Synced).await?;
        backend.set_leaving(is_leaving);
        info!(backend = backend.place(), is_leaving, "whether a backend is to be removed changed");
        self.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// Takes a backend off that was to leave and is empty; whether it was. Its place is nobody's then.
    pub async fn detach(&self, backend: &Backend) -> Result<bool, RemoveError> {
        let keeper = self.keeper.as_ref().ok_or(RemoveError::Fixed)?;
        let _changing = keeper.changing.lock().await;
        if !backend.is_leaving() || backend.writers() > 0 || !backend.list(None, 1).await?.is_empty() {
            return Ok(false);
        }
        // In this order: after a crash in between it is still known, and is claimed and detached again.
        backend.release().await.map_err(StoreError::from)?;
        self.forget(keeper, backend).await?;
        // Not before: what is known and has no mark counts as a place that is away. After a crash in between the mark stays, and
        // takes `adopt=true`.
        if let Err(error) = backend.give_up().await {
            warn!(backend = backend.place(), %error, "the mark of a backend that is removed stays: others need adopt=true");
        }
        info!(backend = backend.place(), "backend removed");
        Ok(true)
    }

    /// Takes a backend off as it is, with all it has. Its place stays this peer's, which can add it again.
    pub async fn abandon(&self, backend: &Backend) -> Result<(), RemoveError> {
        let keeper = self.keeper.as_ref().ok_or(RemoveError::Fixed)?;
        let _changing = keeper.changing.lock().await;
        if !self.iter().any(|other| other.number() != backend.number() && !other.is_leaving()) {
            return Err(RemoveError::Last);
        }
        backend.set_leaving(true);
        self.forget(keeper, backend).await?;
        warn!(backend = backend.place(), "backend removed with what it had");
        Ok(())
    }

    async fn forget(&self, keeper: &Keeper, backend: &Backend) -> Result<(), StoreError> {
        keeper.index.commit(places::removed(backend.place()), Durability::Synced).await?;
        self.change(|all| all.retain(|other| other.number() != backend.number()));
        backend.close();
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Backend>)) {
        let mut all = self.all.write();
        let mut next = all.to_vec();
        change(&mut next);
        *all = next.into();
        drop(all);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// All of them, as they are now.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Backend> + use<> {
        self.all.read().to_vec().into_iter()
    }

    /// The only one, where there is one.
    pub fn only(&self) -> Option<Backend> {
        match &**self.all.read() {
            [only] => Some(only.clone()),
            _ => None,
        }
    }

    /// The one with this number; `None` when it is there no more.
    pub fn get(&self, number: u16) -> Option<Backend> {
        self.all.read().iter().find(|backend| backend.number() == number).cloned()
    }

    /// Makes the next read of each fragment come from the medium.
    pub fn forget_cached(&self) {
        self.iter().for_each(|backend| backend.forget_cached());
    }

    /// What those that can be asked hold together. An error when none can.
    pub async fn usage(&self) -> Result<Usage, StoreError> {
        let mut sum: Option<Usage> = None;
        let mut last = None;
        for backend in self.iter() {
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

    /// How many of those that take writes fail apart: those of one domain count once.
    pub fn writable_apart(&self) -> usize {
        let writable: Vec<Backend> = self.iter().filter(Backend::takes_writes).collect();
        let is_first = |at: &usize| !writable[..*at].iter().any(|other| other.fails_with(&writable[*at]));
        (0..writable.len()).filter(is_first).count()
    }

    /// The domains that they name.
    pub fn domains(&self) -> BTreeSet<String> {
        self.iter().filter_map(|backend| backend.domain().map(str::to_owned)).collect()
    }

    /// Those that take writes, in the order to try them for one fragment of up to `len` bytes. `held` says how many
    /// fragments of its segment each holds: of those with room the fewest first, in what fails together and then on the disk
    /// itself, so that a failure takes few of them with it. Among equals it is drawn by the room they have, so that all fill up
    /// together and none gets all the work.
    pub async fn for_writing(&self, len: u64, held: &BTreeMap<u16, u32>) -> Vec<Backend> {
        if let Some(only) = self.only() {
            return if only.takes_writes() { vec![only] } else { Vec::new() };
        }
        let all: Vec<Backend> = self.iter().collect();
        let held_by = |backend: &Backend| held.get(&backend.number()).copied().unwrap_or(0);
        let mut drawn = Vec::new();
        for backend in all.iter().filter(|backend| backend.takes_writes()) {
            let Ok(Usage { free, .. }) = backend.usage().await else { continue };
            let draw = self.hasher.hash_one((self.draws.fetch_add(1, Ordering::Relaxed), backend.number()));
            // Of u^(1/weight) the largest wins in proportion to its weight (Efraimidis, Spirakis 2006); here -ln of it.
            let key = -((draw as f64 + 1.0) / (u64::MAX as f64 + 2.0)).ln() / (free as f64 + 1.0);
            let together: u32 = all.iter().filter(|other| other.fails_with(backend)).map(held_by).sum();
            drawn.push(((free < len, together, held_by(backend)), key, backend));
        }
        drawn.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        drawn.into_iter().map(|(.., backend)| backend.clone()).collect()
    }

    /// Tells each time that a backend fails or works again, comes or goes.
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
        for backend in self.iter() {
            backend.look().await;
        }
    }
}

/// There is no number for one more.
fn full(url: &str) -> OpenError {
    OpenError::BadUrl { url: url.to_owned(), reason: format!("a peer has {MAX_BACKENDS} backends at most") }
}

#[cfg(test)]
mod tests;
