//! Decorators: stores that add one thing to another store. Each is a plain implementation of [`FragmentStore`](crate::FragmentStore), so they
//! stack in any order, and each passes the conformance suite around a store that does.
//!
//! | decorator | adds | in a URL |
//! | --- | --- | --- |
//! | [`Quota`] | a bound on what is stored, and a reserve left free | `max_bytes`, `reserve` (`disk` and `memory` bound themselves) |
//! | [`Throttle`] | a bound on bytes a second, another one in quiet hours | `bandwidth=50MB`, `quiet=23:00-07:00`, `quiet_bandwidth=5MB` |
//! | [`Cached`] | small fragments kept in memory | `cache=64MiB` |
//! | [`Metered`] | counts and times of operations | always |
//! | `Faulty` | failures, by a seed; for tests | |

mod cached;
mod clock;
#[cfg(any(test, feature = "conformance"))]
mod faulty;
mod metered;
mod quota;
#[cfg(test)]
mod tests;
mod throttle;

pub use cached::Cached;
pub use clock::local_minute;
#[cfg(any(test, feature = "conformance"))]
pub use faulty::{Faults, Faulty};
pub use metered::{Meter, Metered, Meters, Operation, TOOK_MICROS};
pub use quota::Quota;
pub use throttle::{Bandwidth, Clock, Pace, QuietHours, Throttle, parse_hours};
