//! What peers do besides answering clients: changing the voters (R8), as `pool/ledger/change.rs` does it, and collecting
//! tombstones (R7).

use std::collections::BTreeSet;

use bytes::Bytes;

use super::exec::{Mailbox, Micros};
use super::fault::{Fault, is_planted};
use super::peer::Peer;
use super::proposer::{Failed, UPDATE_DEADLINE};
use super::world::{Ask, Reply};
use crate::hlc::Stamp;
use crate::id::PeerId;
use crate::listing::{Line, merge};
use crate::record::{Stored, key};
use crate::register::{Accepted, Config, Decision};
use crate::wire::ScanQuery;

/// Keys looked at per page while a new voter is brought level: few, so that there are several pages.
const PAGE_KEYS: u32 = 2;
/// How often a joint phase that someone left is taken back.
const GIVE_UP_PER_MILLE: u64 = 300;

impl Peer {
    /// Asks several peers at once; answers come in the order they arrive, one or none of each.
    pub async fn ask_each(&self, peers: &BTreeSet<PeerId>, ask: &Ask) -> Vec<(PeerId, Reply)> {
        let mailbox = Mailbox::new(&self.world.exec);
        for peer in peers {
            self.world.call(self.node.number, *peer, ask, &mailbox.sender());
        }
        let mut answered = BTreeSet::new();
        let mut replies = Vec::new();
        while answered.len() < peers.len() {
            let Some((peer, reply)) = mailbox.recv(Micros::MAX).await else { continue };
            if answered.insert(peer) {
                replies.extend(reply.map(|reply| (peer, reply)));
            }
        }
        replies
    }

    /// Moves the voters towards `target` by one member, or ends a change that someone else began: now and then by
    /// giving it up, as for a joiner that is gone.
    pub async fn change_voters(&self, target: &BTreeSet<PeerId>) -> Result<(), Failed> {
        let config = self.config();
        if let Some(before) = config.give_up_change() {
            if self.world.chance(GIVE_UP_PER_MILLE) {
                return self.conclude(&config, before).await;
            }
            return self.finish(&config).await;
        }
        let mut voters = config.voters.clone();
        if let Some(joiner) = target.difference(&config.voters).next() {
            voters.insert(*joiner);
        } else if let Some(leaver) = config.voters.difference(target).next() {
            voters.remove(leaver);
        }
        let Some(mut joint) = config.begin_change(voters) else { return Ok(()) };
        if is_planted(Fault::NoJointPhase) {
            joint.outgoing = None;
        }
        if is_planted(Fault::UnchosenAdopted) {
            self.adopt(joint.clone()).await;
            return self.finish(&joint).await;
        }
        if self.choose(&config, joint.clone()).await? {
            self.finish(&joint).await?;
        }
        Ok(())
    }

    /// R8 (1), (6): writes the next configuration into its register, unless another driver was faster.
    async fn choose(&self, before: &Config, next: Config) -> Result<bool, Failed> {
        let epoch = before.epoch;
        let chosen = self
            .update(&key::config(), |current| match current.map(|current| Config::decode(&current.value)) {
                Some(Ok(known)) if known.epoch > epoch => Decision::Keep(Some(known)),
                Some(Err(_)) => Decision::Keep(None),
                _ => Decision::Put(next.encode(), Some(next.clone())),
            })
            .await?
            .answer
            .ok_or(Failed::Nothing)?;
        let ours = chosen == next;
        self.adopt(chosen).await;
        if ours {
            self.world.stats.borrow_mut().changes += 1;
        }
        Ok(ours)
    }

    /// R8 (2) to (6), from a joint configuration that is known to be chosen.
    async fn finish(&self, joint: &Config) -> Result<(), Failed> {
        let raw = if is_planted(Fault::CopyBeforeFence) { self.raw_copy(joint).await } else { Vec::new() };
        self.adopt(joint.clone()).await;
        let told: BTreeSet<PeerId> = self
            .ask_each(&joint.electorate(), &Ask::Adopt(joint.clone()))
            .await
            .into_iter()
            .map(|(peer, _)| peer)
            .collect();
        if joint.missing(&told) > 0 {
            return Err(Failed::Nothing);
        }
        let raw = if is_planted(Fault::RawCopy) { self.raw_copy(joint).await } else { raw };
        if raw.is_empty() {
            // What it still lacks is settled.
            self.ask_each(&joint.joiners(), &Ask::CatchUp).await;
        }
        if !is_planted(Fault::JoinerWithoutFloors) {
            self.carry_floors(joint).await?;
        }
        if !raw.is_empty() {
            self.ask_each(&joint.joiners(), &Ask::Overwrite(raw)).await;
        } else if !is_planted(Fault::NothingSettled) {
            // With it no promise of an older epoch is of any use: to see that fault it is left out, too.
            if !is_planted(Fault::NoRaise) && !is_planted(Fault::PromisesAcrossEpochs) {
                let highest = self.raise_to(joint, Stamp::default()).await?;
                self.raise_to(joint, highest).await?;
            }
            self.bring_level().await?;
        }
        let Some(after) = joint.finish_change() else { return Ok(()) };
        self.conclude(joint, after).await
    }

    /// R8 (6): the configuration after a joint one is chosen by joint quorums.
    async fn conclude(&self, joint: &Config, after: Config) -> Result<(), Failed> {
        if self.choose(joint, after.clone()).await? {
            self.world.stats.borrow_mut().given_up += u64::from(joint.outgoing.as_ref() == Some(&after.voters));
            let everyone: BTreeSet<PeerId> = self.world.nodes.borrow().iter().map(|node| node.id).collect();
            self.ask_each(&everyone, &Ask::Adopt(after)).await;
        }
        Ok(())
    }

    /// R8 (4): a joint quorum promises for all keys at once; answers the highest stamp it ever took. The old voters come
    /// first.
    async fn raise_to(&self, joint: &Config, floor: Stamp) -> Result<Stamp, Failed> {
        let mut acks = BTreeSet::new();
        let mut highest = floor;
        for voters in [joint.outgoing.clone().unwrap_or_default(), joint.joiners()] {
            if joint.is_quorum(&acks) {
                break;
            }
            for (voter, reply) in self.ask_each(&voters, &Ask::Raise { epoch: joint.epoch, floor }).await {
                if let Reply::Raised(theirs) = reply {
                    acks.insert(voter);
                    highest = highest.max(theirs);
                }
            }
        }
        if joint.is_quorum(&acks) { Ok(highest) } else { Err(Failed::Nothing) }
    }

    /// R8 (4): every key on which a joint quorum's pages differ is settled by consensus. The others that quorum has
    /// accepted.
    async fn bring_level(&self) -> Result<(), Failed> {
        let mut query = ScanQuery { limit: PAGE_KEYS, ..ScanQuery::default() };
        loop {
            let config = self.config();
            let own = self.own_page(&query, config.epoch);
            let pages = self.quorum_pages(&query, &config, &own).await.ok_or(Failed::Nothing)?;
            let merged = merge(&query, &pages.iter().map(|(_, page)| &**page).collect::<Vec<_>>());
            for line in merged.lines {
                if let Line::DisputedKey(key) = line {
                    self.settle(&key, self.world.exec.now() + UPDATE_DEADLINE).await?;
                }
            }
            match merged.next {
                Some(next) => query.start = next,
                None => return Ok(()),
            }
        }
    }

    /// R8 (5): the highest collection floors of a fenced old majority go to whoever joins.
    async fn carry_floors(&self, joint: &Config) -> Result<(), Failed> {
        let (Some(outgoing), joiners) = (&joint.outgoing, joint.joiners()) else { return Ok(()) };
        if joiners.is_empty() {
            return Ok(());
        }
        let replies = self.ask_each(outgoing, &Ask::Floors { epoch: joint.epoch }).await;
        let mut heard = BTreeSet::new();
        let mut floors = std::collections::BTreeMap::new();
        for (peer, reply) in replies {
            if let Reply::Floors(theirs) = reply {
                heard.insert(peer);
                for (range, floor) in theirs {
                    let highest = floors.entry(range).or_insert(floor);
                    *highest = floor.max(*highest);
                }
            }
        }
        let old = Config { epoch: joint.epoch, voters: outgoing.clone(), outgoing: None };
        if !old.is_quorum(&heard) {
            return Err(Failed::Nothing);
        }
        let raise = Ask::RaiseFloors { epoch: joint.epoch, floors: floors.into_iter().collect() };
        let raised = self.ask_each(&joiners, &raise).await;
        let done = raised.iter().filter(|(_, reply)| matches!(reply, Reply::Done)).count();
        if done == joiners.len() { Ok(()) } else { Err(Failed::Nothing) }
    }

    /// A planted fault: all registers of some old voter.
    async fn raw_copy(&self, joint: &Config) -> Vec<(Bytes, Accepted)> {
        let old: Vec<PeerId> = joint.outgoing.iter().flatten().copied().collect();
        let Some(source) = self.world.pick(&old) else { return Vec::new() };
        let Some(Reply::Pairs(pairs)) = self.ask(source, &Ask::Pairs).await else { return Vec::new() };
        let keys = pairs.into_iter().map(|(key, _)| key).collect();
        match self.ask(source, &Ask::Fetch { keys }).await {
            Some(Reply::Registers(registers)) => registers,
            _ => Vec::new(),
        }
    }

    /// R7: collects a tombstone that every voter durably holds.
    pub async fn collect_tombstone(&self, key: &Bytes) {
        let config = self.config();
        let Some(held) = self.stored(|stored| stored.accepted.get(key).cloned()) else { return };
        if held.record.value.is_some() || !config.is_voter(&self.me()) {
            return;
        }
        let (epoch, tombstone) = (config.epoch, held.ballot);
        let electorate = config.electorate();
        let replies = self.ask_each(&electorate, &Ask::Holds { epoch, key: key.clone(), tombstone }).await;
        let holders: BTreeSet<PeerId> =
            replies.iter().filter(|(_, reply)| matches!(reply, Reply::Done)).map(|(peer, _)| *peer).collect();
        let enough = if is_planted(Fault::CollectedByMajority) {
            config.is_quorum(&holders)
        } else {
            holders.len() == electorate.len()
        };
        if enough {
            self.ask_each(&electorate, &Ask::Collect { epoch, key: key.clone(), tombstone }).await;
        }
    }
}
