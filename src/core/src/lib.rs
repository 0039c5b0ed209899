//! # palm-core: what PALM decides
//!
//! Everything here is a plain function or a state machine: no tokio, no sockets, no files, no clock and
//! no randomness but what is passed in (`clippy.toml` bans them by name). That is what lets one thread
//! simulate a whole pool under one seed, and what keeps most work on PALM compiling in seconds.
//!
//! A good order to read:
//!
//! 1. [`id`] and [`hlc`]: the names of things, and the stamps that order their changes.
//! 2. [`register`]: one metadata key as a leaderless consensus register, acceptor and proposer.
//! 3. [`record`]: what the registers hold (buckets, objects, uploads, members, keys) and how keys sort.
//! 4. [`code`]: sealing a stripe so that fewer than k shards say nothing, and Reed-Solomon over it.
//! 5. [`place`]: which peers keep the fragments of a segment, and when a write is durable.
//! 6. [`repair`]: what is to be done for a segment that lost some, who sees to it, and how well it is kept.
//! 7. [`durability`]: how likely an object is to be lost, and what that figure rests on.
//! 8. [`listing`]: a linearizable page out of the pages of a quorum.
//! 9. [`reconcile`]: finding where two replicas differ at the cost of the difference.
//! 10. [`merge`]: how the copies of a pool of local consistency become one.
//! 11. [`s3`]: what S3 decides: who may do what, which version a key shows, when an object expires.
//! 12. [`wire`]: every message between peers, with its bounds.
//!
//! Invariants are numbered in `ARCHITECTURE.md`; rules of the ledger are cited as `R1`…`R8` and stand in
//! `docs/ledger.md`.

/// Whether a rule of the ledger is left out on purpose (`sim::fault`); never, and at no cost, in builds without the simulation.
#[cfg(feature = "sim")]
macro_rules! planted {
    ($fault:ident) => {
        $crate::sim::fault::is_planted($crate::sim::fault::Fault::$fault)
    };
}
#[cfg(not(feature = "sim"))]
macro_rules! planted {
    ($fault:ident) => {
        false
    };
}

pub mod code;
pub mod durability;
pub mod hlc;
pub mod id;
pub mod listing;
pub mod merge;
pub mod place;
pub mod reconcile;
pub mod record;
pub mod register;
pub mod repair;
pub mod s3;
#[cfg(feature = "sim")]
pub mod sim;
pub mod wire;
