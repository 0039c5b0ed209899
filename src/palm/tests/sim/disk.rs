//! Simulated disks: stores in memory that take their time to sync, and that lose at a crash what was not synced.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use palm_backends::memory::{MemoryFragments, MemoryIndex};
use palm_backends::{
    Durability, FragmentReader, FragmentStat, FragmentStore, FragmentWriter, IndexStore, Next, Space, StoreError,
    Usage, Write,
};
use palm_core::id::FragmentId;
use palm_core::record::{FragmentRecord, Stored};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::sleep;

/// A sync takes up to this long, and so does its answer.
const SLOWEST_SYNC_MS: u64 = 3;

/// A machine's disk: it outlives the peer. Cheap to clone.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

struct State {
    /// As the peer sees it.
    index: MemoryIndex,
    /// As it is after a power loss.
    safe: MemoryIndex,
    /// Batches on their way from one to the other, oldest first.
    unsynced: Vec<Vec<Write>>,
    fragments: MemoryFragments,
    dice: SmallRng,
}

impl State {
    /// Everything written so far becomes durable.
    fn sync(&mut self) {
        for batch in self.unsynced.drain(..) {
            apply(&self.safe, batch);
        }
    }
}

/// A commit to memory never waits.
fn apply(index: &MemoryIndex, batch: Vec<Write>) {
    index.commit(batch, Durability::Synced).now_or_never().unwrap().unwrap();
}

fn copy(from: &MemoryIndex) -> MemoryIndex {
    let mut batch = Vec::new();
    for space in Space::ALL {
        let mut visit = |key: &[u8], value: &[u8]| {
            batch.push(Write::Put(space, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            Next::Continue
        };
        from.scan(space, &[], &mut visit).unwrap();
    }
    let index = MemoryIndex::new();
    apply(&index, batch);
    index
}

impl Disk {
    /// An empty disk.
    pub fn new(dice: SmallRng) -> Self {
        Self(Arc::new(Mutex::new(State {
            index: MemoryIndex::new(),
            safe: MemoryIndex::new(),
            unsynced: Vec::new(),
            fragments: MemoryFragments::new(1 << 40),
            dice,
        })))
    }

    /// Power fails: of what was not synced a beginning, of any length, is found again.
    pub fn crash(&self) {
        let state = &mut *self.0.lock();
        let kept = state.dice.random_range(0..=state.unsynced.len());
        state.unsynced.truncate(kept);
        state.sync();
        state.index = copy(&state.safe);
    }

    /// The fragments here that are noted, with their notes.
    pub fn notes(&self) -> BTreeMap<FragmentId, FragmentRecord> {
        let state = self.0.lock();
        let stats = state.fragments.list(None, usize::MAX).now_or_never().unwrap().unwrap();
        let noted = stats.into_iter().filter_map(|stat| {
            let register = [b"f", stat.id.as_bytes().as_slice()].concat();
            let note = state.index.get(Space::Fragments, &register).unwrap()?;
            Some((stat.id, FragmentRecord::decode(&note).unwrap()))
        });
        noted.collect()
    }

    async fn wait(&self) {
        let ms = self.0.lock().dice.random_range(0..=SLOWEST_SYNC_MS);
        sleep(Duration::from_millis(ms)).await;
    }

    fn index(&self) -> MemoryIndex {
        self.0.lock().index.clone()
    }

    fn fragments(&self) -> MemoryFragments {
        self.0.lock().fragments.clone()
    }
}

#[async_trait]
impl IndexStore for Disk {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.index().get(space, key)
    }

    fn scan(&self, space: Space, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Next) -> Result<(), StoreError> {
        self.index().scan(space, from, visit)
    }

    /// A crash in the first wait loses the batch, one in the second only the answer.
    async fn commit(&self, batch: Vec<Write>, durability: Durability) -> Result<(), StoreError> {
        let synced = durability == Durability::Synced;
        if synced {
            self.wait().await;
        }
        {
            let state = &mut *self.0.lock();
            apply(&state.index, batch.clone());
            state.unsynced.push(batch);
            if synced {
                state.sync();
            }
        }
        if synced {
            self.wait().await;
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        0
    }
}

/// The same disk's fragments.
#[derive(Clone)]
pub struct Fragments(pub Disk);

#[async_trait]
impl FragmentStore for Fragments {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        Ok(Box::new(Writing { disk: self.0.clone(), writer: self.0.fragments().writer(len).await? }))
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        Ok(Box::new(Reading { disk: self.0.clone(), reader: self.0.fragments().open(id).await? }))
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        self.0.fragments().stat(id).await
    }

    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        self.0.fragments().delete(id).await
    }

    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        self.0.fragments().list(after, limit).await
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.0.fragments().usage().await
    }
}

struct Writing {
    disk: Disk,
    writer: Box<dyn FragmentWriter>,
}

#[async_trait]
impl FragmentWriter for Writing {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.writer.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<FragmentStat, StoreError> {
        self.disk.wait().await;
        let stat = self.writer.finish().await?;
        self.disk.wait().await;
        Ok(stat)
    }
}

struct Reading {
    disk: Disk,
    reader: Box<dyn FragmentReader>,
}

#[async_trait]
impl FragmentReader for Reading {
    fn len(&self) -> u64 {
        self.reader.len()
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.disk.wait().await;
        self.reader.read(range).await
    }
}
