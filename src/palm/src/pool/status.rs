//! Where the pool stands, as far as members, voters and policy tell. What its objects say is counted elsewhere
//! (`object/audit`), and `admin` puts both into words.

use std::collections::BTreeMap;

use palm_core::id::PoolId;
use palm_core::place::Policy;
use palm_core::record::Consistency;
use palm_core::register::Config;
use serde::{Deserialize, Serialize};

use super::ledger::CatchUp;
use super::voters::{self, Presence};
use super::{MemberStatus, Pool};

/// Where the pool stands, as this peer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The pool.
    pub pool_id: PoolText,
    /// Its name.
    pub pool: String,
    /// This peer.
    pub peer_id: PoolText,
    /// Members admitted.
    pub members: usize,
    /// Of those, alive.
    pub members_live: usize,
    /// Voters of the ledger.
    pub voters: usize,
    /// Of those, alive.
    pub voters_live: usize,
    /// The others.
    pub voters_absent: Vec<AbsentVoter>,
    /// Any `k` of `n` fragments rebuild an object written now; chosen by hand or by the number of members.
    pub policy: String,
    /// How many more peers may be lost at once, whichever they are, with every object still readable and
    /// writable.
    pub can_lose: usize,
    /// Whether the objects' own fragments were counted for that; otherwise it is what the policy means them to have.
    pub counted: bool,
    /// What gives out first then.
    pub limit: Limit,
    /// What the pool promises of its objects.
    pub consistency: Consistency,
    /// Some disk holds as many fragments of an object as rebuild it: with the pool key it reveals it.
    pub exposed: bool,
    /// Fragments kept here.
    pub fragments_here: u64,
    /// Their bytes.
    pub bytes_here: u64,
    /// Bytes that could still be stored here; absent when nothing bounds it.
    pub free_here: Option<u64>,
    /// Bytes that could still be stored on all live members together, fragments and redundancy included.
    pub free_pool: u64,
    /// How far this peer's copy of the metadata is from being level with the voters'; absent when it is.
    pub catching_up: Option<CatchUp>,
}

/// A voter that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbsentVoter {
    /// Which.
    pub peer_id: PoolText,
    /// What it calls itself.
    pub name: String,
    /// For how long this peer has not seen it, seconds.
    pub absent_seconds: u64,
    /// When its vote goes to another or lapses, if it stays away: seconds from now. `None`: no other member can vote in its
    /// place, and the pool would be no safer without it.
    pub replaced_in_seconds: Option<u64>,
}

/// An id in a report: its text form.
pub type PoolText = String;

/// What gives out first when peers are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The majority of voters: metadata could be neither read nor written.
    Voters,
    /// The fragments: objects could not be rebuilt.
    #[default]
    Fragments,
}

/// How many more peers may be lost with every object still readable, if each is kept as the policy means it to be.
fn fragments_tolerance(policy: Policy, members: usize, absent: usize) -> usize {
    usize::from(policy.losses_over(members)).saturating_sub(absent)
}

/// Whether some home must keep `k` fragments of an object.
fn is_exposed(policy: Policy, members: usize) -> bool {
    usize::from(policy.n).div_ceil(members.max(1)) >= usize::from(policy.k)
}

/// The voters that are not there, and what becomes of each: what [`voters::choose`] would say had all of them been
/// absent for the whole grace.
fn absent_voters(pool: &Pool, members: &[MemberStatus], config: &Config) -> Vec<AbsentVoter> {
    let grace = pool.0.grace;
    let mut left = BTreeMap::new();
    let mut electors = pool.view().electors();
    for elector in electors.iter_mut().filter(|elector| config.voters.contains(&elector.peer)) {
        if let Presence::Absent(time) = elector.presence {
            left.insert(elector.peer, grace.saturating_sub(time));
            elector.presence = Presence::Absent(time.max(grace));
        }
    }
    let target = voters::choose(&electors, &config.voters, grace)
        .filter(|target| voters::can_change(config, target, &pool.view().live()));
    let absent = left.into_iter().map(|(peer, left)| {
        let member = members.iter().find(|member| member.peer == peer);
        let replaced = target.as_ref().is_some_and(|target| !target.contains(&peer));
        AbsentVoter {
            peer_id: peer.to_string(),
            name: member.map(|member| member.name.clone()).unwrap_or_default(),
            absent_seconds: member.map_or(0, |member| member.absent_for.as_secs()),
            replaced_in_seconds: replaced.then_some(left.as_secs()),
        }
    });
    absent.collect()
}

pub(super) async fn of(pool: &Pool) -> Status {
    let members = pool.view().members();
    let live = pool.view().live();
    let config = pool.ledger().config();
    let members_live = members.iter().filter(|member| member.live).count();
    let absent = members.len() - members_live;
    let voters_live = config.voters.intersection(&live).count();
    let policy = pool.view().wanted_policy();
    let consistency = pool.view().pool().map(|pool| pool.consistency).unwrap_or_default();
    let usage = pool.fragments().usage().await.unwrap_or_default();
    let status = Status {
        pool_id: text(&pool.id()),
        pool: pool.name(),
        peer_id: pool.me().to_string(),
        members: members.len(),
        members_live,
        voters: config.voters.len(),
        voters_live,
        voters_absent: absent_voters(pool, &members, &config),
        policy: format!("{policy}{}", if pool.view().policy().is_none() { " (auto)" } else { "" }),
        can_lose: 0,
        counted: false,
        limit: Limit::Fragments,
        consistency,
        exposed: is_exposed(policy, members.len()),
        fragments_here: usage.fragments,
        bytes_here: usage.bytes,
        free_here: (usage.free != u64::MAX).then_some(usage.free),
        free_pool: pool.view().candidates().iter().fold(0, |sum: u64, candidate| sum.saturating_add(candidate.free)),
        catching_up: *pool.ledger().catch_up().borrow(),
    };
    status.limited_by(fragments_tolerance(policy, pool.view().staying_count(), absent))
}

fn text(pool: &PoolId) -> PoolText {
    pool.to_string()
}

impl Status {
    /// With objects that survive the loss of so many peers.
    fn limited_by(mut self, fragments: usize) -> Self {
        let majority = self.voters / 2 + 1;
        let voters = match self.consistency {
            Consistency::Strong => self.voters_live.saturating_sub(majority),
            Consistency::Local => usize::MAX,
        };
        (self.can_lose, self.limit) =
            if voters <= fragments { (voters, Limit::Voters) } else { (fragments, Limit::Fragments) };
        self
    }

    /// With objects of which the least safe was found to survive the loss of so many peers.
    pub fn counted(self, fragments: usize) -> Self {
        Self { counted: true, ..self.limited_by(fragments) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(k: u8, n: u8) -> Policy {
        Policy::new(k, n).unwrap()
    }

    /// `palm status` promises how many peers may go. Too high a number loses someone's data; the cases are counted
    /// by hand.
    #[test]
    fn the_promise_counts_voters_and_fragments() {
        assert_eq!(tolerance(policy(1, 1), 1, 1, 1, 1), (0, Limit::Voters));
        assert_eq!(tolerance(policy(1, 2), 2, 2, 1, 1), (0, Limit::Voters), "two members have one voter");
        assert_eq!(tolerance(policy(2, 3), 3, 3, 3, 3), (1, Limit::Voters));
        assert_eq!(tolerance(policy(3, 5), 5, 5, 5, 5), (2, Limit::Voters));
        assert_eq!(tolerance(policy(3, 5), 5, 4, 5, 4), (1, Limit::Voters), "one is away already");
        assert_eq!(tolerance(policy(3, 5), 5, 3, 5, 3), (0, Limit::Voters));
        assert_eq!(tolerance(policy(3, 5), 5, 1, 5, 1), (0, Limit::Voters));
        assert_eq!(tolerance(policy(5, 5), 5, 5, 5, 5), (0, Limit::Fragments), "no redundancy");
        assert_eq!(tolerance(policy(3, 5), 3, 3, 3, 3), (1, Limit::Voters), "2, 2 and 1 fragments");
        assert_eq!(tolerance(policy(2, 8), 3, 3, 3, 3), (1, Limit::Voters));
        let counted = status(5, 5).counted(1);
        assert_eq!((counted.can_lose, counted.limit, counted.counted), (1, Limit::Fragments, true));
        let island = Status { consistency: Consistency::Local, ..status(5, 1) }.counted(1);
        assert_eq!((island.can_lose, island.limit), (1, Limit::Fragments), "nobody votes on a local pool's objects");
    }

    fn status(voters: usize, voters_live: usize) -> Status {
        Status { voters, voters_live, ..Status::default() }
    }

    fn tolerance(policy: Policy, members: usize, live: usize, voters: usize, voters_live: usize) -> (usize, Limit) {
        let status = status(voters, voters_live).limited_by(fragments_tolerance(policy, members, members - live));
        (status.can_lose, status.limit)
    }

    /// Promise 3 of the README: when one disk could reveal an object, status must say so.
    #[test]
    fn exposure_is_told() {
        assert!(is_exposed(policy(1, 1), 1));
        assert!(is_exposed(policy(1, 2), 2));
        assert!(!is_exposed(policy(2, 3), 3));
        assert!(is_exposed(policy(2, 3), 2));
        assert!(!is_exposed(policy(3, 5), 3));
    }
}
