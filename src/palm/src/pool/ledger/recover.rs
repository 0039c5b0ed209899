//! Founding the ledger anew when a majority of its voters is lost for ever (`docs/ledger.md`, Recovery).
//!
//! 1. **Fence**: everyone in reach adopts a standstill, a configuration of a far higher epoch by which nobody votes.
//!    From then on no quorum of an older epoch forms with any of them.
//! 2. **Gather**: this peer takes over the copies of all of them; of two records of a key the higher ballot stays, and what
//!    was deleted and collected (R7) stays away.
//! 3. **Found**: it accepts all of that at one ballot above everything seen and becomes the only voter, in the epoch
//!    after the standstill. The others are told, and made voters one by one as in a new pool (R8).
//!
//! Whoever was out of reach adopts the new epoch from the first message it exchanges, and follows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use palm_core::id::PeerId;
use palm_core::record::{Stored, key};
use palm_core::register::Config;
use palm_core::wire::{Request, Response};
use tokio::time::Instant;

use super::voter::handover::following;
use super::{CALL_TIMEOUT, Decision, Ledger, LedgerError};

/// A page of a copy may take this long.
const PAGE_TIMEOUT: Duration = Duration::from_secs(20);
/// Everyone in reach must adopt the fence in this time. A voter first makes a learner's copy of what it accepted.
const FENCE_TIMEOUT: Duration = Duration::from_mins(2);
/// Members asked at the same time.
const ASKED_AT_ONCE: usize = 16;

/// Who is in reach, and the newest configuration among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// This peer and all members that answered.
    pub reachable: BTreeSet<PeerId>,
    /// The newest configuration that any of them has adopted.
    pub newest: Config,
}

impl Survey {
    /// The voters out of reach.
    pub fn lost(&self) -> BTreeSet<PeerId> {
        self.newest.electorate().difference(&self.reachable).copied().collect()
    }

    /// Whether those in reach can go on as they are.
    pub fn has_quorum(&self) -> bool {
        self.newest.is_quorum(&self.reachable)
    }
}

impl Ledger {
    /// Asks every member for its configuration, and adopts the newest.
    pub async fn survey(&self) -> Result<Survey, LedgerError> {
        let members: Vec<PeerId> = self.0.members.borrow().iter().copied().filter(|peer| *peer != self.me()).collect();
        let asked = stream::iter(members).map(|peer| async move {
            match self.0.net.call(peer, Request::GetConfig, CALL_TIMEOUT).await {
                Ok(Response::Config(config)) => Some((peer, config)),
                _ => None,
            }
        });
        let answers: BTreeMap<PeerId, Config> =
            asked.buffer_unordered(ASKED_AT_ONCE).filter_map(std::future::ready).collect().await;
        if let Some(newest) = answers.values().max_by_key(|config| config.epoch) {
            self.0.voter.adopt(newest.clone()).await?;
        }
        let reachable = answers.into_keys().chain([self.me()]).collect();
        Ok(Survey { reachable, newest: (*self.config()).clone() })
    }

    /// Makes this peer the only voter of a new epoch, from all that those in reach hold. Answers how many registers
    /// that is.
    ///
    /// # Errors
    /// Until it has answered `Ok` the pool may stand still: run it again, at any of them.
    pub async fn recover(&self, survey: &Survey) -> Result<usize, LedgerError> {
        let fence = survey.newest.standstill(rand::random());
        tracing::warn!(epoch = fence.epoch, lost = ?survey.lost(), "recovering a lost majority: fencing");
        self.0.voter.adopt(fence.clone()).await?;
        let others: BTreeSet<PeerId> = survey.reachable.iter().copied().filter(|peer| *peer != self.me()).collect();
        let deadline = Instant::now() + FENCE_TIMEOUT;
        let mut fenced = BTreeSet::new();
        while fenced != others {
            fenced.extend(self.tell(&(&others - &fenced), &fence).await);
            if let Some(silent) = others.difference(&fenced).next()
                && Instant::now() > deadline
            {
                return Err(LedgerError::Recovery(format!("{silent} stopped answering")));
            }
        }
        for &peer in &others {
            self.take_over(peer, fence.epoch).await?;
        }
        let founded = fence.refound(self.me()).ok_or_else(|| LedgerError::Recovery("no standstill".to_owned()))?;
        let count = self.0.voter.refound(&fence, founded.clone(), self.tick()).await?;
        tracing::warn!(epoch = founded.epoch, registers = count, "the ledger is founded anew");
        self.tell(&others, &founded).await;
        let value = founded.encode();
        self.update(key::config(), |_| Decision::Put(value.clone(), ())).await?;
        Ok(count)
    }

    /// Takes over another's copy, page by page, into this peer's.
    async fn take_over(&self, peer: PeerId, epoch: u64) -> Result<(), LedgerError> {
        let mut from = Bytes::new();
        loop {
            let request = Request::HandOver { epoch, from: from.clone() };
            let page = match self.0.net.call(peer, request, PAGE_TIMEOUT).await {
                Ok(Response::Registers(page)) => page,
                other => return Err(LedgerError::Recovery(format!("{peer} did not hand over its copy: {other:?}"))),
            };
            let Some((last, _)) = page.last() else { return Ok(()) };
            if *last < from {
                return Err(LedgerError::Recovery(format!("{peer} hands over keys out of order")));
            }
            from = following(last);
            for (_, accepted) in &page {
                self.observe(accepted.ballot);
            }
            self.0.voter.follow(self.0.voter.without_collected(page)?).await?;
        }
    }
}
