//! Both stores in memory: the shortest implementation of the contracts, for tests, simulations and
//! peers that only cache. "Durable" here means as long as the store lives.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use palm_core::id::FragmentId;
use parking_lot::RwLock;

use crate::fragment::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};
use crate::index::{Durability, IndexStore, Next, Space, Write};
use crate::reader::BytesReader;

/// Fragments in a map. Cloning gives another handle on the same map.
#[derive(Debug, Clone)]
pub struct MemoryFragments {
    kept: Arc<RwLock<Kept>>,
    max_bytes: u64,
}

#[derive(Debug, Default)]
struct Kept {
    fragments: BTreeMap<FragmentId, Bytes>,
    bytes: u64,
}

impl Default for MemoryFragments {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl MemoryFragments {
    /// An empty store that takes at most `max_bytes` of payload; `u64::MAX` for no bound.
    pub fn new(max_bytes: u64) -> Self {
        Self { kept: Arc::default(), max_bytes }
    }

    fn insert(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        let stat = FragmentStat { id: FragmentId::of(&bytes), len: bytes.len() as u64 };
        let mut kept = self.kept.write();
        if !kept.fragments.contains_key(&stat.id) {
            let total = kept.bytes.saturating_add(stat.len);
            if total > self.max_bytes {
                return Err(StoreError::Full);
            }
            kept.bytes = total;
            kept.fragments.insert(stat.id, bytes);
        }
        Ok(stat)
    }

    fn free(&self) -> u64 {
        match self.max_bytes {
            u64::MAX => u64::MAX,
            max => max.saturating_sub(self.kept.read().bytes),
        }
    }
}

#[async_trait]
impl FragmentStore for MemoryFragments {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        if len.unwrap_or(0) > self.free() {
            return Err(StoreError::Full);
        }
        Ok(Box::new(MemoryWriter { store: self.clone(), bytes: BytesMut::new() }))
    }

    async fn put(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        self.insert(bytes)
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        Ok(Box::new(BytesReader { id, bytes: self.get(id).await? }))
    }

    async fn get(&self, id: FragmentId) -> Result<Bytes, StoreError> {
        self.kept.read().fragments.get(&id).cloned().ok_or(StoreError::NotFound(id))
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        let kept = self.kept.read();
        Ok(kept.fragments.get(&id).map(|bytes| FragmentStat { id, len: bytes.len() as u64 }))
    }

    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        let mut kept = self.kept.write();
        let removed = kept.fragments.remove(&id);
        kept.bytes -= removed.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Ok(removed.is_some())
    }

    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let kept = self.kept.read();
        let found = kept.fragments.range((from, Bound::Unbounded)).take(limit);
        Ok(found.map(|(&id, bytes)| FragmentStat { id, len: bytes.len() as u64 }).collect())
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let free = self.free();
        let kept = self.kept.read();
        Ok(Usage { fragments: kept.fragments.len() as u64, bytes: kept.bytes, free })
    }
}

struct MemoryWriter {
    store: MemoryFragments,
    bytes: BytesMut,
}

#[async_trait]
impl FragmentWriter for MemoryWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        if (self.bytes.len() + bytes.len()) as u64 > self.store.free() {
            return Err(StoreError::Full);
        }
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<FragmentStat, StoreError> {
        self.store.insert(self.bytes.freeze())
    }
}

type Entries = BTreeMap<Bytes, Bytes>;

/// The index in one map per space. Cloning gives another handle on the same maps.
///
/// A scan takes its snapshot by sharing the map; a commit that meets a running scan copies the map first.
#[derive(Debug, Clone, Default)]
pub struct MemoryIndex {
    spaces: Arc<RwLock<[Arc<Entries>; Space::ALL.len()]>>,
}

impl MemoryIndex {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl IndexStore for MemoryIndex {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.spaces.read()[space as usize].get(key).cloned())
    }

    fn scan(&self, space: Space, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Next) -> Result<(), StoreError> {
        let snapshot = Arc::clone(&self.spaces.read()[space as usize]);
        let entries_from = |key: &[u8]| snapshot.range::<[u8], _>((Bound::Included(key), Bound::Unbounded));
        let mut found = entries_from(from);
        while let Some((key, value)) = found.next() {
            match visit(key, value) {
                Next::Continue => {}
                Next::Seek(to) => found = entries_from(&to),
                Next::Stop => break,
            }
        }
        Ok(())
    }

    async fn commit(&self, batch: Vec<Write>, _: Durability) -> Result<(), StoreError> {
        let mut spaces = self.spaces.write();
        for write in batch {
            match write {
                Write::Put(space, key, value) => {
                    Arc::make_mut(&mut spaces[space as usize]).insert(key, value);
                }
                Write::Delete(space, key) => {
                    Arc::make_mut(&mut spaces[space as usize]).remove(&key);
                }
                Write::Clear(space) => spaces[space as usize] = Arc::default(),
            }
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Lifetime};

    #[tokio::test(flavor = "multi_thread")]
    async fn fragments_conform() {
        conformance::fragments(Lifetime::Handle, async |_| Arc::new(MemoryFragments::default()) as _).await;
        conformance::fragments_when_full(Arc::new(MemoryFragments::new(1 << 20)), 1 << 20).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn index_conforms() {
        conformance::index(Lifetime::Handle, async |_| Arc::new(MemoryIndex::new()) as _).await;
    }
}
