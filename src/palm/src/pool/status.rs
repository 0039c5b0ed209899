//! Where the pool stands, in figures and in words.

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// writable. Objects written while members were away may have less.
    pub can_lose: usize,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The majority of voters: metadata could be neither read nor written.
    Voters,
    /// The fragments: objects could not be rebuilt.
    Fragments,
}

/// How many more peers may be lost, and what gives out then.
fn tolerance(policy: Policy, members: usize, members_live: usize, voters: usize, voters_live: usize) -> (usize, Limit) {
    let by_voters = voters_live.saturating_sub(voters / 2 + 1);
    let by_fragments = fragments_tolerance(policy, members, members_live);
    if by_voters <= by_fragments { (by_voters, Limit::Voters) } else { (by_fragments, Limit::Fragments) }
}

/// How many more peers may be lost with every object still readable.
fn fragments_tolerance(policy: Policy, members: usize, members_live: usize) -> usize {
    let absent = members.saturating_sub(members_live);
    homes_to_spare(policy, members).saturating_sub(absent)
}

/// How many of `members` homes may be lost, the fullest first, with `k` of the `n` fragments left.
fn homes_to_spare(policy: Policy, members: usize) -> usize {
    let (k, n) = (usize::from(policy.k), usize::from(policy.n));
    let homes = members.clamp(1, n.max(1));
    // Spread evenly: `fuller` homes keep one fragment more than the others.
    let (each, fuller) = (n / homes, n % homes);
    let mut left = n;
    (0..homes)
        .take_while(|&home| {
            left -= each + usize::from(home < fuller);
            left >= k
        })
        .count()
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
    let voters_live = config.voters.intersection(&live).count();
    let chosen = pool.view().policy();
    let policy = chosen.unwrap_or_else(|| Policy::auto(members.len()));
    let consistency = pool.view().pool().map(|pool| pool.consistency).unwrap_or_default();
    let (can_lose, limit) = match consistency {
        Consistency::Strong => tolerance(policy, members.len(), members_live, config.voters.len(), voters_live),
        Consistency::Local => (fragments_tolerance(policy, members.len(), members_live), Limit::Fragments),
    };
    let usage = pool.fragments().usage().await.unwrap_or_default();
    Status {
        pool_id: text(&pool.id()),
        pool: pool.name(),
        peer_id: pool.me().to_string(),
        members: members.len(),
        members_live,
        voters: config.voters.len(),
        voters_live,
        voters_absent: absent_voters(pool, &members, &config),
        policy: format!("{policy}{}", if chosen.is_none() { " (auto)" } else { "" }),
        can_lose,
        limit,
        consistency,
        exposed: is_exposed(policy, members.len()),
        fragments_here: usage.fragments,
        bytes_here: usage.bytes,
        free_here: (usage.free != u64::MAX).then_some(usage.free),
        free_pool: pool.view().candidates().iter().fold(0, |sum: u64, candidate| sum.saturating_add(candidate.free)),
        catching_up: *pool.ledger().catch_up().borrow(),
    }
}

fn text(pool: &PoolId) -> PoolText {
    pool.to_string()
}

impl Status {
    /// The state of the pool in a sentence or two each, the most important first.
    pub fn sentences(&self) -> Vec<String> {
        let mut said = Vec::new();
        let majority = self.voters / 2 + 1;
        if self.voters == 0 {
            said.push(
                "STANDSTILL: a recovery was begun and not ended. Run `palm pool recover` again, at any member."
                    .to_owned(),
            );
        } else if self.consistency == Consistency::Local && self.voters_live < majority {
            said.push(format!(
                "AN ISLAND: {} of {} members are reachable. This peer reads and writes with them alone, and all is merged when the others are back; until then members and access keys cannot change.",
                self.members_live, self.members,
            ));
        } else if self.voters_live < majority {
            said.push(format!(
                "NO MAJORITY: {} of {} voters are reachable, {majority} are needed. Requests are answered 503 until {} more {} back. \
                 If they are lost for ever, see `palm pool recover`.",
                self.voters_live,
                self.voters,
                majority - self.voters_live,
                if majority - self.voters_live == 1 { "comes" } else { "come" },
            ));
        } else {
            said.push(match (self.can_lose, self.limit) {
                (0, Limit::Voters) => {
                    "You can lose no more peers: one more voter lost and requests are answered 503.".to_owned()
                }
                (0, Limit::Fragments) => "You can lose no more peers without losing access to objects.".to_owned(),
                (n, _) => format!(
                    "You can lose {n} more {}.",
                    if n == 1 { "peer, whichever it is" } else { "peers, whichever they are" }
                ),
            });
        }
        said.extend(self.voters_absent.iter().map(AbsentVoter::sentence));
        if self.exposed {
            said.push(if self.members == 1 {
                "This is the only member: its disk holds all of every object.".to_owned()
            } else {
                format!(
                    "With {} members and {}, some disk holds enough fragments to rebuild an object (with the pool key). More members mend that.",
                    self.members, self.policy
                )
            });
        }
        if let Some(progress) = &self.catching_up {
            said.push(format!("This peer is catching up: {progress}."));
        }
        said
    }
}

impl AbsentVoter {
    fn sentence(&self) -> String {
        let minutes = |seconds: u64| match seconds {
            0..60 => format!("{seconds} s"),
            _ => format!("{} min", seconds.div_ceil(60)),
        };
        let then = match self.replaced_in_seconds {
            Some(0) => "its vote is being taken over.".to_owned(),
            Some(left) => format!("will be replaced in {}.", minutes(left)),
            None => "keeps its vote: no other member can take it over.".to_owned(),
        };
        format!("Voter {} has been absent for {}; {then}", self.name, minutes(self.absent_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_voter_is_told_of() {
        let absent = |absent_seconds, replaced_in_seconds| {
            let (peer_id, name) = (String::new(), "attic".to_owned());
            AbsentVoter { peer_id, name, absent_seconds, replaced_in_seconds }.sentence()
        };
        assert_eq!(absent(45, Some(855)), "Voter attic has been absent for 45 s; will be replaced in 15 min.");
        assert_eq!(absent(900, Some(0)), "Voter attic has been absent for 15 min; its vote is being taken over.");
        assert!(absent(90, None).starts_with("Voter attic has been absent for 2 min; keeps its vote"));
    }

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
        assert_eq!(homes_to_spare(policy(2, 8), 3), 2, "3, 3 and 2 fragments: two homes may go");
        assert_eq!(homes_to_spare(policy(4, 5), 3), 0, "2, 2 and 1: losing 2 leaves 3");
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
