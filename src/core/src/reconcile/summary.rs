//! What a peer keeps in memory of its copy, so that comparing reads nothing.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use bytes::Bytes;

use super::{Answer, BRANCHES, Fingerprint, Narrowed, PairHash, Range, is_boundary, lanes_of};
use crate::hlc::Ballot;

/// Changes remembered while a part is read. Beyond, the part is read again.
const MAX_CHANGES_WHILE_READING: usize = 1 << 16;

/// The pairs between two boundaries.
#[derive(Debug, Clone)]
enum Leaf {
    /// Not known: to be read from the index.
    Unread,
    /// Known, and kept up to date.
    Read {
        /// Sorted.
        hashes: Vec<PairHash>,
        sum: Fingerprint,
    },
}

impl Leaf {
    const EMPTY: Self = Self::Read { hashes: Vec::new(), sum: Fingerprint { count: 0, lanes: [0; 4] } };

    /// Adds a pair; one that is there already stays once.
    fn add(&mut self, key: &[u8], ballot: Ballot) {
        let Self::Read { hashes, sum } = self else { return };
        let lanes = lanes_of(key, ballot);
        let hash = lanes[0].to_le_bytes();
        if let Err(at) = hashes.binary_search(&hash) {
            hashes.insert(at, hash);
            sum.add_lanes(1, lanes);
        }
    }

    /// Takes a pair away, if it is there.
    fn remove(&mut self, key: &[u8], ballot: Ballot) {
        let Self::Read { hashes, sum } = self else { return };
        let lanes = lanes_of(key, ballot);
        if let Ok(at) = hashes.binary_search(&lanes[0].to_le_bytes()) {
            hashes.remove(at);
            sum.remove_lanes(lanes);
        }
    }
}

/// A register that went from one ballot to another; `None` is absence.
type Change = (Bytes, Option<Ballot>, Option<Ballot>);

/// A part being read.
#[derive(Debug, Clone)]
struct Reading {
    range: Range,
    changes: Vec<Change>,
}

/// What one copy holds of a range and another lacks.
#[derive(Debug, Clone)]
pub struct Lacking {
    /// The pairs, by hash.
    pub pairs: HashSet<PairHash>,
    /// The part of the range they cover.
    pub within: Range,
    /// How many pairs there are in the rest of it, lacking or not.
    pub left: u64,
    /// Where there is no such rest: which of the other's pairs, by their place, are not held here.
    pub surplus: Vec<u32>,
}

/// Fingerprints and pair hashes of an ordered set of (key, ballot) pairs: some 12 bytes of memory per key.
///
/// It begins unread. [`unread`](Self::unread) says what to read from the index and [`read`](Self::read) takes it;
/// [`change`](Self::change) tells it of every change once that is durable. Adding a pair twice and removing an absent
/// one do nothing, and changes told during a read are applied again after it: so it does not matter whether the
/// read saw them. A new boundary key cuts its leaf; which pair falls on which side only the index knows, so that
/// leaf is unread again.
#[derive(Debug, Clone)]
pub struct Summary {
    /// By first possible key. The first one is empty: every key is in a leaf.
    leaves: BTreeMap<Bytes, Leaf>,
    reading: Option<Reading>,
}

impl Default for Summary {
    fn default() -> Self {
        Self { leaves: BTreeMap::from([(Bytes::new(), Leaf::Unread)]), reading: None }
    }
}

impl Summary {
    /// Notes a change that is now durable.
    pub fn change(&mut self, key: &Bytes, before: Option<Ballot>, after: Option<Ballot>) {
        if let Some(reading) = &mut self.reading {
            if reading.changes.len() < MAX_CHANGES_WHILE_READING {
                reading.changes.push((key.clone(), before, after));
            } else {
                self.reading = None;
            }
        }
        self.apply(key, before, after);
    }

    fn apply(&mut self, key: &Bytes, before: Option<Ballot>, after: Option<Ballot>) {
        if is_boundary(key) {
            match (self.leaves.contains_key(key), after) {
                (false, Some(_)) => {
                    *self.leaf_of(key) = Leaf::Unread;
                    return;
                }
                (true, None) => {
                    self.leaves.remove(key);
                    *self.leaf_of(key) = Leaf::Unread;
                    return;
                }
                _ => {}
            }
        }
        let leaf = self.leaf_of(key);
        if let Some(before) = before {
            leaf.remove(key, before);
        }
        if let Some(after) = after {
            leaf.add(key, after);
        }
    }

    fn leaf_of(&mut self, key: &Bytes) -> &mut Leaf {
        #[expect(clippy::expect_used, reason = "the leaf that begins at the empty key is never removed")]
        let (_, leaf) = self.leaves.range_mut::<Bytes, _>(..=key).next_back().expect("every key is in a leaf");
        leaf
    }

    /// Begins to read the first part that is not known, if there is one. Afterwards begin a scan of the index at its
    /// start and give [`read`](Self::read) what it finds; a read begun before is abandoned.
    pub fn unread(&mut self) -> Option<Range> {
        let mut leaves = self.leaves.iter().skip_while(|(_, leaf)| matches!(leaf, Leaf::Read { .. }));
        let from = leaves.next()?.0.clone();
        let range = Range { from, to: leaves.next().map(|(first, _)| first.clone()) };
        self.reading = Some(Reading { range: range.clone(), changes: Vec::new() });
        Some(range)
    }

    /// Takes the pairs of the part that [`unread`](Self::unread) named, in key order: all of them, or those up to `next`, a
    /// boundary key at which the scan paused.
    pub fn read(&mut self, pairs: &[(Bytes, Ballot)], next: Option<Bytes>) {
        let Some(Reading { mut range, changes }) = self.reading.take() else { return };
        let end = self.leaves.range::<Bytes, _>((Bound::Excluded(&range.from), Bound::Unbounded)).next();
        let same_end = end.map(|(first, _)| first) == range.to.as_ref();
        if !same_end || !matches!(self.leaves.get(&range.from), Some(Leaf::Unread)) {
            // The part has grown meanwhile (its end was removed): it stays unread.
            return;
        }
        if let Some(next) = next {
            self.leaves.insert(next.clone(), Leaf::Unread);
            range.to = Some(next);
        }
        let (mut first, mut leaf) = (range.from.clone(), Leaf::EMPTY);
        for (key, ballot) in pairs {
            if *key != first && is_boundary(key) {
                self.leaves
                    .insert(std::mem::replace(&mut first, key.clone()), std::mem::replace(&mut leaf, Leaf::EMPTY));
            }
            leaf.add(key, *ballot);
        }
        self.leaves.insert(first, leaf);
        for (key, before, after) in changes {
            if range.contains(&key) {
                self.apply(&key, before, after);
            }
        }
    }

    /// The leaves that begin in a range.
    fn leaves_in<'a>(&'a self, range: &'a Range) -> impl Iterator<Item = (&'a Bytes, &'a Leaf)> + Clone {
        let within = move |(first, _): &(&Bytes, &Leaf)| range.to.as_ref().is_none_or(|to| *first < to);
        self.leaves.range::<Bytes, _>(&range.from..).take_while(within)
    }

    fn sum_of<'a>(leaves: impl Iterator<Item = (&'a Bytes, &'a Leaf)>) -> Fingerprint {
        let mut sum = Fingerprint::default();
        for (_, leaf) in leaves {
            if let Leaf::Read { sum: leaf, .. } = leaf {
                sum.merge(leaf);
            }
        }
        sum
    }

    fn digest_of(&self, range: &Range) -> [u8; 32] {
        Self::sum_of(self.leaves_in(range)).digest()
    }

    /// The fingerprint of everything, as sent.
    pub fn digest(&self) -> [u8; 32] {
        self.digest_of(&Range::default())
    }

    /// How many pairs are known.
    pub fn len(&self) -> u64 {
        Self::sum_of(self.leaves.iter()).count
    }

    /// Whether no pair is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The answerer's side of a comparison.
    pub fn answer(&self, range: &Range, digest: [u8; 32]) -> Answer {
        if self.digest_of(range) == digest {
            return Answer::Same;
        }
        let leaves: Vec<_> = self.leaves_in(range).collect();
        let part = leaves.len().div_ceil(BRANCHES).max(1);
        let parts = leaves.chunks(part).enumerate().map(|(index, chunk)| {
            let first = if index == 0 { range.from.clone() } else { chunk[0].0.clone() };
            (first, Self::sum_of(chunk.iter().copied()).digest())
        });
        Answer::Parts(parts.collect())
    }

    /// The asker's side: what of the answered parts differs here. Parts that meet at a key which is no boundary
    /// here are taken together: that key is missing here, so they differ.
    pub fn narrow(&self, asked: &Range, parts: &[(Bytes, [u8; 32])]) -> Narrowed {
        let mut narrowed = Narrowed::default();
        let mut from = asked.from.clone();
        let mut together = 0;
        for (at, (_, digest)) in parts.iter().enumerate() {
            together += 1;
            let next = parts.get(at + 1).map(|(first, _)| first);
            if next.is_some_and(|next| *next <= from || !asked.contains(next) || !self.leaves.contains_key(next)) {
                continue;
            }
            let to = next.cloned().or_else(|| asked.to.clone());
            let range = Range { from: std::mem::replace(&mut from, next.cloned().unwrap_or_default()), to };
            let own = self.digest_of(&range);
            if together > 1 || own != *digest {
                // Nothing here divides it further, or there.
                if range == *asked || self.leaves_in(&range).count() == 1 {
                    narrowed.exchange.push(range);
                } else {
                    narrowed.compare.push((range, own));
                }
            }
            together = 0;
        }
        if parts.is_empty() {
            narrowed.exchange.push(asked.clone());
        }
        narrowed
    }

    /// The hashes of the known pairs in a range: what the asker sends of it at last.
    pub fn hashes(&self, range: &Range) -> Vec<PairHash> {
        let mut hashes = Vec::new();
        for (_, leaf) in self.leaves_in(range) {
            if let Leaf::Read { hashes: leaf, .. } = leaf {
                hashes.extend_from_slice(leaf);
            }
        }
        hashes
    }

    /// The answerer's side of it: what is known here in a range and not among `have`, leaf by leaf until at least
    /// `enough`.
    pub fn lacking(&self, range: &Range, have: &[PairHash], enough: usize) -> Lacking {
        let known: HashSet<&PairHash> = have.iter().collect();
        let mut lacking = Lacking { pairs: HashSet::new(), within: range.clone(), left: 0, surplus: Vec::new() };
        let mut held: HashSet<&PairHash> = HashSet::new();
        let mut leaves = self.leaves_in(range);
        for (first, leaf) in &mut leaves {
            let Leaf::Read { hashes, .. } = leaf else { continue };
            if lacking.pairs.len() >= enough {
                lacking.within.to = Some(first.clone());
                lacking.left = hashes.len() as u64;
                break;
            }
            held.extend(hashes);
            lacking.pairs.extend(hashes.iter().filter(|hash| !known.contains(hash)));
        }
        lacking.left += Self::sum_of(leaves).count;
        if lacking.within == *range {
            let places = have.iter().zip(0..).filter(|(hash, _)| !held.contains(hash));
            lacking.surplus = places.map(|(_, place)| place).collect();
        }
        lacking
    }

    /// Takes adjacent ranges together until one has about `keys` known pairs: fewer messages for many leaves.
    pub fn gather(&self, mut ranges: Vec<Range>, keys: usize) -> Vec<Range> {
        ranges.sort_by(|left, right| left.from.cmp(&right.from));
        let mut gathered: Vec<(Range, u64)> = Vec::new();
        for range in ranges {
            let count = Self::sum_of(self.leaves_in(&range)).count;
            match gathered.last_mut() {
                Some((last, held)) if last.to.as_ref() == Some(&range.from) && *held + count <= keys as u64 => {
                    last.to = range.to;
                    *held += count;
                }
                _ => gathered.push((range, count)),
            }
        }
        gathered.into_iter().map(|(range, _)| range).collect()
    }

    /// Whether exactly the pairs of this digest are known in a range that begins and ends at boundaries. Here it is
    /// not enough to be nearly sure: a voter's word hangs on it.
    pub fn holds(&self, range: &Range, digest: [u8; 32]) -> bool {
        let is_cut = |key: &Bytes| self.leaves.contains_key(key);
        is_cut(&range.from)
            && range.to.as_ref().is_none_or(is_cut)
            && self.leaves_in(range).all(|(_, leaf)| matches!(leaf, Leaf::Read { .. }))
            && self.digest_of(range) == digest
    }
}

/// Cuts pairs in key order, all of one range, into its leaves.
pub fn leaves(range: &Range, pairs: &[(Bytes, Ballot)]) -> Vec<(Range, [u8; 32])> {
    let mut cut = Vec::new();
    let (mut from, mut sum) = (range.from.clone(), Fingerprint::default());
    for (key, ballot) in pairs {
        if *key != from && is_boundary(key) {
            let range = Range { from: std::mem::replace(&mut from, key.clone()), to: Some(key.clone()) };
            cut.push((range, std::mem::take(&mut sum).digest()));
        }
        sum.add(key, *ballot);
    }
    cut.push((Range { from, to: range.to.clone() }, sum.digest()));
    cut
}
