//! Changing the voters, one at a time (R8). Any member may drive a change, and any other may finish it: each step
//! is safe to repeat, and the configuration register lets one driver win.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use palm_core::id::PeerId;
use palm_core::record::{Stored, key};
use palm_core::register::Config;
use palm_core::wire::{Request, Response, ScanQuery};

use super::{CALL_TIMEOUT, Decision, Ledger, LedgerError};

/// Keys settled at the same time while a new voter is brought level.
const SETTLE_AT_ONCE: usize = 32;
/// Keys looked at per page meanwhile.
const PAGE_KEYS: u32 = 1_000;

impl Ledger {
    /// Moves the voters towards `target` by one member (first added, then removed), or finishes a change
    /// that someone else began. Answers whether the target is reached.
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
        self.carry_floors(joint).await?;
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

    /// R8 (4): only after the fence, `update(key, identity)` for every key in joint quorums. A key accepted by
    /// an old quorum is on the page of some old voter in every quorum of pages, so none is missed.
    async fn bring_level(&self) -> Result<(), LedgerError> {
        let mut start = bytes::Bytes::new();
        loop {
            let query = ScanQuery { prefix: bytes::Bytes::new(), start, delimiter: None, limit: PAGE_KEYS };
            let (keys, next) = self.all_keys(query).await?;
            let mut settled = stream::iter(keys)
                .map(|key| async move { self.settle(&key).await.map(|_| ()) })
                .buffer_unordered(SETTLE_AT_ONCE);
            while let Some(result) = settled.next().await {
                result?;
            }
            match next {
                Some(next) => start = next,
                None => return Ok(()),
            }
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
