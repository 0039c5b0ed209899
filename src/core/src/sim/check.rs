//! Judging a history: every register linearizable, every page made of states its registers were in.
//!
//! The checker is todc-utils' (Wing & Gong, Lowe). An operation whose outcome nobody knows may take effect at any
//! later time or never: it gets its answer at the very end, where one that never took effect is placed last.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History as Actions};
use todc_utils::specifications::Specification;

use super::history::{Entry, History, Listing, Op, Outcome, Seen, Value, name_of};
use super::reader::Item;

/// One register, as the model sees it.
struct Register;

/// An operation and what it was told; `None` when nobody knows.
#[derive(Debug, Clone)]
struct Done {
    op: Op,
    seen: Option<Seen>,
}

impl Specification for Register {
    type State = Option<Value>;
    type Operation = Done;

    fn init() -> Self::State {
        None
    }

    fn apply(done: &Done, state: &Self::State) -> (bool, Self::State) {
        let effect = done.op.effect(*state);
        let right = done.seen.is_none_or(|seen| seen.state == *state && seen.wrote == effect.is_some());
        (right, effect.unwrap_or(*state))
    }
}

/// One operation's span and content.
type Span = (usize, usize, Done);

/// Judges everything; the error says what is wrong and shows the register's operations.
pub fn check(history: &History) -> Result<(u64, u64), String> {
    let mut registers: BTreeMap<Bytes, Vec<Span>> = BTreeMap::new();
    for entry in &history.entries {
        let spans = registers.entry(entry.key.clone()).or_default();
        let seen = match &entry.outcome {
            Outcome::Ok(seen) => Some(*seen),
            Outcome::Unknown if entry.op != Op::Read => None,
            Outcome::Failed | Outcome::Unknown => continue,
        };
        let returned = entry.returned.filter(|_| seen.is_some()).unwrap_or(usize::MAX);
        spans.push((entry.called, returned, Done { op: entry.op, seen }));
    }
    let mut pages = 0;
    for listing in &history.listings {
        if let (Outcome::Ok((items, next)), Some(returned)) = (&listing.outcome, listing.returned) {
            pages += 1;
            check_page(listing, items, next.as_ref(), returned, &mut registers, &history.entries)
                .map_err(|wrong| format!("{wrong}\n{listing:?}"))?;
        }
    }
    let count = registers.len() as u64;
    for (key, spans) in registers {
        if !is_linearizable(&spans) {
            let mut text = format!("register {} is not linearizable:\n", name_of(&key));
            for (called, returned, done) in spans {
                let end = if returned == usize::MAX { "…".to_owned() } else { returned.to_string() };
                let seen = done.seen.map_or_else(|| "?".to_owned(), |seen| format!("{:?} wrote={}", seen.state, seen.wrote));
                text.push_str(&format!("  [{called}, {end}] {:?} -> {seen}\n", done.op));
            }
            return Err(text);
        }
    }
    Ok((count, pages))
}

fn is_linearizable(spans: &[Span]) -> bool {
    if spans.is_empty() {
        return true;
    }
    // Calls and answers in their order; each operation is a process of its own.
    let mut actions: Vec<(usize, usize, Action<Done>)> = Vec::with_capacity(spans.len() * 2);
    for (process, (called, returned, done)) in spans.iter().enumerate() {
        actions.push((*called, process, Action::Call(done.clone())));
        actions.push((*returned, process, Action::Response(done.clone())));
    }
    actions.sort_by_key(|(at, process, action)| (*at, matches!(action, Action::Response(_)), *process));
    let actions = actions.into_iter().map(|(_, process, action)| (process, action)).collect();
    WGLChecker::<Register>::is_linearizable(Actions::from_actions(actions))
}

/// A page is, for every register of its range, a read; and for a group the promise that it holds something.
fn check_page(
    listing: &Listing,
    items: &[Item],
    next: Option<&Bytes>,
    returned: usize,
    registers: &mut BTreeMap<Bytes, Vec<Span>>,
    entries: &[Entry],
) -> Result<(), String> {
    let sort_key = |item: &Item| match item {
        Item::Register(key, _) | Item::Group(key) => key.clone(),
    };
    if items.windows(2).any(|pair| sort_key(&pair[0]) >= sort_key(&pair[1])) {
        return Err("a page is out of order".to_owned());
    }
    if items.len() > listing.limit || (items.len() < listing.limit && next.is_some()) {
        return Err("a page has the wrong length".to_owned());
    }
    let from = listing.start.clone().max(listing.prefix.clone());
    let group_of = |key: &Bytes| {
        let rest = key.strip_prefix(&listing.prefix[..]).filter(|_| listing.grouped)?;
        let at = rest.iter().position(|byte| *byte == b'/')?;
        Some(key.slice(..listing.prefix.len() + at + 1))
    };
    let within = |key: &Bytes| {
        key.starts_with(&listing.prefix) && *key >= from && next.is_none_or(|next| key < next)
    };
    let mut listed: BTreeMap<&Bytes, Value> = BTreeMap::new();
    let mut groups: BTreeSet<&Bytes> = BTreeSet::new();
    for item in items {
        match item {
            Item::Register(key, current) => {
                if !registers.contains_key(key) {
                    return Err(format!("{} was listed and never written", name_of(key)));
                }
                listed.insert(key, Value::of(&current.value));
            }
            Item::Group(group) => {
                groups.insert(group);
            }
        }
    }
    let mut possible: BTreeSet<Bytes> = BTreeSet::new();
    for (key, spans) in registers.iter_mut().filter(|(key, _)| within(key)) {
        if let Some(group) = group_of(key) {
            let (sure, maybe) = liveness(key, entries, listing.called, returned);
            if sure && !groups.contains(&group) {
                return Err(format!("{} was there and its group was not listed", name_of(key)));
            }
            if maybe {
                possible.insert(group);
            }
        } else {
            let seen = Seen { state: listed.get(key).copied(), version: crate::hlc::Ballot::ZERO, wrote: false };
            spans.push((listing.called, returned, Done { op: Op::Read, seen: Some(seen) }));
        }
    }
    match groups.into_iter().find(|group| **group >= from && !possible.contains(*group)) {
        Some(group) => Err(format!("group {} was listed and empty", name_of(group))),
        None => Ok(()),
    }
}

/// Whether a register was live for sure throughout a span, and whether it may have been live at any time in it.
fn liveness(key: &Bytes, entries: &[Entry], called: usize, returned: usize) -> (bool, bool) {
    let mut last_put = None;
    let mut last_delete = None;
    let mut spans: Vec<(usize, usize, bool, bool)> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.key == *key) {
        let deletes = matches!(entry.op, Op::Delete | Op::DeleteOnly(_) | Op::DeleteUnmarked);
        let (end, sure) = match &entry.outcome {
            Outcome::Ok(seen) if seen.wrote => (entry.returned.unwrap_or(usize::MAX), true),
            Outcome::Unknown if entry.op != Op::Read => (usize::MAX, false),
            _ => continue,
        };
        if sure && end < called {
            let last = if deletes { &mut last_delete } else { &mut last_put };
            *last = (*last).max(Some(entry.called));
        }
        spans.push((entry.called, end, deletes, sure));
    }
    // Nothing of the other kind may have taken effect after the beginning of the last sure one.
    let undisturbed = |since: usize, deletes: bool| {
        !spans.iter().any(|(begin, end, kind, _)| *kind == deletes && *end > since && *begin < returned)
    };
    let sure = last_put.is_some_and(|since| undisturbed(since, true));
    let surely_not = match last_delete {
        Some(since) => undisturbed(since, false),
        None => !spans.iter().any(|(begin, _, deletes, _)| !deletes && *begin < returned),
    };
    (sure, !surely_not)
}
