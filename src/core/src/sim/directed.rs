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
#[test]
fn reads_without_epoch() {
    shows(Fault::ReadsWithoutEpoch, |script| async move {
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
    });
}

/// Story: a write reached one voter, was settled, deleted and collected; then the voters were replaced. Its proposer, asleep
/// meanwhile, tries again. Danger: the new voters know of no floor, and the deleted is written once more.
/// Expectation: they took the floors over, and the retry is told that it cannot know (R8 (5), R5).
#[test]
fn joiner_without_floors() {
    shows(Fault::JoinerWithoutFloors, |script| async move {
        let mut sleeper = script.begin(Op::Put(X));
        script.prepare(&mut sleeper, 5, &[0, 1]).await;
        script.accept(&mut sleeper, &[0]).await;
        script.perform(3, Op::Read).await;
        let mut settle = script.begin(Op::Touch(Y));
        script.peer(3).observe(script.peer(5).tick());
        script.prepare(&mut settle, 3, &[0, 1]).await;
        script.accept(&mut settle, &[0, 1, 2]).await;
        script.perform(3, Op::Delete).await;
        script.0.exec.sleep(SECOND).await;
        script.peer(0).collect_tombstone(&key()).await;
        assert!(script.peer(0).copy(&key()).0.is_none(), "not collected");
        script.move_voters(2, &[2, 3, 4]).await;
        script.0.exec.sleep(5 * SECOND).await;
        script.prepare(&mut sleeper, 3, &[3, 4]).await;
        script.accept(&mut sleeper, &[3, 4]).await;
        script.perform(2, Op::Read).await;
    });
}
