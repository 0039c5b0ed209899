//! Bringing this peer's copy level with a voter's. Comparing costs what differs ([`palm_core::reconcile`]); what is
//! lacking is then fetched in bulk.
//!
//! A learner takes what it is given. A voter does not (R6): it installs a record only when enough other voters vouch,
//! in this epoch, that they accepted it ([`may_install`]), and leaves the rest to consensus. It asks them leaf by leaf for
//! the fingerprint it would have with what it was given, so vouching costs a byte or two per key; and what it
//! followed before it became a voter needs no fetching, only vouching.
//!
//! Whoever lacks the newer record acts, and nobody else: a voter that returns after a month is not chased by all others.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use palm_backends::Space;
use palm_core::hlc::Ballot;
use palm_core::id::PeerId;
use palm_core::reconcile::{Narrowed, PairHash, Range, is_boundary, leaves, may_install, pair_hash};
use palm_core::record::Stored;
use palm_core::register::{Accepted, Config, floor_range};
use palm_core::wire::{Failure, Request, Response};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::holdings::Holdings;
use super::pages::blocking;
use super::progress::{CatchUp, Tally};
use super::{Ledger, LedgerError, holdings};

/// How often a peer compares its copy with another's. Equal copies cost one small message.
const INTERVAL: Duration = Duration::from_secs(5);
/// An answer may have to read its whole index first, so it is given more time than a vote.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// Ranges compared at the same time.
const COMPARE_AT_ONCE: usize = 16;
/// Ranges whose records are exchanged at the same time. Each holds a few megabytes.
const EXCHANGE_AT_ONCE: usize = 4;
/// Adjacent ranges that differ are exchanged together up to about so many keys.
pub(super) const EXCHANGE_KEYS: usize = 4_096;
/// No question for records names more pairs. Beyond, some are sent that are held already.
pub(super) const MAX_HAVE_PAIRS: usize = 1 << 18;
/// Records installed with one sync.
const INSTALL_AT_ONCE: usize = 512;
/// Keys that are settled by consensus at the same time.
const SETTLE_AT_ONCE: usize = 32;
/// Who lacks no more records than this is level but for what is being written.
const NEARLY_LEVEL: usize = 256;
/// A request to catch up is answered by then, whether it is done or not.
const CATCH_UP_ANSWER: Duration = Duration::from_secs(8);

impl Ledger {
    /// Keeps this peer's copy level until cancelled.
    pub async fn keep_level(self, stop: CancellationToken) {
        let mut round = 0_usize;
        let mut configs = self.config_changes();
        loop {
            let jitter = Duration::from_millis(rand::random_range(0..1_000));
            tokio::select! {
                () = stop.cancelled() => return,
                // Who has just become a voter has everything to take over.
                _ = configs.changed() => {}
                () = tokio::time::sleep(INTERVAL + jitter) => {}
            }
            round += 1;
            if let Err(error) = self.level_once(round).await {
                tracing::debug!(%error, "catch-up put off");
            }
        }
    }

    /// Follows the progress of a catch-up; `None` while this peer is level or looks for what differs.
    pub fn catch_up(&self) -> watch::Receiver<Option<CatchUp>> {
        self.0.catch_up.subscribe()
    }

    /// Compares with one voter, another each round. Answers how many records were lacking, all of them brought.
    pub async fn level_once(&self, round: usize) -> Result<usize, LedgerError> {
        self.look_for_newer_config().await;
        if self.is_local() {
            self.level_local(round).await?;
        }
        let voters = self.connected_voters();
        let lacked = match voters.get(round % voters.len().max(1)) {
            Some(peer) => self.level_with(*peer).await?,
            None => 0,
        };
        if !voters.is_empty() || self.config().voters.iter().all(|voter| *voter == self.me()) {
            self.0.measures.is_level();
        }
        Ok(lacked)
    }

    /// The voters this peer can ask, itself left out.
    fn connected_voters(&self) -> Vec<PeerId> {
        let others = self.config().electorate().into_iter().filter(|peer| *peer != self.me());
        others.filter(|peer| self.0.net.is_connected(*peer)).collect()
    }

    /// Answers another's request to catch up now, which may take many of them.
    pub(super) fn catch_up_now(&self) -> BoxFuture<'static, Response> {
        let ledger = self.clone();
        let level = async move {
            let mut level = 0;
            // One of them may be behind itself: each is asked in turn.
            for voter in ledger.connected_voters() {
                loop {
                    match ledger.level_with(voter).await {
                        Ok(lacked) if lacked > NEARLY_LEVEL => {}
                        Ok(_) => break level += 1,
                        Err(error) => break tracing::debug!(%error, voter = %voter.short(), "not compared"),
                    }
                }
            }
            match level {
                0 => Response::Failed { reason: Failure::NotReady, detail: "no voter to compare with".to_owned() },
                _ => Response::Done,
            }
        };
        // What was brought so far stays; the next request goes on from there.
        let late = || Response::Failed { reason: Failure::NotReady, detail: "catching up".to_owned() };
        async move { tokio::time::timeout(CATCH_UP_ANSWER, level).await.unwrap_or_else(|_| late()) }.boxed()
    }

    async fn level_with(&self, peer: PeerId) -> Result<usize, LedgerError> {
        let _one = self.0.levelling.lock().await;
        let holdings = self.0.voter.holdings();
        let mut ranges = self.differing(peer, holdings).await?;
        if !ranges.is_empty() && self.0.voter.is_voter() && self.take_over_followed().await? > 0 {
            ranges = self.differing(peer, holdings).await?;
        }
        if ranges.is_empty() {
            self.0.voter.forget_followed().await?;
            return Ok(0);
        }
        // Which of two is behind no fingerprint says. A first range does: where the other has nothing newer, it is the
        // one, and all it would send is old.
        let first = ranges.swap_remove(rand::random_range(0..ranges.len()));
        let rest = holdings.look(|summary| summary.gather(ranges, EXCHANGE_KEYS)).await?;
        let tally = Tally::begin(&self.0.catch_up, 1 + rest.len());
        if self.exchange(peer, first, &tally).await? {
            stream::iter(rest)
                .map(|range| self.exchange(peer, range, &tally))
                .buffer_unordered(EXCHANGE_AT_ONCE)
                .try_collect::<Vec<_>>()
                .await?;
            self.0.voter.forget_followed().await?;
        }
        let CatchUp { records, bytes, elapsed_ms: ms, .. } = tally.now();
        if records > 0 {
            tracing::info!(records, bytes, ms, with = %peer.short(), "copy brought level");
        }
        Ok(records as usize)
    }

    /// The ranges, as small as they get, in which this peer and another differ.
    pub(super) async fn differing(&self, peer: PeerId, holdings: &Holdings) -> Result<Vec<Range>, LedgerError> {
        let mut found = Vec::new();
        let mut open = vec![(Range::default(), holdings.digest().await?)];
        while !open.is_empty() {
            let questions = open.drain(..).map(|(range, fingerprint)| async move {
                let Range { from, to } = range.clone();
                let request = match holdings.space() {
                    Space::Local => Request::CompareLocal { from, to, fingerprint },
                    _ => Request::Compare { from, to, fingerprint },
                };
                (range, self.0.net.call(peer, request, TIMEOUT).await)
            });
            let answers: Vec<_> =
                stream::iter(questions.collect::<Vec<_>>()).buffer_unordered(COMPARE_AT_ONCE).collect().await;
            for (range, answer) in answers {
                match answer {
                    Ok(Response::SameRange) => {}
                    Ok(Response::Ranges(parts)) => {
                        let Narrowed { compare, exchange } =
                            holdings.look(|summary| summary.narrow(&range, &parts)).await?;
                        open.extend(compare);
                        found.extend(exchange);
                    }
                    other => {
                        tracing::debug!(peer = %peer.short(), answer = ?other.err(), "no comparison");
                        return Err(self.no_quorum(1));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Fetches what this peer lacks of a range, and takes it. Answers whether that changed anything here, and stops where
    /// nothing sent is newer.
    async fn exchange(&self, peer: PeerId, range: Range, tally: &Tally<'_>) -> Result<bool, LedgerError> {
        let place = tally.start();
        let mut any = false;
        let Range { mut from, to } = range;
        loop {
            let rest = Range { from: from.clone(), to: to.clone() };
            let mut have = self.0.voter.holdings().look(|summary| summary.hashes(&rest)).await?;
            have.truncate(MAX_HAVE_PAIRS);
            let request = Request::Supply { from: from.clone(), to: to.clone(), have: have.clone() };
            match self.0.net.call(peer, request, TIMEOUT).await {
                Ok(Response::Supplied { registers, next, left, surplus }) => {
                    let within = Range { from: from.clone(), to: next.clone().or_else(|| to.clone()) };
                    let (all, bytes) = (registers.len(), registers.iter().map(size_of).sum());
                    let newer = self.take(&within, registers).await?;
                    let surplus = surplus.iter().filter_map(|place| have.get(*place as usize).copied()).collect();
                    let dropped = self.drop_collected(peer, rest, surplus).await?;
                    tally.took(place, newer + dropped, bytes, left);
                    any |= newer + dropped > 0;
                    match next {
                        Some(next) if next > from && (newer > 0 || all == 0) => from = next,
                        _ => return Ok(any),
                    }
                }
                other => {
                    tracing::debug!(peer = %peer.short(), answer = ?other.err(), "no records");
                    return Err(self.no_quorum(1));
                }
            }
        }
    }

    /// R7: what a learner has, the voter does not, and the voter's collection floor refuses for ever, was deleted and
    /// collected while the learner was away. A voter has no such records: without it nothing is collected. Answers how
    /// many were dropped.
    async fn drop_collected(
        &self,
        peer: PeerId,
        range: Range,
        surplus: HashSet<PairHash>,
    ) -> Result<usize, LedgerError> {
        if surplus.is_empty() || self.0.voter.is_voter() {
            return Ok(0);
        }
        let mut pairs = self.0.voter.holdings().pairs_in(range).await?;
        // Most of them were older than what has just been taken.
        pairs.retain(|(key, ballot)| surplus.contains(&pair_hash(key, *ballot)));
        if pairs.is_empty() {
            return Ok(0);
        }
        let request = Request::GetFloors { epoch: self.config().epoch };
        if let Ok(Response::Floors(floors)) = self.0.net.call(peer, request, TIMEOUT).await {
            pairs.retain(|(key, ballot)| floors.get(floor_range(key)).is_some_and(|floor| floor >= ballot));
            return self.0.voter.unfollow(pairs).await;
        }
        Ok(0)
    }

    /// Takes what another voter holds of a range and this peer does not; answers how much of it was newer.
    async fn take(&self, within: &Range, found: Vec<(Bytes, Accepted)>) -> Result<usize, LedgerError> {
        if self.0.voter.is_voter() { self.install(within, found, true).await } else { self.0.voter.follow(found).await }
    }

    /// Installs those records of a range for which enough voters vouch. The others are settled by consensus, if
    /// so wished. Answers how many records were newer than what is here.
    async fn install(
        &self,
        within: &Range,
        found: Vec<(Bytes, Accepted)>,
        settle_others: bool,
    ) -> Result<usize, LedgerError> {
        let config = self.config();
        let mut pairs: BTreeMap<Bytes, Ballot> =
            self.0.voter.holdings().pairs_in(within.clone()).await?.into_iter().collect();
        let mut records: BTreeMap<Bytes, Accepted> = BTreeMap::new();
        for (key, accepted) in found {
            if within.contains(&key) && pairs.get(&key).is_none_or(|own| *own < accepted.ballot) {
                pairs.insert(key.clone(), accepted.ballot);
                records.insert(key, accepted);
            }
        }
        let newer = records.len();
        // What this peer would hold, were it to install them all: whoever holds just that vouches for every one.
        let mut would_be = leaves(within, &pairs.into_iter().collect::<Vec<_>>());
        would_be
            .retain(|(leaf, _)| records.range(leaf.from.clone()..).next().is_some_and(|(key, _)| leaf.contains(key)));
        let agreed = self.vouched_for(&config, &would_be).await?;
        let mut others: Vec<(Bytes, Ballot)> = Vec::new();
        for (key, accepted) in &records {
            let leaf = would_be.partition_point(|(leaf, _)| leaf.from <= *key);
            if !leaf.checked_sub(1).is_some_and(|leaf| agreed[leaf]) {
                others.push((key.clone(), accepted.ballot));
            }
        }
        for (key, _) in &others {
            records.remove(key);
        }
        while !records.is_empty() {
            let rest =
                records.keys().nth(INSTALL_AT_ONCE).cloned().map(|key| records.split_off(&key)).unwrap_or_default();
            let ballots: BTreeMap<Bytes, Ballot> =
                records.iter().map(|(key, accepted)| (key.clone(), accepted.ballot)).collect();
            let batch = std::mem::replace(&mut records, rest);
            let refused = self.0.voter.install(config.epoch, batch).await?;
            others.extend(refused.into_iter().filter_map(|key| ballots.get(&key).map(|ballot| (key, *ballot))));
        }
        if settle_others {
            self.settle_lacking(others).await?;
        }
        Ok(newer)
    }

    /// Settles keys of which others were seen to hold these ballots.
    async fn settle_lacking(&self, keys: Vec<(Bytes, Ballot)>) -> Result<(), LedgerError> {
        if !keys.is_empty() {
            tracing::debug!(keys = keys.len(), "not vouched for: settled by consensus");
        }
        stream::iter(keys)
            .map(|(key, ballot)| async move {
                if self.0.voter.copy_and_ballot(&key)?.1 >= Some(ballot) {
                    return Ok(());
                }
                match self.settle(&key).await {
                    // Who outran it brings the key level, and this peer with it.
                    Err(LedgerError::Contended | LedgerError::Unknown(_)) => Ok(()),
                    settled => settled.map(drop),
                }
            })
            .buffer_unordered(SETTLE_AT_ONCE)
            .try_collect()
            .await
    }

    /// Of which of these ranges enough voters, other than this peer, have accepted exactly the pairs fingerprinted.
    async fn vouched_for(&self, config: &Config, ranges: &[(Range, [u8; 32])]) -> Result<Vec<bool>, LedgerError> {
        let mut holders = vec![BTreeSet::new(); ranges.len()];
        for voter in self.nearest_first(config) {
            let open: Vec<usize> = (0..ranges.len()).filter(|at| !may_install(config, &holders[*at])).collect();
            if open.is_empty() {
                break;
            }
            if voter == self.me() {
                continue;
            }
            let asked = open.iter().map(|at| (ranges[*at].0.from.clone(), ranges[*at].0.to.clone(), ranges[*at].1));
            let request = Request::Confirm { epoch: config.epoch, ranges: asked.collect() };
            match self.0.net.call(voter, request, TIMEOUT).await {
                Ok(Response::Confirmed(said)) => {
                    for (at, _) in open.iter().zip(said).filter(|(_, holds)| *holds) {
                        holders[*at].insert(voter);
                    }
                }
                Ok(Response::WrongEpoch(theirs)) => {
                    if self.settle_epoch(voter, theirs, config.epoch).await {
                        return Err(self.no_quorum(1));
                    }
                }
                other => tracing::debug!(voter = %voter.short(), answer = ?other.err(), "vouches for nothing"),
            }
        }
        Ok(holders.iter().map(|holders| may_install(config, holders)).collect())
    }

    /// A voter that was a learner has nearly all records here already. Installs those for which the voters vouch;
    /// answers how many it looked at.
    async fn take_over_followed(&self) -> Result<usize, LedgerError> {
        let mut looked_at = 0;
        let mut rest = Range::default();
        loop {
            let (records, next) = self.followed(rest.clone()).await?;
            looked_at += records.len();
            let within = Range { to: next.clone(), ..rest.clone() };
            self.install(&within, records, false).await?;
            match next {
                Some(next) => rest.from = next,
                None => return Ok(looked_at),
            }
        }
    }

    /// What this peer followed from a key on, up to the boundary at which it has looked at enough.
    async fn followed(&self, range: Range) -> Result<(Vec<(Bytes, Accepted)>, Option<Bytes>), LedgerError> {
        let index = Arc::clone(self.0.voter.index());
        blocking(move || {
            let (mut records, mut next) = (Vec::new(), None);
            holdings::scan(index.as_ref(), Space::Followed, &range, |key, value| {
                if records.len() >= EXCHANGE_KEYS && is_boundary(key) {
                    next = Some(Bytes::copy_from_slice(key));
                    return Ok(false);
                }
                records.push((Bytes::copy_from_slice(key), Accepted::decode(value)?));
                Ok(true)
            })?;
            Ok((records, next))
        })
        .await
    }
}

/// Bytes of a register, about.
fn size_of((key, accepted): &(Bytes, Accepted)) -> u64 {
    (key.len() + accepted.record.value.as_ref().map_or(0, Bytes::len)) as u64
}
