//! The mutation check: every fault is planted, and the suite must catch it (`docs/mutation-check.md`).

use std::ops::Range;

use super::fault::Fault;
use super::hunt;

/// Faults that random seeds show, each with a range that holds one: the range is looked through from its beginning.
/// The same seeds run clean without the fault: they are among those of `make soak-sim`.
const BY_SEED: &[(Fault, Range<u64>)] = &[];

/// Faults that need a schedule by hand: the tests of `directed`.
const BY_SCHEDULE: &[Fault] = &[
    Fault::NoRestartFloor,
    Fault::VolatileCeiling,
    Fault::RefusalAfterAccept,
    Fault::GossipInstalls,
    Fault::ReadsWithoutEpoch,
    Fault::JoinerWithoutFloors,
];
