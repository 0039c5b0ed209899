//! The roll: who is admitted, from the ledger's member records.
//!
//! This peer's own copy is followed as it changes, so that a newcomer is let in within moments; a strong scan
//! every few seconds is what counts, and the only thing that strikes a member off (but for an eviction or a leave
//! seen). Whoever is struck off by those and still votes keeps its connections until it does not (R8).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use palm_core::hlc::Ballot;
use palm_core::id::PeerId;
use palm_core::record::{MemberRecord, MemberState, PoolRecord, Stored, key};
use parking_lot::RwLock;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::gossip::Gossip;
use super::ledger::{Current, Decision, Ledger, LedgerError};
use super::{Dismissal, PoolError, Shared, address, join, scan_all};
use crate::net::Net;

/// How often the members are read strongly when nothing seems to change.
const REFRESH: Duration = Duration::from_secs(5);
/// Every so many refreshes this peer looks whether its own address has changed.
const ADDRESS_CHECK_EVERY: u32 = 6;

/// The members and the pool's settings, as last known.
pub(super) struct Roll {
    known: RwLock<Known>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    members: Records,
    pool: Option<PoolRecord>,
}

/// Member records, and the version of each: a copy that is behind must not bring an older one back.
type Records = BTreeMap<PeerId, (Ballot, MemberRecord)>;

impl Roll {
    pub(super) fn new() -> Self {
        Self { known: RwLock::default(), changes: watch::Sender::new(0) }
    }

    /// Admitted members.
    pub(super) fn active(&self) -> BTreeMap<PeerId, MemberRecord> {
        let known = self.known.read();
        let active = known.members.iter().filter(|(_, (_, record))| record.state == MemberState::Active);
        active.map(|(&peer, (_, record))| (peer, record.clone())).collect()
    }

    /// Those that were evicted or left.
    pub(super) fn dismissed(&self) -> BTreeSet<PeerId> {
        let known = self.known.read();
        let dismissed = known.members.iter().filter(|(_, (_, record))| record.state.is_dismissed());
        dismissed.map(|(&peer, _)| peer).collect()
    }

    /// What is known of a peer, member or not any more.
    pub(super) fn of(&self, peer: PeerId) -> Option<MemberRecord> {
        self.known.read().members.get(&peer).map(|(_, record)| record.clone())
    }

    /// The pool's settings, once known.
    pub(super) fn pool(&self) -> Option<PoolRecord> {
        self.known.read().pool.clone()
    }

    /// Fires when any of it changes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes in records. With `complete`, members not among them are struck off.
    fn learn(&self, records: Records, pool: Option<PoolRecord>, complete: bool) -> bool {
        let mut known = self.known.write();
        let mut next = if complete { BTreeMap::new() } else { known.members.clone() };
        let newer = |(peer, found): (PeerId, (Ballot, MemberRecord))| match known.members.get(&peer) {
            Some(had) if had.0 > found.0 => (peer, had.clone()),
            _ => (peer, found),
        };
        next.extend(records.into_iter().map(newer));
        let pool = pool.or_else(|| known.pool.clone());
        let changed = next != known.members || pool != known.pool;
        *known = Known { members: next, pool };
        drop(known);
        if changed {
            self.changes.send_modify(|changes| *changes += 1);
        }
        changed
    }
}

/// Reads the member records of a scan; one that does not decode is skipped, not fatal: the others still serve.
fn decode(registers: Vec<(Bytes, Current)>) -> Records {
    let mut members = BTreeMap::new();
    for (at, current) in registers {
        match (key::parse_peer(&at), MemberRecord::decode(&current.value)) {
            (Some(peer), Ok(record)) => {
                members.insert(peer, (current.version, record));
            }
            (_, Err(error)) => warn!(%error, "member record does not read"),
            (None, _) => warn!("member record under a malformed key"),
        }
    }
    members
}

/// Puts the members this peer was introduced to on the roll, for until it has read the ledger itself.
pub(super) fn introduce(shared: &Shared) {
    let introduced = shared.state.introduced.iter().map(|(peer, addresses)| {
        let record = MemberRecord {
            name: peer.short(),
            state: MemberState::Active,
            joined_ms: 0,
            addresses: addresses.clone(),
            reason: String::new(),
        };
        (*peer, (Ballot::ZERO, record))
    });
    shared.roll.learn(introduced.collect(), None, false);
    apply(shared);
}

/// Takes in this peer's own copy: quick, and possibly behind.
pub(super) fn refresh_from_copy(shared: &Shared) -> bool {
    let members = match shared.ledger.local_scan(&key::members()) {
        Ok(registers) => decode(registers),
        Err(error) => {
            warn!(%error, "own copy of the members does not read");
            return false;
        }
    };
    let pool = shared.ledger.peek(&key::pool()).and_then(|current| PoolRecord::decode(&current.value).ok());
    let changed = shared.roll.learn(members, pool, false);
    apply(shared);
    changed
}

/// Takes in what a majority knows.
async fn refresh_strongly(shared: &Shared) -> Result<(), LedgerError> {
    let members = decode(scan_all(&shared.ledger, &key::members()).await?);
    let pool = shared.ledger.read_shared(&key::pool()).await?;
    let pool = pool.and_then(|current| PoolRecord::decode(&current.value).ok());
    // This peer is a member, or nobody would have answered; an empty answer is a pool still being made.
    if !members.is_empty() {
        shared.roll.learn(members, pool, true);
        apply(shared);
    }
    Ok(())
}

/// Makes the network's list of admitted peers the roll's.
///
/// The voters this peer knows of are let in too, whatever the roll says so far: without them it reads no roll. (A
/// peer that is killed moments after it joined comes back knowing them and little else; and one that was evicted goes
/// on voting until it is replaced.)
fn apply(shared: &Shared) {
    let active = shared.roll.active();
    shared.ledger.set_members(active.keys().copied().collect());
    if let Some(pool) = shared.roll.pool() {
        shared.ledger.set_consistency(Some(pool.consistency));
    }
    let voters = shared.ledger.config().electorate();
    let wanted: BTreeSet<PeerId> = active.keys().chain(&voters).copied().filter(|&peer| peer != shared.me).collect();
    let mut admitted = shared.admitted.lock();
    for &peer in wanted.difference(&admitted) {
        let record = active.get(&peer);
        info!(%peer, name = record.map(|record| record.name.as_str()), "peer admitted");
        shared.net.admit(peer);
        hint(&shared.net, peer, record.map_or(&[], |record| &record.addresses));
    }
    for &peer in admitted.difference(&wanted) {
        info!(%peer, "peer expelled");
        shared.net.expel(peer);
    }
    *admitted = wanted;
    drop(admitted);
    if let Some(own) = shared.roll.of(shared.me)
        && own.state.is_dismissed()
        && !voters.contains(&shared.me)
    {
        shared.dismiss(Dismissal { state: own.state, reason: own.reason });
    }
}

/// Tells the network where a peer was last known. Texts that are not addresses are passed over.
pub(super) fn hint(net: &Net, peer: PeerId, addresses: &[String]) {
    for address in addresses.iter().filter_map(|address| address.parse::<SocketAddr>().ok()) {
        net.hint(peer, address);
    }
}

/// Keeps the roll true, and this peer's own address in it, until `stop`.
pub(super) async fn keep(shared: Arc<Shared>, gossip: Arc<Gossip>, stop: CancellationToken) {
    let mut watch = shared.ledger.watch();
    let mut roll_changes = shared.roll.changes();
    let mut configs = shared.ledger.config_changes();
    let mut asking = JoinSet::new();
    let mut refresh = tokio::time::interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count: u32 = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = refresh.tick() => {
                if let Err(error) = refresh_strongly(&shared).await {
                    debug!(%error, "members could not be read strongly");
                    refresh_from_copy(&shared);
                    if asking.is_empty() {
                        let shared = Arc::clone(&shared);
                        asking.spawn(async move { join::ask_standing(&shared).await });
                    }
                }
                if count.is_multiple_of(ADDRESS_CHECK_EVERY)
                    && let Err(error) = record_own_address(&shared).await
                {
                    debug!(%error, "own address could not be recorded");
                }
                count = count.wrapping_add(1);
            }
            Some(Ok(Some(dismissal))) = asking.join_next() => shared.dismiss(dismissal),
            // Whoever does not vote any more may have been let in for that alone.
            _ = configs.changed() => apply(&shared),
            changed = watch.recv() => match changed {
                Ok(changed) if concerns_roll(&changed) => { refresh_from_copy(&shared); }
                Ok(_) => {}
                // Too many changes at once: look at all there is.
                Err(broadcast::error::RecvError::Lagged(_)) => { refresh_from_copy(&shared); }
                Err(broadcast::error::RecvError::Closed) => return,
            },
            _ = roll_changes.changed() => {
                let members: Vec<PeerId> = shared.roll.active().into_keys().collect();
                gossip.set_members(&members);
                for &member in members.iter().filter(|&&member| member != shared.me && !shared.view.is_live(member)) {
                    gossip.greet(member);
                }
            }
        }
    }
}

fn concerns_roll(changed: &Bytes) -> bool {
    changed.starts_with(&key::members()) || *changed == key::pool()
}

/// Writes this peer's address into its member record, if it is another than recorded.
async fn record_own_address(shared: &Shared) -> Result<(), PoolError> {
    let addresses: Vec<String> =
        address::advertised(shared.net.local_addr()).iter().map(SocketAddr::to_string).collect();
    if shared.roll.active().get(&shared.me).is_none_or(|record| record.addresses == addresses) {
        return Ok(());
    }
    info!(?addresses, "own address changed");
    shared
        .ledger
        .update(key::member(shared.me), |current| {
            match current.and_then(|found| MemberRecord::decode(&found.value).ok()) {
                Some(record) if record.addresses != addresses => {
                    Decision::Put(MemberRecord { addresses: addresses.clone(), ..record }.encode(), ())
                }
                _ => Decision::Keep(()),
            }
        })
        .await?;
    Ok(())
}

/// Counts admitted members, strongly.
pub(super) async fn count_active(ledger: &Ledger) -> Result<usize, LedgerError> {
    let members = decode(scan_all(ledger, &key::members()).await?);
    Ok(members.values().filter(|(_, record)| record.state == MemberState::Active).count())
}

/// This peer's own view of one member.
pub(super) async fn read(ledger: &Ledger, peer: PeerId) -> Result<Option<MemberRecord>, PoolError> {
    let current = ledger.read(&key::member(peer)).await?;
    Ok(current.map(|found| MemberRecord::decode(&found.value)).transpose()?)
}

#[cfg(test)]
mod tests {
    use palm_core::hlc::Stamp;

    use super::*;

    fn record(at: u64, state: MemberState) -> (Ballot, MemberRecord) {
        let version = Ballot { stamp: Stamp(at), ..Ballot::ZERO };
        let (name, addresses, reason) = ("x".into(), Vec::new(), String::new());
        (version, MemberRecord { name, state, joined_ms: 1, addresses, reason })
    }

    /// The local copy is behind and lacks a member: it must not be struck off for that. A strong answer without it
    /// does, and an eviction counts wherever it is seen.
    #[test]
    fn only_a_complete_answer_strikes_members_off() {
        let roll = Roll::new();
        let (one, two) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let (first, second) = (record(1, MemberState::Active), record(2, MemberState::Active));
        assert!(roll.learn([(one, first.clone()), (two, second)].into(), None, true));
        assert!(!roll.learn([(one, first.clone())].into(), None, false), "a partial copy");
        assert_eq!(roll.active().len(), 2);
        assert!(roll.learn([(two, record(3, MemberState::Evicted))].into(), None, false));
        assert_eq!(roll.active().into_keys().collect::<Vec<_>>(), [one]);
        assert_eq!(roll.dismissed(), [two].into());
        assert!(roll.learn([(two, record(4, MemberState::Active))].into(), None, true));
        assert_eq!(roll.active().into_keys().collect::<Vec<_>>(), [two]);
    }

    /// A peer has seen an eviction and then reads a copy that has not. The evicted one must not be let in again for it.
    #[test]
    fn an_older_record_brings_nobody_back() {
        let roll = Roll::new();
        let one = PeerId::from_bytes([1; 32]);
        roll.learn([(one, record(5, MemberState::Evicted))].into(), None, false);
        for complete in [false, true] {
            roll.learn([(one, record(1, MemberState::Active))].into(), None, complete);
            assert_eq!((roll.active().len(), roll.dismissed()), (0, [one].into()));
        }
    }
}
