//! Where each fragment of a segment will be: what planning a repair changes.

use std::collections::BTreeMap;

use super::{Condition, Found, Step};
use crate::id::PeerId;
use crate::place::{self, Candidate, Policy};

/// A fragment, where it was found and where it will be.
#[derive(Debug, Clone, Copy)]
struct Slot {
    index: u8,
    was: Option<(PeerId, Condition)>,
    /// `None` while it has no place that counts: it is lost, or leaves and has nowhere to go yet.
    home: Option<PeerId>,
}

impl Slot {
    /// What is to be done for it.
    fn step(&self) -> Option<Step> {
        let (index, to) = (self.index, self.home?);
        let from = match self.was {
            Some((home, Condition::Sound | Condition::Leaving | Condition::Asleep)) if home == to => return None,
            Some((home, condition)) if condition.is_there() => Some(home),
            _ => None,
        };
        Some(Step { index, to, from })
    }

    /// Whether its place may still be changed.
    fn can_move(&self) -> bool {
        self.home.is_some() && self.is_awake()
    }

    fn is_awake(&self) -> bool {
        !self.is(Condition::Asleep)
    }

    fn is(&self, wanted: Condition) -> bool {
        self.was.is_some_and(|(_, condition)| condition == wanted)
    }
}

/// All fragments of a segment and the peers that could take them.
pub(super) struct Layout<'a> {
    policy: Policy,
    need_bytes: u64,
    /// In rendezvous order.
    candidates: Vec<&'a Candidate>,
    slots: Vec<Slot>,
}

impl<'a> Layout<'a> {
    /// What stays if nothing is done.
    pub(super) fn new(found: Found<'_>, policy: Policy, candidates: &'a [Candidate], need_bytes: u64) -> Self {
        let fragments = found.by_index();
        let is_candidate = |home| candidates.iter().any(|candidate| candidate.peer == home);
        let slots = (0..policy.n).map(|index| {
            let was = fragments.get(&index).copied();
            let home = was.and_then(|(home, condition)| match condition {
                Condition::Sound | Condition::Asleep => Some(home),
                Condition::Leaving => is_candidate(home).then_some(home),
                Condition::Damaged | Condition::Gone => None,
            });
            Slot { index, was, home }
        });
        let slots = slots.collect();
        Self { policy, need_bytes, candidates: place::order(found.segment.id, candidates), slots }
    }

    /// Gives the lost ones a place: in place if that goes.
    pub(super) fn rebuild(&mut self) {
        for at in 0..self.slots.len() {
            if let Slot { was: Some((home, Condition::Damaged)), home: None, .. } = self.slots[at] {
                self.slots[at].home = self.takers().into_iter().find(|taker| *taker == home);
            }
        }
        for at in 0..self.slots.len() {
            if self.slots[at].home.is_none() && !self.slots[at].is(Condition::Leaving) {
                self.slots[at].home = self.best_taker();
            }
        }
    }

    /// Gives those that must leave their home another one.
    pub(super) fn drain(&mut self) {
        for at in 0..self.slots.len() {
            if self.slots[at].home.is_none() && self.slots[at].is(Condition::Leaving) {
                self.slots[at].home = self.best_taker();
            }
        }
    }

    /// Moves those whose home holds too much beside others, where that makes the segment no less safe.
    pub(super) fn relieve(&mut self) {
        for at in 0..self.slots.len() {
            let before = self.slots[at];
            if !before.is(Condition::Leaving) || before.step().is_some() || before.home.is_none() {
                continue;
            }
            let (safety, awake) = (self.safety(), self.safety_of(Slot::is_awake));
            self.slots[at].home = None;
            let taker = self.best_taker();
            self.slots[at].home = taker;
            if taker.is_none() || self.safety() < safety || self.safety_of(Slot::is_awake) < awake {
                self.slots[at] = before;
            }
        }
    }

    /// Moves fragments from the fullest homes to the emptiest until as many homes may be lost, and as little is shown to
    /// one disk, as by a placement made now; as few moves as reach it, or come nearest to it.
    pub(super) fn level(&mut self, fresh: &place::Plan) {
        let goal =
            (place::losses(place::counts(fresh.homes.iter().copied()).into_values(), self.policy.k), !fresh.exposed);
        let reached = |layout: &Self| {
            let (losses, private) = layout.safety();
            (losses.min(goal.0), private.min(goal.1))
        };
        let mut best = (reached(self), self.slots.clone());
        while best.0 < goal && self.transfer() {
            if reached(self) > best.0 {
                best = (reached(self), self.slots.clone());
            }
        }
        self.slots = best.1;
    }

    /// Moves one fragment from the fullest home to the emptiest. `false`: it is level.
    fn transfer(&mut self) -> bool {
        let held = self.held();
        let Some(to) = self.best_taker() else { return false };
        let load = |slot: &Slot| slot.home.and_then(|home| held.get(&home)).copied().unwrap_or(0);
        // One that is to be stored or should leave anyway costs nothing more; then the last, which are parity.
        let is_free = |slot: &Slot| slot.step().is_some() || slot.is(Condition::Leaving);
        let movable = self.slots.iter_mut().filter(|slot| slot.can_move());
        let Some(slot) = movable.max_by_key(|slot| (load(slot), is_free(slot), slot.index)) else {
            return false;
        };
        let is_uneven = load(slot) >= held.get(&to).copied().unwrap_or(0) + 2;
        if is_uneven {
            slot.home = Some(to);
        }
        is_uneven
    }

    /// Whether coding anew, placed so, is worth it: it is wider, or the present policy cannot be met any more.
    pub(super) fn is_worse_than(&self, fresh: &place::Plan) -> bool {
        let (losses, private) = self.safety();
        let gives = place::losses(place::counts(fresh.homes.iter().copied()).into_values(), fresh.policy.k);
        let is_wider = (fresh.policy.spare(), fresh.policy.n) > (self.policy.spare(), self.policy.n);
        let is_partial = self.slots.iter().any(|slot| slot.home.is_none());
        gives > losses || gives == losses && (is_partial || is_wider && (!fresh.exposed || !private))
    }

    /// What is to be stored.
    pub(super) fn steps(&self) -> Vec<Step> {
        self.slots.iter().filter_map(Slot::step).collect()
    }

    /// How many homes may be lost once all is done, those that sleep counted; and whether none of them can rebuild it alone.
    fn safety(&self) -> (Option<u8>, bool) {
        self.safety_of(|_| true)
    }

    fn safety_of(&self, counts: impl Fn(&Slot) -> bool) -> (Option<u8>, bool) {
        let held = place::counts(self.slots.iter().filter(|slot| counts(slot)).filter_map(|slot| slot.home));
        let fullest = held.values().max().copied().unwrap_or(0);
        (place::losses(held.into_values(), self.policy.k), fullest < usize::from(self.policy.k))
    }

    /// How many fragments each home will hold.
    fn held(&self) -> BTreeMap<PeerId, usize> {
        place::counts(self.slots.iter().filter_map(|slot| slot.home))
    }

    /// Who may take one more fragment: those that hold the fewest first, then those whose domain does, then in rendezvous
    /// order. Nobody that should give some away.
    fn takers(&self) -> Vec<PeerId> {
        let held = self.held();
        let coming = place::counts(self.slots.iter().filter_map(Slot::step).map(|step| step.to));
        let of = |counts: &BTreeMap<PeerId, usize>, peer| counts.get(&peer).copied().unwrap_or(0);
        let load = |is_near: &dyn Fn(&Candidate) -> bool| -> usize {
            self.candidates.iter().filter(|other| is_near(other)).map(|other| of(&held, other.peer)).sum()
        };
        let cap =
            |candidate: &Candidate| self.policy.durability_cap() * candidate.disks_that_count(self.candidates.len());
        let takers = self.candidates.iter().filter(|candidate| {
            let room = candidate.room(self.need_bytes);
            let gives = self.slots.iter().any(|slot| slot.was == Some((candidate.peer, Condition::Leaving)));
            of(&held, candidate.peer) < cap(candidate) && of(&coming, candidate.peer) < room && !gives
        });
        let mut takers: Vec<&Candidate> = takers.copied().collect();
        takers.sort_by_cached_key(|taker| {
            let in_room = load(&|other| other.peer == taker.peer || other.shares_room(taker));
            let at_host = load(&|other| other.peer == taker.peer || other.shares_host(taker));
            (of(&held, taker.peer), in_room, at_host)
        });
        takers.into_iter().map(|taker| taker.peer).collect()
    }

    fn best_taker(&self) -> Option<PeerId> {
        self.takers().first().copied()
    }
}
