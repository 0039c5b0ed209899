//! The ledger in simulation: see `palm_core::sim`.

use palm_core::sim;

/// Story: five hundred small worlds, each with its own faults, clients and voters. Danger: anything the rules of
/// `docs/ledger.md` forbid. Expectation: every register linearizable, every page made of states its registers were
/// in, every register writable after healing. A failure prints its seed and its history.
#[test]
fn five_hundred_worlds_are_linearizable() {
    for seed in 0..500 {
        if let Err(violation) = sim::run(seed) {
            panic!("{violation}");
        }
    }
}

/// Story: a failure names its seed. Danger: hash order or a clock sneaks in and the seed shows something else next
/// time. Expectation: the same bytes twice.
#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..20 {
        let first = sim::transcript(seed);
        assert!(first.lines().count() > 20, "a history of {} lines", first.lines().count());
        assert_eq!(first, sim::transcript(seed), "seed {seed}");
    }
}
