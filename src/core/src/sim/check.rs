//! Judging a history: every register linearizable, every page made of states its registers were in.
//!
//! An operation whose outcome nobody knows may take effect at any later time, or never.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use bytes::Bytes;

use super::history::{Entry, History, Listing, Op, Outcome, Seen, Value, name_of};
use super::linear::{Span, is_linearizable};
use crate::listing::Item;

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
        spans.push(Span { called: entry.called, op: entry.op, answer: entry.returned.zip(seen) });
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
            for Span { called, op, answer } in spans {
                // Writing to a string cannot fail.
                let _ = match answer {
                    Some((end, seen)) => {
                        writeln!(text, "  [{called}, {end}] {op:?} -> {:?} wrote={}", seen.state, seen.wrote)
                    }
                    None => writeln!(text, "  [{called}, …] {op:?} -> ?"),
                };
            }
            return Err(text);
        }
    }
    Ok((count, pages))
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
        Some(key.slice(..=listing.prefix.len() + at))
    };
    let within = |key: &Bytes| key.starts_with(&listing.prefix) && *key >= from && next.is_none_or(|next| key < next);
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
            spans.push(Span { called: listing.called, op: Op::Read, answer: Some((returned, seen)) });
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
