//! What is measured of the ledger: how long operations take, how they fail, and how often writers of one key meet.

use prometheus::core::Collector;
use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, exponential_buckets,
};
use tokio::time::{Duration, Instant};

use super::{LedgerError, wall_ms};

/// From a quarter of a millisecond, doubling, to eight seconds, which is beyond every deadline.
const BUCKETS: (f64, f64, usize) = (0.000_25, 2.0, 16);
const FAILURES: [&str; 4] = ["no-quorum", "contended", "unknown", "other"];

/// The figures of one peer's ledger.
pub(super) struct Measures {
    durations: HistogramVec,
    failures: IntCounterVec,
    /// Attempts that another proposer of the same key was in the way of.
    pub(super) conflicts: IntCounter,
    level: IntGauge,
    pub(super) commit: Measure,
    pub(super) read: Measure,
    pub(super) scan: Measure,
}

/// The figures of one operation.
pub(super) struct Measure {
    duration: Histogram,
    failures: [IntCounter; FAILURES.len()],
}

impl Measure {
    /// Notes how an operation that took so long ended.
    pub(super) fn ended<T>(&self, took: Duration, ended: Result<T, LedgerError>) -> Result<T, LedgerError> {
        let failure = match &ended {
            Ok(_) => {
                self.duration.observe(took.as_secs_f64());
                return ended;
            }
            Err(LedgerError::NoQuorum { .. }) => 0,
            Err(LedgerError::Contended) => 1,
            Err(LedgerError::Unknown(_)) => 2,
            Err(_) => 3,
        };
        self.failures[failure].inc();
        ended
    }

    /// The same of one that began then.
    pub(super) fn since<T>(&self, began: Instant, ended: Result<T, LedgerError>) -> Result<T, LedgerError> {
        self.ended(began.elapsed(), ended)
    }
}

impl Measures {
    pub(super) fn new() -> Result<Self, Error> {
        let (start, factor, count) = BUCKETS;
        let options = HistogramOpts::new("palm_ledger_duration_seconds", "Ledger operations that ended well");
        let options = options.buckets(exponential_buckets(start, factor, count)?);
        let durations = HistogramVec::new(options, &["operation"])?;
        let failures = Opts::new("palm_ledger_failures_total", "Ledger operations that ended without an answer");
        let failures = IntCounterVec::new(failures, &["operation", "reason"])?;
        let measure = |operation| Measure {
            duration: durations.with_label_values(&[operation]),
            failures: FAILURES.map(|reason| failures.with_label_values(&[operation, reason])),
        };
        let (commit, read, scan) = (measure("commit"), measure("read"), measure("scan"));
        Ok(Self {
            durations,
            failures,
            conflicts: IntCounter::new(
                "palm_ledger_conflicts_total",
                "Attempts at a change that another change of the same key, or of the voters, was in the way of",
            )?,
            level: IntGauge::new(
                "palm_ledger_level_timestamp_seconds",
                "When this peer's copy of the metadata was last found, or brought, level with a voter's",
            )?,
            commit,
            read,
            scan,
        })
    }

    /// This peer's copy is level with a voter's now.
    pub(super) fn is_level(&self) {
        self.level.set(i64::try_from(wall_ms() / 1_000).unwrap_or(i64::MAX));
    }

    pub(super) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let Self { durations, failures, conflicts, level, .. } = self;
        vec![
            Box::new(durations.clone()),
            Box::new(failures.clone()),
            Box::new(conflicts.clone()),
            Box::new(level.clone()),
        ]
    }
}
