//! What a store is asked, how it answers, and how long that takes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::id::FragmentId;
use tokio::time::Instant;

use crate::fragment::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};

/// Kinds of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Storing a fragment: its first byte to its being durable.
    Put,
    /// Reading bytes of one.
    Read,
    /// Looking whether some are there.
    Stat,
    /// Deleting one.
    Delete,
    /// Listing some.
    List,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Put, Self::Read, Self::Stat, Self::Delete, Self::List];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Read => "read",
            Self::Stat => "stat",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

/// Bounds of [`Meter::took`], in microseconds: each counts the operations up to it that the one before does not.
pub const TOOK_MICROS: [u64; 12] =
    [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000];

/// Figures of one kind of operation. All only rise.
#[derive(Debug, Default)]
pub struct Meter {
    /// Operations ended.
    pub operations: AtomicU64,
    /// Those of them that failed; that something is not there is no failure.
    pub failures: AtomicU64,
    /// Bytes of fragments moved.
    pub bytes: AtomicU64,
    /// Microseconds taken, all together.
    pub micros: AtomicU64,
    /// Operations by how long they took, the last one those beyond all of [`TOOK_MICROS`].
    pub took: [AtomicU64; TOOK_MICROS.len() + 1],
}

/// Figures of a store.
#[derive(Debug, Default)]
pub struct Meters([Meter; Operation::ALL.len()]);

impl Meters {
    /// Those of one kind of operation.
    pub fn of(&self, operation: Operation) -> &Meter {
        &self.0[operation as usize]
    }

    fn note<T>(
        &self,
        operation: Operation,
        took: Duration,
        outcome: Result<T, StoreError>,
        bytes: impl FnOnce(&T) -> u64,
    ) -> Result<T, StoreError> {
        let meter = self.of(operation);
        meter.operations.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        meter.micros.fetch_add(micros, Ordering::Relaxed);
        meter.took[TOOK_MICROS.partition_point(|&bound| bound < micros)].fetch_add(1, Ordering::Relaxed);
        match &outcome {
            Ok(value) => drop(meter.bytes.fetch_add(bytes(value), Ordering::Relaxed)),
            Err(StoreError::NotFound(_)) => {}
            Err(_) => drop(meter.failures.fetch_add(1, Ordering::Relaxed)),
        }
        outcome
    }
}

/// A store that is measured.
pub struct Metered {
    inner: Arc<dyn FragmentStore>,
    meters: Arc<Meters>,
}

impl Metered {
    /// Measures a store.
    pub fn new(inner: Arc<dyn FragmentStore>) -> Self {
        Self::with(inner, Arc::default())
    }

    /// Measures a store that takes the place of another one, whose figures go on.
    pub fn with(inner: Arc<dyn FragmentStore>, meters: Arc<Meters>) -> Self {
        Self { inner, meters }
    }

    /// Its figures, which go on rising.
    pub fn meters(&self) -> Arc<Meters> {
        Arc::clone(&self.meters)
    }
}

#[async_trait]
impl FragmentStore for Metered {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        let begun = Instant::now();
        match self.inner.writer(len).await {
            Ok(inner) => Ok(Box::new(Writer { inner, meters: self.meters(), took: begun.elapsed() })),
            refused => self.meters.note(Operation::Put, begun.elapsed(), refused, |_| 0),
        }
    }

    async fn put(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        let begun = Instant::now();
        let put = self.inner.put(bytes).await;
        self.meters.note(Operation::Put, begun.elapsed(), put, |stat| stat.len)
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        let begun = Instant::now();
        match self.inner.open(id).await {
            Ok(inner) => Ok(Box::new(Reader { inner, meters: self.meters() })),
            refused => self.meters.note(Operation::Read, begun.elapsed(), refused, |_| 0),
        }
    }

    async fn get(&self, id: FragmentId) -> Result<Bytes, StoreError> {
        let begun = Instant::now();
        let got = self.inner.get(id).await;
        self.meters.note(Operation::Read, begun.elapsed(), got, |bytes| bytes.len() as u64)
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        let begun = Instant::now();
        let stat = self.inner.stat(id).await;
        self.meters.note(Operation::Stat, begun.elapsed(), stat, |_| 0)
    }

    async fn stats(&self, ids: Vec<FragmentId>) -> Result<Vec<Option<FragmentStat>>, StoreError> {
        let begun = Instant::now();
        let stats = self.inner.stats(ids).await;
        self.meters.note(Operation::Stat, begun.elapsed(), stats, |_| 0)
    }

    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        let begun = Instant::now();
        let deleted = self.inner.delete(id).await;
        self.meters.note(Operation::Delete, begun.elapsed(), deleted, |_| 0)
    }

    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        let begun = Instant::now();
        let listed = self.inner.list(after, limit).await;
        self.meters.note(Operation::List, begun.elapsed(), listed, |_| 0)
    }

    fn forget_cached(&self) {
        self.inner.forget_cached();
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.inner.usage().await
    }
}

struct Writer {
    inner: Box<dyn FragmentWriter>,
    meters: Arc<Meters>,
    /// In the store itself; how fast the bytes came is not its doing.
    took: Duration,
}

#[async_trait]
impl FragmentWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let begun = Instant::now();
        let written = self.inner.write(bytes).await;
        self.took += begun.elapsed();
        if written.is_err() {
            return self.meters.note(Operation::Put, self.took, written, |()| 0);
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<FragmentStat, StoreError> {
        let begun = Instant::now();
        let finished = self.inner.finish().await;
        self.meters.note(Operation::Put, self.took + begun.elapsed(), finished, |stat| stat.len)
    }
}

struct Reader {
    inner: Box<dyn FragmentReader>,
    meters: Arc<Meters>,
}

#[async_trait]
impl FragmentReader for Reader {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let begun = Instant::now();
        let read = self.inner.read(range).await;
        self.meters.note(Operation::Read, begun.elapsed(), read, |bytes| bytes.len() as u64)
    }
}
