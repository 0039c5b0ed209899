//! Pools: membership, liveness, and the ledger over the network.

pub mod ledger;
pub mod view;

pub use ledger::{Current, Decision, Ledger, LedgerError, Updated};
pub use view::View;
