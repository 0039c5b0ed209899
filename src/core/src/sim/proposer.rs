//! A peer's proposer, as `pool/ledger/propose.rs` wraps it: updates over as many ballots as they take.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use bytes::Bytes;

use super::exec::{Mailbox, Micros};
use super::fault::{Fault, is_planted};
use super::peer::Peer;
use super::world::{Ask, Letter, MS, Reply, SECOND};
use crate::hlc::Ballot;
use crate::id::{PeerId, RequestId};
use crate::register::{Accepted, Attempt, Change, Config, Current, Decision, Plan, Promised, Record, Updated, backoff};

/// As in the real shell: an update that has not settled by then is given up.
pub const UPDATE_DEADLINE: Micros = 6 * SECOND;
/// As in the real shell: a quorum's answers are awaited this long before all other voters are asked too.
const HEDGE: Micros = 25 * MS;

/// Why an operation has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// Too few voters answered, or others were faster for too long. Nothing was written.
    Nothing,
    /// It may have been written, now or later (R4).
    Unknown,
}

/// Why an attempt ended without a result; another may follow.
#[derive(Debug, Clone, Copy)]
pub enum Setback {
    /// Another proposer was faster (its ballot), or the epoch changed.
    Outrun(Option<Ballot>),
    /// Too few voters answered.
    NoQuorum,
}

/// One question to the voters of a configuration: to as many as make a quorum, and to the others when an answer is
/// slow, missing or of no help.
pub struct Inquiry<'a> {
    peer: &'a Peer,
    ask: Ask,
    rest: VecDeque<PeerId>,
    open: BTreeSet<PeerId>,
    mailbox: Rc<Mailbox<Letter>>,
    hedge_at: Micros,
}

impl<'a> Inquiry<'a> {
    /// Asks this peer first, if it votes, and others in an order of the seed.
    pub fn new(peer: &'a Peer, config: &Config, mut answered: BTreeSet<PeerId>, ask: Ask) -> Self {
        let world = &peer.world;
        let mut order: Vec<(u64, PeerId)> = config
            .electorate()
            .into_iter()
            .filter(|voter| !answered.contains(voter))
            .map(|voter| (if voter == peer.me() { 0 } else { world.draw(1..1000) }, voter))
            .collect();
        order.sort_unstable();
        let mailbox = if is_planted(Fault::AnswersOfOtherBallots) {
            Rc::clone(&peer.life.old_mailbox)
        } else {
            Rc::new(Mailbox::new(&world.exec))
        };
        let mut inquiry = Self {
            peer,
            ask,
            rest: order.into_iter().map(|(_, voter)| voter).collect(),
            open: BTreeSet::new(),
            mailbox,
            hedge_at: world.exec.now() + HEDGE,
        };
        while !config.is_quorum(&answered) {
            match inquiry.ask_one_more() {
                Some(voter) => answered.insert(voter),
                None => break,
            };
        }
        inquiry
    }

    /// Asks the next voter, if one is left.
    pub fn ask_one_more(&mut self) -> Option<PeerId> {
        let voter = self.rest.pop_front()?;
        self.open.insert(voter);
        self.peer.world.call(self.peer.node.number, voter, &self.ask, &self.mailbox.sender());
        Some(voter)
    }

    /// Asks everyone who is left.
    pub fn ask_all(&mut self) {
        while self.ask_one_more().is_some() {}
    }

    /// The next answer (doubled ones too); `None` when every voter has answered or failed to.
    pub async fn next(&mut self) -> Option<Letter> {
        loop {
            if self.open.is_empty() {
                self.ask_one_more()?;
            }
            let until = if self.rest.is_empty() { Micros::MAX } else { self.hedge_at };
            match self.mailbox.recv(until).await {
                None => self.ask_all(),
                Some((voter, None)) if !self.open.remove(&voter) => {}
                Some((voter, reply)) => {
                    self.open.remove(&voter);
                    return Some((voter, reply));
                }
            }
        }
    }
}

impl Peer {
    /// A linearizable read-modify-write.
    pub async fn update<T: Clone>(
        &self,
        key: &Bytes,
        mut decide: impl FnMut(Option<&Current>) -> Decision<T>,
    ) -> Result<Updated<T>, Failed> {
        let _turn = self.enter(key).await;
        let deadline = self.world.exec.now() + UPDATE_DEADLINE;
        let mut change = Change::new(RequestId(self.world.draw(0..u64::MAX)));
        let mut retry = Retry::new(self, deadline);
        loop {
            let setback = match self.prepare(key).await {
                Ok((attempt, promised)) => match change.plan(attempt.ballot(), promised, &mut decide) {
                    Plan::Report(outcome) => return outcome.map_err(|_| Failed::Unknown),
                    Plan::Accept(record) => match self.accept(attempt, key, record).await {
                        Ok(()) => return change.accepted().ok_or(Failed::Unknown),
                        Err(setback) => setback,
                    },
                },
                Err(setback) => setback,
            };
            if !retry.pause(setback).await {
                let open = change.may_have_taken_effect() && !is_planted(Fault::SilenceIsFailure);
                return Err(if open { Failed::Unknown } else { Failed::Nothing });
            }
        }
    }

    /// `update(key, identity)`.
    pub async fn settle(&self, key: &Bytes, deadline: Micros) -> Result<Option<Record>, Failed> {
        let _turn = self.enter(key).await;
        let mut retry = Retry::new(self, deadline);
        loop {
            let setback = match self.prepare(key).await {
                Ok((_, promised)) if promised.unanimous => return Ok(promised.current.map(|accepted| accepted.record)),
                Ok((attempt, Promised { current: Some(current), .. })) => {
                    let mut record = current.record;
                    if is_planted(Fault::ReacceptChangesVersion) {
                        record.version = attempt.ballot();
                    }
                    match self.accept(attempt, key, record.clone()).await {
                        Ok(()) => return Ok(Some(record)),
                        Err(setback) => setback,
                    }
                }
                // A quorum that holds nothing is unanimous.
                Ok((_, Promised { current: None, .. })) => return Ok(None),
                Err(setback) => setback,
            };
            if !retry.pause(setback).await {
                return Err(Failed::Nothing);
            }
        }
    }

    /// Phase 1 with a new ballot.
    async fn prepare(&self, key: &Bytes) -> Result<(Attempt, Promised), Setback> {
        let config = self.config();
        let (epoch, ballot) = (config.epoch, self.tick());
        let mut attempt = Attempt::new((*config).clone(), ballot);
        let mut inquiry =
            Inquiry::new(self, &config, BTreeSet::new(), Ask::Prepare { epoch, key: key.clone(), ballot });
        while let Some((voter, reply)) = inquiry.next().await {
            let hopeless = match reply {
                Some(Reply::Promised(accepted, floor)) => match attempt.on_promise(voter, accepted, floor) {
                    Some(promised) => return Ok((attempt, promised)),
                    None => false,
                },
                Some(Reply::Nack(highest)) => {
                    self.observe(highest);
                    return Err(Setback::Outrun(Some(highest)));
                }
                Some(Reply::WrongEpoch(theirs)) => {
                    self.settle_epoch(voter, theirs).await;
                    return Err(Setback::Outrun(None));
                }
                _ => {
                    inquiry.ask_one_more();
                    attempt.on_silence(voter)
                }
            };
            if hopeless {
                break;
            }
        }
        Err(Setback::NoQuorum)
    }

    /// Phase 2, to all voters; learners are told what was chosen.
    async fn accept(&self, mut attempt: Attempt, key: &Bytes, record: Record) -> Result<(), Setback> {
        let ballot = attempt.ballot();
        let mailbox = Mailbox::new(&self.world.exec);
        let epoch = if is_planted(Fault::PromisesAcrossEpochs) { self.config().epoch } else { attempt.config().epoch };
        let ask = Ask::Accept { epoch, key: key.clone(), ballot, record: record.clone() };
        for voter in attempt.config().electorate() {
            self.world.call(self.node.number, voter, &ask, &mailbox.sender());
        }
        let mut answered = BTreeSet::new();
        let mut outrun = None;
        loop {
            let Some((voter, reply)) = mailbox.recv(Micros::MAX).await else { continue };
            if reply.is_none() && answered.contains(&voter) {
                continue;
            }
            answered.insert(voter);
            let hopeless = match reply {
                Some(Reply::Accepted) => {
                    if attempt.on_accept(voter) {
                        self.tell_learners(key, ballot, &record);
                        return Ok(());
                    }
                    false
                }
                Some(Reply::Nack(highest)) => {
                    self.observe(highest);
                    outrun = outrun.max(Some(highest));
                    attempt.on_refusal(voter, highest)
                }
                Some(Reply::WrongEpoch(theirs)) => {
                    self.settle_epoch(voter, theirs).await;
                    outrun = outrun.max(Some(Ballot::ZERO));
                    attempt.on_silence(voter)
                }
                _ => attempt.on_silence(voter),
            };
            if hopeless {
                return Err(outrun.map_or(Setback::NoQuorum, |highest| Setback::Outrun(Some(highest))));
            }
        }
    }

    fn tell_learners(&self, key: &Bytes, ballot: Ballot, record: &Record) {
        let config = self.config();
        let everyone = is_planted(Fault::GossipPastPromises);
        let nobody = Mailbox::new(&self.world.exec);
        let ask = Ask::Learn { key: key.clone(), accepted: Accepted { ballot, record: record.clone() } };
        for node in self.world.nodes.borrow().iter().filter(|node| everyone || !config.is_voter(&node.id)) {
            self.world.call(self.node.number, node.id, &ask, &nobody.sender());
        }
    }

    /// A refusal for the epoch: a newer configuration is adopted, an older peer is told ours.
    pub async fn settle_epoch(&self, voter: PeerId, theirs: Config) {
        let ours = self.config();
        if theirs.epoch > ours.epoch {
            self.adopt(theirs).await;
        } else if theirs.epoch < ours.epoch && voter != self.me() {
            let nobody = Mailbox::new(&self.world.exec);
            self.world.call(self.node.number, voter, &Ask::Adopt((*ours).clone()), &nobody.sender());
        }
    }

    /// Asks one peer; `None` for silence.
    pub async fn ask(&self, peer: PeerId, ask: &Ask) -> Option<Reply> {
        let mailbox = Mailbox::new(&self.world.exec);
        self.world.call(self.node.number, peer, ask, &mailbox.sender());
        mailbox.recv(Micros::MAX).await.and_then(|(_, reply)| reply)
    }
}

/// Trying again: pauses by what stood in the way, until a deadline.
pub struct Retry<'a> {
    peer: &'a Peer,
    deadline: Micros,
    began_ms: u64,
    attempts: u32,
}

impl<'a> Retry<'a> {
    /// From now on.
    pub fn new(peer: &'a Peer, deadline: Micros) -> Self {
        Self { peer, deadline, began_ms: peer.now_ms(), attempts: 0 }
    }

    /// Waits before the next attempt; `false` when it is too late for another.
    pub async fn pause(&mut self, setback: Setback) -> bool {
        let world = &self.peer.world;
        if world.exec.now() >= self.deadline {
            return false;
        }
        self.attempts += 1;
        let rival = match setback {
            Setback::Outrun(highest) => highest,
            Setback::NoQuorum => None,
        };
        let now_ms = self.peer.now_ms();
        let age_ms = now_ms.saturating_sub(self.began_ms);
        let pause = backoff(self.attempts, age_ms, rival, now_ms, world.draw(0..1 << 32) as u32);
        world.exec.sleep(pause.as_micros() as Micros).await;
        true
    }
}
