//! Who is in the pool, who is alive, and how much room each has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use palm_core::id::PeerId;
use palm_core::place::{Candidate, Policy};
use palm_core::record::PoolRecord;
use palm_core::s3::storage_class;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::Instant;

use super::gossip::Told;
use super::voters::{Elector, Presence};

/// A peer is busy for this long after it served somebody.
const BUSY: Duration = Duration::from_secs(2);

/// What this peer knows of the others right now, and what it is about itself: cheap to clone and to ask.
#[derive(Clone)]
pub struct View(Arc<Inner>);

struct Inner {
    me: PeerId,
    current: RwLock<Arc<Snapshot>>,
    changes: watch::Sender<u64>,
    born: Instant,
    /// When this peer last served a client, milliseconds from `born`; 0 before the first.
    served_ms: AtomicU64,
    /// This peer gives its fragments away and takes no more.
    draining: AtomicBool,
}

/// A member as others are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Which.
    pub peer: PeerId,
    /// Host name or what its owner called it.
    pub name: String,
    /// Whether it is believed alive; this peer always is.
    pub live: bool,
    /// For how long this peer has not seen it alive; zero while it lives.
    pub absent_for: Duration,
    /// Whether it votes on metadata.
    pub voter: bool,
    /// When it was admitted, milliseconds since the Unix epoch.
    pub joined_ms: u64,
    /// `host:port` it was last known at, from its record.
    pub addresses: Vec<String>,
    /// What it last told of itself, if anything reached this peer.
    pub told: Option<Told>,
    /// Smoothed round-trip time of the connection to it, if there is one.
    pub round_trip: Option<Duration>,
}

/// One state of the view. Replaced whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Snapshot {
    pub(super) members: BTreeMap<PeerId, MemberStatus>,
    /// Those that were evicted or left, and whether each is a voter still, and alive: then it goes on voting until it is
    /// replaced.
    pub(super) dismissed: BTreeMap<PeerId, bool>,
    /// For how long this peer has seen a majority of the voters alive; zero without one.
    pub(super) in_touch_for: Duration,
    pub(super) pool: Option<PoolRecord>,
}

impl Snapshot {
    /// Whose votes can be had.
    pub(super) fn live(&self) -> BTreeSet<PeerId> {
        let members = self.members.values().filter(|member| member.live).map(|member| member.peer);
        members.chain(self.dismissed.iter().filter(|(_, votes)| **votes).map(|(&peer, _)| peer)).collect()
    }

    /// Whether anyone who waits for changes would act on the difference: figures that drift do not count.
    fn differs(&self, other: &Self) -> bool {
        let outline = |snapshot: &Self| -> Vec<(PeerId, bool, bool, Option<bool>)> {
            let members = snapshot.members.values();
            let draining = |member: &MemberStatus| member.told.as_ref().map(|told| told.draining);
            members.map(|member| (member.peer, member.live, member.voter, draining(member))).collect()
        };
        self.pool != other.pool || self.dismissed != other.dismissed || outline(self) != outline(other)
    }
}

impl View {
    /// An empty view: this peer alone, without a pool yet.
    pub(super) fn new(me: PeerId) -> Self {
        Self(Arc::new(Inner {
            me,
            current: RwLock::default(),
            changes: watch::Sender::new(0),
            born: Instant::now(),
            served_ms: AtomicU64::new(0),
            draining: AtomicBool::new(false),
        }))
    }

    /// Notes that this peer serves a client now.
    pub fn touch(&self) {
        self.0.served_ms.store(self.age_ms(), Ordering::Relaxed);
    }

    /// Whether this peer has served a client just now.
    pub fn is_busy(&self) -> bool {
        let served_ms = self.0.served_ms.load(Ordering::Relaxed);
        served_ms > 0 && u128::from(self.age_ms().saturating_sub(served_ms)) < BUSY.as_millis()
    }

    /// Whether any living member, this peer included, has served a client just now: what can wait goes slower.
    pub fn any_busy(&self) -> bool {
        let told = |member: &MemberStatus| member.live && member.told.as_ref().is_some_and(|told| told.busy);
        self.is_busy() || self.0.current.read().members.values().any(told)
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Whether this peer gives its fragments away and takes no more.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    pub(super) fn set_draining(&self, draining: bool) {
        if self.0.draining.swap(draining, Ordering::Relaxed) != draining {
            self.0.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// Replaces what is known.
    pub(super) fn publish(&self, next: Snapshot) {
        let next = Arc::new(next);
        let before = std::mem::replace(&mut *self.0.current.write(), Arc::clone(&next));
        if next.differs(&before) {
            self.0.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.current.read())
    }

    /// This peer.
    pub fn me(&self) -> PeerId {
        self.0.me
    }

    /// Members that live and do not drain, with their free space: where fragments may be put. Includes this peer. Members
    /// whose free space has not been heard of yet are left out.
    pub fn candidates(&self) -> Vec<Candidate> {
        let snapshot = self.snapshot();
        let live = snapshot.members.values().filter(|member| member.live);
        live.filter_map(|member| {
            let told = member.told.as_ref().filter(|told| !told.draining)?;
            if member.peer == self.0.me && self.is_draining() {
                return None;
            }
            // In a wider pool a peer is lost whole, whatever disks it has.
            let disks = if snapshot.members.len() == 1 { told.disks_apart.max(1) } else { 1 };
            let domains = std::iter::once(&told.domain).chain(&told.disk_domains);
            let domains = domains.filter(|domain| !domain.is_empty()).cloned().collect();
            Some(Candidate { peer: member.peer, free: told.free, domains, disks })
        })
        .collect()
    }

    /// Whether it is believed alive (this peer always is).
    pub fn is_live(&self, peer: PeerId) -> bool {
        peer == self.0.me || self.0.current.read().members.get(&peer).is_some_and(|member| member.live)
    }

    /// For how long a member is away: zero while it lives, never zero when it does not. `None`: it was dismissed. Who was cut
    /// off itself has seen nobody's absence: time without a majority does not count. Of whom nothing is known yet, no
    /// absence is known either.
    pub fn absence(&self, peer: PeerId) -> Option<Duration> {
        const SOME: Duration = Duration::from_millis(1);
        let snapshot = self.snapshot();
        match snapshot.members.get(&peer) {
            Some(member) if member.live || peer == self.0.me => Some(Duration::ZERO),
            Some(member) => Some(member.absent_for.min(snapshot.in_touch_for).max(SOME)),
            None if snapshot.dismissed.contains_key(&peer) => None,
            None => Some(SOME),
        }
    }

    /// Whether a majority of the voters is alive.
    pub fn in_touch(&self) -> bool {
        !self.snapshot().in_touch_for.is_zero()
    }

    /// Admitted members, alive or not, this peer included.
    pub fn member_count(&self) -> usize {
        self.0.current.read().members.len().max(1)
    }

    /// The pool's policy: `None` means automatic.
    pub fn policy(&self) -> Option<Policy> {
        let (k, n) = self.0.current.read().pool.as_ref()?.policy?;
        Some(Policy { k, n })
    }

    /// The policy of a storage class that has one of its own.
    pub fn class_policy(&self, class: Option<&str>) -> Option<Policy> {
        let current = self.0.current.read();
        storage_class::policy_of(&current.pool.as_ref()?.classes, class)
    }

    /// How many admitted members, alive or not, are there to stay. Those that drain are as good as gone: what is kept is
    /// to be as tough as it can be without them.
    pub fn staying_count(&self) -> usize {
        let snapshot = self.snapshot();
        let stays = |member: &&MemberStatus| match &member.told {
            _ if member.peer == self.0.me => !self.is_draining(),
            Some(told) => !told.draining,
            None => true,
        };
        snapshot.members.values().filter(stays).count().max(1)
    }

    /// The policy that a write gets with all members there: the pool's, or what the number of those that stay allows, and for
    /// the only member that of its disks.
    pub fn wanted_policy(&self) -> Policy {
        let disks = self.candidates().first().map_or(1, |only| only.disks.into());
        self.policy().unwrap_or_else(|| Policy::auto_over(self.staying_count(), disks))
    }

    /// The same for objects of a storage class.
    pub fn wanted_class_policy(&self, class: Option<&str>) -> Policy {
        self.class_policy(class).unwrap_or_else(|| self.wanted_policy())
    }

    /// The pool's settings, once known.
    pub fn pool(&self) -> Option<PoolRecord> {
        self.0.current.read().pool.clone()
    }

    /// Every admitted member, in order of id.
    pub fn members(&self) -> Vec<MemberStatus> {
        self.snapshot().members.values().cloned().collect()
    }

    /// Fires when members come, go, live or die, when a voter changes, or when the pool's settings do.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The members, and those who were, as the choice of voters sees them. Who was cut off itself has seen nobody's
    /// absence: time without a majority does not count.
    pub(super) fn electors(&self) -> Vec<Elector> {
        let snapshot = self.snapshot();
        let members = snapshot.members.values().map(|member| {
            let absent_for = member.absent_for.min(snapshot.in_touch_for);
            let presence = if member.live { Presence::Live } else { Presence::Absent(absent_for) };
            Elector { peer: member.peer, joined_ms: member.joined_ms, presence }
        });
        let dismissed = snapshot.dismissed.keys();
        members.chain(dismissed.map(|&peer| Elector { peer, joined_ms: 0, presence: Presence::Dismissed })).collect()
    }

    /// Whose votes can be had: who is believed alive, this peer included.
    pub(super) fn live(&self) -> BTreeSet<PeerId> {
        let mut live = self.snapshot().live();
        live.insert(self.0.me);
        live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: u8, live: bool, free: Option<u64>) -> MemberStatus {
        MemberStatus {
            peer: PeerId::from_bytes([n; 32]),
            name: format!("peer {n}"),
            live,
            absent_for: Duration::ZERO,
            voter: false,
            joined_ms: 0,
            addresses: Vec::new(),
            told: free.map(|free| Told { free, ..Told::default() }),
            round_trip: None,
        }
    }

    fn snapshot(members: &[MemberStatus]) -> Snapshot {
        let members = members.iter().map(|member| (member.peer, member.clone())).collect();
        Snapshot { members, ..Snapshot::default() }
    }

    /// This peer comes back from an hour behind a pulled cable and finds one voter first. The others look absent for an
    /// hour, and it is this peer that was: their absence counts from when it reached a majority again.
    #[test]
    fn absence_counts_only_while_in_touch() {
        let view = View::new(PeerId::from_bytes([1; 32]));
        let away = MemberStatus { absent_for: Duration::from_hours(1), ..member(2, false, None) };
        let seen = |in_touch_for| {
            view.publish(Snapshot { in_touch_for, ..snapshot(std::slice::from_ref(&away)) });
            view.electors()[0].presence
        };
        assert_eq!(seen(Duration::from_secs(2)), Presence::Absent(Duration::from_secs(2)));
        assert_eq!(seen(Duration::from_hours(2)), Presence::Absent(Duration::from_hours(1)));
    }

    /// One of two voters is evicted. It is no member now, and without its vote its own vote can never be ended: as long as
    /// it answers it counts among those whose votes can be had, and is nowhere else.
    #[test]
    fn the_evicted_count_until_they_do_not_vote() {
        let view = View::new(PeerId::from_bytes([1; 32]));
        let evicted = PeerId::from_bytes([2; 32]);
        view.publish(Snapshot { dismissed: [(evicted, true)].into(), ..snapshot(&[member(1, true, None)]) });
        assert!(view.live().contains(&evicted) && !view.is_live(evicted));
        assert_eq!(view.member_count(), 1);
        assert!(view.electors().iter().any(|one| one.peer == evicted && one.presence == Presence::Dismissed));
        view.publish(Snapshot { dismissed: [(evicted, false)].into(), ..snapshot(&[member(1, true, None)]) });
        assert!(!view.live().contains(&evicted));
    }

    /// Four members and 3-of-4; one of them drains. No home of the other three may take a second fragment of 3-of-4, so as
    /// long as that were wanted the drain would never end. A lone member's disks stand in for members.
    #[test]
    fn those_that_drain_do_not_widen_the_policy() {
        let view = View::new(PeerId::from_bytes([1; 32]));
        let mut all: Vec<_> = (1..=4).map(|n| member(n, true, Some(5))).collect();
        view.publish(snapshot(&all));
        assert_eq!((view.staying_count(), view.wanted_policy().to_string().as_str()), (4, "3-of-4"));
        all[3].told = Some(Told { draining: true, ..Told::default() });
        view.publish(snapshot(&all));
        assert_eq!((view.staying_count(), view.wanted_policy().to_string().as_str()), (3, "2-of-3"));
        view.set_draining(true);
        assert_eq!((view.staying_count(), view.wanted_policy().to_string().as_str()), (2, "1-of-2"));
        view.set_draining(false);
        all[0].told = Some(Told { free: 5, disks: 4, disks_apart: 3, ..Told::default() });
        view.publish(snapshot(&all[..1]));
        assert_eq!(view.wanted_policy().to_string(), "2-of-3");
    }

    /// A member tells of its own domain and of a NAS that one of its disks is on, another only of its disks' domains, a third is of
    /// an earlier version or has none. Danger: the NAS is forgotten, or nothing counts as a domain. Expectation: a candidate is in
    /// all that its member told.
    #[test]
    fn members_are_in_the_domains_of_their_disks_too() {
        let view = View::new(PeerId::from_bytes([1; 32]));
        let mut all: Vec<_> = (1..=3).map(|n| member(n, true, Some(5))).collect();
        let (domain, disk_domains) = ("attic".to_owned(), vec!["nas".to_owned()]);
        all[0].told = Some(Told { domain, disk_domains: disk_domains.clone(), ..Told::default() });
        all[1].told = Some(Told { disk_domains, ..Told::default() });
        view.publish(snapshot(&all));
        let domains: Vec<_> = view.candidates().into_iter().map(|candidate| candidate.domains).collect();
        assert_eq!(domains, [vec!["attic", "nas"], vec!["nas"], vec![]]);
    }

    /// A fragment put at a dead peer is lost time, and one put at a peer of unknown size is a guess: neither is a
    /// candidate. Waiters wake when someone dies, not each time a figure drifts.
    #[test]
    fn the_dead_and_the_unknown_are_no_candidates() {
        let view = View::new(PeerId::from_bytes([1; 32]));
        assert!(view.is_live(view.me()));
        assert_eq!(view.member_count(), 1);
        let mut changes = view.changes();
        let all = [member(1, true, Some(5)), member(2, true, None), member(3, false, Some(7))];
        view.publish(snapshot(&all));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        let candidates: Vec<_> = view.candidates().into_iter().map(|candidate| candidate.peer).collect();
        assert_eq!(candidates, [PeerId::from_bytes([1; 32])]);
        assert_eq!(view.member_count(), 3);

        view.publish(snapshot(&[member(1, true, Some(6)), member(2, true, None), member(3, false, Some(8))]));
        assert!(!changes.has_changed().unwrap(), "free space drifted");
        view.publish(snapshot(&[member(1, true, Some(6)), member(2, false, None), member(3, false, Some(8))]));
        assert!(changes.has_changed().unwrap(), "a member died");
    }

    /// A peer is told to drain. Whatever was put there afterwards would have to be moved again: it is no candidate from
    /// that moment, whether it is this peer or another, and who waits for changes hears of it.
    #[test]
    fn who_drains_is_no_candidate() {
        let me = PeerId::from_bytes([1; 32]);
        let view = View::new(me);
        let all = [member(1, true, Some(5)), member(2, true, Some(7))];
        view.publish(snapshot(&all));
        let candidates = || view.candidates().into_iter().map(|candidate| candidate.peer).collect::<Vec<_>>();
        assert_eq!(candidates().len(), 2);

        let mut changes = view.changes();
        let mut draining = all.clone();
        draining[1].told = Some(Told { free: 7, draining: true, ..Told::default() });
        view.publish(snapshot(&draining));
        assert!(changes.has_changed().unwrap());
        assert_eq!(candidates(), [me]);

        changes.mark_unchanged();
        view.set_draining(true);
        assert!(changes.has_changed().unwrap() && candidates().is_empty());
        view.set_draining(false);
        assert_eq!(candidates(), [me]);
    }

    /// Repair goes slower while clients are served anywhere. Busy for ever would stop it, busy never would take the
    /// clients' bandwidth: it ends by itself shortly after the last request, and a dead member's last word does not count.
    #[tokio::test(start_paused = true)]
    async fn busy_ends_shortly_after_the_last_request() {
        let view = View::new(PeerId::from_bytes([1; 32]));
        assert!(!view.is_busy() && !view.any_busy());
        view.touch();
        assert!(view.is_busy() && view.any_busy());
        tokio::time::advance(BUSY + Duration::from_millis(1)).await;
        assert!(!view.any_busy());

        let busy = |live| MemberStatus { told: Some(Told { busy: true, ..Told::default() }), ..member(2, live, None) };
        view.publish(snapshot(&[busy(false)]));
        assert!(!view.any_busy());
        view.publish(snapshot(&[busy(true)]));
        assert!(view.any_busy() && !view.is_busy());
    }
}
