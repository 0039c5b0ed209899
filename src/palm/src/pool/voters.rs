//! Who votes: an odd number of long-lived members, grown as members join.
//!
//! | members | 1 | 2 | 3 | 4 | 5 | 6 | 7 and more |
//! | --- | --- | --- | --- | --- | --- | --- | --- |
//! | voters | 1 | 1 | 3 | 3 | 5 | 5 | 7 |
//!
//! An even number would tolerate no more failures than the odd one below it and ask one more answer of every
//! write.
//!
//! A voter that is away keeps its vote for a grace, then a live learner takes its place. Where there is no learner,
//! absent voters lose their votes two by two: of five with two away all three others are needed, of three any two.
//! One absent voter alone keeps its vote, since four survive no more failures than five with one away. All of it is
//! decided by a majority of the voters there were (R8), so both sides of a split cannot do it; suspicion only proposes.

use std::collections::BTreeSet;
use std::time::Duration;

use palm_core::id::PeerId;
use palm_core::register::Config;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ledger::{Ledger, LedgerError};
use super::view::View;

/// More voters tolerate more failures, and cost every write more messages.
pub const MAX_VOTERS: usize = 7;
/// A change is proposed once it has been wanted this long: members that join together are taken in one go.
const SETTLE: Duration = Duration::from_millis(500);
/// Each further live voter waits this much longer, so that one proposes and the others step in only if it fails.
const STEP: Duration = Duration::from_secs(4);
/// Members that are added or removed in one go, at most.
const MAX_STEPS: usize = 2 * MAX_VOTERS;
/// How often the need for a change is looked at when nothing happens.
const TICK: Duration = Duration::from_secs(1);

/// How a member is found by the choice of voters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Believed alive.
    Live,
    /// Not seen for this long.
    Absent(Duration),
    /// Evicted, or left: no member any more.
    Dismissed,
}

/// A member as the choice of voters sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elector {
    /// Which.
    pub peer: PeerId,
    /// When it was admitted, milliseconds since the Unix epoch.
    pub joined_ms: u64,
    /// Whether it is there.
    pub presence: Presence,
}

/// How many voters `members` members should have.
pub fn wanted(members: usize) -> usize {
    match members.min(MAX_VOTERS) {
        0 => 0,
        some => some - (1 - some % 2),
    }
}

/// The voters the pool should have, or `None` when those it has are right: present ones stay, the longest-joined live
/// members join them, and who has been absent for `grace` gives up its place as this room's head says. Voters not among
/// `members` are not known yet, and stay.
pub fn choose(members: &[Elector], voters: &BTreeSet<PeerId>, grace: Duration) -> Option<BTreeSet<PeerId>> {
    let mut kept = voters.clone();
    let (mut spares, mut gone) = (Vec::new(), Vec::new());
    for member in members {
        match member.presence {
            Presence::Live if !voters.contains(&member.peer) => spares.push((member.joined_ms, member.peer)),
            Presence::Absent(time) if time >= grace && kept.remove(&member.peer) => gone.push((time, member.peer)),
            Presence::Dismissed => drop(kept.remove(&member.peer)),
            Presence::Live | Presence::Absent(_) => {}
        }
    }
    spares.sort_unstable();
    let size = wanted(kept.len() + spares.len());
    let missing = size.saturating_sub(kept.len());
    let mut target = kept.clone();
    target.extend(spares.iter().take(missing).map(|&(_, peer)| peer));
    if target.len().is_multiple_of(2) {
        // Odd again: by the one that may come back first, or, all being well, without the one that came last.
        if let Some(&(_, peer)) = gone.iter().min() {
            target.insert(peer);
        } else {
            let live = || members.iter().filter(|one| one.presence == Presence::Live && target.contains(&one.peer));
            let newest = live().max_by_key(|one| (one.joined_ms, one.peer)).filter(|_| live().count() == target.len());
            if let Some(newest) = newest {
                target.remove(&newest.peer);
            }
        }
    }
    (target != *voters && !target.is_empty()).then_some(target)
}

/// Whether `live` can carry a change from `config` to `target` through, and go on after it.
pub(super) fn can_change(config: &Config, target: &BTreeSet<PeerId>, live: &BTreeSet<PeerId>) -> bool {
    let after = Config { epoch: config.epoch, voters: target.clone(), outgoing: None };
    config.is_quorum(live) && after.is_quorum(live)
}

/// Keeps the voters right until `stop`. Runs at every member; only voters that see a majority propose.
pub(super) async fn keep(ledger: Ledger, view: View, grace: Duration, stop: CancellationToken) {
    let mut changes = view.changes();
    let mut configs = ledger.config_changes();
    // What is wanted, and since when.
    let mut need: Option<(BTreeSet<PeerId>, Instant)> = None;
    loop {
        let config = ledger.config();
        need = match (next_voters(&config, &view, grace), need) {
            (None, _) => None,
            (Some(next), Some((known, since))) if known == next => Some((next, since)),
            (Some(next), _) => Some((next, Instant::now())),
        };
        if let (Some((_, since)), Some(rank)) = (&need, rank(&view, &config.voters))
            && since.elapsed() >= SETTLE + STEP * rank
        {
            info!(epoch = config.epoch, "changing voters");
            tokio::select! {
                () = stop.cancelled() => return,
                changed = change(&ledger, &view, grace) => match changed {
                    Ok(()) => info!(epoch = ledger.config().epoch, "voters changed"),
                    Err(error) => warn!(%error, "voters could not be changed; trying again"),
                },
            }
            need = None;
        }
        let wake = if need.is_some() { SETTLE } else { TICK };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed() => {}
            _ = configs.changed() => {}
            () = tokio::time::sleep(wake) => {}
        }
    }
}

/// Takes the voters to where they should be, one member at a time. Other peers may be at it too, and members come and go
/// meanwhile: so every step is chosen anew, and taken from the configuration it was chosen for or not at all.
async fn change(ledger: &Ledger, view: &View, grace: Duration) -> Result<(), LedgerError> {
    for _ in 0..MAX_STEPS {
        let config = ledger.config();
        let Some(next) = next_voters(&config, view, grace) else { break };
        ledger.move_voters(&config, next).await?;
    }
    Ok(())
}

/// The next step from `config`, if one is due and can be carried through.
fn next_voters(config: &Config, view: &View, grace: Duration) -> Option<BTreeSet<PeerId>> {
    let live = view.live();
    let next = match &config.outgoing {
        // A change is half done. On with it, whoever began it; unless the one who was to join is gone.
        Some(before) if config.voters.difference(before).all(|joiner| live.contains(joiner)) => config.voters.clone(),
        Some(before) => before.clone(),
        None => next_step(&config.voters, &choose(&view.electors(), &config.voters, grace)?, &live)?,
    };
    can_change(config, &next, &live).then_some(next)
}

/// The voters one member nearer to `target`; `None` when they are there. Whoever is replaced goes right after the one who
/// takes its place has come, and the absent before the live: in between, too, as many as possible should be there.
fn next_step(
    voters: &BTreeSet<PeerId>,
    target: &BTreeSet<PeerId>,
    live: &BTreeSet<PeerId>,
) -> Option<BTreeSet<PeerId>> {
    let joiner = target.difference(voters).next();
    let leaver = voters.difference(target).min_by_key(|peer| live.contains(peer));
    let mut next = voters.clone();
    match (joiner, leaver) {
        (None, None) => return None,
        (Some(joiner), leaver) if leaver.is_none() || voters.len() <= target.len() => {
            next.insert(*joiner);
        }
        (_, leaver) => {
            next.remove(leaver?);
        }
    }
    Some(next)
}

/// How many live voters come before this peer in proposing; `None` when it does not vote.
fn rank(view: &View, voters: &BTreeSet<PeerId>) -> Option<u32> {
    let me = view.me();
    if !voters.contains(&me) {
        return None;
    }
    Some(voters.iter().take_while(|&&voter| voter != me).filter(|&&voter| view.is_live(voter)).count() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    const GRACE: Duration = Duration::from_mins(15);
    const AWAY: Presence = Presence::Absent(Duration::from_mins(14));
    const GONE: Presence = Presence::Absent(Duration::from_mins(15));

    fn members(n: u8) -> Vec<Elector> {
        (1..=n).map(|i| Elector { peer: peer(i), joined_ms: u64::from(i), presence: Presence::Live }).collect()
    }

    /// Of `n` members, these are not simply there.
    fn members_but(n: u8, others: &[(u8, Presence)]) -> Vec<Elector> {
        let mut members = members(n);
        for &(id, presence) in others {
            members[usize::from(id) - 1].presence = presence;
        }
        members
    }

    fn chosen(members: &[Elector], voters: &[u8]) -> Option<BTreeSet<PeerId>> {
        choose(members, &set(voters), GRACE)
    }

    fn set(ids: &[u8]) -> BTreeSet<PeerId> {
        ids.iter().map(|&id| peer(id)).collect()
    }

    /// The table of this room's head: an even number of voters, or more than seven, would cost and bring nothing.
    #[test]
    fn voters_are_odd_and_at_most_seven() {
        let counts: Vec<_> = (0..=10).map(wanted).collect();
        assert_eq!(counts, [0, 1, 1, 3, 3, 5, 5, 7, 7, 7, 7]);
        for n in 1..=10 {
            let voters = chosen(&members(n), &[1]).unwrap_or_else(|| set(&[1]));
            assert_eq!(voters.len(), wanted(n.into()), "{n} members");
        }
    }

    /// Members come one by one: voters stay who they are, and the oldest others are added.
    #[test]
    fn present_voters_stay_and_the_oldest_join_them() {
        assert_eq!(chosen(&members(2), &[2]), None);
        assert_eq!(chosen(&members(3), &[3]), Some(set(&[1, 2, 3])));
        assert_eq!(chosen(&members(6), &[2, 4, 6]), Some(set(&[1, 2, 3, 4, 6])));
        assert_eq!(chosen(&members(4), &[2, 3, 4]), None);
    }

    /// Of five members two are away. Making one of them a voter would lower what the pool survives, and four
    /// voters survive no more than three: nothing may change until they are back.
    #[test]
    fn absent_members_do_not_become_voters() {
        assert_eq!(chosen(&members_but(5, &[(4, AWAY), (5, AWAY)]), &[1, 2, 3]), None);
        assert_eq!(chosen(&members_but(5, &[(5, GONE)]), &[1, 2, 3]), None, "four would be even");
        assert_eq!(chosen(&members(5), &[1, 2, 3]), Some(set(&[1, 2, 3, 4, 5])));
    }

    /// A voter is away. Taking its vote at once would move votes about with every restart; after the grace the oldest
    /// live learner takes its place, and never an absent one. Back again, it is a learner like others.
    #[test]
    fn who_is_away_too_long_is_replaced() {
        assert_eq!(chosen(&members_but(4, &[(1, AWAY)]), &[1, 2, 3]), None);
        assert_eq!(chosen(&members_but(4, &[(1, GONE)]), &[1, 2, 3]), Some(set(&[2, 3, 4])));
        assert_eq!(chosen(&members_but(5, &[(1, GONE), (4, AWAY)]), &[1, 2, 3]), Some(set(&[2, 3, 5])));
        assert_eq!(chosen(&members_but(4, &[(1, GONE), (4, GONE)]), &[1, 2, 3]), None);
        assert_eq!(chosen(&members(4), &[2, 3, 4]), None);
    }

    /// Nobody is there to take the place of who is gone. Of five with one gone any one more may go, as of four: its vote
    /// stays, in case it returns. With two gone none may: of three, one. Never may the number of failures survived fall.
    #[test]
    fn without_learners_votes_lapse_in_pairs() {
        assert_eq!(chosen(&members_but(5, &[(2, GONE)]), &[1, 2, 3, 4, 5]), None);
        assert_eq!(chosen(&members_but(5, &[(2, GONE), (4, GONE)]), &[1, 2, 3, 4, 5]), Some(set(&[1, 3, 5])));
        assert_eq!(chosen(&members_but(5, &[(2, GONE), (4, AWAY)]), &[1, 2, 3, 4, 5]), None);
        assert_eq!(chosen(&members_but(3, &[(2, GONE)]), &[1, 2, 3]), None);
        assert_eq!(chosen(&members_but(4, &[(2, GONE)]), &[1, 2, 3, 4]), Some(set(&[1, 3, 4])));
        for n in 1..=7_u8 {
            let voters: Vec<u8> = (1..=n).collect();
            for gone in 0..1_u8 << n {
                let absent: Vec<_> =
                    voters.iter().filter(|&&id| gone >> (id - 1) & 1 == 1).map(|&id| (id, GONE)).collect();
                let live = usize::from(n) - absent.len();
                let spare_before = live.checked_sub(usize::from(n) / 2 + 1);
                let Some(target) = chosen(&members_but(n, &absent), &voters) else { continue };
                let live = target.iter().filter(|peer| absent.iter().all(|&(id, _)| **peer != self::peer(id))).count();
                assert!(live.checked_sub(target.len() / 2 + 1) >= spare_before, "{gone:b} of {n} gone");
            }
        }
    }

    /// Evicted or left: the vote goes at once, and the number is made odd again where all others are well. A pool that
    /// is waiting for one more to return must not lose a live voter to symmetry.
    #[test]
    fn who_was_sent_away_does_not_vote() {
        let away = Presence::Dismissed;
        assert_eq!(chosen(&members_but(6, &[(1, away)]), &[1, 2, 3, 4, 5]), Some(set(&[2, 3, 4, 5, 6])));
        assert_eq!(chosen(&members_but(5, &[(1, away)]), &[1, 2, 3, 4, 5]), Some(set(&[2, 3, 4])));
        assert_eq!(chosen(&members_but(5, &[(1, away), (2, AWAY)]), &[1, 2, 3, 4, 5]), Some(set(&[2, 3, 4, 5])));
        assert_eq!(chosen(&members_but(5, &[(1, away), (2, GONE)]), &[1, 2, 3, 4, 5]), Some(set(&[3, 4, 5])));
        assert_eq!(chosen(&members_but(4, &[(4, away)]), &[1, 2, 3]), None);
    }

    /// On the way to the voters chosen every step must find the majorities that it and the next one need. (Once two of
    /// three voters were to go, one of them dead, and the live one went first: the two left could do nothing any more.)
    /// Walked for all pools of up to seven voters, any of them gone or sent away, with up to three learners.
    #[test]
    fn no_step_on_the_way_is_a_dead_end() {
        for (n, learners) in (1..=7_u8).flat_map(|n| (0..=3).map(move |learners| (n, learners))) {
            let mut voters: BTreeSet<PeerId> = (1..=n).map(peer).collect();
            for fates in 0..3_u32.pow(n.into()) {
                let fate = |id: u8| {
                    [Presence::Live, GONE, Presence::Dismissed][(fates / 3_u32.pow(u32::from(id) - 1) % 3) as usize]
                };
                let others: Vec<_> = (1..=n).map(|id| (id, fate(id))).collect();
                let members = members_but(n + learners, &others);
                // The dead among those sent away are the harder case.
                let there = |one: &&Elector| one.presence == Presence::Live;
                let live: BTreeSet<PeerId> = members.iter().filter(there).map(|one| one.peer).collect();
                let config = |voters: &BTreeSet<PeerId>| Config { epoch: 1, voters: voters.clone(), outgoing: None };
                let Some(target) = choose(&members, &voters, GRACE) else { continue };
                if !can_change(&config(&voters), &target, &live) {
                    continue;
                }
                let mut steps = 0;
                let first = voters.clone();
                while let Some(next) = next_step(&voters, &target, &live) {
                    assert_eq!(next.symmetric_difference(&voters).count(), 1, "one member at a time (R8)");
                    assert!(can_change(&config(&voters), &next, &live), "{others:?} and {learners} learners");
                    voters = next;
                    steps += 1;
                }
                assert!(steps <= MAX_STEPS);
                voters = first;
            }
        }
    }

    /// Two of five voters are gone and two learners take their places: each comes just before the one it replaces goes.
    #[test]
    fn replacements_go_one_in_one_out() {
        let (mut voters, target) = (set(&[1, 2, 3, 4, 5]), set(&[3, 4, 5, 6, 7]));
        let mut sizes = Vec::new();
        while let Some(next) = next_step(&voters, &target, &target) {
            sizes.push(next.len());
            voters = next;
        }
        assert_eq!((voters, sizes), (target, vec![6, 5, 6, 5]));
    }

    /// A voter has just been started and its roll holds itself alone: it must not take the others for gone.
    #[test]
    fn unknown_voters_stay() {
        assert_eq!(chosen(&members(1), &[1, 2, 3]), None);
    }

    /// Three voters of five are out of reach: what is left could propose what it likes and never decide it. Nor is a
    /// change begun that the new voters could not carry on.
    #[test]
    fn a_minority_does_not_even_try() {
        let config = Config { epoch: 1, voters: set(&[1, 2, 3, 4, 5]), outgoing: None };
        assert!(can_change(&config, &set(&[1, 2, 3]), &set(&[1, 2, 3])));
        assert!(!can_change(&config, &set(&[1, 2]), &set(&[1, 2])));
        assert!(!can_change(&config, &set(&[3, 4, 5]), &set(&[1, 2, 3])));
    }
}
