//! Who votes: an odd number of long-lived members, grown as members join.
//!
//! | members | 1 | 2 | 3 | 4 | 5 | 6 | 7 and more |
//! | --- | --- | --- | --- | --- | --- | --- | --- |
//! | voters | 1 | 1 | 3 | 3 | 5 | 5 | 7 |
//!
//! An even number would tolerate no more failures than the odd one below it and ask one more answer of every
//! write. Voters are only added here: one that is away keeps its vote, because taking it away on suspicion would
//! let a split pool shrink itself on both sides.

use std::collections::BTreeSet;
use std::time::Duration;

use palm_core::id::PeerId;
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
/// Steps of one change: each voter added takes two (R8).
const MAX_STEPS: usize = 2 * MAX_VOTERS;
/// How often the need for a change is looked at when nothing happens.
const TICK: Duration = Duration::from_secs(1);

/// A member as the choice of voters sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elector {
    /// Which.
    pub peer: PeerId,
    /// When it was admitted, milliseconds since the Unix epoch.
    pub joined_ms: u64,
    /// Whether it is believed alive.
    pub live: bool,
}

/// How many voters `members` members should have.
pub fn wanted(members: usize) -> usize {
    match members.min(MAX_VOTERS) {
        0 => 0,
        some => some - (1 - some % 2),
    }
}

/// The voters the pool should have, or `None` when those it has are right. Present voters stay; the longest-joined
/// live members are added, never so that the number ends even.
pub fn choose(members: &[Elector], voters: &BTreeSet<PeerId>) -> Option<BTreeSet<PeerId>> {
    let mut newcomers: Vec<_> = members.iter().filter(|member| member.live && !voters.contains(&member.peer)).collect();
    newcomers.sort_by_key(|member| (member.joined_ms, member.peer));
    let reachable = wanted(members.len()).min(wanted(voters.len() + newcomers.len()));
    let missing = reachable.checked_sub(voters.len()).filter(|&missing| missing > 0)?;
    let mut target = voters.clone();
    target.extend(newcomers.iter().take(missing).map(|member| member.peer));
    Some(target)
}

/// Keeps the number of voters right until `stop`. Runs at every member; only voters propose.
pub(super) async fn keep(ledger: Ledger, view: View, stop: CancellationToken) {
    let mut changes = view.changes();
    let mut configs = ledger.config_changes();
    // What is wanted, and since when.
    let mut need: Option<(BTreeSet<PeerId>, Instant)> = None;
    loop {
        let config = ledger.config();
        let target = if config.outgoing.is_some() {
            // A change is half done: finish it, whoever began it.
            Some(config.voters.clone())
        } else {
            choose(&view.electors(), &config.voters)
        };
        let rank = rank(&view, &config.voters);
        need = match (target, need) {
            (None, _) => None,
            (Some(target), Some((known, since))) if known == target => Some((target, since)),
            (Some(target), _) => Some((target, Instant::now())),
        };
        if let (Some((target, since)), Some(rank)) = (&need, rank)
            && since.elapsed() >= SETTLE + STEP * rank
        {
            info!(voters = target.len(), epoch = config.epoch, "changing voters");
            tokio::select! {
                () = stop.cancelled() => return,
                changed = change(&ledger, target) => match changed {
                    Ok(()) => info!(voters = target.len(), epoch = ledger.config().epoch, "voters changed"),
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

/// Takes the voters to `target`, one member at a time. Another peer may be at it too: whoever is faster, each step is
/// taken once.
async fn change(ledger: &Ledger, target: &BTreeSet<PeerId>) -> Result<(), LedgerError> {
    for _ in 0..MAX_STEPS {
        if ledger.change_voters(target).await? {
            break;
        }
    }
    Ok(())
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

    fn members(n: u8) -> Vec<Elector> {
        (1..=n).map(|i| Elector { peer: peer(i), joined_ms: u64::from(i), live: true }).collect()
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
            let chosen = choose(&members(n), &set(&[1])).unwrap_or_else(|| set(&[1]));
            assert_eq!(chosen.len(), wanted(n.into()), "{n} members");
        }
    }

    /// Members come one by one: voters stay who they are, and the oldest others are added.
    #[test]
    fn present_voters_stay_and_the_oldest_join_them() {
        assert_eq!(choose(&members(2), &set(&[2])), None);
        assert_eq!(choose(&members(3), &set(&[3])), Some(set(&[1, 2, 3])));
        assert_eq!(choose(&members(6), &set(&[2, 4, 6])), Some(set(&[1, 2, 3, 4, 6])));
        assert_eq!(choose(&members(4), &set(&[2, 3, 4])), None);
    }

    /// Of five members two are away. Making one of them a voter would lower what the pool survives, and four
    /// voters survive no more than three: nothing may change until they are back.
    #[test]
    fn absent_members_do_not_become_voters() {
        let mut five = members(5);
        five[3].live = false;
        five[4].live = false;
        assert_eq!(choose(&five, &set(&[1, 2, 3])), None);
        five[3].live = true;
        assert_eq!(choose(&five, &set(&[1, 2, 3])), None, "four would be even");
        five[4].live = true;
        assert_eq!(choose(&five, &set(&[1, 2, 3])), Some(set(&[1, 2, 3, 4, 5])));
    }

    /// A voter that is away keeps its vote: both sides of a split dropping each other would make two pools.
    #[test]
    fn absent_voters_are_not_dropped() {
        let mut three = members(3);
        three[0].live = false;
        assert_eq!(choose(&three, &set(&[1, 2, 3])), None);
    }
}
