//! How far a catch-up is.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use parking_lot::Mutex;

/// How far a catch-up is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CatchUp {
    /// Records brought.
    pub records: u64,
    /// Records there are to bring, these included: an estimate until the last range is begun.
    pub total: u64,
    /// Bytes of the records brought.
    pub bytes: u64,
    /// Milliseconds since it began.
    pub elapsed_ms: u64,
}

impl CatchUp {
    /// Records per second, so far.
    pub fn rate(&self) -> u64 {
        self.records * 1_000 / self.elapsed_ms.max(1)
    }

    /// Seconds left at this rate; `None` before there is one.
    pub fn seconds_left(&self) -> Option<u64> {
        let rate = self.rate();
        (rate > 0).then(|| self.total.saturating_sub(self.records).div_ceil(rate))
    }
}

impl std::fmt::Display for CatchUp {
    /// `120,000 of 1,000,000 records, 40 s left`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} records", thousands(self.records), thousands(self.total))?;
        match self.seconds_left() {
            Some(seconds) if seconds >= 120 => write!(f, ", {} min left", seconds / 60),
            Some(seconds) => write!(f, ", {seconds} s left"),
            None => Ok(()),
        }
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Counts one catch-up over its ranges, and shows it while it lasts.
pub(super) struct Tally<'a> {
    shown: &'a watch::Sender<Option<CatchUp>>,
    since: Instant,
    counts: Mutex<Counts>,
}

struct Counts {
    /// Ranges not begun.
    waiting: u64,
    /// What is left of each range begun.
    left: Vec<u64>,
    records: u64,
    bytes: u64,
}

impl<'a> Tally<'a> {
    pub(super) fn begin(shown: &'a watch::Sender<Option<CatchUp>>, ranges: usize) -> Self {
        let counts = Counts { waiting: ranges as u64, left: Vec::new(), records: 0, bytes: 0 };
        Self { shown, since: Instant::now(), counts: Mutex::new(counts) }
    }

    /// Begins a range; answers its place.
    pub(super) fn start(&self) -> usize {
        let mut counts = self.counts.lock();
        counts.waiting = counts.waiting.saturating_sub(1);
        counts.left.push(0);
        counts.left.len() - 1
    }

    /// Some of a range was brought.
    pub(super) fn took(&self, place: usize, records: usize, bytes: u64, left: u64) {
        {
            let mut counts = self.counts.lock();
            counts.records += records as u64;
            counts.bytes += bytes;
            if let Some(here) = counts.left.get_mut(place) {
                *here = left;
            }
        }
        self.shown.send_replace(Some(self.now()));
    }

    /// How far it is.
    pub(super) fn now(&self) -> CatchUp {
        let counts = self.counts.lock();
        let begun = counts.left.len().max(1) as u64;
        let known = counts.records + counts.left.iter().sum::<u64>();
        CatchUp {
            records: counts.records,
            total: known + counts.waiting * counts.records / begun,
            bytes: counts.bytes,
            elapsed_ms: self.since.elapsed().as_millis() as u64,
        }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.shown.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A person reads this line to decide whether to wait; the wording is promised in README.
    #[test]
    fn progress_is_told_in_words() {
        let half = CatchUp { records: 120_000, total: 1_000_000, bytes: 1, elapsed_ms: 5_454 };
        assert_eq!(half.to_string(), "120,000 of 1,000,000 records, 40 s left");
        let slow = CatchUp { elapsed_ms: 60_000, ..half };
        assert_eq!(slow.to_string(), "120,000 of 1,000,000 records, 7 min left");
        assert_eq!(CatchUp { total: 999, ..CatchUp::default() }.to_string(), "0 of 999 records");
    }

    /// Ranges not yet begun are taken to be like those begun; what an answer says is left counts as it is.
    #[test]
    fn the_total_is_estimated_from_what_was_seen() {
        let shown = watch::Sender::new(None);
        let tally = Tally::begin(&shown, 4);
        let (first, second) = (tally.start(), tally.start());
        tally.took(first, 100, 1_000, 0);
        tally.took(second, 100, 1_000, 50);
        assert_eq!(tally.now().total, 250 + 200);
        assert_eq!(shown.borrow().as_ref().map(|shown| shown.records), Some(200));
        drop(tally);
        assert_eq!(*shown.borrow(), None);
    }
}
