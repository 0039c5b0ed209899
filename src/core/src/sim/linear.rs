//! Whether the history of one register is linearizable: Wing & Gong's search with Lowe's memory, for operations that
//! may never have ended (`docs/decisions/` says why it is not todc-utils', which is its judge in the tests).
//!
//! An answered operation names the state it met and values are unique, so that almost nothing is left to search but
//! where operations of unknown outcome took effect. Those that are alike stand for each other: the one called
//! first goes first.

use std::collections::HashSet;

use super::history::{Op, Seen, Value};

/// One operation: when it was called, and when and what it was answered, if it was.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Place of the call in the order of all calls and answers.
    pub called: usize,
    /// What.
    pub op: Op,
    /// Place and content of the answer; `None` when nobody knows.
    pub answer: Option<(usize, Seen)>,
}

/// Which operations have taken effect.
type Bits = Vec<u64>;

fn get(bits: &Bits, at: usize) -> bool {
    bits[at / 64] >> (at % 64) & 1 == 1
}

fn flip(bits: &mut Bits, at: usize) {
    bits[at / 64] ^= 1 << (at % 64);
}

struct Search {
    /// Answered operations, by call.
    answered: Vec<(usize, usize, Op, Seen)>,
    /// The others, by call.
    open: Vec<(usize, Op)>,
    done: Bits,
    used: Bits,
    visited: HashSet<(Bits, Bits, Option<Value>)>,
}

/// Whether the operations on a register can be put in an order that explains every answer.
pub fn is_linearizable(spans: &[Span]) -> bool {
    let mut answered = Vec::new();
    let mut open = Vec::new();
    for span in spans {
        match span.answer {
            Some((returned, seen)) => answered.push((span.called, returned, span.op, seen)),
            None => open.push((span.called, span.op)),
        }
    }
    answered.sort_unstable_by_key(|(called, ..)| *called);
    open.sort_unstable_by_key(|(called, _)| *called);
    let (done, used) = (vec![0; answered.len() / 64 + 1], vec![0; open.len() / 64 + 1]);
    Search { answered, open, done, used, visited: HashSet::new() }.explains(0, None)
}

impl Search {
    /// Whether what is left from `first` on can follow on this state. What was tried in vain is undone.
    fn explains(&mut self, mut first: usize, state: Option<Value>) -> bool {
        // What changes nothing and fits now can go now: it is in nobody's way.
        let mut taken = Vec::new();
        loop {
            while first < self.answered.len() && get(&self.done, first) {
                first += 1;
            }
            let (candidates, _) = self.candidates(first);
            let fits = |at: &usize| self.fits(*at, state) && !self.answered[*at].3.wrote;
            let Some(at) = candidates.into_iter().find(fits) else { break };
            flip(&mut self.done, at);
            taken.push(at);
        }
        if first == self.answered.len() {
            return true;
        }
        if self.visited.insert((self.done.clone(), self.used.clone(), state)) {
            let (candidates, limit) = self.candidates(first);
            for &at in &candidates {
                if self.fits(at, state) {
                    flip(&mut self.done, at);
                    let after = self.answered[at].2.effect(state).unwrap_or(state);
                    if self.explains(first, after) {
                        return true;
                    }
                    flip(&mut self.done, at);
                }
            }
            for at in 0..self.open.len() {
                let (called, op) = self.open[at];
                let twin = (0..at).any(|other| self.open[other].1 == op && !get(&self.used, other));
                if called > limit || twin || get(&self.used, at) {
                    continue;
                }
                let Some(after) = op.effect(state).filter(|after| *after != state) else { continue };
                flip(&mut self.used, at);
                if !self.is_of_use(after, &candidates) {
                    flip(&mut self.used, at);
                    continue;
                }
                if self.explains(first, after) {
                    return true;
                }
                flip(&mut self.used, at);
            }
        }
        for at in taken {
            flip(&mut self.done, at);
        }
        false
    }

    /// Whether anything that may come next has met this state, or depends on it. A write of unknown outcome that is
    /// only overwritten again need not have taken effect, or not yet.
    fn is_of_use(&self, state: Option<Value>, candidates: &[usize]) -> bool {
        let depends = |op: Op| match op {
            Op::Replace(expected, _) | Op::DeleteOnly(expected) => state == Some(expected),
            Op::Create(_) => state.is_none(),
            Op::Touch(_) | Op::Lift(_) | Op::DeleteUnmarked => state.is_some(),
            Op::Read | Op::Put(_) | Op::Delete => false,
        };
        candidates.iter().any(|at| self.answered[*at].3.state == state)
            || self.open.iter().enumerate().any(|(at, (_, op))| !get(&self.used, at) && depends(*op))
    }

    /// Answered operations that may come next: those called before any other one ended; and when that is.
    fn candidates(&self, first: usize) -> (Vec<usize>, usize) {
        let mut limit = usize::MAX;
        let mut found = Vec::new();
        for at in first..self.answered.len() {
            let (called, returned, ..) = self.answered[at];
            if called > limit {
                break;
            }
            if !get(&self.done, at) {
                limit = limit.min(returned);
                found.push(at);
            }
        }
        found.retain(|at| self.answered[*at].0 < limit);
        (found, limit)
    }

    fn fits(&self, at: usize, state: Option<Value>) -> bool {
        let (_, _, op, seen) = self.answered[at];
        seen.state == state && seen.wrote == op.effect(state).is_some()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};
    use todc_utils::linearizability::WGLChecker;
    use todc_utils::linearizability::history::{Action, History};
    use todc_utils::specifications::Specification;

    use super::*;
    use crate::hlc::Ballot;

    struct Register;

    impl Specification for Register {
        type State = Option<Value>;
        type Operation = (Op, Option<Seen>);

        fn init() -> Self::State {
            None
        }

        fn apply((op, seen): &Self::Operation, state: &Self::State) -> (bool, Self::State) {
            let effect = op.effect(*state);
            let right = seen.is_none_or(|seen| seen.state == *state && seen.wrote == effect.is_some());
            (right, effect.unwrap_or(*state))
        }
    }

    /// What todc-utils says: an operation of unknown outcome is answered at the very end.
    fn judge(spans: &[Span]) -> bool {
        let mut actions = Vec::new();
        for (process, span) in spans.iter().enumerate() {
            let (returned, seen) = span.answer.map_or((usize::MAX, None), |(returned, seen)| (returned, Some(seen)));
            actions.push((span.called, process, Action::Call((span.op, seen))));
            actions.push((returned, process, Action::Response((span.op, seen))));
        }
        actions.sort_by_key(|(at, process, _)| (*at, *process));
        let actions = actions.into_iter().map(|(_, process, action)| (process, action)).collect();
        WGLChecker::<Register>::is_linearizable(History::from_actions(actions))
    }

    /// Story: ten thousand small random histories, some true ones, most slightly wrong. Danger: a checker of one's own
    /// that lets something pass. Expectation: it says what the independent one says, and both answers occur.
    #[test]
    fn it_agrees_with_an_independent_checker() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut verdicts = [0, 0];
        for _ in 0..10_000 {
            let count = rng.random_range(1..8);
            let mut places: Vec<usize> = (0..count * 2).collect();
            for at in (1..places.len()).rev() {
                places.swap(at, rng.random_range(0..=at));
            }
            let value = |rng: &mut SmallRng| Value(rng.random_range(1..4) << 2 | rng.random_range(0..2));
            let spans: Vec<Span> = places
                .chunks(2)
                .map(|pair| {
                    let op = match rng.random_range(0..9) {
                        0..3 => Op::Read,
                        3 => Op::Put(value(&mut rng)),
                        4 => Op::Create(value(&mut rng)),
                        5 => Op::Replace(value(&mut rng), value(&mut rng)),
                        6 => Op::Touch(value(&mut rng)),
                        7 => Op::Lift(value(&mut rng)),
                        _ => Op::Delete,
                    };
                    let state = if rng.random_range(0..3) == 0 { None } else { Some(value(&mut rng)) };
                    let seen = Seen { state, version: Ballot::ZERO, wrote: op.effect(state).is_some() };
                    let answered = op == Op::Read || rng.random_range(0..3) > 0;
                    Span { called: pair[0].min(pair[1]), op, answer: answered.then_some((pair[0].max(pair[1]), seen)) }
                })
                .collect();
            let verdict = is_linearizable(&spans);
            assert_eq!(verdict, judge(&spans), "{spans:#?}");
            verdicts[usize::from(verdict)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 500), "{verdicts:?}");
    }
}
