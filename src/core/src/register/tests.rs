//! Unit tests of the rules, and a small random-schedule check of the machines together. The full simulation
//! (links, disks, clocks, linearizability) is `sim/`.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::hlc::{Ballot, Clock, Stamp};
use crate::id::{PeerId, RequestId};
use crate::record::Stored;

fn peer(tag: u8) -> PeerId {
    PeerId::from_bytes([tag; 32])
}

fn ballot(time: u64) -> Ballot {
    Ballot { stamp: Stamp::from_millis(time), peer: 1, nonce: 1 }
}

fn empty_slot() -> Slot {
    Slot { promised: Ballot::ZERO, accepted: None, floor: Stamp(0), collected: Ballot::ZERO }
}

fn record(time: u64, text: &'static str) -> Record {
    Record::write(None, RequestId(time), ballot(time), Some(Bytes::from_static(text.as_bytes())))
}

fn config(tags: &[u8]) -> Config {
    Config { epoch: 1, voters: tags.iter().map(|tag| peer(*tag)).collect(), outgoing: None }
}

#[test]
fn a_promise_is_strict_and_an_accept_may_equal_it() {
    let mut slot = empty_slot();
    assert!(slot.prepare(ballot(5)).is_ok());
    assert!(slot.prepare(ballot(5)).is_err(), "a second promise for one ballot");
    assert!(slot.accept(ballot(4), record(4, "old")).is_err());
    assert!(slot.accept(ballot(5), record(5, "new")).is_ok());
    assert_eq!(slot.prepare(ballot(3)), Err(Refused { highest: ballot(5) }));
}

/// R2: after a restart the promise is gone; what was accepted must still be in the way.
#[test]
fn an_accept_below_the_accepted_ballot_is_refused_after_a_restart() {
    let mut slot = empty_slot();
    slot.accept(ballot(9), record(9, "kept")).expect("free");
    slot.promised = Ballot::ZERO;
    assert!(slot.accept(ballot(8), record(8, "late")).is_err());
}

/// R3: a ballot promised to before the restart was at most the ceiling, which is the floor now.
#[test]
fn nothing_up_to_the_restart_floor_is_taken() {
    let mut slot = Slot { floor: Stamp::from_millis(10), ..empty_slot() };
    assert!(slot.prepare(ballot(10)).is_err());
    assert!(slot.accept(ballot(10), record(10, "x")).is_err());
    assert!(slot.prepare(ballot(11)).is_ok());
}

/// R7: what was collected at t must not come back by a ballot at or below it.
#[test]
fn nothing_up_to_the_collection_floor_is_taken() {
    let mut slot = Slot { collected: ballot(10), ..empty_slot() };
    assert!(slot.prepare(ballot(10)).is_err());
    assert!(slot.accept(ballot(10), record(10, "x")).is_err());
}

#[test]
fn a_quorum_takes_distinct_voters_and_the_highest_record() {
    let mut attempt = Attempt::new(config(&[1, 2, 3]), ballot(20));
    let older = Accepted { ballot: ballot(3), record: record(3, "older") };
    let newer = Accepted { ballot: ballot(4), record: record(4, "newer") };
    assert_eq!(attempt.on_promise(peer(1), Some(older.clone()), Ballot::ZERO), None);
    assert_eq!(attempt.on_promise(peer(1), Some(older), Ballot::ZERO), None, "one voter counted twice");
    assert_eq!(attempt.on_promise(peer(9), None, Ballot::ZERO), None, "a stranger counted");
    let promised = attempt.on_promise(peer(2), Some(newer.clone()), ballot(1)).expect("two of three");
    assert_eq!(promised, Promised { current: Some(newer), unanimous: false, collected: ballot(1) });
}

/// R8: in a joint phase a majority of the new voters alone decides nothing.
#[test]
fn a_joint_quorum_needs_both_majorities() {
    let joint = config(&[1, 2, 3]).begin_change([1, 2, 3, 4].map(peer).into()).expect("one apart");
    assert_eq!((joint.epoch, joint.outgoing.is_some()), (2, true));
    assert!(!joint.is_quorum(&[1, 4].map(peer).into()));
    assert!(!joint.is_quorum(&[2, 3].map(peer).into()));
    assert!(joint.is_quorum(&[1, 2, 3].map(peer).into()));
    assert!(joint.begin_change([1, 2, 3].map(peer).into()).is_none(), "two changes at once");
    let after = joint.finish_change().expect("joint");
    assert_eq!((after.epoch, after.outgoing), (3, None));
    let back = joint.give_up_change().expect("joint");
    assert_eq!((back.epoch, back.voters, back.outgoing), (3, [1, 2, 3].map(peer).into(), None));
    assert!(config(&[1]).begin_change([1, 2, 3].map(peer).into()).is_none(), "two members at once");
}

/// Two of three voters are destroyed, or out of reach and changing on by themselves. A recovery must end up in an epoch
/// that they cannot come to, with a fence before it in which nobody chooses anything; and two recoveries at once, on
/// both sides of a split, must not end up in the same epoch and take each other's messages.
#[test]
fn a_recovery_leaves_every_older_epoch_behind() {
    let lost = config(&[1, 2, 3]);
    let fence = lost.standstill(7);
    assert!(fence.epoch > lost.epoch + 1_000_000);
    assert!(!fence.is_quorum(&BTreeSet::new()) && !fence.is_quorum(&[1, 2, 3].map(peer).into()));
    let founded = fence.refound(peer(3)).expect("a standstill");
    assert!(founded.epoch > fence.epoch && founded.is_quorum(&[peer(3)].into()));
    assert_eq!(lost.refound(peer(3)), None, "only a standstill is ended so");
    assert_ne!(lost.standstill(7).epoch, lost.standstill(8).epoch);
    // Who may hold writes that nobody else has: any two of three, but not two of four.
    assert!(lost.may_elude(&[peer(3)].into()) && !lost.may_elude(&[peer(2), peer(3)].into()));
    assert!(!config(&[1, 2, 3, 4]).may_elude(&[peer(3), peer(4)].into()));
}

/// R5: create 1 reached one voter and its answer was lost. Its retry finds its own id and must say done,
/// not "exists already".
#[test]
fn a_retry_recognises_itself() {
    let change = || {
        let mut change = Change::new(RequestId(7));
        let nothing = Promised { current: None, unanimous: true, collected: Ballot::ZERO };
        let plan = change.plan(ballot(5), nothing, |_| Decision::Delete("created"));
        assert!(matches!(plan, Plan::Accept(_)));
        change
    };
    let own = Record::write(None, RequestId(7), ballot(5), None);
    let over = Record::write(Some(&own), RequestId(8), ballot(6), None);
    let seen = |record: Record, unanimous, collected| Promised {
        current: Some(Accepted { ballot: ballot(9), record }),
        unanimous,
        collected,
    };
    let refuse = |_: Option<&Current>| Decision::Keep("exists");
    let done = Updated { version: ballot(5), answer: "created" };

    let mut found = change();
    assert_eq!(found.plan(ballot(10), seen(over.clone(), true, Ballot::ZERO), refuse), Plan::Report(Ok(done.clone())));
    let mut disputed = change();
    assert_eq!(disputed.plan(ballot(10), seen(over.clone(), false, Ballot::ZERO), refuse), Plan::Accept(over));
    assert_eq!(disputed.accepted(), Some(done));

    let other = record(6, "other");
    let mut lost = change();
    assert_eq!(lost.plan(ballot(10), seen(other.clone(), true, Ballot::ZERO), refuse), Plan::Accept(other.clone()));
    assert_eq!(lost.accepted(), Some(Updated { version: ballot(6), answer: "exists" }), "re-accepted, then refused");
    let unknown = Plan::Report(Err(Unknown::Superseded));
    assert_eq!(change().plan(ballot(10), seen(other.clone(), true, ballot(5)), refuse), unknown, "collected");
    let mut truncated = other;
    truncated.history.truncated = ballot(5);
    assert_eq!(change().plan(ballot(10), seen(truncated, true, Ballot::ZERO), refuse), unknown);
}

/// R5: a refusal of the first attempt stands at once only where all promises agree.
#[test]
fn a_refusal_stands_on_a_chosen_record_only() {
    let seen = |unanimous| Promised {
        current: Some(Accepted { ballot: ballot(3), record: record(2, "x") }),
        unanimous,
        collected: Ballot::ZERO,
    };
    let refuse = |_: Option<&Current>| Decision::Keep(412);
    let refused = Updated { version: ballot(2), answer: 412 };
    assert_eq!(Change::new(RequestId(1)).plan(ballot(4), seen(true), refuse), Plan::Report(Ok(refused.clone())));
    let mut change = Change::new(RequestId(1));
    assert_eq!(change.plan(ballot(4), seen(false), refuse), Plan::Accept(record(2, "x")));
    assert_eq!(change.accepted(), Some(refused));
}

/// R7: only the voter that holds exactly the tombstone forgets it, and what it promised goes into the floor.
#[test]
fn a_tombstone_leaves_its_floor() {
    let tombstone = Record::write(None, RequestId(1), ballot(4), None);
    let slot =
        Slot { promised: ballot(7), accepted: Some(Accepted { ballot: ballot(5), record: tombstone }), ..empty_slot() };
    assert!(slot.holds(ballot(5)) && slot.holds(ballot(4)) && !slot.holds(ballot(6)) && !empty_slot().holds(ballot(1)));
    assert_eq!(slot.collect(ballot(5)), Some(ballot(7)));
    assert_eq!(slot.collect(ballot(4)), None, "another than it holds");
    let live = Slot { accepted: Some(Accepted { ballot: ballot(5), record: record(4, "v") }), ..empty_slot() };
    assert_eq!(live.collect(ballot(5)), None, "a live record");
}

#[test]
fn a_read_needs_a_quorum_alike() {
    let mut reading = Reading::new(config(&[1, 2, 3]));
    assert_eq!(reading.on_answer(peer(9), Some(ballot(1))), Heard::TooFew, "a stranger counted");
    assert_eq!(reading.on_answer(peer(1), Some(ballot(1))), Heard::TooFew);
    assert_eq!(reading.on_answer(peer(1), Some(ballot(1))), Heard::TooFew, "one voter counted twice");
    assert_eq!(reading.on_answer(peer(2), None), Heard::Differ);
    assert_eq!(reading.on_answer(peer(3), Some(ballot(1))), Heard::Agreed(Some(ballot(1))));
}

#[test]
fn history_is_bounded_by_count_and_by_age_and_says_so() {
    let mut current: Option<Record> = None;
    let last = HISTORY_WRITES as u64 + 12;
    for time in 1..=last {
        current = Some(Record::write(current.as_ref(), RequestId(time), ballot(time), None));
    }
    let history = current.clone().expect("written").history;
    assert_eq!((history.writes.len(), history.truncated), (HISTORY_WRITES, ballot(12)));
    let later = Record::write(current.as_ref(), RequestId(99), ballot(last + HISTORY_MILLIS + 1), None);
    assert_eq!((later.history.writes.len(), later.history.truncated), (1, ballot(last)));
}

/// Golden bytes: what disks and peers hold. A change here is a new version, never an edit.
#[test]
fn accepted_records_keep_their_bytes() {
    let accepted = Accepted { ballot: ballot(2), record: record(1, "v") };
    let bytes = accepted.encode();
    assert_eq!(
        data_encoding::HEXLOWER.encode(&bytes),
        "0180800801018080040101010176010180800401010000 00".replace(' ', "")
    );
    assert_eq!(Accepted::decode(&bytes), Ok(accepted));
}

/// One increment of a counter register by one proposer, step by step, so that a schedule can interleave
/// several of them with lost messages and voters that restart.
struct Proposal {
    attempt: Attempt,
    record: Option<Record>,
    sent: BTreeSet<PeerId>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Story: three proposers increment one counter through five voters; a random schedule delivers, drops
    /// and restarts (promises lost, floor raised). Danger: two increments chosen on the same base (a lost
    /// update). Expectation: the versions ever chosen form one chain: each chosen value is distinct.
    #[test]
    fn chosen_values_never_fork(steps in prop::collection::vec((0..3usize, 0..5u8, 0..10u8), 1..400)) {
        let voters = config(&[0, 1, 2, 3, 4]);
        let mut slots: Vec<Slot> = (0..5).map(|_| empty_slot()).collect();
        let mut clocks: Vec<Clock> = (0..3).map(|n| Clock::new(&peer(100 + n), u32::from(n), Stamp(0))).collect();
        let mut proposals: Vec<Option<Proposal>> = vec![None, None, None];
        let mut chosen: Vec<(Ballot, u8)> = Vec::new();
        for (step, (who, voter, luck)) in steps.into_iter().enumerate() {
            let slot = &mut slots[usize::from(voter)];
            if luck == 0 {
                // The voter restarts: promises are lost, and the ceiling (its highest stamp) is the floor.
                let highest = slot.highest();
                *slot = Slot { promised: Ballot::ZERO, floor: highest.stamp, ..slot.clone() };
                continue;
            }
            let proposal = proposals[who].get_or_insert_with(|| Proposal {
                attempt: Attempt::new(voters.clone(), clocks[who].tick(step as u64)),
                record: None,
                sent: BTreeSet::new(),
            });
            let ballot = proposal.attempt.ballot();
            if !proposal.sent.insert(peer(voter)) || luck == 1 {
                continue; // asked already, or the message is lost
            }
            let refused = match &proposal.record {
                None => match slot.prepare(ballot).map(Option::<&Accepted>::cloned) {
                    Ok(accepted) => {
                        if let Some(promised) = proposal.attempt.on_promise(peer(voter), accepted, Ballot::ZERO) {
                            let count = promised.current.as_ref().map_or(0, |a| a.record.value.as_ref().map_or(0, |v| v[0]));
                            let base = promised.current.map(|accepted| accepted.record);
                            let value = Bytes::from(vec![count + 1]);
                            proposal.record = Some(Record::write(base.as_ref(), RequestId(step as u64), ballot, Some(value)));
                            proposal.sent.clear();
                        }
                        false
                    }
                    Err(refused) => { clocks[who].observe(refused.highest.stamp); true }
                },
                Some(record) => match slot.accept(ballot, record.clone()) {
                    Ok(_) => {
                        if proposal.attempt.on_accept(peer(voter)) {
                            chosen.push((ballot, record.value.as_ref().map_or(0, |v| v[0])));
                            proposals[who] = None;
                        }
                        false
                    }
                    Err(refused) => { clocks[who].observe(refused.highest.stamp); true }
                },
            };
            let spent = proposals[who].as_ref().is_some_and(|proposal| proposal.sent.len() == 5);
            if refused || spent {
                proposals[who] = None; // a new ballot next time
            }
        }
        chosen.sort();
        for pair in chosen.windows(2) {
            prop_assert!(pair[0].1 < pair[1].1, "a later ballot chose {} after {}", pair[1].1, pair[0].1);
        }
    }
}
