//! Schedules by hand, for faults that random ones hit too seldom. Each must show its fault, and nothing without it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;

use super::check::check;
use super::fault::{Fault, plant};
use super::history::{Entry, Op, Outcome, Seen, Value};
use super::link::Weather;
use super::peer::Peer;
use super::world::{Ask, Reply, SECOND, World, peer_id};
use crate::hlc::Ballot;
use crate::id::RequestId;
use crate::register::{Attempt, Change, Config, Current, Decision, Plan, Record};

const X: Value = Value(4);
const Y: Value = Value(8);

fn key() -> Bytes {
    Bytes::from_static(b"os\0k")
}

/// An operation whose every message is placed by hand.
struct Proposal {
    entry: usize,
    op: Op,
    change: Change<(Option<Value>, bool)>,
    attempt: Option<Attempt>,
    record: Option<Record>,
}

/// A quiet world of three voters and three learners, to be disturbed by hand.
#[derive(Clone)]
struct Script(Rc<World>);

impl Script {
    fn peer(&self, number: usize) -> Peer {
        self.0.peer(number).expect("up")
    }

    fn restart(&self, number: usize) {
        let node = Rc::clone(&self.0.nodes.borrow()[number]);
        self.0.crash(&node);
        self.0.start(&node);
    }

    /// Begins an operation; it lasts until its answer is noted, if ever.
    fn begin(&self, op: Op) -> Proposal {
        let mut history = self.0.history.borrow_mut();
        let called = history.event();
        history.entries.push(Entry { key: key(), op, called, returned: None, outcome: Outcome::Unknown });
        let request = RequestId(self.0.draw(0..u64::MAX));
        Proposal { entry: history.entries.len() - 1, op, change: Change::new(request), attempt: None, record: None }
    }

    fn answer(&self, entry: usize, seen: Seen) {
        let mut history = self.0.history.borrow_mut();
        let returned = history.event();
        history.entries[entry].returned = Some(returned);
        history.entries[entry].outcome = Outcome::Ok(seen);
    }

    /// A new ballot of `proposer`, promised by these voters; decides if they are a quorum.
    async fn prepare(&self, proposal: &mut Proposal, proposer: usize, voters: &[usize]) {
        let proposer = self.peer(proposer);
        let (config, ballot) = (proposer.config(), proposer.tick());
        let mut attempt = Attempt::new((*config).clone(), ballot);
        proposal.record = None;
        for &voter in voters {
            let ask = Ask::Prepare { epoch: config.epoch, key: key(), ballot };
            let Reply::Promised(accepted, floor) = self.peer(voter).handle(ask).await else { continue };
            let Some(promised) = attempt.on_promise(peer_id(voter), accepted, floor) else { continue };
            let op = proposal.op;
            let decide = |current: Option<&Current>| {
                let state = current.map(|current| Value::of(&current.value));
                match op.effect(state) {
                    Some(Some(value)) => Decision::Put(value.bytes(), (state, true)),
                    Some(None) => Decision::Delete((state, true)),
                    None => Decision::Keep((state, false)),
                }
            };
            match proposal.change.plan(ballot, promised, decide) {
                Plan::Accept(record) => proposal.record = Some(record),
                Plan::Report(Ok(updated)) => {
                    let (state, wrote) = updated.answer;
                    self.answer(proposal.entry, Seen { state, version: updated.version, wrote });
                }
                Plan::Report(Err(_)) => {}
            }
            break;
        }
        proposal.attempt = Some(attempt);
    }

    /// The accept of the last decision, at these voters; notes the answer once a quorum has accepted.
    async fn accept(&self, proposal: &mut Proposal, voters: &[usize]) {
        let Some(attempt) = &mut proposal.attempt else { return };
        let Some(record) = &proposal.record else { return };
        for &voter in voters {
            let (epoch, ballot) = (attempt.config().epoch, attempt.ballot());
            let ask = Ask::Accept { epoch, key: key(), ballot, record: record.clone() };
            if matches!(self.peer(voter).handle(ask).await, Reply::Accepted)
                && attempt.on_accept(peer_id(voter))
                && let Some(updated) = proposal.change.clone().accepted()
            {
                let (state, wrote) = updated.answer;
                self.answer(proposal.entry, Seen { state, version: updated.version, wrote });
                return;
            }
        }
    }

    /// A whole operation by a peer's own shell.
    async fn perform(&self, peer: usize, op: Op) {
        let entry = self.begin(op).entry;
        let peer = self.peer(peer);
        let seen = if op == Op::Read {
            let current = peer.read(&key()).await.expect("a quorum is up");
            Seen { state: current.map(|current| Value::of(&current.value)), version: Ballot::ZERO, wrote: false }
        } else {
            let decide = |current: Option<&Current>| {
                let state = current.map(|current| Value::of(&current.value));
                match op.effect(state) {
                    Some(Some(value)) => Decision::Put(value.bytes(), (state, true)),
                    Some(None) => Decision::Delete((state, true)),
                    None => Decision::Keep((state, false)),
                }
            };
            let updated = peer.update(&key(), decide).await.expect("a quorum is up");
            Seen { state: updated.answer.0, version: updated.version, wrote: updated.answer.1 }
        };
        self.answer(entry, seen);
    }

    async fn move_voters(&self, driver: usize, target: &[usize]) {
        let target: BTreeSet<_> = target.iter().map(|number| peer_id(*number)).collect();
        while self.peer(driver).config().voters != target || self.peer(driver).config().outgoing.is_some() {
            self.peer(driver).change_voters(&target).await.expect("everyone is up");
        }
    }
}

/// Plays a schedule and judges what came of it, without and with the fault.
fn shows<F: Future<Output = ()> + 'static>(fault: Fault, schedule: impl Fn(Script) -> F) {
    for planted in [None, Some(fault)] {
        plant(planted);
        let world = World::new(7, Weather::CALM);
        world.level_ms.set(1 << 40);
        let first = Config { epoch: 1, voters: (0..3).map(peer_id).collect(), outgoing: None };
        for _ in 0..6 {
            world.add_node(first.clone());
        }
        let finished = Rc::new(RefCell::new(false));
        let (over, script) = (Rc::clone(&finished), schedule(Script(Rc::clone(&world))));
        world.exec.spawn(0, async move {
            script.await;
            *over.borrow_mut() = true;
        });
        world.exec.run_until(600 * SECOND, || *finished.borrow());
        plant(None);
        assert!(*finished.borrow(), "{fault:?}: the schedule came to a halt");
        let judged = check(&world.history.borrow());
        world.end();
        assert_eq!(judged.is_err(), planted.is_some(), "{fault:?} planted: {planted:?}, judged {judged:?}");
    }
}

/// Story: voter 0 promises a newer ballot and restarts, promises gone. Danger: it takes the accept of an older one, and two
/// writes are chosen on the same state. Expectation: its floor refuses (R3).
async fn promise_lost_in_a_restart(script: Script) {
    let (mut old, mut new) = (script.begin(Op::Put(X)), script.begin(Op::Put(Y)));
    script.prepare(&mut old, 3, &[0, 1]).await;
    // The newer proposer has heard of the older ballot.
    script.peer(4).observe(script.peer(3).tick());
    script.prepare(&mut new, 4, &[0, 2]).await;
    script.restart(0);
    script.accept(&mut old, &[0, 1]).await;
    script.accept(&mut new, &[0, 2]).await;
}

#[test]
fn no_restart_floor() {
    shows(Fault::NoRestartFloor, promise_lost_in_a_restart);
}

#[test]
fn volatile_ceiling() {
    shows(Fault::VolatileCeiling, promise_lost_in_a_restart);
}

/// Story: a write of unknown outcome is on voter 0 alone. A bucket's mark is set on it, but its accept is slow; the retry
/// meets voters that hold nothing and agree on it. Danger: "no such bucket", and then the slow accept takes effect.
/// Expectation: unknown (R5).
#[test]
fn refusal_after_accept() {
    shows(Fault::RefusalAfterAccept, |script| async move {
        let mut lost = script.begin(Op::Put(X));
        script.prepare(&mut lost, 3, &[0, 1]).await;
        script.accept(&mut lost, &[0]).await;
        let mut mark = script.begin(Op::Touch(Y));
        script.peer(4).observe(script.peer(3).tick());
        script.prepare(&mut mark, 4, &[0, 1]).await;
        let slow = (mark.attempt.clone(), mark.record.clone());
        script.prepare(&mut mark, 4, &[2, 1]).await;
        (mark.attempt, mark.record) = slow;
        script.accept(&mut mark, &[0]).await;
        // Its own promise is the first it counts, and brings the late record up.
        script.perform(0, Op::Create(Value(12))).await;
    });
}

/// Story: an unchosen write is on voter 0; a second write has the promises of the others, which hold nothing. Danger: voter 1
/// copies from voter 0, a reader finds two that agree, and the second write, based on nothing, is chosen after.
/// Expectation: voters settle what differs by consensus (R6).
#[test]
fn gossip_installs() {
    shows(Fault::GossipInstalls, |script| async move {
        let (mut lost, mut next) = (script.begin(Op::Put(X)), script.begin(Op::Put(Y)));
        script.prepare(&mut lost, 3, &[0, 1]).await;
        script.accept(&mut lost, &[0]).await;
        script.peer(4).observe(script.peer(3).tick());
        script.prepare(&mut next, 4, &[1, 2]).await;
        script.peer(1).level_with(peer_id(0)).await;
        script.perform(5, Op::Read).await;
        script.accept(&mut next, &[1, 2]).await;
        script.perform(5, Op::Read).await;
    });
}

/// Story: a learner is cut off while all voters but one are replaced and the key changes. Danger: the voters of old still
/// agree on what was, and the learner serves it. Expectation: they refuse its epoch (R8).
async fn read_at_removed_voters(script: Script) {
    script.perform(0, Op::Put(X)).await;
    let links = |cut: bool| {
        for other in 0..5 {
            script.0.links.borrow_mut().cut(5, other);
            script.0.links.borrow_mut().cut(other, 5);
        }
        if !cut {
            script.0.links.borrow_mut().mend();
        }
    };
    links(true);
    script.move_voters(2, &[2, 3, 4]).await;
    script.perform(2, Op::Put(Y)).await;
    (0..2).for_each(|removed| script.restart(removed));
    links(false);
    // Whoever is in touch with the new voters only would be told.
    for voter in 2..5 {
        script.0.links.borrow_mut().cut(5, voter);
    }
    let entry = script.begin(Op::Read).entry;
    if let Ok(current) = script.peer(5).read(&key()).await {
        let state = current.map(|current| Value::of(&current.value));
        script.answer(entry, Seen { state, version: Ballot::ZERO, wrote: false });
    }
}

#[test]
fn reads_without_epoch() {
    shows(Fault::ReadsWithoutEpoch, read_at_removed_voters);
}

#[test]
fn removed_forgets_epoch() {
    shows(Fault::RemovedForgetsEpoch, read_at_removed_voters);
}

/// A write whose proposer sleeps reached voter 0, was overwritten and deleted; all voters hold the tombstone.
async fn sleep_through_delete(script: &Script) -> Proposal {
    let mut sleeper = script.begin(Op::Put(X));
    script.prepare(&mut sleeper, 5, &[0, 1]).await;
    script.accept(&mut sleeper, &[0]).await;
    let mut over = script.begin(Op::Touch(Y));
    script.peer(3).observe(script.peer(5).tick());
    script.prepare(&mut over, 3, &[0, 1]).await;
    script.accept(&mut over, &[0, 1, 2]).await;
    script.perform(3, Op::Delete).await;
    script.0.exec.sleep(SECOND).await;
    sleeper
}

/// The same, and the tombstone was collected.
async fn sleep_through_collection(script: &Script) -> Proposal {
    let sleeper = sleep_through_delete(script).await;
    script.peer(0).collect_tombstone(&key()).await;
    assert!(script.peer(0).copy(&key()).0.is_none(), "not collected");
    sleeper
}

/// Story: all voters hold a tombstone, but the order to collect it is slow; two voters join meanwhile, brought level by the
/// old ones that agree, and two of the old ones leave. Danger: the order is obeyed after the joiners took the floors
/// over, and their quorum knows neither tombstone nor floor. Expectation: it is of another epoch (R7).
#[test]
fn collecting_without_epoch() {
    shows(Fault::CollectingWithoutEpoch, |script| async move {
        let mut sleeper = sleep_through_delete(&script).await;
        let tombstone = script.peer(0).copy(&key()).1.expect("held");
        let mut config = (*script.peer(0).config()).clone();
        let order = Ask::Collect { epoch: config.epoch, key: key(), tombstone };
        for joiner in [3, 4] {
            let voters = config.voters.iter().copied().chain([peer_id(joiner)]).collect();
            let joint = config.begin_change(voters).expect("one more");
            config = joint.finish_change().expect("joint");
            for peer in 0..6 {
                script.peer(peer).adopt(joint.clone()).await;
                script.peer(peer).adopt(config.clone()).await;
            }
        }
        for voter in 0..3 {
            script.peer(voter).handle(order.clone()).await;
        }
        script.move_voters(2, &[2, 3, 4]).await;
        script.prepare(&mut sleeper, 3, &[3, 4]).await;
        script.accept(&mut sleeper, &[3, 4]).await;
        script.perform(2, Op::Read).await;
    });
}

/// Story: a writer holds promises of two of three voters when two more join; another write is chosen by the third and the
/// joiners. Danger: the first writer's accepts are taken in the new epoch and counted by the old one. Expectation: one
/// ballot belongs to one epoch (R8).
async fn promises_of_an_older_epoch(script: Script) {
    let (mut old, mut new) = (script.begin(Op::Put(X)), script.begin(Op::Put(Y)));
    script.prepare(&mut old, 5, &[0, 1]).await;
    script.move_voters(2, &[0, 1, 2, 3, 4]).await;
    script.prepare(&mut new, 2, &[2, 3, 4]).await;
    script.accept(&mut new, &[2, 3, 4]).await;
    script.accept(&mut old, &[0, 1]).await;
}

#[test]
fn promises_across_epochs() {
    shows(Fault::PromisesAcrossEpochs, promises_of_an_older_epoch);
}

/// Story: a learner that did not hear of two more voters writes a key they have written. Danger: the voters it knows
/// answer in their old epoch, and two writes are chosen on nothing. Expectation: they refuse it (R8 (2)).
#[test]
fn no_fence() {
    shows(Fault::NoFence, |script| async move {
        for other in 0..5 {
            script.0.links.borrow_mut().cut(other, 5);
        }
        script.move_voters(2, &[0, 1, 2, 3, 4]).await;
        let (mut old, mut new) = (script.begin(Op::Create(X)), script.begin(Op::Create(Y)));
        script.prepare(&mut new, 2, &[2, 3, 4]).await;
        script.accept(&mut new, &[2, 3, 4]).await;
        script.peer(5).observe(script.peer(2).tick());
        script.prepare(&mut old, 5, &[0, 1]).await;
        script.accept(&mut old, &[0, 1]).await;
    });
}

/// Story: a deleted and collected write is tried again by its proposer, who slept meanwhile; all voters have restarted.
/// Danger: their floors are gone, and the deleted is written once more. Expectation: floors are durable (R7), and
/// the retry is told that it cannot know (R5).
#[test]
fn volatile_floor() {
    shows(Fault::VolatileFloor, |script| async move {
        let mut sleeper = sleep_through_collection(&script).await;
        (0..3).for_each(|voter| script.restart(voter));
        script.0.exec.sleep(5 * SECOND).await;
        script.prepare(&mut sleeper, 3, &[0, 1]).await;
        script.accept(&mut sleeper, &[0, 1]).await;
        script.perform(2, Op::Read).await;
    });
}

/// Story: the same, but all voters have been replaced but one. Danger: the new ones know of no floor. Expectation: they
/// took the floors over (R8 (5)).
#[test]
fn joiner_without_floors() {
    shows(Fault::JoinerWithoutFloors, |script| async move {
        let mut sleeper = sleep_through_collection(&script).await;
        script.move_voters(2, &[2, 3, 4]).await;
        script.0.exec.sleep(5 * SECOND).await;
        script.prepare(&mut sleeper, 3, &[3, 4]).await;
        script.accept(&mut sleeper, &[3, 4]).await;
        script.perform(2, Op::Read).await;
    });
}

/// Story: two writers hold promises on a tombstone when it is collected. Danger: the older one's accept is taken though a
/// newer ballot was promised, and both are chosen on nothing. Expectation: the floor covers the promise (R7).
#[test]
fn collecting_drops_promise() {
    shows(Fault::CollectingDropsPromise, |script| async move {
        script.perform(3, Op::Put(Value(12))).await;
        script.perform(3, Op::Delete).await;
        script.0.exec.sleep(SECOND).await;
        let (mut old, mut new) = (script.begin(Op::Put(X)), script.begin(Op::Put(Y)));
        script.peer(4).observe(script.peer(3).tick());
        script.prepare(&mut old, 4, &[0, 1]).await;
        script.peer(5).observe(script.peer(4).tick());
        script.prepare(&mut new, 5, &[0, 2]).await;
        script.peer(0).collect_tombstone(&key()).await;
        assert!(script.peer(0).copy(&key()).0.is_none(), "not collected");
        script.accept(&mut old, &[0, 1]).await;
        script.accept(&mut new, &[0, 2]).await;
    });
}

/// Story: voter 2 is cut off while it is removed, a key is deleted and collected without it, and it is added again. Danger:
/// it was a voter before and is one now, keeps what it held, and the deleted comes back. Expectation: it starts empty
/// (R8 (3)). Production did otherwise until this simulation showed it.
#[test]
fn a_voter_removed_and_added_again_starts_empty() {
    shows(Fault::RejoinerKeepsState, |script| async move {
        script.perform(0, Op::Put(X)).await;
        script.0.exec.sleep(SECOND).await;
        for other in (0..6).filter(|other| *other != 2) {
            script.0.links.borrow_mut().cut(2, other);
            script.0.links.borrow_mut().cut(other, 2);
        }
        script.move_voters(0, &[0, 1]).await;
        script.perform(0, Op::Delete).await;
        script.0.exec.sleep(SECOND).await;
        script.peer(0).collect_tombstone(&key()).await;
        assert!(script.peer(0).copy(&key()).0.is_none(), "not collected");
        script.0.links.borrow_mut().mend();
        script.move_voters(0, &[0, 1, 2]).await;
        script.perform(2, Op::Create(Y)).await;
        script.perform(0, Op::Read).await;
    });
}

/// Story: a writer of the old epoch, its clock an hour ahead, has the promises of voters 0 and 1; one accept reaches voter
/// 0, which is cut off, and it dies. Two voters join meanwhile, with 1 and 2; none of them holds the key, so all pages
/// agree. Danger: voters 2, 3 and 4 choose a lower ballot, and voter 0 comes back with the higher one, which undoes it.
/// Expectation: a joint quorum has promised above it for all keys (R8 (4)).
#[test]
fn no_raise() {
    shows(Fault::NoRaise, |script| async move {
        script.0.nodes.borrow()[5].skew_ms.set(3_600_000);
        let (mut old, mut new) = (script.begin(Op::Create(X)), script.begin(Op::Create(Y)));
        script.prepare(&mut old, 5, &[0, 1]).await;
        script.accept(&mut old, &[0]).await;
        for other in 1..6 {
            script.0.links.borrow_mut().cut(0, other);
            script.0.links.borrow_mut().cut(other, 0);
        }
        script.move_voters(2, &[0, 1, 2, 3, 4]).await;
        script.prepare(&mut new, 4, &[2, 3, 4]).await;
        script.accept(&mut new, &[2, 3, 4]).await;
        script.0.links.borrow_mut().mend();
        let config = script.peer(2).config();
        script.peer(0).adopt((*config).clone()).await;
        let mut next = script.begin(Op::Create(Value(12)));
        script.prepare(&mut next, 0, &[0, 1, 2]).await;
        script.accept(&mut next, &[0, 1, 2]).await;
    });
}
