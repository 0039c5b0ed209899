//! One mutation of one client request, over all its attempts (R4, R5).

use bytes::Bytes;

use super::{Accepted, Promised, Record};
use crate::hlc::Ballot;
use crate::id::RequestId;

/// The current, live state of a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// Stamp of the write that made it (R1).
    pub version: Ballot,
    /// Its value.
    pub value: Bytes,
}

impl Current {
    /// The live state of a record; `None` for a tombstone.
    pub fn of(record: Record) -> Option<Self> {
        let version = record.version;
        record.value.map(|value| Self { version, value })
    }
}

/// What an update decides on the state it is shown. Carries the answer for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<T> {
    /// Write this value.
    Put(Bytes, T),
    /// Leave a tombstone.
    Delete(T),
    /// Change nothing (a failed precondition, say).
    Keep(T),
}

/// How an update ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updated<T> {
    /// Version of the register's state after it; [`Ballot::ZERO`] where it never existed.
    pub version: Ballot,
    /// What the decision answered.
    pub answer: T,
}

/// Whether an earlier attempt took effect, or yet will, can no longer be told (R4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The record's history no longer reaches back to the first accept, or a collection floor is above it.
    #[error("its record was superseded")]
    Superseded,
    /// The decision not to write has no record that could be re-accepted over an accept still on its way.
    #[error("an earlier attempt may yet take effect")]
    InFlight,
    /// The history names a version under this request's id that the request never sent.
    #[error("a version this request never sent")]
    Foreign,
}

/// What to do after the promises of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan<T> {
    /// This is the outcome; nothing more is sent.
    Report(Result<Updated<T>, Unknown>),
    /// A quorum must accept this record at the attempt's ballot; then [`Change::accepted`] is the outcome.
    Accept(Record),
}

/// What the outcome is once the planned accept is through.
#[derive(Debug, Clone)]
enum Pending<T> {
    /// The write at this place of `sent`.
    Sent(usize),
    /// A decision not to write.
    Kept(Updated<T>),
}

/// A mutation. `T` is what its decision answers.
#[derive(Debug, Clone)]
pub struct Change<T> {
    request: RequestId,
    /// Each write an accept was sent for, oldest first, with its answer: whichever took effect decides what the
    /// caller hears.
    sent: Vec<(Ballot, T)>,
    pending: Option<Pending<T>>,
}

impl<T> Change<T> {
    /// A mutation not yet attempted.
    pub fn new(request: RequestId) -> Self {
        Self { request, sent: Vec::new(), pending: None }
    }

    /// Whether any write of it was ever sent: from then on, silence means unknown (R4).
    pub fn may_have_taken_effect(&self) -> bool {
        !self.sent.is_empty()
    }

    /// R5: decides on what a quorum of promises showed at `ballot`, unless an earlier attempt is found to have
    /// taken effect. `decide` sees the current state.
    pub fn plan(
        &mut self,
        ballot: Ballot,
        promised: Promised,
        decide: impl FnOnce(Option<&Current>) -> Decision<T>,
    ) -> Plan<T> {
        if let Some(first) = self.sent.first().map(|(ballot, _)| *ballot) {
            let history = promised.current.as_ref().map(|accepted| &accepted.record.history);
            if let Some(version) = history.and_then(|history| history.find(self.request))
                && !planted!(RetryForgetsItself)
            {
                return self.found(version, promised);
            }
            let reaches_back =
                history.is_none_or(|history| history.truncated < first) || planted!(TruncatedListTrusted);
            let collected = promised.collected >= first && !planted!(CollectedAncestorsIgnored);
            if collected || !reaches_back {
                return Plan::Report(Err(Unknown::Superseded));
            }
        }
        let record = promised.current.as_ref().map(|accepted| &accepted.record);
        let (value, answer) = match decide(record.cloned().and_then(Current::of).as_ref()) {
            Decision::Put(value, answer) => (Some(value), answer),
            Decision::Delete(answer) => (None, answer),
            Decision::Keep(answer) => return self.keep(promised, answer),
        };
        let record = Record::write(record, self.request, ballot, value);
        self.pending = Some(Pending::Sent(self.sent.len()));
        self.sent.push((ballot, answer));
        Plan::Accept(record)
    }

    /// An earlier attempt took effect: success, but only on a record known to be chosen.
    fn found(&mut self, version: Ballot, promised: Promised) -> Plan<T> {
        let Some(own) = self.sent.iter().position(|(ballot, _)| *ballot == version) else {
            return Plan::Report(Err(Unknown::Foreign));
        };
        match promised.current {
            Some(Accepted { record, .. }) if !promised.unanimous && !planted!(FoundIsDone) => {
                self.pending = Some(Pending::Sent(own));
                Plan::Accept(record)
            }
            _ => Plan::Report(Ok(self.take(own))),
        }
    }

    /// A decision not to write stands only on a record known to be chosen.
    fn keep(&mut self, promised: Promised, answer: T) -> Plan<T> {
        let version = promised.current.as_ref().map_or(Ballot::ZERO, |accepted| accepted.record.version);
        let kept = Updated { version, answer };
        match promised.current {
            _ if planted!(RefusalAtOnce) => Plan::Report(Ok(kept)),
            _ if promised.unanimous && (self.sent.is_empty() || planted!(RefusalAfterAccept)) => Plan::Report(Ok(kept)),
            Some(Accepted { record, .. }) => {
                self.pending = Some(Pending::Kept(kept));
                Plan::Accept(record)
            }
            None => Plan::Report(Err(Unknown::InFlight)),
        }
    }

    fn take(&mut self, at: usize) -> Updated<T> {
        let (version, answer) = self.sent.swap_remove(at);
        Updated { version, answer }
    }

    /// The outcome, once a quorum has accepted what was planned last; `None` if nothing was.
    pub fn accepted(mut self) -> Option<Updated<T>> {
        match self.pending.take()? {
            Pending::Sent(at) => Some(self.take(at)),
            Pending::Kept(kept) => Some(kept),
        }
    }
}
