//! Who votes, and what a quorum is (R8).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::id::PeerId;
use crate::record::Stored;

/// The voters of one epoch; in a joint phase also those of the epoch before (R8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Rises by one with every change. Every ledger message carries it; other ones are refused.
    pub epoch: u64,
    /// Who votes.
    pub voters: BTreeSet<PeerId>,
    /// In a joint phase, the voters before the change: a quorum then needs a majority of both.
    pub outgoing: Option<BTreeSet<PeerId>>,
}

impl Stored for Config {
    const VERSION: u8 = 1;
    const KIND: &'static str = "voter configuration";
}

/// Why a message of the ledger is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It belongs to another epoch.
    OtherEpoch,
    /// The one asked does not vote.
    NotAVoter,
}

/// How far a recovery moves the epoch: beyond any that voters out of reach may have come to, one change at a time.
const RECOVERY_STRIDE: u64 = 1 << 32;

/// Whether `acks` holds more than half of `voters`.
fn is_majority(voters: &BTreeSet<PeerId>, acks: &BTreeSet<PeerId>) -> bool {
    voters.intersection(acks).count() * 2 > voters.len()
}

impl Config {
    /// The first configuration of a pool: its creator alone.
    pub fn genesis(creator: PeerId) -> Self {
        Self { epoch: 1, voters: BTreeSet::from([creator]), outgoing: None }
    }

    /// Everyone whose vote may count.
    pub fn electorate(&self) -> BTreeSet<PeerId> {
        self.voters.iter().chain(self.outgoing.iter().flatten()).copied().collect()
    }

    /// Whether this peer's vote may count.
    pub fn is_voter(&self, peer: &PeerId) -> bool {
        self.voters.contains(peer) || self.outgoing.as_ref().is_some_and(|old| old.contains(peer))
    }

    /// Whether these peers form a quorum: a majority of the voters, and in a joint phase also of the old ones.
    pub fn is_quorum(&self, acks: &BTreeSet<PeerId>) -> bool {
        is_majority(&self.voters, acks) && self.outgoing.as_ref().is_none_or(|old| is_majority(old, acks))
    }

    /// R8: why `me` may not answer a message of `epoch` as a voter, if so.
    pub fn refuses(&self, me: &PeerId, epoch: u64) -> Option<Refusal> {
        if planted!(NoFence) && epoch < self.epoch {
            return None;
        }
        if epoch != self.epoch {
            return Some(Refusal::OtherEpoch);
        }
        (!self.is_voter(me)).then_some(Refusal::NotAVoter)
    }

    /// How many more voters would have to answer for a quorum, at least.
    pub fn missing(&self, acks: &BTreeSet<PeerId>) -> usize {
        let short =
            |voters: &BTreeSet<PeerId>| (voters.len() / 2 + 1).saturating_sub(voters.intersection(acks).count());
        short(&self.voters).max(self.outgoing.as_ref().map_or(0, short))
    }

    /// R8 (1): the joint configuration on the way to `voters`, which differ from today's by one member.
    /// `None` when a change is under way already or `voters` is not one member away.
    pub fn begin_change(&self, voters: BTreeSet<PeerId>) -> Option<Self> {
        let one_apart = self.voters.symmetric_difference(&voters).count() == 1;
        (self.outgoing.is_none() && one_apart && !voters.is_empty()).then(|| Self {
            epoch: self.epoch + 1,
            voters,
            outgoing: Some(self.voters.clone()),
        })
    }

    /// R8 (3): whether `me`, which has adopted this configuration, must empty its acceptor when it adopts `next`.
    ///
    /// Also where it votes here already: it may have been away while it was removed, and tombstones collected without
    /// it. It cannot miss that it was: a change does not end before its joiner has taken the collection floors over
    /// in the joint epoch (R8 (5)).
    pub fn starts_empty(&self, me: &PeerId, next: &Self) -> bool {
        let again = next.joiners().contains(me) && !planted!(RejoinerKeepsState);
        next.is_voter(me) && (!self.is_voter(me) || again)
    }

    /// Who is on the way to become a voter.
    pub fn joiners(&self) -> BTreeSet<PeerId> {
        self.outgoing.as_ref().map_or_else(BTreeSet::new, |old| self.voters.difference(old).copied().collect())
    }

    /// R8 (6): the configuration that ends a joint phase.
    pub fn finish_change(&self) -> Option<Self> {
        self.outgoing.is_some().then(|| Self { epoch: self.epoch + 1, voters: self.voters.clone(), outgoing: None })
    }

    /// The other way out of a joint phase, for a joiner that died in it: back to the old voters. As safe as the way on:
    /// what was chosen in the joint phase was chosen by a majority of them too.
    pub fn give_up_change(&self) -> Option<Self> {
        self.outgoing.clone().map(|voters| Self { epoch: self.epoch + 1, voters, outgoing: None })
    }

    /// Whether a write may have been chosen that none of these peers accepted: the others make a quorum.
    pub fn may_elude(&self, peers: &BTreeSet<PeerId>) -> bool {
        self.is_quorum(&self.electorate().difference(peers).copied().collect())
    }

    /// The fence of a recovery: nobody votes, so nothing is chosen by anyone who has adopted it. `nonce` is random: it
    /// keeps two recoveries of one pool, on two islands say, from sharing an epoch.
    pub fn standstill(&self, nonce: u32) -> Self {
        Self { epoch: self.epoch + RECOVERY_STRIDE + u64::from(nonce), voters: BTreeSet::new(), outgoing: None }
    }

    /// The end of a standstill: `founder` alone votes, as when the pool was made. `None` where somebody votes.
    pub fn refound(&self, founder: PeerId) -> Option<Self> {
        let stands_still = self.electorate().is_empty();
        stands_still.then(|| Self { epoch: self.epoch + 1, voters: BTreeSet::from([founder]), outgoing: None })
    }
}
