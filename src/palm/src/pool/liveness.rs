//! Who lives: what gossip hears, put together with what connections show.
//!
//! Gossip alone notices a death after some seconds and a return only after several heartbeats. A connection that is
//! down and cannot be dialled again says dead at once; a fresh one says alive at once; and a peer whose gossip is
//! late because the machine is busy is asked directly before it is given up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use palm_backends::Backend;
use palm_core::id::PeerId;
use palm_core::wire::{Request, Response};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Shared;
use super::gossip::{Gossip, Heard, MAX_DISK_DOMAINS, Told};
use super::view::{MemberStatus, Snapshot};
use crate::net::Net;

/// How often the evidence is put together.
const TICK: Duration = Duration::from_millis(250);
/// A connection younger than this shows life by itself: gossip has not had time.
const FRESH: Duration = Duration::from_secs(4);
/// A direct answer counts this long.
const RECENT: Duration = Duration::from_secs(3);
/// How long a peer asked directly may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer in doubt is asked this often.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Members greeted by gossip per tick though gossip thinks them dead: they may only have been unreachable.
const GREET_EVERY: u32 = 8;
/// How often this peer's own figures are refreshed.
const FIGURES_EVERY: u32 = 8;
/// Free space is told in steps, so that it does not change with every object.
const FREE_STEP_BYTES: u64 = 16 << 20;

/// All that speaks for and against one peer's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Evidence {
    /// How long its connection has been up, if it is.
    connected_for: Option<Duration>,
    /// How long ago it answered a direct question, if it did.
    answered: Option<Duration>,
    /// Since its connection went down it could not be reached again.
    unreachable: bool,
    /// Its heartbeats come.
    heard: bool,
}

impl Evidence {
    fn lives(self) -> bool {
        match self.connected_for {
            Some(age) => self.heard || age < FRESH || self.answered.is_some_and(|ago| ago < RECENT),
            None => self.heard && !self.unreachable,
        }
    }

    /// Whether a direct question would tell something new.
    fn is_doubtful(self) -> bool {
        self.connected_for.is_none() || !self.heard
    }
}

/// What this peer saw of another's connection.
#[derive(Debug, Clone, Copy, Default)]
struct Contact {
    connected_since: Option<Instant>,
    answered_at: Option<Instant>,
    /// Since when it has not been seen alive.
    absent_since: Option<Instant>,
    unreachable: bool,
    probing: bool,
    probed_at: Option<Instant>,
}

impl Contact {
    fn note_connection(&mut self, connected: bool, now: Instant) {
        if connected {
            self.connected_since.get_or_insert(now);
            self.unreachable = false;
        } else {
            self.connected_since = None;
        }
    }

    /// For how long it has been absent; this peer counts from when it first looked.
    fn note_life(&mut self, live: bool, now: Instant) -> Duration {
        if live {
            self.absent_since = None;
            return Duration::ZERO;
        }
        now - *self.absent_since.get_or_insert(now)
    }

    /// Whether to ask now; notes that it is being asked.
    fn begin_probe(&mut self, now: Instant) -> bool {
        if self.probing || self.probed_at.is_some_and(|at| now - at < PROBE_EVERY) {
            return false;
        }
        self.probing = true;
        self.probed_at = Some(now);
        true
    }

    fn note_probe(&mut self, answered: bool, now: Instant) {
        self.probing = false;
        self.unreachable = !answered;
        if answered {
            self.answered_at = Some(now);
        }
    }

    fn evidence(&self, heard: bool, now: Instant) -> Evidence {
        Evidence {
            connected_for: self.connected_since.map(|since| now - since),
            answered: self.answered_at.map(|at| now - at),
            unreachable: self.unreachable,
            heard,
        }
    }
}

/// Keeps the view true until `stop`.
pub(super) async fn keep(shared: Arc<Shared>, gossip: Arc<Gossip>, stop: CancellationToken) {
    let mut contacts: BTreeMap<PeerId, Contact> = BTreeMap::new();
    let mut probes: JoinSet<(PeerId, Option<u64>)> = JoinSet::new();
    let mut configs = shared.ledger.config_changes();
    let mut roll_changes = shared.roll.changes();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count: u32 = 0;
    let mut in_touch_since: Option<Instant> = None;
    let mut told = Told::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => count = count.wrapping_add(1),
            _ = roll_changes.changed() => {}
            _ = configs.changed() => {}
            Some(Ok((peer, epoch))) = probes.join_next() => {
                let contact: &mut Contact = contacts.entry(peer).or_default();
                contact.note_probe(epoch.is_some(), Instant::now());
                if epoch.is_some_and(|epoch| epoch > shared.ledger.config().epoch) {
                    // This peer was away while the voters changed, and must not vote on in an epoch that is over.
                    let ledger = shared.ledger.clone();
                    shared.tasks.spawn(async move { ledger.look_for_newer_config_at(peer).await });
                }
            }
        }
        let own = &shared.view;
        if count.is_multiple_of(FIGURES_EVERY) || (own.is_busy(), own.is_draining()) != (told.busy, told.draining) {
            told = own_figures(&shared).await;
            gossip.tell(&told).await;
        }
        let heard = gossip.heard().await;
        let now = Instant::now();
        let members = shared.roll.active();
        let config = shared.ledger.config();
        contacts.retain(|peer, _| members.contains_key(peer) || config.is_voter(peer));
        let mut snapshot = Snapshot { pool: shared.roll.pool(), ..Snapshot::default() };
        for peer in shared.roll.dismissed() {
            let live = peer != shared.me && config.is_voter(&peer) && {
                let contact = contacts.entry(peer).or_default();
                judge(&shared.net, peer, contact, heard.get(&peer), &mut probes, now)
            };
            snapshot.dismissed.insert(peer, live);
        }
        for (&peer, record) in &members {
            let heard = heard.get(&peer);
            let contact = contacts.entry(peer).or_default();
            let live = peer == shared.me || judge(&shared.net, peer, contact, heard, &mut probes, now);
            if !live && count.is_multiple_of(GREET_EVERY) {
                gossip.greet(peer);
            }
            if live != shared.view.is_live(peer) {
                info!(%peer, name = %record.name, live, "member's liveness changed");
            }
            let status = MemberStatus {
                peer,
                name: record.name.clone(),
                live,
                absent_for: contact.note_life(live, now),
                voter: config.voters.contains(&peer),
                joined_ms: record.joined_ms,
                addresses: record.addresses.clone(),
                told: heard.and_then(|heard| heard.told.clone()),
                round_trip: shared.net.round_trip(peer),
            };
            snapshot.members.insert(peer, status);
        }
        in_touch_since = config.is_quorum(&snapshot.live()).then(|| in_touch_since.unwrap_or(now));
        snapshot.in_touch_for = in_touch_since.map_or(Duration::ZERO, |since| now - since);
        hint_told_addresses(&shared.net, &heard, &members);
        shared.view.publish(snapshot);
    }
    gossip.stop();
}

fn judge(
    net: &Net,
    peer: PeerId,
    contact: &mut Contact,
    heard: Option<&Heard>,
    probes: &mut JoinSet<(PeerId, Option<u64>)>,
    now: Instant,
) -> bool {
    contact.note_connection(net.is_connected(peer), now);
    let evidence = contact.evidence(heard.is_some_and(|heard| heard.live), now);
    if evidence.is_doubtful() && contact.begin_probe(now) {
        let net = net.clone();
        probes.spawn(async move {
            match net.call(peer, Request::Ping, PROBE_TIMEOUT).await {
                Ok(Response::Pong { epoch }) => (peer, Some(epoch)),
                _ => (peer, None),
            }
        });
    }
    evidence.lives()
}

/// Peers tell where they are; the network is given it as a hint, which it keeps once.
fn hint_told_addresses<V>(net: &Net, heard: &HashMap<PeerId, Heard>, members: &BTreeMap<PeerId, V>) {
    for (&peer, heard) in heard {
        if peer == net.me() || !heard.live || !members.contains_key(&peer) || net.is_connected(peer) {
            continue;
        }
        for &address in heard.told.iter().flat_map(|told| &told.quic) {
            net.hint(peer, address);
        }
    }
}

/// What this peer tells of itself now.
pub(super) async fn own_figures(shared: &Shared) -> Told {
    let usage = shared.fragments.usage().await.unwrap_or_default();
    let services = *shared.services.read();
    let disks = shared.fragments.iter().filter(Backend::takes_writes).count();
    let is_voter = shared.ledger.config().voters.contains(&shared.me);
    Told {
        quic: super::address::advertised(shared.net.local_addr()),
        s3: services.s3.and_then(|listen| super::address::advertised(listen).first().copied()),
        admin: services.admin.and_then(|listen| super::address::advertised(listen).first().copied()),
        free: usage.free / FREE_STEP_BYTES * FREE_STEP_BYTES,
        used: usage.bytes,
        domain: shared.domain.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        role: if is_voter { "voter" } else { "learner" }.to_owned(),
        busy: shared.view.is_busy(),
        draining: shared.view.is_draining(),
        gateway: shared.is_gateway,
        disks: u8::try_from(disks).unwrap_or(u8::MAX),
        disks_apart: u8::try_from(shared.fragments.writable_apart()).unwrap_or(u8::MAX),
        disk_domains: shared.fragments.domains().into_iter().take(MAX_DISK_DOMAINS).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// The table of this room. Calling a dead peer alive costs writes a timeout each; calling a live one dead
    /// costs redundancy: each line says which evidence wins.
    #[test]
    fn evidence_is_weighed_as_written() {
        let nothing = Evidence::default();
        let cases = [
            ("never seen", nothing, false),
            ("heard only, as through others", Evidence { heard: true, ..nothing }, true),
            ("heard, but it cannot be dialled", Evidence { heard: true, unreachable: true, ..nothing }, false),
            ("just connected", Evidence { connected_for: Some(Duration::ZERO), ..nothing }, true),
            (
                "connected and silent: killed, not timed out yet",
                Evidence { connected_for: Some(LONG), ..nothing },
                false,
            ),
            (
                "connected, gossip late, answers",
                Evidence { connected_for: Some(LONG), answered: Some(Duration::ZERO), ..nothing },
                true,
            ),
            (
                "connected, answered long ago",
                Evidence { connected_for: Some(LONG), answered: Some(LONG), ..nothing },
                false,
            ),
            ("all is well", Evidence { connected_for: Some(LONG), heard: true, ..nothing }, true),
        ];
        for (name, evidence, lives) in cases {
            assert_eq!(evidence.lives(), lives, "{name}");
        }
        assert!(
            !Evidence { connected_for: Some(LONG), heard: true, ..nothing }.is_doubtful(),
            "nobody is asked in vain"
        );
    }

    /// A peer is restarted: the connection goes, dialling fails, then it is back. Its old failure must not count
    /// against the new connection.
    #[test]
    fn a_new_connection_clears_the_record() {
        let start = Instant::now();
        let mut contact = Contact::default();
        contact.note_connection(true, start);
        contact.note_connection(false, start);
        assert!(contact.begin_probe(start) && !contact.begin_probe(start), "one question at a time");
        contact.note_probe(false, start);
        assert!(!contact.begin_probe(start), "not at once again");
        assert!(!contact.evidence(true, start).lives());

        let back = start + LONG;
        contact.note_connection(true, back);
        assert!(contact.evidence(false, back).lives());
        assert!(!contact.evidence(false, back + FRESH).lives(), "gossip had its time");
    }
}
