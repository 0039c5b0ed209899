//! A linearizable page out of the pages of a quorum.
//!
//! Each voter builds its page with [`PageBuilder`]: keys in order with their accepted ballots, tombstones
//! included, and with a delimiter one *witness* (the first live key) per group. [`merge`] then takes the pages of a
//! quorum. Where all agree on a key, that is the register's state; where they do not, the caller settles the
//! key by consensus before it is included *or left out*, and a page ends at the smallest of the pages' ends
//! (`docs/ledger.md`, Reads: including the maximum un-saw keys; ending at the largest missed some).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::hlc::Ballot;
use crate::record::key::prefix_end;
use crate::register::Current;
use crate::wire::{MAX_SCAN_ENTRIES, ScanEntry, ScanPage, ScanQuery};

impl ScanQuery {
    /// Where the scan begins.
    pub fn first(&self) -> &Bytes {
        (&self.start).max(&self.prefix)
    }

    /// How many bytes of this key are its group's common prefix, when the query groups it. The delimiter
    /// is looked for after the prefix and before the first NUL: what follows a NUL is not part of a name.
    pub fn group_len(&self, key: &[u8]) -> Option<usize> {
        let delimiter = self.delimiter.as_ref().filter(|delimiter| !delimiter.is_empty())?;
        let rest = key.get(self.prefix.len()..)?;
        let name = rest.split(|byte| *byte == 0).next().unwrap_or(rest);
        let at = name.windows(delimiter.len()).position(|window| window == &delimiter[..])?;
        Some(self.prefix.len() + at + delimiter.len())
    }
}

/// One page of live registers and groups, as a listing answers it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// In key order.
    pub items: Vec<Item>,
    /// Start of the next page; `None` when there is none.
    pub next: Option<Bytes>,
}

/// One line of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A live register.
    Register(Bytes, Current),
    /// A common prefix (the register key's, delimiter included).
    Group(Bytes),
}

/// Where a builder wants to go after a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Go {
    /// To the following key.
    On,
    /// To the first key at or after this one.
    To(Bytes),
    /// The page is complete.
    Stop,
}

/// Builds one voter's page from its keys in order, starting at [`ScanQuery::first`].
#[derive(Debug)]
pub struct PageBuilder<'a> {
    query: &'a ScanQuery,
    page: ScanPage,
    live: u32,
}

impl<'a> PageBuilder<'a> {
    /// An empty page.
    pub fn new(query: &'a ScanQuery) -> Self {
        Self { query, page: ScanPage::default(), live: 0 }
    }

    /// Takes the next key; the answer says whether it is now an entry, and where to go.
    pub fn visit(&mut self, key: &[u8], ballot: Ballot, live: bool) -> (bool, Go) {
        if !key.starts_with(&self.query.prefix) {
            return (false, Go::Stop);
        }
        let full = self.page.entries.len() >= MAX_SCAN_ENTRIES as usize;
        if full || (live && self.live >= self.query.limit) {
            self.page.next = Some(Bytes::copy_from_slice(key));
            return (false, Go::Stop);
        }
        let group = if live { self.query.group_len(key) } else { None };
        let key = Bytes::copy_from_slice(key);
        let go = match group {
            // No key can follow a prefix without an end, so the page is complete.
            Some(len) => prefix_end(&key[..len]).map_or(Go::Stop, Go::To),
            None => Go::On,
        };
        self.live += u32::from(live);
        self.page.entries.push(ScanEntry { key, ballot, live, group: group.map(|len| len as u32) });
        (true, go)
    }

    /// The page.
    pub fn finish(self) -> ScanPage {
        self.page
    }
}

/// One line of a merged page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// All voters of the quorum hold this key, live, at this ballot.
    Key(Bytes, Ballot),
    /// All saw the same witness of this group.
    Group(Bytes),
    /// They differ on this key: settle it, then include it if it is live.
    DisputedKey(Bytes),
    /// They differ on this group's witness: settle these keys; if one is live the group exists, otherwise
    /// ask again.
    DisputedGroup(Bytes, Vec<Bytes>),
}

impl Line {
    /// What it sorts by, and where a page that leaves it out resumes.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Key(key, _) | Self::Group(key) | Self::DisputedKey(key) | Self::DisputedGroup(key, _) => key,
        }
    }
}

/// A page merged from a quorum's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Merged {
    /// In key order.
    pub lines: Vec<Line>,
    /// Where the next page starts; `None` when the range is exhausted.
    pub next: Option<Bytes>,
}

/// Merges the pages of a quorum of distinct voters. Agreed tombstones are dropped.
pub fn merge(query: &ScanQuery, pages: &[&ScanPage]) -> Merged {
    let ends = || pages.iter().filter_map(|page| page.next.clone());
    let next = if planted!(ListEndsAtLargest) { ends().max() } else { ends().min() };
    let before_end = |key: &Bytes| next.as_ref().is_none_or(|next| key < next);
    let mut ballots: BTreeMap<&Bytes, Vec<(Ballot, bool)>> = BTreeMap::new();
    let mut witnesses: BTreeMap<Bytes, Vec<(&Bytes, Ballot)>> = BTreeMap::new();
    for entry in pages.iter().flat_map(|page| &page.entries).filter(|entry| before_end(&entry.key)) {
        match entry.group {
            Some(len) => {
                let group = entry.key.slice(..(len as usize).min(entry.key.len()));
                witnesses.entry(group).or_default().push((&entry.key, entry.ballot));
            }
            None => ballots.entry(&entry.key).or_default().push((entry.ballot, entry.live)),
        }
    }
    let agreed = |seen: usize, same: bool| seen == pages.len() && same;
    let mut lines: BTreeMap<Bytes, Line> = BTreeMap::new();
    for (group, seen) in &witnesses {
        let line = if agreed(seen.len(), seen.windows(2).all(|pair| pair[0] == pair[1])) {
            Line::Group(group.clone())
        } else {
            let keys: BTreeSet<Bytes> = seen.iter().map(|(key, _)| (*key).clone()).collect();
            Line::DisputedGroup(group.clone(), keys.into_iter().collect())
        };
        lines.insert(group.clone(), line);
    }
    for (key, seen) in ballots {
        let group = query.group_len(key).map(|len| key.slice(..len));
        if group.is_some_and(|group| witnesses.contains_key(&group)) {
            continue; // a tombstone beside a witness decides nothing about the group
        }
        let same = seen.windows(2).all(|pair| pair[0].0 == pair[1].0);
        match agreed(seen.len(), same) {
            true if seen[0].1 => lines.insert(key.clone(), Line::Key(key.clone(), seen[0].0)),
            true => None,
            false => lines.insert(key.clone(), Line::DisputedKey(key.clone())),
        };
    }
    Merged { lines: lines.into_values().collect(), next }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hlc::Stamp;

    fn ballot(time: u64) -> Ballot {
        Ballot { stamp: Stamp(time), ..Ballot::ZERO }
    }

    fn query(prefix: &'static str, start: &'static str, delimiter: Option<&'static str>, limit: u32) -> ScanQuery {
        ScanQuery { prefix: prefix.into(), start: start.into(), delimiter: delimiter.map(Bytes::from), limit }
    }

    fn page(query: &ScanQuery, keys: &BTreeMap<String, (u64, bool)>) -> ScanPage {
        let mut builder = PageBuilder::new(query);
        let mut from = query.first().clone();
        while let Some((key, (time, live))) = keys.iter().find(|(key, _)| key.as_bytes() >= &from[..]) {
            match builder.visit(key.as_bytes(), ballot(*time), *live).1 {
                Go::On => from = format!("{key}\0").into(),
                Go::To(next) => from = next,
                Go::Stop => break,
            }
        }
        builder.finish()
    }

    fn keys(list: &[(&str, u64, bool)]) -> BTreeMap<String, (u64, bool)> {
        list.iter().map(|(key, time, live)| ((*key).to_owned(), (*time, *live))).collect()
    }

    #[test]
    fn a_page_groups_skips_and_stops() {
        let all = keys(&[
            ("p/a", 1, true),
            ("p/b/1", 1, false),
            ("p/b/2", 1, true),
            ("p/b/3", 1, true),
            ("p/c", 1, true),
            ("q", 1, true),
        ]);
        let query = query("p/", "", Some("/"), 2);
        let page = page(&query, &all);
        let names: Vec<_> = page.entries.iter().map(|entry| (&entry.key[..], entry.live, entry.group)).collect();
        assert_eq!(names, [(&b"p/a"[..], true, None), (b"p/b/1", false, None), (b"p/b/2", true, Some(4))]);
        assert_eq!(page.next.as_deref(), Some(&b"p/c"[..]));
    }

    /// Story: a delete reached one voter only, which has a tombstone where a second has nothing yet and a
    /// third the object. Danger: leaving the key out un-happens later. Expectation: every pair disputes it.
    #[test]
    fn an_unsettled_delete_is_disputed_not_left_out() {
        let query = query("", "", None, 10);
        let tombstone = page(&query, &keys(&[("k", 5, false)]));
        let nothing = page(&query, &keys(&[]));
        let object = page(&query, &keys(&[("k", 3, true)]));
        for pair in [[&tombstone, &nothing], [&tombstone, &object], [&nothing, &object]] {
            let merged = merge(&query, &pair);
            assert_eq!(merged.lines, [Line::DisputedKey("k".into())]);
        }
    }

    #[test]
    fn a_page_ends_at_the_smallest_end() {
        let query = query("", "", None, 2);
        let left = page(&query, &keys(&[("a", 1, true), ("b", 1, true), ("c", 1, true)]));
        let right = page(&query, &keys(&[("a", 1, true), ("c", 1, true), ("d", 1, true)]));
        let merged = merge(&query, &[&left, &right]);
        assert_eq!(merged.next.as_deref(), Some(&b"c"[..]));
        assert_eq!(merged.lines, [Line::Key("a".into(), ballot(1)), Line::DisputedKey("b".into())]);
    }

    proptest! {
        /// Voters that agree, asked page by page, list exactly what a plain walk over the live keys lists.
        #[test]
        fn agreed_pages_add_up_to_the_plain_listing(
            all in prop::collection::btree_map("[ab/]{1,5}", (1..3u64, any::<bool>()), 0..60),
            limit in 1..5u32,
            prefix in prop::sample::select(vec!["", "a", "a/"]),
            delimiter in prop::sample::select(vec![None, Some("/"), Some("b")]),
        ) {
            let mut expected: BTreeSet<String> = BTreeSet::new();
            for (key, _) in all.iter().filter(|(key, (_, live))| *live && key.starts_with(prefix)) {
                let rest = &key[prefix.len()..];
                let group = delimiter.and_then(|d| rest.find(d).map(|at| format!("{prefix}{}", &rest[..at + d.len()])));
                expected.insert(group.unwrap_or_else(|| key.clone()));
            }
            let mut found = Vec::new();
            let mut start = Bytes::new();
            loop {
                let query = ScanQuery { prefix: prefix.into(), start, delimiter: delimiter.map(Bytes::from), limit };
                let one = page(&query, &all);
                let merged = merge(&query, &[&one, &one]);
                for line in merged.lines {
                    prop_assert!(matches!(line, Line::Key(..) | Line::Group(_)));
                    found.push(String::from_utf8(line.key().to_vec()).expect("ascii"));
                }
                match merged.next { Some(next) => start = next, None => break }
            }
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
