//! What peers do besides answering clients: changing the voters (R8), collecting tombstones (R7), catching up (R6).

use std::collections::BTreeSet;

use bytes::Bytes;

use super::exec::{Mailbox, Micros};
use super::fault::{Fault, is_planted};
use super::peer::Peer;
use super::proposer::{Failed, UPDATE_DEADLINE};
use super::world::{Ask, MS, Reply, SECOND};
use crate::id::PeerId;
use crate::record::{Stored, key};
use crate::register::{Accepted, Config, Decision};
use crate::wire::ScanQuery;

/// Keys looked at per page while a new voter is brought level: few, so that there are several pages.
const PAGE_KEYS: u32 = 2;

impl Peer {
    /// Asks several peers at once; answers come in the order they arrive, one or none of each.
    async fn ask_each(&self, peers: &BTreeSet<PeerId>, ask: &Ask) -> Vec<(PeerId, Reply)> {
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

    /// Moves the voters towards `target` by one member, or finishes a change that someone else began.
    pub async fn change_voters(&self, target: &BTreeSet<PeerId>) -> Result<(), Failed> {
        let config = self.config();
        if config.outgoing.is_some() {
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
        if !raw.is_empty() {
            for joiner in joint.joiners() {
                self.ask(joiner, &Ask::Install(raw.clone())).await;
            }
        } else if !is_planted(Fault::NothingSettled) {
            self.bring_level().await?;
        }
        if !is_planted(Fault::JoinerWithoutFloors) {
            self.carry_floors(joint).await?;
        }
        let Some(after) = joint.finish_change() else { return Ok(()) };
        if self.choose(joint, after.clone()).await? {
            let everyone: BTreeSet<PeerId> = self.world.nodes.borrow().iter().map(|node| node.id).collect();
            self.ask_each(&everyone, &Ask::Adopt(after)).await;
        }
        Ok(())
    }

    /// R8 (4): `update(key, identity)` for every key in joint quorums.
    async fn bring_level(&self) -> Result<(), Failed> {
        let mut start = Bytes::new();
        loop {
            let query = ScanQuery { prefix: Bytes::new(), start, delimiter: None, limit: PAGE_KEYS };
            let config = self.config();
            let own = self.own_page(&query, config.epoch);
            let pages = self.quorum_pages(&query, &config, &own).await.ok_or(Failed::Nothing)?;
            let next = pages.iter().filter_map(|(_, page)| page.next.clone()).min();
            let keys: BTreeSet<Bytes> = pages
                .iter()
                .flat_map(|(_, page)| &page.entries)
                .map(|entry| entry.key.clone())
                .filter(|key| next.as_ref().is_none_or(|next| key < next))
                .collect();
            for key in keys {
                self.settle(&key, self.world.exec.now() + UPDATE_DEADLINE).await?;
            }
            match next {
                Some(next) => start = next,
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
            let voters: Vec<PeerId> = self.config().electorate().into_iter().filter(|id| *id != self.me()).collect();
            if let Some(voter) = self.world.pick(&voters) {
                self.level_with(voter).await;
            }
        }
    }

    /// Compares copies with a voter; a learner takes what differs, a voter has it settled (R6).
    pub async fn level_with(&self, voter: PeerId) {
        let Some(Reply::Pairs(theirs)) = self.ask(voter, &Ask::Pairs).await else { return };
        let mine: BTreeSet<_> = self.copy_all().iter().map(|(key, copy)| (key.clone(), copy.ballot)).collect();
        let theirs = theirs.into_iter().collect();
        let differing: BTreeSet<Bytes> = mine.symmetric_difference(&theirs).map(|(key, _)| key.clone()).collect();
        let keys: Vec<Bytes> = differing.into_iter().collect();
        let installs = is_planted(Fault::GossipInstalls);
        if self.is_voter() && !installs {
            for key in keys {
                // What cannot be settled now differs still next time.
                let _ = self.settle(&key, self.world.exec.now() + SECOND).await;
            }
        } else if let Some(Reply::Registers(found)) = self.ask(voter, &Ask::Fetch { keys }).await {
            if self.is_voter() && installs {
                self.install(found).await;
            } else {
                self.follow(found).await;
            }
        }
    }
}
