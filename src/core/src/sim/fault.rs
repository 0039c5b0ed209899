//! Faults planted on purpose: every "broke" of the ledger's rules, to prove that the simulation would see it.
//!
//! Core asks [`is_planted`] through the macro `planted!`, which is `false` in every build without the feature `sim`;
//! the simulated shell asks where the rule lives in the shell. One thread simulates one world, so one cell says it.

use std::cell::Cell;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A rule left out. Named after what is done instead.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// All of them, in the order of the rules.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

faults! {
    /// R1: re-accepting a record stamps it with a new version.
    ReacceptChangesVersion,
    /// R2: an accept is answered before it is synced.
    AcceptBeforeSync,
    /// R2: an accept is checked against the promise only, which a restart forgets.
    AcceptChecksPromiseOnly,
    /// R3: nothing is refused after a restart for having been promised before it.
    NoRestartFloor,
    /// R3: the clock ceiling is kept in memory.
    VolatileCeiling,
    /// R3: answers are counted for whatever ballot the proposer is at.
    AnswersOfOtherBallots,
    /// R4: silence after an accept was sent is reported as a failure.
    SilenceIsFailure,
    /// R5: a refusal is reported on a record that is not known to be chosen.
    RefusalAtOnce,
    /// R5: a refusal is reported on an agreed record although an own accept is still on its way.
    RefusalAfterAccept,
    /// R5: a retry does not look for its own request id.
    RetryForgetsItself,
    /// R5: a retry that finds itself reports success without making sure of it.
    FoundIsDone,
    /// R5: a truncated list is taken for the whole.
    TruncatedListTrusted,
    /// R5: a collection floor above the first accept is ignored.
    CollectedAncestorsIgnored,
    /// R5: a tombstone forgets its ancestors.
    TombstoneForgetsAncestors,
    /// R6: what another voter holds is installed without consensus.
    GossipInstalls,
    /// R6: chosen records are installed past a promise.
    GossipPastPromises,
    /// R6: late accepts are taken on one voter's word.
    InstallUnvouched,
    /// R7: a majority that holds the tombstone is enough to collect it.
    CollectedByMajority,
    /// R7: collecting a record drops the promise given for its key.
    CollectingDropsPromise,
    /// R7: the collection floor is kept in memory.
    VolatileFloor,
    /// R7: no collection floor at all.
    NoCollectionFloor,
    /// R7: messages of collection carry no epoch.
    CollectingWithoutEpoch,
    /// R8: from the old voters to the new without a joint phase.
    NoJointPhase,
    /// R8: the fence fences nothing: who has adopted an epoch goes on answering older ones.
    NoFence,
    /// R8: the new epoch begins without settling the keys.
    NothingSettled,
    /// R8: no promise for all keys before the pages of the voters are believed.
    NoRaise,
    /// R8: the joiner copies from a voter that is not yet in the new epoch.
    CopyBeforeFence,
    /// R8: the joiner copies a voter's registers past promises.
    RawCopy,
    /// R8: reads carry no epoch.
    ReadsWithoutEpoch,
    /// R8: the adopted epoch is kept in memory.
    VolatileEpoch,
    /// R8: promises of one epoch are used in another.
    PromisesAcrossEpochs,
    /// R8: a configuration is adopted before it is chosen.
    UnchosenAdopted,
    /// R8: a removed voter forgets the epoch it was removed in.
    RemovedForgetsEpoch,
    /// R8: a joiner keeps the acceptor state of an earlier life as a voter.
    JoinerKeepsState,
    /// R8: a voter that was away while it was removed and added again keeps its acceptor state.
    RejoinerKeepsState,
    /// R8: a joiner takes no collection floors over.
    JoinerWithoutFloors,
    /// R8: a voter that lost its disk goes on under its old id.
    LostDiskVotes,
    /// Reads: a learner's copy counts as a vote.
    LearnerVotes,
    /// Reads: the highest ballot is believed without agreement.
    ReadTakesMaximum,
    /// Reads: the local copy is served whatever ballot was agreed on.
    ReadServesAnyCopy,
    /// LIST: the highest ballot of a disputed key is believed.
    ListTakesMaximum,
    /// LIST: disputed keys are left out.
    ListSkipsDisputed,
    /// LIST: a page ends at the largest of the voters' ends.
    ListEndsAtLargest,
}

thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    static HISTORY_WRITES: Cell<usize> = const { Cell::new(crate::register::HISTORY_WRITES) };
}

/// Whether this fault is planted in this thread.
pub fn is_planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Plants a fault in this thread, or takes it out.
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// How many writes a record's history lists in this thread: few, so that lists are truncated (R5).
pub fn history_writes() -> usize {
    HISTORY_WRITES.get()
}

/// Sets it.
pub fn set_history_writes(writes: usize) {
    HISTORY_WRITES.set(writes);
}
