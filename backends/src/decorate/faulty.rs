//! Failures on purpose, by a seed: what is built over a store is tested with one that behaves as bad disks do.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use palm_core::id::FragmentId;

use crate::fragment::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};

/// How often what fails, in 1,000 operations each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Reads that answer an i/o error.
    pub read_errors: u16,
    /// Reads that answer with a bit flipped.
    pub flipped_bits: u16,
    /// Writes that answer an i/o error and store nothing.
    pub write_errors: u16,
    /// Writes that answer that the store is full.
    pub full: u16,
    /// Fragments that were stored and are not there when asked for.
    pub missing: u16,
}

/// A store that fails. The same seed and the same order of operations fail in the same places.
#[derive(Clone)]
pub struct Faulty {
    inner: Arc<dyn FragmentStore>,
    faults: Faults,
    state: Arc<AtomicU64>,
    injected: Arc<AtomicU64>,
}

impl Faulty {
    /// Makes a store fail.
    pub fn new(inner: Arc<dyn FragmentStore>, faults: Faults, seed: u64) -> Self {
        Self { inner, faults, state: Arc::new(AtomicU64::new(seed)), injected: Arc::default() }
    }

    /// Failures so far.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// `SplitMix64` (Steele et al. 2014), one step.
    fn draw(&self) -> u64 {
        let state = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn strikes(&self, of_1000: u16) -> bool {
        let strikes = of_1000 > 0 && self.draw() % 1000 < u64::from(of_1000);
        self.injected.fetch_add(u64::from(strikes), Ordering::Relaxed);
        strikes
    }

    fn before_write(&self) -> Result<(), StoreError> {
        if self.strikes(self.faults.full) {
            return Err(StoreError::Full);
        }
        if self.strikes(self.faults.write_errors) { Err(injected("write")) } else { Ok(()) }
    }

    fn after_read(&self, bytes: Bytes) -> Result<Bytes, StoreError> {
        if self.strikes(self.faults.read_errors) {
            return Err(injected("read"));
        }
        if bytes.is_empty() || !self.strikes(self.faults.flipped_bits) {
            return Ok(bytes);
        }
        let mut flipped = BytesMut::from(&bytes[..]);
        let at = self.draw() as usize % flipped.len();
        flipped[at] ^= 1 << (self.draw() % 8);
        Ok(flipped.freeze())
    }
}

fn injected(what: &str) -> StoreError {
    StoreError::Io(std::io::Error::other(format!("injected {what} error")))
}

#[async_trait]
impl FragmentStore for Faulty {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        self.before_write()?;
        Ok(Box::new(Writer { faulty: self.clone(), inner: self.inner.writer(len).await? }))
    }

    async fn put(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        self.before_write()?;
        self.inner.put(bytes).await
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        if self.strikes(self.faults.missing) {
            return Err(StoreError::NotFound(id));
        }
        Ok(Box::new(Reader { faulty: self.clone(), inner: self.inner.open(id).await? }))
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        self.inner.stat(id).await
    }

    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        self.before_write()?;
        self.inner.delete(id).await
    }

    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        if self.strikes(self.faults.read_errors) {
            return Err(injected("list"));
        }
        self.inner.list(after, limit).await
    }

    fn forget_cached(&self) {
        self.inner.forget_cached();
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        self.inner.usage().await
    }
}

struct Writer {
    faulty: Faulty,
    inner: Box<dyn FragmentWriter>,
}

#[async_trait]
impl FragmentWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.faulty.before_write()?;
        self.inner.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<FragmentStat, StoreError> {
        self.faulty.before_write()?;
        self.inner.finish().await
    }
}

struct Reader {
    faulty: Faulty,
    inner: Box<dyn FragmentReader>,
}

#[async_trait]
impl FragmentReader for Reader {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.faulty.after_read(self.inner.read(range).await?)
    }
}
