//! Whole rooms together, in one process, over real QUIC on loopback and in-memory stores; and the walls between rooms.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod audit;
mod catchup;
mod collect;
mod disks;
mod ledger;
mod local;
mod object;
mod repair;
mod tidy;
mod version;
mod voters;
