//! What a stranger may cost: a few requests a second per address, and a bounded number of addresses remembered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Requests to join that an address may make at once.
const BURST: f64 = 40.0;
/// And per second after that. Guessing a 256-bit secret at this rate is no concern; the ledger reads are.
const PER_SECOND: f64 = 4.0;
/// Addresses remembered. When they run out, those that have recovered are forgotten, then newcomers wait.
const MAX_ADDRESSES: usize = 4096;

/// A token bucket per address.
pub struct Limiter {
    buckets: HashMap<IpAddr, Bucket>,
    burst: f64,
    per_second: f64,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(BURST, PER_SECOND)
    }
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant, burst: f64, per_second: f64) {
        let passed: Duration = now.saturating_duration_since(self.at);
        self.left = (self.left + passed.as_secs_f64() * per_second).min(burst);
        self.at = now;
    }
}

impl Limiter {
    /// Lets an address make `burst` requests at once, and `per_second` after that.
    pub fn new(burst: f64, per_second: f64) -> Self {
        Self { buckets: HashMap::new(), burst, per_second }
    }

    /// Whether a request from this address is heard.
    pub fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        let (burst, per_second) = (self.burst, self.per_second);
        if self.buckets.len() >= MAX_ADDRESSES && !self.buckets.contains_key(&address) {
            self.buckets.retain(|_, bucket| {
                bucket.refill(now, burst, per_second);
                bucket.left < burst
            });
            if self.buckets.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let bucket = self.buckets.entry(address).or_insert(Bucket { left: burst, at: now });
        bucket.refill(now, burst, per_second);
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stranger hammers the door: it is heard at the agreed rate only, and an honest neighbour is not affected.
    #[test]
    fn an_address_is_slowed_and_others_are_not() {
        let (loud, quiet) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let start = Instant::now();
        let mut limiter = Limiter::default();
        let heard = (0..1000).filter(|_| limiter.admit(loud, start)).count();
        assert_eq!(heard, 40);
        assert!(limiter.admit(quiet, start));
        assert!(!limiter.admit(loud, start + Duration::from_millis(100)));
        assert!(limiter.admit(loud, start + Duration::from_secs(1)));
    }

    /// A stranger with many addresses must not fill the memory.
    #[test]
    fn the_memory_of_addresses_is_bounded() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        for n in 0..10_000_u32 {
            limiter.admit(IpAddr::from(n.to_be_bytes()), start);
        }
        assert_eq!(limiter.buckets.len(), MAX_ADDRESSES);
        assert!(limiter.admit(IpAddr::from([255, 0, 0, 1]), start + Duration::from_secs(60)), "the old ones recovered");
    }
}
