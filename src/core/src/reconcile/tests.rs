//! The whole dialogue between two copies, against plain maps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::hlc::Stamp;

type Map = BTreeMap<Bytes, Ballot>;

fn ballot(time: u8) -> Ballot {
    Ballot { stamp: Stamp(u64::from(time)), ..Ballot::ZERO }
}

fn key(number: u16) -> Bytes {
    Bytes::from(number.to_be_bytes().to_vec())
}

fn map_of(pairs: &BTreeMap<u16, u8>) -> Map {
    pairs.iter().map(|(number, time)| (key(*number), ballot(*time))).collect()
}

fn pairs_in(map: &Map, range: &Range) -> Vec<(Bytes, Ballot)> {
    map.iter().filter(|(key, _)| range.contains(key)).map(|(key, ballot)| (key.clone(), *ballot)).collect()
}

/// Reads what is unread, in scans of at most `at_once` pairs and the rest of their leaf.
fn read_up(summary: &mut Summary, map: &Map, at_once: usize) {
    while let Some(range) = summary.unread() {
        let mut pairs = pairs_in(map, &range);
        let pause = (at_once.max(1)..pairs.len()).find(|at| is_boundary(&pairs[*at].0));
        let next = pause.map(|at| pairs[at].0.clone());
        pairs.truncate(pause.unwrap_or(pairs.len()));
        summary.read(&pairs, next);
    }
}

fn summary_of(map: &Map) -> Summary {
    let mut summary = Summary::default();
    read_up(&mut summary, map, 1_000);
    summary
}

/// What a dialogue costs, and what it finds.
#[derive(Default)]
struct Talk {
    questions: usize,
    pairs_sent: usize,
    found: BTreeSet<Bytes>,
    /// Pairs of the asker that the answerer does not hold.
    surplus: BTreeSet<PairHash>,
}

/// `mine` asks `theirs` for everything it lacks.
fn talk(mine: &Summary, theirs: &Summary, their_map: &Map) -> Talk {
    let mut talk = Talk::default();
    let mut ranges = vec![(Range::default(), mine.digest())];
    let mut exchange = Vec::new();
    while let Some((range, digest)) = ranges.pop() {
        talk.questions += 1;
        if let Answer::Parts(parts) = theirs.answer(&range, digest) {
            let narrowed = mine.narrow(&range, &parts);
            ranges.extend(narrowed.compare);
            exchange.extend(narrowed.exchange);
        }
    }
    for mut range in mine.gather(exchange, 1_000) {
        loop {
            let have = mine.hashes(&range);
            talk.questions += 1;
            talk.pairs_sent += have.len();
            let lacking = theirs.lacking(&range, &have, 100);
            for (key, ballot) in pairs_in(their_map, &lacking.within) {
                if lacking.pairs.contains(&pair_hash(&key, ballot)) {
                    talk.found.insert(key);
                }
            }
            if lacking.within == range {
                assert_eq!(lacking.left, 0);
                talk.surplus.extend(lacking.surplus.iter().map(|place| have[*place as usize]));
                break;
            }
            range.from = lacking.within.to.expect("it stopped somewhere");
        }
    }
    talk
}

fn lacked(mine: &Map, theirs: &Map) -> BTreeSet<Bytes> {
    theirs.iter().filter(|(key, ballot)| mine.get(*key) != Some(ballot)).map(|(key, _)| key.clone()).collect()
}

proptest! {
    /// Whatever two copies hold, the dialogue finds exactly the records the asker lacks, and those only it has.
    #[test]
    fn finds_exactly_what_is_lacking(
        base in prop::collection::btree_map(any::<u16>(), any::<u8>(), 0..2_000),
        edits in prop::collection::btree_map(any::<u16>(), prop::option::of(any::<u8>()), 0..60),
    ) {
        let mut other = base.clone();
        for (key, edit) in edits {
            match edit {
                Some(time) => drop(other.insert(key, time)),
                None => drop(other.remove(&key)),
            }
        }
        let (mine, theirs) = (map_of(&base), map_of(&other));
        let (my, their) = (summary_of(&mine), summary_of(&theirs));
        prop_assert_eq!(my.digest() == their.digest(), mine == theirs);
        let first = talk(&my, &their, &theirs);
        prop_assert_eq!(first.found, lacked(&mine, &theirs));
        let mut surplus = BTreeSet::new();
        for key in lacked(&theirs, &mine) {
            surplus.insert(pair_hash(&key, mine[&key]));
        }
        prop_assert_eq!(first.surplus, surplus);
        prop_assert_eq!(talk(&their, &my, &mine).found, lacked(&theirs, &mine));
    }

    /// A summary that is told of changes, before, during and after its reads, and in whatever order their telling and
    /// the read's snapshot fall, ends as one read from scratch. (A wrong sum would be compared for ever, and a voter
    /// would vouch for what it does not hold.)
    #[test]
    fn stays_true_through_changes(
        base in prop::collection::btree_map(0..3_000_u16, any::<u8>(), 0..1_500),
        steps in prop::collection::vec((0..3_000_u16, prop::option::of(any::<u8>()), 0..6_u8), 0..200),
    ) {
        let mut map = map_of(&base);
        let mut summary = Summary::default();
        // Committed and not yet told, as between an accept's sync and the note of it.
        let mut untold: Vec<(Bytes, Option<Ballot>, Option<Ballot>)> = Vec::new();
        // A scan under way: its snapshot.
        let mut snapshot: Option<(Range, Map)> = None;
        for (number, after, step) in steps {
            let (key, after) = (key(number), after.map(ballot));
            let before = match after {
                Some(after) => map.insert(key.clone(), after),
                None => map.remove(&key),
            };
            untold.push((key, before, after));
            if step >= 3 {
                untold.drain(..).for_each(|(key, before, after)| summary.change(&key, before, after));
            }
            match step {
                1 => snapshot = summary.unread().map(|range| (range, map.clone())),
                2 => if let Some((range, snapshot)) = snapshot.take() {
                    let pairs = pairs_in(&snapshot, &range);
                    summary.read(&pairs, None);
                },
                3 => if let Some((range, snapshot)) = snapshot.take() {
                    let mut pairs = pairs_in(&snapshot, &range);
                    let pause = (1..pairs.len()).rev().find(|at| is_boundary(&pairs[*at].0));
                    let next = pause.map(|at| pairs[at].0.clone());
                    pairs.truncate(pause.unwrap_or(pairs.len()));
                    summary.read(&pairs, next);
                },
                _ => {}
            }
        }
        untold.drain(..).for_each(|(key, before, after)| summary.change(&key, before, after));
        read_up(&mut summary, &map, 200);
        let fresh = summary_of(&map);
        prop_assert_eq!(summary.digest(), fresh.digest());
        prop_assert_eq!(summary.len(), map.len() as u64);
        for (range, digest) in leaves(&Range::default(), &pairs_in(&map, &Range::default())) {
            prop_assert!(summary.holds(&range, digest));
        }
        prop_assert!(talk(&fresh, &summary, &map).found.is_empty());
    }
}

/// One change among 60,000 keys is found by a few questions, and one leaf's pairs are sent for it.
#[test]
fn cost_follows_the_difference() {
    let base: BTreeMap<u16, u8> = (0..60_000).map(|key| (key, 1)).collect();
    let mut other = base.clone();
    other.insert(31_337, 2);
    let (mine, theirs) = (map_of(&base), map_of(&other));
    let talk = talk(&summary_of(&mine), &summary_of(&theirs), &theirs);
    assert_eq!(talk.found.len(), 1);
    assert!(talk.questions <= 6, "{} questions for one difference", talk.questions);
    assert!(talk.pairs_sent <= 10 * LEAF_KEYS, "{} pairs sent for one difference", talk.pairs_sent);
}

/// An empty copy asks a handful of questions and is then sent everything, a hundred at a time.
#[test]
fn an_empty_copy_is_filled_in_one_go() {
    let theirs = map_of(&(0..10_000).map(|key| (key, 1)).collect());
    let talk = talk(&summary_of(&Map::new()), &summary_of(&theirs), &theirs);
    assert_eq!(talk.found.len(), theirs.len());
    assert_eq!(talk.pairs_sent, 0);
    assert!(talk.questions <= 2 + theirs.len() / 100, "{} questions", talk.questions);
}

/// A voter vouches for a leaf only when it holds those pairs, no others, and knows it: not while the leaf is unread,
/// nor for a range whose end is no boundary here.
#[test]
fn nothing_unsure_is_vouched_for() {
    let map = map_of(&(0..2_000).map(|key| (key, 1)).collect());
    let cut = leaves(&Range::default(), &pairs_in(&map, &Range::default()));
    let (range, digest) = cut[cut.len() / 2].clone();
    let mut summary = Summary::default();
    assert!(!summary.holds(&range, digest), "unread");
    read_up(&mut summary, &map, 1_000);
    assert!(summary.holds(&range, digest));
    let inner = pairs_in(&map, &range).last().expect("a leaf with a key").0.clone();
    let short = Range { from: range.from.clone(), to: Some(inner.clone()) };
    assert!(!is_boundary(&inner));
    assert!(!summary.holds(&short, Fingerprint::of(pairs_in(&map, &short).iter().map(|(k, b)| (k, b))).digest()));
    summary.change(&inner, Some(ballot(1)), Some(ballot(2)));
    assert!(!summary.holds(&range, digest), "one pair differs");
}

/// Story: epoch 2 is {1, 2, 3, 4} on the way from {1, 2, 3}; voter 4 is empty. Danger: with one holder besides itself,
/// or with a majority of the new voters that is none of the old, it would install what epoch 1 never chose.
#[test]
fn only_a_majority_that_every_quorum_meets_lets_a_voter_install() {
    let set = |ids: &[u8]| ids.iter().map(|id| PeerId::from_bytes([*id; 32])).collect::<BTreeSet<_>>();
    let joint = Config { epoch: 2, voters: set(&[1, 2, 3, 4]), outgoing: Some(set(&[1, 2, 3])) };
    assert!(may_install(&joint, &set(&[1, 3])), "the third is dead: two old ones are enough");
    assert!(!may_install(&joint, &set(&[1, 4])));
    let plain = Config { epoch: 3, voters: set(&[1, 2, 3]), outgoing: None };
    assert!(may_install(&plain, &set(&[1, 2])));
    assert!(!may_install(&plain, &set(&[1, 9])));
}
