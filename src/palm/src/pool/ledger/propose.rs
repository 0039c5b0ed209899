//! This peer as proposer: `update(key, f)` over as many ballots as it takes.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use palm_core::hlc::Ballot;
use palm_core::id::RequestId;
use palm_core::register::{Accepted, Attempt, Change, Plan, Promised, Record, backoff};
use palm_core::wire::{Request, Response};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::inquiry::Inquiry;
use super::{Current, Decision, Ledger, LedgerError, UPDATE_DEADLINE, Updated, wall_ms};

/// Why an attempt ended without a result; another may follow.
#[derive(Debug)]
enum Setback {
    /// Another proposer was faster, or the epoch changed.
    Outrun {
        /// The highest ballot that stood in the way, where one was named.
        rival: Option<Ballot>,
    },
    /// Too few voters answered.
    NoQuorum {
        /// How many more are needed.
        missing: usize,
    },
}

/// Phase 1 done: the attempt, and what a quorum of promises said.
type Prepared = Result<(Attempt, Promised), Setback>;

impl Ledger {
    /// A linearizable read-modify-write. `decide` may run several times, each time on the current state.
    ///
    /// After [`LedgerError::Unknown`] it may have been written, now or later; after the others it was not.
    pub async fn update<T, F>(&self, key: Bytes, decide: F) -> Result<Updated<T>, LedgerError>
    where
        T: Send,
        F: FnMut(Option<&Current>) -> Decision<T> + Send,
    {
        let ready = std::future::ready(Ok::<F, Infallible>(decide));
        match self.update_when(key, ready).await {
            Ok(updated) => updated,
            Err(never) => match never {},
        }
    }

    /// The same, with its first phase running while `ready` (storing fragments, say) completes. When `ready`
    /// fails nothing is written; an unused promise harms nobody.
    pub async fn update_when<T, F, E>(
        &self,
        key: Bytes,
        ready: impl Future<Output = Result<F, E>> + Send,
    ) -> Result<Result<Updated<T>, LedgerError>, E>
    where
        T: Send,
        E: Send,
        F: FnMut(Option<&Current>) -> Decision<T> + Send,
    {
        match self.decides(&key) {
            Ok(false) => {}
            Ok(true) => {
                let decide = ready.await?;
                let _turn = self.0.queues.enter(&key).await;
                return Ok(self.update_locally(&key, decide).await);
            }
            Err(error) => return Ok(Err(error)),
        }
        let first = async {
            let turn = self.0.queues.enter(&key).await;
            let began = Instant::now();
            let prepared = self.prepare(&key).await;
            (turn, prepared, began.elapsed())
        };
        let ((turn, prepared, preparing), ready) = futures::join!(first, ready);
        let (began, ready) = (Instant::now(), ready?);
        let updated = self.drive(&key, prepared, ready).await;
        drop(turn);
        Ok(self.0.measures.commit.ended(preparing + began.elapsed(), updated))
    }

    /// `update(key, identity)`: brings a quorum to one accepted ballot and answers the record chosen.
    pub(super) async fn settle(&self, key: &Bytes) -> Result<Option<Record>, LedgerError> {
        let _turn = self.0.queues.enter(key).await;
        let deadline = Instant::now() + UPDATE_DEADLINE;
        let mut attempts = 0;
        loop {
            let setback = match self.prepare(key).await {
                Ok((_, promised)) if promised.unanimous => return Ok(promised.current.map(|accepted| accepted.record)),
                Ok((attempt, Promised { current: Some(current), .. })) => {
                    match self.accept(attempt, key, current.record.clone()).await {
                        Ok(()) => return Ok(Some(current.record)),
                        Err(setback) => setback,
                    }
                }
                // A quorum that holds nothing is unanimous.
                Ok((_, Promised { current: None, .. })) => return Ok(None),
                Err(setback) => setback,
            };
            attempts += 1;
            self.pause(setback, attempts, false, deadline).await?;
        }
    }

    /// A linearizable read that also fences: what it answers has been accepted anew by a quorum (a tombstone where
    /// there was nothing), so no write whose accept was sent before can surface later (R4). [`read`](Self::read) does
    /// not promise that: a quorum may agree while another voter holds an accept that was never chosen, and a later
    /// quorum may choose it. For who destroys what such a write refers to.
    pub async fn read_fenced(&self, key: &Bytes) -> Result<Option<Current>, LedgerError> {
        let _turn = self.0.queues.enter(key).await;
        let deadline = Instant::now() + UPDATE_DEADLINE;
        let mut attempts = 0;
        loop {
            let setback = match self.prepare(key).await {
                Ok((attempt, promised)) => {
                    let record = promised.current.map_or_else(
                        || Record::write(None, RequestId(rand::random()), attempt.ballot(), None),
                        |accepted| accepted.record,
                    );
                    match self.accept(attempt, key, record.clone()).await {
                        Ok(()) => return Ok(Current::of(record)),
                        Err(setback) => setback,
                    }
                }
                Err(setback) => setback,
            };
            attempts += 1;
            self.pause(setback, attempts, false, deadline).await?;
        }
    }

    /// Runs a change from its first promises to its end.
    async fn drive<T, F>(&self, key: &Bytes, first: Prepared, mut decide: F) -> Result<Updated<T>, LedgerError>
    where
        T: Send,
        F: FnMut(Option<&Current>) -> Decision<T> + Send,
    {
        let deadline = Instant::now() + UPDATE_DEADLINE;
        let mut change = Change::new(RequestId(rand::random()));
        let mut prepared = first;
        let mut attempts = 0;
        loop {
            let setback = match prepared {
                Ok((attempt, promised)) => match change.plan(attempt.ballot(), promised, &mut decide) {
                    Plan::Report(outcome) => return Ok(outcome?),
                    Plan::Accept(record) => match self.accept(attempt, key, record).await {
                        Ok(()) => {
                            let outcome = change.accepted();
                            return outcome.ok_or_else(|| LedgerError::Unknown("nothing was planned".to_owned()));
                        }
                        Err(setback) => setback,
                    },
                },
                Err(setback) => setback,
            };
            attempts += 1;
            let urgent = change.may_have_taken_effect();
            self.pause(setback, attempts, urgent, deadline).await.map_err(|error| {
                if change.may_have_taken_effect() { LedgerError::Unknown(error.to_string()) } else { error }
            })?;
            prepared = self.prepare(key).await;
        }
    }

    /// Phase 1 with a new ballot.
    async fn prepare(&self, key: &Bytes) -> Prepared {
        let config = self.config();
        let (epoch, ballot) = (config.epoch, self.tick());
        let mut attempt = Attempt::new((*config).clone(), ballot);
        let mut inquiry =
            Inquiry::new(self, &config, BTreeSet::new(), || Request::Prepare { epoch, key: key.clone(), ballot });
        while let Some((voter, answer)) = inquiry.next().await {
            let hopeless = match answer {
                Ok(Response::Promised { accepted, floor }) => match attempt.on_promise(voter, accepted, floor) {
                    Some(promised) => return Ok((attempt, promised)),
                    None => false,
                },
                Ok(Response::Nack { highest }) => {
                    self.observe(highest);
                    return Err(Setback::Outrun { rival: Some(highest) });
                }
                Ok(Response::WrongEpoch(theirs)) => {
                    if self.settle_epoch(voter, theirs, epoch).await {
                        return Err(Setback::Outrun { rival: None });
                    }
                    inquiry.ask_one_more();
                    attempt.on_silence(voter)
                }
                other => {
                    tracing::debug!(voter = %voter.short(), answer = ?other.err(), "no promise");
                    inquiry.ask_one_more();
                    attempt.on_silence(voter)
                }
            };
            if hopeless {
                break;
            }
        }
        Err(Setback::NoQuorum { missing: attempt.missing_promises() })
    }

    /// Phase 2, to all voters. Returns once a quorum has accepted; the rest of the voters and the learners
    /// are told in the background, also when the caller goes away: it is they who keep the record safe.
    async fn accept(&self, mut attempt: Attempt, key: &Bytes, record: Record) -> Result<(), Setback> {
        let (decided, decision) = oneshot::channel();
        let (ledger, key) = (self.clone(), key.clone());
        let asking = async move {
            let mut decided = Some(decided);
            let (epoch, ballot) = (attempt.config().epoch, attempt.ballot());
            let mut asked: FuturesUnordered<_> = attempt
                .config()
                .electorate()
                .into_iter()
                .map(|voter| {
                    let request = Request::Accept { epoch, key: key.clone(), ballot, record: record.clone() };
                    let ledger = &ledger;
                    async move { (voter, ledger.ask(voter, request).await) }
                })
                .collect();
            let (mut outrun, mut rival) = (false, None);
            while let Some((voter, answer)) = asked.next().await {
                let hopeless = match answer {
                    Ok(Response::Accepted) if attempt.on_accept(voter) => {
                        if let Some(waiting) = decided.take() {
                            ledger.tell_learners(&key, ballot, &record);
                            // The caller may be gone; the accepts go on regardless.
                            let _ = waiting.send(Ok(()));
                        }
                        false
                    }
                    Ok(Response::Accepted) => false,
                    Ok(Response::Nack { highest }) => {
                        ledger.observe(highest);
                        rival = rival.max(Some(highest));
                        attempt.on_refusal(voter, highest)
                    }
                    Ok(Response::WrongEpoch(theirs)) => {
                        outrun |= ledger.settle_epoch(voter, theirs, epoch).await;
                        attempt.on_silence(voter)
                    }
                    other => {
                        tracing::debug!(voter = %voter.short(), answer = ?other.err(), "no accept");
                        attempt.on_silence(voter)
                    }
                };
                if hopeless && let Some(waiting) = decided.take() {
                    let outrun = outrun || rival.is_some();
                    let why = if outrun { Setback::Outrun { rival } } else { Setback::NoQuorum { missing: 1 } };
                    let _ = waiting.send(Err(why));
                }
            }
        };
        tokio::spawn(asking.in_current_span());
        decision.await.unwrap_or(Err(Setback::NoQuorum { missing: 1 }))
    }

    /// Best effort: what is missed is found by catch-up.
    fn tell_learners(&self, key: &Bytes, ballot: Ballot, record: &Record) {
        let config = self.config();
        let members = self.0.members.borrow();
        for learner in members.iter().filter(|peer| !config.is_voter(peer)) {
            let accepted = Accepted { ballot, record: record.clone() };
            let (ledger, learner, key) = (self.clone(), *learner, key.clone());
            tokio::spawn(async move { ledger.ask(learner, Request::Learn { key, accepted }).await });
        }
    }

    /// Waits before the next attempt, or gives up at the deadline.
    ///
    /// An update whose accept is out is `urgent`: it tries again at once, as on its first attempt, since others must not
    /// write more over it than a record's history holds, or it would not find itself again (R5).
    async fn pause(&self, setback: Setback, attempts: u32, urgent: bool, deadline: Instant) -> Result<(), LedgerError> {
        if matches!(setback, Setback::Outrun { .. }) {
            self.0.measures.conflicts.inc();
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(match setback {
                Setback::Outrun { .. } => LedgerError::Contended,
                Setback::NoQuorum { missing } => self.no_quorum(missing),
            });
        }
        let (attempts, rival) = match setback {
            Setback::Outrun { .. } if urgent => (0, None),
            Setback::Outrun { rival } => (attempts, rival),
            Setback::NoQuorum { .. } => (attempts, None),
        };
        let age = UPDATE_DEADLINE.saturating_sub(left).as_millis() as u64;
        tokio::time::sleep(backoff(attempts, age, rival, wall_ms(), rand::random())).await;
        Ok(())
    }
}
