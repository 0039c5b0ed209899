//! When a majority of the voters is lost for ever: what founding the ledger anew would cost, and doing it.
//!
//! The mechanics and why they are safe stand in [`ledger`](super::ledger) (`recover`). Here it is put into words, because
//! it takes a person to say that somebody is lost for ever.

use palm_core::id::PeerId;
use serde::{Deserialize, Serialize};

use super::ledger::Survey;
use super::{Pool, PoolError};

/// What a recovery would do, for the person who decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPlan {
    /// The pool's name, to be typed in confirmation.
    pub pool: String,
    /// Whether a recovery is in order: no majority of voters is in reach.
    pub needed: bool,
    /// Members in reach: what they hold is kept.
    pub reachable: Vec<Named>,
    /// Members out of reach.
    pub missing: Vec<Named>,
    /// What it may cost, the worst first.
    pub words: Vec<String>,
}

/// A member, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Which.
    pub peer_id: String,
    /// What it calls itself.
    pub name: String,
    /// Whether it votes in the newest epoch known.
    pub voter: bool,
}

/// A recovery that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Registers that were kept, of all kinds.
    pub registers: usize,
    /// The new epoch.
    pub epoch: u64,
}

fn plan(pool: &Pool, survey: &Survey) -> RecoveryPlan {
    let electorate = survey.newest.electorate();
    let named =
        |peer: &PeerId, name: String| Named { peer_id: peer.to_string(), name, voter: electorate.contains(peer) };
    let (reachable, missing): (Vec<_>, Vec<_>) =
        pool.view().members().into_iter().partition(|member| survey.reachable.contains(&member.peer));
    let list = |members: Vec<super::MemberStatus>| members.into_iter().map(|one| named(&one.peer, one.name)).collect();
    RecoveryPlan {
        pool: pool.name(),
        needed: !survey.has_quorum(),
        words: words(survey),
        reachable: list(reachable),
        missing: list(missing),
    }
}

/// What a recovery means, in sentences.
fn words(survey: &Survey) -> Vec<String> {
    if survey.has_quorum() {
        return vec!["A majority of voters is in reach: there is nothing to recover. `palm evict` removes members that are lost.".into()];
    }
    let mut words = Vec::new();
    if survey.newest.may_elude(&survey.reachable) {
        words.push(
            "WRITES MAY BE LOST: every change (object put or deleted, bucket, access key, member) that was acknowledged by the voters out of \
             reach alone, and that no member in reach had heard of. Members hear of a change within moments, so that is what was written in \
             the last moments before the loss, and while those in reach were off or cut off. What is lost reads as it was before: \
             overwritten objects old, deleted ones back (their data perhaps gone), new ones missing."
                .into(),
        );
    } else {
        words.push(
            "No acknowledged write is lost: each is held by at least one voter in reach. (One whose client was told of an error may \
             come through.)"
                .into(),
        );
    }
    words.push(
        "Objects are readable as far as enough of their fragments are on members that live; this changes nothing about that. \
         Members out of reach stay members: those that come back bring their fragments. Evict those that are lost for ever."
            .into(),
    );
    words.push(
        "If the members out of reach are not lost but cut off, and serve clients together, the pool splits in two: what they \
         acknowledge from now on is lost when they meet this side again. Be sure that they are off, or run it on their side."
            .into(),
    );
    words
}

/// What a recovery by this peer would mean now.
pub(super) async fn prepare(pool: &Pool) -> Result<RecoveryPlan, PoolError> {
    Ok(plan(pool, &pool.ledger().survey().await?))
}

/// Founds the ledger anew from what is in reach, unless there is a majority.
pub(super) async fn carry_out(pool: &Pool) -> Result<Recovered, PoolError> {
    let survey = pool.ledger().survey().await?;
    if survey.has_quorum() {
        return Err(PoolError::Refused(words(&survey).concat()));
    }
    let electorate = survey.newest.electorate();
    if !electorate.contains(&pool.me())
        && let Some(voter) = pool
            .view()
            .members()
            .iter()
            .find(|member| electorate.contains(&member.peer) && survey.reachable.contains(&member.peer))
    {
        let words = format!("this peer only follows: run it at {}, which votes and knows what was deleted", voter.name);
        return Err(PoolError::Refused(words));
    }
    let registers = pool.ledger().recover(&survey).await?;
    Ok(Recovered { registers, epoch: pool.ledger().config().epoch })
}

#[cfg(test)]
mod tests {
    use palm_core::register::Config;

    use super::*;

    fn survey(voters: &[u8], reachable: &[u8]) -> Survey {
        let set = |tags: &[u8]| tags.iter().map(|&tag| PeerId::from_bytes([tag; 32])).collect();
        Survey { reachable: set(reachable), newest: Config { epoch: 9, voters: set(voters), outgoing: None } }
    }

    /// The person decides by these words. The warning must be there exactly when a write can be lost, and a pool with a
    /// majority must be left alone.
    #[test]
    fn the_warning_is_there_when_writes_can_be_lost() {
        let warns = |survey: &Survey| words(survey)[0].starts_with("WRITES MAY BE LOST");
        assert!(warns(&survey(&[1, 2, 3], &[3])));
        assert!(warns(&survey(&[1, 2, 3], &[4])), "a learner alone");
        assert!(!warns(&survey(&[1, 2, 3, 4], &[3, 4])), "each write is on three of four");
        assert!(survey(&[1, 2, 3], &[2, 3]).has_quorum() && words(&survey(&[1, 2, 3], &[2, 3])).len() == 1);
        assert!(!survey(&[], &[1]).has_quorum(), "the standstill of a recovery that was broken off");
    }
}
