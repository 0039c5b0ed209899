//! How much of bodies this peer holds in memory at once.

use std::sync::Arc;
use std::time::Duration;

use palm_core::code::STRIPE_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ObjectError;

/// What all bodies under way may hold together. A peer is to stay under 400 MiB with 16 streams; index,
/// QUIC windows and the fragments of others need the rest.
const BUDGET_BYTES: u64 = 256 << 20;
/// The semaphore counts in this unit, so that its 32-bit requests reach far enough.
const UNIT_BYTES: u64 = 4 << 10;
/// A request waits this long for its share before it is refused: long enough to ride out a burst, short
/// enough that a client's retry is the better queue.
const WAIT: Duration = Duration::from_secs(3);

/// What a stream of many stripes holds: about two stripes as they came in, one being sealed, and two more,
/// sealed and with parity (at most twice as long), in the queues to the homes; on the way out the same in
/// reverse.
pub(super) const STREAM_BYTES: u64 = 8 * STRIPE_BYTES as u64;

/// The bytes still to be had.
pub(super) struct Budget {
    units: Arc<Semaphore>,
    wait: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { units: Arc::new(Semaphore::new((BUDGET_BYTES / UNIT_BYTES) as usize)), wait: WAIT }
    }
}

/// A share of the budget; given back on drop.
pub(super) struct Share(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Budget {
    /// A share of this many bytes, first come first served; refused as [`ObjectError::Overloaded`] when none
    /// becomes free in time.
    pub(super) async fn take(&self, bytes: u64) -> Result<Share, ObjectError> {
        let units = bytes.min(BUDGET_BYTES).div_ceil(UNIT_BYTES) as u32;
        let share = match self.units.clone().try_acquire_many_owned(units) {
            Ok(share) => share,
            Err(_) => tokio::time::timeout(self.wait, self.units.clone().acquire_many_owned(units))
                .await
                .map_err(|_| ObjectError::Overloaded)?
                .map_err(|_| ObjectError::Overloaded)?,
        };
        Ok(Share(share))
    }

    /// Bytes not taken.
    pub(super) fn free_bytes(&self) -> u64 {
        self.units.available_permits() as u64 * UNIT_BYTES
    }

    /// Bytes taken.
    pub(super) fn taken_bytes(&self) -> u64 {
        BUDGET_BYTES.saturating_sub(self.free_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Too many streams at once must be refused, not buffered until the peer is killed for its memory; and a
    /// stream that ends must make room for the next.
    #[tokio::test]
    async fn beyond_the_budget_requests_are_refused_until_one_ends() {
        let budget = Budget { wait: Duration::from_millis(10), ..Budget::default() };
        let mut shares = Vec::new();
        for _ in 0..BUDGET_BYTES / STREAM_BYTES {
            shares.push(budget.take(STREAM_BYTES).await.unwrap());
        }
        assert!(matches!(budget.take(1).await, Err(ObjectError::Overloaded)));
        shares.pop();
        assert!(budget.take(STREAM_BYTES).await.is_ok());
    }
}
