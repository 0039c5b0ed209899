//! A bound on how fast a store is used: a disk shared with other programs, a line that is paid by the byte.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::id::FragmentId;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::fragment::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter, StoreError, Usage};

/// What may be used at once after a pause: a quarter of a second's worth.
const BURST: Duration = Duration::from_millis(250);

/// Hours of the day in which another bound holds, in minutes after midnight of whatever clock is given; over midnight where
/// the first is the later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuietHours {
    /// First minute.
    pub from: u16,
    /// First minute that is not quiet any more.
    pub until: u16,
    /// Bytes a second meanwhile.
    pub bytes_per_second: u64,
}

impl QuietHours {
    pub(super) fn hold_at(self, minute: u16) -> bool {
        if self.from <= self.until {
            (self.from..self.until).contains(&minute)
        } else {
            minute >= self.from || minute < self.until
        }
    }
}

/// First minute and first one after of hours such as `23:00-07:00`, in minutes after midnight.
pub fn parse_hours(text: &str) -> Option<(u16, u16)> {
    let minute = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    };
    let (from, until) = text.split_once('-')?;
    Some((minute(from)?, minute(until)?))
}

/// How fast a store may be used, reads and writes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bandwidth {
    /// Bytes a second; `None` for no bound.
    pub bytes_per_second: Option<u64>,
    /// Hours of another bound.
    pub quiet: Option<QuietHours>,
}

impl Bandwidth {
    /// No bound at any time.
    pub const UNBOUNDED: Self = Self { bytes_per_second: None, quiet: None };

    /// What holds at a minute of the day.
    pub fn at(self, minute: u16) -> Option<u64> {
        match self.quiet {
            Some(quiet) if quiet.hold_at(minute) => Some(quiet.bytes_per_second),
            _ => self.bytes_per_second,
        }
    }
}

/// Minutes since midnight.
pub type Clock = fn() -> u16;

/// A store that is used no faster than told. Callers wait; they are served in the order they came.
#[derive(Clone)]
pub struct Throttle {
    inner: Arc<dyn FragmentStore>,
    pace: Arc<Pace>,
}

/// Lets bytes through no faster than told, in the order they ask.
pub struct Pace {
    bandwidth: Bandwidth,
    clock: Clock,
    /// Until when what has been let through takes, at the bound.
    taken_until: Mutex<Instant>,
}

impl Pace {
    /// A pace that `bandwidth` bounds; `clock` tells the minute of the day by which quiet hours are meant.
    pub fn new(bandwidth: Bandwidth, clock: Clock) -> Self {
        Self { bandwidth, clock, taken_until: Mutex::new(Instant::now()) }
    }

    /// Bytes a second that may go now; `None` for no bound.
    pub fn bound(&self) -> Option<u64> {
        self.bandwidth.at((self.clock)())
    }

    /// Waits until so many bytes may go.
    pub async fn take(&self, bytes: u64) {
        if self.bandwidth == Bandwidth::UNBOUNDED {
            return;
        }
        let Some(rate) = self.bound() else { return };
        let takes = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let turn = {
            let mut taken = self.taken_until.lock();
            let now = Instant::now();
            let turn = (*taken).max(now.checked_sub(BURST).unwrap_or(now));
            *taken = turn + takes;
            turn
        };
        sleep_until(turn).await;
    }
}

impl Throttle {
    /// Slows a store down, as [`Pace::new`] says.
    pub fn new(inner: Arc<dyn FragmentStore>, bandwidth: Bandwidth, clock: Clock) -> Self {
        Self { inner, pace: Arc::new(Pace::new(bandwidth, clock)) }
    }
}

#[async_trait]
impl FragmentStore for Throttle {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        Ok(Box::new(Writer { pace: Arc::clone(&self.pace), inner: self.inner.writer(len).await? }))
    }

    async fn put(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        self.pace.take(bytes.len() as u64).await;
        self.inner.put(bytes).await
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        Ok(Box::new(Reader { pace: Arc::clone(&self.pace), inner: self.inner.open(id).await? }))
    }

    async fn get(&self, id: FragmentId) -> Result<Bytes, StoreError> {
        let bytes = self.inner.get(id).await?;
        self.pace.take(bytes.len() as u64).await;
        Ok(bytes)
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
        self.inner.usage().await
    }
}

struct Writer {
    pace: Arc<Pace>,
    inner: Box<dyn FragmentWriter>,
}

#[async_trait]
impl FragmentWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.pace.take(bytes.len() as u64).await;
        self.inner.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<FragmentStat, StoreError> {
        self.inner.finish().await
    }
}

struct Reader {
    pace: Arc<Pace>,
    inner: Box<dyn FragmentReader>,
}

#[async_trait]
impl FragmentReader for Reader {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.inner.read(range).await?;
        self.pace.take(bytes.len() as u64).await;
        Ok(bytes)
    }
}
