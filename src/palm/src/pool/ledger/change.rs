//! Changing the voters, one at a time (R8). Any member may drive a change, and any other may finish it: each step
//! is safe to repeat, and the configuration register lets one driver win.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt, stream};
use palm_core::hlc::Stamp;
use palm_core::id::PeerId;
use palm_core::record::{Stored, key};
use palm_core::register::Config;
use palm_core::wire::{Failure, Request, Response, ScanQuery};

use super::{CALL_TIMEOUT, Decision, Ledger, LedgerError};

/// Keys settled at the same time while a new voter is brought level.
const SETTLE_AT_ONCE: usize = 32;
/// Keys looked at per page meanwhile.
const PAGE_KEYS: u32 = 1_000;
/// A joiner is asked so often to catch up before what it lacks is settled by consensus: about twenty minutes.
const CATCH_UP_CALLS: usize = 150;
/// It answers each within a few seconds, level or not.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(15);

impl Ledger {
    /// Moves the voters towards `target` by one member (first added, then removed), or finishes a change that someone
    /// else began. Answers whether the target is reached.
    ///
    /// # Errors
    /// Nothing is left half-done that a later call, by any member, would not finish.
    pub async fn change_voters(&self, target: &BTreeSet<PeerId>) -> Result<bool, LedgerError> {
        let config = self.config();
        let mut voters = config.voters.clone();
        if config.outgoing.is_none() {
            if let Some(joiner) = target.difference(&config.voters).next() {
                voters.insert(*joiner);
            } else if let Some(leaver) = config.voters.difference(target).next() {
                voters.remove(leaver);
            } else {
                return Ok(true);
            }
        }
        self.move_voters(&config, voters).await?;
        Ok(self.config().voters == *target)
    }

    /// Goes from `config` to `voters`, one member away. From a joint phase: on to its voters, or back to those before it.
    /// Nothing happens where another driver has moved on from `config` already.
    pub async fn move_voters(&self, config: &Config, voters: BTreeSet<PeerId>) -> Result<(), LedgerError> {
        if config.outgoing.as_ref() == Some(&voters)
            && let Some(before) = config.give_up_change()
        {
            return self.conclude(config, before).await;
        }
        if config.outgoing.is_some() {
            return self.finish(config).await;
        }
        // R8 (1): chosen by the voters of today.
        if let Some(joint) = config.begin_change(voters)
            && self.choose(config, joint.clone()).await?
        {
            self.finish(&joint).await?;
        }
        Ok(())
    }

    /// Writes the next configuration into its register, unless another driver was faster. Answers whether
    /// `next` is the one chosen.
    async fn choose(&self, before: &Config, next: Config) -> Result<bool, LedgerError> {
        let epoch = before.epoch;
        let chosen = self
            .update(key::config(), |current| match current.map(|current| Config::decode(&current.value)) {
                Some(Ok(known)) if known.epoch > epoch => Decision::Keep(Some(known)),
                Some(Err(_)) => Decision::Keep(None),
                _ => Decision::Put(next.encode(), Some(next.clone())),
            })
            .await?
            .answer
            .ok_or_else(|| LedgerError::Storage("the configuration register is unreadable".to_owned()))?;
        let ours = chosen == next;
        self.0.voter.adopt(chosen).await?;
        Ok(ours)
    }

    /// R8 (2) to (6), from a joint configuration that is known to be chosen.
    async fn finish(&self, joint: &Config) -> Result<(), LedgerError> {
        self.fence(joint).await?;
        self.let_joiner_catch_up(joint).await;
        self.carry_floors(joint).await?;
        self.raise(joint).await?;
        self.bring_level().await?;
        let Some(after) = joint.finish_change() else { return Ok(()) };
        self.conclude(joint, after).await
    }

    /// R8 (6): the configuration after a joint one is chosen by joint quorums.
    async fn conclude(&self, joint: &Config, after: Config) -> Result<(), LedgerError> {
        if self.choose(joint, after.clone()).await? {
            // Everyone hears of it; whoever does not is told when it next asks with the old epoch.
            let told = self.0.members.borrow().iter().chain(&joint.electorate()).copied().collect::<BTreeSet<_>>();
            self.tell(&told, &after).await;
        }
        Ok(())
    }

    /// R8 (2): majorities of both sets have durably adopted the joint configuration. From then on no quorum
    /// of the old epoch can form.
    async fn fence(&self, joint: &Config) -> Result<(), LedgerError> {
        self.0.voter.adopt(joint.clone()).await?;
        let adopted = self.tell(&joint.electorate(), joint).await;
        match joint.missing(&adopted) {
            0 => Ok(()),
            missing => Err(self.no_quorum(missing)),
        }
    }

    /// Tells a configuration to these peers; answers who has adopted it (or a newer one).
    pub(super) async fn tell(&self, peers: &BTreeSet<PeerId>, config: &Config) -> BTreeSet<PeerId> {
        let asked = stream::iter(peers.iter().copied()).map(|peer| async move {
            let told = self.ask(peer, Request::AdoptConfig(config.clone())).await;
            matches!(told, Ok(Response::Done)).then_some(peer)
        });
        asked.buffer_unordered(SETTLE_AT_ONCE).filter_map(std::future::ready).collect().await
    }

    /// R8 (4): only after the fence, every key as if by `update(key, identity)` in joint quorums: a promise of a joint
    /// quorum, and the record it knows of accepted by one.
    ///
    /// The promise was one for all keys ([`raise`](Self::raise)). So a key on which the pages of a joint quorum agree is
    /// done: that quorum has accepted it, at one ballot, and so has a majority of the new voters. Where they differ it is
    /// settled by consensus. What an old quorum chose is on the page of an old voter in every quorum of pages, so none
    /// is missed. Absent keys are covered too: there is nothing chosen to carry over, and the promise holds.
    async fn bring_level(&self) -> Result<(), LedgerError> {
        let mut query = ScanQuery { limit: PAGE_KEYS, ..ScanQuery::default() };
        loop {
            let (keys, next) = self.disputed_keys(&query).await?;
            let mut settled = stream::iter(keys)
                .map(|key| async move { self.settle(&key).await.map(|_| ()) })
                .buffer_unordered(SETTLE_AT_ONCE);
            while let Some(result) = settled.next().await {
                result?;
            }
            match next {
                Some(next) => query.start = next,
                None => return Ok(()),
            }
        }
    }

    /// A joiner fills its empty acceptor best by itself, in bulk and without consensus. Nothing depends on it: what it
    /// still lacks is settled. This comes first: with the collection floors of the others (R8 (5)), and a promise for all
    /// keys, it can take nothing older. It needs no floors before: what was collected no old voter has, to vouch for.
    async fn let_joiner_catch_up(&self, joint: &Config) {
        let old = joint.outgoing.as_ref().unwrap_or(&joint.voters);
        let Some(joiner) = joint.voters.difference(old).next() else { return };
        for _ in 0..CATCH_UP_CALLS {
            let answer = if *joiner == self.me() {
                Ok(self.catch_up_now().await)
            } else {
                self.0.net.call(*joiner, Request::CatchUp, CATCH_UP_TIMEOUT).await
            };
            match answer {
                Ok(Response::Failed { reason: Failure::NotReady, detail }) => {
                    tracing::debug!(%detail, "joiner not level yet");
                }
                other => {
                    tracing::debug!(joiner = %joiner.short(), level = matches!(other, Ok(Response::Done)), "joiner");
                    return;
                }
            }
        }
    }

    /// Has a joint quorum promise, for all keys at once, to take no ballot that any proposer of an earlier epoch may
    /// have got promises for.
    ///
    /// Without it the epochs' ballots could mix. A proposer of the old epoch had the promises of an old majority for `d`,
    /// one accept of `d` reached a voter, and it died. The new epoch's quorums need not meet that old majority: one
    /// that knows nothing of `d` could choose a ballot below it, and when a later quorum meets the voter that holds `d`,
    /// `d` is the highest and undoes it. An old majority promised `d`, so the highest stamp that a quorum (of old
    /// majorities, too) names is at or above it, and above that the new majority promises.
    async fn raise(&self, joint: &Config) -> Result<(), LedgerError> {
        let highest = self.raise_to(joint, Stamp::default()).await?;
        self.raise_to(joint, highest).await.map(|_| ())
    }

    /// One round of it. The old voters come first: a joiner that is not level yet is asked only where its promise is
    /// needed.
    async fn raise_to(&self, joint: &Config, floor: Stamp) -> Result<Stamp, LedgerError> {
        let mut acks = BTreeSet::new();
        let mut highest = floor;
        let old = joint.outgoing.clone().unwrap_or_default();
        let joiners = joint.voters.difference(&old).copied().collect();
        for voters in [old, joiners] {
            if joint.is_quorum(&acks) {
                break;
            }
            let asked = voters.into_iter().map(|voter| async move {
                (voter, self.ask(voter, Request::Raise { epoch: joint.epoch, floor }).await)
            });
            for (voter, answer) in futures::future::join_all(asked).await {
                if let Ok(Response::Raised { highest: theirs }) = answer {
                    acks.insert(voter);
                    highest = highest.max(theirs);
                }
            }
        }
        match joint.missing(&acks) {
            0 => Ok(highest),
            missing => Err(self.no_quorum(missing)),
        }
    }

    /// Asks every member it can reach for a newer configuration: for a peer that was away while the voters
    /// changed, perhaps all of them.
    pub(super) async fn look_for_newer_config(&self) {
        let members: Vec<PeerId> = self.0.members.borrow().iter().copied().filter(|peer| *peer != self.me()).collect();
        for peer in members {
            self.look_for_newer_config_at(peer).await;
        }
    }

    /// Asks one peer, which was heard to be in a newer epoch.
    pub(in crate::pool) async fn look_for_newer_config_at(&self, peer: PeerId) {
        if let Ok(Response::Config(theirs)) = self.0.net.call(peer, Request::GetConfig, CALL_TIMEOUT).await
            && theirs.epoch > self.config().epoch
            && let Err(error) = self.0.voter.adopt(theirs).await
        {
            tracing::error!(%error, "cannot adopt the voter configuration");
        }
    }
}
