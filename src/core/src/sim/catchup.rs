//! Catching up, as `pool/ledger/catchup.rs` does it: a learner takes what is newer, a voter what the other voters vouch
//! for (R6). What differs is said key by key here, not by fingerprints.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::fault::{Fault, is_planted};
use super::peer::Peer;
use super::world::{Ask, MS, Reply, SECOND};
use crate::hlc::Ballot;
use crate::id::PeerId;
use crate::reconcile::may_install;
use crate::register::{Accepted, Config};

impl Peer {
    /// Keeps this peer's copy and configuration level.
    pub async fn keep_level(&self) {
        loop {
            let longest = self.world.level_ms.get() * MS;
            self.world.exec.sleep(self.world.draw(longest / 4..longest)).await;
            let others: Vec<PeerId> =
                self.world.nodes.borrow().iter().map(|node| node.id).filter(|id| *id != self.me()).collect();
            let Some(someone) = self.world.pick(&others) else { continue };
            if let Some(Reply::Config(theirs)) = self.ask(someone, &Ask::GetConfig).await {
                self.adopt(theirs).await;
            }
            let voters: Vec<PeerId> = self.other_voters(&self.config()).into_iter().collect();
            if let Some(voter) = self.world.pick(&voters) {
                self.level_with(voter).await;
            }
        }
    }

    fn other_voters(&self, config: &Config) -> BTreeSet<PeerId> {
        config.electorate().into_iter().filter(|id| *id != self.me()).collect()
    }

    /// A joiner fills its empty acceptor.
    pub async fn catch_up_now(&self) {
        for voter in self.other_voters(&self.config()) {
            self.level_with(voter).await;
        }
    }

    /// Compares copies with a voter and takes what is newer there.
    pub async fn level_with(&self, voter: PeerId) {
        if self.is_voter() {
            // A learner that has become a voter has nearly all of it already.
            let followed = self.stored(|stored| stored.followed.clone());
            self.take(followed.into_iter().collect(), false).await;
        }
        let Some(Reply::Pairs(theirs)) = self.ask(voter, &Ask::Pairs).await else { return };
        let mine = self.copy_all();
        let newer = |(key, ballot): &(Bytes, Ballot)| mine.get(key).is_none_or(|accepted| accepted.ballot < *ballot);
        let keys: Vec<Bytes> = theirs.into_iter().filter(newer).map(|(key, _)| key).collect();
        if keys.is_empty() {
            return;
        }
        let Some(Reply::Registers(found)) = self.ask(voter, &Ask::Fetch { keys }).await else { return };
        if !self.is_voter() {
            self.follow(found).await;
        } else if is_planted(Fault::GossipInstalls) {
            self.overwrite(found).await;
        } else {
            self.take(found, true).await;
        }
    }

    /// Installs those records for which enough voters vouch; the others are settled by consensus, if so wished.
    async fn take(&self, found: Vec<(Bytes, Accepted)>, settle_others: bool) {
        let config = self.config();
        let mut records: BTreeMap<Bytes, Accepted> = found
            .into_iter()
            .filter(|(key, accepted)| {
                self.stored(|stored| stored.accepted.get(key).is_none_or(|own| own.ballot < accepted.ballot))
            })
            .collect();
        if records.is_empty() {
            return;
        }
        let Some(vouched) = self.vouched_for(&config, &records).await else { return };
        let mut others: Vec<(Bytes, Ballot)> = Vec::new();
        records.retain(|key, accepted| {
            let vouched = vouched.contains(key);
            if !vouched {
                others.push((key.clone(), accepted.ballot));
            }
            vouched
        });
        let ballots: BTreeMap<Bytes, Ballot> =
            records.iter().map(|(key, accepted)| (key.clone(), accepted.ballot)).collect();
        let refused = self.install(config.epoch, records).await;
        others.extend(refused.into_iter().filter_map(|key| ballots.get(&key).map(|ballot| (key, *ballot))));
        for (key, ballot) in others.into_iter().filter(|_| settle_others) {
            if self.copy(&key).1 < Some(ballot) {
                // What cannot be settled now differs still next time.
                let _ = self.settle(&key, self.world.exec.now() + SECOND).await;
            }
        }
    }

    /// Of which of these records enough other voters have accepted just that; `None` where the epoch has passed.
    async fn vouched_for(&self, config: &Config, records: &BTreeMap<Bytes, Accepted>) -> Option<BTreeSet<Bytes>> {
        let pairs: Vec<(Bytes, Ballot)> =
            records.iter().map(|(key, accepted)| (key.clone(), accepted.ballot)).collect();
        let mut holders: BTreeMap<&Bytes, BTreeSet<PeerId>> = BTreeMap::new();
        let ask = Ask::Confirm { epoch: config.epoch, pairs: pairs.clone() };
        for (voter, reply) in self.ask_each(&self.other_voters(config), &ask).await {
            match reply {
                Reply::Confirmed(said) => {
                    for ((key, _), _) in pairs.iter().zip(said).filter(|(_, holds)| *holds) {
                        holders.entry(key).or_default().insert(voter);
                    }
                }
                Reply::WrongEpoch(theirs) => {
                    let passed = theirs.epoch > config.epoch;
                    self.settle_epoch(voter, theirs).await;
                    if passed {
                        return None;
                    }
                }
                _ => {}
            }
        }
        let nobody = BTreeSet::new();
        let vouched = |key: &Bytes| {
            may_install(config, holders.get(key).unwrap_or(&nobody)) || is_planted(Fault::InstallUnvouched)
        };
        Some(records.keys().filter(|key| vouched(key)).cloned().collect())
    }
}
