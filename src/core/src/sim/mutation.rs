//! The mutation check: every fault is planted, and the suite must catch it (`docs/mutation-check.md`).

use super::fault::Fault;
use super::hunt;

/// Random seeds looked through for each fault. They run clean without it: `make soak-sim` holds them all.
const SEEDS: u64 = 500;

/// Faults that random seeds hit too seldom: each has a test in `directed`.
const BY_SCHEDULE: &[Fault] = &[
    Fault::NoRestartFloor,
    Fault::VolatileCeiling,
    Fault::RefusalAfterAccept,
    Fault::GossipInstalls,
    Fault::CollectingDropsPromise,
    Fault::VolatileFloor,
    Fault::CollectingWithoutEpoch,
    Fault::NoRaise,
    Fault::NoFence,
    Fault::ReadsWithoutEpoch,
    Fault::PromisesAcrossEpochs,
    Fault::RemovedForgetsEpoch,
    Fault::RejoinerKeepsState,
    Fault::JoinerWithoutFloors,
];

/// Story: each rule of the ledger is left out in turn. Danger: a simulation that would not notice proves nothing.
/// Expectation: a seed shows each of them; those that are too rare are caught by their schedule.
#[test]
fn every_planted_fault_is_caught() {
    let mut missed = Vec::new();
    for fault in Fault::ALL.iter().filter(|fault| !BY_SCHEDULE.contains(fault)) {
        match hunt(*fault, 0..SEEDS) {
            Some((seed, wrong)) => {
                println!("| `{fault:?}` | seed {seed} | {} |", wrong.lines().next().unwrap_or_default());
            }
            None => missed.push(*fault),
        }
    }
    assert!(missed.is_empty(), "not caught in {SEEDS} seeds: {missed:?}");
}
