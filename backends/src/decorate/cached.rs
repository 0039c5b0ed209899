//! Small fragments in memory, for stores that are far away.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::id::FragmentId;
use parking_lot::Mutex;

use crate::fragment::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};
use crate::reader::BytesReader;

/// Larger fragments are not kept.
const LARGEST_BYTES: u64 = 256 << 10;

/// A store whose small fragments, read or stored lately, are answered from memory. A fragment never changes, so what is
/// kept is never stale; what was deleted through this store is forgotten.
#[derive(Clone)]
pub struct Cached {
    inner: Arc<dyn FragmentStore>,
    kept: Arc<Mutex<Kept>>,
}

/// What was used longest ago goes first.
#[derive(Default)]
struct Kept {
    max_bytes: u64,
    bytes: u64,
    uses: u64,
    fragments: HashMap<FragmentId, (u64, Bytes)>,
    by_use: BTreeMap<u64, FragmentId>,
    /// Rises with each deletion: a read that began before one does not bring back what it took away.
    deletions: u64,
}

impl Kept {
    fn get(&mut self, id: FragmentId) -> Option<Bytes> {
        self.uses += 1;
        let (used, bytes) = self.fragments.get_mut(&id)?;
        self.by_use.remove(used);
        *used = self.uses;
        self.by_use.insert(self.uses, id);
        Some(bytes.clone())
    }

    fn insert(&mut self, id: FragmentId, bytes: &Bytes, deletions: u64) {
        let len = bytes.len() as u64;
        if len > LARGEST_BYTES.min(self.max_bytes) || self.deletions != deletions || self.fragments.contains_key(&id) {
            return;
        }
        self.uses += 1;
        self.fragments.insert(id, (self.uses, bytes.clone()));
        self.by_use.insert(self.uses, id);
        self.bytes += len;
        while self.bytes > self.max_bytes
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            if let Some((_, gone)) = self.fragments.remove(&oldest) {
                self.bytes -= gone.len() as u64;
            }
        }
    }

    fn remove(&mut self, id: FragmentId) {
        self.deletions += 1;
        if let Some((used, gone)) = self.fragments.remove(&id) {
            self.by_use.remove(&used);
            self.bytes -= gone.len() as u64;
        }
    }
}

impl Cached {
    /// Keeps up to `max_bytes` of a store's fragments in memory.
    pub fn new(inner: Arc<dyn FragmentStore>, max_bytes: u64) -> Self {
        Self { inner, kept: Arc::new(Mutex::new(Kept { max_bytes, ..Kept::default() })) }
    }
}

#[async_trait]
impl FragmentStore for Cached {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        self.inner.writer(len).await
    }

    async fn put(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        let deletions = self.kept.lock().deletions;
        let stat = self.inner.put(bytes.clone()).await?;
        self.kept.lock().insert(stat.id, &bytes, deletions);
        Ok(stat)
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        let kept = self.kept.lock().get(id);
        match kept {
            Some(bytes) => Ok(Box::new(BytesReader { id, bytes })),
            None => self.inner.open(id).await,
        }
    }

    async fn get(&self, id: FragmentId) -> Result<Bytes, StoreError> {
        let (kept, deletions) = {
            let mut kept = self.kept.lock();
            (kept.get(id), kept.deletions)
        };
        if let Some(bytes) = kept {
            return Ok(bytes);
        }
        let bytes = self.inner.get(id).await?;
        self.kept.lock().insert(id, &bytes, deletions);
        Ok(bytes)
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        self.inner.stat(id).await
    }

    async fn stats(&self, ids: Vec<FragmentId>) -> Result<Vec<Option<FragmentStat>>, StoreError> {
        self.inner.stats(ids).await
    }

    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        // Before and after: a read between the two may have put it back.
        self.kept.lock().remove(id);
        let deleted = self.inner.delete(id).await;
        self.kept.lock().remove(id);
        deleted
    }

    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        self.inner.list(after, limit).await
    }

    fn forget_cached(&self) {
        let mut kept = self.kept.lock();
        *kept = Kept { max_bytes: kept.max_bytes, deletions: kept.deletions + 1, ..Kept::default() };
        drop(kept);
        self.inner.forget_cached();
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.inner.usage().await
    }
}
