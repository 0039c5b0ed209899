//! A pool as data: peers that come, sleep, die and drain, and every one of them repairing and collecting on what it last
//! heard, in an order that a seed decides.
//!
//! The ledger is a list of placements, here as there changed by a decision on what is found: a fragment's new place
//! counts only where it still is as the plan saw it, and coding anew only if nothing changed. Each round the
//! nemesis takes as many homes for ever as the pool says it can lose, and no more; so whatever else happens, and
//! however stale anyone's view is, no segment may ever be lost. After each round all must be as if it had been written
//! now: all at full redundancy, nothing to do for anyone, and not one fragment too many.

use std::collections::BTreeSet;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::id::FragmentId;
use crate::record::Placed;

const SEEDS: u64 = 300;
const ROUNDS: usize = 4;
/// What happens in a round while the nemesis is about.
const EVENTS: usize = 150;
/// Turns in which all must be well again after it.
const TURNS: usize = 12;
const SEGMENTS: u64 = 5;
const MAX_PEERS: usize = 11;
/// Events that a fragment must have been stored before it may be collected, and a plan may take to be carried out.
const COLLECT_AGE: usize = 40;
const PLAN_AGE: usize = 30;
/// Events between the trash and the end.
const TRASH_AGE: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Presence {
    Awake,
    /// Back before the others give it up.
    Napping,
    /// Given up by the others, and it may be back all the same.
    Away,
    Dead,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    is_sound: bool,
    stored: usize,
    trashed: Option<usize>,
}

struct Peer {
    id: PeerId,
    presence: Presence,
    is_member: bool,
    is_draining: bool,
    disk: BTreeMap<FragmentId, Kept>,
    /// What it last heard of each placement.
    heard: Vec<Segment>,
}

/// A repair under way: planned, and maybe stored.
struct Job {
    by: usize,
    at: usize,
    seen: Segment,
    plan: Plan,
    since: usize,
    /// What was stored, once it was.
    stored: Option<Vec<Placed>>,
}

struct World {
    dice: SmallRng,
    now: usize,
    chosen: Option<Policy>,
    peers: Vec<Peer>,
    ledger: Vec<Segment>,
    jobs: Vec<Job>,
    codings: u8,
    /// How many more homes may be lost in this round.
    budget: u8,
}

fn fragment(segment: SegmentId, coding: u8, index: u8) -> FragmentId {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(segment.as_bytes());
    (bytes[16], bytes[17]) = (coding, index);
    FragmentId::from_bytes(bytes)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = SmallRng::seed_from_u64(seed);
        let chosen = [None, None, Some(Policy { k: 2, n: 4 }), Some(Policy { k: 4, n: 6 })];
        let chosen = *chosen.choose(&mut dice).unwrap();
        let mut world = Self {
            dice,
            now: 0,
            chosen,
            peers: Vec::new(),
            ledger: Vec::new(),
            jobs: Vec::new(),
            codings: 0,
            budget: 0,
        };
        for _ in 0..world.dice.random_range(world.fewest()..=8) {
            world.join();
        }
        for number in 0..SEGMENTS {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(seed << 8 | number).to_le_bytes());
            let id = SegmentId::from_bytes(id);
            let fresh = place::plan(id, world.wanted(), true, &world.candidates(), 1).unwrap();
            let placed = |(index, &home)| Placed { index, home, id: fragment(id, 0, index) };
            let fragments: Vec<Placed> = (0..).zip(&fresh.homes).map(placed).collect();
            for placed in &fragments {
                world.store(placed.home, placed.id);
            }
            world.ledger.push(Segment { id, len: 1, k: fresh.policy.k, n: fresh.policy.n, fragments });
        }
        for peer in 0..world.peers.len() {
            world.peers[peer].heard = world.ledger.clone();
        }
        world
    }

    /// Fewest members that the pool may have: so many that a write finds homes.
    fn fewest(&self) -> usize {
        self.chosen.map_or(1, Policy::homes_needed)
    }

    fn staying(&self) -> usize {
        self.peers.iter().filter(|peer| peer.is_member && !peer.is_draining).count()
    }

    fn wanted(&self) -> Policy {
        self.chosen.unwrap_or_else(|| Policy::auto(self.staying()))
    }

    fn candidates(&self) -> Vec<Candidate> {
        let taking =
            self.peers.iter().filter(|peer| peer.is_member && !peer.is_draining && peer.presence == Presence::Awake);
        taking.map(|peer| Candidate { peer: peer.id, free: 1 << 40, domains: Vec::new(), disks: 1 }).collect()
    }

    fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    fn awake(&self) -> Vec<usize> {
        (0..self.peers.len())
            .filter(|&peer| self.peers[peer].presence == Presence::Awake && self.peers[peer].is_member)
            .collect()
    }

    fn join(&mut self) {
        let id = PeerId::from_public_key(&[self.peers.len() as u8; 32]);
        self.peers.push(Peer {
            id,
            presence: Presence::Awake,
            is_member: true,
            is_draining: false,
            disk: BTreeMap::new(),
            heard: self.ledger.clone(),
        });
    }

    /// Stores a fragment at a home, if that is there. Stored again, it is new again.
    fn store(&mut self, home: PeerId, id: FragmentId) -> bool {
        let now = self.now;
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == home && peer.presence == Presence::Awake) else {
            return false;
        };
        peer.disk.insert(id, Kept { is_sound: true, stored: now, trashed: None });
        true
    }

    /// Whether a home is awake and has the right bytes.
    fn gives(&self, placed: &Placed) -> bool {
        self.peer(placed.home).is_some_and(|peer| {
            peer.presence == Presence::Awake && peer.disk.get(&placed.id).is_some_and(|kept| kept.is_sound)
        })
    }

    /// What asking each home says. Without reading, wrong bytes go unnoticed.
    fn conditions(&self, segment: &Segment, is_read: bool) -> Vec<Condition> {
        let condition = |placed: &Placed| match self.peer(placed.home) {
            Some(peer) if peer.is_member => match (peer.presence, peer.disk.get(&placed.id)) {
                (Presence::Napping, _) => Condition::Asleep,
                (Presence::Away | Presence::Dead, _) => Condition::Gone,
                (Presence::Awake, None) => Condition::Damaged,
                (Presence::Awake, Some(kept)) if is_read && !kept.is_sound => Condition::Damaged,
                (Presence::Awake, Some(_)) if peer.is_draining => Condition::Leaving,
                (Presence::Awake, Some(_)) => Condition::Sound,
            },
            _ => Condition::Gone,
        };
        segment.fragments.iter().map(condition).collect()
    }

    /// Looks at a segment as this peer heard of it, and begins what there is to do.
    fn begin(&mut self, by: usize, at: usize, may_recode: bool, is_read: bool) -> bool {
        let seen = self.peers[by].heard[at].clone();
        let conditions = self.conditions(&seen, is_read);
        let found = Found { segment: &seen, conditions: &conditions };
        let plan = plan(found, self.wanted(), may_recode, &self.candidates(), |_| 1);
        let is_work = matches!(plan, Plan::Mend(_) | Plan::Recode { .. });
        if is_work {
            self.jobs.push(Job { by, at, seen, plan, since: self.now, stored: None });
        }
        is_work
    }

    /// Carries a job one step on: first what it stores, then, later, what it writes into the ledger.
    fn advance(&mut self, number: usize) {
        let Job { by, at, seen, plan, since, stored } = self.jobs.swap_remove(number);
        if self.peers[by].presence != Presence::Awake || self.now - since > PLAN_AGE {
            return;
        }
        match stored {
            None => {
                let stored = Some(self.carry_out(&seen, &plan));
                self.jobs.push(Job { by, at, seen, plan, since, stored });
            }
            Some(stored) => self.merge(at, &seen, &plan, stored),
        }
    }

    fn carry_out(&mut self, seen: &Segment, plan: &Plan) -> Vec<Placed> {
        let sources = seen.fragments.iter().filter(|placed| self.gives(placed)).count();
        let can_rebuild = sources >= usize::from(seen.k);
        // Any coding is known by the id of its fragment 0, or would be.
        let coding = seen.fragments.first().map_or(0, |placed| placed.id.as_bytes()[16]);
        let mut stored = Vec::new();
        match plan {
            Plan::Mend(steps) => {
                for step in steps {
                    let placed = Placed { index: step.index, home: step.to, id: fragment(seen.id, coding, step.index) };
                    let is_copied = step.from.is_some_and(|from| self.gives(&Placed { home: from, ..placed.clone() }));
                    if (is_copied || can_rebuild) && self.store(step.to, placed.id) {
                        stored.push(placed);
                    }
                }
            }
            Plan::Recode { homes, .. } if can_rebuild => {
                self.codings += 1;
                for (index, &home) in (0..).zip(homes) {
                    let placed = Placed { index, home, id: fragment(seen.id, self.codings, index) };
                    if self.store(home, placed.id) {
                        stored.push(placed);
                    }
                }
            }
            _ => {}
        }
        stored
    }

    /// The decision inside the ledger.
    fn merge(&mut self, at: usize, seen: &Segment, plan: &Plan, stored: Vec<Placed>) {
        let current = &mut self.ledger[at];
        match plan {
            Plan::Mend(_) => {
                for placed in stored {
                    let of =
                        |segment: &Segment| segment.fragments.iter().find(|other| other.index == placed.index).cloned();
                    if of(current) != of(seen) || (current.k, current.n) != (seen.k, seen.n) {
                        continue;
                    }
                    current.fragments.retain(|other| other.index != placed.index);
                    current.fragments.push(placed);
                    current.fragments.sort_by_key(|placed| placed.index);
                }
            }
            Plan::Recode { policy, homes } if current == seen && stored.len() == homes.len() => {
                *current = Segment { k: policy.k, n: policy.n, fragments: stored, ..seen.clone() };
            }
            _ => {}
        }
    }

    /// A peer looks at what it keeps: what the ledger does not name at this home goes to the trash, and from the trash when all
    /// n fragments of the placement are read and sound.
    fn collect(&mut self, by: usize) {
        for at in 0..self.ledger.len() {
            let segment = &self.ledger[at];
            let is_whole = segment.fragments.len() == usize::from(segment.n)
                && segment.fragments.iter().all(|placed| self.gives(placed));
            let named: BTreeSet<FragmentId> = segment
                .fragments
                .iter()
                .filter(|placed| placed.home == self.peers[by].id)
                .map(|placed| placed.id)
                .collect();
            let (id, now) = (segment.id, self.now);
            self.peers[by].disk.retain(|fragment, kept| {
                if fragment.as_bytes()[..16] != id.as_bytes()[..] {
                    return true;
                }
                if named.contains(fragment) || now - kept.stored < COLLECT_AGE {
                    kept.trashed = None;
                    return true;
                }
                let trashed = *kept.trashed.get_or_insert(now);
                !is_whole || now - trashed < TRASH_AGE
            });
        }
    }

    /// Homes that could still be lost, whichever they are: what sleeps is not lost.
    fn tolerance(&self, segment: &Segment) -> Option<u8> {
        let conditions: Vec<Condition> = segment
            .fragments
            .iter()
            .map(|placed| {
                let is_kept = self.peer(placed.home).is_some_and(|peer| {
                    peer.presence != Presence::Dead && peer.disk.get(&placed.id).is_some_and(|kept| kept.is_sound)
                });
                if is_kept { Condition::Sound } else { Condition::Gone }
            })
            .collect();
        tolerance(Found { segment, conditions: &conditions })
    }

    /// One thing that the nemesis or the world does.
    fn event(&mut self) {
        self.now += 1;
        let awake = self.awake();
        let Some(&one) = awake.choose(&mut self.dice) else { return self.wake() };
        let at = self.dice.random_range(0..self.ledger.len());
        match self.dice.random_range(0..100) {
            0..2 if self.peers.len() < MAX_PEERS => self.join(),
            2..5 => self.peers[one].presence = Presence::Napping,
            5..7 if self.pays() => self.peers[one].presence = Presence::Away,
            7..9 if self.pays() => self.peers[one].presence = Presence::Dead,
            9..10 if self.pays() => self.peers[one].disk.clear(),
            10..11 if self.pays() => self.peers[one].disk.values_mut().for_each(|kept| kept.is_sound = false),
            11..12 if self.staying() > self.fewest() && self.pays() => self.peers[one].is_draining = true,
            12..20 => self.wake(),
            20..35 => self.peers[one].heard[at] = self.ledger[at].clone(),
            35..50 => {
                let (may_recode, is_read) = (self.dice.random(), self.dice.random());
                self.begin(one, at, may_recode, is_read);
            }
            50..62 if !self.jobs.is_empty() => {
                let number = self.dice.random_range(0..self.jobs.len());
                self.advance(number);
            }
            62..100 => self.collect(one),
            _ => {}
        }
    }

    /// Whether one more home may be lost in this round, which is then said to be.
    fn pays(&mut self) -> bool {
        let can_pay = self.budget > 0;
        self.budget = self.budget.saturating_sub(1);
        can_pay
    }

    fn wake(&mut self) {
        let asleep = |peer: &&mut Peer| matches!(peer.presence, Presence::Napping | Presence::Away);
        let asleep: Vec<&mut Peer> = self.peers.iter_mut().filter(asleep).collect();
        let chosen = self.dice.random_range(0..asleep.len().max(1));
        if let Some(peer) = asleep.into_iter().nth(chosen) {
            peer.presence = Presence::Awake;
        }
    }

    /// The nemesis rests: sleepers are back, the dead are no members any more, and each peer does its own work in turn.
    fn recover(&mut self) {
        for peer in &mut self.peers {
            match peer.presence {
                Presence::Dead => peer.is_member = false,
                Presence::Awake | Presence::Napping | Presence::Away => peer.presence = Presence::Awake,
            }
        }
        // A pool that lost too many for its chosen policy gets new ones.
        while self.staying() < self.fewest() {
            self.join();
        }
        while !self.jobs.is_empty() {
            self.advance(0);
        }
        for turn in 0..TURNS {
            self.now += COLLECT_AGE;
            let before = (self.ledger.clone(), self.kept());
            let live: Vec<PeerId> = self.awake().into_iter().map(|peer| self.peers[peer].id).collect();
            for peer in self.awake() {
                self.peers[peer].heard = self.ledger.clone();
                for at in 0..self.ledger.len() {
                    if owner(&self.ledger[at], &live) == Some(self.peers[peer].id) && self.begin(peer, at, true, true) {
                        self.advance(self.jobs.len() - 1);
                        self.advance(self.jobs.len() - 1);
                    }
                }
                self.collect(peer);
            }
            if before == (self.ledger.clone(), self.kept()) && turn > 2 {
                break;
            }
        }
    }

    /// Fragments at members.
    fn kept(&self) -> usize {
        self.peers.iter().filter(|peer| peer.is_member).map(|peer| peer.disk.len()).sum()
    }

    fn assert_kept(&self, story: &str) {
        for segment in &self.ledger {
            assert!(self.tolerance(segment).is_some(), "{story}: lost {segment:?}");
        }
    }

    fn assert_well(&mut self, story: &str) {
        let (wanted, members) = (self.wanted(), self.staying());
        for at in 0..self.ledger.len() {
            let segment = self.ledger[at].clone();
            let conditions = self.conditions(&segment, true);
            let found = Found { segment: &segment, conditions: &conditions };
            assert_eq!(
                Redundancy::of(found, wanted, members),
                Redundancy::Full,
                "{story}: {wanted} over {members}: {found:?}"
            );
            assert!(!conditions.contains(&Condition::Leaving), "{story}: not drained: {found:?}");
            assert_eq!(plan(found, wanted, true, &self.candidates(), |_| 1), Plan::Leave, "{story}: {found:?}");
        }
        let named: usize = self.ledger.iter().map(|segment| segment.fragments.len()).sum();
        assert_eq!(self.kept(), named, "{story}: fragments too many");
        // Who drained may go.
        for peer in self.peers.iter_mut().filter(|peer| peer.is_draining) {
            assert!(!peer.is_member || peer.disk.is_empty(), "{story}: a drained peer keeps something");
            peer.is_member = false;
        }
    }
}

/// See above. The danger is in what two peers do at once: one collects what the other just stored, both move a fragment, a
/// plan is carried out on a placement that is no more, a policy is widened under a repair.
#[test]
fn no_segment_is_lost_and_all_ends_well() {
    (0..SEEDS).for_each(live_through);
}

/// The same, many more times.
#[test]
#[ignore = "takes minutes"]
fn no_segment_is_lost_in_many_pools() {
    (SEEDS..40 * SEEDS).for_each(live_through);
}

fn live_through(seed: u64) {
    let mut world = World::new(seed);
    for round in 0..ROUNDS {
        world.budget = world.ledger.iter().filter_map(|segment| world.tolerance(segment)).min().unwrap_or(0);
        for event in 0..EVENTS {
            world.event();
            world.assert_kept(&format!("seed {seed} round {round} event {event}"));
        }
        world.recover();
        world.assert_well(&format!("seed {seed} round {round}"));
    }
}
