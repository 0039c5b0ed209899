//! What was measured: counts, bytes and a histogram of durations per operation.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// Buckets per power of two: a quantile is at most 1/64 too high.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Durations in microseconds, in buckets that grow with the value (as HDR histograms do): bounded memory, 1.6 % precision.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket_of(micros);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(micros);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The duration in milliseconds that a share of all (0.0 to 1.0) did not exceed; 0 when nothing was counted.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        #[expect(clippy::cast_sign_loss, reason = "a share of a count is not negative")]
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return highest_of(bucket).min(self.max_us) as f64 / 1000.0;
            }
        }
        0.0
    }
}

fn bucket_of(micros: u64) -> usize {
    let shift = (64 - micros.leading_zeros()).saturating_sub(STEP_BITS + 1);
    usize::try_from(u64::from(shift) * STEPS + (micros >> shift)).unwrap_or(usize::MAX)
}

/// The highest value that falls into a bucket.
fn highest_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    ((bucket - shift * STEPS + 1) << shift) - 1
}

/// What one operation did, at one client or at all.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Successes.
    pub done: u64,
    /// Body bytes sent or received by successes.
    pub bytes: u64,
    /// Whole durations of successes.
    pub durations: Histogram,
    /// Times to the first byte of successes.
    pub first_bytes: Histogram,
    /// Failures by S3 code, HTTP status or kind.
    pub errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds another's counts.
    pub fn merge(&mut self, other: Self) {
        self.done += other.done;
        self.bytes += other.bytes;
        self.durations.merge(&other.durations);
        self.first_bytes.merge(&other.first_bytes);
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
    }
}

/// One line of the result.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// put, get, head, list or delete.
    pub op: &'static str,
    /// Successes.
    pub done: u64,
    /// Successes per second.
    pub per_second: f64,
    /// Millions of body bytes per second.
    pub megabytes_per_second: f64,
    /// Half of the requests took at most this long.
    pub p50_ms: f64,
    /// 95 % did.
    pub p95_ms: f64,
    /// 99 % did.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Half of the answers began within this time.
    pub first_byte_p50_ms: f64,
    /// Failures by code.
    pub errors: BTreeMap<String, u64>,
}

impl Line {
    /// Of a tally taken over `elapsed`.
    pub fn of(op: &'static str, tally: &Tally, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64().max(f64::EPSILON);
        Self {
            op,
            done: tally.done,
            per_second: tally.done as f64 / seconds,
            megabytes_per_second: tally.bytes as f64 / 1e6 / seconds,
            p50_ms: tally.durations.quantile_ms(0.50),
            p95_ms: tally.durations.quantile_ms(0.95),
            p99_ms: tally.durations.quantile_ms(0.99),
            max_ms: tally.durations.quantile_ms(1.0),
            first_byte_p50_ms: tally.first_bytes.quantile_ms(0.50),
            errors: tally.errors.clone(),
        }
    }
}

/// The whole result.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Object size in bytes.
    pub size: u64,
    /// Concurrent clients.
    pub clients: usize,
    /// Length of the measured part.
    pub seconds: f64,
    /// By operation.
    pub lines: Vec<Line>,
}

impl Report {
    /// Failures of all operations.
    pub fn failures(&self) -> u64 {
        self.lines.iter().flat_map(|line| line.errors.values()).sum()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(out, "{} clients, objects of {} bytes, {:.1} s", self.clients, self.size, self.seconds)?;
        writeln!(
            out,
            "{:<7} {:>9} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9} {:>10}  errors",
            "op", "done", "per s", "MB/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "first ms"
        )?;
        for line in &self.lines {
            writeln!(
                out,
                "{:<7} {:>9} {:>10.1} {:>10.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>10.2}  {}",
                line.op,
                line.done,
                line.per_second,
                line.megabytes_per_second,
                line.p50_ms,
                line.p95_ms,
                line.p99_ms,
                line.max_ms,
                line.first_byte_p50_ms,
                if line.errors.is_empty() { "none".to_owned() } else { format!("{:?}", line.errors) },
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value falls into a bucket whose highest value is at most 1/64 above it. Danger: an off-by-one at a power of two.
    #[test]
    fn buckets_hold_what_they_say() {
        let mut values: Vec<u64> = (0..5000).collect();
        values.extend((12..40).flat_map(|bits| [(1_u64 << bits) - 1, 1 << bits, (1 << bits) + 1]));
        for value in values {
            let highest = highest_of(bucket_of(value));
            assert!(highest >= value && highest - value <= value / STEPS, "{value}: {highest}");
        }
    }

    /// A thousand durations of 1 to 1,000 ms, counted by two clients. Expected: the quantiles of all of them.
    #[test]
    fn quantiles_are_those_of_all_clients() {
        let (mut odd, mut even) = (Histogram::default(), Histogram::default());
        for millis in 1..=1000 {
            if millis % 2 == 0 { &mut even } else { &mut odd }.record(Duration::from_millis(millis));
        }
        odd.merge(&even);
        for (share, expected) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0), (1.0, 1000.0)] {
            let quantile = odd.quantile_ms(share);
            assert!((quantile - expected).abs() <= expected / STEPS as f64, "{share}: {quantile}");
        }
    }
}
