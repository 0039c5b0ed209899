//! What clients did and saw, and whether one order of it explains everything (linearizability).
//!
//! Every register, an object as well as a ledger key, is modelled as a list of values; a value is the number of the write
//! that brought it. An object holds one or none; a ledger list grows by appending. A listing of objects is one read of
//! each key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use todc_utils::Action::{Call, Response};
use todc_utils::{History as Sequence, Specification, WGLChecker};

/// Names a write.
pub type Value = u32;
/// Names an operation.
pub type Op = usize;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The value, whatever was there.
    Put(Value),
    /// The value, where nothing is.
    Create(Value),
    /// The second value, where the first is.
    Replace(Value, Value),
    /// Nothing any more.
    Delete,
    /// One value more.
    Append(Value),
    /// What is there?
    Read,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing certain: it took effect, or will, or never does.
    Unknown,
    /// It was done.
    Done,
    /// It was refused, since its condition did not hold; nothing was there to delete.
    Refused,
    /// What a read found, or an append before it.
    Saw(Vec<Value>),
}

impl Action {
    /// The value it brings.
    fn brings(&self) -> Option<Value> {
        match *self {
            Self::Put(value) | Self::Create(value) | Self::Replace(_, value) | Self::Append(value) => Some(value),
            Self::Delete | Self::Read => None,
        }
    }
}

/// One register's sequential behaviour.
struct Register;

impl Specification for Register {
    type State = Vec<Value>;
    type Operation = (Action, Outcome);

    fn init() -> Vec<Value> {
        Vec::new()
    }

    fn apply((action, outcome): &(Action, Outcome), state: &Vec<Value>) -> (bool, Vec<Value>) {
        let (holds, next) = match action {
            Action::Put(value) => (true, vec![*value]),
            Action::Create(value) => (state.is_empty(), vec![*value]),
            Action::Replace(expected, value) => (*state == [*expected], vec![*value]),
            Action::Delete => (!state.is_empty(), Vec::new()),
            Action::Append(value) => (true, [state.as_slice(), &[*value]].concat()),
            Action::Read => (true, state.clone()),
        };
        match outcome {
            Outcome::Unknown => (true, if holds { next } else { state.clone() }),
            Outcome::Done => (holds, next),
            Outcome::Refused => (!holds, state.clone()),
            Outcome::Saw(seen) => (seen == state, next),
        }
    }
}

/// An operation on one register.
#[derive(Debug, Clone)]
struct Operation {
    action: Action,
    outcome: Outcome,
    /// Places in the one order of all calls and answers.
    called: usize,
    answered: Option<usize>,
    /// Certainly without effect, and nothing was seen.
    failed: bool,
}

/// All that happened.
#[derive(Default)]
pub struct History {
    operations: Vec<(String, Operation)>,
    /// Calls and answers so far.
    events: usize,
}

impl History {
    /// A client calls.
    pub fn call(&mut self, register: &str, action: Action) -> Op {
        let operation =
            Operation { action, outcome: Outcome::Unknown, called: self.events, answered: None, failed: false };
        self.operations.push((register.to_owned(), operation));
        self.events += 1;
        self.operations.len() - 1
    }

    /// It is answered. Without an answer the outcome is unknown.
    pub fn answer(&mut self, op: Op, outcome: Outcome) {
        let operation = &mut self.operations[op].1;
        operation.answered = Some(self.events);
        operation.outcome = outcome;
        self.events += 1;
    }

    /// It failed, and certainly had no effect.
    pub fn fail(&mut self, op: Op) {
        self.operations[op].1.failed = true;
    }

    /// How many operations were called, answered, failed, and left unknown.
    pub fn counts(&self) -> [usize; 4] {
        let count =
            |test: fn(&Operation) -> bool| self.operations.iter().filter(|(_, operation)| test(operation)).count();
        [
            self.operations.len(),
            count(|operation| operation.outcome != Outcome::Unknown),
            count(|operation| operation.failed),
            count(|operation| operation.outcome == Outcome::Unknown && !operation.failed),
        ]
    }

    /// The first register whose history no order explains, told in lines.
    pub fn check(&self) -> Result<(), String> {
        let mut registers: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        for (register, operation) in &self.operations {
            let pointless = operation.outcome == Outcome::Unknown && operation.action == Action::Read;
            if !operation.failed && !pointless {
                registers.entry(register).or_default().push(operation);
            }
        }
        for (register, operations) in registers {
            if !is_linearizable(&operations) {
                return Err(tell(register, &operations));
            }
        }
        Ok(())
    }
}

fn is_linearizable(operations: &[&Operation]) -> bool {
    let seen: BTreeSet<Value> = operations
        .iter()
        .flat_map(|operation| {
            let expected = if let Action::Replace(expected, _) = operation.action { Some(expected) } else { None };
            let found = if let Outcome::Saw(found) = &operation.outcome { found.as_slice() } else { &[] };
            found.iter().copied().chain(expected)
        })
        .collect();
    // A write of unknown outcome that nobody saw most likely never took effect; without those the search is short.
    let likely: Vec<&Operation> = operations
        .iter()
        .copied()
        .filter(|operation| {
            operation.outcome != Outcome::Unknown || operation.action.brings().is_none_or(|value| seen.contains(&value))
        })
        .collect();
    search(&likely) || (likely.len() < operations.len() && search(operations))
}

fn search(operations: &[&Operation]) -> bool {
    if operations.is_empty() {
        return true;
    }
    let mut events = Vec::new();
    for (process, operation) in operations.iter().enumerate() {
        let told = (operation.action.clone(), operation.outcome.clone());
        events.push((operation.called, process, Call(told.clone())));
        events.push((operation.answered.unwrap_or(usize::MAX), process, Response(told)));
    }
    events.sort_by_key(|(at, process, _)| (*at, *process));
    let events = events.into_iter().map(|(_, process, event)| (process, event)).collect();
    WGLChecker::<Register>::is_linearizable(Sequence::from_actions(events))
}

fn tell(register: &str, operations: &[&Operation]) -> String {
    let mut text = format!("no order explains what clients saw of {register}:\n");
    for operation in operations {
        let Operation { action, outcome, called, answered, .. } = operation;
        let answered = answered.map_or("never".to_owned(), |at| at.to_string());
        let _ = writeln!(text, "  {called:>6} .. {answered:>6}  {action:?} -> {outcome:?}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(events: &[(&str, Action, Outcome)]) -> History {
        let mut history = History::default();
        for (register, action, outcome) in events {
            let op = history.call(register, action.clone());
            if *outcome != Outcome::Unknown {
                history.answer(op, outcome.clone());
            }
        }
        history
    }

    /// A checker that accepts everything proves nothing: each of these is one way to be wrong.
    #[test]
    fn what_no_order_explains_is_refused() {
        use Action::{Append, Create, Delete, Put, Read, Replace};
        use Outcome::{Done, Refused, Saw, Unknown};
        let wrong = [
            vec![("a", Put(1), Done), ("a", Read, Saw(vec![]))],
            vec![("a", Put(1), Done), ("a", Put(2), Done), ("a", Read, Saw(vec![1]))],
            vec![("a", Create(1), Done), ("a", Create(2), Done)],
            vec![("a", Create(1), Refused)],
            vec![("a", Put(1), Done), ("a", Replace(2, 3), Done)],
            vec![("a", Put(1), Done), ("a", Replace(1, 3), Refused)],
            vec![("a", Put(1), Done), ("a", Delete, Refused)],
            vec![("a", Delete, Done)],
            vec![("a", Append(1), Saw(vec![])), ("a", Append(2), Saw(vec![]))],
            vec![("a", Put(1), Unknown), ("a", Read, Saw(vec![1])), ("a", Read, Saw(vec![]))],
            vec![("a", Put(1), Done), ("a", Delete, Unknown), ("a", Read, Saw(vec![])), ("a", Read, Saw(vec![1]))],
        ];
        for events in wrong {
            assert!(history(&events).check().is_err(), "{events:?}");
        }
    }

    /// And one that refuses what may happen cries wolf: unknown outcomes may show late, or never.
    #[test]
    fn what_may_happen_is_accepted() {
        use Action::{Append, Create, Delete, Put, Read, Replace};
        use Outcome::{Done, Refused, Saw, Unknown};
        let right = [
            vec![("a", Put(1), Done), ("b", Read, Saw(vec![])), ("a", Read, Saw(vec![1]))],
            vec![("a", Put(1), Unknown), ("a", Read, Saw(vec![])), ("a", Read, Saw(vec![1]))],
            vec![("a", Put(1), Unknown), ("a", Create(2), Refused), ("a", Read, Saw(vec![1]))],
            vec![("a", Create(1), Unknown), ("a", Create(2), Refused), ("a", Delete, Done)],
            vec![("a", Put(1), Done), ("a", Replace(1, 2), Done), ("a", Delete, Done), ("a", Delete, Refused)],
            vec![("a", Append(1), Saw(vec![])), ("a", Append(2), Unknown), ("a", Append(3), Saw(vec![1, 2]))],
        ];
        for events in right {
            assert_eq!(history(&events).check(), Ok(()), "{events:?}");
        }
    }
}
