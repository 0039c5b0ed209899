//! One metadata key as a leaderless consensus register: CASPaxos (Rystsov, arXiv 1802.07000) with the rules
//! of `docs/ledger.md`, cited here as `R1`…`R8`.
//!
//! Every decision of the ledger is made here, and none of it does I/O: the shell (`palm::pool::ledger`) and the
//! simulation (`sim`) carry messages and keep state durable around the same machines.
//! - [`Slot`] and [`Promises`] are what a voter knows of a key; they say what it may answer, and when a tombstone may
//!   be collected. The shell makes an accept durable before it answers (R2).
//! - [`Attempt`] is one ballot of a proposer: it counts promises and accepts of distinct voters.
//! - [`Change`] is one client mutation over as many attempts as it takes: it plans each, and recognises itself (R5).
//! - [`Reading`] counts the answers of a strong read.
//! - [`Config`] is who votes, and how that changes (R8).
//!
//! What is absent: no leader, no log, no term. Two keys never share anything but the configuration.

mod attempt;
mod backoff;
mod change;
mod config;
mod history;
mod reading;
mod slot;
#[cfg(test)]
mod tests;

pub use attempt::{Attempt, Promised};
pub use backoff::backoff;
pub use change::{Change, Current, Decision, Plan, Unknown, Updated};
pub use config::{Config, Refusal};
pub use history::{Accepted, HISTORY_MILLIS, HISTORY_WRITES, History, Record};
pub use reading::{Heard, Reading};
pub use slot::{FLOOR_RANGES, Promises, Refused, Slot, ceiling_above, floor_range};
