//! A bound on what a store takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::id::FragmentId;

use crate::fragment::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};

/// A store that takes no more than so many bytes, and leaves so many free where it is.
///
/// What is being written counts from its first byte, so uploads that race do not pass the bound together; near it, of two that
/// race for the last room both may be refused.
#[derive(Clone)]
pub struct Quota {
    inner: Arc<dyn FragmentStore>,
    max_bytes: u64,
    reserve_bytes: u64,
    /// Bytes set aside for what is being written.
    promised: Arc<AtomicU64>,
}

impl Quota {
    /// Bounds a store. `u64::MAX` for no bound, 0 for no reserve.
    pub fn new(inner: Arc<dyn FragmentStore>, max_bytes: u64, reserve_bytes: u64) -> Self {
        Self { inner, max_bytes, reserve_bytes, promised: Arc::default() }
    }

    fn limit(&self, usage: Usage) -> u64 {
        let room = match usage.free {
            u64::MAX => u64::MAX,
            free => free.saturating_sub(self.reserve_bytes),
        };
        match self.max_bytes {
            u64::MAX => room,
            max => room.min(max.saturating_sub(usage.bytes)),
        }
    }

    async fn promise(&self, bytes: u64) -> Result<Promise, StoreError> {
        let usage = self.inner.usage().await?;
        let promised = self.promised.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let promise = Promise { promised: Arc::clone(&self.promised), bytes };
        if promised > self.limit(usage) { Err(StoreError::Full) } else { Ok(promise) }
    }
}

/// Bytes set aside, given back when dropped.
struct Promise {
    promised: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.promised.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[async_trait]
impl FragmentStore for Quota {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        let promise = self.promise(len.unwrap_or(0)).await?;
        let inner = self.inner.writer(len).await?;
        Ok(Box::new(Writer { quota: self.clone(), promises: vec![promise], promised: len.unwrap_or(0), len: 0, inner }))
    }

    async fn put(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        let _promise = self.promise(bytes.len() as u64).await?;
        self.inner.put(bytes).await
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        self.inner.open(id).await
    }

    async fn get(&self, id: FragmentId) -> Result<Bytes, StoreError> {
        self.inner.get(id).await
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        self.inner.stat(id).await
    }

    async fn stats(&self, ids: Vec<FragmentId>) -> Result<Vec<Option<FragmentStat>>, StoreError> {
        self.inner.stats(ids).await
    }

    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        self.inner.delete(id).await
    }

    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        self.inner.list(after, limit).await
    }

    fn forget_cached(&self) {
        self.inner.forget_cached();
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let usage = self.inner.usage().await?;
        let free = match self.limit(usage) {
            u64::MAX => u64::MAX,
            limit => limit.saturating_sub(self.promised.load(Ordering::Relaxed)),
        };
        Ok(Usage { free, ..usage })
    }
}

struct Writer {
    quota: Quota,
    promises: Vec<Promise>,
    promised: u64,
    len: u64,
    inner: Box<dyn FragmentWriter>,
}

#[async_trait]
impl FragmentWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.len += bytes.len() as u64;
        if self.len > self.promised {
            // Doubled, so that a body of unknown length asks seldom.
            let more = (self.len - self.promised).max(self.promised.min(16 << 20));
            let promise = match self.quota.promise(more).await {
                Err(StoreError::Full) => self.quota.promise(self.len - self.promised).await?,
                other => other?,
            };
            self.promised += promise.bytes;
            self.promises.push(promise);
        }
        self.inner.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<FragmentStat, StoreError> {
        self.inner.finish().await
    }
}
