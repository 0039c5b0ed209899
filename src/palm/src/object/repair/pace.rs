//! How fast repair goes: as fast as it may, and gently while anybody in the pool serves requests.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use palm_backends::decorate::{Bandwidth, local_minute};
use parking_lot::Mutex;
use tokio::time::Instant;

/// While requests are served, a job is followed by a rest of this many times its own length.
const REST: u32 = 4;
/// No rest is longer: a job that waited for a slow peer has not kept anybody busy.
const MAX_REST: Duration = Duration::from_secs(5);
/// The rate is that of this last while.
const WINDOW: Duration = Duration::from_mins(1);
/// Steps in which the window is kept.
const STEP: Duration = Duration::from_secs(1);

/// The pace of one peer's repairs, and what they did.
pub(in crate::object) struct Pace {
    bound: palm_backends::decorate::Pace,
    recent: Mutex<VecDeque<(Instant, u64)>>,
    /// Segments repaired.
    pub(in crate::object) repaired: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
}

/// How repair is getting on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Segments that wait or are worked on.
    pub queued: u64,
    /// Their plaintext bytes.
    pub queued_bytes: u64,
    /// For how long the oldest of them has waited, since this peer started.
    pub oldest: Duration,
    /// Segments repaired since this peer started.
    pub repaired: u64,
    /// Bytes of fragments read from other peers for repairs.
    pub read_bytes: u64,
    /// Bytes of fragments that repairs stored, at other peers and here.
    pub written_bytes: u64,
    /// Bytes read and written each second, over the last minute; never more than bandwidth lets through, although what has begun
    /// to pass may be counted.
    pub bytes_per_second: u64,
}

/// A job under way.
pub(in crate::object) struct Rest {
    begun: Instant,
    times: u32,
}

impl Rest {
    /// A job begins; `busy` while requests are served somewhere in the pool.
    pub(in crate::object) fn begin(busy: bool) -> Self {
        Self { begun: Instant::now(), times: if busy { REST } else { 0 } }
    }

    /// How long to rest, now that the job has ended.
    pub(in crate::object) fn ended(self) -> Duration {
        (self.begun.elapsed() * self.times).min(MAX_REST)
    }
}

impl Pace {
    pub(in crate::object) fn new(bandwidth: Bandwidth) -> Self {
        Self {
            bound: palm_backends::decorate::Pace::new(bandwidth, local_minute),
            recent: Mutex::default(),
            repaired: AtomicU64::new(0),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    /// Counts bytes read from others, and waits as long as the bandwidth says.
    pub(in crate::object) async fn read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
        self.pass(bytes).await;
    }

    /// Counts bytes stored, and waits as long as the bandwidth says.
    pub(in crate::object) async fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.pass(bytes).await;
    }

    async fn pass(&self, bytes: u64) {
        let now = Instant::now();
        {
            let mut recent = self.recent.lock();
            match recent.back_mut() {
                Some((at, sum)) if now - *at < STEP => *sum += bytes,
                _ => recent.push_back((now, bytes)),
            }
            while recent.front().is_some_and(|(at, _)| now - *at > WINDOW) {
                recent.pop_front();
            }
        }
        self.bound.take(bytes).await;
    }

    /// What was done; `line` bounds what goes over the line, repairs among it.
    pub(in crate::object) fn figures(
        &self,
        (queued, queued_bytes): (u64, u64),
        oldest: Duration,
        line: Option<u64>,
    ) -> Figures {
        let now = Instant::now();
        let recent = self.recent.lock();
        let within = recent.iter().filter(|(at, _)| now - *at <= WINDOW);
        let sum: u64 = within.clone().map(|(_, bytes)| bytes).sum();
        let over = within.map(|(at, _)| now - *at).max().unwrap_or_default().max(STEP).as_millis() as u64;
        let bound = self.bound.bound().into_iter().chain(line).min().unwrap_or(u64::MAX);
        Figures {
            queued,
            queued_bytes,
            oldest,
            repaired: self.repaired.load(Ordering::Relaxed),
            read_bytes: self.read.load(Ordering::Relaxed),
            written_bytes: self.written.load(Ordering::Relaxed),
            bytes_per_second: (sum.saturating_mul(1_000) / over).min(bound),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// Somebody gives repairs 1 MB a second on a slow line. Ten pieces of 500 kB must take about five seconds, whichever
    /// way they go, and the figure shown must be what went through.
    #[tokio::test(start_paused = true)]
    async fn bandwidth_is_kept_to() {
        let pace = Pace::new(Bandwidth { bytes_per_second: Some(1_000_000), quiet: None });
        let begun = Instant::now();
        for piece in 0..10 {
            if piece % 2 == 0 { pace.read(500_000).await } else { pace.wrote(500_000).await }
        }
        assert_eq!(begun.elapsed().as_millis(), 4_500, "the last piece is paid for by the next");
        let figures = pace.figures((0, 0), Duration::ZERO, None);
        assert_eq!((figures.read_bytes, figures.written_bytes), (2_500_000, 2_500_000));
        assert_eq!(figures.bytes_per_second, 1_000_000);
    }

    /// A large fragment begins to pass, with little bandwidth for repairs, or for all traffic. Danger: it counts as moved at once, and
    /// the queue seems done within seconds. Expected: no speed above either bound.
    #[tokio::test(start_paused = true)]
    async fn no_speed_above_the_bandwidth_is_told() {
        let speed = |pace: &Pace, line| pace.figures((1, 1), Duration::ZERO, line).bytes_per_second;
        let slow = Pace::new(Bandwidth { bytes_per_second: Some(1_000_000), quiet: None });
        let free = Pace::new(Bandwidth::UNBOUNDED);
        for pace in [&slow, &free] {
            pace.read(60_000_000).await;
        }
        assert_eq!(
            (speed(&slow, None), speed(&slow, Some(250_000)), speed(&slow, Some(2_000_000))),
            (1_000_000, 250_000, 1_000_000)
        );
        assert_eq!((speed(&free, None), speed(&free, Some(250_000))), (60_000_000, 250_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_pool_gets_rests() {
        let (busy, idle) = (Rest::begin(true), Rest::begin(false));
        sleep(Duration::from_millis(100)).await;
        assert_eq!(idle.ended(), Duration::ZERO);
        assert_eq!(busy.ended(), Duration::from_millis(400));
    }
}
