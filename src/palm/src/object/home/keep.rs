//! Storing fragments and reading them, on one backend or several.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use palm_backends::{Backend, FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError};
use palm_core::id::{BodyId, FragmentId, PeerId, SegmentId};
use palm_core::wire::{FragmentOrigin, MAX_SMALL_FRAGMENT_BYTES, Response};
use tokio::sync::Mutex;
use tracing::debug;

use super::{Home, MAX_FRAGMENT_BYTES, malformed, refused};
use crate::blocking::spawn_blocking;

/// Segments remembered of which a fragment was stored lately.
const MAX_RECENT: usize = 1024;
/// Notes of a body looked at for the fragments of one segment: those of a longer body may share a disk where they come
/// long after each other.
const MAX_LOOKED: usize = 1024;

/// Which backends were given fragments of which segments lately: those of one segment come at about the same time, before
/// the first of them is noted.
#[derive(Default)]
pub(super) struct Spread(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    held: HashMap<SegmentId, BTreeMap<u16, u32>>,
    order: VecDeque<SegmentId>,
}

impl Home {
    /// Stores a fragment that is in memory, on the first backend that takes it.
    pub(in crate::object) async fn put(
        &self,
        writer: PeerId,
        origin: &FragmentOrigin,
        bytes: Bytes,
    ) -> Result<FragmentStat, StoreError> {
        let begun = self.begun();
        let mut failed = none_takes_writes();
        for backend in self.writable(origin, bytes.len() as u64).await {
            match backend.put(bytes.clone()).await {
                Ok(stat) => {
                    self.note(begun, backend.number(), writer, origin, stat).await?;
                    return Ok(stat);
                }
                Err(error) => {
                    debug!(backend = %backend.place(), %error, "backend does not take a fragment; the next one is tried");
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    /// Begins to store a fragment.
    pub(in crate::object) async fn begin(
        &self,
        writer: PeerId,
        origin: FragmentOrigin,
    ) -> Result<HomeUpload, StoreError> {
        let mut failed = none_takes_writes();
        for backend in self.writable(&origin, MAX_FRAGMENT_BYTES).await {
            match backend.writer(None).await {
                Ok(fragment) => {
                    let backend = backend.number();
                    return Ok(HomeUpload { home: self.clone(), fragment, backend, writer, origin, len: 0 });
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// The whole of a small fragment.
    pub(in crate::object) async fn get(&self, id: FragmentId) -> Result<Bytes, StoreError> {
        self.0.served.fetch_add(1, Ordering::Relaxed);
        let mut failed = StoreError::NotFound(id);
        for backend in self.readable(id) {
            match backend.get(id).await {
                Err(error) => failed = telling(failed, error),
                found => return found,
            }
        }
        Err(failed)
    }

    /// Opens a fragment.
    pub(in crate::object) async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        self.0.served.fetch_add(1, Ordering::Relaxed);
        self.open_quietly(id).await
    }

    /// Opens a fragment for this home itself.
    pub(super) async fn open_quietly(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        let mut failed = StoreError::NotFound(id);
        for backend in self.readable(id) {
            match backend.open(id).await {
                Err(error) => failed = telling(failed, error),
                found => return found,
            }
        }
        Err(failed)
    }

    /// A fragment's length; `None` when no backend in reach has it.
    pub(super) async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        let mut failed = None;
        for backend in self.readable(id) {
            match backend.stat(id).await {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    pub(super) async fn get_small(&self, id: FragmentId) -> Response {
        match self.get(id).await {
            Ok(bytes) if bytes.len() <= MAX_SMALL_FRAGMENT_BYTES => Response::Small(bytes),
            Ok(_) => malformed("not a small fragment"),
            Err(error) => refused(&error),
        }
    }

    /// Backends to look for a fragment in: the noted one first. A single one needs no look at the note.
    fn readable(&self, id: FragmentId) -> Vec<Backend> {
        if let Some(only) = self.0.backends.only() {
            return vec![only];
        }
        let noted = self.record(id).ok().flatten().map(|record| record.backend);
        let mut backends: Vec<Backend> = self.0.backends.iter().collect();
        backends.sort_by_key(|backend| Some(backend.number()) != noted);
        backends
    }

    /// Backends to store a fragment of up to `len` bytes in, best first; the first one counts as taken for its segment.
    async fn writable(&self, origin: &FragmentOrigin, len: u64) -> Vec<Backend> {
        self.0.served.fetch_add(1, Ordering::Relaxed);
        if self.0.backends.only().is_some() {
            return self.0.backends.for_writing(len, &BTreeMap::new()).await;
        }
        let mut recent = self.0.spread.0.lock().await;
        let Recent { held, order } = &mut *recent;
        if !held.contains_key(&origin.segment) {
            if order.len() == MAX_RECENT
                && let Some(oldest) = order.pop_front()
            {
                held.remove(&oldest);
            }
            order.push_back(origin.segment);
            held.insert(origin.segment, self.noted_of(origin.segment, origin.body).await);
        }
        let held = held.entry(origin.segment).or_default();
        let backends = self.0.backends.for_writing(len, held).await;
        if let Some(first) = backends.first() {
            *held.entry(first.number()).or_default() += 1;
        }
        backends
    }

    /// How many fragments of a segment each backend holds by the notes.
    pub(super) async fn noted_of(&self, segment: SegmentId, body: BodyId) -> BTreeMap<u16, u32> {
        let home = self.clone();
        let noted = spawn_blocking(move || home.some_fragments_of(body, MAX_LOOKED)).await;
        let mut held = BTreeMap::new();
        for (_, record) in noted.ok().and_then(Result::ok).unwrap_or_default() {
            if record.segment == segment {
                *held.entry(record.backend).or_default() += 1;
            }
        }
        held
    }
}

fn none_takes_writes() -> StoreError {
    StoreError::Poisoned("no backend of this peer takes writes".into())
}

/// Of two errors the one that says more: that another backend does not have the fragment says nothing.
fn telling(one: StoreError, other: StoreError) -> StoreError {
    if matches!(other, StoreError::NotFound(_)) { one } else { other }
}

/// A fragment being stored here. Dropping it abandons the fragment.
pub(in crate::object) struct HomeUpload {
    home: Home,
    fragment: Box<dyn FragmentWriter>,
    backend: u16,
    writer: PeerId,
    origin: FragmentOrigin,
    pub(super) len: u64,
}

impl HomeUpload {
    /// Appends.
    pub(in crate::object) async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.len += bytes.len() as u64;
        self.fragment.write(bytes).await
    }

    /// Makes it durable, then notes it.
    pub(in crate::object) async fn finish(self) -> Result<FragmentStat, StoreError> {
        let begun = self.home.begun();
        let stat = self.fragment.finish().await?;
        self.home.note(begun, self.backend, self.writer, &self.origin, stat).await?;
        Ok(stat)
    }
}
