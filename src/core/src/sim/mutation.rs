//! The mutation check: every fault is planted, and the suite must catch it (`docs/mutation-check.md`).

use super::fault::Fault;
use super::hunt;

/// Seeds looked through for each fault, from its own on: more than that one are run only after a change of the machines
/// has moved what the seeds show.
const WINDOW: u64 = 500;

/// Faults that random seeds show, and the first seed that did.
const BY_SEED: &[(Fault, u64)] = &[
    (Fault::ReacceptChangesVersion, 41),
    (Fault::AcceptBeforeSync, 61),
    (Fault::AcceptChecksPromiseOnly, 0),
    (Fault::AnswersOfOtherBallots, 0),
    (Fault::SilenceIsFailure, 21),
    (Fault::RefusalAtOnce, 31),
    (Fault::RetryForgetsItself, 2),
    (Fault::FoundIsDone, 6),
    (Fault::TruncatedListTrusted, 2),
    (Fault::CollectedAncestorsIgnored, 95),
    (Fault::TombstoneForgetsAncestors, 6),
    (Fault::GossipPastPromises, 56),
    (Fault::InstallUnvouched, 287),
    (Fault::CollectedByMajority, 37),
    (Fault::NoCollectionFloor, 1),
    (Fault::NoJointPhase, 11),
    (Fault::NothingSettled, 24),
    (Fault::CopyBeforeFence, 37),
    (Fault::RawCopy, 266),
    (Fault::VolatileEpoch, 424),
    (Fault::UnchosenAdopted, 36),
    (Fault::JoinerKeepsState, 36),
    (Fault::LostDiskVotes, 134),
    (Fault::LearnerVotes, 141),
    (Fault::ReadTakesMaximum, 43),
    (Fault::ReadServesAnyCopy, 1),
    (Fault::ListTakesMaximum, 106),
    (Fault::ListSkipsDisputed, 3),
    (Fault::ListEndsAtLargest, 250),
];

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
        let first = BY_SEED.iter().find(|(known, _)| known == fault).map_or(0, |(_, seed)| *seed);
        match hunt(*fault, first..first + WINDOW) {
            Some((seed, wrong)) => {
                println!("| `{fault:?}` | seed {seed} | {} |", wrong.lines().next().unwrap_or_default());
            }
            None => missed.push(*fault),
        }
    }
    assert!(missed.is_empty(), "not caught in {WINDOW} seeds: {missed:?}");
}
